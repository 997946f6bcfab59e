//! A job once it has been admitted: a template of tasks, how many, and how to replace them. How people write one is `master::admit`'s.

use crate::{Digest, Name, Resources, Role};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Most tasks of one job.
pub const COUNT_MAX: u32 = 10_000_000;
/// Highest priority; the lowest is 0.
pub const PRIORITY_MAX: u8 = 100;

/// What a user submitted, checked once at the door: whoever holds one need not check it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Whom its resources are counted for.
    pub role: Role,
    /// Unique in its role among the jobs that have not ended; `None` for a job that its id alone names.
    pub name: Option<Name>,
    /// How its tasks are counted and replaced.
    pub kind: Kind,
    /// 0 to [`PRIORITY_MAX`]; of the tasks of a role those of a higher priority are placed first.
    pub priority: u8,
    /// How many tasks, 0 to [`COUNT_MAX`].
    pub count: u32,
    /// What each of them is.
    pub template: Arc<Template>,
    /// What happens when one ends.
    pub restart: Restart,
    /// How many tasks of a service are replaced at a time when a new version is applied; at least 1.
    pub update_parallel: u32,
}

/// How the tasks of a job are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Ends when each of its tasks has ended.
    Batch,
    /// Keeps `count` tasks running until it is stopped.
    Service,
}

/// What an agent must know to run one task of a job: the same for all of them, so it is sent once for each batch of launches.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Template {
    /// What runs.
    pub program: Program,
    /// Its arguments, without the program's own name. `${task.index}`, `${task.attempt}`, `${job}` and `${port.NAME}` are replaced on the
    /// agent.
    pub args: Vec<String>,
    /// Its environment; the same names are replaced in the values.
    pub env: Vec<(String, String)>,
    /// What `wasi:config` answers; the same names are replaced in the values.
    pub config: Vec<(String, String)>,
    /// The bundle that standard input reads; `None`: empty.
    pub stdin: Option<Digest>,
    /// What each task is promised, and what is therefore counted.
    pub resources: Resources,
    /// The names of its ports, as many as `resources.ports`.
    pub ports: Vec<Name>,
    /// What ends it.
    pub limits: Limits,
}

/// What runs. New kinds at the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Program {
    /// A core module (WASI preview 1) or a component (WASI 0.2 `cli`), told apart by looking.
    Wasm {
        /// The bundle: the `.wasm` file.
        bundle: Digest,
        /// What its instructions are counted by.
        metering: Metering,
        /// True where the job has an executor of its own instead of its role's.
        strict: bool,
    },
}

/// What bounds the instructions of a wasm task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Metering {
    /// Counts them, exactly and repeatably; call-heavy code runs at half speed.
    Fuel,
    /// Counts clock ticks of running time.
    Epoch,
}

/// What ends a task. An amount of `None` is no limit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limits {
    /// Wasm instructions, in wasmtime's units; only with [`Metering::Fuel`].
    pub fuel_max: Option<u64>,
    /// Running time in milliseconds, not counting waits; only with [`Metering::Epoch`].
    pub cpu_time_ms_max: Option<u64>,
    /// Wall-clock time in milliseconds, waits included.
    pub time_ms_max: Option<u64>,
    /// Bytes of linear memory, all memories of the task together.
    pub memory_bytes_max: u64,
    /// Elements of each table.
    pub table_elements_max: u32,
    /// Bytes that one host call may make the host allocate.
    pub host_bytes_max: u64,
    /// Bytes of output kept; older output is rotated away.
    pub log_bytes_max: u64,
}

/// What happens when a task ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Restart {
    /// When it is started again.
    pub policy: RestartPolicy,
    /// How often a task is started again at most; `None`: as often as the policy says. A task that was lost, refused or left by its agent
    /// is started again without being counted here.
    pub retries_max: Option<u32>,
    /// The wait before the first of several restarts, in milliseconds.
    pub backoff_first_ms: u64,
    /// What each further wait is multiplied with, in thousandths; at least 1,000.
    pub backoff_factor_milli: u32,
    /// The longest wait, in milliseconds. A task that ran for longer than this begins anew with the first wait.
    pub backoff_max_ms: u64,
}

/// When a task that ended by itself is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// However it ended.
    Always,
    /// Unless it ended with code 0.
    OnFailure,
    /// Not at all.
    Never,
}
