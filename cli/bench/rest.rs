//! What waiting costs: sleeping tasks, records kept, an idle cluster, an agent that dies.

use super::cluster::{Cluster, cpu_us, executors, memory as held};
use super::figure::{Figures, What};
use super::{RESOURCES, job, upload};
use crate::submit::{Answer, Submission, line};
use anyhow::{Context, bail};
use reqwest::Method;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(300);

async fn submit(submission: &mut Submission, key: &str, job: &Value, follow: bool) -> anyhow::Result<String> {
    submission.send(line(key, job, follow)).await?;
    match submission.next().await? {
        Answer::Submitted { job } => Ok(job),
        Answer::Ended { job, .. } => Ok(job["id"].as_str().unwrap_or_default().to_owned()),
    }
}

/// Waits until as many tasks of a job as `count` are in the state `phase`.
async fn until(cluster: &Cluster, id: &str, phase: &str, count: u64) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let job = cluster.client.get(&format!("/v1/jobs/{id}")).await?;
        if job["tasks"][phase].as_u64().unwrap_or(0) >= count {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            bail!("after {} s the job stands at {}", PATIENCE.as_secs(), job["tasks"]);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn of_executors(cluster: &Cluster) -> anyhow::Result<u64> {
    executors(&cluster.place).into_iter().map(held).sum()
}

/// Sleeping tasks on one agent: what the executors hold for each beyond what a tenth of them takes, page tables included; then every one
/// must answer: each ends with a code of its own.
pub async fn idle(figures: &mut Figures, samples: &Path, run: u32, count: u32, component: bool) -> anyhow::Result<()> {
    let cluster = Cluster::start("cpu=64,memory=256GiB,disk=16GiB,ports=20000-20999").await?;
    let name = if component { "doze.wasm" } else { "sleep.wasm" };
    let wasm = upload(&cluster.client, samples, name).await?;
    let kind = if component { "component" } else { "module" };
    let what = What { bench: "idle", kind: &format!("wasm {kind}"), n: u64::from(count), run };
    let sleepers = |count: u32, ms: u32| {
        let mut job = job(&wasm, &[ms.to_string()], count);
        job["resources"] = json!({ "cpu": 0.001, "memory": "2MiB" });
        job
    };
    let mut submission = Submission::open(&cluster.client).await?;
    let few = count / 10;
    let first = submit(&mut submission, "few", &sleepers(few, 600_000), false).await?;
    until(&cluster, &first, "running", u64::from(few)).await?;
    let before = of_executors(&cluster)?;
    let rest = submit(&mut submission, "rest", &sleepers(count - few, 600_000), false).await?;
    until(&cluster, &rest, "running", u64::from(count - few)).await?;
    let each = of_executors(&cluster)?.saturating_sub(before) as f64 / f64::from(count - few);
    figures.add(&what, "bytes_each", each, "bytes");
    let start = Instant::now();
    for id in [&first, &rest] {
        cluster.client.call(Method::POST, &format!("/v1/jobs/{id}/stop"), &json!({ "grace_ms": 1_000 })).await?;
    }
    until(&cluster, &first, "killed", u64::from(few)).await?;
    until(&cluster, &rest, "killed", u64::from(count - few)).await?;
    figures.add(&what, "all_answered", start.elapsed().as_secs_f64(), "seconds");
    Ok(())
}

/// The master's memory for a finished task and for a live one, each as the slope between half of them and all.
pub async fn memory(figures: &mut Figures, samples: &Path, run: u32, count: u32) -> anyhow::Result<()> {
    let cluster = Cluster::start(RESOURCES).await?;
    let wasm = upload(&cluster.client, samples, "noop.wasm").await?;
    let mut submission = Submission::open(&cluster.client).await?;
    let half = count / 2;
    let mut sizes = vec![];
    for (part, tasks) in [("warm", count / 10), ("first", half), ("second", half)] {
        let id = submit(&mut submission, part, &job(&wasm, &[], tasks), true).await?;
        match submission.next().await? {
            Answer::Ended { job, .. } if job["tasks"]["finished"] == tasks => {}
            _ => bail!("{id} did not finish"),
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        sizes.push(held(cluster.master.id())?);
    }
    let what = What { bench: "memory", kind: "wasm", n: u64::from(count), run };
    figures.add(&what, "finished_bytes_each", sizes[2].saturating_sub(sizes[1]) as f64 / f64::from(half), "bytes");
    drop(cluster);
    live(figures, samples, run).await
}

/// Live tasks: sleepers on one agent, whose memory is not the master's.
async fn live(figures: &mut Figures, samples: &Path, run: u32) -> anyhow::Result<()> {
    const LIVE: u32 = 10_000;
    let cluster = Cluster::start("cpu=64,memory=256GiB,disk=16GiB,ports=20000-20999").await?;
    let wasm = upload(&cluster.client, samples, "sleep.wasm").await?;
    let mut submission = Submission::open(&cluster.client).await?;
    let mut sizes = vec![];
    for part in ["first", "second"] {
        let mut job = job(&wasm, &["600000".to_owned()], LIVE / 2);
        job["resources"] = json!({ "cpu": 0.001, "memory": "2MiB" });
        let id = submit(&mut submission, part, &job, false).await?;
        until(&cluster, &id, "running", u64::from(LIVE / 2)).await?;
        sizes.push(held(cluster.master.id())?);
    }
    let what = What { bench: "memory", kind: "wasm", n: u64::from(LIVE), run };
    figures.add(&what, "live_bytes_each", sizes[1].saturating_sub(sizes[0]) as f64 / f64::from(LIVE / 2), "bytes");
    Ok(())
}

/// An idle cluster: processor time and memory of master and agent.
pub async fn rest(figures: &mut Figures, run: u32, seconds: u64) -> anyhow::Result<()> {
    let cluster = Cluster::start(RESOURCES).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let processes = [("master", cluster.master.id()), ("agent", cluster.agents[0].id())];
    let before: Vec<u64> = processes.iter().map(|(_, id)| cpu_us(*id)).collect::<Result<_, _>>()?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    for ((kind, id), before) in processes.into_iter().zip(before) {
        let what = What { bench: "rest", kind, n: seconds, run };
        figures.add(&what, "cpu_percent", (cpu_us(id)? - before) as f64 / (seconds as f64 * 10_000.0), "percent");
        figures.add(&what, "rss_bytes", held(id)? as f64, "bytes");
    }
    Ok(())
}

/// An agent killed: from the kill until its tasks run on another. The time is `replace_after`, which is set to its least here, and what
/// comes on top.
pub async fn detect(figures: &mut Figures, samples: &Path, run: u32) -> anyhow::Result<()> {
    const TASKS: u32 = 10;
    let mut cluster = Cluster::master(&["--replace-after-ms", "2500"]).await?;
    cluster.agent("a1", RESOURCES).await?;
    let wasm = upload(&cluster.client, samples, "sleep.wasm").await?;
    let mut service = job(&wasm, &["600000".to_owned()], TASKS);
    service["kind"] = json!("service");
    let mut submission = Submission::open(&cluster.client).await?;
    let id = submit(&mut submission, "detect", &service, false).await?;
    until(&cluster, &id, "running", u64::from(TASKS)).await?;
    cluster.agent("a2", RESOURCES).await?;
    let start = Instant::now();
    for process in executors(&cluster.data("a1")) {
        kill(process)?;
    }
    cluster.agents[0].kill().context("killing an agent")?;
    loop {
        let job = cluster.client.get(&format!("/v1/jobs/{id}")).await?;
        if job["restarts"].as_u64() >= Some(u64::from(TASKS)) && job["tasks"]["running"] == TASKS {
            break;
        }
        if start.elapsed() > PATIENCE {
            bail!("the tasks were not placed anew: {job}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    figures.add(&What { bench: "detect", kind: "wasm", n: u64::from(TASKS), run }, "seconds", start.elapsed().as_secs_f64(), "s");
    Ok(())
}

fn kill(process: u32) -> anyhow::Result<()> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(process)?).context("a process id is not 0")?;
    Ok(rustix::process::kill_process(pid, rustix::process::Signal::KILL)?)
}
