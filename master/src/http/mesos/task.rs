//! A task of Mesos' as one of ours. A command is a script that its agent runs; an uploaded bundle is named by its digest, as a URI or as an
//! image, and runs as what it is: a `.wasm` file as WebAssembly.

use super::words::{self, Wanted, list, member, nanoseconds, number, text, whole};
use crate::admit::JobSpec;
use crate::admit::member::{MEMORY_BYTES_MIN, PROCESS_MEMORY_BYTES_MIN};
use crate::admit::spec::{Source, TaskSpec};
use crate::frameworks::FrameworkId;
use crate::http::spec::SANDBOX_DIR;
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
    if member(task, "health_check").or_else(|| member(task, "check")).is_some() {
        return Err("checks are not made yet: leave health_check and check out".into());
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
    let kill = member(task, "kill_policy").and_then(|policy| nanoseconds(policy, "grace_period"));
    let mut job = JobSpec::default();
    job.tasks = vec![spec];
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
            (json!({ "command": { "value": "x" }, "health_check": {} }), "not made yet"),
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
