//! A task's states and its end, the same for every kind of task.

use crate::resources::PORTS_PER_TASK_MAX;
use crate::{AgentId, AttemptId, Template, Time, bounded};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest reason in an [`Exit`], in bytes; longer ones are cut where they are made.
pub const REASON_BYTES_MAX: usize = 512;

/// How a task ended. New variants at the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Exit {
    /// By itself; 0 is success.
    Code(i32),
    /// By a signal that nobody here asked for.
    Signal(i32),
    /// It executed `limit` wasm instructions.
    OutOfFuel {
        /// Its limit, in wasmtime's units.
        limit: u64,
    },
    /// It wanted more memory than its limit.
    OutOfMemory {
        /// Its limit.
        limit_bytes: u64,
        /// The most it had.
        peak_bytes: u64,
    },
    /// It ran for longer than its wall-clock limit.
    OutOfTime {
        /// Its limit, in milliseconds.
        limit_ms: u64,
    },
    /// It used more processor time than its limit.
    OutOfCpuTime {
        /// Its limit, in milliseconds.
        limit_ms: u64,
    },
    /// It wanted a table of more elements than its limit.
    OutOfTable {
        /// Its limit, in elements.
        limit: u32,
        /// What it asked for.
        wanted: u64,
    },
    /// A host call would have made the host allocate more than its limit.
    OutOfHostBytes {
        /// Its limit.
        limit_bytes: u64,
    },
    /// It did what wasm forbids.
    Trap {
        /// What, in wasmtime's words; at most [`REASON_BYTES_MAX`] bytes.
        reason: String,
    },
    /// It was asked to stop, whatever its code was then.
    Killed,
    /// It was never started: what it needs is missing or wrong, and trying again would not help.
    Rejected {
        /// What is missing or wrong; at most [`REASON_BYTES_MAX`] bytes.
        reason: String,
    },
    /// Nobody can say how it ended.
    Lost {
        /// Why not.
        reason: Loss,
    },
    /// It failed, and its sandbox was full.
    OutOfDisk {
        /// Its limit.
        limit_bytes: u64,
    },
    /// It failed, and had as many processes and threads as it may.
    OutOfProcesses {
        /// Its limit.
        limit: u32,
    },
    /// It was not well, as its job's checks found, and was ended by its agent.
    Unhealthy {
        /// What was found last; at most [`HEALTH_BYTES_MAX`] bytes.
        reason: String,
    },
}

/// Why nobody can say how a task ended. New variants at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Loss {
    /// Its agent was silent for longer than `replace_after`.
    AgentSilent,
    /// Its machine was started anew.
    Reboot,
    /// Its executor died, and it with it.
    Executor,
    /// Its agent came back and knew nothing of it.
    Forgotten,
    /// Its agent was told to leave for good.
    AgentGone,
    /// Its agent would not take it: what was promised was not there.
    Refused,
    /// It is fenced, and its agent's lease was over: its executor ended it, or it was never started.
    LeaseOver,
    /// Its agent was emptied, as an operator said: it ended there.
    Drained,
    /// Its place was needed for a task of a higher priority.
    Preempted,
    /// What it was lent, its agent needed for whom it was promised to.
    Revoked,
}

impl Exit {
    /// True for the one end that is a success.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Code(0))
    }

    /// The state that a task which ended so is in for good.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        match self {
            Self::Code(0) => Phase::Finished,
            Self::Killed => Phase::Killed,
            Self::Rejected { .. } => Phase::Rejected,
            Self::Lost { .. } => Phase::Lost,
            _ => Phase::Failed,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::OutOfFuel { limit } => write!(f, "out of fuel: its limit is {limit} instructions"),
            Self::OutOfMemory { limit_bytes, peak_bytes } => {
                write!(f, "out of memory: its limit is {limit_bytes} bytes, it had {peak_bytes} and wanted more")
            }
            Self::OutOfTime { limit_ms } => write!(f, "out of time: its limit is {limit_ms} ms"),
            Self::OutOfCpuTime { limit_ms } => write!(f, "out of CPU time: its limit is {limit_ms} ms"),
            Self::OutOfTable { limit, wanted } => {
                write!(f, "out of table space: its limit is {limit} elements, it wanted {wanted}")
            }
            Self::OutOfHostBytes { limit_bytes } => {
                write!(f, "a host call wanted more than its limit of {limit_bytes} bytes")
            }
            Self::Trap { reason } => write!(f, "trap: {reason}"),
            Self::Killed => f.write_str("killed on request"),
            Self::Rejected { reason } => write!(f, "rejected: {reason}"),
            Self::Lost { reason } => write!(f, "lost: {reason}"),
            Self::OutOfDisk { limit_bytes } => write!(f, "out of disk: its limit is {limit_bytes} bytes"),
            Self::OutOfProcesses { limit } => write!(f, "out of processes: its limit is {limit}"),
            Self::Unhealthy { reason } => write!(f, "unhealthy: {reason}"),
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AgentSilent => "its agent was silent for too long",
            Self::Reboot => "its machine was started anew",
            Self::Executor => "its executor died",
            Self::Forgotten => "its agent knows nothing of it",
            Self::AgentGone => "its agent left for good",
            Self::Refused => "its agent had no room for it",
            Self::LeaseOver => "no master renewed its lease in time",
            Self::Drained => "its agent was drained",
            Self::Preempted => "its place was needed for a task of a higher priority",
            Self::Revoked => "what it was lent was needed for whom it is promised to",
        })
    }
}

