//! The HTTP API of a master: routes under `/v1`, their JSON, who may call them, and the server they stand behind. Knows the cluster only
//! through its `Door`. The description at `/openapi.json` is made from the routes themselves.

#![allow(unused_qualifications, reason = "the macro that describes a route spells every path out")]

pub mod access;
mod after;
pub mod agent_tasks;
pub mod agents;
pub mod audit;
pub mod backup;
mod begun;
mod body;
pub mod bundles;
pub mod demand;
pub mod deployments;
pub mod deployments_json;
pub mod error;
mod event_log;
pub mod events;
pub mod exec;
mod exit_json;
pub mod explain;
mod explain_agents;
mod failures;
mod find;
pub mod frameworks;
pub mod frameworks_json;
pub mod frameworks_list;
mod gate;
mod health;
mod heard;
pub mod inspect;
pub mod jobs;
pub mod jobs_json;
mod lines;
pub mod log_level;
pub mod logs;
pub mod maintenance;
pub mod marathon;
pub mod masters;
mod mesos;
mod metrics;
pub mod names;
pub mod overview;
mod page;
pub mod policies;
mod records;
pub mod reservations;
pub mod roles;
pub mod server;
mod spec;
pub mod spec_json;
mod stall;
pub mod status;
mod streams;
pub mod submit;
mod subscription;
pub mod tokens;
pub mod uploads;
pub mod usage;
pub mod what_if;
pub mod why;

#[cfg(test)]
mod tests;

use crate::drive::Door;
use crate::drive::routes::Route;
use crate::drive::told::{Told, What};
use crate::frameworks::{FrameworkId, FrameworkInfo};
use crate::logging::Logging;
use crate::names::{Names, dns};
use crate::peers::Shelf;
use crate::plugins::{self, Loader, PlugIns};
use crate::shard::HOME;
use crate::shard::event::Change;
use crate::travel::{Spans, Teller};
use access::Tokens;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::{Router, middleware};
use bundles::Bundles;
use bytes::Bytes;
use dashmap::DashMap;
use error::ApiError;
use event_log::EventLog;
use inspect::Inspections;
use protocol::identity::Identity;
use protocol::link::VERSION;
use protocol::{Digest, ShardId, Time};
use roles::Policies;
use server::{Patience, Server, ServerError};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use streams::Streams;
use tokio::net::TcpListener;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::{Semaphore, oneshot};
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How long a start waits until the tokens and policies on record are read.
const READ_WITHIN: Duration = Duration::from_secs(3);
/// The wait before they are asked for again.
const READ_RETRY: Duration = Duration::from_millis(250);

/// How the API is served.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Names that this master goes by, besides `localhost` and every address.
    pub hosts: Vec<String>,
    /// The cluster's name.
    pub cluster: String,
    /// The digest of the cluster's root certificate: join tokens pin it.
    pub root: Digest,
    /// The bundles of this master.
    pub bundles: Bundles,
    /// Where all that lasts of this master is.
    pub data_dir: PathBuf,
    /// Who makes plug-ins of components; `None`: nobody.
    pub loader: Option<Arc<dyn Loader>>,
    /// What this process says; `None`: that cannot be changed.
    pub logging: Option<Logging>,
    /// Where it is said how jobs travel; `None`: nowhere.
    pub spans: Option<Spans>,
}

/// The ports that are served.
#[derive(Debug)]
pub struct Taken {
    /// Of the API.
    pub http: (SocketAddr, TcpListener),
    /// Of Mesos' API for clients that know neither TLS nor tokens, where somebody wants that.
    pub mesos: Option<(SocketAddr, TcpListener)>,
    /// Of names, where somebody wants that.
    pub dns: Option<dns::Taken>,
    /// Of Marathon's API for such clients, where somebody wants that.
    pub marathon: Option<(SocketAddr, TcpListener)>,
}

