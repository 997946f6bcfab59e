//! All that can happen to a ledger and all that it can want done: closed lists, data only.

use bytes::Bytes;
use protocol::message::{FromAgent, FromMaster, Launch};
use protocol::{AgentInfo, AttemptId, Check, Digest, Exit, Given, JobId, Lent, MemberId, Metering, ShardId, Time, Usage};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The moment that `poll_timeout` named has come, or any other: always harmless.
    Tick,
    /// There is a connection to a master where there was none; no shard is led yet.
    Connected {
        /// How many shards the cluster has.
        shards: u16,
    },
    /// The last connection is gone, and with it whoever led a shard.
    Disconnected,
    /// A shard has a leader that can be reached, the first one or another than before; all that was sent to the shard until now may not have
    /// arrived.
    Led {
        /// Which.
        shard: ShardId,
    },
    /// The leader of a shard can no longer be reached.
    Unled {
        /// Which.
        shard: ShardId,
    },
    /// The leader of a shard said something in its name.
    Master {
        /// Which.
        shard: ShardId,
        /// What.
        message: FromMaster,
    },
    /// A bundle is here in the form it is needed in, or cannot be.
    Prepared {
        /// Which.
        bundle: Digest,
        /// As what.
        form: Form,
        /// Why not, and whose move it is.
        result: Result<(), PrepareError>,
    },
    /// Members of attempts were started by their executors.
    Started {
        /// Which, since when (milliseconds of the Unix epoch).
        members: Vec<(MemberId, Time)>,
    },
    /// Members of attempts ended.
    Ended {
        /// Which, how, and what they used.
        members: Vec<(MemberId, Exit, Usage)>,
    },
    /// Members of attempts said how far they are: the latest of each.
    Progress {
        /// Which, 0 to 100, and in their own words.
        notes: Vec<(MemberId, u8, String)>,
    },
    /// A bundle that nothing used was thrown away to make room.
    Evicted {
        /// Which, in all forms.
        bundle: Digest,
    },
    /// The agent is so from now on, as an operator says. Passed over where it leaves less than what is promised.
    Changed {
        /// What it says of itself.
        info: Box<AgentInfo>,
    },
    /// What running tasks that have nothing revocable use now, as far as could be read.
    Measured {
        /// All of them together, in the time since it was measured before.
        used: Lent,
        /// Members of which nothing could be read: they count as if they used all that they were promised.
        unread: Vec<MemberId>,
    },
    /// After a recovery, and only then: every executor has said what it holds, as `Started` and `Ended`. What none of them named is lost:
    /// it is not started again, since nobody can prove that it never ran.
    Surveyed,
    /// Questions were answered, or not in time.
    Checked {
        /// Which, and what came of each.
        answers: Vec<(CheckId, Answer)>,
    },
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is well.
    Well,
    /// It is not, or did not answer in time: why, for people.
    Unwell(String),
    /// What it answered says nothing: it is as well as before.
    Nothing,
}

impl From<Result<(), String>> for Answer {
    fn from(answer: Result<(), String>) -> Self {
        answer.map_or_else(Self::Unwell, |()| Self::Well)
    }
}

/// One check of one member of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckId {
    /// Of which member.
    pub member: MemberId,
    /// Which of its two.
    pub purpose: Purpose,
}

/// What a check is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Whether it is well.
    Health,
    /// Whether it is ready.
    Readiness,
}

/// Something to be asked of a member of an attempt that runs.
#[derive(Clone, Debug)]
pub struct Question {
    /// Given back with the answer.
    pub id: CheckId,
    /// What is asked.
    pub check: Arc<Check>,
    /// The launch that the attempt came with, without its list of attempts.
    pub launch: Arc<Launch>,
    /// The attempt's ports, in the order of its template's names.
    pub ports: Vec<u16>,
    /// The attempt's single devices.
    pub given: Given,
}

