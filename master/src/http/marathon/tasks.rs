//! Tasks of apps: listed, for people and for balancers, and ended.

use super::change::{Begun, Change, What, carry_out};
use super::held::{self, Agents, Held};
use super::id::{AppId, attempt, task_id};
use super::words::{Query, timestamp};
use super::wrong::{Fault, Wrong};
use super::{apps, health, job, ports, versions};
use crate::http::access::{Caller, now};
use crate::http::error::ApiError;
use crate::http::{Api, find};
use crate::shard::event::{JobRef, Level, Request};
use crate::shard::view::{HealthView, PAGE_MAX, TaskView, View, Viewed};
use axum::Json;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use protocol::task::Verdict;
use protocol::{AttemptId, Exit, Phase, Time};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Most tasks that one request ends.
const IDS_MAX: usize = 10_000;

/// True where a task is on an agent.
pub const fn is_live(phase: Phase) -> bool {
    matches!(phase, Phase::Staging | Phase::Starting | Phase::Running | Phase::Killing | Phase::Unreachable)
}

/// The tasks of an app, in one of these states or in any.
///
/// # Errors
/// An [`ApiError`] where its shard cannot answer now.
pub async fn of(api: &Api, held: &Held, phases: &[Phase]) -> Result<Vec<TaskView>, ApiError> {
    let (mut all, mut from) = (vec![], 0);
    loop {
        let view = View::Tasks { job: JobRef::Id(held.view.id), from, limit: PAGE_MAX, phases: phases.to_vec() };
        let Viewed::Tasks(page) = find::view(api, held.view.id.shard(), view).await? else {
            return Err(ApiError::internal("a shard answered another question than it was asked"));
        };
        let n = page.len();
        let next = page.last().and_then(|task| task.index.checked_add(1));
        all.extend(page);
        match next {
            Some(next) if n == PAGE_MAX => from = next,
            _ => return Ok(all),
        }
    }
}

/// Tasks of an app as clients see them.
#[derive(Debug)]
pub struct Shown<'a> {
    held: &'a Held,
    agents: &'a Agents,
    prefix: String,
    version: String,
    services: Vec<u16>,
    /// What earlier versions are called, by number, where tasks are of some.
    earlier: BTreeMap<u32, String>,
    /// True where the app asks whether its tasks are well.
    asks: bool,
    /// Whether tasks are well, by index.
    healths: BTreeMap<u32, HealthView>,
}

impl<'a> Shown<'a> {
    /// Those of this app, of which nothing but what they say themselves is shown.
    pub fn new(held: &'a Held, agents: &'a Agents) -> Self {
        let fields = held.fields();
        let services = ports::of(&fields).iter().map(|port| port.service).collect();
        let version = job::version(&fields).to_owned();
        let (earlier, healths) = (BTreeMap::new(), BTreeMap::new());
        Self { held, agents, prefix: held.id.task_prefix(), version, services, earlier, asks: health::is_asked(held), healths }
    }

    /// The same with what is known elsewhere of these tasks: what their versions are called, and whether they are well.
    ///
    /// # Errors
    /// An [`ApiError`] where the app's shard cannot answer now.
    pub async fn look(mut self, api: &Api, tasks: &[TaskView]) -> Result<Self, ApiError> {
        if tasks.iter().any(|task| task.attempt > 0 && task.version != self.held.view.version) {
            let kept = versions::kept(api, self.held).await?.into_iter();
            self.earlier = kept.map(|kept| (kept.number, job::version(&kept.fields).to_owned())).collect();
        }
        self.healths = health::of_tasks(api, self.held, tasks).await?;
        Ok(self)
    }

    /// Which version a task is of; the present one where its own is not kept.
    fn version(&self, task: &TaskView) -> &str {
        let earlier = self.earlier.get(&task.version).filter(|_| task.version != self.held.view.version);
        earlier.unwrap_or(&self.version)
    }

    /// Whether a task is well, where its app asks that.
    fn health(&self, task: &TaskView) -> Option<&HealthView> {
        self.healths.get(&task.index).filter(|_| self.asks)
    }

    fn result(&self, task: &TaskView) -> Option<Value> {
        health::result(self.health(task)?, &self.id(task))
    }

    /// What its readiness check said of a task of the present version, where it has said something.
    pub fn readiness(&self, task: &TaskView) -> Option<Value> {
        let found = self.healths.get(&task.index).filter(|_| task.version == self.held.view.version)?;
        let fields = self.held.fields();
        let name = fields.get("readinessChecks").and_then(|checks| checks.get(0)?.get("name")?.as_str()).unwrap_or("readinessCheck");
        health::readiness(found, name, &self.id(task))
    }

