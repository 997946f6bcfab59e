//! Who gets a task: the policies that are compared. Random, best fit and FGD are those of Weng et al. (USENIX ATC 2023) as their simulator has
//! them (github.com/hkust-adsl/kubernetes-scheduler-simulator, `pkg/simulator/plugin`): scores are cut to whole numbers, and of equals the
//! agent that comes first in an order drawn once is taken. Ours is [`crate::trace::fit`].

use crate::random::Random;
use crate::trace::fit::{Demand, Need, Room};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Shapes that make up this part of a trace are FGD's typical ones, in percent.
const TYPICAL_PERCENT: u64 = 95;
/// What best fit measures CPU and devices by: the largest agent there may be.
const CPU_MILLI_MOST: f64 = 128_000.0;
const DEVICES_MILLI_MOST: f64 = 8_000.0;

/// A policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// Any agent with room.
    Random,
    /// The agent with the least left.
    BestFit,
    /// The agent whose fragmentation grows least, for the typical shapes of the whole trace.
    Fgd,
    /// The real shard, which decides itself.
    Shard,
    /// [`Demand::choose`], as the shard has it, alone: of the first so many agents with room, for the shapes seen so far.
    Ours {
        /// How many.
        candidates: usize,
    },
}

impl Policy {
    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::BestFit => "bestfit",
            Self::Fgd => "fgd",
            Self::Shard => "skep",
            Self::Ours { .. } => "fit",
        }
    }
}

/// Agents, and a policy that gives them tasks.
pub struct Placer {
    policy: Policy,
    agents: Vec<Room>,
    random: Random,
    demand: Demand,
    typical: Vec<(f64, Need)>,
    shapes: BTreeMap<Need, usize>,
    /// By agent and shape: score and devices, where they were computed since the agent changed last.
    scores: Vec<Vec<Option<(i64, u16)>>>,
    fragments: Vec<Option<f64>>,
    candidates: Vec<Room>,
    slots: Vec<usize>,
}

impl Placer {
    /// With these agents, in the order in which equals are taken; FGD knows all of `needs` from the start.
    #[must_use]
    pub fn new(policy: Policy, agents: Vec<Room>, needs: &[Need], random: Random) -> Self {
        let mut counts: BTreeMap<Need, u64> = BTreeMap::new();
        needs.iter().for_each(|need| *counts.entry(*need).or_default() += 1);
        let shapes: BTreeMap<Need, usize> = counts.keys().copied().zip(0..).collect();
        Self {
            policy,
            random,
            demand: Demand::default(),
            typical: typical(needs),
            scores: vec![vec![None; shapes.len()]; agents.len()],
            fragments: vec![None; agents.len()],
            shapes,
            agents,
            candidates: Vec::new(),
            slots: Vec::new(),
        }
    }

    /// A task was asked for.
    pub fn asked(&mut self, need: &Need) {
        self.demand.learn(need, 1);
    }

    /// The agent and devices for a task; `None` where it fits on none.
    pub fn choose(&mut self, need: &Need) -> Option<(usize, u16)> {
        match self.policy {
            Policy::Random => self.any(need),
            Policy::BestFit => {
                self.highest(need, |placer, agent| (best_fit(&placer.agents[agent], need), tightest(&placer.agents[agent], need)))
            }
            Policy::Fgd => self.highest(need, |placer, agent| placer.fgd(agent, need)),
            Policy::Ours { candidates } => self.ours(need, candidates),
            Policy::Shard => None,
        }
    }

    /// A task is there from now on.
    pub fn take(&mut self, agent: usize, need: &Need, devices: u16) {
        self.agents[agent] = self.agents[agent].without(need, devices);
        self.changed(agent);
    }

    /// It is not any longer.
    pub fn give_back(&mut self, agent: usize, need: &Need, devices: u16) {
        self.agents[agent] = self.agents[agent].with(need, devices);
        self.changed(agent);
    }

    fn changed(&mut self, agent: usize) {
        self.scores[agent].fill(None);
        self.fragments[agent] = None;
    }

    fn any(&mut self, need: &Need) -> Option<(usize, u16)> {
        let fitting: Vec<usize> = (0..self.agents.len()).filter(|agent| self.agents[*agent].fits(need)).collect();
        let agent = *fitting.get(self.random.below(fitting.len().max(1) as u64) as usize)?;
        let ways: Vec<u16> = self.agents[agent].ways(need).collect();
        Some((agent, ways[self.random.below(ways.len() as u64) as usize]))
    }

