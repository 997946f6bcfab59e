//! Who gets in.

use super::*;
use crate::Digest;
use crate::identity::certificate::now_s;
use crate::identity::{JoinToken, Subject};
use crate::link::client::connect_as;
use crate::link::tls::Trust;
use crate::message::{Join, JoinReply};
use std::sync::Arc;

/// What a connection ends with that looked open to the agent: it learns last what the master thinks of its certificate.
async fn end_of(connected: Result<Connection, LinkError>) -> LinkError {
    match connected {
        Ok(connection) => connection.closed().await,
        Err(error) => error,
    }
}

/// `identity` tries `alpn`; what the master says and what the agent sees.
async fn attempt(cluster: &Cluster, trust: &Trust<'_>, alpn: &[u8]) -> (Result<Who, LinkError>, Result<Connection, LinkError>) {
    let (connected, admitted) = tokio::join!(connect_as(cluster.address(), trust, alpn), cluster.admit());
    (admitted.map(|(who, _)| who), connected)
}

#[tokio::test]
async fn both_sides_know_each_other() {
    let cluster = Cluster::new();
    let (agent, master) = cluster.pair().await;
    assert_eq!((agent.who(), master.who()), (Who::Master(1), Who::Agent(AgentId(7))));
    assert_eq!(agent.remote(), cluster.address());
}

#[tokio::test]
async fn an_agent_of_another_cluster_is_not_let_in() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let stranger = other.agent(7);
    // It is taught to take this master for its own, so that only the master's judgement is left.
    let mut chain = stranger.chain_der().to_vec();
    chain[2] = cluster.authority.root_der().to_vec();
    assert!(Identity::new(chain, stranger.key_pkcs8_der().to_vec()).is_err());
    for alpn in [ALPN, ALPN_JOIN] {
        let (admitted, connected) = attempt(&cluster, &Trust::Known(&stranger), alpn).await;
        assert!(matches!(admitted, Err(LinkError::Handshake { .. })), "{admitted:?}");
        assert!(matches!(connected, Err(LinkError::Handshake { .. })));
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_by_the_master_itself() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let foreign = other.agent(7);
    let trust = Trust::Mixed { shown: Some((&foreign, 2)), root_der: cluster.authority.root_der() };
    let (admitted, connected) = attempt(&cluster, &trust, ALPN).await;
    assert!(matches!(admitted, Err(LinkError::Handshake { .. })), "{admitted:?}");
    let end = end_of(connected).await;
    assert!(matches!(end, LinkError::Closed { code: CloseCode::NotAllowed, .. }), "{end}");
}

#[tokio::test]
async fn a_chain_is_as_long_as_it_must_be() {
    let cluster = Cluster::new();
    let agent = cluster.agent(7);
    // The master knows the intermediate that it signs with.
    for (above, is_right) in [(0, true), (1, true), (2, true), (3, true), (4, false), (30, false), (2_000, false)] {
        let trust = Trust::Mixed { shown: Some((&agent, above)), root_der: cluster.authority.root_der() };
        let (admitted, connected) = attempt(&cluster, &trust, ALPN).await;
        assert_eq!(admitted.is_ok(), is_right, "{above} certificates above: {admitted:?}");
        if !is_right {
            assert!(matches!(end_of(connected).await, LinkError::Closed { .. } | LinkError::Lost { .. } | LinkError::Handshake { .. }));
        }
    }
}

#[tokio::test]
async fn a_certificate_that_the_master_has_itself_is_not_shown_to_it() {
    let cluster = Cluster::new();
    let (_agent, admitted) = cluster.pair().await;
    assert_eq!(admitted.shown(), 1, "it signs with the intermediate's key");
    // A cluster whose intermediate was replaced, and an agent that has its certificate from before.
    let agent = cluster.agent(8);
    let authority = cluster.folder.authority_with_new_intermediate();
    let master = authority.issue_master(1, &[], MASTER_LIFETIME).unwrap();
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), &master, &authority.reset_key(1), Limits::default()).unwrap();
    let (_connected, admitted) =
        tokio::join!(connect(listener.address(), &agent), async { listener.accept().await.unwrap().admit().await });
    let (who, admitted) = admitted.unwrap();
    assert_eq!((who, admitted.shown()), (Who::Agent(AgentId(8)), 2));
}

