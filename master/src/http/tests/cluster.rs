//! The routes over a real master: shards, journal and all, and no agent. What is acknowledged here is on the disk.

use super::Folder;
use crate::drive::{self, Master, MasterConfig};
use crate::http::bundles::{BUNDLE_BYTES_MAX, Bundles};
use crate::http::{HttpConfig, router};
use axum::Router;
use axum::body::{Body, BodyDataStream, Bytes};
use axum::http::{Request, Response, StatusCode, header};
use futures::StreamExt as _;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::mpsc;
use tower::ServiceExt as _;

/// A bound on what never lasts long; not a measurement.
const BOUND: Duration = Duration::from_secs(60);

struct Cluster {
    master: Master,
    router: Router,
    token: String,
    wasm: String,
    _folder: Folder,
}

impl Cluster {
    async fn new() -> Self {
        let folder = Folder::new();
        let master = drive::start(MasterConfig::local(folder.path())).await.unwrap();
        let bundles = Bundles::open(&folder.path().join("http-bundles"), BUNDLE_BYTES_MAX).unwrap();
        let mut upload = bundles.create().unwrap();
        upload.write(&wat::parse_str("(module (memory (export \"memory\") 1) (func (export \"_start\")))").unwrap()).unwrap();
        let wasm = format!("sha256:{}", upload.finish(None).unwrap().0);
        let config = HttpConfig {
            hosts: vec![],
            cluster: "test".to_owned(),
            root: master.root(),
            bundles,
            data_dir: "nowhere".into(),
            loader: None,
            logging: None,
            spans: None,
        };
        let router = router(master.door().clone(), config).await;
        let token = format!("Bearer {}", std::fs::read_to_string(master.admin_token()).unwrap().trim());
        Self { master, router, token, wasm, _folder: folder }
    }

    async fn send(&self, request: axum::http::request::Builder, body: Body) -> Response<Body> {
        let request = request.header(header::HOST, "localhost");
        let answer = self.router.clone().oneshot(request.body(body).unwrap());
        tokio::time::timeout(BOUND, answer).await.expect("answered within a bound").unwrap()
    }

    async fn ask_as(&self, token: &str, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(path).header(header::AUTHORIZATION, token);
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let response = self.send(request.header(header::CONTENT_TYPE, "application/json"), Body::from(text)).await;
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let (status, body) = self.ask_as(&self.token, method, path, body).await;
        (status.as_u16(), body)
    }

    fn job(&self, name: &str, count: u32) -> Value {
        json!({ "name": name, "kind": "service", "count": count, "task": { "wasm": self.wasm } })
    }

    /// A submission that can be written to while its answers are read.
    async fn stream(&self, path: &str) -> (mpsc::Sender<Result<Bytes, Infallible>>, Lines) {
        let (input, lines) = mpsc::channel(16);
        let request = Request::builder().method("POST").uri(path).header(header::AUTHORIZATION, &self.token);
        let lines = futures::stream::unfold(lines, |mut lines| async { lines.recv().await.map(|line| (line, lines)) });
        let response = self.send(request, Body::from_stream(lines)).await;
        assert_eq!(response.status(), StatusCode::OK);
        (input, Lines { body: response.into_body().into_data_stream(), text: String::new() })
    }

    async fn events(&self, last: Option<&str>) -> Lines {
        self.read("/v1/events", last).await
    }

    /// A stream of events.
    async fn read(&self, path: &str, last: Option<&str>) -> Lines {
        let request = Request::builder().uri(path).header(header::AUTHORIZATION, &self.token);
        let request = last.into_iter().fold(request, |request, last| request.header("last-event-id", last));
        Lines { body: self.send(request, Body::empty()).await.into_body().into_data_stream(), text: String::new() }
    }
}

/// Lines of an answer, as they come.
struct Lines {
    body: BodyDataStream,
    text: String,
}

impl Lines {
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some((line, rest)) = self.text.split_once('\n') {
                let line = line.to_owned();
                self.text = rest.to_owned();
                return Some(line);
            }
            let bytes = tokio::time::timeout(BOUND, self.body.next()).await.expect("something within a bound")?;
            self.text.push_str(std::str::from_utf8(&bytes.unwrap()).unwrap());
        }
    }

    async fn json(&mut self) -> Value {
        serde_json::from_str(&self.next().await.expect("one more line")).unwrap()
    }

    /// The next line that begins so, without its beginning.
    async fn starting(&mut self, start: &str) -> String {
        let found = async {
            loop {
                if let Some(rest) = self.next().await.expect("one more line").strip_prefix(start) {
                    return rest.to_owned();
                }
            }
        };
        tokio::time::timeout(BOUND, found).await.expect("such a line within a bound")
    }
}

