//! What this machine promised, runs and still owes the master. Pure: facts in by [`Ledger::handle`], things to do out by
//! [`Ledger::poll_output`], in order, and when to come back by [`Ledger::poll_timeout`]; whoever drives it has the clock, the link, the
//! executors and the files.
//!
//! The rules: what does not fit is refused; an attempt that was ever taken on is never taken on again; a record of it is written before it
//! is started and one of its end before that is told; an end is told until it is acknowledged.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod book;
pub mod bundles;
mod checks;
mod devices;
pub mod event;
mod groups;
mod known;
mod launches;
mod leases;
mod ports;
mod session;
mod slack;
mod states;
#[cfg(test)]
mod tests;

use protocol::message::{ATTEMPTS_PER_MESSAGE_MAX, FromAgent, FromMaster, Launch};
use protocol::{AgentId, AgentInfo, AttemptId, Digest, Exit, Given, Reservation, Resources, ShardId, Singles, Time, Usage};
use std::collections::VecDeque;
use std::sync::Arc;

use book::{Book, State};
use bundles::Bundles;
use checks::Watch;
use devices::Awaited;
use event::{Event, Output, Record};
use leases::Leases;
use session::Session;
use slack::Slack;
use states::Telling;

pub use checks::ASKED_MAX;
pub use known::KNOWN_RANGES_MAX;

/// Ends that are not yet acknowledged; at the limit nothing more is started until some are.
pub const UPDATES_PENDING_MAX: usize = 32_768;
/// Attempts held at once, ended ones included; what is over is refused. More than a shard books on one agent.
pub const ATTEMPTS_HELD_MAX: usize = 262_144;

/// Who a ledger is kept for.
#[derive(Clone, Debug)]
pub struct LedgerConfig {
    /// Who the agent's certificate says that it is.
    pub agent: AgentId,
    /// What it says of itself; its capacity is all that may be promised.
    pub info: AgentInfo,
    /// What of that is kept for roles.
    pub reservations: Vec<Reservation>,
    /// How often to beat until a master says otherwise, in milliseconds.
    pub heartbeat_ms: u64,
    /// True where what is measured idle is lent: [`Event::Measured`] is to come several times a second.
    pub lends: bool,
}

/// What was refused and why, since the ledger was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Attempts taken on.
    pub taken: u64,
    /// Attempts that were refused.
    pub refused: u64,
    /// Launches passed over because their session or sequence was old.
    pub stale: u64,
    /// Attempts passed over because they had been taken on before.
    pub repeated: u64,
}

/// What one machine promised, runs and still owes the master.
pub struct Ledger {
    agent: AgentId,
    info: AgentInfo,
    reservations: Vec<Reservation>,
    book: Book,
    session: Session,
    bundles: Bundles,
    telling: Telling,
    leases: Leases,
    awaited: Awaited,
    slack: Slack,
    checks: Watch,
    counts: Counts,
    outputs: VecDeque<Output>,
}

impl Ledger {
    /// An empty ledger; its first output is the record that it began. `incarnation` is drawn at random; `boot` is the machine's `boot_id`.
    #[must_use]
    pub fn new(config: LedgerConfig, incarnation: u64, boot: String) -> Self {
        let record = Record::Began { incarnation, boot: boot.clone() };
        let mut ledger = Self::with(config, Book::new(&AgentInfo::default(), incarnation, boot));
        ledger.book = Book::new(&ledger.info, incarnation, ledger.book.boot);
        ledger.outputs.push_back(Output::Checkpoint(record));
        ledger
    }

    /// The ledger that these records make, oldest first; none where they do not begin with [`Record::Began`]. Its attempts are taken for
    /// running until [`Event::Surveyed`].
    #[must_use]
    pub fn recover(config: LedgerConfig, records: &[Record]) -> Option<Self> {
        let Some(Record::Began { incarnation, boot }) = records.first() else { return None };
        let book = Book::new(&config.info, *incarnation, boot.clone());
        let mut ledger = Self::with(config, book);
        records.iter().for_each(|record| ledger.apply(record));
        Some(ledger)
    }

    /// Begins another life with all that is known: where a part of the records was lost, so that a master does not take what is missing for
    /// never taken on. `incarnation` is drawn at random.
    pub fn renew(&mut self, incarnation: u64) {
        let record = Record::Renewed { incarnation };
        self.apply(&record);
        self.outputs.push_back(Output::Checkpoint(record));
    }

