//! The one log of a process: what all groups append goes through it, one thread writes it, one flush serves all that waited.

use super::index::GroupIndex;
use super::raft::{Batch, Entry, Types};
use super::recover::{Item, recover};
use super::segment::{self, Segment, frame_at};
use super::writer::{self, Work, Writer};
use super::{JournalError, frame};
use openraft::EntryPayload;
use openraft::storage::LogFlushed;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// Bytes of the first segment of a new log, which somebody waits for.
const FIRST_SEGMENT_BYTES: u64 = 4 << 20;

/// Entries of so many bytes together are written by who appends them, where nobody else is writing: two threads less to wake, one after the
/// other, on the way of a task that comes alone.
const BYTES_AT_ONCE_MAX: usize = 4 << 10;

/// How long what takes long takes, where hands are told.
const ASIDE: Duration = Duration::from_millis(20);

/// How a file's data is made durable: [`File::sync_data`] but in tests of what happens when it fails.
pub type Sync = fn(&File) -> io::Result<()>;

/// Who does what takes long: writing, and folding a shard anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hands {
    /// Threads of its own.
    Threads,
    /// Whoever opened it, with [`Log::write`]; the rest is done on the runtime, a moment later. For a simulator: nothing happens but when that
    /// says so.
    Told,
}

/// An entry that took effect on a member, or would have.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The shard.
    pub shard: u16,
    /// Its index in the group's log, from 0.
    pub index: u64,
    /// The term of the leader that made it.
    pub term: u64,
    /// Its records, where it took effect; `None` where it is void or has none.
    pub batch: Option<Batch>,
}

/// How the log is kept.
#[derive(Clone, Copy, Debug)]
pub struct LogConfig {
    /// Bytes of a segment, but for the first; at least 64 KiB and at most 1 GiB.
    pub segment_bytes: u64,
    /// A group's log is folded into a snapshot when it has grown by this many bytes or by those of its last snapshot, if those are more.
    pub snapshot_bytes: u64,
    /// A group is made to fold where its oldest entry is this many segments behind: it would keep them all from being used again.
    pub segments_behind_max: u64,
    /// How data is made durable.
    pub sync: Sync,
    /// Who does what takes long.
    pub hands: Hands,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, snapshot_bytes: 64 << 20, segments_behind_max: 8, sync: File::sync_data, hands: Hands::Threads }
    }
}

/// The one log of a process. Closed when it is dropped.
pub struct Log {
    shared: Arc<Shared>,
    writer: Arc<Mutex<Writer>>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
    /// What took effect since it was last asked, where hands are told.
    applied: Mutex<Vec<Applied>>,
}

/// What the writing thread and those who ask it share.
pub struct Shared {
    /// Held as long as anybody may write.
    _lock: File,
    /// Where the segments are.
    pub dir: PathBuf,
    /// How the log is kept.
    pub config: LogConfig,
    /// What the groups have, by shard.
    pub groups: Vec<Mutex<GroupIndex>>,
    /// Segments by sequence.
    pub files: Mutex<BTreeMap<u64, Arc<Segment>>>,
    /// What is to be written.
    pub queue: Mutex<Vec<Work>>,
    /// Told when something waits in it.
    pub wake: Condvar,
    /// Why nothing is written any more.
    pub failed: OnceLock<String>,
    /// The segment that is written: changes when a new one is begun.
    pub segment: watch::Sender<u64>,
}

impl Log {
    /// Opens the log in `dir` for `groups` groups; makes it where there is none.
    ///
    /// # Errors
    /// [`JournalError`] where it is damaged, or cannot be read or made.
    pub fn open(dir: &Path, groups: u16, config: LogConfig) -> Result<Self, JournalError> {
        assert!((1 << 16..=1 << 30).contains(&config.segment_bytes), "a segment has 64 KiB to 1 GiB");
        fs::create_dir_all(dir).map_err(|error| JournalError::io("make", dir, error))?;
        let lock = take_lock(dir)?;
        let recovered = recover(dir, groups, FIRST_SEGMENT_BYTES.min(config.segment_bytes))?;
        let shared = Arc::new(Shared {
            _lock: lock,
            dir: dir.to_owned(),
            config,
            groups: recovered.groups.into_iter().map(Mutex::new).collect(),
            files: Mutex::new(recovered.files),
            queue: Mutex::default(),
            wake: Condvar::new(),
            failed: OnceLock::new(),
            segment: watch::Sender::new(recovered.end.sequence),
        });
        let writer = Arc::new(Mutex::new(Writer::new(Arc::clone(&shared), recovered.end)));
        let theirs = (Arc::clone(&shared), Arc::clone(&writer));
        let start = || thread::Builder::new().name("journal".into()).spawn(move || writer::run(&theirs.0, &theirs.1));
        let thread = (config.hands == Hands::Threads).then(start).transpose();
        let thread = thread.map_err(|error| JournalError::io("start a thread for", dir, error))?;
        Ok(Self { shared, writer, thread: Mutex::new(thread), applied: Mutex::default() })
    }

    /// How the log is kept.
    pub fn config(&self) -> &LogConfig {
        &self.shared.config
    }

    /// Why nothing is written any more; `None` where all is well.
    pub fn failed(&self) -> Option<&str> {
        self.shared.failed.get().map(String::as_str)
    }

    /// The segment that is written, now and whenever a new one is begun.
    pub fn segment(&self) -> watch::Receiver<u64> {
        self.shared.segment.subscribe()
    }

