//! A job as people write it, read but not yet judged: every field of a job file that this version knows, `None` where it was left out.
//!
//! Knows how to write itself as JSON. How it is read from text is `read`'s, what it means is `job`'s.

use super::update::UpdateSpec;
use protocol::job::{HostMount, Network, Origin, RestartPolicy};
use protocol::{Constraint, Digest, Field, Kind, Name, Role, resources::Device};
use serde_json::{Map, Value, json};
use std::ops::Range;

/// A job as people write it. Built by [`super::parse`] or in code; the empty one lacks only its task.
#[derive(Clone, Debug, Default)]
pub struct JobSpec {
    /// `name`: unique in its role.
    pub name: Option<Name>,
    /// `role`: whom its resources are counted for.
    pub role: Option<Role>,
    /// `priority`, 0 to 100.
    pub priority: Option<u8>,
    /// `kind`; guessed where it is left out.
    pub kind: Option<Kind>,
    /// `runtime = "strict"`: an executor of its own.
    pub strict: bool,
    /// `count`: how many tasks.
    pub count: Option<u32>,
    /// True where its tasks are written as `[[task]]`: a group, each with `resources` and `limits` of its own.
    pub group: bool,
    /// `[task]` with `[resources]` and `[limits]`, or each `[[task]]`.
    pub tasks: Vec<TaskSpec>,
    /// `[restart]`, or its policy alone.
    pub restart: RestartSpec,
    /// `[update]`.
    pub update: UpdateSpec,
    /// `service.after`: services of its role that it begins after.
    pub after: Vec<Name>,
    /// `service.fenced`: of its one task never two attempts are alive at once.
    pub fenced: bool,
    /// `[place]`.
    pub place: PlaceSpec,
    /// `[labels]`, sorted by name.
    pub labels: Vec<(String, String)>,
    /// What made it of what; no text says that.
    pub origin: Option<Origin>,
    /// Where in the source the fields stand that were read from one.
    pub(super) places: Vec<Place>,
}

/// Where a field stands in its source; line and column as a problem has them.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) field: String,
    pub(super) span: Range<usize>,
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A file that a job needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file where the job file is: uploaded by the command line, unknown to a master.
    File(String),
    /// Uploaded: `sha256:…`.
    Bundle(Digest),
}

/// `[task]`, or one `[[task]]`.
#[derive(Clone, Debug, Default)]
pub struct TaskSpec {
    /// `name`: what it is called in its group.
    pub name: Option<Name>,
    /// `wasm`: a module or component.
    pub wasm: Option<Source>,
    /// `native`: an executable, a script, an archive of a folder, or with `command` any file.
    pub native: Option<Source>,
    /// `image`: an archive of an OCI layout, or one that `docker save` wrote.
    pub image: Option<Source>,
    /// `file`: what a native bundle of one file is called inside.
    pub file: Option<String>,
    /// `command`: the program inside, and what stands before the arguments.
    pub command: Vec<String>,
    /// `args`, without the program's own name.
    pub args: Vec<String>,
    /// `env`, sorted by name.
    pub env: Vec<(String, String)>,
    /// `config`: what `wasi:config` answers, sorted by name.
    pub config: Vec<(String, String)>,
    /// `stdin`: what standard input reads.
    pub stdin: Option<Source>,
    /// `user`: who it is inside.
    pub user: Option<String>,
    /// `dir`: its working directory inside.
    pub dir: Option<String>,
    /// `stop_signal`: what asks it to stop.
    pub stop_signal: Option<u8>,
    /// `mount`: parts of the host that it sees.
    pub mounts: Vec<HostMount>,
    /// `[resources]`, or its own.
    pub resources: ResourcesSpec,
    /// `[limits]`, or its own.
    pub limits: LimitsSpec,
    /// `[health]`, or its own.
    pub health: Option<CheckSpec>,
    /// `[readiness]`, or its own.
    pub readiness: Option<CheckSpec>,
}

/// `[health]` or `[readiness]`: one of the first five, and when it is asked.
#[derive(Clone, Debug, Default)]
pub struct CheckSpec {
    /// `http`: the path of a `GET`.
    pub http: Option<String>,
    /// `https`: the same over TLS.
    pub https: Option<String>,
    /// `tcp`: the port that takes a connection.
    pub tcp: Option<Name>,
    /// `exec`: a program beside the task, with its arguments.
    pub exec: Vec<String>,
    /// `wasm`: an export of the task's program.
    pub wasm: Option<String>,
    /// `port` of `http` and `https`; the first one where it is left out.
    pub port: Option<Name>,
    /// `grace`.
    pub grace_ms: Option<u64>,
    /// `every`.
    pub every_ms: Option<u64>,
    /// `timeout`.
    pub timeout_ms: Option<u64>,
    /// `failures`; 0 ends nothing.
    pub failures: Option<u32>,
    /// `delay`.
    pub delay_ms: Option<u64>,
    /// `ignore_1xx` of `http` and `https`.
    pub ignore_1xx: Option<bool>,
}

