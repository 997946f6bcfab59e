//! What is going to happen, in the order of its time; what falls on one moment happens in the order in which it was said.

use crate::world::Happening;
use protocol::Time;
use std::collections::BTreeMap;

/// Everything that is going to happen.
#[derive(Default)]
pub struct Queue {
    coming: BTreeMap<(Time, u64), Happening>,
    said: u64,
}

impl Queue {
    /// Something will happen at `at`.
    pub fn push(&mut self, at: Time, happening: Happening) {
        self.said += 1;
        self.coming.insert((at, self.said), happening);
    }

    /// What happens next, and when.
    pub fn pop(&mut self) -> Option<(Time, Happening)> {
        self.coming.pop_first().map(|((at, _), happening)| (at, happening))
    }
}
