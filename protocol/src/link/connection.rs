//! One connection: who is at the other end, its streams, and its end.

use super::admission::Place;
use super::pulse::{Listening, Pulsing, ResetToken, Resets};
use super::stream::{Receiver, Sender};
use super::{ALPN_FORMER, ALPN_PEER_FORMER, FIRST_FRAME_DEADLINE, LinkError, VERSION, Who, tls};
use quinn::AsyncUdpSocket;
use serde::Serialize;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Why a connection is closed, for programs. The numbers stand on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// The process ends, or has no more to say.
    Leaving,
    /// The other side said what it should not have.
    Misbehaved,
    /// The other side's certificate was revoked.
    Revoked,
    /// The same agent has a newer connection.
    Replaced,
    /// The other side's certificate does not allow what it wants.
    NotAllowed,
    /// The other side was too slow.
    Late,
    /// This side has no room.
    Full,
    /// A number that this version does not know.
    Other(u64),
}

const CODES: [CloseCode; 7] = [
    CloseCode::Leaving,
    CloseCode::Misbehaved,
    CloseCode::Revoked,
    CloseCode::Replaced,
    CloseCode::NotAllowed,
    CloseCode::Late,
    CloseCode::Full,
];

impl CloseCode {
    pub(super) fn number(self) -> quinn::VarInt {
        let known = CODES.iter().position(|code| *code == self);
        let number = match (self, known) {
            (Self::Other(number), _) => number,
            (_, position) => position.expect("CODES holds every code with a name") as u64,
        };
        quinn::VarInt::from_u64(number).unwrap_or(quinn::VarInt::MAX)
    }

    fn of(number: quinn::VarInt) -> Self {
        let number = number.into_inner();
        let known = usize::try_from(number).ok().and_then(|index| CODES.get(index));
        known.copied().unwrap_or(Self::Other(number))
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaving => f.write_str("leaving"),
            Self::Misbehaved => f.write_str("misbehaved"),
            Self::Revoked => f.write_str("revoked"),
            Self::Replaced => f.write_str("replaced by a newer connection"),
            Self::NotAllowed => f.write_str("not allowed"),
            Self::Late => f.write_str("too late"),
            Self::Full => f.write_str("no room"),
            Self::Other(number) => write!(f, "code {number}"),
        }
    }
}

/// A connection. Clones are the same one; it closes when all of them, and all its streams, are dropped.
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    quinn: quinn::Connection,
    who: Who,
    version: u16,
    /// Held so that an agent's connection leaves the listener's list, or a stranger's place is freed, when it is over.
    _place: Option<Place>,
    endpoint: quinn::Endpoint,
    aside: Aside,
}

/// What goes beside the connection.
pub(super) enum Aside {
    /// Nothing.
    Nothing,
    /// The pulses of an agent, for as long as the connection is open.
    Hears(Mutex<Option<Listening>>),
    /// Pulses to a master, once it has said what it does not know them by.
    Says { socket: Arc<dyn AsyncUdpSocket>, resets: Arc<Resets>, pulsing: OnceLock<Option<Pulsing>> },
}

impl Connection {
    pub(super) fn new(quinn: quinn::Connection, who: Who, endpoint: quinn::Endpoint, place: Option<Place>, aside: Aside) -> Self {
        let former = matches!(tls::protocol(&quinn).as_deref(), Some(ALPN_FORMER | ALPN_PEER_FORMER));
        let version = if former { VERSION - 1 } else { VERSION };
        Self { inner: Arc::new(Inner { quinn, who, version, _place: place, endpoint, aside }) }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn who(&self) -> Who {
        self.inner.who
    }

    /// The version of the messages that both ends speak.
    #[must_use]
    pub fn version(&self) -> u16 {
        self.inner.version
    }

    /// How many certificates the other end has shown.
    #[cfg(test)]
    pub(super) fn shown(&self) -> usize {
        tls::shown(&self.inner.quinn)
    }

    /// Where the other end is.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.inner.quinn.remote_address()
    }

