//! A master's figures by Mesos' names (`src/master/metrics.cpp`): flat, for version 0 of its API, and a list of names and values for version 1.
//! Tasks are those of frameworks, those of our own jobs have names of their own.

use super::seen::{Seen, by_state, is_active, see};
use crate::http::access::{Caller, now};
use crate::http::error::ApiError;
use crate::http::{Api, status};
use axum::Json;
use axum::extract::State;
use protocol::{Name, Resources};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// States of tasks, and what their counts are called.
const STATES: [(&str, &str); 14] = [
    ("TASK_STAGING", "staging"),
    ("TASK_STARTING", "starting"),
    ("TASK_RUNNING", "running"),
    ("TASK_KILLING", "killing"),
    ("TASK_FINISHED", "finished"),
    ("TASK_FAILED", "failed"),
    ("TASK_KILLED", "killed"),
    ("TASK_LOST", "lost"),
    ("TASK_ERROR", "error"),
    ("TASK_UNREACHABLE", "unreachable"),
    ("TASK_DROPPED", "dropped"),
    ("TASK_GONE", "gone"),
    ("TASK_GONE_BY_OPERATOR", "gone_by_operator"),
    ("TASK_UNKNOWN", "unknown"),
];

/// Answers `/metrics/snapshot`.
pub async fn snapshot(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<Value>, ApiError> {
    Ok(Json(Value::Object(figures(&api, &see(&api, &caller).await?).await?)))
}

/// Answers `GET_METRICS`.
///
/// # Errors
/// An [`ApiError`] where a shard cannot answer now.
pub async fn list(api: &Api, seen: &Seen) -> Result<Value, ApiError> {
    let all = figures(api, seen).await?;
    let rows: Vec<Value> = all.into_iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    Ok(json!({ "metrics": rows }))
}

async fn figures(api: &Api, seen: &Seen) -> Result<Map<String, Value>, ApiError> {
    let counted = status::figures(api).await?;
    let mut all = Map::new();
    let mut put = |name: String, value: f64| drop(all.insert(format!("master/{name}"), json!(value)));
    let n = |count: usize| count as f64;
    put("elected".into(), 1.0);
    put("uptime_secs".into(), now().since(api.since) as f64 / 1_000.0);
    let active = seen.agents.iter().filter(|agent| is_active(agent)).count();
    let reachable = seen.agents.iter().filter(|agent| agent.state == "reachable").count();
    for (name, count) in [
        ("active", active),
        ("inactive", reachable - active),
        ("connected", reachable),
        ("disconnected", 0),
        ("unreachable", seen.agents.len() - reachable),
    ] {
        put(format!("slaves_{name}"), n(count));
    }
    let connected = seen.frameworks.iter().filter(|framework| framework.connected).count();
    let away = seen.frameworks.len() - connected;
    for (name, count) in [("active", connected), ("inactive", away), ("connected", connected), ("disconnected", away)] {
        put(format!("frameworks_{name}"), n(count));
    }
    put("outstanding_offers".into(), n(seen.frameworks.iter().map(|framework| framework.n_offers).sum()));
    let mut states = BTreeMap::<&str, u64>::new();
    for framework in &seen.frameworks {
        by_state(framework, &framework.counts).into_iter().for_each(|(state, n)| *states.entry(state).or_insert(0) += n);
    }
    for (state, name) in STATES {
        put(format!("tasks_{name}"), states.get(state).copied().unwrap_or(0) as f64);
    }
    for (kind, total, used) in amounts(seen) {
        put(format!("{kind}_total"), total);
        put(format!("{kind}_used"), used);
        put(format!("{kind}_percent"), if total == 0.0 { 0.0 } else { used / total });
    }
    let ours = [
        ("tasks_live", counted.tasks_live),
        ("tasks_waiting", counted.tasks_waiting),
        ("jobs_live", counted.jobs_live),
        ("attempts_staged_total", counted.staged_total),
        ("attempts_ended_total", counted.ended_total),
        ("attempts_refused_total", counted.refused_total),
    ];
    all.extend(ours.map(|(name, count)| (format!("skep/{name}"), json!(count as f64))));
    Ok(all)
}

/// Each kind of resources, in Mesos' units: what there is, and what of it is promised.
fn amounts(seen: &Seen) -> [(&'static str, f64, f64); 4] {
    let (mut total, mut used) = (Resources::NONE, Resources::NONE);
    for agent in &seen.agents {
        total = total.checked_add(&agent.info.capacity).unwrap_or_default();
        used = used.checked_add(&agent.allocated).unwrap_or_default();
    }
    let gpus = |of: &Resources| Name::new(super::words::GPU).map_or(0.0, |gpu| of.device(&gpu) as f64 / 1_000.0);
    let mebi = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    [
        ("cpus", total.cpu_milli as f64 / 1_000.0, used.cpu_milli as f64 / 1_000.0),
        ("mem", mebi(total.memory_bytes), mebi(used.memory_bytes)),
        ("disk", mebi(total.disk_bytes), mebi(used.disk_bytes)),
        ("gpus", gpus(&total), gpus(&used)),
    ]
}
