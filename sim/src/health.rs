//! Tasks that are asked whether they are well, and how their agents take the answers. What must hold: an attempt that failed too often in a row is told to
//! stop with the answer that made it so (H1); one that did not is never called unhealthy (H2); all are asked in time (H3); and a shard takes no task
//! for healthy that is not, or the other way round, once all has been quiet for a while (H4).

use crate::machine::{Machine, Wish};
use crate::plan::{Bug, Plan};
use crate::random::Random;
use crate::world::{Happening, Verdict, World};
use agent::ledger::event::{CheckId, Event, Purpose, Question};
use master::shard::event::JobRef;
use master::shard::view::{View, Viewed};
use protocol::message::{FromAgent, attempt_hash};
use protocol::task::{TaskState, Update};
use protocol::{AttemptId, Check, Checks, Exit, Job, MemberId, Probe, Time};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Of a thousand jobs so many have checks, where some have.
const CHECKED: u64 = 500;
/// The longest time until an answer comes, in milliseconds.
const ANSWER_MS: u64 = 900;
/// How much later than its time a question may be asked, in milliseconds, on top of what clocks differ.
const LATE_MS: u64 = 1_500;
/// After so long without another answer a shard must know.
const KNOWN_MS: u64 = 10_000;

/// Draws which jobs have checks, and which.
pub struct Checked(Option<Random>);

impl Checked {
    /// None of them where the plan says so.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self(plan.checks.then(|| Random::new(plan.seed ^ 0x4ea1)))
    }

    /// Perhaps gives it some.
    pub fn draw(&mut self, job: &mut Job) {
        let Some(random) = self.0.as_mut() else { return };
        if !random.chance(CHECKED) {
            return;
        }
        let mut check = || Check {
            probe: Probe::Exec { command: vec!["well".into()] },
            grace_ms: [0, 1_000, 10_000][random.below(3) as usize],
            every_ms: random.between(500, 5_000),
            timeout_ms: 1_000,
            failures_max: random.between(1, 4) as u32,
            delay_ms: 0,
            ignores_1xx: false,
        };
        let (health, readiness) = (check(), check());
        let readiness = random.chance(300).then_some(readiness);
        Arc::make_mut(&mut job.template).members[0].set_checks(&Checks { health: Some(health), readiness });
    }
}

/// What was asked of the attempts of one machine, and answered.
#[derive(Default)]
pub struct Wards {
    seed: u64,
    /// Since when each attempt runs as the agent's process knows it, by its clock.
    since: BTreeMap<AttemptId, Time>,
    wards: BTreeMap<CheckId, Ward>,
    /// The promise that was broken.
    broken: Option<String>,
}

/// One check of an attempt.
struct Ward {
    check: Arc<Check>,
    /// When it was answered last, where it is not being asked.
    answered: Option<Time>,
    last: bool,
    /// Since when all answers are the same.
    same_since: Time,
    proven: bool,
    failures: u32,
}

impl Wards {
    /// Of a machine of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// The agent's process begins anew.
    pub fn begin(&mut self) {
        self.since.clear();
        self.wards.clear();
    }

    /// Attempts were started, or found again.
    pub fn started(&mut self, shown: Time, attempts: impl Iterator<Item = AttemptId>) {
        attempts.for_each(|attempt| _ = self.since.entry(attempt).or_insert(shown));
    }

    /// Something is asked: whether it is well.
    fn ask(&mut self, now: Time, question: &Question) -> bool {
        let id = question.id;
        let new = Ward { check: Arc::clone(&question.check), answered: None, last: false, same_since: now, proven: false, failures: 0 };
        self.wards.entry(id).or_insert(new).answered = None;
        let mut random = Random::new(self.seed ^ attempt_hash(id.member.attempt) ^ u64::from(id.purpose == Purpose::Readiness));
        match random.below(10) {
            0..=5 => true,
            6 => false,
            7 => !(now.0 / 7_919 + random.below(3)).is_multiple_of(3),
            8 => Random::new(random.next() ^ (now.0 / 500)).chance(600),
            _ => now.0 / 60_000 < random.below(60),
        }
    }

    /// It is answered; true where it has failed too often by then.
    fn answer(&mut self, (now, shown): (Time, Time), id: CheckId, well: bool) -> bool {
        let since = self.since.get(&id.member.attempt).copied().unwrap_or(shown);
        let Some(ward) = self.wards.get_mut(&id) else { return false };
        if ward.last != well {
            ward.same_since = now;
        }
        (ward.last, ward.answered) = (well, Some(now));
        let counts = ward.proven || shown >= since + ward.check.grace_ms;
        ward.proven |= well;
        ward.failures = if well || !counts { 0 } else { ward.failures + 1 };
        id.purpose == Purpose::Health && ward.failures >= ward.check.failures_max
    }

