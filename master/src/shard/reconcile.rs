//! The framework's shard: what it believes of its tasks against what agents hold, and what is wanted against what runs.

use super::event::Change;
use super::tasks::{Ends, note};
use super::{Action, PeerMessage, Shard};
use crate::jobs::{LiveJob, LivePhase, Slot};
use protocol::message::{ATTEMPTS_PER_MESSAGE_MAX, Launch, shard_of_agent};
use protocol::{AgentId, AttemptId, Held, JobId, Kind, Loss, Name, Phase};
use std::collections::{BTreeMap, BTreeSet};

/// Milliseconds that a task has when it is not the user who ends it but a new version or a smaller count.
pub const GRACE_MS: u64 = 10_000;

impl Shard {
    /// All that an agent holds of our tasks, in which session and life. What we believe there beyond it is gone or never came, unless what
    /// we said of the agent is not `known` yet to who says so; what it holds beyond it is stale.
    pub(super) fn agent_reported(&mut self, agent: AgentId, (session, incarnation): (u64, u64), held: &[Held], known: bool) {
        if self.unreachable.remove(&agent) {
            self.agent_news(agent, true);
        }
        let given = self.jobs.incarnation_on(agent);
        let reborn = given.is_some_and(|given| given != incarnation);
        let ours: Vec<AttemptId> = self.attempts_on(agent);
        let mut beyond: BTreeMap<AttemptId, bool> = held.iter().map(|held| (held.attempt, held.ended)).collect();
        let (mut ends, mut stage, mut kill, mut touched) = (Ends::new(), Vec::new(), Vec::new(), Vec::new());
        for attempt in ours {
            let Some((wanted, phase)) =
                self.jobs.live(attempt.task.job).map(|job| job.wants(attempt.task.index)).zip(self.phase_of(attempt))
            else {
                continue;
            };
            if touched.last() != Some(&attempt.task.job) {
                touched.push(attempt.task.job);
            }
            match (beyond.remove(&attempt), phase) {
                (Some(ended), _) => {
                    self.undoubt(attempt);
                    if !ended && phase < LivePhase::Running {
                        let runs = self.jobs.live(attempt.task.job).map(|job| job.running_phase(attempt.task.index));
                        self.jobs.set_phase(attempt, runs.unwrap_or(LivePhase::Running));
                        self.task_news(attempt.task.job, Phase::Running);
                    }
                    stage.push(attempt);
                    if !ended && (!wanted || phase == LivePhase::Killing) {
                        kill.push(attempt);
                    }
                }
                // Launched now, it would run beside what replaces it.
                (None, _) if self.fences.doubts(attempt) => {}
                // A launch may be on its way: said again it does no harm, and then a refusal of it says nothing.
                (None, _) if !known && given == Some(incarnation) => {
                    if wanted && phase == LivePhase::Staging {
                        self.jobs.set_phase(attempt, LivePhase::StagedAgain);
                    }
                    stage.push(attempt);
                    if !wanted || phase == LivePhase::Killing {
                        kill.push(attempt);
                    }
                }
                (None, _) if reborn => self.infer(&mut ends, agent, attempt, self.loss(attempt, Loss::Reboot)),
                // Its ledger never forgets what it took on before the end is on record: it never took this.
                (None, LivePhase::Staging) if wanted && given == Some(incarnation) => {
                    self.jobs.set_phase(attempt, LivePhase::StagedAgain);
                    stage.push(attempt);
                }
                (None, _) => self.infer(&mut ends, agent, attempt, self.loss(attempt, Loss::Forgotten)),
            }
        }
        self.end_attempts(agent, ends);
        // What has ended may end others of its group: said before they are launched again, that is said once more behind it.
        let asked: BTreeSet<AttemptId> = kill.iter().copied().collect();
        let doomed = |attempt: &&AttemptId| self.phase_of(**attempt) == Some(LivePhase::Killing) && !asked.contains(*attempt);
        kill.extend(stage.iter().filter(doomed));
        self.stage_again(agent, session, &stage);
        self.kill_on(agent, kill, GRACE_MS);
        self.drop_stale(agent, &beyond);
        for id in touched {
            self.reconcile(id, GRACE_MS);
        }
        self.empty(agent);
    }

