//! Policies that operators bring as components, over HTTP: brought, listed with how they fare, taken away. What a policy is asked stands in
//! `wit/policy`.

use super::access::Caller;
use super::body::{self, Asked};
use super::error::{ApiError, ErrorAnswer};
use super::gate::Segment;
use super::{Api, find};
use crate::plugins::{Kind, LoadError, Tally};
use crate::shard::HOME;
use crate::shard::event::{Level, Request};
use crate::shard::plugins::Place;
use crate::shard::view::{View, Viewed};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use protocol::{Digest, Role};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Whose policy.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PolicyQuery {
    /// The role that it is for, with all below it; all roles of which nothing else is said, where it is not said.
    pub role: Option<String>,
}

/// A policy to be.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicySetBody {
    /// The digest of its component, which was uploaded before.
    pub bundle: String,
    /// Of admission: true where jobs are refused while it does not answer; else they are taken then.
    #[serde(default)]
    pub closed: bool,
}

/// A policy, and how it fares.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PolicyRow {
    /// `score`: which agents are best for tasks; `admission`: which jobs are taken.
    pub kind: &'static str,
    /// The role that it is for; missing: all of which nothing else is said.
    pub role: Option<String>,
    /// The digest of its component.
    pub bundle: String,
    /// True where jobs are refused while it does not answer.
    pub closed: bool,
    /// Since when it is on record, in milliseconds of the Unix epoch.
    pub since_ms: u64,
    /// Why this master cannot ask it, where it cannot.
    pub missing: Option<String>,
    /// How often it was asked: about agents, by all shards since each took it up; about jobs, by this master since its start.
    pub calls: u64,
    /// How often in vain; then it was as if there were none.
    pub failures: u64,
    /// Why the last time.
    pub last_failure: Option<String>,
    /// Shards (of admission: 1 for this master) that have put it aside for a minute, since it failed too often in a row.
    pub aside: u32,
}

/// The policies of the cluster.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PoliciesPage {
    /// They, by kind and role.
    pub policies: Vec<PolicyRow>,
}

/// Lists policies, and how they fare.
#[utoipa::path(get, path = "/v1/policies", tag = "cluster", responses((status = 200, body = PoliciesPage), (status = 403, body = ErrorAnswer)))]
pub async fn list(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<PoliciesPage>, ApiError> {
    caller.must_level(Level::Viewer)?;
    let mut page = rows(&api).await?;
    page.policies.retain(|row| match &row.role {
        None => true,
        Some(role) => Role::new(role).is_ok_and(|role| caller.sees(&role)),
    });
    Ok(Json(page))
}

/// Brings a policy, in place of what was there before. It is tried to be loaded first: what is none of its kind is refused.
#[utoipa::path(put, path = "/v1/policies/{kind}", tag = "cluster", params(("kind" = String, Path, description = "`score` or `admission`"), PolicyQuery),
    request_body = PolicySetBody, responses((status = 200, body = PoliciesPage), (status = 400, body = ErrorAnswer), (status = 403, body = ErrorAnswer),
        (status = 422, body = ErrorAnswer, description = "it is no component of that world, or imports something")))]
pub async fn set(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(kind): Segment,
    Asked(query): Asked<PolicyQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<PoliciesPage>, ApiError> {
    caller.must_own_cluster()?;
    let place = place(&kind, query.role.as_deref())?;
    let wanted: PolicySetBody = body::json(&headers, body).await?;
    let bundle = wanted.bundle.strip_prefix("sha256:").unwrap_or(&wanted.bundle);
    let bundle: Digest = body::parsed("bundle", bundle)?;
    if wanted.closed && place.0 != Kind::Admission {
        return Err(ApiError::invalid("closed", "of a score the built-in order is taken where it does not answer"));
    }
    if !api.plug_ins.are_possible() {
        return Err(ApiError::not_implemented("this master runs no policies"));
    }
    api.all_understand()?;
    if api.shelf.ensure(bundle).await.is_none() {
        return Err(ApiError::unprocessable("bundle", "no such bundle: upload it first").with_help("skep policy set KIND FILE.wasm"));
    }
    api.plug_ins.try_out(place.0, bundle).await.map_err(|error| match error {
        LoadError::Refused(reason) => ApiError::unprocessable("bundle", reason),
        LoadError::Failed(reason) => ApiError::unavailable(reason),
    })?;
    find::done(&api, HOME, Request::SetPlugIn { place, plug_in: Some((bundle, wanted.closed)) }).await?;
    taken_up(&api).await?;
    Ok(Json(rows(&api).await?))
}

/// Takes a policy away.
#[utoipa::path(delete, path = "/v1/policies/{kind}", tag = "cluster", params(("kind" = String, Path, description = "`score` or `admission`"), PolicyQuery),
    responses((status = 204, description = "it is gone"), (status = 403, body = ErrorAnswer), (status = 404, body = ErrorAnswer)))]
pub async fn remove(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(kind): Segment,
    Asked(query): Asked<PolicyQuery>,
) -> Result<StatusCode, ApiError> {
    caller.must_own_cluster()?;
    let place = place(&kind, query.role.as_deref())?;
    find::done(&api, HOME, Request::SetPlugIn { place, plug_in: None }).await?;
    taken_up(&api).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn place(kind: &str, role: Option<&str>) -> Result<Place, ApiError> {
    let kind = Kind::named(kind).ok_or_else(|| ApiError::invalid("kind", "score or admission"))?;
    let role = role.map(|role| find::role(Some(role))).transpose()?;
    Ok((kind, role))
}

/// Good from the answer on, at this master.
async fn taken_up(api: &Api) -> Result<(), ApiError> {
    api.plug_ins.refresh().await.map_err(ApiError::unavailable)?;
    api.plug_ins.load_all().await;
    Ok(())
}

/// All policies, as shard 0 and this master know them, with how they fare.
pub async fn rows(api: &Api) -> Result<PoliciesPage, ApiError> {
    let (mut on_record, mut scores) = (Vec::new(), BTreeMap::<Option<Role>, (Tally, u32)>::new());
    for viewed in find::view_all(api, View::PlugIns).await? {
        let Viewed::PlugIns(view) = viewed else {
            return Err(ApiError::internal("a shard answered another question than it was asked"));
        };
        on_record.extend(view.on_record);
        for (role, tally, aside_until) in view.scores {
            let sum = scores.entry(role).or_default();
            sum.0.add(&tally);
            sum.1 += u32::from(aside_until.is_some_and(|until| super::access::now() < until));
        }
    }
    let here = api.plug_ins.shown();
    let row = |(place, plug_in): (Place, crate::shard::plugins::PlugIn)| {
        let known = here.iter().find(|shown| shown.place == place && shown.plug_in == plug_in);
        let (tally, aside) = match place.0 {
            Kind::Score => scores.get(&place.1).cloned().unwrap_or_default(),
            Kind::Admission => known.map(|shown| (shown.tally.clone(), u32::from(shown.aside))).unwrap_or_default(),
        };
        let missing = known.map_or(Some("it is being loaded".to_owned()), |shown| shown.missing.clone());
        PolicyRow {
            kind: place.0.text(),
            role: place.1.map(|role| role.to_string()),
            bundle: format!("sha256:{}", plug_in.bundle),
            closed: plug_in.closed,
            since_ms: plug_in.since.0,
            missing,
            calls: tally.calls,
            failures: tally.failures,
            last_failure: Some(tally.last).filter(|last| !last.is_empty()),
            aside,
        }
    };
    Ok(PoliciesPage { policies: on_record.into_iter().map(row).collect() })
}
