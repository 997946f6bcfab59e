//! A task of Mesos' as one of ours. A command is a script that its agent runs; an uploaded bundle is named by its digest, as a URI or as an
//! image, and runs as what it is: a `.wasm` file as WebAssembly.

use super::words::{self, Wanted, list, member, nanoseconds, number, text, whole};
use crate::admit::JobSpec;
use crate::admit::member::{MEMORY_BYTES_MIN, PROCESS_MEMORY_BYTES_MIN};
use crate::admit::spec::{CheckSpec, Source, TaskSpec};
use crate::frameworks::FrameworkId;
use crate::http::spec::SANDBOX_DIR;
use protocol::checks::{DELAY_MS_MAX, EVERY_MS, FAILURES_MAX, GRACE_MS_MAX, TIMEOUT_MS};
use protocol::job::Network;
use protocol::{Digest, Name};
use serde_json::Value;

/// How long a task has to stop where its framework does not say, in milliseconds: as in Mesos (`DEFAULT_EXECUTOR_SHUTDOWN_GRACE_PERIOD`).
pub const GRACE_MS_DEFAULT: u64 = 5_000;
/// The least part of the processors that a task is given, in thousandths of one.
const CPU_MILLI_MIN: u64 = 1;
/// The label that says what a task runs as: `wasm`, or what its command says.
const RUNTIME_LABEL: &str = "runtime";
/// What the script of a command is called inside.
const SCRIPT: &str = "command";

/// A task as it can be admitted.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What it is.
    pub spec: JobSpec,
    /// The script that is its bundle, where it has one of its own.
    pub script: Option<Vec<u8>>,
    /// How long it has to stop, in milliseconds.
    pub grace_ms: u64,
}

/// What a task is.
///
/// # Errors
/// Why it cannot be run.
pub fn asked(task: &Value, framework: FrameworkId, host_network: bool) -> Result<Asked, String> {
    let (executor, resources) = (member(task, "executor"), list(task, "resources"));
    let of_executor = executor.map_or(&[][..], |executor| list(executor, "resources"));
    if let Some(why) = resources.iter().chain(of_executor).find_map(words::refusal) {
        return Err(why);
    }
    if executor.is_some() {
        return Err("executors of frameworks' own are not run: give the task a command".into());
    }
    if member(task, "check").is_some() {
        return Err("checks that are only told of are not made yet: leave check out, or say it as health_check".into());
    }
    if let Some(why) = member(task, "container").and_then(missing) {
        return Err(format!("container: {why}"));
    }
    let command = member(task, "command").ok_or("the task has no command")?;
    if resources.is_empty() {
        return Err("Task uses no resources".into());
    }
    let Wanted { resources, ports, revocable } = words::wanted(resources)?;
    let mut spec = TaskSpec::default();
    let bundle = bundle(task, command)?;
    let mut script = None;
    match bundle {
        Some((digest, Runs::Wasm)) => {
            spec.wasm = Some(Source::Bundle(digest));
            spec.args = arguments(command)?;
        }
        Some((digest, Runs::Image)) => {
            spec.image = Some(Source::Bundle(digest));
            let is_docker = member(task, "container").is_some_and(|container| text(container, "type") == Some("DOCKER"));
            (spec.command, spec.args) = within(command, is_docker)?;
        }
        Some((digest, Runs::Native)) => {
            spec.native = Some(Source::Bundle(digest));
            spec.args = arguments(command)?;
        }
        None => {
            let (text, arguments) = run(command)?;
            spec.native = Some(Source::Bundle(Digest::of(text.as_bytes())));
            spec.file = Some(SCRIPT.into());
            spec.args = arguments;
            script = Some(text.into_bytes());
        }
    }
    let is_wasm = spec.wasm.is_some();
    spec.env = environment(task, command, framework, is_wasm)?;
    // As in Mesos, a task may say less than it is given, or of one of them nothing.
    let memory_bytes = resources.memory_bytes.max(if is_wasm { MEMORY_BYTES_MIN } else { PROCESS_MEMORY_BYTES_MIN });
    (spec.resources.cpu_milli, spec.resources.memory_bytes) = (Some(resources.cpu_milli.max(CPU_MILLI_MIN)), Some(memory_bytes));
    (spec.resources.disk_bytes, spec.resources.devices) = (Some(resources.disk_bytes), resources.devices);
    spec.resources.revocable = revocable.unwrap_or_default();
    // A port whose name is a number is that port.
    let name = |port: &u16| Name::new(&port.to_string()).map_err(|error| error.to_string());
    spec.resources.ports = ports.iter().map(name).collect::<Result<_, _>>()?;
    spec.limits.time_ms = nanoseconds(task, "max_completion_time");
    spec.limits.memory_bytes = memory_limit(task, memory_bytes)?;
    if !is_wasm {
        spec.limits.egress = Some(if host_network { Network::Host } else { Network::None });
    }
    spec.health = member(task, "health_check").map(|check| health(check, &ports)).transpose()?;
    let origin = super::note::of(task)?;
    let kill = member(task, "kill_policy").and_then(|policy| nanoseconds(policy, "grace_period"));
    let mut job = JobSpec::default();
    (job.tasks, job.origin) = (vec![spec], origin);
    Ok(Asked { spec: job, script, grace_ms: kill.unwrap_or(GRACE_MS_DEFAULT) })
}