#[tokio::test]
async fn a_submission_is_made_once_for_its_key() {
    let cluster = Cluster::new().await;
    let request = |key: &str| {
        let request = Request::builder().method("POST").uri("/v1/jobs").header(header::AUTHORIZATION, &cluster.token);
        request.header(header::CONTENT_TYPE, "application/json").header("idempotency-key", key)
    };
    let send = async |key: &str, count: u32| {
        let job = json!({ "count": count, "task": { "wasm": cluster.wasm } });
        let response = cluster.send(request(key), Body::from(job.to_string())).await;
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice::<Value>(&bytes).unwrap())
    };
    let (status, first) = send("a", 1).await;
    assert_eq!((status, &first["new"]), (201, &json!(true)), "{first}");
    assert_eq!(send("a", 1).await, (200, json!({ "id": first["id"], "new": false })));
    assert_eq!(send("a", 2).await.0, 409);
    let (_, other) = send("b", 1).await;
    assert_ne!(other["id"], first["id"]);
    let (_, listed) = cluster.ask("GET", "/v1/jobs", Value::Null).await;
    assert_eq!(listed["jobs"].as_array().map(Vec::len), Some(2), "{listed}");
    let (_, page) = cluster.ask("GET", "/v1/jobs?limit=1", Value::Null).await;
    let (_, rest) = cluster.ask("GET", &format!("/v1/jobs?after={}", page["next"].as_str().unwrap()), Value::Null).await;
    assert_eq!(rest["jobs"].as_array().map(Vec::len), Some(1), "{rest}");
    cluster.master.shutdown().await;
}

#[tokio::test]
async fn a_job_lives_through_plan_apply_scale_explain_and_stop() {
    let cluster = Cluster::new().await;
    let job = cluster.job("web", 2);
    let (_, plan) = cluster.ask("POST", "/v1/plan", job.clone()).await;
    assert_eq!((&plan["action"], &plan["fit"]["agents"]), (&json!("create"), &json!(0)), "{plan}");
    let (status, applied) = cluster.ask("PUT", "/v1/jobs/web", job.clone()).await;
    assert_eq!((status, &applied["new"]), (201, &json!(true)), "{applied}");
    assert_eq!(cluster.ask("POST", "/v1/jobs", job.clone()).await.0, 409);
    assert_eq!(cluster.ask("PUT", "/v1/jobs/other", job.clone()).await.1["error"]["field"], "name");
    assert_eq!(cluster.ask("POST", "/v1/plan", job).await.1["action"], "nothing");
    let (_, plan) = cluster.ask("POST", "/v1/plan", cluster.job("web", 3)).await;
    assert_eq!(plan["changes"], json!(["count: 2 → 3"]), "{plan}");

    assert_eq!(cluster.ask("POST", "/v1/jobs/web/scale", json!({ "count": 5 })).await.0, 204);
    let id = applied["id"].as_str().unwrap();
    let (status, shown) = cluster.ask("GET", &format!("/v1/jobs/{id}"), Value::Null).await;
    assert_eq!((status, &shown["name"], &shown["count"]), (200, &json!("web"), &json!(5)), "{shown}");
    let (_, tasks) = cluster.ask("GET", "/v1/jobs/web/tasks?phase=waiting&limit=3", Value::Null).await;
    assert_eq!((tasks["tasks"].as_array().map(Vec::len), &tasks["next"]), (Some(3), &json!(3)), "{tasks}");
    let (_, why) = cluster.ask("GET", "/v1/jobs/web/explain", Value::Null).await;
    assert_eq!(why["text"], "5 tasks wait: the cluster has no agent", "{why}");

    assert_eq!(cluster.ask("POST", "/v1/jobs/web/stop", json!({})).await.0, 204);
    let (status, ended) = cluster.ask("GET", "/v1/jobs/web/end", Value::Null).await;
    assert_eq!((status, &ended["state"], &ended["tasks"]["killed"]), (200, &json!("ended"), &json!(5)), "{ended}");
    for (method, path) in
        [("GET", "/v1/jobs/nowhere"), ("GET", "/v1/jobs/jffff00000001"), ("GET", "/v1/jobs/j1"), ("POST", "/v1/jobs/nowhere/stop")]
    {
        assert_eq!(cluster.ask(method, path, json!({})).await.0, 404, "{path}");
    }
    let (_, status) = cluster.ask("GET", "/v1/status", Value::Null).await;
    assert_eq!((&status["figures"]["jobs_ended"], &status["stopped"]), (&json!(1), &Value::Null), "{status}");
    cluster.master.shutdown().await;
}

