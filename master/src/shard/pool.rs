//! The shard's agents as whoever places tasks sees them: what each has, what is booked on it, what is offered, and who wants some of it.
//! Nothing here is on record: it is rebuilt from what agents report and frameworks say.

use super::aims::{Aim, Aims};
use super::amounts;
use super::config::ShardConfig;
use super::fitting::Fits;
use super::index::Index;
use super::openings::Openings;
use super::precedence::Precedence;
use super::preempt::Preempting;
use super::reserved::Keepers;
use super::roles::Roles;
use super::scores::Scores;
pub use super::seat::{Seat, Silence, Standing};
use super::shares::Elsewhere;
use super::slots::Slots;
use super::uncounted::Uncounted;
use protocol::message::attempt_hash;
use protocol::{AgentId, AttemptId, Given, Resources, Role, ShardId, Time};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// Most attempts booked on one agent, so that tasks that need nothing are bounded too.
pub const ATTEMPTS_PER_AGENT_MAX: u32 = 131_072;
/// The class of an attempt that an agent reported and no framework has explained yet.
pub const CLASS_UNKNOWN: u32 = u32::MAX;

/// Tasks of one role, shape and priority.
#[derive(Debug)]
pub struct Class {
    /// Whose.
    pub role: u32,
    /// What each of them needs.
    pub shape: Resources,
    /// What their agents must be; `None`: anything.
    pub rules: Option<u32>,
    /// Their jobs' priority.
    pub priority: u8,
    pub(super) refs: u64,
}

/// What one framework's shard wants of one class and priority.
#[derive(Debug)]
pub struct Wanted {
    /// Which shard.
    pub from: ShardId,
    /// Of what.
    pub class: u32,
    /// How urgent.
    pub priority: u8,
    /// How many, as it said last.
    pub count: u32,
    /// Its age.
    pub age: u64,
    /// Offers that it had not counted when it said so.
    pub offered: Uncounted,
    /// True where no agent has room for one, as far as was looked: only freed resources can help it.
    pub blocked: bool,
    /// True where there is room for one that frameworks are shown and may still think about.
    pub guarded: bool,
    /// For how many of its tasks room is gathered.
    pub gathered: u32,
    /// Until when none is, since it was in vain.
    pub patient_until: Time,
    /// What its shard calls it; 0 where its tasks may go everywhere.
    pub id: u64,
    /// Whom it may be offered, where its tasks may not.
    pub aim: Option<Box<Aim>>,
}

/// An offer that is out.
#[derive(Debug)]
pub struct Offered {
    /// On which agent.
    pub slot: u32,
    /// To whom.
    pub to: ShardId,
    /// Of what.
    pub class: u32,
    /// How urgent the want was.
    pub priority: u8,
    /// What its shard calls the want.
    pub want: u64,
    /// For how many tasks.
    pub count: u32,
    /// Which single devices each of them has; empty where they have none.
    pub given: Vec<Given>,
    /// Until when.
    pub deadline: Time,
}

