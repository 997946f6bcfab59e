//! What happened in a run: faults, what clients did and saw, and what was wrong. All times count from its beginning.

use crate::register::Op;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Most findings that are kept: after so many no more is learned.
const VIOLATIONS_MAX: usize = 50;

/// The record of a run.
#[derive(Debug)]
pub struct History {
    begun: Instant,
    records: Mutex<Records>,
}

/// All that is on record.
#[derive(Debug, Default)]
pub struct Records {
    /// What happened when, in milliseconds.
    pub notes: Vec<(u64, String)>,
    /// What was wrong.
    pub violations: Vec<(u64, String)>,
    /// Faults that were done.
    pub faults: Vec<Done>,
    /// Submissions by their keys.
    pub submissions: BTreeMap<String, Submission>,
    /// The keys of those that were acknowledged.
    pub acked: Vec<String>,
    /// When a write was acknowledged, in milliseconds.
    pub acks: Vec<u64>,
    /// Services whose count is a register.
    pub registers: BTreeMap<String, Register>,
    /// Ends of jobs as they were first seen: the key, when in microseconds, and the record.
    pub ends: BTreeMap<String, (u64, String)>,
    /// Agents that were silent: which, from when, until when, in milliseconds.
    pub silences: Vec<(String, u64, u64)>,
    /// Errors that clients were told, with how often.
    pub errors: BTreeMap<String, u64>,
    /// Reads that were answered.
    pub reads: u64,
    /// Tasks that were started again since their agent was silent.
    pub restarts: u64,
}

/// A fault, from its beginning to the end of its healing, in milliseconds.
#[derive(Clone, Debug)]
pub struct Done {
    /// Its kind.
    pub kind: &'static str,
    /// What exactly.
    pub what: String,
    /// When it began.
    pub from: u64,
    /// When nothing was wrong any more.
    pub healed: u64,
    /// When the masters said that they are whole again.
    pub whole: u64,
}

/// A submission.
#[derive(Clone, Debug, Default)]
pub struct Submission {
    /// When it was first tried, in milliseconds.
    pub from: u64,
    /// When it was acknowledged, and with which id.
    pub acked: Option<(u64, String)>,
    /// How often it was tried.
    pub tries: u64,
}

/// A service whose count is a register.
#[derive(Clone, Debug, Default)]
pub struct Register {
    /// What was done to its count and seen of it, in microseconds.
    pub ops: Vec<Op>,
    /// When a stop was acknowledged or first seen, in microseconds.
    pub stopped: Option<u64>,
}

impl History {
    /// Begins now.
    pub fn new() -> Self {
        Self { begun: Instant::now(), records: Mutex::default() }
    }

    /// Microseconds since the beginning.
    pub fn us(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap()
    }

    /// Milliseconds since the beginning.
    pub fn ms(&self) -> u64 {
        self.us() / 1_000
    }

    /// All that is on record.
    pub fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened.
    pub fn note(&self, what: impl Into<String>) {
        let now = self.ms();
        self.records().notes.push((now, what.into()));
    }

    /// Something was wrong.
    pub fn violated(&self, what: String) {
        let now = self.ms();
        let mut records = self.records();
        if records.violations.len() < VIOLATIONS_MAX && !records.violations.iter().any(|(_, known)| *known == what) {
            eprintln!("{now:>8} ms  WRONG: {what}");
            records.notes.push((now, format!("WRONG: {what}")));
            records.violations.push((now, what));
        }
    }

    /// A write was acknowledged now.
    pub fn acknowledged(&self) {
        let now = self.ms();
        self.records().acks.push(now);
    }

    /// A client was told an error.
    pub fn failed(&self, error: &str) {
        *self.records().errors.entry(error.chars().take(110).collect()).or_default() += 1;
    }

    /// True where an agent was silent for about `least_ms` without a pause, before now.
    pub fn was_silent(&self, agent: &str, least_ms: u64) -> bool {
        let now = self.ms();
        let long = |from: u64, to: u64| to.min(now).saturating_sub(from) >= least_ms;
        self.records().silences.iter().any(|(silent, from, to)| silent == agent && long(*from, *to))
    }
}
