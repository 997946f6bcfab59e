//! The ledger as its door sees it: events in, outputs out.

mod changes;
mod checks;
mod devices;
mod ends;
mod groups;
mod launches;
mod leaders;
mod leases;
mod messages;
mod slack;

use super::event::*;
use super::*;
use protocol::message::{ATTEMPTS_PER_MESSAGE_MAX, attempt_hash, shard_of_agent};
use protocol::task::REASON_BYTES_MAX;
use protocol::{Device, Held, JobId, Limits, Loss, Member, MemberId, Metering, Name, PortRange, Program, TaskState, Template, Update};

const SHARDS: u16 = 4;
const BUNDLE: Digest = Digest([7; 32]);
const FORM: Form = Form::Wasm(Metering::Fuel);
const GIB: u64 = 1 << 30;

fn config() -> LedgerConfig {
    let ports = vec![PortRange { first: 100, last: 109 }];
    let capacity = Resources { cpu_milli: 4_000, memory_bytes: 8 * GIB, disk_bytes: GIB, ports: 10, devices: vec![] };
    let info = AgentInfo { name: "a".into(), capacity, ports, ..AgentInfo::default() };
    LedgerConfig { agent: AgentId(1), info, reservations: vec![], heartbeat_ms: 500, lends: true }
}

fn needs(cpu_milli: u64, ports: u32) -> Resources {
    Resources { cpu_milli, ports, ..Resources::NONE }
}

fn job() -> JobId {
    JobId::new(ShardId(2), 9)
}

fn id(index: u32) -> AttemptId {
    AttemptId::new(job(), index, 1)
}

/// A ledger, all that it put on record, and what it said since it was last asked.
struct Bench {
    ledger: Ledger,
    records: Vec<Record>,
    now: Time,
    sequence: u64,
    /// Of the last registration.
    number: u64,
}

impl Bench {
    fn new() -> Self {
        let ledger = Ledger::new(config(), 5, "boot".into());
        let mut bench = Self { ledger, records: vec![], now: Time(1_000), sequence: 0, number: 0 };
        bench.drain();
        bench
    }

    /// Connected, all shards led, registered in session 1, and the bundle is here.
    fn ready() -> Self {
        let mut bench = Self::new();
        bench.connect(1);
        bench.does(Event::Master { shard: bench.own(), message: FromMaster::Launch(launch(1, 0, needs(0, 0), 0..1)) });
        bench.does(Event::Prepared { bundle: BUNDLE, form: FORM, result: Ok(()) });
        bench.end(id(0), Exit::Code(0));
        bench.hears(FromMaster::Ack { attempts: vec![id(0)] });
        bench
    }

    fn own(&self) -> ShardId {
        shard_of_agent(AgentId(1), SHARDS)
    }

    fn drain(&mut self) -> Vec<Output> {
        let mut outputs = vec![];
        while let Some(output) = self.ledger.poll_output() {
            match output {
                Output::Checkpoint(record) => self.records.push(record),
                output => outputs.push(output),
            }
        }
        for output in &outputs {
            if let Output::Send { message: FromAgent::Register { number, .. }, .. } = output {
                assert!(*number > self.number, "no two registrations have the same number");
                self.number = *number;
            }
        }
        let capacity = self.ledger.capacity();
        assert!(capacity.contains(&self.ledger.promised().firm()), "more is promised than there is");
        assert_eq!(self.ledger.hash(), Ledger::recover(config(), &self.records).unwrap().hash(), "the records make the same ledger");
        outputs
    }

    fn does(&mut self, event: Event) -> Vec<Output> {
        self.ledger.handle(self.now, event);
        self.drain()
    }

    fn hears(&mut self, message: FromMaster) -> Vec<Output> {
        self.does(Event::Master { shard: self.own(), message })
    }

    fn connect(&mut self, session: u64) -> Vec<Output> {
        let mut outputs = self.does(Event::Connected { shards: SHARDS });
        outputs.extend(self.all_led());
        self.registered(session);
        outputs
    }

    /// Each shard gets a leader, its own first.
    fn all_led(&mut self) -> Vec<Output> {
        let own = self.own();
        let others = (0..SHARDS).map(ShardId).filter(|shard| *shard != own);
        std::iter::once(own).chain(others).flat_map(|shard| self.does(Event::Led { shard })).collect()
    }

