//! Tokens over HTTP: made, listed, revoked; and the first ones of a cluster. A secret is shown once, when it is drawn.

use super::access::{Caller, SECRET_BYTES, TOKEN_PREFIX, level_text, now};
use super::body;
use super::error::{ApiError, ErrorAnswer};
use super::gate::Segment;
use super::{Api, find};
use crate::drive::Door;
use crate::shard::HOME;
use crate::shard::event::{Grant, Level, Request, Response as Answer, Token, TokenRequest};
use crate::shard::view::{View, Viewed};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use protocol::{Digest, Role};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// How long a join token is good where nobody says, in milliseconds.
pub const JOIN_TTL_MS: u64 = 3_600_000;
/// The longest lifetime of a token that has an end, in milliseconds: ten years.
pub const TTL_MS_MAX: u64 = 10 * 365 * 24 * 3_600_000;
/// Most roles of one token.
pub const ROLES_MAX: usize = 64;
/// Random bytes of a token's id.
const ID_BYTES: usize = 8;

/// What a new token is to allow.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenWanted {
    /// `viewer`, `operator`, `admin`, `join` for a machine that is to become an agent, or `join-master` for one that is to become a master.
    #[serde(default)]
    pub level: String,
    /// For which roles; all where none is named.
    #[serde(default)]
    pub roles: Vec<String>,
    /// How long it is good, in milliseconds; without an end where it is not said, and an hour for `join`.
    pub ttl_ms: Option<u64>,
}

/// A new token.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TokenMade {
    /// What it is known by.
    pub id: String,
    /// The token itself: shown here and never again.
    pub token: String,
    /// When it ends, in milliseconds of the Unix epoch.
    pub expires_ms: Option<u64>,
}

/// A token on record, without its secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TokenRow {
    /// What it is known by.
    pub id: String,
    /// `viewer`, `operator`, `admin`, `join` or `join-master`.
    pub level: &'static str,
    /// For which roles; all where none is named.
    pub roles: Vec<String>,
    /// When it ends, in milliseconds of the Unix epoch.
    pub expires_ms: Option<u64>,
}

/// The tokens on record.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TokensPage {
    /// The tokens, by id.
    pub tokens: Vec<TokenRow>,
}

/// A token that was drawn: what goes on record, and the text that its owner shows.
struct Drawn {
    token: Token,
    text: String,
}

/// Makes a token.
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", request_body = TokenWanted,
    responses((status = 201, body = TokenMade), (status = 400, body = ErrorAnswer), (status = 403, body = ErrorAnswer)))]
pub async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<TokenMade>), ApiError> {
    caller.must_level(Level::Admin)?;
    let wanted: TokenWanted = body::json(&headers, body).await?;
    let grant = grant(&wanted)?;
    if matches!(&grant, Grant::Api { roles, .. } if roles.iter().any(|role| role.parent().is_some())) {
        api.all_understand()?;
    }
    match &grant {
        Grant::Join | Grant::JoinMaster => caller.must_own_cluster()?,
        Grant::Api { roles, .. } if caller.covers(roles) => {}
        Grant::Api { .. } => return Err(ApiError::forbidden("a token may be for its maker's roles only").with_field("roles")),
    }
    if wanted.ttl_ms.is_some_and(|ttl_ms| ttl_ms == 0 || ttl_ms > TTL_MS_MAX) {
        return Err(ApiError::invalid("ttl_ms", format!("a lifetime is 1 to {TTL_MS_MAX} ms")));
    }
    let drawn = draw(grant, wanted.ttl_ms, api.root)?;
    record(&api.door, &drawn.token).await?;
    api.tokens.add(drawn.token.clone());
    let (id, expires_ms) = (drawn.token.id, drawn.token.expires.map(|time| time.0));
    Ok((StatusCode::CREATED, Json(TokenMade { id, token: drawn.text, expires_ms })))
}

/// Lists tokens, without secrets.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", responses((status = 200, body = TokensPage), (status = 403, body = ErrorAnswer)))]
pub async fn list(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<TokensPage>, ApiError> {
    caller.must_level(Level::Admin)?;
    let mut tokens = known(&api.door).await?;
    tokens.retain(|token| concerns(&caller, &token.grant));
    tokens.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(Json(TokensPage { tokens: tokens.iter().map(TokenRow::from).collect() }))
}

/// Makes a token worthless.
#[utoipa::path(delete, path = "/v1/tokens/{id}", tag = "tokens", params(("id" = String, Path, description = "the token's id")),
    responses((status = 204, description = "it is worthless"), (status = 404, body = ErrorAnswer)))]
