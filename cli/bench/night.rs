//! A service under the load of a day, and a batch of wasm or native tasks: in parts of the machine of their own, and then with the batch in what the service does
//! not use. How much of the machine is used, what the service's callers wait, and how soon what was lent is taken back.

use super::cluster::{Cluster, cpu_us, executors};
use super::day::answer_cost;
use super::figure::{Figures, What};
use super::{upload, upload_bytes};
use anyhow::{Context, bail};
use futures::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// What the service idles before its day, and after it: so long is what it does not use not lent at first.
const LEAD: Duration = Duration::from_secs(15);
/// How long it wants a whole core in the end.
const WAKE: Duration = Duration::from_secs(5);
/// What of one core the service uses at noon, in hundredths.
const NOON_PERCENT: f64 = 80.0;
const PATIENCE: Duration = Duration::from_secs(120);
/// A native task of the batch, and what its file is called.
const SPIN: (&str, &str) = ("#!/bin/sh\nwhile :; do :; done\n", "night-spin");

/// What stands beside the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Batch {
    /// Nothing.
    None,
    /// A task on each core but the service's.
    Parted { tasks: u64 },
    /// A revocable task for each core, of what is lent by night.
    Lent { tasks: u64 },
}

/// What became of it.
struct Outcome {
    p50_us: f64,
    p99_us: f64,
    calls: u64,
    /// Of the machine's processors, what the tasks used in the day.
    used: f64,
    /// From the wish for a core until the record that a task was revoked.
    revoked_ms: Option<f64>,
}

/// All three, one after the other.
pub async fn night(figures: &mut Figures, samples: &Path, run: u32, (tasks, seconds): (&str, u64)) -> anyhow::Result<()> {
    let is_native = match tasks {
        "wasm" => false,
        "native" => true,
        other => bail!("--kind {other}: expected wasm or native"),
    };
    let cores = std::thread::available_parallelism()?.get() as u64;
    if cores < 2 {
        bail!("a service and a batch beside it take two cores");
    }
    let (day, rate) = (Duration::from_secs(seconds), NOON_PERCENT / 100.0 / answer_cost().as_secs_f64());
    let one = async |batch| outcome((samples, is_native), cores, batch, (day, rate)).await;
    let alone = one(Batch::None).await?;
    let parted = one(Batch::Parted { tasks: cores - 1 }).await?;
    let lent = one(Batch::Lent { tasks: cores }).await?;
    for (kind, outcome) in [("alone", &alone), ("parted", &parted), ("lent", &lent)] {
        let kind = if is_native { format!("{kind}-native") } else { kind.to_owned() };
        let what = What { bench: "night", kind: &kind, n: outcome.calls, run };
        figures.add(&what, "used", 100.0 * outcome.used, "% of the processors");
        figures.add(&what, "wait_p50", outcome.p50_us, "us");
        figures.add(&what, "wait_p99", outcome.p99_us, "us");
    }
    let kind = if is_native { "lent-native" } else { "lent" };
    let what = What { bench: "night", kind, n: lent.calls, run };
    figures.add(&what, "used_ratio", lent.used / parted.used, "of parted");
    figures.add(&what, "wait_p99_ratio", lent.p99_us / alone.p99_us, "of alone");
    if let Some(revoked_ms) = lent.revoked_ms {
        figures.add(&what, "revoked_in", revoked_ms, "ms");
    }
    Ok(())
}

