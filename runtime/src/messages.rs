//! Messages that wait for a task to take them, in order. Bounded, whoever sends and whether or not the task ever takes one: at the bound the oldest are
//! dropped and counted.

use std::collections::VecDeque;

/// Most messages that wait for one task.
pub const WAITING_MAX: usize = 64;
/// Most bytes of them together.
pub const WAITING_BYTES_MAX: usize = 256 << 10;

/// They.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    dropped: u64,
}

impl Messages {
    /// One more, which is dropped itself where it is longer than all may be.
    pub fn push(&mut self, message: Vec<u8>) {
        if message.len() > WAITING_BYTES_MAX {
            return self.drop_new();
        }
        while self.waiting.len() >= WAITING_MAX || self.bytes + message.len() > WAITING_BYTES_MAX {
            let oldest = self.waiting.pop_front().expect("what is over a bound is not empty");
            self.bytes -= oldest.len();
            self.dropped += 1;
        }
        self.bytes += message.len();
        self.waiting.push_back(message);
    }

    /// One more was not taken in.
    pub fn drop_new(&mut self) {
        self.dropped += 1;
    }

    /// The oldest.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        let message = self.waiting.pop_front()?;
        self.bytes -= message.len();
        Some(message)
    }

    /// Nobody takes any of them, and none that comes.
    pub fn drop_all(&mut self) {
        self.dropped += self.waiting.len() as u64;
        self.waiting = VecDeque::new();
        self.bytes = 0;
    }

    /// Bytes of all that wait.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many were dropped.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(messages: &mut Messages) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| messages.take()).collect()
    }

    #[test]
    fn of_too_many_messages_the_oldest_are_dropped_and_counted() {
        let mut messages = Messages::default();
        (0..WAITING_MAX + 3).for_each(|n| messages.push(n.to_be_bytes().to_vec()));
        assert_eq!((messages.dropped(), messages.bytes()), (3, WAITING_MAX * 8));
        assert_eq!(all(&mut messages), (3..WAITING_MAX + 3).map(|n| n.to_be_bytes().to_vec()).collect::<Vec<_>>());
        assert_eq!((messages.dropped(), messages.bytes(), messages.take()), (3, 0, None));
    }

    #[test]
    fn of_too_many_bytes_the_oldest_are_dropped_until_the_next_fits() {
        let mut messages = Messages::default();
        let most = WAITING_BYTES_MAX / 4;
        (0..4).for_each(|n| messages.push(vec![n; most]));
        assert_eq!((messages.dropped(), messages.bytes()), (0, WAITING_BYTES_MAX));
        messages.push(vec![]);
        assert_eq!(messages.dropped(), 0, "one without bytes takes none");
        messages.push(vec![9; most + 1]);
        assert_eq!((messages.dropped(), messages.bytes()), (2, 3 * most + 1));
        messages.push(vec![0; WAITING_BYTES_MAX + 1]);
        assert_eq!(messages.dropped(), 3, "the one that never fits, and no other for it");
        let left: Vec<(u8, usize)> = all(&mut messages).iter().map(|bytes| (bytes.first().copied().unwrap_or(0), bytes.len())).collect();
        assert_eq!(left, [(2, most), (3, most), (0, 0), (9, most + 1)]);
        messages.push(vec![1]);
        messages.drop_all();
        assert_eq!((messages.dropped(), messages.bytes(), messages.take()), (4, 0, None));
    }
}
