//! Shard 0: how roles are served, on record, and how each limit is divided among the shards that place tasks. A shard holds tasks of a role only within
//! what it was granted, on record there too (`spending`), and more is granted only while all grants, and what shards hold beyond them, are
//! within the limit: so it is never passed, whoever fails over. A new leader of this shard grants nothing of a role until it has heard of every
//! shard what that holds.

use super::amounts;
use super::limits::{KINDS_MAX, Need, Quota, divide};
use super::roles::{Claim, WEIGHT_ONE};
use super::{Action, PeerMessage, Record, Refusal, Response, Shard};
use protocol::{RequestId, Resources, Role, ShardId, Time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Roles that are served otherwise than by default.
pub const ROLES_MAX: usize = 10_000;
/// Largest weight, in thousandths; the smallest is 1.
pub const WEIGHT_MILLI_MAX: u32 = 1_000 * WEIGHT_ONE;
/// How often a shard that has not confirmed a grant is told of it again, in milliseconds.
const AGAIN_MS: u64 = 1_000;
/// When it makes sense to ask again where there are too many, in milliseconds.
const RETRY_AFTER_MS: u64 = 10_000;

/// How a role is served, and how much it may hold at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleSettings {
    /// Beside others.
    pub claim: Claim,
    /// It and all below it together; empty: no limit.
    pub limit: Quota,
}

/// A grant to one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Grant {
    version: u64,
    amounts: Quota,
}

/// What is on record of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct LastingQuotas {
    settings: BTreeMap<Role, RoleSettings>,
    /// The last version that was given to a grant, of any role.
    version: u64,
    /// Of each role with a limit, by shard.
    grants: BTreeMap<Role, Vec<Grant>>,
}

impl LastingQuotas {
    pub fn set(&mut self, role: &Role, settings: &RoleSettings, shards: u16) {
        let before = self.settings.remove(role).unwrap_or_default();
        if *settings != RoleSettings::default() {
            self.settings.insert(role.clone(), settings.clone());
        }
        if before.limit == settings.limit {
            return;
        }
        self.version += 1;
        if settings.limit.is_empty() {
            self.grants.remove(role);
            return;
        }
        // Each says anew what it holds before it is granted something.
        let grant = Grant { version: self.version, amounts: settings.limit.zero() };
        self.grants.insert(role.clone(), vec![grant; usize::from(shards)]);
    }

    pub fn granted(&mut self, role: &Role, shard: ShardId, amounts: &Quota) {
        self.version += 1;
        if let Some(grant) = self.grants.get_mut(role).and_then(|grants| grants.get_mut(usize::from(shard.0))) {
            *grant = Grant { version: self.version, amounts: amounts.clone() };
        }
    }

    /// What is on record may be older than what shards have heard: all begins anew, with versions above those.
    pub fn begin_again(&mut self, above: u64) {
        self.version += above;
        for grant in self.grants.values_mut().flatten() {
            *grant = Grant { version: self.version, amounts: grant.amounts.zero() };
        }
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    pub lasting: LastingQuotas,
    /// What shards said to this leader, by shard: with the version that they had heard of.
    heard: BTreeMap<Role, Vec<Option<(u64, Need)>>>,
    /// Roles of which somebody said something new.
    stirred: BTreeSet<Role>,
    /// When grants are said again that were not confirmed.
    again: Option<Time>,
}

impl Quotas {
    pub fn new(lasting: LastingQuotas) -> Self {
        Self { lasting, ..Self::default() }
    }

    /// When something happens here by time alone.
    pub const fn due(&self) -> Option<Time> {
        self.again
    }

    /// How roles are served, by name.
    pub fn settings(&self) -> Vec<(Role, RoleSettings)> {
        self.lasting.settings.iter().map(|(role, settings)| (role.clone(), settings.clone())).collect()
    }

    fn claims(&self) -> Vec<(Role, Claim)> {
        let claims = self.lasting.settings.iter().filter(|(_, settings)| settings.claim != Claim::default());
        claims.map(|(role, settings)| (role.clone(), settings.claim.clone())).collect()
    }

