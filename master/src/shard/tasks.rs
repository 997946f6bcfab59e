//! The framework's shard: what agents say of its tasks, and what an end leads to. Each end is put on record once, and acknowledged as often
//! as it is said.

use super::event::Change;
use super::{Action, PeerMessage, Record, Response, Shard};
use crate::jobs::{Entry, LivePhase, Slot};
use protocol::message::ATTEMPTS_PER_MESSAGE_MAX;
use protocol::task::{NOTE_BYTES_MAX, REASON_BYTES_MAX};
use protocol::{AgentId, AttemptId, Exit, FromMaster, JobId, Loss, Phase, Progress, TaskState, Update, Usage};
use std::collections::BTreeMap;

use super::record::Ended;

/// Tasks of one shard whose progress is kept; what others say is passed over.
const NOTES_MAX: usize = 65_536;

/// Ends of attempts on one agent, by job.
pub(super) type Ends = BTreeMap<JobId, Vec<Ended>>;

impl Shard {
    /// Status updates: old ones, repeated ones and those of tasks that are not on that agent change nothing.
    pub(super) fn statuses(&mut self, agent: AgentId, updates: Vec<Update>) {
        if updates.len() > ATTEMPTS_PER_MESSAGE_MAX {
            return self.disconnect(agent, "more updates than a message may have");
        }
        let (mut ends, mut acks, mut stale) = (Ends::new(), Vec::new(), Vec::new());
        let mut news: BTreeMap<(JobId, LivePhase), Vec<(u32, u32)>> = BTreeMap::new();
        let shard = self.config.id;
        for Update { attempt, state } in updates.into_iter().filter(|update| update.attempt.shard() == shard) {
            let live = self.jobs.is_live_on(attempt, agent);
            match state {
                TaskState::Ended { exit, usage } => {
                    acks.push(attempt);
                    if live {
                        let exit = self.as_asked(attempt, agent, self.truth(attempt, exit));
                        let end = Ended { index: attempt.task.index, number: attempt.number, exit, usage };
                        ends.entry(attempt.task.job).or_default().push(end);
                    }
                }
                _ if !live => stale.push(attempt),
                state => {
                    if let Some(phase) = self.said(attempt, state) {
                        news.entry((attempt.task.job, phase)).or_default().push((attempt.task.index, attempt.number));
                    }
                }
            }
        }
        let mut heard: Vec<JobId> = Vec::new();
        for ((job, phase), attempts) in news {
            self.publish_tasks(job, phase.phase(), agent, &attempts);
            self.task_news(job, phase.phase());
            if heard.last() != Some(&job) {
                heard.push(job);
            }
        }
        self.end_attempts(agent, ends);
        // Not before all of it is known.
        heard.into_iter().for_each(|job| self.roll(job));
        self.acknowledge(agent, acks);
        self.kill_at(agent, stale);
    }

    /// How far live tasks say that they are: shown, and nothing else.
    pub(super) fn progressed(&mut self, agent: AgentId, notes: Vec<Progress>) {
        for Progress { attempt, percent, note } in notes {
            let room = self.notes.len() < NOTES_MAX || self.notes.contains_key(&attempt);
            if room && percent <= 100 && note.len() <= NOTE_BYTES_MAX && self.jobs.is_live_on(attempt, agent) {
                self.own_progress(attempt, percent, &note);
                self.notes.insert(attempt, (percent, note));
            }
        }
    }

    /// How an attempt ended: what was asked to stop was killed, whatever its code was then.
    fn truth(&self, attempt: AttemptId, exit: Exit) -> Exit {
        let job = self.jobs.live(attempt.task.job);
        let cell = job.and_then(|job| job.cells.get(attempt.task.index));
        let asked = cell.is_some_and(|cell| cell.phase == LivePhase::Killing);
        match exit {
            Exit::Code(_) | Exit::Signal(_) if asked => Exit::Killed,
            Exit::Trap { reason } => Exit::Trap { reason: cut(reason) },
            Exit::Rejected { reason } => Exit::Rejected { reason: cut(reason) },
            Exit::Unhealthy { .. } if asked => Exit::Killed,
            Exit::Unhealthy { reason } => Exit::Unhealthy { reason: super::healths::plain(&reason) },
            exit => exit,
        }
    }

