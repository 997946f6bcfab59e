//! Agents in the order in which a plug-in wants them, where one was brought: it is asked once for up to 32 agents that have room. Without one, and where
//! it does not answer, the agents are taken as they always are.

use super::Shard;
use super::allocator::WantKey;
use super::pool::Pool;
use super::roles::{Line, Passed};
use crate::plugins::{ASIDE_MS, Asked, CANDIDATES_MAX, Candidate, Ranking, Score, Tally, wrong};
use protocol::{Offer, Resources, Role, ShardId, Time};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The plug-ins of roles; of `None`, all roles of which nothing else is said.
pub type ScoreMap = BTreeMap<Option<Role>, Arc<dyn Score>>;

/// Plug-ins that order agents, and how they fare.
#[derive(Debug, Default)]
pub struct Scores {
    by_role: BTreeMap<Option<Role>, Scored>,
}

#[derive(Debug)]
struct Scored {
    score: Arc<dyn Score>,
    tally: Tally,
    aside_until: Option<Time>,
}

impl Scores {
    /// How each fared, and until when it is put aside.
    pub fn tallies(&self) -> Vec<(Option<Role>, Tally, Option<Time>)> {
        self.by_role.iter().map(|(role, scored)| (role.clone(), scored.tally.clone(), scored.aside_until)).collect()
    }

    /// The plug-in of a role, where it has one that is not put aside.
    fn of(&mut self, role: &Role, now: Time) -> Option<&mut Scored> {
        let key = role.and_above().map(Some).find(|role| self.by_role.contains_key(role)).unwrap_or(None);
        let scored = self.by_role.get_mut(&key)?;
        if scored.aside_until.is_some_and(|until| now < until) {
            return None;
        }
        scored.aside_until = None;
        Some(scored)
    }
}

impl Scored {
    /// What it says, where that is an answer.
    fn ask(&mut self, asked: &Asked, candidates: &[Candidate], now: Time) -> Option<Ranking> {
        let answer = self.score.score(asked, candidates).and_then(|ranking| match wrong(&ranking, candidates.len()) {
            None => Ok(ranking),
            Some(reason) => Err(reason),
        });
        if self.tally.count(answer.as_ref().err().map(String::as_str)) {
            self.aside_until = Some(now + ASIDE_MS);
        }
        answer.ok()
    }
}

impl Shard {
    /// From now on these order the agents of this shard. One that it had already goes on as it is.
    pub fn plug_in(&mut self, map: &ScoreMap) {
        let mut before = self.pool.scores.take().map(|scores| scores.by_role).unwrap_or_default();
        let scored = |(role, score): (&Option<Role>, &Arc<dyn Score>)| {
            let known = before.remove(role).filter(|known| Arc::ptr_eq(&known.score, score));
            let new = || Scored { score: Arc::clone(score), tally: Tally::default(), aside_until: None };
            (role.clone(), known.unwrap_or_else(new))
        };
        let by_role: BTreeMap<Option<Role>, Scored> = map.iter().map(scored).collect();
        self.pool.scores = (!by_role.is_empty()).then(|| Box::new(Scores { by_role }));
    }
}

impl Pool {
    /// As `spread`, in the order of the plug-in of the want's role; false where nothing was offered: then it has none, or it did not answer, or there
    /// is no choice.
    pub(super) fn spread_scored(&mut self, role: u32, at: u32, now: Time, offers: &mut BTreeMap<ShardId, Vec<Offer>>) -> bool {
        let Some(mut scores) = self.scores.take() else { return false };
        let order = self.ordered(&mut scores, role, at, now);
        self.scores = Some(scores);
        let Some((slots, fill, key)) = order else { return false };
        let mut offered = false;
        for slot in slots {
            if self.by_want.get(&key) != Some(&at) || offered && self.roles.first(Line::Awake, &Passed::default()) != Some(role) {
                break; // It is another's turn.
            }
            let Some(want) = self.wants[at as usize].as_ref() else { break };
            let (class, unmet, count) = (want.class, want.unmet(), want.count);
            let most = if fill { unmet } else { unmet.min(self.even_part(count)) };
            let most = self.may_have(role, class, most, now);
            if most == 0 {
                break;
            }
            // What was offered before it may have taken its room, or its value.
            let room = self.shape(class).and_then(|class| self.index.find(&class.shape, slot, self.mask_of(at)));
            if room == Some(slot) {
                offered |= self.offer(at, slot, most, now, offers);
            }
        }
        offered
    }

    /// The agents that have room for a want, best first, and whether each is to be filled; `None` where nobody says, or there are not two.
    fn ordered(&mut self, scores: &mut Scores, role: u32, at: u32, now: Time) -> Option<(Vec<u32>, bool, WantKey)> {
        let name = Role::clone(&self.roles.get(role)?.name);
        let scored = scores.of(&name, now)?;
        let want = self.wants[at as usize].as_ref()?;
        let (key, count, priority) = (want.key(), want.unmet(), want.priority);
        let needs = Resources::clone(&self.shape(want.class)?.shape);
        let slots = self.candidates(at, &needs);
        if slots.len() < 2 {
            return None;
        }
        let candidate = |slot: &u32| {
            let seat = &self.seats[*slot as usize];
            let (attempts, free) = Self::room(seat);
            let held = u32::try_from(seat.attempts.len()).unwrap_or(u32::MAX).saturating_add(seat.offered_attempts);
            let room = self.on_devices(*slot, &needs, free.times(&needs, count.min(attempts))).min(self.takes(at, *slot));
            let (capacity, free) = (seat.capacity.clone(), free.clone());
            Candidate { stand: self.aims.rules.stand(*slot), capacity, free, attempts: held, room }
        };
        let candidates: Vec<Candidate> = slots.iter().map(candidate).collect();
        let asked = Asked { role: name, priority, needs, count };
        let Ranking { scores, fill } = scored.ask(&asked, &candidates, now)?;
        let mut order: Vec<usize> = (0..slots.len()).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        Some((order.into_iter().map(|at| slots[at]).collect(), fill, key))
    }

    /// Agents that have room for one of a want and may have it, from where the last search ended.
    fn candidates(&mut self, at: u32, needs: &Resources) -> Vec<u32> {
        let mut found: Vec<u32> = Vec::new();
        let mut start = self.start;
        while found.len() < CANDIDATES_MAX {
            match self.index.find(needs, start, self.mask_of(at)) {
                Some(slot) if !found.contains(&slot) => {
                    found.push(slot);
                    start = slot.wrapping_add(1);
                }
                _ => break,
            }
        }
        // Of more agents than are shown at once, others are shown the next time.
        if found.len() == CANDIDATES_MAX {
            self.start = start;
        }
        found
    }
}
