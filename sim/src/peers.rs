//! What masters say to each other for their shards, over connections that break: in order over one connection, lost with it, with the process
//! at either end and with the leader that said it. And the rule that heals that: whoever gets a connection to another master, or hears of a
//! new leader, has each of its shards and each of the other's told `Led`.

use crate::network::{IDLE_MS, Way};
use crate::plan::Bug;
use crate::world::{Happening, Verdict, World};
use master::shard::{Event, PeerMessage};
use protocol::ShardId;

/// How late a master tells an agent at the most that another one leads its shard, in milliseconds.
const TOLD_ELSEWHERE_MS: u64 = 2_000;

/// A message between shards.
pub struct Letter {
    /// From this master to that one.
    pub masters: (usize, usize),
    /// The connection it is on; in one process, its life.
    connection: u64,
    /// The shard that says it.
    pub from: ShardId,
    /// The one that hears it.
    pub to: ShardId,
    /// What is said.
    pub message: PeerMessage,
}

/// A master says what it leads.
pub struct Leading {
    from: usize,
    /// To whom.
    pub to: usize,
    connection: u64,
    /// The shards and their terms.
    shards: Vec<(usize, u64)>,
    /// True where it is the first word over a connection.
    first: bool,
}

const fn pair(a: usize, b: usize) -> (usize, usize) {
    if a < b { (a, b) } else { (b, a) }
}

impl World {
    /// Sends a message of a shard to the leader of another one, as far as its master knows him.
    pub(crate) fn send_peer(&mut self, at: usize, from: ShardId, to: ShardId, message: PeerMessage) {
        let master = &self.masters[at];
        if master.seats[usize::from(to.0)].is_some() {
            let last = self.pairs.entry((at, from, to)).or_default();
            *last = (*last).max(self.now + u64::from(self.random.chance(100)));
            let letter = Letter { masters: (at, at), connection: master.life, from, to, message };
            self.queue.push(*last, Happening::Peer(Box::new(letter)));
        } else if let Some((_, leader)) = master.known[usize::from(to.0)].filter(|(_, leader)| *leader != at) {
            let connection = self.links[&pair(at, leader)].connection;
            self.send_link(at, leader, Happening::Peer(Box::new(Letter { masters: (at, leader), connection, from, to, message })));
        }
    }

    /// Puts something on the connection to another master, if there is one.
    fn send_link(&mut self, from: usize, to: usize, happening: Happening) {
        let way = if from < to { Way::Up } else { Way::Down };
        let line = self.links.get_mut(&pair(from, to)).expect("there is a line between any two masters");
        if let Some(time) = line.send(&mut self.random, self.now, way, true).first() {
            self.queue.push(*time, happening);
        }
    }

    /// Whether a message counts: its connection stands, and as far as the receiver knows its sender leads.
    pub(crate) fn is_heard(&self, letter: &Letter) -> bool {
        let (from, to) = letter.masters;
        let master = &self.masters[to];
        let leads = if from == to {
            master.seats[usize::from(letter.from.0)].is_some()
        } else {
            master.known[usize::from(letter.from.0)].is_some_and(|(_, leader)| leader == from)
        };
        master.up && leads && self.is_connected(from, to, letter.connection)
    }

    fn is_connected(&self, from: usize, to: usize, connection: u64) -> bool {
        if from == to { self.masters[to].life == connection } else { self.links[&pair(from, to)].connection == connection }
    }

    /// `at` leads `shard` from now on, and says so to all masters and agents that it is connected to.
    pub(crate) fn say_leads(&mut self, at: usize, shard: usize, term: u64) {
        for to in (0..self.masters.len()).filter(|to| *to != at) {
            self.say_leading(at, to, vec![(shard, term)], false);
        }
        self.say_leads_down(at, shard, term);
    }

    fn say_leading(&mut self, from: usize, to: usize, shards: Vec<(usize, u64)>, first: bool) {
        let connection = self.links[&pair(from, to)].connection;
        self.send_link(from, to, Happening::Leads(Box::new(Leading { from, to, connection, shards, first })));
    }

    /// A master hears what another one leads.
    pub(crate) fn told_leads(&mut self, leading: &Leading) -> Verdict {
        if !self.masters[leading.to].up || !self.is_connected(leading.from, leading.to, leading.connection) {
            return Ok(());
        }
        for (shard, term) in leading.shards.iter().copied() {
            let before = self.masters[leading.to].known[shard];
            self.learn(leading.to, shard, (term, leading.from))?;
            // With a new connection to a leader that was known before.
            let same = leading.first && before == Some((term, leading.from));
            if same && self.plan.bug != Some(Bug::LeavesOutLed) {
                self.introduce(leading.to, shard)?;
            }
        }
        Ok(())
    }

