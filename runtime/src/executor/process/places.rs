//! The folders of one agent's executors, and whom they serve. As root they are root's own, so that the agent, which is not, can give the template
//! no other: it reads what executors write through its group, and empties the folder of all output, which alone is its own.
//!
//! In the agent's data directory: `executors/N` for wasm, `processes/` for all others, `unpacked/` for what tasks are started from. The
//! directories of executors of processes are best kept in memory, where files cost little and are gone after a reboot as what they speak of is:
//! `processes/live` leads there. `processes/logs` is their output, `processes/disks` the files of tasks that have a disk, `processes/root-…` what
//! native tasks see of the host.

use super::super::place;
use crate::Key;
use crate::container::absent_is_fine;
use crate::process::{AGENT_IDS, EXECUTORS_GROUP};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, lchown};
use std::path::{Component, Path, PathBuf};

const EXECUTORS: &str = "executors";
const PROCESSES: &str = "processes";
const UNPACKED: &str = "unpacked";
const LIVE: &str = "live";
const DISKS: &str = "disks";
/// What control groups and folders in memory are called before their number.
const PREFIX: &str = "skep-";
/// What the name of the group of idle tasks ends with.
const IDLE: &str = "-idle";
/// Where a folder in memory may be, the best first.
const IN_MEMORY: [&str; 2] = ["/run", "/dev/shm"];

/// Which executor is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Which {
    /// That of wasm tasks with this number.
    Wasm(u32),
    /// That of the native or container task with this key.
    Process(Key),
}

/// Where all of them are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    data: PathBuf,
    live: PathBuf,
    /// Names the control group that all are in.
    name: String,
}

/// Who is served: the user of the agent's process, and the group of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner(pub(super) u32);

impl Places {
    /// Directories of executors of wasm tasks.
    #[must_use]
    pub fn executors(&self) -> PathBuf {
        self.data.join(EXECUTORS)
    }

    /// What executors of processes share: `logs` with the output of all, and what is large.
    #[must_use]
    pub fn processes(&self) -> PathBuf {
        self.data.join(PROCESSES)
    }

    /// Directories of executors of processes.
    #[must_use]
    pub fn live(&self) -> &Path {
        &self.live
    }

    /// The store of what tasks are started from.
    #[must_use]
    pub fn unpacked(&self) -> PathBuf {
        self.data.join(UNPACKED)
    }

