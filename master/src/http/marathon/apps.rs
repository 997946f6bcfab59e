//! `/v2/apps`: made, listed, changed, restarted and ended.

use super::change::{self, Begun, Change, What, carry_out, prepare};
use super::events;
use super::held::{self, Held};
use super::id::AppId;
use super::note;
use super::show::{Embed, Filter, Writer};
use super::words::{Object, Query, time, timestamp, without_nulls};
use super::wrong::{Fault, Wrong};
use crate::http::Api;
use crate::http::access::{Caller, now};
use crate::shard::event::Level;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::convert::Infallible;

/// Bytes of a list of apps that are handed over at a time.
const PART_BYTES: usize = 64 << 10;
/// Fields of an app that say the same: who names one does not mean what was said with the other before.
const SAME: [(&str, &[&str]); 6] = [
    ("cmd", &["args"]),
    ("args", &["cmd"]),
    ("ports", &["portDefinitions"]),
    ("portDefinitions", &["ports"]),
    ("uris", &["fetch"]),
    ("container", &["portDefinitions", "ports"]),
];

/// The object that a body is.
///
/// # Errors
/// [`Wrong`] of status 400 where it is none.
pub fn object(body: &[u8]) -> Result<Object, Wrong> {
    match parsed(body)? {
        Value::Object(object) => Ok(object),
        _ => Err(Wrong::faults(vec![Fault { path: "/".into(), message: "error.expected.jsobject".into(), is_type: true }])),
    }
}

/// The JSON that a body is, without what is `null`.
///
/// # Errors
/// [`Wrong`] of status 400 where it is none.
pub fn parsed(body: &[u8]) -> Result<Value, Wrong> {
    serde_json::from_slice(body).map(without_nulls).map_err(|error| Wrong::bad(format!("Invalid JSON: {error}")))
}

/// The id that an app says, seen from `group`.
///
/// # Errors
/// [`Wrong`] where it says none, or one that is none.
pub fn own_id(body: &Object, group: &AppId) -> Result<AppId, Wrong> {
    match body.get("id") {
        Some(Value::String(text)) => match group.resolve(text) {
            Ok(id) if !id.is_root() && id != *group => Ok(id),
            Ok(_) => Err(Wrong::at("/id", "must not be empty")),
            Err(why) => Err(Wrong::at("/id", why)),
        },
        Some(_) => Err(Wrong::faults(vec![Fault { path: "/id".into(), message: "error.expected.jsstring".into(), is_type: true }])),
        None => Err(Wrong::faults(vec![Fault { path: "/id".into(), message: "undefined".into(), is_type: false }])),
    }
}

/// Answers `GET /v2/apps`.
///
/// # Errors
/// [`Wrong`].
pub async fn list(api: &Api, caller: &Caller, query: &Query) -> Result<Response, Wrong> {
    let filter = Filter::of(query).map_err(Wrong::bad)?;
    events::settled(api, super::deployments::settle(api).await?);
    let mut all = held::within(api, caller, &AppId::root()).await?;
    all.retain(|held| filter.wants(held));
    let writer = Writer::new(api, Embed::of(query), &all).await?;
    let (mut parts, mut output) = (vec![], String::from("{\"apps\":["));
    for (at, held) in all.iter().enumerate() {
        if at > 0 {
            output.push(',');
        }
        writer.write(held, &mut output).await?;
        if output.len() >= PART_BYTES {
            parts.push(Ok::<_, Infallible>(std::mem::take(&mut output)));
        }
    }
    output.push_str("]}");
    parts.push(Ok(output));
    Ok(json_text(StatusCode::OK, Body::from_stream(futures::stream::iter(parts))))
}

