//! Deployments: what was asked of apps and is not done yet, during which its apps are locked. All that knows of deployments is here.
//!
//! How an app goes from one version to another its service has on record: every master lists that, and can end it. What else was asked, another number of
//! tasks or several apps at once, is known to the master that was asked, for as long as it lives: nothing is lost with that but the way back.

use super::change::{Begun, Change, Changing, What};
use super::held::{self, Held};
use super::id::AppId;
use super::words::{Query, timestamp, uuid};
use super::wrong::Wrong;
use super::{health, job, versions};
use crate::http::access::{Caller, now};
use crate::http::error::ApiError;
use crate::http::{Api, find};
use crate::jobs::DeploymentId;
use crate::jobs::rollout::{Cause, State};
use crate::shard::deployment_view::DeploymentView;
use crate::shard::event::{DeploymentWish, JobRef, Level, Request};
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use protocol::{Job, JobId, Phase};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Deployments at the same time, as in Marathon (`--max_running_deployments`).
pub const DEPLOYMENTS_MAX: usize = 100;

/// Deployments of services that this master remembers to have begun.
const OWN_MAX: usize = 4_096;

/// What was asked of this master.
#[derive(Debug, Default)]
pub struct Deployments {
    /// What is not done yet, by id.
    open: Mutex<BTreeMap<String, Deployment>>,
    /// Those of services that it began, the oldest first: it tells of them itself.
    own: Mutex<VecDeque<DeploymentId>>,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// Its id.
    pub id: String,
    /// The version of what was asked, as a time.
    pub version: String,
    /// What is done to which app.
    pub steps: Vec<Step>,
}

/// What is done to one app.
#[derive(Clone, Debug)]
pub struct Step {
    /// Which.
    pub app: AppId,
    /// `StartApplication`, `ScaleApplication`, `RestartApplication` or `StopApplication`.
    pub action: &'static str,
    /// Its job, and the version of it that is to run.
    pub job: (JobId, u32),
    /// What brings its service to that version, where something does.
    pub rolling: Option<DeploymentId>,
    /// What it was before; `None` where it was not there.
    pub before: Option<Job>,
    /// True once it is as it was to be.
    pub done: bool,
}

/// How far a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    Open,
    Done,
    /// It is not gone on with.
    Failed,
}