    /// The control group that all tasks' are in.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.name
    }

    /// The one of those that run only while nothing else wants the processor: beside the other, since groups share by what stands beside them.
    #[must_use]
    pub fn idle_group(&self) -> String {
        format!("{}{IDLE}", self.name)
    }

    /// The directory of an executor.
    #[must_use]
    pub fn dir(&self, which: Which) -> PathBuf {
        match which {
            Which::Wasm(number) => self.executors().join(number.to_string()),
            Which::Process(key) => self.live.join(format!("{:032x}", key.0)),
        }
    }

    pub(super) fn disk(&self, key: Key) -> PathBuf {
        self.processes().join(DISKS).join(format!("{:032x}", key.0))
    }

    /// True where `group` is below the one of all, or of those that are idle.
    pub(super) fn has_group(&self, group: &str) -> bool {
        let rest = group.strip_prefix(&*self.name);
        let rest = rest.map(|rest| rest.strip_prefix(IDLE).unwrap_or(rest)).and_then(|rest| rest.strip_prefix('/'));
        rest.is_some_and(|rest| rest.split('/').all(|part| !["", ".", ".."].contains(&part)))
    }

    /// True where `path` is a layer of the store. All on the way is the template's; what lies in a layer, links among it, is its maker's.
    pub(super) fn has_layer(&self, path: &Path) -> bool {
        matches!(&self.unpacked_parts(path)[..], ["layers", _])
    }

    /// True where `path` is a bundle of the store, in the same way.
    pub(super) fn has_bundle(&self, path: &Path) -> bool {
        matches!(&self.unpacked_parts(path)[..], ["items", _, "file" | "folder"])
    }

    /// The names below the store; none where it lies elsewhere, or the way is no plain one.
    fn unpacked_parts<'a>(&self, path: &'a Path) -> Vec<&'a str> {
        let Ok(rest) = path.strip_prefix(self.unpacked()) else { return vec![] };
        let name = |part| if let Component::Normal(name) = part { name.to_str() } else { None };
        rest.components().map(name).collect::<Option<_>>().unwrap_or_default()
    }

    /// Makes what is missing of them in `data`, and gives `owner` what is the agent's: as root everything else that is there, which an agent
    /// that was root left.
    ///
    /// # Errors
    /// What was tried, on what, and the system's words; also where something is not as we made it.
    pub(super) fn furnish(data: &Path, owner: Owner) -> Result<Self, String> {
        let said = |tried: &'static str, path: &Path| {
            let path = path.display().to_string();
            move |error: io::Error| format!("{tried} {path}: {error}")
        };
        let root = geteuid().is_root();
        let found = fs::symlink_metadata(data).map_err(said("looking at", data))?;
        if !found.is_dir() || found.uid() != geteuid().as_raw() {
            let user = geteuid().as_raw();
            return Err(format!(
                "{} is no directory of user {user}, who starts the agent: give it to that user (chown {user})",
                data.display()
            ));
        }
        if root && owner.is_other() {
            // The agent makes files here, and does not remove or rename what is ours.
            chown(data, Some(0), Some(owner.0)).map_err(said("giving to its agent", data))?;
            fs::set_permissions(data, Permissions::from_mode(0o1771)).map_err(said("opening", data))?;
        }
        let places = |live: PathBuf, name: String| Self { data: data.into(), live, name };
        let draft = places(PathBuf::new(), String::new());
        let (processes, disks) = (draft.processes(), draft.processes().join(DISKS));
        let group = if root { EXECUTORS_GROUP } else { owner.0 };
        // As root what is made there is the agent's group's from its first moment.
        let shared = if root { 0o2751 } else { 0o751 };
        for (path, mode, group) in [
            (draft.executors(), shared, owner.0),
            (processes.clone(), if root { 0o710 } else { 0o711 }, group),
            (disks, 0o700, owner.0),
            (draft.unpacked(), 0o700, owner.0),
        ] {
            own(&path, mode, root.then_some(group)).map_err(said("making", &path))?;
        }
        let logs = processes.join(place::LOGS);
        let _ = fs::DirBuilder::new().mode(0o700).create(&logs); // It may be there.
        if root {
            // Executors add files there, which are the agent's to read and remove, and see none.
            lchown(&logs, Some(owner.0), Some(owner.0)).map_err(said("giving to its agent", &logs))?;
            fs::set_permissions(&logs, Permissions::from_mode(0o3733)).map_err(said("opening", &logs))?;
        }
        let (live, name) = live(&processes, &found).map_err(said("finding a place for", &processes.join(LIVE)))?;
        own(&live, shared, root.then_some(owner.0)).map_err(said("making", &live))?;
        if root {
            hand_over(data, owner).map_err(said("giving to its agent what is in", data))?;
        }
        Ok(places(live, name))
    }

    /// Those that a template has made in `data`; `None`: none has, or they are gone.
    pub(super) fn find(data: &Path) -> Option<Self> {
        let live = fs::canonicalize(data.join(PROCESSES).join(LIVE)).ok()?;
        let name = named(&live).unwrap_or_else(|| PREFIX.into());
        Some(Self { data: data.into(), live, name })
    }

    /// Removes all of it, the agent's part and the data directory too: after its last task, where nothing is to be left.
    pub(super) fn vanish(&self) -> io::Result<()> {
        for path in [&self.live, &self.data] {
            absent_is_fine(fs::remove_dir_all(path))?;
        }
        Ok(())
    }
}

impl Owner {
    /// True where the agent is not root and this process is.
    pub(super) fn is_other(self) -> bool {
        geteuid().is_root() && self.0 != 0
    }
}

