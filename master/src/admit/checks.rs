//! What `[health]` and `[readiness]` of a job file mean: every default and every bound of a check, and what comes of one within them.

use super::job::millis;
use super::member::MemberJudge;
use super::problem::{Code, quoted};
use super::spec::{CheckSpec, JobSpec, TaskSpec};
use protocol::checks::{
    COMMAND_BYTES_MAX, COMMAND_LENGTH_MAX, DELAY_MS_MAX, EVERY_MS, FAILURES_MAX, GRACE_MS_MAX, TARGET_BYTES_MAX, TIMEOUT_MS,
};
use protocol::{Check, Checks, Kind, Name, Probe};

/// How long a failure counts for nothing where nobody says, in milliseconds, unless there was a success before.
pub const GRACE_MS_DEFAULT: u64 = 30_000;
/// The time between two checks where nobody says, in milliseconds.
pub const EVERY_MS_DEFAULT: u64 = 5_000;
/// How long an answer may take where nobody says, in milliseconds.
pub const TIMEOUT_MS_DEFAULT: u64 = 5_000;
/// How many failures in a row end a task where nobody says; 0 ends none.
pub const FAILURES_DEFAULT: u32 = 3;

impl CheckSpec {
    /// What is asked, by the names of the fields that say it.
    fn forms(&self) -> Vec<&'static str> {
        let named = [
            ("http", self.http.is_some()),
            ("https", self.https.is_some()),
            ("tcp", self.tcp.is_some()),
            ("exec", !self.exec.is_empty()),
            ("wasm", self.wasm.is_some()),
        ];
        named.into_iter().filter(|(_, named)| *named).map(|(form, _)| form).collect()
    }

    /// The port that is asked: the one that is named, or else the first of the task's own, or else of its group's.
    fn port<'a>(&'a self, spec: &'a JobSpec, task: &'a TaskSpec) -> Option<&'a Name> {
        let all = || spec.tasks.iter().flat_map(|task| &task.resources.ports);
        self.tcp.as_ref().or(self.port.as_ref()).or_else(|| task.resources.ports.first()).or_else(|| all().next())
    }

    /// The check that a judged one is.
    fn build(&self, spec: &JobSpec, task: &TaskSpec) -> Option<Check> {
        let port = || self.port(spec, task).cloned();
        let http = |path: &String, secure| Some(Probe::Http { secure, port: port()?, path: path.clone() });
        let probe = match self {
            Self { http: Some(path), .. } => http(path, false)?,
            Self { https: Some(path), .. } => http(path, true)?,
            Self { tcp: Some(_), .. } => Probe::Tcp { port: port()? },
            Self { wasm: Some(export), .. } => Probe::Wasm { export: export.clone() },
            Self { exec, .. } => Probe::Exec { command: exec.clone() },
        };
        Some(Check {
            probe,
            grace_ms: self.grace_ms.unwrap_or(GRACE_MS_DEFAULT),
            every_ms: self.every_ms.unwrap_or(EVERY_MS_DEFAULT),
            timeout_ms: self.timeout_ms.unwrap_or(TIMEOUT_MS_DEFAULT),
            failures_max: self.failures.unwrap_or(FAILURES_DEFAULT),
            delay_ms: self.delay_ms.unwrap_or(0),
            ignores_1xx: self.ignore_1xx.unwrap_or(false),
        })
    }
}

/// What is asked of the task `at` of a judged spec.
pub(super) fn build(spec: &JobSpec, at: usize) -> Checks {
    let Some(task) = spec.tasks.get(at) else { return Checks::default() };
    let build = |check: &Option<CheckSpec>| check.as_ref().and_then(|check| check.build(spec, task));
    Checks { health: build(&task.health), readiness: build(&task.readiness) }
}

impl MemberJudge<'_, '_> {
    /// All that is wrong with what is asked of it.
    pub(super) fn checks(&mut self, kind: Kind) {
        let task = self.task;
        if let Some(check) = &task.health {
            self.check("health", check);
        }
        let Some(check) = &task.readiness else { return };
        self.check("readiness", check);
        let not_here = [
            ("readiness.grace", check.grace_ms.is_some()),
            ("readiness.failures", check.failures.is_some()),
            ("readiness.delay", check.delay_ms.is_some()),
            ("readiness.ignore_1xx", check.ignore_1xx.is_some()),
        ];
        for (field, _) in not_here.iter().filter(|(_, said)| *said) {
            self.push(
                Code::Conflict,
                field,
                "whoever is not ready yet is not ended, so nothing is counted",
                "leave it out, or say it of [health]",
            );
        }
        if kind == Kind::Batch {
            self.push(
                Code::Conflict,
                "readiness",
                "nobody waits until a task of a batch job is ready",
                "kind = \"service\", or leave it out",
            );
        }
    }

