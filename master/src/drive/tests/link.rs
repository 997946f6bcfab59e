//! Who is let in, and what the link gives them.

use super::script::{Script, token};
use super::{Scratch, config, start};
use crate::shard::Concern;
use protocol::identity::{JoinToken, csr};
use protocol::link::{self, CloseCode, LinkError};
use protocol::message::{BulkReply, BulkRequest, JoinReply, ToAgent, ToShard, shard_of_agent};
use protocol::{AttemptId, Digest, FromAgent, FromMaster, JobId, ShardId};
use std::fs;
use std::time::Duration;

#[tokio::test]
async fn a_join_token_lets_one_machine_in_once() {
    let dir = Scratch::new();
    let master = start(config(&dir.0)).await.unwrap();
    let token = token(&master).await;
    let address = master.quic_addr();
    let join = async |token: JoinToken| {
        let (_, csr) = csr().unwrap();
        link::join(address, &token, csr).await.unwrap()
    };
    let forged = JoinToken { secret: "0".repeat(token.secret.len()), ..token.clone() };
    assert!(matches!(join(forged).await, JoinReply::Refused { .. }));
    let garbage = link::join(master.quic_addr(), &token, vec![7; 100]).await.unwrap();
    assert!(matches!(garbage, JoinReply::Refused { .. }));
    assert!(matches!(join(token.clone()).await, JoinReply::Welcome { shards: 2, .. }));
    assert!(matches!(join(token).await, JoinReply::Refused { .. }));
}

#[tokio::test]
async fn an_agent_renews_its_certificate_and_stays_who_it_is() {
    let dir = Scratch::new();
    let master = start(config(&dir.0)).await.unwrap();
    let script = Script::join(&master).await;
    let (_, csr) = csr().unwrap();
    match link::renew(master.quic_addr(), &script.identity, csr).await.unwrap() {
        JoinReply::Welcome { agent, .. } => assert_eq!(agent, script.id),
        refused => panic!("{refused:?}"),
    }
    master.shutdown().await;
}

#[tokio::test]
async fn the_newer_of_two_connections_of_an_agent_wins() {
    let dir = Scratch::new();
    let master = start(config(&dir.0)).await.unwrap();
    let script = Script::join(&master).await;
    let (older, _older_sender, _older_receiver) = script.connect().await;
    let (_newer, mut sender, mut receiver) = script.connect().await;
    assert!(matches!(older.closed().await, LinkError::Closed { code: CloseCode::Replaced, .. }));
    for message in script.register() {
        sender.queue(&message).unwrap();
    }
    sender.flush().await.unwrap();
    // Said first: which shards this master leads, where all masters are, and that it takes pulses.
    let mut said = Vec::new();
    while !matches!(said.last(), Some(FromMaster::Registered { .. })) {
        said.push(receiver.next::<ToAgent>().await.unwrap().unwrap().message);
    }
    let first = matches!(
        &said[..4],
        [FromMaster::Leading { .. }, FromMaster::Leading { .. }, FromMaster::Masters { .. }, FromMaster::Pulses { .. }]
    );
    assert!(first, "{said:?}");
    assert!(master.door().agent_connection(script.id).is_some());
    master.shutdown().await;
}

#[tokio::test]
async fn an_agent_is_told_who_leads_a_shard_before_that_says_anything_and_in_any_case() {
    let dir = Scratch::new();
    let master = start(config(&dir.0)).await.unwrap();
    let script = Script::join(&master).await;
    let (_connection, _sender, mut receiver) = script.connect().await;
    let mut next = async || receiver.next::<ToAgent>().await.unwrap().unwrap();
    while !matches!(next().await.message, FromMaster::Pulses { .. }) {}
    let agents = master.door().agents();
    let agent = agents.find(script.id).unwrap();
    let leading = |shard, term| ToAgent { shard: ShardId(shard), message: FromMaster::Leading { term } };
    let ack = || FromMaster::Ack { attempts: vec![] };

    agents.tell_leading(ShardId(0), 7, |_| Concern::None);
    agents.tell_leading(ShardId(1), 8, |_| Concern::Own);
    agent.queue(ShardId(0), ack());
    agent.wake();
    let expected = [leading(1, 8), leading(0, 7), ToAgent { shard: ShardId(0), message: ack() }];
    for expected in expected {
        assert_eq!(next().await, expected);
    }
    // A task is given to it, by way of another shard.
    agents.tell_leading(ShardId(0), 9, |_| Concern::None);
    agents.tell_untold(script.id, ShardId(0)).unwrap().wake();
    assert_eq!(next().await, leading(0, 9));
    assert!(agents.tell_untold(script.id, ShardId(0)).is_none(), "it was told");
    // Nothing happens.
    agents.tell_leading(ShardId(0), 10, |_| Concern::Tasks);
    assert_eq!(next().await, leading(0, 10));
    agents.tell_leading(ShardId(0), 11, |_| Concern::None);
    assert_eq!(next().await, leading(0, 11));
    master.shutdown().await;
}

