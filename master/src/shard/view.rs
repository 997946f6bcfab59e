//! What a shard shows of itself: questions and answers, data only. The HTTP API says them in JSON as they stand here.

use super::after::Stands;
use super::copy::Copied;
use super::deployment_view::{DeploymentView, VersionView};
use super::event::{JobRef, Limit, Master, Policy, Token, Word};
use super::maintenance::{ConsentView, Window};
use super::origins::OriginView;
use super::plugins::PlugInsView;
use super::quotas::RoleSettings;
use super::reservations::ReservedView;
use crate::frameworks::{FrameworkId, FrameworkView, OwnView};
use protocol::task::{Usage, Verdict};
use protocol::{AgentId, AgentInfo, AttemptId, Exit, Job, JobId, Name, OfferId, Phase, Placement, Resources, Role, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most rows of one answer.
pub const PAGE_MAX: usize = 1_000;

/// A question.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum View {
    /// Jobs, by id.
    Jobs {
        /// Only those of this role.
        role: Option<Role>,
        /// Only those with an id above this.
        after: Option<JobId>,
        /// At most this many, and at most [`PAGE_MAX`].
        limit: usize,
        /// False: only those that have not ended.
        ended: bool,
    },
    /// One job.
    Job(JobRef),
    /// The tasks of one job, by index.
    Tasks {
        /// Which job.
        job: JobRef,
        /// From this index on.
        from: u32,
        /// At most this many, and at most [`PAGE_MAX`].
        limit: usize,
        /// Only those in one of these states; empty: all.
        phases: Vec<Phase>,
    },
    /// Why tasks of a job wait, or where one is and why.
    Explain {
        /// Which job.
        job: JobRef,
        /// Only this task.
        index: Option<u32>,
    },
    /// Why a shape fits or does not fit this shard's agents: the other half of an explanation, asked of every shard.
    ExplainShape {
        /// The role that would hold it.
        role: Role,
        /// What is needed.
        shape: Resources,
    },
    /// The shard's agents, by id.
    Agents,
    /// The tokens, without secrets; shard 0 only.
    Tokens,
    /// The policies of roles; shard 0 only.
    Policies,
    /// Counts, for figures.
    Figures,
    /// The masters; shard 0 only.
    Masters,
    /// The frameworks that the shard keeps, by id.
    Frameworks,
    /// How roles are served, of shard 0, and what they hold.
    Roles,
    /// As [`Self::ExplainShape`], of tasks that may not go everywhere.
    ExplainPlaced {
        /// The role that would hold it.
        role: Role,
        /// What is needed.
        shape: Resources,
        /// Where it may go.
        place: Placement,
        /// How many tasks values take now, from [`Self::Limits`].
        limits: Vec<Limit>,
    },
    /// How many more tasks of a job each value of a field takes, where its placement counts them.
    Limits {
        /// Which job.
        job: JobRef,
    },
    /// Tasks of a framework that have not ended, and those whose end it has not acknowledged, by name.
    FrameworkTasks {
        /// Whose.
        framework: FrameworkId,
        /// From this name on.
        from: String,
        /// Without the first so many of these.
        skip: usize,
        /// At most this many, and at most [`PAGE_MAX`].
        limit: usize,
    },
    /// How a framework stands, of the shard that keeps it.
    Session {
        /// Which.
        framework: FrameworkId,
    },
    /// Why the shard's agents are not shown to a framework.
    Openings {
        /// Which.
        framework: FrameworkId,
    },
    /// What an offer to a framework is, of the shard of its agent.
    Offer {
        /// Which.
        offer: OfferId,
    },
    /// The windows of maintenance; shard 0 only.
    Windows,
    /// What the shard's frameworks have answered to inverse offers.
    Consents,
    /// The shard as it stands, for a copy of the cluster.
    Copy {
        /// Refused where it has more live tasks or jobs.
        tasks_max: u64,
    },
    /// Plug-ins: on shard 0 those on record, on each shard how those that order agents fare.
    PlugIns,
    /// What is kept of the shard's agents for roles.
    Reserved,
    /// How much of each single device of the shard's agents is free.
    Devices,
    /// Attempts that are promised on an agent of the shard.
    Attempts {
        /// Which.
        agent: AgentId,
    },
    /// How many tasks of jobs with checks are well.
    HealthCounts {
        /// Which jobs, at most [`PAGE_MAX`].
        jobs: Vec<JobId>,
    },
    /// Whether tasks of a job are well that run and have checks.
    Healths {
        /// Which job.
        job: JobRef,
        /// Which tasks, by index: at most [`PAGE_MAX`].
        indexes: Vec<u32>,
    },
    /// Deployments: the last of each job, by job.
    Deployments {
        /// Only that of this job.
        job: Option<JobRef>,
        /// Only those of this role.
        role: Option<Role>,
        /// False: only those that are under way.
        ended: bool,
    },
    /// The versions of a service that are kept.
    Versions(JobRef),
    /// What a job still waits for that it begins after.
    After(JobRef),
    /// Whether agents of the shard have room for a task each.
    Rooms {
        /// The role that would hold it.
        role: Role,
        /// What is needed.
        shape: Resources,
        /// Which agents, at most [`PAGE_MAX`].
        agents: Vec<AgentId>,
    },
    /// What made these jobs of what, and which ports those have that they ask for by number.
    Origins(Vec<JobId>),
}

