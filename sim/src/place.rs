//! How fast one shard decides where tasks go: the real shard of the agents, driven as a framework's shard drives it (demand, offers, acceptance,
//! launch, release), with no journal and no network. Counted is only the time inside the shard.

use crate::client::job;
use crate::random::Random;
use master::shard::event::Want;
use master::shard::{Action, Event, Output, PeerMessage, Shard, ShardConfig};
use protocol::message::{ATTEMPTS_PER_MESSAGE_MAX, FromAgent, FromMaster, Launch, shard_of_agent};
use protocol::{AgentId, AgentInfo, AttemptId, Device, JobId, Name, Offer, PortRange, Resources, Role, ShardId, Template, Time};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The shard of the agents.
const AGENTS: ShardId = ShardId(0);
/// Whose tasks are placed: this file is that shard.
const TASKS: ShardId = ShardId(1);
/// No agent is silent for so long.
const SILENCE_MS: u64 = 1 << 40;
/// The cluster is filled to this part of its processors, in percent.
const FILLED_PERCENT: u64 = 90;
/// Kinds of tasks that are wanted at once, at the most; of each kind there may be any number.
const WANTED_MAX: usize = 1_000;
/// Of a hundred tasks so many need a device that [`DEVICE_EVERY`] says who has.
const DEVICE_PERCENT: u64 = 20;
/// Each so-many-th agent of a size has the device.
const DEVICE_EVERY: usize = 4;
/// What crosses is as much memory as this part of the agents do not have free, in percent, and more processors than any of the others have.
const CROSSED_FROM_PERCENT: usize = 95;
/// Cores of the agents, and GiB of memory, in turn.
const CAPACITIES: [(u64, u64); 4] = [(16, 64), (32, 128), (64, 256), (96, 384)];
/// Thousandths of a core that a task needs, and GiB of memory.
const NEEDS: [(u64, u64); 8] = [(500, 1), (1_000, 2), (1_000, 8), (2_000, 4), (4_000, 8), (4_000, 32), (8_000, 16), (16_000, 32)];

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Agents.
    pub agents: u32,
    /// Tasks that are placed while it is measured, each in the room of one that has ended.
    pub tasks: u32,
    /// Roles; each is one framework's.
    pub roles: u16,
    /// Tasks that end at once; about as many are wanted then.
    pub batch: u16,
    /// Wants for which there is no room, of each kind.
    pub misses: u32,
}

/// What it took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Tasks placed while it was measured.
    pub placed: u64,
    /// Time in the shard for one task, in the turn that was the median: what else the machine does lengthens some turns.
    pub each: Cost,
    /// Tasks wanted while it was measured: those that are not placed found no room.
    pub wanted: u64,
    /// Offers made.
    pub offers: u64,
    /// The processors in use, least and most, in percent.
    pub used_percent: (u64, u64),
    /// Time for one want that no agent has so much of one kind for: the median, and what 99 of 100 take at most.
    pub missing: (Duration, Duration),
    /// The same for wants of which some agents have the memory, and others the processors.
    pub missing_crossed: (Duration, Duration),
}

/// Time in the shard.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// For demands and offers.
    pub offering: Duration,
    /// For acceptances, launches and what is wanted still.
    pub launching: Duration,
    /// For releases.
    pub releasing: Duration,
}

impl Cost {
    /// For all of it.
    #[must_use]
    pub fn all(&self) -> Duration {
        self.offering + self.launching + self.releasing
    }

    fn each(&self, tasks: u64) -> Self {
        let one = |took: Duration| Duration::from_nanos(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) / tasks.max(1));
        Self { offering: one(self.offering), launching: one(self.launching), releasing: one(self.releasing) }
    }
}

struct Running {
    agent: u64,
    attempt: AttemptId,
    shape: usize,
}

struct Bench {
    size: Size,
    shard: Shard,
    now: Time,
    random: Random,
    roles: Vec<Role>,
    templates: Vec<Arc<Template>>,
    /// Tasks that wait, by role and shape.
    waiting: BTreeMap<(u16, usize), u32>,
    running: Vec<Running>,
    /// Processors and memory that each agent has free.
    free: BTreeMap<u64, (u64, u64)>,
    indexes: BTreeMap<JobId, u32>,
    seen: u64,
    told: u64,
    launched: u64,
    cpu_used: u64,
    cpu_total: u64,
    figures: Figures,
    /// Of this turn.
    cost: Cost,
}

