//! What changes of jobs, as events of apps: whose app a job is, where its tasks are and at which ports.

use super::deployments;
use super::events;
use super::health::is_asked;
use super::held::{self, Agents, Held};
use super::id::task_id;
use super::job;
use super::steps::{Deployment, Step, is_active, mark_of};
use super::tasks::state_text;
use super::words::timestamp;
use super::wrong::Wrong;
use crate::http::access::now;
use crate::http::{Api, find};
use crate::shard::deployment_view::DeploymentView;
use crate::shard::event::{Change, JobRef};
use crate::shard::view::{PAGE_MAX, TaskView, View, Viewed};
use protocol::task::Placed;
use protocol::{AgentId, AttemptId, Exit, JobId, Phase};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// Most jobs of which it is kept that they are no apps.
const OTHERS_MAX: usize = 65_536;
/// Most attempts of which it is kept that they are not well.
const UNWELL_MAX: usize = 65_536;

/// What was found out so far.
#[derive(Debug, Default)]
pub struct Follow {
    /// Jobs that are no apps.
    others: BTreeSet<JobId>,
    /// Attempts that were said not to be well, at most [`UNWELL_MAX`].
    unwell: BTreeSet<AttemptId>,
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
            Change::Deployment { view, what } if !self.others.contains(&view.job()) => self.deployment(api, view, what).await?,
            Change::Health { job, health, found, .. } if events::is_heard(api) && !self.others.contains(job) => {
                self.health(api, *job, health, found).await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The app that a job is; one that is none is not looked at again.
    async fn held(&mut self, api: &Api, job: JobId) -> Result<Option<Held>, Wrong> {
        let found = find::viewed(api, job.shard(), JobRef::Id(job)).await?.and_then(Held::of);
        if found.is_none() {
            if self.others.len() >= OTHERS_MAX {
                self.others.clear();
            }
            self.others.insert(job);
        }
        Ok(found)
    }

    /// Tells how a service goes on that others set on its way; of what was asked here, and of what several apps do together, it is told where that is done.
    async fn deployment(&mut self, api: &Api, view: &DeploymentView, what: &str) -> Result<(), Wrong> {
        let known = &api.marathon.deployments;
        let is_given_up = ["failed", "cancelled"].contains(&what);
        if known.is_own(view.id) {
            if is_given_up && let Some(deployment) = known.take(view.id) {
                events::failed(api, &deployment);
            }
            return Ok(());
        }
        if !events::is_heard(api) {
            return Ok(());
        }
        let Some(held) = self.held(api, view.job()).await? else { return Ok(()) };
        if !is_given_up && api.marathon.changing().contains_key(&held.id) {
            return Ok(());
        }
        let deployment = match mark_of(view, &held) {
            Some(mark) if is_active(view) => {
                deployments::adopt(api, &mark, Step::of(view, &held));
                return Ok(());
            }
            Some(_) if !is_given_up => return Ok(()),
            Some(mark) => Deployment::marked(&mark, Step::of(view, &held)),
            None => Deployment::of(view, &held),
        };
        match what {
            "started" => events::begun(api, &deployment),
            "step" => events::stepped(api, &deployment),
            "done" => events::succeeded(api, &deployment),
            _ if is_given_up => events::failed(api, &deployment),
            _ => {}
        }
        Ok(())
    }

    /// Tells whether tasks of an app are well, each time that is another.
    async fn health(&mut self, api: &Api, job: JobId, health: &str, found: &[(Placed, String)]) -> Result<(), Wrong> {
        let alive = match health {
            "healthy" => true,
            "unhealthy" => false,
            _ => return Ok(()),
        };
        let Some(held) = self.held(api, job).await?.filter(is_asked) else { return Ok(()) };
        let (version, prefix) = (job::version(&held.fields()).to_owned(), held.id.task_prefix());
        for (Placed { attempt, .. }, _) in found {
            // What is not well for another reason is as unwell as before.
            let is_news = if alive {
                self.unwell.remove(attempt);
                true
            } else {
                self.unwell.insert(*attempt)
            };
            if self.unwell.len() > UNWELL_MAX {
                self.unwell.pop_first();
            }
            if is_news {
                let id = task_id(&prefix, *attempt);
                let body = json!({ "appId": held.id.as_str(), "instanceId": id, "taskId": id, "version": version, "alive": alive });
                events::health(api, &held, body);
            }
        }
        Ok(())
    }

    async fn tell(&mut self, api: &Api, job: JobId, phase: Phase, placed: &[Placed]) -> Result<(), Wrong> {
        let Some(held) = self.held(api, job).await? else { return Ok(()) };
        if placed.iter().any(|placed| !self.agents.contains_key(&placed.agent)) {
            self.agents = held::agents(api).await?;
        }
        let asks = is_asked(&held);
        let is_looked = phase == Phase::Running || phase == Phase::Failed && asks;
        let tasks = if is_looked { tasks_of(api, job, placed).await? } else { BTreeMap::new() };
        let version = job::version(&held.fields()).to_owned();
        let prefix = held.id.task_prefix();
        for Placed { attempt, agent } in placed {
            let task = tasks.get(&attempt.task.index).filter(|task| task.attempt == attempt.number);
            let (id, host) = (task_id(&prefix, *attempt), self.host(*agent));
            self.unwell.remove(attempt);
            if let Some(Exit::Unhealthy { reason }) = task.and_then(|task| task.exit.as_ref()).filter(|_| phase == Phase::Failed) {
                let body = json!({
                    "appId": held.id.as_str(), "taskId": id, "instanceId": id, "version": version, "reason": reason, "host": host,
                    "slaveId": agent.to_string(), "timestamp": timestamp(now()),
                });
                events::unhealthy(api, &held, body);
            }
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
async fn tasks_of(api: &Api, job: JobId, placed: &[Placed]) -> Result<BTreeMap<u32, TaskView>, Wrong> {
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
