//! What the routes refuse before a shard is asked, and what they answer without one.

use super::Closed;
use crate::drive::rooms::CHANGES_ASKED_MAX;
use crate::http::body::TEXT_BYTES_MAX;
use crate::shard::event::Level;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use protocol::Digest;
use serde_json::Value;
use tower::ServiceExt as _;

async fn ask(closed: &Closed, request: Request<Body>) -> Response<Body> {
    closed.router.clone().oneshot(request).await.unwrap()
}

async fn json(response: Response<Body>) -> Value {
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    serde_json::from_slice(&bytes).unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&bytes)))
}

fn request(method: &str, path: &str, token: &str, kind: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::builder().method(method).uri(path).header(header::HOST, "localhost:1").header(header::CONTENT_TYPE, kind);
    request.header(header::AUTHORIZATION, token).body(body.into()).unwrap()
}

struct Case<'a> {
    request: Request<Body>,
    status: u16,
    code: &'a str,
    field: &'a str,
}

async fn check(closed: &Closed, cases: Vec<Case<'_>>) {
    for Case { request, status, code, field } in cases {
        let asked = format!("{} {}", request.method(), request.uri());
        let response = ask(closed, request).await;
        assert_eq!(response.status().as_u16(), status, "{asked}");
        let body = json(response).await;
        let error = &body["error"];
        assert_eq!((error["code"].as_str(), error["field"].as_str().unwrap_or("")), (Some(code), field), "{asked}: {body}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{asked}");
    }
}

#[tokio::test]
async fn every_refusal_is_json_and_names_what_is_wrong() {
    let closed = Closed::new();
    let admin = closed.token(Level::Admin, &[]);
    let viewer = closed.token(Level::Viewer, &[]);
    let web = closed.token(Level::Operator, &["web"]);
    let toml = "application/toml";
    let (deep, huge) = (format!("{{\"name\":{}", "[".repeat(100_000)), "x".repeat(TEXT_BYTES_MAX + 1));
    let other = "sha256:".to_owned() + &"0".repeat(64);
    let job = format!("role = \"other\"\n[task]\nwasm = \"{other}\"");
    let case = |request, status, code, field| Case { request, status, code, field };
    let (nobody, stream) = ("fffff000000000001", "00000000-0000-4000-8000-000000000000");
    let revive = format!("{{\"id\":\"{nobody}\",\"stream\":\"{stream}\",\"revive\":[]}}");
    let subscribe = format!("{{\"subscribe\":{{\"id\":\"{nobody}\",\"name\":\"x\"}}}}");
    let cases = vec![
        case(request("GET", "/nowhere", &admin, toml, ""), 404, "not-found", ""),
        case(request("GET", "/v1/nowhere", "", toml, ""), 404, "not-found", ""),
        case(request("PATCH", "/v1/jobs", &admin, toml, ""), 405, "method", ""),
        case(request("GET", "/v1/jobs", "", toml, ""), 401, "unauthorized", "authorization"),
        case(request("GET", "/v1/jobs", "Bearer skep_admin_0", toml, ""), 401, "unauthorized", "authorization"),
        case(request("POST", "/v1/submit", &viewer, toml, ""), 403, "forbidden", ""),
        case(request("POST", "/v1/tokens", &web, toml, "{}"), 403, "forbidden", ""),
        case(request("POST", "/v1/agents/0000000000000001/gone", &viewer, toml, ""), 403, "forbidden", ""),
        case(request("GET", "/v1/jobs?role=other", &web, toml, ""), 403, "forbidden", "role"),
        case(request("GET", "/v1/jobs?limit=0", &admin, toml, ""), 400, "invalid", "limit"),
        case(request("GET", "/v1/jobs?limit=-1", &admin, toml, ""), 400, "invalid", "query"),
        case(request("GET", "/v1/jobs?wrong=1", &admin, toml, ""), 400, "invalid", "query"),
        case(request("GET", "/v1/jobs?after=7", &admin, toml, ""), 400, "invalid", "after"),
        case(request("GET", "/v1/jobs/A_B", &admin, toml, ""), 400, "invalid", "job"),
        case(request("GET", "/v1/jobs/%ff", &admin, toml, ""), 400, "invalid", "path"),
        case(request("GET", "/v1/jobs/x/tasks?phase=dead", &admin, toml, ""), 400, "invalid", "phase"),
        case(request("GET", "/v1/agents/xyz", &admin, toml, ""), 400, "invalid", "id"),
        case(request("PUT", "/v1/bundles/xyz", &admin, toml, ""), 400, "invalid", "digest"),
        case(request("GET", &format!("/v1/bundles/{other}"), &admin, toml, ""), 404, "not-found", ""),
        case(request("POST", "/v1/jobs", &admin, "text/html", "x"), 400, "invalid", "content-type"),
        case(request("POST", "/v1/jobs", &admin, toml, ""), 400, "invalid", "task.wasm"),
        case(request("POST", "/v1/jobs", &admin, toml, "memroy = 1"), 400, "invalid", "memroy"),
        case(request("POST", "/v1/jobs", &admin, toml, &b"\xff\xfe"[..]), 400, "invalid", ""),
        case(request("POST", "/v1/jobs", &admin, toml, job), 422, "unprocessable", "task.wasm"),
        case(request("POST", "/v1/jobs", &admin, "application/json", deep), 400, "invalid", "name"),
        case(request("POST", "/v1/jobs", &admin, toml, huge), 413, "too-large", "body"),
        case(request("POST", "/v1/jobs/x/stop", &admin, toml, "{\"grace_ms\":99999999999}"), 400, "invalid", "grace_ms"),
        case(request("POST", "/v1/jobs/x/scale", &admin, toml, "{}"), 400, "invalid", "count"),
        case(request("POST", "/v1/framework", &admin, "application/json", revive), 404, "not-found", ""),
        case(request("POST", "/v1/framework", &admin, "application/json", subscribe), 404, "not-found", ""),
        case(request("POST", "/v1/tokens", &admin, toml, "{\"level\":\"root\"}"), 400, "invalid", "level"),
        case(request("POST", "/v1/tokens", &admin, toml, "{\"level\":\"admin\",\"ttl_ms\":0}"), 400, "invalid", "ttl_ms"),
    ];
    check(&closed, cases).await;
}

