//! `MESSAGE`, `SHUTDOWN` and `RECONCILE` of Mesos' scheduler API: what a framework says to its tasks, and how it ends and asks after them.

use super::*;
use crate::frameworks::messages::ECHO;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

#[test]
fn a_framework_of_mesos_says_something_to_its_task_and_to_nobody_elses() {
    let cluster = pool();
    let mesos = &cluster.mesos;
    let (mut framework, offer) = Stream::offered(mesos, "speaker");
    framework.launch(mesos, &offer, &[task("echo", ECHO.trim_start_matches("#!/bin/sh\n"))]);
    framework.until_state(mesos, "echo", "TASK_RUNNING");
    let agent = &offer["agent_id"];
    let say = |framework: &Stream, agent: &Value, executor: &str, text: &str| {
        let message = json!({ "agent_id": agent, "executor_id": { "value": executor }, "data": STANDARD.encode(text) });
        framework.call(mesos, "MESSAGE", json!({ "message": message })).0
    };
    let stranger = Stream::subscribe(mesos, "stranger");
    let (elsewhere, nowhere) = (json!({ "value": "00000000000000ff" }), json!({ "value": "nowhere" }));
    for (speaker, agent, executor, text) in [
        (&framework, agent, "echo", "one"),
        (&stranger, agent, "echo", "psst"),
        (&framework, &elsewhere, "echo", "elsewhere"),
        (&framework, &nowhere, "echo", "nowhere"),
        (&framework, agent, "nobody", "nobody"),
        (&framework, agent, "echo", "two"),
        (&framework, agent, "echo", "quit"),
    ] {
        assert_eq!(say(speaker, agent, executor, text), 202, "as Mesos does, whoever may hear it: {text}");
    }
    framework.until_state(mesos, "echo", "TASK_FINISHED");
    let update = framework.records("UPDATE").pop().unwrap();
    let container = update["update"]["status"]["container_status"]["container_id"]["value"].as_str().unwrap().to_owned();
    let path = format!("/frameworks/{}/executors/echo/runs/{container}/stdout", framework.id);
    let read = operator(mesos, &json!({ "type": "READ_FILE", "read_file": { "path": path, "offset": 0 } }));
    let data = STANDARD.decode(read["read_file"]["data"].as_str().unwrap()).unwrap();
    assert_eq!(String::from_utf8_lossy(&data), "one\ntwo\n");
}

#[test]
fn an_executor_that_is_shut_down_is_a_task_that_is_killed_and_no_other() {
    let cluster = pool();
    let mesos = &cluster.mesos;
    let (mut framework, offer) = Stream::offered(mesos, "owner");
    framework.launch(mesos, &offer, &[task("one", "sleep 600"), task("two", "sleep 600")]);
    framework.until_state(mesos, "one", "TASK_RUNNING");
    framework.until_state(mesos, "two", "TASK_RUNNING");
    let agent = &offer["agent_id"];
    let shut = |speaker: &Stream, executor: &str, agent: &Value| {
        let shutdown = json!({ "executor_id": { "value": executor }, "agent_id": agent });
        speaker.call(mesos, "SHUTDOWN", json!({ "shutdown": shutdown })).0
    };
    let stranger = Stream::subscribe(mesos, "stranger");
    let before = framework.records("UPDATE").len();
    for (speaker, executor, agent) in
        [(&framework, "nobody", agent), (&framework, "two", &json!({ "value": "00000000000000ff" })), (&stranger, "two", agent)]
    {
        assert_eq!(shut(speaker, executor, agent), 202, "it is passed over: {executor}");
    }
    assert_eq!(shut(&framework, "one", agent), 202);
    framework.until_state(mesos, "one", "TASK_KILLED");
    let told = framework.records("UPDATE").split_off(before);
    assert!(told.iter().all(|event| event["update"]["status"]["task_id"]["value"] == "one"), "{told:?}");
    let states = get(mesos, "/tasks?task_id=two");
    assert_eq!(states["tasks"][0]["state"], "TASK_RUNNING", "{states}");
    // Once it has ended nothing is said of it.
    assert_eq!(shut(&framework, "one", agent), 202);
}

#[test]
fn a_framework_asks_after_very_many_tasks_at_once() {
    let cluster = pool();
    let framework = Stream::subscribe(&cluster.mesos, "curious");
    let tasks: Vec<Value> = (0..50_000).map(|n| json!({ "task_id": { "value": format!("nobody-{n}") } })).collect();
    let (code, answer) = framework.call(&cluster.mesos, "RECONCILE", json!({ "reconcile": { "tasks": tasks } }));
    assert_eq!(code, 202, "{answer}");
}
