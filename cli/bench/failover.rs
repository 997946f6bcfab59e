//! What a failover costs: three masters, many agents (`crowd`) with running tasks, and again and again the master that leads a shard is killed.
//! Then a job of that shard is submitted to another master, and the clock stops when the client knows that its task was placed and ended.

use super::cluster::temporary;
use super::crowd::{Count, Member, STAYS};
use super::figure::{Figures, What};
use super::{agents, job, upload};
use crate::client::{Access, Client};
use crate::submit::{Answer, Submission, line};
use anyhow::{Context, bail};
use futures::StreamExt;
use protocol::message::shard_of_job;
use protocol::{Role, ShardId};
use reqwest::Method;
use rustix::process::{Pid, setpriority_process};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How long anything may take until the bench gives up.
const PATIENCE: Duration = Duration::from_secs(120);
/// The wait between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// Tasks that run on each agent.
const TASKS_EACH: u32 = 10;

/// How far this process, with all its agents, gives way to the masters.
const NICE: i32 = 10;

/// Three masters.
struct Masters {
    place: PathBuf,
    seats: Vec<Seat>,
    client: Client,
    access: Access,
}

/// One of them, numbered from 1 by its place.
struct Seat {
    http: String,
    quic: SocketAddr,
    child: Option<Child>,
}

impl Drop for Masters {
    fn drop(&mut self) {
        for child in self.seats.iter_mut().filter_map(|seat| seat.child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.place);
    }
}

impl Masters {
    async fn three() -> anyhow::Result<Self> {
        let place = temporary("skep-bench")?;
        let (child, ready) = spawn(&place.join("m1"), "127.0.0.1:0", "127.0.0.1:0", &[])?;
        let access = Access { url: text(&ready, "url")?, token: text(&ready, "token")?, ca_pem: text(&ready, "ca_pem")? };
        let first = Seat { http: address(&ready)?, quic: text(&ready, "quic")?.parse()?, child: Some(child) };
        let mut masters = Self { place, seats: vec![first], client: Client::new(access.clone())?, access };
        for number in 2..=3 {
            let made = masters.client.call(Method::POST, "/v1/tokens", &json!({ "level": "join-master" })).await?;
            let (token, to) = (text(&made, "token")?, masters.seats[0].quic.to_string());
            let data = masters.place.join(format!("m{number}"));
            let (child, ready) = spawn(&data, "127.0.0.1:0", "127.0.0.1:0", &["--to", &to, "--join", &token])?;
            masters.seats.push(Seat { http: address(&ready)?, quic: text(&ready, "quic")?.parse()?, child: Some(child) });
        }
        masters.until_whole().await?;
        Ok(masters)
    }

    /// A client of the masters that run.
    fn awake(&self) -> anyhow::Result<Client> {
        let awake = self.seats.iter().filter(|seat| seat.child.is_some()).map(|seat| format!("https://{}", seat.http));
        Client::new(Access { url: awake.collect::<Vec<_>>().join(","), ..self.access.clone() })
    }

    /// Waits until all three have a vote in all groups and lead about as many.
    async fn until_whole(&self) -> anyhow::Result<()> {
        let (client, start) = (self.awake()?, Instant::now());
        while start.elapsed() < PATIENCE {
            let page = client.get("/v1/masters").await?;
            let list = |name: &str| page[name].as_array().cloned().unwrap_or_default();
            let leads = list("masters").iter().filter(|master| master["leads"].as_array().is_some_and(|led| led.len() >= 2)).count();
            let voted =
                list("groups").iter().all(|group| group["voters"].as_array().map_or(0, Vec::len) == 3 && !group["leader"].is_null());
            let level = list("masters").iter().all(|master| master["lag"].as_u64().is_some_and(|lag| lag < 100));
            if leads == 3 && voted && level {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        bail!("the masters are not whole after {} s", PATIENCE.as_secs())
    }

    fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        let mut child = self.seats[number - 1].child.take().context("it runs")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    fn start(&mut self, number: usize) -> anyhow::Result<()> {
        let seat = &mut self.seats[number - 1];
        let (child, _) = spawn(&self.place.join(format!("m{number}")), &seat.http, &seat.quic.to_string(), &[])?;
        seat.child = Some(child);
        Ok(())
    }
}

fn spawn(data: &Path, http: &str, quic: &str, flags: &[&str]) -> anyhow::Result<(Child, Value)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--output", "json", "master", "--http", http, "--quic", quic, "--data"]).arg(data).args(flags);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting a master")?;
    prefer(child.id());
    let output = child.stdout.take().expect("it is piped");
    let line = BufReader::new(output).lines().next().context("a master said nothing")??;
    Ok((child, serde_json::from_str(&line).context("a master's first line")?))
}

