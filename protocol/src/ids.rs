//! Names: who is meant, never what it is. All are small, `Copy` where they can be, and printed as people type them.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc};

/// A shard: the part of the master's state that one thread decides for. Dense, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId(pub u16);

/// Most shards of a cluster.
pub const SHARDS_MAX: u16 = 256;

/// A machine that joined, for as long as its certificate says so. Random, drawn when it joins; shown as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AgentId(pub u64);

/// A job. The upper 16 bits are the shard that owns it, the lower 48 a number that the shard gave in `apply`, so replicas agree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId(pub u64);

/// Bits of a fencing token that count attempts: what has a hundred of them a second for two weeks runs into the next job's tokens.
const FENCE_ATTEMPT_BITS: u32 = 27;

impl JobId {
    /// The `sequence`-th job (from 1; the lower 48 bits count) of `shard`.
    #[must_use]
    pub const fn new(shard: ShardId, sequence: u64) -> Self {
        Self((shard.0 as u64) << 48 | sequence & 0xffff_ffff_ffff)
    }

    /// The shard that owns the job and all its tasks.
    #[must_use]
    pub const fn shard(self) -> ShardId {
        ShardId((self.0 >> 48) as u16)
    }

    /// The shard's own number for it.
    #[must_use]
    pub const fn sequence(self) -> u64 {
        self.0 & 0xffff_ffff_ffff
    }
}

/// One place in a job, `JOB.INDEX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId {
    /// The job it is a place of.
    pub job: JobId,
    /// Which place, from 0 to the job's count.
    pub index: u32,
}

/// One run of a task on one agent, `JOB.INDEX#N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    /// The task that is tried.
    pub task: TaskId,
    /// Which run of it, from 1.
    pub number: u32,
}

impl AttemptId {
    /// The run `number` of place `index` of `job`.
    #[must_use]
    pub const fn new(job: JobId, index: u32, number: u32) -> Self {
        Self { task: TaskId { job, index }, number }
    }

    /// The shard that owns the task.
    #[must_use]
    pub const fn shard(self) -> ShardId {
        self.task.job.shard()
    }

    /// Its fencing token: higher than that of each earlier attempt of its task, also of those of earlier jobs of the same role and name, which
    /// are of the same shard. At most 2⁶³ − 1, so that any database keeps it; that is enough for 2³⁶ jobs of a shard.
    #[must_use]
    pub const fn fence(self) -> u64 {
        let token = (self.task.job.sequence() & ((1 << 36) - 1)) << FENCE_ATTEMPT_BITS;
        token + self.number as u64
    }
}

/// Resources of one agent shown to one framework. Unique in the life of one leader of `shard`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OfferId {
    /// The shard that owns the agent.
    pub shard: ShardId,
    /// The shard's own number for it.
    pub number: u64,
}

/// A question somebody waits for inside one process: chosen by who asks, given back with the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// Longest [`Name`], in bytes.
pub const NAME_BYTES_MAX: usize = 63;

/// A name that people chose: 1 to [`NAME_BYTES_MAX`] bytes of `[a-z0-9-]`, and neither first nor last a hyphen (a DNS label, RFC 1123
/// section 2.1, in lower case).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

/// Why a text is no [`Name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name is 1 to 63 of a-z, 0-9 and '-', and neither starts nor ends with '-'")]
pub struct NameError;

impl Name {
    /// The name `text`.
    ///
    /// # Errors
    /// [`NameError`] where it is empty, too long or has another character.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if is_name(text) { Ok(Self(text.into())) } else { Err(NameError) }
    }

    /// The text of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_name(text: &str) -> bool {
    let inside = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && inside && !text.starts_with('-') && !text.ends_with('-')
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.as_ref().into()
    }
}

impl FromStr for Name {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Longest [`Role`], in bytes.
pub const ROLE_BYTES_MAX: usize = 255;
/// Most names of one [`Role`].
pub const ROLE_NAMES_MAX: usize = 8;

/// Whom resources are counted for: a team or a product, or a part of one. One to [`ROLE_NAMES_MAX`] [`Name`]s with `/` between, at most
/// [`ROLE_BYTES_MAX`] bytes: `a/b` is below `a`, and what it holds counts for `a` too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Role(Arc<str>);

/// Why a text is no [`Role`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a role is 1 to 8 names with '/' between, at most 255 bytes; a name is 1 to 63 of a-z, 0-9 and '-', and neither starts nor ends with '-'"
)]
pub struct RoleError;

