//! Room for what is urgent: where no agent has room for a want of a role that may do so, tasks of lower priority are asked to stop on one agent, the
//! cheapest set of those that suffices, and what they leave is kept for the want. Who may be asked is found through an index of what each agent
//! would have free without them, kept only while there is such a want. The shard of the tasks judges last, by what is on record there.

use super::allocator::WantKey;
use super::amounts;
use super::index::Index;
use super::pool::{Class, Pool, Seat, Wanted};
use super::reconcile::GRACE_MS;
use super::{Action, PeerMessage, Shard};
use crate::jobs::LivePhase;
use protocol::job::PRIORITY_DEFAULT;
use protocol::message::Launch;
use protocol::{AgentId, AttemptId, Given, JobId, Offer, Program, Resources, ShardId, Time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Milliseconds until room that is being made is given up: what tasks have to stop, and twice as much until that is on record.
const MAKING_MS: u64 = 3 * GRACE_MS;
/// Milliseconds until agents are looked at again for a want that none was found for, or too few.
const LOOK_MS: u64 = 1_000;
/// Tasks that room is begun to be made for in one look.
const AT_ONCE_MAX: u32 = 256;
/// Priorities that there is an index for at a time.
const INDEXES_MAX: usize = 4;

/// Whose tasks of lower priority a role's may take the place of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Preempts {
    /// Nobody's.
    #[default]
    None,
    /// Its own, and those of all roles below it.
    Own,
    /// Those of all roles.
    All,
}

/// What is asked to stop.
pub type Asked = Vec<(AttemptId, u32)>;

/// Room that is being made on one agent.
#[derive(Clone, Debug)]
pub(super) struct Making {
    pub want: WantKey,
    pub class: u32,
    pub until: Time,
    /// Which attempts were asked to stop, and the class of each; none where it is gathered.
    pub asked: Asked,
    /// The single devices that it is to have.
    pub given: Given,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Preempting {
    /// By slot.
    pub makings: BTreeMap<u32, Vec<Making>>,
    /// How many of those gather.
    pub gathered: usize,
    /// Slots with makings that something has left since.
    stirred: BTreeSet<u32>,
    /// Wants that found nobody, their ages, and when it is looked again.
    pressing: BTreeMap<u32, (u64, Time)>,
    /// Attempts that were asked in vain: their job may be more urgent by now. They are not asked again.
    deaf: BTreeSet<AttemptId>,
    /// By priority: what agents would have free without what is below it.
    pub indexes: BTreeMap<u8, Index>,
    pub start: u32,
    /// Who is to be asked to stop: by shard and agent, and below which priority.
    said: BTreeMap<(ShardId, AgentId, u8), Vec<AttemptId>>,
}

impl Preempting {
    /// When something happens here by time alone.
    pub fn due(&self) -> Option<Time> {
        let makings = self.makings.values().flatten().map(|making| making.until);
        self.pressing.values().map(|(_, at)| *at).chain(makings).min()
    }

    /// Room is made on an agent.
    pub fn make(&mut self, slot: u32, making: Making) {
        self.gathered += usize::from(making.asked.is_empty());
        self.makings.entry(slot).or_default().push(making);
    }

    /// All for which room is being made on an agent.
    pub fn makings_of(&self, slot: u32) -> impl Iterator<Item = &Making> {
        self.makings.get(&slot).into_iter().flatten()
    }

    /// What is kept on an agent, whether it is free yet or not.
    pub fn kept<'a>(&'a self, slot: u32, classes: &'a [Option<Class>]) -> impl Iterator<Item = &'a Resources> {
        let makings = self.makings.get(&slot).into_iter().flatten();
        makings.filter_map(|making| classes.get(making.class as usize)?.as_ref()).map(|class| &class.shape)
    }

    pub fn is_asked(&self, slot: u32, attempt: AttemptId) -> bool {
        let mut asked = self.makings.get(&slot).into_iter().flatten().flat_map(|making| &making.asked);
        self.deaf.contains(&attempt) || asked.any(|(asked, _)| *asked == attempt)
    }

    /// An attempt has left its agent.
    pub fn left(&mut self, attempt: AttemptId) {
        if !self.deaf.is_empty() {
            self.deaf.remove(&attempt);
        }
    }

