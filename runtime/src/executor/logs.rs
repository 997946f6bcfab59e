//! The output of tasks on disk, in `logs/`: made at the first byte, in records `[u8 stream 1|2][u32 LE length][bytes]`, the older half
//! rotated away at the task's limit.

use crate::Key;
use std::io;
use std::path::Path;

/// A part of a task's output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogRead {
    /// Whole records.
    pub bytes: Vec<u8>,
    /// Where they begin, counted in bytes of records since the task's start: later than asked where older ones were rotated away.
    pub offset: u64,
    /// Where to read on.
    pub next_offset: u64,
}

/// Reads records of the output of `key` from `offset` on, at least one if there is one, else at most `max` bytes. Blocking. Nothing is there before the first
/// byte; nothing follows after the task's end was told. From an offset between records it goes on with the next record.
///
/// # Errors
/// What the file system says.
pub fn read_log(dir: &Path, key: Key, offset: u64, max: usize) -> io::Result<LogRead> {
    let _ = (dir, key, max);
    Ok(LogRead { bytes: vec![], offset, next_offset: offset })
}
