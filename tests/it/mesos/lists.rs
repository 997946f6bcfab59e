//! What Mesos' tools read: lists of version 0 and 1, a page of them, and the events of those who watch; and what of a framework changes while it runs.

use super::*;

/// Tasks that the framework of these tests has.
const TASKS: usize = 6;

/// A framework that runs some tasks for long.
fn busy(cluster: &Cluster) -> Stream {
    let (framework, offer) = Stream::offered(&cluster.mesos, "busy");
    let named = |n| {
        let mut task = task(&format!("t-{n}"), "sleep 600");
        task["name"] = "worker".into();
        task
    };
    framework.launch(&cluster.mesos, &offer, &(0..TASKS).map(named).collect::<Vec<_>>());
    cluster.until("all of its tasks run", |cluster| {
        let tasks = get(&cluster.mesos, "/tasks");
        tasks["tasks"].as_array().unwrap().iter().filter(|task| task["state"] == "TASK_RUNNING").count() == TASKS
    });
    framework
}

#[test]
fn lists_have_what_tools_read_and_are_read_in_pages() {
    let cluster = pool();
    let framework = busy(&cluster);
    let names = |path: &str| -> Vec<String> {
        let tasks = get(&cluster.mesos, path)["tasks"].as_array().unwrap().clone();
        tasks.iter().map(|task| task["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((names("/tasks?limit=2&offset=1").len(), names("/tasks?limit=-1").len(), names("/tasks?offset=6").len()), (2, TASKS, 0));
    assert_eq!(names("/master/tasks?task_id=t-3"), ["t-3"]);
    assert_eq!(names(&format!("/tasks.json?framework_id={}&order=asc", framework.id)).len(), TASKS);
    assert!(names("/tasks?framework_id=f0").is_empty());
    let summary = get(&cluster.mesos, "/master/state-summary");
    assert_eq!((&summary["frameworks"][0]["TASK_RUNNING"], &summary["frameworks"][0]["TASK_LOST"]), (&json!(TASKS), &json!(0)));
    let on: u64 = summary["slaves"].as_array().unwrap().iter().map(|slave| slave["TASK_RUNNING"].as_u64().unwrap()).sum();
    assert_eq!((on, summary["frameworks"][0]["slave_ids"].as_array().unwrap().len()), (TASKS as u64, 1));
    let state = get(&cluster.mesos, "/state");
    assert_eq!((state["frameworks"][0]["tasks"].as_array().unwrap().len(), &state["activated_slaves"]), (TASKS, &json!(2)));
    assert!(state["start_time"].as_f64().unwrap() > 1e9 && state["leader_info"]["port"].is_u64(), "{state}");
    let page = get(&cluster.mesos, "/master/frameworks/?limit=2&offset=3");
    assert_eq!(page["frameworks"][0]["tasks"].as_array().unwrap().len(), 2);
    assert_eq!(page["frameworks"][0]["used_resources"]["cpus"], json!(0.6));
    let slaves = get(&cluster.mesos, "/slaves");
    let id = slaves["slaves"][0]["id"].as_str().unwrap();
    assert_eq!(get(&cluster.mesos, &format!("/slaves?slave_id={id}"))["slaves"].as_array().unwrap().len(), 1);
    assert!(slaves["slaves"][0]["unreserved_resources_full"].is_array());
    let roles = get(&cluster.mesos, "/roles");
    assert_eq!((&roles["roles"][0]["name"], &roles["roles"][0]["allocated"]["cpus"]), (&json!("*"), &json!(0.6)));
    let figures = get(&cluster.mesos, "/metrics/snapshot");
    assert_eq!(
        (&figures["master/tasks_running"], &figures["master/cpus_total"], &figures["master/slaves_active"]),
        (&json!(6.0), &json!(4.0), &json!(2.0))
    );
    assert!(figures.as_object().unwrap().values().all(Value::is_number), "{figures}");
}

#[test]
fn the_operator_api_answers_what_tools_ask() {
    let cluster = pool();
    let framework = busy(&cluster);
    let call = |kind: &str| operator(&cluster.mesos, &json!({ "type": kind }));
    assert_eq!(call("GET_HEALTH")["get_health"]["healthy"], true);
    assert_eq!(call("GET_VERSION")["get_version"]["version_info"]["version"], "1.11.0");
    let master = call("GET_MASTER");
    assert!(
        master["get_master"]["start_time"].as_f64().unwrap() > 1e9 && master["get_master"]["master_info"]["pid"].is_string(),
        "{master}"
    );
    assert_eq!(call("GET_AGENTS")["get_agents"]["agents"].as_array().unwrap().len(), 2);
    let frameworks = call("GET_FRAMEWORKS");
    let row = &frameworks["get_frameworks"]["frameworks"][0];
    assert_eq!((&row["framework_info"]["id"]["value"], &row["connected"]), (&json!(framework.id), &json!(true)));
    let tasks = call("GET_TASKS");
    let row = &tasks["get_tasks"]["tasks"][0];
    assert_eq!((tasks["get_tasks"]["tasks"].as_array().unwrap().len(), &row["statuses"][0]["state"]), (TASKS, &json!("TASK_RUNNING")));
    let page = operator(&cluster.mesos, &json!({ "type": "GET_TASKS", "get_tasks": { "limit": 2, "offset": 5 } }));
    assert_eq!(page["get_tasks"]["tasks"].as_array().unwrap().len(), 1);
    let state = call("GET_STATE");
    for part in ["get_agents", "get_frameworks", "get_tasks", "get_executors"] {
        assert!(state["get_state"][part].is_object(), "{part}: {state}");
    }
    let metrics = call("GET_METRICS");
    let running = |row: &&Value| row["name"] == "master/tasks_running";
    assert_eq!(metrics["get_metrics"]["metrics"].as_array().unwrap().iter().find(running).unwrap()["value"], json!(6.0));
    let roles = call("GET_ROLES");
    assert_eq!(roles["get_roles"]["roles"][0]["frameworks"][0]["value"], json!(framework.id));
    for (body, expected) in [(json!({ "type": "NEVER" }), 501), (json!({}), 400), (json!([]), 400), (json!({ "type": "DRAIN_AGENT" }), 403)]
    {
        let answer = ask(&cluster.mesos, "POST", "/api/v1", &[("Content-Type", "application/json")], &body.to_string());
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{body}: {answer}");
    }
}

#[test]
fn who_watches_is_told_all_there_is_and_then_what_changes() {
    let mut cluster = pool();
    let body = json!({ "type": "SUBSCRIBE" }).to_string();
    let socket = send(&cluster.mesos, "POST", "/api/v1", &[("Content-Type", "application/json")], &body);
    let mut watch = Stream { socket, heard: String::new(), id: String::new(), stream: String::new(), since: Instant::now() };
    watch.until("HEARTBEAT");
    let subscribed = &watch.records("SUBSCRIBED")[0]["subscribed"];
    assert_eq!(subscribed["get_state"]["get_agents"]["agents"].as_array().unwrap().len(), 2, "{subscribed}");
    let framework = busy(&cluster);
    watch.until("FRAMEWORK_ADDED");
    watch.until("TASK_ADDED");
    watch.until("TASK_RUNNING");
    let added = &watch.records("TASK_ADDED")[0]["task_added"]["task"];
    assert_eq!((&added["name"], added["task_id"]["value"].as_str().map(|id| &id[..2])), (&json!("worker"), Some("t-")), "{added}");
    let updated = &watch.records("TASK_UPDATED")[0]["task_updated"];
    assert_eq!((&updated["framework_id"]["value"], updated["state"].is_string()), (&json!(framework.id), true), "{updated}");
    cluster.add_agent("a3", "cpu=1,memory=1GiB");
    watch.until("AGENT_ADDED");
    assert_eq!(watch.records("AGENT_ADDED")[0]["agent_added"]["agent"]["agent_info"]["hostname"], "a3");
    cluster.kill_agent("a3");
    watch.until("AGENT_REMOVED");
    assert_eq!(framework.call(&cluster.mesos, "TEARDOWN", json!({})).0, 202);
    watch.until("FRAMEWORK_REMOVED");
}

#[test]
fn a_framework_says_what_it_wants_to_be_offered_and_changes_that() {
    let cluster = pool();
    let mesos = &cluster.mesos;
    let hostname = |name: &str| {
        let constraint = json!({ "selector": { "pseudoattribute_type": "HOSTNAME" }, "predicate": { "text_matches": { "regex": name } } });
        json!({ "role_constraints": { "*": { "groups": [{ "attribute_constraints": [constraint] }] } } })
    };
    let info = json!({ "user": "root", "name": "picky" });
    let mut framework = Stream::subscribe_with(mesos, &json!({ "framework_info": info, "offer_constraints": hostname("a[2-9]") }));
    framework.until("OFFERS");
    let shown: Vec<Value> = framework.offers().iter().map(|offer| offer["hostname"].clone()).collect();
    assert_eq!(shown, ["a2"]);
    let update = |framework: &Stream, info: &Value, constraints: Value| {
        let update = json!({ "framework_info": info, "offer_constraints": constraints });
        framework.call(mesos, "UPDATE_FRAMEWORK", json!({ "update_framework": update }))
    };
    assert_eq!(update(&framework, &info, hostname("a1")).0, 200);
    framework.until("RESCIND");
    framework.until("\"hostname\":\"a1\"");
    let large = json!({ "*": { "min_allocatable_resources": { "quantities": [{ "quantities": { "cpus": { "value": 64 } } }] } } });
    let renamed = json!({ "user": "root", "name": "renamed", "offer_filters": large });
    assert_eq!(update(&framework, &renamed, json!({})).0, 200);
    assert!(get(mesos, "/frameworks")["frameworks"][0]["name"] == "renamed");
    for (info, constraints, why) in [
        (json!({ "user": "other", "name": "x" }), json!({}), "user"),
        (json!({ "user": "root", "name": "x", "id": { "value": "f123" } }), json!({}), "differs"),
        (info.clone(), json!({ "role_constraints": { "web": { "groups": [{ "attribute_constraints": [] }] } } }), "role"),
        (info.clone(), hostname("("), "pattern"),
        (json!({ "user": "root" }), json!({}), "name"),
    ] {
        let (code, answer) = update(&framework, &info, constraints);
        assert!(code == 400 && answer.contains(why), "{why}: {answer}");
    }
}

#[test]
fn what_a_framework_says_of_a_task_is_in_the_lists_also_once_it_has_ended() {
    let cluster = pool();
    // Whoever has a port has it of its host.
    cluster.text(&["roles", "set", "default", "--host-network", "true"]);
    let mesos = cluster.mesos.clone();
    let (mut framework, offer) = Stream::offered(&mesos, "told");
    let port =
        offer["resources"].as_array().unwrap().iter().find(|resource| resource["name"] == "ports").unwrap()["ranges"]["range"][0]["begin"]
            .clone();
    let labels = json!({ "labels": [{ "key": "tier", "value": "web" }, { "key": "é", "value": "" }] });
    let discovery =
        json!({ "visibility": "CLUSTER", "name": "site", "ports": { "ports": [{ "number": port, "name": "http", "protocol": "tcp" }] } });
    let mut web = task("web-1", "sleep 600");
    (web["name"], web["labels"], web["discovery"]) = ("web".into(), labels.clone(), discovery.clone());
    let range = json!({ "range": [{ "begin": port, "end": port }] });
    web["resources"].as_array_mut().unwrap().push(json!({ "name": "ports", "type": "RANGES", "ranges": range }));
    let mut huge = task("huge", "true");
    huge["labels"] = json!({ "labels": [{ "key": "a", "value": "x".repeat(70_000) }] });
    framework.launch(&mesos, &offer, &[web, huge]);
    framework.until_state(&mesos, "huge", "TASK_ERROR");
    framework.until_state(&mesos, "web-1", "TASK_RUNNING");
    let is_said = |ended: bool| {
        let tasks = operator(&mesos, &json!({ "type": "GET_TASKS" }));
        let row = &tasks["get_tasks"][if ended { "completed_tasks" } else { "tasks" }][0];
        assert_eq!((&row["task_id"]["value"], &row["name"]), (&json!("web-1"), &json!("web")), "{tasks}");
        assert_eq!((&row["labels"], &row["discovery"]), (&labels, &discovery), "{tasks}");
        let plain = get(&mesos, "/tasks?task_id=web-1")["tasks"][0].clone();
        assert_eq!((&plain["id"], &plain["name"]), (&json!("web-1"), &json!("web")));
        assert_eq!((&plain["labels"], &plain["discovery"]), (&labels["labels"], &discovery));
        plain
    };
    assert_eq!(is_said(false)["resources"]["ports"], format!("[{port}-{port}]"));
    let state = get(&mesos, "/state");
    assert_eq!(state["frameworks"][0]["tasks"][0]["discovery"]["name"], "site", "what Mesos-DNS reads");
    assert_eq!(framework.call(&mesos, "KILL", json!({ "kill": { "task_id": { "value": "web-1" } } })).0, 202);
    // Its end is not acknowledged, so it stays in the lists.
    framework.until("TASK_KILLED");
    is_said(true);
}

#[test]
fn a_framework_hears_of_each_agent_that_goes_away() {
    let mut cluster = pool();
    cluster.add_agent("a3", "cpu=1,memory=1GiB");
    let mesos = cluster.mesos.clone();
    let id = || {
        let slaves = get(&mesos, "/slaves");
        let row = slaves["slaves"].as_array().unwrap().iter().find(|slave| slave["hostname"] == "a3").cloned();
        row.map(|row| row["id"].as_str().unwrap().to_owned())
    };
    cluster.until("the third agent is there", |_| id().is_some());
    let (id, mut framework) = (id().unwrap(), Stream::subscribe(&mesos, "idle"));
    cluster.kill_agent("a3");
    framework.since = Instant::now();
    while !framework.records("FAILURE").iter().any(|event| event["failure"]["agent_id"]["value"] == id) {
        framework.until_more();
    }
}

#[test]
fn a_framework_hears_whether_its_task_is_well_and_that_it_was_ended_for_it() {
    let cluster = pool();
    let mesos = cluster.mesos.clone();
    let (mut framework, offer) = Stream::offered(&mesos, "careful");
    let mut sick = task("sick", "touch /sandbox/up; while test ! -e /sandbox/ill; do sleep 0.1; done; rm /sandbox/up; sleep 600");
    // It falls ill once it was found to be well.
    sick["health_check"] = json!({
        "type": "COMMAND", "command": { "value": "test -e /sandbox/up && touch /sandbox/ill" }, "delay_seconds": 0,
        "interval_seconds": 0.2, "consecutive_failures": 3, "grace_period_seconds": 60,
    });
    let mut stray = task("stray", "true");
    stray["health_check"] = json!({ "type": "TCP", "tcp": { "port": 80 } });
    framework.launch(&mesos, &offer, &[sick, stray]);
    framework.until_state(&mesos, "stray", "TASK_ERROR");
    framework.until_state(&mesos, "sick", "TASK_KILLED");
    let updates = framework.records("UPDATE");
    let of_sick = || updates.iter().map(|event| &event["update"]["status"]).filter(|status| status["task_id"]["value"] == "sick");
    let checked = of_sick().filter(|status| status["reason"] == "REASON_TASK_HEALTH_CHECK_STATUS_UPDATED");
    let found: Vec<(&Value, &Value)> = checked.map(|status| (&status["state"], &status["healthy"])).collect();
    let running = json!("TASK_RUNNING");
    assert_eq!(found.first(), Some(&(&running, &json!(true))), "{found:?}");
    let ill = || found.iter().skip_while(|(_, healthy)| **healthy == true);
    assert!(ill().count() > 0 && ill().all(|(state, healthy)| **state == running && **healthy == false), "{found:?}");
    let last = of_sick().next_back().unwrap();
    assert_eq!((&last["healthy"], &last["source"]), (&json!(false), &json!("SOURCE_EXECUTOR")), "{last}");
    assert!(last["message"].as_str().unwrap().contains("health"), "{last}");
}
