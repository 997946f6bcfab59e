//! Maintenance in Mesos' words: a schedule, inverse offers and their answers, machines down and up.

use super::*;

#[test]
fn machines_are_scheduled_taken_down_and_up_and_frameworks_answer_inverse_offers() {
    let cluster = pool();
    let mesos = cluster.mesos.clone();
    let mut framework = Stream::subscribe(&mesos, "asked");
    let offer = loop {
        if let Some(offer) = framework.offers().into_iter().find(|offer| offer["hostname"] == "a1") {
            break offer;
        }
        framework.until_more();
    };
    let launch = json!({ "type": "LAUNCH", "launch": { "task_infos": [task("stays", "sleep 3600")] } });
    let accept = json!({ "accept": { "offer_ids": [offer["id"]], "operations": [launch] } });
    assert_eq!(framework.call(&mesos, "ACCEPT", accept).0, 202);
    framework.until_state(&mesos, "stays", "TASK_RUNNING");
    let machine = json!({ "hostname": "a1" });
    let start = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64 + 3_600_000_000_000;
    let window = json!({ "machine_ids": [machine], "unavailability": { "start": { "nanoseconds": start }, "duration": { "nanoseconds": 60_000_000_000_u64 } } });
    let update = json!({ "type": "UPDATE_MAINTENANCE_SCHEDULE", "update_maintenance_schedule": { "schedule": { "windows": [window] } } });
    assert!(
        ask(&mesos, "POST", "/api/v1", &[("Content-Type", "application/json")], &update.to_string()).starts_with("HTTP/1.1 403 "),
        "who is nobody may not"
    );
    let guarded = |call: &Value| {
        let output = Command::new("curl")
            .args(["-sk", "-H", "Content-Type: application/json", "-H", &format!("Authorization: Bearer {}", cluster.token)])
            .args(["-d", &call.to_string(), &format!("{}/api/v1", cluster.url)])
            .ends();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(guarded(&update), "");
    framework.until("INVERSE_OFFERS");
    let asked = framework.records("INVERSE_OFFERS")[0]["inverse_offers"]["inverse_offers"][0].clone();
    assert_eq!(asked["agent_id"], offer["agent_id"]);
    let schedule = operator(&mesos, &json!({ "type": "GET_MAINTENANCE_SCHEDULE" }));
    assert_eq!(schedule["get_maintenance_schedule"]["schedule"]["windows"][0]["machine_ids"][0]["hostname"], "a1", "{schedule}");
    let yes = json!({ "accept_inverse_offers": { "inverse_offer_ids": [asked["id"]] } });
    assert_eq!(framework.call(&mesos, "ACCEPT_INVERSE_OFFERS", yes).0, 202);
    let status = operator(&mesos, &json!({ "type": "GET_MAINTENANCE_STATUS" }));
    let draining = &status["get_maintenance_status"]["status"]["draining_machines"][0];
    assert_eq!((&draining["id"]["hostname"], &draining["statuses"][0]["status"]), (&json!("a1"), &json!("ACCEPT")), "{status}");
    assert_eq!(guarded(&json!({ "type": "START_MAINTENANCE", "start_maintenance": { "machines": [machine] } })), "");
    framework.until_state(&mesos, "stays", "TASK_KILLED");
    let status = operator(&mesos, &json!({ "type": "GET_MAINTENANCE_STATUS" }));
    assert_eq!(status["get_maintenance_status"]["status"]["down_machines"][0]["hostname"], "a1", "{status}");
    assert_eq!(guarded(&json!({ "type": "STOP_MAINTENANCE", "stop_maintenance": { "machines": [machine] } })), "");
    cluster.until("it is up again", |cluster| {
        cluster.json(&["agents"])["agents"].as_array().unwrap().iter().all(|row| row["mode"] == "active")
    });
}
