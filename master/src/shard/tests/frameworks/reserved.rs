//! What of agents is kept for roles: who has room there, what frameworks are shown of it, and who makes it and gives it up.

use super::*;
use crate::shard::reservations::ReservationChange;
use protocol::{Attributes, Reservation, ReservedFor};

fn of(role: &str, job: Job) -> Job {
    Job { role: as_role(role), ..job }
}

pub(super) fn change(make: bool, role: &str, cpu_milli: u64) -> ReservationChange {
    ReservationChange { make, role: as_role(role), within: vec![], labels: Attributes::new(), resources: cpu(cpu_milli) }
}

fn refined(make: bool, role: &str, within: &[&str], cpu_milli: u64) -> ReservationChange {
    ReservationChange { within: within.iter().map(|role| as_role(role)).collect(), ..change(make, role, cpu_milli) }
}

impl World {
    pub(super) fn reserves(&mut self, agent: AgentId, change: ReservationChange) -> Result<(), Refusal> {
        match self.ask(Request::Reserve { agent, changes: vec![change], principal: "ops".into() }) {
            Response::Done => Ok(()),
            Response::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    /// What is left of each reservation, by role.
    fn kept(&self, agent: AgentId) -> Vec<(String, u64)> {
        let view = self.shard.reserved_views().into_iter().find(|view| view.agent == agent);
        let list = view.into_iter().flat_map(|view| view.list);
        list.map(|one| (one.reserved.role.to_string(), one.resources.cpu_milli)).collect()
    }

    pub(super) fn check_kept(&self) {
        self.check();
        self.shard.pool.check_kept();
        self.shard.pool.check_shown();
    }
}

#[test]
fn what_is_kept_for_a_role_is_given_to_nobody_else_and_to_it_first() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    world.register(B, cpu(1_000), 1);
    world.reserves(A, change(true, "web", 600)).unwrap();
    let others = world.submit(of("batch", job(Kind::Service, 20, 100)));
    assert_eq!((world.held(A).len(), world.held(B).len(), world.count(others, Phase::Waiting)), (4, 10, 6));
    let web = world.submit(of("web", job(Kind::Service, 3, 200)));
    assert_eq!((world.held(A).len(), world.count(web, Phase::Waiting)), (7, 0));
    // All of it is used: what ends there is anybody's where it is beyond the reservation.
    let own: Vec<AttemptId> = world.held(A).into_iter().filter(|attempt| attempt.task.job == web).collect();
    world.ask(Request::Stop { job: JobRef::Id(web), grace_ms: 0 });
    world.end(A, &own, &Exit::Killed);
    world.pass(2_000, &[A, B]);
    assert_eq!(world.held(A).len(), 4, "it is kept again");
    world.reserves(A, change(false, "web", 200)).unwrap();
    assert_eq!(world.held(A).len(), 6, "what is given up is free to who waits");
    world.check_kept();
}

#[test]
fn what_is_given_up_is_nobody_elses_until_that_is_on_record() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    world.reserves(A, change(true, "web", 600)).unwrap();
    world.submit(of("batch", job(Kind::Service, 20, 100)));
    assert_eq!(world.held(A).len(), 4);
    let known = world.journal.len();
    let mut held = vec![];
    for id in [1_000, 1_001] {
        let request = Request::Reserve { agent: A, changes: vec![change(false, "web", 200)], principal: "ops".into() };
        world.shard.handle(world.now, Event::Request { id: RequestId(id), request });
    }
    while let Some(output) = world.shard.poll_output() {
        match output {
            Output::Journal(record) => world.journal.push(record),
            Output::Held(action) => held.push(action),
            Output::Now(action) => world.act(action),
        }
    }
    // Another shard would have it on record, and told the agent, whatever became of ours.
    assert!(!world.journal[known..].iter().any(|record| matches!(record, Record::Staged { .. })), "who waits was offered some of it");
    let (of_first, of_second): (Vec<Action>, Vec<Action>) = {
        let second = held.iter().rposition(|action| matches!(action, Action::Peer { .. })).expect("it says so to itself");
        let rest = held.split_off(second);
        (held, rest)
    };
    of_first.into_iter().for_each(|action| world.act(action));
    world.drain();
    assert_eq!(
        world.held(A).len(),
        6,
        "the first is on record: who waits has it, and nothing of the second, though both are of one moment"
    );
    of_second.into_iter().for_each(|action| world.act(action));
    world.drain();
    assert_eq!(world.held(A).len(), 8, "all of it is on record");
    world.check_kept();
}

#[test]
fn roles_below_have_what_is_kept_for_those_above_and_their_own_first() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    world.reserves(A, change(true, "web", 800)).unwrap();
    world.reserves(A, refined(true, "web/shop", &["web"], 300)).unwrap();
    assert_eq!(world.kept(A), [("web".into(), 500), ("web/shop".into(), 300)]);
    let web = world.submit(of("web", job(Kind::Service, 10, 100)));
    assert_eq!(world.count(web, Phase::Waiting), 3, "500 of its own and 200 of everybody's");
    let shop = world.submit(of("web/shop", job(Kind::Service, 4, 100)));
    assert_eq!(world.count(shop, Phase::Waiting), 1);
    assert!(world.reserves(A, refined(false, "web", &[], 600)).is_err(), "some of it is refined");
    world.reserves(A, refined(false, "web/shop", &["web"], 300)).unwrap();
    assert_eq!(world.kept(A), [("web".into(), 800)], "it is the outer one's again");
    world.check_kept();
}

