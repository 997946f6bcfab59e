//! Jobs: submission, ends, restarts, stop, scale and new versions.

use super::*;
use crate::shard::view::TaskView;

fn world(cpu_milli: u64) -> World {
    let mut world = World::new();
    world.register(A, cpu(cpu_milli), 1);
    world
}

fn task(world: &mut World, id: JobId, index: u32) -> TaskView {
    world.shard.task_view(id, index).unwrap_or_else(|| panic!("no task {id}.{index}"))
}

#[test]
fn a_batch_job_runs_and_ends_and_whoever_follows_is_told() {
    let mut world = world(4_000);
    world.next_request = 7;
    let id = RequestId(7);
    world.event(Event::Request { id, request: Request::Submit { job: job(Kind::Batch, 10, 1_000), key: None, follow: true } });
    let mut rounds = 0;
    while !world.held(A).is_empty() {
        let held = world.held(A);
        assert!(held.len() <= 4, "an agent holds what fits");
        world.running(A, &held);
        world.end(A, &held, &Exit::Code(0));
        rounds += 1;
    }
    assert_eq!(rounds, 3);
    assert_eq!(world.ends_on_record().len(), 10);
    let ended = world.replies.iter().find_map(|(of, response)| match response {
        Response::Ended(view) if *of == id => Some(view.tasks.clone()),
        _ => None,
    });
    assert_eq!(ended, Some(BTreeMap::from([(Phase::Finished, 10)])));
    world.check();
}

#[test]
fn a_repeated_end_is_acked_and_changes_nothing() {
    let mut world = world(1_000);
    let id = world.submit(job(Kind::Batch, 1, 1_000));
    let attempt = AttemptId::new(id, 0, 1);
    world.end(A, &[attempt, attempt], &Exit::Code(3));
    let hash = world.shard.hash();
    world.end(A, &[attempt], &Exit::Code(0));
    assert_eq!(world.shard.hash(), hash);
    assert_eq!(world.ends_on_record(), [attempt]);
    assert!(world.agents[&A].acked.len() >= 2);
    assert_eq!(task(&mut world, id, 0).exit, Some(Exit::Code(3)));
    world.check();
}

#[test]
fn a_key_used_twice_gives_one_job_and_a_different_job_under_it_conflicts() {
    let mut world = world(1_000);
    let submit = |job: Job| Request::Submit { job, key: Some("k".into()), follow: false };
    let Response::Submitted { job: first, new: true } = world.ask(submit(job(Kind::Batch, 1, 100))) else { panic!() };
    let again = |world: &mut World| match world.ask(submit(job(Kind::Batch, 1, 100))) {
        Response::Submitted { job, new } => (job, new),
        other => panic!("{other:?}"),
    };
    assert_eq!(again(&mut world), (first, false));
    let held = world.held(A);
    world.end(A, &held, &Exit::Code(0));
    assert_eq!(again(&mut world), (first, false), "also when the job has ended");
    world.new_leader();
    assert_eq!(again(&mut world), (first, false), "also after a change of leader");
    assert!(matches!(world.ask(submit(job(Kind::Batch, 2, 100))), Response::Refused(Refusal::Conflict { .. })));
    world.check();
}

#[test]
fn a_name_is_one_living_jobs() {
    let mut world = world(1_000);
    let named = || Job { name: Some(name("web")), ..job(Kind::Batch, 1, 100) };
    let id = world.submit(named());
    let again = Request::Submit { job: named(), key: None, follow: false };
    assert!(matches!(world.ask(again.clone()), Response::Refused(Refusal::Conflict { .. })));
    let held = world.held(A);
    world.end(A, &held, &Exit::Code(0));
    assert!(matches!(world.ask(again), Response::Submitted { job, new: true } if job != id));
    world.check();
}

#[test]
fn a_killed_task_is_killed_whatever_its_code() {
    let mut world = world(1_000);
    let id = world.submit(job(Kind::Batch, 3, 500));
    let held = world.held(A);
    world.running(A, &held);
    assert!(matches!(world.ask(Request::Stop { job: JobRef::Id(id), grace_ms: 5 }), Response::Done));
    assert_eq!(world.agents[&A].killed, held);
    world.end(A, &held[..1], &Exit::Code(0));
    world.end(A, &held[1..], &Exit::Signal(9));
    assert_eq!(world.job(id).tasks, BTreeMap::from([(Phase::Killed, 3)]), "the one that waited was killed too");
    assert!(world.job(id).ended.is_some());
    world.check();
}

#[test]
fn stop_ends_ten_million_waiting_tasks_without_looking_at_them() {
    let mut world = World::new();
    let id = world.submit(job(Kind::Batch, COUNT_MAX, 500));
    assert_eq!(world.count(id, Phase::Waiting), COUNT_MAX);
    world.ask(Request::Stop { job: JobRef::Id(id), grace_ms: 5 });
    assert_eq!(world.count(id, Phase::Killed), COUNT_MAX);
    assert!(world.job(id).ended.is_some());
    assert_eq!(world.shard.jobs.history_tasks(), 1);
    world.check();
}

