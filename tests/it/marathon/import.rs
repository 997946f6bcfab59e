//! `skep import marathon`: a job file that runs.

use super::*;

#[test]
fn an_imported_app_is_a_job_file_that_can_be_applied() {
    let cluster = pool();
    let app = json!({ "app": {
        "id": "/web/shop", "cmd": "echo imported $MARATHON_APP_ID; sleep 600", "cpus": 0.1, "mem": 32, "instances": 2, "labels": { "team": "x" },
        "healthChecks": [{ "protocol": "COMMAND", "command": { "value": "true" }, "gracePeriodSeconds": 5 }, { "path": "/" }], "version": "2015-02-11T09:31:50.021Z", "tasksRunning": 2, "ports": [],
    } });
    let (file, to) = (cluster.folder.join("app.json"), cluster.folder.clone());
    std::fs::write(&file, app.to_string()).unwrap();
    let import = ["import", "marathon", file.to_str().unwrap(), "--to", to.to_str().unwrap()];
    let told = cluster.text(&import);
    assert!(told.contains("web-shop.toml") && told.contains("left out: /healthChecks(1)"), "{told}");
    let (text, code) = said(&cluster, &import);
    assert!(code == Some(2) && text.contains("is there already"), "{text}");
    cluster.text(&["apply", to.join("web-shop.toml").to_str().unwrap()]);
    cluster.until("it runs", |cluster| cluster.text(&["logs", "shop", "--role", "web"]).matches("imported /web/shop").count() == 2);
    let job = cluster.json(&["status", "shop", "--role", "web"]);
    assert_eq!((&job["labels"]["team"], job.get("made_by")), (&json!("x"), None), "{job}");
    cluster.until("both are well", |cluster| cluster.json(&["status", "shop", "--role", "web"])["health"]["healthy"] == 2);
    assert_eq!(get(&cluster, "/v2/apps")["apps"], json!([]), "it is a job, and no app");
    let (status, answer) = call(&cluster, "POST", "/v2/apps", &json!({ "id": "/web/shop", "cmd": "x" }));
    assert!(status == 409 && answer["message"].as_str().unwrap().contains("was not made of an app"), "{answer}");
    std::fs::write(&file, "{").unwrap();
    assert_eq!(said(&cluster, &import).1, Some(2));
}
