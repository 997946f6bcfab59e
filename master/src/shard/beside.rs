//! Tasks that may be on an agent only beside tasks of another job, or not beside them (`NEAR`, `APART`). The framework's shard knows which job is called so
//! now: it asks the shard that keeps it, and says nothing of what waits before it has heard. The agents' shard knows what is on its agents: whoever meets the rules of
//! a rule set changes with that, and what is taken of an offer that does not hold any more is refused. Said again, such tasks are not launched: they were placed
//! by what was there then, and what the agent does not hold is placed anew.

use super::pool::Pool;
use super::{Action, PeerMessage, Shard};
use crate::shard::event::PlacedWant;
use protocol::message::{Launch, shard_of_job};
use protocol::place::CONSTRAINTS_MAX;
use protocol::{AttemptId, JobId, Name, Placement, Role, ShardId, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How long until it is asked again who is called so, in milliseconds.
const ASK_MS: u64 = 500;

/// Who is called so, of the names by which tasks that wait are kept near or apart.
#[derive(Debug, Default)]
pub(super) struct Beside {
    known: BTreeMap<(Role, Name), Option<JobId>>,
    /// When it is asked again; `None`: nobody waits for that.
    due: Option<Time>,
    /// The agents' shard: jobs that are kept near or apart, of those that the sender's next `Stage` is about.
    tied: BTreeMap<ShardId, BTreeSet<JobId>>,
}

impl Shard {
    /// When it is to be asked who is called so.
    pub(super) fn beside_due(&self) -> Option<Time> {
        self.deployments.beside.due
    }

    /// Puts into each want who is called so, and leaves out those of which that is not known yet.
    pub(super) fn resolve(&mut self, wants: &mut Vec<PlacedWant>) {
        let mut is_asked = false;
        wants.retain_mut(|want| {
            is_asked |= want.place.neighbours().next().is_some();
            match self.deployments.beside.resolved(&want.want.role, &want.place) {
                None => false,
                Some(None) => true,
                Some(Some(place)) => {
                    want.place = place;
                    true
                }
            }
        });
        if !is_asked {
            (self.deployments.beside.known, self.deployments.beside.due) = (BTreeMap::new(), None);
        } else if self.deployments.beside.due.is_none() {
            self.deployments.beside.due = Some(self.now);
        }
    }

    /// Asks who is called so.
    pub(super) fn ask_beside(&mut self) {
        if self.deployments.beside.due.is_none_or(|due| due > self.now) {
            return;
        }
        let all: BTreeSet<(Role, Name)> = self.jobs.neighbours().collect();
        self.deployments.beside.known.retain(|key, _| all.contains(key));
        self.deployments.beside.due = (!all.is_empty()).then(|| self.now + ASK_MS);
        let mut asked: BTreeMap<(ShardId, Role), Vec<Name>> = BTreeMap::new();
        for (role, name) in all {
            let shard = shard_of_job(&role, name.as_str(), self.config.shards);
            asked.entry((shard, role)).or_default().push(name);
        }
        for ((to, role), names) in asked {
            for names in names.chunks(CONSTRAINTS_MAX) {
                self.at_once(Action::Peer { to, message: PeerMessage::BesideAsked { role: role.clone(), names: names.to_vec() } });
            }
        }
    }

    /// Another shard, or ours, asks who is called so.
    pub(super) fn beside_asked(&mut self, from: ShardId, role: Role, names: Vec<Name>) {
        let found = |name: Name| {
            let id = self.jobs.named(&role, &name).filter(|id| self.jobs.live(*id).is_some());
            (name, id)
        };
        let ids = names.into_iter().take(CONSTRAINTS_MAX).map(found).collect();
        // Held: it says what is on record.
        self.held(Action::Peer { to: from, message: PeerMessage::BesideSaid { role, ids } });
    }

    /// These are called so.
    pub(super) fn beside_said(&mut self, role: &Role, ids: Vec<(Name, Option<JobId>)>) {
        if self.deployments.beside.due.is_none() {
            return;
        }
        let asked: BTreeSet<(Role, Name)> = self.jobs.neighbours().collect();
        for (name, id) in ids {
            let key = (role.clone(), name);
            if asked.contains(&key) && self.deployments.beside.known.insert(key, id) != Some(id) {
                self.jobs.lines.changed = true;
            }
        }
    }

    /// Says to an agents' shard which jobs are kept near or apart, of those whose tasks it is told of again.
    pub(super) fn say_tied(&mut self, to: ShardId, launches: &[Launch]) {
        let is_tied = |id: &JobId| {
            let place = self.jobs.live(*id).and_then(|job| job.job.place.as_ref());
            place.is_some_and(|place| place.neighbours().next().is_some())
        };
        let jobs: BTreeSet<JobId> = launches.iter().map(|launch| launch.job).filter(is_tied).collect();
        if !jobs.is_empty() {
            self.held(Action::Peer { to, message: PeerMessage::Tied { jobs: jobs.into_iter().collect() } });
        }
    }

    /// These jobs are kept near or apart, of those that the next `Stage` of this shard is about.
    pub(super) fn hear_tied(&mut self, from: ShardId, jobs: Vec<JobId>) {
        self.deployments.beside.tied.insert(from, jobs.into_iter().collect());
    }

    /// What was said so.
    pub(super) fn take_tied(&mut self, from: ShardId) -> BTreeSet<JobId> {
        self.deployments.beside.tied.remove(&from).unwrap_or_default()
    }
}

impl Beside {
    /// The placement with who is called so; `Some(None)`: it is about nobody, `None`: that is not known yet.
    fn resolved(&self, role: &Role, place: &Arc<Placement>) -> Option<Option<Arc<Placement>>> {
        if place.neighbours().next().is_none() {
            return Some(None);
        }
        let mut place = (**place).clone();
        for other in place.constraints.iter_mut().filter_map(|constraint| constraint.rule.neighbour_mut()) {
            other.id = *self.known.get(&(role.clone(), other.name.clone()))?;
        }
        Some(Some(Arc::new(place)))
    }
}

impl Pool {
    /// Attempts came to an agent or left it: rules that ask for their jobs may let it in now, or no longer.
    pub(super) fn neighbours_moved(&mut self, slot: u32, jobs: &[JobId]) {
        for job in jobs {
            let is_there = has(&self.seats[slot as usize].attempts, *job);
            let sets = self.aims.rules.moved(*job, slot, is_there);
            if sets.is_empty() {
                continue;
            }
            for at in 0..u32::try_from(self.wants.len()).expect("fewer wants than shards have") {
                let Some(want) = self.wants[at as usize].as_ref().filter(|want| want.aim.is_some()) else { continue };
                let rules = self.shape(want.class).and_then(|class| class.rules);
                if rules.is_some_and(|rules| sets.contains(&rules)) {
                    self.look_once_more(at);
                }
            }
            self.freed.insert(slot);
        }
    }

    /// Of these attempts' jobs those that rules ask for.
    pub(super) fn neighbours_of<'a>(&self, attempts: impl Iterator<Item = &'a AttemptId>) -> Vec<JobId> {
        if !self.aims.rules.asks_for_any() {
            return Vec::new();
        }
        let mut jobs: Vec<JobId> = attempts.map(|attempt| attempt.task.job).filter(|job| self.aims.rules.asks_for(*job)).collect();
        jobs.dedup();
        jobs
    }

    /// The slots of agents with tasks of a job.
    pub(super) fn slots_with(seats: &[super::pool::Seat], job: JobId) -> BTreeSet<u32> {
        (0..).zip(seats).filter(|(_, seat)| has(&seat.attempts, job)).map(|(slot, _)| slot).collect()
    }
}

/// True where attempts of a job are among these.
pub(super) fn has(attempts: &super::attempts::Attempts, job: JobId) -> bool {
    attempts.between(&AttemptId::new(job, 0, 0), &AttemptId::new(job, u32::MAX, u32::MAX)).next().is_some()
}
