//! What version 0 of Mesos' API shows of a master, for tools and pages that read it: ids are plain text, amounts numbers by name
//! (`src/master/readonly_handler.cpp`, `src/common/http.cpp`). Tasks are a page of them, however many there are.

use super::reserved::{self, Format};
use super::rows::{self, AGENT_PORT, agent_pid, by_role};
use super::seen::{Row, Seen, TASKS_MAX, by_state, dressed, is_active, named, see, status_of, tasks as rows_of};
use super::{At, VERSION, master_info, words};
use crate::frameworks::{FrameworkView, OpenOffer};
use crate::http::Api;
use crate::http::access::Caller;
use crate::http::body::Asked;
use crate::http::error::ApiError;
use crate::shard::amounts;
use crate::shard::reservations::ReservedView;
use crate::shard::view::AgentView;
use axum::Json;
use axum::extract::State;
use protocol::{AgentId, Resources};
use serde::Deserialize;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rows of an answer where nobody says how many, as in Mesos (`TASK_LIMIT`).
const TASKS_DEFAULT: usize = 100;
/// All states of a task, as Mesos counts them.
const STATES: [&str; 14] = [
    "TASK_STAGING",
    "TASK_STARTING",
    "TASK_RUNNING",
    "TASK_KILLING",
    "TASK_FINISHED",
    "TASK_KILLED",
    "TASK_FAILED",
    "TASK_LOST",
    "TASK_ERROR",
    "TASK_UNREACHABLE",
    "TASK_DROPPED",
    "TASK_GONE",
    "TASK_GONE_BY_OPERATOR",
    "TASK_UNKNOWN",
];

/// Which part of a list.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ListQuery {
    /// At most so many tasks, and at most [`TASKS_MAX`]; negative: as many as that.
    limit: Option<i64>,
    /// Without the first so many tasks.
    offset: Option<usize>,
    /// `asc` or `des`, by time.
    order: Option<String>,
    /// Only this task.
    task_id: Option<String>,
    /// Only this framework, or its tasks.
    framework_id: Option<String>,
    /// Only this agent.
    slave_id: Option<String>,
}

impl ListQuery {
    fn limit(&self, otherwise: usize) -> usize {
        self.limit.map_or(otherwise, |limit| usize::try_from(limit).unwrap_or(TASKS_MAX)).min(TASKS_MAX)
    }

    /// The frameworks that are asked for.
    fn frameworks<'a>(&self, seen: &'a Seen) -> Vec<&'a FrameworkView> {
        let wanted = |framework: &&FrameworkView| self.framework_id.as_ref().is_none_or(|id| *id == framework.id.to_string());
        seen.frameworks.iter().filter(wanted).collect()
    }
}

/// All of it.
pub async fn state(State(api): State<Arc<Api>>, at: At, caller: Caller, Asked(query): Asked<ListQuery>) -> Result<Json<Value>, ApiError> {
    let seen = see(&api, &caller).await?;
    let info = master_info(&api, at);
    let active = seen.agents.iter().filter(|agent| is_active(agent)).count();
    let reachable = seen.agents.iter().filter(|agent| agent.state == "reachable").count();
    let since = api.since.0 as f64 / 1_000.0;
    let (slaves, recovered) = agent_rows(&seen, None);
    Ok(Json(json!({
        "version": VERSION,
        "build_date": "",
        "build_time": 0.0,
        "build_user": "",
        "start_time": since,
        "elected_time": since,
        "id": info["id"],
        "pid": info["pid"],
        "hostname": info["hostname"],
        "capabilities": ["AGENT_UPDATE", "AGENT_DRAINING"],
        "cluster": api.cluster,
        "leader": info["pid"],
        "leader_info": { "id": info["id"], "pid": info["pid"], "port": info["port"], "hostname": info["hostname"] },
        "activated_slaves": active,
        "deactivated_slaves": reachable - active,
        "unreachable_slaves": seen.agents.len() - reachable,
        "slaves": slaves,
        "recovered_slaves": recovered,
        "frameworks": framework_rows(&api, &seen, &query).await?,
        "completed_frameworks": [],
        "unregistered_frameworks": [],
        "orphan_tasks": [],
        "flags": {},
    })))
}

