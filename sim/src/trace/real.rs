//! The published experiment on the real shard: one agents' shard, which is told of agents and of each task as a framework's shard would, and whose offers
//! are taken. No journal, no network, and nothing ends.

use super::read::Trace;
use crate::client::job;
use crate::trace::fit::{Need, Room};
use master::shard::event::{PlacedWant, Want};
use master::shard::{Action, Event, Output, PeerMessage, Shard, ShardConfig};
use protocol::message::{FromAgent, FromMaster, Launch, shard_of_agent};
use protocol::{AgentId, AgentInfo, Constraint, Device, Field, Given, JobId, Name, Offer, Placement, Resources, Role, Rule, ShardId, Time};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The shard of the agents, and the one that wants something: this file.
const AGENTS: ShardId = ShardId(0);
const TASKS: ShardId = ShardId(1);
/// No agent is silent for so long.
const SILENCE_MS: u64 = 1 << 40;
/// The attribute of an agent that says which model its devices are.
const MODEL: &str = "model";

/// The cluster.
pub struct Real {
    shard: Shard,
    now: Time,
    role: Role,
    /// Models by number.
    models: Vec<String>,
    tasks: u64,
    seen: u64,
    told: u64,
}

fn gpu() -> Name {
    Name::new("gpu").expect("a name")
}

impl Real {
    /// With these agents, empty, in their order.
    #[must_use]
    pub fn new(agents: &[Room], trace: &Trace) -> Self {
        let config =
            ShardConfig { id: AGENTS, shards: 2, unreachable_ms: SILENCE_MS, replace_after_ms: 2 * SILENCE_MS, ..ShardConfig::default() };
        let mut shard = Shard::new(config);
        let (now, role) = (Time(1_000), Role::new("default").expect("a role"));
        shard.lead(now);
        let mut real = Self { shard, now, role, models: trace.models.clone(), tasks: 0, seen: 0, told: 0 };
        let numbers = (1..).filter(|number| shard_of_agent(AgentId(*number), 2) == AGENTS);
        for (number, room) in numbers.zip(agents) {
            real.register(AgentId(number), room);
        }
        real
    }

    fn register(&mut self, agent: AgentId, room: &Room) {
        let milli = u64::from(room.devices) * 1_000;
        let devices = if milli > 0 { vec![Device { name: gpu(), milli }] } else { vec![] };
        let capacity = Resources { cpu_milli: room.cpu_milli, memory_bytes: room.memory_bytes, devices, ..Resources::NONE };
        let model = self.models.get(room.kinds.trailing_zeros() as usize).cloned().unwrap_or_default();
        let attributes = [(MODEL.to_owned(), model)].into();
        let info = AgentInfo { name: format!("m{}", agent.0), capacity, attributes, version: "sim".into(), ..AgentInfo::default() };
        let register = FromAgent::Register { info, incarnation: agent.0, number: 1 };
        let report = FromAgent::Report { session: 0, held: vec![], last: true };
        let actions = self.drive([register, report].map(|message| Event::Agent { agent, message }).into()).1;
        let answer = |action: Action| match action {
            Action::Peer { to, message: PeerMessage::Report { agent, session, .. } } => {
                let message = PeerMessage::Stage { agent, session, launches: vec![], number: 0 };
                Some(Event::Peer { from: to, message })
            }
            _ => None,
        };
        let answers = actions.into_iter().filter_map(answer).collect();
        self.drive(answers);
    }

    fn drive(&mut self, events: Vec<Event>) -> (Duration, Vec<Action>) {
        let mut actions = Vec::new();
        let start = Instant::now();
        events.into_iter().for_each(|event| self.shard.handle(self.now, event));
        while let Some(output) = self.shard.poll_output() {
            if let Output::Held(action) | Output::Now(action) = output {
                actions.push(action);
            }
        }
        (start.elapsed(), actions)
    }

    /// A task is asked for: whether it was placed, with how many thousandths of devices, and how long the shard took to offer it a place.
    pub fn place(&mut self, need: &Need) -> (Option<u64>, Duration) {
        self.tasks += 1;
        let milli = u64::from(need.devices) * u64::from(need.milli);
        let devices = if milli > 0 { vec![Device { name: gpu(), milli }] } else { vec![] };
        let shape = Resources { cpu_milli: need.cpu_milli, memory_bytes: need.memory_bytes, devices, ..Resources::NONE };
        let want = Want { role: self.role.clone(), priority: 50, shape: shape.clone(), count: 1 };
        let seen = self.seen;
        let everywhere = need.kinds == u64::MAX;
        let (plain, placed) = if everywhere { (vec![want], vec![]) } else { (vec![], vec![self.placed(want, need.kinds)]) };
        let said = [PeerMessage::Demand { wants: plain, seen }, PeerMessage::DemandPlaced { wants: placed, seen }];
        let (took, actions) = self.drive(said.map(|message| Event::Peer { from: TASKS, message }).into());
        let offers = actions.into_iter().flat_map(|action| match action {
            Action::Peer { to: TASKS, message: PeerMessage::Offers { offers } } => offers,
            Action::Peer { to: TASKS, message: PeerMessage::OffersPlaced { offers } } => {
                offers.into_iter().map(|placed| placed.offer).collect()
            }
            _ => vec![],
        });
        let offers: Vec<Offer> = offers.collect();
        assert!(offers.len() <= 1, "one task is wanted, and what was offered before was taken");
        let Some(offer) = offers.first() else { return (None, took) };
        assert_eq!(offer.resources, shape, "one task is wanted");
        self.seen = offer.id.number;
        self.take(offer, shape, need);
        (Some(milli), took)
    }

    /// The offer is taken, and the devices are those that the agent is told of.
    fn take(&mut self, offer: &Offer, shape: Resources, need: &Need) {
        self.told += 1;
        let (id, template) = (JobId::new(TASKS, self.tasks), job(shape, 1, 0).template);
        let role = self.role.clone();
        let launch = Launch { session: 0, sequence: 0, job: id, title: String::new(), role, template, attempts: vec![(0, 1)] };
        let message = PeerMessage::Accept { offer: offer.id, agent: offer.agent, launches: vec![launch], number: self.told };
        let actions = self.drive(vec![Event::Peer { from: TASKS, message }]).1;
        let given = |action: &Action| match action {
            Action::Send { message: FromMaster::Devices { given, .. }, .. } => {
                given.iter().map(|Given { masks }| masks[0].count_ones()).sum()
            }
            _ => 0,
        };
        let given: u32 = actions.iter().map(given).sum();
        assert_eq!(given, u32::from(need.devices), "it has as many devices as it needs");
    }

    fn placed(&self, want: Want, kinds: u64) -> PlacedWant {
        let named = self.models.iter().enumerate().filter(|(at, _)| kinds >> at & 1 == 1).map(|(_, model)| model.as_str());
        let names: Vec<&str> = named.collect();
        let rule = Rule::Like(names.join("|"));
        let constraints = vec![Constraint { field: Field::Attribute(MODEL.into()), rule }];
        let place = Arc::new(Placement { constraints, spread: vec![] });
        PlacedWant { id: self.tasks, want, place, limits: Arc::default(), turn: None, agents: None }
    }
}
