//! What one task of a [`JobSpec`] means: every default and every bound of it, and the [`Member`] that comes of one within them.

use super::bundle::{Form, Verdict};
use super::job::{Judge, cores, millis, size};
use super::path::{is_absolute, is_kernels, is_plain};
use super::problem::{Code, Problem, quoted};
use super::spec::{JobSpec, Source, TaskSpec};
use super::wasm::Inspection;
use protocol::checks::CHECKS_VARIABLE;
use protocol::job::{FENCE_VARIABLE, MOUNTS_MAX, Network, Process};
use protocol::resources::{DEVICES_BESIDE_REVOCABLE_MAX, DEVICES_MAX, PORTS_PER_TASK_MAX};
use protocol::{Digest, Kind, Limits, Member, Metering, Name, Program, Resources};

/// A task's share of a core, in thousandths, where its job names none.
pub const CPU_MILLI_DEFAULT: u64 = 100;
/// Most thousandths of a core for one task.
pub const CPU_MILLI_MAX: u64 = 4_096_000;
/// A task's memory, promised and at most, where its job names none.
pub const MEMORY_BYTES_DEFAULT: u64 = 64 << 20;
/// Least memory of a wasm task: one page.
pub const MEMORY_BYTES_MIN: u64 = 1 << 16;
/// Most memory of a wasm task: what 32 bits address.
pub const MEMORY_BYTES_MAX: u64 = 4 << 30;
/// Least memory of a native or container task: with less, the kernel ends it before it begins.
pub const PROCESS_MEMORY_BYTES_MIN: u64 = 4 << 20;
/// Most memory of a native or container task.
pub const PROCESS_MEMORY_BYTES_MAX: u64 = 1 << 44;
/// Most disk of a task.
pub const DISK_BYTES_MAX: u64 = 1 << 50;
/// Most of one device for one task, in thousandths.
pub const DEVICE_MILLI_MAX: u64 = 1_024_000;
/// Instructions of a wasm task of a batch job that names no limit of fuel or CPU time: some ten minutes of a core. A service has no limit
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
/// Processes and threads of a native or container task where none are named.
pub const PROCESSES_DEFAULT: u32 = 256;
/// Most of them.
pub const PROCESSES_MAX: u32 = 32_768;
/// Output kept where nothing is named.
pub const LOG_BYTES_DEFAULT: u64 = 1 << 20;
/// Least of it.
pub const LOG_BYTES_MIN: u64 = 4 << 10;
/// Most of it.
pub const LOG_BYTES_MAX: u64 = 1 << 30;
/// Output of a native or container task a second, where nothing is named; a task that writes more waits.
pub const LOG_BYTES_PER_S_DEFAULT: u64 = 16 << 20;
/// Most arguments.
pub const ARGS_MAX: usize = 1_024;
/// Most variables of an environment, and most values of a config.
pub const PAIRS_MAX: usize = 256;
/// Longest name of either.
pub const PAIR_NAME_BYTES_MAX: usize = 256;
/// Most bytes of arguments, environment and config together.
pub const TEXT_BYTES_MAX: usize = 128 << 10;
/// Longest path or user that is named, in bytes.
pub const PATH_BYTES_MAX: usize = 1_024;

/// What a native file is called inside where nothing is said.
const FILE_DEFAULT: &str = "task";

/// Which of the three a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Wasm,
    Native,
    Image,
}

impl TaskSpec {
    /// What is to run, and how its field is called; the first where several are named.
    fn program(&self) -> Option<(Sort, &'static str, &Source)> {
        let named = [(Sort::Wasm, "wasm", &self.wasm), (Sort::Native, "native", &self.native), (Sort::Image, "image", &self.image)];
        named.into_iter().find_map(|(sort, field, source)| Some((sort, field, source.as_ref()?)))
    }

    pub(super) fn is_wasm(&self) -> bool {
        self.program().is_none_or(|(sort, ..)| sort == Sort::Wasm)
    }

