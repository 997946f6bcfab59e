//! What a shard shows of itself. Answers wait for what was committed before, so whoever reads them reads what lasts.

use super::pool::{Silence, Standing};
use super::view::{ATTEMPTS_MAX, AgentView, Figures, JobView, PAGE_MAX, RolesView, TaskView, View, Viewed};
use super::{Refusal, Response, Shard};
use crate::jobs::job::{ENDS, Ends};
use crate::jobs::{Cell, Entry, Slot};
use protocol::{AgentInfo, AttemptId, Exit, JobId, Phase, RequestId, Time};
use std::collections::BTreeMap;

impl Shard {
    /// Somebody wants to see.
    pub(super) fn view(&mut self, id: RequestId, view: View) -> Result<(), Refusal> {
        let viewed = self.viewed(view)?;
        self.reply(id, Response::Viewed(Box::new(viewed)));
        Ok(())
    }

    /// What is so, as far as this replica knows. Where it does not lead, that may be a little old, and of agents it knows only what is on record.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub fn viewed(&self, view: View) -> Result<Viewed, Refusal> {
        Ok(match view {
            View::Jobs { role, after, limit, ended } => {
                Viewed::Jobs(self.job_views(|of| role.as_ref().is_none_or(|role| role == of), after, limit, ended))
            }
            View::Job(job) => {
                let view = self.found(&job).ok().and_then(|id| self.job_view(id));
                Viewed::Job(Box::new(view.ok_or(Refusal::NotFound { what: "job".into() })?))
            }
            View::Tasks { job, from, limit, phases } => Viewed::Tasks(self.task_views(self.found(&job)?, from, limit, &phases)),
            View::Explain { job, index } => Viewed::Explain(self.explain(self.found(&job)?, index)?),
            View::ExplainShape { role, shape } => Viewed::Shape(self.explain_shape(&role, &shape, &super::explain::Asked::default())),
            View::ExplainPlaced { role, shape, place, limits } => {
                Viewed::Shape(self.explain_shape(&role, &shape, &super::explain::Asked::new(&place, limits)))
            }
            View::Limits { job } => Viewed::Limits(self.jobs.limits(self.found(&job)?)),
            View::Agents => Viewed::Agents(self.agent_views()),
            View::Tokens => Viewed::Tokens(self.rest.tokens.values().cloned().collect()),
            View::Policies => Viewed::Policies(self.rest.policies.iter().map(|(role, policy)| (role.clone(), policy.clone())).collect()),
            View::Figures => Viewed::Figures(self.figures()),
            View::Masters => Viewed::Masters(self.rest.masters.all()),
            View::Frameworks => Viewed::Frameworks(self.framework_views()),
            View::Roles => Viewed::Roles(RolesView {
                settings: self.quotas.settings(),
                spent: self.jobs.spent.iter().map(|(role, spent)| (role.clone(), spent.clone())).collect(),
                total: self.pool.total.clone(),
            }),
            View::Windows => Viewed::Windows(self.maintenance.lasting.list.clone()),
            View::Consents => Viewed::Consents(self.consents()),
            View::Session { framework } => Viewed::Session(self.session_view(framework)?),
            View::Openings { framework } => Viewed::Openings(self.opening_views(framework)),
            View::Offer { offer } => Viewed::Offer(self.offer_view(offer)?),
            View::Reserved => Viewed::Reserved(self.reserved_views()),
            View::Devices => Viewed::Devices(self.device_views()),
            View::Attempts { agent } => {
                let (_, seat) = self.pool.seat(agent).ok_or_else(|| Refusal::NotFound { what: "agent".into() })?;
                Viewed::Attempts(seat.attempts.keys().take(ATTEMPTS_MAX).collect())
            }
            View::HealthCounts { jobs } => Viewed::HealthCounts(self.health_counts(&jobs[..jobs.len().min(PAGE_MAX)])),
            View::Healths { job, indexes } => {
                Viewed::Healths(self.health_views(self.found(&job)?, &indexes[..indexes.len().min(PAGE_MAX)]))
            }
            View::Deployments { job, role, ended } => Viewed::Deployments(self.deployment_views(job.as_ref(), role.as_ref(), ended)?),
            View::After(job) => Viewed::After(self.held_view(self.found(&job)?)?),
            View::Versions(job) => Viewed::Versions(self.version_views(&job)?),
            View::Rooms { role, shape, agents } => Viewed::Rooms(self.rooms(&role, &shape, &agents[..agents.len().min(PAGE_MAX)])),
            View::Origins(jobs) => Viewed::Origins(self.origin_views(&jobs)),
            View::PlugIns => Viewed::PlugIns(self.plug_ins_view()),
            View::Copy { tasks_max } => Viewed::Copy(Box::new(self.copied(tasks_max)?)),
            View::FrameworkTasks { framework, from, skip, limit } => {
                Viewed::FrameworkTasks(self.own_views(framework, &from, skip, limit.min(PAGE_MAX))?)
            }
        })
    }

    fn job_views(&self, of_role: impl Fn(&protocol::Role) -> bool, after: Option<JobId>, limit: usize, ended: bool) -> Vec<JobView> {
        let first = after.map_or(JobId(0), |after| JobId(after.0.saturating_add(1)));
        let right = |id: &JobId| match self.jobs.entry(*id) {
            Some(Entry::Live(job)) => of_role(&job.job.role),
            Some(Entry::Ended(job)) => of_role(&job.role),
            None => false,
        };
        let limit = limit.min(PAGE_MAX);
        let all = self.jobs.lasting.entries.range(first..).map(|(id, _)| *id).filter(|_| ended);
        let live = self.jobs.live.range(first..).copied().filter(|_| !ended);
        all.chain(live).filter(right).take(limit).filter_map(|id| self.job_view(id)).collect()
    }

    /// A job as it stands.
    pub(super) fn job_view(&self, id: JobId) -> Option<JobView> {
        match self.jobs.entry(id)? {
            Entry::Live(job) => {
                // Tasks of a system job that have lost their agents are none of its any more.
                let system = job.derived.everywhere.is_some() && job.stopping.is_none();
                let mut tasks = if system { BTreeMap::new() } else { ended_counts(&job.ends) };
                let mut add = |phase, n: u32| *tasks.entry(phase).or_insert(0) += n;
                add(Phase::Waiting, job.unbegun() + job.waiting_cells);
                if job.stopping.is_some() {
                    add(Phase::Killed, job.total().saturating_sub(job.cells.len()));
                }
                let unreachable = self.unreachable_of(id);
                for (index, cell) in &unreachable {
                    debug_assert!(*index < job.cells.len() && cell.slot == Slot::Live);
                }
                let mut phases = job.derived.phases;
                for (_, cell) in &unreachable {
                    phases[cell.phase as usize] -= 1;
                }
                for (phase, n) in PHASES.into_iter().zip(phases) {
                    add(phase, n);
                }
                add(Phase::Unreachable, u32::try_from(unreachable.len()).unwrap_or(u32::MAX));
                tasks.retain(|_, n| *n > 0);
                let (version, stopping) = (job.version, job.stopping.is_some());
                let (submitted, restarts) = (job.submitted, job.restarts);
                let shown = protocol::Job { count: job.wanted(), ..job.job.clone() };
                Some(JobView { id, job: shown, version, stopping, submitted, ended: None, tasks, restarts })
            }
            Entry::Ended(job) => {
                let mut tasks = ended_counts(&job.ends);
                *tasks.entry(Phase::Killed).or_insert(0) += job.unbegun;
                tasks.retain(|_, n| *n > 0);
                Some(JobView {
                    id,
                    job: job.job()?,
                    version: job.version,
                    stopping: job.stopped,
                    submitted: job.submitted,
                    ended: Some(job.ended),
                    tasks,
                    restarts: job.restarts,
                })
            }
        }
    }

    /// Live tasks of a job on agents that cannot be reached; there are few such agents.
    pub(super) fn unreachable_of(&self, id: JobId) -> Vec<(u32, Cell)> {
        let Some(job) = self.jobs.live(id) else { return Vec::new() };
        let on = |agent| self.jobs.by_agent.get(agent).into_iter().flat_map(|tasks| tasks.range((id, 0)..=(id, u32::MAX)));
        let tasks = self.unreachable.iter().flat_map(on);
        tasks.filter_map(|(_, index)| job.cells.get(*index).map(|cell| (*index, *cell))).collect()
    }

    fn task_views(&self, id: JobId, from: u32, limit: usize, phases: &[Phase]) -> Vec<TaskView> {
        let count = match self.jobs.entry(id) {
            Some(Entry::Live(job)) => job.total().max(job.cells.len()),
            Some(Entry::Ended(job)) => job.cells.len() + job.unbegun,
            None => 0,
        };
        let left = |view: &TaskView| self.jobs.live(id).is_some_and(|job| job.job.kind == protocol::Kind::System && !job.wants(view.index));
        let right = |view: &TaskView| {
            let ended = view.exit.is_some() && !matches!(view.phase, Phase::Waiting | Phase::Killing | Phase::Unreachable);
            (phases.is_empty() || phases.contains(&view.phase)) && !(ended && left(view))
        };
        let scanned = (from..count).take(TASKS_SCANNED_MAX);
        scanned.filter_map(|index| self.task_view(id, index)).filter(right).take(limit.min(PAGE_MAX)).collect()
    }

    /// A task as it stands.
    pub(super) fn task_view(&self, id: JobId, index: u32) -> Option<TaskView> {
        let (cell, uncommon, unbegun) = match self.jobs.entry(id)? {
            Entry::Live(job) => {
                let phase = if job.stopping.is_some() { Phase::Killed } else { Phase::Waiting };
                (job.cells.get(index), job.uncommon.get(&index), (index < job.total()).then_some((phase, job.submitted)))
            }
            Entry::Ended(job) => {
                let unbegun = index.checked_sub(job.cells.len()).filter(|over| *over < job.unbegun);
                (job.cells.get(index), job.uncommon.get(&index), unbegun.map(|_| (Phase::Killed, job.ended)))
            }
        };
        let Some(cell) = cell else { return unbegun.map(|(phase, since)| waiting_view(index, phase, since)) };
        let exit = cell.exit(uncommon);
        let phase = match cell.slot {
            Slot::Waiting => Phase::Waiting,
            Slot::Live if self.unreachable.contains(&cell.agent) => Phase::Unreachable,
            Slot::Live => cell.phase.phase(),
            Slot::Ended => exit.as_ref().map_or(Phase::Failed, Exit::phase),
        };
        let ports = self.jobs.live(id).and_then(|job| job.derived.ports.get(&index)).cloned().unwrap_or_default();
        Some(TaskView {
            index,
            attempt: cell.number,
            phase,
            agent: Some(cell.agent),
            since: cell.since,
            usage: exit.is_some().then_some(cell.usage),
            exit,
            retry_at: cell.retry_at(),
            version: cell.version,
            ports,
            progress: self.notes.get(&AttemptId::new(id, index, cell.number)).cloned(),
        })
    }

    fn agent_views(&self) -> Vec<AgentView> {
        let view = |(id, known): (&protocol::AgentId, &super::snapshot::KnownAgent)| {
            let seat = self.pool.seat(*id).map(|(_, seat)| seat);
            let state = match seat {
                _ if known.gone => "gone",
                Some(seat) if seat.silence != Silence::None || seat.disconnected && seat.standing != Standing::Expected => "unreachable",
                Some(seat) if seat.standing != Standing::Expected => "reachable",
                _ => "expected",
            };
            let mut allocated = seat.map(|seat| seat.booked.clone()).unwrap_or_default();
            if let Some(seat) = seat {
                super::amounts::add(&mut allocated, &seat.offered, 1);
            }
            let attempts = seat.map_or(0, |seat| u32::try_from(seat.attempts.len()).unwrap_or(u32::MAX));
            let heard = seat.map_or(known.since, |seat| seat.heard);
            let mode = match super::drains::mode_text(self.drains.mode(*id)) {
                "draining" if attempts == 0 => "drained",
                mode => mode,
            };
            let mut info = AgentInfo::clone(&known.info);
            if let Some(seat) = seat.filter(|_| !known.gone) {
                info.capacity.clone_from(&seat.capacity); // With what it lends.
            }
            AgentView { id: *id, info, state: state.into(), mode: mode.into(), allocated, attempts, heard }
        };
        self.rest.agents.iter().map(view).collect()
    }

    fn figures(&self) -> Figures {
        let reachable =
            |seat: &&super::pool::Seat| seat.standing != Standing::Expected && seat.silence == Silence::None && !seat.disconnected;
        let reachable = self.pool.seats.iter().filter(reachable).count() as u64;
        let known = self.rest.agents.values().filter(|known| !known.gone).count() as u64;
        let live = self.jobs.live.iter().filter_map(|id| self.jobs.live(*id));
        let (mut tasks_live, mut tasks_ended, mut backing_off) = (0, self.jobs.history_tasks() as u64, 0);
        for job in live {
            tasks_live += u64::from(job.live);
            tasks_ended += job.ends.iter().map(|n| u64::from(*n)).sum::<u64>();
            backing_off += u64::from(job.backing_off());
        }
        Figures {
            jobs_live: self.jobs.live.len() as u64,
            jobs_ended: self.jobs.lasting.history.len() as u64,
            tasks_waiting: self.jobs.lines.waiting() + backing_off,
            tasks_live,
            tasks_ended,
            agents_reachable: reachable,
            agents_unreachable: known.saturating_sub(reachable),
            offers: self.pool.offers.len() as u64,
            staged_total: self.totals.staged,
            ended_total: self.totals.ended,
            refused_total: self.totals.refused,
        }
    }
}

/// Most tasks that are looked at for one page; whoever filters for rare states asks on from the last index.
const TASKS_SCANNED_MAX: usize = 100_000;

/// As people see them, in the order of [`crate::jobs::LivePhase`].
const PHASES: [Phase; crate::jobs::LivePhase::COUNT] =
    [Phase::Staging, Phase::Staging, Phase::Starting, Phase::Running, Phase::Running, Phase::Running, Phase::Running, Phase::Killing];

fn ended_counts(ends: &Ends) -> BTreeMap<Phase, u32> {
    ENDS.into_iter().zip(*ends).collect()
}

fn waiting_view(index: u32, phase: Phase, since: Time) -> TaskView {
    let exit = (phase == Phase::Killed).then_some(Exit::Killed);
    TaskView {
        index,
        attempt: 0,
        phase,
        agent: None,
        since,
        exit,
        usage: None,
        retry_at: None,
        version: 0,
        ports: Vec::new(),
        progress: None,
    }
}
