//! Agents that are given no tasks: kept as they are, or emptied before maintenance.

use super::*;
use crate::shard::drains::ModeWish;

const SECOND: u64 = 1_000;

fn set(world: &mut World, agent: AgentId, mode: ModeWish) {
    let answer = world.ask(Request::SetMode { agent, mode });
    assert!(matches!(answer, Response::Done), "{answer:?}");
}

fn mode(world: &mut World, agent: AgentId) -> String {
    let Response::Viewed(viewed) = world.ask(Request::View(View::Agents)) else { panic!("a view is answered with one") };
    let Viewed::Agents(agents) = *viewed else { panic!("of agents with agents") };
    agents.iter().find(|view| view.id == agent).map(|view| view.mode.to_string()).unwrap()
}

#[test]
fn a_drained_agents_tasks_go_on_elsewhere_those_of_batch_jobs_once_they_had_their_time() {
    let mut world = World::new();
    world.register(A, cpu(2_000), 1);
    let service = world.submit(job(Kind::Service, 2, 500));
    let batch = world.submit(job(Kind::Batch, 1, 500));
    let on =
        |world: &World, agent, job| -> Vec<AttemptId> { world.held(agent).into_iter().filter(|attempt| attempt.task.job == job).collect() };
    let (services, once) = (on(&world, A, service), on(&world, A, batch));
    let held = world.held(A);
    world.running(A, &held);
    world.register(B, cpu(2_000), 1);
    set(&mut world, A, ModeWish::Drain { grace_ms: 100, wait_ms: 60 * SECOND, gone: false });
    assert_eq!(world.agents[&A].killed, services, "those that go on for ever are moved at once");
    world.end(A, &services, &Exit::Signal(15));
    assert_eq!((on(&world, B, service).len(), world.count(service, Phase::Failed)), (2, 0));
    world.pass(59 * SECOND, &[A, B]);
    assert_eq!((mode(&mut world, A).as_str(), world.agents[&A].killed.len()), ("draining", 2));
    world.new_leader();
    for agent in [A, B] {
        world.register(agent, cpu(2_000), 1);
    }
    world.pass(2 * SECOND, &[A, B]);
    assert!(world.agents[&A].killed.contains(&once[0]), "whoever leads by then");
    world.end(A, &once, &Exit::Killed);
    assert_eq!(
        on(&world, B, batch).iter().map(|attempt| attempt.number).collect::<Vec<_>>(),
        [2],
        "it is tried again, and that is no retry"
    );
    assert_eq!(mode(&mut world, A), "drained");
    let more = world.submit(job(Kind::Service, 1, 1_000));
    world.pass(5 * SECOND, &[A, B]);
    assert_eq!(world.count(more, Phase::Waiting), 1, "a drained agent is given nothing");
    set(&mut world, A, ModeWish::Activate);
    assert_eq!(on(&world, A, more).len(), 1);
    world.check();
}

#[test]
fn an_agent_that_is_not_there_when_it_is_drained_is_emptied_when_it_comes() {
    let mut world = World::new();
    world.register(A, cpu(2_000), 1);
    world.submit(job(Kind::Service, 2, 500));
    let held = world.held(A);
    world.running(A, &held);
    world.pass(5 * SECOND, &[]);
    set(&mut world, A, ModeWish::Drain { grace_ms: 100, wait_ms: 0, gone: true });
    world.register(A, cpu(2_000), 1);
    let killed: BTreeSet<AttemptId> = world.agents[&A].killed.iter().copied().collect();
    assert_eq!(killed.into_iter().collect::<Vec<_>>(), held);
    assert!(!world.changes.iter().any(|change| matches!(change, Change::Agent { what, .. } if what == "gone")));
    world.end(A, &held, &Exit::Killed);
    world.pass(SECOND, &[]);
    assert!(world.changes.iter().any(|change| matches!(change, Change::Agent { what, .. } if what == "gone")), "once it is empty");
    let answer = world.ask(Request::SetMode { agent: A, mode: ModeWish::Activate });
    assert!(matches!(answer, Response::Refused(Refusal::NotFound { .. })), "{answer:?}");
    world.check();
}

#[test]
fn an_inactive_agent_keeps_its_tasks_and_what_is_stopped_there_is_not_tried_again() {
    let mut world = World::new();
    world.register(A, cpu(2_000), 1);
    let service = world.submit(job(Kind::Service, 1, 500));
    let held = world.held(A);
    world.running(A, &held);
    set(&mut world, A, ModeWish::Deactivate);
    let other = world.submit(job(Kind::Batch, 1, 500));
    world.pass(5 * SECOND, &[A]);
    assert_eq!((world.agents[&A].killed.len(), world.count(other, Phase::Waiting), mode(&mut world, A).as_str()), (0, 1, "inactive"));
    world.ask(Request::Stop { job: JobRef::Id(service), grace_ms: 0 });
    set(&mut world, A, ModeWish::Drain { grace_ms: 0, wait_ms: 0, gone: false });
    world.end(A, &held, &Exit::Signal(9));
    assert_eq!(world.count(service, Phase::Killed), 1);
    assert!(world.job(service).ended.is_some());
    world.check();
}

#[test]
fn a_task_that_was_asked_to_stop_for_a_drain_goes_on_though_that_is_over_when_it_ends() {
    let mut world = World::new();
    world.register(A, cpu(2_000), 1);
    let id = world.submit(job(Kind::Batch, 1, 500));
    let held = world.held(A);
    world.running(A, &held);
    set(&mut world, A, ModeWish::Drain { grace_ms: 100, wait_ms: 0, gone: false });
    set(&mut world, A, ModeWish::Activate);
    assert_eq!(world.agents[&A].killed, held);
    world.end(A, &held, &Exit::Signal(15));
    assert_eq!((world.count(id, Phase::Killed), world.count(id, Phase::Staging)), (0, 1));
    world.check();
}