/// All of it.
#[derive(Debug)]
pub struct Pool {
    pub(super) shard: ShardId,
    pub(super) offer_ms: u64,
    /// Agents; a slot is never given to another agent.
    pub seats: Vec<Seat>,
    /// Their slots.
    slots: Slots,
    pub(super) index: Index,
    pub(super) classes: Vec<Option<Class>>,
    classes_free: Vec<u32>,
    /// By role: its classes, ordered by shape, rules and priority.
    by_role: BTreeMap<u32, Vec<u32>>,
    pub(super) roles: Roles,
    pub(super) wants: Vec<Option<Wanted>>,
    pub(super) wants_free: Vec<u32>,
    pub(super) by_want: BTreeMap<super::allocator::WantKey, u32>,
    pub(super) ages: u64,
    /// Offers that are out; numbers and deadlines rise together.
    pub offers: BTreeMap<u64, Offered>,
    pub(super) next_offer: u64,
    /// What tasks with devices were asked for.
    pub(super) fits: Fits,
    /// What all agents of this shard have.
    pub total: Resources,
    /// What all agents of the cluster have, as far as the other shards have said.
    pub whole: Resources,
    /// What other shards said of roles.
    pub(super) elsewhere: Elsewhere,
    pub(super) open: u32,
    /// Slots with more room than when the blocked wants were looked at.
    pub(super) freed: BTreeSet<u32>,
    pub(super) start: u32,
    /// What is shown to frameworks.
    pub(super) openings: Openings,
    /// What agents are, and who asks for what.
    pub(super) aims: Aims,
    /// What is left to frameworks.
    pub(super) precedence: Precedence,
    /// Room that is made for what is urgent.
    pub(super) preempting: Preempting,
    /// By role: agents of which something is kept for it.
    pub(super) keepers: BTreeMap<u32, Keepers>,
    /// Plug-ins that order agents, where there are some.
    pub(super) scores: Option<Box<Scores>>,
}

impl Pool {
    /// No agents.
    #[must_use]
    pub fn new(config: &ShardConfig) -> Self {
        Self {
            shard: config.id,
            offer_ms: config.offer_ms,
            seats: Vec::new(),
            slots: Slots::default(),
            index: Index::default(),
            classes: Vec::new(),
            classes_free: Vec::new(),
            by_role: BTreeMap::new(),
            roles: Roles::default(),
            wants: Vec::new(),
            wants_free: Vec::new(),
            by_want: BTreeMap::new(),
            ages: 0,
            offers: BTreeMap::new(),
            next_offer: 1,
            fits: Fits::default(),
            total: Resources::NONE,
            whole: Resources::NONE,
            elsewhere: Elsewhere::default(),
            open: 0,
            freed: BTreeSet::new(),
            start: 0,
            openings: Openings::default(),
            aims: Aims::default(),
            precedence: Precedence::default(),
            preempting: Preempting::default(),
            keepers: BTreeMap::new(),
            scores: None,
        }
    }

    /// The agent's slot and seat.
    #[must_use]
    pub fn seat(&self, agent: AgentId) -> Option<(u32, &Seat)> {
        let slot = self.slots.get(agent)?;
        self.seats.get(slot as usize).map(|seat| (slot, seat))
    }

    /// The same, to be changed; [`Self::refresh`] follows where its room changed.
    pub fn seat_mut(&mut self, agent: AgentId) -> Option<(u32, &mut Seat)> {
        let slot = self.slots.get(agent)?;
        self.seats.get_mut(slot as usize).map(|seat| (slot, seat))
    }

    /// A seat for an agent that is new to the pool.
    pub fn seat_new(&mut self, agent: AgentId, now: Time) -> u32 {
        let slot = u32::try_from(self.seats.len()).expect("AGENTS_MAX fits");
        self.slots.insert(agent, slot);
        self.seats.push(Seat::new(agent, now));
        slot
    }

    /// The agent has this much from now on, and lends nothing; nothing where it is gone.
    pub fn set_capacity(&mut self, slot: u32, capacity: &Resources) {
        let seat = &mut self.seats[slot as usize];
        let before = std::mem::replace(&mut seat.capacity, capacity.clone());
        if seat.counted && before == *capacity {
            return;
        }
        seat.counted = true;
        self.index.set(slot, 0, &Resources::NONE, None);
        self.index.unlearn(&before);
        self.index.learn(capacity);
        seat.capacity = self.index.named(capacity);
        self.index_anew();
        self.relearn_kept(slot, (&before, capacity));
        self.count_devices(slot);
        amounts::sub(&mut self.total, &before.firm(), 1);
        amounts::add(&mut self.total, capacity, 1);
        self.refresh(slot);
        self.elsewhere.stir();
        self.count_whole();
    }