#[tokio::test]
async fn a_request_for_another_host_or_from_another_page_gets_nothing() {
    let closed = Closed::new();
    let with = |headers: &[(&str, &str)]| {
        let request = headers.iter().fold(Request::builder().uri("/v1/health"), |request, (name, value)| request.header(*name, *value));
        request.body(Body::empty()).unwrap()
    };
    let good: [&[(&str, &str)]; 6] = [
        &[("host", "localhost")],
        &[("host", "LOCALHOST.:7")],
        &[("host", "127.0.0.1:7")],
        &[("host", "[::1]:7")],
        &[("host", "Master.Example:7")],
        &[("host", "localhost:7"), ("origin", "https://localhost:7")],
    ];
    for headers in good {
        assert_eq!(ask(&closed, with(headers)).await.status(), StatusCode::OK, "{headers:?}");
    }
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let bad: [(Headers<'_>, u16, &str); 9] = [
        (&[], 400, "host"),
        (&[("host", "")], 400, "host"),
        (&[("host", "a b")], 400, "host"),
        (&[("host", "localhost"), ("host", "localhost")], 400, "host"),
        (&[("host", "evil.example")], 403, "host"),
        (&[("host", "localhost.evil.example")], 403, "host"),
        (&[("host", "localhost:7"), ("origin", "https://localhost:8")], 403, "origin"),
        (&[("host", "localhost"), ("origin", "null")], 403, "origin"),
        (&[("host", "localhost"), ("origin", "https://evil.example")], 403, "origin"),
    ];
    for (headers, status, field) in bad {
        let response = ask(&closed, with(headers)).await;
        assert_eq!(response.status().as_u16(), status, "{headers:?}");
        assert_eq!(json(response).await["error"]["field"], field, "{headers:?}");
    }
}

#[tokio::test]
async fn a_bundle_is_taken_once_by_its_digest_and_given_back() {
    let closed = Closed::new();
    let token = closed.token(Level::Operator, &[]);
    let digest = Digest::of(b"bytes");
    let path = format!("/v1/bundles/{digest}");
    let put = |path: &str, body: &'static str| request("PUT", path, &token, "application/octet-stream", body);

    let wrong = ask(&closed, put(&format!("/v1/bundles/{}", Digest::of(b"")), "bytes")).await;
    assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(json(wrong).await["error"]["field"], "digest");
    assert_eq!(ask(&closed, put(&path, "bytes")).await.status(), StatusCode::CREATED);
    assert_eq!(ask(&closed, put(&path, "")).await.status(), StatusCode::OK);
    let posted = ask(&closed, request("POST", "/v1/bundles", &token, "application/octet-stream", "bytes")).await;
    assert_eq!(json(posted).await["digest"], format!("sha256:{digest}"));

    let head = ask(&closed, request("HEAD", &path, &token, "", "")).await;
    assert_eq!((head.status(), &head.headers()[header::CONTENT_LENGTH]), (StatusCode::OK, &"5".parse().unwrap()));
    let got = ask(&closed, request("GET", &path, &token, "", "")).await;
    assert_eq!(axum::body::to_bytes(got.into_body(), 10).await.unwrap(), "bytes");
}

#[tokio::test]
async fn a_bad_line_gets_its_own_answer_and_the_stream_lives_on() {
    let closed = Closed::new();
    let token = closed.token(Level::Operator, &["web"]);
    let missing = format!("{{\"role\":\"web\",\"task\":{{\"wasm\":\"sha256:{}\"}}}}", "0".repeat(64));
    let lines = [
        "no json".to_owned(),
        String::new(),
        "{\"key\":\"a b\",\"job\":{}}".to_owned(),
        "{\"key\":\"k4\",\"job\":{}}".to_owned(),
        format!("{{\"key\":\"k5\",\"job\":{missing}}}"),
        "{\"job\":{},\"fallow\":true}".to_owned(),
        "x".repeat(TEXT_BYTES_MAX + 1),
        "null".to_owned(),
    ];
    let response = ask(&closed, request("POST", "/v1/submit", &token, "application/x-ndjson", lines.join("\n"))).await;
    assert_eq!(response.status(), StatusCode::OK);
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let answers: Vec<Value> =
        bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| serde_json::from_slice(line).unwrap()).collect();
    let told = |answer: &Value| (answer["line"].as_u64().unwrap(), answer["error"]["field"].as_str().unwrap_or("").to_owned());
    let expected = [(1, "line"), (3, "key"), (4, "task.wasm"), (5, "task.wasm"), (6, "line"), (7, "line"), (8, "line")];
    assert_eq!(answers.iter().map(told).collect::<Vec<_>>(), expected.map(|(line, field)| (line, field.to_owned())));
    assert_eq!((&answers[2]["key"], &answers[3]["key"]), (&Value::from("k4"), &Value::from("k5")));
}

