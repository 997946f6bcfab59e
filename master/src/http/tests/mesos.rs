//! Mesos' API as clients of its port meet it, where no shard answers.

use super::Closed;
use crate::http::body::TEXT_BYTES_MAX;
use crate::http::mesos::{CALL_BYTES_MAX, plain};
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, Version, header};
use serde_json::{Value, json};
use tower::ServiceExt as _;

fn port(closed: &Closed) -> Router {
    plain(&closed.api, 5_050)
}

async fn ask(router: &Router, request: Request<Body>) -> Response<Body> {
    router.clone().oneshot(request).await.unwrap()
}

fn get(path: &str) -> axum::http::request::Builder {
    Request::builder().uri(path).header(header::HOST, "localhost:5050")
}

fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    get(path).method("POST").header(header::CONTENT_TYPE, "application/json").body(body.into()).unwrap()
}

async fn json(response: Response<Body>) -> Value {
    serde_json::from_slice(&axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap()).unwrap()
}

#[tokio::test]
async fn both_apis_are_also_below_the_masters_name_and_with_a_slash_behind() {
    let closed = Closed::new();
    let router = port(&closed);
    for path in ["/api/v1/scheduler", "/api/v1/scheduler/", "/master/api/v1/scheduler", "/master/api/v1/scheduler/"] {
        let response = ask(&router, get(path).body(Body::empty()).unwrap()).await;
        assert_eq!((response.status().as_u16(), &response.headers()[header::ALLOW]), (405, &"POST".parse().unwrap()), "{path}");
        assert_eq!(ask(&router, post(path, "{}")).await.status(), 400, "{path}");
    }
    for path in ["/api/v1", "/api/v1/", "/api/v1/operator", "/master/api/v1", "/master/api/v1/"] {
        let answer = json(ask(&router, post(path, "{\"type\":\"GET_MASTER\"}")).await).await;
        let info = &answer["get_master"]["master_info"];
        // The address that it was asked at, not that of the API with TLS.
        assert_eq!((&info["pid"], &info["port"]), (&json!("master@127.0.0.1:5050"), &json!(5050)), "{path}: {answer}");
        assert_eq!(info["address"], json!({ "hostname": "127.0.0.1", "ip": "127.0.0.1", "port": 5050 }), "{path}");
    }
}

#[tokio::test]
async fn who_shows_what_is_no_token_is_told_of_passwords() {
    let closed = Closed::new();
    let request = get("/state").header(header::AUTHORIZATION, "Basic eDp5").body(Body::empty()).unwrap();
    let response = ask(&port(&closed), request).await;
    assert_eq!(response.status(), 401);
    let challenge = response.headers()[header::WWW_AUTHENTICATE].to_str().unwrap();
    assert!(challenge.starts_with("Basic "), "{challenge}");
}

#[tokio::test]
async fn old_load_balancers_may_ask_whether_it_lives_and_pages_of_others_may_not() {
    let closed = Closed::new();
    let router = port(&closed);
    let check = |version, path: &str, headers: &[(header::HeaderName, &str)]| {
        let request = Request::builder().uri(path).version(version);
        headers.iter().fold(request, |request, (name, value)| request.header(name, *value)).body(Body::empty()).unwrap()
    };
    for (version, path, headers, expected) in [
        (Version::HTTP_10, "/health", &[][..], 200),
        (Version::HTTP_11, "/health", &[], 400),
        (Version::HTTP_10, "/state", &[], 400),
        (Version::HTTP_10, "/health", &[(header::HOST, "evil.example")], 403),
        (Version::HTTP_10, "/health", &[(header::ORIGIN, "http://evil.example")], 400),
    ] {
        assert_eq!(ask(&router, check(version, path, headers)).await.status(), expected, "{version:?} {path} {headers:?}");
    }
}

#[tokio::test]
async fn a_call_of_a_framework_may_be_longer_than_other_bodies() {
    let closed = Closed::new();
    let router = port(&closed);
    let call = |bytes: usize| format!("{{\"type\":\"NEVER\",\"x\":\"{}\"}}", "x".repeat(bytes));
    assert_eq!(ask(&router, post("/api/v1/scheduler", call(4 * TEXT_BYTES_MAX))).await.status(), 501, "it is read, and not known");
    assert_eq!(ask(&router, post("/api/v1/scheduler", call(CALL_BYTES_MAX))).await.status(), 413);
    assert_eq!(ask(&router, post("/api/v1", call(TEXT_BYTES_MAX))).await.status(), 413, "the other API takes no more than before");
}

#[tokio::test]
async fn a_framework_of_a_shard_that_is_none_is_not_known_and_no_fault_of_the_masters() {
    let closed = Closed::new();
    let router = port(&closed);
    let id = json!({ "value": "fffff000000000001" });
    let mut revive = post("/api/v1/scheduler", json!({ "type": "REVIVE", "framework_id": id }).to_string());
    let stream = HeaderMap::from_iter([("mesos-stream-id".parse().unwrap(), "00000000-0000-4000-8000-000000000000".parse().unwrap())]);
    revive.headers_mut().extend(stream);
    let info = json!({ "name": "x", "user": "y", "id": id });
    let subscribe = json!({ "type": "SUBSCRIBE", "framework_id": id, "subscribe": { "framework_info": info } });
    for request in [revive, post("/api/v1/scheduler", subscribe.to_string())] {
        // A shard of this cluster is asked, and says what it says of all that it does not know: here it says nothing.
        assert!(futures::poll!(Box::pin(ask(&router, request))).is_pending());
    }
}
