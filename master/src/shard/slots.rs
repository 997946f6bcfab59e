//! Which slot an agent has. Asked several times for each task that is placed, so it is one look into a flat table instead of a walk down a tree.

use protocol::AgentId;

/// Of so many places at most one is taken by each agent.
const PLACES_PER_AGENT: usize = 2;

/// The table: open addressing with linear probing (Knuth, The Art of Computer Programming, volume 3, 6.4, algorithm L). Nothing is ever taken out.
#[derive(Debug, Default)]
pub struct Slots {
    /// Who is where; a power of two of places, and at least half of them free.
    places: Vec<Option<(AgentId, u32)>>,
    count: usize,
}

impl Slots {
    /// The slot of an agent.
    #[must_use]
    pub fn get(&self, agent: AgentId) -> Option<u32> {
        if self.places.is_empty() {
            return None;
        }
        let mut at = self.first(agent);
        loop {
            match self.places[at] {
                Some((found, slot)) if found == agent => return Some(slot),
                Some(_) => at = (at + 1) % self.places.len(),
                None => return None,
            }
        }
    }

    /// An agent that has none yet gets this slot.
    pub fn insert(&mut self, agent: AgentId, slot: u32) {
        if (self.count + 1) * PLACES_PER_AGENT > self.places.len() {
            let larger = vec![None; (self.places.len() * 2).max(16)];
            let before = std::mem::replace(&mut self.places, larger);
            before.into_iter().flatten().for_each(|(agent, slot)| self.put(agent, slot));
        }
        self.put(agent, slot);
        self.count += 1;
    }

    fn put(&mut self, agent: AgentId, slot: u32) {
        let mut at = self.first(agent);
        while self.places[at].is_some() {
            at = (at + 1) % self.places.len();
        }
        self.places[at] = Some((agent, slot));
    }

    /// Where it is looked for first; nobody chooses an agent's id but the master that issued it. The upper half of a product with the golden ratio's fraction (multiplicative hashing, Knuth as above).
    fn first(&self, agent: AgentId) -> usize {
        let mixed = agent.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        usize::try_from(mixed).unwrap_or(0) & (self.places.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_agent_has_the_slot_that_it_was_given() {
        let mut slots = Slots::default();
        assert_eq!(slots.get(AgentId(0)), None);
        // Some alike in their lower bits, and some in their upper.
        let ids = (0..5_000_u64).map(|n| AgentId(if n % 2 == 0 { n << 40 } else { n }));
        for (slot, agent) in (0..).zip(ids.clone()) {
            slots.insert(agent, slot);
        }
        for (slot, agent) in (0..).zip(ids) {
            assert_eq!(slots.get(agent), Some(slot));
            assert_eq!(slots.get(AgentId(agent.0 ^ 1 << 62)), None);
        }
    }
}
