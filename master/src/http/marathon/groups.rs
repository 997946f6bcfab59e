//! `/v2/groups`: apps as a tree. A group is there while an app is in it; one that was made without any is known to the master that was asked, until
//! it starts again.

use super::apps::{object, own_id};
use super::change::{Begun, Change, What, carry_out, prepare};
use super::held::{self, Held};
use super::id::AppId;
use super::show::{Embed, Writer};
use super::words::{Object, Query, time, timestamp};
use super::wrong::Wrong;
use super::{events, versions};
use crate::http::Api;
use crate::http::access::{Caller, now};
use crate::shard::event::Level;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use protocol::job::COUNT_MAX;
use protocol::{Role, Time};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// Most groups without apps that a master keeps.
const EMPTY_MAX: usize = 4_096;
/// Most groups in groups that are read.
const DEPTH_MAX: usize = 8;

/// Groups that were made without apps.
#[derive(Debug, Default)]
pub struct Groups(Mutex<BTreeSet<AppId>>);

impl Groups {
    fn keep(&self, group: AppId) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < EMPTY_MAX && !group.is_root() && group.parts().count() <= DEPTH_MAX {
            all.insert(group);
        }
    }

    fn forget(&self, group: &AppId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|known| !known.is_within(group));
    }

    fn within(&self, group: &AppId) -> Vec<AppId> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|known| known.is_within(group)).cloned().collect()
    }
}

/// Answers `GET /v2/groups` and `GET /v2/groups/{id}`.
///
/// # Errors
/// [`Wrong`].
pub async fn show(api: &Api, caller: &Caller, group: &AppId, query: &Query) -> Result<Response, Wrong> {
    let all = held::within(api, caller, group).await?;
    let mut empty = api.marathon.groups.within(group);
    empty.retain(|group| role(group).is_some_and(|role| caller.sees(&role)));
    if all.is_empty() && empty.is_empty() && !group.is_root() {
        return Err(missing(group));
    }
    let embeds: Vec<&str> = query.all("embed").collect();
    let shows = |what: &str| embeds.is_empty() || embeds.iter().any(|embed| embed.starts_with(what));
    let embed = if embeds.is_empty() { Embed::default() } else { Embed::of(query) };
    let writer = Writer::new(api, Embed { counts: !embeds.is_empty() && embed.counts, ..embed }, &all).await?;
    let mut by_group: BTreeMap<AppId, Vec<Value>> = empty.into_iter().map(|group| (group, vec![])).collect();
    let mut newest: BTreeMap<AppId, Time> = BTreeMap::new();
    for held in &all {
        let at = version(held);
        let mut above = held.id.parent();
        loop {
            let kept = newest.entry(above.clone()).or_insert(at);
            *kept = at.max(*kept);
            if above.is_root() || above == *group {
                break;
            }
            above = above.parent();
        }
        let text = writer.text(held).await?;
        let app = serde_json::from_str(&text).map_err(|_| Wrong::bad(format!("{}: what it was made of is no JSON", held.id)))?;
        by_group.entry(held.id.parent()).or_default().push(app);
    }
    // A group is in others, whether anything else is in these or not.
    for empty in by_group.keys().cloned().collect::<Vec<_>>() {
        let mut above = empty.parent();
        while !above.is_root() && above != *group && above.is_within(group) {
            by_group.entry(above.clone()).or_default();
            above = above.parent();
        }
    }
    let mut below: BTreeMap<AppId, Vec<AppId>> = BTreeMap::new();
    for other in by_group.keys().filter(|other| !other.is_root()) {
        below.entry(other.parent()).or_default().push(other.clone());
    }
    let mut tree = Tree { by_group, below, newest, since: api.since, apps: shows("group.apps"), groups: shows("group.groups") };
    Ok(Json(tree.json(group)).into_response())
}

/// The role of the apps that are directly in a group.
fn role(group: &AppId) -> Option<Role> {
    group.resolve("app").ok()?.place().ok().map(|(role, _)| role)
}

fn version(held: &Held) -> Time {
    held.fields().get("version").and_then(Value::as_str).and_then(time).unwrap_or(held.view.submitted)
}

fn missing(group: &AppId) -> Wrong {
    Wrong::not_found(format!("Group '{group}' does not exist"))
}

