//! The steps that a new process takes in its namespaces until it is the task, or its init. Each still needs what a later one takes away.

use super::super::failed;
use super::host::Host;
use super::trees::Trees;
use super::{Streams, init, network, rights, root, sys};
use crate::process::{MESSAGES_FD, Network, ProcessSpec};
use rustix::fd::OwnedFd;
use rustix::process::{Gid, Uid};
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// capabilities(7): rights are kept when the user changes, and only our own calls take them away.
const SECBIT_NO_SETUID_FIXUP: i32 = 1 << 2;
/// Where `PATH` says nothing.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the process takes along from outside.
pub(super) struct Inside<'a> {
    pub(super) spec: &'a ProcessSpec,
    pub(super) host: &'a Host,
    pub(super) disk: &'a Path,
    /// `None`: nobody outside may open them.
    pub(super) trees: Option<Trees>,
    /// Read once it may begin.
    pub(super) go: OwnedFd,
    /// Written when a step fails; closed when the task's program begins.
    pub(super) say: OwnedFd,
    /// Where the init writes how the task ended.
    pub(super) status: OwnedFd,
    pub(super) streams: Streams,
    /// False: no control group bounds it.
    pub(super) is_in_group: bool,
}

type Step = (&'static str, fn(&mut Inside<'_>) -> Result<(), String>);

const STEPS: [Step; 19] = [
    ("begin", wait_for_begin),
    ("session", session),
    ("control group namespace", control_group_namespace),
    ("first user", first_user),
    ("files of the host", open_trees),
    ("root", root::enter),
    ("host name", host_name),
    ("loopback", loopback),
    ("streams", streams),
    ("no new privileges", |inside| rights::no_new_privileges(inside.spec)),
    ("resource limits", |inside| rights::limit_resources(inside.spec, inside.is_in_group)),
    ("capability bounds", |inside| rights::drop_bounds(inside.spec)),
    ("user and groups", |inside| rights::become_user(inside.spec)),
    ("working directory", working_directory),
    ("capabilities and tracing", |inside| rights::drop_capabilities(inside.spec)),
    ("landlock", |inside| rights::landlock(inside.spec)),
    ("seccomp", |inside| rights::seccomp(inside.spec)),
    ("messages", messages),
    ("program", program),
];

/// The name of a step that a process of ours wrote.
pub(super) fn known(step: &str) -> &'static str {
    STEPS.iter().map(|(name, _)| *name).find(|name| *name == step).unwrap_or("unknown")
}

/// Takes the steps; never comes back.
pub(super) fn run(mut inside: Inside<'_>) -> ! {
    for (step, take) in STEPS {
        if let Err(reason) = take(&mut inside) {
            say_failure(&inside.say, step, &reason);
            break;
        }
    }
    // Nothing of who forked is to run here: no destructor, no handler of its end.
    sys::end_at_once(1)
}

fn wait_for_begin(inside: &mut Inside<'_>) -> Result<(), String> {
    let go = inside.go.try_clone().map_err(|error| failed("dup", error))?;
    let mut byte = [0];
    File::from(go).read_exact(&mut byte).map_err(|_| "whoever started it is gone".to_owned())
}

