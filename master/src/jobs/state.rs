//! All jobs of a shard, and what follows from them: who waits, who is on which agent, when a backoff is over. Changed by records only
//! (`fold.rs`), apart from what is said of live tasks and from backoffs that are over.

use super::cell::{LivePhase, Slot};
use super::job::{Entry, LiveJob};
use super::lines::{Line, Lines};
use super::spent::Spent;
use crate::shard::event::JobRef;
use protocol::{AgentId, AttemptId, JobId, Name, Resources, Role, ShardId, Time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The lasting part.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LastingJobs {
    /// The number that the next job gets.
    pub next: u64,
    /// All jobs that are kept.
    pub entries: BTreeMap<JobId, Entry>,
    /// Those that ended, in the order in which they did.
    pub history: VecDeque<JobId>,
    /// In which life of each agent the tasks that are live there were given to it; `None` where in more than one.
    pub incarnations: BTreeMap<AgentId, Option<u64>>,
}

/// All jobs of a shard.
#[derive(Debug)]
pub struct Jobs {
    /// What is on record.
    pub lasting: LastingJobs,
    /// Whose jobs they are.
    pub shard: ShardId,
    /// Who waits for resources.
    pub lines: Lines,
    /// What live tasks are promised.
    pub spent: Spent,
    /// Jobs that have not ended.
    pub live: BTreeSet<JobId>,
    /// Those of which a deployment is under way.
    pub rolling: BTreeSet<JobId>,
    /// Those whose first tasks wait for other jobs.
    pub held: BTreeSet<JobId>,
    /// System jobs that have not ended.
    pub systems: BTreeSet<JobId>,
    /// True where one of them is otherwise since that was looked at.
    pub systems_changed: bool,
    /// Live tasks by agent.
    pub by_agent: BTreeMap<AgentId, BTreeSet<(JobId, u32)>>,
    /// Tasks whose backoff is not over.
    pub(super) timers: BTreeSet<(Time, JobId, u32)>,
    pub(super) names: BTreeMap<(Role, Name), JobId>,
    pub(super) keys: BTreeMap<u128, JobId>,
    pub(super) history_tasks: usize,
    pub(super) history_tasks_max: usize,
}

/// Tasks of one job that are to be staged.
#[derive(Debug)]
pub struct Pick {
    /// The job.
    pub job: JobId,
    /// Index and number of each attempt.
    pub attempts: Vec<(u32, u32)>,
}

impl Jobs {
    /// None yet.
    #[must_use]
    pub fn new(shard: ShardId, history_tasks_max: usize) -> Self {
        Self {
            lasting: LastingJobs { next: 1, ..LastingJobs::default() },
            shard,
            lines: Lines::default(),
            spent: Spent::default(),
            live: BTreeSet::new(),
            rolling: BTreeSet::new(),
            held: BTreeSet::new(),
            systems: BTreeSet::new(),
            systems_changed: false,
            by_agent: BTreeMap::new(),
            timers: BTreeSet::new(),
            names: BTreeMap::new(),
            keys: BTreeMap::new(),
            history_tasks: 0,
            history_tasks_max,
        }
    }

    /// Those of a snapshot.
    #[must_use]
    pub fn restore(shard: ShardId, history_tasks_max: usize, lasting: LastingJobs) -> Self {
        let mut jobs = Self::new(shard, history_tasks_max);
        jobs.lasting = lasting;
        let ids: Vec<JobId> = jobs.lasting.entries.keys().copied().collect();
        for id in ids {
            jobs.derive(id);
        }
        jobs
    }

    fn derive(&mut self, id: JobId) {
        let Some(entry) = self.lasting.entries.get_mut(&id) else { return };
        let (role, name, key) = match entry {
            Entry::Ended(job) => {
                self.history_tasks += job.weight();
                (&job.role, &job.name, job.key)
            }
            Entry::Live(job) => {
                job.recount();
                self.live.insert(id);
                if job.rollout.as_ref().is_some_and(|rollout| rollout.active().is_some()) {
                    self.rolling.insert(id);
                }
                self.held.extend(job.is_held().then_some(id));
                self.systems.extend((job.job.kind == protocol::Kind::System).then_some(id));
                for (index, cell) in job.cells.iter_from(0) {
                    match cell.slot {
                        Slot::Live => {
                            self.spent.more(&job.job.role, &job.template(cell.version).resources, 1);
                            self.by_agent.entry(cell.agent).or_default().insert((id, index));
                        }
                        Slot::Waiting => self.timers.extend(cell.retry_at().map(|at| (at, id, index))),
                        Slot::Ended => {}
                    }
                }
                (&job.job.role, &job.job.name, job.key)
            }
        };
        if let Some(name) = name {
            self.names.insert((role.clone(), name.clone()), id);
        }
        if let Some(key) = key {
            self.keys.insert(key.key, id);
        }
        self.requeue(id);
    }

    /// Tasks of jobs that have ended and are kept; a job without any counts as one.
    #[must_use]
    pub const fn history_tasks(&self) -> usize {
        self.history_tasks
    }

    /// The id of the next job.
    #[must_use]
    pub fn next_id(&self) -> JobId {
        JobId::new(self.shard, self.lasting.next)
    }

    /// The job that is meant.
    #[must_use]
    pub fn find(&self, job: &JobRef) -> Option<JobId> {
        match job {
            JobRef::Id(id) => self.lasting.entries.contains_key(id).then_some(*id),
            JobRef::Name(role, name) => self.named(role, name),
        }
    }

    /// The last job of this role and name.
    #[must_use]
    pub fn named(&self, role: &Role, name: &Name) -> Option<JobId> {
        self.names.get(&(role.clone(), name.clone())).copied()
    }

    /// The job that was submitted under this key.
    #[must_use]
    pub fn keyed(&self, key: u128) -> Option<JobId> {
        self.keys.get(&key).copied()
    }

    /// A job, ended or not.
    #[must_use]
    pub fn entry(&self, id: JobId) -> Option<&Entry> {
        self.lasting.entries.get(&id)
    }

    /// A job that has not ended.
    #[must_use]
    pub fn live(&self, id: JobId) -> Option<&LiveJob> {
        match self.lasting.entries.get(&id) {
            Some(Entry::Live(job)) => Some(job),
            _ => None,
        }
    }

    /// A job that has not ended, to be changed.
    pub fn live_mut(&mut self, id: JobId) -> Option<&mut LiveJob> {
        match self.lasting.entries.get_mut(&id) {
            Some(Entry::Live(job)) => Some(job),
            _ => None,
        }
    }

    /// True where `attempt` is live on `agent`, by the record.
    #[must_use]
    pub fn is_live_on(&self, attempt: AttemptId, agent: AgentId) -> bool {
        let cell = self.live(attempt.task.job).and_then(|job| job.cells.get(attempt.task.index));
        cell.is_some_and(|cell| cell.slot == Slot::Live && cell.number == attempt.number && cell.agent == agent)
    }

    /// Notes what is known now of a live task.
    pub fn set_phase(&mut self, attempt: AttemptId, phase: LivePhase) {
        if let Some(job) = self.live_mut(attempt.task.job) {
            job.set_phase(attempt.task.index, phase);
        }
    }

    /// In which life of `agent` all tasks that are live there were given to it; `None` where in more than one, or where there is none.
    #[must_use]
    pub fn incarnation_on(&self, agent: AgentId) -> Option<u64> {
        self.lasting.incarnations.get(&agent).copied().flatten()
    }

    /// Puts the job where its waiting tasks belong.
    pub(super) fn requeue(&mut self, id: JobId) {
        if self.requeue_everywhere(id) {
            return;
        }
        let Some(Entry::Live(job)) = self.lasting.entries.get_mut(&id) else { return };
        let (ready, version) = (job.ready(), job.ready_version());
        if job.derived.queued > 0 && job.derived.line_version != version {
            self.lines.leave(job.derived.line, id, job.derived.queued);
            job.derived.queued = 0;
        }
        match (job.derived.queued, ready) {
            (before, now) if before == now => return,
            (0, _) => {
                if let Some(tally) = job.derived.tally.as_mut() {
                    tally.begin();
                }
                let shape = job.template(version).resources.clone();
                job.derived.line = self.lines.join(id, &job.job, &shape, ready);
                job.derived.line_version = version;
            }
            (before, 0) => self.lines.leave(job.derived.line, id, before),
            (before, now) => self.lines.adjust(job.derived.line, before, now),
        }
        job.derived.queued = ready;
    }

    /// Takes the job out of its line, before what the line depends on changes.
    pub(super) fn unqueue(&mut self, id: JobId) {
        self.unqueue_old(id);
        let Some(Entry::Live(job)) = self.lasting.entries.get_mut(&id) else { return };
        if job.derived.queued > 0 {
            self.lines.leave(job.derived.line, id, job.derived.queued);
            job.derived.queued = 0;
        }
    }

    /// When the next backoff is over.
    #[must_use]
    pub fn next_due(&self) -> Option<Time> {
        self.timers.first().map(|(at, ..)| *at)
    }

    /// Tasks whose backoff is over wait for resources from now on.
    pub fn wake(&mut self, now: Time) {
        while let Some((_, id, index)) = self.timers.first().copied().filter(|(at, ..)| *at <= now) {
            self.timers.pop_first();
            if let Some(job) = self.live_mut(id) {
                job.stand(index);
            }
            self.requeue(id);
        }
    }

    /// All tasks of a job whose backoff is not over wait for resources from now on.
    pub fn retry_now(&mut self, id: JobId) {
        let Some(Entry::Live(job)) = self.lasting.entries.get_mut(&id) else { return };
        let waits = |(_, cell): &(u32, &super::Cell)| cell.slot == Slot::Waiting;
        let waiting: Vec<(u32, Option<Time>)> =
            job.cells.iter_from(0).filter(waits).map(|(index, cell)| (index, cell.retry_at())).collect();
        for (index, due) in waiting {
            if due.is_some_and(|at| self.timers.remove(&(at, id, index))) {
                job.stand(index);
            }
        }
        self.requeue(id);
    }

    /// Which waiting tasks of `role` that may go everywhere fit into `resources`, at most `most`: by priority, then the oldest job first.
    #[must_use]
    pub fn pick(&self, role: &Role, resources: &Resources, most: u32) -> Vec<Pick> {
        let (mut picks, mut rest, mut most) = (Vec::new(), resources.clone(), most);
        for at in self.lines.of_role(role) {
            let Some(line) = self.lines.get(at) else { continue };
            self.pick_of(line, &mut rest, &mut most, &mut picks);
            if most == 0 {
                break;
            }
        }
        picks
    }

    /// The same of one line; what is left of `rest` and `most` is for others.
    pub(super) fn pick_of(&self, line: &Line, rest: &mut Resources, most: &mut u32, picks: &mut Vec<Pick>) {
        let mut fit = rest.times(&line.shape, *most);
        for id in &line.jobs {
            if fit == 0 {
                break;
            }
            let Some(job) = self.live(*id) else { continue };
            let attempts = first_waiting(job, fit);
            let taken = u32::try_from(attempts.len()).expect("at most `fit`");
            let used = line.shape.checked_mul(taken).expect("it fits: `times` said so");
            *rest = rest.checked_sub(&used).expect("it fits: `times` said so");
            (fit, *most) = (fit - taken, *most - taken);
            picks.push(Pick { job: *id, attempts });
        }
    }
}

/// The first tasks of those that [`LiveJob::ready`] counts: all of one version.
pub(super) fn first_waiting(job: &LiveJob, most: u32) -> Vec<(u32, u32)> {
    let old = &job.derived.again_old;
    let again = if old.is_empty() { &job.derived.again } else { old };
    let again = again.iter().filter_map(|index| job.cells.get(*index).map(|cell| (*index, cell.number.saturating_add(1))));
    let begun = job.cells.len();
    let fresh = if old.is_empty() { job.fresh() } else { 0 };
    let fresh = (begun..begun + fresh).map(|index| (index, 1));
    again.chain(fresh).take(most as usize).collect()
}
