//! Which attempts were ever taken on, in little memory: of each job, ranges of indexes and the highest number taken on of each. The number
//! of a task's attempts only rises, so a lower one is an old one.

use protocol::JobId;
use std::collections::{BTreeMap, VecDeque};

/// Most ranges remembered, of all jobs together; over it the job that came first is forgotten. A job whose tasks come in order is one.
pub const KNOWN_RANGES_MAX: usize = 65_536;

/// First index to last index and number.
type Ranges = BTreeMap<u32, (u32, u32)>;

/// Attempts that were taken on.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    jobs: BTreeMap<JobId, Ranges>,
    /// In the order in which they came.
    order: VecDeque<JobId>,
    ranges: usize,
}

impl Known {
    pub(super) fn contains(&self, job: JobId, index: u32, number: u32) -> bool {
        let range = self.jobs.get(&job).and_then(|ranges| find(ranges, index));
        range.is_some_and(|(_, _, highest)| number <= highest)
    }

    pub(super) fn insert(&mut self, job: JobId, index: u32, number: u32) {
        if !self.jobs.contains_key(&job) {
            self.order.push_back(job);
        }
        let ranges = self.jobs.entry(job).or_default();
        let before = ranges.len();
        insert(ranges, index, number);
        self.ranges = self.ranges - before + ranges.len();
        while self.ranges > KNOWN_RANGES_MAX && self.order.len() > 1 {
            let oldest = self.order.pop_front().expect("there are two");
            self.ranges -= self.jobs.remove(&oldest).map_or(0, |ranges| ranges.len());
        }
        if self.ranges > KNOWN_RANGES_MAX {
            // One job alone is over: its lowest indexes are the oldest.
            self.jobs.get_mut(&job).and_then(Ranges::pop_first).expect("it has that many ranges");
            self.ranges -= 1;
        }
    }

    /// Puts back what [`Known::iter`] gave.
    pub(super) fn restore(&mut self, job: JobId, ranges: &[(u32, u32, u32)]) {
        if self.jobs.contains_key(&job) || self.ranges + ranges.len() > KNOWN_RANGES_MAX {
            return;
        }
        self.order.push_back(job);
        let ranges: Ranges = ranges.iter().filter(|(first, last, _)| first <= last).map(|(a, b, n)| (*a, (*b, *n))).collect();
        self.ranges += ranges.len();
        self.jobs.insert(job, ranges);
    }

    /// Each job in the order in which it came, and its ranges.
    pub(super) fn iter(&self) -> impl Iterator<Item = (JobId, Vec<(u32, u32, u32)>)> {
        let listed = |ranges: &Ranges| ranges.iter().map(|(first, (last, number))| (*first, *last, *number)).collect();
        self.order.iter().filter_map(move |job| self.jobs.get(job).map(|ranges| (*job, listed(ranges))))
    }
}

fn find(ranges: &Ranges, index: u32) -> Option<(u32, u32, u32)> {
    let (first, (last, number)) = ranges.range(..=index).next_back()?;
    (index <= *last).then_some((*first, *last, *number))
}

fn insert(ranges: &mut Ranges, index: u32, number: u32) {
    if let Some((first, last, highest)) = find(ranges, index) {
        if number <= highest {
            return;
        }
        ranges.remove(&first);
        if first < index {
            ranges.insert(first, (index - 1, highest));
        }
        if index < last {
            ranges.insert(index + 1, (last, highest));
        }
    }
    let left = ranges.range(..index).next_back().map(|(first, (last, n))| (*first, *last, *n));
    let first = left.filter(|(_, last, n)| *last + 1 == index && *n == number).map_or(index, |(first, ..)| first);
    let right = index.checked_add(1).and_then(|next| ranges.get(&next).copied().map(|(last, n)| (next, last, n)));
    let last = right.filter(|(_, _, n)| *n == number).map_or(index, |(next, last, _)| {
        ranges.remove(&next);
        last
    });
    ranges.insert(first, (last, number));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_order_is_one_range() {
        let mut known = Known::default();
        let job = JobId(1);
        for index in (0..1_000).chain(2_000..3_000).chain((1_000..2_000).rev()) {
            assert!(!known.contains(job, index, 1));
            known.insert(job, index, 1);
            assert!(known.contains(job, index, 1) && !known.contains(job, index, 2));
        }
        assert_eq!(known.iter().collect::<Vec<_>>(), [(job, vec![(0, 2_999, 1)])]);
        known.insert(job, u32::MAX, 1);
        known.insert(job, 5, 3);
        known.insert(job, 5, 2);
        let ranges = vec![(0, 4, 1), (5, 5, 3), (6, 2_999, 1), (u32::MAX, u32::MAX, 1)];
        assert_eq!(known.iter().collect::<Vec<_>>(), [(job, ranges.clone())]);
        let mut again = Known::default();
        again.restore(job, &ranges);
        assert!(again.contains(job, 5, 2) && !again.contains(job, 6, 2) && again.ranges == 4);
    }

    #[test]
    fn memory_is_bounded() {
        let mut known = Known::default();
        for index in 0..KNOWN_RANGES_MAX as u32 + 10 {
            known.insert(JobId(1), index * 2, 1);
        }
        assert_eq!(known.ranges, KNOWN_RANGES_MAX);
        known.insert(JobId(2), 7, 1);
        assert_eq!((known.ranges, known.jobs.len()), (1, 1));
    }
}
