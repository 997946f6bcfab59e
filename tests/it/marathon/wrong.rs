//! What is wrong, hostile or meant otherwise, and what is said to it.

use super::*;

#[test]
fn an_app_that_cannot_be_is_refused_by_the_path_of_what_is_wrong() {
    let cluster = pool();
    let app = |more: Value| {
        let mut app = json!({ "id": "/a", "cmd": "sleep 600", "cpus": 0.1, "mem": 32 });
        app.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        app
    };
    for (body, expected, path) in [
        (json!([]), 400, "/"),
        (json!({ "cmd": "x" }), 422, "/id"),
        (json!({ "id": 3, "cmd": "x" }), 400, "/id"),
        (app(json!({ "cpus": "much" })), 400, "/cpus"),
        (app(json!({ "cpus": -1 })), 422, "/cpus"),
        (app(json!({ "id": "/A" })), 422, "/id"),
        (app(json!({ "id": "/a/tasks" })), 422, "/id"),
        (app(json!({ "id": "/" })), 422, "/id"),
        (app(json!({ "id": "/a\u{1b}[31m" })), 422, "/id"),
        (app(json!({ "id": "/<script>" })), 422, "/id"),
        (app(json!({ "id": format!("/{}", "x".repeat(5_000)) })), 422, "/id"),
        (app(json!({ "id": format!("{}/x", "/a".repeat(20)) })), 422, "/id"),
        (app(json!({ "constraints": [["rack", "LIKE", "("]] })), 422, "/constraints/0"),
        (app(json!({ "mem": 1 })), 422, "/mem"),
        (app(json!({ "env": { "A=B": "x" } })), 422, "/env"),
        (app(json!({ "labels": { "a": "x".repeat(40_000) } })), 422, "/labels"),
        (app(json!({ "container": { "type": "DOCKER", "docker": { "image": "redis" } } })), 422, "/container/docker/image"),
        (
            app(json!({ "container": { "type": "MESOS", "volumes": [{ "containerPath": "/d", "hostPath": "/etc", "mode": "RO" }] } })),
            422,
            "/container/volumes",
        ),
        (app(json!({ "args": ["x"] })), 422, "/"),
    ] {
        let (status, answer) = call(&cluster, "POST", "/v2/apps", &body);
        let paths: Vec<&str> = answer["details"].as_array().into_iter().flatten().filter_map(|detail| detail["path"].as_str()).collect();
        assert!(status == expected && paths.contains(&path) && answer["message"].is_string(), "{body}: {status} {answer}");
    }
    assert_eq!(get(&cluster, "/v2/apps")["apps"], json!([]), "nothing of all this was made");
}

