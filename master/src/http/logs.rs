//! What tasks print, read from the agents that they are or were on: records on a bulk stream in, lines of JSON or the bare bytes out.

use super::access::Caller;
use super::body::Asked;
use super::error::{ApiError, ErrorAnswer};
use super::gate::Segment;
use super::records::{Record, records};
use super::{Api, find};
use crate::drive::told::{Told, What};
use crate::shard::event::{Change, JobRef};
use crate::shard::view::{JobView, PAGE_MAX, TaskView, View, Viewed};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use protocol::link::{LinkError, Receiver, Sender};
use protocol::message::{AGENT_LEAVES, BulkReply, BulkRequest};
use protocol::{AgentId, AttemptId, JobId, Kind, MemberId, Name, Phase, Template};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, broadcast};
use utoipa::{IntoParams, ToSchema};

/// Readers of logs at the same time.
pub const LOG_READERS_MAX: usize = 64;
/// Tasks of one job that are read at the same time: an agent allows sixteen streams, and others want some.
pub const TASKS_AT_ONCE_MAX: usize = 8;
/// So often it is looked whether an agent that is away is back.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// So often it is looked where a task is, though nothing was said of it.
const LOOK_ANYWAY: Duration = Duration::from_secs(5);
/// How long an agent may take to allow one more stream.
const OPEN_WITHIN: Duration = Duration::from_secs(5);

/// Which output.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct LogsQuery {
    /// The job's role, where the job is named by its name.
    pub role: Option<String>,
    /// Only this task's, by its index.
    pub task: Option<u32>,
    /// True: go on until the tasks have ended.
    #[serde(default)]
    pub follow: bool,
    /// Only what this member of a group printed, by its name; only with `task` where there is an `offset`.
    pub member: Option<String>,
    /// Only `stdout` or only `stderr`.
    pub stream: Option<String>,
    /// From this `next` on; only with `task`.
    pub offset: Option<u64>,
}

/// Something that a task printed, or why nothing more of it can be read.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct LogLine<'a> {
    /// `JOB.INDEX`.
    task: &'a str,
    /// The member of a group that printed it, by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<&'a str>,
    /// The number of the attempt; 0 where there is none.
    attempt: u32,
    /// `stdout` or `stderr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<&'a str>,
    /// What it printed at once, where that is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    /// What it printed at once, where it is not: base64 (RFC 4648 section 4).
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    /// What to ask `offset` to go on behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
    /// Why nothing more of it can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// Tells what tasks of a job printed: lines of JSON, or with `Accept: text/plain` the bytes alone.
