//! Who a certificate says you are: the cluster's own authority, the identities it issues, and the token that a machine joins with.
//!
//! Knows keys, certificates and the files they are in. Knows no connection. All keys are ECDSA P-256; names stand in one URI among the
//! subject's alternative names, `skep://CLUSTER/agent/ID` or `skep://CLUSTER/master/N`, and nothing else in a certificate is believed.

use crate::{AgentId, Digest};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an agent's certificate holds; it is renewed at half of it.
pub const AGENT_LIFETIME: Duration = Duration::from_secs(24 * 3_600);
/// How long a master's certificate holds; a new one is issued at each start.
pub const MASTER_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3_600);

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
    #[error("{path} may be read by others than its owner (mode {mode:o}): it should be 600")]
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
    /// A master process of the cluster, counted from 0.
    Master(u16),
}

/// A key, the certificate for it and those above.
#[derive(Clone)]
pub struct Identity {
    /// Certificates in DER, its own first, then the intermediate's; the root's may follow.
    pub chain_der: Vec<Vec<u8>>,
    /// The private key, PKCS #8 in DER.
    pub key_pkcs8_der: Vec<u8>,
    /// The root's certificate in DER.
    pub root_der: Vec<u8>,
}

impl Identity {
    /// The identity that an agent gets from its key and a `JoinReply::Welcome`.
    ///
    /// # Errors
    /// [`IdentityError::Malformed`] where the chain is no chain of this cluster's or not for this key.
    pub fn new(chain_der: Vec<Vec<u8>>, key_pkcs8_der: Vec<u8>) -> Result<Self, IdentityError> {
        let _ = (chain_der, key_pkcs8_der);
        unimplemented!()
    }
    /// Writes it to `identity.pem` in `dir`, all or nothing, readable by the owner alone. Blocks.
    ///
    /// # Errors
    /// [`IdentityError::File`].
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        let _ = dir;
        unimplemented!()
    }
    /// Reads what [`Identity::save`] wrote; `None` where there is none. Blocks.
    ///
    /// # Errors
    /// Those of the file and of its contents.
    pub fn load(dir: &Path) -> Result<Option<Self>, IdentityError> {
        let _ = dir;
        unimplemented!()
    }
    /// Whom it names.
    #[must_use]
    pub fn subject(&self) -> Subject {
        unimplemented!()
    }
    /// The cluster it is of.
    #[must_use]
    pub fn cluster(&self) -> &str {
        unimplemented!()
    }
    /// How much of its lifetime is left: zero where it has expired.
    #[must_use]
    pub fn lifetime_left(&self) -> Duration {
        unimplemented!()
    }
    /// True where half of its lifetime is over: then it is time to renew.
    #[must_use]
    pub fn is_due(&self) -> bool {
        unimplemented!()
    }
}

/// The cluster's own authority: a root, and the intermediate that signs.
pub struct Authority {
    cluster: String,
    root_der: Vec<u8>,
}

impl Authority {
    /// The authority in `dir`, made there at the first start. Blocks.
    ///
    /// # Errors
    /// Those of its files and of what is in them.
    pub fn open_or_create(dir: &Path) -> Result<Self, IdentityError> {
        let _ = dir;
        unimplemented!()
    }
    /// The root's certificate in DER.
    #[must_use]
    pub fn root_der(&self) -> &[u8] {
        &self.root_der
    }
    /// The root's certificate in PEM.
    #[must_use]
    pub fn root_pem(&self) -> String {
        unimplemented!()
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
    /// A new identity for a master process that is reached under `hosts` (names and addresses).
    ///
    /// # Errors
    /// [`IdentityError::Malformed`] where a host is no name, and [`IdentityError::Crypto`].
    pub fn issue_master(&self, hosts: &[String], lifetime: Duration) -> Result<Identity, IdentityError> {
        let _ = (hosts, lifetime);
        unimplemented!()
    }
    /// A certificate chain for `agent`, for the key of the request: own, intermediate, root. Of the request only the key is believed.
    ///
    /// # Errors
    /// [`IdentityError::Malformed`] where the request is none, is not signed by its key or is not for a P-256 key.
    pub fn issue_agent(&self, agent: AgentId, csr_der: &[u8], lifetime: Duration) -> Result<Vec<Vec<u8>>, IdentityError> {
        let _ = (agent, csr_der, lifetime);
        unimplemented!()
    }
}

/// What a machine joins with: `ID.SECRET.ROOT`, printed by the master, typed by people. Its `Debug` keeps the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Names it in the master's list.
    pub id: String,
    /// Proves that one holds it; the master keeps only its SHA-256.
    pub secret: String,
    /// The SHA-256 of the root's certificate that the master must show.
    pub root: Digest,
}

impl JoinToken {
    /// A new token, drawn at random.
    ///
    /// # Errors
    /// [`IdentityError::Crypto`] where the system gives no randomness.
    pub fn draw(root: Digest) -> Result<Self, IdentityError> {
        let _ = root;
        unimplemented!()
    }
}

impl std::fmt::Display for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.id, self.secret, self.root)
    }
}

impl std::str::FromStr for JoinToken {
    type Err = crate::ids::IdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let _ = text;
        unimplemented!()
    }
}

/// A new agent's id, drawn at random.
///
/// # Errors
/// [`IdentityError::Crypto`] where the system gives no randomness.
pub fn draw_agent() -> Result<AgentId, IdentityError> {
    unimplemented!()
}

/// A new P-256 key (PKCS #8 in DER) and a certificate signing request for it (DER).
///
/// # Errors
/// [`IdentityError::Crypto`].
pub fn csr() -> Result<(Vec<u8>, Vec<u8>), IdentityError> {
    unimplemented!()
}
