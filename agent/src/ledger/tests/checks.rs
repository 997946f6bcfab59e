//! Checks: asked in time and not all at once; what fails in its grace is left alone, what fails too often after it is ended and says why; told at each
//! change and to whoever leads next.

use super::*;
use protocol::{Check, Checks, Health, Probe, Verdict};

const GRACE_MS: u64 = 10_000;
const EVERY_MS: u64 = 1_000;

fn check() -> Check {
    let probe = Probe::Exec { command: vec!["well".into()] };
    Check { probe, grace_ms: GRACE_MS, every_ms: EVERY_MS, timeout_ms: 500, failures_max: 3, delay_ms: 0, ignores_1xx: false }
}

const HEALTH: Purpose = Purpose::Health;
const READINESS: Purpose = Purpose::Readiness;

fn asked(outputs: &[Output]) -> Vec<(u32, Purpose)> {
    let questions = outputs.iter().filter_map(|output| if let Output::Check(questions) = output { Some(questions) } else { None });
    questions.flatten().map(|question| (question.id.member.attempt.task.index, question.id.purpose)).collect()
}

fn healths(outputs: &[Output]) -> Vec<(u32, Verdict, String)> {
    let told = outputs.iter().filter_map(|output| match output {
        Output::Send { message: FromAgent::Health { healths }, shard } => {
            assert_eq!(*shard, job().shard());
            Some(healths)
        }
        _ => None,
    });
    told.flatten().map(|Health { attempt, verdict, reason }| (attempt.task.index, *verdict, reason.clone())).collect()
}

fn stopped(outputs: &[Output]) -> Vec<u32> {
    let stops = outputs.iter().filter_map(|output| if let Output::Stop { members, .. } = output { Some(members) } else { None });
    stops.flatten().map(|member| member.attempt.task.index).collect()
}

impl Bench {
    /// Attempts with these checks run, and were not asked anything yet.
    fn checked(checks: &Checks, indexes: std::ops::Range<u32>) -> Self {
        let mut bench = Self::ready();
        let mut launch = launch(1, 5, needs(0, 0), indexes.clone());
        Arc::make_mut(&mut launch.template).members[0].set_checks(checks);
        bench.sequence = 5;
        bench.hears(FromMaster::Launch(launch));
        bench.run(indexes);
        bench
    }

    fn run(&mut self, indexes: std::ops::Range<u32>) -> Vec<Output> {
        let members = indexes.map(|index| (MemberId::first(id(index)), self.now)).collect();
        let mut outputs = self.does(Event::Started { members });
        outputs.extend(self.after(20)); // What it is doing is told.
        outputs
    }

    fn answers(&mut self, index: u32, purpose: Purpose, answer: Result<(), &str>) -> Vec<Output> {
        self.says(index, purpose, answer.map_err(str::to_owned).into())
    }

    fn says(&mut self, index: u32, purpose: Purpose, answer: Answer) -> Vec<Output> {
        let id = CheckId { member: MemberId::first(id(index)), purpose };
        self.does(Event::Checked { answers: vec![(id, answer)] })
    }

    /// Waits until it is asked, and answers.
    fn next(&mut self, answer: Result<(), &str>) -> Vec<Output> {
        let mut waited = 0;
        while asked(&self.after(10)).is_empty() {
            waited += 10;
            assert!(waited <= EVERY_MS, "it is never asked");
        }
        self.answers(1, HEALTH, answer)
    }
}

fn health() -> Checks {
    Checks { health: Some(check()), readiness: None }
}

#[test]
fn what_fails_in_its_grace_is_left_alone_and_what_fails_after_it_is_ended_with_the_reason() {
    let mut bench = Bench::checked(&health(), 1..2);
    let start = bench.now;
    assert_eq!(healths(&bench.next(Err("HTTP 503"))), [(1, Verdict::Unready, "HTTP 503".into())]);
    while bench.now + EVERY_MS < start + GRACE_MS {
        let outputs = bench.next(Err("HTTP 503"));
        assert_eq!((healths(&outputs), stopped(&outputs)), (vec![], vec![]), "nothing has changed");
    }
    let mut outputs = vec![];
    while stopped(&outputs).is_empty() {
        outputs.extend(bench.next(Err("HTTP 500")));
    }
    assert!(bench.now >= start + GRACE_MS + EVERY_MS && bench.now <= start + GRACE_MS + 4 * EVERY_MS, "{:?}", bench.now);
    let told = healths(&outputs);
    assert!(told.contains(&(1, Verdict::Unhealthy, "HTTP 500".into())), "{told:?}");
    assert_eq!(asked(&bench.after(60_000)), []);
    assert_eq!(ends(&bench.end(id(1), Exit::Killed)), [(id(1), Exit::Unhealthy { reason: "HTTP 500".into() })]);
}

