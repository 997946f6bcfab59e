//! The real groups in the world: when each runs, what the network and the disk do to what it says and writes, and what follows from what it
//! has brought about. Nothing of it is done while something else is: first all that happens at a moment, then what comes of it.

use super::wires::Said;
use super::{Event, shard_id};
use crate::log::Note;
use crate::network::Way;
use crate::plan::Bug;
use crate::seat::Seat;
use crate::world::{Happening, Verdict, World};
use master::journal::network::Ask;
use master::journal::{Applied, Batch, Fate, Turn};
use master::shard::Record;
use protocol::{ShardId, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How often an engine is looked at where nothing else happens to it, in milliseconds: as late as a thread may be.
const LOOK_MS: (u64, u64) = (1, 9);
/// Looks at all groups of which one finds a snapshot made, in thousandths.
const SNAPSHOT_CHANCE: u64 = 30;
/// Looks of which one compares the states of all members, in thousandths.
const COMPARED_CHANCE: u64 = 100;

/// What leaders have proposed in a term, and is not known to be on record.
type Proposed = VecDeque<(Batch, Vec<Note>)>;

/// What the world knows of the real groups.
#[derive(Default)]
pub struct Known {
    proposed: BTreeMap<(usize, u64), Proposed>,
    /// Rises when a disk is lost: then other members are wanted.
    generation: u64,
    /// The groups that have the members they are to have.
    whole: BTreeSet<usize>,
    /// Pieces of snapshots that were sent from member to member.
    pub pieces: u64,
}

impl World {
    /// Something happens to the groups of a master.
    pub(crate) fn engine(&mut self, at: usize, event: Event) -> Verdict {
        let (now, life) = (self.now, self.masters[at].life);
        let shown = self.masters[at].clock.show(now);
        let master = &mut self.masters[at];
        let Some(engine) = master.engine.as_mut().filter(|_| master.up) else { return Ok(()) };
        match event {
            Event::Look(of) if of == life => engine.waits = false,
            Event::Flushed(of) if of == life => engine.flushed(),
            Event::Asked(question) => {
                let stands = self.links[&pair(question.masters)].connection == question.connection;
                if !stands || engine.member != question.member {
                    return Ok(());
                }
                engine.run(shown);
                engine.asked(question);
            }
            Event::Answered(reply) if self.links[&pair(reply.masters)].connection == reply.connection => {
                engine.run(shown);
                engine.answered(reply);
            }
            _ => return Ok(()),
        }
        engine.is_stirred = true;
        Ok(())
    }

    /// Does what engines have brought about, until none of them has anything to do at this moment.
    pub(crate) fn settle_engines(&mut self) -> Verdict {
        let is_due = |master: &crate::door::Master, now: Time| {
            let stirred = master.engine.as_ref().is_some_and(|engine| engine.is_stirred);
            master.up && stirred && master.stopped_until <= now
        };
        while let Some(at) = self.masters.iter().position(|master| is_due(master, self.now)) {
            self.settle_engine(at)?;
        }
        Ok(())
    }

    fn settle_engine(&mut self, at: usize) -> Verdict {
        let now = self.now;
        let master = &mut self.masters[at];
        let shown = master.clock.show(now);
        let disk_ms = master.disk_ms(now, &mut self.random);
        let Some(engine) = master.engine.as_mut() else { return Ok(()) };
        engine.run(shown);
        engine.is_stirred = false;
        let outs = engine.outs();
        if engine.has_to_write() && !engine.writes {
            engine.writes = true;
            self.queue.push(now + disk_ms, Happening::Engine(at, Box::new(Event::Flushed(master.life))));
        }
        if !engine.waits {
            engine.waits = true;
            let wait = self.random.between(LOOK_MS.0, LOOK_MS.1);
            self.queue.push(now + wait, Happening::Engine(at, Box::new(Event::Look(master.life))));
        }
        let Some(outs) = outs else { return Ok(()) };
        engine.is_stirred = true;
        outs.applied.into_iter().try_for_each(|applied| self.applied(at, applied))?;
        outs.turns.into_iter().try_for_each(|(shard, turn)| self.turn(at, shard, turn))?;
        outs.said.into_iter().try_for_each(|said| self.said(at, said))
    }

    /// An entry took effect on a member; what takes effect for the first time is seen by all.
    fn applied(&mut self, at: usize, applied: Applied) -> Verdict {
        let Applied { shard, index, term, batch } = applied;
        let shard = usize::from(shard);
        self.mix((at as u64) << 48 ^ (shard as u64) << 40 ^ index << 8 ^ term);
        if !self.check.folded(shard, index + 1, term)? {
            return Ok(());
        }
        let Some(batch) = batch else { return Ok(()) };
        if batch.decode().map_err(|error| error.to_string())?.is_empty() {
            return Ok(());
        }
        let proposed = self.known.proposed.entry((shard, term)).or_default();
        let place = proposed.iter().position(|(of, _)| *of == batch);
        let place = place.ok_or_else(|| format!("G1: entry {index} of shard {shard} is of term {term} and nobody proposed it then"))?;
        // What was proposed before and is not on record by now never will be.
        let notes = proposed.drain(..=place).next_back().map(|(_, notes)| notes).unwrap_or_default();
        self.committed(ShardId(shard as u16), &notes)
    }

    fn turn(&mut self, at: usize, shard: usize, turn: Turn) -> Verdict {
        match turn {
            Turn::Begins(recovered) => {
                let (term, now) = (recovered.term, self.now);
                self.trace(|| format!("m{at} leads shard {shard} in term {term}"));
                let master = &mut self.masters[at];
                let Some(engine) = &mut master.engine else { return Ok(()) };
                engine.reigns[shard] += 1;
                self.check.led(shard, at, term, engine.applied(shard))?;
                master.seats[shard] = Some(Seat::new(recovered.shard, (term, now), None, self.plan.bug));
                self.begin(at, shard, term, recovered.latest)
            }
            // Dropped is done.
            Turn::Over { .. } if self.plan.bug == Some(Bug::KeepsNoLease) => Ok(()),
            Turn::Over { .. } => self.stop(at, shard),
            Turn::Ended => {
                let why = self.masters[at].engine.as_ref().map_or_else(String::new, |engine| engine.failure(shard));
                Err(format!("the engine of shard {shard} of master {at} has ended: {why}"))
            }
        }
    }

    fn said(&mut self, at: usize, said: Said) -> Verdict {
        match said {
            Said::Question(mut question) => {
                self.known.pieces += u64::from(matches!(question.ask, Ask::Snapshot(_)));
                let to = usize::try_from(question.member - 1).expect("few disks are lost") % self.masters.len();
                question.masters = (at, to);
                if let Some(time) = self.way(at, to).filter(|_| to != at) {
                    question.connection = self.links[&pair((at, to))].connection;
                    self.queue.push(time, Happening::Engine(to, Box::new(Event::Asked(question))));
                }
            }
            Said::Reply(reply) => {
                let to = reply.masters.0;
                if let Some(time) = self.way(at, to) {
                    self.queue.push(time, Happening::Engine(to, Box::new(Event::Answered(reply))));
                }
            }
            Said::Fate(shard, reign, fate) => return self.fate(at, shard, reign, fate.map_err(|error| error.to_string())?),
            Said::Members(shard, generation, whole) => {
                if generation == self.known.generation && whole {
                    self.known.whole.insert(shard);
                }
            }
        }
        Ok(())
    }

    /// When something that is said from master to master now arrives; `None` where they are not connected.
    fn way(&mut self, from: usize, to: usize) -> Option<Time> {
        if from == to {
            return None;
        }
        let way = if from < to { Way::Up } else { Way::Down };
        let line = self.links.get_mut(&pair((from, to)))?;
        line.send(&mut self.random, self.now, way, true).first().copied()
    }

    /// What became of a batch: whoever leads no more does nothing with it.
    fn fate(&mut self, at: usize, shard: usize, reign: u64, fate: Fate) -> Verdict {
        let master = &mut self.masters[at];
        let same = master.engine.as_ref().is_some_and(|engine| engine.reigns[shard] == reign);
        let Some(seat) = master.seats[shard].as_mut().filter(|_| same) else { return Ok(()) };
        if fate == Fate::Unknown {
            return self.give_back(at, shard);
        }
        let due = seat.committed(u64::MAX);
        self.act(at, shard_id(shard), due)?;
        self.after(at, shard)
    }

    /// Whoever decides has noticed by itself that its master leads a shard no more.
    fn give_back(&mut self, at: usize, shard: usize) -> Verdict {
        self.stop(at, shard)?;
        if let Some(engine) = &mut self.masters[at].engine {
            engine.lapse(shard);
        }
        Ok(())
    }

    /// Whether `at` may act as the leader of `shard`; one whose lease is over lets go.
    pub(crate) fn engine_leads(&mut self, at: usize, shard: usize, term: u64) -> Result<bool, String> {
        let master = &mut self.masters[at];
        let shown = master.clock.show(self.now);
        let Some(engine) = &mut master.engine else { return Ok(false) };
        if engine.shown() < shown {
            engine.run(shown);
        }
        if !engine.leads(shard) && self.plan.bug != Some(Bug::KeepsNoLease) {
            self.give_back(at, shard)?;
            return Ok(false);
        }
        self.check.acts(shard, term)?;
        Ok(true)
    }

    /// Proposes a leader's next batch.
    pub(crate) fn propose(&mut self, at: usize, shard: usize, term: u64, notes: Vec<Note>) -> Verdict {
        let records: Vec<Record> = notes.iter().map(|note| note.record.clone()).collect();
        let batch = Batch::encode(term, &records);
        self.known.proposed.entry((shard, term)).or_default().push_back((batch.clone(), notes));
        let Some(engine) = &mut self.masters[at].engine else { return Ok(()) };
        engine.propose(shard, batch).map_err(|error| error.to_string())
    }

    /// Looks after the groups: their members, now and then a snapshot, and whether all members make the same of what is on record.
    pub(crate) fn look_at_engines(&mut self, whole: bool) -> Verdict {
        let members: BTreeSet<u64> = self.masters.iter().filter_map(|master| master.engine.as_ref()).map(|engine| engine.member).collect();
        let compares = whole || self.random.chance(COMPARED_CHANCE);
        let generation = self.known.generation;
        for at in 0..self.masters.len() {
            if !self.masters[at].up || self.masters[at].stopped_until > self.now {
                continue;
            }
            for shard in 0..usize::from(self.plan.shards) {
                let makes = self.random.chance(SNAPSHOT_CHANCE);
                let master = &mut self.masters[at];
                let Some(engine) = &mut master.engine else { continue };
                if makes {
                    engine.snapshot(shard);
                }
                if master.seats[shard].is_some() {
                    engine.become_members(shard, &members, generation);
                }
                let led = || Some((engine.applied(shard), master.seats[shard].as_ref()?.hash()?));
                let hash = if compares { engine.hash(shard).or_else(led) } else { None };
                if let Some((applied, hash)) = hash {
                    self.check.hashed(shard_id(shard), applied, hash)?;
                }
            }
        }
        Ok(())
    }

    /// A master hands what it leads over to another one, in good order.
    pub(crate) fn engine_hands_over(&mut self, at: usize, shard: usize) -> Verdict {
        let count = self.masters.len();
        let to = (at + 1 + self.random.below(count as u64 - 1) as usize) % count;
        let Some(next) = self.masters[to].engine.as_ref().map(|engine| engine.member) else { return Ok(()) };
        if self.masters[at].seats[shard].as_ref().is_none_or(Seat::waits) {
            return Ok(());
        }
        self.give_back(at, shard)?;
        if let Some(engine) = &mut self.masters[at].engine {
            engine.hand_over(shard, next);
        }
        Ok(())
    }

    /// Whether every group has the members that it is to have, so that one of them may lose what it has.
    pub(crate) fn engines_are_whole(&self) -> bool {
        self.known.whole.len() == usize::from(self.plan.shards)
    }

    /// A master's disk was lost: from now on other members are wanted.
    pub(crate) fn engine_loses_disk(&mut self, at: usize) {
        let count = self.masters.len();
        if let Some(engine) = &mut self.masters[at].engine {
            engine.lose_disk(count);
            self.known.generation += 1;
            self.known.whole.clear();
        }
    }
}

const fn pair((a, b): (usize, usize)) -> (usize, usize) {
    if a < b { (a, b) } else { (b, a) }
}
