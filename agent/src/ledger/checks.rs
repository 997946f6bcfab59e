//! What is asked of attempts that have checks, when, and what follows from the answers: an attempt that fails too often in a row is ended, and its shard
//! is told at each change whether it is well. Of the moment only: after a recovery all is asked anew, and nothing is told of an attempt before each
//! of its checks was answered once, so that what a master knows holds until then.

use protocol::message::{ATTEMPTS_PER_MESSAGE_MAX, FromAgent, NOTES_PER_MESSAGE_MAX, attempt_hash};
use protocol::task::HEALTH_BYTES_MAX;
use protocol::{AttemptId, Check, Exit, Health, MemberId, ShardId, Time, Verdict};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Ledger;
use super::book::State;
use super::bundles::shortened;
use super::event::{Answer, CheckId, Output, Purpose, Question, Record};

/// Questions that are asked at the same time; the others wait until some are answered.
pub const ASKED_MAX: usize = 256;
/// How long after its start an attempt is asked first, and how long it is left alone after its first failure; doubled with each further one up to the
/// time between two checks, until it has succeeded once: whoever waits for it should not wait for a clock.
const EAGER_FIRST_MS: u64 = 50;
/// Milliseconds that an attempt has to stop that is not well.
const GRACE_MS: u64 = 10_000;

/// All attempts that run and have checks.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    attempts: BTreeMap<AttemptId, Watched>,
    due: BTreeSet<(Time, CheckId)>,
    /// Those that are asked, and have not been answered.
    asked: BTreeSet<CheckId>,
}

#[derive(Clone, Debug)]
struct Watched {
    /// Since when it runs.
    since: Time,
    checks: Vec<One>,
    /// What its shard was told, or would have been, had it been led.
    found: Option<(Verdict, String)>,
}

/// One check of an attempt.
#[derive(Clone, Debug)]
struct One {
    id: CheckId,
    check: Arc<Check>,
    /// When it is asked next; `None`: it is asked, or never again.
    due: Option<Time>,
    /// What came of it last.
    last: Option<bool>,
    /// It has succeeded once.
    proven: bool,
    /// In a row, as far as they count.
    failures: u32,
    /// How long it is left alone after a failure.
    wait_ms: u64,
    reason: String,
}

impl Watch {
    pub fn timeout(&self) -> Option<Time> {
        self.due.first().map(|(due, _)| *due).filter(|_| self.asked.len() < ASKED_MAX)
    }

    /// Nothing is asked of it any more.
    pub fn forget(&mut self, attempt: AttemptId) {
        for one in self.attempts.remove(&attempt).into_iter().flat_map(|watched| watched.checks) {
            if let Some(due) = one.due {
                self.due.remove(&(due, one.id));
            }
        }
    }
}

impl One {
    fn counts(&self, since: Time, now: Time) -> bool {
        self.proven || now >= since + self.check.grace_ms
    }

    /// Takes an answer in, and says when it is asked next; `None`: not again.
    fn answered(&mut self, now: Time, since: Time, answer: Answer) -> Option<Time> {
        match answer {
            Answer::Well => {
                // The first time spreads those that were started together.
                let share = 512 + if self.proven { 512 } else { spread(self.id) % 512 };
                (self.last, self.proven, self.failures, self.wait_ms) = (Some(true), true, 0, self.check.every_ms);
                self.reason = String::new();
                return (self.id.purpose == Purpose::Health).then(|| now + (self.check.every_ms * share / 1_024).max(1));
            }
            Answer::Unwell(reason) => {
                self.last = Some(false);
                self.failures = if self.counts(since, now) { self.failures.saturating_add(1) } else { 0 };
                self.reason = shortened(reason, HEALTH_BYTES_MAX);
            }
            Answer::Nothing => {}
        }
        let next = now + self.wait_ms;
        self.wait_ms = (2 * self.wait_ms).min(self.check.every_ms);
        Some(next)
    }