/// An answer of JSON that is written already.
pub fn json_text(status: StatusCode, body: Body) -> Response {
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

/// Answers `POST /v2/apps`.
///
/// # Errors
/// [`Wrong`].
pub async fn create(api: &Api, caller: &Caller, query: &Query, body: &[u8]) -> Result<Response, Wrong> {
    let body = object(body)?;
    let id = own_id(&body, &AppId::root())?;
    let (role, _) = id.place().map_err(|why| Wrong::at("/id", why))?;
    caller.must(Level::Operator, &role)?;
    held::is_free(api, &id).await?;
    let change = prepare(api, caller, &id, &body, None, false).await?;
    let begun = carry_out(api, vec![change], query.flag("force"), &timestamp(now())).await?;
    let held = held::app(api, caller, &id).await?;
    let writer = Writer::new(api, Embed { tasks: true, ..Embed::of_one() }, std::slice::from_ref(&held)).await?;
    let text = writer.text(&held).await?;
    events::posted(api, &id, "/v2/apps", &text);
    let mut response = json_text(StatusCode::CREATED, text.into());
    if let Ok(deployment) = HeaderValue::from_str(&begun.deployment) {
        response.headers_mut().insert(change::DEPLOYMENT_HEADER, deployment);
    }
    Ok(response)
}

/// Answers `GET /v2/apps/{id}`.
///
/// # Errors
/// [`Wrong`].
pub async fn show(api: &Api, caller: &Caller, id: &AppId, query: &Query) -> Result<Response, Wrong> {
    events::settled(api, super::deployments::settle(api).await?);
    let held = held::app(api, caller, id).await?;
    let embed = if query.all("embed").next().is_none() { Embed::of_one() } else { Embed::of(query) };
    let text = Writer::new(api, embed, std::slice::from_ref(&held)).await?.text(&held).await?;
    Ok(json_text(StatusCode::OK, format!("{{\"app\":{text}}}").into()))
}

/// Answers `GET /v2/apps/*` and `GET /v2/apps/{group}/*`: the apps in a group.
///
/// # Errors
/// [`Wrong`].
pub async fn of_group(api: &Api, caller: &Caller, group: &AppId, query: &Query) -> Result<Response, Wrong> {
    let all = held::within(api, caller, group).await?;
    let writer = Writer::new(api, Embed::of(query), &all).await?;
    let mut texts = vec![];
    for held in &all {
        texts.push(writer.text(held).await?);
    }
    Ok(json_text(StatusCode::OK, format!("{{\"*\":[{}]}}", texts.join(",")).into()))
}

/// What an app is with `body` over it, or `body` alone.
fn over(before: Option<&Held>, body: Object, partial: bool) -> Object {
    let Some(held) = before.filter(|_| partial) else { return body };
    let mut whole = held.fields();
    whole.insert("instances".into(), held.view.job.count.into());
    for (name, others) in SAME {
        let says_ports = name != "container" || body.get(name).is_some_and(|container| container.get("portMappings").is_some());
        if body.contains_key(name) && says_ports {
            others.iter().filter(|other| !body.contains_key(**other)).for_each(|other| drop(whole.remove(*other)));
        }
    }
    // A client that gives back what it was given with other ports means these.
    if let (Some(ports), Some(definitions)) = (body.get("ports"), body.get("portDefinitions")) {
        let (changed, other) = (Some(ports) != whole.get("ports"), Some(definitions) == whole.get("portDefinitions"));
        if changed && other {
            let mut body = body;
            body.remove("portDefinitions");
            whole.remove("portDefinitions");
            whole.extend(body);
            return whole;
        }
    }
    whole.extend(body);
    whole
}

/// What a change of one app does.
async fn update(api: &Api, caller: &Caller, id: &AppId, body: Object, partial: bool) -> Result<Change, Wrong> {
    let before = held::known(api, caller, id).await?.filter(Held::lives);
    if before.is_none() {
        held::is_free(api, id).await?;
    }
    if let Some(version) =
        body.get("version").and_then(Value::as_str).filter(|_| body.keys().all(|name| ["version", "id"].contains(&name.as_str())))
    {
        let held = before.ok_or_else(|| held::missing(id))?;
        let body = super::versions::fields(api, &held, version).await?;
        return prepare(api, caller, id, &body, Some(held), false).await;
    }
    if body.get("id").is_some_and(|own| own.as_str().and_then(|own| id.parent().resolve(own).ok()).as_ref() != Some(id)) {
        return Err(Wrong::at("/id", "an app cannot be given another id"));
    }
    let body = over(before.as_ref(), body, partial);
    prepare(api, caller, id, &body, before, false).await
}

/// Answers `PUT` and `PATCH /v2/apps/{id}`.
///
/// # Errors
/// [`Wrong`].
pub async fn put(api: &Api, caller: &Caller, id: &AppId, query: &Query, body: &[u8]) -> Result<Response, Wrong> {
    let change = update(api, caller, id, object(body)?, query.flag_or("partialUpdate", true)).await?;
    let status = if change.before.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    let version = version_of(&change);
    let begun = carry_out(api, vec![change], query.flag("force"), &version).await?;
    tell_posted(api, caller, id).await?;
    Ok((status, begun).into_response())
}

/// The version that an app has once a change is done, or of the change where it ends.
fn version_of(change: &Change) -> String {
    let fields = match (&change.what, &change.before) {
        (What::Apply(job), _) => job.origin().and_then(|origin| serde_json::from_str(note::app(&origin.note)).ok()).unwrap_or_default(),
        (What::Nothing, Some(held)) => held.fields(),
        (_, held) => return timestamp(change::later(held.as_ref())),
    };
    fields.get("version").and_then(Value::as_str).filter(|text| time(text).is_some()).map_or_else(|| timestamp(now()), str::to_owned)
}

async fn tell_posted(api: &Api, caller: &Caller, id: &AppId) -> Result<(), Wrong> {
    if events::is_heard(api)
        && let Some(held) = held::known(api, caller, id).await?
    {
        let embed = Embed { counts: true, ..Embed::default() };
        let text = Writer::new(api, embed, std::slice::from_ref(&held)).await?.text(&held).await?;
        events::posted(api, id, &format!("/v2/apps{id}"), &text);
    }
    Ok(())
}

/// Answers `PUT` and `PATCH /v2/apps`: several at once, as one deployment.
///
/// # Errors
/// [`Wrong`].
pub async fn put_all(api: &Api, caller: &Caller, query: &Query, body: &[u8]) -> Result<Response, Wrong> {
    let Value::Array(bodies) = parsed(body)? else {
        return Err(Wrong::faults(vec![Fault { path: "/".into(), message: "error.expected.jsarray".into(), is_type: true }]));
    };
    let (mut changes, partial) = (vec![], query.flag_or("partialUpdate", true));
    for (at, body) in bodies.into_iter().enumerate() {
        let prefix = format!("({at})");
        let Value::Object(body) = body else {
            return Err(Wrong::faults(vec![Fault { path: prefix, message: "error.expected.jsobject".into(), is_type: true }]));
        };
        let id = own_id(&body, &AppId::root()).map_err(|wrong| wrong.below(&prefix))?;
        if changes.iter().any(|change: &Change| change.id == id) {
            return Err(Wrong::at(&format!("{prefix}/id"), format!("{id} stands there twice")));
        }
        changes.push(update(api, caller, &id, body, partial).await.map_err(|wrong| wrong.below(&prefix))?);
    }
    let version = changes.iter().map(version_of).max().unwrap_or_else(|| timestamp(now()));
    Ok(carry_out(api, changes, query.flag("force"), &version).await?.into_response())
}

/// Answers `DELETE /v2/apps/{id}`.
///
/// # Errors
/// [`Wrong`].
pub async fn remove(api: &Api, caller: &Caller, id: &AppId, query: &Query) -> Result<Begun, Wrong> {
    let held = held::app(api, caller, id).await?;
    caller.must(Level::Operator, &held.view.job.role)?;
    let change = Change { id: id.clone(), before: Some(held), what: What::Remove, action: "StopApplication" };
    let version = version_of(&change);
    let begun = carry_out(api, vec![change], query.flag("force"), &version).await?;
    events::terminated(api, id);
    Ok(begun)
}

/// Answers `POST /v2/apps/{id}/restart`.
///
/// # Errors
/// [`Wrong`].
pub async fn restart(api: &Api, caller: &Caller, id: &AppId, query: &Query) -> Result<Begun, Wrong> {
    let held = held::app(api, caller, id).await?;
    let mut body = held.fields();
    body.insert("instances".into(), held.view.job.count.into());
    let change = prepare(api, caller, id, &body, Some(held), true).await?;
    let version = version_of(&change);
    carry_out(api, vec![change], query.flag("force"), &version).await
}

/// The answer to what is of no use where an app is: the message alone.
pub fn message(text: &str) -> Response {
    axum::Json(json!({ "message": text })).into_response()
}