    /// Notes a live task's state; gives back what is new.
    fn said(&mut self, attempt: AttemptId, state: TaskState) -> Option<LivePhase> {
        let job = self.jobs.live_mut(attempt.task.job)?;
        let index = attempt.task.index;
        let before = job.cells.get(index)?.phase;
        let phase = match state {
            TaskState::Starting => LivePhase::Starting,
            TaskState::Running { ports, .. } => {
                if !ports.is_empty() && ports.len() == job.job.template.ports().count() {
                    job.derived.ports.insert(index, ports);
                }
                job.running_phase(index)
            }
            _ => LivePhase::Killing,
        };
        if phase <= before {
            return None;
        }
        // `Killing` is what we asked for: an agent that says so unasked is not believed.
        if phase == LivePhase::Killing {
            return None;
        }
        job.set_phase(index, phase);
        Some(phase)
    }

    /// Puts ends on record, frees what was held, and does what follows for their jobs.
    pub(super) fn end_attempts(&mut self, agent: AgentId, ends: Ends) {
        let mut attempts = Vec::new();
        for (id, mut ends) in ends {
            ends.sort_by_key(|end| (end.index, end.number));
            ends.dedup_by_key(|end| (end.index, end.number));
            attempts.extend(ends.iter().map(|end| end.attempt(id)));
            while ends.len() > ATTEMPTS_PER_MESSAGE_MAX {
                let rest = ends.split_off(ATTEMPTS_PER_MESSAGE_MAX);
                self.end_part(agent, id, std::mem::replace(&mut ends, rest));
            }
            self.end_part(agent, id, ends);
        }
        if !self.jobs.by_agent.contains_key(&agent) {
            self.told.forget(agent);
        }
        if !attempts.is_empty() {
            self.tell_shard_of(agent, PeerMessage::Release { agent, attempts });
        }
    }

    fn end_part(&mut self, agent: AgentId, id: JobId, ends: Vec<Ended>) {
        self.totals.ended += ends.len() as u64;
        if !self.notes.is_empty() {
            ends.iter().for_each(|end| drop(self.notes.remove(&end.attempt(id))));
        }
        ends.iter().for_each(|end| self.healths.forget(end.attempt(id)));
        let mut phases: BTreeMap<Phase, Vec<(u32, u32)>> = BTreeMap::new();
        for end in &ends {
            phases.entry(end.exit.phase()).or_default().push((end.index, end.number));
        }
        for (phase, attempts) in phases {
            self.publish_tasks(id, phase, agent, &attempts);
        }
        let owner = self.frameworks.owner(id).map(|(framework, name)| (framework, name.to_owned()));
        let group = self.groups.of(id);
        self.commit(Record::Ended { id, ends, at: self.now });
        if let Some((framework, name)) = owner {
            self.task_ended(framework, name);
        }
        if let Some(group) = group {
            self.end_group(group);
        }
        if self.jobs.live(id).is_some() { self.roll(id) } else { self.job_ended(id) }
    }

    /// Tells whoever follows the job that it has ended.
    pub(super) fn job_ended(&mut self, id: JobId) {
        let Some(Entry::Ended(job)) = self.jobs.entry(id) else { return };
        let (role, title) = (job.role.clone(), super::reconcile::title(id, job.name.as_ref()));
        self.publish(Change::Job { job: id, role, title, what: "ended".into() });
        for request in self.followers.remove(&id).unwrap_or_default() {
            self.following.remove(&request);
            if let Some(view) = self.job_view(id) {
                self.reply(request, Response::Ended(Box::new(view)));
            }
        }
    }

