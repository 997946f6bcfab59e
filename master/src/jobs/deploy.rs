//! What each record of versions and deployments does to the jobs. Total, as all folding is.

use super::cell::{LivePhase, Slot};
use super::job::{Gate, LiveJob, OldVersion};
use super::rollout::{Cause, Deployment, Rollout, State, Turn, Version};
use super::state::Jobs;
use crate::shard::record::Ended;
use protocol::{Exit, Job, JobId, Kind, Template, Time};
use std::sync::Arc;

impl Rollout {
    /// An attempt ended that ran `version`, where `present` is the job's: notes a failure; gives back the version in which the task begins anew.
    pub(super) fn ended(&mut self, present: u32, version: u32, end: &Ended, wanted: bool) -> u32 {
        let Some(deployment) = self.deployment.as_mut() else { return present };
        let asked = matches!(end.exit, Exit::Killed | Exit::Lost { .. });
        if version == deployment.to && deployment.is_active() && wanted && !asked {
            deployment.failures = deployment.failures.saturating_add(1);
            deployment.last_failure = Some((end.index, end.exit.clone()));
        }
        // What was stopped for the sake of the new version goes on in that.
        let stopped = matches!(end.exit, Exit::Killed);
        if deployment.holds() == Some(version) && !stopped { version } else { present }
    }
}

impl LiveJob {
    /// So many tasks of an older version were given to an agent.
    pub(super) fn staged_older(&mut self, version: u32, tasks: u32) -> Arc<Template> {
        let template = Arc::clone(self.template(version));
        match self.old.iter_mut().find(|old| old.version == version) {
            Some(old) => old.live += tasks,
            None => self.old.push(OldVersion { version, template: Arc::clone(&template), live: tasks }),
        }
        template
    }

    /// The version that is good as far as is known.
    #[must_use]
    pub fn stable_version(&self) -> u32 {
        self.held_version().unwrap_or(self.version)
    }

    /// What is on record of its versions, from now on.
    fn rollout_mut(&mut self) -> &mut Rollout {
        if self.rollout.is_none() {
            // What waits has no version of its own before that.
            let (version, cells) = (self.version, self.cells.len());
            let again: Vec<u32> = if self.waiting_cells == 0 { vec![] } else { (0..cells).collect() };
            for index in again {
                if let Some(cell) = self.cells.get_mut(index).filter(|cell| cell.slot == Slot::Waiting) {
                    cell.version = version;
                }
            }
            self.rollout = Some(Box::new(Rollout { released: true, ..Rollout::of(version, self.submitted) }));
        }
        self.rollout.as_deref_mut().expect("made above")
    }

    /// It is of another version now: what follows from that, counted anew.
    pub(super) fn version_changed(&mut self) {
        self.derived.roll_from = 0;
        self.derived.gate = Gate::default();
        let mut phases = [0; LivePhase::COUNT];
        for (_, cell) in self.cells.iter_from(0).filter(|(_, cell)| cell.slot == Slot::Live && cell.version == self.version) {
            phases[cell.phase as usize] += 1;
        }
        self.derived.new_phases = phases;
        if self.rollout.is_none() {
            return self.stand_anew();
        }
        let held = self.held_version();
        let waiting: Vec<u32> = self.cells.iter_from(0).filter(|(_, cell)| cell.slot == Slot::Waiting).map(|(index, _)| index).collect();
        for index in waiting {
            // What has not begun where it waits was of no version.
            if let Some(cell) = self.cells.get_mut(index).filter(|cell| Some(cell.version) != held || !cell.has_begun()) {
                cell.version = self.version;
            }
        }
        self.stand_anew();
    }
}

impl Jobs {
    /// A service is to go to another version: a new one, or the one of this number that was before.
    pub fn deployed(&mut self, id: JobId, job: &Job, back_to: Option<u32>, cause: Cause, at: Time) {
        self.unqueue(id);
        let Some(live) = self.live_mut(id).filter(|live| live.stopping.is_none() && live.job.kind.lasts()) else {
            return self.requeue(id);
        };
        let (from, replaced) = (live.stable_version(), live.job.place != job.place);
        let (before, total) = (live.version, live.total());
        let current = live.live - live.outdated().min(live.live);
        if current > 0 {
            live.old.push(OldVersion { version: before, template: Arc::clone(&live.job.template), live: current });
        }
        let former = live.job.clone();
        let rollout = live.rollout_mut();
        let to = back_to.filter(|number| rollout.version(*number).is_some()).unwrap_or(rollout.last_version.saturating_add(1));
        rollout.versions.retain(|version| version.number != to);
        if to != before {
            rollout.keep(Version { number: before, job: former.clone(), since: rollout.since, cause: rollout.cause }, from);
        }
        rollout.last_version = rollout.last_version.max(to);
        (rollout.since, rollout.cause) = (at, cause);
        let from_count = if from == before { former.count } else { rollout.deployment.as_ref().map_or(former.count, |of| of.from_count) };
        live.version = to;
        live.old.retain(|old| old.version != to);
        live.job = Job { count: former.count, kind: former.kind, role: former.role, name: former.name, ..job.clone() };
        // A way back leads from what it leaves.
        let way_back = matches!(cause, Cause::RolledBack | Cause::Failed);
        live.begin(if way_back { before } else { from }, from_count, cause, at);
        if replaced {
            live.tally_anew();
        }
        live.version_changed();
        live.job.count = job.count;
        let kind = live.job.kind;
        self.rolling.insert(id);
        self.still_held(id);
        self.system_changed(id, kind);
        self.resized(id, total, at);
        self.revive_ended(id, at);
    }

