//! The agents' shard: wants of tasks that may not go everywhere. Each has the set of agents that it may be offered now: those of its rule set, but for
//! the values of a field that have as many tasks as they take, with those counted that offers are out for. The framework's shard judges last.

use super::event::{Limit, PlacedOffer, PlacedWant};
use super::mask::Mask;
use super::pool::Pool;
use super::rules::Rules;
use protocol::{AgentId, Constraint, Offer, Resources, Role, ShardId, Stand};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is known of one such want.
#[derive(Debug)]
pub struct Aim {
    /// As its shard said it last.
    said: PlacedWant,
    /// Whom it may be offered, where that is less than its rule set.
    mask: Option<Mask>,
    /// Offers that its shard had not counted when it said so: on which agent, and for how many tasks.
    out: BTreeMap<u64, (u32, u32)>,
    /// For how many tasks they are, by limit and value.
    used: Vec<BTreeMap<String, u32>>,
    /// Agents whose offers its shard has declined since.
    shut: BTreeSet<u32>,
    /// Of a system job: the agents that are to have one.
    named: Option<BTreeSet<u32>>,
    /// Those of them that offers are out of.
    shown: BTreeSet<u32>,
}

/// What agents are, and what is to be said of who asks for it.
#[derive(Debug, Default)]
pub(super) struct Aims {
    pub rules: Rules,
    pub said: Said,
}

/// What is to be said of such wants.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Offers.
    pub offers: BTreeMap<ShardId, Vec<PlacedOffer>>,
    /// Wants for which no agent has room.
    pub stuck: BTreeMap<ShardId, Vec<(u64, u64)>>,
}

impl Aim {
    fn new(want: PlacedWant, rules: &mut Rules) -> Self {
        want.limits.iter().for_each(|limit| rules.watch(&limit.field));
        let used = vec![BTreeMap::new(); want.limits.len()];
        let (out, shut, shown) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { said: want, mask: None, out, used, shut, named: None, shown }
    }

    fn use_values(&mut self, stand: &Stand, tasks: u32, more: bool) {
        for (limit, used) in self.said.limits.iter().zip(&mut self.used) {
            let Some(value) = limit.value(stand) else { continue };
            let known = used.entry(value.to_owned()).or_insert(0);
            *known = if more { known.saturating_add(tasks) } else { known.saturating_sub(tasks) };
            if *known == 0 {
                used.remove(value);
            }
        }
    }

    /// How many tasks the want takes on this agent, as far as other tasks matter.
    fn left(&self, slot: u32, stand: &Stand) -> u32 {
        if self.shut.contains(&slot) {
            return 0;
        }
        if let Some(named) = &self.named {
            return u32::from(named.contains(&slot) && !self.shown.contains(&slot));
        }
        let left = |(limit, used): (&Limit, &BTreeMap<String, u32>)| {
            limit.value(stand).map_or(0, |value| limit.of(value).saturating_sub(used.get(value).copied().unwrap_or(0)))
        };
        self.said.limits.iter().zip(&self.used).map(left).min().unwrap_or(u32::MAX)
    }

    /// Works out anew whom it may be offered, beginning with those of its rule set.
    fn look(&mut self, rules: &Rules, all: &Mask) {
        if self.said.limits.is_empty() && self.shut.is_empty() && self.named.is_none() {
            self.mask = None;
            return;
        }
        if let Some(named) = &self.named {
            let mut mask = Mask::new(rules.size());
            named.iter().for_each(|slot| mask.set(*slot, all.has_slot(*slot) && self.left(*slot, &rules.stand(*slot)) > 0));
            self.mask = Some(mask);
            return;
        }
        // Where a limit names those that have room, there are fewer of them than of others.
        let named = self.said.limits.iter().find(|limit| limit.most == 0);
        let mut mask = if named.is_some() { Mask::new(rules.size()) } else { all.clone() };
        let mut judge = |slot: u32| mask.set(slot, all.has_slot(slot) && self.left(slot, &rules.stand(slot)) > 0);
        match named {
            Some(limit) => {
                let values = limit.left.iter().filter(|(_, left)| *left > 0);
                values.flat_map(|(value, _)| rules.slots(&limit.field, value)).for_each(&mut judge);
            }
            None => {
                for (limit, used) in self.said.limits.iter().zip(&self.used) {
                    let values = limit.left.iter().map(|(value, _)| value).chain(used.keys());
                    values.flat_map(|value| rules.slots(&limit.field, value)).for_each(&mut judge);
                }
                self.shut.iter().copied().for_each(&mut judge);
            }
        }
        self.mask = Some(mask);
    }

