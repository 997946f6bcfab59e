//! What all streams of submissions may have on its way together: each as much as any other, and never nothing.
//!
//! One stream alone may have all; the more there are that wait for commits, the less each. So whoever submits one job waits behind a bounded
//! number of others, however many streams there are.

use super::error::ApiError;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Submissions of all streams that wait for their commit; a stream that has its share of them is read no further.
pub const SUBMIT_IN_FLIGHT_MAX: usize = 4_096;
/// Streams at the same time; one more is turned away. So each has a share of one at the least.
pub const STREAMS_MAX: usize = SUBMIT_IN_FLIGHT_MAX;
/// When a stream that was turned away makes sense again, in milliseconds.
const RETRY_AFTER_MS: u64 = 1_000;

/// The streams of one master.
#[derive(Debug, Default)]
pub struct Streams {
    open: AtomicUsize,
    /// Those of which something waits for its commit.
    busy: AtomicUsize,
}

/// The place of one stream, given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    streams: Arc<Streams>,
    is_busy: bool,
}

impl Streams {
    /// A place for one more.
    ///
    /// # Errors
    /// An [`ApiError`] of status 429 where there are [`STREAMS_MAX`].
    pub fn enter(self: &Arc<Self>) -> Result<Share, ApiError> {
        // Made first: what was counted too much is given back by its drop.
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let share = Share { streams: Arc::clone(self), is_busy: false };
        match open < STREAMS_MAX {
            true => Ok(share),
            false => Err(ApiError::busy(format!("{STREAMS_MAX} streams of submissions are there already"), RETRY_AFTER_MS)),
        }
    }
}

impl Share {
    /// How many of this stream may wait for their commit, where `uncommitted` do now. To be asked whenever that has changed.
    pub fn most(&mut self, uncommitted: usize) -> usize {
        let is_busy = uncommitted > 0;
        match (std::mem::replace(&mut self.is_busy, is_busy), is_busy) {
            (false, true) => drop(self.streams.busy.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.streams.busy.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
        let others_and_this = self.streams.busy.load(Ordering::Relaxed) + usize::from(!is_busy);
        (SUBMIT_IN_FLIGHT_MAX / others_and_this.max(1)).max(1)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.most(0);
        self.streams.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_that_wait_for_commits_share_what_may_wait_and_each_has_something() {
        let streams = Arc::new(Streams::default());
        let mut one = streams.enter().unwrap();
        assert_eq!((one.most(0), one.most(1)), (SUBMIT_IN_FLIGHT_MAX, SUBMIT_IN_FLIGHT_MAX));
        // One that waits for nothing takes nothing from others.
        let mut other = streams.enter().unwrap();
        assert_eq!((other.most(0), one.most(9)), (SUBMIT_IN_FLIGHT_MAX / 2, SUBMIT_IN_FLIGHT_MAX));
        assert_eq!((other.most(1), one.most(9)), (SUBMIT_IN_FLIGHT_MAX / 2, SUBMIT_IN_FLIGHT_MAX / 2));
        drop(other);
        assert_eq!(one.most(9), SUBMIT_IN_FLIGHT_MAX);
        let mut all: Vec<Share> = std::iter::from_fn(|| streams.enter().ok()).take(STREAMS_MAX).collect();
        assert_eq!(all.len(), STREAMS_MAX - 1);
        assert!(all.iter_mut().all(|share| share.most(1) >= 1));
        assert_eq!(one.most(9), 1);
        all.clear();
        assert_eq!(one.most(9), SUBMIT_IN_FLIGHT_MAX);
        assert!(streams.enter().is_ok());
    }
}
