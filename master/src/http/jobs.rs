//! Jobs over HTTP: submitted, applied, listed, stopped, scaled.

use super::access::Caller;
use super::agents::has;
use super::body::{self, Asked};
use super::deployments::{self, ForceQuery};
use super::error::{ApiError, ErrorAnswer, unexpected};
use super::gate::Segment;
use super::jobs_json::{JobBody, JobRow, PHASES, TaskBody, phase_text};
use super::{Api, find, health, spec};
use crate::shard::event::{JobRef, Level, Request, Response as Answer};
use crate::shard::view::{JobView, PAGE_MAX, View, Viewed};
use crate::travel::Teller;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use protocol::message::shard_of_job;
use protocol::{Job, JobId, Phase, RequestId, ShardId};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;
use utoipa::{IntoParams, ToSchema};

/// The header that makes a submission safe to repeat.
pub const KEY_HEADER: &str = "idempotency-key";
/// Longest idempotency key, in bytes.
pub const KEY_BYTES_MAX: usize = 128;
/// How long tasks have to stop where nobody says, in milliseconds.
pub const GRACE_MS_DEFAULT: u64 = 5_000;
/// The longest that tasks may be given to stop, in milliseconds.
pub const GRACE_MS_MAX: u64 = 3_600_000;
/// Rows of a page where nobody says.
const PAGE_DEFAULT: usize = 100;

/// A submission's answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SubmittedBody {
    /// The job's id.
    pub id: String,
    /// False where an earlier submission with the same key made it, or where applying changed nothing.
    pub new: bool,
    /// What brings a service to its new version, where tasks have to be replaced for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,
    /// How it ended, where that was waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<JobRow>,
}

/// How to submit.
#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct SubmitQuery {
    /// True: answer when the job has ended.
    #[serde(default)]
    pub follow: bool,
}

/// Which role's job.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct RoleQuery {
    /// The job's role, `default` where it is not said; matters only where the job is named by its name.
    pub role: Option<String>,
}

/// Which jobs.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct JobsQuery {
    /// Only those of this role.
    pub role: Option<String>,
    /// Only those with this in their name, id or role, in any case.
    #[serde(rename = "match")]
    pub matching: Option<String>,
    /// Only those after this id: the `next` of the page before.
    pub after: Option<String>,
    /// At most so many, 1 to 1,000; 100 where it is not said.
    pub limit: Option<usize>,
    /// True: also those that have ended.
    #[serde(default)]
    pub ended: bool,
}

/// Most jobs that are looked at for a page of those that match.
const LOOKED_MAX: usize = 20_000;

impl JobsQuery {
    fn wants(&self, view: &JobView) -> bool {
        let Some(wanted) = &self.matching else { return true };
        let name = view.job.name.as_ref().map_or("", |name| name.as_str());
        [name, &view.id.to_string(), view.job.role.as_str()].iter().any(|of| has(of, wanted))
    }
}

/// Which tasks.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct TasksQuery {
    /// The job's role, where the job is named by its name.
    pub role: Option<String>,
    /// From this index on: the `next` of the page before.
    pub from: Option<u32>,
    /// At most so many, 1 to 1,000; 100 where it is not said.
    pub limit: Option<usize>,
    /// Only those in one of these states, with commas between them.
    pub phase: Option<String>,
}

/// A page of jobs.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct JobsPage {
    /// The jobs, by id.
    pub jobs: Vec<JobRow>,
    /// What to ask `after` for the next page; nothing follows where it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A page of tasks.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TasksPage {
    /// The job's id.
    pub job: String,
    /// The tasks, by index.
    pub tasks: Vec<TaskBody>,
    /// What to ask `from` for the next page; nothing follows where it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u32>,
}

/// How to stop a job.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StopBody {
    /// Milliseconds until it is done by force, at most 3,600,000; 5,000 where it is not said.
    pub grace_ms: Option<u64>,
}

/// How many tasks from now on.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScaleBody {
    /// How many; must be said.
    pub count: Option<u32>,
}

