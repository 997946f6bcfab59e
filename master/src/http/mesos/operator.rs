//! `POST /api/v1`: the calls of `mesos/v1/master/master.proto` that people's tools make. Those that are not known are answered with status 501.

use super::state::{Seen, is_active, see, status_of};
use super::{At, VERSION, master_info, words};
use crate::frameworks::{FrameworkId, FrameworkRequest, FrameworkView, OwnView};
use crate::http::access::Caller;
use crate::http::agents::set_mode;
use crate::http::error::ApiError;
use crate::http::jobs::GRACE_MS_DEFAULT;
use crate::http::{Api, body, find};
use crate::shard::drains::ModeWish;
use crate::shard::event::{Level, Request};
use crate::shard::view::AgentView;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use protocol::message::shard_of_agent;
use protocol::{AgentId, Phase};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Answers a call.
pub async fn operator(State(api): State<Arc<Api>>, _: At, caller: Caller, headers: HeaderMap, body: Body) -> Response {
    let answer = async {
        let bytes = body::whole(&headers, body).await?;
        let call: Value = serde_json::from_slice(&bytes).map_err(|error| ApiError::invalid("body", error.to_string()))?;
        let kind = words::text(&call, "type").ok_or_else(|| ApiError::invalid("type", "Expecting 'type' to be present"))?;
        called(&api, &caller, kind, &call).await
    };
    match answer.await {
        Ok(Some(answer)) => Json(answer).into_response(),
        Ok(None) => StatusCode::OK.into_response(),
        Err(error) => error.into_response(),
    }
}

async fn called(api: &Api, caller: &Caller, kind: &str, call: &Value) -> Result<Option<Value>, ApiError> {
    caller.must_level(Level::Viewer)?;
    let answer = |name: &str, value: Value| {
        let mut answer = json!({ "type": kind });
        words::put(&mut answer, name, Some(value));
        Ok(Some(answer))
    };
    match kind {
        "GET_HEALTH" => answer("get_health", json!({ "healthy": api.door.stopped().is_none() })),
        "GET_VERSION" => answer("get_version", json!({ "version_info": { "version": VERSION } })),
        "GET_MASTER" => answer("get_master", json!({ "master_info": master_info(api) })),
        "GET_FLAGS" => answer("get_flags", json!({ "flags": [] })),
        "GET_LOGGING_LEVEL" => answer("get_logging_level", json!({ "level": 0 })),
        "GET_AGENTS" => answer("get_agents", agents(&see(api, caller).await?)),
        "GET_FRAMEWORKS" => answer("get_frameworks", frameworks(&see(api, caller).await?)),
        "GET_TASKS" => answer("get_tasks", tasks(&see(api, caller).await?)),
        "GET_EXECUTORS" => answer("get_executors", json!({ "executors": [] })),
        "GET_ROLES" => answer("get_roles", roles(&see(api, caller).await?)),
        "GET_WEIGHTS" => answer("get_weights", json!({ "weight_infos": [] })),
        "GET_QUOTA" => answer("get_quota", json!({ "status": { "infos": [] } })),
        "GET_STATE" => {
            let seen = see(api, caller).await?;
            let state = json!({ "get_agents": agents(&seen), "get_frameworks": frameworks(&seen), "get_tasks": tasks(&seen), "get_executors": { "executors": [] } });
            answer("get_state", state)
        }
        "DRAIN_AGENT" => {
            let drain = words::member(call, "drain_agent").unwrap_or(&Value::Null);
            let seconds =
                words::member(drain, "max_grace_period").and_then(|period| words::member(period, "seconds")).and_then(words::number);
            let grace_ms = seconds.map_or(GRACE_MS_DEFAULT, |seconds| words::whole(seconds * 1_000.0));
            // As with Mesos, tasks of batch jobs have no more time than the others.
            let wish = ModeWish::Drain { grace_ms, wait_ms: 0, gone: words::flag(drain, "mark_gone", false) };
            set_mode(api, caller, words::id(drain, "agent_id").unwrap_or(""), wish).await.map(|_| None)
        }
        "DEACTIVATE_AGENT" => {
            let agent = words::member(call, "deactivate_agent").and_then(|of| words::id(of, "agent_id"));
            set_mode(api, caller, agent.unwrap_or(""), ModeWish::Deactivate).await.map(|_| None)
        }
        "REACTIVATE_AGENT" => {
            let agent = words::member(call, "reactivate_agent").and_then(|of| words::id(of, "agent_id"));
            set_mode(api, caller, agent.unwrap_or(""), ModeWish::Activate).await.map(|_| None)
        }
        "MARK_AGENT_GONE" => {
            caller.must_own_cluster()?;
            let agent = words::member(call, "mark_agent_gone").and_then(|gone| words::id(gone, "agent_id"));
            let agent: AgentId = body::parsed("agent_id", agent.unwrap_or(""))?;
            find::done(api, shard_of_agent(agent, api.door.shards()), Request::Gone { agent }).await?;
            Ok(None)
        }
        "TEARDOWN" => {
            caller.must_level(Level::Operator)?;
            let framework = words::member(call, "teardown").and_then(|teardown| words::id(teardown, "framework_id"));
            let framework: FrameworkId = body::parsed("framework_id", framework.unwrap_or(""))?;
            let seen = see(api, caller).await?;
            if !seen.frameworks.iter().any(|known| known.id == framework) {
                return Err(ApiError::not_found("framework"));
            }
            find::done(api, framework.shard(), Request::Framework(FrameworkRequest::Teardown { framework })).await?;
            Ok(None)
        }
        other => Err(ApiError::not_implemented(format!("the call {other} is not answered yet"))),
    }
}

