//! What an executor holds: tasks from the moment that they are taken until their end is forgotten. Runs them; what happens to them is left
//! for the teller, which alone changes them from live to ended.

use super::asks::Asks;
use super::workers::Workers;
use crate::executor::ExecutorEvent;
use crate::executor::lease::{LOOK_EVERY, Lease};
use crate::executor::logs::{Logs, TaskLog};
use crate::executor::record::{Record, RecordLog};
use crate::executor::wire::{Command, USED_MAX, Used};
use crate::wasm::{Control, Engine, Output, Prepared};
use crate::{Exit, Key, Launch, Plan, Start, Stream, Usage};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// So many events are told at once, even while a batch is being started.
const EVENTS_AT_ONCE: usize = 1_024;
/// So long a waiting event is kept back for others of its batch; looked at when something happens, not by a timer.
const TELL_WITHIN: Duration = Duration::from_millis(2);
/// Most ends that are kept; at the limit new tasks are refused until some are forgotten.
const ENDED_MAX: usize = 1 << 20;
/// Longest reason kept, in bytes.
const REASON_BYTES_MAX: usize = 512;
/// How long a record that could not be written waits for the next try.
pub(super) const RECORD_AGAIN: Duration = Duration::from_millis(200);

pub(super) struct Tasks {
    pub(super) engine: Engine,
    /// Where tasks run, where they are idle.
    pub(super) workers: Option<Workers>,
    logs: Logs,
    tasks_max: usize,
    pub(super) memory_bytes_max: u64,
    pub(super) asks: Asks,
    pub(super) record: Mutex<RecordLog>,
    pub(super) held: Mutex<Book>,
    waiting: Mutex<Waiting>,
    /// Tasks that were spawned and did not run for a first time yet. While there are some, what ends is kept back, to be told together.
    unpolled: AtomicUsize,
    /// Something is to be told, or else to be done, by the teller.
    pub(super) wake: Notify,
    pub(super) retired: AtomicBool,
    pub(super) quit: AtomicBool,
    /// The client wants to know what tasks use.
    pub(super) usage_wanted: AtomicBool,
}

/// All that is held.
#[derive(Default)]
pub(super) struct Book {
    pub(super) live: HashMap<Key, Live>,
    pub(super) ended: HashMap<Key, (Exit, Usage)>,
}

/// A task that did not end.
pub(super) struct Live {
    pub(super) since_ms: Option<u64>,
    pub(super) task: Arc<Task>,
    kill_at: Option<Instant>,
}

/// What a task and those who watch it share.
pub(super) struct Task {
    key: Key,
    pub(super) control: Control,
    log: Arc<TaskLog>,
    /// Of one that is fenced.
    lease: Option<Lease>,
    /// 0 until it starts.
    since_ms: AtomicU64,
    /// It has no way to learn that it is to stop.
    deaf: AtomicBool,
    /// What was told last of the time that it used, in microseconds.
    told_us: AtomicU64,
    /// It is among [`Waiting::progress`].
    progressed: AtomicBool,
}

/// A task that was booked, and how it is to be started.
type Taken = (Start, Arc<Task>);

/// What the teller takes.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) events: Vec<ExecutorEvent>,
    oldest: Option<Instant>,
    /// Tasks whose progress changed; told now and then, since a task may say it all the time.
    pub(super) progress: Vec<Arc<Task>>,
}

