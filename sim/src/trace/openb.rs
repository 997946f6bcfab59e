//! What `sim trace` prints and draws: a JSON object for each figure on standard output, a table on standard error, and pictures.

use super::allocation::{Drawing, Outcome, draw, mean, run};
use super::plot::{Chart, Line};
use super::policy::Policy;
use super::read::{ReadError, Trace, read};
use super::recorded::{self, Division, quantile};
use std::fmt;
use std::path::{Path, PathBuf};

/// The files of the cluster: agents with devices, as in the published experiment, and all.
const AGENTS_WITH_DEVICES: &str = "openb_node_list_gpu_node.csv";
const AGENTS_ALL: &str = "openb_node_list_all_node.csv";
/// The first seed, as in the published scripts; it has no other meaning here.
const SEED_FIRST: u64 = 42;

/// Why nothing came out.
#[derive(Debug)]
pub enum TraceError {
    /// A trace could not be read.
    Read(ReadError),
    /// A picture could not be written.
    Picture {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Picture { path, error } => write!(f, "the picture {} cannot be written: {error}", path.display()),
        }
    }
}

impl std::error::Error for TraceError {}

fn load(data: &Path, agents: &str, trace: &str) -> Result<Trace, TraceError> {
    read(&data.join(agents), &data.join(format!("openb_pod_list_{trace}.csv"))).map_err(TraceError::Read)
}

fn say(kind: &str, metric: &str, n: u64, value: f64, unit: &str, run: u64) {
    println!(
        r#"{{"system":"skep","bench":"sim","kind":"{kind}","metric":"{metric}","n":{n},"value":{value:.3},"unit":"{unit}","run":{run}}}"#
    );
}

fn draw_picture(plots: Option<&Path>, name: &str, chart: &Chart) -> Result<(), TraceError> {
    let Some(plots) = plots else { return Ok(()) };
    let path = plots.join(format!("{name}.svg"));
    let written = std::fs::create_dir_all(plots).and_then(|()| std::fs::write(&path, chart.svg()));
    written.map_err(|error| TraceError::Picture { path, error })
}

/// The published experiment, for each of these traces and seeds, under each policy.
///
/// # Errors
/// [`TraceError`].
pub fn allocation(
    data: &Path,
    plots: Option<&Path>,
    traces: &[String],
    seeds: u64,
    candidates: usize,
    drawing: Drawing,
) -> Result<(), TraceError> {
    let policies = [Policy::Random, Policy::BestFit, Policy::Fgd, Policy::Ours { candidates }, Policy::Shard];
    for name in traces {
        let trace = load(data, AGENTS_WITH_DEVICES, name)?;
        let mut outcomes: Vec<Vec<Outcome>> = vec![Vec::new(); policies.len()];
        for seed in SEED_FIRST..SEED_FIRST + seeds {
            let tasks = draw(&trace, seed, drawing);
            for (policy, outcomes) in policies.iter().zip(&mut outcomes) {
                let outcome = run(&trace, &tasks, *policy, seed);
                let kind = format!("trace-{}", policy.name());
                say(
                    &kind,
                    &format!("gpu_allocated_percent_{name}"),
                    trace.agents.len() as u64,
                    outcome.allocated_percent,
                    "%",
                    seed - SEED_FIRST + 1,
                );
                outcomes.push(outcome);
            }
        }
        compare(name, &policies, &outcomes);
        let line = |(policy, outcomes): (&Policy, &Vec<Outcome>)| {
            let at =
                |percent: usize| outcomes.iter().filter_map(|outcome| outcome.at_percent.get(percent)).sum::<f64>() / seeds.max(1) as f64;
            let shortest = outcomes.iter().map(|outcome| outcome.at_percent.len()).min().unwrap_or(0);
            Line { name: policy.name().into(), points: (0..shortest).map(|percent| (percent as f64, at(percent))).collect() }
        };
        let title = format!("openb {name}: devices given away, mean of {seeds} seeds");
        let lines = policies.iter().zip(&outcomes).map(line).collect();
        let chart = Chart { title, across: "asked for, percent of all devices", up: "percent", lines };
        draw_picture(plots, &format!("openb-{name}-allocated"), &chart)?;
    }
    Ok(())
}

