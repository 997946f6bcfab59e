//! The framework's shard: a service on its way from one version to another, step by step. What a step is `jobs::steps` says; here it is taken, and here is
//! judged whether the new version has proved itself.

use super::after::After;
use super::beside::Beside;
use super::event::Change;
use super::reconcile::{GRACE_MS, title};
use super::{Record, Shard};
use crate::jobs::rollout::{Cause, Deployment, State, Turn, why};
use crate::jobs::steps::{Counts, Rules, Step};
use crate::jobs::{LiveJob, LivePhase, Slot};
use protocol::{Job, JobId, Time};
use std::collections::BTreeSet;

/// Steps that are taken at once: each but the last opens the next.
const STEPS_MAX: usize = 8;
/// How long until a step is tried again of which nothing came, in milliseconds.
const AGAIN_MS: u64 = 1_000;
/// How long a new leader waits for what agents say of their tasks, in milliseconds: until then what it does not know is not held against a task.
const UNKNOWN_MS: u64 = 15_000;
/// The least that a deployment has under a new leader until its deadline, in milliseconds.
const LED_MS: u64 = 30_000;
/// How often tasks of a new version may end by themselves where nothing is said and the service is small.
const FAILURES_MAX: u32 = 2;

/// What is to be done about a deployment.
enum Verdict {
    /// It fails, and why.
    Fails(String),
    /// The first tasks do their work.
    Waits,
    /// All is done.
    Done,
    /// A step is due.
    Step(Step),
    /// Nothing, before this moment.
    Nothing(Option<Time>),
}

/// How often tasks of a new version of `job` may end by themselves.
pub(super) fn failures_max(job: &LiveJob) -> u32 {
    job.job.update.failures_max.unwrap_or_else(|| FAILURES_MAX.max(job.wanted() / 20))
}

/// When deployments are to be looked at though nothing happens.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// One entry at most for each job.
    at: BTreeSet<(Time, JobId)>,
    /// When this replica began to decide.
    led: Time,
    /// What is known of services that others begin after.
    pub(super) after: After,
    /// Who is called as tasks that wait are kept near or apart by.
    pub(super) beside: Beside,
}

impl Shard {
    /// When something is to be looked at though nothing happens.
    pub(super) fn deployments_due(&self) -> Option<Time> {
        let next = self.deployments.at.first().map(|(at, _)| *at);
        next.into_iter().chain(self.after_due()).chain(self.beside_due()).min()
    }

    /// What time alone does.
    pub(super) fn watch_deployments(&mut self) {
        self.ask_after();
        self.ask_beside();
        while let Some((_, id)) = self.deployments.at.first().copied().filter(|(at, _)| *at <= self.now) {
            self.deployments.at.pop_first();
            if let Some(job) = self.jobs.live_mut(id) {
                job.derived.gate.due = None;
            }
            self.advance_deployment(id);
        }
    }

    /// A new leader looks at all that are under way.
    pub(super) fn lead_deployments(&mut self) {
        self.deployments = Due { led: self.now, ..Due::default() };
        let rolling: Vec<JobId> = self.jobs.rolling.iter().copied().collect();
        rolling.into_iter().for_each(|id| self.look_again(id, Some(self.now)));
    }

    fn look_again(&mut self, id: JobId, at: Option<Time>) {
        let Some(job) = self.jobs.live_mut(id) else { return };
        let before = std::mem::replace(&mut job.derived.gate.due, at);
        if before != at {
            self.deployments.at.extend(at.map(|at| (at, id)));
            if let Some(before) = before {
                self.deployments.at.remove(&(before, id));
            }
        }
    }

