//! What becomes of attempts, and telling it: an end at once and again until it is acknowledged; other states a little later and only where
//! they still hold, so that a short task costs one update.

use bytes::Bytes;
use protocol::frame::FRAME_BYTES_MAX;
use protocol::message::{ATTEMPTS_PER_MESSAGE_MAX, FromAgent, MESSAGE_BYTES_MAX, NOTES_PER_MESSAGE_MAX};
use protocol::task::NOTE_BYTES_MAX;
use protocol::{AttemptId, Exit, Loss, MemberId, Progress, ShardId, TaskState, Time, Update, Usage};
use std::collections::{BTreeMap, VecDeque};

use super::Ledger;
use super::book::{Entry, State};
use super::bundles::shortened;
use super::event::{Output, Record};

/// How long a state that is no end is kept back.
const STATE_DELAY_MS: u64 = 20;
/// How long progress is kept back: of all that a task says meanwhile, only the latest is told.
const NOTES_DELAY_MS: u64 = 1_000;
/// The wait before an end is told again; doubled each time.
const RESEND_FIRST_MS: u64 = 2_000;
/// The longest such wait.
const RESEND_MAX_MS: u64 = 30_000;
/// A status message is closed once it is so long: reasons of four thousand traps would not fit one frame.
const STATUS_BYTES_AIM: usize = FRAME_BYTES_MAX / 2;
/// The longest grace that a stop may give, in milliseconds.
const GRACE_MS_MAX: u64 = 24 * 60 * 60 * 1_000;

/// What is to be told later, of each shard that is led: whoever leads one next is told all again.
#[derive(Clone, Debug, Default)]
pub(super) struct Telling {
    shards: BTreeMap<ShardId, Later>,
}

/// What a shard is to be told later.
#[derive(Clone, Debug, Default)]
struct Later {
    /// States that are no ends, and when; in order of time.
    states: VecDeque<(Time, Vec<AttemptId>)>,
    /// Ends that were told: when they are told again, and after which wait.
    ends: BTreeMap<(Time, u64), (u64, Vec<AttemptId>)>,
    sequence: u64,
    /// How far tasks are, the latest of each, and when that is told.
    notes: BTreeMap<AttemptId, (u8, String)>,
    notes_due: Option<Time>,
}

impl Telling {
    pub fn clear(&mut self) {
        self.shards.clear();
    }

    pub fn forget(&mut self, shard: ShardId) {
        self.shards.remove(&shard);
    }

    pub fn timeout(&self) -> Option<Time> {
        self.shards.values().filter_map(Later::due).min()
    }

    /// What this shard is to be told later.
    fn of(&mut self, shard: ShardId) -> &mut Later {
        self.shards.entry(shard).or_default()
    }
}

impl Later {
    fn due(&self) -> Option<Time> {
        let state = self.states.front().map(|(due, _)| *due);
        let end = self.ends.first_key_value().map(|((due, _), _)| *due);
        state.into_iter().chain(end).chain(self.notes_due).min()
    }

    fn again(&mut self, now: Time, wait_ms: u64, attempts: Vec<AttemptId>) {
        self.sequence += 1;
        self.ends.insert((now + wait_ms, self.sequence), (wait_ms, attempts));
    }
}

impl Ledger {
    pub(super) fn started(&mut self, now: Time, members: Vec<(MemberId, Time)>) {
        let mut running = Vec::with_capacity(members.len());
        let mut strangers = Vec::new();
        for (member, since) in members {
            let attempt = member.attempt;
            match self.book.get(attempt).map(|entry| &entry.state) {
                Some(State::Killing | State::Revoking | State::Unhealthy) => {}
                Some(State::Running { since: known }) if *known == since => {}
                Some(state @ (State::Waiting | State::Starting | State::Recovering | State::Running { .. })) => {
                    let found_again = *state == State::Recovering;
                    if self.all_started(member) {
                        self.book.set(attempt, State::Running { since });
                        self.watch(now, attempt, since, found_again);
                        running.push(attempt);
                    }
                }
                // Nobody would ever hear of it: it was given up, or the record of it is damaged.
                Some(State::Ended { .. }) | None => strangers.push(member),
            }
        }
        self.tell_later(now, running);
        if !strangers.is_empty() {
            self.outputs.push_back(Output::Stop { members: strangers, grace_ms: 0 });
        }
    }

