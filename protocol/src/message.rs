//! Every message between master and agent. Closed enums, new variants only at the end; struct fields never change (new data is a new
//! variant): the format is positional. No type here is recursive, since the format has no depth limit, and no vector is of a type without
//! bytes.

mod join;

pub use join::{Join, JoinReply, MasterPlace};

use crate::agent::AgentChange;
use crate::bounded;
use crate::link::ResetToken;
use crate::reservation::{RESERVATIONS_MAX, Reservation};
use crate::resources::Lent;
use crate::task::{Health, Held, Progress, Update};
use crate::{AgentInfo, AttemptId, Digest, Given, JobId, MemberId, Role, ShardId, Template, Time};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub use crate::owner::{attempt_hash, shard_of_agent, shard_of_job};

/// Most attempts in one message; longer lists are sent in several.
pub const ATTEMPTS_PER_MESSAGE_MAX: usize = 4_096;
/// Most notes of progress in one message.
pub const NOTES_PER_MESSAGE_MAX: usize = 256;
/// Most certificates in one message: an agent's own, the intermediate's, the root's, and one more while a root is replaced.
pub const CHAIN_LENGTH_MAX: usize = 4;
/// Bytes of a bundle or a log in one message.
pub const CHUNK_BYTES_MAX: usize = 256 * 1024;

/// Most bytes that a framework says to a task at once.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Most masters of a cluster.
pub const MASTERS_MAX: usize = 16;

/// What an agent says, and to which shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToShard {
    /// The shard it is for.
    pub shard: ShardId,
    /// What is said.
    pub message: FromAgent,
}

/// What a shard says to an agent, and which shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToAgent {
    /// The shard that says it.
    pub shard: ShardId,
    /// What is said.
    pub message: FromMaster,
}

