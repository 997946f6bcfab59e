//! What a shard puts on record: the only way its lasting state changes, and all that a follower or a recovery needs. Postcard, so variants
//! are appended and fields never change.

use super::drains::Mode;
use super::event::{Master, Policy, Token};
use super::limits::Quota;
use super::maintenance::Windows;
use super::plugins::PlugIn;
use super::quotas::RoleSettings;
use crate::frameworks::{FrameworkId, FrameworkInfo};
use crate::jobs::rollout::{Cause, Turn};
use crate::plugins::Kind;
use protocol::{AgentId, AgentInfo, AttemptId, Exit, Job, JobId, Reservation, Role, ShardId, Stand, Time, Usage};
use serde::{Deserialize, Serialize};

/// Version of the lasting state; stands at the head of each snapshot. Version 1 knew no masters, version 2 no frameworks, version 3 no
/// settings of roles, no groups of tasks, no windows of maintenance and no plug-ins, version 4 no reservations.
pub const RECORD_VERSION: u16 = 5;

/// One fact. New variants at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A job was submitted; its id follows from the shard's own count.
    Submitted {
        /// The id it was given.
        id: JobId,
        /// The job.
        job: Job,
        /// The client's idempotency key.
        key: Option<String>,
        /// When.
        at: Time,
    },
    /// A job has a new version.
    Applied {
        /// Which.
        id: JobId,
        /// What it is from now on.
        job: Job,
        /// When.
        at: Time,
    },
    /// A job has another count.
    Scaled {
        /// Which.
        id: JobId,
        /// How many tasks from now on.
        count: u32,
        /// When.
        at: Time,
    },
    /// A job is being stopped.
    Stopped {
        /// Which.
        id: JobId,
        /// Milliseconds until its tasks are ended by force.
        grace_ms: u64,
        /// When.
        at: Time,
    },
    /// Tasks of one job were given to an agent.
    Staged {
        /// The job.
        id: JobId,
        /// The agent.
        agent: AgentId,
        /// Which life of it.
        incarnation: u64,
        /// Index and number of each attempt.
        attempts: Vec<(u32, u32)>,
        /// When.
        at: Time,
    },
    /// Attempts of one job ended.
    Ended {
        /// The job.
        id: JobId,
        /// How each of them did.
        ends: Vec<Ended>,
        /// When.
        at: Time,
    },
    /// An agent registered in a shape or incarnation that is new.
    AgentSeen {
        /// Which.
        agent: AgentId,
        /// Its shape.
        info: AgentInfo,
        /// Its incarnation.
        incarnation: u64,
        /// When.
        at: Time,
    },
    /// An agent will not return.
    AgentGone {
        /// Which.
        agent: AgentId,
        /// When.
        at: Time,
    },
    /// A token was made.
    TokenCreated {
        /// The token.
        token: Token,
        /// When.
        at: Time,
    },
    /// A token is worthless: revoked, or used up by the agent.
    TokenEnded {
        /// Its id.
        id: String,
        /// The agent that used it up.
        used_by: Option<AgentId>,
        /// When.
        at: Time,
    },
    /// A role has another policy.
    PolicySet {
        /// Which role.
        role: Role,
        /// What it may from now on.
        policy: Policy,
        /// When.
        at: Time,
    },
    /// A master is let in, or is elsewhere than before.
    MasterSeen {
        /// Which.
        master: Master,
        /// When.
        at: Time,
    },
    /// A master was removed for good.
    MasterRemoved {
        /// Which.
        number: u16,
        /// When.
        at: Time,
    },
    /// A framework is there, or is another than before.
    FrameworkSet {
        /// Which; its id follows from the shard's own count.
        id: FrameworkId,
        /// What it is from now on.
        info: FrameworkInfo,
        /// When.
        at: Time,
    },
    /// A framework is gone for good.
    FrameworkRemoved {
        /// Which.
        id: FrameworkId,
        /// When.
        at: Time,
    },
    /// A framework has placed a task: a job of one task, given to an agent.
    Placed {
        /// Which framework.
        framework: FrameworkId,
        /// What it calls the task.
        name: String,
        /// How long it has to stop where nobody says otherwise, in milliseconds.
        grace_ms: u64,
        /// The id that the job was given.
        id: JobId,
        /// The job.
        job: Job,
        /// The agent.
        agent: AgentId,
        /// Which life of it.
        incarnation: u64,
        /// When.
        at: Time,
    },
    /// An agent is given tasks, or none any more.
    AgentMode {
        /// Which.
        agent: AgentId,
        /// How it is from now on.
        mode: Mode,
        /// When.
        at: Time,
    },
    /// A framework has acknowledged the ends of these tasks.
    Acknowledged {
        /// Which framework.
        framework: FrameworkId,
        /// What it called them.
        names: Vec<String>,
        /// When.
        at: Time,
    },
    /// A role is served otherwise than before; on shard 0.
    RoleSet {
        /// Which.
        role: Role,
        /// How from now on.
        settings: RoleSettings,
        /// When.
        at: Time,
    },
    /// A shard may hold so much of a role's limit; on shard 0. Of a version of its own, as `RoleSet` with another limit is.
    Granted {
        /// Which role.
        role: Role,
        /// Which shard.
        shard: ShardId,
        /// How much.
        amounts: Quota,
        /// When.
        at: Time,
    },
    /// The same on the shard that may: how much its live tasks of the role may hold.
    Allowed {
        /// Which role.
        role: Role,
        /// Of the grant.
        version: u64,
        /// How much; empty: there is no limit any longer.
        limit: Quota,
        /// When.
        at: Time,
    },
    /// How an agent stands that is given tasks of a job, whose placement counts where they are; on record until the last of them there has ended.
    AgentStands {
        /// The job.
        id: JobId,
        /// The agent.
        agent: AgentId,
        /// How it stands.
        stand: Stand,
        /// When.
        at: Time,
    },
    /// A framework has placed tasks that belong together, each a job of one task, given to the same agent.
    PlacedGroup {
        /// Which framework.
        framework: FrameworkId,
        /// They; at least one.
        tasks: Vec<PlacedTask>,
        /// The agent.
        agent: AgentId,
        /// Which life of it.
        incarnation: u64,
        /// When.
        at: Time,
    },
    /// These are the windows in which agents are maintained; on shard 0.
    WindowsSet {
        /// All of them.
        windows: Windows,
        /// When.
        at: Time,
    },
    /// A plug-in is another than before; on shard 0.
    PlugInSet {
        /// What it says.
        kind: Kind,
        /// Of which role with all below it; `None`: of all of which nothing else is said.
        role: Option<Role>,
        /// What it is from now on; `None`: there is none.
        plug_in: Option<PlugIn>,
        /// When.
        at: Time,
    },
    /// All that is kept of an agent for roles, in place of what was.
    ReservationsSet {
        /// Which agent.
        agent: AgentId,
        /// They; empty: nothing is kept any more.
        reservations: Vec<Reservation>,
        /// When.
        at: Time,
    },
    /// A service goes to another version.
    Deployed {
        /// Which.
        id: JobId,
        /// What it is from now on.
        job: Job,
        /// The number of the earlier version that this is; `None`: it is a new one.
        back_to: Option<u32>,
        /// Why.
        cause: Cause,
        /// When.
        at: Time,
    },
    /// A service is otherwise in what needs no new tasks.
    Retuned {
        /// Which.
        id: JobId,
        /// What it is from now on.
        job: Job,
        /// When.
        at: Time,
    },
    /// Tasks of an older version that wait begin anew in the present one, and at once.
    Turned {
        /// The job.
        id: JobId,
        /// Which.
        indexes: Vec<u32>,
        /// When.
        at: Time,
    },
    /// All that a job begins after does its work.
    Released {
        /// Which job.
        id: JobId,
        /// When.
        at: Time,
    },
    /// Something happens to a job's deployment.
    DeploymentTurned {
        /// The job.
        id: JobId,
        /// What.
        turn: Turn,
        /// When.
        at: Time,
    },
    /// Agents are to have a task of a system job each, or are to have none any more.
    Matched {
        /// The job.
        id: JobId,
        /// Those that are to have one.
        joined: Vec<AgentId>,
        /// Those that are not.
        left: Vec<AgentId>,
        /// When.
        at: Time,
    },
}

