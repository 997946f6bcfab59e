//! What other shards have said of a role is up to a tenth of a second old, and all of them serve whoever has the least at the same time: together they
//! would give it several times what it lacks. So a shard takes for granted that since their last word others have done for a role what it has done itself.

use super::super::amounts;
use super::Roles;
use protocol::{Resources, ShardId};
use std::collections::BTreeMap;

/// Of more roles than this nothing is taken for granted: it would cost more than it gains.
const ROLES_MAX: usize = 1_024;
/// A weight of 1: a shard as large as this one.
const ONE: u64 = 1_000;

/// What is taken for granted of one role.
#[derive(Debug, Default)]
pub(super) struct Lag {
    /// By shard: how large it is beside this one, and this one's own share of the whole when it spoke last.
    since: BTreeMap<ShardId, (u64, u64)>,
    /// The weights together.
    weight: u64,
    /// The weighted shares together.
    sum: u128,
}

impl Lag {
    fn set(&mut self, shard: ShardId, weight: u64, own: u64) {
        let (weight_before, own_before) = self.since.insert(shard, (weight, own)).unwrap_or_default();
        self.weight = self.weight - weight_before + weight;
        self.sum = self.sum - u128::from(weight_before) * u128::from(own_before) + u128::from(weight) * u128::from(own);
    }

    /// A share of the whole as it is by now, where `all` is what this shard's agents give the role.
    pub fn corrected(&self, share: u64, all: &Resources, whole: &Resources) -> u64 {
        if self.weight == 0 {
            return share;
        }
        let own = u128::from(amounts::dominant_share(all, whole)) * u128::from(self.weight);
        let part = |sum: u128| u64::try_from(sum / u128::from(ONE)).unwrap_or(u64::MAX);
        match own.checked_sub(self.sum) {
            Some(more) => share.saturating_add(part(more)),
            None => share.saturating_sub(part(self.sum - own)),
        }
    }
}

impl Roles {
    /// A shard whose agents have `total` has spoken, or has nothing to say: what it said of all roles holds now. Ours have `own`.
    pub fn heard(&mut self, shard: ShardId, (total, own): (&Resources, &Resources), whole: &Resources) {
        if self.list.len() > ROLES_MAX {
            return;
        }
        // One that is larger has more to do as well, but what one agent does says little of it.
        let weight = amounts::dominant_share(total, whole).saturating_mul(ONE).checked_div(amounts::dominant_share(own, whole).max(1));
        let weight = weight.unwrap_or(0).min(ONE);
        for at in 0..u32::try_from(self.list.len()).expect("fewer roles than jobs") {
            let Some(node) = self.get_mut(at) else { continue };
            let share = amounts::dominant_share(&node.all, whole);
            node.lag.set(shard, weight, share);
            self.reorder_one(at, whole);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_taken_to_have_done_the_same_since_they_spoke() {
        let cpu = |cpu_milli| Resources { cpu_milli, ..Resources::NONE };
        let whole = cpu(1 << 12);
        let one = amounts::SHARE_ONE;
        let mut lag = Lag::default();
        assert_eq!(lag.corrected(one / 8, &cpu(1 << 9), &whole), one / 8);
        lag.set(ShardId(1), ONE, one / 8);
        lag.set(ShardId(2), ONE / 2, one / 8);
        assert_eq!(lag.corrected(one / 8, &cpu(1 << 9), &whole), one / 8, "nothing was done since");
        assert_eq!(lag.corrected(one / 4, &cpu(1 << 10), &whole), one / 4 + one / 8 + one / 16);
        assert_eq!(lag.corrected(one / 4, &cpu(0), &whole), one / 4 - one / 8 - one / 16);
        lag.set(ShardId(1), ONE, one / 4);
        lag.set(ShardId(2), ONE / 2, one / 4);
        assert_eq!(lag.corrected(one / 4, &cpu(1 << 10), &whole), one / 4);
    }
}
