//! Which system calls a task that is a process may make: a seccomp allow-list; any other answers EPERM, as far as the kernel knows it.
//!
//! The list is what container engines publish as their default (moby/profiles, `seccomp/default.json`) for a process without capabilities, with
//! what this jail is stricter in left out: tracing other processes and reading their memory (`ptrace`, `process_vm_*`), the kernel's log, and
//! `io_uring`, which no filter sees through. Not in it, then: mounts, namespaces, modules, keys, `bpf`, `perf_event_open`, `userfaultfd`, clocks,
//! swap, reboot, quotas, raw I/O, file handles (`open_by_handle_at`), personality beyond a few.

use libc::c_long;
use seccompiler::sock_filter;

/// Allowed with any arguments, on every machine.
const COMMON: &[c_long] = &[
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_adjtimex,
    libc::SYS_bind,
    libc::SYS_brk,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_chdir,
    libc::SYS_chroot,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_connect,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fchdir,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_flock,
    libc::SYS_fremovexattr,
    libc::SYS_fsetxattr,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_futex_waitv,
    libc::SYS_get_robust_list,
    libc::SYS_getcpu,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getgroups,
    libc::SYS_getitimer,
    libc::SYS_getpeername,
    libc::SYS_getpgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getpriority,
    libc::SYS_getrandom,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getrlimit,
    libc::SYS_getrusage,
    libc::SYS_getsid,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_getxattr,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_rm_watch,
    libc::SYS_io_cancel,
    libc::SYS_io_destroy,
    libc::SYS_io_getevents,
    libc::SYS_io_setup,
    libc::SYS_io_submit,
    libc::SYS_ioprio_get,
    libc::SYS_ioprio_set,
    libc::SYS_kill,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_restrict_self,
    libc::SYS_lgetxattr,
    libc::SYS_linkat,
    libc::SYS_listen,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_lremovexattr,
    libc::SYS_lseek,
    libc::SYS_lsetxattr,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_mincore,
    libc::SYS_mkdirat,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_mlockall,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mq_getsetattr,
    libc::SYS_mq_notify,
    libc::SYS_mq_open,
    libc::SYS_mq_timedreceive,
    libc::SYS_mq_timedsend,
    libc::SYS_mq_unlink,
    libc::SYS_mremap,
    libc::SYS_msgctl,
    libc::SYS_msgget,
    libc::SYS_msgrcv,
    libc::SYS_msgsnd,
    libc::SYS_msync,
    libc::SYS_munlock,
    libc::SYS_munlockall,
    libc::SYS_munmap,
    libc::SYS_name_to_handle_at,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pipe2,
    libc::SYS_pkey_alloc,
    libc::SYS_pkey_free,
    libc::SYS_pkey_mprotect,
    libc::SYS_ppoll,
    libc::SYS_prctl,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_prlimit64,
    libc::SYS_process_mrelease,
    libc::SYS_pselect6,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_read,
    libc::SYS_readahead,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_removexattr,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getattr,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_rr_get_interval,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_yield,
    libc::SYS_semctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_sendfile,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_setfsgid,
    libc::SYS_setfsuid,
    libc::SYS_setgid,
    libc::SYS_setgroups,
    libc::SYS_setitimer,
    libc::SYS_setpgid,
    libc::SYS_setpriority,
    libc::SYS_setregid,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_setreuid,
    libc::SYS_setrlimit,
    libc::SYS_setsid,
    libc::SYS_setsockopt,
    libc::SYS_setuid,
    libc::SYS_setxattr,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_shmdt,
    libc::SYS_shmget,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_signalfd4,
    libc::SYS_socketpair,
    libc::SYS_splice,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_sync,
    libc::SYS_sync_file_range,
    libc::SYS_syncfs,
    libc::SYS_sysinfo,
    libc::SYS_tee,
    libc::SYS_tgkill,
    libc::SYS_timer_create,
    libc::SYS_timer_delete,
    libc::SYS_timer_getoverrun,
    libc::SYS_timer_gettime,
    libc::SYS_timer_settime,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
    libc::SYS_times,
    libc::SYS_tkill,
    libc::SYS_truncate,
    libc::SYS_umask,
    libc::SYS_uname,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_vmsplice,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_write,
    libc::SYS_writev,
];

/// The same, where the architecture has forms that later ones left out.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_alarm,
    libc::SYS_arch_prctl,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_creat,
    libc::SYS_dup2,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_fork,
    libc::SYS_getdents,
    libc::SYS_getpgrp,
    libc::SYS_inotify_init,
    libc::SYS_lchown,
    libc::SYS_link,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_modify_ldt,
    libc::SYS_open,
    libc::SYS_pause,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_rmdir,
    libc::SYS_select,
    libc::SYS_signalfd,
    libc::SYS_stat,
    libc::SYS_symlink,
    libc::SYS_time,
    libc::SYS_unlink,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_vfork,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

/// Numbers that the C library does not know yet; the same on every architecture (asm-generic/unistd.h).
const NEWER: &[c_long] = &[452 /* fchmodat2 */, 453 /* map_shadow_stack */, 454, 455, 456 /* futex_wake, _wait, _requeue */];

