//! What the parts of Skep say to each other, and the one link they say it over.
//!
//! Knows names, amounts, jobs, tasks, agents, offers, messages and their bytes. Knows nothing of how a master decides or how an agent runs
//! a task, and depends on no other crate of ours.
#![forbid(unsafe_code)]

pub mod agent;
mod bounded;
pub mod checks;
pub mod devices;
pub mod frame;
pub mod identity;
pub mod ids;
pub mod interfaces;
pub mod job;
pub mod link;
pub mod message;
pub mod offer;
pub mod owner;
pub mod place;
pub mod reservation;
pub mod resources;
pub mod task;
pub mod time;

pub use agent::{AgentChange, AgentInfo, Attributes, FaultDomain};
pub use checks::{Check, Checks, Probe};
pub use devices::{Given, Singles};
pub use ids::{AgentId, AttemptId, Digest, JobId, Name, OfferId, RequestId, Role, ShardId, TaskId};
pub use job::{Job, Kind, Limits, Member, Metering, Program, Restart, Template};
pub use message::{FromAgent, FromMaster, Join, JoinReply};
pub use offer::Offer;
pub use place::{Constraint, Field, Neighbour, Placement, Rule, Stand};
pub use reservation::{Reservation, ReservedFor};
pub use resources::{Device, Lent, PortRange, Resources};
pub use task::{Exit, Health, Held, Loss, MemberId, Phase, Progress, TaskState, Update, Usage, Verdict};
pub use time::Time;
