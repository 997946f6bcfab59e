//! Handshakes good and bad, streams, limits. All over loopback with real sockets; what is awaited has the link's own deadlines.

mod handshake;
mod pulses;
mod streams;

use super::*;
use crate::identity::tests::Folder;
use crate::identity::{AGENT_LIFETIME, Authority, Identity, MASTER_LIFETIME, Span, csr};

/// A cluster of one listener.
struct Cluster {
    authority: Authority,
    listener: Listener,
    folder: Folder,
}

impl Cluster {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let folder = Folder::new();
        let authority = folder.authority();
        let master = authority.issue_master(1, &[], MASTER_LIFETIME).unwrap();
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), &master, &authority.reset_key(1), limits).unwrap();
        Self { authority, listener, folder }
    }

    /// The listener of the same master after another start.
    fn again(&self) -> Listener {
        let master = self.authority.issue_master(1, &[], MASTER_LIFETIME).unwrap();
        Listener::bind("127.0.0.1:0".parse().unwrap(), &master, &self.authority.reset_key(1), Limits::default()).unwrap()
    }

    fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    fn agent(&self, id: u64) -> Identity {
        let (key, request) = csr().unwrap();
        Identity::new(self.authority.issue_agent(AgentId(id), &request, AGENT_LIFETIME).unwrap(), key).unwrap()
    }

    fn agent_for(&self, id: u64, span: Span) -> Identity {
        let (key, request) = csr().unwrap();
        Identity::new(self.authority.issue_agent_for(AgentId(id), &request, span).unwrap(), key).unwrap()
    }

    async fn admit(&self) -> Result<(Who, Connection), LinkError> {
        self.listener.accept().await.unwrap().admit().await
    }

    /// Both ends of a connection of agent 7.
    async fn pair(&self) -> (Connection, Connection) {
        let agent = self.agent(7);
        let (connected, admitted) = tokio::join!(connect(self.address(), &agent), self.admit());
        let (who, admitted) = admitted.unwrap();
        assert_eq!(who, Who::Agent(AgentId(7)));
        (connected.unwrap(), admitted)
    }
}
