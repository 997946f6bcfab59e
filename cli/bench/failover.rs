//! What a failover costs: three masters, many agents (`crowd`) with running tasks, and again and again the master that leads a shard is killed.
//! Then a job of that shard is submitted to another master, and the clock stops when the client is told which agent its task was given to, and when
//! it is told that the task has ended: for that the agent, one of thousands in one process, has to get its turn.

use super::agents::{self, LOOK};
use super::crowd::{Crowd, NICE};
use super::figure::{Figures, What};
use super::masters::{Masters, PATIENCE};
use super::member::{Count, Member, STAYS};
use super::{job, upload};
use crate::client::Client;
use crate::submit::{Answer, Submission, line};
use anyhow::{Context, bail};
use protocol::message::shard_of_job;
use protocol::{Role, ShardId};
use reqwest::Method;
use serde_json::Value;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Tasks that run on each agent.
pub const TASKS_EACH: u32 = 10;

/// Kills a leader `kills` times under `count` agents, each time when the last is started again and has all that it had: its place in the
/// groups, its share of the shards and a connection of each agent.
pub async fn failover(figures: &mut Figures, samples: &Path, run: u32, count: u32, kills: u32) -> anyhow::Result<()> {
    agents::may_open(u64::from(count))?;
    let mut masters = Masters::three().await?;
    let what = What { bench: "failover", kind: "crowd", n: u64::from(count), run };
    let counts = Member::count(3);
    let addresses = masters.quic();
    let identities = agents::join(&masters.client, addresses[0], count).await?;
    let mut crowd = Crowd::start(&addresses, &identities, &counts, NICE).await?;
    agents::until_registered(&masters.client, &mut crowd, count).await?;
    let wasm = upload(&masters.client, samples, "noop.wasm").await?;
    let tasks = count * TASKS_EACH;
    let mut staying = job(&wasm, &[], tasks);
    staying["name"] = STAYS.into();
    masters.client.call(Method::POST, "/v1/jobs", &staying).await?;
    agents::until(&masters.client, &mut crowd, "all run", &format!("/v1/jobs/{STAYS}"), |job| job["tasks"]["running"] == tasks).await?;

    let (mut placed, mut ended, mut confirmed, mut whole) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for kill in 0..kills {
        let shard = ShardId(u16::try_from(kill % 8)?);
        let page = masters.client.get("/v1/masters").await?;
        let leader = page["groups"][usize::from(shard.0)]["leader"].as_u64().context("nobody leads")?;
        let number = usize::try_from(leader)?;
        let (ways, all) = (&counts[number - 1], usize::try_from(count)?);
        until_connected(&mut crowd, &counts, all).await?;
        let ended_before = ways.ended.load(Ordering::Relaxed);
        masters.kill(number)?;
        let start = Instant::now();
        let client = masters.awake()?;
        let probed = tokio::select! {
            probed = probe(&client, &wasm, shard, kill) => probed?,
            ended = crowd.gone() => return Err(ended),
        };
        placed.push(probed.placed - start);
        ended.push(probed.ended - start);
        agents::until(&client, &mut crowd, "all agents are back", "/v1/status", |status| status["figures"]["agents_reachable"] == count)
            .await?;
        confirmed.push(start.elapsed());
        let start = Instant::now();
        masters.start(number)?;
        masters.until_whole().await?;
        // Each has noticed.
        while ways.ended.load(Ordering::Relaxed) < ended_before + all {
            anyhow::ensure!(start.elapsed() < PATIENCE, "agents do not notice that a master was started again");
            crowd.beat(LOOK).await?;
        }
        until_connected(&mut crowd, &counts, all).await?;
        whole.push(start.elapsed());
        say(kill + 1, kills, [&placed, &ended, &confirmed, &whole]);
    }
    // Which of a job's tasks run is not on record: a new leader hears it of their agents.
    agents::until(&masters.client, &mut crowd, "all run still", &format!("/v1/jobs/{STAYS}"), |job| job["tasks"]["running"] == tasks)
        .await?;
    let restarts = masters.client.get(&format!("/v1/jobs/{STAYS}")).await?["restarts"].as_u64().context("a job counts restarts")?;
    for (name, mut times) in [("placed", placed), ("ended", ended), ("confirmed", confirmed), ("whole", whole)] {
        times.sort_unstable();
        let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_secs_f64() * 1_000.0;
        figures.add(&what, &format!("{name}_p50"), at(50), "ms");
        figures.add(&what, &format!("{name}_p99"), at(99), "ms");
        figures.add(&what, &format!("{name}_max"), at(100), "ms");
    }
    figures.add(&what, "restarts", restarts as f64, "tasks");
    anyhow::ensure!(restarts == 0, "{restarts} tasks were restarted, which a failover never does");
    Ok(())
}

/// Says what the last kill cost, for whoever does not wait for the end.
fn say(kill: u32, kills: u32, times: [&Vec<Duration>; 4]) {
    let [placed, ended, confirmed, whole] = times.map(|times| times.last().map_or(0, Duration::as_millis));
    eprintln!("kill {kill} of {kills}: placed {placed} ms, ended {ended} ms, confirmed {confirmed} ms, whole {whole} ms");
}

/// Waits until each agent has a connection to each master.
async fn until_connected(crowd: &mut Crowd, counts: &[Count], all: usize) -> anyhow::Result<()> {
    let start = Instant::now();
    while let Some(count) = counts.iter().find(|count| count.up.load(Ordering::Relaxed) < all) {
        anyhow::ensure!(start.elapsed() < PATIENCE, "of {all} agents only {} are connected to a master", count.up.load(Ordering::Relaxed));
        crowd.beat(LOOK).await?;
    }
    Ok(())
}

/// When the client was told of a job's task.
struct Probed {
    placed: Instant,
    ended: Instant,
}

/// A job of one task in that shard, submitted until it is acknowledged, and followed to its end.
async fn probe(client: &Client, wasm: &str, shard: ShardId, kill: u32) -> anyhow::Result<Probed> {
    let role = Role::new("default").expect("a role's name");
    let named = |n: &u32| shard_of_job(&role, &format!("probe-{kill}-{n}"), 8) == shard;
    let number = (0..10_000).find(named).context("no name of that shard")?;
    let name = format!("probe-{kill}-{number}");
    let mut probe = job(wasm, &[], 1);
    probe["name"] = name.clone().into();
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Ok(probed) = follow(client, &name, &probe).await {
            return Ok(probed);
        }
        // The same key makes no second job.
        tokio::time::sleep(LOOK).await;
    }
    bail!("nothing was placed within {} s", PATIENCE.as_secs())
}

async fn follow(client: &Client, key: &str, probe: &Value) -> anyhow::Result<Probed> {
    let mut submission = Submission::open(client).await?;
    submission.send(line(key, probe, true)).await?;
    let mut placed = None;
    loop {
        match submission.next().await? {
            Answer::Submitted { job } => placed = Some(until_placed(client, &job).await?),
            Answer::Ended { .. } => return Ok(Probed { placed: placed.context("its end came first")?, ended: Instant::now() }),
        }
    }
}

async fn until_placed(client: &Client, job: &str) -> anyhow::Result<Instant> {
    loop {
        if client.get(&format!("/v1/jobs/{job}/tasks")).await?["tasks"][0]["agent"].is_string() {
            return Ok(Instant::now());
        }
    }
}
