//! What a [`JobSpec`] means: every default and every bound of a job, and the [`Job`] that comes of one within them.
//!
//! Knows no text and no place in it beyond the spans that the spec carries.

use super::problem::{Code, PROBLEMS_MAX, Problem, quoted};
use super::spec::{JobSpec, Source};
use super::wasm::{Inspection, Rejection};
use protocol::ids::ROLE_DEFAULT;
use protocol::job::{COUNT_MAX, PRIORITY_MAX, RestartPolicy};
use protocol::resources::{DEVICES_MAX, PORTS_PER_TASK_MAX};
use protocol::{Digest, Job, Kind, Limits, Metering, Name, Program, Resources, Restart, Template};
use std::sync::Arc;

/// Priority of a job that names none.
pub const PRIORITY_DEFAULT: u8 = 50;
/// A task's share of a core, in thousandths, where its job names none.
pub const CPU_MILLI_DEFAULT: u64 = 100;
/// Most thousandths of a core for one task.
pub const CPU_MILLI_MAX: u64 = 4_096_000;
/// A task's memory, promised and at most, where its job names none.
pub const MEMORY_BYTES_DEFAULT: u64 = 64 << 20;
/// Least memory of a task: one wasm page.
pub const MEMORY_BYTES_MIN: u64 = 1 << 16;
/// Most memory of a task: what 32 bits address.
pub const MEMORY_BYTES_MAX: u64 = 4 << 30;
/// Most disk of a task.
pub const DISK_BYTES_MAX: u64 = 1 << 50;
/// Most of one device for one task, in thousandths.
pub const DEVICE_MILLI_MAX: u64 = 1_024_000;
/// Instructions of a task of a batch job that names no limit of fuel or CPU time: some ten minutes of a core. A service has no limit
/// then, since it is meant to go on.
pub const FUEL_DEFAULT: u64 = 1_000_000_000_000;
/// Longest time that can be named: ten years. There is no limit of wall-clock time where none is named.
pub const TIME_MS_MAX: u64 = 10 * 366 * 86_400_000;
/// Elements of each table, at most and where none is named: what an executor's pool has.
pub const TABLE_ELEMENTS_MAX: u32 = 20_000;
/// What one host call may allocate where nothing is named.
pub const HOST_BYTES_DEFAULT: u64 = 8 << 20;
/// Least of it: what the arguments of a job may take.
pub const HOST_BYTES_MIN: u64 = 1 << 18;
/// Most of it.
pub const HOST_BYTES_MAX: u64 = 64 << 20;
/// Output kept where nothing is named.
pub const LOG_BYTES_DEFAULT: u64 = 1 << 20;
/// Least of it.
pub const LOG_BYTES_MIN: u64 = 4 << 10;
/// Most of it.
pub const LOG_BYTES_MAX: u64 = 1 << 30;
/// Most arguments.
pub const ARGS_MAX: usize = 1_024;
/// Most variables of an environment, and most values of a config.
pub const PAIRS_MAX: usize = 256;
/// Longest name of either.
pub const PAIR_NAME_BYTES_MAX: usize = 256;
/// Most bytes of arguments, environment and config together.
pub const TEXT_BYTES_MAX: usize = 128 << 10;
/// How often a task of a batch job is tried again where its job says `on-failure` and no number. A service is tried for ever.
pub const RETRIES_DEFAULT: u32 = 3;
/// Most retries that can be named.
pub const RETRIES_MAX: u32 = 1_000_000;
/// The first wait before a restart where none is named, in milliseconds.
pub const BACKOFF_FIRST_MS_DEFAULT: u64 = 1_000;
/// Least of it: below, a task that ends at once is a load of its own.
pub const BACKOFF_FIRST_MS_MIN: u64 = 10;
/// What each further wait is multiplied with where nothing is named, in thousandths.
pub const BACKOFF_FACTOR_MILLI_DEFAULT: u32 = 1_150;
/// Most of it.
pub const BACKOFF_FACTOR_MILLI_MAX: u32 = 100_000;
/// The longest wait where none is named, in milliseconds.
pub const BACKOFF_MS_DEFAULT: u64 = 300_000;
/// The longest wait that can be named, in milliseconds: a day.
pub const BACKOFF_MS_MAX: u64 = 86_400_000;

