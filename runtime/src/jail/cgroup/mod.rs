//! Control groups: what bounds and counts a task with all that it starts. One interface over version 1 and version 2.
//!
//! Each task has a group of its own: in version 1 a folder in the hierarchy of each controller, in version 2 one folder, below the group that was
//! delegated to us or the root. Controllers of version 2 on a machine that mounts version 1 are not used. What a task's groups count is read
//! before they are removed: a memory kill is known from nothing else for certain.

mod attach;
mod idle;
mod pool;
mod v1;
mod v2;

pub(crate) use attach::attach_at_once;
pub(crate) use pool::{Pool, Slot};

use crate::process::ProcessLimits;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, openat};
use std::ffi::CString;
use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Where all of them are mounted (cgroups(7)).
const MOUNTED: &str = "/sys/fs/cgroup";
/// How long processes that were killed may take to go.
const GONE_WITHIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// What the kernel has not given back yet of a group without processes, at most: each processor keeps up to 64 pages ahead (mm/memcontrol.c).
const CLEAN_BYTES_MAX: u64 = 1 << 20;
/// Longest file that is read.
const COUNTER_BYTES_MAX: usize = 4_096;

/// What of control groups this machine has for us, found once.
#[derive(Clone, Debug)]
pub struct Hierarchies(Arc<Found>);

#[derive(Debug)]
enum Found {
    /// Controllers, each with its own hierarchy.
    V1(Vec<v1::Hierarchy>, Option<idle::Cpusets>),
    V2(v2::Hierarchy),
    /// And why.
    None(String),
}

/// What a group counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Processor time, in microseconds.
    pub cpu_us: u64,
    /// Memory now, in bytes; for who asks by name without the file cache that can be dropped at once.
    pub memory_bytes: u64,
    /// The most memory at once, in bytes.
    pub memory_peak_bytes: u64,
    /// Processes and threads now.
    pub processes: u64,
    /// How often the kernel ended a process because of the memory limit.
    pub memory_kills: u64,
    /// How often a process or thread was refused because of their limit.
    pub processes_refused: u64,
}

/// The group of one task. Its files are open, so it can be read after the rights to open them are gone; it is not removed when dropped.
#[derive(Debug, Default)]
pub struct Group {
    counters: Vec<Counter>,
    joined_by: Vec<OwnedFd>,
    /// What of its counts is of tasks before.
    before: Counted,
}

/// An open file of numbers, and what they are.
#[derive(Debug)]
struct Counter {
    file: OwnedFd,
    take: fn(&str, &mut Counted),
}

impl Hierarchies {
    /// Looks at what is mounted. Never fails: what is not there is lacking.
    #[must_use]
    pub fn find() -> Self {
        Self(Arc::new(find(Path::new(MOUNTED), false)))
    }

    /// The same for who only reads what groups count: an agent that was started as root is a user who may make none.
    #[must_use]
    pub fn to_read() -> Self {
        Self(Arc::new(find(Path::new(MOUNTED), true)))
    }

    /// True where there is any in which groups can be made.
    #[must_use]
    pub fn bound(&self) -> bool {
        !self.roots().is_empty()
    }

    /// What is lacking and what that means, as sentences for people; empty where all limits hold.
    #[must_use]
    pub fn lacks(&self) -> Vec<String> {
        match &*self.0 {
            Found::V1(hierarchies, _) => v1::lacks(hierarchies),
            Found::V2(hierarchy) => hierarchy.lacks(),
            Found::None(reason) => vec![format!(
                "no control groups: of native and container tasks each process is bounded in its memory by itself, and their number by the user; nothing bounds what a task has together, and its share of processors ({reason})"
            )],
        }
    }

    /// Makes the group `name` (a relative path, as `skep-1f/0000…`) with its limits in each hierarchy; those that exist are taken as they are.
    ///
    /// # Errors
    /// What was tried, on what, and the system's words.
    pub fn make(&self, name: &str, limits: &ProcessLimits) -> Result<Group, String> {
        check(name)?;
        let mut group = Group::default();
        match &*self.0 {
            Found::V1(hierarchies, cpusets) => {
                hierarchies.iter().try_for_each(|hierarchy| hierarchy.make(name, limits, &mut group))?;
                cpusets.iter().for_each(|cpusets| cpusets.open(name, limits, &mut group));
            }
            Found::V2(hierarchy) => hierarchy.make(name, limits, &mut group)?,
            Found::None(_) => {}
        }
        Ok(group)
    }

    /// True where a group whose task has ended serves another as if it were new: in version 1, whose counts can be set to nothing. To make and
    /// to remove a group there costs the kernel more than the rest of a small task.
    #[must_use]
    pub fn can_renew(&self) -> bool {
        matches!(&*self.0, Found::V1(hierarchies, _) if v1::can_renew(hierarchies))
    }

