//! The offers for one want that its shard had not counted when it said how much it wants: how many tasks they are for in all, without looking
//! at each, since a want of a large job has thousands of them out.

use std::collections::VecDeque;

/// They.
#[derive(Debug, Default)]
pub struct Uncounted {
    /// The number of each, which only rises, and for how many tasks it is.
    offers: VecDeque<(u64, u32)>,
    tasks: u64,
}

impl Uncounted {
    /// For how many tasks they all are.
    pub const fn tasks(&self) -> u64 {
        self.tasks
    }

    /// One more, with a number above all others.
    pub fn push(&mut self, number: u64, tasks: u32) {
        self.offers.push_back((number, tasks));
        self.tasks += u64::from(tasks);
    }

    /// One is out no more, or was counted. False where it was already.
    pub fn remove(&mut self, number: u64) -> bool {
        let at = self.offers.binary_search_by_key(&number, |(number, _)| *number).ok();
        let removed = at.and_then(|at| self.offers.remove(at));
        self.tasks -= removed.map_or(0, |(_, tasks)| u64::from(tasks));
        removed.is_some()
    }

    /// All up to this number have been counted.
    pub fn counted(&mut self, upto: u64) {
        while let Some((_, tasks)) = self.offers.pop_front_if(|(number, _)| *number <= upto) {
            self.tasks -= u64::from(tasks);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_out_counts_no_more() {
        let mut uncounted = Uncounted::default();
        [(3, 5), (4, 1), (9, 7), (12, 2)].into_iter().for_each(|(number, tasks)| uncounted.push(number, tasks));
        assert_eq!(uncounted.tasks(), 15);
        uncounted.remove(9);
        uncounted.remove(9);
        uncounted.remove(5);
        assert_eq!(uncounted.tasks(), 8);
        uncounted.counted(4);
        assert_eq!(uncounted.tasks(), 2);
        uncounted.counted(u64::MAX);
        assert_eq!(uncounted.tasks(), 0);
    }
}