    fn is_over(&self) -> bool {
        let most = self.check.failures_max;
        self.id.purpose == Purpose::Health && most > 0 && self.failures >= most
    }
}

impl Watched {
    /// What is to be told of it; nothing while a check has no answer yet.
    fn verdict(&self, now: Time) -> Option<(Verdict, String)> {
        if self.checks.iter().any(|one| one.last.is_none()) {
            return None;
        }
        let failing = || self.checks.iter().filter(|one| one.last == Some(false));
        let bad = failing().find(|one| one.id.purpose == Purpose::Health && one.counts(self.since, now));
        Some(match (bad, failing().next()) {
            (Some(one), _) => (Verdict::Unhealthy, one.reason.clone()),
            (None, Some(one)) => (Verdict::Unready, one.reason.clone()),
            (None, None) => (Verdict::Healthy, String::new()),
        })
    }
}

/// Any number, but always the same of one check.
fn spread(id: CheckId) -> u64 {
    attempt_hash(id.member.attempt).rotate_left(16 + 8 * u32::from(id.member.member) + 3 * u32::from(id.purpose == Purpose::Health)) >> 7
}

impl Ledger {
    /// An attempt runs: what its job asks of it is asked from now on, or from when the check says. One that was found again is asked some time within its usual one, lest all of an
    /// agent that begins are asked at once.
    pub(super) fn watch(&mut self, now: Time, attempt: AttemptId, since: Time, found_again: bool) {
        let Some(entry) = self.book.get(attempt).filter(|entry| entry.launch.template.has_checks()) else { return };
        if self.checks.attempts.contains_key(&attempt) {
            return;
        }
        if self.book.unhealthy(attempt).is_some() {
            return self.stop_unhealthy(now, vec![attempt]); // Whoever was to tell it to stop may have ended before.
        }
        // The grace of one that has just begun is not counted by another process' clock.
        let since = if found_again { since.min(now) } else { now };
        let mut all = Vec::new();
        for (member, of) in MemberId::all(attempt, &entry.launch.template).zip(&entry.launch.template.members) {
            let checks = of.checks();
            for (purpose, check) in [(Purpose::Health, checks.health), (Purpose::Readiness, checks.readiness)] {
                let Some(check) = check.map(Arc::new) else { continue };
                let (id, wait_ms) = (CheckId { member, purpose }, EAGER_FIRST_MS.min(check.every_ms));
                let first_ms = if found_again { spread(id) % check.every_ms.max(1) } else { wait_ms };
                let due = (now + first_ms).max(since + check.delay_ms);
                self.checks.due.insert((due, id));
                all.push(One { id, check, due: Some(due), last: None, proven: false, failures: 0, wait_ms, reason: String::new() });
            }
        }
        self.checks.attempts.insert(attempt, Watched { since, checks: all, found: None });
    }

    /// Has asked what is due, as much as may be asked at once.
    pub(super) fn ask_due(&mut self, now: Time) {
        let mut questions = Vec::new();
        while self.checks.asked.len() < ASKED_MAX {
            let Some((due, id)) = self.checks.due.first().copied().filter(|(due, _)| *due <= now) else { break };
            self.checks.due.remove(&(due, id));
            let entry = self.book.get(id.member.attempt).filter(|entry| matches!(entry.state, State::Running { .. }));
            let watched = self.checks.attempts.get_mut(&id.member.attempt);
            let one = watched.and_then(|watched| watched.checks.iter_mut().find(|one| one.id == id));
            let Some((entry, one)) = entry.zip(one) else { continue };
            one.due = None;
            let (launch, check) = (Arc::clone(&entry.launch), Arc::clone(&one.check));
            questions.push(Question { id, check, launch, ports: entry.ports.clone(), given: entry.given.clone() });
            self.checks.asked.insert(id);
        }
        if !questions.is_empty() {
            self.outputs.push_back(Output::Check(questions));
        }
    }

