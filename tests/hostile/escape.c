/* Tries, one after another, what published escapes from containers began with, and what would lead out of a task's cell if it were let. Every
 * line that it prints is NAME: reached HOW or NAME: refused ERRNO. What changes a machine is tried with arguments that are wrong, so that on a
 * machine that lets it nothing happens: the kernel looks at rights before arguments, so an error other than a refusal means that it was
 * reached. Run as root outside of a cell it is the control, that the attempts are real. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *name, int reached, const char *how) {
    if (reached) printf("%s: reached %s\n", name, how);
    else printf("%s: refused %d\n", name, errno);
}

/* A refusal is one of rights; any other error comes from behind them. */
static int refused(void) { return errno == EPERM || errno == EACCES || errno == ENOSYS || errno == EROFS; }

static void call(const char *name, long number, long a, long b, long c, long d, long e) {
    errno = 0;
    long got = syscall(number, a, b, c, d, e, 0);
    if (got >= 0) { say(name, 1, "done"); return; }
    char how[32];
    snprintf(how, sizeof how, "error %d", errno);
    say(name, !refused(), how);
}

/* In a process of its own, whose end by a signal is a refusal too. */
static void apart(const char *name, int (*attempt)(void)) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) { errno = 0; _exit(attempt() ? 200 : errno > 0 && errno < 199 ? errno : 199); }
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) { printf("%s: refused signal %d\n", name, WTERMSIG(status)); return; }
    errno = WEXITSTATUS(status);
    say(name, errno == 200, "done");
}

static void opens(const char *name, const char *path, int flags) {
    int fd = open(path, flags | O_CLOEXEC);
    say(name, fd >= 0, path);
    if (fd >= 0) close(fd);
}

static void family(const char *name, int family, int kind, int protocol) {
    int fd = socket(family, kind, protocol);
    /* Without the kernel's support there is nothing behind it. */
    if (fd < 0 && errno != EPERM && errno != EACCES) { printf("%s: refused %d\n", name, errno); return; }
    say(name, fd >= 0, "a socket");
    if (fd >= 0) close(fd);
}

static int user_namespace(void) { return unshare(CLONE_NEWUSER) == 0; }
static int mount_namespace(void) { return unshare(CLONE_NEWNS) == 0; }
static int cloned(void) {
    long child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) _exit(0);
    return child > 0;
}
static int joined(void) {
    int fd = open("/proc/self/ns/uts", O_RDONLY);
    return fd >= 0 && setns(fd, 0) == 0;
}
static int mounted(void) { return (unshare(CLONE_NEWNS) == 0 || errno) && mount("none", "/tmp", "tmpfs", 0, 0) == 0; }
static int mounted_groups(void) { return (unshare(CLONE_NEWNS) == 0 || errno) && mount("none", "/tmp", "cgroup", 0, "none,name=escape") == 0; }
static int mounted_overlay(void) {
    return (unshare(CLONE_NEWNS) == 0 || errno) && mount("overlay", "/tmp", "overlay", 0, "lowerdir=/usr:/etc") == 0;
}
static int unmasked(void) { return (unshare(CLONE_NEWNS) == 0 || errno) && umount2("/proc/sys", MNT_DETACH) == 0; }
static int became_root(void) { return getuid() != 0 && setuid(0) == 0; }
static int became_nobody_mapped(void) { return setuid(12345678) == 0; }
static int traced(void) { return ptrace(PTRACE_ATTACH, 1, 0, 0) == 0; }
static int looked_in(void) {
    char byte;
    struct iovec here = { &byte, 1 }, there = { (void *)0x400000, 1 };
    long got = process_vm_readv(1, &here, 1, &there, 1, 0);
    return got >= 0 || errno == EFAULT;
}
static int unprotected(void) {
    int fd = open("/proc/self/oom_score_adj", O_WRONLY);
    return fd >= 0 && write(fd, "-1000", 5) == 5;
}
static int mapped(void) {
    int fd = open("/proc/self/uid_map", O_WRONLY);
    return fd >= 0 && write(fd, "0 0 1", 5) == 5;
}
static int device(void) {
    const char *path = "/tmp/escape-device";
    unlink(path);
    int done = mknod(path, S_IFBLK | 0600, makedev(7, 0)) == 0;
    int error = errno;
    unlink(path);
    errno = error;
    return done;
}
static int typed(void) {
    char letter = 'x';
    return ioctl(0, TIOCSTI, &letter) == 0 || errno == ENOTTY;
}
static int typed_high(void) {
    /* The upper half of the request is not looked at by the kernel: CVE-2019-10063. */
    char letter = 'x';
    return syscall(SYS_ioctl, 0, 0x100000000UL | TIOCSTI, &letter) == 0 || errno == ENOTTY;
}
static int pasted(void) {
    char what = 2;
    return ioctl(0, 0x541C /* TIOCLINUX */, &what) == 0 || errno == ENOTTY;
}
#ifdef __x86_64__
static int old_calls(void) {
    long got;
    __asm__ volatile("int $0x80" : "=a"(got) : "a"(20L) : "memory");
    return got == getpid();
}
static int other_calls(void) { return syscall(0x40000000 | SYS_getpid) == getpid(); }
#endif
static int dug_out(void) {
    /* chroot twice and climb: leads to the root of the mount namespace, which must be the one that was there before. */
    struct stat before, after;
    if (stat("/", &before) || (mkdir("/tmp/escape-dir", 0700) && errno != EEXIST)) return 0;
    if (chroot("/tmp/escape-dir")) return 0;
    for (int i = 0; i < 64; i++) if (chdir("..")) return 0;
    if (chroot(".") || stat("/", &after)) return 0;
    errno = EPERM;
    return before.st_dev != after.st_dev || before.st_ino != after.st_ino;
}
static int bpf_map(void) {
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.map_type = BPF_MAP_TYPE_ARRAY, attr.key_size = 4, attr.value_size = 4, attr.max_entries = 1;
    return syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof attr) >= 0;
}
static int counted(void) {
    struct perf_event_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.type = PERF_TYPE_SOFTWARE, attr.size = sizeof attr, attr.config = PERF_COUNT_SW_TASK_CLOCK;
    return syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0) >= 0;
}
static int exhumed(void) {
    /* "Shocker", 2014: a file by its number, past all folders. */
    struct { struct file_handle head; unsigned char bytes[8]; } handle = { { 8, 1, {} }, { 2 } };
    int root = open("/", O_RDONLY | O_DIRECTORY);
    int fd = open_by_handle_at(root, (struct file_handle *)&handle, O_RDONLY);
    return fd >= 0 || errno == ESTALE || errno == EINVAL;
}
static int ended_the_first(void) {
    /* Of the cell's first process, which must live on: this one would end with it. */
    if (getppid() == 0) return 0;
    kill(1, SIGKILL);
    usleep(20000);
    errno = EPERM;
    return kill(1, 0) != 0;
}

