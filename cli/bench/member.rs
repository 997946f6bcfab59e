//! Many agents in one process: each with its own certificate, connection and ledger, as the agent's daemon has them. What it lacks are executors:
//! a task ends as soon as it is started, and nothing of it is put on record.

use agent::drive::{Turns, Ways};
use agent::fingerprint::random;
use agent::ledger::event::{Answer, Event, Output, Start};
use agent::ledger::{Ledger, LedgerConfig};
use anyhow::{Context, bail};
use protocol::identity::{self, Identity, JoinToken};
use protocol::link::{self, Connection, Port, Receiver, Sender};
use protocol::message::{Hello, HelloReply, JoinReply, ToAgent, ToShard};
use protocol::{AgentId, AgentInfo, AttemptId, Exit, FaultDomain, MemberId, PortRange, Resources, Time, Usage};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, mpsc};

/// Milliseconds between heartbeats until a master says otherwise.
const HEARTBEAT_MS: u64 = 500;

/// Tasks of jobs whose names begin so run until the bench ends; all others end as soon as they start.
pub const STAYS: &str = "stay";
/// Agents of a rack.
const RACK: usize = 40;
/// The wait before a master is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// Batches of one master's messages that wait to be handled.
const HEARD_MAX: usize = 4;

/// One of them.
pub struct Member {
    agent: AgentId,
    identity: Arc<Identity>,
    port: Port,
    masters: Vec<SocketAddr>,
    ledger: Ledger,
    ways: Ways,
    turns: Turns,
    /// A place is held until it has found its leader: all of them share these cores, which machines of their own would not.
    starting: Arc<Semaphore>,
    heard: mpsc::Receiver<(u16, Heard)>,
    hearing: mpsc::Sender<(u16, Heard)>,
    /// Of all of them, by master.
    counts: Arc<Vec<Count>>,
}

/// The connections of all to one master.
#[derive(Debug, Default)]
pub struct Count {
    /// How many there are, as far as their agents know.
    pub up: AtomicUsize,
    /// How many have ended.
    pub ended: AtomicUsize,
}

/// What comes from a master.
enum Heard {
    Up(Connection, Sender, u16),
    Messages(Vec<ToAgent>),
    Down(anyhow::Error),
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
        domain: FaultDomain { region: "eu".into(), zone: format!("eu-{}", number / RACK % 3 + 1), rack: format!("r{}", number / RACK + 1) },
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..AgentInfo::default()
    }
}

impl Member {
    /// Number `number`, of these masters; `counts` counts all connections, by master.
    ///
    /// # Errors
    /// That there is no port for it.
    pub fn new(
        masters: &[SocketAddr],
        identity: &Identity,
        number: usize,
        (counts, starting): (Arc<Vec<Count>>, Arc<Semaphore>),
    ) -> anyhow::Result<Self> {
        let agent: AgentId = identity.agent().context("a certificate for no agent")?;
        let config = LedgerConfig { agent, info: info(number), reservations: vec![], heartbeat_ms: HEARTBEAT_MS, lends: false };
        let ledger = Ledger::new(config, u64::from_le_bytes(random()?), "crowd".into());
        let (hearing, heard) = mpsc::channel(HEARD_MAX * masters.len());
        let port = Port::towards(*masters.first().context("no masters")?)?;
        let identity = Arc::new(identity.clone());
        let (masters, ways, turns) = (masters.to_vec(), Ways::default(), Turns::default());
        Ok(Self { agent, identity, port, masters, ledger, ways, turns, starting, heard, hearing, counts })
    }

    /// Nothing counted yet, for so many masters.
    #[must_use]
    pub fn count(masters: usize) -> Arc<Vec<Count>> {
        Arc::new((0..masters).map(|_| Count::default()).collect())
    }

