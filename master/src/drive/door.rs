//! The way into the shards, for HTTP and for tests: questions in, answers out.

use super::agents::Agents;
use super::inbox::{Inbox, Letter, Waiter};
use crate::shard::event::Change;
use crate::shard::{Request, Response};
use protocol::link::Connection;
use protocol::{AgentId, RequestId, ShardId};
use std::sync::{Arc, OnceLock};
use tokio::sync::{broadcast, mpsc, oneshot};

/// Changes that a slow watcher may be behind before it misses some.
pub const CHANGES_MAX: usize = 8_192;

/// Why a question was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// Too many wait already.
    #[error("too many requests wait already: try again in {retry_after_ms} ms")]
    Full {
        /// When it makes sense to try again, in milliseconds.
        retry_after_ms: u64,
    },
    /// The journal failed, so nothing is decided here any more until the master is started again.
    #[error("this master has stopped deciding: {reason}")]
    Stopped {
        /// What failed, for people.
        reason: String,
    },
}

/// The way into the shards of this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Door {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// For each shard the inbox of the thread that decides for it.
    inboxes: Vec<Arc<Inbox>>,
    agents: Arc<Agents>,
    changes: broadcast::Sender<Arc<Change>>,
    stopped: OnceLock<String>,
}

impl Door {
    /// A door with an inbox for each shard, those of one thread the same.
    pub(crate) fn new(inboxes: Vec<Arc<Inbox>>, agents: Arc<Agents>) -> Self {
        let changes = broadcast::Sender::new(CHANGES_MAX);
        Self { inner: Arc::new(Inner { inboxes, agents, changes, stopped: OnceLock::new() }) }
    }

    /// How many shards the cluster has.
    #[must_use]
    pub fn shards(&self) -> u16 {
        u16::try_from(self.inner.inboxes.len()).expect("a cluster has at most SHARDS_MAX shards")
    }

    /// Asks `shard`; each answer comes to `replies` with `id`, which is the asker's own and need not be unique. A submission that is followed
    /// is answered twice, all else once. `replies` must have room for all that is still to come: an asker whose channel is full or closed is
    /// forgotten.
    ///
    /// # Errors
    /// [`Busy`]; then nothing comes.
    pub fn post(&self, shard: ShardId, request: Request, id: RequestId, replies: mpsc::Sender<(RequestId, Response)>) -> Result<(), Busy> {
        self.put(shard, request, Waiter::Many(id, replies))
    }

    /// Asks `shard` and waits for the one answer. A submission is asked this way without `follow`.
    ///
    /// # Errors
    /// [`Busy`], also where the shard stopped deciding while it was asked: whether it was done is then not known.
    pub async fn ask(&self, shard: ShardId, request: Request) -> Result<Response, Busy> {
        let (answer, answered) = oneshot::channel();
        self.put(shard, request, Waiter::Once(answer))?;
        answered.await.map_err(|_| self.stopped_or("it stopped while it was asked"))
    }

    /// Asks every shard the same, and waits for all.
    ///
    /// # Errors
    /// The first [`Busy`].
    pub async fn ask_all(&self, request: impl Fn() -> Request) -> Result<Vec<(ShardId, Response)>, Busy> {
        let asked = (0..self.shards()).map(ShardId).map(|shard| {
            let answer = self.ask(shard, request());
            async move { answer.await.map(|response| (shard, response)) }
        });
        futures::future::try_join_all(asked).await
    }

    /// All that changes from now on, committed, of every shard.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Arc<Change>> {
        self.inner.changes.subscribe()
    }

    /// The connection of an agent, to read a task's output over; `None` where it is not connected.
    #[must_use]
    pub fn agent_connection(&self, agent: AgentId) -> Option<Connection> {
        self.inner.agents.connection(agent)
    }

    /// Why nothing is decided here any more; `None` where all is well.
    #[must_use]
    pub fn stopped(&self) -> Option<&str> {
        self.inner.stopped.get().map(String::as_str)
    }

    /// Says that nothing is decided here any more. The first reason stays.
    pub(crate) fn stop(&self, reason: String) {
        let _ = self.inner.stopped.set(reason);
    }

    /// Tells those who watch.
    pub(crate) fn publish(&self, change: Change) {
        if self.inner.changes.receiver_count() > 0 {
            let _ = self.inner.changes.send(Arc::new(change));
        }
    }

    /// The agents that are connected.
    pub(crate) fn agents(&self) -> &Agents {
        &self.inner.agents
    }

    /// The inbox of the thread that decides for `shard`; `None` where there is no such shard.
    pub(crate) fn inbox(&self, shard: ShardId) -> Option<&Arc<Inbox>> {
        self.inner.inboxes.get(usize::from(shard.0))
    }

    fn put(&self, to: ShardId, request: Request, waiter: Waiter) -> Result<(), Busy> {
        if let Some(reason) = self.stopped() {
            return Err(Busy::Stopped { reason: reason.to_owned() });
        }
        let inbox = self.inbox(to).expect("a request is for a shard of this cluster");
        inbox.post(Letter::Request { to, request, waiter })
    }

    fn stopped_or(&self, reason: &str) -> Busy {
        Busy::Stopped { reason: self.stopped().unwrap_or(reason).to_owned() }
    }
}
