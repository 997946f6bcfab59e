//! Agents in the world: their connections to every master that they can reach, which of them leads which shard as far as they know, and what
//! their ledgers want.

use crate::lease;
use crate::machine::{Machine, Wish};
use crate::network::{IDLE_MS, Way};
use crate::plan::{Plan, Process};
use crate::seat::Seat;
use crate::world::{Happening, Verdict, World};
use agent::ledger::event::Event as AgentEvent;
use master::shard::{Concern, Event};
use protocol::message::{FromAgent, FromMaster, Leader, ToAgent, ToShard, shard_of_agent};
use protocol::{AgentId, MemberId, ShardId};

/// How late a master tells an agent at the most that it leads a shard, in milliseconds: one with tasks of that shard, and one without.
const TOLD_LATE_MS: (u64, u64) = (1_000, 5_000);

/// Where an agent's messages go.
#[derive(Clone, Debug)]
pub struct Route {
    /// Of each shard: the highest term that was said to it, and which master said that it leads in it.
    known: Vec<Option<(u64, Option<usize>)>>,
    /// The connection, by master and number, over which it speaks with its own shard.
    own: Option<(usize, u64)>,
}

impl Route {
    /// An agent that has heard nothing yet.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self { known: vec![None; usize::from(plan.shards)], own: None }
    }
}

impl World {
    /// A master tells an agent that it leads a shard.
    pub(crate) fn say_leading_down(&mut self, at: usize, master: usize, shard: usize, term: u64) {
        let agent = self.machines[at].id;
        self.send_down(master, agent, ToAgent { shard: ShardId(shard as u16), message: FromMaster::Leading { term } });
    }

    /// A master that begins to lead a shard tells all agents that it is connected to: those at once whose own shard it is, the others when there
    /// is time.
    pub(crate) fn say_leads_down(&mut self, master: usize, shard: usize, term: u64) {
        for at in 0..self.machines.len() {
            let seat = self.masters[master].seats[shard].as_mut().expect("whoever leads has a seat");
            let late_ms = match seat.shard.concern(self.machines[at].id) {
                Concern::Own => {
                    self.say_leading_down(at, master, shard, term);
                    continue;
                }
                Concern::Tasks => TOLD_LATE_MS.0,
                Concern::None => TOLD_LATE_MS.1,
            };
            seat.untold.insert(at);
            let wait = self.random.between(1, late_ms);
            self.queue.push(self.now + wait, Happening::Untold(at, master, shard, term));
        }
    }

    /// An agent that was not told yet is told that this master leads a shard; where a term is given, only of that.
    pub(crate) fn tell_untold(&mut self, at: usize, master: usize, shard: usize, term: Option<u64>) {
        let Some(seat) = self.masters[master].seats[shard].as_mut() else { return };
        if term.is_none_or(|term| term == seat.term) && seat.untold.remove(&at) {
            let term = seat.term;
            self.say_leading_down(at, master, shard, term);
        }
    }

    /// A master that leads a shard no more, or has heard who does, tells an agent whose own shard it is: the term, and who leads in it.
    pub(crate) fn say_denied_down(&mut self, at: usize, master: usize, shard: usize, (term, leader): (u64, Option<usize>)) {
        let message =
            FromMaster::LedElsewhere { term, leader: leader.map(|master| Leader { master: master as u16, address: String::new() }) };
        let spoken = self.spoken(at, master);
        if message.since() <= spoken {
            let agent = self.machines[at].id;
            self.send_down(master, agent, ToAgent { shard: ShardId(shard as u16), message });
        }
    }

    /// The same, where the master still does not lead it.
    pub(crate) fn say_elsewhere_down(&mut self, at: usize, master: usize, shard: usize) {
        let own = usize::from(shard_of_agent(self.machines[at].id, self.plan.shards).0) == shard;
        let Some((term, leader)) = self.masters[master].known[shard].filter(|_| own && self.masters[master].up) else { return };
        if leader != master && self.masters[master].seats[shard].is_none() {
            self.say_denied_down(at, master, shard, (term, Some(leader)));
        }
    }