    /// The round trip to the other end as last estimated.
    #[must_use]
    pub fn round_trip(&self) -> std::time::Duration {
        self.inner.quinn.rtt()
    }

    /// Opens the control stream; the agent does, once. The other side learns of it with the first flush.
    ///
    /// # Errors
    /// The connection's end.
    pub async fn open_control(&self) -> Result<(Sender, Receiver), LinkError> {
        let streams = self.open_bulk().await?;
        streams.0.prefer();
        Ok(streams)
    }

    /// The control stream that the other side opened, its first frame wholly here. To be called at once, and once. Not to be cancelled.
    ///
    /// # Errors
    /// [`LinkError::Late`] where [`FIRST_FRAME_DEADLINE`] passes first, what is no frame, and the connection's end.
    pub async fn accept_control(&self) -> Result<(Sender, Receiver), LinkError> {
        let late = |_| LinkError::Late { what: "the control stream", deadline: FIRST_FRAME_DEADLINE };
        let streams = tokio::time::timeout(FIRST_FRAME_DEADLINE, self.accept_bulk()).await.map_err(late)??;
        streams.0.prefer();
        Ok(streams)
    }

    /// Opens a stream for one transfer, waiting while the other side allows no more. It learns of it with the first flush.
    ///
    /// # Errors
    /// The connection's end.
    pub async fn open_bulk(&self) -> Result<(Sender, Receiver), LinkError> {
        let (send, receive) = self.inner.quinn.open_bi().await.map_err(connection_error)?;
        Ok((Sender::new(send, self.clone()), Receiver::new(receive, self.clone())))
    }

    /// The next stream that the other side opened, its first frame wholly here. Not to be cancelled after a stream has come (it would be
    /// given up): await it in a task of its own.
    ///
    /// # Errors
    /// [`LinkError::Late`] and what is no frame concern that stream only: the connection may go on. All others are the connection's end.
    pub async fn accept_bulk(&self) -> Result<(Sender, Receiver), LinkError> {
        let (sender, mut receiver) = self.accept_stream().await?;
        receiver.wait_first().await?;
        Ok((sender, receiver))
    }

    /// The next stream that the other side opened, as soon as it is here; its first frame is for [`Receiver::first`]. Cancelled, it has lost nothing.
    ///
    /// # Errors
    /// The connection's end.
    pub async fn accept_stream(&self) -> Result<(Sender, Receiver), LinkError> {
        let (send, receive) = self.inner.quinn.accept_bi().await.map_err(connection_error)?;
        Ok((Sender::new(send, self.clone()), Receiver::new(receive, self.clone())))
    }

