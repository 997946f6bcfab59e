//! A deployment as Marathon's clients see it: which steps it has, and how far these are.

use super::health;
use super::held::{self, Held};
use super::id::AppId;
use super::note::Mark;
use super::words::uuid;
use super::wrong::Wrong;
use crate::http::Api;
use crate::http::access::Caller;
use crate::jobs::DeploymentId;
use crate::jobs::rollout::{Cause, State};
use crate::shard::deployment_view::DeploymentView;
use crate::shard::event::Level;
use protocol::{JobId, Phase, Time};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How long after a step the next is waited for of which nothing has been heard, in milliseconds.
const STEP_WITHIN_MS: u64 = 5_000;
/// What a step is called that ends an app.
pub const STOP: &str = "StopApplication";

/// One of them.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// Its id.
    pub id: String,
    /// The version of what was asked.
    pub version: String,
    /// What is done to which app.
    pub steps: Vec<Step>,
    /// How many steps it has that end no app: some may not have been heard of yet.
    pub of: usize,
}

/// What is done to one app.
#[derive(Clone, Debug)]
pub struct Step {
    /// Which.
    pub app: AppId,
    /// `StartApplication`, `ScaleApplication`, `RestartApplication` or [`STOP`].
    pub action: &'static str,
    /// Its place among the others.
    pub at: u32,
    /// Its job, and the version of it that is to run.
    pub job: (JobId, u32),
    /// What brings its service there, where something does.
    pub rolling: Option<DeploymentId>,
    /// When that began.
    pub began: Time,
    /// True once it is as it was to be.
    pub done: bool,
}

/// How far a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stands {
    /// It goes on.
    Open,
    /// It is as it was to be.
    Done,
    /// It is not gone on with.
    Failed,
}

/// True while it is under way.
pub const fn is_active(view: &DeploymentView) -> bool {
    matches!(view.state, State::Running | State::Waiting | State::Paused)
}

/// What clients call a deployment of a service: the same at every master.
pub fn id_of(id: DeploymentId) -> String {
    uuid(&id.to_string())
}

/// The same of the end of a job.
pub fn id_of_end(job: JobId) -> String {
    uuid(&format!("end of {job}"))
}

/// The mark of what an app's service does; `None` where that is a deployment of its own. What stands with the app may be of an earlier change: what
/// a restart or a way back does began with no note of its own.
pub fn mark_of(view: &DeploymentView, held: &Held) -> Option<Mark> {
    let counts = |mark: &Mark| match mark.number {
        Some(number) => number == view.id.number,
        None => matches!(view.cause, Cause::Applied | Cause::Resized),
    };
    held.mark().filter(|mark| !mark.ends && counts(mark))
}

impl Step {
    /// What an app's service does.
    pub fn of(view: &DeploymentView, held: &Held) -> Self {
        let action = match view.cause {
            Cause::Resized => "ScaleApplication",
            _ if view.from == 0 => "StartApplication",
            _ => "RestartApplication",
        };
        let (job, at) = ((view.job(), view.to), mark_of(view, held).map_or(0, |mark| mark.at));
        Self { app: held.id.clone(), action, at, job, rolling: Some(view.id), began: view.started, done: !is_active(view) }
    }

    /// That an app ends.
    pub fn of_end(held: &Held) -> Self {
        let (job, at) = ((held.view.id, held.view.version), held.mark().map_or(0, |mark| mark.at));
        Self { app: held.id.clone(), action: STOP, at, job, rolling: None, began: Time::ZERO, done: false }
    }

    /// What was done with an app that something else has been done with since.
    pub fn over(held: &Held, mark: &Mark) -> Self {
        let job = (held.view.id, held.view.version);
        Self { app: held.id.clone(), action: "RestartApplication", at: mark.at, job, rolling: None, began: Time::ZERO, done: true }
    }

    /// How far it is, where `last` is the last deployment of its service.
    fn stands(&self, held: Option<&Held>, last: Option<&DeploymentView>, healthy: Option<u32>) -> Stands {
        let Some(held) = held.filter(|held| held.view.id == self.job.0) else { return Stands::Done };
        if self.action == STOP {
            return if held.view.ended.is_some() { Stands::Done } else { Stands::Open };
        }
        let Some(rolling) = self.rolling else {
            // A later change may have taken its place.
            let is_over =
                held.view.version != self.job.1 || !held.view.stopping && !last.is_some_and(is_active) && is_settled(held, healthy);
            return if is_over { Stands::Done } else { Stands::Open };
        };
        match last.filter(|last| last.id == rolling).map(|last| last.state) {
            // Another has taken its place.
            None => Stands::Done,
            Some(State::Running | State::Waiting | State::Paused) => Stands::Open,
            Some(State::Done) => Stands::Done,
            Some(State::Failed | State::Cancelled) => Stands::Failed,
        }
    }

