//! The clock of one master as the simulator plays it: it differs from the true time, and runs up to one part in a hundred too fast or too
//! slow, for a while each.

use crate::random::Random;
use protocol::Time;

/// The most that a clock is ahead of another one when both are right.
const OFFSET_MS_MAX: u64 = 1_000;
/// The most that a clock gains or loses, in parts of a million.
const RATE_PPM_MAX: u64 = 10_000;
/// How long it gains, and then loses again, in milliseconds.
const TURN_MS: u64 = 60_000;

/// A clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset_ms: u64,
    rate_ppm: u64,
    late_ms: u64,
}

impl Clock {
    /// One that shows the true time.
    pub const TRUE: Self = Self { offset_ms: 0, rate_ppm: 0, late_ms: 0 };

    /// Some clock.
    pub fn draw(random: &mut Random) -> Self {
        let offset_ms = random.below(OFFSET_MS_MAX + 1);
        Self { offset_ms, rate_ppm: random.below(RATE_PPM_MAX + 1), late_ms: random.below(2 * TURN_MS) }
    }

    /// What it shows at `now`.
    #[must_use]
    pub const fn show(&self, now: Time) -> Time {
        let phase = (now.0 + self.late_ms) % (2 * TURN_MS);
        let gained = if phase < TURN_MS { phase } else { 2 * TURN_MS - phase };
        Time(now.0 + self.offset_ms + gained * self.rate_ppm / 1_000_000)
    }

    /// The first moment, not before `now`, at which it shows `shown` or more.
    #[must_use]
    pub fn when(&self, now: Time, shown: Time) -> Time {
        let mut at = now;
        while self.show(at) < shown {
            at = at + (shown.since(self.show(at)) * 99 / 100).max(1);
        }
        at
    }
}
