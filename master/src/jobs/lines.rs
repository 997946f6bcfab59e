//! Who waits for resources: one line for each role, priority and shape; of tasks that may not go everywhere, for each placement too, and for each
//! job where that counts the job's tasks. What a shard demands is the list of its lines.

use crate::shard::event::{WANTS_MAX, Want};
use protocol::{Job, JobId, Kind, Placement, Resources, Role};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// All lines.
#[derive(Debug, Default)]
pub struct Lines {
    lines: Vec<Option<Line>>,
    free: Vec<u32>,
    by_key: BTreeMap<(Role, Reverse<u8>, Resources), u32>,
    placed: BTreeMap<PlacedKey, u32>,
    by_id: BTreeMap<u64, u32>,
    last_id: u64,
    /// True where a line changed since [`Self::wants`] was asked.
    pub changed: bool,
}

/// What lines of tasks that may not go everywhere differ in: at the end the job, where its own tasks are counted.
type PlacedKey = (Role, Reverse<u8>, Resources, Arc<Placement>, Option<JobId>);

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
    /// Where they may go; `None`: everywhere.
    pub place: Option<LinePlace>,
}

/// Where the tasks of a line may go.
#[derive(Clone, Debug)]
pub struct LinePlace {
    /// Names the line: from 1, never given twice.
    pub id: u64,
    /// The same for all of them.
    pub place: Arc<Placement>,
    /// The one job of the line, where its tasks are counted.
    pub counted: Option<JobId>,
}

/// Where the tasks of a job may go, and whether that counts them: of a system job each has one agent.
fn placement(job: &Job) -> (Option<Arc<Placement>>, bool) {
    match (&job.place, job.kind) {
        (place, Kind::System) => (Some(place.clone().unwrap_or_default()), true),
        (place, _) => (place.clone(), place.as_ref().is_some_and(|place| place.counts_tasks())),
    }
}

impl Lines {
    /// The line number `at`.
    #[must_use]
    pub fn get(&self, at: u32) -> Option<&Line> {
        self.lines.get(at as usize)?.as_ref()
    }

    /// The line of this name.
    #[must_use]
    pub fn named(&self, id: u64) -> Option<&Line> {
        self.get(*self.by_id.get(&id)?)
    }

    /// Lets `count` tasks of a job, each of which needs `shape`, stand in the line that is theirs; gives back which one that is.
    pub fn join(&mut self, id: JobId, job: &Job, shape: &Resources, count: u32) -> u32 {
        self.changed = true;
        let (role, priority) = (&job.role, job.priority);
        let (place, counted) = placement(job);
        let counted = counted.then_some(id);
        let known = match &place {
            None => self.by_key.get(&(role.clone(), Reverse(priority), shape.clone())),
            Some(place) => self.placed.get(&(role.clone(), Reverse(priority), shape.clone(), Arc::clone(place), counted)),
        };
        let at = known.copied().unwrap_or_else(|| self.line_new(job, shape, counted));
        let line = self.lines[at as usize].as_mut().expect("a line stands where its key says");
        line.jobs.insert(id);
        line.count += u64::from(count);
        at
    }

    fn line_new(&mut self, job: &Job, shape: &Resources, counted: Option<JobId>) -> u32 {
        let at = self.free.pop().unwrap_or_else(|| u32::try_from(self.lines.len()).expect("fewer lines than jobs"));
        if at as usize == self.lines.len() {
            self.lines.push(None);
        }
        let (role, priority, shape) = (job.role.clone(), job.priority, shape.clone());
        let place = placement(job).0.map(|place| {
            self.last_id += 1;
            self.by_id.insert(self.last_id, at);
            LinePlace { id: self.last_id, place, counted }
        });
        match &place {
            None => self.by_key.insert((role.clone(), Reverse(priority), shape.clone()), at),
            Some(own) => self.placed.insert((role.clone(), Reverse(priority), shape.clone(), Arc::clone(&own.place), counted), at),
        };
        self.lines[at as usize] = Some(Line { role, priority, shape, jobs: BTreeSet::new(), count: 0, place });
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
            match line.place {
                None => drop(self.by_key.remove(&(line.role, Reverse(line.priority), line.shape))),
                Some(LinePlace { id, place, counted }) => {
                    self.by_id.remove(&id);
                    self.placed.remove(&(line.role, Reverse(line.priority), line.shape, place, counted));
                }
            }
            self.free.push(at);
        }
    }

    /// The lines of `role` whose tasks may go everywhere, the most urgent first: by priority, then by the age of the first job.
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
        let plain = near.filter(|((of, ..), _)| of.is_within(role)).map(|(_, at)| at);
        let placed = self.placed.iter().filter(|((of, ..), _)| of.is_within(role)).map(|(_, at)| at);
        let mut order: Vec<_> = plain.chain(placed).filter_map(|at| self.rank(*at)).collect();
        order.sort_unstable();
        order.into_iter().filter_map(|(_, _, at)| self.get(at)).collect()
    }

    /// The lines of `role` whose tasks may not.
    pub fn placed_of_role<'a>(&'a self, role: &'a Role) -> impl Iterator<Item = &'a Line> {
        self.placed.iter().filter(move |((of, ..), _)| of == role).filter_map(|(_, at)| self.get(*at))
    }

    /// All wants of tasks that may go everywhere, the most urgent first, at most [`WANTS_MAX`]; what is over waits until those before it are met.
    #[must_use]
    pub fn wants(&self) -> Vec<Want> {
        self.urgent(self.by_key.values()).into_iter().map(Line::want).collect()
    }

    /// The lines of the others, in the same order.
    #[must_use]
    pub fn placed(&self) -> Vec<&Line> {
        self.urgent(self.placed.values())
    }

    fn urgent<'a>(&'a self, lines: impl Iterator<Item = &'a u32>) -> Vec<&'a Line> {
        let mut order: Vec<(Reverse<u8>, Option<JobId>, u32)> = lines.filter_map(|at| self.rank(*at)).collect();
        order.sort_unstable();
        order.truncate(WANTS_MAX);
        order.into_iter().filter_map(|(_, _, at)| self.get(at)).collect()
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

impl Line {
    /// What its tasks want.
    #[must_use]
    pub fn want(&self) -> Want {
        let count = u32::try_from(self.count).unwrap_or(u32::MAX);
        Want { role: self.role.clone(), priority: self.priority, shape: self.shape.clone(), count }
    }
}
