//! The agents' shard: the single devices of its agents ([`protocol::devices`]). Each attempt that is booked, each task that an offer is for, and each for
//! which room is being made has its own, so that none is promised beyond what it has. An agent says which ones its attempts have, and what it says
//! counts; for what it has said nothing of they are chosen here. Only seats with such devices have anything of this.

use super::pool::Pool;
use super::view::DevicesFree;
use super::{Action, Shard};
use protocol::message::Launch;
use protocol::{AgentId, AttemptId, FromMaster, Given, Name, Resources, Singles};
use std::collections::BTreeMap;

/// The single devices of one agent.
#[derive(Debug, Default)]
pub(super) struct Devices {
    /// How much of each is held: by attempts, by offers, and for what room is being made.
    pub singles: Singles,
    /// Those of booked attempts.
    given: BTreeMap<AttemptId, Given>,
    /// What the agent said of attempts that are not booked yet, or of which nothing is known.
    said: BTreeMap<AttemptId, Given>,
}

impl Devices {
    /// What an attempt has.
    pub fn given(&self, attempt: AttemptId) -> Option<&Given> {
        self.given.get(&attempt)
    }
}

impl Pool {
    /// How many tasks of this shape find single devices on an agent, at most `most`: all, where they need none that are told apart.
    pub(super) fn on_devices(&self, slot: u32, shape: &Resources, most: u32) -> u32 {
        match &self.seats[slot as usize].devices {
            Some(devices) if !shape.devices.is_empty() => devices.singles.times(shape, most),
            _ => most,
        }
    }

    /// True where one task of this shape would find single devices on an agent, did nobody hold any.
    pub(super) fn has_devices_for(&self, slot: u32, shape: &Resources) -> bool {
        match &self.seats[slot as usize].devices {
            Some(devices) if !shape.devices.is_empty() => devices.singles.empty().times(shape, 1) == 1,
            _ => true,
        }
    }

    /// The agent has other devices than before, or none.
    pub(super) fn count_devices(&mut self, slot: u32) {
        let seat = &mut self.seats[slot as usize];
        let before = seat.devices.take().unwrap_or_default();
        let Some(mut singles) = Singles::of(&seat.capacity) else { return };
        for (attempt, given) in &before.given {
            if let Some(class) = seat.attempts.get(attempt).and_then(|class| self.classes.get(*class as usize)?.as_ref()) {
                singles.hold(&class.shape, given, true);
            }
        }
        let offers = self.offers.values().filter(|offer| offer.slot == slot).map(|offer| (offer.class, &offer.given[..]));
        let makings = self.preempting.makings_of(slot).map(|making| (making.class, std::slice::from_ref(&making.given)));
        for (class, given) in offers.chain(makings) {
            if let Some(class) = self.classes.get(class as usize).and_then(Option::as_ref) {
                given.iter().for_each(|given| singles.hold(&class.shape, given, true));
            }
        }
        seat.devices = Some(Box::new(Devices { singles, ..*before }));
    }

    /// Attempts that were just booked hold devices: those that their agent says, or any.
    pub(super) fn give(&mut self, slot: u32, class: u32, attempts: &[AttemptId]) {
        for attempt in attempts {
            let said = self.seats[slot as usize].devices.as_mut().and_then(|devices| devices.said.remove(attempt));
            if !said.is_some_and(|given| self.give_one(slot, class, *attempt, given))
                && let Some(given) = self.pick(slot, class)
            {
                self.give_one(slot, class, *attempt, given);
            }
        }
    }

    /// An attempt of this class that is booked has these; false where they are none of its kinds.
    fn give_one(&mut self, slot: u32, class: u32, attempt: AttemptId, given: Given) -> bool {
        let Some(class) = self.classes.get(class as usize).and_then(Option::as_ref) else { return false };
        let Some(devices) = self.seats[slot as usize].devices.as_mut() else { return false };
        let good = given.masks.len() == class.shape.devices.len() && !given.is_none();
        if good {
            devices.singles.hold(&class.shape, &given, true);
            devices.given.insert(attempt, given);
        }
        good
    }

    /// An attempt of this shape holds its devices no longer.
    pub(super) fn ungive(&mut self, slot: u32, class: u32, attempt: AttemptId) {
        let Some(devices) = self.seats[slot as usize].devices.as_mut() else { return };
        devices.said.remove(&attempt);
        let class = self.classes.get(class as usize).and_then(Option::as_ref);
        if let Some((given, class)) = devices.given.remove(&attempt).zip(class) {
            devices.singles.hold(&class.shape, &given, false);
        }
    }