/// Runs it.
#[must_use]
pub fn run(size: Size) -> Figures {
    let mut bench = Bench::new(size);
    bench.register();
    bench.fill();
    bench.figures = Figures { used_percent: (100, 0), ..Figures::default() };
    let mut turns = Vec::new();
    while bench.figures.placed < u64::from(size.tasks) {
        let (before, _) = (bench.figures.placed, std::mem::take(&mut bench.cost));
        bench.turn_over();
        turns.push(bench.cost.each(bench.figures.placed - before));
    }
    turns.sort_unstable_by_key(Cost::all);
    bench.figures.each = turns.get(turns.len() / 2).copied().unwrap_or_default();
    bench.miss();
    bench.figures
}

fn name(text: &str) -> Name {
    Name::new(text).expect("letters, a hyphen and digits")
}

fn shape(number: usize) -> Resources {
    let (cpu_milli, gib) = NEEDS[number % NEEDS.len()];
    let device = Device { name: name("lens"), milli: 1 };
    let devices = if number < NEEDS.len() { vec![] } else { vec![device] };
    Resources { cpu_milli, memory_bytes: gib << 30, devices, ..Resources::NONE }
}

impl Bench {
    fn new(size: Size) -> Self {
        let config =
            ShardConfig { id: AGENTS, shards: 2, unreachable_ms: SILENCE_MS, replace_after_ms: 2 * SILENCE_MS, ..ShardConfig::default() };
        let now = Time(1_000);
        let mut shard = Shard::new(config);
        shard.lead(now);
        Self {
            size,
            shard,
            now,
            random: Random::new(1),
            roles: (0..size.roles).map(|role| Role::new(&format!("role-{role}")).expect("a role")).collect(),
            templates: (0..2 * NEEDS.len()).map(|number| job(shape(number), 1, 0).template).collect(),
            waiting: BTreeMap::new(),
            running: Vec::new(),
            free: BTreeMap::new(),
            indexes: BTreeMap::new(),
            seen: 0,
            told: 0,
            launched: 0,
            cpu_used: 0,
            cpu_total: 0,
            figures: Figures::default(),
            cost: Cost::default(),
        }
    }

    /// Hands these in and takes out all that follows: the time in the shard, and what it wants done.
    fn drive(&mut self, events: Vec<Event>) -> (Duration, Vec<Action>) {
        let mut actions = Vec::with_capacity(events.len() * 4);
        let start = Instant::now();
        for event in events {
            self.shard.handle(self.now, event);
        }
        while let Some(output) = self.shard.poll_output() {
            if let Output::Held(action) | Output::Now(action) = output {
                actions.push(action);
            }
        }
        (start.elapsed(), actions)
    }

    fn tell(&mut self, messages: Vec<PeerMessage>) -> (Duration, Vec<Action>) {
        self.drive(messages.into_iter().map(|message| Event::Peer { from: TASKS, message }).collect())
    }

    /// All agents register, report, and hear that nobody holds anything to be there.
    fn register(&mut self) {
        let own = (1..).filter(|number| shard_of_agent(AgentId(*number), 2) == AGENTS).take(self.size.agents as usize);
        for (at, number) in own.enumerate() {
            let (cores, gib) = CAPACITIES[at % CAPACITIES.len()];
            let lens = Device { name: name("lens"), milli: 1_000 };
            let devices = if (at / CAPACITIES.len()).is_multiple_of(DEVICE_EVERY) { vec![lens] } else { vec![] };
            let capacity = Resources { cpu_milli: cores * 1_000, memory_bytes: gib << 30, disk_bytes: 1 << 40, ports: 100, devices };
            self.cpu_total += capacity.cpu_milli;
            self.free.insert(number, (capacity.cpu_milli, capacity.memory_bytes));
            let ports = vec![PortRange { first: 20_000, last: 20_099 }];
            let info = AgentInfo { name: format!("m{number}"), capacity, ports, version: "sim".into(), ..AgentInfo::default() };
            let agent = AgentId(number);
            let register = FromAgent::Register { info, incarnation: number, number: 1 };
            let report = FromAgent::Report { session: 0, held: vec![], last: true };
            let (_, actions) = self.drive([register, report].map(|message| Event::Agent { agent, message }).into());
            let answers = actions.into_iter().filter_map(|action| match action {
                Action::Peer { to, message: PeerMessage::Report { agent, session, .. } } => {
                    let message = PeerMessage::Stage { agent, session, launches: vec![], number: 0 };
                    Some(Event::Peer { from: to, message })
                }
                _ => None,
            });
            let answers = answers.collect();
            self.drive(answers);
        }
    }

