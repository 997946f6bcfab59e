//! The template, which alone keeps root, and what it does for an agent that has none: forks executors, clears away what they leave, unpacks what
//! tasks are started from. And the executor of one task that is a process: forked from the template, it starts the task in its cell, watches it,
//! keeps its output, and writes down how it ended. Single-threaded, and without root once its task runs.
//!
//! An executor's directory has what that of every executor has (see [`super`]) but the output, and besides `task`, which process is the task's
//! first. Where all of it is: [`Places`].

mod ask;
mod clear;
mod client;
mod hold;
mod messages;
mod output;
mod own_mounts;
mod peer;
mod places;
mod run;
pub mod session;
mod template;
mod watch;

pub use clear::sweep;
pub use client::{Started, Template, group, ids, is_left};
pub use hold::{main, main_of};
pub use places::{Places, Which, agent_user, give, is_passable};

use super::place::Identity;
use rustix::fd::OwnedFd;
use std::path::Path;

/// Of what the agent and the template say to each other: both are of one build.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " 2");
/// The template as a program of its own, beside the binary.
const PROGRAM: &str = "skep-template";
const TASK: &str = "task";

/// Which process was a task's first.
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
}

#[cfg(test)]
mod tests;
