//! The system calls that no library has for us, each wrapped so that the rest of the cell needs none of this care.

use libc::{c_int, c_long};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::process::Signal;
use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// What a child that shares our memory runs on: it makes a few calls and formats an error.
const CHILD_STACK_BYTES: usize = 64 << 10;

/// Which process of a fork this is.
pub(crate) enum Forked {
    /// The new one.
    Child,
    /// The old one, and the number of the new.
    Parent(u32),
}

/// To be asked before the first [`fork`].
///
/// # Errors
/// Where this process has other threads, whose locks a copy of it would wait for for ever.
pub(crate) fn expect_one_thread() -> io::Result<()> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 { Err(io::Error::other("a process with threads is not copied")) } else { Ok(()) }
}

/// Has a thread, or this one and what it starts from then on, run only while nothing else wants the processor (sched(7)), and what it uses be counted
/// apart from what others do (`nice` in proc_stat(5)); or as any other again, which takes root or a limit ([`allow_hurry`]).
///
/// # Errors
/// What the system says.
pub(crate) fn set_idle(thread: Option<rustix::process::Pid>, idle: bool) -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: 0 };
    let number = thread.map_or(0, |thread| thread.as_raw_nonzero().get());
    let (policy, nice) = if idle { (libc::SCHED_IDLE, 19) } else { (libc::SCHED_OTHER, 0) };
    // SAFETY: a structure that lives, of which the kernel reads the priority.
    answered(unsafe { libc::sched_setscheduler(number, policy, ptr::from_ref(&parameter)) }.into())?;
    Ok(rustix::process::setpriority_process(thread, nice)?)
}

/// This process's session, where the kernel shares processors among sessions before it looks at threads (autogroups, sched(7)): there an idle thread waits
/// for those of its own session alone, unless the session itself is nice.
pub(crate) struct Session(std::fs::File);

impl Session {
    /// So many times is it tried again where the kernel says that it was asked too often, and what is waited between: it takes ten a second of all that are
    /// not root.
    const TRIES: u32 = 5;
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(110);

    /// `None` where the kernel makes no such groups. Of use once this process leads its session, and to be opened while it sees `/proc`.
    pub fn open() -> Option<Self> {
        std::fs::File::options().write(true).open("/proc/self/autogroup").ok().map(Self)
    }

    /// Has it yield to all others, or be as they are.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_idle(&self, idle: bool) -> io::Result<()> {
        // In one write, which the file takes at its beginning only: not by pwrite(2), which it does not know.
        let number: &[u8] = if idle { b"19" } else { b"0" };
        rustix::io::write(&self.0, number).map(drop).map_err(io::Error::from)
    }

    /// As [`Self::set_idle`]; waits until the kernel has time for it.
    pub fn set_idle_in_time(&self, idle: bool) -> io::Result<()> {
        for _ in 1..Self::TRIES {
            match self.set_idle(idle) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(Self::PAUSE),
                done => return done,
            }
        }
        self.set_idle(idle)
    }
}

/// Has this process, and what it becomes, take back that a thread of its is idle. It may not where it is not root.
pub(crate) fn allow_hurry() {
    // getrlimit(2): 20 less the nice value that it may have.
    let limit = rustix::process::Rlimit { current: Some(20), maximum: Some(20) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nice, limit); // Then it is slower to end.
}

/// Copies this process, which has one thread.
///
/// # Errors
/// What the system says.
pub(crate) fn fork() -> io::Result<Forked> {
    // SAFETY: this process has one thread, so no lock is held by another; the child may do all that the parent may. Callers are the template,
    // which has asked `expect_one_thread`, and what it forked: neither starts a thread.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid.unsigned_abs())),
    }
}

/// As [`fork`], into new namespaces (`CLONE_NEW…`); the parent also gets a descriptor of the child.
///
/// # Errors
/// What the system says.
pub(crate) fn fork_into(namespaces: c_int) -> io::Result<(Forked, Option<OwnedFd>)> {
    let mut pidfd: c_int = -1;
    // SAFETY: all zero is what clone3(2) takes for "nothing of it".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from(namespaces.unsigned_abs()) | u64::from(libc::CLONE_PIDFD.unsigned_abs());
    args.pidfd = ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    // SAFETY: without CLONE_VM and without a stack it is a fork: the child returns here with a copy of all memory. Only callers with one
    // thread get here (the template and what it forked). The kernel writes a descriptor to `pidfd`, which lives.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, ptr::from_mut(&mut args), size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok((Forked::Child, None)),
        pid => {
            // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
            let held = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok((Forked::Parent(u32::try_from(pid).expect("the number of a process is positive and small")), Some(held)))
        }
    }
}

