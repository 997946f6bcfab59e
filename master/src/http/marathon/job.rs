//! An app, every default filled in, as a job of ours. A command is a script that agents run with `/bin/sh`; what was uploaded runs as what it is.

use super::app::App;
use super::container::{RUNTIME_LABEL, bundle_of};
use super::id::task_id_gap;
use super::note;
use super::ports::{self, Port};
use super::words::Object;
use super::wrong::{Faults, Wrong};
use super::{MADE_BY, dependencies, health};
use crate::admit::JobSpec;
use crate::admit::spec::{Source, TaskSpec};
use crate::admit::update::{FAILURES_MAX, UpdateSpec};
use crate::http::spec::SANDBOX_DIR;
use protocol::job::{HostMount, Network, Origin, RestartPolicy, UPDATE_MS_MAX};
use protocol::resources::Device;
use protocol::{Constraint, Digest, Field, Job, Kind, Name, Rule};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the script of a command is called inside.
const SCRIPT: &str = "command";
/// Where a bundle is inside a native task.
const BUNDLE_DIR: &str = "/bundle";
/// The device that Marathon has a word of its own for.
const GPU: &str = "gpu";
/// Longest name and value of a label that is told to tasks, in bytes: as in Marathon.
const LABEL_TOLD_BYTES_MAX: usize = 512;
/// Least wait before a restart, in milliseconds: what a job file may say.
const BACKOFF_MS_MIN: u64 = crate::admit::job::BACKOFF_FIRST_MS_MIN;
/// How long a task has to stop where its app does not say, in milliseconds.
pub const GRACE_MS_DEFAULT: u64 = crate::http::jobs::GRACE_MS_DEFAULT;

/// An app as a job that can be admitted.
#[derive(Debug)]
pub struct Made {
    /// The job.
    pub spec: JobSpec,
    /// The script that is its bundle, where it has one of its own.
    pub script: Option<Vec<u8>>,
}

/// What an app is as a job; `host_network` where its role may have that.
///
/// # Errors
/// What of it cannot be.
pub fn made(app: &App, host_network: bool) -> Result<Made, Wrong> {
    let mut faults = Faults::default();
    let fields = &app.fields;
    let (role, name) = app.id.place().map_err(|why| Wrong::at("/id", why))?;
    let ports = ports::of(fields);
    let mut task = TaskSpec::default();
    let script = runs(fields, &mut task, &mut faults);
    let is_wasm = task.wasm.is_some();
    task.env = environment(app, &ports, is_wasm);
    resources(fields, &ports, &mut task);
    let alone = text(fields, &["container", "docker", "network"]) == Some("NONE");
    if !is_wasm {
        task.limits.egress = Some(if host_network && !alone { Network::Host } else { Network::None });
        task.mounts = mounts(fields);
        if !ports.is_empty() && !host_network {
            let message =
                format!("role {role} may not have its hosts' network, which a port is of (skep roles set {role} --host-network true)");
            faults.say(if fields.contains_key("ports") { "/portDefinitions" } else { "/container/portMappings" }, message);
        }
    } else if !mounts(fields).is_empty() {
        faults.say("/container/volumes", "WebAssembly sees no files of its hosts");
    }
    let mut spec = JobSpec::default();
    (spec.name, spec.role, spec.kind, spec.count) = (Some(name), Some(role), Some(Kind::Service), Some(app.instances));
    spec.tasks = vec![task];
    restart(fields, &mut spec);
    spec.update = update(fields, &ports);
    spec.after = spec.role.as_ref().map(|role| dependencies::after(fields, role)).unwrap_or_default();
    spec.place.constraints = list(fields, "constraints").iter().filter_map(|value| constraint(&texts(value)).ok()).collect();
    spec.labels = labels(fields).into_iter().collect();
    health::apply(fields, &mut spec, &mut faults);
    let note = Value::Object(fields.clone()).to_string();
    spec.origin = Some(Origin { by: MADE_BY.into(), note });
    faults.none()?;
    Ok(Made { spec, script })
}

