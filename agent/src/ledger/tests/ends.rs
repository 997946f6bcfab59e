//! Kills, ends, reports and recovery.

use super::*;

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
        assert!(matches!(&outputs[..], [Output::Stop { members, grace_ms: 86_400_000 }] if first(members) == [id(1)]), "{outputs:?}");
    }
    bench.does(Event::Started { members: vec![(MemberId::first(id(1)), Time(1))] });
    assert_eq!(updates(&bench.after(50)).last().unwrap().state, TaskState::Killing, "a late start does not hide it");
    assert_eq!(ends(&bench.end(id(1), Exit::Killed)), [(id(1), Exit::Killed)]);
    assert!(bench.hears(kill(&[0, 1])).is_empty(), "after its end");
}

#[test]
fn an_end_is_told_until_it_is_acknowledged_and_then_never_again() {
    let mut bench = Bench::ready();
    bench.launches(needs(1, 0), 1..3);
    bench.end(id(1), Exit::Code(3));
    let again = ends(&bench.after(4_000));
    assert_eq!(again.len(), 1, "after 2 seconds, and then after 4 more: {again:?}");
    bench.does(Event::Disconnected);
    assert!(bench.ledger.poll_timeout().is_none());
    bench.end(id(2), Exit::Code(4));
    let outputs = bench.connect(2);
    assert_eq!(ends(&outputs), [(id(1), Exit::Code(3)), (id(2), Exit::Code(4))]);
    let outputs = bench.hears(FromMaster::Ack { attempts: vec![id(1), id(2), id(77)] });
    assert!(matches!(&outputs[..], [Output::Forget { members }] if first(members) == [id(1), id(2)]));
    assert!(ends(&bench.after(100_000)).is_empty());
    assert_eq!((bench.ledger.held(), bench.ledger.held_hash()), (0, 0));
    assert!(bench.hears(FromMaster::Ack { attempts: vec![id(1)] }).is_empty());
    bench.hears(FromMaster::Launch(launch(2, 1, needs(1, 0), 3..4)));
    assert!(bench.hears(FromMaster::Ack { attempts: vec![id(3)] }).is_empty(), "what has not ended is not forgotten");
}

