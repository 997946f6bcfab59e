//! The directory of an executor: the names in it, which process it belongs to, and the ways to its socket.

use super::{ExecutorSpec, record};
use crate::Metering;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub(super) const SOCKET: &str = "executor.sock";
pub(super) const SPEC: &str = "spec";
pub(super) const IDENTITY: &str = "identity";
pub(super) const LOGS: &str = "logs";
pub(super) const ERRORS: &str = "error.log";

/// How long the death of a process that was killed is waited for.
const DEATH_WAIT_S: i64 = 10;
/// Most bytes of an error log that are shown.
const ERRORS_SHOWN_BYTES: usize = 2_048;

/// What the process is told through `spec`: what of [`ExecutorSpec`] is its own affair.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredSpec {
    pub(super) role: String,
    pub(super) metering: Metering,
    pub(super) uid: Option<u32>,
    pub(super) tasks_max: u32,
    pub(super) memory_bytes_max: u64,
    pub(super) readable: Vec<PathBuf>,
    /// The user of its client, beside root.
    pub(super) owner: u32,
    pub(super) idle: bool,
}

/// Which process an executor is: a number is given again after its end, and after a reboot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) pid: u32,
    /// Clock ticks from the machine's start to its own: field 22 of /proc/PID/stat, proc_pid_stat(5).
    started_ticks: u64,
    boot: String,
}

/// Makes the directory `dir` and all in it that the executor of `spec` needs, which this process becomes; the listener is for its standard input.
/// Where it has a user of its own, the group `owner` reads there what it writes.
pub(super) fn prepare(dir: &Path, spec: &ExecutorSpec, owner: u32) -> Result<(UnixListener, File), (&'static str, PathBuf, io::Error)> {
    let step = |step: &'static str, name: &str| {
        let path = dir.join(name);
        move |error| (step, path.clone(), error)
    };
    let user = spec.uid.filter(|_| rustix::process::geteuid().is_root());
    // The agent looks for output here as soon as it is there.
    let folder = |path: &Path| fs::DirBuilder::new().mode(if user.is_some() { 0o750 } else { 0o700 }).create(path);
    folder(dir).map_err(step("making the directory", ""))?;
    folder(&dir.join(LOGS)).map_err(step("making the directory", LOGS))?;
    let stored = StoredSpec {
        role: spec.role.clone(),
        metering: spec.metering,
        uid: spec.uid,
        tasks_max: spec.tasks_max.clamp(1, super::TASKS_MAX),
        memory_bytes_max: spec.memory_bytes_max,
        readable: spec.readable.clone(),
        owner,
        idle: spec.idle,
    };
    let bytes = postcard::to_stdvec(&stored).map_err(|error| step("writing", SPEC)(io::Error::other(error)))?;
    let create = |name: &str| fs::OpenOptions::new().create_new(true).append(true).mode(0o640).open(dir.join(name));
    create(SPEC).and_then(|mut file| file.write_all(&bytes)).map_err(step("writing", SPEC))?;
    let errors = create(ERRORS).map_err(step("making", ERRORS))?;
    let listener = listen(dir).map_err(step("binding", SOCKET))?;
    // This process becomes the executor.
    Identity::own().and_then(|identity| identity.write(dir)).map_err(step("writing", IDENTITY))?;
    if let Some(uid) = user {
        for name in [SPEC, ERRORS, SOCKET, IDENTITY, LOGS, ""] {
            std::os::unix::fs::chown(dir.join(name), Some(uid), Some(owner)).map_err(step("giving to its user", name))?;
        }
        for name in [LOGS, ""] {
            let mode = fs::Permissions::from_mode(0o2750);
            fs::set_permissions(dir.join(name), mode).map_err(step("giving to its user", name))?;
        }
    }
    Ok((listener, errors))
}

