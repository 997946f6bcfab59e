//! Why tasks wait, and what a job file would change: what the job's shard knows and how its shape fits every shard's agents, as one answer.

use super::access::Caller;
use super::body::Asked;
use super::error::{ApiError, ErrorAnswer};
use super::gate::Segment;
use super::jobs_json::{AmountBody, SpecBody, TaskBody};
use super::{Api, find, health, spec};
use crate::shard::event::{JobRef, Level, Limit, Refusal, Request, Response as Answer};
use crate::shard::view::{Explanation, JobView, NOT_THERE, SINGLE, ShapeView, View, Viewed};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use protocol::message::shard_of_job;
use protocol::{Job, JobId, Placement, Resources, Role};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// What is to be explained.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ExplainQuery {
    /// The job's role, where the job is named by its name.
    pub role: Option<String>,
    /// Only this task.
    pub index: Option<u32>,
}

/// Why tasks of a job wait, or where one is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ExplainBody {
    /// The job's id.
    pub job: String,
    /// Its role.
    pub role: String,
    /// The answer in one sentence, for people.
    pub text: String,
    /// How many tasks wait for resources.
    pub waiting: u32,
    /// How many wait until their backoff is over.
    pub backing_off: u32,
    /// When the first of those is started again, in milliseconds of the Unix epoch.
    pub retry_at_ms: Option<u64>,
    /// How many tasks of the role are before them.
    pub ahead: u64,
    /// How the shape of one task fits the agents.
    pub fit: FitBody,
    /// The task that was asked for.
    pub task: Option<TaskBody>,
}

/// How a shape fits the cluster's agents.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct FitBody {
    /// What one task needs.
    pub needs: AmountBody,
    /// How many agents there are.
    pub agents: u32,
    /// How many have room for one now.
    pub fitting: u32,
    /// How many would have room if nothing else ran there.
    pub would_fit_empty: u32,
    /// How many agents are short of what now: `cpu`, `memory`, … or `unreachable`; behind `place: ` which rule keeps tasks from them, and behind `single: ` a
    /// kind of device of which there is enough in all, but no single one has so much free.
    pub short: BTreeMap<String, u32>,
    /// The most that one agent has free, kind by kind.
    pub largest_free: AmountBody,
    /// The most that one agent has in all, kind by kind.
    pub largest_capacity: AmountBody,
    /// The smallest change that would fit now, for people; empty where it fits or none is known.
    pub change: String,
    /// The largest of the role's dominant shares of the shards' agents, in millionths.
    pub role_share_ppm: u64,
}

/// What a job file would change.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PlanBody {
    /// `create`, `update` or `nothing`.
    pub action: &'static str,
    /// The id of the job that would be changed.
    pub id: Option<String>,
    /// What would be different, a field each, as `count: 3 → 5`.
    pub changes: Vec<String>,
    /// What the job would be, every default filled in.
    pub spec: SpecBody,
    /// How many tasks it would have.
    pub count: u32,
    /// How one of its tasks fits the agents now.
    pub fit: FitBody,
}

/// Says why tasks wait, or where one is.
#[utoipa::path(get, path = "/v1/jobs/{job}/explain", tag = "jobs", params(("job" = String, Path, description = "a job's name or id"), ExplainQuery),
    responses((status = 200, body = ExplainBody), (status = 404, body = ErrorAnswer)))]
pub async fn explain(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(job): Segment,
    Asked(query): Asked<ExplainQuery>,
) -> Result<Json<ExplainBody>, ApiError> {
    let found = find::job(&api, &caller, &job, query.role.as_deref()).await?;
    let id = found.id;
    let (why, fit) = of_job(&api, &found, query.index).await?;
    let mut task: Vec<TaskBody> = why.task.iter().map(|task| TaskBody::new(id, task)).collect();
    health::beside(&api, &found, &mut task).await?;
    Ok(Json(ExplainBody {
        job: id.to_string(),
        role: why.role.to_string(),
        text: sentence(why.waiting, why.backing_off, why.ahead, &fit),
        waiting: why.waiting,
        backing_off: why.backing_off,
        retry_at_ms: why.retry_at.map(|time| time.0),
        ahead: why.ahead,
        fit,
        task: task.pop(),
    }))
}

/// Why the tasks of a job wait, or where one is, and how one of them fits the agents.
///
/// # Errors
/// An [`ApiError`] where a shard cannot answer now.
pub(super) async fn of_job(api: &Api, found: &JobView, index: Option<u32>) -> Result<(Explanation, FitBody), ApiError> {
    let view = View::Explain { job: JobRef::Id(found.id), index };
    let Viewed::Explain(why) = find::view(api, found.id.shard(), view).await? else {
        return Err(ApiError::internal("a shard answered another question than it was asked"));
    };
    let place = match &found.job.place {
        Some(place) if found.ended.is_none() => Some(((**place).clone(), limits(api, found.id).await?)),
        _ => None,
    };
    let fit = fit(api, &why.role, &why.shape, place).await?;
    Ok((why, fit))
}