    /// What a shard is to be told of its grants: those that it has not confirmed.
    fn unconfirmed(&self, shard: ShardId) -> Vec<PeerMessage> {
        let at = usize::from(shard.0);
        let told = self.lasting.grants.iter().filter_map(|(role, grants)| {
            let grant = grants.get(at)?;
            let heard = self.heard.get(role).and_then(|heard| heard.get(at)?.as_ref());
            let known = heard.is_some_and(|(version, _)| *version == grant.version);
            (!known).then(|| PeerMessage::Allow { role: role.clone(), version: grant.version, limit: grant.amounts.clone() })
        });
        told.collect()
    }

    /// What is to be granted instead of what is: first less, to those that have more than their part while others lack it; then, as far as all that
    /// is out lets it, more.
    fn regrant(&self, role: &Role) -> Vec<(ShardId, Quota)> {
        let Some((limit, grants)) = self.lasting.settings.get(role).map(|settings| &settings.limit).zip(self.lasting.grants.get(role))
        else {
            return Vec::new();
        };
        let heard = self.heard.get(role);
        let need_of = |at: usize, grant: &Grant| {
            let said = heard.and_then(|heard| heard.get(at)?.as_ref());
            said.filter(|(version, _)| *version == grant.version).map(|(_, need)| need).filter(|need| need.used.is_alike(limit))
        };
        let Some(needs) = grants.iter().enumerate().map(|(at, grant)| need_of(at, grant)).collect::<Option<Vec<&Need>>>() else {
            return Vec::new();
        };
        let needs: Vec<Need> = needs.into_iter().cloned().collect();
        let parts = divide(limit, &needs);
        let out = grants.iter().zip(&needs).fold(limit.zero(), |out, (grant, need)| out.plus(&grant.amounts.max(&need.used)));
        let (mut left, mut changed) = (limit.minus(&out), Vec::new());
        let over = !limit.contains(&out);
        let mut short = false;
        for (at, (grant, part)) in grants.iter().zip(&parts).enumerate() {
            let want = part.minus(&grant.amounts);
            let more = want.min(&left);
            let useful = more == want || needs[at].least.is_empty() || more.contains(&needs[at].least);
            short |= more != want;
            if more != limit.zero() && useful && !over {
                left = left.minus(&more);
                changed.push((at, grant.amounts.plus(&more)));
            }
        }
        if short || over {
            for (at, (grant, part)) in grants.iter().zip(&parts).enumerate() {
                let less = grant.amounts.min(part);
                if less != grant.amounts && !changed.iter().any(|(other, _)| *other == at) {
                    changed.push((at, less));
                }
            }
        }
        let shard = |at: usize| ShardId(u16::try_from(at).expect("fewer than SHARDS_MAX"));
        changed.into_iter().map(|(at, amounts)| (shard(at), amounts)).collect()
    }
}

impl Shard {
    /// A role is to be served in another way.
    pub(super) fn role_request(&mut self, id: RequestId, role: Role, settings: RoleSettings, force: bool) {
        let response = match self.role_refusal(&role, &settings, force) {
            Some(refusal) => Response::Refused(refusal),
            None => {
                self.commit(Record::RoleSet { role: role.clone(), settings, at: self.now });
                self.quotas.heard.remove(&role);
                self.publish(super::event::Change::Policies);
                let version = self.quotas.lasting.version;
                let free = !self.quotas.lasting.grants.contains_key(&role);
                for to in (0..self.config.shards).map(ShardId) {
                    self.held(Action::Peer { to, message: PeerMessage::Claims { claims: self.quotas.claims() } });
                    self.say_grants(to);
                    if free {
                        let message = PeerMessage::Allow { role: role.clone(), version, limit: Quota::default() };
                        self.held(Action::Peer { to, message });
                    }
                }
                Response::Done
            }
        };
        self.reply(id, response);
    }

