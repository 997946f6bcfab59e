//! What the task sees as `/`: put together beside the host's, entered, and closed to changes.
//!
//! What the task writes lies on top of the host's /proc meanwhile, and holds the places that the pieces are put together in. Whatever an image
//! brought is walked with `openat2`: no link of it leads out of its root, and none is followed on the way to /proc, /dev and /sys.

use super::super::failed;
use super::inside::Inside;
use super::sys;
use super::trees::{Bind, Trees, filesystem};
use crate::container::OVERLAY_OPTION;
use crate::process::{BUNDLE_DIR, ProcessSpec, Root, SANDBOX_DIR};
use libc::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, chmodat, fstat, mkdirat, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
};
use std::fmt::Display;

/// Is there on every Linux, and is not looked at any more once the new one is made.
const STAGE: &str = "/proc";
/// What tells everyone too much of the host: read as empty. Of what the OCI's runtime specification has masked or read-only, the rest belongs to
/// the host's root, whom no user namespace maps: its files answer by their modes, to root in a container as to everybody.
const MASKED: [(&str, &str); 8] = [
    ("proc", "acpi"),
    ("proc", "asound"),
    ("proc", "interrupts"),
    ("proc", "kcore"),
    ("proc", "keys"),
    ("proc", "sched_debug"),
    ("proc", "timer_list"),
    ("sys", "firmware"),
];

fn said<T, E: Display>(result: Result<T, E>, tried: &str) -> Result<T, String> {
    result.map_err(|error| failed(tried, error))
}

/// Builds the root and enters it. The host's tree is gone afterwards.
pub(super) fn enter(inside: &mut Inside<'_>) -> Result<(), String> {
    let trees = inside.trees.take().expect("they were opened in the step before");
    let spec = inside.spec;
    let safe = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    // Before the host's is covered: a namespace may mount only what it could see already (mount_namespaces(7)).
    let hint = "it is refused where parts of the host's own /proc are covered, as in a container";
    let proc = filesystem("proc", &[], safe | MountAttrFlags::MOUNT_ATTR_NODEV).map_err(|error| format!("{error} ({hint})"))?;
    let terminals = filesystem("devpts", &[("ptmxmode", "0666"), ("mode", "620")], safe)?;
    attach(&trees.store, CWD, STAGE)?;
    said(rustix::process::chdir(STAGE), "chdir to the stage")?;
    for (name, mode) in [("shm", 0o1777), ("empty", 0o555)] {
        shared_folder(name, mode)?;
    }
    let root = match &spec.root {
        Root::Host { .. } => host_root(spec, &trees)?,
        Root::Layers { .. } => image_root(&trees)?,
    };
    mask(&proc, &root, "proc")?;
    if let Some(sys) = &trees.system {
        mask(sys, &root, "sys")?;
    }
    let devices = folder(&root, "dev")?;
    onto(&terminals, &folder(&devices, "pts")?)?;
    onto(&clone(CWD, "shm")?, &folder(&devices, "shm")?)?;
    for bind in &trees.binds {
        place(spec, &root, bind)?;
    }
    if matches!(spec.root, Root::Host { .. }) {
        said(sys::set_mount(&root, MOUNT_ATTR_RDONLY, false), "mount_setattr /")?;
    } else {
        // Made where an image only names it.
        walk(&root, &spec.dir, true)?;
    }
    pivot(&root)
}

/// The root that is prepared, with the folders that are the task's own.
fn host_root(spec: &ProcessSpec, trees: &Trees) -> Result<OwnedFd, String> {
    let root = match &trees.root {
        Some(root) => {
            said(mkdirat(CWD, "root", Mode::from_raw_mode(0o755)), "mkdir root")?;
            attach(root, CWD, "root")?;
            at(CWD, "root")?
        }
        None => {
            said(mkdirat(CWD, "upper", Mode::from_raw_mode(0o755)), "mkdir upper")?;
            let upper = at(CWD, "upper")?;
            for mount in &spec.mounts {
                let path = mount.to.trim_matches('/');
                let bind = trees.binds.iter().find(|bind| bind.to == path);
                walk(&upper, path, bind.is_none_or(|bind| bind.folder))?;
            }
            image_root(trees)?
        }
    };
    for (name, from, mode) in [("tmp", "tmp", 0o1777), (&SANDBOX_DIR[1..], "sandbox", 0o700)] {
        shared_folder(from, mode)?;
        onto(&clone(CWD, from)?, &folder(&root, name)?)?;
    }
    Ok(root)
}

