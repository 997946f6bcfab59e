//! Offers: who gets them, and what becomes of them.

use super::*;
use crate::shard::view::ShapeView;
use protocol::message::Launch;
use protocol::{Offer, OfferId};

fn role_of(world: &World, agent: AgentId, role: &str) -> usize {
    let of = |attempt: &AttemptId| world.shard.jobs.live(attempt.task.job).map(|job| job.job.role.as_str() == role);
    world.held(agent).iter().filter(|attempt| of(attempt) == Some(true)).count()
}

#[test]
fn two_roles_get_even_shares_of_one_agent() {
    let mut world = World::new();
    for role in ["red", "blue"] {
        world.submit(Job { role: as_role(role), ..job(Kind::Batch, 1_000, 100) });
    }
    world.register(A, cpu(10_000), 1);
    let (red, blue) = (role_of(&world, A, "red"), role_of(&world, A, "blue"));
    assert_eq!(red + blue, 100);
    assert!(red.abs_diff(blue) <= 3, "{red} and {blue}");
    // What the tasks of one free goes to the roles with the smallest shares, whoever freed it.
    world.submit(Job { role: as_role("green"), ..job(Kind::Batch, 1_000, 100) });
    let ended: Vec<AttemptId> = world.held(A).into_iter().take(30).collect();
    world.end(A, &ended, &Exit::Code(0));
    let (red, green) = (role_of(&world, A, "red"), role_of(&world, A, "green"));
    assert_eq!((red + green, role_of(&world, A, "blue")), (100 - blue, blue));
    assert!(red.abs_diff(green) <= 3, "{red} and {green}");
    world.check();
}

#[test]
fn load_spreads_over_agents() {
    let mut world = World::new();
    world.register(A, cpu(10_000), 1);
    world.register(B, cpu(10_000), 1);
    world.submit(job(Kind::Batch, 20, 100));
    assert_eq!((world.held(A).len(), world.held(B).len()), (10, 10));
    for _ in 0..10 {
        world.submit(job(Kind::Batch, 1, 100));
    }
    assert_eq!((world.held(A).len(), world.held(B).len()), (15, 15));
    world.check();
}

#[test]
fn freed_resources_go_to_a_want_that_nothing_fitted() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    world.submit(job(Kind::Batch, 2, 500));
    let big = world.submit(job(Kind::Batch, 1, 1_000));
    let held = world.held(A);
    world.end(A, &held[..1], &Exit::Code(0));
    assert_eq!(world.count(big, Phase::Waiting), 1);
    world.end(A, &held[1..], &Exit::Code(0));
    assert_eq!(world.count(big, Phase::Staging), 1);
    world.check();
}

#[test]
fn tasks_that_need_nothing_are_placed_too() {
    let mut world = World::new();
    world.register(A, Resources::NONE, 1);
    let id = world.submit(job(Kind::Batch, 10_000, 0));
    assert_eq!(world.count(id, Phase::Staging), 10_000);
    world.check();
}

#[test]
fn a_waiting_job_does_not_make_the_shard_talk_to_itself() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    world.submit(job(Kind::Batch, 5, 2_000));
    let before = world.peers_said;
    world.pass(10_000, &[A]);
    assert!(world.peers_said - before <= 12, "once a second: {}", world.peers_said - before);
    world.check();
}

/// A shard of two, which is told all by hand.
fn half() -> (Shard, AgentId) {
    let mut shard = Shard::new(ShardConfig { shards: 2, ..ShardConfig::default() });
    let agent = (1..).map(AgentId).find(|agent| shard_of_agent(*agent, 2) == ShardId(0)).unwrap();
    shard.lead(Time(1_000));
    let info = AgentInfo { name: "a".into(), capacity: cpu(1_000), ..AgentInfo::default() };
    shard.handle(Time(1_000), Event::Agent { agent, message: FromAgent::Register { info, incarnation: 1, number: 1 } });
    shard.handle(Time(1_000), Event::Agent { agent, message: FromAgent::Report { session: 0, held: vec![], last: true } });
    while shard.poll_output().is_some() {}
    let session = shard.pool.seat(agent).unwrap().1.session;
    for from in [ShardId(0), ShardId(1)] {
        shard.handle(Time(1_000), Event::Peer { from, message: PeerMessage::Stage { agent, session, launches: vec![], number: 1 } });
    }
    while shard.poll_output().is_some() {}
    (shard, agent)
}

