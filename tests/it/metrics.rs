//! `/metrics` of a running cluster, as Prometheus' own tool judges it, and the dashboard: it asks for nothing that is not there, and for all that is.

use crate::cluster::{Cluster, Ends, ended, sample};
use crate::names::get;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a page of figures is made of where there are tasks, roles and a policy.
fn figures() -> String {
    let cluster = Cluster::of_one("cpu=4,memory=4GiB,disk=1GiB,ports=20000-20009");
    cluster.text(&["policy", "set", "score", sample("pack.wasm").to_str().unwrap()]);
    cluster.text(&[
        "run",
        "--detach",
        "--name",
        "rest",
        "--role",
        "web/shop",
        "--count",
        "3",
        sample("sleep.wasm").to_str().unwrap(),
        "--",
        "600000",
    ]);
    cluster.until("they run", |cluster| cluster.json(&["status", "rest", "--role", "web/shop"])["tasks"]["running"] == 3);
    let (status, text) = get(&cluster, "/metrics", "text/plain");
    assert_eq!(status, 200, "{text}");
    for line in ["skep_tasks_live 3", "skep_jobs_live 1", "skep_agents_reachable 1", "skep_capacity_cpu_cores 4.000", "skep_shards_led 8"] {
        assert!(text.lines().any(|written| written == line), "{line}\n{text}");
    }
    assert!(text.contains("skep_role_cpu_cores{role=\"web\"} ") && text.contains("skep_role_memory_bytes{role=\"web/shop\"} "), "{text}");
    text
}

/// The queries of the dashboard, with a time where Grafana puts one.
fn queries() -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/dashboard.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let of = |panel: &Value| {
        let targets = panel["targets"].as_array().filter(|targets| !targets.is_empty());
        let targets = targets.unwrap_or_else(|| panic!("{} asks nothing", panel["title"])).clone();
        targets.into_iter().map(|target| target["expr"].as_str().unwrap().replace("$__rate_interval", "5m"))
    };
    panels.iter().flat_map(of).collect()
}

/// All names of figures in a query: what is neither a word of the language, nor a label, nor in quotation marks.
fn names(query: &str) -> BTreeSet<String> {
    let bare: String = query.split('"').step_by(2).collect();
    let words = bare.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("skep_") || word.starts_with("process_")).map(str::to_owned).collect()
}

/// Prometheus' own tool; `None`: it is not here.
fn promtool() -> Option<PathBuf> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/promtool");
    let found = [PathBuf::from("promtool"), ours].into_iter().find(|path| Command::new(path).arg("--version").output().is_ok());
    if found.is_none() {
        println!("skipped: no promtool (make promtool, or Debian: prometheus)");
    }
    found
}

#[test]
fn the_dashboard_shows_all_figures_that_there_are_and_no_others() {
    let text = figures();
    let there: BTreeSet<String> =
        text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(['{', ' ']).next().unwrap().to_owned()).collect();
    let queries = queries();
    assert!(queries.len() > 20, "{queries:?}");
    for query in &queries {
        let named = names(query);
        assert!(!named.is_empty() && named.is_subset(&there), "{query} asks for what is not in\n{text}");
    }
    let shown: BTreeSet<String> = queries.iter().flat_map(|query| names(query)).collect();
    assert_eq!(there.difference(&shown).collect::<Vec<_>>(), Vec::<&String>::new(), "not on the dashboard");
}

#[test]
fn names_and_queries_are_as_prometheus_wants_them() {
    let Some(promtool) = promtool() else { return };
    let mut child = Command::new(&promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(figures().as_bytes()).unwrap();
    let judged = ended(child, "promtool");
    assert!(judged.status.success() && judged.stderr.is_empty(), "{}", String::from_utf8_lossy(&judged.stderr));
    // A recording rule of each query: so all are read as queries.
    let rules: String = queries()
        .iter()
        .enumerate()
        .map(|(at, query)| format!("  - record: panel:{at}\n    expr: {}\n", serde_json::json!(query)))
        .collect();
    let file = crate::cluster::folder().join("rules.yml");
    std::fs::write(&file, format!("groups:\n- name: dashboard\n  rules:\n{rules}")).unwrap();
    let judged = Command::new(&promtool).args(["check", "rules"]).arg(&file).ends();
    assert!(judged.status.success(), "{}{}", String::from_utf8_lossy(&judged.stdout), String::from_utf8_lossy(&judged.stderr));
    std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
}
