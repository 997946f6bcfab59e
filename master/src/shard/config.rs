//! What a shard is told once, when it is made. Knows no file and no flag.

use protocol::ShardId;

/// How long fenced attempts run after the sending of a beat that was answered, in milliseconds, where agents are replaced late enough.
pub const LEASE_MS: u64 = 5_000;
/// What clocks may differ in rate, in percent.
const DRIFT_PERCENT: u64 = 1;
/// From the end of a lease until what it held is dead, in milliseconds: an executor's timer, and a kill.
const LEASE_GRACE_MS: u64 = 1_000;

/// Beats that a shard takes in a second, before it asks for fewer.
const BEATS_PER_S: u64 = 1_250;
/// Beats within a lease, at the least: one may be lost, and the next late.
const LEASE_BEATS: u64 = 3;
/// Beats that are missed until an agent is called unreachable, where they are rare.
const MISSED_BEATS: u64 = 4;

/// What a shard is told once. The same for all shards of a cluster but for `id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardConfig {
    /// Which shard this is; below `shards`.
    pub id: ShardId,
    /// How many shards the cluster has; at least 1.
    pub shards: u16,
    /// How often agents beat, in milliseconds, where there are not so many that they are told to beat less often: see [`Self::beat_ms`].
    pub heartbeat_ms: u64,
    /// Silence after which an agent is called unreachable, in milliseconds; where agents beat less often, four beats of theirs.
    pub unreachable_ms: u64,
    /// Silence after which an agent's tasks are replaced, in milliseconds; longer than `unreachable_ms`.
    pub replace_after_ms: u64,
    /// Where at least this share of a shard's agents is silent, in percent, it is not them that failed but the way to them: their tasks are
    /// replaced only after `mass_replace_after_ms`.
    pub mass_percent: u32,
    /// Silence after which tasks are replaced even where most agents are silent, in milliseconds.
    pub mass_replace_after_ms: u64,
    /// How long fenced attempts run after the sending of a beat that was answered, in milliseconds: several beats, and so much less than
    /// `replace_after_ms` that [`Self::lease_over_ms`] is within it.
    pub lease_ms: u64,
    /// How long an offer holds, in milliseconds: several journal flushes and a hop to another shard and back.
    pub offer_ms: u64,
    /// How often an unmet demand is said again, in milliseconds.
    pub demand_ms: u64,
    /// Tasks of ended jobs that are kept; beyond it the jobs that ended first are forgotten, with their keys.
    pub history_tasks_max: usize,
    /// Jobs that may live at once; beyond it a submission is answered with `Busy`.
    pub jobs_live_max: usize,
}

impl Default for ShardConfig {
    fn default() -> Self {
        Self {
            id: ShardId(0),
            shards: 1,
            heartbeat_ms: 500,
            unreachable_ms: 2_000,
            replace_after_ms: 30_000,
            mass_percent: 50,
            mass_replace_after_ms: 300_000,
            lease_ms: LEASE_MS,
            offer_ms: 5_000,
            demand_ms: 1_000,
            history_tasks_max: 2_000_000,
            jobs_live_max: 1_000_000,
        }
    }
}

impl ShardConfig {
    /// The same, with agents replaced after this silence, and leases that are over by then.
    #[must_use]
    pub fn replaced_after(self, replace_after_ms: u64) -> Self {
        let longest_ms = replace_after_ms.saturating_sub(LEASE_GRACE_MS) * 100 / (100 + 2 * DRIFT_PERCENT + 1);
        Self { replace_after_ms, lease_ms: LEASE_MS.min(longest_ms), ..self }
    }

    /// How often each of so many agents is to beat, in milliseconds: so that all together beat no more than 625 times a second, yet three
    /// times within a lease.
    #[must_use]
    pub fn beat_ms(&self, agents: usize) -> u64 {
        let spread_ms = u64::try_from(agents).unwrap_or(u64::MAX).saturating_mul(1_000) / BEATS_PER_S;
        spread_ms.min(self.lease_ms / LEASE_BEATS).max(self.heartbeat_ms)
    }

    /// How long an agent that beats so often is silent until it is called unreachable, in milliseconds.
    #[must_use]
    pub fn unreachable_at(&self, beat_ms: u64) -> u64 {
        (beat_ms * MISSED_BEATS).clamp(self.unreachable_ms, self.replace_after_ms.max(self.unreachable_ms))
    }

    /// Milliseconds after an agent was last answered until nothing fenced is alive there, by this machine's clock, though one of the two runs
    /// slow and the other fast.
    #[must_use]
    pub const fn lease_over_ms(&self) -> u64 {
        self.lease_ms + (self.lease_ms * 2 * DRIFT_PERCENT).div_ceil(100) + LEASE_GRACE_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_agents_beat_less_often_and_never_too_seldom_for_a_lease() {
        let config = ShardConfig::default();
        assert_eq!([0, 625, 1_250, 1_000_000].map(|agents| config.beat_ms(agents)), [500, 500, 1_000, 1_666]);
        assert_eq!([500, 1_000, 1_666].map(|beat_ms| config.unreachable_at(beat_ms)), [2_000, 4_000, 6_664]);
        for replace_after_ms in [2_001, 3_000, 10_000, 30_000] {
            let config = ShardConfig::default().replaced_after(replace_after_ms);
            assert!(config.unreachable_at(config.beat_ms(100_000)) <= replace_after_ms, "{config:?}");
        }
    }

    #[test]
    fn a_lease_is_over_before_an_agent_is_replaced() {
        for replace_after_ms in [2_001, 2_500, 6_099, 6_100, 6_101, 30_000, 86_400_000] {
            let config = ShardConfig::default().replaced_after(replace_after_ms);
            assert!(config.lease_over_ms() <= replace_after_ms, "{config:?}");
        }
        assert_eq!(ShardConfig::default().lease_over_ms(), 6_100);
    }
}
