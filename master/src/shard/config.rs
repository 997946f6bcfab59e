//! What a shard is told once, when it is made. Knows no file and no flag.

use protocol::ShardId;

/// What a shard is told once. The same for all shards of a cluster but for `id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardConfig {
    /// Which shard this is; below `shards`.
    pub id: ShardId,
    /// How many shards the cluster has; at least 1.
    pub shards: u16,
    /// How often agents beat, in milliseconds.
    pub heartbeat_ms: u64,
    /// Silence after which an agent is called unreachable, in milliseconds.
    pub unreachable_ms: u64,
    /// Silence after which an agent's tasks are replaced, in milliseconds; longer than `unreachable_ms`.
    pub replace_after_ms: u64,
    /// Where at least this share of a shard's agents is silent, in percent, it is not them that failed but the way to them: their tasks are
    /// replaced only after `mass_replace_after_ms`.
    pub mass_percent: u32,
    /// Silence after which tasks are replaced even where most agents are silent, in milliseconds.
    pub mass_replace_after_ms: u64,
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
            offer_ms: 5_000,
            demand_ms: 1_000,
            history_tasks_max: 2_000_000,
            jobs_live_max: 1_000_000,
        }
    }
}
