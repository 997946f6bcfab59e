//! Why tasks wait, and what a job file would change: what the job's shard knows and how its shape fits every shard's agents, as one answer.

use super::access::Caller;
use super::body::Asked;
use super::deployments_json::DeploymentBody;
use super::error::{ApiError, ErrorAnswer};
use super::explain_agents::WaitingAgentBody;
use super::gate::Segment;
use super::jobs_json::{AmountBody, SpecBody, TaskBody};
use super::{Api, find, health, spec};
use crate::jobs::rollout::State as Standing;
use crate::shard::after::Stands;
use crate::shard::deployment_view::DeploymentView;
use crate::shard::event::{JobRef, Level, Limit};
use crate::shard::view::{Explanation, JobView, NOT_THERE, SINGLE, ShapeView, View, Viewed};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use protocol::{Job, JobId, Kind, Placement, Resources, Role};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
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
    /// Of a service: the way to its present version, while that is under way or where it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<DeploymentBody>,
    /// What it begins after and still waits for: the name, and how that stands.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub after: BTreeMap<String, &'static str>,
    /// How many tasks wait for resources.
    pub waiting: u32,
    /// How many wait until their backoff is over.
    pub backing_off: u32,
    /// When the first of those is started again, in milliseconds of the Unix epoch.
    pub retry_at_ms: Option<u64>,
    /// How many tasks of the role are before them.
    pub ahead: u64,
    /// Of a system job: agents for which a task waits, and why; at most 100.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<WaitingAgentBody>,
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
    /// True where all tasks of a service would be replaced by others for that.
    pub replaces: bool,
    /// What the job would be, every default filled in.
    pub spec: SpecBody,
    /// How many tasks it would have; of a system job, how many agents match and could have one if nothing else ran there.
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
    let (deployment, after) = underway(&api, &caller, &found).await?;
    let mut text = sentence(why.waiting, why.backing_off, why.ahead, &fit);
    let agents = super::explain_agents::waiting(&api, &found, &why, query.index).await?;
    if found.job.kind == Kind::System && found.ended.is_none() {
        text = super::explain_agents::sentence(&found, why.waiting + why.backing_off, &agents);
    }
    if !after.is_empty() {
        let all: Vec<String> = after.iter().map(|(name, stands)| format!("{name}, which {stands}")).collect();
        text = format!("its tasks begin after {}", all.join(", and "));
    }
    Ok(Json(ExplainBody {
        job: id.to_string(),
        role: why.role.to_string(),
        text,
        deployment,
        after,
        waiting: why.waiting,
        backing_off: why.backing_off,
        retry_at_ms: why.retry_at.map(|time| time.0),
        ahead: why.ahead,
        agents,
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

/// What of a job is under way: its deployment, where that is not done, and what it still begins after.
async fn underway(api: &Api, caller: &Caller, job: &JobView) -> Result<(Option<DeploymentBody>, BTreeMap<String, &'static str>), ApiError> {
    if !job.job.kind.lasts() || job.ended.is_some() {
        return Ok((None, BTreeMap::new()));
    }
    let deployments = super::deployments::known(api, caller, Some(job), None, true).await?;
    let tells = |view: &&DeploymentView| view.state != Standing::Done;
    let deployment = deployments.iter().find(tells).map(DeploymentBody::from);
    if job.job.after.is_empty() {
        return Ok((deployment, BTreeMap::new()));
    }
    let Viewed::After(after) = find::view(api, job.id.shard(), View::After(JobRef::Id(job.id))).await? else {
        return Err(ApiError::internal("a shard answered another question than it was asked"));
    };
    let stands = |stands| match stands {
        Stands::Missing => "is not there",
        Stands::Begins => "is not ready",
        Stands::Ready => "is ready",
    };
    Ok((deployment, after.into_iter().map(|(name, how)| (name.to_string(), stands(how))).collect()))
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
        Some(name) => find::named(&api, &job.role, name).await?,
    };
    let changes = before.as_ref().map(|view| differences(&view.job, &job)).unwrap_or_default();
    let action = match &before {
        None => "create",
        Some(_) if changes.is_empty() => "nothing",
        Some(_) => "update",
    };
    let replaces = |view: &JobView| view.job.kind.lasts() && (view.job.template != job.template || view.job.place != job.place);
    let replaces = before.as_ref().is_some_and(replaces);
    let id = before.map(|view| view.id.to_string());
    let count = if job.kind == Kind::System { fit.would_fit_empty } else { job.count };
    Ok(Json(PlanBody { action, id, changes, replaces, spec: (&job).into(), count, fit }))
}

async fn fit(api: &Api, role: &Role, shape: &Resources, mut place: Option<(Placement, Vec<Limit>)>) -> Result<FitBody, ApiError> {
    for constraint in place.iter_mut().flat_map(|(place, _)| &mut place.constraints) {
        if let Some(other) = constraint.rule.neighbour_mut() {
            other.id = find::named(api, role, &other.name).await?.map(|view| view.id);
        }
    }
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
            if job.kind != Kind::System {
                fields.insert("count".to_owned(), job.count.into());
            }
            fields.insert("priority".to_owned(), job.priority.into());
            fields.insert("kind".to_owned(), super::spec_json::kind_text(job.kind).into());
        }
        fields
    };
    let mut changes = Vec::new();
    different("", &text(before), &text(after), &mut changes);
    changes
}

/// What is different between two texts, down to the fields in which it is.
fn different(field: &str, before: &Value, after: &Value, changes: &mut Vec<String>) {
    let below = |name: &str| if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") };
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                let of = |fields: &serde_json::Map<String, Value>| fields.get(name).cloned().unwrap_or_default();
                different(&below(name), &of(old), &of(new), changes);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() && old.iter().chain(new).all(Value::is_object) => {
            for (at, (old, new)) in old.iter().zip(new).enumerate() {
                different(&below(&at.to_string()), old, new, changes);
            }
        }
        (old, new) if old != new => changes.push(format!("{field}: {old} → {new}")),
        _ => {}
    }
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

    #[test]
    fn a_difference_is_said_of_the_field_in_which_it_is() {
        let text = |args: &str, more: Value| serde_json::json!({ "tasks": [{ "args": [args], "env": more }], "count": 3 });
        let mut changes = Vec::new();
        different("", &text("a", serde_json::json!({})), &text("b", serde_json::json!({ "LOG": "info" })), &mut changes);
        assert_eq!(changes, [r#"tasks.0.args: ["a"] → ["b"]"#, r#"tasks.0.env.LOG: null → "info""#]);
    }
}
