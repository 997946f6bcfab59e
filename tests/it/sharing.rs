//! One pool that everybody shares: twenty agents in four racks, two frameworks in Python and the cluster's own jobs, each in a role of its own. A
//! rack is drained and another one cut off; all the while limits hold, and what is guaranteed is there.

use crate::cluster::{Cluster, PATIENCE, sample};
use crate::frameworks::{expected, printed, source, start};
use protocol::ShardId;
use protocol::message::shard_of_agent;
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const RACKS: usize = 4;
const AGENTS_PER_RACK: usize = 5;
const AGENT: &str = "cpu=0.5,memory=1GiB,disk=1GiB";
const ALL_MILLI: u64 = 500 * (RACKS * AGENTS_PER_RACK) as u64;
/// What the pool of workers is guaranteed: more than its weight would give it.
const POOL_MILLI: u64 = 2_000;
/// The most that a part of the cluster's own jobs may hold: less than it wants.
const CAPPED_MILLI: u64 = 2_000;
/// Bounds below which primes are counted.
const BOUNDS: u32 = 100;
/// Tasks of one of the cluster's own jobs; the next of its role is submitted when none of them waits any more.
const TASKS: u64 = 40;
/// How often it is looked what roles hold, in a time in which nothing befalls them.
const LOOKS: usize = 15;
/// The wait between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// What the roles held at one moment, in thousandths of a core.
#[derive(Clone, Copy, Debug)]
struct Held {
    batch: u64,
    /// Of these.
    capped: u64,
    pool: u64,
    primes: u64,
}

impl Held {
    fn now(cluster: &Cluster) -> Self {
        let page = cluster.json(&["roles"]);
        let rows = page["roles"].as_array().unwrap();
        let of = |name: &str| rows.iter().find(|row| row["role"] == name).and_then(|row| row["holds"]["cpu_milli"].as_u64()).unwrap_or(0);
        Self { batch: of("batch"), capped: of("batch/capped"), pool: of("pool"), primes: of("primes") }
    }

    /// What holds at any moment, whatever happens.
    fn check(&self) {
        assert!(self.capped <= CAPPED_MILLI, "a limit was passed: {self:?}");
    }
}

/// Looks at what roles hold until it is over, and lets the cluster's own jobs never run out.
#[derive(Default)]
struct Watch {
    over: AtomicBool,
    seen: Mutex<Vec<Held>>,
    jobs: Mutex<Vec<String>>,
}

impl Watch {
    fn look(&self, cluster: &Cluster) {
        while !self.over.load(Ordering::Relaxed) {
            let held = Held::now(cluster);
            self.seen.lock().unwrap().push(held);
            std::thread::sleep(LOOK);
        }
    }

    /// A role's jobs, one after the other; lengths of tasks differ from job to job.
    fn churn(&self, cluster: &Cluster, role: &str) {
        let (sleep, count) = (sample("sleep.wasm"), TASKS.to_string());
        for ms in ["300", "1900", "700", "1200"].iter().cycle() {
            let run = ["run", "--detach", "--role", role, "--count", &count, "--cpu", "0.1", "--memory", "1MiB"];
            let job = cluster.text(&[&run[..], &[sleep.to_str().unwrap(), "--", ms]].concat()).trim().to_owned();
            self.jobs.lock().unwrap().push(job.clone());
            while cluster.tasks(&job, "waiting") > 0 {
                if self.over.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::sleep(LOOK);
            }
        }
    }

    /// What was seen in the next [`LOOKS`] looks; what limits say held in all.
    fn next(&self) -> Vec<Held> {
        let before = self.seen.lock().unwrap().len();
        let begun = Instant::now();
        loop {
            let seen = self.seen.lock().unwrap().clone();
            seen.iter().for_each(Held::check);
            // The first may have been begun before.
            if seen.len() > before + LOOKS {
                return seen[before + 1..].to_vec();
            }
            assert!(begun.elapsed() < PATIENCE, "nobody looks");
            std::thread::sleep(LOOK);
        }
    }
}

/// Ends those that look, also where the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn name(rack: usize, at: usize) -> String {
    format!("r{rack}-{at}")
}

fn rack(rack: usize) -> impl Iterator<Item = String> {
    (0..AGENTS_PER_RACK).map(move |at| name(rack, at))
}

fn racks() -> Cluster {
    let mut cluster = Cluster::master(&["--replace-after-ms", "4000"]);
    let agent = |rack: usize, at: usize| (name(rack, at), AGENT, vec!["--domain".to_owned(), format!("eu/eu-1/r{rack}")]);
    let all: Vec<_> = (0..RACKS).flat_map(|rack| (0..AGENTS_PER_RACK).map(move |at| agent(rack, at))).collect();
    cluster.add_agents(&all);
    let cpu = |milli: u64| format!("cpu={}", milli as f64 / 1_000.0);
    cluster.text(&["roles", "set", "pool", "--guarantee", &cpu(POOL_MILLI)]);
    cluster.text(&["roles", "set", "batch/capped", "--limit", &cpu(CAPPED_MILLI)]);
    cluster.text(&["roles", "set", "batch", "--weight", "10"]);
    cluster
}

/// A framework in Python, at work in a role; ended with the test where that fails.
struct Framework(Option<Child>);

