//! What QUIC may use: windows, streams, timers and buffers. Each figure says what it is a limit of.

use super::LinkError;
use quinn::Runtime;
use quinn::{AsyncUdpSocket, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt};
use quinn_proto::{ConnectionId, ConnectionIdGenerator, HashedConnectionIdGenerator, RandomConnectionIdGenerator};
use ring::hmac;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// Streams that a master, and one master to another, may have open at a time.
const STREAMS_MAX: u32 = 16;
/// Streams that an agent may: its control stream, and bundles. quinn keeps a place for each, in tables of eight, sixteen or thirty-two places of
/// which an eighth is left empty.
const AGENT_STREAMS_MAX: u32 = 7;
/// Bytes of one stream that a master holds unread.
const MASTER_STREAM_BYTES: u32 = 128 << 10;
/// Bytes of a connection that a master holds unread from a peer it does not know as an agent.
const STRANGER_BYTES: u32 = 256 << 10;
/// Bytes of an agent's connection that a master holds unread: as much as all streams together, those of either side, so that one that is
/// not read (a log that its reader has forgotten) never holds up the control stream.
const MASTER_BYTES: u32 = (STREAMS_MAX + AGENT_STREAMS_MAX) * MASTER_STREAM_BYTES;
/// Bytes of one stream that an agent holds unread: bundles come this way, also over long lines.
const AGENT_STREAM_BYTES: u32 = 1 << 20;
const AGENT_BYTES: u32 = (STREAMS_MAX + AGENT_STREAMS_MAX) * AGENT_STREAM_BYTES;
/// Bytes sent and not acknowledged that a connection keeps.
const UNACKNOWLEDGED_BYTES_MAX: u64 = 4 << 20;
/// Silence after which a connection is over. Longer than the four missed beats that make an agent unreachable: those are judged by the
/// shard, and a machine that stalls need not shake hands again. A master that has started again says so to the next pulse.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Between two resets, at the least. quinn's 20 ms would make ten thousand agents wait for minutes, and any time at all lets only one be sent for
/// the packets that are read together. A reset is shorter than what it answers, so nobody's packets grow by it.
const RESET_EACH: Duration = Duration::ZERO;
/// An agent says something over the connection at least this often: three times within the silence that ends it. Each time costs a master about
/// as much as ten pulses, so that is no way to notice something soon.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Bytes of one stream, and of a connection, that a master holds unread of another master's.
const PEER_STREAM_BYTES: u32 = 4 << 20;
const PEER_BYTES: u32 = 16 << 20;
/// Silence after which a connection between masters is over: what waits for an answer over it is asked again over the next.
const PEER_IDLE_MAX: Duration = Duration::from_secs(2);
/// A master says something to another at least this often.
const PEER_KEEP_ALIVE: Duration = Duration::from_millis(500);
/// Assumed before it is measured: a lost first packet is sent again after three times this. quinn's 333 ms are for the open internet.
const ROUND_TRIP_FIRST: Duration = Duration::from_millis(100);
/// Bytes of a packet: what passes everywhere (RFC 9000, section 14), and what passes an Ethernet without tunnels.
const PACKET_BYTES: (u16, u16) = (1_200, 1_452);
/// Bytes of a handshake that may come out of order.
const CRYPTO_BYTES_MAX: usize = 16 << 10;
/// Bytes of a peer that wait before it is accepted, for each and for all.
const INCOMING_BYTES_MAX: u64 = 16 << 10;
const INCOMING_BYTES_TOTAL_MAX: u64 = 4 << 20;
/// What the first packets of a connection between masters begin the name of their destination with, which whoever connects is free to choose (RFC
/// 9000, section 7.2): the rest of it is drawn. It says which thread the connection is for, and proves nothing.
const PEER_MARK: &[u8; 8] = b"skeppeer";
const PEER_DRAWN_BYTES: usize = 12;
/// What the system holds of packets not yet read. With its usual 208 KiB a thousand handshakes at once fall from 2,900 to 130 a second.
pub(super) const RECEIVE_BUFFER_BYTES: usize = 8 << 20;

/// What a listener may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most agents' connections at a time.
    pub connections_max: usize,
    /// True: several packets to one system call (GSO); false for network cards that break it.
    pub segmentation_offload: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections_max: 20_000, segmentation_offload: true }
    }
}

/// What a listener that starts again knows the packets of its former connections by, to say that these are over (a stateless reset, RFC 9000,
/// section 10.3): peers then come again at once, and not only after ten seconds. Secret, since whoever has it can end connections; the same
/// for all starts of one master, and of that master only.
#[derive(Clone, PartialEq, Eq)]
pub struct ResetKey([u8; 32]);

impl ResetKey {
    /// A key of 32 secret bytes.
    #[must_use]
    pub const fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    fn derive(&self, what: &str) -> hmac::Tag {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), what.as_bytes())
    }

    /// What resets of pulses are made with.
    pub(super) fn pulses(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.derive("resets of pulses").as_ref())
    }

    fn config(&self) -> EndpointConfig {
        let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, self.derive("reset tokens").as_ref())));
        let ids = u64::from_le_bytes(self.derive("connection ids").as_ref()[..8].try_into().expect("eight bytes"));
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
        config.min_reset_interval(RESET_EACH);
        config
    }
}

/// It is tried once whether the longer packets pass: each step of quinn's search between the two lengths costs a padded packet and its answer,
/// in each direction of each connection.
fn mtu_discovery() -> MtuDiscoveryConfig {
    let mut config = MtuDiscoveryConfig::default();
    config.upper_bound(PACKET_BYTES.1).minimum_change(PACKET_BYTES.1 - PACKET_BYTES.0);
    config
}

