//! The experiment of Weng et al. (USENIX ATC 2023, section 6.2): tasks of a trace in any order, none ending, until as much of devices has been
//! asked for as `ASKED_PERCENT` of the cluster's; what part of all devices is given away then. What does not fit when it comes is not tried again.

use super::policy::{Placer, Policy};
use super::read::{Task, Trace};
use super::real::Real;
use crate::random::Random;
use crate::trace::fit::{Need, Room};
use std::time::Duration;

/// So much is asked for, in percent of all devices.
pub const ASKED_PERCENT: u64 = 130;

/// How the tasks are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drawing {
    /// Each task of the trace once, and on top of them as many as are missing, any with replacement: what the published figures come from
    /// (`TunePodsByNodeTotalResource`).
    Whole,
    /// All of them with replacement.
    Afresh,
}

/// What came out of one seed under one policy.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Part of all devices that was given away, in percent.
    pub allocated_percent: f64,
    /// The same when so many percent had been asked for, from 0 on.
    pub at_percent: Vec<f64>,
    /// Tasks that came.
    pub asked: usize,
    /// Those that found no room.
    pub failed: usize,
    /// Time in the shard for the offer to one task with devices, the median; zero but for that.
    pub choice: Duration,
}

/// The tasks of a seed, in their order.
#[must_use]
pub fn draw(trace: &Trace, seed: u64, drawing: Drawing) -> Vec<Need> {
    let mut random = Random::new(seed);
    let all: u64 = trace.agents.iter().map(Room::free_milli).sum();
    let most = all * ASKED_PERCENT / 100;
    let once: &[Task] = if drawing == Drawing::Whole { &trace.tasks } else { &[] };
    let mut tasks: Vec<Need> = once.iter().map(|task| task.need).collect();
    let mut asked: u64 = tasks.iter().map(milli).sum();
    while let Some(task) = trace.tasks.get(random.below(trace.tasks.len().max(1) as u64) as usize) {
        if asked + u64::from(task.need.milli) > most {
            break;
        }
        asked += milli(&task.need);
        tasks.push(task.need);
    }
    shuffle(&mut tasks, &mut random);
    tasks
}

fn milli(need: &Need) -> u64 {
    u64::from(need.devices) * u64::from(need.milli)
}

fn shuffle<T>(list: &mut [T], random: &mut Random) {
    for at in (1..list.len()).rev() {
        list.swap(at, random.below(at as u64 + 1) as usize);
    }
}

/// Gives the tasks of a seed to agents, in an order of the agents that the seed draws too.
#[must_use]
pub fn run(trace: &Trace, tasks: &[Need], policy: Policy, seed: u64) -> Outcome {
    let mut random = Random::new(seed ^ 0x5eed);
    let mut agents = trace.agents.clone();
    shuffle(&mut agents, &mut random);
    let all: u64 = agents.iter().map(Room::free_milli).sum();
    if policy == Policy::Shard {
        let mut real = Real::new(&agents, trace);
        return played(all, tasks, |need| real.place(need));
    }
    let known: Vec<Need> = trace.tasks.iter().map(|task| task.need).collect();
    let mut placer = Placer::new(policy, agents, &known, random);
    let outcome = played(all, tasks, |need| {
        placer.asked(need);
        let placed = placer.choose(need).map(|(agent, devices)| {
            placer.take(agent, need, devices);
            milli(need)
        });
        (placed, Duration::ZERO)
    });
    let left: u64 = placer.agents().iter().map(Room::free_milli).sum();
    let given = outcome.allocated_percent * all.max(1) as f64 / 100.0;
    assert_eq!(given.round() as u64, all - left, "what was given away is what is not free");
    outcome
}

