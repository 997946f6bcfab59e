//! The process that outlives whoever started it and holds running wasm tasks: one for each role and metering mode. Knows its directory,
//! its socket, the record of what it took and how that ended, and the tasks' output.
//!
//! A directory holds what `place` names: the socket, what it was started with, which process it is, `tasks.log` (see `record`), `logs/`
//! (see [`logs`]) and what a broken executor said last. It serves one executor process, ever; whoever started that removes it.

mod apart;
pub mod client;
pub mod lease;
pub mod logs;
pub mod process;
pub mod record;
pub mod serve;
pub mod wire;

#[cfg(test)]
pub(crate) mod fixture;
mod place;

pub use client::{Commands, Events, Executor, recover};
pub use logs::{LogRead, read_log};
pub use record::{Remains, remains};

use crate::{Exit, Key, Metering, Usage};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

/// Most tasks that one executor may be made to hold at once.
pub const TASKS_MAX: u32 = 1 << 20;

/// What an executor of wasm tasks is started with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutorSpec {
    /// Names its directory, in which there is no executor yet ([`process::Places::dir`]).
    pub number: u32,
    /// Whose tasks it runs; for people.
    pub role: String,
    /// How it counts instructions.
    pub metering: Metering,
    /// The user and group that it becomes, of [`crate::process::ROLE_IDS`], where there is root; `None`: it stays its template's.
    pub uid: Option<u32>,
    /// Most tasks at once, waiting or running, up to [`TASKS_MAX`]; more are refused as `Rejected`.
    pub tasks_max: u32,
    /// The largest linear memory that any of its tasks is granted, in bytes; a plan that asks for more is refused as `Rejected`.
    pub memory_bytes_max: u64,
    /// Directories that it may read: compiled code and standard input. Absolute.
    pub readable: Vec<PathBuf>,
    /// True where its tasks run only while nothing else wants the processor.
    pub idle: bool,
}

/// Something an executor tells. In order for each task; a task that ends at once is told as ended without having been told as started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecutorEvent {
    /// It runs.
    Started {
        /// Which.
        key: Key,
        /// Since when, in milliseconds of the Unix epoch.
        since_ms: u64,
    },
    /// It ended. On record before it is told, kept until it is forgotten. All its output is in its log by then.
    Ended {
        /// Which.
        key: Key,
        /// How.
        exit: Exit,
        /// What it used.
        usage: Usage,
    },
    /// It said how far it is. Only the latest is told.
    Progress {
        /// Which.
        key: Key,
        /// 0 to 100.
        percent: u8,
        /// Its own words.
        note: String,
    },
    /// So many messages of its framework were dropped, since it did not take them in time. Told with its end, where there are some.
    Dropped {
        /// Which.
        key: Key,
        /// How many.
        messages: u64,
    },
}

/// What an executor holds at the moment of connecting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Tasks that did not end, and since when they run (milliseconds of the Unix epoch); `None`: they wait for a place.
    pub live: Vec<(Key, Option<u64>)>,
    /// Tasks that ended and are not forgotten.
    pub ended: Vec<(Key, Exit, Usage)>,
}

/// What is in a directory where an executor was started.
#[expect(clippy::large_enum_variant, reason = "made once for each executor, and taken apart at once")]
#[derive(Debug)]
pub enum Recovered {
    /// It lives; it holds [`Executor::held`].
    Living(Executor),
    /// It is dead, or was never started.
    Dead(Remains),
}

/// Why there is no connection to an executor.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A file or directory of it could not be made or read.
    #[error("{step} {path}: {source}")]
    File {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The template would not or could not start it.
    #[error("{step} {path}: {said}")]
    Refused {
        /// What was tried.
        step: String,
        /// On what.
        path: PathBuf,
        /// What the system said, or the template.
        said: String,
    },
    /// The directory has had an executor: take another, or recover that one.
    #[error("{path} has had an executor before: recover it, or use a new directory")]
    Used {
        /// The directory.
        path: PathBuf,
    },
    /// It ended before it was ready.
    #[error("the executor in {path} ended at its start: {said}")]
    Died {
        /// The directory.
        path: PathBuf,
        /// The last lines of its error log.
        said: String,
    },
    /// It lives, and does not answer. [`process::Template::end`] ends it.
    #[error("the executor in {path} lives as process {pid} and does not answer")]
    Silent {
        /// The directory.
        path: PathBuf,
        /// Its process.
        pid: u32,
    },
    /// It speaks another version: it finishes its tasks, whose ends are then in its directory.
    #[error("the executor in {path} speaks version {found}, this program {expected}")]
    Version {
        /// The directory.
        path: PathBuf,
        /// What it speaks.
        found: u16,
        /// What we speak.
        expected: u16,
    },
    /// It said what no executor says.
    #[error("the executor in {path} said something that is no message: {reason}")]
    Garbled {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Why something could not be told to an executor.
#[derive(Debug, thiserror::Error)]
pub enum TellError {
    /// A plan is too long for one frame: its job can never be started.
    #[error("the plan of a task is {bytes} bytes long: at most {max} fit")]
    TooLong {
        /// How long.
        bytes: usize,
        /// At most.
        max: usize,
    },
    /// It is gone, or took another client.
    #[error("the executor's connection ended: {0}")]
    Gone(#[from] io::Error),
}

#[cfg(test)]
mod tests;
