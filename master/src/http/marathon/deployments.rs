//! Deployments: what was asked of apps and is not done yet, during which its apps are locked. All that knows of deployments is here, in `steps.rs` and in
//! `note.rs`.
//!
//! All of it is on record. How an app goes from one version to another, or to another number of tasks, is a deployment of its service: any master lists
//! that under the same id, locks the app while it is under way, can end it, and sees it end. Where several apps were changed at once, each carries the
//! deployment's id in what stands with it, and the place among its steps: a master that meets one of them (in a list, a change, or an event) takes the deployment in from
//! that, and then knows it as well as the one that was asked. What it keeps here is only what it has told of already, and which steps are done.

use super::change::{Begun, Change, Changing, What};
use super::held::{self, Held};
use super::id::AppId;
use super::note::Mark;
use super::steps::{Deployment, STOP, Stands, Step, id_of, id_of_end, is_active, mark_of};
use super::versions;
use super::words::{Query, timestamp, uuid};
use super::wrong::Wrong;
use crate::http::access::{Caller, now};
use crate::http::error::ApiError;
use crate::http::{Api, find};
use crate::jobs::DeploymentId;
use crate::jobs::rollout::Cause;
use crate::shard::deployment_view::DeploymentView;
use crate::shard::event::{DeploymentWish, JobRef, Level, Request};
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use protocol::JobId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Deployments at the same time, as in Marathon (`--max_running_deployments`).
pub const DEPLOYMENTS_MAX: usize = 100;

/// Deployments that this master remembers to have told of.
const OWN_MAX: usize = 4_096;

/// What is known of deployments here.
#[derive(Debug, Default)]
pub struct Deployments {
    /// What was asked here, and what several apps do otherwise, as far as it is not done yet, by id.
    open: Mutex<BTreeMap<String, Deployment>>,
    /// Those of services that are steps of such, the oldest first: it is told of them with these.
    own: Mutex<VecDeque<DeploymentId>>,
    /// Those that were told to have begun, the oldest first.
    told: Mutex<VecDeque<String>>,
}