#[tokio::test]
async fn a_masters_certificate_does_not_make_an_agent() {
    let cluster = Cluster::new();
    let master = cluster.authority.issue_master(1, &[], MASTER_LIFETIME).unwrap();
    for alpn in [ALPN, ALPN_JOIN] {
        let (admitted, connected) = attempt(&cluster, &Trust::Known(&master), alpn).await;
        assert!(matches!(admitted, Err(LinkError::NotAllowed { .. })), "{admitted:?}");
        assert!(matches!(end_of(connected).await, LinkError::Closed { code: CloseCode::NotAllowed, .. }));
    }
    let (admitted, connected) = attempt(&cluster, &Trust::Known(&master), ALPN_PEER).await;
    assert!(matches!(admitted, Ok(Who::Master(1))) && connected.is_ok(), "masters are for each other");
}

#[tokio::test]
async fn an_agents_certificate_does_not_make_a_master() {
    let cluster = Cluster::new();
    let (admitted, connected) = attempt(&cluster, &Trust::Known(&cluster.agent(9)), ALPN_PEER).await;
    assert!(matches!(admitted, Err(LinkError::NotAllowed { .. })), "{admitted:?}");
    assert!(matches!(end_of(connected).await, LinkError::Closed { code: CloseCode::NotAllowed, .. }));
    let (impostor, agent) = (cluster.agent(8), cluster.agent(7));
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), &impostor, &ResetKey::new([7; 32]), Limits::default()).unwrap();
    let admit = async { listener.accept().await.unwrap().admit().await };
    let (connected, admitted) = tokio::join!(connect(listener.address(), &agent), admit);
    assert!(matches!(connected, Err(LinkError::Handshake { .. })) && admitted.is_err());
}

#[tokio::test]
async fn nobody_without_a_certificate_gets_further_than_joining() {
    let cluster = Cluster::new();
    let trust = Trust::Mixed { shown: None, root_der: cluster.authority.root_der() };
    let (admitted, connected) = attempt(&cluster, &trust, ALPN).await;
    assert!(matches!(admitted, Err(LinkError::NotAllowed { .. })), "{admitted:?}");
    assert!(matches!(end_of(connected).await, LinkError::Closed { code: CloseCode::NotAllowed, .. }));
    let trust = Trust::Pinned(cluster.authority.root_digest());
    let (admitted, connected) = attempt(&cluster, &trust, ALPN).await;
    assert!(admitted.is_err() && connected.is_err(), "the root is shown to those that join");
    let (admitted, _) = attempt(&cluster, &trust, ALPN_JOIN).await;
    assert_eq!(admitted.unwrap(), Who::Stranger);
}

#[tokio::test]
async fn another_protocol_is_not_spoken() {
    let cluster = Cluster::new();
    let agent = cluster.agent(7);
    for alpn in [&b"skep/4"[..], b"skep/1", b"h3", b"skep/1\0", b"SKEP/1"] {
        let (admitted, connected) = attempt(&cluster, &Trust::Known(&agent), alpn).await;
        assert!(matches!(admitted, Err(LinkError::Handshake { .. })), "{admitted:?}");
        assert!(connected.is_err());
    }
}

#[tokio::test]
async fn both_ends_speak_the_newest_version_that_both_know() {
    let cluster = Cluster::new();
    let (agent, master) = (cluster.agent(7), cluster.authority.issue_master(2, &[], MASTER_LIFETIME).unwrap());
    let cases = [(&agent, ALPN, 3), (&agent, ALPN_FORMER, 2), (&master, ALPN_PEER, 3), (&master, ALPN_PEER_FORMER, 2)];
    for (identity, alpn, version) in cases {
        let trust = Trust::Known(identity);
        let (connected, admitted) = tokio::join!(connect_as(cluster.address(), &trust, alpn), cluster.admit());
        assert_eq!((connected.unwrap().version(), admitted.unwrap().1.version()), (version, version), "{alpn:?}");
    }
}

