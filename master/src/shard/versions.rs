//! The framework's shard: what people ask of versions and deployments, and what is shown of them.

use super::deployment_view::{DeploymentView, VersionView};
use super::deployments::failures_max;
use super::event::{DeploymentWish, JobRef};
use super::reconcile::title;
use super::{Record, Refusal, Response, Shard};
use crate::jobs::rollout::{Cause, Deployment, State, Turn, why};
use crate::jobs::steps::Rules;
use crate::jobs::{DeploymentId, LiveJob};
use protocol::job::About;
use protocol::{Job, JobId, RequestId, Role};
use std::sync::Arc;

impl Shard {
    /// Makes a service so: a new one, another version of it, or the same otherwise tuned; `counted` where another number of tasks is a deployment, too.
    pub(super) fn deploy(&mut self, id: RequestId, job: Job, force: bool, counted: bool) -> Result<(), Refusal> {
        let before = job.name.as_ref().and_then(|name| self.jobs.named(&job.role, name));
        let Some((target, live)) = before.and_then(|id| self.jobs.live(id).map(|live| (id, live))) else {
            return self.deploy_first(id, job);
        };
        if !live.job.kind.lasts() || !job.kind.lasts() {
            return self.apply_job(id, job);
        }
        may_become(live, &job)?;
        if live.job == job {
            let deployment = live.rollout.as_ref().and_then(|rollout| rollout.active()).map(|of| of_job(target, of));
            self.reply(id, Response::Deployed { job: target, new: false, deployment });
            return Ok(());
        }
        if live.job.template == job.template && live.job.place == job.place {
            // No task is another for it: what is under way goes on.
            let resizes = counted && live.job.count != job.count && self.may_resize(target, force)?;
            let before = self.jobs.live(target).map_or(0, |live| live.job.count);
            self.commit(Record::Retuned { id: target, job, at: self.now });
            if resizes {
                self.turn(target, Turn::Resized(before), "started");
            }
            let active = self.jobs.live(target).and_then(|live| live.rollout.as_ref()?.active());
            let deployment = active.map(|of| of_job(target, of));
            self.reply(id, Response::Deployed { job: target, new: true, deployment });
            self.changed(target, "applied");
            if resizes {
                self.advance_deployment(target);
            }
            return Ok(());
        }
        self.make_way(target, force)?;
        self.deploy_now(target, job, None, Cause::Applied);
        self.reply_deployed(id, target);
        Ok(())
    }

    /// Something else is said of a service.
    pub(super) fn describe(&mut self, id: RequestId, job: &JobRef, about: About) -> Result<(), Refusal> {
        let (target, live) = self.service(job)?;
        let job = Job { about: Some(Arc::new(about)), ..live.job.clone() };
        if job != live.job {
            self.commit(Record::Retuned { id: target, job, at: self.now });
        }
        self.reply(id, Response::Done);
        Ok(())
    }

    /// The first version of a job: it is to prove itself, too.
    fn deploy_first(&mut self, id: RequestId, job: Job) -> Result<(), Refusal> {
        if job.name.is_none() || !job.kind.lasts() {
            return self.apply_job(id, job);
        }
        self.room_for(&job)?;
        let new = self.jobs.next_id();
        self.commit(Record::Submitted { id: new, job, key: None, at: self.now });
        self.publish_job(new, "submitted");
        self.turn(new, Turn::Began, "started");
        self.advance_deployment(new);
        self.reply_deployed(id, new);
        Ok(())
    }

    fn reply_deployed(&mut self, id: RequestId, job: JobId) {
        let deployment = self.jobs.live(job).and_then(|live| live.rollout.as_ref()?.deployment.as_ref()).map(|of| of_job(job, of));
        self.reply(id, Response::Deployed { job, new: true, deployment });
    }

    /// Lets a deployment begin that is of the number of tasks alone; refuses it where another is under way. Where it is forced, it takes the place of one of its
    /// sort; another goes on instead, with the new number: false.
    fn may_resize(&mut self, target: JobId, force: bool) -> Result<bool, Refusal> {
        let active = self.jobs.live(target).and_then(|live| live.rollout.as_ref()?.active());
        if force && active.is_some_and(|of| !of.is_resize()) {
            return Ok(false);
        }
        self.make_way(target, force)?;
        Ok(true)
    }

