//! Marathon's clients, unmodified: the one from PyPI (`make clients`), and what others send; and what its API says to what is wrong.

mod checks;
mod import;
mod masters;
mod wrong;

use crate::cluster::{Cluster, Ends, said};
use crate::mesos::{ask, clients};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// Answers every request at its first port.
const SERVER: &str = r#"use IO::Socket::INET; my $server = IO::Socket::INET->new(LocalPort => $ENV{PORT0}, Listen => 16, ReuseAddr => 1) or die $!;
while (my $client = $server->accept) { while (<$client>) { last if /^\r?\n$/ } print $client "HTTP/1.1 200 OK\r\n\r\n"; close $client }"#;

fn pool() -> Cluster {
    pool_from(31_600)
}

/// One whose tasks have a hundred ports from this one on.
fn pool_from(port: u16) -> Cluster {
    let mut cluster = Cluster::master(&["--marathon", "127.0.0.1:0"]);
    // Both are on this machine: what one's tasks listen at the other's cannot.
    for (agent, first) in [("a1", port), ("a2", port + 50)] {
        cluster.add_agent(agent, &format!("cpu=2,memory=2GiB,ports={first}-{}", first + 49));
    }
    cluster
}

/// A request with a body of JSON; the status of the answer, and its body.
fn call(cluster: &Cluster, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let answer = ask(&cluster.marathon, method, path, &[("Content-Type", "application/json"), ("Accept", "application/json")], &text);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(&unchunked(head, body)).unwrap_or(Value::Null))
}

/// The body of an answer that may come in chunks.
fn unchunked(head: &str, body: &str) -> String {
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return body.to_owned();
    }
    let (mut whole, mut rest) = (String::new(), body);
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        whole.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    whole
}

fn get(cluster: &Cluster, path: &str) -> Value {
    let (status, body) = call(cluster, "GET", path, &Value::Null);
    assert_eq!(status, 200, "{path}: {body}");
    body
}

fn is_settled(cluster: &Cluster) -> bool {
    get(cluster, "/v2/deployments") == json!([])
}

#[test]
fn the_client_from_pypi_does_all_that_it_can() {
    let Some(clients) = clients() else { return };
    let cluster = pool();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/marathon/walk.py");
    let mut command = Command::new(clients.join("python"));
    command.arg(script).args([&cluster.marathon, &cluster.url, &cluster.token]).arg(cluster.ca());
    let output = command.ends();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("\"done\": true"), "{text}\n{errors}");
}

