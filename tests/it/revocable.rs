//! What is promised and idle is lent to tasks that may be ended at any moment, and taken back when it is needed.

use crate::cluster::{Cluster, said, sample};
use crate::processes::write;
use serde_json::{Value, json};

fn apply(cluster: &Cluster, name: &str, job: Value) {
    let file = write(cluster, &format!("{name}.json"), job.to_string());
    cluster.text(&["apply", "--detach", file.to_str().unwrap()]);
}

fn attempts(cluster: &Cluster, job: &str, phase: &str) -> Vec<u64> {
    let tasks = cluster.all_tasks(job);
    tasks.iter().filter(|task| task["phase"] == phase).map(|task| task["attempt"].as_u64().unwrap()).collect()
}

#[test]
fn a_batch_runs_with_what_a_service_does_not_use_and_leaves_when_it_wakes() {
    let mut cluster = Cluster::master(&[]);
    cluster.add_agent_with("a1", "cpu=2,memory=1GiB", &["--revocable"]);
    let sleeper = write(&cluster, "sleeper", "#!/bin/sh\nexec sleep 1000000\n");
    let resources = |cpu, memory, revocable| json!({ "cpu": cpu, "memory": memory, "revocable": revocable });
    apply(
        &cluster,
        "day",
        json!({ "name": "day", "kind": "service", "task": { "native": sleeper }, "resources": resources(2.0, "900MiB", false) }),
    );
    cluster.until("the service runs", |cluster| cluster.tasks("day", "running") == 1);
    let sleep = json!({ "wasm": sample("sleep.wasm"), "args": ["3600000"] });
    let job = |name, count, revocable| json!({ "name": name, "kind": "batch", "count": count, "task": sleep, "resources": resources(0.5, "256MiB", revocable) });
    apply(&cluster, "firm", job("firm", 1, false));
    apply(&cluster, "night", job("night", 2, true));
    cluster.until("what the service was promised is lent", |cluster| cluster.tasks("night", "running") == 2);
    assert_eq!(cluster.tasks("firm", "waiting"), 1, "the agent is full");

    // A task without a disk keeps its files in memory.
    let exec = |script: &str| said(&cluster, &["exec", "day.0", "--", "sh", "-c", script]);
    assert_eq!(exec("head -c 700M /dev/zero > /sandbox/ballast"), (String::new(), Some(0)));
    cluster.until("one of both leaves", |cluster| cluster.tasks("night", "waiting") == 1);
    assert_eq!(attempts(&cluster, "night", "running"), [1], "and one only");
    let why = cluster.text(&["explain", "night"]);
    assert!(why.contains("revocable memory"), "{why}");
    assert_eq!(exec("rm /sandbox/ballast"), (String::new(), Some(0)));
    cluster.until("it is placed again", |cluster| cluster.tasks("night", "running") == 2);
    let mut both = attempts(&cluster, "night", "running");
    both.sort_unstable();
    assert_eq!(both, [1, 2]);
    assert_eq!(attempts(&cluster, "day", "running"), [1]);

    // Whoever is promised the room has it, and whoever was lent it leaves.
    cluster.text(&["stop", "day"]);
    cluster.until("the other one runs too", |cluster| cluster.tasks("firm", "running") == 1);
    assert_eq!(attempts(&cluster, "night", "running").len(), 2, "there is room for all");
    apply(
        &cluster,
        "all",
        json!({ "name": "all", "kind": "service", "task": { "native": sleeper }, "resources": resources(1.5, "768MiB", false) }),
    );
    cluster.until("all runs", |cluster| cluster.tasks("all", "running") == 1);
    cluster.until("both leave", |cluster| cluster.tasks("night", "waiting") == 2);
}

#[test]
fn revocable_processes_run_while_nothing_else_wants_the_processor() {
    let mut cluster = Cluster::master(&[]);
    cluster.add_agent_with("a1", "cpu=2,memory=1GiB", &["--revocable"]);
    // proc_pid_stat(5): the scheduling policy, of which 5 is SCHED_IDLE.
    let script = write(&cluster, "policy", "#!/bin/sh\ncut -d' ' -f41 /proc/self/stat\n");
    let run = |flags: &[&str]| said(&cluster, &[&["run"], flags, &[script.to_str().unwrap()]].concat());
    assert_eq!(run(&["--revocable"]), ("5\n".to_owned(), Some(0)));
    let (text, code) = run(&[]);
    assert!(text != "5\n" && code == Some(0), "{text}");
}

