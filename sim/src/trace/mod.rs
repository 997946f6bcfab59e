//! What the policy of placement does with a recorded cluster. Knows the published experiment and the recorded arrivals of openb; no shard.

pub mod allocation;
pub mod fit;
pub mod openb;
mod plot;
pub mod policy;
pub mod read;
pub mod recorded;

pub use policy::Policy;