    /// For how many tasks of a want room is being made.
    fn made_for(&self, want: WantKey) -> u32 {
        let makings = self.makings.values().flatten().filter(|making| making.want == want);
        u32::try_from(makings.count()).unwrap_or(u32::MAX)
    }
}

impl Seat {
    /// What it holds of attempts whose priority is below `priority`.
    fn below(&self, priority: u8) -> Resources {
        let is_below = |of: u8| of < priority;
        let mut sum = if is_below(PRIORITY_DEFAULT) { self.booked.clone() } else { Resources::NONE };
        let change = if is_below(PRIORITY_DEFAULT) { amounts::sub } else { amounts::add };
        let others = self.ranked.iter().filter(|(of, _)| is_below(*of) != is_below(PRIORITY_DEFAULT));
        others.for_each(|(_, amount)| change(&mut sum, amount, 1));
        sum
    }

    /// It holds `n` more of a class, or fewer.
    pub(super) fn rank(&mut self, class: &Class, n: u32, more: bool) {
        if class.priority == PRIORITY_DEFAULT || n == 0 {
            return;
        }
        let at = self.ranked.iter().position(|(of, _)| *of == class.priority).unwrap_or_else(|| {
            self.ranked.push((class.priority, Resources::NONE));
            self.ranked.len() - 1
        });
        let change = if more { amounts::add } else { amounts::sub };
        change(&mut self.ranked[at].1, &class.shape, n);
        if self.ranked[at].1.is_none() {
            self.ranked.swap_remove(at);
        }
    }
}

impl Pool {
    /// What is kept on an agent for wants is free to nobody else.
    pub(super) fn keep(&mut self, slot: u32) {
        if self.preempting.makings.is_empty() {
            return;
        }
        let seat = &mut self.seats[slot as usize];
        self.preempting.kept(slot, &self.classes).for_each(|kept| amounts::sub(&mut seat.free, kept, 1));
    }

    /// Room is made on an agent, and the devices that it is to have are nobody else's.
    pub(super) fn begin_making(&mut self, slot: u32, making: Making) {
        self.hold_one(slot, making.class, &making.given, true);
        self.preempting.make(slot, making);
    }

    /// True where room is being made on an agent.
    pub(super) fn makes_room(&self, slot: u32) -> bool {
        self.preempting.makings.contains_key(&slot)
    }

    /// An agent holds another amount than before.
    pub(super) fn index_below(&mut self, slot: u32) {
        let seat = &self.seats[slot as usize];
        for (priority, index) in &mut self.preempting.indexes {
            let mut free = seat.free.clone();
            amounts::add(&mut free, &seat.below(*priority), 1);
            index.set(slot, Self::room(seat).0, &free, None);
        }
    }

    /// Something has left an agent, or it has changed altogether.
    pub(super) fn stir_makings(&mut self, slot: u32) {
        if self.preempting.makings.contains_key(&slot) {
            self.preempting.stirred.insert(slot);
        }
    }

    /// What agents have is another than before.
    pub(super) fn index_anew(&mut self) {
        self.preempting.indexes.clear();
    }

    /// A want found nobody: where its role may, room is made for it.
    pub(super) fn press(&mut self, at: u32) {
        let Some(want) = self.wants.get(at as usize).and_then(Option::as_ref) else { return };
        if self.may_preempt(want) == Preempts::None {
            return;
        }
        let age = want.age;
        let known = self.preempting.pressing.entry(at).or_insert((age, Time::ZERO));
        if known.0 != age {
            *known = (age, Time::ZERO);
        }
    }

    pub(super) fn may_preempt(&self, want: &Wanted) -> Preempts {
        let role = self.shape(want.class).and_then(|class| self.roles.get(class.role));
        role.map_or(Preempts::None, |role| self.roles.preempts(&role.name))
    }

