//! Real listeners that say what masters say, and the way from their words to the ledger and back.

use super::*;
use crate::drive::ways::Ways;
use crate::ledger::event::{Event, Output};
use crate::ledger::{Ledger, LedgerConfig};
use crate::scratch::Scratch;
use protocol::identity::{AGENT_LIFETIME, Authority, MASTER_LIFETIME, csr};
use protocol::link::{CloseCode, Limits, Listener, Receiver, ResetKey};
use protocol::message::{FromAgent, FromMaster, Hello, HelloReply, Leader, ToShard, shard_of_agent};
use protocol::{AgentId, AgentInfo, ShardId, Time};
use std::fs;
use tokio::time::Instant;

const AGENT: AgentId = AgentId(7);
const SHARDS: u16 = 4;
/// How long anything may take until a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

struct Cluster {
    dir: Scratch,
    authority: Authority,
    turns: Turns,
}

impl Cluster {
    fn new() -> Self {
        let dir = Scratch::new();
        let authority = Authority::open_or_create(&dir.path().join("ca")).unwrap();
        Self { dir, authority, turns: Turns::default() }
    }

    fn listen(&self, number: u16, address: &str) -> Listener {
        let identity = self.authority.issue_master(number, &[], MASTER_LIFETIME).unwrap();
        Listener::bind(address.parse().unwrap(), &identity, &ResetKey::new([7; 32]), Limits::default()).unwrap()
    }

    fn master(&self, number: u16) -> Listener {
        self.listen(number, "127.0.0.1:0")
    }

    /// An agent's sessions, which end when what they say is dropped.
    fn uplink(&self, masters: &[String]) -> mpsc::Receiver<Heard> {
        let (key, request) = csr().unwrap();
        let identity = Identity::new(self.authority.issue_agent(AGENT, &request, AGENT_LIFETIME).unwrap(), key).unwrap();
        let (sender, heard) = mpsc::channel(16);
        let data_dir = self.dir.path().to_owned();
        let uplink = Uplink {
            masters: masters.to_vec(),
            identity_dir: data_dir.join("identity"),
            data_dir,
            identity,
            turns: self.turns.clone(),
            heard: sender,
        };
        tokio::spawn(uplink.run());
        heard
    }

    fn file(&self) -> String {
        fs::read_to_string(self.dir.path().join(masters::FILE)).unwrap_or_default()
    }
}

fn at(listener: &Listener) -> String {
    listener.address().to_string()
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not after {PATIENCE:?}"))
}

/// A master's end of a connection.
struct Master {
    connection: Connection,
    sender: Sender,
    receiver: Receiver,
}

impl Master {
    /// The next agent that greets, or that closes the connection since it has another one to this master.
    async fn meet(listener: &Listener) -> Option<Self> {
        loop {
            match Self::greeted(listener).await {
                Ok(master) => return Some(master),
                Err(LinkError::Closed { reason, .. }) if reason.contains("another connection") => return None,
                // A second try of one that was slow, which nobody needs any more.
                Err(_) => {}
            }
        }
    }

    async fn greeted(listener: &Listener) -> Result<Self, LinkError> {
        let (_, connection) = listener.accept().await.unwrap().admit().await?;
        let (mut sender, mut receiver) = connection.accept_control().await?;
        receiver.next::<Hello>().await?.unwrap();
        sender.send(&HelloReply { shards: SHARDS, version: "test".into() }).await?;
        Ok(Self { connection, sender, receiver })
    }

    async fn says(&mut self, shard: ShardId, message: FromMaster) {
        self.sender.send(&ToAgent { shard, message }).await.unwrap();
    }

    async fn hears(&mut self) -> ToShard {
        self.receiver.next().await.unwrap().unwrap()
    }

    /// Waits until the agent registers, and answers.
    async fn registers(&mut self, session: u64) {
        self.registers_to_beat(session, 20).await;
    }

    async fn registers_to_beat(&mut self, session: u64, heartbeat_ms: u64) {
        loop {
            if let ToShard { shard, message: FromAgent::Register { number, .. } } = self.hears().await {
                return self.says(shard, FromMaster::Registered { session, heartbeat_ms, number }).await;
            }
        }
    }

    /// Waits until the agent beats in this session.
    async fn beats(&mut self, expected: u64) {
        while !matches!(self.hears().await.message, FromAgent::Alive { session, .. } if session == expected) {}
    }
}

/// What is between the sessions and the ledger, without executors.
struct Agent {
    heard: mpsc::Receiver<Heard>,
    ways: Ways,
    turns: Turns,
    ledger: Ledger,
    began: Instant,
    dirty: bool,
}

