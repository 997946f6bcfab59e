//! The agents that are connected to this process: where to say something to each, and how much may wait to be said.

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use dashmap::mapref::multiple::RefMulti;
use protocol::link::{CloseCode, Connection, LinkError, Sender};
use protocol::message::{FromMaster, ToAgent, shard_of_agent};
use protocol::{AgentId, ShardId};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

use crate::shard::Concern;

/// About how many bytes may wait to be sent to one agent; at the limit its connection is closed, and it begins anew when it reads again.
const OUTBOX_BYTES_MAX: usize = 8 << 20;
/// While so many wait, what frameworks say to tasks there is dropped: it is not to close the connection, nor to be long before all else.
const OUTBOX_BYTES_FOR_MESSAGES: usize = 1 << 20;
/// Agents that are told at once who leads a shard, where there is no hurry; and the wait before the next, for those with tasks of the shard and
/// for all others. Each of them answers, and those that wait for their own shard are not to wait for that.
const TELL_AT_ONCE: usize = 64;
const TELL_HOLDERS_EACH: Duration = Duration::from_millis(20);
const TELL_OTHERS_EACH: Duration = Duration::from_millis(100);
/// The same for those that hear that another master leads their shard: most have heard it from that one.
const TELL_ELSEWHERE_EACH: Duration = Duration::from_millis(20);

/// The agents that are connected.
#[derive(Debug, Default)]
pub struct Agents {
    here: DashMap<AgentId, Arc<Agent>>,
    /// In how many shards' names agents are still to be told who leads.
    telling: AtomicUsize,
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
    /// The shards that this master leads without having said so to this agent, and in which term.
    untold: BTreeMap<ShardId, u64>,
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
        self.here.iter().for_each(|agent| agent.say(shard, message.clone()));
    }

    /// Tells all that are connected that this master leads `shard`: those at once that it is the own shard of, since they have to register; then
    /// those that have tasks of it; and the others, who have nothing to say to it but by chance, by and by. Whoever the shard says something to is
    /// told before.
    pub fn tell_leading(self: &Arc<Self>, shard: ShardId, term: u64, concern: impl Fn(AgentId) -> Concern) {
        let (mut holders, mut others) = (vec![], vec![]);
        for agent in &self.here {
            let later = match concern(*agent.key()) {
                Concern::Own => {
                    agent.say(shard, FromMaster::Leading { term });
                    continue;
                }
                Concern::Tasks => &mut holders,
                Concern::None => &mut others,
            };
            agent.outbox().untold.insert(shard, term);
            later.push(*agent.key());
        }
        let telling = Telling::begin(Arc::clone(self));
        tokio::spawn(async move {
            telling.tell(&holders, TELL_HOLDERS_EACH).await;
            telling.tell(&others, TELL_OTHERS_EACH).await;
        });
    }

    /// Tells the agents of `shard` that another master leads it, by and by, as long as that is what is to be said: whoever hears it after this one leads
    /// would look for a leader that it has.
    pub fn tell_led_elsewhere(
        self: &Arc<Self>,
        shard: ShardId,
        shards: u16,
        message: FromMaster,
        holds: impl Fn(&FromMaster) -> bool + Send + 'static,
    ) {
        let agents = Arc::clone(self);
        let own: Vec<AgentId> = agents.own(shard, shards).map(|agent| *agent.key()).collect();
        tokio::spawn(async move {
            for some in own.chunks(TELL_AT_ONCE) {
                tokio::time::sleep(TELL_ELSEWHERE_EACH).await;
                if !holds(&message) {
                    return;
                }
                for agent in some.iter().filter_map(|id| agents.find(*id)) {
                    agent.say(shard, message.clone());
                }
            }
        });
    }

    /// Tells the agents of `shard` at once that this master leads it no more.
    pub fn tell_over(&self, shard: ShardId, shards: u16, message: &FromMaster) {
        self.own(shard, shards).for_each(|agent| agent.say(shard, message.clone()));
    }

    fn own(&self, shard: ShardId, shards: u16) -> impl Iterator<Item = RefMulti<'_, AgentId, Arc<Agent>>> {
        self.here.iter().filter(move |agent| shard_of_agent(*agent.key(), shards) == shard)
    }

    /// The entry of an agent that is to be told that this master leads `shard`, and now is; it is to be woken when the round is over.
    pub fn tell_untold(&self, id: AgentId, shard: ShardId) -> Option<Arc<Agent>> {
        if self.telling.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.find(id).filter(|agent| agent.tell_untold(shard))
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
        let mut outbox = self.outbox();
        if matches!(message, FromMaster::Message { .. }) && outbox.bytes > OUTBOX_BYTES_FOR_MESSAGES {
            return false;
        }
        let was_empty = outbox.messages.is_empty();
        outbox.say_leading(shard);
        outbox.bytes += bytes_about(&message);
        if outbox.bytes > OUTBOX_BYTES_MAX {
            drop(outbox);
            self.connection.close(CloseCode::Late, "too much waits to be read by this agent");
            return false;
        }
        outbox.messages.push_back(ToAgent { shard, message });
        was_empty
    }

    /// Has a message sent.
    fn say(&self, shard: ShardId, message: FromMaster) {
        if self.queue(shard, message) {
            self.wake();
        }
    }

    /// Says that this master leads `shard`, where it was not said yet; true where [`Self::wake`] is due.
    fn tell_untold(&self, shard: ShardId) -> bool {
        let mut outbox = self.outbox();
        let was_empty = outbox.messages.is_empty();
        outbox.say_leading(shard) && was_empty
    }

    /// As [`Self::tell_untold`], of all shards.
    fn tell_all_untold(&self) {
        let mut outbox = self.outbox();
        let mut said = false;
        while let Some((shard, _)) = outbox.untold.first_key_value() {
            let shard = *shard;
            said |= outbox.say_leading(shard);
        }
        drop(outbox);
        if said {
            self.wake();
        }
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
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
            let messages = std::mem::take(&mut self.outbox().messages);
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
            self.outbox().bytes -= sent;
        }
    }
}

