//! What the agents of this shard are, as far as jobs ask for it. Constraints that many tasks share are one *rule set*, and who meets it is worked out
//! once for each agent, and again when tasks of a job come or go that it asks for; slots by the value of a field are kept while a want counts tasks by it. So
//! no decision looks at agents one by one.

use super::mask::Mask;
use super::pool::place;
use crate::place::Matcher;
use protocol::{Constraint, Field, JobId, Stand};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// All rule sets, and the agents that they are about.
#[derive(Debug, Default)]
pub(super) struct Rules {
    sets: Vec<Option<RuleSet>>,
    free: Vec<u32>,
    by_key: BTreeMap<Vec<Constraint>, u32>,
    fields: BTreeMap<Field, Values>,
    /// The jobs that rule sets ask for, and the slots of agents with tasks of each.
    beside: BTreeMap<JobId, BTreeSet<u32>>,
    /// By slot.
    stands: Vec<Arc<Stand>>,
    /// Of the index.
    size: usize,
}

/// Constraints, and who meets them.
#[derive(Debug)]
struct RuleSet {
    matcher: Matcher,
    key: Vec<Constraint>,
    mask: Mask,
    refs: u32,
}

/// Slots by the value of one field.
#[derive(Debug, Default)]
struct Values {
    refs: u32,
    slots: BTreeMap<String, BTreeSet<u32>>,
}

/// The value of a field, the empty one where there is none.
fn value<'a>(field: &Field, stand: &'a Stand) -> &'a str {
    field.of(stand).unwrap_or("")
}

/// The jobs that constraints ask for.
fn asked(constraints: &[Constraint]) -> impl Iterator<Item = JobId> {
    constraints.iter().filter_map(|constraint| constraint.rule.neighbour()?.id)
}

/// True where tasks of a job are on the agent in this slot.
fn is_beside(beside: &BTreeMap<JobId, BTreeSet<u32>>, slot: u32) -> impl Fn(JobId) -> bool {
    move |job| beside.get(&job).is_some_and(|slots| slots.contains(&slot))
}

impl Rules {
    /// The set of these constraints, held once more; `with`: the slots of agents with tasks of a job.
    pub fn hold(&mut self, constraints: &[Constraint], with: impl Fn(JobId) -> BTreeSet<u32>) -> u32 {
        let at = self.by_key.get(constraints).copied().unwrap_or_else(|| {
            for job in asked(constraints) {
                self.beside.entry(job).or_insert_with(|| with(job));
            }
            let matcher = Matcher::new(constraints);
            let mut mask = Mask::new(self.size);
            for (slot, stand) in (0..).zip(&self.stands) {
                mask.set(slot, matcher.admits(stand, is_beside(&self.beside, slot)));
            }
            let set = RuleSet { matcher, key: constraints.to_vec(), mask, refs: 0 };
            let at = place(&mut self.sets, &mut self.free, set);
            self.by_key.insert(constraints.to_vec(), at);
            at
        });
        if let Some(set) = self.sets[at as usize].as_mut() {
            set.refs += 1;
        }
        at
    }

    /// A set that is held is held once more.
    pub fn hold_again(&mut self, at: Option<u32>) {
        if let Some(set) = at.and_then(|at| self.sets.get_mut(at as usize)?.as_mut()) {
            set.refs += 1;
        }
    }

    /// Lets go of it.
    pub fn drop(&mut self, at: u32) {
        let Some(set) = self.sets.get_mut(at as usize).and_then(Option::as_mut) else { return };
        set.refs -= 1;
        if set.refs == 0
            && let Some(set) = self.sets[at as usize].take()
        {
            self.by_key.remove(&set.key);
            self.free.push(at);
            for job in asked(&set.key) {
                if !self.sets.iter().flatten().any(|set| asked(&set.key).any(|other| other == job)) {
                    self.beside.remove(&job);
                }
            }
        }
    }

    /// True where rules ask for tasks of any job.
    pub fn asks_for_any(&self) -> bool {
        !self.beside.is_empty()
    }

