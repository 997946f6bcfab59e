//! The master's door as the simulator plays it: one thread, all shards, a journal whose entries are flushed after a while. One entry of a
//! shard is on its way at a time; what is held waits for it. What was not flushed when the process dies is there or not there as a whole,
//! as a torn entry is cut.

use crate::plan::{Bug, Plan};
use master::shard::view::{View, Viewed};
use master::shard::{Action, Event, Output, PeerMessage, Record, Request, Response, Shard, ShardConfig, ShardSnapshot};
use protocol::{RequestId, ShardId, Time};
use std::collections::VecDeque;

/// Entries of a shard after which its replica is compared with it while it leads; it is at each start too.
const COMPARED_ENTRIES: u64 = 256;
/// Entries after which the journal is begun anew with a snapshot, in every other life.
const JOURNAL_ENTRIES: usize = 512;
/// No client's request has this number.
const OWN_REQUEST: RequestId = RequestId(u64::MAX);

/// One shard and its journal.
pub struct Seat {
    /// The shard while it leads.
    pub shard: Shard,
    /// A replica that folds what is committed, and is never made anew.
    pub replica: Shard,
    /// The snapshot that the journal begins with, as bytes on a disk.
    base: Option<Vec<u8>>,
    /// What is committed since: entries of records.
    pub journal: Vec<Vec<Record>>,
    /// The entry on its way to the disk.
    pub flying: Option<Vec<Record>>,
    gathering: Vec<Record>,
    /// What waits for the entry on its way, and behind it what waits for the one that gathers.
    held: VecDeque<(u64, Action)>,
    entries: u64,
    compared: u64,
    /// The timer that was set last.
    pub timer: Option<Time>,
}

/// The master's process.
pub struct Door {
    /// Its shards.
    pub seats: Vec<Seat>,
    /// Whether it lives.
    pub up: bool,
    /// How often it was started.
    pub life: u64,
    bug: Option<Bug>,
}

/// As long as it may be: so a lease that holds too long is seen.
pub fn lease_ms(plan: &Plan) -> u64 {
    (plan.replace_after_ms - 1_100) * 100 / 102
}

fn config(plan: &Plan, id: u16) -> ShardConfig {
    ShardConfig {
        lease_ms: lease_ms(plan),
        id: ShardId(id),
        shards: plan.shards,
        heartbeat_ms: plan.heartbeat_ms,
        unreachable_ms: plan.heartbeat_ms * 4,
        ..ShardConfig::default().replaced_after(plan.replace_after_ms)
    }
}

impl Seat {
    fn new(config: ShardConfig) -> Self {
        Self {
            shard: Shard::new(config.clone()),
            replica: Shard::new(config),
            base: None,
            journal: vec![],
            flying: None,
            gathering: vec![],
            held: VecDeque::new(),
            entries: 0,
            compared: 0,
            timer: None,
        }
    }

    /// False where the replica is not what the shard is, though nothing is decided that is not committed. Walks all of both: looked at
    /// now and then only, unless `whole` says so.
    pub fn replica_agrees(&mut self, whole: bool) -> bool {
        let settled = self.flying.is_none() && self.gathering.is_empty();
        if !settled || !whole && self.entries < self.compared + COMPARED_ENTRIES {
            return true;
        }
        self.compared = self.entries;
        self.shard.hash() == self.replica.hash()
    }

