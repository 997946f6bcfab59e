//! The whole cluster in one thread: what happens next, to whom, and what follows. Decides nothing itself but what the seed says.

use crate::check::Check;
use crate::client::Clients;
use crate::door::Door;
use crate::lease;
use crate::machine::{Machine, Wish};
use crate::network::{IDLE_MS, Line, Way};
use crate::plan::{Bug, Plan};
use crate::queue::Queue;
use crate::random::Random;
use agent::ledger::event::PrepareError;
use agent::ledger::event::{Event as AgentEvent, Form};
use master::shard::{Action, Event, PeerMessage, Record, Request};
use protocol::message::{FromAgent, FromMaster, ToAgent, ToShard, shard_of_agent};
use protocol::{AttemptId, Digest, MemberId, RequestId, ShardId, Time};
use std::collections::BTreeMap;

/// The most that one seed may do; beyond it something runs in circles.
const STEPS_MAX: u64 = 40_000_000;
/// How often the invariants that are not seen from single records are looked at, in milliseconds.
const LOOK_MS: u64 = 1_000;
/// From the moment when all jobs are stopped until nothing may be left.
const DRAIN_MS: u64 = 60_000;
/// From a few short tasks for idle machines until they must have ended.
const PROBE_MS: u64 = 20_000;

/// Something that happens.
pub enum Happening {
    /// An agent without a connection tries to get one.
    Connect(usize),
    /// One end of a connection notices that it is gone.
    Broken(usize, u64, Way),
    /// A message from an agent arrives.
    Up(usize, u64, Box<ToShard>),
    /// A message to an agent arrives.
    Down(usize, u64, Box<ToAgent>),
    /// A message between shards of a master's life arrives.
    Peer(u64, ShardId, ShardId, Box<PeerMessage>),
    /// An entry of a shard is on the disk.
    Flushed(u64, usize),
    /// A shard's timer.
    ShardTimer(u64, usize, Time),
    /// An agent's timer.
    AgentTimer(usize, u64, Time),
    /// A fetch is done.
    Fetched(usize, u64, Digest, Form),
    /// An attempt's own end, in a machine's boot.
    Ends(usize, u64, AttemptId),
    /// A client wants something.
    Client,
    /// What an agent says is held back, until long after this moment.
    Unheard(usize, Time),
    /// Nothing passes between an agent and the master.
    Silent(usize),
    /// Something breaks.
    Fault,
    /// The master's process starts.
    StartMaster,
    /// An agent's process starts.
    StartAgent(usize),
    /// The invariants are looked at.
    Look,
    /// Nothing breaks from now on.
    Heal,
    /// Everything is stopped.
    Drain,
    /// A few tasks more, to see that nothing is booked for nobody.
    Probe,
    /// Nothing may be left.
    End,
}

/// The cluster.
pub struct World {
    /// What the seed decided.
    pub plan: Plan,
    /// The moment.
    pub now: Time,
    /// What was seen.
    pub check: Check,
    /// The clients.
    pub clients: Clients,
    pub(crate) random: Random,
    pub(crate) queue: Queue,
    pub(crate) door: Door,
    pub(crate) machines: Vec<Machine>,
    pub(crate) lines: Vec<Line>,
    pub(crate) healed: bool,
    pub(crate) draining: bool,
    pairs: BTreeMap<(ShardId, ShardId), Time>,
    agent_timers: Vec<Option<Time>>,
    /// What happened so far.
    pub steps: u64,
}

type Verdict = Result<(), String>;