    /// Forgets that a job waits for others where it does no longer.
    fn still_held(&mut self, id: JobId) {
        if !self.live(id).is_some_and(LiveJob::is_held) {
            self.held.remove(&id);
        }
    }

    /// What has ended for good is wanted in the new version.
    fn revive_ended(&mut self, id: JobId, at: Time) {
        let Some(live) = self.live(id) else { return };
        // Of a system job that has no agent any more.
        if live.job.kind == Kind::System || live.ends.iter().all(|ends| *ends == 0) {
            return;
        }
        let ended = |(_, cell): &(u32, &super::Cell)| cell.slot == Slot::Ended;
        let all = live.cells.iter_from(0).take(live.total() as usize);
        let ended: Vec<u32> = all.filter(ended).map(|(index, _)| index).collect();
        self.unqueue(id);
        for index in ended {
            self.revive(id, index, at);
        }
        self.requeue(id);
    }

    /// A service is otherwise than before in what needs no new tasks.
    pub fn retuned(&mut self, id: JobId, job: &Job, at: Time) {
        self.unqueue(id);
        let Some(live) = self.live_mut(id).filter(|live| live.stopping.is_none()) else { return self.requeue(id) };
        let Job { count, .. } = live.job;
        let template = Arc::clone(&live.job.template);
        let former = std::mem::replace(&mut live.job, job.clone());
        live.job = Job { count, template, kind: former.kind, role: former.role, name: former.name, place: former.place, ..job.clone() };
        self.still_held(id);
        self.scaled(id, job.count, at);
    }

    /// Tasks of a version before that wait begin anew in the present one, and at once.
    pub fn turned(&mut self, id: JobId, indexes: &[u32], at: Time) {
        for index in indexes.iter().copied() {
            let Some(job) = self.live_mut(id) else { return };
            let version = job.version;
            let Some(cell) = job.cells.get_mut(index).filter(|cell| cell.slot == Slot::Waiting && cell.version != version) else {
                continue;
            };
            let due = cell.retry_at();
            (cell.version, cell.delay_ms, cell.streak, cell.since) = (version, 0, 0, at);
            let stood = job.leave(index);
            job.stand(index);
            if let Some(due) = due.filter(|_| !stood) {
                self.timers.remove(&(due, id, index));
            }
        }
        self.requeue(id);
    }

    /// All that a job begins after does its work: its first tasks begin.
    pub fn released(&mut self, id: JobId, at: Time) {
        self.held.remove(&id);
        let Some(rollout) = self.live_mut(id).and_then(|live| live.rollout.as_deref_mut()) else { return };
        rollout.released = true;
        if let Some(deployment) = rollout.deployment.as_mut().filter(|of| of.is_active()) {
            // It had no time that counts until now.
            let had_ms = deployment.deadline.0.saturating_sub(deployment.started.0);
            deployment.deadline = at + had_ms;
        }
        self.requeue(id);
    }

    /// Something happens to a deployment.
    pub fn deployment_turned(&mut self, id: JobId, turn: &Turn, at: Time) {
        self.unqueue(id);
        let Some(live) = self.live_mut(id).filter(|live| live.stopping.is_none()) else { return self.requeue(id) };
        let (version, count, total) = (live.version, live.job.count, live.total());
        if *turn == Turn::Began && live.job.kind.lasts() {
            live.rollout_mut();
            live.begin(0, count, Cause::Applied, at);
            live.derived.gate = Gate::default();
            self.rolling.insert(id);
            return self.requeue(id);
        }
        if let (Turn::Resized(before), true) = (turn, live.job.kind.lasts()) {
            let held = live.held_version().unwrap_or(0);
            live.rollout_mut();
            live.begin(held, *before, Cause::Resized, at);
            live.derived.gate = Gate::default();
            self.rolling.insert(id);
            return self.requeue(id);
        }
        let Some(rollout) = live.rollout.as_deref_mut() else { return self.requeue(id) };
        let Some(deployment) = rollout.deployment.as_mut().filter(|of| of.to == version && of.is_active()) else { return self.requeue(id) };
        match turn {
            Turn::Began | Turn::Resized(_) => {}
            Turn::Extra(extra) => rollout.extra = *extra,
            Turn::Waits => deployment.set(State::Waiting, at),
            Turn::Promoted => {
                deployment.promoted = true;
                deployment.set(State::Running, at);
            }
            Turn::Paused => deployment.set(State::Paused, at),
            Turn::Resumed => deployment.set(State::Running, at),
            Turn::Done => deployment.set(State::Done, at),
            Turn::Failed(why) | Turn::Cancelled(why) => {
                deployment.set(if matches!(turn, Turn::Failed(_)) { State::Failed } else { State::Cancelled }, at);
                deployment.why.clone_from(why);
            }
        }
        let over = !deployment.is_active();
        live.derived.gate.goal = None;
        live.stand_anew();
        if over {
            self.rolling.remove(&id);
        }
        self.resized(id, total, at);
    }
}

impl LiveJob {
    /// A deployment begins that leads to its present version.
    fn begin(&mut self, from: u32, from_count: u32, cause: Cause, at: Time) {
        let (to, deadline) = (self.version, at + self.job.update.deadline_ms);
        let Some(rollout) = self.rollout.as_deref_mut() else { return };
        let failed = rollout.deployment.as_ref().filter(|_| cause == Cause::Failed).map(|failed| failed.why.clone());
        rollout.deployments = rollout.deployments.saturating_add(1);
        rollout.deployment = Some(Deployment {
            number: rollout.deployments,
            from,
            from_count,
            to,
            cause,
            state: State::Running,
            started: at,
            since: at,
            deadline,
            promoted: false,
            failures: 0,
            last_failure: None,
            why: failed.unwrap_or_default(),
        });
    }
}
