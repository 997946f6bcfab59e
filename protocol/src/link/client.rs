//! The agent's end: connecting, joining and renewing.

use super::connection::{Aside, connection_error};
use super::pulse::Resets;
use super::tls::{self, SERVER_NAME, Trust};
use super::{ALPN, ALPN_JOIN, ALPN_PEER, CONNECT_DEADLINE, CloseCode, Connection, LinkError, Who, transport};
use crate::Digest;
use crate::identity::{Identity, JoinToken, Subject};
use crate::message::{Join, JoinReply};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// From the request for a certificate until the answer: the token's end is made durable first.
const JOIN_DEADLINE: Duration = Duration::from_secs(10);
/// A handshake that is not answered for so long is tried again beside the first try, whose packets are sent again ever later: a master that
/// was not there for the first of them would be found late.
const SECOND_TRY: Duration = Duration::from_secs(3);
/// How long a good-bye may take.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// A UDP port of its own, from which any number of connections may be opened; it is closed when it and all of them are dropped.
#[derive(Clone)]
pub struct Port {
    endpoint: quinn::Endpoint,
    socket: Arc<dyn quinn::AsyncUdpSocket>,
    resets: Arc<Resets>,
}

/// What a connection may use.
type Means = fn(Arc<dyn quinn::crypto::ClientConfig>) -> quinn::ClientConfig;

impl Port {
    /// Takes a free port to speak to `address`, and to others of the same kind (IPv4 or IPv6), from.
    ///
    /// # Errors
    /// [`LinkError::Socket`].
    pub fn towards(address: SocketAddr) -> Result<Self, LinkError> {
        let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let (socket, _) = transport::socket(SocketAddr::new(any, 0))?;
        let resets = Arc::new(Resets::default());
        let endpoint = transport::endpoint(resets.sieve(Arc::clone(&socket)), None)?;
        Ok(Self { endpoint, socket, resets })
    }

    /// As [`connect`], from this port.
    ///
    /// # Errors
    /// As [`connect`].
    pub async fn connect(&self, address: SocketAddr, identity: &Identity) -> Result<Connection, LinkError> {
        let trust = Trust::Known(identity);
        let mut first = Box::pin(self.connect_as(address, &trust, ALPN));
        match tokio::time::timeout(SECOND_TRY, &mut first).await {
            Ok(connected) => connected,
            Err(_) => {
                let mut second = Box::pin(self.connect_as(address, &trust, ALPN));
                tokio::select! {
                    connected = &mut first => if connected.is_ok() { connected } else { second.await },
                    connected = &mut second => if connected.is_ok() { connected } else { first.await },
                }
            }
        }
    }

    async fn connect_as(&self, address: SocketAddr, trust: &Trust<'_>, alpn: &[u8]) -> Result<Connection, LinkError> {
        self.connect_by(address, trust, alpn, if alpn == ALPN_PEER { transport::peer } else { transport::client }).await
    }

    pub(super) async fn connect_by(&self, address: SocketAddr, trust: &Trust<'_>, alpn: &[u8], by: Means) -> Result<Connection, LinkError> {
        let config = by(Arc::new(tls::client(trust, alpn)?));
        let failed = |reason: String| LinkError::Handshake { remote: address, reason };
        let connecting = self.endpoint.connect_with(config, address, SERVER_NAME).map_err(|error| failed(error.to_string()))?;
        let shaken = tokio::time::timeout(CONNECT_DEADLINE, connecting).await;
        let late = |_| LinkError::Late { what: "a handshake", deadline: CONNECT_DEADLINE };
        let quinn = shaken.map_err(late)?.map_err(|error| failed(connection_error(error).to_string()))?;
        match tls::peer(&quinn).map(|peer| peer.subject) {
            Some(Subject::Master(number)) => {
                let (socket, resets) = (Arc::clone(&self.socket), Arc::clone(&self.resets));
                let aside = Aside::Says { socket, resets, pulsing: OnceLock::new() };
                Ok(Connection::new(quinn, Who::Master(number), self.endpoint.clone(), None, aside))
            }
            _ => Err(failed("it is no master".into())),
        }
    }
}

