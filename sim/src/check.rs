//! What must always hold, seen from outside: from what is committed, from what executors run, from what clients were told. Knows the
//! promises of `SPECIFICATION.md` by their numbers.

mod mass;

use crate::client::Clients;
use crate::log::Note;
use crate::machine::Machine;
use crate::network::{IDLE_MS, LATE_MS, PULSE_LATE_MS};
use crate::places::Places;
use crate::plan::Plan;
use crate::raft::Replica;
use crate::rights::Rights;
use crate::seat::Seat;
use agent::ledger::Ledger;
use master::shard::Record;
use master::shard::drains::Mode;
use master::shard::event::JobRef;
use master::shard::view::{View, Viewed};
use protocol::message::shard_of_agent;
use protocol::task::Loss;
use protocol::{AgentId, AttemptId, Exit, Job, JobId, ShardId, TaskId, Time};
use std::collections::{BTreeMap, BTreeSet};

/// On top of `replace_after`, until the end of a lost attempt is on record: the beats, the timers and the journal.
const REPLACED_SLACK_MS: u64 = 5_000;
/// On top of that and of `replace_after`, until the end of a fenced attempt of an agent that is gone for good is on record.
const LEASE_SLACK_MS: u64 = 1_000;
/// From the decision that an agent is gone for good until every shard has heard it: a slow flush, and the way.
const GONE_HEARD_MS: u64 = 250;
/// From the shard of an agent to the shard of its tasks: in one process, and between two.
const HOPS_MS: [u64; 2] = [10, IDLE_MS + 100];
/// How far apart the clocks of two masters are, and a clock of one and the truth after the longest silence, at the most.
const SKEW_MS: u64 = 3_000;
/// So many agents of a shard that are silent at once, and not given up yet, are a cut: nobody is given up for it. Seeds have five at the most.
const MASS_AGENTS: usize = 4;
/// After so long they are given up all the same.
const MASS_REPLACED_MS: u64 = 290_000;
/// How much longer than its shard thinks an agent is silent, at the least, where the checks call it silent: clocks, and the way of a beat.
const MASS_MARGIN_MS: u64 = SKEW_MS + 1_000;
/// Refusals beyond this and a half of all stagings are more than bad luck.
const REFUSED_MIN: u64 = 200;
/// Attempts of a seed that overtakes messages that may be replaced while they run, on top of one in fifty.
const MISTAKEN_MIN: u64 = 50;

/// What was seen.
pub struct Check {
    /// Jobs on record.
    pub jobs: BTreeMap<JobId, Job>,
    keys: BTreeMap<String, JobId>,
    live: BTreeMap<TaskId, (u32, AgentId)>,
    /// Agents that are gone for good, and since when that is on record.
    gone: BTreeMap<AgentId, Time>,
    last: BTreeMap<TaskId, u32>,
    begun: BTreeSet<AttemptId>,
    replace_after_ms: u64,
    /// How long fenced attempts of agents that are gone for good are waited for at the most.
    leases_ms: u64,
    unreachable_ms: u64,
    shards: u16,
    /// When most of a shard's agents were last silent at once, by shard.
    mass: BTreeMap<ShardId, Time>,
    heard: BTreeMap<AgentId, Time>,
    /// Agents that are on record, or were.
    seen: BTreeSet<AgentId>,
    came_back: BTreeMap<AgentId, Time>,
    /// When the last leader began to lead.
    pub leader_since: Time,
    /// Where each attempt was put, whether that was committed or not.
    placed: BTreeMap<AttemptId, AgentId>,
    /// Agents that were to be emptied, whether that was committed or not.
    drained: BTreeSet<AgentId>,
    /// Jobs of which somebody asked that tasks end.
    touched: BTreeSet<JobId>,
    /// Who may preempt.
    pub rights: Rights,
    places: Places,
    /// The term of each committed entry, by shard.
    committed: Vec<Vec<u64>>,
    /// The highest term that acted, by shard.
    acted: Vec<u64>,
    /// Who led a shard in a term.
    leaders: BTreeMap<(usize, u64), usize>,
    /// The state of a shard after so many entries.
    hashes: BTreeMap<(ShardId, u64), u64>,
    several: bool,
    wild: bool,
    /// Attempts that were taken for lost though they ran, since messages were overtaken.
    pub mistaken: BTreeSet<AttemptId>,
    /// Attempts on record.
    pub staged: u64,
    /// Ends on record.
    pub ended: u64,
    /// Attempts that found no room.
    pub refused: u64,
}

