//! A service of many wasm tasks goes to a new version: how long until all are of it and do their work, and the fewest that did at any moment, of events and of
//! looks alike.

use super::cluster::Cluster;
use super::figure::{Figures, What};
use super::{SHARE_CPU, upload};
use crate::client::Client;
use anyhow::{Context, bail};
use reqwest::Method;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// What the agent promises: room for all tasks and those beyond.
const RESOURCES: &str = "cpu=64,memory=64GiB,disk=1GiB";
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(20);
/// It is given up after so long.
const WITHIN: Duration = Duration::from_secs(300);

/// So many tasks are replaced, at most a tenth of them at a time; one in ten may be missing, or none where `over` says so: then one in ten runs beyond.
pub async fn roll(figures: &mut Figures, samples: &Path, run: u32, count: u32, over: bool) -> anyhow::Result<()> {
    let cluster = Cluster::start(RESOURCES).await?;
    let client = &cluster.client;
    let wasm = upload(client, samples, "sleep.wasm").await?;
    let first = put(client, &service(&wasm, count, over, "1")).await?;
    until_done(client, &first).await?;
    let floor = if over { count } else { count - count / 10 };
    let start = Instant::now();
    let second = put(client, &service(&wasm, count, over, "2")).await?;
    let (fewest, most) = until_done(client, &second).await?;
    let took = start.elapsed().as_secs_f64();
    if fewest < u64::from(floor) {
        bail!("{fewest} tasks did their work, and {floor} are promised");
    }
    check(client, count).await?;
    let what = What { bench: "roll", kind: if over { "wasm, beyond the count" } else { "wasm" }, n: u64::from(count), run };
    figures.add(&what, "rolled", took, "s");
    figures.add(&what, "fewest_ready", fewest as f64, "tasks");
    figures.add(&what, "most", most as f64, "tasks");
    Ok(())
}

fn service(wasm: &str, count: u32, over: bool, word: &str) -> Value {
    let (healthy, beyond) = if over { (1.0, 0.1) } else { (0.9, 0.0) };
    json!({
        "name": "service", "kind": "service", "count": count,
        "task": { "wasm": wasm, "args": ["3600000"], "env": { "WORD": word } },
        "resources": { "cpu": SHARE_CPU, "memory": "1MiB" },
        "update": { "parallel": (count / 10).max(1), "min_healthy": healthy, "max_over": beyond, "settle": "0ms" },
    })
}

async fn put(client: &Client, job: &Value) -> anyhow::Result<String> {
    let answer = client.call(Method::PUT, "/v1/jobs/service", job).await?;
    answer["deployment"].as_str().map(str::to_owned).context("the answer names no deployment")
}

/// Waits until a deployment is done; the fewest tasks that did their work meanwhile, and the most that there were.
async fn until_done(client: &Client, id: &str) -> anyhow::Result<(u64, u64)> {
    let (start, mut fewest, mut most) = (Instant::now(), u64::MAX, 0);
    loop {
        let deployment = client.get(&format!("/v1/deployments/{id}")).await?;
        let number = |field: &str| deployment[field].as_u64().unwrap_or(0);
        fewest = fewest.min(number("ready") + number("old_ready"));
        most = most.max(number("new") + number("old"));
        match deployment["state"].as_str() {
            Some("done") => return Ok((fewest, most)),
            Some("running") if start.elapsed() < WITHIN => {}
            _ => bail!("the deployment does not get done: {deployment}"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Each task is of the second version and runs.
async fn check(client: &Client, count: u32) -> anyhow::Result<()> {
    let job = client.get("/v1/jobs/service").await?;
    if job["tasks"]["running"] != count || job["version"] != 2 {
        bail!("not all run the second version: {job}");
    }
    Ok(())
}
