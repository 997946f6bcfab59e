//! The connections to masters, and which of them leads each shard: what is for a shard goes to its leader, and nobody else is heard in its
//! name. Knows nothing of what is said but who leads; what follows for the ledger it gives back as events. The agent's daemon keeps one, and
//! so does each agent of `skep bench`. What may be lost, and is said again and again, goes as a pulse.

use protocol::link::{CloseCode, Connection, Sender};
use protocol::message::{FromAgent, FromMaster, Leader, ToAgent, ToShard, shard_of_agent};
use protocol::{AgentId, ShardId};
use std::collections::BTreeMap;
use std::time::Duration;

use crate::ledger::event::Event;

/// The shortest time between two knocks.
const KNOCK_EACH_MIN: Duration = Duration::from_secs(3);
/// The time between two while the leader of the agent's own shard is not reached, the first one included: where all masters started again, the
/// others are to be noticed when that is done.
const KNOCK_LOOKING: Duration = Duration::from_secs(5);
/// Beats between two knocks, where that is longer: the more agents there are, the rarer the beats, and the longer the time over which all of them
/// shake hands with a master that has started again.
const KNOCK_BEATS: u64 = 8;

/// The connections to masters.
#[derive(Default)]
pub struct Ways {
    /// By the number of the master at the other end.
    ways: BTreeMap<u16, Way>,
    leaders: Leaders,
    /// Who leads the agent's own shard, as a master said last that does not.
    elsewhere: Option<Leader>,
    /// How many the cluster has, by the master that there was the first connection to.
    shards: u16,
}

struct Way {
    connection: Connection,
    sender: Sender,
}

/// Of each shard the highest term that was said, and which master said it, where there still is a connection to it. A term outlives the
/// connection that it was said on: a leader that was passed over for it is none when its successor is lost.
#[derive(Default)]
struct Leaders(BTreeMap<ShardId, (u64, Option<u16>)>);

impl Leaders {
    fn of(&self, shard: ShardId) -> Option<u16> {
        self.0.get(&shard)?.1
    }

    /// True where this makes `master` the leader, the first time or anew. Of two with the same term the one that says it last is right, and
    /// one that says it again leads anew: between the two it did not, and it knows nothing of what was said to it before.
    fn said(&mut self, shard: ShardId, term: u64, master: u16) -> bool {
        let (last, leader) = self.0.entry(shard).or_default();
        if term < *last {
            return false;
        }
        (*last, *leader) = (term, Some(master));
        true
    }

    /// `master` says that it does not lead, and which term is the highest that it knows; true where the shard has no leader any more: whoever leads
    /// in a later term says so itself. What it says of an earlier term came late: it may lead since.
    fn denied(&mut self, shard: ShardId, term: u64, master: u16) -> bool {
        let (last, leader) = self.0.entry(shard).or_default();
        if term < *last {
            return false;
        }
        let over = leader.is_some_and(|leader| leader == master || term > *last);
        if over {
            *leader = None;
        }
        *last = term.max(*last);
        over
    }

    /// The shards that have no leader any more.
    fn gone(&mut self, master: u16) -> Vec<ShardId> {
        let led = self.0.iter_mut().filter(|(_, (_, leader))| *leader == Some(master));
        let lost = led.map(|(shard, (_, leader))| {
            *leader = None;
            *shard
        });
        lost.collect()
    }
}

impl Ways {
    /// There is a connection to this master. One that does not agree with the others on how many shards there are is closed.
    pub fn up(&mut self, master: u16, shards: u16, connection: Connection, sender: Sender) -> Vec<Event> {
        let first = self.ways.is_empty();
        if !first && shards != self.shards {
            tracing::error!(
                master,
                shards,
                before = self.shards,
                "a master says another number of shards than the others: it is not listened to"
            );
            connection.close(CloseCode::Misbehaved, "the other masters say another number of shards");
            return vec![];
        }
        self.shards = shards;
        self.ways.insert(master, Way { connection, sender });
        if first { vec![Event::Connected { shards }] } else { vec![] }
    }

