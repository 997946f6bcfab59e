//! The lease of a fenced task: the moment at which its executor ends it unless whoever owns it has said a later one. Nobody else need live for that.
//!
//! The moment is one of this machine's clock since its start (`CLOCK_BOOTTIME`, clock_gettime(2)), which all its processes share, nobody can set,
//! and which goes on while the machine sleeps. A renewal that is late on its way is thereby no longer one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// So often an executor looks whether a lease is over, at least: its other timers stand still while the machine sleeps.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Nanoseconds since this machine was started, its sleep included.
#[must_use]
pub fn boot_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Until when a task may run; what is over stays over.
#[derive(Debug)]
pub(super) struct Lease(AtomicU64);

impl Lease {
    /// Until `until_ns`, by [`boot_ns`].
    pub(super) const fn new(until_ns: u64) -> Self {
        Self(AtomicU64::new(until_ns))
    }

    /// Holds until `until_ns` from now on, if it holds now and not for longer.
    pub(super) fn renew(&self, until_ns: u64) {
        let now = boot_ns();
        // One that is over, or holds for longer, is left as it is.
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |held| (held > now && until_ns > held).then_some(until_ns));
    }

    /// How long it still holds; `None`: it is over.
    pub(super) fn left(&self) -> Option<Duration> {
        let left_ns = self.0.load(Ordering::SeqCst).checked_sub(boot_ns())?;
        (left_ns > 0).then_some(Duration::from_nanos(left_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_renewed_while_it_holds_and_never_after() {
        let hour = Duration::from_secs(3_600).as_nanos() as u64;
        let lease = Lease::new(boot_ns() + hour);
        lease.renew(boot_ns() + 2 * hour);
        lease.renew(boot_ns() + hour);
        assert!(lease.left() > Some(Duration::from_secs(7_000)), "it is not made shorter");
        let over = Lease::new(boot_ns());
        over.renew(boot_ns() + hour);
        assert_eq!(over.left(), None);
    }
}