/// Masters come before the agents of this process, which in earnest have machines of their own: theirs are the deadlines. Without the right to
/// do so they come after, and the figures are worse.
fn prefer(master: u32) {
    let master = i32::try_from(master).ok().and_then(Pid::from_raw);
    if let Err(error) = setpriority_process(master, 0) {
        tracing::warn!(%error, "masters have no more of the processor than this bench's agents: figures are worse than as root");
    }
}

fn text(value: &Value, name: &str) -> anyhow::Result<String> {
    value[name].as_str().map(str::to_owned).with_context(|| format!("{value} has no {name}"))
}

fn address(ready: &Value) -> anyhow::Result<String> {
    Ok(text(ready, "url")?.trim_start_matches("https://").to_owned())
}

/// Kills a leader `kills` times under `count` agents, each time when the last is started again and has all that it had: its place in the
/// groups, its share of the shards and a connection of each agent.
pub async fn failover(figures: &mut Figures, samples: &Path, run: u32, count: u32, kills: u32) -> anyhow::Result<()> {
    agents::may_open(u64::from(count))?;
    setpriority_process(None, NICE).context("setpriority")?;
    let mut masters = Masters::three().await?;
    let what = What { bench: "failover", kind: "crowd", n: u64::from(count), run };
    let counts = Member::count(3);
    let mut crowd = gather(&masters, count, &counts).await?;
    let wasm = upload(&masters.client, samples, "noop.wasm").await?;
    let tasks = count * TASKS_EACH;
    let mut staying = job(&wasm, &[], tasks);
    staying["name"] = STAYS.into();
    masters.client.call(Method::POST, "/v1/jobs", &staying).await?;
    until(&masters.client, &mut crowd, "all run", &format!("/v1/jobs/{STAYS}"), |job| job["tasks"]["running"] == tasks).await?;

    let (mut placed, mut confirmed, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for kill in 0..kills {
        let shard = ShardId(u16::try_from(kill % 8)?);
        let page = masters.client.get("/v1/masters").await?;
        let leader = page["groups"][usize::from(shard.0)]["leader"].as_u64().context("nobody leads")?;
        let number = usize::try_from(leader)?;
        let (ways, all) = (&counts[number - 1], usize::try_from(count)?);
        until_connected(&mut crowd, &counts, all).await?;
        let ended = ways.ended.load(Ordering::Relaxed);
        masters.kill(number)?;
        let start = Instant::now();
        let client = masters.awake()?;
        let probe = tokio::select! {
            probed = probe(&client, &wasm, shard, kill) => probed,
            ended = agents::gone(&mut crowd) => return Err(ended),
        };
        probe?;
        placed.push(start.elapsed());
        until(&client, &mut crowd, "all agents are back", "/v1/status", |status| status["figures"]["agents_reachable"] == count).await?;
        confirmed.push(start.elapsed());
        let start = Instant::now();
        masters.start(number)?;
        masters.until_whole().await?;
        // Each has noticed.
        while ways.ended.load(Ordering::Relaxed) < ended + all {
            anyhow::ensure!(start.elapsed() < PATIENCE, "agents do not notice that a master was started again");
            agents::beat(&mut crowd, LOOK).await?;
        }
        until_connected(&mut crowd, &counts, all).await?;
        whole.push(start.elapsed());
    }
    // Which of a job's tasks run is not on record: a new leader hears it of their agents.
    until(&masters.client, &mut crowd, "all run still", &format!("/v1/jobs/{STAYS}"), |job| job["tasks"]["running"] == tasks).await?;
    let restarts = masters.client.get(&format!("/v1/jobs/{STAYS}")).await?["restarts"].as_u64().context("a job counts restarts")?;
    for (name, mut times) in [("placed", placed), ("confirmed", confirmed), ("whole", whole)] {
        times.sort_unstable();
        let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_secs_f64() * 1_000.0;
        figures.add(&what, &format!("{name}_p50"), at(50), "ms");
        figures.add(&what, &format!("{name}_p99"), at(99), "ms");
        figures.add(&what, &format!("{name}_max"), at(100), "ms");
    }
    figures.add(&what, "restarts", restarts as f64, "tasks");
    Ok(())
}

/// Waits until each agent has a connection to each master.
async fn until_connected(crowd: &mut JoinSet<anyhow::Result<()>>, counts: &[Count], all: usize) -> anyhow::Result<()> {
    let start = Instant::now();
    while let Some(count) = counts.iter().find(|count| count.up.load(Ordering::Relaxed) < all) {
        anyhow::ensure!(start.elapsed() < PATIENCE, "of {all} agents only {} are connected to a master", count.up.load(Ordering::Relaxed));
        agents::beat(crowd, LOOK).await?;
    }
    Ok(())
}

async fn gather(masters: &Masters, count: u32, counts: &Arc<Vec<Count>>) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
    let identities = agents::join(&masters.client, masters.seats[0].quic, count).await?;
    let addresses: Vec<SocketAddr> = masters.seats.iter().map(|seat| seat.quic).collect();
    let mut crowd = JoinSet::new();
    let connecting =
        identities.iter().enumerate().map(|(number, identity)| Member::connect(&addresses, identity, number, Arc::clone(counts)));
    let mut connected = futures::stream::iter(connecting).buffer_unordered(agents::AT_ONCE);
    while let Some(member) = connected.next().await {
        crowd.spawn(member?.run());
    }
    drop(connected);
    agents::until_registered(&masters.client, &mut crowd, count).await?;
    Ok(crowd)
}