/// The tasks come one after the other; what `place` says of each is how much of devices it got, and how long that took.
fn played(all: u64, tasks: &[Need], mut place: impl FnMut(&Need) -> (Option<u64>, Duration)) -> Outcome {
    let mut outcome = Outcome { asked: tasks.len(), ..Outcome::default() };
    let (mut asked, mut given, mut choices) = (0, 0, Vec::new());
    for need in tasks {
        let (placed, took) = place(need);
        choices.extend((need.devices > 0 && !took.is_zero()).then_some(took));
        given += placed.unwrap_or(0);
        outcome.failed += usize::from(placed.is_none());
        asked += milli(need);
        let percent = |part: u64| part as f64 * 100.0 / all.max(1) as f64;
        while outcome.at_percent.len() as f64 <= percent(asked) {
            outcome.at_percent.push(percent(given));
        }
        outcome.allocated_percent = percent(given);
    }
    choices.sort_unstable();
    outcome.choice = choices.get(choices.len() / 2).copied().unwrap_or_default();
    outcome
}

/// A mean and how far from it the true one may be: half of its 95 % interval (Student's t).
#[must_use]
pub fn mean(values: &[f64]) -> (f64, f64) {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    if values.len() < 2 {
        return (mean, f64::INFINITY);
    }
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, quantile(values.len() - 1) * (variance / n).sqrt())
}

/// The 97.5th percentile of Student's t: as tabled up to 10 degrees of freedom, beyond them by Fisher's expansion (to 0.01).
fn quantile(freedom: usize) -> f64 {
    const TABLE: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    let z = 1.959_964_f64;
    let expanded = z + (z.powi(3) + z) / (4.0 * freedom.max(1) as f64);
    TABLE.get(freedom.saturating_sub(1)).copied().unwrap_or(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::fit::CANDIDATES;
    use protocol::devices::SINGLES_MAX;

    /// Agents of two devices, and tasks of a half, a whole and two devices, one in ten without any.
    fn trace() -> Trace {
        let mut milli = [0; SINGLES_MAX];
        milli[..2].fill(1_000);
        let agent = Room { kinds: 1, cpu_milli: 16_000, memory_bytes: 1 << 36, devices: 2, milli };
        let need = |devices: u8, milli: u16| Need { devices, milli, kinds: u64::MAX, cpu_milli: 4_000, memory_bytes: 1 << 30 };
        let needs = [need(1, 500), need(1, 500), need(1, 500), need(1, 500), need(1, 1_000), need(1, 1_000), need(2, 1_000), need(0, 0)];
        let task = |need: &Need| Task { need: *need, qos: "LS".into(), created_s: 0, scheduled_s: Some(0), deleted_s: 1 };
        Trace { agents: vec![agent; 40], models: vec!["A".into()], tasks: needs.iter().map(task).collect() }
    }

    #[test]
    fn so_much_is_asked_for_and_the_same_seed_asks_for_the_same() {
        let trace = trace();
        for drawing in [Drawing::Whole, Drawing::Afresh] {
            let tasks = draw(&trace, 1, drawing);
            let asked: u64 = tasks.iter().map(milli).sum();
            // What is over counts one device of a task, as in the published scripts.
            assert!((102_000..=105_000).contains(&asked), "{asked} of {}", 80_000 * ASKED_PERCENT / 100);
            assert_eq!(tasks, draw(&trace, 1, drawing));
            assert_ne!(tasks, draw(&trace, 2, drawing));
        }
    }

    #[test]
    fn policies_that_look_where_devices_are_broken_give_more_away_than_one_that_does_not() {
        let trace = trace();
        let given = |policy: Policy| {
            let outcomes = (1..=8).map(|seed| run(&trace, &draw(&trace, seed, Drawing::Afresh), policy, seed));
            outcomes.map(|outcome| outcome.allocated_percent).sum::<f64>() / 8.0
        };
        let random = given(Policy::Random);
        for policy in [Policy::BestFit, Policy::Fgd, Policy::Ours { candidates: CANDIDATES }, Policy::Shard] {
            assert!(given(policy) > random, "{policy:?}: {} and {random}", given(policy));
        }
    }

    #[test]
    fn a_mean_has_the_interval_of_students_t() {
        let (mean_of, half) = mean(&[1.0, 2.0, 3.0]);
        assert!((mean_of - 2.0).abs() < 1e-9 && (half - 4.303 / 3_f64.sqrt()).abs() < 1e-3, "{mean_of} {half}");
        assert!(mean(&[1.0]).1.is_infinite());
        assert!((quantile(30) - 2.042).abs() < 0.01, "{}", quantile(30));
    }
}
