//! Agents at the door: who is let in, what they say on its way to their shards, what is said to them on its way out, and the bundles they
//! fetch. An agent speaks for the id in its certificate and for no other.

use super::agents::Agent;
use super::door::{Busy, Door};
use super::inbox::{Inbox, Letter};
use super::steward;
use super::told::Told;
use crate::peers::{self, Shelf};
use crate::shard::HOME;
use crate::shard::event::{self, Change, MasterRequest, TokenRequest};
use crate::shard::view::{View, Viewed};
use crate::shard::{Refusal, Request, Response};
use protocol::frame;
use protocol::identity::{Authority, draw_agent};
use protocol::link::{CloseCode, Connection, Incoming, LinkError, Listener, Receiver, Sender, Who};
use protocol::message::{FromAgent, FromMaster, Hello, HelloReply, Join, JoinReply, MasterPlace, ToShard, shard_of_agent};
use protocol::{AgentId, Digest, ShardId};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;
use tokio::time::Instant;

/// How long an agent's certificate holds; it asks for another when half of that is over.
const AGENT_LIFETIME: Duration = Duration::from_secs(24 * 3_600);
/// How long whoever asked for a certificate has to take the answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long it is tried to use a token up, within the ten seconds that who shows it waits; and the wait before it is tried again.
const CONSUME_WITHIN: Duration = Duration::from_secs(7);
const CONSUME_AGAIN: Duration = Duration::from_millis(100);
/// The wait before it is asked again which agents are gone for good.
const GONE_RETRY: Duration = Duration::from_millis(500);
/// Frames that are taken from one agent at once.
const BATCH_FRAMES_MAX: usize = 1_024;

/// What a shard calls the state of an agent that is never to come back.
const GONE: &str = "gone";

/// What taking agents in needs.
pub struct Reception {
    /// Where agents knock.
    pub listener: Listener,
    /// To the shards.
    pub door: Door,
    /// What certificates are signed with.
    pub authority: Authority,
    /// What agents and other masters fetch.
    pub shelf: Shelf,
    /// True once it is known which agents are gone for good: none is taken in before.
    knows_gone: watch::Sender<bool>,
}

impl Reception {
    /// Takes in agents and masters that knock at `listener`.
    pub fn new(listener: Listener, door: Door, authority: Authority, shelf: Shelf) -> Self {
        Self { listener, door, authority, shelf, knows_gone: watch::Sender::new(false) }
    }

    /// Takes masters in here, and everybody else on the runtime `agents`, until the listener is closed.
    pub async fn run(self: Arc<Self>, agents: Handle) {
        let here = Handle::current();
        while let Some(incoming) = self.listener.accept().await {
            let reception = Arc::clone(&self);
            let on = if incoming.says_master() { &here } else { &agents };
            on.spawn(async move {
                let received = Arc::clone(&reception).receive(incoming).await;
                note(received);
            });
        }
    }

    /// Takes agents' pulses until the listener is closed.
    pub async fn hear(self: Arc<Self>) {
        let shards = self.door.shards();
        while let Some(pulses) = self.listener.pulses().await {
            let mut letters: Vec<Letter> = Vec::with_capacity(pulses.len());
            for (agent, said) in pulses {
                match frame::decode(&said) {
                    // Lost like any other pulse where no more letters are taken.
                    Ok(ToShard { shard: to, message: message @ FromAgent::Alive { .. } }) if to.0 < shards => {
                        letters.push(Letter::Agent { to, agent, message });
                    }
                    _ => tracing::debug!(%agent, "a pulse that is no sign of life"),
                }
            }
            while let Some((inbox, mut here)) = self.of_one_thread(&mut letters) {
                inbox.offer(&mut here);
            }
        }
    }

    async fn receive(self: Arc<Self>, incoming: Incoming) -> Result<(), LinkError> {
        let (who, connection) = incoming.admit().await?;
        match who {
            Who::Agent(agent) => {
                let known = tokio::time::timeout(ANSWER_WITHIN, self.knows_gone.subscribe().wait_for(|knows| *knows)).await.is_ok();
                if !known {
                    connection.close(CloseCode::Full, "this master does not know yet which agents are gone for good");
                    return Ok(());
                }
                // A task of its own: what a handshake and a certificate take is not kept for as long as an agent is connected.
                tokio::spawn(async move { note(self.attend(agent, connection).await) });
                Ok(())
            }
            Who::Renewing(_) | Who::Stranger => self.certify(who, &connection).await,
            Who::Master(number) => peers::attend(&self.shelf, &self.door, number, connection).await,
        }
    }

    /// Answers the one question of who wants a certificate.
    async fn certify(&self, who: Who, connection: &Connection) -> Result<(), LinkError> {
        let (mut sender, mut receiver) = connection.accept_control().await?;
        let Some(join) = receiver.next::<Join>().await? else { return Ok(()) };
        let reply = self.decide(who, join).await.unwrap_or_else(|reason| JoinReply::Refused { reason });
        if let JoinReply::Refused { reason } = &reply {
            tracing::warn!(remote = %connection.remote(), reason, "a certificate was refused");
        }
        sender.send(&reply).await?;
        sender.finish();
        // It closes when it has the answer.
        if tokio::time::timeout(ANSWER_WITHIN, connection.closed()).await.is_err() {
            connection.close(CloseCode::Late, "the answer was not taken");
        }
        Ok(())
    }

