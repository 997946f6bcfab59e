//! A shard's lasting state as it stands in a snapshot, and the number that says whether two are equal.

use super::drains::{Drains, Mode};
use super::event::{Policy, Token};
use super::maintenance::{Maintenance, Windows};
use super::masters::LastingMasters;
use super::plugins::LastingPlugIns;
use super::quotas::{LastingQuotas, Quotas};
use super::reservations::Reservations;
use super::spending::{Allowed, Spending};
use super::{Shard, ShardConfig, record::RECORD_VERSION};
use crate::frameworks::{Frameworks, Groups, LastingFrameworks, LastingGroups};
use crate::jobs::Jobs;
use crate::jobs::state::LastingJobs;
use protocol::{AgentId, AgentInfo, Role, ShardId, Time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// Ids of jobs that a shard passes over when it begins again from an older state: more than it can have given since.
const IDS_PASSED_OVER: u64 = 1 << 32;
/// The master that a restored cluster begins with.
const FIRST_MASTER: u16 = 1;

/// A shard's lasting state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShardSnapshot {
    /// [`RECORD_VERSION`] of whoever made it.
    pub version: u16,
    jobs: LastingJobs,
    rest: LastingRest,
    frameworks: LastingFrameworks,
    /// Agents that are given no tasks.
    modes: BTreeMap<AgentId, Mode>,
    quotas: LastingQuotas,
    /// What the shard's tasks may hold of roles with a limit.
    allowed: BTreeMap<Role, Allowed>,
    /// Tasks of frameworks that belong together.
    groups: LastingGroups,
    /// When agents are maintained.
    windows: Windows,
    plug_ins: LastingPlugIns,
    /// What of agents is kept for roles.
    reservations: Reservations,
}

/// What version 4 had behind those of version 3.
type BesideOfFour = (LastingQuotas, BTreeMap<Role, Allowed>, LastingGroups, Windows, LastingPlugIns);

/// [`ShardSnapshot`] as version 3 had it, behind its version.
type OfThree = (LastingJobs, LastingRest, LastingFrameworks, BTreeMap<AgentId, Mode>);

/// What is on record beside jobs and frameworks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct LastingRest {
    pub agents: BTreeMap<AgentId, KnownAgent>,
    pub tokens: BTreeMap<String, Token>,
    pub policies: BTreeMap<Role, Policy>,
    pub masters: LastingMasters,
}

/// [`LastingRest`] as version 1 had it.
#[derive(Deserialize)]
struct RestWithoutMasters {
    agents: BTreeMap<AgentId, KnownAgent>,
    tokens: BTreeMap<String, Token>,
    policies: BTreeMap<Role, Policy>,
}

impl ShardSnapshot {
    /// The snapshot that these bytes are, of this version or an older one; `None` where they are none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = postcard::take_from_bytes::<u16>(bytes).ok()?;
        match version {
            1 => {
                let (jobs, rest): (LastingJobs, RestWithoutMasters) = postcard::from_bytes(rest).ok()?;
                let RestWithoutMasters { agents, tokens, policies } = rest;
                let rest = LastingRest { agents, tokens, policies, masters: LastingMasters::default() };
                Some(Self::of((jobs, rest, LastingFrameworks::default(), BTreeMap::new())))
            }
            2 => {
                let (jobs, rest): (LastingJobs, LastingRest) = postcard::from_bytes(rest).ok()?;
                Some(Self::of((jobs, rest, LastingFrameworks::default(), BTreeMap::new())))
            }
            3 => postcard::from_bytes::<OfThree>(rest).ok().map(Self::of),
            4 => {
                let (three, beside): (OfThree, BesideOfFour) = postcard::from_bytes(rest).ok()?;
                let (quotas, allowed, groups, windows, plug_ins) = beside;
                Some(Self { quotas, allowed, groups, windows, plug_ins, ..Self::of(three) })
            }
            RECORD_VERSION => postcard::from_bytes(bytes).ok(),
            _ => None,
        }
    }

    fn of((jobs, rest, frameworks, modes): OfThree) -> Self {
        let (quotas, allowed, groups) = (LastingQuotas::default(), BTreeMap::new(), LastingGroups::default());
        let (windows, plug_ins) = (Windows::default(), LastingPlugIns::new());
        let reservations = Reservations::new();
        Self { version: RECORD_VERSION, jobs, rest, frameworks, modes, quotas, allowed, groups, windows, plug_ins, reservations }
    }
}

