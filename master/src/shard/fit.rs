//! Where a task goes among agents whose devices are single things: on the agent, and the devices of it, where it spoils least of what the tasks
//! seen so far could use. Knows what was asked for and what a few candidates have free; no agent by name, no role, and nothing of the future.
//!
//! The measure is the fragmentation of Weng et al. (FGD, USENIX ATC 2023, section 4.1): the devices' free parts that a task drawn from the
//! demand could not use, as a mean. Here it counts memory too, all shapes instead of the most frequent, and what was asked for up to now
//! instead of a whole trace; candidates that are nearly alike count as alike, and the first of them is taken, so that agents are filled one
//! after the other. For the same reason the first [`CANDIDATES`] agents with room, in an order that stays, do better than all of them do
//! (`sim trace openb --candidates`, 2026-11-29: of 1,213 agents 95.6 and 95.7 % of the devices are given away, with all as candidates 95.1
//! and 95.3): so an index finds them, and nothing looks at all agents.

use protocol::devices::SINGLES_MAX;

/// Candidates that are enough: with twice as many a twentieth of a percent more of the devices is given away, and a choice takes twice as long.
pub const CANDIDATES: usize = 16;
/// Most shapes that a demand tells apart; at the limit the one asked for least is forgotten (as in Metwally et al., Space-Saving, 2005).
pub const SHAPES_MAX: usize = 256;
/// When so many tasks were seen, all counts are halved: what was asked for lately counts more.
const SEEN_MAX: u32 = 1 << 16;
/// Candidates that spoil no more than this above another are as good, in thousandths of a device: as FGD has it in effect, whose scores from 0
/// to 100 are cut to whole numbers.
const ALIKE_MILLI: i64 = 40;

/// What a task needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// How many devices; with more than one it takes whole ones.
    pub devices: u8,
    /// How much of each, in thousandths: 0 where there are none, at most 1,000, and less than that only of one.
    pub milli: u16,
    /// What an agent has to be one of, a bit for each.
    pub kinds: u64,
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

/// What an agent has free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Room {
    /// What it is, a bit for each.
    pub kinds: u64,
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// How many devices it has, at most [`SINGLES_MAX`].
    pub devices: u8,
    /// How much of each is free, in thousandths; 0 beyond `devices`.
    pub milli: [u16; SINGLES_MAX],
}

/// A place that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Which of the candidates.
    pub candidate: usize,
    /// Which of its devices, a bit for each.
    pub devices: u16,
}

/// What was asked for so far, by shape: of tasks with devices only.
#[derive(Clone, Debug, Default)]
pub struct Demand {
    classes: Vec<Class>,
    shapes: usize,
    seen: u32,
}

/// Shapes that need the same of devices.
#[derive(Clone, Debug)]
struct Class {
    devices: u8,
    milli: u16,
    kinds: u64,
    seen: u32,
    /// The most memory that one of them needs, or needed.
    memory_most: u64,
    /// CPU, memory, and how often; sorted.
    shapes: Vec<(u64, u64, u32)>,
}

impl Room {
    /// How much of each of its devices is free.
    #[must_use]
    pub fn each(&self) -> &[u16] {
        &self.milli[..usize::from(self.devices).min(SINGLES_MAX)]
    }

    /// Thousandths of devices that are free.
    #[must_use]
    pub fn free_milli(&self) -> u64 {
        self.each().iter().map(|milli| u64::from(*milli)).sum()
    }

    /// True where one such task fits.
    #[must_use]
    pub fn fits(&self, need: &Need) -> bool {
        let enough = || self.each().iter().filter(|free| **free >= need.milli).count() >= usize::from(need.devices);
        let plain = self.cpu_milli >= need.cpu_milli && self.memory_bytes >= need.memory_bytes;
        plain && need.kinds & self.kinds != 0 && enough()
    }

    /// The same without what the task takes; `devices` are those that hold so much. What is not there is not missed.
    #[must_use]
    pub fn without(&self, need: &Need, devices: u16) -> Self {
        let mut left = *self;
        left.cpu_milli = left.cpu_milli.saturating_sub(need.cpu_milli);
        left.memory_bytes = left.memory_bytes.saturating_sub(need.memory_bytes);
        for (at, free) in left.milli.iter_mut().enumerate().filter(|(at, _)| devices >> at & 1 == 1) {
            debug_assert!(at < usize::from(self.devices), "a device that the agent has");
            *free = free.saturating_sub(need.milli);
        }
        left
    }

    /// The same with what a task gave back.
    #[must_use]
    pub fn with(&self, need: &Need, devices: u16) -> Self {
        let mut more = *self;
        more.cpu_milli = more.cpu_milli.saturating_add(need.cpu_milli);
        more.memory_bytes = more.memory_bytes.saturating_add(need.memory_bytes);
        for (_, free) in more.milli.iter_mut().enumerate().filter(|(at, _)| devices >> at & 1 == 1) {
            *free = free.saturating_add(need.milli).min(1_000);
        }
        more
    }

    /// The devices that the task may get, one way for each that differs: a single one for part of a device, the first ones for whole devices.
    pub fn ways(&self, need: &Need) -> impl Iterator<Item = u16> {
        let free = self.milli;
        let first = move |at: usize| !free[..at].contains(&free[at]);
        let count = usize::from(self.devices).min(SINGLES_MAX);
        let single = (0..count).filter(move |at| free[*at] >= need.milli && first(*at)).map(|at| 1 << at);
        let several = (need.devices != 1).then(|| self.first_ones(need));
        let single = (need.devices == 1).then_some(single);
        single.into_iter().flatten().chain(several)
    }

