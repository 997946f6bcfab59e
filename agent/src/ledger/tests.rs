//! The ledger as its door sees it: events in, outputs out.

use super::event::*;
use super::*;
use protocol::message::{ATTEMPTS_PER_MESSAGE_MAX, attempt_hash};
use protocol::task::REASON_BYTES_MAX;
use protocol::{Device, Held, JobId, Limits, Loss, Metering, Name, PortRange, Program, TaskState, Template, Update};

const SHARDS: u16 = 4;
const BUNDLE: Digest = Digest([7; 32]);
const FORM: Form = Form::Wasm(Metering::Fuel);
const GIB: u64 = 1 << 30;

fn config() -> LedgerConfig {
    let ports = vec![PortRange { first: 100, last: 109 }];
    let capacity = Resources { cpu_milli: 4_000, memory_bytes: 8 * GIB, disk_bytes: GIB, ports: 10, devices: vec![] };
    let info = AgentInfo { name: "a".into(), capacity, ports, ..AgentInfo::default() };
    LedgerConfig { agent: AgentId(1), info, heartbeat_ms: 500 }
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
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self { ledger: Ledger::new(config(), 5, "boot".into()), records: vec![], now: Time(1_000), sequence: 0 };
        bench.drain();
        bench
    }

    /// Connected, registered in session 1, and the bundle is here.
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
        let capacity = self.ledger.capacity();
        assert!(capacity.contains(self.ledger.promised()), "more is promised than there is");
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
        let outputs = self.does(Event::Connected { shards: SHARDS });
        self.hears(FromMaster::Registered { session, heartbeat_ms: 500 });
        self.sequence = 0;
        outputs
    }

    fn launches(&mut self, resources: Resources, indexes: std::ops::Range<u32>) -> Vec<Output> {
        self.sequence += 1;
        self.hears(FromMaster::Launch(launch(1, self.sequence, resources, indexes)))
    }

    fn end(&mut self, attempt: AttemptId, exit: Exit) -> Vec<Output> {
        self.does(Event::Ended { attempts: vec![(attempt, exit, Usage::default())] })
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
        Self { ledger, records: self.records.clone(), now: self.now, sequence: 0 }
    }
}

fn template(resources: Resources) -> Template {
    Template {
        program: Program::Wasm { bundle: BUNDLE, metering: Metering::Fuel, strict: false },
        args: vec![],
        env: vec![],
        config: vec![],
        stdin: None,
        ports: (0..resources.ports.min(70)).map(|n| Name::new(&format!("p{n}")).unwrap()).collect(),
        resources,
        limits: Limits {
            fuel_max: None,
            cpu_time_ms_max: None,
            time_ms_max: None,
            memory_bytes_max: 0,
            table_elements_max: 0,
            host_bytes_max: 0,
            log_bytes_max: 0,
        },
    }
}

