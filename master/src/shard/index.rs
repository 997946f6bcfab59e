//! Which agent has room: a tree over the agents' slots, eight below each node, with the maximum of each kind of resource of each of them. Finds an agent
//! in O(log n) where the kinds go together, and never looks at agents one by one. The eight maxima of a kind lie side by side in one line of the
//! processor's cache, and of a kind that is not asked for nothing is read: what a search costs is the lines that it has to fetch.
//!
//! In a cluster that is nearly full one agent has the processors left and another the memory, and a node that has the maximum of each says nothing of
//! whether one agent has both. So above the lowest level a node also has maxima of both kinds together: of the smaller of what an agent has of memory and
//! what its processors are worth in memory, at a few rates. Who fits has at least what the task's two amounts make at each rate; and at a rate near the
//! task's own hardly anybody else has. For each kind of device it has the processors of those that have some of it. All this only leaves out what cannot
//! fit: the lowest level decides, by what each agent has.

use super::mask::Mask;
use protocol::devices::{Kind, reached_by};
use protocol::resources::DEVICES_MAX;
use protocol::{Name, Resources, Singles};
use std::ops::Range;

/// Nodes below one.
pub(super) const FAN: usize = 8;
/// Plain kinds: [`CPU`], [`MEMORY`], disk, ports, and places for attempts.
const PLAIN: usize = 5;
const CPU: usize = 0;
const MEMORY: usize = 1;
const ATTEMPTS: usize = 4;
/// Rates at which processors and memory are looked at together: 1, 2, 4, 8, 16 and 32 GiB for a core.
const RATES: usize = 6;
/// Bytes that a thousandth of a core is worth at the first of them; at each next one twice as many.
const RATE_BYTES: u64 = (1 << 30) / 1_000 + 1;
/// A task is near a rate whose processors are worth no more than this part of them above its memory.
const NEAR: u64 = 16;

/// Lanes of a node: at the lowest level the plain kinds, then the devices; above it the rates, the plain kinds, and for each device two. An even number,
/// since a processor fetches two lines beside each other nearly as one.
const fn lanes_of(level: usize, devices: usize) -> usize {
    if level == 0 { (PLAIN + devices).next_multiple_of(2) } else { UPPER_DEVICES + 2 * devices }
}

/// Where the plain kinds and the devices begin above the lowest level.
const UPPER_PLAIN: usize = RATES;
const UPPER_DEVICES: usize = (RATES + PLAIN).next_multiple_of(2);
/// Most lanes.
const LEAF_MAX: usize = lanes_of(0, DEVICES_MAX);
const UPPER_MAX: usize = lanes_of(1, DEVICES_MAX);

/// Of one kind what each of the eight below a node has at the most.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Row([u64; FAN]);

impl Row {
    fn most(&self) -> u64 {
        self.0.iter().copied().fold(0, u64::max)
    }

    /// Which of them have so much, a bit for each.
    fn have(&self, need: u64) -> u8 {
        self.0.iter().enumerate().fold(0, |bits, (at, most)| bits | u8::from(*most >= need) << at)
    }
}

/// What so much of both is at a rate.
fn together(cpu_milli: u64, memory_bytes: u64, rate: usize) -> u64 {
    (cpu_milli.saturating_mul(RATE_BYTES).min(u64::MAX >> RATES) << rate).min(memory_bytes)
}

/// The index.
#[derive(Debug, Default)]
pub struct Index {
    /// How many slots it has room for: a power of two and at least [`FAN`], or 0.
    size: usize,
    /// The lowest first: the rows of each node, one for each lane. The last has one node.
    levels: Vec<Vec<Row>>,
    /// The device of each lane, and how many agents have it.
    devices: Vec<(Name, u32)>,
}

/// How many nodes there are of each level above so many slots, the lowest first.
pub(super) fn nodes_of(size: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(size.div_ceil(FAN)), |nodes| (*nodes > 1).then(|| nodes.div_ceil(FAN)))
}

