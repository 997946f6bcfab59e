//! `[service] fenced = true`: never two alive at once, whoever is stopped, killed or gone. Each instance says when it lives, by a clock of the
//! machine that all share, into one file.

use crate::cluster::Cluster;
use crate::processes::write;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const RESOURCES: &str = "cpu=4,memory=4GiB,disk=1GiB,ports=20000-20099";
/// Says every 20 ms or so that it lives: its token, and the time since the machine was started.
const LIVES: &str = "#!/bin/sh\nwhile read up rest < /proc/uptime; do echo \"$SKEP_FENCE $up\" >> /mnt/shared/lives; sleep 0.02; done\n";
/// Says every 20 ms what its environment is.
const SAYS: &str = r#"(module
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")
        (drop (call $sizes (i32.const 0) (i32.const 4)))
        (drop (call $environ (i32.const 1024) (i32.const 2048)))
        (i32.store8 (i32.add (i32.const 2047) (i32.load (i32.const 4))) (i32.const 10))
        (i32.store (i32.const 8) (i32.const 2048))
        (i32.store (i32.const 12) (i32.load (i32.const 4)))
        (i32.store (i32.const 112) (i32.const 1))
        (i64.store (i32.const 120) (i64.const 20000000))
        (loop $again
            (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 16)))
            (drop (call $poll (i32.const 96) (i32.const 256) (i32.const 1) (i32.const 512)))
            (br $again))))"#;

/// Seconds of a lease, where agents are replaced after so many milliseconds of silence.
const LEASE_S: f64 = 5.0;
const REPLACE_AFTER_MS: &str = "7000";
/// What a busy machine may add to the end of a lease.
const SLACK_S: f64 = 1.0;

/// A cluster of one agent on which a fenced native task runs, and the file in which that says when it lives.
fn cluster() -> (Cluster, PathBuf) {
    let mut cluster = Cluster::master(&["--replace-after-ms", REPLACE_AFTER_MS]);
    cluster.add_agent("a1", RESOURCES);
    let shared = cluster.folder.join("shared");
    fs::create_dir(&shared).unwrap();
    let lives = shared.join("lives");
    fs::write(&lives, "").unwrap();
    for (path, mode) in [(&shared, 0o777), (&lives, 0o666)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    cluster.text(&["roles", "set", "default", "--host-path", &format!("{}:rw", shared.display())]);
    write(&cluster, "lives", LIVES);
    let job = format!(
        "name = \"one\"\n[task]\nnative = \"lives\"\nmount = [{{ host = {shared:?}, to = \"/mnt/shared\", writable = true }}]\n\
         [service]\nfenced = true\n"
    );
    apply(&cluster, "one", &job);
    (cluster, lives)
}

fn apply(cluster: &Cluster, name: &str, job: &str) {
    let file = write(cluster, &format!("{name}.toml"), job);
    cluster.text(&["apply", file.to_str().unwrap()]);
    cluster.until("it runs", |cluster| cluster.tasks(name, "running") == 1);
}

fn uptime() -> f64 {
    fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap()
}

/// First and last moment of each token, in the order of tokens; they do not overlap.
fn intervals(lives: &Path) -> Vec<(u64, (f64, f64))> {
    let mut found: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
    for line in fs::read_to_string(lives).unwrap().lines() {
        let (token, time) = line.split_once(' ').unwrap();
        let time: f64 = time.parse().unwrap();
        let (first, last) = found.entry(token.parse().unwrap()).or_insert((time, time));
        (*first, *last) = (first.min(time), last.max(time));
    }
    let found: Vec<_> = found.into_iter().collect();
    for pair in found.windows(2) {
        assert!(pair[0].1.1 <= pair[1].1.0, "two lived at once: {found:?}");
    }
    found
}

fn attempt(cluster: &Cluster, job: &str) -> u64 {
    cluster.all_tasks(job)[0]["attempt"].as_u64().unwrap()
}

fn signal(process: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &process.to_string()]).status().unwrap().success());
}