#[test]
fn it_registers_reports_and_beats() {
    let mut bench = Bench::ready();
    bench.launches(needs(1, 0), 1..3);
    bench.end(id(1), Exit::Code(0));
    bench.does(Event::Disconnected);
    bench.does(Event::Connected { shards: SHARDS });
    let outputs = bench.all_led();
    assert!(matches!(&outputs[0], Output::Send { message: FromAgent::Register { incarnation: 5, .. }, .. }));
    let held = vec![Held { attempt: id(1), ended: true }, Held { attempt: id(2), ended: false }];
    assert_eq!(reports(&outputs), [(0, held.clone(), true)]);
    assert_eq!(updates(&outputs).len(), 2);
    assert!(reports(&bench.after(6_000)).len() == 1, "an answer that does not come is asked for again");
    bench.hears(FromMaster::Registered { session: 3, heartbeat_ms: 500, number: bench.number - 1 });
    let late = bench.hears(FromMaster::Launch(launch(3, 1, needs(1, 0), 8..9)));
    assert!(
        late.is_empty(),
        "an answer to an older registration is passed over: the report behind the newer one does not know what comes of it"
    );
    bench.registered(4);
    let held_hash = attempt_hash(id(1)) ^ attempt_hash(id(2));
    let beats = |outputs: &[Output]| {
        let beat = |output: &&Output| matches!(output, Output::Send { message: FromAgent::Alive { session: 4, held: 2, held_hash: hash, .. }, .. } if *hash == held_hash);
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
    again.does(Event::Started { members: vec![(MemberId::first(id(2)), Time(5))] });
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
    let outputs = bench.does(Event::Started { members: vec![(MemberId::first(id(40)), Time(5))] });
    assert!(matches!(&outputs[..], [Output::Stop { members, grace_ms: 0 }] if first(members) == [id(40)]));
    let outputs = bench.end(id(40), Exit::Killed);
    assert!(matches!(&outputs[..], [Output::Forget { members }] if first(members) == [id(40)]));
    bench.launches(needs(1, 0), 1..2);
    bench.end(id(1), Exit::Code(1));
    assert!(bench.end(id(1), Exit::Code(2)).is_empty(), "the first end counts");
    let outputs = bench.does(Event::Started { members: vec![(MemberId::first(id(1)), Time(5))] });
    assert!(matches!(&outputs[..], [Output::Stop { .. }]), "and nothing runs after it");
}

#[test]
fn a_kill_during_recovery_reaches_the_executor() {
    let mut bench = Bench::ready();
    bench.launches(needs(1, 0), 1..2);
    let mut again = bench.recovered();
    again.connect(2);
    let outputs = again.hears(FromMaster::Kill { attempts: vec![id(1)], grace_ms: 5 });
    assert!(matches!(&outputs[..], [Output::Stop { members, grace_ms: 5 }] if first(members) == [id(1)]));
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
    ledger.handle(Time(0), Event::Led { shard: own });
    ledger.handle(Time(0), Event::Master { shard: own, message: FromMaster::Registered { session: 1, heartbeat_ms: 500, number: 1 } });
    ledger.handle(Time(0), Event::Master { shard: own, message: FromMaster::Launch(launch(1, 1, needs(1, 0), 5..6)) });
    assert_eq!(ledger.counts().refused, 1);
    ledger.handle(Time(0), Event::Ended { members: vec![(MemberId::first(id(1)), Exit::Code(0), Usage::default())] });
    ledger.handle(Time(0), Event::Master { shard: own, message: FromMaster::Launch(launch(1, 2, needs(1_000, 2), 6..7)) });
    assert_eq!((ledger.counts().taken, ledger.promised()), (1, &needs(1_000, 2)));
}

#[test]
fn many_long_reasons_fit_frames_and_records() {
    let mut bench = Bench::new();
    bench.connect(1);
    let step = ATTEMPTS_PER_MESSAGE_MAX as u32;
    bench.launches(needs(0, 0), 0..step);
    bench.launches(needs(0, 0), step..2 * step);
    let result = Err(PrepareError::Unusable("x".repeat(REASON_BYTES_MAX)));
    let outputs = bench.does(Event::Prepared { bundle: BUNDLE, form: FORM, result });
    assert_eq!(ends(&outputs).len(), 2 * step as usize);
    for output in outputs {
        if let Output::Send { message, .. } = output {
            protocol::frame::encode(&message, &mut vec![]).unwrap();
        }
    }
    let longest = bench.records.iter().map(|record| if let Record::Ended { attempts } = record { attempts.len() } else { 0 }).max();
    assert_eq!(longest, Some(ATTEMPTS_PER_MESSAGE_MAX));
}

#[test]
fn a_ledger_that_lost_a_part_of_its_record_says_that_it_is_another_life() {
    let mut bench = Bench::ready();
    bench.launches(needs(1, 0), 1..3);
    let mut again = bench.recovered();
    again.ledger.renew(77);
    again.drain();
    let outputs = again.connect(1);
    let said = |output: &Output| matches!(output, Output::Send { message: FromAgent::Register { incarnation: 77, .. }, .. });
    assert!(outputs.iter().any(said), "{outputs:?}");
    assert_eq!(again.recovered().ledger.incarnation(), 77);
    let short = Ledger::recover(config(), &again.ledger.snapshot()).unwrap();
    assert_eq!((short.incarnation(), short.held()), (77, 2));
}

#[test]
fn of_all_that_a_task_says_of_its_progress_only_the_latest_is_told_and_not_often() {
    let mut bench = Bench::ready();
    bench.launches(needs(1, 0), 1..3);
    let mut said = 0;
    let mut last = None;
    for round in 0..2_500u32 {
        let notes = vec![(MemberId::first(id(1)), (round % 101) as u8, "x".repeat(1_000)), (MemberId::first(id(99)), 1, String::new())];
        let mut outputs = bench.does(Event::Progress { notes });
        outputs.extend(bench.after(1));
        for output in outputs {
            let Output::Send { message: FromAgent::Progress { notes }, .. } = output else { continue };
            said += 1;
            assert_eq!((notes.len(), notes[0].attempt, notes[0].note.len()), (1, id(1), protocol::task::NOTE_BYTES_MAX));
            last = Some(notes[0].percent);
        }
    }
    assert!(said == 2 && last.is_some(), "{said}");
    bench.does(Event::Disconnected);
    assert!(bench.does(Event::Progress { notes: vec![(MemberId::first(id(1)), 5, String::new())] }).is_empty());
}