/// `clone` with one of these makes a namespace (`CLONE_NEW…`, linux/sched.h).
const NAMESPACES: u32 = 0x7e02_0000;
/// personality(2): what may be asked for: nothing, 32 bits of address, no randomness of addresses for one that debugs itself; to ask what it is.
const PERSONALITIES: [u32; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// ioctl(2): pushing characters into a terminal's input (CVE-2017-5226, CVE-2016-7545), and what gives a console such a right.
const TERMINAL_INPUT: [u32; 2] = [libc::TIOCSTI as u32, libc::TIOCLINUX as u32];
/// netlink(7): what tells of interfaces and addresses, as getifaddrs(3) asks it; behind the others are netfilter and more of its size.
const NETLINK_ROUTE: u32 = libc::NETLINK_ROUTE.unsigned_abs();
/// socket(2): the families that a task can use. The kernel's others are seldom looked at: AF_VSOCK reaches the host of a virtual machine, AF_ALG
/// the kernel's crypto.
const FAMILIES: [u32; 3] = [libc::AF_UNIX.unsigned_abs(), libc::AF_INET.unsigned_abs(), libc::AF_INET6.unsigned_abs()];

/// x86-64 answers to a second set of numbers, which nothing uses (X32, asm/unistd.h).
const OTHER_NUMBERS: u32 = 0x4000_0000;
/// Offsets in struct seccomp_data (linux/seccomp.h): the number, the architecture, the low half of an argument.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const fn argument(at: u32) -> u32 {
    16 + 8 * at + if cfg!(target_endian = "big") { 4 } else { 0 }
}
/// linux/audit.h.
const AUDIT_ARCHITECTURE: u32 = if cfg!(target_arch = "x86_64") {
    0xc000_003e
} else if cfg!(target_arch = "aarch64") {
    0xc000_00b7
} else {
    0xc000_00f3
};

/// Answers (linux/seccomp.h).
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const DENY: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs();
/// The call has its flags behind a pointer, where no filter sees them. Told that there is none, the C library takes the older one.
const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();

/// The filter. Written for few instructions, since the kernel translates them anew for each task: the numbers that are allowed are a few dozen
/// ranges, tried in order.
pub(super) fn filter() -> Vec<sock_filter> {
    let mut program =
        vec![load(ARCHITECTURE), jump(libc::BPF_JEQ, AUDIT_ARCHITECTURE, 1, 0), answer(libc::SECCOMP_RET_KILL_PROCESS), load(NUMBER)];
    if cfg!(target_arch = "x86_64") {
        program.extend([jump(libc::BPF_JGE, OTHER_NUMBERS, 0, 1), answer(DENY)]);
    }
    program.extend([jump(libc::BPF_JEQ, number(libc::SYS_clone3), 0, 1), answer(UNKNOWN)]);
    let namespaces = [load(argument(0)), jump(libc::BPF_JSET, NAMESPACES, 0, 1), answer(DENY), answer(ALLOW)];
    let personality = one_of(0, &PERSONALITIES, ALLOW, DENY);
    let ioctl = one_of(1, &TERMINAL_INPUT, DENY, ALLOW);
    let netlink = [
        load(argument(0)),
        jump(libc::BPF_JEQ, libc::AF_NETLINK.unsigned_abs(), 0, 4),
        load(argument(2)),
        jump(libc::BPF_JEQ, NETLINK_ROUTE, 0, 1),
        answer(ALLOW),
        answer(DENY),
    ];
    let socket = [netlink.as_slice(), &one_of(0, &FAMILIES, ALLOW, DENY)].concat();
    let looked_at: [(c_long, &[sock_filter]); 4] =
        [(libc::SYS_clone, &namespaces), (libc::SYS_personality, &personality), (libc::SYS_ioctl, &ioctl), (libc::SYS_socket, &socket)];
    for (call, block) in looked_at {
        program.push(jump(libc::BPF_JEQ, number(call), 0, short(block.len())));
        program.extend_from_slice(block);
    }
    let edges = ranges().into_iter().flat_map(|(first, last)| [(first, ALLOW), (last + 1, DENY)]);
    program.extend(search(&[(0, DENY)].into_iter().chain(edges).collect::<Vec<_>>()));
    program
}

/// The answer of the last of `edges` that the number is not below, found by halves: the kernel runs a new filter once for each number there is.
fn search(edges: &[(u32, u32)]) -> Vec<sock_filter> {
    if let [(_, only)] = edges {
        return vec![answer(*only)];
    }
    let (below, above) = edges.split_at(edges.len() / 2);
    let (start, below, above) = (above[0].0, search(below), search(above));
    [vec![jump(libc::BPF_JGE, start, short(below.len()), 0)], below, above].concat()
}

/// All that is allowed with any arguments, as ranges of numbers.
fn ranges() -> Vec<(u32, u32)> {
    let mut numbers: Vec<u32> = COMMON.iter().chain(OLDER).chain(NEWER).map(|call| number(*call)).collect();
    numbers.sort_unstable();
    let mut ranges: Vec<(u32, u32)> = vec![];
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 >= number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges
}