/// The same without tasks: how many there are in which state, of each framework and on each agent.
pub async fn summary(State(api): State<Arc<Api>>, at: At, caller: Caller) -> Result<Json<Value>, ApiError> {
    let seen = see(&api, &caller).await?;
    let count = |value: &mut Value, counts: &BTreeMap<&'static str, u64>| {
        STATES.iter().for_each(|state| words::put(value, state, Some(counts.get(state).copied().unwrap_or(0).into())));
    };
    let (mut on, mut of) = (BTreeMap::<AgentId, BTreeMap<&str, u64>>::new(), BTreeMap::<AgentId, Vec<String>>::new());
    for framework in &seen.frameworks {
        for (agent, counts) in &framework.agents {
            of.entry(*agent).or_default().push(framework.id.to_string());
            for (state, n) in by_state(framework, counts) {
                *on.entry(*agent).or_default().entry(state).or_insert(0) += n;
            }
        }
    }
    let offered = seen.offered();
    let slave = |view: &AgentView| {
        let mut value = agent(view, offered.get(&view.id), seen.reserved.get(&view.id));
        count(&mut value, &on.get(&view.id).cloned().unwrap_or_default());
        words::put(&mut value, "framework_ids", Some(of.get(&view.id).cloned().unwrap_or_default().into()));
        value
    };
    let counted = |framework: &FrameworkView| {
        let mut value = framework_head(framework);
        count(&mut value, &by_state(framework, &framework.counts));
        words::put(&mut value, "slave_ids", Some(framework.agents.keys().map(ToString::to_string).collect()));
        value
    };
    Ok(Json(json!({
        "hostname": master_info(&api, at)["hostname"],
        "cluster": api.cluster,
        "slaves": seen.agents.iter().filter(|view| view.state != "expected").map(slave).collect::<Vec<_>>(),
        "frameworks": seen.frameworks.iter().map(counted).collect::<Vec<_>>(),
    })))
}

/// The agents.
pub async fn agents(State(api): State<Arc<Api>>, caller: Caller, Asked(query): Asked<ListQuery>) -> Result<Json<Value>, ApiError> {
    let seen = see(&api, &caller).await?;
    let (mut slaves, recovered) = agent_rows(&seen, query.slave_id.as_deref());
    let role = words::role(words::ANY_ROLE).map_err(ApiError::internal)?;
    let by_id: BTreeMap<String, &AgentView> = seen.agents.iter().map(|view| (view.id.to_string(), view)).collect();
    for value in &mut slaves {
        let Some(view) = value["id"].as_str().and_then(|id| by_id.get(id)) else { continue };
        let kept = seen.reserved.get(&view.id).map_or(&[][..], |reserved| &reserved.list);
        let mut all = reserved::resources(&view.info.capacity, &view.info.ports, kept, &role, Format::Both);
        let mut reserved = serde_json::Map::new();
        for entry in all.extract_if(.., |entry| entry.get("reservations").is_some()) {
            let role = entry["role"].as_str().unwrap_or_default().to_owned();
            if let Value::Array(list) = reserved.entry(role).or_insert_with(|| json!([])) {
                list.push(entry);
            }
        }
        words::put(value, "unreserved_resources_full", Some(all.into()));
        words::put(value, "used_resources_full", Some(words::resources(&view.allocated, &[], &role).into()));
        words::put(value, "offered_resources_full", Some(json!([])));
        words::put(value, "reserved_resources_full", Some(reserved.into()));
    }
    Ok(Json(json!({ "slaves": slaves, "recovered_slaves": recovered })))
}

/// The frameworks.
pub async fn frameworks(State(api): State<Arc<Api>>, caller: Caller, Asked(query): Asked<ListQuery>) -> Result<Json<Value>, ApiError> {
    let seen = see(&api, &caller).await?;
    let all = framework_rows(&api, &seen, &query).await?;
    Ok(Json(json!({ "frameworks": all, "completed_frameworks": [], "unregistered_frameworks": [] })))
}