    /// A master hears who leads a shard; the highest term is right.
    pub(crate) fn learn(&mut self, at: usize, shard: usize, (term, leader): (u64, usize)) -> Verdict {
        let known = &mut self.masters[at].known[shard];
        if known.is_some_and(|(before, _)| before >= term) {
            return Ok(());
        }
        *known = Some((term, leader));
        if leader == at {
            return Ok(());
        }
        for machine in 0..self.machines.len() {
            let wait = self.random.between(1, TOLD_ELSEWHERE_MS);
            self.queue.push(self.now + wait, Happening::Elsewhere(machine, at, shard));
        }
        self.introduce(at, shard)
    }

    /// Every shard that `at` leads is told `Led` by the leader of `shard`, and that leader by each of them.
    fn introduce(&mut self, at: usize, shard: usize) -> Verdict {
        let Some((_, leader)) = self.masters[at].known[shard].filter(|(_, leader)| *leader != at) else { return Ok(()) };
        if !self.links[&pair(at, leader)].up {
            return Ok(()); // It will be done with the connection.
        }
        let theirs = ShardId(shard as u16);
        for mine in (0..self.plan.shards).map(ShardId) {
            if self.masters[at].seats[usize::from(mine.0)].is_some() {
                self.tell(at, mine, Event::Peer { from: theirs, message: PeerMessage::Led })?;
                self.send_peer(at, mine, theirs, PeerMessage::Led);
            }
        }
        Ok(())
    }

    /// Two masters without a connection try to get one; then each says what it leads.
    pub(crate) fn link(&mut self, a: usize, b: usize) -> Verdict {
        let runs = |at: usize| self.masters[at].up && self.masters[at].stopped_until <= self.now;
        let both = runs(a) && runs(b);
        let line = self.links.get_mut(&pair(a, b)).expect("there is a line between any two masters");
        if line.up {
            return Ok(());
        }
        if !both || line.cut_until() > self.now {
            let wait = self.random.between(100, 1_000);
            self.queue.push(self.now + wait, Happening::Link(a, b));
            return Ok(());
        }
        line.connect(self.now);
        for (from, to) in [(a, b), (b, a)] {
            let seats = self.masters[from].seats.iter().enumerate();
            let shards = seats.filter_map(|(shard, seat)| seat.as_ref().map(|seat| (shard, seat.term))).collect();
            self.say_leading(from, to, shards, true);
        }
        Ok(())
    }

    /// The connection of two masters is gone, with all that is on its way; they try again.
    pub(crate) fn break_link(&mut self, a: usize, b: usize) {
        let line = self.links.get_mut(&pair(a, b)).expect("there is a line between any two masters");
        self.calm_since = self.calm_since.max(self.now);
        if !line.up {
            return;
        }
        line.up = false;
        line.connection += 1;
        let wait = self.random.wait(if self.plan.links_only { 2_000 } else { 200 });
        self.queue.push(self.now + wait, Happening::Link(pair(a, b).0, pair(a, b).1));
        self.clients.hang_up(|asked| asked.by.0 != asked.by.1 && pair(asked.by.0, asked.by.1) == pair(a, b));
    }

    /// Nothing passes from `a` to `b` for a while, and nothing back either where `both`.
    pub(crate) fn cut_link(&mut self, a: usize, b: usize, both: bool, length: u64) {
        let way = if a < b { Way::Up } else { Way::Down };
        let back = if a < b { Way::Down } else { Way::Up };
        let line = self.links.get_mut(&pair(a, b)).expect("there is a line between any two masters");
        line.cut(way, self.now + length);
        if both {
            line.cut(back, self.now + length);
        }
        self.calm_since = self.calm_since.max(self.now + length);
        if length >= IDLE_MS {
            self.break_link(a, b);
        }
    }

    /// Looks whether anything is broken among the masters.
    pub(crate) fn look_for_trouble(&mut self) {
        let well = |master: &crate::door::Master| master.up && master.stopped_until <= self.now && master.slow_until <= self.now;
        let leaders = (0..usize::from(self.plan.shards)).all(|shard| self.leader(shard).is_some());
        let links = self.links.values().all(|line| line.up && line.cut_until() <= self.now);
        if !leaders || !links || !self.masters.iter().all(well) {
            self.calm_since = self.calm_since.max(self.now);
        }
    }
}
