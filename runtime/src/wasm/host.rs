//! What a task may call: WASI preview 1 for core modules, WASI 0.2, `wasi:config` and our `skep:task` for components. No files, no sockets.
//!
//! A task's WASI is made at its first call, so a task that calls nothing pays nothing.

use super::control::{Control, Output};
use super::engine::Prepared;
use super::limits::Meter;
use super::streams::{Sink, Source};
use crate::{Exit, Start, Stream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wasmtime::component::{self, ResourceTable};
use wasmtime::{Caller, Extern, Linker, StoreContextMut};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{I32Exit, Rng, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_config::{WasiConfig, WasiConfigVariables};

/// Most host resources (streams, pollables) of one component.
const RESOURCES_PER_TASK_MAX: usize = 4_096;
/// Most random bytes that one call of a component may ask for.
const RANDOM_BYTES_MAX: u64 = 1 << 20;
/// Random bytes are made in pieces of this size, between which a task may yield.
const RANDOM_PIECE_BYTES: usize = 64 << 10;
/// The instance of the linker that `wasi:random/random` of any 0.2 finds; wasmtime-wasi 48 defines this version.
const WASI_RANDOM: &str = "wasi:random/random@0.2.12";
/// The variable that holds the fencing token of a fenced task.
const FENCE_VARIABLE: &str = "SKEP_FENCE";
/// Ours, from `wit/`.
const CONTEXT: &str = "skep:task/context@0.1.0";
pub const MESSAGES: &str = "skep:task/messages@0.1.0";

#[allow(missing_docs)]
mod wit {
    wasmtime::component::bindgen!({ path: "../wit", world: "task" });
}
use wit::skep::task::context::{Budget, Identity};

/// What the store of one task holds.
pub struct Task {
    /// Its plan.
    pub prepared: Arc<Prepared>,
    /// Which task of the plan it is.
    pub start: Start,
    /// Its output.
    pub output: Arc<dyn Output>,
    /// The executor's hold on it.
    pub control: Control,
    /// Its memory and tables.
    pub meter: Meter,
    /// When its wall-clock time is over.
    pub deadline: Option<Instant>,
    core: Option<Box<WasiP1Ctx>>,
    component: Option<Box<(WasiCtx, ResourceTable)>>,
    config: Option<Arc<WasiConfigVariables>>,
    random: Option<Box<dyn Rng + Send>>,
}

impl Task {
    /// A task that has called nothing yet.
    pub fn new(prepared: Arc<Prepared>, start: Start, output: Arc<dyn Output>, control: Control, deadline: Option<Instant>) -> Self {
        let meter = Meter::new(&prepared.plan.limits, control.clone());
        Self { prepared, start, output, control, meter, deadline, core: None, component: None, config: None, random: None }
    }

    fn wasi(&self) -> WasiCtxBuilder {
        let template = &self.prepared.template;
        let sink = |stream| Sink { stream, output: Arc::clone(&self.output), control: self.control.clone() };
        let mut wasi = WasiCtxBuilder::new();
        wasi.args(&template.args(&self.start)).envs(&template.env(&self.start));
        wasi.stdout(sink(Stream::Stdout)).stderr(sink(Stream::Stderr));
        wasi.max_random_size(RANDOM_BYTES_MAX.min(self.prepared.plan.limits.host_bytes_max));
        if let Some(file) = &self.prepared.stdin {
            wasi.stdin(Source::new(Arc::clone(file), self.control.clone()));
        }
        wasi
    }

    fn core(&mut self) -> &mut WasiP1Ctx {
        if self.core.is_none() {
            self.core = Some(Box::new(self.wasi().build_p1()));
        }
        self.core.as_mut().expect("made above")
    }

    fn config(&mut self) -> WasiConfig<'_> {
        let Self { config, prepared, start, .. } = self;
        WasiConfig::new(config.get_or_insert_with(|| prepared.template.config(start)))
    }

    fn fill_random(&mut self, bytes: &mut [u8]) {
        self.random.get_or_insert_with(wasmtime_wasi::thread_rng).fill_bytes(bytes);
        self.control.moved(bytes.len());
    }

    /// What its environment says.
    fn fence(&self) -> Option<u64> {
        let env = &self.prepared.plan.env;
        env.iter().find(|(name, _)| name == FENCE_VARIABLE).and_then(|(_, token)| token.parse().ok())
    }

    fn identity(&self) -> Identity {
        let plan = &self.prepared.plan;
        Identity {
            job: plan.job.clone(),
            task: format!("{}.{}", plan.job, self.start.index),
            index: self.start.index,
            attempt: self.start.attempt,
            agent: plan.agent.clone(),
        }
    }
}

impl WasiView for Task {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        if self.component.is_none() {
            let mut table = ResourceTable::new();
            table.set_max_capacity(RESOURCES_PER_TASK_MAX);
            self.component = Some(Box::new((self.wasi().build(), table)));
        }
        let (ctx, table) = &mut **self.component.as_mut().expect("made above");
        WasiCtxView { ctx, table }
    }
}

