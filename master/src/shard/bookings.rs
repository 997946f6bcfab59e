//! The agents' shard: what frameworks' shards say of attempts on its agents. Everything here may arrive twice or late.

use super::amounts;
use super::openings::Closed;
use super::pool::{Pool, Seat, Standing};
use super::preempt::is_heavy;
use super::{Action, PeerMessage, Shard};
use crate::frameworks::FrameworkId;
use protocol::job::{PRIORITY_DEFAULT, number_of};
use protocol::message::{ATTEMPTS_PER_MESSAGE_MAX, Launch};
use protocol::{AgentId, AttemptId, FromMaster, JobId, OfferId, Resources, ShardId};
use std::collections::BTreeMap;

impl Shard {
    /// An offer was taken: what is to run is on record. Booked and launched where the offer still holds, refused where not.
    pub(super) fn accepted(&mut self, from: ShardId, offer: OfferId, agent: AgentId, launches: Vec<Launch>) {
        let ranks = self.ranks.remove(&from).unwrap_or_default();
        if !self.holds(from, offer, agent, &launches) {
            self.refuse(from, agent, launches.iter().flat_map(attempts_of).collect());
        } else if self.pool.takes_whole(offer.number, &launches, &ranks) {
            self.pool.take_whole(offer.number, launches.iter().flat_map(attempts_of));
            launches.into_iter().for_each(|launch| self.send_launch(agent, launch));
        } else {
            self.pool.retract_taken(offer.number);
            self.launch_all(agent, launches, &ranks, refused);
        }
    }

    fn holds(&self, from: ShardId, offer: OfferId, agent: AgentId, launches: &[Launch]) -> bool {
        let Some(offered) = self.pool.offers.get(&offer.number).filter(|offered| offered.to == from && offer.shard == self.config.id)
        else {
            return false;
        };
        let Some((slot, seat)) = self.pool.seat(agent) else { return false };
        let Some(class) = self.pool.shape(offered.class) else { return false };
        let mut need = Resources::NONE;
        let mut attempts = 0;
        for launch in launches {
            let n = u32::try_from(launch.attempts.len()).unwrap_or(u32::MAX);
            amounts::add(&mut need, &launch.template.resources, n);
            attempts += n;
        }
        let mut offered_resources = Resources::NONE;
        amounts::add(&mut offered_resources, &class.shape, offered.count);
        let here = slot == offered.slot && seat.standing == Standing::Here && !seat.disconnected;
        // What is beside it may have changed since.
        let here = here && (!self.pool.aims.rules.asks_for_any() || self.pool.meets(class, slot));
        here && offered_resources.contains(&need) && attempts <= ATTEMPTS_PER_MESSAGE_MAX as u32
    }

    /// A framework takes these offers, all of one agent: as [`Self::accepted`]. What it leaves is not shown to it for a while.
    pub(super) fn taken(
        &mut self,
        from: ShardId,
        (framework, offers): (FrameworkId, &[OfferId]),
        agent: AgentId,
        refuse_ms: u64,
        launches: Vec<Launch>,
    ) {
        let closed: Vec<Closed> = offers.iter().filter_map(|offer| self.pool.close(from, framework, *offer)).collect();
        let (mut shown, mut need, mut attempts) = (Resources::NONE, Resources::NONE, 0);
        closed.iter().for_each(|closed| amounts::add(&mut shown, &closed.resources, 1));
        for launch in &launches {
            let n = u32::try_from(launch.attempts.len()).unwrap_or(u32::MAX);
            amounts::add(&mut need, &launch.template.resources, n);
            attempts += launch.attempts.len();
        }
        let here = |(slot, seat): (u32, &Seat)| {
            let here = seat.standing == Standing::Here && !seat.disconnected && Pool::has_places(seat, attempts);
            here && closed.iter().all(|closed| closed.slot == slot)
        };
        let holds = closed.len() == offers.len() && shown.contains(&need) && self.pool.seat(agent).is_some_and(here);
        let used = if holds { need } else { Resources::NONE };
        self.pool.filter_closed(&closed, &used, refuse_ms, self.now);
        match holds {
            true => self.launch_all(agent, launches, &BTreeMap::new(), misfits),
            false => self.refuse(from, agent, launches.iter().flat_map(attempts_of).collect()),
        }
    }

