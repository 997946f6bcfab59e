//! What the agents and clients of a large cluster say.

use super::Cluster;
use crate::client::job;
use master::journal::JournalError;
use master::shard::{Event, Request};
use protocol::message::{ATTEMPTS_PER_MESSAGE_MAX, FromAgent, FromMaster, Launch, shard_of_agent, shard_of_job};
use protocol::{AgentId, AgentInfo, AttemptId, Exit, Held, Name, PortRange, RequestId, Resources, TaskState, Update, Usage};

/// Agents that register in one round: what is on its way is little beside what stays.
const AGENTS_PER_ROUND: u32 = 500;

impl Cluster {
    pub(super) async fn register(&mut self) -> Result<(), JournalError> {
        for number in 1..=self.size.agents {
            self.begin_session(number, 1, vec![]);
            if number.is_multiple_of(AGENTS_PER_ROUND) {
                self.settle().await?;
            }
        }
        self.settle().await
    }

    /// As after a restart of all masters: each agent registers, says what it holds, and tells each shard how its tasks are.
    pub(super) async fn register_again(&mut self) -> Result<(), JournalError> {
        self.running.sort_unstable();
        let running = std::mem::take(&mut self.running);
        let mut rest = &running[..];
        for number in 1..=self.size.agents {
            let (own, others) = rest.split_at(rest.partition_point(|(agent, _)| *agent <= number));
            rest = others;
            let attempts: Vec<AttemptId> = own.iter().map(|(_, attempt)| *attempt).collect();
            let held = attempts.iter().map(|attempt| Held { attempt: *attempt, ended: false }).collect();
            self.begin_session(number, 2, held);
            self.tell(number, &attempts, &TaskState::Running { since: self.now, ports: vec![] });
            if number.is_multiple_of(AGENTS_PER_ROUND) {
                self.settle().await?;
            }
        }
        self.running = running;
        self.settle().await
    }

    fn begin_session(&mut self, number: u32, registration: u64, mut held: Vec<Held>) {
        let agent = AgentId(u64::from(number));
        let own = shard_of_agent(agent, self.size.shards);
        let capacity = Resources { cpu_milli: 64_000, memory_bytes: 64 << 30, disk_bytes: 1 << 40, ports: 100, devices: vec![] };
        let ports = vec![PortRange { first: 20_000, last: 20_099 }];
        let info = AgentInfo { name: format!("m{number}"), capacity, ports, version: "sim".into(), ..AgentInfo::default() };
        self.write(own, Event::Agent { agent, message: FromAgent::Register { info, incarnation: agent.0, number: registration } });
        while held.len() > ATTEMPTS_PER_MESSAGE_MAX {
            let rest = held.split_off(ATTEMPTS_PER_MESSAGE_MAX);
            let part = std::mem::replace(&mut held, rest);
            self.write(own, Event::Agent { agent, message: FromAgent::Report { session: 0, held: part, last: false } });
        }
        self.write(own, Event::Agent { agent, message: FromAgent::Report { session: 0, held, last: true } });
    }

    /// Tells each shard how its attempts, which are sorted, are.
    fn tell(&mut self, number: u32, attempts: &[AttemptId], state: &TaskState) {
        let agent = AgentId(u64::from(number));
        for part in attempts.chunk_by(|a, b| a.shard() == b.shard()).flat_map(|part| part.chunks(ATTEMPTS_PER_MESSAGE_MAX)) {
            let updates = part.iter().map(|attempt| Update { attempt: *attempt, state: state.clone() }).collect();
            self.write(part[0].shard(), Event::Agent { agent, message: FromAgent::Status { updates } });
        }
    }

    /// Submits jobs as fast as they are taken in; done when all tasks run.
    pub(super) async fn place(&mut self) -> Result<(), JournalError> {
        let mut left = self.size.tasks;
        for number in 0..self.size.jobs {
            let count = left / (self.size.jobs - number);
            left -= count;
            let resources = Resources { cpu_milli: 100, memory_bytes: 16 << 20, ..Resources::NONE };
            let mut job = job(resources, count, 1_000);
            let name = Name::new(&format!("job-{number}")).expect("letters, a hyphen and digits");
            let shard = shard_of_job(&job.role, name.as_str(), self.size.shards);
            job.name = Some(name);
            let request = Request::Submit { job, key: Some(format!("key-{number}")), follow: false };
            self.write(shard, Event::Request { id: RequestId(u64::from(number)), request });
            self.round().await?;
        }
        let tasks = self.size.tasks;
        self.wait(|figures| figures.ran >= tasks).await
    }

    /// All tasks end, those of one agent and shard together.
    pub(super) async fn end(&mut self) -> Result<(), JournalError> {
        self.running.sort_unstable();
        let running = std::mem::take(&mut self.running);
        let (ended, mut said) = (running.len(), 0);
        let state = TaskState::Ended { exit: Exit::Code(0), usage: Usage::default() };
        for own in running.chunk_by(|a, b| a.0 == b.0) {
            let attempts: Vec<AttemptId> = own.iter().map(|(_, attempt)| *attempt).collect();
            self.tell(own[0].0, &attempts, &state);
            said += 1;
            if said % AGENTS_PER_ROUND == 0 {
                self.round().await?;
            }
        }
        self.wait(|figures| figures.ended as usize >= ended).await
    }

    /// An agent hears something of a shard.
    pub(super) fn heard(&mut self, agent: AgentId, message: FromMaster) {
        match message {
            FromMaster::Launch(launch) => self.launched(agent, &launch),
            FromMaster::Ack { attempts } => self.figures.ended += u32::try_from(attempts.len()).expect("a message is short"),
            _ => {}
        }
    }

    /// It runs what it is told to.
    fn launched(&mut self, agent: AgentId, launch: &Launch) {
        let number = u32::try_from(agent.0).expect("agents are counted");
        let attempts: Vec<AttemptId> = launch.attempts.iter().map(|(index, number)| AttemptId::new(launch.job, *index, *number)).collect();
        self.running.extend(attempts.iter().map(|attempt| (number, *attempt)));
        self.figures.ran += u32::try_from(attempts.len()).expect("a message is short");
        self.figures.refused += attempts.iter().map(|attempt| attempt.number - 1).sum::<u32>();
        self.tell(number, &attempts, &TaskState::Running { since: self.now, ports: vec![] });
    }
}
