//! The agents' shard: frameworks that say what they want are shown just that. Within the fair part of their role they come before those that take
//! whatever comes, and have it out from under what those were shown; beyond it the smallest share decides, as among all. An agent is found through the
//! index, and freed room is looked at where it is.

use super::amounts;
use super::openings::{Opening, Showing};
use super::pool::Pool;
use super::surplus::Surplus;
use super::uncounted::Uncounted;
use protocol::job::PRIORITY_DEFAULT;
use protocol::{AgentInfo, Constraint, Resources, ShardId};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a framework wants for one of its roles, as its shard says it to an agents' shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seeking {
    /// Which framework and role.
    pub opening: Opening,
    /// Rises with each demand: a later one wants to be shown what was declined before.
    pub turn: u64,
    /// The number of the last of the receiver's offers that these counts have counted.
    pub seen: u64,
    /// What, the most urgent first; `None`: whatever comes.
    pub wants: Option<Vec<Sought>>,
}

/// Tasks of one shape that a framework wants to place, and that no offer is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sought {
    /// Which wish of the demand.
    pub id: u16,
    /// 0 to 100.
    pub priority: u8,
    /// How many.
    pub count: u32,
    /// What each of them needs.
    pub shape: Resources,
    /// What an agent must be.
    pub constraints: Vec<Constraint>,
}

/// What an opener wants.
#[derive(Debug)]
pub(super) struct Wants {
    turn: u64,
    searches: Vec<Search>,
}

#[derive(Debug)]
struct Search {
    id: u16,
    /// Its role, shape and rules, held.
    class: u32,
    priority: u8,
    count: u32,
    /// Offers that the count does not know of.
    offered: Uncounted,
    /// True where no agent had room: only freed room can help.
    blocked: bool,
}

/// Part of an agent's room: how much, for how many tasks of which search, and the priority of the first of them.
struct Lot {
    amount: Resources,
    searches: Vec<(usize, u32)>,
    priority: u8,
}

/// Who is served first: whose role has the smallest share, whose wish is the most urgent, who was served the longest ago.
type Turn = (Vec<u64>, Reverse<u8>, u64);

impl Search {
    fn unmet(&self) -> u32 {
        u32::try_from(u64::from(self.count).saturating_sub(self.offered.tasks())).unwrap_or(u32::MAX)
    }
}

impl Wants {
    /// An offer is made for these.
    fn push(&mut self, number: u64, searches: &[(usize, u32)]) {
        for (at, n) in searches {
            if let Some(search) = self.searches.get_mut(*at) {
                search.offered.push(number, *n);
            }
        }
    }

    /// An offer holds no more. True where something is wanted again that it was for.
    pub fn remove(&mut self, number: u64) -> bool {
        let mut again = false;
        for search in &mut self.searches {
            if search.offered.remove(number) {
                (search.blocked, again) = (false, true);
            }
        }
        again
    }

    /// What it wants that nothing is shown for: of which class, and how many.
    pub fn unmet(&self) -> impl Iterator<Item = (u32, u32)> {
        self.searches.iter().map(|search| (search.class, search.unmet())).filter(|(_, unmet)| *unmet > 0)
    }
}

impl Pool {
    /// What frameworks of `from` want, in place of what was said of these before.
    pub(super) fn seek(&mut self, from: ShardId, said: Vec<Seeking>) {
        for Seeking { opening, turn, seen, wants } in said {
            let at = self.opener(from, &opening);
            let before = self.openings.opener_mut(at).and_then(|opener| opener.wants.take());
            let Some(wants) = wants else {
                if before.is_some() {
                    self.openings.unfilter(at, false);
                    self.stir_all();
                }
                self.end_wants(before);
                continue;
            };
            let known = before.as_ref().is_some_and(|before| before.turn == turn);
            let mut counted: BTreeMap<u16, Search> = BTreeMap::new();
            for search in before.into_iter().flat_map(|before| before.searches) {
                self.class_drop(search.class, 1);
                if known {
                    counted.insert(search.id, search);
                }
            }
            if !known {
                self.openings.unfilter(at, false);
            }
            let searches = wants.into_iter().map(|sought| {
                let class = self.class_placed(&opening.role, (&sought.shape, PRIORITY_DEFAULT), &sought.constraints, 1);
                let mut offered = counted.remove(&sought.id).map(|search| search.offered).unwrap_or_default();
                offered.counted(seen);
                Search { id: sought.id, class, priority: sought.priority, count: sought.count, offered, blocked: false }
            });
            let wants = Wants { turn, searches: searches.collect() };
            if let Some(opener) = self.openings.opener_mut(at) {
                opener.wants = Some(wants);
            }
            self.openings.seekers.insert(at);
        }
    }

