//! What lasts of the shards: one Raft group for each, one log on disk for all groups of the process, a snapshot for each shard.
//!
//! Knows entries, their order and when they are durable. Knows what a record is only to fold it into a shard: when it is recovered, when it
//! follows another's lead, and when a snapshot is made.

mod anew;
mod file;
mod frame;
pub mod group;
mod index;
mod log;
mod machine;
pub mod network;
pub mod raft;
mod recover;
mod reign;
mod runtime;
mod segment;
mod snapshot;
mod store;
mod succession;
mod writer;

pub use anew::found_from_snapshots;
pub use group::{Fate, Group, Member, Seat, Standing};
pub use log::{Applied, Hands, Log, LogConfig};
pub use raft::Batch;
pub use reign::{Recovered, Turn, Turns};
pub use runtime::draw_from;
pub use segment::sync_dir;
pub use snapshot::path as snapshot_path;
pub use succession::order;

use std::io;
use std::path::{Path, PathBuf};

/// Why the journal could not be opened or written. After a failed write nothing more is written: what the disk then holds is not known.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk or its file system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Bytes that were durable are others now.
    #[error("the journal is damaged in {} at byte {offset}: {what}; restore the data directory from a copy", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// How that is known.
        what: &'static str,
    },
    /// A file that must be there is not.
    #[error("the journal lacks {}; restore the data directory from a copy", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It was written by a newer version.
    #[error("{what} has version {found}, this binary knows {known}: use the newer binary that wrote it")]
    Newer {
        /// What.
        what: &'static str,
        /// Its version.
        found: u16,
        /// The newest that is known here.
        known: u16,
    },
    /// Entries of a shard are missing between its snapshot and its log.
    #[error("the journal of shard {shard} lacks its entries {from} to {until}; restore the data directory from a copy")]
    Gap {
        /// Which shard.
        shard: u16,
        /// The first that is missing.
        from: u64,
        /// The first that is there.
        until: u64,
    },
    /// Another process, or an earlier life of this one that has not ended yet, has it.
    #[error("another process writes the journal in {}", path.display())]
    Locked {
        /// The journal's directory.
        path: PathBuf,
    },
    /// An earlier write failed.
    #[error("the journal has stopped: {reason}")]
    Stopped {
        /// What failed.
        reason: String,
    },
    /// The consensus engine stopped.
    #[error("the consensus engine of shard {shard} has stopped: {reason}")]
    Raft {
        /// Which shard's.
        shard: u16,
        /// In its words.
        reason: String,
    },
}

impl JournalError {
    fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { doing, path: path.to_owned(), source }
    }
}

#[cfg(test)]
pub(crate) mod tests;