    /// The version in which an agent and a master speak.
    pub(crate) fn spoken(&self, at: usize, master: usize) -> u16 {
        let agent = self.plan.version(Process::Agent(at), self.machines[at].life);
        agent.min(self.plan.version(Process::Master(master), self.masters[master].life))
    }

    /// A message goes to an agent, where it is connected to this master.
    pub(crate) fn send_down(&mut self, master: usize, agent: AgentId, message: ToAgent) {
        let Some(at) = self.machines.iter().position(|machine| machine.id == agent) else { return };
        if matches!(message.message, FromMaster::Devices { .. }) && message.message.since() > self.spoken(at, master) {
            return;
        }
        self.tell_untold(at, master, usize::from(message.shard.0), None);
        let line = &mut self.lines[at][master];
        let once = matches!(message.message, FromMaster::Leading { .. } | FromMaster::LedElsewhere { .. });
        // Who leads is said until it is heard.
        let line_was = line.clone();
        let mut times = line.send(&mut self.random, self.now, Way::Down, once);
        if once && line_was.up && times.is_empty() {
            times.push(self.now.max(line_was.cut_until()) + 1);
        }
        let connection = line.connection;
        for time in times {
            self.queue.push(time, Happening::Down(at, master, connection, Box::new(message.clone())));
        }
    }

    /// Something happens to an agent that runs.
    pub(crate) fn agent(&mut self, at: usize, event: AgentEvent) -> Verdict {
        let wishes = self.machines[at].handle(self.now, event, &mut self.random);
        self.check.ledger(&self.machines[at])?;
        crate::devices::judge(&self.machines[at])?;
        self.grant(at, wishes)
    }

    pub(crate) fn grant(&mut self, at: usize, wishes: Vec<Wish>) -> Verdict {
        for wish in wishes {
            match wish {
                Wish::Send(message) => self.send_up(at, *message),
                Wish::Prepare(bundle, form) => {
                    let wait = self.random.wait(50);
                    self.queue.push(self.now + wait, Happening::Fetched(at, self.machines[at].life, bundle, form));
                }
                Wish::Started(attempts) => {
                    self.check.began(&attempts, &self.machines[at])?;
                    crate::devices::judge(&self.machines[at])?;
                    lease::alone(&self.machines, at, &attempts, &self.check.mistaken)?;
                    let members = attempts.into_iter().map(|(attempt, since)| (MemberId::first(attempt), since)).collect();
                    self.agent(at, AgentEvent::Started { members })?;
                }
                Wish::Answers(id, well, time) => self.answer_later(at, id, well, time),
                Wish::EndsAt(attempt, time) => self.queue.push(time, Happening::Ends(at, self.machines[at].boot, attempt)),
                Wish::Quit(reason) => return Err(format!("{} was sent away: {reason}", self.machines[at].info.name)),
            }
        }
        let wanted = self.machines[at].timeout(self.now);
        if let Some(timer) = wanted.filter(|timer| self.agent_timers[at].is_none_or(|set| set > *timer)) {
            self.agent_timers[at] = Some(timer);
            self.queue.push(timer, Happening::AgentTimer(at, self.machines[at].life, timer));
        }
        Ok(())
    }

    /// A message goes to the leader of its shard, where the agent knows him and is connected to him.
    fn send_up(&mut self, at: usize, message: ToShard) {
        let known = self.routes[at].known.get(usize::from(message.shard.0)).copied().flatten();
        let Some(master) = known.and_then(|(_, leader)| leader) else { return };
        if matches!(message.message, FromAgent::Devices { .. }) && message.message.since() > self.spoken(at, master) {
            return;
        }
        // No stream gives a frame twice, and a report does not say which request it answers: an old one that came again would be taken for
        // the answer to a new one. All else may come twice.
        let once = matches!(message.message, FromAgent::Report { .. });
        let line = &mut self.lines[at][master];
        let times = match message.message {
            FromAgent::Alive { .. } => line.pulse(&mut self.random, self.now, Way::Up),
            _ => line.send(&mut self.random, self.now, Way::Up, once),
        };
        for time in times {
            self.queue.push(time, Happening::Up(at, master, line.connection, Box::new(message.clone())));
        }
    }

