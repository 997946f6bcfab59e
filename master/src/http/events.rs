//! What changes, as server-sent events (WHATWG HTML section 9.2). The `id` of each says what its reader has heard by then, at any master: so
//! he may go on at any other with it, and hears what he has not. Where that cannot be had, he is told that something is missing.

use super::Api;
use super::access::{Caller, now};
use super::body::{self, Asked};
use super::deployments_json::DeploymentBody;
use super::error::{ApiError, ErrorAnswer};
use super::event_log::{Event, Read, Start};
use super::heard::Heard;
use super::jobs_json::phase_text;
use crate::drive::told::What;
use crate::shard::event::{Change, Level};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use protocol::{JobId, Role, Time};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::{IntoParams, ToSchema};

/// Readers at the same time.
pub const READERS_MAX: usize = 256;
/// How often a reader hears something, so that both ends see a dead connection.
const BEAT: Duration = Duration::from_secs(15);

/// One event, as its `data` stands in the stream; its `event` line says the same as `event` here.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventBody<'a> {
    /// A job is new or has a new version, count or end.
    Job {
        /// Its id.
        job: String,
        /// Its role.
        role: &'a str,
        /// What people call it.
        title: &'a str,
        /// `submitted`, `applied`, `scaled`, `stopping`, `ended`.
        what: &'a str,
    },
    /// Tasks of one job are in another state.
    Tasks {
        /// The job's id.
        job: String,
        /// Its role.
        role: &'a str,
        /// The state.
        phase: &'a str,
        /// Which attempts, and on which agents.
        attempts: Vec<AttemptBody>,
    },
    /// An agent came, went or returned.
    Agent {
        /// Its id.
        agent: String,
        /// What people call it.
        name: &'a str,
        /// `registered`, `unreachable`, `reachable`, `lost`, `gone`, `draining`, `inactive`, `active`.
        what: &'a str,
    },
    /// A framework came, went or returned.
    Framework {
        /// Its id.
        framework: String,
        /// What people call it.
        name: &'a str,
        /// `subscribed`, `disconnected`, `updated`, `removed`.
        what: &'a str,
    },
    /// Tasks of one job that have checks are well, or no longer, or not yet.
    Health {
        /// The job's id.
        job: String,
        /// Its role.
        role: &'a str,
        /// `healthy`, `unready` or `unhealthy`.
        health: &'a str,
        /// Which attempts, on which agents, and why they are not.
        attempts: Vec<FoundBody<'a>>,
    },
    /// A deployment is new or has gone on.
    Deployment {
        /// `started`, `step`, `waiting`, `promoted`, `paused`, `resumed`, `done`, `failed`, `cancelled`.
        what: &'a str,
        /// How it stands.
        deployment: Box<DeploymentBody>,
    },
    /// The tokens on record are others now.
    Tokens,
    /// The policies of roles are others now.
    Policies,
    /// Masters were let in, moved or removed.
    Masters,
    /// The windows of maintenance are others now.
    Maintenance,
    /// Something was told that this reader does not hear: it is kept no longer, or was never heard by this master, or nobody knows whether it was
    /// told, since its master is gone. Who keeps a picture of what is asks for all of it anew; what follows is of after that.
    Missed,
    /// The reader was too slow: nothing follows in this stream.
    Dropped,
}

/// An event with its time, as it stands in the stream.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventMessage<'a> {
    /// What happened.
    #[serde(flatten)]
    pub event: EventBody<'a>,
    /// When the master that tells it heard of it, in milliseconds of the Unix epoch; missing where something is `missed` or `dropped`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<u64>,
}

/// An attempt and where it is.
#[derive(Debug, Serialize, ToSchema)]
pub struct AttemptBody {
    /// `JOB.INDEX#N`.
    pub attempt: String,
    /// The agent's id.
    pub agent: String,
}

/// An attempt, where it is, and what was found.
#[derive(Debug, Serialize, ToSchema)]
pub struct FoundBody<'a> {
    /// `JOB.INDEX#N`.
    pub attempt: String,
    /// The agent's id.
    pub agent: String,
    /// Why it is not well, for people; missing where it is.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: &'a str,
}

/// Which events.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Only those of this role's jobs.
    pub role: Option<String>,
    /// Only those of the job of this id.
    pub job: Option<String>,
    /// True: at first those that are kept, the last 4,096 at most; not where the reader goes on behind an event that he heard.
    #[serde(default)]
    pub kept: bool,
}

