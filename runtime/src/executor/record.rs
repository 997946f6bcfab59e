//! `tasks.log`: what an executor took, before it ran, and how it ended, before anyone was told. Outlives the process, not a power cut: it
//! is written, not flushed.
//!
//! The file is a row of pieces `[u32 LE length][8 bytes: BLAKE3 of the body][body: postcard of one Record]`, one write each. What follows
//! a piece that does not hold is not believed: the tail of a process that died, or damage, after which tasks count as lost.

use crate::{Exit, Key, Usage};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The files of a record.
pub(super) const NAMES: [&str; 2] = [NAME, NAME_NEW];
const NAME: &str = "tasks.log";
const NAME_NEW: &str = "tasks.log.new";
const HEADER_BYTES: usize = 12;
/// From this size on the file is written anew without what was forgotten, and again each time it has doubled.
const COMPACT_BYTES_MIN: u64 = 16 << 20;
/// Most ends in one piece of a file written anew.
const PIECE_ENDS_MAX: usize = 4_096;

/// What a dead executor left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// Tasks whose end is on record. Some may have been forgotten since.
    pub ended: Vec<(Key, Exit, Usage)>,
    /// Tasks that it took and whose end is not on record: they died with it (`Exit::ExecutorLost`).
    pub lost: Vec<Key>,
}

/// One piece. New variants at the end.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Record {
    /// Tasks were taken, before they run.
    Taken(Vec<Key>),
    /// Tasks ended, before anyone was told.
    Ended(Vec<(Key, Exit, Usage)>),
}

/// The file, open for as long as the executor lives.
#[derive(Debug)]
pub(super) struct RecordLog {
    folder: PathBuf,
    file: File,
    bytes: u64,
    /// A write failed, and may have left a part behind `bytes`.
    torn: bool,
    compact_bytes: u64,
}

impl RecordLog {
    /// Makes it in `dir`, where there is none yet: a directory serves one executor.
    pub(super) fn create(dir: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create_new(true).append(true).open(dir.join(NAME))?;
        Ok(Self { folder: dir.into(), file, bytes: 0, torn: false, compact_bytes: COMPACT_BYTES_MIN })
    }

    /// Writes one record; after an error it may be tried again.
    pub(super) fn append(&mut self, record: &Record) -> io::Result<()> {
        let piece = piece(record)?;
        if self.torn {
            self.file.set_len(self.bytes)?;
        }
        self.torn = true;
        self.file.write_all(&piece)?;
        self.torn = false;
        self.bytes += piece.len() as u64;
        Ok(())
    }

    /// True where much of it may be forgotten.
    pub(super) fn is_long(&self) -> bool {
        self.bytes >= self.compact_bytes
    }

    /// Writes it anew with what is still held.
    pub(super) fn compact(&mut self, live: Vec<Key>, ended: &[(Key, Exit, Usage)]) -> io::Result<()> {
        let path = self.folder.join(NAME_NEW);
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
        let mut bytes = 0;
        let ends = ended.chunks(PIECE_ENDS_MAX).map(|ends| Record::Ended(ends.to_vec()));
        for record in std::iter::once(Record::Taken(live)).chain(ends) {
            let piece = piece(&record)?;
            file.write_all(&piece)?;
            bytes += piece.len() as u64;
        }
        // Opened again to append: a failed write is cut off by length, and the next must not leave a hole.
        let file = OpenOptions::new().append(true).open(&path)?;
        fs::rename(&path, self.folder.join(NAME))?;
        *self =
            Self { folder: std::mem::take(&mut self.folder), file, bytes, torn: false, compact_bytes: COMPACT_BYTES_MIN.max(2 * bytes) };
        Ok(())
    }
}

fn piece(record: &Record) -> io::Result<Vec<u8>> {
    let piece = postcard::to_extend(record, vec![0; HEADER_BYTES]).map_err(io::Error::other);
    piece.map(|mut piece| {
        let body = &piece[HEADER_BYTES..];
        let length = u32::try_from(body.len()).expect("a batch of keys and ends is far below 4 GiB").to_le_bytes();
        let check = check(body);
        piece[..4].copy_from_slice(&length);
        piece[4..HEADER_BYTES].copy_from_slice(&check);
        piece
    })
}

/// Finds out how this processor hashes, once for all that is forked afterwards: asking it is slow on a virtual machine.
pub(super) fn prepare() {
    check(&[]);
}

fn check(body: &[u8]) -> [u8; 8] {
    *blake3::hash(body).as_bytes().first_chunk().expect("a BLAKE3 hash has 32 bytes")
}

