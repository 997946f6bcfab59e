//! What the shards of a cluster say to each other: demand, offers and what becomes of them, and how agents stand. Data only.

use super::after::Stands;
use super::limits::{Need, Quota};
use super::maintenance::Window;
use super::openings::Opening;
use super::reservations::ReservationChange;
use super::roles::Claim;
use super::seekers::Seeking;
use super::shares::Uses;
use crate::frameworks::{FrameworkId, OpenOffer};
use protocol::message::Launch;
use protocol::{
    AgentId, AttemptId, Constraint, Field, Held, JobId, Name, Offer, OfferId, Placement, Reservation, Resources, Role, Stand, Time,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What the shards of a cluster say to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerMessage {
    /// A framework's shard to each agents' shard: all that its waiting tasks want, in place of what it said before.
    Demand {
        /// At most [`WANTS_MAX`], the most urgent first; what is over waits for the next.
        wants: Vec<Want>,
        /// The number of the last of the receiver's offers that these wants have counted already.
        seen: u64,
    },
    /// An agents' shard to a framework's shard: resources, held for it until their deadline.
    Offers {
        /// At least one.
        offers: Vec<Offer>,
    },
    /// The framework's shard takes an offer, wholly or in part; what it leaves is free again. Committed before it is said.
    Accept {
        /// Which.
        offer: OfferId,
        /// Whose resources.
        agent: AgentId,
        /// What is to run; sessions and sequences are the agents' shard's to fill in.
        launches: Vec<Launch>,
        /// Rises with each `Accept` and `Stage` of the sender.
        number: u64,
    },
    /// The framework's shard takes nothing of these.
    Decline {
        /// Which.
        offers: Vec<OfferId>,
    },
    /// The answer to each `Report`: what is on record for the agent and is to be there, whether it holds it or not; perhaps nothing. As
    /// `Accept`, without an offer.
    Stage {
        /// Which agent.
        agent: AgentId,
        /// From the report that this answers: in another session the agent may be another incarnation, and reports anew.
        session: u64,
        /// What is to run.
        launches: Vec<Launch>,
        /// As in `Accept`.
        number: u64,
    },
    /// These could not be given to the agent: the offer was over or did not hold. They are to be placed again.
    Refused {
        /// Where they would have been.
        agent: AgentId,
        /// Which.
        attempts: Vec<AttemptId>,
    },
    /// These have ended, on record: what they held is free.
    Release {
        /// Where they were.
        agent: AgentId,
        /// Which.
        attempts: Vec<AttemptId>,
    },
    /// These are to be stopped.
    Kill {
        /// Where they are.
        agent: AgentId,
        /// Which.
        attempts: Vec<AttemptId>,
        /// Milliseconds from the request until it is done by force.
        grace_ms: u64,
    },
    /// What an agent holds of the receiver's tasks: whatever the receiver believes there beyond it is not there.
    Report {
        /// Which agent.
        agent: AgentId,
        /// The session in which it holds them.
        session: u64,
        /// Which life of the agent: what was given to it in an earlier one and is not held was lost with its machine; what was given to it
        /// in this one and is not held, it never took.
        incarnation: u64,
        /// All that it holds of the receiver's.
        held: Vec<Held>,
        /// The highest number of the receiver's that was heard before: what it said later of the agent may be there all the same.
        seen: u64,
    },
    /// An agent is silent, or back without a report (`reachable`).
    Reachable {
        /// Which.
        agent: AgentId,
        /// Whether it can be reached.
        reachable: bool,
    },
    /// An agent's tasks are to be replaced: it was silent for `replace_after`, or is gone for good.
    Lost {
        /// Which.
        agent: AgentId,
        /// True where an operator said that it never comes back.
        gone: bool,
    },
    /// A leader of the sender begins, and knows only what is on record: offers to it are void, its demand is to be said anew, and so is what
    /// the receiver's agents hold of its tasks.
    Led,
    /// A framework's shard to each agents' shard: all frameworks that take offers, in place of what it said before.
    Open {
        /// They, each role of each for itself.
        openings: Vec<Opening>,
    },
    /// An agents' shard to a framework's shard: what its agents have free, to be taken until it is rescinded.
    Shown {
        /// For which framework.
        framework: FrameworkId,
        /// At least one.
        offers: Vec<OpenOffer>,
    },
    /// An agents' shard to a framework's shard: these hold no more.
    Rescinded {
        /// Whose.
        framework: FrameworkId,
        /// Which.
        offers: Vec<OfferId>,
    },
    /// A framework takes some of these offers, all of one agent. As `Accept`.
    Take {
        /// Which framework.
        framework: FrameworkId,
        /// Which offers.
        offers: Vec<OfferId>,
        /// Whose resources.
        agent: AgentId,
        /// What is to run.
        launches: Vec<Launch>,
        /// As in `Accept`.
        number: u64,
        /// For how long not to show it what it left, in milliseconds.
        refuse_ms: u64,
    },
    /// A framework wants nothing of these.
    Leave {
        /// Which framework.
        framework: FrameworkId,
        /// Which offers.
        offers: Vec<OfferId>,
        /// For how long not to show it so much of those agents, in milliseconds.
        refuse_ms: u64,
    },
    /// An agents' shard to a framework's shard: all its agents that are emptied, in place of what it said before.
    Emptied {
        /// Which, how many milliseconds a task has to stop, and whether tasks of batch jobs are to stop too.
        agents: Vec<(AgentId, u64, bool)>,
    },
    /// An agents' shard to each other: what its agents have and what roles hold there, in place of what it said before.
    Uses(Uses),
    /// A framework wants to see all again, whatever it declined.
    Revive {
        /// For which of its roles.
        opening: Opening,
    },
    /// Shard 0 to each: how roles are served that are so otherwise than by default, in place of what it said before.
    Claims {
        /// They.
        claims: Vec<(Role, Claim)>,
    },
    /// Shard 0 to a framework's shard: how much its live tasks of a role may hold.
    Allow {
        /// Which role.
        role: Role,
        /// Rises with each grant.
        version: u64,
        /// How much; empty: the role has no limit.
        limit: Quota,
    },
    /// A framework's shard to shard 0: it has that grant on record, and holds and wants so much.
    Spends {
        /// Which role.
        role: Role,
        /// Of the grant.
        version: u64,
        /// What it holds and wants.
        need: Need,
    },
    /// As `Demand`, of tasks that may not go everywhere, in place of what was said of such before.
    DemandPlaced {
        /// At most [`WANTS_MAX`], the most urgent first.
        wants: Vec<PlacedWant>,
        /// As in `Demand`.
        seen: u64,
    },
    /// As `Offers`, for such tasks.
    OffersPlaced {
        /// At least one.
        offers: Vec<PlacedOffer>,
    },
    /// An agents' shard to a framework's shard: no agent of its has room for these while they are spread as they are.
    Stuck {
        /// The wants and their turns.
        wants: Vec<(u64, u64)>,
    },
    /// A framework's shard to an agents' shard, before an `Accept` or a `Stage`: the priorities of the jobs in it, where they are not 50.
    Ranks {
        /// By job.
        ranks: Vec<(JobId, u8)>,
    },
    /// An agents' shard to a framework's shard: the place of these is needed for a task of a higher priority. They are to stop, and to wait for
    /// another place.
    Yield {
        /// Where they are.
        agent: AgentId,
        /// Which.
        attempts: Vec<AttemptId>,
        /// Of jobs of this priority or above, none is.
        below: u8,
        /// Milliseconds that they have.
        grace_ms: u64,
    },
    /// A framework's shard to each agents' shard: what frameworks that take offers want, in place of what was said of these before.
    Seek {
        /// They, each role of each for itself.
        seeking: Vec<Seeking>,
    },
    /// Shard 0 to each: all windows in which agents are maintained, in place of what it said before.
    Windows {
        /// They, by number.
        windows: Vec<Window>,
    },
    /// As `Shown`, of offers some of which are of reservations.
    ShownReserved {
        /// For which framework.
        framework: FrameworkId,
        /// At least one; with each what of it is of which reservation.
        offers: Vec<(OpenOffer, Vec<Reservation>)>,
    },
    /// A framework makes reservations out of what these offers show, all of one agent, or gives some up. Before the `Take` of the same offers.
    Reserve {
        /// Which framework.
        framework: FrameworkId,
        /// Whose resources.
        agent: AgentId,
        /// Which offers.
        offers: Vec<OfferId>,
        /// What changes, in order.
        changes: Vec<ReservationChange>,
        /// Who asks.
        principal: String,
    },
    /// A framework's shard to each agents' shard, before `Open`: those of its frameworks that are shown what is lent, in place of what it said before.
    Revocable {
        /// They.
        frameworks: Vec<FrameworkId>,
    },
    /// As `Refused`, of what found no single devices on the agent: there was enough, in parts that are too small.
    Misfits {
        /// Where they would have been.
        agent: AgentId,
        /// Which.
        attempts: Vec<AttemptId>,
    },
    /// A framework's shard to those of jobs that one of its begins after: how do they stand?
    AfterAsked {
        /// The job that waits.
        job: JobId,
        /// Of which role they are.
        role: Role,
        /// Their names.
        names: Vec<Name>,
    },
    /// The answer.
    AfterSaid {
        /// The job that waits.
        job: JobId,
        /// How they stand.
        stands: Vec<(Name, Stands)>,
    },
    /// A framework's shard to those of jobs that some of its tasks are kept near or apart: who is called so?
    BesideAsked {
        /// Of which role they are.
        role: Role,
        /// Their names.
        names: Vec<Name>,
    },
    /// The answer.
    BesideSaid {
        /// Of which role they are.
        role: Role,
        /// The live jobs that are called so; `None`: there is none.
        ids: Vec<(Name, Option<JobId>)>,
    },
    /// A framework's shard to each agents' shard: its system jobs, in place of what it said before. Which agents match?
    MatchesAsked {
        /// They.
        asked: Vec<MatchAsked>,
    },
    /// The answer, and what is otherwise since.
    MatchesSaid {
        /// The job.
        job: JobId,
        /// From the question.
        turn: u64,
        /// True: this is of all agents of the sender, in place of what it said before.
        whole: bool,
        /// Agents that match.
        matching: Vec<AgentId>,
        /// Those that do, and may keep a task and are given none: who knows whether they are here.
        perhaps: Vec<AgentId>,
        /// Where it is not of all: those that matched and do no longer.
        others: Vec<AgentId>,
    },
    /// The agents' shard to itself, behind the record that says so: what is kept of an agent is what it was at this time, and what was given up
    /// until then is anybody's.
    Reserved {
        /// Of which agent.
        agent: AgentId,
        /// From the record.
        at: Time,
    },
    /// A framework's shard to an agents' shard, before a `Stage`: the jobs in it whose tasks are kept near or apart. What of them is not there is not launched.
    Tied {
        /// They.
        jobs: Vec<JobId>,
    },
}

/// Which agents are to have a task of a system job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchAsked {
    /// The job.
    pub job: JobId,
    /// Another one each time that something else is asked of a job.
    pub turn: u64,
    /// What an agent must be.
    pub constraints: Vec<Constraint>,
    /// What it must have some of.
    pub devices: Vec<Name>,
}

