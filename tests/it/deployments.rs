//! Services from one version to the next, through the binary: rolled forward, back by themselves, held, promoted, cancelled, forced; and across the death of the
//! master.

use crate::cluster::{Cluster, said, sample};
use serde_json::Value;
use std::path::PathBuf;

const RESOURCES: &str = "cpu=8,memory=8GiB,disk=1GiB,ports=20000-20099";

/// What a version of the service runs.
#[derive(Clone, Copy)]
enum Runs {
    /// Sleeps, and is told this.
    Well(&'static str),
    /// Ends with code 3 as soon as it begins.
    Badly,
}

/// The job file of a service of wasm tasks, with these lines in it beside the usual.
fn file(cluster: &Cluster, name: &str, runs: Runs, count: u32, lines: &str) -> PathBuf {
    let path = cluster.folder.join(format!("{name}.toml"));
    let (wasm, args) = match runs {
        Runs::Well(word) => (sample("sleep.wasm"), format!("[\"600000\"]\nenv = {{ WORD = {word:?} }}")),
        Runs::Badly => (sample("hello.wasm"), "[\"world\", \"3\"]".to_owned()),
    };
    let head = format!("name = {name:?}\nkind = \"service\"\ncount = {count}\n[task]\nwasm = {wasm:?}\nargs = {args}\n");
    let rest = "[resources]\ncpu = 0.01\nmemory = \"2MiB\"\n[restart]\nbackoff = { first = \"50ms\", factor = 1, max = \"1s\" }\n";
    std::fs::write(&path, format!("{head}{rest}{lines}")).unwrap();
    path
}

fn apply(cluster: &Cluster, path: &std::path::Path, more: &[&str]) -> (String, Option<i32>) {
    said(cluster, &[&["apply", path.to_str().unwrap()], more].concat())
}

/// The version and the attempt of each of the first `count` tasks, all of which run.
fn versions(cluster: &Cluster, job: &str, count: usize) -> Vec<(u64, u64)> {
    let tasks = cluster.all_tasks(job);
    let number = |task: &Value, field: &str| task[field].as_u64().unwrap();
    let all = tasks.iter().take(count).map(|task| {
        assert_eq!(task["phase"], "running", "{task}");
        (number(task, "version"), number(task, "attempt"))
    });
    all.collect()
}

fn deployment(cluster: &Cluster, job: &str) -> String {
    cluster.text(&["status", job]).lines().find(|line| line.starts_with("update")).unwrap_or_default().to_owned()
}

#[test]
fn a_service_goes_forward_and_back_and_a_bad_version_returns_by_itself() {
    let cluster = Cluster::of_one(RESOURCES);
    let update = "[update]\nparallel = 2\nsettle = \"100ms\"\n";
    let first = file(&cluster, "web", Runs::Well("1"), 4, update);
    let (text, code) = apply(&cluster, &first, &[]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(versions(&cluster, "web", 4), [(1, 1); 4]);
    let second = file(&cluster, "web", Runs::Well("2"), 4, update);
    let (text, code) = said(&cluster, &["plan", second.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(r#"tasks.0.env.WORD: "1" → "2""#) && text.contains("all 4 tasks are replaced"), "{text}");
    assert!(text.contains("4 on a1"), "{text}");
    let (text, code) = apply(&cluster, &second, &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("version 1 to 2: ") && text.contains("version 1 to 2: done"), "{text}");
    assert_eq!(versions(&cluster, "web", 4), [(2, 2); 4]);

    // What needs no new tasks gets none.
    let more = file(&cluster, "web", Runs::Well("2"), 5, "[update]\nparallel = 1\nsettle = \"100ms\"\n");
    assert_eq!(apply(&cluster, &more, &[]).1, Some(0));
    assert_eq!(versions(&cluster, "web", 5), [(2, 2), (2, 2), (2, 2), (2, 2), (2, 1)]);

    // A bad version: one task is tried, the others are left alone.
    let bad = file(&cluster, "web", Runs::Badly, 5, "[update]\nparallel = 1\nsettle = \"100ms\"\n");
    let (text, code) = apply(&cluster, &bad, &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("ended by themselves") && text.contains("back from version 3 to 2"), "{text}");
    let after = versions(&cluster, "web", 5);
    assert!(after.iter().all(|(version, _)| *version == 2), "{after:?}");
    assert_eq!(after.iter().filter(|(_, attempt)| *attempt > 2).count(), 1, "{after:?}");
    let line = deployment(&cluster, "web");
    assert!(line.contains("back from version 3 to 2") && line.contains("done"), "{line}");

    // Back to the first, forward by a restart; all are kept.
    let (text, code) = said(&cluster, &["rollback", "web", "1"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(versions(&cluster, "web", 5).iter().all(|(version, _)| *version == 1));
    let (text, code) = said(&cluster, &["restart", "web"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(versions(&cluster, "web", 5).iter().all(|(version, _)| *version == 4));
    let kept = cluster.json(&["rollback", "web", "--list"]);
    let numbers: Vec<u64> = kept["versions"].as_array().unwrap().iter().map(|of| of["version"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    let (text, code) = said(&cluster, &["rollback", "web", "9"]);
    assert!(code == Some(2) && text.contains("version 9 is not kept"), "{text}");
}

#[test]
fn a_canary_waits_and_a_deployment_is_held_cancelled_and_forced() {
    let cluster = Cluster::of_one(RESOURCES);
    let update = "[update]\ncanary = 1\nsettle = \"100ms\"\n";
    assert_eq!(apply(&cluster, &file(&cluster, "web", Runs::Well("1"), 3, update), &[]).1, Some(0));
    let second = file(&cluster, "web", Runs::Well("2"), 3, update);
    let (text, code) = apply(&cluster, &second, &[]);
    assert!(code == Some(0) && text.contains("skep apply --promote web"), "{text}");
    let of = |cluster: &Cluster| versions(cluster, "web", 3).iter().map(|(version, _)| *version).collect::<Vec<_>>();
    assert_eq!(of(&cluster), [2, 1, 1]);
    assert!(cluster.text(&["explain", "web"]).contains("the first 1 are ready"));

    // Another is refused while it waits, and takes its place by force.
    let third = file(&cluster, "web", Runs::Well("3"), 3, update);
    let (text, code) = apply(&cluster, &third, &[]);
    assert!(code == Some(2) && text.contains("by deployment d") && text.contains("--force"), "{text}");
    let (text, code) = apply(&cluster, &third, &["--force"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(deployment(&cluster, "web").contains("version 1 to 3"), "{}", deployment(&cluster, "web"));
    let (text, code) = said(&cluster, &["apply", "--promote", "web"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(of(&cluster), [3, 3, 3]);
    let (text, code) = said(&cluster, &["apply", "--promote", "web"]);
    assert!(code == Some(2) && text.contains("is over"), "{text}");

    // Held, and then cancelled: the version before returns.
    let fourth = file(&cluster, "web", Runs::Well("4"), 3, update);
    assert_eq!(apply(&cluster, &fourth, &[]).1, Some(0));
    assert_eq!(said(&cluster, &["apply", "--pause", "web"]).1, Some(0));
    assert!(deployment(&cluster, "web").contains("paused"));
    let (text, code) = said(&cluster, &["apply", "--promote", "web"]);
    assert!(code == Some(2) && text.contains("does not wait to be promoted"), "{text}");
    let (text, code) = said(&cluster, &["apply", "--cancel", "web"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(of(&cluster), [3, 3, 3]);
    let (text, code) = said(&cluster, &["apply", "--cancel", "web"]);
    assert!(code == Some(2) && text.contains("is over"), "{text}");
}

#[test]
fn as_many_as_promised_do_their_work_at_any_time_and_across_the_death_of_the_master() {
    let mut cluster = Cluster::of_one(RESOURCES);
    let update = "[update]\nmin_healthy = 1.0\nmax_over = 0.5\nparallel = 1\nsettle = \"0ms\"\n";
    assert_eq!(apply(&cluster, &file(&cluster, "web", Runs::Well("1"), 6, update), &[]).1, Some(0));
    apply(&cluster, &file(&cluster, "web", Runs::Well("2"), 6, update), &["--detach"]);
    cluster.until("it has begun", |cluster| {
        assert!(cluster.tasks("web", "running") >= 6);
        cluster.all_tasks("web").iter().any(|task| task["version"] == 2 && task["phase"] == "running")
    });
    cluster.kill_master();
    cluster.start_master();
    let of = |cluster: &Cluster, version: u64| {
        let tasks = cluster.all_tasks("web");
        tasks.iter().filter(|task| task["version"] == version && task["phase"] == "running").count()
    };
    // Until its agent is back, a new master knows of nothing that runs.
    cluster.until("its agent is back", |cluster| cluster.tasks("web", "running") >= 6);
    cluster.until("all are replaced", |cluster| {
        let answer = cluster.json(&["status", "web"]);
        assert!(answer["tasks"]["running"].as_u64() >= Some(6), "{answer}");
        of(cluster, 2) == 6 && deployment(cluster, "web").contains("done")
    });
    assert_eq!(of(&cluster, 1), 0);
}

#[test]
fn a_service_begins_after_those_that_it_names_and_none_waits_for_itself() {
    let cluster = Cluster::of_one(RESOURCES);
    let web = file(&cluster, "web", Runs::Well("1"), 2, "[service]\nafter = [\"db\"]\n");
    let (text, code) = apply(&cluster, &web, &["--detach"]);
    assert_eq!(code, Some(0), "{text}");
    cluster.until("it says what it waits for", |cluster| cluster.text(&["explain", "web"]).contains("db, which is not there"));
    assert_eq!((cluster.tasks("web", "waiting"), cluster.tasks("web", "running")), (2, 0));
    let db = file(&cluster, "db", Runs::Well("1"), 1, "[service]\nafter = [\"web\"]\n");
    let (text, code) = apply(&cluster, &db, &[]);
    assert!(code == Some(2) && text.contains("db after web after db"), "{text}");
    let db = file(&cluster, "db", Runs::Well("1"), 1, "");
    let (text, code) = apply(&cluster, &db, &[]);
    assert_eq!(code, Some(0), "{text}");
    cluster.until("it begins", |cluster| cluster.tasks("web", "running") == 2);
    cluster.until("it has proved itself", |cluster| deployment(cluster, "web").contains("done"));
    // Once it has begun it waits no more.
    cluster.text(&["stop", "db"]);
    cluster.until("it has ended", |cluster| cluster.tasks("db", "killed") == 1);
    let (text, code) = apply(&cluster, &file(&cluster, "web", Runs::Well("2"), 2, "[service]\nafter = [\"db\"]\n"), &[]);
    assert_eq!(code, Some(0), "{text}");
}
