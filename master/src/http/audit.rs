//! Who changed what over HTTP: each call that is to change something goes into this master's audit record when it is answered, and the record is
//! shown, the newest first. Of a call it has the token's id, the time, the path and the status: no secret, no query, no body.

mod files;

use super::Api;
use super::access::{Caller, TOKEN_PREFIX, now};
use super::body::Asked;
use super::error::{ApiError, ErrorAnswer};
use super::marathon::timestamp;
use crate::shard::event::Level;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use files::{Call, FILE_BYTES_MAX, Files};
use protocol::Time;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use tokio::sync::{mpsc, oneshot};
use utoipa::{IntoParams, ToSchema};

/// Calls that wait to be written; at the limit the answers of others wait.
const WAITING_MAX: usize = 4_096;
/// Calls that are written at once.
const BATCH_MAX: usize = 256;
/// Bytes of a path that are kept.
const PATH_BYTES_MAX: usize = 512;
/// Letters of a token's id: what a caller puts into a path behind them may be a secret.
const TOKEN_ID_LETTERS: usize = 16;
/// Bytes of what a call was that are kept.
const WHAT_BYTES_MAX: usize = 40;
/// Calls in one answer where nobody says, and the most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;
/// `POST` there changes nothing.
const HARMLESS: [&str; 2] = ["/v1/plan", "/v1/what-if"];
/// `GET` there is more than a look: who has a backup has the keys of the cluster.
const MORE_THAN_LOOKS: [&str; 1] = ["/v1/backup"];

/// What stands on record as the status of an answer that says otherwise that it is none of success; one of its extensions.
#[derive(Clone, Copy, Debug)]
pub struct Judged(pub StatusCode);

/// What is asked of the thread that owns the files.
#[derive(Debug)]
enum Wish {
    Add(Call),
    Read { before: u64, limit: usize, answer: oneshot::Sender<io::Result<Vec<Call>>> },
}

/// The record of this master.
#[derive(Debug)]
pub struct Audit {
    /// `None`: there is nowhere to keep it.
    wishes: Option<mpsc::Sender<Wish>>,
}

impl Audit {
    /// The one below `data_dir`, written by a thread of its own for as long as this is there.
    pub fn start(data_dir: &Path) -> Self {
        let begun = Files::open(data_dir.join("audit"), FILE_BYTES_MAX).and_then(|files| {
            let (wishes, wished) = mpsc::channel(WAITING_MAX);
            std::thread::Builder::new().name("audit".into()).spawn(move || keep(files, wished)).map(|_| wishes)
        });
        match begun {
            Ok(wishes) => Self { wishes: Some(wishes) },
            Err(error) => {
                tracing::warn!(%error, "no audit record is kept");
                Self { wishes: None }
            }
        }
    }

    /// Has `request` answered, and puts it on record where it is to change something; also where its client leaves before that.
    pub async fn answered(&self, caller: &Caller, request: Request, next: Next) -> Response {
        let Some(wishes) = self.wishes.as_ref().filter(|_| is_to_change(request.method(), request.uri().path())) else {
            return next.run(request).await;
        };
        let call = Call {
            number: 0,
            at_ms: now().0,
            token: caller.token.to_string(),
            method: request.method().as_str().chars().take(WHAT_BYTES_MAX).collect(),
            path: harmless(request.uri().path()),
            what: None,
            status: None,
        };
        let note = Arc::new(OnceLock::new());
        let pending = Pending { wishes: wishes.clone(), note: Arc::clone(&note), call: Some(call) };
        let response = NOTE.scope(note, next.run(request)).await;
        let status = response.extensions().get::<Judged>().map_or(response.status(), |judged| judged.0);
        pending.done(status.as_u16()).await;
        response
    }

    async fn before(&self, before: u64, limit: usize) -> Result<Vec<Call>, ApiError> {
        let wishes = self.wishes.as_ref().ok_or_else(|| ApiError::not_implemented("this master has nowhere to keep an audit record"))?;
        let (answer, answered) = oneshot::channel();
        let gone = || ApiError::internal("the thread that keeps the audit record has ended");
        wishes.send(Wish::Read { before, limit, answer }).await.map_err(|_| gone())?;
        let read = answered.await.map_err(|_| gone())?;
        read.map_err(|error| ApiError::internal(format!("the audit record cannot be read: {error}")))
    }
}

