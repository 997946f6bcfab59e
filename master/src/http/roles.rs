//! Roles over HTTP: how they are served, what they may hold and do, and what their tasks may have of their hosts; and the check of a job against
//! that.

use super::access::Caller;
use super::body;
use super::error::{ApiError, ErrorAnswer};
use super::gate::Segment;
use super::jobs_json::AmountBody;
use super::{Api, find};
use crate::admit::{Code, Problem};
use crate::drive::Door;
use crate::shard::HOME;
use crate::shard::amounts;
use crate::shard::event::{HostPath, Level, Policy, Request, Response as Answer};
use crate::shard::limits::Quota;
use crate::shard::policies::Forbidden;
use crate::shard::preempt::Preempts;
use crate::shard::quotas::{RoleSettings, WEIGHT_MILLI_MAX};
use crate::shard::roles::{Claim, WEIGHT_ONE};
use crate::shard::view::{View, Viewed};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use protocol::resources::{DEVICES_MAX, ResourceKind, is_revocable};
use protocol::{Job, Name, Program, Resources, Role};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
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

/// Amounts of some kinds; of those that are missing nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KindsBody {
    /// Thousandths of a core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_milli: Option<u64>,
    /// Bytes of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Bytes of disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// Number of ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<u32>,
    /// Thousandths of each kind of device.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub devices_milli: BTreeMap<String, u64>,
}

/// Whose tasks of lower priority a role's may take the place of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PreemptBody {
    /// Nobody's.
    #[default]
    None,
    /// Its own, and those of all roles below it.
    Own,
    /// Those of all roles.
    All,
}

impl From<PreemptBody> for Preempts {
    fn from(body: PreemptBody) -> Self {
        match body {
            PreemptBody::None => Self::None,
            PreemptBody::Own => Self::Own,
            PreemptBody::All => Self::All,
        }
    }
}

impl From<Preempts> for PreemptBody {
    fn from(preempts: Preempts) -> Self {
        match preempts {
            Preempts::None => Self::None,
            Preempts::Own => Self::Own,
            Preempts::All => Self::All,
        }
    }
}

/// How a role is served and what its tasks may have, in place of what was said before.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleBody {
    /// True: native and container tasks may have the host's network.
    #[serde(default)]
    pub host_network: bool,
    /// Parts of the host's files.
    #[serde(default)]
    pub host_paths: Vec<HostPathBody>,
    /// Its part of what it competes for with those beside it, 0.001 to 1,000; 1 where it is not said.
    pub weight: Option<f64>,
    /// The most that it and all roles below it may hold, by kind; of kinds that are missing there is no limit.
    #[serde(default)]
    pub limit: KindsBody,
    /// What it and all roles below it are served before others, and what is kept free for it.
    #[serde(default)]
    pub guarantee: KindsBody,
    /// Whose tasks of lower priority its own may take the place of: `none`, `own` (those of it and of all roles below it) or `all`. Roles below it
    /// have the same right, unless something else is said of them.
    #[serde(default)]
    pub preempt: PreemptBody,
    /// True: also where more is guaranteed than the cluster has, or the role holds more than its limit.
    #[serde(default)]
    pub force: bool,
}

/// A role: how it is served, what its tasks may have, and what it holds.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RoleRow {
    /// Its name.
    pub role: String,
    /// What its tasks may have of their hosts.
    pub policy: PolicyBody,
    /// Its part of what it competes for with those beside it.
    pub weight: f64,
    /// The most that it and all roles below it may hold.
    pub limit: KindsBody,
    /// What it and all roles below it are served before others.
    pub guarantee: KindsBody,
    /// Whose tasks of lower priority its own may take the place of.
    pub preempt: PreemptBody,
    /// What the tasks of it and of all roles below it hold.
    pub holds: AmountBody,
    /// The largest part that this is of what all agents have, of any kind: from 0 to 1.
    pub share: f64,
}

/// Roles of which something is said, or that hold something.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RolesPage {
    /// The roles, by name.
    pub roles: Vec<RoleRow>,
}

impl Policies {
    /// Takes `policies` in place of what was known.
    pub fn replace(&self, policies: Vec<(Role, Policy)>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = policies.into_iter().collect();
    }

