//! Plug-ins: policies that operators bring as components, which order the agents that tasks are given to, or judge jobs as they are submitted. Knows what
//! is asked of them; how one runs is the loader's, whom the binary brings.

mod kept;

pub use kept::{Judged, PlugIns, Shown, keep};

use futures::future::BoxFuture;
use protocol::{Job, Resources, Role, Stand};
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

/// Most agents that a plug-in is shown in one call.
pub const CANDIDATES_MAX: usize = 32;
/// Failures in a row after which a plug-in is put aside.
pub const FAILURES_MAX: u32 = 8;
/// For how long it is, in milliseconds.
pub const ASIDE_MS: u64 = 60_000;

/// What a plug-in says. New ones at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Which agents are best for tasks that wait.
    Score,
    /// Which jobs are taken.
    Admission,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Score, Self::Admission];

    /// Its name for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Score => "score",
            Self::Admission => "admission",
        }
    }

    /// The kind that is called so.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.text() == text)
    }
}

/// Tasks of one shape that wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Whose resources they are counted as.
    pub role: Role,
    /// How urgent they are.
    pub priority: u8,
    /// What each of them needs.
    pub needs: Resources,
    /// How many there are.
    pub count: u32,
}

/// An agent that has room for at least one of them, and may have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What is known of it.
    pub stand: Arc<Stand>,
    /// All that it has.
    pub capacity: Resources,
    /// What of that is promised to nobody.
    pub free: Resources,
    /// Attempts that are promised on it.
    pub attempts: u32,
    /// How many of the tasks it has room for; at most as many as there are.
    pub room: u32,
}

/// Which agents are to have them.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking {
    /// One for each candidate, in their order: the highest is served first.
    pub scores: Vec<f64>,
    /// True: an agent is given as many as it has room for, before the next. False: an even part each.
    pub fill: bool,
}

/// Says which agents are best: the same of the same question, within a bounded time, since a shard asks.
pub trait Score: Debug + Send + Sync {
    /// Which of these, at least two and at most [`CANDIDATES_MAX`].
    ///
    /// # Errors
    /// Why it says nothing, for people.
    fn score(&self, asked: &Asked, candidates: &[Candidate]) -> Result<Ranking, String>;
}

/// Says which jobs are taken. Blocks for a bounded time.
pub trait Admission: Debug + Send + Sync {
    /// Whether this one is, which in JSON is `json`; or else why not, for whoever submits it.
    ///
    /// # Errors
    /// Why it says nothing, for people.
    fn admit(&self, job: &Job, json: &str) -> Result<Result<(), String>, String>;
}

/// A plug-in that can be asked.
#[derive(Clone, Debug)]
pub enum Loaded {
    /// About agents.
    Score(Arc<dyn Score>),
    /// About jobs.
    Admission(Arc<dyn Admission>),
}

/// Why there is no plug-in to be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// It is none of its kind: the operator's move.
    #[error("{0}")]
    Refused(String),
    /// This master could not: again later.
    #[error("{0}")]
    Failed(String),
}

/// Makes plug-ins of components.
pub trait Loader: Debug + Send + Sync {
    /// The plug-in of this kind that the component in the file `wasm` is; what is made of it on the way goes to `compiled`.
    ///
    /// # Errors
    /// [`LoadError`].
    fn load(&self, kind: Kind, wasm: PathBuf, compiled: PathBuf) -> BoxFuture<'static, Result<Loaded, LoadError>>;
}

/// How often something was asked, and how often in vain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Calls since its master or shard took it up.
    pub calls: u64,
    /// Of these, those without a right answer.
    pub failures: u64,
    /// Of these, those since the last right one.
    pub in_a_row: u32,
    /// What the last one was, for people.
    pub last: String,
}

impl Tally {
    /// A call had a right answer, or not. True where it is now put aside.
    pub fn count(&mut self, failure: Option<&str>) -> bool {
        self.calls += 1;
        let Some(failure) = failure else {
            self.in_a_row = 0;
            return false;
        };
        self.failures += 1;
        self.in_a_row += 1;
        failure.clone_into(&mut self.last);
        let aside = self.in_a_row >= FAILURES_MAX;
        if aside {
            self.in_a_row = 0;
        }
        aside
    }

    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.failures += other.failures;
        self.in_a_row = self.in_a_row.max(other.in_a_row);
        if self.last.is_empty() {
            self.last.clone_from(&other.last);
        }
    }
}

/// What is wrong with an answer to so many candidates; `None`: nothing.
#[must_use]
pub fn wrong(ranking: &Ranking, candidates: usize) -> Option<String> {
    let scores = ranking.scores.len();
    if scores != candidates {
        return Some(format!("it gave {scores} scores for {candidates} candidates"));
    }
    let nan = ranking.scores.iter().position(|score| score.is_nan());
    nan.map(|at| format!("its score for candidate {} is not a number", at + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plug_in_that_fails_often_in_a_row_is_put_aside_and_then_asked_again() {
        let mut tally = Tally::default();
        for _ in 0..FAILURES_MAX - 1 {
            assert!(!tally.count(Some("trap")));
        }
        assert!(!tally.count(None));
        for _ in 0..FAILURES_MAX - 1 {
            assert!(!tally.count(Some("trap")));
        }
        assert!(tally.count(Some("loop")));
        assert!(!tally.count(Some("trap")), "once it is asked again, it has as many tries as before");
        assert_eq!((tally.calls, tally.failures, tally.last.as_str()), (17, 16, "trap"));
    }

    #[test]
    fn an_answer_has_a_number_for_each_candidate() {
        let ranking = |scores: &[f64]| Ranking { scores: scores.to_vec(), fill: false };
        assert_eq!(wrong(&ranking(&[1.0, f64::INFINITY]), 2), None);
        assert!(wrong(&ranking(&[1.0]), 2).unwrap().contains("1 scores for 2"));
        assert!(wrong(&ranking(&[1.0; 3]), 2).unwrap().contains("3 scores for 2"));
        assert!(wrong(&ranking(&[1.0, f64::NAN]), 2).unwrap().contains("candidate 2 is not a number"));
    }
}