    /// As [`Self::make`], of a group that is there and [`Group::is_clean`], and had the limits `before`.
    ///
    /// # Errors
    /// What was tried, on what, and the system's words.
    pub fn renew(&self, name: &str, before: &ProcessLimits, limits: &ProcessLimits) -> Result<Group, String> {
        check(name)?;
        let mut group = Group::default();
        if let Found::V1(hierarchies, cpusets) = &*self.0 {
            hierarchies.iter().try_for_each(|hierarchy| hierarchy.renew(name, before, limits, &mut group))?;
            cpusets.iter().for_each(|cpusets| cpusets.open(name, limits, &mut group));
        }
        group.before = group.counted();
        Ok(group)
    }

    /// What the group `name` counted until now; `None`: there is none.
    #[must_use]
    pub fn counted(&self, name: &str) -> Option<Counted> {
        check(name).ok()?;
        let mut group = Group::default();
        match &*self.0 {
            Found::V1(hierarchies, _) => hierarchies.iter().for_each(|hierarchy| _ = hierarchy.open(name, &mut group)),
            Found::V2(hierarchy) => _ = hierarchy.open(name, &mut group),
            Found::None(_) => {}
        }
        (!group.counters.is_empty()).then(|| group.counted())
    }

    /// Moves the process `pid` into the group `name`, which is there.
    ///
    /// # Errors
    /// What was tried, and the system's words.
    pub fn join(&self, name: &str, pid: u32) -> Result<(), String> {
        check(name)?;
        self.roots().into_iter().try_for_each(|root| write(root, &format!("{name}/cgroup.procs"), pid))?;
        if let Found::V1(_, Some(cpusets)) = &*self.0 { cpusets.join(name, pid) } else { Ok(()) }
    }

    fn roots(&self) -> Vec<&OwnedFd> {
        match &*self.0 {
            Found::V1(hierarchies, _) => hierarchies.iter().map(v1::Hierarchy::root).collect(),
            Found::V2(hierarchy) => vec![hierarchy.root()],
            Found::None(_) => vec![],
        }
    }

    /// Ends all processes in the group `name`, and removes it. One that is not there is removed already. Blocking.
    ///
    /// # Errors
    /// What was tried, on what, and the system's words.
    pub fn remove(&self, name: &str) -> Result<(), String> {
        check(name)?;
        match &*self.0 {
            Found::V1(hierarchies, cpusets) => {
                hierarchies.iter().try_for_each(|hierarchy| hierarchy.remove(name))?;
                cpusets.iter().try_for_each(|cpusets| cpusets.remove(name))
            }
            Found::V2(hierarchy) => hierarchy.remove(name),
            Found::None(_) => Ok(()),
        }
    }
}

impl Group {
    /// True where there is one in some hierarchy.
    #[must_use]
    pub fn bounds(&self) -> bool {
        !self.joined_by.is_empty()
    }

    /// Moves the process `pid` into the group, in each hierarchy.
    ///
    /// # Errors
    /// What was tried, and the system's words.
    pub fn join(&self, pid: u32) -> Result<(), String> {
        for file in &self.joined_by {
            rustix::io::write(file, pid.to_string().as_bytes())
                .map_err(|error| explained(&format!("writing {pid} to cgroup.procs"), error.into()))?;
        }
        Ok(())
    }

    /// What was counted until now; 0 where a hierarchy is lacking.
    #[must_use]
    pub fn counted(&self) -> Counted {
        let mut counted = Counted::default();
        for counter in &self.counters {
            if let Some(text) = read(&counter.file) {
                (counter.take)(&text, &mut counted);
            }
        }
        counted.memory_peak_bytes = counted.memory_peak_bytes.max(counted.memory_bytes);
        counted.memory_kills = counted.memory_kills.saturating_sub(self.before.memory_kills);
        counted.processes_refused = counted.processes_refused.saturating_sub(self.before.processes_refused);
        counted
    }

    /// True where nothing of its task is left in it, so that it may be renewed for another; to be asked once all of its processes have ended.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let counted = self.counted();
        counted.processes == 0 && counted.memory_bytes <= CLEAN_BYTES_MAX
    }

    /// Has a file of the folder counted, where the kernel has it.
    fn count(&mut self, folder: &OwnedFd, file: &str, take: fn(&str, &mut Counted)) {
        if let Ok(file) = openat(folder, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            self.counters.push(Counter { file, take });
        }
    }
}

fn find(mounted: &Path, reads: bool) -> Found {
    // linux/magic.h
    const CGROUP2_SUPER_MAGIC: rustix::fs::FsWord = 0x6367_7270;
    if rustix::fs::statfs(mounted).is_ok_and(|found| found.f_type == CGROUP2_SUPER_MAGIC) {
        let found = v2::Hierarchy::find(mounted, &fs::read_to_string("/proc/self/cgroup").unwrap_or_default());
        let found = found.or_else(|reason| if reads { v2::Hierarchy::to_read(mounted) } else { Err(reason) });
        return found.map_or_else(Found::None, Found::V2);
    }
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let hierarchies = v1::find(&mountinfo, reads);
    if hierarchies.is_empty() {
        Found::None(format!("none are mounted that this user may make groups in, below {MOUNTED}"))
    } else {
        Found::V1(hierarchies, idle::Cpusets::find(&mountinfo, reads))
    }
}

