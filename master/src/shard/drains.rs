//! Agents that are given no tasks any more, because an operator says so: some keep what they have, others are emptied before maintenance. On record
//! in the agent's shard, which says it to the shards of its tasks; those end them there, and place them elsewhere.

use super::{Action, PeerMessage, Record, Refusal, Response, Shard};
use crate::jobs::LivePhase;
use protocol::message::shard_of_agent;
use protocol::{AgentId, AttemptId, Exit, JobId, Kind, Loss, RequestId, ShardId, Time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Whether an agent is given tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// It is.
    #[default]
    Active,
    /// It is given no others than it has.
    Inactive,
    /// It is emptied.
    Draining {
        /// Milliseconds that a task has to stop.
        grace_ms: u64,
        /// Until then tasks of batch jobs may end by themselves.
        until: Time,
        /// True: once it is empty it never comes back.
        gone: bool,
    },
    /// It is emptied for as long as it is maintained.
    Maintained {
        /// Milliseconds that a task has to stop.
        grace_ms: u64,
        /// In which window.
        window: u64,
    },
}

/// What an operator says of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModeWish {
    /// Give it tasks.
    Activate,
    /// Give it no others than it has.
    Deactivate,
    /// Empty it.
    Drain {
        /// Milliseconds that a task has to stop.
        grace_ms: u64,
        /// Milliseconds from now in which tasks of batch jobs may end by themselves.
        wait_ms: u64,
        /// True: once it is empty it never comes back.
        gone: bool,
    },
}

/// Both sides of it, as far as this shard is each.
#[derive(Debug, Default)]
pub(super) struct Drains {
    /// Of our agents those that are not active, by the record.
    pub modes: BTreeMap<AgentId, Mode>,
    /// Of these, those whose batch tasks have no more time.
    overdue: BTreeSet<AgentId>,
    /// Agents of any shard that are emptied: what a task has to stop, and whether that goes for batch jobs too.
    emptied: BTreeMap<AgentId, (u64, bool)>,
    /// Shards that have said which of theirs are.
    heard: BTreeSet<ShardId>,
}

impl Drains {
    /// Those that are on record.
    pub fn new(modes: BTreeMap<AgentId, Mode>) -> Self {
        Self { modes, ..Self::default() }
    }

    /// An agent has another mode, by the record.
    pub fn set(&mut self, agent: AgentId, mode: Mode) {
        self.overdue.remove(&agent);
        match mode {
            Mode::Active => drop(self.modes.remove(&agent)),
            mode => drop(self.modes.insert(agent, mode)),
        }
    }

    /// The mode of one of our agents.
    pub fn mode(&self, agent: AgentId) -> Mode {
        self.modes.get(&agent).copied().unwrap_or_default()
    }

    /// When batch tasks of an agent have no more time.
    pub fn due(&self) -> Option<Time> {
        let until = |(agent, mode): (&AgentId, &Mode)| match mode {
            Mode::Draining { until, .. } if !self.overdue.contains(agent) => Some(*until),
            _ => None,
        };
        self.modes.iter().filter_map(until).min()
    }

    fn said(&self) -> PeerMessage {
        let emptied = self.modes.iter().filter_map(|(agent, mode)| match mode {
            Mode::Draining { grace_ms, .. } => Some((*agent, *grace_ms, self.overdue.contains(agent))),
            Mode::Maintained { grace_ms, .. } => Some((*agent, *grace_ms, true)),
            _ => None,
        });
        PeerMessage::Emptied { agents: emptied.collect() }
    }
}

impl Shard {
    /// An operator says whether an agent is given tasks.
    pub(super) fn set_mode(&mut self, id: RequestId, agent: AgentId, wish: ModeWish) -> Result<(), Refusal> {
        if self.rest.agents.get(&agent).is_none_or(|known| known.gone) {
            return Err(Refusal::NotFound { what: "agent".into() });
        }
        let mode = match (wish, self.drains.mode(agent)) {
            (ModeWish::Activate, Mode::Maintained { window, .. }) => {
                let reason = format!("the agent is in maintenance until its window is over: skep maintenance cancel {window}");
                return Err(Refusal::Conflict { reason });
            }
            (wish, _) => wish,
        };
        let mode = match mode {
            ModeWish::Activate => Mode::Active,
            ModeWish::Deactivate => Mode::Inactive,
            ModeWish::Drain { grace_ms, wait_ms, gone } => Mode::Draining { grace_ms, until: self.now + wait_ms, gone },
        };
        if self.drains.mode(agent) != mode {
            self.put_mode(agent, mode);
        }
        self.reply(id, Response::Done);
        Ok(())
    }

    /// An agent has this mode from now on.
    pub(super) fn put_mode(&mut self, agent: AgentId, mode: Mode) {
        self.commit(Record::AgentMode { agent, mode, at: self.now });
        self.seat_mode(agent);
        self.tell_modes();
        self.publish_agent(agent, mode_text(mode));
    }

    /// The pool gives an agent tasks as its mode says.
    pub(super) fn seat_mode(&mut self, agent: AgentId) {
        let inactive = self.drains.mode(agent) != Mode::Active;
        if let Some((slot, seat)) = self.pool.seat_mut(agent) {
            seat.inactive = inactive;
            self.pool.retract_all(|offer| offer.slot == slot);
            self.pool.refresh_freed(slot);
        }
    }

