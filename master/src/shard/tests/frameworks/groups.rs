//! Tasks that a framework places together.

use super::*;
use crate::frameworks::{Condition, Fact, Filter, Filters, Test};

impl World {
    fn accept_groups(&mut self, client: &Client, offers: &[OpenOffer], groups: Vec<Vec<TaskLaunch>>) {
        let offers = offers.iter().map(|offer| offer.id).collect();
        let call = Call::Accept { offers, launches: vec![], groups, refuse_ms: 0 };
        assert!(matches!(self.call(client, call), Response::Done));
    }

    /// A group of two that runs, and a task beside it.
    fn with_group(&mut self, client: &Client) -> Vec<AttemptId> {
        let offers = self.offers(client);
        self.accept_groups(client, &offers, vec![vec![task("a", 100), task("b", 100)]]);
        let offers = self.offers(client);
        self.accept(client, &offers, vec![task("alone", 100)]);
        let held = self.held(A);
        assert_eq!(held.len(), 3);
        self.running(A, &held);
        let updates = self.updates(client);
        self.acknowledge(client, &updates);
        held
    }
}

fn aware() -> FrameworkInfo {
    FrameworkInfo { capabilities: vec!["TASK_KILLING_STATE".into()], ..info(&["default"]) }
}

#[test]
fn a_group_is_placed_wholly_or_not_at_all() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    let client = world.subscribe(None, info(&["default"]));
    let offers = world.offers(&client);
    let broken = || TaskLaunch { job: Err("no command".into()), ..task("broken", 1) };
    let many = (0..=crate::frameworks::GROUP_TASKS_MAX).map(|n| task(&format!("many-{n}"), 1)).collect();
    let groups = vec![
        vec![task("a", 600), task("b", 600)],
        vec![task("c", 100), broken()],
        vec![task("d", 100), task("d", 100)],
        many,
        vec![],
        vec![task("a", 600), task("e", 300)],
        vec![task("f", 101)],
    ];
    world.accept_groups(&client, &offers, groups);
    let refused: Vec<String> = world
        .updates(&client)
        .into_iter()
        .map(|update| {
            assert!(update.phase == Phase::Rejected && matches!(update.cause, Cause::Group(_)), "{update:?}");
            update.task
        })
        .filter(|name| !name.starts_with("many"))
        .collect();
    assert_eq!(refused, ["a", "b", "c", "broken", "d", "d", "f"]);
    assert_eq!(world.held(A).len(), 2, "what a group that is refused would have taken is there for the next");
    world.check();
}

#[test]
fn when_one_of_a_group_ends_badly_the_others_are_stopped_and_those_beside_it_are_not() {
    for (exit, stopped) in [(Exit::Code(0), false), (Exit::Code(1), true), (Exit::Killed, true)] {
        let mut world = World::new();
        world.register(A, cpu(1_000), 1);
        let client = world.subscribe(None, aware());
        let held = world.with_group(&client);
        world.end(A, &held[..1], &exit);
        assert_eq!(world.agents[&A].killed, if stopped { vec![held[1]] } else { vec![] }, "{exit:?}");
        let phases: Vec<Phase> = world.updates(&client).iter().map(|update| update.phase).collect();
        assert_eq!(phases, if stopped { vec![exit.phase(), Phase::Killing] } else { vec![exit.phase()] });
        world.check();
    }
}

#[test]
fn a_kill_of_one_of_a_group_is_one_of_all_of_it() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    let client = world.subscribe(None, aware());
    let held = world.with_group(&client);
    world.call(&client, Call::Kill { task: "b".into(), grace_ms: None });
    assert_eq!(world.agents[&A].killed, [held[1], held[0]]);
    world.end(A, &held[..2], &Exit::Signal(15));
    let updates = world.updates(&client);
    world.acknowledge(&client, &updates);
    assert_eq!(phases(&world.updates(&client)), [("b", Phase::Killed), ("a", Phase::Killed)]);
    world.check();
}

#[test]
fn a_group_is_one_whoever_leads() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    let client = world.subscribe(None, aware());
    let held = world.with_group(&client);
    // The leader dies between the end of one and what it would have said then.
    let end = record::Ended { index: 0, number: 1, exit: Exit::Code(1), usage: Usage::default() };
    let record = Record::Ended { id: held[0].task.job, ends: vec![end], at: world.now };
    world.shard.apply(&record);
    world.journal.push(record);
    let bytes = postcard::to_allocvec(&world.shard.snapshot()).unwrap();
    let restored = Shard::restore(world.shard.config.clone(), ShardSnapshot::decode(&bytes).unwrap());
    assert_eq!(restored.hash(), world.shard.hash());
    world.new_leader();
    world.agents.get_mut(&A).unwrap().held.remove(&held[0]);
    world.register(A, cpu(1_000), 1);
    assert!(world.agents[&A].killed.contains(&held[1]) && !world.agents[&A].killed.contains(&held[2]));
    world.check();
}

#[test]
fn what_a_framework_does_not_want_is_not_shown_to_it_until_it_says_otherwise() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    world.register(B, cpu(2_000), 1);
    let filter = Filter { least: vec![cpu(1_500)], ..Filter::default() };
    let filters = |filter| -> Filters { [(as_role("default"), filter)].into() };
    world.next_request += 1;
    let (request, stream) = (RequestId(world.next_request), 7);
    let info = info(&["default"]);
    let subscribe = FrameworkRequest::Subscribe {
        framework: None,
        info: info.clone(),
        suppressed: vec![],
        filters: filters(filter),
        wishes: vec![],
        stream,
    };
    world.event(Event::Request { id: request, request: Request::Framework(subscribe) });
    let events = world.events_of(request);
    let [FrameworkEvent::Subscribed(id), FrameworkEvent::Offers(offers)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(offers.iter().map(|offer| offer.agent).collect::<Vec<_>>(), [B]);
    let client = Client { id: *id, request, stream };
    world.submit(job(Kind::Service, 1, 500));
    let condition = Condition { of: Fact::Name, is: Test::Missing };
    let none = Filter { groups: vec![vec![condition]], ..Filter::default() };
    let update = |world: &mut World, filter, suppressed| {
        world.call(&client, Call::Update { info: info.clone(), suppressed, filters: filters(filter) })
    };
    update(&mut world, none, vec![]);
    let events = world.events_of(request);
    assert!(events.iter().any(|event| matches!(event, FrameworkEvent::Rescinded(_))), "{events:?}");
    world.pass(200 * SECOND, &[A, B]);
    assert!(world.offers(&client).is_empty());
    assert!(matches!(update(&mut world, Filter::default(), vec![as_role("web")]), Response::Refused(Refusal::Invalid { .. })));
    update(&mut world, Filter::default(), vec![]);
    assert_eq!(world.offers(&client).len(), 2);
    let another = FrameworkInfo { user: "other".into(), ..info.clone() };
    let refused = world.call(&client, Call::Update { info: another, suppressed: vec![], filters: Filters::new() });
    assert!(matches!(refused, Response::Refused(Refusal::Invalid { .. })), "{refused:?}");
    world.check();
}
