//! The versions of a service and how it goes from one to the next, as they stand on record. Knows no task.

use protocol::{Exit, Job, JobId, Time};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Most versions of a job that are kept, the present one among them.
pub const VERSIONS_MAX: usize = 10;
/// Most bytes of why a deployment ended.
pub const WHY_BYTES_MAX: usize = 512;

/// Names a deployment: of one job, the first of it is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeploymentId {
    /// Whose.
    pub job: JobId,
    /// From 1.
    pub number: u32,
}

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "d{:x}-{}", self.job.0, self.number)
    }
}

/// Why a text names no deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a deployment's id looks like d12-3")]
pub struct NotADeployment;

impl FromStr for DeploymentId {
    type Err = NotADeployment;

    fn from_str(text: &str) -> Result<Self, NotADeployment> {
        let (job, number) = text.strip_prefix('d').and_then(|text| text.split_once('-')).ok_or(NotADeployment)?;
        let job = u64::from_str_radix(job, 16).map_err(|_| NotADeployment)?;
        Ok(Self { job: JobId(job), number: number.parse().map_err(|_| NotADeployment)? })
    }
}

/// What of a service is on record beside its tasks, once somebody has applied it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Versions that are not the present one, in the order of their numbers; fewer than [`VERSIONS_MAX`].
    pub versions: Vec<Version>,
    /// The highest number that a version was given.
    pub last_version: u32,
    /// When the present version was made, and why.
    pub since: Time,
    /// Why.
    pub cause: Cause,
    /// Tasks beyond the count, while versions change.
    pub extra: u32,
    /// How many deployments there were.
    pub deployments: u32,
    /// The last one, whether it is over or not.
    pub deployment: Option<Deployment>,
    /// True once all that it begins after did its work.
    pub released: bool,
}

/// A version of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// From 1.
    pub number: u32,
    /// What it was, with the count that it had last.
    pub job: Job,
    /// When it was made.
    pub since: Time,
    /// Why it was made.
    pub cause: Cause,
}

/// Why a version was made or returned to. New ones at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// Somebody applied another job file.
    #[default]
    Applied,
    /// Somebody wanted all tasks anew.
    Restarted,
    /// Somebody wanted an earlier version back.
    RolledBack,
    /// The version after it failed.
    Failed,
    /// Somebody wanted another number of tasks: the version is the same.
    Resized,
}

/// The way of a service from one version to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// From 1.
    pub number: u32,
    /// The version that holds until the new one has proved itself, or, on a way back, the one that is left; 0: there is none. Where only the number of
    /// tasks becomes another, the one that held before, where one did.
    pub from: u32,
    /// How many tasks that was to have: what a way back by itself returns to.
    pub from_count: u32,
    /// The version that is to be.
    pub to: u32,
    /// Why.
    pub cause: Cause,
    /// How it stands.
    pub state: State,
    /// When it began.
    pub started: Time,
    /// When it got into its state.
    pub since: Time,
    /// When it fails; moved on by the time in which it is held.
    pub deadline: Time,
    /// True where somebody said that all may follow the first ones.
    pub promoted: bool,
    /// How often tasks of the new version ended by themselves.
    pub failures: u32,
    /// The last of these: which task, and how.
    pub last_failure: Option<(u32, Exit)>,
    /// Why it failed or was cancelled, for people; of a way back after a failure, why that was one. Empty where there is nothing of that.
    pub why: String,
}

/// How a deployment stands. New ones at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It goes on.
    Running,
    /// The first tasks of the new version do their work: somebody is to say whether the others may follow.
    Waiting,
    /// Somebody wants it to stand still.
    Paused,
    /// All tasks are of the new version and do their work.
    Done,
    /// The new version did not prove itself.
    Failed,
    /// Somebody ended it, or something else took its place.
    Cancelled,
}

/// What happens to a deployment. New ones at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Turn {
    /// The first version of a job is to prove itself.
    Began,
    /// So many tasks run beyond the count from now on.
    Extra(u32),
    /// The first tasks do their work: it waits.
    Waits,
    /// All may follow.
    Promoted,
    /// It stands still.
    Paused,
    /// It goes on.
    Resumed,
    /// It is done.
    Done,
    /// It failed, and why.
    Failed(String),
    /// It was ended, and why.
    Cancelled(String),
    /// The job has another number of tasks than so many: that these are there is a deployment of its own.
    Resized(u32),
}

