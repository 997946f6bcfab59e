//! The events that a master keeps, in the order in which it heard them, its own and those of the other masters; and how a reader goes on from
//! what he heard at any of them.
//!
//! All masters hear all, in an order of their own. What each told has its numbers, so it is seen where something is missing: a connection broke,
//! a master came late, or one started again and nobody knows what it told last.

use super::access;
use super::heard::Heard;
use crate::drive::told::{Life, Told, What};
use crate::shard::event::Change;
use protocol::Time;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::watch;

/// Events that are kept.
pub const EVENTS_MAX: usize = 4_096;
/// Attempts that are named in all events that are kept.
pub const EVENTS_ATTEMPTS_MAX: usize = 65_536;
/// Events that are told at a time.
pub const BATCH_MAX: usize = 64;

/// The events that are kept.
#[derive(Debug, Default)]
pub struct EventLog {
    ring: Mutex<Ring>,
    /// The place of the next event.
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    /// The place of the first event that is kept.
    first: u64,
    events: VecDeque<Arc<Event>>,
    attempts: usize,
    /// What was heard before the first that is kept.
    before: Heard,
    /// All that was heard.
    heard: Heard,
}

/// One event that is kept.
#[derive(Debug)]
pub struct Event {
    /// What was told; `None` where nobody knows what was not heard.
    pub told: Option<Arc<Told>>,
    /// True where something before it is missing here.
    pub is_after_gap: bool,
    /// When this master heard of it.
    pub at: Time,
    /// Its two lines, made when the first reader wants them.
    pub text: OnceLock<String>,
}

/// What is kept from a place on.
pub enum Read {
    /// The next of them.
    Events(Vec<Arc<Event>>),
    /// That place is gone.
    Behind {
        /// The first that is kept.
        first: u64,
    },
}

/// Where a reader begins.
#[derive(Debug)]
pub struct Start {
    /// The place of the first event that he may not have heard.
    pub next: u64,
    /// What he heard by then.
    pub heard: Heard,
    /// True where he has to be told that something is missing.
    pub is_after_gap: bool,
}

impl EventLog {
    /// Counts what is kept from now on: this much was told by this master before.
    pub fn begin(&self, life: Life, number: u64) {
        let mut ring = self.ring();
        ring.before.hear(life, number);
        ring.heard.hear(life, number);
    }

    /// Keeps one more. True where something before it was not heard here.
    pub fn push(&self, told: Arc<Told>) -> bool {
        let mut ring = self.ring();
        let (life, number) = (told.life, told.number);
        if ring.heard.covers(life, number) {
            return false;
        }
        let is_after_gap = match ring.heard.of(life) {
            Some(last) => told.before() > last,
            // Nobody knows what the life before told last.
            None => told.before() > 0 || ring.heard.since(life.master).is_some(),
        };
        ring.heard.hear(life, number);
        if is_after_gap || !matches!(told.what, What::Nothing) {
            self.keep(ring, Some(told), is_after_gap);
        }
        is_after_gap
    }

    /// Something was told and not heard here: readers are told so.
    pub fn lost(&self) {
        self.keep(self.ring(), None, true);
    }

    fn keep(&self, mut ring: MutexGuard<'_, Ring>, told: Option<Arc<Told>>, is_after_gap: bool) {
        ring.attempts += told.as_deref().map_or(0, attempts);
        ring.events.push_back(Arc::new(Event { told, is_after_gap, at: access::now(), text: OnceLock::new() }));
        while ring.events.len() > EVENTS_MAX || (ring.attempts > EVENTS_ATTEMPTS_MAX && ring.events.len() > 1) {
            let Some(oldest) = ring.events.pop_front() else { break };
            ring.first += 1;
            if let Some(told) = &oldest.told {
                ring.attempts -= attempts(told);
                ring.before.hear(told.life, told.number);
            }
        }
        let next = ring.first + ring.events.len() as u64;
        drop(ring);
        self.newest.send_replace(next);
    }

    /// The next events from a place on.
    pub fn read(&self, from: u64) -> Read {
        let ring = self.ring();
        match from.checked_sub(ring.first) {
            None => Read::Behind { first: ring.first },
            Some(skipped) => {
                let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
                Read::Events(ring.events.iter().skip(skipped).take(BATCH_MAX).cloned().collect())
            }
        }
    }

    /// Where a reader begins who heard nothing before, and wants what comes from now on.
    pub fn now(&self) -> Start {
        let ring = self.ring();
        Start { next: ring.first + ring.events.len() as u64, heard: ring.heard.clone(), is_after_gap: false }
    }

    /// Where a reader begins who wants all that is kept.
    pub fn kept(&self) -> Start {
        let ring = self.ring();
        Start { next: ring.first, heard: ring.before.clone(), is_after_gap: false }
    }

    /// Where a reader begins who heard that much, here or at another master; `is_master` says which there are.
    pub fn after(&self, mut heard: Heard, is_master: impl Fn(u64) -> bool) -> Start {
        let ring = self.ring();
        let mut is_after_gap = false;
        for (life, number) in heard.clone().lives() {
            let here = ring.heard.since(life.master);
            // Of a master that this one heard nothing of, or not of that life, nobody here knows whether it told more.
            is_after_gap |= here != Some(life.since);
            is_after_gap |= ring.before.of(life).is_some_and(|before| before > number);
            // What a master told that was removed is missing once, and not again each time.
            if here.is_none() && !is_master(life.master) {
                heard.forget(life.master);
            }
        }
        // A master that he heard nothing of told something that is not kept.
        is_after_gap |= ring.before.lives().any(|(life, number)| number > 0 && heard.since(life.master).is_none());
        heard.hear_all(&ring.before);
        Start { next: ring.first, heard, is_after_gap }
    }

