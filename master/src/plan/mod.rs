//! What would be if: a copy of the cluster is let settle, what is supposed comes true in it, it settles again, and what is otherwise then is said. The
//! shards of the copy are the real ones, so what they decide is what the cluster would, but for which of several agents that are alike is taken.
//! Pure: copies in, a prediction out. Takes seconds for a large cluster: never on a thread that decides.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod compare;
pub mod hypothesis;
mod suppose;
mod world;

use crate::shard::event::JobRef;
use crate::shard::view::{Explanation, ShapeView, View, Viewed};
use crate::shard::{Copied, ScoreMap, Shard, Stood};
use compare::{Changed, Standing, changes};
use hypothesis::Hypothesis;
use protocol::{AgentId, Job, JobId, Resources};
use std::collections::BTreeMap;
use world::World;

/// Most agents of a cluster that is copied.
pub const AGENTS_MAX: usize = 20_000;
/// Most live tasks and jobs of one.
pub const TASKS_MAX: u64 = 500_000;
/// Most jobs of which is said why their tasks wait.
pub const WAITING_MAX: usize = 100;

/// Why nothing is predicted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A hypothesis makes no sense in this cluster.
    #[error("{reason}")]
    Hypothesis {
        /// Which, counted from 0; `None`: the job that is to be tried.
        at: Option<usize>,
        /// Why not, for people.
        reason: String,
    },
    /// The cluster is too large.
    #[error("the cluster has more than {most} {what}: that is too large to be tried out")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// More than so many.
        most: u64,
    },
    /// It does not come to an end.
    #[error("the cluster is too large, or too much is supposed: trying it out takes too long")]
    TooLong,
}

/// What would be.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// Agents that could be reached before, and can then.
    pub agents: (u32, u32),
    /// Tasks that are otherwise then.
    pub changed: Vec<Changed>,
    /// Tasks that would be otherwise soon, whatever is supposed: they are not among `changed`.
    pub anyway: u64,
    /// Jobs of which tasks wait then, at most [`WAITING_MAX`]: those first of which more do than before.
    pub waiting: Vec<Waiting>,
    /// What agents that are given tasks have free before, and then.
    pub free: (Resources, Resources),
    /// What people call agents, those that were added among them.
    pub names: BTreeMap<AgentId, String>,
    /// The job that was tried.
    pub job: Option<JobId>,
    /// Milliseconds from what was supposed to the last that follows of it.
    pub took_ms: u64,
    /// False where it was not over when it was looked last.
    pub settled: bool,
    /// What else is to be known, a sentence each.
    pub notes: Vec<String>,
}

/// A job of which tasks wait.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// What people call it.
    pub title: String,
    /// How many waited for resources before.
    pub before: u32,
    /// Why they do then.
    pub why: Explanation,
    /// How its shape fits the agents of each shard.
    pub shapes: Vec<ShapeView>,
}

/// What would be if all of this came true in turn, and `job` were submitted then. Of each shard one copy, in their order; `scores` order their agents.
///
/// # Errors
/// [`PlanError`].
pub fn predict(copies: Vec<Copied>, scores: &ScoreMap, supposed: &[Hypothesis], job: Option<Job>) -> Result<Prediction, PlanError> {
    is_small(&copies)?;
    let mut world = World::new(copies, scores)?;
    let found = standing(&world);
    world.settle(suppose::overdue(&world))?;
    let before = standing(&world);
    let anyway = changes(&found, &before).len() as u64;
    let (here, free) = room(&world);
    let begun = world.now;
    let mut supposition = suppose::Supposition::default();
    for (at, hypothesis) in supposed.iter().enumerate() {
        supposition.come_true(&mut world, hypothesis).map_err(|reason| at_hypothesis(at, reason))?;
    }
    let mut settled = supposition.settle(&mut world)?;
    let mut tried = None;
    if let Some(job) = job {
        tried = Some(suppose::submit(&mut world, job)?);
        settled = world.settle(world.now)?;
    }
    let after = standing(&world);
    let (here_after, free_after) = room(&world);
    Ok(Prediction {
        agents: (here, here_after),
        changed: changes(&before, &after),
        anyway,
        waiting: waiting(&world, &before, &after),
        free: (free, free_after),
        names: names(&world),
        job: tried,
        took_ms: world.changed.since(begun),
        settled,
        notes: supposition.notes,
    })
}