#[tokio::test]
async fn a_token_is_good_until_it_is_revoked_and_for_its_roles_only() {
    let cluster = Cluster::new().await;
    let (status, made) = cluster.ask("POST", "/v1/tokens", json!({ "level": "operator", "roles": ["web"] })).await;
    assert_eq!(status, 201, "{made}");
    let token = format!("Bearer {}", made["token"].as_str().unwrap());
    assert_eq!(cluster.ask("PUT", "/v1/jobs/api", cluster.job("api", 1)).await.0, 201);
    // Another role's job is not even there.
    assert_eq!(cluster.ask_as(&token, "GET", "/v1/jobs/api", Value::Null).await.0, 404);
    assert_eq!(cluster.ask_as(&token, "POST", "/v1/jobs", cluster.job("more", 1)).await.0, 403);
    let (_, seen) = cluster.ask_as(&token, "GET", "/v1/jobs", Value::Null).await;
    assert_eq!(seen["jobs"], json!([]));
    let (_, join) = cluster.ask("POST", "/v1/tokens", json!({ "level": "join" })).await;
    let parts: Vec<&str> = join["token"].as_str().unwrap().split('.').collect();
    assert_eq!((parts.len(), parts[2]), (3, cluster.master.root().to_string().as_str()));

    let (_, tokens) = cluster.ask("GET", "/v1/tokens", Value::Null).await;
    assert!(!tokens.to_string().contains("hash") && tokens["tokens"].as_array().map(Vec::len) == Some(3), "{tokens}");
    assert_eq!(cluster.ask("DELETE", &format!("/v1/tokens/{}", made["id"].as_str().unwrap()), Value::Null).await.0, 204);
    assert_eq!(cluster.ask_as(&token, "GET", "/v1/jobs", Value::Null).await.0, 401);
    assert_eq!(cluster.ask("DELETE", "/v1/tokens/nowhere", Value::Null).await.0, 404);
    cluster.master.shutdown().await;
}

#[tokio::test]
async fn a_stream_of_submissions_answers_each_and_then_its_end() {
    let cluster = Cluster::new().await;
    let (input, mut answers) = cluster.stream("/v1/submit").await;
    let line = |key: &str, job: Value| Ok(Bytes::from(format!("{}\n", json!({ "key": key, "job": job, "follow": true }))));
    input.send(line("k1", cluster.job("one", 2))).await.unwrap();
    let first = answers.json().await;
    assert_eq!((&first["line"], &first["key"], &first["new"]), (&json!(1), &json!("k1"), &json!(true)), "{first}");
    // The same line again, while the stream stands: the same job.
    input.send(line("k1", cluster.job("one", 2))).await.unwrap();
    assert_eq!(answers.json().await, json!({ "line": 2, "key": "k1", "id": first["id"], "new": false }));
    drop(input);
    assert_eq!(cluster.ask("POST", "/v1/jobs/one/stop", json!({ "grace_ms": 0 })).await.0, 204);
    for _ in 0..2 {
        let ended = answers.json().await;
        assert_eq!((&ended["id"], &ended["ended"]["tasks"]["killed"]), (&first["id"], &json!(2)), "{ended}");
    }
    assert_eq!(answers.next().await, None);
    cluster.master.shutdown().await;
}

