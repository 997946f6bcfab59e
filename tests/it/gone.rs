//! `skep agents gone`: an agent that an operator lets go ends, its tasks with it, and is never let in again.

use crate::cluster::{Cluster, sample};

const RESOURCES: &str = "cpu=4,memory=4GiB,disk=1GiB,ports=20000-20099";

/// The agent's process, once it has ended: its exit code and its last words.
fn end_of(cluster: &mut Cluster, name: &str) -> (Option<i32>, String) {
    let status = cluster.agent_ended(name);
    let log = std::fs::read_to_string(cluster.folder.join(format!("{name}.log"))).unwrap();
    (status.code(), log.lines().last().unwrap_or_default().to_owned())
}

fn id_of(cluster: &Cluster, name: &str) -> String {
    let agents = cluster.json(&["agents"]);
    let agent = agents["agents"].as_array().unwrap().iter().find(|agent| agent["name"] == name).unwrap();
    agent["id"].as_str().unwrap().to_owned()
}

#[test]
fn an_agent_that_is_gone_ends_with_its_tasks_and_is_refused_for_good() {
    let mut cluster = Cluster::of_one(RESOURCES);
    let file = cluster.folder.join("service.toml");
    let text = format!("name = \"nap\"\nkind = \"service\"\n[task]\nwasm = {:?}\nargs = [\"600000\"]\n", sample("sleep.wasm"));
    std::fs::write(&file, text).unwrap();
    cluster.text(&["apply", file.to_str().unwrap()]);
    cluster.add_agent("a2", RESOURCES);
    let executors = cluster.executors();
    let id = id_of(&cluster, "a1");
    cluster.text(&["agents", "gone", &id]);

    let (code, words) = end_of(&mut cluster, "a1");
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("has let agent") && words.contains("join with a new token"), "{words}");
    cluster.until("its tasks have ended", |cluster| cluster.executors().iter().all(|id| !executors.contains(id)));
    cluster.until("the service runs elsewhere", |cluster| cluster.tasks("nap", "running") == 1);
    let placed = cluster.all_tasks("nap")[0]["agent"].as_str().unwrap().to_owned();
    assert_eq!(placed, id_of(&cluster, "a2"));

    // Neither the same master nor one that was started anew lets it in, and it does not go on trying.
    for restart in [false, true] {
        if restart {
            cluster.kill_master();
            cluster.start_master();
        }
        cluster.start_agent("a1");
        let (code, words) = end_of(&mut cluster, "a1");
        assert!(code == Some(1) && words.contains("has let agent"), "{restart}: {code:?} {words}");
    }
}

#[test]
fn an_agent_is_drained_before_maintenance_and_given_tasks_again_after_it() {
    let mut cluster = Cluster::of_one(RESOURCES);
    let file = cluster.folder.join("service.toml");
    let text = format!("name = \"nap\"\nkind = \"service\"\ncount = 3\n[task]\nwasm = {:?}\nargs = [\"600000\"]\n", sample("sleep.wasm"));
    std::fs::write(&file, text).unwrap();
    cluster.text(&["apply", file.to_str().unwrap()]);
    let sleep = sample("sleep.wasm");
    cluster.text(&["run", "--detach", "--name", "once", sleep.to_str().unwrap(), "--", "600000"]);
    cluster.until("all run", |cluster| cluster.tasks("nap", "running") == 3 && cluster.tasks("once", "running") == 1);
    cluster.add_agent("a2", RESOURCES);
    let on = |cluster: &Cluster, job: &str, agent: &str| {
        let id = id_of(cluster, agent);
        cluster.all_tasks(job).iter().filter(|task| task["agent"] == id.as_str() && task["phase"] == "running").count()
    };
    let listed = |cluster: &Cluster| cluster.text(&["agents"]);

    cluster.text(&["agents", "drain", "a1", "--wait", "1h"]);
    cluster.until("the service runs elsewhere", |cluster| on(cluster, "nap", "a2") == 3);
    assert_eq!(on(&cluster, "once", "a1"), 1, "a batch job's task has an hour");
    assert!(listed(&cluster).contains("reachable, draining"), "{}", listed(&cluster));
    cluster.text(&["agents", "drain", "a1", "--wait", "0s"]);
    cluster.until("that is elsewhere too", |cluster| on(cluster, "once", "a2") == 1);
    cluster.until("it is empty", |cluster| listed(cluster).contains("reachable, drained"));

    // It stays so through a restart of its master, and of itself.
    cluster.kill_master();
    cluster.start_master();
    cluster.kill_agent("a1");
    cluster.start_agent("a1");
    cluster.until("both are back", |cluster| cluster.reachable().len() == 2);
    cluster.text(&["run", "--cpu", "0.1", "--count", "20", sample("noop.wasm").to_str().unwrap(), "--quiet"]);
    assert!(listed(&cluster).contains("reachable, drained"), "{}", listed(&cluster));
    cluster.text(&["scale", "nap", "60"]); // More than the other has room for.
    cluster.text(&["agents", "resume", "a1"]);
    cluster.until("it is given tasks again", |cluster| on(cluster, "nap", "a1") > 0);
}
