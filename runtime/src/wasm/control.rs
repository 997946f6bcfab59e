//! What the executor and a running task tell each other: stop and kill one way; output and progress the other.

use super::inbox::{Inbox, Room};
use crate::Stream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// A task that moved so many bytes through host calls gives its thread to others before it moves more: fuel does not count them.
const MOVED_BYTES_MAX: u64 = 256 << 10;
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
    /// What its framework says, where it is one that may take that.
    inbox: OnceLock<Inbox>,
    /// Nanoseconds that it was on a thread, in slices that ended; where metering is by fuel, without the first.
    ran_ns: AtomicU64,
    /// Bytes of linear memory now.
    memory_bytes: AtomicU64,
    /// When the current slice began, in nanoseconds since [`origin`].
    slice_began_ns: AtomicU64,
    /// Bytes that host calls moved since the task last yielded.
    moved_bytes: AtomicU64,
}

/// The moment that running time is counted from: any, but one for all threads.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

fn nanoseconds(since: Duration) -> u64 {
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
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
        self.0.inbox.get().into_iter().for_each(Inbox::stir);
    }

    /// Ends the task at its next host call or yield, also while it waits; it ends as [`crate::Exit::Killed`].
    pub fn kill(&self) {
        self.0.killed.store(true, Ordering::SeqCst);
        self.0.kill.notify_one();
    }

    /// True after [`Control::stop`] or [`Control::kill`].
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Relaxed) || self.is_killed()
    }

    /// What the task said last of how far it is; `None` while it said nothing.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        self.0.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its framework says this. Passed over before it runs, and where it takes no messages.
    pub fn hear(&self, message: Vec<u8>) {
        if let Some(inbox) = self.0.inbox.get() {
            inbox.hear(message);
        }
    }

    /// How many messages were dropped because it did not take them in time.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.inbox.get().map_or(0, Inbox::dropped)
    }

    /// From now on messages wait for it, in this room.
    pub(super) fn listen(&self, room: &Room) {
        self.0.inbox.get_or_init(|| Inbox::new(room.clone()));
    }

    /// The next message, waited for until it is asked to stop; for one waiter.
    pub(super) async fn message(&self) -> Option<Vec<u8>> {
        let inbox = self.0.inbox.get()?;
        loop {
            match inbox.take() {
                None if self.is_stopping() => return None,
                None => inbox.stirred().await,
                message => return message,
            }
        }
    }

    /// The next message that is here.
    pub(super) fn message_here(&self) -> Option<Vec<u8>> {
        self.0.inbox.get()?.take()
    }

    /// True after [`Control::kill`].
    pub(super) fn is_killed(&self) -> bool {
        self.0.killed.load(Ordering::SeqCst)
    }

    /// Waits until [`Control::kill`]; for one waiter.
    pub(super) async fn killed(&self) {
        while !self.is_killed() {
            self.0.kill.notified().await;
        }
    }

    pub(super) fn tell(&self, percent: u8, note: &str) {
        let progress = Progress { percent: percent.min(100), note: printable(note, NOTE_BYTES_MAX) };
        *self.0.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
    }

    pub(super) fn slice_begins(&self, now: Instant) {
        let began = nanoseconds(now.saturating_duration_since(origin()));
        self.0.slice_began_ns.store(began, Ordering::Relaxed);
    }

    pub(super) fn slice_ends(&self, now: Instant) {
        let ran = self.ran(now);
        self.0.ran_ns.store(nanoseconds(ran), Ordering::Relaxed);
        self.slice_begins(now);
    }

    /// How long it was on a thread, the current slice included.
    pub(super) fn ran(&self, now: Instant) -> Duration {
        let began = Duration::from_nanos(self.0.slice_began_ns.load(Ordering::Relaxed));
        let slice = now.saturating_duration_since(origin()).saturating_sub(began);
        Duration::from_nanos(self.0.ran_ns.load(Ordering::Relaxed)).saturating_add(slice)
    }

    /// Microseconds that it was on a thread until now, in slices that ended, and bytes of its linear memories. Where metering is by fuel the first
    /// slice is not counted: for most tasks it is the only one, and too short for a clock.
    #[must_use]
    pub fn used(&self) -> (u64, u64) {
        (self.0.ran_ns.load(Ordering::Relaxed) / 1_000, self.0.memory_bytes.load(Ordering::Relaxed))
    }

    pub(super) fn has_memory(&self, bytes: u64) {
        self.0.memory_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Counts `bytes` that a host call moved.
    pub(super) fn moved(&self, bytes: usize) {
        self.0.moved_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// True while it has moved so much that it must yield before it moves more.
    pub(super) fn must_yield(&self) -> bool {
        self.0.moved_bytes.load(Ordering::Relaxed) >= MOVED_BYTES_MAX
    }

    /// Yields if it must.
    pub(super) async fn breathe(&self) {
        if self.must_yield() {
            self.0.moved_bytes.store(0, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    }
}

/// `text` up to `bytes_max` bytes, whole characters only, with a space for whatever a terminal would act on.
pub(super) fn printable(text: &str, bytes_max: usize) -> String {
    let mut kept = String::with_capacity(text.len().min(bytes_max));
    for letter in text.chars() {
        // Besides the control characters, those that turn the direction of text around them.
        let acts = letter.is_control() || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let letter = if acts { ' ' } else { letter };
        if kept.len() + letter.len_utf8() > bytes_max {
            break;
        }
        kept.push(letter);
    }
    kept
}
