//! Versions of an app: those of its service that are kept. What an app was in each stands with that.

use super::MADE_BY;
use super::held::Held;
use super::note;
use super::words::{Object, time};
use super::wrong::Wrong;
use crate::http::error::ApiError;
use crate::http::{Api, find};
use crate::shard::deployment_view::VersionView;
use crate::shard::event::JobRef;
use crate::shard::view::{View, Viewed};
use protocol::Job;
use serde_json::{Value, json};

/// One that is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// Its number.
    pub number: u32,
    /// When it was asked for.
    pub at: String,
    /// What the app was, with the number of its tasks.
    pub fields: Object,
}

impl Version {
    /// `None` where it was made otherwise than as an app.
    fn of(view: &VersionView) -> Option<Self> {
        let origin = view.job.origin().filter(|origin| origin.by == MADE_BY)?;
        let mut fields: Object = serde_json::from_str(note::app(&origin.note)).ok()?;
        fields.insert("instances".into(), view.job.count.into());
        let at = fields.get("version").and_then(Value::as_str)?.to_owned();
        Some(Self { number: view.number, at, fields })
    }

    /// True where it was asked for then. Of changes of the number of tasks alone only the last is kept, but what it was before is this one too.
    fn is_of(&self, wanted: &str) -> bool {
        let wanted = time(wanted);
        let config = self.fields.get("versionInfo").and_then(|info| info.get("lastConfigChangeAt")).and_then(Value::as_str);
        wanted.is_some() && (time(&self.at) == wanted || config.and_then(time) == wanted)
    }
}

/// The versions that are kept: the present one, and then the others, the newest first.
///
/// # Errors
/// An [`ApiError`] where the shard cannot answer now.
pub async fn kept(api: &Api, held: &Held) -> Result<Vec<Version>, ApiError> {
    match find::view(api, held.view.id.shard(), View::Versions(JobRef::Id(held.view.id))).await? {
        Viewed::Versions(views) => Ok(ordered(&views)),
        _ => Err(ApiError::internal("a shard answered another question than it was asked")),
    }
}

/// The job of a version by its number; `None` where that is not kept.
///
/// # Errors
/// As [`kept`].
pub async fn job(api: &Api, held: &Held, number: u32) -> Result<Option<Job>, ApiError> {
    match find::view(api, held.view.id.shard(), View::Versions(JobRef::Id(held.view.id))).await? {
        Viewed::Versions(views) => Ok(views.into_iter().find(|view| view.number == number).map(|view| view.job)),
        _ => Err(ApiError::internal("a shard answered another question than it was asked")),
    }
}

fn ordered(views: &[VersionView]) -> Vec<Version> {
    let mut views: Vec<&VersionView> = views.iter().collect();
    views.sort_by_key(|view| std::cmp::Reverse((view.current, view.number)));
    let mut found: Vec<Version> = vec![];
    for version in views.into_iter().filter_map(Version::of) {
        if found.iter().all(|known| known.at != version.at) {
            found.push(version);
        }
    }
    found
}

/// Answers `GET /v2/apps/{id}/versions`.
///
/// # Errors
/// [`Wrong`].
pub async fn list(api: &Api, held: &Held) -> Result<Value, Wrong> {
    let versions: Vec<String> = kept(api, held).await?.into_iter().map(|version| version.at).collect();
    Ok(json!({ "versions": versions }))
}

/// What an app was in a version.
///
/// # Errors
/// [`Wrong`] of status 404 where that is not kept, and of 422 where it is no version.
pub async fn fields(api: &Api, held: &Held, version: &str) -> Result<Object, Wrong> {
    if time(version).is_none() {
        return Err(Wrong::at("/version", format!("{version:?} is no timestamp")));
    }
    let mut kept = kept(api, held).await?;
    let exact = kept.iter().position(|known| time(&known.at) == time(version));
    let found = exact.or_else(|| kept.iter().position(|known| known.is_of(version))).map(|at| kept.swap_remove(at).fields);
    found.ok_or_else(|| Wrong::not_found(format!("App '{}' has no version {version}", held.id)))
}

/// What an app was at a time: the newest of its versions that is not newer.
///
/// # Errors
/// As [`fields`].
pub async fn fields_at(api: &Api, held: &Held, version: &str) -> Result<Object, Wrong> {
    let wanted = time(version).ok_or_else(|| Wrong::at("/version", format!("{version:?} is no timestamp")))?;
    let kept = kept(api, held).await?.into_iter();
    let older = kept.filter_map(|known| Some((time(&known.at).filter(|at| *at <= wanted)?, known)));
    let found = older.max_by_key(|(at, _)| *at).map(|(_, known)| known.fields);
    found.ok_or_else(|| Wrong::not_found(format!("App '{}' has no version of {version} or before", held.id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admit::bundle::{Form, Verdict};
    use crate::admit::wasm::Rejection;
    use crate::http::marathon::{app::normal, id::AppId, job::made};
    use crate::jobs::rollout::Cause;
    use protocol::Time;

    /// A version whose app was changed at `config` and last given another number of tasks at `at`.
    fn view(number: u32, current: bool, config: &str, at: &str) -> VersionView {
        let body = json!({ "cmd": format!("sleep {number}"), "instances": number });
        let mut app = normal(&AppId::parse("/a").unwrap(), body.as_object().unwrap(), false).unwrap();
        app.fields.insert("version".into(), at.into());
        app.fields.insert("versionInfo".into(), json!({ "lastScalingAt": at, "lastConfigChangeAt": config }));
        let job =
            crate::admit::admit(made(&app, true).unwrap().spec, &|_| Some(Verdict { form: Form::Script, wasm: Err(Rejection::Text) }))
                .unwrap();
        VersionView { number, current, job, since: Time(0), cause: Cause::Applied }
    }

    #[test]
    fn the_present_version_comes_first_and_each_is_found_by_its_time() {
        let [one, two, three] = ["2020-01-01T00:00:00.000Z", "2020-01-02T00:00:00.000Z", "2020-01-03T00:00:00.000Z"];
        let views = [view(1, false, one, two), view(2, true, two, two), view(3, false, three, three)];
        let found = ordered(&views);
        assert_eq!(found.iter().map(|version| (version.number, version.at.as_str())).collect::<Vec<_>>(), [(2, two), (3, three)]);
        let found = ordered(&[view(1, true, one, two)]);
        assert!(found[0].is_of(one) && found[0].is_of("2020-01-02T00:00:00Z") && !found[0].is_of(three) && !found[0].is_of("x"));
        assert_eq!((&found[0].fields["cmd"], &found[0].fields["instances"]), (&json!("sleep 1"), &json!(1)));
    }
}
