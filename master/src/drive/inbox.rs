//! What waits for a deciding thread: one queue for each, filled by anybody, emptied by the thread alone.
//!
//! Knows letters and how many may wait. Knows nothing of what becomes of them.

use super::door::Busy;
use crate::shard::{PeerMessage, Request, Response};
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
    letters: Mutex<Vec<Letter>>,
    filled: Notify,
    drained: Notify,
}

impl Inbox {
    /// Takes a request in.
    ///
    /// # Errors
    /// [`Busy::Full`] where [`LETTERS_MAX`] wait.
    pub fn post(&self, letter: Letter) -> Result<(), Busy> {
        let mut letters = self.lock();
        if letters.len() >= LETTERS_MAX {
            return Err(Busy::Full { retry_after_ms: RETRY_AFTER_MS });
        }
        letters.push(letter);
        drop(letters);
        self.filled.notify_one();
        Ok(())
    }

    /// Takes in what must not be lost; never full, since what the shards say to each other is bounded by what they hold.
    pub fn force(&self, more: &mut Vec<Letter>) {
        self.lock().append(more);
        self.filled.notify_one();
    }

    /// Takes a batch in once there is room. Where it is `more` than there is room for, it is taken all the same: a batch is bounded by what
    /// one read gave.
    pub async fn push(&self, more: &mut Vec<Letter>) {
        while self.lock().len() >= LETTERS_MAX {
            self.drained.notified().await;
        }
        self.force(more);
        self.drained.notify_one();
    }

    /// All that waits, into `empty`.
    pub fn take(&self, empty: &mut Vec<Letter>) {
        let mut letters = self.lock();
        let full = letters.len() >= LETTERS_MAX;
        std::mem::swap(&mut *letters, empty);
        drop(letters);
        if full {
            self.drained.notify_one();
        }
    }

    /// Returns when something was put in since the last time.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Letter>> {
        // Nothing inside the lock can panic half way.
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