impl Index {
    /// An agent has these devices from now on: they get lanes. At most [`DEVICES_MAX`] kinds in one shard; more are not offered.
    pub fn learn(&mut self, capacity: &Resources) {
        for device in &capacity.devices {
            if let Some(known) = self.devices.iter_mut().find(|(name, _)| *name == device.name) {
                known.1 += 1;
            } else if let Some(unused) = self.devices.iter_mut().find(|(_, agents)| *agents == 0) {
                *unused = (device.name.clone(), 1);
            } else if self.devices.len() < DEVICES_MAX {
                self.devices.push((device.name.clone(), 1));
                self.rebuild(self.size, self.devices.len() - 1);
            }
        }
    }

    /// The same amounts, with the names of devices that others have too: so they are found alike without being read.
    #[must_use]
    pub fn named(&self, amounts: &Resources) -> Resources {
        let mut amounts = amounts.clone();
        for device in &mut amounts.devices {
            if let Some((name, _)) = self.devices.iter().find(|(name, _)| *name == device.name) {
                device.name.clone_from(name);
            }
        }
        amounts
    }

    /// An agent has these devices no longer. Its slot is cleared before.
    pub fn unlearn(&mut self, capacity: &Resources) {
        for device in &capacity.devices {
            if let Some(known) = self.devices.iter_mut().find(|(name, _)| *name == device.name) {
                known.1 = known.1.saturating_sub(1);
            }
        }
    }

    /// Makes it this large, with as many lanes as it has devices now; it had so many before.
    fn rebuild(&mut self, size: usize, devices_before: usize) {
        let (before, lanes) = (lanes_of(0, devices_before), lanes_of(0, self.devices.len()));
        let agents = std::mem::take(&mut self.levels).into_iter().next().unwrap_or_default();
        self.size = size;
        let levels = nodes_of(size).filter(|_| size > 0).enumerate();
        self.levels = levels.map(|(level, nodes)| vec![Row::default(); nodes * lanes_of(level, self.devices.len())]).collect();
        for (node, rows) in agents.chunks_exact(before).enumerate() {
            self.levels[0][node * lanes..][..before.min(lanes)].copy_from_slice(&rows[..before.min(lanes)]);
            self.raise(node, u64::MAX);
        }
    }

    /// The agent in `slot` has this much free, and room for this many attempts; 0 where it is to get nothing. Of single devices that counts which one task
    /// can have at once.
    pub fn set(&mut self, slot: u32, attempts: u32, free: &Resources, singles: Option<&Singles>) {
        self.cover(slot);
        let mut has = [0; LEAF_MAX];
        if attempts > 0 {
            has[..PLAIN].copy_from_slice(&plain(attempts, free));
            for (lane, (name, _)) in has[PLAIN..].iter_mut().zip(&self.devices) {
                let reach = singles.and_then(|singles| singles.kind(name)).map_or(u64::MAX, Kind::reach);
                *lane = free.device(name).min(reach);
            }
        }
        let (node, at, lanes) = (slot as usize / FAN, slot as usize % FAN, PLAIN + self.devices.len());
        let rows = &mut self.levels[0][node * lanes_of(0, self.devices.len())..][..lanes];
        let mut changed = 0;
        for (lane, (row, has)) in rows.iter_mut().zip(has).enumerate() {
            changed |= u64::from(std::mem::replace(&mut row.0[at], has) != has) << lane;
        }
        if changed > 0 {
            self.raise(node, changed);
        }
    }

