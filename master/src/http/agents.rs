//! Agents over HTTP: listed, shown, sent away for good.

use super::access::Caller;
use super::body::{self, Asked};
use super::error::{ApiError, ErrorAnswer};
use super::gate::Segment;
use super::jobs::{GRACE_MS_DEFAULT, GRACE_MS_MAX};
use super::jobs_json::AmountBody;
use super::{Api, find};
use crate::shard::drains::ModeWish;
use crate::shard::event::{Level, Request};
use crate::shard::view::{AgentView, DevicesFree, View, Viewed};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use protocol::agent::{ATTRIBUTES_MAX, RESOURCES_BYTES_MAX};
use protocol::link::Connection;
use protocol::message::{BulkReply, BulkRequest, shard_of_agent};
use protocol::{AgentChange, AgentId, FaultDomain};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};

/// How long tasks of batch jobs may go on there where nobody says, in milliseconds; and the most that can be said.
const WAIT_MS_DEFAULT: u64 = 600_000;
const WAIT_MS_MAX: u64 = 7 * 86_400_000;

/// An agent.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AgentBody {
    /// Its id: 16 hexadecimal digits.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// `reachable`, `unreachable`, `expected` (on record and not heard of since the master's start) or `gone`.
    pub state: String,
    /// `active`, `inactive` (it is given no other tasks), `draining` (it is emptied) or `drained`.
    pub mode: String,
    /// All that it has to promise, and what it lends of that meanwhile.
    pub capacity: AmountBody,
    /// What is promised on it, offers included.
    pub allocated: AmountBody,
    /// How much of each single device is free, offers aside, in thousandths: by kind, in the order of their numbers. A kind of which it has more than 16 is
    /// not told apart.
    pub devices_free_milli: BTreeMap<String, Vec<u32>>,
    /// How many attempts are promised on it.
    pub attempts: u32,
    /// Facts about it.
    pub attributes: BTreeMap<String, String>,
    /// Its fault domain.
    pub domain: DomainBody,
    /// The version of its binary.
    pub version: String,
    /// What its machine or its rights lack, and what it does instead, a sentence each.
    pub weaknesses: Vec<String>,
    /// When it was last heard of, in milliseconds of the Unix epoch.
    pub heard_ms: u64,
}

/// Where an agent stands; an empty part is not known.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DomainBody {
    /// A place on the map.
    pub region: String,
    /// A building or a part of one.
    pub zone: String,
    /// One switch and one power supply.
    pub rack: String,
}

/// The agents of the cluster.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AgentsPage {
    /// The agents, by id.
    pub agents: Vec<AgentBody>,
    /// How many there are that were asked for, on all pages.
    pub total: usize,
}

/// Which agents.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AgentsQuery {
    /// Only those that stand at this `REGION/ZONE/RACK`.
    pub domain: Option<String>,
    /// Only those with this in their name, id, domain, state or mode, in any case.
    #[serde(rename = "match")]
    pub matching: Option<String>,
    /// Without the first so many of these.
    #[serde(default)]
    pub skip: usize,
    /// At most so many; all where it is not said.
    pub limit: Option<usize>,
}

impl AgentsQuery {
    fn wants(&self, view: &AgentView) -> bool {
        let domain = domain_text(&view.info.domain);
        let id = view.id.to_string();
        let texts = [view.info.name.as_str(), id.as_str(), domain.as_str(), &view.state, &view.mode];
        let matches = |text: &String| texts.iter().any(|of| has(of, text));
        self.domain.as_ref().is_none_or(|wanted| *wanted == domain) && self.matching.as_ref().is_none_or(matches)
    }
}

/// True where `part` stands in `text`, in any case.
pub fn has(text: &str, part: &str) -> bool {
    text.to_lowercase().contains(&part.to_lowercase())
}

/// `REGION/ZONE/RACK`.
pub fn domain_text(domain: &FaultDomain) -> String {
    format!("{}/{}/{}", domain.region, domain.zone, domain.rack)
}

/// Lists agents.
#[utoipa::path(get, path = "/v1/agents", tag = "agents", params(AgentsQuery), responses((status = 200, body = AgentsPage), (status = 401, body = ErrorAnswer)))]
pub async fn list(State(api): State<Arc<Api>>, caller: Caller, Asked(query): Asked<AgentsQuery>) -> Result<Json<AgentsPage>, ApiError> {
    caller.must_level(Level::Viewer)?;
    let mut views = vec![];
    for viewed in find::view_all(&api, View::Agents).await? {
        if let Viewed::Agents(found) = viewed {
            views.extend(found.into_iter().filter(|view| query.wants(view)));
        }
    }
    views.sort_by_key(|view| view.id);
    let total = views.len();
    let asked = views.iter().skip(query.skip).take(query.limit.unwrap_or(usize::MAX));
    let mut agents: Vec<AgentBody> = asked.map(AgentBody::from).collect();
    if has_devices(&api, &agents) {
        for viewed in find::view_all(&api, View::Devices).await? {
            add_devices(&mut agents, viewed);
        }
    }
    Ok(Json(AgentsPage { agents, total }))
}