/// The image's layers over each other, and over them one of the task's own.
fn image_root(trees: &Trees) -> Result<OwnedFd, String> {
    let mut lower = String::new();
    for (number, layer) in trees.layers.iter().enumerate() {
        let place = format!("l{number}");
        said(mkdirat(CWD, &*place, Mode::from_raw_mode(0o755)), "mkdir for a layer")?;
        attach(layer, CWD, &place)?;
        // The kernel wants the highest first.
        lower = if lower.is_empty() { place } else { format!("{place}:{lower}") };
    }
    for name in ["upper", "work", "root"] {
        match mkdirat(CWD, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed(&format!("mkdir {name}"), error)),
        }
    }
    let context = said(fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC), "fsopen overlay")?;
    for (key, value) in [("lowerdir", &*lower), ("upperdir", "upper"), ("workdir", "work")] {
        said(fsconfig_set_string(context.as_fd(), key, value), &format!("fsconfig overlay {key}={value}"))?;
    }
    said(fsconfig_set_flag(context.as_fd(), OVERLAY_OPTION), "fsconfig overlay userxattr (kernel 5.11 or later)")?;
    said(fsconfig_create(context.as_fd()), "fsconfig overlay create")?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = said(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes), "fsmount overlay")?;
    attach(&mount, CWD, "root")?;
    let root = at(CWD, "root")?;
    let devices = trees.devices.as_ref().expect("a task of an image has some");
    onto(devices, &folder(&root, "dev")?)?;
    Ok(root)
}

/// Puts a file system of the kernel where it belongs, with what tells too much covered.
fn mask(mount: &OwnedFd, root: &OwnedFd, name: &str) -> Result<(), String> {
    onto(mount, &folder(root, name)?)?;
    let mounted = folder(root, name)?;
    let read_only = if name == "proc" { Some("sys") } else { None };
    for (_, masked) in MASKED.iter().filter(|(of, _)| *of == name) {
        let Ok(found) = openat(&mounted, *masked, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) else { continue };
        let mode = said(fstat(&found), masked)?.st_mode;
        let cover = if rustix::fs::FileType::from_raw_mode(mode).is_dir() {
            clone(CWD, "empty")?
        } else {
            clone(folder(root, "dev")?.as_fd(), "null")?
        };
        said(sys::set_mount(&cover, MOUNT_ATTR_RDONLY, false), &format!("mount_setattr {masked}"))?;
        onto(&cover, &found)?;
    }
    if let Some(settings) = read_only {
        let cover = clone(mounted.as_fd(), settings)?;
        said(sys::set_mount(&cover, MOUNT_ATTR_RDONLY, false), "mount_setattr /proc/sys")?;
        onto(&cover, &folder(&mounted, settings)?)?;
    }
    Ok(())
}

/// Puts a mount where it goes; in an image, what is not there is made.
fn place(spec: &ProcessSpec, root: &OwnedFd, bind: &Bind) -> Result<(), String> {
    let file = bind.to.strip_prefix(&BUNDLE_DIR[1..]).and_then(|rest| rest.strip_prefix('/'));
    match file.filter(|_| matches!(spec.root, Root::Host { .. })) {
        // The bundle is one file: its folder is the task's own, and closed.
        Some(name) => {
            shared_folder("bundle", 0o755)?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let bundle = at(CWD, "bundle")?;
            said(openat(&bundle, name, flags, Mode::from_raw_mode(0o644)), &format!("making bundle/{name}"))?;
            let cover = clone(CWD, "bundle")?;
            said(sys::set_mount(&cover, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, false), "mount_setattr bundle")?;
            onto(&cover, &folder(root, &BUNDLE_DIR[1..])?)?;
            onto(&bind.tree, &at(folder(root, &BUNDLE_DIR[1..])?.as_fd(), name)?)
        }
        None => onto(&bind.tree, &walk(root, &bind.to, bind.folder)?),
    }
}

