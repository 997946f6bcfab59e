//! Any bytes as an HTTP connection to a real master, of HTTP/1.1 or HTTP/2 by the first of them, with an administrator's token where the
//! input writes `TOKEN`: an answer or a closed connection, never a panic.

use axum::Router;
use master::drive::{self, Master, MasterConfig};
use master::http::bundles::{BUNDLE_BYTES_MAX, Bundles};
use master::http::server::{Patience, converse};
use master::http::{HttpConfig, router};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// A client that is served longer than this has found a hang.
const BOUND: Duration = Duration::from_secs(60);
/// How long the server waits for a client that says nothing, and a client for an answer.
const SHORT: Duration = Duration::from_millis(5);

struct World {
    runtime: Runtime,
    router: Router,
    token: String,
    _master: Master,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let runtime = Runtime::new().expect("a runtime starts");
        let folder = std::env::temp_dir().join(format!("skep-fuzz-http-{}", std::process::id()));
        let (master, router) = runtime.block_on(async {
            let master = drive::start(MasterConfig::local(&folder)).await.expect("a master starts in an empty folder");
            let bundles = Bundles::open(&folder.join("uploads"), BUNDLE_BYTES_MAX).expect("a folder can be made");
            let config = HttpConfig {
                hosts: vec![],
                cluster: "fuzz".into(),
                root: master.root(),
                bundles,
                data_dir: "nowhere".into(),
                loader: None,
                logging: None,
                spans: None,
            };
            let router = router(master.door().clone(), config).await;
            (master, router)
        });
        let token = std::fs::read_to_string(master.admin_token()).expect("the first start wrote a token");
        World { runtime, router, token: format!("Bearer {}", token.trim()), _master: master }
    })
}

fn with_token(input: &[u8], token: &str) -> Vec<u8> {
    const MARK: &[u8] = b"TOKEN";
    match input.windows(MARK.len()).position(|window| window == MARK) {
        Some(at) => [&input[..at], token.as_bytes(), &input[at + MARK.len()..]].concat(),
        None => input.to_vec(),
    }
}

/// One input: which version of HTTP, then what the client says.
pub fn run(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    let world = world();
    let bytes = with_token(bytes, &world.token);
    world.runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let patience = Patience { handshake: SHORT, headers: SHORT, first_request: SHORT, idle: SHORT, write: SHORT };
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(converse(server, kind % 2 == 1, world.router.clone(), patience, stopped));
        let talking = async {
            let _ = client.write_all(&bytes).await;
            let _ = client.shutdown().await;
            let _ = tokio::time::timeout(SHORT, client.read_to_end(&mut vec![])).await;
        };
        let _ = tokio::time::timeout(BOUND, talking).await;
        drop(client);
        drop(stop);
        let served = tokio::time::timeout(BOUND, serving).await.expect("a connection ends when its client is gone");
        assert!(!served.is_err_and(|error| error.is_panic()));
    });
}

/// Inputs to begin with: requests of most routes, and frames of HTTP/2.
pub fn seeds() -> Vec<Vec<u8>> {
    let digest = "0".repeat(64);
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: TOKEN\r\n\r\n");
    let send = |method: &str, path: &str, kind: &str, body: &str| {
        let length = body.len();
        format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: TOKEN\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    let job = format!("count = 2\ntask.wasm = \"sha256:{digest}\"\n");
    let texts = [
        get("/v1/health"),
        get("/v1/jobs?role=a&after=3&limit=7"),
        get("/v1/jobs/a.1/logs?follow=false&tail=4"),
        get("/v1/agents"),
        get(&format!("/v1/bundles/{digest}")),
        get("/metrics"),
        send("POST", "/v1/jobs", "application/toml", &job),
        send("POST", "/v1/plan", "application/json", &format!("{{\"task\":{{\"wasm\":\"sha256:{digest}\"}}}}")),
        send("POST", "/v1/jobs/a/scale", "application/json", "{\"count\":3}"),
        send("POST", "/v1/tokens", "application/json", "{\"level\":\"read\",\"roles\":[\"a\"]}"),
        send("DELETE", "/v1/tokens/a", "application/json", ""),
        send("PUT", &format!("/v1/bundles/{digest}"), "application/octet-stream", "\0asm"),
        send("POST", "/v1/submit", "application/x-ndjson", "{\"task\":{\"wasm\":\"a\"}}\n{}\n"),
    ];
    // `GET /` of `https://localhost`, in HPACK's static table (RFC 7541 appendix A), after an empty SETTINGS (RFC 9113 section 6.5).
    let start = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let request = b"\0\0\x0e\x01\x05\0\0\0\x01\x82\x84\x87\x01\x09localhost";
    let texts = texts.into_iter().map(|text| [vec![0], text.into_bytes()].concat());
    texts.chain([[&[1][..], start, request].concat(), [&[1][..], start, b"\0\0\x08\x06\0\0\0\0\0pingpong"].concat()]).collect()
}