    /// What is promised and what is allowed: each is the other where only one is named.
    fn memory_bytes(&self) -> (u64, u64) {
        let promised = self.resources.memory_bytes.or(self.limits.memory_bytes).unwrap_or(MEMORY_BYTES_DEFAULT);
        (promised, self.limits.memory_bytes.unwrap_or(promised))
    }

    /// The digest of what runs, where it is named by one.
    #[must_use]
    pub fn bundle(&self) -> Option<Digest> {
        match self.program()?.2 {
            Source::Bundle(digest) => Some(*digest),
            Source::File(_) => None,
        }
    }

    /// What it is promised.
    pub(super) fn amounts(&self) -> Resources {
        let amounts = Resources {
            cpu_milli: self.resources.cpu_milli.unwrap_or(CPU_MILLI_DEFAULT),
            memory_bytes: self.memory_bytes().0,
            disk_bytes: self.resources.disk_bytes.unwrap_or(0),
            ports: u32::try_from(self.resources.ports.len()).unwrap_or(u32::MAX),
            devices: self.resources.devices.clone(),
        };
        if self.resources.revocable { amounts.made_revocable() } else { amounts }
    }

    fn limits(&self, kind: Kind, metering: Metering) -> Limits {
        let limits = &self.limits;
        let fuel_default = (self.is_wasm() && kind == Kind::Batch && metering == Metering::Fuel).then_some(FUEL_DEFAULT);
        Limits {
            fuel_max: limits.fuel.or(fuel_default),
            cpu_time_ms_max: limits.cpu_time_ms,
            time_ms_max: limits.time_ms,
            memory_bytes_max: self.memory_bytes().1,
            table_elements_max: limits.table_elements.unwrap_or(TABLE_ELEMENTS_MAX),
            host_bytes_max: limits.host_bytes.unwrap_or(HOST_BYTES_DEFAULT),
            processes_max: limits.processes.unwrap_or(PROCESSES_DEFAULT),
            log_bytes_max: limits.log_bytes.unwrap_or(LOG_BYTES_DEFAULT),
            log_bytes_per_s_max: limits.log_bytes_per_s.unwrap_or(LOG_BYTES_PER_S_DEFAULT),
        }
    }

    /// The member that a judged task is, with the bundles that were found for it.
    pub(super) fn build(self, kind: Kind, strict: bool, bundle: Digest, stdin: Option<Digest>) -> Member {
        let metering = if self.limits.cpu_time_ms.is_some() { Metering::Epoch } else { Metering::Fuel };
        let (limits, resources) = (self.limits(kind, metering), self.amounts());
        let process = Process {
            command: self.command,
            user: self.user,
            dir: self.dir,
            network: self.limits.egress.unwrap_or_default(),
            mounts: self.mounts,
            stop_signal: self.stop_signal,
        };
        let program = if self.native.is_some() {
            Program::Native { bundle, file: self.file.unwrap_or_else(|| FILE_DEFAULT.into()), process }
        } else if self.image.is_some() {
            Program::Image { bundle, process }
        } else {
            Program::Wasm { bundle, metering, strict }
        };
        Member {
            name: self.name,
            program,
            args: self.args,
            env: self.env,
            config: self.config,
            stdin,
            resources,
            ports: self.resources.ports,
            limits,
        }
    }
}

/// Judges one task of a job: its fields, by their names in the text.
pub(super) struct MemberJudge<'a, 'b> {
    pub judge: &'b mut Judge<'a>,
    pub spec: &'a JobSpec,
    pub task: &'a TaskSpec,
    pub at: usize,
}

impl MemberJudge<'_, '_> {
    /// All reasons against it that need no bundle to be seen.
    pub fn judge(&mut self) {
        self.program();
        self.texts();
        self.resources();
        self.limits();
        self.sort();
        self.checks(super::job::kind(self.spec));
    }

    pub(super) fn field(&self, name: &str) -> String {
        self.spec.field(self.at, name)
    }

    pub(super) fn say(&mut self, code: Code, name: &str, message: impl Into<String>) {
        let field = self.field(name);
        self.judge.say(code, &field, message.into());
    }