    /// Devices for `count` tasks of a class that are to be offered, held from now on: none where they need none that are told apart.
    pub(super) fn hold_devices(&mut self, slot: u32, class: u32, count: u32) -> Vec<Given> {
        let concerns = |devices: &Devices| self.shape(class).is_some_and(|class| devices.singles.concerns(&class.shape));
        if !self.seats[slot as usize].devices.as_deref().is_some_and(concerns) {
            return Vec::new();
        }
        let mut all = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let given = self.pick(slot, class).unwrap_or_default();
            self.hold_one(slot, class, &given, true);
            all.push(given);
        }
        all
    }

    /// What an offer is for, or room that is being made, holds these devices, or no longer does.
    pub(super) fn hold_one(&mut self, slot: u32, class: u32, given: &Given, more: bool) {
        if let Some(class) = self.classes.get(class as usize).and_then(Option::as_ref)
            && let Some(devices) = self.seats[slot as usize].devices.as_mut()
        {
            devices.singles.hold(&class.shape, given, more);
        }
    }

    /// What an offer was for is booked: it keeps the devices that it had.
    pub(super) fn pass_on(&mut self, slot: u32, attempts: impl Iterator<Item = AttemptId>, given: Vec<Given>) {
        if let Some(devices) = self.seats[slot as usize].devices.as_mut() {
            let given = attempts.zip(given).filter(|(_, given)| !given.is_none());
            devices.given.extend(given);
        }
    }

    /// What the devices of a shape are short of on an agent, by name.
    pub(super) fn short_devices(singles: Option<&Singles>, shape: &Resources) -> Vec<Name> {
        singles.into_iter().flat_map(|singles| singles.short_of(shape)).cloned().collect()
    }

    /// What tasks hold of an agent's devices, without what offers do.
    pub(super) fn booked_devices(&self, slot: u32) -> Option<Singles> {
        let mut singles = self.seats[slot as usize].devices.as_ref()?.singles.clone();
        for offer in self.offers.values().filter(|offer| offer.slot == slot && !offer.given.is_empty()) {
            if let Some(class) = self.shape(offer.class) {
                offer.given.iter().for_each(|given| singles.hold(&class.shape, given, false));
            }
        }
        Some(singles)
    }
}

impl Shard {
    /// An agent says which devices attempts have.
    pub(super) fn said_devices(&mut self, agent: AgentId, said: Vec<(AttemptId, Given)>) {
        let Some((slot, seat)) = self.pool.seat(agent).filter(|(_, seat)| seat.devices.is_some()) else { return };
        let held = seat.devices.as_ref().map_or(0, |devices| devices.said.len());
        if held + said.len() > super::agents::REPORT_MAX {
            return self.disconnect(agent, "devices of more attempts than an agent can have");
        }
        let mut changed = false;
        for (attempt, given) in said {
            let seat = &mut self.pool.seats[slot as usize];
            match seat.attempts.get(&attempt).copied().filter(|class| *class != super::pool::CLASS_UNKNOWN) {
                Some(class) => {
                    if seat.devices.as_ref().and_then(|devices| devices.given(attempt)) != Some(&given) {
                        self.pool.ungive(slot, class, attempt);
                        self.pool.give_one(slot, class, attempt, given);
                        changed = true;
                    }
                }
                None => {
                    if let Some(devices) = seat.devices.as_mut() {
                        devices.said.insert(attempt, given);
                    }
                }
            }
        }
        if changed {
            self.pool.refresh_freed(slot);
        }
    }

    /// A report of an agent is complete: of other attempts than it names nothing counts that was said before.
    pub(super) fn forget_said(&mut self, slot: u32) {
        let seat = &mut self.pool.seats[slot as usize];
        if let Some(devices) = seat.devices.as_mut() {
            let attempts = &seat.attempts;
            devices.said.retain(|attempt, _| attempts.contains_key(attempt));
        }
    }

    /// Says which devices the attempts of a launch have, where they have any.
    pub(super) fn say_devices(&mut self, agent: AgentId, launch: &Launch) {
        let Some((_, seat)) = self.pool.seat(agent) else { return };
        let Some(devices) = seat.devices.as_ref().filter(|_| !launch.template.resources.devices.is_empty()) else { return };
        let attempts = launch.attempts.iter().map(|(index, number)| AttemptId::new(launch.job, *index, *number));
        let given: Vec<Given> = attempts.map(|attempt| devices.given(attempt).cloned().unwrap_or_default()).collect();
        if given.iter().any(|given| !given.is_none()) {
            let (session, sequence) = (launch.session, launch.sequence);
            self.at_once(Action::Send { agent, message: FromMaster::Devices { session, sequence, given } });
        }
    }

    /// How much of each single device is free, by agent and kind.
    pub(super) fn device_views(&self) -> Vec<(AgentId, DevicesFree)> {
        let kinds = |singles: &Singles| singles.kinds().iter().map(|kind| (kind.name.clone(), kind.each_free().collect())).collect();
        self.pool.seats.iter().filter_map(|seat| Some((seat.id, kinds(seat.singles()?)))).collect()
    }

    /// Which devices attempts of an agent of this shard have, as far as is known here: for whoever looks whether that is right.
    pub fn devices_of(&self, agent: AgentId) -> impl Iterator<Item = (AttemptId, &Given)> {
        let devices = self.pool.seat(agent).and_then(|(_, seat)| seat.devices.as_deref());
        devices.into_iter().flat_map(|devices| devices.given.iter().map(|(attempt, given)| (*attempt, given)))
    }
}
