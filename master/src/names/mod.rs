//! Where the instances of services are, by name, for whoever wants to call them. A service is a job of that kind that has a name; its instances are its
//! tasks that run, and are well where they have checks. What is known here is a copy, never older than a second, and dropped as soon as something of the job changes.

pub mod dns;

use crate::drive::Door;
use crate::shard::event::{Change, JobRef, Refusal, Request, Response};
use crate::shard::view::{JobView, PAGE_MAX, TaskView, View, Viewed};
use dashmap::DashMap;
use protocol::message::shard_of_job;
use protocol::task::Verdict;
use protocol::{AgentId, JobId, Name, Phase, Role, ShardId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

/// The attribute by which an agent says at which address its tasks are called; without it that is where its connection comes from.
pub const ADDRESS: &str = "address";
/// Most instances of one service that are named.
pub const INSTANCES_MAX: usize = 10_000;
/// So long is an answer good where nothing is heard of its job.
const FRESH: Duration = Duration::from_secs(1);
/// So long is what agents say of themselves.
const AGENTS_FRESH: Duration = Duration::from_secs(5);
/// Most names that are remembered; with one more all are forgotten.
const REMEMBERED_MAX: usize = 16_384;

/// A task that can be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its index in its job.
    pub index: u32,
    /// Its attempt.
    pub attempt: u32,
    /// Where it runs.
    pub agent: AgentId,
    /// What people call that agent.
    pub host: String,
    /// At which address; `None` where the agent has no connection to this master now and says none.
    pub address: Option<IpAddr>,
    /// Its ports, in the order of its template.
    pub ports: Vec<(Name, u16)>,
}

/// A service, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Which job.
    pub job: JobId,
    /// Its role.
    pub role: Role,
    /// Its name.
    pub name: Name,
    /// By index.
    pub instances: Vec<Instance>,
}

/// Why nothing is known of a name now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shard of this name cannot answer now")]
pub struct Unknown;

/// What agents say of themselves: their names, and their addresses where they say some.
type Hosts = BTreeMap<AgentId, (String, Option<IpAddr>)>;

/// Looks services up.
#[derive(Debug)]
pub struct Names {
    door: Door,
    by_name: DashMap<(Role, Name), (Instant, Option<JobId>)>,
    services: DashMap<JobId, (Instant, Arc<Service>)>,
    hosts: Mutex<Option<(Instant, Arc<Hosts>)>>,
}

impl Names {
    /// Looks up through `door`, and hears of changes on the runtime that this is called in for as long as it is there.
    #[must_use]
    pub fn new(door: Door) -> Arc<Self> {
        let changes = door.changes();
        let names = Self { door, by_name: DashMap::new(), services: DashMap::new(), hosts: Mutex::default() };
        let names = Arc::new(names);
        tokio::spawn(forget_changed(Arc::downgrade(&names), changes));
        names
    }

    /// The service of this name; `None` where there is none.
    ///
    /// # Errors
    /// [`Unknown`].
    pub async fn find(&self, role: &Role, name: &Name) -> Result<Option<Arc<Service>>, Unknown> {
        let key = (role.clone(), name.clone());
        let remembered = self.by_name.get(&key).filter(|known| known.0.elapsed() < FRESH).map(|known| known.1);
        match remembered {
            Some(None) => return Ok(None),
            Some(Some(job)) => {
                if let Some(known) = self.services.get(&job).filter(|known| known.0.elapsed() < FRESH) {
                    return Ok(Some(Arc::clone(&known.1)));
                }
            }
            None => {}
        }
        let asked = Instant::now();
        let shard = shard_of_job(role, name.as_str(), self.door.shards());
        let view = match self.ask(shard, View::Job(JobRef::Name(key.0.clone(), key.1.clone()))).await? {
            Some(Viewed::Job(view)) => Some(view).filter(|view| view.job.kind.lasts() && view.ended.is_none()),
            _ => None,
        };
        if self.by_name.len() >= REMEMBERED_MAX {
            self.by_name.clear();
            self.services.clear();
        }
        self.by_name.insert(key, (asked, view.as_ref().map(|view| view.id)));
        let Some(view) = view else { return Ok(None) };
        let service = Arc::new(self.service(&view).await?.ok_or(Unknown)?);
        self.services.insert(view.id, (asked, Arc::clone(&service)));
        Ok(Some(service))
    }