/// An agent on record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct KnownAgent {
    pub info: AgentInfo,
    pub incarnation: u64,
    /// True where it is never to come back.
    pub gone: bool,
    pub since: Time,
}

impl LastingRest {
    /// The agent will not return: what is left of it is its name.
    pub fn agent_gone(&mut self, agent: AgentId, at: Time) {
        if let Some(known) = self.agents.get_mut(&agent) {
            known.gone = true;
            known.since = at;
            known.info = AgentInfo { name: std::mem::take(&mut known.info.name), ..AgentInfo::default() };
        }
    }
}

impl Shard {
    /// Its lasting state, for [`Self::restore`].
    #[must_use]
    pub fn snapshot(&self) -> ShardSnapshot {
        let (jobs, rest) = (self.jobs.lasting.clone(), self.rest.clone());
        let (frameworks, modes) = (self.frameworks.lasting.clone(), self.drains.modes.clone());
        let (quotas, allowed) = (self.quotas.lasting.clone(), self.spending.allowed.clone());
        let (groups, windows) = (self.groups.lasting.clone(), self.maintenance.lasting.clone());
        let (plug_ins, reservations) = (self.plug_ins.clone(), self.reservations.clone());
        ShardSnapshot { version: RECORD_VERSION, jobs, rest, frameworks, modes, quotas, allowed, groups, windows, plug_ins, reservations }
    }

    /// The same without what has ended, without secrets, and without frameworks, which decide for themselves: for a copy.
    pub(super) fn living(&self) -> ShardSnapshot {
        let lasting = &self.jobs.lasting;
        let entries = self.jobs.live.iter().filter_map(|id| Some((*id, lasting.entries.get(id)?.clone()))).collect();
        let jobs = LastingJobs { next: lasting.next, entries, history: VecDeque::new(), incarnations: lasting.incarnations.clone() };
        let agents = self.rest.agents.iter().filter(|(_, known)| !known.gone).map(|(id, known)| (*id, known.clone())).collect();
        let rest = LastingRest { agents, ..LastingRest::default() };
        let (quotas, allowed) = (self.quotas.lasting.clone(), self.spending.allowed.clone());
        let modes = self.drains.modes.clone();
        let reservations = self.reservations.clone();
        ShardSnapshot { quotas, allowed, reservations, ..ShardSnapshot::of((jobs, rest, LastingFrameworks::default(), modes)) }
    }

    /// The shard whose lasting state `snapshot` is.
    #[must_use]
    pub fn restore(config: ShardConfig, snapshot: ShardSnapshot) -> Self {
        let jobs = Jobs::restore(config.id, config.history_tasks_max, snapshot.jobs);
        let quota = (Quotas::new(snapshot.quotas), Spending::new(snapshot.allowed));
        let (frameworks, groups) = (Frameworks::restore(snapshot.frameworks), Groups::restore(snapshot.groups));
        let (drains, maintenance) = (Drains::new(snapshot.modes), Maintenance::new(snapshot.windows));
        let (plug_ins, reservations) = (snapshot.plug_ins, snapshot.reservations);
        Self { groups, maintenance, plug_ins, reservations, ..Self::with(config, jobs, snapshot.rest, (frameworks, drains), quota) }
    }

    /// What was on record at some moment is so again, in a cluster of one master: ids that were given since are not given again, since agents
    /// know those.
    pub fn begin_again(&mut self) {
        self.jobs.lasting.next += IDS_PASSED_OVER;
        if self.config.id == ShardId(0) {
            self.rest.masters.only(FIRST_MASTER);
            self.quotas.lasting.begin_again(IDS_PASSED_OVER);
        }
    }

    /// A number for its lasting state: equal states have equal ones, but for one chance in 2⁶⁴ no others have. Walks all of it.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let mut hash = blake3::Hasher::new();
        let (frameworks, groups, windows) = (&self.frameworks.lasting, &self.groups.lasting, &self.maintenance.lasting);
        let (quotas, allowed) = (&self.quotas.lasting, &self.spending.allowed);
        let (modes, rest) = (&self.drains.modes, (quotas, allowed, groups, windows, &self.plug_ins, &self.reservations));
        postcard::to_io(&(&self.jobs.lasting, &self.rest, frameworks, modes, rest), &mut hash)
            .expect("hashing is no I/O and the state is plain data");
        let bytes = hash.finalize();
        let (first, _) = bytes.as_bytes().split_first_chunk().expect("8 of 32 bytes are 8 bytes");
        u64::from_le_bytes(*first)
    }
}
