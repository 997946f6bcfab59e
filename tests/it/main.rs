//! The binary end to end, hostile inputs, and the rules of the house.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod audit;
#[path = "../../cli/browser.rs"]
mod browser;
#[path = "../../cli/busybox.rs"]
mod busybox;
mod changed;
mod cluster;
mod deployments;
mod devices;
mod escapes;
mod fenced;
mod frameworks;
mod fuzz;
mod gone;
mod health;
mod hostile_agent;
mod hostile_client;
mod hostile_jobs;
mod hostile_tasks;
mod hostile_wasm;
mod maintenance;
mod marathon;
mod masters;
mod mesos;
mod metrics;
mod names;
mod overload;
mod page;
mod place;
mod policies;
mod processes;
mod revocable;
mod rights;
mod roles;
mod run;
mod scene;
mod sharing;
mod simulator;
mod stack;
mod stores;
mod survive;
mod system;
mod tidy;
mod traces;
mod villain;
mod what_if;
