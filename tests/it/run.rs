//! What people do with a cluster, through the binary: run, look, scale, stop; and every limit ends a task in its own way.

use crate::cluster::{Cluster, Ends, sample};
use std::path::Path;

const RESOURCES: &str = "cpu=8,memory=8GiB,disk=1GiB,ports=20000-20099";

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn output_and_exit_code_are_the_tasks_own() {
    let cluster = Cluster::of_one(RESOURCES);
    let hello = sample("hello.wasm");
    let output = cluster.run(&["run", path(&hello), "--", "world"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), "hello, world", "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0));
    let output = cluster.run(&["run", path(&hello), "--", "world", "3"]);
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn each_limit_ends_a_task_in_its_own_way() {
    let cluster = Cluster::of_one(RESOURCES);
    let (sieve, hog, spin, noop) = (sample("sieve.wasm"), sample("hog.wasm"), sample("spin.wasm"), sample("noop.wasm"));
    let cases: [(&str, &[&str], &str); 5] = [
        ("fuel", &["--fuel", "1M", path(&sieve), "--", "1000000"], "out-of-fuel"),
        ("memory", &["--memory", "16MiB", path(&hog)], "out-of-memory"),
        ("time", &["--time", "200ms", path(&spin)], "out-of-time"),
        ("ticks", &["--cpu-time", "200ms", path(&spin)], "out-of-cpu-time"),
        ("trap", &[path(&noop), "--", "0", "0", "1"], "trap"),
    ];
    for (name, args, kind) in cases {
        let args: Vec<&str> = ["run", "--name", name].iter().chain(args).copied().collect();
        let output = cluster.run(&args);
        assert_eq!(output.status.code(), Some(1), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let task = &cluster.all_tasks(name)[0];
        assert_eq!(task["exit"]["kind"], kind, "{name}: {task}");
        if kind != "trap" {
            assert!(task["exit"]["limit"].as_u64().is_some(), "{name}: {task}");
        }
    }
}

#[test]
fn a_thousand_tasks_end_and_each_is_accounted_for() {
    let cluster = Cluster::of_one(RESOURCES);
    let output = cluster.run(&[
        "run",
        "--quiet",
        "--name",
        "many",
        "--count",
        "1000",
        "--cpu",
        "0.01",
        "--memory",
        "1MiB",
        path(&sample("noop.wasm")),
    ]);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("1000 tasks finished, 0 failed"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tasks = cluster.all_tasks("many");
    assert_eq!(tasks.len(), 1000);
    assert!(tasks.iter().all(|task| task["attempt"] == 1 && task["phase"] == "finished"));
}

#[test]
fn a_component_learns_who_it_is_and_reads_its_config() {
    let cluster = Cluster::of_one(RESOURCES);
    let output = cluster.run(&["run", "--name", "greeter", "--config", "greeting=good morning", path(&sample("greet.wasm"))]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("good morning") && said.contains("greeter"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn top_shows_what_wasm_tasks_use_one_by_one() {
    let cluster = Cluster::of_one(RESOURCES);
    cluster.text(&["run", "--detach", "--name", "busy", sample("spin.wasm").to_str().unwrap()]);
    cluster.text(&["run", "--detach", "--name", "lazy", sample("sleep.wasm").to_str().unwrap(), "--", "600000"]);
    for job in ["busy", "lazy"] {
        cluster.until("it runs", |cluster| cluster.tasks(job, "running") == 1);
    }
    cluster.until("both are shown", |cluster| {
        let top = cluster.json(&["top", "--once"]);
        let row = |job: &str| top["tasks"].as_array().unwrap().iter().find(|row| row["job"] == job).cloned().unwrap_or_default();
        let (busy, lazy) = (row("busy"), row("lazy"));
        assert!(busy["processes"].is_null() && lazy["processes"].is_null());
        busy["cores"].as_f64() > Some(0.2) && lazy["cores"].as_f64() < Some(0.1) && lazy["memory_bytes"].as_u64() >= Some(64 << 10)
    });
    let text = cluster.text(&["top", "--once"]);
    assert!(text.contains("0 native and container tasks, 2 wasm tasks in 1 executors") && text.contains("busy.0"), "{text}");
}

#[test]
fn a_task_that_runs_shows_how_far_it_says_that_it_is() {
    let cluster = Cluster::of_one(RESOURCES);
    cluster.text(&["run", "--detach", "--name", "greeter", path(&sample("greet.wasm")), "--", "600000"]);
    cluster.until("it says something", |cluster| cluster.all_tasks("greeter").iter().any(|task| task["progress"]["percent"] == 50));
    assert_eq!(cluster.all_tasks("greeter")[0]["progress"]["note"], "asking what is left");
    assert!(cluster.text(&["ps", "greeter"]).contains("50 %"));
    cluster.text(&["stop", "greeter"]);
    cluster.until("it has ended", |cluster| cluster.tasks("greeter", "killed") == 1);
    assert!(cluster.all_tasks("greeter")[0]["progress"].is_null());
}

#[test]
fn a_group_runs_together_and_the_first_that_fails_takes_the_others_with_it() {
    let cluster = Cluster::of_one(RESOURCES);
    let file = cluster.folder.join("pair.toml");
    let member = |name: &str, wasm: &str, args: &str| {
        let (wasm, resources) = (sample(wasm), "{ cpu = 0.01, memory = \"8MiB\" }");
        format!("[[task]]\nname = {name:?}\nwasm = {wasm:?}\nargs = {args}\nresources = {resources}\n")
    };
    let pair = |second: &str| {
        let hello = member("hello", "hello.wasm", "[\"from a group\"]");
        format!("name = \"pair\"\ncount = 2\n{hello}{second}")
    };
    std::fs::write(&file, pair(&member("nap", "nap.wasm", "[\"300\"]"))).unwrap();
    let output = cluster.run(&["run", path(&file)]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.lines().filter(|line| line.ends_with("/hello: hello, from a group")).count() == 2, "{said}");
    let tasks = cluster.all_tasks("pair");
    assert!(
        tasks.len() == 2 && tasks.iter().all(|task| task["exit"]["code"] == 0 && task["usage"]["time_us"].as_u64() > Some(300_000)),
        "{tasks:?}"
    );
    assert_eq!(cluster.json(&["status", "pair"])["spec"]["resources"]["cpu_milli"], 20, "both are counted");

    // One of them fails: the other, which would sleep for ten minutes, ends with it.
    let failing = member("nap", "nap.wasm", "[\"600000\"]") + &member("wrong", "sieve.wasm", "[\"no number\"]");
    std::fs::write(&file, format!("name = \"broken\"\n{failing}")).unwrap();
    assert_eq!(cluster.run(&["run", path(&file)]).status.code(), Some(64), "its end is the end of the first that failed");
    let refused = cluster.run(&["run", path(&file), "--", "x"]);
    assert_eq!(refused.status.code(), Some(2), "whose arguments they are is not said");
}

#[test]
fn a_service_is_kept_scaled_and_stopped() {
    let cluster = Cluster::of_one(RESOURCES);
    let file = cluster.folder.join("nap.toml");
    let text = format!(
        "name = \"napper\"\nkind = \"service\"\ncount = 2\n[task]\nwasm = {:?}\nargs = [\"600000\"]\n[resources]\ncpu = 0.01\nmemory = \"8MiB\"\n",
        sample("nap.wasm")
    );
    std::fs::write(&file, &text).unwrap();
    assert_eq!(cluster.run(&["plan", path(&file)]).status.code(), Some(1), "a plan that changes something says so");
    cluster.text(&["apply", path(&file)]);
    assert_eq!(cluster.tasks("napper", "running"), 2);
    assert_eq!(cluster.run(&["plan", path(&file)]).status.code(), Some(0), "nothing is to be changed");
    cluster.text(&["scale", "napper", "5"]);
    cluster.until("five run", |cluster| cluster.tasks("napper", "running") == 5);
    std::fs::write(&file, text.replace("count = 2", "count = 3").replace("600000", "600001")).unwrap();
    cluster.text(&["apply", path(&file)]);
    cluster.until("three of the second version run", |cluster| {
        let tasks = cluster.all_tasks("napper");
        tasks.iter().filter(|task| task["phase"] == "running" && task["version"] == 2).count() == 3
    });
    cluster.text(&["stop", "napper", "--grace", "0"]);
    cluster.until("it has ended", |cluster| !cluster.json(&["status", "napper"])["ended_ms"].is_null());
}

#[test]
fn a_task_that_fits_nowhere_is_explained() {
    let cluster = Cluster::of_one("cpu=1,memory=64MiB,disk=0,ports=20000-20009");
    let id = cluster.text(&["run", "--detach", "--name", "giant", "--memory", "1GiB", path(&sample("noop.wasm"))]);
    assert!(id.trim().starts_with('j'));
    let why = cluster.text(&["explain", "giant"]);
    assert!(why.contains("memory") && why.contains("help:"), "{why}");
    assert_eq!(cluster.tasks("giant", "waiting"), 1);
}

#[test]
fn a_key_that_was_used_makes_no_second_job() {
    let cluster = Cluster::of_one(RESOURCES);
    let noop = sample("noop.wasm");
    let first = cluster.text(&["run", "--detach", "--key", "k1", path(&noop)]);
    let second = cluster.text(&["run", "--detach", "--key", "k1", path(&noop)]);
    assert_eq!(first, second);
    let other = cluster.run(&["run", "--detach", "--key", "k1", "--count", "2", path(&noop)]);
    assert_eq!(other.status.code(), Some(2), "{}", String::from_utf8_lossy(&other.stderr));
}

#[test]
fn a_token_allows_what_it_says_and_no_more() {
    let cluster = Cluster::of_one(RESOURCES);
    let noop = sample("noop.wasm");
    let with = |token: &str, args: &[&str]| cluster.command(args).env("SKEP_TOKEN", token.trim()).ends().status.code();
    let viewer = cluster.text(&["tokens", "create", "--level", "viewer"]);
    let web = cluster.text(&["tokens", "create", "--level", "operator", "--role", "web"]);
    assert_eq!(with(&viewer, &["ps"]), Some(0));
    assert_eq!(with(&viewer, &["run", "--detach", path(&noop)]), Some(2));
    assert_eq!(with(&web, &["run", "--detach", "--role", "web", path(&noop)]), Some(0));
    assert_eq!(with(&web, &["run", "--detach", "--role", "other", path(&noop)]), Some(2));
    assert_eq!(with(&web, &["tokens"]), Some(2));
    assert_eq!(with("nonsense", &["ps"]), Some(2));
}

#[test]
fn the_demo_does_what_it_says() {
    let cluster = Cluster::master(&[]);
    let dist = sample("noop.wasm").parent().unwrap().to_owned();
    let said = cluster.text(&["demo", "--samples", path(&dist)]);
    for word in ["out of fuel", "out of memory", "out of time", "trap", "10 000"] {
        assert!(said.contains(word), "{word} is not in\n{said}");
    }
}
