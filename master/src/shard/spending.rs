//! The framework's shard: what its tasks may hold of roles with a limit. What shard 0 has granted is on record here, and nothing is placed beyond it.

use super::amounts;
use super::event::{PlacedWant, Want};
use super::limits::{Need, Quota};
use super::openings::{USEFUL_CPU_MILLI, USEFUL_MEMORY_BYTES};
use super::{Action, HOME, PeerMessage, Record, Shard};
use protocol::{JobId, Offer, Resources, Role, ShardId, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How often at most a shard that lacks something says so, in milliseconds.
const LACKS_MS: u64 = 20;
/// How often at most one says so whose tasks have become fewer, in milliseconds.
const CHANGED_MS: u64 = 500;
/// How often one that lacks something says so again, in milliseconds.
const AGAIN_MS: u64 = 1_000;
/// What a framework would take, of each kind: all.
const ALL: u64 = u64::MAX / 2;

/// A grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Allowed {
    /// Of it; later ones have higher ones.
    pub version: u64,
    /// How much the live tasks of the role and of all below it may hold.
    pub limit: Quota,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Spending {
    /// On record: roles with a limit.
    pub allowed: BTreeMap<Role, Allowed>,
    /// What was said last, and when.
    said: BTreeMap<Role, (u64, Need, Time)>,
    /// True where something may be to be said.
    stirred: bool,
    due: Option<Time>,
}

impl Spending {
    pub fn new(allowed: BTreeMap<Role, Allowed>) -> Self {
        Self { allowed, ..Self::default() }
    }

    /// When something happens here by time alone.
    pub const fn due(&self) -> Option<Time> {
        self.due
    }

    /// What roles hold or want may be another than before.
    pub fn stir(&mut self) {
        self.stirred |= !self.allowed.is_empty();
    }

    /// Whether what roles hold or want may be another than before.
    pub const fn is_stirred(&self) -> bool {
        self.stirred
    }

    pub fn apply(&mut self, role: &Role, version: u64, limit: &Quota) {
        if limit.is_empty() {
            self.allowed.remove(role);
            self.said.remove(role);
        } else {
            self.allowed.insert(role.clone(), Allowed { version, limit: limit.clone() });
        }
    }
}

impl Shard {
    /// Shard 0 has granted something; an empty limit: there is none any longer.
    pub(super) fn allow(&mut self, from: ShardId, role: Role, version: u64, limit: Quota) {
        let known = self.spending.allowed.get(&role);
        if from != HOME || known.is_none() && limit.is_empty() {
            return;
        }
        if known.is_none_or(|known| known.version < version) {
            self.commit(Record::Allowed { role: role.clone(), version, limit, at: self.now });
        }
        self.spending.said.remove(&role);
        self.spending.stirred = true;
        self.sessions.changed |= !self.sessions.by_id.is_empty();
    }

    /// A new leader of shard 0 knows nothing of what we hold.
    pub(super) fn say_spending_anew(&mut self) {
        self.spending.said.clear();
        self.spending.stir();
    }

    /// Of which roles that `role` is, or is below, there is a limit, and what is left of it here.
    fn left(&self, role: &Role) -> impl Iterator<Item = (Role, Quota)> {
        let limited = role.and_above().take(if self.spending.allowed.is_empty() { 0 } else { usize::MAX });
        limited.filter_map(|role| {
            let limit = &self.spending.allowed.get(&role)?.limit;
            let left = limit.minus(&limit.of(self.jobs.spent.of(&role)));
            Some((role, left))
        })
    }

    /// What of an offer tasks of its role may still be given.
    pub(super) fn clipped(&self, offer: &Offer) -> Resources {
        let mut resources = offer.resources.clone();
        self.clip(&offer.role, &mut resources);
        resources
    }

    /// Leaves of `resources` what tasks of a role may still be given.
    pub(super) fn clip(&self, role: &Role, resources: &mut Resources) {
        self.left(role).for_each(|(_, left)| left.clip(resources));
    }

    /// How many more tasks of a job may be placed.
    pub(super) fn may_place(&self, job: JobId) -> u32 {
        let Some(job) = self.jobs.live(job) else { return 0 };
        let shape = &job.job.template.resources;
        self.left(&job.job.role).map(|(_, left)| left.holds(&left.of(shape))).min().unwrap_or(u32::MAX)
    }

    /// True where a framework may be shown something for a role.
    pub(super) fn has_left(&self, role: &Role) -> bool {
        self.left(role).all(|(_, left)| left.iter().all(|(_, amount)| amount > 0))
    }

    /// Adds to `left`, by role with a limit, what of it frameworks may be shown for `role` beside what they are shown already.
    pub(super) fn left_to_show(&self, role: &Role, left: &mut BTreeMap<Role, Quota>) {
        for (limited, most) in self.left(role) {
            left.entry(limited).or_insert_with_key(|limited| {
                let offers = self.sessions.by_id.values().flat_map(|session| session.hand.offers());
                let mut shown = Resources::NONE;
                offers.filter(|offer| offer.role.is_within(limited)).for_each(|offer| amounts::add(&mut shown, &offer.resources, 1));
                most.minus(&most.of(&shown))
            });
        }
    }

    /// Leaves as many of these tasks as may be placed, the most urgent first, and first those that may go everywhere.
    pub(super) fn keep_within_quotas(&self, wants: &mut Vec<Want>, placed: &mut Vec<PlacedWant>) {
        if self.spending.allowed.is_empty() {
            return;
        }
        let mut left: BTreeMap<Role, Quota> = BTreeMap::new();
        for want in wants.iter_mut().chain(placed.iter_mut().map(|placed| &mut placed.want)) {
            for (role, limit) in self.left(&want.role) {
                let left = left.entry(role).or_insert(limit);
                want.count = want.count.min(left.holds(&left.of(&want.shape)));
            }
            for role in want.role.and_above() {
                if let Some(left) = left.get_mut(&role) {
                    *left = left.minus(&left.of(&want.shape).times(u64::from(want.count)));
                }
            }
        }
        wants.retain(|want| want.count > 0);
        placed.retain(|placed| placed.want.count > 0);
    }

    /// What this shard holds of a role with a limit, and would.
    fn need(&self, role: &Role, limit: &Quota) -> Need {
        let (mut wants, mut least) = (limit.zero(), None);
        for line in self.jobs.lines.within(role) {
            let shape = limit.of(&line.shape);
            wants = wants.plus(&shape.times(line.count));
            least.get_or_insert(shape);
        }
        if self.sessions.by_id.keys().any(|id| self.takes_offers(*id, role)) {
            wants = Quota::new(limit.iter().map(|(kind, _)| (kind.clone(), ALL)));
            let useful = Resources { cpu_milli: USEFUL_CPU_MILLI, memory_bytes: USEFUL_MEMORY_BYTES, ..Resources::NONE };
            least.get_or_insert(limit.of(&useful));
        }
        Need { used: limit.of(self.jobs.spent.of(role)), wants, least: least.unwrap_or_else(|| limit.zero()) }
    }

    /// Says to shard 0 what is another than was said, behind the records that it follows from.
    pub(super) fn say_spending(&mut self) {
        let due = self.spending.due.is_some_and(|at| at <= self.now);
        if !due && !self.spending.stirred {
            return;
        }
        (self.spending.stirred, self.spending.due) = (false, None);
        let mut messages = Vec::new();
        for (role, Allowed { version, limit }) in &self.spending.allowed {
            let need = self.need(role, limit);
            let lacks = !limit.contains(&need.used.plus(&need.wants));
            // When it is to be said; `None`: not before it changes.
            let at = match self.spending.said.get(role).filter(|(said, ..)| said == version) {
                None => Some(self.now),
                Some((_, before, _)) if *before == need && !lacks => None,
                Some((_, before, at)) => Some(
                    *at + if *before == need {
                        AGAIN_MS
                    } else if lacks {
                        LACKS_MS
                    } else {
                        CHANGED_MS
                    },
                ),
            };
            let mut next = at;
            if at.is_some_and(|at| at <= self.now) {
                self.spending.said.insert(role.clone(), (*version, need.clone(), self.now));
                messages.push(PeerMessage::Spends { role: role.clone(), version: *version, need });
                next = lacks.then(|| self.now + AGAIN_MS);
            }
            self.spending.due = self.spending.due.into_iter().chain(next).min();
        }
        for message in messages {
            self.held(Action::Peer { to: HOME, message });
        }
    }
}
