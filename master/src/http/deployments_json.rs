//! Versions and deployments as JSON.

use super::jobs_json::{ExitBody, SpecBody};
use crate::jobs::rollout::{Cause, State};
use crate::shard::deployment_view::{DeploymentView, VersionView};
use serde::Serialize;
use utoipa::ToSchema;

/// A deployment: the way of a service from one version to another.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DeploymentBody {
    /// Its id, as `d2a-3`.
    pub id: String,
    /// The job's id.
    pub job: String,
    /// The job's role.
    pub role: String,
    /// What people call the job.
    pub title: String,
    /// The version that holds until the new one has proved itself, or, on a way back, the one that is left; 0: there is none.
    pub from: u32,
    /// The version that is to be.
    pub to: u32,
    /// `applied`, `restarted`, `rolled-back`, `resized` or `failed`: the version after it failed, and it returns by itself.
    pub cause: &'static str,
    /// `running`, `waiting` (to be promoted), `paused`, `done`, `failed` or `cancelled`.
    pub state: &'static str,
    /// How it stands, in one sentence for people.
    pub text: String,
    /// Why it failed or was cancelled; where it returns by itself, why the version after it failed. Empty where there is nothing of that.
    pub why: String,
    /// When it began, in milliseconds of the Unix epoch.
    pub started_ms: u64,
    /// When it got into its state.
    pub since_ms: u64,
    /// When it fails; while it is held, that moves on.
    pub deadline_ms: u64,
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
    /// At which step it is, from 1.
    pub step: u32,
    /// In how many it is done.
    pub steps: u32,
    /// So many of the new version come first, until somebody says that the others may follow; 0: nobody need say so.
    pub canary: u32,
    /// How often tasks of the new version ended by themselves.
    pub failures: u32,
    /// How often they may.
    pub failures_max: u32,
    /// The last of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<FailureBody>,
}

/// A task of a new version that ended by itself.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FailureBody {
    /// Which task.
    pub index: u32,
    /// How.
    pub exit: ExitBody,
}

/// A version of a service.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct VersionBody {
    /// From 1.
    pub version: u32,
    /// True for the present one.
    pub current: bool,
    /// When it was made or last returned to, in milliseconds of the Unix epoch.
    pub since_ms: u64,
    /// Why: `applied`, `restarted`, `rolled-back`, or `failed`: the version after it failed.
    pub cause: &'static str,
    /// How many tasks it had last.
    pub count: u32,
    /// 0 to 100.
    pub priority: u8,
    /// What it is.
    pub spec: SpecBody,
}

/// Why, as the API writes it.
#[must_use]
pub const fn cause_text(cause: Cause) -> &'static str {
    match cause {
        Cause::Applied => "applied",
        Cause::Restarted => "restarted",
        Cause::RolledBack => "rolled-back",
        Cause::Failed => "failed",
        Cause::Resized => "resized",
    }
}

/// How a deployment stands, as the API writes it.
#[must_use]
pub const fn state_text(state: State) -> &'static str {
    match state {
        State::Running => "running",
        State::Waiting => "waiting",
        State::Paused => "paused",
        State::Done => "done",
        State::Failed => "failed",
        State::Cancelled => "cancelled",
    }
}

/// How a deployment stands, in one sentence.
#[must_use]
pub fn sentence(view: &DeploymentView) -> String {
    let DeploymentView { from, to, ready, count, title, .. } = view;
    let way = match (view.cause, from) {
        (Cause::Resized, _) => format!("{count} tasks, from {}", view.from_count),
        (_, 0) => format!("version {to}"),
        (Cause::Failed, _) if view.state != State::Failed => {
            format!("back from version {from} to {to}, since {from} failed ({})", view.why)
        }
        (Cause::Failed, _) => format!("back from version {from} to {to}"),
        (Cause::RolledBack, _) => format!("back from version {from} to {to}"),
        (Cause::Restarted, _) => format!("restart, version {from} to {to}"),
        (Cause::Applied, _) => format!("version {from} to {to}"),
    };
    let far = format!("{ready} of {count} tasks ready");
    let failures = if view.failures > 0 { format!(", {} ended by themselves", view.failures) } else { String::new() };
    match view.state {
        State::Running => format!("{way}: {far}{failures}"),
        State::Waiting => format!("{way}: the first {ready} are ready, and it waits for `skep apply --promote {title}`"),
        State::Paused => format!("{way}: {far}, paused; `skep apply --resume {title}` goes on"),
        State::Done => format!("{way}: done"),
        State::Failed => format!("{way}: failed: {}", view.why),
        State::Cancelled => format!("{way}: cancelled: {}", view.why),
    }
}

impl From<&DeploymentView> for DeploymentBody {
    fn from(view: &DeploymentView) -> Self {
        Self {
            id: view.id.to_string(),
            job: view.job().to_string(),
            role: view.role.to_string(),
            title: view.title.clone(),
            from: view.from,
            to: view.to,
            cause: cause_text(view.cause),
            state: state_text(view.state),
            text: sentence(view),
            why: view.why.clone(),
            started_ms: view.started.0,
            since_ms: view.since.0,
            deadline_ms: view.deadline.0,
            count: view.count,
            ready: view.ready,
            new: view.new,
            old: view.old,
            old_ready: view.old_ready,
            extra: view.extra,
            parallel: view.parallel,
            step: view.step(),
            steps: view.steps(),
            canary: view.canary,
            failures: view.failures,
            failures_max: view.failures_max,
            last_failure: view.last_failure.as_ref().map(|(index, exit)| FailureBody { index: *index, exit: exit.into() }),
        }
    }
}

impl From<&VersionView> for VersionBody {
    fn from(view: &VersionView) -> Self {
        Self {
            version: view.number,
            current: view.current,
            since_ms: view.since.0,
            cause: cause_text(view.cause),
            count: view.job.count,
            priority: view.job.priority,
            spec: (&view.job).into(),
        }
    }
}
