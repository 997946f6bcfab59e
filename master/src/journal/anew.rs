//! A new journal behind snapshots that came from elsewhere: their shards begin again with one member.

use super::log::{Log, LogConfig};
use super::raft::{Ballot, Members};
use super::store::Store;
use super::{JournalError, snapshot};
use crate::shard::{Shard, ShardConfig};
use openraft::storage::RaftLogStorage;
use openraft::{BasicNode, Membership};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// Makes the journal in `dir` for these shards, whose snapshots are in `snapshots`, with `member` as the only member of each group. Blocks.
///
/// # Errors
/// [`JournalError`] where a snapshot is missing or damaged, or the journal cannot be written.
pub fn found_from_snapshots(
    dir: &Path,
    snapshots: &Path,
    configs: impl ExactSizeIterator<Item = ShardConfig>,
    log: LogConfig,
    member: u64,
) -> Result<(), JournalError> {
    let groups = u16::try_from(configs.len()).expect("a cluster has at most SHARDS_MAX shards");
    let log = Arc::new(Log::open(dir, groups, log)?);
    for config in configs {
        let group = config.id.0;
        let path = snapshot::path(snapshots, group);
        let stored = snapshot::load(&path)?.ok_or_else(|| JournalError::Missing { path: path.clone() })?;
        let mut shard = Shard::restore(config, stored.state);
        shard.begin_again();
        let last = stored.head.meta.last_log_id;
        let configs = vec![BTreeSet::from([member])];
        let members = Members::new(last, Membership::new(configs, BTreeMap::from([(member, BasicNode::default())])));
        let head = snapshot::Head { meta: snapshot::meta(last, members), latest: stored.head.latest };
        snapshot::save(&path, &head, &shard.snapshot())?;
        let mut store = Store::new(Arc::clone(&log), group);
        let write = async {
            let ballot = Ballot::new(last.map_or(0, |id| id.leader_id.term) + 1, member);
            store.save_vote(&ballot).await?;
            match last {
                Some(last) => store.purge(last).await,
                None => Ok(()),
            }
        };
        futures::executor::block_on(write).map_err(|error| JournalError::Raft { shard: group, reason: error.to_string() })?;
    }
    Ok(())
}