    /// What was heard before the first event that is kept.
    pub fn before(&self) -> Heard {
        self.ring().before.clone()
    }

    /// The place of the next event, whenever there is one.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Nothing inside the lock can panic half way.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn attempts(told: &Told) -> usize {
    match told.change() {
        Some(Change::Tasks { placed, .. }) => placed.len(),
        Some(Change::Health { found, .. }) => found.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{JobId, Role};

    const LIVES: [Life; 3] = [Life { master: 1, since: 10 }, Life { master: 2, since: 20 }, Life { master: 1, since: 30 }];

    fn told(life: Life, number: u64) -> Arc<Told> {
        let role = Role::new("default").unwrap();
        let change = Change::Job { job: JobId(number), role, title: "x".into(), what: "ended".into() };
        Arc::new(Told { life, number, what: What::Change(change) })
    }

    /// The numbers that a reader hears who begins so, and whether he is told that something is missing.
    fn heard(log: &EventLog, text: &str) -> (Vec<(u64, u64)>, bool) {
        let Start { next, mut heard, mut is_after_gap } = log.after(text.parse().unwrap(), |_| true);
        let Read::Events(events) = log.read(next) else { panic!() };
        let mut numbers = vec![];
        for told in events.iter().filter_map(|event| event.told.as_ref().map(|told| (told, event.is_after_gap))) {
            let (told, after_gap) = told;
            if !heard.covers(told.life, told.number) {
                is_after_gap |= after_gap && heard.of(told.life) != Some(told.before());
                heard.hear(told.life, told.number);
                numbers.push((told.life.master, told.number));
            }
        }
        (numbers, is_after_gap)
    }

    #[test]
    fn what_was_heard_at_one_master_goes_on_at_another() {
        let [one, two, again] = LIVES;
        let log = EventLog::default();
        // In another order than at the master where the reader was.
        for (life, number) in [(two, 1), (one, 1), (one, 2), (two, 2), (one, 3)] {
            assert!(!log.push(told(life, number)), "{life:?} {number}");
        }
        assert!(!log.push(told(one, 3)), "nothing is kept twice");
        assert_eq!(heard(&log, "1.a-2_2.14-1"), (vec![(2, 2), (1, 3)], false));
        assert_eq!(heard(&log, "1.a-3_2.14-2"), (vec![], false));
        // The reader is ahead of this master; and he heard nothing yet of one that is new.
        assert_eq!(heard(&log, "1.a-9_2.14-2"), (vec![], false));
        assert_eq!(heard(&log, "1.a-2"), (vec![(2, 1), (2, 2), (1, 3)], false));
        // Nobody here knows of those.
        assert!(heard(&log, "1.a-3_2.14-2_3.1-1").1 && heard(&log, "1.9-3_2.14-2").1 && heard(&log, "1.b-1_2.14-2").1);
        // One that starts again may have told more before.
        assert!(log.push(told(again, 1)));
        assert_eq!(heard(&log, "1.a-3_2.14-2"), (vec![(1, 1)], true));
        assert_eq!(heard(&log, "1.1e-1_2.14-1"), (vec![(2, 2)], false));
    }

    #[test]
    fn what_was_not_heard_is_known_to_be_missing() {
        let [one, two, _] = LIVES;
        let log = EventLog::default();
        log.begin(one, 7);
        assert!(!log.push(told(one, 8)));
        assert!(log.push(Arc::new(Told { life: two, number: 4, what: What::Nothing })), "a master that came late");
        assert!(!log.push(told(two, 5)));
        assert!(log.push(told(two, 7)), "a connection that broke");
        assert_eq!(heard(&log, "1.a-8_2.14-5"), (vec![(2, 7)], true));
        assert_eq!(heard(&log, "1.a-8_2.14-6"), (vec![(2, 7)], false));
        assert!(heard(&log, "1.a-6_2.14-7").1);
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_rest_is_said_to_be_missing() {
        let [one, ..] = LIVES;
        let log = EventLog::default();
        for number in 1..=EVENTS_MAX as u64 + 2 {
            log.push(told(one, number));
        }
        assert!(matches!(log.read(1), Read::Behind { first: 2 }));
        assert!(matches!(log.read(2), Read::Events(events) if events.len() == BATCH_MAX));
        assert!(matches!(log.read(u64::MAX), Read::Events(events) if events.is_empty()));
        let is_after_gap = |text: &str| log.after(text.parse().unwrap(), |_| true).is_after_gap;
        assert_eq!((is_after_gap("1.a-2"), is_after_gap("1.a-1")), (false, true));
        let start = log.after("1.a-2_9.1-1".parse().unwrap(), |master| master < 9);
        assert!(start.is_after_gap && start.heard.since(9).is_none(), "a master that was removed is forgotten");
        assert_eq!(log.now().heard.of(one), Some(EVENTS_MAX as u64 + 2));
    }
}