/// Sets attributes (`MOUNT_ATTR_…`) of a mount, or of the whole tree below it.
///
/// # Errors
/// What the system says.
pub(super) fn set_mount(mount: impl AsFd, attributes: u64, whole_tree: bool) -> io::Result<()> {
    mount_setattr(mount.as_fd(), attributes, 0, whole_tree)
}

/// Has a mount show its files' owners as the ids of a user namespace map them.
///
/// # Errors
/// What the system says: EINVAL where the file system cannot (its kernel is too old for it, mount_setattr(2)).
pub(super) fn map_owners(mount: impl AsFd, user_namespace: impl AsFd) -> io::Result<()> {
    let namespace = u64::try_from(user_namespace.as_fd().as_raw_fd()).expect("a descriptor is not negative");
    mount_setattr(mount.as_fd(), libc::MOUNT_ATTR_IDMAP, namespace, false)
}

fn mount_setattr(mount: BorrowedFd<'_>, set: u64, namespace: u64, whole_tree: bool) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: namespace };
    let flags = libc::AT_EMPTY_PATH | if whole_tree { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: an empty path, and a structure that lives, of the size that is said.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            ptr::from_ref(&attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    answered(done)
}

/// Brings the loopback interface of this network namespace up.
///
/// # Errors
/// What the system says.
pub(super) fn loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: all zero is a request without a name or a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).expect("two low bits");
    // SAFETY: the request is what this ioctl reads (netdevice(7)), and lives.
    answered(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, ptr::from_ref(&request)) }.into())
}

/// Gives every signal its default again, and blocks none. Rust's start ignores SIGPIPE, and who forked may have ignored more.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: no handler runs our code: the default is the kernel's. Those that cannot be set (9, 19, 32, 33) stay as they are.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    unblock_signals();
}

/// Writing to who is gone is an error, not a signal.
pub(crate) fn ignore_broken_pipes() {
    // SAFETY: no handler runs our code.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Blocks all signals that can be blocked: they wait until [`next_signal`] takes them.
pub(super) fn block_signals() {
    let all = all_signals();
    // SAFETY: a set that lives; the old one is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &all, ptr::null_mut()) };
}

/// Blocks none.
pub(super) fn unblock_signals() {
    let none = signal_set(&[]);
    // SAFETY: a set that lives; the old one is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut()) };
}

/// Waits for a blocked signal.
pub(super) fn next_signal() -> c_int {
    let all = all_signals();
    loop {
        // SAFETY: a set that lives; no more is asked about the signal.
        let signal = unsafe { libc::sigwaitinfo(&all, ptr::null_mut()) };
        if signal > 0 {
            return signal;
        }
    }
}

fn all_signals() -> libc::sigset_t {
    // SAFETY: all zero is an empty set on Linux; it is filled by the next call.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: a set that lives.
    unsafe { libc::sigfillset(&mut set) };
    set
}

fn signal_set(signals: &[c_int]) -> libc::sigset_t {
    // SAFETY: all zero is an empty set on Linux.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    for signal in signals {
        // SAFETY: a set that lives.
        unsafe { libc::sigaddset(&mut set, *signal) };
    }
    set
}

/// Sends a signal to a process by its number, which the caller knows to be its own child that it has not buried.
pub(super) fn signal(pid: u32, signal: c_int) {
    let Ok(pid) = c_int::try_from(pid) else { return };
    // SAFETY: kill(2) takes numbers only.
    unsafe { libc::kill(pid, signal) };
}

/// Sends any signal, real-time ones included, to the process that `held` is.
///
/// # Errors
/// What the system says: ESRCH where it has ended.
pub(crate) fn signal_held(held: impl AsFd, signal: i32) -> io::Result<()> {
    let held = held.as_fd().as_raw_fd();
    // SAFETY: pidfd_send_signal(2) with no further information about the signal.
    answered(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, held, signal, ptr::null::<libc::siginfo_t>(), 0) })
}

/// Kills the process that `held` is.
pub(crate) fn kill(held: impl AsFd) {
    let _ = rustix::process::pidfd_send_signal(held, Signal::KILL); // It may have ended.
}

