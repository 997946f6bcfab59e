//! A policy of where tasks go: the fullest agent first, and as many on it as fit, so that whole machines stay free for what is large. Agents with the
//! attribute `spot=true` come last.
#![no_std]

extern crate alloc;
extern crate lone as _;

use skep::policy::types::Amounts;

wit_bindgen::generate!({ path: "../../wit/policy", world: "placement-score" });

struct Pack;

export!(Pack);

impl Guest for Pack {
    fn score(_: Want, candidates: alloc::vec::Vec<Candidate>) -> Ranking {
        Ranking { scores: candidates.iter().map(score).collect(), fill: true }
    }
}

fn score(candidate: &Candidate) -> f64 {
    let spot = candidate.attributes.iter().any(|(name, value)| name == "spot" && value == "true");
    fullness(&candidate.capacity, &candidate.free) - if spot { 1.0 } else { 0.0 }
}

/// The largest part of what an agent has of any kind that is taken: from 0 to 1.
fn fullness(capacity: &Amounts, free: &Amounts) -> f64 {
    let kinds = [(capacity.cpu_milli, free.cpu_milli), (capacity.memory_bytes, free.memory_bytes), (capacity.disk_bytes, free.disk_bytes)];
    let taken = |(all, free): (u64, u64)| if all == 0 { 0.0 } else { all.saturating_sub(free) as f64 / all as f64 };
    // `f64::max` would call a C library that is not there.
    kinds.into_iter().map(taken).fold(0.0, |most, part| if part > most { part } else { most })
}