    /// An agent says this.
    pub fn says(&mut self, message: &FromAgent) {
        let FromAgent::Status { updates } = message else { return };
        for Update { attempt, state } in updates {
            let TaskState::Ended { exit: Exit::Unhealthy { .. }, .. } = state else { continue };
            let ward = self.wards.get(&CheckId { member: MemberId::first(*attempt), purpose: Purpose::Health });
            // A process that began anew says what the one before it put on record.
            if ward.is_some_and(|ward| ward.failures < ward.check.failures_max) {
                self.broken = Some(format!("H2: {attempt} is called unhealthy, and has not failed so often"));
            }
        }
    }

    /// Whether all held that must.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn verdict(&self) -> Verdict {
        self.broken.clone().map_or(Ok(()), Err)
    }
}

impl Machine {
    /// Something is asked of its attempts.
    pub fn asked(&mut self, now: Time, questions: Vec<Question>, random: &mut Random) -> Vec<Wish> {
        let answer = |question: Question| {
            let well = self.wards.ask(now, &question);
            Wish::Answers(question.id, well, now + random.between(1, ANSWER_MS))
        };
        questions.into_iter().map(answer).collect()
    }

    /// True where an attempt runs that nobody told to stop.
    fn is_left_alone(&self, attempt: AttemptId) -> bool {
        self.runs.get(&attempt).is_some_and(|run| run.end.is_none() && run.exit != Exit::Killed)
    }
}

impl World {
    /// A question was answered.
    pub(crate) fn answered(&mut self, at: usize, id: CheckId, well: bool) -> Verdict {
        let shown = self.machines[at].clock.show(self.now);
        let machine = &mut self.machines[at];
        let was_alone = machine.is_left_alone(id.member.attempt);
        let over = machine.wards.answer((self.now, shown), id, well);
        let said = well || self.plan.bug == Some(Bug::HearsTheIllAsWell);
        let answer = if said { Ok(()) } else { Err("ill".to_owned()) };
        self.agent(at, Event::Checked { answers: vec![(id, answer.into())] })?;
        let machine = &self.machines[at];
        machine.wards.verdict()?;
        // One that is to stop, or whose end is on its way, is asked nothing, and an answer that comes late is no answer.
        let runs = machine.ledger.as_ref().is_some_and(|ledger| ledger.is_live(id.member.attempt));
        if over && was_alone && runs && machine.is_left_alone(id.member.attempt) {
            return Err(format!("H1: {} failed too often, and is not told to stop", id.member.attempt));
        }
        Ok(())
    }

    /// Whether all attempts are asked in time.
    pub(crate) fn look_at_wards(&self) -> Verdict {
        for machine in self.machines.iter().filter(|machine| machine.ledger.is_some()) {
            for (id, ward) in &machine.wards.wards {
                let every_ms = ward.check.every_ms + ward.check.every_ms / 10 + LATE_MS;
                let late = ward.answered.is_some_and(|answered| self.now.since(answered) > every_ms);
                let asks = id.purpose == Purpose::Health || !ward.proven;
                if late && asks && machine.is_left_alone(id.member.attempt) && machine.holds(id.member.attempt) {
                    return Err(format!(
                        "H3: {} was not asked for {} ms",
                        id.member.attempt,
                        self.now.since(ward.answered.unwrap_or(self.now))
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether shards take those for healthy that are, where all has been quiet for a while.
    pub(crate) fn judge_healths(&self) -> Verdict {
        let quiet_since = |attempt: AttemptId, machine: &Machine| {
            let wards = machine.wards.wards.iter().filter(|(id, _)| id.member.attempt == attempt);
            let wards: Vec<_> = wards.map(|(_, ward)| (ward.last, ward.same_since)).collect();
            let since = wards.iter().map(|(_, since)| *since).max()?;
            (self.now.since(since) > KNOWN_MS).then(|| wards.iter().all(|(last, _)| *last))
        };
        let mut truth = BTreeMap::new();
        for machine in self.machines.iter().filter(|machine| machine.ledger.is_some()) {
            let alone = machine.runs.keys().filter(|attempt| machine.is_left_alone(**attempt) && machine.holds(**attempt));
            truth.extend(alone.filter_map(|attempt| Some((*attempt, quiet_since(*attempt, machine)?))));
        }
        for (attempt, well) in truth {
            let shard = usize::from(attempt.shard().0);
            let seat = self.leader(shard).and_then(|leader| self.masters[leader].seats[shard].as_ref());
            let (job, index) = (JobRef::Id(attempt.task.job), attempt.task.index);
            let Some(Ok(Viewed::Healths(views))) = seat.map(|seat| seat.shard.viewed(View::Healths { job, indexes: vec![index] })) else {
                continue;
            };
            let said = views.first().map(|(_, view)| view.verdict == protocol::Verdict::Healthy);
            if said.is_some_and(|said| said != well) {
                return Err(format!("H4: {attempt} is {}well, and its shard takes it for the contrary", if well { "" } else { "not " }));
            }
        }
        Ok(())
    }

    /// An answer is on its way.
    pub(crate) fn answer_later(&mut self, at: usize, id: CheckId, well: bool, time: Time) {
        self.queue.push(time, Happening::Answered(at, self.machines[at].life, id, well));
    }
}