#[test]
fn an_app_is_a_job_and_comes_back_whole_after_the_master_was_killed() {
    let mut cluster = pool();
    let (status, refused) = call(&cluster, "POST", "/v2/apps", &json!({ "id": "/web/shop", "cmd": "x", "ports": [0] }));
    assert!(status == 422 && refused["details"][0]["errors"][0].as_str().unwrap().contains("--host-network"), "{refused}");
    cluster.text(&["roles", "set", "web", "--host-network", "true"]);
    let app = json!({
        "id": "web/shop", "cmd": format!("echo at $HOST:$PORT0 $PORTS as $MESOS_TASK_ID of $MARATHON_APP_ID; exec perl -e '{SERVER}'"), "cpus": 0.1, "mem": 32, "instances": 2,
        "portDefinitions": [{ "port": 0, "name": "http", "labels": { "VIP_0": "x" } }, { "port": 31_050 }], "labels": { "team": "x" }, "env": { "A": "b" },
        "healthChecks": [{ "protocol": "HTTP", "path": "/health", "portIndex": 0 }], "upgradeStrategy": { "minimumHealthCapacity": 0.5 },
        "constraints": [["hostname", "UNIQUE"]], "unreachableStrategy": { "inactiveAfterSeconds": 60, "expungeAfterSeconds": 120 },
        "dependencies": ["../db"], "resourceLimits": { "mem": 64 }, "taskKillGracePeriodSeconds": 1,
    });
    let (status, made) = call(&cluster, "POST", "/v2/apps", &app);
    assert_eq!((status, &made["id"], &made["dependencies"]), (201, &json!("/web/shop"), &json!(["/db"])), "{made}");
    cluster.until("its deployment is over", is_settled);
    let shown = get(&cluster, "/v2/apps//web/shop")["app"].clone();
    assert_eq!((&shown["tasksHealthy"], &shown["tasksUnhealthy"]), (&json!(2), &json!(0)), "{shown}");
    assert_eq!(
        (&shown["tasksRunning"], &shown["resourceLimits"], &shown["healthChecks"][0]["gracePeriodSeconds"]),
        (&json!(2), &json!({ "mem": 64 }), &json!(300))
    );
    let service = shown["portDefinitions"][0]["port"].as_u64().unwrap();
    assert!((10_000..=20_000).contains(&service) && shown["portDefinitions"][1]["port"] == 31_050, "{shown}");
    let tasks = shown["tasks"].as_array().unwrap().clone();
    let said_by = |task: &Value| {
        let (host, ports, id) = (task["host"].as_str().unwrap(), &task["ports"], task["id"].as_str().unwrap());
        format!("at {host}:{} {},{} as {id} of /web/shop", ports[0], ports[0], ports[1])
    };
    cluster.until("each task knows what it is", |cluster| {
        let logs = cluster.text(&["logs", "shop", "--role", "web"]);
        tasks.iter().all(|task| logs.contains(&said_by(task)))
    });
    let job = cluster.json(&["status", "shop", "--role", "web"]);
    assert_eq!((&job["labels"]["team"], &job["made_by"]), (&json!("x"), &json!("marathon")), "{job}");
    let endpoints = ask(&cluster.marathon, "GET", "/v2/tasks", &[("Accept", "text/plain")], "");
    let line = endpoints.lines().find(|line| line.starts_with(&format!("web_shop\t{service}\t"))).unwrap_or_else(|| panic!("{endpoints}"));
    assert!(line.matches(':').count() == 2 && line.ends_with('\t'), "{line:?}");
    cluster.kill_master();
    cluster.start_master();
    let still = |shown: &Value| {
        let mut app = shown.clone();
        ["tasks", "tasksRunning", "tasksStaged", "tasksHealthy", "deployments"]
            .iter()
            .for_each(|name| drop(app.as_object_mut().unwrap().remove(*name)));
        app
    };
    cluster.until("it answers again", |cluster| call(cluster, "GET", "/v2/apps/web/shop", &Value::Null).0 == 200);
    assert_eq!(still(&get(&cluster, "/v2/apps/web/shop")["app"]), still(&shown));
    cluster.until("its tasks are known again", |cluster| get(cluster, "/v2/apps/web/shop")["app"]["tasksRunning"] == 2);
    let again: Vec<Value> =
        get(&cluster, "/v2/apps/web/shop")["app"]["tasks"].as_array().unwrap().iter().map(|task| task["id"].clone()).collect();
    assert_eq!(again, tasks.iter().map(|task| task["id"].clone()).collect::<Vec<_>>(), "no task was started anew");
}

#[test]
fn what_is_under_way_is_seen_and_ended_also_where_another_was_asked_for_it() {
    let mut cluster = pool();
    let check = |command: &str| {
        let command = json!({ "value": command });
        json!([{ "protocol": "COMMAND", "command": command, "gracePeriodSeconds": 0, "intervalSeconds": 1, "maxConsecutiveFailures": 0 }])
    };
    let app = json!({ "id": "/web/shop", "cmd": "sleep 600", "cpus": 0.1, "mem": 32, "instances": 2, "healthChecks": check("true") });
    assert_eq!(call(&cluster, "POST", "/v2/apps", &app).0, 201);
    cluster.until("its deployment is over", is_settled);
    let before = get(&cluster, "/v2/apps/web/shop")["app"].clone();
    let (status, begun) = call(&cluster, "PUT", "/v2/apps/web/shop", &json!({ "cmd": "sleep 601", "healthChecks": check("false") }));
    assert_eq!(status, 200, "{begun}");
    let id = begun["deploymentId"].clone();
    // A master that was started anew knows no more of it than any other that was not asked.
    cluster.kill_master();
    cluster.start_master();
    cluster.until("it answers again", |cluster| call(cluster, "GET", "/v2/deployments", &Value::Null).0 == 200);
    cluster.until("tasks are not well", |cluster| get(cluster, "/v2/apps/web/shop")["app"]["tasksUnhealthy"] != 0);
    let all = get(&cluster, "/v2/deployments");
    assert!(all[0]["id"] == id && all[0]["currentActions"][0]["action"] == "RestartApplication" && all[1].is_null(), "{all}");
    assert_eq!(get(&cluster, "/v2/apps/web/shop")["app"]["deployments"], json!([{ "id": id }]));
    let (status, refused) = call(&cluster, "PUT", "/v2/apps/web/shop", &json!({ "cmd": "sleep 602" }));
    assert_eq!((status, &refused["deployments"]), (409, &json!([{ "id": id }])), "{refused}");
    let path = format!("/v2/deployments/{}", id.as_str().unwrap());
    let (status, back) = call(&cluster, "DELETE", &path, &Value::Null);
    assert!(status == 200 && back["deploymentId"].is_string() && back["deploymentId"] != id, "{status} {back}");
    cluster.until("it has gone back", is_settled);
    let after = get(&cluster, "/v2/apps/web/shop")["app"].clone();
    assert_eq!((&after["cmd"], &after["version"], &after["tasksHealthy"]), (&json!("sleep 600"), &before["version"], &json!(2)), "{after}");
    let versions = get(&cluster, "/v2/apps/web/shop/versions")["versions"].clone();
    assert!(versions[0] == before["version"] && versions[1].is_string(), "{versions}");
    assert_eq!(call(&cluster, "DELETE", &path, &Value::Null).0, 404, "it is over");
    // Of what was begun otherwise it is the same.
    cluster.text(&["restart", "shop", "--role", "web", "--detach"]);
    cluster.until("its deployment is over", is_settled);
    assert_eq!(get(&cluster, "/v2/apps/web/shop")["app"]["tasksHealthy"], 2);
}

