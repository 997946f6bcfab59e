//! What a framework that is a client gets, over `/v1/framework`: how soon what its task has freed is its next one's, and what is left to others when
//! one of them holds all that it is shown and never answers.

use super::cluster::Cluster;
use super::figure::{Figures, What, quantile};
use super::upload;
use crate::client::{Client, Lines};
use anyhow::{Context, bail, ensure};
use futures::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// What the one agent of the first half promises: all of it is one task's.
const ONE: &str = "cpu=1,memory=256MiB,disk=256MiB";
/// Tasks that are run before the clock counts.
const WARM: u32 = 20;
/// Agents of the second half, and what each promises: so little that places are what frameworks are short of, not processors.
const AGENTS: usize = 4;
const FEW: &str = "cpu=1,memory=1GiB,disk=1GiB";
/// Frameworks that place all they can.
const WORKERS: usize = 3;
/// What a task of the second half is promised, in thousandths of a core, and how long it runs, in milliseconds.
const SHARE_CPU_MILLI: u64 = 100;
const LONG_MS: u64 = 200;
/// Of each half so much is not counted, while frameworks come.
const SETTLE: Duration = Duration::from_secs(2);

/// A subscription, and what its framework says.
struct Framework {
    client: Client,
    id: String,
    stream: String,
    lines: Lines,
    wasm: String,
    placed: u64,
}

impl Framework {
    async fn subscribe(cluster: &Cluster, name: &str, wasm: &str) -> anyhow::Result<Self> {
        let client = Client::new(cluster.client.access().clone())?;
        let subscribe = json!({ "subscribe": { "name": name, "roles": [name], "failover_ms": 1_000 } });
        let mut lines = client.lines(client.request(Method::POST, "/v1/framework").json(&subscribe)).await?;
        let first = lines.next().await.context("a subscription ended at once")??;
        let text = |name: &str| first["subscribed"][name].as_str().map(str::to_owned).with_context(|| format!("no {name}: {first}"));
        let (id, stream) = (text("id")?, text("stream")?);
        Ok(Self { client, id, stream, lines, wasm: wasm.into(), placed: 0 })
    }

    async fn next(&mut self) -> anyhow::Result<Value> {
        let line = self.lines.next().await.context("a subscription ended")??;
        if line.get("error").is_some() {
            bail!("a framework was told: {line}");
        }
        Ok(line)
    }

    fn call(&self, mut call: Value) -> Value {
        (call["id"], call["stream"]) = (self.id.clone().into(), self.stream.clone().into());
        call
    }

    async fn say(&mut self, call: Value) -> anyhow::Result<()> {
        self.client.call(Method::POST, "/v1/framework", &self.call(call)).await.map(drop)
    }

    /// Takes an update in.
    async fn acknowledge(&mut self, update: &Value) -> anyhow::Result<()> {
        match update["uuid"].as_str() {
            Some(uuid) => self.say(json!({ "acknowledge": { "task": update["task"], "uuid": uuid } })).await,
            None => Ok(()),
        }
    }

    /// The same, while it goes on; one that is lost is told again.
    fn acknowledge_beside(&self, update: &Value) {
        let Some(uuid) = update["uuid"].as_str() else { return };
        let call = self.call(json!({ "acknowledge": { "task": update["task"], "uuid": uuid } }));
        let client = self.client.clone();
        tokio::spawn(async move { client.call(Method::POST, "/v1/framework", &call).await });
    }

    /// Places so many tasks in an offer, each with these resources.
    async fn place(&mut self, offer: &Value, count: u64, args: &[String], resources: &Value) -> anyhow::Result<()> {
        let wasm = self.wasm.clone();
        let task = |n: u64| {
            let job = json!({ "task": { "wasm": wasm, "args": args }, "resources": resources });
            json!({ "name": format!("t-{n}"), "job": job })
        };
        let tasks: Vec<Value> = (self.placed..self.placed + count).map(task).collect();
        self.placed += count;
        self.say(json!({ "accept": { "offers": [offer["id"]], "tasks": tasks, "refuse_ms": 0 } })).await
    }
}