/// Writes and reads as it is asked, until nobody can ask.
fn keep(mut files: Files, mut wished: mpsc::Receiver<Wish>) {
    let (mut wishes, mut calls) = (Vec::new(), Vec::new());
    while wished.blocking_recv_many(&mut wishes, BATCH_MAX) > 0 {
        for wish in wishes.drain(..) {
            match wish {
                Wish::Add(call) => calls.push(call),
                Wish::Read { before, limit, answer } => {
                    add(&mut files, &mut calls);
                    // Who asked may have left.
                    let _ = answer.send(files.before(before, limit));
                }
            }
        }
        add(&mut files, &mut calls);
    }
}

fn add(files: &mut Files, calls: &mut Vec<Call>) {
    if calls.is_empty() {
        return;
    }
    if let Err(error) = files.add(calls) {
        tracing::warn!(%error, calls = calls.len(), "calls are missing in the audit record");
    }
    calls.clear();
}

/// What an adapter says of the call that is being answered.
#[derive(Clone, Debug)]
enum Note {
    Is(String),
    ChangesNothing,
}

tokio::task_local! {
    static NOTE: Arc<OnceLock<Note>>;
}

/// The call that is being answered is this: its path does not say it.
pub fn it_is(what: &str) {
    let text = what.chars().filter(|letter| letter.is_ascii_alphabetic() || *letter == '_').take(WHAT_BYTES_MAX).collect();
    // Where no call is put on record there is no note, and what was said first stands.
    let _ = NOTE.try_with(|note| note.set(Note::Is(text)));
}

/// The call that is being answered changes nothing, though its method says that it might.
pub fn it_changes_nothing() {
    let _ = NOTE.try_with(|note| note.set(Note::ChangesNothing));
}

/// A call that is being answered.
struct Pending {
    wishes: mpsc::Sender<Wish>,
    note: Arc<OnceLock<Note>>,
    /// `None`: it is on record.
    call: Option<Call>,
}

impl Pending {
    async fn done(mut self, status: u16) {
        if let Some(call) = &mut self.call {
            call.status = Some(status);
        }
        // Where the client leaves while this waits, `drop` has the call still.
        if let Ok(place) = self.wishes.reserve().await
            && let Some(call) = noted(&self.note, self.call.take())
        {
            place.send(Wish::Add(call));
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(call) = noted(&self.note, self.call.take())
            && self.wishes.try_send(Wish::Add(call)).is_err()
        {
            tracing::warn!("a call whose client left is missing in the audit record");
        }
    }
}

/// The call with what was said of it, unless that is that it changes nothing.
fn noted(note: &OnceLock<Note>, call: Option<Call>) -> Option<Call> {
    let call = call?;
    match note.get() {
        None => Some(call),
        Some(Note::Is(what)) => Some(Call { what: Some(what.clone()), ..call }),
        Some(Note::ChangesNothing) => None,
    }
}

fn is_to_change(method: &Method, path: &str) -> bool {
    match *method {
        Method::GET | Method::HEAD => MORE_THAN_LOOKS.contains(&path),
        Method::OPTIONS => false,
        _ => !HARMLESS.contains(&path),
    }
}

/// A path without what may be a secret, and not longer than [`PATH_BYTES_MAX`].
fn harmless(path: &str) -> String {
    let shown = path.find(TOKEN_PREFIX).unwrap_or(path.len());
    let tokens = "/v1/tokens/";
    let shown = if path.starts_with(tokens) { shown.min(tokens.len() + TOKEN_ID_LETTERS) } else { shown };
    let shown = path.floor_char_boundary(shown.min(PATH_BYTES_MAX));
    if shown < path.len() { format!("{}…", &path[..shown]) } else { path.to_owned() }
}

/// Which part of the record.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Calls of numbers below this: `next` of the page before.
    pub before: Option<u64>,
    /// Most calls in the answer, 1 to 1,000; 100 where nothing is said.
    pub limit: Option<usize>,
}

