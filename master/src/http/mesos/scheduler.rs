//! `POST /api/v1/scheduler`: the calls of a framework, and the stream of events that a subscription is. Answers with the codes and in the order of
//! checks that Mesos has (`src/master/http.cpp`, `Master::Http::scheduler`).

use super::call::{self, NOBODY, Said, Wish};
use super::event::{self, Told};
use super::{At, base, master_info, note, task};
use crate::drive::Busy;
use crate::frameworks::{CALL_ITEMS_MAX, Call, FrameworkId, FrameworkRequest, TaskLaunch, UNKNOWN_TASK};
use crate::http::access::Caller;
use crate::http::error::ApiError;
use crate::http::subscription::{self, Subscriber};
use crate::http::{Api, audit, body, find, json_problems, spec};
use crate::shard::event::{Level, Refusal, Request, Response as Answer};
use crate::shard::view::{View, Viewed};
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use protocol::{AgentId, Job, Role, ShardId};
use serde_json::{Value, json};
use std::sync::Arc;

/// The header that has the number of a subscription.
pub const STREAM_HEADER: &str = "mesos-stream-id";

/// What frameworks say all the time, of their offers, their updates and what their tasks are to hear: not in the audit record.
const IN_PASSING: [&str; 11] = [
    "ACCEPT_INVERSE_OFFERS",
    "ACKNOWLEDGE",
    "ACKNOWLEDGE_OPERATION_STATUS",
    "DECLINE",
    "DECLINE_INVERSE_OFFERS",
    "MESSAGE",
    "RECONCILE",
    "RECONCILE_OPERATIONS",
    "REQUEST",
    "REVIVE",
    "SUPPRESS",
];

/// Answers a call.
pub async fn scheduler(State(api): State<Arc<Api>>, at: At, caller: Caller, headers: HeaderMap, body: Body) -> Response {
    match answer(&api, at, &caller, &headers, body).await {
        Ok(response) | Err(response) => response,
    }
}

async fn answer(api: &Arc<Api>, at: At, caller: &Caller, headers: &HeaderMap, body: Body) -> Result<Response, Response> {
    let header = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let kind = header(header::CONTENT_TYPE).ok_or_else(|| bad("Expecting 'Content-Type' to be present"))?;
    let is_json = kind.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case("application/json");
    if !is_json {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "Expecting 'Content-Type' of application/json").into_response());
    }
    let (bytes, _place) = body::large(headers, body, &api.mesos_calls).await.map_err(IntoResponse::into_response)?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| bad(format!("Failed to parse body into JSON: {error}")))?;
    drop(bytes);
    match value["type"].as_str() {
        Some(kind) if IN_PASSING.contains(&kind) => audit::it_changes_nothing(),
        kind => audit::it_is(kind.unwrap_or_default()),
    }
    let (framework, said) = call::read(&value, &caller.token).map_err(bad)?;
    if let Said::Unknown(kind) = said {
        return Err((StatusCode::NOT_IMPLEMENTED, format!("call {kind} is not known")).into_response());
    }
    // There is no shard that could know it.
    let framework = framework.map(|framework| if framework.shard().0 < api.door.shards() { framework } else { NOBODY });
    if let Some(response) = framework.and_then(|framework| elsewhere(api, at, framework.shard())) {
        return Err(response);
    }
    let stream = header(header::HeaderName::from_static(STREAM_HEADER));
    if let Said::Subscribe(wish) = said {
        let accepts = header(header::ACCEPT).unwrap_or("*/*");
        if !accepts
            .split(',')
            .any(|kind| matches!(kind.split(';').next().unwrap_or("").trim(), "*/*" | "application/*" | "application/json"))
        {
            return Err((StatusCode::NOT_ACCEPTABLE, "Expecting 'Accept' to allow application/json").into_response());
        }
        if stream.is_some() {
            return Err(bad("Subscribe calls should not include the 'Mesos-Stream-Id' header"));
        }
        let stream = subscription::draw().map_err(IntoResponse::into_response)?;
        let allowed = |wish: Wish| match may_have(caller, &wish.info.roles) {
            Ok(()) => Ok(wish),
            Err(error) => Err((error.status(), error.body().message.clone())),
        };
        return match wish.map_err(|reason| (StatusCode::BAD_REQUEST, reason)).and_then(allowed) {
            Ok(Wish { info, suppressed, filters }) => {
                subscribed(api, at, Subscriber { framework, info, suppressed, filters, wishes: vec![], stream }).await
            }
            Err((status, reason)) => Ok(unfit(stream, status, &reason)),
        };
    }
    let framework = framework.expect("`read` refuses a call without one");
    let stream = stream.ok_or_else(|| bad("All non-subscribe calls should include the 'Mesos-Stream-Id' header"))?;
    let stream = subscription::number(stream)
        .ok_or_else(|| bad("The stream ID included in this request didn't match the stream ID currently associated with the framework"))?;
    let updates = matches!(said, Said::Update { .. });
    for call in in_our_words(api, caller, framework, said).await? {
        let principal = caller.token.to_string();
        // A reservation that cannot be is passed over, as Mesos drops the operation; and so is a message to nobody.
        let (reserves, speaks) = (matches!(call, Call::Reserve { .. }), matches!(call, Call::Message { .. }));
        let request = Request::Framework(FrameworkRequest::Call { framework, stream, principal, call });
        match api.door.ask(framework.shard(), request).await {
            Ok(Answer::Refused(refusal)) if reserves => tracing::warn!(%framework, %refusal, "a framework's reservation is passed over"),
            Ok(Answer::Refused(Refusal::NotFound { what })) if speaks && what == UNKNOWN_TASK => {}
            Ok(Answer::Refused(refusal)) => return Err(refused(&refusal)),
            Ok(_) => {}
            Err(busy) => return Err(unavailable(&busy)),
        }
    }
    Ok(if updates { StatusCode::OK } else { StatusCode::ACCEPTED }.into_response())
}