#[tokio::test]
async fn an_expired_certificate_may_only_be_renewed() {
    let cluster = Cluster::new();
    let now = now_s();
    let expired = cluster.agent_for(7, Span { from_s: now - 120, until_s: now - 60 });
    assert!(expired.is_due() && expired.lifetime_left().is_zero());
    let (admitted, connected) = attempt(&cluster, &Trust::Known(&expired), ALPN).await;
    assert!(matches!(admitted, Err(LinkError::NotAllowed { .. })), "{admitted:?}");
    assert!(matches!(end_of(connected).await, LinkError::Closed { code: CloseCode::NotAllowed, .. }));

    let renewed = answer_join(&cluster, |who, join| match (who, join) {
        (Who::Renewing(agent), Join::Renew { csr_der }) => cluster.authority.issue_agent(agent, &csr_der, AGENT_LIFETIME).ok(),
        _ => None,
    });
    let (key, request) = csr().unwrap();
    let (reply, ()) = tokio::join!(renew(cluster.address(), &expired, request), renewed);
    let JoinReply::Welcome { chain_der, .. } = reply.unwrap() else { panic!("it was refused") };
    let fresh = Identity::new(chain_der, key).unwrap();
    let (admitted, _) = attempt(&cluster, &Trust::Known(&fresh), ALPN).await;
    assert_eq!(admitted.unwrap(), Who::Agent(AgentId(7)));
}

#[tokio::test]
async fn a_clock_may_be_ten_minutes_off() {
    let cluster = Cluster::new();
    let now = now_s();
    let soon = cluster.agent_for(7, Span { from_s: now + 500, until_s: now + 5_000 });
    let (admitted, _) = attempt(&cluster, &Trust::Known(&soon), ALPN).await;
    assert_eq!(admitted.unwrap(), Who::Agent(AgentId(7)));
    for alpn in [ALPN, ALPN_JOIN] {
        let later = cluster.agent_for(7, Span { from_s: now + 1_200, until_s: now + 5_000 });
        let (admitted, connected) = attempt(&cluster, &Trust::Known(&later), alpn).await;
        assert!(matches!(admitted, Err(LinkError::Handshake { .. })), "{admitted:?}");
        assert!(matches!(end_of(connected).await, LinkError::Closed { code: CloseCode::NotAllowed, .. }));
    }
}

#[tokio::test]
async fn a_revoked_agent_may_neither_connect_nor_renew_and_expired_no_more_than_fresh() {
    let cluster = Cluster::new();
    cluster.listener.revoke(AgentId(7));
    let now = now_s();
    let expired = cluster.agent_for(7, Span { from_s: now - 120, until_s: now - 60 });
    for agent in [cluster.agent(7), expired] {
        for alpn in [ALPN, ALPN_JOIN] {
            let (admitted, connected) = attempt(&cluster, &Trust::Known(&agent), alpn).await;
            assert!(matches!(admitted, Err(LinkError::Handshake { .. })), "{admitted:?}");
            let end = end_of(connected).await;
            assert!(matches!(end, LinkError::Closed { code: CloseCode::Revoked, .. }), "{end}");
        }
    }
    let (admitted, _) = attempt(&cluster, &Trust::Known(&cluster.agent(8)), ALPN).await;
    assert_eq!(admitted.unwrap(), Who::Agent(AgentId(8)));
}

#[tokio::test]
async fn revoking_ends_what_the_agent_has_open_and_nothing_else() {
    let cluster = Cluster::new();
    let (agent, master) = cluster.pair().await;
    let other = cluster.agent(8);
    let (other, other_master) = tokio::join!(connect(cluster.address(), &other), cluster.admit());
    let (other, (_, other_master)) = (other.unwrap(), other_master.unwrap());
    cluster.listener.revoke(AgentId(7));
    assert!(matches!(agent.closed().await, LinkError::Closed { code: CloseCode::Revoked, .. }));
    assert!(matches!(master.closed().await, LinkError::ClosedHere));
    let (mut sender, _receiver) = other.open_control().await.unwrap();
    sender.send(&1_u8).await.unwrap();
    let (_, mut receiver) = other_master.accept_control().await.unwrap();
    assert_eq!(receiver.next::<u8>().await.unwrap(), Some(1));
}

#[tokio::test]
async fn an_agent_with_too_many_connections_loses_its_oldest() {
    let cluster = Cluster::new();
    let mut held = Vec::new();
    for _ in 0..admission::CONNECTIONS_PER_AGENT_MAX + 1 {
        held.push(cluster.pair().await);
    }
    let end = held[0].0.closed().await;
    assert!(matches!(end, LinkError::Closed { code: CloseCode::Replaced, .. }), "{end}");
    assert!(held[1..].iter().all(|(agent, _)| agent.close_reason().is_none()));
}

