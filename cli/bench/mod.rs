//! `skep bench`: load on a real cluster of its own, everything on as users have it. Each bench says what it measures; none judges.

mod agents;
mod apps;
mod cluster;
mod cold_start;
mod crowd;
mod day;
mod events;
mod failover;
mod figure;
mod frameworks;
mod latency;
mod masters;
mod member;
mod night;
mod overload;
mod page;
mod policies;
mod processes;
mod rest;
mod roll;
mod tasks;

use crate::args::{Bench, BenchWhat};
use crate::client::Client;
use anyhow::{Context, bail};
use figure::Figures;
use protocol::Digest;
use reqwest::Method;
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

pub use cluster::temporary;

/// What an agent of a bench promises: enough that tasks of [`SHARE_CPU`] do not wait for each other's rooms.
const RESOURCES: &str = "cpu=16,memory=64GiB,disk=16GiB,ports=20000-20999";
/// What one no-op task is promised, in cores: 1,600 at once on the agent.
const SHARE_CPU: f64 = 0.01;

/// Runs one bench.
pub async fn bench(flags: Bench) -> anyhow::Result<ExitCode> {
    if cfg!(debug_assertions) {
        eprintln!("skep bench: this is a debug build; its figures say nothing");
    }
    let mut figures = Figures::default();
    for run in 1..=flags.runs {
        match &flags.what {
            BenchWhat::Tasks { .. } => many(&mut figures, &flags, run).await?,
            BenchWhat::Latency { count, kind, process } => {
                if kind != "wasm" {
                    processes::latency(&mut figures, run, *count, processes::Kind::named(kind)?).await?;
                    continue;
                }
                if *process {
                    latency::process(&mut figures, &flags.samples, run, *count).await?
                } else {
                    latency::stream(&mut figures, &flags.samples, run, *count).await?
                }
            }
            BenchWhat::Idle { count, kind, component } => {
                wasm_only(kind)?;
                rest::idle(&mut figures, &flags.samples, run, *count, *component).await?;
            }
            BenchWhat::Memory { count } => rest::memory(&mut figures, &flags.samples, run, *count).await?,
            BenchWhat::Rest { seconds } => rest::rest(&mut figures, run, *seconds).await?,
            BenchWhat::Cold { module } => latency::cold(&mut figures, &flags.samples, run, module.as_deref()).await?,
            BenchWhat::Recover { count } => processes::recover(&mut figures, run, *count).await?,
            BenchWhat::Agents { count } => agents::agents(&mut figures, &flags.samples, run, *count).await?,
            BenchWhat::Apps { count, agents } => apps::apps(&mut figures, run, *count, *agents).await?,
            BenchWhat::Events { count, seconds } => events::events(&mut figures, &flags.samples, run, *count, *seconds).await?,
            BenchWhat::Failover { count, kills } => failover::failover(&mut figures, &flags.samples, run, *count, *kills).await?,
            BenchWhat::ColdStart { count } => cold_start::cold_start(&mut figures, &flags.samples, run, *count).await?,
            BenchWhat::Overload { seconds } => overload::overload(&mut figures, &flags.samples, run, *seconds).await?,
            BenchWhat::Frameworks { count, seconds } => {
                frameworks::freed(&mut figures, &flags.samples, run, *count).await?;
                frameworks::held(&mut figures, &flags.samples, run, *seconds).await?;
            }
            BenchWhat::Policies { count } => policies::policies(&mut figures, &flags.samples, run, *count).await?,
            BenchWhat::Night { kind, seconds } => night::night(&mut figures, &flags.samples, run, (kind, *seconds)).await?,
            BenchWhat::Day { lead_s, day_s, rate, wake_s } => {
                let seconds = Duration::from_secs;
                day::serve(seconds(*lead_s), seconds(*day_s), *rate, seconds(*wake_s))?;
                return Ok(ExitCode::SUCCESS);
            }
            BenchWhat::Page { count, tasks } => page::page(&mut figures, &flags.samples, run, (*count, *tasks)).await?,
            BenchWhat::Roll { count, over } => roll::roll(&mut figures, &flags.samples, run, *count, *over).await?,
            BenchWhat::Detect => rest::detect(&mut figures, &flags.samples, run).await?,
        }
    }
    figures.close();
    Ok(ExitCode::SUCCESS)
}

/// `skep bench tasks`.
async fn many(figures: &mut Figures, flags: &Bench, run: u32) -> anyhow::Result<()> {
    let BenchWhat::Tasks { count, kind, separate, masters } = &flags.what else { return Ok(()) };
    match (*masters, kind.as_str()) {
        (3, kind) => {
            wasm_only(kind)?;
            tasks::by_three(figures, &flags.samples, run, count.unwrap_or(tasks::COUNT), *separate).await
        }
        (1, "wasm") if *separate => tasks::separate(figures, &flags.samples, run, count.unwrap_or(tasks::COUNT)).await,
        (1, "wasm") => tasks::whole(figures, &flags.samples, run, count.unwrap_or(tasks::COUNT)).await,
        (1, kind) => processes::whole(figures, run, count.unwrap_or(processes::COUNT), processes::Kind::named(kind)?).await,
        (other, _) => bail!("--masters {other}: expected 1 or 3"),
    }
}

fn wasm_only(kind: &str) -> anyhow::Result<()> {
    if kind != "wasm" {
        bail!("--kind {kind}: only wasm tasks are measured so");
    }
    Ok(())
}

/// Uploads a sample; gives `sha256:…`.
async fn upload(client: &Client, samples: &Path, name: &str) -> anyhow::Result<String> {
    let path = samples.join(name);
    let bytes = std::fs::read(&path)
        .with_context(|| format!("{}: build the samples with samples/build, or name their folder with --samples", path.display()))?;
    upload_bytes(client, bytes).await
}

async fn upload_bytes(client: &Client, bytes: Vec<u8>) -> anyhow::Result<String> {
    let digest = Digest::of(&bytes);
    client.send(client.request(Method::PUT, &format!("/v1/bundles/{digest}")).body(bytes)).await?;
    Ok(format!("sha256:{digest}"))
}

/// A batch job of `count` small tasks.
fn job(wasm: &str, args: &[String], count: u32) -> Value {
    json!({
        "kind": "batch", "count": count,
        "task": { "wasm": wasm, "args": args },
        "resources": { "cpu": SHARE_CPU, "memory": "1MiB" },
    })
}
