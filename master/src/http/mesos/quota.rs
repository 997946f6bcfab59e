//! Quotas and weights in Mesos' words (`mesos/v1/quota/quota.proto`, `mesos/v1/mesos.proto`): `limits` and `guarantees` by resource, memory and disk in
//! MiB.

use super::words;
use crate::http::Api;
use crate::http::access::Caller;
use crate::http::error::ApiError;
use crate::http::roles::{Known, set_role};
use crate::shard::amounts;
use crate::shard::event::Level;
use crate::shard::limits::Quota;
use crate::shard::quotas::{RoleSettings, WEIGHT_MILLI_MAX};
use crate::shard::roles::WEIGHT_ONE;
use protocol::resources::ResourceKind;
use protocol::{Resources, Role};
use serde_json::{Map, Value, json};

/// Most roles of one call.
const ROLES_MAX: usize = 1_000;

/// Roles whose weight is not 1.
///
/// # Errors
/// An [`ApiError`] where a shard cannot answer.
pub async fn weights(api: &Api, caller: &Caller) -> Result<Value, ApiError> {
    let known = Known::read(api).await?;
    let weighed = known.all_settings().filter(|(role, settings)| caller.sees(role) && settings.claim.weight_milli != WEIGHT_ONE);
    let row = |(role, settings): (&Role, &RoleSettings)| {
        let weight = f64::from(settings.claim.weight_milli) / f64::from(WEIGHT_ONE);
        json!({ "role": words::role_text(role), "weight": weight })
    };
    Ok(json!({ "weight_infos": weighed.map(row).collect::<Vec<_>>() }))
}

/// The same roles with their weights.
///
/// # Errors
/// An [`ApiError`] where a shard cannot answer.
pub async fn weighed(api: &Api, mut roles: Value) -> Result<Value, ApiError> {
    let known = Known::read(api).await?;
    for row in roles["roles"].as_array_mut().into_iter().flatten() {
        let role = words::text(row, "name").and_then(|name| words::role(name).ok());
        let weight_milli = role.map_or(WEIGHT_ONE, |role| known.settings(&role).claim.weight_milli);
        row["weight"] = (f64::from(weight_milli) / f64::from(WEIGHT_ONE)).into();
    }
    Ok(roles)
}

/// Gives roles other weights.
///
/// # Errors
/// An [`ApiError`] where one of them is none; no role is changed then.
pub async fn set_weights(api: &Api, caller: &Caller, call: &Value) -> Result<(), ApiError> {
    may_set(caller)?;
    let wanted = words::member(call, "update_weights").map(|update| words::list(update, "weight_infos")).unwrap_or_default();
    let mut changes = Vec::new();
    for info in few(wanted)? {
        let weight = words::member(info, "weight").and_then(words::number).unwrap_or(f64::NAN) * f64::from(WEIGHT_ONE);
        if !(1.0..=f64::from(WEIGHT_MILLI_MAX)).contains(&weight) {
            return Err(ApiError::invalid("weight", "from 0.001 to 1000"));
        }
        // A cast of a float saturates.
        changes.push((role_of(info)?, weight.round() as u32));
    }
    let known = Known::read(api).await?;
    for (role, weight_milli) in changes {
        let mut settings = known.settings(&role);
        settings.claim.weight_milli = weight_milli;
        set_role(api, &known, &role, settings, false).await?;
    }
    Ok(())
}

/// Roles with a limit or a guarantee.
///
/// # Errors
/// An [`ApiError`] where a shard cannot answer.
pub async fn quotas(api: &Api, caller: &Caller) -> Result<Value, ApiError> {
    let known = Known::read(api).await?;
    let row = |(role, settings): (&Role, &RoleSettings)| {
        let guarantees = amounts::kinds(&settings.claim.guarantee);
        json!({
            "role": words::role_text(role),
            "guarantees": scalars(guarantees.iter().map(|(kind, amount)| (kind, *amount))),
            "limits": scalars(settings.limit.iter()),
        })
    };
    let some = |(role, settings): &(&Role, &RoleSettings)| {
        caller.sees(role) && (!settings.limit.is_empty() || !settings.claim.guarantee.is_none())
    };
    let configs: Vec<Value> = known.all_settings().filter(some).map(row).collect();
    Ok(json!({ "status": { "infos": [], "configs": configs } }))
}

/// Gives roles other quotas, in place of those that they had.
///
/// # Errors
/// An [`ApiError`] where one of them is none, or is below what is held or above what there is and is not forced.
pub async fn set_quotas(api: &Api, caller: &Caller, call: &Value) -> Result<(), ApiError> {
    may_set(caller)?;
    let update = words::member(call, "update_quota").unwrap_or(&Value::Null);
    let force = words::flag(update, "force", false);
    let mut changes = Vec::new();
    for config in few(words::list(update, "quota_configs"))? {
        let (limits, guarantees) = (kinds(config, "limits")?, kinds(config, "guarantees")?);
        let mut guarantee = Resources::NONE;
        guarantees.iter().for_each(|(kind, amount)| amounts::set(&mut guarantee, kind, *amount));
        changes.push((role_of(config)?, Quota::new(limits), guarantee));
    }
    let known = Known::read(api).await?;
    for (role, limit, guarantee) in changes {
        let mut settings = known.settings(&role);
        (settings.limit, settings.claim.guarantee) = (limit, guarantee);
        set_role(api, &known, &role, settings, force).await?;
    }
    Ok(())
}

fn may_set(caller: &Caller) -> Result<(), ApiError> {
    caller.must_level(Level::Admin)?;
    caller.must_own_cluster()
}

fn few(list: &[Value]) -> Result<&[Value], ApiError> {
    match list.len() {
        1..=ROLES_MAX => Ok(list),
        n => Err(ApiError::invalid("body", format!("1 to {ROLES_MAX} roles, not {n}"))),
    }
}

fn role_of(value: &Value) -> Result<Role, ApiError> {
    words::role(words::text(value, "role").unwrap_or("")).map_err(|error| ApiError::invalid("role", error))
}

fn kinds(config: &Value, field: &'static str) -> Result<Vec<(ResourceKind, u64)>, ApiError> {
    let given = words::member(config, field).and_then(Value::as_object);
    let kind = |(name, scalar): (&String, &Value)| {
        let amount = words::member(scalar, "value").and_then(words::number).filter(|amount| *amount >= 0.0 && amount.is_finite());
        let amount = amount.ok_or_else(|| ApiError::invalid(field, format!("{name:?}: expected a number from 0 on")))?;
        let (kind, unit) = words::kind(name).map_err(|error| ApiError::invalid(field, error))?;
        Ok((kind, words::whole(amount * unit)))
    };
    given.into_iter().flatten().map(kind).collect()
}

fn scalars<'a>(kinds: impl Iterator<Item = (&'a ResourceKind, u64)>) -> Value {
    let scalar = |(kind, amount): (&ResourceKind, u64)| {
        let (name, unit) = words::kind_text(kind);
        (name.to_owned(), json!({ "value": amount as f64 / unit }))
    };
    kinds.map(scalar).collect::<Map<String, Value>>().into()
}
