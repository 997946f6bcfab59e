//! All that can happen to a shard and all that it can want done: closed lists, data only.

use crate::shard::record::Record;
use protocol::job::About;
use protocol::{AgentId, Digest, FromAgent, FromMaster, Job, JobId, RequestId, Role, ShardId};
use serde::{Deserialize, Serialize};

pub use super::change::Change;
pub use super::deployment_view::DeploymentWish;
use super::drains::ModeWish;
pub use super::maintenance::WindowsRequest;
pub use super::peer::{LEFT_MAX, Limit, PeerMessage, PlacedOffer, PlacedWant, WANTS_MAX, Want};
use super::plugins::Place;
use super::quotas::RoleSettings;
use super::reservations::ReservationChange;
use super::view::{JobView, View, Viewed};
use crate::frameworks::{FrameworkEvent, FrameworkRequest};
use crate::jobs::DeploymentId;
use std::borrow::Cow;

/// One word of a short list.
pub type Word = Cow<'static, str>;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The moment that `poll_timeout` named has come, or any other: always harmless.
    Tick,
    /// Somebody asks; each request is answered by at least one reply with its id.
    Request {
        /// Given back with the answer.
        id: RequestId,
        /// What is asked.
        request: Request,
    },
    /// Nobody waits for the answers to this request any longer.
    Abandoned {
        /// The request's id.
        id: RequestId,
    },
    /// An agent said something, on a connection whose certificate is its own.
    Agent {
        /// Whose certificate it is.
        agent: AgentId,
        /// What it said.
        message: FromAgent,
    },
    /// The connection of an agent is gone.
    Disconnected {
        /// Whose.
        agent: AgentId,
    },
    /// Another shard, or this one, said something.
    Peer {
        /// Which.
        from: ShardId,
        /// What it said.
        message: PeerMessage,
    },
}

/// Something to be done, in order.
#[derive(Clone, Debug)]
pub enum Output {
    /// To be committed: what is `Held` behind it waits for that.
    Journal(Record),
    /// To be done once every record before it is committed.
    Held(Action),
    /// To be done at once: it promises nothing that a crash could take back.
    Now(Action),
}

/// What a shard can want done.
#[derive(Clone, Debug)]
pub enum Action {
    /// To an agent, in order with all else that is sent to it; dropped where it is not connected.
    Send {
        /// To whom.
        agent: AgentId,
        /// What.
        message: FromMaster,
    },
    /// To another shard or to this one, in order.
    Peer {
        /// To which.
        to: ShardId,
        /// What.
        message: PeerMessage,
    },
    /// An answer to a request.
    Reply {
        /// The request's id.
        id: RequestId,
        /// The answer.
        response: Response,
    },
    /// For whoever watches.
    Publish(Change),
    /// Close the connection of this agent.
    Disconnect {
        /// Whose.
        agent: AgentId,
        /// Why, for people.
        reason: String,
    },
}

