//! The agents' shard: what of an agent is kept for roles. What the tasks of a role hold there counts as use of its reservation first, of the innermost
//! one that is for them, and what is over as use of the next one around it; so an agent's tasks and its record say all, and nothing is to be told of which
//! task holds what of it. What is not used is free to the role alone, and counts as held by it.

use super::amounts;
use super::index::Index;
use super::pool::{Class, Pool};
use super::roles::Roles;
use crate::frameworks::FrameworkId;
use protocol::{OfferId, Reservation, ReservedFor, Resources, Role, ShardId};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What of one agent is kept.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// For each role; one never stands before another that is below it.
    buckets: Vec<Bucket>,
    /// What is free for anybody and for roles together, as it was when the seat was last refreshed.
    bare: Resources,
}

/// What is kept for one role.
#[derive(Debug)]
struct Bucket {
    role: u32,
    name: Role,
    /// The one around it.
    above: Option<usize>,
    parts: Vec<(ReservedFor, Resources)>,
    /// All of those.
    amount: Resources,
    /// What tasks and offers for which this is the innermost hold, of it or of what is around it.
    held: Resources,
    /// What frameworks for which it is so are shown.
    open: Resources,
    /// What of it nobody holds.
    unused: Resources,
    /// What of that nobody is shown.
    unshown: Resources,
}

/// Agents with something for one role.
#[derive(Debug, Default)]
pub(super) struct Keepers {
    index: Index,
    agents: u32,
}

impl Kept {
    /// The innermost that is for a role.
    fn nearest(&self, role: &Role) -> Option<usize> {
        self.buckets.iter().position(|bucket| role.is_within(&bucket.name))
    }

    /// All that are for a role, the innermost first.
    fn of<'a>(&'a self, role: &Role) -> impl Iterator<Item = &'a Bucket> {
        let first = self.nearest(role);
        std::iter::successors(first, |at| self.buckets[*at].above).map(|at| &self.buckets[at])
    }

    fn sum(&self, of: impl Fn(&Bucket) -> &Resources) -> Resources {
        let mut sum = Resources::NONE;
        self.buckets.iter().for_each(|bucket| amounts::add(&mut sum, of(bucket), 1));
        sum
    }

    /// What is left of each bucket, of which there is so much, where those that are for it hold so much; together no more than `most`.
    fn left(&self, amount: impl Fn(&Bucket) -> &Resources, held: impl Fn(&Bucket) -> &Resources, most: &Resources) -> Vec<Resources> {
        let mut over: Vec<Resources> = self.buckets.iter().map(|bucket| held(bucket).clone()).collect();
        let mut most = most.clone();
        let mut left = Vec::with_capacity(over.len());
        for (at, bucket) in self.buckets.iter().enumerate() {
            let mut spare = amount(bucket).clone();
            let mut spill = std::mem::take(&mut over[at]);
            amounts::sub(&mut spare, &spill, 1);
            amounts::sub(&mut spill, amount(bucket), 1);
            if let Some(above) = bucket.above {
                amounts::add(&mut over[above], &spill, 1);
            }
            amounts::min(&mut spare, &most);
            amounts::sub(&mut most, &spare, 1);
            left.push(spare);
        }
        left
    }
}

/// What is left of each reservation once what was taken out of it for roles below is; those that agree are one.
fn own(list: &[Reservation]) -> BTreeMap<&ReservedFor, Resources> {
    let mut own: BTreeMap<&ReservedFor, Resources> = BTreeMap::new();
    list.iter().for_each(|one| amounts::add(own.entry(&one.reserved).or_default(), &one.resources, 1));
    for inner in list {
        // Who made the outer one, and what is written on it, the inner one does not say: whichever has it, the agent's own first.
        let mut rest = inner.resources.clone();
        for (_, outer) in own.iter_mut().rev().filter(|(outer, _)| inner.reserved.refines(outer)) {
            let mut part = rest.clone();
            amounts::min(&mut part, outer);
            amounts::sub(outer, &part, 1);
            amounts::sub(&mut rest, &part, 1);
        }
    }
    own.retain(|_, amount| !amount.is_none());
    own
}