/// A call that was to change something.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AuditRow {
    /// Its number at this master, rising in the order in which calls were answered.
    pub number: u64,
    /// When it came in, in milliseconds of the Unix epoch.
    pub at_ms: u64,
    /// The same for people: date and time of day in UTC.
    pub at: String,
    /// The id of the caller's token; nothing at an address where none is asked for.
    pub token: Option<String>,
    /// `POST`, say.
    pub method: String,
    /// The path, without the query; cut where a secret may have been put into it.
    pub path: String,
    /// What it was, where the path does not say it: a framework's calls, and those of Mesos' API.
    pub what: Option<String>,
    /// The status of its answer; nothing where its client left before that: then it may have been done.
    pub status: Option<u16>,
}

/// A part of the audit record of a master.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AuditPage {
    /// Which master.
    pub master: u16,
    /// The calls, the newest first.
    pub calls: Vec<AuditRow>,
    /// What to ask for as `before` to go on; nothing at the end.
    pub next: Option<u64>,
}

impl From<Call> for AuditRow {
    fn from(call: Call) -> Self {
        let Call { number, at_ms, token, method, path, what, status } = call;
        Self { number, at_ms, at: timestamp(Time(at_ms)), token: Some(token).filter(|id| !id.is_empty()), method, path, what, status }
    }
}

/// Who called this master to change something, and what became of it: the newest first. Calls that show no good token are not there. Each master has
/// its own record.
#[utoipa::path(get, path = "/v1/audit", tag = "cluster", params(AuditQuery),
    responses((status = 200, body = AuditPage), (status = 403, body = ErrorAnswer), (status = 501, body = ErrorAnswer)))]
pub async fn list(State(api): State<Arc<Api>>, caller: Caller, Asked(query): Asked<AuditQuery>) -> Result<Json<AuditPage>, ApiError> {
    caller.must_for_all(Level::Operator)?;
    let limit = query.limit.unwrap_or(PAGE);
    if limit == 0 || limit > PAGE_MAX {
        return Err(ApiError::invalid("limit", format!("1 to {PAGE_MAX} calls")));
    }
    let calls = api.audit.before(query.before.unwrap_or(u64::MAX), limit).await?;
    let next = calls.last().filter(|_| calls.len() == limit).map(|call| call.number);
    let master = api.door.peers().own().number;
    Ok(Json(AuditPage { master, calls: calls.into_iter().map(AuditRow::from).collect(), next }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_kept_without_what_may_be_a_secret() {
        let long = format!("/v1/jobs/{}", "é".repeat(600));
        for (path, expected) in [
            ("/v1/jobs/web/scale", "/v1/jobs/web/scale"),
            ("/v1/tokens/0123456789abcdef", "/v1/tokens/0123456789abcdef"),
            ("/v1/tokens/0123456789abcdef.5ecret.0", "/v1/tokens/0123456789abcdef…"),
            ("/v1/tokens/skep_0123456789abcdef_5ecret", "/v1/tokens/…"),
            ("/v2/apps/skep_0123456789abcdef_5ecret", "/v2/apps/…"),
        ] {
            assert_eq!(harmless(path), expected);
        }
        assert!(harmless(&long).len() <= PATH_BYTES_MAX + 3 && harmless(&long).ends_with("é…"));
    }

    #[test]
    fn a_call_that_is_dropped_before_its_answer_is_on_record_without_one() {
        let (wishes, mut wished) = mpsc::channel(1);
        let (method, path) = ("POST".to_owned(), "/v1/jobs".to_owned());
        let call = Call { number: 0, at_ms: 1, token: "a".into(), method, path, what: None, status: None };
        drop(Pending { wishes, note: Arc::default(), call: Some(call) });
        let Ok(Wish::Add(call)) = wished.try_recv() else { panic!("it is not on record") };
        assert_eq!((call.path.as_str(), call.status), ("/v1/jobs", None));
    }

    #[test]
    fn what_changes_nothing_is_told_by_method_and_path() {
        for (method, path, expected) in [
            (Method::GET, "/v1/jobs", false),
            (Method::HEAD, "/v1/jobs", false),
            (Method::GET, "/v1/backup", true),
            (Method::POST, "/v1/plan", false),
            (Method::POST, "/v1/jobs", true),
            (Method::DELETE, "/v2/apps/a", true),
            (Method::PUT, "/v1/roles/web", true),
        ] {
            assert_eq!(is_to_change(&method, path), expected, "{method} {path}");
        }
    }
}
