//! Health and readiness checks of an app: read, kept and given back as they were said. What of them a task's agent makes is [`apply`]'s alone.

use super::app::Reader;
use super::held::Held;
use super::ports;
use super::words::Object;
use super::wrong::Faults;
use crate::admit::JobSpec;
use crate::admit::spec::CheckSpec;
use crate::http::error::ApiError;
use crate::http::{Api, find};
use crate::shard::event::JobRef;
use crate::shard::view::{HealthCounts, HealthView, PAGE_MAX, TaskView, View, Viewed};
use protocol::checks::{EVERY_MS, FAILURES_MAX, TIMEOUT_MS};
use protocol::task::Verdict;
use protocol::{JobId, Phase, ShardId};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const PROTOCOLS: [&str; 7] = ["HTTP", "HTTPS", "TCP", "COMMAND", "MESOS_HTTP", "MESOS_HTTPS", "MESOS_TCP"];
/// Longest grace and delay of a check, in seconds.
const SECONDS_MAX: f64 = 86_400.0;
/// Longest time between two checks, in seconds.
const INTERVAL_SECONDS_MAX: f64 = (EVERY_MS.1 / 1_000) as f64;
/// Longest time that an answer may take, in seconds.
const TIMEOUT_SECONDS_MAX: f64 = (TIMEOUT_MS.1 / 1_000) as f64;

/// One of `healthChecks`.
pub fn read(check: &mut Reader<'_>) {
    let protocol = check.word("protocol", &PROTOCOLS, "HTTP");
    check.number("gracePeriodSeconds", 300.0, (0.0, SECONDS_MAX), true);
    check.number("intervalSeconds", 60.0, (0.0, INTERVAL_SECONDS_MAX), true);
    check.number("timeoutSeconds", 20.0, (0.0, TIMEOUT_SECONDS_MAX), true);
    check.number("maxConsecutiveFailures", 3.0, (0.0, f64::from(FAILURES_MAX)), true);
    if check.has("delaySeconds") {
        check.number("delaySeconds", 15.0, (0.0, SECONDS_MAX), true);
    }
    if protocol == "COMMAND" {
        let command = check.object("command").cloned();
        match command.as_ref().and_then(|command| command.get("value")).and_then(Value::as_str) {
            Some(value) => drop(check.out.insert("command".into(), json!({ "value": value }))),
            None => check.say("command", "a check by a command has one: {\"value\": …}"),
        }
        return;
    }
    if protocol.ends_with("HTTP") || protocol.ends_with("HTTPS") {
        let path = check.text("path").unwrap_or_else(|| "/".to_owned());
        if !path.starts_with('/') || path.chars().any(char::is_control) {
            check.say("path", "is to begin with '/'");
        }
        check.out.insert("path".into(), path.into());
        check.flag("ignoreHttp1xx", false);
    }
    if check.has("port") {
        check.number("port", 0.0, (1.0, 65_535.0), true);
    } else {
        check.number("portIndex", 0.0, (0.0, 63.0), true);
    }
    if check.has("ipProtocol") {
        check.word("ipProtocol", &["IPv4", "IPv6"], "IPv4");
    }
}

/// One of `readinessChecks`.
pub fn read_readiness(check: &mut Reader<'_>) {
    let name = check.text("name").unwrap_or_else(|| "readinessCheck".to_owned());
    check.out.insert("name".into(), name.into());
    check.word("protocol", &["HTTP", "HTTPS"], "HTTP");
    let path = check.text("path").unwrap_or_else(|| "/".to_owned());
    check.out.insert("path".into(), path.into());
    let port = check.text("portName").unwrap_or_else(|| "http-api".to_owned());
    check.out.insert("portName".into(), port.into());
    check.number("intervalSeconds", 30.0, (1.0, INTERVAL_SECONDS_MAX), true);
    check.number("timeoutSeconds", 10.0, (1.0, TIMEOUT_SECONDS_MAX), true);
    let codes = check.body.get("httpStatusCodesForReady").filter(|codes| codes.is_array()).cloned();
    check.out.insert("httpStatusCodesForReady".into(), codes.unwrap_or_else(|| json!([200])));
    check.flag("preserveLastResponse", false);
}

