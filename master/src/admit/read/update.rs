//! `[update]` and `[service]`, field by field.

use super::Reader;
use crate::admit::amount;
use crate::admit::problem::{Code, quoted};
use crate::admit::tree::{Entry, Node};
use crate::admit::update::UpdateSpec;
use protocol::Name;
use protocol::job::Strategy;

impl Reader {
    /// `[update]`.
    pub(super) fn update(&mut self, node: Node<'_>) -> UpdateSpec {
        let mut update = UpdateSpec::default();
        for Entry { key, span, node } in self.entries("update", node) {
            match key.as_ref() {
                "parallel" => update.parallel = self.small("update.parallel", node),
                "min_healthy" => update.min_healthy_milli = self.share("update.min_healthy", node),
                "max_over" => update.max_over_milli = self.share("update.max_over", node),
                "canary" => update.canary = self.small("update.canary", node),
                "strategy" => update.strategy = self.strategy(node),
                "deadline" => update.deadline_ms = self.amount("update.deadline", node, amount::time_ms, "\"10m\""),
                "auto_rollback" => update.auto_rollback = self.flag("update.auto_rollback", node),
                "max_failures" => update.failures_max = self.small("update.max_failures", node),
                "settle" => update.settle_ms = self.amount("update.settle", node, amount::time_ms, "\"1s\""),
                other => self.unknown("update", other, span),
            }
        }
        update
    }

    /// A part of the count, in thousandths.
    fn share(&mut self, field: &str, node: Node<'_>) -> Option<u32> {
        let share = self.amount(field, node, amount::milli, "0.5");
        // What does not fit is far over the bound that is said for it.
        share.map(|share| u32::try_from(share).unwrap_or(u32::MAX))
    }

    fn strategy(&mut self, mut node: Node<'_>) -> Option<Strategy> {
        self.mark("update.strategy", &node);
        match self.text("update.strategy", &mut node)?.as_ref() {
            "rolling" => Some(Strategy::Rolling),
            "blue-green" => Some(Strategy::BlueGreen),
            other => {
                let message = format!("{} is no strategy", quoted(other));
                self.bad(Code::BadValue, "update.strategy", &node, message, "it is rolling or blue-green")
            }
        }
    }

    /// `[service]`: whether it is to be fenced, and what it begins after.
    pub(super) fn service(&mut self, node: Node<'_>) -> (bool, Vec<Name>) {
        let (mut fenced, mut after) = (false, Vec::new());
        for Entry { key, span, node } in self.entries("service", node) {
            match key.as_ref() {
                "fenced" => fenced = self.flag("service.fenced", node).unwrap_or(false),
                "after" => after = self.list("service.after", node, |reader, mut node| reader.name_of("service.after", &mut node)),
                other => self.unknown("service", other, span),
            }
        }
        (fenced, after)
    }
}
