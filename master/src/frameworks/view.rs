//! What a shard shows of frameworks: answers to questions, data only. However many tasks and offers a framework has, an answer is bounded.

use super::{FrameworkId, FrameworkInfo, OpenOffer};
use protocol::{AgentId, Exit, JobId, Phase, Resources, Role, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most tasks of a framework whose states and resources are counted for one answer: the first by name.
pub const TASKS_COUNTED_MAX: usize = 100_000;
/// Most offers of a framework in one answer.
pub const OFFERS_SHOWN_MAX: usize = 1_000;
/// Most agents of a framework in one answer.
pub const AGENTS_SHOWN_MAX: usize = 1_000;

/// A framework as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameworkView {
    /// Its id.
    pub id: FrameworkId,
    /// What it says of itself.
    pub info: FrameworkInfo,
    /// When it was first subscribed.
    pub since: Time,
    /// True where it is subscribed now.
    pub connected: bool,
    /// How many tasks it has: those that have not ended, and those whose end it has not acknowledged.
    pub n_tasks: usize,
    /// How many of these are in which state, of the first [`TASKS_COUNTED_MAX`].
    pub counts: BTreeMap<Phase, u32>,
    /// What these are promised, by role.
    pub used: BTreeMap<Role, Resources>,
    /// Where these are or were, and how many of which state: at most [`AGENTS_SHOWN_MAX`] agents.
    pub agents: BTreeMap<AgentId, BTreeMap<Phase, u32>>,
    /// How many offers it holds.
    pub n_offers: usize,
    /// What all of them show together.
    pub offered: Resources,
    /// At most [`OFFERS_SHOWN_MAX`] of them, by number.
    pub offers: Vec<OpenOffer>,
}

/// A task of a framework as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnView {
    /// What the framework calls it.
    pub name: String,
    /// The job that it is the one task of.
    pub job: JobId,
    /// Where it is or was.
    pub agent: AgentId,
    /// Its state.
    pub phase: Phase,
    /// How it ended, where it has.
    pub exit: Option<Exit>,
    /// When it was placed, or ended.
    pub at: Time,
    /// For which role it is counted; `None` once it has ended.
    pub role: Option<Role>,
    /// What it is promised; nothing once it has ended.
    pub resources: Resources,
}

impl FrameworkView {
    /// What its tasks are promised, whatever their roles.
    #[must_use]
    pub fn used(&self) -> Resources {
        self.used.values().fold(Resources::NONE, |sum, used| sum.checked_add(used).unwrap_or_default())
    }
}