#[utoipa::path(get, path = "/v1/jobs/{job}/logs", tag = "jobs", params(("job" = String, Path, description = "a job's name or id"), LogsQuery),
    responses((status = 200, body = inline(LogLine<'static>), content_type = "application/x-ndjson"), (status = 404, body = ErrorAnswer), (status = 429, body = ErrorAnswer)))]
pub async fn logs(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(job): Segment,
    Asked(query): Asked<LogsQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let view = find::job(&api, &caller, &job, query.role.as_deref()).await?;
    let stream = query.stream.as_deref().map(stream_number).transpose()?;
    if query.offset.is_some() && query.task.is_none() {
        return Err(ApiError::invalid("offset", "an offset is one task's: name the task"));
    }
    let all = Indexes::of(&api, &view).await?;
    let tasks = match query.task {
        Some(index) if all.has(index) => Indexes::Range(index..index + 1),
        Some(_) => return Err(ApiError::not_found("task")),
        None => all,
    };
    if query.follow && view.job.kind.lasts() && tasks.len() > TASKS_AT_ONCE_MAX {
        let message = format!("at most {TASKS_AT_ONCE_MAX} tasks of a service can be followed at once");
        return Err(ApiError::invalid("task", message).with_help("name one task"));
    }
    let place = api.log_readers.clone().try_acquire_owned();
    let place = place.map_err(|_| ApiError::busy(format!("{LOG_READERS_MAX} logs are being read already"), 1_000))?;
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    let shown = Shown { stream, plain: accept.starts_with("text/plain") };
    let members = members(&view.job.template, &query)?;
    let (id, follow, offset) = (view.id, query.follow, query.offset.unwrap_or(0));
    let each = tasks.into_iter().flat_map(move |index| members.clone().into_iter().map(move |(member, name)| (index, member, name)));
    let read = futures::stream::iter(each).map(move |(index, member, name)| {
        let reading = Reading::new(api.clone(), MemberPlace { job: id, index, member }, follow, offset);
        reading.stream(shown, name)
    });
    let body = Body::from_stream(Held { read: read.flatten_unordered(TASKS_AT_ONCE_MAX).boxed(), _place: place });
    let mut response = body.into_response();
    let kind = if shown.plain { "text/plain; charset=utf-8" } else { "application/x-ndjson" };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

/// The indexes of a job's tasks: of a system job those that have an agent.
enum Indexes {
    Range(Range<u32>),
    Some(Vec<u32>),
}

impl Indexes {
    async fn of(api: &Api, view: &JobView) -> Result<Self, ApiError> {
        if view.job.kind != Kind::System || view.ended.is_some() {
            return Ok(Self::Range(0..view.job.count));
        }
        let mut all = Vec::new();
        loop {
            let from = all.last().map_or(0, |last| last + 1);
            let asked = View::Tasks { job: JobRef::Id(view.id), from, limit: PAGE_MAX, phases: vec![] };
            let Viewed::Tasks(tasks) = find::view(api, view.id.shard(), asked).await? else {
                return Err(ApiError::internal("a shard answered another question than it was asked"));
            };
            all.extend(tasks.iter().map(|task| task.index));
            if tasks.len() < PAGE_MAX {
                return Ok(Self::Some(all));
            }
        }
    }

    fn has(&self, index: u32) -> bool {
        match self {
            Self::Range(range) => range.contains(&index),
            Self::Some(indexes) => indexes.binary_search(&index).is_ok(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Range(range) => range.len(),
            Self::Some(indexes) => indexes.len(),
        }
    }

    fn into_iter(self) -> Box<dyn Iterator<Item = u32> + Send> {
        match self {
            Self::Range(range) => Box::new(range),
            Self::Some(indexes) => Box::new(indexes.into_iter()),
        }
    }
}

/// Most bytes of an output that is read whole; what follows is left out.
const WHOLE_BYTES_MAX: usize = 16 << 20;

/// All that the one task of a job has printed so far on its `stream`, 1 or 2: of its last attempt.
///
/// # Errors
/// An [`ApiError`]: why it cannot be read now.
pub async fn whole(api: &Arc<Api>, job: JobId, stream: u8) -> Result<Vec<u8>, ApiError> {
    let place = api.log_readers.clone().try_acquire_owned();
    let _place = place.map_err(|_| ApiError::busy(format!("{LOG_READERS_MAX} logs are being read already"), 1_000))?;
    let mut reading = Reading::new(Arc::clone(api), MemberPlace { job, index: 0, member: 0 }, false, 0);
    let mut all = vec![];
    while let Some(piece) = reading.next().await {
        let (offset, bytes) = match piece {
            Piece::Chunk { offset, bytes, .. } => (offset, bytes),
            Piece::Error { reason, .. } => return Err(ApiError::conflict(reason)),
        };
        for record in records(offset, &bytes) {
            let record = record.map_err(|error| ApiError::internal(error.to_string()))?;
            let part = if record.stream == stream { record.bytes } else { &[] };
            all.extend_from_slice(&part[..part.len().min(WHOLE_BYTES_MAX - all.len())]);
        }
    }
    Ok(all)
}

/// The members that are read, with their names where there are several.
fn members(template: &Template, query: &LogsQuery) -> Result<Vec<(u8, Option<Name>)>, ApiError> {
    let all = (0..).zip(template.members.iter().map(|member| member.name.clone()));
    let wanted: Vec<_> =
        all.filter(|(_, name)| query.member.is_none() || name.as_ref().map(Name::as_str) == query.member.as_deref()).collect();
    if wanted.is_empty() {
        return Err(ApiError::not_found("member"));
    }
    if query.offset.is_some() && wanted.len() > 1 {
        return Err(ApiError::invalid("offset", "an offset is one member's: name the member"));
    }
    Ok(wanted)
}

fn stream_number(text: &str) -> Result<u8, ApiError> {
    match text {
        "stdout" => Ok(1),
        "stderr" => Ok(2),
        _ => Err(ApiError::invalid("stream", "a stream is stdout or stderr")),
    }
}

/// A stream that holds a reader's place for as long as it is read.
struct Held {
    read: futures::stream::BoxStream<'static, Bytes>,
    _place: OwnedSemaphorePermit,
}

impl Stream for Held {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<Self::Item>> {
        self.read.poll_next_unpin(cx).map(|bytes| bytes.map(Ok))
    }
}

/// How people call whose output it is.
#[derive(Clone, Copy)]
struct Whose<'a> {
    task: &'a str,
    member: Option<&'a str>,
}

/// What of the output is shown, and how.
#[derive(Clone, Copy)]
struct Shown {
    stream: Option<u8>,
    plain: bool,
}

/// Something read.
enum Piece {
    Chunk { attempt: u32, offset: u64, bytes: Bytes },
    Error { attempt: u32, reason: String },
}

/// Whose output is read.
#[derive(Clone, Copy)]
struct MemberPlace {
    job: JobId,
    index: u32,
    member: u8,
}

/// One member's output, attempt after attempt.
struct Reading {
    api: Arc<Api>,
    of: MemberPlace,
    follow: bool,
    /// Where the first attempt that is read begins.
    offset: u64,
    changes: Option<broadcast::Receiver<Arc<Told>>>,
    /// The stream of an attempt; the sender is kept, since dropping it would give the stream up.
    open: Option<(AttemptId, Sender, Receiver)>,
    /// The last attempt that was read to its end.
    read: u32,
    /// How far an attempt was read whose stream is not at its end.
    reached: Option<(u32, u64)>,
    over: bool,
}

impl Reading {
    fn new(api: Arc<Api>, of: MemberPlace, follow: bool, offset: u64) -> Self {
        Self { api, of, follow, offset, changes: None, open: None, read: 0, reached: None, over: false }
    }

    fn stream(self, shown: Shown, member: Option<Name>) -> futures::stream::BoxStream<'static, Bytes> {
        let task = format!("{}.{}", self.of.job, self.of.index);
        let pieces = futures::stream::unfold(self, |mut reading| async move {
            let piece = reading.next().await?;
            Some((piece, reading))
        });
        let bytes = move |piece| shown.bytes(Whose { task: &task, member: member.as_ref().map(Name::as_str) }, &piece);
        pieces.map(bytes).filter(|bytes| std::future::ready(!bytes.is_empty())).boxed()
    }

    async fn next(&mut self) -> Option<Piece> {
        while !self.over {
            let piece = match &mut self.open {
                Some((attempt, _, receiver)) => {
                    let attempt = attempt.number;
                    let heard = receiver.next::<BulkReply>().await;
                    self.heard(attempt, heard)
                }
                None => self.step().await,
            };
            if piece.is_some() {
                return piece;
            }
        }
        None
    }

    fn heard(&mut self, attempt: u32, heard: Result<Option<BulkReply>, LinkError>) -> Option<Piece> {
        let (reason, is_cut) = match heard {
            Ok(Some(BulkReply::Chunk { offset, bytes })) => {
                self.reached = Some((attempt, offset + bytes.len() as u64));
                return Some(Piece::Chunk { attempt, offset, bytes });
            }
            Ok(Some(BulkReply::End)) => (None, false),
            Ok(Some(BulkReply::Failed { reason })) => (Some(reason.clone()), reason == AGENT_LEAVES),
            Ok(None) => (Some("the agent ended the stream without a word".to_owned()), true),
            Err(error) => (Some(error.to_string()), true),
        };
        self.open = None;
        if self.follow && is_cut {
            // The task goes on without its agent, and so does this once that is back.
            return None;
        }
        self.read = attempt;
        self.over = !self.follow || reason.is_some();
        reason.map(|reason| Piece::Error { attempt, reason })
    }

    /// Looks where the task is, and opens a stream there or waits until it is elsewhere.
    async fn step(&mut self) -> Option<Piece> {
        if self.follow && self.changes.is_none() {
            self.changes = Some(self.api.door.changes());
        }
        let task = match self.task().await {
            Ok(task) => task,
            // Nobody leads its shard now.
            Err(error) if self.follow && error.status() == StatusCode::SERVICE_UNAVAILABLE => {
                tokio::time::sleep(LOOK_AGAIN).await;
                return None;
            }
            Err(error) => return self.failed(self.read, error.body().message.clone()),
        };
        match task.agent {
            // It is away, and may be back.
            Some(agent) if self.follow && !task.phase.is_end() && self.api.door.agent_connection(agent).is_none() => {
                let _ = tokio::time::timeout(LOOK_AGAIN, self.changed()).await; // Either is a reason to look.
                None
            }
            // Until it has heard of the launch, the agent knows nothing of the attempt.
            Some(agent) if task.attempt > self.read && task.phase != Phase::Staging => self.connect(agent, task.attempt).await,
            _ if !self.follow || task.phase.is_end() => {
                self.over = true;
                None
            }
            _ => {
                // What another master says of its shards may be lost with it.
                let _ = tokio::time::timeout(LOOK_ANYWAY, self.changed()).await;
                None
            }
        }
    }

    async fn task(&self) -> Result<TaskView, ApiError> {
        let view = View::Tasks { job: JobRef::Id(self.of.job), from: self.of.index, limit: 1, phases: vec![] };
        let Viewed::Tasks(tasks) = find::view(&self.api, self.of.job.shard(), view).await? else {
            return Err(ApiError::internal("a shard answered another question than it was asked"));
        };
        tasks.into_iter().find(|task| task.index == self.of.index).ok_or_else(|| ApiError::not_found("task"))
    }

    async fn connect(&mut self, agent: AgentId, number: u32) -> Option<Piece> {
        let Some(connection) = self.api.door.agent_connection(agent) else {
            return self.failed(number, format!("agent {agent} is not connected"));
        };
        let attempt = AttemptId::new(self.of.job, self.of.index, number);
        let first = std::mem::take(&mut self.offset);
        let offset = self.reached.filter(|(of, _)| *of == number).map_or(first, |(_, offset)| offset);
        self.reached = Some((number, offset));
        let request = BulkRequest::Log { member: MemberId { attempt, member: self.of.member }, offset, follow: self.follow };
        let opened = tokio::time::timeout(OPEN_WITHIN, async {
            let (mut sender, receiver) = connection.open_bulk().await?;
            sender.send(&request).await?;
            Ok::<_, LinkError>((attempt, sender, receiver))
        });
        match opened.await {
            Ok(Ok(open)) => {
                self.open = Some(open);
                None
            }
            // It went away at this moment.
            Ok(Err(_)) if self.follow => {
                tokio::time::sleep(LOOK_AGAIN).await;
                None
            }
            Ok(Err(error)) => self.failed(number, error.to_string()),
            Err(_) => self.failed(number, format!("agent {agent} allows no more streams now")),
        }
    }

    fn failed(&mut self, attempt: u32, reason: String) -> Option<Piece> {
        self.over = true;
        Some(Piece::Error { attempt, reason })
    }

    /// Waits until something of the job changes.
    async fn changed(&mut self) {
        let Some(changes) = &mut self.changes else { return };
        loop {
            match changes.recv().await {
                Ok(told) => match &told.what {
                    What::Change(Change::Job { job, .. } | Change::Tasks { job, .. }) if *job == self.of.job => return,
                    What::Led(shard) if *shard == self.of.job.shard() => return,
                    _ => {}
                },
                Err(broadcast::error::RecvError::Lagged(_)) => return,
                Err(broadcast::error::RecvError::Closed) => {
                    self.over = true;
                    return;
                }
            }
        }
    }
}

impl Shown {
    fn bytes(self, whose: Whose<'_>, piece: &Piece) -> Bytes {
        let mut output = BytesMut::new();
        match piece {
            Piece::Error { attempt, reason } => self.error(&mut output, whose, *attempt, reason),
            Piece::Chunk { attempt, offset, bytes } => {
                for record in records(*offset, bytes) {
                    match record {
                        Ok(record) => self.record(&mut output, whose, *attempt, &record),
                        Err(error) => self.error(&mut output, whose, *attempt, &error.to_string()),
                    }
                }
            }
        }
        output.freeze()
    }

    fn record(self, output: &mut BytesMut, whose: Whose<'_>, attempt: u32, record: &Record<'_>) {
        if self.stream.is_some_and(|wanted| wanted != record.stream) {
            return;
        }
        if self.plain {
            return output.extend_from_slice(record.bytes);
        }
        let text = std::str::from_utf8(record.bytes).ok();
        let base64 = text.is_none().then(|| base64::engine::general_purpose::STANDARD.encode(record.bytes));
        let stream = Some(if record.stream == 1 { "stdout" } else { "stderr" });
        line(
            output,
            &LogLine { task: whose.task, member: whose.member, attempt, stream, text, base64, next: Some(record.next), error: None },
        );
    }

    fn error(self, output: &mut BytesMut, whose: Whose<'_>, attempt: u32, reason: &str) {
        match self.plain {
            true => output.extend_from_slice(format!("{}#{attempt}: {reason}\n", whose.task).as_bytes()),
            false => line(output, &LogLine { task: whose.task, member: whose.member, attempt, error: Some(reason), ..LogLine::default() }),
        }
    }
}

fn line(output: &mut BytesMut, line: &LogLine<'_>) {
    serde_json::to_writer(output.writer(), line).expect("a line has text for keys, and memory does not fail to be written");
    output.put_u8(b'\n');
}