#[tokio::test]
async fn places_of_agents_are_bounded_and_come_back() {
    let cluster = Cluster::with(Limits { connections_max: 1, ..Limits::default() });
    let first = cluster.pair().await;
    let agent = cluster.agent(8);
    let (admitted, connected) = attempt(&cluster, &Trust::Known(&agent), ALPN).await;
    assert!(matches!(admitted, Err(LinkError::NotAllowed { .. })));
    assert!(matches!(end_of(connected).await, LinkError::Closed { code: CloseCode::Full, .. }));
    drop(first);
    let (admitted, _) = attempt(&cluster, &Trust::Known(&agent), ALPN).await;
    assert_eq!(admitted.unwrap(), Who::Agent(AgentId(8)));
}

/// Admits one peer and answers its request for a certificate with what `issue` gives.
async fn answer_join(cluster: &Cluster, issue: impl Fn(Who, Join) -> Option<Vec<Vec<u8>>>) {
    let (who, connection) = cluster.admit().await.unwrap();
    let (mut sender, mut receiver) = connection.accept_control().await.unwrap();
    let join = receiver.next::<Join>().await.unwrap().unwrap();
    let reply = match issue(who, join) {
        Some(chain_der) => JoinReply::Welcome { agent: AgentId(7), chain_der, shards: 8 },
        None => JoinReply::Refused { reason: "no such token".into() },
    };
    sender.send(&reply).await.unwrap();
    sender.finish();
    connection.closed().await;
}

#[tokio::test]
async fn a_token_makes_an_agent_and_a_wrong_secret_does_not() {
    let cluster = Cluster::new();
    let token = JoinToken::draw(cluster.authority.root_digest()).unwrap();
    let answer = |who, join| match (who, join) {
        (Who::Stranger, Join::Token { id, secret, csr_der }) if id == token.id && Digest::of(secret.as_bytes()) == token.secret_hash() => {
            cluster.authority.issue_agent(AgentId(7), &csr_der, AGENT_LIFETIME).ok()
        }
        _ => None,
    };
    let (key, request) = csr().unwrap();
    let (reply, ()) = tokio::join!(join(cluster.address(), &token, request.clone()), answer_join(&cluster, answer));
    let JoinReply::Welcome { chain_der, shards: 8, .. } = reply.unwrap() else { panic!("it was refused") };
    assert_eq!(Identity::new(chain_der, key).unwrap().subject(), Subject::Agent(AgentId(7)));

    let wrong = JoinToken { secret: "0".repeat(32), ..token.clone() };
    let (reply, ()) = tokio::join!(join(cluster.address(), &wrong, request), answer_join(&cluster, answer));
    assert!(matches!(reply.unwrap(), JoinReply::Refused { .. }));
}

#[tokio::test]
async fn a_token_of_another_root_gives_its_secret_to_nobody() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let token = JoinToken::draw(other.authority.root_digest()).unwrap();
    let (_, request) = csr().unwrap();
    let (reply, admitted) = tokio::join!(join(cluster.address(), &token, request), cluster.admit());
    assert!(matches!(reply, Err(LinkError::Handshake { .. })) && admitted.is_err());
}

#[tokio::test]
async fn certificates_of_another_root_are_not_taken_from_a_master() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let token = JoinToken::draw(cluster.authority.root_digest()).unwrap();
    let (_, request) = csr().unwrap();
    let foreign = |_, join| match join {
        Join::Token { csr_der, .. } => other.authority.issue_agent(AgentId(7), &csr_der, AGENT_LIFETIME).ok(),
        Join::Renew { .. } | Join::Master { .. } => None,
    };
    let (reply, ()) = tokio::join!(join(cluster.address(), &token, request), answer_join(&cluster, foreign));
    assert!(matches!(reply, Err(LinkError::NotAllowed { .. })));
}