/// What the routes share.
#[derive(Debug)]
pub struct Api {
    door: Door,
    hosts: gate::Hosts,
    cluster: String,
    root: Digest,
    tokens: Tokens,
    audit: audit::Audit,
    policies: Policies,
    bundles: Bundles,
    shelf: Shelf,
    data_dir: PathBuf,
    inspections: Inspections,
    events: EventLog,
    failures: failures::Failures,
    event_readers: Arc<Semaphore>,
    overviews: overview::Overviews,
    uploads: Semaphore,
    /// What is tried out now.
    plans: Arc<Semaphore>,
    plug_ins: Arc<PlugIns>,
    logging: Option<Logging>,
    /// Says how jobs travel, where somebody wants to know.
    travel: Option<Teller>,
    log_readers: Arc<Semaphore>,
    streams: Arc<Streams>,
    /// Frameworks that subscribed here.
    frameworks: DashMap<FrameworkId, FrameworkInfo>,
    /// Where services are.
    names: Arc<Names>,
    marathon: marathon::Shared,
    /// Calls of Mesos' frameworks, which may be longer than other bodies.
    mesos_calls: body::Large,
    /// Counts submissions without a name and a key, to spread them over the shards.
    turn: AtomicU64,
    /// When this began, in milliseconds of the Unix epoch.
    since: Time,
    description: Bytes,
}

/// Why the API does not start.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The server does not.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Names are not served.
    #[error(transparent)]
    Names(#[from] std::io::Error),
}

/// What is served.
#[derive(Debug)]
pub struct Served {
    /// The API.
    pub http: Server,
    /// Mesos' API for clients that know neither TLS nor tokens.
    pub mesos: Option<Server>,
    /// Marathon's, in the same way.
    pub marathon: Option<Server>,
    /// Names of services.
    pub dns: Option<dns::Running>,
}

/// Serves the API at what [`Server::listen`] took, on the runtime that it is called in.
///
/// # Errors
/// [`HttpError`].
pub async fn start(taken: Taken, door: Door, identity: &Identity, config: HttpConfig) -> Result<Served, HttpError> {
    let (api, router) = followed(door, config).await;
    let mesos = taken.mesos.map(|taken| {
        let router = mesos::plain(&api, taken.0.port());
        Server::start_plain(taken, router, mesos::patience())
    });
    let dns = taken.dns.map(|taken| dns::serve(taken, Arc::clone(&api.names)));
    let marathon = taken.marathon.map(|taken| Server::start_plain(taken, marathon::plain(&api), Patience::default()));
    Ok(Served { http: Server::start(taken.http, identity, router, Patience::default())?, mesos, marathon, dns })
}

/// The routes alone, for whoever serves them over something else than sockets. They follow what changes on the runtime that this is called
/// in, for as long as they are there.
pub async fn router(door: Door, config: HttpConfig) -> Router {
    followed(door, config).await.1
}

async fn followed(door: Door, config: HttpConfig) -> (Arc<Api>, Router) {
    let (api, router) = api(door, config);
    let (changes, life, number) = api.door.changes_after();
    api.events.begin(life, number);
    api.tokens.are_unread();
    let (read, is_read) = oneshot::channel();
    tokio::spawn(listen(Arc::downgrade(&api), changes, read));
    tokio::spawn(marathon::follow(Arc::downgrade(&api)));
    tokio::spawn(plugins::keep(Arc::downgrade(&api.plug_ins), api.door.clone()));
    // Where no master leads shard 0 now, who calls is told so until one does.
    let _ = tokio::time::timeout(READ_WITHIN, is_read).await;
    (api, router)
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Skep", description = "One pool of many machines: tasks under limits.", license(name = "Apache-2.0", identifier = "Apache-2.0")),
    security(("token" = [])),
    tags((name = "jobs"), (name = "bundles"), (name = "agents"), (name = "frameworks"), (name = "tokens"), (name = "roles"), (name = "cluster"))
)]
struct Description;