/// Nothing that is written to a name leads out of the hierarchies.
fn check(name: &str) -> Result<(), String> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    if name.split('/').all(plain) { Ok(()) } else { Err(format!("control group {name:?}: expected a relative path of plain names")) }
}

/// A folder below another, and those on its way, made where they are missing; `each` has a say on each that is on the way.
fn folder(parent: &OwnedFd, name: &str, mut each: impl FnMut(&OwnedFd) -> Result<(), String>) -> Result<OwnedFd, String> {
    let parts: Vec<&str> = name.split('/').collect();
    let open = |parent: &OwnedFd, part: &str| {
        openat(parent, part, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    };
    let mut here: Option<OwnedFd> = None;
    for (at, part) in parts.iter().enumerate() {
        let parent = here.as_ref().unwrap_or(parent);
        let last = at + 1 == parts.len();
        // The task's own is new nearly always, those on the way are there nearly always.
        let found = if last { Err(rustix::io::Errno::NOENT) } else { open(parent, part) };
        let found = match found {
            Err(rustix::io::Errno::NOENT) => {
                match rustix::fs::mkdirat(parent, *part, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                    Err(error) => return Err(explained(&format!("making the control group {name}"), error.into())),
                }
                open(parent, part)
            }
            found => found,
        };
        let found = found.map_err(|error| explained(&format!("opening the control group {name}"), error.into()))?;
        if !last {
            each(&found)?;
        }
        here = Some(found);
    }
    Ok(here.expect("a name has a part"))
}

/// Has a group, in which there are only tasks that are promised no processor, get what those beside it leave (`cpu.idle`, since 5.15).
fn share_idly(parent: &OwnedFd, limits: &ProcessLimits) -> Result<(), String> {
    if limits.cpu_milli > 0 || !exists(parent, "cpu.idle") { Ok(()) } else { write(parent, "cpu.idle", 1) }
}

/// Names of the folders in a folder.
fn folders(folder: &OwnedFd) -> Vec<CString> {
    let entries = rustix::fs::Dir::read_from(folder).into_iter().flatten().flatten();
    let names = entries.filter(|entry| entry.file_type() == rustix::fs::FileType::Directory).map(|entry| entry.file_name().to_owned());
    names.filter(|name| !name.to_bytes().starts_with(b".")).collect()
}

fn write(folder: &OwnedFd, file: &str, value: impl Display) -> Result<(), String> {
    let value = value.to_string();
    let opened = openat(folder, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    let written = opened.and_then(|file| rustix::io::write(&file, value.as_bytes()));
    written.map(drop).map_err(|error| explained(&format!("writing {value} to {file}"), error.into()))
}

fn exists(folder: &OwnedFd, file: &str) -> bool {
    rustix::fs::accessat(folder, file, rustix::fs::Access::EXISTS, rustix::fs::AtFlags::empty()).is_ok()
}

fn read(file: &OwnedFd) -> Option<String> {
    let mut bytes = vec![0; COUNTER_BYTES_MAX];
    let length = rustix::io::pread(file, &mut bytes, 0).ok()?;
    bytes.truncate(length);
    String::from_utf8(bytes).ok()
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// The number behind `key` in lines like `oom_kill 3`.
fn keyed(text: &str, key: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).map_or(0, number)
}

/// Removes a folder once nothing runs in it, and those in it; `kill` ends what does.
fn remove(parent: &OwnedFd, name: &str, kill: impl Fn(&OwnedFd)) -> Result<(), String> {
    let until = Instant::now() + GONE_WITHIN;
    loop {
        match rustix::fs::unlinkat(parent, name, rustix::fs::AtFlags::REMOVEDIR) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(rustix::io::Errno::BUSY) if Instant::now() < until => {}
            Err(error) => return Err(explained(&format!("removing the control group {name}"), error.into())),
        }
        if let Ok(folder) = openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            for inner in folders(&folder) {
                if let Ok(inner) = openat(&folder, &*inner, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
                    kill(&inner);
                }
                let _ = rustix::fs::unlinkat(&folder, &*inner, rustix::fs::AtFlags::REMOVEDIR); // Or the next time.
            }
            kill(&folder);
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// What was tried, the system's words, and what can be done about it.
fn explained(tried: &str, error: io::Error) -> String {
    let hint = match error.raw_os_error() {
        Some(libc::EROFS) => ": /sys/fs/cgroup is read-only, as in a container that may make no groups",
        Some(libc::EACCES | libc::EPERM) => ": this user was given no control group (systemd: Delegate=yes)",
        Some(libc::EBUSY) => ": there are processes where only groups may be, or another program manages it",
        Some(libc::ENOSPC) => ": a parent's limits leave no room for it (cpuset.cpus, cpuset.mems)",
        _ => "",
    };
    format!("{tried}: {error}{hint}")
}

fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// True where this user may make groups in the folder.
fn is_writable(folder: &impl AsFd) -> bool {
    rustix::fs::accessat(folder, ".", rustix::fs::Access::WRITE_OK, rustix::fs::AtFlags::EACCESS).is_ok()
}

/// A path of a hierarchy with a part of it: `/a/b` in `/sys/fs/cgroup` is `/sys/fs/cgroup/a/b`.
fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests;