    fn with(config: LedgerConfig, book: Book) -> Self {
        Self {
            agent: config.agent,
            info: config.info,
            reservations: config.reservations,
            book,
            session: Session::new(config.heartbeat_ms),
            bundles: Bundles::default(),
            telling: Telling::default(),
            leases: Leases::default(),
            awaited: Awaited::default(),
            slack: Slack::new(config.lends),
            checks: Watch::default(),
            counts: Counts::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Folds one record: what recovery does, and what `handle` has done to the same state when it emits one.
    pub fn apply(&mut self, record: &Record) {
        self.book.apply(record);
    }

    /// Takes in what happened; what follows from it is then to be had from [`Ledger::poll_output`].
    pub fn handle(&mut self, now: Time, event: Event) {
        self.end_overdue(now);
        match event {
            Event::Tick => {}
            Event::Connected { shards } => self.connected(now, shards),
            Event::Disconnected => self.disconnected(),
            Event::Led { shard } => self.led(now, shard),
            Event::Unled { shard } => self.unled(shard),
            Event::Master { shard, message } => self.heard(now, shard, message),
            Event::Prepared { bundle, form, result } => self.prepared(now, bundle, form, result),
            Event::Started { members } => self.started(now, members),
            Event::Ended { members } => self.ended(now, members),
            Event::Progress { notes } => self.progressed(now, notes),
            Event::Evicted { bundle } => self.bundles.evicted(bundle),
            Event::Changed { info } => self.changed(now, *info),
            Event::Measured { used, unread } => self.measured(now, used, &unread),
            Event::Surveyed => self.surveyed(now),
            Event::Checked { answers } => self.checked(now, answers),
        }
        self.end_overdue(now); // What was launched on a lease that is over.
        self.mind_slack(now);
        self.start_ready(now);
        self.ask_due(now);
        self.run_timers(now);
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to come back with [`Event::Tick`], if nothing else happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        if !self.session.is_connected() {
            return self.checks.timeout(); // All else that is waited for needs somebody to say it to, or to ask.
        }
        let timers = [self.session.timeout(), self.telling.timeout(), self.bundles.timeout(), self.checks.timeout()];
        timers.into_iter().flatten().min()
    }

    /// All that may be promised.
    #[must_use]
    pub const fn capacity(&self) -> &Resources {
        self.book.capacity()
    }

    /// What is promised to attempts that have not ended: but for what is revocable within the capacity, unless that was made smaller while they
    /// ran.
    #[must_use]
    pub const fn promised(&self) -> &Resources {
        self.book.promised()
    }

    /// Of all that is on record: equal where two ledgers were made by the same records.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.book.digest()
    }

    /// Of the attempts held, as a beat says it.
    #[must_use]
    pub const fn held_hash(&self) -> u64 {
        self.book.held_hash()
    }

    /// How often the agent beats, in milliseconds: as its shard said last.
    #[must_use]
    pub const fn heartbeat_ms(&self) -> u64 {
        self.session.heartbeat_ms()
    }

    /// True where whoever led the agent's own shard has not answered for long: another may lead it, whom the agent cannot hear.
    #[must_use]
    pub fn doubts_leader(&self) -> bool {
        self.session.doubts_leader()
    }

    /// How many attempts are held, ended ones included.
    #[must_use]
    pub fn held(&self) -> usize {
        self.book.held()
    }

    /// Each attempt held, the launch it came with (without its list of attempts), and whether it has ended.
    pub fn attempts(&self) -> impl Iterator<Item = (AttemptId, &Arc<Launch>, bool)> {
        self.book.entries().map(|(attempt, entry)| (*attempt, &entry.launch, matches!(entry.state, State::Ended { .. })))
    }

    /// Each attempt that executors were told to start and that has not ended, and the launch it came with (without its list of attempts).
    pub fn handed_over(&self) -> impl Iterator<Item = (AttemptId, &Arc<Launch>)> {
        let handed_over = self.book.entries().filter(|(_, entry)| !matches!(entry.state, State::Waiting | State::Ended { .. }));
        handed_over.map(|(attempt, entry)| (*attempt, &entry.launch))
    }

    /// The attempts held that have single devices, and which.
    pub fn devices(&self) -> impl Iterator<Item = (AttemptId, &Given)> {
        self.book.given()
    }

    /// How much of each single device is given to attempts that have not ended; `None` where none is told apart.
    #[must_use]
    pub fn singles(&self) -> Option<&Singles> {
        self.book.singles()
    }

    /// True where this attempt is held and has not ended.
    #[must_use]
    pub fn is_live(&self, attempt: AttemptId) -> bool {
        self.book.get(attempt).is_some_and(|entry| !matches!(entry.state, State::Ended { .. }))
    }

    /// True where this attempt is held and has what is lent.
    #[must_use]
    pub fn is_revocable(&self, attempt: AttemptId) -> bool {
        self.book.get(attempt).is_some_and(|entry| entry.launch.template.is_revocable())
    }

    /// Drawn when the ledger began empty.
    #[must_use]
    pub const fn incarnation(&self) -> u64 {
        self.book.incarnation
    }

    /// The `boot_id` under which it began.
    #[must_use]
    pub fn boot(&self) -> &str {
        &self.book.boot
    }

    /// What was taken and refused.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// The least list of records that make this ledger.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Record> {
        self.book.snapshot()
    }