/// An answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Viewed {
    /// To [`View::Jobs`].
    Jobs(Vec<JobView>),
    /// To [`View::Job`].
    Job(Box<JobView>),
    /// To [`View::Tasks`].
    Tasks(Vec<TaskView>),
    /// To [`View::Explain`].
    Explain(Explanation),
    /// To [`View::ExplainShape`].
    Shape(ShapeView),
    /// To [`View::Agents`].
    Agents(Vec<AgentView>),
    /// To [`View::Tokens`].
    Tokens(Vec<Token>),
    /// To [`View::Policies`]: of roles that have one, by name.
    Policies(Vec<(Role, Policy)>),
    /// To [`View::Figures`].
    Figures(Figures),
    /// To [`View::Masters`]: by number.
    Masters(Vec<Master>),
    /// To [`View::Frameworks`].
    Frameworks(Vec<FrameworkView>),
    /// To [`View::Roles`].
    Roles(RolesView),
    /// To [`View::Limits`].
    Limits(Vec<Limit>),
    /// To [`View::FrameworkTasks`].
    FrameworkTasks(Vec<OwnView>),
    /// To [`View::Session`].
    Session(SessionView),
    /// To [`View::Openings`]: of the roles for which it takes offers there.
    Openings(Vec<OpeningView>),
    /// To [`View::Offer`].
    Offer(OfferView),
    /// To [`View::Windows`].
    Windows(Vec<Window>),
    /// To [`View::Consents`].
    Consents(Vec<ConsentView>),
    /// To [`View::Copy`].
    Copy(Box<Copied>),
    /// To [`View::PlugIns`].
    PlugIns(PlugInsView),
    /// To [`View::Reserved`].
    Reserved(Vec<ReservedView>),
    /// To [`View::Devices`]: of agents that have some that are told apart.
    Devices(Vec<(AgentId, DevicesFree)>),
    /// To [`View::Attempts`]: by id, at most [`ATTEMPTS_MAX`].
    Attempts(Vec<AttemptId>),
    /// To [`View::HealthCounts`]: of those that have checks.
    HealthCounts(Vec<(JobId, HealthCounts)>),
    /// To [`View::Healths`], by index.
    Healths(Vec<(u32, HealthView)>),
    /// To [`View::Deployments`].
    Deployments(Vec<DeploymentView>),
    /// To [`View::Versions`]: by number.
    Versions(Vec<VersionView>),
    /// To [`View::After`]: their names, and how they stand.
    After(Vec<(Name, Stands)>),
    /// To [`View::Rooms`]: of those that there are, what people call it, and why it has none; empty where it has.
    Rooms(Vec<(AgentId, String, String)>),
    /// To [`View::Origins`]: in the order of the question, of as many as a mebibyte has room for.
    Origins(Vec<OriginView>),
}

