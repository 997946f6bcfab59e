//! A job as a shard keeps it: in full while it lives, packed once it has ended.

use super::cell::{Cell, Cells, LivePhase, Slot};
use super::rollout::Rollout;
use super::system::Everywhere;
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

/// [`Entry`] as it is written: a live job that counts where its tasks are has a variant of its own, and so has one of which versions are kept, so that all
/// others have the bytes that they always had. New variants at the end.
#[derive(Serialize)]
enum WrittenEntry<'a> {
    Live(&'a LiveJob),
    Ended(&'a EndedJob),
    Placed(&'a LiveJob, &'a BTreeMap<AgentId, Stand>),
    Rolled(&'a LiveJob, &'a BTreeMap<AgentId, Stand>, &'a Rollout),
}

/// [`Entry`] as it is read.
#[derive(Deserialize)]
enum ReadEntry {
    Live(Box<LiveJob>),
    Ended(Box<EndedJob>),
    Placed(Box<LiveJob>, BTreeMap<AgentId, Stand>),
    Rolled(Box<LiveJob>, BTreeMap<AgentId, Stand>, Box<Rollout>),
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entry = match self {
            Self::Live(job) if job.rollout.is_some() => {
                WrittenEntry::Rolled(job, &job.stands, job.rollout.as_deref().expect("asked a line ago"))
            }
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
            ReadEntry::Rolled(mut job, stands, rollout) => {
                (job.stands, job.rollout) = (stands, Some(rollout));
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
    /// Its other versions and its last deployment, where it has been applied: written by [`Entry`].
    #[serde(skip)]
    pub rollout: Option<Box<Rollout>>,
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
    /// Cells that wait for resources, their backoff being over, and begin anew in the present version.
    pub again: BTreeSet<u32>,
    /// The same of those that begin anew in the version before.
    pub again_old: BTreeSet<u32>,
    /// All cells that begin anew in the version before, whether their backoff is over or not.
    pub old_waiting: BTreeSet<u32>,
    /// The version of which tasks stand in a line, while `queued` is not 0.
    pub line_version: u32,
    /// The line it stands in, while `queued` is not 0.
    pub line: u32,
    /// How many of its tasks stand there.
    pub queued: u32,
    /// Live tasks by what was said of them last, in the order of [`LivePhase`].
    pub phases: [u32; LivePhase::COUNT],
    /// The same of those of the present version.
    pub new_phases: [u32; LivePhase::COUNT],
    /// Since when what a deployment waits for is so.
    pub gate: Gate,
    /// Ports of tasks that have some, by index.
    pub ports: BTreeMap<u32, Vec<u16>>,
    /// Up to here no task runs an older version, or was looked at in this round.
    pub roll_from: u32,
    /// Where its live tasks are, where its placement counts them.
    pub tally: Option<Box<Tally>>,
    /// Which agents have which task, of a system job.
    pub everywhere: Option<Box<Everywhere>>,
}

/// Since when what a deployment waits for is so. Not on record: a new leader waits anew.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    /// A task of the new version does its work, and none has ended by itself since.
    pub first: Option<Time>,
    /// It has been so for long enough.
    pub proved: bool,
    /// Failures on record when that was noted.
    pub failures: u32,
    /// What was gathered for the goal: the first tasks, or all of them.
    pub goal: Option<Time>,
    /// When it is looked at again.
    pub due: Option<Time>,
}

impl LiveJob {
    /// How many tasks there are to be now: while versions change that may be more than its count.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.wanted().saturating_add(self.rollout.as_ref().map_or(0, |rollout| rollout.extra))
    }

    /// Tasks that never began and may.
    #[must_use]
    pub fn fresh(&self) -> u32 {
        if self.is_held() { 0 } else { self.unbegun() }
    }

    /// Tasks that never began and are to, whether they may now or not.
    #[must_use]
    pub fn unbegun(&self) -> u32 {
        if self.stopping.is_some() || self.derived.everywhere.is_some() { 0 } else { self.total().saturating_sub(self.cells.len()) }
    }

    /// True where its first tasks wait for other services of its role.
    #[must_use]
    pub fn is_held(&self) -> bool {
        !self.job.after.is_empty() && self.rollout.as_ref().is_some_and(|rollout| !rollout.released)
    }

    /// Tasks that wait for resources and are of one version: while some begin anew in the version before, those; the others come after them.
    #[must_use]
    pub fn ready(&self) -> u32 {
        if self.derived.everywhere.is_some() {
            return self.waiting_cells - self.backing_off();
        }
        match self.derived.again_old.len() {
            0 => self.fresh() + u32::try_from(self.derived.again.len()).expect("no more than cells"),
            old => u32::try_from(old).expect("no more than cells"),
        }
    }

    /// Tasks that do their work as far as is known, and are well where they have checks: of its present version, and of older ones.
    #[must_use]
    pub fn serving(&self) -> (u32, u32) {
        let serving = |phases: &[u32; LivePhase::COUNT]| phases[LivePhase::Running as usize] + phases[LivePhase::Healthy as usize];
        let new = serving(&self.derived.new_phases);
        (new, serving(&self.derived.phases).saturating_sub(new))
    }

    /// True where a task does its work as far as is known; [`Self::serving`] counts these.
    #[must_use]
    pub fn serves(&self, index: u32) -> bool {
        self.cells.get(index).is_some_and(|cell| cell.slot == Slot::Live && matches!(cell.phase, LivePhase::Running | LivePhase::Healthy))
    }

    /// The version in which the next attempt of a task begins.
    #[must_use]
    pub fn next_version(&self, index: u32) -> u32 {
        let cell = self.cells.get(index).filter(|cell| cell.slot == Slot::Waiting && self.rollout.is_some());
        cell.map_or(self.version, |cell| cell.version)
    }

    /// The version of the tasks that [`Self::ready`] counts.
    #[must_use]
    pub fn ready_version(&self) -> u32 {
        if self.derived.again_old.is_empty() { self.version } else { self.held_version().unwrap_or(self.version) }
    }

    /// The version in which tasks of older ones begin anew when they end by themselves, where that is not the present one.
    #[must_use]
    pub fn held_version(&self) -> Option<u32> {
        let deployment = self.rollout.as_ref()?.deployment.as_ref()?;
        deployment.holds().filter(|version| *version != self.version)
    }

    /// A cell waits: noted where it begins anew in the version before.
    pub fn wait(&mut self, index: u32) {
        let held = self.held_version();
        if held.is_some() && self.cells.get(index).map(|cell| cell.version) == held {
            self.derived.old_waiting.insert(index);
        }
    }

    /// A cell that waits does so for resources alone: it stands where those of its next version do.
    pub fn stand(&mut self, index: u32) {
        let old = self.derived.old_waiting.contains(&index);
        let again = if old { &mut self.derived.again_old } else { &mut self.derived.again };
        again.insert(index);
    }

    /// A cell waits no longer; true where it waited for resources alone.
    pub fn leave(&mut self, index: u32) -> bool {
        self.derived.old_waiting.remove(&index);
        self.derived.again.remove(&index) | self.derived.again_old.remove(&index)
    }

    /// Which version the tasks that wait begin anew in, after a deployment has begun or changed.
    pub fn stand_anew(&mut self) {
        let standing: Vec<u32> = self.derived.again.iter().chain(&self.derived.again_old).copied().collect();
        self.derived.again.clear();
        self.derived.again_old.clear();
        self.derived.old_waiting.clear();
        if self.waiting_cells > 0 && self.held_version().is_some() {
            let waiting = |(_, cell): &(u32, &Cell)| cell.slot == Slot::Waiting;
            let waiting: Vec<u32> = self.cells.iter_from(0).filter(waiting).map(|(index, _)| index).collect();
            waiting.into_iter().for_each(|index| self.wait(index));
        }
        standing.into_iter().for_each(|index| self.stand(index));
    }

    /// Tasks that wait until their backoff is over.
    #[must_use]
    pub fn backing_off(&self) -> u32 {
        let standing = self.derived.again.len() + self.derived.again_old.len();
        self.waiting_cells - u32::try_from(standing).expect("no more than cells").min(self.waiting_cells)
    }

    /// False where the task is to end.
    #[must_use]
    pub fn wants(&self, index: u32) -> bool {
        let of_kind = match self.job.kind {
            Kind::Batch => true,
            Kind::System => self.cells.get(index).is_some_and(|cell| cell.slot != Slot::Ended && !cell.is_leaving()),
            Kind::Service | Kind::Task => index < self.total(),
        };
        self.stopping.is_none() && of_kind
    }

    /// True where nothing of it runs and nothing will.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let idle_service = self.job.kind == Kind::System || self.job.kind == Kind::Service && self.job.count == 0;
        self.live == 0 && (self.stopping.is_some() || self.unbegun() == 0 && self.waiting_cells == 0 && !idle_service)
    }

    /// What the tasks of `version` are.
    #[must_use]
    pub fn template(&self, version: u32) -> &Arc<Template> {
        if version == self.version {
            return &self.job.template;
        }
        let old = self.old.iter().find(|old| old.version == version).map(|old| &old.template);
        let kept = || self.rollout.as_ref()?.version(version).map(|version| &version.job.template);
        old.or_else(kept).unwrap_or(&self.job.template)
    }

    /// Tasks that serve: those that run, and of those that have checks only the healthy ones.
    #[must_use]
    pub fn ready_tasks(&self) -> u32 {
        let (new, old) = self.serving();
        new + old
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
            if cell.version == self.version {
                self.derived.new_phases[cell.phase as usize] -= 1;
                self.derived.new_phases[phase as usize] += 1;
            }
            cell.phase = phase;
        }
    }

    /// What follows from the cells alone, counted anew.
    pub fn recount(&mut self) {
        self.cells.forget_phases();
        self.derived = Derived { everywhere: Everywhere::of(self.job.kind, &self.cells), ..Derived::default() };
        self.derived.phases[LivePhase::Staging as usize] = self.live;
        self.derived.new_phases[LivePhase::Staging as usize] = self.live - self.outdated().min(self.live);
        self.stand_anew();
        let waiting = |(_, cell): &(u32, &Cell)| cell.slot == Slot::Waiting && cell.delay_ms == 0;
        let waiting: Vec<u32> = self.cells.iter_from(0).filter(waiting).map(|(index, _)| index).collect();
        waiting.into_iter().for_each(|index| self.stand(index));
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
