//! What reaches whoever listens: many readers of `/v1/events`, each over a connection of its own, while jobs are submitted at an even rate. What is measured is
//! the time from a submission until a reader has read of it, of each submission and each reader, beside the time until its own answer.

use super::cluster::Cluster;
use super::figure::{Figures, What, quantile};
use super::{RESOURCES, job, upload};
use crate::client::Client;
use anyhow::{Context, bail, ensure};
use reqwest::{Method, Response};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Submissions a second. Each is heard of three times at least: submitted, running, ended.
const RATE: u32 = 50;
/// How long the last events may take to come.
const PATIENCE: Duration = Duration::from_secs(30);
/// Each job is called so, with its number behind it.
const NAME: &str = "event-";

/// So many readers hear of what is submitted within so many seconds.
pub async fn events(figures: &mut Figures, samples: &Path, run: u32, readers: u32, seconds: u32) -> anyhow::Result<()> {
    let cluster = Cluster::start(RESOURCES).await?;
    let wasm = upload(&cluster.client, samples, "noop.wasm").await?;
    let jobs = seconds * RATE;
    let mut listening = JoinSet::new();
    for _ in 0..readers {
        let client = Client::new(cluster.client.access().clone())?;
        let stream = client.send(client.request(Method::GET, "/v1/events")).await?;
        listening.spawn(listen(stream, jobs as usize));
    }
    let (begun, mut answered) = submit(&cluster.client, &wasm, jobs).await?;
    let mut heard = vec![];
    while let Some(times) = listening.join_next().await {
        for (number, at) in times.context("a reader")??.into_iter().enumerate() {
            heard.push(at.saturating_duration_since(begun[number]).as_secs_f64() * 1_000.0);
        }
    }
    for times in [&mut heard, &mut answered] {
        times.sort_unstable_by(f64::total_cmp);
    }
    let what = What { bench: "events", kind: "submitted", n: u64::from(readers), run };
    for (metric, times) in [("answer", answered), ("each_reader", heard)] {
        figures.add(&what, &format!("{metric}_p50"), quantile(&times, 0.5), "ms");
        figures.add(&what, &format!("{metric}_p99"), quantile(&times, 0.99), "ms");
        figures.add(&what, &format!("{metric}_max"), times[times.len() - 1], "ms");
    }
    Ok(())
}

/// Submits one job after the other, each when its time has come; when each was sent, and how many milliseconds its answer took.
async fn submit(client: &Client, wasm: &str, jobs: u32) -> anyhow::Result<(Vec<Instant>, Vec<f64>)> {
    let mut due = tokio::time::interval(Duration::from_secs(1) / RATE);
    let (mut begun, mut answers) = (vec![], JoinSet::new());
    for number in 0..jobs {
        due.tick().await;
        let mut one = job(wasm, &["1".to_owned(), "1".to_owned()], 1);
        one["name"] = format!("{NAME}{number}").into();
        let client = client.clone();
        let start = Instant::now();
        begun.push(start);
        answers.spawn(async move {
            client.call(Method::POST, "/v1/jobs", &one).await?;
            anyhow::Ok(start.elapsed().as_secs_f64() * 1_000.0)
        });
    }
    let mut answered = vec![];
    while let Some(ms) = answers.join_next().await {
        answered.push(ms.context("a submission")??);
    }
    Ok((begun, answered))
}

/// When each of so many jobs was said to be submitted.
async fn listen(mut stream: Response, jobs: usize) -> anyhow::Result<Vec<Instant>> {
    let (mut times, mut heard, mut text) = (vec![None; jobs], 0, Vec::new());
    while heard < jobs {
        let piece = tokio::time::timeout(PATIENCE, stream.chunk()).await.context("an event does not come")??;
        let (at, piece) = (Instant::now(), piece.context("the events ended")?);
        text.extend_from_slice(&piece);
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in text[..whole].split(|byte| *byte == b'\n') {
            let Some(data) = line.strip_prefix(b"data: ") else { continue };
            let event: Value = serde_json::from_slice(data).context("an event is not JSON")?;
            match event["event"].as_str() {
                Some("job") if event["what"] == "submitted" => {
                    let title = event["title"].as_str().unwrap_or_default();
                    let number: usize =
                        title.strip_prefix(NAME).and_then(|number| number.parse().ok()).context("a job of somebody else")?;
                    let time = times.get_mut(number).context("a job that was not submitted")?;
                    ensure!(time.replace(at).is_none(), "job {number} was told twice");
                    heard += 1;
                }
                Some("missed" | "dropped") => bail!("a reader was left behind: {event}"),
                _ => {}
            }
        }
        text.drain(..whole);
    }
    times.into_iter().collect::<Option<_>>().context("an event is missing")
}
