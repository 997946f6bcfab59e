//! Maintenance over HTTP: windows listed, scheduled and cancelled. What a window does stands in `shard/maintenance.rs`.

use super::access::{Caller, now};
use super::body;
use super::error::{ApiError, ErrorAnswer};
use super::gate::Segment;
use super::jobs::{GRACE_MS_DEFAULT, GRACE_MS_MAX};
use super::{Api, find};
use crate::shard::HOME;
use crate::shard::event::{Level, Request, Response as Answer};
use crate::shard::maintenance::{Consent, ConsentView, Window, WindowsRequest};
use crate::shard::view::{View, Viewed};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use protocol::{AgentId, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use utoipa::ToSchema;

/// A window of maintenance that is wanted.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowBody {
    /// Ids of agents.
    pub agents: Vec<String>,
    /// From when on they are to be empty, in milliseconds of the Unix epoch; now where it is not said.
    pub from_ms: Option<u64>,
    /// For how long, in milliseconds; until it is cancelled where it is not said.
    pub for_ms: Option<u64>,
    /// Milliseconds that a task has to stop when it begins, at most 3,600,000; 5,000 where it is not said.
    pub grace_ms: Option<u64>,
    /// What people say of it.
    #[serde(default)]
    pub note: String,
}

/// A window that was scheduled.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct NumberBody {
    /// Its number.
    pub number: u64,
}

/// A window of maintenance.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct WindowRow {
    /// Its number.
    pub number: u64,
    /// `scheduled`, `running` or `over`.
    pub state: &'static str,
    /// Ids of agents.
    pub agents: Vec<String>,
    /// From when on, in milliseconds of the Unix epoch.
    pub from_ms: u64,
    /// Until when, likewise; missing: until it is cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// Milliseconds that a task has to stop.
    pub grace_ms: u64,
    /// What people say of it.
    pub note: String,
    /// What frameworks say that have tasks there.
    pub frameworks: Vec<ConsentRow>,
}

/// What a framework says of a window.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ConsentRow {
    /// Which framework.
    pub framework: String,
    /// Of which agent.
    pub agent: String,
    /// `unknown`, `accepted` or `declined`: it can, or would rather not, do without.
    pub answer: &'static str,
    /// When, in milliseconds of the Unix epoch.
    pub at_ms: u64,
}

/// All windows.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct WindowsPage {
    /// By number.
    pub windows: Vec<WindowRow>,
}

/// Lists windows of maintenance, those that are over until the next one is scheduled.
#[utoipa::path(get, path = "/v1/maintenance", tag = "agents", responses((status = 200, body = WindowsPage), (status = 403, body = ErrorAnswer)))]
pub async fn list(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<WindowsPage>, ApiError> {
    caller.must_level(Level::Viewer)?;
    let consents = consents(&api).await?;
    let now = now();
    let row = |window: &Window| WindowRow {
        number: window.number,
        state: match () {
            () if window.is_over(now) => "over",
            () if window.is_now(now) => "running",
            () => "scheduled",
        },
        agents: window.agents.iter().map(ToString::to_string).collect(),
        from_ms: window.from.0,
        until_ms: window.until.map(|until| until.0),
        grace_ms: window.grace_ms,
        note: window.note.clone(),
        frameworks: consents.iter().filter(|consent| consent.window == window.number).map(ConsentRow::from).collect(),
    };
    Ok(Json(WindowsPage { windows: windows(&api).await?.iter().map(row).collect() }))
}

/// Schedules a window: its agents are emptied when it begins, and given tasks again when it is over.
#[utoipa::path(post, path = "/v1/maintenance", tag = "agents", request_body = WindowBody,
    responses((status = 200, body = NumberBody), (status = 400, body = ErrorAnswer), (status = 403, body = ErrorAnswer), (status = 422, description = "it cannot be", body = ErrorAnswer)))]
