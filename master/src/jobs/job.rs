//! A job as a shard keeps it: in full while it lives, packed once it has ended.

use super::cell::{Cell, Cells, LivePhase, Slot};
use super::tally::Tally;
use protocol::{AgentId, Exit, Job, Kind, Name, Phase, Role, Stand, Template, Time};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The states that are ends, in the order of [`Ends`].
pub const ENDS: [Phase; 5] = [Phase::Finished, Phase::Failed, Phase::Killed, Phase::Rejected, Phase::Lost];

/// How many tasks ended in which way, in the order of [`ENDS`].
pub type Ends = [u32; 5];

/// Where `phase` stands in [`ENDS`].
#[must_use]
pub fn end_position(phase: Phase) -> usize {
    ENDS.iter().position(|end| *end == phase).unwrap_or(1)
}

/// A job.
#[derive(Clone, Debug)]
pub enum Entry {
    /// It has not ended.
    Live(Box<LiveJob>),
    /// It has.
    Ended(Box<EndedJob>),
}

/// [`Entry`] as it is written: a live job that counts where its tasks are has a variant of its own, so that all others have the bytes that they
/// always had. New variants at the end.
#[derive(Serialize)]
enum WrittenEntry<'a> {
    Live(&'a LiveJob),
    Ended(&'a EndedJob),
    Placed(&'a LiveJob, &'a BTreeMap<AgentId, Stand>),
}

/// [`Entry`] as it is read.
#[derive(Deserialize)]
enum ReadEntry {
    Live(Box<LiveJob>),
    Ended(Box<EndedJob>),
    Placed(Box<LiveJob>, BTreeMap<AgentId, Stand>),
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entry = match self {
            Self::Live(job) if !job.stands.is_empty() => WrittenEntry::Placed(job, &job.stands),
            Self::Live(job) => WrittenEntry::Live(job),
            Self::Ended(job) => WrittenEntry::Ended(job),
        };
        entry.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match ReadEntry::deserialize(deserializer)? {
            ReadEntry::Live(job) => Self::Live(job),
            ReadEntry::Ended(job) => Self::Ended(job),
            ReadEntry::Placed(mut job, stands) => {
                job.stands = stands;
                Self::Live(job)
            }
        })
    }
}

/// What was submitted under a client's key: BLAKE3, cut to 128 bits, of role and key, and of the job. Hashes, so that a long key or a big
/// job costs a kept job no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Of role and key.
    pub key: u128,
    /// Of the job.
    pub body: u128,
}

impl Key {
    /// Of a role and a key.
    #[must_use]
    pub fn of(role: &Role, key: &str) -> u128 {
        let mut hash = blake3::Hasher::new();
        hash.update(role.as_str().as_bytes()).update(&[0]).update(key.as_bytes());
        cut(&hash.finalize())
    }

    /// Of a job.
    #[must_use]
    pub fn body(job: &Job) -> u128 {
        cut(&blake3::hash(&pack(job)))
    }
}

fn cut(hash: &blake3::Hash) -> u128 {
    let (first, _) = hash.as_bytes().split_first_chunk().expect("16 of 32 bytes are 16 bytes");
    u128::from_le_bytes(*first)
}

fn pack(job: &Job) -> Vec<u8> {
    postcard::to_allocvec(job).expect("a job is plain data")
}

/// A job that has not ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LiveJob {
    /// What it is now.
    pub job: Job,
    /// What it was submitted under.
    pub key: Option<Key>,
    /// 1, and 1 more for each time it was applied anew.
    pub version: u32,
    /// Milliseconds of grace, where it is being stopped.
    pub stopping: Option<u64>,
    /// When it was submitted.
    pub submitted: Time,
    /// The tasks that began.
    pub cells: Cells,
    /// Exits that a cell has no room for, by index.
    pub uncommon: BTreeMap<u32, Exit>,
    /// Attempts that ended and were followed, or are to be, by another.
    pub restarts: u64,
    /// Tasks on agents.
    pub live: u32,
    /// Cells that wait.
    pub waiting_cells: u32,
    /// Cells that ended for good.
    pub ends: Ends,
    /// Older versions that still run.
    pub old: Vec<OldVersion>,
    /// How the agents stand that have tasks of it, where its placement counts those: written by [`Entry`].
    #[serde(skip)]
    pub stands: BTreeMap<AgentId, Stand>,
    /// What follows from the rest and from the time.
    #[serde(skip)]
    pub derived: Derived,
}

/// A version that is no longer the job's, and still runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OldVersion {
    /// Which.
    pub version: u32,
    /// Its tasks.
    pub template: Arc<Template>,
    /// How many of them are on agents.
    pub live: u32,
}

/// What is not on record of a live job.
#[derive(Clone, Debug, Default)]
pub struct Derived {
    /// Cells that wait for resources, their backoff being over.
    pub again: BTreeSet<u32>,
    /// The line it stands in, while `queued` is not 0.
    pub line: u32,
    /// How many of its tasks stand there.
    pub queued: u32,
    /// Live tasks by what was said of them last, in the order of [`LivePhase`].
    pub phases: [u32; LivePhase::COUNT],
    /// Ports of tasks that have some, by index.
    pub ports: BTreeMap<u32, Vec<u16>>,
    /// Up to here no task runs an older version, or was looked at in this round.
    pub roll_from: u32,
    /// Where its live tasks are, where its placement counts them.
    pub tally: Option<Box<Tally>>,
}

