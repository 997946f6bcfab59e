//! `/v1/framework`: frameworks in any language. One streamed answer tells a framework what concerns it, a line of JSON each; what it says is one POST
//! a call, to the master that answered. What a call means stands in `shard/frameworks.rs`.

use super::access::Caller;
use super::body;
use super::demand::{WishBody, wishes};
use super::error::{ApiError, ErrorAnswer};
use super::frameworks_json::{EventBody, Lines, inverse_id, offer_id};
use super::jobs::GRACE_MS_DEFAULT;
use super::reservations::ChangeBody;
use super::subscription::{self, Subscriber};
use super::{Api, audit, find, spec};
use crate::admit::Format;
use crate::frameworks::{Call, Filters, FrameworkId, FrameworkInfo, FrameworkRequest, REFUSE_MS_DEFAULT, REVOCABLE, TaskLaunch};
use crate::shard::event::{Level, Request};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::message::MESSAGE_BYTES_MAX;
use protocol::{OfferId, Role, ShardId};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::ToSchema;

/// What a framework says: `subscribe`, or its `id` and `stream` with one of the others.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CallBody {
    /// The framework, as it was told when it subscribed.
    id: Option<String>,
    /// The subscription, likewise.
    stream: Option<String>,
    /// Tell me what concerns this framework from now on, in a stream.
    subscribe: Option<SubscribeBody>,
    /// Run these in what these offers show.
    accept: Option<AcceptBody>,
    /// I want nothing of these.
    decline: Option<DeclineBody>,
    /// Show these roles all again, whatever was declined; none: all.
    revive: Option<Vec<String>>,
    /// Show these roles nothing until they are revived; none: all.
    suppress: Option<Vec<String>>,
    /// End a task.
    kill: Option<KillBody>,
    /// It can do without its tasks on the agents of these inverse offers.
    accept_inverse: Option<Vec<String>>,
    /// It would rather not.
    decline_inverse: Option<Vec<String>>,
    /// An update was taken in.
    acknowledge: Option<AcknowledgeBody>,
    /// Say in which state these tasks are; none: all that have not ended.
    reconcile: Option<Vec<String>>,
    /// It wants this, in place of what it wanted before, and is shown nothing else; none: whatever comes.
    demand: Option<Vec<WishBody>>,
    /// Say this to a task: once at most, and lost where it does not run or its agent is away.
    message: Option<ToTaskBody>,
    /// The framework is another than before; what it wants stays.
    update: Option<SubscribeBody>,
    /// True: the framework ends, with all its tasks.
    teardown: Option<bool>,
}

impl CallBody {
    /// What of it lasts; nothing where all that it says is of its offers, its updates and what its tasks are to hear, which it does all the time.
    fn lasting(&self) -> Option<&'static str> {
        let said = [
            ("subscribe", self.subscribe.is_some()),
            ("update", self.update.is_some()),
            ("accept", self.accept.is_some()),
            ("kill", self.kill.is_some()),
            ("teardown", self.teardown.is_some()),
        ];
        said.into_iter().find(|(_, is_said)| *is_said).map(|(what, _)| what)
    }
}

