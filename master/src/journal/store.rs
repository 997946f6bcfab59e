//! One group's log as the consensus engine sees it.

use super::index::entry_bytes;
use super::log::Log;
use super::raft::{Ballot, Entry, EntryId, Types};
use super::recover::Item;
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader, StorageError, StorageIOError};
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

/// Bytes of entries that are sent to another member at once.
const SENT_BYTES_MAX: usize = 512 << 10;

/// One group's part of the log.
#[derive(Clone, Debug)]
pub struct Store {
    log: Arc<Log>,
    group: u16,
}

impl Store {
    /// The part of `group`, which is a shard's number.
    pub const fn new(log: Arc<Log>, group: u16) -> Self {
        Self { log, group }
    }
}

fn unreadable(error: &io::Error) -> StorageError<u64> {
    StorageIOError::read_logs(error).into()
}

fn unwritable(error: &io::Error) -> StorageError<u64> {
    StorageIOError::write_logs(error).into()
}

impl RaftLogReader<Types> for Store {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError<u64>> {
        let have = self.log.group(self.group).range();
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.log.read(self.group, start.max(have.start)..end.min(have.end)).map_err(|error| unreadable(&error))
    }

    /// What is sent to another member at once: at least one entry, then as many as there are within [`SENT_BYTES_MAX`].
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError<u64>> {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for at in start..end {
            let Some(entry) = self.log.read(self.group, at..at + 1).map_err(|error| unreadable(&error))?.pop() else { break };
            bytes += entry_bytes(&entry);
            if bytes > SENT_BYTES_MAX && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}

impl RaftLogStorage<Types> for Store {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError<u64>> {
        let index = self.log.group(self.group);
        Ok(LogState { last_purged_log_id: index.purged, last_log_id: index.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, ballot: &Ballot) -> Result<(), StorageError<u64>> {
        self.log.group(self.group).ballot = Some(*ballot);
        let written = self.log.mark(Item::Ballot { group: self.group, ballot: *ballot }).await;
        written.map_err(|error| StorageIOError::write_vote(&error).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Ballot>, StorageError<u64>> {
        Ok(self.log.group(self.group).ballot)
    }

    /// Written with the next flush: it only spares a follower some waiting when it starts.
    async fn save_committed(&mut self, id: Option<EntryId>) -> Result<(), StorageError<u64>> {
        self.log.group(self.group).committed = id;
        self.log.mark_some_time(Item::Committed { group: self.group, id });
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<EntryId>, StorageError<u64>> {
        // What is said to be committed may have been said before the entry itself was flushed, on a member that was told so.
        let index = self.log.group(self.group);
        Ok(index.committed.filter(|id| index.last.is_some_and(|last| id.index <= last.index)))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError<u64>>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.log.append(self.group, entries.into_iter().collect(), callback);
        Ok(())
    }

    async fn truncate(&mut self, from: EntryId) -> Result<(), StorageError<u64>> {
        let before = from.index.checked_sub(1);
        let last = match before {
            Some(before) => self.log.read(self.group, before..from.index).map_err(|error| unreadable(&error))?.pop().map(|e| e.log_id),
            None => None,
        };
        let last = last.or(self.log.group(self.group).purged);
        self.log.group(self.group).truncate(from.index, last);
        let item = Item::Truncate { group: self.group, from: from.index, last };
        self.log.mark(item).await.map_err(|error| unwritable(&error))
    }

    async fn purge(&mut self, upto: EntryId) -> Result<(), StorageError<u64>> {
        self.log.mark(Item::Purge { group: self.group, upto }).await.map_err(|error| unwritable(&error))?;
        self.log.group(self.group).purge(upto);
        self.log.release();
        Ok(())
    }
}
