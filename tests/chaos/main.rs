//! A whole cluster of real processes, each with a network of its own, under faults that follow from a seed, while clients write and read and
//! what they saw is checked: `cargo test --locked --workspace --test chaos -- --seed 7 --minutes 5`. Without flags a short run.
//!
//! All of it lives in namespaces of network, mounts and processes that end with it, however it ends.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod api;
mod clients;
mod cluster;
mod disk;
mod history;
mod nemesis;
mod network;
#[path = "../../sim/src/random.rs"]
#[allow(dead_code, reason = "the simulator uses more of it")]
mod random;
mod register;
mod report;
mod stage;
mod verdict;

use cluster::Cluster;
use history::History;
use nemesis::Nemesis;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The seed of a run without flags.
const SEED_DEFAULT: u64 = 1;
/// How long faults are done in a run without flags.
const SHORT: Duration = Duration::from_secs(45);
/// Agents of a short run, and of one that was given its minutes.
const AGENTS: (usize, usize) = (3, 20);
/// Submissions in a second of a short run, and of one that was given its minutes.
const RATE: (u64, u64) = (8, 200);

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Flags {
    /// What the faults follow from.
    pub seed: u64,
    /// For how long they are done; nothing: a short run.
    pub minutes: Option<f64>,
    /// How many agents, where it is said.
    pub agents: Option<usize>,
    /// How many jobs are submitted in a second, where it is said.
    pub rate: Option<u64>,
    /// Faults that alone are done, by their names; empty: all.
    pub only: Vec<String>,
}

impl Flags {
    /// Reads them; `None` where a filter of other tests leaves this one out. What the usual harness knows and this one does not is passed over.
    fn parse() -> Option<Self> {
        let mut flags = Self { seed: SEED_DEFAULT, minutes: None, agents: None, rate: None, only: Vec::new() };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
            match word.as_str() {
                "--seed" => flags.seed = value().parse().expect("--seed is a number"),
                "--minutes" => flags.minutes = Some(value().parse().expect("--minutes is a number")),
                "--agents" => flags.agents = Some(value().parse().expect("--agents is a number")),
                "--rate" => flags.rate = Some(value().parse().expect("--rate is a number")),
                "--only" => flags.only = value().split(',').map(str::to_owned).collect(),
                "--list" => return None,
                "--test-threads" | "--skip" | "--format" | "--color" => drop(value()),
                flag if flag.starts_with('-') => {}
                filter if "chaos".contains(filter) => {}
                _ => return None,
            }
        }
        Some(flags)
    }

    /// How many agents there are.
    pub fn agents(&self) -> usize {
        self.agents.unwrap_or(if self.minutes.is_some() { AGENTS.1 } else { AGENTS.0 })
    }

    /// How many jobs are submitted in a second; at least one.
    pub fn rate(&self) -> u64 {
        self.rate.unwrap_or(if self.minutes.is_some() { RATE.1 } else { RATE.0 }).max(1)
    }

    /// How long faults are done.
    pub fn length(&self) -> Duration {
        self.minutes.map_or(SHORT, |minutes| Duration::from_secs_f64(minutes * 60.0))
    }
}

fn main() -> ExitCode {
    let Some(flags) = Flags::parse() else { return ExitCode::SUCCESS };
    match stage::enter() {
        stage::Stage::Inside => run(&flags),
        stage::Stage::Over(code) => code,
        stage::Stage::Skipped(why) => {
            println!("skipped: {why}");
            ExitCode::SUCCESS
        }
    }
}

fn run(flags: &Flags) -> ExitCode {
    register::prove();
    let history = Arc::new(History::new());
    let folder = stage::folder();
    let done = catch_unwind(AssertUnwindSafe(|| attempt(flags, &history)));
    if done.is_err() {
        history.violated("the run broke off: see above".into());
    }
    let code = report::print(flags, &history, &folder);
    if code == ExitCode::SUCCESS {
        stage::clear(&folder);
    }
    code
}

fn attempt(flags: &Flags, history: &Arc<History>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut cluster = Cluster::start(&stage::folder(), flags.agents(), &runtime);
    history.note("the cluster stands");
    let load = runtime.block_on(clients::Load::start(cluster.api(), Arc::clone(history), flags));
    let until = Instant::now() + flags.length();
    let mut nemesis = Nemesis::new(flags, Arc::clone(history), runtime.handle().clone());
    while Instant::now() < until {
        nemesis.strike(&mut cluster);
    }
    history.note("faults are over");
    runtime.block_on(load.end());
    runtime.block_on(verdict::pass(&cluster, history));
    cluster.end();
}
