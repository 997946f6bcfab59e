//! The agents' shard: registration, beats, reports and silence. Whatever an agent sends is bounded before it is kept.

use super::event::Change;
use super::pool::{CLASS_UNKNOWN, Pool, Silence, Standing};
use super::{Action, PeerMessage, Record, Refusal, Shard};
use protocol::message::{ATTEMPTS_PER_MESSAGE_MAX, attempt_hash, shard_of_agent};
use protocol::{AgentId, AgentInfo, AttemptId, FromAgent, FromMaster, Held, Resources, ShardId, Stand, Time};
use std::collections::BTreeSet;

/// Most agents of one shard, those that are gone included.
pub const AGENTS_MAX: usize = 100_000;
/// Most attempts that one agent may report.
pub const REPORT_MAX: usize = super::pool::ATTEMPTS_PER_AGENT_MAX as usize;
/// So many beats after it registered, an agent gets offers though a shard has not said what it holds to be there.
const UNHEARD_BEATS_MAX: u8 = 4;
/// Beats in a row with a hash that is not ours, after which a report is asked for: what is on its way explains fewer.
pub const MISMATCHES_MAX: u8 = 4;
/// How long after a registration a sign of life of the session before may still be on its way, in milliseconds.
const OVERTAKEN_MS: u64 = 1_000;
/// Fewer silent agents than this are never taken for a cut.
const MASS_AGENTS_MIN: u64 = 4;
/// How often is looked whether most agents are silent, in milliseconds.
const MASS_LOOK_MS: u64 = 1_000;
/// Most that one agent can have of anything: sums over [`AGENTS_MAX`] agents fit.
pub const CAPACITY_MAX: u64 = 1 << 46;

/// How long agents have to come back once most are not silent any more, in milliseconds.
const MASS_BACK_MS: u64 = 10_000;

/// Whether most agents were silent when it was looked last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Silent {
    at: Time,
    most: bool,
    /// When they were last.
    seen: Option<Time>,
}

impl Pool {
    /// A leader begins: offers of the one before are void, and numbers are new.
    pub fn lead(&mut self, now: Time) {
        self.next_offer = self.next_offer.max(now.0 << 20);
    }
}

impl Shard {
    /// Agents on record are expected, and have one full timeout from now.
    pub(super) fn seat_known_agents(&mut self) {
        let of = |known: &super::snapshot::KnownAgent| (known.info.capacity.clone(), Stand::from(&known.info));
        let known: Vec<(AgentId, (Resources, Stand))> =
            self.rest.agents.iter().filter(|(_, known)| !known.gone).map(|(id, known)| (*id, of(known))).collect();
        for (agent, (capacity, stand)) in known {
            let slot = self.pool.seat(agent).map(|(slot, _)| slot).unwrap_or_else(|| self.pool.seat_new(agent, self.now));
            self.pool.seats[slot as usize].heard = self.now;
            self.pool.set_stand(slot, stand);
            self.pool.set_capacity(slot, &capacity);
            self.seat_reservations(agent);
            self.watch(slot);
        }
    }

    /// An agent said something. What is about itself is for its own shard only; the rest is for the shard of the tasks.
    pub(super) fn agent_said(&mut self, agent: AgentId, message: FromAgent) {
        let own = shard_of_agent(agent, self.config.shards) == self.config.id;
        match message {
            FromAgent::Status { updates } => self.statuses(agent, updates),
            FromAgent::Refused { attempts, .. } => self.agent_refused(agent, &attempts),
            FromAgent::Progress { notes } => self.progressed(agent, notes),
            FromAgent::Health { healths } => self.healths(agent, healths),
            _ if !own => self.disconnect(agent, "this is not the shard of that agent"),
            FromAgent::Register { info, incarnation, number } => self.register(agent, info, incarnation, number),
            FromAgent::Beat { session, sent, held_hash, .. } => self.beat(agent, session, (sent, true), held_hash),
            FromAgent::Alive { session, sent, held_hash, .. } => self.beat(agent, session, (sent, false), held_hash),
            FromAgent::Report { session, held, last } => self.report(agent, session, held, last),
            FromAgent::Reserves { reservations } => self.agent_reserves(agent, reservations),
            FromAgent::Leaving => self.agent_disconnected(agent),
            FromAgent::Slack { session, lent } => self.lent(agent, session, lent),
            FromAgent::Devices { given } => self.said_devices(agent, given),
        }
    }

