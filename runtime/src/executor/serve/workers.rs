//! Threads for tasks that run only while nothing else wants the processor. The executor's own threads are as any others: it hears at once that a task is
//! to stop, and has these hurry for a moment, since one that is given no processor could not stop either.

use crate::jail::cell::sys;
use rustix::process::Pid;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};

/// For how long they run as any other threads once a task is to stop.
const HURRY: Duration = Duration::from_millis(1_000);

/// They.
#[derive(Clone)]
pub(super) struct Workers {
    handle: Handle,
    threads: Arc<Mutex<Vec<Pid>>>,
    /// How often they were told to hurry.
    hurries: Arc<AtomicU64>,
}

impl Workers {
    /// So many threads, and the runtime that ends them.
    pub(super) fn start(count: usize) -> io::Result<(Runtime, Self)> {
        let threads: Arc<Mutex<Vec<Pid>>> = Arc::default();
        let begun = Arc::clone(&threads);
        let idle = move || {
            let thread = rustix::thread::gettid();
            begun.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
            let _ = sys::set_idle(Some(thread), true); // Where it cannot, it takes a share as any other.
        };
        let runtime = Builder::new_multi_thread().worker_threads(count).enable_all().on_thread_start(idle).build()?;
        let workers = Self { handle: runtime.handle().clone(), threads, hurries: Arc::default() };
        Ok((runtime, workers))
    }

    /// Runs a task on them.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(task);
    }

    /// Has them run as any other threads for a moment. Without root that takes a limit (`RLIMIT_NICE`) that the machine gives; without it they come to
    /// their end when there is a processor.
    pub(super) fn hurry(&self) {
        let hurry = self.hurries.fetch_add(1, Ordering::SeqCst) + 1;
        self.set_idle(false);
        let workers = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(HURRY).await;
            if workers.hurries.load(Ordering::SeqCst) == hurry {
                workers.set_idle(true);
            }
        });
    }

    fn set_idle(&self, idle: bool) {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.iter().for_each(|thread| _ = sys::set_idle(Some(*thread), idle)); // One that has ended has no policy.
    }
}
