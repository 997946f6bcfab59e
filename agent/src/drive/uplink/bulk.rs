//! The way to the masters: joins once, connects, renews the certificate before it expires, and connects again after an ever longer wait. A
//! task of its own; what it hears goes to the door in batches, what the door says goes straight to the stream.

use futures::FutureExt;
use protocol::identity::{self, Identity, JoinToken};
use protocol::link::{self, CloseCode, Connection, LinkError, Receiver, Sender};
use protocol::message::{BulkReply, BulkRequest, Hello, HelloReply, JoinReply, ToAgent};
use protocol::{MemberId, ids::SHARDS_MAX};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::AgentError;
use crate::exec;
use crate::fingerprint::random;
use crate::logs::{self, Place};
use crate::usage::{self, Watched};

/// The wait before the second try to connect; doubled each time, then drawn between its half and its whole.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// The longest such wait.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// How long a machine without an identity tries to join.
const JOIN_TRIES_MAX: u32 = 12;
/// How long a connected agent waits before it looks again whether its certificate is due.
const RENEW_LOOK: Duration = Duration::from_secs(300);
/// A master that accepts and then does not answer is given up after this.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);
/// Most messages that go to the door at once.
const BATCH_MAX: usize = 256;
/// Most outputs of tasks that are sent at the same time; more are refused.
const LOGS_MAX: usize = 64;

/// What the uplink says to the door.
pub(super) enum Heard {
    /// There is a connection.
    Up { connection: Connection, sender: Sender, shards: u16 },
    /// Messages.
    Messages(Vec<ToAgent>),
    /// It is gone.
    Down,
    /// A master says that this agent is never to come back.
    Revoked,
    /// Somebody wants to know where the output of a member of an attempt is.
    WhereIsLog { member: MemberId, answer: oneshot::Sender<Place> },
    /// Somebody wants to know what running tasks use.
    Usage { answer: oneshot::Sender<Watched> },
    /// Somebody wants to run a program beside a member.
    Exec {
        member: MemberId,
        command: Vec<String>,
        terminal: Option<(u16, u16)>,
        answer: oneshot::Sender<Result<tokio::net::UnixStream, String>>,
    },
}

pub(super) struct Uplink {
    pub masters: Vec<String>,
    /// Where the identity is kept.
    pub dir: PathBuf,
    pub identity: Identity,
    pub heard: mpsc::Sender<Heard>,
}

/// The identity in `dir`, or the one that the token gets.
pub(super) async fn identity(dir: &std::path::Path, masters: &[String], token: Option<&JoinToken>) -> Result<Identity, AgentError> {
    if let Some(identity) = Identity::load(dir)? {
        return Ok(identity);
    }
    let token = token.ok_or_else(|| AgentError::NoIdentity { dir: dir.to_owned() })?;
    let mut wait = Wait::default();
    for tries in 1.. {
        let error = match join(masters, token).await {
            Ok(identity) => {
                identity.save(dir)?;
                return Ok(identity);
            }
            Err(error @ AgentError::Refused { .. }) => return Err(error),
            Err(error) if tries == JOIN_TRIES_MAX => return Err(error),
            Err(error) => error,
        };
        tracing::warn!(%error, "could not join yet");
        wait.sleep().await;
    }
    unreachable!("the last try returns")
}

async fn join(masters: &[String], token: &JoinToken) -> Result<Identity, AgentError> {
    let mut last = AgentError::NoMaster { masters: masters.to_vec() };
    for address in resolve(masters).await {
        let (key_der, csr_der) = identity::csr()?;
        match link::join(address, token, csr_der).await {
            Ok(JoinReply::Welcome { agent, chain_der, .. }) => {
                let identity = Identity::new(chain_der, key_der)?;
                if identity.agent() != Some(agent) {
                    return Err(AgentError::Refused { reason: "the master gave a certificate that is not for the agent it named".into() });
                }
                return Ok(identity);
            }
            Ok(JoinReply::Refused { reason }) => return Err(AgentError::Refused { reason }),
            Err(error) => last = AgentError::Link(error),
        }
    }
    Err(last)
}