/// All reasons against `spec` that need no bundle to be seen.
pub(super) fn judge(spec: &JobSpec) -> Vec<Problem> {
    let mut judge = Judge { spec, problems: Vec::new() };
    judge.whole();
    judge.texts();
    judge.resources();
    judge.limits();
    judge.restart();
    judge.problems
}

/// The job that `spec` describes, with every default filled in; or all reasons against it.
///
/// `bundles` says what was uploaded under a digest: nothing, wasm that can run, or something else and why it cannot.
///
/// # Errors
/// All problems at once, up to [`PROBLEMS_MAX`].
pub fn admit(spec: JobSpec, bundles: &impl Fn(Digest) -> Option<Result<Inspection, Rejection>>) -> Result<Job, Vec<Problem>> {
    let mut problems = judge(&spec);
    let mut judge = Judge { spec: &spec, problems: Vec::new() };
    let program = judge.bundle("task.wasm", spec.task.wasm.as_ref());
    let stdin = judge.bundle("task.stdin", spec.task.stdin.as_ref());
    match program.map(|digest| (digest, bundles(digest))) {
        Some((digest, None)) => judge.not_uploaded("task.wasm", digest),
        Some((_, Some(Err(rejection)))) => judge.push(rejection.to_problem("task.wasm")),
        Some((_, Some(Ok(inspection)))) => judge.fits(inspection),
        None => {}
    }
    if let Some(digest) = stdin.filter(|digest| bundles(*digest).is_none()) {
        judge.not_uploaded("task.stdin", digest);
    }
    problems.append(&mut judge.problems);
    problems.truncate(PROBLEMS_MAX);
    match program {
        Some(bundle) if problems.is_empty() => Ok(build(spec, bundle, stdin)),
        _ => Err(problems),
    }
}

/// The kind that `spec` names or that is guessed: a service restarts always, has ports or is updated part by part; all else is a batch.
fn kind(spec: &JobSpec) -> Kind {
    let goes_on = spec.restart.policy == Some(RestartPolicy::Always) || !spec.resources.ports.is_empty() || spec.update_parallel.is_some();
    let guess = if goes_on && spec.restart.policy != Some(RestartPolicy::Never) { Kind::Service } else { Kind::Batch };
    spec.kind.unwrap_or(guess)
}

/// What is promised and what is allowed: each is the other where only one is named.
fn memory_bytes(spec: &JobSpec) -> (u64, u64) {
    let promised = spec.resources.memory_bytes.or(spec.limits.memory_bytes).unwrap_or(MEMORY_BYTES_DEFAULT);
    (promised, spec.limits.memory_bytes.unwrap_or(promised))
}

fn resources(spec: &JobSpec) -> Resources {
    Resources {
        cpu_milli: spec.resources.cpu_milli.unwrap_or(CPU_MILLI_DEFAULT),
        memory_bytes: memory_bytes(spec).0,
        disk_bytes: spec.resources.disk_bytes.unwrap_or(0),
        ports: u32::try_from(spec.resources.ports.len()).unwrap_or(u32::MAX),
        devices: spec.resources.devices.clone(),
    }
}

/// A judged spec as a job.
fn build(spec: JobSpec, bundle: Digest, stdin: Option<Digest>) -> Job {
    let (kind, resources, memory) = (kind(&spec), resources(&spec), memory_bytes(&spec).1);
    let metering = if spec.limits.cpu_time_ms.is_some() { Metering::Epoch } else { Metering::Fuel };
    let fuel_default = (kind == Kind::Batch && metering == Metering::Fuel).then_some(FUEL_DEFAULT);
    let limits = Limits {
        fuel_max: spec.limits.fuel.or(fuel_default),
        cpu_time_ms_max: spec.limits.cpu_time_ms,
        time_ms_max: spec.limits.time_ms,
        memory_bytes_max: memory,
        table_elements_max: spec.limits.table_elements.unwrap_or(TABLE_ELEMENTS_MAX),
        host_bytes_max: spec.limits.host_bytes.unwrap_or(HOST_BYTES_DEFAULT),
        log_bytes_max: spec.limits.log_bytes.unwrap_or(LOG_BYTES_DEFAULT),
    };
    let restart = restart(&spec, kind);
    let template = Template {
        program: Program::Wasm { bundle, metering, strict: spec.strict },
        args: spec.task.args,
        env: spec.task.env,
        config: spec.task.config,
        stdin,
        resources,
        ports: spec.resources.ports,
        limits,
    };
    Job {
        role: spec.role.unwrap_or_else(|| Name::new(ROLE_DEFAULT).expect("the default role is a name")),
        name: spec.name,
        kind,
        priority: spec.priority.unwrap_or(PRIORITY_DEFAULT),
        count: spec.count.unwrap_or(1),
        template: Arc::new(template),
        restart,
        update_parallel: spec.update_parallel.unwrap_or(1),
    }
}

