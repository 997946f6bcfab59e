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
use tokio::sync::{Semaphore, SemaphorePermit};

/// Most bytes of a job or of anything else that is held in memory whole.
pub const TEXT_BYTES_MAX: usize = 1024 * 1024;
/// How long such a body may take.
const TEXT_WITHIN: Duration = Duration::from_secs(20);

/// The whole body: at most [`TEXT_BYTES_MAX`] bytes, within [`TEXT_WITHIN`].
///
/// # Errors
/// An [`ApiError`] of status 400, 408 or 413.
pub async fn whole(headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    refuse_unread(headers, TEXT_BYTES_MAX)?;
    Ok(gather_within(TEXT_WITHIN, body, None).await?.0)
}

/// Bodies that may be longer than [`TEXT_BYTES_MAX`].
#[derive(Debug)]
pub struct Large {
    bytes_max: usize,
    places: Semaphore,
}

impl Large {
    /// Of at most `bytes_max` bytes each, and so many of them that are longer than [`TEXT_BYTES_MAX`] at the same time.
    pub const fn new(bytes_max: usize, at_once_max: usize) -> Self {
        Self { bytes_max, places: Semaphore::const_new(at_once_max) }
    }
}

/// As [`whole`], of one of these; and its place among the longer ones, to be kept for as long as the body or what was made of it is there.
///
/// # Errors
/// As [`whole`], and of status 429 where there are as many longer ones as there may be.
pub async fn large<'a>(headers: &HeaderMap, body: Body, large: &'a Large) -> Result<(Bytes, Option<SemaphorePermit<'a>>), ApiError> {
    refuse_unread(headers, large.bytes_max)?;
    gather_within(TEXT_WITHIN, body, Some(large)).await
}

fn refuse_unread(headers: &HeaderMap, bytes_max: usize) -> Result<(), ApiError> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(ApiError::too_large(bytes_max as u64));
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(ApiError::invalid("content-encoding", "bodies are taken as they are, not compressed"));
    }
    Ok(())
}

async fn gather_within(within: Duration, body: Body, large: Option<&Large>) -> Result<(Bytes, Option<SemaphorePermit<'_>>), ApiError> {
    tokio::time::timeout(within, gather(body, large)).await.map_err(|_| ApiError::slow())?
}

async fn gather(body: Body, large: Option<&Large>) -> Result<(Bytes, Option<SemaphorePermit<'_>>), ApiError> {
    let bytes_max = large.map_or(TEXT_BYTES_MAX, |large| large.bytes_max);
    let mut place = None;
    let mut chunks = body.into_data_stream();
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| ApiError::invalid("body", "the body broke off"))?;
        let length = first.len() + rest.len() + chunk.len();
        if length > bytes_max {
            return Err(ApiError::too_large(bytes_max as u64));
        }
        if let Some(large) = large.filter(|_| length > TEXT_BYTES_MAX && place.is_none()) {
            let taken = large.places.try_acquire();
            place = Some(taken.map_err(|_| ApiError::busy("as many bodies of this length as there may be are there already", 1_000))?);
        }
        match first.is_empty() {
            true => first = chunk,
            false => rest.extend_from_slice(&chunk),
        }
    }
    if rest.is_empty() {
        return Ok((first, place));
    }
    let mut all = BytesMut::with_capacity(first.len() + rest.len());
    all.extend_from_slice(&first);
    all.extend_from_slice(&rest);
    Ok((all.freeze(), place))
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
        assert_eq!(gather_within(Duration::from_millis(10), slow, None).await.unwrap_err().body().code, "slow");
        let endless = Body::from_stream(stream::repeat(Ok::<_, Infallible>(vec![0; 1 << 16])));
        assert_eq!(whole(&HeaderMap::new(), endless).await.unwrap_err().body().code, "too-large");
        let broken = Body::from_stream(stream::iter([Ok("a"), Err("gone")]));
        assert_eq!(whole(&HeaderMap::new(), broken).await.unwrap_err().body().code, "invalid");
    }

    #[tokio::test]
    async fn longer_bodies_are_taken_where_they_may_be_and_so_many_at_once() {
        let limit = Large::new(2 * TEXT_BYTES_MAX, 1);
        let none = HeaderMap::new();
        let take = async |bytes: usize| large(&none, Body::from(vec![b'x'; bytes]), &limit).await;
        let code = |taken: Result<_, ApiError>| taken.map(drop).unwrap_err().body().code;
        let (short, place) = take(TEXT_BYTES_MAX).await.unwrap();
        assert_eq!((short.len(), place.is_none()), (TEXT_BYTES_MAX, true), "what is as long as all others takes no place");
        let (long, place) = take(2 * TEXT_BYTES_MAX).await.unwrap();
        assert_eq!((long.len(), place.is_some()), (2 * TEXT_BYTES_MAX, true));
        assert_eq!(code(take(TEXT_BYTES_MAX + 1).await), "busy");
        assert!(take(TEXT_BYTES_MAX).await.is_ok());
        drop(place);
        assert!(take(TEXT_BYTES_MAX + 1).await.is_ok());
        assert_eq!(code(take(2 * TEXT_BYTES_MAX + 1).await), "too-large");
        let announced = HeaderMap::from_iter([(header::CONTENT_LENGTH, (2 * TEXT_BYTES_MAX + 1).into())]);
        assert_eq!(code(large(&announced, Body::empty(), &limit).await), "too-large");
        let slow = Body::from_stream(stream::iter([Ok::<_, Infallible>("a")]).chain(stream::pending()));
        assert_eq!(code(gather_within(Duration::from_millis(10), slow, Some(&limit)).await), "slow");
    }
}
