//! The API as its users meet it: a folder of its own for each test, a door that nobody answers behind, the router and the server before it.

mod cluster;
mod hostile;
mod mesos;
mod router;

use super::access::SECRET_BYTES;
use super::bundles::{BUNDLE_BYTES_MAX, Bundles};
use super::server::{Patience, Server};
use super::{Api, HttpConfig, api};
use crate::drive::Door;
use crate::drive::clock::Clock;
use crate::drive::inbox::Inbox;
use crate::peers::Peers;
use crate::shard::event::{Grant, Level, Master, Token};
use axum::Router;
use protocol::identity::Authority;
use protocol::{Digest, Role, ShardId};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A folder that no other test has, removed when it is dropped.
pub struct Folder(PathBuf);

impl Folder {
    /// A new one.
    pub fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("skep-http-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Routes over shards of which none answers: all that is refused before a shard is asked can be seen.
struct Closed {
    api: Arc<Api>,
    router: Router,
    folder: Folder,
}

/// A door whose one shard is led here and answers nothing.
fn door(folder: &Folder) -> Door {
    let own = Master { number: 1, quic: "127.0.0.1:1".into(), http: "https://127.0.0.1:1".into() };
    let peers = Arc::new(Peers::new(own, vec![], 1, folder.path().join("masters.json")));
    let door = Door::new(vec![Arc::new(Inbox::new(0))], peers, Clock::start());
    door.routes().leads(ShardId(0), 1, 1);
    door
}

impl Closed {
    fn new() -> Self {
        let folder = Folder::new();
        let bundles = Bundles::open(&folder.path().join("bundles"), BUNDLE_BYTES_MAX).unwrap();
        let config = HttpConfig {
            hosts: vec!["master.example".to_owned()],
            cluster: "test".to_owned(),
            root: Digest::of(b"root"),
            bundles,
            data_dir: folder.path().to_owned(),
            loader: None,
            logging: None,
            spans: None,
        };
        let (api, router) = api(door(&folder), config);
        Self { api, router, folder }
    }

    /// A token of this level for these roles.
    fn token(&self, level: Level, roles: &[&str]) -> String {
        let id = format!("{level:?}{}", roles.concat()).to_lowercase();
        let secret = "5".repeat(2 * SECRET_BYTES);
        let roles = roles.iter().map(|role| Role::new(role).unwrap()).collect();
        let hash = Digest::of(secret.as_bytes());
        self.api.tokens.add(Token { id: id.clone(), hash, grant: Grant::Api { level, roles }, expires: None });
        format!("Bearer skep_{id}_{secret}")
    }

    /// The same behind TLS, and the root certificate that vouches for it.
    async fn serve(&self, patience: Patience) -> (Server, Vec<u8>) {
        let authority = Authority::open_or_create(&self.folder.path().join("ca")).unwrap();
        let identity = authority.issue_master(1, &["localhost".to_owned()], Duration::from_secs(3_600)).unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        let taken = Server::listen(address).await.unwrap();
        let server = Server::start(taken, &identity, self.router.clone(), patience).unwrap();
        (server, authority.root_der().to_vec())
    }
}
