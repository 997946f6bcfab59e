//! More than a master takes: what is too much is turned away at once and leaves nothing, what was acknowledged is done once, and the master
//! stays as large as it was (G23).

use crate::cluster::{Cluster, PATIENCE, sample};
use crate::scene::memory_bytes;
use protocol::Digest;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;
use tokio::task::JoinSet;

/// Connections, and submissions at once on each: eight times what the master lets wait for their commit.
const CONNECTIONS: usize = 16;
const CALLERS_EACH: usize = 128;
/// Streams of submissions beside them, and lines of each: together more than may wait for their commit.
const STREAMS: usize = 8;
const LINES: usize = 1_000;
/// How often all submit at once, at the most, until some were turned away.
const ROUNDS_MAX: usize = 20;
/// How long the master stands still while all submit: until all that it is sent lies before it.
const STILL: Duration = Duration::from_secs(1);
/// By how much the master may grow: what it had to read and write at once, and what it keeps of each job that has ended.
const GROWTH_BYTES_MAX: u64 = 64 << 20;
const GROWTH_BYTES_MAX_EACH: u64 = 2 << 10;

/// What became of a submission: its id, or how often it was turned away until it was given up.
type Outcome = Result<String, usize>;

#[test]
fn what_is_too_much_is_turned_away_and_what_was_acknowledged_is_done_once() {
    // One thread reads requests and decides, as on a small machine: what comes at once waits at once.
    let mut cluster = Cluster::master(&["--threads", "1"]);
    cluster.add_agent("a1", "cpu=64,memory=64GiB,disk=1GiB,ports=20000-20099");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let job = runtime.block_on(upload(&cluster));
    let before = memory_bytes(cluster.master_id());
    let (mut acknowledged, mut refused) = (BTreeMap::new(), 0);
    for round in 0..ROUNDS_MAX {
        let all = async { tokio::time::timeout(PATIENCE, all_at_once(&cluster, &job, round)).await };
        let outcomes = runtime.block_on(all).expect("a round ends within a bound");
        for (key, outcome) in outcomes {
            match outcome {
                Ok(id) => drop(acknowledged.insert(key, id)),
                Err(times) => refused += times,
            }
        }
        if refused > 0 {
            break;
        }
    }
    println!("{} were acknowledged, {refused} turned away and given up", acknowledged.len());
    assert!(refused > 0, "nobody was turned away in {ROUNDS_MAX} rounds");
    let figures = |cluster: &Cluster| runtime.block_on(get(cluster, "/v1/status"))["figures"].clone();
    cluster.until("all that was acknowledged ends", |cluster| figures(cluster)["jobs_live"] == 0);
    let growth = memory_bytes(cluster.master_id()).saturating_sub(before);
    println!("the master has {} KiB more", growth >> 10);
    assert!(
        growth < GROWTH_BYTES_MAX + GROWTH_BYTES_MAX_EACH * acknowledged.len() as u64,
        "the master has {} KiB more than before",
        growth >> 10
    );

    // Nothing else is there, nothing ran twice, and a key that is used again makes nothing new.
    assert_eq!(figures(&cluster)["jobs_ended"], acknowledged.len());
    let ended = runtime.block_on(ended(&cluster));
    assert!(acknowledged.values().all(|id| ended.get(id) == Some(&true)), "what was acknowledged did not end as it was to");
    assert_eq!(ended.len(), acknowledged.len());
    let (key, id) = acknowledged.first_key_value().unwrap();
    let again = runtime.block_on(submit(client(&cluster), cluster.url.clone(), cluster.token.clone(), key.clone(), job, true));
    assert_eq!(again.as_ref(), Ok(id));
    assert_eq!(figures(&cluster)["jobs_ended"], acknowledged.len());
}

fn client(cluster: &Cluster) -> reqwest::Client {
    protocol::link::install_crypto();
    let root = reqwest::Certificate::from_pem(&std::fs::read(cluster.ca()).unwrap()).unwrap();
    reqwest::Client::builder().tls_certs_only([root]).no_proxy().build().unwrap()
}

async fn get(cluster: &Cluster, path: &str) -> Value {
    let get = client(cluster).get(format!("{}{path}", cluster.url)).bearer_auth(&cluster.token);
    get.send().await.unwrap().json().await.unwrap()
}

