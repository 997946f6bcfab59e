//! Version 1 (Documentation/admin-guide/cgroup-v1): a hierarchy for each controller, or for a few together. A group is a folder in each.

use super::{Counted, Group, exists, folder, is_writable, keyed, number, open_folder, read, remove, write};
use crate::process::ProcessLimits;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, openat};
use std::path::Path;

/// What a task's group bounds and counts; without one of them the others hold.
pub(super) const WANTED: [&str; 4] = ["cpu", "cpuacct", "memory", "pids"];
/// `cpu.shares` of one core (sched-design-CFS), and the least that the kernel takes.
const SHARES_PER_CORE: u64 = 1_024;
const SHARES_MIN: u64 = 2;

/// One mount, and which of the wanted controllers it has.
#[derive(Debug)]
pub(super) struct Hierarchy {
    root: OwnedFd,
    controllers: Vec<&'static str>,
}

/// Those in a /proc/self/mountinfo (proc_pid_mountinfo(5)) that have a wanted controller, and where groups may be made unless it only `reads`.
pub(super) fn find(mountinfo: &str, reads: bool) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = vec![];
    for (point, options) in mounts(mountinfo) {
        let known = |name: &&str| found.iter().any(|hierarchy| hierarchy.controllers.contains(name));
        let controllers: Vec<&'static str> =
            WANTED.into_iter().filter(|wanted| options.split(',').any(|option| option == *wanted) && !known(wanted)).collect();
        if controllers.is_empty() {
            continue;
        }
        let Some(root) = open_folder(Path::new(point)).ok().filter(|root| reads || is_writable(root)) else { continue };
        found.push(Hierarchy { root, controllers });
    }
    found
}

/// Where hierarchies are mounted, and with which options: the names of their controllers among them.
pub(super) fn mounts(mountinfo: &str) -> impl Iterator<Item = (&str, &str)> {
    mountinfo.lines().filter_map(|line| {
        // … mount point (field 5), options, optional fields, ` - `, type, source, options of the file system.
        let (mount, filesystem) = line.split_once(" - ")?;
        let (mut mount, mut filesystem) = (mount.split(' ').skip(4), filesystem.split(' '));
        let (Some(point), Some("cgroup"), Some(options)) = (mount.next(), filesystem.next(), filesystem.nth(1)) else { return None };
        Some((point, options))
    })
}

pub(super) fn lacks(hierarchies: &[Hierarchy]) -> Vec<String> {
    let missing = |name: &&str| !hierarchies.iter().any(|hierarchy| hierarchy.controllers.contains(name));
    let about = |name| match name {
        "cpu" => "processors are not shared by what native and container tasks were promised",
        "cpuacct" => "processor time is known of native and container tasks only when they have ended, and not limited",
        "memory" => "nothing bounds the memory of native and container tasks",
        _ => "nothing bounds the processes of native and container tasks",
    };
    WANTED.into_iter().filter(missing).map(|name| format!("no control group \"{name}\": {}", about(name))).collect()
}

/// What a group must count so that it is known to be empty.
pub(super) fn can_renew(hierarchies: &[Hierarchy]) -> bool {
    ["memory", "pids"].iter().all(|wanted| hierarchies.iter().any(|hierarchy| hierarchy.controllers.contains(wanted)))
}

impl Hierarchy {
    pub(super) const fn root(&self) -> &OwnedFd {
        &self.root
    }

    pub(super) fn make(&self, name: &str, limits: &ProcessLimits, group: &mut Group) -> Result<(), String> {
        let has_cpu = self.controllers.contains(&"cpu");
        let here = folder(&self.root, name, |parent| if has_cpu { super::share_idly(parent, limits) } else { Ok(()) })?;
        self.bound(&here, None, limits)?;
        self.open_all(&here, group)
    }

