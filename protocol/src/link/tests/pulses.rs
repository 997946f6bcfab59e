//! What goes beside a connection: taken once, from its agent only, and answered only where nobody knows it.

use super::*;
use crate::message::{FromAgent, ToShard};
use crate::{ShardId, Time};
use std::net::UdpSocket;

/// Nothing that is sent over loopback takes so long.
const SOON: Duration = Duration::from_secs(20);

fn alive(held: u32) -> ToShard {
    ToShard { shard: ShardId(9), message: FromAgent::Alive { session: u64::MAX, sent: Time(u64::MAX), held, held_hash: u64::MAX } }
}

/// What the listener hears next, one by one.
struct Ear<'a> {
    listener: &'a Listener,
    heard: Vec<(AgentId, Vec<u8>)>,
}

impl Ear<'_> {
    async fn next(&mut self) -> (AgentId, u32) {
        while self.heard.is_empty() {
            self.heard = tokio::time::timeout(SOON, self.listener.pulses()).await.expect("a pulse is heard").unwrap();
        }
        let (agent, said) = self.heard.remove(0);
        let ToShard { message: FromAgent::Alive { held, .. }, .. } = crate::frame::decode(&said).unwrap() else { panic!("{said:?}") };
        (agent, held)
    }
}

/// A connection on which the agent may send pulses.
async fn pulsing(cluster: &Cluster) -> (Connection, Connection) {
    let (agent, master) = cluster.pair().await;
    assert!(!agent.pulse(&alive(0)), "the master has not said that it takes them");
    agent.begin_pulses(master.reset_token().unwrap());
    (agent, master)
}

#[tokio::test]
async fn a_pulse_is_heard_as_its_agents_and_only_once() {
    let cluster = Cluster::new();
    let mut ear = Ear { listener: &cluster.listener, heard: vec![] };
    let (agent, master) = pulsing(&cluster).await;
    assert!(agent.pulse(&alive(1)), "the longest sign of life has room");
    assert!(!agent.pulse(&[7_u8; 65].to_vec()), "and what is longer than a pulse is none");
    assert_eq!(ear.next().await, (AgentId(7), 1));
    agent.knock();
    // Twice the same, an older one, one that was changed, one of somebody else, and one under a name that is not known.
    let (raw, port) = (UdpSocket::bind("127.0.0.1:0").unwrap(), cluster.address());
    let seal = |number, said: &ToShard| agent.sealed(number, &postcard::to_stdvec(said).unwrap());
    let mut bent = seal(12, &alive(12));
    *bent.last_mut().unwrap() ^= 1;
    let mut renamed = seal(13, &alive(13));
    renamed[1] ^= 1;
    for datagram in
        [seal(10, &alive(10)), seal(10, &alive(10)), seal(9, &alive(9)), bent, renamed, vec![0], vec![0; 2_000], seal(14, &alive(14))]
    {
        raw.send_to(&datagram, port).unwrap();
    }
    assert_eq!(ear.next().await, (AgentId(7), 10));
    assert_eq!(ear.next().await, (AgentId(7), 14));
    // QUIC goes on beside all that.
    let (mut sender, _receiver) = agent.open_control().await.unwrap();
    sender.send(&alive(3)).await.unwrap();
    let (_sender, mut receiver) = master.accept_control().await.unwrap();
    assert_eq!(receiver.next::<ToShard>().await.unwrap(), Some(alive(3)));
}

#[tokio::test]
async fn a_master_that_does_not_know_a_connection_says_so_and_nobody_else_can() {
    let cluster = Cluster::new();
    let (agent, master) = pulsing(&cluster).await;
    // Somebody who saw the name of the connection, and has no key.
    let name = agent.sealed(1, b"")[..8].to_vec();
    let raw = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = SocketAddr::from(([127, 0, 0, 1], agent.quinn_port()));
    raw.send_to(&[&name[..], &[0; 16]].concat(), port).unwrap();
    agent.knock();
    let mut ear = Ear { listener: &cluster.listener, heard: vec![] };
    assert!(agent.pulse(&alive(5)));
    assert_eq!(ear.next().await, (AgentId(7), 5));
    assert!(agent.close_reason().is_none(), "a reset that is not the master's is passed over");
    // The master forgets it without a word that the agent hears: so would a start anew.
    master.forget_pulses();
    agent.knock();
    let end = tokio::time::timeout(SOON, agent.closed()).await.expect("it hears that it is not known");
    assert!(matches!(end, LinkError::ClosedHere), "{end}");
}

#[tokio::test]
async fn pulses_end_with_their_connection() {
    let cluster = Cluster::new();
    let (agent, master) = pulsing(&cluster).await;
    master.close(CloseCode::Leaving, "");
    assert_eq!(master.reset_token(), None);
    let (next, _master) = pulsing(&cluster).await;
    let mut ear = Ear { listener: &cluster.listener, heard: vec![] };
    assert!(agent.pulse(&alive(1)) && next.pulse(&alive(2)));
    assert_eq!(ear.next().await, (AgentId(7), 2));
}
