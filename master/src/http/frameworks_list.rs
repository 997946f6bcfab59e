//! Frameworks and their tasks for people: listed a page at a time, and ended.

use super::access::Caller;
use super::body::{self, Asked};
use super::error::{ApiError, ErrorAnswer};
use super::gate::Segment;
use super::jobs::page;
use super::jobs_json::{AmountBody, ExitBody, phase_text};
use super::{Api, find};
use crate::frameworks::{FrameworkId, FrameworkRequest, FrameworkView, OwnView};
use crate::shard::event::{Level, Request};
use crate::shard::view::{View, Viewed};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// A framework as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct FrameworkBody {
    /// Its id.
    id: String,
    /// What people call it.
    name: String,
    /// Whom its tasks are counted for.
    roles: Vec<String>,
    /// True where it is subscribed now.
    connected: bool,
    /// How long its tasks go on after it was last connected, in milliseconds.
    failover_ms: u64,
    /// When it was first subscribed, in milliseconds of the Unix epoch.
    since_ms: u64,
    /// How many of its tasks are in which state, of the first 100,000 by name.
    tasks: BTreeMap<&'static str, u32>,
    /// How many tasks it has: those that have not ended, and those whose end it has not acknowledged.
    tasks_total: usize,
    /// Offers that it holds.
    offers: usize,
}

/// The frameworks of the cluster.
#[derive(Debug, Serialize, ToSchema)]
pub struct FrameworksPage {
    /// By id.
    frameworks: Vec<FrameworkBody>,
    /// What to ask `after` for the next page; nothing follows where it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A task of a framework.
#[derive(Debug, Serialize, ToSchema)]
pub struct OwnBody {
    /// What the framework calls it.
    name: String,
    /// The id of the job that it is the one task of.
    job: String,
    /// Its state.
    state: &'static str,
    /// Where it is or was.
    agent: String,
    /// How it ended, where it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<ExitBody>,
    /// When it was placed, or ended, in milliseconds of the Unix epoch.
    at_ms: u64,
    /// For which role it is counted; missing once it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    /// What it is promised; nothing once it has ended.
    resources: AmountBody,
}

/// Tasks of a framework: those that have not ended, and those whose end it has not acknowledged.
#[derive(Debug, Serialize, ToSchema)]
pub struct OwnPage {
    /// By name.
    tasks: Vec<OwnBody>,
    /// What to ask `after` for the next page; nothing follows where it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Which of them.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Only those after this: the `next` of the page before.
    after: Option<String>,
    /// At most so many, 1 to 1,000; 100 where it is not said.
    limit: Option<usize>,
}

/// Lists the frameworks that are not gone.
#[utoipa::path(get, path = "/v1/frameworks", tag = "frameworks", params(PageQuery), responses((status = 200, body = FrameworksPage), (status = 401, body = ErrorAnswer)))]
pub async fn list(State(api): State<Arc<Api>>, caller: Caller, Asked(query): Asked<PageQuery>) -> Result<Json<FrameworksPage>, ApiError> {
    caller.must_level(Level::Viewer)?;
    let limit = page(query.limit)?;
    let after: Option<FrameworkId> = query.after.as_deref().map(|text| body::parsed("after", text)).transpose()?;
    let mut all: Vec<FrameworkView> = vec![];
    for viewed in find::view_all(&api, View::Frameworks).await? {
        if let Viewed::Frameworks(found) = viewed {
            all.extend(found.into_iter().filter(|view| after.is_none_or(|after| view.id > after) && sees(&caller, view)));
        }
    }
    all.sort_by_key(|view| view.id);
    let next = (all.len() > limit).then(|| all[limit - 1].id.to_string());
    Ok(Json(FrameworksPage { frameworks: all.iter().take(limit).map(FrameworkBody::from).collect(), next }))
}

/// Lists a framework's tasks.
#[utoipa::path(get, path = "/v1/frameworks/{id}/tasks", tag = "frameworks", params(("id" = String, Path, description = "a framework's id"), PageQuery),
    responses((status = 200, body = OwnPage), (status = 404, body = ErrorAnswer)))]
pub async fn tasks(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(id): Segment,
    Asked(query): Asked<PageQuery>,
) -> Result<Json<OwnPage>, ApiError> {
    caller.must_level(Level::Viewer)?;
    let limit = page(query.limit)?;
    let framework = known(&api, &caller, &id).await?.id;
    let from = query.after.map(|after| format!("{after}\0")).unwrap_or_default();
    let view = View::FrameworkTasks { framework, from, skip: 0, limit };
    let Viewed::FrameworkTasks(tasks) = find::view(&api, framework.shard(), view).await? else {
        return Err(ApiError::internal("a shard answered another question than it was asked"));
    };
    let next = (tasks.len() >= limit).then(|| tasks.last().map(|task| task.name.clone())).flatten();
    Ok(Json(OwnPage { tasks: tasks.iter().map(OwnBody::from).collect(), next }))
}

/// Ends a framework with all its tasks.
#[utoipa::path(post, path = "/v1/frameworks/{id}/teardown", tag = "frameworks", params(("id" = String, Path, description = "a framework's id")),
    responses((status = 204, description = "its tasks are being stopped"), (status = 403, body = ErrorAnswer), (status = 404, body = ErrorAnswer)))]
pub async fn teardown(State(api): State<Arc<Api>>, caller: Caller, Segment(id): Segment) -> Result<StatusCode, ApiError> {
    caller.must_level(Level::Operator)?;
    let FrameworkView { id: framework, info, .. } = known(&api, &caller, &id).await?;
    info.roles.iter().try_for_each(|role| caller.must(Level::Operator, role))?;
    find::done(&api, framework.shard(), Request::Framework(FrameworkRequest::Teardown { framework })).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The framework of this id, where the caller may see it.
///
/// # Errors
/// An [`ApiError`] of status 404 where not.
pub async fn known(api: &Api, caller: &Caller, id: &str) -> Result<FrameworkView, ApiError> {
    let framework: FrameworkId = body::parsed("id", id)?;
    let missing = || ApiError::not_found("framework");
    if framework.shard().0 >= api.door.shards() {
        return Err(missing());
    }
    let Viewed::Frameworks(known) = find::view(api, framework.shard(), View::Frameworks).await? else { return Err(missing()) };
    known.into_iter().find(|known| known.id == framework && sees(caller, known)).ok_or_else(missing)
}

/// True where the caller may see a framework: all its roles.
pub fn sees(caller: &Caller, framework: &FrameworkView) -> bool {
    framework.info.roles.iter().all(|role| caller.sees(role))
}

impl From<&FrameworkView> for FrameworkBody {
    fn from(view: &FrameworkView) -> Self {
        Self {
            id: view.id.to_string(),
            name: view.info.name.clone(),
            roles: view.info.roles.iter().map(ToString::to_string).collect(),
            connected: view.connected,
            failover_ms: view.info.failover_ms,
            since_ms: view.since.0,
            tasks: view.counts.iter().map(|(phase, n)| (phase_text(*phase), *n)).collect(),
            tasks_total: view.n_tasks,
            offers: view.n_offers,
        }
    }
}

impl From<&OwnView> for OwnBody {
    fn from(view: &OwnView) -> Self {
        Self {
            name: view.name.clone(),
            job: view.job.to_string(),
            state: phase_text(view.phase),
            agent: view.agent.to_string(),
            exit: view.exit.as_ref().map(ExitBody::from),
            at_ms: view.at.0,
            role: view.role.as_ref().map(ToString::to_string),
            resources: (&view.resources).into(),
        }
    }
}
