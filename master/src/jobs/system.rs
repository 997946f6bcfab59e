//! System jobs: one task on each agent that their constraints let in. A task is its agent's from when that matches until it does no longer, and begins
//! nowhere else; its index is given to another agent after that. Who matches is on record, whose task waits follows from it.

use super::cell::{Cell, Cells, Slot};
use super::job::{Entry, LiveJob, end_position};
use super::lines::Lines;
use super::state::{Jobs, Pick};
use protocol::job::COUNT_MAX;
use protocol::message::shard_of_agent;
use protocol::{AgentId, Job, JobId, Kind, Phase, Resources, ShardId, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How many cells more are made room for at a time.
const MORE: u32 = 64;

/// Which task of a system job is on which agent, and who of them waits. Follows from the cells.
#[derive(Clone, Debug, Default)]
pub struct Everywhere {
    /// Tasks that have an agent, those that are to leave it among them.
    at: BTreeMap<AgentId, u32>,
    /// Tasks that have none any more, by the last that they had.
    free: BTreeSet<(AgentId, u32)>,
    /// Tasks that are to leave their agents and have not yet.
    leaving: u32,
    /// Where those of the version before stand that begin anew in that, where that is of another shape.
    old: Standing,
    /// Rises with each change of who waits.
    turn: u64,
    /// Shards none of whose agents had room in this turn for tasks of the present version that wait for them.
    stuck: BTreeSet<ShardId>,
    /// What was made of who waits last: in which turn, for the line that is first, and for the other.
    wanted: Option<(u64, [Arc<Vec<AgentId>>; 2])>,
}

/// A place in a line.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    line: u32,
    queued: u32,
    version: u32,
}

impl Everywhere {
    /// Of a system job with these tasks; `None` of any other job.
    #[must_use]
    pub fn of(kind: Kind, cells: &Cells) -> Option<Box<Self>> {
        if kind != Kind::System {
            return None;
        }
        let mut made = Self { turn: 1, ..Self::default() };
        for (index, cell) in cells.iter_from(0) {
            made.leaving += u32::from(cell.is_leaving());
            match cell.slot {
                Slot::Ended => drop(made.free.insert((cell.agent, index))),
                Slot::Waiting | Slot::Live => drop(made.at.insert(cell.agent, index)),
            }
        }
        Some(Box::new(made))
    }

    /// Agents that are to have a task.
    #[must_use]
    pub fn bound(&self) -> u32 {
        u32::try_from(self.at.len()).expect("no more than cells") - self.leaving
    }

    /// True where a task is to leave its agent.
    #[must_use]
    pub const fn any_leaves(&self) -> bool {
        self.leaving > 0
    }

    /// The task that an agent has, though it may be to leave it.
    #[must_use]
    pub fn on(&self, agent: AgentId) -> Option<u32> {
        self.at.get(&agent).copied()
    }

    /// All agents that have one, with it.
    pub fn all(&self) -> impl Iterator<Item = (AgentId, u32)> {
        self.at.iter().map(|(agent, index)| (*agent, *index))
    }

    /// A task has ended for good.
    pub(super) fn left(&mut self, index: u32, cell: &Cell, was_leaving: bool) {
        self.at.remove(&cell.agent);
        self.free.insert((cell.agent, index));
        self.leaving -= u32::from(was_leaving);
    }

    fn change(&mut self) {
        self.turn += 1;
        self.stuck.clear();
        self.wanted = None;
    }

    /// A task for an agent that has none: the one that it had, or else any that nobody has.
    fn take_free(&mut self, agent: AgentId) -> Option<u32> {
        let own = self.free.range((agent, 0)..=(agent, u32::MAX)).next().copied();
        let found = own.or_else(|| self.free.first().copied())?;
        self.free.remove(&found);
        Some(found.1)
    }
}

impl LiveJob {
    /// How many tasks are wanted: of a system job as many as agents match.
    #[must_use]
    pub fn wanted(&self) -> u32 {
        self.derived.everywhere.as_ref().map_or(self.job.count, |everywhere| everywhere.bound())
    }

    /// Behind the last index of a task that is wanted.
    #[must_use]
    pub fn end_index(&self) -> u32 {
        if self.derived.everywhere.is_some() { self.cells.len() } else { self.job.count }
    }