fn elsewhere(api: &Api, at: At, shard: ShardId) -> Option<Response> {
    find::elsewhere(api, shard, |http| format!("{}/api/v1/scheduler", base(http, at)))
}

/// The calls in our words; none where there is nothing to do.
async fn in_our_words(api: &Api, caller: &Caller, framework: FrameworkId, said: Said) -> Result<Vec<Call>, Response> {
    let mut calls = vec![];
    let last = match said {
        Said::Accept { offers, reservations, tasks, groups, others, refuse_ms } => {
            if !others.is_empty() {
                tracing::warn!(%framework, operations = others.join(", "), "a framework wants what is not done yet: it is passed over");
            }
            let roles: Vec<Role> = api.frameworks.get(&framework).map(|info| info.roles.clone()).unwrap_or_default();
            let launches = launches(api, framework, &roles, tasks).await;
            let mut together = Vec::with_capacity(groups.len());
            for group in groups {
                together.push(self::launches(api, framework, &roles, group).await);
            }
            if !reservations.is_empty() {
                calls.push(Call::Reserve { offers: offers.clone(), changes: reservations });
            }
            Call::Accept { offers, launches, groups: together, refuse_ms }
        }
        Said::Decline { offers, refuse_ms } => Call::Decline { offers, refuse_ms },
        Said::Revive(roles) => Call::Revive(roles),
        Said::Suppress(roles) => Call::Suppress(roles),
        Said::Kill { task, grace_ms } => Call::Kill { task, grace_ms },
        Said::Shutdown { task, agent } => {
            if !lives(api, caller, framework, &task, agent).await.map_err(IntoResponse::into_response)? {
                return Ok(vec![]);
            }
            Call::Kill { task, grace_ms: None }
        }
        Said::Acknowledge { task, uuid } => Call::Acknowledge { task, uuid },
        Said::Reconcile(tasks) => {
            // A shard answers after none of them in one breath.
            calls.extend(tasks.chunks(CALL_ITEMS_MAX).map(|part| Call::Reconcile(part.to_vec())));
            calls.pop().unwrap_or(Call::Reconcile(vec![]))
        }
        Said::Update { info, suppressed, filters } => {
            may_have(caller, &info.roles).map_err(IntoResponse::into_response)?;
            Call::Update { info, suppressed, filters }
        }
        Said::AnswerInverse { accepted, offers } => Call::AnswerInverse { accepted, offers },
        Said::Message { task, agent, data } => Call::Message { task, agent: Some(agent), bytes: data.into() },
        Said::Teardown => Call::Teardown,
        Said::Ignored | Said::Subscribe(_) | Said::Unknown(_) => return Ok(vec![]),
    };
    calls.push(last);
    Ok(calls)
}

