//! One task in 72 bytes. Tasks that never began have no cell; what rarely happens stands beside the cells, in the job.

use protocol::{AgentId, Exit, Loss, Phase, Time, Usage};
use serde::{Deserialize, Serialize};

/// Cells that are allocated together once a job has more than this many: no growth copies more than one such piece.
const CHUNK_CELLS: usize = 1_024;

/// A task that began at least once.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// When it got into its state, by the record.
    pub since: Time,
    /// What its last attempt used, where that has ended.
    pub usage: Usage,
    /// Where its last attempt is or was.
    pub agent: AgentId,
    /// Its last attempt; from 1, or 0 where it waits for an agent and never had one.
    pub number: u32,
    /// Restarts counted against `retries_max`.
    pub retries: u32,
    /// The job's version that its last attempt runs.
    pub version: u32,
    /// The code of an exit that has one.
    code: i32,
    /// How long it waits after `since`, while it waits.
    pub delay_ms: u32,
    /// Where it stands.
    pub slot: Slot,
    /// How its last attempt ended.
    end: End,
    /// Restarts in a row, for the backoff; saturates.
    pub streak: u8,
    /// What its agent said last. Not on record.
    #[serde(skip)]
    pub phase: LivePhase,
}

/// Where a task stands, by the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Slot {
    /// It waits for another attempt.
    Waiting,
    /// It is on an agent.
    Live,
    /// It ended for good.
    Ended,
}

/// What an agent said of a live attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LivePhase {
    /// Nothing.
    #[default]
    Staging,
    /// Nothing, and it was said a second time to an agent that did not have it.
    StagedAgain,
    /// Its bundle is fetched and compiled.
    Starting,
    /// It runs, and nothing is asked of it.
    Running,
    /// It runs and has checks, of which not all have succeeded yet, as far as is known.
    Unready,
    /// It runs, and its checks succeed.
    Healthy,
    /// It runs, and a check of its fails.
    Unhealthy,
    /// It was asked to stop: by us, whatever its agent said.
    Killing,
}

impl LivePhase {
    /// How many there are.
    pub const COUNT: usize = 8;

    /// As people see it.
    #[must_use]
    pub const fn phase(self) -> Phase {
        match self {
            Self::Staging | Self::StagedAgain => Phase::Staging,
            Self::Starting => Phase::Starting,
            Self::Running | Self::Unready | Self::Healthy | Self::Unhealthy => Phase::Running,
            Self::Killing => Phase::Killing,
        }
    }
}

/// An exit in one byte, with `code` beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum End {
    None,
    Code,
    Signal,
    Killed,
    Lost,
    /// Kept beside the cells.
    Uncommon,
    /// It has not ended, and is to: its agent is none of its job's any more.
    Leaving,
}

/// New ones at the end: their places are on record.
const LOSSES: [Loss; 10] = [
    Loss::AgentSilent,
    Loss::Reboot,
    Loss::Executor,
    Loss::Forgotten,
    Loss::AgentGone,
    Loss::Refused,
    Loss::LeaseOver,
    Loss::Drained,
    Loss::Preempted,
    Loss::Revoked,
];

impl Cell {
    /// The first attempt of a task.
    #[must_use]
    pub fn staged(agent: AgentId, number: u32, version: u32, at: Time) -> Self {
        Self {
            since: at,
            usage: Usage::default(),
            agent,
            number,
            retries: 0,
            version,
            code: 0,
            delay_ms: 0,
            slot: Slot::Live,
            end: End::None,
            streak: 0,
            phase: LivePhase::Staging,
        }
    }

    /// A task of a system job waits for its agent: the first there, though not the first of its index.
    #[must_use]
    pub fn bound(agent: AgentId, before: u32, version: u32, at: Time) -> Self {
        Self { slot: Slot::Waiting, ..Self::staged(agent, before, version, at) }
    }