    /// The connection to this master is gone.
    pub fn down(&mut self, master: u16) -> Vec<Event> {
        if self.ways.remove(&master).is_none() {
            return vec![]; // It was given up here before.
        }
        let mut events: Vec<Event> = self.leaders.gone(master).into_iter().map(|shard| Event::Unled { shard }).collect();
        if self.ways.is_empty() {
            // A cluster that was set up anew from an older copy counts from a lower term.
            (self.leaders, self.elsewhere) = (Leaders::default(), None);
            events.push(Event::Disconnected);
        }
        events
    }

    /// What of these messages the ledger is to hear.
    pub fn heard(&mut self, master: u16, messages: Vec<ToAgent>) -> Vec<Event> {
        if !self.ways.contains_key(&master) {
            return vec![];
        }
        let event = |ToAgent { shard, message }| match message {
            FromMaster::Leading { term } => {
                (shard.0 < self.shards && self.leaders.said(shard, term, master)).then_some(Event::Led { shard })
            }
            FromMaster::LedElsewhere { term, leader } => {
                (shard.0 < self.shards && self.led_elsewhere(shard, term, master, leader)).then_some(Event::Unled { shard })
            }
            FromMaster::Pulses { reset } => {
                self.ways[&master].connection.begin_pulses(reset);
                None
            }
            message => (self.leaders.of(shard) == Some(master)).then_some(Event::Master { shard, message }),
        };
        messages.into_iter().filter_map(event).collect()
    }

    /// True where the shard has no leader any more that is known here.
    fn led_elsewhere(&mut self, shard: ShardId, term: u64, master: u16, leader: Option<Leader>) -> bool {
        let over = self.leaders.denied(shard, term, master);
        let newest = self.leaders.0.get(&shard).is_some_and(|(last, _)| *last == term);
        if let Some(leader) = leader.filter(|_| newest && self.leader(shard).is_none()) {
            // Where there is a connection, this comes before its word; or that master has started again since.
            self.ways.get(&leader.master).inspect(|way| way.connection.knock());
            self.elsewhere = Some(leader);
        }
        over
    }

    /// Where to find the leader of the agent's own shard, while it is not reached: as another master says.
    #[must_use]
    pub fn elsewhere(&self, agent: AgentId) -> Option<&str> {
        self.elsewhere.as_ref().filter(|_| !self.is_served(agent)).map(|leader| leader.address.as_str())
    }

    /// The master that leads this shard, where there is a connection to it.
    pub fn leader(&self, shard: ShardId) -> Option<u16> {
        self.leaders.of(shard)
    }

    /// Queues this for the leader of its shard; dropped where there is none, since whoever leads next is told all again.
    pub fn send(&mut self, message: ToShard) -> Vec<Event> {
        let Some(master) = self.leader(message.shard) else { return vec![] };
        let way = self.ways.get_mut(&master).expect("a master without a connection leads nothing");
        if message.message.since() > way.connection.version() {
            return vec![];
        }
        if matches!(message.message, FromAgent::Alive { .. }) && way.connection.pulse(&message) {
            return vec![];
        }
        let Err(error) = way.sender.queue(&message) else { return vec![] };
        // It does not read, or the message is too long for a frame: either way all is told again on a new connection.
        tracing::error!(master, %error, "a message could not be queued: the connection is given up");
        way.connection.close(CloseCode::Late, "the control stream is not read");
        self.down(master)
    }

    /// Asks the masters whether they still know their connections: one that has started again since says that it does not, and is connected
    /// again at once. Beats ask the leader of the agent's own shard.
    pub fn knock(&self, agent: AgentId) {
        let own = self.own(agent).and_then(|shard| self.leader(shard));
        self.ways.iter().filter(|(master, _)| Some(**master) != own).for_each(|(_, way)| way.connection.knock());
    }