    /// A framework wants nothing of these offers.
    pub(super) fn declined_open(&mut self, from: ShardId, framework: FrameworkId, offers: &[OfferId], refuse_ms: u64) {
        let closed: Vec<Closed> = offers.iter().filter_map(|offer| self.pool.close(from, framework, *offer)).collect();
        self.pool.filter_closed(&closed, &Resources::NONE, refuse_ms, self.now);
    }

    /// Books attempts that are not booked yet, and sends them. What is booked already is not sent again; of what finds no single devices `against` tells
    /// its shard.
    fn launch_all(&mut self, agent: AgentId, launches: Vec<Launch>, ranks: &BTreeMap<JobId, u8>, against: Against) {
        for mut launch in launches {
            let Some((slot, seat)) = self.pool.seat_mut(agent) else { return };
            launch.attempts.retain(|(index, number)| !seat.attempts.contains_key(&AttemptId::new(launch.job, *index, *number)));
            self.refuse_misfits(slot, &mut launch, against);
            if launch.attempts.is_empty() {
                continue;
            }
            self.book(slot, &launch, attempts_of(&launch), ranks);
            self.pool.refresh_freed(slot);
            self.send_launch(agent, launch);
        }
    }

    /// Refuses of a launch what finds no single devices: what was taken had them as an amount.
    fn refuse_misfits(&mut self, slot: u32, launch: &mut Launch, against: Against) {
        let n = u32::try_from(launch.attempts.len()).unwrap_or(u32::MAX);
        let fit = self.pool.on_devices(slot, &launch.template.resources, n);
        if fit < n {
            let over = launch.attempts.split_off(fit as usize);
            let attempts = over.iter().map(|(index, number)| AttemptId::new(launch.job, *index, *number)).collect();
            let (to, agent) = (launch.job.shard(), self.pool.seats[slot as usize].id);
            self.at_once(Action::Peer { to, message: against(agent, attempts) });
        }
    }

    /// Sends what is booked.
    fn send_launch(&mut self, agent: AgentId, mut launch: Launch) {
        let Some((slot, seat)) = self.pool.seat_mut(agent) else { return };
        seat.sequence += 1;
        (launch.session, launch.sequence) = (seat.session, seat.sequence);
        self.note(slot, &launch);
        if launch.template.is_fenced() {
            self.say_lease(agent);
        }
        self.say_devices(agent, &launch);
        self.at_once(Action::Send { agent, message: FromMaster::Launch(launch) });
    }

    /// Books attempts of a launch, in the class of its job.
    fn book(&mut self, slot: u32, launch: &Launch, attempts: impl Iterator<Item = AttemptId>, ranks: &BTreeMap<JobId, u8>) {
        let priority = ranks.get(&launch.job).copied().unwrap_or(PRIORITY_DEFAULT);
        let class = self.pool.class(&launch.role, &launch.template.resources, priority, 1);
        self.pool.book(slot, class, attempts);
        self.pool.class_drop(class, 1);
    }

    /// Ports that a task asks for by number are not shown to others while it is there. And what is no wasm is known, since it is dear to stop.
    fn note(&mut self, slot: u32, launch: &Launch) {
        if is_heavy(&launch.template) {
            self.pool.seats[slot as usize].heavy.extend(attempts_of(launch));
        }
        let ports: Vec<u16> = launch.template.ports().filter_map(number_of).collect();
        if !ports.is_empty() {
            let seat = &mut self.pool.seats[slot as usize];
            seat.ports.extend(attempts_of(launch).map(|attempt| (attempt, ports.clone())));
        }
    }

    fn refuse(&mut self, to: ShardId, agent: AgentId, attempts: Vec<AttemptId>) {
        if !attempts.is_empty() {
            self.at_once(Action::Peer { to, message: PeerMessage::Refused { agent, attempts } });
        }
    }

