//! System jobs through the binary: one task on each agent that matches, through joins, losses, drains, new versions and the death of masters.

use crate::cluster::{Cluster, said, sample};
use crate::health::SERVER;
use crate::masters::Masters;
use crate::processes::write;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

const RESOURCES: &str = "cpu=4,memory=4GiB,disk=1GiB,ports=20000-20099";
const USUAL: &str = "[resources]\ncpu = 0.1\nmemory = \"2MiB\"\nports = [\"http\"]\n[update]\nsettle = \"100ms\"\n";

/// The job file of a system job of wasm tasks, with these lines behind what runs. Where there is no `word`, each ends with code 3 as soon as it begins.
fn file(cluster: &Cluster, word: Option<&str>, lines: &str) -> PathBuf {
    let path = cluster.folder.join("log.toml");
    let (wasm, args) = match word {
        Some(word) => (sample("sleep.wasm"), format!("[\"600000\"]\nenv = {{ WORD = {word:?} }}")),
        None => (sample("hello.wasm"), "[\"world\", \"3\"]".to_owned()),
    };
    let restart = "[restart]\nbackoff = { first = \"50ms\", factor = 1, max = \"1s\" }\n";
    std::fs::write(&path, format!("name = \"log\"\nkind = \"system\"\n[task]\nwasm = {wasm:?}\nargs = {args}\n{restart}{lines}")).unwrap();
    path
}

fn apply(cluster: &Cluster, word: Option<&str>, lines: &str) -> (String, Option<i32>) {
    let path = file(cluster, word, lines);
    said(cluster, &["apply", path.to_str().unwrap()])
}

fn names(cluster: &Cluster) -> BTreeMap<String, String> {
    let agents = cluster.json(&["agents"]);
    let name = |agent: &Value| (agent["id"].as_str().unwrap().to_owned(), agent["name"].as_str().unwrap().to_owned());
    agents["agents"].as_array().unwrap().iter().map(name).collect()
}

/// Of each agent: task, attempt and version of what runs there.
fn running(cluster: &Cluster) -> BTreeMap<String, (u64, u64, u64)> {
    let names = names(cluster);
    let number = |task: &Value, field: &str| task[field].as_u64().unwrap();
    let mut found = BTreeMap::new();
    for task in cluster.all_tasks("log").iter().filter(|task| task["phase"] == "running") {
        let of = (number(task, "index"), number(task, "attempt"), number(task, "version"));
        let other = found.insert(names[task["agent"].as_str().unwrap()].clone(), of);
        assert!(other.is_none(), "two on one agent: {of:?} and {other:?}");
    }
    found
}

fn until_on(cluster: &Cluster, agents: &[&str]) {
    cluster.until(&format!("it runs on {agents:?}"), |cluster| {
        let job = cluster.json(&["status", "log"]);
        let all = u64::try_from(agents.len()).unwrap();
        running(cluster).keys().eq(agents.iter()) && job["count"].as_u64() == Some(all) && job["tasks"]["running"].as_u64() == Some(all)
    });
}

fn row(cluster: &Cluster) -> String {
    cluster.text(&["ps"]).lines().find(|line| line.contains("log")).unwrap_or_default().to_owned()
}

