//! The apps that there are: jobs that Marathon's API made. What else runs is none of its clients' business.

use super::MADE_BY;
use super::id::AppId;
use super::note::{self, Mark};
use super::words::Object;
use super::wrong::Wrong;
use crate::http::access::Caller;
use crate::http::error::ApiError;
use crate::http::{Api, find};
use crate::shard::event::{JobRef, Level};
use crate::shard::view::{AgentView, JobView, PAGE_MAX, View, Viewed};
use protocol::message::shard_of_job;
use protocol::{AgentId, Phase, ShardId};
use std::collections::BTreeMap;

/// An app and its job.
#[derive(Clone, Debug)]
pub struct Held {
    /// Its id.
    pub id: AppId,
    /// Its job.
    pub view: JobView,
}

impl Held {
    /// The app that a job is; `None` where it is none.
    pub fn of(view: JobView) -> Option<Self> {
        view.job.origin().filter(|origin| origin.by == MADE_BY)?;
        let id = AppId::of(&view.job.role, view.job.name.as_ref()?)?;
        Some(Self { id, view })
    }

    /// True where it has not ended, nor is about to.
    pub fn lives(&self) -> bool {
        self.view.ended.is_none() && !self.view.stopping
    }

    /// The app as it was made, as JSON.
    pub fn note(&self) -> &str {
        self.view.job.origin().map_or("{}", |origin| note::app(&origin.note))
    }

    /// What its last change is part of, where several apps were changed at once.
    pub fn mark(&self) -> Option<Mark> {
        note::mark(&self.view.job.origin()?.note)
    }

    /// Its fields.
    pub fn fields(&self) -> Object {
        serde_json::from_str(self.note()).unwrap_or_default()
    }

    /// How many of its tasks are in one of these states.
    pub fn count(&self, phases: &[Phase]) -> u32 {
        phases.iter().filter_map(|phase| self.view.tasks.get(phase)).sum()
    }
}

/// The app of this id.
///
/// # Errors
/// [`Wrong`] of status 404 where there is none that the caller may see.
pub async fn app(api: &Api, caller: &Caller, id: &AppId) -> Result<Held, Wrong> {
    known(api, caller, id).await?.filter(Held::lives).ok_or_else(|| missing(id))
}

/// What is said of an app that is not there.
pub fn missing(id: &AppId) -> Wrong {
    Wrong::not_found(format!("App '{id}' does not exist"))
}

/// The app of this id, also one that is about to end; `None` where there is none, or none that the caller may see.
///
/// # Errors
/// [`Wrong`] of status 409 where the job of its role and name is none, and where the shard cannot answer now.
pub async fn known(api: &Api, caller: &Caller, id: &AppId) -> Result<Option<Held>, Wrong> {
    let Ok((role, name)) = id.place() else { return Ok(None) };
    if !caller.sees(&role) {
        return Ok(None);
    }
    let shard = shard_of_job(&role, name.as_str(), api.door.shards());
    let found = find::viewed(api, shard, JobRef::Name(role, name)).await?;
    Ok(found.filter(|view| view.ended.is_none()).and_then(Held::of))
}

/// The job of an app's role and name that is none.
///
/// # Errors
/// [`Wrong`] of status 409 where there is one.
pub async fn is_free(api: &Api, id: &AppId) -> Result<(), Wrong> {
    let (role, name) = id.place().map_err(|why| Wrong::at("/id", why))?;
    let shard = shard_of_job(&role, name.as_str(), api.door.shards());
    let found = find::viewed(api, shard, JobRef::Name(role.clone(), name.clone())).await?;
    match found.filter(|view| view.ended.is_none()).map(|view| (view.id, Held::of(view))) {
        None => Ok(()),
        Some((_, Some(held))) if held.lives() => Err(Wrong::conflict(format!("An app with id [{id}] already exists."))),
        Some((_, Some(_))) => Ok(()),
        Some((job, None)) => {
            Err(Wrong::conflict(format!("the job '{name}' of role {role} ({job}) was not made of an app: {id} would be it")))
        }
    }
}

/// All apps in a group that the caller may see and that are not about to end, by id.
///
/// # Errors
/// [`Wrong`] where he may see nothing, or a shard cannot answer now.
pub async fn within(api: &Api, caller: &Caller, group: &AppId) -> Result<Vec<Held>, Wrong> {
    let mut found = everything(api, caller).await?;
    found.retain(|held| held.lives() && held.id.is_within(group));
    Ok(found)
}

/// All apps that the caller may see, also those that are about to end.
///
/// # Errors
/// As [`within`].
pub async fn everything(api: &Api, caller: &Caller) -> Result<Vec<Held>, Wrong> {
    caller.must_level(Level::Viewer)?;
    let mut found = vec![];
    for shard in (0..api.door.shards()).map(ShardId) {
        let mut after = None;
        loop {
            let view = View::Jobs { role: None, after, limit: PAGE_MAX, ended: false };
            let Viewed::Jobs(page) = find::view(api, shard, view).await? else {
                return Err(ApiError::internal("a shard answered another question than it was asked").into());
            };
            let n = page.len();
            after = page.last().map(|view| view.id);
            found.extend(page.into_iter().filter(|view| caller.sees(&view.job.role)).filter_map(Held::of));
            if n < PAGE_MAX {
                break;
            }
        }
    }
    found.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(found)
}

/// The agents by id.
pub type Agents = BTreeMap<AgentId, AgentView>;

/// All agents.
///
/// # Errors
/// An [`ApiError`] where a shard cannot answer now.
pub async fn agents(api: &Api) -> Result<Agents, ApiError> {
    let views = find::view_all(api, View::Agents).await?;
    let agents = views.into_iter().filter_map(|viewed| if let Viewed::Agents(agents) = viewed { Some(agents) } else { None });
    Ok(agents.flatten().map(|agent| (agent.id, agent)).collect())
}
