//! Frameworks that say what they want: they are shown just that, at once, and within their fair part before those that take whatever comes.

use super::*;
use protocol::{Constraint, Field, Rule};

fn wish(count: u32, cpu_milli: u64) -> Wish {
    Wish { role: as_role("default"), priority: 50, count, shape: cpu(cpu_milli), constraints: vec![] }
}

fn in_role(role: &str, wish: Wish) -> Wish {
    Wish { role: as_role(role), ..wish }
}

/// Where and how much.
fn shown(offers: &[OpenOffer]) -> Vec<(AgentId, u64)> {
    offers.iter().map(|offer| (offer.agent, offer.resources.cpu_milli)).collect()
}

impl World {
    fn want(&mut self, client: &Client, wishes: Vec<Wish>) {
        let answer = self.call(client, Call::Demand(wishes));
        assert!(matches!(answer, Response::Done), "{answer:?}");
    }

    fn decline(&mut self, client: &Client, offers: &[OpenOffer], refuse_ms: u64) {
        let offers = offers.iter().map(|offer| offer.id).collect();
        assert!(matches!(self.call(client, Call::Decline { offers, refuse_ms }), Response::Done));
    }

    fn register_in(&mut self, agent: AgentId, cpu_milli: u64, rack: &str) {
        let mut who = AgentInfo { name: format!("agent-{}", agent.0), capacity: cpu(cpu_milli), ..AgentInfo::default() };
        who.domain.rack = rack.into();
        self.say(agent, FromAgent::Register { info: who, incarnation: 1, number: 1 });
        self.report(agent, 0);
    }
}

#[test]
fn a_framework_is_shown_just_what_it_wants_and_no_more_once_that_is_placed() {
    let mut world = World::new();
    world.register(A, cpu(8_000), 1);
    world.register(B, cpu(8_000), 1);
    let client = world.subscribe_wanting(None, info(&["default"]), vec![wish(5, 500)]);
    let offers = world.offers(&client);
    let all = shown(&offers);
    assert_eq!(all.iter().map(|(_, milli)| milli).sum::<u64>(), 2_500, "{all:?}");
    assert_eq!(all.len(), 2, "load spreads: {all:?}");
    let mut made = 0;
    for offer in &offers {
        let tasks = (0..offer.resources.cpu_milli / 500).map(|_| {
            made += 1;
            task(&format!("t-{made}"), 500)
        });
        let tasks = tasks.collect();
        world.accept(&client, std::slice::from_ref(offer), tasks);
    }
    assert_eq!((made, world.held(A).len() + world.held(B).len()), (5, 5));
    let held = world.held(A);
    world.running(A, &held);
    world.end(A, &held, &Exit::Code(0));
    world.pass(120 * SECOND, &[A, B]);
    assert!(world.offers(&client).is_empty(), "what has ended is not wanted again by itself");
    world.want(&client, vec![wish(1, 500), wish(1, 200)]);
    assert_eq!(shown(&world.offers(&client)).len(), 1, "one agent for both");
    world.want(&client, vec![]);
    let offers = world.offers(&client);
    assert_eq!(offers.iter().map(|offer| offer.resources.cpu_milli).sum::<u64>() + 500 * world.held(B).len() as u64, 15_300, "the rest");
    world.check();
}

#[test]
fn what_is_wanted_is_had_out_from_under_what_others_were_shown_within_a_fair_part() {
    let mut world = World::new();
    world.register(A, cpu(8_000), 1);
    let taker = world.subscribe(None, info(&["web"]));
    assert_eq!(shown(&world.offers(&taker)), [(A, 8_000)]);
    let seeker = world.subscribe_wanting(None, info(&["default"]), vec![wish(3, 1_000)]);
    assert_eq!(shown(&world.offers(&seeker)), [(A, 3_000)], "at once");
    let events = world.events_of(taker.request);
    assert!(matches!(&events[0], FrameworkEvent::Rescinded(gone) if gone.len() == 1), "{events:?}");
    assert!(matches!(&events[1], FrameworkEvent::Offers(left) if shown(left) == [(A, 5_000)]), "{events:?}");
    world.want(&seeker, vec![wish(8, 1_000)]);
    assert_eq!(shown(&world.offers(&seeker)), [(A, 1_000)], "one of two roles has half; it holds three already");
    let left = world.offers(&taker);
    assert_eq!(shown(&left), [(A, 4_000)]);
    world.decline(&taker, &left, 3_600 * SECOND);
    assert_eq!(shown(&world.offers(&seeker)), [(A, 4_000)], "what nobody else takes is its too");
    world.check();
}

