//! Limits of roles: an operator sets them, higher and lower than what is held, and takes them away. And what was promised (Q1): once every shard has
//! heard of a limit, nothing is placed that passes it. Some of these roles may preempt, and some are guaranteed something.

use crate::check::{Verdict, hold};
use crate::random::Random;
use master::shard::limits::Quota;
use master::shard::preempt::Preempts;
use master::shard::quotas::RoleSettings;
use master::shard::roles::Claim;
use master::shard::{Event, PeerMessage, Record, Request};
use protocol::resources::ResourceKind;
use protocol::{Job, JobId, Resources, Role, ShardId, TaskId};
use std::collections::BTreeMap;

/// Roles that get one.
const ROLES: [&str; 2] = ["batch", "web"];

/// Of a thousand settings so many have a guarantee.
const GUARANTEED: u64 = 400;

/// A request for one more setting.
pub fn wish(random: &mut Random) -> Request {
    let role = Role::new(ROLES[random.below(2) as usize]).expect("a role");
    let (step, drawn) = ([0, 500, 1_500, 4_000][random.below(4) as usize], random.below(1_000));
    let cpu_milli = step + drawn;
    // Never above the limit, which would be refused.
    let guarantee = Resources { cpu_milli: if drawn < GUARANTEED { cpu_milli } else { 0 }, ..Resources::NONE };
    let limit = match random.below(4) {
        0 => Quota::default(),
        _ => Quota::new([(ResourceKind::Cpu, cpu_milli)]),
    };
    let preempts = [Preempts::All, Preempts::Own, Preempts::None, Preempts::None][random.below(4) as usize];
    Request::SetRole { role, settings: RoleSettings { limit, claim: Claim { preempts, guarantee, ..Claim::default() } }, force: true }
}

/// A request to take a role's limit away, for each of them.
pub fn none() -> impl Iterator<Item = Request> {
    let of = |role| Request::SetRole { role: Role::new(role).expect("a role"), settings: RoleSettings::default(), force: true };
    ROLES.into_iter().map(of)
}

/// The bug: what is granted is heard as twice as much.
pub fn double(event: &mut Event) {
    if let Event::Peer { message: PeerMessage::Allow { limit, .. }, .. } = event {
        *limit = Quota::new(limit.iter().map(|(kind, amount)| (kind.clone(), 2 * amount)).collect::<Vec<_>>());
    }
}

/// The bug: whoever holds a place is taken for the least urgent, and leaves it.
pub fn upwards(event: &mut Event) {
    match event {
        Event::Peer { message: PeerMessage::Ranks { ranks }, .. } => ranks.iter_mut().for_each(|(_, priority)| *priority = 0),
        Event::Peer { message: PeerMessage::Yield { below, .. }, .. } => *below = u8::MAX,
        _ => {}
    }
}

/// What is on record of a role with a limit.
struct Limited {
    cpu_milli: u64,
    /// The version that began with it.
    version: u64,
    /// By shard: true where it is on record there.
    heard: Vec<bool>,
}

/// What is on record.
pub struct Limits {
    shards: u16,
    version: u64,
    limited: BTreeMap<Role, Limited>,
    /// What live tasks are promised.
    live: BTreeMap<TaskId, (Role, u64)>,
    held: BTreeMap<Role, u64>,
    /// Tasks that were placed while their role had a limit that all had heard of.
    pub judged: u64,
}

impl Limits {
    /// Nothing yet.
    pub fn new(shards: u16) -> Self {
        Self { shards, version: 0, limited: BTreeMap::new(), live: BTreeMap::new(), held: BTreeMap::new(), judged: 0 }
    }

    /// A record was committed.
    ///
    /// # Errors
    /// The promise that it breaks.
    pub fn committed(&mut self, record: &Record, shard: ShardId, jobs: &BTreeMap<JobId, Job>) -> Verdict {
        match record {
            Record::RoleSet { role, settings, .. } => self.set(role, &settings.limit),
            Record::Granted { .. } => self.version += 1,
            Record::Allowed { role, version, .. } => {
                if let Some(limited) = self.limited.get_mut(role).filter(|limited| limited.version <= *version) {
                    limited.heard[usize::from(shard.0)] = true;
                }
            }
            Record::Staged { id, attempts, .. } => {
                let Some(job) = jobs.get(id) else { return Ok(()) };
                attempts.iter().try_for_each(|(index, _)| self.placed(TaskId { job: *id, index: *index }, job))?;
            }
            Record::Placed { id, job, .. } => self.placed(TaskId { job: *id, index: 0 }, job)?,
            Record::Ended { id, ends, .. } => {
                for end in ends {
                    if let Some((role, milli)) = self.live.remove(&TaskId { job: *id, index: end.index }) {
                        *self.held.entry(role).or_default() -= milli;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn set(&mut self, role: &Role, limit: &Quota) {
        let cpu_milli = limit.iter().map(|(_, milli)| milli).next();
        if cpu_milli == self.limited.get(role).map(|limited| limited.cpu_milli) {
            return;
        }
        self.version += 1;
        match cpu_milli {
            None => drop(self.limited.remove(role)),
            Some(cpu_milli) => {
                let limited = Limited { cpu_milli, version: self.version, heard: vec![false; usize::from(self.shards)] };
                self.limited.insert(role.clone(), limited);
            }
        }
    }

    fn placed(&mut self, task: TaskId, job: &Job) -> Verdict {
        let milli = job.template.resources.cpu_milli;
        self.live.insert(task, (job.role.clone(), milli));
        let held = self.held.entry(job.role.clone()).or_default();
        *held += milli;
        let Some(limited) = self.limited.get(&job.role).filter(|limited| limited.heard.iter().all(|heard| *heard) && milli > 0) else {
            return Ok(());
        };
        self.judged += 1;
        let (held, most) = (*held, limited.cpu_milli);
        hold(held <= most, || format!("Q1: {task} was placed, and its role holds {held} of at most {most}"))
    }
}