/// What core modules are offered.
///
/// # Errors
/// Never on an engine of ours: a name defined twice, or one that an engine's settings forbid.
pub fn core_linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<Task>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, Task::core)?;
    linker.allow_shadowing(true);
    // WASI's own traps on codes from 126; whoever tests an exit code wants to see the one that the task gave.
    linker.func_wrap("wasi_snapshot_preview1", "proc_exit", |code: i32| -> wasmtime::Result<()> { Err(I32Exit(code).into()) })?;
    // WASI's own allocates all of it at once and cannot yield.
    linker.func_wrap_async("wasi_snapshot_preview1", "random_get", |caller: Caller<'_, Task>, (to, length): (u32, u32)| {
        Box::new(random_get(caller, to as usize, length as usize))
    })?;
    linker.allow_shadowing(false);
    Ok(linker)
}

/// `random_get` of preview 1: 0, or 21 (`fault`) where the memory ends before the buffer does.
async fn random_get(mut caller: Caller<'_, Task>, to: usize, length: usize) -> wasmtime::Result<i32> {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        return Err(wasmtime::Error::msg("missing required memory export"));
    };
    let mut done = 0;
    while done < length {
        let piece = RANDOM_PIECE_BYTES.min(length - done);
        let (bytes, task) = memory.data_and_store_mut(&mut caller);
        let Some(bytes) = bytes.get_mut(to + done..to + done + piece) else { return Ok(21) };
        task.fill_random(bytes);
        done += piece;
        let control = task.control.clone();
        control.breathe().await;
    }
    Ok(0)
}

/// What components are offered.
///
/// # Errors
/// Never on an engine of ours: a name defined twice, or one that an engine's settings forbid.
pub fn component_linker(engine: &wasmtime::Engine) -> wasmtime::Result<component::Linker<Task>> {
    let mut linker = component::Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_config::add_to_linker(&mut linker, Task::config)?;
    linker.allow_shadowing(true);
    linker
        .instance(WASI_RANDOM)?
        .func_wrap_async("get-random-bytes", |store, (length,): (u64,)| Box::new(get_random_bytes(store, length)))?;
    linker.allow_shadowing(false);
    // By hand, because `remaining` needs the store, which wasmtime's bindings give only where components run concurrently.
    let mut context = linker.instance(CONTEXT)?;
    context.func_wrap("whoami", |store: StoreContextMut<'_, Task>, ()| Ok((store.data().identity(),)))?;
    context.func_wrap("remaining", |store: StoreContextMut<'_, Task>, ()| Ok((remaining(&store),)))?;
    context.func_wrap_async("progress", |store: StoreContextMut<'_, Task>, (percent, note): (u8, String)| {
        Box::new(async move {
            let task = store.data();
            task.control.tell(percent, &note);
            task.output.progressed();
            // The whole note was copied, however little of it is kept.
            task.control.moved(note.len());
            task.control.breathe().await;
            Ok(())
        })
    })?;
    context.func_wrap("fence", |store: StoreContextMut<'_, Task>, ()| Ok((store.data().fence(),)))?;
    context.func_wrap("stopping", |store: StoreContextMut<'_, Task>, ()| Ok((store.data().control.is_stopping(),)))?;
    let mut messages = linker.instance(MESSAGES)?;
    messages.func_wrap_async("receive", |store, ()| Box::new(receive(store, None)))?;
    messages.func_wrap_async("wait", |store, (ms,): (u64,)| Box::new(receive(store, Some(Duration::from_millis(ms)))))?;
    Ok(linker)
}

/// The next message, waited for so long at most.
async fn receive(store: StoreContextMut<'_, Task>, within: Option<Duration>) -> wasmtime::Result<(Option<Vec<u8>>,)> {
    let control = store.data().control.clone();
    let message = match within.filter(|within| !within.is_zero()) {
        Some(within) => tokio::time::timeout(within, control.message()).await.unwrap_or_default(),
        None => control.message_here(),
    };
    control.moved(message.as_ref().map_or(0, Vec::len));
    control.breathe().await;
    Ok((message,))
}

async fn get_random_bytes(mut store: StoreContextMut<'_, Task>, length: u64) -> wasmtime::Result<(Vec<u8>,)> {
    let task = store.data_mut();
    let limit_bytes = RANDOM_BYTES_MAX.min(task.prepared.plan.limits.host_bytes_max);
    if length > limit_bytes {
        return Err(task.meter.pass(Exit::OutOfHostBytes { limit_bytes }));
    }
    let mut bytes = vec![0; length as usize];
    for piece in bytes.chunks_mut(RANDOM_PIECE_BYTES) {
        task.fill_random(piece);
        task.control.breathe().await;
    }
    Ok((bytes,))
}

fn remaining(store: &StoreContextMut<'_, Task>) -> Budget {
    let task = store.data();
    let limits = &task.prepared.plan.limits;
    Budget {
        // Without metering by fuel there is none to ask for.
        fuel_left: limits.fuel_max.and_then(|_| store.get_fuel().ok()),
        memory_limit: limits.memory_bytes_max,
        deadline_ms: task
            .deadline
            .map(|deadline| u64::try_from(deadline.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(u64::MAX)),
    }
}