pub async fn schedule(State(api): State<Arc<Api>>, caller: Caller, headers: HeaderMap, body: Body) -> Result<Json<NumberBody>, ApiError> {
    caller.must_own_cluster()?;
    let WindowBody { agents, from_ms, for_ms, grace_ms, note } = body::json(&headers, body).await?;
    let agents = agents.iter().map(|agent| body::parsed("agents", agent)).collect::<Result<BTreeSet<AgentId>, _>>()?;
    let grace_ms = grace_ms.unwrap_or(GRACE_MS_DEFAULT);
    if grace_ms > GRACE_MS_MAX {
        return Err(ApiError::invalid("grace_ms", format!("at most {GRACE_MS_MAX}")));
    }
    known(&api, &agents).await?;
    let from = Time(from_ms.unwrap_or(now().0));
    let until = for_ms.map(|for_ms| Time(from.0.saturating_add(for_ms)));
    let window = Window { number: 0, agents, from, until, grace_ms, note };
    Ok(Json(NumberBody { number: ask(&api, WindowsRequest::Add(window)).await? }))
}

/// Cancels a window, or ends one that runs: its agents are given tasks again.
#[utoipa::path(delete, path = "/v1/maintenance/{number}", tag = "agents", params(("number" = u64, Path, description = "a window's number")),
    responses((status = 204, description = "there is no such window any more"), (status = 403, body = ErrorAnswer), (status = 404, body = ErrorAnswer)))]
pub async fn cancel(State(api): State<Arc<Api>>, caller: Caller, Segment(number): Segment) -> Result<StatusCode, ApiError> {
    caller.must_own_cluster()?;
    ask(&api, WindowsRequest::Cancel(body::parsed("number", &number)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The windows on record.
///
/// # Errors
/// An [`ApiError`] where shard 0 cannot answer.
pub async fn windows(api: &Api) -> Result<Vec<Window>, ApiError> {
    match find::view(api, HOME, View::Windows).await? {
        Viewed::Windows(windows) => Ok(windows),
        _ => Err(ApiError::internal("a shard answered another question than it was asked")),
    }
}

/// What frameworks have answered.
///
/// # Errors
/// As [`windows`].
pub async fn consents(api: &Api) -> Result<Vec<ConsentView>, ApiError> {
    let mut all = vec![];
    for viewed in find::view_all(api, View::Consents).await? {
        all.extend(if let Viewed::Consents(found) = viewed { found } else { vec![] });
    }
    Ok(all)
}

/// Says something of windows; gives back the number of the last.
///
/// # Errors
/// An [`ApiError`]: why it cannot be.
pub async fn ask(api: &Api, request: WindowsRequest) -> Result<u64, ApiError> {
    api.all_understand()?;
    match api.door.ask(HOME, Request::Windows(request)).await? {
        Answer::Numbered(number) => Ok(number),
        other => Err(super::error::unexpected(&other)),
    }
}

async fn known(api: &Api, agents: &BTreeSet<AgentId>) -> Result<(), ApiError> {
    let mut missing = agents.clone();
    for viewed in find::view_all(api, View::Agents).await? {
        if let Viewed::Agents(found) = viewed {
            missing.retain(|agent| !found.iter().any(|known| known.id == *agent && known.state != "gone"));
        }
    }
    match missing.first() {
        Some(agent) => Err(ApiError::invalid("agents", format!("there is no agent {agent}"))),
        None => Ok(()),
    }
}

/// As people see it.
#[must_use]
pub const fn consent_text(consent: Consent) -> &'static str {
    match consent {
        Consent::Unknown => "unknown",
        Consent::Accepted => "accepted",
        Consent::Declined => "declined",
    }
}

impl From<&ConsentView> for ConsentRow {
    fn from(view: &ConsentView) -> Self {
        Self { framework: view.framework.to_string(), agent: view.agent.to_string(), answer: consent_text(view.consent), at_ms: view.at.0 }
    }
}