    /// Room of an agent, as it was when it was last refreshed: attempts, and resources.
    #[must_use]
    pub fn room(seat: &Seat) -> (u32, &Resources) {
        let here = seat.standing == Standing::Here && seat.silence == Silence::None && !seat.disconnected;
        let ready = here && !seat.inactive && seat.unknown == 0 && seat.unheard.is_empty();
        let held = u32::try_from(seat.attempts.len()).unwrap_or(u32::MAX).saturating_add(seat.offered_attempts);
        let attempts = if ready { ATTEMPTS_PER_AGENT_MAX.saturating_sub(held) } else { 0 };
        (attempts, &seat.free)
    }

    /// Brings the index up to what the seat says now.
    pub fn refresh(&mut self, slot: u32) {
        let seat = &mut self.seats[slot as usize];
        amounts::copy(&mut seat.free, &seat.capacity);
        amounts::sub(&mut seat.free, &seat.booked, 1);
        amounts::sub(&mut seat.free, &seat.offered, 1);
        self.keep(slot);
        self.count_kept(slot);
        let seat = &mut self.seats[slot as usize];
        let open = seat.standing == Standing::Here && seat.silence == Silence::None && !seat.disconnected;
        self.open = self.open + u32::from(open) - u32::from(seat.is_open);
        seat.is_open = open;
        let shows = !seat.open_offers.is_empty();
        let (attempts, free) = Self::room(seat);
        self.index.set(slot, attempts, free, seat.singles());
        self.count_bare(slot);
        self.index_below(slot);
        if shows {
            self.squeeze(slot, attempts);
        }
    }

    /// As [`Self::refresh`], where there may be more room than before.
    pub fn refresh_freed(&mut self, slot: u32) {
        self.refresh(slot);
        self.freed.insert(slot);
        self.openings.stir(slot);
        self.stir_makings(slot);
    }

    /// The class of this role, shape and priority, and of agents that are so, held `refs` times more.
    pub(super) fn class_of(&mut self, role: &Role, (shape, priority): (&Resources, u8), rules: Option<u32>, refs: u32) -> u32 {
        let known = self.roles.find(role).and_then(|role| {
            let at = self.class_at(role, (shape, rules, priority)).ok()?;
            self.by_role.get(&role)?.get(at).copied()
        });
        let class = known.unwrap_or_else(|| {
            let role = self.roles.hold(role, &self.elsewhere, &self.whole);
            let (Ok(in_line) | Err(in_line)) = self.class_at(role, (shape, rules, priority));
            let shape = self.index.named(shape);
            let at = place(&mut self.classes, &mut self.classes_free, Class { role, shape, rules, priority, refs: 0 });
            self.by_role.entry(role).or_default().insert(in_line, at);
            self.aims.rules.hold_again(rules);
            at
        });
        if let Some(held) = self.classes[class as usize].as_mut() {
            held.refs += u64::from(refs);
        }
        class
    }

    /// Where among the classes of a role one is, or would be.
    fn class_at(&self, role: u32, key: (&Resources, Option<u32>, u8)) -> Result<usize, usize> {
        let order = |class: &Class| (&class.shape, class.rules, class.priority).cmp(&key);
        let line = self.by_role.get(&role).map_or(&[][..], |line| line);
        line.binary_search_by(|at| self.shape(*at).map_or(Ordering::Less, order))
    }

    /// Lets go of a class, and of its role, where nobody holds them any longer.
    pub fn class_drop(&mut self, class: u32, refs: u32) {
        let Some(held) = self.classes.get_mut(class as usize).and_then(Option::as_mut) else { return };
        held.refs = held.refs.saturating_sub(u64::from(refs));
        if held.refs > 0 {
            return;
        }
        let in_line = self.shape(class).map(|held| self.class_at(held.role, (&held.shape, held.rules, held.priority)));
        let Some(held) = self.classes[class as usize].take() else { return };
        self.classes_free.push(class);
        if let (Some(Ok(at)), Some(line)) = (in_line, self.by_role.get_mut(&held.role)) {
            line.remove(at);
            if line.is_empty() {
                self.by_role.remove(&held.role);
            }
        }
        held.rules.into_iter().for_each(|rules| self.aims.rules.drop(rules));
        self.roles.release(held.role);
    }

