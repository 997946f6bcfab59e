//! Amounts of some kinds of resource, of which all others are unlimited; and how what there is of them is divided among shards.

use super::amounts;
use protocol::Resources;
use protocol::resources::ResourceKind;
use serde::{Deserialize, Serialize};

/// Most kinds of one limit.
pub const KINDS_MAX: usize = 20;

/// Amounts of some kinds, each once, sorted: in thousandths, bytes, or ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota(Vec<(ResourceKind, u64)>);

impl Quota {
    /// These amounts; of a kind that is named twice, the last.
    #[must_use]
    pub fn new(amounts: impl IntoIterator<Item = (ResourceKind, u64)>) -> Self {
        let sorted: std::collections::BTreeMap<ResourceKind, u64> = amounts.into_iter().collect();
        Self(sorted.into_iter().take(KINDS_MAX).collect())
    }

    /// The amounts.
    pub fn iter(&self) -> impl Iterator<Item = (&ResourceKind, u64)> {
        self.0.iter().map(|(kind, amount)| (kind, *amount))
    }

    /// True where it limits nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True where it is of the same kinds, and so can be compared.
    pub(super) fn is_alike(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|((a, _), (b, _))| a == b)
    }

    /// Of the same kinds, what there is in `resources`.
    pub(super) fn of(&self, resources: &Resources) -> Self {
        Self(self.0.iter().map(|(kind, _)| (kind.clone(), amounts::of_kind(kind, resources))).collect())
    }

    /// Of the same kinds, nothing.
    pub(super) fn zero(&self) -> Self {
        self.of(&Resources::NONE)
    }

    fn with(&self, other: &Self, each: impl Fn(u64, u64) -> u64) -> Self {
        let pairs = self.0.iter().zip(&other.0);
        Self(pairs.map(|((kind, a), (_, b))| (kind.clone(), each(*a, *b))).collect())
    }

    /// Both together.
    pub(super) fn plus(&self, other: &Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    /// What is left of it without `other`; of a kind that `other` has more of, nothing.
    pub(super) fn minus(&self, other: &Self) -> Self {
        self.with(other, u64::saturating_sub)
    }

    /// Of each kind the larger.
    pub(super) fn max(&self, other: &Self) -> Self {
        self.with(other, u64::max)
    }

    /// Of each kind the smaller.
    pub(super) fn min(&self, other: &Self) -> Self {
        self.with(other, u64::min)
    }

    /// `n` times it.
    pub(super) fn times(&self, n: u64) -> Self {
        Self(self.0.iter().map(|(kind, amount)| (kind.clone(), amount.saturating_mul(n))).collect())
    }

    /// True where `need` is within it.
    pub(super) fn contains(&self, need: &Self) -> bool {
        self.0.iter().zip(&need.0).all(|((_, have), (_, need))| have >= need)
    }

    /// How many tasks that need this are within it; [`u32::MAX`] where they need nothing of it.
    pub(super) fn holds(&self, each: &Self) -> u32 {
        self.units(each).map_or(u32::MAX, |units| u32::try_from(units).unwrap_or(u32::MAX))
    }

    /// How often `each` is within it; `None` where that is nothing.
    fn units(&self, each: &Self) -> Option<u64> {
        let units = self.0.iter().zip(&each.0).filter_map(|((_, have), (_, each))| have.checked_div(*each));
        units.min()
    }

    /// Cuts `resources` down to it.
    pub(super) fn clip(&self, resources: &mut Resources) {
        self.0.iter().for_each(|(kind, most)| amounts::at_most(resources, kind, *most));
    }
}

/// What one shard has of a limit and would have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// What its live tasks are promised.
    pub used: Quota,
    /// What those that wait would be promised beside.
    pub wants: Quota,
    /// What the first of those would be.
    pub least: Quota,
}

impl Need {
    fn all(&self) -> Quota {
        self.used.plus(&self.wants)
    }
}

