//! The ways to the masters: for each address that is known of one a session, a task of its own. Joins once; knows which addresses there are,
//! which masters a session has a connection to, and the certificate that all show. What is heard goes to the door in batches, what the door
//! says goes straight to the streams.

mod bulk;
mod join;
mod masters;
mod session;
#[cfg(test)]
mod tests;

use protocol::identity::{self, Identity};
use protocol::link::{self, Connection, LinkError, Sender};
use protocol::message::{JoinReply, ToAgent};
use protocol::{AgentChange, MemberId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::turns::{Turns, drawn};
use crate::logs::Place;
use crate::usage::Watched;
pub(super) use join::identity;
use session::Ended;

/// What the uplink says to the door.
pub(super) enum Heard {
    /// There is a connection to this master, to which there was none.
    Up { master: u16, shards: u16, connection: Connection, sender: Sender },
    /// Messages of this master.
    Messages { master: u16, messages: Vec<ToAgent> },
    /// The connection to this master is gone.
    Down { master: u16 },
    /// A master says that this agent is never to come back.
    Revoked,
    /// Somebody wants to know where the output of a member of an attempt is.
    WhereIsLog { member: MemberId, answer: oneshot::Sender<Place> },
    /// Somebody wants to know what running tasks use.
    Usage { answer: oneshot::Sender<Watched> },
    /// An operator wants it to be so from now on.
    Change { change: AgentChange, answer: oneshot::Sender<Result<(), String>> },
    /// Somebody wants to run a program beside a member.
    Exec {
        member: MemberId,
        command: Vec<String>,
        terminal: Option<(u16, u16)>,
        answer: oneshot::Sender<Result<tokio::net::UnixStream, String>>,
    },
}

pub(super) struct Uplink {
    /// Masters that the operator named.
    pub masters: Vec<String>,
    /// Where those are kept that masters named.
    pub data_dir: PathBuf,
    /// Where the identity is kept.
    pub identity_dir: PathBuf,
    pub identity: Identity,
    pub turns: Turns,
    pub heard: mpsc::Sender<Heard>,
}

/// What the sessions share.
struct Shared {
    masters: Vec<String>,
    /// Masters that a master named last.
    said: watch::Sender<Vec<String>>,
    /// Masters that a session has a connection to, and where they are.
    held: watch::Sender<BTreeMap<u16, SocketAddr>>,
    identity: watch::Sender<Arc<Identity>>,
    identity_dir: PathBuf,
    /// One session at a time gets a new certificate.
    renewing: Semaphore,
    turns: Turns,
    heard: mpsc::Sender<Heard>,
}

/// That a session, and no other, has the connection to a master; until it is dropped.
struct Claim<'a> {
    shared: &'a Shared,
    master: u16,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.shared.held.send_if_modified(|held| held.remove(&self.master).is_some());
    }
}

impl Uplink {
    /// Keeps a session for each address, for as long as the door listens.
    pub async fn run(self) {
        let file = self.data_dir.join(masters::FILE);
        let shared = Arc::new(Shared {
            masters: self.masters,
            said: watch::Sender::new(masters::load(&file)),
            held: watch::Sender::default(),
            identity: watch::Sender::new(Arc::new(self.identity)),
            identity_dir: self.identity_dir,
            renewing: Semaphore::new(1),
            turns: self.turns,
            heard: self.heard,
        });
        let mut said = shared.said.subscribe();
        let (mut sessions, mut addresses) = (JoinSet::new(), BTreeSet::new());
        loop {
            for address in shared.addresses() {
                if addresses.insert(address.clone()) {
                    sessions.spawn(session::run(Arc::clone(&shared), address));
                }
            }
            tokio::select! {
                Some(ended) = sessions.join_next() => match ended.expect("a session does not panic, and nobody cancels it") {
                    Ended::Unwanted { address } => drop(addresses.remove(&address)),
                    Ended::Revoked => return drop(shared.heard.send(Heard::Revoked).await),
                },
                Ok(()) = said.changed() => {
                    let said = said.borrow_and_update().clone();
                    if let Err(error) = masters::save(&file, &said) {
                        tracing::warn!(path = %file.display(), %error, "where the masters are could not be kept for the next start");
                    }
                }
                () = shared.heard.closed() => return,
            }
        }
    }
}

impl Shared {
    /// Where masters may be: those of the operator, then those of the masters.
    fn addresses(&self) -> Vec<String> {
        let said = self.said.borrow();
        self.masters.iter().chain(said.iter()).cloned().collect()
    }

    fn is_wanted(&self, address: &String) -> bool {
        !self.heard.is_closed() && (self.masters.contains(address) || self.said.borrow().contains(address))
    }

    /// A master named all masters.
    fn named(&self, addresses: Vec<String>) {
        let addresses = masters::checked(addresses);
        let is_new = |said: &mut Vec<String>| {
            let is_new = *said != addresses;
            *said = addresses;
            is_new
        };
        self.said.send_if_modified(is_new);
    }

    /// For the first session that has a connection to `master`: the others get none.
    fn claim(&self, master: u16, remote: SocketAddr) -> Option<Claim<'_>> {
        let claimed = self.held.send_if_modified(|held| match held.entry(master) {
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(remote);
                true
            }
            std::collections::btree_map::Entry::Occupied(_) => false,
        });
        claimed.then_some(Claim { shared: self, master })
    }

    fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity.borrow())
    }

    /// Gets a new certificate and keeps it; the next connections are made with it.
    async fn renew(&self, _only_one: &SemaphorePermit<'_>, address: SocketAddr) -> Result<(), LinkError> {
        let (key_der, csr_der) = identity::csr()?;
        let present = self.identity();
        match link::renew(address, &present, csr_der).await? {
            JoinReply::Welcome { chain_der, .. } => {
                let identity = Identity::new(chain_der, key_der)?;
                if identity.agent() != present.agent() {
                    return Err(LinkError::NotAllowed { remote: address, reason: "it gave a certificate for another agent".into() });
                }
                identity.save(&self.identity_dir)?;
                self.identity.send_replace(Arc::new(identity));
                tracing::info!("the certificate is renewed");
                Ok(())
            }
            JoinReply::Refused { reason } => Err(LinkError::NotAllowed { remote: address, reason }),
            JoinReply::Master { .. } => Err(LinkError::NotAllowed { remote: address, reason: "it takes this agent for a master".into() }),
        }
    }
}

/// The addresses behind a name; none where nobody knows it at the moment.
async fn resolve(master: &str) -> Vec<SocketAddr> {
    match tokio::net::lookup_host(master).await {
        Ok(found) => {
            let mut addresses: Vec<SocketAddr> = found.take(ADDRESSES_MAX).collect();
            addresses.dedup();
            addresses
        }
        Err(error) => {
            tracing::debug!(%master, %error, "the master's name is not known");
            vec![]
        }
    }
}

/// Most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

/// Waits that grow.
struct Wait {
    next: Duration,
    first: Duration,
    max: Duration,
}

impl Wait {
    const fn new(first: Duration, max: Duration) -> Self {
        Self { next: first, first, max }
    }

    /// The next wait, drawn between its half and its whole; the one after it is twice as long.
    fn draw(&mut self) -> Duration {
        let drawn = about(self.next);
        self.next = (2 * self.next).min(self.max);
        drawn
    }

    const fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Between the half and the whole of `wait`, drawn.
fn about(wait: Duration) -> Duration {
    wait.mul_f64(0.5 + 0.5 * drawn())
}