async fn outcome((samples, is_native): (&Path, bool), cores: u64, batch: Batch, (day, rate): (Duration, f64)) -> anyhow::Result<Outcome> {
    let mut cluster = Cluster::master(&["--bundle-mib", "1024"]).await?;
    let flags: &[&str] = if matches!(batch, Batch::Lent { .. }) { &["--revocable"] } else { &[] };
    cluster.agent_with("a1", &format!("cpu={cores},memory=8GiB"), flags).await?;
    let own = std::fs::read(std::env::current_exe()?).context("reading this program")?;
    let program = upload_bytes(&cluster.client, own).await?;
    let spin = match is_native {
        true => json!({ "native": upload_bytes(&cluster.client, SPIN.0.into()).await?, "file": SPIN.1 }),
        false => json!({ "wasm": upload(&cluster.client, samples, "spin.wasm").await? }),
    };
    let wake = if matches!(batch, Batch::Lent { .. }) { WAKE } else { Duration::ZERO };
    let args = ["bench", "day", "--lead-s", &LEAD.as_secs().to_string(), "--day-s", &day.as_secs().to_string()].map(str::to_owned);
    let args = args.into_iter().chain(["--rate".into(), rate.to_string(), "--wake-s".into(), wake.as_secs().to_string()]);
    let service = json!({
        "kind": "batch", "task": { "native": program, "file": "skep", "args": args.collect::<Vec<_>>() },
        "resources": { "cpu": 1, "memory": "256MiB" },
    });
    let service = submit(&cluster, &service).await?;
    until(&cluster, &service, 1).await?;
    let begun = Instant::now();
    let tasks = match batch {
        Batch::None => 0,
        Batch::Parted { tasks } | Batch::Lent { tasks } => tasks,
    };
    let mut batch_job = None;
    if tasks > 0 {
        // Of what is lent there is nine tenths, and a little less.
        let cpu = if matches!(batch, Batch::Lent { .. }) { (0.9 * cores as f64 - 0.1) / tasks as f64 } else { 1.0 };
        let cpu = (cpu * 1_000.0).floor() / 1_000.0;
        let resources = json!({ "cpu": cpu, "memory": "16MiB", "revocable": matches!(batch, Batch::Lent { .. }) });
        let job = json!({
            "kind": "batch", "count": tasks, "task": spin, "resources": resources, "limits": { "cpu_time": "1h" },
        });
        let job = submit(&cluster, &job).await?;
        until(&cluster, &job, tasks).await?;
        batch_job = Some(job);
    }
    tokio::time::sleep(LEAD.saturating_sub(begun.elapsed())).await;
    let used_us = || if is_native && matches!(batch, Batch::Lent { .. }) { nice_us() } else { Ok(used_us(&cluster)) };
    let (before_us, start) = (used_us()?, Instant::now());
    tokio::time::sleep(day).await;
    let (batch_us, took) = (used_us()?.saturating_sub(before_us), start.elapsed());
    let (said, woken) = answers(&cluster, &service, !wake.is_zero()).await?;
    let revoked_ms = match (woken, &batch_job) {
        (Some(woken_ms), Some(job)) => Some(revoked(&cluster, job, woken_ms).await?),
        _ => None,
    };
    let number = |name: &str| said[name].as_f64().with_context(|| format!("the service did not say {name}: {said}"));
    let used = (batch_us as f64 / 1_000_000.0 + number("cpu_ms")? / 1_000.0) / (took.as_secs_f64() * cores as f64);
    Ok(Outcome { p50_us: number("p50_us")?, p99_us: number("p99_us")?, calls: number("calls")? as u64, used, revoked_ms })
}

async fn submit(cluster: &Cluster, job: &Value) -> anyhow::Result<String> {
    let answer = cluster.client.call(Method::POST, "/v1/jobs", job).await?;
    answer["id"].as_str().map(str::to_owned).with_context(|| format!("no id in {answer}"))
}

/// Waits until so many tasks run.
async fn until(cluster: &Cluster, job: &str, tasks: u64) -> anyhow::Result<()> {
    let start = Instant::now();
    while cluster.client.get(&format!("/v1/jobs/{job}")).await?["tasks"]["running"] != tasks {
        if start.elapsed() > PATIENCE {
            bail!("the tasks of {job} do not run after {} s", PATIENCE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Processor time of what executors are there, those of wasm tasks with all that they run, and of the batch's native tasks.
fn used_us(cluster: &Cluster) -> u64 {
    executors(&cluster.place).into_iter().chain(spinning()).filter_map(|process| cpu_us(process).ok()).sum()
}

/// Processor time of all that is nice on this machine, as revocable tasks are: of one that was revoked nothing else tells it (proc_stat(5), the second
/// field).
fn nice_us() -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string("/proc/stat").context("reading the machine's times")?;
    let ticks = stat.split_ascii_whitespace().nth(2).and_then(|ticks| ticks.parse::<u64>().ok()).context("no times in /proc/stat")?;
    Ok(ticks * 1_000_000 / rustix::param::clock_ticks_per_second())
}

/// The batch's native tasks: a shell with the name of the file that it reads.
fn spinning() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let spins = |id: &u32| {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1).is_some_and(|word| word.ends_with(SPIN.1.as_bytes()))
    };
    ids.filter(spins).collect()
}

/// What the service printed: of its day, and when it wanted a core.
async fn answers(cluster: &Cluster, service: &str, wakes: bool) -> anyhow::Result<(Value, Option<f64>)> {
    let request = cluster.client.request(Method::GET, &format!("/v1/jobs/{service}/logs?follow=true"));
    let mut lines = cluster.client.lines(request.header("accept", "application/x-ndjson")).await?;
    let (mut text, mut said) = (String::new(), Value::Null);
    while let Some(line) = lines.next().await {
        text.push_str(line?["text"].as_str().unwrap_or_default());
        for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            match line["woken_ms"].as_f64() {
                Some(woken_ms) => return Ok((said, Some(woken_ms))),
                None => said = line,
            }
        }
        if !wakes && said.is_object() {
            return Ok((said, None));
        }
    }
    bail!("the service ended without saying what its callers waited: {text}")
}

/// Milliseconds from a moment until it is on record that a task of the batch waits again.
async fn revoked(cluster: &Cluster, job: &str, since_ms: f64) -> anyhow::Result<f64> {
    let start = Instant::now();
    while start.elapsed() < WAKE {
        let rows = cluster.client.get(&format!("/v1/jobs/{job}/tasks?phase=waiting")).await?;
        let waits = rows["tasks"].as_array().into_iter().flatten().filter_map(|row| row["since_ms"].as_f64());
        if let Some(first) = waits.filter(|at| *at >= since_ms).min_by(f64::total_cmp) {
            return Ok(first - since_ms);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bail!("nothing was revoked within {} s", WAKE.as_secs())
}
