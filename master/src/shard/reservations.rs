//! The agents' shard: what operators and frameworks want kept of an agent, and what the agent is started with, put on record. What that means for
//! whoever places tasks stands in `reserved`.

use super::amounts;
use super::reserved::own_parts;
use super::{Action, PeerMessage, Record, Refusal, Response, Shard};
use crate::frameworks::FrameworkId;
use protocol::reservation::RESERVATIONS_MAX;
use protocol::resources::ResourceKind;
use protocol::{AgentId, Attributes, OfferId, RequestId, Reservation, ReservedFor, Resources, Role, ShardId, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is kept of agents, of those of which something is.
pub type Reservations = BTreeMap<AgentId, Vec<Reservation>>;

/// Something that is to be kept of an agent, or no longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservationChange {
    /// True: it is made. False: it is given up, and what it was taken out of has it again.
    pub make: bool,
    /// For which role, with all below it.
    pub role: Role,
    /// The roles of the reservations that it is taken out of, the outermost first; empty: out of what is anybody's.
    pub within: Vec<Role>,
    /// What is written on it.
    pub labels: Attributes,
    /// How much.
    pub resources: Resources,
}

/// What is kept of one agent, as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservedView {
    /// Which agent.
    pub agent: AgentId,
    /// Its reservations, each without what was taken out of it for roles below.
    pub list: Vec<Reservation>,
    /// What of them nobody uses, by role.
    pub unused: Vec<(Role, Resources)>,
}

impl ReservationChange {
    fn refusal(&self) -> Option<String> {
        let reserved = ReservedFor { within: self.within.clone(), labels: self.labels.clone(), ..ReservedFor::fixed(self.role.clone()) };
        match () {
            () if self.resources.is_revocable() => Some("resources: what is lent is taken back, and kept for nobody".into()),
            () if self.resources.is_none() || !self.resources.is_canonical() => Some("resources: a reservation is of something".into()),
            () if !reserved.is_bounded() => {
                Some("a reservation is refined for a role below the one that it is for, at most 8 deep; labels are 1 to 128 bytes".into())
            }
            () => None,
        }
    }
}

/// What is kept once these changes are made, one after the other; `room` is what nobody has and nothing is kept of.
fn changed(
    before: &[Reservation],
    changes: &[ReservationChange],
    principal: &str,
    mut room: Resources,
) -> Result<Vec<Reservation>, Refusal> {
    let mut list = before.to_vec();
    for change in changes {
        if let Some(reason) = change.refusal() {
            return Err(Refusal::Invalid { reason });
        }
        match change.make {
            true => make(&mut list, change, principal, &mut room)?,
            false => give_up(&mut list, change, &mut room)?,
        }
    }
    Ok(list)
}

fn make(list: &mut Vec<Reservation>, change: &ReservationChange, principal: &str, room: &mut Resources) -> Result<(), Refusal> {
    let reserved = ReservedFor {
        role: change.role.clone(),
        within: change.within.clone(),
        fixed: false,
        principal: principal.to_owned(),
        labels: change.labels.clone(),
    };
    if change.within.is_empty() {
        *room = room.checked_sub(&change.resources).ok_or_else(|| Refusal::Conflict {
            reason: format!("what is free on the agent and kept for nobody is too little: {}", words(&room.short_of(&change.resources))),
        })?;
    } else {
        let mut outer = Resources::NONE;
        let around = own_parts(list).into_iter().filter(|one| reserved.refines(&one.reserved));
        around.for_each(|one| amounts::add(&mut outer, &one.resources, 1));
        if !outer.contains(&change.resources) {
            let (role, short) = (change.within.last().map(Role::as_str).unwrap_or_default(), words(&outer.short_of(&change.resources)));
            return Err(Refusal::Conflict { reason: format!("what is kept of the agent for {role} alone is too little: {short}") });
        }
    }
    match list.iter().position(|one| one.reserved == reserved) {
        Some(at) => amounts::add(&mut list[at].resources, &change.resources, 1),
        None if list.len() >= RESERVATIONS_MAX => {
            return Err(Refusal::Conflict { reason: format!("an agent has at most {RESERVATIONS_MAX} reservations") });
        }
        None => list.push(Reservation { reserved, resources: change.resources.clone() }),
    }
    Ok(())
}

