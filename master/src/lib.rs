//! The cluster: shards that decide, the built-in framework, journal and HTTP API.
#![forbid(unsafe_code)]

pub mod admit;
pub mod drive;
pub mod frameworks;
pub mod http;
pub mod jobs;
pub mod journal;
pub mod logging;
pub mod names;
mod peers;
mod place;
pub mod plan;
pub mod plugins;
pub mod shard;
pub mod travel;
