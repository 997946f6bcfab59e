//! Ways out of a task's cell that were published for containers, and what such ways begin with: each is tried for real and refused, in native
//! tasks, in containers as their root, and beside both. `tests/hostile/escape.c` has the attempts; run outside it shows that they are real.

use crate::busybox::program;
use crate::cluster::{Cluster, Ends, said};
use runtime::container::ImageConfig;
use runtime::container::build::{Item, image, layer};
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const RESOURCES: &str = "cpu=64,memory=64GiB,disk=4GiB,ports=20600-20699";
/// A port that no task is given.
const PORT: &str = "20700";

/// A folder with the program that tries; `None`, said so: it cannot be made here.
fn attempts(cluster: &Cluster) -> Option<PathBuf> {
    let folder = cluster.folder.join("attempts");
    fs::create_dir(&folder).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/escape.c");
    let made = Command::new("cc").args(["-static", "-O1", "-Wall", "-Werror", "-o"]).arg(folder.join("escape")).arg(source).status();
    if !made.is_ok_and(|made| made.success()) {
        println!("skipped: there is no C compiler with a static C library here (Debian: apt-get install gcc libc6-dev)");
        return None;
    }
    Some(folder)
}

/// An image with the program in it, and what else `items` says; `None`: there is no busybox to make it of.
fn image_with(cluster: &Cluster, name: &str, items: &[Item], change: impl FnOnce(&mut ImageConfig)) -> Option<PathBuf> {
    let busybox = match program() {
        Ok(busybox) => busybox,
        Err(reason) => {
            println!("skipped: {reason}");
            return None;
        }
    };
    let base = [
        Item::folder("bin", 0o755),
        Item::file("bin/busybox", 0o755, &busybox),
        Item::symlink("bin/sh", "busybox"),
        Item::folder("tmp", 0o777),
    ];
    let layers = vec![layer(&base).unwrap(), layer(items).unwrap()];
    let mut config = ImageConfig {
        entrypoint: vec!["/bin/sh".into(), "-c".into()],
        command: vec!["true".into()],
        env: vec![("PATH".into(), "/bin".into())],
        user: String::new(),
        dir: "/".into(),
        stop_signal: None,
        ports: vec![],
    };
    change(&mut config);
    let path = cluster.folder.join(name);
    fs::write(&path, image(&format!("test/{name}"), &layers, &config)).unwrap();
    Some(path)
}

fn reached(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.contains(": reached")).collect()
}

fn all_refused(what: &str, text: &str) {
    assert!(text.lines().any(|line| line == "tried"), "{what}: it did not come to its end: {text}");
    assert!(text.lines().filter(|line| line.contains(": refused")).count() > 60, "{what}: {text}");
    assert_eq!(reached(text), <[&str; 0]>::default(), "{what}");
}

/// Of /proc/self/status (proc_pid_status(5)).
fn has(what: &str, status: &str, field: &str, value: &str) {
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    assert_eq!(line.map(str::trim), Some(value), "{what}, {field}: {status}");
}

