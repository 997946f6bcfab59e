//! Jobs whose tasks are kept near those of another job, or apart from them: which a part of the seeds has, and what is promised when an agent is told to run
//! one. None of a job that it is kept apart from is there, which the agent was told to run, has not said since that it lacks, and that has no end on record (N1).
//! One of each job that it is kept near is on record there, or was until the agent's shard hears of its end (N2). Of N1 a job counts as called so once nothing
//! was broken among the masters for a while since it was submitted: who is called so is asked twice a second, and offers of before lapse.

use crate::check::{Verdict, hold};
use crate::plan::Plan;
use crate::random::Random;
use master::shard::{Event, PeerMessage, Record};
use protocol::job::RestartPolicy;
use protocol::message::{FromAgent, Launch};
use protocol::{AgentId, AttemptId, Constraint, Field, Held, Job, JobId, Kind, Name, Neighbour, Role, Rule, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Of a thousand jobs so many have such a name, where some have.
const NAMED: u64 = 400;
/// Names, which are given one after the other, and again.
const NAMES: u64 = 16;
/// Of a thousand of these so many are services, beside those that are anyway.
const SERVICES: u64 = 300;
/// Of a thousand of these so many are kept near others, or apart.
const KEPT: u64 = 700;
/// Of a thousand rules so many keep near.
const NEAR: u64 = 350;
/// The most that a task of one needs: the smallest machine has more.
const CPU_MILLI_MAX: u64 = 250;
/// How long nothing must be broken among the masters until all know who is called so, in milliseconds: the question, two slow flushes, and offers of before.
const SETTLE_MS: u64 = 10_000;

fn called(number: u64) -> Name {
    Name::new(&format!("beside-{}", number % NAMES)).expect("a name")
}

/// Draws which jobs are kept near others, or apart.
pub struct Neighbours {
    random: Option<Random>,
    named: u64,
}

impl Neighbours {
    /// None of them where the plan says so.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self { random: plan.neighbours.then(|| Random::new(plan.seed ^ 0x4e1b)), named: 0 }
    }

    /// Perhaps gives it the next name, and rules about those that have the names around it: also about the next job.
    pub fn draw(&mut self, job: &mut Job) {
        let Some(random) = self.random.as_mut().filter(|_| job.kind != Kind::System) else { return };
        if !random.chance(NAMED) {
            return;
        }
        let own = self.named;
        self.named += 1;
        (job.role, job.name) = (Role::new("web").expect("a role"), Some(called(own)));
        if random.chance(SERVICES) && job.kind == Kind::Batch {
            (job.kind, job.count) = (Kind::Service, random.between(1, 4) as u32);
            (job.restart.policy, job.restart.retries_max) = (RestartPolicy::Always, None);
        }
        let template = Arc::make_mut(&mut job.template);
        let member = &mut template.members[0];
        member.resources.cpu_milli = member.resources.cpu_milli.min(CPU_MILLI_MAX);
        template.resources = member.resources.clone();
        if random.chance(KEPT) {
            let mut place = job.place.as_deref().cloned().unwrap_or_default();
            for _ in 0..random.between(1, 2) {
                place.constraints.push(rule(random, own));
            }
            job.place = Some(Arc::new(place));
        }
    }
}

fn rule(random: &mut Random, own: u64) -> Constraint {
    let distance = [1, 1, 2, NAMES - 1, NAMES - 1, NAMES - 2][random.below(6) as usize];
    let other = Neighbour::named(called(own + distance));
    Constraint { field: Field::Hostname, rule: if random.chance(NEAR) { Rule::Near(other) } else { Rule::Apart(other) } }
}

/// The bug: whoever asks who is called so hears that nobody is.
pub fn nobody(event: &mut Event) {
    if let Event::Peer { message: PeerMessage::BesideSaid { ids, .. }, .. } = event {
        ids.iter_mut().for_each(|(_, id)| *id = None);
    }
}

/// What is on record, and where.
#[derive(Default)]
pub struct Beside {
    looks: bool,
    /// All jobs that were ever called so.
    called: BTreeMap<(Role, Name), Vec<JobId>>,
    /// Those of which perhaps not all have heard, and since when they are on record.
    new: BTreeMap<JobId, Time>,
    live: BTreeMap<AttemptId, AgentId>,
    /// What agents were told to run, without what has ended on record and what they said that they lack.
    told: BTreeSet<(AgentId, AttemptId)>,
    /// What is there as far as the agents' shard may know: the same with what it has not heard the end of.
    booked: BTreeSet<(AgentId, AttemptId)>,
    /// Attempts that agents were told to run of jobs with such rules.
    pub judged: u64,
}

