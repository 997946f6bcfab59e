//! One engine for each executor process: its settings, its pool, its linkers. The settings are made in one function, for whoever compiles too.

use super::cache::{Cache, Entry, LoadError, Loaded, TABLES_PER_SLOT, reason};
use super::host::{Task, component_linker, core_linker};
use super::inbox::Room;
use super::limits::{INSTANCES_PER_TASK_MAX, MEMORIES_PER_TASK_MAX, TABLE_ELEMENTS_MAX, TABLES_PER_TASK_MAX, Ticker};
use super::template::Template;
use crate::{Metering, Plan};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};
use tokio::sync::Semaphore;
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, component};

/// Address space of a memory's slot: with these no access needs a bounds check (256 MiB instead cost 56 % on a memory loop).
const RESERVATION_BYTES: u64 = 4 << 30;
const GUARD_BYTES: u64 = 32 << 20;
/// 47 bits of address space hold some 32,000 slots; the rest is for everything else.
const SLOTS_MAX: u32 = 30_000;
/// The smallest pool that is tried before giving up.
const SLOTS_MIN: u32 = 8;
/// Kernel mappings that one task can take: two of its stack, up to three of its memory, one more for its image.
const MAPPINGS_PER_SLOT: u32 = 6;
/// `vm.max_map_count` where it cannot be read: the kernel's default.
const MAPPINGS_DEFAULT: u32 = 65_530;
/// Stack of a task, its host calls included, and what of it its wasm may use.
const STACK_BYTES: usize = 256 << 10;
const WASM_STACK_BYTES: usize = 128 << 10;
/// What of a used stack is cleared by hand; the rest is given back to the kernel. A task without host calls uses less than this.
const STACK_KEPT_BYTES: usize = 8 << 10;
/// What of a used memory is kept and cleared where the kernel says which pages are dirty, and where it does not.
const MEMORY_KEPT_SCAN_BYTES: usize = 2 << 20;
const MEMORY_KEPT_BYTES: usize = 16 << 10;
const TABLE_KEPT_BYTES: usize = 16 << 10;
/// Slots that are given back to the kernel together.
const DECOMMIT_BATCH: usize = 16;
/// The innermost functions that a trap's reason names.
const TRAP_FRAMES_MAX: usize = 8;

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
    pub(super) engines: Engines,
    pub(super) slots: Semaphore,
    pub(super) metering: Metering,
    ticker: OnceLock<Ticker>,
    cache: Cache,
    /// For messages to all its tasks.
    pub(super) room: Room,
    obtained: Obtained,
}

/// wasmtime's engine and what it offers to both kinds of program.
pub struct Engines {
    /// The engine.
    pub engine: wasmtime::Engine,
    /// For core modules.
    pub core: wasmtime::Linker<Task>,
    /// For components.
    pub component: component::Linker<Task>,
}

/// A plan, ready to be run any number of times.
pub struct Prepared {
    pub(super) plan: Arc<Plan>,
    pub(super) template: Template,
    pub(super) loaded: Arc<Loaded>,
    pub(super) stdin: Option<Arc<File>>,
}

impl Prepared {
    /// True where a task of it can learn that it is to stop: a component can, a core module cannot.
    #[must_use]
    pub fn hears(&self) -> bool {
        matches!(self.loaded.entry, Entry::Component(_))
    }
}

impl Engine {
    /// An engine that counts by `metering`. Tries the pool that `sizing` asks for, then halves of it. Starts no thread, so that a process
    /// can give up what it may do between this and its first task.
    ///
    /// # Errors
    /// Where the machine allows for none.
    pub fn new(metering: Metering, sizing: &Sizing) -> Result<Self, EngineError> {
        let unavailable = |error: wasmtime::Error| EngineError::Unavailable(reason(&error));
        let pagemap_scan = PoolingAllocationConfig::is_pagemap_scan_available();
        let wanted = sizing.tasks_max.max(1);
        let (mut slots, mut why) = affordable(wanted, mappings_max());
        let engine = loop {
            let mut config = config(metering);
            config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(slots, pagemap_scan)));
            match wasmtime::Engine::new(&config) {
                Ok(engine) => break engine,
                Err(error) if slots <= SLOTS_MIN => return Err(unavailable(error)),
                Err(error) => {
                    why = Some(format!("a pool of {slots} was not possible: {}", reason(&error)));
                    slots /= 2;
                }
            }
        };
        let core = core_linker(&engine).map_err(unavailable)?;
        let component = component_linker(&engine).map_err(unavailable)?;
        Ok(Self {
            engines: Engines { engine, core, component },
            slots: Semaphore::new(slots as usize),
            metering,
            ticker: OnceLock::new(),
            cache: Cache::default(),
            room: Room::default(),
            obtained: Obtained { slots, slots_wanted: wanted, reason: why, pagemap_scan },
        })
    }

    /// What the machine gave.
    #[must_use]
    pub fn obtained(&self) -> &Obtained {
        &self.obtained
    }

    /// How this engine counts.
    #[must_use]
    pub fn metering(&self) -> Metering {
        self.metering
    }

    /// The ticker of an engine that counts ticks, started at the first use; `None` where fuel is counted.
    pub(crate) fn ticker(&self) -> std::io::Result<Option<&Ticker>> {
        if self.metering == Metering::Fuel {
            return Ok(None);
        }
        if self.ticker.get().is_none() {
            // Of two that are started at once the second is dropped, which ends it.
            let _ = self.ticker.set(Ticker::start(self.engines.engine.weak())?);
        }
        Ok(self.ticker.get())
    }

    /// Loads the code of a plan (each digest once) and finds the gaps in its arguments. Once for each launch, not for each task.
    /// Blocks for as long as a file takes to be mapped.
    ///
    /// # Errors
    /// Where the code or standard input cannot be had, or nobody offers what it imports.
    pub fn prepare(&self, plan: Arc<Plan>) -> Result<Arc<Prepared>, LoadError> {
        let loaded = self.cache.load(&self.engines, plan.digest, &plan.compiled)?;
        if loaded.slots > self.obtained.slots {
            return Err(LoadError::Refused(format!("it needs {} slots of a pool that has {}", loaded.slots, self.obtained.slots)));
        }
        let stdin =
            plan.stdin.as_ref().map(|path| regular(path).map_err(|error| LoadError::Stdin { path: path.clone(), error })).transpose()?;
        Ok(Arc::new(Prepared { template: Template::new(&plan), plan, loaded, stdin: stdin.map(Arc::new) }))
    }
}

