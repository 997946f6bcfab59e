//! The framework's shard: whether live tasks are well, as their agents say. A task with checks is ready only while it is. Not on record: agents say it again
//! to whoever leads next, and until then it is neither.

use super::Shard;
use super::event::Change;
use super::view::{HealthCounts, HealthView};
use crate::jobs::{LivePhase, Slot};
use protocol::message::NOTES_PER_MESSAGE_MAX;
use protocol::task::{HEALTH_BYTES_MAX, Health, Placed, Verdict};
use protocol::{AgentId, AttemptId, JobId, Phase};
use std::collections::BTreeMap;

/// Tasks of one shard of which it is kept why they are not well; of others only that they are not.
const REASONS_MAX: usize = 65_536;

/// Why live tasks are not well.
#[derive(Debug, Default)]
pub(super) struct Healths {
    reasons: BTreeMap<AttemptId, String>,
}

impl Healths {
    /// Whether something was said of it, and it was not well.
    fn reason(&self, attempt: AttemptId) -> Option<&String> {
        self.reasons.get(&attempt)
    }

    /// An attempt has ended.
    pub fn forget(&mut self, attempt: AttemptId) {
        if !self.reasons.is_empty() {
            self.reasons.remove(&attempt);
        }
    }

    fn note(&mut self, attempt: AttemptId, verdict: Verdict, reason: &str) -> bool {
        if verdict == Verdict::Healthy {
            return self.reasons.remove(&attempt).is_some();
        }
        let room = self.reasons.len() < REASONS_MAX || self.reasons.contains_key(&attempt);
        room && self.reasons.insert(attempt, reason.to_owned()).is_none_or(|before| before != reason)
    }
}

impl Shard {
    /// An agent says whether tasks are well. What is said of tasks that are not on it, or have no checks, changes nothing.
    pub(super) fn healths(&mut self, agent: AgentId, healths: Vec<Health>) {
        if healths.len() > NOTES_PER_MESSAGE_MAX {
            return self.disconnect(agent, "more words on health than a message may have");
        }
        let mut begun: BTreeMap<JobId, Vec<(u32, u32)>> = BTreeMap::new();
        let mut news: BTreeMap<(JobId, Verdict), Vec<(Placed, String)>> = BTreeMap::new();
        for Health { attempt, verdict, reason } in healths {
            let Some((before, checked)) = self.phase_and_checks(attempt).filter(|_| self.jobs.is_live_on(attempt, agent)) else { continue };
            if !checked || before == LivePhase::Killing {
                continue; // It is to end, whether it is well or not.
            }
            let (phase, reason) = (phase_of(verdict), plain(&reason));
            let is_new = self.healths.note(attempt, verdict, &reason);
            if phase == before && !is_new {
                continue;
            }
            let (job, index) = (attempt.task.job, attempt.task.index);
            if before < LivePhase::Running {
                begun.entry(job).or_default().push((index, attempt.number));
            }
            self.jobs.set_phase(attempt, phase);
            news.entry((job, verdict)).or_default().push((Placed { attempt, agent }, reason));
        }
        for (job, attempts) in begun {
            self.publish_tasks(job, Phase::Running, agent, &attempts);
            self.task_news(job, Phase::Running);
        }
        for ((job, verdict), found) in news {
            // A task of a framework is the only one of its job; of one that is only not ready yet nothing is known.
            if let Some((_, reason)) = found.first().filter(|_| verdict != Verdict::Unready) {
                self.task_health(job, verdict == Verdict::Healthy, reason.clone());
            }
            self.publish_health(job, verdict, found);
            self.roll(job);
        }
    }

    /// What a live attempt is, and whether its version has checks.
    fn phase_and_checks(&self, attempt: AttemptId) -> Option<(LivePhase, bool)> {
        let job = self.jobs.live(attempt.task.job)?;
        let cell = job.cells.get(attempt.task.index).filter(|cell| cell.slot == Slot::Live && cell.number == attempt.number)?;
        Some((cell.phase, job.template(cell.version).has_checks()))
    }

