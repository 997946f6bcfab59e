//! What stands on the disk of a replica: batches of records behind a snapshot, the last of them perhaps not for certain yet.

use master::shard::{Record, Shard, ShardConfig, ShardSnapshot};
use protocol::Time;
use std::sync::Arc;

/// A record, when it was decided, and whether that was right as far as could be seen then.
#[derive(Clone, Debug)]
pub struct Note {
    /// The record.
    pub record: Record,
    /// The true time.
    pub made: Time,
    /// The promise that it breaks, should it be committed.
    pub broken: Option<String>,
}

/// A batch of records in a log.
#[derive(Debug)]
pub struct Entry {
    /// Of the leader that made it.
    pub term: u64,
    /// The records; none in the first one of a leader.
    pub notes: Vec<Note>,
}

/// What a log begins behind: the state up to there, as bytes.
#[derive(Clone, Debug, Default)]
pub struct Base {
    /// The last entry that is in it.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    bytes: Option<Arc<Vec<u8>>>,
}

/// A replica's log. Entries are counted from 1.
#[derive(Debug, Default)]
pub struct Log {
    /// What it begins behind.
    pub base: Base,
    entries: Vec<Arc<Entry>>,
    /// Up to where the disk has it.
    pub durable: u64,
}

impl Log {
    /// Index and term of its last entry.
    pub fn last(&self) -> (u64, u64) {
        (self.base.index + self.entries.len() as u64, self.entries.last().map_or(self.base.term, |entry| entry.term))
    }

    /// The entry at `index`, where it is kept.
    pub fn entry(&self, index: u64) -> Option<&Arc<Entry>> {
        self.entries.get(usize::try_from(index.checked_sub(self.base.index + 1)?).ok()?)
    }

    /// At most `most` entries from `index` on, which comes behind its base.
    pub fn from(&self, index: u64, most: usize) -> Vec<Arc<Entry>> {
        self.entries.get(self.place(index)..).unwrap_or_default().iter().take(most).cloned().collect()
    }

    /// The term of the entry at `index`.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.base.index { Some(self.base.term) } else { self.entry(index).map(|entry| entry.term) }
    }

    fn place(&self, index: u64) -> usize {
        usize::try_from(index - self.base.index - 1).expect("a log fits")
    }

    /// Puts an entry behind its last.
    pub fn push(&mut self, entry: Arc<Entry>) {
        self.entries.push(entry);
    }

    /// Puts an entry at `index`, in place of all that is there and behind; nothing where the same is there.
    pub fn put(&mut self, index: u64, entry: Arc<Entry>) {
        if index > self.base.index && self.term_at(index) != Some(entry.term) {
            self.cut(index - 1);
            self.push(entry);
        }
    }

    /// Cuts off what is behind `index`.
    pub fn cut(&mut self, index: u64) {
        self.entries.truncate(self.place(index.max(self.base.index) + 1));
        self.durable = self.durable.min(index.max(self.base.index));
    }

    /// The state that it begins behind.
    pub fn restored(&self, config: &ShardConfig) -> Shard {
        match &self.base.bytes {
            None => Shard::new(config.clone()),
            Some(bytes) => {
                let snapshot: ShardSnapshot = postcard::from_bytes(bytes).expect("a snapshot that was written can be read");
                Shard::restore(config.clone(), snapshot)
            }
        }
    }

    /// The shard that it makes, committed or not; and the time of its latest record.
    pub fn fold(&self, config: &ShardConfig) -> (Shard, Time) {
        let mut shard = self.restored(config);
        let mut latest = Time::ZERO;
        for note in self.entries.iter().flat_map(|entry| &entry.notes) {
            shard.apply(&note.record);
            latest = latest.max(note.record.at());
        }
        (shard, latest)
    }

    /// Keeps a snapshot of `folded` in place of all up to `index`.
    pub fn compact(&mut self, index: u64, folded: &Shard) {
        let Some(term) = self.term_at(index) else { return };
        let bytes = postcard::to_allocvec(&folded.snapshot()).expect("a snapshot is plain data");
        self.rebase(Base { index, term, bytes: Some(Arc::new(bytes)) });
    }

    /// Begins behind `base` from now on; keeps what comes behind it, where that does.
    pub fn rebase(&mut self, base: Base) {
        if self.term_at(base.index) == Some(base.term) {
            drop(self.entries.drain(..usize::try_from(base.index - self.base.index).expect("a log fits")));
            self.durable = self.durable.max(base.index);
        } else {
            self.entries.clear();
            self.durable = base.index;
        }
        self.base = base;
    }
}