#[tokio::test]
async fn the_description_is_made_from_the_routes_and_needs_no_token() {
    let closed = Closed::new();
    let request = Request::builder().uri("/openapi.json").header(header::HOST, "localhost").body(Body::empty()).unwrap();
    let description = json(ask(&closed, request).await).await;
    for path in ["/v1/jobs", "/v1/jobs/{job}/logs", "/v1/submit", "/v1/bundles/{digest}", "/v1/events", "/v1/tokens/{id}", "/v1/health"] {
        assert!(description["paths"][path].is_object(), "{path}");
    }
    assert!(description["components"]["schemas"]["JobBody"].is_object());
    assert_eq!(description["components"]["securitySchemes"]["token"]["scheme"], "bearer");
}

#[tokio::test]
async fn one_more_than_may_wait_is_turned_away_and_whoever_looks_takes_none_of_that_room() {
    let closed = Closed::new();
    let token = closed.token(Level::Admin, &[]);
    let change = || Box::pin(ask(&closed, request("POST", "/v1/tokens", &token, "application/json", "{\"level\":\"join\"}")));
    let mut waiting: Vec<_> = (0..CHANGES_ASKED_MAX).map(|_| change()).collect();
    for asked in &mut waiting {
        assert!(futures::poll!(asked).is_pending());
    }
    let refused = change().await;
    assert_eq!((refused.status(), &refused.headers()[header::RETRY_AFTER]), (StatusCode::TOO_MANY_REQUESTS, &"1".parse().unwrap()));
    assert_eq!(json(refused).await["error"]["code"], "busy");
    // What changes nothing has room of its own.
    assert!(futures::poll!(Box::pin(ask(&closed, request("GET", "/v1/status", &token, "", "")))).is_pending());
    drop(waiting.pop());
    assert!(futures::poll!(change()).is_pending());
}
