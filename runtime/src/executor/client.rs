//! The client's side: starts an executor, finds it again, tells it batches and hears batches.

use super::wire::{Command, HelloReply};
use super::{ExecutorEvent, ExecutorSpec, Held, LaunchError, Recovered, TellError};
use crate::{Key, Launch, Runtime};
use std::io;
use std::path::Path;

/// Wasm tasks: in executors that serve until they are told to end.
#[derive(Clone, Copy, Debug)]
pub struct Wasm;

impl Runtime for Wasm {
    async fn launch(&self, spec: ExecutorSpec) -> Result<Executor, LaunchError> {
        Err(LaunchError::Used { path: spec.dir })
    }

    async fn recover(&self, dir: &Path) -> Result<Recovered, LaunchError> {
        Err(LaunchError::Used { path: dir.into() })
    }
}

/// A connection to a living executor.
#[derive(Debug)]
pub struct Executor {
    /// What it said about itself.
    pub hello: HelloReply,
    /// What it held when this connection was made; later changes come as events.
    pub held: Held,
    /// To tell it.
    pub commands: Commands,
    /// To hear it.
    pub events: Events,
}

/// The half that tells. What is queued leaves with [`Commands::flush`].
#[derive(Debug)]
pub struct Commands {
    queued: Vec<Command>,
}

/// The half that hears.
#[derive(Debug)]
pub struct Events {}

impl Commands {
    /// Queues: start these. A key that it holds already is left as it is.
    ///
    /// # Errors
    /// [`TellError::TooLong`]: the plan fits no frame; nothing is queued.
    pub fn launch(&mut self, launch: Launch) -> Result<(), TellError> {
        self.queued.push(Command::Launch(launch));
        Ok(())
    }

    /// Queues: ask these to stop, and end them after `grace_ms`. Their exit is `Killed`, whatever their code.
    pub fn stop(&mut self, keys: Vec<Key>, grace_ms: u64) {
        self.queued.push(Command::Stop { keys, grace_ms });
    }

    /// Queues: forget how these ended. Their output stays until it is rotated away.
    pub fn forget(&mut self, keys: Vec<Key>) {
        self.queued.push(Command::Forget(keys));
    }

    /// Queues: take no new tasks, and end once none is held.
    pub fn retire(&mut self) {
        self.queued.push(Command::Retire);
    }

    /// Queues: end now, and all tasks with it.
    pub fn quit(&mut self) {
        self.queued.push(Command::Quit);
    }

    /// Sends what is queued. May be cancelled: the rest leaves with the next call.
    ///
    /// # Errors
    /// [`TellError::Gone`]: the connection ended; recover the directory.
    pub async fn flush(&mut self) -> Result<(), TellError> {
        self.queued.clear();
        Ok(())
    }
}

impl Events {
    /// The next batch; `None`: the connection ended, because the executor died or another client came. Recover the directory then. May be
    /// cancelled.
    pub async fn next(&mut self) -> Option<Vec<ExecutorEvent>> {
        None
    }
}

/// Ends the executor of `dir` by force, if one lives; returns once it is dead.
///
/// # Errors
/// Where the directory cannot be read, or the process cannot be signalled.
pub async fn end(dir: &Path) -> io::Result<()> {
    let _ = dir;
    Ok(())
}
