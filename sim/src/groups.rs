//! The groups of replicas in the world: their messages, timers and disks, who begins and ends to lead, what is committed, and what a
//! leader's shard is told and wants done.

use crate::engine::shard_id;
use crate::log::Note;
use crate::network::Way;
use crate::peers::Letter;
use crate::plan::Bug;
use crate::raft::{LOG_ENTRIES_MAX, Message, Out};
use crate::seat::Seat;
use crate::world::{Happening, Verdict, World};
use master::shard::{Action, Event, PeerMessage, Record};
use protocol::message::{FromMaster, Launch, ToAgent, shard_of_agent};
use protocol::{AgentId, AttemptId, FromAgent, ShardId, Time};

impl World {
    /// A message from replica to replica arrives.
    pub(crate) fn raft(&mut self, from: usize, to: usize, shard: usize, message: Message) -> Verdict {
        if !self.masters[to].up {
            return Ok(());
        }
        let shown = self.masters[to].clock.show(self.now);
        self.masters[to].replicas[shard].receive(from, message, shown, &mut self.random);
        self.settle(to, shard)
    }

    pub(crate) fn written(&mut self, at: usize, shard: usize, index: u64, term: u64) -> Verdict {
        if !self.masters[at].up {
            return Ok(());
        }
        self.masters[at].replicas[shard].synced(index, term);
        self.settle(at, shard)
    }

    pub(crate) fn raft_timer(&mut self, at: usize, shard: usize, timer: Time) -> Verdict {
        if self.masters[at].raft_timers[shard] != Some(timer) {
            return Ok(());
        }
        self.masters[at].raft_timers[shard] = None;
        let shown = self.masters[at].clock.show(self.now);
        self.masters[at].replicas[shard].tick(shown, &mut self.random);
        self.settle(at, shard)
    }

    /// Does what a replica wants, folds what is committed, and sets its timer.
    pub(crate) fn settle(&mut self, at: usize, shard: usize) -> Verdict {
        loop {
            let outs = self.masters[at].replicas[shard].outs();
            let idle = outs.is_empty();
            for out in outs {
                match out {
                    Out::Send(to, message) => self.send_raft((at, to), shard, 0, message),
                    Out::SendSynced(to, message) => {
                        let disk_ms = self.masters[at].disk_ms(self.now, &mut self.random);
                        self.send_raft((at, to), shard, disk_ms, message);
                    }
                    Out::Write(index) => {
                        let master = &self.masters[at];
                        let disk_ms = master.disk_ms(self.now, &mut self.random);
                        let term = master.replicas[shard].log.term_at(index).unwrap_or_default();
                        self.queue.push(self.now + disk_ms, Happening::Written(at, master.life, shard, index, term));
                    }
                    Out::Leads => self.lead(at, shard)?,
                    Out::Stops => self.stop(at, shard)?,
                    Out::Follows(term, leader) => self.learn(at, shard, (term, leader))?,
                }
            }
            self.fold(at, shard)?;
            if idle && self.masters[at].replicas[shard].is_idle() {
                break;
            }
        }
        let master = &mut self.masters[at];
        let shown = master.clock.show(self.now);
        let due = master.clock.when(self.now, master.replicas[shard].due(shown));
        if master.raft_timers[shard].is_none_or(|set| set > due) {
            master.raft_timers[shard] = Some(due);
            self.queue.push(due, Happening::RaftTimer(at, master.life, shard, due));
        }
        Ok(())
    }

    fn send_raft(&mut self, (from, to): (usize, usize), shard: usize, wait_ms: u64, message: Message) {
        let way = if from < to { Way::Up } else { Way::Down };
        if self.links[&(from.min(to), from.max(to))].is_cut(way, self.now) {
            return;
        }
        let way_ms = if self.random.chance(950) { self.random.between(0, 2) } else { self.random.between(0, 60) };
        self.queue.push(self.now + wait_ms + way_ms, Happening::Raft(from, to, shard, Box::new(message)));
    }