enum Runs {
    Wasm,
    Native,
    Image,
}

/// The uploaded bundle that the task runs, where it names one.
fn bundle(task: &Value, command: &Value) -> Result<Option<(Digest, Runs)>, String> {
    let container = member(task, "container");
    let image = container.and_then(|container| {
        let docker = member(container, "docker").and_then(|docker| text(docker, "image"));
        let mesos = member(container, "mesos").and_then(|mesos| member(mesos, "image")).and_then(|image| member(image, "docker"));
        docker.or_else(|| mesos.and_then(|docker| text(docker, "name")))
    });
    let digest = |of: &str, what: &str| {
        let only = format!("{what} {of:?}: only what was uploaded (skep push) is run yet, named by its digest, sha256:…");
        of.strip_prefix("sha256:").map(str::parse::<Digest>).transpose().ok().flatten().ok_or(only)
    };
    if let Some(image) = image {
        return digest(image, "image").map(|digest| Some((digest, Runs::Image)));
    }
    let [uri, others @ ..] = list(command, "uris") else { return Ok(None) };
    if !others.is_empty() {
        return Err("a command has one URI at most yet".into());
    }
    let value = text(uri, "value").unwrap_or("");
    let (name, is_wasm) = value.strip_suffix(".wasm").map_or((value, false), |name| (name, true));
    let labelled = member(task, "labels").map_or(&[][..], |labels| list(labels, "labels"));
    let labelled = labelled.iter().any(|label| text(label, "key") == Some(RUNTIME_LABEL) && text(label, "value") == Some("wasm"));
    let runs = if is_wasm || labelled { Runs::Wasm } else { Runs::Native };
    digest(name, "URI").map(|digest| Some((digest, runs)))
}

/// The script of a command, and its arguments.
fn run(command: &Value) -> Result<(String, Vec<String>), String> {
    let value = text(command, "value").ok_or("the command has no value")?;
    if words::flag(command, "shell", true) {
        return Ok((format!("#!/bin/sh\n{value}\n"), vec![]));
    }
    let quoted = value.replace('\'', r"'\''");
    Ok((format!("#!/bin/sh\nexec '{quoted}' \"$@\"\n"), arguments(command)?))
}

/// What runs inside an image instead of what that says itself, and the arguments; nothing where the image says it. Docker is given the value and all
/// arguments behind the image (`src/docker/docker.cpp`), Mesos' own containers run the value in place of what the image says
/// (`isolators/docker/runtime.cpp`).
fn within(command: &Value, is_docker: bool) -> Result<(Vec<String>, Vec<String>), String> {
    match (text(command, "value"), words::flag(command, "shell", true)) {
        (Some(value), true) => Ok((vec!["/bin/sh".into(), "-c".into(), value.into()], vec![])),
        (Some(value), false) if is_docker => Ok((vec![], [value.to_owned()].into_iter().chain(all_arguments(command)?).collect())),
        (Some(value), false) => Ok((vec![value.into()], arguments(command)?)),
        (None, false) => Ok((vec![], arguments(command)?)),
        (None, true) => Ok((vec![], vec![])),
    }
}