    /// What was looked for in vain may be had.
    pub(super) fn seek_again(&mut self, at: u32) {
        if let Some(wants) = self.openings.opener_mut(at).and_then(|opener| opener.wants.as_mut()) {
            wants.searches.iter_mut().for_each(|search| search.blocked = false);
            self.openings.seekers.insert(at);
        }
    }

    /// Wants are over.
    pub(super) fn end_wants(&mut self, wants: Option<Wants>) {
        wants.into_iter().flat_map(|wants| wants.searches).for_each(|search| self.class_drop(search.class, 1));
    }

    fn turn(&self, at: u32) -> Option<Turn> {
        let opener = self.openings.opener(at)?;
        let role = self.shape(opener.class)?.role;
        let next = opener.wants.as_ref()?.searches.iter().find(|search| !search.blocked && search.unmet() > 0)?;
        Some((self.roles.rank(role, &opener.offered, &self.whole), Reverse(next.priority), opener.served))
    }

    /// Shows agents to those that want something and have not been looked for in vain. Whoever is served only gets behind: so a turn that was worked out
    /// before is looked at again, and no other one.
    pub(super) fn show_sought(&mut self, showing: &mut Showing<'_>) {
        let seekers = std::mem::take(&mut self.openings.seekers);
        let mut line: BTreeSet<(Turn, u32)> = seekers.into_iter().filter_map(|at| Some((self.turn(at)?, at))).collect();
        while let Some((turn, at)) = line.pop_first() {
            let now_is = self.turn(at);
            let serve = now_is.as_ref() == Some(&turn);
            if serve && !self.find_for(at, showing) {
                continue;
            }
            line.extend(if serve { self.turn(at) } else { now_is }.map(|turn| (turn, at)));
        }
    }

    /// Shows one agent to whoever wants one; false where there is none for it.
    fn find_for(&mut self, at: u32, showing: &mut Showing<'_>) -> bool {
        let surplus = self.surplus();
        let count = self.openings.opener(at).and_then(|opener| opener.wants.as_ref()).map_or(0, |wants| wants.searches.len());
        for wish in 0..count {
            let wants = self.openings.opener(at).and_then(|opener| opener.wants.as_ref());
            let Some(search) = wants.and_then(|wants| wants.searches.get(wish)).filter(|search| !search.blocked && search.unmet() > 0)
            else {
                continue;
            };
            let class = search.class;
            let kept = self.shape(class).map(|class| self.keepers_of(class.role)).unwrap_or_default();
            let shape = self.shape(class).map(|class| class.shape.clone()).unwrap_or_default();
            let is_used_up = self.is_used_up(at, &shape, surplus.as_ref());
            let lists = kept.into_iter().map(Some).chain((!is_used_up).then_some(None));
            if lists.into_iter().any(|list| self.find_in(list, (at, wish, class), (surplus.as_ref(), showing))) {
                return true;
            }
            if let Some(search) = self.openings.opener_mut(at).and_then(|opener| opener.wants.as_mut()?.searches.get_mut(wish)) {
                search.blocked = true;
            }
        }
        false
    }

