//! The life of one task: a slot, a store, the guest on its own stack, and the end put into words.

use super::cache::{Entry, REASON_BYTES_MAX};
use super::control::{Control, Output, printable};
use super::engine::{Engine, Prepared};
use super::host::Task;
use super::limits::{Sliced, Timed};
use crate::{Exit, Limits, Metering, Start, Usage};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use wasmtime::{Extern, Store, Trap, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::I32Exit;

/// A task yields its thread after so many units of fuel: some 0.1 ms of computing, so that a yield costs under a percent. Host calls are not
/// counted in fuel, but a loop of the cheapest ones stays under 5 ms in this many.
const FUEL_SLICE: u64 = 1 << 17;

/// What ended a guest from outside.
pub(super) enum Cut {
    Killed,
    OutOfTime,
}

impl Engine {
    /// Runs one task to its end. Waits while the pool is full. Dropping the future kills the task.
    pub async fn run(&self, prepared: &Arc<Prepared>, start: &Start, output: Arc<dyn Output>, control: &Control) -> (Exit, Usage) {
        if control.is_killed() {
            return (Exit::Killed, Usage::default());
        }
        // Declared before the store, so dropped after it: a slot is free when its store is gone.
        let _slot = match self.slots.try_acquire_many(prepared.loaded.slots) {
            Ok(slot) => slot,
            Err(_) => tokio::select! {
                biased;
                () = control.killed() => return (Exit::Killed, Usage::default()),
                slot = self.slots.acquire_many(prepared.loaded.slots) => slot.expect("the semaphore is never closed"),
            },
        };
        let ticker = match self.ticker() {
            Ok(ticker) => ticker,
            Err(error) => {
                return (Exit::Rejected { reason: format!("no thread for the clock of its running time: {error}") }, Usage::default());
            }
        };
        if prepared.loaded.listens {
            control.listen(&self.room);
        }
        output.started();
        let begun = Instant::now();
        let limits = &prepared.plan.limits;
        let deadline = limits.time_ms_max.and_then(|ms| begun.checked_add(Duration::from_millis(ms)));
        let task = Task::new(Arc::clone(prepared), start.clone(), output, control.clone(), deadline);
        let mut store = Store::new(&self.engines.engine, task);
        let fuel = limits.fuel_max.unwrap_or(u64::MAX);
        self.limit(&mut store, limits, fuel);
        let ended = {
            let mut guest = pin!(enter(&mut store));
            match ticker {
                None => bounded(pin!(Timed { guest: guest.as_mut(), control, turned: false }), control, deadline).await,
                Some(ticker) => bounded(pin!(Sliced { guest: guest.as_mut(), control, ticker }), control, deadline).await,
            }
        };
        let exit = match ended {
            Ok(Ok(code)) => Exit::Code(code),
            Ok(Err(error)) => exit_of(&error, &mut store),
            Err(Cut::Killed) => Exit::Killed,
            Err(Cut::OutOfTime) => Exit::OutOfTime { limit_ms: limits.time_ms_max.unwrap_or_default() },
        };
        let exit = if matches!(exit, Exit::Code(_)) && control.is_stopping() { Exit::Killed } else { exit };
        let usage = Usage {
            fuel: store.get_fuel().map_or(0, |left| fuel - left),
            memory_peak_bytes: store.data().meter.memory_peak_bytes,
            time_us: u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
            // Reading a clock around each slice of a task that counts its fuel would cost more than many of them run.
            cpu_us: 0,
        };
        (exit, usage)
    }

    pub(super) fn limit(&self, store: &mut Store<Task>, limits: &Limits, fuel: u64) {
        // Closures that capture nothing: boxing them allocates nothing.
        store.limiter(|task| &mut task.meter);
        store.set_hostcall_fuel(usize::try_from(limits.host_bytes_max).unwrap_or(usize::MAX));
        match self.metering {
            Metering::Fuel => {
                store.set_fuel(fuel).expect("this engine counts fuel");
                store.fuel_async_yield_interval(Some(FUEL_SLICE)).expect("this engine counts fuel, and a slice is not empty");
            }
            Metering::Epoch => {
                store.set_epoch_deadline(1);
                store.epoch_deadline_callback(|mut store| {
                    let task = store.data_mut();
                    match task.prepared.plan.limits.cpu_time_ms_max {
                        Some(limit_ms) if task.control.ran(Instant::now()) >= Duration::from_millis(limit_ms) => {
                            Err(task.meter.pass(Exit::OutOfCpuTime { limit_ms }))
                        }
                        _ => Ok(UpdateDeadline::Yield(1)),
                    }
                });
            }
        }
    }
}

/// Runs the guest; `Ok` is its exit code.
async fn enter(store: &mut Store<Task>) -> wasmtime::Result<i32> {
    let loaded = Arc::clone(&store.data().prepared.loaded);
    match &loaded.entry {
        Entry::Core(program, start) => {
            let instance = program.instantiate_async(&mut *store).await?;
            let Some(Extern::Func(start)) = instance.get_module_export(&mut *store, start) else {
                return Err(wasmtime::Error::msg("its `_start` is no function"));
            };
            start.typed::<(), ()>(&*store)?.call_async(&mut *store, ()).await?;
            Ok(0)
        }
        Entry::Component(program) => {
            let command = program.instantiate_async(&mut *store).await?;
            let result = command.wasi_cli_run().call_run(&mut *store).await?;
            Ok(i32::from(result.is_err()))
        }
    }
}

/// `guest`, ended from outside by a kill or at the deadline, also while it waits. A guest that ends at its first turn pays for neither.
pub(super) async fn bounded<T>(
    mut guest: std::pin::Pin<&mut impl Future<Output = T>>,
    control: &Control,
    deadline: Option<Instant>,
) -> Result<T, Cut> {
    if let Poll::Ready(ended) = futures::poll!(guest.as_mut()) {
        return Ok(ended);
    }
    let late = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        ended = guest => Ok(ended),
        () = control.killed() => Err(Cut::Killed),
        () = late => Err(Cut::OutOfTime),
    }
}

pub(super) fn exit_of(error: &wasmtime::Error, store: &mut Store<Task>) -> Exit {
    let task = store.data_mut();
    if let Some(exit) = task.meter.over.take() {
        return exit;
    }
    if let Some(I32Exit(code)) = error.downcast_ref() {
        return Exit::Code(*code);
    }
    let limits = &task.prepared.plan.limits;
    let cause = error.root_cause().to_string();
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => return Exit::OutOfFuel { limit: limits.fuel_max.unwrap_or(u64::MAX) },
        // The error's own type is private to wasmtime; a test holds these words.
        None if cause.contains("fuel allocated for hostcalls has been exhausted") => {
            return Exit::OutOfHostBytes { limit_bytes: limits.host_bytes_max };
        }
        _ => {}
    }
    let mut reason = cause;
    let frames = error.downcast_ref::<WasmBacktrace>().map(WasmBacktrace::frames).unwrap_or_default();
    for (depth, frame) in frames.iter().enumerate() {
        reason.push_str(if depth == 0 { ", in " } else { " < " });
        match frame.func_name() {
            // Names are the guest's own and of any length.
            Some(name) => reason.push_str(&printable(name, 64)),
            None => reason.push_str(&format!("function {}", frame.func_index())),
        }
    }
    Exit::Trap { reason: printable(&reason, REASON_BYTES_MAX) }
}
