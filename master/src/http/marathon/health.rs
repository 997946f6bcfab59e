//! Health and readiness checks of an app: read, kept and given back as they were said. What of them a task's agent makes is [`apply`]'s alone.

use super::app::Reader;
use super::held::Held;
use super::words::Object;
use super::wrong::Faults;
use crate::admit::JobSpec;

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

/// Puts the checks of an app into its job. Agents make none yet, so there is nothing to put there: they are kept and given back alone.
pub fn apply(_fields: &Object, _spec: &mut JobSpec, _faults: &mut Faults) {}

/// How many tasks of an app are healthy, and how many are not: none of either while nobody looks.
pub fn counts(_held: &Held) -> (u32, u32) {
    (0, 0)
}
