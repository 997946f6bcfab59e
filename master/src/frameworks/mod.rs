//! Frameworks other than the built-in one: who they are, what they may say and what they are told. Data only, and what of it is on record
//! (`state.rs`); what a shard does with it stands in `shard/frameworks.rs` and its neighbours, how it is written over HTTP in `http/mesos/`.

mod demand;
mod filters;
mod groups;
mod state;
mod view;

pub use demand::{Cover, Demand, WISHES_MAX, Wanted, Wish};
pub use filters::{CONDITIONS_MAX, Condition, Fact, Filter, Filters, Sieve, Test};
pub use groups::{GROUP_TASKS_MAX, Groups, LastingGroups};
pub use state::{Framework, Frameworks, LastingFrameworks, Own};
pub use view::{AGENTS_SHOWN_MAX, FrameworkView, OFFERS_SHOWN_MAX, OwnView, TASKS_COUNTED_MAX};

use crate::shard::amounts;
use crate::shard::reservations::ReservationChange;
use protocol::{AgentId, AgentInfo, Exit, Job, JobId, OfferId, Phase, PortRange, Reservation, Resources, Role, ShardId, Time};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest text that a framework says of itself or calls a task by, in bytes.
pub const TEXT_BYTES_MAX: usize = 1_024;
/// Most roles of a framework, most capabilities, and most labels.
pub const ROLES_MAX: usize = 64;
/// The longest that the tasks of a framework may wait for it to come back, in milliseconds: a year.
pub const FAILOVER_MS_MAX: u64 = 365 * 86_400_000;
/// What is not there where a framework names a task that is not its own.
pub const UNKNOWN_TASK: &str = "task";
/// What a framework can take that is shown what is revocable, in Mesos' words.
pub const REVOCABLE: &str = "REVOCABLE_RESOURCES";
/// Most offers, launches or tasks in one call.
pub const CALL_ITEMS_MAX: usize = 10_000;
/// The longest that an agent may be refused, in milliseconds: a year, as in Mesos.
pub const REFUSE_MS_MAX: u64 = 365 * 86_400_000;
/// How long an agent is refused where nothing is said, in milliseconds, as in Mesos.
pub const REFUSE_MS_DEFAULT: u64 = 5_000;

/// A framework. The upper 16 bits are the shard that keeps it, the lower 48 a number that the shard gave.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FrameworkId(pub u64);

impl FrameworkId {
    /// The framework with this number of a shard, of the numbers that its jobs have too.
    #[must_use]
    pub const fn new(shard: ShardId, sequence: u64) -> Self {
        Self(JobId::new(shard, sequence).0)
    }

    /// The shard that keeps it and owns its tasks.
    #[must_use]
    pub const fn shard(self) -> ShardId {
        JobId(self.0).shard()
    }

    /// The shard's own number for it.
    #[must_use]
    pub const fn sequence(self) -> u64 {
        JobId(self.0).sequence()
    }
}

impl fmt::Display for FrameworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "f{:x}", self.0)
    }
}

impl fmt::Debug for FrameworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for FrameworkId {
    type Err = protocol::ids::IdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = protocol::ids::IdError { expected: "a framework's id: 'f' and up to 16 lower-case hexadecimal digits" };
        protocol::ids::lettered('f', text).map(Self).ok_or(error)
    }
}

/// What a framework says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameworkInfo {
    /// What people call it.
    pub name: String,
    /// Whom it runs for, as it says.
    pub user: String,
    /// Whom its tasks' resources are counted for; at least one.
    pub roles: Vec<Role>,
    /// How long its tasks go on after it was last connected, in milliseconds.
    pub failover_ms: u64,
    /// Where it runs, as it says.
    pub hostname: String,
    /// Where its own page is, as it says.
    pub webui_url: String,
    /// Whoever subscribed it: the id of a token.
    pub principal: String,
    /// What it can take, in Mesos' words: unknown ones are kept and mean nothing.
    pub capabilities: Vec<String>,
    /// Facts about it.
    pub labels: Vec<(String, String)>,
}

impl FrameworkInfo {
    /// True where it is told that a task's agent is silent before the task is lost.
    #[must_use]
    pub fn is_partition_aware(&self) -> bool {
        self.has("PARTITION_AWARE")
    }

    /// True where it knows reservations that are refined for a role below.
    #[must_use]
    pub fn knows_refinement(&self) -> bool {
        self.has("RESERVATION_REFINEMENT")
    }

    /// True where it is told that a task is asked to stop.
    #[must_use]
    pub fn knows_killing(&self) -> bool {
        self.has("TASK_KILLING_STATE")
    }

