//! Where the live tasks of one job are, by the values of the fields that its placement counts; and how many more each value takes.
//! The counts follow from what is on record. How far a job is spread does not: it is raised when no agent has room for another task.

use crate::shard::event::{LEFT_MAX, Limit};
use protocol::{Field, Placement, Rule, ShardId, Stand};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// What is counted of one job.
#[derive(Clone, Debug)]
pub struct Tally {
    groups: Vec<Group>,
    /// Rises with each change.
    turn: u64,
    /// What was made of it last, until it changes.
    limits: Option<(u32, Arc<Vec<Limit>>)>,
    /// Shards that have said that none of their agents has room for one in this turn.
    stuck: BTreeSet<ShardId>,
}

/// The tasks by the value of one field.
#[derive(Clone, Debug)]
struct Group {
    field: Field,
    by: By,
    /// Values that have at least one.
    counts: BTreeMap<String, u32>,
}

/// How many tasks one value may have.
#[derive(Clone, Copy, Debug)]
enum By {
    /// So many.
    Most(u32),
    /// All, where it has any.
    Same,
    /// Another one where it has none, or else no more than any other, once so many have some.
    Even(u32),
    /// So many, until all else is full.
    Level(u32),
}

impl Tally {
    /// Nothing counted yet; `None` where nothing needs to be.
    #[must_use]
    pub fn of(place: Option<&Placement>) -> Option<Box<Self>> {
        let place = place.filter(|place| place.counts_tasks())?;
        let hard = place.constraints.iter().filter_map(|constraint| {
            let by = match constraint.rule {
                Rule::Unique => By::Most(1),
                Rule::MaxPer(most) => By::Most(most),
                Rule::Cluster(None) => By::Same,
                Rule::GroupBy(least) => By::Even(least),
                Rule::Cluster(Some(_)) | Rule::Like(_) | Rule::Unlike(_) | Rule::Is(_) | Rule::Near(_) | Rule::Apart(_) => return None,
            };
            Some((&constraint.field, by))
        });
        let soft = place.spread.iter().map(|field| (field, By::Level(1)));
        let group = |(field, by): (&Field, By)| Group { field: field.clone(), by, counts: BTreeMap::new() };
        Some(Box::new(Self { groups: hard.chain(soft).map(group).collect(), turn: 1, limits: None, stuck: BTreeSet::new() }))
    }

    /// So many more tasks are on an agent that stands so, or so many less.
    pub fn count(&mut self, stand: &Stand, tasks: u32, more: bool) {
        for group in &mut self.groups {
            group.count(stand, tasks, more);
        }
        self.change();
    }

    fn change(&mut self) {
        self.turn += 1;
        self.limits = None;
        self.stuck.clear();
    }

    /// Tasks begin to wait: values with the fewest go first again.
    pub fn begin(&mut self) {
        for group in &mut self.groups {
            let least = group.counts.values().min().copied().unwrap_or(0);
            if let By::Level(level) = &mut group.by {
                *level = least.max(1);
            }
        }
        self.change();
    }

    /// No agent has room for any of the `waiting` tasks at a value that may have one: each may have more.
    pub fn relax(&mut self, waiting: u32) {
        for group in &mut self.groups {
            let values = u32::try_from(group.counts.len()).unwrap_or(u32::MAX).max(1);
            if let By::Level(level) = &mut group.by {
                *level = level.saturating_add((waiting / values).max(1));
            }
        }
        self.change();
    }

    /// A shard says of this turn that none of its agents has room; true where all `shards` have.
    pub fn stuck(&mut self, from: ShardId, turn: u64, shards: u16) -> bool {
        turn == self.turn && self.stuck.insert(from) && self.stuck.len() >= usize::from(shards)
    }

    /// The present turn, where it is spread further than need be: fewer than `total` tasks may be at one value.
    #[must_use]
    pub fn turn(&self, total: u32) -> Option<u64> {
        self.groups.iter().any(|group| matches!(group.by, By::Level(level) if level < total)).then_some(self.turn)
    }

