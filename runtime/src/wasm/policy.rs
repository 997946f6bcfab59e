//! Policies: components that answer one question and import nothing. Each call has a new instance, so many instructions and so much memory, and so the
//! same answer whenever it is asked the same. Knows what `wit/policy` says of questions and answers; whoever asks them knows what they are for.

use super::cache::{LoadError, REASON_BYTES_MAX, component_of, reason};
use super::compile::{self, CompileError, CompileLimits};
use super::control::printable;
use super::engine::{EngineError, config};
use crate::Metering;
use std::path::{Path, PathBuf};
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, InstanceAllocationStrategy, PoolingAllocationConfig, ResourceLimiter, Store, Trap};

/// Instructions of one answer about agents: at most some 10 ms on the thread that decides.
pub const SCORE_FUEL: u64 = 5_000_000;
/// Instructions of one answer about a job.
pub const ADMISSION_FUEL: u64 = 50_000_000;
/// Memory of one call, in bytes.
pub const MEMORY_BYTES_MAX: usize = 16 << 20;
/// What one call may make its host allocate, in bytes.
const HOST_BYTES_MAX: usize = 1 << 20;
/// Elements of all tables of one call.
const TABLE_ELEMENTS_MAX: usize = 10_000;
/// Largest component that is taken, in bytes.
pub const WASM_BYTES_MAX: u64 = 8 << 20;
/// Calls at once.
const SLOTS: u32 = 64;
/// Instances, memories and tables of one component.
const INSTANCES_MAX: u32 = 8;

#[allow(missing_docs)]
mod wit {
    pub mod score {
        wasmtime::component::bindgen!({ path: "../wit/policy", world: "placement-score" });
    }
    pub mod admission {
        wasmtime::component::bindgen!({
            path: "../wit/policy",
            world: "admission",
            with: { "skep:policy/types": super::score::skep::policy::types },
        });
    }
}

pub use wit::score::skep::policy::types::{Amounts, Candidate, Job, Ranking, Want};

/// Compiles policies and runs them.
#[derive(Clone)]
pub struct Policies {
    engine: Engine,
    binary: PathBuf,
}

/// A policy that says which agents are best.
pub struct Scores {
    engine: Engine,
    pre: wit::score::PlacementScorePre<Meter>,
}

/// A policy that says which jobs are taken.
pub struct Admissions {
    engine: Engine,
    pre: wit::admission::AdmissionPre<Meter>,
}

impl Policies {
    /// An engine for policies, which `binary compile …` compiles for.
    ///
    /// # Errors
    /// Where the machine allows for none.
    pub fn new(binary: &Path) -> Result<Self, EngineError> {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(SLOTS).total_core_instances(SLOTS * INSTANCES_MAX).total_stacks(SLOTS);
        pool.total_memories(SLOTS * 2).total_tables(SLOTS * INSTANCES_MAX).max_core_instances_per_component(INSTANCES_MAX);
        pool.max_memories_per_component(2).max_tables_per_component(INSTANCES_MAX).table_elements(TABLE_ELEMENTS_MAX);
        let mut config = config(Metering::Fuel);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        let engine = Engine::new(&config).map_err(|error| EngineError::Unavailable(reason(&error)))?;
        Ok(Self { engine, binary: binary.to_owned() })
    }

    /// Compiles the component of the file `wasm` to `compiled`, in a process of its own.
    ///
    /// # Errors
    /// [`CompileError`].
    pub async fn compile(&self, wasm: &Path, compiled: &Path) -> Result<(), CompileError> {
        let bytes = std::fs::metadata(wasm).map_err(|error| CompileError::Failed(error.to_string()))?.len();
        if bytes > WASM_BYTES_MAX {
            return Err(CompileError::Refused(format!("it has {bytes} bytes; a policy has at most {WASM_BYTES_MAX}")));
        }
        compile::in_process(&self.binary, wasm, compiled, Metering::Fuel, CompileLimits::default()).await
    }

    /// The policy about agents that was compiled to this file by [`Self::compile`], and written by nobody else.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn scores(&self, compiled: &Path) -> Result<Scores, LoadError> {
        let component = component_of(&self.engine, compiled)?;
        let pre = self.linked(&component)?;
        let pre = wit::score::PlacementScorePre::new(pre).map_err(|error| unfit("placement-score", &error))?;
        Ok(Scores { engine: self.engine.clone(), pre })
    }

    /// The policy about jobs that was compiled to this file, as [`Self::scores`].
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn admissions(&self, compiled: &Path) -> Result<Admissions, LoadError> {
        let component = component_of(&self.engine, compiled)?;
        let pre = self.linked(&component)?;
        let pre = wit::admission::AdmissionPre::new(pre).map_err(|error| unfit("admission", &error))?;
        Ok(Admissions { engine: self.engine.clone(), pre })
    }

    /// With nothing that it could import.
    fn linked(&self, component: &Component) -> Result<wasmtime::component::InstancePre<Meter>, LoadError> {
        let linker = Linker::new(&self.engine);
        linker.instantiate_pre(component).map_err(|error| {
            let text = format!("a policy may import nothing, neither WASI nor anything else: {}", reason(&error));
            LoadError::Refused(printable(&text, REASON_BYTES_MAX))
        })
    }
}

fn unfit(world: &str, error: &wasmtime::Error) -> LoadError {
    let text = format!("it is no component of the world {world} of skep:policy: {}", reason(error));
    LoadError::Refused(printable(&text, REASON_BYTES_MAX))
}

impl Scores {
    /// Which of these agents are best for what is wanted. Blocks, for at most [`SCORE_FUEL`] instructions.
    ///
    /// # Errors
    /// What ended it, for people.
    pub fn score(&self, want: &Want, candidates: &[Candidate]) -> Result<Ranking, String> {
        let mut store = store(&self.engine, SCORE_FUEL);
        let instance = self.pre.instantiate(&mut store).map_err(|error| ended(&error, SCORE_FUEL))?;
        instance.call_score(&mut store, want, candidates).map_err(|error| ended(&error, SCORE_FUEL))
    }
}

impl Admissions {
    /// Whether this job is taken, or else why not. Blocks, for at most [`ADMISSION_FUEL`] instructions.
    ///
    /// # Errors
    /// What ended it, for people.
    pub fn admit(&self, job: &Job) -> Result<Result<(), String>, String> {
        let mut store = store(&self.engine, ADMISSION_FUEL);
        let instance = self.pre.instantiate(&mut store).map_err(|error| ended(&error, ADMISSION_FUEL))?;
        let answer = instance.call_admit(&mut store, job).map_err(|error| ended(&error, ADMISSION_FUEL))?;
        Ok(answer.map_err(|reason| printable(&reason, REASON_BYTES_MAX)))
    }
}

fn store(engine: &Engine, fuel: u64) -> Store<Meter> {
    let mut store = Store::new(engine, Meter { memory_bytes: 0 });
    store.limiter(|meter| meter);
    store.set_hostcall_fuel(HOST_BYTES_MAX);
    store.set_fuel(fuel).expect("this engine counts fuel");
    store
}

fn ended(error: &wasmtime::Error, fuel: u64) -> String {
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => format!("out of fuel: it may execute {fuel} instructions"),
        _ => reason(error),
    }
}

/// What one call has of memory.
struct Meter {
    memory_bytes: usize,
}

impl ResourceLimiter for Meter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if total > MEMORY_BYTES_MAX {
            return Err(wasmtime::Error::msg(format!("out of memory: it may have {MEMORY_BYTES_MAX} bytes")));
        }
        self.memory_bytes = total;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }
}