/// Everything but the first three descriptors is closed when another program is executed.
///
/// # Errors
/// What the system says.
pub(super) fn close_all_on_exec() -> io::Result<()> {
    // SAFETY: numbers only. Nothing is closed now, so no descriptor that somebody holds is taken from him.
    answered(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
}

/// Gives a copy of `fd` this number, with which the program has it that is executed next. Whatever had the number is closed.
///
/// # Errors
/// What the system says.
pub(super) fn hand_over(fd: &OwnedFd, number: c_int) -> io::Result<()> {
    if fd.as_raw_fd() == number {
        return Ok(rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?);
    }
    // SAFETY: numbers only. Whoever calls uses nothing more that had the number.
    answered(unsafe { libc::dup2(fd.as_raw_fd(), number) }.into())
}

/// Executes the first of `programs` that is there. Returns only with the error.
pub(super) fn execute(programs: &[CString], arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect::<Vec<_>>();
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    let mut found = io::Error::from_raw_os_error(libc::ENOENT);
    for program in programs {
        // SAFETY: texts that end with NUL in lists that end with null, all of which live.
        unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
        let error = io::Error::last_os_error();
        // As execvp(3): the next place is tried where nothing is here; what may not be executed is remembered.
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            Some(libc::EACCES) => found = error,
            _ => return error,
        }
    }
    found
}

/// Sets `securebits` (capabilities(7)).
///
/// # Errors
/// What the system says.
pub(super) fn set_secure_bits(bits: c_int) -> io::Result<()> {
    // SAFETY: numbers only.
    answered(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, bits, 0, 0, 0) }.into())
}

/// Makes `path` this process's idea of a program's text: a C string.
pub(super) fn text(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| format!("{text:?} has a NUL in it"))
}

/// The group ids of this process become `groups`.
///
/// # Errors
/// What the system says.
pub(super) fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: a list that lives, and its length.
    answered(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })
}

/// A file of /dev/loop for `backing`, which is given back to the system when the last mount of it goes.
///
/// # Errors
/// What was tried, and the system's words.
pub(super) fn loop_device(backing: impl AsFd) -> Result<(OwnedFd, std::path::PathBuf), String> {
    use rustix::fs::{Mode, OFlags, open};
    // linux/loop.h.
    const LOOP_CTL_GET_FREE: u64 = 0x4c82;
    const LOOP_CONFIGURE: u64 = 0x4c0a;
    const LO_FLAGS_AUTOCLEAR: u32 = 4;
    const TRIES: usize = 64;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let control = open("/dev/loop-control", flags, Mode::empty()).map_err(|error| super::failed("opening /dev/loop-control", error))?;
    for _ in 0..TRIES {
        // SAFETY: this ioctl takes no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
        if number < 0 {
            return Err(super::failed("LOOP_CTL_GET_FREE", io::Error::last_os_error()));
        }
        let path = std::path::PathBuf::from(format!("/dev/loop{number}"));
        let Ok(device) = open(&path, flags, Mode::empty()) else { continue };
        // struct loop_config: a descriptor, a block size, struct loop_info64 (232 bytes, its flags at 52), 64 bytes that are kept free.
        let mut config = [0u8; 304];
        config[..4].copy_from_slice(&backing.as_fd().as_raw_fd().to_ne_bytes());
        config[8 + 52..8 + 56].copy_from_slice(&LO_FLAGS_AUTOCLEAR.to_ne_bytes());
        // SAFETY: 304 bytes that live are what this ioctl reads (linux/loop.h, struct loop_config).
        if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, config.as_ptr()) } == 0 {
            return Ok((device, path));
        }
        // Another was quicker.
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EBUSY) {
            return Err(super::failed(&format!("LOOP_CONFIGURE {}", path.display()), error));
        }
    }
    Err(format!("no loop device is free after {TRIES} tries"))
}

fn answered(result: c_long) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Runs `child` in a new process that shares this one's memory, while this one stands still: until the child executes a program or ends. So
/// nothing is copied. Returns the number of the child; what it returns is its exit code.
///
/// # Errors
/// What the system says.
pub(super) fn fork_beside(mut child: impl FnMut() -> c_int) -> io::Result<u32> {
    extern "C" fn call<F: FnMut() -> c_int>(child: *mut libc::c_void) -> c_int {
        // SAFETY: it is the closure that `fork_beside` was called with, which lives as long as that stands still.
        unsafe { (*child.cast::<F>())() }
    }
    fn with<F: FnMut() -> c_int>(child: &mut F, stack: &mut [MaybeUninit<u128>]) -> c_int {
        let top = stack.as_mut_ptr_range().end;
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: the child has a stack of its own, whose top is aligned to 16 bytes; this process, its only other user of the memory, is
        // stopped meanwhile (CLONE_VFORK), so what the child does to the memory is as if it had been done here.
        unsafe { libc::clone(call::<F>, top.cast(), flags, ptr::from_mut(child).cast()) }
    }
    // Not a page of it is touched before the child does.
    let mut stack = Vec::<u128>::with_capacity(CHILD_STACK_BYTES / size_of::<u128>());
    match with(&mut child, stack.spare_capacity_mut()) {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(pid.unsigned_abs()),
    }
}

