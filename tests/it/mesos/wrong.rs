//! Frameworks that do what they should not, through Mesos' API: what becomes of that, and that everybody else is served on.

use super::*;

/// Calls that are made as fast as they can be.
const FLOOD: usize = 3_000;

/// Another framework is served: it is offered something, and its task runs to its end.
fn serves(cluster: &Cluster, name: &str) {
    let (mut framework, offer) = Stream::offered(&cluster.mesos, name);
    framework.launch(&cluster.mesos, &offer, &[task(&format!("{name}-task"), "true")]);
    framework.until_state(&cluster.mesos, &format!("{name}-task"), "TASK_FINISHED");
    assert_eq!(framework.call(&cluster.mesos, "TEARDOWN", json!({})).0, 202);
}

#[test]
fn absurd_resources_are_an_error_of_their_task_and_of_nothing_else() {
    let cluster = pool();
    let mut framework = Stream::subscribe(&cluster.mesos, "absurd");
    framework.until("OFFERS");
    let offers: Vec<Value> = framework.offers().iter().map(|offer| offer["id"].clone()).collect();
    let scalar = |name: &str, value: Value| json!({ "name": name, "type": "SCALAR", "scalar": { "value": value } });
    let of = |resources: Vec<Value>| {
        let mut task = task("x", "true");
        task["resources"] = resources.into();
        task
    };
    let mut tasks = vec![
        of(vec![scalar("cpus", json!(-1))]),
        of(vec![scalar("cpus", json!("NaN"))]),
        of(vec![scalar("cpus", json!("Infinity"))]),
        of(vec![scalar("cpus", json!(1e300))]),
        of(vec![scalar("mem", json!(1e300)), scalar("mem", json!(1e300))]),
        of(vec![scalar("mem", json!("-1e999"))]),
        of(vec![scalar("disk", json!([1]))]),
        of(vec![scalar("gpus", json!(1e300)), scalar("gpus", json!(1e300))]),
        of(vec![scalar("\u{202e}", json!(1))]),
        of(vec![
            json!({ "name": "disk", "scalar": { "value": 1 }, "disk": { "persistence": { "id": "x" }, "volume": { "container_path": "x", "mode": "RW" } } }),
        ]),
        of(vec![]),
        of(vec![json!({ "name": "ports", "ranges": { "range": [{ "begin": 0, "end": 4_000_000_000_u64 }] } })]),
        of(vec![json!(7), json!(null)]),
        of(vec![scalar("cpus", json!(1e-300))]),
        json!({ "task_id": { "value": "" }, "command": { "value": "true" } }),
        json!({ "task_id": { "value": "y".repeat(5_000) }, "command": { "value": "true" } }),
        json!({ "command": 7 }),
        json!(7),
    ];
    for (n, task) in tasks.iter_mut().enumerate().filter(|(_, task)| task["task_id"]["value"] == "x") {
        task["task_id"]["value"] = format!("x-{n}").into();
    }
    let n = tasks.len();
    for (offer, part) in offers.iter().cycle().zip(tasks.chunks(n.div_ceil(offers.len()))) {
        let launch = json!({ "type": "LAUNCH", "launch": { "task_infos": part } });
        let accept = json!({ "accept": { "offer_ids": [offer], "operations": [launch] } });
        assert_eq!(framework.call(&cluster.mesos, "ACCEPT", accept).0, 202);
    }
    // One of them asks for as good as nothing, and is given the least that there is; all others are wrong.
    while framework.records("UPDATE").iter().filter(|event| event["update"]["status"]["state"] == "TASK_ERROR").count() < n - 1 {
        framework.until_more();
    }
    serves(&cluster, "honest");
}