/// Submits a job.
#[utoipa::path(post, path = "/v1/jobs", tag = "jobs", params(SubmitQuery, ("Idempotency-Key" = Option<String>, Header, description = "makes a repeat of the same submission harmless; 1 to 128 bytes")),
    request_body(content = String, description = "a job file", content_type = "application/toml"),
    responses((status = 201, body = SubmittedBody), (status = 200, description = "submitted before with the same key", body = SubmittedBody),
        (status = 400, body = ErrorAnswer), (status = 409, body = ErrorAnswer), (status = 422, body = ErrorAnswer), (status = 429, body = ErrorAnswer)))]
pub async fn submit(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Asked(query): Asked<SubmitQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<SubmittedBody>), ApiError> {
    let came = api.travel.as_ref().map(Teller::comes);
    let key = key(&headers)?;
    let job = spec::job(&api, &headers, body).await?;
    caller.must(Level::Operator, &job.role)?;
    let shard = home(&api, &job, key.as_deref());
    let (replies, mut answers) = mpsc::channel(2);
    let request = Request::Submit { job, key, follow: query.follow };
    let room = api.door.room(&request)?;
    api.door.post(shard, request, RequestId(0), replies)?;
    let (id, new) = submitted(answers.recv().await)?;
    came.iter().for_each(|came| came.is_on_record(id));
    // Who waits for the end takes none from others.
    drop(room);
    let mut answer = SubmittedBody { id: id.to_string(), new, deployment: None, ended: None };
    if query.follow {
        answer.ended = Some(match next(answers.recv().await)? {
            Answer::Ended(view) => (&*view).into(),
            other => return Err(unexpected(&other)),
        });
    }
    Ok((if new { StatusCode::CREATED } else { StatusCode::OK }, Json(answer)))
}

/// Makes a job be so: creates it, or gives it a new version. Of a service a new version is rolled out as its `[update]` says, one at a time.
#[utoipa::path(put, path = "/v1/jobs/{job}", tag = "jobs", params(("job" = String, Path, description = "the job's name, the same as in the file"), ForceQuery),
    request_body(content = String, description = "a job file", content_type = "application/toml"),
    responses((status = 201, body = SubmittedBody), (status = 200, body = SubmittedBody), (status = 400, body = ErrorAnswer), (status = 409, body = ErrorAnswer)))]
pub async fn apply(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(name): Segment,
    Asked(query): Asked<ForceQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<SubmittedBody>), ApiError> {
    let came = api.travel.as_ref().map(Teller::comes);
    let job = spec::job(&api, &headers, body).await?;
    caller.must(Level::Operator, &job.role)?;
    let named = job.name.as_ref().ok_or_else(|| ApiError::invalid("name", "only a job with a name can be applied"))?;
    if named.as_str() != name {
        return Err(ApiError::invalid("name", "the file names another job than the path"));
    }
    let shard = home(&api, &job, None);
    // Masters of before know no deployments: as long as there is one, they would not understand the record.
    let known = api.door.peers().all_speak(protocol::link::VERSION);
    let request = if known { Request::Deploy { job, force: query.force } } else { Request::Apply { job } };
    let answer = deployments::deployed(api.door.ask(shard, request).await?)?;
    if let (Some(came), Ok(id)) = (came, answer.id.parse()) {
        came.is_on_record(id);
    }
    Ok((if answer.new { StatusCode::CREATED } else { StatusCode::OK }, Json(answer)))
}

