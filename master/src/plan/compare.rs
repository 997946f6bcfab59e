//! What is otherwise in a cluster than before: which tasks are elsewhere, wait, began or ended.

use crate::shard::Stood;
use protocol::{AgentId, JobId, Role};
use std::collections::BTreeMap;

/// What becomes of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It ran, and waits.
    Waits,
    /// It ran, and has ended for good.
    Ends,
    /// It runs elsewhere.
    Moves,
    /// It runs where it ran, in another attempt.
    Restarts,
    /// It waited or was not there, and runs.
    Starts,
}

impl Fate {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Waits, Self::Ends, Self::Moves, Self::Restarts, Self::Starts];

    /// As people see it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Waits => "waits",
            Self::Ends => "ends",
            Self::Moves => "moves",
            Self::Restarts => "restarts",
            Self::Starts => "starts",
        }
    }
}

/// A task that is otherwise than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Its job.
    pub job: JobId,
    /// What people call that.
    pub title: String,
    /// Its job's role.
    pub role: Role,
    /// Which of the job's.
    pub index: u32,
    /// What becomes of it.
    pub fate: Fate,
    /// Where it was.
    pub from: Option<AgentId>,
    /// Where it is.
    pub to: Option<AgentId>,
}

/// How all jobs of a cluster stand.
pub type Standing = BTreeMap<JobId, Stood>;

/// The tasks that are otherwise in `after` than in `before`, by job and index.
#[must_use]
pub fn changes(before: &Standing, after: &Standing) -> Vec<Changed> {
    let mut found = Vec::new();
    let mut note = |id: &JobId, job: &Stood, index: u32, fate: Fate, from: Option<AgentId>, to: Option<AgentId>| {
        found.push(Changed { job: *id, title: job.title.clone(), role: job.role.clone(), index, fate, from, to });
    };
    for (id, was) in before {
        let Some(is) = after.get(id) else {
            was.tasks.iter().for_each(|(index, (agent, _))| note(id, was, *index, Fate::Ends, Some(*agent), None));
            continue;
        };
        // A job that has fewer tasks on agents than before and does not wait for them has ended them.
        let gone = was.tasks.keys().filter(|index| !is.tasks.contains_key(index)).count();
        let mut waits = gone.min(is.waiting as usize + is.backing_off as usize);
        for (index, (from, number)) in &was.tasks {
            match is.tasks.get(index) {
                Some((to, _)) if to != from => note(id, is, *index, Fate::Moves, Some(*from), Some(*to)),
                Some((to, now)) if now != number => note(id, is, *index, Fate::Restarts, Some(*from), Some(*to)),
                Some(_) => {}
                None if waits > 0 => {
                    waits -= 1;
                    note(id, is, *index, Fate::Waits, Some(*from), None);
                }
                None => note(id, is, *index, Fate::Ends, Some(*from), None),
            }
        }
    }
    for (id, is) in after {
        let was = before.get(id);
        for (index, (to, _)) in is.tasks.iter().filter(|(index, _)| was.is_none_or(|was| !was.tasks.contains_key(index))) {
            note(id, is, *index, Fate::Starts, None, Some(*to));
        }
    }
    found.sort_by_key(|changed| (changed.job, changed.index));
    found
}
