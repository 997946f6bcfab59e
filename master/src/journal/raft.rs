//! What the consensus engine is told of our world: names of its types, and a batch of records as it sees it.

use super::JournalError;
use crate::shard::Record;
use crate::shard::record::RECORD_VERSION;
use bytes::Bytes;
use openraft::{BasicNode, LogId, StoredMembership, Vote};
use serde::{Deserialize, Serialize};
use std::fmt;

openraft::declare_raft_types!(
    /// The engine's types.
    pub Types:
        D = Batch,
        R = (),
        NodeId = u64,
        Node = BasicNode,
        SnapshotData = tokio::fs::File,
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

/// All records of one round of a shard: its version, then the records, in postcard. Encoded once, where they are decided.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch(pub Bytes);

impl Batch {
    /// The batch of `records`.
    #[must_use]
    pub fn encode(records: &[Record]) -> Self {
        let bytes = postcard::to_allocvec(&(RECORD_VERSION, records)).expect("records have no type that postcard cannot write");
        Self(bytes.into())
    }

    /// Its records.
    ///
    /// # Errors
    /// [`JournalError::Newer`]; [`JournalError::Stopped`] where its bytes are no records, which a checksum has ruled out.
    pub fn decode(&self) -> Result<Vec<Record>, JournalError> {
        let unreadable = |error| JournalError::Stopped { reason: format!("an entry of the journal cannot be read: {error}") };
        let (found, rest) = postcard::take_from_bytes::<u16>(&self.0).map_err(unreadable)?;
        if found > RECORD_VERSION {
            return Err(JournalError::Newer { what: "an entry of the journal", found, known: RECORD_VERSION });
        }
        postcard::from_bytes(rest).map_err(unreadable)
    }
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