    /// True where it began since it has had its agent.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.slot == Slot::Live || self.end != End::None
    }

    /// True where it is live and is to leave its agent.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.slot == Slot::Live && self.end == End::Leaving
    }

    /// A live task is to leave its agent, or to stay.
    pub fn set_leaving(&mut self, leaves: bool) {
        if self.slot == Slot::Live {
            self.end = if leaves { End::Leaving } else { End::None };
        }
    }

    /// Another attempt.
    pub fn stage_again(&mut self, agent: AgentId, number: u32, version: u32, at: Time) {
        *self = Self { retries: self.retries, streak: self.streak, ..Self::staged(agent, number, version, at) };
    }

    /// Notes how the attempt ended; gives back the exit where it has to be kept beside the cells.
    pub fn note_exit(&mut self, exit: &Exit) -> Option<Exit> {
        let loss = |reason: &Loss| LOSSES.iter().position(|known| known == reason).and_then(|at| i32::try_from(at).ok());
        (self.end, self.code) = match exit {
            Exit::Code(code) => (End::Code, *code),
            Exit::Signal(signal) => (End::Signal, *signal),
            Exit::Killed => (End::Killed, 0),
            Exit::Lost { reason } => loss(reason).map_or((End::Uncommon, 0), |at| (End::Lost, at)),
            _ => (End::Uncommon, 0),
        };
        (self.end == End::Uncommon).then(|| exit.clone())
    }

    /// How its last attempt ended, with what stands beside the cells for it.
    #[must_use]
    pub fn exit(&self, uncommon: Option<&Exit>) -> Option<Exit> {
        match self.end {
            End::None | End::Leaving => None,
            End::Code => Some(Exit::Code(self.code)),
            End::Signal => Some(Exit::Signal(self.code)),
            End::Killed => Some(Exit::Killed),
            End::Lost => usize::try_from(self.code).ok().and_then(|at| LOSSES.get(at)).map(|reason| Exit::Lost { reason: *reason }),
            End::Uncommon => uncommon.cloned(),
        }
    }

    /// When it is started again, where it waits for that.
    #[must_use]
    pub fn retry_at(&self) -> Option<Time> {
        (self.slot == Slot::Waiting && self.delay_ms > 0).then(|| self.since + u64::from(self.delay_ms))
    }
}

/// The cells of one job, by index.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Cells {
    chunks: Vec<Vec<Cell>>,
}

impl Cells {
    /// How many tasks began.
    #[must_use]
    pub fn len(&self) -> u32 {
        let full = self.chunks.len().saturating_sub(1) * CHUNK_CELLS;
        u32::try_from(full + self.chunks.last().map_or(0, Vec::len)).expect("COUNT_MAX fits")
    }

    /// True where none began.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The cell of the task `index`.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&Cell> {
        let at = index as usize;
        self.chunks.get(at / CHUNK_CELLS)?.get(at % CHUNK_CELLS)
    }

    /// The cell of the task `index`, to be changed.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut Cell> {
        let at = index as usize;
        self.chunks.get_mut(at / CHUNK_CELLS)?.get_mut(at % CHUNK_CELLS)
    }

    /// Adds the cell of the next task, of a job with `count` tasks.
    pub fn push(&mut self, cell: Cell, count: u32) {
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_CELLS) {
            let left = (count.saturating_sub(self.len()) as usize).clamp(1, CHUNK_CELLS);
            if self.chunks.is_empty() {
                self.chunks.reserve_exact((count as usize).div_ceil(CHUNK_CELLS).clamp(1, CHUNK_CELLS));
            }
            self.chunks.push(Vec::with_capacity(left));
        }
        self.chunks.last_mut().expect("one was pushed if there was none").push(cell);
    }

    /// Forgets what agents said: nothing of it is on record.
    pub fn forget_phases(&mut self) {
        self.chunks.iter_mut().flatten().for_each(|cell| cell.phase = LivePhase::Staging);
    }

    /// The cells from `index` on, with their indexes.
    pub fn iter_from(&self, index: u32) -> impl Iterator<Item = (u32, &Cell)> {
        let first = index as usize / CHUNK_CELLS;
        let skip = index as usize % CHUNK_CELLS;
        let base = u32::try_from(first * CHUNK_CELLS).unwrap_or(u32::MAX);
        let chunks = self.chunks.get(first..).unwrap_or_default();
        (base..).zip(chunks.iter().flatten()).skip(skip)
    }
}

const _: () = assert!(size_of::<Cell>() == 72, "what a finished task costs, of which there are millions");
