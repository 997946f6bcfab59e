//! Which job is meant, and whether the caller may see it.

use super::Api;
use super::access::Caller;
use super::error::{ApiError, unexpected};
use super::gate;
use crate::drive::routes::Route;
use crate::shard::event::{JobRef, Request, Response};
use crate::shard::view::{JobView, View, Viewed};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse as _;
use protocol::ids::ROLE_DEFAULT;
use protocol::message::shard_of_job;
use protocol::{JobId, Name, Role, ShardId};

/// The role that is meant where `text` says none.
///
/// # Errors
/// An [`ApiError`] of status 400.
pub fn role(text: Option<&str>) -> Result<Role, ApiError> {
    Role::new(text.unwrap_or(ROLE_DEFAULT)).map_err(|error| ApiError::invalid("role", error.to_string()))
}

/// The job that `text` names: the one of that name in the role, or else the one of that id. A name goes first, since `jade` could be both,
/// and whoever has a job of that name means it. Of another's job the answer is that there is none.
///
/// # Errors
/// An [`ApiError`] of status 400, 404, 429 or 503.
pub async fn job(api: &Api, caller: &Caller, text: &str, role_text: Option<&str>) -> Result<JobView, ApiError> {
    let role = role(role_text)?;
    let name = Name::new(text);
    let id = text.parse::<JobId>();
    if name.is_err() && id.is_err() {
        return Err(ApiError::invalid("job", "a job is named by its name or by its id, as j2a"));
    }
    if let Some(name) = name.ok().filter(|_| caller.sees(&role)) {
        let shard = shard_of_job(&role, name.as_str(), api.door.shards());
        if let Some(view) = viewed(api, shard, JobRef::Name(role, name)).await? {
            return Ok(view);
        }
    }
    let id = id.ok().filter(|id| id.shard().0 < api.door.shards()).ok_or_else(|| ApiError::not_found("job"))?;
    let view = viewed(api, id.shard(), JobRef::Id(id)).await?;
    view.filter(|view| caller.sees(&view.job.role)).ok_or_else(|| ApiError::not_found("job"))
}

/// The live job of a role that is called so; `None` where there is none.
///
/// # Errors
/// An [`ApiError`] where its shard cannot answer now.
pub async fn named(api: &Api, role: &Role, name: &Name) -> Result<Option<JobView>, ApiError> {
    let shard = shard_of_job(role, name.as_str(), api.door.shards());
    let view = viewed(api, shard, JobRef::Name(role.clone(), name.clone())).await?;
    Ok(view.filter(|view| view.ended.is_none()))
}

/// The job that is meant, of whichever shard; `None` where there is none.
///
/// # Errors
/// An [`ApiError`] where the shard cannot answer now.
pub async fn viewed(api: &Api, shard: ShardId, job: JobRef) -> Result<Option<JobView>, ApiError> {
    match ask(api, shard, View::Job(job)).await? {
        Response::Viewed(viewed) => match *viewed {
            Viewed::Job(view) => Ok(Some(*view)),
            other => Err(unexpected(&Response::Viewed(Box::new(other)))),
        },
        Response::Refused(crate::shard::event::Refusal::NotFound { .. }) => Ok(None),
        other => Err(unexpected(&other)),
    }
}

/// Sends a framework to the master that leads its shard, where that is another: to what `url` makes of where that one serves HTTP.
pub fn elsewhere(api: &Api, shard: ShardId, url: impl FnOnce(&str) -> String) -> Option<axum::response::Response> {
    let Some(Route::At(leader)) = api.door.routes().find(shard) else { return None };
    Some(redirect(url(&api.door.peers().find(leader)?.master().http)))
}

/// The same request is to be made there.
pub fn redirect(url: String) -> axum::response::Response {
    (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, url)]).into_response()
}

/// Asks the shard's leader; where the request wants no more than what this master knows, its own replica.
async fn ask(api: &Api, shard: ShardId, view: View) -> Result<Response, ApiError> {
    if gate::wants_stale()
        && let Some(viewed) = api.door.look(shard, view.clone())
    {
        return Ok(viewed.map_or_else(Response::Refused, |viewed| Response::Viewed(Box::new(viewed))));
    }
    Ok(api.door.ask(shard, Request::View(view)).await?)
}

/// What `shard` shows.
///
/// # Errors
/// An [`ApiError`] where it is refused, or the shard cannot answer now.
pub async fn view(api: &Api, shard: ShardId, view: View) -> Result<Viewed, ApiError> {
    match ask(api, shard, view).await? {
        Response::Viewed(viewed) => Ok(*viewed),
        other => Err(unexpected(&other)),
    }
}

/// What every shard shows.
///
/// # Errors
/// As [`view`].
pub async fn view_all(api: &Api, view: View) -> Result<Vec<Viewed>, ApiError> {
    let asked = (0..api.door.shards()).map(|shard| ask(api, ShardId(shard), view.clone()));
    let answers = futures::future::try_join_all(asked).await?;
    let viewed = answers.into_iter().map(|answer| match answer {
        Response::Viewed(viewed) => Ok(*viewed),
        other => Err(unexpected(&other)),
    });
    viewed.collect()
}

/// Asks for something that is answered with `Done`.
///
/// # Errors
/// As [`view`].
pub async fn done(api: &Api, shard: ShardId, request: Request) -> Result<(), ApiError> {
    match api.door.ask(shard, request).await? {
        Response::Done => Ok(()),
        other => Err(unexpected(&other)),
    }
}