    /// Has the nodes above a lowest one know what it has now, of which these lanes are others than before.
    fn raise(&mut self, node: usize, changed: u64) {
        let Some((agents, above)) = self.levels.split_first_mut() else { return };
        let rows = &agents[node * lanes_of(0, self.devices.len())..][..PLAIN + self.devices.len()];
        let (plain, devices) = rows.split_at(PLAIN);
        let (cpu, memory) = (&plain[CPU].0, &plain[MEMORY].0);
        let has_changed = |lane: usize| changed >> lane & 1 == 1;
        let mut raised = [(0, 0); UPPER_MAX];
        let mut count = 0;
        let mut raise = |lane: usize, most: u64| {
            raised[count] = (lane, most);
            count += 1;
        };
        if has_changed(CPU) || has_changed(MEMORY) {
            for rate in 0..RATES {
                let both = cpu.iter().zip(memory).map(|(cpu, memory)| together(*cpu, *memory, rate));
                raise(rate, both.fold(0, u64::max));
            }
        }
        plain.iter().enumerate().filter(|(lane, _)| has_changed(*lane)).for_each(|(lane, row)| raise(UPPER_PLAIN + lane, row.most()));
        for (at, row) in devices.iter().enumerate() {
            if has_changed(PLAIN + at) {
                raise(UPPER_DEVICES + 2 * at, row.most());
            }
            if has_changed(PLAIN + at) || has_changed(CPU) {
                let beside = row.0.iter().zip(cpu).map(|(device, cpu)| if *device > 0 { *cpu } else { 0 });
                raise(UPPER_DEVICES + 2 * at + 1, beside.fold(0, u64::max));
            }
        }
        let lanes = lanes_of(1, self.devices.len());
        for (lane, most) in &raised[..count] {
            let (mut at, mut most) = (node, *most);
            for level in above.iter_mut() {
                let row = &mut level[at / FAN * lanes + lane];
                if std::mem::replace(&mut row.0[at % FAN], most) == most {
                    break;
                }
                (at, most) = (at / FAN, row.most());
            }
        }
    }

    /// There is a slot of this number, with nothing in it where it is new.
    pub fn cover(&mut self, slot: u32) {
        if slot as usize >= self.size {
            self.rebuild((slot as usize + 1).next_power_of_two().max(FAN), self.devices.len());
        }
    }

    /// How many slots it has room for.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// The first slot from `start` on, and then from 0, whose agent has room for one of `shape` and is in `mask`, where there is one.
    #[must_use]
    pub fn find(&self, shape: &Resources, start: u32, mask: Option<&Mask>) -> Option<u32> {
        let start = start as usize % self.size.max(1);
        let sought = Sought::new(shape, &self.devices, mask)?;
        let mut found = None;
        let mut first = |slot| {
            found = Some(slot);
            true
        };
        let _ = self.seek(start..self.size, &sought, &mut first) || self.seek(0..start, &sought, &mut first);
        found
    }

    /// Shows the slots from the first on whose agents have room for one of `shape` and are in `mask`, where there is one, until `is_enough` says so.
    pub fn each(&self, shape: &Resources, mask: Option<&Mask>, mut is_enough: impl FnMut(u32) -> bool) {
        if let Some(sought) = Sought::new(shape, &self.devices, mask) {
            self.seek(0..self.size, &sought, &mut is_enough);
        }
    }

    /// Shows the slots in `range`; true where one of them was enough.
    fn seek(&self, range: Range<usize>, sought: &Sought<'_>, is_enough: &mut impl FnMut(u32) -> bool) -> bool {
        let top = self.levels.len().checked_sub(1).filter(|_| !range.is_empty());
        top.is_some_and(|top| self.descend((top, 0), &range, sought, is_enough))
    }

