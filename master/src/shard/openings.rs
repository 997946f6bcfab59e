//! The agents' shard: what is shown to frameworks. To those that say nothing of what they want (the others are `seekers`') all that an agent has free goes to one of them at a time,
//! that of the role with the smallest share first, and is promised to nobody: what jobs need is taken out from under it, and the offer is
//! rescinded. So a framework that holds offers keeps others only from what it was shown, and that not for long.

use super::amounts;
use super::free_ports::free_ports;
use super::pool::{ATTEMPTS_PER_AGENT_MAX, Pool, Seat, place};
use super::roles::Line;
use super::seekers::Wants;
use super::surplus::Clipped;
use crate::frameworks::{FrameworkId, OpenOffer};
use protocol::job::PRIORITY_DEFAULT;
use protocol::{AgentInfo, OfferId, PortRange, Resources, Role, ShardId, Time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How long a framework may think about an offer while another would take it, in milliseconds.
const OPEN_OFFER_MS: u64 = 5_000;
/// How long an agent is not shown to a framework that let an offer of it lapse; twice as long after each further one in a row.
const LAPSED_MS: u64 = 30_000;
/// How often that doubles.
const LAPSES_MAX: u32 = 5;
/// Less than this of a processor and of memory is shown to nobody, as in Mesos (`MIN_CPUS`, `MIN_MEM`).
pub(super) const USEFUL_CPU_MILLI: u64 = 10;
pub(super) const USEFUL_MEMORY_BYTES: u64 = 32 << 20;

/// One role of a framework that takes offers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Opening {
    /// Which framework.
    pub framework: FrameworkId,
    /// For which role.
    pub role: Role,
}

/// Offers that belong together: of one shard's agents to one framework.
pub(super) type Opened = BTreeMap<(ShardId, FrameworkId), Vec<OpenOffer>>;

/// What is being shown in one round.
pub(super) struct Showing<'a> {
    pub now: Time,
    /// What an agent says of itself.
    pub info: &'a dyn Fn(&Seat) -> Option<Arc<AgentInfo>>,
    pub opened: Opened,
}

/// What is shown to frameworks.
#[derive(Debug, Default)]
pub(super) struct Openings {
    list: Vec<Option<Opener>>,
    free: Vec<u32>,
    by_key: BTreeMap<(ShardId, Opening), u32>,
    /// Those that are shown what is lent.
    pub revocable: BTreeSet<(ShardId, FrameworkId)>,
    /// Those that may want something that was not looked for.
    pub seekers: BTreeSet<u32>,
    /// Offers that are out.
    offers: BTreeMap<u64, OpenOffered>,
    /// When they lapse.
    deadlines: BTreeSet<(Time, u64)>,
    /// How much of which agent is not shown to whom, until when.
    filters: BTreeMap<(u32, u32), Refused>,
    filter_ends: BTreeSet<(Time, u32, u32)>,
    /// Agents that may have something to show.
    due: BTreeSet<u32>,
    /// What was not shown because it is kept for others.
    pub clipped: Clipped,
    /// Offers that hold no more and were not said to.
    rescinded: Vec<(ShardId, FrameworkId, OfferId)>,
    served: u64,
}

/// What of an agent is not shown to somebody.
#[derive(Debug)]
struct Refused {
    until: Time,
    resources: Resources,
    /// True where it let an offer of it lapse; false where it did not want it.
    lapsed: bool,
}

#[derive(Debug)]
pub(super) struct Opener {
    pub from: ShardId,
    pub opening: Opening,
    /// What it wants; `None`: whatever comes.
    pub wants: Option<Wants>,
    /// Held for its role.
    pub class: u32,
    /// What its offers show.
    pub offered: Resources,
    /// What of that is of reservations.
    pub kept: Resources,
    /// When it was last shown something, counted.
    pub served: u64,
    /// Offers in a row that it let lapse.
    lapses: u32,
    /// True where the last that it did with an offer was to answer. One that did not, or not yet, is shown one thing at a time where others would
    /// take the rest.
    answers: bool,
}

