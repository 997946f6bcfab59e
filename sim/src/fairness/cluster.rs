//! Shards, agents that run what they are told for as long as is drawn, and jobs of roles that want more than there is.

use super::reference::KINDS;
use super::{CAPACITY, Size, TASK_MS_MAX, TASK_MS_MIN, Wanting};
use crate::client::job;
use crate::random::Random;
use master::shard::event::JobRef;
use master::shard::limits::Quota;
use master::shard::quotas::RoleSettings;
use master::shard::roles::Claim;
use master::shard::{Action, Event, HOME, Output, Request, Response, Shard, ShardConfig};
use protocol::message::{FromAgent, FromMaster, Launch, shard_of_agent, shard_of_job};
use protocol::{AgentId, AgentInfo, AttemptId, Exit, JobId, Name, RequestId, Resources, Role, ShardId, TaskState, Time, Update, Usage};
use std::collections::BTreeMap;

/// No agent is silent for so long.
const SILENCE_MS: u64 = 1 << 40;
/// Tasks of a job: more than can be run between two changes.
const COUNT: u32 = 100_000;
/// Until all agents have registered, in milliseconds: a few messages, and what shards say to each other now and then.
const REGISTERED_MS: u64 = 500;

/// A task that runs.
struct Running {
    agent: AgentId,
    attempt: AttemptId,
    role: usize,
}

pub(super) struct Cluster {
    shards: Vec<Shard>,
    letters: Vec<Vec<Event>>,
    now: Time,
    agents: u32,
    pub roles: Vec<Wanting>,
    /// How many tasks of each role run.
    tasks: Vec<u64>,
    /// The job of each role that wants more, and how many it has had.
    jobs: Vec<(Option<JobId>, u32)>,
    by_name: BTreeMap<Role, usize>,
    ends: BTreeMap<Time, Vec<Running>>,
    random: Random,
    pub ended: u64,
}

impl Cluster {
    pub fn new(size: &Size, roles: Vec<Wanting>, seed: u64) -> Self {
        let config = |id: u16| ShardConfig {
            id: ShardId(id),
            shards: size.shards,
            unreachable_ms: SILENCE_MS,
            replace_after_ms: 2 * SILENCE_MS,
            ..ShardConfig::default()
        };
        let now = Time(1_000);
        let mut shards: Vec<Shard> = (0..size.shards).map(|id| Shard::new(config(id))).collect();
        shards.iter_mut().for_each(|shard| shard.lead(now));
        let mut cluster = Self {
            letters: shards.iter().map(|_| Vec::new()).collect(),
            shards,
            now,
            agents: size.agents,
            tasks: vec![0; roles.len()],
            jobs: vec![(None, 0); roles.len()],
            by_name: roles.iter().enumerate().map(|(at, role)| (role.name.clone(), at)).collect(),
            roles,
            ends: BTreeMap::new(),
            random: Random::new(seed),
            ended: 0,
        };
        cluster.begin();
        cluster
    }

    fn begin(&mut self) {
        for at in 0..self.roles.len() {
            let Wanting { name, weight_milli, .. } = self.roles[at].clone();
            let settings = RoleSettings { claim: Claim { weight_milli, ..Claim::default() }, limit: Quota::default() };
            self.ask(HOME, at, Request::SetRole { role: name, settings, force: false });
        }
        for number in 1..=u64::from(self.agents) {
            let agent = AgentId(number);
            let own = shard_of_agent(agent, self.shard_count());
            let info = AgentInfo { name: format!("m{number}"), capacity: CAPACITY, version: "sim".into(), ..AgentInfo::default() };
            self.write(own, Event::Agent { agent, message: FromAgent::Register { info, incarnation: number, number: 1 } });
            self.write(own, Event::Agent { agent, message: FromAgent::Report { session: 0, held: vec![], last: true } });
        }
        self.run_until(self.now + REGISTERED_MS);
        (0..self.roles.len()).for_each(|at| self.submit(at));
    }

    pub const fn now(&self) -> Time {
        self.now
    }

    fn shard_count(&self) -> u16 {
        u16::try_from(self.shards.len()).expect("a shard's number")
    }

    fn write(&mut self, to: ShardId, event: Event) {
        self.letters[usize::from(to.0)].push(event);
    }

    /// Answers are known by the role that they are about.
    fn ask(&mut self, to: ShardId, about: usize, request: Request) {
        self.write(to, Event::Request { id: RequestId(about as u64), request });
    }