impl Framework {
    fn start(cluster: &Cluster, script: &str, args: &[&str]) -> Self {
        let mut command = Command::new("python3");
        command.arg(source(script)).args(args).env("PYTHONDONTWRITEBYTECODE", "1");
        Self(Some(start(cluster, command)))
    }

    fn printed(mut self) -> String {
        printed(self.0.take().unwrap())
    }
}

impl Drop for Framework {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Agents that are as `which` says.
fn agents(cluster: &Cluster, which: impl Fn(&Value) -> bool) -> BTreeSet<String> {
    let answer = cluster.json(&["agents"]);
    let rows = answer["agents"].as_array().unwrap().iter().filter(|row| which(row));
    rows.map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}

/// Sends a signal to all agents of a rack.
fn signal(cluster: &Cluster, of: usize, signal: &str) {
    let ids: Vec<String> = rack(of).map(|name| cluster.agent_id(&name).to_string()).collect();
    assert!(Command::new("kill").arg(signal).args(ids).status().unwrap().success());
}

/// A rack that no shard has more than two agents of, whose silence it would take for a cut of its own where others are late too: it waits longer then.
fn rack_to_cut(cluster: &Cluster) -> usize {
    let shards = u16::try_from(cluster.json(&["masters"])["groups"].as_array().unwrap().len()).unwrap();
    let answer = cluster.json(&["agents"]);
    let shard_of = |name: &String| {
        let row = answer["agents"].as_array().unwrap().iter().find(|row| row["name"] == **name).unwrap();
        shard_of_agent(row["id"].as_str().unwrap().parse().unwrap(), shards)
    };
    let is_spread = |of: &usize| {
        let of: Vec<ShardId> = rack(*of).map(|name| shard_of(&name)).collect();
        of.iter().all(|shard| of.iter().filter(|other| *other == shard).count() <= 2)
    };
    (1..RACKS).find(is_spread).unwrap_or(1)
}

/// Waits until the pool has what it is guaranteed; then it keeps that though all want more.
fn guaranteed(cluster: &Cluster, watch: &Watch, what: &str) {
    cluster.until(what, |cluster| Held::now(cluster).pool >= POOL_MILLI);
    let seen = watch.next();
    assert!(seen.iter().all(|held| held.pool >= POOL_MILLI), "{what}: {seen:?}");
}

fn scenario(cluster: &Cluster, watch: &Watch) {
    cluster.until("own jobs have what is nobody's, and part of them all that it may", |cluster| {
        let held = Held::now(cluster);
        (held.batch, held.capped) == (ALL_MILLI - POOL_MILLI, CAPPED_MILLI)
    });
    watch.next();

    let primes = Framework::start(cluster, "primes.py", &[&BOUNDS.to_string(), "--role", "primes"]);
    let pool = Framework::start(cluster, "elastic.py", &["20", "80", "0", "--role", "pool"]);
    guaranteed(cluster, watch, "the pool gets what it is guaranteed");
    let over = |held: &&Held| held.batch > ALL_MILLI - POOL_MILLI && held.pool < POOL_MILLI;
    let over: Vec<Held> = watch.seen.lock().unwrap().iter().filter(over).copied().collect();
    assert!(over.is_empty(), "what is guaranteed was kept free: {over:?}");

    rack(0).for_each(|name| drop(cluster.text(&["agents", "drain", &name, "--grace", "1s"])));
    cluster
        .until("a rack is empty", |cluster| agents(cluster, |row| row["mode"] == "drained" && row["attempts"] == 0) == rack(0).collect());
    guaranteed(cluster, watch, "the pool is whole without that rack");

    let cut = rack_to_cut(cluster);
    signal(cluster, cut, "-STOP");
    cluster.until("a rack is cut off", |cluster| agents(cluster, |row| row["state"] != "reachable") == rack(cut).collect());
    cluster.until("its tasks are given up", |cluster| {
        agents(cluster, |row| row["state"] != "reachable" && row["attempts"] == 0) == rack(cut).collect()
    });
    guaranteed(cluster, watch, "the pool is whole without two racks");

    signal(cluster, cut, "-CONT");
    rack(0).for_each(|name| drop(cluster.text(&["agents", "resume", &name])));
    cluster.until("all are back", |cluster| {
        agents(cluster, |row| row["state"] == "reachable" && row["mode"] == "active").len() == RACKS * AGENTS_PER_RACK
    });
    guaranteed(cluster, watch, "the pool is as it was");
    watch.over.store(true, Ordering::Relaxed);
    assert_eq!(pool.printed(), "20 run\n80 run\n0 run\n");
    let text = primes.printed();
    assert_eq!(text.split(' ').next(), Some(expected(BOUNDS).to_string().as_str()), "{text}");
}

#[test]
fn frameworks_and_jobs_share_a_pool_that_loses_racks() {
    let cluster = racks();
    let watch = Watch::default();
    std::thread::scope(|scope| {
        scope.spawn(|| watch.look(&cluster));
        scope.spawn(|| watch.churn(&cluster, "batch"));
        scope.spawn(|| watch.churn(&cluster, "batch/capped"));
        let _over = Over(&watch.over);
        scenario(&cluster, &watch);
    });
    for job in watch.jobs.into_inner().unwrap() {
        cluster.until("each job is done", |cluster| cluster.tasks(&job, "finished") == TASKS);
    }
    cluster.until("nobody holds anything", |cluster| {
        let held = Held::now(cluster);
        (held.batch, held.pool, held.primes) == (0, 0, 0)
    });
}
