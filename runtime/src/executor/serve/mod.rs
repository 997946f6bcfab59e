//! The executor's own process: from its start through the jail to its end.

mod asks;
mod connection;
mod tasks;
mod teller;
mod workers;

use super::apart::Watch;
use super::logs::Logs;
use super::place::{self, StoredSpec};
use super::record::RecordLog;
use super::wire::{self, HelloReply};
use crate::jail::cell::sys::Session;
use crate::jail::{self, Confinement, JailError};
use crate::wasm::{Engine, EngineError, Sizing};
use std::io;
use std::num::NonZero;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::available_parallelism;
use tasks::Tasks;
use workers::Workers;

/// Why an executor cannot serve.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("executor: {0}: {1}")]
    System(&'static str, io::Error),
    #[error("executor: `spec` in its directory is no executor's: {0}")]
    Spec(postcard::Error),
    #[error("executor: {0}")]
    Engine(#[from] EngineError),
    #[error("executor: {0}")]
    Jail(#[from] JailError),
}

/// The verb `executor DIR`: serves until it is told to end, or is idle without a client. To be called before any thread is started; standard
/// input is the listening socket.
#[must_use]
pub fn main(dir: &Path) -> ExitCode {
    jail::cell::sys::close_all_but_standard();
    match start(dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn start(dir: &Path) -> Result<(), ServeError> {
    let system = |tried| move |error| ServeError::System(tried, error);
    // A leader of a session already is where it shall be.
    let _ = rustix::process::setsid();
    let cores = available_parallelism().map_or(1, NonZero::get);
    let spec: StoredSpec =
        postcard::from_bytes(&std::fs::read(dir.join(place::SPEC)).map_err(system("reading `spec`"))?).map_err(ServeError::Spec)?;
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned().map_err(system("taking the socket from standard input"))?);
    listener.local_addr().and_then(|_| listener.set_nonblocking(true)).map_err(system("standard input is no listening socket"))?;
    // Before the jail: the pool and the watch look at /proc, and no task has had a word yet. It starts no thread, which the jail checks.
    let engine = Engine::new(spec.metering, &Sizing { tasks_max: spec.tasks_max })?;
    let obtained = engine.obtained().clone();
    let (watch, session) = if spec.idle { (Watch::open(), Session::open()) } else { (None, None) };
    let mut weaknesses =
        jail::enter(&Confinement { uid: spec.uid, readable: spec.readable, writable: vec![dir.into()], ..Confinement::default() })?;
    weaknesses.extend(obtained.reason.clone());
    abort_on_panic();
    let record = RecordLog::create(dir).map_err(system("making `tasks.log`"))?;
    let hello = HelloReply {
        version: wire::VERSION,
        pid: std::process::id(),
        metering: Some(spec.metering),
        tasks_max: spec.tasks_max,
        places: obtained.slots.min(spec.tasks_max),
        weaknesses,
    };
    let mut runtime = if cores > 1 { tokio::runtime::Builder::new_multi_thread() } else { tokio::runtime::Builder::new_current_thread() };
    let runtime = runtime.worker_threads(cores).enable_all().build().map_err(system("starting its threads"))?;
    if spec.idle {
        // By this thread: one that an idle one starts is idle, and a guest that is to stop would not hear it.
        engine.ticker().map_err(system("starting its threads"))?;
    }
    let (idle, workers) = match spec.idle {
        true => Workers::start(cores, session)
            .map(|(runtime, workers)| (Some(runtime), Some(workers)))
            .map_err(system("starting its threads"))?,
        false => (None, None),
    };
    let keepers = workers.clone().zip(watch);
    let tasks = Arc::new(Tasks::new(engine, record, Logs::new(dir), (spec.tasks_max, spec.memory_bytes_max), workers));
    if let Some((workers, watch)) = keepers {
        let tasks = Arc::clone(&tasks);
        runtime.spawn(workers.keep_apart(watch, move || !tasks.book().live.is_empty()));
    }
    // On a worker, not on this thread, so that what ends is told without a change of thread.
    let served = runtime.block_on(async move {
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let (connections, arrivals) = connection::accept(listener, hello, spec.owner);
        let told = tokio::spawn(teller::tell(tasks, arrivals)).await;
        connections.abort();
        told.map_err(io::Error::other)
    });
    idle.into_iter().chain([runtime]).for_each(tokio::runtime::Runtime::shutdown_background);
    served.map_err(system("serving"))
}

/// A panic may leave the engine's memory in any state, which all tasks share: the process goes, and its tasks are lost. So an error log also
/// holds one panic at most.
fn abort_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
}