    /// Wants tasks until all would be at [`FILLED_PERCENT`], though no more kinds of them than may be wanted at once.
    fn want(&mut self) {
        let mut wanted = self.cpu_used;
        while wanted * 100 < self.cpu_total * FILLED_PERCENT && self.waiting.len() < WANTED_MAX {
            let role = u16::try_from(self.random.below(u64::from(self.size.roles))).expect("below the roles");
            let plain = self.random.below(NEEDS.len() as u64) as usize;
            let shape = if self.random.below(100) < DEVICE_PERCENT { plain + NEEDS.len() } else { plain };
            wanted += self.templates[shape].resources.cpu_milli;
            *self.waiting.entry((role, shape)).or_default() += 1;
        }
    }

    /// Until [`FILLED_PERCENT`] is in use. What finds no room gives way to others.
    fn fill(&mut self) {
        while self.cpu_used * 100 < self.cpu_total * FILLED_PERCENT {
            self.waiting.clear();
            self.want();
            self.place();
        }
    }

    /// Some tasks end, and as much is wanted then. What finds no room in this turn or of what ends in the next is wanted no longer then.
    fn turn_over(&mut self) {
        self.now = self.now + 1;
        let mut ended: BTreeMap<AgentId, Vec<AttemptId>> = BTreeMap::new();
        for _ in 0..self.size.batch {
            let at = self.random.below(self.running.len() as u64) as usize;
            let one = self.running.swap_remove(at);
            let need = &self.templates[one.shape].resources;
            let free = self.free.get_mut(&one.agent).expect("an agent of ours");
            *free = (free.0 + need.cpu_milli, free.1 + need.memory_bytes);
            self.cpu_used -= need.cpu_milli;
            ended.entry(AgentId(one.agent)).or_default().push(one.attempt);
        }
        let releases = ended.into_iter().map(|(agent, attempts)| PeerMessage::Release { agent, attempts }).collect();
        let (took, actions) = self.tell(releases);
        self.cost.releasing += took;
        // What has waited since the last turn comes first.
        self.take(actions);
        self.waiting.clear();
        self.want();
        self.figures.wanted += self.waiting.values().map(|count| u64::from(*count)).sum::<u64>();
        self.place();
        let percent = self.cpu_used * 100 / self.cpu_total;
        let (least, most) = self.figures.used_percent;
        self.figures.used_percent = (least.min(percent), most.max(percent));
    }

    /// Says what waits, and takes all offers, until there are none.
    fn place(&mut self) {
        let demand = self.demand();
        let (took, actions) = self.tell(vec![demand]);
        self.cost.offering += took;
        self.take(actions);
    }

    fn demand(&self) -> PeerMessage {
        let want = |((role, shape), count): (&(u16, usize), &u32)| Want {
            role: self.roles[usize::from(*role)].clone(),
            priority: 50,
            shape: self.templates[*shape].resources.clone(),
            count: *count,
        };
        let wants = self.waiting.iter().map(want).take(master::shard::event::WANTS_MAX).collect();
        PeerMessage::Demand { wants, seen: self.seen }
    }

    /// Takes offers, as long as acceptances bring more.
    fn take(&mut self, mut actions: Vec<Action>) {
        loop {
            let offers = actions.drain(..).filter_map(|action| match action {
                Action::Peer { to: TASKS, message: PeerMessage::Offers { offers } } => Some(offers),
                _ => None,
            });
            let offers: Vec<Offer> = offers.flatten().collect();
            if offers.is_empty() {
                return;
            }
            self.figures.offers += offers.len() as u64;
            let before = self.launched;
            let mut said: Vec<PeerMessage> = offers.into_iter().map(|offer| self.accept(&offer)).collect();
            // What is left to want is said at once, and what was taken once it is on record: so it comes first.
            said.insert(0, self.demand());
            let (took, more) = self.tell(said);
            self.cost.launching += took;
            actions = more;
            let launches = actions.iter().filter_map(|action| match action {
                Action::Send { message: FromMaster::Launch(launch), .. } => Some(launch.attempts.len() as u64),
                _ => None,
            });
            let told: u64 = launches.sum();
            assert_eq!(told, self.launched - before, "what was accepted in time is launched");
            self.figures.placed += told;
        }
    }