    /// Looks how far it is.
    ///
    /// # Errors
    /// [`Wrong`] where a shard cannot answer now.
    pub async fn look(&self, api: &Api) -> Result<Stands, Wrong> {
        let caller = Caller::of_all_roles(Level::Viewer);
        let Some(held) = held::known(api, &caller, &self.app).await?.filter(|held| held.view.id == self.job.0) else {
            return Ok(self.stands(None, None, None));
        };
        let last = crate::http::deployments::known(api, &caller, Some(&held.view), None, true).await?.into_iter().next();
        let counts = match self.rolling {
            None if health::is_asked(&held) => health::counts(api, std::slice::from_ref(&held)).await?,
            _ => BTreeMap::new(),
        };
        let healthy = health::is_asked(&held).then(|| counts.get(&held.view.id).map_or(0, |counts| counts.healthy));
        Ok(self.stands(Some(&held), last.as_ref(), healthy))
    }
}

/// True where an app has all its tasks running, and well where it asks that, and no other.
fn is_settled(held: &Held, healthy: Option<u32>) -> bool {
    let busy = [Phase::Waiting, Phase::Staging, Phase::Starting, Phase::Killing];
    let serve = healthy.unwrap_or_else(|| held.count(&[Phase::Running])) + held.count(&[Phase::Unreachable]);
    held.count(&busy) == 0 && serve >= held.view.job.count
}

impl Deployment {
    /// One of these steps.
    pub fn new(id: String, version: String, steps: Vec<Step>) -> Self {
        let of = steps.iter().filter(|step| step.action != STOP).count();
        Self { id, version, steps, of }
    }

    /// That of an app's service, as every master sees it.
    pub fn of(view: &DeploymentView, held: &Held) -> Self {
        Self::new(id_of(view.id), version(held), vec![Step::of(view, held)])
    }

    /// That of an app that is about to end.
    pub fn of_end(held: &Held) -> Self {
        Self::new(id_of_end(held.view.id), version(held), vec![Step::of_end(held)])
    }

    /// One of several apps, of which this step is known.
    pub fn marked(mark: &Mark, step: Step) -> Self {
        let of = usize::try_from(mark.of).unwrap_or(usize::MAX);
        Self { of, ..Self::new(mark.deployment.clone(), mark.version.clone(), vec![step]) }
    }

    /// True where all its steps are known that there are to be. Another is waited for for a while after the last that is known began: whoever was asked may
    /// be about to begin with it, or may have died, or it was given up for something else.
    pub fn is_whole(&self, now: Time) -> bool {
        let last = self.steps.iter().map(|step| step.began).max().unwrap_or(Time::ZERO);
        self.steps.iter().filter(|step| step.action != STOP).count() >= self.of || now >= last + STEP_WITHIN_MS
    }

    /// As `/v2/deployments` shows it.
    pub fn json(&self) -> Value {
        let action = |step: &Step| json!({ "action": step.action, "app": step.app.as_str() });
        let (done, rest): (Vec<&Step>, Vec<&Step>) = self.steps.iter().partition(|step| step.done);
        json!({
            "id": self.id,
            "version": self.version,
            "affectedApps": self.steps.iter().map(|step| step.app.as_str()).collect::<Vec<_>>(),
            "affectedPods": [],
            "steps": self.steps.iter().map(|step| json!({ "actions": [action(step)] })).collect::<Vec<_>>(),
            "currentActions": rest.first().map(|step| action(step)).into_iter().collect::<Vec<_>>(),
            "currentStep": (done.len() + 1).min(self.steps.len()),
            "totalSteps": self.steps.len(),
        })
    }

    /// The same as events show it.
    pub fn plan(&self) -> Value {
        let group = |version: &str| json!({ "id": "/", "apps": [], "groups": [], "pods": [], "dependencies": [], "version": version });
        let action = |step: &Step| json!({ "actions": [{ "action": step.action, "app": step.app.as_str() }] });
        json!({
            "id": self.id,
            "version": self.version,
            "original": group(&self.version),
            "target": group(&self.version),
            "steps": self.steps.iter().map(action).collect::<Vec<_>>(),
        })
    }