#[test]
fn webassembly_and_what_else_was_uploaded_are_apps_too() {
    let cluster = pool();
    let digest = cluster.text(&["push", crate::cluster::sample("hello.wasm").to_str().unwrap()]);
    let digest = digest.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap_or_else(|| panic!("{digest}"));
    let app = json!({ "id": "/greeter", "fetch": [{ "uri": format!("{digest}.wasm") }], "args": ["you"], "cpus": 0.1, "mem": 32, "backoffSeconds": 3600, "maxLaunchDelaySeconds": 3600 });
    let (status, made) = call(&cluster, "POST", "/v2/apps", &app);
    assert_eq!(status, 201, "{made}");
    cluster.until("it has run", |cluster| {
        let logs = cluster.text(&["logs", "greeter"]);
        logs.contains("hello, you")
            && logs.contains("env: MESOS_TASK_ID=greeter.j")
            && logs.contains("-0-1")
            && logs.contains("env: HOST=a")
    });
    let shown = get(&cluster, "/v2/apps/greeter")["app"].clone();
    assert_eq!((&shown["fetch"][0]["uri"], &shown["args"]), (&json!(format!("{digest}.wasm")), &json!(["you"])));
    // What a job file made is no app, and an app's place is its own.
    let (text, code) = said(&cluster, &["run", "--detach", "--name", "plain", crate::cluster::sample("noop.wasm").to_str().unwrap()]);
    assert_eq!(code, Some(0), "{text}");
    let ids: Vec<Value> = get(&cluster, "/v2/apps")["apps"].as_array().unwrap().iter().map(|app| app["id"].clone()).collect();
    assert_eq!(ids, ["/greeter"]);
}

#[test]
fn an_operator_for_one_role_sees_the_apps_of_its_groups_alone() {
    let cluster = pool();
    for id in ["/web/a", "/other/b"] {
        let (status, made) = call(&cluster, "POST", "/v2/apps", &json!({ "id": id, "cmd": "sleep 600", "cpus": 0.1, "mem": 32 }));
        assert_eq!(status, 201, "{made}");
    }
    let token = cluster.text(&["tokens", "create", "--level", "operator", "--role", "web"]);
    let bearer = format!("Bearer {}", token.trim());
    let asked = |method: &str, path: &str, body: &str| ask(&cluster.marathon, method, path, &[("Authorization", &bearer)], body);
    assert!(asked("GET", "/v2/apps", "").contains("/web/a") && !asked("GET", "/v2/apps", "").contains("/other/b"));
    assert!(asked("GET", "/v2/apps/other/b", "").starts_with("HTTP/1.1 404 "));
    assert!(asked("DELETE", "/v2/apps/other/b", "").starts_with("HTTP/1.1 404 "));
    assert!(asked("POST", "/v2/apps", r#"{"id":"/other/c","cmd":"x"}"#).starts_with("HTTP/1.1 403 "));
    assert!(!asked("GET", "/v2/groups", "").contains("other") && !asked("GET", "/v2/deployments", "").contains("/other/b"));
    assert!(asked("DELETE", "/v2/apps/web/a?force=True", "").starts_with("HTTP/1.1 200 "));
    assert!(ask(&cluster.marathon, "GET", "/v2/apps", &[("Authorization", "Bearer nonsense")], "").starts_with("HTTP/1.1 401 "));
}