/// The tasks of frameworks: by time, where there are no more than [`TASKS_MAX`]; by framework and name where there are.
pub async fn tasks(State(api): State<Arc<Api>>, caller: Caller, Asked(query): Asked<ListQuery>) -> Result<Json<Value>, ApiError> {
    let seen = see(&api, &caller).await?;
    let frameworks = query.frameworks(&seen);
    let (limit, offset) = (query.limit(TASKS_DEFAULT), query.offset.unwrap_or(0));
    let mut all = match &query.task_id {
        Some(name) => named(&api, &frameworks, name).await?,
        None if seen.n_tasks() > TASKS_MAX => {
            let rows = dressed(&api, rows_of(&api, &frameworks, offset, limit).await?).await?;
            return Ok(Json(json!({ "tasks": rows.iter().map(task).collect::<Vec<_>>() })));
        }
        None => rows_of(&api, &frameworks, 0, TASKS_MAX).await?,
    };
    all.sort_by_key(|(_, own)| own.at);
    if query.order.as_deref() != Some("asc") {
        all.reverse();
    }
    let page = dressed(&api, all.into_iter().skip(offset).take(limit)).await?;
    Ok(Json(json!({ "tasks": page.iter().map(task).collect::<Vec<_>>() })))
}

/// The roles that frameworks have.
pub async fn roles(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<Value>, ApiError> {
    let seen = see(&api, &caller).await?;
    let none = || words::amounts(&Resources::NONE, &[]);
    let row = |(name, row): (Cow<'_, str>, super::rows::RoleRow)| {
        let held = row.used.checked_add(&row.offered).unwrap_or_default();
        json!({
            "name": name,
            "weight": 1.0,
            "quota": { "role": name, "guarantee": {}, "limit": {}, "consumed": words::amounts(&row.used, &[]) },
            "frameworks": row.frameworks,
            "resources": words::amounts(&held, &[]),
            "allocated": words::amounts(&row.used, &[]),
            "offered": words::amounts(&row.offered, &[]),
            "reserved": none(),
        })
    };
    let roles = json!({ "roles": by_role(&seen).into_iter().map(row).collect::<Vec<_>>() });
    Ok(Json(super::quota::weighed(&api, roles).await?))
}

/// Agents, and those that are on record and were not heard of since the master's start.
fn agent_rows(seen: &Seen, only: Option<&str>) -> (Vec<Value>, Vec<Value>) {
    let offered = seen.offered();
    let wanted = seen.agents.iter().filter(|view| only.is_none_or(|id| id == view.id.to_string()));
    let (recovered, here): (Vec<_>, Vec<_>) = wanted.partition(|view| view.state == "expected");
    let rows =
        |views: Vec<&AgentView>| views.into_iter().map(|view| agent(view, offered.get(&view.id), seen.reserved.get(&view.id))).collect();
    (rows(here), rows(recovered))
}

fn agent(view: &AgentView, offered: Option<&Resources>, kept: Option<&ReservedView>) -> Value {
    let info = &view.info;
    let (mut unreserved, mut reserved) = (info.capacity.clone(), BTreeMap::<Cow<'_, str>, Resources>::new());
    for one in kept.iter().flat_map(|kept| &kept.list) {
        amounts::sub(&mut unreserved, &one.resources, 1);
        amounts::add(reserved.entry(words::role_text(&one.reserved.role)).or_default(), &one.resources, 1);
    }
    let reserved: BTreeMap<&str, Value> = reserved.iter().map(|(role, sum)| (&**role, words::amounts(sum, &[]))).collect();
    let mut value = json!({
        "id": view.id.to_string(),
        "hostname": info.name,
        "port": AGENT_PORT,
        "pid": agent_pid(view),
        "registered_time": view.heard.0 as f64 / 1_000.0,
        "resources": words::amounts(&info.capacity, &info.ports),
        "used_resources": words::amounts(&view.allocated, &[]),
        "offered_resources": words::amounts(offered.unwrap_or(&Resources::NONE), &[]),
        "unreserved_resources": words::amounts(&unreserved, &info.ports),
        "reserved_resources": reserved,
        "attributes": info.attributes,
        "active": is_active(view),
        "deactivated": view.mode != "active",
        "version": VERSION,
        "capabilities": ["MULTI_ROLE", "AGENT_DRAINING"],
    });
    words::put(&mut value, "domain", words::domain(info));
    value
}

fn framework_head(framework: &FrameworkView) -> Value {
    let info = &framework.info;
    let used = framework.used();
    let mut value = json!({
        "id": framework.id.to_string(),
        "name": info.name,
        "user": info.user,
        "role": info.roles.first().map_or(words::ANY_ROLE.into(), words::role_text),
        "roles": info.roles.iter().map(words::role_text).collect::<Vec<_>>(),
        "hostname": info.hostname,
        "webui_url": info.webui_url,
        "principal": info.principal,
        "failover_timeout": info.failover_ms as f64 / 1_000.0,
        "checkpoint": true,
        "capabilities": info.capabilities,
        "active": framework.connected,
        "connected": framework.connected,
        "recovered": false,
        "registered_time": framework.since.0 as f64 / 1_000.0,
        "unregistered_time": 0.0,
        "resources": words::amounts(&used.checked_add(&framework.offered).unwrap_or_default(), &[]),
        "used_resources": words::amounts(&used, &[]),
        "offered_resources": words::amounts(&framework.offered, &[]),
    });
    words::put(&mut value, "labels", (!info.labels.is_empty()).then(|| words::labels(&info.labels)["labels"].clone()));
    value
}

/// Frameworks with their tasks, of which there is a page for all of them together.
async fn framework_rows(api: &Api, seen: &Seen, query: &ListQuery) -> Result<Vec<Value>, ApiError> {
    let frameworks = query.frameworks(seen);
    let rows = dressed(api, rows_of(api, &frameworks, query.offset.unwrap_or(0), query.limit(TASKS_MAX)).await?).await?;
    Ok(frameworks.into_iter().map(|view| framework(view, rows.iter().filter(|row| row.framework.id == view.id))).collect())
}

fn framework<'a>(view: &'a FrameworkView, rows: impl Iterator<Item = &'a Row<'a>>) -> Value {
    let mut value = framework_head(view);
    let [live, unreachable, completed] = rows::by_standing(rows, task);
    for (name, list) in [("tasks", live), ("unreachable_tasks", unreachable), ("completed_tasks", completed), ("executors", vec![])] {
        words::put(&mut value, name, Some(list.into()));
    }
    let id = view.id.to_string();
    words::put(&mut value, "offers", Some(view.offers.iter().map(|shown| offer(shown, &id)).collect()));
    value
}

fn offer(shown: &OpenOffer, framework: &str) -> Value {
    json!({
        "id": crate::http::frameworks_json::offer_text(shown.id),
        "framework_id": framework,
        "allocation_info": { "role": words::role_text(&shown.role) },
        "slave_id": shown.agent.to_string(),
        "resources": words::amounts(&shown.resources, &shown.ports),
    })
}

fn task(Row { framework, own, shown }: &Row<'_>) -> Value {
    let status = status_of(framework, own);
    let mut task = json!({
        "id": own.name,
        "name": shown.name(&own.name),
        "framework_id": framework.id.to_string(),
        "executor_id": "",
        "slave_id": own.agent.to_string(),
        "state": status["state"],
        "role": own.role.as_ref().map_or(words::ANY_ROLE.into(), words::role_text),
        "resources": words::amounts(&own.resources, &shown.ports),
        "statuses": [{ "state": status["state"], "timestamp": status["timestamp"], "container_status": status["container_status"] }],
    });
    if let Some(healthy) = words::member(&status, "healthy") {
        words::put(&mut task["statuses"][0], "healthy", Some(healthy.clone()));
    }
    shown.dress_plain(&mut task);
    task
}