pub async fn revoke(State(api): State<Arc<Api>>, caller: Caller, Segment(id): Segment) -> Result<StatusCode, ApiError> {
    caller.must_level(Level::Admin)?;
    let tokens = known(&api.door).await?;
    if !tokens.iter().any(|token| token.id == id && concerns(&caller, &token.grant)) {
        return Err(ApiError::not_found("token"));
    }
    find::done(&api, HOME, Request::Token(TokenRequest::Revoke { id: id.clone() })).await?;
    api.tokens.remove(&id);
    Ok(StatusCode::NO_CONTENT)
}

/// A new token for the API, of all roles, on record: for the first start of a cluster.
///
/// # Errors
/// An [`ApiError`] where the shard cannot put it on record.
pub async fn mint_api(door: &Door, level: Level) -> Result<String, ApiError> {
    let drawn = draw(Grant::Api { level, roles: vec![] }, None, Digest([0; 32]))?;
    record(door, &drawn.token).await?;
    Ok(drawn.text)
}

/// A new join token on record, good for `ttl_ms`, that pins the root certificate of digest `root`.
///
/// # Errors
/// As [`mint_api`].
pub async fn mint_join(door: &Door, root: Digest, ttl_ms: u64) -> Result<String, ApiError> {
    let drawn = draw(Grant::Join, Some(ttl_ms), root)?;
    record(door, &drawn.token).await?;
    Ok(drawn.text)
}

/// The tokens on record.
///
/// # Errors
/// An [`ApiError`] where shard 0 cannot answer.
pub async fn known(door: &Door) -> Result<Vec<Token>, ApiError> {
    match door.ask(HOME, Request::View(View::Tokens)).await? {
        Answer::Viewed(viewed) => match *viewed {
            Viewed::Tokens(tokens) => Ok(tokens),
            _ => Err(ApiError::internal("a shard answered another question than it was asked")),
        },
        other => Err(super::error::unexpected(&other)),
    }
}

async fn record(door: &Door, token: &Token) -> Result<(), ApiError> {
    match door.ask(HOME, Request::Token(TokenRequest::Create(token.clone()))).await? {
        Answer::Done => Ok(()),
        other => Err(super::error::unexpected(&other)),
    }
}

fn draw(grant: Grant, ttl_ms: Option<u64>, root: Digest) -> Result<Drawn, ApiError> {
    let (id, secret) = (random::<ID_BYTES>()?, random::<SECRET_BYTES>()?);
    let (ttl_ms, text) = match &grant {
        Grant::Join | Grant::JoinMaster => (Some(ttl_ms.unwrap_or(JOIN_TTL_MS)), format!("{id}.{secret}.{root}")),
        Grant::Api { .. } => (ttl_ms, format!("{TOKEN_PREFIX}{id}_{secret}")),
    };
    let expires = ttl_ms.map(|ttl_ms| now() + ttl_ms);
    Ok(Drawn { token: Token { id, hash: Digest::of(secret.as_bytes()), grant, expires }, text })
}

/// `BYTES` random bytes as hexadecimal digits.
fn random<const BYTES: usize>() -> Result<String, ApiError> {
    let mut bytes = [0; BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| ApiError::internal("the system gives no random bytes"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn grant(wanted: &TokenWanted) -> Result<Grant, ApiError> {
    if wanted.roles.len() > ROLES_MAX {
        return Err(ApiError::invalid("roles", format!("at most {ROLES_MAX} roles")));
    }
    let roles = wanted.roles.iter().map(|role| Role::new(role).map_err(|error| ApiError::invalid("roles", error.to_string())));
    let roles: Vec<Role> = roles.collect::<Result<_, _>>()?;
    let level = match wanted.level.as_str() {
        "viewer" => Level::Viewer,
        "operator" => Level::Operator,
        "admin" => Level::Admin,
        "join" if roles.is_empty() => return Ok(Grant::Join),
        "join-master" if roles.is_empty() => return Ok(Grant::JoinMaster),
        "join" => return Err(ApiError::invalid("roles", "a machine joins for all roles")),
        _ => return Err(ApiError::invalid("level", "a token is of a viewer, operator, admin, or to join")),
    };
    Ok(Grant::Api { level, roles })
}

/// True where the caller may see and revoke a token of this grant.
fn concerns(caller: &Caller, grant: &Grant) -> bool {
    match grant {
        Grant::Api { roles, .. } => caller.covers(roles),
        Grant::Join | Grant::JoinMaster => caller.is_of_all_roles(),
    }
}

impl From<&Token> for TokenRow {
    fn from(token: &Token) -> Self {
        let (level, roles) = match &token.grant {
            Grant::Api { level, roles } => (level_text(*level), roles.iter().map(ToString::to_string).collect()),
            Grant::Join => ("join", vec![]),
            Grant::JoinMaster => ("join-master", vec![]),
        };
        Self { id: token.id.clone(), level, roles, expires_ms: token.expires.map(|time| time.0) }
    }
}
