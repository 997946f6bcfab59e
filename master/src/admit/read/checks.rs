//! What is asked of tasks: `[health]` and `[readiness]`, or those of each `[[task]]` of a group.

use super::Reader;
use crate::admit::amount;
use crate::admit::problem::Code;
use crate::admit::spec::CheckSpec;
use crate::admit::tree::{Entry, Node, Value, joined};
use protocol::Name;

impl Reader {
    /// The table at `place`: `health`, or `task.0.health` of a group.
    pub(super) fn check(&mut self, place: &str, node: Node<'_>) -> CheckSpec {
        let mut check = CheckSpec::default();
        self.mark(place, &node);
        for Entry { key, span, mut node } in self.entries(place, node) {
            let field = &joined(place, &key);
            match key.as_ref() {
                "http" => check.http = self.marked_text(field, &mut node),
                "https" => check.https = self.marked_text(field, &mut node),
                "wasm" => check.wasm = self.marked_text(field, &mut node),
                "exec" => check.exec = self.command(field, node),
                "tcp" => check.tcp = self.asked_port(field, node),
                "port" => check.port = self.asked_port(field, node),
                "delay" => check.delay_ms = self.amount(field, node, amount::time_ms, "\"15s\""),
                "grace" => check.grace_ms = self.amount(field, node, amount::time_ms, "\"30s\""),
                "every" => check.every_ms = self.amount(field, node, amount::time_ms, "\"5s\""),
                "timeout" => check.timeout_ms = self.amount(field, node, amount::time_ms, "\"5s\""),
                "failures" => check.failures = self.small(field, node),
                "ignore_1xx" => check.ignore_1xx = self.flag(field, node),
                other => self.unknown_at("health", place, other, span),
            }
        }
        check
    }

    fn asked_port(&mut self, field: &str, mut node: Node<'_>) -> Option<Name> {
        self.mark(field, &node);
        if matches!(node.value, Value::Number(_)) {
            let help = "name one of resources.ports, as \"http\": the agent knows its number";
            return self.bad(Code::WrongType, field, &node, "expected a port's name, found a number".to_owned(), help);
        }
        self.name_of(field, &mut node)
    }
}
