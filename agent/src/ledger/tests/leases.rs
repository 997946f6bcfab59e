//! Fenced attempts run while the agent's shard answers.

use super::*;
use protocol::job::FENCE_VARIABLE;

const LEASE_MS: u64 = 5_000;

fn fenced(sequence: u64, number: u32) -> FromMaster {
    let mut launch = launch(1, sequence, needs(0, 0), 0..1);
    launch.attempts = vec![(0, number)];
    Arc::make_mut(&mut launch.template).members[0].env = vec![(FENCE_VARIABLE.into(), String::new())];
    FromMaster::Launch(launch)
}

/// Until when each fenced start, or renewal, of these outputs holds.
fn until(outputs: &[Output]) -> Vec<Time> {
    let held = outputs.iter().filter_map(|output| match output {
        Output::Start(Start { until, .. }) => *until,
        Output::Renew { until, members } => {
            assert!(!members.is_empty());
            Some(*until)
        }
        _ => None,
    });
    held.collect()
}

/// Registered in session 1, sent at 1,000 and answered now; leases are known, the bundle is here where it is `prepared`.
fn bench(prepared: bool) -> Bench {
    let mut bench = Bench::new();
    bench.connect(1);
    bench.hears(FromMaster::Lease { lease_ms: LEASE_MS });
    if prepared {
        bench.hears(FromMaster::Launch(launch(1, 1, needs(0, 0), 5..6)));
        bench.does(Event::Prepared { bundle: BUNDLE, form: FORM, result: Ok(()) });
    }
    bench
}

#[test]
fn a_lease_counts_from_the_sending_of_what_was_answered() {
    let mut bench = bench(true);
    bench.now = Time(1_400);
    assert_eq!(until(&bench.hears(fenced(2, 1))), [Time(1_000 + LEASE_MS)], "from the registration");
    bench.now = Time(3_000);
    assert_eq!(until(&bench.hears(FromMaster::BeatAck { sent: Time(2_000) })), [Time(2_000 + LEASE_MS)]);
    assert_eq!(
        until(&bench.hears(FromMaster::BeatAck { sent: Time(1_500) })),
        [Time(2_000 + LEASE_MS)],
        "an older answer takes nothing back"
    );
    assert_eq!(
        until(&bench.hears(FromMaster::BeatAck { sent: Time(9_000) })),
        [Time(3_000 + LEASE_MS)],
        "nothing is answered before it is sent"
    );
    bench.now = Time(20_000);
    assert_eq!(until(&bench.hears(FromMaster::BeatAck { sent: Time(14_999) })), [], "an answer that is later than its lease is none");
}

#[test]
fn what_has_ended_or_is_not_fenced_is_not_renewed() {
    let mut bench = bench(true);
    assert_eq!(until(&bench.hears(FromMaster::BeatAck { sent: bench.now })), []);
    bench.hears(fenced(2, 1));
    bench.end(id(0), Exit::Code(0));
    assert_eq!(until(&bench.hears(FromMaster::BeatAck { sent: bench.now })), []);
}

#[test]
fn what_waits_until_its_lease_is_over_is_never_started() {
    let mut bench = bench(false);
    bench.hears(fenced(2, 1));
    bench.now = Time(1_000 + LEASE_MS);
    // The shard may have given the task to another agent since: that it answers again is too late for this attempt.
    let outputs = bench.hears(FromMaster::BeatAck { sent: bench.now });
    assert_eq!(ends(&outputs), [(id(0), Exit::Lost { reason: Loss::LeaseOver })]);
    let outputs = bench.does(Event::Prepared { bundle: BUNDLE, form: FORM, result: Ok(()) });
    assert_eq!(started(&outputs), Vec::<u32>::new());
    assert_eq!(started(&bench.hears(fenced(3, 2))), [0], "the next one is");
}

#[test]
fn a_launch_that_comes_when_the_lease_is_over_is_not_started() {
    let mut bench = bench(true);
    bench.now = Time(30_000);
    let outputs = bench.hears(fenced(2, 1));
    assert_eq!((started(&outputs), ends(&outputs)), (vec![], vec![(id(0), Exit::Lost { reason: Loss::LeaseOver })]));
}

#[test]
fn an_agent_that_was_started_anew_renews_what_its_executors_hold() {
    let mut before = bench(true);
    before.hears(fenced(2, 1));
    let mut bench = before.recovered();
    bench.now = Time(3_000);
    bench.does(Event::Started { members: vec![(MemberId::first(id(0)), Time(1_000))] });
    bench.does(Event::Surveyed);
    bench.connect(2);
    assert_eq!(until(&bench.hears(FromMaster::Lease { lease_ms: LEASE_MS })), [Time(3_000 + LEASE_MS)]);
}

#[test]
fn a_beat_asks_for_an_answer_for_the_sake_of_a_lease_or_when_nothing_was_heard_for_long() {
    let asked = |outputs: &[Output]| -> Vec<bool> {
        let answer = |output: &Output| match output {
            Output::Send { message: FromAgent::Beat { .. }, .. } => Some(true),
            Output::Send { message: FromAgent::Alive { .. }, .. } => Some(false),
            _ => None,
        };
        outputs.iter().filter_map(answer).collect()
    };
    let mut bench = bench(true);
    assert_eq!(asked(&bench.after(4_600)), [false, false, false, false, false, false, false, true, true]);
    bench.hears(FromMaster::BeatAck { sent: bench.now });
    assert_eq!(asked(&bench.after(600)), [false]);
    bench.hears(fenced(2, 1));
    assert_eq!(asked(&bench.after(1_100)), [true, true]);
}