/// Opens a regular file; a pipe or a device could make its reader wait.
fn regular(path: &std::path::Path) -> std::io::Result<File> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file"));
    }
    File::open(path)
}

/// Everything that compiled code depends on. Whoever compiles uses this alone; whoever runs adds the pool, which code does not depend on.
pub fn config(metering: Metering) -> Config {
    let fuel = metering == Metering::Fuel;
    let mut config = Config::new();
    config.consume_fuel(fuel).epoch_interruption(!fuel);
    config.memory_reservation(RESERVATION_BYTES).memory_guard_size(GUARD_BYTES).memory_init_cow(true);
    config.async_stack_size(STACK_BYTES).max_wasm_stack(WASM_STACK_BYTES).async_stack_zeroing(true);
    config.shared_memory(false).wasm_threads(false).wasm_memory64(false).wasm_custom_page_sizes(false);
    config.gc_support(false).wasm_gc(false).wasm_function_references(false).wasm_exceptions(false);
    config.wasm_stack_switching(false).wasm_wide_arithmetic(false).concurrency_support(false);
    config.wasm_backtrace_max_frames(NonZeroUsize::new(TRAP_FRAMES_MAX)).native_unwind_info(false);
    if fuel {
        // What counts repeatably should compute repeatably.
        config.cranelift_nan_canonicalization(true).relaxed_simd_deterministic(true);
    }
    config
}

fn pool(slots: u32, pagemap_scan: bool) -> PoolingAllocationConfig {
    let (instances, tables) = (INSTANCES_PER_TASK_MAX as u32, TABLES_PER_TASK_MAX as u32);
    let memories = MEMORIES_PER_TASK_MAX as u32;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_memories(slots).total_tables(slots * TABLES_PER_SLOT).total_stacks(slots);
    // These two are counters only: they take no space.
    pool.total_core_instances(slots * instances).total_component_instances(slots);
    pool.max_memories_per_module(memories).max_memories_per_component(memories);
    pool.max_tables_per_module(tables).max_tables_per_component(tables).max_core_instances_per_component(instances);
    pool.max_memory_size(RESERVATION_BYTES as usize).table_elements(TABLE_ELEMENTS_MAX as usize);
    pool.max_unused_warm_slots((slots / 10).max(1)).decommit_batch_size(DECOMMIT_BATCH);
    pool.pagemap_scan(Enabled::Auto).linear_memory_keep_resident(if pagemap_scan { MEMORY_KEPT_SCAN_BYTES } else { MEMORY_KEPT_BYTES });
    pool.table_keep_resident(TABLE_KEPT_BYTES).async_stack_keep_resident(STACK_KEPT_BYTES);
    pool
}

/// How many of `wanted` slots this machine's limits allow for, and which limit it is where that is fewer.
fn affordable(wanted: u32, mappings: u32) -> (u32, Option<String>) {
    let mapped = (mappings / MAPPINGS_PER_SLOT).max(SLOTS_MIN);
    if wanted <= mapped.min(SLOTS_MAX) {
        (wanted, None)
    } else if mapped < SLOTS_MAX {
        (mapped, Some(format!("vm.max_map_count is {mappings}, and a task takes up to {MAPPINGS_PER_SLOT} mappings")))
    } else {
        (SLOTS_MAX, Some(format!("the address space of a process holds {SLOTS_MAX} tasks")))
    }
}

fn mappings_max() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
    text.trim().parse::<u64>().map_or(MAPPINGS_DEFAULT, |count| u32::try_from(count).unwrap_or(u32::MAX))
}