    /// The same of the agents that share a counted value with this one.
    fn look_beside(&mut self, stand: &Stand, slot: u32, rules: &Rules, all: &Mask) {
        let Some(mut mask) = self.mask.take() else { return self.look(rules, all) };
        let mut judge = |slot: u32| mask.set(slot, all.has_slot(slot) && self.left(slot, &rules.stand(slot)) > 0);
        for limit in self.said.limits.iter() {
            if let Some(value) = limit.value(stand) {
                rules.slots(&limit.field, value).for_each(&mut judge);
            }
        }
        judge(slot);
        self.mask = Some(mask);
    }

    fn end(&self, rules: &mut Rules) {
        self.said.limits.iter().for_each(|limit| rules.unwatch(&limit.field));
    }
}

impl Pool {
    /// The class of this role, shape and priority, held `refs` times more.
    pub fn class(&mut self, role: &Role, shape: &Resources, priority: u8, refs: u32) -> u32 {
        self.class_of(role, (shape, priority), None, refs)
    }

    /// The same, of tasks whose agents must be so.
    pub(super) fn class_placed(&mut self, role: &Role, asked: (&Resources, u8), constraints: &[Constraint], refs: u32) -> u32 {
        let seats = &self.seats;
        let rules = self.aims.rules.hold(constraints, |job| Self::slots_with(seats, job));
        let class = self.class_of(role, asked, Some(rules), refs);
        self.aims.rules.drop(rules); // The class holds it.
        class
    }

    /// All that a framework's shard wants for tasks that may not go everywhere, in place of what it said of such before.
    pub(super) fn demand_placed(&mut self, from: ShardId, wants: &[PlacedWant], seen: u64) {
        let mut over = self.wants_of(from, true);
        for placed in wants {
            let class = self.class_placed(&placed.want.role, (&placed.want.shape, placed.want.priority), &placed.place.constraints, 1);
            let key = (from, class, placed.want.priority, placed.id);
            over.remove(&key);
            let at = match self.by_want.get(&key).copied() {
                Some(at) => {
                    self.class_drop(class, 1);
                    at
                }
                None => {
                    let at = self.want_new(key, placed.want.count);
                    let aim = Aim::new(placed.clone(), &mut self.aims.rules);
                    if let Some(want) = self.wants[at as usize].as_mut() {
                        want.aim = Some(Box::new(aim));
                    }
                    at
                }
            };
            self.said_anew(at, placed, seen);
        }
        for key in over {
            self.want_drop(key);
        }
    }

    /// A want is as its shard says now, which has counted our offers up to `seen`.
    fn said_anew(&mut self, at: u32, placed: &PlacedWant, seen: u64) {
        let Some(want) = self.wants[at as usize].as_mut() else { return };
        let Some(mut aim) = want.aim.take() else { return };
        want.count = placed.want.count;
        want.offered.counted(seen);
        let before = aim.out.len();
        aim.out.retain(|number, _| *number > seen);
        let changed = aim.said != *placed || before != aim.out.len() || !aim.shut.is_empty();
        if changed {
            want.blocked = false;
        } else if let Some(turn) = placed.turn.filter(|_| want.blocked) {
            // It may have been lost on its way.
            self.aims.said.stuck.entry(want.from).or_default().push((placed.id, turn));
        }
        if changed || aim.mask.is_none() {
            let out = std::mem::take(&mut aim.out);
            let anew = Aim::new(placed.clone(), &mut self.aims.rules);
            aim.end(&mut self.aims.rules);
            let slots = |agents: &Arc<Vec<AgentId>>| agents.iter().filter_map(|agent| Some(self.seat(*agent)?.0)).collect();
            let named: Option<BTreeSet<u32>> = placed.agents.as_ref().map(slots);
            let shown = out.values().map(|(slot, _)| *slot).collect();
            *aim = Aim { out, named, shown, ..anew };
            let offered: Vec<(u32, u32)> = aim.out.values().copied().collect();
            offered.into_iter().for_each(|(slot, tasks)| aim.use_values(&self.aims.rules.stand(slot), tasks, true));
            self.look_anew(at, &mut aim);
        }
        if let Some(want) = self.wants[at as usize].as_mut() {
            want.aim = Some(aim);
        }
        self.stir(at);
    }

    /// Whom the rule set of a want lets in is not the same any more.
    pub(super) fn look_once_more(&mut self, at: u32) {
        let Some(mut aim) = self.wants.get_mut(at as usize).and_then(Option::as_mut).and_then(|want| want.aim.take()) else { return };
        if aim.mask.is_some() {
            self.look_anew(at, &mut aim);
        }
        self.put_back(at, aim);
    }

    fn look_anew(&self, at: u32, aim: &mut Aim) {
        if let Some(all) = self.all_of(at) {
            aim.look(&self.aims.rules, all);
        }
    }

    /// Whom the rule set of a want lets in.
    fn all_of(&self, at: u32) -> Option<&Mask> {
        let class = self.wants.get(at as usize)?.as_ref()?.class;
        self.aims.rules.mask(self.shape(class)?.rules?)
    }

