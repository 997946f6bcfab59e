//! The whole cluster in one thread: what happens next, to whom, and what follows. Decides nothing itself but what the seed says. What
//! replicas do stands in `groups.rs`, what masters say to each other in `peers.rs`, agents and their connections in `agents.rs`, clients and
//! all that breaks in `trouble.rs`.

use crate::check::Check;
use crate::client::Clients;
use crate::door::Master;
use crate::engine;
use crate::frameworks::Frameworks;
use crate::kept::Kept;
use crate::limits::{self, Limits};
use crate::machine::Machine;
use crate::neighbours::Beside;
use crate::network::{Line, Way};
use crate::peers::{Leading, Letter};
use crate::plan::Plan;
use crate::queue::Queue;
use crate::raft::Message;
use crate::random::Random;
use crate::rolls::Rolls;
use agent::ledger::event::{CheckId, Event as AgentEvent, Form, PrepareError};
use master::shard::drains::ModeWish;
use master::shard::{Event, Request};
use protocol::message::{ToAgent, ToShard};
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
/// After so long without trouble among several masters everything is done in time.
const CALM_MS: u64 = 15_000;

/// The same after a stop of the only master.
const STOPPED_CALM_MS: u64 = 5_000;
/// The most that a shard may be without a leader though all is well (G7): while one hands it to another. And how often that is looked at.
const UNLED_MS: u64 = 3_000;
const UNLED_LOOK_MS: u64 = 100;