    /// True where it is shown what is lent, and may be taken back from its tasks at any moment.
    #[must_use]
    pub fn takes_revocable(&self) -> bool {
        self.has(REVOCABLE)
    }

    fn has(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|known| known == capability)
    }

    /// Why it cannot be taken; `None` where it can.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        let texts = [&self.name, &self.user, &self.hostname, &self.webui_url, &self.principal].into_iter();
        let texts = texts.chain(&self.capabilities).chain(self.labels.iter().flat_map(|(name, value)| [name, value]));
        if texts.into_iter().any(|text| text.len() > TEXT_BYTES_MAX) {
            return Some(format!("a text of the framework is longer than {TEXT_BYTES_MAX} bytes"));
        }
        let most = [self.roles.len(), self.capabilities.len(), self.labels.len()].into_iter().max().unwrap_or(0);
        if self.roles.is_empty() || most > ROLES_MAX {
            return Some(format!("a framework has 1 to {ROLES_MAX} roles, and at most as many capabilities and labels"));
        }
        (self.failover_ms > FAILOVER_MS_MAX).then(|| format!("a framework may stay away for {FAILOVER_MS_MAX} ms at most"))
    }
}

/// What somebody asks of the shard that keeps a framework.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum FrameworkRequest {
    /// Tell me what concerns this framework from now on: with `Response::Framework`, as often as there is something. A later one takes the place
    /// of this.
    Subscribe {
        /// Which; `None`: a new one.
        framework: Option<FrameworkId>,
        /// What it is.
        info: FrameworkInfo,
        /// Roles that want no offers yet.
        suppressed: Vec<Role>,
        /// What it wants to be shown.
        filters: Filters,
        /// What it wants; nothing: whatever comes.
        wishes: Vec<Wish>,
        /// Drawn by whoever asks: the calls of this subscription have it.
        stream: u128,
    },
    /// The framework says something; answered with `Response::Done`.
    Call {
        /// Which.
        framework: FrameworkId,
        /// Of its subscription.
        stream: u128,
        /// Whose token it is; what another subscribed is not theirs.
        principal: String,
        /// What it says.
        call: Call,
    },
    /// Nobody reads a subscription any longer.
    Unsubscribe {
        /// Which.
        framework: FrameworkId,
        /// Its number.
        stream: u128,
    },
    /// An operator ends a framework and all its tasks.
    Teardown {
        /// Which.
        framework: FrameworkId,
    },
}

/// What a framework says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Call {
    /// These run in what these offers show, of one agent; what they leave is free again.
    Accept {
        /// Which.
        offers: Vec<OfferId>,
        /// What is to run, each within what those before it left.
        launches: Vec<TaskLaunch>,
        /// After these what is to run together: all of a group or nothing of it, and when one of it ends badly or is asked to stop, all are.
        groups: Vec<Vec<TaskLaunch>>,
        /// For how long not to show it what is left, in milliseconds.
        refuse_ms: u64,
    },
    /// It wants nothing of these.
    Decline {
        /// Which.
        offers: Vec<OfferId>,
        /// For how long not to show it so much of those agents, in milliseconds.
        refuse_ms: u64,
    },
    /// Show these roles all again, whatever was declined; none: all its roles.
    Revive(Vec<Role>),
    /// Show these roles nothing until they are revived; none: all its roles.
    Suppress(Vec<Role>),
    /// End a task.
    Kill {
        /// By its name.
        task: String,
        /// Milliseconds until it is done by force; `None`: as was said when it was placed.
        grace_ms: Option<u64>,
    },
    /// A status update was taken in.
    Acknowledge {
        /// Of which task.
        task: String,
        /// The update's number.
        uuid: u128,
    },
    /// Say in which state these are; none: all that have not ended.
    Reconcile(Vec<String>),
    /// It is another than before.
    Update {
        /// What it is now.
        info: FrameworkInfo,
        /// Roles that want no offers.
        suppressed: Vec<Role>,
        /// What it wants to be shown.
        filters: Filters,
    },
    /// It ends, with all its tasks.
    Teardown,
    /// It wants this, in place of what it wanted before; nothing: whatever comes.
    Demand(Vec<Wish>),
    /// It can, or cannot, do without its tasks on the agents of these inverse offers.
    AnswerInverse {
        /// Whether it can.
        accepted: bool,
        /// Which.
        offers: Vec<OfferId>,
    },
    /// Keep something of what these offers show, of one agent, for their role or one below it; or no longer. It holds the offers as before. Where it
    /// cannot be, nothing is done; what is shown next says how it is.
    Reserve {
        /// Which.
        offers: Vec<OfferId>,
        /// What, in order.
        changes: Vec<ReservationChange>,
    },
    /// It says something to a task of its. Once at most, and lost without a word where the task does not run or cannot be reached.
    Message {
        /// By its name.
        task: String,
        /// Where it has to be for that; `None`: wherever it is.
        agent: Option<AgentId>,
        /// What: at most [`protocol::message::MESSAGE_BYTES_MAX`].
        bytes: bytes::Bytes,
    },
}