/// What a bundle is needed as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// As it is: what a standard input reads, or fetched ahead.
    Plain,
    /// Compiled for this metering.
    Wasm(Metering),
    /// A file or an unpacked folder for native tasks.
    Native,
    /// The unpacked layers of an image, and what it says of itself.
    Image,
}

/// Why a bundle cannot be run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrepareError {
    /// It will never run: it is broken, or not what its digest says. For people.
    Unusable(String),
    /// It may be had later: the master was gone, or the disk full. For people.
    Later(String),
}

/// Something to be done, in order.
#[derive(Clone, Debug)]
pub enum Output {
    /// To be written (not flushed) before anything behind it is done.
    Checkpoint(Record),
    /// To a shard that is led.
    Send {
        /// Which.
        shard: ShardId,
        /// What.
        message: FromAgent,
    },
    /// Have this bundle fetched, and compiled where the form says so; answered with `Event::Prepared`.
    Prepare {
        /// Which.
        bundle: Digest,
        /// As what.
        form: Form,
    },
    /// Start these; answered with `Started` and `Ended`.
    Start(Start),
    /// Stop these; answered with `Ended`.
    Stop {
        /// Which.
        members: Vec<MemberId>,
        /// Milliseconds until it is done by force.
        grace_ms: u64,
    },
    /// These run on until then: their lease was renewed. Only what an executor has and has not ended yet is held by it; what is over is over.
    Renew {
        /// Which.
        members: Vec<MemberId>,
        /// Until when.
        until: Time,
    },
    /// Their framework says this to these. May be lost.
    Message {
        /// Which: the members of one attempt.
        members: Vec<MemberId>,
        /// What.
        bytes: Bytes,
    },
    /// Ask these; each is answered once, with `Event::Checked`.
    Check(Vec<Question>),
    /// Forget these: their ends are on record.
    Forget {
        /// Which.
        members: Vec<MemberId>,
    },
    /// End the agent's process: the master does not want it.
    Quit {
        /// Why, for people.
        reason: String,
    },
}

/// Attempts of one job to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The launch they came with; its `attempts` are those to start.
    pub launch: Launch,
    /// The ports of each attempt, in the same order, as many each as the template names.
    pub ports: Vec<Vec<u16>>,
    /// The single devices of each attempt, in the same order; empty where none has any.
    pub given: Vec<Given>,
    /// Until when they run unless their lease is renewed; `None`: they are not fenced.
    pub until: Option<Time>,
}

/// What a ledger puts on record so that an agent that was killed finds itself again. Written, not flushed: it outlives a process, not a
/// power cut, after which the tasks are lost anyway. New variants at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The ledger began empty.
    Began {
        /// Drawn at random by whoever drives.
        incarnation: u64,
        /// The machine's `boot_id`.
        boot: String,
    },
    /// Attempts were taken on. Before they are started.
    Taken {
        /// The launch; its `attempts` are those that were taken.
        launch: Launch,
        /// The ports of each.
        ports: Vec<Vec<u16>>,
    },
    /// Attempts ended.
    Ended {
        /// Which, how, and what they used.
        attempts: Vec<(AttemptId, Exit, Usage)>,
    },
    /// Ends were acknowledged.
    Forgotten {
        /// Which.
        attempts: Vec<AttemptId>,
    },
    /// Attempts that were taken on once, so that none is taken on again; only in a compacted record.
    Known {
        /// Their job.
        job: JobId,
        /// First and last index, and the highest number taken on of each index between.
        ranges: Vec<(u32, u32, u32)>,
    },
    /// Part of the record was lost: what was taken on is no longer known for certain, so it is another life from here on.
    Renewed {
        /// Drawn at random by whoever drives.
        incarnation: u64,
    },
    /// Attempts that were just taken on have these single devices.
    Devices {
        /// Which have which.
        given: Vec<(AttemptId, Given)>,
    },
    /// Attempts are to end since they are not well. Before they are told to: nobody else asks for it, so whoever begins anew must know who did.
    Unhealthy {
        /// Which, and why.
        attempts: Vec<(AttemptId, String)>,
    },
}
