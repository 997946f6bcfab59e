//! Leases of fenced tasks as executors keep them, by machines' clocks that run up to 1 % fast or slow, and what must hold of them: no two instances
//! of a fenced task are alive at once.

use crate::machine::{Machine, Run, Wish};
use crate::network::{IDLE_MS, Way};
use crate::plan::Bug;
use crate::random::Random;
use crate::world::{Happening, World};
use agent::ledger::event::Event;
use agent::ledger::event::Start;
use protocol::job::FENCE_VARIABLE;
use protocol::{AttemptId, Exit, FromMaster, Job, Kind, Loss, MemberId, Time};
use std::sync::Arc;

/// What a machine's clock may be wrong in rate, in millionths.
const RATE_PPM_MAX: u64 = 10_000;
/// Longest time for which an answer is held back before its agent falls silent.
const LATE_ANSWER_MS: u64 = 6_000;

/// How fast a machine's clock runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate(i64);

impl Rate {
    /// One of a seed with fenced tasks.
    pub fn draw(random: &mut Random) -> Self {
        Self(random.between(0, 2 * RATE_PPM_MAX) as i64 - RATE_PPM_MAX as i64)
    }

    /// What the machine's clock shows at `now`.
    #[must_use]
    pub fn shown(self, now: Time) -> Time {
        let shown = i128::from(now.0) * i128::from(1_000_000 + self.0) / 1_000_000;
        Time(u64::try_from(shown).expect("a clock that begins at 0 and goes forward"))
    }

    /// The first moment at which the machine's clock shows `time`.
    #[must_use]
    pub fn moment(self, time: Time) -> Time {
        let rate = i128::from(1_000_000 + self.0);
        let moment = (i128::from(time.0) * 1_000_000 + rate - 1) / rate;
        Time(u64::try_from(moment).expect("no later than twice the time"))
    }
}

/// Makes a service of one task fenced.
pub fn fence(job: &mut Job) {
    if job.kind == Kind::Service {
        job.count = 1;
        Arc::make_mut(&mut job.template).members[0].env = vec![(FENCE_VARIABLE.into(), String::new())];
    }
}

/// How a run ends whose lease is over.
pub const OVER: Exit = Exit::Lost { reason: Loss::LeaseOver };

impl Run {
    /// True where it is fenced and its lease is over.
    #[must_use]
    pub fn is_over(&self, shown: Time) -> bool {
        self.until.is_some_and(|until| until <= shown)
    }
}

impl Machine {
    /// The machine is told that these leases hold until then, by its own clock.
    pub fn renew(&mut self, now: Time, members: &[MemberId], until: Time, wishes: &mut Vec<Wish>) {
        let (rate, shown) = (self.rate, self.rate.shown(now));
        for MemberId { attempt, .. } in members {
            let Some(run) = self.runs.get_mut(attempt).filter(|run| run.end.is_none() && !run.is_over(shown)) else { continue };
            if let Some(held) = run.until.filter(|held| *held < until) {
                run.until = Some(held.max(until));
                wishes.push(Wish::EndsAt(*attempt, rate.moment(until)));
            }
        }
    }

    /// Until when a start holds, by the machine's clock; asks to be woken then.
    pub fn held(&self, start: &Start, attempt: AttemptId, wishes: &mut Vec<Wish>) -> Option<Time> {
        let until = start.until?;
        wishes.push(Wish::EndsAt(attempt, self.rate.moment(until)));
        Some(until)
    }

    /// With the bug: an answer counts from when it is received.
    pub fn misheard(&self, shown: Time, event: Event) -> Event {
        match event {
            Event::Master { shard, message: FromMaster::BeatAck { .. } } if self.bug == Some(Bug::LeaseFromReceipt) => {
                Event::Master { shard, message: FromMaster::BeatAck { sent: shown } }
            }
            event => event,
        }
    }
}

/// No other instance of the fenced tasks that just began on one machine is alive on any.
///
/// # Errors
/// The two that are.
pub fn alone(now: Time, machines: &[Machine], began: &[(AttemptId, Time)]) -> Result<(), String> {
    for machine in machines {
        let shown = machine.rate.shown(now);
        let alive = |(attempt, run): &(&AttemptId, &Run)| {
            let other = |(one, _): &(AttemptId, Time)| one.task == attempt.task && one != *attempt;
            run.end.is_none() && run.until.is_some() && !run.is_over(shown) && began.iter().any(other)
        };
        if let Some((attempt, run)) = machine.runs.iter().find(alive) {
            return Err(format!("G4: {attempt} lives on {} until {:?} of its clock while {began:?} began", machine.info.name, run.until));
        }
    }
    Ok(())
}

impl World {
    /// An agent's last answer is late, and then nothing passes: where the lease counted from when it came, it would hold too long.
    pub(crate) fn answer_late(&mut self, at: usize) {
        let late = self.random.between(self.plan.heartbeat_ms, LATE_ANSWER_MS.max(self.plan.heartbeat_ms));
        self.lines[at].cut(Way::Down, self.now + late);
        self.queue.push(self.now + self.plan.heartbeat_ms + 100, Happening::Unheard(at, self.now + late));
    }

    /// What the agent says is held back from now on until long after `answered`, when it has had its answers.
    pub(crate) fn unheard(&mut self, at: usize, answered: Time) {
        if !self.healed {
            self.lines[at].cut(Way::Up, answered + IDLE_MS);
            self.queue.push(answered + 100, Happening::Silent(at));
        }
    }

    /// Nothing passes.
    pub(crate) fn silent(&mut self, at: usize) {
        if !self.healed {
            let length = self.plan.replace_after_ms * 2;
            [Way::Up, Way::Down].into_iter().for_each(|way| self.lines[at].cut(way, self.now + length));
            self.break_line(at);
        }
    }
}
