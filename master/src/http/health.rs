//! Whether tasks are well, put beside how they stand: asked of the shards of jobs with checks, and of no others.

use super::error::ApiError;
use super::jobs_json::{JobRow, TaskBody};
use super::{Api, find};
use crate::shard::event::JobRef;
use crate::shard::healths::verdict_text;
use crate::shard::view::{HealthCounts, HealthView, JobView, View, Viewed};
use protocol::{JobId, ShardId};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// How many tasks of a job run and have checks, by what is known of those.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct HealthCountsBody {
    /// All of them succeed.
    pub healthy: u32,
    /// Some have not succeeded yet, or nothing is known yet.
    pub unready: u32,
    /// Some fail.
    pub unhealthy: u32,
}

/// Whether a task is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TaskHealthBody {
    /// `healthy`; `unready`, where a check has not succeeded yet or nothing is known yet; or `unhealthy`, where one fails.
    pub state: &'static str,
    /// Why not, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl From<HealthCounts> for HealthCountsBody {
    fn from(counts: HealthCounts) -> Self {
        Self { healthy: counts.healthy, unready: counts.unready, unhealthy: counts.unhealthy }
    }
}

impl From<&HealthView> for TaskHealthBody {
    fn from(view: &HealthView) -> Self {
        let reason = (!view.reason.is_empty()).then(|| view.reason.clone());
        Self { state: verdict_text(view.verdict), reason }
    }
}

/// The rows of these jobs.
///
/// # Errors
/// An [`ApiError`] where a shard cannot answer now.
pub async fn rows(api: &Api, views: &[&JobView]) -> Result<Vec<JobRow>, ApiError> {
    let mut asked: BTreeMap<ShardId, Vec<JobId>> = BTreeMap::new();
    for view in views.iter().filter(|view| view.ended.is_none() && view.job.template.has_checks()) {
        asked.entry(view.id.shard()).or_default().push(view.id);
    }
    let mut counts: BTreeMap<JobId, HealthCounts> = BTreeMap::new();
    for (shard, jobs) in asked {
        let Viewed::HealthCounts(found) = find::view(api, shard, View::HealthCounts { jobs }).await? else { return Err(strange()) };
        counts.extend(found);
    }
    let row = |view: &&JobView| JobRow { health: counts.get(&view.id).copied().map(HealthCountsBody::from), ..JobRow::from(*view) };
    Ok(views.iter().map(row).collect())
}

/// Puts beside tasks of one job, which are sorted by index, whether they are well.
///
/// # Errors
/// As [`rows`].
pub async fn beside(api: &Api, view: &JobView, tasks: &mut [TaskBody]) -> Result<(), ApiError> {
    if tasks.is_empty() || view.ended.is_some() || !view.job.template.has_checks() {
        return Ok(());
    }
    let asked = View::Healths { job: JobRef::Id(view.id), indexes: tasks.iter().map(|task| task.index).collect() };
    let Viewed::Healths(found) = find::view(api, view.id.shard(), asked).await? else { return Err(strange()) };
    for (index, health) in &found {
        if let Ok(at) = tasks.binary_search_by_key(index, |task| task.index) {
            tasks[at].health = Some(health.into());
        }
    }
    Ok(())
}

fn strange() -> ApiError {
    ApiError::internal("a shard answered another question than it was asked")
}
