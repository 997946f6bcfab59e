//! Versions of services and the ways between them over HTTP: shown, held, promoted, ended; restart and rollback.

use super::access::Caller;
use super::body::{self, Asked};
use super::deployments_json::{DeploymentBody, VersionBody};
use super::error::{ApiError, ErrorAnswer, unexpected};
use super::gate::Segment;
use super::jobs::{RoleQuery, SubmittedBody};
use super::{Api, find};
use crate::jobs::DeploymentId;
use crate::shard::deployment_view::DeploymentView;
use crate::shard::event::{DeploymentWish, JobRef, Level, Request, Response as Answer};
use crate::shard::view::{JobView, View, Viewed};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use protocol::link::VERSION;
use protocol::{Role, ShardId};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Which deployments.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct DeploymentsQuery {
    /// Only that of this job, by its name or id.
    pub job: Option<String>,
    /// Only those of this role; that of the job, where one is named by its name.
    pub role: Option<String>,
    /// True: also the last of each job, where that is over.
    #[serde(default)]
    pub ended: bool,
}

/// In place of what.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ForceQuery {
    /// The job's role, where the job is named by its name.
    pub role: Option<String>,
    /// True: in place of a deployment that is under way.
    #[serde(default)]
    pub force: bool,
}

/// How a deployment ends.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct WishQuery {
    /// Of `cancel`: true, or not said: the version before returns; false: all stays as it is.
    #[serde(default = "yes")]
    pub back: bool,
}

const fn yes() -> bool {
    true
}

/// To which version.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackBody {
    /// Its number; the one before, where it is not said.
    pub version: Option<u32>,
}

/// Deployments.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DeploymentsPage {
    /// They, by job.
    pub deployments: Vec<DeploymentBody>,
}

/// Versions.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct VersionsPage {
    /// The job's id.
    pub job: String,
    /// They, by number; at most ten are kept.
    pub versions: Vec<VersionBody>,
}

/// The deployments of a job, of a role or of all, as far as `caller` may see them.
///
/// # Errors
/// An [`ApiError`] where a shard cannot answer.
pub(super) async fn known(
    api: &Api,
    caller: &Caller,
    job: Option<&JobView>,
    role: Option<Role>,
    ended: bool,
) -> Result<Vec<DeploymentView>, ApiError> {
    // Masters of before know none, nor the question.
    if !api.door.peers().all_speak(VERSION) {
        return Ok(Vec::new());
    }
    let view = View::Deployments { job: job.map(|job| JobRef::Id(job.id)), role, ended };
    let answers = match job {
        Some(job) => vec![find::view(api, job.id.shard(), view).await?],
        None => find::view_all(api, view).await?,
    };
    let mut all = Vec::new();
    for answer in answers {
        let Viewed::Deployments(views) = answer else {
            return Err(ApiError::internal("a shard answered another question than it was asked"));
        };
        all.extend(views.into_iter().filter(|view| caller.sees(&view.role)));
    }
    Ok(all)
}

/// Lists deployments: those that are under way, or the last of each job.
#[utoipa::path(get, path = "/v1/deployments", tag = "jobs", params(DeploymentsQuery), responses((status = 200, body = DeploymentsPage), (status = 404, body = ErrorAnswer)))]
pub async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Asked(query): Asked<DeploymentsQuery>,
) -> Result<Json<DeploymentsPage>, ApiError> {
    caller.must_level(Level::Viewer)?;
    let role = query.role.as_deref().map(|text| find::role(Some(text))).transpose()?;
    let job = match &query.job {
        Some(job) => Some(find::job(&api, &caller, job, query.role.as_deref()).await?),
        None => None,
    };
    let role = if job.is_some() { None } else { role };
    let views = known(&api, &caller, job.as_ref(), role, query.ended).await?;
    Ok(Json(DeploymentsPage { deployments: views.iter().map(DeploymentBody::from).collect() }))
}

async fn found(api: &Api, caller: &Caller, text: &str) -> Result<DeploymentView, ApiError> {
    let missing = || ApiError::not_found("deployment");
    let id: DeploymentId = body::parsed("deployment", text)?;
    let shard: ShardId = id.job.shard();
    if shard.0 >= api.door.shards() || !api.door.peers().all_speak(VERSION) {
        return Err(missing());
    }
    let view = View::Deployments { job: Some(JobRef::Id(id.job)), role: None, ended: true };
    let Viewed::Deployments(views) = find::view(api, shard, view).await? else { return Err(missing()) };
    views.into_iter().find(|view| view.id == id && caller.sees(&view.role)).ok_or_else(missing)
}

/// Shows one deployment, while it is the last of its job.
#[utoipa::path(get, path = "/v1/deployments/{deployment}", tag = "jobs", params(("deployment" = String, Path, description = "its id")),
    responses((status = 200, body = DeploymentBody), (status = 404, body = ErrorAnswer)))]
pub async fn show(State(api): State<Arc<Api>>, caller: Caller, Segment(id): Segment) -> Result<Json<DeploymentBody>, ApiError> {
    caller.must_level(Level::Viewer)?;
    Ok(Json((&found(&api, &caller, &id).await?).into()))
}

/// Holds a deployment, lets it go on, says that all may follow the first tasks, or ends it.
#[utoipa::path(post, path = "/v1/deployments/{deployment}/{wish}", tag = "jobs", params(("deployment" = String, Path, description = "its id"),
    ("wish" = String, Path, description = "`pause`, `resume`, `promote` or `cancel`"), WishQuery),
    responses((status = 204, description = "it is on record"), (status = 404, body = ErrorAnswer), (status = 409, body = ErrorAnswer)))]