    /// Ends a deployment that is under way, where that is wanted; refuses where it is not.
    fn make_way(&mut self, target: JobId, force: bool) -> Result<(), Refusal> {
        let Some(live) = self.jobs.live(target) else { return Ok(()) };
        let Some(deployment) = live.rollout.as_ref().and_then(|rollout| rollout.active()) else { return Ok(()) };
        if !force {
            let (of, name) = (of_job(target, deployment), title(target, live.job.name.as_ref()));
            let what = match deployment.cause {
                Cause::RolledBack | Cause::Failed => format!("going back to version {}", deployment.to),
                Cause::Resized => format!("coming to {} tasks", live.job.count),
                Cause::Applied | Cause::Restarted => format!("going to version {}", deployment.to),
            };
            let reason = format!("{name} is {what}, by deployment {of}: wait for its end, or force this in place of it");
            return Err(Refusal::Conflict { reason });
        }
        self.turn(target, Turn::Cancelled("another took its place".to_owned()), "cancelled");
        Ok(())
    }

    fn service(&self, job: &JobRef) -> Result<(JobId, &LiveJob), Refusal> {
        let id = self.found(job)?;
        let live = self.jobs.live(id).ok_or_else(|| invalid("the job has ended"))?;
        match (live.job.kind.lasts(), live.stopping) {
            (true, None) => Ok((id, live)),
            (true, Some(_)) => Err(Refusal::Conflict { reason: "the job is being stopped".into() }),
            (false, _) => Err(invalid("only services and system jobs have versions")),
        }
    }

    /// All tasks anew.
    pub(super) fn restart_job(&mut self, id: RequestId, job: &JobRef, force: bool) -> Result<(), Refusal> {
        let (target, live) = self.service(job)?;
        let job = live.job.clone();
        self.make_way(target, force)?;
        self.deploy_now(target, job, None, Cause::Restarted);
        self.reply_deployed(id, target);
        Ok(())
    }

    /// An earlier version again.
    pub(super) fn rollback(&mut self, id: RequestId, job: &JobRef, to: Option<u32>, force: bool) -> Result<(), Refusal> {
        let (target, live) = self.service(job)?;
        let none = || invalid("there is no version before this one");
        let rollout = live.rollout.as_ref().ok_or_else(none)?;
        let active = rollout.active().filter(|of| of.has_way_back());
        let before = || rollout.versions.iter().rev().find(|version| version.number < live.version).map(|version| version.number);
        let number = to.or_else(|| active.map(|of| of.from)).or_else(before).ok_or_else(none)?;
        if number == live.version {
            return Err(invalid(&format!("version {number} is the present one")));
        }
        let Some(version) = rollout.version(number) else {
            let kept: Vec<String> = rollout.versions.iter().map(|version| version.number.to_string()).collect();
            return Err(invalid(&format!("version {number} is not kept; others are: {}", kept.join(", "))));
        };
        may_become(live, &Job { count: live.job.count, ..version.job.clone() })?;
        // Back to where it came from nobody needs to insist.
        let back = active.is_some_and(|of| of.from == number);
        self.make_way(target, force || back)?;
        self.deploy_version(target, number, None, Cause::RolledBack);
        self.reply_deployed(id, target);
        Ok(())
    }

    /// Something about a deployment that is under way.
    pub(super) fn deployment_request(&mut self, id: RequestId, of: DeploymentId, wish: DeploymentWish) -> Result<(), Refusal> {
        let missing = || Refusal::NotFound { what: "deployment".into() };
        let live = self.jobs.live(of.job).ok_or_else(missing)?;
        let deployment = live.rollout.as_ref().and_then(|rollout| rollout.deployment.as_ref()).ok_or_else(missing)?;
        if deployment.number != of.number {
            return Err(missing());
        }
        let (state, from) = (deployment.state, deployment.from);
        let back = deployment.has_way_back();
        let refuse = |reason: &str| Err(Refusal::Conflict { reason: format!("{of} {reason}") });
        match (wish, state) {
            (_, State::Done | State::Failed | State::Cancelled) => return refuse("is over"),
            (DeploymentWish::Pause, State::Paused) | (DeploymentWish::Resume, State::Running) => {}
            (DeploymentWish::Pause, _) => self.turn(of.job, Turn::Paused, "paused"),
            (DeploymentWish::Resume, State::Paused) => self.turn(of.job, Turn::Resumed, "resumed"),
            (DeploymentWish::Resume, _) => return refuse("waits to be promoted"),
            (DeploymentWish::Promote, State::Waiting) => self.turn(of.job, Turn::Promoted, "promoted"),
            (DeploymentWish::Promote, _) => return refuse("does not wait to be promoted now"),
            (DeploymentWish::Cancel { back: true }, _) if !back => {
                return refuse("has no version to go back to: it can be cancelled and left as it is");
            }
            (DeploymentWish::Cancel { back }, _) => {
                if !back {
                    self.let_extra_go(of.job);
                }
                self.turn(of.job, Turn::Cancelled(why("somebody cancelled it")), "cancelled");
            }
        }
        if matches!(wish, DeploymentWish::Cancel { back: true }) {
            let count = self.jobs.live(of.job).and_then(|live| Some(live.rollout.as_ref()?.deployment.as_ref()?.from_count));
            self.deploy_version(of.job, from, count, Cause::RolledBack);
        }
        self.reply(id, Response::Done);
        self.advance_deployment(of.job);
        Ok(())
    }

