//! What agents cost a master: thousands of them over the real link, from one process (`crowd`).

use super::cluster::{Cluster, cpu_us, memory as held};
use super::crowd::{AT_ONCE, Crowd};
use super::figure::{Figures, What};
use super::masters::PATIENCE;
use super::member::{self, Member};
use super::{job, upload};
use crate::client::Client;
use crate::submit::{Answer, Submission, line};
use anyhow::{Context, bail};
use futures::{StreamExt, TryStreamExt};
use protocol::identity::{Identity, JoinToken};
use reqwest::Method;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the master is looked at while its agents do nothing but beat.
const BEATING: Duration = Duration::from_secs(10);
/// The wait between two looks.
pub const LOOK: Duration = Duration::from_millis(10);
/// Descriptors besides those of connections.
const OTHER_FILES: u64 = 256;
/// Tasks for each agent in the job that all take part in.
const TASKS_EACH: u32 = 20;

/// Joins, connections, what they hold, what their beats cost, and one job on all of them.
pub async fn agents(figures: &mut Figures, samples: &Path, run: u32, count: u32) -> anyhow::Result<()> {
    may_open(u64::from(count))?;
    let cluster = Cluster::master(&[]).await?;
    let (master, address) = (cluster.master.id(), cluster.quic()?);
    let what = What { bench: "agents", kind: "crowd", n: u64::from(count), run };
    let start = Instant::now();
    let identities = join(&cluster.client, address, count).await?;
    figures.add(&what, "joins", f64::from(count) / start.elapsed().as_secs_f64(), "/s");

    let before = held(master)?;
    let mut crowd = Crowd::prepare(&[address], &identities, &Member::count(1), 0).await?;
    let start = Instant::now();
    crowd.begin();
    until_registered(&cluster.client, &mut crowd, count).await?;
    figures.add(&what, "registered", f64::from(count) / start.elapsed().as_secs_f64(), "/s");

    crowd.beat(Duration::from_secs(2)).await?;
    let each = held(master)?.saturating_sub(before) as f64 / f64::from(count);
    figures.add(&what, "bytes_each", each, "bytes");
    let (used, start) = (cpu_us(master)?, Instant::now());
    crowd.beat(BEATING).await?;
    let percent = (cpu_us(master)? - used) as f64 / start.elapsed().as_micros() as f64 * 100.0;
    figures.add(&what, "beating", percent, "percent");

    let tasks = count * TASKS_EACH;
    let wasm = upload(&cluster.client, samples, "noop.wasm").await?;
    let mut submission = Submission::open(&cluster.client).await?;
    let start = Instant::now();
    submission.send(line("all", &job(&wasm, &[], tasks), true)).await?;
    let end = loop {
        let answer = tokio::select! {
            answer = submission.next() => answer?,
            ended = crowd.gone() => return Err(ended),
        };
        if let Answer::Ended { job, .. } = answer {
            break job;
        }
    };
    if end["tasks"]["finished"] != tasks {
        bail!("of {tasks} tasks {} finished", end["tasks"]["finished"]);
    }
    figures.add(&what, "throughput", f64::from(tasks) / start.elapsed().as_secs_f64(), "tasks/s");
    Ok(())
}

/// Each agent has a connection of its own, and so a socket; what the system grants is taken.
pub fn may_open(count: u64) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = count + OTHER_FILES;
    if limit.maximum.is_some_and(|hard| hard < wanted) {
        bail!("{count} agents take {wanted} open files, and this user may have {}: raise `ulimit -Hn`", limit.maximum.unwrap_or(0));
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).context("setrlimit nofile")
}

pub async fn join(client: &Client, address: SocketAddr, count: u32) -> anyhow::Result<Vec<Identity>> {
    let one = |_| async move {
        let made = client.call(Method::POST, "/v1/tokens", &json!({ "level": "join" })).await?;
        let token: JoinToken = made["token"].as_str().context("no token in the answer")?.parse()?;
        member::join(address, &token).await
    };
    futures::stream::iter(0..count).map(one).buffer_unordered(AT_ONCE).try_collect().await
}

/// Waits until what is at `path` is as it is to be.
pub async fn until(client: &Client, crowd: &mut Crowd, what: &str, path: &str, holds: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut last = Value::Null;
    while start.elapsed() < PATIENCE {
        if let Ok(value) = client.get(path).await {
            if holds(&value) {
                return Ok(());
            }
            last = value;
        }
        crowd.beat(LOOK).await?;
    }
    bail!("{what}: not after {} s: {last}", PATIENCE.as_secs())
}

pub async fn until_registered(client: &Client, crowd: &mut Crowd, count: u32) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let status = client.get("/v1/status").await?;
        if status["figures"]["agents_reachable"].as_u64().unwrap_or(0) >= u64::from(count) {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            bail!("after {} s the master says {}", PATIENCE.as_secs(), status["figures"]);
        }
        crowd.beat(Duration::from_millis(50)).await?;
    }
}