impl Outbox {
    fn say_leading(&mut self, shard: ShardId) -> bool {
        let Some(term) = self.untold.remove(&shard) else { return false };
        let message = FromMaster::Leading { term };
        self.bytes += bytes_about(&message);
        self.messages.push_back(ToAgent { shard, message });
        true
    }
}

/// While agents are told who leads a shard. Where this master leads it no more, they pass that over as soon as they hear of a higher term.
struct Telling(Arc<Agents>);

impl Telling {
    fn begin(agents: Arc<Agents>) -> Self {
        agents.telling.fetch_add(1, Ordering::Relaxed);
        Self(agents)
    }

    async fn tell(&self, agents: &[AgentId], each: Duration) {
        for some in agents.chunks(TELL_AT_ONCE) {
            tokio::time::sleep(each).await;
            some.iter().filter_map(|id| self.0.find(*id)).for_each(|agent| agent.tell_all_untold());
        }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.0.telling.fetch_sub(1, Ordering::Relaxed);
    }
}

/// About how many bytes a message takes, in memory or on the wire, whichever is more. The templates of launches are shared.
fn bytes_about(message: &FromMaster) -> usize {
    const MESSAGE_BYTES: usize = 256;
    const ATTEMPT_BYTES: usize = 24;
    let attempts = match message {
        FromMaster::Launch(launch) => launch.attempts.len(),
        FromMaster::Kill { attempts, .. } | FromMaster::Ack { attempts } => attempts.len(),
        FromMaster::Message { bytes, .. } => return MESSAGE_BYTES + bytes.len(),
        FromMaster::Devices { given, .. } => given.len(),
        _ => 0,
    };
    MESSAGE_BYTES + attempts * ATTEMPT_BYTES
}