pub type Verdict = Result<(), String>;

/// What is promised either holds, or is broken.
///
/// # Errors
/// The promise.
pub fn hold(holds: bool, what: impl FnOnce() -> String) -> Verdict {
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
            unreachable_ms: plan.unreachable_ms(),
            shards: plan.shards,
            mass: BTreeMap::new(),
            heard: BTreeMap::new(),
            seen: BTreeSet::new(),
            came_back: BTreeMap::new(),
            leader_since: Time::ZERO,
            placed: BTreeMap::new(),
            drained: BTreeSet::new(),
            touched: BTreeSet::new(),
            rights: Rights::default(),
            places: Places::default(),
            committed: vec![vec![]; usize::from(plan.shards)],
            acted: vec![0; usize::from(plan.shards)],
            leaders: BTreeMap::new(),
            hashes: BTreeMap::new(),
            several: plan.masters > 1,
            wild: plan.wild,
            mistaken: BTreeSet::new(),
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

    /// A leader makes a record: whether that is right as far as can be seen now, should it ever be committed.
    ///
    /// # Errors
    /// The promise that it breaks.
    pub fn made(&mut self, now: Time, record: &Record, machines: &[Machine]) -> Verdict {
        self.places.note(record);
        match record {
            Record::Staged { id, agent, attempts, .. } => {
                self.placed.extend(attempts.iter().map(|(index, number)| (AttemptId::new(*id, *index, *number), *agent)));
            }
            Record::AgentMode { agent, mode: Mode::Draining { .. } | Mode::Maintained { .. }, .. } => drop(self.drained.insert(*agent)),
            Record::Placed { id, agent, .. } => drop(self.placed.insert(AttemptId::new(*id, 0, 1), *agent)),
            Record::PlacedGroup { tasks, agent, .. } => {
                self.placed.extend(tasks.iter().map(|task| (AttemptId::new(task.id, 0, 1), *agent)));
            }
            Record::Ended { id, ends, .. } => {
                return ends.iter().try_for_each(|end| {
                    let attempt = end.attempt(*id);
                    let agent = self.placed.get(&attempt).copied().ok_or_else(|| format!("G3: {attempt} ended and was nowhere"))?;
                    self.loss_is_real(now, attempt, agent, &end.exit, machines)
                });
            }
            _ => {}
        }
        Ok(())
    }

    /// A record was committed.
    ///
    /// # Errors
    /// The promise that it breaks.
    pub fn committed(&mut self, note: &Note) -> Verdict {
        hold(note.broken.is_none(), || note.broken.clone().unwrap_or_default())?;
        match &note.record {
            Record::Submitted { id, job, key, .. } => {
                hold(self.jobs.insert(*id, job.clone()).is_none(), || format!("G1: the id {id} was given twice"))?;
                let before = key.clone().and_then(|key| self.keys.insert(key, *id));
                hold(before.is_none(), || format!("G2: one key made {id} and {before:?}"))
            }
            Record::Applied { id, job, .. } => {
                self.touched.insert(*id);
                self.jobs.insert(*id, job.clone());
                Ok(())
            }
            Record::Scaled { id, .. } | Record::Stopped { id, .. } | Record::Deployed { id, .. } => {
                self.touched.insert(*id);
                Ok(())
            }
            Record::Matched { id, left, .. } if !left.is_empty() => Ok(_ = self.touched.insert(*id)),
            Record::Staged { id, agent, attempts, .. } => {
                attempts.iter().try_for_each(|(index, number)| self.staged(note.made, AttemptId::new(*id, *index, *number), *agent))
            }
            Record::Placed { id, job, agent, .. } => {
                hold(self.jobs.insert(*id, job.clone()).is_none(), || format!("G1: the id {id} was given twice"))?;
                self.staged(note.made, AttemptId::new(*id, 0, 1), *agent)
            }
            Record::PlacedGroup { tasks, agent, .. } => tasks.iter().try_for_each(|task| {
                hold(self.jobs.insert(task.id, task.job.clone()).is_none(), || format!("G1: the id {} was given twice", task.id))?;
                self.staged(note.made, AttemptId::new(task.id, 0, 1), *agent)
            }),
            Record::Ended { id, ends, .. } => ends.iter().try_for_each(|end| {
                self.ended += 1;
                let attempt = end.attempt(*id);
                let live = self.live.remove(&attempt.task);
                let Some((number, agent)) = live else { return Err(format!("G3: {attempt} ended twice, or never lived: {:?}", end.exit)) };
                hold(number == end.number, || format!("G3: {attempt} ended while #{number} lived"))?;
                let gone = !matches!(end.exit, Exit::Lost { reason: Loss::AgentGone }) || self.gone.contains_key(&agent);
                hold(gone, || format!("G5: {attempt} was given up, and nobody let {agent} go"))?;
                // A right may be over by the time that a task ends which was asked by it.
                let asked = end.exit != Exit::Killed || self.touched.contains(id) || self.rights.reach(&self.jobs, *id);
                hold(asked, || format!("G7: {attempt} was killed, and nobody asked for it"))
            }),
            Record::RoleSet { role, settings, .. } => {
                self.rights.set(role, settings);
                Ok(())
            }
            Record::AgentSeen { agent, .. } => {
                self.seen.insert(*agent);
                Ok(())
            }
            Record::AgentGone { agent, .. } => {
                self.gone.insert(*agent, note.made);
                self.heard.remove(agent);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn staged(&mut self, made: Time, attempt: AttemptId, agent: AgentId) -> Verdict {
        self.staged += 1;
        let (task, number) = (attempt.task, attempt.number);
        let heard_ms = GONE_HEARD_MS + if self.several { IDLE_MS } else { 0 };
        let heard = self.gone.get(&agent).is_none_or(|gone| made.since(*gone) <= heard_ms);
        hold(heard, || format!("G18: {task} was staged on {agent}, which is gone for good"))?;
        let before = self.live.insert(task, (number, agent));
        hold(before.is_none(), || format!("G3: {task} was staged as #{number} while {before:?} lived"))?;
        let last = self.last.insert(task, number).unwrap_or(0);
        hold(number == last + 1, || format!("G3: {task} was staged as #{number} after #{last}"))?;
        self.places.holds(&self.jobs, &self.live, task)
    }

    /// A replica folds an entry that it holds for committed; true where it is the first.
    ///
    /// # Errors
    /// Another replica folded another one there.
    pub fn folded(&mut self, shard: usize, index: u64, term: u64) -> Result<bool, String> {
        let committed = &mut self.committed[shard];
        let at = usize::try_from(index - 1).expect("a log fits");
        match committed.get(at) {
            Some(before) => {
                let before = *before;
                hold(before == term, || format!("G1: entry {index} of shard {shard} was committed in term {before} and in term {term}"))?;
                Ok(false)
            }
            None => {
                hold(at == committed.len(), || format!("G1: entry {index} of shard {shard} was committed before those before it"))?;
                committed.push(term);
                Ok(true)
            }
        }
    }

    /// A member of a real group begins to lead with so many entries folded in: it is the only one in its term, and has all that is committed.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn led(&mut self, shard: usize, master: usize, term: u64, applied: u64) -> Verdict {
        let other = self.leaders.insert((shard, term), master).filter(|other| *other != master);
        hold(other.is_none(), || format!("G1: masters {other:?} and {master} lead shard {shard} in term {term}"))?;
        let (count, before) = (self.committed[shard].len() as u64, self.committed[shard].last().copied().unwrap_or(0));
        let has = applied >= count || term < before;
        hold(has, || format!("G1: master {master} leads shard {shard} with {applied} of {count} entries that are committed"))
    }

    /// A replica was voted for: it is the only one in its term, and has all that is committed.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn leads(&mut self, shard: usize, master: usize, replica: &Replica) -> Verdict {
        let other = self.leaders.insert((shard, replica.term), master);
        hold(other.is_none(), || format!("G1: masters {other:?} and {master} lead shard {shard} in term {}", replica.term))?;
        let last = self.committed[shard].len() as u64;
        let (before, own) = (self.committed[shard].last().copied().unwrap_or(0), replica.log.term_at(last));
        let has = last == 0 || own == Some(before) || own.is_none() && replica.log.last().0 > last || replica.term < before;
        hold(has, || format!("G1: master {master} leads shard {shard} and has not all {last} entries that are committed"))
    }

    /// A leader acts on what it was told: no other one has since a later term began.
    ///
    /// # Errors
    /// One has.
    pub fn acts(&mut self, shard: usize, term: u64) -> Verdict {
        let highest = self.acted[shard];
        hold(term >= highest, || format!("G7: the leader of shard {shard} in term {term} acts after that of term {highest}"))?;
        self.acted[shard] = term;
        Ok(())
    }

    /// A replica's state, after as many entries as have taken effect on it, is as that of the others.
    ///
    /// # Errors
    /// It is not.
    pub fn hashed(&mut self, shard: ShardId, applied: u64, hash: u64) -> Verdict {
        let key = (shard, applied);
        let other = *self.hashes.entry(key).or_insert(hash);
        hold(hash == other, || format!("G1: two replicas of shard {} differ after {} entries", key.0.0, key.1))
    }

    /// What is called lost does not run: unless its agent was silent for as long as was promised.
    fn loss_is_real(&mut self, now: Time, attempt: AttemptId, agent: AgentId, exit: &Exit, machines: &[Machine]) -> Verdict {
        let Exit::Lost { reason } = exit else { return Ok(()) };
        if *reason == Loss::AgentGone {
            return Ok(()); // It is looked at when that is on record, if ever.
        }
        let machine = machines.iter().find(|machine| machine.id == agent);
        let known = machine.is_some() || self.gone.contains_key(&agent);
        hold(known, || format!("{attempt} was staged on a machine that does not exist"))?;
        let runs = machine.and_then(|machine| machine.runs.get(&attempt)).is_some_and(|run| run.end.is_none());
        match reason {
            Loss::AgentSilent => {
                let heard = self.heard.get(&agent).copied().unwrap_or(Time::ZERO);
                // Who came back after it was given up, and before that was on record, was silent for long enough.
                let came_back = self.came_back.get(&agent).is_some_and(|back| *back + HOPS_MS[usize::from(self.several)] >= now);
                let silent = now.since(heard);
                let long = came_back || self.is_long(silent);
                hold(long, || format!("G5: {attempt} was given up after {silent} ms of silence"))?;
                let shard = shard_of_agent(agent, self.shards);
                // Whoever of these was looked at first, all were silent then.
                let window_ms = self.replace_after_ms.saturating_sub(self.unreachable_ms + MASS_MARGIN_MS) / 2;
                let others = self.silent_in(now, shard, silent - window_ms.min(silent)..silent + window_ms).saturating_sub(1);
                hold(self.wild || others + 1 < MASS_AGENTS || silent > MASS_REPLACED_MS, || {
                    format!("G24: {attempt} was given up with its agent while {others} others of its shard were silent too")
                })
            }
            Loss::Drained | Loss::Preempted => {
                self.rights.left(*reason, attempt, self.drained.contains(&agent) || self.touched.contains(&attempt.task.job), &self.jobs)
            }
            Loss::Refused | Loss::Forgotten => {
                self.refused += u64::from(*reason == Loss::Refused);
                // A report does not say which launches it knows: one that is overtaken by a launch that was sent later is taken for the
                // newer one. In the stream of a connection nothing is overtaken; where it is, such an attempt is replaced and its first
                // run killed, and that may happen seldom only.
                self.mistaken.extend(runs.then_some(attempt));
                let most = if self.wild { MISTAKEN_MIN + self.staged / 50 } else { 0 };
                hold(self.mistaken.len() as u64 <= most, || format!("G6: {attempt} was called lost ({reason}) while it ran"))
            }
            Loss::AgentGone => unreachable!("it was looked at before"),
            Loss::Reboot | Loss::Executor | Loss::LeaseOver | Loss::Revoked => {
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

    /// Whether an agent that was silent for so long may have been given up: the late beat of a session that is over is no sign of life, where
    /// messages are late and overtaken, as pulses always are; and a clock may be one part in a hundred too fast.
    fn is_long(&self, silent_ms: u64) -> bool {
        let late = if self.wild { LATE_MS } else { PULSE_LATE_MS };
        let least = self.replace_after_ms - if self.several { self.replace_after_ms / 100 } else { 0 };
        silent_ms + late + 1 >= least
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
        let running = machine.running.firm();
        hold(machine.info.capacity.contains(&running), || {
            format!("G9: {} has {:?} and runs {running:?}", machine.info.name, machine.info.capacity)
        })
    }

    /// A ledger has taken something in: it has not promised more than its machine has.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn ledger(&self, machine: &Machine) -> Verdict {
        let Some(promised) = machine.ledger.as_ref().map(Ledger::promised) else { return Ok(()) };
        machine.lending.verdict()?;
        hold(machine.info.capacity.contains(&promised.firm()), || format!("G9: {} has promised {promised:?}", machine.info.name))
    }

    /// Something has happened, whatever it was: refusals are few, and while all is well among the masters no task of an agent that is silent
    /// or gone is left unreplaced.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn after_each_event(&mut self, now: Time, calm: Option<Time>) -> Verdict {
        hold(self.refused <= REFUSED_MIN + self.staged / 2, || format!("{} of {} stagings were refused", self.refused, self.staged))?;
        self.see_mass(now);
        let silent_ms = self.replace_after_ms + REPLACED_SLACK_MS + if self.several { SKEW_MS } else { 0 };
        let silent = self.heard.iter().filter(|(_, heard)| now.since(**heard) > silent_ms);
        let heard = self.leader_since.max(calm.unwrap_or(Time::ZERO));
        let gone_since = |since: &Time| now.since((*since).max(heard)) > REPLACED_SLACK_MS + self.leases_ms;
        let gone = self.gone.iter().filter(|(_, since)| gone_since(since));
        if calm.is_none() || silent.clone().chain(gone.clone()).next().is_none() {
            return Ok(());
        }
        let mut overdue: BTreeSet<AgentId> = gone.map(|(agent, _)| *agent).collect();
        overdue.extend(silent.map(|(agent, _)| *agent).filter(|agent| !self.may_come_back(now, *agent)));
        let late = self.live.iter().find(|(_, (_, agent))| overdue.contains(agent));
        hold(late.is_none(), || format!("G5: {late:?} was not given up in time"))
    }

    /// A client was told that its job is on record.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn acknowledged(&self, id: JobId, job: &Job) -> Verdict {
        hold(self.jobs.get(&id) == Some(job), || format!("G1: {id} was acknowledged and is not on record as it was submitted"))
    }

    /// Every acknowledged job of a shard can be read back as it was submitted, but for a count that was changed. On its leader at its end.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn nothing_lost(&self, now: Time, clients: &Clients, shard: ShardId, seat: &mut Seat) -> Verdict {
        for submission in &clients.submissions {
            let Some(id) = submission.acknowledged.filter(|id| id.shard() == shard) else { continue };
            let read = match seat.look(now, View::Job(JobRef::Id(id))) {
                Some(Viewed::Job(view)) => Some(view.job),
                _ => None,
            };
            // Its versions differ in what runs alone.
            let template = || submission.job.template.clone();
            let same = read.is_some_and(|job| Job { count: submission.job.count, template: template(), ..job } == submission.job);
            hold(same, || format!("G1: {id} was acknowledged for {} and cannot be read back", submission.key))?;
            hold(submission.ended, || format!("G3: {id} was stopped and whoever follows it was never told its end"))?;
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
