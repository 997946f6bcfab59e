//! A shard behind its log: the committed entries folded into it while it is recovered or follows, and counted while it leads (then it was
//! folded when it was decided). When it leads no more, what it had decided may not be so: then it is made anew from snapshot and log. That,
//! and making snapshots, is done on threads of their own, so that no decision waits for it.

use super::file::SnapshotFile;
use super::log::{Applied, Log, lock};
use super::raft::{Entry, EntryId, Members, Outcome, Types};
use super::snapshot::{self, Head, Meta, Stored};
use super::{Batch, JournalError};
use crate::shard::view::{View, Viewed};
use crate::shard::{Record, Refusal, Shard, ShardConfig};
use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageError, StorageIOError};
use protocol::Time;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep};

/// Entries that are read from the log at once when a snapshot is made.
const FOLD_ENTRIES_MAX: u64 = 64;
/// How long a snapshot that lacks entries waits for one that was received to be installed: reading it back and writing it.
const INSTALLED_WITHIN: Duration = Duration::from_secs(60);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(20);

/// A shard behind its log.
#[derive(Clone)]
pub struct Machine {
    log: Arc<Log>,
    path: PathBuf,
    config: ShardConfig,
    state: Arc<Mutex<State>>,
    /// Held while its snapshot is exchanged: one that is made and one that is received may meet, and the newer one stays.
    saving: Arc<tokio::sync::Mutex<()>>,
    /// Told when the shard is here again.
    whole: Arc<Notify>,
    /// Told when a snapshot is made.
    made: Arc<Notify>,
}

/// How far a shard is.
pub struct State {
    /// The last entry that is folded in, or was when it was decided.
    applied: Option<EntryId>,
    members: Members,
    /// The shard, but while it leads and until it is made anew: then it is with who decides, or nowhere.
    shard: Option<Box<Shard>>,
    /// The latest moment in its records, until it leads.
    latest: Time,
    /// Bytes of its last snapshot.
    snapshot_bytes: u64,
    /// The last entry that is in the last one that was made here.
    made: Option<EntryId>,
}

impl Machine {
    /// The shard of `config` as its last snapshot in `dir` has it; the engine folds what the log has beyond that.
    pub fn open(log: Arc<Log>, dir: &Path, config: ShardConfig) -> Result<Self, JournalError> {
        let path = snapshot::path(dir, config.id.0);
        let fresh = || (Shard::new(config.clone()), Head { meta: Meta::default(), latest: Time::ZERO }, 0);
        let (shard, head, snapshot_bytes) = snapshot::load(&path)?.map_or_else(fresh, |stored| {
            let Stored { head, state, bytes } = stored;
            (Shard::restore(config.clone(), state), head, bytes)
        });
        let (applied, members) = (head.meta.last_log_id, head.meta.last_membership);
        let (from, until) = (applied.map_or(0, |id| id.index + 1), log.group(config.id.0).purged.map_or(0, |id| id.index + 1));
        if from < until {
            return Err(JournalError::Gap { shard: config.id.0, from, until });
        }
        let state = State { applied, members, shard: Some(Box::new(shard)), latest: head.latest, snapshot_bytes, made: None };
        Ok(Self {
            log,
            path,
            config,
            state: Arc::new(Mutex::new(state)),
            saving: Arc::default(),
            whole: Arc::default(),
            made: Arc::default(),
        })
    }

    /// The shard and the latest moment in its records, for who decides from now on; `None` where it was taken before.
    pub fn take(&self) -> Option<(Shard, Time)> {
        let mut state = lock(&self.state);
        let latest = state.latest;
        state.shard.take().map(|shard| (*shard, latest))
    }

    /// As [`Self::take`], once the shard is whole.
    pub async fn take_whole(&self) -> (Shard, Time) {
        loop {
            // Made before it is looked: it hears of what happens from here on.
            let whole = self.whole.notified();
            if let Some(taken) = self.take() {
                return taken;
            }
            whole.await;
        }
    }