/// One answer where the argument is one of `values`, the other where it is none.
fn one_of(at: u32, values: &[u32], is: u32, is_not: u32) -> Vec<sock_filter> {
    let mut block = vec![load(argument(at))];
    for (passed, value) in values.iter().enumerate() {
        block.push(jump(libc::BPF_JEQ, *value, short(values.len() - passed), 0));
    }
    block.extend([answer(is_not), answer(is)]);
    block
}

fn number(call: c_long) -> u32 {
    u32::try_from(call).expect("the numbers of system calls are small")
}

fn short(length: usize) -> u8 {
    u8::try_from(length).expect("a jump is over half of the list at most")
}

fn load(offset: u32) -> sock_filter {
    sock_filter { code: code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS), jt: 0, jf: 0, k: offset }
}

fn jump(test: u32, value: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code(libc::BPF_JMP | test | libc::BPF_K), jt, jf, k: value }
}

fn answer(answer: u32) -> sock_filter {
    sock_filter { code: code(libc::BPF_RET | libc::BPF_K), jt: 0, jf: 0, k: answer }
}

fn code(code: u32) -> u16 {
    u16::try_from(code).expect("codes have 16 bits (linux/bpf_common.h)")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter answers, as the kernel would go through it.
    fn run<const N: usize>(architecture: u32, call: u32, arguments: [u32; N]) -> u32 {
        let program = filter();
        let (mut at, mut value) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at].clone();
            at += 1;
            let jumps = |yes: bool| usize::from(if yes { jt } else { jf });
            match u32::from(code) {
                0x20 => {
                    value = match k {
                        NUMBER => call,
                        ARCHITECTURE => architecture,
                        offset if offset >= argument(0) => arguments[usize::try_from((offset - argument(0)) / 8).unwrap()],
                        other => panic!("nothing is read at {other}"),
                    }
                }
                0x06 => return k,
                0x15 => at += jumps(value == k),
                0x25 => at += jumps(value > k),
                0x35 => at += jumps(value >= k),
                0x45 => at += jumps(value & k != 0),
                other => panic!("no such instruction: {other:#x}"),
            }
        }
    }

    #[test]
    fn what_is_on_the_list_is_allowed_and_nothing_else() {
        let listed: std::collections::BTreeSet<u32> = COMMON.iter().chain(OLDER).chain(NEWER).map(|call| number(*call)).collect();
        let looked_at = [libc::SYS_clone, libc::SYS_personality, libc::SYS_ioctl, libc::SYS_socket, libc::SYS_clone3].map(number);
        for call in (0..1_000).filter(|call| !looked_at.contains(call)) {
            let expected = if listed.contains(&call) { ALLOW } else { DENY };
            assert_eq!(run(AUDIT_ARCHITECTURE, call, [0, 0]), expected, "call {call}");
        }
        assert_eq!(run(AUDIT_ARCHITECTURE ^ 1, 0, [0, 0]), libc::SECCOMP_RET_KILL_PROCESS);
        assert!(filter().len() < 260, "{} instructions", filter().len());
    }

    #[test]
    fn arguments_decide_where_a_call_can_do_more_than_a_task_may() {
        let check =
            |call: c_long, arguments: [u32; 2], expected| assert_eq!(run(AUDIT_ARCHITECTURE, number(call), arguments), expected, "{call}");
        check(libc::SYS_clone3, [0, 0], UNKNOWN);
        check(libc::SYS_clone, [libc::SIGCHLD.unsigned_abs(), 0], ALLOW);
        for namespace in [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWNET, libc::CLONE_NEWPID, libc::CLONE_NEWCGROUP] {
            check(libc::SYS_clone, [namespace.unsigned_abs() | 17, 0], DENY);
        }
        check(libc::SYS_ioctl, [0, u32::try_from(libc::TIOCSTI).unwrap()], DENY);
        check(libc::SYS_ioctl, [0, u32::try_from(libc::TIOCGWINSZ).unwrap()], ALLOW);
        check(libc::SYS_socket, [libc::AF_INET.unsigned_abs(), 0], ALLOW);
        for family in [libc::AF_VSOCK, libc::AF_ALG, libc::AF_PACKET, libc::AF_TIPC] {
            check(libc::SYS_socket, [family.unsigned_abs(), 0], DENY);
        }
        for (protocol, expected) in [(NETLINK_ROUTE, ALLOW), (libc::NETLINK_NETFILTER.unsigned_abs(), DENY)] {
            let asked = [libc::AF_NETLINK.unsigned_abs(), libc::SOCK_RAW.unsigned_abs(), protocol];
            assert_eq!(run(AUDIT_ARCHITECTURE, number(libc::SYS_socket), asked), expected, "netlink {protocol}");
        }
        check(libc::SYS_personality, [0xffff_ffff, 0], ALLOW);
        check(libc::SYS_personality, [0x40_0000, 0], DENY);
        check(libc::SYS_mount, [0, 0], DENY);
    }
}
