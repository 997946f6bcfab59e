//! What is to become of apps, judged whole before anything is done, and then done.

use super::app::{App, normal};
use super::deployments::{self, Step};
use super::held::Held;
use super::id::AppId;
use super::words::{Object, time, timestamp};
use super::wrong::Wrong;
use super::{dependencies, events, job, ports};
use crate::http::access::{Caller, now};
use crate::http::error::unexpected;
use crate::http::{Api, find, jobs, spec};
use crate::jobs::DeploymentId;
use crate::shard::event::{JobRef, Level, Refusal, Request, Response as Answer};
use axum::Json;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use protocol::{Job, JobId, Time};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// What says which deployment a change began.
pub const DEPLOYMENT_HEADER: &str = "marathon-deployment-id";
/// How long a change that is forced waits for the end of an app of the same id.
const ENDS_WITHIN: Duration = Duration::from_secs(15);
/// The wait before it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What is to become of one app.
#[derive(Debug)]
pub struct Change {
    /// Which.
    pub id: AppId,
    /// What it is now; `None` where it is not there.
    pub before: Option<Held>,
    /// What is to be done.
    pub what: What,
    /// What that is called.
    pub action: &'static str,
}

/// What is to be done.
#[derive(Debug)]
pub enum What {
    /// It is so already.
    Nothing,
    /// It gets another number of tasks, and nothing else.
    Scale(u32),
    /// It becomes this, or is made anew.
    Apply(Box<Job>),
    /// It ends.
    Remove,
}

/// What was begun.
#[derive(Debug)]
pub struct Begun {
    /// The version of what was asked.
    pub version: String,
    /// The deployment's id.
    pub deployment: String,
}

impl IntoResponse for Begun {
    fn into_response(self) -> Response {
        let mut response = Json(json!({ "version": self.version, "deploymentId": self.deployment })).into_response();
        if let Ok(id) = HeaderValue::from_str(&self.deployment) {
            response.headers_mut().insert(HeaderName::from_static(DEPLOYMENT_HEADER), id);
        }
        response
    }
}

/// The time of a change: now, and later than what is there.
pub fn later(before: Option<&Held>) -> Time {
    let known = before.and_then(|held| time(held.fields().get("version")?.as_str()?));
    now().max(known.map_or(Time(0), |known| Time(known.0 + 1)))
}

/// What makes the app of `id` be what `body` says, whole; `again` where its tasks are to be replaced though it is the same.
///
/// # Errors
/// [`Wrong`] with all that is against it.
pub async fn prepare(api: &Api, caller: &Caller, id: &AppId, body: &Object, before: Option<Held>, again: bool) -> Result<Change, Wrong> {
    let (role, _) = id.place().map_err(|why| Wrong::at("/id", why))?;
    caller.must(Level::Operator, &role)?;
    let host_network = api.policies.of(&role).host_network;
    let mut app = normal(id, body, host_network)?;
    let known = before.as_ref().map(Held::fields).unwrap_or_default();
    let served: Vec<u16> = ports::of(&known).iter().map(|port| port.service).collect();
    api.marathon.serve(api, id, &mut app.fields, &served).await?;
    let at = timestamp(later(before.as_ref()));
    if let Some(held) = before.as_ref().filter(|_| !again && is_same(&app.fields, &known)) {
        let (what, action) = match held.view.job.count == app.instances {
            true => (What::Nothing, "ScaleApplication"),
            false => (What::Scale(app.instances), "ScaleApplication"),
        };
        if app.instances > held.view.job.count {
            spec::judged(api, Job { count: app.instances, ..held.view.job.clone() }).await?;
        }
        return Ok(Change { id: id.clone(), before, what, action });
    }
    app.fields.insert("version".into(), at.as_str().into());
    app.fields.insert("versionInfo".into(), json!({ "lastScalingAt": at, "lastConfigChangeAt": at }));
    let job = admitted(api, &app, host_network).await?;
    let action = if before.is_some() { "RestartApplication" } else { "StartApplication" };
    Ok(Change { id: id.clone(), before, what: What::Apply(Box::new(job)), action })
}

/// True where two apps differ in nothing but their versions.
fn is_same(one: &Object, other: &Object) -> bool {
    let plain = |fields: &Object| -> BTreeMap<String, Value> {
        let kept = fields.iter().filter(|(name, _)| !["version", "versionInfo"].contains(&name.as_str()));
        kept.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    plain(one) == plain(other)
}

async fn admitted(api: &Api, app: &App, host_network: bool) -> Result<Job, Wrong> {
    let made = job::made(app, host_network)?;
    if let Some(script) = &made.script {
        api.keep_bundle(script).await?;
    }
    Ok(spec::looked(api, made.spec).await?)
}

/// Apps that are being changed by this master, and by how many requests: it tells of what it begins with them itself.
#[derive(Debug)]
pub struct Changing<'a> {
    api: &'a Api,
    apps: Vec<AppId>,
}

