//! The door of the master: sockets, disk and clock on one side, shards on the other. Starts a master, and ends it.

mod accept;
mod agents;
pub mod backup;
mod choice;
pub(crate) mod clock;
mod data_dir;
mod decide;
pub mod desk;
pub mod door;
pub(crate) mod inbox;
mod join;
pub mod rooms;
pub(crate) mod routes;
mod steward;
mod threads;
pub mod told;
mod waiters;

#[cfg(test)]
mod tests;

pub use data_dir::{ADMIN_TOKEN, ROOT_PEM};
pub use door::{Busy, Door};

use crate::http::bundles::Bundles;
use crate::http::server::Server;
use crate::http::{HttpConfig, HttpError, Served, Taken};
use crate::journal::network::Carrier;
pub use crate::journal::network::Timing;
use crate::journal::{JournalError, Log, LogConfig, Seat};
use crate::logging::Logging;
use crate::names::dns;
use crate::peers::{self, Peers, Shelf};
use crate::plugins::Loader;
use crate::shard::ShardConfig;
use crate::shard::event::{self, Level};
use crate::travel::Spans;
use accept::Reception;
use data_dir::DataDir;
use protocol::Digest;
use protocol::identity::{Authority, Identity, IdentityError, JoinToken};
use protocol::link::{Limits, LinkError, Listener};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use threads::{Opening, Threads};
use tokio::runtime::Handle;

/// Shards of a cluster whose maker did not say.
pub const SHARDS_DEFAULT: u16 = 8;
/// The number of the first master of a cluster.
const FIRST: u16 = 1;
/// How long the master's certificate holds; each start makes a new one.
const MASTER_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3_600);

/// How a master is started.
#[derive(Clone, Debug)]
pub struct MasterConfig {
    /// Where all that lasts is kept; made where it is missing.
    pub data_dir: PathBuf,
    /// Where HTTP is served; port 0: any.
    pub http_addr: SocketAddr,
    /// Where agents connect, over QUIC; port 0: any.
    pub quic_addr: SocketAddr,
    /// Where Mesos' API is served without TLS, to whoever comes; `None`: nowhere.
    pub mesos_addr: Option<SocketAddr>,
    /// Where names of services are answered for over DNS ([`crate::names::dns`]); `None`: nowhere. Whoever reaches it learns where services are.
    pub dns_addr: Option<SocketAddr>,
    /// Where Marathon's API is served without TLS and tokens; `None`: nowhere.
    pub marathon_addr: Option<SocketAddr>,
    /// How many shards a new cluster gets; an old one keeps its number.
    pub shards: u16,
    /// How many threads decide; `None`: a quarter of the cores, 1 to 16.
    pub threads: Option<usize>,
    /// Names and addresses that clients and agents may call this master by, for its certificate.
    pub hosts: Vec<String>,
    /// Times and limits of the shards; `id` and `shards` are filled in for each.
    pub shard_config: ShardConfig,
    /// How the journal is kept.
    pub log: LogConfig,
    /// Most bytes of one bundle.
    pub bundle_bytes_max: u64,
    /// Where other masters and agents reach this one over QUIC, `HOST:PORT`; `None`: where it listens.
    pub quic_advertised: Option<String>,
    /// Where clients reach this one, as a URL; `None`: where it listens.
    pub http_advertised: Option<String>,
    /// The masters of the cluster that a new one joins, and what it joins with. One that has joined needs it no more.
    pub join: Option<(Vec<String>, JoinToken)>,
    /// How long masters wait for each other.
    pub timing: Timing,
    /// Who makes plug-ins of the components that operators bring; `None`: they can bring none.
    pub loader: Option<Arc<dyn Loader>>,
    /// What this process says; `None`: operators cannot change that.
    pub logging: Option<Logging>,
    /// Where it is said how jobs travel; `None`: nowhere.
    pub spans: Option<Spans>,
}

