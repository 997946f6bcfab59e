//! Compiling, in a process of its own with limits of its own: what a hostile module can blow up is that process.

use super::EngineError;
use crate::Metering;
use std::path::Path;

/// Largest wasm that is compiled.
pub const WASM_BYTES_MAX: u64 = 64 << 20;

/// Why there is no compiled code.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// It is not wasm that can be run here: the user's move.
    #[error("{0}")]
    Refused(String),
    /// Compiling it took more than it may.
    #[error("compiling took more than {0}")]
    Limit(String),
    /// This machine could not: the operator's move.
    #[error("the compiler failed: {0}")]
    Failed(String),
}

/// Names everything that compiled code depends on besides the wasm: the engine's version, its settings, the processor. Part of the key of
/// every cache of compiled code.
///
/// # Errors
/// Where this machine allows for no engine.
pub fn compatibility(_metering: Metering) -> Result<u64, EngineError> {
    todo!()
}

/// Compiles `wasm`, in this process and without limits: [`in_process`] is the way for what somebody else brought.
///
/// # Errors
/// Where it is not wasm that can be run here.
pub fn compile(_wasm: &[u8], _metering: Metering) -> Result<Vec<u8>, CompileError> {
    todo!()
}

/// The hidden verb `compile IN OUT METERING`: limits this process, compiles, and exits: 0 done, 2 refused (why: standard error), 1 failed.
pub fn main(_wasm: &Path, _compiled: &Path, _metering: Metering) -> ! {
    todo!()
}

/// Compiles `wasm` to `compiled` (replaced at once, or left as it was) by `binary compile IN OUT fuel|epoch`, in a process with limits.
/// Dropping the future kills it.
///
/// # Errors
/// Where the wasm is refused, took too much, or the process cannot be started.
pub async fn in_process(_binary: &Path, _wasm: &Path, _compiled: &Path, _metering: Metering) -> Result<(), CompileError> {
    todo!()
}