/// Says what a job file would change, and whether one of its tasks fits now. Changes nothing.
#[utoipa::path(post, path = "/v1/plan", tag = "jobs", request_body(content = String, description = "a job file", content_type = "application/toml"),
    responses((status = 200, body = PlanBody), (status = 400, body = ErrorAnswer), (status = 422, body = ErrorAnswer)))]
pub async fn plan(State(api): State<Arc<Api>>, caller: Caller, headers: HeaderMap, body: Body) -> Result<Json<PlanBody>, ApiError> {
    let job = spec::job(&api, &headers, body).await?;
    caller.must(Level::Viewer, &job.role)?;
    let place = job.place.as_deref().map(|place| (place.clone(), Vec::new()));
    let fit = fit(&api, &job.role, &job.template.resources, place).await?;
    let before = match &job.name {
        None => None,
        Some(name) => {
            let shard = shard_of_job(&job.role, name.as_str(), api.door.shards());
            let asked = Request::View(View::Job(JobRef::Name(job.role.clone(), name.clone())));
            match api.door.ask(shard, asked).await? {
                Answer::Viewed(viewed) => match *viewed {
                    Viewed::Job(view) if view.ended.is_none() => Some(view),
                    _ => None,
                },
                Answer::Refused(Refusal::NotFound { .. }) => None,
                other => return Err(super::error::unexpected(&other)),
            }
        }
    };
    let changes = before.as_ref().map(|view| differences(&view.job, &job)).unwrap_or_default();
    let action = match &before {
        None => "create",
        Some(_) if changes.is_empty() => "nothing",
        Some(_) => "update",
    };
    let id = before.map(|view| view.id.to_string());
    Ok(Json(PlanBody { action, id, changes, spec: (&job).into(), count: job.count, fit }))
}

async fn fit(api: &Api, role: &Role, shape: &Resources, place: Option<(Placement, Vec<Limit>)>) -> Result<FitBody, ApiError> {
    let (role, shape) = (role.clone(), shape.clone());
    let view = match place {
        None => View::ExplainShape { role, shape: shape.clone() },
        Some((place, limits)) => View::ExplainPlaced { role, shape: shape.clone(), place, limits },
    };
    let shape = &shape;
    let views = find::view_all(api, view).await?;
    let shapes = views.into_iter().filter_map(|viewed| match viewed {
        Viewed::Shape(view) => Some(view),
        _ => None,
    });
    Ok(merged(shape, &shapes.collect::<Vec<_>>()))
}

/// How many more tasks of a job each value of a field takes.
async fn limits(api: &Api, id: JobId) -> Result<Vec<Limit>, ApiError> {
    match find::view(api, id.shard(), View::Limits { job: JobRef::Id(id) }).await? {
        Viewed::Limits(limits) => Ok(limits),
        _ => Err(ApiError::internal("a shard answered another question than it was asked")),
    }
}

/// How a shape fits the agents of all shards, of what each says of its own.
pub(super) fn merged(shape: &Resources, views: &[ShapeView]) -> FitBody {
    let mut fit = FitBody { needs: shape.into(), ..FitBody::default() };
    let (mut free, mut capacity) = (Resources::NONE, Resources::NONE);
    for view in views {
        fit.agents += view.agents;
        fit.fitting += view.fitting;
        fit.would_fit_empty += view.would_fit_empty;
        fit.role_share_ppm = fit.role_share_ppm.max(view.role_share_ppm);
        for (kind, agents) in &view.short {
            *fit.short.entry(kind.clone()).or_default() += agents;
        }
        free = larger(free, &view.largest_free);
        capacity = larger(capacity, &view.largest_capacity);
    }
    if fit.fitting == 0 {
        // A shard compares its own agents only: of their proposals that one is smallest whose shard is short of fewest kinds.
        let proposals = views.iter().filter(|view| !view.change.is_empty());
        let nearest = proposals.min_by_key(|view| (view.largest_free.short_of(shape).len(), missing_ppm(shape, &view.largest_free)));
        fit.change = nearest.map(|view| view.change.clone()).unwrap_or_default();
    }
    fit.largest_free = (&free).into();
    fit.largest_capacity = (&capacity).into();
    fit
}

fn larger(one: Resources, other: &Resources) -> Resources {
    let mut devices = one.devices;
    for device in &other.devices {
        match devices.binary_search_by(|have| have.name.cmp(&device.name)) {
            Ok(at) => devices[at].milli = devices[at].milli.max(device.milli),
            Err(at) => devices.insert(at, device.clone()),
        }
    }
    Resources {
        cpu_milli: one.cpu_milli.max(other.cpu_milli),
        memory_bytes: one.memory_bytes.max(other.memory_bytes),
        disk_bytes: one.disk_bytes.max(other.disk_bytes),
        ports: one.ports.max(other.ports),
        devices,
    }
}