    /// Makes the shard anew from snapshot and log, on a thread of its own: it was taken, and who took it decides no more.
    pub fn rebuild(&self) {
        let machine = self.clone();
        let body = move || {
            if let Err(error) = machine.refold() {
                let shard = machine.config.id;
                tracing::error!(%error, %shard, "a shard cannot be made anew from its snapshot and log: this master can lead it no more");
            }
        };
        if let Err(error) = self.log.aside("rebuild", body) {
            tracing::error!(%error, "no thread to make a shard anew: this master can lead it no more");
        }
    }

    fn refold(&self) -> Result<(), JournalError> {
        let mut folded = None;
        loop {
            let goal = {
                let mut state = lock(&self.state);
                if state.shard.is_some() {
                    return Ok(()); // A whole snapshot came meanwhile.
                }
                match folded.take() {
                    Some((shard, latest, upto)) if upto == state.applied => {
                        (state.shard, state.latest) = (Some(Box::new(shard)), latest);
                        self.whole.notify_waiters();
                        return Ok(());
                    }
                    other => {
                        folded = other;
                        state.applied
                    }
                }
            };
            let begun = folded.take().map(|(shard, latest, upto): (Shard, Time, Option<EntryId>)| (shard, latest, next_of(upto)));
            folded = match self.fold_from(begun, goal) {
                Ok((shard, latest)) => Some((shard, latest, goal)),
                // A snapshot made the log shorter meanwhile: from that one, then.
                Err(JournalError::Gap { .. }) => None,
                Err(error) => return Err(error),
            };
        }
    }

    /// What is so, as far as this replica knows; `None` while it leads or is being made anew.
    pub fn viewed(&self, view: View) -> Option<Result<Viewed, Refusal>> {
        lock(&self.state).shard.as_ref().map(|shard| shard.viewed(view))
    }

    /// How many entries took effect, and the hash of the shard behind them; `None` while it leads or is being made anew.
    pub fn hash(&self) -> Option<(u64, u64)> {
        let state = lock(&self.state);
        state.shard.as_ref().map(|shard| (next_of(state.applied), shard.hash()))
    }

    /// Waits until another snapshot is made.
    pub async fn snapshot_made(&self) {
        self.made.notified().await;
    }

    /// The last entry that is in the last snapshot that was made here.
    pub fn last_made(&self) -> Option<EntryId> {
        lock(&self.state).made
    }

    /// Bytes of its last snapshot.
    pub fn snapshot_bytes(&self) -> u64 {
        lock(&self.state).snapshot_bytes
    }

    /// Folds what is committed up to `upto` into the last snapshot and exchanges it for that.
    fn fold(&self, upto: Option<EntryId>, members: Members) -> Result<Meta, JournalError> {
        let (shard, latest) = self.fold_from(None, upto)?;
        let meta = snapshot::meta(upto, members);
        let bytes = snapshot::save(&self.path, &Head { meta: meta.clone(), latest }, &shard.snapshot())?;
        let mut state = lock(&self.state);
        (state.snapshot_bytes, state.made) = (bytes, upto);
        drop(state);
        self.made.notify_one();
        Ok(meta)
    }

    /// A shard that lacks the entries from `next` on, or the last snapshot, with what is committed up to `upto` folded in; and the latest
    /// moment in it.
    fn fold_from(&self, begun: Option<(Shard, Time, u64)>, upto: Option<EntryId>) -> Result<(Shard, Time), JournalError> {
        let (mut shard, mut latest, mut next) = match begun {
            Some(begun) => begun,
            None => match snapshot::load(&self.path)? {
                Some(stored) => {
                    let next = next_of(stored.head.meta.last_log_id);
                    (Shard::restore(self.config.clone(), stored.state), stored.head.latest, next)
                }
                None => (Shard::new(self.config.clone()), Time::ZERO, 0),
            },
        };
        let end = next_of(upto);
        while next < end {
            let until = end.min(next + FOLD_ENTRIES_MAX);
            let read = self.log.read(self.config.id.0, next..until);
            let entries = read.map_err(|error| JournalError::io("fold the log into", &self.path, error))?;
            if entries.len() as u64 != until - next {
                return Err(JournalError::Gap { shard: self.config.id.0, from: next + entries.len() as u64, until });
            }
            for entry in &entries {
                latest = latest.max(fold_entry(&mut shard, entry)?);
            }
            next = until;
        }
        Ok((shard, latest))
    }