    /// One that is there, with other limits, and counts that begin again.
    pub(super) fn renew(&self, name: &str, before: &ProcessLimits, limits: &ProcessLimits, group: &mut Group) -> Result<(), String> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let here = openat(&self.root, name, flags, Mode::empty())
            .map_err(|error| super::explained(&format!("opening the control group {name}"), error.into()))?;
        self.bound(&here, Some(before), limits)?;
        for controller in &self.controllers {
            match *controller {
                "cpuacct" => write(&here, "cpuacct.usage", 0)?,
                "memory" => write(&here, "memory.max_usage_in_bytes", 0)?,
                _ => {}
            }
        }
        self.open_all(&here, group)
    }

    /// Writes the limits that are not as they are already.
    fn bound(&self, here: &OwnedFd, before: Option<&ProcessLimits>, limits: &ProcessLimits) -> Result<(), String> {
        let shares = |limits: &ProcessLimits| (limits.cpu_milli.saturating_mul(SHARES_PER_CORE) / 1_000).max(SHARES_MIN);
        for controller in &self.controllers {
            match *controller {
                "cpu" if before.is_none_or(|before| shares(before) != shares(limits)) => write(here, "cpu.shares", shares(limits))?,
                "memory" if before.is_none_or(|before| before.memory_bytes_max != limits.memory_bytes_max) => {
                    // With swap, which is never less; the kernel counts it only where it was told to (swapaccount=1).
                    let mut names = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"];
                    if before.is_some_and(|before| before.memory_bytes_max < limits.memory_bytes_max) {
                        names.reverse();
                    }
                    for name in names.iter().filter(|name| !name.contains("memsw") || exists(here, name)) {
                        write(here, name, limits.memory_bytes_max)?;
                    }
                }
                "pids" if before.is_none_or(|before| before.processes_max != limits.processes_max) => {
                    write(here, "pids.max", limits.processes_max)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn open_all(&self, here: &OwnedFd, group: &mut Group) -> Result<(), String> {
        self.count(here, group, false);
        let file = openat(here, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        group.joined_by.push(file.map_err(|error| super::explained("opening cgroup.procs", error.into()))?);
        Ok(())
    }

    /// Opens what a group that is there counts.
    pub(super) fn open(&self, name: &str, group: &mut Group) -> Option<()> {
        let here = openat(&self.root, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        self.count(&here, group, true);
        Some(())
    }

    /// `now`: also what tells the memory of this moment more exactly, which takes the kernel longer.
    fn count(&self, here: &OwnedFd, group: &mut Group, now: bool) {
        for controller in &self.controllers {
            match *controller {
                "cpuacct" => group.count(here, "cpuacct.usage", |text, counted| counted.cpu_us = number(text) / 1_000),
                "memory" => memory(here, group, now),
                "pids" => {
                    group.count(here, "pids.current", |text, counted| counted.processes = number(text));
                    group.count(here, "pids.events", |text, counted| counted.processes_refused = keyed(text, "max"));
                }
                _ => {}
            }
        }
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), String> {
        remove(&self.root, name, |folder| {
            let Ok(file) = openat(folder, "cgroup.procs", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else { return };
            let Some(text) = read(&file) else { return };
            // Those that fork meanwhile are found by the next look: none of them can run for long.
            let pids = text.lines().filter_map(|line| rustix::process::Pid::from_raw(line.parse().ok()?));
            pids.for_each(|pid| _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL));
        })
    }
}

fn memory(here: &OwnedFd, group: &mut Group, now: bool) {
    group.count(here, "memory.usage_in_bytes", |text, counted| counted.memory_bytes += number(text));
    if now {
        group.count(here, "memory.stat", |text, counted| {
            counted.memory_bytes = counted.memory_bytes.saturating_sub(keyed(text, "total_inactive_file"));
        });
    }
    group.count(here, "memory.max_usage_in_bytes", |text, counted| counted.memory_peak_bytes = number(text));
    group.count(here, "memory.oom_control", |text: &str, counted: &mut Counted| counted.memory_kills = keyed(text, "oom_kill"));
}