    /// True where somebody waits for this bundle or runs from it.
    #[must_use]
    pub fn uses(&self, bundle: Digest) -> bool {
        let live = self.attempts().filter(|(_, _, ended)| !ended);
        live.into_iter().any(|(_, launch, _)| bundles::needs(&launch.template).any(|(needed, _)| needed == bundle))
    }

    /// Why the agent cannot be so: it has promised more. `None` where it can.
    #[must_use]
    pub fn against(&self, info: &AgentInfo) -> Option<String> {
        self.book.against(info)
    }

    /// The agent is another than before: its shard hears it from a registration.
    fn changed(&mut self, now: Time, info: AgentInfo) {
        if self.book.against(&info).is_some() {
            return;
        }
        self.book.reshape(&info);
        self.info = info;
        self.session.register_again(now);
    }

    fn heard(&mut self, now: Time, shard: ShardId, message: FromMaster) {
        if !self.session.is_led(shard) {
            return; // Nobody can have said it.
        }
        let from_own = self.session.own() == Some(shard);
        if from_own {
            self.session.heard(now);
        }
        match message {
            FromMaster::Registered { session, heartbeat_ms, number } if from_own => self.registered(now, session, heartbeat_ms, number),
            FromMaster::Rejected { reason } if from_own => self.outputs.push_back(Output::Quit { reason }),
            FromMaster::Launch(launch) if from_own => self.launch(now, launch),
            FromMaster::Devices { session, sequence, given } if from_own => self.devices_said((session, sequence), given),
            FromMaster::BeatAck { sent } if from_own => self.answered(now, sent),
            FromMaster::Lease { lease_ms } if from_own => self.lease_said(now, lease_ms),
            FromMaster::ReportWanted { session } if from_own => self.report_wanted(now, session),
            FromMaster::Kill { attempts, grace_ms } => self.kill(now, &attempts, grace_ms),
            FromMaster::Ack { attempts } => self.acknowledged(attempts),
            FromMaster::Prepare { bundle } => self.prepare_ahead(bundle),
            FromMaster::Message { attempt, bytes } => self.message(shard, attempt, bytes),
            FromMaster::Leading { .. } | FromMaster::LedElsewhere { .. } | FromMaster::Masters { .. } | FromMaster::Pulses { .. } => {}
            // Only the agent's own shard may say the others.
            FromMaster::Registered { .. }
            | FromMaster::Rejected { .. }
            | FromMaster::Launch(_)
            | FromMaster::Devices { .. }
            | FromMaster::BeatAck { .. }
            | FromMaster::Lease { .. }
            | FromMaster::ReportWanted { .. } => {}
        }
    }

    /// Puts these ends on record and tells them; those of attempts that are not held or have ended are passed over and given back.
    fn end(&mut self, now: Time, attempts: Vec<(AttemptId, Exit, Usage)>) -> Vec<AttemptId> {
        let mut passed_over = Vec::new();
        let mut attempts = attempts.into_iter();
        loop {
            // A record, like a message, is of so many at most.
            let mut part: Vec<_> = attempts.by_ref().take(ATTEMPTS_PER_MESSAGE_MAX).collect();
            if part.is_empty() {
                return passed_over;
            }
            part.retain(|(attempt, exit, usage)| {
                let ended = self.book.end(*attempt, exit, *usage);
                if !ended {
                    passed_over.push(*attempt);
                }
                ended
            });
            if !part.is_empty() {
                let ids: Vec<AttemptId> = part.iter().map(|(attempt, ..)| *attempt).collect();
                ids.iter().for_each(|attempt| self.checks.forget(*attempt));
                self.outputs.push_back(Output::Checkpoint(Record::Ended { attempts: part }));
                self.tell_ends(now, ids);
            }
        }
    }

    fn run_timers(&mut self, now: Time) {
        if self.session.is_connected() {
            self.keep_session(now);
            self.ask_again(now);
            self.tell_due(now);
        }
    }

    /// Says this to a shard, if that is led: whoever leads it next is told all again.
    fn send(&mut self, shard: ShardId, message: FromAgent) {
        if self.session.is_led(shard) {
            self.outputs.push_back(Output::Send { shard, message });
        }
    }
}
