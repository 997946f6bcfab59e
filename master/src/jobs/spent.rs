//! What the live tasks of each role are promised: that is what a quota is held against. Follows from the records alone.

use crate::shard::amounts;
use protocol::{Resources, Role};
use std::collections::BTreeMap;

/// By role, with all that is below each.
#[derive(Debug, Default)]
pub struct Spent(BTreeMap<Role, Resources>);

impl Spent {
    /// `n` more tasks of a role are live, each of which is promised `each`.
    pub fn more(&mut self, role: &Role, each: &Resources, n: u32) {
        for role in role.and_above() {
            amounts::add(self.0.entry(role).or_default(), each, n);
        }
    }

    /// One is live no longer.
    pub fn less(&mut self, role: &Role, each: &Resources) {
        for role in role.and_above() {
            let Some(spent) = self.0.get_mut(&role) else { continue };
            amounts::sub(spent, each, 1);
            if spent.is_none() {
                self.0.remove(&role);
            }
        }
    }

    /// What the live tasks of a role and of all below it are promised.
    #[must_use]
    pub fn of(&self, role: &Role) -> &Resources {
        static NONE: Resources = Resources::NONE;
        self.0.get(role).unwrap_or(&NONE)
    }

    /// All of it.
    pub fn iter(&self) -> impl Iterator<Item = (&Role, &Resources)> {
        self.0.iter()
    }
}
