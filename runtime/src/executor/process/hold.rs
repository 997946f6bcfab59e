//! The first of a template's two processes: it waits. Where the other one, which does the work, is killed, it forks that again, since an agent
//! without root could start no other.

use super::ask::Hello;
use super::places::Owner;
use super::{VERSION, template};
use crate::jail::cell::sys;
use rustix::process::{Pid, WaitOptions, waitpid};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// One that ends sooner than this is forked again only after as long.
const LIFE_MIN: Duration = Duration::from_secs(1);
/// How long the end of an earlier template is waited for.
const LAST_ONE_WAIT: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// The verb `template DATA OWNER`: serves the agent of user `owner` whose data directory is `data`, by the socket that is its standard input; ends
/// when that is closed. Executors of wasm are `binary`. To be called before any thread is started.
#[must_use]
pub fn main(data: &Path, owner: u32, binary: &Path) -> ExitCode {
    match hold(data, Owner(owner), binary) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("template: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The same as a program of its own, `skep-template template DATA OWNER VERSION BINARY`; where that is of another build, `binary` takes its place.
#[must_use]
pub fn main_of(data: &Path, owner: u32, version: &OsStr, binary: &Path) -> ExitCode {
    if version == VERSION {
        return main(data, owner, binary);
    }
    let error = Command::new(binary).arg("template").arg(data).arg(owner.to_string()).exec();
    eprintln!("template: {}: {error}", binary.display());
    ExitCode::FAILURE
}

fn hold(data: &Path, owner: Owner, binary: &Path) -> io::Result<()> {
    sys::expect_one_thread()?;
    // What whoever started the agent left open is not to live on in executors.
    sys::close_all_but_standard();
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let null = fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    drop(null);
    // It is the last that the kernel shall end for want of memory; root without CAP_SYS_RESOURCE may not say so.
    let _ = fs::write("/proc/self/oom_score_adj", "-999");
    let _ = rustix::process::setsid();
    // What executors write is for their agent to read, and closed by the folders that it is in.
    rustix::process::umask(rustix::fs::Mode::WGRP | rustix::fs::Mode::WOTH);
    sys::reset_signals();
    let locked = alone(data, &stream)?;
    for again in [false].into_iter().chain(std::iter::repeat(true)) {
        let began = Instant::now();
        match sys::fork()? {
            sys::Forked::Child => {
                drop(locked);
                let code = match template::serve(data, owner, binary, stream, again) {
                    Ok(()) => 0,
                    Err(error) => {
                        eprintln!("template: {error}");
                        1
                    }
                };
                sys::end_at_once(code)
            }
            sys::Forked::Parent(pid) => {
                let pid = Pid::from_raw(pid.cast_signed());
                let how = rustix::io::retry_on_intr(|| waitpid(pid, WaitOptions::empty()))?;
                // 0: nobody asks any more. 1: it said why it cannot be.
                if how.is_some_and(|(_, how)| matches!(how.exit_status(), Some(0 | 1))) {
                    break;
                }
            }
        }
        eprintln!("template: it was killed; another one takes its place");
        std::thread::sleep(LIFE_MIN.saturating_sub(began.elapsed()));
    }
    Ok(())
}

/// No other template has this data directory as long as what is given back is open. One whose agent was killed a moment ago ends first.
fn alone(data: &Path, stream: &UnixStream) -> io::Result<fs::File> {
    let until = Instant::now() + LAST_ONE_WAIT;
    let folder = fs::File::open(data)?;
    loop {
        match rustix::fs::flock(&folder, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(folder),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) if Instant::now() < until => std::thread::sleep(LOOK_AGAIN),
            Err(error) => {
                let used = "is used by another agent that runs: each needs a data directory of its own";
                let reason = format!("{} {used} ({error})", data.display());
                template::say(stream, &Hello::Err(reason.clone()));
                return Err(io::Error::other(reason));
            }
        }
    }
}
