//! What clients do, what breaks, what starts again, and when all is well again.

use crate::network::{IDLE_MS, Way};
use crate::world::{Happening, Verdict, World};
use master::shard::drains::ModeWish;
use master::shard::maintenance::{Window, WindowsRequest};
use master::shard::{Event, Request};
use protocol::message::shard_of_agent;
use protocol::{AgentId, RequestId, ShardId, Time};

/// From the moment when nothing breaks any more until all jobs are stopped, on top of the time after which tasks are replaced.
const CALM_MS: u64 = 40_000;
/// The mean time between two submissions of what was never answered, when all is well.
const RETRY_MS: u64 = 500;
/// Nobody waits for an operator's answer.
const OPERATOR: RequestId = RequestId(u64::MAX - 1);

impl World {
    /// A client wants something, of whichever master it comes upon.
    pub(crate) fn client(&mut self) -> Verdict {
        if self.draining {
            return Ok(());
        }
        let again = self.healed || self.clients.unanswered().is_some();
        let mean = if again { RETRY_MS.min(self.plan.request_ms) } else { self.plan.request_ms };
        let wait = self.random.wait(mean);
        self.queue.push(self.now + wait, Happening::Client);
        let by = self.random.below(self.masters.len() as u64) as usize;
        if !self.runs(by) {
            return Ok(());
        }
        if let Some(about) = self.clients.unanswered() {
            let (id, shard, request) = self.clients.submit(about);
            return self.ask(by, id, shard, request);
        }
        if self.healed {
            return Ok(());
        }
        let (id, shard, request) = self.clients.wish(&mut self.random);
        self.ask(by, id, shard, request)
    }

    pub(crate) fn runs(&self, master: usize) -> bool {
        self.masters[master].up && self.masters[master].stopped_until <= self.now
    }

    /// A request to one master, which passes it on to whom it holds for the leader.
    fn ask(&mut self, by: usize, id: RequestId, shard: ShardId, request: Request) -> Verdict {
        let index = usize::from(shard.0);
        let own = self.masters[by].seats[index].is_some().then_some(by);
        let leader = own.or(self.masters[by].known[index].map(|(_, leader)| leader)).filter(|leader| self.runs(*leader));
        let reached = leader.filter(|leader| *leader == by || self.links[&(by.min(*leader), by.max(*leader))].up);
        let Some(leader) = reached.filter(|leader| self.masters[*leader].seats[index].is_some()) else {
            self.clients.unheard(id);
            return Ok(());
        };
        self.clients.reached(id, (by, leader), shard);
        self.tell(leader, shard, Event::Request { id, request })
    }

    /// Something breaks.
    pub(crate) fn fault(&mut self) -> Verdict {
        if self.healed {
            return Ok(());
        }
        let wait = self.random.wait(self.plan.fault_ms);
        self.queue.push(self.now + wait, Happening::Fault);
        let at = self.random.below(self.machines.len() as u64) as usize;
        let master = self.random.below(self.masters.len() as u64) as usize;
        if self.masters.len() > 1 && self.random.chance(550) {
            return self.fault_of_masters(master);
        }
        let replace = self.plan.replace_after_ms;
        let other = (master + 1) % self.masters.len();
        match self.random.below(9) {
            _ if self.random.chance(40) => self.let_go(at)?,
            _ if (self.plan.frameworks > 0 || self.plan.systems && !self.plan.rolls) && self.random.chance(150) => self.set_mode(at)?,
            _ if self.plan.frameworks > 0 && self.random.chance(60) => self.maintain(at)?,
            _ if self.plan.limits && self.random.chance(200) => {
                let request = crate::limits::wish(&mut self.random);
                self.ask_home(request)?;
            }
            _ if self.plan.reserves && self.random.chance(250) => {
                let agent = self.machines[at].id;
                let request = crate::kept::wish(&mut self.random, agent);
                self.ask_about(agent, request)?;
            }
            _ if self.plan.fenced && self.random.chance(100) => self.answer_late(at),
            0 | 7 if self.plan.links_only && other != master => self.break_link(master, other),
            _ if self.random.chance(60) && !self.plan.links_only => self.stop_process(master, 3_000),
            0 => self.kill_master(master, 3_000),
            1 => self.kill_agent(at, 3_000),
            2 => self.power_off(at),
            3 => self.cut(at, &[Way::Up], 3_000),
            4 => self.cut(at, &[Way::Down], 3_000),
            5 => self.cut(at, &[Way::Up, Way::Down], IDLE_MS * 2),
            6 => self.break_line(at, master),
            7 => {
                self.kill_master(master, 3_000);
                self.kill_agent(at, 3_000);
            }
            _ if self.random.chance(500) => self.kill_agent(at, replace * 2),
            _ => self.cut(at, &[Way::Up, Way::Down], replace * 2),
        }
        Ok(())
    }

