//! Roles as a tree: what each holds with all that is below it, and who is served next. Among those below one role, and among those below none,
//! whose guarantee is not met comes first, then whose dominant share by its weight is the smallest (DRF: Ghodsi et al., NSDI 2011; over a
//! tree: Bhattacharya et al., SoCC 2013). What a role with others below it wants itself stands among those, with weight 1.

mod lag;
mod part;
mod reserve;

use super::amounts::{self, SHARE_ONE};
use super::pool::place;
use super::preempt::Preempts;
use super::shares::Elsewhere;
use protocol::{Resources, Role};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// A weight of 1.
pub const WEIGHT_ONE: u32 = 1_000;
/// How far a role may get ahead of the next one with a single offer, in parts of [`SHARE_ONE`]: fairness against the number of offers.
pub(super) const SHARE_STEP: u64 = SHARE_ONE / 256;
/// In a line of a role's children: what it wants itself.
const OWN: u32 = u32::MAX;
/// Keys from here on are of roles whose guarantee is met, or that have none.
const MET: u64 = 1 << 62;

/// How a role is served beside the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Its part of what it competes for, in thousandths of that of a role of weight 1; above 0.
    pub weight_milli: u32,
    /// What it and all below it are served before others.
    pub guarantee: Resources,
    /// Whose tasks of lower priority its own may take the place of.
    pub preempts: Preempts,
}

impl Default for Claim {
    fn default() -> Self {
        Self { weight_milli: WEIGHT_ONE, guarantee: Resources::NONE, preempts: Preempts::None }
    }
}

/// Which of two orders is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Roles that may have an unmet want.
    Hungry,
    /// Roles that may have one that is not blocked.
    Awake,
}

/// Who has nothing to gain any more in one round.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// All of the top line up to here.
    upto: Option<(u64, u32)>,
    /// And these.
    roles: BTreeSet<u32>,
}

/// Those that compete with each other, by key.
#[derive(Debug, Default)]
struct Lines {
    hungry: BTreeSet<(u64, u32)>,
    awake: BTreeSet<(u64, u32)>,
}

impl Lines {
    const fn get(&self, line: Line) -> &BTreeSet<(u64, u32)> {
        match line {
            Line::Hungry => &self.hungry,
            Line::Awake => &self.awake,
        }
    }

    const fn get_mut(&mut self, line: Line) -> &mut BTreeSet<(u64, u32)> {
        match line {
            Line::Hungry => &mut self.hungry,
            Line::Awake => &mut self.awake,
        }
    }

    fn moved(&mut self, at: u32, before: u64, now: u64) {
        for line in [&mut self.hungry, &mut self.awake] {
            if line.remove(&(before, at)) {
                line.insert((now, at));
            }
        }
    }
}

/// A role as this shard's agents see it.
#[derive(Debug)]
pub(super) struct Node {
    /// Its name.
    pub name: Role,
    parent: Option<u32>,
    children: u32,
    /// What its own attempts and offers hold on our agents.
    pub own: Resources,
    own_elsewhere: Resources,
    /// The same with all that is below it.
    all: Resources,
    all_elsewhere: Resources,
    claim: Claim,
    /// What others' news of it lacks.
    lag: lag::Lag,
    key: u64,
    own_key: u64,
    lines: Lines,
    /// What it wants itself, the most urgent first: priority, age, want.
    pub wants: BTreeSet<(Reverse<u8>, u64, u32)>,
    classes: u32,
}

impl Node {
    fn key_now(&self, whole: &Resources) -> u64 {
        if let Some(part) = self.part_of_guarantee().filter(|part| *part < SHARE_ONE) {
            return part;
        }
        let share = self.lag.corrected(amounts::dominant_share_of_both(&self.all, &self.all_elsewhere, whole), &self.all, whole);
        MET + by_weight(share, self.claim.weight_milli).min(MET - 1)
    }

    fn own_key_now(&self, whole: &Resources) -> u64 {
        MET + amounts::dominant_share_of_both(&self.own, &self.own_elsewhere, whole).min(MET - 1)
    }