/// A task that a framework places.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskLaunch {
    /// What the framework calls it: no other of its tasks that is not acknowledged as ended has that name.
    pub name: String,
    /// The agent that it means, for what is said of it where the offers are not there any more.
    pub agent: Option<AgentId>,
    /// How long it has to stop where nobody says otherwise, in milliseconds.
    pub grace_ms: u64,
    /// What it is: a job of one task; or why it cannot be.
    pub job: Result<Job, String>,
}

/// Resources of one agent that a framework may take some of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenOffer {
    /// Its name.
    pub id: OfferId,
    /// Whose resources.
    pub agent: AgentId,
    /// Which life of the agent.
    pub incarnation: u64,
    /// What the agent says of itself.
    pub info: Arc<AgentInfo>,
    /// For which role.
    pub role: Role,
    /// How much.
    pub resources: Resources,
    /// Ports that are not known to be taken: as many as `resources.ports`.
    pub ports: Vec<PortRange>,
    /// What of them is of reservations for the role; said beside it.
    #[serde(skip)]
    pub reserved: Vec<Reservation>,
}

impl OpenOffer {
    /// Of reservations there is no more in it than it shows.
    pub fn clip_reserved(&mut self) {
        let mut left = self.resources.clone();
        for part in &mut self.reserved {
            amounts::min(&mut part.resources, &left);
            amounts::sub(&mut left, &part.resources, 1);
        }
        self.reserved.retain(|part| !part.resources.is_none());
    }
}

/// Whether a framework can do without its tasks on an agent that is to be maintained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InverseOffer {
    /// Its name.
    pub id: OfferId,
    /// Which agent.
    pub agent: AgentId,
    /// In which window.
    pub window: u64,
    /// From when on.
    pub from: Time,
    /// Until when; `None`: until somebody ends it.
    pub until: Option<Time>,
}

/// What a framework is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum FrameworkEvent {
    /// It is subscribed, and this is its id.
    Subscribed(FrameworkId),
    /// It may take of these.
    Offers(Vec<OpenOffer>),
    /// It may take nothing of these any more.
    Rescinded(Vec<OfferId>),
    /// A task is in another state.
    Update(StatusUpdate),
    /// It is subscribed no more, and why.
    Error(String),
    /// It is another than before, as it said.
    Changed(Box<FrameworkInfo>),
    /// A task has said how far it is. Said once, and lost without harm.
    Message {
        /// What the framework calls it.
        task: String,
        /// What it is here.
        job: JobId,
        /// Where it is.
        agent: AgentId,
        /// 0 to 100.
        percent: u8,
        /// In its own words.
        text: String,
    },
    /// Agents of the offers that follow at once are not there from then, and until then.
    Unavailable(Vec<(AgentId, Time, Option<Time>)>),
    /// Can it do without its tasks on these agents?
    InverseOffers(Vec<InverseOffer>),
    /// It is not asked these any more.
    InverseRescinded(Vec<OfferId>),
}

/// The state of a task, as its framework is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusUpdate {
    /// What the framework calls it.
    pub task: String,
    /// What it is here; `None` where it never was one.
    pub job: Option<JobId>,
    /// Where it is or was, or was to be.
    pub agent: Option<AgentId>,
    /// Its state.
    pub phase: Phase,
    /// How it ended, where it has.
    pub exit: Option<Exit>,
    /// Why this is said.
    pub cause: Cause,
    /// Its ports, where it has some and they are known.
    pub ports: Vec<u16>,
    /// When it got into this state, in milliseconds of the Unix epoch.
    pub at: Time,
    /// To be acknowledged with this; `None`: not at all.
    pub uuid: Option<u128>,
}

/// Why a status update is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// The state is new.
    News,
    /// The framework asked.
    Reconciled,
    /// It was never started: the offers were not there any more.
    Offers,
    /// It was never started: it cannot be, for this reason.
    Invalid(String),
    /// There is no such task.
    Unknown,
    /// It was never started: it belongs to a group of which something cannot be, for this reason.
    Group(String),
    /// It was found to be well, or not.
    Health {
        /// Which.
        healthy: bool,
        /// Why not, for people; empty where it is.
        reason: String,
    },
}
