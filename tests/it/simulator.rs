//! The simulator as a test: seeds that once found a bug, some more, and the bugs that it must see. `cargo run --release -p sim` runs many.

use sim::{Bug, REGRESSION_SEEDS};

/// Seeds beside those that once found something.
const SEEDS: u64 = 30;
/// Seeds within which each bug on purpose must be seen; some seeds have too few faults for some bugs.
const BUG_SEEDS: u64 = 5;

fn holds(seed: u64) -> sim::Report {
    let report = sim::seed(seed, None);
    assert!(report.broken.is_none(), "seed {seed}: {report:?}; again: cargo run --release -p sim -- seeds --count 1 --from {seed}");
    report
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
    assert!(sum(|report| report.refused) < sum(|report| report.staged) / 10, "too many stagings find no room");
}

#[test]
fn a_seed_does_the_same_twice() {
    let steps = |report: sim::Report| (report.steps, report.time_ms, report.acks, report.staged, report.ended);
    // One of three masters.
    assert_eq!(steps(sim::seed(17, None)), steps(sim::seed(17, None)));
}

#[test]
fn every_bug_put_in_on_purpose_is_seen() {
    for bug in Bug::ALL {
        let seen = (1..=BUG_SEEDS).any(|seed| sim::seed(seed, Some(bug)).broken.is_some());
        assert!(seen, "{bug:?} was not seen in {BUG_SEEDS} seeds");
    }
}