    fn attempts_on(&self, agent: AgentId) -> Vec<AttemptId> {
        let tasks = self.jobs.by_agent.get(&agent).into_iter().flatten();
        let number = |id: &JobId, index: u32| self.jobs.live(*id).and_then(|job| job.cells.get(index)).map(|cell| cell.number);
        tasks.filter_map(|(id, index)| number(id, *index).map(|number| AttemptId::new(*id, *index, number))).collect()
    }

    /// Attempts that an agent holds and that are not, or no longer, its own.
    fn drop_stale(&mut self, agent: AgentId, held: &BTreeMap<AttemptId, bool>) {
        if held.is_empty() {
            return;
        }
        let (ended, running): (Vec<_>, Vec<_>) = held.iter().partition(|(_, ended)| **ended);
        let ids = |held: Vec<(&AttemptId, &bool)>| held.into_iter().map(|(attempt, _)| *attempt).collect();
        self.acknowledge(agent, ids(ended));
        self.kill_at(agent, ids(running));
        self.tell_shard_of(agent, PeerMessage::Release { agent, attempts: held.keys().copied().collect() });
    }

    /// Says to the agent's shard what is to be there; it launches what is not.
    fn stage_again(&mut self, agent: AgentId, session: u64, attempts: &[AttemptId]) {
        let mut launches: BTreeMap<(JobId, u32), Vec<(u32, u32)>> = BTreeMap::new();
        for attempt in attempts {
            let cell = self.jobs.live(attempt.task.job).and_then(|job| job.cells.get(attempt.task.index));
            if let Some(cell) = cell.filter(|cell| cell.slot == Slot::Live) {
                launches.entry((attempt.task.job, cell.version)).or_default().push((attempt.task.index, attempt.number));
            }
        }
        let mut list = Vec::new();
        for ((id, version), attempts) in launches {
            let Some(job) = self.jobs.live(id) else { continue };
            list.extend(attempts.chunks(ATTEMPTS_PER_MESSAGE_MAX).map(|part| launch_of(id, job, version, part.to_vec())));
        }
        let to = shard_of_agent(agent, self.config.shards);
        self.say_ranks(to, &list);
        self.say_tied(to, &list);
        let number = self.told.say(agent);
        if !self.jobs.by_agent.contains_key(&agent) {
            self.told.forget(agent);
        }
        self.tell_shard_of(agent, PeerMessage::Stage { agent, session, launches: list, number });
    }

    /// An agent of another shard, or ours, can or cannot be reached.
    pub(super) fn agent_reachable(&mut self, agent: AgentId, reachable: bool) {
        let is_new = if reachable { self.unreachable.remove(&agent) } else { self.unreachable.insert(agent) };
        if is_new {
            self.agent_news(agent, reachable);
        }
    }

    /// The tasks of an agent are to be replaced.
    pub(super) fn agent_lost(&mut self, agent: AgentId, gone: bool) {
        let reason = if gone { Loss::AgentGone } else { Loss::AgentSilent };
        let mut ends = Ends::new();
        for attempt in self.attempts_on(agent) {
            let exit = protocol::Exit::Lost { reason };
            // One that is silent was last answered longer ago than its lease holds: it is called lost no earlier.
            if gone { self.infer(&mut ends, agent, attempt, exit) } else { note(&mut ends, attempt, exit) }
        }
        self.unreachable.remove(&agent);
        self.end_attempts(agent, ends);
    }

    /// Stops what of a job is not wanted, and goes on with its new version.
    pub(super) fn reconcile(&mut self, id: JobId, grace_ms: u64) {
        let Some(job) = self.jobs.live(id).filter(|job| job.live > 0) else { return };
        let from = match job.stopping {
            Some(_) => 0,
            None if job.job.kind == Kind::Service => job.total(),
            None if job.derived.everywhere.as_ref().is_some_and(|everywhere| everywhere.any_leaves()) => 0,
            None => return,
        };
        self.stop_from(id, from, job.stopping.unwrap_or(grace_ms));
        self.roll(id);
    }

    /// Stops what of a service there is beyond what there is to be.
    pub(super) fn stop_beyond(&mut self, id: JobId) {
        let Some(job) = self.jobs.live(id).filter(|job| job.live > 0 && job.job.kind == Kind::Service) else { return };
        self.stop_from(id, job.total(), GRACE_MS);
    }