    /// Shows the slots below a node of a level that are in `range`; true where one was enough.
    fn descend(
        &self,
        (level, node): (usize, usize),
        range: &Range<usize>,
        sought: &Sought<'_>,
        is_enough: &mut impl FnMut(u32) -> bool,
    ) -> bool {
        let lanes = lanes_of(level, self.devices.len());
        let rows = &self.levels[level][node * lanes..][..lanes];
        let mut fit = sought.mask.map_or(u8::MAX, |mask| mask.below(level, node));
        for (lane, need) in if level == 0 { sought.of_agents.as_slice() } else { sought.above.as_slice() } {
            fit &= rows[*lane].have(*need);
        }
        // Neither those before the one that the first of the range is below, nor those after the one that its last is.
        let below = |slot: usize| u32::try_from((slot >> (FAN.ilog2() as usize * level)).saturating_sub(node * FAN)).unwrap_or(u32::MAX);
        fit &= u8::MAX.checked_shl(below(range.start)).unwrap_or(0);
        fit &= !(u8::MAX.checked_shl(below(range.end - 1).saturating_add(1)).unwrap_or(0));
        while fit > 0 {
            let at = node * FAN + fit.trailing_zeros() as usize;
            fit &= fit - 1;
            let enough = if level == 0 {
                is_enough(u32::try_from(at).expect("AGENTS_MAX fits"))
            } else {
                self.descend((level - 1, at), range, sought, is_enough)
            };
            if enough {
                return true;
            }
        }
        false
    }
}

/// So much of each of some lanes.
struct Needs<const MAX: usize> {
    list: [(usize, u64); MAX],
    count: usize,
}

impl<const MAX: usize> Needs<MAX> {
    const NONE: Self = Self { list: [(0, 0); MAX], count: 0 };

    fn ask(&mut self, lane: usize, need: u64) {
        if need > 0 {
            self.list[self.count] = (lane, need);
            self.count += 1;
        }
    }

    fn as_slice(&self) -> &[(usize, u64)] {
        &self.list[..self.count]
    }
}

/// What is looked for.
struct Sought<'a> {
    of_agents: Needs<LEAF_MAX>,
    above: Needs<UPPER_MAX>,
    mask: Option<&'a Mask>,
}

impl<'a> Sought<'a> {
    /// Room for one of `shape`; `None` where nobody has such devices.
    fn new(shape: &Resources, devices: &[(Name, u32)], mask: Option<&'a Mask>) -> Option<Self> {
        let (mut of_agents, mut above) = (Needs::NONE, Needs::NONE);
        let needs = plain(0, shape);
        let (cpu, memory) = (needs[CPU], needs[MEMORY]);
        // The first rate at which the task's memory decides, and who has that much has the memory; at the one before its processors do.
        let rate = (0..RATES).find(|rate| together(cpu, memory, *rate) == memory);
        let by_cpu = rate.unwrap_or(RATES).checked_sub(1);
        // Where the task is of that rate nearly, who has the memory there has the processors nearly.
        let is_near = rate.is_some_and(|rate| together(cpu - cpu.div_ceil(NEAR), memory, rate) < memory);
        rate.into_iter().chain(by_cpu.filter(|_| !is_near)).for_each(|rate| above.ask(rate, together(cpu, memory, rate)));
        let said = [rate.map(|_| MEMORY), by_cpu.map(|_| CPU)];
        for (lane, need) in needs.into_iter().enumerate() {
            of_agents.ask(lane, need);
            if !said.contains(&Some(lane)) {
                above.ask(UPPER_PLAIN + lane, need);
            }
        }
        for device in &shape.devices {
            let at = devices.iter().position(|(name, _)| *name == device.name)?;
            of_agents.ask(PLAIN + at, reached_by(device));
            above.ask(UPPER_DEVICES + 2 * at, reached_by(device));
            above.ask(UPPER_DEVICES + 2 * at + 1, cpu);
        }
        if of_agents.count == 0 {
            // Who has no place for an attempt has nothing of anything: that is asked only where nothing else is.
            of_agents.ask(ATTEMPTS, 1);
            above.ask(UPPER_PLAIN + ATTEMPTS, 1);
        }
        Some(Self { of_agents, above, mask })
    }
}