fn give_up(list: &mut Vec<Reservation>, change: &ReservationChange, room: &mut Resources) -> Result<(), Refusal> {
    let is_meant = |one: &ReservedFor| one.role == change.role && one.within == change.within && !one.fixed && one.labels == change.labels;
    let mut rest = change.resources.clone();
    for own in own_parts(list).into_iter().filter(|one| is_meant(&one.reserved)) {
        let mut part = own.resources;
        amounts::min(&mut part, &rest);
        amounts::sub(&mut rest, &part, 1);
        if let Some(known) = list.iter_mut().find(|one| one.reserved == own.reserved) {
            amounts::sub(&mut known.resources, &part, 1);
        }
    }
    if !rest.is_none() {
        let short = words(&Resources::NONE.short_of(&rest));
        return Err(Refusal::Conflict {
            reason: format!(
                "so much is not reserved like that: {short}; what is refined for a role below is given up there first, and what an agent is started with not at all"
            ),
        });
    }
    list.retain(|one| !one.resources.is_none());
    if change.within.is_empty() {
        amounts::add(room, &change.resources, 1);
    }
    Ok(())
}

/// Of each reservation as much as there is in either.
fn both(some: &[Reservation], others: &[Reservation]) -> Vec<Reservation> {
    let mut all = some.to_vec();
    for other in others {
        match all.iter_mut().find(|one| one.reserved == other.reserved) {
            Some(one) => {
                let mut more = other.resources.clone();
                amounts::sub(&mut more, &one.resources, 1);
                amounts::add(&mut one.resources, &more, 1);
            }
            None => all.push(other.clone()),
        }
    }
    all
}

