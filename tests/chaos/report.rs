//! What is printed when a run is over: figures of each fault, one line of all, and where something was wrong what it takes to find out why.

use crate::Flags;
use crate::history::{Done, History, Records};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

/// How long after a fault what is slow is counted as its work, in milliseconds.
const AFTERMATH_MS: u64 = 2_000;
/// Lines of each log.
const LOG_LINES: usize = 60;

/// Prints it; the exit code.
pub fn print(flags: &Flags, history: &History, folder: &Path) -> ExitCode {
    let records = history.records();
    table(&records);
    if !records.errors.is_empty() {
        println!("\nclients were told:");
    }
    records.errors.iter().for_each(|(error, count)| println!("  {count:>6}  {error}"));
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    records.faults.iter().for_each(|fault| *kinds.entry(fault.kind).or_default() += 1);
    let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    let tries: u64 = records.submissions.values().map(|submission| submission.tries).sum();
    println!(
        "\nseed {}: {} faults ({}); {} jobs in {tries} tries, {} writes acknowledged, {} reads, {} tasks restarted for a silent agent; longest time without an acknowledged write {} ms; {} wrong",
        flags.seed,
        records.faults.len(),
        kinds.join(", "),
        records.submissions.values().filter(|submission| submission.acked.is_some()).count(),
        records.acks.len(),
        records.reads,
        records.restarts,
        longest_gap(&records.acks, 0, u64::MAX),
        records.violations.len()
    );
    if records.violations.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("\ntime line:");
    records.notes.iter().for_each(|(at, note)| println!("  {at:>8} ms  {note}"));
    for number in 1..=crate::cluster::MASTERS {
        tail(&folder.join(format!("m{number}.log")));
    }
    println!("\nwrong:");
    records.violations.iter().for_each(|(at, what)| println!("  {at:>8} ms  {what}"));
    let minutes = flags.minutes.map(|minutes| format!(" --minutes {minutes}")).unwrap_or_default();
    let only = if flags.only.is_empty() { String::new() } else { format!(" --only {}", flags.only.join(",")) };
    println!("\nlogs are in {}", folder.display());
    println!("again: cargo test --locked --workspace --test chaos -- --seed {}{minutes} --agents {}{only}", flags.seed, flags.agents());
    ExitCode::FAILURE
}

fn table(records: &Records) {
    println!("{:>8}  {:>7}  {:>7}  {:>7}  {:>7}  fault", "at ms", "lasts", "whole", "no ack", "slowest");
    for fault in &records.faults {
        let Done { what, from, healed, whole, .. } = fault;
        let to = whole + AFTERMATH_MS;
        let during = |at: u64| (*from..to).contains(&at);
        let slowest = records.submissions.values().filter_map(|one| {
            let (acked, _) = one.acked.as_ref()?;
            during(one.from).then(|| acked - one.from)
        });
        let (lasts, mends) = (healed - from, whole - healed);
        println!(
            "{from:>8}  {lasts:>7}  {mends:>7}  {:>7}  {:>7}  {what}",
            longest_gap(&records.acks, *from, to),
            slowest.max().unwrap_or(0)
        );
    }
}

/// The longest time between two acknowledgements of which at least one falls into that time.
fn longest_gap(acks: &[u64], from: u64, to: u64) -> u64 {
    let mut acks = acks.to_vec();
    acks.sort_unstable();
    let gaps = acks.windows(2).filter(|pair| pair[1] >= from && pair[0] <= to).map(|pair| pair[1] - pair[0]);
    gaps.max().unwrap_or(0)
}

fn tail(log: &Path) {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    println!("\n{}:", log.display());
    lines[lines.len().saturating_sub(LOG_LINES)..].iter().for_each(|line| println!("  {line}"));
}