#[derive(Debug)]
pub(super) struct OpenOffered {
    pub slot: u32,
    pub opener: u32,
    pub resources: Resources,
    /// What of them is of reservations.
    pub kept: Resources,
    ports: Vec<PortRange>,
    /// When it was made.
    pub since: Time,
    /// When it lapses, where others would take it.
    pub deadline: Time,
}

/// An offer that was taken or given back.
#[derive(Debug)]
pub(super) struct Closed {
    /// On which agent.
    pub slot: u32,
    opener: u32,
    /// What it showed.
    pub resources: Resources,
}

impl Opener {
    /// True where it is one of these.
    pub fn is_of(&self, from: ShardId, framework: FrameworkId) -> bool {
        self.from == from && self.opening.framework == framework
    }

    /// True where it was shown something and has not answered.
    pub fn owes(&self) -> bool {
        !self.answers && self.offered != Resources::NONE
    }
}

impl Openings {
    /// One that takes offers.
    pub fn opener(&self, at: u32) -> Option<&Opener> {
        self.list.get(at as usize)?.as_ref()
    }

    /// The same, to be changed.
    pub fn opener_mut(&mut self, at: u32) -> Option<&mut Opener> {
        self.list.get_mut(at as usize)?.as_mut()
    }

    /// What of a framework takes offers here.
    pub fn of(&self, framework: FrameworkId) -> impl Iterator<Item = (&Opening, u32)> {
        self.by_key.iter().filter(move |((_, opening), _)| opening.framework == framework).map(|((_, opening), at)| (opening, *at))
    }

    /// Who else takes offers, and where they are.
    pub fn beside(&self, at: u32) -> impl Iterator<Item = u32> {
        self.by_key.values().copied().filter(move |other| *other != at)
    }

    /// All that say what they want.
    pub fn with_wants(&self) -> Vec<u32> {
        let wants = |at: &&u32| self.opener(**at).is_some_and(|opener| opener.wants.is_some());
        self.by_key.values().filter(wants).copied().collect()
    }

    /// True where nobody takes offers.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// All that take offers, and where they are.
    pub fn entries(&self) -> impl Iterator<Item = (&Opening, u32)> {
        self.by_key.iter().map(|((_, opening), at)| (opening, *at))
    }

    /// All that take offers.
    pub fn all(&self) -> impl Iterator<Item = u32> {
        self.by_key.values().copied()
    }

    /// Since when offers are out, and of which agents.
    pub fn shown(&self) -> impl Iterator<Item = (Time, u32)> {
        self.offers.values().map(|offer| (offer.since, offer.slot))
    }

    /// True where an agent may have something to show.
    pub fn is_due(&self, slot: u32) -> bool {
        self.due.contains(&slot)
    }

    /// So much of an offer is of reservations now.
    pub fn set_kept(&mut self, number: u64, kept: Resources) {
        let Some(offer) = self.offers.get_mut(&number) else { return };
        let before = std::mem::replace(&mut offer.kept, kept.clone());
        if let Some(opener) = self.list.get_mut(offer.opener as usize).and_then(Option::as_mut) {
            amounts::sub(&mut opener.kept, &before, 1);
            amounts::add(&mut opener.kept, &kept, 1);
        }
    }

    /// All offers that are out, the oldest first.
    pub fn numbers(&self) -> impl DoubleEndedIterator<Item = u64> {
        self.offers.keys().copied()
    }

    /// An offer that is out.
    pub fn offer(&self, number: u64) -> Option<&OpenOffered> {
        self.offers.get(&number)
    }

    /// When something happens here by time alone.
    pub fn due(&self) -> Option<Time> {
        let lapse = self.deadlines.first().map(|(at, _)| *at).filter(|_| self.by_key.len() > 1);
        lapse.into_iter().chain(self.filter_ends.first().map(|(at, ..)| *at)).min()
    }

    /// Offers that hold no more, by the shard and the framework that they were made to.
    pub fn take_rescinded(&mut self) -> BTreeMap<(ShardId, FrameworkId), Vec<OfferId>> {
        let mut all = BTreeMap::<_, Vec<OfferId>>::new();
        self.rescinded.drain(..).for_each(|(to, framework, offer)| all.entry((to, framework)).or_default().push(offer));
        all
    }

