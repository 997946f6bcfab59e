//! What engines say, on its way from their runtime to the world: questions to other members, answers, and what became of proposals.

use futures::FutureExt;
use futures::future::BoxFuture;
use master::journal::network::{Answer, Ask, Carrier};
use master::journal::{Fate, JournalError};
use std::sync::{Mutex, PoisonError};
use tokio::sync::oneshot;

/// Where an answer goes; `None`: there is none to be had. Dropped is the same.
pub type Back = oneshot::Sender<Option<Answer>>;

/// A question of one master's member of a group to another's.
#[derive(Debug)]
pub struct Question {
    /// The masters that ask and are asked, once the world knows them.
    pub masters: (usize, usize),
    /// The connection it is on.
    pub connection: u64,
    /// The member that is asked.
    pub member: u64,
    /// Of which group.
    pub shard: u16,
    /// What.
    pub ask: Ask,
    /// Where the answer goes.
    pub back: Back,
}

/// An answer on its way back.
#[derive(Debug)]
pub struct Reply {
    /// The masters that asked and were asked.
    pub masters: (usize, usize),
    /// The connection that the question was on.
    pub connection: u64,
    /// What.
    pub answer: Answer,
    /// Where it goes.
    pub back: Back,
}

/// Something that an engine says.
#[derive(Debug)]
pub enum Said {
    /// A question to another master.
    Question(Question),
    /// An answer to one.
    Reply(Reply),
    /// What became of the batch of a shard's reign.
    Fate(usize, u64, Result<Fate, JournalError>),
    /// Whether a group had the members of this generation.
    Members(usize, u64, bool),
}

/// What was said and not taken yet.
#[derive(Debug, Default)]
pub struct Wires(Mutex<Vec<Said>>);

impl Wires {
    /// Something is said.
    pub fn say(&self, said: Said) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(said);
    }

    /// All that was said since the last time.
    pub fn take(&self) -> Vec<Said> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Carrier for Wires {
    fn carry(&self, to: u64, group: u16, ask: Ask) -> BoxFuture<'static, Option<Answer>> {
        let (back, answer) = oneshot::channel();
        self.say(Said::Question(Question { masters: (0, 0), connection: 0, member: to, shard: group, ask, back }));
        async move { answer.await.ok().flatten() }.boxed()
    }
}