    /// The first agent with the highest score.
    fn highest(&mut self, need: &Need, score: impl Fn(&mut Self, usize) -> (i64, u16)) -> Option<(usize, u16)> {
        let shape = self.shapes.get(need).copied()?;
        let mut best: Option<(i64, usize, u16)> = None;
        for agent in 0..self.agents.len() {
            if !self.agents[agent].fits(need) {
                continue;
            }
            let (points, devices) = self.scores[agent][shape].unwrap_or_else(|| score(self, agent));
            self.scores[agent][shape] = Some((points, devices));
            if best.is_none_or(|(most, _, _)| points > most) {
                best = Some((points, agent, devices));
            }
        }
        best.map(|(_, agent, devices)| (agent, devices))
    }

    fn fgd(&mut self, agent: usize, need: &Need) -> (i64, u16) {
        let room = self.agents[agent];
        let before = *self.fragments[agent].get_or_insert_with(|| fragments(&room, &self.typical));
        let mut best: Option<(i64, u16)> = None;
        for devices in room.ways(need) {
            let gradient = (before - fragments(&room.without(need, devices), &self.typical)) / 1_000.0;
            let points = (100.0 / (1.0 + (-gradient).exp())) as i64;
            if best.is_none_or(|(most, _)| points > most) {
                best = Some((points, devices));
            }
        }
        best.expect("an agent with room has a way")
    }

    fn ours(&mut self, need: &Need, candidates: usize) -> Option<(usize, u16)> {
        self.candidates.clear();
        self.slots.clear();
        // An index finds them one after the other; here it is a scan, which is not what is measured.
        for (slot, room) in self.agents.iter().enumerate().filter(|(_, room)| room.fits(need)).take(candidates) {
            self.candidates.push(*room);
            self.slots.push(slot);
        }
        let spot = self.demand.choose(need, &self.candidates)?;
        Some((self.slots[spot.candidate], spot.devices))
    }

    /// The agents as they are.
    #[must_use]
    pub fn agents(&self) -> &[Room] {
        &self.agents
    }
}

/// As `getBestFitScore`: 100 less what would be left, as a mean of CPU and devices.
fn best_fit(room: &Room, need: &Need) -> i64 {
    let cpu = (room.cpu_milli - need.cpu_milli) as f64 / CPU_MILLI_MOST;
    let devices = room.free_milli() as f64 - f64::from(need.devices) * f64::from(need.milli);
    ((1.0 - 0.5 * cpu - 0.5 * devices / DEVICES_MILLI_MOST) * 100.0) as i64
}

/// The device with the least that is enough.
fn tightest(room: &Room, need: &Need) -> u16 {
    room.ways(need).min_by_key(|devices| room.milli.get(devices.trailing_zeros() as usize).copied()).expect("an agent with room has a way")
}

/// As `GetTypicalPods`: the most frequent shapes, without memory, that make up [`TYPICAL_PERCENT`].
fn typical(needs: &[Need]) -> Vec<(f64, Need)> {
    let mut counts: BTreeMap<Need, u64> = BTreeMap::new();
    needs.iter().for_each(|need| *counts.entry(Need { memory_bytes: 0, ..*need }).or_default() += 1);
    let mut sorted: Vec<(u64, Need)> = counts.into_iter().map(|(need, count)| (count, need)).collect();
    sorted.sort_unstable_by_key(|(count, need)| Reverse((*count, need.cpu_milli)));
    let mut sum = 0;
    let enough = |(count, _): &(u64, Need)| {
        let goes_on = sum * 100 < needs.len() as u64 * TYPICAL_PERCENT;
        sum += if goes_on { *count } else { 0 };
        goes_on
    };
    let chosen: Vec<(u64, Need)> = sorted.into_iter().take_while(enough).collect();
    let all: u64 = chosen.iter().map(|(count, _)| count).sum();
    chosen.into_iter().map(|(count, need)| (count as f64 / all.max(1) as f64, need)).collect()
}

/// As `NodeGpuShareFragAmountScore`: thousandths of devices that a typical task could not use, as a mean; all, for tasks without devices.
fn fragments(room: &Room, typical: &[(f64, Need)]) -> f64 {
    let free = room.free_milli() as f64;
    let unusable = |need: &Need| {
        if need.devices == 0 || !room.fits(need) {
            return free;
        }
        room.each().iter().filter(|milli| **milli < need.milli).map(|milli| f64::from(*milli)).sum()
    };
    typical.iter().map(|(part, need)| part * unusable(need)).sum()
}
