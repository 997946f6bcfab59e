//! `POST /v1/submit`: jobs as lines of JSON in, answers as lines of JSON out, in the order in which they are known, each after its commit.
//!
//! One state machine is the body of the answer: whoever reads it drives it. So nothing is spawned for a stream or a line, and a client
//! that reads no answers is read no further.

use super::access::{Caller, now};
use super::body::TEXT_BYTES_MAX;
use super::error::{ApiError, ErrorAnswer, ErrorBody, unexpected};
use super::jobs::{good_key, home};
use super::jobs_json::counts;
use super::lines::{Cut, Lines};
use super::streams::{SUBMIT_IN_FLIGHT_MAX, Share};
use super::{Api, spec};
use crate::admit::{Format, JobSpec};
use crate::shard::event::{Level, Request, Response as Answer};
use crate::shard::view::JobView;
use crate::travel::{Came, Teller};
use axum::body::{Body, HttpBody};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::future::BoxFuture;
use hyper::body::Frame;
use protocol::{Digest, Job, JobId, RequestId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use utoipa::ToSchema;

/// Jobs of one stream whose end is waited for; at the limit it is read no further.
pub const SUBMIT_FOLLOWED_MAX: usize = 65_536;
/// Longest line, in bytes.
pub const LINE_BYTES_MAX: usize = TEXT_BYTES_MAX;
/// Lines that are taken before others on this thread get a turn.
const LINES_PER_TURN_MAX: usize = 512;
/// Answers that are written before they are sent.
const ANSWERS_PER_TURN_MAX: usize = 1_024;
/// Admitted jobs that one stream remembers, and the longest text of one.
const REMEMBERED_MAX: usize = 64;
const REMEMBERED_BYTES_MAX: usize = 4_096;

/// One line in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    /// The idempotency key.
    key: Option<String>,
    /// The job, as in a job file.
    #[serde(borrow)]
    #[schema(value_type = Object)]
    job: &'a RawValue,
    /// True: say also when it has ended.
    #[serde(default)]
    follow: bool,
}

/// One line out: the commit of a submission, its end, or why there is none.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct LineAnswer<'a> {
    /// Which line of the stream it answers, from 1.
    line: u64,
    /// That line's idempotency key.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    /// The job's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Says that it is on record; false where an earlier submission with the same key made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    new: Option<bool>,
    /// How it ended, in a line of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<EndBody>,
    /// Why it was not taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a ErrorBody>,
}

/// How a job ended.
#[derive(Debug, Serialize, ToSchema)]
pub struct EndBody {
    /// How many of its tasks are in which state.
    tasks: BTreeMap<&'static str, u32>,
    /// How many attempts ended and were followed by another.
    restarts: u64,
    /// When, in milliseconds of the Unix epoch.
    ended_ms: u64,
}

