//! A machine of the cluster: the real ledger, the file of its records as far as it was written, and executors, which outlive the agent's
//! process and die with the machine.

use crate::clock::Clock;
use crate::health::Wards;
use crate::lease::OVER;
use crate::lent::Lending;
use crate::plan::{Bug, Plan};
use crate::random::Random;
use agent::ledger::event::{CheckId, Event, Form, Output, PrepareError, Record, Start};
use agent::ledger::{Ledger, LedgerConfig};
use protocol::message::Launch;
use protocol::{AgentId, AgentInfo, AttemptId, Digest, Exit, FaultDomain, Given, MemberId, PortRange, Resources, Time, Usage};
use std::collections::BTreeMap;

/// The bundle that never runs.
pub const BROKEN: Digest = Digest([0xbb; 32]);

/// An attempt in an executor.
#[derive(Clone, Debug)]
pub struct Run {
    /// How it ended, where it has.
    pub end: Option<(Exit, Usage)>,
    /// What it holds.
    pub resources: Resources,
    /// Which single devices it has.
    pub given: Given,
    /// When it ends by itself.
    pub ends: Time,
    /// How it ends by itself.
    pub exit: Exit,
    /// Whether it is an instance of a fenced task.
    pub fenced: bool,
    /// Until when it may run, by its machine's clock, where it is fenced.
    pub until: Option<Time>,
}

/// A machine.
pub struct Machine {
    /// Who it is.
    pub id: AgentId,
    /// What it has.
    pub info: AgentInfo,
    /// The agent's process, while there is one.
    pub ledger: Option<Ledger>,
    /// What its executors hold.
    pub runs: BTreeMap<AttemptId, Run>,
    /// What runs in them needs, of what has not ended.
    pub running: Resources,
    /// How often the machine was started.
    pub boot: u64,
    /// How often the agent was started.
    pub life: u64,
    written: Vec<Record>,
    heartbeat_ms: u64,
    /// Its clock.
    pub clock: Clock,
    pub(crate) bug: Option<Bug>,
    /// What its agent lends.
    pub lending: Lending,
    /// What its agent asked, and heard.
    pub wards: Wards,
    /// Said on record to be gone for good; it has not heard that yet.
    pub gone: bool,
}

/// What a machine wants from the world.
pub enum Wish {
    /// Send this.
    Send(Box<protocol::message::ToShard>),
    /// Fetch this.
    Prepare(Digest, Form),
    /// These attempts were started.
    Started(Vec<(AttemptId, Time)>),
    /// This attempt ends at that time.
    EndsAt(AttemptId, Time),
    /// This question is answered so at that time: whether it is well.
    Answers(CheckId, bool, Time),
    /// The agent's process ended by itself.
    Quit(String),
}

impl Machine {
    /// The `number`-th machine, off.
    #[must_use]
    pub fn new(plan: &Plan, number: usize, random: &mut Random) -> Self {
        let cpu_milli = random.between(1, 8) * 1_000;
        let ports = vec![PortRange { first: 20_000, last: 20_015 }];
        let capacity = Resources {
            cpu_milli,
            memory_bytes: cpu_milli << 20,
            disk_bytes: 1 << 30,
            ports: 16,
            devices: crate::devices::of_machine(plan, number),
        };
        let domain = FaultDomain { rack: crate::places::rack(number), ..FaultDomain::default() };
        let info = AgentInfo { name: format!("m{number}"), capacity, ports, domain, version: "sim".into(), ..AgentInfo::default() };
        Self {
            id: AgentId(random.next()),
            info,
            ledger: None,
            runs: BTreeMap::new(),
            running: Resources::NONE,
            boot: 1,
            life: 0,
            written: vec![],
            heartbeat_ms: plan.heartbeat_ms,
            clock: if plan.fenced { Clock::draw(&mut Random::new(plan.seed ^ (0xc10c + number as u64))) } else { Clock::TRUE },
            bug: plan.bug,
            lending: Lending::new(plan.lends),
            wards: Wards::new(plan.seed),
            gone: false,
        }
    }

    fn config(&self) -> LedgerConfig {
        let mut info = self.info.clone();
        if self.bug == Some(Bug::PromisesDouble) {
            info.capacity = info.capacity.checked_mul(2).expect("a small machine twice is a small machine");
            info.ports = vec![PortRange { first: 20_000, last: 20_031 }];
        }
        LedgerConfig { agent: self.id, info, reservations: vec![], heartbeat_ms: self.heartbeat_ms, lends: self.lending.lends }
    }

