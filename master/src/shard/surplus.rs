//! The agents' shard: what frameworks may be shown of what is free, so that what guarantees of others are short of is left. All that is shown counts, as
//! if it were taken: so whatever frameworks take, it leaves that.

use super::amounts;
use super::lent::worth_showing;
use super::openings::{OpenOffered, Opener};
use super::pool::Pool;
use super::precedence::GUARD_MS;
use protocol::{Resources, Time};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

/// Agents that are looked at again at a time, of which less was shown than there is.
const AGAIN_MAX: usize = 64;

/// What roles may be shown that are short of no guarantee, as long as nothing is shown or taken back.
#[derive(Debug)]
pub(super) struct Surplus {
    /// What is kept: other kinds are not bounded.
    reserve: Resources,
    /// What is free beyond that and beside all that such roles are shown; and beside what those of them are shown that say what they want, before whom the
    /// others give way.
    beside_all: Resources,
    beside_seekers: Resources,
    /// How many take offers for such roles.
    bounded: usize,
    /// True once somebody was not shown something because of it.
    pub clips: Cell<bool>,
}

/// What was not shown because it was not to be had.
#[derive(Debug, Default)]
pub(super) struct Clipped {
    /// Agents that have more to show.
    slots: BTreeSet<u32>,
    /// The last that was looked at again, and how many are to be yet.
    last: u32,
    again: usize,
    /// Openers that want something.
    openers: BTreeSet<u32>,
    /// What might be shown when all had been, and how many it bounded.
    left: Resources,
    bounded: usize,
}

impl Clipped {
    fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.openers.is_empty()
    }
}

impl Surplus {
    /// What may be shown of kinds that are kept, if there are any, to whoever comes before those that take whatever comes, or does not.
    fn of(&self, ahead: bool) -> &Resources {
        if ahead { &self.beside_seekers } else { &self.beside_all }
    }

    /// Leaves of what somebody is to be shown, of which `general` is kept for nobody, what may be.
    fn clip(&self, resources: &mut Resources, general: &Resources) {
        let mut over = amounts::only(general, &self.reserve);
        amounts::sub(&mut over, &self.beside_all, 1);
        amounts::sub(resources, &over, 1);
    }
}

/// What one that says what it wants may be shown of an agent.
pub(super) struct Budget<'a> {
    left: Resources,
    of: &'a Surplus,
}

impl Budget<'_> {
    /// For how many tasks of this shape, at most `most`.
    pub fn times(&self, shape: &Resources, most: u32) -> u32 {
        let times = self.left.times(&amounts::only(shape, &self.of.reserve), most);
        if times < most {
            self.of.clips.set(true);
        }
        times
    }

    /// So many were found room for.
    pub fn spend(&mut self, shape: &Resources, n: u32) {
        amounts::sub(&mut self.left, &amounts::only(shape, &self.of.reserve), n);
    }
}

impl Pool {
    /// `None` where nothing is kept.
    pub(super) fn surplus(&mut self) -> Option<Surplus> {
        let (free, reserve) = self.roles.beyond(&self.elsewhere, (&self.total, &self.whole)).filter(|(_, reserve)| !reserve.is_none())?;
        let (mut beside_all, mut beside_seekers, mut bounded) = (free.clone(), free, 0);
        for opener in self.openings.all().filter_map(|at| self.openings.opener(at)).filter(|opener| self.is_of_surplus(opener)) {
            let general = opener.general();
            if opener.wants.is_some() {
                amounts::sub(&mut beside_seekers, &general, 1);
            }
            amounts::sub(&mut beside_all, &general, 1);
            bounded += 1;
        }
        Some(Surplus { reserve, beside_all, beside_seekers, bounded, clips: Cell::new(false) })
    }