#[test]
fn what_cannot_be_kept_is_refused_and_changes_nothing() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    world.submit(of("batch", job(Kind::Service, 1, 500)));
    let labels = Attributes::from([(String::new(), "x".into())]);
    for (wrong, why) in [
        (change(true, "web", 600), "free"),
        (change(true, "web", 0), "of something"),
        (change(false, "web", 1), "not reserved"),
        (refined(true, "web/shop", &["web"], 100), "alone"),
        (refined(true, "shop", &["web"], 100), "below"),
        (ReservationChange { labels, ..change(true, "web", 1) }, "labels"),
        (ReservationChange { resources: cpu(100).made_revocable(), ..change(true, "web", 1) }, "lent"),
    ] {
        let refusal = world.reserves(A, wrong.clone()).unwrap_err().to_string();
        assert!(refusal.contains(why), "{wrong:?}: {refusal}");
    }
    assert!(matches!(world.reserves(B, change(true, "web", 1)), Err(Refusal::NotFound { .. })));
    let both = vec![change(true, "web", 300), change(true, "web", 300)];
    assert!(matches!(world.ask(Request::Reserve { agent: A, changes: both, principal: String::new() }), Response::Refused(_)));
    assert!(world.kept(A).is_empty());
    for n in 0..64_u64 {
        let labels = Attributes::from([("n".into(), n.to_string())]);
        world.reserves(A, ReservationChange { labels, ..change(true, "web", 1) }).unwrap();
    }
    let more = ReservationChange { labels: [("n".into(), "64".into())].into(), ..change(true, "web", 1) };
    assert!(world.reserves(A, more).is_err(), "there are as many as there may be");
    world.check_kept();
}

#[test]
fn what_is_kept_is_of_those_agents_alone_that_a_job_may_have() {
    use protocol::{Constraint, Field, Placement, Rule};
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    world.reserves(A, change(true, "web", 600)).unwrap();
    for n in 2..8 {
        world.register(AgentId(n), cpu(1_000), 1);
    }
    world.reserves(AgentId(7), change(true, "web", 500)).unwrap();
    let on = |name: &str, count, cpu_milli| {
        let constraints = vec![Constraint { field: Field::Hostname, rule: Rule::Is(name.into()) }];
        Job { place: Some(Placement { constraints, spread: vec![] }.into()), ..of("web", job(Kind::Service, count, cpu_milli)) }
    };
    world.submit(on("agent-5", 2, 500));
    world.submit(on("agent-7", 3, 500));
    world.submit(on("agent-1", 3, 500));
    assert_eq!((world.held(A).len(), world.held(AgentId(5)).len(), world.held(AgentId(7)).len()), (2, 2, 2));
    world.check_kept();
}

#[test]
fn an_agent_is_started_with_reservations_and_a_new_leader_knows_them() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    let fixed = |role: &str, cpu_milli| Reservation { reserved: ReservedFor::fixed(as_role(role)), resources: cpu(cpu_milli) };
    world.say(A, FromAgent::Reserves { reservations: vec![fixed("web", 400), fixed("batch", 100)] });
    assert!(world.reserves(A, change(false, "web", 1)).is_err(), "what it is started with nobody gives up");
    world.reserves(A, refined(true, "web/shop", &["web"], 100)).unwrap();
    world.reserves(A, change(true, "web", 200)).unwrap();
    let sum = |kept: Vec<(String, u64)>, role: &str| kept.iter().filter(|(of, _)| of == role).map(|(_, n)| n).sum::<u64>();
    assert_eq!((sum(world.kept(A), "web"), sum(world.kept(A), "web/shop"), sum(world.kept(A), "batch")), (500, 100, 100));
    world.new_leader();
    world.register(A, cpu(1_000), 1);
    world.pass(1_000, &[A]);
    let other = world.submit(of("other", job(Kind::Service, 10, 100)));
    assert_eq!(world.count(other, Phase::Waiting), 7);
    // It starts again with others.
    world.say(A, FromAgent::Reserves { reservations: vec![fixed("web", 300)] });
    assert_eq!((sum(world.kept(A), "web"), sum(world.kept(A), "batch")), (400, 0));
    assert_eq!(world.count(other, Phase::Waiting), 5);
    let wrong = Reservation { resources: Resources::NONE, ..fixed("web", 1) };
    world.say(A, FromAgent::Reserves { reservations: vec![wrong] });
    assert_eq!(sum(world.kept(A), "web"), 400, "what is none is passed over, and the agent's connection closed");
    world.ask(Request::Gone { agent: A });
    assert!(world.kept(A).is_empty());
    world.check_kept();
}