    /// Where a job's tasks are; `None` where it has no name.
    ///
    /// # Errors
    /// [`Unknown`].
    pub async fn service(&self, view: &JobView) -> Result<Option<Service>, Unknown> {
        let Some(name) = view.job.name.clone() else { return Ok(None) };
        let hosts = self.hosts().await?;
        let ports: Vec<&Name> = view.job.template.ports().collect();
        let (mut instances, mut from) = (Vec::new(), 0);
        while instances.len() < INSTANCES_MAX {
            let tasks = View::Tasks { job: JobRef::Id(view.id), from, limit: PAGE_MAX, phases: vec![Phase::Running] };
            let Some(Viewed::Tasks(tasks)) = self.ask(view.id.shard(), tasks).await? else { break };
            let well = self.well(view, &tasks).await?;
            let next = tasks.last().filter(|_| tasks.len() >= PAGE_MAX).map(|task| task.index.saturating_add(1));
            let well = |task: &TaskView| well.as_ref().is_none_or(|well| well.contains(&task.index));
            instances.extend(tasks.into_iter().filter(well).filter_map(|task| {
                let agent = task.agent?;
                let said = hosts.get(&agent);
                let address = said.and_then(|(_, address)| *address).or_else(|| Some(self.door.agent_connection(agent)?.remote().ip()));
                let ports = ports.iter().zip(&task.ports).map(|(name, port)| (Name::clone(name), *port)).collect();
                let host = said.map_or_else(|| agent.to_string(), |(host, _)| host.clone());
                Some(Instance {
                    index: task.index,
                    attempt: task.attempt,
                    agent,
                    host,
                    address: address.map(|ip| ip.to_canonical()),
                    ports,
                })
            }));
            let Some(next) = next else { break };
            from = next;
        }
        Ok(Some(Service { job: view.id, role: view.job.role.clone(), name, instances }))
    }

    /// Which of these tasks are well; `None` where nobody asks them.
    async fn well(&self, view: &JobView, tasks: &[TaskView]) -> Result<Option<BTreeSet<u32>>, Unknown> {
        if tasks.is_empty() || !view.job.template.has_checks() {
            return Ok(None);
        }
        let asked = View::Healths { job: JobRef::Id(view.id), indexes: tasks.iter().map(|task| task.index).collect() };
        let Some(Viewed::Healths(found)) = self.ask(view.id.shard(), asked).await? else { return Ok(Some(BTreeSet::new())) };
        Ok(Some(found.into_iter().filter(|(_, health)| health.verdict == Verdict::Healthy).map(|(index, _)| index).collect()))
    }

    async fn hosts(&self) -> Result<Arc<Hosts>, Unknown> {
        let mut known = self.hosts.lock().await;
        if let Some((_, hosts)) = known.as_ref().filter(|(since, _)| since.elapsed() < AGENTS_FRESH) {
            return Ok(Arc::clone(hosts));
        }
        let asked = (0..self.door.shards()).map(|shard| self.ask(ShardId(shard), View::Agents));
        let mut hosts = Hosts::new();
        for viewed in futures::future::try_join_all(asked).await? {
            let Some(Viewed::Agents(agents)) = viewed else { continue };
            hosts.extend(agents.into_iter().map(|agent| {
                let address = agent.info.attributes.get(ADDRESS).and_then(|text| text.parse().ok());
                (agent.id, (agent.info.name, address))
            }));
        }
        let hosts = Arc::new(hosts);
        *known = Some((Instant::now(), Arc::clone(&hosts)));
        Ok(hosts)
    }

    /// What a shard shows; `None` where it has no such thing.
    async fn ask(&self, shard: ShardId, view: View) -> Result<Option<Viewed>, Unknown> {
        match self.door.ask(shard, Request::View(view)).await {
            Ok(Response::Viewed(viewed)) => Ok(Some(*viewed)),
            Ok(Response::Refused(Refusal::NotFound { .. })) => Ok(None),
            Ok(_) | Err(_) => Err(Unknown),
        }
    }

    fn forget(&self, change: &Change) {
        match change {
            Change::Tasks { job, .. } | Change::Health { job, .. } => drop(self.services.remove(job)),
            Change::Job { job, role, title, .. } => {
                self.services.remove(job);
                if let Ok(name) = Name::new(title) {
                    self.by_name.remove(&(role.clone(), name));
                }
            }
            _ => {}
        }
    }
}

async fn forget_changed(names: Weak<Names>, mut changes: Receiver<Arc<crate::drive::told::Told>>) {
    loop {
        let heard = changes.recv().await;
        let Some(names) = names.upgrade() else { return };
        match heard {
            Ok(told) => told.change().into_iter().for_each(|change| names.forget(change)),
            // What was missed may have been of any of them.
            Err(RecvError::Lagged(_)) => names.services.clear(),
            Err(RecvError::Closed) => return,
        }
    }
}