    fn check(&mut self, at: &'static str, check: &CheckSpec) {
        let of = |name: &str| format!("{at}.{name}");
        match &check.forms()[..] {
            [] => self.push(
                Code::Missing,
                at,
                "it does not say what is asked",
                "http = \"/healthz\", https, tcp = \"PORT\", exec = [\"pg_isready\"] or wasm = \"EXPORT\"",
            ),
            [form] => self.form(&of(form), form, check),
            [first, second, ..] => {
                let message = format!("one thing is asked: it names {first} and {second}");
                self.push(Code::Conflict, &of(second), message, "leave one out");
            }
        }
        if check.ignore_1xx == Some(true) && check.http.is_none() && check.https.is_none() {
            self.push(Code::Conflict, &of("ignore_1xx"), "only what is asked over HTTP has a status", "leave it out");
        }
        self.asked_port(at, check);
        self.within(&of("grace"), check.grace_ms, (0, GRACE_MS_MAX), millis);
        self.within(&of("delay"), check.delay_ms, (0, DELAY_MS_MAX), millis);
        self.within(&of("every"), check.every_ms, EVERY_MS, millis);
        self.within(&of("timeout"), check.timeout_ms, TIMEOUT_MS, millis);
        self.within(&of("failures"), check.failures, (0, FAILURES_MAX), |count| count.to_string());
    }

    /// What one form can ask.
    fn form(&mut self, field: &str, form: &str, check: &CheckSpec) {
        let wasm = self.task.is_wasm();
        match form {
            "wasm" if !wasm => {
                self.push(Code::Conflict, field, "only a wasm task has exports", "exec = [\"…\"], http = \"/…\" or tcp = \"PORT\"")
            }
            "exec" if wasm => self.push(Code::Conflict, field, "nothing runs beside a wasm task", "wasm = \"EXPORT\""),
            "http" | "https" | "tcp" if wasm => {
                self.push(Code::NotYet, field, "this version gives wasm tasks no network yet", "wasm = \"EXPORT\"");
            }
            _ => {}
        }
        for path in [&check.http, &check.https].into_iter().flatten() {
            if path.len() > TARGET_BYTES_MAX {
                self.say(Code::TooLarge, field, format!("{} bytes: at most {TARGET_BYTES_MAX}", path.len()));
            } else if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
                let message = format!("{} is no path: from '/' on, without blanks; what is not ASCII as %XX", quoted(path));
                self.push(Code::BadValue, field, message, "\"/healthz\"");
            }
        }
        for export in
            check.wasm.iter().filter(|export| export.is_empty() || export.len() > TARGET_BYTES_MAX || export.chars().any(char::is_control))
        {
            self.say(Code::BadValue, field, format!("{} is no name of an export", quoted(export)));
        }
        if !check.exec.is_empty() {
            self.command(field, &check.exec);
        }
    }

    fn command(&mut self, field: &str, command: &[String]) {
        let bytes: usize = command.iter().map(String::len).sum();
        if command.len() > COMMAND_LENGTH_MAX || bytes > COMMAND_BYTES_MAX {
            let message = format!("{} texts of {bytes} bytes: at most {COMMAND_LENGTH_MAX} of {COMMAND_BYTES_MAX} together", command.len());
            self.say(Code::TooLarge, field, message);
        }
        if command.first().is_some_and(String::is_empty) {
            self.say(Code::BadValue, field, "the program has no name");
        }
        if command.iter().any(|text| text.contains('\0')) {
            self.say(Code::BadValue, field, "an argument cannot hold a NUL character");
        }
        command.iter().for_each(|text| self.names_in(field, text));
    }

    /// Which port is asked, where one is.
    fn asked_port(&mut self, at: &str, check: &CheckSpec) {
        let spec = self.spec;
        let asks = check.http.is_some() || check.https.is_some();
        let named = [("port", &check.port), ("tcp", &check.tcp)];
        if let (Some(_), false) = (&check.port, asks) {
            let help = if check.tcp.is_some() { "tcp names it" } else { "leave it out" };
            self.push(Code::Conflict, &format!("{at}.port"), "only http and https ask a port that is named so", help);
        }
        for (name, port) in named.into_iter().filter_map(|(name, port)| Some((name, port.as_ref()?))) {
            if !spec.tasks.iter().flat_map(|task| &task.resources.ports).any(|known| known == port) {
                self.push(Code::BadValue, &format!("{at}.{name}"), format!("the job has no port '{port}'"), "name it in resources.ports");
            }
        }
        if asks && check.port(spec, self.task).is_none() && !self.task.is_wasm() {
            self.push(Code::Missing, &format!("{at}.port"), "the job has no port that could be asked", "resources.ports = [\"http\"]");
        }
    }
}