/// `[resources]`.
#[derive(Clone, Debug, Default)]
pub struct ResourcesSpec {
    /// `cpu`, in thousandths of a core.
    pub cpu_milli: Option<u64>,
    /// `memory`.
    pub memory_bytes: Option<u64>,
    /// `disk`.
    pub disk_bytes: Option<u64>,
    /// `ports`: their names.
    pub ports: Vec<Name>,
    /// `devices`, sorted by name.
    pub devices: Vec<Device>,
    /// `revocable`: its cores and memory are lent, and it may be ended at any moment.
    pub revocable: bool,
}

/// `[limits]`.
#[derive(Clone, Debug, Default)]
pub struct LimitsSpec {
    /// `fuel`: wasm instructions.
    pub fuel: Option<u64>,
    /// `cpu_time`: running time; counted by epoch ticks instead of fuel.
    pub cpu_time_ms: Option<u64>,
    /// `time`: wall clock.
    pub time_ms: Option<u64>,
    /// `memory`.
    pub memory_bytes: Option<u64>,
    /// `tables`: elements of each table.
    pub table_elements: Option<u32>,
    /// `host`: what one host call may allocate.
    pub host_bytes: Option<u64>,
    /// `processes`: processes and threads.
    pub processes: Option<u32>,
    /// `log`: output kept.
    pub log_bytes: Option<u64>,
    /// `log_rate`: output a second.
    pub log_bytes_per_s: Option<u64>,
    /// `egress`: what it can reach.
    pub egress: Option<Network>,
}

/// `[restart]`.
#[derive(Clone, Debug, Default)]
pub struct RestartSpec {
    /// `policy`.
    pub policy: Option<RestartPolicy>,
    /// `retries`.
    pub retries: Option<u32>,
    /// `backoff.first`.
    pub backoff_first_ms: Option<u64>,
    /// `backoff.factor`, in thousandths.
    pub backoff_factor_milli: Option<u32>,
    /// `backoff.max`.
    pub backoff_max_ms: Option<u64>,
}

/// `[place]`.
#[derive(Clone, Debug, Default)]
pub struct PlaceSpec {
    /// `constraints`: what each agent with a task must be.
    pub constraints: Vec<Constraint>,
    /// `spread`: over the values of what tasks are spread.
    pub spread: Vec<Field>,
}

impl JobSpec {
    /// The files that its tasks run and read, and how their fields are named.
    pub fn sources(&mut self) -> Vec<(String, &mut Source)> {
        let mut found = Vec::new();
        for (at, task) in self.tasks.iter_mut().enumerate() {
            let sources = [("wasm", &mut task.wasm), ("native", &mut task.native), ("image", &mut task.image), ("stdin", &mut task.stdin)];
            found.extend(sources.into_iter().filter_map(|(name, source)| Some((field(self.group, at, name), source.as_mut()?))));
        }
        found
    }

    /// True where its tasks may not go everywhere, or not equally.
    #[must_use]
    pub fn has_place(&self) -> bool {
        !self.place.constraints.is_empty() || !self.place.spread.is_empty()
    }

    /// How the fields of the task `at` are named: `task.wasm`, or `task.1.wasm` in a group.
    pub(super) fn field(&self, at: usize, name: &str) -> String {
        field(self.group, at, name)
    }

    /// Where `field` stands in the source it was read from.
    pub(super) fn place(&self, field: &str) -> Option<&Place> {
        self.places.iter().find(|place| place.field == field)
    }

    /// Fills in lines and columns, in one pass over the source.
    pub(super) fn locate(&mut self, source: &str) {
        self.places.sort_by_key(|place| place.span.start);
        let (mut line, mut column, mut at) = (1, 1, 0);
        for place in &mut self.places {
            for c in source.get(at..place.span.start).unwrap_or("").chars() {
                (line, column) = if c == '\n' { (line + 1, 1) } else { (line, column + 1) };
            }
            at = place.span.start;
            (place.line, place.column) = (line, column);
        }
    }

