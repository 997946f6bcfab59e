//! What a shard shows of versions and deployments, and what can be wanted of these: data only.

use crate::jobs::DeploymentId;
use crate::jobs::rollout::{Cause, State};
use protocol::{Exit, Job, JobId, Role, Time};
use serde::{Deserialize, Serialize};

/// What somebody wants of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeploymentWish {
    /// Stand still.
    Pause,
    /// Go on.
    Resume,
    /// The first tasks are good: all may follow.
    Promote,
    /// End.
    Cancel {
        /// True: go back to the version before; false: leave all as it is.
        back: bool,
    },
}

/// A deployment as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentView {
    /// Its id.
    pub id: DeploymentId,
    /// The job's role.
    pub role: Role,
    /// What people call the job.
    pub title: String,
    /// The version that holds until the new one has proved itself, or, on a way back, the one that is left; 0: there is none.
    pub from: u32,
    /// The version that is to be.
    pub to: u32,
    /// Why.
    pub cause: Cause,
    /// How it stands.
    pub state: State,
    /// Why it failed or was cancelled, for people; empty where it did not.
    pub why: String,
    /// When it began.
    pub started: Time,
    /// When it got into its state.
    pub since: Time,
    /// When it fails; while it is held, that moves on.
    pub deadline: Time,
    /// How many tasks are wanted.
    pub count: u32,
    /// How many of the new version do their work.
    pub ready: u32,
    /// How many of the new version there are.
    pub new: u32,
    /// How many of older versions there are.
    pub old: u32,
    /// How many of those do their work.
    pub old_ready: u32,
    /// How many tasks run beyond the count.
    pub extra: u32,
    /// How many may be replaced at a time.
    pub parallel: u32,
    /// So many of the new version come first, until somebody says that the others may follow; 0: nobody need say so any more.
    pub canary: u32,
    /// How often tasks of the new version ended by themselves.
    pub failures: u32,
    /// How often they may.
    pub failures_max: u32,
    /// The last of these: which task, and how.
    pub last_failure: Option<(u32, Exit)>,
    /// How many tasks there were to be before.
    pub from_count: u32,
}

impl DeploymentView {
    /// Whose it is.
    #[must_use]
    pub const fn job(&self) -> JobId {
        self.id.job
    }

    /// In how many steps it is done, where nothing goes wrong; at least 1.
    #[must_use]
    pub fn steps(&self) -> u32 {
        self.count.div_ceil(self.parallel.max(1)).max(1)
    }

    /// At which of them it is, from 1.
    #[must_use]
    pub fn step(&self) -> u32 {
        (self.ready.min(self.count) / self.parallel.max(1) + 1).min(self.steps())
    }
}

/// A version of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionView {
    /// From 1.
    pub number: u32,
    /// True for the present one.
    pub current: bool,
    /// What it is or was.
    pub job: Job,
    /// When it was made or last returned to.
    pub since: Time,
    /// Why.
    pub cause: Cause,
}
