//! Pulses: what is said so often that QUIC's own packets, acknowledgements and timers would cost more than it is worth. A pulse is one small
//! datagram beside the connection, on the same ports: sealed with a key that both ends draw from the handshake (RFC 8446, section 7.5), taken
//! once, never acknowledged, lost without harm. An agent sends them; a master that does not know their connection (any more) says so with a
//! token that it gave over that connection, as a stateless reset does (RFC 9000, section 10.3), so that the agent comes again at once.
//!
//! ```text
//! pulse:  id (8, its first two bits 0)  number (8, rises)  what is said, sealed with AES-128-GCM (0 to 64, and 16)
//! reset:  id (8)                        token (16)
//! ```
//! Numbers are little-endian. The two bits tell them from packets of QUIC, where one of them is 1 (RFC 9443); neither end allows the other to
//! leave that out (RFC 9287).

use super::connection::Inner;
use crate::AgentId;
use dashmap::DashMap;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;

/// Most bytes of what a pulse says.
pub const PULSE_BYTES_MAX: usize = 64;
/// Batches of pulses that wait to be taken; what is over is lost.
const BATCHES_MAX: usize = 1_024;
const ID_BYTES: usize = 8;
const HEAD_BYTES: usize = ID_BYTES + 8;
const TAG_BYTES: usize = 16;
const TOKEN_BYTES: usize = 16;
const RESET_BYTES: usize = ID_BYTES + TOKEN_BYTES;
const LABEL: &[u8] = b"EXPORTER-skep-pulse";
/// Packets of QUIC have one of these two bits.
const QUIC_BITS: u8 = 0xc0;

/// What a master answers pulses with whose connection it does not know; it tells it over the connection.
pub type ResetToken = [u8; TOKEN_BYTES];
/// What pulses that were read together say, and who says it.
pub type Pulses = Vec<(AgentId, Vec<u8>)>;

/// The name and the key of the pulses of one connection: the same at both ends.
struct Seal {
    id: [u8; ID_BYTES],
    key: [u8; 16],
}

impl Seal {
    /// `None` where the connection is over.
    fn of(quinn: &quinn::Connection) -> Option<Self> {
        let mut drawn = [0; ID_BYTES + 16];
        quinn.export_keying_material(&mut drawn, LABEL, b"").ok()?;
        let mut id: [u8; ID_BYTES] = drawn[..ID_BYTES].try_into().ok()?;
        let key = drawn[ID_BYTES..].try_into().ok()?;
        id[0] &= !QUIC_BITS;
        Some(Self { id, key })
    }

    fn seal(&self, number: u64, said: &[u8]) -> Vec<u8> {
        let mut datagram = Vec::with_capacity(HEAD_BYTES + said.len() + TAG_BYTES);
        datagram.extend_from_slice(&self.id);
        datagram.extend_from_slice(&number.to_le_bytes());
        let head: [u8; HEAD_BYTES] = datagram[..].try_into().expect("an id and a number");
        datagram.extend_from_slice(said);
        let sealed = cipher(&self.key).seal_in_place_separate_tag(nonce(number), Aad::from(head), &mut datagram[HEAD_BYTES..]);
        datagram.extend_from_slice(sealed.expect("it is short").as_ref());
        datagram
    }
}

#[cfg(test)]
pub(super) fn sealed(quinn: &quinn::Connection, number: u64, said: &[u8]) -> Vec<u8> {
    Seal::of(quinn).unwrap().seal(number, said)
}

/// Made for each datagram: that takes less time than to bring a longer key from memory, where there are thousands.
fn cipher(key: &[u8; 16]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key).expect("16 bytes are an AES-128 key"))
}

/// No number is used twice under one key.
fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// What sits at a port before QUIC, and takes what is not for QUIC.
trait Taker: Send + Sync + fmt::Debug + 'static {
    /// True where the datagram is not for QUIC.
    fn take(&self, datagram: &mut [u8], from: SocketAddr, socket: &dyn AsyncUdpSocket, heard: &mut Pulses) -> bool;

    /// What was heard at once.
    fn tell(&self, heard: Pulses);
}