/// A framework.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubscribeBody {
    /// Its id, where it was there before: it finds its tasks again.
    id: Option<String>,
    /// What people call it.
    #[serde(default)]
    name: String,
    /// Whom its tasks are counted for; `default` where none are said.
    #[serde(default)]
    roles: Vec<String>,
    /// Of these, those that want no offers yet.
    #[serde(default)]
    suppressed: Vec<String>,
    /// What it wants, as in a call: to be said each time that it subscribes.
    #[serde(default)]
    demand: Vec<WishBody>,
    /// How long its tasks go on after it was last connected, in milliseconds.
    #[serde(default)]
    failover_ms: u64,
    /// Where its own page is.
    #[serde(default)]
    webui_url: String,
    /// True: it is told that a task's agent is silent before the task is lost, and that a task is asked to stop.
    #[serde(default)]
    every_state: bool,
    /// True: it is also shown what agents lend, `revocable` in its offers. A task takes of that whose `resources` say `revocable`, and may lose it at any
    /// moment.
    #[serde(default)]
    revocable: bool,
    /// Facts about it.
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// Tasks in offers.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptBody {
    /// Offers, all of one agent.
    #[serde(default)]
    offers: Vec<String>,
    /// Before anything runs, what is to be kept of what they show, for their role or one below it.
    #[serde(default)]
    reserve: Vec<ChangeBody>,
    /// And what is to be kept no longer.
    #[serde(default)]
    unreserve: Vec<ChangeBody>,
    /// What is to run, each within what those before it left.
    #[serde(default)]
    tasks: Vec<TaskBody>,
    /// After these, tasks that run together: all of a group or nothing of it, and when one of it ends badly or is killed, all of it ends.
    #[serde(default)]
    groups: Vec<Vec<TaskBody>>,
    /// For how long not to show what is left, in milliseconds; 5,000 where it is not said.
    refuse_ms: Option<u64>,
}

/// A task.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskBody {
    /// What the framework calls it: no other of its tasks that is not acknowledged as ended has that name.
    name: String,
    /// How long it has to stop where a kill does not say, in milliseconds; 5,000 where it is not said.
    grace_ms: Option<u64>,
    /// What it is, as in a job file: its role, name, kind and count are left out.
    #[schema(value_type = Object)]
    job: Box<RawValue>,
}

/// Offers that are not wanted.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeclineBody {
    /// Which.
    #[serde(default)]
    offers: Vec<String>,
    /// For how long not to show so much of those agents, in milliseconds; 5,000 where it is not said.
    refuse_ms: Option<u64>,
}

/// A task that is to end.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KillBody {
    /// Its name.
    task: String,
    /// How long it has to stop, in milliseconds; as was said when it was placed where it is not said.
    grace_ms: Option<u64>,
}

/// Something that a task is to hear.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ToTaskBody {
    /// Its name.
    task: String,
    /// What: at most 64 KiB, in base64.
    data: String,
}

impl ToTaskBody {
    fn read(self) -> Result<Call, ApiError> {
        let bytes = STANDARD.decode(self.data).map_err(|error| ApiError::invalid("message.data", format!("it is no base64: {error}")))?;
        if bytes.len() > MESSAGE_BYTES_MAX {
            let reason = format!("it has {} bytes: a message has at most {MESSAGE_BYTES_MAX}", bytes.len());
            return Err(ApiError::invalid("message.data", reason));
        }
        Ok(Call::Message { task: self.task, agent: None, bytes: bytes.into() })
    }
}

/// An update that was taken in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AcknowledgeBody {
    /// Of which task.
    task: String,
    /// The update's number.
    uuid: String,
}

/// Subscribes a framework, or takes one call of one that is subscribed. A call goes to the master that answered the subscription; another sends it there.
#[utoipa::path(post, path = "/v1/framework", tag = "frameworks", request_body = CallBody,
    responses((status = 200, description = "subscribed: a stream", body = inline(EventBody<'static>), content_type = "application/x-ndjson"), (status = 204, description = "taken in"),
        (status = 307, description = "another master keeps the framework"), (status = 400, body = ErrorAnswer), (status = 403, body = ErrorAnswer), (status = 409, description = "it is not subscribed", body = ErrorAnswer)))]
