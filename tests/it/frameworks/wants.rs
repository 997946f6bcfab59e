//! Frameworks that say what they want: what they are shown over the API, and what is said of why they are shown no more.

use super::caller::{Caller, on_runtime};
use super::*;
use serde_json::{Value, json};

/// How much of a processor offers show together.
fn cpu_milli(offers: &Value) -> u64 {
    offers.as_array().unwrap().iter().map(|offer| offer["resources"]["cpu_milli"].as_u64().unwrap()).sum()
}

#[test]
fn a_framework_is_shown_what_it_wants_where_it_wants_it_and_may_ask_why() {
    let mut cluster = Cluster::master(&[]);
    cluster.add_agent_with("a1", "cpu=4,memory=1GiB", &["--attribute", "disk=hdd"]);
    cluster.add_agent_with("a2", "cpu=4,memory=1GiB", &["--attribute", "disk=ssd"]);
    on_runtime(async {
        let caller = Caller::new(&cluster, &cluster.token);
        let mut taker = caller.subscribe("taker").await;
        let mut held = 0;
        while held < 8_000 {
            held += cpu_milli(&taker.until("offers").await);
        }
        let on_ssd = |count| json!([{ "count": count, "resources": { "cpu": 0.5, "memory": "16MiB" }, "place": { "constraints": [["disk", "IS", "ssd"]] } }]);
        let mut seeker = caller.subscribe_as(json!({ "name": "seeker", "failover_ms": 1_000, "demand": on_ssd(3) })).await;
        let offers = seeker.until("offers").await;
        assert_eq!((cpu_milli(&offers), &offers[0]["name"]), (1_500, &json!("a2")), "{offers}");
        // More than one of the same agent, where both agents are of one shard: it spreads what is wanted.
        let ids: Vec<&Value> = offers.as_array().unwrap().iter().map(|offer| &offer["id"]).collect();
        assert_eq!(taker.until("rescinded").await.as_array().unwrap().len(), 1, "out from under the other");
        assert_eq!(cpu_milli(&taker.until("offers").await), 2_500);
        let id = &seeker.who["id"].as_str().unwrap().to_owned();
        let why = cluster.json(&["explain", id]);
        assert_eq!((&why["demand"][0]["count"], &why["demand"][0]["held"]), (&json!(3), &json!(3)), "{why}");
        assert_eq!(why["roles"][0]["reasons"]["all that it wants is shown or placed"], 1, "{why}");
        let offer = cluster.json(&["explain", offers[0]["id"].as_str().unwrap()]);
        assert_eq!((&offer["framework"], &offer["name"], &offer["waiting"][0][0]), (&json!(id), &json!("a2"), &taker.who["id"]), "{offer}");
        let text = cluster.text(&["explain", offers[0]["id"].as_str().unwrap()]);
        assert!(text.contains("would take it for default"), "{text}");
        // What it does not want to be shown is not; and it is said why.
        let large = json!([{ "resources": { "cpu": 64, "memory": "16MiB" } }, { "count": 9, "resources": { "cpu": 0.5, "memory": "16MiB" }, "place": { "constraints": [["disk", "IS", "tape"]] } }]);
        assert_eq!(seeker.say(json!({ "demand": large })).await.0, 204);
        assert_eq!(seeker.until("rescinded").await, json!(ids));
        let text = cluster.text(&["explain", id]);
        assert!(text.contains("wants room for 10 more tasks") && text.contains("2 of 2 agents: lacks cpu"), "{text}");
        assert_eq!(seeker.say(json!({ "suppress": [] })).await.0, 204);
        cluster.until("suppression is told", |cluster| cluster.text(&["explain", id]).contains("(suppressed)"));
        let missing = crate::cluster::said(&cluster, &["explain", "f99999"]);
        assert_ne!(missing.1, Some(0), "{}", missing.0);
    });
}

#[test]
fn a_framework_hears_what_its_tasks_say_and_their_offers_follow_an_agent_that_is_changed() {
    let cluster = Cluster::of_one("cpu=2,memory=1GiB");
    let pushed = cluster.json(&["push", sample("greet.wasm").to_str().unwrap()]);
    let wasm = pushed["digest"].as_str().unwrap();
    on_runtime(async {
        let caller = Caller::new(&cluster, &cluster.token);
        let mut framework = caller.subscribe("listener").await;
        let offers = framework.until("offers").await;
        cluster.text(&["agents", "set", "a1", "--attribute", "rack=r7"]);
        assert_eq!(framework.until("rescinded").await, json!([offers[0]["id"]]), "what was shown was of another agent");
        let offers = framework.until("offers").await;
        assert_eq!(offers[0]["attributes"]["rack"], "r7");
        let job = json!({ "task": { "wasm": wasm, "args": ["1000"], "config": { "greeting": "hi" } }, "resources": { "cpu": 0.1, "memory": "16MiB" } });
        let accept = json!({ "offers": [offers[0]["id"]], "tasks": [{ "name": "greeter", "job": job }] });
        assert_eq!(framework.say(json!({ "accept": accept })).await.0, 204);
        let message = framework.until("message").await;
        let expected = ("greeter", 50, "asking what is left");
        assert_eq!((&message["task"], &message["percent"], &message["text"]), (&json!(expected.0), &json!(expected.1), &json!(expected.2)));
    });
}
