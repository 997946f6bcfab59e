//! `[update]`: how the tasks of a service are replaced by those of a new version. As it is written, what it may be, and what it means.

use super::job::{Judge, cores, millis as text_of_ms};
use super::spec::{milli, millis, put, unless_empty};
use protocol::job::{COUNT_MAX, SETTLE_MS_DEFAULT, Strategy, UPDATE_MS_MAX, Update};
use serde_json::{Map, Value};

/// The most of a fraction of the count, in thousandths.
const WHOLE_MILLI: u32 = 1_000;
/// The shortest deadline that can be named, in milliseconds.
const DEADLINE_MS_MIN: u64 = 1_000;
/// Most failures that can be named.
pub const FAILURES_MAX: u32 = 1_000_000;

/// `[update]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpdateSpec {
    /// `parallel`: how many at a time.
    pub parallel: Option<u32>,
    /// `min_healthy`: how many do their work at any time, in thousandths of the count.
    pub min_healthy_milli: Option<u32>,
    /// `max_over`: how many may run beyond the count, in thousandths of it.
    pub max_over_milli: Option<u32>,
    /// `canary`: so many first.
    pub canary: Option<u32>,
    /// `strategy`.
    pub strategy: Option<Strategy>,
    /// `deadline`.
    pub deadline_ms: Option<u64>,
    /// `auto_rollback`.
    pub auto_rollback: Option<bool>,
    /// `max_failures`.
    pub failures_max: Option<u32>,
    /// `settle`.
    pub settle_ms: Option<u64>,
}

impl UpdateSpec {
    /// True where something is said.
    #[must_use]
    pub fn is_said(&self) -> bool {
        *self != Self::default()
    }

    /// How many are replaced at a time: as many as may be missing or over, where only that is said, and else one.
    #[must_use]
    pub fn parallel(&self) -> u32 {
        let of_shares = self.min_healthy_milli.is_some() || self.max_over_milli.is_some();
        self.parallel.unwrap_or(if of_shares { COUNT_MAX } else { 1 })
    }

    /// All else that it means.
    #[must_use]
    pub fn build(&self) -> Update {
        let usual = Update::default();
        Update {
            strategy: self.strategy.unwrap_or(usual.strategy),
            min_healthy_milli: self.min_healthy_milli,
            max_over_milli: self.max_over_milli.unwrap_or(usual.max_over_milli),
            canary: self.canary.unwrap_or(usual.canary),
            deadline_ms: self.deadline_ms.unwrap_or(usual.deadline_ms),
            auto_rollback: self.auto_rollback.unwrap_or(usual.auto_rollback),
            failures_max: self.failures_max,
            settle_ms: self.settle_ms.unwrap_or(SETTLE_MS_DEFAULT),
        }
    }

    pub(super) fn to_value(self) -> Option<Value> {
        let mut update = Map::new();
        let share = |share: u32| milli(u64::from(share));
        put(&mut update, "parallel", self.parallel.map(Value::from));
        put(&mut update, "min_healthy", self.min_healthy_milli.map(share));
        put(&mut update, "max_over", self.max_over_milli.map(share));
        put(&mut update, "canary", self.canary.map(Value::from));
        put(&mut update, "strategy", self.strategy.map(|strategy| Value::from(strategy_name(strategy))));
        put(&mut update, "deadline", self.deadline_ms.map(millis));
        put(&mut update, "auto_rollback", self.auto_rollback.map(Value::from));
        put(&mut update, "max_failures", self.failures_max.map(Value::from));
        put(&mut update, "settle", self.settle_ms.map(millis));
        unless_empty(update)
    }
}

/// As it is written in a job file.
#[must_use]
pub const fn strategy_name(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Rolling => "rolling",
        Strategy::BlueGreen => "blue-green",
    }
}

impl Judge<'_> {
    pub(super) fn update(&mut self, update: &UpdateSpec) {
        let share = |share: u32| cores(u64::from(share));
        self.within("update.parallel", update.parallel, (1, COUNT_MAX), |count| count.to_string());
        self.within("update.min_healthy", update.min_healthy_milli, (0, WHOLE_MILLI), share);
        self.within("update.max_over", update.max_over_milli, (0, WHOLE_MILLI), share);
        self.within("update.canary", update.canary, (0, COUNT_MAX), |count| count.to_string());
        self.within("update.deadline", update.deadline_ms, (DEADLINE_MS_MIN, UPDATE_MS_MAX), text_of_ms);
        self.within("update.max_failures", update.failures_max, (0, FAILURES_MAX), |count| count.to_string());
        self.within("update.settle", update.settle_ms, (0, UPDATE_MS_MAX), text_of_ms);
    }
}