pub async fn framework(State(api): State<Arc<Api>>, caller: Caller, headers: HeaderMap, body: Body) -> Result<Response, ApiError> {
    caller.must_level(Level::Operator)?;
    let text = body::whole(&headers, body).await?;
    let mut call: CallBody = serde_json::from_slice(&text).map_err(|error| ApiError::invalid("body", error.to_string()))?;
    match call.lasting() {
        Some(what) => audit::it_is(what),
        None => audit::it_changes_nothing(),
    }
    if let Some(mut subscribe) = call.subscribe.take() {
        let framework = subscribe.id.as_deref().map(|id| known_id(&api, "subscribe.id", id)).transpose()?;
        if let Some(elsewhere) = framework.and_then(|framework| elsewhere(&api, framework.shard())) {
            return Ok(elsewhere);
        }
        let demand = std::mem::take(&mut subscribe.demand);
        let (info, suppressed) = info(&caller, subscribe, "subscribe")?;
        let wishes = wishes(demand, "subscribe.demand", &info.roles)?;
        let stream = subscription::draw()?;
        let subscriber = Subscriber { framework, info, suppressed, filters: Filters::new(), wishes, stream };
        let body = subscription::subscribe(&api, subscriber, Lines { stream }).await?;
        return Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response());
    }
    let needed = |field: &'static str, value: &Option<String>| {
        value.clone().ok_or_else(|| ApiError::invalid(field, "a call of a framework that is subscribed names its id and its stream"))
    };
    let framework = known_id(&api, "id", &needed("id", &call.id)?)?;
    let stream = subscription::number(&needed("stream", &call.stream)?).ok_or_else(|| ApiError::invalid("stream", "this is no stream"))?;
    if let Some(elsewhere) = elsewhere(&api, framework.shard()) {
        return Ok(elsewhere);
    }
    for call in said(&api, &caller, framework, call).await? {
        let principal = caller.token.to_string();
        let request = Request::Framework(FrameworkRequest::Call { framework, stream, principal, call });
        find::done(&api, framework.shard(), request).await?;
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The framework of this id, of a shard that there is.
fn known_id(api: &Api, field: &str, text: &str) -> Result<FrameworkId, ApiError> {
    let framework: FrameworkId = body::parsed(field, text)?;
    if framework.shard().0 < api.door.shards() { Ok(framework) } else { Err(ApiError::not_found("framework")) }
}

fn elsewhere(api: &Api, shard: ShardId) -> Option<Response> {
    find::elsewhere(api, shard, |http| format!("{}/v1/framework", http.trim_end_matches('/')))
}

fn info(caller: &Caller, body: SubscribeBody, field: &str) -> Result<(FrameworkInfo, Vec<Role>), ApiError> {
    let roles_of = |texts: &[String], name: &str| -> Result<Vec<Role>, ApiError> {
        texts.iter().map(|text| body::parsed(&format!("{field}.{name}"), text)).collect()
    };
    let mut roles = roles_of(&body.roles, "roles")?;
    if roles.is_empty() {
        roles.push(find::role(None)?);
    }
    roles.sort();
    roles.dedup();
    roles.iter().try_for_each(|role| caller.must(Level::Operator, role))?;
    let suppressed = roles_of(&body.suppressed, "suppressed")?;
    let every: &[&str] = if body.every_state { &["PARTITION_AWARE", "TASK_KILLING_STATE"] } else { &[] };
    let capabilities = every.iter().copied().chain(body.revocable.then_some(REVOCABLE)).map(str::to_owned).collect();
    let info = FrameworkInfo {
        name: body.name,
        user: String::new(),
        roles,
        failover_ms: body.failover_ms,
        hostname: String::new(),
        webui_url: body.webui_url,
        principal: caller.token.to_string(),
        capabilities,
        labels: body.labels.into_iter().collect(),
    };
    match info.refusal() {
        Some(reason) => Err(ApiError::invalid(field, reason)),
        None => Ok((info, suppressed)),
    }
}

/// The one thing that a call says, and the reservations before it.
async fn said(api: &Api, caller: &Caller, framework: FrameworkId, call: CallBody) -> Result<Vec<Call>, ApiError> {
    let roles =
        |texts: Vec<String>, field: &str| -> Result<Vec<Role>, ApiError> { texts.iter().map(|text| body::parsed(field, text)).collect() };
    let known = || api.frameworks.get(&framework).map(|info| info.roles.clone()).unwrap_or_default();
    let (mut said, mut before) = (Vec::new(), Vec::new());
    if let Some(demand) = call.demand {
        said.push(Call::Demand(wishes(demand, "demand", &known())?));
    }
    if let Some(accept) = call.accept {
        let known: Vec<Role> = known();
        let launches = launches(api, &known, accept.tasks).await;
        let mut groups = Vec::with_capacity(accept.groups.len());
        for group in accept.groups {
            groups.push(self::launches(api, &known, group).await);
        }
        let offers = offers(&accept.offers, "accept.offers")?;
        let made = accept.reserve.into_iter().map(|change| change.read("accept.reserve.", true));
        let given_up = accept.unreserve.into_iter().map(|change| change.read("accept.unreserve.", false));
        let changes = made.chain(given_up).collect::<Result<Vec<_>, _>>()?;
        if !changes.is_empty() {
            before.push(Call::Reserve { offers: offers.clone(), changes });
        }
        said.push(Call::Accept { offers, launches, groups, refuse_ms: accept.refuse_ms.unwrap_or(REFUSE_MS_DEFAULT) });
    }
    if let Some(decline) = call.decline {
        let offers = offers(&decline.offers, "decline.offers")?;
        said.push(Call::Decline { offers, refuse_ms: decline.refuse_ms.unwrap_or(REFUSE_MS_DEFAULT) });
    }
    if let Some(texts) = call.revive {
        said.push(Call::Revive(roles(texts, "revive")?));
    }
    if let Some(texts) = call.suppress {
        said.push(Call::Suppress(roles(texts, "suppress")?));
    }
    if let Some(KillBody { task, grace_ms }) = call.kill {
        said.push(Call::Kill { task, grace_ms });
    }
    if let Some(AcknowledgeBody { task, uuid }) = call.acknowledge {
        let uuid = subscription::number(&uuid).ok_or_else(|| ApiError::invalid("acknowledge.uuid", "this is no number of an update"))?;
        said.push(Call::Acknowledge { task, uuid });
    }
    for (accepted, texts) in [(true, call.accept_inverse), (false, call.decline_inverse)] {
        said.extend(texts.map(|texts| inverse(accepted, &texts)).transpose()?);
    }
    said.extend(call.reconcile.map(Call::Reconcile));
    said.extend(call.message.map(ToTaskBody::read).transpose()?);
    if let Some(update) = call.update {
        if !update.demand.is_empty() {
            return Err(ApiError::invalid("update.demand", "what a framework wants it says with `demand`, or when it subscribes"));
        }
        let (info, suppressed) = info(caller, update, "update")?;
        said.push(Call::Update { info, suppressed, filters: Filters::new() });
    }
    if call.teardown == Some(true) {
        said.push(Call::Teardown);
    }
    match (said.pop(), said.is_empty()) {
        (Some(call), true) => {
            before.push(call);
            Ok(before)
        }
        _ => Err(ApiError::invalid(
            "body",
            "a call says one thing: accept, decline, demand, revive, suppress, kill, acknowledge, reconcile, message, accept_inverse, decline_inverse, update or teardown",
        )),
    }
}

/// Tasks as they are to be placed, or why each of them cannot be.
async fn launches(api: &Api, roles: &[Role], tasks: Vec<TaskBody>) -> Vec<TaskLaunch> {
    let mut launches = Vec::with_capacity(tasks.len());
    for TaskBody { name, grace_ms, job } in tasks {
        let admitted = spec::framework_task(spec::parsed(job.get().as_bytes(), Format::Json), roles, api).await;
        let job = admitted.map_err(|error| super::json_problems(&error));
        launches.push(TaskLaunch { name, agent: None, grace_ms: grace_ms.unwrap_or(GRACE_MS_DEFAULT), job });
    }
    launches
}

fn inverse(accepted: bool, texts: &[String]) -> Result<Call, ApiError> {
    let parse = |text: &String| inverse_id(text).ok_or_else(|| ApiError::invalid("inverse", format!("{text:?} is no inverse offer")));
    Ok(Call::AnswerInverse { accepted, offers: texts.iter().map(parse).collect::<Result<_, _>>()? })
}

fn offers(texts: &[String], field: &str) -> Result<Vec<OfferId>, ApiError> {
    let parse = |text: &String| offer_id(text).ok_or_else(|| ApiError::invalid(field, format!("{text:?} is no offer")));
    texts.iter().map(parse).collect()
}
