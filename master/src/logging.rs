//! How much this process says of what it does: raised for a while, and then as it was started. Knows what was asked for and until when; what is written where
//! is for who started the process.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The longest that more may be said.
pub const RAISED_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How much is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// As the process was started.
    #[default]
    Usual,
    /// What somebody wants to see who looks for a fault.
    Debug,
    /// All there is.
    Trace,
}

/// Has so much said from now on, or why it cannot be.
type Filter = dyn Fn(Detail) -> Result<(), String> + Send + Sync;

/// What is said now; clones are the same.
#[derive(Clone)]
pub struct Logging(Arc<Inner>);

struct Inner {
    filter: Box<Filter>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    detail: Detail,
    /// When it is as usual again; `None`: it is.
    until: Option<Instant>,
    /// Counts changes.
    changes: u64,
}

impl fmt::Debug for Logging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Logging").field(&self.now()).finish()
    }
}

impl Logging {
    /// What is said is as usual, and `filter` changes that.
    pub fn new(filter: impl Fn(Detail) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner { filter: Box::new(filter), state: Mutex::default() }))
    }

    /// How much is said now, and for how long still; `None`: until it is changed.
    #[must_use]
    pub fn now(&self) -> (Detail, Option<Duration>) {
        let state = self.state();
        (state.detail, state.until.map(|until| until.saturating_duration_since(Instant::now())))
    }

    /// Has so much said from now on, and for so long, at most [`RAISED_MAX`]: then it is as usual again. In place of what was asked for before. To be called
    /// on a runtime.
    ///
    /// # Errors
    /// Why it cannot be: all is as before.
    pub fn set(&self, detail: Detail, within: Duration) -> Result<(), String> {
        let within = within.min(RAISED_MAX);
        let mut state = self.state();
        (self.0.filter)(detail)?;
        let is_raised = detail != Detail::Usual;
        *state = State { detail, until: is_raised.then(|| Instant::now() + within), changes: state.changes + 1 };
        let change = state.changes;
        drop(state);
        if is_raised {
            let logging = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(within).await;
                logging.is_over(change);
            });
        }
        Ok(())
    }

    /// The time of a change is over; another may have been made since.
    fn is_over(&self, change: u64) {
        let mut state = self.state();
        if state.changes != change {
            return;
        }
        match (self.0.filter)(Detail::Usual) {
            Ok(()) => *state = State { changes: change + 1, ..State::default() },
            Err(reason) => tracing::error!(reason, "what is said could not be made as it was"),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logging() -> (Logging, Arc<Mutex<Vec<Detail>>>) {
        let said: Arc<Mutex<Vec<Detail>>> = Arc::default();
        let hears = Arc::clone(&said);
        let logging = Logging::new(move |detail| {
            hears.lock().unwrap().push(detail);
            Ok(())
        });
        (logging, said)
    }

    #[tokio::test(start_paused = true)]
    async fn more_is_said_for_so_long_and_the_last_word_counts() {
        let (logging, said) = logging();
        logging.set(Detail::Debug, Duration::from_secs(10)).unwrap();
        tokio::time::sleep(Duration::from_secs(6)).await;
        logging.set(Detail::Trace, Duration::from_secs(10)).unwrap();
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(logging.now().0, Detail::Trace, "the time of the first is over, and means nothing any more");
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(logging.now(), (Detail::Usual, None));
        logging.set(Detail::Debug, Duration::from_secs(10)).unwrap();
        logging.set(Detail::Usual, Duration::ZERO).unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let expected = [Detail::Debug, Detail::Trace, Detail::Usual, Detail::Debug, Detail::Usual];
        assert_eq!((said.lock().unwrap().as_slice(), logging.now()), (&expected[..], (Detail::Usual, None)));
    }

    #[tokio::test]
    async fn what_cannot_be_leaves_all_as_it_was() {
        let logging = Logging::new(|_| Err("no".into()));
        assert_eq!(logging.set(Detail::Debug, Duration::from_secs(10)), Err("no".into()));
        assert_eq!(logging.now(), (Detail::Usual, None));
    }
}
