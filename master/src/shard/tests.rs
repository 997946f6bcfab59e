//! A shard and scripted agents in one thread: what is said of each other is handed over at once, and time goes on when a test says so.

mod agents;
mod allocation;
mod deployments;
mod devices;
mod drains;
mod fences;
mod frameworks;
mod healths;
mod jobs;
mod lasting;
mod maintenance;
mod peers;
mod placed;
mod preempt;
mod quotas;
mod revocable;
mod scores;
mod system;
mod walk;

use super::event::{Change, JobRef};
use super::view::{JobView, View, Viewed};
use super::*;
use protocol::job::{COUNT_MAX, RestartPolicy};
use protocol::message::attempt_hash;
use protocol::{
    AgentInfo, AttemptId, Digest, Exit, FromAgent, FromMaster, Held, Job, Kind, Limits, Member, Metering, Name, Phase, Program, Progress,
    Resources, Restart, Role, TaskState, Template, Update, Usage,
};
use std::sync::Arc;

/// The agent that most tests have.
const A: AgentId = AgentId(1);
const B: AgentId = AgentId(2);

/// What an agent of a test holds, and what it was told.
#[derive(Default)]
struct Script {
    session: u64,
    beat_ms: u64,
    held: BTreeMap<AttemptId, bool>,
    launched: Vec<AttemptId>,
    killed: Vec<AttemptId>,
    acked: Vec<AttemptId>,
    reports_wanted: usize,
    rejected: bool,
    /// What frameworks said to its tasks.
    messages: Vec<(AttemptId, bytes::Bytes)>,
}

struct World {
    shard: Shard,
    now: Time,
    agents: BTreeMap<AgentId, Script>,
    journal: Vec<Record>,
    replies: Vec<(RequestId, Response)>,
    changes: Vec<Change>,
    disconnected: Vec<AgentId>,
    peers_said: usize,
    next_request: u64,
    /// Launches to these agents are lost on their way.
    deaf: BTreeSet<AgentId>,
}

