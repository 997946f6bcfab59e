//! What comes in: bodies within a size and a time, queries and paths that say which part of them is wrong.

use super::error::ApiError;
use axum::body::Body;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Most bytes of a job or of anything else that is held in memory whole.
pub const TEXT_BYTES_MAX: usize = 1024 * 1024;
/// How long such a body may take.
const TEXT_WITHIN: Duration = Duration::from_secs(20);

/// The whole body: at most [`TEXT_BYTES_MAX`] bytes, within [`TEXT_WITHIN`].
///
/// # Errors
/// An [`ApiError`] of status 400, 408 or 413.
pub async fn whole(headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > TEXT_BYTES_MAX as u64) {
        return Err(ApiError::too_large(TEXT_BYTES_MAX as u64));
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(ApiError::invalid("content-encoding", "bodies are taken as they are, not compressed"));
    }
    gather_within(TEXT_WITHIN, body).await
}

async fn gather_within(within: Duration, body: Body) -> Result<Bytes, ApiError> {
    tokio::time::timeout(within, gather(body)).await.map_err(|_| ApiError::slow())?
}

async fn gather(body: Body) -> Result<Bytes, ApiError> {
    let mut chunks = body.into_data_stream();
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| ApiError::invalid("body", "the body broke off"))?;
        if first.len() + rest.len() + chunk.len() > TEXT_BYTES_MAX {
            return Err(ApiError::too_large(TEXT_BYTES_MAX as u64));
        }
        match first.is_empty() {
            true => first = chunk,
            false => rest.extend_from_slice(&chunk),
        }
    }
    if rest.is_empty() {
        return Ok(first);
    }
    let mut all = BytesMut::with_capacity(first.len() + rest.len());
    all.extend_from_slice(&first);
    all.extend_from_slice(&rest);
    Ok(all.freeze())
}

/// The body as JSON; an empty one is the default.
///
/// # Errors
/// As [`whole`], and of status 400 where it is no JSON of this form.
pub async fn json<T: DeserializeOwned + Default>(headers: &HeaderMap, body: Body) -> Result<T, ApiError> {
    let text = whole(headers, body).await?;
    if text.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&text).map_err(|error| ApiError::invalid("body", error.to_string()))
}

/// The query of a path.
#[derive(Clone, Copy, Debug)]
pub struct Asked<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = Query::<T>::try_from_uri(&parts.uri).map_err(|error| ApiError::invalid("query", error.body_text()))?;
        Ok(Self(query.0))
    }
}

/// `text` as a number or an id of a query or path.
///
/// # Errors
/// An [`ApiError`] of status 400 that names `field`.
pub fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(field: &str, text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|error: T::Err| ApiError::invalid(field, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use std::convert::Infallible;

    #[tokio::test]
    async fn a_body_is_whole_in_time_or_not_taken() {
        let parts = |parts: &[&'static str]| stream::iter(parts.iter().copied().map(Ok::<_, Infallible>).collect::<Vec<_>>());
        assert_eq!(whole(&HeaderMap::new(), Body::from_stream(parts(&["a", "", "bc"]))).await.unwrap(), "abc");
        assert_eq!(whole(&HeaderMap::new(), Body::empty()).await.unwrap(), "");
        let slow = Body::from_stream(parts(&["a"]).chain(stream::pending()));
        assert_eq!(gather_within(Duration::from_millis(10), slow).await.unwrap_err().body().code, "slow");
        let endless = Body::from_stream(stream::repeat(Ok::<_, Infallible>(vec![0; 1 << 16])));
        assert_eq!(whole(&HeaderMap::new(), endless).await.unwrap_err().body().code, "too-large");
        let broken = Body::from_stream(stream::iter([Ok("a"), Err("gone")]));
        assert_eq!(whole(&HeaderMap::new(), broken).await.unwrap_err().body().code, "invalid");
    }
}
