//! The binary end to end, hostile inputs, and the rules of the house.

mod cluster;
mod hostile_jobs;
mod hostile_wasm;
mod run;
mod simulator;
mod survive;
mod tidy;