impl MasterConfig {
    /// A master in `data_dir` that listens on any free port of this machine's loopback.
    #[must_use]
    pub fn local(data_dir: &Path) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            data_dir: data_dir.to_owned(),
            http_addr: any,
            quic_addr: any,
            mesos_addr: None,
            dns_addr: None,
            marathon_addr: None,
            shards: SHARDS_DEFAULT,
            threads: None,
            hosts: vec!["localhost".into(), "127.0.0.1".into()],
            shard_config: ShardConfig::default(),
            log: LogConfig::default(),
            bundle_bytes_max: crate::http::bundles::BUNDLE_BYTES_MAX,
            quic_advertised: None,
            http_advertised: None,
            join: None,
            timing: Timing::default(),
            loader: None,
            logging: None,
            spans: None,
        }
    }
}

/// Why a master does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another master has the data directory.
    #[error("another master runs in {}: stop it first, or name another directory", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A file of the data directory.
    #[error("cannot {doing} {}: {source}", path.display())]
    Data {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Certificates.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The agents' port.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The API.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The first administrator's token could not be put on record.
    #[error("cannot make the administrator's token: {reason}")]
    Token {
        /// Why not.
        reason: String,
    },
    /// The journal of a master that had one is not there.
    #[error(
        "{} is gone, and with it what master {number} has promised to others: remove it from the cluster (skep masters remove {number}), \
         empty its data directory and join it anew, or restore the directory from a copy",
        path.display()
    )]
    Lost {
        /// Its number.
        number: u16,
        /// What is gone.
        path: PathBuf,
    },
    /// The cluster did not let it in.
    #[error("cannot join the cluster: {reason}")]
    Join {
        /// Why not.
        reason: String,
    },
    /// A thread.
    #[error("cannot start a deciding thread: {0}")]
    Thread(io::Error),
}

impl StartError {
    fn data(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Data { doing, path: path.to_owned(), source }
    }
}

/// A running master. Dropped, it ends in the background; what it acknowledged is durable in any case.
pub struct Master {
    http_addr: SocketAddr,
    mesos_addr: Option<SocketAddr>,
    dns: Option<dns::Running>,
    marathon_addr: Option<SocketAddr>,
    quic_addr: SocketAddr,
    root: Digest,
    admin_token: PathBuf,
    root_pem: PathBuf,
    threads: Option<Threads>,
    http: Vec<Server>,
    reception: Arc<Reception>,
    _log: Arc<Log>,
    _data: DataDir,
}

