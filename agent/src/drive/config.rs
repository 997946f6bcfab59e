//! What an agent is started with, and why it does not start.

use protocol::identity::{IdentityError, JoinToken};
use protocol::link::LinkError;
use protocol::{AgentId, Attributes, FaultDomain, Reservation};
use runtime::container::UnpackError;
use runtime::executor::process::Template;
use std::path::PathBuf;
use std::sync::Arc;

use crate::checkpoint::CheckpointError;
use crate::fingerprint::{FingerprintError, ResourcesError};

/// What an agent is started with.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Where everything is kept; one agent's alone.
    pub data_dir: PathBuf,
    /// Masters, `HOST:PORT`; any of them will do, since each says where all are.
    pub masters: Vec<String>,
    /// What the machine joins with, where it has not joined yet.
    pub join: Option<JoinToken>,
    /// What there is instead of what the machine says: see [`crate::fingerprint::overridden`].
    pub resources: Option<String>,
    /// What of that is kept for roles; each is fixed.
    pub reservations: Vec<Reservation>,
    /// What people call it; its host name where they say nothing.
    pub name: Option<String>,
    /// Facts about it, over those that it finds itself.
    pub attributes: Attributes,
    /// Where it stands.
    pub domain: FaultDomain,
    /// Most bytes of bundles and compiled code that are kept.
    pub bundle_cache_bytes_max: u64,
    /// True where what is promised and measured idle is lent to revocable tasks.
    pub revocable: bool,
    /// Where names of services are answered for over DNS, `HOST:PORT`: tasks that are processes are told.
    pub dns: Vec<String>,
    /// Does all that takes root, in this data directory.
    pub template: Arc<Template>,
}

impl AgentConfig {
    /// A config that says no more than it must.
    #[must_use]
    pub fn new(data_dir: PathBuf, masters: Vec<String>, template: Arc<Template>) -> Self {
        Self {
            data_dir,
            masters,
            join: None,
            resources: None,
            reservations: vec![],
            name: None,
            attributes: Attributes::new(),
            domain: FaultDomain::default(),
            bundle_cache_bytes_max: 10 << 30,
            revocable: false,
            dns: vec![],
            template,
        }
    }
}

/// Why an agent does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A file or folder of its data could not be made, read or written.
    #[error("{step} {path}: {source}")]
    File {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another agent has the data directory.
    #[error("{dir} is used by another agent that runs: each needs a data directory of its own")]
    InUse {
        /// Which.
        dir: PathBuf,
    },
    /// It never joined and has no token.
    #[error("{dir} has no identity: an agent's first start needs a join token, which a master prints")]
    NoIdentity {
        /// Where one was looked for.
        dir: PathBuf,
    },
    /// None of the masters' names leads anywhere.
    #[error("no master to be found at {masters:?}")]
    NoMaster {
        /// The names.
        masters: Vec<String>,
    },
    /// A master would not have it.
    #[error("the master refuses: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// An operator said that it is gone for good.
    #[error(
        "the cluster has let agent {agent} go for good (skep agents gone): its tasks have ended here; to take this machine in again, remove {dir} and join with a new token"
    )]
    Revoked {
        /// Which.
        agent: AgentId,
        /// Its data.
        dir: PathBuf,
    },
    /// A text that says what there is, and is wrong.
    #[error(transparent)]
    Resources(#[from] ResourcesError),
    /// What the agent would say of itself is too long, or says nothing.
    #[error("{field}: {reason}")]
    Info {
        /// Which part.
        field: &'static str,
        /// What would be right.
        reason: String,
    },
    /// The machine does not say what it is.
    #[error(transparent)]
    Fingerprint(#[from] FingerprintError),
    /// Its certificate or key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The link, before the agent was ever connected.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// What it took on cannot be put on record: it must not go on.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// What was unpacked cannot be had again.
    #[error("the store of what tasks are started from: {0}")]
    Store(#[from] UnpackError),
    /// Whatever forks its executors is gone.
    #[error("the agent's template was ended from outside: no task can be started any more, those that run go on; start the agent again")]
    Template,
    /// Its own thread is gone.
    #[error("the agent's thread ended without a word")]
    Gone,
}