/// How many tasks of a job run and have checks, by what is known of those.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCounts {
    /// All of them succeed.
    pub healthy: u32,
    /// Some have not succeeded yet, or nothing is known yet.
    pub unready: u32,
    /// Some fail.
    pub unhealthy: u32,
}

/// Whether a task is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthView {
    /// What was found.
    pub verdict: Verdict,
    /// Why not, for people; empty where it is, or where nothing is known yet.
    pub reason: String,
}

/// Most attempts of one answer to [`View::Attempts`].
pub const ATTEMPTS_MAX: usize = 10_000;

/// How much of each single device of an agent is free, in thousandths: by kind, and in the order of their numbers.
pub type DevicesFree = Vec<(Name, Vec<u32>)>;

/// How a framework stands with the shard that keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    /// True where it is subscribed.
    pub connected: bool,
    /// Roles for which it wants no offers.
    pub suppressed: Vec<Role>,
    /// Roles of whose limits nothing is left.
    pub limited: Vec<Role>,
    /// True where it says what it wants.
    pub demands: bool,
    /// What, the most urgent first.
    pub wishes: Vec<WishView>,
    /// How many offers it holds.
    pub offers: usize,
}

/// What a framework wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WishView {
    /// For which role.
    pub role: Role,
    /// 0 to 100.
    pub priority: u8,
    /// How many it still wants to place.
    pub count: u32,
    /// For how many of these it holds offers.
    pub held: u32,
    /// What each needs.
    pub shape: Resources,
    /// What an agent must be, as in a job file.
    pub constraints: Vec<String>,
}

/// How a role of a framework stands with an agents' shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpeningView {
    /// Which role.
    pub role: Role,
    /// Agents of the shard.
    pub agents: u32,
    /// Of these, those of which it holds an offer.
    pub shown: u32,
    /// How many of the others are not shown to it, by why.
    pub reasons: BTreeMap<String, u32>,
    /// The role's dominant share, in millionths.
    pub role_share_ppm: u64,
    /// How many others that take offers are served before it.
    pub ahead: u32,
    /// True where it has not answered the last that it was shown: it is shown one thing at a time while others take the rest.
    pub owes: bool,
}

/// An offer to a framework.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferView {
    /// Its id.
    pub id: OfferId,
    /// To which framework.
    pub framework: FrameworkId,
    /// For which role.
    pub role: Role,
    /// Of which agent.
    pub agent: AgentId,
    /// What people call that.
    pub name: String,
    /// What it shows.
    pub resources: Resources,
    /// When it was made.
    pub since: Time,
    /// When it lapses; `None`: not while nobody else would take it.
    pub until: Option<Time>,
    /// True where its framework had said that it wants this.
    pub wanted: bool,
    /// Who else would be shown it.
    pub waiting: Vec<(FrameworkId, Role)>,
}

/// Roles as one shard knows them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RolesView {
    /// How those are served that are so otherwise than by default; shard 0 only.
    pub settings: Vec<(Role, RoleSettings)>,
    /// What the live tasks of the shard's jobs are promised, by role with all that is below it.
    pub spent: Vec<(Role, Resources)>,
    /// What the shard's agents have.
    pub total: Resources,
}

/// A job as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobView {
    /// Its id.
    pub id: JobId,
    /// What it is.
    pub job: Job,
    /// Its version: 1, and 1 more for each time it was applied anew.
    pub version: u32,
    /// True where it is being stopped.
    pub stopping: bool,
    /// When it was submitted.
    pub submitted: Time,
    /// When it ended, where it has.
    pub ended: Option<Time>,
    /// How many of its tasks are in which state; states without a task are left out.
    pub tasks: BTreeMap<Phase, u32>,
    /// How many attempts have ended and were followed by another.
    pub restarts: u64,
}