    /// The last deployment of a job, as it stands.
    pub(super) fn deployment_view(&self, id: JobId) -> Option<DeploymentView> {
        let live = self.jobs.live(id)?;
        let deployment = live.rollout.as_ref()?.deployment.as_ref()?;
        let counts = self.deployment_counts(id)?;
        let rules = Rules::of(&live.job, self.deployment_count(id), deployment.is_whole());
        Some(DeploymentView {
            id: of_job(id, deployment),
            role: live.job.role.clone(),
            title: title(id, live.job.name.as_ref()),
            from: deployment.from,
            to: deployment.to,
            cause: deployment.cause,
            state: deployment.state,
            why: deployment.why.clone(),
            started: deployment.started,
            since: deployment.since,
            deadline: deployment.deadline,
            count: rules.count,
            ready: counts.new_ready,
            new: counts.new,
            old: counts.old(),
            old_ready: counts.old_ready,
            extra: counts.extra,
            parallel: rules.parallel,
            canary: rules.canary.unwrap_or(0),
            failures: deployment.failures,
            failures_max: failures_max(live),
            last_failure: deployment.last_failure.clone(),
            from_count: deployment.from_count,
        })
    }

    /// The last deployment of each job.
    pub(super) fn deployment_views(&self, job: Option<&JobRef>, role: Option<&Role>, ended: bool) -> Result<Vec<DeploymentView>, Refusal> {
        let ids: Vec<JobId> = match job {
            Some(job) => vec![self.found(job)?],
            None if ended => self.jobs.live.iter().copied().collect(),
            None => self.jobs.rolling.iter().copied().collect(),
        };
        let views = ids.into_iter().filter_map(|id| self.deployment_view(id));
        let active = |view: &DeploymentView| matches!(view.state, State::Running | State::Waiting | State::Paused);
        Ok(views.filter(|view| (ended || active(view)) && role.is_none_or(|role| *role == view.role)).collect())
    }

    /// The versions of a service that are kept.
    pub(super) fn version_views(&self, job: &JobRef) -> Result<Vec<VersionView>, Refusal> {
        let id = self.found(job)?;
        let live = self.jobs.live(id).ok_or_else(|| invalid("the job has ended: its versions are no longer kept"))?;
        let rollout = live.rollout.as_ref();
        let (since, cause) = rollout.map_or((live.submitted, Cause::Applied), |rollout| (rollout.since, rollout.cause));
        let current = VersionView { number: live.version, current: true, job: live.job.clone(), since, cause };
        let kept = rollout.into_iter().flat_map(|rollout| &rollout.versions);
        let others =
            kept.map(|of| VersionView { number: of.number, current: false, job: of.job.clone(), since: of.since, cause: of.cause });
        let mut views: Vec<VersionView> = others.chain([current]).collect();
        views.sort_by_key(|view| view.number);
        Ok(views)
    }
}

const fn of_job(job: JobId, deployment: &Deployment) -> DeploymentId {
    DeploymentId { job, number: deployment.number }
}

fn invalid(reason: &str) -> Refusal {
    Refusal::Invalid { reason: reason.into() }
}

/// Why a service cannot become what is wanted.
pub(super) fn may_become(live: &LiveJob, job: &Job) -> Result<(), Refusal> {
    if live.stopping.is_some() {
        let name = job.name.as_ref().map(ToString::to_string).unwrap_or_default();
        return Err(Refusal::Conflict { reason: format!("the job '{name}' is being stopped") });
    }
    if live.job.kind != job.kind {
        return Err(invalid("kind: a job of one kind cannot become one of another: stop it first"));
    }
    // What runs unfenced may live on somewhere, unseen.
    if live.job.template.is_fenced() != job.template.is_fenced() {
        return Err(invalid("service.fenced: a job that runs cannot become fenced, nor cease to be: stop it first"));
    }
    if job.count > protocol::job::COUNT_MAX {
        return Err(invalid(&format!("count: at most {} tasks", protocol::job::COUNT_MAX)));
    }
    Ok(())
}
