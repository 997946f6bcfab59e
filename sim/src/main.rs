//! `sim seeds`: runs seeds until one breaks a promise, and says how many hours of a cluster that were. `sim bugs`: puts bugs in on purpose
//! and says how many seeds it took to see each. `sim scale`: how large a cluster the real shards decide for, and how fast. `sim place`: what one
//! decision costs where the cluster is nearly full. `sim fairness`: how far roles are from their fair shares. `sim trace`: a recorded cluster, and how
//! much of it policies of placement give away.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use protocol::Time;
use sim::scale::{Figures, Size};
use sim::trace::allocation::Drawing;
use sim::trace::openb;
use sim::{Bug, Plan, fairness, place};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// As `skep` has it: what is measured here is to be what the master does there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A whole cluster in one thread.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Cli {
    /// What to do.
    #[command(subcommand)]
    verb: Verb,
}

/// What the simulator does.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs seeds; ends with 1 at the first that breaks a promise, and says how to run it again.
    Seeds {
        /// How many.
        #[arg(long, default_value_t = 100)]
        count: u64,
        /// The first.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// Goes on until so many hours of a cluster were run, whatever `count` says.
        #[arg(long)]
        hours: Option<u64>,
        /// Goes on after a seed that breaks a promise, and ends with 1 after the last.
        #[arg(long)]
        all: bool,
        /// From this millisecond of each seed on, writes what shards are told and want to standard error.
        #[arg(long)]
        trace_ms: Option<u64>,
        /// Runs openraft itself in every seed, not in one of a hundred only.
        #[arg(long = "openraft")]
        real_groups: bool,
    },
    /// Lets the real shards place very many tasks on very many agents that only say what they were told; prints what it took as JSON lines.
    Scale {
        /// Agents.
        #[arg(long, default_value_t = 50_000)]
        agents: u32,
        /// Tasks.
        #[arg(long, default_value_t = 1_000_000)]
        tasks: u32,
        /// Jobs.
        #[arg(long, default_value_t = 1_000)]
        jobs: u32,
        /// Shards.
        #[arg(long, default_value_t = 8)]
        shards: u16,
        /// Masters whose real journals keep every record; 0: shards decide alone.
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=3))]
        masters: u64,
        /// Where their journals are, for as long as it runs: on the disk that is to be measured.
        #[arg(long, default_value = "target/tmp/scale")]
        dir: PathBuf,
    },
    /// Measures what it costs one real shard to place a task in the room of one that has ended, on agents that are nearly full; prints it as
    /// JSON lines.
    Place {
        /// Agents.
        #[arg(long, default_value = "1000,10000,50000", value_delimiter = ',')]
        agents: Vec<u32>,
        /// Tasks that are placed for each.
        #[arg(long, default_value_t = 200_000)]
        tasks: u32,
        /// Roles, one for each framework.
        #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=1_024))]
        roles: u16,
        /// Tasks that end at once; about as many are wanted then.
        #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=1_024))]
        batch: u16,
        /// Wants for which there is no room.
        #[arg(long, default_value_t = 1_000)]
        misses: u32,
        /// How often all of it.
        #[arg(long, default_value_t = 3)]
        runs: u32,
    },
    /// Measures how far roles are from their fair shares while tasks end and roles come and go; prints it as JSON lines.
    Fairness {
        /// Agents.
        #[arg(long, default_value_t = 2_000)]
        agents: u32,
        /// Shards.
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
        shards: u16,
        /// Roles that want more than there is.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        roles: u32,
        /// How many kinds of tasks there are, one for each role: all alike, or some that need much of the processors, of the memory, or little.
        #[arg(long, default_value = "1,4", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..=4))]
        needs: Vec<u64>,
        /// Changes of who wants something, after the first.
        #[arg(long, default_value_t = 9)]
        changes: u32,
        /// How often all of it, each time drawn otherwise.
        #[arg(long, default_value_t = 3)]
        seeds: u64,
    },
    /// Replays a recorded cluster; prints what came out as JSON lines, and a table to standard error.
    Trace {
        /// Which, and what of it.
        #[command(subcommand)]
        what: Replayed,
    },
    /// Puts each bug in and runs seeds until it is seen; ends with 1 where one is not.
    Bugs {
        /// Seeds for each, at the most.
        #[arg(long, default_value_t = 200)]
        count: u64,
        /// Puts those in that show with openraft itself.
        #[arg(long = "openraft")]
        real_groups: bool,
    },
}

