//! One machine: what it promised, runs and still owes the master.
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod checks;
pub mod drive;
pub mod exec;
pub mod fetch;
pub mod fingerprint;
pub mod ledger;
pub mod logs;
#[cfg(test)]
mod scratch;
pub mod usage;
