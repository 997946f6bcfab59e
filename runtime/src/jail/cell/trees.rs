//! Mounts that are made before the task's namespaces can see them, as descriptors that belong to no namespace yet: parts of the host, layers of
//! the image, and the file system that the task writes to. Made by root outside, or without root by the process inside.

use super::super::failed;
use super::host::{DEVICES, Host};
use super::sys;
use crate::process::{BUNDLE_DIR, Ids, Network, ProcessSpec, Root};
use libc::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Gid, Mode, OFlags, ResolveFlags, Uid, openat2};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, open_tree,
};
use rustix::process::geteuid;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What tells a program with the host's network where names are asked for.
const RESOLVING: [&str; 2] = ["resolv.conf", "hosts"];
/// Files and folders in memory that a task may have, at most, for each of its bytes: an inode takes about so many of the kernel's.
const BYTES_PER_FILE: u64 = 1_024;
/// The same on disk, as mkfs.ext4 takes it.
const DISK_BYTES_PER_FILE: u64 = 16_384;

/// A part of the host, and where it goes.
#[derive(Debug)]
pub(super) struct Bind {
    pub(super) tree: OwnedFd,
    /// Relative to the root inside.
    pub(super) to: String,
    pub(super) folder: bool,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Trees {
    /// The root of a native task; `None`: it is a layer, since there are mounts on it that it has no places for.
    pub(super) root: Option<OwnedFd>,
    pub(super) binds: Vec<Bind>,
    /// The devices of an image's task.
    pub(super) devices: Option<OwnedFd>,
    /// Of the image, the lowest first.
    pub(super) layers: Vec<OwnedFd>,
    /// `/sys`, as this network sees it; with the host's network a task has none, since it would tell of that.
    pub(super) system: Option<OwnedFd>,
    /// What the task writes to.
    pub(super) store: OwnedFd,
}

impl Trees {
    pub(super) fn open(spec: &ProcessSpec, host: &Host, file: &Path) -> Result<Self, String> {
        let system = match spec.network {
            Network::None => Some(system()?),
            Network::Host => None,
        };
        let store = store(spec, file)?;
        let mut trees = Self { root: None, binds: vec![], devices: None, layers: vec![], system, store };
        let read = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID;
        match &spec.root {
            Root::Host { bundle, name } => {
                // Without NODEV: its devices are ours.
                if spec.mounts.is_empty() {
                    trees.root = Some(tree(&host.root, read)?);
                } else {
                    // The places of its mounts are made in a layer over it.
                    trees.layers.push(tree(&host.root, read | MOUNT_ATTR_NODEV)?);
                    trees.devices = Some(tree(&host.devices(), read | MOUNT_ATTR_NOEXEC)?);
                }
                for name in &host.mounted {
                    trees.bind(&Path::new("/").join(name), name, MOUNT_ATTR_RDONLY)?;
                }
                let to = name.as_ref().map_or_else(|| BUNDLE_DIR[1..].into(), |name| format!("{}/{name}", &BUNDLE_DIR[1..]));
                trees.bind(bundle, &to, MOUNT_ATTR_RDONLY)?;
            }
            Root::Layers { layers } => {
                trees.devices = Some(tree(&host.devices(), read | MOUNT_ATTR_NOEXEC)?);
                for layer in layers {
                    trees.layers.push(tree(layer, read | MOUNT_ATTR_NODEV)?);
                }
            }
        }
        if spec.ids.outside.is_none() {
            // Whoever is not root makes no devices: each is the host's.
            for (name, _, _) in DEVICES {
                let tree = tree(&Path::new("/dev").join(name), MOUNT_ATTR_NOSUID)?;
                trees.binds.push(Bind { tree, to: format!("dev/{name}"), folder: false });
            }
        }
        if spec.network == Network::Host {
            for name in RESOLVING {
                let from = Path::new("/etc").join(name);
                if from.exists() {
                    trees.bind(&from, &format!("etc/{name}"), MOUNT_ATTR_RDONLY)?;
                }
            }
        }
        for mount in &spec.mounts {
            let attributes = if mount.read_only { MOUNT_ATTR_RDONLY } else { 0 };
            // What a policy allows is this path, and not where a link on it leads.
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let found = openat2(CWD, &mount.from, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS);
            let found =
                found.map_err(|error| failed(&format!("opening {}, on which there may be no link", mount.from.display()), error))?;
            let path = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
            trees.bind(&path, mount.to.trim_start_matches('/'), attributes)?;
        }
        Ok(trees)
    }

