//! What the network does to messages between agents and masters, and from master to master: delays, cuts in one direction or both, connections that break and are
//! noticed at different times; in wild seeds also single messages lost, doubled and overtaken.

use crate::plan::Plan;
use crate::random::Random;
use protocol::Time;

/// A cut that lasts this long breaks the connection.
pub const IDLE_MS: u64 = 4_000;
/// The most that a message of a wild seed is late.
pub const LATE_MS: u64 = 3_000;

/// The most that a pulse is late.
pub const PULSE_LATE_MS: u64 = 600;

/// The direction of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From an agent to a master, or from a master to one with a higher number.
    Up,
    /// From a master to an agent, or from a master to one with a lower number.
    Down,
}

/// The line between one agent and one master, or between two masters.
#[derive(Clone, Debug)]
pub struct Line {
    /// Rises with each connection; a message of an older one never arrives.
    pub connection: u64,
    /// Whether there is one.
    pub up: bool,
    cut_until: [Time; 2],
    last: [Time; 2],
    wild: bool,
}

impl Line {
    /// A line between an agent and a master, without a connection.
    #[must_use]
    pub fn to_agent(plan: &Plan) -> Self {
        Self { wild: plan.wild, ..Self::between_masters() }
    }

    /// A line between two masters, without a connection.
    #[must_use]
    pub const fn between_masters() -> Self {
        Self { connection: 0, up: false, cut_until: [Time::ZERO; 2], last: [Time::ZERO; 2], wild: false }
    }

    /// Nothing passes in `way` until then.
    pub fn cut(&mut self, way: Way, until: Time) {
        let at = &mut self.cut_until[way as usize];
        *at = (*at).max(until);
    }

    /// Until when nothing passes in one of the ways.
    #[must_use]
    pub fn cut_until(&self) -> Time {
        self.cut_until[0].max(self.cut_until[1])
    }

    /// Whether nothing passes in `way` now.
    #[must_use]
    pub fn is_cut(&self, way: Way, now: Time) -> bool {
        self.cut_until[way as usize] > now
    }

    /// All is well from now on.
    pub fn heal(&mut self) {
        self.cut_until = [Time::ZERO; 2];
        self.wild = false;
    }

    /// When a message that is sent now arrives: never, once, or twice where it may.
    pub fn send(&mut self, random: &mut Random, now: Time, way: Way, once: bool) -> Vec<Time> {
        if !self.up {
            return vec![];
        }
        let cut = self.cut_until[way as usize];
        if self.wild && (cut > now || random.chance(15)) {
            return vec![];
        }
        let start = now.max(cut); // What a cut holds back is sent again until the connection breaks.
        let at = start + if random.chance(900) { random.between(0, 2) } else { random.between(0, 60) };
        if self.wild {
            let at = if random.chance(30) { at + random.between(1, LATE_MS) } else { at };
            return if random.chance(15) && !once { vec![at, at + random.between(0, LATE_MS)] } else { vec![at] };
        }
        let at = at.max(self.last[way as usize]);
        self.last[way as usize] = at;
        vec![at]
    }

    /// When something that is sent beside the connection now arrives: never, or at its own time, whatever was said before or after.
    pub fn pulse(&mut self, random: &mut Random, now: Time, way: Way) -> Vec<Time> {
        if !self.up || self.cut_until[way as usize] > now || random.chance(20) {
            return vec![];
        }
        vec![now + if random.chance(900) { random.between(0, 2) } else { random.between(0, PULSE_LATE_MS) }]
    }

    /// A connection is there.
    pub fn connect(&mut self, now: Time) {
        self.connection += 1;
        self.up = true;
        self.last = [now; 2];
    }
}
