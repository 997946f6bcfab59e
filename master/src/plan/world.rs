//! A cluster in one thread in which nothing is real: the shards are, and decide as they always do, on a copy of what stands; agents take what they
//! are given, run it until they are told to stop, and beat. Time passes only as far as somebody waits for it.

use super::PlanError;
use crate::shard::{Action, Copied, Event, Output, Record, Request, Response, ScoreMap, Shard};
use protocol::message::{ATTEMPTS_PER_MESSAGE_MAX, NOTES_PER_MESSAGE_MAX, attempt_hash, shard_of_agent};
use protocol::task::{Health, Verdict};
use protocol::{
    AgentId, AgentInfo, AttemptId, Exit, FromAgent, FromMaster, Held, Lent, RequestId, ShardId, TaskState, Time, Update, Usage,
};
use std::collections::{BTreeMap, VecDeque};

/// How far time goes on at once, in milliseconds.
const STEP_MS: u64 = 500;
/// How often agents beat, in milliseconds: more often than any is called silent.
const BEAT_MS: u64 = 1_000;
/// A cluster in which nothing was put on record for so long has settled, in milliseconds: longer than offers hold, and than anything is said again.
const CALM_MS: u64 = 12_000;
/// How long is waited for that at the most, in milliseconds.
const SETTLE_MS: u64 = 300_000;
/// Most events of one question: beyond it the cluster is taken to be too large.
const EVENTS_MAX: u64 = 20_000_000;

/// An agent that does as it is told.
#[derive(Debug)]
struct Agent {
    session: u64,
    /// What it has, and whether that ended.
    held: BTreeMap<AttemptId, bool>,
    /// Exclusive or of `attempt_hash` of each.
    hash: u64,
}

/// The cluster.
#[derive(Debug)]
pub struct World {
    /// By number.
    pub shards: Vec<Shard>,
    /// Now.
    pub now: Time,
    agents: BTreeMap<AgentId, Agent>,
    letters: Vec<VecDeque<Event>>,
    reply: Option<Response>,
    /// When something was put on record last.
    pub changed: Time,
    beaten: Time,
    events: u64,
}

impl World {
    /// The cluster that these copies are of, one of each shard in their order, with all agents registered that can be reached.
    ///
    /// # Errors
    /// [`PlanError::TooLong`].
    pub fn new(copies: Vec<Copied>, scores: &ScoreMap) -> Result<Self, PlanError> {
        let shards = u16::try_from(copies.len()).expect("a cluster has at most SHARDS_MAX shards");
        let now = copies.iter().map(|copy| copy.now).max().unwrap_or(Time::ZERO);
        let here: Vec<(AgentId, Lent)> = copies.iter().flat_map(|copy| copy.here.iter().copied()).collect();
        let of_copy = |(id, copy): (usize, Copied)| Shard::of_copy(ShardId(u16::try_from(id).expect("below `shards`")), shards, copy);
        let shards: Vec<Shard> = copies.into_iter().enumerate().map(of_copy).collect();
        let letters = shards.iter().map(|_| VecDeque::new()).collect();
        let mut world = Self { shards, now, agents: BTreeMap::new(), letters, reply: None, changed: now, beaten: now, events: 0 };
        for shard in &mut world.shards {
            shard.plug_in(scores);
            shard.lead(now);
        }
        (0..world.shards.len()).for_each(|at| world.collect(at));
        let mut held: BTreeMap<AgentId, Vec<AttemptId>> = BTreeMap::new();
        for (agent, attempt) in world.shards.iter().flat_map(Shard::live_attempts) {
            held.entry(agent).or_default().push(attempt);
        }
        let known: BTreeMap<AgentId, (AgentInfo, u64)> =
            world.shards.iter().flat_map(Shard::known_agents).map(|(id, info, life)| (id, (info.clone(), life))).collect();
        for (agent, _) in &here {
            if let Some((info, life)) = known.get(agent) {
                world.join(*agent, info.clone(), *life, held.remove(agent).unwrap_or_default());
            }
        }
        world.calm()?;
        here.into_iter().for_each(|(agent, lent)| world.lend(agent, lent));
        world.calm()?;
        Ok(world)
    }