/* What Landlock alone forbids to who has the host's network: ports that are not his, and sockets with names of no file. */
static int network(const char *port, const char *name) {
    int tcp = socket(AF_INET, SOCK_STREAM, 0), unix_socket = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(atoi(port)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    say("listen on that port", bind(tcp, (struct sockaddr *)&here, sizeof here) == 0, port);
    struct sockaddr_un there = { .sun_family = AF_UNIX };
    strncpy(there.sun_path + 1, name, sizeof there.sun_path - 2);
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name);
    say("call the host (CVE-2020-15257)", connect(unix_socket, (struct sockaddr *)&there, length) == 0, name);
    return 0;
}

int main(int count, char **arguments) {
    setvbuf(stdout, 0, _IOLBF, 0);
    if (count == 4 && !strcmp(arguments[1], "network")) return network(arguments[2], arguments[3]);
    int outside = count > 1 && !strcmp(arguments[1], "outside");
    /* Beside its streams a task has the end of a pipe that it reads what its framework says from, and nothing else. */
    const char *own = getenv("SKEP_MESSAGES_FD");
    for (int fd = 3; fd < 4096; fd++)
        if (fcntl(fd, F_GETFD) >= 0 && !(own && fd == atoi(own) && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY)) { printf("a descriptor that is left open (CVE-2024-21626): reached %d\n", fd); }
    opens("the program of the first process (CVE-2019-5736)", "/proc/1/exe", O_RDONLY);
    opens("the root of the first process (CVE-2016-9962)", "/proc/1/root", O_RDONLY | O_DIRECTORY);
    opens("the folder of the first process (CVE-2024-21626)", "/proc/1/cwd", O_RDONLY | O_DIRECTORY);
    opens("descriptors of the first process (CVE-2016-9962)", "/proc/1/fd", O_RDONLY | O_DIRECTORY);
    opens("the memory of the first process (CVE-2016-9962)", "/proc/1/mem", O_RDWR);
    opens("the environment of the first process", "/proc/1/environ", O_RDONLY);
    apart("trace the first process", traced);
    apart("read the first process", looked_in);
    if (!outside) apart("end the first process", ended_the_first);
    apart("a user namespace (CVE-2022-0185, CVE-2024-1086)", user_namespace);
    apart("a user namespace by clone", cloned);
    call("a namespace by clone3", SYS_clone3, 0, 0, 0, 0, 0);
    apart("a mount namespace", mount_namespace);
    apart("join a namespace", joined);
    apart("mount", mounted);
    apart("mount control groups (CVE-2022-0492)", mounted_groups);
    apart("mount an overlay (CVE-2021-3493, CVE-2023-0386)", mounted_overlay);
    apart("take a mask off (CVE-2025-31133)", unmasked);
    call("fsopen (CVE-2022-0185)", SYS_fsopen, 0, 0, 0, 0, 0);
    call("fsconfig (CVE-2022-0185)", SYS_fsconfig, -1, 0, 0, 0, 0);
    call("fsmount", SYS_fsmount, -1, 0, 0, 0, 0);
    call("fspick", SYS_fspick, -1, 0, 0, 0, 0);
    call("open_tree", SYS_open_tree, -1, (long)"/nowhere", 1, 0, 0);
    call("move_mount", SYS_move_mount, -1, (long)"", -1, (long)"", 0);
    call("mount_setattr", SYS_mount_setattr, -1, (long)"/nowhere", 0, 0, 0);
    call("pivot_root", SYS_pivot_root, (long)"/nowhere", (long)"/nowhere", 0, 0, 0);
    apart("climb out of a chroot", dug_out);
    apart("a file by its handle (\"shocker\")", exhumed);
    apart("bpf (CVE-2020-8835, CVE-2021-3490)", bpf_map);
    apart("perf_event_open (CVE-2022-1729)", counted);
    call("io_uring_setup (CVE-2022-29582, CVE-2023-2598)", SYS_io_uring_setup, 1, 0, 0, 0, 0);
    call("userfaultfd", SYS_userfaultfd, 1, 0, 0, 0, 0);
    call("keyctl (CVE-2016-0728)", SYS_keyctl, 0, -3, 0, 0, 0);
    call("add_key", SYS_add_key, 0, 0, 0, 0, 0);
    call("request_key", SYS_request_key, 0, 0, 0, 0, 0);
    call("kexec_load", SYS_kexec_load, 0, 1000, 0, 0, 0);
    call("init_module", SYS_init_module, 0, 0, 0, 0, 0);
    call("finit_module", SYS_finit_module, -1, 0, 0, 0, 0);
    call("delete_module", SYS_delete_module, 0, 0, 0, 0, 0);
    call("swapon", SYS_swapon, (long)"/nowhere", 0, 0, 0, 0);
    call("acct", SYS_acct, (long)"/nowhere", 0, 0, 0, 0);
    call("reboot", SYS_reboot, 0, 0, 0, 0, 0);
    call("settimeofday", SYS_settimeofday, 1, 0, 0, 0, 0);
    call("clock_settime", SYS_clock_settime, 0, 1, 0, 0, 0);
    call("quotactl", SYS_quotactl, 0, (long)"/nowhere", 0, 0, 0);
    call("the kernel's log", SYS_syslog, 3, 0, 0, 0, 0);
    call("process_madvise", SYS_process_madvise, -1, 0, 0, 0, 0);
    call("pidfd_getfd", SYS_pidfd_getfd, -1, 0, 0, 0, 0);
    call("kcmp", SYS_kcmp, 1, 1, 0, 0, 0);
    call("a personality without random addresses", SYS_personality, 0x0040000, 0, 0, 0, 0);
    family("raw frames (CVE-2020-14386)", AF_PACKET, SOCK_RAW, 0);
    family("raw internet", AF_INET, SOCK_RAW, 1);
    family("netfilter (CVE-2021-22555, CVE-2022-25636, CVE-2023-32233)", AF_NETLINK, SOCK_RAW, 12);
    family("the kernel's ciphers", AF_ALG, SOCK_SEQPACKET, 0);
    family("the hypervisor", AF_VSOCK, SOCK_STREAM, 0);
    family("IPsec keys", AF_KEY, SOCK_RAW, 2);
    apart("letters in the terminal (CVE-2017-5226)", typed);
    apart("letters in the terminal (CVE-2019-10063)", typed_high);
    apart("paste in the terminal (CVE-2023-1523)", pasted);
    apart("become root", became_root);
    apart("become somebody of the host", became_nobody_mapped);
    apart("never be ended for want of memory", unprotected);
    apart("a device of the host", device);
#ifdef __x86_64__
    apart("calls of 32 bits", old_calls);
    apart("calls of x32", other_calls);
    call("iopl", SYS_iopl, 4, 0, 0, 0, 0);
#endif
    opens("the machine's memory", "/dev/mem", O_RDONLY);
    opens("the machine's log", "/dev/kmsg", O_RDONLY);
    opens("the kernel's memory", "/proc/kcore", O_RDONLY);
    opens("whom a crash calls (CVE-2022-0811)", "/proc/sys/kernel/core_pattern", O_WRONLY);
    opens("whom a module calls", "/proc/sys/kernel/modprobe", O_WRONLY);
    opens("the magic key", "/proc/sysrq-trigger", O_WRONLY);
    opens("whom a device calls", "/sys/kernel/uevent_helper", O_WRONLY);
    opens("control groups (CVE-2022-0492, CVE-2023-25809)", "/sys/fs/cgroup/pids/cgroup.procs", O_WRONLY);
    opens("control groups of version 2", "/sys/fs/cgroup/cgroup.procs", O_WRONLY);
    apart("its own map of users", mapped);
    puts("tried");
    return 0;
}
