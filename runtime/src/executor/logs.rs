//! The output of tasks on disk, in `logs/`. A task has no file before its first byte, and then one or two: the older half of what is kept
//! is removed when the younger is full. Writing is synchronous, so a task that floods waits for the file system, and nothing else grows.
//!
//! A file is `[u64 LE: offset of its first record]` and records `[u8 stream: 1 output, 2 errors][u32 LE length][bytes]`. Offsets count bytes
//! of records since the task's start.

use crate::{Key, Stream};
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Most bytes in one record.
pub const RECORD_BYTES_MAX: usize = 64 << 10;
/// Bytes before those of a record.
pub const RECORD_HEADER_BYTES: usize = 5;
/// Most files that an executor holds open for output; the least recently written are closed, and opened again when written.
const OPEN_MAX: usize = 512;
/// Most bytes, and most tasks, whose output is kept after their end; the oldest goes first.
const ENDED_BYTES_MAX: u64 = 1 << 30;
const ENDED_TASKS_MAX: usize = 16_384;
/// What a small file takes on disk.
const BLOCK_BYTES: u64 = 4_096;
const FILE_HEADER_BYTES: usize = 8;
const FOLDER: &str = "logs";

/// A part of a task's output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogRead {
    /// Whole records.
    pub bytes: Vec<u8>,
    /// Where they begin: later than asked where older ones were rotated away.
    pub offset: u64,
    /// Where to read on.
    pub next_offset: u64,
}

/// Reads records of the output of `key` from `offset` on, up to `max` bytes of them, but at least one if there is one. Blocking.
/// Nothing is there before the first byte; nothing follows once the task's end was told. An offset inside a record means the next one.
///
/// # Errors
/// What the file system says.
pub fn read_log(dir: &Path, key: Key, offset: u64, max: usize) -> io::Result<LogRead> {
    let mut halves = vec![];
    for half in 0..2 {
        match fs::read(path(&dir.join(FOLDER), key, half)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            read => halves.push(read?),
        }
    }
    let mut halves: Vec<_> =
        halves.iter().filter_map(|bytes| bytes.split_first_chunk()).map(|(start, rest)| (u64::from_le_bytes(*start), rest)).collect();
    halves.sort_unstable_by_key(|(start, _)| *start);
    let mut read = LogRead { offset, next_offset: offset, ..LogRead::default() };
    for (start, mut rest) in halves {
        let mut at = start;
        while let Some(record) = first_record(rest) {
            if at >= offset && (read.bytes.is_empty() || (read.bytes.len() + record.len() <= max && read.next_offset == at)) {
                read.offset = if read.bytes.is_empty() { at } else { read.offset };
                read.bytes.extend_from_slice(record);
                read.next_offset = at + record.len() as u64;
            } else if !read.bytes.is_empty() {
                return Ok(read);
            }
            at += record.len() as u64;
            rest = &rest[record.len()..];
        }
    }
    Ok(read)
}

/// The first record, if it is whole: another process may be writing it.
fn first_record(bytes: &[u8]) -> Option<&[u8]> {
    let length = bytes.get(1..RECORD_HEADER_BYTES)?.first_chunk()?;
    bytes.get(..RECORD_HEADER_BYTES + u32::from_le_bytes(*length) as usize)
}

