//! Compiling, in a process of its own with limits of its own: what a hostile module can blow up is that process.

use super::control::printable;
use super::engine::{EngineError, config};
use crate::Metering;
use crate::jail::{self, Confinement};
use rustix::process::Signal;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use wasmtime::Engine;

/// Largest wasm that is compiled.
pub const WASM_BYTES_MAX: u64 = 64 << 20;
/// The longest compiled code.
const COMPILED_BYTES_MAX: u64 = 1 << 30;
/// How long it may take, by whoever waits for it.
const WALL_MAX: Duration = Duration::from_secs(180);
/// Most bytes of what it says that are kept.
const SAID_BYTES_MAX: u64 = 4_096;
/// It exits so where the wasm is at fault.
const EXIT_REFUSED: i32 = 2;
/// Longest reason that is given.
const REASON_BYTES_MAX: usize = 1_024;

/// What a compiling process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileLimits {
    /// Address space, in bytes.
    pub address_bytes_max: u64,
    /// Processor time of all its threads, in seconds.
    pub cpu_seconds_max: u64,
}

impl Default for CompileLimits {
    /// What the largest modules that are taken need, a few times over.
    fn default() -> Self {
        Self { address_bytes_max: 4 << 30, cpu_seconds_max: 240 }
    }
}

/// Why there is no compiled code.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// It is not wasm that can be run here: the user's move.
    #[error("{0}")]
    Refused(String),
    /// Compiling it took more than it may: the user's move too.
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
pub fn compatibility(metering: Metering) -> Result<u64, EngineError> {
    let engine = Engine::new(&config(metering)).map_err(|error| EngineError::Unavailable(format!("{error:#}")))?;
    // Its keys are fixed, so it gives the same in each process.
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    Ok(hasher.finish())
}

/// Compiles `wasm`, in this process and without limits: [`in_process`] is the way for what somebody else brought.
///
/// # Errors
/// Where it is not wasm that can be run here.
pub fn compile(wasm: &[u8], metering: Metering) -> Result<Vec<u8>, CompileError> {
    if wasm.len() as u64 > WASM_BYTES_MAX {
        return Err(refused(&format!("it has {} bytes; at most {WASM_BYTES_MAX} are compiled", wasm.len())));
    }
    if Engine::detect_precompiled(wasm).is_some() {
        return Err(refused("it is compiled code, not wasm: only what is compiled here is run"));
    }
    let engine = Engine::new(&config(metering)).map_err(|error| CompileError::Failed(format!("{error:#}")))?;
    // The header: `\0asm`, a version, and a layer that tells a component from a core module (component-model/design/mvp/Binary.md).
    let compiled = match wasm {
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => engine.precompile_module(wasm),
        [0, b'a', b's', b'm', 13, 0, 1, 0, ..] => engine.precompile_component(wasm),
        [0, b'a', b's', b'm', version @ ..] => {
            let version = &version[..version.len().min(4)];
            return Err(refused(&format!("it is wasm of a version that is not run here (its header goes on with {version:?})")));
        }
        [] => return Err(refused("it is empty")),
        _ => return Err(refused("it is not wasm: it does not begin with the bytes of a wasm file")),
    };
    compiled.map_err(|error| refused(&format!("it is not valid, or uses a feature that is not offered: {error:#}")))
}

/// The hidden verb `compile IN OUT METERING BYTES SECONDS`: limits this process, compiles, and exits: 0 done, 2 refused (why: standard
/// error), 1 failed.
pub fn main(wasm: &Path, compiled: &Path, metering: Metering, limits: CompileLimits) -> ! {
    let code = match limited(wasm, compiled, metering, limits) {
        Ok(()) => 0,
        Err(CompileError::Refused(reason)) => say(EXIT_REFUSED, &reason),
        Err(CompileError::Limit(reason) | CompileError::Failed(reason)) => say(1, &reason),
    };
    std::process::exit(code)
}

fn say(code: i32, reason: &str) -> i32 {
    // Nobody is left to tell where this fails.
    let _ = std::io::stderr().write_all(reason.as_bytes());
    code
}

