//! What the executor and a running task tell each other: stop and kill one way; output and progress the other.

use crate::Stream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// Most bytes of a progress note that are kept.
pub const NOTE_BYTES_MAX: usize = 256;

/// Where a task's output goes. Called on the threads that run tasks, so neither may wait for anything slower than the page cache.
pub trait Output: Send + Sync {
    /// Takes `bytes` (never empty, any length) that the task wrote; the first call is the first byte of the task.
    fn write(&self, stream: Stream, bytes: &[u8]);

    /// The task has its slot and starts now. Never called for one that ends while it waits.
    fn started(&self) {}

    /// The task said how far it is; [`Control::progress`] has what it said. Called at each change, so keep it cheap.
    fn progressed(&self) {}
}

/// How far a task says that it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// 0 to 100.
    pub percent: u8,
    /// At most [`NOTE_BYTES_MAX`] bytes, without control characters.
    pub note: String,
}

/// The executor's hold on one running task; clones are the same hold.
#[derive(Clone, Default)]
pub struct Control(Arc<Inner>);

#[derive(Default)]
struct Inner {
    stopping: AtomicBool,
    killed: AtomicBool,
    kill: Notify,
    progress: Mutex<Option<Progress>>,
    /// Nanoseconds of running time so far, and when the current slice began; see `limits::Slices`.
    ran_ns: AtomicU64,
    slice_start_ns: AtomicU64,
}

impl Control {
    /// A hold on a task that is yet to run.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the task to stop: `skep:task/context.stopping` says so from now on. Whether it does is its affair.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::Relaxed);
    }

    /// Ends the task at its next host call or yield, also while it waits; it ends as [`crate::Exit::Killed`].
    pub fn kill(&self) {
        self.0.killed.store(true, Ordering::SeqCst);
        self.0.kill.notify_one();
    }

    /// True after [`Control::stop`] or [`Control::kill`].
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Relaxed) || self.0.killed.load(Ordering::SeqCst)
    }

    /// What the task said last of how far it is; `None` while it said nothing.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        self.0.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
