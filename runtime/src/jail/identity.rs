//! Who a process is: its user and groups, its capabilities, who may look into it.

use super::{Confinement, failed};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Gid, Uid, geteuid, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, CapabilitySets};

pub(super) fn lacks() -> Option<String> {
    let user = geteuid();
    let sentence = || {
        format!(
            "not root: all executors run as this user ({}) instead of one for each role; Landlock and seccomp still keep them apart",
            user.as_raw()
        )
    };
    (!user.is_root()).then(sentence)
}

pub(super) fn no_new_privileges(_: &Confinement) -> Result<Option<String>, String> {
    rustix::thread::set_no_new_privs(true).map_err(|error| failed("prctl no_new_privs", error)).map(|()| None)
}

/// Nothing is executed later that could raise capabilities again; this holds even if something were.
pub(super) fn drop_capability_bounds(_: &Confinement) -> Result<Option<String>, String> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    for bit in 0..u64::BITS {
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            // The kernel has fewer than 64, and says so from the first that it does not know.
            Err(Errno::INVAL) => break,
            // Root in a container may lack CAP_SETPCAP, and then has no bounds to drop that matter.
            Err(Errno::PERM) => return Ok(Some("root without CAP_SETPCAP: the capability bounding set stays as it is".into())),
            dropped => dropped.map_err(|error| failed(&format!("dropping capability {bit} from the bounding set"), error))?,
        }
    }
    Ok(None)
}

pub(super) fn become_user(confinement: &Confinement) -> Result<Option<String>, String> {
    let Some(id) = confinement.uid else {
        let root = geteuid().is_root();
        return Ok(root.then(|| "the executor stays root, without capabilities: no user was given for it".into()));
    };
    if id == geteuid().as_raw() {
        return Ok(None);
    }
    let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
    rustix::thread::set_thread_groups(&[]).map_err(|error| failed("setgroups to none", error))?;
    rustix::thread::set_thread_res_gid(group, group, group).map_err(|error| failed(&format!("setresgid {id}"), error))?;
    rustix::thread::set_thread_res_uid(user, user, user).map_err(|error| failed(&format!("setresuid {id}"), error))?;
    Ok(None)
}

/// Also keeps others of the same user from tracing it or reading its memory.
pub(super) fn drop_capabilities(_: &Confinement) -> Result<Option<String>, String> {
    let none = CapabilitySets { effective: CapabilitySet::empty(), permitted: CapabilitySet::empty(), inheritable: CapabilitySet::empty() };
    rustix::thread::clear_ambient_capability_set().map_err(|error| failed("prctl ambient clear", error))?;
    rustix::thread::set_capabilities(None, none).map_err(|error| failed("capset to none", error))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| failed("prctl dumpable 0", error))?;
    Ok(None)
}
