//! Deployments: what was asked of apps and is not done yet. One is done when each of its apps has as many tasks running as it is to have, all of its
//! new version; until then its apps are locked. All that knows of deployments is here.
//!
//! They are kept by the master that was asked, for as long as it lives: they hold nothing that would be lost with them but the way back.

use super::change::{Change, What};
use super::held::{self, Held};
use super::id::AppId;
use super::words::{Query, timestamp, uuid};
use super::wrong::Wrong;
use crate::http::Api;
use crate::http::access::{Caller, now};
use crate::shard::event::{JobRef, Level, Request, Response as Answer};
use crate::shard::view::{View, Viewed};
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use protocol::{Job, JobId, Phase};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Deployments at the same time, as in Marathon (`--max_running_deployments`).
pub const DEPLOYMENTS_MAX: usize = 100;

/// What is not done yet.
#[derive(Debug, Default)]
pub struct Deployments(Mutex<BTreeMap<String, Deployment>>);

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
    /// What it was before; `None` where it was not there.
    pub before: Option<Job>,
    /// True once it is as it was to be.
    pub done: bool,
}

impl Step {
    fn is_done(&self, held: Option<&Held>) -> bool {
        match held {
            None => true,
            Some(held) if held.view.id != self.job.0 => true,
            // A later change has taken its place.
            Some(held) if held.view.version > self.job.1 && self.action != "StopApplication" => true,
            Some(held) if self.action == "StopApplication" => held.view.ended.is_some(),
            Some(held) => !held.view.stopping && is_settled(held),
        }
    }
}

/// True where an app has all its tasks running, and no other.
fn is_settled(held: &Held) -> bool {
    let busy = [Phase::Waiting, Phase::Staging, Phase::Starting, Phase::Killing];
    held.count(&busy) == 0 && held.count(&[Phase::Running, Phase::Unreachable]) >= held.view.job.count
}

impl Deployment {
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

impl Deployments {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Deployment>> {
        // Nothing inside the lock can panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ids of those that concern an app.
    pub fn of(&self, app: &AppId) -> Vec<String> {
        let all = self.all();
        let concerns = |deployment: &&Deployment| deployment.steps.iter().any(|step| step.app == *app && !step.done);
        all.values().filter(concerns).map(|deployment| deployment.id.clone()).collect()
    }

    /// The ids of all, by app.
    pub fn by_app(&self) -> BTreeMap<AppId, Vec<String>> {
        let mut by_app: BTreeMap<AppId, Vec<String>> = BTreeMap::new();
        for deployment in self.all().values() {
            for step in deployment.steps.iter().filter(|step| !step.done) {
                by_app.entry(step.app.clone()).or_default().push(deployment.id.clone());
            }
        }
        by_app
    }

