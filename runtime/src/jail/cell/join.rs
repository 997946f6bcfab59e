//! A further program in the cell of a task that runs: in its namespaces and control group, with its rights and no others.
//!
//! Three processes: who relays, outside; one that is in the task's namespaces but for its processes, since only a child can be in those; and
//! the program. The second one ends with the program, and the program with the second one.

use super::inside::Program;
use super::{rights, sys};
use crate::jail::cgroup::Hierarchies;
use crate::process::{MESSAGES_VARIABLE, Network, ProcessSpec};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, open};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// What the program reads and writes.
pub(crate) struct Streams {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    /// True: they are a terminal, which becomes the program's own.
    pub(crate) terminal: bool,
}

/// A program that runs beside a task.
pub(crate) struct Joined {
    /// Ends with the exit code of the program.
    pub(crate) process: OwnedFd,
    /// Its number; the program is its only child, and first of a group of its own.
    pub(crate) pid: u32,
}

/// Opens a terminal in the task whose first process is `pid`: our side and the program's.
///
/// # Errors
/// What was tried, and the system's words.
pub(crate) fn terminal(pid: u32, spec: &ProcessSpec) -> Result<(OwnedFd, OwnedFd), String> {
    // Of the task's own terminals: nothing of an image lies on this path.
    let path = Path::new("/proc").join(pid.to_string()).join("root").join("dev/pts/ptmx");
    let failed = |tried: &str, error: rustix::io::Errno| format!("{tried}: {error}");
    let ours = open(path.as_path(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| failed("opening a terminal", error))?;
    rustix::pty::unlockpt(&ours).map_err(|error| failed("unlocking the terminal", error))?;
    let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY | rustix::pty::OpenptFlags::CLOEXEC;
    let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags).map_err(|error| failed("opening the terminal's other side", error))?;
    if let Some(first) = spec.ids.outside {
        let outside = |id: u32| first + id.saturating_sub(spec.ids.inside);
        let (user, group) = (rustix::fs::Uid::from_raw(outside(spec.ids.uid)), rustix::fs::Gid::from_raw(outside(spec.ids.gid)));
        rustix::fs::fchown(&theirs, Some(user), Some(group)).map_err(|error| failed("giving the terminal to the task's user", error))?;
    }
    Ok((ours, theirs))
}

/// Starts `command` in the cell of `spec`, whose first process `held` is.
///
/// # Errors
/// What was tried, and the system's words.
pub(crate) fn join(
    spec: &ProcessSpec,
    held: impl AsFd,
    hierarchies: &Hierarchies,
    command: &[String],
    streams: &Streams,
) -> Result<Joined, String> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| format!("pipe2: {error}"));
    let ((go, begin), (said, say)) = (pipe()?, pipe()?);
    let (forked, process) = sys::fork_into(0).map_err(|error| format!("clone3: {error}"))?;
    let sys::Forked::Parent(pid) = forked else {
        drop((begin, said));
        let reason = inside(spec, held, command, streams, go, hierarchies.bound()).err().unwrap_or_default();
        let _ = rustix::io::write(&say, reason.as_bytes()); // Whoever listens may be gone.
        sys::end_at_once(1)
    };
    drop((go, say));
    // In its group before it can do anything, as the task was.
    let joined = hierarchies.join(&spec.cgroup, pid);
    let begun = joined.and_then(|()| File::from(begin).write_all(&[1]).map_err(|error| format!("begin: {error}")));
    let mut reason = String::new();
    let begun = begun.and_then(|()| File::from(said).read_to_string(&mut reason).map_err(|error| format!("begin: {error}")).map(drop));
    let process = process.expect("the parent has a descriptor of the child");
    match begun {
        Ok(()) if reason.is_empty() => Ok(Joined { process, pid }),
        failed => {
            sys::kill(&process);
            Err(failed.err().unwrap_or(reason))
        }
    }
}

/// Comes back only with what went wrong.
fn inside(
    spec: &ProcessSpec,
    held: impl AsFd,
    command: &[String],
    streams: &Streams,
    go: OwnedFd,
    is_in_group: bool,
) -> Result<(), String> {
    File::from(go).read_exact(&mut [0]).map_err(|_| "whoever started it is gone".to_owned())?;
    let _ = std::fs::write("/proc/self/oom_score_adj", "0");
    // What its framework says is the task's alone.
    let env: Vec<_> = spec.env.iter().filter(|(name, _)| name != MESSAGES_VARIABLE).cloned().collect();
    let program = Program::of(command, &env)?;
    // One that ended has no namespaces any more (ESRCH). Where it has the host's network, so has this process; without root it could not join that.
    sys::join_namespaces(held, spec.network == Network::None)
        .map_err(|error| format!("the task has ended, or cannot be entered: setns: {error}"))?;
    match sys::fork().map_err(|error| format!("fork: {error}"))? {
        sys::Forked::Child => become_program(spec, &program, streams, is_in_group),
        sys::Forked::Parent(child) => {
            sys::close_for_waiting();
            sys::end_at_once(sys::exit_code_of(child))
        }
    }
}

fn become_program(spec: &ProcessSpec, program: &Program, streams: &Streams, is_in_group: bool) -> Result<(), String> {
    sys::reset_signals();
    rustix::process::setsid().map_err(|error| format!("setsid: {error}"))?;
    rustix::stdio::dup2_stdin(&streams.stdin).map_err(|error| format!("dup2: {error}"))?;
    rustix::stdio::dup2_stdout(&streams.stdout).map_err(|error| format!("dup2: {error}"))?;
    rustix::stdio::dup2_stderr(&streams.stderr).map_err(|error| format!("dup2: {error}"))?;
    if streams.terminal {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).map_err(|error| format!("TIOCSCTTY: {error}"))?;
    }
    sys::close_all_on_exec().map_err(|error| format!("close_range: {error}"))?;
    rights::take_away(spec, is_in_group)?;
    // After the last change of who it is, which forgets it.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|error| format!("prctl pdeathsig: {error}"))?;
    rustix::process::chdir(&*spec.dir).or_else(|_| rustix::process::chdir("/")).map_err(|error| format!("chdir: {error}"))?;
    Err(program.execute())
}
