//! What roles hold in the whole cluster: each agents' shard tells the others what they hold on its agents, now and then, and orders roles by all of
//! it. So a share is fair over all shards, and lags by one round; whoever leads a shard next begins with what it hears.

use super::amounts;
use super::pool::Pool;
use super::{Action, PeerMessage, Shard};
use protocol::{Resources, Role, ShardId, Time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The shortest time between two sayings of one shard, in milliseconds.
const USES_MS: u64 = 100;

/// What the agents of one shard have, and what roles hold there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uses {
    /// All that the agents have.
    pub total: Resources,
    /// Roles that hold something.
    pub roles: Vec<(Role, Resources)>,
}

/// The same of all other shards, as they said last.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    by_shard: BTreeMap<ShardId, Uses>,
    total: Resources,
    roles: BTreeMap<Role, Resources>,
    /// With all that is below each.
    whole_roles: BTreeMap<Role, Resources>,
    /// By shard, of roles with a guarantee: what of the shard's part of it they do not hold there; and that of all shards.
    short: BTreeMap<ShardId, BTreeMap<Role, Resources>>,
    all_short: BTreeMap<Role, Resources>,
    /// Who has spoken since this shard spoke last, and before that.
    heard: BTreeSet<ShardId>,
    heard_before: BTreeSet<ShardId>,
    /// What is so here is another than was said.
    changed: bool,
    said_at: Time,
}

impl Elsewhere {
    /// What roles hold here has changed.
    pub const fn stir(&mut self) {
        self.changed = true;
    }

    /// When it is to be said.
    pub fn due(&self) -> Option<Time> {
        self.changed.then(|| self.said_at + USES_MS)
    }

    /// What a role holds on the agents of others.
    pub fn of(&self, role: &Role) -> Resources {
        self.roles.get(role).cloned().unwrap_or_default()
    }

    /// The same with all that is below it.
    pub fn of_all(&self, role: &Role) -> Resources {
        self.whole_roles.get(role).cloned().unwrap_or_default()
    }

    /// What all others together keep of a role's guarantee as long as it is to be held by each shard in proportion to its agents.
    pub fn short_of(&self, role: &Role) -> Resources {
        self.all_short.get(role).cloned().unwrap_or_default()
    }

    /// What a shard keeps may be otherwise than it was.
    fn count_short(&mut self, shard: ShardId, guarantees: &[(Role, Resources)], whole: &Resources) {
        if guarantees.is_empty() && self.short.is_empty() {
            return;
        }
        for (role, before) in self.short.remove(&shard).unwrap_or_default() {
            exchange(&mut self.all_short, role, &before, &Resources::NONE);
        }
        let Some(uses) = self.by_shard.get(&shard) else { return };
        let mut short: BTreeMap<Role, Resources> =
            guarantees.iter().map(|(role, guarantee)| (role.clone(), amounts::part(guarantee, &uses.total, whole))).collect();
        for (role, used) in &uses.roles {
            for role in role.and_above() {
                short.entry(role).and_modify(|short| amounts::sub(short, used, 1));
            }
        }
        short.iter().for_each(|(role, now)| exchange(&mut self.all_short, role.clone(), &Resources::NONE, now));
        self.short.insert(shard, short);
    }

    fn change(&mut self, role: &Role, before: &Resources, now: &Resources) {
        exchange(&mut self.roles, role.clone(), before, now);
        for role in role.and_above() {
            exchange(&mut self.whole_roles, role, before, now);
        }
    }
}

impl Pool {
    /// What is to be said to the other shards now; `None` where it was said, or not long ago.
    pub(super) fn uses(&mut self, now: Time) -> Option<Uses> {
        if self.elsewhere.due().is_none_or(|due| due > now) {
            return None;
        }
        (self.elsewhere.changed, self.elsewhere.said_at) = (false, now);
        // Who has not spoken for as long as this shard spoke twice has nothing to say.
        let heard = std::mem::take(&mut self.elsewhere.heard);
        let silent: Vec<ShardId> =
            self.elsewhere.by_shard.keys().filter(|of| !heard.contains(of) && !self.elsewhere.heard_before.contains(of)).copied().collect();
        self.elsewhere.heard_before = heard;
        silent.into_iter().for_each(|of| self.heard_of(of));
        let roles = self.roles.iter().filter(|role| !role.own.is_none());
        Some(Uses { total: self.total.clone(), roles: roles.map(|role| (role.name.clone(), role.own.clone())).collect() })
    }

