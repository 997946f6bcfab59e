//! Parts of a job as JSON: when its tasks are started again, and where they may go.

use protocol::job::RestartPolicy;
use protocol::{Constraint, Field, Placement, Restart};
use serde::Serialize;
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

/// Where tasks may go, as in a job file.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PlaceBody {
    /// What must hold of each agent that has one: a field, an operator, and what that takes.
    pub constraints: Vec<Vec<String>>,
    /// Over the values of what they are spread.
    pub spread: Vec<String>,
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

impl From<&Placement> for PlaceBody {
    fn from(place: &Placement) -> Self {
        let parts = |Constraint { field, rule }: &Constraint| {
            [Some(field.name().to_owned()), Some(rule.name().to_owned()), rule.operand()].into_iter().flatten().collect()
        };
        let spread = place.spread.iter().map(Field::name).map(str::to_owned).collect();
        Self { constraints: place.constraints.iter().map(parts).collect(), spread }
    }
}
