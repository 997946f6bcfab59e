//! The recorded arrivals and lengths of a trace on a part of its cluster: once shared by all, once divided for good among the classes of
//! service in proportion to what each asked for. The policy is ours in both. Tasks wait in the order of their arrival, and one that fits
//! passes those that do not.

use super::policy::{Placer, Policy};
use super::read::{Task, Trace};
use crate::random::Random;
use crate::trace::fit::{CANDIDATES, Need, Room};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// Who may use which agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Division {
    /// All use all.
    Shared,
    /// Each class has agents of its own.
    Partitioned,
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Agents of each class, and how many devices they have; all, under an empty name, where they are shared.
    pub agents: BTreeMap<String, (usize, u64)>,
    /// How long each task waited, in seconds, by class; sorted.
    pub waits_s: BTreeMap<String, Vec<u64>>,
    /// Tasks that no agent is large enough for that they may use.
    pub impossible: BTreeMap<String, usize>,
    /// From when on so much of all devices was in use, in percent.
    pub used: Vec<(u64, f64)>,
    /// From when on so many tasks waited.
    pub waiting: Vec<(u64, usize)>,
    /// Use of devices while tasks arrived, as a mean over time, in percent.
    pub used_percent: f64,
    /// When the last task was over, in seconds.
    pub done_s: u64,
}

/// Agents that the same tasks may use.
struct Part {
    placer: Placer,
    empty: Vec<Room>,
    waiting: Vec<usize>,
    stirred: bool,
}

/// A task that runs: until when, which, and where.
type Run = Reverse<(u64, usize, usize, usize, u16)>;

struct Replay<'a> {
    tasks: &'a [&'a Task],
    parts: Vec<Part>,
    part_of: BTreeMap<&'a str, usize>,
    running: BinaryHeap<Run>,
    used_milli: u64,
    all_milli: u64,
    outcome: Outcome,
}

/// Each so-many-th agent of the cluster: as many of each kind as there are in all, as nearly as it goes.
#[must_use]
pub fn every(agents: &[Room], each: usize) -> Vec<Room> {
    let mut sorted = agents.to_vec();
    sorted.sort_unstable();
    sorted.into_iter().skip(each / 2).step_by(each.max(1)).collect()
}

/// Tasks that ran when they were recorded, in the order of their arrival: of the others nobody knows how long they would have run.
#[must_use]
pub fn ran(trace: &Trace) -> Vec<&Task> {
    let mut tasks: Vec<&Task> = trace.tasks.iter().filter(|task| task.scheduled_s.is_some()).collect();
    tasks.sort_by_key(|task| task.created_s);
    tasks
}

fn length_s(task: &Task) -> u64 {
    task.deleted_s - task.scheduled_s.unwrap_or(task.created_s)
}

/// Replays these tasks on these agents.
#[must_use]
pub fn run(tasks: &[&Task], agents: &[Room], division: Division) -> Outcome {
    let mut replay = Replay::new(tasks, agents, division);
    let (first, last) = (tasks.first().map_or(0, |task| task.created_s), tasks.last().map_or(0, |task| task.created_s));
    let (mut next, mut now, mut used_time) = (0, first, 0_u128);
    loop {
        let arrival = tasks.get(next).map(|task| task.created_s);
        let end = replay.running.peek().map(|Reverse(run)| run.0);
        let Some(then) = [arrival, end].into_iter().flatten().min() else { break };
        used_time += u128::from(replay.used_milli) * u128::from(then.min(last).saturating_sub(now.min(last)));
        now = then;
        while replay.running.peek().is_some_and(|Reverse(run)| run.0 == now) {
            replay.end();
        }
        while tasks.get(next).is_some_and(|task| task.created_s == now) {
            replay.arrive(next);
            next += 1;
        }
        replay.start(now);
    }
    let mut outcome = replay.outcome;
    outcome.waits_s.values_mut().for_each(|waits| waits.sort_unstable());
    let span = u128::from(replay.all_milli) * u128::from(last - first);
    outcome.used_percent = used_time as f64 * 100.0 / span.max(1) as f64;
    outcome.done_s = now;
    outcome
}

