//! How jobs travel, as a collector hears it over OTLP/HTTP: its bytes are read here by the numbers of OpenTelemetry's `trace.proto`, by nobody's library.

use crate::cluster::{Cluster, ended, sample};
use crate::masters::Masters;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};

/// What was sent in one request.
#[derive(Clone, Debug)]
struct Sent {
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

/// Takes spans; refuses the first request, as one that has too much to do.
struct Collector {
    at: SocketAddr,
    sent: Arc<Mutex<Vec<Sent>>>,
    _runtime: tokio::runtime::Runtime,
}

async fn take(State(sent): State<Arc<Mutex<Vec<Sent>>>>, uri: Uri, headers: HeaderMap, body: Bytes) -> StatusCode {
    let mut sent = sent.lock().unwrap();
    sent.push(Sent { path: uri.path().to_owned(), headers, body });
    if sent.len() == 1 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

impl Collector {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let (at, sent) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<Sent>>>::default());
        let router = axum::Router::new().fallback(take).with_state(Arc::clone(&sent));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { at, sent, _runtime: runtime }
    }

    /// All that it took.
    fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap().iter().skip(1).cloned().collect()
    }

    fn spans(&self) -> Vec<Span> {
        self.sent().iter().flat_map(|sent| spans(&sent.body)).collect()
    }
}

/// A field of a message: a number (of any width), or bytes (Protocol Buffers, "Encoding").
#[derive(Clone, Debug, PartialEq)]
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, by number.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut found = vec![];
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let field = match key & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => Field::Number(u64::from_le_bytes(part(&mut bytes, 8).try_into().unwrap())),
            2 => {
                let length = varint(&mut bytes) as usize;
                Field::Bytes(part(&mut bytes, length))
            }
            5 => Field::Number(u32::from_le_bytes(part(&mut bytes, 4).try_into().unwrap()).into()),
            other => panic!("no such wire type: {other}"),
        };
        found.push((key >> 3, field));
    }
    found
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = part(bytes, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

fn part<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (first, rest) = bytes.split_at(length);
    *bytes = rest;
    first
}

/// Those of a message's fields that have this number and are messages or texts.
fn all(bytes: &[u8], number: u64) -> Vec<&[u8]> {
    let found = fields(bytes).into_iter().filter(|(known, _)| *known == number);
    found.filter_map(|(_, field)| if let Field::Bytes(bytes) = field { Some(bytes) } else { None }).collect()
}

fn text(bytes: &[u8], number: u64) -> String {
    all(bytes, number).first().map(|text| String::from_utf8(text.to_vec()).unwrap()).unwrap_or_default()
}

fn figure(bytes: &[u8], number: u64) -> u64 {
    let found = fields(bytes).into_iter().find(|(known, _)| *known == number);
    found.map_or(0, |(_, field)| if let Field::Number(figure) = field { figure } else { panic!("no number") })
}

/// `KeyValue`s, numbers as texts.
fn attributes(of: &[&[u8]]) -> BTreeMap<String, String> {
    let value = |bytes: &[u8]| match fields(all(bytes, 2)[0]).first() {
        Some((1, Field::Bytes(text))) => String::from_utf8(text.to_vec()).unwrap(),
        Some((3, Field::Number(number))) => number.to_string(),
        other => panic!("no text and no number: {other:?}"),
    };
    of.iter().map(|bytes| (text(bytes, 1), value(bytes))).collect()
}

#[derive(Clone, Debug)]
struct Span {
    service: String,
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
    name: String,
    began: u64,
    ended: u64,
    attributes: BTreeMap<String, String>,
    /// `STATUS_CODE_ERROR`.
    failed: bool,
}