    /// Tasks of a system job for which there is no room now, in a cluster of so many shards: they never began where they wait, so nobody misses them.
    #[must_use]
    pub fn roomless(&self, shards: u16) -> u32 {
        let Some(everywhere) = self.derived.everywhere.as_deref().filter(|everywhere| !everywhere.stuck.is_empty()) else { return 0 };
        let cells = self.derived.again.iter().filter_map(|index| self.cells.get(*index));
        let roomless = cells.filter(|cell| !cell.has_begun() && everywhere.stuck.contains(&shard_of_agent(cell.agent, shards)));
        u32::try_from(roomless.count()).expect("no more than cells")
    }

    /// True where none of its tasks may begin now.
    fn is_idle(&self) -> bool {
        self.stopping.is_some() || self.is_held()
    }

    /// The agents for which tasks wait that stand in its first line, or in its second.
    fn waiting_agents(&mut self, first: bool) -> (u64, Arc<Vec<AgentId>>) {
        let Some(everywhere) = self.derived.everywhere.as_deref_mut() else { return (0, Arc::default()) };
        let turn = everywhere.turn;
        let known = everywhere.wanted.take().filter(|(of, _)| *of == turn);
        let (again, again_old) = (&self.derived.again, &self.derived.again_old);
        let cells = &self.cells;
        let agents = |indexes: &mut dyn Iterator<Item = &u32>| -> Arc<Vec<AgentId>> {
            Arc::new(indexes.filter_map(|index| cells.get(*index)).map(|cell| cell.agent).collect())
        };
        let (_, lists) = known.unwrap_or_else(|| {
            let apart = everywhere.old.queued > 0;
            let lists = match apart {
                true => [agents(&mut again.iter()), agents(&mut again_old.iter())],
                false => [agents(&mut again.iter().chain(again_old)), Arc::default()],
            };
            (turn, lists)
        });
        let found = Arc::clone(&lists[usize::from(!first)]);
        everywhere.wanted = Some((turn, lists));
        (turn, found)
    }
}

impl Standing {
    /// So many tasks of this version and shape stand here now.
    fn set(&mut self, lines: &mut Lines, (id, job): (JobId, &Job), (version, shape): (u32, &Resources), now: u32) {
        if self.queued > 0 && self.version != version {
            lines.leave(self.line, id, self.queued);
            self.queued = 0;
        }
        match (self.queued, now) {
            (before, now) if before == now => {}
            (0, _) => (self.line, self.version) = (lines.join(id, job, shape, now), version),
            (before, 0) => lines.leave(self.line, id, before),
            (before, now) => lines.adjust(self.line, before, now),
        }
        self.queued = now;
    }
}

impl Jobs {
    /// A job of this kind is there, is another than before, or is no longer there.
    pub(super) fn system_changed(&mut self, id: JobId, kind: Kind) {
        if kind == Kind::System {
            self.systems_changed = true;
            if self.lasting.entries.contains_key(&id) {
                self.systems.insert(id)
            } else {
                self.systems.remove(&id)
            };
        }
    }

    /// These agents match a system job from now on, and those do no longer.
    pub fn matched(&mut self, id: JobId, joined: &[AgentId], left: &[AgentId], at: Time) {
        left.iter().for_each(|agent| self.unbind(id, *agent, at));
        joined.iter().for_each(|agent| self.bind(id, *agent, at));
        if self.live(id).is_some_and(|job| job.derived.everywhere.is_some()) {
            self.settle(id, at);
        }
    }

    fn unbind(&mut self, id: JobId, agent: AgentId, at: Time) {
        let Some(job) = self.live_mut(id) else { return };
        let Some(everywhere) = job.derived.everywhere.as_deref_mut() else { return };
        let Some((index, cell)) = everywhere.on(agent).and_then(|index| Some((index, job.cells.get_mut(index)?))) else { return };
        match cell.slot {
            Slot::Live if !cell.is_leaving() => {
                cell.set_leaving(true);
                everywhere.leaving += 1;
            }
            Slot::Waiting => self.withdraw(id, index, at),
            Slot::Live | Slot::Ended => {}
        }
    }