#[tokio::test]
async fn many_submissions_in_one_body_are_all_on_record() {
    const JOBS: usize = 3_000;
    let cluster = Cluster::new().await;
    let (input, mut answers) = cluster.stream("/v1/submit").await;
    let task = json!({ "wasm": cluster.wasm });
    let body: String = (0..JOBS).map(|number| format!("{}\n", json!({ "key": format!("k{number}"), "job": { "task": task } }))).collect();
    input.send(Ok(Bytes::from(body))).await.unwrap();
    drop(input);
    let mut ids = std::collections::BTreeSet::new();
    while let Some(line) = answers.next().await {
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(answer["new"], true, "{answer}");
        ids.insert(answer["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), JOBS);
    let (_, status) = cluster.ask("GET", "/v1/status", Value::Null).await;
    assert_eq!(status["figures"]["jobs_live"], json!(JOBS), "{status}");
    cluster.master.shutdown().await;
}

#[tokio::test]
async fn events_go_on_where_the_reader_left() {
    let cluster = Cluster::new().await;
    let mut events = cluster.events(None).await;
    assert_eq!(events.next().await.as_deref(), Some(": skep"));
    for name in ["one", "two"] {
        assert_eq!(cluster.ask("PUT", &format!("/v1/jobs/{name}"), cluster.job(name, 0)).await.0, 201);
    }
    let id = events.starting("id: ").await;
    let first: Value = serde_json::from_str(&events.starting("data: ").await).unwrap();
    assert_eq!((&first["event"], &first["title"]), (&json!("job"), &json!("one")), "{first}");
    let mut again = cluster.events(Some(&id)).await;
    let second = loop {
        let next: Value = serde_json::from_str(&again.starting("data: ").await).unwrap();
        // What is said of the first one's deployment comes between.
        if next["event"] == "job" {
            break next;
        }
        assert_eq!((&next["event"], &next["deployment"]["title"]), (&json!("deployment"), &json!("one")), "{next}");
    };
    assert_eq!(second["title"], "two", "{second}");
    let mut kept = cluster.read("/v1/events?kept=true", None).await;
    let oldest: Value = serde_json::from_str(&kept.starting("data: ").await).unwrap();
    assert!(oldest["title"] == "one" && oldest["at_ms"].as_u64() > Some(0), "{oldest}");
    let mut lost = cluster.events(Some("another-7")).await;
    assert_eq!(lost.starting("event: ").await, "missed");
    cluster.master.shutdown().await;
}

#[tokio::test]
async fn who_watches_is_told_all_and_then_what_is_different() {
    let cluster = Cluster::new().await;
    let mut stream = cluster.read("/v1/overview/stream", None).await;
    assert_eq!(stream.starting("event: ").await, "whole");
    let whole: Value = serde_json::from_str(&stream.starting("data: ").await).unwrap();
    assert_eq!((&whole["cluster"], &whole["figures"]["jobs_live"], &whole["racks"]), (&json!("test"), &json!(0), &json!([])), "{whole}");
    assert_eq!(cluster.ask("PUT", "/v1/jobs/one", cluster.job("one", 2)).await.0, 201);
    loop {
        assert_eq!(stream.starting("event: ").await, "changes");
        let changes: Value = serde_json::from_str(&stream.starting("data: ").await).unwrap();
        if changes["figures"]["tasks_waiting"] == 2 {
            break assert_eq!((&changes["figures"]["jobs_live"], &changes["cells"]), (&json!(1), &json!([])), "{changes}");
        }
    }
    // Another one who comes is told all.
    let mut second = cluster.read("/v1/overview/stream", None).await;
    assert_eq!(second.starting("event: ").await, "whole");
    let (_, once) = cluster.ask("GET", "/v1/overview", Value::Null).await;
    assert_eq!(once["figures"]["jobs_live"], 1, "{once}");
    cluster.master.shutdown().await;
}

#[tokio::test]
async fn lists_show_what_matches_a_page_at_a_time() {
    let cluster = Cluster::new().await;
    for number in 0..30 {
        let name = if number % 3 == 0 { format!("web-{number}") } else { format!("api-{number}") };
        assert_eq!(cluster.ask("PUT", &format!("/v1/jobs/{name}"), cluster.job(&name, 0)).await.0, 201);
    }
    let (mut found, mut after) = (std::collections::BTreeSet::new(), String::new());
    loop {
        let (status, page) = cluster.ask("GET", &format!("/v1/jobs?match=WEB&limit=4{after}"), Value::Null).await;
        let rows = page["jobs"].as_array().unwrap();
        assert!(status == 200 && rows.len() <= 4, "{page}");
        for row in rows {
            assert!(row["name"].as_str().unwrap().starts_with("web-") && found.insert(row["name"].to_string()), "{row}");
        }
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(found.len(), 10);
    assert_eq!(cluster.ask("GET", "/v1/jobs?match=nothing", Value::Null).await.1, json!({ "jobs": [] }));
    assert_eq!(cluster.ask("GET", "/v1/agents?match=x&skip=3&limit=2", Value::Null).await.1, json!({ "agents": [], "total": 0 }));
    cluster.master.shutdown().await;
}
