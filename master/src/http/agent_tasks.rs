//! The tasks that an agent has: which they are says the agent's shard, how they are the shards of their jobs.

use super::access::Caller;
use super::body::{self, Asked};
use super::error::{ApiError, ErrorAnswer};
use super::gate::Segment;
use super::jobs_json::TaskBody;
use super::{Api, find};
use crate::shard::event::{JobRef, Level, Refusal, Request, Response};
use crate::shard::view::{View, Viewed};
use axum::Json;
use axum::extract::State;
use futures::future::try_join_all;
use protocol::message::shard_of_agent;
use protocol::{AgentId, AttemptId, JobId, Role};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Rows of a page, at most and where nobody says: each is asked for by itself.
const PAGE: usize = 100;
/// The version of the messages from which on masters know whose an agent's attempts are.
const SINCE: u16 = 3;

/// A task that is on an agent.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AgentTaskRow {
    /// What people call its job.
    pub title: String,
    /// Its job's id.
    pub job: String,
    /// Its role.
    pub role: String,
    /// How it is.
    #[serde(flatten)]
    pub task: TaskBody,
}

/// Tasks that are on an agent.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AgentTasksPage {
    /// By id, of the roles that the caller may see.
    pub tasks: Vec<AgentTaskRow>,
    /// How many attempts are promised on it, of all roles.
    pub total: usize,
}

/// Which of them.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AgentTasksQuery {
    /// Without the first so many.
    #[serde(default)]
    pub skip: usize,
    /// At most so many, 1 to 100; 100 where it is not said.
    pub limit: Option<usize>,
}

/// Lists the tasks that are on an agent.
#[utoipa::path(get, path = "/v1/agents/{id}/tasks", tag = "agents", params(("id" = String, Path, description = "an agent's id"), AgentTasksQuery),
    responses((status = 200, body = AgentTasksPage), (status = 404, body = ErrorAnswer)))]
pub async fn tasks(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(id): Segment,
    Asked(query): Asked<AgentTasksQuery>,
) -> Result<Json<AgentTasksPage>, ApiError> {
    caller.must_level(Level::Viewer)?;
    let agent: AgentId = body::parsed("id", &id)?;
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=PAGE).contains(&limit) {
        return Err(ApiError::invalid("limit", format!("a page has 1 to {PAGE} rows")));
    }
    if !api.door.peers().all_speak(SINCE) {
        return Err(ApiError::conflict("a master is of an earlier version, which does not tell this: upgrade all of them first"));
    }
    let view = View::Attempts { agent };
    let Viewed::Attempts(attempts) = find::view(&api, shard_of_agent(agent, api.door.shards()), view).await? else {
        return Err(ApiError::internal("a shard answered another question than it was asked"));
    };
    let page: Vec<AttemptId> = attempts.iter().skip(query.skip).take(limit).copied().collect();
    let jobs = jobs(&api, &page).await?;
    let mut asked = vec![];
    for attempt in page {
        if let Some((title, role)) = jobs.get(&attempt.task.job).filter(|(_, role)| caller.sees(role)) {
            asked.push(row(&api, attempt, title.clone(), role.clone()));
        }
    }
    let rows = try_join_all(asked).await?;
    Ok(Json(AgentTasksPage { tasks: rows.into_iter().flatten().collect(), total: attempts.len() }))
}

/// What people call the jobs of these, and their roles; those that are gone meanwhile are left out.
async fn jobs(api: &Api, attempts: &[AttemptId]) -> Result<BTreeMap<JobId, (String, Role)>, ApiError> {
    let mut ids: Vec<JobId> = attempts.iter().map(|attempt| attempt.task.job).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut asked = vec![];
    for id in ids {
        asked.push(known(api, id, View::Job(JobRef::Id(id))));
    }
    let mut jobs = BTreeMap::new();
    for viewed in try_join_all(asked).await? {
        if let Some(Viewed::Job(view)) = viewed {
            let title = view.job.name.as_ref().map_or_else(|| view.id.to_string(), ToString::to_string);
            jobs.insert(view.id, (title, view.job.role));
        }
    }
    Ok(jobs)
}

async fn row(api: &Api, attempt: AttemptId, title: String, role: Role) -> Result<Option<AgentTaskRow>, ApiError> {
    let (id, index) = (attempt.task.job, attempt.task.index);
    let view = View::Tasks { job: JobRef::Id(id), from: index, limit: 1, phases: vec![] };
    let Some(Viewed::Tasks(tasks)) = known(api, id, view).await? else { return Ok(None) };
    // What is replaced by another attempt is not on this agent any more, or not for long.
    let Some(task) = tasks.first().filter(|task| task.index == index && task.attempt == attempt.number) else { return Ok(None) };
    Ok(Some(AgentTaskRow { title, job: id.to_string(), role: role.to_string(), task: TaskBody::new(id, task) }))
}

/// What a job's shard shows; `None` where there is no such job, or no such shard: what agents report may be of none.
async fn known(api: &Api, id: JobId, view: View) -> Result<Option<Viewed>, ApiError> {
    if id.shard().0 >= api.door.shards() {
        return Ok(None);
    }
    match api.door.ask(id.shard(), Request::View(view)).await? {
        Response::Viewed(viewed) => Ok(Some(*viewed)),
        Response::Refused(Refusal::NotFound { .. }) => Ok(None),
        other => Err(super::error::unexpected(&other)),
    }
}
