//! What shards led by different masters say to each other: it crosses on its way, is lost with a connection, and said again.

use super::*;
use crate::shard::roles::Claim;
use protocol::job::FENCE_VARIABLE;
use protocol::message::shard_of_agent;
use protocol::{Offer, OfferId, Role};

const OTHER: ShardId = ShardId(1);

fn shard_of_two() -> Shard {
    let mut shard = Shard::new(ShardConfig { shards: 2, ..ShardConfig::default() });
    shard.lead(Time(1_000));
    outputs(&mut shard);
    shard
}

fn agent_of(owner: ShardId) -> AgentId {
    (1..).map(AgentId).find(|agent| shard_of_agent(*agent, 2) == owner).unwrap()
}

fn outputs(shard: &mut Shard) -> Vec<Output> {
    std::iter::from_fn(|| shard.poll_output()).collect()
}

fn said(shard: &mut Shard, now: u64, message: PeerMessage) -> Vec<Output> {
    shard.handle(Time(now), Event::Peer { from: OTHER, message });
    outputs(shard)
}

/// Makes a task waiting, and offers room for it on an agent of the other shard.
fn offered(shard: &mut Shard, now: u64, job: Job, agent: AgentId, incarnation: u64) -> Vec<Output> {
    let request = Request::Submit { job, key: None, follow: false };
    shard.handle(Time(now), Event::Request { id: RequestId(now), request });
    outputs(shard);
    let id = OfferId { shard: OTHER, number: now };
    let (role, resources, deadline) = (as_role("default"), cpu(100), Time(now + 5_000));
    said(shard, now, PeerMessage::Offers { offers: vec![Offer { id, agent, incarnation, role, resources, deadline }] })
}

fn fenced() -> Job {
    let mut job = Job { name: Some(name("one")), ..job(Kind::Service, 1, 100) };
    Arc::make_mut(&mut job.template).members[0].env = vec![(FENCE_VARIABLE.into(), String::new())];
    job
}

/// How many attempts are to be launched by what is said again.
fn staged_again(outputs: &[Output]) -> usize {
    let launches = |output: &Output| match output {
        Output::Held(Action::Peer { message: PeerMessage::Stage { launches, .. }, .. }) => launches.len(),
        _ => 0,
    };
    outputs.iter().map(launches).sum()
}

fn ends(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::Journal(Record::Ended { .. }))).count()
}

/// The number of the `Accept` or `Stage` among these.
fn number(outputs: &[Output]) -> u64 {
    let number = |output: &Output| match output {
        Output::Held(Action::Peer { message: PeerMessage::Accept { number, .. } | PeerMessage::Stage { number, .. }, .. }) => Some(*number),
        _ => None,
    };
    outputs.iter().find_map(number).expect("something is to run there")
}

#[test]
fn a_report_that_crosses_a_launch_says_nothing_of_it_nor_does_its_refusal() {
    let (mut shard, agent) = (shard_of_two(), agent_of(OTHER));
    let accepted = number(&offered(&mut shard, 1_000, job(Kind::Batch, 1, 100), agent, 1));
    let report = |seen| PeerMessage::Report { agent, session: 1, incarnation: 1, held: vec![], seen };
    let mut last = accepted;
    for seen in [0, 0, accepted] {
        let outputs = said(&mut shard, 1_000, report(seen));
        assert_eq!(ends(&outputs), 0, "a report of what was heard up to {seen} ended what was said with {last}");
        last = number(&outputs);
    }
    let attempts = vec![AttemptId::new(JobId::new(ShardId(0), 1), 0, 1)];
    assert_eq!(ends(&said(&mut shard, 1_000, PeerMessage::Refused { agent, attempts })), 0, "it was said again since");
    assert_eq!(ends(&said(&mut shard, 1_000, report(last))), 1);
}

