//! What shards led by different masters say to each other: it crosses on its way, is lost with a connection, and said again.

use super::*;
use protocol::message::shard_of_agent;
use protocol::{Offer, OfferId};

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
    let request = Request::Submit { job: job(Kind::Batch, 1, 100), key: None, follow: false };
    shard.handle(Time(1_000), Event::Request { id: RequestId(1), request });
    outputs(&mut shard);
    let offer = Offer {
        id: OfferId { shard: OTHER, number: 1 },
        agent,
        incarnation: 1,
        role: name("default"),
        resources: cpu(100),
        deadline: Time(9_000),
    };
    let accepted = number(&said(&mut shard, 1_000, PeerMessage::Offers { offers: vec![offer] }));
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