/// Takes the first piece off `bytes`; `None` where it does not hold.
fn take(bytes: &mut &[u8]) -> Option<Record> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (expected, rest) = rest.split_first_chunk::<8>()?;
    let body = rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    if check(body) != *expected {
        return None;
    }
    *bytes = &rest[body.len()..];
    postcard::from_bytes(body).ok()
}

/// Reads what the executor of `dir` left; only true once it is dead. Empty where there was none. Blocking.
///
/// # Errors
/// Where the record is there and cannot be read.
pub fn remains(dir: &Path) -> io::Result<Remains> {
    let bytes = match fs::read(dir.join(NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Remains::default()),
        read => read?,
    };
    let mut rest = bytes.as_slice();
    let mut known = BTreeMap::new();
    while let Some(record) = take(&mut rest) {
        match record {
            Record::Taken(keys) => keys.into_iter().for_each(|key| _ = known.entry(key).or_insert(None)),
            Record::Ended(ends) => known.extend(ends.into_iter().map(|(key, exit, usage)| (key, Some((exit, usage))))),
        }
    }
    let mut remains = Remains::default();
    for (key, end) in known {
        match end {
            Some((exit, usage)) => remains.ended.push((key, exit, usage)),
            None => remains.lost.push(key),
        }
    }
    Ok(remains)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::fixture::Folder;

    fn end(key: u128, code: i32) -> (Key, Exit, Usage) {
        (Key(key), Exit::Code(code), Usage::default())
    }

    fn written(folder: &Folder) -> RecordLog {
        let mut log = RecordLog::create(folder.path()).unwrap();
        log.append(&Record::Taken(vec![Key(1), Key(2), Key(u128::MAX)])).unwrap();
        log.append(&Record::Ended(vec![end(2, 7)])).unwrap();
        log.append(&Record::Ended(vec![end(1, 0)])).unwrap();
        log
    }

    #[test]
    fn what_was_taken_and_did_not_end_is_lost() {
        let folder = Folder::new();
        written(&folder);
        let expected = Remains { ended: vec![end(1, 0), end(2, 7)], lost: vec![Key(u128::MAX)] };
        assert_eq!(remains(folder.path()).unwrap(), expected);
    }

    #[test]
    fn a_tail_cut_anywhere_or_flipped_is_not_believed_and_what_is_before_it_is() {
        let folder = Folder::new();
        let first_two = {
            let mut log = RecordLog::create(folder.path()).unwrap();
            log.append(&Record::Taken(vec![Key(1), Key(2)])).unwrap();
            log.append(&Record::Ended(vec![end(2, 7)])).unwrap();
            let kept = log.bytes;
            log.append(&Record::Ended(vec![end(1, 0)])).unwrap();
            usize::try_from(kept).unwrap()
        };
        let path = folder.path().join(NAME);
        let whole = fs::read(&path).unwrap();
        let expected = Remains { ended: vec![end(2, 7)], lost: vec![Key(1)] };
        for cut in first_two..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(remains(folder.path()).unwrap(), expected, "cut at {cut}");
        }
        for flipped in first_two..whole.len() {
            let mut bytes = whole.clone();
            bytes[flipped] ^= 0x10;
            fs::write(&path, &bytes).unwrap();
            assert_eq!(remains(folder.path()).unwrap(), expected, "flipped at {flipped}");
        }
    }

    #[test]
    fn a_file_written_anew_holds_what_is_held_and_grows_on() {
        let folder = Folder::new();
        let mut log = written(&folder);
        log.compact(vec![Key(9)], &[end(2, 7)]).unwrap();
        log.append(&Record::Ended(vec![end(9, 3)])).unwrap();
        assert_eq!(remains(folder.path()).unwrap(), Remains { ended: vec![end(2, 7), end(9, 3)], lost: vec![] });
        assert!(!log.is_long());
    }

    #[test]
    fn what_a_failed_write_left_is_cut_off_by_the_next() {
        let folder = Folder::new();
        let mut log = written(&folder);
        log.file.write_all(b"half of a piece").unwrap();
        log.torn = true;
        log.append(&Record::Ended(vec![end(u128::MAX, 1)])).unwrap();
        let expected = Remains { ended: vec![end(1, 0), end(2, 7), end(u128::MAX, 1)], lost: vec![] };
        assert_eq!(remains(folder.path()).unwrap(), expected);
    }

    #[test]
    fn a_directory_serves_one_executor() {
        let folder = Folder::new();
        assert_eq!(remains(folder.path()).unwrap(), Remains::default());
        drop(written(&folder));
        assert_eq!(RecordLog::create(folder.path()).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
