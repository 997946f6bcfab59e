//! Which roles may take the place of others' tasks, or could once: nobody leaves his place but to one whose priority is higher and whose role may (P1).

use crate::check::{Verdict, hold};
use master::shard::preempt::Preempts;
use master::shard::quotas::RoleSettings;
use protocol::task::Loss;
use protocol::{AttemptId, Job, JobId, Role};
use std::collections::{BTreeMap, BTreeSet};

/// What was said of roles.
#[derive(Default)]
pub struct Rights {
    said: BTreeMap<Role, BTreeSet<Preempts>>,
    /// Tasks that left their place to others.
    pub preempted: u64,
}

impl Rights {
    /// A role is served so from now on.
    pub fn set(&mut self, role: &Role, settings: &RoleSettings) {
        self.said.entry(role.clone()).or_default().insert(settings.claim.preempts);
    }

    /// A task left its agent, as an operator or a more urgent task asked it to: a leader does not know which of both the one before it asked for. Of a job
    /// that was scaled or stopped since, a task may have been asked to stop that is wanted again by the time it has.
    ///
    /// # Errors
    /// Nobody may have.
    pub fn left(&mut self, reason: Loss, attempt: AttemptId, drained: bool, jobs: &BTreeMap<JobId, Job>) -> Verdict {
        self.preempted += u64::from(reason == Loss::Preempted);
        hold(drained || self.reach(jobs, attempt.task.job), || {
            format!("P1: {attempt} ended ({reason}), but its agent was not drained, and no job above it may take its place")
        })
    }

    /// True where a job is there, or was, whose priority is higher and whose role may take the place of this one's tasks.
    #[must_use]
    pub fn reach(&self, jobs: &BTreeMap<JobId, Job>, id: JobId) -> bool {
        let Some(job) = jobs.get(&id) else { return true };
        let may = |other: &Job| {
            let mut rights = other.role.and_above().filter_map(|role| self.said.get(&role));
            let within = job.role.is_within(&other.role);
            rights.any(|rights| rights.contains(&Preempts::All) || within && rights.contains(&Preempts::Own))
        };
        jobs.values().any(|other| other.priority > job.priority && may(other))
    }
}