/// Shows one agent.
#[utoipa::path(get, path = "/v1/agents/{id}", tag = "agents", params(("id" = String, Path, description = "an agent's id")), responses((status = 200, body = AgentBody), (status = 404, body = ErrorAnswer)))]
pub async fn show(State(api): State<Arc<Api>>, caller: Caller, Segment(id): Segment) -> Result<Json<AgentBody>, ApiError> {
    caller.must_level(Level::Viewer)?;
    let id: AgentId = body::parsed("id", &id)?;
    let Viewed::Agents(agents) = find::view(&api, shard_of_agent(id, api.door.shards()), View::Agents).await? else {
        return Err(ApiError::internal("a shard answered another question than it was asked"));
    };
    let found = agents.iter().find(|agent| agent.id == id).ok_or_else(|| ApiError::not_found("agent"))?;
    let mut found = [AgentBody::from(found)];
    if has_devices(&api, &found) {
        add_devices(&mut found, find::view(&api, shard_of_agent(id, api.door.shards()), View::Devices).await?);
    }
    let [found] = found;
    Ok(Json(found))
}

/// True where agents have devices, and all masters can be asked for them one by one.
fn has_devices(api: &Api, agents: &[AgentBody]) -> bool {
    agents.iter().any(|agent| !agent.capacity.devices_milli.is_empty()) && api.door.peers().all_speak(DEVICES_SINCE)
}

/// Says what of each single device is free.
fn add_devices(agents: &mut [AgentBody], viewed: Viewed) {
    let Viewed::Devices(found) = viewed else { return };
    let free: BTreeMap<String, DevicesFree> = found.into_iter().map(|(id, free)| (id.to_string(), free)).collect();
    for agent in agents {
        let kinds = free.get(&agent.id).into_iter().flatten();
        agent.devices_free_milli.extend(kinds.map(|(name, free)| (name.to_string(), free.clone())));
    }
}

/// The version of the messages from which on masters know single devices.
const DEVICES_SINCE: u16 = 3;

/// Says that an agent never comes back: its tasks are replaced at once, and it is let in no more.
#[utoipa::path(post, path = "/v1/agents/{id}/gone", tag = "agents", params(("id" = String, Path, description = "an agent's id")),
    responses((status = 204, description = "its tasks are being replaced"), (status = 403, body = ErrorAnswer), (status = 404, body = ErrorAnswer)))]
pub async fn gone(State(api): State<Arc<Api>>, caller: Caller, Segment(id): Segment) -> Result<StatusCode, ApiError> {
    caller.must_own_cluster()?;
    let id: AgentId = body::parsed("id", &id)?;
    find::done(&api, shard_of_agent(id, api.door.shards()), Request::Gone { agent: id }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How an agent is to be from now on.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeBody {
    /// Attributes that it has from now on; null: has not. Others stay.
    #[serde(default)]
    pub attributes: BTreeMap<String, Option<String>>,
    /// Where it stands, as `REGION/ZONE/RACK`.
    pub domain: Option<String>,
    /// What it promises, such as `cpu=8,memory=16GiB`; what is not named stays.
    pub resources: Option<String>,
}

/// How long an agent may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Changes what an agent says of itself while it runs. Its tasks go on; it refuses to have less than it has promised. Kept by the agent, over what it is
/// started with.
#[utoipa::path(patch, path = "/v1/agents/{id}", tag = "agents", params(("id" = String, Path, description = "an agent's id")), request_body = ChangeBody,
    responses((status = 204, description = "it is so, and registers as that"), (status = 400, body = ErrorAnswer), (status = 403, body = ErrorAnswer),
        (status = 409, description = "it cannot be so, or cannot be reached", body = ErrorAnswer)))]
pub async fn change(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(id): Segment,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    caller.must_own_cluster()?;
    let agent: AgentId = body::parsed("id", &id)?;
    let ChangeBody { attributes, domain, resources } = body::json(&headers, body).await?;
    if attributes.len() > ATTRIBUTES_MAX || resources.as_ref().is_some_and(|text| text.len() > RESOURCES_BYTES_MAX) {
        return Err(ApiError::invalid("attributes", format!("at most {ATTRIBUTES_MAX}, and resources of {RESOURCES_BYTES_MAX} bytes")));
    }
    let domain = domain.map(|text| {
        let mut parts = text.splitn(3, '/').map(str::to_owned);
        let mut part = || parts.next().unwrap_or_default();
        FaultDomain { region: part(), zone: part(), rack: part() }
    });
    let change = AgentChange { attributes, domain, resources: resources.unwrap_or_default() };
    let connection = api.door.agent_connection(agent).ok_or_else(|| ApiError::conflict("the agent cannot be reached now"))?;
    if connection.version() < CHANGES_SINCE {
        return Err(ApiError::conflict("the agent is of an earlier version, which cannot be changed while it runs: upgrade it first"));
    }
    let silent = || ApiError::conflict("the agent did not answer: whether it is so is not known; look, or ask again");
    match tokio::time::timeout(ANSWER_WITHIN, ask(&connection, change)).await.ok().flatten().ok_or_else(silent)? {
        BulkReply::End => Ok(StatusCode::NO_CONTENT),
        BulkReply::Failed { reason } => Err(ApiError::conflict(reason)),
        BulkReply::Chunk { .. } => Err(silent()),
    }
}