impl Step {
    /// How far it is, where `last` is the last deployment of its service.
    fn stands(&self, held: Option<&Held>, last: Option<&DeploymentView>, healthy: Option<u32>) -> Stands {
        let Some(held) = held.filter(|held| held.view.id == self.job.0) else { return Stands::Done };
        if self.action == "StopApplication" {
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
}

/// True while it is under way.
const fn is_active(view: &DeploymentView) -> bool {
    matches!(view.state, State::Running | State::Waiting | State::Paused)
}

/// True where an app has all its tasks running, and well where it asks that, and no other.
fn is_settled(held: &Held, healthy: Option<u32>) -> bool {
    let busy = [Phase::Waiting, Phase::Staging, Phase::Starting, Phase::Killing];
    let serve = healthy.unwrap_or_else(|| held.count(&[Phase::Running])) + held.count(&[Phase::Unreachable]);
    held.count(&busy) == 0 && serve >= held.view.job.count
}

impl Deployment {
    /// That of an app's service, as every master sees it.
    pub fn of(view: &DeploymentView, held: &Held) -> Self {
        let action = if view.from == 0 { "StartApplication" } else { "RestartApplication" };
        let job = (view.job(), view.to);
        let step = Step { app: held.id.clone(), action, job, rolling: Some(view.id), before: None, done: view.state == State::Done };
        let fields = held.fields();
        let version = fields.get("version").and_then(Value::as_str).unwrap_or_default().to_owned();
        Self { id: id_of(view.id), version, steps: vec![step] }
    }

    /// That of an app that is about to end.
    fn of_end(held: &Held) -> Self {
        let (job, action) = ((held.view.id, held.view.version), "StopApplication");
        let step = Step { app: held.id.clone(), action, job, rolling: None, before: None, done: false };
        let fields = held.fields();
        let version = fields.get("version").and_then(Value::as_str).unwrap_or_default().to_owned();
        Self { id: id_of_end(held.view.id), version, steps: vec![step] }
    }

    fn json(&self) -> Value {
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

/// What clients call a deployment of a service: the same at every master.
fn id_of(id: DeploymentId) -> String {
    uuid(&id.to_string())
}

/// The same of the end of a job.
fn id_of_end(job: JobId) -> String {
    uuid(&format!("end of {job}"))
}

impl Deployments {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Deployment>> {
        // Nothing inside the lock can panic half way.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own(&self) -> MutexGuard<'_, VecDeque<DeploymentId>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True where this master began it, and tells of it.
    pub fn is_own(&self, id: DeploymentId) -> bool {
        self.own().contains(&id)
    }

    /// The ids of those that were asked here and concern an app.
    pub fn of(&self, app: &AppId) -> Vec<String> {
        let all = self.all();
        let concerns = |deployment: &&Deployment| deployment.steps.iter().any(|step| step.app == *app && !step.done);
        all.values().filter(concerns).map(|deployment| deployment.id.clone()).collect()
    }

    /// Deployments of services that are steps of what was asked here.
    fn rolling(&self) -> BTreeSet<DeploymentId> {
        self.all().values().flat_map(|deployment| deployment.steps.iter().filter_map(|step| step.rolling)).collect()
    }

    /// True where none is open.
    pub fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    /// Takes off the list what a deployment of a service is a step of.
    pub fn take(&self, id: DeploymentId) -> Option<Deployment> {
        let mut all = self.all();
        let found = all.values().find(|deployment| deployment.steps.iter().any(|step| step.rolling == Some(id)))?.id.clone();
        all.remove(&found)
    }
}

/// The ids of all that are open, by job.
///
/// # Errors
/// An [`ApiError`] where a shard cannot answer now.
pub async fn by_job(api: &Api) -> Result<BTreeMap<JobId, Vec<String>>, ApiError> {
    let views = under_way(api).await?;
    let mut by_job: BTreeMap<JobId, Vec<String>> = BTreeMap::new();
    for deployment in api.marathon.deployments.all().values() {
        for step in deployment.steps.iter().filter(|step| !step.done) {
            by_job.entry(step.job.0).or_default().push(deployment.id.clone());
        }
    }
    for view in views {
        by_job.entry(view.job()).or_default().push(id_of(view.id));
    }
    Ok(by_job)
}

/// Those of services that are no part of what was asked here.
async fn under_way(api: &Api) -> Result<Vec<DeploymentView>, ApiError> {
    let mut views = crate::http::deployments::known(api, &Caller::of_all_roles(Level::Viewer), None, None, false).await?;
    let ours = api.marathon.deployments.rolling();
    views.retain(|view| !ours.contains(&view.id));
    Ok(views)
}

/// All that the caller may see: what was asked here, and what services do otherwise; with `ends` also what is about to end.
async fn open(api: &Api, caller: &Caller, ends: bool) -> Result<Vec<Deployment>, Wrong> {
    super::events::settled(api, settle(api).await?);
    let views = under_way(api).await?;
    let mut found: Vec<Deployment> = api.marathon.deployments.all().values().cloned().collect();
    for view in views.iter().filter(|view| caller.sees(&view.role)) {
        let held = find::viewed(api, view.job().shard(), JobRef::Id(view.job())).await?.and_then(Held::of);
        found.extend(held.filter(Held::lives).map(|held| Deployment::of(view, &held)));
    }
    if ends {
        let ours: BTreeSet<JobId> = found.iter().flat_map(|found| found.steps.iter().map(|step| step.job.0)).collect();
        let all = held::everything(api, caller).await?;
        found.extend(all.iter().filter(|held| held.view.stopping && !ours.contains(&held.view.id)).map(Deployment::of_end));
    }
    found.retain(|deployment| deployment.steps.iter().all(|step| sees(caller, &step.app)));
    Ok(found)
}

/// Puts one on the list for what was done to these apps; gives back its id.
pub fn begin(api: &Api, version: &str, steps: Vec<Step>) -> Deployment {
    let rolling: Vec<DeploymentId> = steps.iter().filter_map(|step| step.rolling).collect();
    let id = match (&steps[..], rolling.first()) {
        (_, Some(first)) => id_of(*first),
        ([step], None) if step.action == "StopApplication" => id_of_end(step.job.0),
        _ => uuid(&format!("{version} {:?}", steps.iter().map(|step| (step.app.as_str(), step.job)).collect::<Vec<_>>())),
    };
    let deployment = Deployment { id: id.clone(), version: version.to_owned(), steps };
    {
        let mut own = api.marathon.deployments.own();
        own.extend(rolling);
        let beyond = own.len().saturating_sub(OWN_MAX);
        own.drain(..beyond);
    }
    let mut all = api.marathon.deployments.all();
    if !deployment.steps.is_empty() {
        while all.len() >= DEPLOYMENTS_MAX && all.pop_first().is_some() {}
        all.insert(id, deployment.clone());
    }
    deployment
}

/// What has become of those that were asked here.
#[derive(Debug, Default)]
pub struct Looked {
    /// Those that are done.
    pub over: Vec<Deployment>,
    /// Those of which a step is done.
    pub further: Vec<Deployment>,
    /// Those that are not gone on with.
    pub failed: Vec<Deployment>,
}

/// Looks how far all of them are, as [`settle_of`].
///
/// # Errors
/// As there.
pub async fn settle(api: &Api) -> Result<Looked, Wrong> {
    settle_of(api, |_| true).await
}

/// Looks how far those are that concern such jobs: takes what is over off the list and gives it back, and beside it those of which a step is done.
///
/// # Errors
/// [`Wrong`] where a shard cannot answer now.
pub async fn settle_of(api: &Api, concerns: impl Fn(JobId) -> bool) -> Result<Looked, Wrong> {
    let touched = |deployment: &&Deployment| deployment.steps.iter().any(|step| !step.done && concerns(step.job.0));
    let open: Vec<Deployment> = api.marathon.deployments.all().values().filter(touched).cloned().collect();
    let mut looked = Looked::default();
    for mut deployment in open {
        let before = deployment.steps.iter().filter(|step| step.done).count();
        let mut fails = false;
        for step in deployment.steps.iter_mut().filter(|step| !step.done && concerns(step.job.0)) {
            let stands = look(api, step).await?;
            (step.done, fails) = (stands != Stands::Open, fails || stands == Stands::Failed);
        }
        let done = deployment.steps.iter().filter(|step| step.done).count();
        let mut all = api.marathon.deployments.all();
        // Another may have looked, or taken it off, meanwhile.
        let Some(kept) = all.get_mut(&deployment.id) else { continue };
        if fails {
            all.remove(&deployment.id);
            looked.failed.push(deployment);
        } else if done == deployment.steps.len() {
            all.remove(&deployment.id);
            looked.over.push(deployment);
        } else if done > before && done > kept.steps.iter().filter(|step| step.done).count() {
            *kept = deployment.clone();
            looked.further.push(deployment);
        }
    }
    Ok(looked)
}

/// How far a step is.
async fn look(api: &Api, step: &Step) -> Result<Stands, Wrong> {
    let caller = Caller::of_all_roles(Level::Viewer);
    let Some(held) = held::known(api, &caller, &step.app).await?.filter(|held| held.view.id == step.job.0) else {
        return Ok(step.stands(None, None, None));
    };
    let last = crate::http::deployments::known(api, &caller, Some(&held.view), None, true).await?.into_iter().next();
    let counts = match step.rolling {
        None if health::is_asked(&held) => health::counts(api, std::slice::from_ref(&held)).await?,
        _ => BTreeMap::new(),
    };
    let healthy = health::is_asked(&held).then(|| counts.get(&held.view.id).map_or(0, |counts| counts.healthy));
    Ok(step.stands(Some(&held), last.as_ref(), healthy))
}

/// Lets a change of these apps begin: refuses it while another is not done, or ends that where it is forced.
///
/// # Errors
/// [`Wrong`] of status 409 that names those that are in the way.
pub async fn lock(api: &Api, apps: &[(AppId, Option<JobId>)], force: bool) -> Result<(), Wrong> {
    super::events::settled(api, settle(api).await?);
    let deployments = &api.marathon.deployments;
    let others = if force { vec![] } else { under_way(api).await? };
    for (app, job) in apps {
        let mut ids = deployments.of(app);
        ids.extend(others.iter().filter(|view| Some(view.job()) == *job).map(|view| id_of(view.id)));
        if !ids.is_empty() && !force {
            return Err(Wrong::locked(app.as_str(), ids));
        }
        let gone: Vec<Deployment> = ids.iter().filter_map(|id| deployments.all().remove(id)).collect();
        gone.iter().for_each(|deployment| super::events::failed(api, deployment));
    }
    if !force && deployments.all().len() + others.len() >= DEPLOYMENTS_MAX {
        return Err(Wrong::new(StatusCode::FORBIDDEN, format!("Max number ({DEPLOYMENTS_MAX}) of running deployments reached")));
    }
    Ok(())
}

/// Answers `GET /v2/deployments`.
pub async fn list(api: &Api, caller: &Caller) -> Result<Response, Wrong> {
    caller.must_level(Level::Viewer)?;
    let all = open(api, caller, true).await?;
    Ok(Json(all.iter().map(Deployment::json).collect::<Vec<_>>()).into_response())
}

/// True where the caller may see an app.
pub fn sees(caller: &Caller, app: &AppId) -> bool {
    app.place().is_ok_and(|(role, _)| caller.sees(&role))
}

/// Answers `DELETE /v2/deployments/{id}`: all of it goes back to what was before; by force it is only given up, and all stays as it is.
pub async fn cancel(api: &Api, caller: &Caller, id: &str, query: &Query) -> Result<Response, Wrong> {
    let found = open(api, caller, true).await?.into_iter().find(|deployment| deployment.id == id);
    let deployment = found.ok_or_else(|| Wrong::not_found(format!("DeploymentPlan {id} does not exist")))?;
    for step in &deployment.steps {
        let (role, _) = step.app.place().map_err(Wrong::bad)?;
        caller.must(Level::Operator, &role)?;
    }
    let back = !query.flag("force");
    if let Some(step) = deployment.steps.iter().find(|step| step.action == "StopApplication" && back) {
        return Err(Wrong::conflict(format!("{} is being stopped: that is not taken back; create it again", step.app)));
    }
    let apps: Vec<AppId> = deployment.steps.iter().map(|step| step.app.clone()).collect();
    let _changing = Changing::new(api, &apps);
    // What the master that was asked takes off its list it says to be given up; of others it is heard from the service.
    if api.marathon.deployments.all().remove(id).is_some() {
        super::events::failed(api, &deployment);
    }
    let (mut changes, mut steps) = (vec![], vec![]);
    for step in deployment.steps {
        let Some(now) = held::known(api, caller, &step.app).await?.filter(Held::lives).filter(|held| held.view.id == step.job.0) else {
            continue;
        };
        let last = crate::http::deployments::known(api, caller, Some(&now.view), None, false).await?.into_iter().next();
        let open = last.filter(|view| Some(view.id) == step.rolling);
        match (open, back) {
            (Some(view), false) => wish(api, view.id, false).await?,
            (None, false) => {}
            // What there was nothing of before is no more.
            (Some(view), true) if view.from == 0 => changes.push((step.app, now, What::Remove)),
            // What goes back already goes forth again.
            (Some(view), true) if matches!(view.cause, Cause::RolledBack | Cause::Failed) => {
                let job = versions::job(api, &now, view.from).await?;
                changes.push((step.app, now, job.map_or(What::Nothing, |job| What::Apply(Box::new(job)))));
            }
            (Some(view), true) => {
                wish(api, view.id, true).await?;
                steps.extend(way_back(api, caller, step.app, &now).await?);
            }
            (None, true) => {
                let what = before(step.before, step.action, &now);
                changes.push((step.app, now, what));
            }
        }
    }
    if !back {
        return Ok(StatusCode::ACCEPTED.into_response());
    }
    let changes = changes.into_iter().map(|(id, now, what)| Change { id, before: Some(now), what, action: "RestartApplication" });
    super::change::carry_out_beside(api, changes.collect(), steps, &timestamp(now())).await.map(Begun::into_response)
}

/// What makes an app be as it was, of which no deployment is open any more.
fn before(before: Option<Job>, action: &str, now: &Held) -> What {
    match before {
        None if action == "StartApplication" => What::Remove,
        None => What::Nothing,
        Some(job) if job == now.view.job => What::Nothing,
        Some(job) if job::is_scaled(&job, &now.view.job) => What::Scale(job.count),
        Some(job) => What::Apply(Box::new(job)),
    }
}

async fn wish(api: &Api, id: DeploymentId, back: bool) -> Result<(), Wrong> {
    Ok(find::done(api, id.job.shard(), Request::Deployment { id, wish: DeploymentWish::Cancel { back } }).await?)
}

/// The step that leads an app back; `None` where it has been made already.
async fn way_back(api: &Api, caller: &Caller, app: AppId, left: &Held) -> Result<Option<Step>, Wrong> {
    let last = crate::http::deployments::known(api, caller, Some(&left.view), None, true).await?.into_iter().next();
    let step = |view: DeploymentView| {
        let (job, before) = ((view.job(), view.to), Some(left.view.job.clone()));
        Step { app, action: "RestartApplication", job, rolling: Some(view.id), before, done: false }
    };
    Ok(last.map(step))
}
