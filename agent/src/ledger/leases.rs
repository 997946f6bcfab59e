//! The lease of fenced attempts: they run while the agent's shard has heard of the agent lately.
//!
//! Every answer to a beat or a registration renews it, counted from when that was *sent*: the shard heard it no earlier, so it waits longer than
//! the lease holds before it has an attempt replaced, however late the answer came. Executors hold the end of it themselves, and what is over there
//! is over; here, that is so of attempts that no executor has yet.

use protocol::{Exit, Loss, MemberId, Time, Usage};

use super::Ledger;
use super::book::State;
use super::event::Output;

/// The lease that all fenced attempts of an agent have.
#[derive(Clone, Debug, Default)]
pub(super) struct Leases {
    /// How long it holds, as the agent's shard said last; `None` while it has launched nothing fenced.
    lease_ms: Option<u64>,
    /// When the latest of what was answered was sent.
    answered: Option<Time>,
}

impl Leases {
    /// Until when it holds, or held.
    pub fn until(&self) -> Option<Time> {
        Some(self.answered? + self.lease_ms?)
    }
}

impl Ledger {
    /// What was sent at `sent` was answered by the leader of the agent's shard.
    pub(super) fn answered(&mut self, now: Time, sent: Time) {
        self.leases.answered = self.leases.answered.max(Some(sent.min(now)));
        self.renew_leases(now);
    }

    /// The agent's shard says how long leases hold.
    pub(super) fn lease_said(&mut self, now: Time, lease_ms: u64) {
        if self.leases.lease_ms != Some(lease_ms) || self.book.has_fenced() {
            self.leases.lease_ms = Some(lease_ms);
            self.renew_leases(now);
        }
    }

    fn renew_leases(&mut self, now: Time) {
        let Some(until) = self.leases.until().filter(|until| *until > now && self.book.has_fenced()) else { return };
        let held = self.book.fenced().filter(|(_, entry)| !matches!(entry.state, State::Waiting | State::Ended { .. }));
        let members: Vec<MemberId> = held.flat_map(|(attempt, entry)| MemberId::all(attempt, &entry.launch.template)).collect();
        if !members.is_empty() {
            self.outputs.push_back(Output::Renew { members, until });
        }
    }

    /// Ends the fenced attempts that no executor has, where the lease is over: their task may have been given to another agent since, and the
    /// next lease is not theirs.
    pub(super) fn end_overdue(&mut self, now: Time) {
        if !self.book.has_fenced() || self.leases.until().is_some_and(|until| until > now) {
            return;
        }
        let waiting = self.book.fenced().filter(|(_, entry)| entry.state == State::Waiting);
        let over = Exit::Lost { reason: Loss::LeaseOver };
        let ends = waiting.map(|(attempt, _)| (attempt, over.clone(), Usage::default())).collect();
        self.end(now, ends);
    }
}
