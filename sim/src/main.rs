//! `sim seeds`: runs seeds until one breaks a promise, and says how many hours of a cluster that were. `sim bugs`: puts bugs in on purpose
//! and says how many seeds it took to see each. `sim scale`: how large a cluster the real shards decide for, and how fast.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use protocol::Time;
use sim::scale::{Figures, Size};
use sim::{Bug, Plan};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

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

const HOUR_MS: f64 = 3_600_000.0;

fn main() -> ExitCode {
    match Cli::parse().verb {
        Verb::Seeds { count, from, hours, all, trace_ms, real_groups } => seeds((from, count, hours), all, trace_ms, real_groups),
        Verb::Scale { agents, tasks, jobs, shards, masters, dir } => {
            scale(&Size { agents, tasks, jobs: jobs.max(1), shards: shards.max(1), masters, dir })
        }
        Verb::Bugs { count, real_groups } => bugs(count, real_groups),
    }
}

fn seeds((from, count, hours): (u64, u64, Option<u64>), all: bool, trace_ms: Option<u64>, real_groups: bool) -> ExitCode {
    let start = Instant::now();
    let (mut time_ms, mut acks, mut staged, mut refused, mut leaders, mut ran, mut broken_seeds) = (0, 0, 0, 0, 0, 0, 0);
    let (mut digest, mut pieces, mut framework_tasks, mut judged) = (0_u64, 0, 0, 0);
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
        leaders += report.leaders;
        pieces += report.pieces;
        framework_tasks += report.framework_tasks;
        digest = digest.rotate_left(1) ^ report.digest;
    }
    let cluster = time_ms as f64 / HOUR_MS;
    let rate = cluster / (sim::scale::cpu_seconds().unwrap_or_else(|| start.elapsed().as_secs_f64()) / 3_600.0);
    println!(
        "{ran} seeds, {cluster:.1} cluster-hours, {acks} acknowledgements, {staged} attempts, {refused} refused, {framework_tasks} tasks of frameworks, {judged} within limits, {leaders} leaders, {pieces} pieces of snapshots sent, digest {digest:016x}: {broken_seeds} seeds broke a promise"
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