    fn stop_from(&mut self, id: JobId, from: u32, grace_ms: u64) {
        let Some(job) = self.jobs.live(id) else { return };
        let running = job.cells.iter_from(from).filter(|(_, cell)| cell.slot == Slot::Live && cell.phase != LivePhase::Killing);
        let running = running.filter(|(index, _)| !job.wants(*index));
        let indexes: Vec<u32> = running.map(|(index, _)| index).collect();
        self.kill_tasks(id, &indexes, grace_ms);
    }

    /// Replaces some tasks of older versions, as many as may be down at a time.
    pub(super) fn roll(&mut self, id: JobId) {
        if self.jobs.live(id).is_some_and(|job| job.rollout.is_some()) {
            return if self.jobs.rolling.contains(&id) {
                self.advance_deployment(id)
            };
        }
        // As masters of before have put it on record.
        let unwell = self.unwell_and_outdated(id);
        let Some(job) = self.jobs.live_mut(id).filter(|job| job.stopping.is_none() && job.outdated() > 0) else { return };
        if !job.job.kind.lasts() {
            return;
        }
        if !unwell.is_empty() {
            self.kill_tasks(id, &unwell, GRACE_MS);
        }
        let Some(job) = self.jobs.live_mut(id) else { return };
        let down = job.wanted().saturating_sub(job.ready_tasks());
        let most = job.job.update_parallel.max(1).saturating_sub(down) as usize;
        if most == 0 {
            return;
        }
        let outdated =
            |cell: &crate::jobs::Cell| cell.slot == Slot::Live && cell.version != job.version && cell.phase != LivePhase::Killing;
        let from = job.derived.roll_from;
        let found = job.cells.iter_from(from).filter(|(_, cell)| outdated(cell)).map(|(index, _)| index).take(most);
        let indexes: Vec<u32> = found.collect();
        job.derived.roll_from = indexes.last().map_or(job.cells.len(), |last| last + 1);
        self.kill_tasks(id, &indexes, GRACE_MS);
    }

    /// Asks for the end of live tasks of one job.
    pub(super) fn kill_tasks(&mut self, id: JobId, indexes: &[u32], grace_ms: u64) {
        let mut by_agent: BTreeMap<AgentId, Vec<(u32, u32)>> = BTreeMap::new();
        let Some(job) = self.jobs.live_mut(id) else { return };
        for index in indexes {
            if let Some(cell) = job.cells.get(*index).filter(|cell| cell.slot == Slot::Live) {
                by_agent.entry(cell.agent).or_default().push((*index, cell.number));
                job.set_phase(*index, LivePhase::Killing);
            }
        }
        for (agent, attempts) in by_agent {
            self.publish_tasks(id, Phase::Killing, agent, &attempts);
            let attempts = attempts.into_iter().map(|(index, number)| AttemptId::new(id, index, number)).collect();
            self.tell_shard_of(agent, PeerMessage::Kill { agent, attempts, grace_ms });
        }
    }

    /// Asks again for the end of tasks on one agent.
    fn kill_on(&mut self, agent: AgentId, attempts: Vec<AttemptId>, grace_ms: u64) {
        for attempt in &attempts {
            self.jobs.set_phase(*attempt, LivePhase::Killing);
        }
        if !attempts.is_empty() {
            let to = shard_of_agent(agent, self.config.shards);
            self.held(Action::Peer { to, message: PeerMessage::Kill { agent, attempts, grace_ms } });
        }
    }

    /// Says that a job is another than before.
    pub(super) fn publish_job(&mut self, id: JobId, what: &'static str) {
        let Some(job) = self.jobs.live(id) else { return };
        let (role, title) = (job.job.role.clone(), title(id, job.job.name.as_ref()));
        self.publish(Change::Job { job: id, role, title, what: what.into() });
    }
}

/// What people call a job.
pub(super) fn title(id: JobId, name: Option<&Name>) -> String {
    name.map_or_else(|| id.to_string(), |name| name.as_str().into())
}

/// A launch of tasks in one version of their job; session and sequence are filled in by the agent's shard.
pub(super) fn launch_of(id: JobId, job: &LiveJob, version: u32, attempts: Vec<(u32, u32)>) -> Launch {
    let title = title(id, job.job.name.as_ref());
    let template = job.template(version).clone();
    Launch { session: 0, sequence: 0, job: id, title, role: job.job.role.clone(), template, attempts }
}
