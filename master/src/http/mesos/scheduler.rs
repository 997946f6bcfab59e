//! `POST /api/v1/scheduler`: the calls of a framework, and the stream of events that a subscription is. Answers with the codes and in the order of
//! checks that Mesos has (`src/master/http.cpp`, `Master::Http::scheduler`).

use super::call::{self, Said};
use super::event::{self, HEARTBEAT_S, Told};
use super::{At, elsewhere, master_info, task};
use crate::drive::Busy;
use crate::frameworks::{Call, FrameworkEvent, FrameworkId, FrameworkInfo, FrameworkRequest, TaskLaunch};
use crate::http::access::Caller;
use crate::http::{Api, body, json_problems, spec};
use crate::shard::event::{Level, Refusal, Request, Response as Answer};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use protocol::{Job, RequestId, Role, ShardId};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::Value;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval};

/// The header that has the number of a subscription.
pub const STREAM_HEADER: &str = "mesos-stream-id";
/// Batches of events that wait to be read; a framework that is further behind is cut off and has to subscribe anew.
const EVENTS_WAITING_MAX: usize = 4_096;
/// How long the first answer to a subscription may take.
const SUBSCRIBED_WITHIN: Duration = Duration::from_secs(10);

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
    let bytes = body::whole(headers, body).await.map_err(IntoResponse::into_response)?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| bad(format!("Failed to parse body into JSON: {error}")))?;
    let (framework, said) = call::read(&value, &caller.token).map_err(bad)?;
    if let Said::Unknown(kind) = said {
        return Err((StatusCode::NOT_IMPLEMENTED, format!("call {kind} is not known")).into_response());
    }
    if let Some(response) = framework.and_then(|framework| elsewhere(api, at, framework.shard(), "/api/v1/scheduler")) {
        return Err(response);
    }
    let stream = header(header::HeaderName::from_static(STREAM_HEADER));
    if let Said::Subscribe { info, suppressed } = said {
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
        may_have(caller, &info.roles)?;
        return subscribe(api, framework, info, suppressed).await;
    }
    let framework = framework.expect("`read` refuses a call without one");
    let stream = stream.ok_or_else(|| bad("All non-subscribe calls should include the 'Mesos-Stream-Id' header"))?;
    let stream = stream_number(stream)
        .ok_or_else(|| bad("The stream ID included in this request didn't match the stream ID currently associated with the framework"))?;
    let updates = matches!(said, Said::Update { .. });
    let Some(call) = in_our_words(api, caller, framework, said).await? else { return Ok(StatusCode::ACCEPTED.into_response()) };
    let principal = caller.token.to_string();
    let request = Request::Framework(FrameworkRequest::Call { framework, stream, principal, call });
    match api.door.ask(framework.shard(), request).await {
        Ok(Answer::Refused(refusal)) => Err(refused(&refusal)),
        Ok(_) if updates => Ok(StatusCode::OK.into_response()),
        Ok(_) => Ok(StatusCode::ACCEPTED.into_response()),
        Err(busy) => Err(unavailable(&busy)),
    }
}

/// The call in our words; `None` where there is nothing to do.
async fn in_our_words(api: &Api, caller: &Caller, framework: FrameworkId, said: Said) -> Result<Option<Call>, Response> {
    Ok(Some(match said {
        Said::Accept { offers, tasks, others, refuse_ms } => {
            if !others.is_empty() {
                tracing::warn!(%framework, operations = others.join(", "), "a framework wants what is not done yet: it is passed over");
            }
            let roles: Vec<Role> = api.frameworks.get(&framework).map(|info| info.roles.clone()).unwrap_or_default();
            let mut launches = Vec::with_capacity(tasks.len());
            for asked in tasks {
                launches.push(launch(api, framework, &roles, &asked).await);
            }
            Call::Accept { offers, launches, refuse_ms }
        }
        Said::Decline { offers, refuse_ms } => Call::Decline { offers, refuse_ms },
        Said::Revive(roles) => Call::Revive(roles),
        Said::Suppress(roles) => Call::Suppress(roles),
        Said::Kill { task, grace_ms } => Call::Kill { task, grace_ms },
        Said::Acknowledge { task, uuid } => Call::Acknowledge { task, uuid },
        Said::Reconcile(tasks) => Call::Reconcile(tasks),
        Said::Update { info, suppressed } => {
            may_have(caller, &info.roles)?;
            if let Some(mut known) = api.frameworks.get_mut(&framework) {
                known.clone_from(&info);
            }
            Call::Update { info, suppressed }
        }
        Said::Teardown => Call::Teardown,
        Said::Ignored | Said::Subscribe { .. } | Said::Unknown(_) => return Ok(None),
    }))
}