#[test]
fn each_agent_has_one_through_joins_losses_drains_and_the_death_of_the_master() {
    let mut cluster = Cluster::master(&["--replace-after-ms", "5000"]);
    cluster.add_agent("a1", RESOURCES);
    cluster.add_agent("a2", RESOURCES);
    let path = file(&cluster, Some("1"), USUAL);
    let (text, code) = said(&cluster, &["plan", path.to_str().unwrap()]);
    assert!(code == Some(1) && text.contains("create: one task on each of 2 agents") && text.contains("1 on a1"), "{text}");
    let (text, code) = apply(&cluster, Some("1"), USUAL);
    assert!(code == Some(0) && text.contains("of 2 tasks ready"), "{text}");
    until_on(&cluster, &["a1", "a2"]);
    assert!(row(&cluster).contains("system") && row(&cluster).contains("2 of 2 agents"), "{}", row(&cluster));
    let said_of = cluster.text(&["status", "log"]);
    assert!(said_of.contains("running on 2 of 2 agents") && said_of.contains("each of the 2 agents that match has its own"), "{said_of}");
    assert!(cluster.text(&["explain", "log.1"]).contains("each of the 2 agents"));
    let (text, code) = said(&cluster, &["scale", "log", "5"]);
    assert!(code == Some(2) && text.contains("one task on each agent"), "{text}");

    // One joins; one is full, and waits until it is not.
    cluster.add_agent("a3", RESOURCES);
    until_on(&cluster, &["a1", "a2", "a3"]);
    cluster.add_agent("a4", "cpu=0.05,memory=4GiB,disk=1GiB,ports=20000-20099");
    cluster.until("one waits", |cluster| cluster.tasks("log", "waiting") == 1);
    assert!(row(&cluster).contains("3 of 4 agents: 1 waiting"), "{}", row(&cluster));
    let why = cluster.text(&["explain", "log"]);
    assert!(why.contains("it waits on 1 of 4 agents: a4 (cpu: 50 milli in all, 100 needed)"), "{why}");
    let set = cluster.text(&["agents", "set", "a4", "--resources", "cpu=1"]);
    until_on(&cluster, &["a1", "a2", "a3", "a4"]);
    let before = running(&cluster);

    // The master dies and comes back: nobody is started again.
    cluster.kill_master();
    cluster.start_master();
    cluster.until("the agents are back", |cluster| cluster.reachable().len() == 4);
    until_on(&cluster, &["a1", "a2", "a3", "a4"]);
    assert_eq!(running(&cluster), before, "{set}");

    // Drained, it has none, and nobody else has two; resumed, it has its own again.
    cluster.text(&["agents", "drain", "a2", "--grace", "1s"]);
    until_on(&cluster, &["a1", "a3", "a4"]);
    cluster.text(&["agents", "resume", "a2"]);
    until_on(&cluster, &["a1", "a2", "a3", "a4"]);
    assert_eq!(running(&cluster)["a2"].0, before["a2"].0, "the index that it had");

    // One dies for good, one is sent away, one matches no longer.
    cluster.kill_agent("a3");
    until_on(&cluster, &["a1", "a2", "a4"]);
    let id = names(&cluster).into_iter().find(|(_, name)| name == "a4").unwrap().0;
    cluster.text(&["agents", "gone", &id]);
    until_on(&cluster, &["a1", "a2"]);
    cluster.kill_master();
    cluster.start_master();
    cluster.until("the agents are back", |cluster| cluster.reachable().len() == 2);
    until_on(&cluster, &["a1", "a2"]);
    cluster.start_agent("a3");
    until_on(&cluster, &["a1", "a2", "a3"]);
    let (text, code) = apply(&cluster, Some("1"), &format!("{USUAL}[place]\nconstraints = [[\"disk\", \"UNLIKE\", \"tape\"]]\n"));
    assert_eq!(code, Some(0), "{text}");
    until_on(&cluster, &["a1", "a2", "a3"]);
    cluster.text(&["agents", "set", "a1", "--attribute", "disk=tape"]);
    until_on(&cluster, &["a2", "a3"]);
    let logs = |task: &str| said(&cluster, &["logs", task]).1;
    let own = running(&cluster).into_values().next().unwrap().0;
    assert_eq!((logs("log"), logs(&format!("log.{own}")), logs("log.77")), (Some(0), Some(0), Some(2)));
}

