//! Tasks that a framework placed together: when one of them ends badly or is asked to stop, the others are. On record for as long as one runs.

use protocol::{Exit, JobId, Phase};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Most tasks of one group.
pub const GROUP_TASKS_MAX: usize = 100;

/// The groups of a shard, each by its first job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastingGroups(BTreeMap<JobId, Group>);

/// Jobs of one task each that belong together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Group {
    /// Those that have not ended.
    live: BTreeSet<JobId>,
    /// One has ended otherwise than by finishing: the others are to end too.
    broken: bool,
}

/// The same, with what finds a group by its tasks.
#[derive(Debug, Default)]
pub struct Groups {
    /// On record.
    pub lasting: LastingGroups,
    group_of: BTreeMap<JobId, JobId>,
}

impl Groups {
    /// Those of a snapshot.
    #[must_use]
    pub fn restore(lasting: LastingGroups) -> Self {
        let each = |(id, group): (&JobId, &Group)| group.live.iter().map(|job| (*job, *id)).collect::<Vec<_>>();
        let group_of = lasting.0.iter().flat_map(each).collect();
        Self { lasting, group_of }
    }

    /// These belong together.
    pub fn placed(&mut self, jobs: &[JobId]) {
        let Some(first) = jobs.first() else { return };
        if self.lasting.0.contains_key(first) || jobs.iter().any(|job| self.group_of.contains_key(job)) {
            return;
        }
        self.lasting.0.insert(*first, Group { live: jobs.iter().copied().collect(), broken: false });
        self.group_of.extend(jobs.iter().map(|job| (*job, *first)));
    }

    /// A job has ended so.
    pub fn ended(&mut self, job: JobId, exit: &Exit) {
        let Some(id) = self.group_of.remove(&job) else { return };
        let Some(group) = self.lasting.0.get_mut(&id) else { return };
        group.live.remove(&job);
        group.broken |= exit.phase() != Phase::Finished;
        if group.live.is_empty() {
            self.lasting.0.remove(&id);
        }
    }

    /// The group that a job is of, while it has not ended.
    #[must_use]
    pub fn of(&self, job: JobId) -> Option<JobId> {
        self.group_of.get(&job).copied()
    }

    /// The jobs of a group that have not ended.
    #[must_use]
    pub fn live(&self, group: JobId) -> Vec<JobId> {
        self.lasting.0.get(&group).map(|group| group.live.iter().copied().collect()).unwrap_or_default()
    }

    /// The jobs of a group that are to end, since another of it has; none where there is no such group.
    #[must_use]
    pub fn doomed(&self, group: JobId) -> Vec<JobId> {
        if self.lasting.0.get(&group).is_some_and(|group| group.broken) { self.live(group) } else { vec![] }
    }

    /// All groups of which some are to end.
    #[must_use]
    pub fn broken(&self) -> Vec<JobId> {
        self.lasting.0.iter().filter(|(_, group)| group.broken).map(|(id, _)| *id).collect()
    }
}
