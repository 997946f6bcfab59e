//! Fenced attempts of which no agent says that they ended: on record as lost once their lease must be over, and not before.
//!
//! An agent's lease is renewed by the answers to its beats, so nothing need be known of it here but when it can last have been renewed. A silent
//! agent is lost later than that by the shard's config. Not on record: a new leader hears again what led to it, and waits anew.

use super::Shard;
use super::pool::Silence;
use super::tasks::{Ends, note};
use protocol::{AgentId, AttemptId, Exit, FromMaster, Time};
use std::collections::{BTreeMap, BTreeSet};

/// Fenced attempts that are held to be lost.
#[derive(Debug, Default)]
pub(super) struct Fences {
    doubted: BTreeMap<AttemptId, Doubt>,
    due: BTreeSet<(Time, AttemptId)>,
}

#[derive(Debug)]
struct Doubt {
    due: Time,
    agent: AgentId,
    exit: Exit,
}

impl Fences {
    /// When the next lease is over.
    pub(super) fn due(&self) -> Option<Time> {
        self.due.first().map(|(due, _)| *due)
    }

    /// True where this attempt is held to be lost.
    pub(super) fn doubts(&self, attempt: AttemptId) -> bool {
        self.doubted.contains_key(&attempt)
    }

    /// True where an attempt on this agent is.
    pub(super) fn doubts_any_on(&self, agent: AgentId) -> bool {
        self.doubted.values().any(|doubt| doubt.agent == agent)
    }

    fn drop(&mut self, attempt: AttemptId) -> Option<Doubt> {
        let doubt = self.doubted.remove(&attempt)?;
        self.due.remove(&(doubt.due, attempt));
        Some(doubt)
    }
}

impl Shard {
    /// True where the attempt, which is live, runs only while its agent's lease holds.
    fn is_fenced(&self, attempt: AttemptId) -> bool {
        let job = self.jobs.live(attempt.task.job);
        let version = job.and_then(|job| job.cells.get(attempt.task.index)).map(|cell| cell.version);
        job.zip(version).is_some_and(|(job, version)| job.template(version).is_fenced())
    }

    /// Notes an end that is inferred, not told: of a fenced attempt it is put off until its lease is over. Nothing renews that any more: the agent
    /// is gone, or its ledger, which says which leases are renewed, does not know the attempt.
    pub(super) fn infer(&mut self, ends: &mut Ends, agent: AgentId, attempt: AttemptId, exit: Exit) {
        if !self.is_fenced(attempt) {
            return note(ends, attempt, exit);
        }
        let due = self.now + self.config.lease_over_ms();
        if let std::collections::btree_map::Entry::Vacant(place) = self.fences.doubted.entry(attempt) {
            place.insert(Doubt { due, agent, exit });
            self.fences.due.insert((due, attempt));
        }
    }

    /// Its agent says that it is there after all.
    pub(super) fn undoubt(&mut self, attempt: AttemptId) {
        self.fences.drop(attempt);
    }

    /// Ends those on record whose leases are over, and that did not end otherwise meanwhile.
    pub(super) fn end_fenced(&mut self) {
        while let Some((_, attempt)) = self.fences.due.first().copied().filter(|(due, _)| *due <= self.now) {
            let Some(Doubt { agent, exit, .. }) = self.fences.drop(attempt) else { return };
            if self.jobs.is_live_on(attempt, agent) {
                let mut ends = Ends::new();
                note(&mut ends, attempt, exit);
                self.end_attempts(agent, ends);
            }
        }
    }

    /// Tells an agent for how long fenced attempts run there, and which of its beats was heard last: not each is answered. Before it hears of
    /// any, and only where it is not lost.
    pub(super) fn say_lease(&mut self, agent: AgentId) {
        let lease_ms = self.config.lease_ms;
        let beaten = self.pool.seat(agent).filter(|(_, seat)| seat.silence != Silence::Lost).and_then(|(_, seat)| seat.beaten);
        if let Some(sent) = beaten {
            self.at_once(super::Action::Send { agent, message: FromMaster::BeatAck { sent } });
        }
        self.at_once(super::Action::Send { agent, message: FromMaster::Lease { lease_ms } });
    }
}