#[tokio::test]
async fn a_master_shows_its_new_certificate_to_those_who_come_after() {
    let cluster = Cluster::new();
    let (agent, _master) = cluster.pair().await;
    cluster.listener.set_identity(&cluster.authority.issue_master(1, &[], MASTER_LIFETIME).unwrap()).unwrap();
    let _second = cluster.pair().await;
    assert!(agent.close_reason().is_none());
}

#[tokio::test]
async fn a_closed_port_ends_everything_and_accepts_nobody() {
    let cluster = Cluster::new();
    let (agent, master) = cluster.pair().await;
    cluster.listener.close("the end");
    let end = agent.closed().await;
    assert!(matches!(&end, LinkError::Closed { code: CloseCode::Leaving, reason } if reason == "the end"), "{end}");
    drop(master);
    cluster.listener.drained().await;
    assert!(cluster.listener.accept().await.is_none());
}

#[tokio::test]
async fn bytes_that_are_no_quic_leave_the_port_as_it_was() {
    let cluster = Cluster::new();
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut noise = 1_u64;
    for length in (0..1_200).step_by(7).chain([1_199, 1_200, 1_500, 9_000, 65_000]) {
        let mut bytes: Vec<u8> = (0..length)
            .map(|_| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (noise >> 56) as u8
            })
            .collect();
        // Every other one looks like a first packet of QUIC version 1 (RFC 9000 section 17.2).
        if length % 2 == 0 && length > 5 {
            bytes[..5].copy_from_slice(&[0xc0, 0, 0, 0, 1]);
        }
        socket.send_to(&bytes, cluster.address()).await.unwrap();
    }
    // What looked like a first packet comes up as a peer; the real one among them is let in.
    let agent = cluster.agent(7);
    let connecting = connect(cluster.address(), &agent);
    let admitting = async {
        loop {
            if let Ok((who, connection)) = cluster.admit().await {
                return (who, connection);
            }
        }
    };
    let (connected, (who, _connection)) = tokio::join!(connecting, admitting);
    assert!(connected.is_ok() && who == Who::Agent(AgentId(7)));
}

#[tokio::test]
async fn who_is_not_turned_to_in_time_comes_again_by_itself() {
    let cluster = Cluster::new();
    let (shaking, agent) = (cluster.listener.admission.clone(), cluster.agent(7));
    let admitting = async {
        let others = shaking.shaking.acquire_many(u32::try_from(admission::SHAKING_MAX).unwrap()).await.unwrap();
        let passed_over = cluster.listener.accept().await.unwrap().admit().await;
        assert!(matches!(passed_over, Err(LinkError::Late { .. })), "the others are in work");
        drop(others);
        cluster.listener.accept().await.unwrap().admit().await.unwrap()
    };
    let (connected, (who, _connection)) = tokio::join!(connect(cluster.address(), &agent), admitting);
    assert!(connected.is_ok() && who == Who::Agent(AgentId(7)));
}

#[tokio::test]
async fn a_master_says_so_with_its_first_packet_and_waits_for_no_agent() {
    let cluster = Cluster::new();
    let (shaking, agent) = (cluster.listener.admission.clone(), cluster.agent(7));
    let _others = shaking.shaking.acquire_many(u32::try_from(admission::SHAKING_MAX).unwrap()).await.unwrap();
    let master = cluster.authority.issue_master(2, &[], MASTER_LIFETIME).unwrap();
    let admitting = async {
        let incoming = cluster.listener.accept().await.unwrap();
        assert!(incoming.says_master());
        incoming.admit().await.unwrap()
    };
    let (connected, (who, _connection)) = tokio::join!(connect_master(cluster.address(), &master), admitting);
    assert!(connected.is_ok() && who == Who::Master(2));
    let (port, trust) = (Port::towards(cluster.address()).unwrap(), Trust::Known(&agent));
    let marked = port.connect_by(cluster.address(), &trust, ALPN, transport::peer);
    let (connected, admitted) = tokio::join!(marked, cluster.admit());
    let refused = admitted.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(refused.contains("said that it is a master"), "an agent is none by saying so: {refused}");
    assert!(matches!(end_of(connected).await, LinkError::Closed { code: CloseCode::NotAllowed, .. }));
    let admitting = async {
        let incoming = cluster.listener.accept().await.unwrap();
        assert!(!incoming.says_master());
        incoming.admit().await
    };
    tokio::select! {
        _ = connect(cluster.address(), &agent) => panic!("nobody turns to it"),
        admitted = admitting => assert!(matches!(admitted, Err(LinkError::Late { .. })), "without that word it waits for its turn"),
    }
}