#[test]
fn what_is_freed_goes_to_who_wants_it_before_who_takes_whatever_comes() {
    let mut world = World::new();
    world.register(A, cpu(4_000), 1);
    let taker = world.subscribe(None, info(&["default"]));
    let offers = world.offers(&taker);
    world.accept(&taker, &offers, (0..4).map(|n| task(&format!("t-{n}"), 1_000)).collect());
    let seeker = world.subscribe_wanting(None, info(&["web"]), vec![in_role("web", wish(2, 1_500))]);
    assert!(world.offers(&seeker).is_empty());
    for (ended, expected) in [(1, vec![]), (2, vec![(A, 1_500)]), (3, vec![]), (4, vec![])] {
        let held = world.held(A);
        world.end(A, &held[..1], &Exit::Code(0));
        assert_eq!(shown(&world.offers(&seeker)), expected, "{ended} have ended");
    }
    let events = world.events_of(taker.request);
    let last = events.iter().rev().find_map(|event| if let FrameworkEvent::Offers(offers) = event { Some(shown(offers)) } else { None });
    assert!(last.is_some(), "{events:?}");
    world.check();
}

#[test]
fn rules_hold_and_the_most_urgent_wish_comes_first() {
    let mut world = World::new();
    world.register_in(A, 1_000, "r1");
    world.register_in(B, 1_000, "r2");
    let rack = |rack: &str| vec![Constraint { field: Field::Rack, rule: Rule::Is(rack.into()) }];
    let low = Wish { priority: 10, constraints: rack("r2"), ..wish(9, 400) };
    let high = Wish { priority: 90, constraints: rack("r2"), ..wish(1, 700) };
    let nowhere = Wish { constraints: rack("r3"), ..wish(1, 100) };
    let client = world.subscribe_wanting(None, info(&["default"]), vec![low.clone(), nowhere, high]);
    assert_eq!(shown(&world.offers(&client)), [(B, 700)]);
    world.register_in(AgentId(3), 1_000, "r3");
    assert_eq!(shown(&world.offers(&client)), [(AgentId(3), 100)], "an agent that comes is looked at");
    world.want(&client, vec![low]);
    let events = world.events_of(client.request);
    assert!(matches!(&events[0], FrameworkEvent::Rescinded(gone) if gone.len() == 2), "what is not just that is taken back: {events:?}");
    assert!(matches!(&events[1], FrameworkEvent::Offers(offers) if shown(offers) == [(B, 800)]), "{events:?}");
    world.check();
}

#[test]
fn what_was_declined_is_not_shown_again_until_it_is_wanted_anew() {
    let mut world = World::new();
    world.register(A, cpu(4_000), 1);
    let client = world.subscribe_wanting(None, info(&["default"]), vec![wish(2, 1_000)]);
    let offers = world.offers(&client);
    world.decline(&client, &offers, 3_600 * SECOND);
    world.pass(60 * SECOND, &[A]);
    assert!(world.offers(&client).is_empty());
    world.want(&client, vec![wish(2, 1_000)]);
    let offers = world.offers(&client);
    assert_eq!(shown(&offers), [(A, 2_000)]);
    let offer = offers.iter().map(|offer| offer.id).collect();
    let launches = vec![task("a", 1_000)];
    world.call(&client, Call::Accept { offers: offer, launches, groups: vec![], refuse_ms: 3_600 * SECOND });
    assert!(world.offers(&client).is_empty(), "the other half was refused");
    world.want(&client, vec![wish(4, 1_000)]);
    assert_eq!(shown(&world.offers(&client)), [(A, 3_000)]);
    let held = world.held(A);
    world.end(A, &held, &Exit::Code(0));
    assert_eq!(shown(&world.offers(&client)), [(A, 1_000)], "what is freed is shown as soon as it is");
    world.check();
}

#[test]
fn who_wants_something_and_does_not_answer_keeps_it_for_a_while_only() {
    let mut world = World::new();
    world.register(A, cpu(2_000), 1);
    let silent = world.subscribe_wanting(None, info(&["default"]), vec![wish(2, 1_000)]);
    assert_eq!(shown(&world.offers(&silent)), [(A, 2_000)]);
    let other = world.subscribe_wanting(None, info(&["web"]), vec![in_role("web", wish(1, 2_000))]);
    assert!(world.offers(&other).is_empty(), "who wants something is not robbed");
    world.pass(6 * SECOND, &[A]);
    assert_eq!(world.rescinded(&silent).len(), 1);
    assert_eq!(shown(&world.offers(&other)), [(A, 2_000)]);
    world.check();
}

#[test]
fn what_cannot_be_wanted_is_refused_and_changes_nothing() {
    let mut world = World::new();
    world.register(A, cpu(2_000), 1);
    let client = world.subscribe_wanting(None, info(&["default"]), vec![wish(1, 1_000)]);
    assert_eq!(shown(&world.offers(&client)), [(A, 1_000)]);
    let many = vec![wish(1, 1); crate::frameworks::WISHES_MAX + 1];
    for wishes in [many, vec![in_role("web", wish(1, 1))], vec![wish(1, 0)]] {
        let answer = world.call(&client, Call::Demand(wishes));
        assert!(matches!(answer, Response::Refused(Refusal::Invalid { .. })), "{answer:?}");
    }
    assert!(world.events_of(client.request).is_empty());
    world.new_leader();
    world.register(A, cpu(2_000), 1);
    let again = world.subscribe(Some(client.id), info(&["default"]));
    assert_eq!(shown(&world.offers(&again)), [(A, 2_000)], "who comes back says again what it wants");
    world.check();
}