impl<'a> Replay<'a> {
    fn new(tasks: &'a [&'a Task], agents: &[Room], division: Division) -> Self {
        let classes: BTreeSet<&str> = tasks.iter().map(|task| task.qos.as_str()).collect();
        let shares: Vec<Vec<Room>> = match division {
            Division::Shared => vec![agents.to_vec()],
            Division::Partitioned => divide(agents, &classes.iter().map(|class| asked(tasks, class)).collect::<Vec<_>>()),
        };
        let place = |at: usize| if division == Division::Shared { 0 } else { at };
        let name = |at: usize| if division == Division::Shared { "" } else { classes.iter().nth(at).copied().unwrap_or_default() };
        let devices = |share: &[Room]| share.iter().map(|agent| u64::from(agent.devices)).sum();
        let agents_of = (0..).zip(&shares).map(|(at, share)| (name(at).to_owned(), (share.len(), devices(share)))).collect();
        let policy = Policy::Ours { candidates: CANDIDATES };
        let part = |empty: Vec<Room>| {
            let placer = Placer::new(policy, empty.clone(), &[], Random::new(1));
            Part { placer, empty, waiting: Vec::new(), stirred: false }
        };
        Self {
            tasks,
            parts: shares.into_iter().map(part).collect(),
            part_of: classes.iter().copied().enumerate().map(|(at, class)| (class, place(at))).collect(),
            running: BinaryHeap::new(),
            used_milli: 0,
            all_milli: agents.iter().map(Room::free_milli).sum(),
            outcome: Outcome { agents: agents_of, ..Outcome::default() },
        }
    }

    fn end(&mut self) {
        let Some(Reverse((_, task, at, agent, devices))) = self.running.pop() else { return };
        let need = &self.tasks[task].need;
        self.parts[at].placer.give_back(agent, need, devices);
        self.parts[at].stirred = true;
        self.used_milli -= milli(need);
    }

    fn arrive(&mut self, number: usize) {
        let task = self.tasks[number];
        let part = &mut self.parts[self.part_of[task.qos.as_str()]];
        if part.empty.iter().any(|room| room.fits(&task.need)) {
            part.placer.asked(&task.need);
            part.waiting.push(number);
            part.stirred = true;
        } else {
            *self.outcome.impossible.entry(task.qos.clone()).or_default() += 1;
        }
    }

    /// All that fit begin.
    fn start(&mut self, now: u64) {
        for (at, part) in self.parts.iter_mut().enumerate().filter(|(_, part)| part.stirred) {
            part.stirred = false;
            let mut too_large: BTreeSet<Need> = BTreeSet::new();
            let mut still = Vec::new();
            for number in std::mem::take(&mut part.waiting) {
                let task = self.tasks[number];
                let place = if too_large.contains(&task.need) { None } else { part.placer.choose(&task.need) };
                let Some((agent, devices)) = place else {
                    too_large.insert(task.need);
                    still.push(number);
                    continue;
                };
                part.placer.take(agent, &task.need, devices);
                self.used_milli += milli(&task.need);
                // What ends within the second of its start holds its room for that second.
                self.running.push(Reverse((now + length_s(task).max(1), number, at, agent, devices)));
                self.outcome.waits_s.entry(task.qos.clone()).or_default().push(now - task.created_s);
            }
            part.waiting = still;
        }
        self.outcome.used.push((now, self.used_milli as f64 * 100.0 / self.all_milli.max(1) as f64));
        self.outcome.waiting.push((now, self.parts.iter().map(|part| part.waiting.len()).sum()));
    }
}

fn milli(need: &Need) -> u64 {
    u64::from(need.devices) * u64::from(need.milli)
}

/// What a class asked for: thousandths of devices and of cores, times seconds.
fn asked(tasks: &[&Task], class: &str) -> (u128, u128) {
    let own = tasks.iter().filter(|task| task.qos == class);
    own.fold((0, 0), |(devices, cpu), task| {
        let s = u128::from(length_s(task));
        (devices + u128::from(milli(&task.need)) * s, cpu + u128::from(task.need.cpu_milli) * s)
    })
}