    /// How much of its guarantee it holds, of the kind that it holds most of, in parts of [`SHARE_ONE`]; `None` where it has none.
    fn part_of_guarantee(&self) -> Option<u64> {
        if self.claim.guarantee.is_none() {
            return None;
        }
        let mut held = self.all.clone();
        amounts::add(&mut held, &self.all_elsewhere, 1);
        Some(amounts::dominant_share(&amounts::only(&held, &self.claim.guarantee), &self.claim.guarantee))
    }
}

fn by_weight(share: u64, weight_milli: u32) -> u64 {
    u64::try_from(u128::from(share) * u128::from(WEIGHT_ONE) / u128::from(weight_milli.max(1))).unwrap_or(u64::MAX)
}

/// All roles that hold or want something, and those above them.
#[derive(Debug, Default)]
pub(super) struct Roles {
    list: Vec<Option<Node>>,
    free: Vec<u32>,
    by_name: BTreeMap<Role, u32>,
    /// Roles that are below none.
    top: Lines,
    claims: BTreeMap<Role, Claim>,
    /// What all of them hold on our agents.
    busy: Resources,
    /// What is being gathered there for some: as good as held.
    gathered: Resources,
    /// What is kept for guarantees that are not met; `None` where it is to be counted.
    reserve: Option<Resources>,
    /// The same as it was when [`Self::shrinks`] was asked.
    reserve_before: Resources,
}

impl Roles {
    /// The role `at`.
    pub fn get(&self, at: u32) -> Option<&Node> {
        self.list.get(at as usize)?.as_ref()
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, at: u32) -> Option<&mut Node> {
        self.list.get_mut(at as usize)?.as_mut()
    }