fn limited(wasm: &Path, compiled: &Path, metering: Metering, limits: CompileLimits) -> Result<(), CompileError> {
    let failed = |what: &str, error: &dyn std::fmt::Display| CompileError::Failed(format!("{what}: {error}"));
    let mut bytes = Vec::new();
    File::open(wasm)
        .and_then(|file| file.take(WASM_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| failed(&wasm.display().to_string(), &error))?;
    let mut into = File::create_new(compiled).map_err(|error| failed(&compiled.display().to_string(), &error))?;
    // From here on it needs no file that it has not opened, so it keeps none. What this machine lacks for that is in `jail::probe`.
    jail::enter(&Confinement {
        address_bytes_max: Some(limits.address_bytes_max),
        cpu_seconds_max: Some(limits.cpu_seconds_max),
        file_bytes_max: Some(COMPILED_BYTES_MAX),
        ..Confinement::default()
    })
    .map_err(|error| CompileError::Failed(error.to_string()))?;
    let code = compile(&bytes, metering)?;
    into.write_all(&code).map_err(|error| failed(&compiled.display().to_string(), &error))
}

/// Compiles `wasm` to `compiled` (replaced at once, or left as it was) by `binary compile IN OUT fuel|epoch BYTES SECONDS`, in a process
/// with these limits. Dropping the future kills it.
///
/// # Errors
/// Where the wasm is refused, took too much, or the process cannot be started.
pub async fn in_process(
    binary: &Path,
    wasm: &Path,
    compiled: &Path,
    metering: Metering,
    limits: CompileLimits,
) -> Result<(), CompileError> {
    let failed = |error: std::io::Error| CompileError::Failed(error.to_string());
    let partial = Partial::beside(compiled);
    let mut child = tokio::process::Command::new(binary)
        .arg("compile")
        .args([wasm, &partial.0])
        .arg(match metering {
            Metering::Fuel => "fuel",
            Metering::Epoch => "epoch",
        })
        .args([limits.address_bytes_max, limits.cpu_seconds_max].map(|limit| limit.to_string()))
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let mut said = Vec::new();
    let finished = async {
        if let Some(stderr) = child.stderr.take() {
            // What it says beyond this meets a closed pipe.
            stderr.take(SAID_BYTES_MAX).read_to_end(&mut said).await?;
        }
        child.wait().await
    };
    let status = tokio::time::timeout(WALL_MAX, finished)
        .await
        .map_err(|_| CompileError::Limit(format!("{} s", WALL_MAX.as_secs())))?
        .map_err(failed)?;
    judge(status, &printable(&String::from_utf8_lossy(&said), REASON_BYTES_MAX), limits)?;
    std::fs::rename(&partial.0, compiled).map_err(failed)
}

fn judge(status: ExitStatus, said: &str, limits: CompileLimits) -> Result<(), CompileError> {
    use std::os::unix::process::ExitStatusExt;
    let signal = Signal::as_raw;
    let CompileLimits { address_bytes_max, cpu_seconds_max } = limits;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(EXIT_REFUSED), _) => Err(CompileError::Refused(said.to_owned())),
        (_, Some(ended)) if ended == signal(Signal::XCPU) => Err(CompileError::Limit(format!("{cpu_seconds_max} s of processor time"))),
        // The kernel's second warning of that, or its answer to memory that it does not have.
        (_, Some(ended)) if ended == signal(Signal::KILL) => {
            Err(CompileError::Limit(format!("{cpu_seconds_max} s of processor time, or than the machine's memory")))
        }
        (_, Some(ended)) if ended == signal(Signal::XFSZ) => {
            Err(CompileError::Limit(format!("{COMPILED_BYTES_MAX} bytes of compiled code")))
        }
        // Rust's own answer to memory that it cannot have.
        (_, Some(ended)) if ended == signal(Signal::ABORT) && said.contains("memory allocation") => {
            Err(CompileError::Limit(format!("{address_bytes_max} bytes of memory")))
        }
        _ => Err(CompileError::Failed(format!("{status}: {said}"))),
    }
}

/// A file that is being written; removed where it was not renamed.
struct Partial(PathBuf);

impl Partial {
    fn beside(path: &Path) -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}-{number}.partial", std::process::id()));
        Self(name.into())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After the rename there is nothing to remove.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn refused(reason: &str) -> CompileError {
    CompileError::Refused(printable(reason, REASON_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn the_end_of_the_compiler_says_whose_move_it_is() {
        type Expected = fn(&CompileError) -> bool;
        let exit = |code: i32| ExitStatus::from_raw(code << 8);
        let cases: [(ExitStatus, &str, Expected); 7] = [
            (exit(2), "it is empty", |error| error.to_string() == "it is empty"),
            (exit(1), "no space", |error| matches!(error, CompileError::Failed(_))),
            (exit(101), "panicked", |error| matches!(error, CompileError::Failed(_))),
            (ExitStatus::from_raw(24), "", |error| matches!(error, CompileError::Limit(what) if what.contains("processor"))),
            (ExitStatus::from_raw(25), "", |error| matches!(error, CompileError::Limit(what) if what.contains("compiled code"))),
            (
                ExitStatus::from_raw(6),
                "memory allocation of 9 bytes failed",
                |error| matches!(error, CompileError::Limit(what) if what.contains("memory")),
            ),
            (ExitStatus::from_raw(11), "", |error| matches!(error, CompileError::Failed(_))),
        ];
        for (status, said, expected) in cases {
            let error = judge(status, said, CompileLimits::default()).unwrap_err();
            assert!(expected(&error), "{status}: {error}");
        }
        assert!(judge(exit(0), "", CompileLimits::default()).is_ok());
    }
}
