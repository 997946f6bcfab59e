//! The time that the shards of a process are told: it starts at the Unix epoch's, and never goes back, not even where the machine's clock
//! did while the master was down, or where another master's is ahead.

use protocol::Time;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A clock. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Clock {
    /// What it showed when it was started, in milliseconds; only rises.
    base_ms: Arc<AtomicU64>,
    started: Instant,
}

impl Clock {
    /// A clock that shows this machine's time.
    pub fn start() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_ms = u64::try_from(unix.as_millis()).unwrap_or(u64::MAX);
        Self { base_ms: Arc::new(AtomicU64::new(unix_ms)), started: Instant::now() }
    }

    /// Now.
    pub fn now(&self) -> Time {
        Time(self.base_ms.load(Ordering::Relaxed)) + self.elapsed_ms()
    }

    /// Shows at least `latest` from now on.
    pub fn advance(&self, latest: Time) {
        self.base_ms.fetch_max(latest.0.saturating_sub(self.elapsed_ms()), Ordering::Relaxed);
    }

    /// When this clock shows `time`; now where it was before.
    pub fn instant(&self, time: Time) -> Instant {
        let base = Time(self.base_ms.load(Ordering::Relaxed));
        self.started + Duration::from_millis(time.since(base).min(FAR_MS))
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Further away than this is as good as never: about a year.
const FAR_MS: u64 = 32_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_put_forward_and_never_back() {
        let clock = Clock::start();
        let later = clock.now() + 1_000_000;
        clock.advance(later);
        assert!(clock.now() >= later);
        clock.advance(Time(5));
        assert!(clock.now() >= later);
        assert!(clock.instant(later + 50) > Instant::now());
    }
}
