//! What a policy costs that says which agents are best: one question, and what is left of a shard's decisions where each asks it. The component runs as in
//! a master; the shard is a real one that decides alone, with no journal and no network.

use super::figure::{Figures, What, quantile};
use super::{cluster::temporary, job};
use crate::plugins::Plugins;
use anyhow::{Context, anyhow, bail};
use master::admit::{self, Format, Verdict};
use master::plugins::{Asked, CANDIDATES_MAX, Candidate, Kind, Loaded, Score};
use master::shard::{Action, Event, Output, Request, ScoreMap, Shard, ShardConfig};
use protocol::{AgentId, AgentInfo, Digest, FromAgent, FromMaster, Job, Name, RequestId, Resources, Role, ShardId, Stand, Time};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Numbers of agents that are asked about.
const CANDIDATES: [usize; 3] = [1, 8, CANDIDATES_MAX];
/// Questions before those that are counted.
const WARM: usize = 1_000;
const AGENTS: u64 = 1_000;
const CAPACITY: Resources = Resources { cpu_milli: 16_000, memory_bytes: 64 << 30, disk_bytes: 1 << 40, ports: 0, devices: vec![] };
/// Jobs of one task that are submitted before the shard is let work; none needs as much as another, so that each is a question of its own.
const BATCH: u32 = 500;
/// No agent is silent for so long.
const SILENCE_MS: u64 = 1 << 40;

/// Asks the policy of `samples/pack` so often, and has a shard place as many tasks with it and without.
pub async fn policies(figures: &mut Figures, samples: &Path, run: u32, count: u32) -> anyhow::Result<()> {
    let place = temporary("skep-bench")?;
    let loader = Plugins::start().context("this machine can run no policies")?;
    let loaded = loader.load(Kind::Score, samples.join("pack.wasm"), place.join("pack")).await;
    std::fs::remove_dir_all(&place)?;
    let Loaded::Score(score) = loaded? else { bail!("the sample says nothing of agents") };
    for candidates in CANDIDATES {
        let what = What { bench: "policies", kind: "wasm", n: candidates as u64, run };
        let times = ask(&*score, candidates, count as usize)?;
        figures.add(&what, "call_p50", quantile(&times, 0.5), "us");
        figures.add(&what, "call_p99", quantile(&times, 0.99), "us");
    }
    let template = template(samples)?;
    let plugged: ScoreMap = BTreeMap::from([(None, score)]);
    for (kind, map) in [("none", ScoreMap::new()), ("wasm", plugged)] {
        let took = decide(&template, count, &map)?;
        let what = What { bench: "policies", kind, n: u64::from(count), run };
        figures.add(&what, "decisions", f64::from(count) / took.as_secs_f64(), "1/s");
    }
    Ok(())
}

