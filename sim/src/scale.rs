//! How large a cluster the real shards decide for, and how fast: agents that do nothing but say what they were told to run, one thread, no
//! journal, no faults. What is measured is what deciding costs: time of one core, and memory.

use crate::client::job;
use master::shard::{Action, Event, Output, Request, Shard, ShardConfig};
use protocol::message::{ATTEMPTS_PER_MESSAGE_MAX, FromAgent, FromMaster, Launch, shard_of_agent, shard_of_job};
use protocol::{
    AgentId, AgentInfo, AttemptId, Exit, JobId, Name, PortRange, RequestId, Resources, ShardId, TaskState, Time, Update, Usage,
};
use std::collections::VecDeque;
use std::time::Instant;

/// Agents that register in one round, and so many jobs that are submitted: what is on its way is little beside what stays.
const AGENTS_PER_ROUND: u32 = 500;
/// No agent is silent for so long.
const SILENCE_MS: u64 = 1 << 40;

/// How large it is to be.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Agents.
    pub agents: u32,
    /// Tasks, of all jobs together.
    pub tasks: u32,
    /// Jobs.
    pub jobs: u32,
    /// Shards.
    pub shards: u16,
}

/// What it took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Seconds until all agents had registered and reported.
    pub registering_s: f64,
    /// Seconds from the first submission until the last task ran.
    pub placing_s: f64,
    /// The same in computed seconds, which others on the machine do not lengthen.
    pub placing_cpu_s: f64,
    /// Seconds until all tasks had ended, and that was acknowledged.
    pub ending_s: f64,
    /// Bytes of memory for each agent.
    pub agent_bytes: u64,
    /// Bytes of memory for each running task, on top of that.
    pub task_bytes: u64,
    /// Tasks that ran.
    pub ran: u32,
    /// Tasks whose end was acknowledged.
    pub ended: u32,
    /// Attempts that found no room, and were placed again.
    pub refused: u32,
}

struct Cluster {
    shards: Vec<Shard>,
    letters: Vec<VecDeque<Event>>,
    now: Time,
    /// What runs: agent, job and index.
    running: Vec<(u32, JobId, u32)>,
    figures: Figures,
}

/// Runs it.
#[must_use]
pub fn run(size: Size) -> Figures {
    let mut cluster = Cluster::new(size);
    let empty = memory_bytes();
    let start = Instant::now();
    cluster.register(size);
    cluster.figures.registering_s = start.elapsed().as_secs_f64();
    let registered = memory_bytes();
    cluster.figures.agent_bytes = registered.saturating_sub(empty) / u64::from(size.agents.max(1));
    let (start, computed) = (Instant::now(), cpu_seconds().unwrap_or(0.0));
    cluster.place(size);
    cluster.figures.placing_cpu_s = cpu_seconds().unwrap_or(0.0) - computed;
    cluster.figures.placing_s = start.elapsed().as_secs_f64();
    let ours = cluster.running.capacity() * size_of::<(u32, JobId, u32)>();
    cluster.figures.task_bytes = memory_bytes().saturating_sub(registered + ours as u64) / u64::from(size.tasks.max(1));
    let start = Instant::now();
    cluster.end();
    cluster.figures.ending_s = start.elapsed().as_secs_f64();
    cluster.figures
}

/// What this process has computed so far; `None` where the kernel does not say.
#[must_use]
pub fn cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<u64>().ok()? as f64 / 1e9)
}

/// What this process holds of memory now.
fn memory_bytes() -> u64 {
    const PAGE_BYTES: u64 = 4_096;
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * PAGE_BYTES
}

impl Cluster {
    fn new(size: Size) -> Self {
        let config = |id| ShardConfig {
            id: ShardId(id),
            shards: size.shards,
            unreachable_ms: SILENCE_MS,
            replace_after_ms: 2 * SILENCE_MS,
            ..ShardConfig::default()
        };
        let mut cluster = Self {
            shards: (0..size.shards).map(|id| Shard::new(config(id))).collect(),
            letters: (0..size.shards).map(|_| VecDeque::new()).collect(),
            now: Time(1_000),
            running: Vec::with_capacity(size.tasks as usize),
            figures: Figures::default(),
        };
        let now = cluster.now;
        cluster.shards.iter_mut().for_each(|shard| shard.lead(now));
        cluster.settle();
        cluster
    }

    fn write(&mut self, to: ShardId, event: Event) {
        self.letters[usize::from(to.0)].push_back(event);
    }

    fn register(&mut self, size: Size) {
        let capacity = Resources { cpu_milli: 64_000, memory_bytes: 64 << 30, disk_bytes: 1 << 40, ports: 100, devices: vec![] };
        for number in 1..=size.agents {
            let agent = AgentId(u64::from(number));
            let ports = vec![PortRange { first: 20_000, last: 20_099 }];
            let info =
                AgentInfo { name: format!("m{number}"), capacity: capacity.clone(), ports, version: "sim".into(), ..AgentInfo::default() };
            let own = shard_of_agent(agent, size.shards);
            self.write(own, Event::Agent { agent, message: FromAgent::Register { info, incarnation: agent.0, number: 1 } });
            self.write(own, Event::Agent { agent, message: FromAgent::Report { session: 0, held: vec![], last: true } });
            if number.is_multiple_of(AGENTS_PER_ROUND) {
                self.settle();
            }
        }
        self.settle();
    }

