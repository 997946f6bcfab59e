//! Marathon's own API beside ours, for its clients and tools: `/v2`, `/ping`, and figures as JSON. Thin: an app is a job whose labels and origin say so
//! (`job.rs`), and no word of Marathon's stands anywhere else.

mod app;
mod apps;
mod change;
mod container;
mod dependencies;
mod deployments;
mod events;
pub mod figures;
mod follow;
mod groups;
mod health;
mod held;
mod id;
pub mod import;
mod job;
mod note;
mod ports;
mod queue;
mod show;
mod steps;
mod tasks;
mod versions;
mod words;
mod wrong;

use super::access::Caller;
use super::{Api, body, gate};
use crate::shard::event::Level;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use held::Held;
use id::AppId;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use words::{Object, Query, decoded};
use wrong::Wrong;

pub use events::follow;
pub use words::timestamp;

/// Who makes a job of an app ([`protocol::job::Origin`]).
pub const MADE_BY: &str = "marathon";
/// The version of Marathon whose API this is: the last that there was.
const VERSION: &str = "1.11.24";
/// How long it is believed which service ports are taken.
const SERVED_FOR: Duration = Duration::from_secs(10);

/// What requests of Marathon's clients share.
#[derive(Debug, Default)]
pub struct Shared {
    deployments: deployments::Deployments,
    groups: groups::Groups,
    bus: events::Bus,
    /// Apps that are being changed, each with by how many requests.
    changing: Mutex<BTreeMap<AppId, usize>>,
    /// Which app has which service port, and when that was looked at.
    served: Mutex<Option<(Instant, BTreeMap<u16, AppId>)>>,
}

impl Shared {
    fn changing(&self) -> MutexGuard<'_, BTreeMap<AppId, usize>> {
        // Nothing inside the lock can panic half way.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the ports of an app that may be any their service ports; `before` are those that it had.
    ///
    /// # Errors
    /// [`Wrong`] where a shard cannot answer now.
    async fn serve(&self, api: &Api, id: &AppId, fields: &mut Object, before: &[u16]) -> Result<(), Wrong> {
        let lock = || self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = lock().as_ref().is_some_and(|(at, _)| at.elapsed() < SERVED_FOR);
        let is_needed = ports::of(fields).iter().any(|port| port.service == 0);
        if is_needed && !is_fresh {
            let all = held::everything(api, &Caller::of_all_roles(Level::Viewer)).await?;
            let of_one =
                |held: &Held| ports::of(&held.fields()).into_iter().map(|port| (port.service, held.id.clone())).collect::<Vec<_>>();
            *lock() = Some((Instant::now(), all.iter().flat_map(of_one).collect()));
        }
        let mut served = lock();
        let known = &mut served.get_or_insert_with(|| (Instant::now(), BTreeMap::new())).1;
        ports::assign(id, fields, before, |port| known.get(&port).is_some_and(|other| other != id));
        known.extend(ports::of(fields).into_iter().map(|port| (port.service, id.clone())));
        Ok(())
    }
}

/// The routes that ask for a token.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/v2/{*path}", any(dispatch))
}

/// The routes that ask for none.
pub(super) fn open() -> Router<Arc<Api>> {
    Router::new().route("/ping", get(ping))
}

/// The routes for clients that know neither TLS nor tokens. Who shows a token all the same has to show a good one.
pub(super) fn plain(api: &Arc<Api>) -> Router {
    routes()
        .route("/metrics", get(metrics))
        .route_layer(middleware::from_fn_with_state(Arc::clone(api), gate::anybody))
        .merge(open())
        .fallback(async || (StatusCode::NOT_FOUND, "this port serves Marathon's API alone"))
        .layer(middleware::from_fn_with_state(Arc::clone(api), gate::host))
        .with_state(Arc::clone(api))
}

async fn ping(headers: HeaderMap) -> Response {
    match figures::are_wanted(&headers) {
        true => Json("pong").into_response(),
        false => ([(header::CONTENT_TYPE, "text/plain")], "pong").into_response(),
    }
}

async fn metrics(State(api): State<Arc<Api>>, caller: Caller) -> Response {
    figures::json(&api, &caller).await.into_response()
}

