//! What the tasks of roles may have of their hosts, over HTTP; and the check of a job against it.

use super::access::Caller;
use super::body;
use super::error::{ApiError, ErrorAnswer};
use super::gate::Segment;
use super::tokens::TOKENS_SHARD;
use super::{Api, find};
use crate::admit::{Code, Problem};
use crate::drive::Door;
use crate::shard::event::{HostPath, Level, Policy, Request, Response as Answer};
use crate::shard::policies::Forbidden;
use crate::shard::view::{View, Viewed};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use protocol::{Job, Program, Role};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use utoipa::ToSchema;

/// The policies on record, as shard 0 last told them: read by every submission, written when they change.
#[derive(Debug, Default)]
pub struct Policies(RwLock<BTreeMap<Role, Policy>>);

/// A part of every host that tasks may see.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostPathBody {
    /// Absolute, without `.` and `..`; all below it too.
    pub path: String,
    /// True where tasks may change it.
    #[serde(default)]
    pub writable: bool,
}

/// What native and container tasks of a role may have of their hosts.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyBody {
    /// True: the host's network.
    #[serde(default)]
    pub host_network: bool,
    /// Parts of the host's files.
    #[serde(default)]
    pub host_paths: Vec<HostPathBody>,
}

/// A role and its policy.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RoleRow {
    /// Its name.
    pub role: String,
    /// What its tasks may have of their hosts.
    pub policy: PolicyBody,
}

/// Roles that may have something of their hosts.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RolesPage {
    /// The roles, by name; all others may have nothing.
    pub roles: Vec<RoleRow>,
}

impl Policies {
    /// Takes `policies` in place of what was known.
    pub fn replace(&self, policies: Vec<(Role, Policy)>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = policies.into_iter().collect();
    }

    /// The policy of a role.
    pub fn of(&self, role: &Role) -> Policy {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(role).cloned().unwrap_or_default()
    }

    /// What a job's tasks want of their hosts and may not have.
    pub fn problems(&self, job: &Job) -> Vec<Problem> {
        let policy = self.of(&job.role);
        let group = job.template.members.len() > 1;
        let of_member = |(at, member): (usize, &protocol::Member)| {
            let (Program::Native { process, .. } | Program::Image { process, .. }) = &member.program else { return None };
            let forbidden = policy.forbids(process)?;
            let place = if group { format!("task.{at}") } else { "task".into() };
            let role = &job.role;
            let (field, message, help) = match forbidden {
                Forbidden::Network => {
                    let field = if group { format!("{place}.limits.egress") } else { "limits.egress".into() };
                    (field, format!("role '{role}' may not have the host's network"), format!("skep roles set {role} --host-network true"))
                }
                Forbidden::Mount(mount) => {
                    let (rights, suffix) = if mount.writable { ("change", ":rw") } else { ("see", "") };
                    let message = format!("role '{role}' may not {rights} '{}' of its hosts", mount.from);
                    (format!("{place}.mount"), message, format!("skep roles set {role} --host-path {}{suffix}", mount.from))
                }
            };
            Some(Problem::new(Code::NotAllowed, field, message).with_help(help))
        };
        job.template.members.iter().enumerate().filter_map(of_member).collect()
    }
}

/// Lists roles that may have something of their hosts.
#[utoipa::path(get, path = "/v1/roles", tag = "roles", responses((status = 200, body = RolesPage), (status = 403, body = ErrorAnswer)))]
pub async fn list(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<RolesPage>, ApiError> {
    caller.must_level(Level::Viewer)?;
    let mut known = known(&api.door).await?;
    known.retain(|(role, _)| caller.covers(std::slice::from_ref(role)));
    Ok(Json(RolesPage {
        roles: known.into_iter().map(|(role, policy)| RoleRow { role: role.to_string(), policy: (&policy).into() }).collect(),
    }))
}

/// Shows what a role's tasks may have of their hosts.
#[utoipa::path(get, path = "/v1/roles/{role}", tag = "roles", params(("role" = String, Path, description = "the role's name")),
    responses((status = 200, body = RoleRow), (status = 403, body = ErrorAnswer)))]
pub async fn show(State(api): State<Arc<Api>>, caller: Caller, Segment(role): Segment) -> Result<Json<RoleRow>, ApiError> {
    caller.must_level(Level::Viewer)?;
    let role = named(&role)?;
    if !caller.covers(std::slice::from_ref(&role)) {
        return Err(ApiError::forbidden("the token is for other roles"));
    }
    let policy = known(&api.door).await?.into_iter().find(|(known, _)| *known == role).map(|(_, policy)| policy).unwrap_or_default();
    Ok(Json(RoleRow { role: role.to_string(), policy: (&policy).into() }))
}

/// Says what a role's tasks may have of their hosts, in place of what was said before.
#[utoipa::path(put, path = "/v1/roles/{role}", tag = "roles", params(("role" = String, Path, description = "the role's name")),
    request_body = PolicyBody,
    responses((status = 200, body = RoleRow), (status = 400, body = ErrorAnswer), (status = 403, body = ErrorAnswer)))]
pub async fn set(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(role): Segment,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<RoleRow>, ApiError> {
    // Whoever may give away a host must own them all.
    caller.must_level(Level::Admin)?;
    caller.must_own_cluster()?;
    let role = named(&role)?;
    let wanted: PolicyBody = body::json(&headers, body).await?;
    let host_paths = wanted.host_paths.iter().map(|path| HostPath { path: path.path.clone(), writable: path.writable }).collect();
    let policy = Policy { host_network: wanted.host_network, host_paths };
    find::done(&api, TOKENS_SHARD, Request::SetPolicy { role: role.clone(), policy }).await?;
    // Good from the answer on.
    api.policies.replace(known(&api.door).await?);
    Ok(Json(RoleRow { role: role.to_string(), policy: wanted }))
}

/// The policies on record.
///
/// # Errors
/// An [`ApiError`] where shard 0 cannot answer.
pub async fn known(door: &Door) -> Result<Vec<(Role, Policy)>, ApiError> {
    match door.ask(TOKENS_SHARD, Request::View(View::Policies)).await? {
        Answer::Viewed(viewed) => match *viewed {
            Viewed::Policies(policies) => Ok(policies),
            _ => Err(ApiError::internal("a shard answered another question than it was asked")),
        },
        other => Err(super::error::unexpected(&other)),
    }
}

fn named(role: &str) -> Result<Role, ApiError> {
    Role::new(role).map_err(|error| ApiError::invalid("role", error.to_string()))
}

impl From<&Policy> for PolicyBody {
    fn from(policy: &Policy) -> Self {
        let paths = policy.host_paths.iter().map(|path| HostPathBody { path: path.path.clone(), writable: path.writable });
        Self { host_network: policy.host_network, host_paths: paths.collect() }
    }
}
