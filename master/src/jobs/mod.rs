//! The built-in framework: wanted against actual. Pure: records in, picks and demands out; the shard turns them into messages.
//!
//! Knows jobs, their tasks and which of them wait. Knows no agent's capacity and no message.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod cell;
mod deploy;
mod fold;
pub mod job;
pub mod lines;
pub mod placed;
pub mod restart;
pub mod rollout;
pub mod spent;
pub mod state;
pub mod steps;
pub mod system;
pub mod tally;

pub use cell::{Cell, Cells, LivePhase, Slot};
pub use job::{EndedJob, Entry, Key, LiveJob};
pub use rollout::DeploymentId;
pub use state::Jobs;
