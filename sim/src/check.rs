//! What must always hold, seen from outside: from what is committed, from what executors run, from what clients were told. Knows the
//! promises of `SPECIFICATION.md` by their numbers.

use crate::client::Clients;
use crate::door::Door;
use crate::machine::Machine;
use crate::network::LATE_MS;
use crate::plan::Plan;
use agent::ledger::Ledger;
use master::shard::Record;
use master::shard::event::JobRef;
use master::shard::view::{View, Viewed};
use protocol::task::Loss;
use protocol::{AgentId, AttemptId, Exit, Job, JobId, Resources, TaskId, Time};
use std::collections::{BTreeMap, BTreeSet};

/// On top of `replace_after`, until the end of a lost attempt is on record: the beats, the timers and the journal.
const REPLACED_SLACK_MS: u64 = 5_000;
/// On top of that, until the end of a fenced attempt of an agent that is gone for good is on record: its lease, and what it may be late.
const LEASE_SLACK_MS: u64 = 1_000;
/// From the decision that an agent is gone for good until every shard has heard it: a slow flush, and the way.
const GONE_HEARD_MS: u64 = 250;
/// From the shard of an agent to the shard of its tasks.
const HOPS_MS: u64 = 10;
/// Refusals beyond this and a half of all stagings are more than bad luck.
const REFUSED_MIN: u64 = 200;

/// Attempts of a seed that overtakes messages that may be replaced while they run, on top of one in fifty.
const MISTAKEN_MIN: u64 = 50;

/// What was seen.
pub struct Check {
    jobs: BTreeMap<JobId, Job>,
    keys: BTreeMap<String, JobId>,
    live: BTreeMap<TaskId, (u32, AgentId)>,
    /// Agents that are gone for good, and since when that is on record.
    gone: BTreeMap<AgentId, Time>,
    last: BTreeMap<TaskId, u32>,
    begun: BTreeSet<AttemptId>,
    replace_after_ms: u64,
    /// How long fenced attempts of agents that are gone for good go on at most.
    leases_ms: u64,
    heard: BTreeMap<AgentId, Time>,
    came_back: BTreeMap<AgentId, Time>,
    /// When the living master began to live.
    master_since: Time,
    wild: bool,
    mistaken: u64,
    /// Attempts on record.
    pub staged: u64,
    /// Ends on record.
    pub ended: u64,
    /// Attempts that found no room.
    pub refused: u64,
}

type Verdict = Result<(), String>;

fn hold(holds: bool, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(what()) }
}

