//! System jobs: which a part of the seeds has, and what is promised of them. Never are two tasks of one on record on one agent (Y1); and when all has been
//! quiet for a while, each agent that matches has exactly one, or one that waits for room there, and no other agent has any (Y2).

use crate::check::{Verdict, hold};
use crate::plan::Plan;
use crate::random::Random;
use crate::world::World;
use master::shard::event::JobRef;
use master::shard::view::{JobView, TaskView, View, Viewed};
use master::shard::{Event, PeerMessage};
use protocol::job::RestartPolicy;
use protocol::message::shard_of_agent;
use protocol::{AgentId, Constraint, Field, Job, JobId, Kind, Name, Phase, Placement, Rule, ShardId, Stand, TaskId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Of a thousand jobs so many are system jobs, where some are.
const SYSTEMS: u64 = 250;
/// Of a thousand of these so many are for one rack only.
const OF_A_RACK: u64 = 400;
/// The most that a task of one needs: the smallest machine has more.
const CPU_MILLI_MAX: u64 = 250;
/// How long a task may wait though there is room, in milliseconds: offers lapse, and are declined.
const ABOUT_TO_MS: u64 = 12_000;

/// Draws which jobs are system jobs.
pub struct Systems(Option<Random>);

impl Systems {
    /// None of them where the plan says so.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self(plan.systems.then(|| Random::new(plan.seed ^ 0x5e7e)))
    }

    /// Perhaps makes it one, of this number.
    pub fn draw(&mut self, job: &mut Job, number: usize) {
        let Some(random) = self.0.as_mut() else { return };
        if !random.chance(SYSTEMS) {
            return;
        }
        (job.kind, job.count) = (Kind::System, 0);
        (job.restart.policy, job.restart.retries_max) = (RestartPolicy::Always, None);
        job.name = Name::new(&format!("everywhere-{number}")).ok();
        let rack = crate::places::rack(random.below(3) as usize);
        let constraints = vec![Constraint { field: Field::Rack, rule: Rule::Is(rack) }];
        job.place = random.chance(OF_A_RACK).then(|| Arc::new(Placement { constraints, spread: vec![] }));
        let template = Arc::make_mut(&mut job.template);
        let member = &mut template.members[0];
        member.env.clear();
        member.resources.cpu_milli = member.resources.cpu_milli.min(CPU_MILLI_MAX);
        template.resources = member.resources.clone();
    }
}

/// The bug: of agents that match since the jobs' shard asked nothing is heard.
pub fn overlook(event: &mut Event) {
    if let Event::Peer { message: PeerMessage::MatchesSaid { whole: false, matching, .. }, .. } = event {
        matching.clear();
    }
}

/// A task was staged on an agent, among those that live: itself too.
///
/// # Errors
/// Another one of its system job is there.
pub fn alone(jobs: &BTreeMap<JobId, Job>, live: &BTreeMap<TaskId, (u32, AgentId)>, task: TaskId) -> Verdict {
    let system = jobs.get(&task.job).is_some_and(|job| job.kind == Kind::System);
    let Some((_, agent)) = live.get(&task).filter(|_| system) else { return Ok(()) };
    let others = live.range(TaskId { index: 0, ..task }..=TaskId { index: u32::MAX, ..task });
    let other = others.filter(|(other, (_, on))| on == agent && **other != task).map(|(other, _)| *other).next();
    hold(other.is_none(), || format!("Y1: {task} was staged on {agent}, where {other:?} lives"))
}

impl World {
    fn seen(&self, shard: ShardId, view: View) -> Option<Viewed> {
        let at = usize::from(shard.0);
        let seat = self.leader(at).and_then(|leader| self.masters[leader].seats[at].as_ref())?;
        seat.shard.viewed(view).ok()
    }

    /// Whether each agent that matches has what it is to have, where all has been quiet for a while.
    pub(crate) fn judge_systems(&self) -> Verdict {
        let systems = self.clients.submissions.iter().filter(|one| one.job.kind == Kind::System);
        for id in systems.filter_map(|one| one.acknowledged) {
            let Some(Viewed::Job(view)) = self.seen(id.shard(), View::Job(JobRef::Id(id))) else { continue };
            let asked = View::Tasks { job: JobRef::Id(id), from: 0, limit: 1_000, phases: vec![] };
            let Some(Viewed::Tasks(tasks)) = self.seen(id.shard(), asked) else { continue };
            if view.ended.is_none() && !view.stopping {
                (0..self.machines.len()).try_for_each(|at| self.judge_on(at, &view, &tasks))?;
            }
        }
        Ok(())
    }

    fn judge_on(&self, at: usize, job: &JobView, tasks: &[TaskView]) -> Verdict {
        let machine = &self.machines[at];
        let shard = shard_of_agent(machine.id, self.plan.shards);
        let Some(Viewed::Agents(agents)) = self.seen(shard, View::Agents) else { return Ok(()) };
        let Some(agent) = agents.iter().find(|agent| agent.id == machine.id && agent.state == "reachable") else { return Ok(()) };
        let place = job.job.place.as_deref().cloned().unwrap_or_default();
        let mut devices = job.job.template.resources.devices.iter().filter(|device| !device.is_revocable());
        let has = devices.all(|device| machine.info.capacity.devices.iter().any(|other| other.name == device.name));
        let stand = Stand::from(&machine.info);
        let is = |constraint: &Constraint| matches!(&constraint.rule, Rule::Is(value) if constraint.field.of(&stand) == Some(value));
        let matches = has && place.constraints.iter().all(is);
        let here: Vec<&TaskView> = tasks.iter().filter(|task| task.agent == Some(machine.id)).collect();
        let said = || format!("of {} {} has {here:?}, being {} and {matches}", job.id, machine.info.name, agent.mode);
        match (agent.mode.as_ref(), &here[..]) {
            ("active", [one]) if matches => hold(self.has_cause(one, job, shard), || format!("Y2: there is room; {}", said())),
            ("inactive", [] | [_]) if matches => Ok(()),
            ("active", _) if matches => Err(format!("Y2: {}", said())),
            _ => hold(here.iter().all(|task| task.phase == Phase::Killing), || format!("Y2: {}", said())),
        }
    }

    /// Whether a task is where it is to be, or waits for a reason.
    fn has_cause(&self, task: &TaskView, job: &JobView, shard: ShardId) -> bool {
        let limited = self.plan.limits || self.plan.reserves || self.plan.lends;
        let soon = task.retry_at.is_some() || self.now.since(task.since) < ABOUT_TO_MS;
        if task.phase != Phase::Waiting || limited || soon {
            return true;
        }
        let agents = task.agent.into_iter().collect();
        let view = View::Rooms { role: job.job.role.clone(), shape: job.job.template.resources.clone(), agents };
        matches!(self.seen(shard, view), Some(Viewed::Rooms(rooms)) if rooms.iter().all(|(.., why)| !why.is_empty()))
    }
}
