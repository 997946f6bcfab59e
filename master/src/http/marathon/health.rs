//! Health and readiness checks of an app: read, kept and given back as they were said. What of them a task's agent makes is [`apply`]'s alone.

use super::app::Reader;
use super::held::Held;
use super::ports;
use super::words::Object;
use super::wrong::Faults;
use crate::admit::JobSpec;
use crate::admit::spec::CheckSpec;
use protocol::checks::FAILURES_MAX;
use serde_json::Value;

const PROTOCOLS: [&str; 7] = ["HTTP", "HTTPS", "TCP", "COMMAND", "MESOS_HTTP", "MESOS_HTTPS", "MESOS_TCP"];
/// Longest time of a check, in seconds.
const SECONDS_MAX: f64 = 86_400.0;

/// One of `healthChecks`.
pub fn read(check: &mut Reader<'_>) {
    let protocol = check.word("protocol", &PROTOCOLS, "HTTP");
    check.number("gracePeriodSeconds", 300.0, (0.0, SECONDS_MAX), true);
    check.number("intervalSeconds", 60.0, (0.0, SECONDS_MAX), true);
    check.number("timeoutSeconds", 20.0, (0.0, SECONDS_MAX), true);
    check.number("maxConsecutiveFailures", 3.0, (0.0, 1_000.0), true);
    if protocol == "COMMAND" {
        let command = check.object("command").cloned();
        match command.as_ref().and_then(|command| command.get("value")).and_then(serde_json::Value::as_str) {
            Some(value) => drop(check.out.insert("command".into(), serde_json::json!({ "value": value }))),
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
    if check.has("delaySeconds") {
        check.number("delaySeconds", 15.0, (0.0, SECONDS_MAX), true);
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
    check.number("intervalSeconds", 30.0, (1.0, SECONDS_MAX), true);
    check.number("timeoutSeconds", 10.0, (1.0, SECONDS_MAX), true);
    let codes = check.body.get("httpStatusCodesForReady").filter(|codes| codes.is_array()).cloned();
    check.out.insert("httpStatusCodesForReady".into(), codes.unwrap_or_else(|| serde_json::json!([200])));
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
        grace_ms: ms("gracePeriodSeconds"),
        every_ms: ms("intervalSeconds").map(|every| every.max(1)),
        timeout_ms: ms("timeoutSeconds").map(|timeout| timeout.max(1)),
        // None is never: nothing is ended for it.
        failures: failures.map(|failures| if failures == 0 { FAILURES_MAX } else { failures }),
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
        faults.say(path, "asks at a port that the app does not have");
        return None;
    };
    let port = Some(port.name.clone());
    match protocol.trim_start_matches("MESOS_") {
        "TCP" => Some(CheckSpec { tcp: port, ..when }),
        _ => {
            let asked = asked_over_http(check);
            Some(CheckSpec { port, http: asked.http, https: asked.https, ..when })
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

/// How many tasks of an app are healthy, and how many are not: none of either while nobody looks.
pub fn counts(_held: &Held) -> (u32, u32) {
    (0, 0)
}