/// A task as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskView {
    /// Its index.
    pub index: u32,
    /// Its last attempt; 0 where there was none.
    pub attempt: u32,
    /// Its state.
    pub phase: Phase,
    /// Where its last attempt is or was.
    pub agent: Option<AgentId>,
    /// When it got into this state, as far as that is on record.
    pub since: Time,
    /// How its last attempt ended, where it has.
    pub exit: Option<Exit>,
    /// What its last attempt used, where it has ended.
    pub usage: Option<Usage>,
    /// When it is started again, where it waits for that.
    pub retry_at: Option<Time>,
    /// The job's version that its last attempt runs.
    pub version: u32,
    /// Its ports, in the order of its template's names, while it runs.
    pub ports: Vec<u16>,
    /// How far it says that it is, 0 to 100, and in its own words, while it runs.
    pub progress: Option<(u8, String)>,
}

/// Why tasks wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The job.
    pub job: JobId,
    /// Its role.
    pub role: Role,
    /// What each task needs.
    pub shape: Resources,
    /// How many wait for resources.
    pub waiting: u32,
    /// How many wait until their backoff is over, and when the first of them is.
    pub backing_off: u32,
    /// When the first of those is started again.
    pub retry_at: Option<Time>,
    /// How many tasks of the role in this shard are before them, by priority and age.
    pub ahead: u64,
    /// The task asked for, where one was.
    pub task: Option<TaskView>,
}

/// What stands before a rule in [`ShapeView::short`].
pub const NOT_THERE: &str = "place: ";

/// What stands before a kind in [`ShapeView::short`] of which there is enough, in parts that are too small.
pub const SINGLE: &str = "single: ";

/// How a shape fits the agents of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShapeView {
    /// Agents of the shard.
    pub agents: u32,
    /// Of these, those that have room for one now.
    pub fitting: u32,
    /// Of these, those that would have room if nothing else ran there.
    pub would_fit_empty: u32,
    /// How many agents are short of what now: `cpu`, `memory`, … or `unreachable`; behind [`NOT_THERE`] which rule lets no task go to them, and behind
    /// [`SINGLE`] a device of which no single one has so much free.
    pub short: BTreeMap<String, u32>,
    /// The most that one agent has free of each plain kind, over the agents that can be reached.
    pub largest_free: Resources,
    /// The most that one agent has in all of each plain kind.
    pub largest_capacity: Resources,
    /// The smallest change to the shape that would fit now, for people; empty where it fits or none is known.
    pub change: String,
    /// The role's dominant share on this shard's agents, in millionths.
    pub role_share_ppm: u64,
}

/// An agent as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentView {
    /// Its id.
    pub id: AgentId,
    /// What it said of itself.
    pub info: AgentInfo,
    /// `reachable`, `unreachable`, `expected` (known from the records and not heard of since the master's start) or `gone`.
    pub state: Word,
    /// `active`, `inactive` (it is given no other tasks), `draining` (it is emptied), `drained`, or `maintenance`.
    pub mode: Word,
    /// What is promised on it, offers included.
    pub allocated: Resources,
    /// How many attempts are promised on it.
    pub attempts: u32,
    /// When it was last heard of.
    pub heard: Time,
}

/// Counts of one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Jobs that have not ended.
    pub jobs_live: u64,
    /// Jobs that have, and are kept.
    pub jobs_ended: u64,
    /// Tasks that wait.
    pub tasks_waiting: u64,
    /// Tasks that are on an agent.
    pub tasks_live: u64,
    /// Tasks that have ended, and are kept.
    pub tasks_ended: u64,
    /// Agents that can be reached.
    pub agents_reachable: u64,
    /// Agents that cannot.
    pub agents_unreachable: u64,
    /// Offers that are out.
    pub offers: u64,
    /// Attempts staged since the shard's start.
    pub staged_total: u64,
    /// Attempts ended since the shard's start.
    pub ended_total: u64,
    /// Attempts that agents or agents' shards refused since the shard's start.
    pub refused_total: u64,
}
