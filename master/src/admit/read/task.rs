//! What runs: `[task]`, or each `[[task]]` of a group, with its resources and limits.

use super::Reader;
use crate::admit::amount;
use crate::admit::problem::{Code, Problem, quoted, quoted_field};
use crate::admit::spec::{LimitsSpec, ResourcesSpec, Source, TaskSpec};
use crate::admit::tree::{Entry, Node, Value, joined};
use protocol::Name;
use protocol::job::{HostMount, Network};
use protocol::resources::Device;

/// Signals that may ask a task to stop, with their numbers on Linux (signal(7)).
const SIGNALS: [(&str, u8); 8] =
    [("HUP", 1), ("INT", 2), ("QUIT", 3), ("USR1", 10), ("USR2", 12), ("TERM", 15), ("WINCH", 28), ("PWR", 30)];
/// Signals of more numbers than that there are not.
const SIGNAL_MAX: u8 = 64;

impl Reader {
    /// The task at `place`: `task`, or `task.0` of a group.
    pub(super) fn task(&mut self, place: &str, node: Node<'_>) -> TaskSpec {
        let mut task = TaskSpec::default();
        self.mark(place, &node);
        for Entry { key, span, mut node } in self.entries(place, node) {
            let field = &joined(place, &key);
            match key.as_ref() {
                "name" => task.name = self.name(field, node),
                "wasm" => task.wasm = self.source(field, node),
                "native" => task.native = self.source(field, node),
                "image" => task.image = self.source(field, node),
                "stdin" => task.stdin = self.source(field, node),
                "file" => task.file = self.marked_text(field, &mut node),
                "user" => task.user = self.marked_text(field, &mut node),
                "dir" => task.dir = self.marked_text(field, &mut node),
                "command" => task.command = self.command(field, node),
                "args" => task.args = self.texts(field, node),
                "env" => task.env = self.pairs(field, node),
                "config" => task.config = self.pairs(field, node),
                "stop_signal" => task.stop_signal = self.signal(field, node),
                "mount" => task.mounts = self.list(field, node, |reader, node| reader.mount(field, node)),
                "resources" if place != "task" => task.resources = self.resources(field, node),
                "limits" if place != "task" => task.limits = self.limits(field, node),
                "health" if place != "task" => task.health = Some(self.check(field, node)),
                "readiness" if place != "task" => task.readiness = Some(self.check(field, node)),
                "resources" | "limits" | "health" | "readiness" => {
                    let problem = Problem::new(Code::UnknownField, field.clone(), "there is no such field").at(span);
                    self.say(problem.with_help(format!("write it as a table of its own: [{key}]")));
                }
                other => self.unknown_at("task", place, other, span),
            }
        }
        task
    }

    pub(super) fn marked_text(&mut self, field: &str, node: &mut Node<'_>) -> Option<String> {
        self.mark(field, node);
        self.text(field, node).map(std::borrow::Cow::into_owned)
    }

    fn texts(&mut self, field: &str, node: Node<'_>) -> Vec<String> {
        self.list(field, node, |reader, mut node| Some(reader.text(field, &mut node)?.into_owned()))
    }

    /// A program and what stands before its arguments; one text is the program alone, never a line for a shell.
    pub(super) fn command(&mut self, field: &str, mut node: Node<'_>) -> Vec<String> {
        match node.value {
            Value::Text(_) => self.marked_text(field, &mut node).into_iter().collect(),
            _ => self.texts(field, node),
        }
    }

    fn signal(&mut self, field: &str, mut node: Node<'_>) -> Option<u8> {
        if matches!(node.value, Value::Number(_)) {
            return self.small(field, node).filter(|number| (1..=SIGNAL_MAX).contains(number)).or_else(|| {
                self.say(Problem::new(Code::BadValue, field, format!("a signal has a number from 1 to {SIGNAL_MAX}")));
                None
            });
        }
        self.mark(field, &node);
        let text = self.text(field, &mut node)?;
        let name = text.strip_prefix("SIG").unwrap_or(&text);
        let known = SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
        known.or_else(|| {
            let names: Vec<&str> = SIGNALS.iter().map(|(name, _)| *name).collect();
            self.bad(Code::BadValue, field, &node, format!("{} is no signal that a task may handle", quoted(&text)), &names.join(", "))
        })
    }

    fn mount(&mut self, place: &str, node: Node<'_>) -> Option<HostMount> {
        let span = node.span.clone();
        let (mut from, mut to, mut writable) = (None, None, false);
        for Entry { key, span, mut node } in self.entries(place, node) {
            let field = joined(place, &key);
            match key.as_ref() {
                "host" => from = self.text(&field, &mut node).map(std::borrow::Cow::into_owned),
                "to" => to = self.text(&field, &mut node).map(std::borrow::Cow::into_owned),
                "writable" => match node.value {
                    Value::Bool(value) => writable = value,
                    _ => drop(self.wrong_type::<()>(&field, &node, "true or false")),
                },
                other => self.unknown_at("task.mount", place, other, span),
            }
        }
        match from {
            Some(from) => Some(HostMount { to: to.unwrap_or_else(|| from.clone()), from, writable }),
            None => {
                let problem = Problem::new(Code::Missing, place, "a mount says what of the host it is").at(span);
                self.say(problem.with_help("mount = [{ host = \"/srv/data\", to = \"/data\" }]"));
                None
            }
        }
    }