    pub(super) fn push(&mut self, code: Code, name: &str, message: impl Into<String>, help: impl Into<String>) {
        let field = self.field(name);
        self.judge.push(Problem::new(code, field, message).with_help(help));
    }

    pub(super) fn within<T: PartialOrd + Copy>(&mut self, name: &str, amount: Option<T>, bounds: (T, T), show: fn(T) -> String) {
        let field = self.field(name);
        self.judge.within(&field, amount, bounds, show);
    }

    fn program(&mut self) {
        let named = [("wasm", &self.task.wasm), ("native", &self.task.native), ("image", &self.task.image)];
        let named: Vec<&str> = named.into_iter().filter(|(_, source)| source.is_some()).map(|(name, _)| name).collect();
        match &named[..] {
            [] => self.push(
                Code::Missing,
                "wasm",
                "the job does not say what runs",
                "name a file: [task] wasm = \"hello.wasm\", native = \"./server\" or image = \"redis.tar\"",
            ),
            [_] => {}
            [_, second, ..] => {
                let message = format!("a task is one of wasm, native and image: it names {}", named.join(" and "));
                self.push(Code::Conflict, second, message, "write a [[task]] for each");
            }
        }
        if self.spec.group && self.task.name.is_none() {
            self.push(Code::Missing, "name", "each task of a group has a name", "name = \"server\"");
        }
        if !self.spec.group && self.task.name.is_some() {
            self.push(Code::Conflict, "name", "only tasks of a group have names", "name the job, or write [[task]]");
        }
    }

    /// What only some sorts of task have.
    fn sort(&mut self) {
        let (task, wasm) = (self.task, self.task.is_wasm());
        let native = self.task.native.is_some();
        let process_only = [
            ("command", !task.command.is_empty()),
            ("user", task.user.is_some()),
            ("dir", task.dir.is_some()),
            ("stop_signal", task.stop_signal.is_some()),
            ("mount", !task.mounts.is_empty()),
            ("limits.processes", task.limits.processes.is_some()),
            ("limits.log_rate", task.limits.log_bytes_per_s.is_some()),
        ];
        for (name, _) in process_only.into_iter().filter(|(_, named)| wasm && *named) {
            self.push(Code::Conflict, name, "a wasm task has no such thing", "leave it out, or run something native or an image");
        }
        let wasm_only = [
            ("config", !task.config.is_empty(), "use env"),
            ("limits.fuel", task.limits.fuel.is_some(), "fuel counts wasm instructions: use cpu_time"),
            ("limits.tables", task.limits.table_elements.is_some(), "leave it out"),
            ("limits.host", task.limits.host_bytes.is_some(), "leave it out"),
        ];
        for (name, _, help) in wasm_only.into_iter().filter(|(_, named, _)| !wasm && *named) {
            self.push(Code::Conflict, name, "only a wasm task has it", help);
        }
        if wasm && task.limits.egress == Some(Network::Host) {
            self.push(Code::NotYet, "limits.egress", "this version gives wasm tasks no network yet", "leave it out");
        }
        if task.file.is_some() && !native {
            self.say(Code::Conflict, "file", "only a native bundle of one file has a name inside");
        }
        if !wasm && !task.resources.ports.is_empty() && task.limits.egress != Some(Network::Host) {
            let help = "limits.egress = \"host\", which a policy of its role allows: skep roles set ROLE --host-network";
            self.push(Code::Conflict, "resources.ports", "nobody reaches a port in a network of its own", help);
        }
        if self.spec.strict && !wasm && !self.spec.tasks.iter().any(TaskSpec::is_wasm) {
            self.judge.say(
                Code::Conflict,
                "runtime",
                "'strict' is for wasm: each native and container task has its own executor".to_owned(),
            );
        }
    }

