//! What writes: takes all that waits, writes it in one frame (more where it is much), flushes once, and tells all that waited. A thread of its
//! own does so; or, where it rests and the work is small, whoever brings the work, without waking another thread and being woken by it.
//!
//! After the first error it writes nothing more and tells everybody so: what a failed flush left on disk nobody knows (Rebello et al., "Can
//! applications recover from fsync failures?", ATC 2020), so it is never tried again.

use super::JournalError;
use super::frame::{FRAME_HEAD_BYTES, FrameHead, HEAD_BYTES, after};
use super::index::Place;
use super::log::{End, Shared, lock};
use super::raft::{Entry, Types};
use super::recover::{Item, begin};
use super::segment::{self, Segment};
use openraft::storage::LogFlushed;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A frame that has grown to this many bytes gets no further items.
const FRAME_BYTES_AIM: usize = 1 << 20;
/// Flushes that take longer than this are left to the thread: it is what waking it and being woken cost several times over.
const FLUSH_AT_ONCE_MAX: Duration = Duration::from_micros(500);

/// Something for the writing thread.
pub enum Work {
    /// Append entries.
    Append {
        /// Whose.
        group: u16,
        /// In order.
        entries: Vec<Entry>,
        /// Told when they are durable.
        done: LogFlushed<Types>,
    },
    /// Write this.
    Mark {
        /// What.
        item: Item,
        /// Told when it is durable; `None`: nobody waits, so it is written with what comes next.
        done: Option<oneshot::Sender<io::Result<()>>>,
    },
    /// Let go of segments that no group needs.
    Release,
    /// Write all that waits, and end.
    Close,
}

impl Work {
    /// False where nobody waits for it.
    pub const fn is_urgent(&self) -> bool {
        !matches!(self, Self::Mark { done: None, .. })
    }
}

