//! How the cluster is: for people, for programs that ask whether this process lives, and for Prometheus.

use super::access::Caller;
use super::error::{ApiError, ErrorAnswer};
use super::policies::{self, PolicyRow};
use super::{Api, find, marathon};
use crate::shard::event::Level;
use crate::shard::view::{Figures, View, Viewed};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::fmt::Write as _;
use std::sync::Arc;
use utoipa::ToSchema;

/// How the cluster is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StatusBody {
    /// The cluster's name.
    pub cluster: String,
    /// The version of this master's binary.
    pub version: &'static str,
    /// How many shards decide.
    pub shards: u16,
    /// Why nothing is decided here any more, where that is so.
    pub stopped: Option<String>,
    /// Counts of all shards together.
    pub figures: FiguresBody,
}

/// Counts.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct FiguresBody {
    /// Jobs that have not ended.
    pub jobs_live: u64,
    /// Jobs that have, and are kept.
    pub jobs_ended: u64,
    /// Tasks that wait.
    pub tasks_waiting: u64,
    /// Tasks that are on an agent.
    pub tasks_live: u64,
    /// Tasks that have ended, and are kept.
    pub tasks_ended: u64,
    /// Agents that can be reached.
    pub agents_reachable: u64,
    /// Agents that cannot.
    pub agents_unreachable: u64,
    /// Offers that are out.
    pub offers: u64,
    /// Attempts staged since the master's start.
    pub staged_total: u64,
    /// Attempts ended since the master's start.
    pub ended_total: u64,
    /// Attempts that agents refused since the master's start.
    pub refused_total: u64,
}

/// That this process answers.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct HealthBody {
    /// False where nothing is decided here any more.
    pub deciding: bool,
}

/// Says how the cluster is.
#[utoipa::path(get, path = "/v1/status", tag = "cluster", responses((status = 200, body = StatusBody), (status = 401, body = ErrorAnswer)))]
pub async fn status(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<StatusBody>, ApiError> {
    caller.must_level(Level::Viewer)?;
    let stopped = api.door.stopped().map(str::to_owned);
    let figures = match stopped {
        Some(_) => FiguresBody::default(),
        None => figures(&api).await?,
    };
    let shards = api.door.shards();
    Ok(Json(StatusBody { cluster: api.cluster.clone(), version: env!("CARGO_PKG_VERSION"), shards, stopped, figures }))
}

/// Says that this process answers; needs no token.
#[utoipa::path(get, path = "/v1/health", tag = "cluster", security(()), responses((status = 200, body = HealthBody)))]
pub async fn health(State(api): State<Arc<Api>>) -> Json<HealthBody> {
    Json(HealthBody { deciding: api.door.stopped().is_none() })
}

/// The same counts as Prometheus reads them; who asks for JSON is told what Marathon tells.
#[utoipa::path(get, path = "/metrics", tag = "cluster", responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn metrics(State(api): State<Arc<Api>>, caller: Caller, headers: HeaderMap) -> Result<Response, ApiError> {
    caller.must_level(Level::Viewer)?;
    if marathon::figures::are_wanted(&headers) {
        return Ok(marathon::figures::json(&api, &caller).await.into_response());
    }
    let (figures, policies) = (figures(&api).await?, policies::rows(&api).await?);
    let text = prometheus(&figures) + &of_policies(&policies.policies);
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

/// Counts of all shards together.
///
/// # Errors
/// That a shard does not answer.
pub async fn figures(api: &Api) -> Result<FiguresBody, ApiError> {
    let mut sum = FiguresBody::default();
    for viewed in find::view_all(api, View::Figures).await? {
        if let Viewed::Figures(figures) = viewed {
            sum.add(&figures);
        }
    }
    Ok(sum)
}

impl FiguresBody {
    fn add(&mut self, more: &Figures) {
        self.jobs_live += more.jobs_live;
        self.jobs_ended += more.jobs_ended;
        self.tasks_waiting += more.tasks_waiting;
        self.tasks_live += more.tasks_live;
        self.tasks_ended += more.tasks_ended;
        self.agents_reachable += more.agents_reachable;
        self.agents_unreachable += more.agents_unreachable;
        self.offers += more.offers;
        self.staged_total += more.staged_total;
        self.ended_total += more.ended_total;
        self.refused_total += more.refused_total;
    }
}

/// Text of Prometheus' exposition format 0.0.4.
fn prometheus(figures: &FiguresBody) -> String {
    let rows = [
        ("skep_jobs_live", "gauge", figures.jobs_live),
        ("skep_jobs_ended", "gauge", figures.jobs_ended),
        ("skep_tasks_waiting", "gauge", figures.tasks_waiting),
        ("skep_tasks_live", "gauge", figures.tasks_live),
        ("skep_tasks_ended", "gauge", figures.tasks_ended),
        ("skep_agents_reachable", "gauge", figures.agents_reachable),
        ("skep_agents_unreachable", "gauge", figures.agents_unreachable),
        ("skep_offers", "gauge", figures.offers),
        ("skep_attempts_staged_total", "counter", figures.staged_total),
        ("skep_attempts_ended_total", "counter", figures.ended_total),
        ("skep_attempts_refused_total", "counter", figures.refused_total),
    ];
    let mut text = String::new();
    for (name, kind, value) in rows {
        writeln!(text, "# TYPE {name} {kind}\n{name} {value}").expect("memory does not fail to be written");
    }
    text
}

/// The same of policies: how often each was asked and had no right answer, and at how many places it is put aside.
fn of_policies(policies: &[PolicyRow]) -> String {
    let mut text = String::new();
    type Value = fn(&PolicyRow) -> u64;
    let figures: [(&str, &str, Value); 3] = [
        ("skep_policy_calls_total", "counter", |row| row.calls),
        ("skep_policy_failures_total", "counter", |row| row.failures),
        ("skep_policy_aside", "gauge", |row| u64::from(row.aside)),
    ];
    for (name, kind, value) in figures.into_iter().filter(|_| !policies.is_empty()) {
        writeln!(text, "# TYPE {name} {kind}").expect("memory does not fail to be written");
        for row in policies {
            // Neither has a character that would have to be escaped. No role: all of which nothing else is said.
            let (of, role, value) = (row.kind, row.role.as_deref().unwrap_or(""), value(row));
            writeln!(text, "{name}{{kind=\"{of}\",role=\"{role}\"}} {value}").expect("memory does not fail to be written");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_counted_by_kind_and_role() {
        let row = |kind, role: Option<&str>, calls| PolicyRow {
            kind,
            role: role.map(str::to_owned),
            bundle: String::new(),
            closed: false,
            since_ms: 0,
            missing: None,
            calls,
            failures: 1,
            last_failure: None,
            aside: 0,
        };
        let text = of_policies(&[row("score", None, 7), row("admission", Some("web/shop"), 9)]);
        let calls = "# TYPE skep_policy_calls_total counter\nskep_policy_calls_total{kind=\"score\",role=\"\"} 7\n\
                     skep_policy_calls_total{kind=\"admission\",role=\"web/shop\"} 9\n";
        assert!(text.starts_with(calls), "{text}");
        assert_eq!((text.matches("# TYPE").count(), of_policies(&[]).as_str()), (3, ""));
    }
}
