//! A shard that leads, at its desk: what it wants on record is gathered into batches of which one is on its way at a time, and what is held
//! waits for them, as in `master/src/drive/desk.rs`. The first batch of a leader is empty: with it all that it found in its log is committed,
//! so what is held waits for that too.

use crate::log::Note;
use crate::plan::Bug;
use master::shard::view::{View, Viewed};
use master::shard::{Action, Event, Output, Record, Request, Response, Shard};
use protocol::{RequestId, Resources, Time};
use std::collections::{BTreeSet, VecDeque};

/// Batches of a shard after which the replica beside it is compared with it while it leads.
const COMPARED_BATCHES: u64 = 256;
/// No client's request has this number.
const OWN_REQUEST: RequestId = RequestId(u64::MAX);

/// One shard that leads.
pub struct Seat {
    /// The shard.
    pub shard: Shard,
    /// Its leader's.
    pub term: u64,
    /// When it began to lead, in true time.
    pub since: Time,
    /// The timer that was set last, in true time.
    pub timer: Option<Time>,
    /// Agents, by machine, that were not told yet who leads.
    pub untold: BTreeSet<usize>,
    gathering: Vec<Note>,
    /// Where the batch on its way stands in the log.
    flying: Option<u64>,
    /// What waits, and for how many batches to be committed.
    held: VecDeque<(u64, Action)>,
    batches: u64,
    compared: u64,
    bug: Option<Bug>,
}

impl Seat {
    /// A leader since then, whose first batch stands at `first`; `None`: it is committed.
    pub fn new(shard: Shard, (term, since): (u64, Time), first: Option<u64>, bug: Option<Bug>) -> Self {
        Self {
            shard,
            term,
            since,
            timer: None,
            untold: BTreeSet::new(),
            gathering: vec![],
            flying: first,
            held: VecDeque::new(),
            batches: 0,
            compared: 0,
            bug,
        }
    }

    /// Takes what the shard wants: gives what is to be done now, keeps what waits. `note` looks at each record.
    pub fn collect(&mut self, mut note: impl FnMut(Record) -> Note) -> Vec<Action> {
        let mut now = vec![];
        while let Some(output) = self.shard.poll_output() {
            match output {
                Output::Journal(record) => self.gathering.push(note(record)),
                Output::Now(action) => now.push(action),
                Output::Held(action) if self.bug == Some(Bug::TellsBeforeCommit) => now.push(action),
                Output::Held(action) => {
                    let waits = self.batches + u64::from(self.flying.is_some()) + u64::from(!self.gathering.is_empty());
                    if waits == self.batches && self.held.is_empty() { now.push(action) } else { self.held.push_back((waits, action)) }
                }
            }
        }
        now
    }

    /// The next batch to propose; `None` where there is none, or one is on its way.
    pub fn next_batch(&mut self) -> Option<Vec<Note>> {
        (self.flying.is_none() && !self.gathering.is_empty()).then(|| std::mem::take(&mut self.gathering))
    }

    /// The next batch stands there.
    pub fn proposed(&mut self, index: u64) {
        self.flying = Some(index);
    }

    /// All is committed up to there: gives what waited for that.
    pub fn committed(&mut self, index: u64) -> Vec<Action> {
        let mut due = vec![];
        if self.flying.is_some_and(|flying| flying <= index) {
            self.flying = None;
            self.batches += 1;
            while self.held.front().is_some_and(|(waits, _)| *waits <= self.batches) {
                due.extend(self.held.pop_front().map(|(_, action)| action));
            }
        }
        due
    }

    /// What is held, for a bug: it leads no longer.
    pub fn give_up(self) -> Vec<Action> {
        self.held.into_iter().map(|(_, action)| action).collect()
    }

    /// True where something is not on record yet.
    pub fn waits(&self) -> bool {
        self.flying.is_some() || !self.gathering.is_empty()
    }

    /// The shard's hash, where nothing is decided that is not committed. Walks all of it.
    pub fn hash(&self) -> Option<u64> {
        (!self.waits()).then(|| self.shard.hash())
    }

    /// False where `follower` is not what the shard is, though nothing is decided that is not committed. Walks all of both: looked at now
    /// and then only, unless `whole` says so.
    pub fn agrees(&mut self, follower: &Shard, whole: bool) -> bool {
        if self.waits() || !whole && self.batches < self.compared + COMPARED_BATCHES {
            return true;
        }
        self.compared = self.batches;
        self.shard.hash() == follower.hash()
    }

    /// What the shard shows of itself now. What it wants done meanwhile is dropped: only for a shard that is asked nothing else any more.
    pub fn look(&mut self, now: Time, view: View) -> Option<Viewed> {
        self.shard.handle(now, Event::Request { id: OWN_REQUEST, request: Request::View(view) });
        let mut seen = None;
        while let Some(output) = self.shard.poll_output() {
            if let Output::Held(Action::Reply { id: OWN_REQUEST, response: Response::Viewed(viewed) }) = output {
                seen = Some(*viewed);
            }
        }
        seen
    }

    /// When nothing runs, nothing is booked and nothing is offered. On a leader at its end.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn nothing_booked(&mut self, now: Time) -> Result<(), String> {
        let Some(Viewed::Agents(agents)) = self.look(now, View::Agents) else { return Err("a view of agents has no answer".into()) };
        let booked = agents.iter().find(|agent| agent.attempts > 0 || agent.allocated != Resources::NONE);
        booked.map_or(Ok(()), |booked| Err(format!("G9: nothing runs and something is booked: {booked:?}")))
    }
}
