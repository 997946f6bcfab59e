//! Who is offered what next. Driven by events: a new want looks for an agent in the index; freed resources look for a want, in the order
//! of the roles' shares. Agents are tried from a place that moves on, and a want is split evenly over the open ones, so load spreads.

use super::amounts;
use super::event::Want;
use super::gather::BEHIND_MAX;
use super::pool::{Class, Offered, Pool, Wanted, place};
use super::precedence::GUARDED_TRIES;
use super::roles::{Line, Passed};
use super::uncounted::Uncounted;
use protocol::job::PRIORITY_DEFAULT;
use protocol::message::{ATTEMPTS_PER_MESSAGE_MAX, Launch};
use protocol::{AttemptId, JobId, Offer, OfferId, Resources, Role, ShardId, Time};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// From whom, of what class, how urgent, and what its shard calls it.
pub(super) type WantKey = (ShardId, u32, u8, u64);

impl Offered {
    const fn key(&self) -> WantKey {
        (self.to, self.class, self.priority, self.want)
    }
}

impl Wanted {
    pub(super) const fn key(&self) -> WantKey {
        (self.from, self.class, self.priority, self.id)
    }

    /// How many tasks no offer is out for.
    #[must_use]
    pub fn unmet(&self) -> u32 {
        u32::try_from(u64::from(self.count).saturating_sub(self.offered.tasks())).expect("less than the count")
    }
}

impl Pool {
    /// All that a framework's shard wants, in place of what it said before; it had counted our offers up to `seen` by then.
    pub fn demand(&mut self, from: ShardId, wants: &[Want], seen: u64) {
        let mut over = self.wants_of(from, false);
        for want in wants {
            let class = self.class(&want.role, &want.shape, want.priority, 1);
            let key = (from, class, want.priority, 0);
            over.remove(&key);
            if let Some(at) = self.by_want.get(&key).copied() {
                self.class_drop(class, 1);
                if let Some(known) = self.wants[at as usize].as_mut() {
                    let more = want.count.saturating_sub(known.count);
                    known.count = want.count;
                    known.offered.counted(seen);
                    self.asked_for(class, more);
                }
                self.stir(at);
            } else {
                self.want_new(key, want.count);
            }
        }
        for key in over {
            self.want_drop(key);
        }
    }

    /// The wants of a shard whose tasks may go everywhere, or those whose may not.
    pub(super) fn wants_of(&self, from: ShardId, placed: bool) -> BTreeSet<WantKey> {
        let all = self.by_want.range((from, 0, 0, 0)..=(from, u32::MAX, u8::MAX, u64::MAX)).map(|(key, _)| *key);
        all.filter(|(.., id)| (*id > 0) == placed).collect()
    }

    pub(super) fn want_new(&mut self, key: WantKey, count: u32) -> u32 {
        let (from, class, priority, id) = key;
        self.ages += 1;
        let age = self.ages;
        let offered = Uncounted::default();
        let (gathered, patient_until) = (0, Time::ZERO);
        let want =
            Wanted { from, class, priority, count, age, offered, blocked: false, guarded: false, gathered, patient_until, id, aim: None };
        let at = place(&mut self.wants, &mut self.wants_free, want);
        self.by_want.insert(key, at);
        self.asked_for(class, count);
        if let Some(role) = self.role_of_mut(class) {
            role.wants.insert((Reverse(priority), age, at));
        }
        self.stir(at);
        at
    }

    pub(super) fn want_drop(&mut self, key: WantKey) {
        let Some(at) = self.by_want.remove(&key) else { return };
        let Some(want) = self.wants[at as usize].take() else { return };
        self.wants_free.push(at);
        if let Some(role) = self.role_of_mut(want.class) {
            role.wants.remove(&(Reverse(want.priority), want.age, at));
        }
        self.aim_end(want.aim);
        self.class_drop(want.class, 1);
    }

    fn role_of_mut(&mut self, class: u32) -> Option<&mut super::roles::Node> {
        let role = self.shape(class)?.role;
        self.roles.get_mut(role)
    }

    /// A want may have become larger.
    pub(super) fn stir(&mut self, at: u32) {
        let Some(want) = self.wants.get(at as usize).and_then(Option::as_ref) else { return };
        let Some(role) = self.shape(want.class).map(|class| class.role) else { return };
        if want.unmet() > 0 {
            let awake = !want.blocked;
            self.roles.wake(role, awake);
        }
    }

    /// Takes an offer back that was not taken; its resources are free again.
    pub fn retract(&mut self, number: u64) -> Option<Offered> {
        self.unoffer(number, false);
        self.retract_taken(number)
    }

    /// The same of one that its shard declined.
    pub fn retract_declined(&mut self, number: u64) {
        self.unoffer(number, true);
        self.retract_taken(number);
    }