    /// The file of its last snapshot.
    pub fn open_file(&self) -> Result<std::fs::File, JournalError> {
        std::fs::File::open(&self.path).map_err(|error| JournalError::io("open", &self.path, error))
    }

    async fn open_snapshot(&self) -> Result<Option<(Meta, SnapshotFile)>, JournalError> {
        let Some(head) = snapshot::load_head(&self.path)? else { return Ok(None) };
        let opened = SnapshotFile::open(&self.path, self.log.config().hands).await;
        let file = opened.map_err(|error| JournalError::io("open", &self.path, error))?;
        Ok(Some((head.meta, file)))
    }
}

/// The index behind an entry's.
fn next_of(id: Option<EntryId>) -> u64 {
    id.map_or(0, |id| id.index + 1)
}

/// What becomes of an entry.
fn outcome(entry: &Entry) -> Result<Outcome, JournalError> {
    match &entry.payload {
        EntryPayload::Normal(batch) => batch.outcome(entry.log_id.leader_id.term),
        EntryPayload::Blank | EntryPayload::Membership(_) => Ok(Outcome::Done),
    }
}

fn applied(shard: u16, entry: &Entry, became: Outcome) -> Applied {
    let batch = match &entry.payload {
        EntryPayload::Normal(batch) if became == Outcome::Done => Some(batch.clone()),
        _ => None,
    };
    Applied { shard, index: entry.log_id.index, term: entry.log_id.leader_id.term, batch }
}

/// Folds an entry; returns the latest moment in it.
fn fold_entry(shard: &mut Shard, entry: &Entry) -> Result<Time, JournalError> {
    let EntryPayload::Normal(batch) = &entry.payload else { return Ok(Time::ZERO) };
    if outcome(entry)? == Outcome::Void {
        return Ok(Time::ZERO);
    }
    let records = Batch::decode(batch)?;
    records.iter().for_each(|record| shard.apply(record));
    Ok(records.iter().map(Record::at).max().unwrap_or(Time::ZERO))
}

fn unfolded(error: &JournalError) -> StorageError<u64> {
    StorageIOError::write_state_machine(error).into()
}

