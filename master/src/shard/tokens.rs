//! Tokens on record; on shard 0 only. A join token is used up by the record that says who used it.

use super::event::{Change, Grant, Token, TokenRequest};
use super::{Record, Refusal, Response, Shard};
use protocol::{AgentId, Digest, RequestId, ShardId};

/// Most tokens on record, those that have expired not counted.
pub const TOKENS_MAX: usize = 10_000;
/// Longest id of a token, in bytes.
pub const TOKEN_ID_BYTES_MAX: usize = 63;
/// How many uses of join tokens are remembered: whoever asks again since an answer was lost asks within seconds.
const USED_MAX: usize = 256;
/// When it makes sense to ask again where there are too many.
const RETRY_AFTER_MS: u64 = 10_000;

impl Shard {
    /// Something about tokens.
    pub(super) fn token_request(&mut self, id: RequestId, request: TokenRequest) {
        let result = match request {
            _ if self.config.id != ShardId(0) => Err(Refusal::Invalid { reason: "tokens are shard 0's".into() }),
            TokenRequest::Create(token) => self.token_create(token),
            TokenRequest::Revoke { id } => self.token_end(id, None),
            TokenRequest::Consume { id, hash, agent } => self.token_consume(id, &hash, agent),
        };
        let response = match result {
            Ok(()) => Response::Done,
            Err(refusal) => Response::Refused(refusal),
        };
        self.reply(id, response);
    }

    fn token_create(&mut self, token: Token) -> Result<(), Refusal> {
        if token.id.is_empty() || token.id.len() > TOKEN_ID_BYTES_MAX {
            return Err(Refusal::Invalid { reason: format!("a token's id is 1 to {TOKEN_ID_BYTES_MAX} bytes") });
        }
        if self.rest.tokens.contains_key(&token.id) {
            return Err(Refusal::Conflict { reason: format!("there is a token '{}' already", token.id) });
        }
        if self.rest.tokens.len() >= TOKENS_MAX {
            self.tokens_expire();
        }
        if self.rest.tokens.len() >= TOKENS_MAX {
            return Err(Refusal::Busy { reason: format!("there are {TOKENS_MAX} tokens already"), retry_after_ms: RETRY_AFTER_MS });
        }
        self.commit(Record::TokenCreated { token, at: self.now });
        self.publish(Change::Tokens);
        Ok(())
    }

    fn tokens_expire(&mut self) {
        let over = |token: &&Token| token.expires.is_some_and(|at| at <= self.now);
        let ids: Vec<String> = self.rest.tokens.values().filter(over).map(|token| token.id.clone()).collect();
        for id in ids {
            self.commit(Record::TokenEnded { id, used_by: None, at: self.now });
        }
    }

    fn token_end(&mut self, id: String, used_by: Option<AgentId>) -> Result<(), Refusal> {
        if !self.rest.tokens.contains_key(&id) {
            return Err(Refusal::NotFound { what: "token".into() });
        }
        self.commit(Record::TokenEnded { id, used_by, at: self.now });
        self.publish(Change::Tokens);
        Ok(())
    }

    /// What a record of a token's end does. Who used it is known until the next snapshot, or until others were.
    pub(super) fn token_ended(&mut self, id: &str, used_by: Option<AgentId>) {
        self.rest.tokens.remove(id);
        if let Some(agent) = used_by {
            self.used.truncate(USED_MAX - 1);
            self.used.push_front((id.to_owned(), agent));
        }
    }

    /// Used up once: whoever asks again for the same agent, since the answer was lost with a leader, is told the same. An agent's id is drawn
    /// by the master that asks, and nobody else knows it before.
    ///
    /// One answer for each way in which it is no use, so that nobody learns which ids there are.
    fn token_consume(&mut self, id: String, hash: &Digest, agent: AgentId) -> Result<(), Refusal> {
        let good = self
            .rest
            .tokens
            .get(&id)
            .is_some_and(|token| token.hash == *hash && token.grant == Grant::Join && token.expires.is_none_or(|at| at > self.now));
        if !good && self.used.iter().any(|(used, by)| *used == id && *by == agent) {
            return Ok(());
        }
        if !good {
            return Err(Refusal::NotFound { what: "token".into() });
        }
        self.token_end(id, Some(agent))
    }
}
