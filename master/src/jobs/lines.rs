//! Who waits for resources: one line for each role, priority and shape. What a shard demands is the list of its lines.

use crate::shard::event::{WANTS_MAX, Want};
use protocol::{JobId, Resources, Role};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// All lines.
#[derive(Debug, Default)]
pub struct Lines {
    lines: Vec<Option<Line>>,
    free: Vec<u32>,
    by_key: BTreeMap<(Role, Reverse<u8>, Resources), u32>,
    /// True where a line changed since [`Self::wants`] was asked.
    pub changed: bool,
}

/// The tasks of one role, priority and shape that wait.
#[derive(Debug)]
pub struct Line {
    /// Whom they are counted for.
    pub role: Role,
    /// Their jobs' priority.
    pub priority: u8,
    /// What each of them needs.
    pub shape: Resources,
    /// The jobs that have at least one, the oldest first.
    pub jobs: BTreeSet<JobId>,
    /// How many tasks there are.
    pub count: u64,
}

impl Lines {
    /// The line number `at`.
    #[must_use]
    pub fn get(&self, at: u32) -> Option<&Line> {
        self.lines.get(at as usize)?.as_ref()
    }

    /// Lets `count` tasks of `job` stand in the line of their role, priority and shape; gives back which one that is.
    pub fn join(&mut self, role: &Role, priority: u8, shape: &Resources, job: JobId, count: u32) -> u32 {
        self.changed = true;
        let key = (role.clone(), Reverse(priority), shape.clone());
        let at = *self.by_key.entry(key).or_insert_with(|| {
            let line = Line { role: role.clone(), priority, shape: shape.clone(), jobs: BTreeSet::new(), count: 0 };
            let at = self.free.pop().unwrap_or_else(|| u32::try_from(self.lines.len()).expect("fewer lines than jobs"));
            if at as usize == self.lines.len() {
                self.lines.push(None);
            }
            self.lines[at as usize] = Some(line);
            at
        });
        let line = self.lines[at as usize].as_mut().expect("a line stands where its key says");
        line.jobs.insert(job);
        line.count += u64::from(count);
        at
    }

    /// The tasks of a job in the line `at` are `now` instead of `before`; both above 0.
    pub fn adjust(&mut self, at: u32, before: u32, now: u32) {
        self.changed = true;
        if let Some(line) = self.lines.get_mut(at as usize).and_then(Option::as_mut) {
            line.count = line.count + u64::from(now) - u64::from(before);
        }
    }

    /// Takes the `count` tasks of `job` out of the line `at`.
    pub fn leave(&mut self, at: u32, job: JobId, count: u32) {
        self.changed = true;
        let Some(slot) = self.lines.get_mut(at as usize) else { return };
        let Some(line) = slot.as_mut() else { return };
        line.jobs.remove(&job);
        line.count -= u64::from(count);
        if line.jobs.is_empty() {
            let line = slot.take().expect("it was there a line above");
            self.by_key.remove(&(line.role, Reverse(line.priority), line.shape));
            self.free.push(at);
        }
    }

    /// The lines of `role`, the most urgent first: by priority, then by the age of the first job.
    #[must_use]
    pub fn of_role(&self, role: &Role) -> Vec<u32> {
        let from = (role.clone(), Reverse(u8::MAX), Resources::NONE);
        let lines = self.by_key.range(from..).take_while(|((of, ..), _)| of == role).map(|(_, at)| *at);
        let mut order: Vec<(Reverse<u8>, Option<JobId>, u32)> = lines.filter_map(|at| self.rank(at)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, _, at)| at).collect()
    }

    /// The lines of `role` and of all below it, the most urgent first.
    #[must_use]
    pub fn within(&self, role: &Role) -> Vec<&Line> {
        let from = (role.clone(), Reverse(u8::MAX), Resources::NONE);
        let near = self.by_key.range(from..).take_while(|((of, ..), _)| of.as_str().starts_with(role.as_str()));
        let mut order: Vec<_> = near.filter(|((of, ..), _)| of.is_within(role)).filter_map(|(_, at)| self.rank(*at)).collect();
        order.sort_unstable();
        order.into_iter().filter_map(|(_, _, at)| self.get(at)).collect()
    }

    /// All wants, the most urgent first, at most [`WANTS_MAX`]; what is over waits until those before it are met.
    #[must_use]
    pub fn wants(&mut self) -> Vec<Want> {
        self.changed = false;
        let mut order: Vec<(Reverse<u8>, Option<JobId>, u32)> = self.by_key.values().filter_map(|at| self.rank(*at)).collect();
        order.sort_unstable();
        order.truncate(WANTS_MAX);
        let lines = order.into_iter().filter_map(|(_, _, at)| self.get(at));
        let want = |line: &Line| Want {
            role: line.role.clone(),
            priority: line.priority,
            shape: line.shape.clone(),
            count: u32::try_from(line.count).unwrap_or(u32::MAX),
        };
        lines.map(want).collect()
    }

    fn rank(&self, at: u32) -> Option<(Reverse<u8>, Option<JobId>, u32)> {
        self.get(at).map(|line| (Reverse(line.priority), line.jobs.first().copied(), at))
    }

    /// How many tasks wait in all.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.lines.iter().flatten().map(|line| line.count).sum()
    }
}