    pub(super) fn ended(&mut self, now: Time, members: Vec<(MemberId, Exit, Usage)>) {
        let mut gone: Vec<MemberId> = Vec::new();
        let mut ends = Vec::with_capacity(members.len());
        for (member, exit, usage) in members {
            if self.book.get(member.attempt).is_none() {
                gone.push(member);
            } else {
                let end = self.member_ended(member, exit, usage);
                let meant = |attempt, exit| self.as_revoked(attempt, self.as_unhealthy(attempt, exit));
                ends.extend(end.map(|(attempt, exit, usage)| (attempt, meant(attempt, exit), usage)));
            }
        }
        self.end(now, ends);
        if !gone.is_empty() {
            self.outputs.push_back(Output::Forget { members: gone });
        }
    }

    pub(super) fn surveyed(&mut self, now: Time) {
        let missing: Vec<MemberId> = self.unheard_members();
        let lost = missing.into_iter().map(|member| (member, Exit::Lost { reason: Loss::Executor }, Usage::default())).collect();
        self.ended(now, lost);
    }

    pub(super) fn kill(&mut self, now: Time, attempts: &[AttemptId], grace_ms: u64) {
        let (mut never_started, mut running) = (Vec::new(), Vec::new());
        for attempt in attempts.iter().take(ATTEMPTS_PER_MESSAGE_MAX) {
            match self.book.get(*attempt).map(|entry| &entry.state) {
                None | Some(State::Ended { .. }) => {}
                Some(State::Waiting) => never_started.push((*attempt, Exit::Killed, Usage::default())),
                Some(State::Recovering) => running.push(*attempt),
                Some(State::Starting | State::Running { .. } | State::Killing | State::Revoking | State::Unhealthy) => {
                    self.book.set(*attempt, State::Killing);
                    self.checks.forget(*attempt);
                    running.push(*attempt);
                }
            }
        }
        self.end(now, never_started);
        if !running.is_empty() {
            let members = running.iter().flat_map(|attempt| self.members(*attempt)).collect();
            self.tell_later(now, running);
            self.outputs.push_back(Output::Stop { members, grace_ms: grace_ms.min(GRACE_MS_MAX) });
        }
    }

    /// A framework of this shard says something to a task of its: to all of its members that an executor has or is to have.
    pub(super) fn message(&mut self, shard: ShardId, attempt: AttemptId, bytes: Bytes) {
        let state = self.book.get(attempt).map(|entry| &entry.state);
        let may = state.is_some_and(|state| !matches!(state, State::Waiting | State::Recovering | State::Ended { .. }));
        if may && attempt.task.job.shard() == shard && bytes.len() <= MESSAGE_BYTES_MAX {
            self.outputs.push_back(Output::Message { members: self.members(attempt), bytes });
        }
    }

    pub(super) fn acknowledged(&mut self, mut attempts: Vec<AttemptId>) {
        let mut members = Vec::with_capacity(attempts.len());
        attempts.retain(|attempt| {
            let of = self.members(*attempt);
            let forgotten = self.book.forget(*attempt);
            if forgotten {
                members.extend(of);
            }
            forgotten
        });
        if !attempts.is_empty() {
            self.outputs.push_back(Output::Checkpoint(Record::Forgotten { attempts }));
            self.outputs.push_back(Output::Forget { members });
            self.bundles.look_again();
        }
    }

    /// Tells ends now, and again until they are acknowledged.
    pub(super) fn tell_ends(&mut self, now: Time, attempts: Vec<AttemptId>) {
        for (shard, attempts) in self.by_shard(attempts) {
            self.tell(shard, &attempts);
            self.telling.of(shard).again(now, RESEND_FIRST_MS, attempts);
        }
    }

    /// Tells states that are no ends in a little while, if they still hold then.
    pub(super) fn tell_later(&mut self, now: Time, attempts: Vec<AttemptId>) {
        for (shard, attempts) in self.by_shard(attempts) {
            self.telling.of(shard).states.push_back((now + STATE_DELAY_MS, attempts));
        }
    }

    /// Tells the state of each now, ends or not, and forgets what was to be told of them.
    pub(super) fn tell_all(&mut self, now: Time, attempts: Vec<AttemptId>) {
        for (shard, mut attempts) in self.by_shard(attempts) {
            self.telling.forget(shard);
            self.tell(shard, &attempts);
            self.tell_healths(shard, &attempts);
            attempts.retain(|attempt| self.book.get(*attempt).is_some_and(|entry| matches!(entry.state, State::Ended { .. })));
            if !attempts.is_empty() {
                self.telling.of(shard).again(now, RESEND_FIRST_MS, attempts);
            }
        }
    }