    /// Submits jobs as fast as they are taken in; done when all tasks run.
    fn place(&mut self, size: Size) {
        let mut left = size.tasks;
        for number in 0..size.jobs {
            let count = left / (size.jobs - number);
            left -= count;
            let resources = Resources { cpu_milli: 100, memory_bytes: 16 << 20, ..Resources::NONE };
            let mut job = job(resources, count, 1_000);
            let name = Name::new(&format!("job-{number}")).expect("letters, a hyphen and digits");
            let shard = shard_of_job(&job.role, name.as_str(), size.shards);
            job.name = Some(name);
            let request = Request::Submit { job, key: Some(format!("key-{number}")), follow: false };
            self.write(shard, Event::Request { id: RequestId(u64::from(number)), request });
            self.round();
        }
        self.wait(|figures| figures.ran >= size.tasks);
    }

    /// All tasks end, those of one agent and shard together.
    fn end(&mut self) {
        let mut running = std::mem::take(&mut self.running);
        running.sort_unstable_by_key(|(agent, job, index)| (*agent, job.shard(), *job, *index));
        let ended = running.len();
        let same = |a: &(u32, JobId, u32), b: &(u32, JobId, u32)| (a.0, a.1.shard()) == (b.0, b.1.shard());
        for part in running.chunk_by(same).flat_map(|part| part.chunks(ATTEMPTS_PER_MESSAGE_MAX)) {
            let (agent, to) = (AgentId(u64::from(part[0].0)), part[0].1.shard());
            let state = TaskState::Ended { exit: Exit::Code(0), usage: Usage::default() };
            let update = |(_, job, index): &(u32, JobId, u32)| Update { attempt: AttemptId::new(*job, *index, 1), state: state.clone() };
            let message = FromAgent::Status { updates: part.iter().map(update).collect() };
            self.write(to, Event::Agent { agent, message });
            if self.letters[usize::from(to.0)].len() >= AGENTS_PER_ROUND as usize {
                self.round();
            }
        }
        self.wait(|figures| figures.ended as usize >= ended);
    }

    /// Goes on until `done`, from timer to timer where nothing is on its way; or until nothing happens any more.
    fn wait(&mut self, done: impl Fn(&Figures) -> bool) {
        loop {
            self.settle();
            if done(&self.figures) {
                return;
            }
            let Some(next) = self.shards.iter().filter_map(Shard::poll_timeout).min().filter(|next| next.0 < SILENCE_MS) else { return };
            self.now = self.now.max(next);
            self.letters.iter_mut().for_each(|letters| letters.push_back(Event::Tick));
        }
    }

    fn settle(&mut self) {
        while self.letters.iter().any(|letters| !letters.is_empty()) {
            self.round();
        }
    }

    /// Each shard takes in what waits for it, and then all that it wants is done.
    fn round(&mut self) {
        self.now = self.now + 1;
        for at in 0..self.shards.len() {
            for event in std::mem::take(&mut self.letters[at]) {
                self.shards[at].handle(self.now, event);
            }
            while let Some(output) = self.shards[at].poll_output() {
                if let Output::Held(action) | Output::Now(action) = output {
                    self.act(ShardId(at as u16), action);
                }
            }
        }
    }

    fn act(&mut self, from: ShardId, action: Action) {
        match action {
            Action::Peer { to, message } => self.write(to, Event::Peer { from, message }),
            Action::Send { agent, message: FromMaster::Launch(launch) } => self.launched(agent, &launch),
            Action::Send { message: FromMaster::Ack { attempts }, .. } => {
                self.figures.ended += u32::try_from(attempts.len()).expect("a message is short");
            }
            Action::Send { .. } | Action::Reply { .. } | Action::Publish(_) | Action::Disconnect { .. } => {}
        }
    }

    /// An agent runs what it is told to.
    fn launched(&mut self, agent: AgentId, launch: &Launch) {
        let number = u32::try_from(agent.0).expect("agents are counted");
        let attempt = |(index, number): &(u32, u32)| AttemptId::new(launch.job, *index, *number);
        let state = TaskState::Running { since: self.now, ports: vec![] };
        let updates = launch.attempts.iter().map(|each| Update { attempt: attempt(each), state: state.clone() }).collect();
        self.running.extend(launch.attempts.iter().map(|(index, _)| (number, launch.job, *index)));
        self.figures.ran += u32::try_from(launch.attempts.len()).expect("a message is short");
        self.figures.refused += launch.attempts.iter().map(|(_, number)| number - 1).sum::<u32>();
        self.write(launch.job.shard(), Event::Agent { agent, message: FromAgent::Status { updates } });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_tasks_of_a_small_cluster_run_once_and_end() {
        let figures = run(Size { agents: 50, tasks: 1_000, jobs: 10, shards: 4 });
        assert_eq!((figures.ran, figures.ended, figures.refused), (1_000, 1_000, 0));
    }
}