    fn bind(&mut self, id: JobId, agent: AgentId, at: Time) {
        let Some(job) = self.live_mut(id).filter(|job| job.stopping.is_none()) else { return };
        let (version, begun) = (job.version, job.cells.len());
        let Some(everywhere) = job.derived.everywhere.as_deref_mut() else { return };
        if let Some(cell) = everywhere.on(agent).and_then(|index| job.cells.get_mut(index)) {
            everywhere.leaving -= u32::from(cell.is_leaving());
            return cell.set_leaving(false);
        }
        let index = match everywhere.take_free(agent) {
            None if begun >= COUNT_MAX => return,
            None => {
                job.cells.push(Cell::bound(agent, 0, version, at), begun + MORE);
                begun
            }
            Some(index) => {
                let Some(cell) = job.cells.get_mut(index) else { return };
                let phase = cell.exit(job.uncommon.get(&index)).map_or(Phase::Failed, |exit| exit.phase());
                job.ends[end_position(phase)] -= 1;
                job.uncommon.remove(&index);
                *cell = Cell::bound(agent, cell.number, version, at);
                index
            }
        };
        everywhere.at.insert(agent, index);
        job.waiting_cells += 1;
        job.stand(index);
    }

    /// Puts a system job where its waiting tasks belong; true where it is one.
    pub(super) fn requeue_everywhere(&mut self, id: JobId) -> bool {
        let Some(Entry::Live(job)) = self.lasting.entries.get_mut(&id) else { return false };
        let most = if job.is_idle() { 0 } else { u32::MAX };
        let [new, old] =
            [&job.derived.again, &job.derived.again_old].map(|set| u32::try_from(set.len()).expect("no more than cells").min(most));
        let versions = [job.version, job.held_version().unwrap_or(job.version)];
        let shapes = versions.map(|version| job.template(version).resources.clone());
        let Some(everywhere) = job.derived.everywhere.as_deref_mut() else { return false };
        let counts = if shapes[0] == shapes[1] { [new + old, 0] } else { [new, old] };
        everywhere.old.set(&mut self.lines, (id, &job.job), (versions[1], &shapes[1]), counts[1]);
        let mut first = Standing { line: job.derived.line, queued: job.derived.queued, version: job.derived.line_version };
        first.set(&mut self.lines, (id, &job.job), (versions[0], &shapes[0]), counts[0]);
        (job.derived.line, job.derived.queued, job.derived.line_version) = (first.line, first.queued, first.version);
        everywhere.change();
        self.lines.changed = true;
        true
    }

    /// Takes a system job out of its second line.
    pub(super) fn unqueue_old(&mut self, id: JobId) {
        let Some(Entry::Live(job)) = self.lasting.entries.get_mut(&id) else { return };
        let Some(everywhere) = job.derived.everywhere.as_deref_mut().filter(|everywhere| everywhere.old.queued > 0) else { return };
        self.lines.leave(everywhere.old.line, id, everywhere.old.queued);
        everywhere.old.queued = 0;
    }

    /// The line of a system job whose tasks are of its present version, where some stand there.
    fn first_line(&self, id: JobId) -> Option<u64> {
        let job = self.live(id).filter(|job| job.derived.queued > 0)?;
        self.lines.get(job.derived.line)?.place.as_ref().map(|place| place.id)
    }

    /// In which turn it is so, and the agents for which tasks wait in the line `line` of a system job; `None` where it is none.
    pub(super) fn wanted_at(&mut self, id: JobId, line: u64) -> Option<(u64, Arc<Vec<AgentId>>)> {
        let first = self.first_line(id) == Some(line);
        let job = self.live_mut(id).filter(|job| job.derived.everywhere.is_some())?;
        Some(job.waiting_agents(first))
    }

    /// The task of a system job that waits for this agent, where `resources` has room for it.
    #[must_use]
    pub fn pick_at(&self, id: JobId, agent: AgentId, resources: &Resources) -> Vec<Pick> {
        let waits = || {
            let job = self.live(id).filter(|job| !job.is_idle())?;
            let index = job.derived.everywhere.as_ref()?.on(agent)?;
            let stands = job.derived.again.contains(&index) || job.derived.again_old.contains(&index);
            let cell = job.cells.get(index).filter(|_| stands)?;
            let fits = resources.contains(&job.template(job.next_version(index)).resources);
            fits.then(|| Pick { job: id, attempts: vec![(index, cell.number.saturating_add(1))] })
        };
        waits().into_iter().collect()
    }

    /// A shard says that none of its agents has room for what waits for them in this line; the job, where that is new.
    pub(super) fn stuck_at(&mut self, from: ShardId, id: JobId, (line, turn): (u64, u64)) -> Option<JobId> {
        let first = self.first_line(id) == Some(line);
        let everywhere = self.live_mut(id)?.derived.everywhere.as_deref_mut()?;
        (first && everywhere.turn == turn && everywhere.stuck.insert(from)).then_some(id)
    }
}
