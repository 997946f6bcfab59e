//! What is promised and idle: how much of the machine is lent to tasks that may be ended at any moment, and taking it back from them.
//!
//! What tasks that are not revocable *need* is what they use, as is measured; one that does not run yet needs all that it is promised. Lent is what
//! nobody needed for a while, but for a margin. It is taken back once what is needed now and what is lent do not fit the machine together, from the
//! youngest first. So a task that is not revocable is never refused because of those that are.

use protocol::message::FromAgent;
use protocol::{AttemptId, Exit, Lent, Loss, MemberId, Program, Resources, Template, Time, Usage};
use std::cmp::Reverse;
use std::collections::VecDeque;

use super::Ledger;
use super::book::{Entry, State};
use super::event::Output;

/// What was needed at any moment of so many milliseconds is not lent.
const WINDOW_MS: u64 = 10_000;
/// What is needed within so many milliseconds is kept as one.
const TOGETHER_MS: u64 = 200;
/// So large a part of the capacity stays free, in hundredths: what a service may grow by before anything is taken back.
const MARGIN_PERCENT: u64 = 10;
/// A change that is smaller than this part of the capacity is not said, in hundredths.
const STEP_PERCENT: u64 = 5;
/// More is said at most so often, in milliseconds; less, at once.
const SAY_EACH_MS: u64 = 2_000;
/// Milliseconds that a process has to end when it is taken back what it was lent.
const GRACE_MS: u64 = 250;

/// What is known of what is needed, and what was said of the rest.
#[derive(Clone, Debug)]
pub(super) struct Slack {
    lends: bool,
    /// What was used when it was measured last and the time before.
    used: Option<(Lent, Lent)>,
    /// Promised to those of which nothing could be read.
    unread: Lent,
    /// The most that was needed, of each [`TOGETHER_MS`] of the last [`WINDOW_MS`].
    needed: VecDeque<(Time, Lent)>,
    said: Lent,
    /// In which session, and when.
    told: Option<(u64, Time)>,
}

impl Slack {
    pub const fn new(lends: bool) -> Self {
        Self { lends, used: None, unread: Lent::NONE, needed: VecDeque::new(), said: Lent::NONE, told: None }
    }

    /// So much is needed now.
    fn note(&mut self, now: Time, need: Lent) {
        while self.needed.front().is_some_and(|(at, _)| now.since(*at) >= WINDOW_MS) {
            self.needed.pop_front();
        }
        match self.needed.back_mut().filter(|(at, _)| now.since(*at) < TOGETHER_MS) {
            Some((_, most)) => *most = most.each(need, u64::max),
            None => self.needed.push_back((now, need)),
        }
    }

    fn most_needed(&self) -> Lent {
        self.needed.iter().fold(Lent::NONE, |most, (_, need)| most.each(*need, u64::max))
    }
}

impl Ledger {
    pub(super) fn measured(&mut self, now: Time, used: Lent, unread: &[MemberId]) {
        let promised = |member: &MemberId| {
            let entry = self.book.get(member.attempt).filter(|entry| matches!(entry.state, State::Running { .. }))?;
            Some(plain(&entry.launch.template.members.get(usize::from(member.member))?.resources))
        };
        let unread = unread.iter().filter_map(promised).fold(Lent::NONE, |sum, each| sum.each(each, u64::saturating_add));
        if self.slack.used.is_none() && self.book.entries().any(|(_, entry)| !entry.launch.template.is_revocable()) {
            // What they needed before is not known.
            self.slack.note(now, plain(self.book.capacity()));
        }
        let before = self.slack.used.map_or(used, |(last, _)| last);
        (self.slack.used, self.slack.unread) = (Some((used, before)), unread);
    }

    /// Says what is lent, and takes back what is needed.
    pub(super) fn mind_slack(&mut self, now: Time) {
        let capacity = plain(self.book.capacity());
        let Some((used, before)) = self.slack.used.filter(|_| self.slack.lends) else {
            // Nobody would measure what is lent, after an agent that did was started anew without.
            if !self.slack.lends {
                self.take_back(now, Lent::NONE);
            }
            return;
        };
        let unused = plain(self.book.unsettled()).each(self.slack.unread, u64::saturating_add);
        let need = used.each(unused, u64::saturating_add);
        self.slack.note(now, need);
        // A moment in which processors are wanted is over before it could be given them: only two in a row count. Memory that is gone is gone.
        let need = Lent { cpu_milli: used.cpu_milli.min(before.cpu_milli).saturating_add(unused.cpu_milli), ..need };
        let taken_back = self.take_back(now, capacity.each(need, u64::saturating_sub));
        self.say_slack(now, capacity, taken_back);
    }