impl Span {
    fn says(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// All spans of an `ExportTraceServiceRequest`.
fn spans(body: &[u8]) -> Vec<Span> {
    let of_resource = |resource: &[u8]| {
        let about = attributes(&all(all(resource, 1)[0], 1));
        let scopes = all(resource, 2);
        let spans: Vec<Span> = scopes.iter().flat_map(|scope| all(scope, 2)).map(|span| read(span, &about["service.name"])).collect();
        spans
    };
    all(body, 1).into_iter().flat_map(of_resource).collect()
}

fn read(span: &[u8], service: &str) -> Span {
    Span {
        service: service.into(),
        trace: all(span, 1)[0].to_vec(),
        id: all(span, 2)[0].to_vec(),
        parent: all(span, 4).first().map(|id| id.to_vec()).unwrap_or_default(),
        name: text(span, 5),
        began: figure(span, 7),
        ended: figure(span, 8),
        attributes: attributes(&all(span, 9)),
        failed: all(span, 15).first().is_some_and(|status| figure(status, 3) == 2),
    }
}

/// A collector; `None`: this build says nothing to any.
fn collector() -> Option<Collector> {
    if !cfg!(feature = "otlp") {
        println!("skipped: built without the feature otlp");
        return None;
    }
    Some(Collector::start())
}

/// Makes something of what masters find in their environment, where they are to say to `collector` how jobs travel.
fn beside<T>(collector: &Collector, made: impl FnOnce(&[(&str, &str)]) -> T) -> T {
    made(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{}", collector.at)),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20secret"),
        ("OTEL_SERVICE_NAME", "hive"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("NO_PROXY", "127.0.0.1"),
    ])
}

fn of_one(collector: &Collector) -> Cluster {
    let mut cluster = beside(collector, |environment| Cluster::master_in(&[], environment));
    cluster.add_agent("a1", "cpu=4,memory=4GiB,disk=1GiB,ports=20000-20009");
    cluster
}

/// The spans of a job's trace, where its whole way has been said.
fn travel(collector: &Collector, job: &str) -> Option<Vec<Span>> {
    let all = collector.spans();
    let whole = all.iter().find(|span| span.name == "job" && span.says("skep.job") == job)?.clone();
    Some(all.into_iter().filter(|span| span.trace == whole.trace).collect())
}

fn names(spans: &[Span]) -> BTreeSet<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

#[test]
fn a_collector_hears_how_jobs_travel() {
    let Some(collector) = collector() else { return };
    let cluster = of_one(&collector);
    cluster.text(&["run", "--name", "hello", sample("hello.wasm").to_str().unwrap()]);
    cluster.run(&["run", "--name", "wrong", "--retries", "1", sample("sleep.wasm").to_str().unwrap(), "--", "x"]);
    for job in ["hello", "wrong"] {
        cluster.until("its way is said", |_| travel(&collector, job).is_some());
    }
    let hello = travel(&collector, "hello").unwrap();
    let named = names(&hello);
    assert!(["submit", "place", "run", "attempt", "job"].iter().all(|name| named.contains(name)), "{hello:#?}");
    let (job, attempt) = ["job", "attempt"].map(|name| hello.iter().find(|span| span.name == name).unwrap()).into();
    let expected = [
        ("skep.job", "hello"),
        ("skep.role", "default"),
        ("skep.task", "hello.0"),
        ("skep.attempt", "1"),
        ("skep.agent", "a1"),
        ("skep.ended", "finished"),
    ];
    for (name, value) in expected {
        assert_eq!(attempt.says(name), value, "{attempt:?}");
    }
    assert!(!attempt.failed && attempt.parent == job.id && job.parent.is_empty() && job.says("skep.shard") == attempt.says("skep.shard"));
    for span in &hello {
        assert!((span.trace.len(), span.id.len()) == (16, 8) && span.service == "hive", "{span:?}");
        assert!(span.began <= span.ended && span.ended - span.began < 3_600_000_000_000, "{span:?}");
        let is_part = hello.iter().any(|whole| whole.id == span.parent);
        assert!(is_part || span.name == "job", "{span:?} is a part of nothing");
    }
    let wrong = travel(&collector, "wrong").unwrap();
    let attempts: Vec<&Span> = wrong.iter().filter(|span| span.name == "attempt").collect();
    let numbers: BTreeSet<&str> = attempts.iter().map(|span| span.says("skep.attempt")).collect();
    assert!(numbers == ["1", "2"].into() && attempts.iter().all(|span| span.failed), "{wrong:#?}");
    // Each is said once, and with what whoever takes them wants to know.
    let spans = collector.spans();
    assert_eq!(spans.iter().map(|span| span.id.clone()).collect::<BTreeSet<_>>().len(), spans.len());
    for sent in collector.sent() {
        assert_eq!(
            (sent.path.as_str(), &sent.headers["authorization"], &sent.headers["content-type"]),
            ("/v1/traces", &"Bearer secret".parse().unwrap(), &"application/x-protobuf".parse().unwrap())
        );
    }
}

#[test]
fn the_way_of_a_service_is_said_as_far_as_it_has_come_and_the_rest_when_its_master_ends() {
    let Some(collector) = collector() else { return };
    let mut cluster = of_one(&collector);
    let file = cluster.folder.join("rest.toml");
    let program = sample("sleep.wasm");
    std::fs::write(&file, format!("name = \"rest\"\nkind = \"service\"\n[task]\nwasm = {program:?}\nargs = [\"600000\"]\n")).unwrap();
    cluster.text(&["apply", file.to_str().unwrap()]);
    let of = |name: &str| collector.spans().into_iter().filter(|span| span.name == name && span.says("skep.task") == "rest.0").count();
    cluster.until("it is said where it is", |_| of("place") == 1 && of("send") == 1);
    assert_eq!((of("run"), of("attempt"), travel(&collector, "rest").is_some()), (0, 0, false), "it runs");
    assert!(collector.spans().iter().any(|span| span.name == "submit"));
    cluster.text(&["stop", "rest"]);
    cluster.until("it has ended", |cluster| cluster.tasks("rest", "killed") == 1);
    // Whatever waits to be sent is sent before the process ends.
    let master = cluster.master.take().unwrap();
    assert!(Command::new("kill").args(["-TERM", &master.id().to_string()]).status().unwrap().success());
    assert!(ended(master, "a master that is to end").status.success());
    let rest = travel(&collector, "rest").expect("it was said");
    assert!(names(&rest).is_superset(&["submit", "place", "send", "run", "attempt", "job"].into()), "{rest:#?}");
}

#[test]
fn a_job_is_one_trace_though_the_master_that_led_its_shard_is_killed() {
    let Some(collector) = collector() else { return };
    let mut masters = beside(&collector, Masters::three_in);
    let jobs: Vec<String> = (0..8).map(|number| format!("rest-{number}")).collect();
    for job in &jobs {
        let sleep = sample("sleep.wasm");
        masters.cluster.text(&["run", "--detach", "--name", job, "--count", "2", sleep.to_str().unwrap(), "--", "600000"]);
    }
    let count = |name: &str| collector.spans().iter().filter(|span| span.name == name).count();
    masters.cluster.until("all are on their way", |_| count("submit") == 8 && count("place") == 16);
    masters.kill(masters.leader());
    for job in &jobs {
        masters.cluster.text(&["stop", job]);
    }
    masters.cluster.until("the whole way of each is said", |_| jobs.iter().all(|job| travel(&collector, job).is_some()));
    for job in &jobs {
        let spans = travel(&collector, job).unwrap();
        let all = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
        let whole = all("job")[0];
        assert_eq!((all("submit").len(), all("place").len(), all("attempt").len(), all("job").len()), (1, 2, 2, 1), "{spans:#?}");
        assert!(
            all("attempt").iter().all(|span| span.parent == whole.id && span.says("skep.ended") == "killed" && span.began >= whole.began)
        );
    }
    let spans = collector.spans();
    assert_eq!(spans.iter().map(|span| span.id.clone()).collect::<BTreeSet<_>>().len(), spans.len(), "each is said once");
}

#[test]
fn a_build_that_sends_no_traces_says_so() {
    if cfg!(feature = "otlp") {
        return println!("skipped: built with the feature otlp");
    }
    let cluster = Cluster::master_in(&[], &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")]);
    let log = std::fs::read_to_string(cluster.folder.join("master.log")).unwrap();
    assert!(log.contains("no traces are sent"), "{log}");
}
