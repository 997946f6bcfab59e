//! What holds one store in: memory and tables by count, running time by slices. What was passed is noted here, so that the end of a task can
//! say which limit it was; fuel and wall time need no note.
//!
//! Each `memory.grow` beyond the limit ends the task instead of answering -1: whoever asked is then told the limit and the peak, and not how
//! an allocator of the guest's language takes a refusal.

use super::control::Control;
use crate::{Exit, Limits};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::thread::Thread;
use std::time::{Duration, Instant};
use wasmtime::{EngineWeak, ResourceLimiter};

/// Most instances, tables and memories of one task, whatever a component is made of.
pub const INSTANCES_PER_TASK_MAX: usize = 32;
/// See [`INSTANCES_PER_TASK_MAX`].
pub const TABLES_PER_TASK_MAX: usize = 32;
/// See [`INSTANCES_PER_TASK_MAX`].
pub const MEMORIES_PER_TASK_MAX: usize = 8;
/// The largest table that the pool has room for, in elements; a plan that allows for more gets this.
pub const TABLE_ELEMENTS_MAX: u32 = 20_000;

/// How long an epoch tick is: a task yields, and its CPU time is looked at, once in each.
const TICK: Duration = Duration::from_millis(2);
/// The ticker stops after so many ticks in which nothing ran.
const IDLE_TICKS_MAX: u32 = 50;

/// What a task has, and may have, of memory and tables.
pub struct Meter {
    /// Told what it has.
    control: Control,
    memory_bytes: u64,
    memory_bytes_max: u64,
    /// The most that `memory_bytes` was.
    pub memory_peak_bytes: u64,
    table_elements_max: u32,
    /// What the last permitted growth added, to be taken back if the machine refuses it.
    granted_bytes: u64,
    /// The limit that was passed, as the task's end.
    pub over: Option<Exit>,
}

/// The guest is unwound with this; what it means is in [`Meter::over`].
#[derive(Debug, thiserror::Error)]
#[error("a limit was passed")]
pub struct Passed;

impl Meter {
    /// Nothing used yet of what `limits` allow for.
    pub fn new(limits: &Limits, control: Control) -> Self {
        Self {
            control,
            memory_bytes: 0,
            memory_bytes_max: limits.memory_bytes_max,
            memory_peak_bytes: 0,
            table_elements_max: limits.table_elements_max.min(TABLE_ELEMENTS_MAX),
            granted_bytes: 0,
            over: None,
        }
    }

    /// Notes that `exit` is how this task ends, and makes the error that ends it.
    pub fn pass(&mut self, exit: Exit) -> wasmtime::Error {
        self.over.get_or_insert(exit);
        Passed.into()
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum && maximum as u64 <= self.memory_bytes_max) {
            // Its own maximum forbids it, whatever the limit is.
            return Ok(false);
        }
        let wanted = (desired as u64).saturating_sub(current as u64);
        let total = self.memory_bytes.saturating_add(wanted);
        if total > self.memory_bytes_max {
            return Err(self.pass(Exit::OutOfMemory { limit_bytes: self.memory_bytes_max, peak_bytes: self.memory_peak_bytes }));
        }
        self.granted_bytes = wanted;
        self.memory_bytes = total;
        self.memory_peak_bytes = self.memory_peak_bytes.max(total);
        self.control.has_memory(total);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory_bytes -= std::mem::take(&mut self.granted_bytes);
        self.control.has_memory(self.memory_bytes);
        Ok(())
    }

    fn table_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let limit = self.table_elements_max;
        if desired <= limit as usize {
            return Ok(true);
        }
        if maximum.is_some_and(|maximum| maximum <= limit as usize && maximum < TABLE_ELEMENTS_MAX as usize) {
            return Ok(false);
        }
        Err(self.pass(Exit::OutOfTable { limit, wanted: desired as u64 }))
    }

    fn instances(&self) -> usize {
        INSTANCES_PER_TASK_MAX
    }

    fn tables(&self) -> usize {
        TABLES_PER_TASK_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_PER_TASK_MAX
    }
}

/// The thread that raises the engine's epoch while guests run, and sleeps while none does.
pub struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

struct Shared {
    /// Guests that are on a thread right now; those that wait do not count.
    running: AtomicU32,
    asleep: AtomicBool,
    over: AtomicBool,
}

impl Ticker {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the machine allows for no more threads.
    pub fn start(engine: EngineWeak) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { running: AtomicU32::new(0), asleep: AtomicBool::new(false), over: AtomicBool::new(false) });
        let inside = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("epoch-ticker".into()).spawn(move || tick(&inside, &engine))?;
        Ok(Self { shared, thread: thread.thread().clone() })
    }

    fn enter(&self) {
        // Sequentially consistent on both sides: either the ticker sees that something runs, or we see that it sleeps.
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
    }

    fn leave(&self) {
        self.shared.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

fn tick(shared: &Shared, engine: &EngineWeak) {
    let mut idle = 0;
    while !shared.over.load(Ordering::SeqCst) {
        if idle >= IDLE_TICKS_MAX {
            shared.asleep.store(true, Ordering::SeqCst);
            if shared.running.load(Ordering::SeqCst) == 0 {
                std::thread::park();
            }
            shared.asleep.store(false, Ordering::SeqCst);
            idle = 0;
            continue;
        }
        std::thread::sleep(TICK);
        let Some(engine) = engine.upgrade() else { return };
        engine.increment_epoch();
        idle = if shared.running.load(Ordering::SeqCst) == 0 { idle + 1 } else { 0 };
    }
}

/// A guest that is metered by time: what it runs is measured poll by poll, so that waiting costs it nothing.
pub struct Sliced<'a, F> {
    /// The guest.
    pub guest: Pin<&'a mut F>,
    /// Where its running time is kept.
    pub control: &'a Control,
    /// Ticks while it runs.
    pub ticker: &'a Ticker,
}

impl<F: Future> Future for Sliced<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let _slice = Slice::begin(self.control, self.ticker);
        self.guest.as_mut().poll(context)
    }
}

/// A guest that is metered by fuel: what it runs after its first turn is measured, for who looks at it while it runs.
pub struct Timed<'a, F> {
    /// The guest.
    pub guest: Pin<&'a mut F>,
    /// Where its running time is kept.
    pub control: &'a Control,
    /// It had its first turn.
    pub turned: bool,
}

impl<F: Future> Future for Timed<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if !std::mem::replace(&mut self.turned, true) {
            return self.guest.as_mut().poll(context);
        }
        self.control.slice_begins(Instant::now());
        let polled = self.guest.as_mut().poll(context);
        self.control.slice_ends(Instant::now());
        polled
    }
}

/// Ends when dropped, also by a panic: a slice left open would keep the ticker awake for good.
struct Slice<'a>(&'a Control, &'a Ticker);

impl<'a> Slice<'a> {
    fn begin(control: &'a Control, ticker: &'a Ticker) -> Self {
        ticker.enter();
        control.slice_begins(Instant::now());
        Self(control, ticker)
    }
}

impl Drop for Slice<'_> {
    fn drop(&mut self) {
        self.0.slice_ends(Instant::now());
        self.1.leave();
    }
}
