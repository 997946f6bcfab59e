//! `/metrics` as JSON, in the form of Marathon's: what there is of apps and their tasks, by its names.

use super::id::AppId;
use super::wrong::Wrong;
use super::{deployments, held};
use crate::http::access::{Caller, now};
use crate::http::{Api, status};
use axum::Json;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use protocol::Phase;
use serde_json::{Map, Value, json};

/// True where a request for figures wants them so: it asks for JSON, and not for text before it.
pub fn are_wanted(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    accept.trim_start().starts_with("application/json")
}

/// The figures.
///
/// # Errors
/// `Wrong` where a shard cannot answer now.
pub async fn json(api: &Api, caller: &Caller) -> Result<Response, Wrong> {
    let all = held::within(api, caller, &AppId::root()).await?;
    let sum = |phases: &[Phase]| all.iter().map(|held| u64::from(held.count(phases))).sum::<u64>();
    let counted = status::figures(api).await?;
    let mut gauges = Map::new();
    for (name, value) in [
        ("marathon.apps.active.gauge", all.len() as u64),
        ("marathon.deployments.active.gauge", deployments::by_job(api, &all).await?.len() as u64),
        ("marathon.instances.running.gauge", sum(&[Phase::Running])),
        ("marathon.instances.staged.gauge", sum(&[Phase::Staging, Phase::Starting])),
        ("marathon.instances.waiting.gauge", sum(&[Phase::Waiting])),
        ("marathon.uptime.gauge.seconds", now().since(api.since) / 1_000),
        ("skep.agents.reachable.gauge", counted.agents_reachable),
    ] {
        gauges.insert(name.into(), json!({ "value": value }));
    }
    let mut counters = Map::new();
    for (name, value) in [("marathon.tasks.launched.counter", counted.staged_total), ("marathon.tasks.ended.counter", counted.ended_total)]
    {
        counters.insert(name.into(), json!({ "count": value }));
    }
    let none = Value::Object(Map::new());
    Ok(Json(json!({ "version": "4.0.0", "gauges": gauges, "counters": counters, "histograms": none, "meters": none, "timers": none }))
        .into_response())
}