impl Check {
    /// Nothing was seen yet.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self {
            jobs: BTreeMap::new(),
            keys: BTreeMap::new(),
            live: BTreeMap::new(),
            gone: BTreeMap::new(),
            last: BTreeMap::new(),
            begun: BTreeSet::new(),
            replace_after_ms: plan.replace_after_ms,
            leases_ms: if plan.fenced { plan.replace_after_ms + LEASE_SLACK_MS } else { 0 },
            heard: BTreeMap::new(),
            came_back: BTreeMap::new(),
            master_since: Time::ZERO,
            wild: plan.wild,
            mistaken: 0,
            staged: 0,
            ended: 0,
            refused: 0,
        }
    }

    /// Attempts that are on record as staged and not as ended.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// A record was committed.
    ///
    /// # Errors
    /// The promise that it breaks.
    pub fn committed(&mut self, record: &Record, machines: &[Machine]) -> Verdict {
        match record {
            Record::Submitted { id, job, key, .. } => {
                hold(self.jobs.insert(*id, job.clone()).is_none(), || format!("G1: the id {id} was given twice"))?;
                let before = key.clone().and_then(|key| self.keys.insert(key, *id));
                hold(before.is_none(), || format!("G2: one key made {id} and {before:?}"))
            }
            Record::Applied { id, job, .. } => {
                self.jobs.insert(*id, job.clone());
                Ok(())
            }
            Record::Staged { id, agent, attempts, at, .. } => attempts.iter().try_for_each(|(index, number)| {
                self.staged += 1;
                let task = TaskId { job: *id, index: *index };
                let heard = self.gone.get(agent).is_none_or(|gone| at.since(*gone) <= GONE_HEARD_MS);
                hold(heard, || format!("G18: {task} was staged on {agent}, which is gone for good"))?;
                let before = self.live.insert(task, (*number, *agent));
                hold(before.is_none(), || format!("G3: {task} was staged as #{number} while {before:?} lived"))?;
                let last = self.last.insert(task, *number).unwrap_or(0);
                hold(*number == last + 1, || format!("G3: {task} was staged as #{number} after #{last}"))
            }),
            Record::Ended { id, ends, at } => ends.iter().try_for_each(|end| {
                self.ended += 1;
                let attempt = end.attempt(*id);
                let live = self.live.remove(&attempt.task);
                let Some((number, agent)) = live else { return Err(format!("G3: {attempt} ended twice, or never lived: {:?}", end.exit)) };
                hold(number == end.number, || format!("G3: {attempt} ended while #{number} lived"))?;
                self.loss_is_real(*at, attempt, agent, &end.exit, machines)
            }),
            Record::AgentGone { agent, at } => {
                self.gone.insert(*agent, *at);
                self.heard.remove(agent);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// What is called lost does not run: unless its agent was silent for as long as was promised.
    fn loss_is_real(&mut self, at: Time, attempt: AttemptId, agent: AgentId, exit: &Exit, machines: &[Machine]) -> Verdict {
        let Exit::Lost { reason } = exit else { return Ok(()) };
        if *reason == Loss::AgentGone {
            return hold(self.gone.contains_key(&agent), || format!("G5: {attempt} was given up, and nobody let {agent} go"));
        }
        let machine = machines.iter().find(|machine| machine.id == agent);
        let known = machine.is_some() || self.gone.contains_key(&agent);
        hold(known, || format!("{attempt} was staged on a machine that does not exist"))?;
        let runs = machine.and_then(|machine| machine.runs.get(&attempt)).is_some_and(|run| run.end.is_none());
        match reason {
            Loss::AgentSilent => {
                let heard = self.heard.get(&agent).copied().unwrap_or(Time::ZERO);
                // Who came back after it was given up, and before that was on record, was silent for long enough.
                let came_back = self.came_back.get(&agent).is_some_and(|back| *back + HOPS_MS >= at);
                // Nor is the late beat of a session that is over a sign of life, where messages are late and overtaken.
                let silent = at.since(heard) + if self.wild { LATE_MS } else { 0 };
                hold(came_back || silent + 1 >= self.replace_after_ms, || {
                    format!("G5: {attempt} was given up after {silent} ms of silence")
                })
            }
            Loss::Refused | Loss::Forgotten => {
                self.refused += u64::from(*reason == Loss::Refused);
                // A report does not say which launches it knows: one that is overtaken by a launch that was sent later is taken for the
                // newer one. In the stream of a connection nothing is overtaken; where it is, such an attempt is replaced and its first
                // run killed, and that may happen seldom only.
                self.mistaken += u64::from(runs);
                let most = if self.wild { MISTAKEN_MIN + self.staged / 50 } else { 0 };
                hold(self.mistaken <= most, || format!("G6: {attempt} was called lost ({reason}) while it ran"))
            }
            Loss::AgentGone => unreachable!("it was looked at before"),
            Loss::Reboot | Loss::Executor | Loss::LeaseOver => {
                hold(!runs, || format!("G6: {attempt} was called lost ({reason}) while it ran"))
            }
        }
    }

    /// An agent's process began, with what survived on its machine: all that runs there is its own.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn recovered(&self, machine: &Machine) -> Verdict {
        let Some(ledger) = &machine.ledger else { return Ok(()) };
        let orphan = machine.runs.iter().find(|(attempt, run)| run.end.is_none() && !ledger.is_live(**attempt));
        hold(orphan.is_none(), || format!("G6: {:?} runs on {} and its agent started without it", orphan, machine.info.name))
    }

    /// A master began to live: it gives each agent time to say that it lives.
    pub fn master_began(&mut self, now: Time, agents: impl Iterator<Item = AgentId>) {
        self.master_since = now;
        agents.for_each(|agent| self.heard(now, agent));
    }

    /// An agent's words arrived at its shard of a living master.
    pub fn heard(&mut self, now: Time, agent: AgentId) {
        if self.gone.contains_key(&agent) {
            return;
        }
        let before = self.heard.insert(agent, now).unwrap_or(now);
        if now.since(before) + 1 >= self.replace_after_ms {
            self.came_back.insert(agent, now);
        }
    }

    /// Attempts began to run on a machine.
    ///
    /// # Errors
    /// The promise that it breaks.
    pub fn began(&mut self, attempts: &[(AttemptId, Time)], machine: &Machine) -> Verdict {
        for (attempt, _) in attempts {
            hold(self.begun.insert(*attempt), || format!("G3: {attempt} was started twice"))?;
        }
        self.within(machine)
    }

    fn within(&self, machine: &Machine) -> Verdict {
        let running = &machine.running;
        hold(machine.info.capacity.contains(running), || {
            format!("G9: {} has {:?} and runs {running:?}", machine.info.name, machine.info.capacity)
        })
    }

    /// A ledger has taken something in: it has not promised more than its machine has.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn ledger(&self, machine: &Machine) -> Verdict {
        let Some(promised) = machine.ledger.as_ref().map(Ledger::promised) else { return Ok(()) };
        hold(machine.info.capacity.contains(promised), || format!("G9: {} has promised {promised:?}", machine.info.name))
    }

    /// Something has happened, whatever it was: refusals are few, and no task of an agent that is silent or gone is left unreplaced.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn after_each_event(&self, now: Time, master_lives: bool) -> Verdict {
        hold(self.refused <= REFUSED_MIN + self.staged / 2, || format!("{} of {} stagings were refused", self.refused, self.staged))?;
        let silent_ms = self.replace_after_ms + REPLACED_SLACK_MS;
        let silent = self.heard.iter().filter(|(_, heard)| now.since(**heard) > silent_ms);
        let gone_since = |since: &Time| now.since((*since).max(self.master_since)) > REPLACED_SLACK_MS + self.leases_ms;
        let gone = self.gone.iter().filter(|(_, since)| gone_since(since));
        if !master_lives || silent.clone().chain(gone.clone()).next().is_none() {
            return Ok(());
        }
        let overdue: BTreeSet<AgentId> = silent.chain(gone).map(|(agent, _)| *agent).collect();
        let late = self.live.iter().find(|(_, (_, agent))| overdue.contains(agent));
        hold(late.is_none(), || format!("G5: {late:?} was not given up in time"))
    }

    /// Each shard's replica is what the shard is, though nothing is decided that is not committed; `whole`: however long ago that was seen.
    ///
    /// # Errors
    /// The shard of which that is not so.
    pub fn replicas(&self, door: &mut Door, whole: bool) -> Verdict {
        for seat in door.seats.iter_mut().filter(|_| door.up) {
            hold(seat.replica_agrees(whole), || format!("G1: a replica of shard {} differs from it", seat.shard.config().id))?;
        }
        Ok(())
    }

    /// A client was told that its job is on record.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn acknowledged(&self, id: JobId, job: &Job) -> Verdict {
        hold(self.jobs.get(&id) == Some(job), || format!("G1: {id} was acknowledged and is not on record as it was submitted"))
    }

    /// Every acknowledged job can be read back as it was submitted, but for a count that was changed. On a living master at its end.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn nothing_lost(&self, now: Time, clients: &Clients, door: &mut Door) -> Verdict {
        for submission in &clients.submissions {
            let Some(id) = submission.acknowledged else { continue };
            let seat = door.seats.get_mut(usize::from(id.shard().0)).ok_or("a job of a shard that there is not")?;
            let read = match seat.look(now, View::Job(JobRef::Id(id))) {
                Some(Viewed::Job(view)) => Some(view.job),
                _ => None,
            };
            let same = read.is_some_and(|job| Job { count: submission.job.count, ..job } == submission.job);
            hold(same, || format!("G1: {id} was acknowledged for {} and cannot be read back", submission.key))?;
            hold(submission.ended, || format!("G3: {id} was stopped and whoever follows it was never told its end"))?;
        }
        Ok(())
    }

    /// When nothing runs, nothing is booked and nothing is offered. On a living master at its end.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn nothing_booked(&self, now: Time, door: &mut Door) -> Verdict {
        for seat in &mut door.seats {
            let Some(Viewed::Agents(agents)) = seat.look(now, View::Agents) else { return Err("a view of agents has no answer".into()) };
            let booked = agents.iter().find(|agent| agent.attempts > 0 || agent.allocated != Resources::NONE);
            hold(booked.is_none(), || format!("G9: nothing runs and something is booked: {booked:?}"))?;
        }
        Ok(())
    }

    /// After all is well again for long enough: every batch job has ended, nobody owes anybody anything.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn settled(&self, clients: &Clients, machines: &[Machine]) -> Verdict {
        for submission in &clients.submissions {
            hold(submission.acknowledged.is_some() || submission.touched, || format!("G1: {} was never answered", submission.key))?;
        }
        for machine in machines {
            let ledger = machine.ledger.as_ref().ok_or("a machine has no agent after all is well")?;
            let held: BTreeSet<AttemptId> = ledger.attempts().map(|(attempt, ..)| attempt).collect();
            let live: BTreeSet<AttemptId> = self
                .live
                .iter()
                .filter(|(_, (_, agent))| *agent == machine.id)
                .map(|(task, (number, _))| AttemptId { task: *task, number: *number })
                .collect();
            let odd: Vec<_> = held.symmetric_difference(&live).take(3).collect();
            hold(odd.is_empty(), || {
                format!("G3: {} holds {}, {} are on record there; for one {odd:?}", machine.info.name, held.len(), live.len())
            })?;
            let stray = machine.runs.keys().find(|attempt| !held.contains(attempt));
            hold(stray.is_none(), || format!("G6: {stray:?} runs on {} and nobody owns it", machine.info.name))?;
        }
        Ok(())
    }
}