#[test]
fn backoff_grows_and_resets() {
    let mut world = world(1_000);
    let id = world.submit(job(Kind::Service, 1, 500));
    let mut waits = Vec::new();
    for _ in 0..5 {
        let held = world.held(A);
        let from = world.now;
        world.end(A, &held, &Exit::Code(1));
        waits.push(task(&mut world, id, 0).retry_at.unwrap().since(from));
        world.pass(*waits.last().unwrap(), &[A]);
        assert_eq!(world.held(A).len(), 1, "it is started again");
    }
    assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 10_000]);
    let attempt = world.held(A)[0];
    assert_eq!(attempt.number, 6);
    let state = TaskState::Ended { exit: Exit::Code(0), usage: Usage { time_us: 10_001_000, ..Usage::default() } };
    world.say(A, FromAgent::Status { updates: vec![Update { attempt, state }] });
    let view = task(&mut world, id, 0);
    assert_eq!(view.retry_at.unwrap().since(view.since), 1_000, "after a long run it begins anew");
    assert_eq!(world.job(id).restarts, 6);
    world.check();
}

#[test]
fn a_batch_task_is_tried_as_often_as_its_rule_says() {
    let mut world = world(1_000);
    let mut batch = job(Kind::Batch, 1, 500);
    batch.restart = Restart { policy: RestartPolicy::OnFailure, retries_max: Some(2), backoff_first_ms: 0, ..batch.restart };
    let id = world.submit(batch);
    for _ in 0..3 {
        let held = world.held(A);
        world.end(A, &held, &Exit::Trap { reason: "x".repeat(5_000) });
    }
    let Some(Exit::Trap { reason }) = task(&mut world, id, 0).exit else { panic!("a trap keeps its text") };
    assert_eq!(reason.len(), protocol::task::REASON_BYTES_MAX, "a text that is too long is cut");
    assert_eq!((world.job(id).restarts, world.count(id, Phase::Failed)), (2, 1));
    world.check();
}

#[test]
fn a_service_is_scaled_up_and_down() {
    let mut world = world(10_000);
    let id = world.submit(job(Kind::Service, 2, 500));
    let scale = |count| Request::Scale { job: JobRef::Id(id), count };
    world.ask(scale(5));
    let held = world.held(A);
    assert_eq!(held.len(), 5);
    world.running(A, &held);
    world.ask(scale(1));
    let killed = world.agents[&A].killed.clone();
    assert_eq!(killed.iter().map(|attempt| attempt.task.index).collect::<Vec<_>>(), [1, 2, 3, 4]);
    world.ask(scale(3));
    world.end(A, &killed, &Exit::Killed);
    assert_eq!(world.held(A).len(), 3, "what is wanted again is started again");
    world.ask(scale(0));
    let held = world.held(A);
    world.end(A, &held, &Exit::Killed);
    assert!(world.job(id).ended.is_none(), "a service of no tasks lives on");
    world.ask(scale(1));
    assert_eq!(world.held(A).len(), 1);
    assert!(matches!(world.ask(scale(COUNT_MAX + 1)), Response::Refused(Refusal::Invalid { .. })));
    world.check();
}

#[test]
fn a_batch_job_scaled_down_ends_with_what_began() {
    let mut world = world(1_000);
    let id = world.submit(job(Kind::Batch, 100, 500));
    world.ask(Request::Scale { job: JobRef::Id(id), count: 1 });
    let held = world.held(A);
    world.end(A, &held, &Exit::Code(0));
    assert_eq!((world.job(id).tasks, world.job(id).ended.is_some()), (BTreeMap::from([(Phase::Finished, 2)]), true));
    world.check();
}

#[test]
fn apply_rolls_as_many_at_a_time_as_may_be_down() {
    let mut world = world(10_000);
    let service = |args: &str| {
        let mut service = Job { name: Some(name("web")), update_parallel: 2, ..job(Kind::Service, 5, 500) };
        Arc::make_mut(&mut service.template).members[0].args = vec![args.into()];
        service
    };
    let Response::Submitted { job: id, new: true } = world.ask(Request::Apply { job: service("1") }) else { panic!() };
    let held = world.held(A);
    world.running(A, &held);
    assert!(matches!(world.ask(Request::Apply { job: service("1") }), Response::Submitted { new: false, .. }));
    assert!(matches!(world.ask(Request::Apply { job: service("2") }), Response::Submitted { job, new: true } if job == id));
    let mut rounds = 0;
    loop {
        let killed: Vec<AttemptId> = std::mem::take(&mut world.agents.get_mut(&A).unwrap().killed);
        if killed.is_empty() {
            break;
        }
        assert!(killed.len() <= 2, "{killed:?}");
        rounds += 1;
        world.end(A, &killed, &Exit::Killed);
        let new: Vec<AttemptId> = world.held(A).into_iter().filter(|attempt| attempt.number == 2).collect();
        world.running(A, &new);
    }
    assert_eq!(rounds, 3);
    assert!((0..5).all(|index| world.shard.task_view(id, index).unwrap().version == 2));
    assert_eq!(world.count(id, Phase::Running), 5);
    let batch = Job { name: Some(name("web")), ..job(Kind::Batch, 5, 500) };
    assert!(matches!(world.ask(Request::Apply { job: batch }), Response::Refused(Refusal::Invalid { .. })));
    world.check();
}

