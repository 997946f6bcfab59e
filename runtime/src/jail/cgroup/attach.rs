//! How long a process waits to be moved to another group. As the kernel comes, forks and exits cost nothing for it, and whoever moves a process
//! waits until each processor has passed a quiet moment: ten milliseconds and more on a machine without much to do, longer than all the rest of
//! a task's start. With the mount option `favordynmods` (Linux 6.0, cgroup-v2.rst, "Mounting") it is the other way round, for the whole machine.

use rustix::fd::OwnedFd;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen};

/// Has the kernel move processes at once for as long as what is given back is held: by a hierarchy of version 1 without controllers, mounted
/// nowhere, since the option counts for all hierarchies once one has it. `None` where that cannot be had: all works, and begins later.
pub(crate) fn attach_at_once() -> Option<OwnedFd> {
    let context = fsopen("cgroup", FsOpenFlags::FSOPEN_CLOEXEC).ok()?;
    fsconfig_set_flag(&context, "none").ok()?;
    fsconfig_set_string(&context, "name", "skep").ok()?;
    fsconfig_set_flag(&context, "favordynmods").ok()?;
    fsconfig_create(&context).ok()?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).ok()
}
