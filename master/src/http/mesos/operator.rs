//! `POST /api/v1`: the calls of `mesos/v1/master/master.proto` that people's tools make. Those that are not known are answered with status 501.

use super::seen::{self, Seen, TASKS_MAX, see};
use super::watch::watch;
use super::{At, figures, files, logging, maintenance, master_info, quota, reserved, rows, words};
use crate::frameworks::{FrameworkId, FrameworkRequest};
use crate::http::access::Caller;
use crate::http::agents::set_mode;
use crate::http::error::ApiError;
use crate::http::jobs::GRACE_MS_DEFAULT;
use crate::http::{Api, audit, body, find, reservations};
use crate::shard::drains::ModeWish;
use crate::shard::event::{Level, Request};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use protocol::AgentId;
use protocol::message::shard_of_agent;
use serde_json::{Value, json};
use std::sync::Arc;

/// Answers a call.
pub async fn operator(State(api): State<Arc<Api>>, at: At, caller: Caller, headers: HeaderMap, body: Body) -> Response {
    let answer = async {
        let bytes = body::whole(&headers, body).await?;
        let call: Value = serde_json::from_slice(&bytes).map_err(|error| ApiError::invalid("body", error.to_string()))?;
        let kind = words::text(&call, "type").ok_or_else(|| ApiError::invalid("type", "Expecting 'type' to be present"))?;
        match is_a_look(kind) {
            true => audit::it_changes_nothing(),
            false => audit::it_is(kind),
        }
        match kind {
            "SUBSCRIBE" => watch(Arc::clone(&api), caller).await,
            "LIST_FILES" => {
                caller.must_level(Level::Viewer)?;
                let files = files::list(&api, &caller, &call).await?;
                Ok(Json(json!({ "type": kind, "list_files": files })).into_response())
            }
            "READ_FILE" => {
                caller.must_level(Level::Viewer)?;
                let file = files::read(&api, &caller, &call).await?;
                Ok(Json(json!({ "type": kind, "read_file": file })).into_response())
            }
            kind => Ok(match called(&api, at, &caller, kind, &call).await? {
                Some(answer) => Json(answer).into_response(),
                // Mesos has handed these to an agent by then, and knows no more.
                None if matches!(kind, "RESERVE_RESOURCES" | "UNRESERVE_RESOURCES") => StatusCode::ACCEPTED.into_response(),
                None => StatusCode::OK.into_response(),
            }),
        }
    };
    match answer.await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

/// True of a call that changes nothing.
fn is_a_look(kind: &str) -> bool {
    kind == "SUBSCRIBE" || ["GET_", "LIST_", "READ_"].iter().any(|start| kind.starts_with(start))
}

async fn called(api: &Api, at: At, caller: &Caller, kind: &str, call: &Value) -> Result<Option<Value>, ApiError> {
    caller.must_level(Level::Viewer)?;
    let answer = |name: &str, value: Value| {
        let mut answer = json!({ "type": kind });
        words::put(&mut answer, name, Some(value));
        Ok(Some(answer))
    };
    match kind {
        "GET_HEALTH" => answer("get_health", json!({ "healthy": api.door.stopped().is_none() })),
        "GET_VERSION" => answer("get_version", json!({ "version_info": super::version_info() })),
        "GET_MASTER" => {
            let since = api.since.0 as f64 / 1_000.0;
            answer("get_master", json!({ "master_info": master_info(api, at), "start_time": since, "elected_time": since }))
        }
        "GET_FLAGS" => answer("get_flags", json!({ "flags": [] })),
        "GET_LOGGING_LEVEL" => answer("get_logging_level", json!({ "level": logging::level(api) })),
        "SET_LOGGING_LEVEL" => logging::set_level(api, caller, call).map(|()| None),
        "GET_AGENTS" => answer("get_agents", rows::agents(&see(api, caller).await?)),
        "GET_FRAMEWORKS" => answer("get_frameworks", rows::frameworks(&see(api, caller).await?)),
        "GET_TASKS" => answer("get_tasks", task_rows(api, &see(api, caller).await?, words::member(call, "get_tasks")).await?),
        "GET_METRICS" => answer("get_metrics", figures::list(api, &see(api, caller).await?).await?),
        "GET_OPERATIONS" => answer("get_operations", json!({ "operations": [] })),
        "GET_MAINTENANCE_STATUS" => answer("get_maintenance_status", maintenance::status(api).await?),
        "GET_MAINTENANCE_SCHEDULE" => answer("get_maintenance_schedule", maintenance::schedule(api).await?),
        "UPDATE_MAINTENANCE_SCHEDULE" => {
            caller.must_own_cluster()?;
            maintenance::set_schedule(api, call).await.map(|()| None)
        }
        "START_MAINTENANCE" | "STOP_MAINTENANCE" => {
            caller.must_own_cluster()?;
            maintenance::begin_or_end(api, call, kind == "START_MAINTENANCE").await.map(|()| None)
        }
        "GET_EXECUTORS" => answer("get_executors", json!({ "executors": [] })),
        "GET_ROLES" => answer("get_roles", quota::weighed(api, rows::roles(&see(api, caller).await?)).await?),
        "GET_WEIGHTS" => answer("get_weights", quota::weights(api, caller).await?),
        "UPDATE_WEIGHTS" => quota::set_weights(api, caller, call).await.map(|()| None),
        "GET_QUOTA" => answer("get_quota", quota::quotas(api, caller).await?),
        "UPDATE_QUOTA" => quota::set_quotas(api, caller, call).await.map(|()| None),
        "GET_STATE" => answer("get_state", state(api, &see(api, caller).await?, words::member(call, "get_state")).await?),
        "DRAIN_AGENT" | "DEACTIVATE_AGENT" | "REACTIVATE_AGENT" | "MARK_AGENT_GONE" => {
            of_agents(api, caller, kind, call).await.map(|()| None)
        }
        "RESERVE_RESOURCES" | "UNRESERVE_RESOURCES" => {
            let make = kind == "RESERVE_RESOURCES";
            let of = words::member(call, if make { "reserve_resources" } else { "unreserve_resources" }).unwrap_or(&Value::Null);
            let changes = reserved::operation(of, make).map_err(|reason| ApiError::invalid("resources", reason))?;
            reservations::change_one(api, caller, words::id(of, "agent_id").unwrap_or(""), changes).await.map(|_| None)
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

/// Whether an agent is given tasks.
async fn of_agents(api: &Api, caller: &Caller, kind: &str, call: &Value) -> Result<(), ApiError> {
    match kind {
        "DRAIN_AGENT" => {
            let drain = words::member(call, "drain_agent").unwrap_or(&Value::Null);
            let seconds =
                words::member(drain, "max_grace_period").and_then(|period| words::member(period, "seconds")).and_then(words::number);
            let grace_ms = seconds.map_or(GRACE_MS_DEFAULT, |seconds| words::whole(seconds * 1_000.0));
            // As with Mesos, tasks of batch jobs have no more time than the others.
            let wish = ModeWish::Drain { grace_ms, wait_ms: 0, gone: words::flag(drain, "mark_gone", false) };
            set_mode(api, caller, words::id(drain, "agent_id").unwrap_or(""), wish).await.map(drop)
        }
        "DEACTIVATE_AGENT" => {
            let agent = words::member(call, "deactivate_agent").and_then(|of| words::id(of, "agent_id"));
            set_mode(api, caller, agent.unwrap_or(""), ModeWish::Deactivate).await.map(drop)
        }
        "REACTIVATE_AGENT" => {
            let agent = words::member(call, "reactivate_agent").and_then(|of| words::id(of, "agent_id"));
            set_mode(api, caller, agent.unwrap_or(""), ModeWish::Activate).await.map(drop)
        }
        _ => {
            caller.must_own_cluster()?;
            let agent = words::member(call, "mark_agent_gone").and_then(|gone| words::id(gone, "agent_id"));
            let agent: AgentId = body::parsed("agent_id", agent.unwrap_or(""))?;
            find::done(api, shard_of_agent(agent, api.door.shards()), Request::Gone { agent }).await?;
            Ok(())
        }
    }
}

/// A page of tasks: `limit` and `offset` of the call's own member, which Mesos has not.
async fn task_rows(api: &Api, seen: &Seen, page: Option<&Value>) -> Result<Value, ApiError> {
    let given = |name: &str| page.and_then(|page| words::member(page, name)).and_then(words::number).map(words::whole);
    let part = |name: &str, otherwise: usize| given(name).map_or(otherwise, |n| usize::try_from(n).unwrap_or(usize::MAX));
    let found = seen::tasks(api, &seen.frameworks.iter().collect::<Vec<_>>(), part("offset", 0), part("limit", TASKS_MAX)).await?;
    Ok(rows::tasks(&seen::dressed(api, found).await?))
}

/// All there is, with a page of tasks.
pub(super) async fn state(api: &Api, seen: &Seen, page: Option<&Value>) -> Result<Value, ApiError> {
    Ok(json!({
        "get_agents": rows::agents(seen),
        "get_frameworks": rows::frameworks(seen),
        "get_tasks": task_rows(api, seen, page).await?,
        "get_executors": { "executors": [] },
    }))
}