    /// Where the role of this name is.
    pub fn find(&self, name: &Role) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// True where there is none.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Node> {
        self.list.iter().flatten()
    }

    /// Where the role of this name is, one that is held by one class more from now on.
    pub fn hold(&mut self, name: &Role, elsewhere: &Elsewhere, whole: &Resources) -> u32 {
        let at = self.seat(name, elsewhere, whole);
        if let Some(node) = self.get_mut(at) {
            node.classes += 1;
        }
        at
    }

    fn seat(&mut self, name: &Role, elsewhere: &Elsewhere, whole: &Resources) -> u32 {
        if let Some(at) = self.find(name) {
            return at;
        }
        let parent = name.parent().map(|parent| self.seat(&parent, elsewhere, whole));
        let mut node = Node {
            name: name.clone(),
            parent,
            children: 0,
            own: Resources::NONE,
            own_elsewhere: elsewhere.of(name),
            all: Resources::NONE,
            all_elsewhere: elsewhere.of_all(name),
            claim: self.claims.get(name).cloned().unwrap_or_default(),
            lag: lag::Lag::default(),
            key: 0,
            own_key: 0,
            lines: Lines::default(),
            wants: BTreeSet::new(),
            classes: 0,
        };
        node.key = node.key_now(whole);
        node.own_key = node.own_key_now(whole);
        let at = place(&mut self.list, &mut self.free, node);
        self.by_name.insert(name.clone(), at);
        if let Some(parent) = parent {
            self.adopt(parent, whole);
        }
        at
    }

    /// A role has one more below it: what it wants itself competes with that.
    fn adopt(&mut self, parent: u32, whole: &Resources) {
        let Some(node) = self.get_mut(parent) else { return };
        node.children += 1;
        if node.children > 1 {
            return;
        }
        node.own_key = node.own_key_now(whole);
        let (key, own_key, above) = (node.key, node.own_key, node.parent);
        for line in [Line::Hungry, Line::Awake] {
            if self.lines(above).is_some_and(|lines| lines.get(line).contains(&(key, parent)))
                && let Some(node) = self.get_mut(parent)
            {
                node.lines.get_mut(line).insert((own_key, OWN));
            }
        }
    }

    /// One class fewer holds it.
    pub fn release(&mut self, at: u32) {
        if let Some(node) = self.get_mut(at) {
            node.classes = node.classes.saturating_sub(1);
        }
        let mut next = Some(at);
        while let Some(at) = next.filter(|at| self.get(*at).is_some_and(|node| node.classes == 0 && node.children == 0)) {
            self.calm(at, Line::Hungry);
            self.calm(at, Line::Awake);
            let Some(node) = self.list[at as usize].take() else { return };
            self.free.push(at);
            self.by_name.remove(&node.name);
            next = node.parent;
            if let Some(parent) = next.and_then(|at| self.get_mut(at)) {
                parent.children -= 1;
                if parent.children == 0 {
                    parent.lines = Lines::default();
                }
            }
        }
    }

    fn lines(&self, of: Option<u32>) -> Option<&Lines> {
        of.map_or(Some(&self.top), |at| self.get(at).map(|node| &node.lines))
    }

    fn lines_mut(&mut self, of: Option<u32>) -> Option<&mut Lines> {
        match of {
            None => Some(&mut self.top),
            Some(at) => self.list.get_mut(at as usize)?.as_mut().map(|node| &mut node.lines),
        }
    }

    /// A role holds `n` times `shape` more on our agents, or less.
    pub fn charge(&mut self, at: u32, (shape, n, more): (&Resources, u32, bool), whole: &Resources) {
        let change = if more { amounts::add } else { amounts::sub };
        change(&mut self.busy, shape, n);
        if let Some(node) = self.get_mut(at) {
            change(&mut node.own, shape, n);
        }
        let mut next = Some(at);
        while let Some(node) = next.and_then(|at| self.get_mut(at)) {
            change(&mut node.all, shape, n);
            next = node.parent;
        }
        self.reorder(at, whole);
    }

    /// What a role holds on the agents of others is another than before.
    pub fn hear(&mut self, name: &Role, elsewhere: &Elsewhere, whole: &Resources) {
        for name in name.and_above() {
            let Some(node) = self.find(&name).and_then(|at| self.get_mut(at)) else { continue };
            (node.own_elsewhere, node.all_elsewhere) = (elsewhere.of(&name), elsewhere.of_all(&name));
        }
        if let Some(at) = name.and_above().find_map(|name| self.find(&name)) {
            self.reorder(at, whole);
        }
        self.stale();
    }

    /// Everybody's share may be another than before.
    pub fn reorder_all(&mut self, whole: &Resources) {
        for at in 0..u32::try_from(self.list.len()).expect("fewer roles than jobs") {
            self.reorder_one(at, whole);
        }
        self.stale();
    }

    fn reorder(&mut self, at: u32, whole: &Resources) {
        let mut next = Some(at);
        while let Some(at) = next {
            self.reorder_one(at, whole);
            next = self.get(at).and_then(|node| node.parent);
        }
        self.stale();
    }

    fn reorder_one(&mut self, at: u32, whole: &Resources) {
        let Some(node) = self.get_mut(at) else { return };
        if node.children > 0 {
            let (before, now) = (node.own_key, node.own_key_now(whole));
            node.own_key = now;
            node.lines.moved(OWN, before, now);
        }
        let (before, now) = (node.key, node.key_now(whole));
        if before != now {
            node.key = now;
            let parent = node.parent;
            if let Some(lines) = self.lines_mut(parent) {
                lines.moved(at, before, now);
            }
        }
    }

    /// A role may have an unmet want; one that is not blocked, where it is `awake`.
    pub fn wake(&mut self, at: u32, awake: bool) {
        let lines: &[Line] = if awake { &[Line::Hungry, Line::Awake] } else { &[Line::Hungry] };
        for line in lines {
            if let Some(node) = self.get_mut(at).filter(|node| node.children > 0) {
                node.lines.get_mut(*line).insert((node.own_key, OWN));
            }
            let mut next = Some(at);
            while let Some((at, node)) = next.and_then(|at| self.get(at).map(|node| (at, node))) {
                let (key, parent) = (node.key, node.parent);
                if let Some(lines) = self.lines_mut(parent) {
                    lines.get_mut(*line).insert((key, at));
                }
                next = parent;
            }
        }
    }

    /// A role wants nothing of that line.
    pub fn calm(&mut self, at: u32, line: Line) {
        let Some(node) = self.get_mut(at) else { return };
        let own_key = node.own_key;
        node.lines.get_mut(line).remove(&(own_key, OWN));
        let mut next = Some(at);
        while let Some((at, node)) = next.and_then(|at| self.get(at).map(|node| (at, node))) {
            if !node.lines.get(line).is_empty() {
                return;
            }
            let (key, parent) = (node.key, node.parent);
            if let Some(lines) = self.lines_mut(parent) {
                lines.get_mut(line).remove(&(key, at));
            }
            next = parent;
        }
    }

    /// True where nobody is in that line.
    pub fn is_calm(&self, line: Line) -> bool {
        self.top.get(line).is_empty()
    }

    /// Who comes first of that line, but for those that were passed over.
    pub fn first(&self, line: Line, passed: &Passed) -> Option<u32> {
        let from = passed.upto.map_or(Bound::Unbounded, Bound::Excluded);
        self.top.get(line).range((from, Bound::Unbounded)).find_map(|(_, at)| self.first_at(*at, line, passed))
    }

    fn first_at(&self, at: u32, line: Line, passed: &Passed) -> Option<u32> {
        match self.get(at)? {
            node if node.children > 0 => node.lines.get(line).iter().find_map(|(_, below)| match *below {
                OWN => (!passed.roles.contains(&at)).then_some(at),
                below => self.first_at(below, line, passed),
            }),
            _ => (!passed.roles.contains(&at)).then_some(at),
        }
    }

    /// A role is passed over from now on. Keys of those that are do not change meanwhile, and whoever is served only gets behind: so of roles
    /// without others beside it, all up to this one are.
    pub fn pass(&self, at: u32, passed: &mut Passed) {
        match self.get(at) {
            Some(node) if node.parent.is_none() && node.children == 0 => passed.upto = Some((node.key, at)),
            _ => drop(passed.roles.insert(at)),
        }
    }

    /// How many tasks of this shape a role may be offered before the next one is to be served; at least 1.
    pub fn fair_most(&self, at: u32, shape: &Resources, whole: &Resources) -> u32 {
        let share = amounts::dominant_share(shape, whole);
        let (mut most, mut at, mut own) = (u64::MAX, at, true);
        while let Some(node) = self.get(at) {
            if own && node.children > 0 {
                most = most.min(ahead(&node.lines, (node.own_key, OWN)) / share.max(1));
            }
            own = false;
            let (by, limit) = match node.key < MET {
                true => {
                    (amounts::dominant_share(&amounts::only(shape, &node.claim.guarantee), &node.claim.guarantee), SHARE_ONE - node.key)
                }
                false => (by_weight(share, node.claim.weight_milli), u64::MAX),
            };
            let Some(lines) = self.lines(node.parent) else { break };
            most = most.min(ahead(lines, (node.key, at)).min(limit) / by.max(1));
            let Some(parent) = node.parent else { break };
            at = parent;
        }
        u32::try_from(most).unwrap_or(u32::MAX).max(1)
    }

    /// What a role and all below it hold, on all agents of the cluster as far as is known.
    pub fn held(&self, name: &Role, elsewhere: &Elsewhere) -> Resources {
        let mut held = elsewhere.of_all(name);
        if let Some(node) = self.find(name).and_then(|at| self.get(at)) {
            amounts::add(&mut held, &node.all, 1);
        }
        held
    }

    /// The role's dominant share of the whole, with all that is below it, in parts of [`SHARE_ONE`].
    pub fn share(&self, name: &Role, whole: &Resources) -> u64 {
        let node = self.find(name).and_then(|at| self.get(at));
        node.map_or(0, |node| amounts::dominant_share_of_both(&node.all, &node.all_elsewhere, whole))
    }

    /// Where a role stands in the order, on each level from the top: whoever is less comes first. `more` is what it would hold beside.
    pub fn rank(&self, at: u32, more: &Resources, whole: &Resources) -> Vec<u64> {
        let share = amounts::dominant_share(more, whole);
        let mut keys: Vec<u64> = Vec::new();
        let mut next = self.get(at);
        if let Some(node) = next.filter(|node| node.children > 0) {
            keys.push(node.own_key.saturating_add(share));
        }
        while let Some(node) = next {
            keys.push(node.key.saturating_add(by_weight(share, node.claim.weight_milli)));
            next = node.parent.and_then(|at| self.get(at));
        }
        keys.reverse();
        keys
    }
}

/// How far the one with this key may get ahead.
fn ahead(lines: &Lines, (key, at): (u64, u32)) -> u64 {
    let next = lines.hungry.iter().find(|(_, other)| *other != at);
    next.map_or(u64::MAX, |(next, _)| next.saturating_add(SHARE_STEP).saturating_sub(key))
}
