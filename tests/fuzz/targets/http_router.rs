//! Any bytes as an HTTP connection to a real master, of HTTP/1.1 or HTTP/2 by the first of them, with an administrator's token where the
//! input writes `TOKEN`: an answer or a closed connection, never a panic.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz http_router -- -max_len=8192`
#![no_main]

use axum::Router;
use libfuzzer_sys::fuzz_target;
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
const BOUND: Duration = Duration::from_secs(10);

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
            let address = master.http_addr();
            let config = HttpConfig { address, hosts: vec![], cluster: "fuzz".into(), root: master.root(), bundles };
            let router = router(master.door().clone(), config).await.expect("the tokens can be read");
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

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else { return };
    let world = world();
    let bytes = with_token(bytes, &world.token);
    world.runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let short = Duration::from_millis(5);
        let patience = Patience { handshake: short, headers: short, first_request: short, idle: short, write: short };
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(converse(server, kind % 2 == 1, world.router.clone(), patience, stopped));
        let talking = async {
            let _ = client.write_all(&bytes).await;
            let _ = client.shutdown().await;
            let _ = tokio::time::timeout(short, client.read_to_end(&mut vec![])).await;
        };
        let _ = tokio::time::timeout(BOUND, talking).await;
        drop(client);
        drop(stop);
        let served = tokio::time::timeout(BOUND, serving).await.expect("a connection ends when its client is gone");
        assert!(!served.is_err_and(|error| error.is_panic()));
    });
});