/// Lists jobs.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", params(JobsQuery), responses((status = 200, body = JobsPage), (status = 400, body = ErrorAnswer)))]
pub async fn list(State(api): State<Arc<Api>>, caller: Caller, Asked(query): Asked<JobsQuery>) -> Result<Json<JobsPage>, ApiError> {
    caller.must_level(Level::Viewer)?;
    let role = query.role.as_deref().map(|text| find::role(Some(text))).transpose()?;
    if let Some(role) = &role {
        caller.must(Level::Viewer, role)?;
    }
    let limit = page(query.limit)?;
    let mut after: Option<JobId> = query.after.as_deref().map(|text| body::parsed("after", text)).transpose()?;
    let (mut jobs, mut looked, mut last) = (vec![], 0, None);
    let first = after.map_or(0, |id| id.shard().0);
    let mut shards = (first..api.door.shards()).map(ShardId);
    let mut shard = shards.next();
    // Where few match, many are looked at for a page.
    let at_once = |have: usize| if query.matching.is_some() { PAGE_MAX } else { limit - have };
    while let Some(of) = shard.filter(|_| jobs.len() < limit && looked < LOOKED_MAX) {
        let asked = at_once(jobs.len());
        let view = View::Jobs { role: role.clone(), after: after.take(), limit: asked, ended: query.ended };
        let Viewed::Jobs(found) = find::view(&api, of, view).await? else {
            return Err(ApiError::internal("a shard answered another question than it was asked"));
        };
        looked += found.len();
        let is_all = found.len() < asked;
        after = found.last().map(|view| view.id).filter(|_| !is_all);
        for view in found {
            last = Some(view.id);
            if query.wants(&view) {
                jobs.push(view);
            }
            if jobs.len() >= limit {
                break;
            }
        }
        shard = if is_all { shards.next() } else { shard };
    }
    let next = last.filter(|_| jobs.len() >= limit || looked >= LOOKED_MAX).map(|id| id.to_string());
    let seen: Vec<_> = jobs.iter().filter(|view| caller.sees(&view.job.role)).collect();
    Ok(Json(JobsPage { jobs: health::rows(&api, &seen).await?, next }))
}

/// Shows one job.
#[utoipa::path(get, path = "/v1/jobs/{job}", tag = "jobs", params(("job" = String, Path, description = "a job's name or id"), RoleQuery), responses((status = 200, body = JobBody), (status = 404, body = ErrorAnswer)))]
pub async fn show(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(job): Segment,
    Asked(query): Asked<RoleQuery>,
) -> Result<Json<JobBody>, ApiError> {
    let view = find::job(&api, &caller, &job, query.role.as_deref()).await?;
    let mut body = JobBody::from(&view);
    body.row = health::rows(&api, &[&view]).await?.pop().unwrap_or(body.row);
    Ok(Json(body))
}

/// Answers when a job has ended.
#[utoipa::path(get, path = "/v1/jobs/{job}/end", tag = "jobs", params(("job" = String, Path, description = "a job's name or id"), RoleQuery), responses((status = 200, body = JobRow), (status = 404, body = ErrorAnswer)))]
pub async fn end(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(job): Segment,
    Asked(query): Asked<RoleQuery>,
) -> Result<Json<JobRow>, ApiError> {
    let view = find::job(&api, &caller, &job, query.role.as_deref()).await?;
    let job = JobRef::Id(view.id);
    match api.door.ask(view.id.shard(), Request::Follow { job }).await? {
        Answer::Ended(view) => Ok(Json((&*view).into())),
        other => Err(unexpected(&other)),
    }
}

/// Lists a job's tasks.
#[utoipa::path(get, path = "/v1/jobs/{job}/tasks", tag = "jobs", params(("job" = String, Path, description = "a job's name or id"), TasksQuery), responses((status = 200, body = TasksPage), (status = 404, body = ErrorAnswer)))]
pub async fn tasks(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(job): Segment,
    Asked(query): Asked<TasksQuery>,
) -> Result<Json<TasksPage>, ApiError> {
    let limit = page(query.limit)?;
    let phases = query.phase.as_deref().map_or(Ok(vec![]), phases)?;
    let found = find::job(&api, &caller, &job, query.role.as_deref()).await?;
    let id = found.id;
    let view = View::Tasks { job: JobRef::Id(id), from: query.from.unwrap_or(0), limit, phases };
    let Viewed::Tasks(tasks) = find::view(&api, id.shard(), view).await? else {
        return Err(ApiError::internal("a shard answered another question than it was asked"));
    };
    let next = (tasks.len() >= limit).then(|| tasks.last().and_then(|task| task.index.checked_add(1))).flatten();
    let mut tasks: Vec<TaskBody> = tasks.iter().map(|task| TaskBody::new(id, task)).collect();
    health::beside(&api, &found, &mut tasks).await?;
    Ok(Json(TasksPage { job: id.to_string(), tasks, next }))
}

/// Ends all tasks of a job and the job.
#[utoipa::path(post, path = "/v1/jobs/{job}/stop", tag = "jobs", params(("job" = String, Path, description = "a job's name or id"), RoleQuery), request_body = StopBody,
    responses((status = 204, description = "it is being stopped"), (status = 404, body = ErrorAnswer)))]
