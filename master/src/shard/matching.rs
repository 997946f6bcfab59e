//! Which agents are to have a task of a system job. Its own shard asks each agents' shard, which says who matches, and from then on who does no longer
//! or does now. What follows is on record with the job; questions and answers are not, and are said anew where either side has another leader.

use super::drains::Mode;
use super::peer::MatchAsked;
use super::pool::{Silence, Standing};
use super::reconcile::GRACE_MS;
use super::rules::Rules;
use super::{Action, PeerMessage, Record, Shard};
use crate::jobs::{LiveJob, LivePhase, Slot};
use protocol::message::shard_of_agent;
use protocol::{AgentId, JobId, Kind, Name, ShardId, Time};
use std::collections::{BTreeMap, BTreeSet};

/// Both sides of it.
#[derive(Debug, Default)]
pub(super) struct Matching {
    /// The jobs' side: what was asked last.
    said: BTreeMap<JobId, MatchAsked>,
    /// The turn of the last question; no leader's are those of another.
    last_turn: u64,
    /// True where all of it is to be asked again.
    again: bool,
    /// Shards that have answered the present question.
    heard: BTreeMap<JobId, BTreeSet<ShardId>>,
    /// The agents' side: what others ask.
    asked: BTreeMap<(ShardId, JobId), Asked>,
    /// True where one of them has no answer yet.
    unanswered: bool,
    /// Agents that may match otherwise than was said.
    stirred: BTreeSet<AgentId>,
}

/// A question, and what was answered so far.
#[derive(Debug)]
struct Asked {
    turn: u64,
    /// Who meets what is asked of an agent: held, so that it is not worked out each time that a task waits.
    rules: u32,
    devices: Vec<Name>,
    /// Agents that were said to match, and whether for sure; `None`: nothing was said yet.
    said: Option<BTreeMap<AgentId, bool>>,
}

impl Matching {
    /// A leader begins, and asks all.
    pub fn lead(&mut self, now: Time) {
        *self = Self { last_turn: now.0 << 20, again: true, asked: std::mem::take(&mut self.asked), ..Self::default() };
    }

    /// Another shard has another leader, which knows nothing of what was asked or said.
    pub fn forget(&mut self, from: ShardId, rules: &mut Rules) {
        self.asked(from, vec![], rules);
        for heard in self.heard.values_mut() {
            heard.remove(&from);
        }
        self.again = true;
    }

    /// Something about an agent is otherwise than before.
    pub fn stir(&mut self, agent: AgentId) {
        if !self.asked.is_empty() {
            self.stirred.insert(agent);
        }
    }

    /// All that a shard asks, in place of what it asked before.
    pub fn asked(&mut self, from: ShardId, asked: Vec<MatchAsked>, rules: &mut Rules) {
        let turns: BTreeMap<JobId, u64> = asked.iter().map(|asked| (asked.job, asked.turn)).collect();
        let over = self.asked.extract_if(.., |(of, job), known| *of == from && turns.get(job) != Some(&known.turn));
        over.for_each(|(_, known)| rules.drop(known.rules));
        for MatchAsked { job, turn, constraints, devices } in asked.into_iter().filter(|asked| asked.job.shard() == from) {
            // Of other jobs' tasks a system job asks nothing.
            let new = || Asked { turn, rules: rules.hold(&constraints, |_| BTreeSet::new()), devices, said: None };
            self.asked.entry((from, job)).or_insert_with(new);
            self.unanswered = true;
        }
    }
}

impl Shard {
    /// True where all shards have said which agents match a system job; always, of any other job.
    pub(super) fn matches_known(&self, id: JobId) -> bool {
        let all = |heard: &BTreeSet<ShardId>| heard.len() >= usize::from(self.config.shards);
        !self.jobs.systems.contains(&id) || self.matching.heard.get(&id).is_some_and(all)
    }

    /// Asks where something else is to be asked, and answers where something else is so.
    pub(super) fn say_matching(&mut self) {
        if self.jobs.systems_changed || std::mem::take(&mut self.matching.again) {
            self.jobs.systems_changed = false;
            self.ask_matches();
        }
        let unanswered = std::mem::take(&mut self.matching.unanswered);
        let stirred = std::mem::take(&mut self.matching.stirred);
        if !unanswered && stirred.is_empty() {
            return;
        }
        let keys: Vec<(ShardId, JobId)> = self.matching.asked.keys().copied().collect();
        for key in keys {
            self.answer_matches(key, &stirred);
        }
    }

    fn ask_matches(&mut self) {
        let live = |id: &JobId| self.jobs.live(*id).filter(|job| job.stopping.is_none()).map(|job| (*id, asks(job)));
        let asks: Vec<_> = self.jobs.systems.iter().filter_map(live).collect();
        if asks.is_empty() && self.matching.said.is_empty() {
            return;
        }
        let mut said = BTreeMap::new();
        for (job, (constraints, devices)) in asks {
            let same = |known: &MatchAsked| known.constraints == constraints && known.devices == devices;
            let asked = self.matching.said.remove(&job).filter(same).unwrap_or_else(|| {
                self.matching.last_turn += 1;
                self.matching.heard.remove(&job);
                MatchAsked { job, turn: self.matching.last_turn, constraints, devices }
            });
            said.insert(job, asked);
        }
        self.matching.heard.retain(|job, _| said.contains_key(job));
        self.tell_all(&PeerMessage::MatchesAsked { asked: said.values().cloned().collect() });
        self.matching.said = said;
    }