impl Beside {
    /// Nothing yet.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self { looks: plan.neighbours, ..Self::default() }
    }

    /// A record was committed.
    pub fn committed(&mut self, record: &Record, now: Time) {
        if !self.looks {
            return;
        }
        match record {
            Record::Submitted { id, job: Job { role, name: Some(name), .. }, .. } => {
                self.called.entry((role.clone(), name.clone())).or_default().push(*id);
                self.new.insert(*id, now);
            }
            Record::Staged { id, agent, attempts, .. } => {
                self.live.extend(attempts.iter().map(|(index, number)| (AttemptId::new(*id, *index, *number), *agent)));
            }
            Record::Ended { id, ends, .. } => {
                for attempt in ends.iter().map(|end| end.attempt(*id)) {
                    if let Some(agent) = self.live.remove(&attempt) {
                        self.told.remove(&(agent, attempt));
                    }
                }
            }
            _ => {}
        }
    }

    /// Since `calm` nothing is broken among the masters.
    pub fn settle(&mut self, now: Time, calm: Time) {
        self.new.retain(|_, since| now.since(calm.max(*since)) < SETTLE_MS);
    }

    /// A leader hears something.
    pub fn heard(&mut self, event: &Event) {
        match event {
            _ if !self.looks => {}
            Event::Agent { agent, message: FromAgent::Report { held, .. } } => self.reported(*agent, held),
            Event::Peer { message: PeerMessage::Release { agent, attempts }, .. } => {
                for attempt in attempts {
                    self.booked.remove(&(*agent, *attempt));
                }
            }
            _ => {}
        }
    }

    fn reported(&mut self, agent: AgentId, held: &[Held]) {
        let held: BTreeSet<AttemptId> = held.iter().map(|held| held.attempt).collect();
        self.told.retain(|(of, attempt)| *of != agent || held.contains(attempt));
        // Of what lives more may be booked than the agent says: what it was told since it was asked.
        let live = &self.live;
        self.booked.retain(|(of, attempt)| *of != agent || held.contains(attempt) || live.contains_key(attempt));
        self.booked.extend(held.iter().map(|attempt| (agent, *attempt)));
    }

    /// An agent is told to run something.
    ///
    /// # Errors
    /// The promise that it breaks.
    pub fn launched(&mut self, agent: AgentId, launch: &Launch, jobs: &BTreeMap<JobId, Job>) -> Verdict {
        if !self.looks {
            return Ok(());
        }
        let attempt = |(index, number): &(u32, u32)| AttemptId::new(launch.job, *index, *number);
        let attempts: Vec<AttemptId> = launch.attempts.iter().map(attempt).collect();
        if let Some(job) = jobs.get(&launch.job) {
            let rules = job.place.iter().flat_map(|place| &place.constraints).filter(|constraint| constraint.rule.neighbour().is_some());
            for constraint in rules {
                self.judged += attempts.len() as u64;
                self.judge(agent, &job.role, constraint).map_err(|broken| format!("{broken}; {agent} is told to run {attempts:?}"))?;
            }
        }
        for attempt in attempts {
            self.booked.insert((agent, attempt));
            if self.live.contains_key(&attempt) {
                self.told.insert((agent, attempt));
            }
        }
        Ok(())
    }

    fn judge(&self, agent: AgentId, role: &Role, constraint: &Constraint) -> Verdict {
        let Some(other) = constraint.rule.neighbour() else { return Ok(()) };
        let mut called = self.called.get(&(role.clone(), other.name.clone())).into_iter().flatten().copied();
        if matches!(constraint.rule, Rule::Apart(_)) {
            let there = called.filter(|id| !self.new.contains_key(id)).find_map(|id| of(&self.told, agent, id));
            return hold(there.is_none(), || format!("N1: {there:?} is there, against {constraint}"));
        }
        hold(called.any(|id| of(&self.booked, agent, id).is_some() || self.is_live(agent, id)), || {
            format!("N2: none is there, against {constraint}")
        })
    }

    fn is_live(&self, agent: AgentId, job: JobId) -> bool {
        let (first, last) = attempts_of(job);
        self.live.range(first..=last).any(|(_, on)| *on == agent)
    }
}

