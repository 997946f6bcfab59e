//! The cluster's own authority: a root, made at the first start, whose key may then be taken away, and the intermediate that signs.

use super::certificate::{Facts, check_chain, now_s, uri};
use super::files::{self, Block, CERTIFICATE, KEY};
use super::token::{draw, hex};
use super::{Identity, IdentityError, Subject};
use crate::link::ResetKey;
use crate::{AgentId, Digest};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use ring::hmac;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// How long the root holds: about 30 years.
const ROOT_LIFETIME: Duration = Duration::from_secs(30 * 365 * 86_400);
/// How long the intermediate holds: about 5 years. In its last quarter a start of the master makes a new one, if the root's key is there.
const INTERMEDIATE_LIFETIME: Duration = Duration::from_secs(5 * 365 * 86_400);
/// The authority's own certificates hold from this long before they were made, so that none they sign is older, whichever clock is ahead.
const EARLY: Duration = Duration::from_secs(3_600);
/// Longest certificate signing request: one for P-256 has about 250 bytes.
const CSR_BYTES_MAX: usize = 4_096;
/// Most names and addresses of a master, and the longest of them (RFC 1035 section 2.3.4).
const HOSTS_MAX: usize = 64;
const HOST_BYTES_MAX: usize = 253;

const ROOT_FILE: &str = "root.pem";
const ROOT_KEY_FILE: &str = "root.key.pem";
const INTERMEDIATE_FILE: &str = "intermediate.pem";

/// The cluster's own authority. Its folder has `root.pem`; `root.key.pem`, which may be kept elsewhere once it is made; and
/// `intermediate.pem`, a certificate with its key. The folder's mode is 700, its files' 600.
pub struct Authority {
    cluster: String,
    root_der: Vec<u8>,
    intermediate_der: Vec<u8>,
    intermediate_until_s: u64,
    issuer: Issuer<'static, KeyPair>,
}

/// From when until when a certificate holds, in seconds of the Unix epoch.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub from_s: u64,
    pub until_s: u64,
}

impl Span {
    fn from_now(lifetime: Duration) -> Self {
        let from_s = now_s();
        Self { from_s, until_s: from_s.saturating_add(lifetime.as_secs()) }
    }

    fn of_authority(lifetime: Duration) -> Self {
        let span = Self::from_now(lifetime);
        Self { from_s: span.from_s.saturating_sub(EARLY.as_secs()), ..span }
    }
}

fn crypto(what: &'static str) -> impl Fn(rcgen::Error) -> IdentityError {
    move |error| IdentityError::Crypto { what, reason: error.to_string() }
}

fn malformed(what: impl Into<String>, reason: impl Into<String>) -> IdentityError {
    IdentityError::Malformed { what: what.into(), reason: reason.into() }
}