fn restart(spec: &JobSpec, kind: Kind) -> Restart {
    let by_kind = match kind {
        Kind::Batch => RestartPolicy::Never,
        Kind::Service => RestartPolicy::Always,
    };
    let policy = spec.restart.policy.unwrap_or(by_kind);
    let retries_default = (kind == Kind::Batch && policy == RestartPolicy::OnFailure).then_some(RETRIES_DEFAULT);
    Restart {
        policy,
        retries_max: spec.restart.retries.or(retries_default),
        backoff_first_ms: spec.restart.backoff_first_ms.unwrap_or(BACKOFF_FIRST_MS_DEFAULT),
        backoff_factor_milli: spec.restart.backoff_factor_milli.unwrap_or(BACKOFF_FACTOR_MILLI_DEFAULT),
        backoff_max_ms: spec.restart.backoff_max_ms.unwrap_or(BACKOFF_MS_DEFAULT),
    }
}

struct Judge<'a> {
    spec: &'a JobSpec,
    problems: Vec<Problem>,
}

impl Judge<'_> {
    fn push(&mut self, problem: Problem) {
        if self.problems.len() < PROBLEMS_MAX {
            let place = self.spec.place(&problem.field);
            let (line, column) = place.map_or((0, 0), |place| (place.line, place.column));
            self.problems.push(Problem { span: place.map(|place| place.span.clone()), line, column, ..problem });
        }
    }

    fn say(&mut self, code: Code, field: &str, message: String) {
        self.push(Problem::new(code, field, message));
    }

    /// Says so where the amount is named and not from `min` to `max`.
    fn within<T: PartialOrd + Copy>(&mut self, field: &str, amount: Option<T>, (min, max): (T, T), show: fn(T) -> String) {
        if let Some(amount) = amount.filter(|amount| *amount < min) {
            self.say(Code::BadValue, field, format!("{} is too little: at least {}", show(amount), show(min)));
        }
        if let Some(amount) = amount.filter(|amount| *amount > max) {
            self.say(Code::TooLarge, field, format!("{} is too much: at most {}", show(amount), show(max)));
        }
    }

    fn whole(&mut self) {
        let spec = self.spec;
        if spec.task.wasm.is_none() {
            let problem = Problem::new(Code::Missing, "task.wasm", "the job does not say what runs");
            self.push(problem.with_help("name a .wasm file: [task] wasm = \"hello.wasm\""));
        }
        self.within("priority", spec.priority, (0, PRIORITY_MAX), |priority| priority.to_string());
        let least = if kind(spec) == Kind::Batch { 1 } else { 0 };
        self.within("count", spec.count, (least, COUNT_MAX), |count| count.to_string());
        self.within("update.parallel", spec.update_parallel, (1, COUNT_MAX), |count| count.to_string());
        if resources(spec).checked_mul(spec.count.unwrap_or(1)).is_none() {
            let message = "so many tasks with these resources are more than can be counted";
            self.say(Code::TooLarge, "count", message.to_owned());
        }
    }

    fn texts(&mut self) {
        let task = &self.spec.task;
        if task.args.len() > ARGS_MAX {
            self.say(Code::TooLarge, "task.args", format!("{} arguments: at most {ARGS_MAX}", task.args.len()));
        }
        if task.args.iter().any(|arg| arg.contains('\0')) {
            self.say(Code::BadValue, "task.args", "an argument cannot hold a NUL character".to_owned());
        }
        self.pairs("task.env", &task.env);
        self.pairs("task.config", &task.config);
        let args = task.args.iter().map(|arg| ("task.args", arg));
        let env = task.env.iter().map(|(_, value)| ("task.env", value));
        let config = task.config.iter().map(|(_, value)| ("task.config", value));
        for (field, text) in args.chain(env).chain(config) {
            self.names_in(field, text);
        }
        let pair_bytes = |pairs: &[(String, String)]| pairs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let arg_bytes = task.args.iter().map(String::len).sum::<usize>();
        let sizes = [("task.args", arg_bytes), ("task.env", pair_bytes(&task.env)), ("task.config", pair_bytes(&task.config))];
        let total: usize = sizes.iter().map(|(_, bytes)| bytes).sum();
        if total > TEXT_BYTES_MAX {
            let (field, _) = sizes.into_iter().max_by_key(|(_, bytes)| *bytes).unwrap_or(("task", 0));
            let message = format!("arguments, environment and config have {total} bytes together: at most {TEXT_BYTES_MAX}");
            self.say(Code::TooLarge, field, message);
        }
    }

    fn pairs(&mut self, field: &'static str, pairs: &[(String, String)]) {
        if pairs.len() > PAIRS_MAX {
            self.say(Code::TooLarge, field, format!("{} of them: at most {PAIRS_MAX}", pairs.len()));
        }
        for (name, value) in pairs {
            let wrong = match name {
                name if name.is_empty() => "the empty name names nothing",
                name if name.contains('=') => "a name cannot hold '='",
                name if name.chars().any(char::is_control) => "a name cannot hold control characters",
                name if name.len() > PAIR_NAME_BYTES_MAX => "the name is longer than 256 bytes",
                _ if value.contains('\0') => "the value cannot hold a NUL character",
                _ => continue,
            };
            self.say(Code::BadValue, field, format!("{}: {wrong}", quoted(name)));
        }
        // Sorted when read; a spec built in code may have one twice.
        if pairs.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            self.say(Code::DuplicateField, field, "a name stands twice, or they are not sorted".to_owned());
        }
    }

    /// Says so where `${port.X}` or `${task.X}` in `text` stands for nothing. Any other `${…}` is left to the task.
    fn names_in(&mut self, field: &str, text: &str) {
        for after in text.split("${").skip(1) {
            let Some((name, _)) = after.split_once('}') else { continue };
            let problem = |message: &str| Problem::new(Code::BadValue, field, format!("{}: {message}", quoted(name)));
            if let Some(port) = name.strip_prefix("port.") {
                if !self.spec.resources.ports.iter().any(|known| known.as_str() == port) {
                    self.push(problem("the job has no such port").with_help("name it in resources.ports"));
                }
            } else if name.starts_with("task.") && name != "task.index" && name != "task.attempt" {
                self.push(problem("a task has no such value").with_help("there are ${task.index} and ${task.attempt}"));
            }
        }
    }

    fn resources(&mut self) {
        let resources = &self.spec.resources;
        self.within("resources.cpu", resources.cpu_milli, (1, CPU_MILLI_MAX), cores);
        self.within("resources.memory", resources.memory_bytes, (MEMORY_BYTES_MIN, MEMORY_BYTES_MAX), size);
        self.within("resources.disk", resources.disk_bytes, (0, DISK_BYTES_MAX), size);
        if resources.ports.len() > usize::from(PORTS_PER_TASK_MAX) {
            self.say(Code::TooLarge, "resources.ports", format!("{} ports: at most {PORTS_PER_TASK_MAX}", resources.ports.len()));
        }
        let mut names: Vec<&Name> = resources.ports.iter().collect();
        names.sort();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            self.say(Code::DuplicateField, "resources.ports", format!("'{}' stands there twice", pair[0]));
        }
        if resources.devices.len() > DEVICES_MAX {
            self.say(Code::TooLarge, "resources.devices", format!("{} kinds: at most {DEVICES_MAX}", resources.devices.len()));
        }
        for device in &resources.devices {
            self.within("resources.devices", Some(device.milli), (1, DEVICE_MILLI_MAX), cores);
        }
        if resources.devices.windows(2).any(|pair| pair[0].name >= pair[1].name) {
            self.say(Code::DuplicateField, "resources.devices", "a kind stands twice, or they are not sorted".to_owned());
        }
    }

    fn limits(&mut self) {
        let limits = &self.spec.limits;
        self.within("limits.fuel", limits.fuel, (1, u64::MAX), |fuel| fuel.to_string());
        self.within("limits.cpu_time", limits.cpu_time_ms, (1, TIME_MS_MAX), millis);
        self.within("limits.time", limits.time_ms, (1, TIME_MS_MAX), millis);
        self.within("limits.memory", limits.memory_bytes, (MEMORY_BYTES_MIN, MEMORY_BYTES_MAX), size);
        self.within("limits.tables", limits.table_elements, (0, TABLE_ELEMENTS_MAX), |count| count.to_string());
        self.within("limits.host", limits.host_bytes, (HOST_BYTES_MIN, HOST_BYTES_MAX), size);
        self.within("limits.log", limits.log_bytes, (LOG_BYTES_MIN, LOG_BYTES_MAX), size);
        let (promised, most) = memory_bytes(self.spec);
        if most < promised {
            let message = format!("{} is less than what the job asks for: {}", size(most), size(promised));
            self.say(Code::Conflict, "limits.memory", message);
        }
        if limits.fuel.is_some() && limits.cpu_time_ms.is_some() {
            let problem = Problem::new(Code::Conflict, "limits.cpu_time", "a wasm task is limited by fuel or by CPU time, never both");
            self.push(problem.with_help("fuel ends it by count, repeatably; cpu_time is faster"));
        }
    }

    fn restart(&mut self) {
        let restart = &self.spec.restart;
        if kind(self.spec) == Kind::Batch && restart.policy == Some(RestartPolicy::Always) {
            let field = if self.spec.place("restart.policy").is_some() { "restart.policy" } else { "restart" };
            let problem = Problem::new(Code::Conflict, field, "a batch job that always restarts its tasks never ends");
            self.push(problem.with_help("kind = \"service\", or restart = \"on-failure\""));
        }
        self.within("restart.retries", restart.retries, (0, RETRIES_MAX), |retries| retries.to_string());
        self.within("restart.backoff.first", restart.backoff_first_ms, (BACKOFF_FIRST_MS_MIN, BACKOFF_MS_MAX), millis);
        self.within("restart.backoff.max", restart.backoff_max_ms, (BACKOFF_FIRST_MS_MIN, BACKOFF_MS_MAX), millis);
        let factor = restart.backoff_factor_milli;
        self.within("restart.backoff.factor", factor, (1_000, BACKOFF_FACTOR_MILLI_MAX), |factor| cores(u64::from(factor)));
        let first = restart.backoff_first_ms.unwrap_or(BACKOFF_FIRST_MS_DEFAULT);
        if restart.backoff_max_ms.is_some_and(|max| max < first) {
            self.say(Code::Conflict, "restart.backoff.max", format!("it is less than the first wait: {}", millis(first)));
        }
    }

    /// The digest that a master can look up.
    fn bundle(&mut self, field: &str, source: Option<&Source>) -> Option<Digest> {
        match source? {
            Source::Bundle(digest) => Some(*digest),
            Source::File(path) => {
                let message = format!("{}: a master does not read files", quoted(path));
                let help = "upload it (PUT /v1/bundles/DIGEST) and name it by its digest, sha256:…; skep run and skep apply do so";
                self.push(Problem::new(Code::BadValue, field, message).with_help(help));
                None
            }
        }
    }

    fn not_uploaded(&mut self, field: &str, digest: Digest) {
        let problem = Problem::new(Code::UnknownBundle, field, format!("nothing was uploaded as sha256:{digest}"));
        self.push(problem.with_help("upload it first: skep push FILE"));
    }

    /// Says so where the wasm begins with more than the job allows it.
    fn fits(&mut self, inspection: Inspection) {
        let (_, memory) = memory_bytes(self.spec);
        if inspection.memory_bytes_min > memory {
            let field = if self.spec.limits.memory_bytes.is_some() { "limits.memory" } else { "resources.memory" };
            let message = format!("the wasm begins with {} of memory: more than {}", size(inspection.memory_bytes_min), size(memory));
            let help = format!("memory = \"{}\" or more", size(inspection.memory_bytes_min));
            self.push(Problem::new(Code::TooLarge, field, message).with_help(help));
        }
        let tables = self.spec.limits.table_elements.unwrap_or(TABLE_ELEMENTS_MAX);
        if inspection.table_elements_min > tables {
            let message = format!("the wasm begins with a table of {} elements: more than {tables}", inspection.table_elements_min);
            self.say(Code::TooLarge, "limits.tables", message);
        }
    }
}

fn cores(milli: u64) -> String {
    format!("{}.{:03}", milli / 1_000, milli % 1_000)
}

fn millis(ms: u64) -> String {
    if ms.is_multiple_of(1_000) { format!("{}s", ms / 1_000) } else { format!("{ms}ms") }
}

/// Bytes in the largest unit that divides them.
fn size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    unit.map_or_else(|| format!("{bytes}B"), |(shift, name)| format!("{}{name}", bytes >> shift))
}