    async fn decide(&self, who: Who, join: Join) -> Result<JoinReply, String> {
        let (agent, csr_der) = match (who, join) {
            (Who::Renewing(agent), Join::Renew { csr_der }) => (agent, csr_der),
            (Who::Stranger, Join::Token { id, secret, csr_der }) => {
                let agent = draw_agent().map_err(|error| error.to_string())?;
                // A request that cannot be signed does not use the token up.
                self.issue(agent, &csr_der)?;
                self.consume(TokenRequest::Consume { id, hash: Digest::of(secret.as_bytes()), agent }).await?;
                (agent, csr_der)
            }
            (Who::Stranger, Join::Master { id, secret, quic, http }) => return self.admit_master(id, &secret, quic, http).await,
            _ => return Err("this certificate allows only to ask for a new one, and no certificate only to show a token".into()),
        };
        let chain_der = self.issue(agent, &csr_der)?;
        Ok(JoinReply::Welcome { agent, chain_der, shards: self.door.shards() })
    }

    /// Uses a token up. Where nobody leads its shard, or its leader goes away meanwhile, it is asked again: for one agent it is used up once.
    async fn consume(&self, consume: TokenRequest) -> Result<(), String> {
        let until = Instant::now() + CONSUME_WITHIN;
        loop {
            let reason = match self.door.ask(HOME, Request::Token(consume.clone())).await {
                Ok(Response::Done) => return Ok(()),
                Ok(Response::Refused(refusal @ (Refusal::Unknown | Refusal::Unled | Refusal::Busy { .. }))) => refusal.to_string(),
                Ok(Response::Refused(refusal)) => return Err(refusal.to_string()),
                Ok(_) => return Err("the tokens' shard answered something else".into()),
                Err(busy @ Busy::Stopped { .. }) => return Err(busy.to_string()),
                Err(busy) => busy.to_string(),
            };
            if Instant::now() >= until {
                return Err(reason);
            }
            tokio::time::sleep(CONSUME_AGAIN).await;
        }
    }

    /// Lets a master in that shows a token: puts it on record and gives it what masters certify with.
    async fn admit_master(&self, id: String, secret: &str, quic: String, http: String) -> Result<JoinReply, String> {
        let join = MasterRequest::Join { id, hash: Digest::of(secret.as_bytes()), quic, http };
        let masters = match self.door.ask(HOME, Request::Master(join)).await.map_err(|busy| busy.to_string())? {
            Response::Viewed(viewed) => match *viewed {
                Viewed::Masters(masters) => masters,
                _ => return Err("the tokens' shard answered something else".into()),
            },
            Response::Refused(refusal) => return Err(refusal.to_string()),
            _ => return Err("the tokens' shard answered something else".into()),
        };
        let number = masters.last().map(|master| master.number).ok_or("the tokens' shard named no master")?;
        let place = |master: event::Master| MasterPlace { number: master.number, quic: master.quic, http: master.http };
        let (intermediate_der, key_der) = self.authority.intermediate();
        Ok(JoinReply::Master {
            number,
            shards: self.door.shards(),
            root_der: self.authority.root_der().to_vec(),
            intermediate_der: intermediate_der.to_vec(),
            key_der,
            masters: masters.into_iter().map(place).collect(),
        })
    }

    /// Refuses all agents that are on record as gone for good. To be done before the first is taken in.
    ///
    /// # Errors
    /// Why a shard does not say which they are.
    pub async fn revoke_gone(&self) -> Result<(), String> {
        for shard in (0..self.door.shards()).map(ShardId) {
            let answer = self.door.ask(shard, Request::View(View::Agents)).await.map_err(|busy| busy.to_string())?;
            let agents = match answer {
                Response::Viewed(viewed) => match *viewed {
                    Viewed::Agents(agents) => agents,
                    _ => return Err(format!("shard {shard} answered another question")),
                },
                _ => return Err(format!("shard {shard} does not say which agents are gone")),
            };
            agents.iter().filter(|agent| agent.state == GONE).for_each(|agent| self.listener.revoke(agent.id));
        }
        Ok(())
    }

