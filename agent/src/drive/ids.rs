//! Ranges of users and groups, one for each native or container task, that no other task of this machine has.

use runtime::process::{IDS, IDS_PER_TASK};
use std::collections::BTreeSet;

/// Which are taken. The next one is always a later one, so that a range rests before it is used again.
#[derive(Debug, Default)]
pub(super) struct IdRanges {
    taken: BTreeSet<u32>,
    next: u32,
}

const RANGES: u32 = (IDS.end - IDS.start) / IDS_PER_TASK;

impl IdRanges {
    /// The first id of a free range; `None`: all are taken.
    pub fn take(&mut self) -> Option<u32> {
        let free = (0..RANGES).map(|step| (self.next + step) % RANGES).find(|range| !self.taken.contains(range))?;
        self.taken.insert(free);
        self.next = (free + 1) % RANGES;
        Some(IDS.start + free * IDS_PER_TASK)
    }

    /// One that a task has already.
    pub fn take_up(&mut self, first: u32) {
        if let Some(range) = range(first) {
            self.taken.insert(range);
        }
    }

    pub fn put_back(&mut self, first: u32) {
        if let Some(range) = range(first) {
            self.taken.remove(&range);
        }
    }
}

fn range(first: u32) -> Option<u32> {
    IDS.contains(&first).then(|| (first - IDS.start) / IDS_PER_TASK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_tasks_have_the_same_ids() {
        let mut ranges = IdRanges::default();
        ranges.take_up(IDS.start + 2 * IDS_PER_TASK);
        let all: BTreeSet<u32> = std::iter::from_fn(|| ranges.take()).collect();
        assert_eq!(all.len(), RANGES as usize - 1);
        assert!(all.iter().all(|first| IDS.contains(first) && (first - IDS.start).is_multiple_of(IDS_PER_TASK)));
        assert!(!all.contains(&(IDS.start + 2 * IDS_PER_TASK)));
        ranges.put_back(IDS.start + 7 * IDS_PER_TASK);
        ranges.put_back(1_000);
        assert_eq!((ranges.take(), ranges.take()), (Some(IDS.start + 7 * IDS_PER_TASK), None));
    }
}
