//! What is taken on, refused, passed over and started.

use super::*;

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
    bench.does(Event::Started { members: vec![(MemberId::first(id(1)), Time(77))] });
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
    ledger.handle(Time(0), Event::Led { shard: own });
    ledger.handle(Time(0), Event::Master { shard: own, message: FromMaster::Registered { session: 1, heartbeat_ms: 500, number: 1 } });
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
    bench.hears(FromMaster::Registered { session: 3, heartbeat_ms: 500, number: 1 });
    bench.hears(FromMaster::Registered { session: 2, heartbeat_ms: 500, number: 1 });
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
fn too_many_ends_without_an_answer_stop_the_starting() {
    let mut bench = Bench { ledger: Bench::ready().ledger, records: vec![], now: Time(1_000), sequence: 100, number: 1 };
    let mut outputs = vec![];
    let step = ATTEMPTS_PER_MESSAGE_MAX as u32;
    let steps = UPDATES_PENDING_MAX as u32 / step;
    for n in 0..=steps {
        bench.sequence += 1;
        let message = FromMaster::Launch(launch(1, bench.sequence, needs(0, 0), n * step + 1..(n + 1) * step + 1));
        bench.ledger.handle(bench.now, Event::Master { shard: bench.own(), message });
        while let Some(output) = bench.ledger.poll_output() {
            if let Output::Start(start) = output {
                let ended = start.launch.attempts.iter().map(|(index, _)| (MemberId::first(id(*index)), Exit::Code(0), Usage::default()));
                bench.ledger.handle(bench.now, Event::Ended { members: ended.collect() });
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
    Arc::make_mut(&mut read.template).members[0].stdin = Some(stdin);
    let outputs = bench.hears(FromMaster::Launch(read));
    assert!(matches!(outputs[..], [Output::Prepare { bundle, form: Form::Plain }] if bundle == stdin), "{outputs:?}");
    assert!(bench.ledger.uses(stdin) && bench.ledger.uses(BUNDLE));
    assert_eq!(started(&bench.does(Event::Prepared { bundle: stdin, form: Form::Plain, result: Ok(()) })), [1]);
    bench.does(Event::Evicted { bundle: BUNDLE });
    bench.sequence = 50;
    assert!(matches!(bench.launches(needs(1, 0), 2..3)[..], [Output::Prepare { bundle: BUNDLE, form: FORM }]));
}