#[test]
fn what_was_taken_rescinded_or_never_offered_is_lost_and_costs_nobody_anything() {
    let cluster = pool();
    let mesos = &cluster.mesos;
    let mut framework = Stream::subscribe(mesos, "greedy");
    framework.until("OFFERS");
    let mut other = Stream::subscribe(mesos, "other");
    let offer = framework.offers()[0]["id"].clone();
    let accept = |framework: &Stream, offers: Value, name: &str| {
        let launch = json!({ "type": "LAUNCH", "launch": { "task_infos": [task(name, "sleep 600")] } });
        let group =
            json!({ "type": "LAUNCH_GROUP", "launch_group": { "task_group": { "tasks": [task(&format!("{name}-group"), "true")] } } });
        framework.call(mesos, "ACCEPT", json!({ "accept": { "offer_ids": offers, "operations": [launch, group] } })).0
    };
    // Of another's, of nobody's, what is no offer, the same twice in one call, and after it was taken.
    assert_eq!(accept(&other, json!([offer]), "stolen"), 202);
    other.until("stolen-group");
    for (offers, name) in
        [(json!([{ "value": "o9-999999999999" }]), "forged"), (json!([{ "value": "\u{0}" }, 7, null]), "broken"), (json!([]), "none")]
    {
        assert_eq!(accept(&framework, offers, name), 202);
        framework.until(&format!("{name}-group"));
    }
    assert_eq!(accept(&framework, json!([offer, offer]), "doubled"), 202);
    framework.until("doubled-group");
    assert_eq!(accept(&framework, json!([offer]), "late"), 202);
    framework.until("late-group");
    let states: Vec<Value> = framework.records("UPDATE").iter().map(|event| event["update"]["status"]["reason"].clone()).collect();
    assert!(states.len() == 10 && states.iter().all(|reason| reason == "REASON_INVALID_OFFERS"), "{states:?}");
    assert!(get(mesos, "/tasks")["tasks"].as_array().unwrap().is_empty(), "nothing was placed");
    // Tasks, agents and updates of nobody's.
    for (kind, call, expected) in [
        ("KILL", json!({ "kill": { "task_id": { "value": "nobody's" } } }), 202),
        (
            "ACKNOWLEDGE",
            json!({ "acknowledge": { "task_id": { "value": "x" }, "agent_id": { "value": "0" }, "uuid": "AAAAAAAAAAAAAAAAAAAAAA==" } }),
            202,
        ),
        ("ACKNOWLEDGE", json!({ "acknowledge": { "task_id": { "value": "x" }, "agent_id": { "value": "0" }, "uuid": "AAAA" } }), 400),
        ("RECONCILE", json!({ "reconcile": { "tasks": [{ "task_id": 7 }] } }), 400),
        ("SHUTDOWN", json!({ "shutdown": {} }), 400),
        ("SHUTDOWN", json!({ "shutdown": { "executor_id": { "value": "x" }, "agent_id": { "value": "nowhere" } } }), 202),
        ("SHUTDOWN", json!({ "shutdown": { "executor_id": { "value": "x" }, "agent_id": { "value": "00000000000000ff" } } }), 202),
        ("MESSAGE", json!({ "message": { "data": 7 } }), 400),
        ("MESSAGE", json!({ "message": { "agent_id": { "value": "0" }, "executor_id": { "value": "x" }, "data": "?" } }), 400),
        ("MESSAGE", json!({ "message": { "agent_id": { "value": "0" }, "executor_id": { "value": "x" }, "data": "aGk=" } }), 202),
        ("ACCEPT_INVERSE_OFFERS", json!({ "accept_inverse_offers": { "inverse_offer_ids": [7, { "value": "i9-9" }] } }), 202),
        ("DECLINE_INVERSE_OFFERS", json!({}), 400),
        ("REVIVE", json!({ "revive": { "roles": ["../etc"] } }), 400),
        ("DECLINE", json!({ "decline": { "offer_ids": [7], "filters": { "refuse_seconds": "NaN" } } }), 202),
        ("DECLINE", json!({ "decline": { "filters": { "refuse_seconds": 1e300 } } }), 202),
        ("ACCEPT", json!({ "accept": { "operations": [{}] } }), 400),
        ("ACCEPT", json!({ "accept": { "operations": [{ "type": "LAUNCH_GROUP" }] } }), 400),
        ("ACCEPT", json!({ "accept": { "operations": [{ "type": "RESERVE", "reserve": {} }] } }), 202),
    ] {
        let (code, answer) = framework.call(mesos, kind, call.clone());
        assert_eq!(code, expected, "{kind} {call}: {answer}");
    }
    drop((framework, other));
    serves(&cluster, "honest");
}