    /// Gives what is free by now to those that it was made free for, and what is not in time to all; then begins to make room for others.
    pub(super) fn make_room(&mut self, now: Time, offers: &mut BTreeMap<ShardId, Vec<Offer>>) {
        if self.preempting.makings.is_empty() && self.preempting.pressing.is_empty() {
            return;
        }
        while let Some(slot) = self.preempting.stirred.pop_first() {
            self.give_room(slot, now, offers);
        }
        let late = |makings: &Vec<Making>| makings.iter().any(|making| making.until <= now);
        let over: Vec<u32> = self.preempting.makings.iter().filter(|(_, makings)| late(makings)).map(|(slot, _)| *slot).collect();
        let gathered = self.preempting.gathered;
        over.into_iter().for_each(|slot| self.give_up(slot, now));
        if self.preempting.gathered < gathered && !self.roles.guarantees().is_empty() {
            self.look_again(); // It was missing beside what is kept, wherever that is.
        }
        let due = |(at, (age, next)): (&u32, &(u64, Time))| (*next <= now).then_some((*at, *age));
        let mut due: Vec<(u32, u64)> = self.preempting.pressing.iter().filter_map(due).collect();
        let urgency = |at: u32| self.wants[at as usize].as_ref().map(|want| (std::cmp::Reverse(want.priority), want.age));
        due.sort_by_key(|(at, _)| urgency(*at));
        let mut left = AT_ONCE_MAX;
        for (at, age) in due {
            let presses = |want: &&Wanted| want.age == age && want.blocked && want.unmet() > 0 && self.may_preempt(want) != Preempts::None;
            let Some(want) = self.wants[at as usize].as_ref().filter(presses) else {
                self.preempting.pressing.remove(&at);
                continue;
            };
            let mut more = want.unmet().saturating_sub(self.preempting.made_for(want.key())).min(left);
            while more > 0 && self.make_room_for(at, now) {
                (more, left) = (more - 1, left - 1);
            }
            self.preempting.pressing.insert(at, (age, now + LOOK_MS));
        }
        if self.preempting.pressing.is_empty() {
            self.preempting.indexes.clear();
        }
    }

    /// Room that was not made in time is not waited for any longer, and who did not leave is not asked again.
    fn give_up(&mut self, slot: u32, now: Time) {
        let late = self.preempting.makings.get(&slot).into_iter().flatten().filter(|making| making.until <= now);
        let seat = &self.seats[slot as usize];
        let stay = late.flat_map(|making| &making.asked).map(|(attempt, _)| *attempt).filter(|attempt| seat.attempts.contains_key(attempt));
        let stay: Vec<AttemptId> = stay.collect();
        self.preempting.deaf.extend(stay);
        self.unmake(slot, Some(now), |making| making.until <= now);
    }

    /// Offers what was kept on an agent to those that it was kept for, as far as it is free.
    fn give_room(&mut self, slot: u32, now: Time, offers: &mut BTreeMap<ShardId, Vec<Offer>>) {
        let makings = self.preempting.makings.get(&slot).cloned().unwrap_or_default();
        let Some(at) = makings.iter().position(|making| self.is_free(slot, making) && self.may_be_given(making)) else { return };
        let want = makings[at].want;
        let mut nth = 0;
        self.unmake(slot, None, |_| {
            nth += 1;
            nth == at + 1
        });
        let known = self.by_want.get(&want).copied().filter(|at| self.wants[*at as usize].as_ref().is_some_and(|want| want.unmet() > 0));
        let free = |at: &u32| {
            let class = self.wants[*at as usize].as_ref().and_then(|want| self.shape(want.class));
            let fits = |class: &Class| {
                let (attempts, free) = self.room_for(slot, class.role);
                attempts > 0 && free.contains(&class.shape) && self.on_devices(slot, &class.shape, 1) > 0
            };
            self.takes(*at, slot) > 0 && class.is_some_and(fits)
        };
        if let Some(at) = known.filter(free) {
            self.offer(at, slot, 1, now, offers);
        }
        self.stir_makings(slot);
    }

    /// True where an agent has the room that is being made beside all that it holds.
    fn is_free(&self, slot: u32, making: &Making) -> bool {
        let seat = &self.seats[slot as usize];
        let Some(class) = self.shape(making.class) else { return true };
        if let Some(mut singles) = seat.singles().filter(|_| !class.shape.devices.is_empty()).cloned() {
            singles.hold(&class.shape, &making.given, false);
            if singles.times(&class.shape, 1) == 0 {
                return false;
            }
        }
        let sum = seat.booked.checked_add(&seat.offered).and_then(|held| held.checked_add(&class.shape));
        sum.is_some_and(|sum| seat.capacity.contains(&sum))
    }