pub async fn stop(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(job): Segment,
    Asked(query): Asked<RoleQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let wanted: StopBody = body::json(&headers, body).await?;
    let grace_ms = wanted.grace_ms.unwrap_or(GRACE_MS_DEFAULT);
    if grace_ms > GRACE_MS_MAX {
        return Err(ApiError::invalid("grace_ms", format!("at most {GRACE_MS_MAX} ms")));
    }
    let view = find::job(&api, &caller, &job, query.role.as_deref()).await?;
    caller.must(Level::Operator, &view.job.role)?;
    find::done(&api, view.id.shard(), Request::Stop { job: JobRef::Id(view.id), grace_ms }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Changes how many tasks a job has.
#[utoipa::path(post, path = "/v1/jobs/{job}/scale", tag = "jobs", params(("job" = String, Path, description = "a job's name or id"), RoleQuery), request_body = ScaleBody,
    responses((status = 204, description = "it is on record"), (status = 404, body = ErrorAnswer), (status = 422, body = ErrorAnswer)))]
pub async fn scale(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(job): Segment,
    Asked(query): Asked<RoleQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let wanted: ScaleBody = body::json(&headers, body).await?;
    let count = wanted.count.ok_or_else(|| ApiError::invalid("count", "must be said"))?;
    if count > protocol::job::COUNT_MAX {
        return Err(ApiError::invalid("count", format!("at most {} tasks", protocol::job::COUNT_MAX)));
    }
    let view = find::job(&api, &caller, &job, query.role.as_deref()).await?;
    caller.must(Level::Operator, &view.job.role)?;
    if count > view.job.count {
        spec::judged(&api, Job { count, ..view.job.clone() }).await?;
    }
    find::done(&api, view.id.shard(), Request::Scale { job: JobRef::Id(view.id), count }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The shard that a submission goes to: by the job's name, or else by its key, or else any in turn.
pub fn home(api: &Api, job: &Job, key: Option<&str>) -> ShardId {
    let shards = api.door.shards();
    match (job.name.as_ref(), key) {
        (Some(name), _) => shard_of_job(&job.role, name.as_str(), shards),
        (None, Some(key)) => shard_of_job(&job.role, key, shards),
        (None, None) => ShardId((api.turn.fetch_add(1, Ordering::Relaxed) % u64::from(shards)) as u16),
    }
}

/// An idempotency key of a good form.
///
/// # Errors
/// An [`ApiError`] of status 400.
pub fn good_key(text: &str) -> Result<&str, ApiError> {
    let good = (1..=KEY_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    let message = "an idempotency key is 1 to 128 visible ASCII characters";
    if good { Ok(text) } else { Err(ApiError::invalid(KEY_HEADER, message)) }
}

fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(KEY_HEADER) else { return Ok(None) };
    Ok(Some(good_key(value.to_str().unwrap_or(""))?.to_owned()))
}

/// How many rows a page has.
///
/// # Errors
/// An [`ApiError`] of status 400.
pub fn page(limit: Option<usize>) -> Result<usize, ApiError> {
    match limit.unwrap_or(PAGE_DEFAULT) {
        limit @ 1..=PAGE_MAX => Ok(limit),
        _ => Err(ApiError::invalid("limit", format!("a page has 1 to {PAGE_MAX} rows"))),
    }
}

fn phases(text: &str) -> Result<Vec<Phase>, ApiError> {
    let one = |word: &str| PHASES.into_iter().find(|phase| phase_text(*phase) == word);
    let unknown = || ApiError::invalid("phase", format!("a state is one of {}", PHASES.map(phase_text).join(", ")));
    text.split(',').take(PHASES.len()).map(|word| one(word.trim()).ok_or_else(unknown)).collect()
}

fn next(answer: Option<(RequestId, Answer)>) -> Result<Answer, ApiError> {
    answer.map(|(_, answer)| answer).ok_or_else(|| ApiError::unavailable("this master stopped while it was asked"))
}

fn submitted(answer: Option<(RequestId, Answer)>) -> Result<(JobId, bool), ApiError> {
    match next(answer)? {
        Answer::Submitted { job, new } => Ok((job, new)),
        other => Err(unexpected(&other)),
    }
}
