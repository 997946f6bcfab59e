//! `SUBSCRIBE` of the operator API: all there is, and then what changes, as events of `mesos/v1/master/master.proto`. Where this master does not hear
//! all that changes, or the reader is too slow, the stream ends, and who subscribes anew is told all there is again.

use super::note::{self, Shown};
use super::seen::{Row, Seen, see, status_of};
use super::{event, operator, rows};
use crate::drive::told::What;
use crate::frameworks::{FrameworkId, FrameworkView, OwnView};
use crate::http::access::{Caller, now};
use crate::http::error::ApiError;
use crate::http::event_log::{Event, Read, Start};
use crate::http::events::READERS_MAX;
use crate::http::frameworks_list::sees;
use crate::http::subscription::HEARTBEAT;
use crate::http::{Api, find};
use crate::shard::event::Change;
use crate::shard::view::{View, Viewed};
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use protocol::message::shard_of_agent;
use protocol::{AgentId, JobId};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, watch};

/// Answers the call with a stream.
///
/// # Errors
/// An [`ApiError`] where the caller may see nothing, a shard cannot answer now, or there are too many readers.
pub async fn watch(api: Arc<Api>, caller: Caller) -> Result<Response, ApiError> {
    let place = Arc::clone(&api.event_readers).try_acquire_owned();
    let place = place.map_err(|_| ApiError::busy(format!("{READERS_MAX} readers of events are there already"), 1_000))?;
    // What changes while it looks is told after what it saw.
    let (news, Start { next, .. }) = (api.events.subscribe(), api.events.now());
    let seen = see(&api, &caller).await?;
    let state = operator::state(&api, &seen, None).await?;
    let subscribed =
        json!({ "type": "SUBSCRIBED", "subscribed": { "get_state": state, "heartbeat_interval_seconds": HEARTBEAT.as_secs_f64() } });
    let Seen { agents, frameworks, .. } = seen;
    let here = agents.into_iter().filter(|agent| agent.state != "expected").map(|agent| agent.id).collect();
    let frameworks = frameworks.into_iter().map(|framework| (framework.id, framework)).collect();
    let reader = Reader { api, caller, agents: here, frameworks, said: BTreeMap::new(), next, news, over: false, _place: place };
    let stream = futures::stream::unfold((reader, Some(vec![subscribed])), |(mut reader, first)| async move {
        let events = match first {
            Some(first) => first,
            None => reader.next().await?,
        };
        Some((Ok::<Bytes, Infallible>(written(&events)), (reader, None)))
    });
    let mut response = Body::from_stream(stream).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn written(events: &[Value]) -> Bytes {
    let mut output = BytesMut::new();
    event::records(events, &mut output);
    output.freeze()
}

struct Reader {
    api: Arc<Api>,
    caller: Caller,
    /// Agents that were told to be there.
    agents: BTreeSet<AgentId>,
    /// Frameworks that were told to be there.
    frameworks: BTreeMap<FrameworkId, FrameworkView>,
    /// What is said of the tasks that are told next to be new, as far as that can be seen now.
    said: BTreeMap<JobId, Shown>,
    next: u64,
    news: watch::Receiver<u64>,
    over: bool,
    _place: OwnedSemaphorePermit,
}

/// The task that is told to be new.
fn begun(kept: &Event) -> Option<JobId> {
    match &kept.told.as_ref()?.what {
        What::Change(Change::Own { task, new: true, .. }) => Some(task.job),
        _ => None,
    }
}

impl Reader {
    /// What the reader is told next, perhaps only that the connection lives; `None` where nothing follows.
    async fn next(&mut self) -> Option<Vec<Value>> {
        loop {
            if self.over || !self.lives() {
                return None;
            }
            self.news.borrow_and_update();
            let Read::Events(kept) = self.api.events.read(self.next) else { return None };
            if kept.is_empty() {
                match tokio::time::timeout(HEARTBEAT, self.news.changed()).await {
                    Ok(changed) => changed.ok()?,
                    Err(_) => return Some(vec![]),
                }
                continue;
            }
            self.said = note::of_jobs(&self.api, kept.iter().filter_map(|kept| begun(kept))).await.unwrap_or_default();
            let mut events = vec![];
            for kept in kept {
                self.next += 1;
                events.extend(self.tell(&kept).await);
            }
            if !events.is_empty() {
                return Some(events);
            }
        }
    }

    fn lives(&self) -> bool {
        self.caller.token.is_empty() || self.api.tokens.lives(&self.caller, now())
    }

    async fn tell(&mut self, kept: &Event) -> Option<Value> {
        let told = kept.told.as_ref().filter(|_| !kept.is_after_gap);
        match told.map(|told| &told.what) {
            // Something is missing, or may be.
            None | Some(What::Led(_)) => {
                self.over = true;
                None
            }
            Some(What::Nothing) => None,
            Some(What::Change(change)) => self.change(change).await,
        }
    }

    async fn change(&mut self, change: &Change) -> Option<Value> {
        match change {
            Change::Own { framework, task, new } => self.task(*framework, task, *new),
            Change::Agent { agent, what, .. } => match what.as_ref() {
                "registered" | "reachable" => self.agent(*agent).await,
                "unreachable" | "lost" | "gone" => self
                    .agents
                    .remove(agent)
                    .then(|| json!({ "type": "AGENT_REMOVED", "agent_removed": { "agent_id": { "value": agent.to_string() } } })),
                _ => None,
            },
            Change::Framework { framework, what, .. } if what == "removed" => {
                let view = self.frameworks.remove(framework)?;
                let info = rows::framework_info(view.id, &view.info);
                Some(json!({ "type": "FRAMEWORK_REMOVED", "framework_removed": { "framework_info": info } }))
            }
            Change::Framework { framework, .. } => self.framework(*framework).await,
            _ => None,
        }
    }

    fn task(&mut self, framework: FrameworkId, task: &OwnView, new: bool) -> Option<Value> {
        let view = self.frameworks.get(&framework)?;
        if new {
            let row = Row { framework: view, own: task.clone(), shown: self.said.remove(&task.job).unwrap_or_default() };
            return Some(json!({ "type": "TASK_ADDED", "task_added": { "task": rows::task(&row) } }));
        }
        let status = status_of(view, task);
        let id = json!({ "value": framework.to_string() });
        Some(json!({ "type": "TASK_UPDATED", "task_updated": { "framework_id": id, "state": status["state"], "status": status } }))
    }

    /// An agent that was not there is.
    async fn agent(&mut self, agent: AgentId) -> Option<Value> {
        if self.agents.contains(&agent) {
            return None;
        }
        let shard = shard_of_agent(agent, self.api.door.shards());
        // Where it cannot be seen now it is told when it is heard of again.
        let Ok(Viewed::Agents(found)) = find::view(&self.api, shard, View::Agents).await else { return None };
        let view = found.iter().find(|view| view.id == agent)?;
        self.agents.insert(agent);
        Some(json!({ "type": "AGENT_ADDED", "agent_added": { "agent": rows::agent(view, None, None) } }))
    }

    /// A framework is there, or is another than before.
    async fn framework(&mut self, id: FrameworkId) -> Option<Value> {
        let Ok(Viewed::Frameworks(found)) = find::view(&self.api, id.shard(), View::Frameworks).await else { return None };
        let Some(view) = found.into_iter().find(|view| view.id == id && sees(&self.caller, view)) else {
            // Its roles may be others now.
            self.frameworks.remove(&id);
            return None;
        };
        let row = rows::framework(&view);
        Some(match self.frameworks.insert(id, view) {
            None => json!({ "type": "FRAMEWORK_ADDED", "framework_added": { "framework": row } }),
            Some(_) => json!({ "type": "FRAMEWORK_UPDATED", "framework_updated": { "framework": row } }),
        })
    }
}
