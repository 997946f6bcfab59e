//! Where services are, over HTTP: as JSON, and as text for haproxy.

use super::access::Caller;
use super::body::Asked;
use super::error::{ApiError, ErrorAnswer};
use super::gate::Segment;
use super::jobs::RoleQuery;
use super::{Api, find};
use crate::names::dns::name_of;
use crate::names::{Service, Unknown};
use crate::shard::view::{View, Viewed};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use protocol::{JobId, ShardId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Services in one answer, where nothing else is asked for, and at the most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;

/// Which services.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct NamesQuery {
    /// Only those of this role.
    pub role: Option<String>,
    /// Only those whose job has an id above this: `next` of the page before.
    pub after: Option<String>,
    /// Jobs that are looked at for one page, 1 to 1,000; 100 where nothing is said. Those that are no services with a name are left out.
    pub limit: Option<usize>,
}

/// Services.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct NamesPage {
    /// By their jobs' ids.
    pub services: Vec<ServiceBody>,
    /// What `after` is for the next page; absent where this was the last.
    pub next: Option<String>,
}

/// A service, and where it is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ServiceBody {
    /// Its job's name.
    pub name: String,
    /// Its role.
    pub role: String,
    /// Its job's id.
    pub job: String,
    /// Its name over DNS.
    pub dns: String,
    /// Its tasks that run and can be called, by index.
    pub instances: Vec<InstanceBody>,
}

/// One of its tasks.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct InstanceBody {
    /// `JOB.INDEX`.
    pub task: String,
    /// Its attempt.
    pub attempt: u32,
    /// The agent's id.
    pub agent: String,
    /// What people call that agent.
    pub host: String,
    /// Its address: its attribute `address`, or where its connection comes from; absent while neither is known.
    pub address: Option<String>,
    /// Its ports, by their names in the job.
    pub ports: BTreeMap<String, u16>,
}

impl From<&Service> for ServiceBody {
    fn from(service: &Service) -> Self {
        let instance = |instance: &crate::names::Instance| InstanceBody {
            task: format!("{}.{}", service.name.as_str(), instance.index),
            attempt: instance.attempt,
            agent: instance.agent.to_string(),
            host: instance.host.clone(),
            address: instance.address.map(|address| address.to_string()),
            ports: instance.ports.iter().map(|(name, port)| (name.as_str().to_owned(), *port)).collect(),
        };
        Self {
            name: service.name.as_str().into(),
            role: service.role.to_string(),
            job: service.job.to_string(),
            dns: name_of(&service.role, &service.name),
            instances: service.instances.iter().map(instance).collect(),
        }
    }
}

impl From<Unknown> for ApiError {
    fn from(unknown: Unknown) -> Self {
        Self::unavailable(unknown.to_string())
    }
}

/// Lists services, and where they are. With `Accept: text/plain` the answer is a `backend` for each of their ports, for haproxy.
#[utoipa::path(get, path = "/v1/names", tag = "jobs", params(NamesQuery), responses((status = 200, body = NamesPage), (status = 400, body = ErrorAnswer)))]
pub async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Asked(query): Asked<NamesQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let role = query.role.as_deref().map(|role| find::role(Some(role))).transpose()?;
    let mut after = query.after.as_deref().map(str::parse::<JobId>).transpose().map_err(|_| ApiError::invalid("after", "a job's id"))?;
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(ApiError::invalid("limit", format!("1 to {PAGE_MAX}")));
    }
    let (mut seen, mut last, mut services) = (0, None, Vec::new());
    let first = after.map_or(0, |id| id.shard().0);
    for shard in (first..api.door.shards()).map(ShardId) {
        let view = View::Jobs { role: role.clone(), after: after.take(), limit: limit - seen, ended: false };
        let Viewed::Jobs(found) = find::view(&api, shard, view).await? else {
            return Err(ApiError::internal("a shard answered another question than it was asked"));
        };
        seen += found.len();
        last = found.last().map(|job| job.id).or(last);
        for view in found.iter().filter(|view| view.job.kind.lasts() && caller.sees(&view.job.role)) {
            services.extend(api.names.service(view).await?);
        }
        if seen >= limit {
            break;
        }
    }
    let next = last.filter(|_| seen >= limit).map(|id| id.to_string());
    let is_text = |value: &header::HeaderValue| value.to_str().is_ok_and(|value| value.starts_with("text/plain"));
    if headers.get(header::ACCEPT).is_some_and(is_text) {
        return Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], backends(&services)).into_response());
    }
    Ok(Json(NamesPage { services: services.iter().map(ServiceBody::from).collect(), next }).into_response())
}

/// Says where one service is.
#[utoipa::path(get, path = "/v1/names/{job}", tag = "jobs", params(("job" = String, Path, description = "a job's name or id"), RoleQuery),
    responses((status = 200, body = ServiceBody), (status = 404, body = ErrorAnswer)))]
pub async fn show(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(job): Segment,
    Asked(query): Asked<RoleQuery>,
) -> Result<Json<ServiceBody>, ApiError> {
    let view = find::job(&api, &caller, &job, query.role.as_deref()).await?;
    let is_one = view.job.kind.lasts() && view.ended.is_none();
    let service = if is_one { api.names.service(&view).await? } else { None };
    service.as_ref().map(|service| Json(service.into())).ok_or_else(|| ApiError::not_found("service"))
}

/// A `backend` for each port of each service, named `JOB.ROLE-PORT`, a role's names joined by dots (haproxy 2.8, Configuration Manual 4.1 and 5.2).
fn backends(services: &[Service]) -> String {
    let mut text = String::new();
    for service in services {
        let mut ports: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for instance in &service.instances {
            let Some(address) = instance.address else { continue };
            for (name, port) in &instance.ports {
                let at = std::net::SocketAddr::new(address, *port);
                ports.entry(name.as_str()).or_default().push(format!("  server {}.{} {at} check\n", service.name.as_str(), instance.index));
            }
        }
        let role = service.role.as_str().replace('/', ".");
        for (port, servers) in ports {
            let _ = writeln!(text, "backend {}.{role}-{port}\n  balance roundrobin\n{}", service.name.as_str(), servers.concat());
        }
    }
    text
}