impl Agent {
    fn new(cluster: &Cluster, masters: &[String]) -> Self {
        let (heard, turns) = (cluster.uplink(masters), cluster.turns.clone());
        let config = LedgerConfig { agent: AGENT, info: AgentInfo::default(), reservations: vec![], heartbeat_ms: 20, lends: false };
        let ledger = Ledger::new(config, 5, "boot".into());
        Self { heard, ways: Ways::default(), turns, ledger, began: Instant::now(), dirty: false }
    }

    fn own() -> ShardId {
        shard_of_agent(AGENT, SHARDS)
    }

    fn other() -> ShardId {
        ShardId((Self::own().0 + 1) % SHARDS)
    }

    /// Takes in what is heard and says what the ledger says, once.
    async fn turn(&mut self) {
        let due = self.ledger.poll_timeout().map(|due| self.began + Duration::from_millis(due.0));
        let events = tokio::select! {
            biased;
            () = self.ways.flush(), if self.dirty => {
                self.dirty = false;
                return;
            }
            heard = self.heard.recv() => match heard.unwrap() {
                Heard::Up { master, shards, connection, sender } => self.ways.up(master, shards, connection, sender),
                Heard::Down { master } => self.ways.down(master),
                Heard::Messages { master, messages } => self.ways.heard(master, messages),
                _ => panic!("nobody asked for that"),
            },
            () = tokio::time::sleep_until(due.unwrap_or(self.began)), if due.is_some() => vec![Event::Tick],
        };
        self.dirty = true;
        let now = Time(u64::try_from(self.began.elapsed().as_millis()).unwrap());
        events.into_iter().for_each(|event| self.ledger.handle(now, event));
        while let Some(output) = self.ledger.poll_output() {
            if let Output::Send { shard, message } = output {
                assert!(self.ways.send(ToShard { shard, message }).is_empty());
            }
        }
        self.turns.take(AGENT, &self.ways, &self.ledger);
    }

    /// Lives until it is so.
    async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let turns = async {
            while !holds(self) {
                self.turn().await;
            }
        };
        soon(what, turns).await;
    }

    /// Lives while the other side waits for something.
    async fn lives<T>(&mut self, what: &str, future: impl Future<Output = T>) -> T {
        let turns = async {
            loop {
                self.turn().await;
            }
        };
        let lived = async {
            tokio::select! {
                done = future => done,
                () = turns => unreachable!("it lives on"),
            }
        };
        soon(what, lived).await
    }
}

#[tokio::test]
async fn an_agent_speaks_to_the_master_that_leads_its_shard_and_follows_when_another_leads() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.master(1), cluster.master(2));
    let mut agent = Agent::new(&cluster, &[at(&one), at(&two)]);
    let both = async { tokio::join!(Master::meet(&one), Master::meet(&two)) };
    let (first, second) = agent.lives("connections to both", both).await;
    let (mut first, mut second) = (first.unwrap(), second.unwrap());

    first.says(Agent::own(), FromMaster::Leading { term: 3 }).await;
    agent.lives("registering with the first", first.registers(1)).await;
    agent.lives("beating at the first", first.beats(1)).await;
    second.says(Agent::own(), FromMaster::Leading { term: 4 }).await;
    agent.lives("registering with the second", second.registers(1)).await;
    agent.lives("beating at the second", second.beats(1)).await;

    first.says(Agent::own(), FromMaster::Leading { term: 3 }).await;
    first.says(Agent::own(), FromMaster::Rejected { reason: "it says that it leads".into() }).await;
    first.says(Agent::other(), FromMaster::Leading { term: 3 }).await;
    agent.until("the first leads another shard", |agent| agent.ways.leader(Agent::other()) == Some(1)).await;
    assert_eq!(agent.ways.leader(Agent::own()), Some(2), "a lower term is none");
    assert_eq!(agent.ways.links(AGENT)[0].remote(), two.address(), "bundles come from the leader first");
    agent.lives("beating on at the second", second.beats(1)).await;

    second.connection.close(CloseCode::Leaving, "");
    agent.until("the second is gone", |agent| agent.ways.leader(Agent::own()).is_none()).await;
    assert_eq!((agent.ways.leader(Agent::other()), agent.ways.links(AGENT).len()), (Some(1), 1), "what the first said once is old");
    first.says(Agent::own(), FromMaster::Leading { term: 5 }).await;
    agent.lives("registering with the first again", first.registers(2)).await;
    agent.lives("beating at the first again", first.beats(2)).await;
}

#[tokio::test]
async fn an_agent_whose_leader_leads_no_more_is_told_and_connects_with_who_does() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.master(1), cluster.master(2));
    let mut agent = Agent::new(&cluster, &[at(&one)]);
    let mut first = agent.lives("the first", Master::meet(&one)).await.unwrap();
    first.says(Agent::own(), FromMaster::Leading { term: 3 }).await;
    // A spare connection has hours.
    agent.lives("registering with the first", first.registers_to_beat(1, 600_000)).await;
    agent.until("it is registered", |agent| agent.ledger.heartbeat_ms() == 600_000).await;
    first.says(ShardId(0), FromMaster::Masters { addresses: vec![at(&one), at(&two)] }).await;
    let leader = Some(Leader { master: 2, address: at(&two) });
    first.says(Agent::own(), FromMaster::LedElsewhere { term: 4, leader }).await;
    let mut second = agent.lives("the second", Master::meet(&two)).await.unwrap();
    assert_eq!(agent.ways.leader(Agent::own()), None);
    second.says(Agent::own(), FromMaster::Leading { term: 4 }).await;
    agent.lives("registering with the second", second.registers(1)).await;
}