/// The arguments without the program's own name, which is the first of them where the command has a value.
fn arguments(command: &Value) -> Result<Vec<String>, String> {
    let names_itself = text(command, "value").is_some();
    Ok(all_arguments(command)?.into_iter().skip(usize::from(names_itself)).collect())
}

fn all_arguments(command: &Value) -> Result<Vec<String>, String> {
    let text = |argument: &Value| argument.as_str().map(str::to_owned).ok_or("an argument is no text".to_owned());
    list(command, "arguments").iter().map(text).collect()
}

/// The command's environment, and what Mesos' own executor tells a task of itself.
fn environment(task: &Value, command: &Value, framework: FrameworkId, is_wasm: bool) -> Result<Vec<(String, String)>, String> {
    let mut env = std::collections::BTreeMap::new();
    for variable in member(command, "environment").map_or(&[][..], |environment| list(environment, "variables")) {
        let name = text(variable, "name").ok_or("a variable has no name")?;
        if member(variable, "secret").is_some() {
            return Err(format!("variable {name}: secrets are not kept yet"));
        }
        env.insert(name.to_owned(), text(variable, "value").unwrap_or("").to_owned());
    }
    env.insert("MESOS_TASK_ID".into(), words::id(task, "task_id").unwrap_or("").to_owned());
    env.insert("MESOS_FRAMEWORK_ID".into(), framework.to_string());
    if !is_wasm {
        for name in ["MESOS_SANDBOX", "MESOS_DIRECTORY"] {
            env.entry(name.to_owned()).or_insert_with(|| SANDBOX_DIR.to_owned());
        }
    }
    Ok(env.into_iter().collect())
}

/// A health check as the task's agent makes it. What is left out is as in Mesos (`HealthCheck` in `mesos.proto`), where executors look at no `statuses`
/// either; a time that is shorter or longer than can be is as short or long as can be, and a timeout of 0 is the longest.
fn health(check: &Value, ports: &[u16]) -> Result<CheckSpec, String> {
    let amount = |name: &str, otherwise: f64| {
        let amount = member(check, name).map_or(Some(otherwise), number).filter(|amount| amount.is_finite() && *amount >= 0.0);
        amount.ok_or_else(|| format!("health_check: {name}: a number from 0 on is missing"))
    };
    let ms = |name: &str, otherwise: f64| amount(name, otherwise).map(|seconds| whole(seconds * 1_000.0));
    let timeout_ms = match ms("timeout_seconds", 20.0)? {
        0 => TIMEOUT_MS.1,
        timeout => timeout.clamp(TIMEOUT_MS.0, TIMEOUT_MS.1),
    };
    let when = CheckSpec {
        delay_ms: Some(ms("delay_seconds", 15.0)?.min(DELAY_MS_MAX)).filter(|delay| *delay > 0),
        every_ms: Some(ms("interval_seconds", 10.0)?.clamp(EVERY_MS.0, EVERY_MS.1)),
        timeout_ms: Some(timeout_ms),
        // The first ends it there too where that is 0.
        failures: Some((amount("consecutive_failures", 3.0)? as u32).clamp(1, FAILURES_MAX)),
        grace_ms: Some(ms("grace_period_seconds", 10.0)?.min(GRACE_MS_MAX)),
        ..CheckSpec::default()
    };
    let part = |name: &str| member(check, name).ok_or_else(|| format!("health_check: it has no {name}"));
    let port = |of: &Value| {
        let port = member(of, "port").and_then(number).ok_or("health_check: the port is missing")?;
        let port = ports.iter().find(|given| f64::from(**given) == port);
        let port = port.ok_or_else(|| format!("health_check: {} is none of the ports in the task's resources", of["port"]))?;
        Name::new(&port.to_string()).map_err(|error| error.to_string())
    };
    let kind = ["command", "http", "tcp"].into_iter().find(|name| member(check, name).is_some()).unwrap_or_default();
    match text(check, "type").unwrap_or(kind).to_ascii_lowercase().as_str() {
        "command" => Ok(CheckSpec { exec: asked_by(part("command")?)?, ..when }),
        "http" => {
            let http = part("http")?;
            let (path, port) = (Some(text(http, "path").unwrap_or("/").to_owned()), Some(port(http)?));
            match text(http, "scheme").unwrap_or("http") {
                "http" => Ok(CheckSpec { http: path, port, ..when }),
                "https" => Ok(CheckSpec { https: path, port, ..when }),
                other => Err(format!("health_check: scheme {other:?}: http and https are known")),
            }
        }
        "tcp" => Ok(CheckSpec { tcp: Some(port(part("tcp")?)?), ..when }),
        _ => Err("health_check: its type is COMMAND, HTTP or TCP".into()),
    }
}