/// What somebody asks of a shard.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Make this job. With a `key` that was used before, the answer is that of before, or a conflict where the job differs.
    Submit {
        /// The job.
        job: Job,
        /// The client's idempotency key.
        key: Option<String>,
        /// True: answer a second time, with `Response::Ended`, when the job has ended.
        follow: bool,
    },
    /// Make the job of this role and name be so: create it, or give it a new version.
    Apply {
        /// The job; it has a name.
        job: Job,
    },
    /// End all tasks of a job and the job.
    Stop {
        /// Which.
        job: JobRef,
        /// Milliseconds until it is done by force.
        grace_ms: u64,
    },
    /// Change how many tasks a service has, or how many of a batch job may still begin.
    Scale {
        /// Which.
        job: JobRef,
        /// How many.
        count: u32,
    },
    /// Answer with `Response::Ended` when the job has ended.
    Follow {
        /// Which.
        job: JobRef,
    },
    /// Empty an agent of its promises for good: its tasks are replaced at once. To the agent's shard.
    Gone {
        /// Which.
        agent: AgentId,
    },
    /// Give an agent tasks, or none. To the agent's shard.
    SetMode {
        /// Which.
        agent: AgentId,
        /// How it is to be.
        mode: ModeWish,
    },
    /// What is so; answered from what is committed.
    View(View),
    /// Something about tokens; to shard 0, which owns them.
    Token(TokenRequest),
    /// What a role's tasks may have of their hosts, in place of what was said before; to shard 0, which owns policies.
    SetPolicy {
        /// Whose.
        role: Role,
        /// What they may.
        policy: Policy,
    },
    /// Something about masters; to shard 0, which owns them.
    Master(MasterRequest),
    /// Something about a framework; to the shard that keeps it.
    Framework(FrameworkRequest),
    /// How a role is served, and how much it may hold, in place of what was said before; to shard 0, which owns that.
    SetRole {
        /// Which.
        role: Role,
        /// How.
        settings: RoleSettings,
        /// True: also where more is guaranteed than the cluster has.
        force: bool,
    },
    /// Something about when agents are maintained; to shard 0.
    Windows(WindowsRequest),
    /// A plug-in in place of what was there before; to shard 0, which owns them.
    SetPlugIn {
        /// What it is for.
        place: Place,
        /// The component, and whether what it is asked is refused where it does not answer; `None`: there is none from now on.
        plug_in: Option<(Digest, bool)>,
    },
    /// Keep something of an agent for a role, or no longer: all of it or nothing. To the agent's shard.
    Reserve {
        /// Which agent.
        agent: AgentId,
        /// What, in order.
        changes: Vec<ReservationChange>,
        /// Who asks.
        principal: String,
    },
    /// End attempts of a service; its tasks are tried again at once.
    Kill {
        /// Whose.
        job: JobRef,
        /// Index and number of each; those that are not live are left alone.
        attempts: Vec<(u32, u32)>,
        /// Milliseconds until it is done by force.
        grace_ms: u64,
    },
    /// Try all tasks of a job again at once that wait until their backoff is over.
    Retry {
        /// Whose.
        job: JobRef,
    },
    /// As `Apply`: a service keeps its versions, and goes to the new one step by step. Answered with `Response::Deployed`.
    Deploy {
        /// The job; it has a name.
        job: Job,
        /// True: in place of a deployment that is under way.
        force: bool,
    },
    /// Replace all tasks of a service by others that are the same.
    Restart {
        /// Which.
        job: JobRef,
        /// True: in place of a deployment that is under way.
        force: bool,
    },
    /// Go back to an earlier version of a service.
    Rollback {
        /// Which.
        job: JobRef,
        /// Which version; `None`: the one before.
        to: Option<u32>,
        /// True: in place of a deployment that is under way.
        force: bool,
    },
    /// Something about a deployment that is under way.
    Deployment {
        /// Which.
        id: DeploymentId,
        /// What.
        wish: DeploymentWish,
    },
    /// As `Deploy`, and where only the number of tasks is another that is a deployment, too: it is listed, in the way of others, and done once so many do
    /// their work and no other is left.
    Resize {
        /// The job; it has a name.
        job: Job,
        /// True: in place of one of its sort that is under way; what goes to another version goes on, with the new number.
        force: bool,
    },
    /// Say something else of a service: nothing of it is another for that, and nothing that is under way either.
    Describe {
        /// Which.
        job: JobRef,
        /// What.
        about: About,
    },
}

/// Something about the masters of the cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum MasterRequest {
    /// Let one in that shows this token; answered with all masters, of which it is the last.
    Join {
        /// The token's id.
        id: String,
        /// The hash of the secret that was shown.
        hash: Digest,
        /// Where it listens for masters and agents, `HOST:PORT`.
        quic: String,
        /// Where it serves HTTP, as a URL.
        http: String,
    },
    /// One that is on record says where it is. The first of a new cluster comes on record by it.
    Seen(Master),
    /// One is never to come back: it has a vote in nothing any more.
    Remove {
        /// Which.
        number: u16,
    },
}