    /// What another shard's agents have, and what roles hold there, in place of what it said before.
    pub(super) fn hear_uses(&mut self, from: ShardId, uses: Uses) {
        let before = self.elsewhere.by_shard.insert(from, uses.clone()).unwrap_or_default();
        let other_total = before.total != uses.total;
        amounts::sub(&mut self.elsewhere.total, &before.total, 1);
        amounts::add(&mut self.elsewhere.total, &uses.total, 1);
        let mut changed: BTreeMap<Role, (Resources, Resources)> = BTreeMap::new();
        before.roles.into_iter().for_each(|(role, used)| changed.entry(role).or_default().0 = used);
        uses.roles.into_iter().for_each(|(role, used)| changed.entry(role).or_default().1 = used);
        for (role, (before, now)) in changed.into_iter().filter(|(_, (before, now))| before != now) {
            self.elsewhere.change(&role, &before, &now);
            self.roles.hear(&role, &self.elsewhere, &self.whole);
        }
        if other_total {
            self.count_whole();
        } else {
            self.elsewhere.count_short(from, &self.roles.guarantees(), &self.whole);
        }
        self.elsewhere.heard.insert(from);
        self.heard_of(from);
        if self.roles.shrinks(&self.elsewhere, (&self.total, &self.whole)) {
            self.look_again();
        }
    }

    /// What a shard said last of roles holds now.
    fn heard_of(&mut self, shard: ShardId) {
        if let Some(uses) = self.elsewhere.by_shard.get(&shard) {
            self.roles.heard(shard, (&uses.total, &self.total), &self.whole);
        }
    }

    /// `n` tasks of the class hold resources of the role, or no longer do.
    pub(super) fn charge(&mut self, class: u32, n: u32, more: bool) {
        let Some(class) = self.classes.get(class as usize).and_then(Option::as_ref) else { return };
        self.roles.charge(class.role, (&class.shape, n, more), &self.whole);
        self.elsewhere.stir();
    }

    /// What all agents of the cluster have is another than before.
    pub(super) fn count_whole(&mut self) {
        self.whole = self.total.clone();
        amounts::add(&mut self.whole, &self.elsewhere.total, 1);
        self.count_short();
        self.roles.reorder_all(&self.whole);
    }

    /// What other shards keep for guarantees may be otherwise than it was.
    pub(super) fn count_short(&mut self) {
        let guarantees = self.roles.guarantees();
        let shards: Vec<ShardId> = self.elsewhere.by_shard.keys().copied().collect();
        shards.into_iter().for_each(|shard| self.elsewhere.count_short(shard, &guarantees, &self.whole));
    }
}

fn exchange(sums: &mut BTreeMap<Role, Resources>, role: Role, before: &Resources, now: &Resources) {
    let sum = sums.entry(role.clone()).or_default();
    amounts::sub(sum, before, 1);
    amounts::add(sum, now, 1);
    if sum.is_none() {
        sums.remove(&role);
    }
}

impl Shard {
    /// When the other shards are to be told what roles hold here.
    pub(super) fn uses_due(&self) -> Option<Time> {
        self.pool.elsewhere.due().filter(|_| self.config.shards > 1)
    }

    /// Tells them, where it is time.
    pub(super) fn say_uses(&mut self) {
        if self.uses_due().is_none_or(|due| due > self.now) {
            return;
        }
        let Some(uses) = self.pool.uses(self.now) else { return };
        let own = self.config.id;
        for to in (0..self.config.shards).map(ShardId).filter(|to| *to != own) {
            self.at_once(Action::Peer { to, message: PeerMessage::Uses(uses.clone()) });
        }
    }
}
