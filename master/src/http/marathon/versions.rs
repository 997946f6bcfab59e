//! Versions of an app. Its job has the present one alone.

use super::held::Held;
use super::words::{Object, time};
use super::wrong::Wrong;
use crate::http::Api;
use serde_json::{Value, json};

/// The versions that are kept, the newest first: for each its time and its fields, with the number of its tasks.
async fn all(_api: &Api, held: &Held) -> Result<Vec<(String, Object)>, Wrong> {
    let mut fields = held.fields();
    fields.insert("instances".into(), held.view.job.count.into());
    let version = fields.get("version").and_then(Value::as_str).unwrap_or("").to_owned();
    Ok(vec![(version, fields)])
}

/// Answers `GET /v2/apps/{id}/versions`.
///
/// # Errors
/// [`Wrong`].
pub async fn list(api: &Api, held: &Held) -> Result<Value, Wrong> {
    let versions: Vec<String> = all(api, held).await?.into_iter().map(|(version, _)| version).collect();
    Ok(json!({ "versions": versions }))
}

/// What an app was in a version.
///
/// # Errors
/// [`Wrong`] of status 404 where that is not kept, and of 422 where it is no version.
pub async fn fields(api: &Api, held: &Held, version: &str) -> Result<Object, Wrong> {
    let wanted = time(version).ok_or_else(|| Wrong::at("/version", format!("{version:?} is no timestamp")))?;
    let found = all(api, held).await?.into_iter().find(|(known, _)| time(known) == Some(wanted));
    found.map(|(_, fields)| fields).ok_or_else(|| Wrong::not_found(format!("App '{}' has no version {version}", held.id)))
}
