//! What of frameworks is on record: which there are, and which of their tasks they have not acknowledged as ended.

use super::{FrameworkId, FrameworkInfo};
use protocol::{AgentId, Exit, JobId, Time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// Removed frameworks of one shard whose ids are kept, so that none comes back under one.
const REMOVED_MAX: usize = 1_000;

/// The lasting part.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LastingFrameworks {
    /// Those that have not ended.
    pub live: BTreeMap<FrameworkId, Framework>,
    /// Those that ended last.
    pub removed: VecDeque<FrameworkId>,
}

/// A framework on record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Framework {
    /// What it says of itself.
    pub info: FrameworkInfo,
    /// When it was first there.
    pub since: Time,
    /// By what it calls them.
    pub tasks: BTreeMap<String, Own>,
}

/// A task of a framework.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// The job that it is the one task of.
    pub job: JobId,
    /// Where it was placed.
    pub agent: AgentId,
    /// How long it has to stop where nobody says otherwise, in milliseconds.
    pub grace_ms: u64,
    /// When it was placed, or ended.
    pub at: Time,
    /// How it ended, once it has.
    pub exit: Option<Exit>,
}

/// The frameworks of a shard.
#[derive(Debug, Default)]
pub struct Frameworks {
    /// On record.
    pub lasting: LastingFrameworks,
    /// Whose tasks the live jobs are, and what they are called.
    owners: BTreeMap<JobId, (FrameworkId, String)>,
}

impl Frameworks {
    /// Those of a snapshot.
    #[must_use]
    pub fn restore(lasting: LastingFrameworks) -> Self {
        let mut owners = BTreeMap::new();
        for (id, framework) in &lasting.live {
            let live = framework.tasks.iter().filter(|(_, own)| own.exit.is_none());
            owners.extend(live.map(|(name, own)| (own.job, (*id, name.clone()))));
        }
        Self { lasting, owners }
    }

    /// A framework that has not ended.
    #[must_use]
    pub fn get(&self, id: FrameworkId) -> Option<&Framework> {
        self.lasting.live.get(&id)
    }

    /// The framework whose task the job is, and what it calls it; `None` for a job of people's, and for one that has ended.
    #[must_use]
    pub fn owner(&self, job: JobId) -> Option<(FrameworkId, &str)> {
        self.owners.get(&job).map(|(id, name)| (*id, name.as_str()))
    }

    /// A framework is there, or is another than before.
    pub fn set(&mut self, id: FrameworkId, info: &FrameworkInfo, at: Time) {
        if self.lasting.removed.contains(&id) {
            return;
        }
        let known = self.lasting.live.entry(id).or_insert_with(|| Framework { info: info.clone(), since: at, tasks: BTreeMap::new() });
        known.info = info.clone();
    }

    /// A framework is gone for good.
    pub fn removed(&mut self, id: FrameworkId) {
        let Some(framework) = self.lasting.live.remove(&id) else { return };
        framework.tasks.values().for_each(|own| drop(self.owners.remove(&own.job)));
        self.lasting.removed.push_back(id);
        if self.lasting.removed.len() > REMOVED_MAX {
            self.lasting.removed.pop_front();
        }
    }

    /// A framework has placed a task.
    pub fn placed(&mut self, id: FrameworkId, name: &str, (job, agent, grace_ms): (JobId, AgentId, u64), at: Time) {
        let Some(framework) = self.lasting.live.get_mut(&id) else { return };
        if framework.tasks.contains_key(name) {
            return;
        }
        framework.tasks.insert(name.to_owned(), Own { job, agent, grace_ms, at, exit: None });
        self.owners.insert(job, (id, name.to_owned()));
    }

    /// A job has ended so: where it is a framework's task, it waits to be acknowledged.
    pub fn ended(&mut self, job: JobId, exit: &Exit, at: Time) {
        let Some((id, name)) = self.owners.remove(&job) else { return };
        if let Some(own) = self.lasting.live.get_mut(&id).and_then(|framework| framework.tasks.get_mut(&name)) {
            (own.exit, own.at) = (Some(exit.clone()), at);
        }
    }

    /// A framework has acknowledged the ends of these.
    pub fn acknowledged(&mut self, id: FrameworkId, names: &[String]) {
        let Some(framework) = self.lasting.live.get_mut(&id) else { return };
        for name in names {
            if framework.tasks.get(name).is_some_and(|own| own.exit.is_some()) {
                framework.tasks.remove(name);
            }
        }
    }
}
