//! Shards whose leaders come, go and move: the agent's own, and others.

use super::*;

/// A shard that is not the agent's own.
fn other(bench: &Bench) -> ShardId {
    let own = bench.own();
    (0..SHARDS).map(ShardId).find(|shard| *shard != own).unwrap()
}

/// What was said, and to whom.
fn sent(outputs: &[Output]) -> Vec<(ShardId, &FromAgent)> {
    let sent = |output| if let &Output::Send { shard, ref message } = output { Some((shard, message)) } else { None };
    outputs.iter().filter_map(sent).collect()
}

fn registers(outputs: &[Output]) -> usize {
    sent(outputs).iter().filter(|(_, message)| matches!(message, FromAgent::Register { .. })).count()
}

/// With attempts 1 and 2 of a job of `shard` taken on, the first of which has ended.
fn with_job_of(shard: ShardId) -> (Bench, [AttemptId; 2]) {
    let mut bench = Bench::ready();
    let job = JobId::new(shard, 3);
    bench.hears(FromMaster::Launch(Launch { job, ..launch(1, 9, needs(1, 0), 1..3) }));
    let attempts = [1, 2].map(|index| AttemptId::new(job, index, 1));
    assert_eq!(ends(&bench.end(attempts[0], Exit::Code(3))), [(attempts[0], Exit::Code(3))]);
    bench.after(100);
    (bench, attempts)
}

#[test]
fn a_connection_to_a_master_that_leads_nothing_says_nothing_and_sets_no_timer() {
    let mut bench = Bench::new();
    assert!(bench.does(Event::Connected { shards: SHARDS }).is_empty());
    assert!(bench.ledger.poll_timeout().is_none());
    assert!(bench.registered(1).is_empty());
    let taken = bench.hears(FromMaster::Launch(launch(1, 1, needs(1, 0), 0..1)));
    assert!(taken.is_empty() && bench.ledger.held() == 0, "nobody can have said that");
    assert!(bench.does(Event::Led { shard: ShardId(SHARDS) }).is_empty(), "there is no such shard");
    let shard = other(&bench);
    assert!(bench.does(Event::Led { shard }).is_empty() && bench.ledger.poll_timeout().is_none(), "it holds nothing of that shard");
}

#[test]
fn an_own_shard_that_moves_is_registered_with_anew_and_its_old_session_is_over() {
    for gap in [false, true] {
        let (mut bench, [ended, runs]) = with_job_of(Bench::new().own());
        let own = bench.own();
        if gap {
            bench.does(Event::Unled { shard: own });
            assert!(bench.after(60_000).is_empty(), "no session, no beats, and its ends wait");
            assert!(bench.ledger.poll_timeout().is_none());
        }
        let outputs = bench.does(Event::Led { shard: own });
        assert_eq!(registers(&outputs), 1);
        let held = vec![Held { attempt: ended, ended: true }, Held { attempt: runs, ended: false }];
        assert_eq!(reports(&outputs), [(0, held, true)]);
        assert_eq!(ends(&outputs), [(ended, Exit::Code(3))]);
        let stale = bench.ledger.counts().stale;
        assert!(bench.hears(FromMaster::Launch(launch(1, 10, needs(1, 0), 5..6))).is_empty());
        assert_eq!(bench.ledger.counts().stale, stale + 1, "the old session's launch");
        bench.hears(FromMaster::Registered { session: 7, heartbeat_ms: 500, number: bench.number - 1 });
        assert!(bench.hears(FromMaster::Launch(launch(7, 1, needs(1, 0), 5..6))).is_empty(), "an answer that was meant for the old leader");
        assert_eq!(registers(&bench.after(5_000)), 1, "an answer that does not come is asked for again");
        bench.registered(8);
        assert_eq!(started(&bench.hears(FromMaster::Launch(launch(8, 1, needs(1, 0), 5..6)))), [5]);
        let beats = bench.after(1_000);
        let beat = |(shard, message): &(ShardId, &FromAgent)| *shard == own && matches!(message, FromAgent::Alive { session: 8, .. });
        assert!(sent(&beats).iter().any(beat), "{beats:?}");
    }
}