/// A task as it is to be placed, or why it cannot be.
async fn launch(api: &Api, framework: FrameworkId, roles: &[Role], asked: &Value) -> TaskLaunch {
    use super::words::id;
    let name = id(asked, "task_id").unwrap_or("").to_owned();
    let agent = id(asked, "agent_id").or_else(|| id(asked, "slave_id")).and_then(|agent| agent.parse().ok());
    // In which of its roles the task will be counted, the offers say: so all of them have to allow it.
    let host_network = !roles.is_empty() && roles.iter().all(|role| api.policies.of(role).host_network);
    let role = roles.first().cloned().or_else(|| super::words::role(super::words::ANY_ROLE).ok());
    let task =
        role.ok_or_else(|| "the framework has no role".to_owned()).and_then(|role| task::asked(asked, framework, &role, host_network));
    let (grace_ms, job) = match task {
        Ok(task) => (task.grace_ms, admitted(api, task).await),
        Err(reason) => (task::GRACE_MS_DEFAULT, Err(reason)),
    };
    TaskLaunch { name, agent, grace_ms, job }
}

async fn admitted(api: &Api, task: task::Asked) -> Result<Job, String> {
    if let Some(script) = &task.script {
        api.keep_bundle(script).await.map_err(|error| error.body().message.clone())?;
    }
    while let Some(digest) = api.inspections.unseen(&task.spec) {
        api.inspections.look(digest).await.map_err(|error| error.body().message.clone())?;
    }
    spec::admitted(task.spec, api).map_err(|error| json_problems(&error))
}

fn may_have(caller: &Caller, roles: &[Role]) -> Result<(), Response> {
    roles.iter().try_for_each(|role| caller.must(Level::Operator, role)).map_err(IntoResponse::into_response)
}

/// A subscription: answered with a stream that ends when its framework has another, or is gone.
async fn subscribe(
    api: &Arc<Api>,
    framework: Option<FrameworkId>,
    info: FrameworkInfo,
    suppressed: Vec<Role>,
) -> Result<Response, Response> {
    let stream = draw().ok_or_else(|| (StatusCode::INTERNAL_SERVER_ERROR, "the system gives no random bytes").into_response())?;
    let shard = framework.map_or_else(|| api.shard_led_here(), |framework| Some(framework.shard()));
    let shard = shard.ok_or_else(|| refused(&Refusal::Unled))?;
    let (replies, mut answers) = mpsc::channel(EVENTS_WAITING_MAX);
    let subscribed = Request::Framework(FrameworkRequest::Subscribe { framework, info: info.clone(), suppressed, stream });
    api.door.post(shard, subscribed, RequestId(0), replies).map_err(|busy| unavailable(&busy))?;
    let first = tokio::time::timeout(SUBSCRIBED_WITHIN, answers.recv()).await.ok().flatten();
    let events = match first {
        Some((_, Answer::Framework(events))) => events,
        // What was removed is told so on the stream.
        Some((_, Answer::Refused(Refusal::Conflict { reason }))) => vec![FrameworkEvent::Error(reason)],
        Some((_, Answer::Refused(refusal))) => return Err(refused(&refusal)),
        _ => return Err(refused(&Refusal::Unled)),
    };
    let id = events.iter().find_map(|event| if let FrameworkEvent::Subscribed(id) = event { Some(*id) } else { None });
    if let Some(id) = id {
        api.frameworks.insert(id, info.clone());
    }
    let told = Told {
        framework: String::new(),
        partition_aware: info.is_partition_aware(),
        knows_killing: info.knows_killing(),
        master: master_info(api),
    };
    let mut heartbeat = tokio::time::interval_at(Instant::now() + Duration::from_secs(HEARTBEAT_S), Duration::from_secs(HEARTBEAT_S));
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let reading =
        Reading { told, events: Some(events), answers, heartbeat, _left: Left { api: Arc::clone(api), shard, framework: id, stream } };
    let body = Body::from_stream(futures::stream::unfold(reading, next));
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let text = HeaderValue::from_str(&stream_text(stream)).expect("hexadecimal digits and hyphens are a header's value");
    response.headers_mut().insert(header::HeaderName::from_static(STREAM_HEADER), text);
    Ok(response)
}

