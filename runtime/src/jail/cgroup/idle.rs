//! On which processors tasks run that are promised none: all of one agent's are in one group, which says so for all of them at once (cpuset). In version
//! 1 that is a folder beside those of the other controllers, in version 2 the folder that the tasks' are in.

use super::{Found, Group, Hierarchies, check, explained, folder, is_writable, keyed, open_folder, read, remove, v1, write};
use crate::process::ProcessLimits;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, openat};
use std::path::Path;

/// The controller.
const CPUSET: &str = "cpuset";
/// Who is in a group.
const PROCS: &str = "cgroup.procs";

/// The hierarchy of version 1 that has it, and no controller that a task has a group of its own in.
#[derive(Debug)]
pub(super) struct Cpusets(OwnedFd);

impl Cpusets {
    pub(super) fn find(mountinfo: &str, reads: bool) -> Option<Self> {
        let alone = |options: &str| options.split(',').any(|one| one == CPUSET) && !options.split(',').any(|one| v1::WANTED.contains(&one));
        let (point, _) = v1::mounts(mountinfo).find(|(_, options)| alone(options))?;
        open_folder(Path::new(point)).ok().filter(|root| reads || is_writable(root)).map(Self)
    }

    /// Has whoever joins a task's group join that of all such tasks, if there is one.
    pub(super) fn open(&self, name: &str, limits: &ProcessLimits, group: &mut Group) {
        if limits.cpu_milli == 0 {
            group.joined_by.extend(self.of_all(name));
        }
    }

    /// Moves the process `pid`, which comes to a task, into the group of all such tasks if that is one of them.
    pub(super) fn join(&self, name: &str, pid: u32) -> Result<(), String> {
        let Some(file) = self.of_all(name) else { return Ok(()) };
        rustix::io::write(file, pid.to_string().as_bytes())
            .map(drop)
            .map_err(|error| explained(&format!("writing {pid} to {PROCS}"), error.into()))
    }

    /// Where processes are written to that join the group of all tasks that the task's group is one of; `None` where that has no processors yet: it would
    /// take nobody.
    fn of_all(&self, name: &str) -> Option<OwnedFd> {
        let (parent, _) = name.rsplit_once('/')?;
        let file = |file: &str, flags: OFlags| openat(&self.0, format!("{parent}/{file}"), flags | OFlags::CLOEXEC, Mode::empty()).ok();
        let placed = read(&file("cpuset.cpus", OFlags::RDONLY)?)?;
        file(PROCS, OFlags::WRONLY).filter(|_| !placed.trim().is_empty())
    }

    /// Removes the group of all, which is `name` where no single task's is.
    pub(super) fn remove(&self, name: &str) -> Result<(), String> {
        if name.contains('/') { Ok(()) } else { remove(&self.0, name, |_| {}) }
    }
}

impl Hierarchies {
    /// Has all that is in the group `name`, and what comes into it, run on these processors alone. It is made where there is none.
    ///
    /// # Errors
    /// What was tried, and the system's words; also where no controller places processes.
    pub(crate) fn place(&self, name: &str, processors: &[usize]) -> Result<(), String> {
        check(name)?;
        let root = self.places().ok_or_else(|| format!("no control group \"{CPUSET}\""))?;
        let here = folder(root, name, |_| Ok(()))?;
        let list: Vec<String> = processors.iter().map(ToString::to_string).collect();
        if matches!(&*self.0, Found::V1(..)) {
            // It takes no process before it has memory to give.
            let memory = openat(root, "cpuset.mems", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok().and_then(|file| read(&file));
            write(&here, "cpuset.mems", memory.as_deref().unwrap_or("0").trim())?;
        }
        write(&here, "cpuset.cpus", list.join(","))
    }

    /// What is missing for [`Self::place`], where there are groups at all, as a sentence for people.
    pub(crate) fn lacks_places(&self) -> Option<String> {
        let has = match &*self.0 {
            Found::V1(_, cpusets) => cpusets.is_some(),
            Found::V2(hierarchy) => {
                let file = openat(hierarchy.root(), "cgroup.subtree_control", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
                file.ok().and_then(|file| read(&file)).is_some_and(|has| has.split_whitespace().any(|name| name == CPUSET))
            }
            Found::None(_) => true, // That is said already.
        };
        (!has).then(|| {
            format!(
                "no control group \"{CPUSET}\": revocable native and container tasks have no processors of their own where others are busy"
            )
        })
    }

    /// True where something runs in the group `name`, or in one below it, which [`Self::place`] places.
    pub(crate) fn is_populated(&self, name: &str) -> bool {
        let file = |file: &str| {
            let opened = openat(self.places()?, format!("{name}/{file}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            read(&opened.ok()?)
        };
        match &*self.0 {
            Found::V1(..) => file(PROCS).is_some_and(|processes| !processes.is_empty()),
            _ => file("cgroup.events").is_some_and(|events| keyed(&events, "populated") > 0),
        }
    }

    /// What groups that are placed are below.
    fn places(&self) -> Option<&OwnedFd> {
        match &*self.0 {
            Found::V1(_, cpusets) => cpusets.as_ref().map(|cpusets| &cpusets.0),
            Found::V2(hierarchy) => Some(hierarchy.root()),
            Found::None(_) => None,
        }
    }
}
