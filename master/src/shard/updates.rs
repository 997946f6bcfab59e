//! What frameworks are told of their tasks: each update until it is acknowledged, those of one task in order, one at a time. An end is on record
//! until then; what came before it is known to this leader only, and its successor says how tasks stand when their agents report.

use super::Shard;
use super::record::Record;
use crate::frameworks::{Cause, FrameworkEvent, FrameworkId, Own, StatusUpdate};
use protocol::{AgentId, AttemptId, JobId, Phase, Time};
use std::collections::VecDeque;

/// The wait before an update is said again, in milliseconds; doubled each time.
const AGAIN_MS: u64 = 10_000;
/// The longest such wait.
const AGAIN_MS_MAX: u64 = 600_000;
/// Updates of one task that wait for acknowledgements; of more the last but one is left out.
const WAITING_MAX: usize = 16;

/// Updates of one task that are not acknowledged; the first was said.
#[derive(Debug, Default)]
pub(super) struct Untold {
    waiting: VecDeque<StatusUpdate>,
    again: Time,
    wait_ms: u64,
}

impl Shard {
    /// A task is in another state: its framework is told, where it has one.
    pub(super) fn task_news(&mut self, job: JobId, phase: Phase) {
        let Some((framework, name)) = self.frameworks.owner(job) else { return };
        let name = name.to_owned();
        let Some(own) = self.frameworks.get(framework).and_then(|known| known.tasks.get(&name)).cloned() else { return };
        self.tell_update(framework, name, &own, phase);
    }

    /// A task of a framework has ended.
    pub(super) fn task_ended(&mut self, framework: FrameworkId, name: String) {
        let Some(own) = self.frameworks.get(framework).and_then(|known| known.tasks.get(&name)).cloned() else { return };
        if let Some(exit) = &own.exit {
            let phase = exit.phase();
            self.tell_update(framework, name, &own, phase);
        }
    }

    /// Tasks on an agent that is silent, or back, in frameworks' eyes: those are told that can take it.
    pub(super) fn agent_news(&mut self, agent: AgentId, reachable: bool) {
        let tasks = self.jobs.by_agent.get(&agent).into_iter().flatten();
        let aware = |job: &JobId| {
            let owner = self.frameworks.owner(*job).and_then(|(framework, _)| self.frameworks.get(framework));
            owner.is_some_and(|framework| framework.info.is_partition_aware())
        };
        let jobs: Vec<JobId> = tasks.map(|(job, _)| *job).filter(aware).collect();
        for job in jobs {
            let phase = self.phase_of(AttemptId::new(job, 0, 1)).unwrap_or_default().phase();
            self.task_news(job, if reachable { phase } else { Phase::Unreachable });
        }
    }

    /// A task has said something of itself: its framework is told, once, if it is subscribed.
    pub(super) fn own_progress(&mut self, attempt: AttemptId, percent: u8, note: &str) {
        let Some((framework, name)) = self.frameworks.owner(attempt.task.job).map(|(id, name)| (id, name.to_owned())) else { return };
        let Some(own) = self.frameworks.get(framework).and_then(|known| known.tasks.get(&name)) else { return };
        let (job, agent, text) = (own.job, own.agent, note.to_owned());
        self.sessions.tell(framework, FrameworkEvent::Message { task: name, job, agent, percent, text });
    }

    /// A task that runs was found to be well, or not: its framework is told, where it has one.
    pub(super) fn task_health(&mut self, job: JobId, healthy: bool, reason: String) {
        let Some((framework, name)) = self.frameworks.owner(job).map(|(framework, name)| (framework, name.to_owned())) else { return };
        let Some(own) = self.frameworks.get(framework).and_then(|known| known.tasks.get(&name)) else { return };
        let update = self.update(&name, own, Phase::Running, Cause::Health { healthy, reason });
        self.queue_update(framework, name, job, update);
    }

    fn tell_update(&mut self, framework: FrameworkId, name: String, own: &Own, phase: Phase) {
        self.publish_own(framework, &name, phase, false);
        let update = self.update(&name, own, phase, Cause::News);
        self.queue_update(framework, name, own.job, update);
    }

    /// Has an update said once those before it are acknowledged.
    fn queue_update(&mut self, framework: FrameworkId, name: String, job: JobId, mut update: StatusUpdate) {
        let Some(session) = self.sessions.by_id.get_mut(&framework) else { return };
        session.updates_made += 1;
        update.uuid = Some(number(job, self.now, session.updates_made));
        let untold = session.updates.entry(name.clone()).or_default();
        if untold.waiting.back().is_some_and(|last| (last.phase, &last.cause) == (update.phase, &update.cause)) {
            return; // Said once is enough.
        }
        if untold.waiting.len() >= WAITING_MAX {
            untold.waiting.pop_back();
        }
        untold.waiting.push_back(update);
        if untold.waiting.len() == 1 {
            untold.wait_ms = AGAIN_MS;
            self.tell_first(framework, name);
        }
    }

