//! The executor of one task that is a process: forked from the [`Template`], it starts the task in its cell, watches it, keeps its output,
//! and writes down how it ended. Single-threaded, and without root once its task runs.
//!
//! Its directory has what that of every executor has (see [`super`]) but the output, and besides `task`, which process is the task's first; it is
//! small, and best kept in memory. The home of the template has what tasks share or what is large: `logs/`, the output of all; `disks/`, the files
//! of tasks that have a disk; `root-…`, what native tasks see of the host.

mod client;
mod output;
mod own_mounts;
mod peer;
mod run;
pub mod session;
mod template;
mod watch;

pub use client::{Template, clear, group, ids};
pub use template::{main, main_of};

use super::place::{self, Identity};
use crate::process::ProcessSpec;
use rustix::fd::OwnedFd;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// Of what the agent and the template say to each other: both are of one build.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " 1");
/// The template as a program of its own, beside the binary.
const PROGRAM: &str = "skep-template";
const TASK: &str = "task";
const DISKS: &str = "disks";

/// What the template is asked for, with one descriptor each.
#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    /// An executor, and the socket that it listens on.
    Executor(Box<Request>),
    /// A program beside a task, and the socket of who is at its other end.
    Session(session::Session),
}

/// An executor that is asked for. Also what it writes down of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    home: PathBuf,
    dir: PathBuf,
    spec: ProcessSpec,
}

impl Request {
    /// Where the task's files are kept, if it has a disk.
    fn disk(&self) -> PathBuf {
        self.home.join(DISKS).join(format!("{:032x}", self.spec.key.0))
    }
}

/// Which process was a task's first: what is ended by it where there is no control group.
struct Witness(Option<Identity>);

impl Witness {
    fn of_task(dir: &Path) -> Self {
        Self(Identity::read_from(&dir.join(TASK)).ok().flatten())
    }

    /// Its number, and a descriptor that holds it; `None`: it has ended.
    fn hold(&self) -> Option<(u32, OwnedFd)> {
        let identity = self.0.as_ref()?;
        let pid = rustix::process::Pid::from_raw(identity.pid.cast_signed())?;
        let held = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
        // Only now is the number held: what has it must still be the same process.
        identity.lives().then_some((identity.pid, held))
    }

    /// Ends it, and with it all in its namespace.
    fn end(self) -> io::Result<()> {
        self.0.map_or(Ok(()), |identity| place::end_process(&identity))
    }
}

#[cfg(test)]
mod tests;
