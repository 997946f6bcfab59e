//! How much a master says of what it does, over HTTP: seen, and raised for a while. Of the master that is asked, and no other.

use super::Api;
use super::access::Caller;
use super::body;
use super::error::{ApiError, ErrorAnswer};
use crate::logging::{Detail, Logging, RAISED_MAX};
use crate::shard::event::Level;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;

/// How much is to be said.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LevelBody {
    /// `usual`: as the master was started; `debug`, or `trace`.
    level: String,
    /// For so long, in milliseconds, at most a day; then it is as usual again. Not with `usual`.
    for_ms: Option<u64>,
}

/// How much a master says.
#[derive(Debug, Serialize, ToSchema)]
pub struct LevelView {
    /// Which master.
    master: u16,
    /// `usual`, `debug` or `trace`.
    level: &'static str,
    /// For how long still, in milliseconds; nothing where it is as usual.
    left_ms: Option<u64>,
}

/// Says how much this master says of what it does.
#[utoipa::path(get, path = "/v1/masters/log-level", tag = "cluster",
    responses((status = 200, body = LevelView), (status = 403, body = ErrorAnswer), (status = 501, body = ErrorAnswer)))]
pub async fn show(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<LevelView>, ApiError> {
    caller.must_level(Level::Operator)?;
    Ok(Json(view(&api, of(&api)?)))
}

/// Has this master say more of what it does for a while, or no more than usual.
#[utoipa::path(put, path = "/v1/masters/log-level", tag = "cluster", request_body = LevelBody,
    responses((status = 200, body = LevelView), (status = 400, body = ErrorAnswer), (status = 403, body = ErrorAnswer), (status = 501, body = ErrorAnswer)))]
pub async fn set(State(api): State<Arc<Api>>, caller: Caller, headers: HeaderMap, body: Body) -> Result<Json<LevelView>, ApiError> {
    caller.must_for_all(Level::Operator)?;
    let text = body::whole(&headers, body).await?;
    let LevelBody { level, for_ms } = serde_json::from_slice(&text).map_err(|error| ApiError::invalid("body", error.to_string()))?;
    let detail = match level.as_str() {
        "usual" => Detail::Usual,
        "debug" => Detail::Debug,
        "trace" => Detail::Trace,
        other => return Err(ApiError::invalid("level", format!("{other:?} is no level: usual, debug or trace"))),
    };
    let within = match (detail, for_ms) {
        (Detail::Usual, None) => Duration::ZERO,
        (Detail::Usual, Some(_)) => return Err(ApiError::invalid("for_ms", "what is usual is so until it is changed")),
        (_, None) => return Err(ApiError::invalid("for_ms", "for how long, in milliseconds, is to be said")),
        (_, Some(ms)) => duration(ms, "for_ms")?,
    };
    change(&api, &caller, detail, within)?;
    Ok(Json(view(&api, of(&api)?)))
}

/// So many milliseconds, where that is a time for which more may be said.
pub(super) fn duration(ms: u64, field: &str) -> Result<Duration, ApiError> {
    let within = Duration::from_millis(ms);
    match within.is_zero() || within > RAISED_MAX {
        true => Err(ApiError::invalid(field, format!("{ms} ms: more is said for 1 ms to {} ms, a day", RAISED_MAX.as_millis()))),
        false => Ok(within),
    }
}

/// Has so much said.
pub(super) fn change(api: &Api, caller: &Caller, detail: Detail, within: Duration) -> Result<(), ApiError> {
    of(api)?.set(detail, within).map_err(ApiError::internal)?;
    tracing::warn!(level = text(detail), for_ms = within.as_millis(), token = %caller.token, "how much is said was changed");
    Ok(())
}

/// What says how much is said.
pub(super) fn of(api: &Api) -> Result<&Logging, ApiError> {
    api.logging.as_ref().ok_or_else(|| ApiError::not_implemented("what this process says cannot be changed"))
}

fn view(api: &Api, logging: &Logging) -> LevelView {
    let (detail, left) = logging.now();
    let left_ms = left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
    LevelView { master: api.door.peers().own().number, level: text(detail), left_ms }
}

const fn text(detail: Detail) -> &'static str {
    match detail {
        Detail::Usual => "usual",
        Detail::Debug => "debug",
        Detail::Trace => "trace",
    }
}
