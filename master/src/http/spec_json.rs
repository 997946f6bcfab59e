//! Parts of a job as JSON: when its tasks are started again, where they may go, and what is said of it.

use crate::admit::strategy_name;
use protocol::job::{RestartPolicy, Update};
use protocol::{Check, Constraint, Field, Job, Kind, Placement, Probe, Restart};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// When a task is started again.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RestartBody {
    /// `always`, `on-failure` or `never`.
    pub policy: &'static str,
    /// How often at most.
    pub retries_max: Option<u32>,
    /// The first wait.
    pub backoff_first_ms: u64,
    /// What each further wait is multiplied with, in thousandths.
    pub backoff_factor_milli: u32,
    /// The longest wait.
    pub backoff_max_ms: u64,
}

/// What is asked of a task.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CheckBody {
    /// How: `http`, `https`, `tcp`, `exec` or `wasm`.
    pub kind: &'static str,
    /// The name of the port that is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// The path that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The program that is run beside it, and its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// The export that is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export: Option<String>,
    /// For so long from its start on it is not asked.
    pub delay_ms: u64,
    /// True: a status from 100 to 199 says nothing.
    pub ignore_1xx: bool,
    /// For so long from its start on a failure counts for nothing, until the first success.
    pub grace_ms: u64,
    /// The time from an answer to the next question.
    pub every_ms: u64,
    /// How long an answer may take.
    pub timeout_ms: u64,
    /// So many failures in a row end it; 0: none do.
    pub failures: u32,
}

/// How the tasks of a service are replaced by those of a new version.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct UpdateBody {
    /// `rolling` or `blue-green`.
    pub strategy: &'static str,
    /// How many do their work at any time, in thousandths of the count; all but those that are replaced, where it is not said.
    pub min_healthy_milli: Option<u32>,
    /// How many may run beyond the count, in thousandths of it.
    pub max_over_milli: u32,
    /// So many first, until somebody says that the others may follow.
    pub canary: u32,
    /// How long it may take.
    pub deadline_ms: u64,
    /// True where the version before returns by itself when the new one fails.
    pub auto_rollback: bool,
    /// How often new tasks may end by themselves; twice, or by a twentieth of the count, where it is not said.
    pub failures_max: Option<u32>,
    /// How long new tasks have to do their work before that is believed.
    pub settle_ms: u64,
}

impl From<&Update> for UpdateBody {
    fn from(update: &Update) -> Self {
        Self {
            strategy: strategy_name(update.strategy),
            min_healthy_milli: update.min_healthy_milli,
            max_over_milli: update.max_over_milli,
            canary: update.canary,
            deadline_ms: update.deadline_ms,
            auto_rollback: update.auto_rollback,
            failures_max: update.failures_max,
            settle_ms: update.settle_ms,
        }
    }
}

/// Where tasks may go, as in a job file.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PlaceBody {
    /// What must hold of each agent that has one: a field, an operator, and what that takes.
    pub constraints: Vec<Vec<String>>,
    /// Over the values of what they are spread.
    pub spread: Vec<String>,
}

/// What is said of a job.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct AboutBody {
    /// Names and texts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What made it, where that was no job file: `marathon`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub made_by: Option<String>,
}

impl From<&Job> for AboutBody {
    fn from(job: &Job) -> Self {
        Self { labels: job.labels().iter().cloned().collect(), made_by: job.origin().map(|origin| origin.by.clone()) }
    }
}

/// How people write a kind of job.
pub const fn kind_text(kind: Kind) -> &'static str {
    match kind {
        Kind::Batch => "batch",
        Kind::Service => "service",
        Kind::Task => "task",
        Kind::System => "system",
    }
}

impl From<&Restart> for RestartBody {
    fn from(restart: &Restart) -> Self {
        Self {
            policy: match restart.policy {
                RestartPolicy::Always => "always",
                RestartPolicy::OnFailure => "on-failure",
                RestartPolicy::Never => "never",
            },
            retries_max: restart.retries_max,
            backoff_first_ms: restart.backoff_first_ms,
            backoff_factor_milli: restart.backoff_factor_milli,
            backoff_max_ms: restart.backoff_max_ms,
        }
    }
}

impl From<&Check> for CheckBody {
    fn from(check: &Check) -> Self {
        let (mut path, mut command, mut export) = (None, vec![], None);
        let kind = match &check.probe {
            Probe::Http { secure, path: at, .. } => {
                path = Some(at.clone());
                if *secure { "https" } else { "http" }
            }
            Probe::Tcp { .. } => "tcp",
            Probe::Exec { command: of } => {
                command.clone_from(of);
                "exec"
            }
            Probe::Wasm { export: name } => {
                export = Some(name.clone());
                "wasm"
            }
        };
        Self {
            kind,
            port: check.probe.port().map(ToString::to_string),
            path,
            command,
            export,
            delay_ms: check.delay_ms,
            ignore_1xx: check.ignores_1xx,
            grace_ms: check.grace_ms,
            every_ms: check.every_ms,
            timeout_ms: check.timeout_ms,
            failures: check.failures_max,
        }
    }
}

impl From<&Placement> for PlaceBody {
    fn from(place: &Placement) -> Self {
        let parts = |Constraint { field, rule }: &Constraint| {
            [Some(field.name().to_owned()), Some(rule.name().to_owned()), rule.operand()].into_iter().flatten().collect()
        };
        let spread = place.spread.iter().map(Field::name).map(str::to_owned).collect();
        Self { constraints: place.constraints.iter().map(parts).collect(), spread }
    }
}
