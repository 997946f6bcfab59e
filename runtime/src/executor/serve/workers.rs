//! Threads for tasks that run only while nothing else wants the processor. The executor's own threads are as any others: it hears at once that a task is
//! to stop, and has these hurry for a moment, since one that is given no processor could not stop either.

use crate::executor::apart::{LOOK_EACH, Watch};
use crate::jail::cell::sys::{self, Session};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::{MissedTickBehavior, interval};

/// For how long they run as any other threads once a task is to stop.
const HURRY: Duration = Duration::from_millis(1_000);

/// They.
#[derive(Clone)]
pub(super) struct Workers {
    handle: Handle,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// How many there are for tasks; what blocks has others.
    count: usize,
    threads: Vec<Pid>,
    /// How often they were told to hurry, and whether they do.
    hurries: u64,
    hurry: bool,
    /// Where they run, if not where all do.
    place: Option<Vec<usize>>,
    /// The executor's, where the kernel looks at sessions first.
    session: Option<Session>,
}

impl Workers {
    /// So many threads, and the runtime that ends them.
    pub(super) fn start(count: usize, session: Option<Session>) -> io::Result<(Runtime, Self)> {
        let state = Arc::new(Mutex::new(State { count, session, ..State::default() }));
        lock(&state).settle_session();
        let (begun, over) = (Arc::clone(&state), Arc::clone(&state));
        let begin = move || {
            let mut state = lock(&begun);
            state.threads.push(rustix::thread::gettid());
            state.settle(state.threads.len() - 1);
        };
        // The number of one that has ended may soon be another's.
        let end = move || lock(&over).threads.retain(|thread| *thread != rustix::thread::gettid());
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(count).enable_all().on_thread_start(begin).on_thread_stop(end).build()?;
        let workers = Self { handle: runtime.handle().clone(), state };
        Ok((runtime, workers))
    }

    /// Runs a task on them.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(task);
    }

    /// Has them run where others do not need the processors, as long as `is_busy` says that there is something to run. On a thread that is not one of
    /// them; ends with its runtime.
    pub(super) async fn keep_apart(self, mut watch: Watch, is_busy: impl Fn() -> bool) {
        let mut looks = interval(LOOK_EACH);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if let Some(place) = is_busy().then(|| watch.look()).flatten() {
                let mut state = lock(&self.state);
                state.place = Some(place);
                state.settle_all();
            }
        }
    }

    /// Has them run as any other threads for a moment. Without root that takes a limit (`RLIMIT_NICE`) that the machine gives; without it they come to
    /// their end when there is a processor.
    pub(super) fn hurry(&self) {
        let hurry = {
            let mut state = lock(&self.state);
            (state.hurries, state.hurry) = (state.hurries + 1, true);
            state.settle_session();
            state.settle_all();
            state.hurries
        };
        let workers = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(HURRY).await;
            let mut state = lock(&workers.state);
            if state.hurries == hurry {
                state.hurry = false;
                state.settle_session();
                state.settle_all();
            }
        });
    }
}

impl State {
    fn settle_all(&self) {
        (0..self.threads.len()).for_each(|nth| self.settle(nth));
    }

    /// Where the kernel has no time for it, the session stays as it is until the next time.
    fn settle_session(&self) {
        let _ = self.session.as_ref().map(|session| session.set_idle(!self.hurry));
    }

    /// Where it cannot, a thread runs as it did.
    fn settle(&self, nth: usize) {
        let thread = Some(self.threads[nth]);
        if let Some(place) = &self.place {
            // Of those that are idle the kernel may leave two on one processor beside another that does nothing.
            let own = place.get(nth).filter(|_| place.len() >= self.count);
            let _ = sched_setaffinity(thread, &own.map_or_else(|| set(place), |own| set(&[*own])));
        }
        let _ = sys::set_idle(thread, !self.hurry);
    }
}

fn set(processors: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    processors.iter().for_each(|processor| set.set(*processor));
    set
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
