//! Messages of its framework that wait for one wasm task.

use crate::messages::Messages;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Bytes that wait for all tasks of one engine: at the limit what comes is dropped, so that tasks which never take any cost no more together.
const ALL_BYTES_MAX: usize = 64 << 20;

/// Bytes that wait for all tasks of one engine.
#[derive(Clone, Default)]
pub struct Room(Arc<AtomicUsize>);

/// What waits for one of them.
pub struct Inbox {
    room: Room,
    messages: Mutex<Messages>,
    /// Something came, or there is no more to wait for.
    stirred: Notify,
}

impl Inbox {
    /// An empty one.
    pub fn new(room: Room) -> Self {
        Self { room, messages: Mutex::default(), stirred: Notify::new() }
    }

    /// Takes a message in.
    pub fn hear(&self, message: Vec<u8>) {
        let mut messages = self.messages();
        let before = messages.bytes();
        // One thread has all that is said to this executor, so two do not pass the limit together.
        if self.room.0.load(Ordering::Relaxed) + message.len() > ALL_BYTES_MAX {
            messages.drop_new();
        } else {
            messages.push(message);
        }
        self.count(before, messages.bytes());
        drop(messages);
        self.stir();
    }

    /// The oldest message.
    pub fn take(&self) -> Option<Vec<u8>> {
        let mut messages = self.messages();
        let before = messages.bytes();
        let message = messages.take();
        self.count(before, messages.bytes());
        message
    }

    /// Whoever waits looks again.
    pub fn stir(&self) {
        self.stirred.notify_one();
    }

    /// Waits until there is a reason to look again; for one waiter.
    pub async fn stirred(&self) {
        self.stirred.notified().await;
    }

    /// How many were dropped.
    pub fn dropped(&self) -> u64 {
        self.messages().dropped()
    }

    fn count(&self, before: usize, after: usize) {
        self.room.0.fetch_add(after.saturating_sub(before), Ordering::Relaxed);
        self.room.0.fetch_sub(before.saturating_sub(after), Ordering::Relaxed);
    }

    fn messages(&self) -> MutexGuard<'_, Messages> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let left = self.messages().bytes();
        self.count(left, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::WAITING_BYTES_MAX;

    #[test]
    fn tasks_that_take_nothing_have_a_bound_together_and_those_that_end_give_it_back() {
        let room = Room::default();
        let full = |room: &Room| {
            let inbox = Inbox::new(room.clone());
            (0..4).for_each(|_| inbox.hear(vec![0; WAITING_BYTES_MAX / 4]));
            inbox
        };
        let mut all: Vec<Inbox> = (0..ALL_BYTES_MAX / WAITING_BYTES_MAX).map(|_| full(&room)).collect();
        assert!(all.iter().all(|inbox| inbox.dropped() == 0));
        let late = full(&room);
        assert_eq!((late.dropped(), late.take()), (4, None));
        all[0].hear(vec![0]);
        assert_eq!((all[0].dropped(), all[0].messages().bytes()), (1, WAITING_BYTES_MAX), "nothing is moved for what has no place");
        assert_eq!(all[0].take().map(|message| message.len()), Some(WAITING_BYTES_MAX / 4));
        late.hear(vec![7]);
        assert_eq!(late.take(), Some(vec![7]));
        all.clear();
        assert_eq!(room.0.load(Ordering::Relaxed), 0);
    }
}