    /// The agent may have something to show.
    pub fn stir(&mut self, slot: u32) {
        if !self.by_key.is_empty() {
            self.due.insert(slot);
        }
    }

    pub fn unfilter(&mut self, opener: u32, due: bool) {
        let held: Vec<(u32, Time)> =
            self.filters.range((opener, 0)..=(opener, u32::MAX)).map(|((_, slot), refused)| (*slot, refused.until)).collect();
        for (slot, until) in held {
            self.filters.remove(&(opener, slot));
            self.filter_ends.remove(&(until, opener, slot));
            if due {
                self.due.insert(slot);
            }
        }
    }

    fn filter(&mut self, opener: u32, slot: u32, refused: Refused) {
        self.filter_ends.insert((refused.until, opener, slot));
        let until = refused.until;
        if let Some(before) = self.filters.insert((opener, slot), refused).filter(|before| before.until != until) {
            self.filter_ends.remove(&(before.until, opener, slot));
        }
    }

    pub fn filters(&self, opener: u32, slot: u32, free: &Resources) -> bool {
        self.filters.get(&(opener, slot)).is_some_and(|refused| refused.resources.contains(free))
    }

    /// Whether it is kept from somebody because it let an offer of it lapse.
    pub fn lapsed(&self, opener: u32, slot: u32) -> bool {
        self.filters.get(&(opener, slot)).is_some_and(|refused| refused.lapsed)
    }
}

impl Pool {
    /// All frameworks of `from` that take offers, in place of what it said before.
    pub(super) fn open(&mut self, from: ShardId, said: Vec<Opening>) {
        let known = self.openings.by_key.iter().filter(|((of, _), _)| *of == from);
        let mut over: BTreeMap<Opening, u32> = known.map(|((_, opening), at)| (opening.clone(), *at)).collect();
        for opening in said {
            if over.remove(&opening).is_none() && !self.openings.by_key.contains_key(&(from, opening.clone())) {
                self.opener(from, &opening);
                self.stir_all();
            }
        }
        for (opening, at) in over {
            self.retract_open(|offer| offer.opener == at);
            self.openings.unfilter(at, false);
            self.openings.by_key.remove(&(from, opening));
            if let Some(opener) = self.openings.list[at as usize].take() {
                self.end_wants(opener.wants);
                self.class_drop(opener.class, 1);
                self.openings.free.push(at);
            }
        }
    }

    /// Where this one is that takes offers, which may be new.
    pub(super) fn opener(&mut self, from: ShardId, opening: &Opening) -> u32 {
        let key = (from, opening.clone());
        if let Some(at) = self.openings.by_key.get(&key) {
            return *at;
        }
        let class = self.class(&opening.role, &Resources::NONE, PRIORITY_DEFAULT, 1);
        let (offered, kept, opening) = (Resources::NONE, Resources::NONE, opening.clone());
        let opener = Opener { from, opening, wants: None, class, offered, kept, served: 0, lapses: 0, answers: false };
        let at = place(&mut self.openings.list, &mut self.openings.free, opener);
        self.openings.by_key.insert(key, at);
        at
    }

    /// Every agent may have something to show.
    pub(super) fn stir_all(&mut self) {
        self.openings.due.extend(0..u32::try_from(self.seats.len()).expect("AGENTS_MAX fits"));
    }

    /// A framework wants to see all again.
    pub(super) fn revive(&mut self, from: ShardId, opening: &Opening) {
        if let Some(at) = self.openings.by_key.get(&(from, opening.clone())).copied() {
            self.openings.unfilter(at, true);
        }
    }

    /// Takes an offer back that was made to a framework of `from`: what it shows is free again. `None` where it does not hold.
    pub(super) fn close(&mut self, from: ShardId, framework: FrameworkId, offer: OfferId) -> Option<Closed> {
        let known = self.openings.offers.get(&offer.number).filter(|_| offer.shard == self.shard)?;
        let opener = self.openings.list.get(known.opener as usize)?.as_ref()?;
        (opener.from == from && opener.opening.framework == framework).then(|| self.close_any(offer.number)).flatten()
    }

