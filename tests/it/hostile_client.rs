//! Clients that nobody wants: noise on both ports, half handshakes, connections that stand still, tokens that are guessed, bodies without
//! measure, readers that do not read. The master goes on in the memory that it has, and a good client is served (G18, G19; "HTTP" and
//! "QUIC/postcard frames" of `design/guarantees.md`).

use crate::cluster::{Cluster, sample};
use crate::scene::Scene;
use crate::villain::{Noise, soon};
use futures::StreamExt;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

#[test]
fn nothing_that_a_client_sends_ends_the_master_or_keeps_others_out() {
    let scene = Scene::new();
    scene.attempt("noise at the HTTP port", noise_at_http(&scene));
    scene.attempt("half handshakes", half_handshakes(&scene));
    scene.attempt("noise at the QUIC port", noise_at_quic(&scene));
    scene.attempt("connections that stand still", standing_still(&scene));
    scene.attempt("tokens that are guessed", guessed_tokens(&scene));
    scene.attempt("bodies without measure", bodies(&scene));
    scene.attempt("requests that are none", requests(&scene));
    scene.attempt("frames of HTTP/2 without end", floods(&scene));
    scene.attempt("bad lines among good ones", lines(&scene));
    scene.attempt("readers that do not read", unread(&scene));
    scene.end();
}

fn http(cluster: &Cluster) -> reqwest::Client {
    protocol::link::install_crypto();
    let root = reqwest::Certificate::from_pem(&std::fs::read(cluster.ca()).unwrap()).unwrap();
    reqwest::Client::builder().tls_certs_only([root]).no_proxy().build().unwrap()
}

fn port(cluster: &Cluster) -> &str {
    cluster.url.strip_prefix("https://").unwrap()
}

fn settings(cluster: &Cluster, alpn: &[u8]) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cluster.ca()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let mut settings = builder.with_root_certificates(roots).with_no_client_auth();
    settings.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(settings)
}

/// A connection on which anything may be said.
async fn open(cluster: &Cluster, alpn: &[u8]) -> TlsStream<TcpStream> {
    let socket = TcpStream::connect(port(cluster)).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    soon("a handshake", TlsConnector::from(settings(cluster, alpn)).connect(name, socket)).await.unwrap()
}

/// The first bytes of a good handshake.
fn client_hello(cluster: &Cluster) -> Vec<u8> {
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut tls = rustls::ClientConnection::new(settings(cluster, b"http/1.1"), name).unwrap();
    let mut bytes = vec![];
    tls.write_tls(&mut bytes).unwrap();
    bytes
}

async fn noise_at_http(scene: &Scene) {
    let mut noise = Noise(1);
    let heads: [&[u8]; 6] =
        [b"", b"\x16\x03\x01\xff\xff", b"\x16\x03\x03\0\0", b"\x80\x2e\x01", b"GET / HTTP/1.1\r\n\r\n", b"\x15\x03\x03\0\x02\x02\x28"];
    for number in 0..300 {
        let mut socket = TcpStream::connect(port(&scene.cluster)).await.unwrap();
        let length = noise.below(16 << 10);
        // It may be closed before all is written.
        let _ = socket.write_all(&[heads[number % heads.len()], &noise.bytes(length)].concat()).await;
        let _ = socket.shutdown().await;
        let mut answer = vec![];
        let _ = soon("the end of noise", socket.read_to_end(&mut answer)).await;
        assert!(answer.len() < 64, "an answer of {} bytes to noise", answer.len());
    }
}

async fn half_handshakes(scene: &Scene) {
    let mut noise = Noise(2);
    let hello = client_hello(&scene.cluster);
    for at in (0..hello.len()).step_by(hello.len() / 150) {
        let mut bent = hello.clone();
        bent[at] ^= 1 << noise.below(8);
        for bytes in [&hello[..at], &bent] {
            let mut socket = TcpStream::connect(port(&scene.cluster)).await.unwrap();
            let _ = socket.write_all(bytes).await;
            // What was bent where nobody looks is answered as any other; then this end is gone.
            let mut answer = [0; 64];
            let _ = tokio::time::timeout(Duration::from_millis(1), socket.read(&mut answer)).await;
        }
    }
}

async fn noise_at_quic(scene: &Scene) {
    let mut noise = Noise(3);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(&scene.cluster.quic).await.unwrap();
    for number in 0..10_000_usize {
        let length = 1 + noise.below(1_400);
        let mut packet = noise.bytes(length.max(if number % 4 == 3 { 1_200 } else { 1 }));
        match number % 4 {
            // A long header of version 1, of a version that is not there, and an Initial packet with lengths that fit (RFC 9000, 17.2).
            1 if length > 5 => packet[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]),
            2 if length > 5 => packet[..5].copy_from_slice(&[0xc3, 0xba, 0xba, 0xba, 0xba]),
            3 => packet[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]),
            _ => {}
        }
        // Where the port's buffer is full it is lost, as packets are.
        let _ = socket.send(&packet).await;
    }
}

