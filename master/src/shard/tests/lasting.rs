//! What is on record: snapshots, history and tokens.

use super::*;
use crate::shard::event::{Grant, Level, Token, TokenRequest};

#[test]
fn a_restored_snapshot_has_the_same_hash_and_goes_on() {
    let mut world = World::new();
    world.register(A, cpu(2_000), 1);
    let service = world.submit(job(Kind::Service, 3, 500));
    let batch = world.submit(job(Kind::Batch, 9, 500));
    let held = world.held(A);
    world.running(A, &held);
    world.end(A, &held[..1], &Exit::Code(1));
    world.end(A, &held[1..2], &Exit::Trap { reason: "unreachable".into() });
    let bytes = postcard::to_allocvec(&world.shard.snapshot()).unwrap();
    let restored = Shard::restore(world.shard.config.clone(), postcard::from_bytes(&bytes).unwrap());
    assert_eq!(restored.hash(), world.shard.hash());
    world.new_leader();
    world.register(A, cpu(2_000), 1);
    world.pass(20_000, &[A]);
    assert_eq!((world.job(service).tasks.len(), world.count(batch, Phase::Running) + world.count(batch, Phase::Staging)), (2, 3));
    world.check();
}

#[test]
fn a_record_that_fits_nothing_changes_nothing() {
    let mut world = World::new();
    world.register(A, cpu(2_000), 1);
    let id = world.submit(job(Kind::Batch, 3, 500));
    let hash = world.shard.hash();
    let at = world.now;
    let end = record::Ended { index: 7, number: 1, exit: Exit::Code(0), usage: Usage::default() };
    let strange = [
        Record::Staged { id, agent: A, incarnation: 1, attempts: vec![(9, 1), (0, 5)], at },
        Record::Staged { id: JobId(99), agent: A, incarnation: 1, attempts: vec![(0, 1)], at },
        Record::Ended { id, ends: vec![end.clone(), record::Ended { index: 0, number: 9, ..end }], at },
        Record::Stopped { id: JobId(99), grace_ms: 1, at },
        Record::Scaled { id: JobId(99), count: 1, at },
        Record::TokenEnded { id: "none".into(), used_by: None, at },
        Record::AgentGone { agent: B, at },
    ];
    for record in strange {
        world.shard.apply(&record);
        assert_eq!(world.shard.hash(), hash, "{record:?}");
    }
}

#[test]
fn the_history_is_bounded_and_forgets_with_keys_and_names() {
    let mut world = World::with(ShardConfig { history_tasks_max: 10, ..ShardConfig::default() });
    world.register(A, cpu(10_000), 1);
    for n in 0..30 {
        let job = Job { name: Some(name(&format!("n{n}"))), ..job(Kind::Batch, 2, 500) };
        world.ask(Request::Submit { job, key: Some(n.to_string()), follow: false });
        let held = world.held(A);
        world.end(A, &held, &Exit::Code(0));
    }
    assert_eq!((world.shard.jobs.lasting.entries.len(), world.shard.jobs.history_tasks()), (5, 10));
    let ask = |world: &mut World, n: &str| world.ask(Request::View(View::Job(JobRef::Name(as_role("default"), name(n)))));
    assert!(matches!(ask(&mut world, "n29"), Response::Viewed(_)));
    assert!(matches!(ask(&mut world, "n3"), Response::Refused(Refusal::NotFound { what }) if what == "job"));
    world.check();
}

#[test]
fn a_join_token_is_used_once() {
    let mut world = World::new();
    let hash = Digest([7; 32]);
    let token = |id: &str, expires| Token { id: id.into(), hash, grant: Grant::Join, expires };
    let mut ask = |request: TokenRequest| matches!(world.ask(Request::Token(request)), Response::Done);
    let consume = |id: &str, hash| TokenRequest::Consume { id: id.into(), hash, agent: A };
    assert!(ask(TokenRequest::Create(token("a", None))));
    assert!(!ask(TokenRequest::Create(token("a", None))), "an id is one token's");
    assert!(!ask(TokenRequest::Create(token("", None))));
    assert!(!ask(consume("a", Digest([8; 32]))), "a wrong secret uses nothing up");
    assert!(ask(consume("a", hash)));
    assert!(ask(consume("a", hash)), "the same agent asks again, since the answer was lost");
    let other = TokenRequest::Consume { id: "a".into(), hash, agent: B };
    assert!(!ask(other), "for another it is used up");
    assert!(ask(TokenRequest::Create(token("old", Some(Time(5))))));
    assert!(!ask(consume("old", hash)), "it has expired");
    let api = Token { grant: Grant::Api { level: Level::Admin, roles: vec![] }, ..token("api", None) };
    assert!(ask(TokenRequest::Create(api)));
    assert!(!ask(consume("api", hash)), "a token of another kind lets nobody join");
    assert!(ask(TokenRequest::Revoke { id: "api".into() }) && !ask(TokenRequest::Revoke { id: "api".into() }));
    world.check();
}

#[test]
fn a_job_without_tasks_has_ended() {
    let mut world = World::new();
    world.next_request = 1;
    let id = RequestId(1);
    world.event(Event::Request { id, request: Request::Submit { job: job(Kind::Batch, 0, 1), key: None, follow: true } });
    assert!(matches!(&world.replies[..], [(_, Response::Submitted { .. }), (_, Response::Ended(_))]));
    world.check();
}

#[test]
fn a_snapshot_of_a_version_before_is_the_same_without_what_that_did_not_know() {
    let mut world = World::new();
    world.register(A, cpu(2_000), 1);
    world.submit(job(Kind::Service, 3, 500));
    let older = postcard::to_allocvec(&(2_u16, &world.shard.jobs.lasting, &world.shard.rest)).unwrap();
    let restored = Shard::restore(world.shard.config.clone(), ShardSnapshot::decode(&older).unwrap());
    assert_eq!(restored.hash(), world.shard.hash());
    let (frameworks, modes) = (&world.shard.frameworks.lasting, &world.shard.drains.modes);
    let before = postcard::to_allocvec(&(3_u16, &world.shard.jobs.lasting, &world.shard.rest, frameworks, modes)).unwrap();
    assert_eq!(Shard::restore(world.shard.config.clone(), ShardSnapshot::decode(&before).unwrap()).hash(), world.shard.hash());
    // Version 4 is this one without the reservations, of which there are none: their count is the last byte.
    let mut four = postcard::to_allocvec(&world.shard.snapshot()).unwrap();
    assert_eq!((four[0], four.pop()), (5, Some(0)));
    four[0] = 4;
    assert_eq!(Shard::restore(world.shard.config.clone(), ShardSnapshot::decode(&four).unwrap()).hash(), world.shard.hash());
    let now = postcard::to_allocvec(&world.shard.snapshot()).unwrap();
    assert_eq!(Shard::restore(world.shard.config.clone(), ShardSnapshot::decode(&now).unwrap()).hash(), world.shard.hash());
}
