//! How long one task takes: over a standing connection, as a process of its own, and with code that nobody has seen.

use super::figure::{Figures, What, quantile};
use super::{RESOURCES, cluster::Cluster, job, upload, upload_bytes};
use crate::client::ACCESS_FILE;
use crate::submit::{Answer, Submission, line};
use anyhow::{Context, bail};
use serde_json::Value;
use std::path::Path;
use std::time::Instant;

/// Tasks that are run before the clock counts.
const WARM: u32 = 100;

async fn one(submission: &mut Submission, key: &str, job: &Value) -> anyhow::Result<f64> {
    let start = Instant::now();
    submission.send(line(key, job, true)).await?;
    loop {
        if let Answer::Ended { job, .. } = submission.next().await? {
            if job["tasks"]["finished"] != 1 {
                bail!("a no-op task did not finish: {job}");
            }
            return Ok(start.elapsed().as_nanos() as f64 / 1_000.0);
        }
    }
}

fn add(figures: &mut Figures, what: &What<'_>, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    figures.add(what, "latency_p50", quantile(&times, 0.5), "us");
    figures.add(what, "latency_p99", quantile(&times, 0.99), "us");
    figures.add(what, "latency_max", quantile(&times, 1.0), "us");
}

/// One task at a time over one connection, from the line that submits it to the line that says it ended; both are on disk by then.
pub async fn stream(figures: &mut Figures, samples: &Path, run: u32, count: u32) -> anyhow::Result<()> {
    let cluster = Cluster::start(RESOURCES).await?;
    let job = job(&upload(&cluster.client, samples, "noop.wasm").await?, &[], 1);
    let mut submission = Submission::open(&cluster.client).await?;
    let mut times = vec![];
    for index in 0..WARM + count {
        let time = one(&mut submission, &format!("latency-{index}"), &job).await?;
        if index >= WARM {
            times.push(time);
        }
    }
    add(figures, &What { bench: "latency", kind: "wasm", n: u64::from(count), run }, times);
    Ok(())
}

/// The same as `skep run`: a new process and a new connection for each.
pub async fn process(figures: &mut Figures, samples: &Path, run: u32, count: u32) -> anyhow::Result<()> {
    let cluster = Cluster::start(RESOURCES).await?;
    upload(&cluster.client, samples, "noop.wasm").await?;
    let home = cluster.place.join("home");
    std::fs::create_dir_all(home.join("dev"))?;
    cluster.client.access().save(&home.join("dev")).with_context(|| ACCESS_FILE.to_owned())?;
    let mut times = vec![];
    for index in 0..count + 10 {
        let start = Instant::now();
        let mut command = std::process::Command::new(std::env::current_exe()?);
        let status = command
            .env("SKEP_HOME", &home)
            .arg("run")
            .arg(samples.join("noop.wasm"))
            .args(["--cpu", "0.01", "--memory", "1MiB"])
            .status()?;
        let time = start.elapsed().as_nanos() as f64 / 1_000.0;
        if !status.success() {
            bail!("skep run ended with {status}");
        }
        if index >= 10 {
            times.push(time);
        }
    }
    add(figures, &What { bench: "latency", kind: "wasm skep-run", n: u64::from(count), run }, times);
    Ok(())
}

/// Code that nobody has seen: from its upload to the end of its first task, and then a second task of it.
pub async fn cold(figures: &mut Figures, samples: &Path, run: u32, module: Option<&Path>) -> anyhow::Result<()> {
    let cluster = Cluster::start(RESOURCES).await?;
    let path = module.map_or_else(|| samples.join("hello.wasm"), Path::to_path_buf);
    let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
    let kind = format!("wasm {}", path.file_name().unwrap_or_default().to_string_lossy());
    let what = What { bench: "cold", kind: &kind, n: bytes.len() as u64, run };
    let mut submission = Submission::open(&cluster.client).await?;
    let start = Instant::now();
    let mut job = job(&upload_bytes(&cluster.client, bytes).await?, &[], 1);
    job["resources"]["memory"] = serde_json::json!("64MiB");
    one(&mut submission, "cold-1", &job).await?;
    figures.add(&what, "upload_to_first_run", start.elapsed().as_nanos() as f64 / 1_000.0, "us");
    figures.add(&what, "known_to_next_run", one(&mut submission, "cold-2", &job).await?, "us");
    Ok(())
}
