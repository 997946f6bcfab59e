//! How what is supposed comes true in a world, and how long it takes to follow.

use super::PlanError;
use super::hypothesis::{Hypothesis, Named, SCALED_MAX, Selector};
use super::world::World;
use crate::shard::HOME;
use crate::shard::amounts;
use crate::shard::drains::ModeWish;
use crate::shard::event::{JobRef, Request, Response};
use crate::shard::limits::Quota;
use crate::shard::quotas::RoleSettings;
use crate::shard::view::{View, Viewed};
use crate::shard::{Shard, ShardConfig};
use protocol::agent::ATTRIBUTE_BYTES_MAX;
use protocol::message::shard_of_job;
use protocol::{AgentId, AgentInfo, Field, Job, JobId, Name, Resources, Role, ShardId, Stand, Time};
use std::collections::BTreeSet;

/// How long a task has to stop where its agent is emptied, in milliseconds: tasks of a world stop at once.
const GRACE_MS: u64 = 5_000;
/// Between ids of agents that are added: odd, so that none comes twice, and spread over the shards by their hashes anyway.
const ID_STEP: u64 = 0x9e37_79b9_7f4a_7c15;
/// What passes between an agent's end of time and the last that shards say of it, in milliseconds.
const NOTICED_MS: u64 = 3_000;

/// Why a hypothesis does not come true.
#[derive(Debug)]
pub enum Wrong {
    /// It makes no sense in this cluster.
    Said(String),
    /// The world has its limits.
    Plan(PlanError),
}

impl From<PlanError> for Wrong {
    fn from(error: PlanError) -> Self {
        Self::Plan(error)
    }
}

/// What has come true so far, as far as somebody must wait for what follows of it.
#[derive(Debug, Default)]
pub struct Supposition {
    lost: BTreeSet<AgentId>,
    /// When the first of them fell silent.
    since: Option<Time>,
    added: u64,
    /// What is to be known of it, a sentence each.
    pub notes: Vec<String>,
}

/// When what is silent in a world that has just begun is given up.
pub fn overdue(world: &World) -> Time {
    let silent = |shard: &Shard| shard.known_agents().any(|(id, ..)| !world.has(id));
    match world.shards.iter().any(silent) {
        true => world.now + config(world).replace_after_ms + NOTICED_MS,
        false => world.now,
    }
}

/// A job is submitted, or applied where it has a name.
pub fn submit(world: &mut World, job: Job) -> Result<JobId, PlanError> {
    let wrong = |reason: String| PlanError::Hypothesis { at: None, reason };
    if job.count > SCALED_MAX {
        return Err(wrong(format!("count: at most {SCALED_MAX} tasks are tried out")));
    }
    let shards = count(world);
    let (shard, request) = match &job.name {
        Some(name) => (shard_of_job(&job.role, name.as_str(), shards), Request::Deploy { job: believed(job), force: true }),
        None => (shard_of_job(&job.role, "", shards), Request::Submit { job, key: None, follow: false }),
    };
    match world.ask(shard, request)? {
        Response::Submitted { job, .. } | Response::Deployed { job, .. } => Ok(job),
        Response::Refused(refusal) => Err(wrong(refusal.to_string())),
        other => Err(wrong(format!("a shard answered with {other:?}"))),
    }
}

/// The same job, whose new tasks are believed at once: here they do what is expected of them.
fn believed(job: Job) -> Job {
    let update = protocol::job::Update { settle_ms: 0, ..job.update };
    if job.kind.lasts() { Job { update, ..job } } else { job }
}

fn config(world: &World) -> ShardConfig {
    world.shards.first().map(|shard| shard.config().clone()).unwrap_or_default()
}

fn count(world: &World) -> u16 {
    u16::try_from(world.shards.len()).expect("a cluster has at most SHARDS_MAX shards")
}

/// What a shard says to something that is done.
fn done(world: &mut World, shard: ShardId, request: Request) -> Result<(), Wrong> {
    match world.ask(shard, request)? {
        Response::Refused(refusal) => Err(Wrong::Said(refusal.to_string())),
        _ => Ok(()),
    }
}

impl Supposition {
    /// It comes true now; what follows of it does not yet.
    pub fn come_true(&mut self, world: &mut World, hypothesis: &Hypothesis) -> Result<(), Wrong> {
        match hypothesis {
            Hypothesis::Lose(which) => {
                for agent in meant(world, which)? {
                    world.lose(agent);
                    self.lost.insert(agent);
                }
                self.since.get_or_insert(world.now);
                Ok(())
            }
            Hypothesis::Drain(which) => mode(world, which, ModeWish::Drain { grace_ms: GRACE_MS, wait_ms: 0, gone: false }),
            Hypothesis::Resume(which) => mode(world, which, ModeWish::Activate),
            Hypothesis::Add { count, like, with } => self.add(world, *count, like, with),
            Hypothesis::Scale { job, count } => {
                let (shard, job) = found(world, job)?;
                done(world, shard, Request::Scale { job: JobRef::Id(job), count: *count })
            }
            Hypothesis::Stop { job } => {
                let (shard, job) = found(world, job)?;
                done(world, shard, Request::Stop { job: JobRef::Id(job), grace_ms: GRACE_MS })
            }
            Hypothesis::Set { role, limit, guarantee, weight_milli } => {
                set(world, role, (limit.as_ref(), guarantee.as_ref()), *weight_milli)
            }
        }
    }

