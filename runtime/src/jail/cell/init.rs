//! Process 1 of a task's namespace: passes signals on, buries orphans, says how the task ended. Its end ends all that is left.
//!
//! It has no rights that the task has not, cannot be traced (it is not dumpable, and its memory belongs to the host's user namespace), and the
//! kernel passes it no signal that would end it from inside (pid_namespaces(7)).

use super::super::failed;
use super::sys;
use rustix::fd::OwnedFd;
use rustix::process::{WaitOptions, wait};
use std::fs::File;
use std::io::Write;

/// Has the task begun by `program`, which executes it or returns an exit code, and stays as its init. `status` is where the task's end is
/// written. Never comes back, but with what went wrong before the task was there.
pub(super) fn be(status: &OwnedFd, mut program: impl FnMut() -> i32) -> Result<(), String> {
    let status = status.try_clone().map_err(|error| failed("dup", error))?;
    sys::block_signals();
    let task = sys::fork_beside(|| {
        // Its own session: what a terminal says to a group is not for process 1.
        let _ = rustix::process::setsid();
        sys::unblock_signals();
        program()
    });
    let task = task.map_err(|error| failed("clone", error))?;
    // The pipes to the executor are the task's alone; what is said of its steps too.
    watch(task, sys::keep_only(status))
}

/// Never comes back.
fn watch(task: u32, mut status: File) -> ! {
    loop {
        let signal = sys::next_signal();
        if signal != libc::SIGCHLD {
            sys::signal(task, signal);
            continue;
        }
        // One signal may stand for several ends.
        while let Ok(Some((pid, how))) = wait(WaitOptions::NOHANG) {
            if pid.as_raw_nonzero().get().unsigned_abs() == task {
                let _ = status.write_all(&how.as_raw().to_ne_bytes());
                sys::end_at_once(0);
            }
        }
    }
}