fn compare(trace: &str, policies: &[Policy], outcomes: &[Vec<Outcome>]) {
    let seeds = outcomes.first().map_or(0, Vec::len) as u64;
    let percents = |outcomes: &Vec<Outcome>| outcomes.iter().map(|outcome| outcome.allocated_percent).collect::<Vec<f64>>();
    let fgd: Vec<f64> = policies.iter().position(|policy| *policy == Policy::Fgd).map(|at| percents(&outcomes[at])).unwrap_or_default();
    eprintln!(
        "{trace:<10}{:>10}{:>10}{:>10}{:>12}{:>22}{:>10}{:>12}",
        "policy", "mean %", "± 95 %", "- fgd", "95 % interval", "failed", "an offer"
    );
    for (policy, outcomes) in policies.iter().zip(outcomes) {
        let (percent, half) = mean(&percents(outcomes));
        let paired: Vec<f64> = percents(outcomes).iter().zip(&fgd).map(|(ours, fgd)| ours - fgd).collect();
        let (difference, half_difference) = mean(&paired);
        let failed = outcomes.iter().map(|outcome| outcome.failed).sum::<usize>() as f64 / seeds.max(1) as f64;
        let choice_us = outcomes.iter().map(|outcome| outcome.choice.as_secs_f64() * 1e6).sum::<f64>() / seeds.max(1) as f64;
        let interval = format!("{:+.3} to {:+.3}", difference - half_difference, difference + half_difference);
        let choice = if choice_us > 0.0 { format!("{choice_us:.1} us") } else { String::new() };
        eprintln!("{:<10}{:>10}{percent:>10.3}{half:>10.3}{difference:>+12.3}{interval:>22}{failed:>10.0}{choice:>12}", "", policy.name());
        let kind = format!("trace-{}", policy.name());
        say(&kind, &format!("gpu_allocated_percent_mean_{trace}"), seeds, percent, "%", 1);
        say(&kind, &format!("gpu_allocated_above_fgd_{trace}"), seeds, difference, "%", 1);
        if half_difference.is_finite() {
            say(&kind, &format!("gpu_allocated_above_fgd_least_{trace}"), seeds, difference - half_difference, "%", 1);
        }
        if choice_us > 0.0 {
            say(&kind, &format!("offer_us_{trace}"), seeds, choice_us, "us", 1);
        }
    }
}

/// The recorded arrivals, on each so-many-th agent, shared and partitioned.
///
/// # Errors
/// [`TraceError`].
pub fn arrivals(data: &Path, plots: Option<&Path>, trace: &str, every: &[usize]) -> Result<(), TraceError> {
    let trace = load(data, AGENTS_ALL, trace)?;
    let tasks = recorded::ran(&trace);
    eprintln!("{} tasks; {} more never ran when they were recorded, and are left out", tasks.len(), trace.tasks.len() - tasks.len());
    for each in every {
        let agents = recorded::every(&trace.agents, *each);
        let devices: u64 = agents.iter().map(|agent| u64::from(agent.devices)).sum();
        let outcomes = [("shared", Division::Shared), ("partitioned", Division::Partitioned)]
            .map(|(name, division)| (name, recorded::run(&tasks, &agents, division)));
        eprintln!("{} agents with {devices} devices:", agents.len());
        for (name, outcome) in &outcomes {
            tell(name, agents.len() as u64, outcome);
        }
        pictures(plots, *each, (agents.len(), devices), &outcomes)?;
    }
    Ok(())
}

