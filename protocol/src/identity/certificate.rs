//! What a certificate of this cluster says, read from its bytes. Nothing is believed here: who checks signatures says so.

use super::{IdentityError, Subject};
use crate::AgentId;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// Digits of a cluster's name.
pub(super) const CLUSTER_DIGITS: usize = 32;
const SCHEME: &str = "skep://";

/// What a certificate says.
pub(crate) struct Facts {
    /// The cluster it is of.
    pub cluster: String,
    /// Whom it names; `None`: the cluster's authority.
    pub subject: Option<Subject>,
    /// The first second that it holds in, of the Unix epoch.
    pub not_before_s: u64,
    /// The last second that it holds in.
    pub not_after_s: u64,
    /// The bits of its public key.
    pub public_key: Vec<u8>,
}

fn malformed(reason: impl Into<String>) -> IdentityError {
    IdentityError::Malformed { what: "a certificate".into(), reason: reason.into() }
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, IdentityError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(malformed("bytes are left behind it")),
        Err(error) => Err(malformed(error.to_string())),
    }
}

impl Facts {
    /// What the certificate in `der` says.
    pub(crate) fn of(der: &[u8]) -> Result<Self, IdentityError> {
        let certificate = parse(der)?;
        let names = certificate.subject_alternative_name().map_err(|error| malformed(error.to_string()))?;
        let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
        let mut uris = names.iter().filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None });
        let (Some(uri), None) = (uris.next(), uris.next()) else {
            return Err(malformed("it has not one URI among its names, but none or several"));
        };
        let (cluster, subject) = parse_uri(uri).ok_or_else(|| malformed("its URI is none of a Skep cluster's"))?;
        let validity = certificate.validity();
        let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
        Ok(Self {
            cluster: cluster.into(),
            subject,
            not_before_s: seconds(validity.not_before.timestamp()),
            not_after_s: seconds(validity.not_after.timestamp()),
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
        })
    }

    /// True where it holds no longer.
    pub(crate) fn is_expired(&self, now_s: u64) -> bool {
        now_s > self.not_after_s
    }
}

/// The URI of `subject` in `cluster`.
pub(super) fn uri(cluster: &str, subject: Option<Subject>) -> String {
    match subject {
        None => format!("{SCHEME}{cluster}/authority"),
        Some(Subject::Agent(agent)) => format!("{SCHEME}{cluster}/agent/{agent}"),
        Some(Subject::Master(number)) => format!("{SCHEME}{cluster}/master/{number}"),
    }
}

/// The inverse of [`uri`]; `None` for any other text.
fn parse_uri(text: &str) -> Option<(&str, Option<Subject>)> {
    let (cluster, path) = text.strip_prefix(SCHEME)?.split_once('/')?;
    let digits = cluster.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if cluster.len() != CLUSTER_DIGITS || !digits {
        return None;
    }
    let subject = match path.split_once('/') {
        None if path == "authority" => None,
        Some(("agent", id)) => Some(Subject::Agent(id.parse::<AgentId>().ok()?)),
        Some(("master", number)) => Some(Subject::Master(number.parse().ok()?)),
        _ => return None,
    };
    // One spelling for each name: `master/007` is none.
    (uri(cluster, subject) == text).then_some((cluster, subject))
}

/// Checks that each certificate is signed by the next and the last one by itself. Dates are not looked at.
pub(super) fn check_chain(chain_der: &[Vec<u8>]) -> Result<(), IdentityError> {
    let chain = chain_der.iter().map(|der| parse(der)).collect::<Result<Vec<_>, _>>()?;
    for (index, certificate) in chain.iter().enumerate() {
        let issuer = chain.get(index + 1).unwrap_or(certificate);
        let signed = certificate.verify_signature(Some(issuer.public_key()));
        signed.map_err(|_| malformed(format!("certificate {index} of a chain is not signed by the one that follows")))?;
    }
    Ok(())
}

/// Seconds of the Unix epoch; 0 before it.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_in_one_spelling_only() {
        let cluster = "0123456789abcdef0123456789abcdef";
        for subject in [None, Some(Subject::Agent(AgentId(7))), Some(Subject::Master(3))] {
            assert_eq!(parse_uri(&uri(cluster, subject)), Some((cluster, subject)));
        }
        for path in [
            "",
            "/",
            "/agent",
            "/agent/7",
            "/agent/0000000000000007/",
            "/agent/000000000000000G",
            "/master/007",
            "/master/+1",
            "/master/65536",
            "/authority/",
            "/operator/1",
            "/agent/../master/0",
        ] {
            assert_eq!(parse_uri(&format!("skep://{cluster}{path}")), None, "{path}");
        }
        for other in [
            "spiffe://0123456789abcdef0123456789abcdef/master/0",
            "skep://short/master/0",
            "skep://0123456789ABCDEF0123456789abcdef/master/0",
        ] {
            assert_eq!(parse_uri(other), None, "{other}");
        }
    }

    #[test]
    fn bytes_that_are_no_certificate_are_refused() {
        for bytes in [&b""[..], b"\x30", b"\x30\x84\xff\xff\xff\xff", &[0x30; 4_096], &[0; 64]] {
            assert!(Facts::of(bytes).is_err());
        }
    }
}