/// Bytes of output of an agent's wasm tasks.
fn output_bytes(cluster: &Cluster, agent: &str) -> u64 {
    fn below(path: &Path) -> u64 {
        let Ok(entries) = fs::read_dir(path) else { return 0 };
        entries
            .flatten()
            .map(|entry| entry.metadata().map_or(0, |found| if found.is_dir() { below(&entry.path()) } else { found.len() }))
            .sum()
    }
    let executors = fs::read_dir(cluster.folder.join(agent).join("executors")).into_iter().flatten().flatten();
    executors.map(|executor| below(&executor.path().join("logs"))).sum()
}

#[test]
fn a_fenced_task_of_an_agent_that_stands_still_ends_before_another_begins() {
    let (mut cluster, lives) = cluster();
    let module = wat::parse_str(SAYS).unwrap();
    write(&cluster, "says.wasm", module);
    apply(&cluster, "two", "name = \"two\"\n[task]\nwasm = \"says.wasm\"\n[service]\nfenced = true\n");
    cluster.add_agent("a2", RESOURCES);
    cluster.until("both say something", |cluster| output_bytes(cluster, "a1") > 0 && !intervals(&lives).is_empty());
    let agent = cluster.agent_id("a1");
    signal(agent, "-STOP");
    let (stopped, start) = (uptime(), Instant::now());

    // Nobody tells them: their executors end them by themselves.
    let (mut bytes, mut last_said, mut first_elsewhere) = (output_bytes(&cluster, "a1"), Duration::ZERO, None);
    while first_elsewhere.is_none() || intervals(&lives).len() < 2 {
        let now = output_bytes(&cluster, "a1");
        if now > bytes {
            (bytes, last_said) = (now, start.elapsed());
        }
        if first_elsewhere.is_none() && output_bytes(&cluster, "a2") > 0 {
            first_elsewhere = Some(start.elapsed());
        }
        assert!(start.elapsed() < crate::cluster::PATIENCE, "{:?}", intervals(&lives));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(last_said.as_secs_f64() <= LEASE_S + SLACK_S, "the wasm task of a1 went on for {last_said:?}");
    assert!(Some(last_said) < first_elsewhere, "{last_said:?} {first_elsewhere:?}");
    let found = intervals(&lives);
    let lived_on = found[0].1.1 - stopped;
    assert!((0.0..=LEASE_S + SLACK_S).contains(&lived_on), "the native task of a1 went on for {lived_on} s");

    signal(agent, "-CONT");
    cluster.until("a1 has nothing left", |cluster| {
        let agents = cluster.json(&["agents"]);
        let rows = agents["agents"].as_array().unwrap().clone();
        rows.iter().any(|row| row["name"] == "a1" && row["state"] == "reachable" && row["attempts"] == 0)
    });
    assert_eq!((attempt(&cluster, "one"), attempt(&cluster, "two")), (2, 2));
    assert_eq!((intervals(&lives).len(), output_bytes(&cluster, "a1")), (2, bytes), "nothing of a1 lives again");
    let said = cluster.text(&["logs", "two"]);
    assert!(said.lines().all(|line| line.contains("SKEP_FENCE=")), "{said}");
}

#[test]
fn a_fenced_task_goes_on_without_its_agent_until_that_is_back_and_renews_its_lease() {
    let (mut cluster, lives) = cluster();
    for _ in 0..2 {
        cluster.kill_agent("a1");
        cluster.start_agent("a1");
        // Its lease was renewed once what it says is later than any lease from before.
        let until = uptime() + LEASE_S + SLACK_S;
        cluster.until("its lease is renewed", |_| intervals(&lives).last().is_some_and(|(_, (_, last))| *last > until));
    }
    assert_eq!((intervals(&lives).len(), attempt(&cluster, "one")), (1, 1));
}

#[test]
fn without_a_master_a_fenced_task_ends_and_another_follows_when_there_is_one() {
    let (mut cluster, lives) = cluster();
    cluster.until("it says something", |_| !intervals(&lives).is_empty());
    cluster.kill_master();
    let killed = uptime();
    std::thread::sleep(Duration::from_secs_f64(LEASE_S + 2.0 * SLACK_S)); // What is tested is that it ends meanwhile.
    let lived_on = intervals(&lives)[0].1.1 - killed;
    assert!((LEASE_S - 2.0..=LEASE_S + SLACK_S).contains(&lived_on), "{lived_on} s");
    cluster.start_master();
    cluster.until("another follows", |_| intervals(&lives).len() == 2);
    assert_eq!(attempt(&cluster, "one"), 2);
}
