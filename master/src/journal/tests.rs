//! The journal on real files: what is appended is read back, what is torn is cut, what is damaged is refused, what fails is not told.

mod damage;
mod failure;
mod members;
pub(crate) mod shards;

use super::log::{Log, LogConfig};
use super::machine::Machine;
use super::raft::{Batch, Entry, EntryId};
use super::recover::Item;
use super::snapshot_path;
use super::store::Store;
use crate::shard::Record;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::{CommittedLeaderId, EntryPayload, RaftLogReader, RaftSnapshotBuilder};
use protocol::{AgentId, Time};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A directory of its own for each test, removed when it passes.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("skep-journal-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

fn config() -> LogConfig {
    LogConfig { segment_bytes: 1 << 20, snapshot_bytes: 1 << 20, segments_behind_max: 2, ..LogConfig::default() }
}

fn open(dir: &Path) -> Arc<Log> {
    Arc::new(Log::open(dir, 2, config()).unwrap())
}

fn id(index: u64) -> EntryId {
    EntryId::new(CommittedLeaderId::new(1, 1), index)
}

fn record(n: u64) -> Record {
    Record::AgentGone { agent: AgentId(n), at: Time(n) }
}

fn entry(index: u64) -> Entry {
    Entry { log_id: id(index), payload: EntryPayload::Normal(Batch::encode(1, &[record(index)])) }
}

async fn append(log: &Arc<Log>, group: u16, indices: std::ops::Range<u64>) {
    Store::new(Arc::clone(log), group).blocking_append(indices.map(entry)).await.unwrap();
}

async fn all(log: &Arc<Log>, group: u16) -> Vec<Entry> {
    Store::new(Arc::clone(log), group).try_get_log_entries(..).await.unwrap()
}

fn entries(indices: std::ops::Range<u64>) -> Vec<Entry> {
    indices.map(entry).collect()
}

#[tokio::test]
async fn what_is_appended_is_read_back_before_and_after_opening_again() {
    let dir = Scratch::new();
    let log = open(&dir.0);
    for index in 0..300 {
        append(&log, 0, index..index + 1).await;
    }
    append(&log, 1, 0..200).await;
    let vote = openraft::Vote::new_committed(7, 1);
    Store::new(Arc::clone(&log), 1).save_vote(&vote).await.unwrap();
    assert_eq!(all(&log, 0).await, entries(0..300));
    drop(log);
    let log = open(&dir.0);
    assert_eq!(all(&log, 0).await, entries(0..300));
    assert_eq!(all(&log, 1).await, entries(0..200));
    let mut store = Store::new(Arc::clone(&log), 1);
    assert_eq!(store.read_vote().await.unwrap(), Some(vote));
    assert_eq!(store.try_get_log_entries(150..160).await.unwrap(), entries(150..160));
    let state = store.get_log_state().await.unwrap();
    assert_eq!((state.last_log_id, state.last_purged_log_id), (Some(id(199)), None));
}

#[tokio::test]
async fn what_is_truncated_or_purged_is_gone_for_good() {
    let dir = Scratch::new();
    let log = open(&dir.0);
    append(&log, 0, 0..10).await;
    let mut store = Store::new(Arc::clone(&log), 0);
    store.truncate(id(6)).await.unwrap();
    append(&log, 0, 6..8).await;
    store.purge(id(2)).await.unwrap();
    assert_eq!(all(&log, 0).await, entries(3..8));
    drop((store, log));
    let log = open(&dir.0);
    assert_eq!(all(&log, 0).await, entries(3..8));
    let state = Store::new(Arc::clone(&log), 0).get_log_state().await.unwrap();
    assert_eq!((state.last_log_id, state.last_purged_log_id), (Some(id(7)), Some(id(2))));
    let mut store = Store::new(Arc::clone(&log), 0);
    store.purge(id(7)).await.unwrap();
    assert_eq!(all(&log, 0).await, []);
    append(&log, 0, 8..9).await;
    drop((store, log));
    assert_eq!(all(&open(&dir.0), 0).await, entries(8..9));
}

#[tokio::test]
async fn segments_that_nobody_needs_are_used_again_or_removed() {
    let dir = Scratch::new();
    let log = open(&dir.0);
    let big = |index| Entry { log_id: id(index), payload: EntryPayload::Normal(Batch(vec![index as u8; 100_000].into())) };
    let mut store = Store::new(Arc::clone(&log), 0);
    for round in 0..10 {
        for index in round * 20..round * 20 + 20 {
            store.blocking_append([big(index)]).await.unwrap();
        }
        store.purge(id(round * 20 + 14)).await.unwrap();
    }
    // The last five entries, the segment that is written, and at most one that is to be used again and one that is made ahead.
    log.mark(Item::Closed).await.unwrap();
    let used: u64 = fs::read_dir(&dir.0).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(used <= 5 << 20, "{used} bytes for 500 KB of entries");
    drop((store, log));
    let log = open(&dir.0);
    assert_eq!(all(&log, 0).await, (195..200).map(big).collect::<Vec<_>>());
    // One that is larger than a segment gets a segment of its own.
    let huge = Entry { log_id: id(200), payload: EntryPayload::Normal(Batch(vec![7; 3 << 20].into())) };
    Store::new(Arc::clone(&log), 0).blocking_append([huge.clone()]).await.unwrap();
    append(&log, 0, 201..203).await;
    drop(log);
    let all = all(&open(&dir.0), 0).await;
    assert_eq!(all[5..], [huge, entry(201), entry(202)]);
}

#[tokio::test]
async fn two_processes_never_write_one_journal() {
    let dir = Scratch::new();
    let log = open(&dir.0);
    let error = Log::open(&dir.0, 2, config()).unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
    drop(log);
    open(&dir.0);
}

#[tokio::test]
async fn a_snapshot_that_was_received_is_not_replaced_by_an_older_one_that_was_being_made() {
    let (scratch, other) = (Scratch::new(), Scratch::new());
    let machine = |dir: &Path| {
        let (log, snapshots) = (open(&dir.join("log")), dir.to_owned());
        (Arc::clone(&log), Machine::open(log, &snapshots, shards::shard_config(0)).unwrap())
    };
    let (log, mut ours) = machine(&scratch.0);
    append(&log, 0, 0..10).await;
    ours.apply(entries(0..5)).await.unwrap();
    let mut making = ours.get_snapshot_builder().await;

    let (their_log, mut theirs) = machine(&other.0);
    append(&their_log, 0, 0..10).await;
    theirs.apply(entries(0..10)).await.unwrap();
    let sent = theirs.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let received = ours.begin_receiving_snapshot().await.unwrap();
    fs::copy(snapshot_path(&other.0, 0), snapshot_path(&scratch.0, 0).with_extension("received")).unwrap();
    ours.install_snapshot(&sent.meta, received).await.unwrap();
    Store::new(Arc::clone(&log), 0).purge(id(9)).await.unwrap();

    let made = making.build_snapshot().await.unwrap();
    assert_eq!(made.meta.last_log_id, Some(id(9)));
    assert!(Machine::open(log, &scratch.0, shards::shard_config(0)).is_ok(), "the log lacks what is in the received one");
}
