//! Bundles over HTTP: streamed in by digest, looked at, streamed out. Files are touched on the threads for blocking work, never on the one
//! that decides.

use super::Api;
use super::access::Caller;
use super::body;
use super::bundles::Upload;
use super::error::{ApiError, ErrorAnswer};
use super::gate::Segment;
use crate::shard::event::Level;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use futures::StreamExt as _;
use protocol::Digest;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::io::ReaderStream;
use utoipa::ToSchema;

/// Uploads at the same time.
pub const UPLOADS_MAX: usize = 16;
/// How long an upload may be silent.
const CHUNK_WITHIN: Duration = Duration::from_secs(20);
/// How long an upload may take in all.
const UPLOAD_WITHIN: Duration = Duration::from_secs(600);
/// Bytes that are gathered before they are written.
const WRITE_BYTES: usize = 256 * 1024;
/// Bytes that are read at a time.
const READ_BYTES: usize = 256 * 1024;

/// A bundle on record.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BundleBody {
    /// Its digest, as `sha256:…`.
    pub digest: String,
    /// How long it is.
    pub bytes: u64,
}

/// Uploads a bundle of a known digest. One that is here already is not read again.
#[utoipa::path(put, path = "/v1/bundles/{digest}", tag = "bundles", params(("digest" = String, Path, description = "its SHA-256, with or without `sha256:`")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, body = BundleBody), (status = 200, description = "it was here", body = BundleBody), (status = 413, body = ErrorAnswer), (status = 422, body = ErrorAnswer)))]
pub async fn put(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(digest): Segment,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<BundleBody>), ApiError> {
    caller.must_level(Level::Operator)?;
    let digest: Digest = body::parsed("digest", &digest)?;
    if let Some(bytes) = api.shelf.ensure(digest).await {
        return Ok((StatusCode::OK, Json(BundleBody { digest: format!("sha256:{digest}"), bytes })));
    }
    Ok((StatusCode::CREATED, Json(receive(&api, &headers, body, Some(digest)).await?)))
}

/// Uploads a bundle and says its digest.
#[utoipa::path(post, path = "/v1/bundles", tag = "bundles", request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, body = BundleBody), (status = 413, body = ErrorAnswer)))]
pub async fn post(
    State(api): State<Arc<Api>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<BundleBody>), ApiError> {
    caller.must_level(Level::Operator)?;
    Ok((StatusCode::CREATED, Json(receive(&api, &headers, body, None).await?)))
}

/// Sends a bundle; with `HEAD` says only that it is here, and how long it is.
#[utoipa::path(get, path = "/v1/bundles/{digest}", tag = "bundles", params(("digest" = String, Path, description = "its SHA-256")),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = 404, body = ErrorAnswer)))]
pub async fn get(State(api): State<Arc<Api>>, caller: Caller, Segment(digest): Segment) -> Result<Response, ApiError> {
    caller.must_level(Level::Viewer)?;
    let digest: Digest = body::parsed("digest", &digest)?;
    let bytes = api.shelf.ensure(digest).await.ok_or_else(|| ApiError::not_found("bundle"))?;
    let opened = tokio::fs::File::open(api.bundles.path(digest)).await;
    let file = opened.map_err(|error| ApiError::internal(format!("cannot read the bundle sha256:{digest}: {error}")))?;
    let mut response = Body::from_stream(ReaderStream::with_capacity(file, READ_BYTES)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    Ok(response)
}

async fn receive(api: &Api, headers: &HeaderMap, body: Body, expected: Option<Digest>) -> Result<BundleBody, ApiError> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > api.bundles.bytes_max()) {
        return Err(ApiError::too_large(api.bundles.bytes_max()));
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(ApiError::invalid("content-encoding", "bundles are taken as they are, not compressed"));
    }
    let _place =
        api.uploads.try_acquire().map_err(|_| ApiError::busy(format!("{UPLOADS_MAX} bundles are being uploaded already"), 1_000))?;
    let bundles = api.bundles.clone();
    let upload = blocking(move || bundles.create()).await?;
    let upload = tokio::time::timeout(UPLOAD_WITHIN, fill(upload, body)).await.map_err(|_| ApiError::slow())??;
    let (digest, bytes) = blocking(move || upload.finish(expected)).await?;
    api.shelf.spread(digest).await.map_err(ApiError::unavailable)?;
    tracing::info!(%digest, bytes, "a bundle was uploaded");
    Ok(BundleBody { digest: format!("sha256:{digest}"), bytes })
}

async fn fill(mut upload: Upload, body: Body) -> Result<Upload, ApiError> {
    let mut chunks = body.into_data_stream();
    let mut gathered = BytesMut::new();
    loop {
        let chunk = tokio::time::timeout(CHUNK_WITHIN, chunks.next()).await.map_err(|_| ApiError::slow())?;
        let chunk = chunk.transpose().map_err(|_| ApiError::invalid("body", "the body broke off"))?;
        gathered.extend_from_slice(chunk.as_deref().unwrap_or_default());
        if gathered.len() >= WRITE_BYTES || chunk.is_none() {
            let bytes = gathered.split().freeze();
            upload = blocking(move || upload.write(&bytes).map(|()| upload)).await?;
        }
        if chunk.is_none() {
            return Ok(upload);
        }
    }
}

async fn blocking<T: Send + 'static, E: Send + 'static>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, ApiError>
where
    ApiError: From<E>,
{
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| ApiError::internal("work on a bundle failed"))?.map_err(Into::into)
}