/// Starts a master.
///
/// # Errors
/// [`StartError`].
pub async fn start(config: MasterConfig) -> Result<Master, StartError> {
    let data = DataDir::open(&config.data_dir)?;
    let member = match (data.member()?, &config.join) {
        (Some(member), _) => member,
        (None, Some((masters, token))) => join::join(&data, masters, token, &config).await?,
        (None, None) => FIRST,
    };
    let shards = data.shards(config.shards)?;
    let authority = Authority::open_or_create(&data.authority())?;
    let identity = authority.issue_master(member, &config.hosts, MASTER_LIFETIME)?;
    data.write(ROOT_PEM, authority.root_pem().as_bytes())?;
    for dir in [data.snapshots(), data.bundles()] {
        std::fs::create_dir_all(&dir).map_err(|error| StartError::data("make", &dir, error))?;
    }
    let bundles_dir = data.bundles();
    let bundles = Bundles::open(&bundles_dir, config.bundle_bytes_max).map_err(|error| StartError::data("open", &bundles_dir, error))?;
    let (journal, log) = (data.journal(), config.log);
    let opened = tokio::task::spawn_blocking(move || Log::open(&journal, shards, log)).await;
    let log = Arc::new(opened.map_err(|error| StartError::Thread(error.into()))??);
    data.set_member(member, true)?;
    let listens = event::Master { number: member, quic: config.quic_addr.to_string(), http: format!("https://{}", config.http_addr) };
    let others = data.masters()?;
    let has_others = others.iter().any(|other| other.number != member);
    let peers = Arc::new(Peers::new(listens, others, shards, data.masters_file()));
    let seat = Seat { member: u64::from(member), carrier: Arc::clone(&peers) as Arc<dyn Carrier>, timing: config.timing };
    let opening = Opening {
        shards,
        log: Arc::clone(&log),
        snapshots: data.snapshots(),
        seat,
        peers: Arc::clone(&peers),
        has_others,
        founds: member == FIRST,
    };
    let threads = Threads::start(&config, opening).await?;
    let (root, door, agents) = (authority.root_digest(), threads.door.clone(), threads.agents.clone());
    let http = HttpConfig {
        hosts: config.hosts.clone(),
        cluster: authority.cluster().into(),
        root,
        bundles: bundles.clone(),
        data_dir: config.data_dir.clone(),
        loader: config.loader.clone(),
        logging: config.logging.clone(),
        spans: config.spans.clone(),
    };
    let taken = on(&threads.first, take((config.http_addr, config.mesos_addr, config.marathon_addr, config.dns_addr))).await?;
    let shelf = Shelf::new(bundles, Arc::clone(&peers));
    let linked = Linked { member, http_addr: taken.http.0, identity: identity.clone(), authority, shelf, peers, agents };
    let linking = link(config.clone(), linked, door.clone());
    let reception = on(&threads.link, linking).await?;
    // Last, since it waits for what other masters may have to say: they are heard by now.
    let admin_token = (member == FIRST).then(|| data.admin_token());
    let Served { http, mesos, marathon, dns } = on(&threads.first, serve(taken, door, identity, http, admin_token)).await?;
    Ok(Master {
        http_addr: http.address(),
        mesos_addr: mesos.as_ref().map(Server::address),
        marathon_addr: marathon.as_ref().map(Server::address),
        dns,
        quic_addr: reception.listener.address(),
        root,
        admin_token: data.admin_token(),
        root_pem: config.data_dir.join(ROOT_PEM),
        threads: Some(threads),
        http: [Some(http), mesos, marathon].into_iter().flatten().collect(),
        reception,
        _log: log,
        _data: data,
    })
}

/// Where HTTP, Mesos' and Marathon's API without TLS, and DNS are to be served.
type Addresses = (SocketAddr, Option<SocketAddr>, Option<SocketAddr>, Option<SocketAddr>);

/// Takes the ports; they are served later.
async fn take((http, mesos, marathon, dns): Addresses) -> Result<Taken, StartError> {
    let http = Server::listen(http).await.map_err(HttpError::from)?;
    let plain = async |address| match address {
        Some(address) => Server::listen(address).await.map(Some).map_err(HttpError::from),
        None => Ok(None),
    };
    let dns = match dns {
        Some(address) => Some(dns::take(address).await.map_err(HttpError::from)?),
        None => None,
    };
    Ok(Taken { http, mesos: plain(mesos).await?, marathon: plain(marathon).await?, dns })
}

/// Does something on a runtime of another thread.
async fn on<T: Send + 'static>(
    runtime: &Handle,
    what: impl Future<Output = Result<T, StartError>> + Send + 'static,
) -> Result<T, StartError> {
    runtime.spawn(what).await.map_err(|error| StartError::Thread(error.into()))?
}

/// What the link needs.
struct Linked {
    member: u16,
    http_addr: SocketAddr,
    identity: Identity,
    authority: Authority,
    shelf: Shelf,
    peers: Arc<Peers>,
    agents: Handle,
}

