//! What agents lend: kinds of their own beside what they have, of no role's share. The agents' shard gives them to who asks for them, and shows them to
//! frameworks that said that they take them.

use super::amounts;
use super::openings::{Opener, Openings};
use super::pool::{Pool, Standing};
use super::shown::is_useful;
use super::{PeerMessage, Shard};
use crate::frameworks::FrameworkId;
use protocol::{AgentId, Lent, Resources, ShardId};

impl Shard {
    /// So much of the agent is idle and lent: never more than it has, whatever it says.
    pub(super) fn lent(&mut self, agent: AgentId, session: u64, lent: Lent) {
        let known = self.pool.seat(agent).filter(|(_, seat)| seat.session == session && seat.standing != Standing::Expected);
        let Some((slot, seat)) = known else { return }; // Of a session before.
        let most = Lent { cpu_milli: seat.capacity.cpu_milli, memory_bytes: seat.capacity.memory_bytes };
        self.pool.set_lent(slot, lent.each(most, u64::min));
    }

    /// Says to all shards which frameworks are shown what is lent, if any are or were.
    pub(super) fn say_revocable(&mut self) {
        let takes = |id: &FrameworkId| self.frameworks.get(*id).is_some_and(|framework| framework.info.takes_revocable());
        let frameworks: Vec<FrameworkId> = self.sessions.by_id.keys().copied().filter(takes).collect();
        let before = std::mem::replace(&mut self.sessions.revocable, frameworks.clone());
        if !frameworks.is_empty() || !before.is_empty() {
            self.tell_all(&PeerMessage::Revocable { frameworks });
        }
    }
}

impl Pool {
    /// The agent lends so much from now on, beside what it has: that counts for no share, and so not for `total`.
    pub(super) fn set_lent(&mut self, slot: u32, lent: Lent) {
        let seat = &mut self.seats[slot as usize];
        let before = seat.capacity.clone();
        let mut capacity = before.firm();
        amounts::add(&mut capacity, &Resources::revocable(lent), 1);
        if capacity == before {
            return;
        }
        let more = !before.contains(&capacity);
        seat.capacity = capacity.clone();
        if before.devices.iter().map(|device| &device.name).ne(capacity.devices.iter().map(|device| &device.name)) {
            self.index.set(slot, 0, &Resources::NONE, None);
            self.index.unlearn(&before);
            self.index.learn(&capacity);
            self.index_anew();
            self.relearn_kept(slot, (&before, &capacity));
        }
        if more { self.refresh_freed(slot) } else { self.refresh(slot) }
    }

    /// These frameworks of `from` are shown what is lent, in place of what it said before.
    pub(super) fn show_revocable(&mut self, from: ShardId, frameworks: Vec<FrameworkId>) {
        self.openings.revocable.retain(|(of, _)| *of != from);
        self.openings.revocable.extend(frameworks.into_iter().map(|framework| (from, framework)));
        self.stir_all();
    }
}

impl Openings {
    /// What of this one that takes whatever comes may be shown: what is lent only where it said so.
    pub fn part_of(&self, at: u32, free: &Resources) -> Resources {
        let takes = |opener: &Opener| self.revocable.contains(&(opener.from, opener.opening.framework));
        if !free.is_revocable() || self.opener(at).is_some_and(takes) { free.clone() } else { free.firm() }
    }
}

/// True where somebody could be shown this.
pub(super) fn worth_showing(free: &Resources) -> bool {
    let Lent { cpu_milli, memory_bytes } = free.lent();
    is_useful(free) || is_useful(&Resources { cpu_milli, memory_bytes, ..Resources::NONE })
}