/// Something that happens. A master is named by its number, and its life where what was on its way dies with its process.
pub enum Happening {
    /// An agent without a connection to a master tries to get one.
    Connect(usize, usize),
    /// One end of a connection of an agent to a master notices that it is gone.
    Broken(usize, usize, u64, Way),
    /// A message from an agent to a master arrives.
    Up(usize, usize, u64, Box<ToShard>),
    /// A message from a master to an agent arrives.
    Down(usize, usize, u64, Box<ToAgent>),
    /// It is time for a master that leads a shard in this term to tell a machine's agent so: machine, master, shard, term.
    Untold(usize, usize, usize, u64),
    /// It is time for a master that heard who leads a shard to tell a machine's agent, whose own it is: machine, master, shard.
    Elsewhere(usize, usize, usize),
    /// Two masters without a connection try to get one.
    Link(usize, usize),
    /// A master hears what another one leads.
    Leads(Box<Leading>),
    /// A message between shards arrives.
    Peer(Box<Letter>),
    /// A message from replica to replica arrives: from, to, of which shard.
    Raft(usize, usize, usize, Box<Message>),
    /// The disk of a master's life has the log of a shard up to there, as it was when that entry had this term.
    Written(usize, u64, usize, u64, u64),
    /// A replica's timer.
    RaftTimer(usize, u64, usize, Time),
    /// Something happens to the real groups of a master.
    Engine(usize, Box<engine::Event>),
    /// The timer of a leader's shard: its master, term and shard.
    ShardTimer(usize, u64, usize, Time),
    /// A stopped master has not answered for long: whoever is connected to it notices.
    Unanswered(usize, u64),
    /// An agent's timer.
    AgentTimer(usize, u64, Time),
    /// An agent has measured what its tasks use.
    Measured(usize, u64),
    /// A question of whether a task is well is answered.
    Answered(usize, u64, CheckId, bool),
    /// A fetch is done.
    Fetched(usize, u64, Digest, Form),
    /// An attempt's own end, in a machine's boot.
    Ends(usize, u64, AttemptId),
    /// A framework does something.
    Framework(usize),
    /// What an agent says is held back, until long after this moment.
    Unheard(usize, Time),
    /// Nothing passes between an agent and the masters.
    Silent(usize),
    /// A client wants something.
    Client,
    /// Something breaks.
    Fault,
    /// A master's process starts.
    StartMaster(usize),
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

impl Happening {
    /// The master whose process has to run for it.
    const fn master(&self) -> Option<usize> {
        match self {
            Self::Broken(_, master, _, Way::Up)
            | Self::Up(_, master, ..)
            | Self::Raft(_, master, ..)
            | Self::Written(master, ..)
            | Self::RaftTimer(master, ..)
            | Self::Engine(master, _)
            | Self::ShardTimer(master, ..) => Some(*master),
            Self::Leads(leading) => Some(leading.to),
            Self::Peer(letter) => Some(letter.masters.1),
            _ => None,
        }
    }
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
    /// Frameworks beside the built-in one.
    pub frameworks: Frameworks,
    /// What roles may hold.
    pub limits: Limits,
    pub kept: Kept,
    /// What is where, as far as jobs say something of each other.
    pub beside: Beside,
    /// What is seen of services that change their versions.
    pub rolls: Rolls,
    pub(crate) random: Random,
    pub(crate) queue: Queue,
    pub(crate) masters: Vec<Master>,
    pub(crate) machines: Vec<Machine>,
    /// From each agent to each master.
    pub(crate) lines: Vec<Vec<Line>>,
    /// From each master to each with a higher number.
    pub(crate) links: BTreeMap<(usize, usize), Line>,
    /// Who leads each shard as far as each agent knows, and over which connection it has its session.
    pub(crate) routes: Vec<crate::agents::Route>,
    pub(crate) healed: bool,
    pub(crate) draining: bool,
    /// Since when nothing is broken among the masters.
    pub(crate) calm_since: Time,
    /// When it was first seen that a shard has no leader though all is well, where one has none.
    unled_since: Option<Time>,
    /// What is known of the real groups.
    pub(crate) known: engine::Known,
    /// Of all that happened: equal where the same did.
    pub digest: u64,
    pub(crate) pairs: BTreeMap<(usize, ShardId, ShardId), Time>,
    pub(crate) agent_timers: Vec<Option<Time>>,
    /// What happened so far.
    pub steps: u64,
    /// How often a shard got a leader.
    pub leaders: u64,
    /// From when on what happens is written to standard error.
    pub trace_from: Option<Time>,
}

/// What a step leads to: the promise that it breaks, or nothing.
pub type Verdict = Result<(), String>;

impl World {
    /// A cluster of which nothing runs yet.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let mut random = Random::new(plan.seed);
        let machines: Vec<Machine> = (0..plan.agents).map(|number| Machine::new(&plan, number, &mut random)).collect();
        let mut queue = Queue::default();
        (0..plan.masters).for_each(|master| queue.push(Time(1), Happening::StartMaster(master)));
        (0..plan.agents).for_each(|at| queue.push(Time(random.between(1, 2_000)), Happening::StartAgent(at)));
        queue.push(Time(10), Happening::Client);
        (0..plan.frameworks).for_each(|at| queue.push(Time(1_000), Happening::Framework(at)));
        queue.push(Time(5_000), Happening::Fault);
        queue.push(Time(LOOK_MS), Happening::Look);
        queue.push(Time(plan.trouble_ms), Happening::Heal);
        let pairs = (0..plan.masters).flat_map(|a| (a + 1..plan.masters).map(move |b| (a, b)));
        Self {
            now: Time::ZERO,
            check: Check::new(&plan),
            clients: Clients::new(&plan),
            frameworks: Frameworks::new(plan.frameworks, plan.bug),
            limits: Limits::new(plan.shards),
            kept: Kept::default(),
            beside: Beside::new(&plan),
            rolls: Rolls::new(&plan),
            masters: (0..plan.masters).map(|me| Master::new(&plan, me, &mut random)).collect(),
            random,
            queue,
            lines: machines.iter().map(|_| (0..plan.masters).map(|_| Line::to_agent(&plan)).collect()).collect(),
            links: pairs.map(|pair| (pair, Line::between_masters())).collect(),
            routes: machines.iter().map(|_| crate::agents::Route::new(&plan)).collect(),
            agent_timers: vec![None; machines.len()],
            machines,
            healed: false,
            draining: false,
            calm_since: Time::ZERO,
            unled_since: None,
            known: engine::Known::default(),
            digest: 0,
            pairs: BTreeMap::new(),
            steps: 0,
            leaders: 0,
            trace_from: None,
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
            if let Some(until) = happening.master().map(|at| self.masters[at].stopped_until).filter(|until| *until > self.now) {
                self.queue.push(until, happening);
                continue;
            }
            if matches!(happening, Happening::End) {
                let over = self.all_are_led(Happening::End).and_then(|led| if led { self.finish().map(|()| true) } else { Ok(false) });
                match over.map_err(|broken| format!("at {}, the end: {broken}", self.now))? {
                    true => return Ok(()),
                    false => continue,
                }
            }
            self.mix(now.0);
            let happened = self
                .happen(happening)
                .and_then(|()| self.settle_engines())
                .and_then(|()| self.check.after_each_event(self.now, self.calm()));
            happened.map_err(|broken| format!("at {}: {broken}", self.now))?;
        }
        Err("nothing happens any more".into())
    }

