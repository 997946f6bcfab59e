//! An agent that does what it is told: registers, beats, and ends each task at once with code 0.

use crate::drive::Master;
use crate::shard::event::{Grant, Token, TokenRequest};
use crate::shard::{Request, Response};
use protocol::identity::{Identity, JoinToken, csr};
use protocol::link::{self, Connection, LinkError, Receiver, Sender};
use protocol::message::{FromMaster, Hello, HelloReply, JoinReply, Launch, ToAgent, ToShard, shard_of_agent};
use protocol::{AgentId, AgentInfo, AttemptId, Exit, FromAgent, Resources, ShardId, TaskState, Time, Update, Usage};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::JoinHandle;

/// An agent that joined.
pub struct Script {
    pub id: AgentId,
    pub identity: Identity,
    pub master: SocketAddr,
    pub shards: u16,
}

/// A join token on record.
pub async fn token(master: &Master) -> JoinToken {
    let token = JoinToken::draw(master.root()).unwrap();
    let on_record = Token { id: token.id.clone(), hash: token.secret_hash(), grant: Grant::Join, expires: None };
    let made = master.door().ask(ShardId(0), Request::Token(TokenRequest::Create(on_record))).await.unwrap();
    assert!(matches!(made, Response::Done), "{made:?}");
    token
}

impl Script {
    pub async fn join(master: &Master) -> Self {
        let (key, csr) = csr().unwrap();
        match link::join(master.quic_addr(), &token(master).await, csr).await.unwrap() {
            JoinReply::Welcome { agent, chain_der, shards } => {
                Self { id: agent, identity: Identity::new(chain_der, key).unwrap(), master: master.quic_addr(), shards }
            }
            refused => panic!("{refused:?}"),
        }
    }

    pub async fn connect(&self) -> (Connection, Sender, Receiver) {
        let connection = link::connect(self.master, &self.identity).await.unwrap();
        let (mut sender, mut receiver) = connection.open_control().await.unwrap();
        sender.send(&Hello { version: "a script".into() }).await.unwrap();
        let reply = receiver.next::<HelloReply>().await.unwrap().unwrap();
        assert_eq!(reply.shards, self.shards);
        (connection, sender, receiver)
    }

    pub fn register(&self) -> [ToShard; 2] {
        let capacity = Resources { cpu_milli: 2_000, memory_bytes: 1 << 30, ..Resources::NONE };
        let info = AgentInfo { name: "script".into(), capacity, version: "0".into(), ..AgentInfo::default() };
        let shard = shard_of_agent(self.id, self.shards);
        [
            ToShard { shard, message: FromAgent::Register { info, incarnation: 1, number: 1 } },
            ToShard { shard, message: FromAgent::Report { session: 0, held: vec![], last: true } },
        ]
    }

    /// Follows the script until it is aborted or its connection ends.
    pub fn spawn(self) -> JoinHandle<()> {
        tokio::spawn(async move {
            let (_connection, sender, receiver) = self.connect().await;
            // The master's end is the script's, and shown where a test fails.
            println!("the script of {} ends: {:?}", self.id, self.follow(sender, receiver).await);
        })
    }

    async fn follow(&self, mut sender: Sender, mut receiver: Receiver) -> Result<(), LinkError> {
        for message in self.register() {
            sender.queue(&message)?;
        }
        sender.flush().await?;
        let (mut session, mut beat) = (0, tokio::time::interval(Duration::from_millis(200)));
        loop {
            let first = tokio::select! {
                first = receiver.next::<ToAgent>() => first?,
                _ = beat.tick(), if session != 0 => {
                    let message = FromAgent::Beat { session, sent: Time::ZERO, held: 0, held_hash: 0 };
                    sender.send(&ToShard { shard: shard_of_agent(self.id, self.shards), message }).await?;
                    continue;
                }
            };
            let Some(first) = first else { break };
            let mut next = Some(first);
            while let Some(ToAgent { message, .. }) = next {
                match message {
                    FromMaster::Registered { session: given, .. } => session = given,
                    FromMaster::Launch(launch) => sender.queue(&ended(&launch))?,
                    _ => {}
                }
                next = receiver.try_next()?;
            }
            sender.flush().await?;
        }
        Ok(())
    }
}

/// Says that all of a launch have ended.
fn ended(launch: &Launch) -> ToShard {
    let ended = |(index, number): &(u32, u32)| Update {
        attempt: AttemptId::new(launch.job, *index, *number),
        state: TaskState::Ended { exit: Exit::Code(0), usage: Usage::default() },
    };
    let updates = launch.attempts.iter().map(ended).collect();
    ToShard { shard: launch.job.shard(), message: FromAgent::Status { updates } }
}
