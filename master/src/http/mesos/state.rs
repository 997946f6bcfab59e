//! What version 0 of Mesos' API shows of a master, for tools and pages that read it: ids are plain text, amounts numbers by name.

use super::event::{Told, offer};
use super::{VERSION, master_info, words};
use crate::frameworks::{Cause, FrameworkView, OwnView, StatusUpdate};
use crate::http::access::Caller;
use crate::http::body::Asked;
use crate::http::error::ApiError;
use crate::http::{Api, find, status};
use crate::shard::event::Level;
use crate::shard::view::{AgentView, View, Viewed};
use axum::Json;
use axum::extract::State;
use protocol::{Phase, Resources};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rows of an answer where nobody says how many, as in Mesos (`TASK_LIMIT`).
const TASKS_DEFAULT: usize = 100;

/// What there is.
pub(super) struct Seen {
    pub agents: Vec<AgentView>,
    pub frameworks: Vec<FrameworkView>,
}

/// Looks at all that the caller may see.
pub(super) async fn see(api: &Api, caller: &Caller) -> Result<Seen, ApiError> {
    caller.must_level(Level::Viewer)?;
    let (agents, frameworks) = futures::try_join!(find::view_all(api, View::Agents), find::view_all(api, View::Frameworks))?;
    let agents = agents.into_iter().filter_map(|viewed| if let Viewed::Agents(agents) = viewed { Some(agents) } else { None });
    let frameworks = frameworks.into_iter().filter_map(|viewed| if let Viewed::Frameworks(found) = viewed { Some(found) } else { None });
    let mine = |framework: &FrameworkView| framework.info.roles.iter().all(|role| caller.sees(role));
    Ok(Seen { agents: agents.flatten().collect(), frameworks: frameworks.flatten().filter(mine).collect() })
}

