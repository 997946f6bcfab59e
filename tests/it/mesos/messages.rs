//! `MESSAGE` of Mesos' scheduler API: what a framework says to its tasks.

use super::*;
use crate::frameworks::messages::ECHO;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

#[test]
fn a_framework_of_mesos_says_something_to_its_task_and_to_nobody_elses() {
    let cluster = pool();
    let mesos = &cluster.mesos;
    let mut framework = Stream::subscribe(mesos, "speaker");
    framework.until("OFFERS");
    let offer = framework.offers()[0].clone();
    let launch = json!({ "type": "LAUNCH", "launch": { "task_infos": [task("echo", ECHO.trim_start_matches("#!/bin/sh\n"))] } });
    let accept = json!({ "accept": { "offer_ids": [offer["id"]], "operations": [launch] } });
    assert_eq!(framework.call(mesos, "ACCEPT", accept).0, 202);
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
