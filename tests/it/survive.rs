//! What survives: `kill -9` of the agent, of the master, of both, in the middle of running tasks.

use crate::cluster::{Cluster, sample};
use serde_json::Value;
use std::collections::BTreeMap;

const RESOURCES: &str = "cpu=64,memory=64GiB,disk=1GiB,ports=20000-20099";
const TASKS: usize = 1_000;

fn sleepers(cluster: &Cluster, ms: &str) {
    let sleep = sample("sleep.wasm");
    let count = TASKS.to_string();
    cluster.text(&[
        "run",
        "--detach",
        "--name",
        "sleepers",
        "--count",
        &count,
        "--cpu",
        "0.01",
        "--memory",
        "1MiB",
        sleep.to_str().unwrap(),
        "--",
        ms,
    ]);
    cluster.until("all run", |cluster| cluster.tasks("sleepers", "running") == TASKS as u64);
}

/// Which attempt of each task stands on record.
fn attempts(cluster: &Cluster) -> BTreeMap<u64, u64> {
    let tasks = cluster.all_tasks("sleepers");
    tasks.iter().map(|task: &Value| (task["index"].as_u64().unwrap(), task["attempt"].as_u64().unwrap())).collect()
}

fn each_once(cluster: &Cluster) {
    let attempts = attempts(cluster);
    assert_eq!(attempts.len(), TASKS);
    let again: Vec<_> = attempts.iter().filter(|(_, attempt)| **attempt != 1).collect();
    assert!(again.is_empty(), "{} tasks were started again: {:?}", again.len(), &again[..again.len().min(5)]);
}

fn all_end(cluster: &Cluster) {
    cluster.until("all have ended", |cluster| cluster.tasks("sleepers", "finished") == TASKS as u64);
    each_once(cluster);
}

#[test]
fn tasks_go_on_without_their_agent_and_are_owned_again() {
    let mut cluster = Cluster::of_one(RESOURCES);
    sleepers(&cluster, "20000");
    let executors = cluster.executors();
    assert!(!executors.is_empty());
    cluster.kill_agent("a1");
    assert_eq!(cluster.executors(), executors, "executors outlive the agent");
    cluster.start_agent("a1");
    cluster.until("the agent owns them again", |cluster| cluster.tasks("sleepers", "running") == TASKS as u64);
    assert_eq!(cluster.executors(), executors, "no executor was started anew");
    all_end(&cluster);
}

#[test]
fn ends_that_come_while_the_agent_is_dead_are_told_later() {
    let mut cluster = Cluster::of_one(RESOURCES);
    sleepers(&cluster, "8000");
    cluster.kill_agent("a1");
    std::thread::sleep(std::time::Duration::from_secs(9)); // What is tested is that they end meanwhile.
    cluster.start_agent("a1");
    all_end(&cluster);
}

#[test]
fn a_killed_master_loses_no_job_and_restarts_no_task() {
    let mut cluster = Cluster::of_one(RESOURCES);
    sleepers(&cluster, "15000");
    let hello = sample("hello.wasm");
    let ids: Vec<String> =
        (0..20).map(|_| cluster.text(&["run", "--detach", hello.to_str().unwrap(), "--", "x"]).trim().to_owned()).collect();
    cluster.kill_master();
    cluster.start_master();
    for id in &ids {
        cluster.until("every acknowledged job ends", |cluster| cluster.tasks(id, "finished") == 1);
    }
    all_end(&cluster);
}

#[test]
fn both_killed_at_once_lose_nothing_either() {
    let mut cluster = Cluster::of_one(RESOURCES);
    sleepers(&cluster, "15000");
    let executors = cluster.executors();
    cluster.kill_agent("a1");
    cluster.kill_master();
    cluster.start_master();
    cluster.start_agent("a1");
    cluster.until("the agent owns them again", |cluster| {
        cluster.tasks("sleepers", "running") + cluster.tasks("sleepers", "finished") == TASKS as u64
    });
    assert_eq!(cluster.executors(), executors);
    all_end(&cluster);
}

#[test]
fn a_master_killed_while_it_places_loses_no_acknowledged_job_and_restarts_no_task() {
    let mut cluster = Cluster::of_one(RESOURCES);
    let noop = sample("noop.wasm");
    let args = ["run", "--detach", "--name", "flood", "--count", "20000", "--cpu", "0.01", "--memory", "1MiB", noop.to_str().unwrap()];
    cluster.text(&args);
    cluster.kill_master();
    cluster.start_master();
    cluster.until("all of it ends", |cluster| !cluster.json(&["status", "flood"])["ended_ms"].is_null());
    let job = cluster.json(&["status", "flood"]);
    assert_eq!(job["tasks"]["finished"], 20_000, "{job}");
    // What was staged and had not reached its agent is said to it again as it was.
    assert_eq!(job["restarts"], 0, "{job}");
}

#[test]
fn a_dead_executor_loses_its_tasks_and_they_are_replaced() {
    let cluster = Cluster::of_one(RESOURCES);
    let file = cluster.folder.join("service.toml");
    let text = format!(
        "name = \"sleepers\"\nkind = \"service\"\ncount = 3\n[task]\nwasm = {:?}\nargs = [\"600000\"]\n[resources]\ncpu = 0.01\nmemory = \"1MiB\"\n[restart]\nbackoff = {{ first = \"10ms\" }}\n",
        sample("sleep.wasm")
    );
    std::fs::write(&file, text).unwrap();
    cluster.text(&["apply", file.to_str().unwrap()]);
    for id in cluster.executors() {
        assert!(std::process::Command::new("kill").args(["-9", &id.to_string()]).status().unwrap().success());
    }
    cluster.until("three run again", |cluster| {
        let job = cluster.json(&["status", "sleepers"]);
        job["tasks"]["running"] == 3 && job["restarts"].as_u64() >= Some(3)
    });
}

#[test]
fn the_tasks_of_a_silent_agent_are_replaced_after_a_while_and_not_before() {
    let mut cluster = Cluster::master(&["--replace-after-ms", "6000"]);
    cluster.add_agent("a1", RESOURCES);
    let file = cluster.folder.join("service.toml");
    let text = format!(
        "name = \"sleepers\"\nkind = \"service\"\ncount = 3\n[task]\nwasm = {:?}\nargs = [\"600000\"]\n[resources]\ncpu = 0.01\nmemory = \"1MiB\"\n",
        sample("sleep.wasm")
    );
    std::fs::write(&file, text).unwrap();
    cluster.text(&["apply", file.to_str().unwrap()]);
    cluster.add_agent("a2", RESOURCES);
    cluster.kill_agent("a1");
    cluster.until("they are called unreachable", |cluster| cluster.tasks("sleepers", "unreachable") == 3);
    assert_eq!(cluster.json(&["status", "sleepers"])["restarts"], 0, "unreachable is not yet lost");
    cluster.until("they run elsewhere", |cluster| cluster.tasks("sleepers", "running") == 3);
    cluster.start_agent("a1");
    cluster.until("what a1 still ran is stopped", |cluster| {
        let agents = cluster.json(&["agents"]);
        agents["agents"]
            .as_array()
            .unwrap()
            .iter()
            .any(|agent| agent["name"] == "a1" && agent["state"] == "reachable" && agent["attempts"] == 0)
    });
    assert_eq!(cluster.tasks("sleepers", "running"), 3);
}