/// How much of the shape is missing, summed over the plain kinds, in millionths of what is needed.
fn missing_ppm(shape: &Resources, free: &Resources) -> u64 {
    let part = |need: u64, have: u64| match need {
        0 => 0,
        _ => u64::try_from(u128::from(need.saturating_sub(have)) * 1_000_000 / u128::from(need)).unwrap_or(u64::MAX),
    };
    part(shape.cpu_milli, free.cpu_milli)
        + part(shape.memory_bytes, free.memory_bytes)
        + part(shape.disk_bytes, free.disk_bytes)
        + part(u64::from(shape.ports), u64::from(free.ports))
}

/// Why tasks wait, for people.
pub(super) fn sentence(waiting: u32, backing_off: u32, ahead: u64, fit: &FitBody) -> String {
    if waiting == 0 {
        return match backing_off {
            0 => "no task of it waits".to_owned(),
            tasks => format!("{tasks} of its tasks ended and wait until they are started again"),
        };
    }
    let tasks = if waiting == 1 { "1 task waits".to_owned() } else { format!("{waiting} tasks wait") };
    let short: Vec<String> = fit.short.iter().map(|(kind, agents)| format!("{agents} {}", shortage(kind))).collect();
    match (fit.agents, fit.fitting, short.is_empty()) {
        (0, _, _) => format!("{tasks}: the cluster has no agent"),
        (_, 1.., _) if ahead > 0 => format!("{tasks}: there is room, and {ahead} tasks of the role are before them"),
        (_, 1.., _) => format!("{tasks}: there is room, and they are about to be placed"),
        (agents, 0, true) => format!("{tasks}: none of {agents} agents has room"),
        (agents, 0, false) => format!("{tasks}: of {agents} agents {}", short.join(", ")),
    }
}

fn shortage(kind: &str) -> String {
    match kind.strip_prefix(NOT_THERE) {
        Some(rule) => format!("may have none ({rule})"),
        None if kind == "unreachable" => "cannot be reached".to_owned(),
        None => match kind.strip_prefix(SINGLE) {
            Some(device) => format!("have no single {device} with so much free, or not so many whole ones"),
            None => format!("lack {kind}"),
        },
    }
}

fn differences(before: &Job, after: &Job) -> Vec<String> {
    let text = |job: &Job| {
        let mut fields = serde_json::to_value(SpecBody::from(job)).unwrap_or_default();
        if let Some(fields) = fields.as_object_mut() {
            fields.insert("count".to_owned(), job.count.into());
            fields.insert("priority".to_owned(), job.priority.into());
            fields.insert("kind".to_owned(), super::jobs_json::kind_text(job.kind).into());
        }
        fields
    };
    let (before, after) = (text(before), text(after));
    let fields = after.as_object().into_iter().flatten();
    let changed = fields.filter(|(field, value)| before.get(field.as_str()) != Some(*value));
    changed.map(|(field, value)| format!("{field}: {} → {value}", before.get(field.as_str()).unwrap_or(&serde_json::Value::Null))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(agents: u32, fitting: u32, short: &[(&str, u32)], free_cpu_milli: u64, change: &str) -> ShapeView {
        ShapeView {
            agents,
            fitting,
            short: short.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect(),
            largest_free: Resources { cpu_milli: free_cpu_milli, ..Resources::NONE },
            change: change.to_owned(),
            ..ShapeView::default()
        }
    }

    #[test]
    fn an_explanation_counts_the_agents_of_all_shards_and_takes_the_smallest_change() {
        let shape = Resources { cpu_milli: 4_000, ..Resources::NONE };
        let views = [
            view(2, 0, &[("cpu", 2)], 1_000, "cpu 1"),
            view(0, 0, &[], 0, ""),
            view(3, 0, &[("cpu", 2), ("unreachable", 1)], 3_000, "cpu 3"),
        ];
        let fit = merged(&shape, &views);
        assert_eq!((fit.agents, fit.fitting, fit.change.as_str()), (5, 0, "cpu 3"));
        assert_eq!(fit.largest_free.cpu_milli, 3_000);
        assert_eq!(sentence(1, 0, 0, &fit), "1 task waits: of 5 agents 4 lack cpu, 1 cannot be reached");
        let fit = merged(&shape, &[view(3, 0, &[("cpu", 1), ("place: rack is not r1", 2)], 0, "")]);
        assert_eq!(sentence(2, 0, 0, &fit), "2 tasks wait: of 3 agents 1 lack cpu, 2 may have none (rack is not r1)");
        assert_eq!(sentence(0, 2, 0, &fit), "2 of its tasks ended and wait until they are started again");
        assert_eq!(merged(&shape, &[view(1, 1, &[], 4_000, ""), views[0].clone()]).change, "");
    }
}