impl Uplink {
    /// Keeps a connection for as long as the door listens.
    pub async fn run(mut self) {
        let mut wait = Wait::default();
        while !self.heard.is_closed() {
            for address in resolve(&self.masters).await {
                let began = tokio::time::Instant::now();
                if let Err(error) = self.session(address).await {
                    if matches!(error, LinkError::Closed { code: CloseCode::Revoked, .. }) {
                        return drop(self.heard.send(Heard::Revoked).await);
                    }
                    tracing::warn!(%address, %error, "no connection to the master");
                }
                // A master that takes it in and sends it away is not asked ever faster.
                if began.elapsed() > RETRY_MAX {
                    wait = Wait::default();
                }
            }
            wait.sleep().await;
        }
    }

    /// One connection from its beginning to its end.
    async fn session(&mut self, address: SocketAddr) -> Result<(), LinkError> {
        if self.identity.lifetime_left().is_zero() {
            self.renew(address).await?; // An expired certificate is good for nothing else.
        }
        let connection = link::connect(address, &self.identity).await?;
        let late = |_| LinkError::Late { what: "the master's first answer", deadline: HELLO_DEADLINE };
        let (sender, receiver, shards) = tokio::time::timeout(HELLO_DEADLINE, greet(&connection)).await.map_err(late)??;
        tracing::info!(%address, shards, "connected");
        if self.heard.send(Heard::Up { connection: connection.clone(), sender, shards }).await.is_err() {
            return Ok(());
        }
        let bulk = tokio::spawn(serve_bulk(connection.clone(), self.heard.clone()));
        let ended = self.listen(address, receiver).await;
        bulk.abort();
        connection.close(CloseCode::Leaving, "");
        drop(self.heard.send(Heard::Down).await);
        match ended {
            Err(error @ LinkError::Closed { code: CloseCode::Revoked, .. }) => Err(error),
            Err(error) => {
                tracing::warn!(%address, %error, "the connection to the master ended");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    async fn listen(&mut self, address: SocketAddr, mut receiver: Receiver) -> Result<(), LinkError> {
        let mut look = tokio::time::interval(RENEW_LOOK);
        loop {
            let first = tokio::select! {
                first = receiver.next::<ToAgent>() => first?,
                _ = look.tick() => {
                    if self.identity.is_due() && let Err(error) = self.renew(address).await {
                        tracing::warn!(%error, "the certificate could not be renewed yet");
                    }
                    continue;
                }
            };
            let Some(first) = first else { return Ok(()) };
            let mut messages = vec![first];
            while messages.len() < BATCH_MAX {
                let Some(next) = receiver.try_next()? else { break };
                messages.push(next);
            }
            if self.heard.send(Heard::Messages(messages)).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Gets a new certificate and keeps it; the next connection is made with it.
    async fn renew(&mut self, address: SocketAddr) -> Result<(), LinkError> {
        let (key_der, csr_der) = identity::csr()?;
        match link::renew(address, &self.identity, csr_der).await? {
            JoinReply::Welcome { chain_der, .. } => {
                let identity = Identity::new(chain_der, key_der)?;
                if identity.agent() != self.identity.agent() {
                    return Err(LinkError::NotAllowed { remote: address, reason: "it gave a certificate for another agent".into() });
                }
                identity.save(&self.dir)?;
                self.identity = identity;
                tracing::info!("the certificate is renewed");
                Ok(())
            }
            JoinReply::Refused { reason } => Err(LinkError::NotAllowed { remote: address, reason }),
        }
    }
}

async fn greet(connection: &Connection) -> Result<(Sender, Receiver, u16), LinkError> {
    let (mut sender, mut receiver) = connection.open_control().await?;
    sender.send(&Hello { version: env!("CARGO_PKG_VERSION").to_owned() }).await?;
    let reply: HelloReply = receiver.next().await?.ok_or(LinkError::Reset)?;
    if reply.shards == 0 || reply.shards > SHARDS_MAX {
        let reason = format!("it says that its cluster has {} shards", reply.shards);
        return Err(LinkError::NotAllowed { remote: connection.remote(), reason });
    }
    Ok((sender, receiver, reply.shards))
}

/// Answers what the master asks on streams of its own.
async fn serve_bulk(connection: Connection, heard: mpsc::Sender<Heard>) {
    let places = Arc::new(Semaphore::new(LOGS_MAX));
    loop {
        let (sender, receiver) = match connection.accept_bulk().await {
            Ok(streams) => streams,
            Err(LinkError::Late { .. } | LinkError::Frame(_) | LinkError::Truncated { .. } | LinkError::Reset) => continue,
            Err(_) => return,
        };
        let (heard, place) = (heard.clone(), Arc::clone(&places).try_acquire_owned());
        tokio::spawn(async move {
            let served = match place {
                Ok(_place) => serve_one(sender, receiver, heard).await,
                Err(_) => logs::last(sender, BulkReply::Failed { reason: format!("{LOGS_MAX} outputs are being sent already") }).await,
            };
            if let Err(error) = served {
                tracing::debug!(%error, "the output of a task was not sent to its end");
            }
        });
    }
}

async fn serve_one(sender: Sender, mut receiver: Receiver, heard: mpsc::Sender<Heard>) -> Result<(), LinkError> {
    let Some(request) = receiver.try_next()? else { return Ok(()) };
    let (member, offset, follow) = match request {
        BulkRequest::Log { member, offset, follow } => (member, offset, follow),
        BulkRequest::Exec { member, command, terminal } => {
            let session = session(member, command, terminal, &heard).await;
            return exec::serve(session, sender, receiver).await;
        }
        BulkRequest::Usage => {
            let (answer, answered) = oneshot::channel();
            let asked = heard.send(Heard::Usage { answer }).await.is_ok();
            let watched = if asked { answered.await.ok() } else { None };
            return usage::serve(watched.unwrap_or_default(), sender).await;
        }
        BulkRequest::Bundle { .. } | BulkRequest::Input { .. } => {
            return logs::last(sender, BulkReply::Failed { reason: "an agent gives nothing but what its tasks do".into() }).await;
        }
    };
    let place = move || {
        let (heard, (answer, answered)) = (heard.clone(), oneshot::channel());
        let asked = async move {
            heard.send(Heard::WhereIsLog { member, answer }).await.ok()?;
            answered.await.ok()
        };
        asked.boxed()
    };
    tokio::select! {
        served = logs::serve(member, offset, follow, place, sender) => served,
        // Whoever follows says nothing more: this is its end, or nonsense.
        _ = receiver.next::<BulkRequest>(), if follow => Ok(()),
    }
}

/// A program beside a task, or why there is none.
async fn session(
    member: MemberId,
    command: Vec<String>,
    terminal: Option<(u16, u16)>,
    heard: &mpsc::Sender<Heard>,
) -> Result<tokio::net::UnixStream, String> {
    let (answer, answered) = oneshot::channel();
    let leaving = || "the agent is leaving".to_owned();
    heard.send(Heard::Exec { member, command, terminal, answer }).await.map_err(|_| leaving())?;
    answered.await.map_err(|_| leaving())?
}

/// The addresses of all masters; names that nobody knows at the moment are passed over.
async fn resolve(masters: &[String]) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for master in masters {
        match tokio::net::lookup_host(master).await {
            Ok(found) => addresses.extend(found.filter(|address| !addresses.contains(address)).collect::<Vec<_>>()),
            Err(error) => tracing::warn!(%master, %error, "the master's name is not known"),
        }
    }
    addresses
}

/// Waits that grow.
struct Wait(Duration);

impl Default for Wait {
    fn default() -> Self {
        Self(RETRY_FIRST)
    }
}

impl Wait {
    async fn sleep(&mut self) {
        // Without randomness all agents of a rack would come at the same moment; where there is none, nothing worse happens.
        let drawn = random::<4>().map_or(u32::MAX / 2, u32::from_le_bytes);
        let half = self.0 / 2;
        tokio::time::sleep(half + half.mul_f64(f64::from(drawn) / f64::from(u32::MAX))).await;
        self.0 = (2 * self.0).min(RETRY_MAX);
    }
}