/// The version of the messages from which on agents can be changed.
const CHANGES_SINCE: u16 = 3;

async fn ask(connection: &Connection, change: AgentChange) -> Option<BulkReply> {
    let (mut sender, mut receiver) = connection.open_bulk().await.ok()?;
    sender.send(&BulkRequest::Change(change)).await.ok()?;
    receiver.next::<BulkReply>().await.ok()?
}

/// How to empty an agent.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainBody {
    /// Milliseconds that a task has to stop, at most 3,600,000; 5,000 where it is not said.
    pub grace_ms: Option<u64>,
    /// Milliseconds in which tasks of batch jobs may end by themselves, at most a week; 600,000 where it is not said.
    pub wait_ms: Option<u64>,
    /// True: once it is empty it never comes back.
    #[serde(default)]
    pub gone: bool,
}

/// Empties an agent: it is given no tasks, those of services and frameworks are stopped and placed elsewhere, those of batch jobs once they had their time.
#[utoipa::path(post, path = "/v1/agents/{id}/drain", tag = "agents", params(("id" = String, Path, description = "an agent's id")), request_body = DrainBody,
    responses((status = 204, description = "it is being emptied"), (status = 403, body = ErrorAnswer), (status = 404, body = ErrorAnswer)))]
pub async fn drain(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(id): Segment,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let DrainBody { grace_ms, wait_ms, gone } = body::json(&headers, body).await?;
    let (grace_ms, wait_ms) = (grace_ms.unwrap_or(GRACE_MS_DEFAULT), wait_ms.unwrap_or(WAIT_MS_DEFAULT));
    if grace_ms > GRACE_MS_MAX || wait_ms > WAIT_MS_MAX {
        return Err(ApiError::invalid("grace_ms", format!("at most {GRACE_MS_MAX}, and wait_ms at most {WAIT_MS_MAX}")));
    }
    set_mode(&api, &caller, &id, ModeWish::Drain { grace_ms, wait_ms, gone }).await
}

/// Gives an agent no other tasks than it has.
#[utoipa::path(post, path = "/v1/agents/{id}/deactivate", tag = "agents", params(("id" = String, Path, description = "an agent's id")),
    responses((status = 204, description = "it is given no others"), (status = 403, body = ErrorAnswer), (status = 404, body = ErrorAnswer)))]
pub async fn deactivate(State(api): State<Arc<Api>>, caller: Caller, Segment(id): Segment) -> Result<StatusCode, ApiError> {
    set_mode(&api, &caller, &id, ModeWish::Deactivate).await
}

/// Gives an agent tasks again.
#[utoipa::path(post, path = "/v1/agents/{id}/resume", tag = "agents", params(("id" = String, Path, description = "an agent's id")),
    responses((status = 204, description = "it is given tasks"), (status = 403, body = ErrorAnswer), (status = 404, body = ErrorAnswer)))]
pub async fn resume(State(api): State<Arc<Api>>, caller: Caller, Segment(id): Segment) -> Result<StatusCode, ApiError> {
    set_mode(&api, &caller, &id, ModeWish::Activate).await
}

/// Says whether an agent is given tasks.
///
/// # Errors
/// An [`ApiError`]: who may not, or which agent there is not.
pub async fn set_mode(api: &Api, caller: &Caller, id: &str, mode: ModeWish) -> Result<StatusCode, ApiError> {
    caller.must_own_cluster()?;
    api.all_understand()?;
    let agent: AgentId = body::parsed("id", id)?;
    find::done(api, shard_of_agent(agent, api.door.shards()), Request::SetMode { agent, mode }).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<&AgentView> for AgentBody {
    fn from(view: &AgentView) -> Self {
        let domain = &view.info.domain;
        Self {
            id: view.id.to_string(),
            name: view.info.name.clone(),
            state: view.state.to_string(),
            mode: view.mode.to_string(),
            capacity: (&view.info.capacity).into(),
            allocated: (&view.allocated).into(),
            devices_free_milli: BTreeMap::new(),
            attempts: view.attempts,
            attributes: view.info.attributes.clone(),
            domain: DomainBody { region: domain.region.clone(), zone: domain.zone.clone(), rack: domain.rack.clone() },
            version: view.info.version.clone(),
            weaknesses: view.info.weaknesses.clone(),
            heard_ms: view.heard.0,
        }
    }
}