/// What is replayed of openb, a cluster of 1,523 machines (github.com/alibaba/clusterdata, cluster-trace-gpu-v2023).
#[derive(Debug, Subcommand)]
enum Replayed {
    /// The published experiment: tasks that never end, until 130 % of all devices were asked for; which part is given away, by policy.
    Openb {
        /// The folder with the files of openb.
        #[arg(long)]
        data: PathBuf,
        /// How often, each time with another order.
        #[arg(long, default_value_t = 10)]
        seeds: u64,
        /// Which lists of tasks.
        #[arg(long, default_value = "default,cpu100", value_delimiter = ',')]
        traces: Vec<String>,
        /// Agents with room that our policy alone chooses among, the first in an order that stays; the shard has its own number.
        #[arg(long, default_value_t = sim::trace::fit::CANDIDATES)]
        candidates: usize,
        /// Draws all tasks with replacement; without it each task of the list comes once, and only what is over is drawn.
        #[arg(long)]
        afresh: bool,
        /// Where pictures are put.
        #[arg(long)]
        plots: Option<PathBuf>,
    },
    /// The recorded arrivals and lengths, on a part of the agents: shared, and divided among the classes of service.
    Recorded {
        /// The folder with the files of openb.
        #[arg(long)]
        data: PathBuf,
        /// Which list of tasks.
        #[arg(long, default_value = "default")]
        trace: String,
        /// Takes each so-many-th agent: all tasks of the list together never hold more than 66 devices.
        #[arg(long, default_value = "60,80,100", value_delimiter = ',')]
        every: Vec<usize>,
        /// Where pictures are put.
        #[arg(long)]
        plots: Option<PathBuf>,
    },
}

const HOUR_MS: f64 = 3_600_000.0;

fn main() -> ExitCode {
    match Cli::parse().verb {
        Verb::Seeds { count, from, hours, all, trace_ms, real_groups } => seeds((from, count, hours), all, trace_ms, real_groups),
        Verb::Scale { agents, tasks, jobs, shards, masters, dir } => {
            scale(&Size { agents, tasks, jobs: jobs.max(1), shards: shards.max(1), masters, dir })
        }
        Verb::Place { agents, tasks, roles, batch, misses, runs } => {
            for (run, agents) in (1..=runs).flat_map(|run| agents.iter().map(move |agents| (run, *agents))) {
                let size = place::Size { agents, tasks, roles, batch, misses };
                placed(&size, &place::run(size), run);
            }
            ExitCode::SUCCESS
        }
        Verb::Fairness { agents, shards, roles, needs, changes, seeds } => {
            for needs in needs {
                let size = |seed| fairness::Size { agents, shards, roles, needs: needs as usize, changes, seed };
                fair(roles, needs, &(1..=seeds).map(|seed| fairness::run(&size(seed))).collect::<Vec<_>>());
            }
            ExitCode::SUCCESS
        }
        Verb::Trace { what } => replayed(what),
        Verb::Bugs { count, real_groups } => bugs(count, real_groups),
    }
}