/// Takes a path apart, whose slashes may be doubled, and answers it.
async fn dispatch(
    State(api): State<Arc<Api>>,
    caller: Caller,
    uri: Uri,
    body::Asked(query): body::Asked<Vec<(String, String)>>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let body = match parts.method {
        Method::GET | Method::HEAD => Ok(bytes::Bytes::new()),
        _ => self::body::whole(&parts.headers, body).await,
    };
    let answered = match body {
        Ok(body) => route(&api, &caller, &Asked { method: parts.method, headers: parts.headers, query: Query(query), body }, &uri).await,
        Err(error) => Err(error.into()),
    };
    answered.into_response()
}

/// A request.
struct Asked {
    method: Method,
    headers: HeaderMap,
    query: Query,
    body: bytes::Bytes,
}

async fn route(api: &Arc<Api>, caller: &Caller, asked: &Asked, uri: &Uri) -> Result<Response, Wrong> {
    let path = decoded(uri.path());
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).skip(1).collect();
    let Asked { method, query, body, .. } = asked;
    let (get, change) = (method == Method::GET || method == Method::HEAD, [Method::PUT, Method::PATCH].contains(method));
    let (post, delete) = (method == Method::POST, method == Method::DELETE);
    match &parts[..] {
        ["info"] if get => Ok(Json(info(api)).into_response()),
        ["leader"] if get => Ok(Json(json!({ "leader": leader(api) })).into_response()),
        ["leader"] if delete => {
            caller.must_own_cluster()?;
            Ok(apps::message("Nothing to abdicate: every master answers, and each part of the cluster has a leader of its own"))
        }
        ["apps", rest @ ..] => of_apps(api, caller, asked, rest).await,
        ["groups", rest @ ..] => of_groups(api, caller, asked, rest).await,
        ["deployments"] if get => deployments::list(api, caller).await,
        ["deployments", id] if delete => deployments::cancel(api, caller, id, query).await,
        ["queue"] if get => queue::list(api, caller, query).await,
        ["queue", id @ .., "delay"] if delete => queue::reset(api, caller, &app_id(id)?).await,
        ["tasks"] if get => tasks::list(api, caller, &asked.headers, query, None).await,
        ["tasks", "delete"] if post => tasks::remove_all(api, caller, query, body).await,
        ["events"] if get => events::listen(api, caller, query).await,
        ["eventSubscriptions", ..] => {
            Err(Wrong::bad("http event callback system is not running on this Marathon instance: GET /v2/events tells the same"))
        }
        ["pods"] if get => Ok(Json(json!([])).into_response()),
        ["pods", ..] => {
            Err(Wrong::new(StatusCode::NOT_IMPLEMENTED, "pods are not run yet: a job file with several [[task]] runs them together"))
        }
        ["plugins"] if get => Ok(Json(json!({ "plugins": [] })).into_response()),
        ["info" | "leader" | "deployments" | "queue" | "tasks" | "events" | "plugins", ..] if get || change || post || delete => {
            Err(not_allowed())
        }
        _ => Err(Wrong::not_found("there is no such path")),
    }
}

fn not_allowed() -> Wrong {
    Wrong::new(StatusCode::METHOD_NOT_ALLOWED, "this path cannot be asked with this method")
}

/// The app or group of these parts of a path.
fn app_id(parts: &[&str]) -> Result<AppId, Wrong> {
    AppId::parse(&parts.join("/")).map_err(|_| Wrong::not_found(format!("App '/{}' does not exist", shown(&parts.join("/")))))
}