#[test]
fn an_agent_that_has_less_than_is_kept_of_it_gives_no_more_than_it_has() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    world.reserves(A, change(true, "web", 900)).unwrap();
    world.register(A, cpu(500), 1);
    world.pass(1_000, &[A]);
    let other = world.submit(of("other", job(Kind::Service, 1, 100)));
    let web = world.submit(of("web", job(Kind::Service, 10, 100)));
    assert_eq!((world.count(other, Phase::Waiting), world.count(web, Phase::Waiting)), (1, 5));
    world.check_kept();
}

#[test]
fn a_framework_is_shown_what_is_kept_for_it_and_others_are_not() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    world.reserves(A, change(true, "web", 600)).unwrap();
    let batch = world.subscribe(None, info(&["batch"]));
    let shown = world.offers(&batch);
    assert_eq!(shown.iter().map(|offer| (offer.resources.cpu_milli, offer.reserved.len())).collect::<Vec<_>>(), [(400, 0)]);
    let web = world.subscribe(None, info(&["web"]));
    world.pass(100, &[A]);
    let shown = world.offers(&web);
    assert_eq!(shown.iter().map(|offer| offer.resources.cpu_milli).sum::<u64>(), 600, "the rest another was shown");
    assert_eq!(shown[0].reserved[0].reserved.role, as_role("web"));
    world.accept(&web, &shown, vec![task("a", 600)]);
    assert_eq!(world.held(A).len(), 1);
    assert!(world.rescinded(&batch).is_empty(), "what is another's is not taken for it");
    // More is kept than is shown to nobody: what the other was shown is taken back.
    world.reserves(A, change(true, "web", 300)).unwrap();
    assert_eq!(world.rescinded(&batch).len(), 1);
    world.check_kept();
}

#[test]
fn a_framework_keeps_what_it_was_shown_and_gives_it_up() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    let client = world.subscribe(None, info(&["web"]));
    let offers = world.offers(&client);
    let ids: Vec<OfferId> = offers.iter().map(|offer| offer.id).collect();
    let reserve = |changes: Vec<ReservationChange>, offers: &[OfferId]| Call::Reserve { offers: offers.to_vec(), changes };
    for (wrong, why) in [
        (reserve(vec![change(true, "other", 100)], &ids), "the role that it was shown"),
        (reserve(vec![change(true, "web", 0)], &ids), "of something"),
        (reserve(vec![change(true, "web", 100)], &[]), "out of offers"),
        (reserve(vec![change(true, "web", 100)], &[OfferId { number: 1, ..ids[0] }]), "do not hold"),
    ] {
        match world.call(&client, wrong) {
            Response::Refused(refusal) => assert!(refusal.to_string().contains(why), "{refusal}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(world.call(&client, reserve(vec![change(true, "web", 2_000)], &ids)), Response::Done));
    assert!(world.kept(A).is_empty(), "more than was shown is passed over");
    // Reserved and used in one go: the offers hold.
    assert!(matches!(world.call(&client, reserve(vec![change(true, "web", 300)], &ids)), Response::Done));
    world.accept(&client, &offers, vec![task("a", 200)]);
    assert_eq!((world.held(A).len(), world.kept(A)), (1, vec![("web".into(), 300)]));
    let offers = world.offers(&client);
    let reserved: u64 = offers.iter().flat_map(|offer| &offer.reserved).map(|part| part.resources.cpu_milli).sum();
    assert_eq!((offers[0].resources.cpu_milli, reserved), (800, 100), "what its task holds counts as use of it");
    let ids: Vec<OfferId> = offers.iter().map(|offer| offer.id).collect();
    assert!(matches!(world.call(&client, reserve(vec![change(false, "web", 300)], &ids)), Response::Done));
    assert!(world.kept(A).is_empty());
    world.check_kept();
}

#[test]
fn tasks_whose_place_is_kept_for_others_are_not_asked_for_it() {
    use crate::shard::preempt::Preempts;
    use crate::shard::quotas::RoleSettings;
    use crate::shard::roles::Claim;
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    world.reserves(A, change(true, "kept", 600)).unwrap();
    let settings = RoleSettings { claim: Claim { preempts: Preempts::All, ..Claim::default() }, ..RoleSettings::default() };
    world.ask(Request::SetRole { role: as_role("web"), settings, force: false });
    let kept = world.submit(Job { priority: 10, ..of("kept", job(Kind::Service, 6, 100)) });
    let low = world.submit(Job { priority: 20, ..of("batch", job(Kind::Service, 4, 100)) });
    let web = world.submit(Job { priority: 90, ..of("web", job(Kind::Service, 1, 400)) });
    for _ in 0..5 {
        world.pass(1_500, &[A]);
        let killed = std::mem::take(&mut world.agents.get_mut(&A).unwrap().killed);
        assert!(killed.iter().all(|attempt| attempt.task.job == low), "{killed:?}");
        world.end(A, &killed, &Exit::Killed);
    }
    assert_eq!((world.count(kept, Phase::Waiting), world.count(low, Phase::Waiting), world.count(web, Phase::Waiting)), (0, 4, 0));
    world.check_kept();
}