    /// The id of a task's last attempt.
    pub fn id(&self, task: &TaskView) -> String {
        task_id(&self.prefix, AttemptId::new(self.held.view.id, task.index, task.attempt))
    }

    /// What people call the machine of a task.
    pub fn host(&self, task: &TaskView) -> String {
        let known = task.agent.and_then(|agent| self.agents.get(&agent)).map(|agent| agent.info.name.clone());
        known.or_else(|| task.agent.map(|agent| agent.to_string())).unwrap_or_default()
    }

    /// The task.
    pub fn json(&self, task: &TaskView) -> Value {
        let at = timestamp(task.since);
        let started = matches!(task.phase, Phase::Running | Phase::Killing | Phase::Unreachable).then(|| at.clone());
        let domain = task.agent.and_then(|agent| self.agents.get(&agent)).map(|agent| &agent.info.domain);
        let part = |part: Option<&String>| part.filter(|part| !part.is_empty()).cloned();
        json!({
            "id": self.id(task),
            "appId": self.held.id.as_str(),
            "host": self.host(task),
            "slaveId": task.agent.map(|agent| agent.to_string()),
            "ports": task.ports,
            "servicePorts": self.services,
            "state": state_text(task.phase),
            "stagedAt": at,
            "startedAt": started,
            "version": self.version(task),
            "ipAddresses": [],
            "localVolumes": [],
            "healthCheckResults": self.result(task).into_iter().collect::<Vec<_>>(),
            "region": part(domain.map(|domain| &domain.region)),
            "zone": part(domain.map(|domain| &domain.zone)),
            "role": self.held.id.parts().next().filter(|_| !self.held.id.parent().is_root()).unwrap_or("*"),
        })
    }

    /// When and how a task failed, where its last attempt did.
    pub fn failure(&self, task: &TaskView) -> Option<(Time, Value)> {
        let exit = task.exit.as_ref().filter(|exit| !matches!(exit, Exit::Killed | Exit::Code(0)))?;
        let value = json!({
            "appId": self.held.id.as_str(),
            "host": self.host(task),
            "message": exit.to_string(),
            "state": state_text(exit.phase()),
            "taskId": self.id(task),
            "slaveId": task.agent.map(|agent| agent.to_string()),
            "timestamp": timestamp(task.since),
            "version": self.version(task),
        });
        Some((task.since, value))
    }

    /// Figures of the tasks of an app.
    pub fn stats(&self, all: &[TaskView]) -> Value {
        let of = |wanted: &dyn Fn(&TaskView) -> bool| {
            let tasks: Vec<&TaskView> = all.iter().filter(|task| is_live(task.phase) && wanted(task)).collect();
            let count = |phases: &[Phase]| tasks.iter().filter(|task| phases.contains(&task.phase)).count();
            let mut ages: Vec<u64> = tasks.iter().filter(|task| task.phase == Phase::Running).map(|task| now().since(task.since)).collect();
            ages.sort_unstable();
            let life = (!ages.is_empty()).then(|| {
                let mean = ages.iter().sum::<u64>() as f64 / ages.len() as f64 / 1_000.0;
                json!({ "averageSeconds": mean, "medianSeconds": ages[ages.len() / 2] as f64 / 1_000.0 })
            });
            let are = |verdict| tasks.iter().filter(|task| self.health(task).is_some_and(|found| found.verdict == verdict)).count();
            let counts = json!({
                "staged": count(&[Phase::Staging, Phase::Starting]), "running": count(&[Phase::Running]), "healthy": are(Verdict::Healthy),
                "unhealthy": are(Verdict::Unhealthy),
            });
            let mut stats = json!({ "counts": counts });
            if let Some(life) = life {
                stats["lifeTime"] = life;
            }
            json!({ "stats": stats })
        };
        let version = self.held.view.version;
        json!({
            "startedAfterLastScaling": of(&|task| task.version == version),
            "withLatestConfig": of(&|task| task.version == version),
            "withOutdatedConfig": of(&|task| task.version != version),
            "totalSummary": of(&|_| true),
        })
    }
}