    fn unoffer(&mut self, number: u64, declined: bool) {
        let Some(offer) = self.offers.get(&number).filter(|offer| offer.want > 0) else { return };
        let slot = offer.slot;
        if let Some(at) = self.by_want.get(&offer.key()).copied() {
            self.unoffered(at, number, slot, declined);
        }
    }

    /// Takes an offer back, of which something was taken: its resources are free again.
    pub fn retract_taken(&mut self, number: u64) -> Option<Offered> {
        let offer = self.offers.remove(&number)?;
        if let Some(class) = self.classes.get(offer.class as usize).and_then(Option::as_ref) {
            let seat = &mut self.seats[offer.slot as usize];
            amounts::sub(&mut seat.offered, &class.shape, offer.count);
            seat.offered_attempts -= offer.count;
        }
        offer.given.iter().for_each(|given| self.hold_one(offer.slot, offer.class, given, false));
        self.hold(offer.slot, offer.class, offer.count, false);
        self.charge(offer.class, offer.count, false);
        self.refresh_freed(offer.slot);
        if let Some(at) = self.by_want.get(&offer.key()).copied() {
            if let Some(want) = self.wants[at as usize].as_mut() {
                want.offered.remove(number);
            }
            self.stir(at);
        }
        self.class_drop(offer.class, 1);
        Some(offer)
    }

    /// True where these launches are all that an offer is for, and nothing of them is booked yet.
    pub fn takes_whole(&self, number: u64, launches: &[Launch], ranks: &BTreeMap<JobId, u8>) -> bool {
        let Some(offer) = self.offers.get(&number).filter(|offer| offer.want == 0) else { return false };
        let Some(class) = self.shape(offer.class) else { return false };
        let Some(role) = self.roles.get(class.role) else { return false };
        let seat = &self.seats[offer.slot as usize];
        let new = |launch: &Launch| {
            let booked = |(index, number): &(u32, u32)| seat.attempts.contains_key(&AttemptId::new(launch.job, *index, *number));
            let priority = ranks.get(&launch.job).copied().unwrap_or(PRIORITY_DEFAULT);
            priority == class.priority
                && launch.role == role.name
                && launch.template.resources == class.shape
                && !launch.attempts.iter().any(booked)
        };
        let count: usize = launches.iter().map(|launch| launch.attempts.len()).sum();
        count == offer.count as usize && launches.iter().all(new)
    }

    /// An offer was taken whole: what was offered is booked from now on, and nothing is more or less free than before.
    pub fn take_whole(&mut self, number: u64, attempts: impl Iterator<Item = AttemptId>) {
        let Some(mut offer) = self.offers.remove(&number) else { return };
        let Some(class) = self.classes.get_mut(offer.class as usize).and_then(Option::as_mut) else { return };
        let seat = &mut self.seats[offer.slot as usize];
        amounts::sub(&mut seat.offered, &class.shape, offer.count);
        amounts::add(&mut seat.booked, &class.shape, offer.count);
        seat.rank(class, offer.count, true);
        seat.offered_attempts -= offer.count;
        class.refs += u64::from(offer.count);
        let given = std::mem::take(&mut offer.given);
        if given.is_empty() && !self.aims.rules.asks_for_any() {
            attempts.for_each(|attempt| seat.insert(attempt, offer.class));
        } else {
            let attempts: Vec<AttemptId> = attempts.collect();
            attempts.iter().for_each(|attempt| seat.insert(*attempt, offer.class));
            self.neighbours_moved(offer.slot, &self.neighbours_of(attempts.iter()));
            self.pass_on(offer.slot, attempts.into_iter(), given);
        }
        let want = self.by_want.get(&offer.key()).and_then(|at| self.wants[*at as usize].as_mut());
        if let Some(want) = want
            && want.offered.remove(number)
        {
            want.count = want.count.saturating_sub(offer.count); // They wait no longer, whatever was said last.
        }
        self.class_drop(offer.class, 1);
    }

    /// Takes back all offers of an agent, or all to a shard.
    pub fn retract_all(&mut self, which: impl Fn(&Offered) -> bool) {
        let numbers: Vec<u64> = self.offers.iter().filter(|(_, offer)| which(offer)).map(|(number, _)| *number).collect();
        for number in numbers {
            self.retract(number);
        }
    }

    /// Takes back the offers whose deadline has come.
    pub fn expire(&mut self, now: Time) {
        while let Some(number) = self.offers.first_key_value().filter(|(_, offer)| offer.deadline <= now).map(|(number, _)| *number) {
            self.retract(number);
        }
    }

