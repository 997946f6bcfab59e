//! `skep plan --what-if` over the real path: what is predicted for a cluster is what happens to it, and nothing of it changes by being asked.

use crate::cluster::{Cluster, said, sample};
use crate::masters::Masters;
use serde_json::Value;
use std::collections::BTreeSet;

const RESOURCES: &str = "cpu=1,memory=1GiB,disk=1GiB,ports=20000-20099";

fn racks() -> Cluster {
    let mut cluster = Cluster::master(&["--replace-after-ms", "5000"]);
    for (name, rack) in [("a1", "r1"), ("a2", "r1"), ("a3", "r2"), ("a4", "r2"), ("a5", "r3"), ("a6", "r3")] {
        cluster.add_agent_with(name, RESOURCES, &["--domain", &format!("eu/eu-1/{rack}")]);
    }
    cluster
}

fn file(cluster: &Cluster, name: &str, count: u32, more: &str) -> String {
    let path = cluster.folder.join(format!("{name}.toml"));
    let program = sample("sleep.wasm");
    let head = format!("name = \"{name}\"\nkind = \"service\"\ncount = {count}\n");
    let text = format!("{head}[task]\nwasm = {program:?}\nargs = [\"600000\"]\n[resources]\ncpu = 0.25\nmemory = \"8MiB\"\n{more}\n");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Which tasks have this fate.
fn of_fate(answer: &Value, fate: &str) -> BTreeSet<String> {
    let tasks = answer["tasks"].as_array().unwrap().iter().filter(|task| task["fate"] == fate);
    tasks.map(|task| task["task"].as_str().unwrap().to_owned()).collect()
}

/// Asks what would be; what is printed is JSON whatever the exit code is.
fn would(cluster: &Cluster, args: &[&str]) -> (Value, Option<i32>) {
    let all: Vec<&str> = ["--output", "json", "plan"].iter().chain(args).copied().collect();
    let output = cluster.run(&all);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let answer = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{args:?}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (answer, output.status.code())
}

/// Each task of a job that runs: where, and in which attempt.
fn running(cluster: &Cluster, job: &str) -> BTreeSet<(u64, String, u64)> {
    let tasks = cluster.all_tasks(job);
    let live = tasks.iter().filter(|task| task["phase"] == "running");
    live.map(|task| (task["index"].as_u64().unwrap(), task["agent"].as_str().unwrap().to_owned(), task["attempt"].as_u64().unwrap()))
        .collect()
}

fn id_of(cluster: &Cluster, name: &str) -> String {
    let answer = cluster.json(&["agents"]);
    let row = answer["agents"].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap().clone();
    row["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_lost_rack_costs_what_was_predicted() {
    let mut cluster = racks();
    let (web, one) = (file(&cluster, "web", 12, ""), file(&cluster, "one", 6, "[place]\nconstraints = [[\"hostname\", \"UNIQUE\"]]"));
    // The others could fill an agent before.
    cluster.text(&["apply", "--detach", &one]);
    cluster.until("one runs on each agent", |cluster| cluster.tasks("one", "running") == 6);
    cluster.text(&["apply", "--detach", &web]);
    cluster.until("all of both runs", |cluster| cluster.tasks("web", "running") == 12);
    let before = [running(&cluster, "web"), running(&cluster, "one")];

    let (answer, code) = would(&cluster, &["--what-if", "lose rack=r3"]);
    let lost = [id_of(&cluster, "a5"), id_of(&cluster, "a6")];
    let on_lost =
        |job: usize| before[job].iter().filter(|(_, agent, _)| lost.contains(agent)).map(|(index, ..)| *index).collect::<BTreeSet<_>>();
    let named = |job: &str, indexes: &BTreeSet<u64>| indexes.iter().map(|index| format!("{job}.{index}")).collect::<BTreeSet<_>>();
    // Four agents have room for sixteen tasks: twelve of web, and one of the other on each.
    assert_eq!(of_fate(&answer, "moves"), named("web", &on_lost(0)), "{answer}");
    assert_eq!(of_fate(&answer, "waits"), named("one", &on_lost(1)), "{answer}");
    assert_eq!((code, &answer["counts"]["ends"], &answer["counts"]["starts"]), (Some(1), &0.into(), &0.into()), "{answer}");
    assert_eq!((&answer["agents"]["before"], &answer["agents"]["after"]), (&6.into(), &4.into()), "{answer}");
    assert_eq!(answer["free"]["after"]["cpu_milli"], 0, "{answer}");
    let why = answer["waiting"][0].to_string();
    assert!(why.contains("\"job\":\"one\"") && why.contains("no more tasks of the job may be at this hostname"), "{why}");
    assert_eq!([running(&cluster, "web"), running(&cluster, "one")], before, "asking changes nothing");

    // For people.
    let (text, code) = said(&cluster, &["plan", "--what-if", "lose rack=r3", "--what-if", "add 2 agents like a5 with rack=r4"]);
    // Those of the one may fill what the other waits for.
    assert_eq!(code, Some(i32::from(text.contains("would wait"))), "{text}");
    assert!(text.contains("would move") && text.contains("a5+1") && text.contains("agents: 6 → 6"), "{text}");
    assert_eq!([running(&cluster, "web"), running(&cluster, "one")], before, "asking changes nothing");

    for name in ["a5", "a6"] {
        cluster.kill_agent(name);
    }
    let waiting = on_lost(1).len() as u64;
    cluster.until("what can be placed elsewhere is", |cluster| {
        cluster.tasks("web", "running") == 12 && cluster.tasks("one", "waiting") == waiting
    });
    let moved: BTreeSet<u64> = running(&cluster, "web").difference(&before[0]).map(|(index, ..)| *index).collect();
    assert_eq!(moved, on_lost(0));
    assert_eq!(running(&cluster, "one").len() as u64, 6 - waiting);
    // Those that are silent already are lost no more.
    let (text, code) = said(&cluster, &["plan", "--what-if", "lose rack=r3"]);
    assert!(code == Some(2) && text.contains("lost already"), "{code:?} {text}");
}

#[test]
fn drains_jobs_and_wrong_hypotheses_are_tried_at_any_master() {
    let masters = Masters::three();
    let cluster = &masters.cluster;
    let web = file(cluster, "web", 2, "");
    cluster.text(&["apply", &web]);
    let before = running(cluster, "web");
    // An older file of the same job, and one that is new: tried together with what else is supposed.
    let more = file(cluster, "web", 3, "");
    let (answer, code) = would(cluster, &[&more]);
    assert_eq!((code, &answer["action"]), (Some(1), &"update".into()), "{answer}");
    let (answer, _) = would(cluster, &[&more, "--what-if", "add 1 agent like a1"]);
    assert_eq!(of_fate(&answer, "starts"), BTreeSet::from(["web.2".to_owned()]), "{answer}");
    let (answer, code) = would(cluster, &["--what-if", "stop web"]);
    assert_eq!((of_fate(&answer, "ends").len(), code), (2, Some(1)), "{answer}");
    let (answer, _) = would(cluster, &["--what-if", "scale web to 1", "--what-if", "drain name=a1"]);
    assert_eq!(answer["counts"]["ends"], 1, "{answer}");
    assert_eq!(running(cluster, "web"), before, "asking changes nothing");
    for (wrong, why) in [
        ("explode", "what can be supposed"),
        ("lose rack=r77", "no agent has rack=r77"),
        ("add 99999999 agents like a1", "at most 10000"),
        ("scale nothing to 2", "there is no job nothing"),
    ] {
        let (text, code) = said(cluster, &["plan", "--what-if", wrong]);
        assert!(code == Some(2) && text.contains(why), "{wrong}: {code:?} {text}");
    }
    let many: Vec<&str> = std::iter::once("plan").chain(std::iter::repeat_n(["--what-if", "stop web"], 33).flatten()).collect();
    let (text, code) = said(cluster, &many);
    assert!(code == Some(2) && text.contains("at most 32"), "{code:?} {text}");
    let (text, code) = said(cluster, &["plan"]);
    assert_eq!(code, Some(64), "{text}");
}