fn no_snapshot(error: &JournalError) -> StorageError<u64> {
    StorageIOError::read_snapshot(None, error).into()
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<EntryId>, Members), StorageError<u64>> {
        let state = lock(&self.state);
        Ok((state.applied, state.members.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcome>, StorageError<u64>>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut answers = Vec::new();
        let mut state = lock(&self.state);
        for entry in entries {
            if let Some(shard) = &mut state.shard {
                let latest = fold_entry(shard, &entry).map_err(|error| unfolded(&error))?;
                state.latest = state.latest.max(latest);
            }
            state.applied = Some(entry.log_id);
            let became = outcome(&entry).map_err(|error| unfolded(&error))?;
            self.log.note_applied(|| applied(self.config.id.0, &entry, became));
            answers.push(became);
            if let EntryPayload::Membership(members) = entry.payload {
                state.members = Members::new(Some(entry.log_id), members);
            }
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let state = lock(&self.state);
        Builder { machine: self.clone(), upto: state.applied, members: state.members.clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotFile>, StorageError<u64>> {
        let path = self.path.with_extension("received");
        let file = SnapshotFile::make(&path, self.log.config().hands).await;
        file.map(Box::new).map_err(|error| no_snapshot(&JournalError::io("make", &path, error)))
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta<u64, openraft::BasicNode>,
        _received: Box<SnapshotFile>,
    ) -> Result<(), StorageError<u64>> {
        let _saving = self.saving.lock().await;
        let received = self.path.with_extension("received");
        let stored = snapshot::load(&received).map_err(|error| no_snapshot(&error))?;
        let stored = stored.ok_or_else(|| no_snapshot(&JournalError::Missing { path: received.clone() }))?;
        let bytes = snapshot::save(&self.path, &stored.head, &stored.state).map_err(|error| no_snapshot(&error))?;
        let mut state = lock(&self.state);
        let Head { meta, latest } = stored.head;
        let shard = Some(Box::new(Shard::restore(self.config.clone(), stored.state)));
        let (members, made) = (meta.last_membership, state.made);
        *state = State { applied: meta.last_log_id, members, shard, latest, snapshot_bytes: bytes, made };
        self.whole.notify_waiters();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError<u64>> {
        let opened = self.open_snapshot().await.map_err(|error| no_snapshot(&error))?;
        Ok(opened.map(|(meta, file)| Snapshot { meta, snapshot: Box::new(file) }))
    }
}

/// Makes one snapshot.
pub struct Builder {
    machine: Machine,
    upto: Option<EntryId>,
    members: Members,
}

impl Builder {
    /// True where there is a later snapshot than this one would be.
    fn is_late(&self) -> Result<bool, JournalError> {
        Ok(snapshot::load_head(&self.machine.path)?.is_some_and(|head| head.meta.last_log_id > self.upto))
    }

    /// Waits until there is; false where none comes in time.
    async fn until_late(&self) -> Result<bool, JournalError> {
        let begun = Instant::now();
        while !self.is_late()? {
            if begun.elapsed() > INSTALLED_WITHIN {
                return Ok(false);
            }
            sleep(LOOK).await;
        }
        Ok(true)
    }

    /// That one.
    async fn newer(&self) -> Result<Snapshot<Types>, StorageError<u64>> {
        let opened = self.machine.open_snapshot().await.map_err(|error| no_snapshot(&error))?;
        let (meta, file) = opened.ok_or_else(|| no_snapshot(&JournalError::Missing { path: self.machine.path.clone() }))?;
        Ok(Snapshot { meta, snapshot: Box::new(file) })
    }
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError<u64>> {
        let saving = self.machine.saving.lock().await;
        let path = &self.machine.path;
        if self.is_late().map_err(|error| no_snapshot(&error))? {
            // The log may be shorter by now than this one would need.
            return self.newer().await;
        }
        let (done, folded) = oneshot::channel();
        let (machine, upto, members) = (self.machine.clone(), self.upto, self.members.clone());
        let run = move || drop(done.send(machine.fold(upto, members)));
        let log = &self.machine.log;
        log.aside("snapshot", run).map_err(|error| no_snapshot(&JournalError::io("start a thread for", path, error)))?;
        let ended = |_| Err(JournalError::Stopped { reason: "the thread that makes a snapshot panicked".into() });
        let meta = match folded.await.unwrap_or_else(ended) {
            Ok(meta) => meta,
            Err(gap @ JournalError::Gap { .. }) => {
                // One that is received may make the log shorter before it is installed, for which it waits for us.
                drop(saving);
                let waited = self.until_late().await.map_err(|error| no_snapshot(&error))?;
                return if waited { self.newer().await } else { Err(no_snapshot(&gap)) };
            }
            Err(error) => return Err(no_snapshot(&error)),
        };
        let opened = SnapshotFile::open(path, log.config().hands).await;
        let file = opened.map_err(|error| no_snapshot(&JournalError::io("open", path, error)))?;
        Ok(Snapshot { meta, snapshot: Box::new(file) })
    }
}