/// Puts the checks of an app into its job: one of each kind, which is what a task has.
pub fn apply(fields: &Object, spec: &mut JobSpec, faults: &mut Faults) {
    let ports = ports::of(fields);
    let objects = |name: &str| fields.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object);
    for (at, check) in objects("healthChecks").enumerate() {
        let path = format!("/healthChecks({at})");
        if at > 0 {
            faults.say(&path, "a task has one health check");
        } else if let Some(made) = made(check, &ports, &path, faults)
            && let Some(task) = spec.tasks.first_mut()
        {
            task.health = Some(made);
        }
    }
    for (at, check) in objects("readinessChecks").enumerate() {
        let path = format!("/readinessChecks({at})");
        let named = check.get("portName").and_then(Value::as_str);
        let port = ports.iter().find(|port| port.label.as_deref() == named).or(ports.first());
        match (at, port, spec.tasks.first_mut()) {
            (0, Some(port), Some(task)) => task.readiness = Some(CheckSpec { port: Some(port.name.clone()), ..asked_over_http(check) }),
            (0, ..) => faults.say(&path, "asks at a port, and the app has none"),
            _ => faults.say(&path, "a task has one readiness check"),
        }
    }
}

/// One of `healthChecks` as an agent asks.
fn made(check: &Object, ports: &[ports::Port], path: &str, faults: &mut Faults) -> Option<CheckSpec> {
    let ms = |name: &str| check.get(name).and_then(Value::as_f64).map(|seconds| (seconds * 1_000.0) as u64);
    let failures = check.get("maxConsecutiveFailures").and_then(Value::as_u64).and_then(|failures| u32::try_from(failures).ok());
    let when = CheckSpec {
        delay_ms: ms("delaySeconds").filter(|delay| *delay > 0),
        grace_ms: ms("gracePeriodSeconds"),
        // 0 is as often, and as short, as can be.
        every_ms: ms("intervalSeconds").map(|every| every.max(EVERY_MS.0)),
        timeout_ms: ms("timeoutSeconds").map(|timeout| timeout.max(TIMEOUT_MS.0)),
        failures,
        ..CheckSpec::default()
    };
    let protocol = check.get("protocol").and_then(Value::as_str).unwrap_or("HTTP");
    if protocol == "COMMAND" {
        let value = check.get("command").and_then(|command| command.get("value")).and_then(Value::as_str).unwrap_or_default();
        return Some(CheckSpec { exec: ["/bin/sh", "-c", value].map(str::to_owned).to_vec(), ..when });
    }
    let number = |name: &str| check.get(name).and_then(Value::as_u64);
    let port = match number("port") {
        Some(wanted) => ports.iter().find(|port| port.name.as_str() == wanted.to_string()),
        None => ports.get(usize::try_from(number("portIndex").unwrap_or(0)).unwrap_or(usize::MAX)),
    };
    let Some(port) = port else {
        match number("port") {
            Some(port) => faults.say(
                format!("{path}/port"),
                format!("{port} is no port that each task of the app has: require it (requirePorts), or name one by portIndex"),
            ),
            None => faults.say(format!("{path}/portIndex"), format!("the app has {} ports", ports.len())),
        }
        return None;
    };
    let port = Some(port.name.clone());
    match protocol.trim_start_matches("MESOS_") {
        "TCP" => Some(CheckSpec { tcp: port, ..when }),
        _ => {
            let asked = asked_over_http(check);
            let ignore_1xx = check.get("ignoreHttp1xx").and_then(Value::as_bool).filter(|ignores| *ignores);
            Some(CheckSpec { port, http: asked.http, https: asked.https, ignore_1xx, ..when })
        }
    }
}

