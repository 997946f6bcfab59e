//! What survives the agent's process: the ledger's records, appended to one file and not flushed, since after a power cut the tasks they
//! speak of are gone too. Knows no ledger, only its records in order.
//!
//! The file is [`MAGIC`], then records: a little-endian `u32` of the body's bytes, the first 8 bytes of the body's BLAKE3, the body in
//! postcard's format.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::ledger::event::Record;

/// The first bytes of the file; the last of them is the version.
pub const MAGIC: &[u8; 8] = b"skepldg\x01";
/// Longest record; what claims to be longer is damage.
const RECORD_BYTES_MAX: usize = 4 << 20;
/// A file shorter than this is not written anew.
const COMPACT_BYTES_MIN: u64 = 8 << 20;
/// A file is written anew where it is so many times longer than when it was last.
const COMPACT_FACTOR: u64 = 4;
const HEADER_BYTES: usize = 12;

/// Why there is no checkpoint. The agent ends then: it must not start what it cannot remember.
#[derive(Debug, thiserror::Error)]
#[error("{step} {path}: {source}")]
pub struct CheckpointError {
    /// What was tried.
    pub step: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// What was found in the file.
#[derive(Debug, Default)]
pub struct Found {
    /// All records before the first damage.
    pub records: Vec<Record>,
    /// Where the damage begins, how many bytes are given up, and what is wrong.
    pub damage: Option<Damage>,
}

/// Bytes that are no records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The last record was not wholly written: it was never acted upon, and is cut off.
    TornTail {
        /// How many bytes.
        bytes: u64,
    },
    /// Something else wrote there, or the disk forgot. All from there on is given up; what executors say is taken for true, what they do
    /// not name is lost, and what only they name is ended.
    Middle {
        /// Where it begins.
        offset: u64,
        /// How many bytes are given up.
        bytes: u64,
    },
}

/// The open file.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// When it was last written anew.
    compact_bytes: u64,
    buffer: Vec<u8>,
}

impl Checkpoint {
    /// Opens the file, or makes it, and reads what it holds. What is damaged is cut off; damage in the middle is kept aside in
    /// `PATH.damaged`.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn open(path: &Path) -> Result<(Self, Found), CheckpointError> {
        let failed = |step| move |source| CheckpointError { step, path: path.to_owned(), source };
        let content = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            content => content.map_err(failed("reading"))?,
        };
        let (found, good_bytes) = parse(&content);
        if matches!(found.damage, Some(Damage::Middle { .. })) {
            let aside = path.with_extension("damaged");
            fs::write(&aside, &content).map_err(failed("keeping the damaged copy of"))?;
        }
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).read(true).mode(0o600).open(path).map_err(failed("opening"))?;
        file.set_len(good_bytes as u64).map_err(failed("cutting the damaged end of"))?;
        let mut checkpoint =
            Self { path: path.to_owned(), file, bytes: good_bytes as u64, compact_bytes: good_bytes as u64, buffer: Vec::new() };
        if good_bytes == 0 {
            checkpoint.buffer.extend_from_slice(MAGIC);
            checkpoint.write()?;
        }
        Ok((checkpoint, found))
    }

    /// Encodes `record` behind what is queued.
    pub fn queue(&mut self, record: &Record) {
        encode(record, &mut self.buffer);
    }

    /// Writes all that is queued, in one call to the system where it takes it. Nothing is flushed to the disk.
    ///
    /// # Errors
    /// [`CheckpointError`]: the agent must end.
    pub fn write(&mut self) -> Result<(), CheckpointError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all(&self.buffer);
        written.map_err(|source| CheckpointError { step: "writing", path: self.path.clone(), source })?;
        self.bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// True where the file has grown so much that it should be written anew.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.bytes >= COMPACT_BYTES_MIN && self.bytes / COMPACT_FACTOR >= self.compact_bytes
    }

    /// Puts `records` in place of all that is there, at once or not at all.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn replace(&mut self, records: &[Record]) -> Result<(), CheckpointError> {
        let path = self.path.with_extension("new");
        let failed = |step| {
            let path = path.clone();
            move |source| CheckpointError { step, path, source }
        };
        let mut content = MAGIC.to_vec();
        records.iter().for_each(|record| encode(record, &mut content));
        let mut options = OpenOptions::new();
        let file = options.create(true).write(true).truncate(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(&content)).map_err(failed("writing"))?;
        fs::rename(&path, &self.path).map_err(failed("renaming"))?;
        self.file = OpenOptions::new().append(true).read(true).open(&self.path).map_err(failed("opening after renaming"))?;
        self.buffer.clear();
        self.bytes = content.len() as u64;
        self.compact_bytes = self.bytes;
        Ok(())
    }
}

fn encode(record: &Record, buffer: &mut Vec<u8>) {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEADER_BYTES]);
    let taken = std::mem::take(buffer);
    *buffer = postcard::to_extend(record, taken).expect("a record has nothing that postcard refuses, and a vector takes all");
    let body = start + HEADER_BYTES;
    assert!(buffer.len() - body <= RECORD_BYTES_MAX, "a record is of as many attempts as a message, and their reasons are short");
    let length = u32::try_from(buffer.len() - body).expect("it was just compared");
    let hash = blake3::hash(&buffer[body..]);
    buffer[start..start + 4].copy_from_slice(&length.to_le_bytes());
    buffer[start + 4..body].copy_from_slice(&hash.as_bytes()[..8]);
}