    /// How long to wait between two calls of [`Self::knock`], for an agent that beats so often.
    #[must_use]
    pub fn knock_each(&self, agent: AgentId, heartbeat_ms: u64) -> Duration {
        match self.is_served(agent) {
            true => Duration::from_millis(KNOCK_BEATS * heartbeat_ms).max(KNOCK_EACH_MIN),
            false => KNOCK_LOOKING,
        }
    }

    /// True where the leader of the agent's own shard is reached.
    #[must_use]
    pub fn is_served(&self, agent: AgentId) -> bool {
        self.own(agent).is_some_and(|shard| self.leader(shard).is_some())
    }

    /// Says good-bye to the leader of the agent's own shard.
    pub fn leave(&mut self, agent: AgentId) {
        if let Some(shard) = self.own(agent) {
            self.send(ToShard { shard, message: FromAgent::Leaving });
        }
    }

    /// All connections, that of the leader of the agent's own shard first.
    pub fn links(&self, agent: AgentId) -> Vec<Connection> {
        let first = self.own(agent).and_then(|shard| self.leader(shard));
        let (first, others): (Vec<_>, Vec<_>) = self.ways.iter().partition(|(master, _)| Some(**master) == first);
        first.into_iter().chain(others).map(|(_, way)| way.connection.clone()).collect()
    }

    /// Sends all that is queued; no master waits for another.
    pub async fn flush(&mut self) {
        // Where a connection ended, whoever listens to it says so.
        futures::future::join_all(self.ways.values_mut().map(|way| way.sender.flush())).await;
    }

    /// Closes all connections.
    pub fn close(self, reason: &str) {
        self.ways.into_values().for_each(|way| way.connection.close(CloseCode::Leaving, reason));
    }

    fn own(&self, agent: AgentId) -> Option<ShardId> {
        (!self.ways.is_empty()).then(|| shard_of_agent(agent, self.shards))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_term_leads_and_does_not_come_back_with_an_older_saying() {
        enum Step {
            Says(u16, u64),
            Denies(u16, u64),
            Gone(u16),
        }
        use Step::{Denies, Gone, Says};
        let steps = [
            (Says(1, 3), Some(1)),
            (Says(2, 2), Some(1)),
            (Says(2, 4), Some(2)),
            (Says(1, 3), Some(2)),
            (Says(1, 4), Some(1)),
            (Gone(2), Some(1)),
            (Gone(1), None),
            (Says(3, 3), None),
            (Says(3, 4), Some(3)),
            (Denies(1, 4), Some(3)),
            (Denies(1, 3), Some(3)),
            (Denies(3, 4), None),
            (Says(1, 3), None),
            (Says(3, 4), Some(3)),
            (Denies(1, 5), None),
            (Says(3, 4), None),
            (Denies(3, 4), None),
            (Says(2, 5), Some(2)),
            (Denies(2, 6), None),
            (Says(2, 6), Some(2)),
            (Says(1, 7), Some(1)),
            // It was to be said before it led.
            (Denies(1, 6), Some(1)),
            (Denies(1, 7), None),
        ];
        let (shard, mut leaders) = (ShardId(5), Leaders::default());
        for (at, (step, expected)) in steps.into_iter().enumerate() {
            match step {
                Says(master, term) => drop(leaders.said(shard, term, master)),
                Denies(master, term) => {
                    let had = leaders.of(shard).is_some();
                    let over = leaders.denied(shard, term, master);
                    assert_eq!(over, had && leaders.of(shard).is_none());
                }
                Gone(master) => drop(leaders.gone(master)),
            }
            assert_eq!((leaders.of(shard), leaders.of(ShardId(6))), (expected, None), "step {at}");
        }
        assert!(leaders.said(shard, 7, 3), "it had let go, and leads anew in the same term");
        assert!(!leaders.said(shard, 6, 3));
        assert!(leaders.said(shard, 8, 3), "the same master leads anew");
        assert_eq!(leaders.gone(3), [shard]);
    }
}