    /// The step that is being done, as events show it.
    pub fn current(&self) -> Value {
        let step = self.steps.iter().find(|step| !step.done).or(self.steps.last());
        let actions = step.map(|step| json!({ "type": step.action, "action": step.action, "app": step.app.as_str() }));
        json!({ "actions": actions.into_iter().collect::<Vec<_>>() })
    }
}

fn version(held: &Held) -> String {
    held.fields().get("version").and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admit::bundle::{Form, Verdict};
    use crate::admit::wasm::Rejection;
    use crate::http::marathon::{app::normal, job::made, note::marked};
    use crate::shard::view::JobView;
    use protocol::{Role, Time};

    fn held(mark: Option<&Mark>) -> Held {
        let id = AppId::parse("/web/a").unwrap();
        let app = normal(&id, json!({ "cmd": "x" }).as_object().unwrap(), false).unwrap();
        let looked = |_| Some(Verdict { form: Form::Script, wasm: Err(Rejection::Text) });
        let job = marked(&crate::admit::admit(made(&app, true).unwrap().spec, &looked).unwrap(), mark);
        let tasks = BTreeMap::new();
        let (submitted, ended) = (Time(1), None);
        Held::of(JobView { id: JobId(7), job, version: 2, stopping: false, submitted, ended, tasks, restarts: 0 }).unwrap()
    }

    fn view(cause: Cause, from: u32, number: u32) -> DeploymentView {
        DeploymentView {
            id: DeploymentId { job: JobId(7), number },
            role: Role::new("web").unwrap(),
            title: "a".into(),
            from,
            to: 2,
            cause,
            state: State::Running,
            why: String::new(),
            started: Time(1),
            since: Time(1),
            deadline: Time(2),
            count: 1,
            ready: 0,
            new: 1,
            old: 0,
            old_ready: 0,
            extra: 0,
            parallel: 1,
            canary: 0,
            failures: 0,
            failures_max: 1,
            last_failure: None,
            from_count: 1,
        }
    }

    fn mark() -> Mark {
        Mark { deployment: "both".into(), version: "v".into(), at: 1, of: 2, number: None, ends: false }
    }

    #[test]
    fn what_stands_with_an_app_counts_for_what_began_with_it_alone() {
        let numbered = Mark { number: Some(4), ..mark() };
        let ends = Mark { ends: true, ..mark() };
        for (said, cause, counts) in [
            (Some(mark()), Cause::Applied, true),
            (Some(mark()), Cause::Resized, true),
            (Some(mark()), Cause::Restarted, false),
            (Some(mark()), Cause::RolledBack, false),
            (Some(mark()), Cause::Failed, false),
            (Some(numbered.clone()), Cause::RolledBack, true),
            (Some(Mark { number: Some(5), ..numbered }), Cause::RolledBack, false),
            (Some(ends), Cause::Applied, false),
            (None, Cause::Applied, false),
        ] {
            assert_eq!(mark_of(&view(cause, 1, 4), &held(said.as_ref())).is_some(), counts, "{said:?} {cause:?}");
        }
    }

    #[test]
    fn a_step_is_called_by_what_the_service_does_and_is_whole_with_the_others() {
        let step = |cause, from| Step::of(&view(cause, from, 4), &held(Some(&mark())));
        let called = |cause, from| step(cause, from).action;
        assert_eq!(called(Cause::Applied, 0), "StartApplication");
        assert_eq!((called(Cause::Applied, 1), called(Cause::RolledBack, 1)), ("RestartApplication", "RestartApplication"));
        assert_eq!((called(Cause::Resized, 0), called(Cause::Resized, 1)), ("ScaleApplication", "ScaleApplication"));
        let one = Deployment::marked(&mark(), step(Cause::Applied, 0));
        assert_eq!((one.id.as_str(), one.of, one.is_whole(Time(2)), one.steps[0].at), ("both", 2, false, 1));
        assert!(one.is_whole(Time(1) + STEP_WITHIN_MS), "it is not waited for without end");
        let other = Step { app: AppId::parse("/web/b").unwrap(), at: 0, done: true, ..step(Cause::Applied, 0) };
        let both = Deployment { steps: vec![other, one.steps[0].clone()], ..one };
        let json = both.json();
        assert!(both.is_whole(Time(2)) && json["currentStep"] == 2 && json["currentActions"][0]["app"] == "/web/a", "{json}");
        assert_eq!(Deployment::of(&view(Cause::Applied, 0, 4), &held(None)).id, id_of(DeploymentId { job: JobId(7), number: 4 }));
    }
}