/// What is left of all reservations on an agent, one by one.
pub(super) fn own_parts(list: &[Reservation]) -> Vec<Reservation> {
    own(list).into_iter().map(|(reserved, resources)| Reservation { reserved: reserved.clone(), resources }).collect()
}

impl Pool {
    /// So much of an agent is kept for roles from now on, in place of what was.
    pub(super) fn reserve(&mut self, slot: u32, list: &[Reservation]) {
        if list.is_empty() && self.seats[slot as usize].kept.is_none() {
            return;
        }
        self.forget_kept(slot);
        let mut by_role: BTreeMap<Role, Vec<(ReservedFor, Resources)>> = BTreeMap::new();
        for Reservation { reserved, resources } in own_parts(list) {
            by_role.entry(reserved.role.clone()).or_default().push((reserved, resources));
        }
        let mut kept = Kept::default();
        // By name a role stands before those below it.
        for (name, parts) in by_role.into_iter().rev() {
            let role = self.roles.hold(&name, &self.elsewhere, &self.whole);
            let mut amount = Resources::NONE;
            parts.iter().for_each(|(_, part)| amounts::add(&mut amount, part, 1));
            let none = || Resources::NONE;
            let (held, open, unused, unshown) = (none(), none(), none(), none());
            kept.buckets.push(Bucket { role, name, above: None, parts, amount, held, open, unused, unshown });
            let keepers = self.keepers.entry(role).or_default();
            keepers.agents += 1;
            // Of the shape of the others, whose masks it is descended with.
            keepers.index.cover(u32::try_from(self.index.size().saturating_sub(1)).expect("AGENTS_MAX fits"));
            keepers.index.learn(&self.seats[slot as usize].capacity);
        }
        for at in 0..kept.buckets.len() {
            let around = |other: &usize| kept.buckets[at].name.is_within(&kept.buckets[*other].name);
            kept.buckets[at].above = (at + 1..kept.buckets.len()).find(around);
        }
        let seat = &self.seats[slot as usize];
        let offers = self.offers.values().filter(|offer| offer.slot == slot).map(|offer| (offer.class, offer.count));
        for (class, n) in seat.attempts.values().map(|class| (class, 1)).chain(offers) {
            if let Some(class) = self.shape(class) {
                kept.hold(&self.roles, class, n, true);
            }
        }
        let shown = seat.open_offers.iter().filter_map(|number| self.openings.offer(*number));
        let shown: Vec<(u32, Resources)> =
            shown.filter_map(|offer| Some((self.openings.opener(offer.opener)?.class, offer.resources.clone()))).collect();
        self.seats[slot as usize].kept = (!kept.buckets.is_empty()).then(|| Box::new(kept));
        shown.into_iter().for_each(|(class, amount)| self.hold_open(slot, class, &amount, true));
        // What was shown and is not there any more is rescinded by it.
        self.refresh_freed(slot);
        self.recount_shown(slot);
    }

    /// For which role, and how much of an agent a framework is shown by these offers; `None` where one of them does not hold.
    pub(super) fn shown_to(&self, (from, framework): (ShardId, FrameworkId), slot: u32, offers: &[OfferId]) -> Option<(Role, Resources)> {
        let (mut role, mut sum) = (None, Resources::NONE);
        for id in offers {
            let offer = self.openings.offer(id.number).filter(|offer| id.shard == self.shard && offer.slot == slot)?;
            let opener = self.openings.opener(offer.opener).filter(|opener| opener.is_of(from, framework))?;
            role = Some(opener.opening.role.clone());
            amounts::add(&mut sum, &offer.resources, 1);
        }
        Some((role?, sum))
    }

    /// Nothing is kept on an agent any more.
    fn forget_kept(&mut self, slot: u32) {
        let Some(kept) = self.seats[slot as usize].kept.take() else { return };
        for bucket in kept.buckets {
            self.roles.charge(bucket.role, (&bucket.unused, 1, false), &self.whole);
            if let Some(keepers) = self.keepers.get_mut(&bucket.role) {
                keepers.index.set(slot, 0, &Resources::NONE, None);
                keepers.index.unlearn(&self.seats[slot as usize].capacity);
                keepers.agents -= 1;
                if keepers.agents == 0 {
                    self.keepers.remove(&bucket.role);
                }
            }
            self.roles.release(bucket.role);
        }
        self.elsewhere.stir();
    }

