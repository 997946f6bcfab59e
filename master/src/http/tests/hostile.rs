//! Clients that mean no good, over real TLS connections: each is answered or cut off within a bound, and the server lives on.

use super::Closed;
use crate::http::server::{Patience, Server};
use crate::shard::event::Level;
use rustls::pki_types::{CertificateDer, ServerName};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A bound on what no client may make last; not a measurement.
const BOUND: Duration = Duration::from_secs(60);

async fn connect(address: SocketAddr, root_der: &[u8], alpn: &[u8]) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(root_der.to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let socket = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap()
}

/// What the server says to these bytes until it closes, or until nothing more is expected because it has said `enough`.
async fn talk(address: SocketAddr, root_der: &[u8], bytes: &[u8], enough: &[u8]) -> String {
    let mut stream = connect(address, root_der, b"http/1.1").await;
    // The server may close before it has read all.
    let _ = stream.write_all(bytes).await;
    let mut heard = vec![];
    let mut buffer = [0; 4096];
    let listening = async {
        while let Ok(bytes @ 1..) = stream.read(&mut buffer).await {
            heard.extend_from_slice(&buffer[..bytes]);
            if !enough.is_empty() && heard.windows(enough.len()).any(|window| window == enough) {
                break;
            }
        }
    };
    tokio::time::timeout(BOUND, listening).await.expect("the server answers or closes within a bound");
    String::from_utf8_lossy(&heard).into_owned()
}