impl Authority {
    /// The authority in `dir`, made there where `dir` is not or is empty. Blocks.
    ///
    /// # Errors
    /// Those of its files and of what is in them; a folder with other files in it is left as it is.
    pub fn open_or_create(dir: &Path) -> Result<Self, IdentityError> {
        let root = dir.join(ROOT_FILE);
        let is_fresh = match std::fs::read_dir(dir) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            Err(error) => return Err(files::file_error(dir)(error)),
        };
        if is_fresh {
            create(dir)?;
        }
        let missing = |path: &Path| files::file_error(path)(std::io::ErrorKind::NotFound.into());
        let blocks = files::read(&root)?.ok_or_else(|| missing(&root))?;
        let root_der = only(&blocks, CERTIFICATE, &root)?;
        let path = dir.join(INTERMEDIATE_FILE);
        let blocks = files::read(&path)?.ok_or_else(|| missing(&path))?;
        let opened = Self::from_parts(root_der, only(&blocks, CERTIFICATE, &path)?, &only(&blocks, KEY, &path)?)?;
        if opened.intermediate_until_s > now_s().saturating_add(INTERMEDIATE_LIFETIME.as_secs() / 4) {
            return Ok(opened);
        }
        let renewed = opened.with_new_intermediate(dir)?;
        if renewed.is_none() {
            tracing::warn!(dir = %dir.display(), "the intermediate certificate ends soon and {ROOT_KEY_FILE} is not here to make a new one");
        }
        Ok(renewed.unwrap_or(opened))
    }

    /// The same, with another intermediate; `None` where the root's key is not in `dir`.
    pub(crate) fn with_new_intermediate(&self, dir: &Path) -> Result<Option<Self>, IdentityError> {
        let Some(blocks) = files::read(&dir.join(ROOT_KEY_FILE))? else { return Ok(None) };
        let root_key = key_pair(&only(&blocks, KEY, &dir.join(ROOT_FILE))?)?;
        let (der, key_der) = intermediate(&self.cluster, &self.root_der, root_key)?;
        files::write(&dir.join(INTERMEDIATE_FILE), &[Block::new(CERTIFICATE, &der), Block::new(KEY, &key_der)])?;
        Self::from_parts(self.root_der.clone(), der, &key_der).map(Some)
    }

    fn from_parts(root_der: Vec<u8>, intermediate_der: Vec<u8>, key_der: &[u8]) -> Result<Self, IdentityError> {
        let root = Facts::of(&root_der)?;
        let facts = Facts::of(&intermediate_der)?;
        check_chain(&[intermediate_der.clone(), root_der.clone()])?;
        let key = key_pair(key_der)?;
        if facts.public_key != key.public_key_raw() || facts.cluster != root.cluster {
            return Err(malformed(INTERMEDIATE_FILE, "its key or its cluster is another one's"));
        }
        let der = CertificateDer::from(intermediate_der.clone());
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(crypto("an issuer"))?;
        Ok(Self { cluster: root.cluster, root_der, intermediate_der, intermediate_until_s: facts.not_after_s, issuer })
    }

    /// Takes over, in `dir`, what another master of the cluster signs with: see [`Self::intermediate`]. The root's key stays where it is.
    /// Blocks.
    ///
    /// # Errors
    /// [`IdentityError::Malformed`] where the parts do not belong together, and those of the files; one that is there already stays.
    pub fn adopt(dir: &Path, root_der: &[u8], intermediate_der: &[u8], key_der: &[u8]) -> Result<Self, IdentityError> {
        let adopted = Self::from_parts(root_der.to_vec(), intermediate_der.to_vec(), key_der)?;
        if dir.join(ROOT_FILE).exists() {
            return Err(files::file_error(dir)(std::io::ErrorKind::AlreadyExists.into()));
        }
        files::create_dir(dir)?;
        files::write(&dir.join(INTERMEDIATE_FILE), &[Block::new(CERTIFICATE, intermediate_der), Block::new(KEY, key_der)])?;
        files::write(&dir.join(ROOT_FILE), &[Block::new(CERTIFICATE, root_der)])?;
        Ok(adopted)
    }

    /// The intermediate's certificate in DER and its key (PKCS #8 in DER): for another master of the cluster, and for nobody else.
    #[must_use]
    pub fn intermediate(&self) -> (&[u8], Vec<u8>) {
        (&self.intermediate_der, self.issuer.key().serialize_der())
    }

    /// The root's certificate in DER.
    #[must_use]
    pub fn root_der(&self) -> &[u8] {
        &self.root_der
    }

    /// The root's certificate in PEM.
    #[must_use]
    pub fn root_pem(&self) -> String {
        files::pem_of(CERTIFICATE, &self.root_der)
    }

    /// What a join token pins: the SHA-256 of the root's certificate.
    #[must_use]
    pub fn root_digest(&self) -> Digest {
        Digest::of(&self.root_der)
    }

    /// The cluster's name: 32 hexadecimal digits, drawn when it was made.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// A new identity for the master `number`, reached under `hosts` (names and addresses).
    ///
    /// # Errors
    /// [`IdentityError::Malformed`] where a host is neither a name nor an address, and [`IdentityError::Crypto`].
    pub fn issue_master(&self, number: u16, hosts: &[String], lifetime: Duration) -> Result<Identity, IdentityError> {
        let mut params = self.leaf(Subject::Master(number), Span::from_now(lifetime))?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if hosts.len() > HOSTS_MAX {
            return Err(malformed("the master's names", format!("{} of them: at most {HOSTS_MAX} may be", hosts.len())));
        }
        for host in hosts {
            params.subject_alt_names.push(host_name(host)?);
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(crypto("a key"))?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(crypto("a master's certificate"))?;
        Identity::new(self.chain(certificate.der()), key.serialize_der())
    }

    /// What the listener of master `number` knows its former connections by: the same at each start, for as long as the intermediate is.
    #[must_use]
    pub fn reset_key(&self, number: u16) -> ResetKey {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.issuer.key().serialize_der());
        let signed = hmac::sign(&key, format!("skep: stateless resets of master {number}").as_bytes());
        ResetKey::new(signed.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// A certificate chain for `agent` and the key of a request: its own, the intermediate's, the root's. Of the request only the key is
    /// believed, and that whoever made it holds the key.
    ///
    /// # Errors
    /// [`IdentityError::Malformed`] where the request is none, is not signed by its key or is not for a P-256 key.
    pub fn issue_agent(&self, agent: AgentId, csr_der: &[u8], lifetime: Duration) -> Result<Vec<Vec<u8>>, IdentityError> {
        self.issue_agent_for(agent, csr_der, Span::from_now(lifetime))
    }

    pub(crate) fn issue_agent_for(&self, agent: AgentId, csr_der: &[u8], span: Span) -> Result<Vec<Vec<u8>>, IdentityError> {
        const WHAT: &str = "a certificate signing request";
        if csr_der.len() > CSR_BYTES_MAX {
            return Err(malformed(WHAT, format!("{} bytes: at most {CSR_BYTES_MAX} are allowed", csr_der.len())));
        }
        let request = CertificateSigningRequestParams::from_der(&csr_der.into()).map_err(|error| malformed(WHAT, error.to_string()))?;
        if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(malformed(WHAT, "its key is not an ECDSA P-256 key"));
        }
        let mut params = self.leaf(Subject::Agent(agent), span)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&request.public_key, &self.issuer).map_err(crypto("an agent's certificate"))?;
        Ok(self.chain(certificate.der()))
    }

    fn chain(&self, leaf: &[u8]) -> Vec<Vec<u8>> {
        vec![leaf.to_vec(), self.intermediate_der.clone(), self.root_der.clone()]
    }

    /// What all certificates but the authority's own have in common. None holds longer than the one that signs it.
    fn leaf(&self, subject: Subject, span: Span) -> Result<CertificateParams, IdentityError> {
        let span = Span { until_s: span.until_s.min(self.intermediate_until_s), ..span };
        let mut params = base_params(&self.cluster, Some(subject), span)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

/// Makes a new cluster's authority in `dir`: the whole folder appears at once.
fn create(dir: &Path) -> Result<(), IdentityError> {
    let cluster = hex(&draw::<16>()?);
    let root_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(crypto("a key"))?;
    let mut params = base_params(&cluster, None, Span::of_authority(ROOT_LIFETIME))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = params.self_signed(&root_key).map_err(crypto("the root's certificate"))?;
    let root_key_der = root_key.serialize_der();
    let (der, key_der) = intermediate(&cluster, root.der(), root_key)?;

    let draft = dir.with_extension(format!("new-{}", std::process::id()));
    match std::fs::remove_dir_all(&draft) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(files::file_error(&draft)(error)),
        _ => files::create_dir(&draft)?,
    }
    files::write(&draft.join(ROOT_KEY_FILE), &[Block::new(KEY, &root_key_der)])?;
    files::write(&draft.join(ROOT_FILE), &[Block::new(CERTIFICATE, root.der())])?;
    files::write(&draft.join(INTERMEDIATE_FILE), &[Block::new(CERTIFICATE, &der), Block::new(KEY, &key_der)])?;
    std::fs::rename(&draft, dir).map_err(files::file_error(dir))?;
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => files::sync_dir(parent),
        _ => files::sync_dir(Path::new(".")),
    }
}

