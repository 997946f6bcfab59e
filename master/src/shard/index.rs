//! Which agent has room: a tree over the agents' slots, eight below each node, with the maximum of each kind of resource of each of them. Finds an agent
//! in O(log n) where the kinds go together, and never looks at agents one by one. The eight maxima of a kind lie side by side in one line of the
//! processor's cache, and of a kind that is not asked for nothing is read: what a search costs is the lines that it has to fetch.

use super::mask::Mask;
use protocol::devices::{Kind, reached_by};
use protocol::resources::DEVICES_MAX;
use protocol::{Name, Resources, Singles};

/// Nodes below one.
pub(super) const FAN: usize = 8;
/// Lanes before those of devices: attempts, then the plain kinds.
const PLAIN: usize = 5;
/// Most lanes.
const LANES_MAX: usize = PLAIN + DEVICES_MAX;

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

/// The index.
#[derive(Debug, Default)]
pub struct Index {
    /// How many slots it has room for: a power of two and at least [`FAN`], or 0.
    size: usize,
    /// Lanes of a node.
    lanes: usize,
    /// The lowest first: the rows of each node, one for each lane. The last has one node.
    levels: Vec<Vec<Row>>,
    /// The device of each lane from [`PLAIN`] on, and how many agents have it.
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
                self.widen();
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

    fn widen(&mut self) {
        let (before, lanes) = (self.lanes.max(PLAIN), PLAIN + self.devices.len());
        for level in &mut self.levels {
            let mut rows = vec![Row::default(); level.len() / before * lanes];
            for (old, new) in level.chunks_exact(before).zip(rows.chunks_exact_mut(lanes)) {
                new[..before].copy_from_slice(old);
            }
            *level = rows;
        }
        self.lanes = lanes;
    }

    fn grow(&mut self, slots: usize) {
        self.lanes = self.lanes.max(PLAIN);
        self.size = slots.next_power_of_two().max(FAN);
        let before = std::mem::take(&mut self.levels);
        self.levels = nodes_of(self.size).map(|nodes| vec![Row::default(); nodes * self.lanes]).collect();
        if let (Some(old), Some(new)) = (before.first(), self.levels.first_mut()) {
            new[..old.len()].copy_from_slice(old);
        }
        for level in 1..self.levels.len() {
            for (at, row) in self.levels[level - 1].clone().iter().enumerate() {
                let (node, lane) = (at / self.lanes, at % self.lanes);
                self.levels[level][node / FAN * self.lanes + lane].0[node % FAN] = row.most();
            }
        }
    }

    /// The agent in `slot` has this much free, and room for this many attempts; 0 where it is to get nothing. Of single devices that counts which one task
    /// can have at once.
    pub fn set(&mut self, slot: u32, attempts: u32, free: &Resources, singles: Option<&Singles>) {
        self.cover(slot);
        let mut has = [0; LANES_MAX];
        if attempts > 0 {
            has[..PLAIN].copy_from_slice(&plain(attempts, free));
            for (lane, (name, _)) in has[PLAIN..].iter_mut().zip(&self.devices) {
                let reach = singles.and_then(|singles| singles.kind(name)).map_or(u64::MAX, Kind::reach);
                *lane = free.device(name).min(reach);
            }
        }
        for (lane, has) in has.iter().enumerate().take(self.lanes) {
            let (mut at, mut has) = (slot as usize, *has);
            for level in &mut self.levels {
                let row = &mut level[at / FAN * self.lanes + lane];
                let before = std::mem::replace(&mut row.0[at % FAN], has);
                if before == has {
                    break;
                }
                (at, has) = (at / FAN, row.most());
            }
        }
    }

    /// There is a slot of this number, with nothing in it where it is new.
    pub fn cover(&mut self, slot: u32) {
        if slot as usize >= self.size {
            self.grow(slot as usize + 1);
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
        let mut needs = [(0, 0); LANES_MAX];
        let mut count = 0;
        let mut ask = |lane: usize, need: u64| {
            if need > 0 {
                needs[count] = (lane, need);
                count += 1;
            }
        };
        plain(1, shape).into_iter().enumerate().for_each(|(lane, need)| ask(lane, need));
        for device in &shape.devices {
            ask(PLAIN + self.devices.iter().position(|(name, _)| *name == device.name)?, reached_by(device));
        }
        let sought = Sought { needs: &needs[..count], mask };
        let top = self.levels.len().checked_sub(1)?;
        let start = start as usize % self.size;
        let found = self.descend(top, 0, start, &sought).or_else(|| if start > 0 { self.descend(top, 0, 0, &sought) } else { None });
        found.and_then(|slot| u32::try_from(slot).ok())
    }

    /// The first slot below a node, and not below `start`.
    fn descend(&self, level: usize, node: usize, start: usize, sought: &Sought<'_>) -> Option<usize> {
        let rows = &self.levels[level][node * self.lanes..(node + 1) * self.lanes];
        let mut fit = sought.mask.map_or(u8::MAX, |mask| mask.below(level, node));
        for (lane, need) in sought.needs {
            if fit == 0 {
                return None;
            }
            fit &= rows[*lane].have(*need);
        }
        // Those before the one that `start` is below.
        let first = (start >> (FAN.ilog2() as usize * level)).saturating_sub(node * FAN);
        fit &= u8::MAX.checked_shl(u32::try_from(first).unwrap_or(u32::MAX)).unwrap_or(0);
        while fit > 0 {
            let at = node * FAN + fit.trailing_zeros() as usize;
            fit &= fit - 1;
            let found = if level == 0 { Some(at) } else { self.descend(level - 1, at, start, sought) };
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

/// What is looked for.
struct Sought<'a> {
    /// So much of each of these lanes.
    needs: &'a [(usize, u64)],
    mask: Option<&'a Mask>,
}

fn plain(attempts: u32, amount: &Resources) -> [u64; PLAIN] {
    [u64::from(attempts), amount.cpu_milli, amount.memory_bytes, amount.disk_bytes, u64::from(amount.ports)]
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
        Resources { cpu_milli: draws.below(most), memory_bytes: draws.below(most), disk_bytes: 0, ports: draws.below(3) as u32, devices }
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