pub async fn change(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path((id, wish)): Path<(String, String)>,
    Asked(query): Asked<WishQuery>,
) -> Result<StatusCode, ApiError> {
    let view = found(&api, &caller, &id).await?;
    caller.must(Level::Operator, &view.role)?;
    let wish = match wish.as_str() {
        "pause" => DeploymentWish::Pause,
        "resume" => DeploymentWish::Resume,
        "promote" => DeploymentWish::Promote,
        "cancel" => DeploymentWish::Cancel { back: query.back },
        _ => return Err(ApiError::not_found("path").with_help("it is pause, resume, promote or cancel")),
    };
    find::done(&api, view.job().shard(), Request::Deployment { id: view.id, wish }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists the versions of a service that are kept.
#[utoipa::path(get, path = "/v1/jobs/{job}/versions", tag = "jobs", params(("job" = String, Path, description = "a job's name or id"), RoleQuery),
    responses((status = 200, body = VersionsPage), (status = 404, body = ErrorAnswer)))]
pub async fn versions(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(job): Segment,
    Asked(query): Asked<RoleQuery>,
) -> Result<Json<VersionsPage>, ApiError> {
    let view = find::job(&api, &caller, &job, query.role.as_deref()).await?;
    Ok(Json(VersionsPage { job: view.id.to_string(), versions: kept(&api, &view).await? }))
}

/// Shows one version of a service.
#[utoipa::path(get, path = "/v1/jobs/{job}/versions/{version}", tag = "jobs", params(("job" = String, Path, description = "a job's name or id"),
    ("version" = u32, Path, description = "its number"), RoleQuery), responses((status = 200, body = VersionBody), (status = 404, body = ErrorAnswer)))]
pub async fn version(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path((job, number)): Path<(String, u32)>,
    Asked(query): Asked<RoleQuery>,
) -> Result<Json<VersionBody>, ApiError> {
    let view = find::job(&api, &caller, &job, query.role.as_deref()).await?;
    let kept = kept(&api, &view).await?;
    kept.into_iter().find(|version| version.version == number).map(Json).ok_or_else(|| ApiError::not_found("version"))
}

async fn kept(api: &Api, view: &JobView) -> Result<Vec<VersionBody>, ApiError> {
    api.all_understand()?;
    match find::view(api, view.id.shard(), View::Versions(JobRef::Id(view.id))).await? {
        Viewed::Versions(views) => Ok(views.iter().map(VersionBody::from).collect()),
        _ => Err(ApiError::internal("a shard answered another question than it was asked")),
    }
}

/// Replaces all tasks of a service by others that are the same, as a new version is rolled out.
#[utoipa::path(post, path = "/v1/jobs/{job}/restart", tag = "jobs", params(("job" = String, Path, description = "a job's name or id"), ForceQuery),
    responses((status = 200, body = SubmittedBody), (status = 404, body = ErrorAnswer), (status = 409, body = ErrorAnswer)))]
pub async fn restart(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(job): Segment,
    Asked(query): Asked<ForceQuery>,
) -> Result<Json<SubmittedBody>, ApiError> {
    let view = meant(&api, &caller, &job, &query).await?;
    let request = Request::Restart { job: JobRef::Id(view.id), force: query.force };
    Ok(Json(deployed(api.door.ask(view.id.shard(), request).await?)?))
}

/// Goes back to an earlier version of a service.
#[utoipa::path(post, path = "/v1/jobs/{job}/rollback", tag = "jobs", params(("job" = String, Path, description = "a job's name or id"), ForceQuery), request_body = RollbackBody,
    responses((status = 200, body = SubmittedBody), (status = 404, body = ErrorAnswer), (status = 409, body = ErrorAnswer), (status = 422, body = ErrorAnswer)))]
pub async fn rollback(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(job): Segment,
    Asked(query): Asked<ForceQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<SubmittedBody>, ApiError> {
    let wanted: RollbackBody = body::json(&headers, body).await?;
    let view = meant(&api, &caller, &job, &query).await?;
    let request = Request::Rollback { job: JobRef::Id(view.id), to: wanted.version, force: query.force };
    Ok(Json(deployed(api.door.ask(view.id.shard(), request).await?)?))
}

async fn meant(api: &Api, caller: &Caller, job: &str, query: &ForceQuery) -> Result<JobView, ApiError> {
    let view = find::job(api, caller, job, query.role.as_deref()).await?;
    caller.must(Level::Operator, &view.job.role)?;
    api.all_understand()?;
    Ok(view)
}

/// What is said of a service that goes to another version.
///
/// # Errors
/// An [`ApiError`] where it was refused.
pub(super) fn deployed(answer: Answer) -> Result<SubmittedBody, ApiError> {
    match answer {
        Answer::Submitted { job, new } => Ok(SubmittedBody { id: job.to_string(), new, deployment: None, ended: None }),
        Answer::Deployed { job, new, deployment } => {
            let deployment = deployment.map(|id| id.to_string());
            Ok(SubmittedBody { id: job.to_string(), new, deployment, ended: None })
        }
        Answer::Refused(crate::shard::Refusal::Conflict { reason }) => {
            Err(ApiError::conflict(reason).with_help("skep status JOB shows it; --force takes its place"))
        }
        other => Err(unexpected(&other)),
    }
}