fn words(kinds: &[ResourceKind]) -> String {
    kinds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Shard {
    /// All that is kept of an agent, by the record.
    pub(super) fn reservations_set(&mut self, agent: AgentId, reservations: &[Reservation]) {
        match reservations {
            [] => drop(self.reservations.remove(&agent)),
            some => drop(self.reservations.insert(agent, some.to_vec())),
        }
    }

    fn put_reservations(&mut self, agent: AgentId, reservations: Vec<Reservation>) {
        let before = self.reservations.get(&agent).cloned().unwrap_or_default();
        if before == reservations {
            return;
        }
        let at = self.now;
        let gives_up = both(&reservations, &before) != reservations;
        self.commit(Record::ReservationsSet { agent, reservations, at });
        if let Some((_, seat)) = self.pool.seat_mut(agent).filter(|_| gives_up) {
            seat.given_up.push((at, before));
            // An offer of what is given up is no promise and waits for no record, but what is placed by it is told to the agent.
            self.held(Action::Peer { to: self.config.id, message: PeerMessage::Reserved { agent, at } });
        }
        self.seat_reservations(agent);
    }

    /// What was given up before `at` is on record by now, and the first of what was given up at that moment.
    pub(super) fn reserved_until(&mut self, agent: AgentId, at: Time) {
        if let Some((_, seat)) = self.pool.seat_mut(agent) {
            seat.given_up.retain(|(until, _)| *until >= at);
            if seat.given_up.first().is_some_and(|(until, _)| *until == at) {
                seat.given_up.remove(0);
            }
            self.seat_reservations(agent);
        }
    }

    /// The pool keeps of an agent what the record says, and may still say.
    pub(super) fn seat_reservations(&mut self, agent: AgentId) {
        if let Some((slot, seat)) = self.pool.seat(agent) {
            let now = self.reservations.get(&agent).cloned().unwrap_or_default();
            let all = seat.given_up.iter().fold(now, |all, (_, before)| both(&all, before));
            self.pool.reserve(slot, &all);
        }
    }

    /// An operator has something kept of an agent, or no longer: all of it or nothing.
    pub(super) fn reserve(&mut self, id: RequestId, agent: AgentId, changes: &[ReservationChange], principal: &str) -> Result<(), Refusal> {
        let reservations = self.reserved(agent, changes, principal)?;
        self.put_reservations(agent, reservations);
        self.reply(id, Response::Done);
        Ok(())
    }

    fn reserved(&self, agent: AgentId, changes: &[ReservationChange], principal: &str) -> Result<Vec<Reservation>, Refusal> {
        let known = self.rest.agents.get(&agent).filter(|known| !known.gone).and_then(|_| self.pool.seat(agent));
        let (_, seat) = known.ok_or(Refusal::NotFound { what: "agent".into() })?;
        if changes.iter().any(|change| change.make) && !seat.is_known() {
            let reason = "what the agent holds is not known now: try again once it is reachable".into();
            return Err(Refusal::Conflict { reason });
        }
        let before = self.reservations.get(&agent).map_or(&[][..], Vec::as_slice);
        changed(before, changes, principal, seat.free.clone())
    }

    /// The framework's shard: a framework asks for it.
    pub(super) fn reserve_of(&mut self, id: FrameworkId, offers: Vec<OfferId>, changes: Vec<ReservationChange>) -> Result<(), Refusal> {
        let invalid = |reason: &str| Refusal::Invalid { reason: reason.into() };
        let Some(session) = self.sessions.by_id.get(&id) else { return Ok(()) };
        let held: Option<Vec<_>> = offers.iter().map(|id| session.hand.offers().find(|offer| offer.id == *id)).collect();
        let held = held.ok_or_else(|| Refusal::Conflict { reason: "the offers do not hold any more".into() })?;
        let first = held.first().ok_or_else(|| invalid("a reservation is made out of offers"))?;
        if held.iter().any(|offer| offer.agent != first.agent) {
            return Err(invalid("the offers are of several agents"));
        }
        if let Some(reason) = changes.iter().find_map(ReservationChange::refusal) {
            return Err(Refusal::Invalid { reason });
        }
        if changes.len() > RESERVATIONS_MAX || !changes.iter().all(|change| change.role.is_within(&first.role)) {
            return Err(invalid("a framework reserves for the role that it was shown the offers for, or for one below it"));
        }
        let agent = first.agent;
        let principal = self.frameworks.get(id).map(|framework| framework.info.principal.clone()).unwrap_or_default();
        self.tell_shard_of(agent, PeerMessage::Reserve { framework: id, agent, offers, changes, principal });
        Ok(())
    }

    /// A framework has something kept of what it was shown, or no longer; what cannot be is passed over, as in Mesos: the next offers say how it is.
    pub(super) fn reserve_offered(
        &mut self,
        (from, framework): (ShardId, FrameworkId),
        agent: AgentId,
        offers: &[OfferId],
        changes: Vec<ReservationChange>,
        principal: &str,
    ) {
        let Some(slot) = self.pool.seat(agent).map(|(slot, _)| slot) else { return };
        let Some((role, shown)) = self.pool.shown_to((from, framework), slot, offers) else { return };
        let mut made = Resources::NONE;
        changes.iter().filter(|change| change.make).for_each(|change| amounts::add(&mut made, &change.resources, 1));
        if !shown.contains(&made) || !changes.iter().all(|change| change.role.is_within(&role)) {
            return;
        }
        if let Ok(reservations) = self.reserved(agent, &changes, principal) {
            self.put_reservations(agent, reservations);
        }
    }

    /// An agent says what of it is kept from its start.
    pub(super) fn agent_reserves(&mut self, agent: AgentId, fixed: Vec<Reservation>) {
        let right = |one: &Reservation| one.is_bounded() && one.reserved == ReservedFor::fixed(one.reserved.role.clone());
        let distinct = fixed.iter().enumerate().all(|(at, one)| fixed[..at].iter().all(|other| other.reserved != one.reserved));
        if !fixed.iter().all(right) || !distinct || !self.rest.agents.contains_key(&agent) {
            return self.disconnect(agent, "reservations that are none, or before registering");
        }
        let made = self.reservations.get(&agent).into_iter().flatten().filter(|one| !one.reserved.fixed).cloned();
        let all: Vec<Reservation> = fixed.into_iter().chain(made).collect();
        self.put_reservations(agent, all);
    }

    pub(super) fn reserved_views(&self) -> Vec<ReservedView> {
        let view = |(agent, list): (&AgentId, &Vec<Reservation>)| {
            let seat = self.pool.seat(*agent).and_then(|(_, seat)| seat.kept.as_ref());
            let unused = seat.into_iter().flat_map(|kept| kept.unused()).map(|(role, amount)| (role.clone(), amount.clone()));
            ReservedView { agent: *agent, list: own_parts(list), unused: unused.collect() }
        };
        self.reservations.iter().map(view).collect()
    }
}