    /// Offers of which nothing was taken are free again.
    pub(super) fn declined(&mut self, from: ShardId, offers: &[OfferId]) {
        for offer in offers {
            let ours = offer.shard == self.config.id && self.pool.offers.get(&offer.number).is_some_and(|offered| offered.to == from);
            if ours {
                self.pool.retract_declined(offer.number);
            }
        }
    }

    /// What a framework's shard holds to be on an agent. Attempts that the agent reported are explained by it; others are launched where there
    /// is room, and only booked where not, or where they are kept near or apart, until a report says that they are not there. An agent that has not reported yet, or in another session since, is left alone: its report will ask again.
    pub(super) fn staged_again(&mut self, from: ShardId, agent: AgentId, session: u64, launches: Vec<Launch>) {
        let (ranks, tied) = (self.ranks.remove(&from).unwrap_or_default(), self.take_tied(from));
        let here = |seat: &Seat| seat.standing == Standing::Here && seat.session == session;
        let Some((slot, seat)) = self.pool.seat_mut(agent).filter(|(_, seat)| here(seat)) else { return };
        seat.unheard.remove(&from);
        if launches.iter().any(|launch| launch.template.is_fenced()) {
            self.say_lease(agent); // An agent that was started anew does not know it.
        }
        let mut missing = Vec::new();
        for mut launch in launches {
            let booked =
                |seat: &Seat, (index, number): &(u32, u32)| seat.attempts.contains_key(&AttemptId::new(launch.job, *index, *number));
            let seat = &self.pool.seats[slot as usize];
            let (known, new): (Vec<_>, Vec<_>) = launch.attempts.iter().copied().partition(|attempt| booked(seat, attempt));
            self.book(slot, &launch, known.iter().map(|(index, number)| AttemptId::new(launch.job, *index, *number)), &ranks);
            self.note(slot, &Launch { attempts: known, ..launch.clone() });
            launch.attempts = new;
            if !launch.attempts.is_empty() {
                missing.push(launch);
            }
        }
        self.pool.refresh_freed(slot);
        for launch in missing {
            let Some((_, seat)) = self.pool.seat(agent) else { return };
            let n = u32::try_from(launch.attempts.len()).unwrap_or(u32::MAX);
            let free = seat.room_of(&launch.role);
            let fits = free.times(&launch.template.resources, n) == n && self.pool.on_devices(slot, &launch.template.resources, n) == n;
            if !self.pool.seats[slot as usize].disconnected && fits && !tied.contains(&launch.job) {
                self.launch_all(agent, vec![launch], &ranks, refused);
            } else {
                // It may be there all the same, where a launch of an older session came after the report. Booked, the next beats tell.
                self.book(slot, &launch, attempts_of(&launch), &ranks);
                self.pool.refresh(slot);
            }
        }
    }

    /// Attempts have ended, on record: what they held is free.
    pub(super) fn released(&mut self, agent: AgentId, attempts: &[AttemptId]) {
        if let Some((slot, _)) = self.pool.seat(agent) {
            self.pool.unbook(slot, attempts);
        }
    }

    /// Attempts are to be stopped. An agent that is not here is told when it has reported.
    pub(super) fn kill_wanted(&mut self, agent: AgentId, attempts: &[AttemptId], grace_ms: u64) {
        if self.pool.seat(agent).is_some_and(|(_, seat)| seat.standing == Standing::Here) {
            for part in attempts.chunks(ATTEMPTS_PER_MESSAGE_MAX) {
                let message = FromMaster::Kill { attempts: part.to_vec(), grace_ms };
                self.at_once(Action::Send { agent, message });
            }
        }
    }
}

/// How is said that attempts cannot be given to an agent.
type Against = fn(AgentId, Vec<AttemptId>) -> PeerMessage;

fn refused(agent: AgentId, attempts: Vec<AttemptId>) -> PeerMessage {
    PeerMessage::Refused { agent, attempts }
}

fn misfits(agent: AgentId, attempts: Vec<AttemptId>) -> PeerMessage {
    PeerMessage::Misfits { agent, attempts }
}

fn attempts_of(launch: &Launch) -> impl Iterator<Item = AttemptId> {
    launch.attempts.iter().map(|(index, number)| AttemptId::new(launch.job, *index, *number))
}