    /// What an agent at the other end is to be told, so that it may send pulses ([`Connection::begin_pulses`]); `None` where it is no agent
    /// or the connection is over.
    #[must_use]
    pub fn reset_token(&self) -> Option<ResetToken> {
        let Aside::Hears(listening) = &self.inner.aside else { return None };
        listening.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Listening::token)
    }

    /// From now on the master at the other end takes pulses; it says with `token` that it does not know the connection, which is then closed.
    pub fn begin_pulses(&self, token: ResetToken) {
        if let Aside::Says { socket, resets, pulsing } = &self.inner.aside {
            pulsing.get_or_init(|| Pulsing::new(&self.inner.quinn, &self.inner, (socket, resets), token));
        }
    }

    /// Says something beside the connection: at most once, perhaps never, and whatever else is said before or after. False where it cannot
    /// be said so: it is too long, or the master takes no pulses.
    #[must_use]
    pub fn pulse<T: Serialize>(&self, message: &T) -> bool {
        let Aside::Says { pulsing, .. } = &self.inner.aside else { return false };
        let Some(Some(pulsing)) = pulsing.get() else { return false };
        let mut space = [0; super::PULSE_BYTES_MAX];
        postcard::to_slice(message, &mut space).is_ok_and(|said| pulsing.send(said))
    }

    /// Asks the master, beside the connection, whether it still knows it: only one that does not answers. Nothing where it takes no pulses.
    pub fn knock(&self) {
        if let Aside::Says { pulsing, .. } = &self.inner.aside
            && let Some(Some(pulsing)) = pulsing.get()
        {
            pulsing.send(&[]);
        }
    }

    /// Closes it at once: what is flushed and not yet acknowledged may be lost. The first call counts.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.inner.close(code, reason);
    }

    /// Waits for its end and says what ended it.
    pub async fn closed(&self) -> LinkError {
        connection_error(self.inner.quinn.closed().await)
    }

    /// What ended it, if anything has.
    #[must_use]
    pub fn close_reason(&self) -> Option<LinkError> {
        self.inner.quinn.close_reason().map(connection_error)
    }

    /// Waits until good-byes are sent, those of the other connections of its port included: for a process that ends after
    /// [`Connection::close`].
    pub async fn drained(&self) {
        self.inner.endpoint.wait_idle().await;
    }

    /// A pulse as the agent's end would send it.
    #[cfg(test)]
    pub(super) fn sealed(&self, number: u64, said: &[u8]) -> Vec<u8> {
        super::pulse::sealed(&self.inner.quinn, number, said)
    }

    #[cfg(test)]
    pub(super) fn quinn_port(&self) -> u16 {
        self.inner.endpoint.local_addr().unwrap().port()
    }

    /// As if the process had started again.
    #[cfg(test)]
    pub(super) fn forget_pulses(&self) {
        if let Aside::Hears(listening) = &self.inner.aside {
            listening.lock().unwrap().take();
        }
    }

    #[cfg(test)]
    pub(super) fn quinn(&self) -> &quinn::Connection {
        &self.inner.quinn
    }

    pub(super) fn downgrade(&self) -> std::sync::Weak<Inner> {
        Arc::downgrade(&self.inner)
    }
}

impl Inner {
    pub(super) fn close(&self, code: CloseCode, reason: &str) {
        if let Aside::Hears(listening) = &self.aside {
            listening.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        self.quinn.close(code.number(), reason.as_bytes());
    }
}

pub(super) fn connection_error(error: quinn::ConnectionError) -> LinkError {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason).chars().filter(|c| !c.is_control()).collect();
            LinkError::Closed { code: CloseCode::of(close.error_code), reason }
        }
        quinn::ConnectionError::ConnectionClosed(close) => match certificate_refusal(close.error_code) {
            Some(code) => LinkError::Closed { code, reason: close.to_string() },
            None => LinkError::Lost { reason: close.to_string() },
        },
        quinn::ConnectionError::LocallyClosed => LinkError::ClosedHere,
        error => LinkError::Lost { reason: error.to_string() },
    }
}

pub(super) fn write_error(error: quinn::WriteError) -> LinkError {
    match error {
        quinn::WriteError::ConnectionLost(error) => connection_error(error),
        _ => LinkError::Reset,
    }
}

pub(super) fn read_error(error: quinn::ReadError) -> LinkError {
    match error {
        quinn::ReadError::ConnectionLost(error) => connection_error(error),
        _ => LinkError::Reset,
    }
}

/// What a TLS alert (RFC 8446 section 6.2) in QUIC's dress (RFC 9001 section 4.8) says of the certificate that we showed.
fn certificate_refusal(code: quinn::TransportErrorCode) -> Option<CloseCode> {
    const CERTIFICATE_REVOKED: u8 = 44;
    // bad_certificate, unsupported_certificate, certificate_expired, certificate_unknown, unknown_ca, access_denied, certificate_required
    const OTHERS: [u8; 7] = [42, 43, 45, 46, 48, 49, 116];
    if code == quinn::TransportErrorCode::crypto(CERTIFICATE_REVOKED) {
        return Some(CloseCode::Revoked);
    }
    OTHERS.into_iter().any(|alert| code == quinn::TransportErrorCode::crypto(alert)).then_some(CloseCode::NotAllowed)
}
