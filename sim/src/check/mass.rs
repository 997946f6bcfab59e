//! When so many of a shard's agents are silent at once that it is a cut, and they are not given up.

use super::{Check, MASS_AGENTS};
use protocol::message::shard_of_agent;
use protocol::{ShardId, Time};
use std::ops::Range;

impl Check {
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

    /// How many agents of a shard have been silent for such a time.
    pub(super) fn silent_in(&self, now: Time, shard: ShardId, ms: Range<u64>) -> usize {
        let here = self.heard.iter().filter(|(agent, _)| shard_of_agent(**agent, self.shards) == shard);
        here.filter(|(agent, heard)| ms.contains(&now.since(**heard)) && !self.gone.contains_key(agent)).count()
    }
}