    /// Questions were answered.
    pub(super) fn checked(&mut self, now: Time, answers: Vec<(CheckId, Answer)>) {
        let (mut changed, mut over) = (Vec::new(), Vec::new());
        for (id, answer) in answers {
            let attempt = id.member.attempt;
            let runs = self.book.get(attempt).is_some_and(|entry| matches!(entry.state, State::Running { .. }));
            let watched = self.checks.attempts.get_mut(&attempt).filter(|_| runs);
            let (true, Some(watched)) = (self.checks.asked.remove(&id), watched) else { continue };
            let since = watched.since;
            let Some(one) = watched.checks.iter_mut().find(|one| one.id == id) else { continue };
            one.due = one.answered(now, since, answer);
            self.checks.due.extend(one.due.map(|due| (due, id)));
            if one.is_over() {
                over.push((attempt, one.reason.clone()));
            }
            let found = watched.verdict(now);
            if found.is_some() && found != watched.found {
                let is_first = watched.found.is_none();
                watched.found = found;
                changed.push((attempt, is_first));
            }
        }
        self.tell_changed(changed);
        self.end_unhealthy(now, over);
    }

    /// Ends attempts that are not well: on record first.
    fn end_unhealthy(&mut self, now: Time, over: Vec<(AttemptId, String)>) {
        for part in over.chunks(ATTEMPTS_PER_MESSAGE_MAX) {
            self.book.note_unhealthy(part);
            self.outputs.push_back(Output::Checkpoint(Record::Unhealthy { attempts: part.to_vec() }));
            self.stop_unhealthy(now, part.iter().map(|(attempt, _)| *attempt).collect());
        }
    }

    fn stop_unhealthy(&mut self, now: Time, attempts: Vec<AttemptId>) {
        for attempt in &attempts {
            self.checks.forget(*attempt);
            self.book.set(*attempt, State::Unhealthy);
        }
        let members = attempts.iter().flat_map(|attempt| self.members(*attempt)).collect();
        self.tell_later(now, attempts);
        self.outputs.push_back(Output::Stop { members, grace_ms: GRACE_MS });
    }

    /// How an attempt ended that was asked to stop since it was not well, unless a master wanted that too.
    pub(super) fn as_unhealthy(&self, attempt: AttemptId, exit: Exit) -> Exit {
        let asked = self.book.get(attempt).is_some_and(|entry| entry.state == State::Killing);
        match (exit, self.book.unhealthy(attempt).filter(|_| !asked)) {
            (Exit::Killed, Some(reason)) => Exit::Unhealthy { reason: reason.clone() },
            (exit, _) => exit,
        }
    }

    /// Tells at once of those of which something else was found than before; where that is the first, behind their state.
    fn tell_changed(&mut self, changed: Vec<(AttemptId, bool)>) {
        let mut by_shard: BTreeMap<ShardId, (Vec<AttemptId>, Vec<AttemptId>)> = BTreeMap::new();
        for (attempt, is_first) in changed {
            let (first, all) = by_shard.entry(attempt.shard()).or_default();
            first.extend(is_first.then_some(attempt));
            all.push(attempt);
        }
        for (shard, (first, all)) in by_shard {
            self.tell(shard, &first);
            self.tell_healths(shard, &all);
        }
    }

    /// Tells a shard what was found of these, which are its own.
    pub(super) fn tell_healths(&mut self, shard: ShardId, attempts: &[AttemptId]) {
        let found = |attempt: &AttemptId| {
            let (verdict, reason) = self.checks.attempts.get(attempt)?.found.clone()?;
            Some(Health { attempt: *attempt, verdict, reason })
        };
        let healths: Vec<Health> = if self.checks.attempts.is_empty() { vec![] } else { attempts.iter().filter_map(found).collect() };
        for part in healths.chunks(NOTES_PER_MESSAGE_MAX) {
            self.send(shard, FromAgent::Health { healths: part.to_vec() });
        }
    }
}