#[test]
fn a_leader_that_answers_no_beat_is_doubted() {
    let mut bench = Bench::ready();
    let asks = |bench: &mut Bench, beats: usize| -> Vec<bool> {
        let each = (0..beats).map(|_| bench.after(500));
        let all: Vec<Output> = each.flatten().collect();
        sent(&all).iter().map(|(_, message)| matches!(message, FromAgent::Beat { .. })).collect()
    };
    let answer = FromMaster::BeatAck { sent: Time(0) };
    bench.hears(answer.clone());
    assert_eq!(asks(&mut bench, 10), [false, false, false, false, false, false, false, true, true, true]);
    assert!(!bench.ledger.doubts_leader());
    assert_eq!(asks(&mut bench, 1), [true]);
    assert!(bench.ledger.doubts_leader());
    bench.hears(answer);
    assert!(!bench.ledger.doubts_leader());

    // Whoever leads next does not answer the registration.
    bench.does(Event::Led { shard: bench.own() });
    bench.after(4_000);
    assert!(!bench.ledger.doubts_leader(), "it may have thousands to take in");
    bench.after(1_000);
    assert!(bench.ledger.doubts_leader());
    bench.registered(2);
    assert!(!bench.ledger.doubts_leader());
}

#[test]
fn another_shard_that_moves_is_told_all_again_and_nothing_while_nobody_leads_it() {
    let shard = other(&Bench::new());
    let (mut bench, [ended, runs]) = with_job_of(shard);
    bench.does(Event::Unled { shard });
    assert!(updates(&bench.end(runs, Exit::Code(4))).is_empty());
    bench.does(Event::Progress { notes: vec![(MemberId::first(runs), 5, String::new())] });
    let refused = Launch { job: JobId::new(shard, 4), ..launch(1, 10, needs(99_000, 0), 0..1) };
    bench.hears(FromMaster::Launch(refused));
    let meanwhile = bench.after(50_000);
    let to_own = sent(&meanwhile).iter().all(|(to, _)| *to == bench.own());
    assert!(to_own && !meanwhile.is_empty() && updates(&meanwhile).is_empty(), "its own shard hears its beats: {meanwhile:?}");
    assert!(
        bench.does(Event::Master { shard, message: FromMaster::Ack { attempts: vec![ended] } }).is_empty(),
        "nobody can have said that"
    );
    for _ in 0..2 {
        let outputs = bench.does(Event::Led { shard });
        assert_eq!(ends(&outputs), [(ended, Exit::Code(3)), (runs, Exit::Code(4))]);
        assert_eq!((registers(&outputs), sent(&outputs).len()), (0, 1), "its own shard has heard nothing of it");
    }
    assert_eq!(ends(&bench.after(3_000)).len(), 2, "told twice at once, each is told again once");
    bench.does(Event::Master { shard, message: FromMaster::Ack { attempts: vec![ended, runs] } });
    assert_eq!(bench.ledger.held(), 0);
}

#[test]
fn states_of_a_shard_without_a_leader_wait_for_one() {
    let shard = other(&Bench::new());
    let mut bench = Bench::ready();
    bench.does(Event::Unled { shard });
    let job = JobId::new(shard, 3);
    bench.hears(FromMaster::Launch(Launch { job, ..launch(1, 9, needs(1, 0), 1..2) }));
    let attempt = AttemptId::new(job, 1, 1);
    bench.does(Event::Started { members: vec![(MemberId::first(attempt), Time(7))] });
    assert!(updates(&bench.after(1_000)).is_empty());
    let state = TaskState::Running { since: Time(7), ports: vec![] };
    assert_eq!(updates(&bench.does(Event::Led { shard })), [Update { attempt, state }]);
}

#[test]
fn a_bundle_is_asked_for_while_there_is_any_connection_and_again_with_the_next_one() {
    let mut bench = Bench::new();
    bench.connect(1);
    let own = bench.own();
    bench.launches(needs(1, 0), 0..1);
    let later = || Event::Prepared { bundle: BUNDLE, form: FORM, result: Err(PrepareError::Later("gone".into())) };
    let asked = |outputs: &[Output]| outputs.iter().filter(|output| matches!(output, Output::Prepare { .. })).count();
    bench.does(Event::Unled { shard: own });
    bench.does(later());
    assert_eq!(asked(&bench.after(1_000)), 1, "any master has bundles");
    bench.does(Event::Disconnected);
    bench.does(later());
    assert!(bench.ledger.poll_timeout().is_none() && bench.after(60_000).is_empty());
    assert_eq!(asked(&bench.does(Event::Connected { shards: SHARDS })), 1, "at once, and whoever leads");
}