impl Deployments {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Deployment>> {
        // Nothing inside the lock can panic half way.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True where it is told of it with what it is a step of.
    pub fn is_own(&self, id: DeploymentId) -> bool {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    /// The ids of those that are known and concern an app.
    pub fn of(&self, app: &AppId) -> Vec<String> {
        let all = self.all();
        let concerns = |deployment: &&Deployment| deployment.steps.iter().any(|step| step.app == *app && !step.done);
        all.values().filter(concerns).map(|deployment| deployment.id.clone()).collect()
    }

    /// Deployments of services that are steps of what is known.
    fn rolling(&self) -> BTreeSet<DeploymentId> {
        self.all().values().flat_map(|deployment| deployment.steps.iter().filter_map(|step| step.rolling)).collect()
    }

    /// Remembers that it is told that this one has begun; false where it was before.
    pub fn tells(&self, id: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = !told.iter().any(|known| known == id);
        if is_news {
            kept(&mut told, [id.to_owned()]);
        }
        is_news
    }

    /// Keeps one in place of what is known of it.
    fn keep(&self, deployment: Deployment) {
        kept(&mut self.own.lock().unwrap_or_else(PoisonError::into_inner), deployment.steps.iter().filter_map(|step| step.rolling));
        let mut all = self.all();
        while all.len() >= DEPLOYMENTS_MAX && !all.contains_key(&deployment.id) && all.pop_first().is_some() {}
        all.insert(deployment.id.clone(), deployment);
    }

    /// Takes in a step that is on record with its app; gives back its deployment as it is known then.
    fn adopt(&self, mark: &Mark, step: Step) -> Deployment {
        let known = self.all().get(&mark.deployment).cloned();
        let deployment = match known {
            None => Deployment::marked(mark, step),
            Some(mut known) => {
                known.steps.retain(|other| other.app != step.app);
                known.steps.push(step);
                known.steps.sort_by_key(|step| step.at);
                known
            }
        };
        self.keep(deployment.clone());
        deployment
    }

    /// True where one is known, but not what it does with this app.
    fn lacks(&self, id: &str, app: &AppId) -> bool {
        self.all().get(id).is_some_and(|known| known.steps.iter().all(|step| step.app != *app))
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

/// Puts some behind those that are kept, and forgets the oldest of too many.
fn kept<T>(all: &mut VecDeque<T>, more: impl IntoIterator<Item = T>) {
    all.extend(more);
    let beyond = all.len().saturating_sub(OWN_MAX);
    all.drain(..beyond);
}

/// The ids of all that concern these apps, by job.
///
/// # Errors
/// An [`ApiError`] where a shard cannot answer now.
pub async fn by_job(api: &Api, apps: &[Held]) -> Result<BTreeMap<JobId, Vec<String>>, ApiError> {
    let views = unknown(api).await?;
    let mut by_job: BTreeMap<JobId, Vec<String>> = BTreeMap::new();
    for deployment in api.marathon.deployments.all().values() {
        for step in deployment.steps.iter().filter(|step| !step.done) {
            by_job.entry(step.job.0).or_default().push(deployment.id.clone());
        }
    }
    let apps: BTreeMap<JobId, &Held> = apps.iter().map(|held| (held.view.id, held)).collect();
    for view in views {
        let Some(held) = apps.get(&view.job()) else { continue };
        // What was looked at before may be of before.
        let is_fresh = (view.to, view.count) == (held.view.version, held.view.job.count);
        let fresh = if is_fresh { None } else { of_service(api, &view).await? };
        let mark = mark_of(&view, fresh.as_ref().unwrap_or(held));
        by_job.entry(view.job()).or_default().push(mark.map_or_else(|| id_of(view.id), |mark| mark.deployment));
    }
    Ok(by_job)
}

/// What services do that is no step of what is known here.
async fn unknown(api: &Api) -> Result<Vec<DeploymentView>, ApiError> {
    let mut views = crate::http::deployments::known(api, &Caller::of_all_roles(Level::Viewer), None, None, false).await?;
    let known = api.marathon.deployments.rolling();
    views.retain(|view| !known.contains(&view.id));
    Ok(views)
}

/// The app whose service does this; `None` where it is none.
async fn of_service(api: &Api, view: &DeploymentView) -> Result<Option<Held>, ApiError> {
    Ok(find::viewed(api, view.job().shard(), JobRef::Id(view.job())).await?.and_then(Held::of))
}

/// Takes in what the service of an app does as a step of what was asked of several, and tells of that where it is news. Not where it is carried out here,
/// which tells of it once all is begun.
pub fn adopt(api: &Api, mark: &Mark, step: Step) {
    let is_ours = api.marathon.changing().contains_key(&step.app);
    let deployment = api.marathon.deployments.adopt(mark, step);
    if !is_ours && api.marathon.deployments.tells(&mark.deployment) {
        super::events::begun(api, &deployment);
    }
}

/// Takes in what of these is a step of what was asked of several apps; gives back the others that are of apps.
async fn sorted_out(api: &Api, views: Vec<DeploymentView>) -> Result<Vec<(DeploymentView, Held)>, ApiError> {
    let mut alone = vec![];
    for view in views {
        let Some(held) = of_service(api, &view).await?.filter(Held::lives) else { continue };
        match mark_of(&view, &held) {
            Some(mark) => adopt(api, &mark, Step::of(&view, &held)),
            None => alone.push((view, held)),
        }
    }
    Ok(alone)
}

/// Takes in the steps of what is known that are done, and apps that end together.
async fn complete(api: &Api, all: &[Held]) -> Result<(), Wrong> {
    let deployments = &api.marathon.deployments;
    for (held, mark) in all.iter().filter_map(|held| Some((held, held.mark()?))) {
        if mark.ends {
            if held.view.stopping && !deployments.of(&held.id).contains(&mark.deployment) {
                adopt(api, &mark, Step::of_end(held));
            }
        } else if deployments.lacks(&mark.deployment, &held.id) {
            let caller = Caller::of_all_roles(Level::Viewer);
            let last = crate::http::deployments::known(api, &caller, Some(&held.view), None, true).await?.into_iter().next();
            let last = last.filter(|view| mark_of(view, held).is_some());
            let step = last.map_or_else(|| Step::over(held, &mark), |view| Step::of(&view, held));
            adopt(api, &mark, step);
        }
    }
    Ok(())
}

/// All that the caller may see: what several apps do together, what each does by itself, and those that are about to end.
async fn open(api: &Api, caller: &Caller) -> Result<Vec<Deployment>, Wrong> {
    super::events::settled(api, settle(api).await?);
    let alone = sorted_out(api, unknown(api).await?).await?;
    let all = held::everything(api, &Caller::of_all_roles(Level::Viewer)).await?;
    complete(api, &all).await?;
    let mut found: Vec<Deployment> = api.marathon.deployments.all().values().cloned().collect();
    found.extend(alone.iter().map(|(view, held)| Deployment::of(view, held)));
    let known: BTreeSet<JobId> = found.iter().flat_map(|found| found.steps.iter().map(|step| step.job.0)).collect();
    found.extend(all.iter().filter(|held| held.view.stopping && !known.contains(&held.view.id)).map(Deployment::of_end));
    found.retain(|deployment| deployment.steps.iter().all(|step| sees(caller, &step.app)));
    Ok(found)
}

/// Puts one on the list for what was done to these apps, of several with this mark; gives it back.
pub fn begin(api: &Api, version: &str, steps: Vec<Step>, mark: Option<&Mark>) -> Deployment {
    let id = match (&steps[..], mark, steps.iter().find_map(|step| step.rolling)) {
        (_, Some(mark), _) => mark.deployment.clone(),
        (_, None, Some(first)) => id_of(first),
        ([step], None, None) if step.action == STOP => id_of_end(step.job.0),
        _ => uuid(&format!("{version} {:?}", steps.iter().map(|step| (step.app.as_str(), step.job)).collect::<Vec<_>>())),
    };
    let deployment = Deployment::new(id, version.to_owned(), steps);
    if !deployment.steps.is_empty() {
        api.marathon.deployments.keep(deployment.clone());
    }
    deployment
}

/// What has become of those that are known here.
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
    let touched = |deployment: &&Deployment| {
        let all_done = deployment.steps.iter().all(|step| step.done);
        all_done || deployment.steps.iter().any(|step| !step.done && concerns(step.job.0))
    };
    let open: Vec<Deployment> = api.marathon.deployments.all().values().filter(touched).cloned().collect();
    let mut looked = Looked::default();
    for mut deployment in open {
        let before = deployment.steps.iter().filter(|step| step.done).count();
        let mut fails = false;
        for step in deployment.steps.iter_mut().filter(|step| !step.done && concerns(step.job.0)) {
            let stands = step.look(api).await?;
            (step.done, fails) = (stands != Stands::Open, fails || stands == Stands::Failed);
        }
        let done = deployment.steps.iter().filter(|step| step.done).count();
        let mut all = api.marathon.deployments.all();
        // Another may have looked, or taken it off, meanwhile.
        let Some(kept) = all.get_mut(&deployment.id) else { continue };
        if fails {
            all.remove(&deployment.id);
            looked.failed.push(deployment);
        } else if done == deployment.steps.len() && deployment.is_whole(now()) {
            all.remove(&deployment.id);
            looked.over.push(deployment);
        } else if done > before && done > kept.steps.iter().filter(|step| step.done).count() {
            *kept = deployment.clone();
            looked.further.push(deployment);
        }
    }
    Ok(looked)
}

/// The ids of those that are in the way of a change of an app, whichever master was asked for them.
///
/// # Errors
/// An [`ApiError`] where a shard cannot answer now.
pub async fn in_the_way(api: &Api, app: &AppId, job: Option<JobId>) -> Result<Vec<String>, ApiError> {
    let views = unknown(api).await?.into_iter().filter(|view| Some(view.job()) == job);
    let alone = sorted_out(api, views.collect()).await?;
    let mut ids = api.marathon.deployments.of(app);
    ids.extend(alone.iter().map(|(view, _)| id_of(view.id)));
    Ok(ids)
}

/// Lets a change of these apps begin: refuses it while another is not done, or ends that where it is forced.
///
/// # Errors
/// [`Wrong`] of status 409 that names those that are in the way.
pub async fn lock(api: &Api, apps: &[(AppId, Option<JobId>)], force: bool) -> Result<(), Wrong> {
    super::events::settled(api, settle(api).await?);
    let deployments = &api.marathon.deployments;
    let others = unknown(api).await?;
    let touched = |view: &&DeploymentView| apps.iter().any(|(_, job)| *job == Some(view.job()));
    let alone = sorted_out(api, others.iter().filter(touched).cloned().collect()).await?;
    for (app, job) in apps {
        let mut ids = deployments.of(app);
        ids.extend(alone.iter().filter(|(view, _)| Some(view.job()) == *job).map(|(view, _)| id_of(view.id)));
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
    let all = open(api, caller).await?;
    Ok(Json(all.iter().map(Deployment::json).collect::<Vec<_>>()).into_response())
}

/// True where the caller may see an app.
pub fn sees(caller: &Caller, app: &AppId) -> bool {
    app.place().is_ok_and(|(role, _)| caller.sees(&role))
}

/// Answers `DELETE /v2/deployments/{id}`: all of it goes back to what was before; by force it is only given up, and all stays as it is.
pub async fn cancel(api: &Api, caller: &Caller, id: &str, query: &Query) -> Result<Response, Wrong> {
    let found = open(api, caller).await?.into_iter().find(|deployment| deployment.id == id);
    let deployment = found.ok_or_else(|| Wrong::not_found(format!("DeploymentPlan {id} does not exist")))?;
    for step in &deployment.steps {
        let (role, _) = step.app.place().map_err(Wrong::bad)?;
        caller.must(Level::Operator, &role)?;
    }
    let back = !query.flag("force");
    if let Some(step) = deployment.steps.iter().find(|step| step.action == STOP && back) {
        return Err(Wrong::conflict(format!("{} is being stopped: that is not taken back; create it again", step.app)));
    }
    let apps: Vec<AppId> = deployment.steps.iter().map(|step| step.app.clone()).collect();
    let _changing = Changing::new(api, &apps);
    // What is on the list here is said to be given up; of others it is heard from the service.
    if api.marathon.deployments.all().remove(id).is_some() {
        super::events::failed(api, &deployment);
    }
    let (mut changes, mut steps) = (vec![], vec![]);
    for step in deployment.steps {
        let Some(now) = held::known(api, caller, &step.app).await?.filter(Held::lives).filter(|held| held.view.id == step.job.0) else {
            continue;
        };
        let last = crate::http::deployments::known(api, caller, Some(&now.view), None, true).await?.into_iter().next();
        let Some(view) = last.filter(|view| Some(view.id) == step.rolling) else { continue };
        let turns = is_active(&view) && view.from > 0 && matches!(view.cause, Cause::Applied | Cause::Restarted);
        match (back, turns) {
            (false, _) if is_active(&view) => wish(api, view.id, false).await?,
            (false, _) => {}
            (true, true) => {
                wish(api, view.id, true).await?;
                steps.extend(way_back(api, caller, &now).await?);
            }
            (true, false) => changes.push((step.app, before(api, &now, &view).await?, now)),
        }
    }
    if !back {
        return Ok(StatusCode::ACCEPTED.into_response());
    }
    let changes = changes.into_iter().map(|(id, what, now)| Change { id, before: Some(now), what, action: "RestartApplication" });
    super::change::carry_out_beside(api, changes.collect(), steps, &timestamp(now())).await.map(Begun::into_response)
}

/// What makes an app be as it was before its service did this, as far as that is kept.
async fn before(api: &Api, now: &Held, view: &DeploymentView) -> Result<What, Wrong> {
    Ok(match (view.cause, view.from) {
        (Cause::Resized, _) => What::Scale(view.from_count),
        // What there was nothing of before is no more.
        (_, 0) => What::Remove,
        (_, from) => versions::job(api, now, from).await?.map_or(What::Nothing, |job| What::Apply(Box::new(job))),
    })
}

async fn wish(api: &Api, id: DeploymentId, back: bool) -> Result<(), Wrong> {
    Ok(find::done(api, id.job.shard(), Request::Deployment { id, wish: DeploymentWish::Cancel { back } }).await?)
}

/// The step that leads an app back; `None` where it has been made already.
async fn way_back(api: &Api, caller: &Caller, left: &Held) -> Result<Option<Step>, Wrong> {
    let last = crate::http::deployments::known(api, caller, Some(&left.view), None, true).await?.into_iter().next();
    Ok(last.map(|view| Step { done: false, ..Step::of(&view, left) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Time;

    fn mark(at: u32) -> Mark {
        Mark { deployment: "both".into(), version: "v".into(), at, of: 2, number: None, ends: false }
    }

    fn step(app: &str, at: u32) -> Step {
        let job = JobId(u64::from(at) + 1);
        let (app, rolling) = (AppId::parse(app).unwrap(), Some(DeploymentId { job, number: 1 }));
        Step { app, action: "RestartApplication", at, job: (job, 2), rolling, began: Time(1), done: false }
    }

    #[test]
    fn what_several_apps_do_is_put_together_in_the_order_of_its_steps() {
        let known = Deployments::default();
        let b = AppId::parse("/b").unwrap();
        assert!(!known.lacks("both", &b) && known.of(&b).is_empty());
        assert!(!known.adopt(&mark(1), step("/b", 1)).is_whole(Time(2)));
        assert!(known.lacks("both", &AppId::parse("/a").unwrap()) && !known.lacks("both", &b));
        let both = known.adopt(&mark(0), step("/a", 0));
        assert_eq!(both.steps.iter().map(|step| step.app.as_str()).collect::<Vec<_>>(), ["/a", "/b"]);
        assert!(both.is_whole(Time(2)) && known.of(&b) == ["both"]);
        // What is met again is known.
        assert_eq!(known.adopt(&mark(1), step("/b", 1)).steps.len(), 2);
        assert!(known.is_own(DeploymentId { job: JobId(2), number: 1 }) && known.rolling().len() == 2);
        assert_eq!((known.tells("both"), known.tells("both")), (true, false));
        assert!(known.take(DeploymentId { job: JobId(1), number: 1 }).is_some() && known.is_empty());
    }

    #[test]
    fn no_more_are_kept_than_may_be() {
        let known = Deployments::default();
        for n in 0..200 {
            known.adopt(&Mark { deployment: n.to_string(), ..mark(0) }, step("/a", n));
        }
        assert_eq!(known.all().len(), DEPLOYMENTS_MAX);
        let mut all: VecDeque<u32> = VecDeque::new();
        kept(&mut all, 0..5_000);
        assert_eq!((all.len(), all.back()), (OWN_MAX, Some(&4_999)));
    }
}