    /// Whom a want may be offered now; `None`: everybody.
    pub(super) fn mask_of(&self, at: u32) -> Option<&Mask> {
        let aim = self.wants.get(at as usize)?.as_ref()?.aim.as_ref()?;
        aim.mask.as_ref().or_else(|| self.all_of(at))
    }

    /// How many tasks of a want this agent takes, room aside.
    pub(super) fn takes(&self, at: u32, slot: u32) -> u32 {
        let Some(aim) = self.wants.get(at as usize).and_then(Option::as_ref).and_then(|want| want.aim.as_ref()) else { return u32::MAX };
        match self.mask_of(at) {
            Some(mask) if mask.has_slot(slot) => aim.left(slot, &self.aims.rules.stand(slot)),
            _ => 0,
        }
    }

    /// An offer is out for a want; gives it back where it is no such want's.
    pub(super) fn offered_placed(&mut self, at: u32, (number, slot, tasks): (u64, u32, u32), offer: Offer) -> Option<Offer> {
        let Some(want) = self.wants[at as usize].as_mut() else { return Some(offer) };
        let Some(mut aim) = want.aim.take() else { return Some(offer) };
        let stand = self.aims.rules.stand(slot);
        let placed = PlacedOffer { offer, want: want.id, stand: stand.clone() };
        self.aims.said.offers.entry(want.from).or_default().push(placed);
        if !aim.said.limits.is_empty() || aim.named.is_some() {
            aim.out.insert(number, (slot, tasks));
            aim.shown.insert(slot);
            aim.use_values(&stand, tasks, true);
            if aim.left(slot, &stand) == 0
                && let Some(all) = self.all_of(at)
            {
                aim.look_beside(&stand, slot, &self.aims.rules, all);
            }
        }
        self.put_back(at, aim);
        None
    }

    /// An offer holds no more, without having been taken; `declined`: its agent is not to be offered again until the want's shard says more.
    pub(super) fn unoffered(&mut self, at: u32, number: u64, slot: u32, declined: bool) {
        let Some(mut aim) = self.wants.get_mut(at as usize).and_then(Option::as_mut).and_then(|want| want.aim.take()) else { return };
        let known = aim.out.remove(&number);
        if declined {
            aim.shut.insert(slot);
        }
        if let Some((_, tasks)) = known {
            aim.shown.remove(&slot);
            aim.use_values(&self.aims.rules.stand(slot), tasks, false);
        }
        if (known.is_some() || declined)
            && let Some(all) = self.all_of(at)
        {
            aim.look_beside(&self.aims.rules.stand(slot), slot, &self.aims.rules, all);
        }
        self.put_back(at, aim);
        if known.is_some()
            && let Some(want) = self.wants[at as usize].as_mut()
        {
            // Other agents may have the same value.
            want.blocked = false;
        }
    }

    fn put_back(&mut self, at: u32, aim: Box<Aim>) {
        if let Some(want) = self.wants[at as usize].as_mut() {
            want.aim = Some(aim);
        }
    }

    /// No agent has room for a want, or may have any of it.
    pub(super) fn stuck(&mut self, at: u32) {
        let Some(want) = self.wants[at as usize].as_mut() else { return };
        want.blocked = true;
        let spreads = want.aim.as_ref().is_some_and(|aim| aim.said.turn.is_some() && aim.named.is_none());
        if !spreads {
            self.press(at);
        }
        let Some(want) = self.wants[at as usize].as_ref() else { return };
        if let Some((id, turn)) = want.aim.as_ref().and_then(|aim| Some((aim.said.id, aim.said.turn?))) {
            self.aims.said.stuck.entry(want.from).or_default().push((id, turn));
        }
    }

    /// A want is over.
    pub(super) fn aim_end(&mut self, aim: Option<Box<Aim>>) {
        if let Some(aim) = aim {
            aim.end(&mut self.aims.rules);
        }
    }

    /// What agent is in this slot, and where it stands.
    pub(super) fn set_stand(&mut self, slot: u32, stand: Stand) {
        self.index.cover(slot);
        self.cover_kept(slot);
        let size = self.index.size();
        // What offers use of it is by how it stood.
        let before = self.aims.rules.stand(slot);
        if !self.aims.rules.set(slot, stand, size) {
            return;
        }
        let after = self.aims.rules.stand(slot);
        for at in 0..u32::try_from(self.wants.len()).expect("fewer wants than shards have") {
            let Some(mut aim) = self.wants[at as usize].as_mut().and_then(|want| want.aim.take()) else { continue };
            let tasks: u32 = aim.out.values().filter(|(other, _)| *other == slot).map(|(_, tasks)| *tasks).sum();
            aim.use_values(&before, tasks, false);
            aim.use_values(&after, tasks, true);
            if aim.mask.is_some() {
                self.look_anew(at, &mut aim);
            }
            self.put_back(at, aim);
        }
    }
}