    /// Goes on with a deployment as far as it can now.
    pub(super) fn advance_deployment(&mut self, id: JobId) {
        for _ in 0..STEPS_MAX {
            let Some(verdict) = self.judge_deployment(id) else { return self.look_again(id, None) };
            match verdict {
                Verdict::Fails(reason) => return self.fail_deployment(id, &reason),
                Verdict::Waits => self.turn(id, Turn::Waits, "waiting"),
                Verdict::Done => return self.turn(id, Turn::Done, "done"),
                Verdict::Step(step) if self.take_step(id, step) => {}
                // What was counted is not there: it is looked at again, and not without end.
                Verdict::Step(_) => return self.look_again(id, Some(self.now + AGAIN_MS)),
                Verdict::Nothing(due) => return self.look_again(id, due),
            }
        }
        self.look_again(id, Some(self.now + 1));
    }

    /// Puts on record what happens to a deployment, and says so.
    pub(super) fn turn(&mut self, id: JobId, turn: Turn, what: &'static str) {
        self.commit(Record::DeploymentTurned { id, turn, at: self.now });
        self.publish_deployment(id, what);
    }

    pub(super) fn publish_deployment(&mut self, id: JobId, what: &'static str) {
        if let Some(view) = self.deployment_view(id) {
            self.publish(Change::Deployment { view: Box::new(view), what: what.into() });
        }
    }

    fn judge_deployment(&mut self, id: JobId) -> Option<Verdict> {
        let (now, led) = (self.now, self.deployments.led);
        let counts = self.deployment_counts(id)?;
        let (count, known) = (self.deployment_count(id), self.matches_known(id));
        let job = self.jobs.live_mut(id).filter(|job| job.stopping.is_none())?;
        let deployment = job.rollout.as_ref()?.active()?;
        let way_back = deployment.is_way_back();
        let rules = Rules::of(&job.job, count, deployment.is_whole());
        if deployment.state == State::Paused || job.is_held() {
            return Some(Verdict::Nothing(None));
        }
        if deployment.failures > failures_max(job) && !way_back {
            return Some(Verdict::Fails(failures_text(id, job)));
        }
        let gate = &mut job.derived.gate;
        if gate.failures != deployment.failures {
            (gate.failures, gate.first, gate.goal) = (deployment.failures, None, None);
        }
        if deployment.state == State::Waiting {
            return Some(Verdict::Nothing(None));
        }
        let settle_ms = if way_back { 0 } else { job.job.update.settle_ms };
        gate.first = (counts.new_ready > 0).then(|| gate.first.unwrap_or(now));
        let first_at = gate.first.map(|first| first + settle_ms);
        gate.proved |= way_back || first_at.is_some_and(|at| at <= now);
        // Which agents of a system job there are, all shards have to say first.
        let (complete, waits) = (known && rules.is_complete(&counts), known && rules.waits(&counts));
        gate.goal = (complete || waits).then(|| gate.goal.unwrap_or(now));
        let goal_at = gate.goal.map(|goal| goal + if rules.count == 0 { 0 } else { settle_ms });
        if goal_at.is_some_and(|at| at <= now) {
            return Some(if waits { Verdict::Waits } else { Verdict::Done });
        }
        let deadline = deployment.deadline.max(led + LED_MS.min(led.0));
        if deadline <= now {
            return Some(Verdict::Fails(deadline_text(&counts, (rules.count, deployment.to), job)));
        }
        let step = rules.step(&counts, gate.proved);
        if step != Step::default() {
            return Some(Verdict::Step(step));
        }
        let proves = first_at.filter(|at| *at > now);
        // Then what nobody has told counts as what does no work.
        let known = Some(led + UNKNOWN_MS).filter(|at| counts.old_unknown > 0 && *at > now);
        Some(Verdict::Nothing([proves, goal_at, known, Some(deadline)].into_iter().flatten().min()))
    }

    /// How many tasks a deployment is to come to: of a system job those that there is room for, and one at least where agents match.
    pub(super) fn deployment_count(&self, id: JobId) -> u32 {
        let Some(job) = self.jobs.live(id) else { return 0 };
        let wanted = job.wanted();
        (wanted - job.roomless(self.config.shards).min(wanted)).max(wanted.min(1))
    }