#[tokio::test]
async fn an_agent_is_told_that_another_master_leads_its_shard_at_once_and_with_the_next_connection() {
    let dir = Scratch::new();
    let master = start(config(&dir.0)).await.unwrap();
    let script = Script::join(&master).await;
    let own = shard_of_agent(script.id, master.door().shards());
    let (_connection, _sender, mut receiver) = script.connect().await;
    while !matches!(receiver.next::<ToAgent>().await.unwrap().unwrap().message, FromMaster::Pulses { .. }) {}
    let elsewhere = ToAgent { shard: own, message: FromMaster::LedElsewhere { term: 1_000, leader: None } };
    master.door().led(own, 9, 1_000);
    assert_eq!(receiver.next::<ToAgent>().await.unwrap().unwrap(), elsewhere);
    let (_connection, _sender, mut receiver) = script.connect().await;
    while receiver.next::<ToAgent>().await.unwrap().unwrap() != elsewhere {}
    while !matches!(receiver.next::<ToAgent>().await.unwrap().unwrap().message, FromMaster::Pulses { .. }) {}
    // Whoever leads it before all have heard that another does, does not say so any more.
    master.door().led(own, 8, 1_001);
    master.door().led(own, master.door().routes().member(), 1_002);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let agent = master.door().agents().find(script.id).unwrap();
    agent.queue(own, FromMaster::Ack { attempts: vec![] });
    agent.wake();
    assert!(matches!(receiver.next::<ToAgent>().await.unwrap().unwrap().message, FromMaster::Ack { .. }));
    master.shutdown().await;
}

#[tokio::test]
async fn what_an_agent_may_not_say_ends_its_connection_and_nothing_else() {
    let dir = Scratch::new();
    let master = start(config(&dir.0)).await.unwrap();
    let script = Script::join(&master).await;
    let (connection, mut sender, _receiver) = script.connect().await;
    sender.send(&ToShard { shard: ShardId(2), message: FromAgent::Leaving }).await.unwrap();
    assert!(matches!(connection.closed().await, LinkError::Closed { code: CloseCode::Misbehaved, .. }));
    let (connection, mut sender, _receiver) = script.connect().await;
    sender.send(&"no message").await.unwrap();
    assert!(matches!(connection.closed().await, LinkError::Closed { code: CloseCode::Misbehaved, .. }));
    script.connect().await;
    master.shutdown().await;
}

#[tokio::test]
async fn agents_fetch_bundles_by_digest_from_any_byte() {
    let dir = Scratch::new();
    let master = start(config(&dir.0)).await.unwrap();
    let script = Script::join(&master).await;
    let (connection, _sender, _receiver) = script.connect().await;
    let bytes: Vec<u8> = (0..700_000_u32).map(|n| (n % 251) as u8).collect();
    let bundle = Digest::of(&bytes);
    fs::write(dir.0.join("bundles").join(bundle.to_string()), &bytes).unwrap();
    for offset in [0, 1, 699_999, 700_000] {
        let (mut sender, mut receiver) = connection.open_bulk().await.unwrap();
        sender.send(&BulkRequest::Bundle { bundle, offset }).await.unwrap();
        let mut got = bytes[..offset as usize].to_vec();
        loop {
            match receiver.next::<BulkReply>().await.unwrap().unwrap() {
                BulkReply::Chunk { offset, bytes } => {
                    assert_eq!(offset, got.len() as u64);
                    got.extend_from_slice(&bytes);
                }
                BulkReply::End => break,
                BulkReply::Failed { reason } => panic!("{reason}"),
            }
        }
        assert!(got == bytes, "from {offset}");
    }
    let unknown = BulkRequest::Bundle { bundle: Digest::of(b"unknown"), offset: 0 };
    let log = BulkRequest::Log { member: protocol::MemberId::first(AttemptId::new(JobId(1), 0, 1)), offset: 0, follow: true };
    for request in [unknown, log] {
        let (mut sender, mut receiver) = connection.open_bulk().await.unwrap();
        sender.send(&request).await.unwrap();
        assert!(matches!(receiver.next::<BulkReply>().await.unwrap(), Some(BulkReply::Failed { .. })));
    }
    master.shutdown().await;
}