    /// Does what an agent does. A master that is not there or goes away is tried again, for ever.
    ///
    /// # Errors
    /// That a master does not want it, or that the only one gave it up.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let starting = Arc::clone(&self.starting).acquire_owned().await?;
        let (mut starting, mut knocked) = (Some(starting), tokio::time::Instant::now());
        (0..).zip(&self.masters).for_each(|(master, address)| self.open(master, *address));
        loop {
            self.act()?;
            self.ways.flush().await;
            if self.turns.take(self.agent, &self.ways, &self.ledger) {
                knocked = tokio::time::Instant::now();
            }
            starting = starting.filter(|_| !self.ways.is_served(self.agent));
            let knock = knocked + self.ways.knock_each(self.agent, self.ledger.heartbeat_ms());
            let wait = self.ledger.poll_timeout().map(|at| Duration::from_millis(at.since(now())));
            tokio::select! {
                Some((master, heard)) = self.heard.recv() => self.hear(master, heard)?,
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => self.ledger.handle(now(), Event::Tick),
                () = tokio::time::sleep_until(knock) => {
                    self.ways.knock(self.agent);
                    knocked = tokio::time::Instant::now();
                }
            }
        }
    }

    fn up(&mut self, master: u16, (connection, sender, shards): (Connection, Sender, u16)) {
        let events = self.ways.up(master, shards, connection, sender);
        self.handle(events);
        self.counts[usize::from(master)].up.fetch_add(1, Ordering::Relaxed);
    }

    fn handle(&mut self, events: Vec<Event>) {
        let at = now();
        events.into_iter().for_each(|event| self.ledger.handle(at, event));
    }

    fn hear(&mut self, master: u16, heard: Heard) -> anyhow::Result<()> {
        match heard {
            Heard::Up(connection, sender, shards) => self.up(master, (connection, sender, shards)),
            Heard::Messages(messages) => {
                let events = self.ways.heard(master, messages);
                self.handle(events);
            }
            Heard::Down(error) if self.masters.len() == 1 => return Err(error),
            Heard::Down(_) => {
                let events = self.ways.down(master);
                self.handle(events);
                let count = &self.counts[usize::from(master)];
                count.up.fetch_sub(1, Ordering::Relaxed);
                count.ended.fetch_add(1, Ordering::Relaxed);
                self.open(master, self.masters[usize::from(master)]);
            }
        }
        Ok(())
    }

    /// Tries one master until it is reached, each time when it is its turn.
    fn open(&self, master: u16, address: SocketAddr) {
        let (port, identity, hearing, turns) = (self.port.clone(), Arc::clone(&self.identity), self.hearing.clone(), self.turns.clone());
        let called = address.to_string();
        tokio::spawn(async move {
            loop {
                let turn = turns.wait(&called).await;
                match open(&port, address, &identity, master, &hearing).await {
                    Ok((connection, sender, shards)) => {
                        // The bench may have ended.
                        let _ = hearing.send((master, Heard::Up(connection, sender, shards))).await;
                        return turn.settle().await;
                    }
                    Err(error) => tracing::debug!(master, %error, "a master is not reached"),
                }
                drop(turn);
                tokio::time::sleep(RETRY).await;
            }
        });
    }

    fn act(&mut self) -> anyhow::Result<()> {
        while let Some(output) = self.ledger.poll_output() {
            match output {
                Output::Send { shard, message } => {
                    let events = self.ways.send(ToShard { shard, message });
                    self.handle(events);
                }
                Output::Prepare { bundle, form } => self.ledger.handle(now(), Event::Prepared { bundle, form, result: Ok(()) }),
                Output::Start(start) => self.start(&start),
                Output::Check(questions) => {
                    let answers = questions.into_iter().map(|question| (question.id, Answer::Well)).collect();
                    self.ledger.handle(now(), Event::Checked { answers });
                }
                Output::Quit { reason } => bail!("the master does not want it: {reason}"),
                // It is never started again, and no task of it lasts.
                Output::Checkpoint(_) | Output::Stop { .. } | Output::Renew { .. } | Output::Forget { .. } | Output::Message { .. } => {}
            }
        }
        Ok(())
    }

    fn start(&mut self, Start { launch, .. }: &Start) {
        let attempts = launch.attempts.iter().map(|(index, number)| AttemptId::new(launch.job, *index, *number));
        let members: Vec<MemberId> = attempts.flat_map(|attempt| MemberId::all(attempt, &launch.template)).collect();
        let (at, ended) = (now(), |member| (member, Exit::Code(0), Usage::default()));
        self.ledger.handle(at, Event::Started { members: members.iter().map(|member| (*member, at)).collect() });
        if launch.title.starts_with(STAYS) {
            return;
        }
        self.ledger.handle(at, Event::Ended { members: members.into_iter().map(ended).collect() });
    }
}

/// Connects to one master, and has what it says heard.
async fn open(
    port: &Port,
    address: SocketAddr,
    identity: &Identity,
    master: u16,
    hearing: &mpsc::Sender<(u16, Heard)>,
) -> anyhow::Result<(Connection, Sender, u16)> {
    let connection = port.connect(address, identity).await?;
    let (mut sender, mut receiver) = connection.open_control().await?;
    sender.send(&Hello { version: env!("CARGO_PKG_VERSION").to_owned() }).await?;
    let HelloReply { shards, .. } = receiver.next().await?.context("the master ended the stream")?;
    tokio::spawn(listen(connection.clone(), receiver, master, hearing.clone()));
    Ok((connection, sender, shards))
}

async fn listen(connection: Connection, mut receiver: Receiver, master: u16, hearing: mpsc::Sender<(u16, Heard)>) {
    let error = loop {
        let first = match receiver.next::<ToAgent>().await {
            Ok(Some(first)) => first,
            Ok(None) => break anyhow::anyhow!("the master ended the stream: {:?}", connection.close_reason()),
            Err(error) => break error.into(),
        };
        let mut messages = vec![first];
        while let Ok(Some(next)) = receiver.try_next() {
            messages.push(next);
        }
        if hearing.send((master, Heard::Messages(messages))).await.is_err() {
            return;
        }
    };
    // The bench may have ended.
    let _ = hearing.send((master, Heard::Down(error))).await;
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