/// The command of a health check, which runs beside its task.
fn asked_by(command: &Value) -> Result<Vec<String>, String> {
    if member(command, "environment").is_some() || !list(command, "uris").is_empty() {
        return Err("health_check: its command has the task's environment and files: leave environment and uris out".into());
    }
    let value = text(command, "value").ok_or("health_check: the command has no value")?;
    match words::flag(command, "shell", true) {
        true => Ok(["/bin/sh", "-c", value].map(str::to_owned).to_vec()),
        false => Ok([value.to_owned()].into_iter().chain(arguments(command)?).collect()),
    }
}

/// The memory that a task may have beyond what it is promised. Processors are not limited: what others do not use is there for whoever wants it.
fn memory_limit(task: &Value, promised: u64) -> Result<Option<u64>, String> {
    let mut memory = None;
    for (name, limit) in member(task, "limits").and_then(Value::as_object).into_iter().flatten() {
        let amount = member(limit, "value").and_then(number).filter(|amount| *amount >= 0.0);
        let amount = amount.ok_or_else(|| format!("limits: {name}: an amount from 0 on is missing"))?;
        match name.as_str() {
            "cpus" if amount.is_infinite() => {}
            "cpus" => return Err("limits: cpus: only \"Infinity\" is kept yet: what others leave of a processor is there for all".into()),
            "mem" if amount.is_infinite() => return Err("limits: mem: say how much: no task is without a limit yet".into()),
            "mem" => {
                let bytes = whole(amount * f64::from(1 << 20));
                if bytes < promised {
                    return Err("limits: mem: a limit is at least what the task is promised".into());
                }
                memory = Some(bytes);
            }
            other => return Err(format!("limits: {other}: only cpus and mem have limits")),
        }
    }
    Ok(memory)
}

