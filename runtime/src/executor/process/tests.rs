//! Tasks that are processes, through the template, as an agent starts them.

use super::{Template, Which};
use crate::executor::fixture::{Folder, template};
use crate::executor::{Executor, ExecutorEvent, Recovered, read_log, recover};
use crate::process::{IDS, IDS_PER_TASK, Ids, Network, ProcessLimits, ProcessSpec, Root};
use crate::{Exit, Key, Usage};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

mod beside;
mod fenced;
mod messages;

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A template, and the folder that all is in.
struct Scene(Template, Folder);

impl Scene {
    async fn new() -> Self {
        let folder = Folder::new();
        Self(template(&folder).await, folder)
    }

    fn dir(&self, key: u128) -> PathBuf {
        self.0.places().dir(Which::Process(Key(key)))
    }

    async fn clear(&self, key: u128) {
        self.0.clear(Which::Process(Key(key))).await.unwrap();
    }

    fn item(&self, name: &str) -> PathBuf {
        self.0.places().unpacked().join("items").join(name)
    }
}

/// A spec for a script, seen as `/bundle/run`.
fn script(scene: &Scene, key: u128, text: &str) -> ProcessSpec {
    let item = scene.item(&key.to_string());
    fs::create_dir_all(&item).unwrap();
    let bundle = item.join("file");
    let _ = fs::remove_file(&bundle);
    fs::write(&bundle, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&bundle, fs::Permissions::from_mode(0o555)).unwrap();
    let root = rustix::process::geteuid().is_root();
    // No two tests have the same ids or groups.
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let outside = root.then(|| IDS.start + number * IDS_PER_TASK);
    ProcessSpec {
        key: Key(key),
        title: format!("test-{key}"),
        root: Root::Host { bundle, name: Some("run".into()) },
        command: vec!["/bundle/run".into()],
        env: vec![("PATH".into(), "/usr/bin:/bin".into()), ("HOME".into(), "/sandbox".into())],
        dir: "/sandbox".into(),
        stdin: None,
        ids: Ids { inside: 1_000, outside, count: 1, uid: 1_000, gid: 1_000, groups: vec![] },
        network: Network::None,
        ports: vec![],
        mounts: vec![],
        stop_signal: 15,
        init: true,
        limits: limits(),
        cgroup: format!("{}/{key:x}-{number}", scene.0.places().group()),
    }
}

fn limits() -> ProcessLimits {
    ProcessLimits {
        memory_bytes_max: 64 << 20,
        cpu_milli: 1_000,
        processes_max: 32,
        time_ms_max: None,
        cpu_time_ms_max: None,
        disk_bytes_max: 0,
        log_bytes_max: 1 << 20,
        log_bytes_per_s_max: 1 << 20,
    }
}

/// Waits for the end.
async fn end(executor: &mut Executor) -> (Exit, Usage) {
    if let Some((_, exit, usage)) = executor.held.ended.pop() {
        return (exit, usage);
    }
    loop {
        let Some(events) = executor.events.next().await else {
            let words = std::process::Command::new("sh").args(["-c", "cat /dev/shm/*/*/error.log; dmesg | tail -5"]).output().unwrap();
            panic!("it tells the end: {}", String::from_utf8_lossy(&words.stdout));
        };
        for event in events {
            if let ExecutorEvent::Ended { exit, usage, .. } = event {
                return (exit, usage);
            }
        }
    }
}

fn printed(scene: &Scene, key: u128) -> String {
    let mut bytes = &read_log(&scene.0.places().processes(), Key(key), 0, 1 << 20).unwrap().bytes[..];
    let mut text = vec![];
    while let Some(length) = bytes.get(1..5) {
        let length = u32::from_le_bytes(length.try_into().unwrap()) as usize;
        text.extend_from_slice(&bytes[5..5 + length]);
        bytes = &bytes[5 + length..];
    }
    String::from_utf8_lossy(&text).into_owned()
}

async fn ran(spec: ProcessSpec, scene: &Scene) -> (Exit, Usage, String) {
    let key = spec.key.0;
    let mut executor = scene.0.start(&spec).await.unwrap();
    let (exit, usage) = end(&mut executor).await;
    executor.commands.forget(vec![Key(key)]);
    executor.commands.flush().await.unwrap();
    assert!(executor.events.next().await.is_none(), "it ends when its end is forgotten");
    let said = printed(scene, key);
    scene.clear(key).await;
    (exit, usage, said)
}

async fn check(text: &str, expected: Exit) -> String {
    let scene = Scene::new().await;
    let (exit, _, said) = ran(script(&scene, 1, text), &scene).await;
    assert_eq!(exit, expected, "{text}: it said {said}");
    said
}

