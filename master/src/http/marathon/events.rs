//! `/v2/events`: what becomes of apps, in the events that Marathon's clients know, and no others. One task makes them of what changes, for all who
//! listen; who is too slow, or would miss something, is let go, as by Marathon, and comes back.

use super::deployments::{self, Looked};
use super::follow::Follow;
use super::held::Held;
use super::id::AppId;
use super::steps::Deployment;
use super::words::{Object, Query, timestamp};
use super::wrong::Wrong;
use crate::http::Api;
use crate::http::access::{Caller, now};
use crate::http::event_log::Read;
use crate::http::events::READERS_MAX;
use crate::shard::event::{Change, Level};
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use protocol::{JobId, Role};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::{self, error::RecvError};

/// Events that wait for a listener who is slow; one more and he is let go.
const EVENTS_PENDING_MAX: usize = 4_096;
/// How often a listener hears something, so that both ends see a dead connection.
const BEAT: Duration = Duration::from_secs(10);
/// How often all open deployments are looked at, whatever changes.
const LOOK: Duration = Duration::from_secs(2);

/// Batches of changes that are told before deployments are looked at.
const BATCHES_MAX: usize = 16;

/// What is told to all who listen.
#[derive(Debug)]
pub struct Bus(broadcast::Sender<Arc<Event>>);

impl Default for Bus {
    fn default() -> Self {
        Self(broadcast::Sender::new(EVENTS_PENDING_MAX))
    }
}

/// One thing that is told.
#[derive(Debug)]
enum Event {
    /// An event.
    Told {
        /// Its type.
        kind: &'static str,
        /// Of whose apps it is; whoever sees none of one of them does not hear it.
        roles: BTreeSet<Role>,
        /// Its lines.
        text: String,
    },
    /// Something was not heard of: all who listen have to begin anew.
    Missed,
}

/// True where anybody listens.
pub fn is_heard(api: &Api) -> bool {
    api.marathon.bus.0.receiver_count() > 0
}

/// Tells an event of these apps.
pub fn tell(api: &Api, kind: &'static str, apps: &[&AppId], body: Value) {
    if !is_heard(api) {
        return;
    }
    let mut data = Object::new();
    data.insert("eventType".into(), kind.into());
    data.insert("timestamp".into(), timestamp(now()).into());
    if let Value::Object(body) = body {
        data.extend(body);
    }
    let text = format!("event: {kind}\ndata: {}\n\n", Value::Object(data));
    let roles = apps.iter().filter_map(|app| app.place().ok()).map(|(role, _)| role).collect();
    // An error says that nobody listens any more.
    let _ = api.marathon.bus.0.send(Arc::new(Event::Told { kind, roles, text }));
}

fn apps(deployment: &Deployment) -> Vec<&AppId> {
    deployment.steps.iter().map(|step| &step.app).collect()
}

/// A deployment has begun; one without steps is over at once.
pub fn begun(api: &Api, deployment: &Deployment) {
    let body = json!({ "plan": deployment.plan(), "currentStep": deployment.current() });
    tell(api, "deployment_info", &apps(deployment), body);
    for step in &deployment.steps {
        let body = json!({ "groupId": step.app.parent().as_str(), "version": deployment.version });
        tell(api, "group_change_success", &[&step.app], body);
    }
    if deployment.steps.is_empty() {
        tell(api, "deployment_success", &[], json!({ "id": deployment.id, "plan": deployment.plan() }));
    }
}

/// Deployments are over, and others have got further.
pub fn settled(api: &Api, looked: Looked) {
    looked.further.iter().chain(&looked.over).for_each(|deployment| stepped(api, deployment));
    looked.over.iter().for_each(|deployment| succeeded(api, deployment));
    looked.failed.iter().for_each(|deployment| failed(api, deployment));
}

/// A step of a deployment is done.
pub fn stepped(api: &Api, deployment: &Deployment) {
    let body = json!({ "plan": deployment.plan(), "currentStep": deployment.current() });
    tell(api, "deployment_step_success", &apps(deployment), body);
}

/// A deployment is done.
pub fn succeeded(api: &Api, deployment: &Deployment) {
    tell(api, "deployment_success", &apps(deployment), json!({ "id": deployment.id, "plan": deployment.plan() }));
}

/// A deployment was given up.
pub fn failed(api: &Api, deployment: &Deployment) {
    tell(api, "deployment_failed", &apps(deployment), json!({ "id": deployment.id, "plan": deployment.plan() }));
}

/// A group is another than before.
pub fn group_changed(api: &Api, group: &AppId, version: &str) {
    tell(api, "group_change_success", &[group], json!({ "groupId": group.as_str(), "version": version }));
}

/// An app was given to us, of which this is the JSON.
pub fn posted(api: &Api, id: &AppId, uri: &str, text: &str) {
    if is_heard(api) {
        let definition: Value = serde_json::from_str(text).unwrap_or_default();
        tell(api, "api_post_event", &[id], json!({ "clientIp": "", "uri": uri, "appDefinition": definition }));
    }
}

/// An app is to end.
pub fn terminated(api: &Api, id: &AppId) {
    tell(api, "app_terminated_event", &[id], json!({ "appId": id.as_str() }));
}