impl LiveJob {
    /// Tasks that never began and may.
    #[must_use]
    pub fn fresh(&self) -> u32 {
        if self.stopping.is_some() { 0 } else { self.job.count.saturating_sub(self.cells.len()) }
    }

    /// Tasks that wait for resources.
    #[must_use]
    pub fn ready(&self) -> u32 {
        self.fresh() + u32::try_from(self.derived.again.len()).expect("no more than cells")
    }

    /// Tasks that wait until their backoff is over.
    #[must_use]
    pub fn backing_off(&self) -> u32 {
        self.waiting_cells - u32::try_from(self.derived.again.len()).expect("no more than cells").min(self.waiting_cells)
    }

    /// False where the task is to end.
    #[must_use]
    pub fn wants(&self, index: u32) -> bool {
        self.stopping.is_none() && (self.job.kind == Kind::Batch || index < self.job.count)
    }

    /// True where nothing of it runs and nothing will.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let idle_service = self.job.kind == Kind::Service && self.job.count == 0;
        self.live == 0 && (self.stopping.is_some() || self.fresh() == 0 && self.waiting_cells == 0 && !idle_service)
    }

    /// What the tasks of `version` are.
    #[must_use]
    pub fn template(&self, version: u32) -> &Arc<Template> {
        let old = self.old.iter().find(|old| old.version == version);
        old.map_or(&self.job.template, |old| &old.template)
    }

    /// Tasks that serve: those that run, and of those that have checks only the healthy ones.
    #[must_use]
    pub const fn ready_tasks(&self) -> u32 {
        self.derived.phases[LivePhase::Running as usize] + self.derived.phases[LivePhase::Healthy as usize]
    }

    /// What a live task is that runs, before anything is known of its checks.
    #[must_use]
    pub fn running_phase(&self, index: u32) -> LivePhase {
        let version = self.cells.get(index).map_or(self.version, |cell| cell.version);
        if self.template(version).has_checks() { LivePhase::Unready } else { LivePhase::Running }
    }

    /// Tasks on agents that run an older version.
    #[must_use]
    pub fn outdated(&self) -> u32 {
        self.old.iter().map(|old| old.live).sum()
    }

    /// Notes what is known now of a live task.
    pub fn set_phase(&mut self, index: u32, phase: LivePhase) {
        if let Some(cell) = self.cells.get_mut(index).filter(|cell| cell.slot == Slot::Live) {
            self.derived.phases[cell.phase as usize] -= 1;
            self.derived.phases[phase as usize] += 1;
            cell.phase = phase;
        }
    }

    /// What follows from the cells alone, counted anew.
    pub fn recount(&mut self) {
        self.cells.forget_phases();
        self.derived = Derived::default();
        self.derived.phases[LivePhase::Staging as usize] = self.live;
        let waiting = |(_, cell): &(u32, &Cell)| cell.slot == Slot::Waiting && cell.delay_ms == 0;
        self.derived.again = self.cells.iter_from(0).filter(waiting).map(|(index, _)| index).collect();
        self.tally_anew();
    }

    /// Counts anew where its tasks are, by its present placement. Those of a version that did not count are left out where their agents are not
    /// known.
    pub fn tally_anew(&mut self) {
        self.derived.tally = Tally::of(self.job.place.as_deref());
        let Some(tally) = self.derived.tally.as_mut() else {
            self.stands.clear();
            return;
        };
        for (_, cell) in self.cells.iter_from(0).filter(|(_, cell)| cell.slot == Slot::Live) {
            if let Some(stand) = self.stands.get(&cell.agent) {
                tally.count(stand, 1, true);
            }
        }
    }

    /// So many tasks are on `agent`, or are no longer.
    pub fn count(&mut self, agent: AgentId, tasks: u32, more: bool) {
        if let Some((tally, stand)) = self.derived.tally.as_mut().zip(self.stands.get(&agent)) {
            tally.count(stand, tasks, more);
        }
    }

    /// The job as it is kept once it has ended.
    #[must_use]
    pub fn end(self, at: Time) -> EndedJob {
        let unbegun = self.job.count.saturating_sub(self.cells.len());
        EndedJob {
            packed: pack(&self.job).into_boxed_slice(),
            role: self.job.role,
            name: self.job.name,
            key: self.key,
            version: self.version,
            stopped: self.stopping.is_some(),
            submitted: self.submitted,
            ended: at,
            restarts: self.restarts,
            ends: self.ends,
            unbegun,
            cells: self.cells,
            uncommon: self.uncommon,
        }
    }
}

/// A job that has ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EndedJob {
    packed: Box<[u8]>,
    /// Its role.
    pub role: Role,
    /// Its name.
    pub name: Option<Name>,
    /// What it was submitted under.
    pub key: Option<Key>,
    /// Its last version.
    pub version: u32,
    /// True where it was stopped.
    pub stopped: bool,
    /// When it was submitted.
    pub submitted: Time,
    /// When it ended.
    pub ended: Time,
    /// Attempts that ended and were followed by another.
    pub restarts: u64,
    /// How its tasks ended.
    pub ends: Ends,
    /// Tasks that never began: killed while they waited.
    pub unbegun: u32,
    /// The tasks that began.
    pub cells: Cells,
    /// Exits that a cell has no room for, by index.
    pub uncommon: BTreeMap<u32, Exit>,
}

impl EndedJob {
    /// What it was.
    #[must_use]
    pub fn job(&self) -> Option<Job> {
        postcard::from_bytes(&self.packed).ok()
    }

    /// What it counts in the history.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.cells.len().max(1) as usize
    }
}
