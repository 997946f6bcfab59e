//! The tree of a job file, field by field, to a [`JobSpec`]: which fields there are, of what kind, and what is said of those that there
//! are not. What an amount may be is `job`'s.

mod checks;
mod place;
mod task;
mod update;

use super::amount::{self, AmountError};
use super::problem::{Code, PROBLEMS_MAX, Problem, quoted};
use super::spec::{JobSpec, Place, RestartSpec, TaskSpec};
use super::tree::{Entry, Node, Value, joined};
use protocol::job::{MEMBERS_MAX, RestartPolicy};
use protocol::{Kind, Name, Role};
use std::ops::Range;

/// The fields of each table, those of this version; the first is the whole text.
const FIELDS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "name",
            "role",
            "priority",
            "kind",
            "runtime",
            "count",
            "task",
            "resources",
            "limits",
            "health",
            "readiness",
            "restart",
            "update",
            "service",
            "place",
            "labels",
        ],
    ),
    (
        "task",
        &[
            "name",
            "wasm",
            "native",
            "image",
            "file",
            "command",
            "args",
            "env",
            "config",
            "stdin",
            "user",
            "dir",
            "stop_signal",
            "mount",
            "resources",
            "limits",
            "health",
            "readiness",
        ],
    ),
    ("task.mount", &["host", "to", "writable"]),
    ("resources", &["cpu", "memory", "disk", "ports", "devices", "revocable"]),
    ("limits", &["fuel", "cpu_time", "time", "memory", "tables", "host", "processes", "log", "log_rate", "egress"]),
    ("health", &["http", "https", "tcp", "exec", "wasm", "port", "delay", "grace", "every", "timeout", "failures", "ignore_1xx"]),
    ("restart", &["policy", "retries", "backoff"]),
    ("restart.backoff", &["first", "factor", "max"]),
    ("update", &["parallel", "min_healthy", "max_over", "canary", "strategy", "deadline", "auto_rollback", "max_failures", "settle"]),
    ("service", &["fenced", "after"]),
    ("place", &["constraints", "spread"]),
    ("count", &[]),
];