/// All of it.
pub async fn state(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<Value>, ApiError> {
    let seen = see(&api, &caller).await?;
    let info = master_info(&api);
    let active = seen.agents.iter().filter(|agent| is_active(agent)).count();
    Ok(Json(json!({
        "version": VERSION,
        "id": info["id"],
        "pid": info["pid"],
        "hostname": info["hostname"],
        "cluster": api.cluster,
        "leader": info["pid"],
        "leader_info": info,
        "activated_slaves": active,
        "deactivated_slaves": 0,
        "unreachable_slaves": seen.agents.len() - active,
        "slaves": seen.agents.iter().map(agent).collect::<Vec<_>>(),
        "frameworks": seen.frameworks.iter().map(framework).collect::<Vec<_>>(),
        "completed_frameworks": [],
        "unregistered_frameworks": [],
        "orphan_tasks": [],
        "flags": {},
    })))
}

/// The same without tasks.
pub async fn summary(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<Value>, ApiError> {
    let seen = see(&api, &caller).await?;
    let counted = |framework: &FrameworkView| {
        let mut value = framework_head(framework);
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        framework.tasks.iter().for_each(|task| *counts.entry(task_state(framework, task)).or_default() += 1);
        for (state, n) in counts {
            words::put(&mut value, &state, Some(n.into()));
        }
        words::put(&mut value, "slave_ids", Some(framework.tasks.iter().map(|task| task.agent.to_string()).collect()));
        value
    };
    let info = master_info(&api);
    Ok(Json(json!({
        "hostname": info["hostname"],
        "cluster": api.cluster,
        "slaves": seen.agents.iter().map(agent).collect::<Vec<_>>(),
        "frameworks": seen.frameworks.iter().map(counted).collect::<Vec<_>>(),
    })))
}

/// The agents.
pub async fn agents(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<Value>, ApiError> {
    let seen = see(&api, &caller).await?;
    Ok(Json(json!({ "slaves": seen.agents.iter().map(agent).collect::<Vec<_>>(), "recovered_slaves": [] })))
}

/// The frameworks.
pub async fn frameworks(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<Value>, ApiError> {
    let seen = see(&api, &caller).await?;
    let all: Vec<Value> = seen.frameworks.iter().map(framework).collect();
    Ok(Json(json!({ "frameworks": all, "completed_frameworks": [], "unregistered_frameworks": [] })))
}

/// Which tasks.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct TasksQuery {
    /// At most so many; -1: all.
    limit: Option<i64>,
    /// Without the first so many.
    offset: Option<usize>,
    /// `asc` or `desc`, by time.
    order: Option<String>,
    /// Only this one.
    task_id: Option<String>,
    /// Only those of this framework.
    framework_id: Option<String>,
}

/// The tasks of frameworks.
pub async fn tasks(State(api): State<Arc<Api>>, caller: Caller, Asked(query): Asked<TasksQuery>) -> Result<Json<Value>, ApiError> {
    let seen = see(&api, &caller).await?;
    let of = |framework: &&FrameworkView| query.framework_id.as_ref().is_none_or(|id| *id == framework.id.to_string());
    let all = seen.frameworks.iter().filter(of).flat_map(|framework| framework.tasks.iter().map(move |own| (framework, own)));
    let mut all: Vec<_> = all.filter(|(_, own)| query.task_id.as_ref().is_none_or(|id| *id == own.name)).collect();
    all.sort_by_key(|(_, own)| own.at);
    if query.order.as_deref() != Some("asc") {
        all.reverse();
    }
    let limit = query.limit.map_or(TASKS_DEFAULT, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let page = all.into_iter().skip(query.offset.unwrap_or(0)).take(limit);
    Ok(Json(json!({ "tasks": page.map(|(framework, own)| task(framework, own)).collect::<Vec<_>>() })))
}

/// The roles that frameworks have.
pub async fn roles(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<Value>, ApiError> {
    let seen = see(&api, &caller).await?;
    let mut roles: BTreeMap<&str, (Vec<String>, Resources)> = BTreeMap::new();
    for framework in &seen.frameworks {
        for role in &framework.info.roles {
            let (ids, used) = roles.entry(words::role_text(role)).or_default();
            ids.push(framework.id.to_string());
            let own = framework.tasks.iter().filter(|task| task.role.as_ref() == Some(role));
            own.for_each(|task| *used = used.checked_add(&task.resources).unwrap_or_default());
        }
    }
    let row = |(name, (frameworks, used)): (&str, (Vec<String>, Resources))| json!({ "name": name, "weight": 1.0, "frameworks": frameworks, "resources": words::amounts(&used, &[]) });
    Ok(Json(json!({ "roles": roles.into_iter().map(row).collect::<Vec<_>>() })))
}

/// Figures, flat, by Mesos' names.
pub async fn metrics(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<Value>, ApiError> {
    let seen = see(&api, &caller).await?;
    let figures = status::figures(&api).await?;
    let (mut total, mut used) = (Resources::NONE, Resources::NONE);
    for agent in &seen.agents {
        total = total.checked_add(&agent.info.capacity).unwrap_or_default();
        used = used.checked_add(&agent.allocated).unwrap_or_default();
    }
    let active = seen.agents.iter().filter(|agent| is_active(agent)).count();
    let connected = seen.frameworks.iter().filter(|framework| framework.connected).count();
    let percent = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let mut all = Map::new();
    let mut put = |name: &str, value: Value| drop(all.insert(name.into(), value));
    put("master/elected", json!(1.0));
    put("master/slaves_active", json!(active));
    put("master/slaves_connected", json!(active));
    put("master/slaves_unreachable", json!(seen.agents.len() - active));
    put("master/frameworks_active", json!(connected));
    put("master/frameworks_connected", json!(connected));
    put("master/frameworks_disconnected", json!(seen.frameworks.len() - connected));
    put("master/cpus_total", json!(total.cpu_milli as f64 / 1_000.0));
    put("master/cpus_used", json!(used.cpu_milli as f64 / 1_000.0));
    put("master/cpus_percent", json!(percent(used.cpu_milli, total.cpu_milli)));
    put("master/mem_total", json!(total.memory_bytes >> 20));
    put("master/mem_used", json!(used.memory_bytes >> 20));
    put("master/mem_percent", json!(percent(used.memory_bytes, total.memory_bytes)));
    put("master/disk_total", json!(total.disk_bytes >> 20));
    put("master/disk_used", json!(used.disk_bytes >> 20));
    put("master/tasks_running", json!(figures.tasks_live));
    put("master/tasks_finished", json!(figures.ended_total));
    put("master/outstanding_offers", json!(seen.frameworks.iter().map(|framework| framework.offers.len()).sum::<usize>()));
    Ok(Json(Value::Object(all)))
}

pub(super) fn is_active(agent: &AgentView) -> bool {
    agent.state == "reachable" && agent.mode == "active"
}

fn agent(view: &AgentView) -> Value {
    let info = &view.info;
    let free = info.capacity.checked_sub(&view.allocated).unwrap_or_default();
    json!({
        "id": view.id.to_string(),
        "hostname": info.name,
        "port": 5051,
        "pid": format!("slave(1)@{}:5051", info.name),
        "registered_time": view.heard.0 as f64 / 1_000.0,
        "resources": words::amounts(&info.capacity, &info.ports),
        "used_resources": words::amounts(&view.allocated, &[]),
        "offered_resources": words::amounts(&Resources::NONE, &[]),
        "unreserved_resources": words::amounts(&free, &info.ports),
        "reserved_resources": {},
        "attributes": info.attributes,
        "domain": words::domain(info),
        "active": is_active(view),
        "deactivated": view.mode != "active",
        "version": VERSION,
        "capabilities": ["MULTI_ROLE", "RESERVATION_REFINEMENT"],
    })
}

fn framework_head(framework: &FrameworkView) -> Value {
    let info = &framework.info;
    let mut used = Resources::NONE;
    framework.tasks.iter().for_each(|task| used = used.checked_add(&task.resources).unwrap_or_default());
    json!({
        "id": framework.id.to_string(),
        "name": info.name,
        "user": info.user,
        "role": info.roles.first().map_or(words::ANY_ROLE, words::role_text),
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
        "resources": words::amounts(&used, &[]),
        "used_resources": words::amounts(&used, &[]),
        "offered_resources": words::amounts(&offered(framework), &[]),
    })
}

fn offered(framework: &FrameworkView) -> Resources {
    framework.offers.iter().fold(Resources::NONE, |sum, offer| sum.checked_add(&offer.resources).unwrap_or_default())
}

fn framework(view: &FrameworkView) -> Value {
    let mut value = framework_head(view);
    let rows =
        |which: &dyn Fn(&OwnView) -> bool| -> Value { view.tasks.iter().filter(|own| which(own)).map(|own| task(view, own)).collect() };
    words::put(&mut value, "tasks", Some(rows(&|own| own.exit.is_none() && own.phase != Phase::Unreachable)));
    words::put(&mut value, "unreachable_tasks", Some(rows(&|own| own.phase == Phase::Unreachable)));
    words::put(&mut value, "completed_tasks", Some(rows(&|own| own.exit.is_some())));
    words::put(&mut value, "executors", Some(json!([])));
    let id = view.id.to_string();
    words::put(&mut value, "offers", Some(view.offers.iter().map(|shown| offer(shown, &id)).collect()));
    value
}

/// What a task's framework would be told.
pub(super) fn status_of(framework: &FrameworkView, own: &OwnView) -> Value {
    let info = &framework.info;
    let told = Told {
        framework: framework.id.to_string(),
        partition_aware: info.is_partition_aware(),
        knows_killing: info.knows_killing(),
        master: Value::Null,
    };
    told.status(&StatusUpdate {
        task: own.name.clone(),
        job: Some(own.job),
        agent: Some(own.agent),
        phase: own.phase,
        exit: own.exit.clone(),
        cause: Cause::News,
        ports: vec![],
        at: own.at,
        uuid: None,
    })
}

fn task_state(framework: &FrameworkView, own: &OwnView) -> String {
    status_of(framework, own)["state"].as_str().unwrap_or_default().to_owned()
}

fn task(framework: &FrameworkView, own: &OwnView) -> Value {
    let status = status_of(framework, own);
    json!({
        "id": own.name,
        "name": own.name,
        "framework_id": framework.id.to_string(),
        "executor_id": "",
        "slave_id": own.agent.to_string(),
        "state": status["state"],
        "role": own.role.as_ref().map_or(words::ANY_ROLE, words::role_text),
        "resources": words::amounts(&own.resources, &[]),
        "statuses": [{ "state": status["state"], "timestamp": status["timestamp"], "container_status": status["container_status"] }],
    })
}
