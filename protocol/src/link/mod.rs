//! QUIC with mutual TLS: the one link that master and agent speak over.
//!
//! Knows connections, streams of frames, who is at the other end and what a stranger may cost. Knows no message but the frames it moves.
//! An agent opens one connection to a master, and on it one control stream that stands as long as the connection; each transfer of bulk
//! is a stream of its own. What an agent says again and again goes beside the connection (`pulse`). Nothing here spawns a task: what quinn drives, it drives; the rest happens where the caller awaits.

mod admission;
mod client;
mod connection;
mod listener;
mod pulse;
mod stream;
mod tls;
mod transport;

#[cfg(test)]
mod tests;

use crate::AgentId;
use crate::frame::FrameError;
use crate::identity::IdentityError;
use std::net::SocketAddr;
use std::time::Duration;

pub use client::{Port, connect, connect_master, join, join_master, renew};
pub use connection::{CloseCode, Connection};
pub use listener::{Incoming, Listener};
pub use pulse::{PULSE_BYTES_MAX, Pulses, ResetToken};
pub use stream::{QUEUED_BYTES_MAX, Receiver, STRANGER_FRAME_BYTES_MAX, Sender};
pub use tls::install_crypto;
pub use transport::{Limits, ResetKey};

/// The version of the messages that this build speaks best. It speaks the one before too: a connection has the newest that both ends speak, and
/// what came with a version is said only over connections that have it ([`Connection::version`]). So masters and agents may be upgraded one
/// after the other, in any order.
pub const VERSION: u16 = 3;
/// Protocol of a connection between master and agent (ALPN, RFC 7301): its number is the version of the messages.
pub const ALPN: &[u8] = b"skep/3";
/// The same, of the version before.
pub const ALPN_FORMER: &[u8] = b"skep/2";
/// Protocol of a connection that may only ask for a certificate.
pub const ALPN_JOIN: &[u8] = b"skep-join/1";
/// Protocol of a connection between two masters: its number is the version of what they say.
pub const ALPN_PEER: &[u8] = b"skep-peer/3";
/// The same, of the version before.
pub const ALPN_PEER_FORMER: &[u8] = b"skep-peer/2";
/// From the moment at which a listener turns to a peer until both sides know each other.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(3);
/// From the first packet to a listener until both sides know each other: a listener to which a thousand come at once turns to them one after
/// the other.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(6);
/// From a stream's first byte (a control stream's: from the connection's beginning) until its first frame is whole.
pub const FIRST_FRAME_DEADLINE: Duration = Duration::from_secs(2);

/// Who is at the other end of a connection, by its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// An agent of this cluster, neither expired nor revoked: on `skep/3` or `skep/2`.
    Agent(AgentId),
    /// An agent of this cluster that wants a new certificate, its present one expired or not, but not revoked: it may only say
    /// `Join::Renew`.
    Renewing(AgentId),
    /// Anybody: it may only say `Join::Token`.
    Stranger,
    /// A master of this cluster: what an agent that connected sees, and another master on `skep-peer/3` or `skep-peer/2`.
    Master(u16),
}

/// Why a link, a connection or a stream fails.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No socket at this address.
    #[error("no UDP socket at {address}: {source}")]
    Socket {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// An identity that TLS does not take.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS would not be set up.
    #[error("setting up TLS: {reason}")]
    Tls {
        /// In rustls' words.
        reason: String,
    },
    /// A handshake that failed: the other side's certificate, its protocol, or what it thinks of ours.
    #[error("no connection with {remote}: {reason}")]
    Handshake {
        /// The other side.
        remote: SocketAddr,
        /// What was wrong.
        reason: String,
    },
    /// The peer may not do what it asks.
    #[error("{remote} is not let in: {reason}")]
    NotAllowed {
        /// The other side.
        remote: SocketAddr,
        /// Why.
        reason: String,
    },
    /// Something did not come in time.
    #[error("{what} took longer than {deadline:?}")]
    Late {
        /// What was awaited.
        what: &'static str,
        /// How long.
        deadline: Duration,
    },
    /// The peer closed the connection.
    #[error("closed by the other side: {code}: {reason}")]
    Closed {
        /// Why, for programs.
        code: CloseCode,
        /// Why, for people.
        reason: String,
    },
    /// This side closed the connection.
    #[error("closed by this side")]
    ClosedHere,
    /// The connection broke: silence, a reset or a breach of QUIC.
    #[error("connection lost: {reason}")]
    Lost {
        /// In quinn's words.
        reason: String,
    },
    /// The peer gave the stream up in the middle.
    #[error("the stream was given up by the other side")]
    Reset,
    /// The stream ended inside a frame.
    #[error("the stream ended {have} bytes into a frame")]
    Truncated {
        /// Bytes of the frame that came, its header counted.
        have: usize,
    },
    /// Bytes that are no frame, or a message too long for one.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A long frame from a peer that is no agent yet.
    #[error("a frame of {bytes} bytes: at most {STRANGER_FRAME_BYTES_MAX} are allowed on a connection that asks for a certificate")]
    StrangerFrame {
        /// How long.
        bytes: usize,
    },
    /// More is queued than [`QUEUED_BYTES_MAX`]; flush first.
    #[error("{queued} bytes are queued and not flushed: at most {max} may be", max = QUEUED_BYTES_MAX)]
    Backlog {
        /// How many.
        queued: usize,
    },
}
