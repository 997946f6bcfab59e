//! The master's end: who is let in, and who no longer is.

use super::{Connection, Limits, LinkError, Who};
use crate::AgentId;
use crate::identity::Identity;
use std::net::SocketAddr;

/// A master's UDP port.
pub struct Listener {
    address: SocketAddr,
}

/// A peer that has sent its first packet.
pub struct Incoming {}

/// A place in the listener's books, freed when it is dropped.
pub(super) struct Place {}

impl Listener {
    /// Listens at `address`. To be called inside a tokio runtime, which drives the port from then on.
    ///
    /// # Errors
    /// [`LinkError::Socket`], [`LinkError::Tls`], [`LinkError::Identity`].
    pub fn bind(address: SocketAddr, identity: &Identity, limits: Limits) -> Result<Self, LinkError> {
        let _ = (address, identity, limits);
        unimplemented!()
    }
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
    /// The next peer; `None` after [`Listener::close`]. Each is to be admitted in a task of its own.
    pub async fn accept(&self) -> Option<Incoming> {
        unimplemented!()
    }
    /// Lets this agent in no more and closes the connections that it has.
    pub fn revoke(&self, agent: AgentId) {
        let _ = agent;
    }
    /// Closes the port and all its connections.
    pub fn close(&self, reason: &str) {
        let _ = reason;
    }
}

impl Incoming {
    /// Shakes hands, within [`super::HANDSHAKE_DEADLINE`], and says who it is.
    ///
    /// # Errors
    /// [`LinkError::Late`], [`LinkError::Handshake`], [`LinkError::NotAllowed`]: the peer is gone then.
    pub async fn admit(self) -> Result<(Who, Connection), LinkError> {
        unimplemented!()
    }
}