    /// Ends the connections of each agent that is said to be gone from now on, and refuses it.
    pub async fn revoke(self: Arc<Self>, mut changes: broadcast::Receiver<Arc<Told>>) {
        let mut due = true;
        loop {
            if due {
                due = match self.revoke_gone().await {
                    Ok(()) => {
                        self.knows_gone.send_replace(true);
                        false
                    }
                    Err(reason) => {
                        tracing::warn!(reason, "which agents are gone for good is not known yet: one that is may still be connected");
                        true
                    }
                };
            }
            let changed = tokio::select! {
                changed = changes.recv() => changed,
                () = tokio::time::sleep(GONE_RETRY), if due => continue,
            };
            match changed {
                Ok(told) => match told.change() {
                    Some(Change::Agent { agent, what, .. }) if what == GONE => self.listener.revoke(*agent),
                    _ => {}
                },
                Err(RecvError::Lagged(_)) => due = true,
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn issue(&self, agent: AgentId, csr_der: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        self.authority.issue_agent(agent, csr_der, AGENT_LIFETIME).map_err(|error| error.to_string())
    }

    /// Listens to an agent and speaks to it until its connection ends.
    async fn attend(&self, id: AgentId, connection: Connection) -> Result<(), LinkError> {
        // In a place of its own: what greeting takes is not kept for as long as an agent is connected.
        let Some((sender, mut receiver)) = Box::pin(self.greet(&connection)).await? else { return Ok(()) };
        let agent = self.door.agents().insert(id, connection.clone());
        // Whoever begins to lead after this look tells all that are connected.
        for (shard, term) in self.door.routes().led_by(self.door.routes().member()) {
            agent.queue(shard, FromMaster::Leading { term });
        }
        let own = shard_of_agent(id, self.door.shards());
        if let Some(message) = self.door.led_elsewhere(own) {
            agent.queue(own, message);
        }
        agent.queue(ShardId(0), FromMaster::Masters { addresses: steward::addresses(self.door.peers()) });
        if let Some(reset) = connection.reset_token() {
            agent.queue(ShardId(0), FromMaster::Pulses { reset });
        }
        agent.wake();
        let writing = tokio::spawn(write(Arc::clone(&agent), sender));
        let serving = tokio::spawn(self.shelf.clone().serve(connection.clone()));
        let ended = self.listen(id, &connection, &mut receiver).await;
        let (code, reason) = match &ended {
            Ok(()) => (CloseCode::Leaving, "its control stream has ended".to_owned()),
            Err(error) => (CloseCode::Misbehaved, error.to_string()),
        };
        connection.close(code, &reason);
        serving.abort();
        writing.abort();
        if self.door.agents().remove(id, &agent) {
            let to = shard_of_agent(id, self.door.shards());
            let gone = Letter::Disconnected { to, agent: id };
            self.door.inbox(to).expect("each shard has an inbox").force(&mut vec![gone]);
        }
        ended
    }

    /// Answers an agent's first word; `None` where it says none.
    async fn greet(&self, connection: &Connection) -> Result<Option<(Sender, Receiver)>, LinkError> {
        let (mut sender, mut receiver) = connection.accept_control().await?;
        if receiver.next::<Hello>().await?.is_none() {
            return Ok(None);
        }
        sender.send(&HelloReply { shards: self.door.shards(), version: env!("CARGO_PKG_VERSION").into() }).await?;
        Ok(Some((sender, receiver)))
    }

    /// Hands what an agent says to its shards, in the batches in which it came.
    async fn listen(&self, agent: AgentId, connection: &Connection, receiver: &mut Receiver) -> Result<(), LinkError> {
        let mut letters = Vec::new();
        // For each thread, of which there are no more than shards.
        let mut before = vec![0; usize::from(self.door.shards())];
        while receiver.wait().await? {
            self.gather(agent, connection, receiver, &mut letters)?;
            self.hand_in(&mut letters, &mut before).await;
        }
        Ok(())
    }

    /// Takes out what an agent has said. Waits for nothing, so that an agent that says nothing has no place for it.
    fn gather(&self, agent: AgentId, connection: &Connection, receiver: &mut Receiver, letters: &mut Vec<Letter>) -> Result<(), LinkError> {
        let shards = self.door.shards();
        while letters.len() < BATCH_FRAMES_MAX
            && let Some(ToShard { shard: to, message }) = receiver.try_next()?
        {
            if to.0 >= shards {
                return Err(LinkError::NotAllowed { remote: connection.remote(), reason: format!("there is no shard {to}") });
            }
            letters.push(Letter::Agent { to, agent, message });
        }
        Ok(())
    }

    async fn hand_in(&self, letters: &mut Vec<Letter>, before: &mut [u64]) {
        while let Some((inbox, mut here)) = self.of_one_thread(letters) {
            let before = &mut before[inbox.thread()];
            *before = inbox.push(&mut here, *before).await;
        }
    }

    /// Takes those out that go to the same thread as the first: all of them, where one thread decides for all shards.
    fn of_one_thread(&self, letters: &mut Vec<Letter>) -> Option<(&Arc<Inbox>, Vec<Letter>)> {
        let inbox = self.door.inbox(letters.first()?.to())?;
        let is_here = |letter: &Letter| self.door.inbox(letter.to()).is_some_and(|other| Arc::ptr_eq(inbox, other));
        let (here, elsewhere) = std::mem::take(letters).into_iter().partition(is_here);
        *letters = elsewhere;
        Some((inbox, here))
    }
}

fn note(ended: Result<(), LinkError>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

/// Sends what comes into an agent's outbox.
async fn write(agent: Arc<Agent>, sender: Sender) {
    let error = agent.send_all(sender).await;
    agent.close(CloseCode::Late, &error.to_string());
}
