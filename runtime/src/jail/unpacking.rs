//! What holds in the process that unpacks what a stranger brought: it sees one folder and the archive that it has opened, makes no socket,
//! process, thread or program, and as root keeps three rights over files and no other.
//!
//! Landlock does not watch who changes a file's owner, mode, times or attributes. So as root the folder becomes the process's root, and a
//! path leads nowhere else; and for everyone those calls are let through only on what is open, which Landlock does watch.

use super::{Confinement, JailError, failed, identity, limit_resources, one_thread};
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope,
};
use libc::c_long;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Signal, geteuid, getppid, set_dumpable_behavior, set_parent_process_death_signal};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// Address space: a window of zstd is at most 100 MiB, and an allocator reserves more than it uses.
const ADDRESS_BYTES_MAX: u64 = 4 << 30;
/// Processor time: some 100 GiB at the speed of gzip.
pub(crate) const CPU_SECONDS_MAX: u64 = 900;
/// As [`super::grants`]: files, truncation, TCP, device ioctls, abstract sockets and signals.
const KNOWN: ABI = ABI::V6;

/// Allowed with any arguments.
const PLAIN: &[c_long] = &[
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_brk,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_close,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_ftruncate,
    libc::SYS_copy_file_range,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_readlinkat,
    libc::SYS_fcntl,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    // On what is open only.
    libc::SYS_fchmod,
    libc::SYS_fchown,
    libc::SYS_fsetxattr,
    libc::SYS_fgetxattr,
    // Locks, signals and the end.
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Facts.
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_geteuid,
    libc::SYS_getcpu,
];

/// Enters; `archive` is what it may read, `target` what it may write to, `parent` who waits for it: it is killed when the thread that
/// started it ends. Returns the two, opened. Before the first thread, and for good.
///
/// # Errors
/// [`JailError`] where a step failed that this machine does not lack.
pub fn enter(archive: &Path, target: &Path, parent: u32, file_bytes_max: u64) -> Result<(File, OwnedFd), JailError> {
    let confinement = Confinement {
        address_bytes_max: Some(ADDRESS_BYTES_MAX),
        cpu_seconds_max: Some(CPU_SECONDS_MAX),
        file_bytes_max: Some(file_bytes_max),
        ..Confinement::default()
    };
    let step = |step: &'static str| move |reason: String| JailError { step, reason };
    one_thread(&confinement).map_err(step("one thread"))?;
    die_with(parent).map_err(step("end with the parent"))?;
    let archive = File::open(archive).map_err(|error| step("archive")(failed(&format!("opening {}", archive.display()), error)))?;
    identity::no_new_privileges(&confinement).map_err(step("no new privileges"))?;
    limit_resources(&confinement).map_err(step("resource limits"))?;
    let folder = root(target).map_err(step("root"))?;
    identity::drop_capability_bounds(&confinement).map_err(step("capability bounds"))?;
    capabilities().map_err(step("capabilities and tracing"))?;
    grant(if geteuid().is_root() { Path::new("/") } else { target }).map_err(step("landlock"))?;
    filter().map_err(step("seccomp"))?;
    Ok((archive, folder))
}

fn die_with(parent: u32) -> Result<(), String> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| failed("prctl pdeathsig", error))?;
    match getppid().map(|id| id.as_raw_nonzero().get().unsigned_abs()) {
        // It may have ended before the line above.
        Some(id) if id == parent => Ok(()),
        _ => Err(format!("process {parent}, which waited for it, has ended")),
    }
}

fn root(target: &Path) -> Result<OwnedFd, String> {
    let opened = |path: &Path| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        open(path, flags, Mode::empty()).map_err(|error| failed(&format!("opening {}", path.display()), error))
    };
    let folder = opened(target)?;
    if geteuid().is_root() {
        rustix::process::fchdir(&folder).map_err(|error| failed("fchdir", error))?;
        rustix::process::chroot(".").map_err(|error| failed("chroot", error))?;
    }
    Ok(folder)
}

/// As root it may give files away and change what it gave away; anybody else may do nothing that others may not.
fn capabilities() -> Result<(), String> {
    let kept = if geteuid().is_root() {
        CapabilitySet::CHOWN | CapabilitySet::FOWNER | CapabilitySet::DAC_OVERRIDE
    } else {
        CapabilitySet::empty()
    };
    // Root in a container may have fewer.
    let had = rustix::thread::capabilities(None).map_err(|error| failed("capget", error))?.permitted;
    let sets = CapabilitySets { effective: kept & had, permitted: kept & had, inheritable: CapabilitySet::empty() };
    rustix::thread::clear_ambient_capability_set().map_err(|error| failed("prctl ambient clear", error))?;
    rustix::thread::set_capabilities(None, sets).map_err(|error| failed("capset", error))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| failed("prctl dumpable 0", error))
}

fn grant(target: &Path) -> Result<(), String> {
    let access = AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSym
        | AccessFs::MakeChar
        | AccessFs::RemoveFile
        | AccessFs::Refer;
    let opened = PathFd::new(target).map_err(|error| failed(&format!("opening {}", target.display()), error))?;
    let rules = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
    let rules = rules.handle_access(AccessFs::from_all(KNOWN)).and_then(|rules| rules.handle_access(AccessNet::from_all(KNOWN)));
    let rules = rules.and_then(|rules| rules.scope(Scope::from_all(KNOWN))).and_then(Ruleset::create);
    let rules = rules.and_then(|rules| rules.add_rule(PathBeneath::new(opened, access)));
    rules.and_then(|rules| rules.restrict_self()).map(|_| ()).map_err(|error| failed("landlock", error))
}

fn filter() -> Result<(), String> {
    if rustix::thread::secure_computing_mode() == Err(Errno::INVAL) {
        return Ok(());
    }
    let program = program().map_err(|error| failed("compiling the filter", error))?;
    seccompiler::apply_filter(&program).map_err(|error| failed("seccomp", error))
}

fn program() -> Result<BpfProgram, seccompiler::BackendError> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    let is = |argument, length, value| SeccompCondition::new(argument, length, SeccompCmpOp::Eq, value);
    let mut list: BTreeMap<i64, Vec<SeccompRule>> = PLAIN.iter().map(|call| (*call, vec![])).collect();
    // Whiteouts: a character device 0:0, and no other file of this kind.
    let device = vec![is(2, SeccompCmpArgLen::Dword, libc::S_IFCHR.into())?, is(3, SeccompCmpArgLen::Dword, 0)?];
    list.insert(libc::SYS_mknodat, vec![SeccompRule::new(device)?]);
    list.insert(libc::SYS_utimensat, vec![SeccompRule::new(vec![is(1, SeccompCmpArgLen::Qword, 0)?])?]);
    let own = is(0, SeccompCmpArgLen::Dword, std::process::id().into())?;
    list.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![own])?]);
    if geteuid().is_root() {
        // Of symbolic links, which cannot be opened. Its paths end at the folder.
        let link = is(4, SeccompCmpArgLen::Dword, libc::AT_SYMLINK_NOFOLLOW.unsigned_abs().into())?;
        list.insert(libc::SYS_fchownat, vec![SeccompRule::new(vec![link])?]);
    }
    SeccompFilter::new(list, SeccompAction::Errno(libc::EPERM.unsigned_abs()), SeccompAction::Allow, arch)?.try_into()
}
