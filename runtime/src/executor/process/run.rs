//! One executor from its fork to its end: makes ready as root, starts the task, gives root up, and watches.

use super::TASK;
use super::clear;
use super::messages::Mailbox;
use super::output::Output;
use super::places::{Owner, Places, Which};
use super::watch::{Begun, Task, Watch};
use crate::executor::ExecutorEvent;
use crate::executor::lease::Lease;
use crate::executor::place::{self, Identity};
use crate::executor::record::{Record, RecordLog};
use crate::executor::wire::{self, HelloReply};
use crate::jail::JailError;
use crate::jail::cell::network::{self, Network};
use crate::jail::cell::{self, Host, Place, Streams, sys};
use crate::jail::cgroup::{Hierarchies, Slot};
use crate::process::{EXECUTORS_GROUP, KEEPER, ProcessLimits, ProcessSpec};
use crate::{Exit, Key, Usage};
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Gid, Uid, geteuid, getppid};
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Most bytes of a reason.
const REASON_BYTES_MAX: usize = 512;

/// What the template found out for all executors.
pub(super) struct Machine {
    pub(super) hierarchies: Hierarchies,
    pub(super) host: Host,
    pub(super) places: Places,
    pub(super) owner: Owner,
}

/// What the template lends to an executor, and takes back where it ends as [`CLEAN`].
pub(super) struct Lent {
    /// A closed network, where the task has one and the template may make it.
    pub(super) network: Option<Result<Network, String>>,
    /// A control group that served others before or will.
    pub(super) slot: Option<Slot>,
    /// What that is bounded by.
    pub(super) bounds: ProcessLimits,
    /// Which task it is for, and the control group of its own that it wanted.
    pub(super) key: Key,
    pub(super) group: Option<String>,
}

impl Lent {
    /// True where its task is promised no processor.
    pub(super) const fn is_idle(&self) -> bool {
        self.bounds.cpu_milli == 0
    }
}

/// The exit code of an executor that leaves what it was lent as it was given to it, and nothing of itself but an empty directory.
pub(super) const CLEAN: i32 = 10;

/// What a task's group is bounded by: the init is not the task's.
pub(super) fn bounds(spec: &ProcessSpec) -> ProcessLimits {
    let processes_max = spec.limits.processes_max.saturating_add(u32::from(spec.init));
    ProcessLimits { processes_max, ..spec.limits.clone() }
}

/// The step that all others follow.
const DIRECTORY: &str = "making its directory";