    /// An agent comes, with what it has.
    pub fn join(&mut self, agent: AgentId, info: AgentInfo, incarnation: u64, mut attempts: Vec<AttemptId>) {
        attempts.sort_unstable();
        let hash = attempts.iter().fold(0, |hash, attempt| hash ^ attempt_hash(*attempt));
        let held = attempts.iter().map(|attempt| (*attempt, false)).collect();
        self.agents.insert(agent, Agent { session: 0, held, hash });
        self.say(agent, FromAgent::Register { info, incarnation, number: 1 });
        self.report(agent, 0);
        self.tell(agent, &attempts, &TaskState::Running { since: self.now, ports: vec![] });
    }

    /// An agent lends so much of what is idle there, until it says otherwise.
    pub fn lend(&mut self, agent: AgentId, lent: Lent) {
        if let Some(session) = self.agents.get(&agent).map(|agent| agent.session).filter(|_| lent != Lent::NONE) {
            self.say(agent, FromAgent::Slack { session, lent });
        }
    }

    /// An agent falls silent for good.
    pub fn lose(&mut self, agent: AgentId) {
        self.agents.remove(&agent);
        let own = self.shard_of(agent);
        self.write(own, Event::Disconnected { agent });
    }

    /// True where this agent is here.
    #[must_use]
    pub fn has(&self, agent: AgentId) -> bool {
        self.agents.contains_key(&agent)
    }

    /// What `shard` answers.
    ///
    /// # Errors
    /// [`PlanError::TooLong`].
    pub fn ask(&mut self, shard: ShardId, request: Request) -> Result<Response, PlanError> {
        self.reply = None;
        self.write(shard, Event::Request { id: RequestId(1), request });
        self.calm()?;
        Ok(self.reply.take().expect("a shard answers whatever it is asked"))
    }

    /// Goes on until the cluster has settled, and at least until `least`. False where it had not in [`SETTLE_MS`] more.
    ///
    /// # Errors
    /// [`PlanError::TooLong`].
    pub fn settle(&mut self, least: Time) -> Result<bool, PlanError> {
        let end = self.now.max(least) + SETTLE_MS;
        loop {
            self.calm()?;
            if self.now >= least && self.now >= self.changed + CALM_MS {
                return Ok(true);
            }
            if self.now >= end {
                return Ok(false);
            }
            let due = self.shards.iter().filter_map(Shard::poll_timeout).min();
            self.now = due.unwrap_or(end).clamp(self.now + 1, self.now + STEP_MS);
            // Before time says that they are silent.
            if self.now.since(self.beaten) >= BEAT_MS {
                self.beat();
            }
            self.letters.iter_mut().for_each(|letters| letters.push_back(Event::Tick));
        }
    }

    fn beat(&mut self) {
        self.beaten = self.now;
        let sent = self.now;
        let beats: Vec<(AgentId, FromAgent)> = self.agents.iter().map(|(id, agent)| (*id, agent.beat(sent))).collect();
        beats.into_iter().for_each(|(agent, message)| self.say(agent, message));
    }

    /// Until nothing is on its way.
    fn calm(&mut self) -> Result<(), PlanError> {
        while self.letters.iter().any(|letters| !letters.is_empty()) {
            for at in 0..self.shards.len() {
                let letters = std::mem::take(&mut self.letters[at]);
                self.events += letters.len() as u64;
                for event in letters {
                    self.shards[at].handle(self.now, event);
                }
                self.collect(at);
            }
            if self.events > EVENTS_MAX {
                return Err(PlanError::TooLong);
            }
        }
        Ok(())
    }

    /// Does what a shard wants done: what it puts on record is so at once.
    fn collect(&mut self, at: usize) {
        let from = ShardId(u16::try_from(at).expect("a shard's number"));
        while let Some(output) = self.shards[at].poll_output() {
            match output {
                // What shards say of their limits to each other is said for ever.
                Output::Journal(Record::Granted { .. } | Record::Allowed { .. }) => {}
                Output::Journal(_) => self.changed = self.now,
                Output::Held(action) | Output::Now(action) => match action {
                    Action::Peer { to, message } => self.write(to, Event::Peer { from, message }),
                    Action::Send { agent, message } => self.hear(agent, message),
                    Action::Reply { response, .. } => self.reply = Some(response),
                    Action::Publish(_) | Action::Disconnect { .. } => {}
                },
            }
        }
    }

