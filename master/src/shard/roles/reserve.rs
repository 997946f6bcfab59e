//! Guarantees: what is kept for them.

use super::super::amounts;
use super::super::shares::Elsewhere;
use super::{Claim, MET, Roles};
use crate::shard::preempt::Preempts;
use protocol::{Resources, Role};
use std::collections::BTreeMap;

impl Roles {
    pub(super) fn stale(&mut self) {
        self.reserve = None;
    }

    /// How all roles are served from now on; whoever is not named, as by default.
    pub fn claim(&mut self, claims: BTreeMap<Role, Claim>, whole: &Resources) {
        self.claims = claims;
        for node in self.list.iter_mut().flatten() {
            node.claim = self.claims.get(&node.name).cloned().unwrap_or_default();
        }
        self.reorder_all(whole);
    }

    /// Whose tasks a role's may take the place of: as was said of it, or else of the next above it of which something is.
    pub fn preempts(&self, name: &Role) -> Preempts {
        if self.claims.is_empty() {
            return Preempts::None;
        }
        let mut said = name.and_above().filter_map(|name| self.claims.get(&name)).map(|claim| claim.preempts);
        said.find(|preempts| *preempts != Preempts::None).unwrap_or_default()
    }

    /// True where a role may take the place of others.
    pub fn may_any_preempt(&self) -> bool {
        self.claims.values().any(|claim| claim.preempts != Preempts::None)
    }

    /// True where something is guaranteed to a role, or to one above it.
    pub fn has_guarantee(&self, at: u32) -> bool {
        !self.claims.is_empty() && self.above(at).any(|node| !node.claim.guarantee.is_none())
    }

    /// True where so much may be taken from a role, so that it and those above it keep what they are guaranteed; what stays within one, since it is
    /// for `instead`, is not taken from that one.
    pub fn may_yield(&self, at: u32, instead: u32, leaving: &Resources) -> bool {
        let Some(by) = self.get(instead) else { return false };
        self.above(at).all(|node| {
            let guarantee = &node.claim.guarantee;
            if guarantee.is_none() || by.name.is_within(&node.name) {
                return true;
            }
            let mut left = node.all.clone();
            amounts::add(&mut left, &node.all_elsewhere, 1);
            amounts::sub(&mut left, leaving, 1);
            amounts::kinds(&amounts::only(leaving, guarantee))
                .iter()
                .all(|(kind, _)| amounts::of_kind(kind, &left) >= amounts::of_kind(kind, guarantee))
        })
    }

    fn above(&self, at: u32) -> impl Iterator<Item = &super::Node> {
        std::iter::successors(self.get(at), |node| node.parent.and_then(|at| self.get(at)))
    }

    /// True where less is kept than when this was last asked: others may have what they could not.
    pub fn shrinks(&mut self, elsewhere: &Elsewhere, (total, whole): (&Resources, &Resources)) -> bool {
        if self.claims.is_empty() {
            return false;
        }
        let now = self.count_reserve(elsewhere, (total, whole));
        let before = std::mem::replace(&mut self.reserve_before, now.clone());
        let less = !now.contains(&before);
        self.reserve = Some(now);
        less
    }

    /// Room for one task is being gathered on our agents, or no longer.
    pub fn gather(&mut self, shape: &Resources, more: bool) {
        let change = if more { amounts::add } else { amounts::sub };
        change(&mut self.gathered, shape, 1);
    }

    /// What is guaranteed, and to whom.
    pub fn guarantees(&self) -> Vec<(Role, Resources)> {
        let some = self.claims.iter().filter(|(_, claim)| !claim.guarantee.is_none());
        some.map(|(role, claim)| (role.clone(), claim.guarantee.clone())).collect()
    }

    /// How many tasks of this shape a role may be given, at most `most`, so that what guarantees of others are short of is left on our agents, as
    /// large a part of it as they are of the whole.
    pub fn beside_reserve(
        &mut self,
        at: u32,
        (shape, most): (&Resources, u32),
        elsewhere: &Elsewhere,
        (total, whole): (&Resources, &Resources),
    ) -> u32 {
        let Some((free, reserve)) = self.beyond_reserve(at, elsewhere, (total, whole)) else { return most };
        free.times(&amounts::only(shape, &reserve), most)
    }

    /// What is free on our agents beyond what is kept for guarantees of others, and that; `None` where a role may have of that too.
    pub fn beyond_reserve(
        &mut self,
        at: u32,
        elsewhere: &Elsewhere,
        (total, whole): (&Resources, &Resources),
    ) -> Option<(Resources, Resources)> {
        if self.may_have_reserve(at) { None } else { self.beyond(elsewhere, (total, whole)) }
    }

    /// True where a role, or one above it, has less than it is guaranteed: what is kept may be for it.
    pub fn may_have_reserve(&self, at: u32) -> bool {
        !self.claims.is_empty() && self.above(at).any(|node| node.key < MET)
    }

    /// What is free on our agents beyond what is kept for guarantees, and that; `None` where nothing was ever guaranteed.
    pub fn beyond(&mut self, elsewhere: &Elsewhere, (total, whole): (&Resources, &Resources)) -> Option<(Resources, Resources)> {
        if self.claims.is_empty() {
            return None;
        }
        let reserve = match self.reserve.take() {
            Some(reserve) => reserve,
            None => self.count_reserve(elsewhere, (total, whole)),
        };
        let mut free = total.clone();
        amounts::sub(&mut free, &self.busy, 1);
        amounts::sub(&mut free, &self.gathered, 1);
        amounts::sub(&mut free, &reserve, 1);
        self.reserve = Some(reserve.clone());
        Some((free, reserve))
    }

    /// What is kept on our agents of all that guarantees are short of. Each shard has a part of a guarantee, as large as its agents are of all; where a
    /// role holds more than that in one, the others keep as much less, each as it is short of its part.
    fn count_reserve(&self, elsewhere: &Elsewhere, (total, whole): (&Resources, &Resources)) -> Resources {
        let (mut reserve, mut below) = (Resources::NONE, BTreeMap::<Role, Resources>::new());
        for (name, claim) in self.claims.iter().rev().filter(|(_, claim)| !claim.guarantee.is_none()) {
            let node = self.find(name).and_then(|at| self.get(at));
            if node.is_some_and(|node| node.key >= MET) {
                continue;
            }
            let held = self.held(name, elsewhere);
            let mut short = claim.guarantee.clone();
            amounts::sub(&mut short, &held, 1);
            if let Some(below) = below.get(name) {
                amounts::sub(&mut short, below, 1); // It is kept already.
            }
            for above in name.and_above().skip(1) {
                amounts::add(below.entry(above).or_default(), &short, 1);
            }
            let mut here = amounts::part(&claim.guarantee, total, whole);
            node.into_iter().for_each(|node| amounts::sub(&mut here, &node.all, 1));
            let mut all = elsewhere.short_of(name);
            amounts::add(&mut all, &here, 1);
            amounts::add(&mut reserve, &amounts::part(&short, &here, &all), 1);
        }
        reserve
    }
}