    /// The same as JSON, as [`super::parse`] reads it: amounts as text, so that no reader of JSON rounds them.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut job = Map::new();
        put(&mut job, "name", self.name.as_ref().map(|name| Value::from(name.as_str())));
        put(&mut job, "role", self.role.as_ref().map(|role| Value::from(role.as_str())));
        put(&mut job, "priority", self.priority.map(Value::from));
        put(&mut job, "kind", self.kind.map(|kind| Value::from(kind_name(kind))));
        put(&mut job, "runtime", self.strict.then(|| Value::from("strict")));
        put(&mut job, "count", self.count.map(Value::from));
        if self.group {
            let member = |task: &TaskSpec| {
                let mut value = task.to_map();
                put(&mut value, "resources", task.resources.to_value());
                put(&mut value, "limits", task.limits.to_value());
                put(&mut value, "health", task.health.as_ref().map(CheckSpec::to_value));
                put(&mut value, "readiness", task.readiness.as_ref().map(CheckSpec::to_value));
                Value::Object(value)
            };
            put(&mut job, "task", Some(self.tasks.iter().map(member).collect()));
        } else if let Some(task) = self.tasks.first() {
            put(&mut job, "task", Some(Value::Object(task.to_map())));
            put(&mut job, "resources", task.resources.to_value());
            put(&mut job, "limits", task.limits.to_value());
            put(&mut job, "health", task.health.as_ref().map(CheckSpec::to_value));
            put(&mut job, "readiness", task.readiness.as_ref().map(CheckSpec::to_value));
        }
        put(&mut job, "restart", self.restart.to_value());
        put(&mut job, "update", self.update.to_value());
        let mut service = Map::new();
        put(&mut service, "fenced", self.fenced.then(|| Value::from(true)));
        put(&mut service, "after", (!self.after.is_empty()).then(|| self.after.iter().map(Name::as_str).collect()));
        put(&mut job, "service", unless_empty(service));
        put(&mut job, "place", self.place.to_value());
        put(&mut job, "labels", of_pairs(&self.labels));
        Value::Object(job).to_string()
    }
}

fn field(group: bool, at: usize, name: &str) -> String {
    match (group, ["resources", "limits", "health", "readiness"].iter().any(|table| name.starts_with(table))) {
        (true, _) => format!("task.{at}.{name}"),
        (false, true) => name.to_owned(),
        (false, false) => format!("task.{name}"),
    }
}

pub(super) fn put(map: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        map.insert(key.to_owned(), value);
    }
}

pub(super) fn unless_empty(map: Map<String, Value>) -> Option<Value> {
    (!map.is_empty()).then_some(Value::Object(map))
}

fn of_pairs(pairs: &[(String, String)]) -> Option<Value> {
    unless_empty(pairs.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect())
}

/// As it is written in a job file.
pub(super) const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Batch => "batch",
        Kind::Service => "service",
        Kind::Task => "task",
        Kind::System => "system",
    }
}

/// As it is written in a job file.
pub(super) const fn policy_name(policy: RestartPolicy) -> &'static str {
    match policy {
        RestartPolicy::Always => "always",
        RestartPolicy::OnFailure => "on-failure",
        RestartPolicy::Never => "never",
    }
}

/// As it is written in a job file.
pub(super) const fn network_name(network: Network) -> &'static str {
    match network {
        Network::None => "none",
        Network::Host => "host",
    }
}

impl Source {
    fn to_value(&self) -> Value {
        match self {
            Self::File(path) => Value::from(path.as_str()),
            Self::Bundle(digest) => Value::from(format!("sha256:{digest}")),
        }
    }
}

impl TaskSpec {
    fn to_map(&self) -> Map<String, Value> {
        let mut task = Map::new();
        let texts = |texts: &[String]| (!texts.is_empty()).then(|| Value::from(texts.to_vec()));
        put(&mut task, "name", self.name.as_ref().map(|name| Value::from(name.as_str())));
        for (field, source) in [("wasm", &self.wasm), ("native", &self.native), ("image", &self.image), ("stdin", &self.stdin)] {
            put(&mut task, field, source.as_ref().map(Source::to_value));
        }
        put(&mut task, "file", self.file.clone().map(Value::from));
        put(&mut task, "command", texts(&self.command));
        put(&mut task, "args", texts(&self.args));
        put(&mut task, "env", of_pairs(&self.env));
        put(&mut task, "config", of_pairs(&self.config));
        put(&mut task, "user", self.user.clone().map(Value::from));
        put(&mut task, "dir", self.dir.clone().map(Value::from));
        put(&mut task, "stop_signal", self.stop_signal.map(Value::from));
        let mount = |mount: &HostMount| json!({ "host": mount.from, "to": mount.to, "writable": mount.writable });
        put(&mut task, "mount", (!self.mounts.is_empty()).then(|| self.mounts.iter().map(mount).collect()));
        task
    }
}

