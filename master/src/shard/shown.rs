//! The framework's shard: what frameworks are shown and hold, and what is said of what they want.

use super::free_ports::free_ports;
use super::openings::{Opening, USEFUL_CPU_MILLI, USEFUL_MEMORY_BYTES};
use super::seekers::{Seeking, Sought};
use super::{Action, PeerMessage, Response, Shard};
use crate::frameworks::{Cover, Demand, FrameworkEvent, FrameworkId, OpenOffer, Wanted};
use protocol::{OfferId, Resources, Role, ShardId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How long a role whose limit leaves it nothing is still taken for one that takes offers, in milliseconds.
const CLOSES_MS: u64 = 200;
/// How long a framework is not shown an agent again of which its limit has left it nothing, in milliseconds.
const LIMITED_MS: u64 = 5_000;
/// How long an agent that a framework does not want to see is not shown to it unless it has more, in milliseconds: what people say of it may
/// change by then.
pub(super) const FILTERED_MS: u64 = 60_000;

/// What a framework holds, and what it wants.
#[derive(Debug, Default)]
pub(super) struct Hand {
    offers: BTreeMap<OfferId, OpenOffer>,
    /// Which wishes they are for.
    covers: BTreeMap<OfferId, Cover>,
    /// What it wants; `None`: whatever comes.
    demand: Option<Demand>,
    /// Counts demands.
    turn: u64,
    /// The last offer of each shard that was counted.
    seen: BTreeMap<ShardId, u64>,
    /// True where what it wants is another than was said.
    changed: bool,
}

/// What became of what a framework was shown.
enum Taken {
    /// It holds it, or what of it it wants.
    Held,
    /// Its role's limit leaves nothing of it.
    Limited,
    /// It wants it no more.
    Over,
}

impl Hand {
    /// What it may take of.
    pub fn offers(&self) -> impl Iterator<Item = &OpenOffer> {
        self.offers.values()
    }

    /// True where it has said what it wants.
    pub const fn demands(&self) -> bool {
        self.demand.is_some()
    }

    /// All that it wants, the most urgent first.
    pub fn wanted(&self) -> impl Iterator<Item = &Wanted> {
        self.demand.iter().flat_map(Demand::iter)
    }

    /// It wants this from now on. Gives back what it holds and is not just that: it holds these until they are removed.
    pub fn want(&mut self, demand: Option<Demand>) -> Vec<OfferId> {
        self.changed |= self.demand.is_some() || demand.is_some();
        (self.demand, self.turn) = (demand, self.turn + 1);
        self.covers.clear();
        let Some(demand) = &mut self.demand else { return vec![] };
        let mut over = vec![];
        for (id, offer) in &self.offers {
            let (cover, taken) = demand.cover(&offer.role, &offer.resources, &offer.info);
            if taken == offer.resources {
                demand.hold(&cover, true);
                self.covers.insert(*id, cover);
            } else {
                over.push(*id);
            }
        }
        over
    }

    /// It holds it no longer.
    pub fn remove(&mut self, id: OfferId) -> Option<OpenOffer> {
        let offer = self.offers.remove(&id)?;
        if let Some(demand) = &mut self.demand {
            self.changed = true;
            demand.hold(&self.covers.remove(&id).unwrap_or_default(), false);
        }
        Some(offer)
    }

    /// For which wishes an offer is.
    pub fn cover(&self, id: OfferId) -> Cover {
        self.covers.get(&id).cloned().unwrap_or_default()
    }

    /// It holds nothing.
    pub fn clear(&mut self) -> Vec<OfferId> {
        let all: Vec<OfferId> = self.offers.keys().copied().collect();
        all.iter().for_each(|id| drop(self.remove(*id)));
        all
    }

    /// A task was placed in what offers showed that were for these wishes.
    pub fn placed(&mut self, within: &OpenOffer, need: &Resources, cover: &Cover) {
        if let Some(demand) = &mut self.demand {
            self.changed = true;
            demand.placed(&within.role, need, &within.info, cover);
        }
    }

    /// It is shown an offer, of which its role's limit has taken something where `clipped`; of one that says what it wants, that is left.
    fn take(&mut self, offer: &mut OpenOffer, clipped: bool) -> Taken {
        let Some(demand) = &mut self.demand else {
            if clipped && !is_useful(&offer.resources) {
                return Taken::Limited;
            }
            self.offers.insert(offer.id, offer.clone());
            return Taken::Held;
        };
        let (cover, taken) = demand.cover(&offer.role, &offer.resources, &offer.info);
        if cover.is_empty() {
            return if clipped { Taken::Limited } else { Taken::Over };
        }
        offer.ports = free_ports(&offer.ports, std::iter::empty(), taken.ports);
        offer.resources = taken;
        demand.hold(&cover, true);
        self.covers.insert(offer.id, cover);
        self.offers.insert(offer.id, offer.clone());
        self.changed = true;
        Taken::Held
    }

    /// What is wanted for a role, as it is said to agents' shards.
    fn sought(&self, role: &Role) -> Option<Vec<Sought>> {
        let wanted = self.demand.as_ref()?.iter().enumerate().filter(|(_, wanted)| wanted.wish.role == *role && wanted.unmet() > 0);
        let sought = wanted.map(|(at, wanted)| Sought {
            id: u16::try_from(at).expect("WISHES_MAX fits"),
            priority: wanted.wish.priority,
            count: wanted.unmet(),
            shape: wanted.wish.shape.clone(),
            constraints: wanted.wish.constraints.clone(),
        });
        Some(sought.collect())
    }
}

impl Shard {
    /// The framework wants nothing of these; those that do not hold are passed over.
    pub(super) fn leave(&mut self, id: FrameworkId, offers: &[OfferId], refuse_ms: u64) {
        let Some(session) = self.sessions.by_id.get_mut(&id) else { return };
        let held: Vec<OfferId> = offers.iter().filter(|offer| session.hand.remove(**offer).is_some()).copied().collect();
        self.leave_all(id, held.into_iter(), refuse_ms);
    }

    pub(super) fn leave_all(&mut self, framework: FrameworkId, offers: impl Iterator<Item = OfferId>, refuse_ms: u64) {
        let mut by_shard: BTreeMap<ShardId, Vec<OfferId>> = BTreeMap::new();
        offers.for_each(|offer| by_shard.entry(offer.shard).or_default().push(offer));
        for (to, offers) in by_shard {
            self.at_once(Action::Peer { to, message: PeerMessage::Leave { framework, offers, refuse_ms } });
        }
    }

    /// An agents' shard shows a framework something. What it does not want to see, and what is too little once its role's limit is kept, it is
    /// not shown for a while.
    pub(super) fn shown(&mut self, from: ShardId, id: FrameworkId, offers: Vec<OpenOffer>) {
        let (ours, others): (Vec<_>, Vec<_>) = offers.into_iter().partition(|offer| offer.id.shard == from);
        drop(others); // Nobody says so of another's agents.
        if self.sessions.by_id.get(&id).is_none_or(|session| session.request.is_none()) {
            return self.leave_all(id, ours.into_iter().map(|offer| offer.id), 0);
        }
        let (mut unwanted, mut limited, mut over, mut left) = (vec![], vec![], vec![], BTreeMap::new());
        let mut held = Vec::with_capacity(ours.len());
        for mut offer in ours {
            let before = offer.resources.clone();
            self.left_to_show(&offer.role, &mut left);
            offer.role.and_above().filter_map(|role| left.get(&role)).for_each(|left| left.clip(&mut offer.resources));
            let Some(session) = self.sessions.by_id.get_mut(&id) else { return };
            let seen = session.hand.seen.entry(from).or_default();
            *seen = offer.id.number.max(*seen);
            if !session.sieve.passes(&offer) {
                unwanted.push(offer.id);
                continue;
            }
            let clipped = offer.resources != before;
            match session.hand.take(&mut offer, clipped) {
                Taken::Limited => limited.push(offer.id),
                Taken::Over => over.push(offer.id),
                Taken::Held => {
                    for role in offer.role.and_above() {
                        if let Some(left) = left.get_mut(&role) {
                            *left = left.minus(&left.of(&offer.resources));
                        }
                    }
                    offer.clip_reserved();
                    held.push(offer);
                }
            }
        }
        if !held.is_empty() {
            let window = |offer: &OpenOffer| {
                let window = self.maintenance.of(offer.agent, self.now)?;
                Some((offer.agent, window.from, window.until))
            };
            let windows: BTreeSet<_> = held.iter().filter_map(window).collect();
            if !windows.is_empty() {
                self.sessions.tell(id, FrameworkEvent::Unavailable(windows.into_iter().collect()));
            }
            self.sessions.tell(id, FrameworkEvent::Offers(held));
        }
        self.leave_all(id, limited.into_iter(), LIMITED_MS);
        self.leave_all(id, unwanted.into_iter(), FILTERED_MS);
        if !over.is_empty() {
            // First what it wants now, so that they are not shown to it again.
            self.say_wishes(false);
            self.leave_all(id, over.into_iter(), 0);
        }
    }

    /// An agents' shard takes back what it showed.
    pub(super) fn rescinded(&mut self, id: FrameworkId, offers: &[OfferId]) {
        let Some(session) = self.sessions.by_id.get_mut(&id) else { return };
        let held: Vec<OfferId> = offers.iter().filter(|offer| session.hand.remove(**offer).is_some()).copied().collect();
        if !held.is_empty() {
            self.sessions.tell(id, FrameworkEvent::Rescinded(held));
        }
    }

    /// A shard has a new leader, which knows nothing of what it showed.
    pub(super) fn offers_void(&mut self, from: ShardId) {
        let held: Vec<(FrameworkId, Vec<OfferId>)> = self
            .sessions
            .by_id
            .iter()
            .map(|(id, session)| (*id, session.hand.offers.keys().filter(|offer| offer.shard == from).copied().collect()))
            .collect();
        held.into_iter().for_each(|(id, offers)| self.rescinded(id, &offers));
        // It numbers them by another clock.
        self.sessions.by_id.values_mut().for_each(|session| session.hand.seen.retain(|of, _| *of != from));
        self.sessions.changed |= !self.sessions.by_id.is_empty();
    }

    /// What follows from all that was handled: what our agents show, who takes offers, and what frameworks are told.
    pub(super) fn show_frameworks(&mut self) {
        let agents = &self.rest.agents;
        let shown = self.pool.show(self.now, |seat| agents.get(&seat.id).map(|known| Arc::new(known.info.clone())));
        for ((to, framework), offers) in self.pool.openings.take_rescinded() {
            self.at_once(Action::Peer { to, message: PeerMessage::Rescinded { framework, offers } });
        }
        for ((to, framework), offers) in shown {
            let (plain, reserved): (Vec<_>, Vec<_>) = offers.into_iter().partition(|offer| offer.reserved.is_empty());
            let reserved: Vec<_> = reserved.into_iter().map(|mut offer| (std::mem::take(&mut offer.reserved), offer)).collect();
            if !plain.is_empty() {
                self.at_once(Action::Peer { to, message: PeerMessage::Shown { framework, offers: plain } });
            }
            if !reserved.is_empty() {
                let offers = reserved.into_iter().map(|(parts, offer)| (offer, parts)).collect();
                self.at_once(Action::Peer { to, message: PeerMessage::ShownReserved { framework, offers } });
            }
        }
        let changed = std::mem::take(&mut self.sessions.changed);
        let closing = self.sessions.closes_at.is_some_and(|at| at <= self.now);
        if changed || closing || self.spending.is_stirred() && !self.sessions.by_id.is_empty() {
            let openings = self.openings_now(closing);
            if changed || openings != self.sessions.said {
                self.sessions.said.clone_from(&openings);
                // Before they are opened, so that nobody is shown what it does not want.
                self.say_wishes(true);
                self.say_revocable();
                self.tell_all(&PeerMessage::Open { openings });
            }
        }
        self.say_wishes(false);
        for (id, events) in std::mem::take(&mut self.sessions.events) {
            if let Some(request) = self.sessions.by_id.get(&id).and_then(|session| session.request) {
                self.reply(request, Response::Framework(events));
            }
        }
    }

    /// Says to all shards what frameworks want of which that has changed, or of `all` that say what they want.
    fn say_wishes(&mut self, all: bool) {
        let wants = |hand: &Hand| hand.changed || all && hand.demand.is_some();
        let mut said: Vec<(Seeking, FrameworkId)> = vec![];
        for opening in &self.sessions.said {
            let Some(session) = self.sessions.by_id.get(&opening.framework).filter(|session| wants(&session.hand)) else { continue };
            let (opening, turn, wants) = (opening.clone(), session.hand.turn, session.hand.sought(&opening.role));
            let framework = opening.framework;
            said.push((Seeking { opening, turn, seen: 0, wants }, framework));
        }
        if said.is_empty() {
            return;
        }
        for to in (0..self.config.shards).map(ShardId) {
            let seen = |of: &FrameworkId| self.sessions.by_id.get(of).and_then(|session| session.hand.seen.get(&to).copied());
            let seeking = said.iter().map(|(said, of)| Seeking { seen: seen(of).unwrap_or(0), ..said.clone() });
            let message = PeerMessage::Seek { seeking: seeking.collect() };
            self.at_once(Action::Peer { to, message });
        }
        for (_, framework) in said {
            if let Some(session) = self.sessions.by_id.get_mut(&framework) {
                session.hand.changed = false;
            }
        }
    }

    /// Who takes offers for what. A role whose limit leaves it nothing takes none, but a little later: what has used that up is being put on record, and is
    /// taken of offers that must hold until then.
    fn openings_now(&mut self, closing: bool) -> Vec<Opening> {
        let subscribed = self.sessions.by_id.iter().filter(|(_, session)| session.request.is_some());
        let open = subscribed.flat_map(|(id, session)| {
            let roles = self.frameworks.get(*id).into_iter().flat_map(|framework| &framework.info.roles);
            let open = roles.filter(|role| !session.suppressed.contains(*role));
            open.map(|role| Opening { framework: *id, role: role.clone() })
        });
        let (mut open, used_up): (Vec<Opening>, Vec<Opening>) = open.partition(|opening| self.has_left(&opening.role));
        let late: Vec<Opening> = used_up.into_iter().filter(|opening| !closing && self.sessions.said.contains(opening)).collect();
        let closes_at = self.sessions.closes_at.filter(|_| !closing).unwrap_or(self.now + CLOSES_MS);
        self.sessions.closes_at = (!late.is_empty()).then_some(closes_at);
        open.extend(late);
        open.sort();
        open
    }

    /// True where the framework takes offers for a role, or one below it.
    pub(super) fn takes_offers(&self, id: FrameworkId, role: &Role) -> bool {
        let session = self.sessions.by_id.get(&id).filter(|session| session.request.is_some());
        session.zip(self.frameworks.get(id)).is_some_and(|(session, framework)| {
            framework.info.roles.iter().any(|own| own.is_within(role) && !session.suppressed.contains(own))
        })
    }
}

/// True where it is worth showing.
pub(super) const fn is_useful(resources: &Resources) -> bool {
    resources.cpu_milli >= USEFUL_CPU_MILLI || resources.memory_bytes >= USEFUL_MEMORY_BYTES
}
