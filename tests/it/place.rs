//! `[place]` over the real path: agents in three racks, rules in job files, and what is said where they cannot hold.

use crate::cluster::{Cluster, said, sample};
use std::collections::BTreeMap;

const RESOURCES: &str = "cpu=4,memory=4GiB,disk=1GiB,ports=20000-20099";

fn racks() -> Cluster {
    let mut cluster = Cluster::master(&[]);
    cluster.add_agent_with("a1", RESOURCES, &["--domain", "eu/eu-1/r1", "--attribute", "disk=ssd-1"]);
    cluster.add_agent_with("a2", RESOURCES, &["--domain", "eu/eu-1/r2", "--attribute", "disk=hdd"]);
    cluster.add_agent_with("a3", RESOURCES, &["--domain", "eu/eu-2/r3"]);
    cluster
}

fn apply(cluster: &Cluster, name: &str, count: u32, place: &str) -> (String, Option<i32>) {
    let file = cluster.folder.join(format!("{name}.toml"));
    let program = sample("sleep.wasm");
    let head = format!("name = \"{name}\"\nkind = \"service\"\ncount = {count}\n");
    let text = format!("{head}[task]\nwasm = {program:?}\nargs = [\"600000\"]\n[resources]\ncpu = 0.1\n[place]\n{place}\n");
    std::fs::write(&file, text).unwrap();
    said(cluster, &["apply", "--detach", file.to_str().unwrap()])
}

/// How many tasks of a job run on which agent.
fn running(cluster: &Cluster, job: &str) -> BTreeMap<String, usize> {
    let agents = cluster.json(&["agents"]);
    let names: BTreeMap<&str, &str> =
        agents["agents"].as_array().unwrap().iter().map(|agent| (agent["id"].as_str().unwrap(), agent["name"].as_str().unwrap())).collect();
    let mut found = BTreeMap::new();
    for task in cluster.all_tasks(job).iter().filter(|task| task["phase"] == "running") {
        *found.entry(names[task["agent"].as_str().unwrap()].to_owned()).or_insert(0) += 1;
    }
    found
}

fn on(expected: &[(&str, usize)]) -> BTreeMap<String, usize> {
    expected.iter().map(|(agent, n)| ((*agent).to_owned(), *n)).collect()
}