    pub(super) fn disconnect(&mut self, agent: AgentId, reason: &str) {
        self.at_once(Action::Disconnect { agent, reason: reason.into() });
    }

    fn register(&mut self, agent: AgentId, info: AgentInfo, incarnation: u64, number: u64) {
        if let Some(reason) = self.against(agent, &info) {
            self.at_once(Action::Send { agent, message: FromMaster::Rejected { reason: reason.into() } });
            return self.disconnect(agent, reason);
        }
        let before = self.rest.agents.get(&agent);
        let reborn = before.is_some_and(|known| known.incarnation != incarnation);
        if before.is_none_or(|known| reborn || known.info != info) {
            self.commit(Record::AgentSeen { agent, info: info.clone(), incarnation, at: self.now });
        }
        let slot = self.pool.seat(agent).map(|(slot, _)| slot).unwrap_or_else(|| self.pool.seat_new(agent, self.now));
        self.pool.retract_all(|offer| offer.slot == slot);
        let (now, beat_ms) = (self.now, self.config.beat_ms(self.pool.seats.len()));
        let seat = &mut self.pool.seats[slot as usize];
        seat.beat_ms = beat_ms;
        seat.session = (seat.session + 1).max(now.0);
        seat.sequence = 0;
        seat.standing = Standing::Joining;
        seat.silence = Silence::None;
        (seat.heard, seat.beaten) = (now, None);
        seat.disconnected = false;
        seat.mismatches = 0;
        seat.since_wanted = None;
        seat.report = Vec::new();
        seat.incarnation = incarnation;
        seat.inactive = self.drains.mode(agent) != super::drains::Mode::Active;
        let session = seat.session;
        self.pool.set_stand(slot, Stand::from(&info));
        self.pool.set_capacity(slot, &info.capacity);
        self.pool.refresh(slot);
        self.watch(slot);
        let message = FromMaster::Registered { session, heartbeat_ms: beat_ms, number };
        self.held(Action::Send { agent, message });
        self.publish_agent(agent, "registered");
    }