async fn standing_still(scene: &Scene) {
    let cluster = &scene.cluster;
    let hello = client_hello(cluster);
    let (mut raw, mut shaken) = (vec![], vec![]);
    for number in 0..200 {
        let mut socket = TcpStream::connect(port(cluster)).await.unwrap();
        if number % 2 == 0 {
            socket.write_all(&hello[..hello.len() / 2]).await.unwrap();
        }
        raw.push(socket);
    }
    let starts = [
        "GET /v1/jobs HTTP/1.1\r\nhost: localhost\r\n".to_owned(),
        format!("POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-length: 100000\r\n\r\n{{", cluster.token),
        format!(
            "POST /v1/submit HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{{\r\n",
            cluster.token
        ),
        format!(
            "PUT /v1/bundles/{} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-length: 100000\r\n\r\n\0asm",
            "0".repeat(64),
            cluster.token
        ),
    ];
    for number in 0..40 {
        let mut stream = open(cluster, b"http/1.1").await;
        stream.write_all(starts[number % starts.len()].as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        shaken.push(stream);
    }
    scene.check("while others stand still");
    drop((raw, shaken));
}

async fn guessed_tokens(scene: &Scene) {
    let client = http(&scene.cluster);
    let token = &scene.cluster.token;
    let (start, secret) = token.rsplit_once('_').unwrap();
    let mut noise = Noise(4);
    for number in 0..1_000 {
        let mut guess = String::new();
        noise.bytes(secret.len() / 2).iter().for_each(|byte| write!(guess, "{byte:02x}").unwrap());
        let shown = match number % 6 {
            0 => format!("Bearer {start}_{guess}"),
            1 => format!("Bearer {token}0"),
            2 => format!("Bearer skep__{secret}"),
            3 => format!("Basic {token}"),
            4 => format!("Bearer {}", "x".repeat(noise.below(8_000))),
            _ => String::new(),
        };
        let request = client.get(format!("{}/v1/jobs", scene.cluster.url)).header("authorization", shown);
        assert_eq!(soon("an answer", request.send()).await.unwrap().status(), 401);
    }
    for path in ["/v1/status", "/v1/events", "/v1/agents", "/v1/tokens", "/metrics", "/v1/jobs/honest", "/v1/jobs/honest/logs"] {
        let status = client.get(format!("{}{path}", scene.cluster.url)).send().await.unwrap().status();
        assert!([401, 404].contains(&status.as_u16()), "{path} without a token: {status}");
    }
}

async fn bodies(scene: &Scene) {
    let client = http(&scene.cluster);
    let post = |path: &str| client.post(format!("{}{path}", scene.cluster.url)).bearer_auth(&scene.cluster.token);
    let deep = 100_000;
    let cases = [
        ("nothing", String::new()),
        ("null", "null".to_owned()),
        ("brackets", "[".repeat(deep)),
        ("a deep list", format!("{{\"name\":{}{}}}", "[".repeat(deep), "]".repeat(deep))),
        ("a deep job", format!("{}1{}", "{\"task\":".repeat(deep), "}".repeat(deep))),
        ("a long name", json!({ "name": "x".repeat(10 << 20) }).to_string()),
        ("a long number", format!("{{\"count\":1{}}}", "0".repeat(1 << 20))),
        ("a million fields", format!("{{{}\"a\":1}}", (0..100_000).map(|at| format!("\"f{at}\":1,")).collect::<String>())),
    ];
    for (what, text) in cases {
        for path in ["/v1/jobs", "/v1/plan", "/v1/jobs/honest/scale", "/v1/tokens"] {
            // Where an answer came before all was sent, the client may see the connection end instead.
            let Ok(answer) = soon(what, post(path).header("content-type", "application/json").body(text.clone()).send()).await else {
                continue;
            };
            let status = answer.status();
            let said = answer.text().await.unwrap_or_default();
            assert!(status.is_client_error(), "{what} to {path}: {status}: {said:.300}");
            assert!(said.len() < 64 << 10, "{what} to {path}: an answer of {} bytes", said.len());
        }
    }
    for path in ["/v1/jobs", "/v1/bundles"] {
        let endless = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 1 << 16])).take(1 << 13);
        let answer = soon("an endless body", post(path).body(reqwest::Body::wrap_stream(endless)).send()).await;
        assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status().is_client_error()), "half a gigabyte to {path}");
    }
}