    /// For how many of `most` tasks a role's job may be offered room beside what frameworks have been shown and may still think about, of what is kept for
    /// nobody, whose roles come before this one.
    pub(super) fn beside_guarded(&mut self, role: u32, class: u32, most: u32, now: Time) -> u32 {
        let Some((mut free, reserve)) = self.roles.beyond_reserve(role, &self.elsewhere, (&self.total, &self.whole)) else { return most };
        if reserve.is_none() {
            return most;
        }
        let mut young: BTreeMap<u32, Resources> = BTreeMap::new();
        for offer in
            self.openings.numbers().rev().filter_map(|number| self.openings.offer(number)).take_while(|offer| now < offer.since + GUARD_MS)
        {
            amounts::add(young.entry(offer.opener).or_default(), &offer.general(), 1);
        }
        let own = self.roles.rank(role, &Resources::NONE, &self.whole);
        let mut guards = false;
        for (opener, general) in young.iter().filter_map(|(at, general)| Some((self.openings.opener(*at)?, general))) {
            let class = self.shape(opener.class).filter(|_| self.is_of_surplus(opener));
            if class.is_some_and(|class| self.roles.rank(class.role, &opener.offered, &self.whole) < own) {
                amounts::sub(&mut free, general, 1);
                guards = true;
            }
        }
        let shape = self.shape(class).map(|class| amounts::only(&class.shape, &reserve)).unwrap_or_default();
        let beside = free.times(&shape, most);
        if guards && beside < most {
            self.guard(now);
        }
        beside
    }

    /// What of an agent's room one that takes whatever comes is to be shown: of `left`, of which `general` is kept for nobody.
    pub(super) fn part_for(
        &self,
        (at, slot): (u32, u32),
        (left, general): &(Resources, Resources),
        surplus: Option<&Surplus>,
    ) -> Resources {
        let mut part = self.openings.part_of(at, left);
        let bounded = self.openings.opener(at).is_some_and(|opener| self.is_of_surplus(opener));
        if let Some(surplus) = surplus.filter(|_| bounded) {
            let whole = part.clone();
            surplus.clip(&mut part, &self.openings.part_of(at, general));
            if part != whole && worth_showing(&whole) && !self.openings.filters(at, slot, &whole) {
                surplus.clips.set(true);
            }
        }
        part
    }

    /// What bounds one that says what it wants on an agent, with what is kept there for its role; `None` where nothing does.
    pub(super) fn budget<'a>(&self, at: u32, slot: u32, ahead: bool, surplus: Option<&'a Surplus>) -> Option<Budget<'a>> {
        let opener = self.openings.opener(at)?;
        let of = surplus.filter(|_| self.is_of_surplus(opener))?;
        let (mut left, (mut own, general)) = (of.of(ahead).clone(), self.left_for(slot, opener.class));
        amounts::sub(&mut own, &general, 1);
        amounts::add(&mut left, &own, 1);
        Some(Budget { left, of })
    }

    /// True where one that says what it wants may be shown nothing for such a task but of what is kept for its role.
    pub(super) fn is_used_up(&mut self, at: u32, shape: &Resources, surplus: Option<&Surplus>) -> bool {
        let Some(of) = surplus.filter(|_| self.openings.opener(at).is_some_and(|opener| self.is_of_surplus(opener))) else { return false };
        let none = of.of(self.part_left(at) > 0).times(&amounts::only(shape, &of.reserve), 1) == 0;
        if none {
            self.openings.clipped.openers.insert(at);
        }
        none
    }

    /// Something of an agent may be shown once more of it may be.
    pub(super) fn clipped(&mut self, slot: u32, surplus: Option<&Surplus>) {
        if surplus.is_some_and(|surplus| surplus.clips.take()) {
            self.openings.clipped.slots.insert(slot);
        }
    }

    /// Has agents and wants looked at again, of which less was shown than there is, where more may be shown than then.
    pub(super) fn stir_clipped(&mut self) {
        if self.openings.clipped.is_empty() {
            return;
        }
        let Clipped { slots, left, bounded, .. } = &self.openings.clipped;
        let (all, left, bounded) = (slots.len(), left.clone(), *bounded);
        let is_more =
            self.surplus().is_none_or(|now| now.bounded < bounded || !left.contains(&amounts::only(&now.beside_all, &now.reserve)));
        let clipped = &mut self.openings.clipped;
        let openers = if is_more { std::mem::take(&mut clipped.openers) } else { BTreeSet::new() };
        if is_more {
            clipped.again = all;
        }
        let some: Vec<u32> = {
            let after = clipped.last.saturating_add(1);
            clipped.slots.range(after..).chain(clipped.slots.range(..after)).take(AGAIN_MAX.min(clipped.again)).copied().collect()
        };
        clipped.again -= some.len();
        clipped.last = some.last().copied().unwrap_or(clipped.last);
        for slot in some {
            self.openings.clipped.slots.remove(&slot);
            self.openings.stir(slot);
        }
        openers.into_iter().for_each(|at| self.seek_again(at));
    }

    /// All is shown that may be.
    pub(super) fn shown_all(&mut self) {
        if !self.openings.clipped.is_empty() {
            let now = self.surplus();
            let clipped = &mut self.openings.clipped;
            (clipped.left, clipped.bounded) = now.map_or((Resources::NONE, 0), |now| (now.beside_all, now.bounded));
        }
    }

    /// Takes back what is shown of what is kept, of those first that take whatever comes, the latest offers first; true where there was some. Tasks that
    /// were placed meanwhile, agents that are gone, and guarantees that are new leave less than there was.
    pub(super) fn keep_reserve(&mut self) -> bool {
        let over = self.shown_of_reserve();
        over.iter().for_each(|number| self.rescind(*number));
        !over.is_empty()
    }

    /// The offers that are to be taken back.
    pub(super) fn shown_of_reserve(&mut self) -> Vec<u64> {
        let mut back = vec![];
        if self.openings.numbers().next().is_none() {
            return back;
        }
        let Some((free, reserve)) =
            self.roles.beyond(&self.elsewhere, (&self.total, &self.whole)).filter(|(_, reserve)| !reserve.is_none())
        else {
            return back;
        };
        let mut over = Resources::NONE;
        for opener in self.openings.all().filter_map(|at| self.openings.opener(at)).filter(|opener| self.is_of_surplus(opener)) {
            amounts::add(&mut over, &amounts::only(&opener.general(), &reserve), 1);
        }
        amounts::sub(&mut over, &free, 1);
        for seeks in [false, true] {
            for number in self.openings.numbers().rev() {
                if over.is_none() {
                    return back;
                }
                let Some(offer) = self.openings.offer(number) else { continue };
                let opener =
                    self.openings.opener(offer.opener).filter(|opener| opener.wants.is_some() == seeks && self.is_of_surplus(opener));
                let general = amounts::only(&offer.general(), &over);
                if opener.is_some() && !general.is_none() {
                    amounts::sub(&mut over, &general, 1);
                    back.push(number);
                }
            }
        }
        back
    }

    /// True where its role is short of no guarantee.
    fn is_of_surplus(&self, opener: &Opener) -> bool {
        self.shape(opener.class).is_some_and(|class| !self.roles.may_have_reserve(class.role))
    }
}

