//! One address of a master: connects, greets, listens, renews the certificate before it expires, and connects again after a wait. Of several
//! addresses that lead to the same master one has a connection, and the others wait until it is gone.

use futures::FutureExt;
use protocol::identity::Identity;
use protocol::ids::SHARDS_MAX;
use protocol::link::{self, CloseCode, Connection, LinkError, Receiver, Sender, Who};
use protocol::message::{FromMaster, Hello, HelloReply, ToAgent};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use super::{Heard, Shared, Wait, about, bulk, resolve};

/// The wait before the second try to connect; doubled each time, then drawn between its half and its whole.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// The longest such wait, counted from the beginning of the try before: a master that comes back is found within about a second.
const RETRY_MAX: Duration = Duration::from_secs(1);
/// A connection that held for so long was none of a master that takes the agent in and sends it away.
const HELD_LONG: Duration = Duration::from_secs(10);
/// The wait before it is looked again whether an address still leads to a master that there is a connection to; doubled each time.
const LOOK_FIRST: Duration = Duration::from_secs(10);
/// The longest such wait.
const LOOK_MAX: Duration = Duration::from_secs(300);
/// How long a connected agent waits before it looks again whether its certificate is due.
const RENEW_LOOK: Duration = Duration::from_secs(300);
/// A master that accepts and then does not answer is given up after this.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);
/// Most messages that go to the door at once.
const BATCH_MAX: usize = 256;

/// Why a session is over for good.
pub(super) enum Ended {
    /// Nobody says any more that there is a master.
    Unwanted { address: String },
    /// The master says that this agent is never to come back.
    Revoked,
}

/// What came of one try.
enum Tried {
    /// There was a connection.
    Connected,
    /// Another session has the connection to this master.
    Held { master: u16 },
}

/// Keeps a connection to the master at `address` for as long as it is wanted.
pub(super) async fn run(shared: Arc<Shared>, address: String) -> Ended {
    let (mut wait, mut look) = (Wait::new(RETRY_FIRST, RETRY_MAX), Wait::new(LOOK_FIRST, LOOK_MAX));
    let mut failures = 0_u64;
    while shared.is_wanted(&address) {
        let began = Instant::now();
        match once(&shared, &address).await {
            Ok(Tried::Held { master }) => {
                tracing::debug!(address, master, "another address leads to this master");
                let mut held = shared.held.subscribe();
                let gone = held.wait_for(|held| !held.contains_key(&master));
                let _ = tokio::time::timeout(look.draw(), gone).await;
                continue;
            }
            Ok(Tried::Connected) => failures = 0,
            Err(LinkError::Closed { code: CloseCode::Revoked, .. }) => return Ended::Revoked,
            Err(error) if failures == 0 => {
                tracing::warn!(address, %error, "no connection to the master: it is tried again until there is one");
                failures = 1;
            }
            Err(error) => {
                tracing::debug!(address, %error, failures, "no connection to the master");
                failures += 1;
            }
        }
        look.reset();
        let lasted = began.elapsed();
        // A master that takes it in and sends it away is not asked ever faster.
        if lasted > HELD_LONG {
            wait.reset();
        }
        tokio::time::sleep(wait.draw().saturating_sub(lasted).max(about(RETRY_FIRST))).await;
    }
    Ended::Unwanted { address }
}

/// One connection from its beginning to its end.
async fn once(shared: &Shared, address: &str) -> Result<Tried, LinkError> {
    let mut found = resolve(address).await;
    if let Some(master) = {
        let held = shared.held.borrow();
        let first = held.iter().find(|(_, remote)| found.contains(remote)).map(|(master, _)| *master);
        found.retain(|found| !held.values().any(|remote| remote == found));
        first.filter(|_| found.is_empty())
    } {
        return Ok(Tried::Held { master });
    }
    renew_expired(shared, &found).await?;
    let turn = shared.turns.wait(address).await;
    let connection = connect(&found, &shared.identity()).await?;
    let Who::Master(master) = connection.who() else {
        return Err(LinkError::NotAllowed { remote: connection.remote(), reason: "it is no master".into() });
    };
    let Some(_claim) = shared.claim(master, connection.remote()) else {
        connection.close(CloseCode::Leaving, "there is another connection to this master");
        return Ok(Tried::Held { master });
    };
    let late = |_| LinkError::Late { what: "the master's first answer", deadline: HELLO_DEADLINE };
    let (sender, receiver, shards) = tokio::time::timeout(HELLO_DEADLINE, greet(&connection)).await.map_err(late)??;
    tracing::info!(address, master, shards, "connected");
    if shared.heard.send(Heard::Up { master, shards, connection: connection.clone(), sender }).await.is_err() {
        return Ok(Tried::Connected);
    }
    tokio::spawn(turn.settle());
    let serving = tokio::spawn(bulk::serve(connection.clone(), shared.heard.clone()));
    let ended = listen(shared, master, connection.remote(), receiver).await;
    serving.abort();
    connection.close(CloseCode::Leaving, "");
    // Said before another session may have a connection to this master.
    drop(shared.heard.send(Heard::Down { master }).await);
    match ended {
        Err(error @ LinkError::Closed { code: CloseCode::Revoked, .. }) => return Err(error),
        Err(error) => tracing::warn!(address, master, %error, "the connection to the master ended"),
        Ok(()) => tracing::info!(address, master, "the master ended the connection"),
    }
    Ok(Tried::Connected)
}

/// An expired certificate is good for nothing but to get another.
async fn renew_expired(shared: &Shared, addresses: &[SocketAddr]) -> Result<(), LinkError> {
    if !shared.identity().lifetime_left().is_zero() {
        return Ok(());
    }
    let only_one = shared.renewing.acquire().await.expect("the semaphore is never closed");
    let mut last = Ok(());
    for address in addresses {
        if !shared.identity().lifetime_left().is_zero() {
            return Ok(()); // By another session, while this one waited.
        }
        last = shared.renew(&only_one, *address).await;
        if last.is_ok() {
            break;
        }
    }
    last
}

/// The first of these that answers.
async fn connect(addresses: &[SocketAddr], identity: &Identity) -> Result<Connection, LinkError> {
    let tries: Vec<_> = addresses.iter().map(|address| link::connect(*address, identity).boxed()).collect();
    if tries.is_empty() {
        return Err(LinkError::Lost { reason: "nobody knows this name at the moment".into() });
    }
    Ok(futures::future::select_ok(tries).await?.0)
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

async fn listen(shared: &Shared, master: u16, remote: SocketAddr, mut receiver: Receiver) -> Result<(), LinkError> {
    let mut look = tokio::time::interval(RENEW_LOOK);
    loop {
        let first = tokio::select! {
            first = receiver.next::<ToAgent>() => first?,
            _ = look.tick() => {
                if shared.identity().is_due()
                    && let Ok(only_one) = shared.renewing.try_acquire()
                    && let Err(error) = shared.renew(&only_one, remote).await
                {
                    tracing::warn!(%error, "the certificate could not be renewed yet");
                }
                continue;
            }
        };
        let Some(first) = first else { return Ok(()) };
        let (mut next, mut messages) = (Some(first), vec![]);
        while let Some(ToAgent { shard, message }) = next {
            match message {
                FromMaster::Masters { addresses } => shared.named(addresses),
                message => messages.push(ToAgent { shard, message }),
            }
            next = if messages.len() < BATCH_MAX { receiver.try_next()? } else { None };
        }
        if !messages.is_empty() && shared.heard.send(Heard::Messages { master, messages }).await.is_err() {
            return Ok(());
        }
    }
}