    /// The shard as its snapshot and journal make it.
    fn recover(&self, config: &ShardConfig) -> Shard {
        let mut shard = match &self.base {
            None => Shard::new(config.clone()),
            Some(bytes) => {
                let snapshot: ShardSnapshot = postcard::from_bytes(bytes).expect("a snapshot that was written can be read");
                Shard::restore(config.clone(), snapshot)
            }
        };
        self.journal.iter().flatten().for_each(|record| shard.apply(record));
        shard
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

    /// Takes what the shard wants: gives what is to be done now, keeps what waits.
    fn collect(&mut self, bug: Option<Bug>) -> Vec<Action> {
        let mut now = vec![];
        while let Some(output) = self.shard.poll_output() {
            match output {
                Output::Journal(record) => self.gathering.push(record),
                Output::Now(action) => now.push(action),
                Output::Held(action) if bug == Some(Bug::TellsBeforeCommit) => now.push(action),
                Output::Held(action) => {
                    let waits = self.entries + u64::from(self.flying.is_some()) + u64::from(!self.gathering.is_empty());
                    if waits == self.entries { now.push(action) } else { self.held.push_back((waits, action)) }
                }
            }
        }
        now
    }

    /// Sends the gathered entry on its way, if none is; true where one went.
    pub fn propose(&mut self) -> bool {
        let go = self.flying.is_none() && !self.gathering.is_empty();
        if go {
            self.flying = Some(std::mem::take(&mut self.gathering));
        }
        go
    }

    /// The entry on its way is on the disk: gives it, and what waited for it.
    pub fn flushed(&mut self, bug: Option<Bug>) -> (Vec<Record>, Vec<Action>) {
        let entry = self.flying.take().unwrap_or_default();
        let skipped = bug == Some(Bug::FoldsDifferently) && self.entries % 61 == 60;
        entry.iter().filter(|_| !skipped).for_each(|record| self.replica.apply(record));
        self.journal.push(entry.clone());
        self.entries += 1;
        let mut due = vec![];
        while self.held.front().is_some_and(|(waits, _)| *waits <= self.entries) {
            due.extend(self.held.pop_front().map(|(_, action)| action));
        }
        (entry, due)
    }
}

impl Door {
    /// A master that was never started.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let seats = (0..plan.shards).map(|id| Seat::new(config(plan, id))).collect();
        Self { seats, up: false, life: 0, bug: plan.bug }
    }

    /// Starts it: every shard is made anew from its snapshot and journal, and leads. In every other life the journal begins with a new
    /// snapshot, as one that has become long.
    ///
    /// # Errors
    /// A shard is not what was committed.
    pub fn start(&mut self, now: Time) -> Result<(), String> {
        self.life += 1;
        self.up = true;
        let (bug, anew) = (self.bug, self.life.is_multiple_of(2));
        for seat in &mut self.seats {
            if anew && seat.journal.len() > JOURNAL_ENTRIES {
                seat.base = Some(postcard::to_allocvec(&seat.replica.snapshot()).expect("a snapshot is plain data"));
                seat.journal.clear();
            }
            if bug == Some(Bug::ForgetsLastEntry) {
                seat.journal.pop();
            }
            let config = seat.replica.config().clone();
            let mut shard = seat.recover(&config);
            if shard.hash() != seat.replica.hash() {
                return Err(format!("G1: shard {} as it was recovered is not what was committed", config.id));
            }
            shard.lead(now);
            seat.shard = shard;
            seat.timer = None;
        }
        Ok(())
    }

    /// Kills it. What was on its way to the disk is there where `survives` says so.
    pub fn kill(&mut self, mut survives: impl FnMut() -> bool) -> Vec<(usize, Vec<Record>)> {
        self.up = false;
        let mut kept = vec![];
        for (at, seat) in self.seats.iter_mut().enumerate() {
            if let Some(entry) = seat.flying.take().filter(|_| survives()) {
                entry.iter().for_each(|record| seat.replica.apply(record));
                seat.journal.push(entry.clone());
                kept.push((at, entry));
            }
            seat.gathering.clear();
            seat.held.clear();
            (seat.entries, seat.compared) = (0, 0);
        }
        kept
    }

    /// Something happens to a shard: gives what is to be done at once.
    pub fn handle(&mut self, now: Time, shard: ShardId, event: Event) -> Vec<Action> {
        let bug = self.bug;
        let swallowed = match &event {
            Event::Peer { message: PeerMessage::Lost { gone, .. }, .. } => {
                bug == Some(Bug::NeverReplaces) || *gone && bug == Some(Bug::KeepsTheGone)
            }
            _ => false,
        };
        let seat = &mut self.seats[usize::from(shard.0)];
        if !swallowed {
            seat.shard.handle(now, event);
        }
        seat.collect(bug)
    }

    /// What a shard wants done at once after `lead`.
    pub fn collect(&mut self, shard: usize) -> Vec<Action> {
        let bug = self.bug;
        self.seats[shard].collect(bug)
    }
}
