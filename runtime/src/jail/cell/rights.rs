//! What the task may still do once its root is made: no new privileges, amounts per process, capabilities within its own namespace, files and
//! ports by Landlock, system calls by seccomp.

use super::super::failed;
use super::calls;
use super::sys;
use crate::process::{Network, ProcessSpec, Root};
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope,
};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Gid, Resource, Rlimit, Uid, getrlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::sock_filter;
use std::sync::OnceLock;

/// As [`super::super::grants`]: files, truncation, TCP, device ioctls, abstract sockets and signals.
const KNOWN: ABI = ABI::V6;
/// Most open files of each process, where the host allows as many: enough for servers, few enough for programs that close all they could have.
const FILES_MAX: u64 = 65_536;
/// What the tasks of an image keep, within their own user namespace: what container engines give by default, without raw sockets, device files
/// and the kernel's log of audits.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::SETFCAP);

/// All of them in order, but what stands between them for a task that begins: each needs what a later one takes away.
pub(super) fn take_away(spec: &ProcessSpec, is_in_group: bool) -> Result<(), String> {
    no_new_privileges(spec)?;
    limit_resources(spec, is_in_group)?;
    drop_bounds(spec)?;
    become_user(spec)?;
    drop_capabilities(spec)?;
    landlock(spec)?;
    seccomp(spec)
}

static FILTER: OnceLock<Vec<sock_filter>> = OnceLock::new();

/// Puts the filter together once, for all that is forked afterwards.
pub(super) fn prepare() {
    FILTER.get_or_init(calls::filter);
}

pub(super) fn no_new_privileges(_: &ProcessSpec) -> Result<(), String> {
    rustix::thread::set_no_new_privs(true).map_err(|error| failed("prctl no_new_privs", error))
}

/// Where no control group bounds the task, each of its processes is bounded, and their number where the kernel counts it for each user namespace
/// (5.14; before, it counts all of its user's).
pub(super) fn limit_resources(spec: &ProcessSpec, is_in_group: bool) -> Result<(), String> {
    let set = |resource, what, bound| {
        let limit = Rlimit { current: Some(bound), maximum: Some(bound) };
        setrlimit(resource, limit).map_err(|error| failed(&format!("setrlimit {what} {bound}"), error))
    };
    set(Resource::Core, "core", 0)?;
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(FILES_MAX);
    set(Resource::Nofile, "nofile", hard.min(FILES_MAX))?;
    if is_in_group {
        return Ok(());
    }
    let within = |resource, bound: u64| getrlimit(resource).maximum.map_or(bound, |hard| hard.min(bound));
    set(Resource::Data, "data", within(Resource::Data, spec.limits.memory_bytes_max))?;
    let processes = u64::from(spec.limits.processes_max) + u64::from(spec.init);
    set(Resource::Nproc, "nproc", within(Resource::Nproc, processes))
}

fn kept(spec: &ProcessSpec) -> CapabilitySet {
    match spec.root {
        Root::Host { .. } => CapabilitySet::empty(),
        Root::Layers { .. } => KEPT,
    }
}

/// No program that it executes can have more than these, whatever its file says.
pub(super) fn drop_bounds(spec: &ProcessSpec) -> Result<(), String> {
    let kept = kept(spec);
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if kept.contains(one) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(one) {
            // The kernel has fewer than 64, and says so from the first that it does not know.
            Err(Errno::INVAL) => break,
            dropped => dropped.map_err(|error| failed(&format!("dropping capability {bit} from the bounding set"), error))?,
        }
    }
    Ok(())
}

pub(super) fn become_user(spec: &ProcessSpec) -> Result<(), String> {
    let ids = &spec.ids;
    if ids.outside.is_some() {
        sys::set_groups(&ids.groups).map_err(|error| failed("setgroups", error))?;
    }
    let (user, group) = (Uid::from_raw(ids.uid), Gid::from_raw(ids.gid));
    let unmapped = ": the task's user is not among its mapped ids";
    rustix::thread::set_thread_res_gid(group, group, group).map_err(|error| format!("setresgid {}: {error}{unmapped}", ids.gid))?;
    rustix::thread::set_thread_res_uid(user, user, user).map_err(|error| format!("setresuid {}: {error}{unmapped}", ids.uid))
}

/// A user other than root begins without any, as after any change of user. Nobody may look into it before its program begins.
pub(super) fn drop_capabilities(spec: &ProcessSpec) -> Result<(), String> {
    sys::set_secure_bits(0).map_err(|error| failed("prctl securebits", error))?;
    let kept = if spec.ids.uid == 0 { kept(spec) } else { CapabilitySet::empty() };
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::clear_ambient_capability_set().map_err(|error| failed("prctl ambient clear", error))?;
    rustix::thread::set_capabilities(None, sets).map_err(|error| failed("capset", error))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| failed("prctl dumpable 0", error))
}

/// Its own root, all of it, for as far as users and mounts allow; no mount can change any more. With the host's network, only the ports that
/// it was given may be listened on.
pub(super) fn landlock(spec: &ProcessSpec) -> Result<(), String> {
    let wrong = |error: landlock::RulesetError| failed("landlock", error);
    let host = spec.network == Network::Host;
    let mut rules =
        Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(AccessFs::from_all(KNOWN)).map_err(wrong)?;
    if host {
        rules = rules.handle_access(AccessNet::BindTcp).map_err(wrong)?;
    }
    // Signals end at its own processes anyway, and who joins a task later may send them some.
    let rules = rules.scope(Scope::AbstractUnixSocket).and_then(Ruleset::create).map_err(wrong)?;
    let root = PathFd::new("/").map_err(|error| failed("opening /", error))?;
    let mut rules = rules.add_rule(PathBeneath::new(root, AccessFs::from_all(KNOWN))).map_err(wrong)?;
    if host {
        for port in &spec.ports {
            rules = rules.add_rule(NetPort::new(*port, AccessNet::BindTcp)).map_err(wrong)?;
        }
    }
    let status = rules.restrict_self().map_err(wrong)?;
    // A kernel without it is said in the agent's weaknesses; the other steps hold.
    let _: RulesetStatus = status.ruleset;
    Ok(())
}

pub(super) fn seccomp(_: &ProcessSpec) -> Result<(), String> {
    if rustix::thread::secure_computing_mode() == Err(Errno::INVAL) {
        return Ok(());
    }
    seccompiler::apply_filter(FILTER.get_or_init(calls::filter)).map_err(|error| failed("seccomp", error))
}