#[tokio::test]
async fn of_two_addresses_of_one_master_one_is_connected_and_the_other_takes_its_place() {
    let cluster = Cluster::new();
    let (one, same) = (cluster.master(1), cluster.master(1));
    let mut heard = cluster.uplink(&[at(&one), at(&same)]);
    let (first, second) = soon("both are tried", async { tokio::join!(Master::meet(&one), Master::meet(&same)) }).await;
    assert!(first.is_some() != second.is_some());
    let (kept, gone, left) = if first.is_some() { (first, one, same) } else { (second, same, one) };
    assert!(matches!(soon("a connection", heard.recv()).await, Some(Heard::Up { master: 1, shards: SHARDS, .. })));
    assert!(heard.try_recv().is_err(), "one connection");
    drop(kept);
    gone.close("it ends");
    assert!(matches!(soon("the end", heard.recv()).await, Some(Heard::Down { master: 1 })));
    let _again = soon("the other address", Master::meet(&left)).await.unwrap();
    assert!(matches!(soon("a connection", heard.recv()).await, Some(Heard::Up { master: 1, .. })));
}

#[tokio::test]
async fn masters_that_a_master_names_are_connected_and_known_at_the_next_start() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.master(1), cluster.master(2));
    let heard = cluster.uplink(&[at(&one)]);
    let mut first = soon("the first", Master::meet(&one)).await.unwrap();
    let named = FromMaster::Masters { addresses: vec!["no address".into(), at(&two), at(&one), at(&two)] };
    first.says(ShardId(0), named).await;
    let _second = soon("the second", Master::meet(&two)).await.unwrap();
    let file = format!("{}\n{}\n", at(&two), at(&one));
    soon("they are kept", async {
        while cluster.file() != file {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop((heard, first));
    let dead = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let _heard = cluster.uplink(&[dead.local_addr().unwrap().to_string()]);
    let again = async { tokio::join!(Master::meet(&one), Master::meet(&two)) };
    let (first, second) = soon("both again", again).await;
    assert!(first.is_some() && second.is_some());
}

#[tokio::test]
async fn a_master_that_comes_back_is_connected_again() {
    let cluster = Cluster::new();
    let one = cluster.master(1);
    let address = at(&one);
    let mut heard = cluster.uplink(std::slice::from_ref(&address));
    let met = soon("the master", Master::meet(&one)).await.unwrap();
    assert!(matches!(soon("a connection", heard.recv()).await, Some(Heard::Up { .. })));
    one.close("it ends");
    soon("its good-byes", one.drained()).await;
    drop((met, one));
    assert!(matches!(soon("the end", heard.recv()).await, Some(Heard::Down { .. })));
    let again = soon("the port", async {
        loop {
            let identity = cluster.authority.issue_master(1, &[], MASTER_LIFETIME).unwrap();
            match Listener::bind(address.parse().unwrap(), &identity, &ResetKey::new([7; 32]), Limits::default()) {
                Ok(listener) => return listener,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    let _met = soon("the master that came back", Master::meet(&again)).await.unwrap();
    assert!(matches!(soon("a connection", heard.recv()).await, Some(Heard::Up { master: 1, .. })));
}

#[test]
fn only_addresses_are_kept_each_once_and_not_too_many() {
    let long = format!("{}:1", "a".repeat(300));
    let given = ["a:1", "a:1", "[::1]:7000", "10.0.0.1:65535", "", ":1", "a", "a:", "a:0", "a:65536", "a b:1", "a\nb:1", "é:1", &long];
    let given: Vec<String> = given.into_iter().map(str::to_owned).collect();
    assert_eq!(masters::checked(given), ["a:1", "[::1]:7000", "10.0.0.1:65535"]);
    assert_eq!(masters::checked((0..100).map(|n| format!("m{n}:7")).collect()).len(), protocol::message::MASTERS_MAX);
    let dir = Scratch::new();
    let file = dir.path().join(masters::FILE);
    assert!(masters::load(&file).is_empty());
    fs::write(&file, "a:1\nb:2\n\0\0\0").unwrap();
    assert_eq!(masters::load(&file), ["a:1", "b:2"], "what is damaged is passed over");
    fs::write(&file, [0xff; 10_000]).unwrap();
    assert!(masters::load(&file).is_empty());
}