/// Writes whatever is brought to it, until it is closed.
pub fn run(shared: &Shared, writer: &Mutex<Writer>) {
    loop {
        let mut queue = lock(&shared.queue);
        while !queue.iter().any(Work::is_urgent) {
            queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        drop(queue);
        let mut writer = writer.lock().unwrap_or_else(|poisoned| {
            let _ = shared.failed.set("it was left half written by a thread that panicked".into());
            poisoned.into_inner()
        });
        if writer.serve() {
            break;
        }
    }
}

/// Bytes of the file that is written; where they cannot be read, the next segment is begun at once, and says why it cannot be.
fn end_of(file: &File, end: End) -> u64 {
    file.metadata().map_or(end.offset, |metadata| metadata.len())
}

/// Tells those who waited.
fn finish(failed: Option<&str>, work: Vec<Work>) {
    let result = || failed.map_or(Ok(()), |reason| Err(io::Error::other(reason.to_owned())));
    for work in work {
        match work {
            Work::Append { done, .. } => done.log_io_completed(result()),
            // Who no longer waits need not know.
            Work::Mark { done: Some(done), .. } => drop(done.send(result())),
            Work::Mark { done: None, .. } | Work::Release | Work::Close => {}
        }
    }
}

/// The file that becomes the next segment, while it is made.
type Spare = thread::JoinHandle<io::Result<File>>;

/// What is written, and where it goes on.
pub struct Writer {
    shared: Arc<Shared>,
    segment: Arc<Segment>,
    segment_bytes: u64,
    end: End,
    /// The last frame that is durable.
    durable: u64,
    /// The frame that is being filled, behind room for its head; empty: none is.
    buffer: Vec<u8>,
    /// Entries in frames that are not durable yet.
    pending: Vec<(u16, u64, Place)>,
    spare: Option<Spare>,
    /// True where nothing was written since the log was last closed.
    closed: bool,
    /// How long flushes take: the mean of the last few.
    flush: Duration,
}

impl Writer {
    /// Goes on at the end of what is there.
    pub fn new(shared: Arc<Shared>, end: End) -> Self {
        let segment = Arc::clone(&lock(&shared.files)[&end.sequence]);
        let segment_bytes = end_of(&segment.file, end);
        let spare = Some(make_spare(&shared));
        let (buffer, pending) = (Vec::new(), Vec::new());
        Self { shared, segment, segment_bytes, end, durable: end.frame, buffer, pending, spare, closed: true, flush: Duration::ZERO }
    }

    /// True: flushes are so quick that who has little to write does not lose by waiting for one.
    pub fn is_quick(&self) -> bool {
        self.flush <= FLUSH_AT_ONCE_MAX
    }

    /// Writes all that waits and tells those who brought it; true when that closed the log.
    pub fn serve(&mut self) -> bool {
        let work = std::mem::take(&mut *lock(&self.shared.queue));
        let close = work.iter().any(|work| matches!(work, Work::Close));
        if self.shared.failed.get().is_none()
            && let Err(error) = self.write(&work, close)
        {
            tracing::error!(%error, "the journal has failed: nothing is acknowledged from now on");
            let _ = self.shared.failed.set(error.to_string());
        }
        finish(self.shared.failed.get().map(String::as_str), work);
        if close {
            self.rest();
        }
        close
    }

    /// Waits for whoever makes the next segment's file: nothing more is written.
    pub fn rest(&mut self) {
        // A spare that could not be made is made, or complained of, when the log is opened again.
        let _ = self.spare.take().map(thread::JoinHandle::join);
    }

    fn write(&mut self, work: &[Work], close: bool) -> Result<(), JournalError> {
        let mut release = false;
        for work in work {
            match work {
                Work::Append { group, entries, .. } => {
                    for entry in entries {
                        let item = Item::Entry { group: *group, entry: entry.clone() };
                        self.put(&item, Some((*group, entry.log_id.index)))?;
                    }
                }
                Work::Mark { item, .. } => self.put(item, None)?,
                Work::Release => release = true,
                Work::Close => {}
            }
        }
        self.flush()?;
        if close && !self.closed {
            self.put(&Item::Closed, None)?;
            self.flush()?;
            self.closed = true;
        }
        if release { self.release() } else { Ok(()) }
    }

    /// Puts an item into the frame; begins another frame or segment where it does not fit.
    fn put(&mut self, item: &Item, entry: Option<(u16, u64)>) -> Result<(), JournalError> {
        if self.buffer.len() >= FRAME_BYTES_AIM {
            self.write_frame()?;
        }
        self.buffer.resize(self.buffer.len().max(FRAME_HEAD_BYTES), 0);
        let mut start = self.buffer.len();
        item.encode(&mut self.buffer);
        if self.end.offset + self.buffer.len() as u64 > self.segment_bytes {
            let bytes = self.buffer.split_off(start);
            self.roll(bytes.len())?;
            start = self.buffer.len();
            self.buffer.extend_from_slice(&bytes);
        }
        let fits = "a segment has less than 4 GiB";
        let place = Place {
            segment: u32::try_from(self.end.sequence).expect("a log has less than 2^32 segments"),
            frame: u32::try_from(self.end.offset).expect(fits),
            item: u32::try_from(start - FRAME_HEAD_BYTES).expect(fits),
        };
        self.pending.extend(entry.map(|(group, index)| (group, index, place)));
        Ok(())
    }

    /// Writes the frame that was filled, where one was.
    fn write_frame(&mut self) -> Result<(), JournalError> {
        if self.buffer.len() <= FRAME_HEAD_BYTES {
            self.buffer.clear();
            return Ok(());
        }
        let number = self.end.frame + 1;
        let checksum = FrameHead::seal(&mut self.buffer, &self.segment.key, number, self.durable, self.end.checksum);
        self.segment.file.write_all_at(&self.buffer, self.end.offset).map_err(|error| self.io("write", error))?;
        let length = u32::try_from(self.buffer.len() - FRAME_HEAD_BYTES).expect("a frame fits into a segment");
        self.end = End { offset: after(self.end.offset, length), frame: number, checksum, ..self.end };
        self.buffer.clear();
        self.buffer.shrink_to(2 * FRAME_BYTES_AIM);
        Ok(())
    }

    /// Makes all that was put durable.
    fn flush(&mut self) -> Result<(), JournalError> {
        self.write_frame()?;
        if self.durable == self.end.frame {
            return Ok(());
        }
        let begun = Instant::now();
        (self.shared.config.sync)(&self.segment.file).map_err(|error| self.io("flush", error))?;
        self.flush = (self.flush * 7 + begun.elapsed()) / 8;
        self.durable = self.end.frame;
        self.closed = false;
        for (group, index, place) in self.pending.drain(..) {
            lock(&self.shared.groups[usize::from(group)]).written(index, place);
        }
        Ok(())
    }

    /// Begins the next segment, with room for an item of `need` bytes behind what is said of the groups.
    fn roll(&mut self, need: usize) -> Result<(), JournalError> {
        self.flush()?;
        let sequence = self.end.sequence + 1;
        self.buffer.resize(FRAME_HEAD_BYTES, 0);
        for (group, index) in (0..).zip(&self.shared.groups) {
            let index = lock(index);
            Item::Group { group, ballot: index.ballot, committed: index.committed, purged: index.purged }.encode(&mut self.buffer);
        }
        let least = (HEAD_BYTES + self.buffer.len() + need) as u64;
        let bytes = self.shared.config.segment_bytes.max(least);
        let panicked = |_| Err(io::Error::other("its maker panicked"));
        let spare = self.spare.take().expect("a spare is always being made").join().unwrap_or_else(panicked);
        let segment = begin(&self.shared.dir, &spare_path(&self.shared), (sequence, self.end.frame + 1), |path| {
            let file = spare?;
            if file.metadata()?.len() >= bytes { Ok(file) } else { segment::make(path, bytes) }
        })?;
        self.segment_bytes = segment.file.metadata().map_err(|error| self.io("read", error))?.len();
        self.spare = Some(make_spare(&self.shared));
        self.segment = Arc::new(segment);
        self.end = End { sequence, offset: HEAD_BYTES as u64, ..self.end };
        lock(&self.shared.files).insert(sequence, Arc::clone(&self.segment));
        self.shared.segment.send_replace(sequence);
        Ok(())
    }

    /// Removes the segments that no group needs, oldest first; one of them may be used again.
    fn release(&mut self) -> Result<(), JournalError> {
        let oldest = self.shared.groups.iter().filter_map(|group| lock(group).oldest_segment()).map(u64::from).min();
        let keep = oldest.unwrap_or(self.end.sequence).min(self.end.sequence);
        let mut files = lock(&self.shared.files);
        while let Some(first) = files.first_entry().filter(|first| *first.key() < keep) {
            let path = segment::path(&self.shared.dir, *first.key());
            // One that nobody reads any more takes the place of the next spare: its frames are sealed with another key than new ones.
            let unread = Arc::into_inner(first.remove()).is_some();
            let retired = retired_path(&self.shared);
            let gone = if unread && !retired.exists() { fs::rename(&path, &retired) } else { fs::remove_file(&path) };
            gone.map_err(|error| JournalError::io("remove", &path, error))?;
        }
        drop(files);
        segment::sync_dir(&self.shared.dir).map_err(|error| JournalError::io("flush", &self.shared.dir, error))
    }

    fn io(&self, doing: &'static str, error: io::Error) -> JournalError {
        JournalError::io(doing, &segment::path(&self.shared.dir, self.end.sequence), error)
    }
}

fn spare_path(shared: &Shared) -> PathBuf {
    shared.dir.join("spare")
}

fn retired_path(shared: &Shared) -> PathBuf {
    shared.dir.join("retired")
}

/// Makes the next segment's file on a thread of its own, or takes one that is there.
fn make_spare(shared: &Shared) -> Spare {
    let (path, retired, bytes) = (spare_path(shared), retired_path(shared), shared.config.segment_bytes);
    let open = |path: &PathBuf| OpenOptions::new().read(true).write(true).open(path);
    let fits = move |file: &File| file.metadata().is_ok_and(|metadata| metadata.len() == bytes);
    thread::spawn(move || {
        if let Some(file) = open(&path).ok().filter(fits) {
            return Ok(file);
        }
        match open(&retired).ok().filter(fits) {
            Some(file) => fs::rename(&retired, &path).map(|()| file),
            None => segment::make(&path, bytes),
        }
    })
}