impl Opener {
    /// What its offers show beside what is kept for its role.
    fn general(&self) -> Resources {
        let mut general = self.offered.clone();
        amounts::sub(&mut general, &self.kept, 1);
        general
    }
}

impl OpenOffered {
    /// As of an opener.
    fn general(&self) -> Resources {
        let mut general = self.resources.clone();
        amounts::sub(&mut general, &self.kept, 1);
        general
    }
}

#[cfg(test)]
impl Pool {
    /// What is counted of each opener is what its offers show; and of what is kept on an agent no more is counted as shown than is kept and not used.
    pub(super) fn check_shown(&self) {
        let mut again: BTreeMap<u32, (Resources, Resources)> = BTreeMap::new();
        for offer in self.openings.numbers().filter_map(|number| self.openings.offer(number)) {
            let (offered, kept) = again.entry(offer.opener).or_default();
            amounts::add(offered, &offer.resources, 1);
            amounts::add(kept, &offer.kept, 1);
        }
        for at in self.openings.all() {
            let opener = self.openings.opener(at).unwrap();
            let (offered, kept) = again.remove(&at).unwrap_or_default();
            assert_eq!((&opener.offered, &opener.kept), (&offered, &kept), "{:?}", opener.opening);
        }
        assert!(again.is_empty(), "offers to nobody: {again:?}");
        for seat in &self.seats {
            let shown = seat.open_offers.iter().filter_map(|number| self.openings.offer(*number));
            let mut kept = Resources::NONE;
            shown.for_each(|offer| amounts::add(&mut kept, &offer.kept, 1));
            let mut unused = Resources::NONE;
            seat.kept.iter().flat_map(|kept| kept.unused()).for_each(|(_, part)| amounts::add(&mut unused, part, 1));
            assert!(unused.contains(&kept), "{}: {kept:?} of {unused:?}", seat.id);
        }
    }
}