/// The socket of the executor in `dir`, which whoever may pass `dir` may connect to: it knows itself whom it lets in.
pub(super) fn listen(dir: &Path) -> io::Result<UnixListener> {
    let (held, path) = reach(dir)?;
    let listener = UnixListener::bind(path)?;
    rustix::fs::chmodat(&held, SOCKET, Mode::from_raw_mode(0o666), rustix::fs::AtFlags::empty())?;
    Ok(listener)
}

/// A path to the socket that is short enough for an address (108 bytes, unix(7)), as long as the descriptor is held.
pub(super) fn reach(dir: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let held = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", held.as_raw_fd()));
    Ok((held, path))
}

/// The end of what the executor said before it ended.
pub(super) fn last_words(dir: &Path) -> String {
    let bytes = fs::read(dir.join(ERRORS)).unwrap_or_default();
    let shown = &bytes[bytes.len().saturating_sub(ERRORS_SHOWN_BYTES)..];
    match String::from_utf8_lossy(shown).trim() {
        "" => "it said nothing".into(),
        said => said.into(),
    }
}

/// This boot of the machine, read once: a process has one.
fn boot() -> io::Result<&'static str> {
    static BOOT: OnceLock<String> = OnceLock::new();
    if let Some(boot) = BOOT.get() {
        return Ok(boot);
    }
    let read = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(BOOT.get_or_init(|| read.trim().to_owned()))
}

/// Reads and computes once what every process that is forked from this one needs for itself and its record.
pub(super) fn prepare_forks() {
    let _ = boot(); // Who needs it says so.
    record::prepare();
}

impl Identity {
    /// Of this process.
    pub(super) fn own() -> io::Result<Self> {
        Self::of(std::process::id())
    }

    /// Of the process `pid`.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name in parentheses may hold anything, so count from behind its end.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let mut fields = rest.split_ascii_whitespace();
        let dead = matches!(fields.next(), Some("Z" | "X"));
        let started = fields.nth(18).and_then(|ticks| ticks.parse().ok());
        match started {
            Some(started_ticks) if !dead => Ok(Self { pid, started_ticks, boot: boot()?.into() }),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, "the process is dead")),
        }
    }

    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        self.write_to(&dir.join(IDENTITY))
    }

    pub(super) fn write_to(&self, path: &Path) -> io::Result<()> {
        fs::write(path, format!("{} {} {}\n", self.pid, self.started_ticks, self.boot))
    }

    /// Of the executor in `dir`, dead or not; `None` where none was started, or it did not come so far.
    pub(super) fn read(dir: &Path) -> io::Result<Option<Self>> {
        Self::read_from(&dir.join(IDENTITY))
    }

    pub(super) fn read_from(path: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        let mut fields = text.split_ascii_whitespace();
        let (pid, started, boot) = (fields.next(), fields.next(), fields.next());
        let (pid, started) = (pid.and_then(|pid| pid.parse().ok()), started.and_then(|ticks| ticks.parse().ok()));
        Ok(pid.zip(started).zip(boot).map(|((pid, started_ticks), boot)| Self { pid, started_ticks, boot: boot.into() }))
    }

    pub(super) fn lives(&self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == *self)
    }
}

/// Ends this process by force, if it lives; returns once it is dead. Blocking.
pub(super) fn end_process(identity: &Identity) -> io::Result<()> {
    let Some(pid) = i32::try_from(identity.pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    let Ok(held) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    // Only now is the number held: what has it must still be the same process.
    if !identity.lives() {
        return Ok(());
    }
    pidfd_send_signal(&held, Signal::KILL)?;
    let mut ready = [PollFd::new(&held, PollFlags::IN)];
    let wait = Timespec { tv_sec: DEATH_WAIT_S, tv_nsec: 0 };
    match rustix::io::retry_on_intr(|| poll(&mut ready, Some(&wait)))? {
        0 => Err(io::Error::new(io::ErrorKind::TimedOut, format!("process {} was killed and does not die", identity.pid))),
        _ => Ok(()),
    }
}