/// A task of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedTask {
    /// What its framework calls it.
    pub name: String,
    /// How long it has to stop where nobody says otherwise, in milliseconds.
    pub grace_ms: u64,
    /// The id that the job was given.
    pub id: JobId,
    /// The job.
    pub job: Job,
}

impl Record {
    /// When it was made.
    #[must_use]
    pub const fn at(&self) -> Time {
        match self {
            Self::Submitted { at, .. }
            | Self::Applied { at, .. }
            | Self::Scaled { at, .. }
            | Self::Stopped { at, .. }
            | Self::Staged { at, .. }
            | Self::Ended { at, .. }
            | Self::AgentSeen { at, .. }
            | Self::AgentGone { at, .. }
            | Self::TokenCreated { at, .. }
            | Self::TokenEnded { at, .. }
            | Self::PolicySet { at, .. }
            | Self::MasterSeen { at, .. }
            | Self::MasterRemoved { at, .. }
            | Self::FrameworkSet { at, .. }
            | Self::FrameworkRemoved { at, .. }
            | Self::Placed { at, .. }
            | Self::AgentMode { at, .. }
            | Self::Acknowledged { at, .. }
            | Self::RoleSet { at, .. }
            | Self::Granted { at, .. }
            | Self::Allowed { at, .. }
            | Self::AgentStands { at, .. }
            | Self::PlacedGroup { at, .. }
            | Self::WindowsSet { at, .. }
            | Self::PlugInSet { at, .. }
            | Self::ReservationsSet { at, .. }
            | Self::Deployed { at, .. }
            | Self::Retuned { at, .. }
            | Self::Turned { at, .. }
            | Self::Released { at, .. }
            | Self::DeploymentTurned { at, .. }
            | Self::Matched { at, .. } => *at,
        }
    }
}

/// The end of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The task's index.
    pub index: u32,
    /// The attempt's number.
    pub number: u32,
    /// How.
    pub exit: Exit,
    /// What it used.
    pub usage: Usage,
}

impl Ended {
    /// The attempt of `job` that ended.
    #[must_use]
    pub const fn attempt(&self, job: JobId) -> AttemptId {
        AttemptId::new(job, self.index, self.number)
    }
}
