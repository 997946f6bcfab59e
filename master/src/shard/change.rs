//! What those who watch are told.

use super::deployment_view::DeploymentView;
use super::event::Word;
use crate::frameworks::{FrameworkId, OwnView};
use protocol::task::Placed;
use protocol::{AgentId, JobId, Phase, Role};
use serde::{Deserialize, Serialize};

/// Something that those who watch may want to know. Committed before it is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Change {
    /// A job is new or has a new version, count or end.
    Job {
        /// Which.
        job: JobId,
        /// Its role.
        role: Role,
        /// What people call it.
        title: String,
        /// `submitted`, `applied`, `scaled`, `stopping`, `ended`.
        what: Word,
    },
    /// Tasks of one job are in another state.
    Tasks {
        /// The job.
        job: JobId,
        /// Its role.
        role: Role,
        /// The state.
        phase: Phase,
        /// Which attempts, at most 4,096; and where.
        placed: Vec<Placed>,
    },
    /// An agent came, went or returned.
    Agent {
        /// Which.
        agent: AgentId,
        /// What people call it.
        name: String,
        /// `registered`, `unreachable`, `reachable`, `lost`, `gone`, `draining`, `maintenance`, `inactive`, `active`.
        what: Word,
    },
    /// The tokens on record are others now.
    Tokens,
    /// The policies on record are others now.
    Policies,
    /// The masters on record are others now.
    Masters,
    /// A framework came, went or returned.
    Framework {
        /// Which.
        framework: FrameworkId,
        /// What people call it.
        name: String,
        /// `subscribed`, `disconnected`, `updated`, `removed`.
        what: Word,
    },
    /// A task of a framework is new or in another state.
    Own {
        /// Whose.
        framework: FrameworkId,
        /// The task.
        task: OwnView,
        /// True where it is new.
        new: bool,
    },
    /// The windows of maintenance on record are others now.
    Maintenance,
    /// The plug-ins on record are others now.
    PlugIns,
    /// Tasks of one job that have checks are well, or no longer, or not yet.
    Health {
        /// The job.
        job: JobId,
        /// Its role.
        role: Role,
        /// `healthy`, `unready` or `unhealthy`.
        health: Word,
        /// Which attempts, at most 256, and where; and why they are not well, for people.
        found: Vec<(Placed, String)>,
    },
    /// A deployment is new or has gone on.
    Deployment {
        /// How it stands.
        view: Box<DeploymentView>,
        /// `started`, `step`, `waiting`, `promoted`, `paused`, `resumed`, `done`, `failed`, `cancelled`.
        what: Word,
    },
}