/// The routes that ask for a token.
fn guarded() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(jobs::submit, jobs::list))
        .routes(routes!(jobs::apply, jobs::show))
        .routes(routes!(jobs::end))
        .routes(routes!(jobs::tasks))
        .routes(routes!(jobs::stop))
        .routes(routes!(jobs::scale))
        .routes(routes!(deployments::list))
        .routes(routes!(deployments::show))
        .routes(routes!(deployments::change))
        .routes(routes!(deployments::versions))
        .routes(routes!(deployments::version))
        .routes(routes!(deployments::restart))
        .routes(routes!(deployments::rollback))
        .routes(routes!(explain::explain))
        .routes(routes!(logs::logs))
        .routes(routes!(exec::exec))
        .routes(routes!(names::list))
        .routes(routes!(names::show))
        .routes(routes!(usage::usage))
        .routes(routes!(explain::plan))
        .routes(routes!(what_if::what_if))
        .routes(routes!(submit::submit))
        .routes(routes!(uploads::post))
        .routes(routes!(uploads::put, uploads::get))
        .routes(routes!(events::events))
        .routes(routes!(frameworks::framework))
        .routes(routes!(frameworks_list::list))
        .routes(routes!(frameworks_list::tasks))
        .routes(routes!(frameworks_list::teardown))
        .routes(routes!(why::framework))
        .routes(routes!(why::offer))
        .routes(routes!(agents::list))
        .routes(routes!(agents::show, agents::change))
        .routes(routes!(agent_tasks::tasks))
        .routes(routes!(agents::gone))
        .routes(routes!(agents::drain))
        .routes(routes!(agents::deactivate))
        .routes(routes!(agents::resume))
        .routes(routes!(reservations::list))
        .routes(routes!(reservations::reserve))
        .routes(routes!(reservations::unreserve))
        .routes(routes!(maintenance::list, maintenance::schedule))
        .routes(routes!(maintenance::cancel))
        .routes(routes!(tokens::create, tokens::list))
        .routes(routes!(tokens::revoke))
        .routes(routes!(audit::list))
        .routes(routes!(roles::list))
        .routes(routes!(masters::list))
        .routes(routes!(log_level::show, log_level::set))
        .routes(routes!(masters::remove))
        .routes(routes!(backup::backup))
        .routes(routes!(roles::show, roles::set))
        .routes(routes!(policies::list))
        .routes(routes!(policies::set, policies::remove))
        .routes(routes!(status::status))
        .routes(routes!(overview::overview))
        .routes(routes!(overview::stream))
        .routes(routes!(metrics::metrics))
}

/// The routes, and what they share.
fn api(door: Door, config: HttpConfig) -> (Arc<Api>, Router) {
    let open = OpenApiRouter::with_openapi(Description::openapi()).routes(routes!(status::health));
    let (guarded, paths) = guarded().split_for_parts();
    let (open, mut description) = open.split_for_parts();
    description.merge(paths);
    let token = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    description.components.get_or_insert_default().add_security_scheme("token", token);
    let own = u64::from(door.peers().own().number);
    let travel = config.spans.map(|spans| Teller::start(spans, &config.cluster, own, door.changes()));
    let description = serde_json::to_vec(&description).expect("a description has text for keys").into();
    let shelf = Shelf::new(config.bundles.clone(), Arc::clone(door.peers()));
    let (compiled, bundles) = (config.data_dir.join("policies"), config.bundles.clone());
    let plug_ins = Arc::new(PlugIns::new(config.loader, compiled, shelf.clone(), bundles, door.clone()));
    let api = Arc::new(Api {
        door: door.for_clients(),
        hosts: gate::Hosts::new(&config.hosts),
        cluster: config.cluster,
        root: config.root,
        tokens: Tokens::default(),
        audit: audit::Audit::start(&config.data_dir),
        policies: Policies::default(),
        inspections: Inspections::new(config.bundles.clone(), shelf.clone()),
        shelf,
        bundles: config.bundles,
        data_dir: config.data_dir,
        events: EventLog::default(),
        failures: failures::Failures::default(),
        event_readers: Arc::new(Semaphore::new(events::READERS_MAX)),
        overviews: overview::Overviews::default(),
        uploads: Semaphore::new(uploads::UPLOADS_MAX),
        plans: Arc::new(Semaphore::new(what_if::PLANS_MAX)),
        plug_ins,
        logging: config.logging,
        travel,
        log_readers: Arc::new(Semaphore::new(logs::LOG_READERS_MAX)),
        streams: Arc::default(),
        frameworks: DashMap::new(),
        names: Names::new(door.for_clients()),
        marathon: marathon::Shared::default(),
        mesos_calls: body::Large::new(mesos::CALL_BYTES_MAX, mesos::LONG_CALLS_MAX),
        turn: AtomicU64::new(0),
        since: access::now(),
        description,
    });
    let guarded =
        guarded.merge(mesos::routes()).merge(marathon::routes()).route_layer(middleware::from_fn_with_state(api.clone(), gate::token));
    let router = guarded
        .merge(open)
        .merge(page::routes())
        .merge(marathon::open())
        .route("/openapi.json", axum::routing::get(describe))
        .fallback(async || ApiError::not_found("path"))
        .method_not_allowed_fallback(async || ApiError::method())
        .layer(middleware::from_fn_with_state(api.clone(), gate::host))
        .with_state(api.clone());
    (api, router)
}