    /// The policy of a role: what was said of it, or else of the next that it is below.
    pub fn of(&self, role: &Role) -> Policy {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        role.and_above().find_map(|role| known.get(&role).cloned()).unwrap_or_default()
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

/// Lists roles of which something is said, or that hold something.
#[utoipa::path(get, path = "/v1/roles", tag = "roles", responses((status = 200, body = RolesPage), (status = 403, body = ErrorAnswer)))]
pub async fn list(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<RolesPage>, ApiError> {
    caller.must_level(Level::Viewer)?;
    let known = Known::read(&api).await?;
    let names = known.names().into_iter().filter(|role| caller.covers(std::slice::from_ref(role)));
    Ok(Json(RolesPage { roles: names.map(|role| known.row(&role)).collect() }))
}

/// Shows how a role is served, and what it holds.
#[utoipa::path(get, path = "/v1/roles/{role}", tag = "roles",
    params(("role" = String, Path, description = "the role's name, with `/` written as `%2F`")),
    responses((status = 200, body = RoleRow), (status = 403, body = ErrorAnswer)))]
pub async fn show(State(api): State<Arc<Api>>, caller: Caller, Segment(role): Segment) -> Result<Json<RoleRow>, ApiError> {
    caller.must_level(Level::Viewer)?;
    let role = named(&role)?;
    if !caller.covers(std::slice::from_ref(&role)) {
        return Err(ApiError::forbidden("the token is for other roles"));
    }
    Ok(Json(Known::read(&api).await?.row(&role)))
}

/// Says how a role is served and what its tasks may have, in place of what was said before.
#[utoipa::path(put, path = "/v1/roles/{role}", tag = "roles",
    params(("role" = String, Path, description = "the role's name, with `/` written as `%2F`")), request_body = RoleBody,
    responses((status = 200, body = RoleRow), (status = 400, body = ErrorAnswer), (status = 403, body = ErrorAnswer),
        (status = 409, body = ErrorAnswer, description = "more would be guaranteed than there is, or the role holds more than its limit")))]
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
    if role.parent().is_some() {
        api.all_understand()?;
    }
    let wanted: RoleBody = body::json(&headers, body).await?;
    let settings = wanted.settings()?;
    let host_paths = wanted.host_paths.iter().map(|path| HostPath { path: path.path.clone(), writable: path.writable }).collect();
    let policy = Policy { host_network: wanted.host_network, host_paths };
    set_role(&api, &Known::read(&api).await?, &role, settings, wanted.force).await?;
    find::done(&api, HOME, Request::SetPolicy { role: role.clone(), policy }).await?;
    // Good from the answer on.
    api.policies.replace(self::known(&api.door).await?);
    Ok(Json(Known::read(&api).await?.row(&role)))
}

/// Says how a role is served, where that is otherwise than was `known`.
///
/// # Errors
/// An [`ApiError`] where it is refused.
pub async fn set_role(api: &Api, known: &Known, role: &Role, settings: RoleSettings, force: bool) -> Result<(), ApiError> {
    if known.settings(role) == settings {
        return Ok(());
    }
    api.all_understand()?;
    let held = known.holds.get(role).cloned().unwrap_or_default();
    if let Some((kind, most)) = settings.limit.iter().find(|(kind, most)| !force && amounts::of_kind(kind, &held) > *most) {
        let has = amounts::of_kind(kind, &held);
        let message = format!("the role holds more {kind} than that, {has} instead of {most}; forced, it gets nothing until it holds less");
        return Err(ApiError::conflict(message).with_field("limit"));
    }
    find::done(api, HOME, Request::SetRole { role: role.clone(), settings, force }).await
}

/// Roles as they stand.
#[derive(Debug, Default)]
pub struct Known {
    policies: BTreeMap<Role, Policy>,
    settings: BTreeMap<Role, RoleSettings>,
    /// What the tasks of each and of all below it hold.
    pub holds: BTreeMap<Role, Resources>,
    /// What the agents have together.
    pub total: Resources,
}

impl Known {
    /// Reads them, of all shards.
    ///
    /// # Errors
    /// An [`ApiError`] where one cannot answer.
    pub async fn read(api: &Api) -> Result<Self, ApiError> {
        let mut all = Self { policies: known(&api.door).await?.into_iter().collect(), ..Self::default() };
        for viewed in find::view_all(api, View::Roles).await? {
            let Viewed::Roles(view) = viewed else {
                return Err(ApiError::internal("a shard answered another question than it was asked"));
            };
            all.settings.extend(view.settings);
            amounts::add(&mut all.total, &view.total, 1);
            view.spent.iter().for_each(|(role, spent)| amounts::add(all.holds.entry(role.clone()).or_default(), spent, 1));
        }
        Ok(all)
    }

    /// Those of which something is known.
    pub fn names(&self) -> BTreeSet<Role> {
        self.policies.keys().chain(self.settings.keys()).chain(self.holds.keys()).cloned().collect()
    }