/// A state by its name with Mesos.
pub const fn state_text(phase: Phase) -> &'static str {
    match phase {
        Phase::Waiting | Phase::Staging => "TASK_STAGING",
        Phase::Starting => "TASK_STARTING",
        Phase::Running => "TASK_RUNNING",
        Phase::Killing => "TASK_KILLING",
        Phase::Unreachable => "TASK_UNREACHABLE",
        Phase::Finished => "TASK_FINISHED",
        Phase::Failed => "TASK_FAILED",
        Phase::Killed => "TASK_KILLED",
        Phase::Rejected => "TASK_ERROR",
        Phase::Lost => "TASK_LOST",
    }
}

/// States of tasks that are on an agent.
const LIVE: [Phase; 5] = [Phase::Staging, Phase::Starting, Phase::Running, Phase::Killing, Phase::Unreachable];

/// Answers `GET /v2/tasks` and, of one app, `GET /v2/apps/{id}/tasks`.
///
/// # Errors
/// [`Wrong`].
pub async fn list(api: &Api, caller: &Caller, headers: &HeaderMap, query: &Query, of_app: Option<&AppId>) -> Result<Response, Wrong> {
    let all = match of_app {
        Some(id) => vec![held::app(api, caller, id).await?],
        None => held::within(api, caller, &AppId::root()).await?,
    };
    let agents = held::agents(api).await?;
    if wants_text(headers) {
        return Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], endpoints(api, &all, &agents).await?).into_response());
    }
    let states: Vec<&str> = query.all("status").chain(query.all("status[]")).collect();
    let mut phases = vec![];
    for state in states {
        match state {
            "running" => phases.extend([Phase::Running, Phase::Killing, Phase::Unreachable]),
            "staging" => phases.extend([Phase::Staging, Phase::Starting]),
            _ => return Err(Wrong::bad(format!("{state:?} is no status: running or staging"))),
        }
    }
    let phases = if phases.is_empty() { LIVE.to_vec() } else { phases };
    let mut rows = vec![];
    for held in &all {
        let tasks = of(api, held, &phases).await?;
        let shown = Shown::new(held, &agents).look(api, &tasks).await?;
        rows.extend(tasks.iter().map(|task| shown.json(task)));
    }
    Ok(Json(json!({ "tasks": rows })).into_response())
}

fn wants_text(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    accept.trim_start().starts_with("text/plain")
}

/// Where the tasks of apps are, for balancers: a line for each service port, with tabs between its parts.
async fn endpoints(api: &Api, all: &[Held], agents: &Agents) -> Result<String, ApiError> {
    let mut text = String::new();
    for held in all {
        let mut tasks = of(api, held, &[Phase::Running]).await?;
        let shown = Shown::new(held, agents).look(api, &tasks).await?;
        // What is not well, or not yet, is sent nothing.
        let serves = |task: &TaskView| shown.healths.get(&task.index).is_some_and(|found| found.verdict == Verdict::Healthy);
        tasks.retain(|task| !held.view.job.template.has_checks() || serves(task));
        if shown.services.is_empty() {
            let hosts: String = tasks.iter().map(|task| format!("{}\t", shown.host(task))).collect();
            text.push_str(&format!("{}\t \t{hosts}\n", shown.prefix));
        }
        for (at, service) in shown.services.iter().enumerate() {
            let place = |task: &TaskView| Some(format!("{}:{}\t", shown.host(task), task.ports.get(at)?));
            text.push_str(&format!("{}\t{service}\t{}\n", shown.prefix, tasks.iter().filter_map(place).collect::<String>()));
        }
    }
    Ok(text)
}

/// Ends tasks of one app; with `scale`, the app has so many fewer from then on.
async fn end(api: &Api, held: Held, tasks: &[TaskView], scale: bool, force: bool) -> Result<Option<Begun>, Wrong> {
    let attempts: Vec<(u32, u32)> = tasks.iter().map(|task| (task.index, task.attempt)).collect();
    let grace_ms = job::grace_ms(&held.fields());
    if !scale {
        let request = Request::Kill { job: JobRef::Id(held.view.id), attempts, grace_ms };
        find::done(api, held.view.id.shard(), request).await?;
        return Ok(None);
    }
    let n = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
    let (job, shard, count) = (held.view.id, held.view.id.shard(), held.view.job.count.saturating_sub(n));
    let change = Change { id: held.id.clone(), before: Some(held), what: What::Scale(count), action: "ScaleApplication" };
    let begun = carry_out(api, vec![change], force, &timestamp(now())).await?;
    // The places of the highest numbers are gone; those of the others are filled again.
    let attempts: Vec<(u32, u32)> = attempts.into_iter().filter(|(index, _)| *index < count).collect();
    if !attempts.is_empty() {
        find::done(api, shard, Request::Kill { job: JobRef::Id(job), attempts, grace_ms }).await?;
    }
    Ok(Some(begun))
}