/// Apps by the group that they are in, to be taken out group by group.
struct Tree {
    by_group: BTreeMap<AppId, Vec<Value>>,
    below: BTreeMap<AppId, Vec<AppId>>,
    newest: BTreeMap<AppId, Time>,
    since: Time,
    apps: bool,
    groups: bool,
}

impl Tree {
    /// A group with all that is in it. Groups are no deeper than a role has parts.
    fn json(&mut self, group: &AppId) -> Value {
        let below = self.below.remove(group).filter(|_| self.groups).unwrap_or_default();
        let groups: Vec<Value> = below.iter().map(|other| self.json(other)).collect();
        let apps = self.by_group.remove(group).filter(|_| self.apps).unwrap_or_default();
        let version = timestamp(self.newest.get(group).copied().unwrap_or(self.since));
        json!({ "id": group.as_str(), "apps": apps, "groups": groups, "pods": [], "dependencies": [], "version": version })
    }
}

/// What a group says that its apps are to be.
struct Wanted {
    apps: BTreeMap<AppId, (String, Object)>,
    groups: Vec<AppId>,
    /// Groups of which it says all apps that are directly in them.
    says_apps: BTreeSet<AppId>,
    /// Groups of which it says all groups that are directly in them, and these.
    says_groups: BTreeMap<AppId, BTreeSet<AppId>>,
}

impl Wanted {
    fn read(&mut self, group: &AppId, body: &Object, place: &str, depth: usize) -> Result<(), Wrong> {
        if depth > DEPTH_MAX {
            return Err(Wrong::at(&format!("{place}/groups"), format!("groups are at most {DEPTH_MAX} deep")));
        }
        self.groups.push(group.clone());
        for name in ["pods", "dependencies"] {
            if body.get(name).and_then(Value::as_array).is_some_and(|list| !list.is_empty()) {
                let why = if name == "pods" { "pods are not run yet" } else { "say of each app what it waits for: dependencies of an app" };
                return Err(Wrong::at(&format!("{place}/{name}"), why));
            }
        }
        if let Some(apps) = list(body, "apps", place)? {
            self.says_apps.insert(group.clone());
            for (at, app) in apps.into_iter().enumerate() {
                let place = format!("{place}/apps({at})");
                let id = own_id(&app, group).map_err(|wrong| wrong.below(&place))?;
                if id.parent() != *group {
                    return Err(Wrong::at(
                        &format!("{place}/id"),
                        format!("identifier {id} is not child of {group}. Hint: use relative paths."),
                    ));
                }
                if self.apps.insert(id.clone(), (place.clone(), app)).is_some() {
                    return Err(Wrong::at(&format!("{place}/id"), format!("{id} stands there twice")));
                }
            }
        }
        if let Some(groups) = list(body, "groups", place)? {
            let mut named = BTreeSet::new();
            for (at, sub) in groups.into_iter().enumerate() {
                let place = format!("{place}/groups({at})");
                let id = own_id(&sub, group).map_err(|wrong| wrong.below(&place))?;
                if id.parent() != *group {
                    return Err(Wrong::at(
                        &format!("{place}/id"),
                        format!("identifier {id} is not child of {group}. Hint: use relative paths."),
                    ));
                }
                self.read(&id, &sub, &place, depth + 1)?;
                named.insert(id);
            }
            self.says_groups.insert(group.clone(), named);
        }
        Ok(())
    }

    /// True where an app that is there and is not named ends.
    fn ends(&self, held: &Held) -> bool {
        let group = held.id.parent();
        if self.apps.contains_key(&held.id) {
            return false;
        }
        if self.says_apps.contains(&group) {
            return true;
        }
        // It is in a group that is not named any more, or in one below that.
        let unnamed = |(outer, named): (&AppId, &BTreeSet<AppId>)| {
            group != *outer && group.is_within(outer) && !named.iter().any(|named| group.is_within(named))
        };
        self.says_groups.iter().any(unnamed)
    }
}

fn list(body: &Object, name: &str, place: &str) -> Result<Option<Vec<Object>>, Wrong> {
    let wrong = || Wrong::at(&format!("{place}/{name}"), "error.expected.jsarray");
    match body.get(name) {
        None => Ok(None),
        Some(Value::Array(list)) => {
            let objects: Option<Vec<Object>> = list.iter().map(|value| value.as_object().cloned()).collect();
            objects.map(Some).ok_or_else(wrong)
        }
        Some(_) => Err(wrong()),
    }
}

