//! The simulator as a test: seeds that once found a bug, some more, and the bugs that it must see. `cargo run --release -p sim` runs many.

use sim::{Bug, OPENRAFT_REGRESSION_SEEDS, Plan, REGRESSION_SEEDS};

/// Seeds beside those that once found something.
const SEEDS: u64 = 30;
/// Seeds within which each bug on purpose must be seen; some seeds have too few faults for some bugs.
const BUG_SEEDS: u64 = 30;
/// Seeds in which services change their versions.
const VERSION_SEEDS: usize = 4;
/// Seeds in which there are system jobs.
const SYSTEM_SEEDS: usize = 6;
/// Seeds in which jobs are kept near each other, or apart.
const NEIGHBOUR_SEEDS: usize = 6;
/// Seeds that run openraft itself, each twice: of one, three and five masters.
const OPENRAFT_SEEDS: [u64; 4] = [2, 3, 6, 100];
/// How long things break in them, in milliseconds.
const OPENRAFT_TROUBLE_MS: u64 = 90_000;

fn holds(seed: u64) -> sim::Report {
    let report = sim::seed(seed, None);
    assert!(report.broken.is_none(), "seed {seed}: {report:?}; again: cargo run --release -p sim -- seeds --count 1 --from {seed}");
    report
}

/// Runs the first seeds from there on that are as `which` says, and short.
fn short(from: u64, count: usize, which: impl Fn(&Plan) -> bool) -> Vec<sim::Report> {
    let fits = |seed: &u64| {
        let plan = Plan::new(*seed, None);
        which(&plan) && !plan.real_groups && plan.trouble_ms < 900_000 && plan.request_ms <= 10_000
    };
    (from..).filter(fits).take(count).map(holds).collect()
}

#[test]
fn seeds_that_once_found_a_bug_find_none() {
    REGRESSION_SEEDS.into_iter().for_each(|seed| drop(holds(seed)));
}

#[test]
fn no_promise_is_broken_in_some_seeds() {
    let reports: Vec<sim::Report> = (1..=SEEDS).map(holds).collect();
    let sum = |of: fn(&sim::Report) -> u64| reports.iter().map(of).sum::<u64>();
    assert!(sum(|report| report.acks) > 1_000 && sum(|report| report.ended) > 10_000, "the seeds do too little to show anything");
    assert!((1..=SEEDS).any(|seed| Plan::new(seed, None).places), "no seed has jobs that may not go everywhere");
    assert!((1..=SEEDS).any(|seed| Plan::new(seed, None).checks), "no seed asks tasks whether they are well");
    assert!(sum(|report| report.refused) < sum(|report| report.staged) / 10, "too many stagings find no room");
}

#[test]
fn services_go_from_version_to_version_and_no_promise_is_broken() {
    let reports = short(2_000, VERSION_SEEDS, |plan| plan.rolls);
    assert!(reports.iter().map(|report| report.replaced).sum::<u64>() > 20, "too few services change their versions");
    // Other promises are broken by it too, and would hide a check that sees nothing.
    let seen = (1..=BUG_SEEDS).any(|seed| sim::seed(seed, Some(Bug::RollsAtOnce)).broken.is_some_and(|why| why.contains("V1: ")));
    assert!(seen, "V1 did not see RollsAtOnce in {BUG_SEEDS} seeds");
}

#[test]
fn each_agent_has_its_own_task_of_system_jobs_and_no_promise_is_broken() {
    let reports = short(3_000, SYSTEM_SEEDS, |plan| plan.systems && plan.agents > 1);
    assert!(reports.iter().map(|report| report.systems).sum::<u64>() > 20, "there are too few system jobs");
    let seen = (1..=BUG_SEEDS).any(|seed| sim::seed(seed, Some(Bug::OverlooksAgents)).broken.is_some());
    assert!(seen, "OverlooksAgents was not seen in {BUG_SEEDS} seeds");
}

#[test]
fn jobs_are_kept_near_each_other_and_apart_and_no_promise_is_broken() {
    let reports = short(4_000, NEIGHBOUR_SEEDS, |plan| plan.neighbours && plan.agents > 1);
    assert!(reports.iter().map(|report| report.beside_others).sum::<u64>() > 1_000, "too few tasks are kept near others, or apart");
    // Other promises may be broken by it too, and would hide a check that sees nothing.
    let seen = (1..=BUG_SEEDS).any(|seed| sim::seed(seed, Some(Bug::HearsOfNobody)).broken.is_some_and(|why| why.contains("N1: ")));
    assert!(seen, "N1 did not see HearsOfNobody in {BUG_SEEDS} seeds");
}

#[test]
fn a_seed_does_the_same_twice() {
    let steps = |report: sim::Report| (report.steps, report.time_ms, report.acks, report.staged, report.ended);
    assert_eq!(steps(sim::seed(7, None)), steps(sim::seed(7, None)));
}

fn with_openraft(seed: u64, bug: Option<Bug>, trouble_ms: u64) -> sim::Report {
    sim::run(Plan { real_groups: true, trouble_ms, fault_ms: 5_000, ..Plan::new(seed, bug) }, None)
}

#[test]
fn openraft_itself_breaks_no_promise_and_a_seed_of_it_does_the_same_twice() {
    for seed in OPENRAFT_SEEDS {
        let (once, again) = (with_openraft(seed, None, OPENRAFT_TROUBLE_MS), with_openraft(seed, None, OPENRAFT_TROUBLE_MS));
        assert!(once.broken.is_none(), "{once:?}; again: cargo run --release -p sim -- seeds --openraft --count 1 --from {seed}");
        assert!(once.acks > 0 && once.ended > 0, "the seed does too little to show anything: {once:?}");
        assert_eq!((once.steps, once.digest), (again.steps, again.digest), "seed {seed}");
    }
    let planned = |seed| Plan::new(seed, None).real_groups;
    assert!(planned(100) && !planned(101), "one seed in a hundred runs it");
}

#[test]
fn seeds_that_once_found_a_bug_with_openraft_find_none() {
    for seed in OPENRAFT_REGRESSION_SEEDS {
        let report = sim::run(Plan { real_groups: true, ..Plan::new(seed, None) }, None);
        assert!(report.broken.is_none(), "{report:?}; again: cargo run --release -p sim -- seeds --openraft --count 1 --from {seed}");
    }
}

#[test]
fn bugs_are_seen_with_openraft_itself() {
    for bug in [Bug::TellsBeforeCommit, Bug::ForgetsLastEntry] {
        let seen = (1..=BUG_SEEDS).any(|seed| with_openraft(seed, Some(bug), 600_000).broken.is_some());
        assert!(seen, "{bug:?} was not seen in {BUG_SEEDS} seeds");
    }
}

#[test]
fn every_bug_put_in_on_purpose_is_seen() {
    for bug in Bug::ALL {
        let seen = (1..=BUG_SEEDS).any(|seed| sim::seed(seed, Some(bug)).broken.is_some());
        assert!(seen, "{bug:?} was not seen in {BUG_SEEDS} seeds");
    }
}
