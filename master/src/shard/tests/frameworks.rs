//! Frameworks that are clients: what they are shown, what becomes of what they take, and what they are told.

use super::*;
use crate::frameworks::{
    Call, Cause, FrameworkEvent, FrameworkId, FrameworkInfo, FrameworkRequest, OpenOffer, StatusUpdate, TaskLaunch, Wish,
};
use crate::shard::drains::ModeWish;
use protocol::{Loss, OfferId, PortRange};

mod demand;
mod groups;
mod guaranteed;
mod health;
mod messages;
mod precedence;
mod reserved;

const SECOND: u64 = 1_000;

/// A framework over one subscription.
pub(super) struct Client {
    id: FrameworkId,
    request: RequestId,
    stream: u128,
}

pub(super) fn info(roles: &[&str]) -> FrameworkInfo {
    let roles = roles.iter().map(|role| as_role(role)).collect();
    FrameworkInfo { name: "walk".into(), roles, failover_ms: 30 * SECOND, ..FrameworkInfo::default() }
}

pub(super) fn task(called: &str, cpu_milli: u64) -> TaskLaunch {
    TaskLaunch { name: called.into(), agent: None, grace_ms: 700, job: Ok(job(Kind::Batch, 1, cpu_milli)) }
}

impl World {
    pub(super) fn subscribe(&mut self, framework: Option<FrameworkId>, info: FrameworkInfo) -> Client {
        self.subscribe_wanting(framework, info, vec![])
    }

    fn subscribe_wanting(&mut self, framework: Option<FrameworkId>, info: FrameworkInfo, wishes: Vec<Wish>) -> Client {
        self.next_request += 1;
        let (request, stream) = (RequestId(self.next_request), u128::from(self.next_request));
        let subscribe = FrameworkRequest::Subscribe { framework, info, suppressed: vec![], filters: BTreeMap::new(), wishes, stream };
        self.event(Event::Request { id: request, request: Request::Framework(subscribe) });
        let events = self.events_of(request);
        let id = events.iter().find_map(|event| if let FrameworkEvent::Subscribed(id) = event { Some(*id) } else { None });
        let client = Client { id: id.expect("it is subscribed"), request, stream };
        self.replies.push((request, Response::Framework(events)));
        client
    }

    fn events_of(&mut self, request: RequestId) -> Vec<FrameworkEvent> {
        let (mine, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.replies).into_iter().partition(|(of, _)| *of == request);
        self.replies = others;
        let events = mine.into_iter().map(|(_, response)| match response {
            Response::Framework(events) => events,
            other => panic!("{other:?}"),
        });
        events.flatten().collect()
    }

    pub(super) fn offers(&mut self, client: &Client) -> Vec<OpenOffer> {
        let events = self.events_of(client.request);
        events
            .into_iter()
            .filter_map(|event| if let FrameworkEvent::Offers(offers) = event { Some(offers) } else { None })
            .flatten()
            .collect()
    }

    pub(super) fn updates(&mut self, client: &Client) -> Vec<StatusUpdate> {
        let events = self.events_of(client.request);
        events.into_iter().filter_map(|event| if let FrameworkEvent::Update(update) = event { Some(update) } else { None }).collect()
    }

    fn rescinded(&mut self, client: &Client) -> Vec<OfferId> {
        let events = self.events_of(client.request);
        events
            .into_iter()
            .filter_map(|event| if let FrameworkEvent::Rescinded(offers) = event { Some(offers) } else { None })
            .flatten()
            .collect()
    }

    fn call(&mut self, client: &Client, call: Call) -> Response {
        let (framework, stream) = (client.id, client.stream);
        self.ask(Request::Framework(FrameworkRequest::Call { framework, stream, principal: String::new(), call }))
    }

    pub(super) fn accept(&mut self, client: &Client, offers: &[OpenOffer], launches: Vec<TaskLaunch>) {
        let offers = offers.iter().map(|offer| offer.id).collect();
        assert!(matches!(self.call(client, Call::Accept { offers, launches, groups: vec![], refuse_ms: 0 }), Response::Done));
    }

