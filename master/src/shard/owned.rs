//! How frameworks and their tasks stand, for whoever asks.

use super::event::Change;
use super::frameworks::unknown;
use super::{Refusal, Shard};
use crate::frameworks::{AGENTS_SHOWN_MAX, Framework, FrameworkId, FrameworkView, OFFERS_SHOWN_MAX, Own, OwnView, TASKS_COUNTED_MAX};
use crate::jobs::LivePhase;
use protocol::{AttemptId, Phase, Resources};
use std::collections::BTreeMap;
use std::ops::Bound;

impl Shard {
    /// The frameworks as they stand.
    pub(super) fn framework_views(&self) -> Vec<FrameworkView> {
        self.frameworks.lasting.live.iter().map(|(id, framework)| self.framework_view(*id, framework)).collect()
    }

    fn framework_view(&self, id: FrameworkId, framework: &Framework) -> FrameworkView {
        let session = self.sessions.by_id.get(&id);
        let (mut counts, mut used) = (BTreeMap::new(), BTreeMap::<_, Resources>::new());
        let mut agents = BTreeMap::<_, BTreeMap<_, u32>>::new();
        for own in framework.tasks.values().take(TASKS_COUNTED_MAX) {
            let phase = self.phase_of_own(own);
            *counts.entry(phase).or_insert(0) += 1;
            if agents.len() < AGENTS_SHOWN_MAX || agents.contains_key(&own.agent) {
                *agents.entry(own.agent).or_default().entry(phase).or_insert(0) += 1;
            }
            if let Some(job) = self.jobs.live(own.job).map(|live| &live.job) {
                super::amounts::add(used.entry(job.role.clone()).or_default(), &job.template.resources, 1);
            }
        }
        let held = || session.into_iter().flat_map(|session| session.hand.offers());
        let mut offered = Resources::NONE;
        held().for_each(|offer| super::amounts::add(&mut offered, &offer.resources, 1));
        FrameworkView {
            id,
            info: framework.info.clone(),
            since: framework.since,
            connected: session.is_some_and(|session| session.request.is_some()),
            n_tasks: framework.tasks.len(),
            counts,
            used,
            agents,
            n_offers: held().count(),
            offered,
            offers: held().take(OFFERS_SHOWN_MAX).cloned().collect(),
        }
    }

    /// Tasks of a framework, by name.
    pub(super) fn own_views(&self, framework: FrameworkId, from: &str, skip: usize, limit: usize) -> Result<Vec<OwnView>, Refusal> {
        let known = self.frameworks.get(framework).ok_or_else(unknown)?;
        let tasks = known.tasks.range::<str, _>((Bound::Included(from), Bound::Unbounded)).skip(skip).take(limit);
        Ok(tasks.map(|(name, own)| self.own_view(name, own)).collect())
    }

    /// Those who watch are told of a task that is new, or in another state.
    pub(super) fn publish_own(&mut self, framework: FrameworkId, name: &str, phase: Phase, new: bool) {
        let Some(own) = self.frameworks.get(framework).and_then(|known| known.tasks.get(name)) else { return };
        let task = OwnView { phase, ..self.own_view(name, own) };
        self.publish(Change::Own { framework, task, new });
    }

    fn own_view(&self, name: &str, own: &Own) -> OwnView {
        let job = self.jobs.live(own.job).map(|live| &live.job);
        OwnView {
            name: name.to_owned(),
            job: own.job,
            agent: own.agent,
            phase: self.phase_of_own(own),
            exit: own.exit.clone(),
            at: own.at,
            role: job.map(|job| job.role.clone()),
            resources: job.map(|job| job.template.resources.clone()).unwrap_or_default(),
        }
    }

    /// In which state a task of a framework is.
    pub(super) fn phase_of_own(&self, own: &Own) -> Phase {
        match &own.exit {
            Some(exit) => exit.phase(),
            None if self.unreachable.contains(&own.agent) => Phase::Unreachable,
            None => self.phase_of(AttemptId::new(own.job, 0, 1)).map_or(Phase::Staging, LivePhase::phase),
        }
    }
}