/// Microseconds of each question, sorted.
fn ask(score: &dyn Score, candidates: usize, count: usize) -> anyhow::Result<Vec<f64>> {
    let role = Role::new(protocol::ids::ROLE_DEFAULT)?;
    let needs = Resources { cpu_milli: 500, memory_bytes: 1 << 30, ..Resources::NONE };
    let asked = Asked { role, priority: 50, needs, count: 1 };
    let candidate = |number: usize| {
        let attributes = BTreeMap::from([("disk".into(), "ssd".into()), ("spot".into(), number.is_multiple_of(2).to_string())]);
        let free = Resources { cpu_milli: 500 * number as u64, ..CAPACITY };
        Candidate {
            stand: Arc::new(Stand { name: format!("a{number}"), attributes, ..Stand::default() }),
            capacity: CAPACITY,
            free,
            attempts: 3,
            room: 1,
        }
    };
    let candidates: Vec<Candidate> = (1..=candidates).map(candidate).collect();
    let mut times = Vec::with_capacity(count);
    for number in 0..WARM + count {
        let start = Instant::now();
        let ranking = score.score(&asked, &candidates).map_err(|reason| anyhow!(reason))?;
        let took = start.elapsed();
        if ranking.scores.len() != candidates.len() {
            bail!("the policy gave {} scores to {} agents", ranking.scores.len(), candidates.len());
        }
        if number >= WARM {
            times.push(took.as_nanos() as f64 / 1_000.0);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// A job of one task, of which all others are made.
fn template(samples: &Path) -> anyhow::Result<Job> {
    let bytes = std::fs::read(samples.join("noop.wasm")).context("noop.wasm: build the samples with samples/build")?;
    let wasm = job(&format!("sha256:{}", Digest::of(&bytes)), &[], 1).to_string();
    let problems = |problems: Vec<admit::Problem>| anyhow!("{problems:?}");
    let spec = admit::parse(&wasm, Format::Json).map_err(problems)?;
    let verdict = Verdict { form: admit::Form::Wasm, wasm: admit::inspect(&bytes) };
    admit::admit(spec, &|_| Some(verdict.clone())).map_err(problems)
}

/// The time that a shard takes in all from jobs' submissions to the launches of their tasks.
fn decide(template: &Job, count: u32, map: &ScoreMap) -> anyhow::Result<Duration> {
    let mut alone = Alone::new();
    alone.shard.plug_in(map);
    let mut took = Duration::ZERO;
    for first in (0..count).step_by(BATCH as usize) {
        let submit = |number: u32| {
            let mut job = template.clone();
            job.name = Name::new(&format!("job-{number}")).ok();
            let resources = Resources { cpu_milli: u64::from(100 + number % BATCH), ..template.template.resources.clone() };
            Arc::make_mut(&mut job.template).resources = resources;
            Event::Request { id: RequestId(u64::from(number)), request: Request::Submit { job, key: None, follow: false } }
        };
        let batch: Vec<Event> = (first..count.min(first + BATCH)).map(submit).collect();
        let start = Instant::now();
        alone.settle(batch);
        took += start.elapsed();
    }
    if alone.launched != count {
        bail!("of {count} tasks {} were placed", alone.launched);
    }
    Ok(took)
}

/// A shard that is the whole cluster, with agents that are told and say nothing.
struct Alone {
    shard: Shard,
    now: Time,
    launched: u32,
}

impl Alone {
    fn new() -> Self {
        let config = ShardConfig { shards: 1, unreachable_ms: SILENCE_MS, replace_after_ms: 2 * SILENCE_MS, ..ShardConfig::default() };
        let mut alone = Self { shard: Shard::new(config), now: Time(1_000), launched: 0 };
        alone.shard.lead(alone.now);
        let register = |number: u64| {
            let info = AgentInfo { name: format!("a{number}"), capacity: CAPACITY, version: "bench".into(), ..AgentInfo::default() };
            let said =
                [FromAgent::Register { info, incarnation: number, number: 1 }, FromAgent::Report { session: 0, held: vec![], last: true }];
            said.map(|message| Event::Agent { agent: AgentId(number), message })
        };
        alone.settle((1..=AGENTS).flat_map(register).collect());
        alone
    }

    /// Until nothing is on its way.
    fn settle(&mut self, mut events: Vec<Event>) {
        while !events.is_empty() {
            self.now = self.now + 1;
            events.drain(..).for_each(|event| self.shard.handle(self.now, event));
            while let Some(output) = self.shard.poll_output() {
                match output {
                    Output::Held(Action::Peer { message, .. }) | Output::Now(Action::Peer { message, .. }) => {
                        events.push(Event::Peer { from: ShardId(0), message });
                    }
                    Output::Held(Action::Send { message: FromMaster::Launch(launch), .. })
                    | Output::Now(Action::Send { message: FromMaster::Launch(launch), .. }) => {
                        self.launched += u32::try_from(launch.attempts.len()).expect("a message is short");
                    }
                    Output::Held(_) | Output::Now(_) | Output::Journal(_) => {}
                }
            }
        }
    }
}