    fn publish_health(&mut self, job: JobId, verdict: Verdict, found: Vec<(Placed, String)>) {
        let Some(role) = self.jobs.live(job).map(|live| live.job.role.clone()) else { return };
        self.publish(Change::Health { job, role, health: verdict_text(verdict).into(), found });
    }

    /// How many tasks of these jobs that can be reached are well and how many are not; of jobs without checks nothing.
    pub(super) fn health_counts(&self, jobs: &[JobId]) -> Vec<(JobId, HealthCounts)> {
        let of = |id: &JobId| {
            let job = self.jobs.live(*id)?;
            let of = |phase: LivePhase| job.derived.phases[phase as usize];
            let mut counts =
                HealthCounts { healthy: of(LivePhase::Healthy), unready: of(LivePhase::Unready), unhealthy: of(LivePhase::Unhealthy) };
            for (_, cell) in self.unreachable_of(*id) {
                match cell.phase {
                    LivePhase::Healthy => counts.healthy -= 1,
                    LivePhase::Unready => counts.unready -= 1,
                    LivePhase::Unhealthy => counts.unhealthy -= 1,
                    _ => {}
                }
            }
            let any = counts.healthy + counts.unready + counts.unhealthy > 0;
            (any || job.job.template.has_checks()).then_some((*id, counts))
        };
        jobs.iter().filter_map(of).collect()
    }

    /// Whether these tasks of a job are well: of those that run, can be reached and have checks.
    pub(super) fn health_views(&self, id: JobId, indexes: &[u32]) -> Vec<(u32, HealthView)> {
        let Some(job) = self.jobs.live(id) else { return vec![] };
        let view = |index: &u32| {
            let cell = job.cells.get(*index).filter(|cell| cell.slot == Slot::Live && !self.unreachable.contains(&cell.agent))?;
            let verdict = match cell.phase {
                LivePhase::Healthy => Verdict::Healthy,
                LivePhase::Unready => Verdict::Unready,
                LivePhase::Unhealthy => Verdict::Unhealthy,
                _ => return None,
            };
            let reason = self.healths.reason(AttemptId::new(id, *index, cell.number)).cloned().unwrap_or_default();
            Some((*index, HealthView { verdict, reason }))
        };
        indexes.iter().filter_map(view).collect()
    }

    /// Live tasks of older versions that their agents say are not well: to replace one of them costs nothing that is there.
    pub(super) fn unwell_and_outdated(&self, id: JobId) -> Vec<u32> {
        let Some(job) = self.jobs.live(id).filter(|job| job.outdated() > 0) else { return vec![] };
        let phases = &job.derived.phases;
        if phases[LivePhase::Unhealthy as usize] + phases[LivePhase::Unready as usize] == 0 {
            return vec![];
        }
        let unwell = |(index, cell): (u32, &crate::jobs::Cell)| {
            let said = self.healths.reason(AttemptId::new(id, index, cell.number)).is_some();
            let is_unwell = cell.phase == LivePhase::Unhealthy || cell.phase == LivePhase::Unready && said;
            (cell.slot == Slot::Live && cell.version != job.version && is_unwell).then_some(index)
        };
        job.cells.iter_from(0).filter_map(unwell).collect()
    }
}

const fn phase_of(verdict: Verdict) -> LivePhase {
    match verdict {
        Verdict::Healthy => LivePhase::Healthy,
        Verdict::Unready => LivePhase::Unready,
        Verdict::Unhealthy => LivePhase::Unhealthy,
    }
}

/// As the API writes it.
#[must_use]
pub const fn verdict_text(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Healthy => "healthy",
        Verdict::Unready => "unready",
        Verdict::Unhealthy => "unhealthy",
    }
}

/// A reason as it is kept: an agent may be stolen, and say anything.
pub(super) fn plain(reason: &str) -> String {
    let shown = reason.chars().take(HEALTH_BYTES_MAX).map(crate::admit::problem::shown);
    let mut text: String = shown.collect();
    text.truncate(text.floor_char_boundary(HEALTH_BYTES_MAX));
    text
}