    /// There is a slot of this number.
    pub(super) fn cover_kept(&mut self, slot: u32) {
        self.keepers.values_mut().for_each(|keepers| keepers.index.cover(slot));
    }

    /// An agent has another capacity: the indexes of what it keeps learn its devices.
    pub(super) fn relearn_kept(&mut self, slot: u32, (before, now): (&Resources, &Resources)) {
        let roles: Vec<u32> = self.seats[slot as usize].kept.iter().flat_map(|kept| &kept.buckets).map(|bucket| bucket.role).collect();
        for role in roles {
            let Some(keepers) = self.keepers.get_mut(&role) else { continue };
            keepers.index.set(slot, 0, &Resources::NONE, None);
            keepers.index.unlearn(before);
            keepers.index.learn(now);
        }
    }

    /// `n` of a class hold something of an agent more, or no longer do.
    pub(super) fn hold(&mut self, slot: u32, class: u32, n: u32, more: bool) {
        if let Some(kept) = self.seats[slot as usize].kept.as_mut()
            && let Some(class) = self.classes.get(class as usize).and_then(Option::as_ref)
        {
            kept.hold(&self.roles, class, n, more);
        }
    }

    /// A framework of this class is shown so much of an agent, or no longer is.
    pub(super) fn hold_open(&mut self, slot: u32, class: u32, amount: &Resources, more: bool) {
        if let Some(kept) = self.seats[slot as usize].kept.as_mut()
            && let Some(class) = self.classes.get(class as usize).and_then(Option::as_ref)
            && let Some(at) = self.roles.get(class.role).and_then(|role| kept.nearest(&role.name))
        {
            let change = if more { amounts::add } else { amounts::sub };
            change(&mut kept.buckets[at].open, amount, 1);
            kept.count_shown();
        }
    }

    /// Takes what is kept off what is free to anybody, and counts it for those that it is kept for.
    pub(super) fn count_kept(&mut self, slot: u32) {
        let seat = &mut self.seats[slot as usize];
        let Some(mut kept) = seat.kept.take() else { return };
        amounts::copy(&mut kept.bare, &seat.free);
        let unused = kept.left(|bucket| &bucket.amount, |bucket| &bucket.held, &kept.bare);
        for (bucket, unused) in kept.buckets.iter_mut().zip(unused) {
            amounts::sub(&mut seat.free, &unused, 1);
            let before = std::mem::replace(&mut bucket.unused, unused);
            if before != bucket.unused {
                self.roles.charge(bucket.role, (&bucket.unused, 1, true), &self.whole);
                self.roles.charge(bucket.role, (&before, 1, false), &self.whole);
                self.elsewhere.stir();
            }
        }
        kept.count_shown();
        self.seats[slot as usize].kept = Some(kept);
        self.recount_shown(slot);
        let seat = &self.seats[slot as usize];
        let attempts = Self::room(seat).0;
        for bucket in seat.kept.iter().flat_map(|kept| &kept.buckets) {
            let room = seat.room_of(&bucket.name);
            if let Some(keepers) = self.keepers.get_mut(&bucket.role) {
                keepers.index.set(slot, attempts, &room, seat.singles());
            }
        }
    }

    /// What of each offer of an agent is of reservations, now that these are others, or others hold some of them.
    pub(super) fn recount_shown(&mut self, slot: u32) {
        let seat = &self.seats[slot as usize];
        if seat.open_offers.is_empty() {
            return;
        }
        let buckets = seat.kept.as_ref().map_or(&[][..], |kept| &kept.buckets);
        let (mut unused, mut now): (Vec<Resources>, _) = (buckets.iter().map(|bucket| bucket.unused.clone()).collect(), vec![]);
        for number in &seat.open_offers {
            let Some(offer) = self.openings.offer(*number) else { continue };
            let class = self.openings.opener(offer.opener).and_then(|opener| self.shape(opener.class));
            let role = class.and_then(|class| self.roles.get(class.role)).map(|role| &role.name);
            let (mut rest, mut kept) = (offer.resources.clone(), Resources::NONE);
            let mut next = role.zip(seat.kept.as_ref()).and_then(|(role, kept)| kept.nearest(role));
            while let Some(at) = next {
                let mut part = rest.clone();
                amounts::min(&mut part, &unused[at]);
                amounts::sub(&mut unused[at], &part, 1);
                amounts::sub(&mut rest, &part, 1);
                amounts::add(&mut kept, &part, 1);
                next = buckets[at].above;
            }
            if kept != offer.kept {
                now.push((*number, kept));
            }
        }
        now.into_iter().for_each(|(number, kept)| self.openings.set_kept(number, kept));
    }

