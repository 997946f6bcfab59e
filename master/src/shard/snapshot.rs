//! A shard's lasting state as it stands in a snapshot.

use serde::{Deserialize, Serialize};

/// A shard's lasting state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardSnapshot {
    /// [`super::record::RECORD_VERSION`] of whoever made it.
    pub version: u16,
}