#[test]
fn an_agent_gets_offers_once_each_shard_has_said_what_it_holds_there_or_does_not_answer() {
    for answers in [true, false] {
        let mut shard = Shard::new(ShardConfig { shards: 2, ..ShardConfig::default() });
        let agent = (1..).map(AgentId).find(|agent| shard_of_agent(*agent, 2) == ShardId(0)).unwrap();
        shard.lead(Time(1_000));
        let info = AgentInfo { name: "a".into(), capacity: cpu(1_000), ..AgentInfo::default() };
        shard.handle(Time(1_000), Event::Agent { agent, message: FromAgent::Register { info, incarnation: 1, number: 1 } });
        shard.handle(Time(1_000), Event::Agent { agent, message: FromAgent::Report { session: 0, held: vec![], last: true } });
        let session = shard.pool.seat(agent).unwrap().1.session;
        let stage = |launches| PeerMessage::Stage { agent, session, launches, number: 1 };
        assert!(offers(&outputs(&mut shard, 1_000, demand(9))).is_empty());
        shard.handle(Time(1_000), Event::Peer { from: ShardId(0), message: stage(vec![]) });
        let given = if answers {
            let PeerMessage::Accept { launches, .. } = accept(OfferId { shard: ShardId(0), number: 1 }, agent, 6) else { unreachable!() };
            let actions = outputs(&mut shard, 1_000, stage(launches));
            assert_eq!((launched(&actions), refused(&actions)), (6, 0));
            offers(&actions)
        } else {
            for _ in 0..4 {
                let beat = FromAgent::Beat { session, sent: Time(1_000), held: 0, held_hash: 0 };
                shard.handle(Time(1_000), Event::Agent { agent, message: beat });
            }
            offers(&outputs(&mut shard, 1_000, demand(9)))
        };
        let cpu_milli: u64 = given.iter().map(|offer| offer.resources.cpu_milli).sum();
        assert_eq!(cpu_milli, if answers { 400 } else { 900 });
    }
}

fn outputs(shard: &mut Shard, at: u64, message: PeerMessage) -> Vec<Action> {
    shard.handle(Time(at), Event::Peer { from: ShardId(1), message });
    let outputs = std::iter::from_fn(|| shard.poll_output());
    outputs.filter_map(|output| if let Output::Held(action) | Output::Now(action) = output { Some(action) } else { None }).collect()
}

fn offers(actions: &[Action]) -> Vec<Offer> {
    let offers = actions.iter().filter_map(|action| match action {
        Action::Peer { message: PeerMessage::Offers { offers }, .. } => Some(offers.clone()),
        _ => None,
    });
    offers.flatten().collect()
}

fn demand(count: u32) -> PeerMessage {
    let want = event::Want { role: as_role("default"), priority: 1, shape: cpu(100), count };
    PeerMessage::Demand { wants: if count == 0 { vec![] } else { vec![want] }, seen: 0 }
}

fn accept(offer: OfferId, agent: AgentId, tasks: u32) -> PeerMessage {
    let template = job(Kind::Batch, 1, 100).template;
    let attempts = (0..tasks).map(|index| (index, 1)).collect();
    let job = JobId::new(ShardId(1), 1);
    let launch = Launch { session: 0, sequence: 0, job, title: "t".into(), role: as_role("default"), template, attempts };
    PeerMessage::Accept { offer, agent, launches: vec![launch], number: 1 }
}

fn launched(actions: &[Action]) -> usize {
    let launches = actions.iter().filter_map(|action| match action {
        Action::Send { message: FromMaster::Launch(launch), .. } => Some(launch.attempts.len()),
        _ => None,
    });
    launches.sum()
}

fn refused(actions: &[Action]) -> usize {
    let refusals = actions.iter().filter_map(|action| match action {
        Action::Peer { message: PeerMessage::Refused { attempts, .. }, .. } => Some(attempts.len()),
        _ => None,
    });
    refusals.sum()
}