/// How long the tasks of an app have to stop, in milliseconds.
pub fn grace_ms(fields: &Object) -> u64 {
    let seconds = fields.get("taskKillGracePeriodSeconds").and_then(Value::as_u64);
    seconds.map_or(GRACE_MS_DEFAULT, |seconds| seconds.saturating_mul(1_000).min(crate::http::jobs::GRACE_MS_MAX))
}

/// Says what runs; gives back the script that it is, where it is one.
fn runs(fields: &Object, task: &mut TaskSpec, faults: &mut Faults) -> Option<Vec<u8>> {
    let cmd = fields.get("cmd").and_then(Value::as_str);
    let args = fields.get("args").map(texts).unwrap_or_default();
    let fetched = list(fields, "fetch").first();
    let image = text(fields, &["container", "docker", "image"]).and_then(bundle_of);
    let user = fields.get("user").and_then(Value::as_str).filter(|user| !user.is_empty());
    if let Some((digest, _)) = image {
        if fetched.is_some() {
            faults.say("/fetch", "what an image needs is in the image: nothing is fetched beside it yet");
        }
        task.image = Some(Source::Bundle(digest));
        task.user = user.map(str::to_owned);
        match cmd {
            Some(cmd) => task.command = vec!["/bin/sh".into(), "-c".into(), cmd.into()],
            None => task.args = args,
        }
        return None;
    }
    if user.is_some() {
        faults.say("/user", "a task that is no image has a user of its own: leave it out");
    }
    let Some(fetched) = fetched else {
        let Some(script) = script(cmd, &args) else {
            faults.say("/", "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'.");
            return None;
        };
        task.native = Some(Source::Bundle(Digest::of(script.as_bytes())));
        task.file = Some(SCRIPT.into());
        return Some(script.into_bytes());
    };
    let (digest, is_wasm) = fetched.get("uri").and_then(Value::as_str).and_then(bundle_of)?;
    if is_wasm || labels(fields).get(RUNTIME_LABEL).is_some_and(|runtime| runtime == "wasm") {
        if cmd.is_some() {
            faults.say("/cmd", "WebAssembly has no shell: give it args, or none");
        }
        task.wasm = Some(Source::Bundle(digest));
        task.args = args;
        return None;
    }
    task.native = Some(Source::Bundle(digest));
    task.file = fetched.get("destPath").and_then(Value::as_str).map(str::to_owned);
    match cmd {
        Some(cmd) => {
            task.command = vec!["/bin/sh".into(), "-c".into(), cmd.into()];
            task.dir = Some(BUNDLE_DIR.into());
        }
        None => task.args = args,
    }
    None
}

/// The script that is a command, or a program with its arguments; `None` where neither is said.
fn script(cmd: Option<&str>, args: &[String]) -> Option<String> {
    match (cmd, args) {
        (Some(cmd), _) => Some(format!("#!/bin/sh\n{cmd}\n")),
        (None, []) => None,
        (None, args) => {
            let quoted: Vec<String> = args.iter().map(|arg| format!("'{}'", arg.replace('\'', r"'\''"))).collect();
            Some(format!("#!/bin/sh\nexec {}\n", quoted.join(" ")))
        }
    }
}

fn resources(fields: &Object, ports: &[Port], task: &mut TaskSpec) {
    let amount = |name: &str, unit: f64| whole(fields.get(name).and_then(Value::as_f64).unwrap_or(0.0) * unit);
    let mib = f64::from(1 << 20);
    task.resources.cpu_milli = Some(amount("cpus", 1_000.0));
    task.resources.memory_bytes = Some(amount("mem", mib));
    task.resources.disk_bytes = Some(amount("disk", mib)).filter(|bytes| *bytes > 0 || task.wasm.is_none());
    let gpus = amount("gpus", 1_000.0);
    task.resources.devices = (gpus > 0).then(|| Device { name: Name::new(GPU).expect("it is a name"), milli: gpus }).into_iter().collect();
    task.resources.ports = ports.iter().map(|port| port.name.clone()).collect();
    let limit = fields.get("resourceLimits").and_then(|limits| limits.get("mem")).and_then(Value::as_f64);
    task.limits.memory_bytes = limit.map(|mem| whole(mem * mib));
}

