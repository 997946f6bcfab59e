//! What waits for a deciding thread: one queue for each, filled by anybody, emptied by the thread alone.
//!
//! Knows letters and how many may wait. Knows nothing of what becomes of them.

use crate::shard::{PeerMessage, Refusal, Request, Response};
use protocol::{AgentId, FromAgent, RequestId, ShardId};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc, oneshot};

/// Most letters that wait for one thread before requests are turned away and agents are read no further.
pub const LETTERS_MAX: usize = 65_536;
/// When a request that was turned away makes sense again, in milliseconds.
pub const RETRY_AFTER_MS: u64 = 50;

/// Something that happened, on its way to the thread that decides for its shard.
#[derive(Debug)]
pub enum Letter {
    /// Somebody asks.
    Request {
        /// Whom.
        to: ShardId,
        /// What.
        request: Request,
        /// Who waits for the answer.
        waiter: Waiter,
    },
    /// An agent said something.
    Agent {
        /// To whom.
        to: ShardId,
        /// Whose certificate it is.
        agent: AgentId,
        /// What.
        message: FromAgent,
    },
    /// The connection of an agent is gone.
    Disconnected {
        /// Who is told.
        to: ShardId,
        /// Whose.
        agent: AgentId,
    },
    /// A shard said something to another.
    Peer {
        /// To whom.
        to: ShardId,
        /// Who.
        from: ShardId,
        /// What.
        message: PeerMessage,
    },
    /// A shard is to be led by another master.
    HandOver {
        /// Which shard.
        to: ShardId,
        /// By which.
        next: u64,
    },
    /// Other plug-ins order agents than before: the door has them.
    PlugIns {
        /// Who is told.
        to: ShardId,
    },
}

impl Letter {
    /// The shard that it is for.
    pub const fn to(&self) -> ShardId {
        match self {
            Self::Request { to, .. }
            | Self::Agent { to, .. }
            | Self::Disconnected { to, .. }
            | Self::Peer { to, .. }
            | Self::HandOver { to, .. }
            | Self::PlugIns { to } => *to,
        }
    }
}

/// Who waits for an answer.
#[derive(Debug)]
pub enum Waiter {
    /// One answer, and done.
    Once(oneshot::Sender<Response>),
    /// As many as there are, with the asker's own number for the question.
    Many(RequestId, mpsc::Sender<(RequestId, Response)>),
}

impl Waiter {
    /// Tells that no answer comes though something may have been done. Whoever waits for one answer sees that its sender is gone.
    pub fn lose(self) {
        if let Self::Many(id, sender) = self {
            // Who no longer waits is not told.
            let _ = sender.try_send((id, Response::Refused(Refusal::Unknown)));
        }
    }

    /// Tells that nothing was done.
    pub fn refuse(self, refusal: Refusal) {
        // Who no longer waits is not told.
        match self {
            Self::Once(sender) => drop(sender.send(Response::Refused(refusal))),
            Self::Many(id, sender) => drop(sender.try_send((id, Response::Refused(refusal)))),
        }
    }

    /// True where nobody waits any longer.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Once(sender) => sender.is_closed(),
            Self::Many(_, sender) => sender.is_closed(),
        }
    }
}

/// The queue of one deciding thread.
#[derive(Debug, Default)]
pub struct Inbox {
    thread: usize,
    queue: Mutex<Queue>,
    filled: Notify,
    taken: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    letters: Vec<Letter>,
    /// How often it was emptied.
    taken: u64,
}

impl Inbox {
    /// The inbox of the `thread`-th thread, from 0.
    pub fn new(thread: usize) -> Self {
        Self { thread, ..Self::default() }
    }

    /// Whose it is.
    pub const fn thread(&self) -> usize {
        self.thread
    }

    /// Takes a request in; gives it back where [`LETTERS_MAX`] wait.
    pub fn post(&self, letter: Letter) -> Result<(), Box<Letter>> {
        let mut queue = self.lock();
        if queue.letters.len() >= LETTERS_MAX {
            return Err(Box::new(letter));
        }
        queue.letters.push(letter);
        drop(queue);
        self.filled.notify_one();
        Ok(())
    }

    /// Takes in what must not be lost; never full, since what the shards say to each other is bounded by what they hold.
    pub fn force(&self, more: &mut Vec<Letter>) {
        self.lock().letters.append(more);
        self.filled.notify_one();
    }

    /// Takes in what may be lost; it is where [`LETTERS_MAX`] wait.
    pub fn offer(&self, more: &mut Vec<Letter>) {
        let mut queue = self.lock();
        if queue.letters.len() < LETTERS_MAX {
            queue.letters.append(more);
            drop(queue);
            self.filled.notify_one();
        }
    }

    /// Takes a batch in once there is room, and once the batch of which `before` was the answer was taken out: so whoever says much has one
    /// batch here at a time, and leaves room for others. Returns what is `before` for the next; the first has 0.
    pub async fn push(&self, more: &mut Vec<Letter>, before: u64) -> u64 {
        loop {
            // Made before it is looked: it hears of what happens from here on.
            let taken = self.taken.notified();
            {
                let mut queue = self.lock();
                if queue.letters.len() < LETTERS_MAX && before <= queue.taken {
                    queue.letters.append(more);
                    let after = queue.taken + 1;
                    drop(queue);
                    self.filled.notify_one();
                    return after;
                }
            }
            taken.await;
        }
    }

    /// All that waits, into `empty`.
    pub fn take(&self, empty: &mut Vec<Letter>) {
        let mut queue = self.lock();
        std::mem::swap(&mut queue.letters, empty);
        queue.taken += 1;
        drop(queue);
        self.taken.notify_waiters();
    }

    /// Returns when something was put in since the last time.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing inside the lock can panic half way.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
