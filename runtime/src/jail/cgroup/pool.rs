//! Groups that wait for another task: kept by the template, which outlives tasks. See [`Hierarchies::can_renew`].

use super::{Hierarchies, folders};
use crate::process::ProcessLimits;
use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Most that wait.
const FREE_MAX: usize = 64;
/// What groups of templates before are named besides their number.
const PREFIX: &str = "slot-";
/// An executor that a template forked right before its end has joined its group by then.
const SWEEP_AFTER: Duration = Duration::from_secs(10);

/// The groups of one template.
#[derive(Debug)]
pub(crate) struct Pool {
    hierarchies: Hierarchies,
    free: Vec<Slot>,
    made: u64,
    /// Groups that ours are made in, and when those that templates before left there are removed.
    parents: BTreeMap<String, Option<Instant>>,
}

/// A group that one task has.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) name: String,
    /// What it was bounded by; `None`: it is yet to be made.
    pub(crate) before: Option<ProcessLimits>,
}

impl Pool {
    pub(crate) fn new(hierarchies: &Hierarchies) -> Self {
        Self { hierarchies: hierarchies.clone(), free: vec![], made: 0, parents: BTreeMap::new() }
    }

    /// A group beside the one called `name`, for one task; `None`: the task is to have the group `name` itself.
    pub(crate) fn take(&mut self, name: &str, limits: &ProcessLimits) -> Option<Slot> {
        let (parent, _) = name.rsplit_once('/').filter(|_| self.hierarchies.can_renew())?;
        if !self.parents.contains_key(parent) {
            self.parents.insert(parent.into(), Some(Instant::now() + SWEEP_AFTER));
        }
        let is_here = |slot: &Slot| slot.name.rsplit_once('/').is_some_and(|(of, _)| of == parent);
        // One with the same limits need not be told any.
        let found = self.free.iter().rposition(|slot| is_here(slot) && slot.before.as_ref() == Some(limits));
        if let Some(at) = found.or_else(|| self.free.iter().rposition(is_here)) {
            return Some(self.free.swap_remove(at));
        }
        self.made += 1;
        Some(Slot { name: format!("{parent}/{PREFIX}{}-{}", std::process::id(), self.made), before: None })
    }

    /// Takes back one that is clean, whose task was bounded by `limits`.
    pub(crate) fn put_back(&mut self, name: String, limits: ProcessLimits) {
        if self.free.len() < FREE_MAX {
            self.free.push(Slot { name, before: Some(limits) });
        } else {
            let _ = self.hierarchies.remove(&name); // It is empty; what stays is removed with its parent.
        }
    }

    /// Removes what templates before left, once that is due.
    pub(crate) fn sweep(&mut self, now: Instant) {
        let own = format!("{PREFIX}{}-", std::process::id());
        for (parent, due) in self.parents.iter_mut().filter(|(_, due)| due.is_some_and(|at| at <= now)) {
            *due = None;
            for root in self.hierarchies.roots() {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let Ok(folder) = openat(root, parent.as_str(), flags, Mode::empty()) else { continue };
                let is_left = |name: &[u8]| name.starts_with(PREFIX.as_bytes()) && !name.starts_with(own.as_bytes());
                let left = folders(&folder).into_iter().filter(|name| is_left(name.to_bytes()));
                // One that still has processes is not removed, and is no business of ours.
                left.for_each(|name| _ = unlinkat(&folder, name, AtFlags::REMOVEDIR));
            }
        }
    }

    /// Removes all that wait.
    pub(crate) fn clear(&mut self) {
        self.free.drain(..).for_each(|slot| _ = self.hierarchies.remove(&slot.name));
    }
}