    /// What the tasks of a class need.
    #[must_use]
    pub fn shape(&self, class: u32) -> Option<&Class> {
        self.classes.get(class as usize)?.as_ref()
    }

    /// Books attempts of one class on an agent, whether there is room or not: [`Self::refresh`] follows. Those that are booked already
    /// are passed over, or get their class where it was not known. Gives back how many are new.
    pub fn book(&mut self, slot: u32, class: u32, attempts: impl Iterator<Item = AttemptId>) -> u32 {
        let Some(shape) = self.classes.get(class as usize).and_then(Option::as_ref) else { return 0 };
        let seat = &mut self.seats[slot as usize];
        let with_devices = seat.devices.is_some() && !shape.shape.devices.is_empty();
        let (mut new, mut explained, mut fresh) = (0, 0, Vec::new());
        let mut beside = Vec::new();
        for attempt in attempts {
            if self.aims.rules.asks_for(attempt.task.job) && beside.last() != Some(&attempt.task.job) {
                beside.push(attempt.task.job);
            }
            match seat.attempts.get_mut(&attempt) {
                Some(known) if *known == CLASS_UNKNOWN => {
                    *known = class;
                    explained += 1;
                }
                Some(_) => continue,
                None => {
                    seat.insert(attempt, class);
                    new += 1;
                }
            }
            if with_devices {
                fresh.push(attempt);
            }
        }
        seat.unknown -= explained;
        amounts::add(&mut seat.booked, &shape.shape, new + explained);
        seat.rank(shape, new + explained, true);
        self.hold(slot, class, new + explained, true);
        if let Some(held) = self.classes[class as usize].as_mut() {
            held.refs += u64::from(new + explained);
        }
        self.charge(class, new + explained, true);
        self.give(slot, class, &fresh);
        self.neighbours_moved(slot, &beside);
        new
    }

    /// Takes attempts off an agent; those that are not booked are passed over.
    pub fn unbook(&mut self, slot: u32, attempts: &[AttemptId]) {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        self.seats[slot as usize].fetch();
        for attempt in attempts {
            let seat = &mut self.seats[slot as usize];
            let Some(class) = seat.attempts.remove(attempt) else { continue };
            seat.hash ^= attempt_hash(*attempt);
            if !seat.ports.is_empty() {
                seat.ports.remove(attempt);
            }
            if !seat.heavy.is_empty() {
                seat.heavy.remove(attempt);
            }
            self.preempting.left(*attempt);
            if seat.devices.is_some() {
                self.ungive(slot, class, *attempt);
            }
            if class == CLASS_UNKNOWN {
                self.seats[slot as usize].unknown -= 1;
                continue;
            }
            match runs.last_mut().filter(|(last, _)| *last == class) {
                Some((_, n)) => *n += 1,
                None => runs.push((class, 1)),
            }
        }
        for (class, n) in runs {
            if let Some(shape) = self.classes.get(class as usize).and_then(Option::as_ref) {
                let seat = &mut self.seats[slot as usize];
                amounts::sub(&mut seat.booked, &shape.shape, n);
                seat.rank(shape, n, false);
            }
            self.hold(slot, class, n, false);
            self.charge(class, n, false);
            self.class_drop(class, n);
        }
        self.neighbours_moved(slot, &self.neighbours_of(attempts.iter()));
        self.refresh_freed(slot);
    }
}

/// Puts `value` where there is a gap, or at the end; gives back where.
pub(super) fn place<T>(list: &mut Vec<Option<T>>, free: &mut Vec<u32>, value: T) -> u32 {
    if let Some(at) = free.pop() {
        list[at as usize] = Some(value);
        return at;
    }
    list.push(Some(value));
    u32::try_from(list.len() - 1).expect("fewer than there are jobs and agents")
}