/// What is asked for over HTTP or HTTPS, and when a readiness check asks.
fn asked_over_http(check: &Object) -> CheckSpec {
    let ms = |name: &str| check.get(name).and_then(Value::as_f64).map(|seconds| (seconds * 1_000.0) as u64);
    let path = check.get("path").and_then(Value::as_str).unwrap_or("/").to_owned();
    let secure = check.get("protocol").and_then(Value::as_str).is_some_and(|protocol| protocol.ends_with("HTTPS"));
    let (http, https) = if secure { (None, Some(path)) } else { (Some(path), None) };
    CheckSpec { http, https, every_ms: ms("intervalSeconds"), timeout_ms: ms("timeoutSeconds"), ..CheckSpec::default() }
}

/// True where an app asks whether its tasks are well, as Marathon means that: being ready is something else.
pub fn is_asked(held: &Held) -> bool {
    held.view.job.template.members.iter().any(|member| member.has_checks() && member.checks().health.is_some())
}

/// True where an app asks whether its tasks are ready.
pub fn is_asked_for_readiness(held: &Held) -> bool {
    held.view.job.template.members.iter().any(|member| member.has_checks() && member.checks().readiness.is_some())
}

/// What a readiness check said of a task, as clients read it; nothing where only something else is known of it. What it was answered is not kept.
pub fn readiness(found: &HealthView, name: &str, task: &str) -> Option<Value> {
    let ready = match found.verdict {
        Verdict::Healthy => true,
        Verdict::Unready => false,
        Verdict::Unhealthy => return None,
    };
    Some(json!({ "name": name, "taskId": task, "ready": ready }))
}

/// How many tasks of these apps are well, of those that ask.
///
/// # Errors
/// An [`ApiError`] where a shard cannot answer now.
pub async fn counts(api: &Api, all: &[Held]) -> Result<BTreeMap<JobId, HealthCounts>, ApiError> {
    let mut asked: BTreeMap<ShardId, Vec<JobId>> = BTreeMap::new();
    for held in all.iter().filter(|held| is_asked(held)) {
        asked.entry(held.view.id.shard()).or_default().push(held.view.id);
    }
    let mut counts = BTreeMap::new();
    for (shard, jobs) in &asked {
        for jobs in jobs.chunks(PAGE_MAX) {
            let Viewed::HealthCounts(found) = find::view(api, *shard, View::HealthCounts { jobs: jobs.to_vec() }).await? else {
                return Err(ApiError::internal("a shard answered another question than it was asked"));
            };
            counts.extend(found);
        }
    }
    Ok(counts)
}

/// Whether tasks of an app are well, by index; nothing where it has no checks.
///
/// # Errors
/// As [`counts`].
pub async fn of_tasks(api: &Api, held: &Held, tasks: &[TaskView]) -> Result<BTreeMap<u32, HealthView>, ApiError> {
    let mut found = BTreeMap::new();
    let indexes: Vec<u32> = tasks.iter().filter(|task| task.phase == Phase::Running).map(|task| task.index).collect();
    for indexes in indexes.chunks(PAGE_MAX).filter(|_| held.view.job.template.has_checks()) {
        let view = View::Healths { job: JobRef::Id(held.view.id), indexes: indexes.to_vec() };
        let Viewed::Healths(page) = find::view(api, held.view.id.shard(), view).await? else {
            return Err(ApiError::internal("a shard answered another question than it was asked"));
        };
        found.extend(page);
    }
    Ok(found)
}

/// What was found of a task, as clients read it: nothing before something was. When, and how often in a row, is its agent's to know.
pub fn result(found: &HealthView, task: &str) -> Option<Value> {
    let alive = match found.verdict {
        Verdict::Healthy => true,
        Verdict::Unhealthy => false,
        Verdict::Unready => return None,
    };
    let mut result = json!({ "alive": alive, "consecutiveFailures": u32::from(!alive), "instanceId": task, "taskId": task });
    if !alive {
        result["lastFailureCause"] = found.reason.as_str().into();
    }
    Some(result)
}