/// A subscription that is read.
struct Reading {
    told: Told,
    events: Option<Vec<FrameworkEvent>>,
    answers: mpsc::Receiver<(RequestId, Answer)>,
    heartbeat: Interval,
    _left: Left,
}

/// Says, when it is dropped, that nobody reads any more.
struct Left {
    api: Arc<Api>,
    shard: ShardId,
    framework: Option<FrameworkId>,
    stream: u128,
}

impl Drop for Left {
    fn drop(&mut self) {
        let Some(framework) = self.framework else { return };
        let gone = Request::Framework(FrameworkRequest::Unsubscribe { framework, stream: self.stream });
        // Where it cannot be said now, the shard notices when it looks who still waits.
        let _ = self.api.door.post(self.shard, gone, RequestId(0), mpsc::channel(1).0);
    }
}

async fn next(mut reading: Reading) -> Option<(Result<Bytes, Infallible>, Reading)> {
    let mut output = BytesMut::new();
    let mut events = match reading.events.take() {
        Some(events) => events,
        None => tokio::select! {
            answer = reading.answers.recv() => match answer {
                Some((_, Answer::Framework(events))) => events,
                Some((_, Answer::Refused(refusal))) => vec![FrameworkEvent::Error(refusal.to_string())],
                // It was ended.
                _ => return None,
            },
            _ = reading.heartbeat.tick() => vec![],
        },
    };
    while let Ok((_, Answer::Framework(more))) = reading.answers.try_recv() {
        events.extend(more);
    }
    let told: Vec<Value> = events.iter().flat_map(|event| reading.told.event(event)).collect();
    event::records(&told, &mut output);
    if events.iter().any(|event| matches!(event, FrameworkEvent::Error(_))) {
        reading.answers.close();
    }
    Some((Ok(output.freeze()), reading))
}

fn draw() -> Option<u128> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).ok()?;
    // Version 4, variant 1 (RFC 9562 section 5.4).
    (bytes[6], bytes[8]) = (bytes[6] & 0x0f | 0x40, bytes[8] & 0x3f | 0x80);
    Some(u128::from_be_bytes(bytes))
}

fn stream_text(stream: u128) -> String {
    let digits = format!("{stream:032x}");
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

fn stream_number(text: &str) -> Option<u128> {
    let digits = text.replace('-', "");
    (digits.len() == 32).then(|| u128::from_str_radix(&digits, 16).ok()).flatten()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_stream_is_a_uuid() {
        let stream = draw().unwrap();
        let text = stream_text(stream);
        assert_eq!((text.len(), stream_number(&text)), (36, Some(stream)));
        assert_eq!((&text[14..15], text.matches('-').count()), ("4", 4));
        assert_eq!((stream_number("x"), stream_number("")), (None, None));
    }
}