    fn unmake(&mut self, slot: u32, late: Option<Time>, mut which: impl FnMut(&Making) -> bool) {
        let Some(makings) = self.preempting.makings.get_mut(&slot) else { return };
        let over: Vec<Making> = makings.extract_if(.., |making| which(making)).collect();
        if makings.is_empty() {
            self.preempting.makings.remove(&slot);
        }
        for making in over {
            self.gathered(&making, late);
            self.hold_one(slot, making.class, &making.given, false);
            self.class_drop(making.class, 1);
        }
        self.refresh_freed(slot);
    }

    /// Asks for room for one task of a want; false where nobody can be asked.
    fn make_room_for(&mut self, at: u32, now: Time) -> bool {
        let Some(want) = self.wants[at as usize].as_ref() else { return false };
        let (key, class, priority) = (want.key(), want.class, want.priority);
        self.index_for(priority);
        let role = self.shape(class).map(|class| class.role);
        let beyond = role.and_then(|role| self.roles.beyond_reserve(role, &self.elsewhere, (&self.total, &self.whole)));
        let Some((slot, asked)) = self.cheapest(at, beyond.as_ref()) else { return false };
        let seat = &self.seats[slot as usize];
        for (attempt, _) in &asked {
            self.preempting.said.entry((attempt.task.job.shard(), seat.id, priority)).or_default().push(*attempt);
        }
        if let Some(held) = self.classes[class as usize].as_mut() {
            held.refs += 1;
        }
        let given = self.devices_without(slot, class, &asked);
        self.begin_making(slot, Making { want: key, class, until: now + MAKING_MS, asked, given });
        self.preempting.start = slot.wrapping_add(1);
        self.refresh(slot);
        true
    }

    /// There is an index for this priority.
    fn index_for(&mut self, priority: u8) {
        if self.preempting.indexes.contains_key(&priority) {
            return;
        }
        if self.preempting.indexes.len() == INDEXES_MAX {
            self.preempting.indexes.clear();
        }
        let mut index = Index::default();
        for (slot, seat) in (0..).zip(&self.seats) {
            index.learn(&seat.capacity);
            let mut free = seat.free.clone();
            amounts::add(&mut free, &seat.below(priority), 1);
            index.set(slot, Self::room(seat).0, &free, None);
        }
        self.preempting.indexes.insert(priority, index);
    }
}

impl Shard {
    /// Asks those to stop whose place is needed.
    pub(super) fn say_yields(&mut self) {
        for ((to, agent, below), attempts) in std::mem::take(&mut self.pool.preempting.said) {
            self.at_once(Action::Peer { to, message: PeerMessage::Yield { agent, attempts, below, grace_ms: GRACE_MS } });
        }
    }

    /// The place of our tasks on an agent is needed for one of this priority: those of lower ones stop, and wait for another place.
    pub(super) fn yield_place(&mut self, agent: AgentId, attempts: &[AttemptId], below: u8, grace_ms: u64) {
        let mut by_job: BTreeMap<JobId, Vec<u32>> = BTreeMap::new();
        for attempt in attempts {
            let Some(job) = self.jobs.live(attempt.task.job).filter(|job| job.job.priority < below) else { continue };
            let cell = job.cells.get(attempt.task.index).filter(|cell| cell.agent == agent && cell.number == attempt.number);
            if cell.is_some_and(|cell| cell.slot == crate::jobs::Slot::Live && cell.phase != LivePhase::Killing) {
                self.preempted.insert(*attempt);
                by_job.entry(attempt.task.job).or_default().push(attempt.task.index);
            }
        }
        for (id, indexes) in by_job {
            self.kill_tasks(id, &indexes, grace_ms);
        }
    }

    /// Says to an agents' shard which priorities the jobs have whose tasks it is told of next, where they have another than most.
    pub(super) fn say_ranks(&mut self, to: ShardId, launches: &[Launch]) {
        let rank = |id: JobId| self.jobs.live(id).map(|job| (id, job.job.priority));
        let ranks: BTreeSet<(JobId, u8)> =
            launches.iter().filter_map(|launch| rank(launch.job)).filter(|(_, priority)| *priority != PRIORITY_DEFAULT).collect();
        if !ranks.is_empty() {
            self.held(Action::Peer { to, message: PeerMessage::Ranks { ranks: ranks.into_iter().collect() } });
        }
    }
}

/// True where a task has a program that takes longer to start again than wasm.
pub(super) fn is_heavy(template: &protocol::Template) -> bool {
    template.members.iter().any(|member| !matches!(member.program, Program::Wasm { .. }))
}
