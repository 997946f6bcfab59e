//! What breaks, what starts again, and when all is well again.

use crate::network::{IDLE_MS, Way};
use crate::plan::Bug;
use crate::world::{Happening, World};
use master::shard::{Event, PeerMessage, Request};
use protocol::message::shard_of_agent;
use protocol::{RequestId, ShardId, Time};

/// From the moment when nothing breaks any more until all jobs are stopped, on top of the time after which tasks are replaced.
const CALM_MS: u64 = 40_000;
/// The mean time between two submissions of what was never answered, when all is well.
const RETRY_MS: u64 = 500;

/// Nobody waits for an operator's answer.
const OPERATOR: RequestId = RequestId(u64::MAX - 1);

impl World {
    /// A client wants something; nobody is asked while the master is down.
    pub(crate) fn client(&mut self) -> Result<(), String> {
        if self.draining {
            return Ok(());
        }
        let mean = if self.healed { RETRY_MS } else { self.plan.request_ms };
        let wait = self.random.wait(mean);
        self.queue.push(self.now + wait, Happening::Client);
        if !self.door.up {
            return Ok(());
        }
        if let Some(about) = self.clients.unanswered().filter(|_| self.healed || self.random.chance(300)) {
            let (id, shard, request) = self.clients.submit(about);
            return self.tell(shard, Event::Request { id, request });
        }
        if self.healed {
            return Ok(());
        }
        let (id, shard, request) = self.clients.wish(&mut self.random);
        self.tell(shard, Event::Request { id, request })
    }

    /// Something breaks.
    pub(crate) fn fault(&mut self) -> Result<(), String> {
        if self.healed {
            return Ok(());
        }
        let wait = self.random.wait(self.plan.fault_ms);
        self.queue.push(self.now + wait, Happening::Fault);
        let at = self.random.below(self.machines.len() as u64) as usize;
        let replace = self.plan.replace_after_ms;
        match self.random.below(9) {
            _ if self.random.chance(40) => self.let_go(at)?,
            _ if self.plan.fenced && self.random.chance(100) => self.answer_late(at),
            0 => self.kill_master()?,
            1 => self.kill_agent(at, 3_000),
            2 => self.power_off(at),
            3 => self.cut(at, &[Way::Up], 3_000),
            4 => self.cut(at, &[Way::Down], 3_000),
            5 => self.cut(at, &[Way::Up, Way::Down], IDLE_MS * 2),
            6 => self.break_line(at),
            7 => {
                self.kill_master()?;
                self.kill_agent(at, 3_000);
            }
            _ if self.random.chance(500) => self.kill_agent(at, replace * 2),
            _ => self.cut(at, &[Way::Up, Way::Down], replace * 2),
        }
        Ok(())
    }

    /// An operator says that an agent never comes back.
    fn let_go(&mut self, at: usize) -> Result<(), String> {
        if !self.door.up {
            return Ok(());
        }
        let agent = self.machines[at].id;
        let shard = shard_of_agent(agent, self.plan.shards);
        self.tell(shard, Event::Request { id: OPERATOR, request: Request::Gone { agent } })
    }

    fn kill_master(&mut self) -> Result<(), String> {
        if !self.door.up {
            return Ok(());
        }
        let random = &mut self.random;
        let kept = self.door.kill(|| random.chance(500));
        for (_, entry) in kept {
            self.committed(&entry)?;
        }
        self.clients.hang_up();
        (0..self.machines.len()).for_each(|at| self.break_line(at));
        let wait = self.random.wait(3_000);
        self.queue.push(self.now + wait, Happening::StartMaster);
        Ok(())
    }

    fn kill_agent(&mut self, at: usize, mean: u64) {
        self.machines[at].kill();
        self.break_line(at);
        let wait = self.random.wait(mean);
        self.queue.push(self.now + wait, Happening::StartAgent(at));
    }

    fn power_off(&mut self, at: usize) {
        self.machines[at].power_off();
        self.break_line(at);
        let wait = self.random.wait(10_000);
        self.queue.push(self.now + wait, Happening::StartAgent(at));
    }

    fn cut(&mut self, at: usize, ways: &[Way], mean: u64) {
        let length = self.random.wait(mean);
        ways.iter().for_each(|way| self.lines[at].cut(*way, self.now + length));
        if length >= IDLE_MS {
            self.break_line(at);
        }
    }

    /// The master's process starts: its shards are made from their journals and lead.
    pub(crate) fn start_master(&mut self) -> Result<(), String> {
        if self.door.up {
            return Ok(());
        }
        self.door.start(self.now)?;
        self.check.master_began(self.now, self.machines.iter().map(|machine| machine.id));
        for at in 0..self.door.seats.len() {
            let actions = self.door.collect(at);
            self.act(ShardId(at as u16), actions)?;
            self.after(at);
        }
        if self.plan.bug == Some(Bug::GivesNoTimeout) {
            self.give_all_up()?;
        }
        Ok(())
    }

    /// With the bug: every agent is lost to a new leader.
    fn give_all_up(&mut self) -> Result<(), String> {
        let agents: Vec<_> = self.machines.iter().map(|machine| machine.id).collect();
        let shards = self.plan.shards;
        for (agent, shard) in agents.into_iter().flat_map(|agent| (0..shards).map(move |shard| (agent, ShardId(shard)))) {
            let message = PeerMessage::Lost { agent, gone: false };
            self.tell(shard, Event::Peer { from: shard, message })?;
        }
        Ok(())
    }

    /// Nothing breaks from now on, and everything runs.
    pub(crate) fn heal(&mut self) -> Result<(), String> {
        self.healed = true;
        self.lines.iter_mut().for_each(crate::network::Line::heal);
        self.start_master()?;
        for at in 0..self.machines.len() {
            self.queue.push(self.now + 1, Happening::StartAgent(at));
            self.queue.push(self.now + 2, Happening::Connect(at));
        }
        let calm: Time = self.now + self.plan.replace_after_ms + CALM_MS;
        self.queue.push(calm, Happening::Drain);
        Ok(())
    }
}
