//! The agents' shard: which agent, and which of its devices, a task with devices gets: the one where it spoils least of what the tasks seen so far could
//! use ([`super::fit`]), of the first agents with room in an order that stays. What is known of tasks is of the moment only.

use super::aims::Aims;
use super::fit::{CANDIDATES, Demand, Need, Room};
use super::mask::Mask;
use super::pool::{Class, Pool, Seat};
use protocol::devices::{Kind, SINGLES_MAX, parts};
use protocol::resources::DEVICES_MAX;
use protocol::{Given, Name, Offer, Resources, ShardId, Time};
use std::collections::BTreeMap;

/// Agents that the index names and that are looked at, until there are [`CANDIDATES`].
const TRIES_MAX: usize = 64;
/// Rule sets that are told apart; with one more, all that is known is forgotten.
const RULES_MAX: usize = 63;
/// Stands for tasks that may go everywhere, and is met by all agents.
const ANYWHERE: u64 = 1 << RULES_MAX;

/// What tasks with devices were asked for, by kind of device.
#[derive(Debug, Default)]
pub(super) struct Fits {
    demands: BTreeMap<Name, Demand>,
    /// Where they may go, a bit for each; held.
    rules: Vec<u32>,
    /// Agents of which no device is free, or that have none: there tasks without devices are in nobody's way. `None` while no agent has any.
    bare: Option<Mask>,
}

/// What counts of a task: its first kind of device, which place that has among them, and what is needed.
struct Sought<'a> {
    name: &'a Name,
    at: usize,
    need: Need,
}

impl Fits {
    fn sought<'a>(&self, class: &'a Class) -> Option<Sought<'a>> {
        let (at, device) = class.shape.devices.iter().enumerate().find(|(_, device)| !device.is_revocable())?;
        let (count, each) = parts(device.milli);
        let devices = u8::try_from(count).ok().filter(|count| usize::from(*count) <= SINGLES_MAX)?;
        let known = class.rules.and_then(|rules| self.rules.iter().position(|known| *known == rules));
        let kinds = known.map_or(ANYWHERE, |at| 1 << at);
        let (milli, cpu_milli, memory_bytes) = (u16::try_from(each).ok()?, class.shape.cpu_milli, class.shape.memory_bytes);
        Some(Sought { name: &device.name, at, need: Need { devices, milli, kinds, cpu_milli, memory_bytes } })
    }

    /// What an agent has free of one kind.
    fn room(&self, slot: u32, kind: &Kind, free: &Resources, aims: &Aims) -> Room {
        let meets = |rules: &u32| aims.rules.mask(*rules).is_some_and(|mask| mask.has_slot(slot));
        let met = self.rules.iter().enumerate().filter(|(_, rules)| meets(rules));
        let kinds = met.fold(ANYWHERE, |all, (at, _)| all | 1 << at);
        let mut milli = [0; SINGLES_MAX];
        milli.iter_mut().zip(kind.each_free()).for_each(|(milli, free)| *milli = u16::try_from(free).unwrap_or(u16::MAX));
        let devices = u8::try_from(kind.count()).unwrap_or(u8::MAX);
        Room { kinds, cpu_milli: free.cpu_milli, memory_bytes: free.memory_bytes, devices, milli }
    }
}

impl Pool {
    /// What is free of an agent's devices may be another amount than before.
    pub(super) fn count_bare(&mut self, slot: u32) {
        let is_bare = |seat: &Seat| seat.singles().is_none_or(|singles| singles.kinds().iter().all(|kind| kind.reach() == 0));
        let Some(bare) = self.fits.bare.as_mut() else {
            if self.seats[slot as usize].devices.is_some() {
                let mut bare = Mask::new(self.index.size());
                (0..).zip(&self.seats).for_each(|(slot, seat)| bare.set(slot, is_bare(seat)));
                self.fits.bare = Some(bare);
            }
            return;
        };
        bare.grow(self.index.size());
        bare.set(slot, is_bare(&self.seats[slot as usize]));
    }

    /// An agent for a want of tasks without devices that may go everywhere, of those where they are in nobody's way; `None` where `first` is such a one,
    /// the first that has room, or there is none.
    pub(super) fn find_bare(&self, at: u32, shape: &Resources, first: u32) -> Option<u32> {
        let bare = self.fits.bare.as_ref().filter(|bare| !bare.has_slot(first) && self.mask_of(at).is_none())?;
        self.index.find(shape, self.start, Some(bare))
    }

