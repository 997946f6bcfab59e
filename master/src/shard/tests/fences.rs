//! Fenced tasks: replaced once nothing of them can be alive, and no sooner.

use super::*;
use protocol::Loss;
use protocol::job::FENCE_VARIABLE;

fn fenced() -> Job {
    let mut job = Job { name: Some(name("one")), ..job(Kind::Service, 1, 100) };
    Arc::make_mut(&mut job.template).members[0].env = vec![(FENCE_VARIABLE.into(), String::new())];
    job
}

/// A fenced task runs on A; B has room too.
fn world() -> (World, JobId) {
    let mut world = World::new();
    world.register(A, cpu(10_000), 1);
    let id = world.submit(fenced());
    let held = world.held(A);
    world.running(A, &held);
    world.register(B, cpu(10_000), 1);
    (world, id)
}

fn lost(world: &World) -> Vec<(u64, Exit)> {
    let ends = world.journal.iter().filter_map(|record| match record {
        Record::Ended { ends, at, .. } => Some(ends.iter().map(|end| (at.0 - 1_000_000, end.exit.clone()))),
        _ => None,
    });
    ends.flatten().collect()
}

#[test]
fn each_fenced_launch_follows_word_of_the_lease_and_the_answer_to_the_last_beat() {
    let mut world = World::new();
    world.register(A, cpu(10_000), 1);
    let (session, sent) = (world.agents[&A].session, Time(77));
    let beat = FromAgent::Alive { session, sent, held: 0, held_hash: 0 };
    world.shard.handle(world.now, Event::Agent { agent: A, message: beat });
    assert!(world.shard.poll_output().is_none(), "it asks for none");
    world
        .shard
        .handle(world.now, Event::Request { id: RequestId(99), request: Request::Submit { job: fenced(), key: None, follow: false } });
    let mut said = Vec::new();
    while let Some(output) = world.shard.poll_output() {
        if let Output::Held(Action::Peer { to, message }) | Output::Now(Action::Peer { to, message }) = output {
            world.shard.handle(world.now, Event::Peer { from: to, message });
        } else if let Output::Now(Action::Send { message, .. }) = output {
            said.push(message);
        }
    }
    let right = matches!(&said[..], [FromMaster::BeatAck { sent: Time(77) }, FromMaster::Lease { lease_ms: 5_000 }, FromMaster::Launch(_)]);
    assert!(right, "{said:?}");
}

#[test]
fn an_agent_that_is_gone_keeps_its_fenced_task_until_its_lease_is_over() {
    let (mut world, id) = world();
    assert!(matches!(world.ask(Request::Gone { agent: A }), Response::Done));
    world.pass(6_099, &[B]);
    assert!(world.held(B).is_empty(), "it may still run on A");
    world.pass(1, &[B]);
    assert_eq!(world.held(B), [AttemptId::new(id, 0, 2)]);
    assert_eq!(lost(&world), [(6_100, Exit::Lost { reason: Loss::AgentGone })]);
    world.check();
}

#[test]
fn a_new_leader_waits_anew_for_the_lease_of_an_agent_that_is_gone() {
    let (mut world, id) = world();
    world.ask(Request::Gone { agent: A });
    world.pass(5_000, &[B]);
    world.new_leader();
    world.register(B, cpu(10_000), 1);
    world.pass(6_000, &[B]);
    assert!(world.held(B).is_empty());
    world.pass(200, &[B]);
    assert_eq!(world.held(B), [AttemptId::new(id, 0, 2)]);
    world.check();
}

#[test]
fn a_reborn_agent_may_still_run_it_and_so_may_one_that_has_forgotten_it() {
    for incarnation in [1, 2] {
        let (mut world, id) = world();
        world.agents.insert(A, Script::default());
        world.register(A, cpu(10_000), incarnation);
        world.pass(6_000, &[A, B]);
        assert_eq!((lost(&world), world.count(id, Phase::Waiting)), (vec![], 0), "{incarnation}");
        world.pass(200, &[A, B]);
        let reason = if incarnation == 1 { Loss::Forgotten } else { Loss::Reboot };
        assert_eq!(lost(&world), [(6_100, Exit::Lost { reason })]);
        world.check();
    }
}

#[test]
fn an_attempt_that_is_there_after_all_is_not_lost() {
    let (mut world, id) = world();
    let script = world.agents.insert(A, Script::default());
    world.register(A, cpu(10_000), 1);
    let session = world.agents[&A].session;
    world.agents.insert(A, Script { session, ..script.unwrap() });
    for _ in 0..4 {
        world.beat(A);
    }
    world.report(A, session);
    world.pass(10_000, &[A, B]);
    assert_eq!((lost(&world), world.count(id, Phase::Running)), (vec![], 1));
    world.check();
}

#[test]
fn what_its_agent_says_has_ended_is_replaced_at_once() {
    let (mut world, id) = world();
    let held = world.held(A);
    world.end(A, &held, &Exit::Code(0));
    world.pass(1_000, &[A, B]);
    assert_eq!([world.held(A), world.held(B)].concat(), [AttemptId::new(id, 0, 2)]);
    world.check();
}

#[test]
fn a_fenced_job_stays_one_and_fenced() {
    let (mut world, id) = world();
    let invalid = |response: &Response| matches!(response, Response::Refused(Refusal::Invalid { .. }));
    assert!(invalid(&world.ask(Request::Scale { job: JobRef::Id(id), count: 2 })));
    assert!(invalid(&world.ask(Request::Apply { job: Job { name: Some(name("one")), ..job(Kind::Service, 1, 100) } })));
    assert!(matches!(world.ask(Request::Scale { job: JobRef::Id(id), count: 0 }), Response::Done));
}

#[test]
fn tokens_rise_from_attempt_to_attempt_and_from_job_to_job() {
    let (mut world, id) = world();
    let first = world.held(A)[0];
    world.end(A, &[first], &Exit::Code(1));
    world.pass(2_000, &[A, B]);
    let second = *[world.held(A), world.held(B)].concat().first().unwrap();
    world.ask(Request::Stop { job: JobRef::Id(id), grace_ms: 0 });
    let on = if world.held(A).is_empty() { B } else { A };
    world.end(on, &[second], &Exit::Killed);
    world.submit(fenced());
    let third = *[world.held(A), world.held(B)].concat().first().unwrap();
    let tokens = [first, second, third].map(AttemptId::fence);
    assert!(tokens.is_sorted() && tokens[0] < tokens[1] && tokens[1] < tokens[2], "{tokens:?}");
}
