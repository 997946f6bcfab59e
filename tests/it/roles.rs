//! Roles over the real path: limits that are never passed, weights, guarantees, and what is said of them.

use crate::cluster::{Cluster, Ends, said, sample, skep};
use crate::masters::Masters;
use serde_json::Value;

fn submit(cluster: &Cluster, role: &str, count: u32, wasm: &str, args: &str) -> String {
    submit_of(cluster, role, 50, count, wasm, args)
}

fn submit_of(cluster: &Cluster, role: &str, priority: u8, count: u32, wasm: &str, args: &str) -> String {
    let file = cluster.folder.join(format!("{}.toml", role.replace('/', "-")));
    let program = sample(wasm);
    let text = format!(
        "role = \"{role}\"\npriority = {priority}\nkind = \"batch\"\ncount = {count}\n[task]\nwasm = {program:?}\nargs = [{args}]\n[resources]\ncpu = 0.1\nmemory = \"1MiB\"\n"
    );
    std::fs::write(&file, text).unwrap();
    cluster.text(&["run", "--detach", file.to_str().unwrap()]).trim().to_owned()
}

fn role<'a>(page: &'a Value, name: &str) -> &'a Value {
    page["roles"].as_array().unwrap().iter().find(|row| row["role"] == name).unwrap_or(&Value::Null)
}

fn holds(cluster: &Cluster, name: &str) -> u64 {
    role(&cluster.json(&["roles"]), name)["holds"]["cpu_milli"].as_u64().unwrap_or(0)
}

#[test]
fn a_role_has_a_limit_with_all_below_it() {
    let mut cluster = Cluster::master(&[]);
    cluster.add_agent("a1", "cpu=4,memory=4GiB,disk=1GiB,ports=20000-20099");
    cluster.text(&["roles", "set", "web", "--limit", "cpu=1,memory=1GiB", "--weight", "2"]);
    for (name, count) in [("web/shop", 20), ("web", 20), ("other", 20)] {
        submit(&cluster, name, count, "sleep.wasm", "\"600000\"");
    }
    cluster.until("all that may run do", |cluster| holds(cluster, "web") == 1_000 && holds(cluster, "other") == 2_000);
    let page = cluster.json(&["roles"]);
    assert_eq!(role(&page, "web")["limit"]["cpu_milli"], 1_000, "{page}");
    assert_eq!(role(&page, "web")["weight"], 2.0, "{page}");
    // What is not named stays; what is lower than what is held is refused, or waits.
    let (text, code) = said(&cluster, &["roles", "set", "web", "--limit", "cpu=0.5"]);
    assert!(code == Some(2) && text.contains("holds more cpu"), "{code:?} {text}");
    cluster.text(&["roles", "set", "web", "--limit", "cpu=2"]);
    cluster.until("more may run", |cluster| holds(cluster, "web") == 2_000);
    assert_eq!(role(&cluster.json(&["roles"]), "web")["weight"], 2.0);
    for (wrong, why) in [
        (vec!["--weight", "0"], "from 0.001 to 1000"),
        (vec!["--limit", "cpu=-1"], "negative"),
        (vec!["--guarantee", "cpu=99"], "more than the cluster has"),
    ] {
        let all: Vec<&str> = ["roles", "set", "odd"].into_iter().chain(wrong).collect();
        let (text, code) = said(&cluster, &all);
        assert!(code != Some(0) && text.contains(why), "{all:?}: {code:?} {text}");
    }
}

#[test]
fn a_role_that_may_preempt_gets_the_place_of_less_urgent_tasks() {
    let mut cluster = Cluster::master(&[]);
    cluster.add_agent("a1", "cpu=1,memory=1GiB,disk=1GiB,ports=20000-20099");
    cluster.text(&["roles", "set", "web", "--preempt", "all", "--weight", "2"]);
    assert_eq!(role(&cluster.json(&["roles"]), "web")["preempt"], "all");
    let batch = submit_of(&cluster, "batch", 10, 10, "sleep.wasm", "\"600000\"");
    cluster.until("the agent is full", |cluster| holds(cluster, "batch") == 1_000);
    // As urgent as the others, it waits; more urgent, it does not.
    submit_of(&cluster, "web", 10, 2, "sleep.wasm", "\"600000\"");
    let urgent = submit_of(&cluster, "web/shop", 60, 3, "noop.wasm", "");
    cluster.until("the urgent ones have run", |cluster| cluster.json(&["status", &urgent])["tasks"]["finished"] == 3);
    let before = cluster.json(&["status", &batch]);
    assert!((1..=3).contains(&before["restarts"].as_u64().unwrap()), "no more leave than must: {before}");
    cluster.until("they run again", |cluster| holds(cluster, "batch") + holds(cluster, "web") == 1_000);
    let (text, code) = said(&cluster, &["roles", "set", "web", "--preempt", "some"]);
    assert!(code != Some(0) && text.contains("possible values"), "{code:?} {text}");
}