    /// So many tasks more of a class are asked for.
    pub(super) fn asked_for(&mut self, class: u32, tasks: u32) {
        let Some(class) = self.classes.get(class as usize).and_then(Option::as_ref).filter(|class| !class.shape.devices.is_empty()) else {
            return;
        };
        if let Some(rules) = class.rules.filter(|rules| !self.fits.rules.contains(rules)) {
            if self.fits.rules.len() == RULES_MAX {
                let bare = self.fits.bare.take();
                let before = std::mem::replace(&mut self.fits, Fits { bare, ..Fits::default() });
                before.rules.into_iter().for_each(|rules| self.aims.rules.drop(rules));
            }
            self.aims.rules.hold_again(Some(rules));
            self.fits.rules.push(rules);
        }
        let Some(Sought { name, need, .. }) = self.fits.sought(class) else { return };
        if self.fits.demands.len() < DEVICES_MAX || self.fits.demands.contains_key(name) {
            self.fits.demands.entry(name.clone()).or_default().learn(&need, tasks);
        }
    }

    /// Devices for one more task of a class on an agent; `None` where there are none for it.
    pub(super) fn pick(&self, slot: u32, class: u32) -> Option<Given> {
        let (class, seat) = (self.shape(class)?, &self.seats[slot as usize]);
        let singles = seat.singles()?;
        let mut given = singles.choose(&class.shape)?;
        if let Some(Sought { name, at, need }) = self.fits.sought(class)
            && let (Some(kind), Some(demand)) = (singles.kind(name), self.fits.demands.get(name))
        {
            let free = Resources { cpu_milli: u64::MAX, memory_bytes: u64::MAX, ..Resources::NONE };
            let free = if seat.free.contains(&class.shape) { &seat.free } else { &free };
            let room = self.fits.room(slot, kind, free, &self.aims);
            if let Some(spot) = demand.choose(&need, &[room]) {
                given.masks[at] = spot.devices;
            }
        }
        Some(given)
    }

    /// As `spread`, for tasks with devices; `None` where the want is of others.
    pub(super) fn spread_devices(
        &mut self,
        role: u32,
        (at, most): (u32, u32),
        now: Time,
        offers: &mut BTreeMap<ShardId, Vec<Offer>>,
    ) -> Option<()> {
        let class = self.wants.get(at as usize)?.as_ref()?.class;
        let shape = Resources::clone(&self.shape(class).filter(|class| !class.shape.devices.is_empty())?.shape);
        let need = self.fits.sought(self.shape(class)?).map(|sought| (sought.name.clone(), sought.need))?;
        let (slots, rooms, guarded) = if most > 0 { self.candidates_for(role, at, (&shape, &need.0), now) } else { Default::default() };
        let spot = self.fits.demands.get(&need.0).and_then(|demand| demand.choose(&need.1, &rooms));
        let chosen = spot.map(|spot| slots[spot.candidate]).or(slots.first().copied());
        if !chosen.is_some_and(|slot| self.offer(at, slot, most, now, offers)) {
            if let Some(want) = self.wants[at as usize].as_mut().filter(|_| guarded) {
                want.guarded = true;
                self.guard(now);
            }
            self.stuck(at);
        }
        Some(())
    }

    /// Agents with room for one of a want, what each has free, and whether others have it that frameworks may still think about.
    fn candidates_for(&self, role: u32, at: u32, (shape, name): (&Resources, &Name), now: Time) -> (Vec<u32>, Vec<Room>, bool) {
        let (mut slots, mut rooms, mut guarded, mut tries) = (Vec::with_capacity(CANDIDATES), Vec::with_capacity(CANDIDATES), false, 0);
        self.index.each(shape, self.mask_of(at), |slot| {
            tries += 1;
            let seat = &self.seats[slot as usize];
            let (attempts, free) = self.room_beside(slot, role, shape, now);
            let fits = attempts > 0 && self.takes(at, slot) > 0 && free.contains(shape) && self.on_devices(slot, shape, 1) > 0;
            if fits {
                let nothing = Room { kinds: 0, cpu_milli: 0, memory_bytes: 0, devices: 0, milli: [0; SINGLES_MAX] };
                let kind = seat.singles().and_then(|singles| singles.kind(name));
                rooms.push(kind.map_or(nothing, |kind| self.fits.room(slot, kind, &free, &self.aims)));
                slots.push(slot);
            } else {
                guarded |= !seat.open_offers.is_empty();
            }
            slots.len() == CANDIDATES || tries == TRIES_MAX
        });
        (slots, rooms, guarded)
    }
}
