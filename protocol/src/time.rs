//! Milliseconds. Knows no clock: whoever drives pure code hands it the time.

use serde::{Deserialize, Serialize};
use std::{fmt, ops};

/// A moment, in milliseconds since a start that the driver chose: the Unix epoch where it is stored or shown, the start of a process or of
/// a simulation where only differences matter. Never goes back inside one driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(pub u64);

impl Time {
    /// The earliest moment.
    pub const ZERO: Self = Self(0);

    /// Milliseconds from `earlier` until this moment; zero where `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl ops::Add<u64> for Time {
    type Output = Self;

    /// This moment and `ms` milliseconds; saturates.
    fn add(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1_000, self.0 % 1_000)
    }
}
