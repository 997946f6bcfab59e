//! The server that the routes stand behind: TLS 1.3, HTTP/1.1 and HTTP/2 by ALPN, and what one client may cost. Knows sockets and limits;
//! no route.

use super::begun::Begun;
use super::stall::Stall;
use axum::Router;
use axum::body::{Body, HttpBody};
use bytes::Bytes;
use futures::future::BoxFuture;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use protocol::identity::Identity;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt as _;

/// Connections at the same time; one more is closed at once.
pub const CONNECTIONS_MAX: usize = 1_024;
/// Connections from one address, loopback not counted.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 128;
/// How long answers that are on their way may take when the server stops.
const STOP_WITHIN: Duration = Duration::from_millis(500);
/// Bytes of a request's line and headers.
const HEADER_BYTES_MAX: usize = 32 * 1024;
/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// Requests at the same time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;
/// Bytes of one request's body that may come before they are wanted, and of all bodies of a connection.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes of one answer that wait to be sent.
const SEND_BYTES_MAX: usize = 256 * 1024;
/// Streams that a client may have reset before they were looked at (CVE-2023-44487).
const RESETS_PENDING_MAX: usize = 32;
/// Streams of a client that were reset for its errors.
const RESETS_FOR_ERRORS_MAX: usize = 256;

/// How long a client may take for what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From a connection's first packet until TLS stands.
    pub handshake: Duration,
    /// From the first byte of an HTTP/1.1 request until its headers are there whole.
    pub headers: Duration,
    /// Until the first request of a connection is there. From one request of an HTTP/1.1 connection until the next is there: the same, or `headers`
    /// where that is longer.
    pub first_request: Duration,
    /// How long a connection may be without a request.
    pub idle: Duration,
    /// How long a client may read nothing of what is sent.
    pub write: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { handshake: seconds(5), headers: seconds(30), first_request: seconds(10), idle: seconds(120), write: seconds(30) }
    }
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// No socket at this address.
    #[error("cannot listen at {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// The master's certificate or key is not usable.
    #[error("the master's certificate cannot be used for HTTPS: {error}")]
    Identity {
        /// In rustls' words.
        error: rustls::Error,
    },
}

/// A running server; it stops when it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    /// `None`: it serves without TLS.
    tls: Option<Tls>,
    stop: watch::Sender<bool>,
    accepting: tokio::task::JoinHandle<()>,
}

/// What the next connection is shown.
type Tls = Arc<Mutex<TlsAcceptorOf>>;

/// The settings that the next connection gets.
#[derive(Clone)]
struct TlsAcceptorOf(Arc<rustls::ServerConfig>);

impl std::fmt::Debug for TlsAcceptorOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TLS settings")
    }
}

impl Server {
    /// Takes the port at `address`; who calls waits until it is served.
    ///
    /// # Errors
    /// [`ServerError::Listen`].
    pub async fn listen(address: SocketAddr) -> Result<(SocketAddr, TcpListener), ServerError> {
        let failed = |error| ServerError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        Ok((listener.local_addr().map_err(failed)?, listener))
    }

    /// Serves `router` at what [`Self::listen`] took, as `identity`, on the runtime that it is called in.
    ///
    /// # Errors
    /// [`ServerError::Identity`].
    pub fn start(
        (address, listener): (SocketAddr, TcpListener),
        identity: &Identity,
        router: Router,
        patience: Patience,
    ) -> Result<Self, ServerError> {
        let tls = Arc::new(Mutex::new(settings(identity)?));
        Ok(Self::run((address, listener), Some(tls), router, patience))
    }

    /// The same without TLS: for clients that know none.
    #[must_use]
    pub fn start_plain(taken: (SocketAddr, TcpListener), router: Router, patience: Patience) -> Self {
        Self::run(taken, None, router, patience)
    }

    fn run((address, listener): (SocketAddr, TcpListener), tls: Option<Tls>, router: Router, patience: Patience) -> Self {
        let stop = watch::Sender::new(false);
        let accepting = tokio::spawn(accept(listener, tls.clone(), router, patience, stop.subscribe()));
        Self { address, tls, stop, accepting }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Shows a new certificate from the next connection on.
    ///
    /// # Errors
    /// [`ServerError::Identity`]; the old one stays.
    pub fn renew(&self, identity: &Identity) -> Result<(), ServerError> {
        let settings = settings(identity)?;
        if let Some(tls) = &self.tls {
            *tls.lock().unwrap_or_else(PoisonError::into_inner) = settings;
        }
        Ok(())
    }

    /// Takes no more connections, lets answers that are on their way go out for `STOP_WITHIN`, and closes the rest.
    pub async fn stop(self) {
        self.accepting.abort();
        self.stop.send_replace(true);
        // Each connection holds a receiver as long as it lives.
        let _ = tokio::time::timeout(STOP_WITHIN * 2, self.stop.closed()).await;
    }
}

fn settings(identity: &Identity) -> Result<TlsAcceptorOf, ServerError> {
    let of = |error| ServerError::Identity { error };
    let chain = identity.chain_der().iter().cloned().map(CertificateDer::from).collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key_pkcs8_der().to_vec()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let settings = rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]).map_err(of)?;
    let mut settings = settings.with_no_client_auth().with_single_cert(chain, key).map_err(of)?;
    settings.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptorOf(Arc::new(settings)))
}