/// Submits many jobs: one line of JSON for each, `{"key":…, "job":{…}, "follow":false}`. The answer is a stream too, a line for each commit
/// and for each end that is followed, as they come.
#[utoipa::path(post, path = "/v1/submit", tag = "jobs", request_body(content = String, content_type = "application/x-ndjson"),
    responses((status = 200, body = inline(LineAnswer<'static>), content_type = "application/x-ndjson"), (status = 401, body = ErrorAnswer), (status = 429, body = ErrorAnswer)))]
pub async fn submit(State(api): State<Arc<Api>>, caller: Caller, body: Body) -> Result<Response, ApiError> {
    caller.must_level(Level::Operator)?;
    let share = api.streams.enter()?;
    let mut response = Body::new(Submissions::new(api, caller, share, body)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

/// A submission on its way.
struct Pending {
    line: u64,
    key: Option<Box<str>>,
    follow: bool,
    /// Its id, once it is committed.
    job: Option<JobId>,
    /// When it came, where that is told.
    came: Option<Came>,
}

/// A line that was read, without its job.
struct Head {
    line: u64,
    key: Option<String>,
    follow: bool,
}

type Looking = BoxFuture<'static, Result<(), ApiError>>;
type Judging = BoxFuture<'static, Result<Job, ApiError>>;

struct Submissions {
    api: Arc<Api>,
    caller: Caller,
    share: Share,
    input: Option<Body>,
    lines: Lines,
    read: u64,
    /// Jobs by the text that they were admitted from.
    remembered: HashMap<Box<[u8]>, Job>,
    /// A line whose bundle is being looked at; nothing is read meanwhile.
    looking: Option<(Looking, Head, JobSpec)>,
    /// A line whose job its role's policy judges; nothing is read meanwhile.
    judging: Option<(Judging, Head)>,
    pending: Vec<Option<Pending>>,
    free: Vec<usize>,
    uncommitted: usize,
    followed: usize,
    replies: mpsc::Sender<(RequestId, Answer)>,
    answers: mpsc::Receiver<(RequestId, Answer)>,
    batch: Vec<(RequestId, Answer)>,
    output: BytesMut,
}

impl Submissions {
    fn new(api: Arc<Api>, caller: Caller, share: Share, body: Body) -> Self {
        let (replies, answers) = mpsc::channel(2 * SUBMIT_IN_FLIGHT_MAX + SUBMIT_FOLLOWED_MAX);
        Self {
            api,
            caller,
            share,
            input: Some(body),
            lines: Lines::new(LINE_BYTES_MAX),
            read: 0,
            remembered: HashMap::new(),
            looking: None,
            judging: None,
            pending: vec![],
            free: vec![],
            uncommitted: 0,
            followed: 0,
            replies,
            answers,
            batch: vec![],
            output: BytesMut::new(),
        }
    }

    /// Writes what is known now.
    fn take_answers(&mut self, cx: &mut Context<'_>) {
        let mut batch = std::mem::take(&mut self.batch);
        while batch.len() < ANSWERS_PER_TURN_MAX {
            let room = ANSWERS_PER_TURN_MAX - batch.len();
            match self.answers.poll_recv_many(cx, &mut batch, room) {
                Poll::Ready(1..) => {}
                Poll::Ready(0) | Poll::Pending => break,
            }
        }
        for (RequestId(slot), answer) in batch.drain(..) {
            self.take_answer(slot as usize, &answer);
        }
        self.batch = batch;
    }

    fn take_answer(&mut self, slot: usize, answer: &Answer) {
        let Some(pending) = self.pending.get_mut(slot).and_then(Option::as_mut) else { return };
        let first = pending.job.is_none();
        let mut over = true;
        match answer {
            Answer::Submitted { job, new } => {
                over = !pending.follow;
                pending.job = Some(*job);
                pending.came.take().iter().for_each(|came| came.is_on_record(*job));
                let id = Some(job.to_string());
                let key = pending.key.as_deref();
                write(&mut self.output, &LineAnswer { line: pending.line, key, id, new: Some(*new), ..LineAnswer::default() });
            }
            Answer::Ended(view) => {
                let (id, ended) = (Some(view.id.to_string()), Some(end(view)));
                let key = pending.key.as_deref();
                write(&mut self.output, &LineAnswer { line: pending.line, key, id, ended, ..LineAnswer::default() });
            }
            other => {
                let error = unexpected(other);
                let (id, key) = (pending.job.map(|job| job.to_string()), pending.key.as_deref());
                let error = Some(error.body());
                write(&mut self.output, &LineAnswer { line: pending.line, key, id, error, ..LineAnswer::default() });
            }
        }
        self.uncommitted -= usize::from(first);
        if over {
            self.followed -= usize::from(pending.follow);
            self.pending[slot] = None;
            self.free.push(slot);
        }
    }

    /// Reads lines and posts them, until there is none, no room, or it is others' turn. True where it is only the latter.
    fn take_lines(&mut self, cx: &mut Context<'_>) -> bool {
        for _ in 0..LINES_PER_TURN_MAX {
            if let Some((judging, _)) = &mut self.judging {
                let Poll::Ready(job) = judging.as_mut().poll(cx) else { return false };
                let (_, head) = self.judging.take().expect("it was there a line ago");
                self.post(head, job);
                continue;
            }
            if let Some((looking, ..)) = &mut self.looking {
                let Poll::Ready(looked) = looking.as_mut().poll(cx) else { return false };
                let (_, head, spec) = self.looking.take().expect("it was there a line ago");
                match (looked, self.api.inspections.unseen(&spec)) {
                    (Ok(()), Some(digest)) => self.look(digest, head, spec),
                    (Ok(()), None) => {
                        let job = self.admitted(spec);
                        self.judge(head, job);
                    }
                    (Err(error), _) => self.post(head, Err(error)),
                }
                continue;
            }
            if self.uncommitted >= self.share.most(self.uncommitted) || self.followed >= SUBMIT_FOLLOWED_MAX {
                return false;
            }
            match self.lines.cut() {
                Cut::Line(text) => self.take_line(&text),
                Cut::TooLong => {
                    self.read += 1;
                    self.refuse(self.read, None, &ApiError::too_large(LINE_BYTES_MAX as u64).with_field("line"));
                }
                Cut::More if !self.fill(cx) => return false,
                Cut::More => {}
            }
        }
        true
    }

    /// Gets the next bytes of the request; false where there are none now, or no more at all.
    fn fill(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(input) = &mut self.input else { return false };
        match Pin::new(input).poll_frame(cx) {
            Poll::Pending => false,
            Poll::Ready(Some(Ok(frame))) => {
                let Ok(bytes) = frame.into_data() else { return true };
                if !self.api.tokens.lives(&self.caller, now()) {
                    self.refuse(self.read + 1, None, &ApiError::unauthorized("this token is no longer worth anything"));
                    self.input = None;
                    return false;
                }
                self.lines.push(bytes);
                true
            }
            Poll::Ready(Some(Err(_))) => {
                self.input = None;
                false
            }
            Poll::Ready(None) => {
                self.input = None;
                self.lines.end();
                true
            }
        }
    }

    fn take_line(&mut self, text: &[u8]) {
        self.read += 1;
        let line = self.read;
        if text.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let parsed = match serde_json::from_slice::<Line<'_>>(text) {
            Ok(parsed) => parsed,
            Err(error) => return self.refuse(line, None, &ApiError::invalid("line", error.to_string())),
        };
        if let Some(Err(error)) = parsed.key.as_deref().map(good_key) {
            return self.refuse(line, None, &error.with_field("key"));
        }
        let source = parsed.job.get().as_bytes();
        let head = Head { line, key: parsed.key, follow: parsed.follow };
        if let Some(job) = self.remembered.get(source).cloned() {
            return self.judge(head, Ok(job));
        }
        let spec = match spec::parsed(source, Format::Json) {
            Ok(spec) => spec,
            Err(error) => return self.post(head, Err(error)),
        };
        if let Some(digest) = self.api.inspections.unseen(&spec) {
            return self.look(digest, head, spec);
        }
        let job = self.admitted(spec);
        if let Ok(job) = &job {
            self.remember(source, job);
        }
        self.judge(head, job);
    }

    /// Posts a job, once the policy of its role takes it where it has one, and where it begins after others, those do not begin after it.
    fn judge(&mut self, head: Head, job: Result<Job, ApiError>) {
        match job {
            Ok(job) if self.api.plug_ins.judges(&job.role) || !job.after.is_empty() => {
                let api = Arc::clone(&self.api);
                self.judging = Some((Box::pin(async move { spec::judged(&api, job).await }), head));
            }
            job => self.post(head, job),
        }
    }

    fn look(&mut self, digest: Digest, head: Head, spec: JobSpec) {
        let inspections = self.api.inspections.clone();
        self.looking = Some((Box::pin(async move { inspections.look(digest).await }), head, spec));
    }

    fn admitted(&self, spec: JobSpec) -> Result<Job, ApiError> {
        let job = spec::admitted(spec, &self.api)?;
        self.caller.must(Level::Operator, &job.role)?;
        Ok(job)
    }

    fn remember(&mut self, source: &[u8], job: &Job) {
        if source.len() > REMEMBERED_BYTES_MAX {
            return;
        }
        if self.remembered.len() >= REMEMBERED_MAX {
            self.remembered.clear();
        }
        self.remembered.insert(source.into(), job.clone());
    }

    fn post(&mut self, head: Head, job: Result<Job, ApiError>) {
        let Head { line, key, follow } = head;
        let job = match job {
            Ok(job) => job,
            Err(error) => return self.refuse(line, key.as_deref(), &error),
        };
        let came = self.api.travel.as_ref().map(Teller::comes);
        let shard = home(&self.api, &job, key.as_deref());
        let slot = self.free.pop().unwrap_or_else(|| {
            self.pending.push(None);
            self.pending.len() - 1
        });
        self.pending[slot] = Some(Pending { line, key: key.as_deref().map(Into::into), follow, job: None, came });
        let request = Request::Submit { job, key, follow };
        match self.api.door.post(shard, request, RequestId(slot as u64), self.replies.clone()) {
            Ok(()) => {
                self.uncommitted += 1;
                self.followed += usize::from(follow);
            }
            Err(busy) => {
                let pending = self.pending[slot].take();
                self.free.push(slot);
                self.refuse(line, pending.as_ref().and_then(|pending| pending.key.as_deref()), &busy.into());
            }
        }
    }

    fn refuse(&mut self, line: u64, key: Option<&str>, error: &ApiError) {
        write(&mut self.output, &LineAnswer { line, key, error: Some(error.body()), ..LineAnswer::default() });
    }
}

fn end(view: &JobView) -> EndBody {
    EndBody { tasks: counts(&view.tasks), restarts: view.restarts, ended_ms: view.ended.unwrap_or_default().0 }
}

fn write(output: &mut BytesMut, answer: &LineAnswer<'_>) {
    serde_json::to_writer(output.writer(), answer).expect("an answer has text for keys, and memory does not fail to be written");
    output.put_u8(b'\n');
}

impl HttpBody for Submissions {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        this.take_answers(cx);
        if this.take_lines(cx) {
            cx.waker().wake_by_ref();
        }
        if !this.output.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(this.output.split().freeze()))));
        }
        let over = this.input.is_none() && this.lines.is_empty() && this.looking.is_none() && this.judging.is_none();
        match over && this.uncommitted == 0 && this.followed == 0 {
            true => Poll::Ready(None),
            false => Poll::Pending,
        }
    }
}