/// Walks to `path` below `root`, whose links lead nowhere else, and makes what is missing: folders, and at last a folder or a file.
fn walk(root: &OwnedFd, path: &str, is_folder: bool) -> Result<OwnedFd, String> {
    let path = path.trim_matches('/');
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let look = |path: &str| {
        let path = if path.is_empty() { "." } else { path };
        openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
    };
    match look(path) {
        Ok(found) => return Ok(found),
        Err(Errno::NOENT) => {}
        Err(error) => return Err(failed(&format!("looking for {path} inside"), error)),
    }
    let mut known = String::new();
    let mut here = said(look(""), "opening the root")?;
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    for (at, part) in parts.iter().enumerate() {
        known = if known.is_empty() { (*part).into() } else { format!("{known}/{part}") };
        here = match look(&known) {
            Ok(found) => found,
            Err(Errno::NOENT) => {
                let made = if at + 1 == parts.len() && !is_folder {
                    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    openat(&here, *part, flags, Mode::from_raw_mode(0o644)).map(drop)
                } else {
                    mkdirat(&here, *part, Mode::from_raw_mode(0o755))
                };
                said(made, &format!("making {known} inside"))?;
                said(look(&known), &format!("opening {known} inside"))?
            }
            Err(error) => return Err(failed(&format!("looking for {known} inside"), error)),
        };
    }
    Ok(here)
}

/// The folder `name` directly in `parent`, made where there is none; a link or a file of that name is refused.
fn folder(parent: &OwnedFd, name: &str) -> Result<OwnedFd, String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let look = || openat2(parent, name, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH);
    let found = match look() {
        Err(Errno::NOENT) => said(mkdirat(parent, name, Mode::from_raw_mode(0o755)), &format!("making /{name} inside")).map(|()| look())?,
        found => found,
    };
    found.map_err(|error| failed(&format!("/{name} inside is no folder"), error))
}

/// A folder of what the task writes to, with a mode that the umask has no part in.
fn shared_folder(name: &str, mode: u32) -> Result<(), String> {
    said(mkdirat(CWD, name, Mode::from_raw_mode(mode)), &format!("mkdir {name}"))?;
    said(chmodat(CWD, name, Mode::from_raw_mode(mode), AtFlags::empty()), &format!("chmod {name}"))
}

fn at(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, String> {
    said(openat(parent, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()), &format!("opening {name}"))
}

fn clone(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, String> {
    said(open_tree(parent, name, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC), &format!("open_tree {name}"))
}

fn attach(mount: &OwnedFd, parent: BorrowedFd<'_>, name: &str) -> Result<(), String> {
    said(move_mount(mount, "", parent, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH), &format!("move_mount to {name}"))
}

fn onto(mount: &OwnedFd, place: &OwnedFd) -> Result<(), String> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    said(move_mount(mount, "", place, "", flags), "move_mount")
}

/// The new root becomes the only one; the host's is let go.
fn pivot(root: &OwnedFd) -> Result<(), String> {
    said(rustix::process::fchdir(root), "fchdir to the new root")?;
    // Both may be the same folder: the old root then lies on top of the new (pivot_root(2)).
    let hint = "not possible from an initramfs: switch_root first";
    rustix::process::pivot_root(".", ".").map_err(|error| failed(&format!("pivot_root ({hint})"), error))?;
    said(unmount(".", UnmountFlags::DETACH), "umount of the old root")?;
    said(rustix::process::chdir("/"), "chdir /")
}
