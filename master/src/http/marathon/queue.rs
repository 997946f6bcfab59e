//! `/v2/queue`: apps whose tasks wait, and why.

use super::held::{self, Held};
use super::id::AppId;
use super::show::{Embed, Writer};
use super::words::{Query, timestamp};
use super::wrong::Wrong;
use crate::http::access::{Caller, now};
use crate::http::{Api, explain, find};
use crate::shard::event::{JobRef, Level, Request};
use crate::shard::view::NOT_THERE;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use protocol::Phase;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Why an offer was not used, in the order in which Marathon looks (`NoOfferMatchReason.scala`).
const REASONS: [&str; 10] = [
    "UnfulfilledRole",
    "UnfulfilledConstraint",
    "NoCorrespondingReservationFound",
    "AgentMaintenance",
    "InsufficientCpus",
    "InsufficientMemory",
    "InsufficientDisk",
    "InsufficientGpus",
    "InsufficientPorts",
    "DeclinedScarceResources",
];

/// What Marathon calls that an agent is short of something.
fn reason(short: &str) -> &'static str {
    match short {
        "cpu" => "InsufficientCpus",
        "memory" => "InsufficientMemory",
        "disk" => "InsufficientDisk",
        "ports" => "InsufficientPorts",
        "unreachable" => "AgentMaintenance",
        short if short.starts_with(NOT_THERE) => "UnfulfilledConstraint",
        _ => "InsufficientGpus",
    }
}

/// Answers `GET /v2/queue`.
///
/// # Errors
/// [`Wrong`].
pub async fn list(api: &Api, caller: &Caller, query: &Query) -> Result<Response, Wrong> {
    let writer = Writer::new(api, Embed::default(), &[]).await?;
    let mut rows = vec![];
    for held in held::within(api, caller, &AppId::root()).await?.iter().filter(|held| held.count(&[Phase::Waiting]) > 0) {
        rows.push(row(api, &writer, held, query).await?);
    }
    Ok(Json(json!({ "queue": rows })).into_response())
}

async fn row(api: &Api, writer: &Writer<'_>, held: &Held, query: &Query) -> Result<Value, Wrong> {
    let (why, fit) = explain::of_job(api, &held.view, None).await?;
    let left_ms = why.retry_at.map_or(0, |at| at.since(now()));
    let mut app: Value = serde_json::from_str(&writer.text(held).await?).unwrap_or_default();
    if let Some(app) = app.as_object_mut() {
        app.remove("tasksStaged");
    }
    let mut declined: BTreeMap<&str, u32> = BTreeMap::new();
    for (short, agents) in &fit.short {
        *declined.entry(reason(short)).or_insert(0) += agents;
    }
    let mut processed = fit.agents;
    let steps: Vec<Value> = REASONS
        .iter()
        .map(|reason| {
            let n = declined.get(reason).copied().unwrap_or(0).min(processed);
            let step = json!({ "reason": reason, "declined": n, "processed": processed });
            processed -= n;
            step
        })
        .collect();
    let unused = fit.agents.saturating_sub(fit.fitting);
    let waits_for_room = why.waiting > 0;
    let at = timestamp(now());
    let mut summary = json!({
        "processedOffersCount": if waits_for_room { fit.agents } else { 0 },
        "unusedOffersCount": if waits_for_room { unused } else { 0 },
        "rejectSummaryLastOffers": steps,
        "rejectSummaryLaunchAttempt": steps,
    });
    if waits_for_room && unused > 0 {
        summary["lastUnusedOfferAt"] = at.into();
    }
    let mut row = json!({
        "app": app,
        "count": held.count(&[Phase::Waiting]),
        "delay": { "timeLeftSeconds": left_ms.div_ceil(1_000), "overdue": left_ms == 0 },
        "since": timestamp(held.view.submitted),
        "processedOffersSummary": summary,
    });
    if query.all("embed").any(|embed| embed == "lastUnusedOffers") {
        // Nobody is shown offers here: agents are counted by what they lack.
        row["lastUnusedOffers"] = json!([]);
    }
    Ok(row)
}

/// Answers `DELETE /v2/queue/{id}/delay`: what waits until its backoff is over is tried again at once.
///
/// # Errors
/// [`Wrong`].
pub async fn reset(api: &Api, caller: &Caller, id: &AppId) -> Result<Response, Wrong> {
    let held = held::app(api, caller, id).await.map_err(|_| Wrong::not_found(format!("Application {id} not found in tasks queue.")))?;
    caller.must(Level::Operator, &held.view.job.role)?;
    if held.count(&[Phase::Waiting]) == 0 {
        return Err(Wrong::not_found(format!("Application {id} not found in tasks queue.")));
    }
    find::done(api, held.view.id.shard(), Request::Retry { job: JobRef::Id(held.view.id) }).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
