//! How many no-op tasks a second: as one job, and as a submission each. Every task has its own argument, one in a hundred traps where a
//! seeded hash of its index says so, and each of them is checked.

use super::cluster::Cluster;
use super::figure::{Figures, What};
use super::masters::Masters;
use super::{RESOURCES, job, upload};
use crate::client::Client;
use crate::submit::{Answer, Submission, line};
use anyhow::{Context, bail};
use serde_json::Value;
use std::path::Path;
use std::time::Instant;

/// How many where nobody says.
pub const COUNT: u32 = 100_000;
/// Tasks that are run before the clock counts.
const WARM: u32 = 1_000;
/// Rows that are asked for at a time.
const PAGE: u32 = 1_000;
/// Lines that are sent in one piece.
const LINES: u32 = 256;

/// Whether the sample `noop` traps for this index and seed: one in a hundred by `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014), as in the
/// sample itself.
fn traps(index: u32, seed: u32) -> bool {
    let mut z = u64::from(seed).wrapping_add((u64::from(index) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ z >> 31).is_multiple_of(100)
}

async fn ended(submission: &mut Submission) -> anyhow::Result<Value> {
    loop {
        if let Answer::Ended { job, .. } = submission.next().await? {
            return Ok(job);
        }
    }
}

/// One job of `count` tasks, from its submission until the client has read that all of them ended.
pub async fn whole(figures: &mut Figures, samples: &Path, run: u32, count: u32) -> anyhow::Result<()> {
    let cluster = Cluster::start(RESOURCES).await?;
    let rate = whole_rate(&cluster.client, samples, run, count).await?;
    figures.add(&What { bench: "tasks", kind: "wasm", n: u64::from(count), run }, "throughput", rate, "tasks/s");
    Ok(())
}

/// The same, or as submissions of their own, with one master and then with three on the same machine, and what share of the rate is left: with
/// three each record is on three disks before it counts.
pub async fn by_three(figures: &mut Figures, samples: &Path, run: u32, count: u32, separate: bool) -> anyhow::Result<()> {
    let measure = async |client: &Client| match separate {
        true => separate_rate(client, samples, run, count).await,
        false => whole_rate(client, samples, run, count).await,
    };
    let cluster = Cluster::start(RESOURCES).await?;
    let one = measure(&cluster.client).await?;
    // It is gone before the next are measured.
    drop(cluster);
    let mut masters = Masters::three().await?;
    masters.agent("a1", RESOURCES).await?;
    let three = measure(&masters.client).await?;
    let [alone, beside] = if separate { ["wasm separate", "wasm separate, 3 masters"] } else { ["wasm", "wasm, 3 masters"] };
    let what = |kind| What { bench: "tasks", kind, n: u64::from(count), run };
    figures.add(&what(alone), "throughput", one, "tasks/s");
    figures.add(&what(beside), "throughput", three, "tasks/s");
    figures.add(&what(beside), "of_one_master", 100.0 * three / one, "percent");
    Ok(())
}

/// Tasks a second of one job of `count`.
async fn whole_rate(client: &Client, samples: &Path, seed: u32, count: u32) -> anyhow::Result<f64> {
    let wasm = upload(client, samples, "noop.wasm").await?;
    let argument = ["${task.index}".to_owned(), seed.to_string()];
    let mut submission = Submission::open(client).await?;
    submission.send(line("warm", &job(&wasm, &argument, WARM), true)).await?;
    ended(&mut submission).await?;
    let start = Instant::now();
    submission.send(line("all", &job(&wasm, &argument, count), true)).await?;
    let end = ended(&mut submission).await?;
    let took = start.elapsed().as_secs_f64();
    check_whole(client, &end, count, seed).await?;
    Ok(f64::from(count) / took)
}

async fn check_whole(client: &Client, end: &Value, count: u32, seed: u32) -> anyhow::Result<()> {
    let id = end["id"].as_str().context("the end names no job")?;
    let mut next = 0;
    while next < count {
        let page = client.get(&format!("/v1/jobs/{id}/tasks?from={next}&limit={PAGE}")).await?;
        let rows = page["tasks"].as_array().context("no tasks in the answer")?;
        if rows.is_empty() {
            bail!("the job has {next} tasks instead of {count}");
        }
        for row in rows {
            let kind = if traps(next, seed) { "trap" } else { "code" };
            if row["index"] != next || row["exit"]["kind"] != kind || row["attempt"] != 1 {
                bail!("task {next} was to end with {kind}: {row}");
            }
            next += 1;
        }
    }
    Ok(())
}

/// `count` jobs of one task, submitted one by one without waiting, until the client has read that all of them ended.
pub async fn separate(figures: &mut Figures, samples: &Path, run: u32, count: u32) -> anyhow::Result<()> {
    let cluster = Cluster::start(RESOURCES).await?;
    let rate = separate_rate(&cluster.client, samples, run, count).await?;
    figures.add(&What { bench: "tasks", kind: "wasm separate", n: u64::from(count), run }, "throughput", rate, "tasks/s");
    Ok(())
}

/// Tasks a second of `count` jobs of one.
async fn separate_rate(client: &Client, samples: &Path, seed: u32, count: u32) -> anyhow::Result<f64> {
    let wasm = upload(client, samples, "noop.wasm").await?;
    let mut submission = Submission::open(client).await?;
    let single = |key: &str, index: u32| line(key, &job(&wasm, &[index.to_string(), seed.to_string()], 1), true);
    for index in 0..WARM {
        submission.send(single(&format!("warm-{index}"), index)).await?;
    }
    for _ in 0..WARM {
        ended(&mut submission).await?;
    }
    let sender = submission.sender();
    let pieces: Vec<Vec<u8>> = (0..count.div_ceil(LINES))
        .map(|piece| (piece * LINES..count.min((piece + 1) * LINES)).flat_map(|index| single(&index.to_string(), index)).collect())
        .collect();
    let start = Instant::now();
    let sending = tokio::spawn(async move {
        for piece in pieces {
            if sender.send(Ok(piece.into())).await.is_err() {
                return;
            }
        }
    });
    let mut seen = vec![false; count as usize];
    let mut wrong = None;
    for _ in 0..count {
        let (key, end) = loop {
            if let Answer::Ended { key, job } = submission.next().await? {
                break (key, job);
            }
        };
        let index: u32 = key.parse().with_context(|| format!("an end of the unknown key {key}"))?;
        let phase = if traps(index, seed) { "failed" } else { "finished" };
        let once = !std::mem::replace(&mut seen[index as usize], true);
        if !once || end["tasks"][phase] != 1 {
            wrong = Some(format!("task {index} was to be {phase} once: {end}"));
        }
    }
    let took = start.elapsed().as_secs_f64();
    sending.await?;
    if let Some(wrong) = wrong {
        bail!(wrong);
    }
    Ok(f64::from(count) / took)
}
