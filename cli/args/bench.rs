//! Flags of `skep bench`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Flags of `skep bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// What to measure.
    #[command(subcommand)]
    pub what: BenchWhat,
    /// How often; medians are printed.
    #[arg(long, default_value_t = 3, global = true)]
    pub runs: u32,
    /// Where the built samples are.
    #[arg(long, default_value = "samples/dist", global = true)]
    pub samples: PathBuf,
}

/// What `skep bench` measures.
#[derive(Debug, Subcommand)]
pub enum BenchWhat {
    /// No-op tasks: from the submission until the client knows that all ended.
    Tasks {
        /// How many; 100,000 of wasm, 1,000 of the others.
        #[arg(long)]
        count: Option<u32>,
        /// The kind of task: wasm, native or container; the last two beside what does the same without a cluster.
        #[arg(long, default_value = "wasm")]
        kind: String,
        /// A submission for each task, pipelined by one client.
        #[arg(long)]
        separate: bool,
        /// 3: of wasm tasks, first with one master and then with three, and the share of the rate that is left.
        #[arg(long, default_value_t = 1)]
        masters: u8,
    },
    /// One task at a time over one connection: submit to done.
    Latency {
        /// How many.
        #[arg(long, default_value_t = 200)]
        count: u32,
        /// The kind of task: wasm, native or container; the last two beside what does the same without a cluster.
        #[arg(long, default_value = "wasm")]
        kind: String,
        /// A new `skep run` process for each.
        #[arg(long)]
        process: bool,
    },
    /// Sleeping tasks: memory of each, page tables included; then every one must answer.
    Idle {
        /// How many.
        #[arg(long, default_value_t = 10_000)]
        count: u32,
        /// The kind of task.
        #[arg(long, default_value = "wasm")]
        kind: String,
        /// Components instead of modules.
        #[arg(long)]
        component: bool,
    },
    /// The master: bytes of a live and of a finished task, as slopes.
    Memory {
        /// How many.
        #[arg(long, default_value_t = 1_000_000)]
        count: u32,
    },
    /// An idle cluster: CPU and memory of master and agent.
    Rest {
        /// For how long.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
    },
    /// A module that nobody has seen: upload to first run; known to first run.
    Cold {
        /// The module.
        #[arg(long)]
        module: Option<PathBuf>,
    },
    /// Running native tasks: what their executors hold, and how long a new agent takes to own them after the old one was killed.
    Recover {
        /// How many.
        #[arg(long, default_value_t = 500)]
        count: u32,
    },
    /// Many agents that speak the real protocol from one process, each with a connection of its own: what they cost a master.
    Agents {
        /// How many.
        #[arg(long, default_value_t = 1_000)]
        count: u32,
    },
    /// Services that Marathon's API made, with twenty tasks each on many agents: how fast they are made, and what lists of them take.
    Apps {
        /// How many.
        #[arg(long, default_value_t = 5_000)]
        count: u32,
        /// On how many agents.
        #[arg(long, default_value_t = 200)]
        agents: u32,
    },
    /// Readers of what changes, while fifty jobs a second are submitted: until each has read of each.
    Events {
        /// How many readers.
        #[arg(long, default_value_t = 100)]
        count: u32,
        /// For how long jobs are submitted, in seconds.
        #[arg(long, default_value_t = 20)]
        seconds: u32,
    },
    /// Three masters under many agents with running tasks; again and again one that leads is killed: until a job of its shards is placed, until
    /// all agents are back, and whether any task was started again.
    Failover {
        /// How many agents, with ten tasks each.
        #[arg(long, default_value_t = 500)]
        count: u32,
        /// How often a leader is killed.
        #[arg(long, default_value_t = 20)]
        kills: u32,
    },
    /// Three masters under many agents with running tasks, all masters killed at once and started again: until every agent and every task is
    /// known again, each in the attempt that it was in; then the same with all agents, which have lost what they ran.
    ColdStart {
        /// How many agents, with ten tasks each.
        #[arg(long, default_value_t = 5_000)]
        count: u32,
    },
    /// More than a master takes: how long accepted submissions take, and how many are, under five times as many callers as it takes whole,
    /// against those in the same run; what it turned away, and by how much it grew.
    Overload {
        /// For how long, each half.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// Frameworks that are clients: from when a task's resources are free until the next one runs in them; and the rate of those that place all they
    /// can, beside one that holds all it is shown against without it.
    Frameworks {
        /// How many tasks, one after the other.
        #[arg(long, default_value_t = 1_000)]
        count: u32,
        /// For how long with the one that holds all, and as long without.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// A policy as wasm that orders agents: what one question about 1, 8 and 32 agents takes, and how many tasks a second a shard places where each of
    /// them is such a question, beside none.
    Policies {
        /// How many questions, and how many tasks.
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        count: u32,
    },
    /// A service under the load of a day, alone, beside a batch of wasm tasks in another part of the machine, and beside a revocable one in what it does
    /// not use: how much of the processors is used, what its callers wait, and how soon what it wants is taken back.
    Night {
        /// The kind of the batch's tasks: wasm or native.
        #[arg(long, default_value = "wasm")]
        kind: String,
        /// How long the day is.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// The service of `night`, as a task.
    #[command(hide = true)]
    Day {
        /// Idle for so long at first.
        #[arg(long)]
        lead_s: u64,
        /// How long its day is.
        #[arg(long)]
        day_s: u64,
        /// Callers in a second at noon.
        #[arg(long)]
        rate: f64,
        /// How long it wants a whole core in the end.
        #[arg(long)]
        wake_s: u64,
    },
    /// The page in a real browser, under many agents with running tasks and jobs that come and go: what a first visit transfers, and for how long at a
    /// time the browser is kept from drawing and from hearing its reader, page by page.
    Page {
        /// How many agents.
        #[arg(long, default_value_t = 10_000)]
        count: u32,
        /// How many tasks run on them.
        #[arg(long, default_value_t = 100_000)]
        tasks: u32,
    },
    /// A service goes to a new version, a tenth of its tasks at a time: until all are of it and do their work, and the fewest that did meanwhile.
    Roll {
        /// How many tasks.
        #[arg(long, default_value_t = 1_000)]
        count: u32,
        /// None may be missing: a tenth runs beyond the count instead.
        #[arg(long)]
        over: bool,
    },
    /// An agent killed: until its tasks are placed anew.
    Detect,
}