    /// Makes the offers that can be made now.
    pub fn allocate(&mut self, now: Time) -> BTreeMap<ShardId, Vec<Offer>> {
        let mut offers = BTreeMap::new();
        while let Some(slot) = self.freed.pop_first() {
            if !self.roles.is_calm(Line::Hungry) {
                self.fill(slot, now, &mut offers);
            }
        }
        while let Some(role) = self.roles.first(Line::Awake, &Passed::default()) {
            let Some(at) = self.first_want(role, |want| !want.blocked) else {
                self.roles.calm(role, Line::Awake);
                continue;
            };
            self.spread(role, at, now, &mut offers);
        }
        self.make_room(now, &mut offers);
        offers
    }

    /// Offers what `slot` has free to those who want it, the role with the smallest share first.
    fn fill(&mut self, slot: u32, now: Time, offers: &mut BTreeMap<ShardId, Vec<Offer>>) {
        let (mut passed, mut wants_done, mut behind) = (Passed::default(), BTreeSet::new(), Vec::new());
        if !self.seats[slot as usize].open_offers.is_empty() {
            self.guard(now);
        }
        loop {
            let Some(role) = self.roles.first(Line::Hungry, &passed) else { return };
            let (attempts, free) = self.room_beside(slot, role, &Resources::NONE, now);
            if attempts == 0 {
                return;
            }
            let has = |class: &Class| free.contains(&class.shape) && self.on_devices(slot, &class.shape, 1) > 0;
            let fits = |want: &Wanted| self.shape(want.class).is_some_and(has);
            let takes = |want: &Wanted| want.id == 0 || self.by_want.get(&want.key()).is_some_and(|at| self.takes(*at, slot) > 0);
            let found = self.first_want(role, |want| !wants_done.contains(&want.age) && fits(want) && takes(want));
            let Some(at) = found else {
                if behind.len() < BEHIND_MAX {
                    behind.extend(self.starved(slot, role, &wants_done, now).map(|at| (role, at)));
                }
                self.roles.pass(role, &mut passed);
                if self.first_want(role, |_| true).is_none() {
                    self.roles.calm(role, Line::Hungry);
                }
                continue;
            };
            let Some(want) = self.wants[at as usize].as_ref() else { return };
            let (class, age, blocked, count) = (want.class, want.age, want.blocked, want.count);
            if self.leaves(slot, role, now) {
                return;
            }
            let Some(want) = self.wants[at as usize].as_ref() else { return };
            let unmet = want.unmet();
            let mut most = self.may_have(role, class, unmet, now);
            if most > 0 && !behind.is_empty() && self.gathers(slot, &mut behind, role, now) {
                continue;
            }
            if !blocked {
                most = most.min(self.even_part(count));
            }
            most = most.max(self.kept_for(slot, class, unmet));
            if !blocked || most == 0 {
                wants_done.insert(age);
            }
            if most == 0 || !self.offer(at, slot, most, now, offers) {
                wants_done.insert(age);
            }
        }
    }

    /// Finds an agent for a want that no agent was found to be too small for.
    fn spread(&mut self, role: u32, at: u32, now: Time, offers: &mut BTreeMap<ShardId, Vec<Offer>>) {
        if !self.keepers.is_empty() && self.spread_kept(role, at, now, offers)
            || self.scores.is_some() && self.spread_scored(role, at, now, offers)
        {
            return;
        }
        let Some(want) = self.wants[at as usize].as_ref() else { return };
        let (class, most) = (want.class, want.unmet().min(self.even_part(want.count)));
        let before = most;
        let most = self.may_have(role, class, most, now);
        if let Some(want) = self.wants[at as usize].as_mut().filter(|_| most == 0 && before > 0) {
            want.guarded |= self.precedence.due.is_some();
        }
        if self.spread_devices(role, (at, most), now, offers).is_some() {
            return;
        }
        let mut seen: Option<u32> = None;
        for nth in 0..if most > 0 { GUARDED_TRIES } else { 0 } {
            let found = self.shape(class).and_then(|class| {
                let first = self.index.find(&class.shape, self.start, self.mask_of(at))?;
                let bare = if nth == 0 { self.find_bare(at, &class.shape, first) } else { None };
                bare.or(Some(first))
            });
            let Some(slot) = found.filter(|slot| seen != Some(*slot)) else { break };
            self.start = slot.wrapping_add(1);
            if self.offer(at, slot, most, now, offers) {
                return;
            }
            seen.get_or_insert(slot);
        }
        self.stuck(at);
    }

    /// As [`Self::spread`], on an agent of which something is kept for the role; false where there is none.
    fn spread_kept(&mut self, role: u32, at: u32, now: Time, offers: &mut BTreeMap<ShardId, Vec<Offer>>) -> bool {
        let Some(want) = self.wants[at as usize].as_ref() else { return false };
        let (class, unmet) = (want.class, want.unmet());
        let found = self.shape(class).and_then(|class| {
            let mask = self.mask_of(at);
            self.keepers_of(role).into_iter().find_map(|of| self.kept_index(of)?.find(&class.shape, 0, mask))
        });
        let Some(slot) = found else { return false };
        let most = self.kept_for(slot, class, unmet).max(self.may_have(role, class, unmet.min(self.even_part(unmet)), now));
        most > 0 && self.offer(at, slot, most, now, offers)
    }

