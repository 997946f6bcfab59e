//! The tree of a job file, field by field, to a [`JobSpec`]: which fields there are, of what kind, and what is said of those that there
//! are not. What an amount may be is `job`'s.

use super::amount::{self, AmountError};
use super::problem::{Code, PROBLEMS_MAX, Problem, quoted};
use super::spec::{JobSpec, LimitsSpec, Place, ResourcesSpec, RestartSpec, Source, TaskSpec};
use super::tree::{Entry, Node, Value, joined};
use protocol::job::RestartPolicy;
use protocol::resources::Device;
use protocol::{Kind, Name};
use std::ops::Range;

/// The fields of each table, those of this version; the first is the whole text.
const FIELDS: &[(&str, &[&str])] = &[
    ("", &["name", "role", "priority", "kind", "runtime", "count", "task", "resources", "limits", "restart", "update"]),
    ("task", &["wasm", "args", "env", "config", "stdin"]),
    ("resources", &["cpu", "memory", "disk", "ports", "devices"]),
    ("limits", &["fuel", "cpu_time", "time", "memory", "tables", "host", "log"]),
    ("restart", &["policy", "retries", "backoff"]),
    ("restart.backoff", &["first", "factor", "max"]),
    ("update", &["parallel"]),
    ("count", &[]),
];

/// Fields that job files have, and that this version does not.
const FIELDS_LATER: &[(&str, &[&str])] = &[
    ("", &["place", "health", "service"]),
    ("task", &["name", "native", "image", "bundle", "fetch", "mount", "scratch"]),
    ("limits", &["egress", "processes"]),
    ("update", &["canary", "min_healthy", "deadline", "auto_rollback"]),
    ("count", &["min", "max", "target"]),
];

/// Most edits between a field's name and what is taken for a slip of it.
const SLIP_EDITS_MAX: usize = 2;
/// Longest name that is compared for slips, in bytes.
const SLIP_BYTES_MAX: usize = 32;
/// The largest whole number that every reader of JSON keeps (RFC 8259 section 6).
const BARE_NUMBER_MAX: u64 = 1 << 53;

/// What is read so far, and what was wrong.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) problems: Vec<Problem>,
    places: Vec<Place>,
}

/// The job that `root` describes, as far as it can be read.
pub(super) fn job(root: Node<'_>, reader: &mut Reader) -> JobSpec {
    let mut spec = JobSpec::default();
    for Entry { key, span, node } in reader.entries("", root) {
        match key.as_ref() {
            "name" => spec.name = reader.name("name", node),
            "role" => spec.role = reader.name("role", node),
            "priority" => spec.priority = reader.small("priority", node),
            "kind" => spec.kind = reader.kind(node),
            "runtime" => spec.strict = reader.runtime(node),
            "count" => spec.count = reader.count(node),
            "task" => reader.task(node, &mut spec.task),
            "resources" => reader.resources(node, &mut spec.resources),
            "limits" => reader.limits(node, &mut spec.limits),
            "restart" => reader.restart(node, &mut spec.restart),
            "update" => spec.update_parallel = reader.update(node),
            other => reader.unknown("", other, span),
        }
    }
    spec.places = std::mem::take(&mut reader.places);
    spec
}