    /// True where none is open.
    pub fn is_empty(&self) -> bool {
        self.all().is_empty()
    }
}

/// Puts one on the list for what was done to these apps; gives back its id.
pub fn begin(api: &Api, version: &str, steps: Vec<Step>) -> Deployment {
    let id = uuid(&format!("{version} {:?}", steps.iter().map(|step| (step.app.as_str(), step.job)).collect::<Vec<_>>()));
    let deployment = Deployment { id: id.clone(), version: version.to_owned(), steps };
    let mut all = api.marathon.deployments.all();
    if !deployment.steps.is_empty() {
        while all.len() >= DEPLOYMENTS_MAX && all.pop_first().is_some() {}
        all.insert(id, deployment.clone());
    }
    deployment
}

/// Looks how far all of them are, as [`settle_of`].
///
/// # Errors
/// As there.
pub async fn settle(api: &Api) -> Result<(Vec<Deployment>, Vec<Deployment>), Wrong> {
    settle_of(api, |_| true).await
}

/// Looks how far those are that concern such jobs: takes what is done off the list and gives it back, and beside it those of which a step is done.
///
/// # Errors
/// [`Wrong`] where a shard cannot answer now.
pub async fn settle_of(api: &Api, concerns: impl Fn(JobId) -> bool) -> Result<(Vec<Deployment>, Vec<Deployment>), Wrong> {
    let caller = Caller::of_all_roles(Level::Viewer);
    let touched = |deployment: &&Deployment| deployment.steps.iter().any(|step| !step.done && concerns(step.job.0));
    let open: Vec<Deployment> = api.marathon.deployments.all().values().filter(touched).cloned().collect();
    let (mut over, mut further) = (vec![], vec![]);
    for mut deployment in open {
        let before = deployment.steps.iter().filter(|step| step.done).count();
        for step in deployment.steps.iter_mut().filter(|step| !step.done && concerns(step.job.0)) {
            step.done = step.is_done(held::known(api, &caller, &step.app).await?.as_ref()) && !is_rolling(api, step.job.0).await?;
        }
        let done = deployment.steps.iter().filter(|step| step.done).count();
        let mut all = api.marathon.deployments.all();
        // Another may have looked, or taken it off, meanwhile.
        let Some(kept) = all.get_mut(&deployment.id) else { continue };
        if done == deployment.steps.len() {
            all.remove(&deployment.id);
            over.push(deployment);
        } else if done > before && done > kept.steps.iter().filter(|step| step.done).count() {
            *kept = deployment.clone();
            further.push(deployment);
        }
    }
    Ok((over, further))
}

/// True while a job goes from one version to another.
async fn is_rolling(api: &Api, job: JobId) -> Result<bool, Wrong> {
    let view = View::Deployments { job: Some(JobRef::Id(job)), role: None, ended: false };
    let asked = api.door.ask(job.shard(), Request::View(view)).await.map_err(crate::http::error::ApiError::from)?;
    Ok(matches!(asked, Answer::Viewed(viewed) if matches!(&*viewed, Viewed::Deployments(all) if !all.is_empty())))
}

/// Lets a change of these apps begin: refuses it while another is not done, or ends that where it is forced.
///
/// # Errors
/// [`Wrong`] of status 409 that names those that are in the way.
pub async fn lock(api: &Api, apps: &[AppId], force: bool) -> Result<(), Wrong> {
    super::events::settled(api, settle(api).await?);
    let deployments = &api.marathon.deployments;
    for app in apps {
        let ids = deployments.of(app);
        if ids.is_empty() {
            continue;
        }
        if !force {
            return Err(Wrong::locked(app.as_str(), ids));
        }
        let gone: Vec<Deployment> = ids.iter().filter_map(|id| deployments.all().remove(id)).collect();
        gone.iter().for_each(|deployment| super::events::failed(api, deployment));
    }
    if !force && deployments.all().len() >= DEPLOYMENTS_MAX {
        return Err(Wrong::new(StatusCode::FORBIDDEN, format!("Max number ({DEPLOYMENTS_MAX}) of running deployments reached")));
    }
    Ok(())
}

/// Answers `GET /v2/deployments`.
pub async fn list(api: &Api, caller: &Caller) -> Result<Response, Wrong> {
    caller.must_level(Level::Viewer)?;
    super::events::settled(api, settle(api).await?);
    let all = api.marathon.deployments.all();
    let seen = all.values().filter(|deployment| deployment.steps.iter().all(|step| sees(caller, &step.app)));
    Ok(Json(seen.map(Deployment::json).collect::<Vec<_>>()).into_response())
}

/// True where the caller may see an app.
pub fn sees(caller: &Caller, app: &AppId) -> bool {
    app.place().is_ok_and(|(role, _)| caller.sees(&role))
}

/// Answers `DELETE /v2/deployments/{id}`: all of it goes back to what was before; by force it is only forgotten.
pub async fn cancel(api: &Api, caller: &Caller, id: &str, query: &Query) -> Result<Response, Wrong> {
    super::events::settled(api, settle(api).await?);
    let found =
        api.marathon.deployments.all().get(id).filter(|deployment| deployment.steps.iter().all(|step| sees(caller, &step.app))).cloned();
    let deployment = found.ok_or_else(|| Wrong::not_found(format!("DeploymentPlan {id} does not exist")))?;
    for step in &deployment.steps {
        let (role, _) = step.app.place().map_err(Wrong::bad)?;
        caller.must(Level::Operator, &role)?;
    }
    if let Some(step) = deployment.steps.iter().find(|step| step.action == "StopApplication" && !query.flag("force")) {
        return Err(Wrong::conflict(format!("{} is being stopped: that is not taken back; create it again", step.app)));
    }
    api.marathon.deployments.all().remove(id);
    super::events::failed(api, &deployment);
    if query.flag("force") {
        return Ok(StatusCode::ACCEPTED.into_response());
    }
    let mut changes = vec![];
    for step in deployment.steps {
        let before = held::known(api, caller, &step.app).await?.filter(Held::lives);
        let Some(now) = before else { continue };
        let what = match step.before {
            None => What::Remove,
            Some(job) if job == now.view.job => What::Nothing,
            Some(job) if Job { count: now.view.job.count, ..job.clone() } == now.view.job => What::Scale(job.count),
            Some(job) => What::Apply(Box::new(job)),
        };
        changes.push(Change { id: step.app, before: Some(now), what, action: "RestartApplication" });
    }
    super::change::carry_out(api, changes, true, &timestamp(now())).await.map(IntoResponse::into_response)
}
