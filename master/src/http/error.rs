//! How the API says no: one JSON form for every reason, with the status that HTTP has for it (RFC 9110 section 15).

use super::bundles::BundleError;
use crate::drive::Busy;
use crate::shard::event::{Refusal, Response as Answer};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// A request that was refused, and why.
#[derive(Clone, Debug)]
pub struct ApiError {
    status: StatusCode,
    /// Boxed, so that what goes well carries no room for it.
    body: Box<ErrorBody>,
}

/// What stands under `error`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct ErrorBody {
    /// What kind of error it is; never changes, for programs.
    pub code: &'static str,
    /// What was tried, on what, and why it failed, for people.
    pub message: String,
    /// Which part of the request is wrong, where one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What would mend it, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// When it makes sense to try again, in milliseconds from now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// All that is wrong with a job file, where more is known than the first thing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ProblemBody>,
}

/// One thing that is wrong with a job file: `admit`'s problem, as the API's description names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct ProblemBody {
    /// What kind of problem it is; never changes, for programs.
    pub code: &'static str,
    /// Which field; empty where it is the whole text.
    pub field: String,
    /// The bytes of the text that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span: Option<SpanBody>,
    /// The line of the span's first byte, from 1; 0 without a span.
    pub line: usize,
    /// The column of the span's first byte in characters, from 1; 0 without a span.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What would mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// Bytes of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct SpanBody {
    /// The first.
    pub start: usize,
    /// The one after the last.
    pub end: usize,
}

/// The whole of an answer that says no.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErrorAnswer {
    /// Why.
    pub error: ErrorBody,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, body: Box::new(ErrorBody { code, message: message.into(), ..ErrorBody::default() }) }
    }

    /// The request makes no sense at `field`.
    pub fn invalid(field: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message).with_field(field)
    }

    /// The job is well written and still cannot be taken.
    pub fn unprocessable(field: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "unprocessable", message).with_field(field)
    }

    /// A job file in which these things are wrong, at least one; `well_written` where only what it names is.
    pub fn problems(problems: Vec<ProblemBody>, well_written: bool) -> Self {
        let first = problems.first().cloned().unwrap_or_default();
        let mut error = match well_written {
            true => Self::unprocessable(&first.field, first.message),
            false => Self::invalid(&first.field, first.message),
        };
        error.body.help = first.help;
        error.body.problems = problems;
        error
    }

    /// Nobody says who asks, or says it wrongly.
    pub fn unauthorized(message: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
            .with_field("authorization")
            .with_help("send `Authorization: Bearer TOKEN`; `skep tokens create` makes one")
    }

    /// Who asks may not.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// There is none.
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", format!("no such {what}"))
    }

    /// There is one, and it cannot be asked that way.
    pub fn method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method", "this path cannot be asked with this method")
            .with_help("`/openapi.json` lists what can be asked")
    }

    /// It is known and not done yet.
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "not-implemented", message)
    }

    /// Something else has that key or name.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    /// The body has more than `bytes_max` bytes.
    pub fn too_large(bytes_max: u64) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            format!("the body has more than {bytes_max} bytes, the most that is taken here"),
        )
        .with_field("body")
    }

    /// The body came too slowly.
    pub fn slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "slow", "the body came too slowly").with_field("body")
    }

    /// A limit is reached; the request can be made again.
    pub fn busy(message: impl Into<String>, retry_after_ms: u64) -> Self {
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", message);
        error.body.retry_after_ms = Some(retry_after_ms);
        error
    }

    /// An agent that is needed cannot be reached now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// Nobody knows whether it was done.
    pub fn unknown() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unknown", Refusal::Unknown.to_string())
    }

    /// This master is at fault.
    pub fn internal(message: impl Into<String>) -> Self {
        let message = message.into();
        tracing::error!(%message, "a request failed by the master's own fault");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    /// This error, about `field`; no field where that is empty.
    pub fn with_field(mut self, field: &str) -> Self {
        self.body.field = Some(field.to_owned()).filter(|field| !field.is_empty());
        self
    }

    /// This error, which may be over in so many milliseconds.
    fn with_retry(mut self, retry_after_ms: u64) -> Self {
        self.body.retry_after_ms = Some(retry_after_ms);
        self
    }

    /// This error, with what would mend it.
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.body.help = Some(help.into());
        self
    }

    /// What stands under `error`.
    pub fn body(&self) -> &ErrorBody {
        &self.body
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.body.message)
    }
}

impl std::error::Error for ApiError {}

/// When it makes sense to ask again where no master leads, or the one that did went away, in milliseconds.
const UNLED_RETRY_MS: u64 = 500;

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound { what } => Self::not_found(&what),
            Refusal::Conflict { reason } => Self::conflict(reason),
            Refusal::Invalid { reason } => Self::unprocessable("", reason),
            Refusal::Busy { reason, retry_after_ms } => Self::busy(reason, retry_after_ms),
            Refusal::Unled => Self::unavailable(refusal.to_string()).with_retry(UNLED_RETRY_MS),
            Refusal::Unknown => Self::unknown(),
        }
    }
}

impl From<Busy> for ApiError {
    fn from(busy: Busy) -> Self {
        match busy {
            Busy::Full { retry_after_ms } => Self::busy(busy.to_string(), retry_after_ms),
            Busy::Stopped { .. } => Self::unavailable(busy.to_string()),
            Busy::Unknown => Self::unknown(),
        }
    }
}

impl From<BundleError> for ApiError {
    fn from(error: BundleError) -> Self {
        match error {
            BundleError::TooLong { bytes_max } => Self::too_large(bytes_max),
            BundleError::Digest { .. } => Self::unprocessable("digest", error.to_string()),
            BundleError::Disk { .. } => Self::internal(error.to_string()),
        }
    }
}

/// An answer that does not fit its question: a fault of the master's own.
pub fn unexpected(answer: &Answer) -> ApiError {
    match answer {
        Answer::Refused(refusal) => refusal.clone().into(),
        _ => ApiError::internal("a shard answered another question than it was asked"),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status;
        let retry_after_s = self.body.retry_after_ms.map(|ms| ms.div_ceil(1_000).max(1));
        let mut response = (status, axum::Json(ErrorAnswer { error: *self.body })).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
