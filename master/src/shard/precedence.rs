//! The agents' shard: jobs and frameworks share agents by the same order of roles. What comes free is left for a framework whose role comes before those
//! whose jobs want it; and what a framework is shown is taken out from under its offer by jobs of roles that come before it, or once it has thought about it
//! for a second.

use super::amounts;
use super::lent::worth_showing;
use super::openings::{OpenOffered, Opening, Showing};
use super::pool::Pool;
use super::surplus::Surplus;
use protocol::{Resources, Time};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// How long what a framework was shown is kept from jobs of roles that come after it, in milliseconds.
pub(super) const GUARD_MS: u64 = 1_000;
/// How long nothing of an agent is left to a framework that gave back what it was shown of it, in milliseconds; and how many of those are remembered at
/// least before those that are over are forgotten.
const UNWANTED_MS: u64 = 5_000;
const UNWANTED_MAX: usize = 4_096;
/// Agents that are looked at for a want before it waits for what is shown of them.
pub(super) const GUARDED_TRIES: usize = 8;

/// What was left to frameworks.
#[derive(Debug, Default)]
pub(super) struct Precedence {
    /// Agents of which something was left in this round.
    left: BTreeSet<u32>,
    /// Of those, what nobody was shown is for jobs.
    over: BTreeSet<u32>,
    /// When offers are looked at again that a want waits for.
    pub due: Option<Time>,
    /// When a framework gave back what it was shown of an agent, and took nothing of it: by agent and opener.
    unwanted: BTreeMap<(u32, u32), Time>,
}

impl Precedence {
    /// A framework has given back what it was shown of an agent.
    pub fn unwanted(&mut self, slot: u32, opener: u32, now: Time) {
        if self.unwanted.len() >= UNWANTED_MAX {
            self.unwanted.retain(|_, at| now.since(*at) < UNWANTED_MS);
        }
        self.unwanted.insert((slot, opener), now);
    }

    /// True where nothing of an agent is left to a framework or kept for it: it had the choice a moment ago.
    fn is_unwanted(&self, slot: u32, opener: u32, now: Time) -> bool {
        self.unwanted.get(&(slot, opener)).is_some_and(|at| now.since(*at) < UNWANTED_MS)
    }
}

impl Pool {
    /// True where a framework that answers would be shown what an agent has free, and its role comes before this one. Asked once for what came free.
    pub(super) fn leaves(&mut self, slot: u32, role: u32, now: Time) -> bool {
        if self.openings.is_empty() || self.precedence.over.contains(&slot) || !self.is_behind_opener(slot, role, now) {
            return false;
        }
        self.precedence.left.insert(slot);
        true
    }

    fn is_behind_opener(&self, slot: u32, role: u32, now: Time) -> bool {
        let own = self.roles.rank(role, &Resources::NONE, &self.whole);
        self.openings.all().any(|at| {
            let answers = |opener: &&super::openings::Opener| !opener.owes() && !self.precedence.is_unwanted(slot, at, now);
            let Some(opener) = self.openings.opener(at).filter(answers) else { return false };
            let Some(class) = self.shape(opener.class) else { return false };
            if self.roles.rank(class.role, &opener.offered, &self.whole) >= own {
                return false;
            }
            self.would_be_shown(at, slot, &self.left_for(slot, opener.class).0)
        })
    }

    /// True where a framework would be shown some of this room of an agent.
    fn would_be_shown(&self, at: u32, slot: u32, room: &Resources) -> bool {
        if self.openings.opener(at).is_some_and(|opener| opener.wants.is_some()) {
            return self.would_take(at, slot, room);
        }
        let part = self.openings.part_of(at, room);
        worth_showing(&part) && !self.openings.filters(at, slot, &part)
    }

    /// What was left to frameworks and they were not shown is for jobs; true where there is some.
    pub(super) fn take_left(&mut self) -> bool {
        let left = std::mem::take(&mut self.precedence.left);
        self.freed.extend(&left);
        self.precedence.over = left;
        !self.precedence.over.is_empty()
    }

    /// What came free is looked at as before.
    pub(super) fn left_taken(&mut self) {
        self.precedence.over.clear();
    }

    /// As [`Self::room_for`], beside what frameworks have been shown and may still think about whose roles would come before this one, had it so much `more`.
    pub(super) fn room_beside(&self, slot: u32, role: u32, more: &Resources, now: Time) -> (u32, Cow<'_, Resources>) {
        let (attempts, free) = self.room_for(slot, role);
        let seat = &self.seats[slot as usize];
        if seat.open_offers.is_empty() {
            return (attempts, free);
        }
        let own = self.roles.rank(role, more, &self.whole);
        let guarded = |offer: &&OpenOffered| {
            let guards = now < offer.since + GUARD_MS && !self.precedence.is_unwanted(slot, offer.opener, now);
            let opener = self.openings.opener(offer.opener).filter(|_| guards);
            let of = opener.and_then(|opener| Some((opener, self.shape(opener.class)?.role)));
            of.is_some_and(|(opener, role)| self.roles.rank(role, &opener.offered, &self.whole) < own)
        };
        let mut free = free;
        for offer in seat.open_offers.iter().filter_map(|number| self.openings.offer(*number)).filter(guarded) {
            let mut beside = offer.resources.clone();
            // What is kept for it was never among what others may have.
            amounts::sub(&mut beside, &offer.kept, 1);
            amounts::sub(free.to_mut(), &beside, 1);
        }
        (attempts, free)
    }