/// The nearest whole number from 0 on.
fn whole(number: f64) -> u64 {
    // A cast of a float saturates.
    number.round().max(0.0) as u64
}

fn mounts(fields: &Object) -> Vec<HostMount> {
    let volumes = fields.get("container").and_then(|container| container.get("volumes")).and_then(Value::as_array);
    let mount = |volume: &Value| {
        let path = |name: &str| volume.get(name).and_then(Value::as_str).map(|path| path.trim_end_matches('/').to_owned());
        let writable = volume.get("mode").and_then(Value::as_str) != Some("RO");
        Some(HostMount { from: path("hostPath")?, to: path("containerPath")?, writable })
    };
    volumes.into_iter().flatten().filter_map(mount).collect()
}

fn restart(fields: &Object, spec: &mut JobSpec) {
    let ms = |name: &str| fields.get(name).and_then(Value::as_u64).unwrap_or(0).saturating_mul(1_000).max(BACKOFF_MS_MIN);
    let factor = fields.get("backoffFactor").and_then(Value::as_f64).unwrap_or(1.15);
    spec.restart.policy = Some(RestartPolicy::Always);
    spec.restart.backoff_first_ms = Some(ms("backoffSeconds"));
    spec.restart.backoff_factor_milli = u32::try_from(whole(factor * 1_000.0)).ok();
    spec.restart.backoff_max_ms = Some(ms("maxLaunchDelaySeconds").max(ms("backoffSeconds")));
}

/// How tasks are replaced: within `upgradeStrategy`, and never back by itself, as Marathon does not.
fn update(fields: &Object, ports: &[Port]) -> UpdateSpec {
    let share = |name: &str| {
        let share = fields.get("upgradeStrategy").and_then(|strategy| strategy.get(name)).and_then(Value::as_f64).unwrap_or(1.0);
        // A cast of a float saturates.
        Some((share.clamp(0.0, 1.0) * 1_000.0).ceil() as u32)
    };
    // What takes certain ports has no room beside itself.
    let is_fixed = ports.iter().any(Port::is_fixed);
    UpdateSpec {
        min_healthy_milli: share("minimumHealthCapacity"),
        max_over_milli: if is_fixed { Some(0) } else { share("maximumOverCapacity") },
        auto_rollback: Some(false),
        deadline_ms: Some(UPDATE_MS_MAX),
        failures_max: Some(FAILURES_MAX),
        settle_ms: Some(0),
        ..UpdateSpec::default()
    }
}

/// The same job with another number of tasks, as it was asked for then.
pub fn scaled(job: &Job, count: u32, at: &str) -> Job {
    let mut about = job.about.as_deref().cloned().unwrap_or_default();
    if let Some(origin) = &mut about.origin {
        let mut fields: Object = serde_json::from_str(note::app(&origin.note)).unwrap_or_default();
        let info = fields.get("versionInfo").and_then(|info| info.get("lastConfigChangeAt")).cloned();
        let info = info.unwrap_or_else(|| version(&fields).into());
        fields.insert("version".into(), at.into());
        fields.insert("versionInfo".into(), serde_json::json!({ "lastScalingAt": at, "lastConfigChangeAt": info }));
        origin.note = Value::Object(fields).to_string();
    }
    Job { count, about: Some(Arc::new(about)), ..job.clone() }
}

/// A constraint of a job.
///
/// # Errors
/// Why it is none.
pub fn constraint(parts: &[String]) -> Result<Constraint, String> {
    let (field, operator, operand) = match parts {
        [field, operator] => (field, operator, None),
        [field, operator, operand] => (field, operator, Some(operand).filter(|operand| !operand.is_empty())),
        _ => return Err("a constraint has a field, an operator, and what that takes".into()),
    };
    let needed = || operand.cloned().ok_or_else(|| format!("{operator} takes a value"));
    let number = |text: &String| text.parse::<u32>().map_err(|_| format!("{operator} takes a whole number, not {text:?}"));
    let rule = match operator.to_ascii_uppercase().as_str() {
        "UNIQUE" if operand.is_none() => Rule::Unique,
        "UNIQUE" => return Err("UNIQUE takes no value".into()),
        "CLUSTER" => Rule::Cluster(operand.cloned()),
        "GROUP_BY" => Rule::GroupBy(operand.map(number).transpose()?.unwrap_or(0)),
        "LIKE" => Rule::Like(needed()?),
        "UNLIKE" => Rule::Unlike(needed()?),
        "MAX_PER" => Rule::MaxPer(number(&needed()?)?),
        "IS" => Rule::Is(needed()?),
        other => return Err(format!("{other:?} is no operator: UNIQUE, CLUSTER, GROUP_BY, LIKE, UNLIKE, MAX_PER or IS")),
    };
    Ok(Constraint { field: Field::named(field), rule })
}

