//! Windows of maintenance on a real cluster: by the command line, and in Mesos' words.

use crate::cluster::{Cluster, sample};
use serde_json::json;

fn mode(cluster: &Cluster, name: &str) -> String {
    let agents = cluster.json(&["agents"]);
    let row = agents["agents"].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap().clone();
    row["mode"].as_str().unwrap().to_owned()
}

#[test]
fn an_agent_is_emptied_in_its_window_and_given_tasks_again_when_that_is_cancelled() {
    let mut cluster = Cluster::of_one("cpu=2,memory=1GiB");
    let job = json!({ "name": "on", "kind": "service", "task": { "wasm": sample("sleep.wasm"), "args": ["3600000"] },
        "resources": { "cpu": 1, "memory": "16MiB" } });
    let file = cluster.folder.join("on.json");
    std::fs::write(&file, job.to_string()).unwrap();
    cluster.text(&["apply", "--detach", file.to_str().unwrap()]);
    cluster.until("it runs", |cluster| cluster.tasks("on", "running") == 1);
    cluster.add_agent("a2", "cpu=2,memory=1GiB");
    let later = cluster.json(&["maintenance", "schedule", "a2", "--in", "1h", "--for", "30m", "--note", "a later one"]);
    let now = cluster.json(&["maintenance", "schedule", "a1", "--grace", "1s"]);
    cluster.until("its task is on the other", |cluster| {
        let tasks = cluster.all_tasks("on");
        mode(cluster, "a1") == "maintenance" && tasks[0]["phase"] == "running" && tasks[0]["attempt"] == 2
    });
    let listed = cluster.text(&["maintenance", "list"]);
    assert!(listed.contains("running") && listed.contains("scheduled") && listed.contains("a later one"), "{listed}");
    cluster.text(&["maintenance", "cancel", &now["number"].to_string()]);
    cluster.until("it is given tasks again", |cluster| mode(cluster, "a1") == "active");
    cluster.text(&["maintenance", "cancel", &later["number"].to_string()]);
    assert_eq!(cluster.json(&["maintenance"])["windows"], json!([]));
    let refused = crate::cluster::said(&cluster, &["maintenance", "cancel", "99"]);
    assert!(refused.1 != Some(0) && refused.0.contains("window"), "{}", refused.0);
}