    fn acknowledge(&mut self, client: &Client, updates: &[StatusUpdate]) {
        for StatusUpdate { task, uuid, .. } in updates {
            let acknowledge = Call::Acknowledge { task: task.clone(), uuid: uuid.expect("it is to be acknowledged") };
            assert!(matches!(self.call(client, acknowledge), Response::Done));
        }
    }
}

fn phases(updates: &[StatusUpdate]) -> Vec<(&str, Phase)> {
    updates.iter().map(|update| (update.task.as_str(), update.phase)).collect()
}

#[test]
fn a_framework_is_shown_all_that_is_free_and_runs_tasks_in_it() {
    let mut world = World::new();
    world.register(A, cpu(2_000), 1);
    let client = world.subscribe(None, info(&["default"]));
    let offers = world.offers(&client);
    assert_eq!((offers.len(), offers[0].resources.cpu_milli, offers[0].agent), (1, 2_000, A));
    world.accept(&client, &offers, vec![task("a", 500), task("b", 700)]);
    let held = world.held(A);
    assert_eq!(held.len(), 2);
    assert_eq!(world.offers(&client).iter().map(|offer| offer.resources.cpu_milli).collect::<Vec<_>>(), [800], "what was left");
    world.running(A, &held);
    let updates = world.updates(&client);
    assert_eq!(phases(&updates), [("a", Phase::Running), ("b", Phase::Running)]);
    world.end(A, &held[..1], &Exit::Code(0));
    assert!(world.updates(&client).is_empty(), "one at a time for each task");
    world.acknowledge(&client, &updates);
    let updates = world.updates(&client);
    assert_eq!((phases(&updates), updates[0].exit.clone()), (vec![("a", Phase::Finished)], Some(Exit::Code(0))));
    world.acknowledge(&client, &updates);
    world.pass(3_600 * SECOND, &[A]);
    assert!(world.updates(&client).is_empty(), "an acknowledged end is not said again");
    world.check();
}

#[test]
fn what_a_job_needs_is_taken_out_from_under_an_offer() {
    let mut world = World::new();
    world.register(A, cpu(2_000), 1);
    let client = world.subscribe(None, info(&["default"]));
    let offers = world.offers(&client);
    world.submit(job(Kind::Service, 1, 1_500));
    assert_eq!(world.held(A).len(), 1, "nobody waits for a framework");
    let events = world.events_of(client.request);
    assert!(matches!(&events[0], FrameworkEvent::Rescinded(gone) if *gone == [offers[0].id]), "{events:?}");
    assert!(matches!(&events[1], FrameworkEvent::Offers(left) if left[0].resources.cpu_milli == 500), "{events:?}");
    world.accept(&client, &offers, vec![task("late", 500)]);
    let updates = world.updates(&client);
    assert_eq!((phases(&updates), updates[0].cause.clone(), updates[0].uuid), (vec![("late", Phase::Lost)], Cause::Offers, None));
    assert_eq!(world.held(A).len(), 1);
    world.check();
}

