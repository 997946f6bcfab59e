//! Why tasks of a system job wait, agent by agent: each of them has room on its own agent or nowhere.

use super::error::ApiError;
use super::{Api, find};
use crate::shard::event::JobRef;
use crate::shard::view::{Explanation, JobView, TaskView, View, Viewed};
use protocol::message::shard_of_agent;
use protocol::{AgentId, Kind, Phase, ShardId};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Most agents that are named.
const AGENTS_MAX: usize = 100;
/// Most of them in the sentence.
const SENTENCE_MAX: usize = 3;

/// An agent for which a task of a system job waits.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct WaitingAgentBody {
    /// The agent's id.
    pub agent: String,
    /// What people call it.
    pub name: String,
    /// Which task waits for it.
    pub task: u32,
    /// Why, for people.
    pub why: String,
}

/// The agents for which tasks of a system job wait; of one task where that was asked.
///
/// # Errors
/// An [`ApiError`] where a shard cannot answer now.
pub(super) async fn waiting(api: &Api, found: &JobView, why: &Explanation, index: Option<u32>) -> Result<Vec<WaitingAgentBody>, ApiError> {
    if found.job.kind != Kind::System || found.ended.is_some() || why.waiting + why.backing_off == 0 {
        return Ok(Vec::new());
    }
    let (from, limit) = index.map_or((0, AGENTS_MAX), |index| (index, 1));
    let view = View::Tasks { job: JobRef::Id(found.id), from, limit, phases: vec![Phase::Waiting] };
    let Viewed::Tasks(tasks) = find::view(api, found.id.shard(), view).await? else {
        return Err(ApiError::internal("a shard answered another question than it was asked"));
    };
    let tasks: Vec<(AgentId, TaskView)> = tasks
        .into_iter()
        .filter(|task| index.is_none_or(|index| index == task.index))
        .filter_map(|task| Some((task.agent?, task)))
        .collect();
    let mut by_shard: BTreeMap<ShardId, Vec<AgentId>> = BTreeMap::new();
    for (agent, _) in &tasks {
        by_shard.entry(shard_of_agent(*agent, api.door.shards())).or_default().push(*agent);
    }
    let mut rooms: BTreeMap<AgentId, (String, String)> = BTreeMap::new();
    for (shard, agents) in by_shard {
        let view = View::Rooms { role: why.role.clone(), shape: why.shape.clone(), agents };
        let Viewed::Rooms(found) = find::view(api, shard, view).await? else {
            return Err(ApiError::internal("a shard answered another question than it was asked"));
        };
        rooms.extend(found.into_iter().map(|(agent, name, why)| (agent, (name, why))));
    }
    let body = |(agent, task): &(AgentId, TaskView)| {
        let (name, room) = rooms.get(agent).cloned().unwrap_or_else(|| (agent.to_string(), "it is gone".to_owned()));
        WaitingAgentBody { agent: agent.to_string(), name, task: task.index, why: reason(task, room) }
    };
    Ok(tasks.iter().map(body).collect())
}

fn reason(task: &TaskView, room: String) -> String {
    match (task.retry_at, &task.exit) {
        (Some(_), Some(exit)) => format!("it ended and is started again in a while: {exit}"),
        (Some(_), None) => "it is started again in a while".to_owned(),
        (None, _) if room.is_empty() => "there is room: it is about to begin, or its role may hold no more".to_owned(),
        (None, _) => room,
    }
}

/// The same in one sentence; `waiting`: how many tasks wait, of which these are some.
pub(super) fn sentence(job: &JobView, waiting: u32, agents: &[WaitingAgentBody]) -> String {
    let all = job.job.count;
    if waiting == 0 {
        return match all {
            0 => "no agent matches it".to_owned(),
            _ => format!("no task of it waits: each of the {all} agents that match has its own"),
        };
    }
    let named = agents.iter().take(SENTENCE_MAX).map(|one| format!("{} ({})", one.name, one.why));
    let named: Vec<String> = named.collect();
    let more = (waiting as usize).saturating_sub(named.len());
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    format!("it waits on {waiting} of {all} agents: {}{more}", named.join(", "))
}