    /// As [`Self::room`], for a role: with what is kept for it.
    pub(super) fn room_for(&self, slot: u32, role: u32) -> (u32, Cow<'_, Resources>) {
        let seat = &self.seats[slot as usize];
        let (attempts, free) = Self::room(seat);
        match self.roles.get(role).filter(|_| seat.kept.is_some()) {
            Some(role) => (attempts, seat.room_of(&role.name)),
            None => (attempts, Cow::Borrowed(free)),
        }
    }

    /// What a framework of this class may be shown of an agent beside what others are: all of it, and what of it is kept for nobody.
    pub(super) fn left_for(&self, slot: u32, class: u32) -> (Resources, Resources) {
        let seat = &self.seats[slot as usize];
        let Some(kept) = &seat.kept else {
            let mut left = seat.free.clone();
            amounts::sub(&mut left, &seat.open, 1);
            return (left.clone(), left);
        };
        let mut general = kept.bare.clone();
        amounts::sub(&mut general, &seat.open, 1);
        amounts::sub(&mut general, &kept.sum(|bucket| &bucket.unshown), 1);
        let mut left = general.clone();
        if let Some(role) = self.shape(class).and_then(|class| self.roles.get(class.role)) {
            kept.of(&role.name).for_each(|bucket| amounts::add(&mut left, &bucket.unshown, 1));
        }
        (left, general)
    }

    /// Of which reservations an amount is that a framework of this class is to be shown.
    pub(super) fn reserved_parts(&self, slot: u32, class: u32, amount: &Resources) -> Vec<Reservation> {
        let Some(kept) = &self.seats[slot as usize].kept else { return vec![] };
        let Some(role) = self.shape(class).and_then(|class| self.roles.get(class.role)) else { return vec![] };
        let (mut rest, mut parts) = (amount.clone(), vec![]);
        for bucket in kept.of(&role.name) {
            let mut unshown = bucket.unshown.clone();
            for (reserved, part) in &bucket.parts {
                let mut resources = part.clone();
                amounts::min(&mut resources, &unshown);
                amounts::min(&mut resources, &rest);
                amounts::sub(&mut unshown, &resources, 1);
                amounts::sub(&mut rest, &resources, 1);
                if !resources.is_none() {
                    parts.push(Reservation { reserved: reserved.clone(), resources });
                }
            }
        }
        parts
    }

    /// True where all that is shown of an agent is there, beside what is kept for those that it is not shown to.
    pub(super) fn holds_shown(&self, slot: u32) -> bool {
        let seat = &self.seats[slot as usize];
        let Some(kept) = &seat.kept else { return seat.free.contains(&seat.open) };
        let mut sum = seat.open.clone();
        amounts::add(&mut sum, &kept.sum(|bucket| &bucket.unshown), 1);
        kept.bare.contains(&sum)
    }

    /// Of a role and those above it those for which something is kept, the innermost first.
    pub(super) fn keepers_of(&self, role: u32) -> Vec<u32> {
        let name = self.roles.get(role).filter(|_| !self.keepers.is_empty()).map(|role| &role.name);
        let roles = name.into_iter().flat_map(Role::and_above).filter_map(|role| self.roles.find(&role));
        roles.filter(|role| self.keepers.contains_key(role)).collect()
    }

    /// The agents of which something is kept for a role.
    pub(super) fn kept_index(&self, role: u32) -> Option<&Index> {
        self.keepers.get(&role).map(|keepers| &keepers.index)
    }

    /// How many tasks of a class have room in what is kept on an agent for its role, at most `most`.
    pub(super) fn kept_for(&self, slot: u32, class: u32, most: u32) -> u32 {
        let Some(kept) = &self.seats[slot as usize].kept else { return 0 };
        let Some(class) = self.shape(class) else { return 0 };
        let Some(role) = self.roles.get(class.role) else { return 0 };
        let mut sum = Resources::NONE;
        kept.of(&role.name).for_each(|bucket| amounts::add(&mut sum, &bucket.unused, 1));
        sum.times(&class.shape, most)
    }