/// What comes back until the other end closes.
async fn answer(cluster: &Cluster, alpn: &[u8], bytes: &[u8]) -> String {
    let mut stream = open(cluster, alpn).await;
    let mut said = vec![];
    let (mut read, mut write) = tokio::io::split(&mut stream);
    let writing = async {
        // It may be closed before all is written.
        let _ = write.write_all(bytes).await;
        let _ = write.shutdown().await;
    };
    let _ = soon("the end of an answer", async { tokio::join!(writing, read.read_to_end(&mut said)) }).await;
    String::from_utf8_lossy(&said).into_owned()
}

async fn requests(scene: &Scene) {
    let token = format!("authorization: Bearer {}\r\n", scene.cluster.token);
    let get = |rest: &str| format!("GET /v1/status HTTP/1.1\r\n{token}{rest}\r\n");
    let post = |rest: &str, body: &str| format!("POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\n{token}{rest}\r\n{body}");
    let many: String = (0..10_000).map(|at| format!("x{at}: 1\r\n")).collect();
    let cases = [
        ("a megabyte of one header", get(&format!("host: localhost\r\nx: {}\r\n", "x".repeat(1 << 20)))),
        ("ten thousand headers", get(&format!("host: localhost\r\n{many}"))),
        ("a long path", format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "x".repeat(1 << 20))),
        ("no host", get("")),
        ("another host", get("host: evil.example\r\n")),
        ("another page", get("host: localhost\r\norigin: https://evil.example\r\n")),
        ("two lengths", post("content-length: 1\r\ncontent-length: 2\r\n", "{}")),
        ("a negative length", post("content-length: -1\r\n", "{}")),
        ("a length without end", post("content-length: 99999999999999999999999\r\n", "{}")),
        ("more than is there", post("content-length: 1000\r\n", "{}")),
        ("a chunk without measure", post("transfer-encoding: chunked\r\n", "ffffffffffffffff\r\n{}")),
        ("a chunk that is none", post("transfer-encoding: chunked\r\n", "zz\r\n{}")),
        ("two measures", post("content-length: 2\r\ntransfer-encoding: chunked\r\n", "zz\r\n{}")),
        ("a name with a line's end", format!("GET /v1/jobs/%0d%0aa HTTP/1.1\r\nhost: localhost\r\n{token}\r\n")),
        ("a path upwards", format!("GET /v1/bundles/..%2f..%2fauthority HTTP/1.1\r\nhost: localhost\r\n{token}\r\n")),
        ("another version", "GET / HTTP/9.9\r\n\r\n".to_owned()),
        ("no words", "\r\n\r\n\0\0\0\r\n\r\n".to_owned()),
        ("another protocol", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
    ];
    for (what, bytes) in cases {
        let said = answer(&scene.cluster, b"http/1.1", bytes.as_bytes()).await;
        let status = said.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap_or_default();
        assert!(said.is_empty() || status.starts_with('4'), "{what}: {said:.300}");
    }
}

/// A frame of HTTP/2 (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), body].concat()
}

/// `GET /` of `https://a`, in HPACK's static table (RFC 7541 appendix A).
const HEADERS: &[u8] = b"\x82\x84\x87\x41\x01a";

async fn floods(scene: &Scene) {
    const START: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let (data, headers, reset, settings, ping, window, more) = (0, 1, 3, 4, 6, 8, 9);
    let stream = |number: u32| 2 * number + 1;
    let resets: Vec<u8> = (0..20_000)
        .flat_map(|number| [frame(headers, 5, stream(number), HEADERS), frame(reset, 0, stream(number), &[0; 4])].concat())
        .collect();
    let open: Vec<u8> = (0..10_000).flat_map(|number| frame(headers, 4, stream(number), HEADERS)).collect();
    let cases = [
        ("resets", resets),
        ("streams that stay open", open),
        ("headers without end", [frame(headers, 0, 1, HEADERS), frame(more, 0, 1, &[0; 16_000]).repeat(1_000)].concat()),
        ("empty headers without end", [frame(headers, 0, 1, HEADERS), frame(more, 0, 1, &[]).repeat(100_000)].concat()),
        ("empty bodies", [frame(headers, 4, 1, HEADERS), frame(data, 0, 1, &[]).repeat(100_000)].concat()),
        ("pings", frame(ping, 0, 0, &[0; 8]).repeat(100_000)),
        ("settings", frame(settings, 0, 0, &[]).repeat(100_000)),
        ("a window beyond measure", frame(window, 0, 0, &[0x7f, 0xff, 0xff, 0xff]).repeat(2)),
        ("a frame beyond measure", frame(data, 0, 1, &vec![0; 1 << 20])),
        ("an unknown frame", frame(200, 0xff, u32::MAX, &[1; 100]).repeat(100)),
        ("noise", Noise(5).bytes(1 << 20)),
    ];
    for (what, bytes) in cases {
        let said = answer(&scene.cluster, b"h2", &[START, &frame(settings, 0, 0, &[]), &bytes].concat()).await;
        assert!(said.len() < 8 << 20, "{what}: {} bytes", said.len());
    }
}