    /// Takes something that happened into the digest.
    pub(crate) const fn mix(&mut self, what: u64) {
        self.digest = (self.digest.rotate_left(5) ^ what).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    /// Since when everything is to be done in time, where it is.
    fn calm(&self) -> Option<Time> {
        match &self.masters[..] {
            [master] => {
                let well = self.now.since(master.stopped_until) > STOPPED_CALM_MS && master.seats.iter().all(Option::is_some);
                (master.up && well).then_some(master.stopped_until)
            }
            _ => (self.now.since(self.calm_since) > CALM_MS).then_some(self.calm_since),
        }
    }

    /// Says what happens, to whoever looks for the reason of something.
    pub(crate) fn trace(&self, what: impl FnOnce() -> String) {
        if self.trace_from.is_some_and(|from| from <= self.now) {
            eprintln!("{} {}", self.now, what());
        }
    }

    fn finish(&mut self) -> Verdict {
        self.check.settled(&self.clients, &self.machines)?;
        self.frameworks.settled()?;
        self.compare(true)?;
        let live = self.check.live();
        if live > 0 {
            return Err(format!("G3: {live} attempts of stopped jobs have no end on record"));
        }
        for shard in 0..usize::from(self.plan.shards) {
            let leader = self.leader(shard).ok_or("G7: a shard has no leader after all is well")?;
            let seat = self.masters[leader].seats[shard].as_mut().ok_or("a leader has a seat")?;
            self.check.nothing_lost(self.now, &self.clients, ShardId(shard as u16), seat)?;
            seat.nothing_booked(self.now)?;
        }
        Ok(())
    }

    fn happen(&mut self, happening: Happening) -> Verdict {
        match happening {
            Happening::Connect(at, master) => self.connect(at, master),
            Happening::Broken(at, master, connection, way) => self.broken(at, master, connection, way),
            Happening::Up(at, master, connection, message) => self.up(at, master, connection, *message),
            Happening::Down(at, master, connection, message) => self.down(at, master, connection, *message),
            Happening::Untold(at, master, shard, term) => {
                self.tell_untold(at, master, shard, Some(term));
                Ok(())
            }
            Happening::Elsewhere(at, master, shard) => {
                self.say_elsewhere_down(at, master, shard);
                Ok(())
            }
            Happening::Link(a, b) => self.link(a, b),
            Happening::Leads(leading) => self.told_leads(&leading),
            Happening::Peer(letter) => self.peer(*letter),
            Happening::Raft(from, to, shard, message) => self.raft(from, to, shard, *message),
            Happening::Written(master, life, shard, index, term) if life == self.masters[master].life => {
                self.written(master, shard, index, term)
            }
            Happening::RaftTimer(master, life, shard, at) if life == self.masters[master].life => self.raft_timer(master, shard, at),
            Happening::Engine(master, event) => self.engine(master, *event),
            Happening::ShardTimer(master, term, shard, timer) => self.shard_timer(master, term, shard, timer),
            Happening::Unanswered(master, life) if life == self.masters[master].life => self.unanswered(master),
            Happening::AgentTimer(at, life, timer) if life == self.machines[at].life && self.agent_timers[at] == Some(timer) => {
                self.agent_timers[at] = None;
                self.agent(at, AgentEvent::Tick)
            }
            Happening::Measured(at, life) if life == self.machines[at].life => self.measured(at),
            Happening::Answered(at, life, id, well) if life == self.machines[at].life => self.answered(at, id, well),
            Happening::Fetched(at, life, bundle, form) if life == self.machines[at].life => {
                let result = Machine::fetch(bundle, &mut self.random).or_else(|error| self.forgive(error));
                self.agent(at, AgentEvent::Prepared { bundle, form, result })
            }
            Happening::Ends(at, boot, attempt) if boot == self.machines[at].boot => match self.machines[at].end(self.now, attempt) {
                Some((exit, usage)) => self.agent(at, AgentEvent::Ended { members: vec![(MemberId::first(attempt), exit, usage)] }),
                None => Ok(()),
            },
            Happening::Unheard(at, answered) => {
                self.unheard(at, answered);
                Ok(())
            }
            Happening::Silent(at) => {
                self.silent(at);
                Ok(())
            }
            Happening::Client => self.client(),
            Happening::Framework(at) => self.framework(at),
            Happening::Fault => self.fault(),
            Happening::StartMaster(master) => self.start_master(master),
            Happening::StartAgent(at) => self.start_agent(at),
            Happening::Look => {
                self.queue.push(self.now + LOOK_MS, Happening::Look);
                self.look_for_trouble();
                self.beside.settle(self.now, self.calm_since);
                self.look_at_wards()?;
                self.compare(false)
            }
            Happening::Heal => self.heal(),
            Happening::Drain if self.all_are_led(Happening::Drain)? => self.drain(),
            Happening::Probe if self.all_are_led(Happening::Probe)? => self.probe(),
            _ => Ok(()), // Of a process or machine that is no more.
        }
    }

    /// Each leader's shard, and in the end each replica, is what its group is; `whole`: however long ago that was seen.
    fn compare(&mut self, whole: bool) -> Verdict {
        if self.plan.real_groups {
            return self.look_at_engines(whole);
        }
        for master in self.masters.iter_mut().filter(|master| master.up) {
            for (seat, replica) in master.seats.iter_mut().zip(&master.replicas) {
                let agrees = seat.as_mut().is_none_or(|seat| seat.agrees(&replica.follower, whole));
                if !agrees {
                    return Err(format!("G1: a replica of shard {} differs from its leader", replica.follower.config().id));
                }
                if whole {
                    self.check.hashed(replica.follower.config().id, replica.applied, replica.follower.hash())?;
                }
            }
        }
        Ok(())
    }

    /// Disks are not full for ever.
    fn forgive(&self, error: PrepareError) -> Result<(), PrepareError> {
        if self.healed && matches!(error, PrepareError::Later(_)) { Ok(()) } else { Err(error) }
    }

    /// Stops all jobs, asks for the end of each, and looks after a while whether anything is left.
    fn drain(&mut self) -> Verdict {
        self.draining = true;
        self.judge_devices()?;
        self.judge_healths()?;
        self.judge_systems()?;
        if self.plan.frameworks > 0 || self.plan.systems {
            (0..self.machines.len()).try_for_each(|at| self.ask_mode(at, ModeWish::Activate))?;
        }
        if self.plan.limits {
            limits::none().try_for_each(|request| self.ask_home(request))?;
        }
        for (agent, request) in self.kept.none() {
            self.ask_about(agent, request)?;
        }
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

    /// True where each shard has a leader; where one has none for the moment, this happens a little later.
    fn all_are_led(&mut self, then: Happening) -> Result<bool, String> {
        let Some(shard) = (0..usize::from(self.plan.shards)).find(|shard| self.leader(*shard).is_none()) else {
            self.unled_since = None;
            return Ok(true);
        };
        let since = *self.unled_since.get_or_insert(self.now);
        if self.now.since(since) > UNLED_MS {
            return Err(format!("G7: shard {shard} has had no leader since {since}, though all is well"));
        }
        self.queue.push(self.now + UNLED_LOOK_MS, then);
        Ok(false)
    }

    /// All is well: each of these reaches its leader.
    fn ask_all(&mut self, requests: Vec<(RequestId, ShardId, Request)>) -> Verdict {
        requests.into_iter().try_for_each(|(id, shard, request)| {
            let leader = self.leader(usize::from(shard.0)).ok_or_else(|| format!("G7: {shard:?} has no leader after all is well"))?;
            self.clients.reached(id, (leader, leader), shard);
            self.tell(leader, shard, Event::Request { id, request })
        })
    }
}
