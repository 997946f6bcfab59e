//! Files of the log: made ahead and full of zeros, so that a flush writes data and no metadata; read back frame by frame.
//!
//! Knows where damage is and whether it was once durable. Knows nothing of what is in a frame.

use super::JournalError;
use super::frame::{ALIGN_BYTES, Checksum, FRAME_HEAD_BYTES, FrameHead, HEAD_BYTES, Head, Key, after};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const ZEROS_BYTES: usize = 1 << 20;

/// The file of segment `sequence`.
pub fn path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{sequence:016x}.log"))
}

/// Makes a file of `bytes` zeros, durable; whatever was there is gone.
pub fn make(path: &Path, bytes: u64) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).or_else(|error| match error {
        // Some file systems cannot; the zeros below take the space all the same.
        rustix::io::Errno::OPNOTSUPP => Ok(()),
        error => Err(io::Error::from(error)),
    })?;
    let zeros = vec![0; ZEROS_BYTES];
    let mut offset = 0;
    while offset < bytes {
        let part = zeros.len().min(usize::try_from(bytes - offset).unwrap_or(usize::MAX));
        file.write_all_at(&zeros[..part], offset)?;
        offset += part as u64;
    }
    file.sync_all()?;
    Ok(file)
}

/// Makes what was created, renamed or removed in `dir` durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The segments in `dir`, by sequence.
///
/// # Errors
/// [`JournalError::Io`]; [`JournalError::Missing`] where one is missing between others.
pub fn list(dir: &Path) -> Result<Vec<u64>, JournalError> {
    let failed = |error| JournalError::io("list", dir, error);
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_str().and_then(|name| name.strip_suffix(".log")).filter(|name| name.len() == 16);
        found.extend(name.and_then(|name| u64::from_str_radix(name, 16).ok()));
    }
    found.sort_unstable();
    match found.windows(2).find(|pair| pair[0] + 1 != pair[1]) {
        Some(pair) => Err(JournalError::Missing { path: path(dir, pair[0] + 1) }),
        None => Ok(found),
    }
}

/// One segment that is open.
#[derive(Debug)]
pub struct Segment {
    /// Its file.
    pub file: File,
    /// What its frames are sealed with.
    pub key: Key,
}

/// One frame as it was read.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its head.
    pub head: FrameHead,
    /// Where its head begins.
    pub offset: u64,
    /// What is in it.
    pub body: Vec<u8>,
}

/// Reads one segment, a frame at a time.
#[derive(Debug)]
pub struct Reader<'a> {
    file: &'a File,
    key: Key,
    path: &'a Path,
    bytes: u64,
    offset: u64,
}

/// The frame that is expected next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Its number.
    pub number: u64,
    /// The checksum of the one before it; `None` where that one is gone.
    pub previous: Option<Checksum>,
}

impl<'a> Reader<'a> {
    /// Reads the head of the segment in `file`; `None` where it has none: it is damaged.
    pub fn open(file: &'a File, path: &'a Path) -> Result<Option<(Self, Head)>, JournalError> {
        let failed = |error| JournalError::io("read", path, error);
        let bytes = file.metadata().map_err(failed)?.len();
        let mut head = [0; HEAD_BYTES];
        if bytes < HEAD_BYTES as u64 {
            return Ok(None);
        }
        file.read_exact_at(&mut head, 0).map_err(failed)?;
        let reader = |head: Head| (Self { file, key: head.key, path, bytes, offset: HEAD_BYTES as u64 }, head);
        Ok(Head::decode(&head).map(reader))
    }

    /// Where the next frame begins, or would.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// The next frame; `None` where the segment has no more. Whether what it ends with was cut off or damaged is [`Self::check_end`]'s.
    pub fn next(&mut self, expected: Expected) -> Result<Option<Frame>, JournalError> {
        let frame = self.frame_at(self.offset)?;
        let follows =
            |frame: &Frame| frame.head.number == expected.number && expected.previous.is_none_or(|sum| sum == frame.head.previous);
        let frame = frame.filter(follows);
        if let Some(frame) = &frame {
            self.offset = after(frame.offset, frame.head.length);
        }
        Ok(frame)
    }

    /// After [`Self::next`] said `None`: no frame behind this place says that the frame `expected` was durable.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] where one does: the log is damaged here, not cut off.
    pub fn check_end(&self, expected: u64) -> Result<(), JournalError> {
        let mut window = vec![0; ZEROS_BYTES + FRAME_HEAD_BYTES];
        let mut start = self.offset;
        while start + (FRAME_HEAD_BYTES as u64) <= self.bytes {
            let length = window.len().min(usize::try_from(self.bytes - start).unwrap_or(usize::MAX));
            let window = &mut window[..length];
            self.read(window, start)?;
            for at in (0..=length - FRAME_HEAD_BYTES).step_by(ALIGN_BYTES as usize) {
                let later = |head: &FrameHead| head.number > expected && head.durable >= expected;
                let head = FrameHead::decode(&window[at..], &self.key).filter(later);
                if head.is_some() && self.frame_at(start + at as u64)?.is_some() {
                    return Err(self.damaged("a frame is damaged that a later one says was durable"));
                }
            }
            start += (length - FRAME_HEAD_BYTES + 1).next_multiple_of(ALIGN_BYTES as usize) as u64;
        }
        Ok(())
    }

    /// An error that names this place.
    pub fn damaged(&self, what: &'static str) -> JournalError {
        JournalError::Damaged { path: self.path.to_owned(), offset: self.offset, what }
    }

    fn frame_at(&self, offset: u64) -> Result<Option<Frame>, JournalError> {
        frame_at(self.file, &self.key, self.bytes, offset).map_err(|error| JournalError::io("read", self.path, error))
    }

    fn read(&self, into: &mut [u8], offset: u64) -> Result<(), JournalError> {
        self.file.read_exact_at(into, offset).map_err(|error| JournalError::io("read", self.path, error))
    }
}

/// The frame at `offset` of a file of `bytes`; `None` where there is no whole one.
pub fn frame_at(file: &File, key: &Key, bytes: u64, offset: u64) -> io::Result<Option<Frame>> {
    let mut head_bytes = [0; FRAME_HEAD_BYTES];
    if offset + FRAME_HEAD_BYTES as u64 > bytes {
        return Ok(None);
    }
    file.read_exact_at(&mut head_bytes, offset)?;
    let room = bytes - offset - FRAME_HEAD_BYTES as u64;
    let Some(head) = FrameHead::decode(&head_bytes, key).filter(|head| u64::from(head.length) <= room) else {
        return Ok(None);
    };
    let mut body = vec![0; head.length as usize];
    file.read_exact_at(&mut body, offset + FRAME_HEAD_BYTES as u64)?;
    Ok(head.is_whole(key, &head_bytes, &body).then_some(Frame { head, offset, body }))
}