#[test]
fn what_published_escapes_begin_with_is_refused() {
    let cluster = Cluster::of_one(RESOURCES);
    let Some(folder) = attempts(&cluster) else { return };
    if rustix::process::geteuid().is_root() {
        let control = Command::new(folder.join("escape")).arg("outside").stdin(Stdio::null()).ends();
        let text = String::from_utf8_lossy(&control.stdout).into_owned();
        assert!(reached(&text).len() > 30, "outside of a cell much of it is possible: {text}");
    }
    let bundle = folder.to_str().unwrap();
    all_refused("native", &said(&cluster, &["run", bundle, "--", "/bundle/escape"]).0);
    let (status, _) = said(&cluster, &["run", bundle, "--", "cat", "/proc/self/status"]);
    let bare = |what: &str, status: &str| {
        for (field, value) in [("Seccomp", "2"), ("NoNewPrivs", "1"), ("CapInh", "0000000000000000"), ("CapAmb", "0000000000000000")] {
            has(what, status, field, value);
        }
    };
    bare("native", &status);
    has("native", &status, "CapPrm", "0000000000000000");
    has("native", &status, "CapBnd", "0000000000000000");
    has("native", &status, "Groups", "");
    if rustix::process::geteuid().is_root() {
        // The init was forked from the template, whose arguments are paths of the host.
        let title = said(&cluster, &["run", bundle, "--", "cat", "/proc/1/cmdline"]).0;
        assert_eq!(title.trim_matches('\0'), "skep-init");
    } else {
        println!("skipped: without root the kernel lets nobody write what the init shows");
    }
    // The kernel ends tasks for want of memory as it ends all others, and their executors last.
    assert_eq!(said(&cluster, &["run", bundle, "--", "cat", "/proc/self/oom_score_adj"]).0, "0\n");

    let job = format!("name = \"web\"\nkind = \"service\"\n[task]\nnative = {bundle:?}\ncommand = [\"sleep\", \"600\"]\n");
    fs::write(cluster.folder.join("web.toml"), job).unwrap();
    cluster.text(&["apply", cluster.folder.join("web.toml").to_str().unwrap()]);
    all_refused("beside a native task", &said(&cluster, &["exec", "web.0", "--", "/bundle/escape"]).0);
    // CVE-2019-10144 and the two after it: what joins a task has no more rights than the task.
    let (status, _) = said(&cluster, &["exec", "web.0", "--", "cat", "/proc/self/status"]);
    bare("beside a native task", &status);
    has("beside a native task", &status, "CapPrm", "0000000000000000");

    let program = fs::read(folder.join("escape")).unwrap();
    let Some(image) = image_with(&cluster, "root.tar", &[Item::file("bin/escape", 0o4755, &program)], |_| {}) else { return };
    let image = image.to_str().unwrap();
    all_refused("container, as its root", &said(&cluster, &["run", image, "--", "/bin/escape"]).0);
    // The file is setuid, and that is worth nothing.
    all_refused("container, as somebody", &said(&cluster, &["run", "--user", "1000", image, "--", "/bin/escape"]).0);
    let (status, _) = said(&cluster, &["run", image, "--", "busybox cat /proc/self/status"]);
    bare("container", &status);
    // CVE-2022-36109: no group but those that the image names.
    has("container", &status, "Groups", "");
    let job = format!("name = \"box\"\nkind = \"service\"\n[task]\nimage = {image:?}\nargs = [\"busybox sleep 600\"]\n");
    fs::write(cluster.folder.join("box.toml"), job).unwrap();
    cluster.text(&["apply", cluster.folder.join("box.toml").to_str().unwrap()]);
    all_refused("beside a container", &said(&cluster, &["exec", "box.0", "--", "/bin/escape"]).0);
    bare("beside a container", &said(&cluster, &["exec", "box.0", "--", "busybox", "cat", "/proc/self/status"]).0);

    // CVE-2021-41091: nobody else on the host comes to what was unpacked, nor to tasks' files.
    if rustix::process::geteuid().is_root() {
        for path in ["a1/unpacked", "a1/processes/disks"] {
            let path = cluster.folder.join(path);
            assert!(path.exists(), "{}", path.display());
            let list = Command::new("ls").arg(&path).uid(65_534).gid(65_534).stderr(Stdio::null()).status().unwrap();
            assert!(!list.success(), "{} is open to everybody", path.display());
        }
    }
}

#[test]
fn with_the_hosts_network_a_task_has_its_ports_and_calls_nobody_by_name() {
    let cluster = Cluster::of_one(RESOURCES);
    let Some(folder) = attempts(&cluster) else { return };
    let name = format!("skep-test-{}", std::process::id());
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let control = Command::new(folder.join("escape")).args(["network", PORT, &name]).ends();
    assert_eq!(reached(&String::from_utf8_lossy(&control.stdout)).len(), 2, "outside both are possible");
    cluster.text(&["roles", "set", "ops", "--host-network", "true"]);
    let status = cluster.text(&["status", "a1"]);
    if status.to_lowercase().contains("landlock") {
        println!("skipped: {status}");
        return;
    }
    let bundle = folder.to_str().unwrap();
    let (text, _) = said(&cluster, &["run", "--role", "ops", "--network", "host", bundle, "--", "/bundle/escape", "network", PORT, &name]);
    // EACCES and EPERM, as Landlock answers for ports and for scopes.
    assert_eq!(text, "listen on that port: refused 13\ncall the host (CVE-2020-15257): refused 1\n");
}