fn text(change: &Change, at: Time) -> String {
    let (name, body) = match change {
        Change::Job { job, role, title, what } => ("job", EventBody::Job { job: job.to_string(), role: role.as_str(), title, what }),
        Change::Tasks { job, role, phase, placed } => {
            let attempts = placed.iter().map(|placed| AttemptBody { attempt: placed.attempt.to_string(), agent: placed.agent.to_string() });
            (
                "tasks",
                EventBody::Tasks { job: job.to_string(), role: role.as_str(), phase: phase_text(*phase), attempts: attempts.collect() },
            )
        }
        Change::Health { job, role, health, found } => {
            let found = found.iter().map(|(placed, reason)| FoundBody {
                attempt: placed.attempt.to_string(),
                agent: placed.agent.to_string(),
                reason,
            });
            ("health", EventBody::Health { job: job.to_string(), role: role.as_str(), health, attempts: found.collect() })
        }
        Change::Agent { agent, name, what } => ("agent", EventBody::Agent { agent: agent.to_string(), name, what }),
        Change::Framework { framework, name, what } => ("framework", EventBody::Framework { framework: framework.to_string(), name, what }),
        Change::Deployment { view, what } => {
            ("deployment", EventBody::Deployment { what, deployment: Box::new(DeploymentBody::from(&**view)) })
        }
        // Those who read this hear of it as of any other task.
        Change::Own { .. } => return String::new(),
        Change::Tokens => ("tokens", EventBody::Tokens),
        Change::Policies | Change::PlugIns => ("policies", EventBody::Policies),
        Change::Masters => ("masters", EventBody::Masters),
        Change::Maintenance => ("maintenance", EventBody::Maintenance),
    };
    lines(name, &EventMessage { event: body, at_ms: Some(at.0) })
}

fn untimed(name: &str, event: EventBody<'_>) -> String {
    lines(name, &EventMessage { event, at_ms: None })
}

fn lines(name: &str, message: &EventMessage<'_>) -> String {
    let data = serde_json::to_string(message).expect("an event has text for keys");
    format!("event: {name}\ndata: {data}\n\n")
}

/// What a reader wants to hear and may.
struct Filter {
    caller: Caller,
    role: Option<Role>,
    job: Option<JobId>,
}

impl Filter {
    fn wants(&self, change: &Change) -> bool {
        match change {
            Change::Job { job, role, .. } | Change::Tasks { job, role, .. } | Change::Health { job, role, .. } => {
                let wanted = self.role.as_ref().is_none_or(|wanted| wanted == role) && self.job.is_none_or(|wanted| wanted == *job);
                wanted && self.caller.sees(role)
            }
            Change::Deployment { view, .. } => {
                let wanted = self.role.as_ref().is_none_or(|wanted| *wanted == view.role);
                wanted && self.job.is_none_or(|wanted| wanted == view.job()) && self.caller.sees(&view.role)
            }
            Change::Agent { .. } | Change::Framework { .. } => self.role.is_none() && self.job.is_none(),
            Change::Own { .. } => false,
            Change::Tokens | Change::Policies | Change::PlugIns | Change::Masters | Change::Maintenance => {
                self.role.is_none() && self.job.is_none() && self.caller.must_own_cluster().is_ok()
            }
        }
    }
}

