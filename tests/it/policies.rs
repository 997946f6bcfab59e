//! Policies as components over the real path: brought by an operator, asked by the master that decides, and survived when they go wrong.

use crate::cluster::{Cluster, Ends, said, sample};
use crate::masters::Masters;
use serde_json::Value;
use std::collections::BTreeMap;

const RESOURCES: &str = "cpu=4,memory=4GiB,disk=1GiB,ports=20000-20099";

fn apply(cluster: &Cluster, name: &str, role: &str, count: u32, more: &str) -> (String, Option<i32>) {
    let file = cluster.folder.join(format!("{name}.toml"));
    let program = sample("sleep.wasm");
    let head = format!("name = \"{name}\"\nrole = \"{role}\"\nkind = \"service\"\ncount = {count}\n");
    let text = format!("{head}[task]\nwasm = {program:?}\nargs = [\"600000\"]\n[resources]\ncpu = 0.5\nmemory = \"8MiB\"\n{more}\n");
    std::fs::write(&file, text).unwrap();
    said(cluster, &["apply", "--detach", file.to_str().unwrap()])
}

/// Runs a service of so many tasks, and says on which agents they are, by name.
fn placed(cluster: &Cluster, name: &str, role: &str, count: u32, more: &str) -> BTreeMap<String, u32> {
    let (text, code) = apply(cluster, name, role, count, more);
    assert_eq!(code, Some(0), "{text}");
    let page = || cluster.json(&["ps", name, "--role", role]);
    let running = |page: &Value| page["tasks"].as_array().unwrap().iter().filter(|task| task["phase"] == "running").count();
    cluster.until("all of it runs", |_| running(&page()) == count as usize);
    let agents = cluster.json(&["agents"]);
    let called = |id: &Value| agents["agents"].as_array().unwrap().iter().find(|agent| agent["id"] == *id).unwrap()["name"].clone();
    let mut found = BTreeMap::new();
    for task in page()["tasks"].as_array().unwrap() {
        *found.entry(called(&task["agent"]).as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    found
}

fn set(cluster: &Cluster, args: &[&str]) -> (String, Option<i32>) {
    let all: Vec<&str> = ["policy", "set"].into_iter().chain(args.iter().copied()).collect();
    said(cluster, &all)
}

fn path(name: &str) -> String {
    sample(name).to_str().unwrap().to_owned()
}

/// The row of a policy of that role.
fn row(cluster: &Cluster, kind: &str, role: Option<&str>) -> Value {
    let page = cluster.json(&["policy", "list"]);
    let rows = page["policies"].as_array().unwrap().iter();
    rows.clone().find(|row| row["kind"] == kind && row["role"].as_str() == role).cloned().unwrap_or(Value::Null)
}

fn one_shard() -> Cluster {
    let mut cluster = Cluster::master(&["--shards", "1"]);
    cluster.add_agent_with("a1", RESOURCES, &["--attribute", "spot=true"]);
    cluster.add_agent("a2", RESOURCES);
    cluster.add_agent("a3", RESOURCES);
    cluster
}

#[test]
fn tasks_go_where_a_policy_says_also_after_a_restart() {
    let mut cluster = one_shard();
    let even = placed(&cluster, "before", "default", 6, "");
    assert!(even.values().all(|count| *count == 2), "{even:?}");
    cluster.text(&["stop", "before"]);
    let (text, code) = set(&cluster, &["score", &path("pack.wasm")]);
    assert!(code == Some(0) && text.contains("built-in order"), "{text}");
    cluster.until("the stopped one is over", |cluster| {
        cluster.json(&["agents"])["agents"].as_array().unwrap().iter().all(|a| a["attempts"] == 0)
    });
    // As many as fit on one machine go to one, and not to the one that may go away.
    let packed = placed(&cluster, "packed", "default", 6, "");
    assert!(packed.len() == 1 && !packed.contains_key("a1"), "{packed:?}");
    let more = placed(&cluster, "more", "default", 2, "");
    assert_eq!(more.keys().collect::<Vec<_>>(), packed.keys().collect::<Vec<_>>(), "the fullest that has room");
    assert!(row(&cluster, "score", None)["calls"].as_u64().unwrap() >= 2);

    cluster.kill_master();
    cluster.start_master();
    cluster.until("the agents are back", |cluster| cluster.reachable().len() == 3);
    cluster.until("it is loaded", |cluster| row(cluster, "score", None)["missing"].is_null());
    let again = placed(&cluster, "again", "default", 4, "");
    assert!(again.len() == 1 && !again.contains_key("a1"), "{again:?}");
    cluster.text(&["policy", "remove", "score"]);
    assert_eq!(row(&cluster, "score", None), Value::Null);
    let (text, code) = said(&cluster, &["policy", "remove", "score"]);
    assert!(code == Some(2) && text.contains("no such policy"), "{text}");
}

#[test]
fn a_policy_that_goes_wrong_costs_nothing_but_its_order() {
    let cluster = one_shard();
    let (text, code) = set(&cluster, &["score", &path("wayward.wasm")]);
    assert_eq!(code, Some(0), "{text}");
    for (role, why) in [
        ("loops", "out of fuel"),
        ("traps", "unreachable"),
        ("hungry", "unreachable"),
        ("nan", "not a number"),
        ("few", "scores for"),
        ("many", "scores for"),
    ] {
        let before = row(&cluster, "score", None)["failures"].as_u64().unwrap();
        let found = placed(&cluster, role, role, 3, "");
        assert!(found.values().all(|count| *count == 1), "{role}: {found:?}");
        let after = row(&cluster, "score", None);
        assert!(after["failures"].as_u64().unwrap() > before || after["aside"] == 1, "{role}: {after}");
        if after["aside"] == 0 {
            assert!(after["last_failure"].as_str().unwrap().contains(why), "{role}: {after}");
        }
        said(&cluster, &["stop", role, "--role", role]);
    }
    let (text, _) = said(&cluster, &["policy", "list"]);
    assert!(text.contains("score") && text.contains("built-in order"), "{text}");
}

#[test]
fn what_is_no_policy_is_refused_and_only_those_who_own_the_cluster_bring_one() {
    let cluster = one_shard();
    for (kind, file, why) in [
        ("score", "modest.wasm", "placement-score"),
        ("admission", "pack.wasm", "admission"),
        ("score", "nap.wasm", "may import nothing"),
        ("score", "noop.wasm", "core module"),
    ] {
        let (text, code) = set(&cluster, &[kind, &path(file)]);
        assert!(code == Some(2) && text.contains(why), "{file}: {code:?} {text}");
    }
    let junk = cluster.folder.join("junk.wasm");
    std::fs::write(&junk, b"\0asm and then nothing of the sort").unwrap();
    let (text, code) = set(&cluster, &["score", junk.to_str().unwrap()]);
    assert!(code == Some(2) && text.contains("not run here"), "{code:?} {text}");
    assert_eq!(cluster.json(&["policy", "list"])["policies"], Value::Array(vec![]));
    let (text, code) = set(&cluster, &["score", &path("pack.wasm"), "--closed"]);
    assert!(code == Some(2) && text.contains("built-in order"), "{code:?} {text}");
    let token = cluster.text(&["tokens", "create", "--level", "operator"]);
    let file = path("pack.wasm");
    let output = cluster.command(&["policy", "set", "score", &file]).env("SKEP_TOKEN", token.trim()).ends();
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_policy_refuses_jobs_at_any_master_and_fails_open_or_closed() {
    let mut masters = Masters::three();
    let (text, code) = set(&masters.cluster, &["admission", &path("modest.wasm"), "--role", "web"]);
    assert_eq!(code, Some(0), "{text}");
    let all = masters.cluster.url.clone();
    for url in all.split(',') {
        // As if there were only this one.
        url.clone_into(&mut masters.cluster.url);
        masters.cluster.until("this master has it", |cluster| {
            let row = row(cluster, "admission", Some("web"));
            row.is_object() && row["missing"].is_null()
        });
        let (text, code) = apply(&masters.cluster, "large", "web/shop", 129, "");
        assert!(code == Some(2) && text.contains("need 65 cores together"), "{code:?} {text}");
    }
    masters.cluster.url = all;
    let (text, code) = apply(&masters.cluster, "large", "other", 129, "");
    assert_eq!(code, Some(0), "{text}");
    let (text, code) = apply(&masters.cluster, "small", "web", 1, "");
    assert_eq!(code, Some(0), "{text}");
    let (text, code) = said(&masters.cluster, &["scale", "small", "1000", "--role", "web"]);
    assert!(code == Some(2) && text.contains("need 500 cores together"), "{code:?} {text}");
    // Whichever master decides by then.
    let gone = masters.leader();
    masters.kill(gone);
    let (text, code) = apply(&masters.cluster, "large", "web", 129, "");
    assert!(code == Some(2) && text.contains("need 65 cores together"), "{code:?} {text}");

    // Open where nothing else is said, closed where it is.
    let (text, code) = set(&masters.cluster, &["admission", &path("wayward.wasm"), "--role", "web"]);
    assert_eq!(code, Some(0), "{text}");
    let (text, code) = apply(&masters.cluster, "no", "web", 1, "");
    assert!(code == Some(2) && text.contains("this policy says no"), "{code:?} {text}");
    for name in ["loops", "traps"] {
        let (text, code) = apply(&masters.cluster, name, "web", 1, "");
        assert_eq!(code, Some(0), "{name}: {text}");
    }
    let (text, code) = set(&masters.cluster, &["admission", &path("wayward.wasm"), "--role", "web", "--closed"]);
    assert!(code == Some(0) && text.contains("jobs are refused"), "{text}");
    let (text, code) = apply(&masters.cluster, "loops", "web", 2, "");
    assert!(code != Some(0) && text.contains("does not answer"), "{code:?} {text}");
    let (text, code) = apply(&masters.cluster, "fine", "web", 1, "");
    assert_eq!(code, Some(0), "{text}");
}
