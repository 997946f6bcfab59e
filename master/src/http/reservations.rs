//! Reservations over HTTP: what of agents is kept for roles, made and given up.

use super::access::Caller;
use super::body;
use super::error::{ApiError, ErrorAnswer};
use super::gate::Segment;
use super::jobs_json::AmountBody;
use super::roles::KindsBody;
use super::{Api, find};
use crate::shard::event::{Level, Request};
use crate::shard::reservations::{ReservationChange, ReservedView};
use crate::shard::view::{View, Viewed};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use protocol::message::shard_of_agent;
use protocol::{AgentId, Reservation, Role};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::ToSchema;

/// Something that is to be kept of an agent for a role, or no longer.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeBody {
    /// For which role, with all below it.
    pub role: String,
    /// The roles of the reservations that it is taken out of, the outermost first; none: out of what is kept for nobody.
    #[serde(default)]
    pub within: Vec<String>,
    /// What is written on it; reservations that differ in it are different ones.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How much.
    pub resources: KindsBody,
}

/// A part of a reservation, or a whole one.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ReservationBody {
    /// For which role, with all below it.
    pub role: String,
    /// The roles of the reservations that it was taken out of, the outermost first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub within: Vec<String>,
    /// True where the agent is started with it: nobody gives it up.
    pub fixed: bool,
    /// The token of whoever made it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub principal: String,
    /// What is written on it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How much, without what was taken out of it for roles below.
    pub resources: AmountBody,
}

/// What is kept of an agent.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ReservedBody {
    /// The agent's id.
    pub agent: String,
    /// Its reservations.
    pub reservations: Vec<ReservationBody>,
    /// What of them nobody uses, by role.
    pub unused: BTreeMap<String, AmountBody>,
}

/// What is kept of all agents.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ReservedPage {
    /// Those of which something is, by id.
    pub agents: Vec<ReservedBody>,
}

impl ChangeBody {
    /// What is to be made, or given up.
    ///
    /// # Errors
    /// An [`ApiError`] of status 400.
    pub fn read(self, field: &str, make: bool) -> Result<ReservationChange, ApiError> {
        let role = |text: &String| body::parsed::<Role>(&format!("{field}role"), text);
        let within = self.within.iter().map(role).collect::<Result<_, _>>()?;
        let resources = self.resources.resources(&format!("{field}resources"))?;
        Ok(ReservationChange { make, role: role(&self.role)?, within, labels: self.labels, resources })
    }
}

impl From<&Reservation> for ReservationBody {
    fn from(of: &Reservation) -> Self {
        let reserved = &of.reserved;
        Self {
            role: reserved.role.to_string(),
            within: reserved.within.iter().map(ToString::to_string).collect(),
            fixed: reserved.fixed,
            principal: reserved.principal.clone(),
            labels: reserved.labels.clone(),
            resources: (&of.resources).into(),
        }
    }
}

impl From<&ReservedView> for ReservedBody {
    fn from(view: &ReservedView) -> Self {
        Self {
            agent: view.agent.to_string(),
            reservations: view.list.iter().map(ReservationBody::from).collect(),
            unused: view.unused.iter().map(|(role, amount)| (role.to_string(), amount.into())).collect(),
        }
    }
}

/// What is kept of all agents, by agent.
///
/// # Errors
/// An [`ApiError`] where a shard cannot answer now.
pub async fn all(api: &Api) -> Result<BTreeMap<AgentId, ReservedView>, ApiError> {
    let mut all = BTreeMap::new();
    for viewed in find::view_all(api, View::Reserved).await? {
        if let Viewed::Reserved(views) = viewed {
            all.extend(views.into_iter().map(|view| (view.agent, view)));
        }
    }
    Ok(all)
}

/// Lists what is kept of agents for roles.
#[utoipa::path(get, path = "/v1/reservations", tag = "agents", responses((status = 200, body = ReservedPage), (status = 401, body = ErrorAnswer)))]
pub async fn list(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<ReservedPage>, ApiError> {
    caller.must_level(Level::Viewer)?;
    Ok(Json(ReservedPage { agents: all(&api).await?.values().map(ReservedBody::from).collect() }))
}

/// Keeps some of what is free on an agent for a role. Frameworks whose offers show it lose them; tasks go on.
#[utoipa::path(post, path = "/v1/agents/{id}/reserve", tag = "agents", params(("id" = String, Path, description = "an agent's id")), request_body = ChangeBody,
    responses((status = 204, description = "it is kept"), (status = 400, body = ErrorAnswer), (status = 403, body = ErrorAnswer), (status = 404, body = ErrorAnswer),
        (status = 409, description = "so much is not free", body = ErrorAnswer)))]
pub async fn reserve(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(id): Segment,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    changed(&api, &caller, &id, (&headers, body), true).await
}

/// Gives up some of what is kept of an agent for a role: what it was taken out of has it again. Tasks go on.
#[utoipa::path(post, path = "/v1/agents/{id}/unreserve", tag = "agents", params(("id" = String, Path, description = "an agent's id")), request_body = ChangeBody,
    responses((status = 204, description = "it is kept no longer"), (status = 400, body = ErrorAnswer), (status = 403, body = ErrorAnswer), (status = 404, body = ErrorAnswer),
        (status = 409, description = "so much is not reserved like that", body = ErrorAnswer)))]
pub async fn unreserve(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(id): Segment,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    changed(&api, &caller, &id, (&headers, body), false).await
}

async fn changed(api: &Api, caller: &Caller, id: &str, (headers, body): (&HeaderMap, Body), make: bool) -> Result<StatusCode, ApiError> {
    let change: ChangeBody = body::json(headers, body).await?;
    change_one(api, caller, id, vec![change.read("", make)?]).await
}

/// Changes what is kept of one agent: all of it or nothing.
///
/// # Errors
/// An [`ApiError`]: who may not, which agent there is not, or what is not free.
pub async fn change_one(api: &Api, caller: &Caller, id: &str, changes: Vec<ReservationChange>) -> Result<StatusCode, ApiError> {
    caller.must_own_cluster()?;
    api.all_understand()?;
    let agent: AgentId = body::parsed("id", id)?;
    let request = Request::Reserve { agent, changes, principal: caller.token.to_string() };
    find::done(api, shard_of_agent(agent, api.door.shards()), request).await?;
    Ok(StatusCode::NO_CONTENT)
}
