//! What Mesos' lists are made of: agents, frameworks, and a bounded part of the frameworks' tasks.

use super::event::Told;
use super::note::{self, Shown};
use crate::frameworks::{Cause, FrameworkView, OwnView, StatusUpdate};
use crate::http::access::Caller;
use crate::http::error::ApiError;
use crate::http::frameworks_list::sees;
use crate::http::{Api, find, reservations};
use crate::shard::event::Level;
use crate::shard::reservations::ReservedView;
use crate::shard::view::{AgentView, PAGE_MAX, View, Viewed};
use protocol::{AgentId, Phase, Resources};
use serde_json::Value;
use std::collections::BTreeMap;

/// Most tasks in one answer, and most that are put into the order of their times.
pub(super) const TASKS_MAX: usize = 10_000;

/// What there is, without tasks.
pub(super) struct Seen {
    /// Agents that are not gone, by id.
    pub agents: Vec<AgentView>,
    /// Those that the caller may see, by id.
    pub frameworks: Vec<FrameworkView>,
    /// What is kept of agents for roles.
    pub reserved: BTreeMap<AgentId, ReservedView>,
}

/// A task and whose it is, without what is said of it.
pub(super) type Bare<'a> = (&'a FrameworkView, OwnView);

/// A task.
pub(super) struct Row<'a> {
    /// Whose it is.
    pub framework: &'a FrameworkView,
    /// How it stands.
    pub own: OwnView,
    /// What is said of it.
    pub shown: Shown,
}

/// Looks at all that the caller may see.
///
/// # Errors
/// An [`ApiError`] where he may see nothing, or a shard cannot answer now.
pub(super) async fn see(api: &Api, caller: &Caller) -> Result<Seen, ApiError> {
    caller.must_level(Level::Viewer)?;
    let views = futures::try_join!(find::view_all(api, View::Agents), find::view_all(api, View::Frameworks), reservations::all(api))?;
    let (agents, frameworks, reserved) = views;
    let agents = agents.into_iter().filter_map(|viewed| if let Viewed::Agents(agents) = viewed { Some(agents) } else { None });
    let frameworks = frameworks.into_iter().filter_map(|viewed| if let Viewed::Frameworks(found) = viewed { Some(found) } else { None });
    let mut seen = Seen {
        agents: agents.flatten().filter(|agent| agent.state != "gone").collect(),
        frameworks: frameworks.flatten().filter(|view| sees(caller, view)).collect(),
        reserved,
    };
    seen.agents.sort_by_key(|agent| agent.id);
    seen.frameworks.sort_by_key(|framework| framework.id);
    Ok(seen)
}

/// Tasks of these frameworks: by framework and name, without the first `offset`, at most `limit` and at most [`TASKS_MAX`].
///
/// # Errors
/// As [`see`].
pub(super) async fn tasks<'a>(
    api: &Api,
    frameworks: &[&'a FrameworkView],
    mut offset: usize,
    limit: usize,
) -> Result<Vec<Bare<'a>>, ApiError> {
    let limit = limit.min(TASKS_MAX);
    let mut rows: Vec<Bare<'a>> = vec![];
    for framework in frameworks.iter().copied() {
        if offset >= framework.n_tasks {
            offset -= framework.n_tasks;
            continue;
        }
        let (mut from, mut skip) = (String::new(), std::mem::take(&mut offset));
        while rows.len() < limit {
            let asked = (limit - rows.len()).min(PAGE_MAX);
            let page = page(api, framework, (from, std::mem::take(&mut skip)), asked).await?;
            let (n, last) = (page.len(), page.last().map(|own| format!("{}\0", own.name)));
            rows.extend(page.into_iter().map(|own| (framework, own)));
            match last {
                Some(last) if n == asked => from = last,
                _ => break,
            }
        }
    }
    Ok(rows)
}

/// The task of this name, of each of these frameworks that has one.
///
/// # Errors
/// As [`see`].
pub(super) async fn named<'a>(api: &Api, frameworks: &[&'a FrameworkView], name: &str) -> Result<Vec<Bare<'a>>, ApiError> {
    let mut rows = vec![];
    for framework in frameworks.iter().copied() {
        let found = page(api, framework, (name.to_owned(), 0), 1).await?;
        rows.extend(found.into_iter().filter(|own| own.name == name).map(|own| (framework, own)));
    }
    Ok(rows)
}

/// These tasks, with what is said of them.
///
/// # Errors
/// As [`see`].
pub(super) async fn dressed<'a>(api: &Api, tasks: impl IntoIterator<Item = Bare<'a>>) -> Result<Vec<Row<'a>>, ApiError> {
    let tasks: Vec<Bare<'a>> = tasks.into_iter().collect();
    let mut said = note::of_jobs(api, tasks.iter().map(|(_, own)| own.job)).await?;
    let dress = |(framework, own): Bare<'a>| Row { framework, shown: said.remove(&own.job).unwrap_or_default(), own };
    Ok(tasks.into_iter().map(dress).collect())
}

async fn page(api: &Api, of: &FrameworkView, (from, skip): (String, usize), limit: usize) -> Result<Vec<OwnView>, ApiError> {
    let view = View::FrameworkTasks { framework: of.id, from, skip, limit };
    match find::view(api, of.id.shard(), view).await {
        Ok(Viewed::FrameworkTasks(found)) => Ok(found),
        Ok(_) => Err(ApiError::internal("a shard answered another question than it was asked")),
        // It is gone since it was looked at.
        Err(error) if error.status() == axum::http::StatusCode::NOT_FOUND => Ok(vec![]),
        Err(error) => Err(error),
    }
}

impl Seen {
    /// What is shown to the frameworks of each agent, as far as their offers are shown here.
    pub fn offered(&self) -> BTreeMap<AgentId, Resources> {
        let mut offered = BTreeMap::<AgentId, Resources>::new();
        for offer in self.frameworks.iter().flat_map(|framework| &framework.offers) {
            let sum = offered.entry(offer.agent).or_default();
            *sum = sum.checked_add(&offer.resources).unwrap_or_default();
        }
        offered
    }

    /// How many tasks there are.
    pub fn n_tasks(&self) -> usize {
        self.frameworks.iter().map(|framework| framework.n_tasks).sum()
    }
}

/// True where an agent is given tasks.
pub(super) fn is_active(agent: &AgentView) -> bool {
    agent.state == "reachable" && agent.mode == "active"
}

/// How the framework is told of things.
pub(super) fn told(framework: &FrameworkView) -> Told {
    Told::new(framework.id.to_string(), &framework.info, Value::Null)
}

/// What a task's framework would be told.
pub(super) fn status_of(framework: &FrameworkView, own: &OwnView) -> Value {
    told(framework).status(&StatusUpdate {
        task: own.name.clone(),
        job: Some(own.job),
        agent: Some(own.agent),
        phase: own.phase,
        exit: own.exit.clone(),
        cause: Cause::News,
        ports: vec![],
        at: own.at,
        uuid: None,
    })
}

/// How many tasks are in which of Mesos' states: of those that have ended, as far as their phase alone says it.
pub(super) fn by_state<'a>(
    framework: &FrameworkView,
    counts: impl IntoIterator<Item = (&'a Phase, &'a u32)>,
) -> BTreeMap<&'static str, u64> {
    let told = told(framework);
    let mut states = BTreeMap::new();
    for (phase, n) in counts {
        *states.entry(told.state_of(*phase)).or_insert(0) += u64::from(*n);
    }
    states
}