fn session(inside: &mut Inside<'_>) -> Result<(), String> {
    sys::reset_signals();
    if inside.spec.limits.cpu_milli == 0 {
        sys::set_idle(None, true).map_err(|error| failed("sched_setscheduler SCHED_IDLE", error))?;
    }
    let _ = rustix::thread::set_name(c"skep-init");
    rustix::process::setsid().map(drop).map_err(|error| failed("setsid", error))?;
    if inside.spec.limits.cpu_milli == 0 && !inside.is_in_group {
        // Where the kernel has no time for it, it is idle among its own alone.
        let _ = sys::Session::open().map(|session| session.set_idle_in_time(true));
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    Ok(())
}

/// Only now is it in its group, which then is the root of all groups that it sees.
fn control_group_namespace(_: &mut Inside<'_>) -> Result<(), String> {
    sys::leave_control_group_namespace().map_err(|error| failed("unshare cgroup", error))
}

/// Becomes one of the mapped ids, with all rights in the namespace: files that it makes must belong to somebody.
fn first_user(inside: &mut Inside<'_>) -> Result<(), String> {
    let ids = &inside.spec.ids;
    if ids.outside.is_some() {
        sys::set_groups(&[]).map_err(|error| failed("setgroups to none", error))?;
    }
    sys::set_secure_bits(SECBIT_NO_SETUID_FIXUP).map_err(|error| failed("prctl securebits", error))?;
    let (user, group) = (Uid::from_raw(ids.inside), Gid::from_raw(ids.inside));
    rustix::thread::set_thread_res_gid(group, group, group).map_err(|error| failed(&format!("setresgid {}", ids.inside), error))?;
    rustix::thread::set_thread_res_uid(user, user, user).map_err(|error| failed(&format!("setresuid {}", ids.inside), error))
}

fn open_trees(inside: &mut Inside<'_>) -> Result<(), String> {
    if inside.trees.is_none() {
        inside.trees = Some(Trees::open(inside.spec, inside.host, inside.disk)?);
    }
    Ok(())
}

fn host_name(inside: &mut Inside<'_>) -> Result<(), String> {
    let name = inside.spec.title.as_bytes();
    rustix::system::sethostname(name).map_err(|error| failed(&format!("sethostname {}", inside.spec.title), error))
}

fn loopback(inside: &mut Inside<'_>) -> Result<(), String> {
    if inside.spec.network != Network::None || inside.spec.ids.outside.is_some() {
        return Ok(());
    }
    network::open_all_ports();
    sys::loopback_up().map_err(|error| failed("bringing lo up", error))
}

fn streams(inside: &mut Inside<'_>) -> Result<(), String> {
    let Streams { stdin, stdout, stderr, .. } = &inside.streams;
    rustix::stdio::dup2_stdin(stdin).map_err(|error| failed("dup2 0", error))?;
    rustix::stdio::dup2_stdout(stdout).map_err(|error| failed("dup2 1", error))?;
    rustix::stdio::dup2_stderr(stderr).map_err(|error| failed("dup2 2", error))?;
    sys::close_all_on_exec().map_err(|error| failed("close_range", error))
}

/// As the task's user, who may not be allowed into what others may.
fn working_directory(inside: &mut Inside<'_>) -> Result<(), String> {
    let dir = &inside.spec.dir;
    rustix::process::chdir(&**dir).map_err(|error| failed(&format!("chdir {dir}"), error))
}

/// From here on the pipe of messages has the number that the task knows. Last of all, since what is closed for it might be anybody's before.
fn messages(inside: &mut Inside<'_>) -> Result<(), String> {
    let above = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, MESSAGES_FD + 1).map_err(|error| failed("fcntl F_DUPFD_CLOEXEC", error));
    // What is still needed is out of its way.
    inside.say = above(&inside.say)?;
    inside.status = above(&inside.status)?;
    sys::hand_over(&inside.streams.messages, MESSAGES_FD).map_err(|error| failed(&format!("dup2 {MESSAGES_FD}"), error))
}

/// The task's program, as this process or as the child of what this process becomes.
fn program(inside: &mut Inside<'_>) -> Result<(), String> {
    let spec = inside.spec;
    let program = Program::of(&spec.command, &spec.env)?;
    if !spec.init {
        return Err(program.execute());
    }
    let say = &inside.say;
    init::be(&inside.status, || {
        say_failure(say, "program", &program.execute());
        1
    })
}

fn say_failure(say: &OwnedFd, step: &str, reason: &str) {
    let _ = rustix::io::write(say, format!("{step}\0{reason}").as_bytes()); // Whoever listens may be gone.
}

/// A program with all that it is given, ready to be executed.
pub(super) struct Program {
    name: String,
    /// Where it may be.
    candidates: Vec<CString>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Program {
    /// The program of a command; a name alone is looked for in the environment's `PATH`.
    pub(super) fn of(command: &[String], env: &[(String, String)]) -> Result<Self, String> {
        let texts = |texts: &[String]| texts.iter().map(|text| sys::text(text)).collect::<Result<Vec<_>, _>>();
        let name = command.first().ok_or("no program is named")?;
        let path = env.iter().find(|(key, _)| key == "PATH").map_or(PATH, |(_, value)| value);
        let candidates = if name.contains('/') {
            vec![sys::text(name)?]
        } else {
            let folders = path.split(':').map(|folder| if folder.is_empty() { "." } else { folder });
            folders.map(|folder| sys::text(&format!("{folder}/{name}"))).collect::<Result<_, _>>()?
        };
        let env: Vec<String> = env.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Ok(Self { name: name.clone(), candidates, arguments: texts(command)?, environment: texts(&env)? })
    }

    /// Becomes the program; returns only with the reason why not.
    pub(super) fn execute(&self) -> String {
        let name = &self.name;
        let error = sys::execute(&self.candidates, &self.arguments, &self.environment);
        let hint = match error.raw_os_error() {
            Some(libc::ENOENT) if name.contains('/') => ": it is not there, or the interpreter that it names is not",
            Some(libc::ENOENT) => ": it is in no folder of PATH",
            Some(libc::EACCES) => ": it may not be executed: is it executable, and a file?",
            Some(libc::ENOEXEC) => {
                ": it is no program for this machine: neither an executable of its kind nor a script that begins with #!"
            }
            Some(libc::E2BIG) => ": arguments and environment are too long together",
            _ => "",
        };
        format!("executing {name}: {error}{hint}")
    }
}