#[test]
fn a_fenced_attempt_that_is_held_to_be_lost_is_not_said_again() {
    let (mut shard, agent) = (shard_of_two(), agent_of(OTHER));
    offered(&mut shard, 1_000, fenced(), agent, 1);
    let report = |seen| PeerMessage::Report { agent, session: 1, incarnation: 1, held: vec![], seen };
    let again = said(&mut shard, 1_000, report(0));
    assert_eq!(staged_again(&again), 1, "its launch may be lost");
    let lost = said(&mut shard, 1_000, report(number(&again)));
    assert_eq!((ends(&lost), staged_again(&lost)), (0, 0), "it was launched and is not there: lost, once its lease is over");
    let crossed = said(&mut shard, 2_000, report(0));
    assert_eq!((ends(&crossed), staged_again(&crossed)), (0, 0), "launched now, it would run beside its replacement");
    shard.handle(Time(7_100), Event::Tick);
    assert_eq!(ends(&outputs(&mut shard)), 1);
}

#[test]
fn a_report_ends_nothing_that_a_reborn_agent_was_given_while_it_may_run_what_it_was_given_before() {
    let (mut shard, agent) = (shard_of_two(), agent_of(OTHER));
    let accepted = number(&offered(&mut shard, 1_000, fenced(), agent, 1));
    let report = |seen| PeerMessage::Report { agent, session: 2, incarnation: 2, held: vec![], seen };
    assert_eq!(ends(&said(&mut shard, 1_000, report(accepted))), 0, "it may run on until its lease is over");
    offered(&mut shard, 1_001, job(Kind::Batch, 1, 100), agent, 2);
    assert_eq!(ends(&said(&mut shard, 1_001, report(accepted))), 0, "whoever reports has not heard of the second task");
    shard.handle(Time(7_100), Event::Tick);
    assert_eq!(ends(&outputs(&mut shard)), 1);
    number(&offered(&mut shard, 7_101, job(Kind::Batch, 1, 100), agent, 2));
}

#[test]
fn a_shard_that_begins_to_lead_or_was_out_of_hearing_is_told_again_who_is_lost() {
    let (mut shard, agent) = (shard_of_two(), agent_of(ShardId(0)));
    let info = AgentInfo { name: "a".into(), capacity: cpu(1_000), ..AgentInfo::default() };
    shard.handle(Time(1_000), Event::Agent { agent, message: FromAgent::Register { info, incarnation: 1, number: 1 } });
    let lost = |gone| PeerMessage::Lost { agent, gone };
    let tells = |outputs: &[Output], gone: bool| {
        let told = |action: &Action| matches!(action, Action::Peer { to: OTHER, message } if *message == lost(gone));
        let at_once = outputs.iter().filter(|output| matches!(output, Output::Now(action) if told(action))).count();
        let held = outputs.iter().filter(|output| matches!(output, Output::Held(action) if told(action))).count();
        (at_once, held)
    };
    assert_eq!(tells(&said(&mut shard, 1_000, PeerMessage::Led), false), (0, 0));
    for now in [40_000, 80_000] {
        shard.handle(Time(now), Event::Tick);
    }
    outputs(&mut shard);
    assert_eq!(tells(&said(&mut shard, 80_000, PeerMessage::Led), false), (1, 0));
    // That an agent is gone for good is on record: nobody hears of it before that is committed.
    shard.handle(Time(80_000), Event::Request { id: RequestId(1), request: Request::Gone { agent } });
    let outputs = outputs(&mut shard);
    assert_eq!(tells(&outputs, true), (0, 1));
    let outputs = said(&mut shard, 80_000, PeerMessage::Led);
    assert_eq!((tells(&outputs, true), tells(&outputs, false)), ((0, 1), (0, 0)));
    shard.lead(Time(90_000));
    assert_eq!(tells(&std::iter::from_fn(|| shard.poll_output()).collect::<Vec<_>>(), true), (0, 1));
}

fn tell(shard: &mut Shard, now: u64, agent: AgentId, message: FromAgent) -> Vec<Output> {
    shard.handle(Time(now), Event::Agent { agent, message });
    outputs(shard)
}