/// Closes all descriptors but this one.
pub(super) fn keep_only(kept: OwnedFd) -> std::fs::File {
    let number = kept.as_raw_fd().unsigned_abs();
    // SAFETY: whoever calls never returns to who holds the others.
    unsafe {
        if number > 0 {
            libc::syscall(libc::SYS_close_range, 0, number - 1, 0);
        }
        libc::syscall(libc::SYS_close_range, number + 1, u32::MAX, 0);
    }
    kept.into()
}

/// Ends this process without running anything of it.
pub(crate) fn end_at_once(code: c_int) -> ! {
    // SAFETY: it does not come back.
    unsafe { libc::_exit(code) }
}

/// A control group namespace of its own, whose root is the group that this process is in.
///
/// # Errors
/// What the system says.
pub(super) fn leave_control_group_namespace() -> io::Result<()> {
    // SAFETY: CLONE_NEWCGROUP shares or unshares no memory, no descriptors and no file system context (unshare(2)).
    answered(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }.into())
}

/// Processor time in microseconds, and the most memory of one process in bytes, of all children that were waited for and those that they
/// waited for.
pub(crate) fn used_by_children() -> (u64, u64) {
    // SAFETY: all zero is a usage of nothing, and the kernel fills it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: a structure that lives.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage) };
    let us = |time: libc::timeval| u64::try_from(time.tv_sec * 1_000_000 + time.tv_usec).unwrap_or(0);
    (us(usage.ru_utime) + us(usage.ru_stime), u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1_024)
}

/// A mount namespace of its own, with the same mounts.
///
/// # Errors
/// What the system says.
pub(crate) fn leave_mounts() -> io::Result<()> {
    // SAFETY: CLONE_NEWNS unshares no memory and no descriptors; the file system context is this thread's alone afterwards, and it is the only one.
    answered(unsafe { libc::unshare(libc::CLONE_NEWNS) }.into())
}

/// A network namespace of its own, with a loopback that is down.
///
/// # Errors
/// What the system says.
pub(super) fn leave_network() -> io::Result<()> {
    // SAFETY: CLONE_NEWNET unshares no memory, no descriptors and no file system context (unshare(2)).
    answered(unsafe { libc::unshare(libc::CLONE_NEWNET) }.into())
}

/// Goes to the network namespace that `network` is.
///
/// # Errors
/// What the system says.
pub(super) fn join_network(network: impl AsFd) -> io::Result<()> {
    // SAFETY: a descriptor that lives; nothing of this process's memory is concerned.
    answered(unsafe { libc::setns(network.as_fd().as_raw_fd(), libc::CLONE_NEWNET) }.into())
}

/// Goes to all namespaces of the process that `held` is, its network where that is another one than ours; children of this process are among its
/// processes.
///
/// # Errors
/// What the system says.
pub(super) fn join_namespaces(held: impl AsFd, other_network: bool) -> io::Result<()> {
    let network = if other_network { libc::CLONE_NEWNET } else { 0 };
    let all = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP
        | network;
    // SAFETY: a descriptor that lives; this process has one thread and shares its memory and its file system context with nobody.
    answered(unsafe { libc::setns(held.as_fd().as_raw_fd(), all) }.into())
}

/// Closes all descriptors but the first three: for a process that begins, and holds none of its own yet.
pub(crate) fn close_all_but_standard() {
    // SAFETY: callers do so first, so nothing of theirs holds a descriptor.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
}

/// Closes all descriptors: for a process that only waits from here on, and shall hold nobody's pipe open.
pub(super) fn close_for_waiting() {
    // SAFETY: nothing that holds a descriptor is used or dropped afterwards: the caller waits and ends.
    unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0) };
}

/// Waits for a child; its exit code, or 128 and its signal, as shells have it.
pub(super) fn exit_code_of(child: u32) -> c_int {
    let pid = rustix::process::Pid::from_raw(child.cast_signed());
    match rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()) {
        Ok(Some((_, status))) => status.exit_status().unwrap_or(128 + status.terminating_signal().unwrap_or(0)),
        _ => 1,
    }
}