/// A task's own way to the outside.
struct Outlet {
    tasks: Arc<Tasks>,
    task: Arc<Task>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tasks {
    pub(super) fn new(
        engine: Engine,
        record: RecordLog,
        logs: Logs,
        (tasks_max, memory_bytes_max): (u32, u64),
        workers: Option<Workers>,
    ) -> Self {
        Self {
            engine,
            workers,
            logs,
            tasks_max: tasks_max as usize,
            memory_bytes_max,
            asks: Asks::default(),
            record: Mutex::new(record),
            held: Mutex::default(),
            waiting: Mutex::default(),
            unpolled: AtomicUsize::new(0),
            wake: Notify::new(),
            retired: AtomicBool::new(false),
            quit: AtomicBool::new(false),
            usage_wanted: AtomicBool::new(false),
        }
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        locked(&self.held)
    }

    /// Does what the client says. Never waits, so a client that leaves leaves nothing half done.
    pub(super) fn obey(self: &Arc<Self>, command: Command) {
        match command {
            Command::Launch(launch) => self.launch(*launch, None),
            Command::LaunchFenced(launch, until_ns) => self.launch(*launch, Some(until_ns)),
            Command::Renew { keys, until_ns } => {
                let book = self.book();
                let leases = keys.iter().filter_map(|key| book.live.get(key)?.task.lease.as_ref());
                leases.for_each(|lease| lease.renew(until_ns));
            }
            Command::Stop { keys, grace_ms } => self.stop(&keys, Duration::from_millis(grace_ms)),
            Command::Forget(keys) => {
                let mut book = self.book();
                keys.iter().for_each(|key| _ = book.ended.remove(key));
                drop(book);
                self.wake.notify_one();
            }
            Command::Message { key, bytes } => {
                let task = self.book().live.get(&key).map(|live| Arc::clone(&live.task));
                task.into_iter().for_each(|task| task.control.hear(bytes.to_vec()));
            }
            Command::Ask(ask) => self.ask(*ask),
            Command::Retire => {
                self.retired.store(true, Ordering::SeqCst);
                self.wake.notify_one();
            }
            Command::Quit => {
                self.quit.store(true, Ordering::SeqCst);
                self.wake.notify_one();
            }
            Command::Usage => {
                self.usage_wanted.store(true, Ordering::SeqCst);
                self.wake.notify_one();
            }
        }
    }

    fn launch(self: &Arc<Self>, launch: Launch, until_ns: Option<u64>) {
        let Launch { plan, starts } = launch;
        let (taken, refused) = self.take(starts, &plan, until_ns);
        taken.iter().filter(|_| until_ns.is_some()).for_each(|(_, task)| guard(task));
        refused.into_iter().for_each(|(key, reason)| self.push(rejected(key, reason)));
        if taken.is_empty() {
            return;
        }
        let record = Record::Taken(taken.iter().map(|(start, _)| start.key).collect());
        if locked(&self.record).append(&record).is_ok() {
            return self.start(plan, taken);
        }
        // A full disk. Nothing runs that is not on record: these wait, and the client's next words are heard.
        let tasks = Arc::clone(self);
        tokio::spawn(async move {
            while locked(&tasks.record).append(&record).is_err() {
                tokio::time::sleep(RECORD_AGAIN).await;
            }
            tasks.start(plan, taken);
        });
    }

    fn start(self: &Arc<Self>, plan: Plan, taken: Vec<Taken>) {
        match self.engine.prepare(Arc::new(plan)) {
            Ok(prepared) => {
                // All of them first, so that none of the batch is told before all had their turn.
                self.unpolled.fetch_add(taken.len(), Ordering::SeqCst);
                for (start, task) in taken {
                    let running = run(Arc::clone(self), Arc::clone(&prepared), start, task);
                    match &self.workers {
                        Some(workers) => workers.spawn(running),
                        None => drop(tokio::spawn(running)),
                    }
                }
            }
            Err(error) => {
                let reason = error.to_string();
                taken.into_iter().for_each(|(start, _)| self.push(rejected(start.key, reason.clone())));
            }
        }
    }

    /// Books those that are new and fit. The others: with the reason.
    fn take(&self, starts: Vec<Start>, plan: &Plan, until_ns: Option<u64>) -> (Vec<Taken>, Vec<(Key, String)>) {
        let (mut taken, mut refused) = (Vec::with_capacity(starts.len()), vec![]);
        let mut book = self.book();
        for start in starts {
            let key = start.key;
            if book.live.contains_key(&key) || book.ended.contains_key(&key) {
                continue;
            }
            if self.retired.load(Ordering::SeqCst) {
                refused.push((key, "its executor takes no new tasks".into()));
            } else if plan.limits.memory_bytes_max > self.memory_bytes_max {
                refused.push((
                    key,
                    format!(
                        "it may have {} bytes of memory, and its executor grants {}",
                        plan.limits.memory_bytes_max, self.memory_bytes_max
                    ),
                ));
            } else if book.live.len() >= self.tasks_max {
                refused.push((key, format!("its executor holds {} tasks, the most it may", self.tasks_max)));
            } else if book.ended.len() >= ENDED_MAX {
                refused.push((key, format!("its executor holds {ENDED_MAX} ends that are not forgotten, the most it may")));
            } else {
                let (log, control) = (self.logs.task(key, plan.limits.log_bytes_max), Control::new());
                let task = Arc::new(Task {
                    key,
                    control,
                    log,
                    lease: until_ns.map(Lease::new),
                    since_ms: AtomicU64::new(0),
                    deaf: AtomicBool::new(false),
                    told_us: AtomicU64::new(0),
                    progressed: AtomicBool::new(false),
                });
                book.live.insert(key, Live { since_ms: None, task: Arc::clone(&task), kill_at: None });
                taken.push((start, task));
            }
        }
        (taken, refused)
    }

    fn stop(&self, keys: &[Key], grace: Duration) {
        let now = Instant::now();
        // So far away that nobody waits for it.
        let at = now.checked_add(grace).unwrap_or(now + Duration::from_secs(u64::from(u32::MAX)));
        let mut later = vec![];
        let mut book = self.book();
        for key in keys {
            let Some(live) = book.live.get_mut(key) else { continue };
            live.task.control.stop();
            // One that did not start has nothing to finish, and one that cannot hear of it never would.
            let late = live.task.since_ms.load(Ordering::SeqCst) == 0 || live.task.deaf.load(Ordering::SeqCst);
            if grace.is_zero() || late {
                live.task.control.kill();
            } else if live.kill_at.is_none_or(|earlier| at < earlier) {
                live.kill_at = Some(at);
                later.push(Arc::clone(&live.task));
            }
        }
        drop(book);
        self.workers.iter().for_each(Workers::hurry);
        if !later.is_empty() {
            tokio::spawn(async move {
                tokio::time::sleep_until(at.into()).await;
                later.iter().for_each(|task| task.control.kill());
            });
        }
    }

    /// What those use that run, of many those that matter most.
    pub(super) fn used(&self) -> Vec<Used> {
        let book = self.book();
        let mut all: Vec<(u64, Used)> = Vec::with_capacity(book.live.len());
        for (key, live) in book.live.iter().filter(|(_, live)| live.since_ms.is_some()) {
            let (cpu_us, memory_bytes) = live.task.control.used();
            let since_us = cpu_us.saturating_sub(live.task.told_us.swap(cpu_us, Ordering::Relaxed));
            all.push((since_us, Used { key: *key, cpu_us, memory_bytes }));
        }
        drop(book);
        if all.len() > USED_MAX {
            all.select_nth_unstable_by_key(USED_MAX, |(since_us, used)| Reverse((*since_us, used.memory_bytes)));
            all.truncate(USED_MAX);
        }
        all.into_iter().map(|(_, used)| used).collect()
    }

    /// Leaves an event for the teller, and wakes it unless more of the same batch is about to come.
    fn push(&self, event: ExecutorEvent) {
        let mut waiting = locked(&self.waiting);
        let oldest = *waiting.oldest.get_or_insert_with(Instant::now);
        waiting.events.push(event);
        let due = waiting.events.len() >= EVENTS_AT_ONCE || oldest.elapsed() >= TELL_WITHIN;
        drop(waiting);
        if due || self.unpolled.load(Ordering::SeqCst) == 0 {
            self.wake.notify_one();
        }
    }

    fn polled(&self) {
        let last = self.unpolled.fetch_sub(1, Ordering::SeqCst) == 1;
        let waiting = locked(&self.waiting);
        let due = waiting.oldest.is_some_and(|oldest| last || oldest.elapsed() >= TELL_WITHIN);
        drop(waiting);
        if due {
            self.wake.notify_one();
        }
    }

    pub(super) fn take_events(&self) -> Vec<ExecutorEvent> {
        let mut waiting = locked(&self.waiting);
        waiting.oldest = None;
        std::mem::take(&mut waiting.events)
    }

    pub(super) fn has_progress(&self) -> bool {
        !locked(&self.waiting).progress.is_empty()
    }

    /// The latest progress of each task that said some.
    pub(super) fn take_progress(&self) -> Vec<ExecutorEvent> {
        let tasks = std::mem::take(&mut locked(&self.waiting).progress);
        let said = tasks.iter().filter_map(|task| {
            task.progressed.store(false, Ordering::SeqCst);
            let progress = task.control.progress()?;
            Some(ExecutorEvent::Progress { key: task.key, percent: progress.percent, note: progress.note })
        });
        said.collect()
    }
}

impl Task {
    /// True where its lease is over, and it with it.
    fn is_over(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.left().is_none())
    }
}

