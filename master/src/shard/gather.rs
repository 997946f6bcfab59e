//! Room that is gathered for what does not fit: where a role is behind others because its tasks are of a shape that seldom comes free at once, an agent
//! keeps what comes free for one of them until it is enough, or for two seconds. Without it whoever fits into what just ended would always be served.

use super::amounts;
use super::pool::{Class, Pool};
use super::preempt::Making;
use super::roles::SHARE_STEP;
use protocol::{Resources, Time};
use std::collections::BTreeSet;

/// Milliseconds until what was gathered is given to all, and until it is tried for the same want again.
const GATHER_MS: u64 = 2_000;
const PAUSE_MS: u64 = 10_000;
/// Most tasks that room is gathered for: of one want, and of all.
const OF_ONE_MAX: u64 = 64;
const OF_ALL_MAX: usize = 256;
/// Roles whose tasks do not fit that are remembered while others are served.
pub(super) const BEHIND_MAX: usize = 8;

impl Pool {
    /// A want of a role that is behind and that an agent has too little free for now, though it could have it; if there is one that is not `done`.
    pub(super) fn starved(&self, slot: u32, role: u32, done: &BTreeSet<u64>, now: Time) -> Option<u32> {
        if self.preempting.gathered >= OF_ALL_MAX {
            return None;
        }
        let seat = &self.seats[slot as usize];
        self.first_want(role, |want| {
            let has = |class: &Class| seat.capacity.contains(&class.shape) && self.has_devices_for(slot, &class.shape);
            let fits = self.shape(want.class).is_some_and(has);
            fits && !done.contains(&want.age)
                && want.blocked
                && want.patient_until <= now
                && u64::from(want.gathered) < OF_ONE_MAX.min(u64::from(want.unmet()))
        })
        .filter(|at| self.takes(*at, slot) > 0)
    }

    /// Keeps an agent's room for the first of these wants whose role is far enough `behind` this one, instead of giving this one some; false where none is.
    /// Whoever it is kept for is looked at no more in this round.
    pub(super) fn gathers(&mut self, slot: u32, behind: &mut Vec<(u32, u32)>, role: u32, now: Time) -> bool {
        let rank = self.roles.rank(role, &Resources::NONE, &self.whole);
        let Some(first) = behind.iter().position(|(other, at)| *other != role && self.is_far_behind(*other, *at, &rank)) else {
            return false;
        };
        let (_, at) = behind.remove(first);
        let Some(want) = self.wants[at as usize].as_mut() else { return false };
        want.gathered += 1;
        let (key, of) = (want.key(), want.class);
        if let Some(held) = self.classes[of as usize].as_mut() {
            held.refs += 1;
            self.roles.gather(&held.shape, true);
        }
        let given = self.shape(of).zip(self.seats[slot as usize].singles()).map(|(class, singles)| singles.nearest(&class.shape));
        self.begin_making(slot, Making { want: key, class: of, until: now + GATHER_MS, asked: vec![], given: given.unwrap_or_default() });
        self.refresh(slot);
        true
    }

    /// True where a role is further behind than by what room is gathered for already.
    fn is_far_behind(&self, role: u32, at: u32, rank: &[u64]) -> bool {
        let Some(want) = self.wants[at as usize].as_ref() else { return false };
        let Some(class) = self.shape(want.class) else { return false };
        let own = self.roles.rank(role, &Resources::NONE, &self.whole);
        let gap = own.iter().zip(rank).find(|(own, other)| own != other).map_or(0, |(own, other)| other.saturating_sub(*own));
        gap >= SHARE_STEP / 4 && u64::from(want.gathered) < gap / amounts::dominant_share(&class.shape, &self.whole).max(1)
    }

    /// True where what was gathered is beside what is kept for guarantees of others; always, where tasks were asked to make that room.
    pub(super) fn may_be_given(&mut self, making: &Making) -> bool {
        let Some(class) = self.classes[making.class as usize].as_ref().filter(|_| making.asked.is_empty()) else { return true };
        self.roles.gather(&class.shape, false);
        let may = self.roles.beside_reserve(class.role, (&class.shape, 1), &self.elsewhere, (&self.total, &self.whole));
        self.roles.gather(&class.shape, true);
        may > 0
    }

    /// Room is gathered for one task fewer: it has it, or `late` was not enough of it.
    pub(super) fn gathered(&mut self, making: &Making, late: Option<Time>) {
        if !making.asked.is_empty() {
            return;
        }
        self.preempting.gathered = self.preempting.gathered.saturating_sub(1);
        if let Some(class) = self.classes[making.class as usize].as_ref() {
            self.roles.gather(&class.shape, false);
        }
        if let Some(want) = self.by_want.get(&making.want).and_then(|at| self.wants[*at as usize].as_mut()) {
            want.gathered = want.gathered.saturating_sub(1);
            want.patient_until = late.map_or(want.patient_until, |now| now + PAUSE_MS);
        }
    }
}