#[tokio::test]
async fn output_and_exit_code_are_the_tasks_own() {
    assert_eq!(check("echo out; echo err >&2; exit 7", Exit::Code(7)).await, "out\nerr\n");
    assert_eq!(check("kill -9 $$", Exit::Signal(9)).await, "");
}

#[tokio::test]
async fn it_sees_a_small_machine_of_its_own() {
    let said = check(
        "id -u; hostname; pwd; echo $$; ls -d /proc/[0-9]*; ls /; grep -c : /proc/net/dev; ls /etc/shadow /root /home",
        Exit::Code(2),
    )
    .await;
    let root = "bin\nbundle\ndev\nempty\netc\nlib\nlib64\nproc\nrun\nsandbox\nsbin\nsys\ntmp\nusr\nvar\n";
    assert!(said.starts_with("1000\ntest-1\n/sandbox\n2\n/proc/1\n/proc/2\n"), "{said}");
    assert!(said.contains(root) || !Path::new("/lib64").exists() || Path::new("/lib32").exists(), "{said}");
    assert!(said.contains("var\n1\n"), "no network but its loopback: {said}");
    assert_eq!(said.matches("No such file").count(), 3, "{said}");
}

#[tokio::test]
async fn it_has_no_rights_but_its_own() {
    let said = check("grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status; ls -n /proc/1/fd", Exit::Code(2)).await;
    for line in ["CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(said.contains("Permission denied"), "its init cannot be looked into: {said}");
    // Each of these is refused, by whichever wall it meets first.
    let mut text = String::new();
    for attempt in [
        "echo x > /usr/bin/x",
        "echo x > /etc/x",
        "echo x > /bundle/x",
        "echo x > /dev/x",
        "mkdir /x",
        "rm /bundle/run",
        "chmod 777 /usr",
        "mount -t tmpfs none /tmp",
        "umount /proc",
        "unshare -U true",
        "unshare -m true",
        "chroot / true",
        "hostname x",
        "kill -9 1; kill -0 1 && false",
        "echo 1 > /proc/sys/kernel/core_pattern",
        "echo c > /proc/sysrq-trigger",
        "cat /proc/kcore",
        "dmesg",
        "mknod /tmp/x c 1 1",
        "ip link add type dummy",
        "nsenter -t 1 -m true",
        "echo x > /proc/1/mem",
        "cat /proc/1/environ",
        "ls /proc/1/cwd/",
        "setpriv --reuid 0 true",
        "cat < /dev/tcp/127.0.0.1/1",
        "swapoff -a",
        "date -s 2001-01-01",
        "su -c true",
        "ping -c 1 127.0.0.2 -W 1 -q > /dev/null && false",
    ] {
        text.push_str(&format!("({attempt}) 2>&1 && echo escaped by: '{attempt}'\n"));
    }
    let said = check(&format!("{text} exit 0"), Exit::Code(0)).await;
    assert!(!said.contains("escaped by") && said.lines().count() >= 20, "{said}");
}

async fn limited(text: &str, change: impl Fn(&mut ProcessLimits)) -> (Exit, Usage, String) {
    let scene = Scene::new().await;
    let mut spec = script(&scene, 1, text);
    change(&mut spec.limits);
    ran(spec, &scene).await
}

/// What takes control groups is said to be skipped without them.
fn no_groups() -> bool {
    let lacks = crate::jail::cgroup::Hierarchies::find().lacks();
    if !lacks.is_empty() {
        println!("skipped: {}", lacks.join("; "));
    }
    !lacks.is_empty()
}

#[tokio::test]
async fn each_limit_ends_a_task_and_says_which_it_was() {
    if no_groups() {
        return;
    }
    let (exit, usage, _) = limited("tail /dev/zero", |limits| limits.memory_bytes_max = 32 << 20).await;
    assert!(matches!(exit, Exit::OutOfMemory { limit_bytes, peak_bytes } if limit_bytes == 32 << 20 && peak_bytes > 16 << 20), "{exit:?}");
    assert!(usage.memory_peak_bytes > 16 << 20 && usage.cpu_us > 0 && usage.time_us > 0, "{usage:?}");
    let (exit, _, said) =
        limited("for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 60 & done", |limits| limits.processes_max = 16)
            .await;
    assert_eq!(exit, Exit::OutOfProcesses { limit: 16 }, "{said}");
    let (exit, ..) = limited("sleep 60", |limits| limits.time_ms_max = Some(200)).await;
    assert_eq!(exit, Exit::OutOfTime { limit_ms: 200 });
    let (exit, usage, _) = limited("while :; do :; done", |limits| limits.cpu_time_ms_max = Some(200)).await;
    assert_eq!(exit, Exit::OutOfCpuTime { limit_ms: 200 });
    assert!(usage.cpu_us >= 200_000, "{usage:?}");
    // In memory: its files count as such.
    let (exit, ..) = limited("dd if=/dev/zero of=x bs=64k", |limits| limits.memory_bytes_max = 16 << 20).await;
    assert!(matches!(exit, Exit::OutOfMemory { .. } | Exit::OutOfDisk { .. }), "{exit:?}");
    let (exit, _, said) = limited("i=0; while : > $i; do i=$((i+1)); done", |limits| limits.memory_bytes_max = 8 << 20).await;
    assert!(matches!(exit, Exit::OutOfMemory { .. } | Exit::OutOfDisk { .. }), "{exit:?} {said}");
}

#[tokio::test]
async fn a_disk_of_its_own_is_as_large_as_it_was_promised() {
    if no_groups() || !rustix::process::geteuid().is_root() {
        println!("skipped: without root a task's files are kept in memory");
        return;
    }
    let disk = |limits: &mut ProcessLimits| limits.disk_bytes_max = 8 << 20;
    let (exit, _, said) = limited("dd if=/dev/zero of=x bs=64k", disk).await;
    assert_eq!(exit, Exit::OutOfDisk { limit_bytes: 8 << 20 }, "{said}");
    let (exit, _, said) = limited("i=0; while : > $i; do i=$((i+1)); done", disk).await;
    assert_eq!(exit, Exit::OutOfDisk { limit_bytes: 8 << 20 }, "{said}");
    let (exit, _, said) = limited("dd if=/dev/zero of=x bs=64k count=64 && rm x && df . | tail -1 && touch /tmp/y", disk).await;
    assert_eq!(exit, Exit::Code(0), "{said}");
}

#[tokio::test]
async fn a_task_that_is_asked_to_stop_was_killed_whatever_it_answers() {
    for (text, grace_ms) in [
        ("trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done", 60_000),
        ("echo ready; exec sleep 60", 60_000),
        ("trap '' TERM; echo ready; while :; do sleep 0.01; done", 100),
        ("echo ready; exec sleep 60", 0),
    ] {
        let scene = Scene::new().await;
        let mut executor = scene.0.start(&script(&scene, 1, text)).await.unwrap();
        assert_eq!(executor.held.live.len(), 1);
        while printed(&scene, 1).is_empty() {
            tokio::task::yield_now().await;
        }
        executor.commands.stop(vec![Key(1)], grace_ms);
        executor.commands.flush().await.unwrap();
        assert_eq!(end(&mut executor).await.0, Exit::Killed, "{text}");
    }
}

#[tokio::test]
async fn nothing_of_a_task_outlives_it() {
    let mark = format!("{}", 100_000 + std::process::id());
    check(&format!("setsid sleep {mark} & (sleep {mark} &) ; nohup sleep {mark} > /dev/null 2>&1 & exit 0"), Exit::Code(0)).await;
    let pids = fs::read_dir("/proc").unwrap().flatten().filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
    let lines = pids.map(|entry| fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default());
    assert!(!lines.into_iter().any(|line| line.contains(&mark)));
}

#[tokio::test]
async fn what_cannot_be_started_is_rejected_with_the_step_and_the_reason() {
    let scene = Scene::new().await;
    let base = || script(&scene, 1, "exit 0");
    fs::create_dir_all(scene.item("text")).unwrap();
    fs::write(scene.item("text/file"), "no program\n").unwrap();
    fs::set_permissions(scene.item("text/file"), fs::Permissions::from_mode(0o555)).unwrap();
    std::os::unix::fs::symlink("/", scene.item("text/link")).unwrap();
    let bundle = |path: PathBuf| Root::Host { bundle: path, name: Some("run".into()) };
    let layers = |path: PathBuf| Root::Layers { layers: vec![path] };
    let group = |name: String| ProcessSpec { cgroup: name, ..base() };
    let root = rustix::process::geteuid().is_root();
    let ids = |first: u32| ProcessSpec { ids: Ids { outside: Some(first), ..base().ids }, ..base() };
    let other = if root { "no ids of a task" } else { "take root" };
    for (spec, reason) in [
        (ProcessSpec { command: vec!["/bundle/none".into()], ..base() }, "it is not there"),
        (ProcessSpec { command: vec!["none".into()], ..base() }, "in no folder of PATH"),
        (ProcessSpec { command: vec!["/usr".into()], ..base() }, "may not be executed"),
        (ProcessSpec { root: bundle(scene.item("text/file")), ..base() }, "no program for this machine"),
        (ProcessSpec { root: bundle(scene.item("missing/file")), ..base() }, "missing"),
        // What no agent asks for that is in its right mind.
        (ProcessSpec { root: bundle("/etc".into()), ..base() }, "is nothing that was unpacked"),
        (ProcessSpec { root: bundle(scene.item("../../..")), ..base() }, "is nothing that was unpacked"),
        (ProcessSpec { root: bundle(scene.item("text/link")), ..base() }, "is nothing that was unpacked"),
        (ProcessSpec { root: bundle(scene.item("text/file/x")), ..base() }, "is nothing that was unpacked"),
        (ProcessSpec { root: layers(scene.item("text/link")), ..base() }, "is nothing that was unpacked"),
        (ProcessSpec { root: layers("/".into()), ..base() }, "is nothing that was unpacked"),
        (ProcessSpec { root: layers(scene.0.places().unpacked()), ..base() }, "is nothing that was unpacked"),
        (group("system.slice/x".into()), "control group"),
        (group(format!("{}x/y", scene.0.places().group())), "control group"),
        (group(format!("{}/../x", scene.0.places().group())), "control group"),
        (ids(0), other),
        (ids(IDS.start + 1), other),
        (ProcessSpec { dir: "/nowhere".into(), ..base() }, "working directory"),
        (ProcessSpec { stdin: Some("/nowhere".into()), ..base() }, "standard input"),
        (ProcessSpec { stdin: Some(if root { "/etc/shadow" } else { "/nowhere" }.into()), ..base() }, "standard input"),
    ] {
        let mut executor = scene.0.start(&spec).await.unwrap();
        let (exit, _) = end(&mut executor).await;
        assert!(matches!(&exit, Exit::Rejected { reason: found } if found.contains(reason)), "{reason}: {exit:?}");
        executor.commands.forget(vec![Key(1)]);
        executor.commands.flush().await.unwrap();
        while executor.events.next().await.is_some() {}
        scene.clear(1).await;
        assert!(!scene.dir(1).exists());
    }
}

#[tokio::test]
async fn it_outlives_whoever_started_it_and_is_found_again() {
    let scene = Scene::new().await;
    let place = scene.dir(1);
    let text = "echo one; while [ ! -e /tmp/go ]; do sleep 0.01; [ $((i=i+1)) -gt 30 ] && : > /tmp/go; done; echo two; exit 5";
    let mut first = scene.0.start(&script(&scene, 1, text)).await.unwrap();
    let pid = first.hello.pid;
    first.commands.flush().await.unwrap();
    let Scene(started, folder) = scene;
    drop((first, started));
    let scene = Scene(template(&folder).await, folder);
    let Recovered::Living(mut again) = recover(&place).await.unwrap() else { panic!("it lives") };
    assert_eq!((again.hello.pid, again.held.live.len()), (pid, 1));
    assert_eq!(end(&mut again).await.0, Exit::Code(5));
    drop(again);
    // Nobody is there to be told: it is on record, and the executor goes.
    let left = loop {
        match recover(&place).await {
            Ok(Recovered::Dead(remains)) => break remains,
            _ => tokio::task::yield_now().await,
        }
    };
    assert!(matches!(&left.ended[..], [(Key(1), Exit::Code(5), _)]) && left.lost.is_empty(), "{left:?}");
    assert_eq!(printed(&scene, 1), "one\ntwo\n");
    scene.clear(1).await;
    assert!(!place.exists());
}

#[tokio::test]
async fn the_task_of_an_executor_that_was_killed_is_lost_and_cleared_away() {
    let scene = Scene::new().await;
    let place = scene.dir(1);
    let mark = format!("{}", 200_000 + std::process::id());
    let first = scene.0.start(&script(&scene, 1, &format!("sleep {mark}"))).await.unwrap();
    let pid = rustix::process::Pid::from_raw(first.hello.pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let Recovered::Dead(remains) = recover(&place).await.unwrap() else { panic!("it is dead") };
    assert_eq!((remains.lost, remains.ended.len()), (vec![Key(1)], 0));
    scene.clear(1).await;
    let running = || {
        let pids = fs::read_dir("/proc").unwrap().flatten();
        pids.map(|entry| fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default()).any(|line| line.contains(&mark))
    };
    assert!(no_groups() || !running());
}

#[tokio::test]
async fn output_that_floods_waits_and_is_rotated() {
    let start = std::time::Instant::now();
    let (exit, _, said) =
        limited("yes | head -c 600000", |limits| (limits.log_bytes_max, limits.log_bytes_per_s_max) = (64 << 10, 200_000)).await;
    assert_eq!(exit, Exit::Code(0));
    assert!(said.len() <= 64 << 10 && said.len() > 16 << 10, "{} bytes are kept", said.len());
    // Not a measurement: what the first second's worth and a pipe do not hold cannot be printed before.
    assert!(start.elapsed().as_millis() >= 1_000, "it waited");
}

/// A spec for a task of an image that is a busybox and nothing else.
fn busybox(scene: &Scene, key: u128, command: &[&str]) -> ProcessSpec {
    let layer = scene.0.places().unpacked().join("layers/layer");
    if !layer.exists() {
        for name in ["bin", "etc", "tmp"] {
            fs::create_dir_all(layer.join(name)).unwrap();
        }
        fs::copy("/bin/busybox", layer.join("bin/busybox")).unwrap();
        for name in ["sh", "ls", "id", "cat", "mount", "touch", "rm", "hostname", "chown", "stat", "mkdir", "echo", "sleep", "wc"] {
            std::os::unix::fs::symlink("busybox", layer.join("bin").join(name)).unwrap();
        }
        fs::write(layer.join("etc/of-the-image"), "from below\n").unwrap();
    }
    let mut spec = script(scene, key, "");
    spec.root = Root::Layers { layers: vec![layer] };
    spec.command = command.iter().map(|text| (*text).to_owned()).collect();
    spec.env = vec![("PATH".into(), "/bin".into())];
    spec.dir = "/work".into();
    spec.ids = Ids {
        inside: 0,
        outside: spec.ids.outside,
        count: if spec.ids.outside.is_some() { 65_535 } else { 1 },
        uid: 0,
        gid: 0,
        groups: vec![],
    };
    spec
}

#[tokio::test]
async fn a_container_has_the_root_of_its_image_and_may_change_it() {
    let scene = Scene::new().await;
    let text = "id -u; pwd; cat /etc/of-the-image; echo changed > /etc/of-the-image; cat /etc/of-the-image; stat -c %u:%a /etc /bin /work; hostname; cat /etc/hosts; rm /bin/wc; ls /bin/wc";
    let (exit, _, said) = ran(busybox(&scene, 2, &["sh", "-c", text]), &scene).await;
    println!("{exit:?} {said}");
    assert!(said.starts_with("0\n/work\nfrom below\nchanged\n0:755\n0:755\n0:755\ntest-2\n"), "{said}");
    assert_eq!(exit, Exit::Code(1));
    assert_eq!(fs::read_to_string(scene.0.places().unpacked().join("layers/layer/etc/of-the-image")).unwrap(), "from below\n");
}

#[tokio::test]
#[ignore = "a measurement"]
async fn speed() {
    let scene = Scene::new().await;
    let scene = std::sync::Arc::new(scene);
    // The first one waits until the template is ready.
    let mut first = scene.0.start(&script(&scene, 1, "")).await.unwrap();
    end(&mut first).await;
    for kind in 0..2 {
        let n = 600u128;
        let start = std::time::Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        let mut done = 0;
        let base = script(&scene, 1, "");
        let image = busybox(&scene, 1, &["/bin/busybox", "true"]);
        for at in 0..n {
            let key = 10 + kind * n + at;
            let mut spec = if kind == 0 { ProcessSpec { command: vec!["/bin/true".into()], ..base.clone() } } else { image.clone() };
            spec.key = Key(key);
            let own = script(&scene, key, "");
            (spec.cgroup, spec.ids.outside) = (own.cgroup, own.ids.outside);
            let scene = std::sync::Arc::clone(&scene);
            if tasks.len() >= 8 {
                tasks.join_next().await.unwrap().unwrap();
                done += 1;
            }
            tasks.spawn(async move {
                let mut executor = scene.0.start(&spec).await.unwrap();
                let (exit, _) = end(&mut executor).await;
                assert_eq!(exit, Exit::Code(0));
                executor.commands.forget(vec![spec.key]);
                executor.commands.flush().await.unwrap();
                while executor.events.next().await.is_some() {}
                if super::is_left(&scene.dir(key)) {
                    scene.clear(key).await;
                }
            });
        }
        while tasks.join_next().await.is_some() {
            done += 1;
        }
        println!("kind {kind}: {done} in {:?}: {:.0}/s", start.elapsed(), done as f64 / start.elapsed().as_secs_f64());
    }
}