    fn role_refusal(&self, role: &Role, settings: &RoleSettings, force: bool) -> Option<Refusal> {
        let invalid = |reason: String| Some(Refusal::Invalid { reason });
        let (weight, guarantee) = (settings.claim.weight_milli, &settings.claim.guarantee);
        let known = &self.quotas.lasting.settings;
        if self.config.id != ShardId(0) {
            return invalid("roles are shard 0's".into());
        }
        if weight == 0 || weight > WEIGHT_MILLI_MAX {
            return invalid(format!("weight: from 0.001 to {}", WEIGHT_MILLI_MAX / WEIGHT_ONE));
        }
        if settings.limit.iter().count() > KINDS_MAX || !guarantee.is_canonical() {
            return invalid("limit and guarantee: each kind once, and not so many".into());
        }
        if known.len() >= ROLES_MAX && !known.contains_key(role) {
            let reason = format!("there are {ROLES_MAX} roles with settings already");
            return Some(Refusal::Busy { reason, retry_after_ms: RETRY_AFTER_MS });
        }
        let within = |limit: &Quota| limit.iter().all(|(kind, most)| amounts::of_kind(kind, guarantee) <= most);
        if !within(&settings.limit) {
            return invalid("guarantee: more than the role's own limit".into());
        }
        if let Some(above) = role.and_above().skip(1).find(|above| known.get(above).is_some_and(|above| !within(&above.limit))) {
            return invalid(format!("guarantee: more than the limit of '{above}', which it is below"));
        }
        if !force && !self.guaranteed_beside(role, guarantee) {
            let reason = "guarantee: all guarantees together would be more than the cluster has; it can be forced".into();
            return Some(Refusal::Conflict { reason });
        }
        None
    }

    /// Whether the cluster has as much as is guaranteed to all roles that are below none, with this.
    fn guaranteed_beside(&self, role: &Role, guarantee: &Resources) -> bool {
        if guarantee.is_none() {
            return true;
        }
        let known = self.quotas.lasting.settings.iter().map(|(role, settings)| (role, &settings.claim.guarantee));
        let mut all: BTreeMap<&Role, &Resources> = known.filter(|(_, amount)| !amount.is_none()).collect();
        all.insert(role, guarantee);
        let mut sum = Resources::NONE;
        let tops = all.iter().filter(|(role, _)| !role.and_above().skip(1).any(|above| all.contains_key(&above)));
        tops.for_each(|(_, amount)| amounts::add(&mut sum, amount, 1));
        self.pool.whole.contains(&sum)
    }

    /// Tells a shard of those of its grants that it has not confirmed, behind the record of them.
    fn say_grants(&mut self, to: ShardId) {
        for message in self.quotas.unconfirmed(to) {
            self.quotas.again = Some(self.quotas.again.unwrap_or(self.now + AGAIN_MS));
            self.held(Action::Peer { to, message });
        }
    }

    /// A new leader of a shard, or of this one, knows nothing of it.
    pub(super) fn say_roles(&mut self, to: ShardId) {
        if self.config.id == ShardId(0) {
            for heard in self.quotas.heard.values_mut() {
                if let Some(of_it) = heard.get_mut(usize::from(to.0)) {
                    *of_it = None;
                }
            }
            self.held(Action::Peer { to, message: PeerMessage::Claims { claims: self.quotas.claims() } });
            self.say_grants(to);
        }
    }

    /// A shard says what it holds of a role, and how much more it would.
    pub(super) fn heard_need(&mut self, from: ShardId, role: Role, version: u64, need: Need) {
        let Some(grant) = self.quotas.lasting.grants.get(&role).and_then(|grants| grants.get(usize::from(from.0))) else {
            let message = PeerMessage::Allow { role, version: self.quotas.lasting.version, limit: Quota::default() };
            return self.held(Action::Peer { to: from, message });
        };
        if grant.version != version {
            return self.say_grants(from);
        }
        let heard = self.quotas.heard.entry(role.clone()).or_default();
        heard.resize(usize::from(self.config.shards), None);
        if let Some(of_it) = heard.get_mut(usize::from(from.0)) {
            *of_it = Some((version, need));
        }
        self.quotas.stirred.insert(role);
    }

    /// What follows from all that was heard: other grants.
    pub(super) fn settle_quotas(&mut self) {
        for role in std::mem::take(&mut self.quotas.stirred) {
            let changes = self.quotas.regrant(&role);
            for (shard, amounts) in changes {
                self.commit(Record::Granted { role: role.clone(), shard, amounts, at: self.now });
                self.say_grants(shard);
            }
        }
        if self.quotas.again.is_some_and(|at| at <= self.now) {
            self.quotas.again = None;
            (0..self.config.shards).for_each(|to| self.say_grants(ShardId(to)));
        }
    }
}