fn path(folder: &Path, key: Key, half: usize) -> PathBuf {
    folder.join(format!("{:032x}.{half}", key.0))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All output of an executor.
#[derive(Debug)]
pub(super) struct Logs {
    folder: PathBuf,
    /// Those with an open file, roughly in the order of their last write.
    open: Mutex<VecDeque<Weak<TaskLog>>>,
    ended: Mutex<Ended>,
}

/// Tasks with output that ended, oldest first, and the bytes that they take.
#[derive(Debug, Default)]
struct Ended {
    tasks: VecDeque<(Key, u64)>,
    bytes: u64,
}

/// The output of one task.
#[derive(Debug)]
pub(super) struct TaskLog {
    key: Key,
    half_bytes_max: u64,
    /// Written to since somebody last looked for a file to close.
    used: AtomicBool,
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    file: Option<File>,
    /// Which of the two files is written, how long it and the other one are; zero is no file yet.
    half: usize,
    half_bytes: u64,
    other_bytes: u64,
    /// Bytes of records since the start.
    offset: u64,
}

impl Logs {
    /// Those of the executor in `dir`.
    pub(super) fn new(dir: &Path) -> Self {
        Self::in_folder(dir.join(FOLDER))
    }

    /// Those in `folder`.
    pub(super) fn in_folder(folder: PathBuf) -> Self {
        Self { folder, open: Mutex::default(), ended: Mutex::default() }
    }

    /// The output of a task, of which `bytes_max` are kept. Makes no file.
    pub(super) fn task(&self, key: Key, bytes_max: u64) -> Arc<TaskLog> {
        Arc::new(TaskLog { key, half_bytes_max: bytes_max / 2, used: AtomicBool::new(false), written: Mutex::default() })
    }

    /// Writes output. What the file system refuses is dropped: a full disk ends no task.
    pub(super) fn write(&self, log: &Arc<TaskLog>, stream: Stream, bytes: &[u8]) {
        let most = usize::try_from(log.half_bytes_max).unwrap_or(usize::MAX).saturating_sub(RECORD_HEADER_BYTES + FILE_HEADER_BYTES);
        if most == 0 {
            return;
        }
        let mut written = locked(&log.written);
        log.used.store(true, Ordering::Relaxed);
        for part in bytes.chunks(most.min(RECORD_BYTES_MAX)) {
            let mut record = Vec::with_capacity(FILE_HEADER_BYTES + RECORD_HEADER_BYTES + part.len());
            record.push(if stream == Stream::Stdout { 1 } else { 2 });
            record.extend_from_slice(&u32::try_from(part.len()).expect("RECORD_BYTES_MAX fits").to_le_bytes());
            record.extend_from_slice(part);
            if self.append(log, &mut written, &record).is_err() {
                return;
            }
        }
    }

    fn append(&self, log: &Arc<TaskLog>, written: &mut Written, record: &[u8]) -> io::Result<()> {
        let length = record.len() as u64;
        if written.half_bytes > 0 && written.half_bytes + length > log.half_bytes_max {
            written.file = None;
            written.half = 1 - written.half;
            written.other_bytes = std::mem::take(&mut written.half_bytes);
        }
        let path = path(&self.folder, log.key, written.half);
        if written.half_bytes == 0 {
            // A new file, not the old one cut: who is reading that reads on.
            let _ = fs::remove_file(&path);
            let mut file = OpenOptions::new().create_new(true).append(true).open(&path)?;
            let mut first = written.offset.to_le_bytes().to_vec();
            first.extend_from_slice(record);
            if let Err(error) = file.write_all(&first) {
                let _ = fs::remove_file(&path);
                return Err(error);
            }
            written.half_bytes = first.len() as u64;
            written.file = Some(file);
            self.opened(log);
        } else {
            if written.file.is_none() {
                written.file = Some(OpenOptions::new().append(true).open(&path)?);
                self.opened(log);
            }
            let file = written.file.as_mut().expect("opened above");
            if let Err(error) = file.write_all(record) {
                file.set_len(written.half_bytes)?;
                return Err(error);
            }
            written.half_bytes += length;
        }
        written.offset += length;
        Ok(())
    }

    /// Closes others' files where too many are open; `log` itself is locked by the caller.
    fn opened(&self, log: &Arc<TaskLog>) {
        let mut open = locked(&self.open);
        open.push_back(Arc::downgrade(log));
        if open.len() <= OPEN_MAX {
            return;
        }
        open.retain(|task| task.strong_count() > 0);
        // Twice around at most: once to take away who was used, once to find who was not.
        for _ in 0..2 * open.len() {
            if open.len() <= OPEN_MAX {
                break;
            }
            let Some(task) = open.pop_front().and_then(|task| task.upgrade()) else { continue };
            let spared = task.used.swap(false, Ordering::Relaxed);
            match task.written.try_lock() {
                Ok(mut written) if !spared => written.file = None,
                _ => open.push_back(Arc::downgrade(&task)),
            }
        }
    }

    /// The task ended: its output is complete, and kept until newer ends need the room.
    pub(super) fn end(&self, log: &TaskLog) {
        let mut written = locked(&log.written);
        written.file = None;
        let bytes = written.half_bytes + written.other_bytes;
        if bytes == 0 {
            return;
        }
        let mut ended = locked(&self.ended);
        ended.tasks.push_back((log.key, bytes.max(BLOCK_BYTES)));
        ended.bytes += bytes.max(BLOCK_BYTES);
        while ended.bytes > ENDED_BYTES_MAX || ended.tasks.len() > ENDED_TASKS_MAX {
            let Some((key, bytes)) = ended.tasks.pop_front() else { break };
            ended.bytes -= bytes;
            (0..2).for_each(|half| _ = fs::remove_file(path(&self.folder, key, half)));
        }
    }
}

#[cfg(test)]
mod tests;
