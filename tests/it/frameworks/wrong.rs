//! Frameworks that do what they should not, over our own API: each is told what is wrong, and everybody else is served on.

use super::caller::{Caller, Subscribed, on_runtime};
use super::*;
use futures::StreamExt as _;
use serde_json::{Value, json};

/// Calls that are made at once and without a pause.
const FLOOD: usize = 2_000;

/// Another framework is served: what it places runs to its end.
async fn serves(caller: &Caller, wasm: &str) {
    let mut framework = caller.subscribe("honest").await;
    let offers = framework.until("offers").await;
    let job = json!({ "task": { "wasm": wasm }, "resources": { "cpu": 0.1, "memory": "16MiB" } });
    let accept = json!({ "offers": [offers[0]["id"]], "tasks": [{ "name": "t", "job": job }] });
    assert_eq!(framework.say(json!({ "accept": accept })).await.0, 204);
    loop {
        let update = framework.until("update").await;
        if update["state"] == "finished" {
            break;
        }
        assert_eq!(framework.say(json!({ "acknowledge": { "task": "t", "uuid": update["uuid"] } })).await.0, 204);
    }
    assert_eq!(framework.say(json!({ "teardown": true })).await.0, 204);
}

fn pushed(cluster: &Cluster) -> String {
    let pushed = cluster.json(&["push", sample("noop.wasm").to_str().unwrap()]);
    format!("sha256:{}", pushed["digest"].as_str().unwrap().trim_start_matches("sha256:"))
}

