//! From the bytes of a request to an admitted job. Knows which form the bytes have; what a job may be is `admit`'s.

use super::error::ApiError;
use axum::http::{HeaderMap, header};
use protocol::Job;

/// How a job file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// JSON (RFC 8259).
    Json,
    /// TOML 1.0.
    Toml,
}

/// The form that the content type says.
///
/// # Errors
/// An [`ApiError`] of status 400 where it is neither.
pub fn form(headers: &HeaderMap) -> Result<Form, ApiError> {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    match text.split(';').next().unwrap_or("").trim().to_ascii_lowercase().as_str() {
        "application/json" => Ok(Form::Json),
        "application/toml" | "text/toml" | "text/x-toml" => Ok(Form::Toml),
        _ => Err(ApiError::invalid("content-type", "a job is sent as application/toml or application/json")),
    }
}

/// The job that `text` is.
///
/// # Errors
/// An [`ApiError`] of status 400 with all that is wrong.
pub fn admitted(text: &[u8], form: Form) -> Result<Job, ApiError> {
    let text = std::str::from_utf8(text).map_err(|error| {
        let message = format!("the job is no UTF-8 from byte {} on", error.valid_up_to());
        ApiError::invalid("body", message)
    })?;
    let _ = (text, form);
    Err(ApiError::internal("no admission yet"))
}