    /// How the tasks of a job stand.
    pub(super) fn deployment_counts(&self, id: JobId) -> Option<Counts> {
        let job = self.jobs.live(id)?;
        let sum = |phases: &[u32; LivePhase::COUNT]| phases[..LivePhase::Killing as usize].iter().sum::<u32>();
        let (new_ready, old_ready) = job.serving();
        let (new_live, live) = (sum(&job.derived.new_phases), sum(&job.derived.phases));
        let old_waiting = u32::try_from(job.derived.old_waiting.len()).expect("no more than cells");
        let mut counts = Counts {
            new_ready,
            new: (new_live + job.waiting_cells.saturating_sub(old_waiting) + job.fresh()).saturating_sub(job.roomless(self.config.shards)),
            stopping: job.derived.phases[LivePhase::Killing as usize],
            old_ready,
            old_unready: live.saturating_sub(new_live).saturating_sub(old_ready),
            old_waiting,
            extra: job.total() - job.wanted(),
            ..Counts::default()
        };
        let led = self.deployments.led;
        if self.now < led + UNKNOWN_MS && led > Time::ZERO {
            // Of those that are not well their agents have said so.
            let said = u32::try_from(self.unwell_and_outdated(id).len()).expect("no more than tasks").min(counts.old_unready);
            (counts.old_unknown, counts.old_unready) = (counts.old_unready - said, said);
        }
        // What is out of reach may or may not do its work.
        for (index, cell) in self.unreachable_of(id).iter().filter(|(_, cell)| cell.phase != LivePhase::Killing) {
            let from = match (cell.version == job.version, job.serves(*index)) {
                (true, true) => {
                    counts.new_ready -= 1;
                    continue;
                }
                (true, false) => continue,
                (false, true) => &mut counts.old_ready,
                (false, false) => &mut counts.old_unready,
            };
            if *from > 0 {
                *from -= 1;
                counts.old_unknown += 1;
            }
        }
        for (index, cell) in job.cells.iter_from(job.end_index()).take(counts.extra as usize) {
            let stands = cell.slot == Slot::Waiting || cell.slot == Slot::Live && cell.phase != LivePhase::Killing;
            let (old, serves) = (stands && cell.version != job.version, u32::from(job.serves(index)));
            counts.extra_ready += serves;
            counts.extra_old += u32::from(old);
            counts.extra_old_ready += if old { serves } else { 0 };
        }
        let resize = job.rollout.as_ref().and_then(|rollout| rollout.deployment.as_ref()).is_some_and(Deployment::is_resize);
        Some(if resize { counts.of_one_version() } else { counts })
    }

    /// Takes a step; false where there was nothing to do.
    fn take_step(&mut self, id: JobId, step: Step) -> bool {
        if let Some(extra) = step.extra {
            self.commit(Record::DeploymentTurned { id, turn: Turn::Extra(extra), at: self.now });
            self.stop_beyond(id);
        }
        let Some(job) = self.jobs.live(id) else { return false };
        let turned: Vec<u32> = job.derived.old_waiting.iter().take(step.turn as usize).copied().collect();
        let unready = self.outdated(id, step.stop_unready, false);
        let ready = self.outdated(id, step.stop_ready, true);
        let any = !turned.is_empty();
        if any {
            self.commit(Record::Turned { id, indexes: turned, at: self.now });
        }
        self.kill_tasks(id, &unready, GRACE_MS);
        self.kill_tasks(id, &ready, GRACE_MS);
        let took = step.extra.is_some() || any || !unready.is_empty() || !ready.is_empty();
        if took {
            self.publish_deployment(id, "step");
        }
        took
    }