/// Refuses what is too large to be tried out; asked also while more copies are on their way.
///
/// # Errors
/// [`PlanError::TooLarge`].
pub fn is_small(copies: &[Copied]) -> Result<(), PlanError> {
    if copies.iter().map(|copy| copy.here.len()).sum::<usize>() > AGENTS_MAX {
        return Err(PlanError::TooLarge { what: "agents", most: AGENTS_MAX as u64 });
    }
    match copies.iter().map(|copy| copy.tasks).sum::<u64>() > TASKS_MAX {
        true => Err(PlanError::TooLarge { what: "tasks", most: TASKS_MAX }),
        false => Ok(()),
    }
}

fn at_hypothesis(at: usize, reason: suppose::Wrong) -> PlanError {
    match reason {
        suppose::Wrong::Said(reason) => PlanError::Hypothesis { at: Some(at), reason },
        suppose::Wrong::Plan(error) => error,
    }
}

/// How all jobs stand.
fn standing(world: &World) -> Standing {
    world.shards.iter().flat_map(Shard::stood).collect()
}

fn names(world: &World) -> BTreeMap<AgentId, String> {
    let known = world.shards.iter().flat_map(Shard::known_agents);
    known.map(|(id, info, _)| (id, info.name.clone())).collect()
}

/// How many agents are given tasks, and what they have free.
fn room(world: &World) -> (u32, Resources) {
    let (mut agents, mut free) = (0, Resources::NONE);
    for shard in &world.shards {
        let Ok(Viewed::Agents(views)) = shard.viewed(View::Agents) else { continue };
        for view in views.iter().filter(|view| view.state == "reachable" && view.mode == "active") {
            agents += 1;
            let mut rest = view.info.capacity.clone();
            crate::shard::amounts::sub(&mut rest, &view.allocated, 1);
            crate::shard::amounts::add(&mut free, &rest, 1);
        }
    }
    (agents, free)
}

/// The jobs of which tasks wait, and why, as the live shards would say.
fn waiting(world: &World, before: &Standing, after: &Standing) -> Vec<Waiting> {
    let waits = |job: &Stood| job.waiting + job.backing_off;
    let was = |id: &JobId| before.get(id).map_or(0, waits);
    let mut jobs: Vec<(&JobId, &Stood)> = after.iter().filter(|(_, job)| waits(job) > 0).collect();
    jobs.sort_by_key(|(id, job)| (waits(job) <= was(id), **id));
    jobs.truncate(WAITING_MAX);
    let explained = |(id, job): (&JobId, &Stood)| {
        let shard = world.shards.get(usize::from(id.shard().0))?;
        let Ok(Viewed::Explain(why)) = shard.viewed(View::Explain { job: JobRef::Id(*id), index: None }) else { return None };
        let (role, shape) = (why.role.clone(), why.shape.clone());
        let view = match shard.viewed(View::Job(JobRef::Id(*id))) {
            Ok(Viewed::Job(view)) if view.job.place.is_some() => {
                let Ok(Viewed::Limits(limits)) = shard.viewed(View::Limits { job: JobRef::Id(*id) }) else { return None };
                View::ExplainPlaced { role, shape, place: view.job.place.as_deref().cloned().unwrap_or_default(), limits }
            }
            _ => View::ExplainShape { role, shape },
        };
        let shapes = world.shards.iter().filter_map(|shard| match shard.viewed(view.clone()) {
            Ok(Viewed::Shape(shape)) => Some(shape),
            _ => None,
        });
        Some(Waiting { title: job.title.clone(), before: was(id), shapes: shapes.collect(), why })
    };
    jobs.into_iter().filter_map(explained).collect()
}

#[cfg(test)]
mod tests;
