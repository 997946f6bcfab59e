//! Which agent has room: a tournament tree over the agents' slots with the maximum of each kind of resource in each node. Finds an agent
//! in O(log n) where the kinds go together, and never looks at agents one by one.

use super::mask::Mask;
use protocol::devices::{Kind, reached_by};
use protocol::resources::DEVICES_MAX;
use protocol::{Name, Resources, Singles};

/// Lanes before those of devices: attempts, then the plain kinds.
const PLAIN: usize = 5;
/// Most lanes.
const LANES_MAX: usize = PLAIN + DEVICES_MAX;

/// The index.
#[derive(Debug, Default)]
pub struct Index {
    /// How many slots the lowest row has: a power of two, or 0.
    size: usize,
    /// Lanes of a node.
    lanes: usize,
    /// Two rows of nodes for each power, the root at 1.
    nodes: Vec<u64>,
    /// The device of each lane from [`PLAIN`] on, and how many agents have it.
    devices: Vec<(Name, u32)>,
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
        let mut nodes = vec![0; 2 * self.size * lanes];
        for (old, new) in self.nodes.chunks_exact(before).zip(nodes.chunks_exact_mut(lanes)) {
            new[..before].copy_from_slice(old);
        }
        (self.nodes, self.lanes) = (nodes, lanes);
    }

    fn grow(&mut self, slots: usize) {
        self.lanes = self.lanes.max(PLAIN);
        let (before, lanes) = (self.size, self.lanes);
        let leaves: Vec<u64> = self.nodes[before * lanes..].to_vec();
        self.size = slots.next_power_of_two().max(2);
        self.nodes = vec![0; 2 * self.size * lanes];
        let first = self.size * lanes;
        self.nodes[first..first + leaves.len()].copy_from_slice(&leaves);
        for node in (1..self.size).rev() {
            self.pull(node);
        }
    }

    fn pull(&mut self, node: usize) -> bool {
        let lanes = self.lanes;
        let mut changed = false;
        for lane in 0..lanes {
            let most = self.nodes[2 * node * lanes + lane].max(self.nodes[(2 * node + 1) * lanes + lane]);
            changed |= self.nodes[node * lanes + lane] != most;
            self.nodes[node * lanes + lane] = most;
        }
        changed
    }

    /// The agent in `slot` has this much free, and room for this many attempts; 0 where it is to get nothing. Of single devices that counts which one task
    /// can have at once.
    pub fn set(&mut self, slot: u32, attempts: u32, free: &Resources, singles: Option<&Singles>) {
        let slot = slot as usize;
        if slot >= self.size {
            self.grow(slot + 1);
        }
        let mut row = [0; LANES_MAX];
        if attempts > 0 {
            row[..PLAIN].copy_from_slice(&plain(attempts, free));
            for (lane, (name, _)) in row[PLAIN..].iter_mut().zip(&self.devices) {
                let reach = singles.and_then(|singles| singles.kind(name)).map_or(u64::MAX, Kind::reach);
                *lane = free.device(name).min(reach);
            }
        }
        let lanes = self.lanes;
        let mut node = self.size + slot;
        self.nodes[node * lanes..(node + 1) * lanes].copy_from_slice(&row[..lanes]);
        while node > 1 {
            node /= 2;
            if !self.pull(node) {
                break;
            }
        }
    }

    /// There is a slot of this number, with nothing in it where it is new.
    pub fn cover(&mut self, slot: u32) {
        if slot as usize >= self.size {
            self.grow(slot as usize + 1);
        }
    }

    /// How many slots the lowest row has.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// The first slot from `start` on, and then from 0, whose agent has room for one of `shape` and is in `mask`, where there is one.
    #[must_use]
    pub fn find(&self, shape: &Resources, start: u32, mask: Option<&Mask>) -> Option<u32> {
        let mut need = [0; LANES_MAX];
        need[..PLAIN].copy_from_slice(&plain(1, shape));
        for device in &shape.devices {
            let lane = self.devices.iter().position(|(name, _)| *name == device.name)?;
            need[PLAIN + lane] = reached_by(device);
        }
        if self.size == 0 {
            return None;
        }
        let start = start as usize % self.size;
        let sought = |start| Sought { start, need, mask };
        let found = self.descend(1, (0, self.size), &sought(start)).or_else(|| self.descend(1, (0, self.size), &sought(0)));
        found.and_then(|slot| u32::try_from(slot).ok())
    }

    /// Below `node`, whose slots are so many from the first of them.
    fn descend(&self, node: usize, (low, width): (usize, usize), sought: &Sought<'_>) -> Option<usize> {
        let lanes = self.lanes;
        let most = &self.nodes[node * lanes..(node + 1) * lanes];
        let masked = sought.mask.is_some_and(|mask| !mask.has(node));
        if masked || low + width <= sought.start || most.iter().zip(&sought.need).any(|(most, need)| most < need) {
            return None;
        }
        if width == 1 {
            return Some(low);
        }
        let half = width / 2;
        self.descend(2 * node, (low, half), sought).or_else(|| self.descend(2 * node + 1, (low + half, half), sought))
    }
}

/// What is looked for.
struct Sought<'a> {
    start: usize,
    need: [u64; LANES_MAX],
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
            for step in 0..400 {
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