fn as_role(text: &str) -> Role {
    Role::new(text).unwrap()
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn cpu(cpu_milli: u64) -> Resources {
    Resources { cpu_milli, ..Resources::NONE }
}

/// A job of wasm tasks, without a name.
pub fn job(kind: Kind, count: u32, cpu_milli: u64) -> Job {
    let limits = Limits {
        fuel_max: None,
        cpu_time_ms_max: None,
        time_ms_max: None,
        memory_bytes_max: 1 << 20,
        table_elements_max: 100,
        host_bytes_max: 1 << 20,
        processes_max: 64,
        log_bytes_max: 1 << 16,
        log_bytes_per_s_max: 1 << 20,
    };
    let member = Member {
        name: None,
        program: Program::Wasm { bundle: Digest([0; 32]), metering: Metering::Fuel, strict: false },
        args: vec!["${task.index}".into()],
        env: vec![],
        config: vec![],
        stdin: None,
        resources: cpu(cpu_milli),
        ports: vec![],
        limits,
    };
    let template = Template { members: vec![member], resources: cpu(cpu_milli) };
    let policy = if kind == Kind::Batch { RestartPolicy::Never } else { RestartPolicy::Always };
    let restart = Restart { policy, retries_max: None, backoff_first_ms: 1_000, backoff_factor_milli: 2_000, backoff_max_ms: 10_000 };
    Job {
        role: as_role("default"),
        name: None,
        kind,
        priority: 50,
        count,
        template: Arc::new(template),
        restart,
        update_parallel: 1,
        place: None,
        about: None,
        update: protocol::job::Update::default(),
        after: vec![],
    }
}

impl World {
    fn new() -> Self {
        Self::with(ShardConfig::default())
    }

    fn with(config: ShardConfig) -> Self {
        let mut shard = Shard::new(config);
        shard.lead(Time(1_000_000));
        let mut world = Self {
            shard,
            now: Time(1_000_000),
            agents: BTreeMap::new(),
            journal: Vec::new(),
            replies: Vec::new(),
            changes: Vec::new(),
            disconnected: Vec::new(),
            peers_said: 0,
            next_request: 0,
            deaf: BTreeSet::new(),
        };
        world.drain();
        world
    }

    fn drain(&mut self) {
        let mut steps = 0;
        while let Some(output) = self.shard.poll_output() {
            steps += 1;
            assert!(steps < 100_000, "the shard talks to itself without end");
            match output {
                Output::Journal(record) => self.journal.push(record),
                Output::Held(action) | Output::Now(action) => self.act(action),
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Peer { to, message } => {
                assert_eq!(to, self.shard.config.id);
                self.peers_said += 1;
                self.shard.handle(self.now, Event::Peer { from: to, message });
            }
            Action::Reply { id, response } => self.replies.push((id, response)),
            Action::Publish(change) => self.changes.push(change),
            Action::Disconnect { agent, .. } => self.disconnected.push(agent),
            Action::Send { agent, message } => self.told(agent, message),
        }
    }

    fn told(&mut self, agent: AgentId, message: FromMaster) {
        let script = self.agents.entry(agent).or_default();
        match message {
            FromMaster::Registered { session, heartbeat_ms, .. } => (script.session, script.beat_ms) = (session, heartbeat_ms),
            FromMaster::Launch(launch) => {
                assert_eq!(launch.session, script.session);
                for (index, number) in launch.attempts {
                    let attempt = AttemptId::new(launch.job, index, number);
                    if self.deaf.contains(&agent) {
                        continue;
                    }
                    assert!(!script.launched.contains(&attempt), "{attempt} was launched twice");
                    script.launched.push(attempt);
                    script.held.insert(attempt, false);
                }
            }
            FromMaster::Kill { attempts, .. } => script.killed.extend(attempts),
            FromMaster::Ack { attempts } => {
                for attempt in attempts {
                    script.held.remove(&attempt);
                    script.acked.push(attempt);
                }
            }
            FromMaster::ReportWanted { .. } => script.reports_wanted += 1,
            FromMaster::Rejected { .. } => script.rejected = true,
            FromMaster::Message { attempt, bytes } => script.messages.push((attempt, bytes)),
            FromMaster::BeatAck { .. }
            | FromMaster::Prepare { .. }
            | FromMaster::Leading { .. }
            | FromMaster::Masters { .. }
            | FromMaster::Lease { .. }
            | FromMaster::Devices { .. }
            | FromMaster::LedElsewhere { .. }
            | FromMaster::Pulses { .. } => {}
        }
    }

    fn event(&mut self, event: Event) {
        self.shard.handle(self.now, event);
        self.drain();
    }

    /// Lets time go on, with every timer at its moment and all agents in `beating` beating.
    fn pass(&mut self, ms: u64, beating: &[AgentId]) {
        let end = self.now + ms;
        while self.now < end {
            let next = self.shard.poll_timeout().unwrap_or(end).max(self.now).min(self.now + 500).min(end);
            self.now = next.max(self.now + 1);
            self.event(Event::Tick);
            for agent in beating {
                self.beat(*agent);
            }
        }
    }

    fn say(&mut self, agent: AgentId, message: FromAgent) {
        self.event(Event::Agent { agent, message });
    }

    fn beat(&mut self, agent: AgentId) {
        let script = &self.agents[&agent];
        let held_hash = script.held.keys().fold(0, |hash, attempt| hash ^ attempt_hash(*attempt));
        let (session, held) = (script.session, script.held.len() as u32);
        self.say(agent, FromAgent::Beat { session, sent: self.now, held, held_hash });
    }

    fn register(&mut self, agent: AgentId, capacity: Resources, incarnation: u64) {
        let info = AgentInfo { name: format!("agent-{}", agent.0), capacity, ..AgentInfo::default() };
        self.say(agent, FromAgent::Register { info, incarnation, number: 1 });
        self.report(agent, 0);
    }

    fn report(&mut self, agent: AgentId, session: u64) {
        let held = self.agents[&agent].held.iter().map(|(attempt, ended)| Held { attempt: *attempt, ended: *ended }).collect();
        self.say(agent, FromAgent::Report { session, held, last: true });
    }

    /// A new leader over the same records; the agents do not know yet.
    fn new_leader(&mut self) {
        self.shard = Shard::restore(self.shard.config.clone(), self.shard.snapshot());
        self.shard.lead(self.now);
        self.drain();
    }

    fn ask(&mut self, request: Request) -> Response {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.event(Event::Request { id, request });
        let at = self.replies.iter().position(|(of, _)| *of == id).expect("each request is answered");
        self.replies.remove(at).1
    }

    fn submit(&mut self, job: Job) -> JobId {
        match self.ask(Request::Submit { job, key: None, follow: false }) {
            Response::Submitted { job, .. } => job,
            other => panic!("{other:?}"),
        }
    }

    fn job(&mut self, id: JobId) -> JobView {
        match self.ask(Request::View(View::Job(JobRef::Id(id)))) {
            Response::Viewed(viewed) => match *viewed {
                Viewed::Job(view) => *view,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    fn count(&mut self, id: JobId, phase: Phase) -> u32 {
        self.job(id).tasks.get(&phase).copied().unwrap_or(0)
    }

    fn running(&mut self, agent: AgentId, attempts: &[AttemptId]) {
        let state = TaskState::Running { since: self.now, ports: vec![] };
        let updates = attempts.iter().map(|attempt| Update { attempt: *attempt, state: state.clone() }).collect();
        self.say(agent, FromAgent::Status { updates });
    }

    fn end(&mut self, agent: AgentId, attempts: &[AttemptId], exit: &Exit) {
        for attempt in attempts {
            self.agents.entry(agent).or_default().held.insert(*attempt, true);
        }
        let state = TaskState::Ended { exit: exit.clone(), usage: Usage::default() };
        let updates = attempts.iter().map(|attempt| Update { attempt: *attempt, state: state.clone() }).collect();
        self.say(agent, FromAgent::Status { updates });
    }

    /// What an agent holds and has not ended.
    fn held(&self, agent: AgentId) -> Vec<AttemptId> {
        self.agents[&agent].held.iter().filter(|(_, ended)| !**ended).map(|(attempt, _)| *attempt).collect()
    }

    fn ends_on_record(&self) -> Vec<AttemptId> {
        let ends = self.journal.iter().filter_map(|record| match record {
            Record::Ended { id, ends, .. } => Some(ends.iter().map(|end| end.attempt(*id))),
            _ => None,
        });
        ends.flatten().collect()
    }

    /// What must hold after each test: no end is on record twice, and the records alone make the same state.
    fn check(&self) {
        let mut ends = self.ends_on_record();
        let all = ends.len();
        ends.sort_unstable();
        ends.dedup();
        assert_eq!(ends.len(), all, "an end is on record twice");
        let mut replayed = Shard::new(self.shard.config.clone());
        for record in &self.journal {
            replayed.apply(record);
        }
        assert_eq!(replayed.hash(), self.shard.hash(), "replaying the records makes another state");
        assert_eq!(Shard::restore(self.shard.config.clone(), self.shard.snapshot()).hash(), self.shard.hash());
        for seat in &self.shard.pool.seats {
            let mut held = seat.booked.clone();
            amounts::add(&mut held, &seat.offered, 1);
            assert!(seat.capacity.contains(&held), "more is promised on {} than it has", seat.id);
        }
    }
}