    /// True where rules ask for tasks of this job.
    pub fn asks_for(&self, job: JobId) -> bool {
        self.beside.contains_key(&job)
    }

    /// Tasks of a job are on the agent in `slot` now, or no longer: the rule sets of which that changes something.
    pub fn moved(&mut self, job: JobId, slot: u32, is_there: bool) -> Vec<u32> {
        let Some(slots) = self.beside.get_mut(&job) else { return Vec::new() };
        if !(if is_there { slots.insert(slot) } else { slots.remove(&slot) }) {
            return Vec::new();
        }
        let Some(stand) = self.stands.get(slot as usize) else { return Vec::new() };
        let mut changed = Vec::new();
        for (at, set) in (0..).zip(&mut self.sets) {
            let Some(set) = set.as_mut().filter(|set| asked(&set.key).any(|other| other == job)) else { continue };
            set.mask.set(slot, set.matcher.admits(stand, is_beside(&self.beside, slot)));
            changed.push(at);
        }
        changed
    }

    /// True where tasks of a job that rules ask for are on the agent in this slot.
    pub fn has_beside(&self, slot: u32) -> impl Fn(JobId) -> bool {
        is_beside(&self.beside, slot)
    }

    /// How many slots the index has.
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Who meets the set.
    pub fn mask(&self, at: u32) -> Option<&Mask> {
        self.sets.get(at as usize)?.as_ref().map(|set| &set.mask)
    }

    /// What the set asks.
    pub fn matcher(&self, at: u32) -> Option<&Matcher> {
        self.sets.get(at as usize)?.as_ref().map(|set| &set.matcher)
    }

    /// How an agent stands; as nobody does where it is not known.
    pub fn stand(&self, slot: u32) -> Arc<Stand> {
        self.stands.get(slot as usize).cloned().unwrap_or_default()
    }

    /// The agent in `slot` stands so from now on, in an index of this size. True where that is new.
    pub fn set(&mut self, slot: u32, stand: Stand, size: usize) -> bool {
        if size > self.size {
            self.size = size;
            self.sets.iter_mut().flatten().for_each(|set| set.mask.grow(size));
        }
        let is_new = slot as usize >= self.stands.len();
        if is_new {
            self.stands.resize_with(slot as usize + 1, Arc::default);
        } else if *self.stands[slot as usize] == stand {
            return false;
        }
        let before = std::mem::replace(&mut self.stands[slot as usize], Arc::new(stand));
        let stand = &self.stands[slot as usize];
        for set in self.sets.iter_mut().flatten() {
            set.mask.set(slot, set.matcher.admits(stand, is_beside(&self.beside, slot)));
        }
        for (field, values) in &mut self.fields {
            values.remove(value(field, &before), slot);
            values.slots.entry(value(field, stand).to_owned()).or_default().insert(slot);
        }
        true
    }

    /// Slots by the value of this field are asked for from now on, once more.
    pub fn watch(&mut self, field: &Field) {
        let stands = &self.stands;
        let values = self.fields.entry(field.clone()).or_insert_with(|| {
            let mut values = Values::default();
            for (slot, stand) in (0..).zip(stands) {
                values.slots.entry(value(field, stand).to_owned()).or_default().insert(slot);
            }
            values
        });
        values.refs += 1;
    }

    /// They are asked for once less.
    pub fn unwatch(&mut self, field: &Field) {
        let Some(values) = self.fields.get_mut(field) else { return };
        values.refs -= 1;
        if values.refs == 0 {
            self.fields.remove(field);
        }
    }

    /// The slots of agents whose field has this value, while that is watched.
    pub fn slots(&self, field: &Field, value: &str) -> impl Iterator<Item = u32> {
        self.fields.get(field).and_then(|values| values.slots.get(value)).into_iter().flatten().copied()
    }
}

impl Values {
    fn remove(&mut self, value: &str, slot: u32) {
        if let Some(slots) = self.slots.get_mut(value) {
            slots.remove(&slot);
            if slots.is_empty() {
                self.slots.remove(value);
            }
        }
    }
}