#[test]
fn ids_that_none_was_given_are_those_of_frameworks_that_are_no_more_and_empty_ones_are_new() {
    let cluster = pool();
    let mesos = &cluster.mesos;
    let json = [("Content-Type", "application/json")];
    for id in ["20240101-000000-1-1-0001", "f123456", "fffff000000000001", "\u{0}"] {
        let info = json!({ "user": "root", "name": "late", "id": { "value": id } });
        let subscribe = json!({ "type": "SUBSCRIBE", "framework_id": { "value": id }, "subscribe": { "framework_info": info } });
        let answer = ask(mesos, "POST", "/api/v1/scheduler", &json, &subscribe.to_string());
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"ERROR\"") && answer.contains("removed"), "{id}: {answer}");
        let headers = [json[0], ("Mesos-Stream-Id", "00000000-0000-4000-8000-000000000000")];
        let revive = json!({ "type": "REVIVE", "framework_id": { "value": id } });
        let answer = ask(mesos, "POST", "/api/v1/scheduler", &headers, &revive.to_string());
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("cannot be found"), "{id}: {answer}");
    }
    let info = json!({ "user": "root", "name": "new", "id": { "value": "" } });
    let framework = Stream::subscribe_with(mesos, &json!({ "framework_info": info }));
    assert!(framework.id.starts_with('f'), "{}", framework.id);
}

#[test]
fn a_framework_that_cannot_be_as_it_says_hears_so_as_an_event_and_a_call_that_is_none_by_its_code() {
    let cluster = pool();
    let json = [("Content-Type", "application/json")];
    let whole = |rest: Value| {
        let mut info = json!({ "user": "root", "name": "x" });
        rest.as_object().unwrap().iter().for_each(|(name, value)| info[name] = value.clone());
        json!({ "framework_info": info })
    };
    let mut suppressed = whole(json!({ "role": "a" }));
    suppressed["suppressed_roles"] = json!(["a/../b"]);
    for (subscribe, code) in [
        (whole(json!({ "role": "../etc" })), 200),
        (whole(json!({ "roles": ["a", ".."], "capabilities": [{ "type": "MULTI_ROLE" }] })), 200),
        (whole(json!({ "failover_timeout": -1 })), 200),
        (whole(json!({ "labels": { "labels": [{ "key": "a", "value": "x".repeat(100_000) }] } })), 200),
        (suppressed, 200),
        (json!({}), 400),
        (json!({ "framework_info": { "user": "root", "role": "../etc" } }), 400),
        (json!({ "framework_info": { "name": "x" } }), 400),
    ] {
        let call = json!({ "type": "SUBSCRIBE", "subscribe": subscribe });
        let answer = ask(&cluster.mesos, "POST", "/api/v1/scheduler", &json, &call.to_string());
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{call}: {answer}");
        let said = answer.to_ascii_lowercase().contains("mesos-stream-id:") && answer.contains(r#""type":"ERROR""#);
        assert_eq!(said, code == 200, "{call}: {answer}");
    }
    serves(&cluster, "honest");
}

#[test]
fn a_framework_that_never_reads_and_one_that_never_stops_calling_keep_nobody_waiting() {
    let cluster = pool();
    let mesos = cluster.mesos.clone();
    let mut silent = Stream::subscribe(&mesos, "silent");
    silent.until("OFFERS");
    let mut noisy = Stream::subscribe(&mesos, "noisy");
    let reconcile: Vec<Value> = (0..200).map(|n| json!({ "task_id": { "value": format!("nobody-{n}") } })).collect();
    std::thread::scope(|scope| {
        let silent = &silent;
        let mesos = &mesos;
        // What it is told piles up, and nobody reads it.
        scope.spawn(move || {
            for _ in 0..FLOOD / 10 {
                silent.call(mesos, "RECONCILE", json!({ "reconcile": { "tasks": reconcile } }));
            }
        });
        let noisy = &mut noisy;
        scope.spawn(move || {
            for n in 0..FLOOD {
                let (code, answer) = match n % 3 {
                    0 => noisy.call(mesos, "REVIVE", json!({})),
                    1 => noisy.call(mesos, "SUPPRESS", json!({})),
                    _ => noisy.call(mesos, "KILL", json!({ "kill": { "task_id": { "value": "nobody" } } })),
                };
                assert!(matches!(code, 202 | 403 | 429 | 503), "{answer}");
            }
        });
        for turn in 0..5 {
            serves(&cluster, &format!("honest-{turn}"));
        }
    });
    serves(&cluster, "after");
}