    /// Tells in a while how far tasks are; the latest of each, however often they say it.
    pub(super) fn progressed(&mut self, now: Time, notes: Vec<(MemberId, u8, String)>) {
        for (member, percent, note) in notes {
            let shard = member.attempt.shard();
            if self.session.is_led(shard) && self.is_live(member.attempt) {
                let later = self.telling.of(shard);
                later.notes.insert(member.attempt, (percent, shortened(note, NOTE_BYTES_MAX)));
                later.notes_due.get_or_insert(now + NOTES_DELAY_MS);
            }
        }
    }

    pub(super) fn tell_due(&mut self, now: Time) {
        let due = self.telling.shards.iter().filter(|(_, later)| later.due().is_some_and(|due| due <= now));
        let due: Vec<ShardId> = due.map(|(shard, _)| *shard).collect();
        for shard in due {
            let mut later = self.telling.shards.remove(&shard).expect("it is one of them");
            self.tell_due_of(now, shard, &mut later);
            if later.due().is_some() {
                self.telling.shards.insert(shard, later);
            }
        }
    }

    fn tell_due_of(&mut self, now: Time, shard: ShardId, later: &mut Later) {
        if later.notes_due.take_if(|due| *due <= now).is_some() {
            let notes = std::mem::take(&mut later.notes).into_iter().filter(|(attempt, _)| self.is_live(*attempt));
            let notes: Vec<Progress> = notes.map(|(attempt, (percent, note))| Progress { attempt, percent, note }).collect();
            for part in notes.chunks(NOTES_PER_MESSAGE_MAX) {
                self.send(shard, FromAgent::Progress { notes: part.to_vec() });
            }
        }
        while later.states.front().is_some_and(|(due, _)| *due <= now) {
            let (_, mut attempts) = later.states.pop_front().expect("there is a first");
            // An end was told when it came.
            attempts.retain(|attempt| self.book.get(*attempt).is_some_and(|entry| !matches!(entry.state, State::Ended { .. })));
            self.tell(shard, &attempts);
        }
        while let Some(first) = later.ends.first_entry().filter(|first| first.key().0 <= now) {
            let (wait_ms, mut attempts) = first.remove();
            attempts.retain(|attempt| self.book.get(*attempt).is_some());
            if !attempts.is_empty() {
                self.tell(shard, &attempts);
                later.again(now, (2 * wait_ms).min(RESEND_MAX_MS), attempts);
            }
        }
    }

    /// Those of shards that are led, by shard.
    fn by_shard(&self, attempts: Vec<AttemptId>) -> BTreeMap<ShardId, Vec<AttemptId>> {
        let mut by_shard: BTreeMap<ShardId, Vec<AttemptId>> = BTreeMap::new();
        for attempt in attempts.into_iter().filter(|attempt| self.session.is_led(attempt.shard())) {
            by_shard.entry(attempt.shard()).or_default().push(attempt);
        }
        by_shard
    }

    /// Tells a shard the states of these, which are its own.
    pub(super) fn tell(&mut self, shard: ShardId, attempts: &[AttemptId]) {
        let (mut bytes, mut updates) = (0, Vec::new());
        for attempt in attempts {
            let Some(state) = self.book.get(*attempt).and_then(told) else { continue };
            bytes += bytes_max(&state);
            updates.push(Update { attempt: *attempt, state });
            if updates.len() == ATTEMPTS_PER_MESSAGE_MAX || bytes >= STATUS_BYTES_AIM {
                bytes = 0;
                self.send(shard, FromAgent::Status { updates: std::mem::take(&mut updates) });
            }
        }
        if !updates.is_empty() {
            self.send(shard, FromAgent::Status { updates });
        }
    }
}

/// Most bytes that an update with this state takes in a message.
fn bytes_max(state: &TaskState) -> usize {
    const UPDATE_BYTES: usize = 96;
    UPDATE_BYTES
        + match state {
            TaskState::Ended { exit: Exit::Trap { reason } | Exit::Rejected { reason } | Exit::Unhealthy { reason }, .. } => reason.len(),
            TaskState::Running { ports, .. } => 3 * ports.len(),
            _ => 0,
        }
}

/// The state as masters are told it; nothing while nobody here knows it.
fn told(entry: &Entry) -> Option<TaskState> {
    match &entry.state {
        State::Recovering => None,
        State::Waiting | State::Starting => Some(TaskState::Starting),
        State::Running { since } => Some(TaskState::Running { since: *since, ports: entry.ports.clone() }),
        State::Killing | State::Revoking | State::Unhealthy => Some(TaskState::Killing),
        State::Ended { exit, usage } => Some(TaskState::Ended { exit: exit.clone(), usage: *usage }),
    }
}