    pub(crate) fn up(&mut self, at: usize, master: usize, connection: u64, message: ToShard) -> Verdict {
        if !self.masters[master].up || self.lines[at][master].connection != connection {
            return Ok(());
        }
        let agent = self.machines[at].id;
        // A status is for the shard of its task, and a task's end may come late: an agent's sign of life is its beat.
        // One that is older than the leader is of a session that he does not know.
        let began = self.masters[master].seats[usize::from(message.shard.0)].as_ref().map_or(self.now, |seat| seat.since);
        let lives = match message.message {
            FromAgent::Register { .. } => true,
            FromAgent::Beat { session, sent, .. } | FromAgent::Alive { session, sent, .. } => {
                sent >= self.machines[at].clock.show(began) && session >= self.masters[master].clock.show(began).0
            }
            _ => false,
        };
        if lives && self.leader(usize::from(message.shard.0)) == Some(master) {
            self.check.heard(self.now, agent);
        }
        self.tell(master, message.shard, Event::Agent { agent, message: message.message })
    }

    /// What a shard says counts where it comes from the leader of the highest term that the agent heard of.
    pub(crate) fn down(&mut self, at: usize, master: usize, connection: u64, message: ToAgent) -> Verdict {
        if self.lines[at][master].connection != connection || self.machines[at].ledger.is_none() {
            return Ok(());
        }
        let shard = usize::from(message.shard.0);
        match message.message {
            FromMaster::Leading { term } => return self.told_leading(at, shard, (term, master)),
            FromMaster::LedElsewhere { term, .. } => return self.told_elsewhere(at, shard, (term, master)),
            _ => {}
        }
        let leads = self.routes[at].known[shard].is_some_and(|(_, leader)| leader == Some(master));
        if leads { self.agent(at, AgentEvent::Master { shard: message.shard, message: message.message }) } else { Ok(()) }
    }

    /// An agent hears who leads a shard; with the leader of its own it begins a session, over each new connection to him.
    fn told_leading(&mut self, at: usize, shard: usize, (term, master): (u64, usize)) -> Verdict {
        let route = &mut self.routes[at];
        if route.known[shard].is_some_and(|(before, _)| before > term) {
            return Ok(());
        }
        route.known[shard] = Some((term, Some(master)));
        let own = usize::from(shard_of_agent(self.machines[at].id, self.plan.shards).0) == shard;
        let connection = (master, self.lines[at][master].connection);
        match own {
            true => self.begin_session(at, connection),
            false if self.routes[at].own.is_some() => self.agent(at, AgentEvent::Led { shard: ShardId(shard as u16) }),
            false => Ok(()),
        }
    }

    /// An agent hears that a master does not lead its own shard, and of which term it knows.
    fn told_elsewhere(&mut self, at: usize, shard: usize, (term, master): (u64, usize)) -> Verdict {
        let (last, leader) = self.routes[at].known[shard].unwrap_or_default();
        // What a master said of a term before its own was overtaken, as only wild seeds do.
        let over = leader.is_some_and(|leader| leader == master && term >= last || term > last);
        self.routes[at].known[shard] = Some((term.max(last), leader.filter(|_| !over)));
        if !over {
            return Ok(());
        }
        self.routes[at].own = None;
        self.agent(at, AgentEvent::Unled { shard: ShardId(shard as u16) })
    }

    fn begin_session(&mut self, at: usize, connection: (usize, u64)) -> Verdict {
        self.end_session(at)?;
        self.routes[at].own = Some(connection);
        self.agent(at, AgentEvent::Connected { shards: self.plan.shards })?;
        for shard in 0..self.plan.shards {
            if self.routes[at].known[usize::from(shard)].is_some_and(|(_, leader)| leader.is_some()) {
                self.agent(at, AgentEvent::Led { shard: ShardId(shard) })?;
            }
        }
        Ok(())
    }