    /// Tells a shard which agents of ours match, or which do otherwise than it was told.
    fn answer_matches(&mut self, key: (ShardId, JobId), stirred: &BTreeSet<AgentId>) {
        let Some(mut asked) = self.matching.asked.remove(&key) else { return };
        let (whole, turn) = (asked.said.is_none(), asked.turn);
        let mut now = asked.said.take().unwrap_or_default();
        let (mut matching, mut perhaps, mut others) = (vec![], vec![], vec![]);
        let all = self.rest.agents.keys().filter(|_| whole);
        for agent in all.chain(stirred.iter().filter(|_| !whole)).copied() {
            let (before, found) = (now.get(&agent).copied(), self.matches(agent, &asked));
            match found {
                Some(true) if before != Some(true) => matching.push(agent),
                Some(false) if whole => perhaps.push(agent),
                None if before.is_some() => others.push(agent),
                _ => {}
            }
            match found {
                Some(sure) => drop(now.insert(agent, sure)),
                None => drop(now.remove(&agent)),
            }
        }
        self.matching.asked.insert(key, Asked { said: Some(now), ..asked });
        if whole || !matching.is_empty() || !others.is_empty() {
            // Behind what follows of an agent that is emptied.
            let message = PeerMessage::MatchesSaid { job: key.1, turn, whole, matching, perhaps, others };
            self.held(Action::Peer { to: key.0, message });
        }
    }

    /// Whether one of our agents is to have a task, `false`: to keep the one that it has; `None`: to have none.
    fn matches(&self, agent: AgentId, asked: &Asked) -> Option<bool> {
        let known = self.rest.agents.get(&agent).filter(|known| !known.gone)?;
        let (slot, seat) = self.pool.seat(agent)?;
        let has = |name: &Name| known.info.capacity.devices.iter().any(|device| device.name == *name && device.milli > 0);
        let meets = self.pool.aims.rules.mask(asked.rules).is_some_and(|mask| mask.has_slot(slot));
        let right = seat.silence != Silence::Lost && asked.devices.iter().all(has) && meets;
        match self.drains.mode(agent) {
            Mode::Draining { .. } | Mode::Maintained { .. } => None,
            mode => right.then_some(mode == Mode::Active && seat.standing != Standing::Expected),
        }
    }

    /// Another shard, or ours, says which of its agents match a job of ours, or do otherwise than before.
    pub(super) fn matches_said(
        &mut self,
        (from, whole): (ShardId, bool),
        (id, turn): (JobId, u64),
        [matching, perhaps, others]: [&[AgentId]; 3],
    ) {
        let shards = self.config.shards;
        let asked = self.matching.said.get(&id).is_some_and(|asked| asked.turn == turn);
        let Some(job) = self.jobs.live(id).filter(|job| asked && job.stopping.is_none()) else { return };
        let Some(everywhere) = job.derived.everywhere.as_deref() else { return };
        let own = |agent: &AgentId| shard_of_agent(*agent, shards) == from;
        let bound = |agent: AgentId| everywhere.on(agent).is_some_and(|index| job.wants(index));
        let joined: Vec<AgentId> = matching.iter().copied().filter(|agent| own(agent) && !bound(*agent)).collect();
        let left: Vec<AgentId> = if whole {
            let keeps: BTreeSet<AgentId> = matching.iter().chain(perhaps).copied().collect();
            everywhere.all().map(|(agent, _)| agent).filter(|agent| own(agent) && bound(*agent) && !keeps.contains(agent)).collect()
        } else {
            others.iter().copied().filter(|agent| own(agent) && bound(*agent)).collect()
        };
        if whole {
            self.matching.heard.entry(id).or_default().insert(from);
        }
        if !joined.is_empty() || !left.is_empty() {
            self.commit(Record::Matched { id, joined, left: left.clone(), at: self.now });
            self.publish_job(id, "scaled");
            self.leave_agents(id, &left);
        }
        self.roll(id);
    }

    /// Ends what of a system job still is on agents that match no longer.
    fn leave_agents(&mut self, id: JobId, agents: &[AgentId]) {
        let Some(job) = self.jobs.live(id) else { return };
        let Some(everywhere) = job.derived.everywhere.as_deref() else { return };
        let runs = |index: &u32| {
            let cell = job.cells.get(*index);
            cell.is_some_and(|cell| cell.slot == Slot::Live && cell.phase != LivePhase::Killing) && !job.wants(*index)
        };
        let indexes: Vec<u32> = agents.iter().filter_map(|agent| everywhere.on(*agent)).filter(runs).collect();
        self.kill_tasks(id, &indexes, GRACE_MS);
    }
}

/// What is asked of the agents of a system job. What agents lend comes and goes, and is no reason to have no task.
fn asks(job: &LiveJob) -> (Vec<protocol::Constraint>, Vec<Name>) {
    debug_assert!(job.job.kind == Kind::System);
    let devices = job.job.template.resources.devices.iter().filter(|device| !device.is_revocable());
    let constraints = job.job.place.as_deref().map(|place| place.constraints.clone()).unwrap_or_default();
    (constraints, devices.map(|device| device.name.clone()).collect())
}