#[test]
fn one_that_begins_later_is_not_asked_before() {
    let late = Checks { health: Some(Check { delay_ms: 5_000, ..check() }), readiness: None };
    let mut bench = Bench::checked(&late, 1..2);
    let start = bench.now;
    let mut early = vec![];
    while bench.now + 40 < start + 5_000 {
        early.extend(asked(&bench.after(10)));
    }
    assert_eq!(early, []);
    assert_eq!(asked(&bench.after(100)), [(1, HEALTH)]);
    assert_eq!(healths(&bench.answers(1, HEALTH, Err("x"))), [(1, Verdict::Unready, "x".into())], "its grace goes on from its start");
}

#[test]
fn an_answer_that_says_nothing_leaves_it_as_well_as_it_was() {
    let mut bench = Bench::checked(&Checks { health: Some(Check { grace_ms: 0, failures_max: 2, ..check() }), readiness: None }, 1..2);
    let silent = |bench: &mut Bench| {
        let mut waited = 0;
        while asked(&bench.after(10)).is_empty() {
            waited += 10;
            assert!(waited <= EVERY_MS, "it is never asked again");
        }
        let outputs = bench.says(1, HEALTH, Answer::Nothing);
        (healths(&outputs), stopped(&outputs))
    };
    assert_eq!(silent(&mut bench), (vec![], vec![]), "nothing is known of it yet");
    assert_eq!(healths(&bench.next(Ok(()))), [(1, Verdict::Healthy, String::new())]);
    for _ in 0..3 {
        assert_eq!(silent(&mut bench), (vec![], vec![]));
    }
    assert_eq!(healths(&bench.next(Err("x"))), [(1, Verdict::Unhealthy, "x".into())]);
    assert_eq!(silent(&mut bench), (vec![], vec![]), "it is no failure and no success");
    assert_eq!(stopped(&bench.next(Err("y"))), [1]);
}

#[test]
fn where_no_number_of_failures_ends_it_that_is_told_and_it_goes_on() {
    let never = Checks { health: Some(Check { failures_max: 0, ..check() }), readiness: None };
    let mut bench = Bench::checked(&never, 1..2);
    bench.next(Ok(()));
    let outputs: Vec<Output> = (0..2 * GRACE_MS / EVERY_MS).flat_map(|_| bench.next(Err("no answer"))).collect();
    assert_eq!((stopped(&outputs), healths(&outputs)), (vec![], vec![(1, Verdict::Unhealthy, "no answer".into())]));
    assert_eq!(healths(&bench.next(Ok(()))), [(1, Verdict::Healthy, String::new())]);
}

#[test]
fn a_success_ends_the_grace_and_only_failures_in_a_row_count() {
    let mut bench = Bench::checked(&health(), 1..2);
    let outputs = bench.next(Ok(()));
    assert_eq!(healths(&outputs), [(1, Verdict::Healthy, String::new())]);
    for _ in 0..3 {
        assert_eq!(healths(&bench.next(Err("no answer"))), [(1, Verdict::Unhealthy, "no answer".into())], "at the first failure");
        let outputs = bench.next(Err("no answer"));
        assert_eq!((healths(&outputs), stopped(&outputs)), (vec![], vec![]));
        assert_eq!(healths(&bench.next(Ok(()))), [(1, Verdict::Healthy, String::new())]);
    }
    assert!(stopped(&bench.next(Err("1"))).is_empty() && stopped(&bench.next(Err("2"))).is_empty());
    assert_eq!(stopped(&bench.next(Err("3"))), [1]);
    // How it ended is the agent's affair only where it ended it: another end stays as it is, and a master that wants it ended has its will.
    assert_eq!(ends(&bench.end(id(1), Exit::Signal(9))), [(id(1), Exit::Signal(9))]);
    let mut bench = Bench::checked(&health(), 1..2);
    bench.next(Ok(()));
    bench.hears(FromMaster::Kill { attempts: vec![id(1)], grace_ms: 1 });
    assert_eq!(asked(&bench.after(10_000)), [], "what is to end is not asked");
    assert_eq!(ends(&bench.end(id(1), Exit::Killed)), [(id(1), Exit::Killed)]);
}

#[test]
fn readiness_is_asked_until_it_is_so_once_and_ends_nobody() {
    let checks = Checks { health: Some(check()), readiness: Some(Check { grace_ms: 0, ..check() }) };
    let mut bench = Bench::checked(&checks, 1..2);
    assert_eq!(asked(&bench.after(30)), [(1, HEALTH), (1, READINESS)]);
    assert_eq!(healths(&bench.answers(1, HEALTH, Ok(()))), [], "nothing is said before both were answered");
    assert_eq!(healths(&bench.answers(1, READINESS, Err("warming up"))), [(1, Verdict::Unready, "warming up".into())]);
    for _ in 0..20 {
        let outputs = bench.after(EVERY_MS);
        if asked(&outputs).contains(&(1, HEALTH)) {
            bench.answers(1, HEALTH, Ok(()));
        }
        if asked(&outputs).contains(&(1, READINESS)) {
            assert!(stopped(&bench.answers(1, READINESS, Err("warming up"))).is_empty());
        }
    }
    let outputs = bench.after(EVERY_MS);
    assert!(asked(&outputs).contains(&(1, READINESS)));
    assert_eq!(healths(&bench.answers(1, READINESS, Ok(()))), [(1, Verdict::Healthy, String::new())]);
    let later: Vec<_> = asked(&bench.after(10 * EVERY_MS)).into_iter().filter(|(_, purpose)| *purpose == READINESS).collect();
    assert_eq!(later, []);
}