    /// The agent's process starts: anew, or from its records and what the executors say.
    pub fn start(&mut self, now: Time, random: &mut Random) {
        self.life += 1;
        self.lending.begin();
        self.wards.begin();
        let boot = format!("boot-{}", self.boot);
        let recovered = Ledger::recover(self.config(), &self.written).filter(|ledger| ledger.boot() == boot);
        let Some(mut ledger) = recovered else {
            self.written.clear();
            self.ledger = Some(Ledger::new(self.config(), random.next(), boot));
            return;
        };
        let now = self.clock.show(now);
        if self.bug == Some(Bug::ForgetsSurvivors) {
            ledger.handle(now, Event::Surveyed);
            self.ledger = Some(ledger);
            return;
        }
        let (ended, running): (Vec<_>, Vec<_>) = self.runs.iter().partition(|(_, run)| run.end.is_some());
        let started = ended.iter().chain(&running).map(|(attempt, _)| (MemberId::first(**attempt), now)).collect();
        let end = |(attempt, run): (&AttemptId, &Run)| run.end.clone().map(|(exit, usage)| (MemberId::first(*attempt), exit, usage));
        let ended = ended.into_iter().filter_map(end).collect();
        self.wards.started(now, self.runs.keys().copied());
        ledger.handle(now, Event::Started { members: started });
        ledger.handle(now, Event::Ended { members: ended });
        ledger.handle(now, Event::Surveyed);
        self.ledger = Some(ledger);
    }

    /// With the bug: what is on record as taken on is started as if no executor could have it.
    pub fn start_again(&mut self, now: Time, random: &mut Random) -> Vec<Wish> {
        let mut wishes = vec![];
        if self.bug == Some(Bug::RunsTwice) {
            let live = |launch: &Launch, (index, number): &(u32, u32)| {
                let attempt = AttemptId::new(launch.job, *index, *number);
                self.ledger.as_ref().is_some_and(|ledger| ledger.is_live(attempt))
            };
            let taken = self.written.iter().filter_map(|record| match record {
                Record::Taken { launch, .. } => Some(launch),
                _ => None,
            });
            let mut again: Vec<Start> =
                taken.map(|launch| Start { launch: launch.clone(), ports: vec![], given: vec![], until: None }).collect();
            again.iter_mut().for_each(|start| {
                let launch = start.launch.clone();
                start.launch.attempts.retain(|attempt| live(&launch, attempt));
            });
            again.iter().for_each(|start| self.begin(now, start, random, &mut wishes));
        }
        wishes
    }

    /// The agent ends for good, and its tasks with it; the machine is another agent's from now on.
    pub fn leave(&mut self, random: &mut Random) {
        self.kill();
        self.runs.clear();
        self.running = Resources::NONE;
        self.written.clear();
        (self.id, self.gone) = (AgentId(random.next()), false);
    }

    /// The agent's process is killed.
    pub fn kill(&mut self) {
        self.ledger = None;
        if self.bug == Some(Bug::LedgerUnwritten) {
            self.written.truncate(1);
        }
    }

    /// The machine loses its power: records of a running machine are of no use any more, and nothing runs.
    pub fn power_off(&mut self) {
        self.kill();
        self.runs.clear();
        self.running = Resources::NONE;
        self.boot += 1;
    }

    /// Something happens to the agent, where it runs.
    pub fn handle(&mut self, now: Time, event: Event, random: &mut Random) -> Vec<Wish> {
        let shown = self.clock.show(now);
        let event = self.misheard(shown, event);
        if let Event::Started { members } = &event {
            self.wards.started(shown, members.iter().map(|(member, _)| member.attempt));
        }
        let Some(ledger) = &mut self.ledger else { return vec![] };
        self.lending.before(ledger, &event);
        ledger.handle(shown, event);
        self.lending.after(ledger);
        self.drain(now, random)
    }