/// Tells what changes, from now on, from the first event that is kept, or after `Last-Event-ID`, the `id` of an event that was heard at any
/// master. What cannot be told is said to be `missed`.
#[utoipa::path(get, path = "/v1/events", tag = "cluster", params(EventsQuery, ("Last-Event-ID" = Option<String>, Header, description = "the last event that was heard, at any master")),
    responses((status = 200, body = inline(EventMessage<'static>), content_type = "text/event-stream"), (status = 429, body = ErrorAnswer)))]
pub async fn events(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Asked(query): Asked<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    caller.must_level(Level::Viewer)?;
    let role = query.role.as_deref().map(|text| super::find::role(Some(text))).transpose()?;
    if let Some(role) = &role {
        caller.must(Level::Viewer, role)?;
    }
    let job = query.job.as_deref().map(|text| body::parsed("job", text)).transpose()?;
    let place = Arc::clone(&api.event_readers).try_acquire_owned();
    let place = place.map_err(|_| ApiError::busy(format!("{READERS_MAX} readers of events are there already"), 1_000))?;
    // It hears of all that is kept after it has begun.
    let news = api.events.subscribe();
    let last = headers.get("last-event-id").map(|value| value.to_str().unwrap_or("").parse::<Heard>());
    let resuming = last.is_some() || query.kept;
    let peers = api.door.peers();
    let Start { next, heard, is_after_gap } = match last {
        None if query.kept => api.events.kept(),
        None => api.events.now(),
        Some(Ok(heard)) => api.events.after(heard, |number| peers.find(number).is_some() || u64::from(peers.own().number) == number),
        Some(Err(())) => Start { is_after_gap: true, ..api.events.now() },
    };
    let filter = Filter { caller, role, job };
    let reader = Reader { filter, api, next, heard, missed: is_after_gap, resuming, over: false, news, _place: place };
    let mut response = Body::from_stream(reader.stream()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

struct Reader {
    api: Arc<Api>,
    filter: Filter,
    next: u64,
    /// What he has heard, also where he did not want it.
    heard: Heard,
    /// True where he has to be told that something is missing.
    missed: bool,
    /// True until the first events of a resumed stream are told: only then may they be missing without the reader's fault.
    resuming: bool,
    over: bool,
    news: watch::Receiver<u64>,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    fn stream(self) -> impl Stream<Item = Result<String, Infallible>> + Send {
        // The first bytes are sent at once, so that the client sees the answer begin.
        futures::stream::unfold((self, Some(": skep\n\n".to_owned())), |(mut reader, first)| async move {
            let text = match first {
                Some(text) => text,
                None => reader.next().await?,
            };
            Some((Ok(text), (reader, None)))
        })
    }

    /// What the reader hears next; `None` where nothing follows.
    async fn next(&mut self) -> Option<String> {
        loop {
            if self.over || !self.api.tokens.lives(&self.filter.caller, now()) {
                return None;
            }
            if std::mem::take(&mut self.missed) {
                let mut output = String::new();
                write(&mut output, &self.heard, &untimed("missed", EventBody::Missed));
                return Some(output);
            }
            self.news.borrow_and_update();
            match self.api.events.read(self.next) {
                Read::Behind { first } if self.resuming => {
                    (self.next, self.missed) = (first, true);
                    self.heard.hear_all(&self.api.events.before());
                }
                Read::Behind { .. } => {
                    self.over = true;
                    return Some(untimed("dropped", EventBody::Dropped));
                }
                Read::Events(events) if events.is_empty() => {
                    self.resuming = false;
                    match tokio::time::timeout(BEAT, self.news.changed()).await {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return None,
                        Err(_) => return Some(": beat\n\n".to_owned()),
                    }
                }
                Read::Events(events) => {
                    self.resuming = false;
                    let told = self.tell(&events);
                    if !told.is_empty() {
                        return Some(told);
                    }
                }
            }
        }
    }

    /// What of these he has not heard yet, and wants to hear. What is missing in several places one after the other is said once.
    fn tell(&mut self, events: &[Arc<Event>]) -> String {
        let mut output = String::new();
        let missed = untimed("missed", EventBody::Missed);
        for event in events {
            self.next += 1;
            let Some(told) = &event.told else {
                write(&mut output, &self.heard, &missed);
                continue;
            };
            if self.heard.covers(told.life, told.number) {
                continue;
            }
            if event.is_after_gap && self.heard.of(told.life) != Some(told.before()) {
                self.heard.hear(told.life, told.before());
                write(&mut output, &self.heard, &missed);
            }
            self.heard.hear(told.life, told.number);
            match &told.what {
                What::Change(change) if self.filter.wants(change) => {
                    write(&mut output, &self.heard, event.text.get_or_init(|| text(change, event.at)));
                }
                What::Led(shard) if self.filter.job.is_none_or(|job| job.shard() == *shard) && !output.ends_with(&missed) => {
                    write(&mut output, &self.heard, &missed);
                }
                _ => {}
            }
        }
        output
    }
}

fn write(output: &mut String, heard: &Heard, text: &str) {
    write!(output, "id: {heard}\n{text}").expect("memory does not fail to be written");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(number: u64) -> Change {
        let role = Role::new("default").unwrap();
        Change::Job { job: JobId(number), role, title: "a\nb".into(), what: "ended".into() }
    }

    #[test]
    fn an_event_is_one_line_of_data_whatever_is_in_it() {
        let text = text(&change(42), Time(7));
        assert_eq!(
            text,
            "event: job\ndata: {\"event\":\"job\",\"job\":\"j2a\",\"role\":\"default\",\"title\":\"a\\nb\",\"what\":\"ended\",\"at_ms\":7}\n\n"
        );
    }
}
