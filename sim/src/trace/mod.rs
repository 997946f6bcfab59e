//! What the policy of placement does with a recorded cluster. Knows the published experiment and the recorded arrivals of openb; no shard.

pub mod allocation;
pub mod openb;
mod plot;
pub mod policy;
pub mod read;
pub mod real;
pub mod recorded;

pub use master::shard::fit;
pub use policy::Policy;