    fn texts(&mut self) {
        let task = self.task;
        for (name, args) in [("args", &task.args), ("command", &task.command)] {
            if args.len() > ARGS_MAX {
                self.say(Code::TooLarge, name, format!("{} arguments: at most {ARGS_MAX}", args.len()));
            }
            if args.iter().any(|arg| arg.contains('\0')) {
                self.say(Code::BadValue, name, "an argument cannot hold a NUL character");
            }
        }
        if task.command.first().is_some_and(String::is_empty) {
            self.say(Code::BadValue, "command", "the program has no name");
        }
        self.pairs("env", &task.env);
        self.pairs("config", &task.config);
        self.paths();
        let args = task.args.iter().map(|arg| ("args", arg));
        let env = task.env.iter().map(|(_, value)| ("env", value));
        let config = task.config.iter().map(|(_, value)| ("config", value));
        for (name, text) in args.chain(env).chain(config) {
            self.names_in(name, text);
        }
        let pair_bytes = |pairs: &[(String, String)]| pairs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let arg_bytes = task.args.iter().chain(&task.command).map(String::len).sum::<usize>();
        let sizes = [("args", arg_bytes), ("env", pair_bytes(&task.env)), ("config", pair_bytes(&task.config))];
        let total: usize = sizes.iter().map(|(_, bytes)| bytes).sum();
        if total > TEXT_BYTES_MAX {
            let (name, _) = sizes.into_iter().max_by_key(|(_, bytes)| *bytes).unwrap_or(("args", 0));
            let message = format!("arguments, environment and config have {total} bytes together: at most {TEXT_BYTES_MAX}");
            self.say(Code::TooLarge, name, message);
        }
    }