/// An agent is here since 2 s, and holds nothing; its session.
fn registered(shard: &mut Shard, agent: AgentId, capacity: Resources) -> u64 {
    let info = AgentInfo { name: "a".into(), capacity, ..AgentInfo::default() };
    let registered = tell(shard, 2_000, agent, FromAgent::Register { info, incarnation: 1, number: 1 });
    tell(shard, 2_001, agent, FromAgent::Report { session: 0, held: vec![], last: true });
    let session = registered.iter().find_map(|output| match output {
        Output::Held(Action::Send { message: FromMaster::Registered { session, .. }, .. }) => Some(*session),
        _ => None,
    });
    session.unwrap()
}

#[test]
fn a_roles_share_counts_what_it_holds_on_the_agents_of_other_shards() {
    let (mut shard, agent) = (shard_of_two(), agent_of(ShardId(0)));
    let session = registered(&mut shard, agent, cpu(1_000));
    let used = |roles: &[(&str, u64)]| {
        let roles = roles.iter().map(|(role, milli)| (as_role(role), cpu(*milli))).collect();
        PeerMessage::Uses(Uses { total: cpu(9_000), roles })
    };
    said(&mut shard, 2_002, used(&[("default", 1_000), ("web", 5_000)]));
    said(&mut shard, 2_003, used(&[("default", 5_000)]));
    let want = |role: &str| event::Want { role: as_role(role), priority: 50, shape: cpu(1_000), count: 1 };
    said(&mut shard, 2_004, PeerMessage::Demand { wants: vec![want("default"), want("web")], seen: 0 });
    // A shard has not said what it holds to be on the agent: after some beats it is not waited for.
    let all = (0..4).flat_map(|n| {
        let beat = FromAgent::Beat { session, sent: Time(2_100 + n), held: 0, held_hash: 0 };
        tell(&mut shard, 2_100 + n, agent, beat)
    });
    let all: Vec<Output> = all.collect();
    let sayings = all.iter().filter(|output| matches!(output, Output::Now(Action::Peer { message: PeerMessage::Uses(_), .. }))).count();
    let offered: Vec<Role> = all
        .into_iter()
        .filter_map(|output| match output {
            Output::Now(Action::Peer { to: OTHER, message: PeerMessage::Offers { offers } }) => Some(offers),
            _ => None,
        })
        .flatten()
        .map(|offer| offer.role)
        .collect();
    assert_eq!(offered, [as_role("web")], "the other role holds half of the cluster elsewhere");
    assert_eq!(sayings, 1, "what is held here is said, not more often than each tenth of a second");
}

#[test]
fn what_is_kept_for_a_guarantee_does_not_shrink_here_while_it_is_held_elsewhere() {
    let (mut shard, agent) = (shard_of_two(), agent_of(ShardId(0)));
    let session = registered(&mut shard, agent, cpu(4_000));
    let claim = |name: &str, milli| (as_role(name), Claim { guarantee: cpu(milli), ..Claim::default() });
    shard.pool.claim([claim("vip", 2_000), claim("vip/a", 1_000)].into());
    let mut kept = |now: u64, roles: &[(&str, u64)]| {
        let roles = roles.iter().map(|(role, milli)| (as_role(role), cpu(*milli))).collect();
        said(&mut shard, now, PeerMessage::Uses(Uses { total: cpu(4_000), roles }));
        let want = event::Want { role: as_role("web"), priority: 50, shape: cpu(100), count: 40 };
        said(&mut shard, now, PeerMessage::Demand { wants: vec![want], seen: 0 });
        for n in 0..4 {
            tell(&mut shard, now + n, agent, FromAgent::Beat { session, sent: Time(now + n), held: 0, held_hash: 0 });
        }
        shard.pool.total.cpu_milli - shard.pool.seats[0].offered.cpu_milli
    };
    assert_eq!(kept(3_000, &[]), 1_000, "half of it, as half of all is here");
    assert_eq!(kept(4_000, &[("vip", 500), ("vip/a", 500)]), 1_000, "the other half is elsewhere");
    assert_eq!(kept(5_000, &[("vip/a", 1_600)]), 400, "the rest is here");
}