async fn lives(address: SocketAddr, root_der: &[u8]) {
    let answer = talk(address, root_der, b"GET /v1/health HTTP/1.1\r\nhost: localhost\r\n\r\n", b"}").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn bytes_that_are_no_good_http_get_an_error_and_no_more() {
    let closed = Closed::new();
    let token = closed.token(Level::Admin, &[]);
    let (server, root) = closed.serve(Patience::default()).await;
    let head = format!("POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\nauthorization: {token}\r\ncontent-type: application/toml\r\n");
    let long = format!("GET /v1/health HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let many = format!("GET /v1/health HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: y\r\n".repeat(10_000));
    let few = format!("GET /v1/health HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: y\r\n".repeat(65));
    let cases: [(&str, String, &[&str]); 13] = [
        ("a header of 1 MB", long, &["431", ""]),
        ("10,000 headers", many, &["431", ""]),
        ("65 headers", few, &["431"]),
        ("no HTTP", "\0\u{1}\u{2}\r\n\r\n".to_owned(), &["400", ""]),
        ("a lower HTTP", "GET / HTTP/0.9\r\n\r\n".to_owned(), &["400", "505", ""]),
        ("no host", "GET /v1/health HTTP/1.1\r\n\r\n".to_owned(), &["400"]),
        ("two hosts", "GET /v1/health HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n\r\n".to_owned(), &["400"]),
        ("another host", "GET /v1/health HTTP/1.1\r\nhost: evil.example\r\n\r\n".to_owned(), &["403"]),
        ("another host in the line", "GET https://evil.example/v1/health HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(), &["400", "403"]),
        ("two lengths", format!("{head}content-length: 1\r\ncontent-length: 2\r\n\r\nab"), &["400"]),
        ("a length and chunks", format!("{head}content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"), &["400"]),
        ("a chunk that lies", format!("{head}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\nx\r\n0\r\n\r\n"), &["400"]),
        ("a body that is announced too long", format!("{head}content-length: 99999999999\r\n\r\n"), &["413"]),
    ];
    for (what, bytes, expected) in cases {
        let answer = talk(server.address(), &root, bytes.as_bytes(), b"\r\n\r\n").await;
        let status = answer.strip_prefix("HTTP/1.1 ").map_or("", |rest| &rest[..3]);
        assert!(expected.contains(&status), "{what}: {answer:?}");
        lives(server.address(), &root).await;
    }
}

#[tokio::test]
async fn what_is_no_tls_is_closed() {
    let closed = Closed::new();
    let (server, root) = closed.serve(Patience::default()).await;
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut heard = vec![];
    let read = tokio::time::timeout(BOUND, socket.read_to_end(&mut heard)).await.expect("closed within a bound");
    assert!(read.is_err() || !heard.starts_with(b"HTTP"));
    lives(server.address(), &root).await;
}

#[tokio::test]
async fn http_2_that_breaks_its_rules_is_closed() {
    let closed = Closed::new();
    let (server, root) = closed.serve(Patience::default()).await;
    let preface: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    // HEADERS of one stream without END_HEADERS, then CONTINUATIONs without an end (RFC 9113 sections 6.2 and 6.10).
    let mut endless = [preface, b"\0\0\x01\x01\0\0\0\0\x01\x88"].concat();
    (0..10_000).for_each(|_| endless.extend_from_slice(b"\0\0\x05\x09\0\0\0\0\x01\0\x01a\x01b"));
    // Streams that are opened and reset at once (CVE-2023-44487): `GET /` by the static table, host localhost.
    let mut resets = preface.to_vec();
    for stream in (1..4_001_u32).step_by(2) {
        let id = stream.to_be_bytes();
        resets.extend_from_slice(&[b"\0\0\x0e\x01\x05" as &[u8], &id, b"\x82\x84\x87\x01\x09localhost"].concat());
        resets.extend_from_slice(&[b"\0\0\x04\x03\0" as &[u8], &id, b"\0\0\0\x08"].concat());
    }
    for bytes in [b"no preface at all, and longer than it".to_vec(), endless, resets] {
        let mut stream = connect(server.address(), &root, b"h2").await;
        let _ = stream.write_all(&bytes).await;
        let mut heard = vec![];
        let closed = tokio::time::timeout(BOUND, stream.read_to_end(&mut heard)).await;
        assert!(closed.is_ok(), "closed within a bound");
        lives(server.address(), &root).await;
    }
}

#[tokio::test]
async fn a_server_that_stops_closes_what_is_open() {
    let closed = Closed::new();
    let (server, root) = closed.serve(Patience::default()).await;
    let mut stream = connect(server.address(), &root, b"http/1.1").await;
    let stopped = server.stop();
    let mut heard = vec![];
    let (_, read) = tokio::join!(stopped, tokio::time::timeout(BOUND, stream.read_to_end(&mut heard)));
    assert!(read.is_ok(), "closed within a bound");
}

#[tokio::test]
async fn a_connection_may_be_idle_for_longer_than_a_request_may_take() {
    let closed = Closed::new();
    let (short, long) = (Duration::from_millis(50), 10 * BOUND);
    let patience = Patience { headers: short, first_request: long, idle: long, ..Patience::default() };
    let taken = Server::listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let server = Server::start_plain(taken, closed.router.clone(), patience);
    let health = b"GET /v1/health HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let (mut unused, mut kept) = (TcpStream::connect(server.address()).await.unwrap(), TcpStream::connect(server.address()).await.unwrap());
    let answered = async |socket: &mut TcpStream| {
        socket.write_all(health).await.unwrap();
        let mut heard = vec![];
        while !heard.ends_with(b"}") {
            let read = tokio::time::timeout(BOUND, socket.read_buf(&mut heard)).await;
            assert!(read.expect("answered within a bound").unwrap() > 0, "closed: {}", String::from_utf8_lossy(&heard));
        }
    };
    answered(&mut kept).await;
    // One that has begun is cut off when its time is over; the others have been idle for as long by then, and are answered.
    for before in [&b""[..], &health[..]] {
        let mut slow = TcpStream::connect(server.address()).await.unwrap();
        slow.write_all(before).await.unwrap();
        if !before.is_empty() {
            let mut heard = [0; 1_024];
            assert!(slow.read(&mut heard).await.unwrap() > 0);
        }
        slow.write_all(b"GET /v1/health HTTP/1.1\r\nhost: loc").await.unwrap();
        let ended = tokio::time::timeout(BOUND, slow.read_to_end(&mut vec![])).await;
        assert!(ended.is_ok(), "closed within a bound");
    }
    answered(&mut unused).await;
    answered(&mut kept).await;
}

#[tokio::test]
async fn who_sends_too_slowly_is_cut_off() {
    let closed = Closed::new();
    let short = Duration::from_millis(50);
    let patience = Patience { handshake: short, headers: short, first_request: short, ..Patience::default() };
    let (server, root) = closed.serve(patience).await;

    let mut silent = TcpStream::connect(server.address()).await.unwrap();
    let ended = tokio::time::timeout(BOUND, silent.read(&mut [0; 8])).await.expect("closed within a bound");
    assert!(matches!(ended, Ok(0) | Err(_)), "no handshake");
    for (alpn, begun) in
        [(b"http/1.1" as &[u8], b"GET /v1/health HTTP/1.1\r\nhost: loc" as &[u8]), (b"http/1.1", b""), (b"h2", b""), (b"h2", b"PRI * ")]
    {
        let mut stream = connect(server.address(), &root, alpn).await;
        stream.write_all(begun).await.unwrap();
        let ended = tokio::time::timeout(BOUND, stream.read_to_end(&mut vec![])).await;
        assert!(ended.is_ok(), "closed within a bound: {begun:?}");
    }
}
