//! How one task runs and what holds it in. Knows nothing of clusters: a task here is a [`Key`] that somebody chose, and a [`Plan`].
//!
//! Two verbs, `launch` and `recover` ([`Runtime`]); tasks live in executors, processes of their own that outlive whoever started them.

pub mod container;
pub mod executor;
pub mod jail;
pub mod messages;
pub mod process;
pub mod text;
pub mod wasm;

use executor::{Executor, ExecutorSpec, LaunchError, Recovered};
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::path::{Path, PathBuf};

/// How tasks of one kind are run: in executors, each with a directory of its own. What an executor is then told, and tells, goes through
/// its [`Executor`] in batches, whatever the kind.
pub trait Runtime {
    /// Starts an executor in a new directory; it holds no task yet.
    ///
    /// # Errors
    /// [`LaunchError`] says which step failed; nothing of it is left running.
    fn launch(&self, spec: ExecutorSpec) -> impl Future<Output = Result<Executor, LaunchError>> + Send;

    /// Finds the executor of a directory again: the living one with all that it holds, or what a dead one left.
    ///
    /// # Errors
    /// [`LaunchError`] where the directory cannot be read, or a living executor does not answer or speaks another version.
    fn recover(&self, dir: &Path) -> impl Future<Output = Result<Recovered, LaunchError>> + Send;
}

/// Names one attempt of one task, among all of a machine and for good; chosen by whoever launches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(pub u128);

/// What bounds the instructions of a wasm task: one engine, and so one executor, for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Metering {
    /// Counts them, exactly and repeatably.
    Fuel,
    /// Counts clock ticks of running time.
    Epoch,
}

/// What ends a task. An amount of `None` is no limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// What tasks that are started together have in common.
///
/// In arguments and in the values of `env` and `config`, `${task.index}`, `${task.attempt}`, `${job}`, `${agent}` and `${port.NAME}` stand for
/// the task's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The compiled code, which the executor may read; made by [`wasm::compile`] on this machine, checked by whoever hands it over.
    pub compiled: PathBuf,
    /// SHA-256 of the wasm that it was compiled from: the executor loads each once.
    pub digest: [u8; 32],
    /// Arguments, without the program's own name.
    pub args: Vec<String>,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// What `wasi:config` answers.
    pub config: Vec<(String, String)>,
    /// What standard input reads; `None`: empty.
    pub stdin: Option<PathBuf>,
    /// Names of the ports that each task is given.
    pub port_names: Vec<String>,
    /// What ends a task.
    pub limits: Limits,
    /// What people call the job: what `skep:task` tells the task.
    pub job: String,
    /// What people call the machine: what `skep:task` tells the task.
    pub agent: String,
}

/// One task to be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Its key.
    pub key: Key,
    /// Its index in its job.
    pub index: u32,
    /// The number of its attempt, from 1.
    pub attempt: u32,
    /// Its ports, in the order of [`Plan::port_names`].
    pub ports: Vec<u16>,
}

/// Tasks of one plan to be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// What they have in common.
    pub plan: Plan,
    /// Which.
    pub starts: Vec<Start>,
}

/// How a task ended, whatever kind it was. New variants at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By itself; 0 is success.
    Code(i32),
    /// By a signal that nobody here asked for.
    Signal(i32),
    /// It executed so many wasm instructions.
    OutOfFuel {
        /// Its limit.
        limit: u64,
    },
    /// It wanted more memory than its limit.
    OutOfMemory {
        /// Its limit.
        limit_bytes: u64,
        /// The most it had.
        peak_bytes: u64,
    },
    /// It ran for longer than its wall-clock limit.
    OutOfTime {
        /// Its limit.
        limit_ms: u64,
    },
    /// It used more processor time than its limit.
    OutOfCpuTime {
        /// Its limit.
        limit_ms: u64,
    },
    /// It wanted a table of more elements than its limit.
    OutOfTable {
        /// Its limit, in elements.
        limit: u32,
        /// What it asked for.
        wanted: u64,
    },
    /// A host call would have made the host allocate more than its limit.
    OutOfHostBytes {
        /// Its limit.
        limit_bytes: u64,
    },
    /// It did what wasm forbids.
    Trap {
        /// What; at most 512 bytes.
        reason: String,
    },
    /// It was asked to stop, whatever its code was then.
    Killed,
    /// It was never started, and trying again would not help.
    Rejected {
        /// What is missing or wrong; at most 512 bytes.
        reason: String,
    },
    /// Its executor died, and it with it.
    ExecutorLost,
    /// It failed, and its sandbox was full.
    OutOfDisk {
        /// Its limit.
        limit_bytes: u64,
    },
    /// It failed, and had as many processes and threads as it may.
    OutOfProcesses {
        /// Its limit.
        limit: u32,
    },
    /// It is fenced, and its lease was over.
    LeaseOver,
}

/// What a task has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Wasm instructions, in wasmtime's units; 0 where they are not counted.
    pub fuel: u64,
    /// The most memory it had at once, in bytes: wasm, linear memory; a process, with all that it started.
    pub memory_peak_bytes: u64,
    /// From its start to its end, in microseconds of wall-clock time.
    pub time_us: u64,
    /// Processor time, in microseconds; 0 where it is not counted.
    pub cpu_us: u64,
}

/// Where a task's output comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}