    /// What the agent wants done now.
    pub fn drain(&mut self, now: Time, random: &mut Random) -> Vec<Wish> {
        let mut wishes = vec![];
        while let Some(output) = self.ledger.as_mut().and_then(Ledger::poll_output) {
            match output {
                Output::Checkpoint(record) if crate::devices::is_forgotten(self.bug, &record) => {}
                Output::Checkpoint(record) => self.written.push(record),
                Output::Send { shard, message } => {
                    self.lending.says(self.ledger.as_ref(), &message);
                    self.wards.says(&message);
                    wishes.push(Wish::Send(Box::new(protocol::message::ToShard { shard, message })));
                }
                Output::Prepare { bundle, form } => wishes.push(Wish::Prepare(bundle, form)),
                Output::Start(start) => self.begin(now, &start, random, &mut wishes),
                Output::Stop { members, grace_ms } => {
                    for MemberId { attempt, .. } in members {
                        let Some(run) = self.runs.get_mut(&attempt).filter(|run| run.end.is_none()) else { continue };
                        run.exit = Exit::Killed;
                        run.ends = run.ends.min(now + random.between(0, grace_ms));
                        wishes.push(Wish::EndsAt(attempt, run.ends));
                    }
                }
                Output::Renew { members, until } => wishes.extend(self.renew(now, &members, until, random)),
                Output::Forget { members } => members.iter().for_each(|member| drop(self.runs.remove(&member.attempt))),
                Output::Check(questions) => wishes.extend(self.asked(now, questions, random)),
                // What a task does with it is not modelled.
                Output::Message { .. } => {}
                Output::Quit { reason } => {
                    self.kill();
                    wishes.push(Wish::Quit(reason));
                }
            }
        }
        wishes
    }

    fn begin(&mut self, now: Time, start: &Start, random: &mut Random, wishes: &mut Vec<Wish>) {
        let launch = &start.launch;
        // What a task does stands in its arguments: how long it runs at most, and in how many of a thousand cases it fails.
        let number = |at: usize| launch.template.first().args.get(at).and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut started = vec![];
        for (nth, (index, attempt)) in launch.attempts.iter().enumerate() {
            let attempt = AttemptId::new(launch.job, *index, *attempt);
            let given = start.given.get(nth).cloned().unwrap_or_default();
            let exit = if random.chance(number(1)) { Exit::Code(1) } else { Exit::Code(0) };
            let ends = now + random.between(1, number(0).max(1));
            self.running = self.running.checked_add(&launch.template.resources).expect("sums of small amounts fit");
            let (resources, fenced, until) = (launch.template.resources.clone(), launch.template.is_fenced(), start.until);
            self.runs.insert(attempt, Run { end: None, resources, given, ends, exit, fenced, until });
            started.push((attempt, self.clock.show(now)));
            wishes.push(Wish::EndsAt(attempt, ends));
            wishes.extend(until.map(|until| self.killed(now, attempt, until, random)));
        }
        wishes.push(Wish::Started(started));
    }

    /// An attempt ends, if it is its time; true where it has.
    pub fn end(&mut self, now: Time, attempt: AttemptId) -> Option<(Exit, Usage)> {
        let shown = self.clock.show(now);
        let run = self.runs.get_mut(&attempt).filter(|run| run.end.is_none() && (run.ends <= now || run.is_over(shown)))?;
        let exit = if run.is_over(shown) { OVER } else { run.exit.clone() };
        let end = (exit, Usage { fuel: 1, ..Usage::default() });
        run.end = Some(end.clone());
        self.running = self.running.checked_sub(&run.resources).expect("it was added when it began");
        Some(end)
    }

    /// True where the agent's process knows that this attempt runs.
    #[must_use]
    pub fn holds(&self, attempt: AttemptId) -> bool {
        self.ledger.as_ref().is_some_and(|ledger| ledger.is_live(attempt))
    }

    /// When the agent's process wants to be woken, not before `now`.
    #[must_use]
    pub fn timeout(&self, now: Time) -> Option<Time> {
        let shown = self.ledger.as_ref().and_then(Ledger::poll_timeout)?;
        Some(self.clock.when(now, shown))
    }

    /// Whether a bundle can be had.
    pub fn fetch(bundle: Digest, random: &mut Random) -> Result<(), PrepareError> {
        match (bundle == BROKEN, random.chance(50)) {
            (true, _) => Err(PrepareError::Unusable("the bundle is broken".into())),
            (false, true) => Err(PrepareError::Later("the disk is full".into())),
            (false, false) => Ok(()),
        }
    }
}