/// The first attempt that a job may have, and the last.
const fn attempts_of(job: JobId) -> (AttemptId, AttemptId) {
    (AttemptId::new(job, 0, 0), AttemptId::new(job, u32::MAX, u32::MAX))
}

/// An attempt of a job that is on an agent.
fn of(on: &BTreeSet<(AgentId, AttemptId)>, agent: AgentId, job: JobId) -> Option<AttemptId> {
    let (first, last) = attempts_of(job);
    on.range((agent, first)..=(agent, last)).next().map(|(_, attempt)| *attempt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{Exit, Placement, Resources, Usage};

    const AGENT: AgentId = AgentId(1);

    struct Seen {
        beside: Beside,
        jobs: BTreeMap<JobId, Job>,
    }

    impl Seen {
        fn submitted(&mut self, id: u64, named: u64, rule: Option<Rule>, at: Time) {
            let mut job = crate::client::job(Resources::NONE, 1, 5);
            job.name = Some(called(named));
            let constraints = rule.map(|rule| Constraint { field: Field::Hostname, rule }).into_iter().collect();
            job.place = Some(Arc::new(Placement { constraints, spread: vec![] }));
            self.beside.committed(&Record::Submitted { id: JobId(id), job: job.clone(), key: None, at }, at);
            self.jobs.insert(JobId(id), job);
        }

        fn staged(&mut self, id: u64, number: u32) {
            let attempts = vec![(0, number)];
            self.beside.committed(&Record::Staged { id: JobId(id), agent: AGENT, incarnation: 1, attempts, at: Time::ZERO }, Time::ZERO);
        }

        fn launched(&mut self, id: u64, number: u32) -> Verdict {
            let job = &self.jobs[&JobId(id)];
            let (title, role, template) = (String::new(), job.role.clone(), job.template.clone());
            let launch = Launch { session: 1, sequence: 1, job: JobId(id), title, role, template, attempts: vec![(0, number)] };
            self.beside.launched(AGENT, &launch, &self.jobs)
        }

        fn ended(&mut self, id: u64, number: u32) {
            let end = master::shard::record::Ended { index: 0, number, exit: Exit::Killed, usage: Usage::default() };
            self.beside.committed(&Record::Ended { id: JobId(id), ends: vec![end], at: Time::ZERO }, Time::ZERO);
        }

        fn released(&mut self, id: u64, number: u32) {
            let message = PeerMessage::Release { agent: AGENT, attempts: vec![AttemptId::new(JobId(id), 0, number)] };
            self.beside.heard(&Event::Peer { from: protocol::ShardId(0), message });
        }
    }

    #[test]
    fn what_is_put_beside_others_against_a_rule_is_seen() {
        let mut seen = Seen { beside: Beside { looks: true, ..Beside::default() }, jobs: BTreeMap::new() };
        let (near, apart) = (Rule::Near(Neighbour::named(called(1))), Rule::Apart(Neighbour::named(called(1))));
        seen.submitted(1, 1, None, Time::ZERO);
        seen.submitted(2, 2, Some(near), Time::ZERO);
        seen.submitted(3, 3, Some(apart), Time::ZERO);
        [2, 3].into_iter().for_each(|id| seen.staged(id, 1));
        seen.launched(3, 1).unwrap();
        assert!(seen.launched(2, 1).unwrap_err().contains("N2"));
        seen.staged(1, 1);
        // One that is kept apart says nothing of where the other may be.
        seen.launched(1, 1).unwrap();
        seen.launched(2, 1).unwrap();
        seen.launched(3, 1).expect("not all have heard who is called so");
        seen.beside.settle(Time(20_000), Time(15_000));
        seen.launched(3, 1).expect("something was broken among the masters");
        seen.beside.settle(Time(30_000), Time(15_000));
        assert!(seen.launched(3, 1).unwrap_err().contains("N1"));
        // Where an end is on record and its agent's shard has not heard that, either is right.
        seen.ended(1, 1);
        seen.launched(2, 1).unwrap();
        seen.launched(3, 1).unwrap();
        seen.released(1, 1);
        assert!(seen.launched(2, 1).unwrap_err().contains("N2"));
        // An agent says that it lacks one that it was told of.
        seen.staged(1, 2);
        seen.launched(1, 2).unwrap();
        assert!(seen.launched(3, 1).unwrap_err().contains("N1"));
        seen.beside.heard(&Event::Agent { agent: AGENT, message: FromAgent::Report { session: 1, held: vec![], last: true } });
        seen.launched(3, 1).unwrap();
    }
}