    /// Folds what is committed; what is committed for the first time is seen by all, and what waited for it is done.
    fn fold(&mut self, at: usize, shard: usize) -> Verdict {
        let mut first = None;
        while let Some((index, entry)) = self.masters[at].replicas[shard].next_committed() {
            first.get_or_insert(index);
            if self.check.folded(shard, index, entry.term)? {
                self.committed(ShardId(shard as u16), &entry.notes)?;
            }
            self.masters[at].replicas[shard].folded(index, &entry);
            if index.is_multiple_of(128) {
                let replica = &self.masters[at].replicas[shard];
                self.check.hashed(shard_id(shard), replica.applied, replica.follower.hash())?;
            }
        }
        if first.is_none() {
            return Ok(());
        }
        let replica = &mut self.masters[at].replicas[shard];
        if replica.kept() > 2 * LOG_ENTRIES_MAX && self.random.chance(10) {
            replica.compact();
        }
        let applied = replica.applied;
        if self.is_led_by(at, shard)? {
            let due = self.masters[at].seats[shard].as_mut().map(|seat| seat.committed(applied)).unwrap_or_default();
            self.act(at, ShardId(shard as u16), due)?;
            self.after(at, shard)?;
        }
        Ok(())
    }

    /// Whether `at` may act as the leader of `shard`; one whose lease is over stops.
    fn is_led_by(&mut self, at: usize, shard: usize) -> Result<bool, String> {
        let master = &mut self.masters[at];
        let Some(term) = master.seats[shard].as_ref().map(|seat| seat.term).filter(|_| master.up) else { return Ok(false) };
        if master.engine.is_some() {
            return self.engine_leads(at, shard, term);
        }
        let shown = master.clock.show(self.now);
        let replica = &mut master.replicas[shard];
        if replica.leads() && replica.lease(shown) <= Some(shown) && self.plan.bug != Some(Bug::KeepsNoLease) {
            replica.tick(shown, &mut self.random);
            self.settle(at, shard)?;
            return Ok(false);
        }
        if replica.leads() {
            self.check.acts(shard, term)?;
        }
        Ok(replica_leads(&self.masters[at], shard))
    }

    /// The master that leads `shard` and can act now.
    pub(crate) fn leader(&self, shard: usize) -> Option<usize> {
        let leads = |at: &usize| {
            let master = &self.masters[*at];
            let shown = master.clock.show(self.now);
            let runs = master.up && master.stopped_until <= self.now && master.seats[shard].is_some();
            runs && match &master.engine {
                Some(engine) => engine.leads(shard),
                None => master.replicas[shard].lease(shown) > Some(shown),
            }
        };
        (0..self.masters.len()).find(leads)
    }

    /// A replica was voted for: its shard is made from its log, and leads.
    fn lead(&mut self, at: usize, shard: usize) -> Verdict {
        self.trace(|| format!("m{at} leads shard {shard}"));
        let master = &mut self.masters[at];
        let shown = master.clock.show(self.now);
        let replica = &mut master.replicas[shard];
        self.check.leads(shard, at, replica)?;
        let (made, latest) = replica.fold();
        let term = replica.term;
        let first = replica.propose(vec![], shown);
        master.seats[shard] = Some(Seat::new(made, (term, self.now), Some(first), self.plan.bug));
        self.begin(at, shard, term, latest)
    }

    /// A shard is led from now on; the latest of its records is of then.
    pub(crate) fn begin(&mut self, at: usize, shard: usize, term: u64, latest: Time) -> Verdict {
        let (bug, id) = (self.plan.bug, shard_id(shard));
        let shown = self.masters[at].clock.show(self.now);
        self.leaders += 1;
        self.calm_since = self.calm_since.max(self.now);
        let agents = self.machines.iter().map(|machine| machine.id);
        let own: Vec<AgentId> = agents.filter(|agent| shard_of_agent(*agent, self.plan.shards) == id).collect();
        self.check.leader_began(self.now, own.into_iter());
        self.learn(at, shard, (term, at))?;
        self.say_leads(at, shard, term);
        if let Some(seat) = self.masters[at].seats[shard].as_mut() {
            seat.shard.lead(shown.max(latest));
        }
        let actions = self.collect(at, shard);
        self.act(at, id, actions)?;
        self.after(at, shard)?;
        if bug == Some(Bug::GivesNoTimeout) {
            for agent in self.machines.iter().map(|machine| machine.id).collect::<Vec<_>>() {
                let from = shard_of_agent(agent, self.plan.shards);
                self.tell(at, id, Event::Peer { from, message: PeerMessage::Lost { agent, gone: false } })?;
            }
        }
        Ok(())
    }

