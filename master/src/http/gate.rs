//! What every request passes before a route sees it: the host it was meant for, the page it came from, the token it shows.

use super::Api;
use super::access::{Caller, now};
use super::error::ApiError;
use crate::shard::event::Level;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Arc;

/// The names that this master goes by, besides `localhost` and every address: a page that makes a browser take another name for this
/// address (DNS rebinding) gets nothing.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    names: Vec<String>,
}

impl Hosts {
    /// These names, in any case.
    pub fn new(names: &[String]) -> Self {
        Self { names: names.iter().map(|name| name.trim_end_matches('.').to_ascii_lowercase()).collect() }
    }

    fn has(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
        let known = |name: &String| name.eq_ignore_ascii_case(host);
        host.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost") || self.names.iter().any(known)
    }

    fn check(&self, parts: &Parts) -> Result<(), ApiError> {
        let text = |name| single(&parts.headers, name);
        if parts.headers.contains_key(header::CONTENT_LENGTH) && parts.headers.contains_key(header::TRANSFER_ENCODING) {
            return Err(ApiError::invalid("content-length", "a body has a length or is sent in chunks, not both"));
        }
        let authority = match (parts.uri.authority(), text(header::HOST)?) {
            (Some(authority), Some(host)) if !authority.as_str().eq_ignore_ascii_case(host) => {
                return Err(ApiError::invalid("host", "the request names two hosts"));
            }
            (Some(authority), _) => authority.clone(),
            (None, Some(host)) => host.parse::<Authority>().map_err(|_| ApiError::invalid("host", "the Host header names no host"))?,
            (None, None) if is_plain_check(parts) => return Ok(()),
            (None, None) => return Err(ApiError::invalid("host", "the request names no host")),
        };
        if !self.has(authority.host()) {
            let message = "this master does not go by the name that the request was meant for";
            return Err(ApiError::forbidden(message).with_field("host").with_help("start the master with `--host NAME` to add a name"));
        }
        let Some(origin) = text(header::ORIGIN)? else { return Ok(()) };
        let from = origin.split_once("://").map_or("", |(_, authority)| authority);
        match from.eq_ignore_ascii_case(authority.as_str()) {
            true => Ok(()),
            false => Err(ApiError::forbidden("the request comes from a page of another host").with_field("origin")),
        }
    }
}

/// True where a load balancer asks how this master is, in a version of HTTP that had no hosts yet. Browsers, which alone can be led here under another
/// name, have not spoken it for long, and always name the host.
fn is_plain_check(parts: &Parts) -> bool {
    parts.version == Version::HTTP_10 && parts.uri.path() == "/health" && !parts.headers.contains_key(header::ORIGIN)
}

/// The one value of a header; two of them are an error, since two readers could take one each.
fn single(headers: &HeaderMap, name: header::HeaderName) -> Result<Option<&str>, ApiError> {
    let mut values = headers.get_all(&name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(ApiError::invalid(name.as_str(), "the header stands there twice"));
    }
    first.map(|value| value.to_str().map_err(|_| ApiError::invalid(name.as_str(), "the header is no text"))).transpose()
}

/// Lets in what was meant for this master, and dresses every answer.
pub async fn host(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let mut response = match api.hosts.check(&parts) {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(error) => error.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

tokio::task_local! {
    /// True where the request that is being answered wants no more than what this master knows: see [`wants_stale`].
    static STALE: bool;
}

/// True where the request that is being answered has `stale` in its query: this master answers from its own replicas, which may be a little
/// old, also where no master leads.
pub fn wants_stale() -> bool {
    STALE.try_with(|stale| *stale).unwrap_or(false)
}

/// Who shows this. A token that another master has just made may not be known here yet: it is asked for before it is refused, though not by
/// each who guesses.
async fn known(api: &Api, text: &str) -> Result<Caller, ApiError> {
    match api.tokens.caller(text, now()) {
        Err(_) if api.door.peers().any_up() && api.tokens.may_look_again() => {
            super::refresh(api).await?;
            api.tokens.caller(text, now())
        }
        known => known,
    }
}

/// Lets in who shows a token, and tells the route who that is.
pub async fn token(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let shown = single(request.headers(), header::AUTHORIZATION);
    let caller = match shown {
        Ok(Some(text)) => known(&api, text).await,
        Ok(None) => Err(ApiError::unauthorized("the request shows no token")),
        Err(error) => Err(error),
    };
    match caller {
        Ok(caller) => let_in(&api, caller, request, next).await,
        Err(error) => error.into_response(),
    }
}

/// As [`token`], of an address that asks for none: who shows one all the same has to show a good one.
pub async fn anybody(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    if request.headers().contains_key(header::AUTHORIZATION) {
        return token(State(api), request, next).await;
    }
    let_in(&api, Caller::nobody(Level::Operator), request, next).await
}

/// Has `caller` answered.
pub async fn let_in(api: &Api, caller: Caller, mut request: Request, next: Next) -> Response {
    tracing::debug!(method = %request.method(), path = request.uri().path(), token = %caller.token, "a request");
    request.extensions_mut().insert(caller.clone());
    let stale = request.uri().query().is_some_and(|query| query.split('&').any(|pair| matches!(pair, "stale" | "stale=" | "stale=true")));
    STALE.scope(stale, api.audit.answered(&caller, request, next)).await
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| ApiError::unauthorized("the request shows no token"))
    }
}

/// The one variable part of a path.
#[derive(Clone, Debug)]
pub struct Segment(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(text)| Self(text)).map_err(|error| ApiError::invalid("path", error.body_text()))
    }
}
