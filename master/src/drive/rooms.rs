//! How many requests of clients may wait for their answers at once, and when whoever is turned away is to come again: each later than the one
//! before him, so that they come as fast as others leave, and turning away does not take the time of what was taken in.

use super::door::Busy;
use super::inbox::RETRY_AFTER_MS;
use crate::shard::Request;
use crate::shard::view::View;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Requests that would change something and are not answered yet; one more is turned away. So many that journal and agents always have
/// something to do, and so few that what is taken is answered soon, however many ask.
pub const CHANGES_ASKED_MAX: u32 = 256;
/// The same for questions that change nothing, of each shard that is asked.
pub const VIEWS_ASKED_MAX: u32 = 1_024;
/// Of so many that leave, one who was turned away is expected: the others' places are for those who come for the first time.
const LEAVE_FOR_ONE: u32 = 4;
/// The longest that anybody is told to stay away.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
/// What one more that leaves counts in the mean of how long they stay: an eighth.
const MEAN_OF: u32 = 8;

/// Room for all requests of clients.
#[derive(Debug)]
pub struct Rooms {
    changes: Arc<Hall>,
    views: Arc<Hall>,
}

/// Room for requests of one sort.
#[derive(Debug)]
struct Hall {
    most: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: u32,
    /// How long one stays.
    mean: Duration,
    /// When the last of those who were turned away comes again.
    last: Option<Instant>,
}

/// Room for one request, given back when this is dropped.
#[derive(Debug)]
pub struct Room {
    hall: Arc<Hall>,
    since: Instant,
}

impl Default for Rooms {
    fn default() -> Self {
        let [changes, views] = [CHANGES_ASKED_MAX, VIEWS_ASKED_MAX].map(|most| Arc::new(Hall { most, state: Mutex::default() }));
        Self { changes, views }
    }
}

impl Rooms {
    /// Room for `request` until it is answered, where it needs any: who waits for the end of a job does not, and tokens and policies are read
    /// for the master's own sake too.
    ///
    /// # Errors
    /// [`Busy::Full`].
    pub fn take(&self, request: &Request) -> Result<Option<Room>, Busy> {
        match request {
            Request::Follow { .. } | Request::View(View::Tokens | View::Policies) => Ok(None),
            Request::View(_) => self.views.enter().map(Some),
            _ => self.changes.enter().map(Some),
        }
    }
}

impl Hall {
    fn enter(self: &Arc<Self>) -> Result<Room, Busy> {
        let (mut state, now) = (self.lock(), Instant::now());
        if state.taken < self.most {
            state.taken += 1;
            return Ok(Room { hall: Arc::clone(self), since: now });
        }
        let between = state.mean * LEAVE_FOR_ONE / self.most;
        let at = (state.last.map_or(now, |last| last.max(now)) + between).min(now + RETRY_AFTER_MAX);
        state.last = Some(at);
        let wait_ms = u64::try_from(at.saturating_duration_since(now).as_millis()).unwrap_or(u64::MAX);
        Err(Busy::Full { retry_after_ms: wait_ms.max(RETRY_AFTER_MS) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing inside the lock can panic half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let stayed = self.since.elapsed();
        let mut state = self.hall.lock();
        state.taken -= 1;
        state.mean = (state.mean * (MEAN_OF - 1) + stayed) / MEAN_OF;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_turned_away_is_told_to_come_after_those_before_him() {
        let hall = Arc::new(Hall { most: 2, state: Mutex::default() });
        let taken = [hall.enter().unwrap(), hall.enter().unwrap()];
        hall.lock().mean = Duration::from_millis(100);
        let waits: Vec<u64> = std::iter::repeat_with(|| hall.enter())
            .take(100)
            .map(|refused| match refused {
                Err(Busy::Full { retry_after_ms }) => retry_after_ms,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(waits.is_sorted() && waits[0] >= RETRY_AFTER_MS && waits[1] > waits[0], "{waits:?}");
        assert_eq!(waits.last(), Some(&5_000), "nobody is told to stay away for longer");
        drop(taken);
        assert!(hall.enter().is_ok());
    }
}
