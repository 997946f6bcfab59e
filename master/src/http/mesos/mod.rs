//! Mesos' own API beside ours, for its frameworks and tools: the scheduler API (`scheduler.rs`) and what of the operator API is asked of masters
//! (`operator.rs`). Thin: what a call means stands in `shard/`, and no word of Mesos' stands anywhere else.

mod call;
mod event;
mod figures;
mod files;
mod filters;
mod logging;
mod maintenance;
mod note;
mod operator;
mod quota;
mod reserved;
mod rows;
mod scheduler;
mod seen;
mod state;
mod task;
mod watch;
mod words;

use super::server::Patience;
use super::{Api, find, gate};
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Extension, Json, Router};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// The version of Mesos whose API this is: the last that there was.
const VERSION: &str = "1.11.0";
/// Most bytes of a framework's call: one that asks after each of a few hundred thousand tasks.
pub(super) const CALL_BYTES_MAX: usize = 16 << 20;
/// Calls at the same time that are longer than other bodies may be. What is read of one may take thirty times as much memory.
pub(super) const LONG_CALLS_MAX: usize = 4;
/// How long a connection to the port without TLS may be without a request.
const IDLE: Duration = Duration::from_secs(600);
/// How long the headers of a request may take there.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);

/// Where a request came in: at the port for Mesos' clients, which has no TLS, or at ours.
#[derive(Clone, Copy, Debug, Default)]
pub struct At {
    /// That port.
    plain: Option<u16>,
}

impl<S: Sync> FromRequestParts<S> for At {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().copied().unwrap_or_default())
    }
}

/// How long clients of the port without TLS are waited for. Those that have Mesos' C++ library open two connections at once, of which one may say
/// nothing for long, and take the end of either for that of their subscription (`src/scheduler/scheduler.cpp`).
pub(super) fn patience() -> Patience {
    Patience { headers: HEADERS_WITHIN, first_request: IDLE, idle: IDLE, ..Patience::default() }
}

/// The routes.
pub(super) fn routes() -> Router<Arc<Api>> {
    // What Mesos has by the name of its process too, and takes with a slash behind it.
    let of_master = Router::new()
        .route("/api/v1/scheduler", post(scheduler::scheduler).fallback(only_post))
        .route("/api/v1/scheduler/", post(scheduler::scheduler).fallback(only_post))
        .route("/api/v1", post(operator::operator).fallback(only_post))
        .route("/api/v1/", post(operator::operator).fallback(only_post))
        .route("/state", get(state::state))
        .route("/state.json", get(state::state))
        .route("/state-summary", get(state::summary))
        .route("/slaves", get(state::agents))
        .route("/tasks", get(state::tasks))
        .route("/tasks.json", get(state::tasks))
        .route("/frameworks", get(state::frameworks))
        .route("/frameworks/", get(state::frameworks))
        .route("/roles", get(state::roles))
        .route("/health", get(async || StatusCode::OK))
        .route("/redirect", any(redirect));
    Router::new()
        // The path that `pymesos` has: Mesos takes whatever is below the one before.
        .route("/api/v1/operator", post(operator::operator).fallback(only_post))
        .route("/version", get(version))
        .route("/metrics/snapshot", get(figures::snapshot))
        .merge(of_master.clone())
        .nest("/master", of_master)
}

/// The routes for clients that know neither TLS nor tokens. Who shows a token all the same has to show a good one.
pub(super) fn plain(api: &Arc<Api>, port: u16) -> Router {
    routes()
        .route_layer(middleware::from_fn_with_state(Arc::clone(api), gate::anybody))
        .layer(Extension(At { plain: Some(port) }))
        .layer(middleware::map_response(basic))
        .fallback(async || (StatusCode::NOT_FOUND, "this port serves Mesos' API alone"))
        .layer(middleware::from_fn_with_state(Arc::clone(api), gate::host))
        .with_state(Arc::clone(api))
}

/// Who is to say who he is learns the one way that Mesos' clients know: a name and a password.
async fn basic(mut response: Response) -> Response {
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"skep\""));
    }
    response
}

async fn only_post() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST")], "Expecting 'POST'").into_response()
}

async fn version() -> Json<Value> {
    Json(version_info())
}

fn version_info() -> Value {
    json!({ "version": VERSION, "build_date": "", "build_time": 0, "build_user": "" })
}

/// Where the leading master is: with Mesos that is one, here any will do.
async fn redirect(State(api): State<Arc<Api>>, at: At) -> Response {
    find::redirect(base(&api.door.peers().own().http, at))
}

/// Where a master's API is for who came in here: a client of the port without TLS goes to that port of the other.
fn base(http: &str, at: At) -> String {
    let Some(port) = at.plain else { return http.trim_end_matches('/').to_owned() };
    format!("http://{}:{port}", host(http))
}

fn host(url: &str) -> &str {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest).split('/').next().unwrap_or("");
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

/// What a framework that came in here is told of this master.
fn master_info(api: &Api, at: At) -> Value {
    let own = api.door.peers().own();
    let base = base(&own.http, at);
    let (host, port) = (host(&base), base.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()).unwrap_or(5050));
    let ip = host.trim_matches(['[', ']']).parse::<std::net::Ipv4Addr>().map_or(0, |ip| u32::from_le_bytes(ip.octets()));
    json!({
        "id": format!("{}-{}", api.cluster, own.number),
        "ip": ip,
        "port": port,
        "pid": format!("master@{host}:{port}"),
        "hostname": host,
        "version": VERSION,
        "address": { "hostname": host, "ip": host, "port": port },
        "capabilities": [{ "type": "AGENT_UPDATE" }, { "type": "AGENT_DRAINING" }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_of_the_port_without_tls_may_be_idle_and_no_request_of_it_slow() {
        let (patience, other) = (patience(), Patience::default());
        assert_eq!((patience.first_request, patience.idle), (IDLE, IDLE));
        assert!(patience.headers <= other.headers.min(other.first_request), "what has begun has no more time than elsewhere");
    }

    #[test]
    fn clients_without_tls_are_sent_to_the_same_port_of_another_master() {
        let plain = At { plain: Some(5_050) };
        for (http, expected) in [
            ("https://10.0.0.1:7070", "http://10.0.0.1:5050"),
            ("https://[::1]:7070/", "http://[::1]:5050"),
            ("https://a.b", "http://a.b:5050"),
        ] {
            assert_eq!(base(http, plain), expected);
        }
        assert_eq!(base("https://a.b:7/", At::default()), "https://a.b:7");
    }
}