    fn tell_modes(&mut self) {
        (0..self.config.shards).for_each(|to| self.tell_modes_to(ShardId(to)));
    }

    /// A leader begins: agents are as the record says, and all shards are told.
    pub(super) fn lead_drains(&mut self) {
        let agents: Vec<AgentId> = self.drains.modes.keys().copied().collect();
        self.drains = Drains::new(std::mem::take(&mut self.drains.modes));
        agents.into_iter().for_each(|agent| self.seat_mode(agent));
        self.tell_modes();
    }

    /// Another shard is told which agents are emptied: all of them, so that nothing is left of what was lost on its way.
    pub(super) fn tell_modes_to(&mut self, to: ShardId) {
        let message = self.drains.said();
        self.held(Action::Peer { to, message });
    }

    /// What time alone does, and what follows where an agent is empty.
    pub(super) fn watch_drains(&mut self) {
        while let Some(agent) = self.overdue() {
            self.drains.overdue.insert(agent);
            self.tell_modes();
        }
        let leaves = |(agent, mode): (&AgentId, &Mode)| {
            (matches!(mode, Mode::Draining { gone: true, .. }) && self.is_empty(*agent)).then_some(*agent)
        };
        let empty: Vec<AgentId> = self.drains.modes.iter().filter_map(leaves).collect();
        // Each is there and not gone: so there is nothing against it.
        empty.into_iter().for_each(|agent| drop(self.gone(agent)));
    }

    fn overdue(&self) -> Option<AgentId> {
        let over = |(agent, mode): (&AgentId, &Mode)| {
            let over = matches!(mode, Mode::Draining { until, .. } if *until <= self.now) && !self.drains.overdue.contains(agent);
            over.then_some(*agent)
        };
        self.drains.modes.iter().find_map(over)
    }

    /// True where nothing is on an agent, as far as every shard has said.
    fn is_empty(&self, agent: AgentId) -> bool {
        let empty = |(_, seat): (u32, &super::pool::Seat)| {
            seat.standing == super::pool::Standing::Here && seat.attempts.is_empty() && seat.unheard.is_empty()
        };
        self.pool.seat(agent).is_some_and(empty)
    }

    /// All agents of a shard that are emptied.
    pub(super) fn emptied(&mut self, from: ShardId, agents: Vec<(AgentId, u64, bool)>) {
        let shards = self.config.shards;
        self.drains.heard.insert(from);
        self.drains.emptied.retain(|agent, _| shard_of_agent(*agent, shards) != from);
        for (agent, grace_ms, batch) in agents.into_iter().filter(|(agent, ..)| shard_of_agent(*agent, shards) == from) {
            self.drains.emptied.insert(agent, (grace_ms, batch));
            self.empty(agent);
        }
    }

    /// Ends our tasks on an agent that is emptied.
    pub(super) fn empty(&mut self, agent: AgentId) {
        let Some((grace_ms, batch)) = self.drains.emptied.get(&agent).copied() else { return };
        let mut by_job: BTreeMap<JobId, Vec<u32>> = BTreeMap::new();
        for (id, index) in self.jobs.by_agent.get(&agent).into_iter().flatten() {
            let Some(job) = self.jobs.live(*id).filter(|job| batch || job.job.kind != Kind::Batch) else { continue };
            if job.cells.get(*index).is_some_and(|cell| cell.phase != LivePhase::Killing) {
                by_job.entry(*id).or_default().push(*index);
            }
        }
        for (id, indexes) in by_job {
            self.kill_tasks(id, &indexes, grace_ms);
        }
    }

    /// How an attempt ended that was asked to stop: where it is still wanted it goes on elsewhere. Of one of its job's present version nobody else asks
    /// that but who drains its agent, even where that is over by now, or was asked by the leader before; or, where roles may preempt, whoever needs its
    /// place. A framework decides itself whether a task goes on elsewhere, so it is told that its agent is drained only where that is so, or where it is not
    /// known yet: then the leader before asked that.
    pub(super) fn as_asked(&mut self, attempt: AttemptId, agent: AgentId, exit: Exit) -> Exit {
        let preempted = self.preempted.remove(&attempt);
        let job = self.jobs.live(attempt.task.job).filter(|job| job.wants(attempt.task.index));
        match (exit, job) {
            (Exit::Killed, Some(job)) => {
                let cell = job.cells.get(attempt.task.index);
                let present = cell.is_some_and(|cell| match job.job.kind {
                    Kind::Task => cell.phase == LivePhase::Killing,
                    _ => cell.version == job.version,
                });
                let emptied = self.drains.emptied.contains_key(&agent);
                // A task that a framework placed may have been asked by the leader before, too.
                let unasked = present || job.job.kind == Kind::Task;
                if preempted || unasked && !emptied && self.pool.roles.may_any_preempt() {
                    return Exit::Lost { reason: Loss::Preempted };
                }
                let known = self.drains.heard.contains(&shard_of_agent(agent, self.config.shards));
                let drained = present || emptied || job.job.kind == Kind::Task && !known;
                if drained { Exit::Lost { reason: Loss::Drained } } else { Exit::Killed }
            }
            (exit, _) => exit,
        }
    }
}

/// A mode as people see it.
#[must_use]
pub const fn mode_text(mode: Mode) -> &'static str {
    match mode {
        Mode::Active => "active",
        Mode::Inactive => "inactive",
        Mode::Draining { .. } => "draining",
        Mode::Maintained { .. } => "maintenance",
    }
}
