//! What changes, as server-sent events (WHATWG HTML section 9.2): numbered, kept for a while, and told from any number that is still kept.

use super::Api;
use super::access::{Caller, now};
use super::body::{self, Asked};
use super::error::{ApiError, ErrorAnswer};
use super::jobs_json::phase_text;
use crate::shard::event::{Change, Level};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use protocol::{JobId, Role};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::{IntoParams, ToSchema};

/// Events that are kept.
pub const EVENTS_MAX: usize = 4_096;
/// Attempts that are named in all events that are kept.
pub const EVENTS_ATTEMPTS_MAX: usize = 65_536;
/// Readers at the same time.
pub const READERS_MAX: usize = 256;
/// Events that are told at a time.
const BATCH_MAX: usize = 64;
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
        /// `registered`, `unreachable`, `reachable`, `lost`, `gone`.
        what: &'a str,
    },
    /// The tokens on record are others now.
    Tokens,
    /// The policies of roles are others now.
    Policies,
    /// Masters were let in, moved or removed.
    Masters,
    /// Some events are kept no longer: what they said has to be asked for.
    Missed,
    /// The reader was too slow: nothing follows in this stream.
    Dropped,
}

/// An attempt and where it is.
#[derive(Debug, Serialize, ToSchema)]
pub struct AttemptBody {
    /// `JOB.INDEX#N`.
    pub attempt: String,
    /// The agent's id.
    pub agent: String,
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
}

/// The events that are kept.
#[derive(Debug)]
pub struct EventLog {
    ring: Mutex<Ring>,
    /// The number of the next event.
    newest: watch::Sender<u64>,
    /// Says which process numbered the events.
    origin: String,
    readers: Arc<tokio::sync::Semaphore>,
}

#[derive(Debug, Default)]
struct Ring {
    /// The number of the first event that is kept.
    first: u64,
    events: VecDeque<Arc<Event>>,
    attempts: usize,
}

#[derive(Debug)]
struct Event {
    change: Arc<Change>,
    /// Its two lines, made when the first reader wants them.
    text: OnceLock<String>,
}

enum Read {
    Events(Vec<Arc<Event>>),
    Behind { first: u64 },
}

impl EventLog {
    /// No events yet; `origin` is told apart from that of any other start.
    pub fn new(origin: String) -> Self {
        let readers = Arc::new(tokio::sync::Semaphore::new(READERS_MAX));
        Self { ring: Mutex::default(), newest: watch::Sender::new(0), origin, readers }
    }

    /// Keeps one more.
    pub fn push(&self, change: Arc<Change>) {
        let mut ring = self.ring();
        ring.attempts += attempts(&change);
        ring.events.push_back(Arc::new(Event { change, text: OnceLock::new() }));
        while ring.events.len() > EVENTS_MAX || (ring.attempts > EVENTS_ATTEMPTS_MAX && ring.events.len() > 1) {
            let Some(oldest) = ring.events.pop_front() else { break };
            ring.attempts -= attempts(&oldest.change);
            ring.first += 1;
        }
        let next = ring.first + ring.events.len() as u64;
        drop(ring);
        self.newest.send_replace(next);
    }

    /// Says that `missed` events were never seen here: readers are told so.
    pub fn skip(&self, missed: u64) {
        let mut ring = self.ring();
        ring.first += ring.events.len() as u64 + missed;
        ring.events.clear();
        ring.attempts = 0;
        let next = ring.first;
        drop(ring);
        self.newest.send_replace(next);
    }

    fn read(&self, from: u64) -> Read {
        let ring = self.ring();
        match from.checked_sub(ring.first) {
            None => Read::Behind { first: ring.first },
            Some(skipped) => {
                let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
                Read::Events(ring.events.iter().skip(skipped).take(BATCH_MAX).cloned().collect())
            }
        }
    }