impl<'a> Changing<'a> {
    /// They are, until this is dropped.
    pub fn new(api: &'a Api, apps: &[AppId]) -> Self {
        let mut all = api.marathon.changing();
        apps.iter().for_each(|app| *all.entry(app.clone()).or_insert(0) += 1);
        Self { api, apps: apps.to_vec() }
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        let mut all = self.api.marathon.changing();
        for app in &self.apps {
            if let Some(n) = all.get_mut(app) {
                *n -= 1;
                if *n == 0 {
                    all.remove(app);
                }
            }
        }
    }
}

/// Does it all, as one deployment of this version. A change that is forced takes the place of one that is not done.
///
/// # Errors
/// [`Wrong`] of status 409 where another change is not done, and where a shard refuses one: those before it are done then.
pub async fn carry_out(api: &Api, changes: Vec<Change>, force: bool, version: &str) -> Result<Begun, Wrong> {
    let mut changes = changes;
    dependencies::judge(api, &mut changes).await?;
    let touched = |change: &&Change| !matches!(change.what, What::Nothing);
    let job = |change: &Change| (change.id.clone(), change.before.as_ref().map(|held| held.view.id));
    let apps: Vec<(AppId, Option<JobId>)> = changes.iter().filter(touched).map(job).collect();
    deployments::lock(api, &apps, force).await?;
    do_all(api, changes, vec![], force, version).await
}

/// Does it all beside what has been begun, whatever else is not done.
///
/// # Errors
/// [`Wrong`] where a shard refuses one: those before it are done then.
pub async fn carry_out_beside(api: &Api, changes: Vec<Change>, begun: Vec<Step>, version: &str) -> Result<Begun, Wrong> {
    do_all(api, changes, begun, true, version).await
}

async fn do_all(api: &Api, changes: Vec<Change>, mut steps: Vec<Step>, force: bool, version: &str) -> Result<Begun, Wrong> {
    let apps: Vec<AppId> = changes.iter().map(|change| change.id.clone()).collect();
    let _changing = Changing::new(api, &apps);
    for change in changes {
        let Change { id, before, what, action } = change;
        let old = before.as_ref().map(|held| held.view.job.clone());
        let done = match (what, before) {
            (What::Nothing, _) | (What::Scale(_) | What::Remove, None) => continue,
            (What::Scale(count), Some(held)) => {
                let known = timestamp(later(Some(&held)));
                let job = job::scaled(&held.view.job, count, if known.as_str() > version { &known } else { version });
                ("ScaleApplication", apply(api, &id, job, force).await?)
            }
            (What::Remove, Some(held)) => {
                let grace_ms = job::grace_ms(&held.fields());
                find::done(api, held.view.id.shard(), Request::Stop { job: JobRef::Id(held.view.id), grace_ms }).await?;
                ("StopApplication", (held.view.id, held.view.version, None))
            }
            (What::Apply(job), _) => (action, apply(api, &id, *job, force).await?),
        };
        let (action, (job, number, rolling)) = done;
        steps.push(Step { app: id, action, job: (job, number), rolling, before: old, done: false });
    }
    let deployment = deployments::begin(api, version, steps);
    events::begun(api, &deployment);
    Ok(Begun { version: version.to_owned(), deployment: deployment.id })
}

/// Makes the job be so; gives back which it is, its version, and what brings it there. One of the same name that is about to end has to have ended: who forces it waits for that.
async fn apply(api: &Api, id: &AppId, job: Job, force: bool) -> Result<(JobId, u32, Option<DeploymentId>), Wrong> {
    let shard = jobs::home(api, &job, None);
    let until = tokio::time::Instant::now() + ENDS_WITHIN;
    loop {
        match api.door.ask(shard, Request::Deploy { job: job.clone(), force }).await.map_err(crate::http::error::ApiError::from)? {
            Answer::Submitted { job, .. } => return Ok((job, 1, None)),
            Answer::Deployed { job, deployment, .. } => {
                let view = find::viewed(api, shard, JobRef::Id(job)).await?;
                return Ok((job, view.map_or(1, |view| view.version), deployment));
            }
            Answer::Refused(Refusal::Conflict { .. }) if force && tokio::time::Instant::now() < until => {
                tokio::time::sleep(LOOK_AGAIN).await
            }
            Answer::Refused(Refusal::Conflict { reason }) => {
                return Err(Wrong::locked(&format!("{id}: {reason}"), api.marathon.deployments.of(id)));
            }
            other => return Err(unexpected(&other).into()),
        }
    }
}