/// Divides `limit`: each shard gets what it has and wants, and where that is too much for all, equal parts of each kind, in whole tasks; what is
/// left over then goes to those that have nothing first.
pub(super) fn divide(limit: &Quota, needs: &[Need]) -> Vec<Quota> {
    let all: Vec<Quota> = needs.iter().map(Need::all).collect();
    let levels = Quota(limit.0.iter().enumerate().map(|(at, (kind, most))| (kind.clone(), level(*most, &all, at))).collect());
    let mut parts: Vec<Quota> = all.iter().map(|all| all.min(&levels)).collect();
    for (part, (need, all)) in parts.iter_mut().zip(needs.iter().zip(&all)) {
        if part != all {
            let kept = part.min(&need.used);
            *part = kept.plus(&need.least.times(part.minus(&kept).units(&need.least).unwrap_or(0)));
        }
    }
    let mut left = parts.iter().fold(limit.clone(), |left, part| left.minus(part));
    let mut order: Vec<usize> = (0..needs.len()).filter(|at| parts[*at] != all[*at] && !needs[*at].least.is_empty()).collect();
    order.sort_by_key(|at| (parts[*at] != limit.zero(), *at));
    for many in [false, true] {
        for at in order.iter().copied() {
            let (need, part) = (&needs[at], &mut parts[at]);
            let units = left.min(&all[at].minus(part)).units(&need.least).unwrap_or(0);
            let more = need.least.times(if many { units } else { units.min(1) });
            left = left.minus(&more);
            *part = part.plus(&more);
        }
    }
    parts
}

/// The most that nobody may pass so that all together get no more than `most` of a kind.
fn level(most: u64, all: &[Quota], at: usize) -> u64 {
    let mut wanted: Vec<u64> = all.iter().map(|all| all.0[at].1).collect();
    wanted.sort_unstable();
    let (mut left, mut sharers) = (most, u64::try_from(wanted.len()).unwrap_or(u64::MAX));
    for wanted in wanted {
        if wanted > left / sharers {
            return left / sharers;
        }
        (left, sharers) = (left - wanted, sharers - 1);
    }
    u64::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(milli: u64) -> Quota {
        Quota::new([(ResourceKind::Cpu, milli)])
    }

    fn check(limit: u64, needs: &[(u64, u64, u64)], expected: &[u64]) {
        let needs: Vec<Need> =
            needs.iter().map(|(used, wants, least)| Need { used: cpu(*used), wants: cpu(*wants), least: cpu(*least) }).collect();
        let parts = divide(&cpu(limit), &needs);
        assert_eq!(parts, expected.iter().map(|milli| cpu(*milli)).collect::<Vec<_>>(), "{limit} {needs:?}");
    }

    #[test]
    fn a_limit_is_divided_by_need_in_whole_tasks() {
        check(10, &[(0, 4, 1), (0, 0, 0)], &[4, 0]);
        check(10, &[(0, 100, 1), (0, 100, 1)], &[5, 5]);
        check(10, &[(0, 100, 1), (2, 0, 0), (0, 1, 1)], &[7, 2, 1]);
        check(10, &[(0, 100, 4), (0, 100, 4)], &[4, 4]);
        check(10, &[(0, 100, 4), (0, 100, 3), (0, 100, 3)], &[4, 3, 3]);
        check(1, &[(0, 9, 1), (0, 9, 1)], &[1, 0]);
        check(7, &[(0, 9, 5), (0, 9, 5)], &[5, 0]);
        // What is used already is not less for being passed by the limit.
        check(4, &[(3, 0, 0), (3, 0, 0)], &[2, 2]);
        check(0, &[(3, 5, 1), (0, 5, 1)], &[0, 0]);
        check(9, &[(0, u64::MAX, 2), (u64::MAX, 5, 1)], &[4, 5]);
        check(9, &[], &[]);
    }

    #[test]
    fn never_more_is_given_than_there_is() {
        let mut draw = 0x9e37_79b9_u64;
        let mut below = |n: u64| {
            draw ^= draw << 13;
            draw ^= draw >> 7;
            draw ^= draw << 17; // xorshift64 (Marsaglia, 2003).
            draw % n
        };
        let kinds = |a: u64, b: u64| Quota::new([(ResourceKind::Cpu, a), (ResourceKind::Memory, b)]);
        for _ in 0..2_000 {
            let limit = kinds(below(100), below(1_000));
            let needs: Vec<Need> = (0..1 + below(8))
                .map(|_| Need { used: kinds(below(9), below(90)), wants: kinds(below(40), below(400)), least: kinds(below(6), below(60)) })
                .collect();
            let parts = divide(&limit, &needs);
            let sum = parts.iter().fold(limit.zero(), |sum, part| sum.plus(part));
            assert!(limit.contains(&sum), "{limit:?} {needs:?} {parts:?}");
            assert!(parts.iter().zip(&needs).all(|(part, need)| need.all().contains(part)), "{limit:?} {needs:?} {parts:?}");
        }
    }
}
