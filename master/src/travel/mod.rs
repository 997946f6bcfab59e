//! How jobs travel, as spans for whoever collects traces: what those who watch are told, turned into when each stretch of the way began and ended. Nothing of
//! it is asked of shards, and nothing waits for it: what cannot be passed on at once is counted and left out.

mod legs;

use crate::drive::told::{Told, What};
use protocol::JobId;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use legs::Travels;

/// Most spans that wait to be passed on; those beyond are left out.
const SPANS_PENDING_MAX: usize = 8_192;

/// A stretch of a job's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The whole way of the job: the same for all spans of one, whoever says them.
    pub trace: [u8; 16],
    /// Its own id.
    pub id: [u8; 8],
    /// What it is a part of; `None`: it is the whole.
    pub parent: Option<[u8; 8]>,
    /// `job`, `submit`, `attempt`, `place`, `send`, `start`, `run`, `stop`, `unreachable`.
    pub name: &'static str,
    /// When it began, in nanoseconds of the Unix epoch.
    pub began_ns: u64,
    /// When it ended.
    pub ended_ns: u64,
    /// What is known of it, by name.
    pub attributes: Vec<(&'static str, Value)>,
    /// How it failed, where it did.
    pub failed: Option<&'static str>,
}

/// What an attribute says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(u64),
}

/// Where spans are put; clones are the same.
#[derive(Clone, Debug)]
pub struct Spans {
    sender: mpsc::Sender<Span>,
    lost: Arc<AtomicU64>,
}

impl Spans {
    /// A place for spans, and where they come out.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Span>) {
        let (sender, receiver) = mpsc::channel(SPANS_PENDING_MAX);
        (Self { sender, lost: Arc::default() }, receiver)
    }

    /// How many were left out since it was made, since nobody took them in time.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn put(&self, span: Span) {
        if self.sender.try_send(span).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What this master says of travels, where anybody wants to know.
#[derive(Clone, Debug)]
pub struct Teller {
    spans: Spans,
    /// The cluster's name, which makes its traces its own.
    cluster: Arc<str>,
}

/// A submission that has come.
#[derive(Debug)]
pub struct Came {
    teller: Teller,
    at_ns: u64,
}

impl Teller {
    /// Tells from now on what is heard in `changes`, of shards that the master `own` leads, on the runtime that this is called in.
    pub fn start(spans: Spans, cluster: &str, own: u64, changes: Receiver<Arc<Told>>) -> Self {
        let teller = Self { spans, cluster: cluster.into() };
        tokio::spawn(follow(teller.clone(), own, changes));
        teller
    }

    /// A submission comes now.
    #[must_use]
    pub fn comes(&self) -> Came {
        Came { teller: self.clone(), at_ns: now_ns() }
    }
}

impl Came {
    /// It is on record now, as this job.
    pub fn is_on_record(&self, job: JobId) {
        self.teller.spans.put(legs::submission(&self.teller.cluster, job, self.at_ns, now_ns()));
    }
}

async fn follow(teller: Teller, own: u64, mut changes: Receiver<Arc<Told>>) {
    let mut travels = Travels::new(Arc::clone(&teller.cluster));
    loop {
        match changes.recv().await {
            Ok(told) => {
                let What::Change(change) = &told.what else { continue };
                // All masters hear of all: whoever tells it says it, and who follows it as leader knows what was before.
                let spans = travels.hear(now_ns(), change);
                if told.life.master == own {
                    spans.into_iter().for_each(|span| teller.spans.put(span));
                }
            }
            Err(RecvError::Lagged(_)) => travels.forget_attempts(),
            Err(RecvError::Closed) => return,
        }
    }
}

/// Nanoseconds of the Unix epoch.
fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
