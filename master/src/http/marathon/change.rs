//! What is to become of apps, judged whole before anything is done, and then done.

use super::app::{App, normal};
use super::deployments;
use super::held::{self, Held};
use super::id::AppId;
use super::note::{Mark, marked};
use super::steps::{STOP, Step};
use super::words::{Object, time, timestamp, uuid};
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
    let touched = |change: &&Change| change.does();
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

impl Change {
    /// True where there is something to be done.
    fn does(&self) -> bool {
        match (&self.what, &self.before) {
            (What::Nothing, _) | (What::Scale(_) | What::Remove, None) => false,
            (What::Scale(count), Some(held)) => *count != held.view.job.count,
            (What::Remove, Some(_)) | (What::Apply(_), _) => true,
        }
    }
}

async fn do_all(api: &Api, changes: Vec<Change>, begun: Vec<Step>, force: bool, version: &str) -> Result<Begun, Wrong> {
    let apps: Vec<AppId> = changes.iter().map(|change| change.id.clone()).chain(begun.iter().map(|step| step.app.clone())).collect();
    let _changing = Changing::new(api, &apps);
    let changes: Vec<Change> = changes.into_iter().filter(Change::does).collect();
    let mut mark = mark(&changes, &begun, version);
    if let Some(mark) = &mark {
        api.marathon.deployments.tells(&mark.deployment);
    }
    let mut steps = vec![];
    for mut step in begun {
        if let Some(mark) = &mut mark {
            (step.at, mark.number) = (mark.at, step.rolling.map(|of| of.number));
            note_down(api, &step.app, step.job.0, mark).await?;
            (mark.at, mark.number) = (mark.at + 1, None);
        }
        steps.push(step);
    }
    for change in changes {
        let step = carry_out_one(api, change, mark.as_ref(), force, version).await?;
        steps.extend(step);
        if let Some(mark) = &mut mark {
            mark.at += 1;
        }
    }
    let deployment = deployments::begin(api, version, steps, mark.as_ref());
    events::begun(api, &deployment);
    Ok(Begun { version: version.to_owned(), deployment: deployment.id })
}

/// What is put on record with each app, where several are changed at once.
fn mark(changes: &[Change], begun: &[Step], version: &str) -> Option<Mark> {
    if changes.len() + begun.len() < 2 {
        return None;
    }
    let ends = changes.iter().filter(|change| matches!(change.what, What::Remove)).count();
    let of = u32::try_from(changes.len() + begun.len() - ends).unwrap_or(u32::MAX);
    let apps: Vec<&str> = begun.iter().map(|step| &step.app).chain(changes.iter().map(|change| &change.id)).map(AppId::as_str).collect();
    let deployment = uuid(&format!("{version} {} {apps:?}", now().0));
    Some(Mark { deployment, version: version.to_owned(), at: 0, of, number: None, ends: false })
}

/// Does it with one app.
async fn carry_out_one(api: &Api, change: Change, mark: Option<&Mark>, force: bool, version: &str) -> Result<Option<Step>, Wrong> {
    let Change { id, before, what, action } = change;
    let known = before.as_ref().map(|held| held.view.id);
    let (action, (job, number, rolling)) = match (what, before) {
        (What::Nothing, _) | (What::Scale(_) | What::Remove, None) => return Ok(None),
        (What::Scale(count), Some(held)) => {
            let at = timestamp(later(Some(&held)));
            let job = job::scaled(&held.view.job, count, if at.as_str() > version { &at } else { version });
            ("ScaleApplication", apply(api, &id, known, (marked(&job, mark), true), force).await?)
        }
        (What::Remove, Some(held)) => {
            if let Some(mark) = mark {
                note_down(api, &id, held.view.id, &Mark { ends: true, ..mark.clone() }).await?;
            }
            let grace_ms = job::grace_ms(&held.fields());
            find::done(api, held.view.id.shard(), Request::Stop { job: JobRef::Id(held.view.id), grace_ms }).await?;
            (STOP, (held.view.id, held.view.version, None))
        }
        (What::Apply(job), _) => (action, apply(api, &id, known, (marked(&job, mark), false), force).await?),
    };
    let at = mark.map_or(0, |mark| mark.at);
    Ok(Some(Step { app: id, action, at, job: (job, number), rolling, began: now(), done: false }))
}

/// Puts on record what is done with an app, or is about to be. One that is about to end already, or is another by now, is left alone.
async fn note_down(api: &Api, app: &AppId, job: JobId, mark: &Mark) -> Result<(), Wrong> {
    let caller = Caller::of_all_roles(Level::Viewer);
    let held = held::known(api, &caller, app).await?.filter(|held| held.lives() && held.view.id == job);
    if let Some(about) = held.and_then(|held| marked(&held.view.job, Some(mark)).about) {
        let request = Request::Describe { job: JobRef::Id(job), about: about.as_ref().clone() };
        api.door.ask(job.shard(), request).await.map_err(crate::http::error::ApiError::from)?;
    }
    Ok(())
}

/// Makes the job of an app be so, where it may be `counted` as another number of tasks alone; gives back which it is, its version, and what brings it there. One of
/// the same name that is about to end has to have ended: who forces it waits for that.
async fn apply(
    api: &Api,
    id: &AppId,
    known: Option<JobId>,
    (job, counted): (Job, bool),
    force: bool,
) -> Result<(JobId, u32, Option<DeploymentId>), Wrong> {
    let shard = jobs::home(api, &job, None);
    let until = tokio::time::Instant::now() + ENDS_WITHIN;
    loop {
        let job = job.clone();
        let request = if counted { Request::Resize { job, force } } else { Request::Deploy { job, force } };
        match api.door.ask(shard, request).await.map_err(crate::http::error::ApiError::from)? {
            Answer::Submitted { job, .. } => return Ok((job, 1, None)),
            Answer::Deployed { job, deployment, .. } => {
                let view = find::viewed(api, shard, JobRef::Id(job)).await?;
                return Ok((job, view.map_or(1, |view| view.version), deployment));
            }
            Answer::Refused(Refusal::Conflict { .. }) if force && tokio::time::Instant::now() < until => {
                tokio::time::sleep(LOOK_AGAIN).await
            }
            Answer::Refused(Refusal::Conflict { reason }) => {
                return Err(Wrong::locked(&format!("{id}: {reason}"), deployments::in_the_way(api, id, known).await?));
            }
            other => return Err(unexpected(&other).into()),
        }
    }
}