/// What makes a group be what `body` says.
async fn changes(api: &Api, caller: &Caller, group: &AppId, body: &Object) -> Result<(Vec<Change>, Vec<AppId>), Wrong> {
    let mut wanted = Wanted { apps: BTreeMap::new(), groups: vec![], says_apps: BTreeSet::new(), says_groups: BTreeMap::new() };
    wanted.read(group, body, "", 0)?;
    let all = held::within(api, caller, group).await?;
    let mut changes = vec![];
    for (id, (place, app)) in &wanted.apps {
        let before = all.iter().find(|held| held.id == *id).cloned();
        if before.is_none() {
            held::is_free(api, id).await.map_err(|wrong| wrong.below(place))?;
        }
        changes.push(prepare(api, caller, id, app, before, false).await.map_err(|wrong| wrong.below(place))?);
    }
    for held in all.into_iter().filter(|held| wanted.ends(held)) {
        caller.must(Level::Operator, &held.view.job.role)?;
        changes.push(Change { id: held.id.clone(), before: Some(held), what: What::Remove, action: "StopApplication" });
    }
    Ok((changes, wanted.groups))
}

/// Answers `POST /v2/groups` and `POST /v2/groups/{id}`.
///
/// # Errors
/// [`Wrong`].
pub async fn create(api: &Api, caller: &Caller, base: &AppId, query: &Query, body: &[u8]) -> Result<Response, Wrong> {
    let body = object(body)?;
    let group = if body.contains_key("id") { own_id(&body, base).or_else(|wrong| root(&body, base).ok_or(wrong))? } else { base.clone() };
    let is_there = !held::within(api, caller, &group).await?.is_empty() || api.marathon.groups.within(&group).contains(&group);
    if is_there && !group.is_root() {
        return Err(Wrong::conflict(format!("Group {group} is already created. Use PUT to change this group.")));
    }
    let begun = change(api, caller, &group, query, &body).await?;
    Ok((StatusCode::CREATED, begun).into_response())
}

/// The group of all, where a body means that.
fn root(body: &Object, base: &AppId) -> Option<AppId> {
    let id = base.resolve(body.get("id")?.as_str()?).ok()?;
    (id == *base).then_some(id)
}

/// Answers `PUT` and `PATCH /v2/groups` and `/v2/groups/{id}`.
///
/// # Errors
/// [`Wrong`].
pub async fn put(api: &Api, caller: &Caller, base: &AppId, query: &Query, body: &[u8]) -> Result<Response, Wrong> {
    let body = object(body)?;
    let own = body.get("id").and_then(Value::as_str).map(|text| base.parent().resolve(text)).transpose();
    let group = match own.map_err(|why| Wrong::at("/id", why))? {
        // Clients that name no group in the path name it in the body.
        Some(id) if base.is_root() => id,
        Some(id) if id != *base && base.resolve(body["id"].as_str().unwrap_or("")).as_ref() != Ok(base) => {
            return Err(Wrong::at("/id", format!("a group cannot be given another id: {base} is not {id}")));
        }
        _ => base.clone(),
    };
    if let Some(factor) = body.get("scaleBy") {
        let factor = factor.as_f64().filter(|factor| (0.0..=1e6).contains(factor));
        let factor = factor.ok_or_else(|| Wrong::at("/scaleBy", "is to be a number from 0 on"))?;
        return Ok(scale(api, caller, &group, query, factor).await?.into_response());
    }
    if let Some(version) =
        body.get("version").and_then(Value::as_str).filter(|_| body.keys().all(|name| ["version", "id"].contains(&name.as_str())))
    {
        return rollback(api, caller, &group, query, version).await;
    }
    if query.flag("dryRun") {
        let (changes, _) = changes(api, caller, &group, &body).await?;
        let step = |change: &Change| json!({ "actions": [{ "action": change.action, "app": change.id.as_str() }] });
        let steps: Vec<Value> = changes.iter().filter(|change| !matches!(change.what, What::Nothing)).map(step).collect();
        return Ok(Json(json!({ "steps": steps })).into_response());
    }
    let was_there = !held::within(api, caller, &group).await?.is_empty() || group.is_root();
    let begun = change(api, caller, &group, query, &body).await?;
    Ok((if was_there { StatusCode::OK } else { StatusCode::CREATED }, begun).into_response())
}

