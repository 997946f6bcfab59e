//! One export of a program, called in an instance of its own: what a task's health check asks. The instance has the task's arguments, environment and
//! configuration, sees nothing of the task that runs, and is gone afterwards.

use super::cache::Entry;
use super::control::{Control, Output, printable};
use super::engine::{Engine, Prepared};
use super::host::Task;
use super::limits::{Sliced, Timed};
use super::run::{bounded, exit_of};
use crate::{Exit, Start, Stream};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use wasmtime::component::Val as ComponentVal;
use wasmtime::{Extern, Store, Val};

/// Most bytes of an answer.
pub const ANSWER_BYTES_MAX: usize = 256;

/// What the instance printed last.
#[derive(Default)]
struct Last(Mutex<Vec<u8>>);

impl Output for Last {
    fn write(&self, _: Stream, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(&bytes[bytes.len().saturating_sub(ANSWER_BYTES_MAX)..]);
        let over = kept.len().saturating_sub(ANSWER_BYTES_MAX);
        kept.drain(..over);
    }
}

impl Engine {
    /// Calls `export` of a program as `start` would have it, within the limits of its plan; `wait` is how long it may take, a slot included.
    ///
    /// # Errors
    /// Why it says that it is not well, or could not be asked, for people: at most [`ANSWER_BYTES_MAX`] bytes.
    pub async fn ask(&self, prepared: &Arc<Prepared>, start: &Start, export: &str, wait: Duration) -> Result<(), String> {
        let output = Arc::new(Last::default());
        let asked = self.ask_in(prepared, start, export, Instant::now().checked_add(wait), output.clone());
        let answer =
            tokio::time::timeout(wait, asked).await.unwrap_or_else(|_| Err(format!("no answer of {export} in {} ms", wait.as_millis())));
        answer.map_err(|reason| {
            let printed = output.0.lock().unwrap_or_else(PoisonError::into_inner);
            let printed = String::from_utf8_lossy(&printed);
            let line = printed.trim_end().rsplit('\n').next().unwrap_or_default();
            let reason = if line.is_empty() { reason } else { format!("{reason}: {line}") };
            printable(&reason, ANSWER_BYTES_MAX)
        })
    }

    async fn ask_in(
        &self,
        prepared: &Arc<Prepared>,
        start: &Start,
        export: &str,
        deadline: Option<Instant>,
        output: Arc<dyn Output>,
    ) -> Result<(), String> {
        // Declared before the store, so dropped after it: a slot is free when its store is gone.
        let _slot = self.slots.acquire_many(prepared.loaded.slots).await.expect("the semaphore is never closed");
        let ticker = self.ticker().map_err(|error| format!("no thread for the clock of its running time: {error}"))?;
        let (limits, control) = (&prepared.plan.limits, Control::new());
        let task = Task::new(Arc::clone(prepared), start.clone(), output, control.clone(), deadline);
        let mut store = Store::new(&self.engines.engine, task);
        self.limit(&mut store, limits, limits.fuel_max.unwrap_or(u64::MAX));
        let ended = {
            let mut guest = pin!(call(&mut store, export));
            match ticker {
                None => bounded(pin!(Timed { guest: guest.as_mut(), control: &control, turned: false }), &control, deadline).await,
                Some(ticker) => bounded(pin!(Sliced { guest: guest.as_mut(), control: &control, ticker }), &control, deadline).await,
            }
        };
        match ended {
            Ok(Ok(answer)) => answer.map_err(|said| format!("{export} says {said}")),
            Ok(Err(error)) => Err(match exit_of(&error, &mut store) {
                Exit::Trap { reason } => format!("{export}: {reason}"),
                Exit::Code(0) => return Ok(()), // It has ended its own instance, and well.
                Exit::Code(code) => format!("{export}: exit code {code}"),
                Exit::OutOfFuel { limit } => format!("{export}: out of fuel: it may execute {limit} instructions"),
                Exit::OutOfMemory { limit_bytes, .. } => format!("{export}: out of memory: it may have {limit_bytes} bytes"),
                other => format!("{export}: {other:?}"),
            }),
            Err(_) => Err(format!("no answer of {export} in time")),
        }
    }
}

/// Calls it; the inner error is its own word.
async fn call(store: &mut Store<Task>, export: &str) -> wasmtime::Result<Result<(), String>> {
    let loaded = Arc::clone(&store.data().prepared.loaded);
    match &loaded.entry {
        Entry::Core(program, _) => {
            let instance = program.instantiate_async(&mut *store).await?;
            let Some(Extern::Func(asked)) = instance.get_export(&mut *store, export) else {
                return Ok(Err("nothing: there is no such export".into()));
            };
            let shape = asked.ty(&*store);
            let good = shape.params().len() == 0 && shape.results().len() <= 1 && shape.results().all(|result| result.is_i32());
            if !good {
                return Ok(Err("nothing: it is no function without parameters that gives nothing or an i32".into()));
            }
            let mut results = vec![Val::I32(0); shape.results().len()];
            asked.call_async(&mut *store, &[], &mut results).await?;
            Ok(match results.first() {
                Some(Val::I32(code)) if *code != 0 => Err(code.to_string()),
                _ => Ok(()),
            })
        }
        Entry::Component(program) => {
            let instance = program.instance_pre().instantiate_async(&mut *store).await?;
            let Some(asked) = instance.get_func(&mut *store, export) else { return Ok(Err("nothing: there is no such export".into())) };
            let shape = asked.ty(&*store);
            let results_count = shape.results().len();
            if shape.params().len() > 0 || results_count > 1 {
                return Ok(Err("nothing: it is no function without parameters that gives nothing, a bool or a result".into()));
            }
            let mut results = vec![ComponentVal::Bool(true); results_count];
            asked.call_async(&mut *store, &[], &mut results).await?;
            Ok(match results.first() {
                None | Some(ComponentVal::Bool(true) | ComponentVal::Result(Ok(_))) => Ok(()),
                Some(ComponentVal::Bool(false)) => Err("no".into()),
                Some(ComponentVal::Result(Err(Some(said)))) => Err(match &**said {
                    ComponentVal::String(said) => printable(said, ANSWER_BYTES_MAX),
                    other => printable(&format!("{other:?}"), ANSWER_BYTES_MAX),
                }),
                Some(ComponentVal::Result(Err(None))) => Err("an error".into()),
                Some(_) => Err("something that is no bool and no result".into()),
            })
        }
    }
}