/// Ends a fenced task when its lease is over.
fn guard(task: &Arc<Task>) {
    if task.is_over() {
        return task.control.kill(); // Before its first turn.
    }
    let task = Arc::downgrade(task);
    tokio::spawn(async move {
        while let Some(task) = task.upgrade() {
            let Some(left) = task.lease.as_ref().and_then(Lease::left) else { return task.control.kill() };
            drop(task);
            tokio::time::sleep(left.min(LOOK_EVERY)).await;
        }
    });
}

impl Output for Outlet {
    fn write(&self, stream: Stream, bytes: &[u8]) {
        // The machine may have stood still in the middle of a turn of it: nothing that it does then is seen.
        if self.task.is_over() {
            return;
        }
        self.tasks.logs.write(&self.task.log, stream, bytes);
    }

    fn started(&self) {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        self.task.since_ms.store(now_ms.max(1), Ordering::SeqCst);
    }

    fn progressed(&self) {
        if !self.task.is_over() && !self.task.progressed.swap(true, Ordering::SeqCst) {
            let mut waiting = locked(&self.tasks.waiting);
            waiting.progress.push(Arc::clone(&self.task));
            let first = waiting.progress.len() == 1;
            drop(waiting);
            if first {
                self.tasks.wake.notify_one();
            }
        }
    }
}