/// The records, and how many bytes of `content` they and what is before them take.
fn parse(content: &[u8]) -> (Found, usize) {
    let mut found = Found::default();
    if content.len() < MAGIC.len() && MAGIC.starts_with(content) {
        found.damage = (!content.is_empty()).then_some(Damage::TornTail { bytes: content.len() as u64 });
        return (found, 0);
    }
    if !content.starts_with(MAGIC) {
        found.damage = Some(Damage::Middle { offset: 0, bytes: content.len() as u64 });
        return (found, 0);
    }
    let mut at = MAGIC.len();
    while at < content.len() {
        match one(&content[at..]) {
            Ok((record, bytes)) => {
                found.records.push(record);
                at += bytes;
            }
            Err(claimed) => {
                let bytes = (content.len() - at) as u64;
                // A torn write leaves the beginning of a record: its claimed end is not in the file, and no other follows.
                let torn = claimed.is_none_or(|claimed| claimed > content.len() - at) && !holds_record(&content[at + 1..]);
                found.damage = Some(if torn { Damage::TornTail { bytes } } else { Damage::Middle { offset: at as u64, bytes } });
                break;
            }
        }
    }
    (found, at)
}

/// The record at the beginning of `bytes` and how long it is; or how long it says that it is, where it says anything.
fn one(bytes: &[u8]) -> Result<(Record, usize), Option<usize>> {
    let header = bytes.first_chunk::<HEADER_BYTES>().ok_or(None)?;
    let length = u32::from_le_bytes(header[..4].try_into().expect("4 of 12 bytes")) as usize;
    let whole = HEADER_BYTES + length;
    let body = bytes.get(HEADER_BYTES..whole).filter(|_| length <= RECORD_BYTES_MAX).ok_or(Some(whole))?;
    if blake3::hash(body).as_bytes()[..8] != header[4..] {
        return Err(Some(whole));
    }
    let (record, rest) = postcard::take_from_bytes(body).map_err(|_| Some(whole))?;
    if rest.is_empty() { Ok((record, whole)) } else { Err(Some(whole)) }
}

/// True where a record begins anywhere in the first part of `bytes`.
fn holds_record(bytes: &[u8]) -> bool {
    const LOOK_BYTES_MAX: usize = 64 << 10;
    let plausible = |at: &usize| bytes.get(at + 2..at + 4).is_some_and(|high| high == [0, 0]);
    (0..bytes.len().min(LOOK_BYTES_MAX)).filter(plausible).any(|at| one(&bytes[at..]).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use protocol::{AttemptId, Exit, JobId, Usage};

    fn records(count: u64) -> Vec<Record> {
        let ended = |n| Record::Ended { attempts: vec![(AttemptId::new(JobId(n), 7, 1), Exit::Code(n as i32), Usage::default())] };
        let began = Record::Began { incarnation: 9, boot: "boot".into() };
        std::iter::once(began).chain((1..count).map(ended)).collect()
    }

    fn written(dir: &Scratch, records: &[Record]) -> (PathBuf, Vec<u8>) {
        let path = dir.path().join("ledger");
        let (mut checkpoint, _) = Checkpoint::open(&path).unwrap();
        records.iter().for_each(|record| checkpoint.queue(record));
        checkpoint.write().unwrap();
        let content = fs::read(&path).unwrap();
        (path, content)
    }

    #[test]
    fn what_was_written_is_found() {
        let dir = Scratch::new();
        let (path, _) = written(&dir, &records(5));
        let (mut checkpoint, found) = Checkpoint::open(&path).unwrap();
        assert_eq!((found.records, found.damage), (records(5), None));
        checkpoint.replace(&records(2)).unwrap();
        checkpoint.queue(&records(3)[2]);
        checkpoint.write().unwrap();
        let (_, found) = Checkpoint::open(&path).unwrap();
        assert_eq!((found.records, found.damage), (records(3), None));
    }

    #[test]
    fn a_tail_torn_anywhere_is_cut_and_writing_goes_on() {
        let dir = Scratch::new();
        let all = records(4);
        let (path, content) = written(&dir, &all);
        for length in 0..content.len() {
            fs::write(&path, &content[..length]).unwrap();
            let (mut checkpoint, found) = Checkpoint::open(&path).unwrap();
            assert!(all.starts_with(&found.records) && !matches!(found.damage, Some(Damage::Middle { .. })), "cut at {length}");
            checkpoint.queue(&all[1]);
            checkpoint.write().unwrap();
            let (_, again) = Checkpoint::open(&path).unwrap();
            assert_eq!((again.records.len(), again.damage), (found.records.len() + 1, None), "cut at {length}");
        }
    }

    #[test]
    fn a_flipped_bit_is_found_wherever_it_is_and_no_wrong_record_is_read() {
        let dir = Scratch::new();
        let all = records(4);
        let (path, content) = written(&dir, &all);
        for at in 0..content.len() {
            let mut flipped = content.clone();
            flipped[at] ^= 0x10;
            fs::write(&path, &flipped).unwrap();
            let (_, found) = Checkpoint::open(&path).unwrap();
            assert!(all.starts_with(&found.records) && found.records.len() < all.len() && found.damage.is_some(), "flipped at {at}");
        }
        assert_eq!(fs::read(path.with_extension("damaged")).unwrap().len(), content.len());
    }
}
