//! The door of the master: sockets, disk and clock on one side, shards on the other.

pub mod door;
mod inbox;

pub use door::{Busy, Door};

use crate::shard::ShardConfig;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Shards of a cluster whose maker did not say.
pub const SHARDS_DEFAULT: u16 = 8;

/// How a master is started.
#[derive(Clone, Debug)]
pub struct MasterConfig {
    /// Where all that lasts is kept; made where it is missing.
    pub data_dir: PathBuf,
    /// Where HTTP is served; port 0: any.
    pub http_addr: SocketAddr,
    /// Where agents connect, over QUIC; port 0: any.
    pub quic_addr: SocketAddr,
    /// How many shards a new cluster gets; an old one keeps its number.
    pub shards: u16,
    /// How many threads decide; `None`: a quarter of the cores, 1 to 16.
    pub threads: Option<usize>,
    /// Names and addresses that clients and agents may call this master by, for its certificate.
    pub hosts: Vec<String>,
    /// Times and limits of the shards; `id` and `shards` are filled in for each.
    pub shard_config: ShardConfig,
}