/// Thousandths as people write them.
pub(super) fn milli(amount: u64) -> Value {
    Value::from(format!("{}.{:03}", amount / 1_000, amount % 1_000))
}

fn bytes(amount: u64) -> Value {
    Value::from(format!("{amount}B"))
}

pub(super) fn millis(amount: u64) -> Value {
    Value::from(format!("{amount}ms"))
}

impl ResourcesSpec {
    fn to_value(&self) -> Option<Value> {
        let mut resources = Map::new();
        put(&mut resources, "cpu", self.cpu_milli.map(milli));
        put(&mut resources, "memory", self.memory_bytes.map(bytes));
        put(&mut resources, "disk", self.disk_bytes.map(bytes));
        let ports: Vec<&str> = self.ports.iter().map(Name::as_str).collect();
        put(&mut resources, "ports", (!ports.is_empty()).then(|| Value::from(ports)));
        let devices = self.devices.iter().map(|device| (device.name.to_string(), milli(device.milli))).collect();
        put(&mut resources, "devices", unless_empty(devices));
        put(&mut resources, "revocable", self.revocable.then(|| Value::from(true)));
        unless_empty(resources)
    }
}

impl LimitsSpec {
    fn to_value(&self) -> Option<Value> {
        let mut limits = Map::new();
        put(&mut limits, "fuel", self.fuel.map(|fuel| Value::from(fuel.to_string())));
        put(&mut limits, "cpu_time", self.cpu_time_ms.map(millis));
        put(&mut limits, "time", self.time_ms.map(millis));
        put(&mut limits, "memory", self.memory_bytes.map(bytes));
        put(&mut limits, "tables", self.table_elements.map(Value::from));
        put(&mut limits, "host", self.host_bytes.map(bytes));
        put(&mut limits, "processes", self.processes.map(Value::from));
        put(&mut limits, "log", self.log_bytes.map(bytes));
        put(&mut limits, "log_rate", self.log_bytes_per_s.map(bytes));
        put(&mut limits, "egress", self.egress.map(|network| Value::from(network_name(network))));
        unless_empty(limits)
    }
}

impl CheckSpec {
    fn to_value(&self) -> Value {
        let mut check = Map::new();
        let name = |name: &Option<Name>| name.as_ref().map(|name| Value::from(name.as_str()));
        for (field, text) in [("http", &self.http), ("https", &self.https), ("wasm", &self.wasm)] {
            put(&mut check, field, text.clone().map(Value::from));
        }
        put(&mut check, "tcp", name(&self.tcp));
        put(&mut check, "exec", (!self.exec.is_empty()).then(|| Value::from(self.exec.clone())));
        put(&mut check, "port", name(&self.port));
        for (field, ms) in [("delay", self.delay_ms), ("grace", self.grace_ms), ("every", self.every_ms), ("timeout", self.timeout_ms)] {
            put(&mut check, field, ms.map(millis));
        }
        put(&mut check, "failures", self.failures.map(Value::from));
        put(&mut check, "ignore_1xx", self.ignore_1xx.map(Value::from));
        Value::Object(check)
    }
}

impl PlaceSpec {
    fn to_value(&self) -> Option<Value> {
        let mut place = Map::new();
        let constraint = |constraint: &Constraint| -> Value {
            let parts = [Some(constraint.field.name().to_owned()), Some(constraint.rule.name().to_owned()), constraint.rule.operand()];
            parts.into_iter().flatten().collect()
        };
        put(&mut place, "constraints", (!self.constraints.is_empty()).then(|| self.constraints.iter().map(constraint).collect()));
        put(&mut place, "spread", (!self.spread.is_empty()).then(|| self.spread.iter().map(Field::name).collect()));
        unless_empty(place)
    }
}

impl RestartSpec {
    fn to_value(&self) -> Option<Value> {
        let (mut restart, mut backoff) = (Map::new(), Map::new());
        put(&mut restart, "policy", self.policy.map(|policy| Value::from(policy_name(policy))));
        put(&mut restart, "retries", self.retries.map(Value::from));
        put(&mut backoff, "first", self.backoff_first_ms.map(millis));
        put(&mut backoff, "factor", self.backoff_factor_milli.map(|factor| milli(u64::from(factor))));
        put(&mut backoff, "max", self.backoff_max_ms.map(millis));
        put(&mut restart, "backoff", unless_empty(backoff));
        unless_empty(restart)
    }
}
