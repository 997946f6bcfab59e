//! The executor's own process.

use std::path::Path;
use std::process::ExitCode;

/// The verb `executor DIR`: serves until it is told to end, or is idle without a client. Called before any thread is started.
pub fn main(dir: &Path) -> ExitCode {
    let _ = dir;
    ExitCode::FAILURE
}