    /// The number after that which `text` names; `None` where it is of another process, or none that was given yet.
    fn after(&self, text: &str) -> Option<u64> {
        let number = text.strip_prefix(self.origin.as_str())?.strip_prefix('-')?.parse::<u64>().ok()?;
        (number < *self.newest.borrow()).then_some(number + 1)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Nothing inside the lock can panic half way.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn attempts(change: &Change) -> usize {
    match change {
        Change::Tasks { placed, .. } => placed.len(),
        _ => 0,
    }
}

fn text(change: &Change) -> String {
    let (name, body) = match change {
        Change::Job { job, role, title, what } => ("job", EventBody::Job { job: job.to_string(), role: role.as_str(), title, what }),
        Change::Tasks { job, role, phase, placed } => {
            let attempts = placed.iter().map(|placed| AttemptBody { attempt: placed.attempt.to_string(), agent: placed.agent.to_string() });
            (
                "tasks",
                EventBody::Tasks { job: job.to_string(), role: role.as_str(), phase: phase_text(*phase), attempts: attempts.collect() },
            )
        }
        Change::Agent { agent, name, what } => ("agent", EventBody::Agent { agent: agent.to_string(), name, what }),
        Change::Tokens => ("tokens", EventBody::Tokens),
        Change::Policies => ("policies", EventBody::Policies),
        Change::Masters => ("masters", EventBody::Masters),
    };
    lines(name, &body)
}

fn lines(name: &str, body: &EventBody<'_>) -> String {
    let data = serde_json::to_string(body).expect("an event has text for keys");
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
            Change::Job { job, role, .. } | Change::Tasks { job, role, .. } => {
                let wanted = self.role.as_ref().is_none_or(|wanted| wanted == role) && self.job.is_none_or(|wanted| wanted == *job);
                wanted && self.caller.sees(role)
            }
            Change::Agent { .. } => self.role.is_none() && self.job.is_none(),
            Change::Tokens | Change::Policies | Change::Masters => {
                self.role.is_none() && self.job.is_none() && self.caller.must_own_cluster().is_ok()
            }
        }
    }
}

/// Tells what changes, from now on or from the event after `Last-Event-ID`.
#[utoipa::path(get, path = "/v1/events", tag = "cluster", params(EventsQuery, ("Last-Event-ID" = Option<String>, Header, description = "the last event that was heard")),
    responses((status = 200, body = inline(EventBody<'static>), content_type = "text/event-stream"), (status = 429, body = ErrorAnswer)))]
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
    let place = api.events.readers.clone().try_acquire_owned();
    let place = place.map_err(|_| ApiError::busy(format!("{READERS_MAX} readers of events are there already"), 1_000))?;
    let last = headers.get("last-event-id").map(|value| value.to_str().unwrap_or(""));
    let (next, missed) = match last {
        None => (*api.events.newest.borrow(), false),
        Some(last) => api.events.after(last).map_or((api.events.ring().first, true), |next| (next, false)),
    };
    let heard = api.events.newest.subscribe();
    let reader =
        Reader { filter: Filter { caller, role, job }, api, next, missed, resuming: last.is_some(), over: false, heard, _place: place };
    let mut response = Body::from_stream(reader.stream()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

struct Reader {
    api: Arc<Api>,
    filter: Filter,
    next: u64,
    /// True where the reader has to be told that events are missing.
    missed: bool,
    /// True until the first events of a resumed stream are told: only then may they be missing without the reader's fault.
    resuming: bool,
    over: bool,
    heard: watch::Receiver<u64>,
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
                return Some(lines("missed", &EventBody::Missed));
            }
            self.heard.borrow_and_update();
            match self.api.events.read(self.next) {
                Read::Behind { first } if self.resuming => (self.next, self.missed) = (first, true),
                Read::Behind { .. } => {
                    self.over = true;
                    return Some(lines("dropped", &EventBody::Dropped));
                }
                Read::Events(events) if events.is_empty() => {
                    self.resuming = false;
                    match tokio::time::timeout(BEAT, self.heard.changed()).await {
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

    fn tell(&mut self, events: &[Arc<Event>]) -> String {
        let mut told = String::new();
        for event in events {
            let number = self.next;
            self.next += 1;
            if self.filter.wants(&event.change) {
                let text = event.text.get_or_init(|| text(&event.change));
                write!(told, "id: {}-{number}\n{text}", self.api.events.origin).expect("memory does not fail to be written");
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(number: u64) -> Arc<Change> {
        let role = Role::new("default").unwrap();
        Arc::new(Change::Job { job: JobId(number), role, title: "a\nb".into(), what: "ended".into() })
    }

    #[test]
    fn what_is_kept_can_be_read_again_and_the_rest_is_said_to_be_missed() {
        let log = EventLog::new("x".into());
        assert_eq!(log.after("x-0"), None);
        for number in 0..EVENTS_MAX as u64 + 2 {
            log.push(change(number));
        }
        assert!(matches!(log.read(1), Read::Behind { first: 2 }));
        assert!(matches!(log.read(2), Read::Events(events) if events.len() == BATCH_MAX));
        assert!(matches!(log.read(u64::MAX), Read::Events(events) if events.is_empty()));
        assert_eq!(log.after("x-7"), Some(8));
        for bad in ["", "x", "x-", "y-7", "x-99999999", "7"] {
            assert_eq!(log.after(bad), None, "{bad}");
        }
        log.skip(10);
        assert!(matches!(log.read(8), Read::Behind { .. }));
    }

    #[test]
    fn an_event_is_one_line_of_data_whatever_is_in_it() {
        let text = text(&change(42));
        assert_eq!(
            text,
            "event: job\ndata: {\"event\":\"job\",\"job\":\"j2a\",\"role\":\"default\",\"title\":\"a\\nb\",\"what\":\"ended\"}\n\n"
        );
    }
}