fn agents(seen: &Seen) -> Value {
    let role = words::role(words::ANY_ROLE).expect("the default role is one");
    let agent = |view: &AgentView| {
        let mut info = json!({
            "id": { "value": view.id.to_string() },
            "hostname": view.info.name,
            "port": 5051,
            "resources": words::resources(&view.info.capacity, &view.info.ports, &role),
            "attributes": words::attributes(&view.info),
        });
        words::put(&mut info, "domain", words::domain(&view.info));
        json!({
            "agent_info": info,
            "active": is_active(view),
            "deactivated": view.mode != "active",
            "version": VERSION,
            "pid": format!("slave(1)@{}:5051", view.info.name),
            "registered_time": { "nanoseconds": view.heard.0.saturating_mul(1_000_000) },
            "total_resources": words::resources(&view.info.capacity, &view.info.ports, &role),
            "allocated_resources": words::resources(&view.allocated, &[], &role),
            "offered_resources": [],
        })
    };
    json!({ "agents": seen.agents.iter().map(agent).collect::<Vec<_>>(), "recovered_agents": [] })
}

fn frameworks(seen: &Seen) -> Value {
    let framework = |view: &FrameworkView| {
        let info = &view.info;
        json!({
            "framework_info": {
                "id": { "value": view.id.to_string() },
                "name": info.name,
                "user": info.user,
                "roles": info.roles.iter().map(words::role_text).collect::<Vec<_>>(),
                "hostname": info.hostname,
                "webui_url": info.webui_url,
                "principal": info.principal,
                "failover_timeout": info.failover_ms as f64 / 1_000.0,
                "checkpoint": true,
                "capabilities": info.capabilities.iter().map(|capability| json!({ "type": capability })).collect::<Vec<_>>(),
            },
            "active": view.connected,
            "connected": view.connected,
            "recovered": false,
            "registered_time": { "nanoseconds": view.since.0.saturating_mul(1_000_000) },
        })
    };
    json!({ "frameworks": seen.frameworks.iter().map(framework).collect::<Vec<_>>(), "completed_frameworks": [], "recovered_frameworks": [] })
}

fn tasks(seen: &Seen) -> Value {
    let (mut live, mut unreachable, mut completed) = (vec![], vec![], vec![]);
    for (framework, own) in seen.frameworks.iter().flat_map(|framework| framework.tasks.iter().map(move |own| (framework, own))) {
        let list = match (&own.exit, own.phase) {
            (Some(_), _) => &mut completed,
            (None, Phase::Unreachable) => &mut unreachable,
            (None, _) => &mut live,
        };
        list.push(task(framework, own));
    }
    json!({ "tasks": live, "unreachable_tasks": unreachable, "completed_tasks": completed, "pending_tasks": [], "orphan_tasks": [] })
}

fn task(framework: &FrameworkView, own: &OwnView) -> Value {
    let status = status_of(framework, own);
    let role = own.role.clone().unwrap_or_else(|| words::role(words::ANY_ROLE).expect("the default role is one"));
    json!({
        "name": own.name,
        "task_id": { "value": own.name },
        "framework_id": { "value": framework.id.to_string() },
        "agent_id": { "value": own.agent.to_string() },
        "state": status["state"],
        "resources": words::resources(&own.resources, &[], &role),
        "statuses": [status],
    })
}

fn roles(seen: &Seen) -> Value {
    let names: BTreeSet<&str> = seen.frameworks.iter().flat_map(|framework| framework.info.roles.iter().map(words::role_text)).collect();
    let row = |name: &str| {
        let of = |framework: &&FrameworkView| framework.info.roles.iter().any(|role| words::role_text(role) == name);
        let ids: Vec<Value> = seen.frameworks.iter().filter(of).map(|framework| json!({ "value": framework.id.to_string() })).collect();
        json!({ "name": name, "weight": 1.0, "frameworks": ids, "resources": [] })
    };
    json!({ "roles": names.into_iter().map(row).collect::<Vec<_>>() })
}