impl Deployment {
    /// True where it is not over.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        matches!(self.state, State::Running | State::Waiting | State::Paused)
    }

    /// True where it leads to a version that was good before: it never rolls back again, and what ends begins anew in that.
    #[must_use]
    pub const fn is_way_back(&self) -> bool {
        matches!(self.cause, Cause::RolledBack | Cause::Failed)
    }

    /// True where no version is another for it: only the number of tasks is, and all of them count alike.
    #[must_use]
    pub const fn is_resize(&self) -> bool {
        matches!(self.cause, Cause::Resized)
    }

    /// True where the version before can return in its place.
    #[must_use]
    pub const fn has_way_back(&self) -> bool {
        self.from > 0 && !self.is_way_back() && !self.is_resize()
    }

    /// True where its new version is not tried on a few tasks first: it was good before, or there is none before it.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.promoted || self.from == 0 || self.is_way_back() || self.is_resize()
    }

    /// The version in which tasks of the older one begin anew when they end by themselves; `None`: in the new one.
    #[must_use]
    pub const fn holds(&self) -> Option<u32> {
        match self.state {
            State::Done if !self.is_resize() => None,
            _ if self.from == 0 || self.is_way_back() => None,
            _ => Some(self.from),
        }
    }

    /// It is in another state.
    pub fn set(&mut self, state: State, at: Time) {
        let held = |state| matches!(state, State::Waiting | State::Paused);
        if held(self.state) && state == State::Running {
            self.deadline = self.deadline + at.0.saturating_sub(self.since.0);
        }
        // Held in another way, it has still been held since.
        if !(held(self.state) && held(state)) {
            self.since = at;
        }
        self.state = state;
    }
}

impl Rollout {
    /// Of a job of this version that was submitted then.
    #[must_use]
    pub fn of(version: u32, since: Time) -> Self {
        Self { last_version: version, since, ..Self::default() }
    }

    /// The deployment that is not over.
    #[must_use]
    pub fn active(&self) -> Option<&Deployment> {
        self.deployment.as_ref().filter(|deployment| deployment.is_active())
    }

    /// An earlier version.
    #[must_use]
    pub fn version(&self, number: u32) -> Option<&Version> {
        self.versions.iter().find(|version| version.number == number)
    }

    /// Keeps a version; forgets the first where there are too many, but not the version `needed`.
    pub fn keep(&mut self, version: Version, needed: u32) {
        let at = self.versions.partition_point(|other| other.number < version.number);
        self.versions.insert(at, version);
        while self.versions.len() >= VERSIONS_MAX {
            let Some(oldest) = self.versions.iter().position(|version| version.number != needed) else { return };
            self.versions.remove(oldest);
        }
    }
}

/// A text for people, as long as is kept.
#[must_use]
pub fn why(text: &str) -> String {
    let end = (0..=WHY_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written() {
        let id = DeploymentId { job: JobId(0xab), number: 7 };
        assert_eq!((id.to_string().as_str(), "dab-7".parse()), ("dab-7", Ok(id)));
        for wrong in ["", "d", "dab", "dab-", "jab-1", "dzz-1", "dab-x"] {
            assert_eq!(wrong.parse::<DeploymentId>(), Err(NotADeployment), "{wrong}");
        }
    }

    #[test]
    fn time_in_which_it_is_held_does_not_count() {
        let mut deployment = Deployment {
            number: 1,
            from: 1,
            from_count: 1,
            to: 2,
            cause: Cause::Applied,
            state: State::Running,
            started: Time(0),
            since: Time(0),
            deadline: Time(100),
            promoted: false,
            failures: 0,
            last_failure: None,
            why: String::new(),
        };
        deployment.set(State::Waiting, Time(40));
        deployment.set(State::Paused, Time(50));
        deployment.set(State::Running, Time(90));
        assert_eq!((deployment.deadline, deployment.since), (Time(150), Time(90)));
        assert_eq!(deployment.holds(), Some(1));
        deployment.set(State::Done, Time(95));
        assert_eq!((deployment.holds(), deployment.is_active()), (None, false));
        // That there are more tasks says nothing of which version is good.
        deployment.cause = Cause::Resized;
        assert_eq!((deployment.holds(), deployment.has_way_back()), (Some(1), false));
    }
}