fn plain(attempts: u32, amount: &Resources) -> [u64; PLAIN] {
    [amount.cpu_milli, amount.memory_bytes, amount.disk_bytes, u64::from(amount.ports), u64::from(attempts)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Device;

    /// xorshift64 (Marsaglia, 2003).
    struct Draws(u64);
    impl Draws {
        fn below(&mut self, n: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % n
        }
    }

    fn draw(draws: &mut Draws, most: u64) -> Resources {
        let devices = match draws.below(4) {
            0 => vec![Device { name: Name::new(["gpu", "fpga", "tpu"][draws.below(3) as usize]).unwrap(), milli: 1 + draws.below(most) }],
            _ => vec![],
        };
        // Now near a rate, now far from all.
        let unit = [1, RATE_BYTES / 3, RATE_BYTES, 3 * RATE_BYTES, 20 * RATE_BYTES][draws.below(5) as usize];
        let memory_bytes = draws.below(most) * unit;
        Resources { cpu_milli: draws.below(most), memory_bytes, disk_bytes: 0, ports: draws.below(3) as u32, devices }
    }

    #[test]
    fn who_has_one_kind_and_who_has_the_other_are_not_taken_for_one_that_has_both() {
        let of = |cpu_milli, gib: u64| Resources { cpu_milli, memory_bytes: gib << 30, ..Resources::NONE };
        let mut index = Index::default();
        for slot in 0..1_000 {
            let has = if slot % 2 == 0 { of(8_000, 1) } else { of(500, 32) };
            index.set(slot, 1, &has, None);
        }
        let shown = |need: &Resources| {
            let sought = Sought::new(need, &[], None).unwrap();
            let rows = &index.levels[1][..lanes_of(1, 0)];
            sought.above.as_slice().iter().fold(u8::MAX, |fit, (lane, need)| fit & rows[*lane].have(*need))
        };
        assert_eq!((shown(&of(4_000, 1)), shown(&of(500, 16))), (u8::MAX, u8::MAX));
        for need in [of(4_000, 4), of(4_000, 16), of(4_000, 32), of(1_000, 8), of(2_000, 5)] {
            assert_eq!((shown(&need), index.find(&need, 0, None)), (0, None), "{need:?}");
        }
        index.set(700, 1, &of(4_000, 16), None);
        assert_eq!(index.find(&of(4_000, 16), 0, None), Some(700));
    }

    #[test]
    fn the_index_agrees_with_a_scan() {
        for seed in 1..20 {
            let mut draws = Draws(seed * 0x9e37_79b9);
            let mut index = Index::default();
            let mut free: Vec<(u32, Resources)> = Vec::new();
            let mut masked: Vec<bool> = Vec::new();
            for step in 0..900 {
                let slot = draws.below(free.len() as u64 + 1) as usize;
                let amount = draw(&mut draws, 100);
                if slot == free.len() {
                    free.push((0, Resources::NONE));
                    masked.push(draws.below(2) == 0);
                } else {
                    index.set(slot as u32, 0, &Resources::NONE, None);
                    index.unlearn(&free[slot].1);
                }
                index.learn(&amount);
                free[slot] = (draws.below(3) as u32, amount);
                index.set(slot as u32, free[slot].0, &free[slot].1, None);
                let (need, start) = (draw(&mut draws, 120), draws.below(free.len() as u64) as usize);
                let fits = |slot: &usize| free[*slot].0 > 0 && free[*slot].1.contains(&need);
                let scan = (start..free.len()).chain(0..free.len()).find(fits);
                assert_eq!(index.find(&need, start as u32, None).map(|slot| slot as usize), scan, "seed {seed}, step {step}");
                let mut mask = Mask::new(index.size());
                masked.iter().enumerate().for_each(|(slot, is_in)| mask.set(slot as u32, *is_in));
                let scan = (start..free.len()).chain(0..free.len()).find(|slot| masked[*slot] && fits(slot));
                assert_eq!(index.find(&need, start as u32, Some(&mask)).map(|slot| slot as usize), scan, "seed {seed}, step {step}");
            }
        }
    }
}