#[test]
fn an_image_that_puts_links_where_the_kernels_file_systems_go_leads_nowhere() {
    let cluster = Cluster::of_one(RESOURCES);
    let run = |image: &Path, command: &str| said(&cluster, &["run", image.to_str().unwrap(), "--", command]);
    // CVE-2019-16884, CVE-2019-19921, CVE-2023-27561: what is to be covered is elsewhere.
    for place in ["proc", "sys", "dev"] {
        let Some(image) = image_with(&cluster, &format!("{place}.tar"), &[Item::symlink(place, "tmp")], |_| {}) else { return };
        let (text, code) = run(&image, "true");
        assert!(code == Some(1) && text.contains(&format!("/{place} inside is no folder")), "{place}: {text}");
    }
    // CVE-2025-31133, CVE-2025-52565: devices that masks are made of are others.
    let links = [
        Item::folder("dev", 0o755),
        Item::symlink("dev/null", "/proc/sys/kernel/core_pattern"),
        Item::symlink("dev/console", "/proc/sysrq-trigger"),
        Item::symlink("dev/pts", "/proc/sys"),
    ];
    let image = image_with(&cluster, "devices.tar", &links, |_| {}).unwrap();
    let (text, code) = run(
        &image,
        "busybox cat /proc/keys /proc/timer_list /proc/interrupts; busybox stat -c %t,%T /dev/null; echo x > /proc/sys/kernel/core_pattern || echo closed",
    );
    assert!(code == Some(0) && text.starts_with("1,3\nclosed\n"), "{text}");
    // CVE-2024-21626: a folder by a descriptor; CVE-2022-23648: one above the root.
    let image = image_with(&cluster, "descriptor.tar", &[], |config| config.dir = "/proc/self/fd/8".into()).unwrap();
    let (text, code) = run(&image, "busybox pwd; busybox ls ..");
    assert!(code == Some(1) && text.contains("proc/self/fd"), "{text}");
    let image = image_with(&cluster, "above.tar", &[Item::folder("etc", 0o755), Item::file("etc/here", 0o644, b"")], |config| {
        config.dir = "/../../../etc".into()
    })
    .unwrap();
    let (text, _) = run(&image, "busybox ls");
    assert!(text == "here\n" || text.contains(".."), "{text}");
    // CVE-2021-30465: a mount goes where a link of the image leads, within the image.
    cluster.text(&["roles", "set", "ops", "--host-path", cluster.folder.to_str().unwrap()]);
    let shared = cluster.folder.join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).unwrap();
    image_with(&cluster, "mount.tar", &[Item::symlink("data", "../../../../../../../etc"), Item::folder("etc", 0o755)], |_| {}).unwrap();
    for (to, expected) in [("/data", Some("mounted")), ("/proc", None), ("/proc/sys", None), ("/sys/x", None), ("/dev/x", None)] {
        let job = format!(
            "role = \"ops\"\nkind = \"batch\"\n[task]\nimage = \"mount.tar\"\nargs = [\"busybox grep -q ' /etc ' /proc/self/mounts && echo mounted\"]\n\
             mount = [{{ host = {shared:?}, to = {to:?} }}]\n"
        );
        fs::write(cluster.folder.join("mount.toml"), job).unwrap();
        let (text, code) = said(&cluster, &["run", cluster.folder.join("mount.toml").to_str().unwrap()]);
        match expected {
            Some(expected) => assert_eq!((text.trim(), code), (expected, Some(0)), "{to}"),
            None => assert!(code == Some(2), "{to} is the kernel's: {text}"),
        }
    }
}

#[test]
fn a_task_that_turns_on_who_watches_it_harms_nobody() {
    let cluster = Cluster::of_one(RESOURCES);
    let script = cluster.folder.join("script");
    fs::write(&script, "#!/bin/sh\nexec sh -c \"$1\"\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let run = |flags: &[&str], text: &str| said(&cluster, &[&["run"], flags, &[script.to_str().unwrap(), "--", text]].concat());
    // Its parent is the init, which the kernel protects; every process that it sees is its own.
    assert_eq!(run(&[], "kill -9 $PPID; kill -9 1; echo lives"), ("lives\n".into(), Some(0)));
    let (_, code) = run(&[], "kill -9 -1; exit 5");
    assert_eq!(code, Some(5));
    // Whatever it leaves behind ends with it.
    let mark = format!("73{}", std::process::id());
    let (text, code) = run(
        &[],
        &format!("(setsid sleep {mark} >/dev/null 2>&1 &) ; (trap '' TERM HUP; setsid sh -c 'sleep {mark}' &) >/dev/null 2>&1; echo left"),
    );
    assert_eq!((text.as_str(), code), ("left\n", Some(0)));
    let found = Command::new("pgrep").args(["-f", &format!("sleep {mark}")]).ends();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "it left somebody behind");
    // As many files as there may be, and then no more.
    let (text, code) = run(&["--memory", "32MiB"], "i=0; while [ $i -lt 1000000 ]; do : > f$i || exit 9; i=$((i+1)); done");
    assert!(code != Some(0) && (text.contains("No space") || text.contains("disk") || text.contains("memory")), "{code:?}: {text:.300}");
    assert_eq!(run(&[], "echo well"), ("well\n".into(), Some(0)));
}
