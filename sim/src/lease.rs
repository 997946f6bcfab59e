//! Leases of fenced tasks as executors keep them, by machines' clocks that run fast and slow, and what must hold of them: no two instances of
//! a fenced task are alive at once.

use crate::machine::{Machine, Run, Wish};
use crate::network::{IDLE_MS, Way};
use crate::plan::Bug;
use crate::random::Random;
use crate::world::{Happening, Verdict, World};
use agent::ledger::event::Event;
use protocol::job::FENCE_VARIABLE;
use protocol::{AttemptId, Exit, FromMaster, Job, Kind, Loss, MemberId, Time};
use std::collections::BTreeSet;
use std::sync::Arc;

/// How a run ends whose lease is over.
pub const OVER: Exit = Exit::Lost { reason: Loss::LeaseOver };
/// What is over is dead so much later at the most: an executor's timer, and a kill.
const KILL_MS: u64 = 900;
/// Longest time for which an answer is held back before its agent falls silent.
const LATE_ANSWER_MS: u64 = 6_000;

/// Makes a service one of a single fenced task.
pub fn fence(job: &mut Job) {
    if job.kind == Kind::Service {
        job.count = 1;
        Arc::make_mut(&mut job.template).members[0].env = vec![(FENCE_VARIABLE.into(), String::new())];
    }
}

impl Run {
    /// True where it runs on a lease, and that is over.
    #[must_use]
    pub fn is_over(&self, shown: Time) -> bool {
        self.until.is_some_and(|until| until <= shown)
    }
}

impl Machine {
    /// The machine is told that these leases hold until then, by its own clock. What is over is over.
    pub fn renew(&mut self, now: Time, members: &[MemberId], until: Time, random: &mut Random) -> Vec<Wish> {
        let shown = self.clock.show(now);
        let mut wishes = vec![];
        for MemberId { attempt, .. } in members {
            let Some(run) = self.runs.get_mut(attempt).filter(|run| run.end.is_none() && !run.is_over(shown)) else { continue };
            if run.until.is_some_and(|held| held < until) {
                run.until = Some(until);
                wishes.push(self.killed(now, *attempt, until, random));
            }
        }
        wishes
    }

    /// An attempt is dead some time after its lease is over.
    pub fn killed(&self, now: Time, attempt: AttemptId, until: Time, random: &mut Random) -> Wish {
        let late_ms = random.below(KILL_MS + 1);
        Wish::EndsAt(attempt, self.clock.when(now, until) + late_ms)
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

/// No other instance of the fenced tasks that just began on one machine is alive on any, but for those that were taken for lost by a report that was
/// overtaken: their agents hold them still, and renew their leases.
///
/// # Errors
/// The two that are.
pub fn alone(machines: &[Machine], at: usize, began: &[(AttemptId, Time)], mistaken: &BTreeSet<AttemptId>) -> Verdict {
    for (attempt, _) in began {
        let Some(run) = machines[at].runs.get(attempt).filter(|run| run.fenced) else { continue };
        if run.until.is_none() {
            return Err(format!("G4: {attempt} began without a lease"));
        }
        for machine in machines {
            let others = machine.runs.range(AttemptId { number: 0, ..*attempt }..=AttemptId { number: u32::MAX, ..*attempt });
            if let Some((other, run)) =
                others.into_iter().find(|(other, run)| *other != attempt && run.end.is_none() && !mistaken.contains(other))
            {
                let until = run.until;
                return Err(format!("G4: {other} lives on {} until {until:?} of its clock while {attempt} began", machine.info.name));
            }
        }
    }
    Ok(())
}

impl World {
    /// An agent's last answer is late, and then nothing passes: where the lease counted from when it came, it would hold too long.
    pub(crate) fn answer_late(&mut self, at: usize) {
        let beat_ms = self.plan.heartbeat_ms;
        let late = self.random.between(beat_ms, LATE_ANSWER_MS);
        self.cut_all(at, Way::Down, self.now + late);
        self.queue.push(self.now + beat_ms + 100, Happening::Unheard(at, self.now + late));
    }

    /// What the agent says is held back from now on until long after `answered`, when it has had its answers.
    pub(crate) fn unheard(&mut self, at: usize, answered: Time) {
        if !self.healed {
            self.cut_all(at, Way::Up, answered + IDLE_MS);
            self.queue.push(answered + 100, Happening::Silent(at));
        }
    }

    /// Nothing passes.
    pub(crate) fn silent(&mut self, at: usize) {
        if !self.healed {
            let until = self.now + self.plan.replace_after_ms * 2;
            self.cut_all(at, Way::Up, until);
            self.cut_all(at, Way::Down, until);
            self.break_lines(at);
        }
    }

    fn cut_all(&mut self, at: usize, way: Way, until: Time) {
        self.lines[at].iter_mut().for_each(|line| line.cut(way, until));
    }
}
