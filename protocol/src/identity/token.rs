//! What a machine joins with, and what is drawn at random.

use super::IdentityError;
use crate::ids::IdError;
use crate::{AgentId, Digest};
use ring::rand::{SecureRandom, SystemRandom};
use std::{fmt, str::FromStr};

/// Bytes of a token's public part.
const ID_BYTES: usize = 6;
/// Bytes of a token's secret part.
const SECRET_BYTES: usize = 16;
/// Longest id and longest secret of a token that is read.
const PART_BYTES_MAX: usize = 128;

/// What a machine joins with: `ID.SECRET.ROOT`, printed by the master, typed by people. Its `Debug` keeps the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Names it in the master's list: letters and digits, at most 63.
    pub id: String,
    /// Proves that one holds it; the master keeps only its SHA-256.
    pub secret: String,
    /// The SHA-256 of the root's certificate that the master must show.
    pub root: Digest,
}

impl JoinToken {
    /// A new token, drawn at random.
    ///
    /// # Errors
    /// [`IdentityError::Crypto`] where the system gives no randomness.
    pub fn draw(root: Digest) -> Result<Self, IdentityError> {
        Ok(Self { id: hex(&draw::<ID_BYTES>()?), secret: hex(&draw::<SECRET_BYTES>()?), root })
    }

    /// What the master keeps of the secret.
    #[must_use]
    pub fn secret_hash(&self) -> Digest {
        Digest::of(self.secret.as_bytes())
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.id, self.secret, self.root)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({}.….{})", self.id, self.root)
    }
}

impl FromStr for JoinToken {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = IdError { expected: "a join token: ID.SECRET.ROOT, three parts as the master printed them" };
        let mut parts = text.trim().split('.');
        let (Some(id), Some(secret), Some(root), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(error);
        };
        let right = |part: &str| (1..=PART_BYTES_MAX).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric());
        if !right(id) || !right(secret) || root.len() != 64 {
            return Err(error);
        }
        Ok(Self { id: id.into(), secret: secret.into(), root: root.parse().map_err(|_| error)? })
    }
}

/// A new agent's id, drawn at random.
///
/// # Errors
/// [`IdentityError::Crypto`] where the system gives no randomness.
pub fn draw_agent() -> Result<AgentId, IdentityError> {
    draw().map(u64::from_le_bytes).map(AgentId)
}

/// Bytes that nobody can guess.
pub(super) fn draw<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut bytes = [0; N];
    let drawn = SystemRandom::new().fill(&mut bytes);
    drawn.map_err(|_| IdentityError::Crypto { what: "randomness", reason: "the system gives none".into() })?;
    Ok(bytes)
}

/// `bytes` in lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_printed_and_hides_its_secret() {
        let token = JoinToken::draw(Digest::of(b"root")).unwrap();
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        assert_eq!(format!("  {token}\n").parse(), Ok(token.clone()));
        assert!(!format!("{token:?}").contains(&token.secret));
        let other = JoinToken::draw(Digest::of(b"root")).unwrap();
        assert!(token.id != other.id && token.secret != other.secret);
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let root = Digest::of(b"root");
        let long = "a".repeat(PART_BYTES_MAX + 1);
        for bad in [
            "",
            "..",
            "a.b",
            &format!("a.b.{root}.c"),
            &format!(".b.{root}"),
            &format!("a..{root}"),
            &format!("a.b.sha256:{root}"),
            &format!("a.b.{}", &root.to_string()[1..]),
            &format!("a\u{1b}.b.{root}"),
            &format!("{long}.b.{root}"),
            &format!("a.{long}.{root}"),
        ] {
            assert!(bad.parse::<JoinToken>().is_err(), "{bad}");
        }
    }
}