    fn source(&mut self, field: &str, mut node: Node<'_>) -> Option<Source> {
        self.mark(field, &node);
        let text = self.text(field, &mut node)?;
        if text.starts_with("sha256:") {
            let digest = text.parse().map(Source::Bundle);
            return digest
                .map_err(|error| self.bad::<Source>(Code::BadValue, field, &node, format!("{}: {error}", quoted(&text)), ""))
                .ok();
        }
        if text.is_empty() || text.chars().any(char::is_control) {
            return self.bad(Code::BadValue, field, &node, format!("{} is no file", quoted(&text)), "name a file or sha256:DIGEST");
        }
        if text.contains("://") {
            let message = format!("{}: this version does not fetch from elsewhere yet", quoted(&text));
            return self.bad(Code::NotYet, field, &node, message, "name a local file, which is uploaded");
        }
        Some(Source::File(text.into_owned()))
    }

    /// The table at `place`: `resources`, or `task.0.resources` of a group.
    pub(super) fn resources(&mut self, place: &str, node: Node<'_>) -> ResourcesSpec {
        let mut resources = ResourcesSpec::default();
        self.mark(place, &node);
        for Entry { key, span, node } in self.entries(place, node) {
            let field = &joined(place, &key);
            match key.as_ref() {
                "cpu" => resources.cpu_milli = self.amount(field, node, amount::milli, "0.5"),
                "memory" => resources.memory_bytes = self.amount(field, node, amount::size_bytes, "\"64MiB\""),
                "disk" => resources.disk_bytes = self.amount(field, node, amount::size_bytes, "\"1GiB\""),
                "ports" => resources.ports = self.list(field, node, |reader, node| reader.port(field, node)),
                "devices" => resources.devices = self.devices(field, node),
                "revocable" => resources.revocable = self.flag(field, node).unwrap_or_default(),
                other => self.unknown_at("resources", place, other, span),
            }
        }
        resources
    }

    pub(super) fn flag(&mut self, field: &str, node: Node<'_>) -> Option<bool> {
        self.mark(field, &node);
        match node.value {
            Value::Bool(flag) => Some(flag),
            _ => self.wrong_type(field, &node, "true or false"),
        }
    }

    fn port(&mut self, field: &str, mut node: Node<'_>) -> Option<Name> {
        if matches!(node.value, Value::Number(_)) {
            let help = "name it, as \"http\": the agent gives the number, and ${port.http} tells the task";
            return self.bad(Code::WrongType, field, &node, "expected a name, found a number".to_owned(), help);
        }
        self.name_of(field, &mut node)
    }

    fn devices(&mut self, place: &str, node: Node<'_>) -> Vec<Device> {
        self.mark(place, &node);
        let mut devices = Vec::new();
        for Entry { key, span, node } in self.entries(place, node) {
            let field = quoted_field(&joined(place, &key));
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

    /// The table at `place`: `limits`, or `task.0.limits` of a group.
    pub(super) fn limits(&mut self, place: &str, node: Node<'_>) -> LimitsSpec {
        let mut limits = LimitsSpec::default();
        self.mark(place, &node);
        for Entry { key, span, node } in self.entries(place, node) {
            let field = &joined(place, &key);
            match key.as_ref() {
                "fuel" => limits.fuel = self.amount(field, node, amount::fuel, "\"2G\""),
                "cpu_time" => limits.cpu_time_ms = self.amount(field, node, amount::time_ms, "\"60s\""),
                "time" => limits.time_ms = self.amount(field, node, amount::time_ms, "\"5m\""),
                "memory" => limits.memory_bytes = self.amount(field, node, amount::size_bytes, "\"64MiB\""),
                "tables" => limits.table_elements = self.small(field, node),
                "host" => limits.host_bytes = self.amount(field, node, amount::size_bytes, "\"8MiB\""),
                "processes" => limits.processes = self.small(field, node),
                "log" => limits.log_bytes = self.amount(field, node, amount::size_bytes, "\"1MiB\""),
                "log_rate" => limits.log_bytes_per_s = self.amount(field, node, amount::size_bytes, "\"1MiB\""),
                "egress" => limits.egress = self.egress(field, node),
                other => self.unknown_at("limits", place, other, span),
            }
        }
        limits
    }

    fn egress(&mut self, field: &str, mut node: Node<'_>) -> Option<Network> {
        self.mark(field, &node);
        if matches!(node.value, Value::List(_)) {
            let message = "this version does not open single addresses yet".to_owned();
            return self.bad(Code::NotYet, field, &node, message, "native and container tasks: \"host\" or \"none\"");
        }
        match self.text(field, &mut node)?.as_ref() {
            "none" => Some(Network::None),
            "host" => Some(Network::Host),
            other => self.bad(Code::BadValue, field, &node, format!("{} is no network", quoted(other)), "it is host or none"),
        }
    }
}
