//! The members of an attempt: started and ended one by one by their executors, told to the master as one. An attempt runs once each of
//! its members was started, and has ended once each of them has; the first that does not end well takes the others with it.

use protocol::{AttemptId, Exit, MemberId, Usage};

use super::Ledger;
use super::book::{Group, State};
use super::event::Output;

/// Milliseconds that the others have when one of them failed.
const GRACE_MS: u64 = 10_000;

impl Ledger {
    /// The members of an attempt that is held; empty where it is not.
    pub(super) fn members(&self, attempt: AttemptId) -> Vec<MemberId> {
        let entry = self.book.get(attempt);
        entry.map(|entry| MemberId::all(attempt, &entry.launch.template).collect()).unwrap_or_default()
    }

    /// Notes that `member` was started; true where all of its attempt's have been.
    pub(super) fn all_started(&mut self, member: MemberId) -> bool {
        let count = self.members(member.attempt).len();
        let Some(group) = self.book.group(member.attempt) else { return true };
        if usize::from(member.member) < count {
            group.started.insert(member.member);
        }
        let begun = |group: &Group| group.started.len() + group.ended.keys().filter(|ended| !group.started.contains(ended)).count();
        begun(group) == count
    }

    /// Notes that `member` ended; gives back the end of its attempt where all of them have. Has the others stopped where it did not end well.
    pub(super) fn member_ended(&mut self, member: MemberId, exit: Exit, usage: Usage) -> Option<(AttemptId, Exit, Usage)> {
        let attempt = member.attempt;
        let members = self.members(attempt);
        let stopping =
            self.book.get(attempt).is_some_and(|entry| matches!(entry.state, State::Killing | State::Revoking | State::Unhealthy));
        let Some(group) = self.book.group(attempt) else {
            return Some((attempt, exit, usage));
        };
        if usize::from(member.member) >= members.len() || group.ended.contains_key(&member.member) {
            return None;
        }
        group.ended.insert(member.member, usage);
        let first_failure = !exit.is_success() && group.failure.is_none();
        if first_failure {
            group.failure = Some(exit);
        }
        let others: Vec<MemberId> = members.into_iter().filter(|other| !group.ended.contains_key(&other.member)).collect();
        if others.is_empty() {
            let exit = group.failure.take().unwrap_or(Exit::Code(0));
            let usage = group.ended.values().fold(Usage::default(), |sum, usage| sum.and(usage));
            return Some((attempt, exit, usage));
        }
        if first_failure && !stopping {
            self.outputs.push_back(Output::Stop { members: others, grace_ms: GRACE_MS });
        }
        None
    }

    /// Members of attempts that were recovered and that no executor has named.
    pub(super) fn unheard_members(&self) -> Vec<MemberId> {
        let recovering = self.book.entries().filter(|(_, entry)| entry.state == State::Recovering);
        let unheard = |(attempt, entry): (&AttemptId, &super::book::Entry)| {
            let known = |member: &MemberId| {
                let group = entry.group.as_deref();
                group.is_some_and(|group| group.started.contains(&member.member) || group.ended.contains_key(&member.member))
            };
            MemberId::all(*attempt, &entry.launch.template).filter(move |member| !known(member)).collect::<Vec<_>>()
        };
        recovering.flat_map(unheard).collect()
    }
}