#[test]
fn where_others_are_busy_revocable_wasm_leaves_them_processors() {
    let all = std::thread::available_parallelism().unwrap().get();
    if all < 2 {
        println!("skipped: there is one processor, which nobody can leave");
        return;
    }
    let cluster = busy_cluster();
    let resources = json!({ "cpu": 0.25, "memory": "64MiB", "revocable": true });
    let spin = json!({ "name": "night", "kind": "batch", "task": { "wasm": sample("spin.wasm") }, "resources": resources, "limits": { "cpu_time": "1h" } });
    apply(&cluster, "night", spin);
    cluster.until("both run", |cluster| cluster.tasks("busy", "running") == 1 && cluster.tasks("night", "running") == 1);
    cluster.until("tasks are kept to some processors", |cluster| {
        let places: Vec<usize> = cluster.executors().into_iter().flat_map(idle_threads).collect();
        !places.is_empty() && places.iter().all(|processors| (1..all).contains(processors))
    });
    // Where the kernel shares processors among sessions first (sched(7)), theirs yields to all others.
    let idle = cluster.executors().into_iter().filter(|process| !idle_threads(*process).is_empty());
    let sessions: Vec<String> = idle.filter_map(|process| std::fs::read_to_string(format!("/proc/{process}/autogroup")).ok()).collect();
    assert!(sessions.iter().all(|line| line.trim().ends_with("nice 19")), "{sessions:?}");
}

#[test]
fn where_others_are_busy_revocable_processes_leave_them_processors() {
    let may = rustix::thread::sched_getaffinity(None).unwrap();
    let all = (0..rustix::thread::CpuSet::MAX_CPU).filter(|processor| may.is_set(*processor)).count();
    if all < 2 {
        println!("skipped: there is one processor, which nobody can leave");
        return;
    }
    let cluster = busy_cluster();
    let lacks = cluster.json(&["status", "a1"]);
    let lack =
        lacks["weaknesses"].as_array().into_iter().flatten().filter_map(Value::as_str).find(|lack| lack.contains("no control group"));
    if let Some(lack) = lack {
        println!("skipped: {lack}");
        return;
    }
    let spin = write(&cluster, "spin", "#!/bin/sh\nwhile :; do :; done\n");
    let resources = json!({ "cpu": 0.25, "memory": "64MiB", "revocable": true });
    apply(&cluster, "night", json!({ "name": "night", "kind": "batch", "task": { "native": spin }, "resources": resources }));
    cluster.until("both run", |cluster| cluster.tasks("busy", "running") == 1 && cluster.tasks("night", "running") == 1);
    let places = |cluster: &Cluster| {
        // proc_pid_status(5), of all processes of the task and of this one, which comes to it.
        let (text, _) = said(cluster, &["exec", "night.0", "--", "sh", "-c", "grep -h Cpus_allowed: /proc/[0-9]*/status | sort -u"]);
        text.lines().map(|line| line.split_once(":\t").map_or(0, |(_, mask)| ones(mask))).max().unwrap_or(0)
    };
    cluster.until("it is kept to some processors", |cluster| (1..all).contains(&places(cluster)));
}

/// An agent that lends, with a service that keeps one processor busy.
fn busy_cluster() -> Cluster {
    let mut cluster = Cluster::master(&[]);
    cluster.add_agent_with("a1", "cpu=2,memory=1GiB", &["--revocable"]);
    let busy = write(&cluster, "busy", "#!/bin/sh\nwhile :; do :; done\n");
    let resources = json!({ "cpu": 1.0, "memory": "64MiB" });
    apply(&cluster, "busy", json!({ "name": "busy", "kind": "service", "task": { "native": busy }, "resources": resources }));
    cluster
}

/// How many bits are set in a mask of hexadecimal digits.
fn ones(mask: &str) -> usize {
    mask.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit.count_ones() as usize).sum()
}

/// On how many processors each thread of a process may run that runs only while nothing else wants one.
fn idle_threads(process: u32) -> Vec<usize> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let of = |thread: std::fs::DirEntry| {
        let read = |file: &str| std::fs::read_to_string(thread.path().join(file)).ok();
        // proc_pid_stat(5): behind the name the 39th field is the scheduling policy, of which 5 is SCHED_IDLE.
        let is_idle = read("stat")?.rsplit_once(") ")?.1.split(' ').nth(38) == Some("5");
        let mask = read("status")?.lines().find_map(|line| line.strip_prefix("Cpus_allowed:\t").map(str::to_owned))?;
        is_idle.then(|| ones(&mask))
    };
    threads.filter_map(of).collect()
}
