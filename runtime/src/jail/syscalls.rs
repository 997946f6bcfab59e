//! Which system calls a process may make: a seccomp allow-list; any other answers EPERM. It holds what tokio's threads, wasmtime's pool
//! and plain files need, and no way to a new socket, program, process, mount, namespace, tracer, key or io_uring.

use super::{Confinement, failed};
use libc::c_long;
use rustix::io::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch};
use std::collections::BTreeMap;

/// Allowed with any arguments.
const PLAIN: &[c_long] = &[
    // Memory: wasmtime's pool, images and stacks; the allocator.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_mincore,
    libc::SYS_brk,
    libc::SYS_memfd_create,
    libc::SYS_process_madvise,
    // Files, within Landlock.
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_lseek,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_getdents64,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_mkdirat,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_dup3,
    // Its one listening socket, which it was given, and what that accepts.
    libc::SYS_accept4,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_futex,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    // Threads, signals and the end.
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_membarrier,
    libc::SYS_sched_yield,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_setpriority,
    libc::SYS_getcpu,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Facts.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// The same under the names that only this processor still has.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_mkdir,
    libc::SYS_epoll_wait,
    libc::SYS_poll,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

/// `_IOWR('f', 16, struct pm_scan_arg)`, Documentation/admin-guide/mm/pagemap.rst; what the pool uses to reset what was written only.
const PAGEMAP_SCAN: u64 = 0xc060_6610;

pub(super) fn lacks() -> Option<String> {
    // The kernel was built without it, or somebody forbade to ask.
    let without = rustix::thread::secure_computing_mode() == Err(Errno::INVAL);
    without.then(|| "the kernel has no seccomp: executors are held by Landlock and their own user only".into())
}

pub(super) fn enter(_: &Confinement) -> Result<Option<String>, String> {
    if let Some(lack) = lacks() {
        return Ok(Some(lack));
    }
    let (threads, allowed) = filters().map_err(|error| failed("compiling the filters", error))?;
    for (what, filter) in [("seccomp, clone3", threads), ("seccomp, the list", allowed)] {
        seccompiler::apply_filter_all_threads(&filter).map_err(|error| failed(what, error))?;
    }
    Ok(None)
}

fn filters() -> Result<(BpfProgram, BpfProgram), seccompiler::BackendError> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    // clone3 has its flags behind a pointer, where no filter sees them. Answered ENOSYS, the C library takes clone. It has a filter of its
    // own, since a filter has one answer; of two answers the kernel takes the stricter.
    let clone3 = BTreeMap::from([(libc::SYS_clone3, vec![])]);
    let threads = SeccompFilter::new(clone3, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS.unsigned_abs()), arch)?;
    let mut list: BTreeMap<i64, Vec<SeccompRule>> = PLAIN.iter().chain(OLDER).map(|call| (*call, vec![])).collect();
    list.insert(libc::SYS_clone3, vec![]);
    list.extend(narrowed()?);
    let allowed = SeccompFilter::new(list, SeccompAction::Errno(libc::EPERM.unsigned_abs()), SeccompAction::Allow, arch)?;
    Ok((threads.try_into()?, allowed.try_into()?))
}

/// Allowed with some arguments only.
fn narrowed() -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    let rule = |argument, test, value| {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, test, value)?;
        SeccompRule::new(vec![condition])
    };
    let is = |argument, value| rule(argument, SeccompCmpOp::Eq, value);
    let thread = u64::from(libc::CLONE_THREAD.unsigned_abs());
    let own = u64::from(std::process::id());
    let name = [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_VMA].map(|what| is(0, u64::from(what.unsigned_abs())));
    // To read a limit: no new one is given. A pointer has 64 bits.
    let no_pointer = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?;
    Ok(BTreeMap::from([
        // Threads, not processes.
        (libc::SYS_clone, vec![rule(0, SeccompCmpOp::MaskedEq(thread), thread)?]),
        // A signal to itself, to abort.
        (libc::SYS_tgkill, vec![is(0, own)?]),
        (libc::SYS_ioctl, vec![is(1, PAGEMAP_SCAN)?, is(1, libc::FIONBIO)?, is(1, libc::FIOCLEX)?]),
        (libc::SYS_prctl, name.into_iter().collect::<Result<_, _>>()?),
        (libc::SYS_prlimit64, vec![SeccompRule::new(vec![no_pointer])?]),
        // Of one thread, not of a whole group or user.
        (libc::SYS_setpriority, vec![is(0, u64::from(libc::PRIO_PROCESS))?]),
        // Tokio's own pair; between threads of this process only.
        (libc::SYS_socketpair, vec![is(0, u64::from(libc::AF_UNIX.unsigned_abs()))?]),
    ]))
}
