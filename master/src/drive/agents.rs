//! The agents that are connected to this process: where to say something to each, and how much may wait to be said.

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use protocol::link::{CloseCode, Connection, LinkError, Sender};
use protocol::message::{FromMaster, ToAgent, shard_of_agent};
use protocol::{AgentId, ShardId};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// About how many bytes may wait to be sent to one agent; at the limit its connection is closed, and it begins anew when it reads again.
const OUTBOX_BYTES_MAX: usize = 8 << 20;

/// The agents that are connected.
#[derive(Debug, Default)]
pub struct Agents {
    here: DashMap<AgentId, Arc<Agent>>,
}

/// One connected agent.
pub struct Agent {
    connection: Connection,
    outbox: Mutex<Outbox>,
    filled: Notify,
}

#[derive(Default)]
struct Outbox {
    messages: VecDeque<ToAgent>,
    bytes: usize,
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Agent({})", self.connection.remote())
    }
}

impl Agents {
    /// Takes the connection of an agent in; an older one is closed.
    pub fn insert(&self, id: AgentId, connection: Connection) -> Arc<Agent> {
        let agent = Arc::new(Agent { connection, outbox: Mutex::default(), filled: Notify::new() });
        if let Some(older) = self.here.insert(id, Arc::clone(&agent)) {
            older.connection.close(CloseCode::Replaced, "this agent has a newer connection");
        }
        agent
    }

    /// Forgets a connection; false where a newer one has taken its place.
    pub fn remove(&self, id: AgentId, agent: &Arc<Agent>) -> bool {
        match self.here.entry(id) {
            Entry::Occupied(here) if Arc::ptr_eq(here.get(), agent) => {
                here.remove();
                true
            }
            _ => false,
        }
    }

    /// How many are connected.
    pub fn count(&self) -> u32 {
        u32::try_from(self.here.len()).unwrap_or(u32::MAX)
    }

    /// The agent's entry.
    pub fn find(&self, id: AgentId) -> Option<Arc<Agent>> {
        self.here.get(&id).map(|agent| Arc::clone(&agent))
    }

    /// Says something of `shard` to all that are connected.
    pub fn tell_all(&self, shard: ShardId, message: &FromMaster) {
        for agent in &self.here {
            if agent.queue(shard, message.clone()) {
                agent.wake();
            }
        }
    }

    /// Tells all that are connected who leads `shard`, those first that it is the own shard of: they have to register.
    pub fn tell_leading(&self, shard: ShardId, term: u64, shards: u16) {
        for first in [true, false] {
            for agent in self.here.iter().filter(|agent| (shard_of_agent(*agent.key(), shards) == shard) == first) {
                if agent.queue(shard, FromMaster::Leading { term }) {
                    agent.wake();
                }
            }
        }
    }

    /// The connection of an agent.
    pub fn connection(&self, id: AgentId) -> Option<Connection> {
        self.here.get(&id).map(|agent| agent.connection.clone())
    }
}

impl Agent {
    /// Puts a message into the outbox. Returns true where it was empty: then [`Self::wake`] is due when the round is over.
    pub fn queue(&self, shard: ShardId, message: FromMaster) -> bool {
        if message.since() > self.connection.version() {
            return false;
        }
        let mut outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        outbox.bytes += bytes_about(&message);
        if outbox.bytes > OUTBOX_BYTES_MAX {
            drop(outbox);
            self.connection.close(CloseCode::Late, "too much waits to be read by this agent");
            return false;
        }
        outbox.messages.push_back(ToAgent { shard, message });
        outbox.messages.len() == 1
    }

    /// Has what is in the outbox sent.
    pub fn wake(&self) {
        self.filled.notify_one();
    }

    /// Closes the connection.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.connection.close(code, reason);
    }

    /// Sends what comes into the outbox, all of it at once, until the connection ends.
    pub async fn send_all(&self, mut sender: Sender) -> LinkError {
        loop {
            let messages = {
                let mut outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut outbox.messages)
            };
            if messages.is_empty() {
                self.filled.notified().await;
                continue;
            }
            for message in &messages {
                let queued = match sender.queue(message) {
                    Err(LinkError::Backlog { .. }) => match sender.flush().await {
                        Ok(()) => sender.queue(message),
                        error => error,
                    },
                    queued => queued,
                };
                if let Err(error) = queued {
                    return error;
                }
            }
            if let Err(error) = sender.flush().await {
                return error;
            }
            let sent: usize = messages.iter().map(|message| bytes_about(&message.message)).sum();
            self.outbox.lock().unwrap_or_else(PoisonError::into_inner).bytes -= sent;
        }
    }
}

/// About how many bytes a message takes, in memory or on the wire, whichever is more. The templates of launches are shared.
fn bytes_about(message: &FromMaster) -> usize {
    const MESSAGE_BYTES: usize = 256;
    const ATTEMPT_BYTES: usize = 24;
    let attempts = match message {
        FromMaster::Launch(launch) => launch.attempts.len(),
        FromMaster::Kill { attempts, .. } | FromMaster::Ack { attempts } => attempts.len(),
        _ => 0,
    };
    MESSAGE_BYTES + attempts * ATTEMPT_BYTES
}