#[test]
fn a_limit_holds_though_masters_are_killed() {
    let mut masters = Masters::three();
    masters.cluster.text(&["roles", "set", "web", "--limit", "cpu=1"]);
    for part in ["web/a", "web/b", "web/c", "web/d"] {
        submit(&masters.cluster, part, 400, "sleep.wasm", "\"300\"");
    }
    for _ in 0..2 {
        let gone = masters.leader();
        masters.kill(gone);
        let held: Vec<u64> = (0..20).map(|_| holds(&masters.cluster, "web")).collect();
        assert!(held.iter().all(|held| *held <= 1_000), "{held:?}");
        masters.cluster.until("others lead, and place all that may be", |cluster| holds(cluster, "web") == 1_000);
        masters.start(gone);
        masters.until_led(3);
    }
    masters.cluster.text(&["roles", "set", "web", "--limit", "none"]);
    masters.cluster.until("all end", |cluster| holds(cluster, "web") == 0);
}

#[test]
fn what_is_kept_of_an_agent_for_a_role_nobody_else_gets() {
    let mut cluster = Cluster::master(&[]);
    cluster.add_agent_with("a1", "cpu=2,memory=1GiB", &["--reserve", "web:cpu=0.5,memory=64MiB"]);
    cluster.text(&["agents", "reserve", "a1", "web", "cpu=0.5", "--label", "for=shop"]);
    cluster.text(&["agents", "reserve", "a1", "web/shop", "cpu=0.2", "--within", "web"]);
    submit(&cluster, "batch", 20, "sleep.wasm", "\"600000\"");
    cluster.until("the rest of the agent is full", |cluster| holds(cluster, "batch") == 1_000);
    submit(&cluster, "web/shop", 10, "sleep.wasm", "\"600000\"");
    cluster.until("what was kept is used", |cluster| holds(cluster, "web") == 1_000);
    let text = cluster.text(&["agents", "reservations"]);
    assert!(text.contains("the agent's start") && text.contains("for=shop") && text.contains("web › web/shop"), "{text}");
    for (wrong, why) in [
        (["agents", "reserve", "a1", "web", "cpu=0.1"], "kept for nobody is too little: cpu"),
        (["agents", "unreserve", "a1", "web", "cpu=0.5"], "not reserved like that"),
        (["agents", "reserve", "a1", "a//b", "cpu=0.1"], "role"),
        (["agents", "reserve", "nobody", "web", "cpu=0.1"], "no agent called"),
    ] {
        let (text, code) = said(&cluster, &wrong);
        assert!(code != Some(0) && text.contains(why), "{wrong:?}: {code:?} {text}");
    }
    // Given up, it is anybody's once it is free; what the agent is started with stays.
    cluster.text(&["agents", "unreserve", "a1", "web", "cpu=0.5", "--label", "for=shop"]);
    cluster.stop_agent("a1");
    cluster.start_agent("a1");
    cluster.until("it is there again", |cluster| cluster.reachable().contains(&"a1".to_owned()));
    let kept = cluster.json(&["agents", "reservations"]);
    let roles: Vec<&Value> = kept["agents"][0]["reservations"].as_array().unwrap().iter().map(|one| &one["role"]).collect();
    assert_eq!(roles, ["web", "web/shop"], "{kept}");
    cluster.kill_agent("a1");
    let data = cluster.folder.join("a1");
    let flags = ["--to", &cluster.quic, "--resources", "cpu=2,memory=1GiB", "--reserve", "web:cpu=99"];
    let output = skep().args(["agent", "--data"]).arg(data).args(flags).ends();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("more cpu would be kept than the agent has"), "{text}");
}