    /// The first want of a role that is unmet and as `which` says.
    pub(super) fn first_want(&self, role: u32, which: impl Fn(&Wanted) -> bool) -> Option<u32> {
        let wants = &self.roles.get(role)?.wants;
        let good = |at: &u32| self.wants[*at as usize].as_ref().is_some_and(|want| want.unmet() > 0 && which(want));
        wants.iter().map(|(_, _, at)| *at).find(good)
    }

    /// An even part of `count` tasks, with as many parts as there are open agents.
    pub(super) fn even_part(&self, count: u32) -> u32 {
        count.div_ceil(self.open.max(1)).max(1)
    }

    /// For how many of `most` tasks a role may be offered room: before the next one is to be served, and beside what guarantees are short of and what
    /// frameworks before it think about.
    pub(super) fn may_have(&mut self, role: u32, class: u32, most: u32, now: Time) -> u32 {
        let Some(shape) = self.classes.get(class as usize).and_then(Option::as_ref).map(|class| &class.shape) else { return 0 };
        let most = most.min(self.roles.fair_most(role, shape, &self.whole));
        let beside = self.roles.beside_reserve(role, (shape, most), &self.elsewhere, (&self.total, &self.whole));
        if beside == 0 || self.openings.is_empty() { beside } else { self.beside_guarded(role, class, beside, now) }
    }

    /// How all roles are served from now on.
    pub(super) fn claim(&mut self, claims: BTreeMap<Role, super::roles::Claim>) {
        self.roles.claim(claims, &self.whole);
        self.count_short();
        self.look_again();
    }

    /// What is free may be given to others than before.
    pub(super) fn look_again(&mut self) {
        let slots = 0..u32::try_from(self.seats.len()).expect("AGENTS_MAX fits");
        self.freed.extend(slots.clone());
        slots.for_each(|slot| self.openings.stir(slot));
    }

    /// Offers a want room for at most so many tasks on an agent; false where none is left for it beside what frameworks are shown.
    pub(super) fn offer(&mut self, at: u32, slot: u32, most: u32, now: Time, offers: &mut BTreeMap<ShardId, Vec<Offer>>) -> bool {
        self.seats[slot as usize].fetch();
        let takes = self.takes(at, slot);
        let class = self.wants[at as usize].as_ref().map_or(u32::MAX, |want| want.class);
        let Some(class) = self.classes.get(class as usize).and_then(Option::as_ref) else { return false };
        let (attempts, free) = self.room_beside(slot, class.role, &class.shape, now);
        let most = most.min(attempts).min(ATTEMPTS_PER_MESSAGE_MAX as u32).min(takes);
        let amount = free.times(&class.shape, most);
        // An offer says amounts: one of two parts could be taken for a task that needs both of one device.
        let one = self.seats[slot as usize].singles().is_some_and(|singles| singles.concerns(&class.shape));
        let count = self.on_devices(slot, &class.shape, amount).min(if one { 1 } else { u32::MAX });
        if amount > 0 && count == 0 {
            return false; // Its devices are free in parts that are too small.
        }
        if count == 0 {
            assert!(!self.seats[slot as usize].open_offers.is_empty(), "an agent was chosen because it has room for one");
            if let Some(want) = self.wants[at as usize].as_mut() {
                want.guarded = true;
            }
            self.guard(now);
            return false;
        }
        let Some(want) = self.wants[at as usize].as_mut() else { return false };
        let number = self.next_offer;
        self.next_offer += 1;
        let deadline = now + self.offer_ms;
        want.offered.push(number, count);
        let Some(role) = self.roles.get(class.role).map(|role| Role::clone(&role.name)) else { return false };
        let mut resources = Resources::NONE;
        amounts::add(&mut resources, &class.shape, count);
        let (to, class, priority, id) = (want.from, want.class, want.priority, want.id);
        let seat = &mut self.seats[slot as usize];
        amounts::add(&mut seat.offered, &resources, 1);
        seat.offered_attempts += count;
        let offer =
            Offer { id: OfferId { shard: self.shard, number }, agent: seat.id, incarnation: seat.incarnation, role, resources, deadline };
        let given = self.hold_devices(slot, class, count);
        self.offers.insert(number, Offered { slot, to, class, priority, want: id, count, given, deadline });
        if let Some(held) = self.classes[class as usize].as_mut() {
            held.refs += 1;
        }
        self.hold(slot, class, count, true);
        self.charge(class, count, true);
        self.refresh(slot);
        if let Some(offer) = self.offered_placed(at, (number, slot, count), offer) {
            offers.entry(to).or_default().push(offer);
        }
        true
    }
}
