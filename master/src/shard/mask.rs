//! A set of agents' slots as a tree with eight bits in each node, one for each below it: some agent there is one of them. Shaped as the index's, so that
//! both are descended together.

use super::index::{FAN, nodes_of};

/// The set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    /// How many slots it has room for: as the index has.
    size: usize,
    /// The lowest first: the bits of each node.
    levels: Vec<Vec<u8>>,
}

impl Mask {
    /// Nobody, of an index of this size.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self { size, levels: nodes_of(size).filter(|_| size > 0).map(|nodes| vec![0; nodes]).collect() }
    }

    /// Below which of the eight below a node some slot is in it, a bit for each.
    #[must_use]
    pub fn below(&self, level: usize, node: usize) -> u8 {
        self.levels.get(level).and_then(|level| level.get(node)).copied().unwrap_or(0)
    }

    /// True where this slot is in it.
    #[must_use]
    pub fn has_slot(&self, slot: u32) -> bool {
        self.below(0, slot as usize / FAN) >> (slot as usize % FAN) & 1 == 1
    }

    /// Puts a slot in or takes it out.
    pub fn set(&mut self, slot: u32, is_in: bool) {
        let (mut at, mut is_in) = (slot as usize, is_in);
        for level in &mut self.levels {
            let Some(bits) = level.get_mut(at / FAN) else { return };
            let bit = 1 << (at % FAN);
            if (*bits & bit > 0) == is_in {
                return;
            }
            *bits ^= bit;
            (at, is_in) = (at / FAN, *bits > 0);
        }
    }

    /// The same of an index of this size, which is larger.
    pub fn grow(&mut self, size: usize) {
        if size <= self.size {
            return;
        }
        let before = std::mem::replace(self, Self::new(size));
        for slot in (0..u32::try_from(before.size).expect("AGENTS_MAX fits")).filter(|slot| before.has_slot(*slot)) {
            self.set(slot, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_what_is_below_it() {
        let mut mask = Mask::new(2);
        let mut slots = [false; 300];
        let mut draw = 7u64;
        for step in 0..3_000 {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let slot = ((draw >> 33) % (step / 10 + 1)) as usize;
            mask.grow((slot + 1).next_power_of_two().max(FAN));
            slots[slot] = draw >> 40 & 1 == 1;
            mask.set(slot as u32, slots[slot]);
            let level = (draw >> 50) as usize % mask.levels.len();
            let node = (draw >> 53) as usize % mask.levels[level].len();
            let width = FAN.pow(u32::try_from(level).unwrap());
            let below = |at: &usize| (at * width..(at + 1) * width).any(|slot| slots.get(slot) == Some(&true));
            let bits = (0..FAN).filter(|at| below(&(node * FAN + at))).fold(0, |bits, at| bits | 1 << at);
            assert_eq!(mask.below(level, node), bits, "step {step}");
        }
        assert!(!mask.has_slot(99_999));
    }
}
