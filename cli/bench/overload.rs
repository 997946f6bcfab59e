//! What becomes of accepted work when more is offered than a master takes: callers that submit one job after the other over connections of
//! their own, first as many as it takes whole, then several times as many. Whoever is turned away comes again when he is told to. Every
//! acknowledged job is counted at the end: it ended once, and nothing else did.

use super::cluster::{Cluster, memory as held};
use super::figure::{Figures, What, quantile};
use super::{RESOURCES, job, upload};
use crate::client::Client;
use anyhow::{Context, bail, ensure};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Callers at once whom a master takes whole: fewer than it lets wait for their commit.
const CALLERS: usize = 200;
/// How many times as many there are in the second half.
const TIMES: usize = 5;
/// Callers of one connection: each has a request on its way at most, and a connection may have 128.
const CALLERS_EACH: usize = 100;
/// How long the last jobs may take to end.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(50);
/// Of each half so much is not counted, while connections begin and all callers come at once.
const SETTLE: Duration = Duration::from_secs(1);

/// What callers saw.
#[derive(Default)]
struct Seen {
    /// Milliseconds from a submission that was accepted to its acknowledgement.
    accepted: Vec<f64>,
    /// The same from its first try on.
    whole: Vec<f64>,
    refused: usize,
    /// Jobs that were acknowledged, counted or not.
    acknowledged: usize,
}

/// Both halves, `seconds` each.
pub async fn overload(figures: &mut Figures, samples: &Path, run: u32, seconds: u64) -> anyhow::Result<()> {
    let cluster = Cluster::start(RESOURCES).await?;
    let noop = job(&upload(&cluster.client, samples, "noop.wasm").await?, &["1".to_owned(), "1".to_owned()], 1);
    let master = cluster.master.id();
    let call = async |name: &str, callers: usize| {
        let (start, mut all) = (Instant::now() + SETTLE, JoinSet::new());
        for connection in 0..callers.div_ceil(CALLERS_EACH) {
            let client = Client::new(cluster.client.access().clone())?;
            for caller in connection * CALLERS_EACH..callers.min((connection + 1) * CALLERS_EACH) {
                let counted = start..start + Duration::from_secs(seconds);
                all.spawn(submit_on(client.clone(), noop.clone(), format!("{name}-{caller}"), counted));
            }
        }
        let mut seen = Seen::default();
        while let Some(one) = all.join_next().await {
            let one = one.context("a caller")??;
            seen.accepted.extend(one.accepted);
            seen.whole.extend(one.whole);
            seen.refused += one.refused;
            seen.acknowledged += one.acknowledged;
        }
        let rate = seen.accepted.len() as f64 / start.elapsed().as_secs_f64();
        anyhow::Ok((seen, rate))
    };
    let (calm, calm_rate) = call("calm", CALLERS).await?;
    let before = held(master)?;
    let (over, over_rate) = call("over", TIMES * CALLERS).await?;
    let growth = held(master)?.saturating_sub(before);
    until_ended(&cluster.client, calm.acknowledged + over.acknowledged).await?;

    let of = |n: usize, kind| What { bench: "overload", kind, n: n as u64, run };
    let (few, many) = (of(CALLERS, "calm"), of(TIMES * CALLERS, "five times"));
    let [calm_p99, over_p99] = [add(figures, &few, calm, calm_rate), add(figures, &many, over, over_rate)];
    figures.add(&many, "latency_p99_to_calm", over_p99 / calm_p99, "times");
    figures.add(&many, "accepted_to_calm", 100.0 * over_rate / calm_rate, "percent");
    figures.add(&many, "master_growth", growth as f64, "bytes");
    Ok(())
}

/// Returns the 99th of a hundred.
fn add(figures: &mut Figures, what: &What<'_>, seen: Seen, rate: f64) -> f64 {
    let Seen { mut accepted, mut whole, refused, .. } = seen;
    accepted.sort_by(f64::total_cmp);
    whole.sort_by(f64::total_cmp);
    let p99 = quantile(&accepted, 0.99);
    figures.add(what, "accepted", rate, "jobs/s");
    figures.add(what, "refused", refused as f64, "answers");
    figures.add(what, "latency_p50", quantile(&accepted, 0.5), "ms");
    figures.add(what, "latency_p99", p99, "ms");
    figures.add(what, "with_retries_p99", quantile(&whole, 0.99), "ms");
    p99
}

/// One caller: submits again and again, each until it is acknowledged; what begins within `counted` is.
async fn submit_on(client: Client, job: Value, name: String, counted: Range<Instant>) -> anyhow::Result<Seen> {
    let (mut seen, mut number) = (Seen::default(), 0);
    while Instant::now() < counted.end {
        let first = Instant::now();
        loop {
            let start = Instant::now();
            let key = format!("{name}-{number}");
            let response = client.request(Method::POST, "/v1/jobs").header("idempotency-key", key).json(&job).send().await?;
            let (status, answer) = (response.status(), response.json::<Value>().await?);
            match status {
                StatusCode::OK | StatusCode::CREATED => {
                    seen.acknowledged += 1;
                    if counted.contains(&first) {
                        seen.accepted.push(start.elapsed().as_secs_f64() * 1_000.0);
                        seen.whole.push(first.elapsed().as_secs_f64() * 1_000.0);
                    }
                    break;
                }
                StatusCode::TOO_MANY_REQUESTS => {
                    seen.refused += usize::from(counted.contains(&first));
                    let ms = answer["error"]["retry_after_ms"].as_u64().context("a refusal says when to come again")?;
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                }
                _ => bail!("a submission was answered with {status}: {answer}"),
            }
        }
        number += 1;
    }
    Ok(seen)
}

/// Waits until all jobs have ended, and looks whether they are as many as were acknowledged, each with one attempt.
async fn until_ended(client: &Client, accepted: usize) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let figures = client.get("/v1/status").await?["figures"].clone();
        if figures["jobs_live"] == 0 {
            let is_so = ["jobs_ended", "staged_total", "ended_total"].iter().all(|name| figures[name] == accepted);
            ensure!(is_so, "{accepted} jobs were acknowledged, and the master says {figures}");
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENCE, "after {} s jobs still live: {figures}", PATIENCE.as_secs());
        tokio::time::sleep(LOOK).await;
    }
}
