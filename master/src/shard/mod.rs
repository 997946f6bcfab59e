//! One shard: who is here, what is shown to whom, where each task is. Pure: an event and the time in, things to do out.
//!
//! Knows no clock, socket, disk or thread. This file keeps dispatch only; what an event does stands in the file named after it.

pub mod config;
pub mod event;
pub mod record;
pub mod snapshot;
pub mod view;

pub use config::ShardConfig;
pub use event::{Action, Event, Output, PeerMessage, Refusal, Request, Response};
pub use record::Record;
pub use snapshot::ShardSnapshot;

use protocol::Time;
use std::collections::VecDeque;

/// A shard: the part of the cluster that one thread decides for.
pub struct Shard {
    config: ShardConfig,
    outputs: VecDeque<Output>,
}

impl Shard {
    /// A shard that knows nothing yet: fold its records into it with [`Self::apply`], then [`Self::lead`].
    #[must_use]
    pub fn new(config: ShardConfig) -> Self {
        Self { config, outputs: VecDeque::new() }
    }

    /// What it was told when it was made.
    #[must_use]
    pub const fn config(&self) -> &ShardConfig {
        &self.config
    }

    /// Folds one committed record in: the only way lasting state changes. Recovery and followers call it; `handle` does itself.
    pub fn apply(&mut self, _record: &Record) {}

    /// This replica decides from now on. Known agents get one full timeout before any of them is called unreachable or lost.
    pub fn lead(&mut self, _now: Time) {}

    /// Takes one fact in; what follows from it comes out of [`Self::poll_output`].
    pub fn handle(&mut self, _now: Time, _event: Event) {}

    /// The next thing to do, in order; `None` where there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to come back with [`Event::Tick`]; `None`: not before something else happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        None
    }

    /// Its lasting state, for [`Self::restore`].
    #[must_use]
    pub fn snapshot(&self) -> ShardSnapshot {
        ShardSnapshot { version: record::RECORD_VERSION }
    }

    /// The shard whose lasting state `snapshot` is.
    #[must_use]
    pub fn restore(config: ShardConfig, _snapshot: ShardSnapshot) -> Self {
        Self::new(config)
    }

    /// A number for its lasting state: equal states have equal ones.
    #[must_use]
    pub fn hash(&self) -> u64 {
        0
    }
}