impl Reader {
    fn say(&mut self, problem: Problem) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        }
    }

    fn mark(&mut self, field: &'static str, node: &Node<'_>) {
        self.places.push(Place { field, span: node.span.clone(), line: 0, column: 0 });
    }

    fn wrong_type<T>(&mut self, field: &str, node: &Node<'_>, wanted: &str) -> Option<T> {
        let message = format!("expected {wanted}, found {}", node.value.kind());
        self.say(Problem::new(Code::WrongType, field, message).at(node.span.clone()));
        None
    }

    fn bad<T>(&mut self, code: Code, field: &str, node: &Node<'_>, message: String, help: &str) -> Option<T> {
        let problem = Problem::new(code, field, message).at(node.span.clone());
        self.say(if help.is_empty() { problem } else { problem.with_help(help) });
        None
    }

    /// The entries of the table `path`.
    fn entries<'a>(&mut self, path: &str, node: Node<'a>) -> Vec<Entry<'a>> {
        if let Value::Table(entries) = node.value {
            return entries;
        }
        self.wrong_type(path, &node, "a table").unwrap_or_default()
    }

    /// Says that `key` of the table `path` is none of its fields.
    fn unknown(&mut self, path: &'static str, key: &str, span: Range<usize>) {
        let field = joined(path, key);
        let fields =
            |table: &[(&str, &'static [&'static str])]| table.iter().find(|(name, _)| *name == path).map_or(&[][..], |(_, fields)| fields);
        if fields(FIELDS_LATER).contains(&key) {
            let message = "this version does not know it yet";
            return self.say(Problem::new(Code::NotYet, field, message).at(span).with_help("leave it out"));
        }
        let here = fields(FIELDS).iter().chain(fields(FIELDS_LATER));
        let problem = Problem::new(Code::UnknownField, super::problem::quoted_field(&field), "there is no such field").at(span);
        let elsewhere: Vec<&str> =
            FIELDS.iter().filter(|(name, fields)| *name != path && fields.contains(&key)).map(|(name, _)| *name).collect();
        let meant = here.min_by_key(|name| edits(name, key)).filter(|name| edits(name, key) <= SLIP_EDITS_MAX);
        self.say(problem.with_help(match (&elsewhere[..], meant) {
            (["", ..], _) => format!("'{key}' stands before the first table"),
            (tables @ [_, ..], _) => format!("'{key}' stands under [{}]", tables.join("] or [")),
            ([], Some(meant)) => format!("did you mean '{meant}'?"),
            ([], None) => format!("the fields here are {}", fields(FIELDS).join(", ")),
        }));
    }

    fn text<'a>(&mut self, field: &str, node: &mut Node<'a>) -> Option<std::borrow::Cow<'a, str>> {
        match &mut node.value {
            Value::Text(text) => Some(std::mem::take(text)),
            _ => self.wrong_type(field, node, "text"),
        }
    }

    fn name(&mut self, field: &'static str, mut node: Node<'_>) -> Option<Name> {
        self.mark(field, &node);
        self.name_of(field, &mut node)
    }

    fn name_of(&mut self, field: &str, node: &mut Node<'_>) -> Option<Name> {
        let text = self.text(field, node)?;
        Name::new(&text).map_err(|error| self.bad::<Name>(Code::BadValue, field, node, format!("{}: {error}", quoted(&text)), "")).ok()
    }

    /// An amount, of a bare number or of text, by `read`; `example` is what to write.
    fn amount(&mut self, field: &'static str, node: Node<'_>, read: fn(&str) -> Result<u64, AmountError>, example: &str) -> Option<u64> {
        self.mark(field, &node);
        self.amount_of(field, &node, read, example)
    }

    fn amount_of(&mut self, field: &str, node: &Node<'_>, read: fn(&str) -> Result<u64, AmountError>, example: &str) -> Option<u64> {
        let (text, bare) = match &node.value {
            Value::Text(text) => (text, false),
            Value::Number(text) => (text, true),
            _ => return self.wrong_type(field, node, &format!("an amount such as {example}")),
        };
        let written = quoted(text);
        let help = format!("write it as {example}");
        match read(text) {
            Ok(amount) if bare && amount::whole(text).is_ok_and(|number| number > BARE_NUMBER_MAX) => {
                let help = format!("write it as text: \"{amount}\"");
                self.bad(Code::TooLarge, field, node, format!("{written}: not every reader keeps a bare number above 2^53"), &help)
            }
            Ok(amount) => Some(amount),
            Err(AmountError::Malformed) => self.bad(Code::BadValue, field, node, format!("{written} is no amount"), &help),
            Err(AmountError::Negative) => self.bad(Code::BadValue, field, node, format!("{written} is negative"), &help),
            Err(AmountError::TooFine) => self.bad(Code::BadValue, field, node, format!("{written} is finer than what is counted"), &help),
            Err(AmountError::TooLarge) => self.bad(Code::TooLarge, field, node, format!("{written} is too large"), &help),
        }
    }

    /// A whole number that fits its integer.
    fn small<T: TryFrom<u64>>(&mut self, field: &'static str, node: Node<'_>) -> Option<T> {
        self.mark(field, &node);
        if !matches!(node.value, Value::Number(_)) {
            return self.wrong_type(field, &node, "a whole number");
        }
        let number = self.amount_of(field, &node, amount::whole, "a whole number")?;
        T::try_from(number).map_err(|_| self.bad::<T>(Code::TooLarge, field, &node, format!("{number} is too large"), "")).ok()
    }

    fn kind(&mut self, mut node: Node<'_>) -> Option<Kind> {
        self.mark("kind", &node);
        match self.text("kind", &mut node)?.as_ref() {
            "batch" => Some(Kind::Batch),
            "service" => Some(Kind::Service),
            later @ ("system" | "cron") => {
                self.bad(Code::NotYet, "kind", &node, format!("this version does not know '{later}' yet"), "it knows batch and service")
            }
            other => self.bad(Code::BadValue, "kind", &node, format!("{} is no kind of job", quoted(other)), "it is batch or service"),
        }
    }

    /// True for `strict`.
    fn runtime(&mut self, mut node: Node<'_>) -> bool {
        self.mark("runtime", &node);
        let Some(text) = self.text("runtime", &mut node) else { return false };
        let strict: Option<bool> = match text.as_ref() {
            "auto" => Some(false),
            "strict" => Some(true),
            later @ ("runc" | "crun" | "youki" | "runsc" | "kata") => {
                let message = format!("this version does not know '{later}' yet: it runs no containers");
                self.bad(Code::NotYet, "runtime", &node, message, "it knows auto and strict")
            }
            other => self.bad(Code::BadValue, "runtime", &node, format!("{} is no runtime", quoted(other)), "it is auto or strict"),
        };
        strict.unwrap_or(false)
    }

    fn count(&mut self, node: Node<'_>) -> Option<u32> {
        if !matches!(node.value, Value::Table(_)) {
            return self.small("count", node);
        }
        let span = node.span.clone();
        let entries = self.entries("count", node);
        if entries.is_empty() {
            self.say(Problem::new(Code::WrongType, "count", "expected a whole number, found an empty table").at(span));
        }
        entries.into_iter().for_each(|entry| self.unknown("count", &entry.key, entry.span));
        None
    }

    fn task(&mut self, node: Node<'_>, task: &mut TaskSpec) {
        self.mark("task", &node);
        if matches!(node.value, Value::List(_)) {
            let message = "this version does not know groups of tasks ([[task]]) yet";
            self.bad::<()>(Code::NotYet, "task", &node, message.to_owned(), "write one [task]");
            return;
        }
        for Entry { key, span, node } in self.entries("task", node) {
            match key.as_ref() {
                "wasm" => task.wasm = self.source("task.wasm", node),
                "stdin" => task.stdin = self.source("task.stdin", node),
                "args" => {
                    task.args = self.list("task.args", node, |reader, mut node| Some(reader.text("task.args", &mut node)?.into_owned()))
                }
                "env" => task.env = self.pairs("task.env", node),
                "config" => task.config = self.pairs("task.config", node),
                other => self.unknown("task", other, span),
            }
        }
    }

    fn source(&mut self, field: &'static str, mut node: Node<'_>) -> Option<Source> {
        self.mark(field, &node);
        let text = self.text(field, &mut node)?;
        if text.starts_with("sha256:") {
            let digest = text.parse().map(Source::Bundle);
            return digest
                .map_err(|error| self.bad::<Source>(Code::BadValue, field, &node, format!("{}: {error}", quoted(&text)), ""))
                .ok();
        }
        if text.is_empty() || text.chars().any(char::is_control) {
            return self.bad(Code::BadValue, field, &node, format!("{} is no file", quoted(&text)), "name a .wasm file or sha256:DIGEST");
        }
        if text.contains("://") {
            let message = format!("{}: this version does not fetch from elsewhere yet", quoted(&text));
            return self.bad(Code::NotYet, field, &node, message, "name a local file, which is uploaded");
        }
        Some(Source::File(text.into_owned()))
    }

    fn list<'a, T>(&mut self, field: &'static str, node: Node<'a>, item: impl Fn(&mut Self, Node<'a>) -> Option<T>) -> Vec<T> {
        self.mark(field, &node);
        match node.value {
            Value::List(nodes) => nodes.into_iter().filter_map(|node| item(self, node)).collect(),
            _ => self.wrong_type(field, &node, "a list").unwrap_or_default(),
        }
    }

    /// Names and texts, sorted by name.
    fn pairs(&mut self, field: &'static str, node: Node<'_>) -> Vec<(String, String)> {
        self.mark(field, &node);
        let mut pairs = Vec::new();
        for Entry { key, mut node, .. } in self.entries(field, node) {
            let path = joined(field, &key);
            if let Some(value) = self.text(&super::problem::quoted_field(&path), &mut node) {
                pairs.push((key.into_owned(), value.into_owned()));
            }
        }
        pairs.sort();
        pairs
    }

    fn resources(&mut self, node: Node<'_>, resources: &mut ResourcesSpec) {
        self.mark("resources", &node);
        for Entry { key, span, node } in self.entries("resources", node) {
            match key.as_ref() {
                "cpu" => resources.cpu_milli = self.amount("resources.cpu", node, amount::milli, "0.5"),
                "memory" => resources.memory_bytes = self.amount("resources.memory", node, amount::size_bytes, "\"64MiB\""),
                "disk" => resources.disk_bytes = self.amount("resources.disk", node, amount::size_bytes, "\"1GiB\""),
                "ports" => resources.ports = self.list("resources.ports", node, Self::port),
                "devices" => resources.devices = self.devices(node),
                other => self.unknown("resources", other, span),
            }
        }
    }

    fn port(&mut self, mut node: Node<'_>) -> Option<Name> {
        if matches!(node.value, Value::Number(_)) {
            let help = "name it, as \"http\": the agent gives the number, and ${port.http} tells the task";
            return self.bad(Code::WrongType, "resources.ports", &node, "expected a name, found a number".to_owned(), help);
        }
        self.name_of("resources.ports", &mut node)
    }

    fn devices(&mut self, node: Node<'_>) -> Vec<Device> {
        self.mark("resources.devices", &node);
        let mut devices = Vec::new();
        for Entry { key, span, node } in self.entries("resources.devices", node) {
            let field = super::problem::quoted_field(&joined("resources.devices", &key));
            let milli = self.amount_of(&field, &node, amount::milli, "0.5");
            match (Name::new(&key), milli) {
                (Ok(name), Some(milli)) => devices.push(Device { name, milli }),
                (Err(error), _) => self.say(Problem::new(Code::BadValue, field, error.to_string()).at(span)),
                (Ok(_), None) => {}
            }
        }
        devices.sort();
        devices
    }

    fn limits(&mut self, node: Node<'_>, limits: &mut LimitsSpec) {
        self.mark("limits", &node);
        for Entry { key, span, node } in self.entries("limits", node) {
            match key.as_ref() {
                "fuel" => limits.fuel = self.amount("limits.fuel", node, amount::fuel, "\"2G\""),
                "cpu_time" => limits.cpu_time_ms = self.amount("limits.cpu_time", node, amount::time_ms, "\"60s\""),
                "time" => limits.time_ms = self.amount("limits.time", node, amount::time_ms, "\"5m\""),
                "memory" => limits.memory_bytes = self.amount("limits.memory", node, amount::size_bytes, "\"64MiB\""),
                "tables" => limits.table_elements = self.small("limits.tables", node),
                "host" => limits.host_bytes = self.amount("limits.host", node, amount::size_bytes, "\"8MiB\""),
                "log" => limits.log_bytes = self.amount("limits.log", node, amount::size_bytes, "\"1MiB\""),
                other => self.unknown("limits", other, span),
            }
        }
    }

    fn restart(&mut self, node: Node<'_>, restart: &mut RestartSpec) {
        if matches!(node.value, Value::Text(_)) {
            restart.policy = self.policy("restart", node);
            return;
        }
        self.mark("restart", &node);
        for Entry { key, span, node } in self.entries("restart", node) {
            match key.as_ref() {
                "policy" => restart.policy = self.policy("restart.policy", node),
                "retries" => restart.retries = self.small("restart.retries", node),
                "backoff" => self.backoff(node, restart),
                other => self.unknown("restart", other, span),
            }
        }
    }

    fn policy(&mut self, field: &'static str, mut node: Node<'_>) -> Option<RestartPolicy> {
        self.mark(field, &node);
        match self.text(field, &mut node)?.as_ref() {
            "always" => Some(RestartPolicy::Always),
            "on-failure" => Some(RestartPolicy::OnFailure),
            "never" => Some(RestartPolicy::Never),
            other => self.bad(Code::BadValue, field, &node, format!("{} is no policy", quoted(other)), "it is always, on-failure or never"),
        }
    }

    fn backoff(&mut self, node: Node<'_>, restart: &mut RestartSpec) {
        for Entry { key, span, node } in self.entries("restart.backoff", node) {
            match key.as_ref() {
                "first" => restart.backoff_first_ms = self.amount("restart.backoff.first", node, amount::time_ms, "\"1s\""),
                "factor" => {
                    let factor = self.amount("restart.backoff.factor", node, amount::milli, "1.15");
                    // What does not fit is far over the bound that is said for it.
                    restart.backoff_factor_milli = factor.map(|factor| u32::try_from(factor).unwrap_or(u32::MAX));
                }
                "max" => restart.backoff_max_ms = self.amount("restart.backoff.max", node, amount::time_ms, "\"5m\""),
                other => self.unknown("restart.backoff", other, span),
            }
        }
    }

    fn update(&mut self, node: Node<'_>) -> Option<u32> {
        let mut parallel = None;
        for Entry { key, span, node } in self.entries("update", node) {
            match key.as_ref() {
                "parallel" => parallel = self.small("update.parallel", node),
                other => self.unknown("update", other, span),
            }
        }
        parallel
    }
}

/// How many characters are to be put in, left out, changed or swapped with their neighbour to make `b` of `a` (optimal string
/// alignment); many for what is too long to be a slip.
fn edits(a: &str, b: &str) -> usize {
    if a.len().max(b.len()) > SLIP_BYTES_MAX {
        return usize::MAX;
    }
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = changed.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