#[test]
fn requests_that_are_wrong_are_told_so_with_the_codes_of_marathon() {
    let cluster = Cluster::master(&["--marathon", "127.0.0.1:0"]);
    let raw = |method: &str, path: &str, body: &str| {
        let answer = ask(&cluster.marathon, method, path, &[("Content-Type", "application/json")], body);
        answer.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok()).unwrap_or(0)
    };
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for (method, path, body, expected) in [
        ("POST", "/v2/apps", "{", 400),
        ("POST", "/v2/apps", "", 400),
        ("POST", "/v2/apps", &deep, 400),
        ("POST", "/v2/apps", "\u{0}", 400),
        ("PUT", "/v2/apps", "{}", 400),
        ("PUT", "/v2/apps", "[3]", 400),
        ("PUT", "/v2/apps", r#"[{"id":"/x","cmd":"a"},{"id":"x","cmd":"a"}]"#, 422),
        ("PUT", "/v2/apps//a", r#"{"id":"/b","cmd":"x"}"#, 422),
        ("PUT", "/v2/apps/a", r#"{"version":"2001-01-01T00:00:00.000Z"}"#, 404),
        ("GET", "/v2/apps/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "", 404),
        ("GET", "/v2/apps/a%00b", "", 404),
        ("GET", "/v2/apps/%ff", "", 404),
        ("GET", "/v2/apps?label=a%20b", "", 400),
        ("GET", "/v2/tasks?status=odd", "", 400),
        ("POST", "/v2/tasks/delete", "{}", 400),
        ("POST", "/v2/tasks/delete?scale=true&wipe=true", r#"{"ids":[]}"#, 400),
        ("DELETE", "/v2/apps/a/tasks/x", "", 404),
        ("DELETE", "/v2/deployments/none", "", 404),
        ("DELETE", "/v2/queue//a/delay", "", 404),
        ("GET", "/v2/groups/none", "", 404),
        ("PUT", "/v2/groups/none", r#"{"scaleBy":2}"#, 404),
        ("PUT", "/v2/groups", r#"{"scaleBy":-1}"#, 422),
        ("PUT", "/v2/groups/g", r#"{"apps":[{"id":"/elsewhere/a","cmd":"x"}]}"#, 422),
        ("PUT", "/v2/groups/g", r#"{"dependencies":["/x"]}"#, 422),
        ("PUT", "/v2/groups/g", r#"{"apps":{}}"#, 422),
        ("PUT", "/v2/groups/g", r#"{"apps":[{"id":"a","cmd":"x","dependencies":["b"]},{"id":"b","cmd":"x","dependencies":["a"]}]}"#, 422),
        ("POST", "/v2/groups", "[]", 400),
        ("POST", "/v2/deployments", "{}", 405),
        ("DELETE", "/v2/apps", "", 405),
        ("GET", "/v2/eventSubscriptions", "", 400),
        ("POST", "/v2/pods", "{}", 501),
        ("GET", "/v2/nothing", "", 404),
        ("GET", "/v1/jobs", "", 404),
    ] {
        let status = raw(method, path, body);
        assert_eq!(status, expected, "{method} {path} {}", &body[..body.len().min(80)]);
    }
    assert_eq!(get(&cluster, "/v2/apps")["apps"], json!([]), "nothing of all this was made");
    let plain = ask(&cluster.marathon, "GET", "/ping", &[], "");
    assert!(plain.ends_with("\r\n\r\npong"), "{plain}");
    let hostile = ask(&cluster.marathon, "GET", "/v2/apps", &[("Origin", "http://evil.example")], "");
    assert!(hostile.starts_with("HTTP/1.1 403 "), "{hostile}");
}

#[test]
fn an_update_says_what_changes_and_the_whole_says_it_all() {
    let cluster = pool();
    let app = json!({ "id": "/a", "cmd": "sleep 600", "cpus": 0.1, "mem": 32, "env": { "A": "b" }, "instances": 1 });
    let (status, result) = call(&cluster, "PUT", "/v2/apps//a", &app);
    assert!(status == 201 && result["version"].is_string() && result["deploymentId"].is_string(), "{status} {result}");
    cluster.until("its deployment is over", is_settled);
    let version = get(&cluster, "/v2/apps/a")["app"]["version"].clone();
    // The same again is nothing new.
    let (status, result) = call(&cluster, "PUT", "/v2/apps/a", &json!({ "cmd": "sleep 600", "env": { "A": "b" } }));
    assert_eq!((status, &result["version"]), (200, &version), "{result}");
    assert!(is_settled(&cluster));
    let (status, _) = call(&cluster, "PATCH", "/v2/apps/a?force=True", &json!({ "args": ["/bin/sleep", "601"], "mem": null }));
    assert_eq!(status, 200);
    cluster.until("its deployment is over", is_settled);
    let shown = get(&cluster, "/v2/apps/a")["app"].clone();
    assert!(
        shown.get("cmd").is_none() && shown["args"] == json!(["/bin/sleep", "601"]) && shown["env"]["A"] == "b" && shown["mem"] == 32,
        "{shown}"
    );
    assert_ne!(shown["version"], version);
    let (status, _) =
        call(&cluster, "PUT", "/v2/apps/a?partialUpdate=false", &json!({ "cmd": "sleep 602", "cpus": 0.1, "mem": 33, "instances": 2 }));
    assert_eq!(status, 200);
    cluster.until("its deployment is over", is_settled);
    let shown = get(&cluster, "/v2/apps/a?embed=app.counts&embed=app.taskStats")["app"].clone();
    assert!(shown["env"] == json!({}) && shown["mem"] == 33 && shown["tasksRunning"] == 2 && shown.get("tasks").is_none(), "{shown}");
    assert_eq!(shown["taskStats"]["totalSummary"]["stats"]["counts"]["running"], 2);
    // What a client was given it can give back.
    let mut whole = get(&cluster, "/v2/apps/a")["app"].clone();
    let (status, result) = call(&cluster, "PUT", "/v2/apps/a", &whole);
    assert_eq!((status, &result["version"]), (200, &whole["version"]), "{result}");
    whole["instances"] = 1.into();
    assert_eq!(call(&cluster, "PUT", "/v2/apps/a", &whole).0, 200);
    cluster.until("one of two is left", |cluster| get(cluster, "/v2/apps/a")["app"]["tasksRunning"] == 1 && is_settled(cluster));
    // A dry run of a group changes nothing.
    let dry = json!({ "apps": [{ "id": "b", "cmd": "x", "cpus": 0.1, "mem": 32 }] });
    let (status, plan) = call(&cluster, "PUT", "/v2/groups?dryRun=true", &dry);
    let actions: Vec<&Value> = plan["steps"].as_array().unwrap().iter().map(|step| &step["actions"][0]["action"]).collect();
    assert_eq!((status, actions), (200, vec![&json!("StartApplication"), &json!("StopApplication")]), "{plan}");
    assert_eq!(get(&cluster, "/v2/apps")["apps"].as_array().unwrap().len(), 1);
    let (status, answer) = call(&cluster, "DELETE", "/v2/apps/a", &Value::Null);
    assert!(status == 200 && answer["deploymentId"].is_string());
    // A group without apps is there all the same, and gone when it is taken away.
    assert_eq!(call(&cluster, "POST", "/v2/groups", &json!({ "id": "/x/y" })).0, 201);
    let tree = get(&cluster, "/v2/groups");
    assert_eq!((&tree["groups"][0]["id"], &tree["groups"][0]["groups"][0]["id"]), (&json!("/x"), &json!("/x/y")), "{tree}");
    assert_eq!(call(&cluster, "DELETE", "/v2/groups/x", &Value::Null).0, 200);
    assert_eq!(get(&cluster, "/v2/groups")["groups"], json!([]));
    assert_eq!(call(&cluster, "POST", "/v2/groups", &json!({ "id": "/g".repeat(9) })).0, 422);
    // Who makes it again at once waits for its end, where that is forced.
    let (status, answer) = call(&cluster, "POST", "/v2/apps?force=true", &app);
    assert_eq!(status, 201, "{answer}");
}