/// What an executor cannot be without.
type Vital<T> = Result<T, (&'static str, io::Error)>;

/// Runs the executor that was asked for, where that is `allowed`. Its client's connection ends when this process does: nothing of it is left then
/// that will be yet.
pub(super) fn run(
    spec: &ProcessSpec,
    until_ns: Option<u64>,
    allowed: Result<(), String>,
    client: UnixStream,
    lent: Lent,
    machine: &Machine,
) -> ! {
    let dir = machine.places.dir(Which::Process(spec.key));
    say_panics(&dir);
    let template = getppid();
    let lease = until_ns.map(Lease::new);
    let code = match serve(spec, lease, &dir, allowed, client, lent, machine) {
        Ok(watch) => {
            let is_clean = watch.is_clean() && spec.limits.disk_bytes_max == 0 && network::is_clean();
            // The client looks at the directory as soon as this is closed, by the end of this process.
            let client = watch.leave();
            // Once the template is gone nobody takes anything back: the next one clears away what the directory names.
            let is_clean = is_clean && getppid() == template && clear::empty(&dir).is_ok();
            std::mem::forget(client);
            if is_clean { CLEAN } else { 0 }
        }
        Err((step, error)) => {
            let words = format!("executor: {step}: {error}\n");
            // Where there is no directory of its own, there is another's or none.
            if step == DIRECTORY {
                eprint!("{words}");
            } else {
                let _ = fs::write(dir.join(place::ERRORS), words);
            }
            1
        }
    };
    sys::end_at_once(code)
}

fn serve(
    spec: &ProcessSpec,
    lease: Option<Lease>,
    dir: &Path,
    allowed: Result<(), String>,
    client: UnixStream,
    lent: Lent,
    machine: &Machine,
) -> Vital<Watch> {
    // The template has reset all that it was given. Who is told something may be gone.
    sys::ignore_broken_pipes();
    let _ = rustix::thread::set_name(c"skep-executor");
    let keeper = spec.ids.outside.filter(|_| geteuid().is_root() && allowed.is_ok()).map(|first| first + KEEPER);
    let (record, listener) = make(spec, dir, keeper, machine.owner)?;
    let identity = Identity::own().map_err(|error| ("reading /proc/self/stat", error))?;
    identity.write(dir).map_err(|error| ("writing `identity`", error))?;
    let hello = HelloReply { version: wire::VERSION, pid: identity.pid, metering: None, tasks_max: 1, places: 1, weaknesses: vec![] };

    let started = Instant::now();
    let begun = allowed.map_err(|reason| JailError { step: "what is asked for", reason });
    // One whose lease was over before it began never begins.
    let is_over = lease.as_ref().is_some_and(|lease| lease.left().is_none());
    let over = || Err(JailError { step: "lease", reason: "it is over".into() });
    let begun = if is_over { over() } else { begun.and_then(|()| begin(spec, lent, machine, keeper)) };
    if let Ok(Begun { cell, .. }) = &begun {
        // One that has ended already need not be found again.
        let _ = Identity::of(cell.pid).and_then(|task| task.write_to(&dir.join(TASK)));
    }
    if let Some(keeper) = keeper {
        chown(dir, Some(keeper), None).map_err(|error| ("giving its directory away", error))?;
    }
    give_up_root(keeper).map_err(|error| ("giving up root", error))?;
    let (task, first) = match begun {
        Ok(begun) => {
            let since_ms = now_ms();
            (Some(Task::new(spec, begun, lease, (started, since_ms))), ExecutorEvent::Started { key: spec.key, since_ms })
        }
        Err(_) if is_over => (None, ExecutorEvent::Ended { key: spec.key, exit: Exit::LeaseOver, usage: Usage::default() }),
        Err(error) => {
            let mut reason = error.to_string();
            reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
            (None, ExecutorEvent::Ended { key: spec.key, exit: Exit::Rejected { reason }, usage: Usage::default() })
        }
    };
    let mut watch = Watch::new(spec.key, task, record, listener, hello, machine.owner.0);
    watch.serve(first, client);
    Ok(watch)
}

/// Its directory, and what it needs in it; the task is on record before it runs. Until it is given away at last, nobody else writes there.
fn make(spec: &ProcessSpec, dir: &Path, keeper: Option<u32>, owner: Owner) -> Vital<(RecordLog, UnixListener)> {
    // Its group is that of the folder that it is in: the agent's.
    let mode = if keeper.is_some() && owner.is_other() { 0o750 } else { 0o700 };
    fs::DirBuilder::new().mode(mode).create(dir).map_err(|error| (DIRECTORY, error))?;
    let listener = place::listen(dir).map_err(|error| ("binding its socket", error))?;
    listener.set_nonblocking(true).map_err(|error| ("its socket", error))?;
    let bytes = postcard::to_stdvec(spec).map_err(|error| ("writing `spec`", io::Error::other(error)))?;
    fs::write(dir.join(place::SPEC), bytes).map_err(|error| ("writing `spec`", error))?;
    let mut record = RecordLog::create(dir).map_err(|error| ("making `tasks.log`", error))?;
    record.append(&Record::Taken(vec![spec.key])).map_err(|error| ("writing `tasks.log`", error))?;
    Ok((record, listener))
}

/// Starts the task; where that fails, nothing of it is left.
fn begin(spec: &ProcessSpec, lent: Lent, machine: &Machine, keeper: Option<u32>) -> Result<Begun, JailError> {
    let step = |step: &'static str| move |reason: String| JailError { step, reason };
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| step("pipes")(format!("pipe2: {error}")));
    lent.network.transpose().and_then(|network| network.map_or(Ok(()), network::enter)).map_err(step("network"))?;
    let stdin = stdin(spec, machine.owner).map_err(step("standard input"))?;
    let ((out, stdout), (errors, stderr), (messages, said)) = (pipe()?, pipe()?, pipe()?);
    for pipe in [&out, &errors, &said] {
        rustix::io::ioctl_fionbio(pipe, true).map_err(|error| step("pipes")(error.to_string()))?;
    }
    let group = match lent.slot.and_then(|slot| slot.before) {
        // Somebody may have removed it.
        Some(before) => {
            machine.hierarchies.renew(&spec.cgroup, &before, &lent.bounds).or_else(|_| machine.hierarchies.make(&spec.cgroup, &lent.bounds))
        }
        None => machine.hierarchies.make(&spec.cgroup, &lent.bounds),
    };
    let group = group.map_err(step("control group"))?;
    let streams = Streams { stdin, stdout, stderr, messages };
    let output = Output::new(&machine.places.processes(), spec, [out, errors]).map_err(|error| step("output")(error.to_string()))?;
    match cell::start(spec, &Place { host: &machine.host, disk: &machine.places.disk(spec.key) }, &group, keeper, streams) {
        Ok(cell) => Ok(Begun { cell, group, output, messages: Mailbox::new(said) }),
        Err(error) => {
            let _ = machine.hierarchies.remove(&spec.cgroup); // What is left of it is removed when the directory is cleared.
            Err(error)
        }
    }
}

/// What the task reads: a file that is the agent's own, since root would open any.
fn stdin(spec: &ProcessSpec, owner: Owner) -> Result<OwnedFd, String> {
    let said = |error: rustix::io::Errno| error.to_string();
    let open = |path: &Path, flags| open(path, flags | OFlags::CLOEXEC, Mode::empty()).map_err(said);
    let Some(path) = &spec.stdin else { return open(Path::new("/dev/null"), OFlags::RDONLY) };
    // Not opened for real yet, which with a device does something.
    let named = open(path, OFlags::PATH | OFlags::NOFOLLOW)?;
    let found = fstat(&named).map_err(said)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile || (owner.is_other() && found.st_uid != owner.0) {
        return Err(format!("{} is no file of the agent's", path.display()));
    }
    open(&PathBuf::from(format!("/proc/self/fd/{}", named.as_raw_fd())), OFlags::RDONLY)
}

/// From here on it may do what its task's owner may, and nothing on the host.
fn give_up_root(keeper: Option<u32>) -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    let Some(keeper) = keeper else { return Ok(()) };
    let (user, group) = (Uid::from_raw(keeper), Gid::from_raw(keeper));
    rustix::thread::set_thread_groups(&[Gid::from_raw(EXECUTORS_GROUP)])?;
    rustix::thread::set_thread_res_gid(group, group, group)?;
    rustix::thread::set_thread_res_uid(user, user, user)?;
    Ok(())
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The last words of an executor that panics are in its directory: it has no standard error.
fn say_panics(dir: &Path) {
    let path = dir.join(place::ERRORS);
    std::panic::set_hook(Box::new(move |panic| {
        let _ = fs::write(&path, format!("executor: {panic}\n"));
        std::process::abort();
    }));
}