impl Api {
    /// A shard that this master leads, another one each time; `None` where it leads none.
    fn shard_led_here(&self) -> Option<ShardId> {
        let shards = self.door.shards();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let first = u16::try_from(turn % u64::from(shards)).expect("less than there are shards");
        let mut all = (0..shards).map(|step| ShardId((first + step) % shards));
        all.find(|shard| self.door.routes().find(*shard) == Some(Route::Here))
    }

    /// Refuses what masters of the version before could not read on record.
    fn all_understand(&self) -> Result<(), ApiError> {
        match self.door.peers().all_speak(VERSION) {
            true => Ok(()),
            false => Err(ApiError::conflict("a master is of an earlier version, which knows nothing of this: upgrade all of them first")),
        }
    }

    /// Keeps a small bundle that was made here, at as many masters as it takes; one that is kept already is kept once.
    async fn keep_bundle(&self, bytes: &[u8]) -> Result<Digest, ApiError> {
        let digest = Digest::of(bytes);
        if self.bundles.length(digest).is_none() {
            let (bundles, bytes) = (self.bundles.clone(), bytes.to_vec());
            let kept = tokio::task::spawn_blocking(move || {
                let mut upload = bundles.create()?;
                upload.write(&bytes)?;
                upload.finish(Some(digest))
            });
            kept.await.map_err(|_| ApiError::internal("keeping a bundle failed"))??;
            self.shelf.spread(digest).await.map_err(ApiError::unavailable)?;
        }
        Ok(digest)
    }
}

/// All that is wrong with a job, in one line.
fn json_problems(error: &ApiError) -> String {
    let body = error.body();
    let all: Vec<String> = body.problems.iter().map(|problem| format!("{}: {}", problem.field, problem.message)).collect();
    if all.is_empty() { body.message.clone() } else { all.join("; ") }
}

async fn describe(State(api): State<Arc<Api>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], api.description.clone())
}

/// Takes the tokens and policies that shard 0 has on record.
async fn refresh(api: &Api) -> Result<(), ApiError> {
    let tokens = tokens::known(&api.door).await?;
    api.tokens.replace(tokens);
    api.policies.replace(roles::known(&api.door).await?);
    // One that is closed is so from the first job on.
    api.plug_ins.refresh().await.map_err(ApiError::unavailable)
}

/// Keeps what changes, for as long as the routes are there.
async fn listen(api: Weak<Api>, mut changes: Receiver<Arc<Told>>, read: oneshot::Sender<()>) {
    let (mut due, mut read) = (true, Some(read));
    loop {
        if due {
            let Some(api) = api.upgrade() else { return };
            match refresh(&api).await {
                Ok(()) => {
                    due = false;
                    // Nobody may wait for it any more.
                    let _ = read.take().map(|read| read.send(()));
                }
                Err(error) => tracing::warn!(reason = error.body().message, "the tokens and policies on record could not be read yet"),
            }
        }
        let changed = tokio::select! {
            changed = changes.recv() => changed,
            () = tokio::time::sleep(READ_RETRY), if due => continue,
        };
        let Some(api) = api.upgrade() else { return };
        match changed {
            Ok(told) => {
                due |= matches!(told.what, What::Change(Change::Tokens | Change::Policies) | What::Led(HOME));
                if let What::Change(change) = &told.what {
                    api.failures.hear(change);
                }
                // What was not heard may have been of tokens and policies.
                due |= api.events.push(told);
            }
            Err(RecvError::Lagged(_)) => {
                api.events.lost();
                due = true;
            }
            Err(RecvError::Closed) => return,
        }
    }
}
