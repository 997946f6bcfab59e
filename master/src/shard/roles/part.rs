//! Fair parts: up to which share a role is served before those of whom nobody knows what they want.

use super::super::amounts::{self, SHARE_ONE};
use super::{MET, Roles};
use protocol::Resources;

impl Roles {
    /// How much more of the whole a role may hold, beside `more`, before the role at the top above it has its fair part: that of its weight among all
    /// at the top that hold or want something. In parts of [`SHARE_ONE`]; without end while its guarantee is not met.
    pub fn part_left(&self, at: u32, more: &Resources, whole: &Resources) -> u64 {
        let above = std::iter::successors(self.get(at), |node| node.parent.and_then(|at| self.get(at)));
        let Some(top) = above.last() else { return 0 };
        if top.key < MET {
            return u64::MAX;
        }
        let weight = |node: &super::Node| u128::from(node.claim.weight_milli);
        let all: u128 = self.list.iter().flatten().filter(|node| node.parent.is_none()).map(weight).sum();
        let part = u64::try_from(u128::from(SHARE_ONE) * weight(top) / all.max(1)).unwrap_or(u64::MAX);
        let held = amounts::dominant_share_of_both(&top.all, &top.all_elsewhere, whole);
        part.saturating_sub(held.saturating_add(amounts::dominant_share(more, whole)))
    }
}