/// A port from which datagrams that are not for QUIC are taken.
#[derive(Debug)]
struct Sieve<T> {
    socket: Arc<dyn AsyncUdpSocket>,
    taker: Arc<T>,
}

impl<T: Taker> AsyncUdpSocket for Sieve<T> {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(&self, context: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
        loop {
            let count = ready!(self.socket.poll_recv(context, bufs, meta))?;
            let (mut kept, mut heard) = (0, Pulses::new());
            for at in 0..count {
                let RecvMeta { len, stride, addr, .. } = meta[at];
                // Of one sender; a mixture of both is left to QUIC, which passes over what it does not know.
                let mut taken = len > 0;
                for datagram in bufs[at][..len].chunks_mut(stride.max(1)) {
                    taken &= datagram[0] & QUIC_BITS == 0 && self.taker.take(datagram, addr, &*self.socket, &mut heard);
                }
                if !taken {
                    bufs.swap(kept, at);
                    meta.swap(kept, at);
                    kept += 1;
                }
            }
            if !heard.is_empty() {
                self.taker.tell(heard);
            }
            if kept > 0 || count == 0 {
                return Poll::Ready(Ok(kept));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

/// A master's end: the connections whose pulses it takes.
pub(super) struct Hearts {
    known: DashMap<[u8; ID_BYTES], Heart>,
    tokens: hmac::Key,
    heard: mpsc::Sender<Pulses>,
}

struct Heart {
    agent: AgentId,
    key: [u8; 16],
    /// The highest number that was taken.
    last: u64,
}

/// That the pulses of a connection are taken, until it is dropped.
pub(super) struct Listening {
    hearts: Arc<Hearts>,
    id: [u8; ID_BYTES],
}

impl Hearts {
    /// None known; what they say comes out at the other end.
    pub(super) fn new(tokens: hmac::Key) -> (Arc<Self>, mpsc::Receiver<Pulses>) {
        let (heard, hears) = mpsc::channel(BATCHES_MAX);
        (Arc::new(Self { known: DashMap::new(), tokens, heard }), hears)
    }

    /// The port as QUIC is to see it.
    pub(super) fn sieve(self: &Arc<Self>, socket: Arc<dyn AsyncUdpSocket>) -> Arc<dyn AsyncUdpSocket> {
        Arc::new(Sieve { socket, taker: Arc::clone(self) })
    }

    /// Takes the pulses of an agent's connection from now on.
    pub(super) fn listen(self: &Arc<Self>, quinn: &quinn::Connection, agent: AgentId) -> Option<Listening> {
        let Seal { id, key } = Seal::of(quinn)?;
        self.known.insert(id, Heart { agent, key, last: 0 });
        Some(Listening { hearts: Arc::clone(self), id })
    }

    fn token(&self, id: &[u8; ID_BYTES]) -> ResetToken {
        hmac::sign(&self.tokens, id).as_ref()[..TOKEN_BYTES].try_into().expect("of 32 bytes")
    }
}

impl Taker for Hearts {
    fn take(&self, datagram: &mut [u8], from: SocketAddr, socket: &dyn AsyncUdpSocket, heard: &mut Pulses) -> bool {
        if !(HEAD_BYTES + TAG_BYTES..=HEAD_BYTES + PULSE_BYTES_MAX + TAG_BYTES).contains(&datagram.len()) {
            return true;
        }
        let (head, sealed) = datagram.split_at_mut(HEAD_BYTES);
        let head: [u8; HEAD_BYTES] = (&*head).try_into().expect("it was split there");
        let id: [u8; ID_BYTES] = head[..ID_BYTES].try_into().expect("its first half");
        let number = u64::from_le_bytes(head[ID_BYTES..].try_into().expect("its second half"));
        let Some(mut heart) = self.known.get_mut(&id) else {
            let reset = [&id[..], &self.token(&id)].concat();
            // Shorter than what it answers. Lost, it is sent again with the next.
            let _ = socket.try_send(&Transmit { destination: from, ecn: None, contents: &reset, segment_size: None, src_ip: None });
            return true;
        };
        // An older one that was overtaken says nothing new.
        if number > heart.last
            && let Ok(said) = cipher(&heart.key).open_in_place(nonce(number), Aad::from(head), sealed)
        {
            heart.last = number;
            if !said.is_empty() {
                heard.push((heart.agent, said.to_vec()));
            }
        }
        true
    }

    fn tell(&self, heard: Pulses) {
        // Nobody may take them, or too slowly: they are lost.
        let _ = self.heard.try_send(heard);
    }
}

impl fmt::Debug for Hearts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hearts({})", self.known.len())
    }
}

impl Listening {
    /// What the agent is to know a reset by.
    pub(super) fn token(&self) -> ResetToken {
        self.hearts.token(&self.id)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.hearts.known.remove(&self.id);
    }
}

/// The name of a connection, what the master says that it does not know it with, and the connection.
type Pulsed = ([u8; ID_BYTES], ResetToken, Weak<Inner>);

/// An agent's end: its connections, and how a master says that it does not know them.
#[derive(Default)]
pub(super) struct Resets {
    known: Mutex<Vec<Pulsed>>,
}

impl Resets {
    /// The port as QUIC is to see it.
    pub(super) fn sieve(self: &Arc<Self>, socket: Arc<dyn AsyncUdpSocket>) -> Arc<dyn AsyncUdpSocket> {
        Arc::new(Sieve { socket, taker: Arc::clone(self) })
    }
}

impl Taker for Resets {
    fn take(&self, datagram: &mut [u8], _from: SocketAddr, _socket: &dyn AsyncUdpSocket, _heard: &mut Pulses) -> bool {
        if datagram.len() == RESET_BYTES {
            let (id, token) = datagram.split_at(ID_BYTES);
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            // All bytes are looked at, so that the time it takes tells nothing of them.
            let differs = |expected: &ResetToken| expected.iter().zip(&*token).fold(0, |all, (one, other)| all | (one ^ other)) != 0;
            let is_it = |(known, expected, _): &&Pulsed| known == id && !differs(expected);
            let connection = known.iter().find(is_it).and_then(|(_, _, connection)| connection.upgrade());
            drop(known);
            if let Some(connection) = connection {
                connection.close(super::CloseCode::Leaving, "the master does not know this connection any more");
            }
        }
        true
    }

    fn tell(&self, _heard: Pulses) {}
}

impl fmt::Debug for Resets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resets").finish_non_exhaustive()
    }
}