#[test]
fn accepting_an_offer_twice_launches_once() {
    let (mut shard, agent) = half();
    let offered = offers(&outputs(&mut shard, 1_000, demand(4)));
    assert_eq!(offered.iter().map(|offer| offer.resources.cpu_milli).collect::<Vec<_>>(), [400]);
    let first = outputs(&mut shard, 1_001, accept(offered[0].id, agent, 3));
    assert_eq!((launched(&first), refused(&first)), (3, 0));
    let second = outputs(&mut shard, 1_002, accept(offered[0].id, agent, 3));
    assert_eq!((launched(&second), refused(&second)), (0, 3));
}

#[test]
fn more_than_was_offered_is_refused() {
    let (mut shard, agent) = half();
    let offered = offers(&outputs(&mut shard, 1_000, demand(2)));
    let answer = outputs(&mut shard, 1_001, accept(offered[0].id, agent, 3));
    assert_eq!((launched(&answer), refused(&answer)), (0, 3));
}

#[test]
fn an_offer_ends_with_its_deadline_and_is_made_again() {
    let (mut shard, agent) = half();
    let first = offers(&outputs(&mut shard, 1_000, demand(10)))[0].clone();
    assert_eq!(first.resources, cpu(1_000));
    // The other shard is told what roles hold here.
    shard.handle(Time(1_100), Event::Tick);
    while shard.poll_output().is_some() {}
    assert_eq!(shard.poll_timeout(), Some(Time(1_000) + ShardConfig::default().unreachable_ms));
    let beat = |shard: &mut Shard, at: u64| {
        let message = FromAgent::Beat { session: 1_000, sent: Time(0), held: 0, held_hash: 0 };
        shard.handle(Time(at), Event::Agent { agent, message });
    };
    (1..=20).for_each(|beats| beat(&mut shard, 1_000 + beats * 250));
    let again = std::iter::from_fn(|| shard.poll_output()).filter_map(|output| match output {
        Output::Now(action) => Some(action),
        _ => None,
    });
    let again = offers(&again.collect::<Vec<_>>());
    assert_eq!(again.len(), 1);
    let late = outputs(&mut shard, 6_001, accept(first.id, agent, 1));
    assert_eq!((launched(&late), refused(&late)), (0, 1));
}

#[test]
fn what_is_declined_is_offered_to_the_next() {
    let (mut shard, _) = half();
    let offered = offers(&outputs(&mut shard, 1_000, demand(10)));
    assert!(offers(&outputs(&mut shard, 1_001, demand(0))).is_empty());
    let own = Event::Peer { from: ShardId(0), message: demand(10) };
    shard.handle(Time(1_002), own);
    assert!(std::iter::from_fn(|| shard.poll_output()).all(|output| !matches!(output, Output::Now(Action::Send { .. }))));
    let next = outputs(&mut shard, 1_003, PeerMessage::Decline { offers: vec![offered[0].id] });
    let to_self = next.iter().any(|action| matches!(action, Action::Peer { to: ShardId(0), message: PeerMessage::Offers { .. } }));
    assert!(to_self);
}

