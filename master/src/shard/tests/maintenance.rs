//! Windows of maintenance: agents are emptied in them and given tasks again, whoever leads, and frameworks are asked before.

use super::*;
use crate::frameworks::{Call, FrameworkEvent, FrameworkId, FrameworkInfo, FrameworkRequest, TaskLaunch};
use crate::shard::drains::ModeWish;
use crate::shard::maintenance::{Consent, ConsentView, Window, WindowsRequest};

const SECOND: u64 = 1_000;

fn window(world: &World, agents: &[AgentId], from_s: u64, for_s: Option<u64>) -> Window {
    let from = world.now + from_s * SECOND;
    let agents = agents.iter().copied().collect();
    Window { number: 0, agents, from, until: for_s.map(|length| from + length * SECOND), grace_ms: 500, note: "disks".into() }
}

impl World {
    fn windows(&mut self, request: WindowsRequest) -> Response {
        self.ask(Request::Windows(request))
    }

    fn add(&mut self, window: Window) -> u64 {
        match self.windows(WindowsRequest::Add(window)) {
            Response::Numbered(number) => number,
            other => panic!("{other:?}"),
        }
    }

    fn mode(&mut self, agent: AgentId) -> String {
        let Response::Viewed(viewed) = self.ask(Request::View(View::Agents)) else { panic!() };
        let Viewed::Agents(agents) = *viewed else { panic!() };
        agents.into_iter().find(|view| view.id == agent).unwrap().mode.into_owned()
    }

    fn consents(&mut self) -> Vec<ConsentView> {
        let Response::Viewed(viewed) = self.ask(Request::View(View::Consents)) else { panic!() };
        let Viewed::Consents(consents) = *viewed else { panic!() };
        consents
    }
}

#[test]
fn an_agent_is_emptied_in_its_window_and_given_tasks_again_behind_it() {
    let mut world = World::new();
    world.register(A, cpu(2_000), 1);
    world.register(B, cpu(2_000), 1);
    let service = world.submit(job(Kind::Service, 2, 900));
    let (on_a, on_b) = (world.held(A), world.held(B));
    assert_eq!((on_a.len(), on_b.len()), (1, 1));
    let window = window(&world, &[A], 10, Some(20));
    world.add(window);
    world.pass(9 * SECOND, &[A, B]);
    assert_eq!((world.mode(A), world.agents[&A].killed.len()), ("active".into(), 0), "not before it begins");
    world.pass(2 * SECOND, &[A, B]);
    assert_eq!((world.mode(A), world.agents[&A].killed.clone()), ("maintenance".into(), on_a.clone()));
    world.end(A, &on_a, &Exit::Killed);
    assert_eq!((world.held(A).len(), world.held(B).len()), (0, 2), "it goes on elsewhere");
    let refused = world.ask(Request::SetMode { agent: A, mode: ModeWish::Activate });
    assert!(matches!(&refused, Response::Refused(Refusal::Conflict { reason }) if reason.contains("window")), "{refused:?}");
    world.new_leader();
    for agent in [A, B] {
        world.register(agent, cpu(2_000), 1);
    }
    assert_eq!(world.mode(A), "maintenance", "whoever leads");
    world.pass(25 * SECOND, &[A, B]);
    assert_eq!(world.mode(A), "active");
    world.ask(Request::Scale { job: JobRef::Id(service), count: 4 });
    assert_eq!(world.held(A).len(), 2);
    world.check();
}

