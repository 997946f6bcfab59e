//! A set of agents' slots as a tree with a bit in each node: some agent below is one of them. Shaped as the index's, so that both are descended
//! together.

/// The set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    /// How many slots the lowest row has: a power of two, or 0.
    size: usize,
    /// Two rows of bits for each power, the root at 1.
    bits: Vec<u64>,
}

impl Mask {
    /// Nobody, of an index of this size.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self { size, bits: vec![0; (2 * size).div_ceil(64)] }
    }

    /// True where some slot below this node is in it.
    #[must_use]
    pub fn has(&self, node: usize) -> bool {
        self.bits.get(node / 64).is_some_and(|bits| bits >> (node % 64) & 1 == 1)
    }

    /// True where this slot is in it.
    #[must_use]
    pub fn has_slot(&self, slot: u32) -> bool {
        (slot as usize) < self.size && self.has(self.size + slot as usize)
    }

    /// Puts a slot in or takes it out.
    pub fn set(&mut self, slot: u32, is_in: bool) {
        let mut node = self.size + slot as usize;
        if slot as usize >= self.size || self.has(node) == is_in {
            return;
        }
        self.put(node, is_in);
        while node > 1 {
            node /= 2;
            let below = self.has(2 * node) || self.has(2 * node + 1);
            if self.has(node) == below {
                break;
            }
            self.put(node, below);
        }
    }

    fn put(&mut self, node: usize, is_in: bool) {
        let bit = 1 << (node % 64);
        if is_in { self.bits[node / 64] |= bit } else { self.bits[node / 64] &= !bit }
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
            mask.grow((slot + 1).next_power_of_two().max(2));
            slots[slot] = draw >> 40 & 1 == 1;
            mask.set(slot as u32, slots[slot]);
            let (size, node) = (mask.size, 1 + (draw >> 50) as usize % (2 * mask.size - 1));
            let width = size >> node.ilog2();
            let low = (node - (1 << node.ilog2())) * width;
            assert_eq!(mask.has(node), (low..low + width).any(|slot| slots.get(slot) == Some(&true)), "step {step}");
        }
        assert!(!mask.has_slot(99_999));
    }
}