fn launch(session: u64, sequence: u64, resources: Resources, indexes: std::ops::Range<u32>) -> Launch {
    Launch {
        session,
        sequence,
        job: job(),
        title: "job".into(),
        role: Name::new("default").unwrap(),
        template: Arc::new(template(resources)),
        attempts: indexes.map(|index| (index, 1)).collect(),
    }
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

#[test]
fn a_launch_starts_when_its_bundle_is_here_and_a_short_task_sends_only_its_end() {
    let mut bench = Bench::new();
    bench.connect(1);
    let outputs = bench.launches(needs(1_000, 2), 0..2);
    assert!(matches!(outputs[..], [Output::Prepare { bundle: BUNDLE, form: FORM }]), "{outputs:?}");
    assert!(matches!(bench.records[..], [Record::Began { .. }, Record::Taken { .. }]));
    assert_eq!(bench.launches(needs(0, 0), 2..3).len(), 0, "it is asked for once");
    let outputs = bench.does(Event::Prepared { bundle: BUNDLE, form: FORM, result: Ok(()) });
    assert_eq!(started(&outputs), [0, 1, 2]);
    let Output::Start(start) = &outputs[0] else { panic!() };
    assert_eq!(start.ports, [[100, 101], [102, 103]]);
    assert_eq!(bench.ledger.promised(), &needs(2_000, 4));
    let ended = bench.end(id(0), Exit::Code(0));
    assert_eq!(ends(&ended), [(id(0), Exit::Code(0))]);
    bench.does(Event::Started { attempts: vec![(id(1), Time(77))] });
    let later = updates(&bench.after(100));
    assert!(later.contains(&Update { attempt: id(1), state: TaskState::Running { since: Time(77), ports: vec![102, 103] } }));
    assert!(later.iter().all(|update| update.attempt != id(0)), "{later:?}");
    assert_eq!(bench.ledger.promised(), &needs(1_000, 2));
}

#[test]
fn what_does_not_fit_is_refused_and_counted() {
    let mut bench = Bench::ready();
    let outputs = bench.launches(needs(1_500, 0), 1..6);
    assert_eq!(started(&outputs), [1, 2]);
    let told = refused(&outputs);
    assert_eq!(told.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [3, 4, 5]);
    assert!(told[0].1.contains("cpu"), "{}", told[0].1);
    assert_eq!((bench.ledger.counts().taken, bench.ledger.counts().refused), (3, 3));
    assert_eq!(refused(&bench.launches(needs(0, 11), 10..11)).len(), 1, "more ports than there are");
    bench.end(id(1), Exit::Code(0));
    assert_eq!(started(&bench.launches(needs(1_500, 0), 3..6)), [3], "an end frees, and a refused one may come again");
}

#[test]
fn hostile_launches_change_nothing() {
    let huge = Resources { cpu_milli: u64::MAX, memory_bytes: u64::MAX, disk_bytes: u64::MAX, ports: 0, devices: vec![] };
    let gpu = |milli| Device { name: Name::new("gpu").unwrap(), milli };
    let unsorted = Resources { devices: vec![gpu(1), gpu(1)], ..Resources::NONE };
    let too_many_ports = needs(0, u32::MAX);
    for resources in [huge, unsorted, too_many_ports, Resources { devices: vec![gpu(0)], ..Resources::NONE }] {
        let mut bench = Bench::ready();
        let before = bench.ledger.hash();
        let outputs = bench.launches(resources, 1..4);
        assert_eq!((started(&outputs).len(), refused(&outputs).len()), (0, 3));
        assert_eq!(bench.ledger.hash(), before);
    }
    let mut bench = Bench::ready();
    let outputs = bench.launches(needs(0, 0), 0..1_000_000);
    assert_eq!((started(&outputs).len(), refused(&outputs).len()), (0, ATTEMPTS_PER_MESSAGE_MAX));
    let foreign = Launch { job: JobId::new(ShardId(200), 1), ..launch(1, 9, needs(0, 0), 0..1) };
    assert!(bench.hears(FromMaster::Launch(foreign)).is_empty(), "there is no such shard");
    let other = ShardId((bench.own().0 + 1) % SHARDS);
    let stranger = FromMaster::Launch(launch(1, 10, needs(0, 0), 5..6));
    assert!(bench.does(Event::Master { shard: other, message: stranger }).is_empty(), "only its own shard may launch");
    assert!(bench.does(Event::Connected { shards: 0 }).iter().any(|output| matches!(output, Output::Quit { .. })));
}

#[test]
fn held_attempts_are_bounded_even_where_they_need_nothing() {
    let mut ledger = Ledger::new(config(), 5, "boot".into());
    ledger.handle(Time(0), Event::Connected { shards: SHARDS });
    let own = shard_of_agent(AgentId(1), SHARDS);
    ledger.handle(Time(0), Event::Master { shard: own, message: FromMaster::Registered { session: 1, heartbeat_ms: 500 } });
    let step = ATTEMPTS_PER_MESSAGE_MAX as u32;
    for n in 0..ATTEMPTS_HELD_MAX as u32 / step + 3 {
        let message = FromMaster::Launch(launch(1, u64::from(n), needs(0, 0), n * step..(n + 1) * step));
        ledger.handle(Time(0), Event::Master { shard: own, message });
        while ledger.poll_output().is_some() {}
    }
    assert_eq!((ledger.held(), ledger.counts().refused), (ATTEMPTS_HELD_MAX, 3 * u64::from(step)));
}

#[test]
fn a_launch_of_another_session_or_an_old_sequence_is_passed_over() {
    let mut bench = Bench::ready();
    assert_eq!(started(&bench.hears(FromMaster::Launch(launch(1, 5, needs(1, 0), 1..2)))), [1]);
    for (session, sequence) in [(1, 5), (1, 4), (0, 9), (2, 9)] {
        let outputs = bench.hears(FromMaster::Launch(launch(session, sequence, needs(1, 0), 7..8)));
        assert!(outputs.is_empty(), "{session} {sequence}");
    }
    assert_eq!(bench.ledger.counts().stale, 4);
    bench.hears(FromMaster::Registered { session: 3, heartbeat_ms: 500 });
    bench.hears(FromMaster::Registered { session: 2, heartbeat_ms: 500 });
    assert!(bench.hears(FromMaster::Launch(launch(2, 9, needs(1, 0), 7..8))).is_empty(), "an older session does not come back");
    assert_eq!(started(&bench.hears(FromMaster::Launch(launch(3, 1, needs(1, 0), 7..8)))), [7]);
}

#[test]
fn an_attempt_is_taken_once_whatever_is_said_and_whenever() {
    let mut bench = Bench::ready();
    assert_eq!(started(&bench.launches(needs(1, 0), 1..3)), [1, 2]);
    assert!(started(&bench.launches(needs(1, 0), 1..3)).is_empty(), "while it is held");
    bench.end(id(1), Exit::Code(0));
    bench.hears(FromMaster::Ack { attempts: vec![id(1)] });
    assert!(started(&bench.launches(needs(1, 0), 1..2)).is_empty(), "when it is forgotten");
    let twice = Launch { attempts: vec![(9, 2), (9, 1), (9, 2)], ..launch(1, 50, needs(1, 0), 0..0) };
    assert_eq!(started(&bench.hears(FromMaster::Launch(twice))), [9, 9], "numbers 1 and 2, each once");
    let mut again = bench.recovered();
    again.connect(1);
    assert!(started(&again.launches(needs(1, 0), 1..2)).is_empty(), "after a restart");
    let compact = Bench { records: bench.ledger.snapshot(), ..bench.recovered() };
    let mut again = compact.recovered();
    again.connect(1);
    assert!(started(&again.launches(needs(1, 0), 0..2)).is_empty(), "after a restart from a compacted record");
    assert_eq!(bench.ledger.hash(), again.ledger.hash());
}

#[test]
fn kill_is_heard_in_any_state() {
    let mut bench = Bench::new();
    bench.connect(1);
    bench.launches(needs(1, 0), 0..2);
    let kill = |indexes: &[u32]| FromMaster::Kill { attempts: indexes.iter().map(|index| id(*index)).collect(), grace_ms: u64::MAX };
    let outputs = bench.hears(kill(&[0, 50]));
    assert_eq!(ends(&outputs), [(id(0), Exit::Killed)], "before it started");
    assert_eq!(started(&bench.does(Event::Prepared { bundle: BUNDLE, form: FORM, result: Ok(()) })), [1]);
    for _ in 0..2 {
        let outputs = bench.hears(kill(&[1]));
        assert!(matches!(&outputs[..], [Output::Stop { attempts, grace_ms: 86_400_000 }] if *attempts == [id(1)]), "{outputs:?}");
    }
    bench.does(Event::Started { attempts: vec![(id(1), Time(1))] });
    assert_eq!(updates(&bench.after(50)).last().unwrap().state, TaskState::Killing, "a late start does not hide it");
    assert_eq!(ends(&bench.end(id(1), Exit::Killed)), [(id(1), Exit::Killed)]);
    assert!(bench.hears(kill(&[0, 1])).is_empty(), "after its end");
}

#[test]
fn an_end_is_told_until_it_is_acknowledged_and_then_never_again() {
    let mut bench = Bench::ready();
    bench.launches(needs(1, 0), 1..3);
    bench.end(id(1), Exit::Code(3));
    let again = ends(&bench.after(10_000));
    assert_eq!(again.len(), 2, "after 2 and 6 seconds: {again:?}");
    bench.does(Event::Disconnected);
    assert!(bench.ledger.poll_timeout().is_none());
    bench.end(id(2), Exit::Code(4));
    let outputs = bench.connect(2);
    assert_eq!(ends(&outputs), [(id(1), Exit::Code(3)), (id(2), Exit::Code(4))]);
    let outputs = bench.hears(FromMaster::Ack { attempts: vec![id(1), id(2), id(77)] });
    assert!(matches!(&outputs[..], [Output::Forget { attempts }] if *attempts == [id(1), id(2)]));
    assert!(ends(&bench.after(100_000)).is_empty());
    assert_eq!((bench.ledger.held(), bench.ledger.held_hash()), (0, 0));
    assert!(bench.hears(FromMaster::Ack { attempts: vec![id(1)] }).is_empty());
    bench.hears(FromMaster::Launch(launch(2, 1, needs(1, 0), 3..4)));
    assert!(bench.hears(FromMaster::Ack { attempts: vec![id(3)] }).is_empty(), "what has not ended is not forgotten");
}

#[test]
fn too_many_ends_without_an_answer_stop_the_starting() {
    let mut bench = Bench { ledger: Bench::ready().ledger, records: vec![], now: Time(1_000), sequence: 100 };
    let mut outputs = vec![];
    let step = ATTEMPTS_PER_MESSAGE_MAX as u32;
    let steps = UPDATES_PENDING_MAX as u32 / step;
    for n in 0..=steps {
        bench.sequence += 1;
        let message = FromMaster::Launch(launch(1, bench.sequence, needs(0, 0), n * step + 1..(n + 1) * step + 1));
        bench.ledger.handle(bench.now, Event::Master { shard: bench.own(), message });
        while let Some(output) = bench.ledger.poll_output() {
            if let Output::Start(start) = output {
                let ended = start.launch.attempts.iter().map(|(index, _)| (id(*index), Exit::Code(0), Usage::default()));
                bench.ledger.handle(bench.now, Event::Ended { attempts: ended.collect() });
                outputs.push(start);
            }
        }
    }
    assert_eq!(outputs.len(), steps as usize, "the last one waits");
    bench.ledger.handle(bench.now, Event::Master { shard: bench.own(), message: FromMaster::Ack { attempts: vec![id(1)] } });
    let mut rest = vec![];
    while let Some(output) = bench.ledger.poll_output() {
        rest.push(output);
    }
    assert_eq!(started(&rest).len(), step as usize);
}

#[test]
fn a_bundle_that_cannot_be_had_ends_what_waits_for_it() {
    let mut bench = Bench::new();
    bench.connect(1);
    bench.launches(needs(1_000, 0), 0..1);
    let result = Err(PrepareError::Unusable("é".repeat(REASON_BYTES_MAX)));
    let told = ends(&bench.does(Event::Prepared { bundle: BUNDLE, form: FORM, result }));
    assert!(matches!(&told[..], [(_, Exit::Rejected { reason })] if reason.len() == REASON_BYTES_MAX));
    bench.launches(needs(1_000, 0), 1..2);
    let later = || Event::Prepared { bundle: BUNDLE, form: FORM, result: Err(PrepareError::Later("gone".into())) };
    let mut asked = 0;
    let told = loop {
        let told = ends(&bench.does(later()));
        if !told.is_empty() {
            break told;
        }
        let outputs = bench.after(20_000);
        asked += outputs.iter().filter(|output| matches!(output, Output::Prepare { .. })).count();
        assert!(asked < 100, "it is not asked for for ever");
    };
    assert_eq!((told, asked), (vec![(id(1), Exit::Lost { reason: Loss::Refused })], 9));
    assert!(bench.ledger.promised().is_none());
}

#[test]
fn standard_input_is_waited_for_too() {
    let mut bench = Bench::ready();
    let stdin = Digest([8; 32]);
    let mut read = launch(1, 40, needs(1, 0), 1..2);
    Arc::make_mut(&mut read.template).stdin = Some(stdin);
    let outputs = bench.hears(FromMaster::Launch(read));
    assert!(matches!(outputs[..], [Output::Prepare { bundle, form: Form::Plain }] if bundle == stdin), "{outputs:?}");
    assert!(bench.ledger.uses(stdin) && bench.ledger.uses(BUNDLE));
    assert_eq!(started(&bench.does(Event::Prepared { bundle: stdin, form: Form::Plain, result: Ok(()) })), [1]);
    bench.does(Event::Evicted { bundle: BUNDLE });
    bench.sequence = 50;
    assert!(matches!(bench.launches(needs(1, 0), 2..3)[..], [Output::Prepare { bundle: BUNDLE, form: FORM }]));
}

#[test]
fn it_registers_reports_and_beats() {
    let mut bench = Bench::ready();
    bench.launches(needs(1, 0), 1..3);
    bench.end(id(1), Exit::Code(0));
    bench.does(Event::Disconnected);
    let outputs = bench.does(Event::Connected { shards: SHARDS });
    assert!(matches!(&outputs[0], Output::Send { message: FromAgent::Register { incarnation: 5, .. }, .. }));
    let held = vec![Held { attempt: id(1), ended: true }, Held { attempt: id(2), ended: false }];
    assert_eq!(reports(&outputs), [(0, held.clone(), true)]);
    assert_eq!(updates(&outputs).len(), 2);
    assert!(reports(&bench.after(1_500)).len() == 1, "an answer that does not come is asked for again");
    bench.hears(FromMaster::Registered { session: 4, heartbeat_ms: 500 });
    let held_hash = attempt_hash(id(1)) ^ attempt_hash(id(2));
    let beats = |outputs: &[Output]| {
        let beat = |output: &&Output| matches!(output, Output::Send { message: FromAgent::Beat { session: 4, held: 2, held_hash: hash, .. }, .. } if *hash == held_hash);
        outputs.iter().filter(beat).count()
    };
    assert_eq!(beats(&bench.after(1_100)), 2);
    assert!(bench.hears(FromMaster::ReportWanted { session: 3 }).is_empty());
    let outputs = bench.hears(FromMaster::ReportWanted { session: 4 });
    assert_eq!(reports(&outputs), [(4, held, true)]);
    assert_eq!(ends(&outputs).len(), 1);
    assert!(!reports(&bench.after(6_000)).is_empty(), "a shard that says nothing for long is registered with again");
    assert!(bench.hears(FromMaster::Rejected { reason: "no".into() }).iter().any(|output| matches!(output, Output::Quit { .. })));
}

#[test]
fn a_long_report_comes_in_parts() {
    let mut bench = Bench::ready();
    let step = ATTEMPTS_PER_MESSAGE_MAX as u32;
    bench.launches(needs(0, 0), 1..step + 1);
    bench.launches(needs(0, 0), step + 1..step + 3);
    let parts: Vec<(usize, bool)> =
        reports(&bench.hears(FromMaster::ReportWanted { session: 1 })).iter().map(|(_, held, last)| (held.len(), *last)).collect();
    assert_eq!(parts, [(ATTEMPTS_PER_MESSAGE_MAX, false), (2, true)]);
    let none = Bench::new().connect(1);
    assert_eq!(reports(&none), [(0, vec![], true)], "an empty one is said too");
}

#[test]
fn after_a_restart_executors_say_what_runs_and_the_rest_is_lost() {
    let mut bench = Bench::ready();
    bench.launches(needs(1_000, 2), 1..4);
    bench.end(id(1), Exit::Code(9));
    let mut again = bench.recovered();
    assert_eq!(again.ledger.promised(), &needs(2_000, 4));
    let outputs = again.connect(2);
    assert_eq!(reports(&outputs)[0].1.len(), 3);
    assert_eq!(updates(&outputs).len(), 1, "only the end is known yet");
    again.does(Event::Started { attempts: vec![(id(2), Time(5))] });
    assert_eq!(ends(&again.does(Event::Surveyed)), [(id(3), Exit::Lost { reason: Loss::Executor })]);
    assert!(again.does(Event::Surveyed).is_empty());
    let next = again.hears(FromMaster::Launch(launch(2, 1, needs(1, 3), 7..8)));
    assert!(started(&next).is_empty(), "after a restart the bundle is looked at again");
    let outputs = again.does(Event::Prepared { bundle: BUNDLE, form: FORM, result: Ok(()) });
    let Output::Start(start) = &outputs[0] else { panic!() };
    assert!(start.ports[0].iter().all(|port| ![102, 103].contains(port)), "ports of the living are not given again: {:?}", start.ports);
}

#[test]
fn what_only_executors_know_is_ended() {
    let mut bench = Bench::ready();
    let outputs = bench.does(Event::Started { attempts: vec![(id(40), Time(5))] });
    assert!(matches!(&outputs[..], [Output::Stop { attempts, grace_ms: 0 }] if *attempts == [id(40)]));
    let outputs = bench.end(id(40), Exit::Killed);
    assert!(matches!(&outputs[..], [Output::Forget { attempts }] if *attempts == [id(40)]));
    bench.launches(needs(1, 0), 1..2);
    bench.end(id(1), Exit::Code(1));
    assert!(bench.end(id(1), Exit::Code(2)).is_empty(), "the first end counts");
    let outputs = bench.does(Event::Started { attempts: vec![(id(1), Time(5))] });
    assert!(matches!(&outputs[..], [Output::Stop { .. }]), "and nothing runs after it");
}

#[test]
fn a_kill_during_recovery_reaches_the_executor() {
    let mut bench = Bench::ready();
    bench.launches(needs(1, 0), 1..2);
    let mut again = bench.recovered();
    again.connect(2);
    let outputs = again.hears(FromMaster::Kill { attempts: vec![id(1)], grace_ms: 5 });
    assert!(matches!(&outputs[..], [Output::Stop { attempts, grace_ms: 5 }] if *attempts == [id(1)]));
    assert_eq!(ends(&again.end(id(1), Exit::Killed)), [(id(1), Exit::Killed)]);
}

#[test]
fn a_capacity_that_shrinks_takes_nothing_back_and_promises_nothing_more() {
    let mut bench = Bench::ready();
    bench.launches(needs(3_000, 4), 1..2);
    let mut smaller = config();
    smaller.info.capacity = Resources { cpu_milli: 1_000, ports: 2, ..Resources::NONE };
    smaller.info.ports = vec![PortRange { first: 300, last: 301 }];
    let mut ledger = Ledger::recover(smaller, &bench.records).unwrap();
    assert_eq!(ledger.promised(), &needs(3_000, 4));
    ledger.handle(Time(0), Event::Connected { shards: SHARDS });
    let own = shard_of_agent(AgentId(1), SHARDS);
    ledger.handle(Time(0), Event::Master { shard: own, message: FromMaster::Registered { session: 1, heartbeat_ms: 500 } });
    ledger.handle(Time(0), Event::Master { shard: own, message: FromMaster::Launch(launch(1, 1, needs(1, 0), 5..6)) });
    assert_eq!(ledger.counts().refused, 1);
    ledger.handle(Time(0), Event::Ended { attempts: vec![(id(1), Exit::Code(0), Usage::default())] });
    ledger.handle(Time(0), Event::Master { shard: own, message: FromMaster::Launch(launch(1, 2, needs(1_000, 2), 6..7)) });
    assert_eq!((ledger.counts().taken, ledger.promised()), (1, &needs(1_000, 2)));
}