/// Divides agents in proportion to what each class asked for: of devices where an agent has some, of processors where it has none. Each agent
/// goes to the class that is furthest behind; a class that got none gets the last one of the class with most.
fn divide(agents: &[Room], asked: &[(u128, u128)]) -> Vec<Vec<Room>> {
    let mut shares: Vec<Vec<Room>> = vec![Vec::new(); asked.len()];
    let mut got: Vec<(u128, u128)> = vec![(0, 0); asked.len()];
    let sums = asked.iter().fold((0, 0), |sum, class| (sum.0 + class.0, sum.1 + class.1));
    let mut given = (0, 0);
    for agent in agents {
        let (devices, cpu) = (u128::from(agent.free_milli()), u128::from(agent.cpu_milli));
        given = if devices > 0 { (given.0 + devices, given.1) } else { (given.0, given.1 + cpu) };
        // How far behind, times the sum, so that nothing is rounded.
        let behind = |class: usize| match devices > 0 {
            true => (asked[class].0 * given.0) as i128 - (got[class].0 * sums.0) as i128,
            false => (asked[class].1 * given.1) as i128 - (got[class].1 * sums.1) as i128,
        };
        let Some(class) = (0..asked.len()).max_by_key(|class| (behind(*class), Reverse(*class))) else { return shares };
        if devices > 0 {
            got[class].0 += devices
        } else {
            got[class].1 += cpu
        }
        shares[class].push(*agent);
    }
    while let Some(none) = shares.iter().position(Vec::is_empty) {
        let most = (0..shares.len()).max_by_key(|class| shares[*class].len()).unwrap_or(none);
        if shares[most].len() < 2 {
            break;
        }
        let moved: Vec<Room> = shares[most].pop().into_iter().collect();
        shares[none].extend(moved);
    }
    shares
}

/// The value below which so many thousandths of a sorted list are; 0 of none.
#[must_use]
pub fn quantile(sorted: &[u64], thousandths: usize) -> u64 {
    sorted.get((sorted.len() * thousandths / 1_000).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::devices::SINGLES_MAX;

    fn agent(devices: u8) -> Room {
        let mut milli = [0; SINGLES_MAX];
        milli[..usize::from(devices)].fill(1_000);
        Room { kinds: 1, cpu_milli: 8_000, memory_bytes: 1 << 30, devices, milli }
    }

    fn task(qos: &str, created_s: u64, length_s: u64, devices: u8) -> Task {
        let milli = if devices > 0 { 1_000 } else { 0 };
        let need = Need { devices, milli, kinds: u64::MAX, cpu_milli: 1_000, memory_bytes: 1 };
        Task { need, qos: qos.into(), created_s, scheduled_s: Some(created_s), deleted_s: created_s + length_s }
    }

    fn check(tasks: &[Task], division: Division) -> Outcome {
        run(&tasks.iter().collect::<Vec<_>>(), &[agent(1), agent(1)], division)
    }

    #[test]
    fn who_shares_waits_less_than_who_has_an_agent_of_his_own() {
        let tasks = [task("a", 0, 100, 1), task("a", 0, 100, 1), task("b", 500, 100, 1), task("b", 500, 100, 1)];
        let shared = check(&tasks, Division::Shared);
        let waits = |outcome: &Outcome, class: &str| outcome.waits_s[class].clone();
        assert_eq!((waits(&shared, "a"), waits(&shared, "b"), shared.done_s), (vec![0, 0], vec![0, 0], 600));
        let partitioned = check(&tasks, Division::Partitioned);
        assert_eq!(partitioned.agents, BTreeMap::from([("a".into(), (1, 1)), ("b".into(), (1, 1))]));
        assert_eq!((waits(&partitioned, "a"), waits(&partitioned, "b"), partitioned.done_s), (vec![0, 100], vec![0, 100], 700));
        // Two devices for 100 of 500 s, and then none until the last arrival.
        assert!((shared.used_percent - 20.0).abs() < 1e-9, "{}", shared.used_percent);
    }

    #[test]
    fn what_is_too_large_for_its_part_cannot_run_and_what_fits_passes_what_waits() {
        let tasks = [task("a", 0, 10, 1), task("a", 1, 10, 1), task("a", 2, 10, 1), task("a", 3, 10, 0), task("b", 4, 1, 2)];
        let outcome = check(&tasks, Division::Shared);
        assert_eq!(outcome.impossible, BTreeMap::from([("b".into(), 1)]));
        assert_eq!(outcome.waits_s["a"], [0, 0, 0, 8]);
        assert_eq!(outcome.waiting.iter().map(|(_, n)| *n).max(), Some(1));
    }

    #[test]
    fn agents_are_divided_in_proportion_and_nobody_is_left_without() {
        let shares = divide(&[agent(1); 10], &[(80, 1), (20, 1), (0, 1)]);
        assert_eq!(shares.iter().map(Vec::len).collect::<Vec<_>>(), [7, 2, 1]);
        assert_eq!(every(&[agent(1), agent(2), agent(1), agent(2)], 2).len(), 2);
        assert_eq!([quantile(&[1, 2, 3, 4], 500), quantile(&[1, 2, 3, 4], 990), quantile(&[], 500)], [3, 4, 0]);
    }
}