#[test]
fn of_a_role_the_higher_priority_is_placed_first_and_then_the_older_job() {
    let mut world = World::new();
    let with = |priority| Job { priority, ..job(Kind::Batch, 1, 1_000) };
    let (low, high, old) = (world.submit(with(1)), world.submit(with(9)), world.submit(with(9)));
    world.register(A, cpu(2_000), 1);
    let placed: Vec<JobId> = world.held(A).iter().map(|attempt| attempt.task.job).collect();
    assert_eq!(placed, [high, old]);
    assert_eq!(world.count(low, Phase::Waiting), 1);
    world.check();
}

#[test]
fn an_abandoned_request_gets_no_second_answer() {
    let mut world = world(1_000);
    let id = RequestId(1);
    world.event(Event::Request { id, request: Request::Submit { job: job(Kind::Batch, 1, 500), key: None, follow: true } });
    world.event(Event::Abandoned { id });
    let held = world.held(A);
    world.end(A, &held, &Exit::Code(0));
    assert_eq!(world.replies.len(), 1);
    assert!(world.shard.followers.is_empty() && world.shard.following.is_empty());
}

#[test]
fn an_attempt_is_ended_alone_and_its_task_tried_again_at_once() {
    let mut world = world(10_000);
    let id = world.submit(job(Kind::Service, 3, 500));
    let held = world.held(A);
    world.running(A, &held);
    let kill = |job, attempts| Request::Kill { job: JobRef::Id(job), attempts, grace_ms: 1_000 };
    assert!(matches!(world.ask(kill(id, vec![(1, 1), (2, 7), (9, 1)])), Response::Done));
    let killed = std::mem::take(&mut world.agents.get_mut(&A).unwrap().killed);
    assert_eq!(killed, [AttemptId::new(id, 1, 1)], "what is not live is left alone");
    world.end(A, &killed, &Exit::Code(0));
    let held = world.held(A);
    assert!(held.len() == 3 && held.contains(&AttemptId::new(id, 1, 2)), "{held:?}");
    assert!(matches!(world.ask(kill(JobId(u64::MAX), vec![])), Response::Refused(Refusal::NotFound { .. })));
    world.check();
}

#[test]
fn a_backoff_is_cut_short_where_somebody_asks() {
    let mut world = world(10_000);
    let mut service = job(Kind::Service, 2, 500);
    service.restart = Restart { policy: RestartPolicy::Always, backoff_first_ms: 60_000, backoff_max_ms: 60_000, ..service.restart };
    let id = world.submit(service);
    world.end(A, &[AttemptId::new(id, 0, 1)], &Exit::Code(1));
    assert_eq!((world.held(A).len(), world.count(id, Phase::Waiting)), (1, 1));
    let retry = || Request::Retry { job: JobRef::Id(id) };
    assert!(matches!(world.ask(retry()), Response::Done));
    assert!(world.held(A).contains(&AttemptId::new(id, 0, 2)));
    assert!(matches!(world.ask(retry()), Response::Done), "where none waits nothing happens");
    // What was tried again is counted as before.
    world.end(A, &[AttemptId::new(id, 0, 2)], &Exit::Code(1));
    assert_eq!((world.held(A).len(), world.count(id, Phase::Waiting)), (1, 1));
    world.check();
}

#[test]
fn what_made_jobs_of_what_is_said_a_bounded_part_at_a_time_also_once_they_have_ended() {
    let mut world = World::new();
    world.register(A, cpu(4_000), 1);
    let made = |n: usize| {
        let origin = protocol::job::Origin { by: "x".into(), note: format!("{n}").repeat(30_000) };
        Job { about: Some(Arc::new(protocol::job::About { labels: vec![], origin: Some(origin) })), ..job(Kind::Batch, 1, 100) }
    };
    let mut ids: Vec<JobId> = (0..40).map(|n| world.submit(made(n))).collect();
    let held = world.held(A);
    world.end(A, &held[..1], &Exit::Code(0));
    assert!(world.shard.job_view(held[0].task.job).unwrap().ended.is_some());
    ids.insert(0, JobId(u64::MAX));
    let mut views = vec![];
    while views.len() < ids.len() {
        let some = world.shard.origin_views(&ids[views.len()..]);
        let bytes: usize = some.iter().map(|view| view.origin.as_ref().map_or(0, |origin| origin.note.len())).sum();
        assert!(!some.is_empty() && bytes <= 1 << 20, "{bytes}");
        views.extend(some);
    }
    assert!(views[0].origin.is_none(), "nobody knows that one");
    for (n, view) in views[1..].iter().enumerate() {
        assert_eq!(view.origin.as_ref(), made(n).origin());
    }
    world.check();
}