    /// Shows one agent to whoever wants one: of those of which something is kept for a role, or of all.
    fn find_in(
        &mut self,
        list: Option<u32>,
        (at, wish, class): (u32, usize, u32),
        (surplus, showing): (Option<&Surplus>, &mut Showing<'_>),
    ) -> bool {
        let size = u32::try_from(self.index.size()).expect("AGENTS_MAX fits").max(1);
        let start = self.start % size;
        let (mut from, mut last) = (start, None);
        while let Some(slot) = self.slot_for(list, class, from) {
            let step = (slot + size - start) % size;
            if last.is_some_and(|last| step <= last) {
                break;
            }
            if let Some(lot) = self.lot_with(at, slot, wish, surplus)
                && let Some(info) = (showing.info)(&self.seats[slot as usize])
            {
                self.start = slot.wrapping_add(1);
                self.show_lot(at, slot, (lot, info), showing);
                return true;
            }
            self.clipped(slot, surplus);
            (last, from) = (Some(step), slot + 1);
        }
        false
    }

    /// The first agent from a slot on that has room for one of a class, whatever others are shown.
    fn slot_for(&self, list: Option<u32>, class: u32, from: u32) -> Option<u32> {
        let class = self.shape(class)?;
        let index = list.map_or(Some(&self.index), |role| self.kept_index(role))?;
        let mask = match class.rules {
            Some(rules) => Some(self.aims.rules.mask(rules)?),
            None => None,
        };
        index.find(&class.shape, from, mask)
    }

    /// What of an agent an opener may be shown so that one of its wishes is among it: of what nobody is shown nor will be in this round; or else, up to the
    /// fair part of its role, also of what those are shown that take whatever comes, which is taken back.
    fn lot_with(&mut self, at: u32, slot: u32, wish: usize, surplus: Option<&Surplus>) -> Option<Lot> {
        let has = |lot: &Lot| lot.searches.iter().any(|(search, _)| *search == wish);
        if !self.openings.is_due(slot) {
            let room = self.room_of(at, slot, false);
            if let Some(lot) = self.lot(at, slot, &room, u64::MAX, surplus).filter(has) {
                return Some(lot);
            }
        }
        let (under, part) = (self.room_of(at, slot, true), self.part_left(at));
        let lot = self.lot(at, slot, &under, part, surplus).filter(has)?;
        self.clear_for(at, slot, &lot.amount);
        Some(lot)
    }

    /// Room of an agent for an opener: attempts, and what is not shown to those that say what they want, nor to others where not `under` these.
    fn room_of(&self, at: u32, slot: u32, under: bool) -> (u32, Resources) {
        let seat = &self.seats[slot as usize];
        let own = self.openings.opener(at).and_then(|opener| self.shape(opener.class));
        let Some((class, (attempts, free))) = own.map(|class| (class, self.room_for(slot, class.role))) else {
            return (0, Resources::NONE);
        };
        let mut free = free.into_owned();
        let shown = seat.open_offers.iter().filter_map(|number| self.openings.offer(*number));
        let counts = |offer: &&super::openings::OpenOffered| {
            !under || self.openings.opener(offer.opener).is_some_and(|opener| opener.wants.is_some())
        };
        for offer in shown.filter(counts) {
            let of = self.openings.opener(offer.opener).and_then(|opener| self.shape(opener.class));
            let mut beside = offer.resources.clone();
            // What is kept for another role was never among it.
            if of.is_some_and(|of| !self.leaves_to(slot, of, class)) {
                amounts::sub(&mut beside, &offer.kept, 1);
            }
            amounts::sub(&mut free, &beside, 1);
        }
        (attempts, free)
    }

    /// How much more of the whole an opener's role may hold until it has its fair part.
    pub(super) fn part_left(&self, at: u32) -> u64 {
        let Some(opener) = self.openings.opener(at) else { return 0 };
        self.shape(opener.class).map_or(0, |class| self.roles.part_left(class.role, &opener.offered, &self.whole))
    }

    /// Takes back what is shown of an agent to those that take whatever comes, the latest offers first, until there is so much beside it.
    fn clear_for(&mut self, at: u32, slot: u32, amount: &Resources) {
        loop {
            if self.room_of(at, slot, false).1.contains(amount) {
                return;
            }
            let takes_all = |number: &&u64| {
                let opener = self.openings.offer(**number).and_then(|offer| self.openings.opener(offer.opener));
                opener.is_some_and(|opener| opener.wants.is_none())
            };
            let shown = &self.seats[slot as usize].open_offers;
            let Some(number) = shown.iter().rev().find(takes_all).copied() else { return };
            self.rescind(number);
        }
    }

    /// What of room on an agent an opener's wishes take, the most urgent first, within a part of the whole; `None` where nothing. One that was not looked
    /// for in vain takes an even part, so that load spreads.
    fn lot(&self, at: u32, slot: u32, (attempts, room): &(u32, Resources), mut part: u64, surplus: Option<&Surplus>) -> Option<Lot> {
        // Within a part of the whole it comes before those that take whatever comes.
        let mut budget = self.budget(at, slot, part < u64::MAX, surplus);
        let (mut left, mut places) = (room.clone(), *attempts);
        let mut lot = Lot { amount: Resources::NONE, searches: vec![], priority: 0 };
        for (n, search) in self.openings.opener(at)?.wants.as_ref()?.searches.iter().enumerate() {
            let unmet = search.unmet();
            let Some(class) = self.classes.get(search.class as usize).and_then(Option::as_ref).filter(|_| unmet > 0) else { continue };
            if !self.meets(class, slot) {
                continue;
            }
            let even = if search.blocked { u32::MAX } else { search.count.div_ceil(self.open.max(1)).max(1) };
            let share = amounts::dominant_share(&class.shape, &self.whole).max(1);
            let within = u32::try_from(part / share).unwrap_or(u32::MAX);
            let most = unmet.min(places).min(even).min(within);
            let most = budget.as_ref().map_or(most, |budget| budget.times(&class.shape, most));
            let tasks = self.on_devices(slot, &class.shape, left.times(&class.shape, most));
            if tasks > 0 {
                amounts::sub(&mut left, &class.shape, tasks);
                budget.iter_mut().for_each(|budget| budget.spend(&class.shape, tasks));
                amounts::add(&mut lot.amount, &class.shape, tasks);
                places -= tasks;
                part = part.saturating_sub(share.saturating_mul(u64::from(tasks)));
                lot.priority = lot.priority.max(search.priority);
                lot.searches.push((n, tasks));
            }
        }
        (!lot.searches.is_empty() && !self.openings.filters(at, slot, &lot.amount)).then_some(lot)
    }

    /// True where an opener with wants would be shown some of this room.
    pub(super) fn would_take(&self, at: u32, slot: u32, room: &Resources) -> bool {
        let wants = self.openings.opener(at).and_then(|opener| opener.wants.as_ref());
        wants.is_some_and(|wants| {
            let fits = |class: &super::pool::Class, unmet| {
                let n = self.on_devices(slot, &class.shape, room.times(&class.shape, unmet));
                let mut amount = Resources::NONE;
                amounts::add(&mut amount, &class.shape, n);
                n > 0 && !self.openings.filters(at, slot, &amount)
            };
            wants.unmet().any(|(class, unmet)| self.shape(class).is_some_and(|class| self.meets(class, slot) && fits(class, unmet)))
        })
    }

    /// True where an agent is as a class asks.
    pub(super) fn meets(&self, class: &super::pool::Class, slot: u32) -> bool {
        class.rules.is_none_or(|rules| self.aims.rules.mask(rules).is_some_and(|mask| mask.has_slot(slot)))
    }

    /// Shows what is free on an agent to one that wants some of it. Beside somebody who takes whatever comes: `within` the fair part of its role, also what
    /// such are shown; or else where that one's `rank` is not before its own. True where it did.
    pub(super) fn show_seeker(
        &mut self,
        slot: u32,
        (within, rank): (bool, Option<&Vec<u64>>),
        (surplus, showing): (Option<&Surplus>, &mut Showing<'_>),
    ) -> bool {
        let is_kept = self.seats[slot as usize].kept.is_some();
        let mut room = None;
        let mut best: Option<((bool, Turn), u32, Lot)> = None;
        for at in self.openings.with_wants() {
            let part = if within { self.part_left(at) } else { u64::MAX };
            if is_kept || room.is_none() {
                room = Some(self.room_of(at, slot, within));
            }
            let Some(lot) = room.as_ref().and_then(|room| self.lot(at, slot, room, part, surplus)) else { continue };
            let Some(opener) = self.openings.opener(at) else { continue };
            let Some(role) = self.shape(opener.class).map(|class| class.role) else { continue };
            let own = self.roles.rank(role, &opener.offered, &self.whole);
            if rank.is_some_and(|other| *other < own) {
                continue;
            }
            let turn = (opener.owes(), (own, Reverse(lot.priority), opener.served));
            if best.as_ref().is_none_or(|(first, ..)| turn < *first) {
                best = Some((turn, at, lot));
            }
        }
        let Some((_, at, lot)) = best else { return false };
        let Some(info) = (showing.info)(&self.seats[slot as usize]) else { return false };
        self.clear_for(at, slot, &lot.amount);
        self.show_lot(at, slot, (lot, info), showing);
        true
    }

    fn show_lot(&mut self, at: u32, slot: u32, (lot, info): (Lot, Arc<AgentInfo>), showing: &mut Showing<'_>) {
        let Some((key, offer)) = self.show_one(at, slot, (lot.amount, info), showing.now) else { return };
        if let Some(wants) = self.openings.opener_mut(at).and_then(|opener| opener.wants.as_mut()) {
            wants.push(offer.id.number, &lot.searches);
        }
        showing.opened.entry(key).or_default().push(offer);
    }
}