    /// True where what a task of one class leaves on an agent one of another may have.
    pub(super) fn leaves_to(&self, slot: u32, class: &Class, heir: &Class) -> bool {
        let Some(kept) = &self.seats[slot as usize].kept else { return true };
        let name = |class: &Class| self.roles.get(class.role).map(|role| &role.name);
        let (Some(of), Some(to)) = (name(class), name(heir)) else { return true };
        kept.of(of).all(|bucket| to.is_within(&bucket.name))
    }

    /// What of an agent is kept from a role.
    pub(super) fn kept_from(&self, slot: u32, role: u32) -> Resources {
        let (Some(kept), Some(role)) = (&self.seats[slot as usize].kept, self.roles.get(role)) else { return Resources::NONE };
        let others = kept.buckets.iter().filter(|bucket| !role.name.is_within(&bucket.name));
        let mut sum = Resources::NONE;
        others.for_each(|bucket| amounts::add(&mut sum, &bucket.unused, 1));
        sum
    }
}

impl Kept {
    fn hold(&mut self, roles: &Roles, class: &Class, n: u32, more: bool) {
        if let Some(at) = roles.get(class.role).and_then(|role| self.nearest(&role.name)) {
            let change = if more { amounts::add } else { amounts::sub };
            change(&mut self.buckets[at].held, &class.shape, n);
        }
    }

    fn count_shown(&mut self) {
        let unshown = self.left(|bucket| &bucket.unused, |bucket| &bucket.open, &self.bare);
        for (bucket, unshown) in self.buckets.iter_mut().zip(unshown) {
            bucket.unshown = unshown;
        }
    }

    /// What of all that is kept nobody uses, by reservation.
    pub fn unused(&self) -> impl Iterator<Item = (&Role, &Resources)> {
        self.buckets.iter().map(|bucket| (&bucket.name, &bucket.unused))
    }
}

#[cfg(test)]
impl Pool {
    /// What is counted of reservations is what attempts, offers and openings say.
    pub(super) fn check_kept(&self) {
        for (slot, seat) in (0..).zip(&self.seats) {
            let Some(kept) = &seat.kept else { continue };
            let mut again: Vec<(Resources, Resources)> = vec![(Resources::NONE, Resources::NONE); kept.buckets.len()];
            let nearest = |class: u32| kept.nearest(&self.roles.get(self.shape(class)?.role)?.name);
            let offers = self.offers.values().filter(|offer| offer.slot == slot).map(|offer| (offer.class, offer.count));
            for (class, n) in seat.attempts.values().map(|class| (class, 1)).chain(offers) {
                if let (Some(at), Some(class)) = (nearest(class), self.shape(class)) {
                    amounts::add(&mut again[at].0, &class.shape, n);
                }
            }
            for offer in seat.open_offers.iter().filter_map(|number| self.openings.offer(*number)) {
                if let Some(at) = self.openings.opener(offer.opener).and_then(|opener| nearest(opener.class)) {
                    amounts::add(&mut again[at].1, &offer.resources, 1);
                }
            }
            let counted: Vec<_> = kept.buckets.iter().map(|bucket| (bucket.held.clone(), bucket.open.clone())).collect();
            assert_eq!(counted, again, "{}", seat.id);
            let mut sum = seat.free.clone();
            amounts::add(&mut sum, &kept.sum(|bucket| &bucket.unused), 1);
            assert_eq!(sum, kept.bare, "{}", seat.id);
        }
    }
}

impl super::pool::Seat {
    /// True where all that it holds is known.
    pub(super) fn is_known(&self) -> bool {
        self.standing == super::pool::Standing::Here && self.unknown == 0 && self.unheard.is_empty()
    }

    /// What a role may still have of it.
    pub(super) fn room_of(&self, role: &Role) -> Cow<'_, Resources> {
        let Some(kept) = &self.kept else { return Cow::Borrowed(&self.free) };
        let mut room = self.free.clone();
        kept.of(role).for_each(|bucket| amounts::add(&mut room, &bucket.unused, 1));
        Cow::Owned(room)
    }
}