/// Text of a client's as it is given back: no control characters, and not endless.
fn shown(text: &str) -> String {
    text.chars().take(256).map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

async fn of_apps(api: &Api, caller: &Caller, asked: &Asked, parts: &[&str]) -> Result<Response, Wrong> {
    let Asked { headers, query, body, .. } = asked;
    match (&asked.method, parts) {
        (&Method::GET | &Method::HEAD, []) => apps::list(api, caller, query).await,
        (&Method::POST, []) => apps::create(api, caller, query, body).await,
        (&Method::PUT | &Method::PATCH, []) => apps::put_all(api, caller, query, body).await,
        (&Method::GET, [group @ .., "*"]) => apps::of_group(api, caller, &app_id(group)?, query).await,
        (&Method::POST, [id @ .., "restart"]) if !id.is_empty() => {
            Ok(apps::restart(api, caller, &app_id(id)?, query).await?.into_response())
        }
        (&Method::GET, [id @ .., "tasks"]) if !id.is_empty() => tasks::list(api, caller, headers, query, Some(&app_id(id)?)).await,
        (&Method::DELETE, [id @ .., "tasks"]) if !id.is_empty() => tasks::remove(api, caller, &app_id(id)?, None, query).await,
        (&Method::DELETE, [id @ .., "tasks", task]) if !id.is_empty() => tasks::remove(api, caller, &app_id(id)?, Some(task), query).await,
        (&Method::GET, [id @ .., "versions"]) if !id.is_empty() => {
            let held = held::app(api, caller, &app_id(id)?).await?;
            Ok(Json(versions::list(api, &held).await?).into_response())
        }
        (&Method::GET, [id @ .., "versions", version]) if !id.is_empty() => {
            let held = held::app(api, caller, &app_id(id)?).await?;
            Ok(Json(Value::Object(versions::fields(api, &held, version).await?)).into_response())
        }
        (&Method::GET | &Method::HEAD, id) => apps::show(api, caller, &app_id(id)?, query).await,
        (&Method::PUT | &Method::PATCH, id) => apps::put(api, caller, &app_id(id)?, query, body).await,
        (&Method::DELETE, id) if !id.is_empty() => Ok(apps::remove(api, caller, &app_id(id)?, query).await?.into_response()),
        _ => Err(not_allowed()),
    }
}

async fn of_groups(api: &Api, caller: &Caller, asked: &Asked, parts: &[&str]) -> Result<Response, Wrong> {
    let Asked { query, body, .. } = asked;
    let group =
        |parts: &[&str]| app_id(parts).map_err(|_| Wrong::not_found(format!("Group '/{}' does not exist", shown(&parts.join("/")))));
    match (&asked.method, parts) {
        (&Method::GET, [id @ .., "versions"]) => groups::list_versions(api, caller, &group(id)?).await,
        (&Method::PUT | &Method::PATCH, [id @ .., "versions", version]) => {
            groups::put_version(api, caller, &group(id)?, query, version).await
        }
        (&Method::GET | &Method::HEAD, id) => groups::show(api, caller, &group(id)?, query).await,
        (&Method::POST, id) => groups::create(api, caller, &group(id)?, query, body).await,
        (&Method::PUT | &Method::PATCH, id) => groups::put(api, caller, &group(id)?, query, body).await,
        (&Method::DELETE, id) => Ok(groups::remove(api, caller, &group(id)?, query).await?.into_response()),
        _ => Err(not_allowed()),
    }
}

/// Where a client can ask, `HOST:PORT`: with Marathon that is the leader, here any master will do.
fn leader(api: &Api) -> String {
    let http = &api.door.peers().own().http;
    http.split_once("://").map_or(http.as_str(), |(_, rest)| rest).trim_end_matches('/').to_owned()
}

fn info(api: &Api) -> Value {
    let leader = leader(api);
    let port = leader.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    json!({
        "name": "marathon",
        "version": VERSION,
        "buildref": concat!("skep-", env!("CARGO_PKG_VERSION")),
        "elected": true,
        "leader": leader,
        "frameworkId": api.cluster,
        "http_config": { "http_port": port, "https_port": port },
        "marathon_config": {
            "checkpoint": true,
            "executor": "//cmd",
            "features": [],
            "framework_name": "marathon",
            "ha": true,
            "hostname": leader.rsplit_once(':').map_or(leader.as_str(), |(host, _)| host),
            "local_port_min": ports::SERVICE_PORTS.start(),
            "local_port_max": ports::SERVICE_PORTS.end(),
            "mesos_role": "*",
            "new_group_enforce_role": "top",
        },
        "zookeeper_config": {},
    })
}
