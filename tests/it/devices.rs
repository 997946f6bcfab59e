//! Devices are single things: part of one is on one, whole ones are nobody else's; a task learns which it has, and all know it after a restart.

use crate::cluster::{Cluster, said, sample};
use crate::processes::{image, write};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Prints what of the devices a task is told, and goes on.
const TELL: &str = "#!/bin/sh\necho \"$SKEP_DEVICE_GPU $CUDA_VISIBLE_DEVICES $NVIDIA_VISIBLE_DEVICES\"\nexec sleep 1000000\n";

fn apply(cluster: &Cluster, name: &str, count: u64, task: &Value, gpu: f64) {
    let resources = json!({ "cpu": 0.1, "memory": "32MiB", "devices": { "gpu": gpu } });
    let job = json!({ "name": name, "kind": "batch", "count": count, "task": task, "resources": resources });
    let file = write(cluster, &format!("{name}.json"), job.to_string());
    cluster.text(&["apply", "--detach", file.to_str().unwrap()]);
}

/// What of each GPU is free.
fn free(cluster: &Cluster, agent: &str) -> Value {
    let agents = cluster.json(&["agents"]);
    let agent = agents["agents"].as_array().unwrap().iter().find(|row| row["name"] == agent).cloned().unwrap();
    agent["devices_free_milli"]["gpu"].clone()
}

#[test]
fn parts_go_to_devices_of_their_own_and_what_fits_on_none_waits_with_a_reason() {
    let mut cluster = Cluster::of_one("cpu=4,memory=1GiB,gpu=2");
    let tell = json!({ "native": write(&cluster, "tell", TELL) });
    apply(&cluster, "parts", 3, &tell, 0.6);
    cluster.until("two run", |cluster| cluster.tasks("parts", "running") == 2);
    assert_eq!(free(&cluster, "a1"), json!([400, 400]));
    assert_eq!(cluster.tasks("parts", "waiting"), 1, "there are 0.8 of a GPU in all, and no single one has 0.6");
    let why = cluster.text(&["explain", "parts"]);
    assert!(why.contains("no single gpu with so much free"), "{why}");
    assert!(cluster.text(&["agents"]).contains("gpu 0.4, 0.4"), "{}", cluster.text(&["agents"]));
    cluster.until("both have said what they have", |cluster| cluster.text(&["logs", "parts"]).lines().count() >= 2);
    let lines = cluster.text(&["logs", "parts"]);
    let told: BTreeSet<&str> = lines.lines().filter_map(|line| line.rsplit(": ").next()).collect();
    assert_eq!(told, BTreeSet::from(["0 0 0", "1 1 1"]), "{lines}");

    // Whoever leads next hears of the agent which of them has which.
    cluster.kill_master();
    cluster.start_master();
    cluster.until("the agent is back", |cluster| cluster.reachable().contains(&"a1".to_owned()));
    cluster.until("all is known again", |cluster| free(cluster, "a1") == json!([400, 400]));
    cluster.kill_agent("a1");
    cluster.start_agent("a1");
    apply(&cluster, "small", 2, &tell, 0.4);
    cluster.until("what fits beside them runs", |cluster| cluster.tasks("small", "running") == 2);
    assert_eq!(free(&cluster, "a1"), json!([0, 0]));
    assert_eq!(cluster.tasks("parts", "running"), 2, "in their first attempts");
    cluster.text(&["stop", "small"]);
    cluster.text(&["stop", "parts"]);
    cluster.until("all is given back", |cluster| free(cluster, "a1") == json!([1_000, 1_000]));
}

#[test]
fn whole_devices_are_nobody_elses_and_all_kinds_of_tasks_learn_which_they_have() {
    let cluster = Cluster::of_one("cpu=4,memory=1GiB,gpu=3,fpga-a=0.5");
    let tell = json!({ "native": write(&cluster, "tell", TELL) });
    apply(&cluster, "part", 1, &tell, 0.1);
    cluster.until("a part is taken", |cluster| cluster.tasks("part", "running") == 1);
    apply(&cluster, "two", 1, &tell, 2.0);
    cluster.until("two run", |cluster| cluster.tasks("two", "running") == 1);
    assert_eq!(free(&cluster, "a1"), json!([900, 0, 0]));
    cluster.until("it says which", |cluster| cluster.text(&["logs", "two"]).contains("1,2 1,2 1,2"));

    let resources = "[resources]\ncpu = 0.1\nmemory = \"32MiB\"\ndevices = { gpu = 0.5, fpga-a = 0.25 }\n";
    let run = |name: &str, task: &str| {
        let file = write(&cluster, &format!("{name}.toml"), format!("name = {name:?}\n[task]\n{task}\n{resources}"));
        said(&cluster, &["run", file.to_str().unwrap()]).0
    };
    let text = run("wasm", &format!("wasm = {:?}", sample("hello.wasm")));
    for line in ["SKEP_DEVICE_GPU=0", "CUDA_VISIBLE_DEVICES=0", "NVIDIA_VISIBLE_DEVICES=0", "SKEP_DEVICE_FPGA_A=0"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let own = run(
        "own",
        &format!("native = {:?}\nargs = [\"x\"]\nenv = {{ CUDA_VISIBLE_DEVICES = \"none\" }}", write(&cluster, "env", "#!/bin/sh\nenv\n")),
    );
    assert!(own.contains("CUDA_VISIBLE_DEVICES=none") && own.contains("SKEP_DEVICE_GPU=0"), "{own}");
    if let Some(image) = image(&cluster) {
        let text = run("image", &format!("image = {image:?}\nargs = [\"env\"]"));
        assert!(text.contains("SKEP_DEVICE_GPU=0") && text.contains("SKEP_DEVICE_FPGA_A=0"), "{text}");
    }
    let file = write(&cluster, "half.toml", "[task]\nnative = \"env\"\n[resources]\ndevices = { gpu = 1.5 }\n");
    let (refused, code) = said(&cluster, &["run", file.to_str().unwrap()]);
    assert!(refused.contains("resources.devices") && refused.contains("whole ones") && code == Some(2), "{refused}");
}