/// A job of one task that ends at once.
async fn upload(cluster: &Cluster) -> Value {
    let bytes = std::fs::read(sample("noop.wasm")).unwrap();
    let digest = Digest::of(&bytes);
    let put = client(cluster).put(format!("{}/v1/bundles/{digest}", cluster.url)).bearer_auth(&cluster.token).body(bytes);
    assert!(put.send().await.unwrap().status().is_success());
    json!({ "kind": "batch", "task": { "wasm": format!("sha256:{digest}"), "args": ["1", "1"] }, "resources": { "cpu": 0.01, "memory": "1MiB" } })
}

/// A client that is connected.
async fn connected(cluster: &Cluster) -> reqwest::Client {
    let client = client(cluster);
    let url = format!("{}/v1/status", cluster.url);
    while let Err(error) = client.get(&url).bearer_auth(&cluster.token).send().await {
        // Where the machine has much else to do, a handshake may take longer than a master waits for one.
        assert!(error.is_connect(), "{error:?}");
    }
    client
}

fn signal(cluster: &Cluster, which: &str) {
    assert!(Command::new("kill").args([which, &cluster.master_id().to_string()]).status().unwrap().success());
}

/// Every caller submits once, and all streams all their lines, to a master that stands still meanwhile: when it goes on, all of it is there.
async fn all_at_once(cluster: &Cluster, job: &Value, round: usize) -> Vec<(String, Outcome)> {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS + STREAMS {
        clients.push(connected(cluster).await);
    }
    signal(cluster, "-STOP");
    let mut all = JoinSet::new();
    for (connection, client) in clients.drain(STREAMS..).enumerate() {
        for caller in 0..CALLERS_EACH {
            let key = format!("one-{round}-{connection}-{caller}");
            // Every second one comes again until it is acknowledged.
            let called = submit(client.clone(), cluster.url.clone(), cluster.token.clone(), key.clone(), job.clone(), caller % 2 == 0);
            all.spawn(async move { vec![(key, called.await)] });
        }
    }
    for (number, client) in clients.into_iter().enumerate() {
        let post = client.post(format!("{}/v1/submit", cluster.url)).bearer_auth(&cluster.token);
        all.spawn(stream(post, job.clone(), format!("many-{round}-{number}")));
    }
    tokio::time::sleep(STILL).await;
    signal(cluster, "-CONT");
    all.join_all().await.into_iter().flatten().collect()
}

/// Submits once, or until it is acknowledged. Whoever is turned away is told when to come again.
async fn submit(client: reqwest::Client, url: String, token: String, key: String, job: Value, again: bool) -> Outcome {
    let mut refused = 0;
    loop {
        let post = client.post(format!("{url}/v1/jobs")).bearer_auth(&token).header("idempotency-key", &key).json(&job);
        let response = match post.send().await {
            // Nothing was asked.
            Err(error) if error.is_connect() => continue,
            response => response.unwrap(),
        };
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let answer: Value = response.json().await.unwrap();
        match status {
            200 | 201 => return Ok(answer["id"].as_str().unwrap().to_owned()),
            429 => {
                let seconds: u64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
                let ms = answer["error"]["retry_after_ms"].as_u64().unwrap();
                assert!(seconds >= 1 && ms <= seconds * 1_000 && answer["error"]["code"] == "busy", "{answer}");
                refused += 1;
                if !again {
                    return Err(refused);
                }
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
            _ => panic!("{status}: {answer}"),
        }
    }
}

/// Submits many lines without a pause. None is turned away: a stream is not read further while too many wait.
async fn stream(post: reqwest::RequestBuilder, job: Value, key: String) -> Vec<(String, Outcome)> {
    let lines: String = (0..LINES).map(|line| format!("{}\n", json!({ "key": format!("{key}-{line}"), "job": job }))).collect();
    let response = loop {
        match post.try_clone().expect("it has no body yet").body(lines.clone()).send().await {
            Err(error) if error.is_connect() => {}
            response => break response.unwrap(),
        }
    };
    assert!(response.status().is_success());
    let text = response.text().await.unwrap();
    let answers: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), LINES);
    let outcome = |answer: &Value| (answer["key"].as_str().unwrap().to_owned(), Ok(answer["id"].as_str().unwrap().to_owned()));
    answers.iter().map(outcome).collect()
}

/// All jobs that have ended, and whether their one task finished in its first attempt.
async fn ended(cluster: &Cluster) -> BTreeMap<String, bool> {
    let (mut ended, mut after) = (BTreeMap::new(), String::new());
    loop {
        let page = get(cluster, &format!("/v1/jobs?ended=true&limit=1000{after}")).await;
        for job in page["jobs"].as_array().unwrap() {
            let once = job["tasks"]["finished"] == 1 && job["restarts"] == 0;
            ended.insert(job["id"].as_str().unwrap().to_owned(), once);
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return ended,
        }
    }
}