impl Role {
    /// The role `text`.
    ///
    /// # Errors
    /// [`RoleError`] where it is too long, or one of its names is none.
    pub fn new(text: &str) -> Result<Self, RoleError> {
        let names = text.split('/');
        if text.len() > ROLE_BYTES_MAX || names.clone().count() > ROLE_NAMES_MAX || !names.clone().all(is_name) {
            return Err(RoleError);
        }
        Ok(Self(text.into()))
    }

    /// The text of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The role that it is a part of; `None` where it is a part of none.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.into()))
    }

    /// True where it is `other`, or below it.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.strip_prefix(&*other.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// It and all that it is below of, the lowest first.
    pub fn and_above(&self) -> impl Iterator<Item = Self> {
        std::iter::successors(Some(self.clone()), Self::parent)
    }
}

impl TryFrom<String> for Role {
    type Error = RoleError;
    fn try_from(text: String) -> Result<Self, RoleError> {
        Self::new(&text)
    }
}

impl From<Role> for String {
    fn from(role: Role) -> Self {
        role.0.as_ref().into()
    }
}

impl FromStr for Role {
    type Err = RoleError;
    fn from_str(text: &str) -> Result<Self, RoleError> {
        Self::new(text)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The role of whoever names none.
pub const ROLE_DEFAULT: &str = "default";

/// The SHA-256 of a bundle; shown as 64 lower-case hexadecimal digits, with `sha256:` before them where the algorithm must be said.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

/// Why a text is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub struct IdError {
    /// What would have been right.
    pub expected: &'static str,
}

impl FromStr for Digest {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = IdError { expected: "a SHA-256 digest: 64 lower-case hexadecimal digits, with or without 'sha256:'" };
        let text = text.strip_prefix("sha256:").unwrap_or(text).as_bytes();
        if text.len() != 64 {
            return Err(error);
        }
        let nibble = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(error),
        };
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AgentId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = IdError { expected: "an agent's id: 16 lower-case hexadecimal digits" };
        let right = text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let value = right.then(|| u64::from_str_radix(text, 16)).ok_or(error)?;
        value.map(Self).map_err(|_| error)
    }
}

/// `j` and the job's 64 bits in hexadecimal: what stands for a job without a name.
impl FromStr for JobId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = IdError { expected: "a job's id: 'j' and up to 16 lower-case hexadecimal digits" };
        lettered('j', text).map(Self).ok_or(error)
    }
}

/// The 64 bits of an id that is written as `letter` and up to 16 lower-case hexadecimal digits.
#[must_use]
pub fn lettered(letter: char, text: &str) -> Option<u64> {
    let digits = text.strip_prefix(letter)?;
    let right = (1..=16).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    right.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "j{:x}", self.0)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.job, self.index)
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.task, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_label() {
        for good in ["a", "web", "a-1", "0", &"x".repeat(63)] {
            assert_eq!(Name::new(good).map(String::from), Ok(good.to_owned()));
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a/b", "..", "é", "a\n", &"x".repeat(64)] {
            assert_eq!(Name::new(bad), Err(NameError), "{bad:?}");
        }
    }

    #[test]
    fn a_role_is_names_with_slashes_between() {
        let long = ["x".repeat(63).as_str(); 4].join("/");
        for good in ["a", "a/b", "web-1/0/x", "a/b/c/d/e/f/g/h", &long] {
            assert_eq!(Role::new(good).map(String::from), Ok(good.to_owned()));
        }
        for bad in ["", "/", "a/", "/a", "a//b", "a/../b", "a/b-", "A/b", "a/b/c/d/e/f/g/h/i", &format!("{long}/y"), "a/*"] {
            assert_eq!(Role::new(bad), Err(RoleError), "{bad:?}");
        }
    }

    #[test]
    fn a_role_is_within_what_it_is_below_of() {
        let role = |text: &str| Role::new(text).unwrap();
        assert_eq!(role("a/b/c").and_above().collect::<Vec<_>>(), [role("a/b/c"), role("a/b"), role("a")]);
        assert!(role("a/b").is_within(&role("a")) && role("a").is_within(&role("a")));
        assert!(!role("ab").is_within(&role("a")) && !role("a").is_within(&role("a/b")));
    }

    #[test]
    fn ids_print_what_they_parse() {
        let digest = Digest::of(b"");
        assert_eq!(digest.to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(format!("sha256:{digest}").parse(), Ok(digest));
        assert_eq!(AgentId(10).to_string().parse(), Ok(AgentId(10)));
        let job = JobId::new(ShardId(7), 300);
        assert_eq!(job.to_string().parse(), Ok(job));
        assert_eq!((job.shard(), job.sequence()), (ShardId(7), 300));
        for bad in ["", "sha256:", "E3", "zz"] {
            assert!(bad.parse::<Digest>().is_err() && bad.parse::<AgentId>().is_err() && bad.parse::<JobId>().is_err());
        }
    }
}
