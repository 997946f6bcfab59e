//! The audit record of a master: who called to change something, through the command line, our API and Mesos', and that no secret is in it.

use crate::cluster::{Cluster, said};
use crate::frameworks::caller::{Caller, on_runtime};
use crate::mesos::ask;
use serde_json::{Value, json};

/// The record, newest first: path and what it was, status and token of each.
fn calls(cluster: &Cluster) -> Vec<(String, Value, Value)> {
    let answer = cluster.json(&["audit", "--limit", "1000"]);
    let row = |row: &Value| {
        let call = [&row["method"], &row["path"], &row["what"]].map(|text| text.as_str().unwrap_or("").to_owned()).join(" ");
        (call.trim_end().to_owned(), row["status"].clone(), row["token"].clone())
    };
    answer["calls"].as_array().unwrap().iter().map(row).collect()
}

fn token(cluster: &Cluster, flags: &[&str]) -> (String, String) {
    let made = cluster.json(&[&["tokens", "create"], flags].concat());
    (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned())
}

/// The id that stands in a token.
fn id(token: &str) -> String {
    token.strip_prefix("skep_").unwrap().split('_').next().unwrap().to_owned()
}

/// The status of a call by `token`.
fn call(cluster: &Cluster, token: &str, method: &str, path: &str, body: &str) -> u16 {
    on_runtime(async {
        let caller = Caller::new(cluster, token);
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let request = caller.http.request(method, format!("{}{path}", caller.url)).bearer_auth(token);
        request.header("content-type", "application/json").body(body.to_owned()).send().await.unwrap().status().as_u16()
    })
}

#[test]
fn each_call_that_changes_something_is_on_record_with_who_made_it_and_how_it_ended() {
    let mut cluster = Cluster::master(&["--mesos", "127.0.0.1:0"]);
    let admin = id(&cluster.token);
    let (viewer, viewers) = token(&cluster, &["--level", "viewer"]);
    cluster.text(&["roles", "set", "web", "--weight", "2"]);
    cluster.text(&["roles"]);
    assert_eq!(call(&cluster, &viewers, "PUT", "/v1/roles/web?because=5ecret", "{\"weight\":5}"), 403);
    assert_eq!(call(&cluster, &viewers, "POST", "/v1/plan", "{}"), 400);
    assert_eq!(call(&cluster, "skep_0_5ecret", "POST", "/v1/jobs", "{}"), 401);
    assert_eq!(call(&cluster, &cluster.token, "POST", "/v1/jobs", "{\"env\":\"5ecret\"}"), 400);
    assert_eq!(call(&cluster, &cluster.token, "DELETE", &format!("/v1/tokens/{viewers}"), ""), 404);
    assert_eq!(call(&cluster, &cluster.token, "GET", "/v1/backup", ""), 200);
    let mesos = |call: Value| ask(&cluster.mesos, "POST", "/api/v1", &[("Content-Type", "application/json")], &call.to_string());
    assert!(mesos(json!({ "type": "GET_AGENTS" })).contains(" 200 "));
    let weights = json!({ "type": "UPDATE_WEIGHTS", "update_weights": { "weight_infos": [{ "role": "web", "weight": 3.0 }] } });
    assert!(mesos(weights).contains(" 403 "));
    let unfit = json!({ "type": "SUBSCRIBE", "subscribe": { "framework_info": { "user": "x", "name": "x", "role": "a//b" } } });
    let answer = ask(&cluster.mesos, "POST", "/api/v1/scheduler", &[("Content-Type", "application/json")], &unfit.to_string());
    assert!(answer.contains(" 200 ") && answer.contains("ERROR"), "{answer}");
    cluster.text(&["tokens", "revoke", &viewer]);

    let of = |call: &str, status: u16, who: &str| (call.to_owned(), json!(status), json!(Some(who).filter(|who| !who.is_empty())));
    let expected = [
        of(&format!("DELETE /v1/tokens/{viewer}"), 204, &admin),
        of("POST /api/v1/scheduler SUBSCRIBE", 400, ""),
        of("POST /api/v1 UPDATE_WEIGHTS", 403, ""),
        of("GET /v1/backup", 200, &admin),
        of("DELETE /v1/tokens/…", 404, &admin),
        of("POST /v1/jobs", 400, &admin),
        of("PUT /v1/roles/web", 403, &viewer),
        of("PUT /v1/roles/web", 200, &admin),
        of("POST /v1/tokens", 201, &admin),
    ];
    assert_eq!(calls(&cluster), expected);
    let shown = cluster.text(&["audit"]);
    assert!(shown.contains("UPDATE_WEIGHTS") && shown.contains(&admin) && shown.lines().count() == expected.len() + 1, "{shown}");

    // It outlives the master, by pages too, and nothing secret is in its files.
    cluster.kill_master();
    cluster.start_master();
    assert_eq!(calls(&cluster), expected);
    let page = cluster.json(&["audit", "--limit", "3"]);
    assert_eq!((page["calls"][2]["path"].as_str(), page["next"].as_u64()), (Some("/api/v1"), Some(7)));
    let page = cluster.json(&["audit", "--limit", "5", "--before", "6"]);
    assert_eq!((page["calls"][0]["status"].as_u64(), page["calls"][4]["number"].as_u64()), (Some(404), Some(1)));
    assert_eq!(cluster.json(&["audit", "--before", "1"])["calls"], json!([]));
    let secret = cluster.token.rsplit('_').next().unwrap();
    for entry in std::fs::read_dir(cluster.folder.join("master/audit")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains("5ecret") && !text.contains(secret) && !text.contains(viewers.rsplit('_').next().unwrap()), "{text}");
    }
}

#[test]
fn only_operators_of_all_roles_see_the_record() {
    let cluster = Cluster::master(&[]);
    for (flags, expected) in
        [(&["--level", "viewer"][..], 403), (&["--level", "admin", "--role", "web"], 403), (&["--level", "operator"], 200)]
    {
        assert_eq!(call(&cluster, &token(&cluster, flags).1, "GET", "/v1/audit", ""), expected, "{flags:?}");
    }
    for query in ["limit=0", "limit=1001", "before=-1", "role=web"] {
        assert_eq!(call(&cluster, &cluster.token, "GET", &format!("/v1/audit?{query}"), ""), 400, "{query}");
    }
    assert_ne!(said(&cluster, &["audit", "--limit", "0"]).1, Some(0));
}

#[test]
fn a_call_whose_client_leaves_before_it_is_answered_is_on_record_too() {
    let cluster = Cluster::master(&[]);
    let leave = || {
        on_runtime(async {
            let caller = Caller::new(&cluster, &cluster.token);
            // A body that never ends.
            let body = reqwest::Body::wrap_stream(futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
            let request = caller
                .http
                .post(format!("{}/v1/jobs", caller.url))
                .bearer_auth(&caller.token)
                .header("content-type", "application/json")
                .body(body);
            // Where the machine is slow it may be answered yet: that the body broke off.
            let _ = tokio::time::timeout(std::time::Duration::from_millis(500), request.send()).await;
        });
    };
    // A busy machine may not have it at its route by then: the next one may be.
    cluster.until("it is on record", |cluster| {
        leave();
        calls(cluster).iter().any(|(call, ..)| call == "POST /v1/jobs")
    });
    let (_, status, token) = calls(&cluster).remove(0);
    // Where its route sees that the body broke off, it says so though nobody hears it.
    assert!(status == Value::Null || status == 400, "{status}");
    assert_eq!(token, json!(id(&cluster.token)));
}