    /// Has the layers' files belong to the ids that the user namespace of `pid` maps theirs to.
    pub(super) fn map_owners(&self, spec: &ProcessSpec, pid: u32) -> Result<(), String> {
        // What is of the host stays the host's.
        if matches!(spec.root, Root::Host { .. }) {
            return Ok(());
        }
        let path = format!("/proc/{pid}/ns/user");
        let namespace = File::open(&path).map_err(|error| failed(&format!("opening {path}"), error))?;
        for layer in &self.layers {
            let hint = "a kernel of 5.19 or later, and a file system that can map owners, as ext4, xfs, btrfs";
            sys::map_owners(layer, &namespace).map_err(|error| failed(&format!("mount_setattr idmap (it takes {hint})"), error))?;
        }
        Ok(())
    }

    fn bind(&mut self, from: &Path, to: &str, attributes: u64) -> Result<(), String> {
        let folder = fs::metadata(from).map_err(|error| failed(&format!("looking at {}", from.display()), error))?.is_dir();
        let tree = tree(from, attributes | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)?;
        self.binds.push(Bind { tree, to: to.into(), folder });
        Ok(())
    }
}
/// A mount of `path` that is nowhere yet.
fn tree(path: &Path, attributes: u64) -> Result<OwnedFd, String> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, path, flags).map_err(|error| failed(&format!("open_tree {}", path.display()), error))?;
    sys::set_mount(&tree, attributes, false).map_err(|error| failed(&format!("mount_setattr {}", path.display()), error))?;
    Ok(tree)
}

/// `/sys` as the network of this process has it.
pub(super) fn system() -> Result<OwnedFd, String> {
    let safe = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_NODEV;
    filesystem("sysfs", &[], safe | MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// A new file system of the type `kind`, mounted nowhere yet.
pub(super) fn filesystem(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> Result<OwnedFd, String> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|error| failed(&format!("fsopen {kind}"), error))?;
    for (key, value) in options {
        fsconfig_set_string(context.as_fd(), *key, *value).map_err(|error| failed(&format!("fsconfig {kind} {key}={value}"), error))?;
    }
    fsconfig_create(context.as_fd()).map_err(|error| failed(&format!("fsconfig {kind} create"), error))?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(|error| failed(&format!("fsmount {kind}"), error))
}

/// Where the task's own files are: in memory, where they count as such, or in a file of a fixed size on the host's disk.
fn store(spec: &ProcessSpec, file: &Path) -> Result<OwnedFd, String> {
    let Ids { inside, outside, .. } = spec.ids;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    // Inside, the ids are those of the namespace already.
    let owner = if geteuid().is_root() { outside.unwrap_or(inside) } else { inside };
    let (memory, disk) = (spec.limits.memory_bytes_max, spec.limits.disk_bytes_max);
    match outside.filter(|_| disk > 0) {
        Some(owner) => on_disk(file, disk, owner, attributes),
        None => {
            let bytes = if disk > 0 { disk.min(memory) } else { memory };
            let (owner, files) = (owner.to_string(), (bytes / BYTES_PER_FILE).max(64).to_string());
            let options = [("size", &*bytes.to_string()), ("nr_inodes", &*files), ("mode", "711"), ("uid", &*owner), ("gid", &*owner)];
            filesystem("tmpfs", &options, attributes)
        }
    }
}

/// An ext4 in a sparse file: what does not fit gets ENOSPC from the kernel, be it bytes or a million of files.
fn on_disk(path: &Path, bytes: u64, owner: u32, attributes: MountAttrFlags) -> Result<OwnedFd, String> {
    const MAKER: &str = "mkfs.ext4";
    const BYTES_MIN: u64 = 1 << 20;
    let file = File::options().create(true).truncate(true).read(true).write(true).open(path);
    let file = file.and_then(|file| file.set_len(bytes.max(BYTES_MIN)).map(|()| file));
    let file = file.map_err(|error| failed(&format!("making {}", path.display()), error))?;
    let mut maker = Command::new(MAKER);
    maker.env_clear().env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    maker.args(["-q", "-F", "-m", "0", "-O", "^has_journal,^resize_inode", "-N", &(bytes / DISK_BYTES_PER_FILE).max(64).to_string()]);
    maker.args(["-E", "lazy_itable_init=1,nodiscard"]).arg(path).stdin(Stdio::null());
    let made = maker.output().map_err(|error| failed(&format!("{MAKER} (package e2fsprogs)"), error))?;
    if !made.status.success() {
        return Err(format!("{MAKER} {}: {}: {}", path.display(), made.status, String::from_utf8_lossy(&made.stderr).trim()));
    }
    let (_device, name) = sys::loop_device(&file)?;
    let name = name.to_str().expect("it is /dev/loop and a number").to_owned();
    let mount = filesystem("ext4", &[("source", &name)], attributes)?;
    // A descriptor of the mount leads to its root, which is opened to be changed.
    let root = rustix::fs::openat(&mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = root.map_err(|error| failed("opening the new file system", error))?;
    rustix::fs::fchown(&root, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner))).map_err(|error| failed("fchown", error))?;
    Ok(mount)
}