#[test]
fn what_does_not_fit_into_the_offers_is_an_error_and_the_rest_runs() {
    let mut world = World::new();
    let ports = vec![PortRange { first: 31_000, last: 31_003 }];
    let capacity = Resources { ports: 4, ..cpu(1_000) };
    let who = AgentInfo { name: "agent-1".into(), capacity, ports, ..AgentInfo::default() };
    world.say(A, FromAgent::Register { info: who, incarnation: 1, number: 1 });
    world.report(A, 0);
    let client = world.subscribe(None, info(&["default"]));
    let offers = world.offers(&client);
    assert_eq!(offers[0].ports, [PortRange { first: 31_000, last: 31_003 }]);
    let with_port = |called: &str, port: &str| {
        let mut launch = task(called, 100);
        if let Ok(job) = &mut launch.job {
            let template = Arc::make_mut(&mut job.template);
            template.members[0].ports = vec![name(port)];
            (template.members[0].resources.ports, template.resources.ports) = (1, 1);
        }
        launch
    };
    let broken = TaskLaunch { job: Err("no command".into()), ..task("broken", 1) };
    let launches = vec![
        task("large", 2_000),
        with_port("web", "31001"),
        with_port("again", "31001"),
        with_port("none", "80"),
        broken,
        task("fits", 500),
    ];
    world.accept(&client, &offers, launches);
    let events = world.events_of(client.request);
    let (mut wrong, mut offers) = (vec![], vec![]);
    for event in events {
        match event {
            FrameworkEvent::Update(update) => {
                assert!(update.phase == Phase::Rejected && matches!(update.cause, Cause::Invalid(_)), "{update:?}");
                wrong.push(update.task);
            }
            FrameworkEvent::Offers(shown) => offers.extend(shown),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(wrong, ["large", "again", "none", "broken"]);
    assert_eq!(world.held(A).len(), 2);
    let shown: Vec<(u16, u16)> = offers.iter().flat_map(|offer| &offer.ports).map(|range| (range.first, range.last)).collect();
    assert_eq!(shown, [(31_000, 31_000), (31_002, 31_003)], "a port that is taken is not shown");
    world.accept(&client, &offers, vec![task("web", 100)]);
    assert!(matches!(world.updates(&client)[0].cause, Cause::Invalid(_)), "a name is used once");
    world.check();
}

#[test]
fn offers_are_taken_once_and_only_by_whom_they_are_shown_to() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    world.register(B, cpu(1_000), 1);
    let client = world.subscribe(None, info(&["default"]));
    let offers = world.offers(&client);
    assert_eq!(offers.len(), 2);
    let other = world.subscribe(None, info(&["default"]));
    world.accept(&other, &offers[..1], vec![task("stolen", 100)]);
    world.accept(&client, &offers, vec![task("two agents", 100)]);
    world.accept(&client, &offers[..1], vec![task("twice", 100)]);
    for client in [&client, &other] {
        let updates = world.updates(client);
        assert!(updates.iter().all(|update| update.cause == Cause::Offers && update.phase == Phase::Lost), "{updates:?}");
    }
    assert!(world.held(A).is_empty() && world.held(B).is_empty());
    let wrong = world.ask(Request::Framework(FrameworkRequest::Call {
        framework: client.id,
        stream: 99,
        principal: String::new(),
        call: Call::Revive(vec![]),
    }));
    assert!(matches!(wrong, Response::Refused(Refusal::Invalid { .. })), "{wrong:?}");
    world.check();
}

#[test]
fn what_is_declined_is_shown_again_when_its_time_is_over_or_there_is_more_or_it_is_asked_for() {
    let mut world = World::new();
    world.register(A, cpu(2_000), 1);
    let service = world.submit(job(Kind::Service, 1, 500));
    let client = world.subscribe(None, info(&["default"]));
    let decline = |world: &mut World, refuse_ms| {
        let offers: Vec<OfferId> = world.offers(&client).iter().map(|offer| offer.id).collect();
        assert_eq!(offers.len(), 1);
        world.call(&client, Call::Decline { offers, refuse_ms });
    };
    decline(&mut world, 60 * SECOND);
    world.pass(59 * SECOND, &[A]);
    assert!(world.offers(&client).is_empty());
    world.pass(2 * SECOND, &[A]);
    decline(&mut world, 3_600 * SECOND);
    world.ask(Request::Scale { job: JobRef::Id(service), count: 0 });
    let held = world.held(A);
    world.end(A, &held, &Exit::Killed);
    decline(&mut world, 3_600 * SECOND);
    world.call(&client, Call::Revive(vec![]));
    decline(&mut world, 3_600 * SECOND);
    world.call(&client, Call::Suppress(vec![]));
    world.call(&client, Call::Revive(vec![]));
    assert_eq!(world.offers(&client).len(), 1);
    world.check();
}

#[test]
fn who_holds_offers_keeps_others_from_them_for_a_while_only() {
    let mut world = World::new();
    world.register(A, cpu(2_000), 1);
    let hoarder = world.subscribe(None, info(&["default"]));
    assert_eq!(world.offers(&hoarder).len(), 1);
    world.pass(60 * SECOND, &[A]);
    assert!(world.events_of(hoarder.request).is_empty(), "nobody else would take it");
    let picky = world.subscribe(None, info(&["web"]));
    world.pass(6 * SECOND, &[A]);
    assert_eq!(world.rescinded(&hoarder).len(), 1);
    let offers = world.offers(&picky).iter().map(|offer| offer.id).collect();
    world.call(&picky, Call::Decline { offers, refuse_ms: 3_600 * SECOND });
    world.pass(30 * SECOND, &[A]);
    assert_eq!(world.offers(&hoarder).len(), 1);
    world.pass(60 * SECOND, &[A]);
    assert!(world.events_of(hoarder.request).is_empty(), "who does not want it is not waited for");
    let other = world.subscribe(None, info(&["web"]));
    world.pass(6 * SECOND, &[A]);
    assert_eq!(world.rescinded(&hoarder).len(), 1);
    let (mut tasks, mut offers) = (0, vec![]);
    for _ in 0..600 {
        for event in world.events_of(other.request) {
            match event {
                FrameworkEvent::Offers(shown) => offers = shown,
                FrameworkEvent::Update(update) => world.acknowledge(&other, &[update]),
                FrameworkEvent::Subscribed(_) => {}
                other => panic!("{other:?}"),
            }
        }
        if !offers.is_empty() {
            tasks += 1;
            world.accept(&other, &std::mem::take(&mut offers), vec![task(&format!("task-{tasks}"), 2_000)]);
            let held = world.held(A);
            world.end(A, &held, &Exit::Code(0));
        }
        world.pass(SECOND, &[A]);
    }
    assert!(tasks > 570, "{tasks} of 600 turns: each time that the hoarder lets an offer lapse, the next is made twice as late");
    world.check();
}

#[test]
fn who_has_not_answered_yet_is_shown_one_thing_at_a_time_where_others_take_the_rest() {
    let mut world = World::new();
    let quick = world.subscribe(None, info(&["default"]));
    world.register(A, cpu(1_000), 1);
    let offers = world.offers(&quick);
    world.accept(&quick, &offers, vec![task("a", 500)]);
    let silent = world.subscribe(None, info(&["web"]));
    for (agent, n) in [(B, 1), (AgentId(3), 1), (AgentId(4), 1)] {
        world.register(agent, cpu(1_000), n);
    }
    let shown = |offers: Vec<OpenOffer>| offers.iter().map(|offer| offer.agent).collect::<Vec<_>>();
    assert_eq!(shown(world.offers(&silent)), [B], "the smallest share, and then it owes an answer");
    let rest = world.offers(&quick);
    assert_eq!(shown(rest.clone()), [A, AgentId(3), AgentId(4)]);
    let all = rest.iter().map(|offer| offer.id).collect();
    world.call(&quick, Call::Decline { offers: all, refuse_ms: 3_600 * SECOND });
    assert_eq!(world.offers(&silent).len(), 3, "what nobody else takes it is shown");
    world.check();
}

#[test]
fn a_framework_that_comes_back_finds_its_tasks_and_hears_what_it_missed() {
    let mut world = World::new();
    world.register(A, cpu(2_000), 1);
    let first = world.subscribe(None, info(&["default"]));
    let offers = world.offers(&first);
    world.accept(&first, &offers, vec![task("a", 500), task("b", 500)]);
    let held = world.held(A);
    world.running(A, &held);
    world.event(Event::Abandoned { id: first.request });
    world.end(A, &held[..1], &Exit::Code(3));
    world.pass(20 * SECOND, &[A]);
    let second = world.subscribe(Some(first.id), info(&["default"]));
    assert_eq!(second.id, first.id);
    let updates = world.updates(&second);
    assert_eq!(phases(&updates), [("a", Phase::Running), ("b", Phase::Running)]);
    world.acknowledge(&second, &updates);
    assert_eq!(phases(&world.updates(&second)), [("a", Phase::Failed)]);
    world.new_leader();
    world.register(A, cpu(2_000), 1);
    let third = world.subscribe(Some(first.id), info(&["default"]));
    let updates = world.updates(&third);
    assert!(phases(&updates).contains(&("a", Phase::Failed)), "an end is on record until it is acknowledged: {updates:?}");
    let fourth = world.subscribe(Some(first.id), info(&["default"]));
    let told = world.events_of(third.request);
    assert!(matches!(told.last(), Some(FrameworkEvent::Error(reason)) if reason == "Framework failed over"), "{told:?}");
    world.event(Event::Abandoned { id: fourth.request });
    world.pass(29 * SECOND, &[A]);
    assert_eq!(world.agents[&A].killed, []);
    world.pass(2 * SECOND, &[A]);
    assert_eq!(world.agents[&A].killed, held[1..2], "after that it is gone, and its tasks with it");
    let gone = world.ask(Request::Framework(FrameworkRequest::Subscribe {
        framework: Some(first.id),
        info: info(&["default"]),
        suppressed: vec![],
        filters: BTreeMap::new(),
        wishes: vec![],
        stream: 1,
    }));
    assert!(matches!(gone, Response::Refused(Refusal::Conflict { .. })), "{gone:?}");
    world.check();
}

#[test]
fn kills_and_questions_are_answered_and_an_update_is_said_until_it_is_acknowledged() {
    let mut world = World::new();
    world.register(A, cpu(2_000), 1);
    let aware = FrameworkInfo { capabilities: vec!["PARTITION_AWARE".into(), "TASK_KILLING_STATE".into()], ..info(&["default"]) };
    let client = world.subscribe(None, aware);
    let offers = world.offers(&client);
    world.accept(&client, &offers, vec![task("a", 500)]);
    let held = world.held(A);
    world.running(A, &held);
    let said = world.updates(&client);
    world.pass(11 * SECOND, &[A]);
    let again = world.updates(&client);
    assert_eq!((phases(&again), again[0].uuid), (vec![("a", Phase::Running)], said[0].uuid));
    world.acknowledge(&client, &said);
    world.pass(10 * SECOND, &[]);
    let updates = world.updates(&client);
    assert_eq!(phases(&updates), [("a", Phase::Unreachable)]);
    world.acknowledge(&client, &updates);
    world.register(A, cpu(2_000), 1);
    let updates = world.updates(&client);
    assert_eq!(phases(&updates), [("a", Phase::Running)]);
    world.acknowledge(&client, &updates);
    world.call(&client, Call::Reconcile(vec!["a".into(), "nobody".into()]));
    world.call(&client, Call::Reconcile(vec![]));
    let updates = world.updates(&client);
    assert_eq!(phases(&updates), [("a", Phase::Running), ("nobody", Phase::Lost), ("a", Phase::Running)]);
    assert!(updates.iter().all(|update| update.uuid.is_none()));
    world.call(&client, Call::Kill { task: "a".into(), grace_ms: None });
    assert_eq!(world.agents[&A].killed, held);
    let updates = world.updates(&client);
    assert_eq!(phases(&updates), [("a", Phase::Killing)]);
    world.end(A, &held, &Exit::Signal(15));
    world.acknowledge(&client, &updates);
    assert_eq!(phases(&world.updates(&client)), [("a", Phase::Killed)]);
    world.call(&client, Call::Kill { task: "a".into(), grace_ms: Some(0) });
    assert_eq!(phases(&world.updates(&client)), [("a", Phase::Killed)], "its end is said again");
    world.call(&client, Call::Teardown);
    assert!(matches!(world.events_of(client.request).last(), Some(FrameworkEvent::Error(_))));
    world.check();
}

#[test]
fn what_is_shown_of_a_framework_is_bounded_and_its_tasks_are_read_a_page_at_a_time() {
    let mut world = World::new();
    world.register(A, cpu(2_000), 1);
    let client = world.subscribe(None, info(&["default"]));
    let offers = world.offers(&client);
    let names: Vec<String> = (0..10).map(|n| format!("t-{n}")).collect();
    world.accept(&client, &offers, names.iter().map(|name| task(name, 100)).collect());
    let held = world.held(A);
    world.running(A, &held[..4]);
    let viewed = |world: &mut World, view| match world.ask(Request::View(view)) {
        Response::Viewed(viewed) => *viewed,
        other => panic!("{other:?}"),
    };
    let Viewed::Frameworks(all) = viewed(&mut world, View::Frameworks) else { panic!() };
    let counts: Vec<(Phase, u32)> = all[0].counts.clone().into_iter().collect();
    assert_eq!((all[0].n_tasks, counts), (10, vec![(Phase::Staging, 6), (Phase::Running, 4)]));
    assert_eq!((all[0].used().cpu_milli, all[0].offered.cpu_milli, all[0].agents[&A][&Phase::Running]), (1_000, 1_000, 4));
    let mut page = |from: &str, skip, limit| {
        let view = View::FrameworkTasks { framework: client.id, from: from.into(), skip, limit };
        let Viewed::FrameworkTasks(tasks) = viewed(&mut world, view) else { panic!() };
        tasks.into_iter().map(|task| task.name).collect::<Vec<_>>()
    };
    assert_eq!(page("", 0, 3), names[..3]);
    assert_eq!(page("t-2\0", 0, 3), names[3..6]);
    assert_eq!(page("", 8, usize::MAX), names[8..]);
    assert!(page("u", 0, 3).is_empty());
}

#[test]
fn a_task_that_nobody_asked_to_stop_is_told_as_drained_only_where_its_agent_is() {
    let mut world = World::new();
    world.register(A, cpu(2_000), 1);
    let client = world.subscribe(None, info(&["default"]));
    let offers = world.offers(&client);
    world.accept(&client, &offers, vec![task("unasked", 100), task("moved", 100)]);
    let held = world.held(A);
    world.end(A, &held[..1], &Exit::Killed);
    world.ask(Request::SetMode { agent: A, mode: ModeWish::Drain { grace_ms: 100, wait_ms: 0, gone: false } });
    world.end(A, &held[1..], &Exit::Killed);
    let ends: Vec<(String, Option<Exit>)> = world.updates(&client).into_iter().map(|update| (update.task, update.exit)).collect();
    let expected = [("unasked", Exit::Killed), ("moved", Exit::Lost { reason: Loss::Drained })];
    assert_eq!(ends, expected.map(|(task, exit)| (task.to_owned(), Some(exit))));
    world.check();
}

#[test]
fn a_task_that_the_leader_before_asked_to_leave_for_a_drain_is_told_so_by_one_that_has_not_heard_of_that() {
    let mut world = World::new();
    world.register(A, cpu(2_000), 1);
    let client = world.subscribe(None, info(&["default"]));
    let offers = world.offers(&client);
    world.accept(&client, &offers, vec![task("moved", 100)]);
    let held = world.held(A);
    world.ask(Request::SetMode { agent: A, mode: ModeWish::Drain { grace_ms: 100, wait_ms: 0, gone: false } });
    world.shard = Shard::restore(world.shard.config.clone(), world.shard.snapshot());
    world.shard.lead(world.now);
    // Nothing that the new leader says to itself has come yet.
    let updates = vec![Update { attempt: held[0], state: TaskState::Ended { exit: Exit::Killed, usage: Usage::default() } }];
    world.shard.handle(world.now, Event::Agent { agent: A, message: FromAgent::Status { updates } });
    world.drain();
    let ends = world.journal.iter().filter_map(|record| if let Record::Ended { ends, .. } = record { Some(ends) } else { None });
    let exits: Vec<&Exit> = ends.flatten().map(|end| &end.exit).collect();
    assert_eq!(exits, [&Exit::Lost { reason: Loss::Drained }]);
    world.check();
}