impl World {
    /// A cluster of which nothing runs yet.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let mut random = Random::new(plan.seed);
        let machines: Vec<Machine> = (0..plan.agents).map(|number| Machine::new(&plan, number, &mut random)).collect();
        let mut queue = Queue::default();
        queue.push(Time(1), Happening::StartMaster);
        (0..plan.agents).for_each(|at| queue.push(Time(random.between(1, 2_000)), Happening::StartAgent(at)));
        queue.push(Time(10), Happening::Client);
        queue.push(Time(5_000), Happening::Fault);
        queue.push(Time(LOOK_MS), Happening::Look);
        queue.push(Time(plan.trouble_ms), Happening::Heal);
        Self {
            now: Time::ZERO,
            check: Check::new(&plan),
            clients: Clients::new(&plan),
            random,
            queue,
            door: Door::new(&plan),
            lines: machines.iter().map(|_| Line::new(&plan)).collect(),
            agent_timers: vec![None; machines.len()],
            machines,
            healed: false,
            draining: false,
            pairs: BTreeMap::new(),
            steps: 0,
            plan,
        }
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// The promise that was broken, and when.
    pub fn run(&mut self) -> Verdict {
        while let Some((now, happening)) = self.queue.pop() {
            self.now = self.now.max(now);
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return Err(format!("at {}: {STEPS_MAX} steps and no end", self.now));
            }
            if matches!(happening, Happening::End) {
                return self.finish().map_err(|broken| format!("at {}, the end: {broken}", self.now));
            }
            let happened = self.happen(happening).and_then(|()| self.check.after_each_event(self.now, self.door.up));
            happened.map_err(|broken| format!("at {}: {broken}", self.now))?;
        }
        Err("nothing happens any more".into())
    }

    fn finish(&mut self) -> Verdict {
        self.check.settled(&self.clients, &self.machines)?;
        self.check.replicas(&mut self.door, true)?;
        let live = self.check.live();
        if live > 0 {
            return Err(format!("G3: {live} attempts of stopped jobs have no end on record"));
        }
        self.check.nothing_lost(self.now, &self.clients, &mut self.door)?;
        self.check.nothing_booked(self.now, &mut self.door)
    }

    fn happen(&mut self, happening: Happening) -> Verdict {
        match happening {
            Happening::Connect(at) => self.connect(at),
            Happening::Broken(at, connection, way) => self.broken(at, connection, way),
            Happening::Up(at, connection, message) => self.up(at, connection, *message),
            Happening::Down(at, connection, message) => self.down(at, connection, *message),
            Happening::Peer(life, from, to, message) if life == self.door.life && self.door.up => {
                self.tell(to, Event::Peer { from, message: *message })
            }
            Happening::Flushed(life, at) if life == self.door.life && self.door.up => self.flushed(at),
            Happening::ShardTimer(life, at, timer)
                if life == self.door.life && self.door.up && self.door.seats[at].timer == Some(timer) =>
            {
                self.door.seats[at].timer = None;
                self.tell(ShardId(at as u16), Event::Tick)
            }
            Happening::AgentTimer(at, life, timer) if life == self.machines[at].life && self.agent_timers[at] == Some(timer) => {
                self.agent_timers[at] = None;
                self.agent(at, AgentEvent::Tick)
            }
            Happening::Fetched(at, life, bundle, form) if life == self.machines[at].life => {
                let result = Machine::fetch(bundle, &mut self.random).or_else(|error| self.forgive(error));
                self.agent(at, AgentEvent::Prepared { bundle, form, result })
            }
            Happening::Ends(at, boot, attempt) if boot == self.machines[at].boot => match self.machines[at].end(self.now, attempt) {
                Some((exit, usage)) => self.agent(at, AgentEvent::Ended { members: vec![(MemberId::first(attempt), exit, usage)] }),
                None => Ok(()),
            },
            Happening::Client => self.client(),
            Happening::Unheard(at, answered) => {
                self.unheard(at, answered);
                Ok(())
            }
            Happening::Silent(at) => {
                self.silent(at);
                Ok(())
            }
            Happening::Fault => self.fault(),
            Happening::StartMaster => self.start_master(),
            Happening::StartAgent(at) => self.start_agent(at),
            Happening::Look => {
                self.queue.push(self.now + LOOK_MS, Happening::Look);
                self.check.replicas(&mut self.door, false)
            }
            Happening::Heal => self.heal(),
            Happening::Drain => self.drain(),
            Happening::Probe => self.probe(),
            _ => Ok(()), // Of a process or machine that is no more.
        }
    }

    /// Disks are not full for ever.
    fn forgive(&self, error: PrepareError) -> Result<(), PrepareError> {
        if self.healed && matches!(error, PrepareError::Later(_)) { Ok(()) } else { Err(error) }
    }

    /// Something happens to a shard of the living master.
    pub(crate) fn tell(&mut self, shard: ShardId, event: Event) -> Verdict {
        let actions = self.door.handle(self.now, shard, event);
        self.act(shard, actions)?;
        self.after(usize::from(shard.0));
        Ok(())
    }

    /// Sets a shard's timer and sends its entry on its way.
    pub(crate) fn after(&mut self, at: usize) {
        let life = self.door.life;
        let seat = &mut self.door.seats[at];
        if seat.propose() {
            let flush = if self.random.chance(20) { self.random.between(10, 200) } else { self.random.between(0, 2) };
            self.queue.push(self.now + flush, Happening::Flushed(life, at));
        }
        let wanted = seat.shard.poll_timeout().map(|timer| timer.max(self.now));
        if let Some(timer) = wanted.filter(|timer| seat.timer.is_none_or(|set| set > *timer)) {
            seat.timer = Some(timer);
            self.queue.push(timer, Happening::ShardTimer(life, at, timer));
        }
    }

    fn flushed(&mut self, at: usize) -> Verdict {
        let (entry, actions) = self.door.seats[at].flushed(self.plan.bug);
        self.committed(&entry)?;
        self.act(ShardId(at as u16), actions)?;
        self.after(at);
        Ok(())
    }

    /// Records are on the disk: what they say is so.
    pub(crate) fn committed(&mut self, entry: &[Record]) -> Verdict {
        for record in entry {
            self.check.committed(record, &self.machines)?;
            if let Record::AgentGone { agent, .. } = record
                && let Some(at) = self.machines.iter().position(|machine| machine.id == *agent)
            {
                self.machines[at].gone = true;
                if self.lines[at].up {
                    self.turn_away(at);
                }
            }
        }
        Ok(())
    }

    /// An agent that is gone for good hears it: it ends with all its tasks, and the machine joins as another some time later.
    fn turn_away(&mut self, at: usize) {
        self.break_line(at);
        self.machines[at].leave(&mut self.random);
        let wait = self.random.wait(5_000);
        self.queue.push(self.now + wait, Happening::StartAgent(at));
    }

    pub(crate) fn act(&mut self, shard: ShardId, actions: Vec<Action>) -> Verdict {
        for action in actions {
            match action {
                Action::Send { message: FromMaster::Ack { .. }, .. } if self.plan.bug == Some(Bug::NeverAcknowledges) => {}
                Action::Send { agent, mut message } => {
                    if let (FromMaster::Lease { lease_ms }, Some(Bug::ReplacesBeforeLease)) = (&mut message, self.plan.bug) {
                        *lease_ms *= 2;
                    }
                    let Some(at) = self.machines.iter().position(|machine| machine.id == agent) else { continue };
                    let message = ToAgent { shard, message };
                    for time in self.lines[at].send(&mut self.random, self.now, Way::Down, false) {
                        self.queue.push(time, Happening::Down(at, self.lines[at].connection, Box::new(message.clone())));
                    }
                }
                Action::Peer { to, message } => {
                    let last = self.pairs.entry((shard, to)).or_default();
                    *last = (*last).max(self.now + u64::from(self.random.chance(100)));
                    self.queue.push(*last, Happening::Peer(self.door.life, shard, to, Box::new(message)));
                }
                Action::Reply { id, response } => {
                    if let Some((job, submitted)) = self.clients.hear(id, &response)? {
                        self.check.acknowledged(job, submitted)?;
                    }
                }
                Action::Publish(_) => {}
                Action::Disconnect { agent, .. } => {
                    if let Some(at) = self.machines.iter().position(|machine| machine.id == agent) {
                        self.break_line(at);
                    }
                }
            }
        }
        Ok(())
    }

    /// Something happens to an agent that runs.
    pub(crate) fn agent(&mut self, at: usize, event: AgentEvent) -> Verdict {
        let wishes = self.machines[at].handle(self.now, event, &mut self.random);
        self.check.ledger(&self.machines[at])?;
        self.grant(at, wishes)
    }

    pub(crate) fn grant(&mut self, at: usize, wishes: Vec<Wish>) -> Verdict {
        for wish in wishes {
            match wish {
                Wish::Send(message) => {
                    // No stream gives a frame twice, and a report does not say which request it answers: an old one that came again would
                    // be taken for the answer to a new one. All else may come twice.
                    let once = matches!(message.message, FromAgent::Report { .. });
                    for time in self.lines[at].send(&mut self.random, self.now, Way::Up, once) {
                        self.queue.push(time, Happening::Up(at, self.lines[at].connection, message.clone()));
                    }
                }
                Wish::Prepare(bundle, form) => {
                    let wait = self.random.wait(50);
                    self.queue.push(self.now + wait, Happening::Fetched(at, self.machines[at].life, bundle, form));
                }
                Wish::Started(attempts) => {
                    self.check.began(&attempts, &self.machines[at])?;
                    lease::alone(self.now, &self.machines, &attempts)?;
                    let members = attempts.into_iter().map(|(attempt, since)| (MemberId::first(attempt), since)).collect();
                    self.agent(at, AgentEvent::Started { members })?;
                }
                Wish::EndsAt(attempt, time) => self.queue.push(time, Happening::Ends(at, self.machines[at].boot, attempt)),
                Wish::Quit(reason) => return Err(format!("{} was sent away: {reason}", self.machines[at].info.name)),
            }
        }
        let wanted = self.machines[at].timeout().map(|timer| timer.max(self.now));
        if let Some(timer) = wanted.filter(|timer| self.agent_timers[at].is_none_or(|set| set > *timer)) {
            self.agent_timers[at] = Some(timer);
            self.queue.push(timer, Happening::AgentTimer(at, self.machines[at].life, timer));
        }
        Ok(())
    }

    fn up(&mut self, at: usize, connection: u64, message: ToShard) -> Verdict {
        if !self.door.up || self.lines[at].connection != connection {
            return Ok(());
        }
        let agent = self.machines[at].id;
        // A status is for the shard of its task, and a task's end may come late: an agent's sign of life is its beat.
        if matches!(message.message, FromAgent::Register { .. } | FromAgent::Beat { .. }) {
            self.check.heard(self.now, agent);
        }
        self.tell(message.shard, Event::Agent { agent, message: message.message })
    }

    fn down(&mut self, at: usize, connection: u64, message: ToAgent) -> Verdict {
        if self.lines[at].connection != connection {
            return Ok(());
        }
        self.agent(at, AgentEvent::Master { shard: message.shard, message: message.message })
    }

    fn start_agent(&mut self, at: usize) -> Verdict {
        if self.machines[at].ledger.is_some() {
            return Ok(());
        }
        self.agent_timers[at] = None;
        self.machines[at].start(self.now, &mut self.random);
        let wishes = self.machines[at].drain(self.now, &mut self.random);
        self.grant(at, wishes)?;
        let again = self.machines[at].start_again(self.now, &mut self.random);
        self.grant(at, again)?;
        self.queue.push(self.now + 1, Happening::Connect(at));
        self.check.recovered(&self.machines[at])
    }

    fn connect(&mut self, at: usize) -> Verdict {
        if self.lines[at].up || self.machines[at].ledger.is_none() {
            return Ok(());
        }
        if !self.door.up || self.lines[at].cut_until() > self.now {
            let wait = self.random.between(100, 1_000);
            self.queue.push(self.now + wait, Happening::Connect(at));
            return Ok(());
        }
        if self.machines[at].gone {
            self.turn_away(at);
            return Ok(());
        }
        self.lines[at].connect(self.now);
        let shards = self.plan.shards;
        self.agent(at, AgentEvent::Connected { shards })?;
        (0..shards).map(ShardId).try_for_each(|shard| self.agent(at, AgentEvent::Led { shard }))
    }

    /// A connection is gone; its ends notice at different times, and the agent tries again.
    pub(crate) fn break_line(&mut self, at: usize) {
        if !self.lines[at].up {
            return;
        }
        self.lines[at].up = false;
        let connection = self.lines[at].connection;
        self.lines[at].connection += 1; // What is on its way never arrives.
        for way in [Way::Up, Way::Down] {
            let notice = if self.random.chance(500) { 1 } else { self.random.between(1, IDLE_MS) };
            self.queue.push(self.now + notice, Happening::Broken(at, connection, way));
        }
    }

    fn broken(&mut self, at: usize, connection: u64, way: Way) -> Verdict {
        let newer = self.lines[at].up || self.lines[at].connection != connection + 1;
        match way {
            Way::Up if self.door.up && !newer => {
                let agent = self.machines[at].id;
                let shard = shard_of_agent(agent, self.plan.shards);
                self.tell(shard, Event::Disconnected { agent })
            }
            Way::Down if self.machines[at].ledger.is_some() && !newer => {
                self.queue.push(self.now + 1, Happening::Connect(at));
                self.agent(at, AgentEvent::Disconnected)
            }
            _ => Ok(()),
        }
    }

    /// Stops all jobs, asks for the end of each, and looks after a while whether anything is left.
    fn drain(&mut self) -> Verdict {
        self.draining = true;
        let mut requests = self.clients.stop_all();
        requests.extend(self.clients.submit_all());
        self.ask_all(requests)?;
        self.queue.push(self.now + DRAIN_MS, Happening::Probe);
        Ok(())
    }

    /// Nothing runs: what as much as fits on the largest machine must run now.
    fn probe(&mut self) -> Verdict {
        let largest = self.machines.iter().map(|machine| machine.info.capacity.clone()).max_by_key(|capacity| capacity.cpu_milli);
        let requests = self.clients.probe(&largest.expect("there is a machine"));
        self.ask_all(requests)?;
        self.queue.push(self.now + PROBE_MS, Happening::End);
        Ok(())
    }

    fn ask_all(&mut self, requests: Vec<(RequestId, ShardId, Request)>) -> Verdict {
        requests.into_iter().try_for_each(|(id, shard, request)| self.tell(shard, Event::Request { id, request }))
    }
}