#[test]
fn tasks_run_where_their_rules_say_and_what_waits_says_why() {
    let mut cluster = racks();
    for (name, count, place, expected) in [
        ("is", 3, r#"constraints = [["rack", "IS", "r2"]]"#, on(&[("a2", 3)])),
        ("like", 2, r#"constraints = [["disk", "LIKE", "ssd.*"]]"#, on(&[("a1", 2)])),
        ("unlike", 2, r#"constraints = [["disk", "UNLIKE", "(ssd|hdd).*"]]"#, on(&[("a3", 2)])),
        ("spread", 6, r#"spread = ["rack"]"#, on(&[("a1", 2), ("a2", 2), ("a3", 2)])),
        ("group", 6, r#"constraints = [["@rack", "GROUP_BY", "3"]]"#, on(&[("a1", 2), ("a2", 2), ("a3", 2)])),
        ("most", 6, r#"constraints = [["rack", "MAX_PER", "2"]]"#, on(&[("a1", 2), ("a2", 2), ("a3", 2)])),
        ("unique", 3, r#"constraints = [["hostname", "UNIQUE"]]"#, on(&[("a1", 1), ("a2", 1), ("a3", 1)])),
        ("cluster", 4, r#"constraints = [["@zone", "CLUSTER", "eu-2"]]"#, on(&[("a3", 4)])),
    ] {
        let (text, code) = apply(&cluster, name, count, place);
        assert_eq!(code, Some(0), "{text}");
        cluster.until("all of it runs", |cluster| cluster.tasks(name, "running") == u64::from(count));
        assert_eq!(running(&cluster, name), expected, "{place}");
    }
    let shown = cluster.json(&["status", "most"]);
    let found = shown.to_string();
    assert!(found.contains(r#""place":{"constraints":[["rack","MAX_PER","2"]],"spread":[]}"#), "{found}");

    // One more than there are agents: it waits, says why, and goes to the next that comes, whichever master decides by then.
    cluster.text(&["scale", "unique", "4"]);
    cluster.until("one waits", |cluster| cluster.tasks("unique", "waiting") == 1);
    let why = cluster.text(&["explain", "unique"]);
    assert!(why.contains("3 of 3 agents: place: no more tasks of the job may be at this hostname"), "{why}");
    cluster.kill_master();
    cluster.start_master();
    cluster.until("the agents are back", |cluster| cluster.reachable().len() == 3);
    cluster.add_agent_with("a4", RESOURCES, &["--domain", "eu/eu-2/r3"]);
    cluster.until("all of it runs", |cluster| cluster.tasks("unique", "running") == 4);
    assert_eq!(running(&cluster, "unique"), on(&[("a1", 1), ("a2", 1), ("a3", 1), ("a4", 1)]));

    let (text, code) = apply(&cluster, "nowhere", 1, r#"constraints = [["rack", "IS", "r9"]]"#);
    assert_eq!(code, Some(0), "{text}");
    cluster.until("it waits", |cluster| cluster.tasks("nowhere", "waiting") == 1);
    let why = cluster.text(&["explain", "nowhere"]);
    assert!(why.contains("4 of 4 agents: place: rack is not r9"), "{why}");
    assert!(why.contains(r#"without ["rack", "IS", "r9"] it would fit on agent a"#), "{why}");

    let (text, code) = apply(&cluster, "wrong", 1, "constraints = [[\"rack\", \"BESIDE\"], [\"rack\", \"LIKE\", \"(\"]]");
    assert!(code != Some(0) && text.contains("'BESIDE' is no operator") && text.contains("constraints"), "{text}");
}

#[test]
fn jobs_are_kept_near_each_other_and_apart() {
    let cluster = racks();
    assert_eq!(apply(&cluster, "cache", 1, r#"constraints = [["hostname", "IS", "a2"]]"#).1, Some(0));
    cluster.until("the cache runs", |cluster| cluster.tasks("cache", "running") == 1);
    assert_eq!(apply(&cluster, "web", 2, r#"constraints = [["hostname", "NEAR", "cache"]]"#).1, Some(0));
    assert_eq!(apply(&cluster, "batch", 4, r#"constraints = [["hostname", "APART", "cache"]]"#).1, Some(0));
    assert_eq!(apply(&cluster, "orphan", 1, r#"constraints = [["hostname", "NEAR", "nobody"]]"#).1, Some(0));
    cluster.until("all that may run do", |cluster| cluster.tasks("web", "running") + cluster.tasks("batch", "running") == 6);
    assert_eq!(running(&cluster, "web"), on(&[("a2", 2)]));
    assert_eq!(running(&cluster, "batch").get("a2"), None);
    let why = cluster.text(&["explain", "orphan"]);
    assert!(why.contains("3 of 3 agents: place: no task of nobody is there"), "{why}");
    assert_eq!(
        apply(&cluster, "nobody", 1, r#"constraints = [["hostname", "APART", "cache"], ["hostname", "APART", "batch"]]"#).1,
        Some(0)
    );
    cluster.until("its rules let it run, or nobody", |cluster| {
        let free = 3 - 1 - running(cluster, "batch").len() as u64;
        cluster.tasks("nobody", "running") == free.min(1) && cluster.tasks("orphan", "running") == free.min(1)
    });
    cluster.text(&["stop", "cache"]);
    cluster.text(&["stop", "batch"]);
    cluster.until("the neighbour came", |cluster| cluster.tasks("orphan", "running") == 1);
    assert_eq!(running(&cluster, "orphan"), running(&cluster, "nobody"));
    let (text, code) = apply(
        &cluster,
        "self",
        1,
        r#"constraints = [["hostname", "APART", "self"], ["rack", "NEAR", "web"], ["hostname", "NEAR", "A b"]]"#,
    );
    assert!(code == Some(2) && text.contains("'A b' is no name of a job"), "{text}");
    let (text, code) = apply(&cluster, "self", 1, r#"constraints = [["hostname", "APART", "self"], ["rack", "NEAR", "web"]]"#);
    assert!(code == Some(2) && text.contains("UNIQUE") && text.contains("NEAR of 'rack': it holds of agents"), "{text}");
}