#[test]
fn windows_are_cancelled_begun_and_ended_and_what_cannot_be_is_refused() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    world.register(B, cpu(1_000), 1);
    let (both, over) = (window(&world, &[A, B], 100, None), window(&world, &[B], 150, Some(10)));
    let first = world.add(both);
    for (wrong, why) in
        [(over, "at the same time"), (window(&world, &[], 5, None), "at least one"), (window(&world, &[A], 5, Some(0)), "ends after")]
    {
        let answer = world.windows(WindowsRequest::Add(wrong));
        assert!(matches!(&answer, Response::Refused(Refusal::Invalid { reason }) if reason.contains(why)), "{answer:?}");
    }
    assert!(matches!(world.windows(WindowsRequest::Cancel(99)), Response::Refused(Refusal::NotFound { .. })));
    assert!(matches!(world.windows(WindowsRequest::End([A].into())), Response::Refused(Refusal::Conflict { .. })));
    assert!(matches!(world.windows(WindowsRequest::Begin([A].into())), Response::Numbered(_)));
    assert_eq!((world.mode(A), world.mode(B)), ("maintenance".into(), "active".into()), "of those two, one begins");
    assert!(matches!(world.windows(WindowsRequest::End([A].into())), Response::Numbered(_)));
    assert_eq!(world.mode(A), "active");
    assert!(matches!(world.windows(WindowsRequest::Cancel(first)), Response::Numbered(_)));
    let operators = window(&world, &[A], 0, Some(5));
    world.ask(Request::SetMode { agent: A, mode: ModeWish::Deactivate });
    world.add(operators);
    world.pass(10 * SECOND, &[A, B]);
    assert_eq!(world.mode(A), "inactive", "what an operator said of it stays");
    world.check();
}

#[test]
fn frameworks_see_when_an_agent_is_not_there_and_are_asked_whether_they_can_do_without() {
    let mut world = World::new();
    world.register(A, cpu(2_000), 1);
    let request = RequestId(500);
    let info = FrameworkInfo { name: "asked".into(), roles: vec![as_role("default")], failover_ms: 60_000, ..FrameworkInfo::default() };
    let subscribe =
        FrameworkRequest::Subscribe { framework: None, info, suppressed: vec![], filters: BTreeMap::new(), wishes: vec![], stream: 7 };
    world.event(Event::Request { id: request, request: Request::Framework(subscribe) });
    let told = |world: &mut World| {
        let (mine, others): (Vec<_>, Vec<_>) = std::mem::take(&mut world.replies).into_iter().partition(|(of, _)| *of == request);
        world.replies = others;
        mine.into_iter()
            .flat_map(|(_, response)| if let Response::Framework(events) = response { events } else { vec![] })
            .collect::<Vec<_>>()
    };
    let events = told(&mut world);
    let FrameworkEvent::Subscribed(framework) = events[0] else { panic!("{events:?}") };
    let call = |world: &mut World, framework: FrameworkId, call| {
        world.ask(Request::Framework(FrameworkRequest::Call { framework, stream: 7, principal: String::new(), call }))
    };
    let window = window(&world, &[A], 60, Some(60));
    let (from, until) = (window.from, window.until);
    let number = world.add(window);
    let events = told(&mut world);
    assert!(matches!(&events[0], FrameworkEvent::Rescinded(_)), "{events:?}");
    assert!(matches!(&events[1], FrameworkEvent::Unavailable(agents) if *agents == [(A, from, until)]), "{events:?}");
    let FrameworkEvent::Offers(offers) = &events[2] else { panic!("{events:?}") };
    let launches = vec![TaskLaunch { name: "t".into(), agent: None, grace_ms: 100, job: Ok(job(Kind::Batch, 1, 500)) }];
    call(&mut world, framework, Call::Accept { offers: vec![offers[0].id], launches, groups: vec![], refuse_ms: 0 });
    let events = told(&mut world);
    let asked = events.iter().find_map(|event| if let FrameworkEvent::InverseOffers(asked) = event { Some(asked.clone()) } else { None });
    let asked = asked.unwrap_or_else(|| panic!("it has a task there: {events:?}"));
    assert_eq!((asked[0].agent, asked[0].window, asked[0].from), (A, number, from));
    assert_eq!(world.consents()[0].consent, Consent::Unknown);
    call(&mut world, framework, Call::AnswerInverse { accepted: false, offers: vec![asked[0].id] });
    assert_eq!(world.consents()[0].consent, Consent::Declined);
    world.windows(WindowsRequest::Cancel(number));
    let events = told(&mut world);
    assert!(events.iter().any(|event| matches!(event, FrameworkEvent::InverseRescinded(over) if *over == [asked[0].id])), "{events:?}");
    assert!(world.consents().is_empty());
    world.check();
}