/// What an agent says. New variants at the end.
#[expect(clippy::large_enum_variant, reason = "one registration in a connection's life; a status is moved as often either way")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromAgent {
    /// I am here, in this shape. To the agent's own shard; its [`FromAgent::Report`] follows.
    Register {
        /// What the agent is.
        info: AgentInfo,
        /// Drawn at random when the agent's ledger began empty: at its first start, and after a reboot. Tasks of another incarnation are
        /// lost.
        incarnation: u64,
        /// Which registration of the agent's process, from 1; given back in [`FromMaster::Registered`].
        number: u64,
    },
    /// I live. To the agent's own shard.
    Beat {
        /// From [`FromMaster::Registered`].
        session: u64,
        /// When it was sent, by the agent's own clock; given back in [`FromMaster::BeatAck`].
        sent: Time,
        /// How many attempts the agent holds.
        held: u32,
        /// Exclusive or of [`attempt_hash`] of each: where it differs from what the shard has booked and stays so, the shard asks for a
        /// report.
        held_hash: u64,
    },
    /// States that changed; sent to the attempt's shard, and ends again until acknowledged.
    Status {
        /// At most [`ATTEMPTS_PER_MESSAGE_MAX`].
        #[serde(deserialize_with = "bounded::list::<_, _, ATTEMPTS_PER_MESSAGE_MAX>")]
        updates: Vec<Update>,
    },
    /// All that the agent holds, of every shard. To the agent's own shard, after registering and when asked.
    Report {
        /// From [`FromMaster::Registered`]; 0 in the one that follows a `Register`.
        session: u64,
        /// At most [`ATTEMPTS_PER_MESSAGE_MAX`].
        #[serde(deserialize_with = "bounded::list::<_, _, ATTEMPTS_PER_MESSAGE_MAX>")]
        held: Vec<Held>,
        /// False where more of the same report follows.
        last: bool,
    },
    /// The agent would not take these: what was promised is not there. To the attempt's shard.
    Refused {
        /// At most [`ATTEMPTS_PER_MESSAGE_MAX`].
        #[serde(deserialize_with = "bounded::list::<_, _, ATTEMPTS_PER_MESSAGE_MAX>")]
        attempts: Vec<AttemptId>,
        /// Why, for people.
        reason: String,
    },
    /// The agent's process ends; its tasks go on.
    Leaving,
    /// How far tasks say that they are, the latest of each. To the attempt's shard; said once, and lost without harm.
    Progress {
        /// At most [`NOTES_PER_MESSAGE_MAX`].
        #[serde(deserialize_with = "bounded::list::<_, _, NOTES_PER_MESSAGE_MAX>")]
        notes: Vec<Progress>,
    },
    /// As [`FromAgent::Beat`], of an agent that waits for no answer: it has no fenced attempts, and has heard of its shard lately. It is given
    /// one with the next fenced launch. It may come before what was said earlier, or after what was said later: one of another session is
    /// passed over.
    Alive {
        /// As there.
        session: u64,
        /// As there.
        sent: Time,
        /// As there.
        held: u32,
        /// As there.
        held_hash: u64,
    },
    /// What of it is kept for roles from its start, in place of what it said before: each is fixed. To the agent's own shard, behind each `Register`.
    Reserves {
        /// At most [`RESERVATIONS_MAX`].
        #[serde(deserialize_with = "bounded::list::<_, _, RESERVATIONS_MAX>")]
        reservations: Vec<Reservation>,
    },
    /// From version 3 on: so much of what the agent has is idle, as it measured, and may be promised as revocable until it says otherwise. To the
    /// agent's own shard, which forgets it when the agent registers.
    Slack {
        /// From [`FromMaster::Registered`].
        session: u64,
        /// How much.
        lent: Lent,
    },
    /// From version 3 on: which single devices attempts have that the agent holds; of one attempt it never changes. To the agent's own shard, before each
    /// [`FromAgent::Report`], and where the agent chose them itself.
    Devices {
        /// At most [`ATTEMPTS_PER_MESSAGE_MAX`].
        #[serde(deserialize_with = "bounded::list::<_, _, ATTEMPTS_PER_MESSAGE_MAX>")]
        given: Vec<(AttemptId, Given)>,
    },
    /// From version 3 on: whether tasks with checks are well, where that has changed, and of all of them to a new leader. To the attempt's shard, behind
    /// the state of each.
    Health {
        /// At most [`NOTES_PER_MESSAGE_MAX`].
        #[serde(deserialize_with = "bounded::list::<_, _, NOTES_PER_MESSAGE_MAX>")]
        healths: Vec<Health>,
    },
}

impl FromAgent {
    /// The version that this variant came with: to a master that speaks an earlier one it is not said.
    #[must_use]
    pub const fn since(&self) -> u16 {
        match self {
            Self::Reserves { .. } | Self::Slack { .. } | Self::Devices { .. } | Self::Health { .. } => 3,
            _ => 1,
        }
    }
}