    fn fault_of_masters(&mut self, at: usize) -> Verdict {
        let count = self.masters.len();
        let other = (at + 1 + self.random.below(count as u64 - 1) as usize) % count;
        let length = self.random.wait([300, 3_000, 20_000][self.random.clone().below(3) as usize]);
        match self.random.below(13) {
            // Others may lead on, and still no agent reaches this one for longer than after which a single one's tasks are replaced.
            _ if self.plan.links_only && self.random.clone().chance(60) => {
                (0..self.machines.len())
                    .for_each(|machine| self.cut_one(machine, at, &[Way::Up, Way::Down], self.plan.replace_after_ms * 2));
            }
            _ if self.plan.links_only => self.break_link(at, other),
            0 => self.kill_master(at, 3_000),
            1 => (0..count).for_each(|at| self.kill_master(at, 5_000)),
            2 => self.lose_disk(at),
            3 => self.stop_process(at, 300),
            4 => self.stop_process(at, 10_000),
            5 => self.cut_link(at, other, true, length),
            6 => self.cut_link(at, other, false, length),
            7 => (0..count).filter(|to| *to != at).for_each(|to| self.cut_link(at, to, true, length)),
            8 => (0..count).filter(|to| *to != at).for_each(|to| self.cut_link(at, to, false, length)),
            9 => self.break_link(at, other),
            10 => self.masters[at].slow_until = self.now + length,
            11 => (0..self.machines.len()).for_each(|machine| self.cut_one(machine, at, &[Way::Up, Way::Down], length)),
            _ => return self.hand_over(at),
        }
        Ok(())
    }

    /// A master hands what it leads to others, in good order.
    fn hand_over(&mut self, at: usize) -> Verdict {
        if !self.runs(at) {
            return Ok(());
        }
        let shown = self.masters[at].clock.show(self.now);
        for shard in 0..usize::from(self.plan.shards) {
            if !self.random.chance(700) {
                continue;
            }
            if self.plan.real_groups {
                self.engine_hands_over(at, shard)?;
            } else {
                self.masters[at].replicas[shard].hand_over(shown);
                self.settle(at, shard)?;
            }
        }
        Ok(())
    }

    /// An operator says whether an agent is given tasks.
    fn set_mode(&mut self, at: usize) -> Verdict {
        let mode = match self.random.below(4) {
            0 => ModeWish::Deactivate,
            1 => ModeWish::Drain { grace_ms: self.random.below(2_000), wait_ms: self.random.below(30_000), gone: false },
            _ => ModeWish::Activate,
        };
        self.ask_mode(at, mode)
    }

    /// An operator schedules a short window of maintenance, or cancels one.
    fn maintain(&mut self, at: usize) -> Verdict {
        let request = if self.random.chance(300) {
            WindowsRequest::Cancel(self.random.below(20))
        } else {
            let from = self.now + self.random.below(10_000);
            let until = Some(from + 1 + self.random.below(20_000));
            let (agents, grace_ms) = ([self.machines[at].id].into(), self.random.below(2_000));
            WindowsRequest::Add(Window { number: 0, agents, from, until, grace_ms, note: String::new() })
        };
        self.ask_home(Request::Windows(request))
    }

    /// An operator asks something of shard 0, if somebody leads it.
    pub(crate) fn ask_home(&mut self, request: Request) -> Verdict {
        match self.leader(0) {
            Some(leader) => self.tell(leader, ShardId(0), Event::Request { id: OPERATOR, request }),
            None => Ok(()),
        }
    }

    pub(crate) fn ask_mode(&mut self, at: usize, mode: ModeWish) -> Verdict {
        let agent = self.machines[at].id;
        self.ask_about(agent, Request::SetMode { agent, mode })
    }

    /// An operator asks something of an agent's shard, if somebody leads it.
    pub(crate) fn ask_about(&mut self, agent: AgentId, request: Request) -> Verdict {
        let shard = shard_of_agent(agent, self.plan.shards);
        match self.leader(usize::from(shard.0)) {
            Some(leader) => self.tell(leader, shard, Event::Request { id: OPERATOR, request }),
            None => Ok(()),
        }
    }

    /// An operator says that an agent never comes back.
    fn let_go(&mut self, at: usize) -> Verdict {
        let agent = self.machines[at].id;
        self.ask_about(agent, Request::Gone { agent })
    }

    fn kill_master(&mut self, at: usize, mean: u64) {
        self.calm_since = self.calm_since.max(self.now);
        if !self.masters[at].up {
            return;
        }
        self.trace(|| format!("m{at} is killed"));
        self.masters[at].kill(&mut self.random);
        self.clients.hang_up(|asked| asked.by.0 == at || asked.by.1 == at);
        self.frameworks.hang_up(|master, _| master == at);
        (0..self.machines.len()).for_each(|machine| self.break_line(machine, at));
        (0..self.masters.len()).filter(|to| *to != at).for_each(|to| self.break_link(at, to));
        let wait = self.random.wait(mean);
        self.queue.push(self.now + wait, Happening::StartMaster(at));
    }