/// Takes agents and masters in, and keeps connections to the other masters, from now on.
async fn link(config: MasterConfig, linked: Linked, door: Door) -> Result<Arc<Reception>, StartError> {
    let Linked { member, http_addr, identity, authority, shelf, peers, agents } = linked;
    let listener = Listener::bind(config.quic_addr, &identity, &authority.reset_key(member), Limits::default())?;
    tokio::spawn(door.clone().tend_parked());
    let reception = Arc::new(Reception::new(listener, door.clone(), authority, shelf.clone()));
    // Listened to before it is read who is gone, so that nobody falls between.
    tokio::spawn(Arc::clone(&reception).revoke(door.changes()));
    peers.set_own(steward::advertised(&config, member, reception.listener.address(), http_addr));
    // Where they are read from the port, so that the more wait, the more are taken at a time.
    tokio::spawn(Arc::clone(&reception).hear());
    tokio::spawn(Arc::clone(&reception).run(agents));
    tokio::spawn(peers::keep_all(peers, door.clone(), identity));
    tokio::spawn(steward::run(door));
    tokio::spawn(shelf.keep_whole());
    Ok(reception)
}

/// Serves HTTP where that was `taken`; the first master makes the administrator's token.
async fn serve(taken: Taken, door: Door, identity: Identity, http: HttpConfig, admin_token: Option<PathBuf>) -> Result<Served, StartError> {
    let served = crate::http::start(taken, door.clone(), &identity, http).await?;
    if let Some(path) = admin_token {
        admit_the_first(&path, &door).await?;
    }
    Ok(served)
}

/// Makes the administrator's token where there is none: on record first, so that what the file says is good.
async fn admit_the_first(path: &Path, door: &Door) -> Result<(), StartError> {
    if path.try_exists().map_err(|error| StartError::data("read", path, error))? {
        return Ok(());
    }
    let minted = crate::http::tokens::mint_api(door, Level::Admin).await;
    let token = minted.map_err(|error| StartError::Token { reason: error.body().message.clone() })?;
    data_dir::write(path, format!("{token}\n").as_bytes())
}

impl Master {
    /// Its number in the cluster.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.reception.door.peers().own().number
    }

    /// Where HTTP is served.
    #[must_use]
    pub const fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Where Mesos' API is served without TLS, where it is.
    #[must_use]
    pub const fn mesos_addr(&self) -> Option<SocketAddr> {
        self.mesos_addr
    }

    /// Where names of services are answered for over DNS, where they are.
    #[must_use]
    pub fn dns_addr(&self) -> Option<SocketAddr> {
        self.dns.as_ref().map(|dns| dns.address)
    }

    /// Where Marathon's API is served without TLS, where it is.
    #[must_use]
    pub const fn marathon_addr(&self) -> Option<SocketAddr> {
        self.marathon_addr
    }

    /// Where agents connect.
    #[must_use]
    pub const fn quic_addr(&self) -> SocketAddr {
        self.quic_addr
    }

    /// The digest of the cluster's root certificate, which join tokens pin.
    #[must_use]
    pub const fn root(&self) -> Digest {
        self.root
    }

    /// The file with the first administrator's token.
    #[must_use]
    pub fn admin_token(&self) -> &Path {
        &self.admin_token
    }

    /// The file with the cluster's root certificate.
    #[must_use]
    pub fn root_pem(&self) -> &Path {
        &self.root_pem
    }

    /// To the shards.
    #[must_use]
    pub fn door(&self) -> &Door {
        &self.reception.door
    }

    /// Ends it in good order: answers that are on their way go out, agents are told, the journal is closed.
    pub async fn shutdown(mut self) {
        self.dns = None;
        futures::future::join_all(std::mem::take(&mut self.http).into_iter().map(Server::stop)).await;
        steward::hand_over_all(&self.reception.door).await;
        self.reception.listener.close("the master ends");
        if let Some(threads) = self.threads.take() {
            threads.stop();
            // It ends by a panic only where a thread did, which has said so.
            let _ = tokio::task::spawn_blocking(move || threads.join()).await;
        }
        // The last to hold the log closes it: that is this value.
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        if let Some(threads) = &self.threads {
            threads.stop();
        }
    }
}