/// True where the task of the caller's framework has not ended, and is on this agent.
async fn lives(api: &Api, caller: &Caller, framework: FrameworkId, task: &str, agent: AgentId) -> Result<bool, ApiError> {
    // Of another's tasks nothing is told.
    if api.frameworks.get(&framework).is_none_or(|info| *info.principal != *caller.token) {
        return Ok(false);
    }
    let view = View::FrameworkTasks { framework, from: task.to_owned(), skip: 0, limit: 1 };
    match find::view(api, framework.shard(), view).await? {
        Viewed::FrameworkTasks(found) => Ok(found.iter().any(|own| own.name == task && own.agent == agent && own.exit.is_none())),
        _ => Ok(false),
    }
}

async fn launches(api: &Api, framework: FrameworkId, roles: &[Role], tasks: Vec<Value>) -> Vec<TaskLaunch> {
    let mut launches = Vec::with_capacity(tasks.len());
    for asked in tasks {
        launches.push(launch(api, framework, roles, &asked).await);
    }
    launches
}

/// A task as it is to be placed, or why it cannot be.
async fn launch(api: &Api, framework: FrameworkId, roles: &[Role], asked: &Value) -> TaskLaunch {
    use super::words::id;
    let name = id(asked, "task_id").unwrap_or("").to_owned();
    let agent = id(asked, "agent_id").or_else(|| id(asked, "slave_id")).and_then(|agent| agent.parse().ok());
    // In which of its roles the task will be counted, the offers say: so all of them have to allow it.
    let host_network = !roles.is_empty() && roles.iter().all(|role| api.policies.of(role).host_network);
    let (grace_ms, job) = match task::asked(asked, framework, host_network) {
        Ok(task) => (task.grace_ms, admitted(api, task, roles).await),
        Err(reason) => (task::GRACE_MS_DEFAULT, Err(reason)),
    };
    TaskLaunch { name, agent, grace_ms, job }
}

async fn admitted(api: &Api, mut task: task::Asked, roles: &[Role]) -> Result<Job, String> {
    // A master of before could not read it.
    task.spec.origin.take_if(|_| !api.door.peers().all_speak(note::SINCE));
    if let Some(script) = &task.script {
        api.keep_bundle(script).await.map_err(|error| error.body().message.clone())?;
    }
    spec::framework_task(Ok(task.spec), roles, api).await.map_err(|error| json_problems(&error))
}

fn may_have(caller: &Caller, roles: &[Role]) -> Result<(), ApiError> {
    roles.iter().try_for_each(|role| caller.must(Level::Operator, role))
}

/// A subscription: answered with a stream that ends when its framework has another, or is gone.
async fn subscribed(api: &Arc<Api>, at: At, subscriber: Subscriber) -> Result<Response, Response> {
    let told = Told::new(String::new(), &subscriber.info, master_info(api, at));
    let stream = subscriber.stream;
    let text = subscription::text(stream);
    match subscription::subscribe(api, subscriber, told).await {
        Ok(body) => Ok(([("content-type", "application/json"), (STREAM_HEADER, text.as_str())], body).into_response()),
        Err(error) if error.status() == StatusCode::UNPROCESSABLE_ENTITY => Ok(unfit(stream, error.status(), &error.body().message)),
        Err(error) => Err((error.status(), error.body().message.clone()).into_response()),
    }
}

/// A subscription of a framework that may not be, or not so: over once it has heard why (`Master::subscribe` in `src/master/master.cpp`). On record it
/// stands with the status that says so.
fn unfit(stream: u128, status: StatusCode, reason: &str) -> Response {
    let mut body = BytesMut::new();
    event::records(&[json!({ "type": "ERROR", "error": { "message": reason } })], &mut body);
    let text = subscription::text(stream);
    let head = [("content-type", "application/json"), (STREAM_HEADER, text.as_str())];
    (head, Extension(audit::Judged(status)), body.freeze()).into_response()
}

fn bad(reason: impl Into<String>) -> Response {
    (StatusCode::BAD_REQUEST, reason.into()).into_response()
}

fn refused(refusal: &Refusal) -> Response {
    match refusal {
        Refusal::NotFound { .. } => bad("Framework cannot be found"),
        Refusal::Conflict { reason } => (StatusCode::FORBIDDEN, reason.clone()).into_response(),
        Refusal::Invalid { reason } => bad(reason.clone()),
        Refusal::Busy { .. } | Refusal::Unled | Refusal::Unknown => (StatusCode::SERVICE_UNAVAILABLE, refusal.to_string()).into_response(),
    }
}

fn unavailable(busy: &Busy) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, busy.to_string()).into_response()
}