/// A master on record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Master {
    /// From 1, never given twice.
    pub number: u16,
    /// Where it listens for masters and agents, `HOST:PORT`.
    pub quic: String,
    /// Where it serves HTTP, as a URL.
    pub http: String,
}

/// What native and container tasks of a role may have of their hosts. Nothing, where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// True: the host's network.
    pub host_network: bool,
    /// Folders and files, each with all below it.
    pub host_paths: Vec<HostPath>,
}

/// A part of every host that tasks may see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPath {
    /// Which: absolute, of plain names.
    pub path: String,
    /// True where they may change it.
    pub writable: bool,
}

/// How people name a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobRef {
    /// By its id.
    Id(JobId),
    /// By its role and name: the one that has not ended, or else the last that has.
    Name(Role, protocol::Name),
}

/// Something about tokens. Secrets are drawn and hashed by whoever asks: a shard sees SHA-256 hashes only.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum TokenRequest {
    /// Put a token on record.
    Create(Token),
    /// Make a token worthless.
    Revoke {
        /// Its id.
        id: String,
    },
    /// Use up a join token: answered once only for each, with `Response::Done`.
    Consume {
        /// Its id.
        id: String,
        /// The hash of the secret that was shown.
        hash: Digest,
        /// The agent that is taken in with it.
        agent: AgentId,
    },
}

/// A token on record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its public part: 1 to 63 bytes.
    pub id: String,
    /// The SHA-256 of its secret part.
    pub hash: Digest,
    /// What it allows.
    pub grant: Grant,
    /// When it ends, in milliseconds of the Unix epoch; `None`: never.
    pub expires: Option<protocol::Time>,
}

/// What a token allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Grant {
    /// To call the API.
    Api {
        /// How much of it.
        level: Level,
        /// For which roles; empty: for all of them.
        roles: Vec<Role>,
    },
    /// To become an agent, once.
    Join,
    /// To become a master, once.
    JoinMaster,
}

/// How much of the API a token allows; each level contains those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// To see.
    Viewer,
    /// To change jobs.
    Operator,
    /// To change the cluster.
    Admin,
}

/// An answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Response {
    /// The job is on record.
    Submitted {
        /// Its id.
        job: JobId,
        /// False where an earlier submission with the same key made it, or where applying changed nothing.
        new: bool,
    },
    /// The job has ended.
    Ended(Box<JobView>),
    /// It is so.
    Done,
    /// What was asked to be seen.
    Viewed(Box<Viewed>),
    /// It is not so, and why.
    Refused(Refusal),
    /// What a framework is told that has subscribed; more follows until an error.
    Framework(Vec<FrameworkEvent>),
    /// It is so, and this is the number of the last thing of its sort.
    Numbered(u64),
    /// A service is to go to another version.
    Deployed {
        /// Its id.
        job: JobId,
        /// False where that changes nothing.
        new: bool,
        /// What brings it there; `None` where no task needs to be replaced.
        deployment: Option<DeploymentId>,
    },
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// There is no such thing.
    #[error("no such {what}")]
    NotFound {
        /// `job`, `task`, `agent` or `token`.
        what: Word,
    },
    /// Something else has that key or name.
    #[error("{reason}")]
    Conflict {
        /// What, for people.
        reason: String,
    },
    /// It makes no sense for that thing.
    #[error("{reason}")]
    Invalid {
        /// Why, for people.
        reason: String,
    },
    /// A limit of the shard is reached; the request can be made again.
    #[error("{reason}")]
    Busy {
        /// Which, for people.
        reason: String,
        /// When it makes sense to try again, in milliseconds from now.
        retry_after_ms: u64,
    },
    /// No master leads the shard now, so nothing was done.
    #[error("no master leads this part of the cluster now: most masters must be reachable from each other; try again")]
    Unled,
    /// The master that leads the shard went away while it was asked.
    #[error("the leading master went away while it was asked: whether it was done is not known; ask again with the same key, or look")]
    Unknown,
}
