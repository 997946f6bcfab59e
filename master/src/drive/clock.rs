//! The time that the shards of a process are told: it starts at the Unix epoch's, and never goes back, not even where the machine's clock
//! did while the master was down.

use protocol::Time;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A clock. Copies show the same time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: Time,
    started: Instant,
}

impl Clock {
    /// A clock that shows this machine's time, or `latest` where that is later.
    pub fn start(latest: Time) -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix = Time(u64::try_from(unix.as_millis()).unwrap_or(u64::MAX));
        Self { base: unix.max(latest), started: Instant::now() }
    }

    /// Now.
    pub fn now(&self) -> Time {
        self.base + u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// When this clock shows `time`; now where it was before.
    pub fn instant(&self, time: Time) -> Instant {
        self.started + std::time::Duration::from_millis(time.since(self.base).min(FAR_MS))
    }
}

/// Further away than this is as good as never: about a year.
const FAR_MS: u64 = 32_000_000_000;