    fn close_any(&mut self, number: u64) -> Option<Closed> {
        let OpenOffered { slot, opener, resources, kept, deadline, .. } = self.openings.offers.remove(&number)?;
        self.openings.deadlines.remove(&(deadline, number));
        let seat = &mut self.seats[slot as usize];
        amounts::sub(&mut seat.open, &resources, 1);
        seat.open_offers.remove(&number);
        if let Some(class) = self.openings.opener(opener).map(|opener| opener.class) {
            self.hold_open(slot, class, &resources, false);
            self.recount_shown(slot);
        }
        if let Some(known) = self.openings.list[opener as usize].as_mut() {
            amounts::sub(&mut known.offered, &resources, 1);
            amounts::sub(&mut known.kept, &kept, 1);
            if known.wants.as_mut().is_some_and(|wants| wants.remove(number)) {
                self.openings.seekers.insert(opener);
            }
        }
        self.openings.due.insert(slot);
        if !self.roles.is_calm(Line::Hungry) {
            self.freed.insert(slot);
        }
        Some(Closed { slot, opener, resources })
    }

    /// For so long its framework is not shown what is left of these, unless the agent has more by then; it has decided. One that says what it wants
    /// has refused only what it did not take.
    pub(super) fn filter_closed(&mut self, closed: &[Closed], taken: &Resources, refuse_ms: u64, now: Time) {
        let mut by_slot: BTreeMap<(u32, u32), Resources> = BTreeMap::new();
        for Closed { slot, opener, resources } in closed {
            amounts::add(by_slot.entry((*opener, *slot)).or_default(), resources, 1);
            if taken.is_none() {
                self.precedence.unwanted(*slot, *opener, now);
            }
            if let Some(opener) = self.openings.list[*opener as usize].as_mut() {
                (opener.lapses, opener.answers) = (0, true);
            }
        }
        for ((opener, slot), mut resources) in by_slot.into_iter().filter(|_| refuse_ms > 0) {
            if self.openings.opener(opener).is_some_and(|opener| opener.wants.is_some()) {
                amounts::sub(&mut resources, taken, 1);
            }
            self.openings.filter(opener, slot, Refused { until: now + refuse_ms, resources, lapsed: false });
        }
    }

    /// Rescinds offers.
    fn retract_open(&mut self, which: impl Fn(&OpenOffered) -> bool) {
        let numbers: Vec<u64> = self.openings.offers.iter().filter(|(_, offer)| which(offer)).map(|(number, _)| *number).collect();
        numbers.into_iter().for_each(|number| self.rescind(number));
    }

    pub(super) fn rescind(&mut self, number: u64) {
        let Some(closed) = self.close_any(number) else { return };
        if let Some(opener) = self.openings.list[closed.opener as usize].as_ref() {
            let offer = OfferId { shard: self.shard, number };
            self.openings.rescinded.push((opener.from, opener.opening.framework, offer));
        }
    }

    /// Rescinds what is shown of an agent and is not there any more, the latest offers first; and before those of who says what it wants all others.
    pub(super) fn squeeze(&mut self, slot: u32, attempts: u32) {
        let takes_all = |openings: &Openings, number: &u64| {
            let opener = openings.offer(*number).and_then(|offer| openings.opener(offer.opener));
            opener.is_some_and(|opener| opener.wants.is_none())
        };
        loop {
            let shown = self.seats[slot as usize].open_offers.iter().rev();
            let last = shown.clone().find(|number| takes_all(&self.openings, number)).or_else(|| shown.clone().next()).copied();
            let Some(number) = last else { return };
            if attempts > 0 && self.holds_shown(slot) {
                return;
            }
            self.rescind(number);
        }
    }

