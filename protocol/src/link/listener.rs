//! The master's end: who is let in, and who no longer is.

use super::admission::{Admission, Place, Refusal, UNPROVEN_MAX};
use super::connection::{Aside, CloseCode, connection_error};
use super::pulse::{Hearts, Pulses};
use super::{
    ALPN, ALPN_FORMER, ALPN_JOIN, ALPN_PEER, ALPN_PEER_FORMER, Connection, HANDSHAKE_DEADLINE, Limits, LinkError, ResetKey, Who, tls,
    transport,
};
use crate::AgentId;
use crate::identity::{Identity, Subject};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

/// Who has waited for so long is passed over until it sends its first packet again, as it does before it gives up: who is turned to is there still,
/// however many come at once.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// A handshake that takes longer holds up no other: the peer is far away, or means ill.
const TURN_MAX: Duration = Duration::from_millis(200);

/// A master's UDP port.
pub struct Listener {
    endpoint: quinn::Endpoint,
    address: SocketAddr,
    pub(super) admission: Arc<Admission>,
    hearts: Arc<Hearts>,
    heard: tokio::sync::Mutex<mpsc::Receiver<Pulses>>,
    limits: Limits,
    receive_buffer_bytes: usize,
}

/// A peer that has sent its first packet. Dropped, it is turned away.
pub struct Incoming {
    incoming: quinn::Incoming,
    endpoint: quinn::Endpoint,
    admission: Arc<Admission>,
    hearts: Arc<Hearts>,
    place: Place,
    says_master: bool,
    agents_max: usize,
}

impl Listener {
    /// Listens at `address`. To be called inside a tokio runtime, which drives the port from then on.
    ///
    /// # Errors
    /// [`LinkError::Socket`] and [`LinkError::Tls`].
    pub fn bind(address: SocketAddr, identity: &Identity, reset: &ResetKey, limits: Limits) -> Result<Self, LinkError> {
        let admission = Arc::new(Admission::default());
        let crypto = tls::server(identity, admission.clone())?;
        let (socket, receive_buffer_bytes) = transport::socket(address)?;
        let (hearts, heard) = Hearts::new(reset.pulses());
        let endpoint = transport::endpoint(hearts.sieve(socket), Some((transport::server(Arc::new(crypto), &limits), reset)))?;
        let address = endpoint.local_addr().map_err(|source| LinkError::Socket { address, source })?;
        if receive_buffer_bytes < transport::RECEIVE_BUFFER_BYTES {
            let wanted = transport::RECEIVE_BUFFER_BYTES;
            tracing::warn!(receive_buffer_bytes, wanted, "a small UDP receive buffer: for many agents raise net.core.rmem_max");
        }
        Ok(Self { endpoint, address, admission, hearts, heard: tokio::sync::Mutex::new(heard), limits, receive_buffer_bytes })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many bytes of packets the system holds for it: less than 8 MiB where it was not allowed more.
    #[must_use]
    pub fn receive_buffer_bytes(&self) -> usize {
        self.receive_buffer_bytes
    }

    /// Shows `identity` to all who come from now on: a master renews its certificate so.
    ///
    /// # Errors
    /// [`LinkError::Tls`].
    pub fn set_identity(&self, identity: &Identity) -> Result<(), LinkError> {
        let crypto = tls::server(identity, self.admission.clone())?;
        self.endpoint.set_server_config(Some(transport::server(Arc::new(crypto), &self.limits)));
        Ok(())
    }

    /// The next peer; `None` after [`Listener::close`]. Each is to be admitted in a task of its own, for that may take
    /// [`HANDSHAKE_DEADLINE`] and the wait for its turn. Cancelled, it has lost nobody.
    pub async fn accept(&self) -> Option<Incoming> {
        loop {
            let incoming = self.endpoint.accept().await?;
            if self.admission.strangers() >= UNPROVEN_MAX && !incoming.remote_address_validated() && incoming.may_retry() {
                // It fails only where no retry is allowed, and that was asked.
                let _ = incoming.retry();
                continue;
            }
            let says_master = transport::is_marked(&incoming.orig_dst_cid());
            let Some(place) = self.admission.stranger(says_master) else {
                incoming.refuse();
                continue;
            };
            let (endpoint, admission, hearts) = (self.endpoint.clone(), self.admission.clone(), self.hearts.clone());
            return Some(Incoming { incoming, endpoint, admission, hearts, place, says_master, agents_max: self.limits.connections_max });
        }
    }

    /// Pulses of agents that were read together; waits for them. `None` after the last.
    pub async fn pulses(&self) -> Option<Pulses> {
        self.heard.lock().await.recv().await
    }

    /// Lets this agent in no more, and closes the connections that it has. To be said again after each start: the list is in memory.
    pub fn revoke(&self, agent: AgentId) {
        self.admission.revoke(agent);
    }

    /// Closes the port and all its connections.
    pub fn close(&self, reason: &str) {
        self.endpoint.close(CloseCode::Leaving.number(), reason.as_bytes());
    }

    /// Waits until all its connections are over, so that a process that ends does not end before its good-byes are sent.
    pub async fn drained(&self) {
        self.endpoint.wait_idle().await;
    }
}

impl Incoming {
    /// Where it is, by its own word until it is admitted.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// True where it is a master, by its own word until it is admitted: what masters say to each other need not wait for what thousands of agents
    /// do where this one is admitted on a runtime of its own, which drives the connection from then on. A master of an earlier version does not
    /// say so.
    #[must_use]
    pub const fn says_master(&self) -> bool {
        self.says_master
    }