#[test]
fn only_so_many_are_asked_at_once_and_an_answer_that_comes_late_counts_for_nobody() {
    let many = u32::try_from(ASKED_MAX).unwrap() + 10;
    let mut bench = Bench::checked(&health(), 1..many + 1);
    let outputs = bench.after(1_000);
    assert_eq!(asked(&outputs).len(), ASKED_MAX);
    assert_eq!(asked(&bench.answers(1, HEALTH, Ok(()))).len(), 1, "each answer makes room for another");
    assert_eq!(asked(&bench.end(id(2), Exit::Code(0))), [], "it is still being asked");
    let outputs = bench.answers(2, HEALTH, Err("gone"));
    assert_eq!((asked(&outputs).len(), healths(&outputs)), (1, vec![]));
    let outputs = bench.answers(2, HEALTH, Err("twice"));
    assert_eq!((asked(&outputs).len(), healths(&outputs)), (0, vec![]), "nobody asked");
}

#[test]
fn checks_go_on_without_a_master_and_whoever_leads_next_is_told() {
    let mut bench = Bench::checked(&health(), 1..3);
    bench.after(1_000);
    bench.answers(1, HEALTH, Ok(()));
    bench.answers(2, HEALTH, Ok(()));
    bench.does(Event::Disconnected);
    for _ in 0..3 {
        assert!(asked(&bench.after(EVERY_MS)).len() >= 2);
        bench.answers(1, HEALTH, Err("refused"));
        bench.answers(2, HEALTH, Ok(()));
    }
    let mut outputs = bench.end(id(1), Exit::Killed);
    outputs.extend(bench.connect(2));
    assert_eq!(healths(&outputs), [(2, Verdict::Healthy, String::new())]);
    assert_eq!(ends(&outputs), [(id(1), Exit::Unhealthy { reason: "refused".into() })]);
    let place =
        |which: fn(&FromAgent) -> bool| outputs.iter().position(|output| matches!(output, Output::Send { message, .. } if which(message)));
    assert!(place(|message| matches!(message, FromAgent::Status { .. })) < place(|message| matches!(message, FromAgent::Health { .. })));
}

#[test]
fn an_agent_that_was_started_again_asks_anew_and_says_nothing_before_it_knows() {
    let mut bench = Bench::checked(&health(), 1..3);
    bench.after(1_000);
    bench.answers(1, HEALTH, Ok(()));
    let mut again = bench.recovered();
    again.now = bench.now + GRACE_MS;
    let since = bench.now;
    again.does(Event::Started { members: vec![(MemberId::first(id(1)), since), (MemberId::first(id(2)), since)] });
    again.does(Event::Surveyed);
    assert_eq!(healths(&again.connect(2)), []);
    let mut asked_of = asked(&again.after(EVERY_MS));
    asked_of.sort();
    assert_eq!(asked_of, [(1, HEALTH), (2, HEALTH)]);
    assert_eq!(healths(&again.answers(1, HEALTH, Ok(()))), [(1, Verdict::Healthy, String::new())]);
    let late = again.answers(2, HEALTH, Err("refused"));
    assert_eq!(healths(&late), [(2, Verdict::Unhealthy, "refused".into())], "its grace was over before");
}

#[test]
fn one_that_was_to_end_says_why_also_where_its_agent_was_killed_meanwhile() {
    let mut bench = Bench::checked(&health(), 1..3);
    bench.next(Ok(()));
    (0..3).for_each(|n| drop(bench.next(Err(&n.to_string()))));
    for records in [bench.records.clone(), bench.ledger.snapshot()] {
        let ledger = Ledger::recover(config(), &records).unwrap();
        let mut again = Bench { ledger, records, now: bench.now, sequence: 0, number: 0 };
        let members = vec![(MemberId::first(id(1)), bench.now), (MemberId::first(id(2)), bench.now)];
        assert_eq!(stopped(&again.does(Event::Started { members })), [1], "it may never have been told");
        again.connect(2);
        assert_eq!(ends(&again.end(id(1), Exit::Killed)), [(id(1), Exit::Unhealthy { reason: "2".into() })]);
        assert_eq!(ends(&again.end(id(2), Exit::Killed)), [(id(2), Exit::Killed)]);
    }
    // A master that wants it ended has its will.
    bench.hears(FromMaster::Kill { attempts: vec![id(1)], grace_ms: 1 });
    assert_eq!(ends(&bench.end(id(1), Exit::Killed)), [(id(1), Exit::Killed)]);
}

#[test]
fn checks_that_cannot_be_read_are_refused() {
    let mut bench = Bench::ready();
    let mut launch = launch(1, 5, needs(0, 0), 1..2);
    Arc::make_mut(&mut launch.template).members[0].env = vec![(protocol::checks::CHECKS_VARIABLE.into(), "00ff".into())];
    let outputs = bench.hears(FromMaster::Launch(launch));
    assert_eq!(refused(&outputs).len(), 1);
}