    /// True where something waits to be written that somebody waits for.
    pub fn waits(&self) -> bool {
        lock(&self.shared.queue).iter().any(Work::is_urgent)
    }

    /// Writes all that waits, where hands are told; `most`: no more than the first so many, and the rest is lost, as when a process ends.
    pub fn write(&self, most: usize) {
        lock(&self.shared.queue).truncate(most);
        lock(&self.writer).serve();
    }

    /// What took effect since this was last asked, in order, where hands are told.
    pub fn applied(&self) -> Vec<Applied> {
        std::mem::take(&mut *lock(&self.applied))
    }

    /// An entry took effect or is void.
    pub(super) fn note_applied(&self, applied: impl FnOnce() -> Applied) {
        if self.config().hands == Hands::Told {
            lock(&self.applied).push(applied());
        }
    }

    /// Does what takes long beside all else.
    ///
    /// # Errors
    /// There is no thread for it.
    pub(super) fn aside(&self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        match self.config().hands {
            Hands::Threads => thread::Builder::new().name(name.into()).spawn(work).map(drop),
            Hands::Told => {
                tokio::spawn(async {
                    tokio::time::sleep(ASIDE).await;
                    work();
                });
                Ok(())
            }
        }
    }

    /// What one group has.
    pub(super) fn group(&self, group: u16) -> MutexGuard<'_, GroupIndex> {
        lock(&self.shared.groups[usize::from(group)])
    }

    /// Appends entries; `done` is told when they are durable, or that they will never be.
    pub(super) fn append(&self, group: u16, entries: Vec<Entry>, done: LogFlushed<Types>) {
        let mut index = self.group(group);
        let mut all_bytes = 0;
        for entry in &entries {
            let bytes = match &entry.payload {
                EntryPayload::Normal(batch) => batch.0.len(),
                _ => 0,
            };
            all_bytes += bytes;
            assert!(index.push(entry.log_id, bytes, None), "the engine appends one entry after the other");
            index.remember(entry.clone());
        }
        drop(index);
        let work = Work::Append { group, entries, done };
        let small = all_bytes <= BYTES_AT_ONCE_MAX && self.config().hands == Hands::Threads;
        let rests = if small { self.writer.try_lock().ok() } else { None };
        match rests.filter(|writer| writer.is_quick()) {
            Some(mut writer) => {
                lock(&self.shared.queue).push(work);
                writer.serve();
            }
            None => self.put(work),
        }
    }

    /// Writes something that is no entry, and waits until it is durable.
    pub(super) async fn mark(&self, item: Item) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        self.put(Work::Mark { item, done: Some(done) });
        written.await.unwrap_or_else(|_| Err(self.failure()))
    }

    /// Writes something that is no entry with whatever is written next.
    pub(super) fn mark_some_time(&self, item: Item) {
        lock(&self.shared.queue).push(Work::Mark { item, done: None });
    }

    /// The entries of `range` that are here, in order.
    pub(super) fn read(&self, group: u16, range: Range<u64>) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut frame: Option<((u32, u32), segment::Frame)> = None;
        for at in range {
            let place = {
                let index = self.group(group);
                if let Some(entry) = index.remembered(at) {
                    entries.push(entry.clone());
                    continue;
                }
                let Some(place) = index.place(at) else { break };
                place
            };
            let key = (place.segment, place.frame);
            if frame.as_ref().is_none_or(|(have, _)| *have != key) {
                frame = Some((key, self.frame(key)?));
            }
            let (_, frame) = frame.as_ref().expect("it was just read");
            entries.push(Item::entry_at(&frame.body, place.item, group, at).ok_or_else(|| self.unreadable(key))?);
        }
        Ok(entries)
    }

    /// Lets go of the segments that no group needs any more.
    pub(super) fn release(&self) {
        self.put(Work::Release);
    }

    fn frame(&self, place: (u32, u32)) -> io::Result<segment::Frame> {
        let segment = lock(&self.shared.files).get(&u64::from(place.0)).cloned().ok_or_else(|| self.unreadable(place))?;
        let bytes = segment.file.metadata()?.len();
        frame_at(&segment.file, &segment.key, bytes, u64::from(place.1))?.ok_or_else(|| self.unreadable(place))
    }

    fn unreadable(&self, (sequence, offset): (u32, u32)) -> io::Error {
        let path = segment::path(&self.shared.dir, u64::from(sequence));
        io::Error::new(io::ErrorKind::InvalidData, format!("the journal is damaged in {} at byte {offset}", path.display()))
    }

    fn failure(&self) -> io::Error {
        io::Error::other(self.failed().unwrap_or("the journal is closed").to_owned())
    }

    fn put(&self, work: Work) {
        lock(&self.shared.queue).push(work);
        self.shared.wake.notify_one();
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Log({})", self.shared.dir.display())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // Where hands are told nobody says that it ended in good order.
        let Some(thread) = lock(&self.thread).take() else { return lock(&self.writer).rest() };
        self.put(Work::Close);
        // One that panicked has said so.
        let _ = thread.join();
    }
}

fn take_lock(dir: &Path) -> Result<File, JournalError> {
    let path = dir.join("lock");
    let failed = |error| JournalError::io("lock", &path, error);
    let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(JournalError::Locked { path: dir.to_owned() }),
        Err(error) => Err(failed(error.into())),
    }
}

/// Locks what nobody leaves half changed.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the log goes on.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// The segment.
    pub sequence: u64,
    /// Where in it.
    pub offset: u64,
    /// The number of the last frame; 0: none.
    pub frame: u64,
    /// Its checksum.
    pub checksum: frame::Checksum,
}