fn job(cluster: &Cluster) -> Value {
    let digest = cluster.text(&["push", sample("noop.wasm").to_str().unwrap()]);
    json!({ "task": { "wasm": digest.trim() }, "resources": { "cpu": 0.01, "memory": "1MiB" } })
}

async fn lines(scene: &Scene) {
    const COUNT: usize = 1_000;
    let good = job(&scene.cluster);
    let bad = [
        "{".to_owned(),
        "null".to_owned(),
        "\u{0}\u{1b}[31m".to_owned(),
        "[".repeat(10_000),
        json!({ "job": null }).to_string(),
        json!({ "job": {}, "more": 1 }).to_string(),
        json!({ "job": { "task": { "wasm": format!("sha256:{}", "0".repeat(64)) } } }).to_string(),
        json!({ "job": good, "key": "x".repeat(10_000) }).to_string(),
        json!({ "job": { "name": "A", "task": good["task"] } }).to_string(),
        "x".repeat(9 << 20),
    ];
    let mut text = String::new();
    for number in 0..COUNT {
        writeln!(text, "{}", json!({ "key": format!("good-{number}"), "job": good, "follow": true })).unwrap();
        // The last of them is large: it comes once.
        let which = if number == 0 { bad.len() - 1 } else { number % (bad.len() - 1) };
        writeln!(text, "{}", bad[which]).unwrap();
    }
    let client = http(&scene.cluster);
    let request = client.post(format!("{}/v1/submit", scene.cluster.url)).bearer_auth(&scene.cluster.token).body(text);
    let answers = soon("all answers", async { request.send().await.unwrap().text().await.unwrap() }).await;
    let (mut taken, mut ended, mut refused) = (0, 0, 0);
    for line in answers.lines() {
        let answer: Value = serde_json::from_str(line).unwrap();
        let is_good = answer["line"].as_u64().unwrap() % 2 == 1;
        assert_eq!(is_good, answer["error"].is_null(), "{answer}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
        match &answer {
            answer if answer["new"] == true => taken += 1,
            answer if answer["ended"]["tasks"]["finished"] == 1 => ended += 1,
            answer => {
                assert!(answer["error"]["message"].as_str().is_some_and(|said| !said.is_empty() && said.len() < 4_096), "{line:.300}");
                refused += 1;
            }
        }
    }
    assert_eq!((taken, ended, refused), (COUNT, COUNT, COUNT));
}

async fn unread(scene: &Scene) {
    let cluster = &scene.cluster;
    let good = job(cluster);
    let mut open_streams = vec![];
    for path in ["/v1/events", "/v1/jobs", "/openapi.json", "/v1/jobs/honest/tasks"].iter().cycle().take(32) {
        let mut stream = open(cluster, b"http/1.1").await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\r\n", cluster.token);
        // Many questions, and no answer read.
        stream.write_all(request.repeat(if *path == "/v1/events" { 1 } else { 50 }).as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        open_streams.push(stream);
    }
    // Somebody submits and reads no answers.
    let mut mute = open(cluster, b"http/1.1").await;
    let head = format!(
        "POST /v1/submit HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\n",
        cluster.token
    );
    mute.write_all(head.as_bytes()).await.unwrap();
    let line = "{\"job\":1}\n".repeat(1_000);
    let chunk = format!("{:x}\r\n{line}\r\n", line.len());
    let flood = async {
        for _ in 0..1_000 {
            mute.write_all(chunk.as_bytes()).await.unwrap();
        }
    };
    let read_on = tokio::time::timeout(Duration::from_secs(2), flood).await;
    assert!(read_on.is_err(), "who reads no answers is read no further");
    let text: String = (0..500).map(|number| format!("{}\n", json!({ "key": format!("unread-{number}"), "job": good }))).collect();
    let request = http(cluster).post(format!("{}/v1/submit", cluster.url)).bearer_auth(&cluster.token).body(text);
    let answers = soon("all answers", async { request.send().await.unwrap().text().await.unwrap() }).await;
    assert_eq!(answers.matches("\"new\":true").count(), 500);
    scene.check("while others do not read");
    drop((open_streams, mute));
}