fn seeds((from, count, hours): (u64, u64, Option<u64>), all: bool, trace_ms: Option<u64>, real_groups: bool) -> ExitCode {
    let start = Instant::now();
    let (mut time_ms, mut acks, mut staged, mut refused, mut leaders, mut ran, mut broken_seeds) = (0, 0, 0, 0, 0, 0, 0);
    let (mut digest, mut pieces, mut framework_tasks, mut judged, mut preempted, mut beside_kept) = (0_u64, 0, 0, 0, 0, 0);
    let (mut replaced, mut beside_others) = (0, 0);
    let enough = |ran: u64, time_ms: u64| hours.map_or(ran >= count, |hours| time_ms as f64 >= hours as f64 * HOUR_MS);
    while !enough(ran, time_ms) {
        let plan = Plan::new(from + ran, None);
        let real = real_groups || plan.real_groups;
        let report = sim::run(Plan { real_groups: real, ..plan }, trace_ms.map(Time));
        if let Some(broken) = report.broken {
            println!("seed {} ({} masters) broke a promise {broken}", report.seed, report.masters);
            let flag = if real { " --openraft" } else { "" };
            println!("again: cargo run --release -p sim -- seeds --count 1 --from {}{flag}", report.seed);
            broken_seeds += 1;
            if !all {
                return ExitCode::FAILURE;
            }
        }
        ran += 1;
        time_ms += report.time_ms;
        acks += report.acks;
        staged += report.staged;
        refused += report.refused;
        judged += report.judged;
        beside_kept += report.beside_kept;
        preempted += report.preempted;
        replaced += report.replaced;
        beside_others += report.beside_others;
        leaders += report.leaders;
        pieces += report.pieces;
        framework_tasks += report.framework_tasks;
        digest = digest.rotate_left(1) ^ report.digest;
    }
    let cluster = time_ms as f64 / HOUR_MS;
    let rate = cluster / (sim::scale::cpu_seconds().unwrap_or_else(|| start.elapsed().as_secs_f64()) / 3_600.0);
    println!(
        "{ran} seeds, {cluster:.1} cluster-hours, {acks} acknowledgements, {staged} attempts, {refused} refused, {framework_tasks} tasks of frameworks, {judged} within limits, {beside_kept} beside what was kept, {preempted} preempted, {replaced} replaced by other versions, {beside_others} near others or apart, {leaders} leaders, {pieces} pieces of snapshots sent, digest {digest:016x}: {broken_seeds} seeds broke a promise"
    );
    println!(
        r#"{{"system":"skep","bench":"sim","kind":"seeds","metric":"cluster_hours_per_cpu_hour","n":{ran},"value":{rate:.0},"unit":"h/h","run":1}}"#
    );
    if broken_seeds == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn scale(size: &Size) -> ExitCode {
    // Of an earlier run that was killed.
    let _ = std::fs::remove_dir_all(&size.dir);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ran = runtime.block_on(sim::scale::run(size.clone()));
    let _ = std::fs::remove_dir_all(&size.dir);
    match ran {
        Ok(figures) => said(size, &figures),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn said(size: &Size, figures: &Figures) -> ExitCode {
    let Size { agents, tasks, masters, .. } = *size;
    let kind = if masters == 0 { "scale".to_owned() } else { format!("scale-{masters}") };
    let line = |metric: &str, n: u32, value: f64, unit: &str| {
        println!(
            r#"{{"system":"skep","bench":"sim","kind":"{kind}","metric":"{metric}","n":{n},"value":{value:.3},"unit":"{unit}","run":1}}"#
        );
    };
    line("registering_s", agents, figures.registering_s, "s");
    line("placing_s", tasks, figures.placing_s, "s");
    line("placing_cpu_s", tasks, figures.placing_cpu_s, "s");
    line("decisions_per_s", tasks, f64::from(figures.ran) / figures.placing_s, "1/s");
    if masters > 0 {
        line("restart_led_s", tasks, figures.led_s, "s");
        line("restart_known_s", tasks, figures.restart_s, "s");
    }
    line("ending_s", tasks, figures.ending_s, "s");
    line("memory_per_agent", agents, figures.agent_bytes as f64, "B");
    line("memory_per_task", tasks, figures.task_bytes as f64, "B");
    println!("{size:?}: {} ran, {} ended, {} were placed again", figures.ran, figures.ended, figures.refused);
    let known = masters == 0 || figures.known == tasks;
    if !known {
        println!("after the restart {} tasks of all agents were known to run", figures.known);
    }
    if figures.ran == tasks && figures.ended == tasks && known { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn placed(size: &place::Size, figures: &place::Figures, run: u32) {
    let (agents, placed) = (size.agents, figures.placed.max(1) as f64);
    let line = |metric: &str, value: f64, unit: &str| {
        println!(
            r#"{{"system":"skep","bench":"sim","kind":"place","metric":"{metric}","n":{agents},"value":{value:.3},"unit":"{unit}","run":{run}}}"#
        );
    };
    let us = |took: std::time::Duration| took.as_secs_f64() * 1e6;
    let rate = |took: std::time::Duration| 1.0 / took.as_secs_f64().max(1e-9);
    line("decisions", rate(figures.each.offering), "1/s");
    line("turnover", rate(figures.each.all()), "1/s");
    line("offering_us", us(figures.each.offering), "us");
    line("launching_us", us(figures.each.launching), "us");
    line("releasing_us", us(figures.each.releasing), "us");
    line("offers_each", figures.offers as f64 / placed, "1");
    line("unmet_percent", (figures.wanted as f64 - placed).max(0.0) * 100.0 / figures.wanted.max(1) as f64, "%");
    line("used_least", figures.used_percent.0 as f64, "%");
    line("used_most", figures.used_percent.1 as f64, "%");
    line("miss_us", us(figures.missing.0), "us");
    line("miss_p99_us", us(figures.missing.1), "us");
    line("miss_crossed_us", us(figures.missing_crossed.0), "us");
    line("miss_crossed_p99_us", us(figures.missing_crossed.1), "us");
}

fn fair(roles: u32, needs: u64, seeds: &[fairness::Figures]) {
    let line = |metric: &str, value: f64, unit: &str| {
        println!(
            r#"{{"system":"skep","bench":"sim","kind":"fairness-{needs}","metric":"{metric}","n":{roles},"value":{value:.3},"unit":"{unit}","run":1}}"#
        );
    };
    let looks: Vec<&fairness::Look> = seeds.iter().flat_map(|figures| &figures.looks).collect();
    let sorted = |of: fn(&fairness::Look) -> f64| {
        let mut values: Vec<f64> = looks.iter().map(|look| of(look)).collect();
        values.sort_unstable_by(f64::total_cmp);
        move |percent: usize| values.get((values.len() * percent / 100).min(values.len().saturating_sub(1))).copied().unwrap_or(0.0)
    };
    let (off, of_own, used) = (sorted(|look| look.off_percent), sorted(|look| look.off_percent_of_own), sorted(|look| look.used_percent));
    line("looks", looks.len() as f64, "1");
    line("tasks_ended", seeds.iter().map(|figures| figures.ended as f64).sum(), "1");
    for (name, percent) in [("p50", 50), ("p99", 99), ("max", 100)] {
        line(&format!("off_{name}"), off(percent), "% of the pool");
        line(&format!("off_own_{name}"), of_own(percent), "% of the share");
    }
    line("used_least", used(0), "%");
    for (at, (need, ..)) in fairness::NEEDS.iter().enumerate() {
        let (held, fair) = looks.iter().fold((0.0, 0.0), |sum, look| (sum.0 + look.by_need[at].0, sum.1 + look.by_need[at].1));
        if fair > 0.0 {
            line(&format!("given_{need}"), held * 100.0 / fair, "% of the share");
        }
    }
    if let Some(worst) = looks.iter().max_by(|a, b| a.off_percent.total_cmp(&b.off_percent)) {
        eprintln!("{} is the farthest off, {:.3} % of the pool; its share is {:.3} %", worst.whose.0, worst.off_percent, worst.whose.1);
    }
}

fn replayed(what: Replayed) -> ExitCode {
    let ran = match what {
        Replayed::Openb { data, seeds, traces, candidates, afresh, plots } => {
            let drawing = if afresh { Drawing::Afresh } else { Drawing::Whole };
            openb::allocation(&data, plots.as_deref(), &traces, seeds, candidates, drawing)
        }
        Replayed::Recorded { data, trace, every, plots } => openb::arrivals(&data, plots.as_deref(), &trace, &every),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn bugs(count: u64, real_groups: bool) -> ExitCode {
    let mut missed = 0;
    let run = |seed: u64, bug: Bug| sim::run(Plan { real_groups, ..Plan::new(seed, Some(bug)) }, None).broken;
    for bug in Bug::ALL.into_iter().filter(|bug| !real_groups || bug.shows_in_real_groups()) {
        let seen = (1..=count).find_map(|seed| run(seed, bug).map(|broken| (seed, broken)));
        match seen {
            Some((seed, broken)) => println!("{bug:?}: seen at seed {seed}: {broken}"),
            None => {
                missed += 1;
                println!("{bug:?}: NOT SEEN in {count} seeds");
            }
        }
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
