//! Many agents in one process: each with its own certificate, connection and ledger, as the agent's daemon has them. What it lacks are executors:
//! a task ends as soon as it is started, and nothing of it is put on record.

use agent::fingerprint::random;
use agent::ledger::event::{Event, Output, Start};
use agent::ledger::{Ledger, LedgerConfig};
use anyhow::{Context, bail};
use protocol::identity::{self, Identity, JoinToken};
use protocol::link::{self, Connection, Receiver, Sender};
use protocol::message::{Hello, HelloReply, JoinReply, ToAgent, ToShard};
use protocol::{AgentId, AgentInfo, AttemptId, Exit, MemberId, PortRange, Resources, ShardId, Time, Usage};
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds between heartbeats until a master says otherwise.
const HEARTBEAT_MS: u64 = 500;

/// One of them.
pub struct Member {
    connection: Connection,
    sender: Sender,
    receiver: Receiver,
    ledger: Ledger,
    shards: u16,
}

/// Joins with a token of its own.
///
/// # Errors
/// What the master says, or the link.
pub async fn join(master: SocketAddr, token: &JoinToken) -> anyhow::Result<Identity> {
    let (key_der, csr_der) = identity::csr()?;
    match link::join(master, token, csr_der).await? {
        JoinReply::Welcome { chain_der, .. } => Ok(Identity::new(chain_der, key_der)?),
        JoinReply::Refused { reason } => bail!("the master refuses: {reason}"),
        JoinReply::Master { .. } => bail!("the master takes this agent for a master"),
    }
}

/// What each says of itself.
fn info(number: usize) -> AgentInfo {
    AgentInfo {
        name: format!("crowd-{number}"),
        capacity: Resources { cpu_milli: 16_000, memory_bytes: 64 << 30, disk_bytes: 64 << 30, ports: 1_000, devices: vec![] },
        ports: vec![PortRange { first: 20_000, last: 20_999 }],
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..AgentInfo::default()
    }
}

impl Member {
    /// Connects as number `number`.
    ///
    /// # Errors
    /// The link's.
    pub async fn connect(master: SocketAddr, identity: &Identity, number: usize) -> anyhow::Result<Self> {
        let agent: AgentId = identity.agent().context("a certificate for no agent")?;
        let connection = link::connect(master, identity).await?;
        let (mut sender, mut receiver) = connection.open_control().await?;
        sender.send(&Hello { version: env!("CARGO_PKG_VERSION").to_owned() }).await?;
        let HelloReply { shards, .. } = receiver.next().await?.context("the master ended the stream")?;
        let config = LedgerConfig { agent, info: info(number), heartbeat_ms: HEARTBEAT_MS };
        let ledger = Ledger::new(config, u64::from_le_bytes(random()?), "crowd".into());
        Ok(Self { connection, sender, receiver, ledger, shards })
    }

    /// Does what an agent does, until the connection ends.
    ///
    /// # Errors
    /// The link's, or that the master does not want it.
    pub async fn run(mut self) -> anyhow::Result<()> {
        self.ledger.handle(now(), Event::Connected { shards: self.shards });
        // There is one master.
        (0..self.shards).map(ShardId).for_each(|shard| self.ledger.handle(now(), Event::Led { shard }));
        loop {
            self.act()?;
            self.sender.flush().await?;
            let wait = self.ledger.poll_timeout().map(|at| std::time::Duration::from_millis(at.since(now())));
            tokio::select! {
                heard = self.receiver.next::<ToAgent>() => {
                    let mut next = Some(heard?.with_context(|| format!("the master ended the stream: {:?}", self.connection.close_reason()))?);
                    while let Some(ToAgent { shard, message }) = next {
                        self.ledger.handle(now(), Event::Master { shard, message });
                        next = self.receiver.try_next()?;
                    }
                }
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => self.ledger.handle(now(), Event::Tick),
            }
        }
    }

    fn act(&mut self) -> anyhow::Result<()> {
        while let Some(output) = self.ledger.poll_output() {
            match output {
                Output::Send { shard, message } => self.sender.queue(&ToShard { shard, message })?,
                Output::Prepare { bundle, form } => self.ledger.handle(now(), Event::Prepared { bundle, form, result: Ok(()) }),
                Output::Start(start) => self.start(&start),
                Output::Quit { reason } => bail!("the master does not want it: {reason}"),
                // It is never started again, and no task of it lasts.
                Output::Checkpoint(_) | Output::Stop { .. } | Output::Renew { .. } | Output::Forget { .. } => {}
            }
        }
        Ok(())
    }

    fn start(&mut self, Start { launch, .. }: &Start) {
        let attempts = launch.attempts.iter().map(|(index, number)| AttemptId::new(launch.job, *index, *number));
        let members: Vec<MemberId> = attempts.flat_map(|attempt| MemberId::all(attempt, &launch.template)).collect();
        let (at, ended) = (now(), |member| (member, Exit::Code(0), Usage::default()));
        self.ledger.handle(at, Event::Started { members: members.iter().map(|member| (*member, at)).collect() });
        self.ledger.handle(at, Event::Ended { members: members.into_iter().map(ended).collect() });
    }
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