#[test]
fn what_is_wrong_with_a_call_is_said_and_who_is_not_the_framework_is_not_it() {
    let cluster = Cluster::of_one("cpu=2,memory=1GiB");
    let wasm = pushed(&cluster);
    let other = cluster.json(&["tokens", "create", "--level", "operator"])["token"].as_str().unwrap().to_owned();
    let viewer = cluster.json(&["tokens", "create", "--level", "viewer"])["token"].as_str().unwrap().to_owned();
    on_runtime(async {
        let caller = Caller::new(&cluster, &cluster.token);
        let mut framework = caller.subscribe("victim").await;
        let offer = framework.until("offers").await[0]["id"].clone();
        let stranger = Caller::new(&cluster, &other);
        let thief = Subscribed { caller: &stranger, bytes: futures::stream::empty().boxed(), kept: vec![], who: framework.who.clone() };
        for call in [json!({ "teardown": true }), json!({ "decline": { "offers": [offer] } }), json!({ "kill": { "task": "t" } })] {
            assert_eq!(thief.say(call.clone()).await.0, 404, "{call} with another token");
        }
        let stolen = stranger.post(json!({ "subscribe": { "id": framework.who["id"], "name": "thief" } }).to_string()).await;
        assert!(stolen.text().await.unwrap().contains("another token"), "what it is told at once is that it is not its own");
        assert_eq!(Caller::new(&cluster, &viewer).post(json!({ "subscribe": {} }).to_string()).await.status(), 403);
        for (call, expected) in [
            (json!({ "id": "f999", "revive": [] }), 404),
            (json!({ "id": "../f1", "revive": [] }), 400),
            (json!({ "id": 7, "revive": [] }), 400),
            (json!({ "stream": "0".repeat(32), "revive": [] }), 422),
            (json!({ "stream": "x", "revive": [] }), 400),
            (json!({}), 400),
            (json!({ "revive": [], "suppress": [] }), 400),
            (json!({ "forge": true }), 400),
            (json!({ "demand": [{ "resources": { "cpu": -1 } }] }), 400),
            (json!({ "demand": [{ "resources": { "cpu": 1 }, "place": { "constraints": [["rack", "UNIQUE"]] } }] }), 422),
            (json!({ "demand": [{ "resources": { "cpu": 1 }, "role": "web" }] }), 422),
            (json!({ "demand": vec![json!({ "resources": { "cpu": 1 } }); 257] }), 400),
            (json!({ "update": { "name": "victim", "demand": [{ "resources": { "cpu": 1 } }] } }), 400),
            (json!({ "accept": { "offers": ["o1"] } }), 400),
            (json!({ "accept": { "offers": 7 } }), 400),
            (json!({ "accept": { "tasks": [{ "name": "x" }] } }), 400),
            (json!({ "kill": { "task": 7 } }), 400),
            (json!({ "kill": { "task": "nobody's", "grace_ms": -1 } }), 400),
            (json!({ "acknowledge": { "task": "x", "uuid": "7" } }), 400),
            (json!({ "decline": { "offers": ["o0-18446744073709551615"], "refuse_ms": u64::MAX } }), 204),
            (json!({ "update": { "roles": ["no such/../role"] } }), 400),
            (json!({ "update": { "roles": ["web"], "suppressed": ["other"] } }), 422),
            (json!({ "update": { "failover_ms": u64::MAX } }), 400),
            (json!({ "update": { "name": "x".repeat(2_000) } }), 400),
            (json!({ "reconcile": vec!["nobody's"; 10] }), 204),
            (json!({ "accept": { "offers": vec!["o0-1"; 20_000] } }), 422),
        ] {
            let (status, answer) = framework.say(call.clone()).await;
            assert_eq!(status, expected, "{call}: {answer}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(caller.post(format!("{{\"reconcile\":{deep}}}")).await.status(), 400);
        serves(&caller, &wasm).await;
    });
}

#[test]
fn absurd_tasks_are_refused_one_by_one_and_groups_of_them_whole() {
    let cluster = Cluster::of_one("cpu=2,memory=1GiB");
    let wasm = pushed(&cluster);
    on_runtime(async {
        let caller = Caller::new(&cluster, &cluster.token);
        let mut framework = caller.subscribe("absurd").await;
        let offer = framework.until("offers").await[0]["id"].clone();
        let mut jobs =
            vec![json!(7), json!([]), json!({}), json!({ "task": {} }), json!({ "task": { "wasm": "x" } }), json!({ "forge": 1 })];
        for (name, value) in [
            ("cpu", json!(-1)),
            ("cpu", json!(1e300)),
            ("cpu", json!("NaN")),
            ("memory", json!(-1)),
            ("memory", json!("1e300")),
            ("memory", json!("99999999999999999999999")),
            ("memory", json!("18446744073709551615")),
            ("disk", json!("-1GiB")),
            ("cpu", json!(64.0)),
        ] {
            let resources = [(name, value)].into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<serde_json::Map<_, _>>();
            jobs.push(json!({ "task": { "wasm": wasm }, "resources": resources }));
        }
        for (name, value) in [("count", json!(2)), ("name", json!("x")), ("role", json!("web")), ("kind", json!("service"))] {
            jobs.push(json!({ "task": { "wasm": wasm }, name: value }));
        }
        let good = || json!({ "name": "good", "job": { "task": { "wasm": wasm }, "resources": { "cpu": 0.1, "memory": "16MiB" } } });
        let task = |n: usize, job: &Value| json!({ "name": format!("wrong-{n}"), "job": job });
        let tasks: Vec<Value> = jobs.iter().enumerate().map(|(n, job)| task(n, job)).collect();
        let groups = json!([[good(), task(1_000, &jobs[0])]]);
        let accept = json!({ "offers": [offer], "tasks": tasks, "groups": groups });
        let (status, answer) = framework.say(json!({ "accept": accept })).await;
        assert_eq!(status, 204, "{answer}");
        for _ in 0..jobs.len() + 2 {
            let update = framework.until("update").await;
            assert!(update["state"] == "rejected" && update["cause"] == "invalid" && update["reason"].is_string(), "{update}");
        }
        let offers = framework.until("offers").await;
        assert_eq!(offers[0]["resources"]["cpu_milli"], 2_000, "nothing was taken");
        serves(&caller, &wasm).await;
    });
}

#[test]
fn a_framework_that_calls_without_end_keeps_nobody_waiting() {
    let cluster = Cluster::of_one("cpu=2,memory=1GiB");
    let wasm = pushed(&cluster);
    on_runtime(async {
        let caller = Caller::new(&cluster, &cluster.token);
        let noisy = caller.subscribe("noisy").await;
        let honest = Caller::new(&cluster, &cluster.token);
        let flood = futures::stream::iter(0..FLOOD).for_each_concurrent(64, |n| {
            let call = if n % 2 == 0 { json!({ "revive": [] }) } else { json!({ "reconcile": vec!["nobody's"; 200] }) };
            let noisy = &noisy;
            async move {
                let (status, answer) = noisy.say(call).await;
                assert!(matches!(status, 204 | 409 | 429 | 503), "{status}: {answer}");
            }
        });
        tokio::join!(flood, async {
            for _ in 0..3 {
                serves(&honest, &wasm).await;
            }
        });
        serves(&honest, &wasm).await;
    });
}
