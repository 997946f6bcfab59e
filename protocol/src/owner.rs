//! Which shard owns what, and a number for each attempt: the same wherever it is worked out.

use crate::{AgentId, AttemptId, JobId, Role, ShardId};

/// A number for an attempt whose exclusive or over a set says, but for one chance in 2⁶⁴, which set it is: the finaliser of SplitMix64
/// (Steele, Lea and Flood, OOPSLA 2014) over its parts.
#[must_use]
pub const fn attempt_hash(attempt: AttemptId) -> u64 {
    const fn mix(value: u64) -> u64 {
        let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ value >> 31
    }
    mix(mix(attempt.task.job.0) ^ ((attempt.task.index as u64) << 32 | attempt.number as u64))
}

/// Which shard owns `agent`, by rendezvous hashing (Thaler and Ravishankar, 1996): the one whose hash with it is highest.
#[must_use]
pub fn shard_of_agent(agent: AgentId, shards: u16) -> ShardId {
    rendezvous(agent.0, shards)
}

/// Which shard owns the job of this role and name, or of this role and idempotency key where it has no name.
#[must_use]
pub fn shard_of_job(role: &Role, name_or_key: &str, shards: u16) -> ShardId {
    use sha2::Digest as _;
    let mut hash = sha2::Sha256::new();
    hash.update(role.as_str().as_bytes());
    hash.update([0]);
    hash.update(name_or_key.as_bytes());
    let hash: [u8; 32] = hash.finalize().into();
    rendezvous(u64::from_le_bytes(hash[..8].try_into().expect("8 of 32 bytes are 8 bytes")), shards)
}

fn rendezvous(key: u64, shards: u16) -> ShardId {
    assert!(shards > 0, "a cluster has at least one shard");
    let hash = |shard: &u16| attempt_hash(AttemptId::new(JobId(key), u32::from(*shard), 0));
    ShardId((0..shards).max_by_key(hash).expect("there is at least one shard"))
}
