//! The attempts on an agent, in their order, and the class of each. A few lie side by side, since each decision about an agent looks into them, and of
//! many agents they are in no cache; more than a few are a tree.

use protocol::{AttemptId, JobId};
use std::collections::BTreeMap;

/// Most that lie side by side: what is moved where one comes or goes is no more than a page then.
const FEW_MAX: usize = 128;

/// Most that are looked at in turn.
const SCANNED_MAX: usize = 32;

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Attempts {
    /// In their order; empty where there are `many`.
    few: Vec<One>,
    many: BTreeMap<AttemptId, u32>,
}

/// An [`AttemptId`] without the gaps in it, and its class.
#[derive(Clone, Copy, Debug)]
struct One {
    job: JobId,
    index: u32,
    number: u32,
    class: u32,
}

impl One {
    const fn new(attempt: AttemptId, class: u32) -> Self {
        Self { job: attempt.task.job, index: attempt.task.index, number: attempt.number, class }
    }

    const fn id(&self) -> AttemptId {
        AttemptId::new(self.job, self.index, self.number)
    }
}

impl Attempts {
    /// Where among the few one is, or would be. Looking at all of them in turn is faster than searching where they come from memory.
    fn find(&self, attempt: &AttemptId) -> Result<usize, usize> {
        if self.few.len() > SCANNED_MAX {
            return self.few.binary_search_by(|other| other.id().cmp(attempt));
        }
        let before: usize = self.few.iter().map(|other| usize::from(other.id() < *attempt)).sum();
        if self.few.get(before).is_some_and(|other| other.id() == *attempt) { Ok(before) } else { Err(before) }
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.few.len() + self.many.len()
    }

    /// True where there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True where this one is among them.
    #[must_use]
    pub fn contains_key(&self, attempt: &AttemptId) -> bool {
        if self.many.is_empty() { self.find(attempt).is_ok() } else { self.many.contains_key(attempt) }
    }

    /// The class of one.
    #[must_use]
    pub fn get(&self, attempt: &AttemptId) -> Option<&u32> {
        if !self.many.is_empty() {
            return self.many.get(attempt);
        }
        self.find(attempt).ok().map(|at| &self.few[at].class)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, attempt: &AttemptId) -> Option<&mut u32> {
        if !self.many.is_empty() {
            return self.many.get_mut(attempt);
        }
        let at = self.find(attempt).ok()?;
        self.few.get_mut(at).map(|one| &mut one.class)
    }

    /// One comes, or gets another class.
    pub fn insert(&mut self, attempt: AttemptId, class: u32) {
        if self.few.len() >= FEW_MAX {
            self.many.extend(std::mem::take(&mut self.few).into_iter().map(|one| (one.id(), one.class)));
        }
        if !self.many.is_empty() {
            self.many.insert(attempt, class);
            return;
        }
        match self.find(&attempt) {
            Ok(at) => self.few[at].class = class,
            Err(at) => self.few.insert(at, One::new(attempt, class)),
        }
    }

    /// One goes: its class.
    pub fn remove(&mut self, attempt: &AttemptId) -> Option<u32> {
        if self.many.is_empty() {
            let at = self.find(attempt).ok()?;
            return Some(self.few.remove(at).class);
        }
        let class = self.many.remove(attempt);
        // Half of it, lest one that comes and goes moves them each time.
        if self.many.len() <= FEW_MAX / 2 {
            self.few = std::mem::take(&mut self.many).into_iter().map(|(attempt, class)| One::new(attempt, class)).collect();
        }
        class
    }

    /// All of them, and the class of each.
    pub fn iter(&self) -> impl Iterator<Item = (AttemptId, u32)> {
        let few = self.few.iter().map(|one| (one.id(), one.class));
        few.chain(self.many.iter().map(|(attempt, class)| (*attempt, *class)))
    }

    /// All of them.
    pub fn keys(&self) -> impl Iterator<Item = AttemptId> {
        self.iter().map(|(attempt, _)| attempt)
    }

    /// The class of each.
    pub fn values(&self) -> impl Iterator<Item = u32> {
        self.iter().map(|(_, class)| class)
    }

    /// Those from `first` to `last`.
    pub fn between(&self, first: &AttemptId, last: &AttemptId) -> impl Iterator<Item = AttemptId> {
        let few = self.few[self.find(first).unwrap_or_else(|at| at)..].iter().map(One::id);
        let few = few.take_while(move |attempt| attempt <= last);
        few.chain(self.many.range(first..=last).map(|(attempt, _)| *attempt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_are_as_one_tree() {
        let (mut ours, mut tree) = (Attempts::default(), BTreeMap::new());
        let mut draw = 7_u64;
        for step in 0..20_000_u64 {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // There are more and more, and then fewer again.
            let (most, comes) = (1 + (draw >> 40) % 400, (draw >> 33) % 100 < if step % 4_000 < 2_000 { 70 } else { 20 });
            let attempt = AttemptId::new(JobId(most % 7), u32::try_from(most).unwrap(), 1);
            if comes {
                ours.insert(attempt, step as u32);
                tree.insert(attempt, step as u32);
            } else {
                assert_eq!(ours.remove(&attempt), tree.remove(&attempt), "step {step}");
            }
            assert_eq!((ours.len(), ours.is_empty()), (tree.len(), tree.is_empty()));
            assert_eq!((ours.contains_key(&attempt), ours.get(&attempt)), (comes, tree.get(&attempt)));
            assert_eq!(ours.get_mut(&attempt), tree.get_mut(&attempt));
            if step % 50 == 0 {
                let same = ours.keys().eq(tree.keys().copied()) && ours.values().eq(tree.values().copied());
                assert!(same, "step {step}");
                let (first, last) = (AttemptId::new(JobId(1), 30, 1), AttemptId::new(JobId(5), 200, 9));
                assert!(ours.between(&first, &last).eq(tree.range(first..=last).map(|(attempt, _)| *attempt)), "step {step}");
            }
        }
    }
}