fn kinds(query: &Query) -> Result<(bool, bool), Wrong> {
    let (scale, wipe) = (query.flag("scale"), query.flag("wipe"));
    match scale && wipe {
        true => Err(Wrong::bad("You cannot use scale and wipe at the same time.")),
        false => Ok((scale, query.flag("force"))),
    }
}

/// Answers `DELETE /v2/apps/{id}/tasks`, and of one task `DELETE /v2/apps/{id}/tasks/{task}`.
///
/// # Errors
/// [`Wrong`].
pub async fn remove(api: &Api, caller: &Caller, id: &AppId, task: Option<&str>, query: &Query) -> Result<Response, Wrong> {
    let (scale, force) = kinds(query)?;
    let held = held::app(api, caller, id).await?;
    caller.must(Level::Operator, &held.view.job.role)?;
    let agents = held::agents(api).await?;
    let mut found = of(api, &held, &LIVE).await?;
    let rows: Vec<Value>;
    {
        let shown = Shown::new(&held, &agents).look(api, &found).await?;
        match task {
            Some(wanted) => found.retain(|task| shown.id(task) == wanted),
            None => {
                if let Some(host) = query.get("host") {
                    found.retain(|task| shown.host(task) == host);
                }
                let most = query.get("killCount").and_then(|text| text.parse::<i64>().ok()).and_then(|most| usize::try_from(most).ok());
                found.truncate(most.unwrap_or(usize::MAX));
            }
        }
        rows = found.iter().map(|task| shown.json(task)).collect();
    }
    if let Some(wanted) = task.filter(|_| found.is_empty()) {
        return Err(Wrong::not_found(format!("Task '{wanted}' does not exist")));
    }
    if !query.flag("noOp")
        && !found.is_empty()
        && let Some(begun) = end(api, held, &found, scale, force).await?
    {
        return Ok(begun.into_response());
    }
    Ok(match task {
        Some(_) => Json(json!({ "task": rows.into_iter().next() })).into_response(),
        None => Json(json!({ "tasks": rows })).into_response(),
    })
}

/// Answers `POST /v2/tasks/delete`: tasks of any apps, by their ids; those that are not there are passed over.
///
/// # Errors
/// [`Wrong`].
pub async fn remove_all(api: &Api, caller: &Caller, query: &Query, body: &[u8]) -> Result<Response, Wrong> {
    let (scale, force) = kinds(query)?;
    let body = apps::object(body)?;
    let ids: Option<Vec<&str>> = body.get("ids").and_then(Value::as_array).and_then(|ids| ids.iter().map(Value::as_str).collect());
    let wrong = || Wrong::faults(vec![Fault { path: "/ids".into(), message: "error.expected.jsarray".into(), is_type: true }]);
    let ids = ids.ok_or_else(wrong)?;
    if ids.len() > IDS_MAX {
        return Err(Wrong::at("/ids", format!("{} of them: at most {IDS_MAX}", ids.len())));
    }
    let mut by_job: BTreeMap<_, Vec<AttemptId>> = BTreeMap::new();
    for (id, attempt) in ids.iter().filter_map(|id| Some((id, attempt(id)?))) {
        by_job.entry(attempt.task.job).or_default().push(attempt);
        tracing::debug!(%id, "a task is to end");
    }
    let everything = held::everything(api, caller).await?;
    let agents = held::agents(api).await?;
    let (mut rows, mut begun) = (vec![], None);
    for held in everything.into_iter().filter(|held| held.lives() && by_job.contains_key(&held.view.id)) {
        caller.must(Level::Operator, &held.view.job.role)?;
        let mut found = of(api, &held, &LIVE).await?;
        {
            let shown = Shown::new(&held, &agents).look(api, &found).await?;
            found.retain(|task| ids.contains(&shown.id(task).as_str()));
            rows.extend(found.iter().map(|task| shown.json(task)));
        }
        if !found.is_empty() {
            begun = end(api, held, &found, scale, force).await?.or(begun);
        }
    }
    Ok(match begun {
        Some(begun) => begun.into_response(),
        None => Json(json!({ "tasks": rows })).into_response(),
    })
}