fn labels(fields: &Object) -> BTreeMap<String, String> {
    let labels = fields.get("labels").and_then(Value::as_object).into_iter().flatten();
    labels.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

/// What an app says, and what Marathon tells a task of itself (`docs/docs/task-environment-vars.md` of Marathon). What the app says goes first.
fn environment(app: &App, ports: &[Port], is_wasm: bool) -> Vec<(String, String)> {
    let fields = &app.fields;
    let mut env = BTreeMap::new();
    let mut put = |name: String, value: String| drop(env.insert(name, value));
    put("MARATHON_APP_ID".into(), app.id.to_string());
    put("MARATHON_APP_VERSION".into(), version(fields).to_owned());
    if let Some(image) = text(fields, &["container", "docker", "image"]) {
        put("MARATHON_APP_DOCKER_IMAGE".into(), image.to_owned());
    }
    for (name, field) in [("CPUS", "cpus"), ("MEM", "mem"), ("DISK", "disk"), ("GPUS", "gpus")] {
        let amount = fields.get(field).and_then(Value::as_f64).unwrap_or(0.0);
        put(format!("MARATHON_APP_RESOURCE_{name}"), format!("{amount:?}"));
    }
    let labels = labels(fields);
    let told = |(name, value): &(&String, &String)| name.len() <= LABEL_TOLD_BYTES_MAX && value.len() <= LABEL_TOLD_BYTES_MAX;
    let told: Vec<_> = labels.iter().filter(told).map(|(name, value)| (variable(name), value)).collect();
    put("MARATHON_APP_LABELS".into(), told.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" "));
    for (name, value) in told {
        put(format!("MARATHON_APP_LABEL_{name}"), value.clone());
    }
    put("MESOS_TASK_ID".into(), task_id_gap(&app.id.task_prefix()));
    put("HOST".into(), "${agent}".into());
    if !is_wasm {
        put("MESOS_SANDBOX".into(), SANDBOX_DIR.into());
    }
    let gap = |port: &Port| format!("${{port.{}}}", port.name);
    for (at, port) in ports.iter().enumerate() {
        put(format!("PORT{at}"), gap(port));
        // As those expect it who know an app by the port that they asked for.
        if port.service > 0 {
            put(format!("PORT_{}", port.service), gap(port));
        }
        if let Some(label) = &port.label {
            put(format!("PORT_{}", variable(label)), gap(port));
        }
    }
    if let Some(first) = ports.first() {
        put("PORT".into(), gap(first));
        put("PORTS".into(), ports.iter().map(gap).collect::<Vec<_>>().join(","));
    }
    for (name, value) in fields.get("env").and_then(Value::as_object).into_iter().flatten() {
        if let Some(value) = value.as_str() {
            put(name.clone(), value.to_owned());
        }
    }
    env.into_iter().collect()
}

/// A name as it can stand in that of a variable.
fn variable(name: &str) -> String {
    let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' };
    name.chars().map(letter).collect()
}

/// Which version of an app its tasks run: when it was last changed otherwise than in its number of tasks.
pub fn version(fields: &Object) -> &str {
    let version = fields.get("versionInfo").and_then(|info| info.get("lastConfigChangeAt")).or_else(|| fields.get("version"));
    version.and_then(Value::as_str).unwrap_or("")
}

fn text<'a>(fields: &'a Object, path: &[&str]) -> Option<&'a str> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(fields.get(*first)?, |value, name| value.get(name))?.as_str()
}

fn list<'a>(fields: &'a Object, name: &str) -> &'a [Value] {
    fields.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests;
