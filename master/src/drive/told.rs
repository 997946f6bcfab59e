//! What those who watch are told, numbered by the master that says it: whoever hears can see what he has not heard.

use crate::shard::event::Change;
use protocol::ShardId;
use serde::{Deserialize, Serialize};

/// One life of a master, from a start to its end: it numbers all that it tells from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Life {
    /// Which master.
    pub master: u64,
    /// When it started, in milliseconds of the Unix epoch.
    pub since: u64,
}

/// One thing that is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Told {
    /// By whom.
    pub life: Life,
    /// Its number; of [`What::Nothing`] that of the last thing before it.
    pub number: u64,
    /// What.
    pub what: What,
}

/// What is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum What {
    /// Something has changed, and that is on record.
    Change(Change),
    /// A shard is led anew: what its leader before told last may have been lost with it.
    Led(ShardId),
    /// Nothing but how much was told before, to a master that comes or comes again.
    Nothing,
}

impl Told {
    /// The number of what was told before it.
    #[must_use]
    pub const fn before(&self) -> u64 {
        match self.what {
            What::Nothing => self.number,
            What::Change(_) | What::Led(_) => self.number.saturating_sub(1),
        }
    }

    /// The change, where it is one.
    #[must_use]
    pub const fn change(&self) -> Option<&Change> {
        match &self.what {
            What::Change(change) => Some(change),
            What::Led(_) | What::Nothing => None,
        }
    }
}