    fn registered(&mut self, session: u64) -> Vec<Output> {
        self.sequence = 0;
        self.hears(FromMaster::Registered { session, heartbeat_ms: 500, number: self.number })
    }

    fn launches(&mut self, resources: Resources, indexes: std::ops::Range<u32>) -> Vec<Output> {
        self.sequence += 1;
        self.hears(FromMaster::Launch(launch(1, self.sequence, resources, indexes)))
    }

    fn end(&mut self, attempt: AttemptId, exit: Exit) -> Vec<Output> {
        self.does(Event::Ended { members: vec![(MemberId::first(attempt), exit, Usage::default())] })
    }

    fn after(&mut self, ms: u64) -> Vec<Output> {
        let until = self.now + ms;
        let mut outputs = vec![];
        let mut rounds = 0;
        while let Some(due) = self.ledger.poll_timeout().filter(|due| *due <= until) {
            assert!(due > self.now || rounds < 3, "a timer that is over stays set");
            rounds = if due > self.now { 0 } else { rounds + 1 };
            self.now = self.now.max(due);
            outputs.extend(self.does(Event::Tick));
        }
        self.now = until;
        outputs
    }

    fn recovered(&self) -> Self {
        let ledger = Ledger::recover(config(), &self.records).unwrap();
        Self { ledger, records: self.records.clone(), now: self.now, sequence: 0, number: 0 }
    }
}

fn template(resources: Resources) -> Template {
    let member = Member {
        name: None,
        program: Program::Wasm { bundle: BUNDLE, metering: Metering::Fuel, strict: false },
        args: vec![],
        env: vec![],
        config: vec![],
        stdin: None,
        ports: (0..resources.ports.min(70)).map(|n| Name::new(&format!("p{n}")).unwrap()).collect(),
        resources: resources.clone(),
        limits: Limits {
            fuel_max: None,
            cpu_time_ms_max: None,
            time_ms_max: None,
            memory_bytes_max: 0,
            table_elements_max: 0,
            host_bytes_max: 0,
            processes_max: 0,
            log_bytes_max: 0,
            log_bytes_per_s_max: 0,
        },
    };
    Template { members: vec![member], resources }
}

fn launch(session: u64, sequence: u64, resources: Resources, indexes: std::ops::Range<u32>) -> Launch {
    Launch {
        session,
        sequence,
        job: job(),
        title: "job".into(),
        role: protocol::Role::new("default").unwrap(),
        template: Arc::new(template(resources)),
        attempts: indexes.map(|index| (index, 1)).collect(),
    }
}

/// The attempts of these, each of which has one member.
fn first(members: &[MemberId]) -> Vec<AttemptId> {
    members.iter().map(|member| member.attempt).collect()
}

fn started(outputs: &[Output]) -> Vec<u32> {
    let starts = outputs.iter().filter_map(|output| if let Output::Start(start) = output { Some(start) } else { None });
    starts.flat_map(|start| start.launch.attempts.iter().map(|(index, _)| *index)).collect()
}

fn refused(outputs: &[Output]) -> Vec<(u32, String)> {
    let told = outputs.iter().filter_map(|output| match output {
        Output::Send { message: FromAgent::Refused { attempts, reason }, shard } => {
            assert_eq!(*shard, job().shard());
            Some(attempts.iter().map(|attempt| (attempt.task.index, reason.clone())).collect::<Vec<_>>())
        }
        _ => None,
    });
    told.flatten().collect()
}

fn updates(outputs: &[Output]) -> Vec<Update> {
    let told = outputs.iter().filter_map(|output| match output {
        Output::Send { message: FromAgent::Status { updates }, shard } => {
            assert!(updates.iter().all(|update| update.attempt.shard() == *shard) && updates.len() <= ATTEMPTS_PER_MESSAGE_MAX);
            Some(updates.clone())
        }
        _ => None,
    });
    told.flatten().collect()
}

fn ends(outputs: &[Output]) -> Vec<(AttemptId, Exit)> {
    let ended = |update: Update| if let TaskState::Ended { exit, .. } = update.state { Some((update.attempt, exit)) } else { None };
    updates(outputs).into_iter().filter_map(ended).collect()
}

fn reports(outputs: &[Output]) -> Vec<(u64, Vec<Held>, bool)> {
    let told = outputs.iter().filter_map(|output| match output {
        Output::Send { message: FromAgent::Report { session, held, last }, .. } => Some((*session, held.clone(), *last)),
        _ => None,
    });
    told.collect()
}