/// Says at its end that its task had its first turn.
struct FirstTurn(Arc<Tasks>);

impl Drop for FirstTurn {
    fn drop(&mut self) {
        self.0.polled();
    }
}

/// One task from its first turn to its end. Told as started only where it did not end in that turn.
async fn run(tasks: Arc<Tasks>, prepared: Arc<Prepared>, start: Start, task: Arc<Task>) {
    let mut first = Some(FirstTurn(Arc::clone(&tasks)));
    task.deaf.store(!prepared.hears(), Ordering::SeqCst);
    let output = Arc::new(Outlet { tasks: Arc::clone(&tasks), task: Arc::clone(&task) });
    let mut running = pin!(tasks.engine.run(&prepared, &start, output, &task.control));
    let mut told = false;
    let (exit, usage) = poll_fn(|context| {
        let polled = running.as_mut().poll(context);
        if polled.is_pending() {
            if !told {
                let since_ms = task.since_ms.load(Ordering::SeqCst);
                told = since_ms > 0;
                if told {
                    tasks.push(ExecutorEvent::Started { key: task.key, since_ms });
                }
            }
            first = None;
            return Poll::Pending;
        }
        polled
    })
    .await;
    tasks.logs.end(&task.log);
    let exit = match bounded(exit) {
        _ if task.is_over() => Exit::LeaseOver,
        _ if task.control.is_stopping() => Exit::Killed,
        exit => exit,
    };
    let messages = task.control.dropped();
    if messages > 0 {
        tasks.push(ExecutorEvent::Dropped { key: task.key, messages });
    }
    tasks.push(ExecutorEvent::Ended { key: task.key, exit, usage });
    drop(first);
}

fn rejected(key: Key, reason: String) -> ExecutorEvent {
    ExecutorEvent::Ended { key, exit: bounded(Exit::Rejected { reason }), usage: Usage::default() }
}

fn bounded(mut exit: Exit) -> Exit {
    if let Exit::Rejected { reason } | Exit::Trap { reason } = &mut exit {
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    }
    exit
}
