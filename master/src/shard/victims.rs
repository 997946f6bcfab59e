//! Who has to leave for what is urgent: the cheapest set of less urgent tasks on one agent whose room, with what is free there, suffices. Of single devices
//! those count that they have.

use super::amounts;
use super::pool::{CLASS_UNKNOWN, Class, Pool, Wanted};
use super::preempt::{Asked, Preempts};
use protocol::{AttemptId, Given, Resources, Singles};
use std::collections::BTreeSet;

/// Agents that are looked at for one task, and of how many that would do the cheapest is taken.
const TRIES_MAX: usize = 32;
const CANDIDATES: usize = 4;
/// Attempts of one agent that are looked at.
const ATTEMPTS_MAX: usize = 4_096;

/// What a set of tasks costs: the highest priority, how many of them are no wasm, how many they are.
type Cost = (u8, usize, usize);

/// What is free on an agent once some have left.
#[derive(Clone)]
struct Spare {
    amounts: Resources,
    devices: Option<Singles>,
}

impl Spare {
    fn has(&self, shape: &Resources) -> bool {
        self.amounts.contains(shape) && self.devices.as_ref().is_none_or(|singles| singles.times(shape, 1) == 1)
    }

    /// One more has left, or has not.
    fn leave(&mut self, shape: &Resources, given: Option<&Given>, left: bool) {
        let change = if left { amounts::add } else { amounts::sub };
        change(&mut self.amounts, shape, 1);
        if let Some((singles, given)) = self.devices.as_mut().zip(given) {
            singles.hold(shape, given, !left);
        }
    }
}

impl Pool {
    /// The agent on which room for a task costs least, of a few that have it, and who is to be asked there. Of what is free no more is counted on than is
    /// `beyond` what is kept for guarantees of others, where that is said, and that.
    pub(super) fn cheapest(&self, at: u32, beyond: Option<&(Resources, Resources)>) -> Option<(u32, Asked)> {
        let want = self.wants[at as usize].as_ref()?;
        let (shape, index) = (&self.shape(want.class)?.shape, self.preempting.indexes.get(&want.priority)?);
        let (mut start, mut seen, mut best) = (self.preempting.start, BTreeSet::new(), None::<(Cost, u32, Asked)>);
        let mut found = 0;
        for _ in 0..TRIES_MAX {
            let Some(slot) = index.find(shape, start, self.mask_of(at)).filter(|slot| seen.insert(*slot)) else { break };
            start = slot.wrapping_add(1);
            let Some((cost, asked)) = self.victims(at, slot, beyond) else { continue };
            if best.as_ref().is_none_or(|(least, ..)| cost < *least) {
                best = Some((cost, slot, asked));
            }
            found += 1;
            if found == CANDIDATES {
                break;
            }
        }
        best.map(|(_, slot, asked)| (slot, asked))
    }

