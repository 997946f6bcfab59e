//! What a system job cannot say: it has one task on each agent that its constraints let in, replaced where it is and always started again.

use super::job::{Judge, kind};
use super::problem::{Code, Problem};
use protocol::Kind;
use protocol::job::{RestartPolicy, Strategy};

impl Judge<'_> {
    /// All that makes no sense of a system job.
    pub(super) fn system(&mut self) {
        let spec = self.spec;
        if kind(spec) != Kind::System {
            return;
        }
        let mut refuse = |field: &str, message: &str, help: &str| {
            self.push(Problem::new(Code::Conflict, field, message).with_help(help));
        };
        if spec.count.is_some() {
            let message = "a system job has one task on each agent that its constraints let in: no number is said of it";
            refuse("count", message, "leave it out, or kind = \"service\"");
        }
        if spec.fenced {
            refuse(
                "service.fenced",
                "a system job has many tasks, each on an agent of its own: it cannot be fenced",
                "kind = \"service\", or leave it out",
            );
        }
        let restart = if spec.place("restart.policy").is_some() { "restart.policy" } else { "restart" };
        if spec.restart.policy.is_some_and(|policy| policy != RestartPolicy::Always) {
            refuse(restart, "a task of a system job is always started again", "leave it out: it is \"always\"");
        }
        if spec.restart.retries.is_some() {
            refuse("restart.retries", "a task of a system job is always started again", "leave it out");
        }
        let update = &spec.update;
        let in_place = "tasks of a system job are replaced where they are, and none is over";
        if update.min_healthy_milli.is_some() {
            refuse("update.min_healthy", in_place, "say update.parallel: how many at a time");
        }
        if update.max_over_milli.is_some() {
            refuse("update.max_over", in_place, "leave it out");
        }
        if update.strategy == Some(Strategy::BlueGreen) {
            refuse("update.strategy", in_place, "leave it out: it is \"rolling\"");
        }
        for (at, constraint) in spec.place.constraints.iter().enumerate().filter(|(_, constraint)| constraint.rule.asks_for_tasks()) {
            let message =
                format!("{} asks where tasks are, and a system job has one on each agent that is as it says", constraint.rule.name());
            refuse(&format!("place.constraints.{at}"), &message, "IS, LIKE, UNLIKE, or CLUSTER with a value");
        }
        if !spec.place.spread.is_empty() {
            refuse("place.spread", "a system job is on each agent that its constraints let in: there is nothing to spread", "leave it out");
        }
    }
}