#[tokio::test]
async fn many_strangers_make_the_next_one_show_where_it_is() {
    let cluster = Cluster::new();
    let trust = Trust::Pinned(cluster.authority.root_digest());
    let mut held = Vec::new();
    for _ in 0..admission::UNPROVEN_MAX {
        let incoming = async {
            let incoming = cluster.listener.accept().await.unwrap();
            assert!(!incoming.is_proven());
            incoming.admit().await.unwrap()
        };
        held.push(tokio::join!(connect_as(cluster.address(), &trust, ALPN_JOIN), incoming));
    }
    let agent = cluster.agent(7);
    let incoming = async {
        let incoming = cluster.listener.accept().await.unwrap();
        assert!(incoming.is_proven());
        incoming.admit().await.unwrap()
    };
    let (connected, (who, _)) = tokio::join!(connect(cluster.address(), &agent), incoming);
    assert!(connected.is_ok() && who == Who::Agent(AgentId(7)));
}

#[test]
fn places_of_strangers_are_bounded_and_come_back() {
    let admission = Arc::new(admission::Admission::default());
    let mut held: Vec<_> = (0..admission::STRANGERS_MAX).map(|_| admission.stranger(false).unwrap()).collect();
    assert!(admission.stranger(false).is_none());
    assert!(admission.stranger(true).is_some(), "a master need not wait for agents");
    held.pop();
    assert!(admission.stranger(false).is_some());
    held.push(admission.stranger(false).unwrap());
    held.extend((0..admission::MASTERS_MAX).map(|_| admission.stranger(true).unwrap()));
    assert!(admission.stranger(true).is_none());
    drop(held);
    assert_eq!(admission.strangers(), 0);
}

#[tokio::test]
async fn a_handshake_that_stops_in_the_middle_is_given_up() {
    let cluster = Cluster::new();
    let agent = cluster.agent(7);
    // Between the two: the first packet goes through, and nothing else either way.
    let between = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let passing = async {
        let mut bytes = [0; 2_048];
        let (count, _) = between.recv_from(&mut bytes).await.unwrap();
        between.send_to(&bytes[..count], cluster.address()).await.unwrap();
    };
    let (connected, admitted, ()) = tokio::join!(connect(between.local_addr().unwrap(), &agent), cluster.admit(), passing);
    assert!(matches!(admitted, Err(LinkError::Late { .. })) && matches!(connected, Err(LinkError::Late { .. })));
}

#[tokio::test]
async fn who_starts_again_says_so_to_whoever_speaks_to_it_as_before() {
    let cluster = Cluster::new();
    assert!(cluster.authority.reset_key(1) != cluster.authority.reset_key(2));
    let again = cluster.again();
    let between = Arc::new(tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let (to, reached) = tokio::sync::watch::channel(cluster.address());
    let passing = tokio::spawn(pass(Arc::clone(&between), reached));
    let agent = cluster.agent(7);
    let (connected, admitted) = tokio::join!(connect(between.local_addr().unwrap(), &agent), cluster.admit());
    let (connected, (_, _admitted)) = (connected.unwrap(), admitted.unwrap());
    to.send(again.address()).unwrap();
    let (mut sender, mut receiver) = connected.open_control().await.unwrap();
    sender.send(&1u8).await.unwrap();
    let ended = receiver.next::<u8>().await.unwrap_err().to_string();
    assert!(ended.contains("reset by peer"), "{ended}");
    passing.abort();
}

/// Passes packets between one client and whoever is to be reached now.
async fn pass(between: Arc<tokio::net::UdpSocket>, to: tokio::sync::watch::Receiver<SocketAddr>) {
    let (mut bytes, mut client, mut servers) = (vec![0; 65_536], None, vec![]);
    loop {
        let (count, from) = between.recv_from(&mut bytes).await.unwrap();
        servers.push(*to.borrow());
        let is_server = servers.contains(&from);
        if !is_server {
            client = Some(from);
        }
        if let Some(next) = if is_server { client } else { Some(*to.borrow()) } {
            between.send_to(&bytes[..count], next).await.unwrap();
        }
    }
}