/// What a shard says to an agent. New variants at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromMaster {
    /// Welcome; now beat.
    Registered {
        /// Rises with each registration of this agent.
        session: u64,
        /// How often to beat, in milliseconds.
        heartbeat_ms: u64,
        /// From the [`FromAgent::Register`] that this answers. An agent that has registered again meanwhile waits for the answer to that: what
        /// it takes on in a session is in no report that it sent before.
        number: u64,
    },
    /// Go away; the agent's process ends with this reason.
    Rejected {
        /// Why, for people.
        reason: String,
    },
    /// A beat was heard.
    BeatAck {
        /// The beat's own `sent`.
        sent: Time,
    },
    /// Run these, each once. An agent takes a launch only in its session and only if its `sequence` is higher than any it took in it, and
    /// an attempt that it ever took it never takes again.
    Launch(Launch),
    /// Stop these.
    Kill {
        /// At most [`ATTEMPTS_PER_MESSAGE_MAX`]; unknown ones are passed over.
        #[serde(deserialize_with = "bounded::list::<_, _, ATTEMPTS_PER_MESSAGE_MAX>")]
        attempts: Vec<AttemptId>,
        /// Milliseconds from the request to stop until it is done by force.
        grace_ms: u64,
    },
    /// These ends are on record: forget them.
    Ack {
        /// At most [`ATTEMPTS_PER_MESSAGE_MAX`].
        #[serde(deserialize_with = "bounded::list::<_, _, ATTEMPTS_PER_MESSAGE_MAX>")]
        attempts: Vec<AttemptId>,
    },
    /// Report all that you hold.
    ReportWanted {
        /// The session it is asked in.
        session: u64,
    },
    /// Fetch and compile this before it is needed.
    Prepare {
        /// The bundle.
        bundle: Digest,
    },
    /// The master at the other end of this connection leads the shard that says so from now on: what is for that shard goes over this
    /// connection. Said when a connection begins and when a master begins to lead.
    Leading {
        /// Of two masters that say so, the one of the higher term is right.
        term: u64,
    },
    /// All masters that an agent is to be connected to, in place of what was said before.
    Masters {
        /// Where each listens: `HOST:PORT`, at most [`MASTERS_MAX`].
        #[serde(deserialize_with = "bounded::list::<_, _, MASTERS_MAX>")]
        addresses: Vec<String>,
    },
    /// Fenced attempts on this agent run for so long after the sending of a beat, or of a registration, that was answered. Said before each
    /// launch of one, and where an agent reports one.
    Lease {
        /// How long, in milliseconds, by a clock of the agent's machine that is never set and goes on while that sleeps.
        lease_ms: u64,
    },
    /// This master takes [`FromAgent::Alive`] as a pulse, beside the connection ([`crate::link::Connection::pulse`]). Said once, when a connection
    /// begins.
    Pulses {
        /// How it says that it does not know the connection any more.
        reset: ResetToken,
    },
    /// This master does not lead the shard that says so, which is the agent's own. Said when a connection begins, when a master ceases to lead, and
    /// when it hears that another one does: an agent that has no connection to that one, or an old one, would not notice.
    LedElsewhere {
        /// The highest term that is known here.
        term: u64,
        /// Who leads in that term, as far as is known here.
        leader: Option<Leader>,
    },
    /// From version 3 on: its framework says this to a task that runs. Said once, and lost without harm; in order with all else that the shard says to
    /// the agent.
    Message {
        /// To which.
        attempt: AttemptId,
        /// What: at most [`MESSAGE_BYTES_MAX`].
        bytes: bytes::Bytes,
    },
    /// From version 3 on: which single devices the attempts of a launch get. Said just before it; an agent that has not heard it chooses itself, and says
    /// what.
    Devices {
        /// Of the launch.
        session: u64,
        /// Of the launch.
        sequence: u64,
        /// Of each of its attempts, in their order: at most [`ATTEMPTS_PER_MESSAGE_MAX`].
        #[serde(deserialize_with = "bounded::list::<_, _, ATTEMPTS_PER_MESSAGE_MAX>")]
        given: Vec<Given>,
    },
}

/// A master that leads a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Its number.
    pub master: u16,
    /// Where it listens: `HOST:PORT`.
    pub address: String,
}

impl FromMaster {
    /// The version that this variant came with: over a connection of an earlier one it is not said, and need not be.
    #[must_use]
    pub const fn since(&self) -> u16 {
        match self {
            Self::Pulses { .. } | Self::LedElsewhere { .. } => 2,
            Self::Message { .. } | Self::Devices { .. } => 3,
            _ => 1,
        }
    }
}

/// Tasks of one job to run on one agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The agent's session with its shard.
    pub session: u64,
    /// Rises with each launch in a session.
    pub sequence: u64,
    /// Their job.
    pub job: JobId,
    /// What people call the job: its name, or its id.
    pub title: String,
    /// Their job's role.
    pub role: Role,
    /// What each of them is.
    pub template: Arc<Template>,
    /// Which: the index of the task and the number of the attempt, at most [`ATTEMPTS_PER_MESSAGE_MAX`].
    #[serde(deserialize_with = "bounded::list::<_, _, ATTEMPTS_PER_MESSAGE_MAX>")]
    pub attempts: Vec<(u32, u32)>,
}