    fn first_ones(&self, need: &Need) -> u16 {
        let good = self.each().iter().enumerate().filter(|(_, free)| **free >= need.milli).map(|(at, _)| 1 << at);
        good.take(usize::from(need.devices)).fold(0, |all, one: u16| all | one)
    }
}

impl Demand {
    /// So many tasks were asked for. Those without devices change nothing.
    pub fn learn(&mut self, need: &Need, times: u32) {
        let times = times.min(SEEN_MAX / 4);
        if need.devices == 0 || need.milli == 0 || times == 0 {
            return;
        }
        if self.seen >= SEEN_MAX {
            self.halve();
        }
        let key = (need.devices, need.milli, need.kinds);
        let at = self.classes.binary_search_by_key(&key, |class| (class.devices, class.milli, class.kinds));
        let place = at.map(|at| self.classes[at].shapes.binary_search_by_key(&(need.cpu_milli, need.memory_bytes), |s| (s.0, s.1)));
        self.seen += times;
        if let (Ok(at), Ok(Ok(shape))) = (at, place) {
            self.classes[at].seen += times;
            self.classes[at].shapes[shape].2 += times;
            return;
        }
        let inherited = if self.shapes >= SHAPES_MAX { self.forget_one() } else { 0 };
        // What was forgotten may have been all of a class.
        let at = self.classes.binary_search_by_key(&key, |class| (class.devices, class.milli, class.kinds)).unwrap_or_else(|at| {
            let class = Class { devices: need.devices, milli: need.milli, kinds: need.kinds, seen: 0, memory_most: 0, shapes: Vec::new() };
            self.classes.insert(at, class);
            at
        });
        let class = &mut self.classes[at];
        class.seen += times + inherited;
        class.memory_most = class.memory_most.max(need.memory_bytes);
        let shape = class.shapes.partition_point(|s| (s.0, s.1) < (need.cpu_milli, need.memory_bytes));
        class.shapes.insert(shape, (need.cpu_milli, need.memory_bytes, times + inherited));
        self.shapes += 1;
    }

    /// Forgets the shape that was asked for least; how often that was.
    fn forget_one(&mut self) -> u32 {
        let all =
            self.classes.iter().enumerate().flat_map(|(c, class)| class.shapes.iter().enumerate().map(move |(s, shape)| (shape.2, c, s)));
        let Some((count, class, shape)) = all.min() else { return 0 };
        self.classes[class].shapes.remove(shape);
        self.classes[class].seen -= count;
        if self.classes[class].shapes.is_empty() {
            self.classes.remove(class);
        }
        self.shapes -= 1;
        count
    }

    fn halve(&mut self) {
        for class in &mut self.classes {
            class.shapes.iter_mut().for_each(|shape| shape.2 = shape.2.div_ceil(2));
            class.seen = class.shapes.iter().map(|shape| shape.2).sum();
        }
        self.seen = self.classes.iter().map(|class| class.seen).sum();
    }

    /// What the tasks seen could not use of an agent's free devices: thousandths, summed over those tasks.
    #[must_use]
    pub fn waste(&self, room: &Room) -> u64 {
        let free = room.free_milli();
        if free == 0 {
            return 0;
        }
        self.classes.iter().map(|class| class.waste(room, free)).sum()
    }

    /// The best of these candidates for a task: the first of those that spoil least. `None` where it fits nowhere.
    #[must_use]
    pub fn choose(&self, need: &Need, candidates: &[Room]) -> Option<Spot> {
        let alike = i64::from(self.seen.max(1)).saturating_mul(ALIKE_MILLI);
        let mut best: Option<(i64, Spot)> = None;
        for (candidate, room) in candidates.iter().enumerate().filter(|(_, room)| room.fits(need)) {
            let before = signed(self.waste(room));
            for devices in room.ways(need) {
                let more = signed(self.waste(&room.without(need, devices))) - before;
                let spoilt = more.div_euclid(alike);
                if best.is_none_or(|(least, _)| spoilt < least) {
                    best = Some((spoilt, Spot { candidate, devices }));
                }
            }
        }
        best.map(|(_, spot)| spot)
    }
}

impl Class {
    fn waste(&self, room: &Room, free: u64) -> u64 {
        let (mut below, mut enough) = (0_u64, 0_u8);
        for milli in room.each() {
            let small = *milli < self.milli;
            below += if small { u64::from(*milli) } else { 0 };
            enough += u8::from(!small);
        }
        let may = enough >= self.devices && self.kinds & room.kinds != 0;
        let fitting = if may { self.fitting(room) } else { 0 };
        u64::from(fitting) * below + u64::from(self.seen - fitting) * free
    }

    /// How many of these tasks have enough of processors and memory there.
    fn fitting(&self, room: &Room) -> u32 {
        let all = self.shapes.last().is_none_or(|shape| shape.0 <= room.cpu_milli);
        if all && self.memory_most <= room.memory_bytes {
            return self.seen;
        }
        let few_processors = self.shapes.iter().take_while(|shape| shape.0 <= room.cpu_milli);
        few_processors.map(|shape| if shape.1 <= room.memory_bytes { shape.2 } else { 0 }).sum()
    }
}

fn signed(waste: u64) -> i64 {
    i64::try_from(waste).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
