//! What changes of jobs, as events of apps: whose app a job is, where its tasks are and at which ports.

use super::events;
use super::held::{self, Agents, Held};
use super::id::task_id;
use super::job;
use super::tasks::state_text;
use super::words::timestamp;
use super::wrong::Wrong;
use crate::http::access::now;
use crate::http::{Api, find};
use crate::shard::event::{Change, JobRef};
use crate::shard::view::{PAGE_MAX, TaskView, View, Viewed};
use protocol::task::Placed;
use protocol::{AgentId, JobId, Phase};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// Most jobs of which it is kept that they are no apps.
const OTHERS_MAX: usize = 65_536;

/// What was found out so far.
#[derive(Debug, Default)]
pub struct Follow {
    /// Jobs that are no apps.
    others: BTreeSet<JobId>,
    agents: Agents,
}

impl Follow {
    /// Tells those who listen what a change is, where it is one of an app.
    ///
    /// # Errors
    /// [`Wrong`] where a shard cannot answer now.
    pub async fn hear(&mut self, api: &Api, change: &Change) -> Result<(), Wrong> {
        match change {
            // By a new version it may have become one.
            Change::Job { job, .. } => drop(self.others.remove(job)),
            Change::Tasks { job, phase, placed, .. } if events::is_heard(api) && !self.others.contains(job) => {
                self.tell(api, *job, *phase, placed).await?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn tell(&mut self, api: &Api, job: JobId, phase: Phase, placed: &[Placed]) -> Result<(), Wrong> {
        let found = find::viewed(api, job.shard(), JobRef::Id(job)).await?.and_then(Held::of);
        let Some(held) = found else {
            if self.others.len() >= OTHERS_MAX {
                self.others.clear();
            }
            self.others.insert(job);
            return Ok(());
        };
        if placed.iter().any(|placed| !self.agents.contains_key(&placed.agent)) {
            self.agents = held::agents(api).await?;
        }
        let tasks = if phase == Phase::Running { ports(api, job, placed).await? } else { BTreeMap::new() };
        let version = job::version(&held.fields()).to_owned();
        let prefix = held.id.task_prefix();
        for Placed { attempt, agent } in placed {
            let task = tasks.get(&attempt.task.index).filter(|task| task.attempt == attempt.number);
            let (id, host) = (task_id(&prefix, *attempt), self.host(*agent));
            let ports = task.map(|task| task.ports.clone()).unwrap_or_default();
            let body = json!({
                "slaveId": agent.to_string(), "taskId": id, "taskStatus": state_text(phase), "message": "", "appId": held.id.as_str(),
                "host": host, "ipAddresses": [], "ports": ports, "version": version,
            });
            events::task(api, &held, body);
            let body = json!({
                "instanceId": id, "condition": condition(phase), "runSpecId": held.id.as_str(), "agentId": agent.to_string(), "host": host,
                "runSpecVersion": version, "timestamp": timestamp(now()),
            });
            events::instance(api, &held, body);
        }
        Ok(())
    }

    fn host(&self, agent: AgentId) -> String {
        self.agents.get(&agent).map_or_else(|| agent.to_string(), |view| view.info.name.clone())
    }
}

/// The tasks of these attempts, by index.
async fn ports(api: &Api, job: JobId, placed: &[Placed]) -> Result<BTreeMap<u32, TaskView>, Wrong> {
    let wanted: BTreeSet<u32> = placed.iter().map(|placed| placed.attempt.task.index).collect();
    let (Some(mut from), Some(last)) = (wanted.first().copied(), wanted.last().copied()) else { return Ok(BTreeMap::new()) };
    let mut found = BTreeMap::new();
    while from <= last {
        let limit = usize::try_from(last - from).unwrap_or(PAGE_MAX).saturating_add(1).min(PAGE_MAX);
        let view = View::Tasks { job: JobRef::Id(job), from, limit, phases: vec![] };
        let Viewed::Tasks(page) = find::view(api, job.shard(), view).await? else { break };
        let Some(next) = page.last().and_then(|task| task.index.checked_add(1)) else { break };
        found.extend(page.into_iter().filter(|task| wanted.contains(&task.index)).map(|task| (task.index, task)));
        from = next;
    }
    Ok(found)
}

/// A state by the name that Marathon has for that of an instance.
const fn condition(phase: Phase) -> &'static str {
    match phase {
        Phase::Waiting => "Scheduled",
        Phase::Staging => "Staging",
        Phase::Starting => "Starting",
        Phase::Running => "Running",
        Phase::Killing => "Killing",
        Phase::Unreachable => "Unreachable",
        Phase::Finished => "Finished",
        Phase::Failed => "Failed",
        Phase::Killed => "Killed",
        Phase::Rejected => "Error",
        Phase::Lost => "Dropped",
    }
}
