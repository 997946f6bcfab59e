//! What is going to happen, in the order of its time; what falls on one moment happens in the order in which it was said.

use crate::world::Happening;
use protocol::Time;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Everything that is going to happen.
#[derive(Default)]
pub struct Queue {
    coming: BinaryHeap<Reverse<Coming>>,
    said: u64,
}

struct Coming {
    at: Time,
    said: u64,
    happening: Happening,
}

impl PartialEq for Coming {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Coming {}

impl PartialOrd for Coming {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Coming {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.said).cmp(&(other.at, other.said))
    }
}

impl Queue {
    /// Something will happen at `at`.
    pub fn push(&mut self, at: Time, happening: Happening) {
        self.said += 1;
        self.coming.push(Reverse(Coming { at, said: self.said, happening }));
    }

    /// What happens next, and when.
    pub fn pop(&mut self) -> Option<(Time, Happening)> {
        self.coming.pop().map(|Reverse(coming)| (coming.at, coming.happening))
    }
}
