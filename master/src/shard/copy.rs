//! A shard as it stands, to be asked what would be: what lives of its record, and which of its agents can be reached. Whoever has the copies of all
//! shards can make a cluster of them in which nothing that happens is real ([`crate::plan`]).

use super::pool::{Silence, Standing};
use super::snapshot::ShardSnapshot;
use super::{Refusal, Shard, ShardConfig};
use crate::jobs::Slot;
use protocol::{AgentId, AgentInfo, AttemptId, JobId, Kind, Lent, Role, ShardId, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A shard as it stands, without what has ended, without secrets, and without frameworks, which decide for themselves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Copied {
    state: ShardSnapshot,
    /// Its agents that can be reached, and what each lends.
    pub here: Vec<(AgentId, Lent)>,
    /// The shard's time when it was made.
    pub now: Time,
    /// Tasks of its jobs that began, and jobs without such.
    pub tasks: u64,
    replace_after_ms: u64,
}

/// A job that has not ended, and where its tasks are by the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stood {
    /// What people call it: its name, or its id.
    pub title: String,
    /// Whose it is.
    pub role: Role,
    /// Of which kind.
    pub kind: Kind,
    /// Tasks that wait for resources.
    pub waiting: u32,
    /// Tasks that wait until their backoff is over.
    pub backing_off: u32,
    /// Tasks on agents: where, and in which attempt.
    pub tasks: BTreeMap<u32, (AgentId, u32)>,
}

impl Shard {
    /// The shard as it stands.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] where it has more than `tasks_max` live tasks or jobs: a copy is made on the thread that decides.
    pub(super) fn copied(&self, tasks_max: u64) -> Result<Copied, Refusal> {
        let jobs = self.jobs.live.iter().filter_map(|id| self.jobs.live(*id));
        let mut tasks = 0;
        for job in jobs {
            tasks += u64::from(job.cells.len()).max(1);
            if tasks > tasks_max {
                let reason = format!("the cluster is too large to be copied: a part of it has more than {tasks_max} tasks");
                return Err(Refusal::Invalid { reason });
            }
        }
        let here = |seat: &&super::pool::Seat| seat.standing == Standing::Here && seat.silence == Silence::None && !seat.disconnected;
        let here = self.pool.seats.iter().filter(here).map(|seat| (seat.id, seat.capacity.lent())).collect();
        Ok(Copied { state: self.living(), here, now: self.now, tasks, replace_after_ms: self.config.replace_after_ms })
    }

    /// The shard that `copied` was made of, as a new leader finds it: number `id` of `shards`.
    #[must_use]
    pub fn of_copy(id: ShardId, shards: u16, copied: Copied) -> Self {
        let config = ShardConfig { id, shards, ..ShardConfig::default() }.replaced_after(copied.replace_after_ms);
        Self::restore(config, copied.state)
    }

    /// The shard's agents that are not gone for good: what each is, and which life of it is known.
    pub fn known_agents(&self) -> impl Iterator<Item = (AgentId, &AgentInfo, u64)> {
        let known = self.rest.agents.iter().filter(|(_, known)| !known.gone);
        known.map(|(id, known)| (*id, &known.info, known.incarnation))
    }

    /// The shard's live tasks, and where they are by the record.
    pub fn live_attempts(&self) -> impl Iterator<Item = (AgentId, AttemptId)> {
        let of_agent = |(agent, tasks): (&AgentId, &std::collections::BTreeSet<(JobId, u32)>)| {
            let attempts = tasks.iter().filter_map(|(id, index)| {
                let cell = self.jobs.live(*id)?.cells.get(*index)?;
                Some((*agent, AttemptId::new(*id, *index, cell.number)))
            });
            attempts.collect::<Vec<_>>()
        };
        self.jobs.by_agent.iter().flat_map(of_agent)
    }

    /// The shard's jobs that have not ended, as they stand.
    #[must_use]
    pub fn stood(&self) -> BTreeMap<JobId, Stood> {
        let stood = |id: &JobId| {
            let job = self.jobs.live(*id)?;
            let live = job.cells.iter_from(0).filter(|(_, cell)| cell.slot == Slot::Live);
            let stood = Stood {
                title: super::reconcile::title(*id, job.job.name.as_ref()),
                role: job.job.role.clone(),
                kind: job.job.kind,
                waiting: job.ready(),
                backing_off: job.backing_off(),
                tasks: live.map(|(index, cell)| (index, (cell.agent, cell.number))).collect(),
            };
            Some((*id, stood))
        };
        self.jobs.live.iter().filter_map(stood).collect()
    }
}
