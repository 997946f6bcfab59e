//! When agents were heard of, and when so many of a shard's are silent at once that it is a cut, and they are not given up.

use super::{Check, MASS_AGENTS, REPLACED_SLACK_MS, SKEW_MS};
use protocol::message::shard_of_agent;
use protocol::{AgentId, ShardId, Time};
use std::ops::Range;

/// How long agents have to come back once most are not silent any more, in milliseconds.
const BACK_MS: u64 = 10_000;

impl Check {
    /// A leader began to lead: it gives each of its agents time to say that it lives.
    pub fn leader_began(&mut self, now: Time, agents: impl Iterator<Item = AgentId>) {
        self.leader_since = now;
        // One whose registration never came to be on record is not known to it.
        let known: Vec<AgentId> = agents.filter(|agent| self.seen.contains(agent)).collect();
        known.into_iter().for_each(|agent| self.heard(now, agent));
    }

    /// An agent's words arrived at the leader of its shard.
    pub fn heard(&mut self, now: Time, agent: AgentId) {
        if self.gone.contains_key(&agent) {
            return;
        }
        let before = self.heard.insert(agent, now).unwrap_or(now);
        if self.is_long(now.since(before)) {
            self.came_back.insert(agent, now);
        }
    }

    /// Notes of which shards most agents are silent now.
    pub(super) fn see_mass(&mut self, now: Time) {
        let is_silent = |heard: &Time| now.since(*heard) >= self.unreachable_ms;
        if self.heard.values().filter(|heard| is_silent(heard)).count() < MASS_AGENTS {
            return;
        }
        for shard in (0..self.shards).map(ShardId) {
            if self.silent_in(now, shard, self.unreachable_ms..u64::MAX) >= MASS_AGENTS {
                self.mass.insert(shard, now);
            }
        }
    }

    /// Whether most agents of the agent's shard were silent a moment ago: those that are still silent are left the time to come back.
    pub(super) fn may_come_back(&self, now: Time, agent: AgentId) -> bool {
        let ms = BACK_MS + REPLACED_SLACK_MS + if self.several { SKEW_MS } else { 0 };
        self.mass.get(&shard_of_agent(agent, self.shards)).is_some_and(|mass| now.since(*mass) <= ms)
    }

    /// How many agents of a shard have been silent for such a time.
    pub(super) fn silent_in(&self, now: Time, shard: ShardId, ms: Range<u64>) -> usize {
        let here = self.heard.iter().filter(|(agent, _)| shard_of_agent(**agent, self.shards) == shard);
        here.filter(|(agent, heard)| ms.contains(&now.since(**heard)) && !self.gone.contains_key(agent)).count()
    }
}