#[test]
fn explain_counts_reasons_and_says_the_smallest_change() {
    let mut world = World::new();
    world.register(A, Resources { memory_bytes: 100, ..cpu(1_000) }, 1);
    world.register(B, Resources { memory_bytes: 900, ..cpu(3_000) }, 1);
    let shape = |world: &mut World, cpu_milli, memory_bytes| -> ShapeView {
        let shape = Resources { memory_bytes, ..cpu(cpu_milli) };
        match world.ask(Request::View(View::ExplainShape { role: as_role("default"), shape })) {
            Response::Viewed(viewed) => match *viewed {
                Viewed::Shape(view) => view,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    };
    let view = shape(&mut world, 4_000, 500);
    assert_eq!((view.agents, view.fitting, view.would_fit_empty), (2, 0, 0));
    assert_eq!(view.short, BTreeMap::from([("cpu".into(), 2), ("memory".into(), 1)]));
    assert_eq!(view.change, "cpu 3000 milli instead of 4000 would fit on agent agent-2 now");
    assert_eq!(shape(&mut world, 2_000, 500).change, "");
    let (first, second) = (world.submit(job(Kind::Batch, 9, 9_000)), world.submit(job(Kind::Batch, 2, 8_000)));
    let explain = Request::View(View::Explain { job: JobRef::Id(second), index: Some(1) });
    let Response::Viewed(viewed) = world.ask(explain) else { panic!() };
    let Viewed::Explain(view) = *viewed else { panic!() };
    assert_eq!((view.waiting, view.ahead, view.task.map(|task| task.phase)), (2, 9, Some(Phase::Waiting)));
    assert_eq!(world.count(first, Phase::Waiting), 9);
}

/// Some shards and one agent that ends at once what it is given; whatever they say to each other is handed over in order.
struct Cluster {
    shards: Vec<Shard>,
    agent: AgentId,
    ended: Vec<JobId>,
    launched: Vec<AttemptId>,
}

impl Cluster {
    fn drain(&mut self) {
        loop {
            let outputs = self.shards.iter_mut().map(|shard| std::iter::from_fn(|| shard.poll_output()).collect::<Vec<_>>());
            let outputs: Vec<Vec<Output>> = outputs.collect();
            if outputs.iter().all(Vec::is_empty) {
                return;
            }
            for (from, outputs) in outputs.into_iter().enumerate() {
                outputs.into_iter().for_each(|output| self.act(ShardId(from as u16), output));
            }
        }
    }

    fn act(&mut self, from: ShardId, output: Output) {
        let (Output::Held(action) | Output::Now(action)) = output else { return };
        match action {
            Action::Peer { to, message } => self.shards[usize::from(to.0)].handle(Time(1_000), Event::Peer { from, message }),
            Action::Send { message: FromMaster::Launch(launch), agent } => {
                let attempts = launch.attempts.iter().map(|(index, number)| AttemptId::new(launch.job, *index, *number));
                let attempts: Vec<AttemptId> = attempts.collect();
                let state = TaskState::Ended { exit: Exit::Code(0), usage: Usage::default() };
                let updates = attempts.iter().map(|attempt| Update { attempt: *attempt, state: state.clone() }).collect();
                self.launched.extend(attempts);
                let shard = &mut self.shards[usize::from(launch.job.shard().0)];
                shard.handle(Time(1_000), Event::Agent { agent, message: FromAgent::Status { updates } });
            }
            Action::Reply { response: Response::Ended(view), .. } => self.ended.push(view.id),
            _ => {}
        }
    }
}

#[test]
fn jobs_of_all_shards_run_on_the_agent_of_one() {
    let config = |id| ShardConfig { id: ShardId(id), shards: 3, ..ShardConfig::default() };
    let shards = (0..3).map(|id| Shard::new(config(id))).collect();
    let mut cluster = Cluster { shards, agent: A, ended: vec![], launched: vec![] };
    let agent = cluster.agent;
    for shard in &mut cluster.shards {
        shard.lead(Time(1_000));
    }
    let own = usize::from(shard_of_agent(agent, 3).0);
    let info = AgentInfo { name: "a".into(), capacity: cpu(1_000), ..AgentInfo::default() };
    cluster.shards[own].handle(Time(1_000), Event::Agent { agent, message: FromAgent::Register { info, incarnation: 1, number: 1 } });
    cluster.shards[own].handle(Time(1_000), Event::Agent { agent, message: FromAgent::Report { session: 0, held: vec![], last: true } });
    cluster.drain();
    for (at, shard) in cluster.shards.iter_mut().enumerate() {
        let request = Request::Submit { job: job(Kind::Batch, 100, 70), key: None, follow: true };
        shard.handle(Time(1_000), Event::Request { id: RequestId(at as u64), request });
    }
    cluster.drain();
    assert_eq!(cluster.ended.len(), 3);
    cluster.launched.sort_unstable();
    cluster.launched.dedup();
    assert_eq!(cluster.launched.len(), 300, "each once");
    let pool = &cluster.shards[own].pool;
    assert!(pool.offers.is_empty() && pool.wants.iter().all(Option::is_none));
    assert!(pool.seat(agent).unwrap().1.booked.is_none() && pool.seat(agent).unwrap().1.hash == 0);
}