/// From the line that says that a task has ended, so that what it had is free, until the line that says that the next one has, a no-op that takes all
/// of that: offered, accepted, launched and run by then, and on disk. That a task runs is told 20 ms late on purpose, so its end is what is measured.
/// One at a time, on an idle cluster.
pub async fn freed(figures: &mut Figures, samples: &Path, run: u32, count: u32) -> anyhow::Result<()> {
    let cluster = Cluster::start(ONE).await?;
    let wasm = upload(&cluster.client, samples, "noop.wasm").await?;
    let mut framework = Framework::subscribe(&cluster, "freed", &wasm).await?;
    let all = json!({ "cpu": 1.0, "memory": (256_u64 << 20).to_string(), "disk": (256_u64 << 20).to_string() });
    let (mut ended, mut offered) = (None::<Instant>, None::<Instant>);
    let (mut offers, mut runs, mut wholes) = (vec![], vec![], vec![]);
    let us = |from: Instant, to: Instant| to.duration_since(from).as_nanos() as f64 / 1_000.0;
    while wholes.len() < (WARM + count) as usize {
        let line = framework.next().await?;
        let now = Instant::now();
        if let Some(offer) = line["offers"].get(0) {
            offered = Some(now);
            framework.place(offer, 1, &[], &all).await?;
        }
        let update = &line["update"];
        match update["state"].as_str() {
            Some("finished") => {
                if let (Some(ended), Some(offered)) = (ended, offered.take()) {
                    offers.push(us(ended, offered));
                    runs.push(us(offered, now));
                    wholes.push(us(ended, now));
                }
                ended = Some(now);
            }
            Some(state) if !matches!(state, "starting" | "running") => bail!("a task is {state}: {line}"),
            _ => {}
        }
        framework.acknowledge_beside(update);
    }
    let what = What { bench: "frameworks", kind: "freed", n: u64::from(count), run };
    for (name, mut times) in [("freed_to_offered", offers), ("offered_to_next_end", runs), ("freed_to_next_end", wholes)] {
        times.drain(..WARM as usize);
        times.sort_by(f64::total_cmp);
        figures.add(&what, &format!("{name}_p50"), quantile(&times, 0.5), "us");
        figures.add(&what, &format!("{name}_p99"), quantile(&times, 0.99), "us");
    }
    Ok(())
}

/// How many tasks frameworks run in `seconds` that place all they can, alone and beside one that holds all it is shown; from when that one comes.
pub async fn held(figures: &mut Figures, samples: &Path, run: u32, seconds: u64) -> anyhow::Result<()> {
    let mut cluster = Cluster::master(&[]).await?;
    for n in 1..=AGENTS {
        cluster.agent(&format!("a{n}"), FEW).await?;
    }
    let wasm = upload(&cluster.client, samples, "sleep.wasm").await?;
    let mut workers = vec![];
    for n in 1..=WORKERS {
        workers.push(Framework::subscribe(&cluster, &format!("worker-{n}"), &wasm).await?);
    }
    let alone = rate(&mut workers, seconds).await?;
    let mut hoarder = Framework::subscribe(&cluster, "hoarder", &wasm).await?;
    let hoarding = tokio::spawn(async move {
        // It reads, so that it is not taken for gone, and never answers.
        while hoarder.next().await.is_ok() {}
    });
    let beside = rate(&mut workers, seconds).await?;
    hoarding.abort();
    ensure!(alone > 0.0, "no task was run");
    let of = |kind| What { bench: "frameworks", kind, n: WORKERS as u64, run };
    figures.add(&of("alone"), "tasks", alone, "tasks/s");
    figures.add(&of("one holds all"), "tasks", beside, "tasks/s");
    figures.add(&of("one holds all"), "tasks_to_alone", 100.0 * beside / alone, "percent");
    Ok(())
}

/// Tasks that end in a second, of all workers together.
async fn rate(workers: &mut Vec<Framework>, seconds: u64) -> anyhow::Result<f64> {
    let (start, mut all) = (Instant::now() + SETTLE, JoinSet::new());
    let end = start + Duration::from_secs(seconds);
    for worker in workers.drain(..) {
        all.spawn(work(worker, start, end));
    }
    let mut ended = 0;
    while let Some(one) = all.join_next().await {
        let (worker, n) = one.context("a framework")??;
        ended += n;
        workers.push(worker);
    }
    Ok(ended as f64 / seconds as f64)
}

/// Places all that fits into each offer until `end`; counts the tasks that ended since `start`.
async fn work(mut worker: Framework, start: Instant, end: Instant) -> anyhow::Result<(Framework, u64)> {
    let share = json!({ "cpu": SHARE_CPU_MILLI as f64 / 1_000.0, "memory": "16MiB" });
    let mut ended = 0;
    loop {
        let line = match tokio::time::timeout(end.saturating_duration_since(Instant::now()), worker.next()).await {
            Ok(line) => line?,
            Err(_) => return Ok((worker, ended)),
        };
        for offer in line["offers"].as_array().into_iter().flatten() {
            let fits = offer["resources"]["cpu_milli"].as_u64().unwrap_or(0) / SHARE_CPU_MILLI;
            match fits {
                0 => worker.say(json!({ "decline": { "offers": [offer["id"]], "refuse_ms": 1_000 } })).await?,
                fits => worker.place(offer, fits, &[LONG_MS.to_string()], &share).await?,
            }
        }
        let update = &line["update"];
        ended += u64::from(update["state"] == "finished" && start <= Instant::now());
        worker.acknowledge(update).await?;
    }
}
