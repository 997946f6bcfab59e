//! How a service goes from one version to the next.

use serde::{Deserialize, Serialize};

/// The longest time that an update may be given, in milliseconds: a week.
pub const UPDATE_MS_MAX: u64 = 604_800_000;
/// How long an update may take of which nothing is said, in milliseconds.
pub const DEADLINE_MS_DEFAULT: u64 = 600_000;
/// How long new tasks have to do their work before that is believed, where nothing is said, in milliseconds.
pub const SETTLE_MS_DEFAULT: u64 = 1_000;
/// Most services that one waits for at its start.
pub const AFTER_MAX: usize = 16;

/// How the tasks of a service are replaced by those of a new version, beyond how many at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Update {
    /// In which order.
    pub strategy: Strategy,
    /// How many tasks do their work at any time, as far as that is up to us, in thousandths of the count, rounded up; `None`: all but as many as are
    /// replaced at a time.
    pub min_healthy_milli: Option<u32>,
    /// How many tasks may run beyond the count meanwhile, in thousandths of it, rounded down.
    pub max_over_milli: u32,
    /// How many tasks of the new version run until somebody says that the others may follow; 0: nobody need say so.
    pub canary: u32,
    /// How long it may take, in milliseconds, not counting the time in which it is held.
    pub deadline_ms: u64,
    /// True where the version before returns by itself when the new one fails.
    pub auto_rollback: bool,
    /// How often tasks of the new version may end by themselves; `None`: twice, or by a twentieth of the count where that is more.
    pub failures_max: Option<u32>,
    /// How long new tasks have to do their work before that is believed, in milliseconds: the first of them before others follow, and the last before all
    /// is done.
    pub settle_ms: u64,
}

/// In which order old tasks go and new ones come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Strategy {
    /// Some at a time.
    #[default]
    Rolling,
    /// All new ones beside the old ones, which go when each of the new ones does its work.
    BlueGreen,
}

impl Default for Update {
    fn default() -> Self {
        Self {
            strategy: Strategy::Rolling,
            min_healthy_milli: None,
            max_over_milli: 0,
            canary: 0,
            deadline_ms: DEADLINE_MS_DEFAULT,
            auto_rollback: true,
            failures_max: None,
            settle_ms: SETTLE_MS_DEFAULT,
        }
    }
}
