//! The template's own view of the host's mounts, without those that no task has a part of. Each task's cell begins as a copy of it, and that takes
//! the kernel time for each mount.

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use std::fs;

/// File systems of the kernel's that nothing of a task is ever taken from (filesystems(5)); the template holds what it needs of them open.
const NOT_TASKS: [&str; 13] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "efivarfs",
    "fusectl",
    "mqueue",
    "pstore",
    "securityfs",
    "tracefs",
];

/// Takes this process out of the host's mount namespace, and the mounts away that are not tasks'. What is mounted on the host later is seen.
/// Where that may not be done, all stays as it is.
pub(super) fn leave_out_what_no_task_needs() {
    if crate::jail::cell::sys::leave_mounts().is_err()
        || mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC).is_err()
    {
        return;
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    // One that lies on another comes later.
    for line in mounts.lines().rev() {
        let mut fields = line.split(' ').skip(1);
        if let (Some(place), Some(kind)) = (fields.next(), fields.next())
            && NOT_TASKS.contains(&kind)
        {
            let _ = unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW); // It costs a little time then, and no more.
        }
    }
}