fn tell(name: &str, n: u64, outcome: &recorded::Outcome) {
    let kind = format!("trace-{name}");
    let whole = outcome.agents.values().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
    let mut waits: Vec<u64> = outcome.waits_s.values().flatten().copied().collect();
    waits.sort_unstable();
    let impossible: usize = outcome.impossible.values().sum();
    say(&kind, "gpu_used_percent", n, outcome.used_percent, "%", 1);
    say(&kind, "could_not_run", n, impossible as f64, "tasks", 1);
    say(&kind, "done_s", n, outcome.done_s as f64, "s", 1);
    let mut classes = outcome.waits_s.clone();
    classes.insert("all".into(), waits);
    for (class, waits) in &classes {
        let mean_s = waits.iter().sum::<u64>() as f64 / waits.len().max(1) as f64;
        let waited = waits.iter().filter(|wait| **wait > 0).count();
        say(&kind, &format!("wait_mean_s_{class}"), n, mean_s, "s", 1);
        say(&kind, &format!("wait_p50_s_{class}"), n, quantile(waits, 500) as f64, "s", 1);
        say(&kind, &format!("wait_p99_s_{class}"), n, quantile(waits, 990) as f64, "s", 1);
        say(&kind, &format!("waited_{class}"), n, waited as f64, "tasks", 1);
        let (agents, devices) = outcome.agents.get(class).or_else(|| outcome.agents.get("")).copied().unwrap_or(whole);
        say(&kind, &format!("gpus_{class}"), n, devices as f64, "gpus", 1);
        let not = if class == "all" { impossible } else { outcome.impossible.get(class).copied().unwrap_or(0) };
        let (p50, p99) = (quantile(waits, 500), quantile(waits, 990));
        eprintln!(
            "  {name:<12}{class:<12}{agents:>4} agents with {devices:>4} devices, {:>5} ran, {waited:>5} waited: mean {mean_s:>9.0} s, p50 {p50:>6} s, p99 {p99:>8} s; {not:>4} could not run",
            waits.len()
        );
    }
    eprintln!("  {name:<12}devices used {:.1} % of the time, done after {} s", outcome.used_percent, outcome.done_s);
}

fn pictures(
    plots: Option<&Path>,
    each: usize,
    (agents, devices): (usize, u64),
    outcomes: &[(&str, recorded::Outcome); 2],
) -> Result<(), TraceError> {
    const DAY_S: f64 = 86_400.0;
    let of = |points: &dyn Fn(&recorded::Outcome) -> Vec<(f64, f64)>| {
        outcomes.iter().map(|(name, outcome)| Line { name: (*name).into(), points: points(outcome) }).collect::<Vec<Line>>()
    };
    let cluster = format!("{agents} agents with {devices} devices");
    let used = of(&|outcome| outcome.used.iter().map(|(at, used)| (*at as f64 / DAY_S, *used)).collect());
    let chart = Chart { title: format!("Devices in use, {cluster}"), across: "days", up: "percent", lines: used };
    draw_picture(plots, &format!("openb-1-of-{each}-used"), &chart)?;
    let waiting = of(&|outcome| outcome.waiting.iter().map(|(at, waiting)| (*at as f64 / DAY_S, *waiting as f64)).collect());
    let chart = Chart { title: format!("Tasks that wait, {cluster}"), across: "days", up: "tasks", lines: waiting };
    draw_picture(plots, &format!("openb-1-of-{each}-waiting"), &chart)?;
    let waits = of(&|outcome| {
        let mut waits: Vec<u64> = outcome.waits_s.values().flatten().copied().collect();
        waits.sort_unstable();
        (0..=1_000).map(|at| (f64::from(at) / 10.0, quantile(&waits, at as usize) as f64 / 3_600.0)).collect()
    });
    let chart = Chart {
        title: format!("How long tasks waited, {cluster}"),
        across: "percent of the tasks waited at most so long",
        up: "hours",
        lines: waits,
    };
    draw_picture(plots, &format!("openb-1-of-{each}-waits"), &chart)
}