/// A task of an app is in another state.
pub fn task(api: &Api, held: &Held, body: Value) {
    tell(api, "status_update_event", &[&held.id], body);
}

/// A task of an app is well, or no longer.
pub fn health(api: &Api, held: &Held, body: Value) {
    tell(api, "health_status_changed_event", &[&held.id], body);
}

/// A task of an app was ended since it was not well.
pub fn unhealthy(api: &Api, held: &Held, body: Value) {
    tell(api, "unhealthy_task_kill_event", &[&held.id], body);
}

/// The same as of a task in the words of later versions.
pub fn instance(api: &Api, held: &Held, body: Value) {
    tell(api, "instance_changed_event", &[&held.id], body);
}

/// Makes events of what changes, for as long as the routes are there.
pub async fn follow(api: Weak<Api>) {
    let Some((mut news, mut next)) = api.upgrade().map(|api| (api.events.subscribe(), api.events.now().next)) else { return };
    let (mut follow, mut looked) = (Follow::default(), Instant::now());
    loop {
        news.borrow_and_update();
        let more = {
            let Some(api) = api.upgrade() else { return };
            let (changed, more) = hear(&api, &mut follow, &mut next).await;
            let all = looked.elapsed() >= LOOK;
            if all {
                looked = Instant::now();
            }
            if !api.marathon.deployments.is_empty()
                && let Ok(done) = deployments::settle_of(&api, |job| all || changed.contains(&job)).await
            {
                settled(&api, done);
            }
            more
        };
        if !more && matches!(tokio::time::timeout(LOOK, news.changed()).await, Ok(Err(_))) {
            return;
        }
    }
}

/// Tells what has changed, and of which jobs, and whether there is more.
async fn hear(api: &Api, follow: &mut Follow, next: &mut u64) -> (BTreeSet<JobId>, bool) {
    let mut changed = BTreeSet::new();
    for _ in 0..BATCHES_MAX {
        let events = match api.events.read(*next) {
            Read::Behind { .. } => {
                *next = api.events.now().next;
                missed(api);
                continue;
            }
            Read::Events(events) if events.is_empty() => return (changed, false),
            Read::Events(events) => events,
        };
        *next += events.len() as u64;
        for event in events {
            if event.is_after_gap {
                missed(api);
            }
            let Some(change) = event.told.as_ref().and_then(|told| told.change()) else { continue };
            match change {
                Change::Job { job, .. } | Change::Tasks { job, .. } | Change::Health { job, .. } => drop(changed.insert(*job)),
                Change::Deployment { view, .. } => drop(changed.insert(view.job())),
                _ => {}
            }
            if let Err(wrong) = follow.hear(api, change).await {
                tracing::debug!(?wrong, "an event of an app could not be made");
                missed(api);
            }
        }
    }
    (changed, true)
}

fn missed(api: &Api) {
    // An error says that nobody listens.
    let _ = api.marathon.bus.0.send(Arc::new(Event::Missed));
}

/// Answers `GET /v2/events`.
///
/// # Errors
/// [`Wrong`] where the caller may see nothing, or there are too many who listen.
pub async fn listen(api: &Arc<Api>, caller: &Caller, query: &Query) -> Result<Response, Wrong> {
    caller.must_level(Level::Viewer)?;
    let place = Arc::clone(&api.event_readers).try_acquire_owned();
    let busy = || crate::http::error::ApiError::busy(format!("{READERS_MAX} readers of events are there already"), 1_000);
    let place = place.map_err(|_| busy())?;
    let kinds: BTreeSet<String> = query.all("event_type").map(str::to_owned).collect();
    let events = api.marathon.bus.0.subscribe();
    tell(api, "event_stream_attached", &[], json!({ "remoteAddress": "" }));
    let listener = Listener { api: Arc::clone(api), caller: caller.clone(), kinds, events, _place: place };
    // The first bytes are sent at once, so that the client sees the answer begin.
    let stream = futures::stream::unfold((listener, true), |(mut listener, first)| async move {
        let text = if first { "\n".to_owned() } else { listener.next().await? };
        Some((Ok::<_, Infallible>(text), (listener, false)))
    });
    let mut response = Body::from_stream(stream).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

struct Listener {
    api: Arc<Api>,
    caller: Caller,
    /// Only events of these types; empty: all.
    kinds: BTreeSet<String>,
    events: broadcast::Receiver<Arc<Event>>,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    /// What he hears next; `None` where nothing follows.
    async fn next(&mut self) -> Option<String> {
        loop {
            if !self.caller.token.is_empty() && !self.api.tokens.lives(&self.caller, now()) {
                return None;
            }
            match tokio::time::timeout(BEAT, self.events.recv()).await {
                Err(_) => return Some("\n".to_owned()),
                Ok(Err(RecvError::Lagged(_) | RecvError::Closed)) => return None,
                Ok(Ok(event)) => match &*event {
                    Event::Missed => return None,
                    Event::Told { kind, roles, text } => {
                        if (self.kinds.is_empty() || self.kinds.contains(*kind)) && roles.iter().all(|role| self.caller.sees(role)) {
                            return Some(text.clone());
                        }
                    }
                },
            }
        }
    }
}