    fn submit(&mut self, at: usize) {
        let role = &self.roles[at];
        let mut job = job(role.shape.clone(), COUNT, TASK_MS_MAX);
        let name = format!("job-{at}-{}", self.jobs[at].1);
        let shard = shard_of_job(&role.name, &name, self.shard_count());
        (job.role, job.name) = (role.name.clone(), Some(Name::new(&name).expect("letters, digits and hyphens")));
        self.jobs[at].1 += 1;
        self.ask(shard, at, Request::Submit { job, key: None, follow: false });
    }

    /// A role wants more from now on, or nothing more: what it has runs to its end.
    pub fn toggle(&mut self, at: usize) {
        let wants = &mut self.roles[at].wants;
        *wants = !*wants;
        if *wants {
            self.submit(at);
        } else if let Some(job) = self.jobs[at].0.take() {
            self.ask(job.shard(), at, Request::Scale { job: JobRef::Id(job), count: 0 });
        }
    }

    pub fn run_until(&mut self, until: Time) {
        while self.now < until {
            self.now = self.now + 1;
            for Running { agent, attempt, role } in self.ends.remove(&self.now).unwrap_or_default() {
                self.tasks[role] -= 1;
                self.ended += 1;
                self.tell(agent, &[attempt], &TaskState::Ended { exit: Exit::Code(0), usage: Usage::default() });
            }
            let letters: Vec<Vec<Event>> = self.letters.iter_mut().map(std::mem::take).collect();
            for (at, letters) in letters.into_iter().enumerate() {
                let shard = &mut self.shards[at];
                letters.into_iter().for_each(|event| shard.handle(self.now, event));
                if shard.poll_timeout().is_some_and(|at| at <= self.now) {
                    shard.handle(self.now, Event::Tick);
                }
                self.act(at);
            }
        }
    }

    fn act(&mut self, at: usize) {
        let from = ShardId(u16::try_from(at).expect("a shard's number"));
        while let Some(output) = self.shards[at].poll_output() {
            match output {
                Output::Held(action) | Output::Now(action) => match action {
                    Action::Peer { to, message } => self.write(to, Event::Peer { from, message }),
                    Action::Send { agent, message: FromMaster::Launch(launch) } => self.launched(agent, &launch),
                    Action::Reply { id, response: Response::Submitted { job, .. } } => self.jobs[id.0 as usize].0 = Some(job),
                    Action::Reply { response: Response::Refused(refusal), .. } => panic!("{refusal:?}"),
                    _ => {}
                },
                Output::Journal(_) => {}
            }
        }
    }

    fn launched(&mut self, agent: AgentId, launch: &Launch) {
        let attempts: Vec<AttemptId> = launch.attempts.iter().map(|(index, number)| AttemptId::new(launch.job, *index, *number)).collect();
        let role = self.by_name[&launch.role];
        for attempt in &attempts {
            assert!(attempt.task.index + 1 < COUNT, "a job has more tasks than run between two changes");
            let end = self.now + self.random.between(TASK_MS_MIN, TASK_MS_MAX);
            self.ends.entry(end).or_default().push(Running { agent, attempt: *attempt, role });
        }
        self.tasks[role] += attempts.len() as u64;
        self.tell(agent, &attempts, &TaskState::Running { since: self.now, ports: vec![] });
    }

    /// Attempts are of one job.
    fn tell(&mut self, agent: AgentId, attempts: &[AttemptId], state: &TaskState) {
        let updates: Vec<Update> = attempts.iter().map(|attempt| Update { attempt: *attempt, state: state.clone() }).collect();
        self.write(attempts[0].shard(), Event::Agent { agent, message: FromAgent::Status { updates } });
    }

    /// Which part of all that there is so much is, of each kind.
    pub fn part(&self, amount: &Resources) -> [f64; KINDS] {
        let agents = f64::from(self.agents);
        [
            amount.cpu_milli as f64 / (CAPACITY.cpu_milli as f64 * agents),
            amount.memory_bytes as f64 / (CAPACITY.memory_bytes as f64 * agents),
        ]
    }

    /// What those that `which` says hold, of each kind.
    fn sum(&self, which: impl Fn(&Wanting) -> bool) -> [f64; KINDS] {
        let mut sum = [0.0; KINDS];
        for (role, tasks) in self.roles.iter().zip(&self.tasks).filter(|(role, _)| which(role)) {
            let part = self.part(&role.shape);
            (0..KINDS).for_each(|kind| sum[kind] += part[kind] * *tasks as f64);
        }
        sum
    }

    /// The dominant share that a role holds, with all that is below it.
    pub fn held(&self, name: &Role) -> f64 {
        self.sum(|role| role.name.is_within(name)).into_iter().fold(0.0, f64::max)
    }

    /// How much is used of what most of is used.
    pub fn used(&self) -> f64 {
        self.sum(|_| true).into_iter().fold(0.0, f64::max)
    }
}
