//! The agent's clock, which the ledger's times are of.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::Time;
use runtime::executor::lease::boot_ns;

/// Milliseconds of the Unix epoch.
pub(super) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A clock that begins at the Unix time of its making and never goes back, whatever is done to the machine's; it goes on while the machine sleeps,
/// as leases do.
pub(super) struct Clock {
    start: Time,
    /// By [`boot_ns`].
    since_ns: u64,
}

impl Clock {
    /// It begins.
    pub fn start() -> Self {
        Self { start: now(), since_ns: boot_ns() }
    }

    pub fn now(&self) -> Time {
        self.start + (boot_ns() - self.since_ns) / 1_000_000
    }

    /// That moment by [`boot_ns`]. What was sent in the millisecond `time` was sent then or later.
    pub fn boot_ns(&self, time: Time) -> u64 {
        self.since_ns.saturating_add(time.since(self.start).saturating_mul(1_000_000))
    }

    pub fn at(&self, time: Time) -> tokio::time::Instant {
        let left_ns = self.boot_ns(time).saturating_sub(boot_ns());
        tokio::time::Instant::now() + Duration::from_nanos(left_ns)
    }
}