/// A job of one task in that shard, submitted until it is acknowledged, and followed to its end.
async fn probe(client: &Client, wasm: &str, shard: ShardId, kill: u32) -> anyhow::Result<()> {
    let role = Role::new("default").expect("a role's name");
    let named = |n: &u32| shard_of_job(&role, &format!("probe-{kill}-{n}"), 8) == shard;
    let number = (0..10_000).find(named).context("no name of that shard")?;
    let name = format!("probe-{kill}-{number}");
    let mut probe = job(wasm, &[], 1);
    probe["name"] = name.clone().into();
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if follow(client, &name, &probe).await.is_ok() {
            return Ok(());
        }
        // The same key makes no second job.
        tokio::time::sleep(LOOK).await;
    }
    bail!("nothing was placed within {} s", PATIENCE.as_secs())
}

async fn follow(client: &Client, key: &str, probe: &Value) -> anyhow::Result<()> {
    let mut submission = Submission::open(client).await?;
    submission.send(line(key, probe, true)).await?;
    loop {
        if let Answer::Ended { .. } = submission.next().await? {
            return Ok(());
        }
    }
}

async fn until(
    client: &Client,
    crowd: &mut JoinSet<anyhow::Result<()>>,
    what: &str,
    path: &str,
    holds: impl Fn(&Value) -> bool,
) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut last = Value::Null;
    while start.elapsed() < PATIENCE {
        if let Ok(value) = client.get(path).await {
            if holds(&value) {
                return Ok(());
            }
            last = value;
        }
        agents::beat(crowd, LOOK).await?;
    }
    bail!("{what}: not after {} s: {last}", PATIENCE.as_secs())
}
