//! From the bytes of a request to an admitted job. Knows which form the bytes have; what a job may be is `admit`'s.

use super::Api;
use super::body;
use super::error::{ApiError, ProblemBody, SpanBody};
use crate::admit::{self, Code, Format, JobSpec, Problem};
use crate::plugins::Judged;
use axum::body::Body;
use axum::http::{HeaderMap, header};
use protocol::{Job, Kind, Role};

/// Where a native or container task may write, as agents lay it out: what both adapters tell their tasks.
pub const SANDBOX_DIR: &str = "/sandbox";

/// The job that the body of a request is.
///
/// # Errors
/// An [`ApiError`] of status 400, 408, 413 or 422, with all that is wrong.
pub async fn job(api: &Api, headers: &HeaderMap, body: Body) -> Result<Job, ApiError> {
    let format = format(headers)?;
    looked(api, parsed(&body::whole(headers, body).await?, format)?).await
}

/// The job that `spec` is, once its bundles were looked at.
///
/// # Errors
/// As [`job`].
pub async fn looked(api: &Api, spec: JobSpec) -> Result<Job, ApiError> {
    while let Some(digest) = api.inspections.unseen(&spec) {
        api.inspections.look(digest).await?;
    }
    judged(api, admitted(spec, api)?).await
}

/// The job, where what it begins after can begin before it, and the policy of its role takes it.
///
/// # Errors
/// An [`ApiError`] of status 422: with the policy's reason, or where it does not answer and jobs are refused then.
pub async fn judged(api: &Api, job: Job) -> Result<Job, ApiError> {
    super::after::check(api, &job).await?;
    if !api.plug_ins.judges(&job.role) {
        return Ok(job);
    }
    match api.plug_ins.judge(&job).await {
        Judged::Taken => Ok(job),
        Judged::Refused(reason) => {
            Err(ApiError::unprocessable("policy", format!("the policy of role {} refuses the job: {reason}", job.role)))
        }
        Judged::Closed(reason) => {
            let message = format!("the policy of role {} does not answer, and jobs are refused then: {reason}", job.role);
            Err(ApiError::unprocessable("policy", message).with_help("skep policy list"))
        }
    }
}

/// The job file that `text` is.
///
/// # Errors
/// An [`ApiError`] of status 400, with all that is wrong.
pub fn parsed(text: &[u8], format: Format) -> Result<JobSpec, ApiError> {
    admit::parse_bytes(text, format).map_err(refused)
}

/// The job that `spec` is; its bundles were looked at, and its role may have what it wants of its hosts.
///
/// # Errors
/// An [`ApiError`] of status 400, or of 422 where its bundles alone are in the way.
pub fn admitted(spec: JobSpec, api: &Api) -> Result<Job, ApiError> {
    let job = admit::admit(spec, &|digest| api.inspections.verdict(digest)).map_err(refused)?;
    let problems = api.policies.problems(&job);
    if !problems.is_empty() {
        return Err(refused(problems));
    }
    // On record, it would stop a master that cannot read it.
    match api.door.peers().all_speak(job.since()) {
        true => Ok(job),
        false => {
            let beyond = job.update != protocol::job::Update::default() || !job.after.is_empty();
            let field = match (job.place.is_some(), job.about.is_some(), beyond) {
                (true, ..) => "place",
                (false, true, _) => "labels",
                (false, false, true) => "update",
                (false, false, false) => "role",
            };
            let message = "a place, labels, a role with parts, and how a service is updated or what it begins after, are for a cluster whose masters all know them: upgrade the others first";
            Err(ApiError::conflict(message).with_field(field))
        }
    }
}

/// A task that a framework places: a job of one task, which every role of its framework may have of its hosts what it wants.
///
/// # Errors
/// As [`admitted`], and an [`ApiError`] where it is more than one task.
pub async fn framework_task(spec: Result<JobSpec, ApiError>, roles: &[Role], api: &Api) -> Result<Job, ApiError> {
    let mut spec = spec?;
    let first = roles.first().ok_or_else(|| ApiError::conflict("the framework is not subscribed at this master"))?;
    if spec.count.is_some_and(|count| count != 1)
        || spec.name.is_some()
        || spec.role.is_some()
        || spec.kind.is_some_and(Kind::lasts)
        || spec.has_place()
    {
        return Err(ApiError::invalid(
            "job",
            "a framework places one task at a time: it has no role, name, kind, count nor place of its own",
        ));
    }
    (spec.role, spec.kind, spec.count) = (Some(first.clone()), Some(Kind::Batch), Some(1));
    while let Some(digest) = api.inspections.unseen(&spec) {
        api.inspections.look(digest).await?;
    }
    let job = admitted(spec, api)?;
    // In which of its roles it will be counted, the offers say.
    let others = roles.iter().skip(1).flat_map(|role| api.policies.problems(&Job { role: role.clone(), ..job.clone() }));
    let problems: Vec<Problem> = others.collect();
    if problems.is_empty() { judged(api, job).await } else { Err(refused(problems)) }
}

fn format(headers: &HeaderMap) -> Result<Format, ApiError> {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    match text.split(';').next().unwrap_or("").trim().to_ascii_lowercase().as_str() {
        "application/json" => Ok(Format::Json),
        "application/toml" | "text/toml" | "text/x-toml" => Ok(Format::Toml),
        _ => Err(ApiError::invalid("content-type", "a job is sent as application/toml or application/json")),
    }
}

fn refused(problems: Vec<Problem>) -> ApiError {
    let of_bundles = |problem: &Problem| {
        matches!(problem.code, Code::UnknownBundle | Code::BadWasm | Code::UnofferedImport | Code::BadBundle | Code::NotAllowed)
    };
    let well_written = problems.iter().all(of_bundles);
    ApiError::problems(problems.into_iter().map(ProblemBody::from).collect(), well_written)
}

impl From<Problem> for ProblemBody {
    fn from(problem: Problem) -> Self {
        Self {
            code: problem.code.as_str(),
            field: problem.field,
            span: problem.span.map(|span| SpanBody { start: span.start, end: span.end }),
            line: problem.line,
            column: problem.column,
            message: problem.message,
            help: problem.help,
        }
    }
}