    /// A master's disk is lost and it comes back with an empty one: where all others still have theirs.
    fn lose_disk(&mut self, at: usize) {
        let lacks = self.masters.iter().flat_map(|master| &master.replicas).any(|replica| !replica.voter);
        if lacks || self.plan.real_groups && !self.engines_are_whole() {
            return;
        }
        self.trace(|| format!("m{at} loses its disk"));
        self.kill_master(at, 3_000);
        if !self.masters[at].up {
            self.masters[at].replicas.iter_mut().for_each(crate::raft::Replica::lose_disk);
            self.engine_loses_disk(at);
        }
    }

    /// A master's process is stopped for a while, as by a signal, and then goes on as if nothing had been.
    fn stop_process(&mut self, at: usize, mean: u64) {
        let length = self.random.wait(mean);
        self.trace(|| format!("m{at} is stopped for {length} ms"));
        if self.masters[at].up {
            let until = self.masters[at].stopped_until.max(self.now + length);
            self.masters[at].stopped_until = until;
            self.calm_since = self.calm_since.max(until);
            self.queue.push(self.now + IDLE_MS, Happening::Unanswered(at, self.masters[at].life));
        }
    }

    /// Whoever is connected to a stopped master gives it up.
    pub(crate) fn unanswered(&mut self, at: usize) -> Verdict {
        if self.masters[at].up && self.masters[at].stopped_until > self.now {
            (0..self.machines.len()).for_each(|machine| self.break_line(machine, at));
            (0..self.masters.len()).filter(|to| *to != at).for_each(|to| self.break_link(at, to));
            self.clients.hang_up(|asked| asked.by.0 == at || asked.by.1 == at);
            self.frameworks.hang_up(|master, _| master == at);
        }
        Ok(())
    }

    fn kill_agent(&mut self, at: usize, mean: u64) {
        self.machines[at].kill();
        self.break_lines(at);
        let wait = self.random.wait(mean);
        self.queue.push(self.now + wait, Happening::StartAgent(at));
    }

    fn power_off(&mut self, at: usize) {
        self.machines[at].power_off();
        self.break_lines(at);
        let wait = self.random.wait(10_000);
        self.queue.push(self.now + wait, Happening::StartAgent(at));
    }

    /// An agent cannot be reached by any master; sometimes by one of them only.
    fn cut(&mut self, at: usize, ways: &[Way], mean: u64) {
        let length = self.random.wait(mean);
        let count = self.masters.len();
        let one = (count > 1 && self.random.chance(300)).then(|| self.random.below(count as u64) as usize);
        (0..count).filter(|master| one.is_none_or(|one| one == *master)).for_each(|master| self.cut_one(at, master, ways, length));
    }

    fn cut_one(&mut self, at: usize, master: usize, ways: &[Way], length: u64) {
        ways.iter().for_each(|way| self.lines[at][master].cut(*way, self.now + length));
        if length >= IDLE_MS {
            self.break_line(at, master);
        }
    }

    /// A master's process starts, with what is on its disk.
    pub(crate) fn start_master(&mut self, at: usize) -> Verdict {
        if self.masters[at].up {
            return Ok(());
        }
        let founds = at == 0 && self.masters[at].life == 0;
        let started = self.masters[at].start(self.now, founds, &mut self.random);
        started.map_err(|error| format!("G21: master {at} cannot start: {error}"))?;
        (0..self.masters.len()).filter(|to| *to != at).for_each(|to| {
            self.queue.push(self.now + 1, Happening::Link(at.min(to), at.max(to)));
        });
        if self.plan.real_groups {
            return Ok(());
        }
        (0..usize::from(self.plan.shards)).try_for_each(|shard| self.settle(at, shard))
    }

    /// Nothing breaks from now on, and everything runs.
    pub(crate) fn heal(&mut self) -> Verdict {
        self.healed = true;
        self.lines.iter_mut().flatten().for_each(crate::network::Line::heal);
        self.links.values_mut().for_each(crate::network::Line::heal);
        for at in 0..self.masters.len() {
            (self.masters[at].stopped_until, self.masters[at].slow_until) = (self.now, self.now);
            self.masters[at].slow = false;
            self.start_master(at)?;
        }
        let links: Vec<(usize, usize)> = self.links.keys().copied().collect();
        links.into_iter().for_each(|(a, b)| self.queue.push(self.now + 2, Happening::Link(a, b)));
        for at in 0..self.machines.len() {
            self.queue.push(self.now + 1, Happening::StartAgent(at));
            (0..self.masters.len()).for_each(|master| self.queue.push(self.now + 2, Happening::Connect(at, master)));
        }
        self.calm_since = self.now;
        self.queue.push(self.now + RETRY_MS, Happening::Client);
        let calm: Time = self.now + self.plan.replace_after_ms + CALM_MS;
        self.queue.push(calm, Happening::Drain);
        Ok(())
    }
}