    /// Who would have to stop on an agent for one task of a want, and what that costs; `None` where it would not do, or nobody had to.
    fn victims(&self, at: u32, slot: u32, beyond: Option<&(Resources, Resources)>) -> Option<(Cost, Asked)> {
        let want = self.wants[at as usize].as_ref()?;
        let (class, seat) = (self.shape(want.class)?, &self.seats[slot as usize]);
        let made = self.preempting.makings.get(&slot).into_iter().flatten();
        let made = made.filter(|making| making.want == want.key()).count();
        if Self::room(seat).0 == 0 || self.takes(at, slot) as usize <= made {
            return None;
        }
        let mut spare = self.spare(slot)?;
        amounts::sub(&mut spare.amounts, &self.kept_from(slot, class.role), 1);
        for (kind, _) in beyond.iter().flat_map(|(_, reserve)| amounts::kinds(reserve)) {
            amounts::at_most(&mut spare.amounts, &kind, beyond.map_or(0, |(free, _)| amounts::of_kind(&kind, free)));
        }
        let mut asked: Vec<(u8, bool, std::cmp::Reverse<AttemptId>, u32)> = Vec::new();
        for (attempt, of) in seat.attempts.iter().filter(|(_, of)| *of != CLASS_UNKNOWN).take(ATTEMPTS_MAX) {
            let held = self.shape(of)?;
            let may = held.priority < want.priority && !self.preempting.is_asked(slot, attempt) && self.leaves_to(slot, held, class);
            if may && self.may_ask(want, class, held) {
                asked.push((held.priority, seat.heavy.contains(&attempt), std::cmp::Reverse(attempt), of));
            }
        }
        // The least urgent, wasm before others, the youngest job first.
        asked.sort_unstable();
        let shape_of = |of: u32| self.shape(of).map(|class| &class.shape);
        let given = |attempt: AttemptId| seat.devices.as_ref().and_then(|devices| devices.given(attempt));
        let enough = asked.iter().position(|(_, _, attempt, of)| {
            let fits = spare.has(&class.shape);
            if !fits && let Some(shape) = shape_of(*of) {
                spare.leave(shape, given(attempt.0), true);
            }
            fits
        });
        if !spare.has(&class.shape) || enough == Some(0) {
            return None;
        }
        asked.truncate(enough.unwrap_or(asked.len()));
        // The dearest that it does without.
        for nth in (0..asked.len()).rev() {
            let mut without = spare.clone();
            without.leave(shape_of(asked[nth].3)?, given(asked[nth].2.0), false);
            if without.has(&class.shape) {
                spare = without;
                asked.remove(nth);
            }
        }
        let cost = (asked.iter().map(|(of, ..)| *of).max()?, asked.iter().filter(|(_, heavy, ..)| *heavy).count(), asked.len());
        Some((cost, asked.into_iter().map(|(_, _, attempt, of)| (attempt.0, of)).collect()))
    }

    /// What an agent will have free once all that were asked have left; `None` where it has promised more than that.
    fn spare(&self, slot: u32) -> Option<Spare> {
        let seat = &self.seats[slot as usize];
        let mut held = seat.booked.checked_add(&seat.offered)?;
        self.preempting.kept(slot, &self.classes).for_each(|kept| amounts::add(&mut held, kept, 1));
        let mut devices = seat.singles().cloned();
        let asked = self.preempting.makings_of(slot).flat_map(|making| &making.asked);
        for (attempt, class) in asked.filter(|(attempt, _)| seat.attempts.contains_key(attempt)) {
            let shape = &self.shape(*class)?.shape;
            amounts::sub(&mut held, shape, 1);
            if let Some((singles, given)) = devices.as_mut().zip(seat.devices.as_ref().and_then(|devices| devices.given(*attempt))) {
                singles.hold(shape, given, false);
            }
        }
        seat.capacity.contains(&held).then(|| {
            let mut amounts = seat.capacity.clone();
            amounts::sub(&mut amounts, &held, 1);
            Spare { amounts, devices }
        })
    }

    /// The devices for one task of a class once these have left an agent, and all that were asked before.
    pub(super) fn devices_without(&self, slot: u32, class: u32, asked: &Asked) -> Given {
        let seat = &self.seats[slot as usize];
        let Some((class, mut spare)) = self.shape(class).zip(self.spare(slot)) else { return Given::default() };
        for (attempt, of) in asked {
            if let Some(held) = self.shape(*of) {
                spare.leave(&held.shape, seat.devices.as_ref().and_then(|devices| devices.given(*attempt)), true);
            }
        }
        spare.devices.map(|singles| singles.choose(&class.shape).unwrap_or_else(|| singles.nearest(&class.shape))).unwrap_or_default()
    }

    /// True where a want may take the place of tasks of this class: its role's right reaches them, and their roles keep what they are guaranteed.
    fn may_ask(&self, want: &Wanted, class: &Class, held: &Class) -> bool {
        let (Some(of), Some(who)) = (self.roles.get(held.role), self.roles.get(class.role)) else { return false };
        let reaches = match self.may_preempt(want) {
            Preempts::None => false,
            Preempts::Own => of.name.is_within(&who.name),
            Preempts::All => true,
        };
        if !reaches || !self.roles.has_guarantee(held.role) {
            return reaches;
        }
        let mut leaving = held.shape.clone();
        let asked = self.preempting.makings.values().flatten().flat_map(|making| &making.asked);
        let others = asked.filter_map(|(_, class)| self.shape(*class)).filter(|class| self.roles.has_guarantee(class.role));
        others.for_each(|class| amounts::add(&mut leaving, &class.shape, 1));
        self.roles.may_yield(held.role, class.role, &leaving)
    }
}