/// A new intermediate, signed by the root: its certificate and its key.
fn intermediate(cluster: &str, root_der: &[u8], root_key: KeyPair) -> Result<(Vec<u8>, Vec<u8>), IdentityError> {
    let until_s = Facts::of(root_der)?.not_after_s;
    let span = Span::of_authority(INTERMEDIATE_LIFETIME);
    let mut params = base_params(cluster, None, Span { until_s: span.until_s.min(until_s), ..span })?;
    params.distinguished_name = common_name(&format!("Skep {cluster} intermediate {}", span.from_s));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(crypto("a key"))?;
    let root = Issuer::from_ca_cert_der(&root_der.into(), root_key).map_err(crypto("an issuer"))?;
    let certificate = params.signed_by(&key, &root).map_err(crypto("the intermediate's certificate"))?;
    Ok((certificate.der().to_vec(), key.serialize_der()))
}

fn base_params(cluster: &str, subject: Option<Subject>, span: Span) -> Result<CertificateParams, IdentityError> {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.not_before = epoch + Duration::from_secs(span.from_s);
    params.not_after = epoch + Duration::from_secs(span.until_s);
    // 16 bytes, the first bit 0: RFC 5280 section 4.1.2.2 wants a positive number.
    let mut serial = draw::<16>()?;
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = common_name(&match subject {
        None => format!("Skep {cluster} root"),
        Some(Subject::Agent(agent)) => format!("Skep agent {agent}"),
        Some(Subject::Master(number)) => format!("Skep master {number}"),
    });
    let uri = Ia5String::try_from(uri(cluster, subject)).map_err(crypto("a name"))?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    Ok(params)
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

fn host_name(host: &str) -> Result<SanType, IdentityError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let right = host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    if host.is_empty() || host.len() > HOST_BYTES_MAX || !right {
        return Err(malformed(format!("the master's name {host:?}"), "it is neither a DNS name nor an address"));
    }
    Ok(SanType::DnsName(Ia5String::try_from(host).map_err(crypto("a name"))?))
}

/// The key in `der`, which must be an ECDSA P-256 key.
pub(super) fn key_pair(der: &[u8]) -> Result<KeyPair, IdentityError> {
    let key = PrivatePkcs8KeyDer::from(der.to_vec());
    KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256).map_err(|error| malformed("a private key", error.to_string()))
}

/// The one block of this label.
fn only(blocks: &[Block], label: &str, path: &Path) -> Result<Vec<u8>, IdentityError> {
    let mut found = blocks.iter().filter(|block| block.label == label);
    match (found.next(), found.next()) {
        (Some(block), None) => Ok(block.der.clone()),
        _ => Err(malformed(path.display().to_string(), format!("it has not one {label} in it, but none or several"))),
    }
}