/// Tasks of one shape that wait, and may not go everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedWant {
    /// Given back with offers; above 0, and never given twice by one leader.
    pub id: u64,
    /// As of any others.
    pub want: Want,
    /// What each agent must be.
    pub place: Arc<Placement>,
    /// How many tasks the values of fields take; empty where it does not matter where other tasks of the job are.
    pub limits: Arc<Vec<Limit>>,
    /// Where they are spread further than need be, or each for an agent of its own: to be given back where no agent has room.
    pub turn: Option<u64>,
    /// Of a system job: the agents that are to have one each, of the shard that this is said to.
    pub agents: Option<Arc<Vec<AgentId>>>,
}

/// How many tasks each value of a field takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Which field.
    pub field: Field,
    /// True where an agent without it counts as one with the empty value.
    pub missing: bool,
    /// A value that is not among `left`.
    pub most: u32,
    /// Values that take another number, at most [`LEFT_MAX`].
    pub left: Vec<(String, u32)>,
}

impl Limit {
    /// How many tasks an agent takes whose field has this value.
    #[must_use]
    pub fn of(&self, value: &str) -> u32 {
        let known = self.left.binary_search_by(|(known, _)| known.as_str().cmp(value));
        known.map_or(self.most, |at| self.left[at].1)
    }

    /// The value that counts of an agent; `None` where it may have no task.
    #[must_use]
    pub fn value<'a>(&self, stand: &'a Stand) -> Option<&'a str> {
        self.field.of(stand).or(if self.missing { Some("") } else { None })
    }
}

/// An offer for such tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedOffer {
    /// The offer.
    pub offer: Offer,
    /// For which want.
    pub want: u64,
    /// How its agent stands.
    pub stand: Arc<Stand>,
}

/// Most values of one limit: a want of more is told less, and more of what it is offered is declined.
pub const LEFT_MAX: usize = 4_096;
/// Most wants in one demand.
pub const WANTS_MAX: usize = 1_024;

/// Tasks of one shape that wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// For which role.
    pub role: Role,
    /// Their jobs' priority.
    pub priority: u8,
    /// What each of them needs.
    pub shape: Resources,
    /// How many there are; at least 1.
    pub count: u32,
}
