//! Resources of one agent shown to one framework until a deadline.

use crate::{AgentId, OfferId, Resources, Role, Time};
use serde::{Deserialize, Serialize};

/// Resources of one agent shown to one framework; accepted, declined, expired or rescinded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Its name.
    pub id: OfferId,
    /// Whose resources.
    pub agent: AgentId,
    /// Which life of the agent: a task that it had in an earlier one is lost.
    pub incarnation: u64,
    /// For which role.
    pub role: Role,
    /// How much.
    pub resources: Resources,
    /// Until when; accepted later it is refused.
    pub deadline: Time,
}