    /// Lets the agent forget ends that are on record, or that nobody waits for.
    pub(super) fn acknowledge(&mut self, agent: AgentId, attempts: Vec<AttemptId>) {
        for part in attempts.chunks(ATTEMPTS_PER_MESSAGE_MAX) {
            self.held(Action::Send { agent, message: FromMaster::Ack { attempts: part.to_vec() } });
        }
    }

    /// Stops attempts that are no longer, or never were, this agent's: at once, and by force.
    pub(super) fn kill_at(&mut self, agent: AgentId, attempts: Vec<AttemptId>) {
        for part in attempts.chunks(ATTEMPTS_PER_MESSAGE_MAX) {
            self.held(Action::Send { agent, message: FromMaster::Kill { attempts: part.to_vec(), grace_ms: 0 } });
        }
    }

    /// An agent would not take these.
    pub(super) fn agent_refused(&mut self, agent: AgentId, attempts: &[AttemptId]) {
        if attempts.len() > ATTEMPTS_PER_MESSAGE_MAX {
            return self.disconnect(agent, "more refusals than a message may have");
        }
        self.refused(agent, attempts);
    }

    /// These could not be given to the agent: they are placed again after a pause. What was launched or staged twice may be refused first and
    /// run then: a refusal counts only where there was no second time. Where the agent has not taken the second either, its report says so.
    pub(super) fn refused(&mut self, agent: AgentId, attempts: &[AttemptId]) {
        self.refused_for(agent, attempts, None);
    }

    /// The same, since no single devices were free for them: a task of a framework ends by that, as others that do not fit into what it was shown.
    pub(super) fn misfits(&mut self, agent: AgentId, attempts: &[AttemptId]) {
        let (own, others): (Vec<_>, Vec<_>) =
            attempts.iter().copied().partition(|attempt| self.frameworks.owner(attempt.task.job).is_some());
        self.refused_for(agent, &others, None);
        self.refused_for(agent, &own, Some("no single device of the agent has so much free, or not so many are whole"));
    }

    fn refused_for(&mut self, agent: AgentId, attempts: &[AttemptId], reason: Option<&str>) {
        let mut ends = Ends::new();
        let meant = |attempt: &&AttemptId| {
            let phase = self.phase_of(**attempt);
            self.jobs.is_live_on(**attempt, agent) && (phase == Some(LivePhase::Staging) || phase == Some(LivePhase::Killing))
        };
        let meant: Vec<AttemptId> = attempts.iter().filter(meant).copied().collect();
        for attempt in &meant {
            self.totals.refused += 1;
            let exit = match (self.loss(*attempt, Loss::Refused), reason) {
                (Exit::Lost { .. }, Some(reason)) => Exit::Rejected { reason: reason.into() },
                (exit, _) => exit,
            };
            note(&mut ends, *attempt, exit);
        }
        self.end_attempts(agent, ends);
    }

    /// How an attempt ended that its agent does not have: one that never came that far and is not wanted was killed.
    pub(super) fn loss(&self, attempt: AttemptId, reason: Loss) -> Exit {
        let job = self.jobs.live(attempt.task.job);
        let wanted = job.is_some_and(|job| job.wants(attempt.task.index));
        let never = matches!(reason, Loss::Refused) || self.phase_of(attempt).is_some_and(|phase| phase <= LivePhase::StagedAgain);
        if !wanted && never { Exit::Killed } else { Exit::Lost { reason } }
    }

    pub(super) fn phase_of(&self, attempt: AttemptId) -> Option<LivePhase> {
        let cell = self.jobs.live(attempt.task.job)?.cells.get(attempt.task.index)?;
        (cell.slot == Slot::Live && cell.number == attempt.number).then_some(cell.phase)
    }
}

/// Adds an end without usage.
pub(super) fn note(ends: &mut Ends, attempt: AttemptId, exit: Exit) {
    let end = Ended { index: attempt.task.index, number: attempt.number, exit, usage: Usage::default() };
    ends.entry(attempt.task.job).or_default().push(end);
}

fn cut(mut text: String) -> String {
    if text.len() > REASON_BYTES_MAX {
        let end = (0..=REASON_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
