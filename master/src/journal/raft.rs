//! What the consensus engine is told of our world: names of its types, and a batch of records as it sees it.

use super::JournalError;
use super::file::SnapshotFile;
use super::runtime::Engine;
use crate::shard::Record;
use bytes::Bytes;
use openraft::{BasicNode, LogId, StoredMembership, Vote};
use serde::{Deserialize, Serialize};
use std::fmt;

openraft::declare_raft_types!(
    /// The engine's types.
    pub Types:
        D = Batch,
        R = Outcome,
        NodeId = u64,
        Node = BasicNode,
        SnapshotData = SnapshotFile,
        AsyncRuntime = Engine,
);

/// The place of an entry in its group's log.
pub type EntryId = LogId<u64>;
/// Who leads or wants to, and in which term.
pub type Ballot = Vote<u64>;
/// An entry of a group's log.
pub type Entry = openraft::Entry<Types>;
/// Who the members of a group are.
pub type Members = StoredMembership<u64, BasicNode>;
/// What the engine says of itself.
pub type Metrics = openraft::RaftMetrics<u64, BasicNode>;
/// The engine.
pub type Raft = openraft::Raft<Types>;

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It took effect.
    Done,
    /// It was decided in an earlier term than the one it came to stand in, so nothing of it is so: whoever decided it did not know what others
    /// had put on record between.
    Void,
}

/// Version of batches: 1 had no term.
const BATCH_VERSION: u16 = 2;

/// All records of one round of a shard: its version, the term in which they were decided, then the records, in postcard. Encoded once, where
/// they are decided.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch(pub Bytes);

impl Batch {
    /// The batch of `records` that a leader of `term` decided.
    #[must_use]
    pub fn encode(term: u64, records: &[Record]) -> Self {
        let bytes = postcard::to_allocvec(&(BATCH_VERSION, term, records)).expect("records have no type that postcard cannot write");
        Self(bytes.into())
    }

    /// What becomes of it as an entry of `term`.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn outcome(&self, term: u64) -> Result<Outcome, JournalError> {
        let (decided, _) = self.head()?;
        Ok(if decided.is_none_or(|decided| decided == term) { Outcome::Done } else { Outcome::Void })
    }

    /// Its records.
    ///
    /// # Errors
    /// [`JournalError::Newer`]; [`JournalError::Stopped`] where its bytes are no records, which a checksum has ruled out.
    pub fn decode(&self) -> Result<Vec<Record>, JournalError> {
        let (_, rest) = self.head()?;
        postcard::from_bytes(rest).map_err(|error| unreadable(&error))
    }

    fn head(&self) -> Result<(Option<u64>, &[u8]), JournalError> {
        let (found, rest) = postcard::take_from_bytes::<u16>(&self.0).map_err(|error| unreadable(&error))?;
        match found {
            1 => Ok((None, rest)),
            BATCH_VERSION => {
                let (term, rest) = postcard::take_from_bytes::<u64>(rest).map_err(|error| unreadable(&error))?;
                Ok((Some(term), rest))
            }
            _ => Err(JournalError::Newer { what: "an entry of the journal", found, known: BATCH_VERSION }),
        }
    }
}

fn unreadable(error: &postcard::Error) -> JournalError {
    JournalError::Stopped { reason: format!("an entry of the journal cannot be read: {error}") }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} bytes)", self.0.len())
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
