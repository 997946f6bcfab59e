//! Who a certificate says you are: the cluster's own authority, the identities it issues, and the token that a machine joins with.
//!
//! Knows keys, certificates and the files they are in. Knows no connection. All keys are ECDSA P-256; names stand in one URI among the
//! subject's alternative names, `skep://CLUSTER/agent/ID` or `skep://CLUSTER/master/N`, and nothing else in a certificate says who it is.

mod authority;
pub(crate) mod certificate;
mod files;
mod token;

#[cfg(test)]
pub(crate) mod tests;

use crate::AgentId;
use certificate::{Facts, now_s};
use files::{Block, CERTIFICATE, KEY};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use authority::Authority;
#[cfg(test)]
pub(crate) use authority::Span;
pub use token::{JoinToken, draw_agent};

/// How long an agent's certificate holds; it is renewed at half of it.
pub const AGENT_LIFETIME: Duration = Duration::from_secs(24 * 3_600);
/// How long a master's certificate holds; a new one is issued at each start.
pub const MASTER_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3_600);

/// Certificates in an identity's chain: its own, the intermediate's, the root's.
const CHAIN_LENGTH: usize = 3;
const IDENTITY_FILE: &str = "identity.pem";

/// Why there is no identity to be had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file or folder could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Others than its owner may read a key.
    #[error("{path} may be used by others than its owner (mode {mode:o}): it should be 600")]
    Exposed {
        /// The file with the key.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Bytes are no certificate, no key or no request, or not such as this cluster uses.
    #[error("{what}: {reason}")]
    Malformed {
        /// What was read.
        what: String,
        /// Why it will not do.
        reason: String,
    },
    /// The cryptography library failed.
    #[error("making {what}: {reason}")]
    Crypto {
        /// What was to be made.
        what: &'static str,
        /// In the library's words.
        reason: String,
    },
}

/// Whom a certificate names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// An agent.
    Agent(AgentId),
    /// A master process of the cluster, counted from 1.
    Master(u16),
}

/// A key, the certificate for it and those above. Whole by construction: the chain is signed up to its root, and is for the key.
#[derive(Clone)]
pub struct Identity {
    chain_der: Vec<Vec<u8>>,
    key_pkcs8_der: Vec<u8>,
    subject: Subject,
    cluster: String,
    from_s: u64,
    until_s: u64,
}

impl Identity {
    /// The identity made of a certificate chain (own, intermediate, root) and its key (PKCS #8): what an agent gets from
    /// `JoinReply::Welcome` and its [`csr`].
    ///
    /// # Errors
    /// [`IdentityError::Malformed`] where the chain is no chain of a cluster's or not for this key.
    pub fn new(chain_der: Vec<Vec<u8>>, key_pkcs8_der: Vec<u8>) -> Result<Self, IdentityError> {
        let malformed = |reason: &str| IdentityError::Malformed { what: "an identity".into(), reason: reason.into() };
        if chain_der.len() != CHAIN_LENGTH {
            return Err(malformed("its chain is not of three certificates: its own, the intermediate's and the root's"));
        }
        certificate::check_chain(&chain_der)?;
        let facts = Facts::of(&chain_der[0])?;
        if Facts::of(&chain_der[CHAIN_LENGTH - 1])?.cluster != facts.cluster {
            return Err(malformed("its certificate and its root are of two clusters"));
        }
        if authority::key_pair(&key_pkcs8_der)?.public_key_raw() != facts.public_key {
            return Err(malformed("its certificate is for another key"));
        }
        let subject = facts.subject.ok_or_else(|| malformed("its certificate names nobody"))?;
        Ok(Self { chain_der, key_pkcs8_der, subject, cluster: facts.cluster, from_s: facts.not_before_s, until_s: facts.not_after_s })
    }

    /// Writes it to `identity.pem` in `dir`, all or nothing, for the owner alone; `dir` is made where it is not. Blocks.
    ///
    /// # Errors
    /// [`IdentityError::File`].
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        files::create_dir(dir)?;
        let key = Block::new(KEY, &self.key_pkcs8_der);
        let chain = self.chain_der.iter().map(|der| Block::new(CERTIFICATE, der));
        files::write(&dir.join(IDENTITY_FILE), &std::iter::once(key).chain(chain).collect::<Vec<_>>())
    }

    /// Reads what [`Identity::save`] wrote; `None` where there is none. Blocks.
    ///
    /// # Errors
    /// Those of the file and of its contents.
    pub fn load(dir: &Path) -> Result<Option<Self>, IdentityError> {
        let path = dir.join(IDENTITY_FILE);
        let Some(blocks) = files::read(&path)? else { return Ok(None) };
        let malformed = |reason: &str| IdentityError::Malformed { what: path.display().to_string(), reason: reason.into() };
        let (mut keys, mut chain) = (Vec::new(), Vec::new());
        for block in blocks {
            match block.label.as_str() {
                KEY => keys.push(block.der),
                CERTIFICATE => chain.push(block.der),
                _ => return Err(malformed("it has something in it that is neither a key nor a certificate")),
            }
        }
        let (Some(key), true) = (keys.pop(), keys.is_empty()) else {
            return Err(malformed("it has not one key in it, but none or several"));
        };
        Self::new(chain, key).map(Some)
    }

    /// Certificates in DER: its own, the intermediate's, the root's.
    #[must_use]
    pub fn chain_der(&self) -> &[Vec<u8>] {
        &self.chain_der
    }

    /// The private key, PKCS #8 in DER.
    #[must_use]
    pub fn key_pkcs8_der(&self) -> &[u8] {
        &self.key_pkcs8_der
    }

    /// The root's certificate in DER.
    #[must_use]
    pub fn root_der(&self) -> &[u8] {
        self.chain_der.last().expect("a chain has three certificates")
    }

    /// Whom it names.
    #[must_use]
    pub fn subject(&self) -> Subject {
        self.subject
    }

    /// The agent it names, if it names one.
    #[must_use]
    pub fn agent(&self) -> Option<AgentId> {
        if let Subject::Agent(agent) = self.subject { Some(agent) } else { None }
    }

    /// The cluster it is of: 32 hexadecimal digits.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// How long it still holds by this machine's clock; zero where it has expired.
    #[must_use]
    pub fn lifetime_left(&self) -> Duration {
        Duration::from_secs(self.until_s.saturating_sub(now_s()))
    }

    /// True where half of its lifetime is over: it is time to renew.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.lifetime_left().as_secs() <= self.until_s.saturating_sub(self.from_s) / 2
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("subject", &self.subject).field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// A new P-256 key (PKCS #8 in DER) and a certificate signing request for it (DER, RFC 2986).
///
/// # Errors
/// [`IdentityError::Crypto`].
pub fn csr() -> Result<(Vec<u8>, Vec<u8>), IdentityError> {
    let failed = |error: rcgen::Error| IdentityError::Crypto { what: "a certificate signing request", reason: error.to_string() };
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let request = CertificateParams::default().serialize_request(&key).map_err(failed)?;
    Ok((key.serialize_der(), request.der().to_vec()))
}