    fn update(&self, name: &str, own: &Own, phase: Phase, cause: Cause) -> StatusUpdate {
        let ports = self.jobs.live(own.job).and_then(|job| job.derived.ports.get(&0)).cloned().unwrap_or_default();
        let at = if own.exit.is_some() { own.at } else { self.now };
        let (job, agent, exit) = (Some(own.job), Some(own.agent), own.exit.clone());
        StatusUpdate { task: name.to_owned(), job, agent, phase, exit, cause, ports, at, uuid: None }
    }

    /// Says the first update of a task, and when to say it again.
    fn tell_first(&mut self, framework: FrameworkId, name: String) {
        let Some(untold) = self.sessions.by_id.get_mut(&framework).and_then(|session| session.updates.get_mut(&name)) else { return };
        let Some(first) = untold.waiting.front().cloned() else { return };
        let before = std::mem::replace(&mut untold.again, self.now + untold.wait_ms);
        let again = untold.again;
        untold.wait_ms = (2 * untold.wait_ms).min(AGAIN_MS_MAX);
        self.sessions.again.remove(&(before, framework, name.clone()));
        self.sessions.again.insert((again, framework, name));
        self.sessions.tell(framework, FrameworkEvent::Update(first));
    }

    /// Says again what nobody acknowledged in time.
    pub(super) fn tell_again(&mut self) {
        while let Some((_, framework, name)) = self.sessions.again.first().cloned().filter(|(at, ..)| *at <= self.now) {
            self.sessions.again.pop_first();
            self.tell_first(framework, name);
        }
    }

    /// A framework has come back: it is told all that it has not acknowledged.
    pub(super) fn tell_unacknowledged(&mut self, framework: FrameworkId) {
        let Some(known) = self.frameworks.get(framework) else { return };
        let ended: Vec<String> = known.tasks.iter().filter(|(_, own)| own.exit.is_some()).map(|(name, _)| name.clone()).collect();
        let Some(session) = self.sessions.by_id.get_mut(&framework) else { return };
        session.updates.values_mut().for_each(|untold| untold.wait_ms = AGAIN_MS);
        let waiting: Vec<String> = session.updates.keys().cloned().collect();
        let unsaid: Vec<String> = ended.into_iter().filter(|name| !session.updates.contains_key(name)).collect();
        waiting.into_iter().for_each(|name| self.tell_first(framework, name));
        unsaid.into_iter().for_each(|name| self.task_ended(framework, name));
    }

    /// A framework has taken an update in; one that was not said last is passed over.
    pub(super) fn update_acknowledged(&mut self, framework: FrameworkId, name: &str, uuid: u128) {
        let Some(session) = self.sessions.by_id.get_mut(&framework) else { return };
        let Some(untold) = session.updates.get_mut(name) else { return };
        if untold.waiting.front().is_none_or(|first| first.uuid != Some(uuid)) {
            return;
        }
        let ended = untold.waiting.pop_front().is_some_and(|first| first.exit.is_some());
        untold.wait_ms = AGAIN_MS;
        self.sessions.again.remove(&(untold.again, framework, name.to_owned()));
        if untold.waiting.is_empty() {
            session.updates.remove(name);
        }
        match ended {
            true => {
                let names = vec![name.to_owned()];
                self.commit(Record::Acknowledged { framework, names, at: self.now });
            }
            false => self.tell_first(framework, name.to_owned()),
        }
    }

    /// Says how tasks stand, where somebody asks.
    pub(super) fn reconcile_own(&mut self, framework: FrameworkId, names: &[String]) {
        let Some(known) = self.frameworks.get(framework) else { return };
        let live = || known.tasks.iter().filter(|(_, own)| own.exit.is_none()).map(|(name, _)| name.clone()).collect();
        let names: Vec<String> = if names.is_empty() { live() } else { names.to_vec() };
        for name in names {
            let own = self.frameworks.get(framework).and_then(|known| known.tasks.get(&name));
            match own {
                Some(own) => {
                    let update = self.update(&name, own, self.phase_of_own(own), Cause::Reconciled);
                    self.sessions.tell(framework, FrameworkEvent::Update(update));
                }
                None => self.tell_once(framework, name, None, Phase::Lost, Cause::Unknown),
            }
        }
    }

    /// Says something of a task that is none.
    pub(super) fn tell_once(&mut self, framework: FrameworkId, task: String, agent: Option<AgentId>, phase: Phase, cause: Cause) {
        let update = StatusUpdate { task, job: None, agent, phase, exit: None, cause, ports: vec![], at: self.now, uuid: None };
        self.sessions.tell(framework, FrameworkEvent::Update(update));
    }
}

/// A number that no other update has, of this leader or another.
fn number(job: JobId, now: Time, count: u64) -> u128 {
    let mut hash = blake3::Hasher::new();
    hash.update(&job.0.to_le_bytes()).update(&now.0.to_le_bytes()).update(&count.to_le_bytes());
    let bytes = hash.finalize();
    let (first, _) = bytes.as_bytes().split_first_chunk().expect("16 of 32 bytes are 16 bytes");
    u128::from_le_bytes(*first)
}