/// An agent's pulses to one master.
pub(super) struct Pulsing {
    seal: Seal,
    socket: Arc<dyn AsyncUdpSocket>,
    master: SocketAddr,
    numbers: AtomicU64,
    resets: Arc<Resets>,
}

impl Pulsing {
    /// `None` where the connection is over.
    pub(super) fn new(
        quinn: &quinn::Connection,
        inner: &Arc<Inner>,
        (socket, resets): (&Arc<dyn AsyncUdpSocket>, &Arc<Resets>),
        token: ResetToken,
    ) -> Option<Self> {
        let seal = Seal::of(quinn)?;
        let mut known = resets.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.push((seal.id, token, Arc::downgrade(inner)));
        drop(known);
        let (socket, resets) = (Arc::clone(socket), Arc::clone(resets));
        Some(Self { seal, socket, master: quinn.remote_address(), numbers: AtomicU64::new(1), resets })
    }

    /// Sends one. False where it is too long.
    pub(super) fn send(&self, said: &[u8]) -> bool {
        if said.len() > PULSE_BYTES_MAX {
            return false;
        }
        let datagram = self.seal.seal(self.numbers.fetch_add(1, Ordering::Relaxed), said);
        let transmit = Transmit { destination: self.master, ecn: None, contents: &datagram, segment_size: None, src_ip: None };
        // One that the system has no room for is lost as any other may be.
        let _ = self.socket.try_send(&transmit);
        true
    }
}

impl Drop for Pulsing {
    fn drop(&mut self) {
        let mut known = self.resets.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(id, _, _)| *id != self.seal.id);
    }
}