    fn add(&mut self, world: &mut World, count: u32, like: &str, with: &[(Field, String)]) -> Result<(), Wrong> {
        let is_it = |(id, info, _): &(AgentId, &AgentInfo, u64)| info.name == like || id.to_string() == like;
        let known = world.shards.iter().flat_map(Shard::known_agents).find(is_it);
        let Some((model, mut info)) = known.map(|(id, info, _)| (id, info.clone())) else {
            return Err(Wrong::Said(format!("there is no agent called {like}")));
        };
        for (field, value) in with {
            match field {
                Field::Region => info.domain.region.clone_from(value),
                Field::Zone => info.domain.zone.clone_from(value),
                Field::Rack => info.domain.rack.clone_from(value),
                Field::Hostname => {}
                Field::Attribute(name) => drop(info.attributes.insert(name.clone(), value.clone())),
            }
        }
        for _ in 0..count {
            self.added += 1;
            let name = format!("{}+{}", model_name(&info.name), self.added);
            let agent = AgentInfo { name, ..info.clone() };
            if !agent.is_bounded() {
                return Err(Wrong::Said("an attribute, or a part of a fault domain, is too long or too much".into()));
            }
            let id = AgentId(model.0.wrapping_add(ID_STEP.wrapping_mul(self.added)));
            world.join(id, agent, self.added, Vec::new());
        }
        Ok(())
    }

    /// Goes on until what follows has followed. False where it has not.
    pub fn settle(&mut self, world: &mut World) -> Result<bool, PlanError> {
        let config = config(world);
        let given_up = self.since.map(|since| since + config.replace_after_ms + NOTICED_MS);
        let mut settled = world.settle(given_up.unwrap_or(world.now))?;
        let on_lost = |world: &World| world.shards.iter().flat_map(Shard::live_attempts).any(|(agent, _)| self.lost.contains(&agent));
        if let Some(since) = self.since
            && on_lost(world)
        {
            let seconds = config.mass_replace_after_ms / 1_000;
            self.notes.push(format!(
                "so many agents of a part of the cluster are silent at once that a cut is likelier: what they have is placed elsewhere after {seconds} s, \
                 or once `skep agents gone` says that they never come back"
            ));
            settled = world.settle(since + config.mass_replace_after_ms + NOTICED_MS)?;
        }
        Ok(settled)
    }
}

/// What a name that more is put behind may be: short enough.
fn model_name(name: &str) -> &str {
    const ROOM_BYTES: usize = 8;
    let most = name.len().min(ATTRIBUTE_BYTES_MAX - ROOM_BYTES);
    let end = (0..=most).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    &name[..end]
}

/// The agents that are meant: at least one.
fn meant(world: &World, which: &Selector) -> Result<Vec<AgentId>, Wrong> {
    let known: Vec<(AgentId, Stand)> =
        world.shards.iter().flat_map(Shard::known_agents).map(|(id, info, _)| (id, Stand::from(info))).collect();
    let met: Vec<AgentId> = known.into_iter().filter(|(_, stand)| which.is_met_by(stand)).map(|(id, _)| id).collect();
    let here: Vec<AgentId> = met.iter().copied().filter(|agent| world.has(*agent)).collect();
    match (met.is_empty(), here.is_empty()) {
        (true, _) => Err(Wrong::Said(format!("no agent has {which}"))),
        (false, true) => Err(Wrong::Said(format!("no agent that has {which} can be reached: they are lost already"))),
        (false, false) => Ok(here),
    }
}

fn mode(world: &mut World, which: &Selector, mode: ModeWish) -> Result<(), Wrong> {
    for agent in meant(world, which)? {
        done(world, world.shard_of(agent), Request::SetMode { agent, mode })?;
    }
    Ok(())
}

/// The job that is meant, where it lives.
fn found(world: &World, job: &Named) -> Result<(ShardId, JobId), Wrong> {
    let lives = |id: JobId| world.shards.get(usize::from(id.shard().0)).is_some_and(|shard| shard.stood().contains_key(&id));
    let by_name = |role: &Role, name: &Name| {
        let shard = shard_of_job(role, name.as_str(), count(world));
        let asked = View::Job(JobRef::Name(role.clone(), name.clone()));
        match world.shards[usize::from(shard.0)].viewed(asked) {
            Ok(Viewed::Job(view)) => Some(view.id),
            _ => None,
        }
    };
    let id = match job {
        Named::Id(id) => Some(*id),
        Named::Name(role, name) => by_name(role, name).or_else(|| name.as_str().parse().ok()),
    };
    let id = id.filter(|id| lives(*id)).ok_or_else(|| Wrong::Said(format!("there is no job {job} that has not ended")))?;
    Ok((id.shard(), id))
}

fn set(
    world: &mut World,
    role: &Role,
    (limit, guarantee): (Option<&Quota>, Option<&Quota>),
    weight_milli: Option<u32>,
) -> Result<(), Wrong> {
    let known = match world.shards[usize::from(HOME.0)].viewed(View::Roles) {
        Ok(Viewed::Roles(view)) => view.settings.into_iter().find(|(known, _)| known == role).map(|(_, settings)| settings),
        _ => None,
    };
    let mut settings: RoleSettings = known.unwrap_or_default();
    if let Some(limit) = limit {
        settings.limit = limit.clone();
    }
    if let Some(guarantee) = guarantee {
        settings.claim.guarantee = Resources::NONE;
        guarantee.iter().for_each(|(kind, amount)| amounts::set(&mut settings.claim.guarantee, kind, amount));
    }
    if let Some(weight_milli) = weight_milli {
        settings.claim.weight_milli = weight_milli;
    }
    done(world, HOME, Request::SetRole { role: role.clone(), settings, force: true })
}