async fn change(api: &Api, caller: &Caller, group: &AppId, query: &Query, body: &Object) -> Result<Begun, Wrong> {
    caller.must_level(Level::Operator)?;
    let (changes, groups) = changes(api, caller, group, body).await?;
    for group in groups.iter().filter(|group| !group.is_root()) {
        let role = role(group).ok_or_else(|| Wrong::at("/id", format!("{group}: groups are at most {DEPTH_MAX} deep")))?;
        caller.must(Level::Operator, &role)?;
    }
    let version = timestamp(now());
    let begun = carry_out(api, changes, query.flag("force"), &version).await?;
    groups.into_iter().for_each(|group| api.marathon.groups.keep(group));
    events::group_changed(api, group, &version);
    Ok(begun)
}

async fn scale(api: &Api, caller: &Caller, group: &AppId, query: &Query, factor: f64) -> Result<Begun, Wrong> {
    let all = held::within(api, caller, group).await?;
    if all.is_empty() && !group.is_root() {
        return Err(missing(group));
    }
    let mut changes = vec![];
    for held in all {
        caller.must(Level::Operator, &held.view.job.role)?;
        let count = (f64::from(held.view.job.count) * factor).ceil();
        if count > f64::from(COUNT_MAX) {
            return Err(Wrong::at("/scaleBy", format!("{}: at most {COUNT_MAX} tasks", held.id)));
        }
        // A cast of a float saturates.
        changes.push(Change { id: held.id.clone(), before: Some(held), what: What::Scale(count as u32), action: "ScaleApplication" });
    }
    carry_out(api, changes, query.flag("force"), &timestamp(now())).await
}

/// All apps of a group as they were in a version: each in the newest of its own that is not newer.
async fn rollback(api: &Api, caller: &Caller, group: &AppId, query: &Query, version: &str) -> Result<Response, Wrong> {
    let mut changes = vec![];
    for held in held::within(api, caller, group).await? {
        let body = versions::fields_at(api, &held, version).await?;
        changes.push(prepare(api, caller, &held.id.clone(), &body, Some(held), false).await?);
    }
    if changes.is_empty() {
        return Err(missing(group));
    }
    Ok(carry_out(api, changes, query.flag("force"), &timestamp(now())).await?.into_response())
}

/// Answers `PUT /v2/groups/{id}/versions/{version}`.
///
/// # Errors
/// [`Wrong`].
pub async fn put_version(api: &Api, caller: &Caller, group: &AppId, query: &Query, version: &str) -> Result<Response, Wrong> {
    rollback(api, caller, group, query, version).await
}

/// Answers `GET /v2/groups/{id}/versions`.
///
/// # Errors
/// [`Wrong`].
pub async fn list_versions(api: &Api, caller: &Caller, group: &AppId) -> Result<Response, Wrong> {
    let all = held::within(api, caller, group).await?;
    if all.is_empty() && !group.is_root() {
        return Err(missing(group));
    }
    let versions: BTreeSet<Time> = all.iter().map(version).collect();
    Ok(Json(versions.into_iter().rev().map(timestamp).collect::<Vec<_>>()).into_response())
}

/// Answers `DELETE /v2/groups` and `DELETE /v2/groups/{id}`: all apps in it end.
///
/// # Errors
/// [`Wrong`].
pub async fn remove(api: &Api, caller: &Caller, group: &AppId, query: &Query) -> Result<Begun, Wrong> {
    let all = held::within(api, caller, group).await?;
    if all.is_empty() && api.marathon.groups.within(group).is_empty() {
        return Err(missing(group));
    }
    let mut changes = vec![];
    for held in all {
        caller.must(Level::Operator, &held.view.job.role)?;
        changes.push(Change { id: held.id.clone(), before: Some(held), what: What::Remove, action: "StopApplication" });
    }
    let version = timestamp(now());
    let begun = carry_out(api, changes, query.flag("force"), &version).await?;
    api.marathon.groups.forget(group);
    events::group_changed(api, group, &version);
    Ok(begun)
}
