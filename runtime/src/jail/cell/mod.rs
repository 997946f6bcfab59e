//! The cell of one task that is a process: namespaces, a root, a user and rights of its own, as an ordered list of steps. Whoever calls
//! `start` has one thread. What bounds amounts is the control group's, what watches the task is the executor's.
//!
//! Outside, before the fork: what takes rights on the host is opened (`trees`). Then a process is forked into new namespaces; it waits until
//! its ids are mapped and it is in its control group, and takes the steps of `inside`, each of which needs what a later one takes away. As the
//! last of them it forks the task and stays as its init, process 1, whose end ends all.
//!
//! Everything works without root as well, within a user namespace that maps one id; what is weaker then is in `lacks`.

mod calls;
mod host;
mod ids;
mod init;
mod inside;
pub(crate) mod join;
pub(crate) mod network;
mod rights;
mod root;
pub(crate) mod sys;
mod title;
mod trees;

use super::cgroup::Group;
use super::{JailError, failed};
use crate::process::{Network, ProcessSpec};
use rustix::fd::{AsFd, OwnedFd};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::geteuid;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use trees::Trees;

pub(crate) use host::Host;

/// Most bytes of what a failed step says.
const SAID_BYTES_MAX: u64 = 4_096;

/// What the task reads and writes.
pub(crate) struct Streams {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    /// What its framework says.
    pub(crate) messages: OwnedFd,
}

/// Where it is started.
pub(crate) struct Place<'a> {
    /// What native tasks see of the host.
    pub(crate) host: &'a Host,
    /// Where the task's files are kept, if it has a disk.
    pub(crate) disk: &'a Path,
}

/// A task that runs in its cell.
pub(crate) struct Cell {
    /// Process 1 inside: the init, or the task itself.
    pub(crate) process: OwnedFd,
    /// Its number outside.
    pub(crate) pid: u32,
    /// Where the init writes how the task ended, as wait(2) says it, in four bytes; `None`: process 1 is the task.
    pub(crate) status: Option<OwnedFd>,
    /// The file system that the task writes to, where it can be asked how full it is.
    pub(crate) store: Option<OwnedFd>,
}

/// Finds out and puts together once what all tasks need whose executors are forked afterwards.
pub(crate) fn prepare() {
    rights::prepare();
    title::prepare();
}

/// Starts the task of `spec` in `group`. `keeper` is the user outside to whom its namespaces belong, who may
/// signal it and no other; `None`: whoever calls. Returns once the task's own program has begun.
///
/// # Errors
/// [`JailError`] names the step that failed; nothing is left running.
pub(crate) fn start(
    spec: &ProcessSpec,
    place: &Place<'_>,
    group: &Group,
    keeper: Option<u32>,
    streams: Streams,
) -> Result<Cell, JailError> {
    let step = |step: &'static str| move |reason: String| JailError { step, reason };
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| step("pipes")(failed("pipe2", error)));
    // Without root, only a process in a user namespace of its own may do that.
    let trees =
        if geteuid().is_root() { Some(Trees::open(spec, place.host, place.disk).map_err(step("files of the host"))?) } else { None };
    let (go, begin) = pipe()?;
    let (said, say) = pipe()?;
    let (status, tell_status) = pipe()?;
    ids::become_keeper(keeper).map_err(step("keeper"))?;
    let forked = sys::fork_into(namespaces(spec));
    if let Ok((sys::Forked::Child, _)) = forked {
        drop((begin, said, status));
        let is_in_group = group.bounds();
        let (host, disk, status) = (place.host, place.disk, tell_status);
        inside::run(inside::Inside { spec, host, disk, trees, go, say, status, streams, is_in_group });
    }
    ids::become_root_again(keeper).map_err(step("keeper"))?;
    let (pid, process) = match forked {
        Ok((sys::Forked::Parent(pid), Some(held))) => (pid, held),
        Ok(_) => unreachable!("the child does not come here, and the parent has a descriptor of it"),
        Err(error) => return Err(step("namespaces")(format!("clone3: {error}{}", hint(&error)))),
    };
    let store = trees.as_ref().and_then(|trees| trees.store.try_clone().ok());
    drop((go, say, tell_status, streams));
    title::set(pid);
    let ready = ids::write(spec, pid)
        .map_err(step("ids"))
        .and_then(|()| trees.as_ref().map_or(Ok(()), |trees| trees.map_owners(spec, pid)).map_err(step("owners of layers")))
        .and_then(|()| group.join(pid).map_err(step("control group")))
        .and_then(|()| File::from(begin).write_all(&[1]).map_err(|error| step("begin")(error.to_string())));
    let begun = ready.and_then(|()| heard(said));
    if let Err(error) = begun {
        sys::kill(&process);
        let _ = rustix::process::waitid(rustix::process::WaitId::PidFd(process.as_fd()), rustix::process::WaitIdOptions::EXITED);
        return Err(error);
    }
    Ok(Cell { process, pid, status: spec.init.then_some(status), store })
}

/// Waits until the task's program has begun, which closes the pipe, or a step says why not.
fn heard(said: OwnedFd) -> Result<(), JailError> {
    let mut text = String::new();
    let read = File::from(said).take(SAID_BYTES_MAX).read_to_string(&mut text);
    if let Err(error) = read {
        return Err(JailError { step: "begin", reason: failed("hearing of the steps", error) });
    }
    match text.split_once('\0') {
        None if text.is_empty() => Ok(()),
        None => Err(JailError { step: "begin", reason: "the process ended before its program began".into() }),
        Some((step, reason)) => Err(JailError { step: inside::known(step), reason: reason.into() }),
    }
}

fn namespaces(spec: &ProcessSpec) -> i32 {
    // As root there is a closed network already.
    let network = if spec.network == Network::None && spec.ids.outside.is_none() { libc::CLONE_NEWNET } else { 0 };
    libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | network
}

/// What can be done about an error of clone3.
fn hint(error: &std::io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => {
            ": user namespaces are closed to this user (kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)"
        }
        Some(libc::ENOSPC) => ": there are as many namespaces as may be (user.max_user_namespaces, user.max_net_namespaces)",
        Some(libc::EAGAIN) => ": there are as many processes as may be (ulimit -u, kernel.pid_max)",
        Some(libc::ENOSYS) => ": the kernel is older than 5.3, or something forbids the call",
        _ => "",
    }
}

/// What holds tasks that are processes in less than it should on this machine, as sentences for people. Changes nothing.
#[must_use]
pub fn lacks() -> Vec<String> {
    ids::lacks().into_iter().collect()
}