/// What a task has used, as its executor counted it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Usage {
    /// Wasm instructions, in wasmtime's units; 0 where they are not counted.
    pub fuel: u64,
    /// The most memory it had at once, in bytes: wasm, linear memory; native and container, all that its processes had.
    pub memory_peak_bytes: u64,
    /// From its start to its end, in microseconds of wall-clock time.
    pub time_us: u64,
    /// Processor time, in microseconds; of wasm what its fibre ran, where that is counted.
    pub cpu_us: u64,
}

impl Usage {
    /// What two members of one attempt used together; the time is the longer one's.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            fuel: self.fuel.saturating_add(other.fuel),
            memory_peak_bytes: self.memory_peak_bytes.saturating_add(other.memory_peak_bytes),
            time_us: self.time_us.max(other.time_us),
            cpu_us: self.cpu_us.saturating_add(other.cpu_us),
        }
    }
}

/// A state as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Not placed yet: `explain` says why.
    Waiting,
    /// Given to an agent, which has not said anything of it.
    Staging,
    /// Its bundle is fetched and compiled.
    Starting,
    /// It runs.
    Running,
    /// It was asked to stop.
    Killing,
    /// Its agent is silent; it may still run, and return.
    Unreachable,
    /// Ended with code 0.
    Finished,
    /// Ended in another way, by itself.
    Failed,
    /// Ended on request.
    Killed,
    /// Never started.
    Rejected,
    /// Nobody can say.
    Lost,
}

impl Phase {
    /// True where nothing follows.
    #[must_use]
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Finished | Self::Failed | Self::Killed | Self::Rejected | Self::Lost)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One attempt's state as its agent reports it. New variants at the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TaskState {
    /// Its bundle is fetched and compiled.
    Starting,
    /// It runs.
    Running {
        /// Since when, by its agent's clock, milliseconds of the Unix epoch.
        since: Time,
        /// The ports it was given, in the order of its template's names.
        #[serde(deserialize_with = "bounded::list::<_, _, { PORTS_PER_TASK_MAX as usize }>")]
        ports: Vec<u16>,
    },
    /// It was asked to stop and has not yet.
    Killing,
    /// It ended. Sent until it is acknowledged.
    Ended {
        /// How.
        exit: Exit,
        /// What it used.
        usage: Usage,
    },
}

/// One member of an attempt: what an executor holds, what prints and what can be looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberId {
    /// The attempt.
    pub attempt: AttemptId,
    /// Which of its template's members.
    pub member: u8,
}

impl MemberId {
    /// The first member of `attempt`, which most attempts have alone.
    #[must_use]
    pub const fn first(attempt: AttemptId) -> Self {
        Self { attempt, member: 0 }
    }

    /// All members of an attempt at `template`.
    pub fn all(attempt: AttemptId, template: &Template) -> impl Iterator<Item = Self> + use<> {
        let count = u8::try_from(template.members.len()).unwrap_or(u8::MAX);
        (0..count).map(move |member| Self { attempt, member })
    }
}

/// A status update: handling one twice, or one that is older than what is known, changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Update {
    /// Whose.
    pub attempt: AttemptId,
    /// The state it has now.
    pub state: TaskState,
}

/// Longest note of a [`Progress`], in bytes; longer ones are cut where they are made.
pub const NOTE_BYTES_MAX: usize = 256;

/// How far a task says that it is. Nothing follows from it but that people see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Progress {
    /// Which.
    pub attempt: AttemptId,
    /// 0 to 100.
    pub percent: u8,
    /// Its own words; at most [`NOTE_BYTES_MAX`] bytes.
    pub note: String,
}

/// Longest reason of a [`Health`], in bytes; longer ones are cut where they are made.
pub const HEALTH_BYTES_MAX: usize = 192;

/// What the checks of a task that runs have found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// All of them succeeded.
    Healthy,
    /// Some have not succeeded yet, and need not have.
    Unready,
    /// Some failed.
    Unhealthy,
}

/// Whether a task is well, as its agent found. Not on record: said at each change, and again to whoever asks next.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Health {
    /// Which.
    pub attempt: AttemptId,
    /// What was found.
    pub verdict: Verdict,
    /// Why not, for people; at most [`HEALTH_BYTES_MAX`] bytes, empty where it is.
    pub reason: String,
}

/// An attempt that an agent holds: launched and not yet ended and acknowledged. What a report is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Held {
    /// Which.
    pub attempt: AttemptId,
    /// True where it has ended and its end waits for an acknowledgement.
    pub ended: bool,
}

/// Where an attempt is or was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Placed {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its agent.
    pub agent: AgentId,
}
