//! How the cluster is: for people, and for programs that ask whether this process lives.

use super::access::Caller;
use super::error::{ApiError, ErrorAnswer};
use super::{Api, find};
use crate::shard::event::Level;
use crate::shard::view::{Figures, View, Viewed};
use axum::Json;
use axum::extract::State;
use serde::Serialize;
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