/// What both sides have in common. Left as quinn has it, since nothing was gained on loopback (2026-11-23, both ends on one core, round trip
/// of one frame on a standing stream 16 µs, 1.1 million frames of 16 bytes a second): packets up to 6,500 or 8,952 bytes instead of 1,452,
/// acknowledgements of every tenth packet instead of every second, a first congestion window of 256 KiB. Without GSO it was a third less.
fn base(segmentation_offload: bool) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .send_window(UNACKNOWLEDGED_BYTES_MAX)
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE_MAX).expect("thirty seconds fit")))
        .initial_rtt(ROUND_TRIP_FIRST)
        .mtu_discovery_config(Some(mtu_discovery()))
        .crypto_buffer_size(CRYPTO_BYTES_MAX)
        .allow_spin(false)
        .enable_segmentation_offload(segmentation_offload);
    config
}

/// A master's side, as a stranger sees it: [`raise`] gives an agent the rest.
pub(super) fn server(crypto: Arc<dyn quinn::crypto::ServerConfig>, limits: &Limits) -> ServerConfig {
    let mut transport = base(limits.segmentation_offload);
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .stream_receive_window(VarInt::from_u32(MASTER_STREAM_BYTES))
        .receive_window(VarInt::from_u32(STRANGER_BYTES));
    let mut config = ServerConfig::with_crypto(crypto);
    config
        .transport_config(Arc::new(transport))
        .migration(false)
        .max_incoming(super::admission::STRANGERS_MAX + super::admission::MASTERS_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL_MAX);
    config
}

/// Gives a peer what an agent may use.
pub(super) fn raise(connection: &quinn::Connection) {
    connection.set_receive_window(VarInt::from_u32(MASTER_BYTES));
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(AGENT_STREAMS_MAX));
}

/// An agent's side.
pub(super) fn client(crypto: Arc<dyn quinn::crypto::ClientConfig>) -> quinn::ClientConfig {
    let mut transport = base(true);
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .stream_receive_window(VarInt::from_u32(AGENT_STREAM_BYTES))
        .receive_window(VarInt::from_u32(AGENT_BYTES))
        .keep_alive_interval(Some(KEEP_ALIVE));
    let mut config = quinn::ClientConfig::new(crypto);
    config.transport_config(Arc::new(transport));
    config
}

/// A master's side of a connection to another master.
pub(super) fn peer(crypto: Arc<dyn quinn::crypto::ClientConfig>) -> quinn::ClientConfig {
    let mut transport = base(true);
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(PEER_STREAM_BYTES))
        .receive_window(VarInt::from_u32(PEER_BYTES))
        .send_window(u64::from(PEER_BYTES))
        .max_idle_timeout(Some(IdleTimeout::try_from(PEER_IDLE_MAX).expect("two seconds fit")))
        .keep_alive_interval(Some(PEER_KEEP_ALIVE));
    let mut config = quinn::ClientConfig::new(crypto);
    config.transport_config(Arc::new(transport)).initial_dst_cid_provider(Arc::new(peer_mark));
    config
}

/// A name for the destination of a master's first packets to another.
fn peer_mark() -> ConnectionId {
    let drawn = RandomConnectionIdGenerator::new(PEER_DRAWN_BYTES).generate_cid();
    ConnectionId::new(&[&PEER_MARK[..], &drawn[..]].concat())
}

/// True where whoever sent the first packets says by their destination that it is a master.
pub(super) fn is_marked(destination: &ConnectionId) -> bool {
    destination.starts_with(PEER_MARK)
}

/// Gives another master what it may use.
pub(super) fn raise_master(connection: &quinn::Connection) {
    connection.set_receive_window(VarInt::from_u32(PEER_BYTES));
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(STREAMS_MAX));
}

/// A UDP port at `address`, and how many bytes the system holds for it.
pub(super) fn socket(address: SocketAddr) -> Result<(Arc<dyn AsyncUdpSocket>, usize), LinkError> {
    let failed = |source: std::io::Error| LinkError::Socket { address, source };
    let socket = UdpSocket::bind(address).map_err(failed)?;
    let held = receive_buffer(&socket).map_err(failed)?;
    Ok((TokioRuntime.wrap_udp_socket(socket).map_err(failed)?, held))
}

/// QUIC over a port.
pub(super) fn endpoint(socket: Arc<dyn AsyncUdpSocket>, server: Option<(ServerConfig, &ResetKey)>) -> Result<quinn::Endpoint, LinkError> {
    let (mut config, server) = server.map_or_else(|| (EndpointConfig::default(), None), |(server, reset)| (reset.config(), Some(server)));
    // Its packets are to be told from pulses by their first byte.
    config.grease_quic_bit(false);
    let address = socket.local_addr();
    quinn::Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(TokioRuntime))
        .map_err(|source| LinkError::Socket { address: address.unwrap_or_else(|_| SocketAddr::from(([0; 4], 0))), source })
}

/// Asks for [`RECEIVE_BUFFER_BYTES`], with the right to pass the system's limit (`net.core.rmem_max`) where we have it.
fn receive_buffer(socket: &UdpSocket) -> std::io::Result<usize> {
    use rustix::net::sockopt;
    if sockopt::set_socket_recv_buffer_size_force(socket, RECEIVE_BUFFER_BYTES).is_err() {
        sockopt::set_socket_recv_buffer_size(socket, RECEIVE_BUFFER_BYTES)?;
    }
    // Linux counts its own book-keeping in and says twice what was asked for (socket(7)).
    Ok(sockopt::socket_recv_buffer_size(socket)? / 2)
}