    /// How those are served that are so otherwise than by default.
    pub fn all_settings(&self) -> impl Iterator<Item = (&Role, &RoleSettings)> {
        self.settings.iter()
    }

    /// How one is served.
    pub fn settings(&self, role: &Role) -> RoleSettings {
        self.settings.get(role).cloned().unwrap_or_default()
    }

    fn row(&self, role: &Role) -> RoleRow {
        let settings = self.settings(role);
        let holds = self.holds.get(role).cloned().unwrap_or_default();
        let share = amounts::dominant_share(&holds, &self.total) as f64 / amounts::SHARE_ONE as f64;
        RoleRow {
            role: role.to_string(),
            policy: self.policies.get(role).map(PolicyBody::from).unwrap_or_default(),
            weight: f64::from(settings.claim.weight_milli) / f64::from(WEIGHT_ONE),
            limit: settings.limit.iter().collect(),
            guarantee: amounts::kinds(&settings.claim.guarantee).iter().map(|(kind, amount)| (kind, *amount)).collect(),
            preempt: settings.claim.preempts.into(),
            holds: (&holds).into(),
            share: share.min(1.0),
        }
    }
}

impl RoleBody {
    /// What is said of how it is served.
    fn settings(&self) -> Result<RoleSettings, ApiError> {
        let weight = self.weight.unwrap_or(1.0) * f64::from(WEIGHT_ONE);
        if !(1.0..=f64::from(WEIGHT_MILLI_MAX)).contains(&weight) {
            return Err(ApiError::invalid("weight", "from 0.001 to 1000"));
        }
        let (limit, guaranteed) = (self.limit.kinds("limit")?, self.guarantee.kinds("guarantee")?);
        let mut guarantee = Resources::NONE;
        guaranteed.iter().for_each(|(kind, amount)| amounts::set(&mut guarantee, kind, *amount));
        // A cast of a float saturates.
        Ok(RoleSettings {
            claim: Claim { weight_milli: weight.round() as u32, guarantee, preempts: self.preempt.into() },
            limit: Quota::new(limit),
        })
    }
}

impl KindsBody {
    /// The amounts of the kinds of which something is said.
    ///
    /// # Errors
    /// An [`ApiError`] of status 400.
    pub fn resources(&self, field: &str) -> Result<Resources, ApiError> {
        let mut resources = Resources::NONE;
        self.kinds(field)?.iter().for_each(|(kind, amount)| amounts::set(&mut resources, kind, *amount));
        Ok(resources)
    }

    fn kinds(&self, field: &str) -> Result<Vec<(ResourceKind, u64)>, ApiError> {
        let plain = [
            (ResourceKind::Cpu, self.cpu_milli),
            (ResourceKind::Memory, self.memory_bytes),
            (ResourceKind::Disk, self.disk_bytes),
            (ResourceKind::Ports, self.ports.map(u64::from)),
        ];
        let mut kinds: Vec<(ResourceKind, u64)> = plain.into_iter().filter_map(|(kind, amount)| Some((kind, amount?))).collect();
        if self.devices_milli.len() > DEVICES_MAX {
            return Err(ApiError::invalid(field, format!("at most {DEVICES_MAX} kinds of device")));
        }
        for (name, milli) in &self.devices_milli {
            let name = Name::new(name).map_err(|error| ApiError::invalid(field, format!("device {name:?}: {error}")))?;
            if is_revocable(&name) {
                return Err(ApiError::invalid(field, format!("device {name}: what is revocable is measured, and counts for no role")));
            }
            kinds.push((ResourceKind::Device(name), *milli));
        }
        Ok(kinds)
    }
}

impl<'a> FromIterator<(&'a ResourceKind, u64)> for KindsBody {
    fn from_iter<T: IntoIterator<Item = (&'a ResourceKind, u64)>>(kinds: T) -> Self {
        let mut body = Self::default();
        for (kind, amount) in kinds {
            match kind {
                ResourceKind::Cpu => body.cpu_milli = Some(amount),
                ResourceKind::Memory => body.memory_bytes = Some(amount),
                ResourceKind::Disk => body.disk_bytes = Some(amount),
                ResourceKind::Ports => body.ports = Some(u32::try_from(amount).unwrap_or(u32::MAX)),
                ResourceKind::Device(name) => drop(body.devices_milli.insert(name.to_string(), amount)),
            }
        }
        body
    }
}

/// The policies on record.
///
/// # Errors
/// An [`ApiError`] where shard 0 cannot answer.
pub async fn known(door: &Door) -> Result<Vec<(Role, Policy)>, ApiError> {
    match door.ask(HOME, Request::View(View::Policies)).await? {
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