/// What is said on a bulk stream by the one that opened it: always the first frame, and the only one but for `Input`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BulkRequest {
    /// Agent to master: the bundle, from this byte on.
    Bundle {
        /// Which.
        bundle: Digest,
        /// Bytes already there.
        offset: u64,
    },
    /// Master to agent: what a task has printed.
    Log {
        /// Whose.
        member: MemberId,
        /// From this byte of its output on; what was rotated away is skipped.
        offset: u64,
        /// True: go on until it has ended and all is sent.
        follow: bool,
    },
    /// Master to agent: run a program beside a native or container task. Any number of `Input`s follow; what the program prints, and its end,
    /// comes in `Chunk`s. What both carry is between the program's executor and whoever wants it: the link passes it on.
    Exec {
        /// Beside which.
        member: MemberId,
        /// The program and its arguments.
        #[serde(deserialize_with = "bounded::list::<_, _, COMMAND_LENGTH_MAX>")]
        command: Vec<String>,
        /// Rows and columns of a terminal of its own.
        terminal: Option<(u16, u16)>,
    },
    /// Master to agent: what running tasks use now. Each `Chunk` is a [`UsageReport`], of other tasks each.
    Usage,
    /// More of what an `Exec` began.
    Input {
        /// At most [`CHUNK_BYTES_MAX`].
        bytes: bytes::Bytes,
    },
    /// Master to agent, from version 3 on: an operator says that it is so from now on. Answered with `End` where it is, and with `Failed` where it
    /// cannot be.
    Change(AgentChange),
}

/// What running tasks use at this moment: one by one, and wasm tasks also together as their executors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageReport {
    /// Tasks; of very many wasm tasks those that use most.
    #[serde(deserialize_with = "bounded::list::<_, _, USAGE_ROWS_MAX>")]
    pub tasks: Vec<TaskUsage>,
    /// Executors of wasm tasks.
    #[serde(deserialize_with = "bounded::list::<_, _, USAGE_ROWS_MAX>")]
    pub executors: Vec<ExecutorUsage>,
}

/// Most rows of one [`UsageReport`], of each sort.
pub const USAGE_ROWS_MAX: usize = 512;

/// What one task uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskUsage {
    /// Which.
    pub member: MemberId,
    /// Processor time since its start, in microseconds; of wasm that is metered by fuel without its first turn.
    pub cpu_us: u64,
    /// Bytes of memory now, without the file cache; of wasm its linear memories.
    pub memory_bytes: u64,
    /// Processes and threads now; `None`: it is wasm, and in its executor's.
    pub processes: Option<u64>,
}

/// What one executor of wasm tasks uses, with all its tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutorUsage {
    /// Whose tasks it runs.
    pub role: Role,
    /// Processor time since its start, in microseconds.
    pub cpu_us: u64,
    /// Bytes of memory now.
    pub memory_bytes: u64,
}

/// Most texts of a command that runs beside a task.
pub const COMMAND_LENGTH_MAX: usize = 1_024;

/// Why an agent ends streams when it ends itself: what they are about may go on, and be asked for again.
pub const AGENT_LEAVES: &str = "the agent is leaving";

/// What is answered on a bulk stream: any number of `Chunk`s, then `End` or `Failed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BulkReply {
    /// Some bytes.
    Chunk {
        /// Where the first of them stands.
        offset: u64,
        /// At most [`CHUNK_BYTES_MAX`].
        bytes: bytes::Bytes,
    },
    /// That was all.
    End,
    /// There is no more to be had.
    Failed {
        /// Why, for people.
        reason: String,
    },
}

/// The first frame of a control stream, from the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The version of the agent's binary, for people.
    pub version: String,
}

/// The answer to a [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloReply {
    /// How many shards the cluster has.
    pub shards: u16,
    /// The version of the master's binary, for people.
    pub version: String,
}
