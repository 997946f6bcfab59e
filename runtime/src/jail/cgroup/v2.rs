//! Version 2 (Documentation/admin-guide/cgroup-v2.rst): one hierarchy. Processes are in leaves only, so groups are made below the root, or beside
//! the group that the agent itself is in, where that was delegated.

use super::{Counted, Group, below, exists, explained, folder, is_writable, keyed, number, open_folder, remove, write};
use crate::process::ProcessLimits;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, openat};
use std::fs;
use std::path::Path;

const WANTED: [&str; 3] = ["cpu", "memory", "pids"];

#[derive(Debug)]
pub(super) struct Hierarchy {
    root: OwnedFd,
    /// Of the wanted controllers those that it has.
    controllers: Vec<&'static str>,
}

impl Hierarchy {
    /// Below `mounted`; `own` is a /proc/self/cgroup.
    pub(super) fn find(mounted: &Path, own: &str) -> Result<Self, String> {
        let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
        // The agent's own group has processes; what was delegated to it is the one above, or for root the root.
        let parent = Path::new(own).parent().and_then(Path::to_str).unwrap_or("/");
        let candidates = [mounted.to_path_buf(), below(mounted, own), below(mounted, parent)];
        let root = candidates.iter().find_map(|path| Some((path, open_folder(path).ok().filter(is_writable)?)));
        let (path, root) =
            root.ok_or_else(|| format!("no group below {} belongs to this user (systemd: Delegate=yes)", mounted.display()))?;
        let has = fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
        let controllers: Vec<_> = WANTED.into_iter().filter(|wanted| has.split_whitespace().any(|name| name == *wanted)).collect();
        let hierarchy = Self { root, controllers };
        let root = hierarchy.root.try_clone().map_err(|error| error.to_string())?;
        hierarchy.pass_on(&root).map_err(|error| format!("{}: {error}", path.display()))?;
        let _ = write(&root, "cgroup.subtree_control", "+cpuset"); // Without it processors are not divided.
        Ok(hierarchy)
    }

    /// Of a user who may make no groups: those that root makes are below the root.
    pub(super) fn to_read(mounted: &Path) -> Result<Self, String> {
        let root = open_folder(mounted).map_err(|error| format!("{}: {error}", mounted.display()))?;
        Ok(Self { root, controllers: WANTED.to_vec() })
    }

    pub(super) fn lacks(&self) -> Vec<String> {
        let about = |name| match name {
            "cpu" => "processors are not shared by what native and container tasks were promised",
            "memory" => "nothing bounds the memory of native and container tasks",
            _ => "nothing bounds the processes of native and container tasks",
        };
        let missing = WANTED.into_iter().filter(|name| !self.controllers.contains(name));
        missing.map(|name| format!("no control group \"{name}\" was delegated: {}", about(name))).collect()
    }

    /// Groups in `folder` have the controllers.
    fn pass_on(&self, folder: &OwnedFd) -> Result<(), String> {
        let names: Vec<String> = self.controllers.iter().map(|name| format!("+{name}")).collect();
        if names.is_empty() { Ok(()) } else { write(folder, "cgroup.subtree_control", names.join(" ")) }
    }

    pub(super) const fn root(&self) -> &OwnedFd {
        &self.root
    }

    pub(super) fn make(&self, name: &str, limits: &ProcessLimits, group: &mut Group) -> Result<(), String> {
        let has_cpu = self.controllers.contains(&"cpu");
        let here = folder(&self.root, name, |on_the_way| {
            self.pass_on(on_the_way)?;
            if has_cpu { super::share_idly(on_the_way, limits) } else { Ok(()) }
        })?;
        if self.controllers.contains(&"memory") {
            write(&here, "memory.max", limits.memory_bytes_max)?;
            if exists(&here, "memory.swap.max") {
                write(&here, "memory.swap.max", 0)?;
            }
        }
        if self.controllers.contains(&"cpu") {
            write(&here, "cpu.weight", weight(limits.cpu_milli))?;
        }
        if self.controllers.contains(&"pids") {
            write(&here, "pids.max", limits.processes_max)?;
        }
        Self::count(&here, group, false);
        let file = openat(&here, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        group.joined_by.push(file.map_err(|error| explained("opening cgroup.procs", error.into()))?);
        Ok(())
    }

    /// Opens what a group that is there counts.
    pub(super) fn open(&self, name: &str, group: &mut Group) -> Option<()> {
        let here = openat(&self.root, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        Self::count(&here, group, true);
        Some(())
    }

    /// Files of controllers that were not delegated are not there. `now`: also what tells the memory of this moment more exactly, which takes the
    /// kernel longer.
    fn count(here: &OwnedFd, group: &mut Group, now: bool) {
        group.count(here, "memory.current", |text, counted| counted.memory_bytes += number(text));
        if now {
            group.count(here, "memory.stat", |text, counted| {
                counted.memory_bytes = counted.memory_bytes.saturating_sub(keyed(text, "inactive_file"));
            });
        }
        // Since 5.19.
        group.count(here, "memory.peak", |text, counted| counted.memory_peak_bytes = number(text));
        group.count(here, "memory.events", |text: &str, counted: &mut Counted| counted.memory_kills = keyed(text, "oom_kill"));
        group.count(here, "pids.current", |text, counted| counted.processes = number(text));
        group.count(here, "pids.events", |text, counted| counted.processes_refused = keyed(text, "max"));
        // Is there without the controller too.
        group.count(here, "cpu.stat", |text, counted| counted.cpu_us = keyed(text, "usage_usec"));
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), String> {
        // cgroup.kill since 5.14; without it the end of a task's namespace ends all that is in it.
        remove(&self.root, name, |folder| _ = write(folder, "cgroup.kill", 1))
    }
}

/// `cpu.weight` (1 to 10,000, 100 is the default) of a share of processors, so that a core is what 1,024 shares are in version 1: the conversion
/// that container runtimes use (opencontainers/cgroups, `ConvertCPUSharesToCgroupV2Value`, before 1.3).
fn weight(cpu_milli: u64) -> u64 {
    let shares = (cpu_milli.saturating_mul(1_024) / 1_000).clamp(2, 262_144);
    1 + ((shares - 2) * 9_999) / 262_142
}