    fn accept(&mut self, offer: &Offer) -> PeerMessage {
        self.seen = self.seen.max(offer.id.number);
        let role = self.roles.iter().position(|role| *role == offer.role).expect("a role of ours");
        let role = u16::try_from(role).expect("few roles");
        let mut launches = Vec::new();
        for shape in 0..self.templates.len() {
            let Some(count) = self.waiting.get_mut(&(role, shape)) else { continue };
            let template = &self.templates[shape];
            let n = offer.resources.times(&template.resources, (*count).min(ATTEMPTS_PER_MESSAGE_MAX as u32));
            // An offer is of one shape.
            if n == 0
                || !offer.resources.cpu_milli.is_multiple_of(template.resources.cpu_milli)
                || !is_whole(&offer.resources, &template.resources)
            {
                continue;
            }
            *count -= n;
            if *count == 0 {
                self.waiting.remove(&(role, shape));
            }
            let job = JobId::new(TASKS, (u64::from(role) * self.templates.len() as u64) + shape as u64 + 1);
            let next = self.indexes.entry(job).or_default();
            let attempts: Vec<(u32, u32)> = (*next..*next + n).map(|index| (index, 1)).collect();
            *next += n;
            let free = self.free.get_mut(&offer.agent.0).expect("an agent of ours");
            let need = &template.resources;
            *free = (free.0 - need.cpu_milli * u64::from(n), free.1 - need.memory_bytes * u64::from(n));
            self.cpu_used += need.cpu_milli * u64::from(n);
            self.launched += u64::from(n);
            let running =
                |(index, number): &(u32, u32)| Running { agent: offer.agent.0, attempt: AttemptId::new(job, *index, *number), shape };
            self.running.extend(attempts.iter().map(running));
            let template = Arc::clone(template);
            launches.push(Launch { session: 0, sequence: 0, job, title: String::new(), role: offer.role.clone(), template, attempts });
            break;
        }
        self.told += 1;
        PeerMessage::Accept { offer: offer.id, agent: offer.agent, launches, number: self.told }
    }

    /// Wants for which there is no room, one after the other.
    fn miss(&mut self) {
        self.waiting.clear();
        let (_, actions) = self.tell(vec![PeerMessage::Demand { wants: vec![], seen: self.seen }]);
        self.take(actions);
        let most = self.free.values().map(|free| free.0).max().unwrap_or(0);
        self.figures.missing = self.miss_all(&Resources { cpu_milli: most + 1, memory_bytes: 1 << 20, ..Resources::NONE });
        let mut by_memory: Vec<(u64, u64)> = self.free.values().map(|(cpu_milli, memory_bytes)| (*memory_bytes, *cpu_milli)).collect();
        by_memory.sort_unstable();
        let roomy = &by_memory[by_memory.len() * CROSSED_FROM_PERCENT / 100..];
        let least = roomy.first().map_or(0, |(memory_bytes, _)| *memory_bytes);
        let most = roomy.iter().map(|(_, cpu_milli)| *cpu_milli).max().unwrap_or(0);
        self.figures.missing_crossed = self.miss_all(&Resources { cpu_milli: most + 1, memory_bytes: least, ..Resources::NONE });
    }

    fn miss_all(&mut self, least: &Resources) -> (Duration, Duration) {
        let mut took_each = Vec::new();
        for number in 0..u64::from(self.size.misses) {
            let shape = Resources { cpu_milli: least.cpu_milli + number, ..least.clone() };
            let role = self.roles[number as usize % self.roles.len()].clone();
            let wants = vec![Want { role, priority: 50, shape, count: 1 }];
            let (took, actions) = self.tell(vec![PeerMessage::Demand { wants, seen: self.seen }]);
            assert!(actions.iter().all(|action| !matches!(action, Action::Peer { .. })), "no agent has so much");
            took_each.push(took);
        }
        took_each.sort_unstable();
        let at = |percent: usize| took_each.get(took_each.len() * percent / 100).copied().unwrap_or_default();
        (at(50), at(99))
    }
}

/// True where `sum` is a multiple of `each`.
fn is_whole(sum: &Resources, each: &Resources) -> bool {
    let n = sum.cpu_milli / each.cpu_milli;
    let devices = |amount: &Resources| amount.devices.iter().map(|device| device.milli).sum::<u64>();
    sum.memory_bytes == each.memory_bytes * n && devices(sum) == devices(each) * n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_cluster_stays_full_while_tasks_end_and_others_take_their_room() {
        let figures = run(Size { agents: 60, tasks: 2_000, roles: 8, batch: 20, misses: 50 });
        assert!(figures.placed >= 2_000, "{figures:?}");
        assert!(figures.used_percent.0 >= 80 && figures.used_percent.1 <= 100, "{figures:?}");
        assert!(figures.offers > 0 && figures.offers <= figures.placed, "{figures:?}");
        assert!(figures.placed * 10 >= figures.wanted * 7 && figures.placed <= figures.wanted, "{figures:?}");
    }
}