    /// How many tasks each value takes now, of `total` in all.
    pub fn limits(&mut self, total: u32) -> Arc<Vec<Limit>> {
        if let Some((_, limits)) = self.limits.as_ref().filter(|(of, _)| *of == total) {
            return Arc::clone(limits);
        }
        let limits = Arc::new(self.groups.iter().filter_map(|group| group.limit(total)).collect::<Vec<_>>());
        self.limits = Some((total, Arc::clone(&limits)));
        limits
    }

    /// How many of `waiting` tasks go to each of these agents, that have room for so many each.
    #[must_use]
    pub fn plan(&self, offers: &[(&Stand, u32)], waiting: u32) -> Vec<u32> {
        let (mut groups, mut taken, mut left) = (self.groups.clone(), vec![0; offers.len()], waiting);
        // Those that are the same to all rules stand in one queue: the queues take turns, and so do the agents of each.
        let mut alike: BTreeMap<Vec<Option<&str>>, VecDeque<usize>> = BTreeMap::new();
        for (at, (stand, _)) in offers.iter().enumerate().filter(|(_, (_, room))| *room > 0) {
            alike.entry(groups.iter().map(|group| group.by.value(&group.field, stand)).collect()).or_default().push_back(at);
        }
        loop {
            let before = left;
            for (values, queue) in &mut alike {
                let fits = groups.iter().zip(values).all(|(group, value)| value.is_some_and(|value| group.room(value) > 0));
                let Some(at) = queue.front().copied().filter(|_| fits && left > 0) else { continue };
                let (stand, room) = offers[at];
                groups.iter_mut().for_each(|group| group.count(stand, 1, true));
                taken[at] += 1;
                left -= 1;
                queue.pop_front();
                if taken[at] < room {
                    queue.push_back(at);
                }
            }
            if left == before {
                return taken;
            }
        }
    }
}

impl By {
    /// The value that counts. An agent without the field is refused, but for spreading: there it is as if that were a value.
    fn value<'a>(self, field: &Field, stand: &'a Stand) -> Option<&'a str> {
        match self {
            Self::Level(_) => Some(field.of(stand).unwrap_or("")),
            _ => field.of(stand),
        }
    }
}

impl Group {
    fn count(&mut self, stand: &Stand, tasks: u32, more: bool) {
        let Some(value) = self.by.value(&self.field, stand) else { return };
        match self.counts.get_mut(value) {
            Some(count) if more => *count += tasks,
            None if more && tasks > 0 => drop(self.counts.insert(value.to_owned(), tasks)),
            Some(count) if *count > tasks => *count -= tasks,
            Some(_) => drop(self.counts.remove(value)),
            None => {}
        }
    }

    /// How many more tasks a value may have, one after the other: 0, or at least 1.
    fn room(&self, value: &str) -> u32 {
        let count = self.counts.get(value).copied().unwrap_or(0);
        match self.by {
            By::Most(most) | By::Level(most) => most.saturating_sub(count),
            By::Same => {
                if self.counts.is_empty() || count > 0 {
                    u32::MAX
                } else {
                    0
                }
            }
            By::Even(_) if count == 0 => 1,
            By::Even(least) => {
                let many = self.counts.len() >= least as usize;
                u32::from(many && self.counts.values().all(|other| *other >= count))
            }
        }
    }

    /// The same of all values, as agents' shards are told: where one has room they may offer as many as it would have were all even.
    fn limit(&self, total: u32) -> Option<Limit> {
        let values = u32::try_from(self.counts.len()).unwrap_or(u32::MAX);
        let (most, even) = match self.by {
            By::Most(most) | By::Level(most) => (most, 0),
            By::Same => (0, 0),
            By::Even(least) => {
                let even = (total / values.max(least).max(1)).max(1);
                (even, even)
            }
        };
        let least = self.counts.values().min().copied().unwrap_or(0);
        let left = |(value, count): (&String, &u32)| {
            let left = match self.by {
                By::Even(least_values) if *count == least && values >= least_values => even.saturating_sub(*count).max(1),
                By::Even(_) => 0,
                _ => self.room(value),
            };
            (value.clone(), left)
        };
        let any = matches!(self.by, By::Same) && self.counts.is_empty();
        let missing = matches!(self.by, By::Level(_));
        (!any).then(|| Limit { field: self.field.clone(), missing, most, left: self.counts.iter().map(left).take(LEFT_MAX).collect() })
    }
}

#[cfg(test)]
mod tests;