    /// Tasks of older versions that are to stop: below the count where they do their work.
    fn outdated(&mut self, id: JobId, most: u32, ready: bool) -> Vec<u32> {
        if most == 0 {
            return Vec::new();
        }
        let unreachable = &self.unreachable;
        let Some(job) = self.jobs.live_mut(id) else { return Vec::new() };
        let end = if ready || job.derived.everywhere.is_some() { job.end_index() } else { job.total() };
        let find = |from: u32| -> Vec<u32> {
            let cells = job.cells.iter_from(from).take_while(|(index, _)| *index < end);
            let right = |(index, cell): &(u32, &crate::jobs::Cell)| {
                let stands = cell.slot == Slot::Live && cell.version != job.version && cell.phase != LivePhase::Killing;
                stands && job.serves(*index) == ready && !unreachable.contains(&cell.agent)
            };
            cells.filter(right).map(|(index, _)| index).take(most as usize).collect()
        };
        let mut found = find(if ready { job.derived.roll_from } else { 0 });
        if ready {
            // Some may have begun anew behind those that were looked at.
            if found.len() < most as usize && job.derived.roll_from > 0 {
                found = find(0);
            }
            job.derived.roll_from = found.last().map_or(0, |last| last + 1);
        }
        found
    }

    fn fail_deployment(&mut self, id: JobId, reason: &str) {
        let Some(job) = self.jobs.live(id) else { return };
        let Some(deployment) = job.rollout.as_ref().and_then(|rollout| rollout.active()) else { return };
        let (from, count) = (deployment.from, deployment.from_count);
        let returns = job.job.update.auto_rollback && deployment.has_way_back();
        if !returns {
            self.let_extra_go(id);
        }
        self.turn(id, Turn::Failed(why(reason)), "failed");
        self.look_again(id, None);
        if returns {
            self.deploy_version(id, from, Some(count), Cause::Failed);
        }
    }

    /// Nobody goes on with a deployment that is under way: what runs beyond the count ends.
    pub(super) fn let_extra_go(&mut self, id: JobId) {
        if self.jobs.live(id).is_some_and(|job| job.total() > job.wanted()) {
            self.commit(Record::DeploymentTurned { id, turn: Turn::Extra(0), at: self.now });
            self.stop_beyond(id);
        }
    }

    /// Goes to an earlier version that is kept.
    pub(super) fn deploy_version(&mut self, id: JobId, number: u32, count: Option<u32>, cause: Cause) {
        let Some(job) = self.jobs.live(id) else { return };
        let Some(version) = job.rollout.as_ref().and_then(|rollout| rollout.version(number)) else { return };
        let job = Job { count: count.unwrap_or(job.job.count), ..version.job.clone() };
        self.deploy_now(id, job, Some(number), cause);
    }

    /// Puts a new version on record and begins to go there.
    pub(super) fn deploy_now(&mut self, id: JobId, job: Job, back_to: Option<u32>, cause: Cause) {
        self.commit(Record::Deployed { id, job, back_to, cause, at: self.now });
        self.publish_deployment(id, "started");
        self.changed(id, "applied");
        self.advance_deployment(id);
    }
}

fn failures_text(id: JobId, job: &LiveJob) -> String {
    let deployment = job.rollout.as_ref().and_then(|rollout| rollout.deployment.as_ref());
    let Some(deployment) = deployment else { return String::new() };
    let last = deployment.last_failure.as_ref();
    let last = last.map(|(index, exit)| format!("; the last, {}.{index}: {exit}", title(id, job.job.name.as_ref())));
    let (failures, to) = (deployment.failures, deployment.to);
    format!("tasks of version {to} ended by themselves {failures} times{}", last.unwrap_or_default())
}

fn deadline_text(counts: &Counts, (count, to): (u32, u32), job: &LiveJob) -> String {
    let (ready, waiting) = (counts.new_ready, job.ready());
    let room = if waiting > 0 { format!(", and {waiting} wait for room") } else { String::new() };
    format!("at its deadline {ready} of {count} tasks of version {to} do their work{room}")
}