    #[cfg(test)]
    pub(super) fn is_proven(&self) -> bool {
        self.incoming.remote_address_validated()
    }

    /// Shakes hands when it is its turn, within [`HANDSHAKE_DEADLINE`], and says who it is. The tokio runtime that this is called in drives the
    /// connection.
    ///
    /// # Errors
    /// [`LinkError::Late`], [`LinkError::Handshake`] and [`LinkError::NotAllowed`]: the peer has been told and is gone, unless its turn did not come:
    /// then it comes again by itself.
    pub async fn admit(self) -> Result<(Who, Connection), LinkError> {
        let Self { incoming, endpoint, admission, hearts, place, says_master, agents_max } = self;
        let remote = incoming.remote_address();
        let turns = if says_master { &admission.masters_shaking } else { &admission.shaking };
        let handshake = |error| LinkError::Handshake { remote, reason: connection_error(error).to_string() };
        let Ok(turn) = tokio::time::timeout(WAIT_MAX, turns.acquire()).await else {
            incoming.ignore();
            return Err(LinkError::Late { what: "a peer's turn to shake hands", deadline: WAIT_MAX });
        };
        let turn = turn.expect("the semaphore is never closed");
        let mut connecting = incoming.accept().map_err(handshake)?;
        let shaken = match tokio::time::timeout(TURN_MAX, &mut connecting).await {
            Ok(shaken) => Ok(shaken),
            Err(_) => {
                drop(turn);
                tokio::time::timeout(HANDSHAKE_DEADLINE.saturating_sub(TURN_MAX), connecting).await
            }
        };
        let quinn = shaken.map_err(|_| LinkError::Late { what: "a handshake", deadline: HANDSHAKE_DEADLINE })?.map_err(handshake)?;
        let not_allowed = |code: CloseCode, reason: &str| {
            quinn.close(code.number(), reason.as_bytes());
            LinkError::NotAllowed { remote, reason: reason.into() }
        };
        let who = who(&quinn).map_err(|reason| not_allowed(CloseCode::NotAllowed, reason))?;
        if says_master && !matches!(who, Who::Master(_)) {
            return Err(not_allowed(CloseCode::NotAllowed, "it said that it is a master"));
        }
        let refused = |refusal| match refusal {
            Refusal::Revoked => not_allowed(CloseCode::Revoked, "the agent's certificate was revoked"),
            Refusal::Full => not_allowed(CloseCode::Full, "this master has as many connections as it may have"),
        };
        let connection = match who {
            Who::Agent(agent) => {
                let place = admission.agent(agent, agents_max).map_err(refused)?;
                transport::raise(&quinn);
                let aside = Aside::Hears(Mutex::new(hearts.listen(&quinn, agent)));
                let connection = Connection::new(quinn.clone(), who, endpoint, Some(place), aside);
                admission.enlist(agent, connection.downgrade()).map_err(refused)?;
                connection
            }
            Who::Master(_) => {
                transport::raise_master(&quinn);
                Connection::new(quinn, who, endpoint, None, Aside::Nothing)
            }
            _ => Connection::new(quinn, who, endpoint, Some(place), Aside::Nothing),
        };
        Ok((who, connection))
    }
}

/// Who is at the other end, by its certificate and the protocol it chose; or why it may not be.
fn who(quinn: &quinn::Connection) -> Result<Who, &'static str> {
    let peer = tls::peer(quinn);
    match (tls::protocol(quinn).as_deref(), peer.map(|peer| (peer.subject, peer.is_expired))) {
        (Some(ALPN | ALPN_FORMER), Some((Subject::Agent(agent), false))) => Ok(Who::Agent(agent)),
        (Some(ALPN | ALPN_FORMER), Some((Subject::Agent(_), true))) => Err("the certificate has expired: it may only be renewed"),
        (Some(ALPN | ALPN_FORMER), None) => Err("no certificate was shown"),
        (Some(ALPN_PEER | ALPN_PEER_FORMER), Some((Subject::Master(number), false))) => Ok(Who::Master(number)),
        (Some(ALPN_JOIN), Some((Subject::Agent(agent), _))) => Ok(Who::Renewing(agent)),
        (Some(ALPN_JOIN), None) => Ok(Who::Stranger),
        _ => Err("neither an agent or a master nor one that may become one"),
    }
}
