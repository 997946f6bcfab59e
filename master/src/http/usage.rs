//! What running tasks use at this moment, asked of their agents: nobody measures while nobody looks.

use super::access::Caller;
use super::error::{ApiError, ErrorAnswer};
use super::{Api, find};
use crate::shard::event::Level;
use crate::shard::view::{View, Viewed};
use axum::Json;
use axum::extract::State;
use futures::StreamExt as _;
use protocol::link::Connection;
use protocol::message::{BulkReply, BulkRequest, UsageReport};
use protocol::{AgentId, JobId, Role};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;

/// Agents that are asked at the same time.
const AGENTS_AT_ONCE_MAX: usize = 64;
/// How long one may take; those that take longer are left out.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Most rows of an answer, of each sort.
const ROWS_MAX: usize = 10_000;

/// What one task uses.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TaskUsageRow {
    /// `JOB.INDEX`, the job by its id.
    pub task: String,
    /// The job, by its name or id.
    pub job: String,
    /// Its place among the members of a group, from 0.
    pub member: u8,
    /// Its agent's name.
    pub agent: String,
    /// Processor time since its start, in microseconds; of wasm that is metered by fuel without its first turn of about 0.1 ms.
    pub cpu_us: u64,
    /// Bytes of memory now, without the file cache; of wasm its linear memories.
    pub memory_bytes: u64,
    /// Processes and threads now; null: it is wasm, and runs in its executor's.
    pub processes: Option<u64>,
}

/// What all wasm tasks of a role on an agent use together: their executor.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ExecutorUsageRow {
    /// Whose tasks it runs.
    pub role: String,
    /// Its agent's name.
    pub agent: String,
    /// Processor time since its start, in microseconds.
    pub cpu_us: u64,
    /// Bytes of memory now.
    pub memory_bytes: u64,
}

/// What runs, and what it uses.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct UsagePage {
    /// Tasks; of very many wasm tasks of one executor those that use most.
    pub tasks: Vec<TaskUsageRow>,
    /// Executors of wasm tasks.
    pub executors: Vec<ExecutorUsageRow>,
    /// Agents that did not answer in time, by name.
    pub silent: Vec<String>,
}

/// Tells what running tasks use now.
#[utoipa::path(get, path = "/v1/usage", tag = "jobs", responses((status = 200, body = UsagePage), (status = 403, body = ErrorAnswer)))]
pub async fn usage(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<UsagePage>, ApiError> {
    caller.must_level(Level::Viewer)?;
    let mut agents: Vec<(AgentId, String)> = vec![];
    for viewed in find::view_all(&api, View::Agents).await? {
        if let Viewed::Agents(found) = viewed {
            agents.extend(found.into_iter().map(|agent| (agent.id, agent.info.name)));
        }
    }
    let connected = agents.into_iter().filter_map(|(id, name)| Some((name, api.door.agent_connection(id)?)));
    let answers = futures::stream::iter(connected).map(|(name, connection)| async move {
        let asked = tokio::time::timeout(ANSWER_WITHIN, ask(&connection)).await;
        (name, asked.ok().flatten())
    });
    let answers: Vec<_> = answers.buffer_unordered(AGENTS_AT_ONCE_MAX).collect().await;
    let names = names(&api).await?;
    let sees = |role: &Role| caller.covers(std::slice::from_ref(role));
    let mut page = UsagePage::default();
    for (agent, answer) in answers {
        let Some(UsageReport { tasks, executors }) = answer else {
            page.silent.push(agent);
            continue;
        };
        for task in tasks {
            let id = task.member.attempt.task.job;
            // An agent tells of its own tasks only; of a job that nobody knows nobody can say whose it is.
            let Some((job, _)) = names.get(&id).filter(|(_, role)| sees(role)) else { continue };
            page.tasks.push(TaskUsageRow {
                task: format!("{id}.{}", task.member.attempt.task.index),
                job: job.clone(),
                member: task.member.member,
                agent: agent.clone(),
                cpu_us: task.cpu_us,
                memory_bytes: task.memory_bytes,
                processes: task.processes,
            });
        }
        for executor in executors.into_iter().filter(|executor| sees(&executor.role)) {
            let (cpu_us, memory_bytes) = (executor.cpu_us, executor.memory_bytes);
            page.executors.push(ExecutorUsageRow { role: executor.role.to_string(), agent: agent.clone(), cpu_us, memory_bytes });
        }
    }
    page.tasks.truncate(ROWS_MAX);
    page.executors.truncate(ROWS_MAX);
    Ok(Json(page))
}

/// What people call jobs that run, and their roles.
async fn names(api: &Api) -> Result<BTreeMap<JobId, (String, Role)>, ApiError> {
    let mut names = BTreeMap::new();
    for viewed in find::view_all(api, View::Jobs { role: None, after: None, limit: ROWS_MAX, ended: false }).await? {
        if let Viewed::Jobs(jobs) = viewed {
            let named = |view: crate::shard::view::JobView| {
                let name = view.job.name.as_ref().map_or_else(|| view.id.to_string(), ToString::to_string);
                (view.id, (name, view.job.role))
            };
            names.extend(jobs.into_iter().map(named));
        }
    }
    Ok(names)
}

/// `None`: it does not answer, or not with what was asked.
async fn ask(connection: &Connection) -> Option<UsageReport> {
    let (mut sender, mut receiver) = connection.open_bulk().await.ok()?;
    sender.send(&BulkRequest::Usage).await.ok()?;
    let mut all = UsageReport::default();
    loop {
        match receiver.next::<BulkReply>().await.ok()?? {
            BulkReply::Chunk { bytes, .. } => {
                let part: UsageReport = postcard::from_bytes(&bytes).ok()?;
                all.tasks.extend(part.tasks);
                all.executors.extend(part.executors);
                if all.tasks.len() > ROWS_MAX || all.executors.len() > ROWS_MAX {
                    return Some(all);
                }
            }
            BulkReply::End => return Some(all),
            BulkReply::Failed { .. } => return None,
        }
    }
}