    /// Rescinds offers that somebody held for too long while others would take them, and shows again what was refused for long enough.
    pub(super) fn expire_open(&mut self, now: Time) {
        while let Some((at, opener, slot)) = self.openings.filter_ends.first().copied().filter(|(at, ..)| *at <= now) {
            self.openings.filter_ends.remove(&(at, opener, slot));
            self.openings.filters.remove(&(opener, slot));
            self.openings.due.insert(slot);
        }
        if self.openings.by_key.len() < 2 {
            return;
        }
        while let Some((deadline, number)) = self.openings.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.openings.deadlines.remove(&(deadline, number));
            let Some(offer) = self.openings.offers.get_mut(&number) else { continue };
            offer.deadline = now + OPEN_OFFER_MS;
            self.openings.deadlines.insert((offer.deadline, number));
            let (slot, at, resources) = (offer.slot, offer.opener, offer.resources.clone());
            if !self.is_wanted(at, slot, &resources) {
                continue;
            }
            self.rescind(number);
            if let Some(opener) = self.openings.list[at as usize].as_mut() {
                let wait_ms = LAPSED_MS << opener.lapses;
                (opener.lapses, opener.answers) = ((opener.lapses + 1).min(LAPSES_MAX), false);
                self.openings.filter(at, slot, Refused { until: now + wait_ms, resources, lapsed: true });
            }
        }
    }

    /// Shows what can be shown now.
    pub(super) fn show(&mut self, now: Time, info: impl Fn(&Seat) -> Option<Arc<AgentInfo>>) -> Opened {
        let mut showing = Showing { now, info: &info, opened: Opened::new() };
        self.keep_reserve();
        self.stir_clipped();
        self.show_sought(&mut showing);
        while self.keep_reserve() || !self.openings.due.is_empty() {
            while let Some(slot) = self.openings.due.pop_first() {
                while self.show_slot(slot, &mut showing) {}
            }
        }
        self.shown_all();
        showing.opened
    }

    pub(super) fn show_one(
        &mut self,
        at: u32,
        slot: u32,
        (resources, info): (Resources, Arc<AgentInfo>),
        now: Time,
    ) -> Option<((ShardId, FrameworkId), OpenOffer)> {
        let number = self.next_offer;
        self.next_offer += 1;
        self.openings.served += 1;
        let opener = self.openings.list[at as usize].as_mut()?;
        opener.served = self.openings.served;
        amounts::add(&mut opener.offered, &resources, 1);
        let (key, class) = ((opener.from, opener.opening.framework), opener.class);
        let reserved = self.reserved_parts(slot, class, &resources);
        self.hold_open(slot, class, &resources, true);
        let opener = self.openings.list[at as usize].as_ref()?;
        let seat = &mut self.seats[slot as usize];
        amounts::add(&mut seat.open, &resources, 1);
        let open = seat.open_offers.iter().filter_map(|number| self.openings.offers.get(number)).flat_map(|offer| &offer.ports);
        let shown: Vec<u16> = open.flat_map(|range| range.first..=range.last).collect();
        let ports = free_ports(&info.ports, seat.ports.values().flatten().chain(&shown), resources.ports);
        seat.open_offers.insert(number);
        let id = OfferId { shard: self.shard, number };
        let role = opener.opening.role.clone();
        let deadline = now + OPEN_OFFER_MS;
        let mut kept = Resources::NONE;
        reserved.iter().for_each(|part| amounts::add(&mut kept, &part.resources, 1));
        if let Some(opener) = self.openings.opener_mut(at) {
            amounts::add(&mut opener.kept, &kept, 1);
        }
        let held = OpenOffered { slot, opener: at, resources: resources.clone(), kept, ports: ports.clone(), since: now, deadline };
        self.openings.offers.insert(number, held);
        let offer = OpenOffer { id, agent: seat.id, incarnation: seat.incarnation, info, role, resources, ports, reserved };
        self.openings.deadlines.insert((deadline, number));
        Some((key, offer))
    }

    /// True where a framework may still place so many more attempts there.
    pub(super) fn has_places(seat: &Seat, attempts: usize) -> bool {
        seat.attempts.len() + attempts <= ATTEMPTS_PER_AGENT_MAX as usize
    }
}
