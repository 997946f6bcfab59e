//! Who calls and what they may: bearer tokens, known by their hashes. Knows tokens and roles; no route.

use super::error::ApiError;
use crate::shard::Refusal;
use crate::shard::event::{Grant, Level, Token};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dashmap::DashMap;
use protocol::{Digest, Role, Time};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// First part of each API token, so that scanners for leaked secrets know it.
pub const TOKEN_PREFIX: &str = "skep_";
/// Random bytes in a token's secret.
pub const SECRET_BYTES: usize = 32;
/// The shortest time between two looks for tokens that are not known, in milliseconds.
const LOOK_AGAIN_MS: u64 = 250;
/// Longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 256;

/// The tokens on record, as shard 0 last told them: read by every request, written when they change.
#[derive(Debug, Default)]
pub struct Tokens {
    by_id: DashMap<String, Token>,
    /// True until shard 0 has told them for the first time.
    unread: AtomicBool,
    /// When they were last asked for because somebody showed one that is not known, in milliseconds of the Unix epoch.
    looked_ms: AtomicU64,
}

/// Whoever made a request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The id of their token.
    pub token: Arc<str>,
    level: Level,
    roles: Arc<[Role]>,
}

/// Milliseconds of the Unix epoch, now.
pub fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl Tokens {
    /// Shard 0 has not told them yet: nobody can be told from a stranger.
    pub fn are_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// True where it is time to ask shard 0 once more because somebody shows a token that is not known: at most four times a second.
    pub fn may_look_again(&self) -> bool {
        let (now, before) = (now().0, self.looked_ms.load(Ordering::Relaxed));
        let due = now >= before.saturating_add(LOOK_AGAIN_MS);
        due && self.looked_ms.compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Takes `tokens` in place of what was known.
    pub fn replace(&self, tokens: Vec<Token>) {
        self.unread.store(false, Ordering::Relaxed);
        self.by_id.retain(|id, _| tokens.iter().any(|token| token.id == *id));
        for token in tokens {
            self.by_id.insert(token.id.clone(), token);
        }
    }

    /// Takes one more: a token is good from the answer that shows it on.
    pub fn add(&self, token: Token) {
        self.by_id.insert(token.id.clone(), token);
    }

    /// Forgets one.
    pub fn remove(&self, id: &str) {
        self.by_id.remove(id);
    }

    /// True where the caller's token is still worth something: asked again by what lasts longer than one answer.
    pub fn lives(&self, caller: &Caller, now: Time) -> bool {
        self.by_id.get(&*caller.token).is_some_and(|token| token.expires.is_none_or(|end| now < end))
    }

    /// Who shows `text`, the value of an `Authorization` header.
    ///
    /// # Errors
    /// An [`ApiError`] of status 401; of 503 while the tokens on record are not known.
    pub fn caller(&self, text: &str, now: Time) -> Result<Caller, ApiError> {
        if self.unread.load(Ordering::Relaxed) {
            return Err(Refusal::Unled.into());
        }
        let wrong = || ApiError::unauthorized("this token is not known, or is over");
        let (scheme, token) = text.split_once(' ').unwrap_or_default();
        if token.len() > 2 * TOKEN_BYTES_MAX {
            return Err(wrong());
        }
        // A client that knows names and passwords only (RFC 7617) shows the token as the password, whatever the name.
        let shown = match scheme {
            scheme if scheme.eq_ignore_ascii_case("bearer") => Some(token.trim().to_owned()),
            scheme if scheme.eq_ignore_ascii_case("basic") => {
                STANDARD.decode(token.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok())
            }
            // As clients of DC/OS show it: `token=TOKEN`.
            "" => text.strip_prefix("token=").filter(|token| token.len() <= TOKEN_BYTES_MAX).map(str::to_owned),
            _ => None,
        };
        let shown = shown.ok_or_else(wrong)?;
        let token = shown.split_once(':').map_or(shown.as_str(), |(_, password)| password);
        let (id, secret) = token.strip_prefix(TOKEN_PREFIX).and_then(|rest| rest.rsplit_once('_')).ok_or_else(wrong)?;
        let known = self.by_id.get(id).ok_or_else(wrong)?;
        // What is compared is a hash of what was shown: how long that takes tells nothing of the secret.
        let same = Digest::of(secret.as_bytes()) == known.hash;
        let lives = known.expires.is_none_or(|end| now < end);
        match &known.grant {
            Grant::Api { level, roles } if same && lives => Ok(Caller { token: id.into(), level: *level, roles: roles.as_slice().into() }),
            _ => Err(wrong()),
        }
    }
}

impl Caller {
    /// A caller of all roles at `level`: this process itself, and tests.
    pub fn of_all_roles(level: Level) -> Self {
        Self { token: "self".into(), level, roles: Arc::new([]) }
    }

    /// Whoever comes where no token is asked for.
    pub fn nobody(level: Level) -> Self {
        Self { token: "".into(), level, roles: Arc::new([]) }
    }

    /// True where they may see `role`'s things: their token is for it, or for one that it is below.
    pub fn sees(&self, role: &Role) -> bool {
        self.roles.is_empty() || self.roles.iter().any(|own| role.is_within(own))
    }

    /// True where their token is for all roles.
    pub fn is_of_all_roles(&self) -> bool {
        self.roles.is_empty()
    }

    /// Refuses who has less than `level` for `role`.
    ///
    /// # Errors
    /// An [`ApiError`] of status 403.
    pub fn must(&self, level: Level, role: &Role) -> Result<(), ApiError> {
        if !self.sees(role) {
            return Err(ApiError::forbidden(format!("token {} is not for role {role}", self.token)).with_field("role"));
        }
        self.must_level(level)
    }

    /// Refuses who has less than `level`, whatever the role.
    ///
    /// # Errors
    /// An [`ApiError`] of status 403.
    pub fn must_level(&self, level: Level) -> Result<(), ApiError> {
        if self.level >= level {
            return Ok(());
        }
        let (has, needs) = (level_text(self.level), level_text(level));
        Err(ApiError::forbidden(format!("token {} is of a {has}, and this needs an {needs}", self.token))
            .with_help(format!("skep tokens create --level {needs}")))
    }

    /// Refuses who may not change the cluster itself.
    ///
    /// # Errors
    /// An [`ApiError`] of status 403.
    pub fn must_own_cluster(&self) -> Result<(), ApiError> {
        self.must_for_all(Level::Admin)
    }

    /// Refuses who has less than `level`, or has it for some roles only.
    ///
    /// # Errors
    /// An [`ApiError`] of status 403.
    pub fn must_for_all(&self, level: Level) -> Result<(), ApiError> {
        self.must_level(level)?;
        match self.is_of_all_roles() {
            true => Ok(()),
            false => Err(ApiError::forbidden(format!("token {} is for some roles only, and this concerns all", self.token))),
        }
    }

    /// True where they may give away, list and revoke a token of these roles: the same or fewer than their own.
    pub fn covers(&self, roles: &[Role]) -> bool {
        self.is_of_all_roles() || (!roles.is_empty() && roles.iter().all(|role| self.sees(role)))
    }
}

/// How people write a level.
pub const fn level_text(level: Level) -> &'static str {
    match level {
        Level::Viewer => "viewer",
        Level::Operator => "operator",
        Level::Admin => "admin",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: &str, secret: &str, grant: Grant, expires: Option<Time>) -> Token {
        Token { id: id.into(), hash: Digest::of(secret.as_bytes()), grant, expires }
    }

    fn api(level: Level, roles: &[&str]) -> Grant {
        Grant::Api { level, roles: roles.iter().map(|role| Role::new(role).unwrap()).collect() }
    }

    #[test]
    fn only_the_right_secret_of_a_living_api_token_is_let_in() {
        let tokens = Tokens::default();
        tokens.replace(vec![
            token("a1", "s", api(Level::Viewer, &[]), None),
            token("old", "s", api(Level::Admin, &[]), Some(Time(10))),
            token("join", "s", Grant::Join, None),
        ]);
        assert!(tokens.caller("Bearer skep_a1_s", Time(10)).is_ok());
        assert!(tokens.caller("bearer skep_old_s", Time(9)).is_ok());
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        assert!(tokens.caller(&basic("anybody:skep_a1_s"), Time(10)).is_ok());
        assert!(tokens.caller(&basic("skep_a1_s:"), Time(10)).is_err() && tokens.caller(&basic("a1:s"), Time(10)).is_err());
        let long = format!("Bearer skep_a1_{}", "s".repeat(1_000));
        assert!(tokens.caller("token=skep_a1_s", Time(10)).is_ok());
        let wrong = [
            "",
            "token=",
            "token=a1_s",
            "Bearer",
            "Bearer ",
            "Basic skep_a1_s",
            "Bearer skep_a1_t",
            "Bearer a1_s",
            "Bearer skep_old_s",
            "Bearer skep_join_s",
            &long,
        ];
        for text in wrong {
            assert!(tokens.caller(text, Time(10)).is_err(), "{text}");
        }
        tokens.replace(vec![]);
        assert!(tokens.caller("Bearer skep_a1_s", Time(0)).is_err());
    }

    #[test]
    fn a_token_is_worth_its_level_for_its_roles() {
        let tokens = Tokens::default();
        tokens.add(token("a", "s", api(Level::Operator, &["web"]), None));
        let caller = tokens.caller("Bearer skep_a_s", Time(0)).unwrap();
        let (web, other) = (Role::new("web").unwrap(), Role::new("other").unwrap());
        assert!(caller.must(Level::Operator, &web).is_ok());
        assert!(caller.must(Level::Viewer, &other).is_err());
        assert!(caller.must(Level::Admin, &web).is_err());
        assert!(caller.must_own_cluster().is_err());
        assert!(caller.covers(std::slice::from_ref(&web)) && !caller.covers(&[]) && !caller.covers(&[web, other]));
    }
}