    fn say_slack(&mut self, now: Time, capacity: Lent, taken_back: bool) {
        let (Some(session), Some(own)) = (self.session.number(), self.session.own()) else { return };
        let margin = capacity.each(Lent::NONE, |of, _| of * MARGIN_PERCENT / 100);
        let step = capacity.each(Lent::NONE, |of, _| of * STEP_PERCENT / 100);
        let busy = self.slack.most_needed().each(margin, u64::saturating_add);
        let lent = capacity.each(busy, u64::saturating_sub);
        let beyond = |of: Lent, other: Lent| {
            let far = of.each(other, u64::saturating_sub).each(step, |more, step| u64::from(more > step));
            far != Lent::NONE
        };
        let told = self.slack.told.filter(|(told, _)| *told == session);
        let said = if told.is_some() { self.slack.said } else { Lent::NONE };
        let less = beyond(said, lent) || taken_back && lent != said;
        let more = beyond(lent, said) && told.is_none_or(|(_, at)| now.since(at) >= SAY_EACH_MS);
        if less || more {
            (self.slack.said, self.slack.told) = (lent, Some((session, now)));
            self.book.lend(lent);
            self.send(own, FromAgent::Slack { session, lent });
        }
    }

    /// Ends revocable attempts until those that stay have no more than `room`: wasm first, which takes no time to end, and of both the youngest. True
    /// where there were any.
    fn take_back(&mut self, now: Time, room: Lent) -> bool {
        let held = self.book.promised().lent();
        if held.each(room, u64::saturating_sub) == Lent::NONE {
            return false;
        }
        // Those of whom nobody has said yet whether they live are looked at once that is known.
        let is_in_way = |(_, entry): &(AttemptId, &Entry)| {
            !matches!(entry.state, State::Killing | State::Revoking | State::Unhealthy | State::Recovering)
        };
        let mut in_way: Vec<(AttemptId, &Entry)> = self.book.revocable().filter(is_in_way).collect();
        in_way.sort_unstable_by_key(|(attempt, entry)| (is_process(&entry.launch.template), Reverse(since(entry)), Reverse(*attempt)));
        let lent = |entry: &Entry| entry.launch.template.resources.lent();
        let mut held = in_way.iter().fold(Lent::NONE, |sum, (_, entry)| sum.each(lent(entry), u64::saturating_add));
        let (mut never_started, mut stopped) = (Vec::new(), Vec::new());
        for (attempt, entry) in in_way {
            if held.each(room, u64::saturating_sub) == Lent::NONE {
                break;
            }
            held = held.each(lent(entry), u64::saturating_sub);
            match entry.state {
                State::Waiting => never_started.push((attempt, Exit::Lost { reason: Loss::Revoked }, Usage::default())),
                _ => stopped.push(attempt),
            }
        }
        let any = !never_started.is_empty() || !stopped.is_empty();
        self.end(now, never_started);
        if !stopped.is_empty() {
            stopped.iter().for_each(|attempt| self.book.set(*attempt, State::Revoking));
            let members = stopped.iter().flat_map(|attempt| self.members(*attempt)).collect();
            self.tell_later(now, stopped);
            self.outputs.push_back(Output::Stop { members, grace_ms: GRACE_MS });
        }
        any
    }

    /// How a revocable attempt ended that was asked to stop: by nobody but us, unless a master asked for it. So it is after a recovery, too.
    pub(super) fn as_revoked(&self, attempt: AttemptId, exit: Exit) -> Exit {
        let ours = |entry: &Entry| entry.launch.template.is_revocable() && entry.state != State::Killing;
        match exit {
            Exit::Killed if self.book.get(attempt).is_some_and(ours) => Exit::Lost { reason: Loss::Revoked },
            exit => exit,
        }
    }
}

/// What of these amounts could be lent.
const fn plain(resources: &Resources) -> Lent {
    Lent { cpu_milli: resources.cpu_milli, memory_bytes: resources.memory_bytes }
}

fn is_process(template: &Template) -> bool {
    template.members.iter().any(|member| !matches!(member.program, Program::Wasm { .. }))
}

/// Since when it runs; one that does not yet is the youngest.
const fn since(entry: &Entry) -> Time {
    match entry.state {
        State::Running { since } => since,
        _ => Time(u64::MAX),
    }
}
