//! Where the entries of one group are: twelve bytes for each on disk, and the last few in memory.

use super::raft::{Ballot, Entry, EntryId};
use openraft::EntryPayload;
use std::collections::VecDeque;
use std::ops::Range;

/// Entries kept in memory: what is committed next is among them.
const TAIL_ENTRIES_MAX: usize = 64;
/// Most bytes of them, but for those that are not written yet.
const TAIL_BYTES_MAX: usize = 4 << 20;

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The segment, by its sequence.
    pub segment: u32,
    /// Where its frame begins.
    pub frame: u32,
    /// Where it begins in the frame's body.
    pub item: u32,
}

/// What one group has in the log.
#[derive(Debug, Default)]
pub struct GroupIndex {
    /// Its last vote.
    pub ballot: Option<Ballot>,
    /// The last entry that was said to be committed; may be behind.
    pub committed: Option<EntryId>,
    /// The last entry that is no longer needed.
    pub purged: Option<EntryId>,
    /// The last entry.
    pub last: Option<EntryId>,
    /// The index of the first place.
    first: u64,
    /// `None` while an entry is not written yet.
    places: VecDeque<Option<Place>>,
    tail: VecDeque<Entry>,
    tail_bytes: usize,
    /// Bytes of the entries whose places are here, about.
    bytes: u64,
}

impl GroupIndex {
    /// The indices of the entries that are here.
    pub fn range(&self) -> Range<u64> {
        self.first..self.first + self.places.len() as u64
    }

    /// Bytes of the entries that are here, about.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The segment of the first entry that is here.
    pub fn oldest_segment(&self) -> Option<u32> {
        self.places.front().copied().flatten().map(|place| place.segment)
    }

    /// Takes an entry in that follows the last, or is the first. Returns false where it does not follow.
    pub fn push(&mut self, id: EntryId, bytes: usize, place: Option<Place>) -> bool {
        if self.places.is_empty() {
            self.first = id.index;
        } else if id.index != self.range().end {
            return false;
        }
        self.places.push_back(place);
        self.last = Some(id);
        self.bytes += bytes as u64;
        true
    }

    /// Keeps an entry that was pushed in memory.
    pub fn remember(&mut self, entry: Entry) {
        self.tail_bytes += entry_bytes(&entry);
        self.tail.push_back(entry);
        while self.tail.len() > TAIL_ENTRIES_MAX || self.tail_bytes > TAIL_BYTES_MAX {
            let written = self.tail.front().is_some_and(|entry| self.place(entry.log_id.index).is_some());
            if !written {
                break;
            }
            self.tail_bytes -= self.tail.pop_front().as_ref().map_or(0, entry_bytes);
        }
    }

    /// Says where an entry was written.
    pub fn written(&mut self, index: u64, place: Place) {
        let at = index.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(slot) = at.and_then(|at| self.places.get_mut(at)) {
            *slot = Some(place);
        }
    }

    /// Where an entry was written; `None` where it is not here or not written.
    pub fn place(&self, index: u64) -> Option<Place> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.places.get(at).copied().flatten()
    }

    /// An entry that is still in memory.
    pub fn remembered(&self, index: u64) -> Option<&Entry> {
        let first = self.tail.front()?.log_id.index;
        self.tail.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    /// Forgets the entries from `index` on; `last` is what the entry before it is then.
    pub fn truncate(&mut self, index: u64, last: Option<EntryId>) {
        let keep = usize::try_from(index.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.shrink(|places| places.truncate(keep));
        while self.tail.back().is_some_and(|entry| entry.log_id.index >= index) {
            self.tail_bytes -= self.tail.pop_back().as_ref().map_or(0, entry_bytes);
        }
        self.last = last;
    }

    /// Forgets the entries up to `upto`, itself among them.
    pub fn purge(&mut self, upto: EntryId) {
        if self.purged.is_none_or(|purged| purged.index < upto.index) {
            self.purged = Some(upto);
        }
        let gone = usize::try_from((upto.index + 1).saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.places.len());
        self.shrink(|places| drop(places.drain(..gone)));
        self.first += gone as u64;
        while self.tail.front().is_some_and(|entry| entry.log_id.index <= upto.index) {
            self.tail_bytes -= self.tail.pop_front().as_ref().map_or(0, entry_bytes);
        }
        if self.last.is_none_or(|last| last.index < upto.index) {
            self.last = Some(upto);
        }
    }

    /// Changes the places and takes the bytes of those that went, as if all were of one size.
    fn shrink(&mut self, change: impl FnOnce(&mut VecDeque<Option<Place>>)) {
        let before = self.places.len() as u64;
        change(&mut self.places);
        self.bytes = (self.bytes * self.places.len() as u64).checked_div(before).unwrap_or(0);
        self.places.shrink_to(self.places.len().saturating_mul(2));
    }
}

/// Bytes of an entry's records.
pub fn entry_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(batch) => batch.0.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}
