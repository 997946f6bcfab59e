//! One engine for each executor: the pool, the linkers, the ticker, and the life of one task in them.

use super::{Control, LoadError, Output};
use crate::{Exit, Metering, Plan, Start, Usage};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How large the pool of an engine shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizing {
    /// Most tasks that have a slot at once; more wait.
    pub tasks_max: u32,
}

/// What an engine got of what it asked for; for `skep status AGENT`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obtained {
    /// Slots of the pool: tasks (with one memory each) that run at once.
    pub slots: u32,
    /// Slots that were asked for.
    pub slots_wanted: u32,
    /// What made it fewer, in words; `None` where nothing did.
    pub reason: Option<String>,
    /// True where freed memory is cleared page by page (Linux 6.7's PAGEMAP_SCAN), several times faster.
    pub pagemap_scan: bool,
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// This machine does not allow for even the smallest pool.
    #[error("no wasm engine: {0}")]
    Unavailable(String),
}

/// The wasm engine of one executor process.
pub struct Engine {
    obtained: Obtained,
}

/// A plan, ready to be run any number of times.
pub struct Prepared {}

impl Engine {
    /// An engine that counts by `metering`. Tries the pool that `sizing` asks for, then halves of it.
    ///
    /// # Errors
    /// Where the machine allows for none.
    pub fn new(_metering: Metering, _sizing: &Sizing) -> Result<Self, EngineError> {
        todo!()
    }

    /// What the machine gave.
    #[must_use]
    pub fn obtained(&self) -> &Obtained {
        &self.obtained
    }

    /// Loads the code of a plan (each digest once) and finds the gaps in its arguments. Once for each launch, not for each task.
    /// Blocks for as long as a file takes to be mapped.
    ///
    /// # Errors
    /// Where the code or standard input cannot be had, or nobody offers what it imports.
    pub fn prepare(&self, _plan: Arc<Plan>) -> Result<Arc<Prepared>, LoadError> {
        todo!()
    }

    /// Runs one task to its end. Waits while the pool is full. Dropping the future kills the task.
    pub async fn run(&self, _prepared: &Arc<Prepared>, _start: &Start, _output: Arc<dyn Output>, _control: &Control) -> (Exit, Usage) {
        todo!()
    }
}
