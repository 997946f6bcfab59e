//! Apps as jobs: what becomes of each field, and what is refused.

use super::*;
use crate::http::marathon::app::normal;
use crate::http::marathon::id::AppId;
use serde_json::json;

fn app(body: &Value) -> Result<App, Wrong> {
    normal(&AppId::parse("/web/shop").unwrap(), body.as_object().unwrap(), false)
}

fn job(body: &Value) -> Made {
    made(&app(body).unwrap(), true).unwrap()
}

#[test]
fn a_command_is_a_script_with_what_marathon_tells_a_task() {
    let body = json!({
        "cmd": "echo $A", "cpus": 0.25, "mem": 32, "disk": 10, "gpus": 2, "instances": 3, "env": { "A": "b", "HOST": "mine" },
        "labels": { "a-b": "x", "HAPROXY_GROUP": "external" }, "ports": [0, 8080], "backoffSeconds": 2, "backoffFactor": 2.0,
        "maxLaunchDelaySeconds": 60, "upgradeStrategy": { "minimumHealthCapacity": 0.3 }, "constraints": [["rack", "MAX_PER", 2], ["hostname", "UNIQUE"]],
    });
    let Made { spec, script } = job(&body);
    assert_eq!(script.as_deref(), Some(&b"#!/bin/sh\necho $A\n"[..]));
    let task = &spec.tasks[0];
    let env: BTreeMap<&str, &str> = task.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    for (name, value) in [
        ("A", "b"),
        ("HOST", "mine"),
        ("MARATHON_APP_ID", "/web/shop"),
        ("MARATHON_APP_RESOURCE_CPUS", "0.25"),
        ("MARATHON_APP_RESOURCE_MEM", "32.0"),
        ("MARATHON_APP_LABELS", "HAPROXY_GROUP A_B"),
        ("MARATHON_APP_LABEL_A_B", "x"),
        ("MESOS_TASK_ID", "web_shop.${job.id}-${task.index}-${task.attempt}"),
        ("PORT", "${port.port0}"),
        ("PORT1", "${port.port1}"),
        ("PORTS", "${port.port0},${port.port1}"),
        ("PORT_8080", "${port.port1}"),
    ] {
        assert_eq!(env.get(name), Some(&value), "{name}");
    }
    assert_eq!(
        (task.resources.cpu_milli, task.resources.memory_bytes, task.resources.disk_bytes),
        (Some(250), Some(32 << 20), Some(10 << 20))
    );
    assert_eq!((task.resources.devices[0].milli, spec.count), (2_000, Some(3)));
    assert_eq!(
        (spec.restart.backoff_first_ms, spec.restart.backoff_factor_milli, spec.restart.backoff_max_ms),
        (Some(2_000), Some(2_000), Some(60_000))
    );
    assert_eq!(spec.place.constraints[0].to_string(), r#"["rack", "MAX_PER", "2"]"#);
    assert_eq!(spec.labels.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["HAPROXY_GROUP", "a-b"]);
    let args = job(&json!({ "args": ["/bin/echo", "it's", "$A"] }));
    assert_eq!(args.script.as_deref(), Some(&b"#!/bin/sh\nexec '/bin/echo' 'it'\\''s' '$A'\n"[..]));
    // What it was made of is an app again.
    let note: Value = serde_json::from_str(&args.spec.origin.unwrap().note).unwrap();
    assert_eq!((&note["id"], &note["args"]), (&json!("/web/shop"), &json!(["/bin/echo", "it's", "$A"])));
    assert_eq!(app(&note).unwrap().fields, *note.as_object().unwrap());
}

#[test]
fn what_was_uploaded_runs_as_what_it_is() {
    let digest = format!("sha256:{}", Digest::of(b"x"));
    let wasm = job(&json!({ "fetch": [{ "uri": format!("{digest}.wasm") }], "args": ["a"] }));
    assert!(wasm.spec.tasks[0].wasm.is_some() && wasm.spec.tasks[0].args == ["a"] && wasm.script.is_none());
    let labelled = job(&json!({ "uris": [digest], "labels": { "runtime": "wasm" } }));
    assert!(labelled.spec.tasks[0].wasm.is_some() && labelled.spec.tasks[0].limits.egress.is_none());
    let native = job(&json!({ "uris": [digest], "cmd": "./run" }));
    assert_eq!(
        (native.spec.tasks[0].command.clone(), native.spec.tasks[0].dir.as_deref()),
        (vec!["/bin/sh".into(), "-c".into(), "./run".into()], Some("/bundle"))
    );
    let volumes = json!([{ "containerPath": "/data", "hostPath": "/srv/data", "mode": "RO" }]);
    let image = job(
        &json!({ "container": { "type": "DOCKER", "docker": { "image": digest, "network": "NONE" }, "volumes": volumes }, "args": ["x"], "user": "1000" }),
    );
    let task = &image.spec.tasks[0];
    assert!(
        task.image.is_some() && task.args == ["x"] && task.user.as_deref() == Some("1000") && task.limits.egress == Some(Network::None)
    );
    assert_eq!(task.mounts, [HostMount { from: "/srv/data".into(), to: "/data".into(), writable: false }]);
}

#[test]
fn checks_dependencies_and_how_it_is_replaced_are_those_of_the_job() {
    let body = json!({
        "cmd": "x", "instances": 4, "ports": [8080, 8081], "requirePorts": true, "dependencies": ["db", "/other/db", "cache"],
        "healthChecks": [{ "protocol": "TCP", "port": 8081, "intervalSeconds": 0, "timeoutSeconds": 0, "maxConsecutiveFailures": 0, "gracePeriodSeconds": 7 }],
        "readinessChecks": [{ "protocol": "HTTPS", "path": "/ready", "intervalSeconds": 2 }],
    });
    let spec = job(&body).spec;
    assert_eq!(spec.after.iter().map(Name::as_str).collect::<Vec<_>>(), ["cache", "db"]);
    // What takes certain ports has no room beside itself.
    assert_eq!((spec.update.min_healthy_milli, spec.update.max_over_milli, spec.update.auto_rollback), (Some(1_000), Some(0), Some(false)));
    let (health, readiness) = (spec.tasks[0].health.clone().unwrap(), spec.tasks[0].readiness.clone().unwrap());
    assert_eq!((health.tcp.as_ref().map(Name::as_str), health.failures, health.grace_ms), (Some("8081"), Some(0), Some(7_000)));
    assert!(health.every_ms == Some(protocol::checks::EVERY_MS.0) && health.timeout_ms == Some(protocol::checks::TIMEOUT_MS.0));
    assert_eq!(
        (readiness.https.as_deref(), readiness.port.as_ref().map(Name::as_str), readiness.every_ms),
        (Some("/ready"), Some("8080"), Some(2_000))
    );
    let over = job(&json!({ "cmd": "x", "ports": [8080], "upgradeStrategy": { "maximumOverCapacity": 0.25 } })).spec.update;
    assert_eq!((over.min_healthy_milli, over.max_over_milli), (Some(1_000), Some(250)));
    // Another number of tasks is another version, and no other configuration.
    let looked = |_| Some(crate::admit::Verdict { form: crate::admit::Form::Script, wasm: Err(crate::admit::wasm::Rejection::Text) });
    let one = crate::admit::admit(job(&json!({ "cmd": "x" })).spec, &looked).unwrap();
    let two = scaled(&one, 7, "2020-01-02T00:00:00.000Z");
    assert!(two.count == 7 && two.template == one.template && scaled(&one, 0, "") == scaled(&two, 0, "") && one != two);
    let note: Value = serde_json::from_str(&two.origin().unwrap().note).unwrap();
    assert_eq!(note["versionInfo"], json!({ "lastScalingAt": "2020-01-02T00:00:00.000Z", "lastConfigChangeAt": "" }));
}

#[test]
fn a_check_begins_later_and_passes_interim_answers_over_where_the_app_says_so() {
    let check = |more: Value| {
        let mut check = json!({ "path": "/" });
        check.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let health = job(&json!({ "cmd": "x", "ports": [0], "healthChecks": [check] })).spec.tasks[0].health.clone().unwrap();
        (health.delay_ms, health.ignore_1xx)
    };
    assert_eq!(check(json!({})), (None, None));
    assert_eq!(check(json!({ "delaySeconds": 15, "ignoreHttp1xx": true })), (Some(15_000), Some(true)));
    assert_eq!(check(json!({ "delaySeconds": 0, "ignoreHttp1xx": false })), (None, None));
    assert_eq!(check(json!({ "protocol": "MESOS_HTTPS", "delaySeconds": 2, "ignoreHttp1xx": true })), (Some(2_000), Some(true)));
    assert_eq!(check(json!({ "protocol": "TCP", "delaySeconds": 3 })), (Some(3_000), None));
    assert_eq!(check(json!({ "protocol": "COMMAND", "command": { "value": "true" }, "delaySeconds": 4 })), (Some(4_000), None));
}

#[test]
fn checks_and_ports_that_cannot_be_are_refused_by_their_path() {
    let command = json!({ "protocol": "COMMAND", "command": { "value": "x" } });
    let slow = json!({ "protocol": "COMMAND", "command": { "value": "x" }, "timeoutSeconds": 301 });
    for (name, value, path) in [
        ("healthChecks", json!([{ "path": "/", "portIndex": 1 }]), "/healthChecks(0)/portIndex"),
        ("healthChecks", json!([{ "protocol": "TCP", "port": 8080 }]), "/healthChecks(0)/port"),
        ("healthChecks", json!([slow]), "/healthChecks(0)/timeoutSeconds"),
        ("healthChecks", json!([command, { "path": "/" }]), "/healthChecks(1)"),
        ("readinessChecks", json!([{}]), "/readinessChecks(0)"),
        ("ports", json!([8080, 0, 8080]), "/ports"),
        ("portDefinitions", json!([{ "port": 8080 }, { "port": 8080 }]), "/portDefinitions"),
    ] {
        let body = json!({ "cmd": "x", name: value });
        let wrong = app(&body).and_then(|app| made(&app, true)).err().unwrap_or_else(|| panic!("{body}"));
        assert!(wrong.faults_said().iter().any(|fault| fault.path == path), "{body}: {:?}", wrong.faults_said());
    }
    let any = app(&json!({ "cmd": "x", "ports": [0], "requirePorts": true })).unwrap_err();
    assert_eq!(any.faults_said()[0].path, "/requirePorts");
}

#[test]
fn what_cannot_be_kept_is_refused_by_its_path() {
    let digest = format!("sha256:{}", Digest::of(b"x"));
    let with = |name: &str, value: Value| json!({ "cmd": "x", name: value });
    let docker = |more: Value| {
        let mut docker = json!({ "image": digest });
        docker.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "container": { "type": "DOCKER", "docker": docker } })
    };
    for (body, path) in [
        (json!({}), "/"),
        (json!({ "cmd": "x", "args": ["y"] }), "/"),
        (with("cmd", json!(" ")), "/cmd"),
        (with("cpus", json!("1")), "/cpus"),
        (with("cpus", json!(0)), "/cpus"),
        (with("mem", json!(-1)), "/mem"),
        (with("instances", json!(1.5)), "/instances"),
        (with("instances", json!(1e12)), "/instances"),
        (with("env", json!({ "A": { "secret": "s" } })), "/env/A"),
        (with("env", json!([])), "/env"),
        (with("constraints", json!([["rack", "NEAR"]])), "/constraints(0)"),
        (with("constraints", json!([["rack", "MAX_PER", "x"]])), "/constraints(0)"),
        (with("uris", json!(["http://a/b"])), "/fetch(0)/uri"),
        (with("user", json!("root")), "/user"),
        (with("executor", json!("/my/executor")), "/executor"),
        (with("killSelection", json!("OLDEST_FIRST")), "/killSelection"),
        (with("killSelection", json!("x")), "/killSelection"),
        (with("upgradeStrategy", json!({ "minimumHealthCapacity": 2 })), "/upgradeStrategy/minimumHealthCapacity"),
        (with("unreachableStrategy", json!("disabled")), "/unreachableStrategy"),
        (with("acceptedResourceRoles", json!(["other"])), "/acceptedResourceRoles"),
        (with("role", json!("other")), "/role"),
        (with("secrets", json!({ "a": { "source": "x" } })), "/secrets"),
        (with("tty", json!(true)), "/tty"),
        (with("ipAddress", json!({ "networkName": "x" })), "/ipAddress"),
        (with("check", json!({ "tcp": {} })), "/check"),
        (with("networks", json!([{ "mode": "container/bridge" }])), "/networks(0)/mode"),
        (with("portDefinitions", json!([{ "port": 70_000 }])), "/portDefinitions(0)/port"),
        (with("requirePorts", json!("yes")), "/requirePorts"),
        (with("healthChecks", json!([{ "protocol": "SMTP" }])), "/healthChecks(0)/protocol"),
        (with("healthChecks", json!([{ "protocol": "COMMAND" }])), "/healthChecks(0)/command"),
        (with("dependencies", json!(["/web/shop"])), "/dependencies"),
        (with("resourceLimits", json!({ "cpus": 2 })), "/resourceLimits/cpus"),
        (with("container", json!({ "type": "LXC" })), "/container/type"),
        (
            with("container", json!({ "type": "MESOS", "volumes": [{ "containerPath": "data", "persistent": { "size": 1 } }] })),
            "/container/volumes(0)/persistent",
        ),
        (json!({ "container": { "docker": { "image": "redis:7" } } }), "/container/docker/image"),
        (docker(json!({ "privileged": true })), "/container/docker/privileged"),
        (docker(json!({ "network": "BRIDGE" })), "/container/docker/network"),
        (docker(json!({ "parameters": [{ "key": "hostname", "value": "x" }] })), "/container/docker/parameters"),
        (json!({ "uris": [format!("{digest}.wasm")], "cmd": "x" }), "/cmd"),
    ] {
        let wrong = app(&body).and_then(|app| made(&app, true)).err().unwrap_or_else(|| panic!("{body}"));
        assert!(wrong.faults_said().iter().any(|fault| fault.path == path), "{body}: {:?}", wrong.faults_said());
    }
    let wrong = made(&app(&with("ports", json!([0]))).unwrap(), false).unwrap_err();
    assert!(wrong.faults_said()[0].path == "/portDefinitions" && wrong.faults_said()[0].message.contains("--host-network"));
}