#[test]
fn a_new_version_goes_from_agent_to_agent_and_a_bad_one_returns_by_itself() {
    let mut cluster = Cluster::master(&[]);
    for name in ["a1", "a2", "a3"] {
        cluster.add_agent(name, RESOURCES);
    }
    assert_eq!(apply(&cluster, Some("1"), USUAL).1, Some(0));
    until_on(&cluster, &["a1", "a2", "a3"]);
    let tasks = |cluster: &Cluster| running(cluster).into_values().map(|(task, ..)| task).collect::<Vec<_>>();
    let versions = |cluster: &Cluster| running(cluster).into_values().map(|(.., version)| version).collect::<Vec<_>>();
    let places = tasks(&cluster);
    let path = file(&cluster, Some("2"), USUAL);
    let (text, code) = said(&cluster, &["plan", path.to_str().unwrap()]);
    assert!(code == Some(1) && text.contains(r#"tasks.0.env.WORD: "1" → "2""#) && !text.contains("count"), "{text}");
    let (text, code) = apply(&cluster, Some("2"), USUAL);
    assert!(code == Some(0) && text.contains("version 1 to 2: done"), "{text}");
    assert_eq!((versions(&cluster), tasks(&cluster)), (vec![2, 2, 2], places));
    assert!(cluster.text(&["status", "log"]).contains("update   version 1 to 2"), "{}", cluster.text(&["status", "log"]));

    // A bad one: one agent's task is tried, the others are left alone.
    let (text, code) = apply(&cluster, None, USUAL);
    assert!(code == Some(1) && text.contains("ended by themselves") && text.contains("back from version 3 to 2"), "{text}");
    until_on(&cluster, &["a1", "a2", "a3"]);
    let after = running(&cluster);
    assert!(versions(&cluster) == [2, 2, 2] && after.values().filter(|(_, attempt, _)| *attempt == 2).count() == 2, "{after:?}");
    let (text, code) = said(&cluster, &["rollback", "log", "1"]);
    assert_eq!((code, versions(&cluster)), (Some(0), vec![1, 1, 1]), "{text}");
    let (text, code) = said(&cluster, &["restart", "log"]);
    assert_eq!((code, versions(&cluster)), (Some(0), vec![4, 4, 4]), "{text}");

    // Each has a name and its own port, and what is asked for in vain is said under its line.
    let named = cluster.json(&["ps", "log"]);
    assert!(named["tasks"].as_array().unwrap().iter().all(|task| !task["agent"].is_null()), "{named}");
    let wrong = cluster.folder.join("wrong.toml");
    std::fs::write(&wrong, "name = \"x\"\nkind = \"system\"\ncount = 3\n[task]\nwasm = \"hello.wasm\"\n").unwrap();
    std::fs::copy(sample("hello.wasm"), cluster.folder.join("hello.wasm")).unwrap();
    let (text, code) = said(&cluster, &["apply", wrong.to_str().unwrap()]);
    assert!(code == Some(2) && text.contains("3 | count = 3") && text.contains("no number is said of it"), "{text}");
    cluster.text(&["stop", "log"]);
    cluster.until("it has ended", |cluster| cluster.json(&["status", "log"])["state"] == "ended");
}

/// A group of a server and what ships its logs: the server answers with this status.
fn exporter(cluster: &Cluster, status: &str) -> (String, Option<i32>) {
    let text = format!(
        "name = \"exporter\"\nrole = \"ops\"\nkind = \"system\"\n[[task]]\nname = \"serve\"\nnative = \"server\"\nenv = {{ STATUS = \"{status}\" }}\n\
         resources = {{ cpu = 0.1, memory = \"32MiB\", ports = [\"http\"] }}\nlimits = {{ egress = \"host\" }}\n\
         readiness = {{ http = \"/ready\", every = \"100ms\" }}\n[[task]]\nname = \"ship\"\nwasm = {:?}\nargs = [\"600000\"]\n\
         resources = {{ cpu = 0.01, memory = \"2MiB\" }}\n[update]\nsettle = \"100ms\"\ndeadline = \"6s\"\n",
        sample("sleep.wasm")
    );
    let file = write(cluster, "exporter.toml", text);
    said(cluster, &["apply", file.to_str().unwrap()])
}

#[test]
fn a_version_that_is_never_ready_takes_one_agents_group_and_gives_it_back() {
    let mut cluster = Cluster::master(&[]);
    for (name, ports) in [("a1", "22800-22809"), ("a2", "22810-22819"), ("a3", "22820-22829")] {
        cluster.add_agent(name, &format!("cpu=4,memory=4GiB,disk=1GiB,ports={ports}"));
    }
    cluster.text(&["roles", "set", "ops", "--host-network", "true"]);
    write(&cluster, "server", SERVER);
    let (text, code) = exporter(&cluster, "200");
    assert_eq!(code, Some(0), "{text}");
    let seen = |cluster: &Cluster| {
        let tasks = cluster.json(&["ps", "exporter", "--role", "ops"])["tasks"].as_array().unwrap().clone();
        let well = tasks.iter().filter(|task| task["health"]["state"] == "healthy").count();
        let untouched = tasks.iter().filter(|task| task["attempt"] == 1).count();
        (tasks.len(), well, untouched)
    };
    cluster.until("all are ready", |cluster| seen(cluster) == (3, 3, 3));
    let (text, code) = exporter(&cluster, "503");
    assert!(code == Some(1) && text.contains("at its deadline"), "{text}");
    cluster.until("all are ready again", |cluster| seen(cluster) == (3, 3, 2));
    let all = cluster.json(&["ps", "exporter", "--role", "ops"]);
    assert!(all["tasks"].as_array().unwrap().iter().all(|task| task["version"] == 1), "{all}");
}

#[test]
fn three_masters_agree_on_who_has_one() {
    let mut masters = Masters::three();
    for name in ["a2", "a3"] {
        masters.cluster.add_agent(name, RESOURCES);
    }
    let (text, code) = apply(&masters.cluster, Some("1"), USUAL);
    assert_eq!(code, Some(0), "{text}");
    until_on(&masters.cluster, &["a1", "a2", "a3"]);
    let before = running(&masters.cluster);
    let leader = masters.leader();
    masters.kill(leader);
    masters.cluster.until("somebody leads", |cluster| cluster.run(&["status", "log"]).status.success());
    until_on(&masters.cluster, &["a1", "a2", "a3"]);
    assert_eq!(running(&masters.cluster), before, "nobody is started again");
    let (text, code) = apply(&masters.cluster, Some("2"), USUAL);
    assert_eq!(code, Some(0), "{text}");
    assert!(running(&masters.cluster).values().all(|(.., version)| *version == 2));
    masters.cluster.text(&["agents", "drain", "a2"]);
    until_on(&masters.cluster, &["a1", "a3"]);
    masters.start(leader);
    masters.until_led(3);
    masters.cluster.add_agent("a4", RESOURCES);
    until_on(&masters.cluster, &["a1", "a3", "a4"]);
    masters.cluster.text(&["agents", "resume", "a2"]);
    until_on(&masters.cluster, &["a1", "a2", "a3", "a4"]);
}
