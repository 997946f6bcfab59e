//! Reports and launches cross on their way. What a framework's shard says of an agent is numbered, and a report says up to which number its
//! sender had heard: one that is older than the last launch proves nothing of what it does not name.

use protocol::{AgentId, ShardId, Time};
use std::collections::BTreeMap;

/// Both sides of it, as far as this shard is each.
#[derive(Debug)]
pub(super) struct Told {
    next: u64,
    /// Of each agent with live tasks: the number of the last `Accept` or `Stage`.
    last: BTreeMap<AgentId, u64>,
    /// Of each framework's shard: the highest number heard from its leader.
    heard: Vec<u64>,
}

impl Told {
    pub fn new(shards: u16) -> Self {
        Self { next: 1, last: BTreeMap::new(), heard: vec![0; usize::from(shards)] }
    }

    /// A leader begins: its numbers are above those of the one before, as far as clocks agree.
    pub fn lead(&mut self, now: Time) {
        self.next = self.next.max(now.0 << 20);
    }

    /// Something is said of `agent`: its number.
    pub fn say(&mut self, agent: AgentId) -> u64 {
        self.next += 1;
        self.last.insert(agent, self.next);
        self.next
    }

    /// No task is live on `agent`.
    pub fn forget(&mut self, agent: AgentId) {
        self.last.remove(&agent);
    }

    /// Whether all that was said of `agent` is among what was heard up to `seen`.
    pub fn is_known(&self, agent: AgentId, seen: u64) -> bool {
        self.last.get(&agent).is_none_or(|last| *last <= seen)
    }

    /// `from` said something.
    pub fn hear(&mut self, from: ShardId, number: u64) {
        if let Some(heard) = self.heard.get_mut(usize::from(from.0)) {
            *heard = number.max(*heard);
        }
    }

    /// `from` has a new leader, or was out of hearing.
    pub fn hear_anew(&mut self, from: ShardId) {
        if let Some(heard) = self.heard.get_mut(usize::from(from.0)) {
            *heard = 0;
        }
    }

    /// Up to where `from` was heard.
    pub fn heard(&self, from: ShardId) -> u64 {
        self.heard.get(usize::from(from.0)).copied().unwrap_or(0)
    }
}
