//! How Linux holds a process in, as an ordered list of steps. A process enters before it starts its first thread, and never leaves:
//! all threads inherit what the first has. What a machine lacks is said, and the other steps hold.

pub mod cell;
pub mod cgroup;
mod grants;
mod identity;
mod syscalls;
pub mod unpacking;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fmt::Display;
use std::path::PathBuf;

/// What a process keeps when it enters; everything else is gone.
#[derive(Clone, Debug, Default)]
pub struct Confinement {
    /// The user and group it becomes, where it is root; `None`: it stays who it is, without capabilities.
    pub uid: Option<u32>,
    /// Files and directories it may read, with all below.
    pub readable: Vec<PathBuf>,
    /// Files and directories it may read, write, make and remove, with all below.
    pub writable: Vec<PathBuf>,
    /// Most address space, in bytes; `None`: as it is.
    pub address_bytes_max: Option<u64>,
    /// Most processor time, in seconds; `None`: as it is.
    pub cpu_seconds_max: Option<u64>,
    /// Longest file it may write, in bytes; `None`: as it is.
    pub file_bytes_max: Option<u64>,
}

/// A step that should have worked here and did not: the process must not go on.
#[derive(Debug, thiserror::Error)]
#[error("jail, step \"{step}\": {reason}")]
pub struct JailError {
    /// Which.
    pub step: &'static str,
    /// What was tried, and the system's words with the number of the error.
    pub reason: String,
}

/// One step: what it is called, and what it does. `Ok(Some(_))` says what this machine lacks for it.
type Step = (&'static str, fn(&Confinement) -> Result<Option<String>, String>);

/// In this order: each step still needs what a later one takes away.
const STEPS: [Step; 8] = [
    ("one thread", one_thread),
    ("no new privileges", identity::no_new_privileges),
    ("resource limits", limit_resources),
    ("capability bounds", identity::drop_capability_bounds),
    ("user and groups", identity::become_user),
    ("capabilities and tracing", identity::drop_capabilities),
    ("landlock", grants::enter),
    ("seccomp", syscalls::enter),
];

/// Takes all steps, in order; returns sentences about what this machine lacks.
///
/// # Errors
/// [`JailError`] where a step failed that this machine does not lack.
pub fn enter(confinement: &Confinement) -> Result<Vec<String>, JailError> {
    let mut weaknesses = vec![];
    for (step, take) in STEPS {
        weaknesses.extend(take(confinement).map_err(|reason| JailError { step, reason })?);
    }
    Ok(weaknesses)
}

/// What holds executors in less than it should on this machine, as sentences for people; empty where all steps work. Changes nothing.
#[must_use]
pub fn probe() -> Vec<String> {
    [identity::lacks(), grants::lacks(), syscalls::lacks()].into_iter().flatten().collect()
}

/// What was tried, with the system's words.
fn failed(tried: &str, error: impl Display) -> String {
    format!("{tried}: {error}")
}

/// Everything below is for one thread only; those that exist already would stay outside.
fn one_thread(_: &Confinement) -> Result<Option<String>, String> {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else {
        return Ok(Some("/proc is not mounted: nothing checks that an executor enters its jail with one thread".into()));
    };
    match threads.count() {
        1 => Ok(None),
        n => Err(format!("{n} threads run already")),
    }
}

/// No core files, which would hold tasks' memory; as many open files as is allowed; and what the caller wants.
fn limit_resources(confinement: &Confinement) -> Result<Option<String>, String> {
    let set = |resource, what, limit: Rlimit| setrlimit(resource, limit).map_err(|error| failed(what, error));
    let most = |bound: Option<u64>| bound.map(|bound| Rlimit { current: Some(bound), maximum: Some(bound) });
    set(Resource::Core, "setrlimit core 0", Rlimit { current: Some(0), maximum: Some(0) })?;
    let files = getrlimit(Resource::Nofile);
    set(Resource::Nofile, "setrlimit nofile to its hard limit", Rlimit { current: files.maximum, maximum: files.maximum })?;
    if let Some(limit) = most(confinement.address_bytes_max) {
        set(Resource::As, "setrlimit as", limit)?;
    }
    if let Some(limit) = most(confinement.cpu_seconds_max) {
        set(Resource::Cpu, "setrlimit cpu", limit)?;
    }
    if let Some(limit) = most(confinement.file_bytes_max) {
        set(Resource::Fsize, "setrlimit fsize", limit)?;
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