/// Connects to a master as `identity`. The master is who its certificate says, not who answers at an address.
///
/// # Errors
/// [`LinkError::Socket`], [`LinkError::Tls`], [`LinkError::Handshake`] and [`LinkError::Late`]. A master that does not let this agent in
/// (revoked, expired, no room) says so by closing: the first use of the connection then fails with [`LinkError::Closed`] or
/// [`LinkError::Lost`].
pub async fn connect(address: SocketAddr, identity: &Identity) -> Result<Connection, LinkError> {
    Port::towards(address)?.connect(address, identity).await
}

/// Connects to another master as a master.
///
/// # Errors
/// As [`connect`].
pub async fn connect_master(address: SocketAddr, identity: &Identity) -> Result<Connection, LinkError> {
    connect_as(address, &Trust::Known(identity), ALPN_PEER).await
}

/// Shows a token for masters to a master whose root certificate is the one that the token names, and says where the new one is: `quic` as
/// `HOST:PORT`, `http` as a URL.
///
/// # Errors
/// As [`connect`], and [`LinkError::NotAllowed`] where the answer has another root's certificate in it.
pub async fn join_master(address: SocketAddr, token: &JoinToken, quic: String, http: String) -> Result<JoinReply, LinkError> {
    let request = Join::Master { id: token.id.clone(), secret: token.secret.clone(), quic, http };
    ask(address, &Trust::Pinned(token.root), token.root, &request).await
}

/// Shows a join token and a certificate signing request to a master whose root certificate is the one that the token names.
///
/// # Errors
/// As [`connect`], and [`LinkError::NotAllowed`] where the answer has another root's certificates in it.
pub async fn join(address: SocketAddr, token: &JoinToken, csr_der: Vec<u8>) -> Result<JoinReply, LinkError> {
    let request = Join::Token { id: token.id.clone(), secret: token.secret.clone(), csr_der };
    ask(address, &Trust::Pinned(token.root), token.root, &request).await
}

/// Asks for a new certificate with the present one, which may have expired.
///
/// # Errors
/// As [`join`].
pub async fn renew(address: SocketAddr, identity: &Identity, csr_der: Vec<u8>) -> Result<JoinReply, LinkError> {
    ask(address, &Trust::Known(identity), Digest::of(identity.root_der()), &Join::Renew { csr_der }).await
}

pub(super) async fn connect_as(address: SocketAddr, trust: &Trust<'_>, alpn: &[u8]) -> Result<Connection, LinkError> {
    Port::towards(address)?.connect_as(address, trust, alpn).await
}

/// One question on a connection of its own, and its answer.
async fn ask(address: SocketAddr, trust: &Trust<'_>, root: Digest, request: &Join) -> Result<JoinReply, LinkError> {
    let connection = connect_as(address, trust, ALPN_JOIN).await?;
    let answer = async {
        let (mut sender, mut receiver) = connection.open_control().await?;
        sender.send(request).await?;
        receiver.next::<JoinReply>().await?.ok_or(LinkError::Truncated { have: 0 })
    };
    let answered = tokio::time::timeout(JOIN_DEADLINE, answer).await;
    connection.close(CloseCode::Leaving, "answered");
    // Nobody waits for what comes after: late is as good as done.
    let _ = tokio::time::timeout(DRAIN_MAX, connection.drained()).await;
    let reply = answered.map_err(|_| LinkError::Late { what: "the answer to a request for a certificate", deadline: JOIN_DEADLINE })??;
    match &reply {
        JoinReply::Welcome { chain_der, .. } if chain_der.last().is_none_or(|der| Digest::of(der) != root) => {
            Err(LinkError::NotAllowed { remote: address, reason: "it gave certificates of another cluster".into() })
        }
        JoinReply::Master { root_der, .. } if Digest::of(root_der) != root => {
            Err(LinkError::NotAllowed { remote: address, reason: "it gave certificates of another cluster".into() })
        }
        _ => Ok(reply),
    }
}