/// A directory that is ours, with this mode, and as root with this group.
fn own(path: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(path)?;
    if !is_ours(&found) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is there, and no directory of ours"));
    }
    if let Some(group) = group {
        lchown(path, None, Some(group))?;
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// A directory that nobody else can have put there, or changed.
fn is_ours(found: &Metadata) -> bool {
    found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o022 == 0
}

/// What a folder in memory is called, where it is one of ours.
fn named(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    name.starts_with(PREFIX).then(|| name.to_owned())
}

/// Where executors of processes have their directories, and what that is called: where an earlier template had them, if that was in memory.
fn live(processes: &Path, data: &Metadata) -> io::Result<(PathBuf, String)> {
    let link = processes.join(LIVE);
    let is_known = |path: &PathBuf| IN_MEMORY.iter().any(|dir| path.parent() == Some(Path::new(dir)));
    if let Some(path) = fs::read_link(&link).ok().filter(is_known)
        && let Some(name) = named(&path)
    {
        return Ok((path, name));
    }
    let hash = blake3::hash(format!("{}:{}", data.dev(), data.ino()).as_bytes());
    let name = format!("{PREFIX}{}", &hash.to_hex()[..16]);
    let place = IN_MEMORY.iter().map(|dir| Path::new(dir).join(&name)).find(|path| is_in_memory(path) && own(path, 0o700, None).is_ok());
    let Some(place) = place else { return Ok((link, name)) };
    match fs::remove_file(&link) {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => return Ok((link, name)),
        _ => {}
    }
    std::os::unix::fs::symlink(&place, &link)?;
    Ok((place, name))
}

fn is_in_memory(path: &Path) -> bool {
    // linux/magic.h
    const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;
    path.parent().is_some_and(|parent| rustix::fs::statfs(parent).is_ok_and(|found| found.f_type == TMPFS_MAGIC))
}

/// Gives the agent what is root's in `data` and not a template's. What it owns already was given to it before.
fn hand_over(data: &Path, owner: Owner) -> io::Result<()> {
    // Before there was a folder of the template's for it; what is the agent's may lead anywhere.
    let cache = data.join("cache");
    if fs::symlink_metadata(&cache).is_ok_and(|found| is_ours(&found)) {
        absent_is_fine(fs::remove_dir_all(cache.join(UNPACKED)))?;
    }
    absent_is_fine(fs::rename(data.join(EXECUTORS).join("table"), data.join("executors.table")))?;
    for entry in fs::read_dir(data)? {
        let entry = entry?;
        if ![EXECUTORS, PROCESSES, UNPACKED].iter().any(|ours| entry.file_name() == *ours) {
            give(&entry.path(), owner.0)?;
        }
    }
    Ok(())
}

/// Gives `user`, and its group, what root made at `path` and below. A file with another name elsewhere stays as it is: it may be anybody's.
///
/// # Errors
/// What the system says.
pub fn give(path: &Path, user: u32) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if found.uid() != 0 || (!found.is_dir() && found.nlink() > 1) {
        return Ok(());
    }
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), user)?;
        }
    }
    lchown(path, Some(user), Some(user))
}

/// The user that an agent's process becomes where it was started as root: the one that its data directory was given to, or for a new one a number
/// that is drawn from which directory that is.
///
/// # Errors
/// Where it cannot be looked at.
pub fn agent_user(data: &Path) -> io::Result<u32> {
    let found = fs::metadata(data)?;
    if found.uid() == 0 && AGENT_IDS.contains(&found.gid()) {
        return Ok(found.gid());
    }
    let hash = blake3::hash(format!("{}:{}", found.dev(), found.ino()).as_bytes());
    let number = u32::from_le_bytes([hash.as_bytes()[0], hash.as_bytes()[1], 0, 0]);
    Ok(AGENT_IDS.start + number % (AGENT_IDS.end - AGENT_IDS.start))
}

/// True where a user other than its owner may reach `dir`.
#[must_use]
pub fn is_passable(dir: &Path) -> bool {
    dir.ancestors().all(|part| fs::metadata(part).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0))
}
