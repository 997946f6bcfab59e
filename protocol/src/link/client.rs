//! The agent's end: connecting, joining and renewing.

use super::{Connection, LinkError};
use crate::identity::{Identity, JoinToken};
use crate::message::JoinReply;
use std::net::SocketAddr;

/// Connects to a master as `identity`. The master is who its certificate says, not who answers at an address.
///
/// # Errors
/// [`LinkError::Handshake`] and [`LinkError::Late`].
pub async fn connect(address: SocketAddr, identity: &Identity) -> Result<Connection, LinkError> {
    let _ = (address, identity);
    unimplemented!()
}

/// Shows a join token and a certificate signing request to a master whose root certificate is the one that the token names.
///
/// # Errors
/// As [`connect`].
pub async fn join(address: SocketAddr, token: &JoinToken, csr_der: Vec<u8>) -> Result<JoinReply, LinkError> {
    let _ = (address, token, csr_der);
    unimplemented!()
}

/// Asks for a new certificate with the present one, which may have expired.
///
/// # Errors
/// As [`connect`].
pub async fn renew(address: SocketAddr, identity: &Identity, csr_der: Vec<u8>) -> Result<JoinReply, LinkError> {
    let _ = (address, identity, csr_der);
    unimplemented!()
}