    /// Why this agent is not taken.
    fn against(&self, agent: AgentId, info: &AgentInfo) -> Option<&'static str> {
        let amounts = [info.capacity.cpu_milli, info.capacity.memory_bytes, info.capacity.disk_bytes];
        let devices = info.capacity.devices.iter().map(|device| device.milli);
        match self.rest.agents.get(&agent) {
            Some(known) if known.gone => Some("this agent was told to be gone for good"),
            None if self.rest.agents.len() >= AGENTS_MAX => Some("the shard has as many agents as it can"),
            _ if !info.is_bounded() => Some("what the agent says of itself is out of bounds"),
            _ if amounts.into_iter().chain(devices).any(|amount| amount > CAPACITY_MAX) => Some("the agent's capacity is out of bounds"),
            _ => None,
        }
    }

    fn beat(&mut self, agent: AgentId, session: u64, (sent, answer): (Time, bool), held_hash: u64) {
        let now = self.now;
        let known = self.pool.seat_mut(agent);
        let is_right = |seat: &super::pool::Seat| seat.session == session && seat.standing != Standing::Expected;
        let (slot, seat) = match known {
            Some((slot, seat)) if is_right(seat) => (slot, seat),
            // One that waits for no answer may have been overtaken by the registration that the session is named after, or by the lead.
            Some((_, seat)) if !answer && (seat.standing == Standing::Expected || now.0 < seat.session + OVERTAKEN_MS) => return,
            None if !answer => return,
            _ => return self.disconnect(agent, "a beat of another session: register anew"),
        };
        let silence = std::mem::replace(&mut seat.silence, Silence::None);
        let mut returned = silence != Silence::None || seat.disconnected;
        if !seat.unheard.is_empty() {
            // A shard without a leader says nothing; the others go on without it.
            seat.unheard_beats += 1;
            if seat.unheard_beats >= UNHEARD_BEATS_MAX {
                seat.unheard.clear();
                returned = true;
            }
        }
        (seat.heard, seat.beaten, seat.disconnected) = (now, Some(sent), false);
        // One that beats and whose report never came is asked for it as one whose report was wrong.
        let behind = seat.standing == Standing::Joining || seat.unknown == 0 && seat.hash != held_hash;
        seat.mismatches = if behind { seat.mismatches.saturating_add(1) } else { 0 };
        let wanted = seat.mismatches >= MISMATCHES_MAX || seat.standing == Standing::Here && silence == Silence::Lost;
        if wanted {
            seat.mismatches = 0;
            seat.since_wanted.get_or_insert_with(BTreeSet::new);
        }
        // It renews the agent's leases: said at once, and by a leader only, since whoever drives hears letters in a round that it leads in. An agent
        // that is called lost or gone is answered after its leases are over, or not at all.
        if answer {
            self.at_once(Action::Send { agent, message: FromMaster::BeatAck { sent } });
        }
        if wanted {
            self.at_once(Action::Send { agent, message: FromMaster::ReportWanted { session } });
        }
        if returned {
            self.pool.refresh_freed(slot);
            self.watch(slot);
        }
        if silence != Silence::None {
            self.tell_all(&PeerMessage::Reachable { agent, reachable: true });
            self.publish_agent(agent, "reachable");
        }
    }

    fn report(&mut self, agent: AgentId, session: u64, held: Vec<Held>, last: bool) {
        let Some((slot, seat)) = self.pool.seat_mut(agent) else { return self.disconnect(agent, "a report before registering") };
        let right = match seat.standing {
            Standing::Expected => false,
            Standing::Joining => session == 0 || session == seat.session,
            Standing::Here => session == seat.session && seat.since_wanted.is_some(),
        };
        if !right {
            return;
        }
        if held.len() > ATTEMPTS_PER_MESSAGE_MAX || seat.report.len() + held.len() > REPORT_MAX {
            seat.report = Vec::new();
            return self.disconnect(agent, "a report of more attempts than an agent can have");
        }
        seat.report.extend(held);
        if last {
            self.reported(slot);
        }
    }

    /// A report is complete: what is booked becomes what is held, and each shard is told its part.
    fn reported(&mut self, slot: u32) {
        let shards = self.config.shards;
        let seat = &mut self.pool.seats[slot as usize];
        // Sorted in place: a report may be long, and is somebody else's word.
        let mut held = std::mem::take(&mut seat.report);
        held.retain(|held| held.attempt.shard().0 < shards);
        for attempt in seat.since_wanted.take().unwrap_or_default() {
            if seat.attempts.contains_key(&attempt) {
                held.push(Held { attempt, ended: false });
            }
        }
        // Of an attempt that is there twice, what the agent said of it comes first.
        held.sort_by_key(|held| held.attempt);
        held.dedup_by_key(|held| held.attempt);
        let is_held = |attempt: &AttemptId| held.binary_search_by_key(attempt, |held| held.attempt).is_ok();
        let missing: Vec<AttemptId> = seat.attempts.keys().filter(|attempt| !is_held(attempt)).collect();
        for Held { attempt, .. } in &held {
            if !seat.attempts.contains_key(attempt) {
                seat.attempts.insert(*attempt, CLASS_UNKNOWN);
                seat.hash ^= attempt_hash(*attempt);
                seat.unknown += 1;
            }
        }
        let beside = self.pool.neighbours_of(held.iter().map(|held| &held.attempt));
        self.pool.neighbours_moved(slot, &beside);
        let seat = &mut self.pool.seats[slot as usize];
        if seat.standing == Standing::Joining {
            (seat.unheard, seat.unheard_beats) = ((0..shards).map(ShardId).collect(), 0);
        }
        seat.standing = Standing::Here;
        let (agent, session, incarnation) = (seat.id, seat.session, seat.incarnation);
        self.pool.unbook(slot, &missing);
        self.forget_said(slot);
        self.tell_report(agent, session, incarnation, &held);
    }

    /// Tells each shard its part of `held`, which is sorted.
    fn tell_report(&mut self, agent: AgentId, session: u64, incarnation: u64, mut held: &[Held]) {
        for shard in 0..self.config.shards {
            let (part, rest) = held.split_at(held.partition_point(|held| held.attempt.shard().0 <= shard));
            held = rest;
            let seen = self.told.heard(ShardId(shard));
            let message = PeerMessage::Report { agent, session, incarnation, held: part.to_vec(), seen };
            self.at_once(Action::Peer { to: ShardId(shard), message });
        }
    }

    /// A new leader of another shard knows none of our offers, and not what our agents hold of its tasks.
    pub(super) fn peer_led(&mut self, from: ShardId) {
        self.pool.demand(from, &[], u64::MAX);
        self.pool.demand_placed(from, &[], u64::MAX);
        self.pool.retract_all(|offer| offer.to == from);
        self.matching.forget(from, &mut self.pool.aims.rules);
        self.pool.open(from, vec![]);
        self.offers_void(from);
        self.tell_modes_to(from);
        self.say_roles(from);
        self.say_windows(from);
        if from == ShardId(0) {
            self.say_spending_anew();
        }
        self.pool.elsewhere.stir();
        self.demands.say_anew();
        self.told.hear_anew(from);
        self.demands.see_anew(from);
        let mut said = Vec::new();
        for seat in &self.pool.seats {
            let (first, last) = (AttemptId::new(first_job(from.0), 0, 0), AttemptId::new(last_job(from.0), u32::MAX, u32::MAX));
            let held = seat.attempts.between(&first, &last).map(|attempt| Held { attempt, ended: false }).collect();
            if seat.standing == Standing::Here {
                said.push(PeerMessage::Report { agent: seat.id, session: seat.session, incarnation: seat.incarnation, held, seen: 0 });
            }
            if seat.silence != Silence::None {
                said.push(PeerMessage::Reachable { agent: seat.id, reachable: false });
            }
            if seat.silence == Silence::Lost && self.rest.agents.get(&seat.id).is_none_or(|known| !known.gone) {
                said.push(PeerMessage::Lost { agent: seat.id, gone: false });
            }
        }
        for message in said {
            self.at_once(Action::Peer { to: from, message });
        }
        for agent in self.gone_agents() {
            self.held(Action::Peer { to: from, message: PeerMessage::Lost { agent, gone: true } });
        }
    }

    /// The agents of this shard that are gone for good.
    pub(super) fn gone_agents(&self) -> Vec<AgentId> {
        self.rest.agents.iter().filter(|(_, known)| known.gone).map(|(id, _)| *id).collect()
    }

    /// Its connection is gone, or it says that it goes: it is not more than silent, since it was last heard of. How late we noticed does not
    /// put off its tasks' replacement.
    pub(super) fn agent_disconnected(&mut self, agent: AgentId) {
        let Some((slot, seat)) = self.pool.seat_mut(agent).filter(|(_, seat)| !seat.disconnected) else { return };
        seat.disconnected = true;
        self.pool.retract_all(|offer| offer.slot == slot);
        self.pool.refresh(slot);
        self.watch(slot);
    }

    /// Has the agent looked at when its silence would be too long, unless that is so already.
    fn watch(&mut self, slot: u32) {
        let seat = &mut self.pool.seats[slot as usize];
        if !seat.watched {
            seat.watched = true;
            self.watches.insert((seat.heard + self.config.unreachable_at(seat.beat_ms), slot));
        }
    }

    /// Looks at the agents whose time has come. One that was heard of meanwhile is looked at later.
    pub(super) fn watch_agents(&mut self) {
        while let Some((_, slot)) = self.watches.first().copied().filter(|(at, _)| *at <= self.now) {
            self.watches.pop_first();
            let seat = &mut self.pool.seats[slot as usize];
            let (agent, silent_ms) = (seat.id, self.now.since(seat.heard));
            let said = seat.silence;
            let unreachable_ms = self.config.unreachable_at(seat.beat_ms);
            let mut found = silence(silent_ms, unreachable_ms, self.config.replace_after_ms);
            if found == Silence::Lost && said < found && silent_ms < self.config.mass_replace_after_ms && self.most_are_silent() {
                if said == Silence::Unreachable {
                    self.watches.insert((self.now + MASS_LOOK_MS, slot));
                    continue;
                }
                found = Silence::Unreachable;
            }
            let seat = &mut self.pool.seats[slot as usize];
            seat.silence = found.max(said);
            let (next, now_silent) = (seat.silence, seat.heard);
            seat.watched = next != Silence::Lost;
            match next {
                Silence::None => drop(self.watches.insert((now_silent + unreachable_ms, slot))),
                Silence::Unreachable => drop(self.watches.insert((now_silent + self.config.replace_after_ms, slot))),
                Silence::Lost => {}
            }
            if next > said {
                self.pool.retract_all(|offer| offer.slot == slot);
                self.pool.refresh(slot);
                self.say_silent(agent, next);
            }
        }
    }

    /// True where so many agents are silent at once that a cut between them and this master is likelier than that all of them failed.
    fn most_are_silent(&mut self) -> bool {
        // Looked at once for all whose time has come, and not for each.
        if self.now.since(self.silent.at) >= MASS_LOOK_MS || self.silent.at == Time::ZERO {
            let here = |seat: &&super::pool::Seat| seat.silence != Silence::Lost;
            let (mut known, mut silent) = (0u64, 0u64);
            for seat in self.pool.seats.iter().filter(here) {
                known += 1;
                silent += u64::from(self.now.since(seat.heard) > self.config.unreachable_at(seat.beat_ms));
            }
            let most = silent >= MASS_AGENTS_MIN && silent * 100 >= known * u64::from(self.config.mass_percent);
            let seen = if most { Some(self.now) } else { self.silent.seen };
            self.silent = Silent { at: self.now, most, seen };
        }
        // A cut that is over lets agents come back one by one, and the last of them are few.
        self.silent.most || self.silent.seen.is_some_and(|seen| self.now.since(seen) < MASS_BACK_MS)
    }

    fn say_silent(&mut self, agent: AgentId, silence: Silence) {
        self.tell_all(&PeerMessage::Reachable { agent, reachable: false });
        self.publish_agent(agent, if silence == Silence::Lost { "lost" } else { "unreachable" });
        if silence == Silence::Lost {
            self.tell_all(&PeerMessage::Lost { agent, gone: false });
        }
    }

    /// An operator says that the agent never comes back.
    pub(super) fn gone(&mut self, agent: AgentId) -> Result<(), Refusal> {
        if self.rest.agents.get(&agent).is_none_or(|known| known.gone) {
            return Err(Refusal::NotFound { what: "agent".into() });
        }
        self.commit(Record::AgentGone { agent, at: self.now });
        self.publish_agent(agent, "gone");
        if let Some(slot) = self.pool.seat(agent).map(|(slot, _)| slot) {
            self.pool.retract_all(|offer| offer.slot == slot);
            let seat = &mut self.pool.seats[slot as usize];
            (seat.standing, seat.disconnected, seat.silence) = (Standing::Expected, true, Silence::Lost);
            seat.since_wanted = None;
            let all: Vec<AttemptId> = seat.attempts.keys().collect();
            self.pool.unbook(slot, &all);
            self.seat_reservations(agent);
            self.pool.set_capacity(slot, &Resources::NONE);
        }
        self.tell_all_gone(agent);
        // Whoever keeps the link hears of the change, ends its connections and lets it in no more.
        Ok(())
    }

    pub(super) fn publish_agent(&mut self, agent: AgentId, what: &'static str) {
        self.matching.stir(agent);
        let name = self.rest.agents.get(&agent).map(|known| known.info.name.clone()).unwrap_or_default();
        self.publish(Change::Agent { agent, name, what: what.into() });
    }
}

fn silence(silent_ms: u64, unreachable_ms: u64, replace_after_ms: u64) -> Silence {
    match silent_ms {
        ms if ms >= replace_after_ms => Silence::Lost,
        ms if ms >= unreachable_ms => Silence::Unreachable,
        _ => Silence::None,
    }
}

const fn first_job(shard: u16) -> protocol::JobId {
    protocol::JobId::new(ShardId(shard), 0)
}

const fn last_job(shard: u16) -> protocol::JobId {
    protocol::JobId::new(ShardId(shard), u64::MAX)
}