/// What a container is to have that is not there yet; nothing where all of it is.
fn missing(container: &Value) -> Option<&'static str> {
    let docker = member(container, "docker").unwrap_or(&Value::Null);
    let network = text(docker, "network");
    [
        (!list(container, "volumes").is_empty(), "volumes are not mounted yet"),
        (!list(container, "network_infos").is_empty(), "networks of containers' own are not there yet: leave network_infos out"),
        (matches!(network, Some("BRIDGE" | "USER")), "containers have the host's network or none yet, no bridge"),
        (!list(docker, "port_mappings").is_empty(), "ports are not mapped yet: the port that the task is given is the one it listens on"),
        (words::flag(docker, "privileged", false), "no container is privileged"),
        (!list(docker, "parameters").is_empty(), "parameters of Docker's command line mean nothing here"),
        (member(container, "tty_info").is_some(), "tasks have no terminal yet: leave tty_info out"),
        (member(container, "rlimit_info").is_some(), "rlimit_info is not kept yet"),
        (member(container, "linux_info").is_some(), "linux_info is not kept yet"),
    ]
    .into_iter()
    .find_map(|(asked, why)| asked.then_some(why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The task, which has some resources where it says none.
    fn ask(task: &Value) -> Result<Asked, String> {
        let mut task = task.clone();
        if member(&task, "resources").is_none() {
            words::put(&mut task, "resources", Some(json!([{ "name": "cpus", "scalar": { "value": 1 } }])));
        }
        asked(&task, FrameworkId(7), false)
    }

    #[test]
    fn a_command_is_a_script_of_its_own() {
        let task = json!({
            "name": "t", "task_id": { "value": "t-1" }, "resources": [{ "name": "cpus", "scalar": { "value": 0.5 } }],
            "command": { "value": "echo $A", "environment": { "variables": [{ "name": "A", "value": "b" }] } },
            "kill_policy": { "grace_period": { "nanoseconds": 2_000_000_000_u64 } },
        });
        let asked = ask(&task).unwrap();
        assert_eq!(asked.script.as_deref(), Some(&b"#!/bin/sh\necho $A\n"[..]));
        assert_eq!((asked.grace_ms, asked.spec.tasks[0].resources.cpu_milli), (2_000, Some(500)));
        let expected = [
            ("A", "b"),
            ("MESOS_DIRECTORY", "/sandbox"),
            ("MESOS_FRAMEWORK_ID", "f7"),
            ("MESOS_SANDBOX", "/sandbox"),
            ("MESOS_TASK_ID", "t-1"),
        ];
        assert_eq!(asked.spec.tasks[0].env, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));

        let task = json!({ "command": { "shell": false, "value": "/it's", "arguments": ["it's", "a b"] } });
        let asked = ask(&task).unwrap();
        assert_eq!(
            asked.script.as_deref(),
            Some(
                &br#"#!/bin/sh
exec '/it'\''s' "$@"
"#[..]
            )
        );
        assert_eq!(asked.spec.tasks[0].args, ["a b"]);
    }

    #[test]
    fn a_task_finds_its_sandbox_unless_it_says_otherwise_or_is_wasm() {
        let digest = format!("sha256:{}", Digest::of(b"x"));
        let own = json!({ "variables": [{ "name": "MESOS_SANDBOX", "value": "/own" }] });
        let told = |task: Value| -> Vec<String> {
            let env = ask(&task).unwrap().spec.tasks[0].env.clone();
            let of_sandbox = env.into_iter().filter(|(name, _)| matches!(name.as_str(), "MESOS_SANDBOX" | "MESOS_DIRECTORY"));
            of_sandbox.map(|(_, value)| value).collect()
        };
        assert_eq!(told(json!({ "command": { "value": "x", "environment": own } })), ["/sandbox", "/own"]);
        let image = json!({ "type": "MESOS", "mesos": { "image": { "type": "DOCKER", "docker": { "name": digest } } } });
        assert_eq!(told(json!({ "command": { "value": "x" }, "container": image })), ["/sandbox", "/sandbox"]);
        let uris = json!([{ "value": format!("{digest}.wasm") }]);
        assert!(told(json!({ "command": { "value": "x", "uris": uris } })).is_empty());
    }

    #[test]
    fn arguments_are_those_that_mesos_containers_are_given() {
        let digest = format!("sha256:{}", Digest::of(b"x"));
        let docker = json!({ "type": "DOCKER", "docker": { "image": digest } });
        let mesos = json!({ "type": "MESOS", "mesos": { "image": { "type": "DOCKER", "docker": { "name": digest } } } });
        let runs = |container: &Value, command: Value| {
            let spec = ask(&json!({ "container": container, "command": command })).unwrap().spec.tasks[0].clone();
            (spec.command.join(" "), spec.args.join(" "))
        };
        let (bare, named) =
            (json!({ "shell": false, "arguments": ["a", "b"] }), json!({ "shell": false, "value": "v", "arguments": ["a", "b"] }));
        let expected = |command: &str, args: &str| (command.to_owned(), args.to_owned());
        for container in [&docker, &mesos] {
            assert_eq!(runs(container, bare.clone()), expected("", "a b"));
            assert_eq!(runs(container, json!({ "shell": false })), expected("", ""));
            assert_eq!(runs(container, json!({ "value": "v", "arguments": ["a"] })), expected("/bin/sh -c v", ""));
        }
        assert_eq!(runs(&docker, named.clone()), expected("", "v a b"));
        assert_eq!(runs(&mesos, named.clone()), expected("v", "b"));
        for (command, args) in [(bare, vec!["a", "b"]), (named, vec!["b"])] {
            for uri in [digest.clone(), format!("{digest}.wasm")] {
                let mut command = command.clone();
                command["uris"] = json!([{ "value": uri }]);
                assert_eq!(ask(&json!({ "command": command })).unwrap().spec.tasks[0].args, args, "{uri}");
            }
        }
    }

    #[test]
    fn a_task_has_at_least_what_a_task_can_be_given() {
        let scalar = |name: &str, value: f64| json!({ "name": name, "scalar": { "value": value } });
        let uris = json!([{ "value": format!("sha256:{}.wasm", Digest::of(b"x")) }]);
        for (resources, uris, expected) in [
            (json!([scalar("cpus", 0.5)]), Value::Null, (500, PROCESS_MEMORY_BYTES_MIN)),
            (json!([scalar("cpus", 0.0001), scalar("mem", 1.0)]), Value::Null, (CPU_MILLI_MIN, PROCESS_MEMORY_BYTES_MIN)),
            (json!([scalar("disk", 64.0)]), Value::Null, (CPU_MILLI_MIN, PROCESS_MEMORY_BYTES_MIN)),
            (json!([scalar("mem", 64.0)]), Value::Null, (CPU_MILLI_MIN, 64 << 20)),
            (json!([scalar("mem", 1.0)]), uris.clone(), (CPU_MILLI_MIN, 1 << 20)),
            (json!([scalar("disk", 1.0)]), uris, (CPU_MILLI_MIN, MEMORY_BYTES_MIN)),
        ] {
            let spec = ask(&json!({ "command": { "value": "x", "uris": uris }, "resources": resources })).unwrap().spec;
            let given = &spec.tasks[0].resources;
            assert_eq!((given.cpu_milli, given.memory_bytes), (Some(expected.0), Some(expected.1)), "{resources}");
        }
    }

    #[test]
    fn a_health_check_is_that_of_mesos_with_its_defaults() {
        let port = json!({ "name": "ports", "type": "RANGES", "ranges": { "range": [{ "begin": 31_000, "end": 31_001 }] } });
        let health = |check: Value| {
            let task = json!({ "command": { "value": "x" }, "resources": [port], "health_check": check });
            ask(&task).map(|asked| asked.spec.tasks[0].health.clone().unwrap())
        };
        let check = health(json!({ "type": "COMMAND", "command": { "value": "test -e up" } })).unwrap();
        assert_eq!(check.exec, ["/bin/sh", "-c", "test -e up"]);
        let times = (check.delay_ms, check.every_ms, check.timeout_ms, check.failures, check.grace_ms);
        assert_eq!(times, (Some(15_000), Some(10_000), Some(20_000), Some(3), Some(10_000)));
        let bare = json!({ "command": { "shell": false, "value": "/bin/test", "arguments": ["test", "-e", "up"] },
            "delay_seconds": 0, "interval_seconds": 0.001, "timeout_seconds": 0, "consecutive_failures": "1", "grace_period_seconds": 0.5 });
        let check = health(bare).unwrap();
        assert_eq!(check.exec, ["/bin/test", "-e", "up"]);
        let times = (check.delay_ms, check.every_ms, check.timeout_ms, check.failures, check.grace_ms);
        assert_eq!(times, (None, Some(EVERY_MS.0), Some(TIMEOUT_MS.1), Some(1), Some(500)));
        let endless = json!({ "type": "TCP", "tcp": { "port": 31_000 }, "delay_seconds": 1e300, "interval_seconds": 1e300,
            "timeout_seconds": 1e300, "consecutive_failures": u32::MAX, "grace_period_seconds": 1e300 });
        let check = health(endless).unwrap();
        let times = (check.delay_ms, check.every_ms, check.timeout_ms, check.failures, check.grace_ms);
        assert_eq!(times, (Some(DELAY_MS_MAX), Some(EVERY_MS.1), Some(TIMEOUT_MS.1), Some(FAILURES_MAX), Some(GRACE_MS_MAX)));
        let check = health(json!({ "type": "TCP", "tcp": { "port": 31_000 }, "consecutive_failures": 0 })).unwrap();
        assert_eq!(check.failures, Some(1));
        let check = health(json!({ "type": "HTTP", "http": { "port": 31_001, "path": "/up" } })).unwrap();
        assert_eq!((check.http.as_deref(), check.port.unwrap().as_str()), (Some("/up"), "31001"));
        let check = health(json!({ "type": "HTTP", "http": { "port": 31_000, "scheme": "https" } })).unwrap();
        assert_eq!((check.https.as_deref(), check.http), (Some("/"), None));
        assert_eq!(health(json!({ "type": "TCP", "tcp": { "port": 31_000 } })).unwrap().tcp.unwrap().as_str(), "31000");
        for (wrong, why) in [
            (json!({}), "its type"),
            (json!({ "type": "UNKNOWN", "tcp": { "port": 31_000 } }), "its type"),
            (json!({ "type": "TCP" }), "no tcp"),
            (json!({ "type": "TCP", "tcp": {} }), "port is missing"),
            (json!({ "type": "TCP", "tcp": { "port": 80 } }), "80 is none"),
            (json!({ "type": "HTTP", "http": { "port": 31_000, "scheme": "ftp" } }), "ftp"),
            (json!({ "type": "COMMAND", "command": {} }), "no value"),
            (json!({ "type": "COMMAND", "command": { "value": "x", "environment": {} } }), "environment"),
            (json!({ "type": "TCP", "tcp": { "port": 31_000 }, "delay_seconds": -1 }), "delay_seconds"),
            (json!({ "type": "TCP", "tcp": { "port": 31_000 }, "interval_seconds": "NaN" }), "interval_seconds"),
        ] {
            let error = health(wrong.clone()).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }

    #[test]
    fn what_was_uploaded_runs_as_what_it_is() {
        let digest = format!("sha256:{}", Digest::of(b"x"));
        let wasm = json!({ "command": { "shell": false, "value": "x", "arguments": ["x", "y"], "uris": [{ "value": format!("{digest}.wasm") }] } });
        let asked = ask(&wasm).unwrap();
        assert_eq!((asked.spec.tasks[0].args.clone(), asked.script), (vec!["y".to_owned()], None));
        assert!(asked.spec.tasks[0].wasm.is_some());
        let image = json!({ "command": { "value": "ls" }, "container": { "type": "DOCKER", "docker": { "image": digest } } });
        assert_eq!(ask(&image).unwrap().spec.tasks[0].command, ["/bin/sh", "-c", "ls"]);
        for (wrong, why) in [
            (json!({ "command": { "value": "x", "uris": [{ "value": "http://a/b" }] } }), "skep push"),
            (json!({ "command": { "value": "x" }, "container": { "docker": { "image": "redis" } } }), "skep push"),
            (json!({ "command": {} }), "no value"),
            (json!({ "executor": {} }), "executors"),
            (json!({ "executor": { "resources": [{ "name": "disk", "disk": { "volume": {} } }] } }), "persistent volumes"),
            (
                json!({ "command": { "value": "x" }, "resources": [{ "name": "disk", "disk": { "persistence": {} } }] }),
                "persistent volumes",
            ),
            (json!({ "command": { "value": "x" }, "resources": [] }), "no resources"),
            (json!({ "command": { "value": "x" }, "check": {} }), "not made yet"),
            (json!({ "command": { "value": "x" }, "limits": { "cpus": { "value": 2 } } }), "Infinity"),
            (json!({ "command": { "value": "x" }, "limits": { "mem": { "value": "Infinity" } } }), "say how much"),
            (json!({ "command": { "value": "x" }, "limits": { "mem": { "value": "NaN" } } }), "missing"),
            (json!({ "command": { "value": "x" }, "limits": { "disk": { "value": 1 } } }), "only cpus and mem"),
            (
                json!({ "command": { "value": "x" }, "resources": [{ "name": "mem", "scalar": { "value": 8 } }], "limits": { "mem": { "value": 4 } } }),
                "at least",
            ),
            (json!({ "command": { "value": "x" }, "container": { "volumes": [{}] } }), "volumes"),
            (json!({ "command": { "value": "x" }, "container": { "docker": { "image": "y", "privileged": "true" } } }), "privileged"),
            (json!({ "command": { "value": "x" }, "container": { "docker": { "image": "y", "network": "BRIDGE" } } }), "bridge"),
            (json!({}), "no command"),
        ] {
            let error = ask(&wrong).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }
}
