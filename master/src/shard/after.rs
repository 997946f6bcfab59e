//! The framework's shard: services that begin after others of their role. Those may be kept by other shards: each is asked how its stands, until all of them
//! do their work; that is put on record, and never asked again.

use super::{Action, PeerMessage, Record, Refusal, Shard};
use crate::jobs::Entry;
use protocol::job::AFTER_MAX;
use protocol::message::shard_of_job;
use protocol::{JobId, Name, Role, ShardId, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How long until others are asked again, in milliseconds.
const ASK_MS: u64 = 500;

/// How a job stands that another begins after. New ones at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stands {
    /// There is none of that name.
    Missing,
    /// Not all of its tasks do their work.
    Begins,
    /// They do; or it was a batch job, and each of its tasks has finished.
    Ready,
}

/// What is known of jobs that others begin after.
#[derive(Debug, Default)]
pub(super) struct After {
    known: BTreeMap<JobId, BTreeMap<Name, Stands>>,
    /// When they are asked again.
    due: Option<Time>,
}

impl Shard {
    /// When others are to be asked.
    pub(super) fn after_due(&self) -> Option<Time> {
        if self.jobs.held.is_empty() { None } else { Some(self.deployments.after.due.unwrap_or(self.now)) }
    }

    /// Asks how those stand that jobs of ours begin after.
    pub(super) fn ask_after(&mut self) {
        if self.after_due().is_none_or(|due| due > self.now) {
            return;
        }
        self.deployments.after.due = Some(self.now + ASK_MS);
        let held = &self.jobs.held;
        self.deployments.after.known.retain(|id, _| held.contains(id));
        let mut asks = Vec::new();
        for (id, job) in held.iter().filter_map(|id| Some((*id, self.jobs.live(*id)?))) {
            let mut by_shard: BTreeMap<ShardId, Vec<Name>> = BTreeMap::new();
            for name in &job.job.after {
                by_shard.entry(shard_of_job(&job.job.role, name.as_str(), self.config.shards)).or_default().push(name.clone());
            }
            asks.extend(by_shard.into_iter().map(|(to, names)| (to, id, job.job.role.clone(), names)));
        }
        for (to, job, role, names) in asks {
            self.at_once(Action::Peer { to, message: PeerMessage::AfterAsked { job, role, names } });
        }
    }

    /// Another shard, or ours, asks how these stand.
    pub(super) fn after_asked(&mut self, from: ShardId, job: JobId, role: &Role, names: Vec<Name>) {
        let stands = names.into_iter().take(AFTER_MAX).map(|name| {
            let stands = self.stands(role, &name);
            (name, stands)
        });
        let stands = stands.collect();
        // Held: it says what is on record.
        self.held(Action::Peer { to: from, message: PeerMessage::AfterSaid { job, stands } });
    }

    fn stands(&self, role: &Role, name: &Name) -> Stands {
        let named = self.jobs.named(role, name);
        match named.and_then(|id| Some((id, self.jobs.entry(id)?))) {
            None => Stands::Missing,
            Some((id, Entry::Live(job))) => {
                let (new, old) = job.serving();
                let ready = job.job.kind.lasts() && !job.is_held() && new + old >= self.deployment_count(id) && self.matches_known(id);
                if ready { Stands::Ready } else { Stands::Begins }
            }
            Some((_, Entry::Ended(job))) => {
                let finished = !job.stopped && job.unbegun == 0 && job.ends[1..].iter().all(|ends| *ends == 0);
                if finished { Stands::Ready } else { Stands::Missing }
            }
        }
    }

    /// These stand so, that a job of ours begins after.
    pub(super) fn after_said(&mut self, id: JobId, stands: Vec<(Name, Stands)>) {
        let Some(job) = self.jobs.live(id).filter(|job| job.is_held()) else { return };
        let known = self.deployments.after.known.entry(id).or_default();
        known.extend(stands.into_iter().filter(|(name, _)| job.job.after.contains(name)));
        if job.job.after.iter().all(|name| known.get(name) == Some(&Stands::Ready)) {
            self.deployments.after.known.remove(&id);
            self.commit(Record::Released { id, at: self.now });
            self.publish_job(id, "released");
            self.advance_deployment(id);
        }
    }

    /// What a job still waits for, and how that stands.
    pub(super) fn held_view(&self, id: JobId) -> Result<Vec<(Name, Stands)>, Refusal> {
        let Some(job) = self.jobs.live(id).filter(|job| job.is_held()) else { return Ok(Vec::new()) };
        let known = self.deployments.after.known.get(&id);
        let stands = |name: &Name| known.and_then(|known| known.get(name)).copied().unwrap_or(Stands::Begins);
        let all = job.job.after.iter().map(|name| (name.clone(), stands(name)));
        Ok(all.filter(|(_, stands)| *stands != Stands::Ready).collect())
    }
}