    /// Who leads no longer drops its shard, and all that it held.
    pub(crate) fn stop(&mut self, at: usize, shard: usize) -> Verdict {
        let id = ShardId(shard as u16);
        self.calm_since = self.calm_since.max(self.now);
        let Some(seat) = self.masters[at].seats[shard].take() else { return Ok(()) };
        let term = seat.term;
        if self.plan.bug == Some(Bug::DoesWhatWasHeld) {
            self.act(at, id, seat.give_up())?;
        }
        self.clients.hang_up(|asked| asked.by.1 == at && asked.shard == id);
        self.frameworks.hang_up(|master, shard| master == at && shard == id);
        let own = |machine: &usize| usize::from(shard_of_agent(self.machines[*machine].id, self.plan.shards).0) == shard;
        for machine in (0..self.machines.len()).filter(own).collect::<Vec<_>>() {
            self.say_denied_down(machine, at, shard, (term, None));
        }
        Ok(())
    }

    /// Something happens to a shard that `at` leads; nothing where it does not, or may not any longer.
    pub(crate) fn tell(&mut self, at: usize, shard: ShardId, mut event: Event) -> Verdict {
        let index = usize::from(shard.0);
        if !self.is_led_by(at, index)? {
            return Ok(());
        }
        self.beside.heard(&event);
        match &event {
            Event::Agent { agent, message: FromAgent::Report { held, .. } } => self.kept.reported(*agent, held, self.now),
            Event::Peer { message: PeerMessage::Report { agent, .. }, .. } => self.kept.unsettled(*agent, self.now),
            _ => {}
        }
        let swallowed = match &event {
            Event::Peer { message: PeerMessage::Lost { gone, .. }, .. } => {
                self.plan.bug == Some(Bug::NeverReplaces) || *gone && self.plan.bug == Some(Bug::KeepsTheGone)
            }
            _ => false,
        };
        match self.plan.bug {
            Some(Bug::MisplacesAgents) => crate::places::misplace(&mut event),
            Some(Bug::GrantsDouble) => crate::limits::double(&mut event),
            Some(Bug::PreemptsUpwards) => crate::limits::upwards(&mut event),
            Some(Bug::RollsAtOnce) => crate::rolls::at_once(&mut event),
            Some(Bug::OverlooksAgents) => crate::system::overlook(&mut event),
            Some(Bug::HearsOfNobody) => crate::neighbours::nobody(&mut event),
            _ => {}
        }
        self.trace(|| format!("m{at} shard {index} <- {event:?}"));
        let clock = self.masters[at].clock;
        let shown = clock.show(self.now);
        if let Some(seat) = self.masters[at].seats[index].as_mut().filter(|_| !swallowed) {
            let before = self.rolls.before(&seat.shard, &event);
            seat.shard.handle(shown, event);
            let since = clock.show(seat.since);
            self.rolls.after(&before, &seat.shard, (shown, since), &self.check.jobs)?;
        }
        let actions = self.collect(at, index);
        self.act(at, shard, actions)?;
        self.after(at, index)
    }

    fn collect(&mut self, at: usize, shard: usize) -> Vec<Action> {
        let (check, machines, now) = (&mut self.check, &self.machines, self.now);
        let traces = self.trace_from.is_some_and(|from| from <= now);
        let Some(seat) = self.masters[at].seats[shard].as_mut() else { return vec![] };
        seat.collect(|record| {
            if traces {
                eprintln!("{now} m{at} shard {shard} notes {record:?}");
            }
            Note { broken: check.made(now, &record, machines).err(), record, made: now }
        })
    }

    /// Proposes the next batch of a leader and sets its timer.
    pub(crate) fn after(&mut self, at: usize, shard: usize) -> Verdict {
        let master = &mut self.masters[at];
        let shown = master.clock.show(self.now);
        let Some(seat) = master.seats[shard].as_mut() else { return Ok(()) };
        let wanted = seat.shard.poll_timeout().map(|timer| master.clock.when(self.now, timer));
        if let Some(timer) = wanted.filter(|timer| seat.timer.is_none_or(|set| set > *timer)) {
            seat.timer = Some(timer);
            self.queue.push(timer, Happening::ShardTimer(at, seat.term, shard, timer));
        }
        if let Some(batch) = seat.next_batch() {
            if master.engine.is_some() {
                seat.proposed(0);
                let term = seat.term;
                return self.propose(at, shard, term, batch);
            }
            let index = master.replicas[shard].propose(batch, shown);
            seat.proposed(index);
            return self.settle(at, shard);
        }
        Ok(())
    }

