//! An agent whose attributes and resources are changed while it runs: its tasks go on, what asks for it is placed, and it stays so.

use crate::cluster::{Cluster, said, sample};
use serde_json::json;

fn agent(cluster: &Cluster) -> serde_json::Value {
    cluster.json(&["agents"])["agents"][0].clone()
}

#[test]
fn an_agent_is_changed_under_its_tasks_and_stays_so_when_it_starts_again() {
    let mut cluster = Cluster::master(&[]);
    cluster.add_agent_with("a1", "cpu=2,memory=1GiB", &["--attribute", "disk=hdd", "--attribute", "old=yes", "--domain", "eu//r1"]);
    let sleep = sample("sleep.wasm");
    let run = ["run", "--name", "stays", "--cpu", "1", "--memory", "16MiB", "--detach", sleep.to_str().unwrap(), "--", "3600000"];
    cluster.text(&run);
    cluster.until("it runs", |cluster| cluster.tasks("stays", "running") == 1);
    let before = cluster.all_tasks("stays");
    let (text, code) = said(&cluster, &["agents", "set", "a1", "--resources", "cpu=0.5"]);
    assert!(code != Some(0) && text.contains("promised more"), "{text}");
    let (text, code) = said(&cluster, &["agents", "set", "a1", "--resources", "cpu=much"]);
    assert!(code != Some(0) && text.contains("cpu"), "{text}");
    assert_eq!(agent(&cluster)["capacity"]["cpu_milli"], 2_000);
    let job = json!({ "name": "picky", "kind": "batch", "task": { "wasm": sample("noop.wasm") }, "resources": { "cpu": 2, "memory": "16MiB" },
        "place": { "constraints": [["disk", "IS", "ssd"], ["rack", "IS", "r2"], ["old", "UNLIKE", ".*"]] } });
    let file = cluster.folder.join("picky.json");
    std::fs::write(&file, job.to_string()).unwrap();
    cluster.text(&["apply", "--detach", file.to_str().unwrap()]);
    let why = cluster.text(&["explain", "picky"]);
    assert!(why.contains("may have none"), "{why}");
    let set = ["agents", "set", "a1", "--attribute", "disk=ssd", "--remove", "old", "--domain", "eu//r2", "--resources", "cpu=3"];
    cluster.text(&set);
    cluster.until("what asks for it is placed", |cluster| cluster.tasks("picky", "finished") == 1);
    let after = cluster.all_tasks("stays");
    assert_eq!((&after[0]["attempt"], &after[0]["since_ms"]), (&before[0]["attempt"], &before[0]["since_ms"]), "its task was let alone");
    cluster.stop_agent("a1");
    cluster.start_agent("a1");
    cluster.until("it is back", |cluster| cluster.reachable() == ["a1"]);
    let agent = agent(&cluster);
    assert_eq!((&agent["capacity"]["cpu_milli"], &agent["domain"]["rack"]), (&json!(3_000), &json!("r2")), "{agent}");
    assert_eq!((&agent["attributes"]["disk"], agent["attributes"].get("old")), (&json!("ssd"), None), "{agent}");
    let after = cluster.all_tasks("stays");
    assert_eq!((&after[0]["attempt"], &after[0]["phase"]), (&before[0]["attempt"], &json!("running")));
}