/// How many connections there are, and from where.
#[derive(Debug, Default)]
struct Places {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One connection's place, freed when it is dropped.
struct Place {
    places: Arc<Mutex<Places>>,
    address: IpAddr,
}

impl Place {
    fn take(places: &Arc<Mutex<Places>>, address: IpAddr) -> Option<Self> {
        let mut held = places.lock().unwrap_or_else(PoisonError::into_inner);
        let here = held.by_address.get(&address).copied().unwrap_or(0);
        if held.all >= CONNECTIONS_MAX || (here >= CONNECTIONS_PER_ADDRESS_MAX && !address.is_loopback()) {
            return None;
        }
        held.all += 1;
        held.by_address.insert(address, here + 1);
        Some(Self { places: places.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        held.all -= 1;
        if let Some(here) = held.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                held.by_address.remove(&self.address);
            }
        }
    }
}

async fn accept(listener: TcpListener, tls: Option<Tls>, router: Router, patience: Patience, stop: watch::Receiver<bool>) {
    let places = Arc::new(Mutex::new(Places::default()));
    loop {
        let (socket, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of files or memory: what is open has to close first.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(place) = Place::take(&places, remote.ip().to_canonical()) else { continue };
        let settings = tls.as_ref().map(|tls| tls.lock().unwrap_or_else(PoisonError::into_inner).0.clone());
        let (router, stop) = (router.clone(), stop.clone());
        tokio::spawn(async move {
            if let Err(error) = serve(socket, settings, router, patience, stop).await {
                tracing::debug!(%remote, %error, "a connection ended");
            }
            drop(place);
        });
    }
}

/// Why a connection ended.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn serve(
    socket: TcpStream,
    settings: Option<Arc<rustls::ServerConfig>>,
    router: Router,
    patience: Patience,
    stop: watch::Receiver<bool>,
) -> Result<(), Failure> {
    socket.set_nodelay(true)?;
    let Some(settings) = settings else { return converse(socket, false, router, patience, stop).await };
    let accepting = TlsAcceptor::from(settings).accept(socket);
    let stream: TlsStream<TcpStream> = tokio::time::timeout(patience.handshake, accepting).await??;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    converse(stream, is_http2, router, patience, stop).await
}

/// Answers what comes over `stream`, until it ends, is of no use any more, or `stop` says true.
///
/// # Errors
/// What was wrong with the client's bytes or its pace.
pub async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    is_http2: bool,
    router: Router,
    patience: Patience,
    stop: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let stream = Stall::new(stream, patience.write);
    let uses = Arc::new(Uses::default());
    let entry = Entry { router, uses: uses.clone() };
    let over = async {
        tokio::select! {
            () = uses.idle(patience) => {}
            () = stopped(stop) => {}
        }
    };
    if is_http2 {
        let connection = two().serve_connection(TokioIo::new(stream), entry);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            done = connection.as_mut() => return Ok(done?),
            () = over => connection.as_mut().graceful_shutdown(),
        }
        Ok(tokio::time::timeout(STOP_WITHIN, connection).await??)
    } else {
        let stream = Begun::new(stream, Arc::clone(&uses), patience.headers);
        let connection = one(patience).serve_connection(TokioIo::new(stream), entry);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            done = connection.as_mut() => return Ok(done?),
            () = over => connection.as_mut().graceful_shutdown(),
        }
        Ok(tokio::time::timeout(STOP_WITHIN, connection).await??)
    }
}

fn one(patience: Patience) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new());
    // hyper counts from the end of the request before: how long one that has begun may take, `Begun` knows.
    builder.header_read_timeout(patience.headers.max(patience.first_request));
    builder.max_buf_size(HEADER_BYTES_MAX);
    builder.max_headers(HEADERS_MAX);
    builder
}

fn two() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new());
    builder.max_concurrent_streams(STREAMS_MAX);
    builder.max_header_list_size(HEADER_BYTES_MAX as u32);
    builder.initial_stream_window_size(STREAM_WINDOW_BYTES);
    builder.initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder.max_send_buf_size(SEND_BYTES_MAX);
    builder.max_pending_accept_reset_streams(RESETS_PENDING_MAX);
    builder.max_local_error_reset_streams(RESETS_FOR_ERRORS_MAX);
    builder.keep_alive_interval(Duration::from_secs(20));
    builder.keep_alive_timeout(Duration::from_secs(10));
    builder
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error says that the server was dropped: it stops too.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// How a connection is used.
#[derive(Debug, Default)]
pub(super) struct Uses {
    begun: AtomicU64,
    in_flight: AtomicUsize,
}

impl Uses {
    /// How many requests have come whole so far, and whether one is being answered now.
    pub fn so_far(&self) -> (u64, bool) {
        (self.begun.load(Ordering::Relaxed), self.in_flight.load(Ordering::Relaxed) > 0)
    }

    /// Returns when the connection is of no use: its first request does not come, or none for a long time.
    async fn idle(&self, patience: Patience) {
        let mut before = 0;
        let mut wait = patience.first_request;
        loop {
            tokio::time::sleep(wait).await;
            let begun = self.begun.load(Ordering::Relaxed);
            if begun == before && self.in_flight.load(Ordering::Relaxed) == 0 {
                return;
            }
            (before, wait) = (begun, patience.idle);
        }
    }
}

/// A request that is being answered, until the last byte of its answer is handed over.
pub(super) struct Use(Arc<Uses>);

impl Use {
    /// It begins to be answered.
    pub fn begin(uses: &Arc<Uses>) -> Self {
        uses.begun.fetch_add(1, Ordering::Relaxed);
        uses.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(uses.clone())
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Clone)]
struct Entry {
    router: Router,
    uses: Arc<Uses>,
}

impl hyper::service::Service<Request<Incoming>> for Entry {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let guard = Use::begin(&self.uses);
        let answer = self.router.clone().oneshot(request.map(Body::new));
        Box::pin(async move { answer.await.map(|answer| answer.map(|body| Answer { body, _use: guard })) })
    }
}

/// A body that counts as a use of its connection.
struct Answer {
    body: Body,
    _use: Use,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