    fn pairs(&mut self, name: &str, pairs: &[(String, String)]) {
        if pairs.len() > PAIRS_MAX {
            self.say(Code::TooLarge, name, format!("{} of them: at most {PAIRS_MAX}", pairs.len()));
        }
        for (key, value) in pairs {
            let wrong = match key.as_str() {
                "" => "the empty name names nothing",
                FENCE_VARIABLE | CHECKS_VARIABLE if name == "env" => "it is kept for what the job says itself",
                key if key.contains('=') => "a name cannot hold '='",
                key if key.chars().any(char::is_control) => "a name cannot hold control characters",
                key if key.len() > PAIR_NAME_BYTES_MAX => "the name is longer than 256 bytes",
                _ if value.contains('\0') => "the value cannot hold a NUL character",
                _ => continue,
            };
            self.say(Code::BadValue, name, format!("{}: {wrong}", quoted(key)));
        }
        // Sorted when read; a spec built in code may have one twice.
        if pairs.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            self.say(Code::DuplicateField, name, "a name stands twice, or they are not sorted");
        }
    }

    fn paths(&mut self) {
        let task = self.task;
        let file = task.file.iter().filter(|file| file.contains('/') || [".", ".."].contains(&file.as_str()) || !is_plain(file));
        for file in file {
            self.say(Code::BadValue, "file", format!("{} is no name of a file", quoted(file)));
        }
        for user in task.user.iter().filter(|user| !is_plain(user)) {
            self.say(Code::BadValue, "user", format!("{} is no user", quoted(user)));
        }
        for dir in task.dir.iter().filter(|dir| !is_absolute(dir)) {
            self.push(Code::BadValue, "dir", format!("{} is no absolute path without '..'", quoted(dir)), "dir = \"/data\"");
        }
        if task.mounts.len() > MOUNTS_MAX {
            self.say(Code::TooLarge, "mount", format!("{} mounts: at most {MOUNTS_MAX}", task.mounts.len()));
        }
        for path in task.mounts.iter().flat_map(|mount| [&mount.from, &mount.to]).filter(|path| !is_absolute(path)) {
            self.say(Code::BadValue, "mount", format!("{} is no absolute path without '..'", quoted(path)));
        }
        for to in task.mounts.iter().map(|mount| mount.to.as_str()).filter(|to| is_kernels(to)) {
            self.say(Code::BadValue, "mount", format!("{} is not to be covered: '/', and what is in /proc, /sys and /dev", quoted(to)));
        }
    }

    /// Says so where `${port.X}` or `${task.X}` in `text` stands for nothing. Any other `${…}` is left to the task.
    pub(super) fn names_in(&mut self, name: &str, text: &str) {
        for after in text.split("${").skip(1) {
            let Some((inner, _)) = after.split_once('}') else { continue };
            let shown = quoted(inner);
            if let Some(port) = inner.strip_prefix("port.") {
                if !self.spec.tasks.iter().flat_map(|task| &task.resources.ports).any(|known| known.as_str() == port) {
                    self.push(Code::BadValue, name, format!("{shown}: the job has no such port"), "name it in resources.ports");
                }
            } else if inner.starts_with("task.") && inner != "task.index" && inner != "task.attempt" {
                let help = "there are ${task.index} and ${task.attempt}";
                self.push(Code::BadValue, name, format!("{shown}: a task has no such value"), help);
            }
        }
    }

    fn resources(&mut self) {
        let resources = &self.task.resources;
        self.within("resources.cpu", resources.cpu_milli, (1, CPU_MILLI_MAX), cores);
        self.within("resources.memory", resources.memory_bytes, self.memory_bounds(), size);
        self.within("resources.disk", resources.disk_bytes, (0, DISK_BYTES_MAX), size);
        if resources.ports.len() > usize::from(PORTS_PER_TASK_MAX) {
            let message = format!("{} ports: at most {PORTS_PER_TASK_MAX}", resources.ports.len());
            self.say(Code::TooLarge, "resources.ports", message);
        }
        let mut names: Vec<&Name> = resources.ports.iter().collect();
        names.sort();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            self.say(Code::DuplicateField, "resources.ports", format!("'{}' stands there twice", pair[0]));
        }
        let devices_max = if resources.revocable { DEVICES_BESIDE_REVOCABLE_MAX } else { DEVICES_MAX };
        if resources.devices.len() > devices_max {
            let message = format!("{} kinds: at most {devices_max}", resources.devices.len());
            self.say(Code::TooLarge, "resources.devices", message);
        }
        for device in &resources.devices {
            self.within("resources.devices", Some(device.milli), (1, DEVICE_MILLI_MAX), cores);
        }
        if let Some(device) = resources.devices.iter().find(|device| device.is_revocable()) {
            let message = format!("{} is no device", device.name);
            self.push(Code::BadValue, "resources.devices", message, "say `revocable = true`, and how much `cpu` and `memory`");
        }
        if resources.devices.windows(2).any(|pair| pair[0].name >= pair[1].name) {
            self.say(Code::DuplicateField, "resources.devices", "a kind stands twice, or they are not sorted");
        }
    }

    fn memory_bounds(&self) -> (u64, u64) {
        if self.task.is_wasm() { (MEMORY_BYTES_MIN, MEMORY_BYTES_MAX) } else { (PROCESS_MEMORY_BYTES_MIN, PROCESS_MEMORY_BYTES_MAX) }
    }

    fn limits(&mut self) {
        let limits = &self.task.limits;
        self.within("limits.fuel", limits.fuel, (1, u64::MAX), |fuel| fuel.to_string());
        self.within("limits.cpu_time", limits.cpu_time_ms, (1, TIME_MS_MAX), millis);
        self.within("limits.time", limits.time_ms, (1, TIME_MS_MAX), millis);
        self.within("limits.memory", limits.memory_bytes, self.memory_bounds(), size);
        self.within("limits.tables", limits.table_elements, (0, TABLE_ELEMENTS_MAX), |count| count.to_string());
        self.within("limits.host", limits.host_bytes, (HOST_BYTES_MIN, HOST_BYTES_MAX), size);
        self.within("limits.processes", limits.processes, (1, PROCESSES_MAX), |count| count.to_string());
        self.within("limits.log", limits.log_bytes, (LOG_BYTES_MIN, LOG_BYTES_MAX), size);
        self.within("limits.log_rate", limits.log_bytes_per_s, (LOG_BYTES_MIN, LOG_BYTES_MAX), size);
        let (promised, most) = self.task.memory_bytes();
        if most < promised {
            let message = format!("{} is less than what the job asks for: {}", size(most), size(promised));
            self.say(Code::Conflict, "limits.memory", message);
        }
        if self.task.is_wasm() && limits.fuel.is_some() && limits.cpu_time_ms.is_some() {
            let message = "a wasm task is limited by fuel or by CPU time, never both";
            self.push(Code::Conflict, "limits.cpu_time", message, "fuel ends it by count, repeatably; cpu_time is faster");
        }
    }

    /// The bundles it names, where they are here and what it needs.
    pub fn bundles(&mut self, looked: &impl Fn(Digest) -> Option<Verdict>) -> (Option<Digest>, Option<Digest>) {
        let named = self.task.program().map(|(sort, field, source)| (sort, field, self.bundle(field, source)));
        if let Some((sort, field, Some(digest))) = named {
            match looked(digest) {
                None => self.not_uploaded(field, digest),
                Some(verdict) => self.suits(sort, field, verdict),
            }
        }
        let stdin = self.task.stdin.as_ref().and_then(|source| self.bundle("stdin", source));
        if let Some(digest) = stdin.filter(|digest| looked(*digest).is_none()) {
            self.not_uploaded("stdin", digest);
        }
        (named.and_then(|(.., digest)| digest), stdin)
    }

    /// The digest that a master can look up.
    fn bundle(&mut self, name: &str, source: &Source) -> Option<Digest> {
        match source {
            Source::Bundle(digest) => Some(*digest),
            Source::File(path) => {
                let message = format!("{}: a master does not read files", quoted(path));
                let help = "upload it (PUT /v1/bundles/DIGEST) and name it by its digest, sha256:…; skep run and skep apply do so";
                self.push(Code::BadValue, name, message, help);
                None
            }
        }
    }

    fn not_uploaded(&mut self, name: &str, digest: Digest) {
        self.push(Code::UnknownBundle, name, format!("nothing was uploaded as sha256:{digest}"), "upload it first: skep push FILE");
    }

    /// Says so where the bundle is not what the task takes it for.
    fn suits(&mut self, sort: Sort, name: &str, verdict: Verdict) {
        let form = verdict.form;
        match (sort, form) {
            (Sort::Wasm, _) => match verdict.wasm {
                Ok(inspection) => self.fits(inspection),
                Err(rejection) => {
                    let problem = rejection.to_problem(&self.field(name));
                    self.judge.push(problem);
                }
            },
            (Sort::Native, Form::Executable | Form::Script) => {}
            (Sort::Native, Form::Other) if !self.task.command.is_empty() => {} // What a program of the machine reads.
            (Sort::Native, Form::Archive) if self.task.command.is_empty() => {
                let help = "command = [\"bin/server\"]: a path in the archive, or a name that is looked for in PATH";
                self.push(Code::Missing, "command", "an archive does not say which of its programs runs", help);
            }
            (Sort::Native | Sort::Image, Form::Archive) => {}
            (_, Form::Wasm) => self.push(Code::BadBundle, name, "it is wasm", "wasm = \"…\""),
            (Sort::Native, _) => {
                let help = "an executable, a script that begins with #!, a tar archive of a folder, or with `command` what that reads";
                self.push(Code::BadBundle, name, format!("it is {}", form.text()), help);
            }
            (Sort::Image, _) => {
                let help = "a tar archive of an OCI layout, or what `docker save` writes";
                self.push(Code::BadBundle, name, format!("it is {}, no image", form.text()), help);
            }
        }
    }

    /// Says so where the wasm begins with more than the job allows it.
    fn fits(&mut self, inspection: Inspection) {
        let (_, memory) = self.task.memory_bytes();
        if inspection.memory_bytes_min > memory {
            let name = if self.task.limits.memory_bytes.is_some() { "limits.memory" } else { "resources.memory" };
            let message = format!("the wasm begins with {} of memory: more than {}", size(inspection.memory_bytes_min), size(memory));
            self.push(Code::TooLarge, name, message, format!("memory = \"{}\" or more", size(inspection.memory_bytes_min)));
        }
        let tables = self.task.limits.table_elements.unwrap_or(TABLE_ELEMENTS_MAX);
        if inspection.table_elements_min > tables {
            let message = format!("the wasm begins with a table of {} elements: more than {tables}", inspection.table_elements_min);
            self.say(Code::TooLarge, "limits.tables", message);
        }
    }
}