    /// A want waits for what frameworks were shown.
    pub(super) fn guard(&mut self, now: Time) {
        self.precedence.due = Some(self.precedence.due.map_or(now + GUARD_MS, |due| due.min(now + GUARD_MS)));
    }

    /// Has agents and wants looked at again whose offers frameworks have thought about for long enough.
    pub(super) fn expire_guards(&mut self, now: Time) {
        if self.precedence.due.is_none_or(|due| now < due) {
            return;
        }
        let (over, young): (Vec<_>, Vec<_>) = self.openings.shown().partition(|(since, _)| *since + GUARD_MS <= now);
        self.precedence.due = young.iter().map(|(since, _)| *since + GUARD_MS).min();
        self.freed.extend(over.into_iter().map(|(_, slot)| slot));
        // What waited for that looks for an agent again, now or when it is said to want something once more.
        for at in 0..u32::try_from(self.wants.len()).expect("fewer wants than shards have") {
            let waits = self.wants[at as usize].as_mut().filter(|want| want.guarded);
            if let Some(want) = waits {
                (want.guarded, want.blocked) = (false, false);
                self.stir(at);
            }
        }
    }

    /// Whether another would be shown this, were it not held.
    pub(super) fn is_wanted(&self, by: u32, slot: u32, held: &Resources) -> bool {
        self.wanted_by(by, slot, held).next().is_some()
    }

    /// All others that would be shown this, were it not held.
    pub(super) fn wanted_by(&self, by: u32, slot: u32, held: &Resources) -> impl Iterator<Item = &Opening> {
        let others = self.openings.entries().filter(move |(_, at)| *at != by);
        let takes = move |at: u32| {
            let Some(opener) = self.openings.opener(at) else { return false };
            let mut free = self.left_for(slot, opener.class).0;
            amounts::add(&mut free, held, 1);
            self.would_be_shown(at, slot, &free)
        };
        others.filter(move |(_, at)| takes(*at)).map(|(opening, _)| opening)
    }

    /// Of those that take whatever comes and may be shown it: who answers, whose role has the smallest share with what it was shown, and who was served
    /// the longest ago; how its role stands, what it may be shown, and whether that is all of it.
    pub(super) fn next_opener(&self, slot: u32, surplus: Option<&Surplus>) -> Option<(u32, Vec<u64>, (Resources, bool))> {
        let anybody = self.seats[slot as usize].kept.is_none().then(|| self.left_for(slot, 0));
        if anybody.as_ref().is_some_and(|(left, _)| !worth_showing(left)) {
            return None;
        }
        let key = |at: u32| {
            let opener = self.openings.opener(at).filter(|opener| opener.wants.is_none())?;
            let own = if anybody.is_none() { Some(self.left_for(slot, opener.class)) } else { None };
            let left = own.as_ref().or(anybody.as_ref())?;
            let part = self.part_for((at, slot), left, surplus);
            if !worth_showing(&part) || self.openings.filters(at, slot, &part) {
                return None;
            }
            let role = self.shape(opener.class)?.role;
            Some(((opener.owes(), self.roles.rank(role, &opener.offered, &self.whole), opener.served), at))
        };
        let ((_, rank, _), at) = self.openings.all().filter_map(key).min()?;
        let left = self.left_for(slot, self.openings.opener(at)?.class);
        let part = self.part_for((at, slot), &left, surplus);
        let is_all = part == left.0;
        Some((at, rank, (part, is_all)))
    }

    /// Shows what an agent has free to one framework; true where there may be more for others.
    pub(super) fn show_slot(&mut self, slot: u32, showing: &mut Showing<'_>) -> bool {
        if Self::room(&self.seats[slot as usize]).0 == 0 {
            return false;
        }
        let surplus = self.surplus();
        let more = self.show_next(slot, surplus.as_ref(), showing);
        self.clipped(slot, surplus.as_ref());
        more
    }

    fn show_next(&mut self, slot: u32, surplus: Option<&Surplus>, showing: &mut Showing<'_>) -> bool {
        let taker = self.next_opener(slot, surplus);
        if self.show_seeker(slot, (true, None), (surplus, showing)) {
            return true;
        }
        let Some((at, rank, (part, is_all))) = taker else { return self.show_seeker(slot, (false, None), (surplus, showing)) };
        if self.show_seeker(slot, (false, Some(&rank)), (surplus, showing)) {
            return true;
        }
        let Some(info) = (showing.info)(&self.seats[slot as usize]) else { return false };
        let Some((key, offer)) = self.show_one(at, slot, (part, info), showing.now) else { return false };
        showing.opened.entry(key).or_default().push(offer);
        // Whoever is not shown what is lent leaves it to others.
        !is_all || self.seats[slot as usize].kept.is_some()
    }
}