    fn end_session(&mut self, at: usize) -> Verdict {
        if self.routes[at].own.take().is_some() { self.agent(at, AgentEvent::Disconnected) } else { Ok(()) }
    }

    pub(crate) fn start_agent(&mut self, at: usize) -> Verdict {
        if self.machines[at].ledger.is_some() {
            return Ok(());
        }
        self.agent_timers[at] = None;
        self.routes[at] = Route::new(&self.plan);
        self.machines[at].start(self.now, &mut self.random);
        let wishes = self.machines[at].drain(self.now, &mut self.random);
        self.grant(at, wishes)?;
        let again = self.machines[at].start_again(self.now, &mut self.random);
        self.grant(at, again)?;
        (0..self.masters.len()).for_each(|master| self.queue.push(self.now + 1, Happening::Connect(at, master)));
        self.begin_measuring(at);
        self.check.recovered(&self.machines[at])
    }

    pub(crate) fn connect(&mut self, at: usize, master: usize) -> Verdict {
        if self.lines[at][master].up || self.machines[at].ledger.is_none() {
            return Ok(());
        }
        let runs = self.masters[master].up && self.masters[master].stopped_until <= self.now;
        if !runs || self.lines[at][master].cut_until() > self.now {
            let wait = self.random.between(100, 1_000);
            self.queue.push(self.now + wait, Happening::Connect(at, master));
            return Ok(());
        }
        if self.machines[at].gone {
            self.turn_away(at);
            return Ok(());
        }
        self.lines[at][master].connect(self.now);
        let seats = self.masters[master].seats.iter_mut().enumerate();
        let led = |(shard, seat): (usize, &mut Option<Seat>)| {
            let seat = seat.as_mut()?;
            seat.untold.remove(&at);
            Some((shard, seat.term))
        };
        let leads: Vec<(usize, u64)> = seats.filter_map(led).collect();
        leads.into_iter().for_each(|(shard, term)| self.say_leading_down(at, master, shard, term));
        (0..usize::from(self.plan.shards)).for_each(|shard| self.say_elsewhere_down(at, master, shard));
        Ok(())
    }

    /// All connections of an agent are gone.
    pub(crate) fn break_lines(&mut self, at: usize) {
        (0..self.masters.len()).for_each(|master| self.break_line(at, master));
    }

    /// A connection is gone; its ends notice at different times, and the agent tries again.
    pub(crate) fn break_line(&mut self, at: usize, master: usize) {
        let line = &mut self.lines[at][master];
        if !line.up {
            return;
        }
        line.up = false;
        let connection = line.connection;
        line.connection += 1; // What is on its way never arrives.
        for way in [Way::Up, Way::Down] {
            let notice = if self.random.chance(500) { 1 } else { self.random.between(1, IDLE_MS) };
            self.queue.push(self.now + notice, Happening::Broken(at, master, connection, way));
        }
    }

    pub(crate) fn broken(&mut self, at: usize, master: usize, connection: u64, way: Way) -> Verdict {
        let newer = self.lines[at][master].up || self.lines[at][master].connection != connection + 1;
        match way {
            Way::Up if self.masters[master].up && !newer => {
                let agent = self.machines[at].id;
                let shard = shard_of_agent(agent, self.plan.shards);
                self.tell(master, shard, Event::Disconnected { agent })
            }
            Way::Down if self.machines[at].ledger.is_some() && !newer => {
                self.queue.push(self.now + 1, Happening::Connect(at, master));
                let over = self.routes[at].own.is_some_and(|own| own == (master, connection));
                if over { self.end_session(at) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    /// An agent that is gone for good hears it: it ends with all its tasks, and the machine joins as another some time later.
    pub(crate) fn turn_away(&mut self, at: usize) {
        self.break_lines(at);
        Machine::leave(&mut self.machines[at], &mut self.random);
        let wait = self.random.wait(5_000);
        self.queue.push(self.now + wait, Happening::StartAgent(at));
    }
}