/// Fields that job files have, and that this version does not.
const FIELDS_LATER: &[(&str, &[&str])] = &[
    ("service", &["http", "schedule"]),
    ("task", &["bundle", "fetch", "scratch"]),
    ("task.mount", &["volume"]),
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
    let (mut resources, mut limits, mut health, mut readiness) = (None, None, None, None);
    for Entry { key, span, node } in reader.entries("", root) {
        match key.as_ref() {
            "name" => spec.name = reader.name("name", node),
            "role" => spec.role = reader.role(node),
            "priority" => spec.priority = reader.small("priority", node),
            "kind" => spec.kind = reader.kind(node),
            "runtime" => spec.strict = reader.runtime(node),
            "count" => spec.count = reader.count(node),
            "task" => (spec.group, spec.tasks) = reader.tasks(node),
            "resources" => resources = Some((span, reader.resources("resources", node))),
            "limits" => limits = Some((span, reader.limits("limits", node))),
            "health" => health = Some((span, reader.check("health", node))),
            "readiness" => readiness = Some((span, reader.check("readiness", node))),
            "restart" => reader.restart(node, &mut spec.restart),
            "update" => spec.update = reader.update(node),
            "service" => (spec.fenced, spec.after) = reader.service(node),
            "place" => spec.place = reader.place(node),
            "labels" => spec.labels = reader.pairs("labels", node),
            other => reader.unknown("", other, span),
        }
    }
    let of_check = |check: &Option<(Range<usize>, super::spec::CheckSpec)>| check.as_ref().map(|(span, _)| span.clone());
    let tables = [
        ("resources", resources.as_ref().map(|(span, _)| span.clone())),
        ("limits", limits.as_ref().map(|(span, _)| span.clone())),
        ("health", of_check(&health)),
        ("readiness", of_check(&readiness)),
    ];
    for (field, span) in tables {
        if let Some(span) = span.filter(|_| spec.group) {
            let problem = Problem::new(Code::Conflict, field, "in a group each task has its own");
            reader.say(problem.at(span).with_help(format!("write it under each [[task]], as {field} = {{ … }}")));
        }
    }
    if !spec.group {
        // Without a task the fields are judged all the same.
        spec.tasks.resize_with(1, TaskSpec::default);
        spec.tasks[0].resources = resources.map(|(_, resources)| resources).unwrap_or_default();
        spec.tasks[0].limits = limits.map(|(_, limits)| limits).unwrap_or_default();
        spec.tasks[0].health = health.map(|(_, check)| check);
        spec.tasks[0].readiness = readiness.map(|(_, check)| check);
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

    fn mark(&mut self, field: &str, node: &Node<'_>) {
        self.places.push(Place { field: field.to_owned(), span: node.span.clone(), line: 0, column: 0 });
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
        self.unknown_at(path, path, key, span);
    }

    /// The same where the table stands elsewhere, at `place`, as that of a task in a group.
    fn unknown_at(&mut self, path: &'static str, place: &str, key: &str, span: Range<usize>) {
        let field = joined(place, key);
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

    fn name(&mut self, field: &str, mut node: Node<'_>) -> Option<Name> {
        self.mark(field, &node);
        self.name_of(field, &mut node)
    }

    fn name_of(&mut self, field: &str, node: &mut Node<'_>) -> Option<Name> {
        let text = self.text(field, node)?;
        Name::new(&text).map_err(|error| self.bad::<Name>(Code::BadValue, field, node, format!("{}: {error}", quoted(&text)), "")).ok()
    }

    fn role(&mut self, mut node: Node<'_>) -> Option<Role> {
        self.mark("role", &node);
        let text = self.text("role", &mut node)?;
        Role::new(&text).map_err(|error| self.bad::<Role>(Code::BadValue, "role", &node, format!("{}: {error}", quoted(&text)), "")).ok()
    }

    /// An amount, of a bare number or of text, by `read`; `example` is what to write.
    fn amount(&mut self, field: &str, node: Node<'_>, read: fn(&str) -> Result<u64, AmountError>, example: &str) -> Option<u64> {
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
    fn small<T: TryFrom<u64>>(&mut self, field: &str, node: Node<'_>) -> Option<T> {
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
            "system" => Some(Kind::System),
            "cron" => {
                let message = "this version does not know 'cron' yet".to_owned();
                self.bad(Code::NotYet, "kind", &node, message, "it knows batch, service and system")
            }
            other => {
                self.bad(Code::BadValue, "kind", &node, format!("{} is no kind of job", quoted(other)), "it is batch, service or system")
            }
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

    /// The tasks of a job, and whether they are a group.
    fn tasks(&mut self, node: Node<'_>) -> (bool, Vec<TaskSpec>) {
        self.mark("task", &node);
        let nodes = match node.value {
            Value::List(nodes) => nodes,
            _ => return (false, vec![self.task("task", node)]),
        };
        if nodes.is_empty() || nodes.len() > MEMBERS_MAX {
            let message = format!("{} tasks: a group has 1 to {MEMBERS_MAX}", nodes.len());
            self.say(Problem::new(Code::TooLarge, "task", message).at(node.span));
            return (true, Vec::new());
        }
        let tasks = nodes.into_iter().enumerate().map(|(at, node)| self.task(&format!("task.{at}"), node)).collect();
        (true, tasks)
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

    fn list<'a, T>(&mut self, field: &str, node: Node<'a>, item: impl Fn(&mut Self, Node<'a>) -> Option<T>) -> Vec<T> {
        self.mark(field, &node);
        match node.value {
            Value::List(nodes) => nodes.into_iter().filter_map(|node| item(self, node)).collect(),
            _ => self.wrong_type(field, &node, "a list").unwrap_or_default(),
        }
    }

    /// Names and texts, sorted by name.
    fn pairs(&mut self, field: &str, node: Node<'_>) -> Vec<(String, String)> {
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

    fn policy(&mut self, field: &str, mut node: Node<'_>) -> Option<RestartPolicy> {
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