    /// An agent is told something.
    fn hear(&mut self, id: AgentId, message: FromMaster) {
        let Some(agent) = self.agents.get_mut(&id) else { return };
        match message {
            FromMaster::Registered { session, .. } => agent.session = session,
            FromMaster::Launch(launch) => {
                let attempts: Vec<AttemptId> =
                    launch.attempts.iter().map(|(index, number)| AttemptId::new(launch.job, *index, *number)).collect();
                for attempt in &attempts {
                    if agent.held.insert(*attempt, false).is_none() {
                        agent.hash ^= attempt_hash(*attempt);
                    }
                }
                self.tell(id, &attempts, &TaskState::Running { since: self.now, ports: vec![] });
                if launch.template.has_checks() {
                    self.are_well(id, &attempts);
                }
            }
            FromMaster::Kill { attempts, .. } => {
                let mut ended = Vec::new();
                for attempt in attempts {
                    if let Some(over) = agent.held.get_mut(&attempt) {
                        *over = true;
                        ended.push(attempt);
                    }
                }
                self.tell(id, &ended, &TaskState::Ended { exit: Exit::Killed, usage: Usage::default() });
            }
            FromMaster::Ack { attempts } => {
                for attempt in attempts {
                    if agent.held.remove(&attempt).is_some() {
                        agent.hash ^= attempt_hash(attempt);
                    }
                }
            }
            FromMaster::ReportWanted { session } => self.report(id, session),
            FromMaster::Rejected { .. }
            | FromMaster::BeatAck { .. }
            | FromMaster::Prepare { .. }
            | FromMaster::Leading { .. }
            | FromMaster::Masters { .. }
            | FromMaster::Lease { .. }
            | FromMaster::Devices { .. }
            | FromMaster::Pulses { .. }
            | FromMaster::LedElsewhere { .. }
            | FromMaster::Message { .. } => {}
        }
    }

    /// An agent says all that it has.
    fn report(&mut self, id: AgentId, session: u64) {
        let Some(agent) = self.agents.get(&id) else { return };
        let held: Vec<Held> = agent.held.iter().map(|(attempt, ended)| Held { attempt: *attempt, ended: *ended }).collect();
        let parts = held.len().div_ceil(ATTEMPTS_PER_MESSAGE_MAX).max(1);
        let mut rest = &held[..];
        for part in 1..=parts {
            let (now, later) = rest.split_at(rest.len().min(ATTEMPTS_PER_MESSAGE_MAX));
            rest = later;
            self.say(id, FromAgent::Report { session, held: now.to_vec(), last: part == parts });
        }
        let live: Vec<AttemptId> = held.iter().filter(|held| !held.ended).map(|held| held.attempt).collect();
        self.are_well(id, &live);
    }

    /// An agent tells the shards of these attempts how they are.
    fn tell(&mut self, agent: AgentId, attempts: &[AttemptId], state: &TaskState) {
        for part in attempts.chunk_by(|a, b| a.shard() == b.shard()).flat_map(|part| part.chunks(ATTEMPTS_PER_MESSAGE_MAX)) {
            let updates = part.iter().map(|attempt| Update { attempt: *attempt, state: state.clone() }).collect();
            self.write(part[0].shard(), Event::Agent { agent, message: FromAgent::Status { updates } });
        }
    }

    /// What runs there is well: nobody asks whether it would be.
    fn are_well(&mut self, agent: AgentId, attempts: &[AttemptId]) {
        let well = |attempt: &AttemptId| Health { attempt: *attempt, verdict: Verdict::Healthy, reason: String::new() };
        for part in attempts.chunk_by(|a, b| a.shard() == b.shard()).flat_map(|part| part.chunks(NOTES_PER_MESSAGE_MAX)) {
            let healths = part.iter().map(well).collect();
            self.write(part[0].shard(), Event::Agent { agent, message: FromAgent::Health { healths } });
        }
    }

    /// An agent says something to its own shard.
    fn say(&mut self, agent: AgentId, message: FromAgent) {
        let own = self.shard_of(agent);
        self.write(own, Event::Agent { agent, message });
    }

    /// The shard that this agent is of.
    #[must_use]
    pub fn shard_of(&self, agent: AgentId) -> ShardId {
        shard_of_agent(agent, u16::try_from(self.shards.len()).expect("a cluster has at most SHARDS_MAX shards"))
    }

    fn write(&mut self, to: ShardId, event: Event) {
        if let Some(letters) = self.letters.get_mut(usize::from(to.0)) {
            letters.push_back(event);
        }
    }
}

impl Agent {
    fn beat(&self, sent: Time) -> FromAgent {
        let held = u32::try_from(self.held.len()).unwrap_or(u32::MAX);
        // It waits for an answer, as whoever has fenced tasks does.
        FromAgent::Beat { session: self.session, sent, held, held_hash: self.hash }
    }
}