    pub(crate) fn shard_timer(&mut self, at: usize, term: u64, shard: usize, timer: Time) -> Verdict {
        match self.masters[at].seats[shard].as_mut().filter(|seat| seat.term == term && seat.timer == Some(timer)) {
            Some(seat) => {
                seat.timer = None;
                self.tell(at, ShardId(shard as u16), Event::Tick)
            }
            None => Ok(()),
        }
    }

    /// Records are committed: what they say is so.
    pub(crate) fn committed(&mut self, shard: ShardId, notes: &[Note]) -> Verdict {
        for note in notes {
            self.check.committed(note)?;
            self.limits.committed(&note.record, shard, &self.check.jobs)?;
            self.kept.committed(&note.record, self.now, &self.check.jobs);
            self.beside.committed(&note.record, self.now);
            if let Record::AgentGone { agent, .. } = &note.record
                && let Some(at) = self.machines.iter().position(|machine| machine.id == *agent)
            {
                self.machines[at].gone = true;
                if self.lines[at].iter().any(|line| line.up) {
                    self.turn_away(at);
                }
            }
        }
        Ok(())
    }

    /// An agent is told to run something: that takes nothing of what is kept of it for others.
    fn judge_kept(&mut self, agent: AgentId, launch: &Launch) -> Verdict {
        let capacity = self.machines.iter().find(|machine| machine.id == agent).map_or(0, |machine| machine.info.capacity.cpu_milli);
        launch.attempts.iter().try_for_each(|(index, number)| {
            let attempt = AttemptId::new(launch.job, *index, *number);
            self.kept.launched(attempt, capacity, (self.now, self.check.leader_since))
        })
    }

    /// Does what a shard that `at` leads wants done.
    pub(crate) fn act(&mut self, at: usize, shard: ShardId, actions: Vec<Action>) -> Verdict {
        for action in actions {
            self.trace(|| format!("m{at} shard {} -> {action:?}", shard.0));
            match action {
                Action::Send { message: FromMaster::Ack { .. }, .. } if self.plan.bug == Some(Bug::NeverAcknowledges) => {}
                Action::Send { agent, message: FromMaster::Lease { lease_ms } } if self.plan.bug == Some(Bug::ReplacesBeforeLease) => {
                    self.send_down(at, agent, ToAgent { shard, message: FromMaster::Lease { lease_ms: 2 * lease_ms } });
                }
                Action::Send { agent, message } => {
                    if let FromMaster::Launch(launch) = &message {
                        self.judge_kept(agent, launch)?;
                        self.beside.launched(agent, launch, &self.check.jobs)?;
                    }
                    self.send_down(at, agent, ToAgent { shard, message });
                }
                Action::Peer { to, message } => {
                    let given = message.gives_to().and_then(|agent| self.machines.iter().position(|machine| machine.id == agent));
                    given.into_iter().for_each(|machine| self.tell_untold(machine, at, usize::from(shard.0), None));
                    self.send_peer(at, shard, to, message);
                }
                Action::Reply { id, response } => {
                    if self.frameworks.hear(id, &response)? {
                        continue;
                    }
                    if let Some((job, submitted)) = self.clients.hear(id, &response)? {
                        self.check.acknowledged(job, submitted)?;
                    }
                }
                Action::Publish(_) => {}
                Action::Disconnect { agent, .. } => {
                    if let Some(machine) = self.machines.iter().position(|machine| machine.id == agent) {
                        self.break_line(machine, at);
                    }
                }
            }
        }
        Ok(())
    }

    /// A message between shards arrives.
    pub(crate) fn peer(&mut self, letter: Letter) -> Verdict {
        if self.is_heard(&letter) {
            self.tell(letter.masters.1, letter.to, Event::Peer { from: letter.from, message: letter.message })
        } else {
            Ok(())
        }
    }
}

fn replica_leads(master: &crate::door::Master, shard: usize) -> bool {
    master.replicas[shard].leads() && master.seats[shard].is_some()
}
