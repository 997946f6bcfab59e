//! What agents have to do with a shard: whoever leads it tells them so in this order.

use super::{PeerMessage, Shard};
use protocol::AgentId;
use protocol::message::shard_of_agent;

/// What an agent has to do with a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concern {
    /// It is the agent's own shard.
    Own,
    /// The agent has tasks of the shard, by the record.
    Tasks,
    /// Nothing, or nothing but an end that is on record and that the agent does not know to be.
    None,
}

impl Shard {
    /// What an agent has to do with this shard.
    #[must_use]
    pub fn concern(&self, agent: AgentId) -> Concern {
        if shard_of_agent(agent, self.config.shards) == self.config.id {
            Concern::Own
        } else if self.jobs.by_agent.contains_key(&agent) {
            Concern::Tasks
        } else {
            Concern::None
        }
    }
}

impl PeerMessage {
    /// The version of the messages that this variant came with: to a master of an earlier one it is not said.
    #[must_use]
    pub const fn since(&self) -> u16 {
        match self {
            Self::Open { .. }
            | Self::Shown { .. }
            | Self::Rescinded { .. }
            | Self::Take { .. }
            | Self::Leave { .. }
            | Self::Emptied { .. }
            | Self::Uses(_)
            | Self::Revive { .. } => 2,
            Self::Claims { .. } | Self::Allow { .. } | Self::Spends { .. } => 3,
            Self::DemandPlaced { .. } | Self::OffersPlaced { .. } | Self::Stuck { .. } => 3,
            Self::Ranks { .. } | Self::Yield { .. } => 3,
            Self::Seek { .. } | Self::Windows { .. } | Self::Revocable { .. } => 3,
            Self::ShownReserved { .. } | Self::Reserve { .. } | Self::Reserved { .. } | Self::Misfits { .. } => 3,
            Self::AfterAsked { .. } | Self::AfterSaid { .. } | Self::BesideAsked { .. } | Self::BesideSaid { .. } => 3,
            Self::MatchesAsked { .. } | Self::MatchesSaid { .. } | Self::Tied { .. } => 3,
            _ => 1,
        }
    }

    /// The agent that tasks of the sender's are given to with this, if it is one: from then on it has something to say to the sender.
    #[must_use]
    pub const fn gives_to(&self) -> Option<AgentId> {
        match self {
            Self::Accept { agent, launches, .. } | Self::Take { agent, launches, .. } | Self::Stage { agent, launches, .. }
                if !launches.is_empty() =>
            {
                Some(*agent)
            }
            _ => None,
        }
    }
}
