//! One replica of a shard as the simulator plays it: Raft (Ongaro and Ousterhout, ATC 2014) with leases, on a disk that takes its time.
//! Knows terms, votes, its log and what it has folded; what a leader's shard decides stands in `seat.rs`.
//!
//! The lease: a leader acts until [`LEASE_MS`] after it sent what a majority has acknowledged, by its own clock; nobody who acknowledged
//! votes for another before [`STICKY_MS`] have passed by his. Who was restarted may have acknowledged a moment before.

use crate::log::{Base, Entry, Log, Note};
use crate::plan::Bug;
use crate::random::Random;
use master::shard::{Shard, ShardConfig};
use protocol::Time;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How long a leader acts without a word from a majority.
pub const LEASE_MS: u64 = 400;
/// How long a voter stands by a leader: the lease by a clock that is one part in a hundred slow, as one that is as much too fast shows it.
pub const STICKY_MS: u64 = 410;
/// How often a leader says that it lives.
const BEAT_MS: u64 = 100;
/// Most replicas of a shard.
const MASTERS_MAX: usize = 5;
/// Entries in one message.
const ENTRIES_MAX: usize = 64;
/// Entries of which only the snapshot is kept.
pub const LOG_ENTRIES_MAX: u64 = 512;

/// What replicas say to each other.
#[derive(Clone, Debug)]
pub enum Message {
    /// Vote for me; `over` where the leader itself wants it.
    Vote { term: u64, last: (u64, u64), sent: Time, over: bool },
    /// The answer.
    Voted { term: u64, sent: Time, granted: bool },
    /// The leader lives, and this comes behind the entry `prev`; `voter` where the receiver may vote again.
    Append { term: u64, prev: (u64, u64), entries: Vec<Arc<Entry>>, commit: u64, sent: Time, voter: bool },
    /// The leader lives, and its log begins there.
    Install { term: u64, base: Base, sent: Time },
    /// The answer to both: durable up to there, or (`Err`) nothing follows on what comes after that.
    Appended { term: u64, sent: Time, matched: Result<u64, u64>, life: u64, voter: bool },
    /// Lead instead of me.
    Over { term: u64 },
}

/// What a replica wants done.
#[derive(Debug)]
pub enum Out {
    /// Send this.
    Send(usize, Message),
    /// Send this once the disk has what it says.
    SendSynced(usize, Message),
    /// Write the log up to there, and say so with [`Replica::synced`].
    Write(u64),
    /// It leads from now on.
    Leads,
    /// It leads no longer.
    Stops,
    /// That one leads in this term.
    Follows(u64, usize),
}

#[derive(Debug)]
struct Lead {
    next: Vec<u64>,
    matched: Vec<u64>,
    /// By the leader's clock: when what was acknowledged last had been sent.
    acked: Vec<Option<Time>>,
    lives: Vec<u64>,
    /// Who has lost its disk, and the entry from which on it may vote again.
    lost: Vec<Option<u64>>,
}

#[derive(Debug)]
enum Role {
    Follower,
    Candidate { votes: BTreeSet<usize>, acked: Vec<Option<Time>> },
    Leader(Box<Lead>),
}

/// One replica.
#[derive(Debug)]
pub struct Replica {
    config: ShardConfig,
    me: usize,
    masters: usize,
    bug: Option<Bug>,
    life: u64,
    leader: Option<usize>,
    /// The highest term it knows.
    pub term: u64,
    vote: Option<usize>,
    /// False from the loss of its disk until it has all that it may have promised.
    pub voter: bool,
    /// Its log.
    pub log: Log,
    /// What is the leader's too, in this term.
    verified: u64,
    commit: u64,
    /// Folded so far.
    pub applied: u64,
    /// What is committed, folded.
    pub follower: Shard,
    heard: Time,
    wait_ms: u64,
    role: Role,
    outs: Vec<Out>,
}

impl Replica {
    /// An empty one, that votes.
    pub fn new(config: ShardConfig, me: usize, masters: usize, bug: Option<Bug>) -> Self {
        Self {
            follower: Shard::new(config.clone()),
            config,
            me,
            masters,
            bug,
            life: 0,
            leader: None,
            term: 0,
            vote: None,
            voter: true,
            log: Log::default(),
            verified: 0,
            commit: 0,
            applied: 0,
            heard: Time::ZERO,
            wait_ms: 0,
            role: Role::Follower,
            outs: vec![],
        }
    }

    /// Its process starts, in which life. The first leaders of a cluster are spread over its masters.
    pub fn start(&mut self, life: u64, shown: Time, random: &mut Random) {
        self.life = life;
        if self.bug == Some(Bug::ForgetsLastEntry) {
            self.log.cut(self.log.last().0.saturating_sub(1));
        }
        self.log.durable = self.log.last().0;
        self.heard = shown;
        let preferred = usize::from(self.config.id.0) % self.masters == self.me && life == 1;
        self.wait_ms = if preferred { 10 } else { self.draw_wait(random) };
        if self.masters == 1 {
            self.wait_ms = 0;
        }
    }

    fn draw_wait(&self, random: &mut Random) -> u64 {
        if self.bug == Some(Bug::WaitsForNoLease) { random.between(110, 300) } else { random.between(STICKY_MS + 10, 2 * STICKY_MS) }
    }

    /// Its process dies: of what the disk does not have for certain, a part may be there.
    pub fn kill(&mut self, survive: u64) {
        self.log.cut(self.log.durable + survive);
        let first = self.log.base.index;
        (self.commit, self.applied, self.verified) = (first, first, 0);
        self.follower = self.log.restored(&self.config);
        (self.role, self.leader) = (Role::Follower, None);
        self.outs.clear();
    }

    /// Its disk is lost, while its process is dead.
    pub fn lose_disk(&mut self) {
        let (life, bug) = (self.life, self.bug);
        *self = Self::new(self.config.clone(), self.me, self.masters, bug);
        self.life = life;
        self.voter = bug == Some(Bug::VotesWithoutDisk);
    }

    /// The shard that its log makes, committed or not; and the time of its latest record.
    pub fn fold(&self) -> (Shard, Time) {
        self.log.fold(&self.config)
    }

    /// Whether it holds itself for the leader.
    pub const fn leads(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// Whether it wants nothing done.
    pub const fn is_idle(&self) -> bool {
        self.outs.is_empty()
    }

    /// What it wants done now.
    pub fn outs(&mut self) -> Vec<Out> {
        std::mem::take(&mut self.outs)
    }

    /// The next entry that is committed and was not folded; to be followed by [`Self::folded`].
    pub fn next_committed(&self) -> Option<(u64, Arc<Entry>)> {
        let next = self.applied + 1;
        (next <= self.commit).then(|| self.log.entry(next).cloned().map(|entry| (next, entry))).flatten()
    }

    /// Folds the next committed entry.
    pub fn folded(&mut self, index: u64, entry: &Entry) {
        let skipped = self.bug == Some(Bug::FoldsDifferently) && self.me == 0 && index % 61 == 60;
        entry.notes.iter().filter(|_| !skipped).for_each(|note| self.follower.apply(&note.record));
        self.applied = index;
    }

    /// Keeps a snapshot instead of what it has folded.
    pub fn compact(&mut self) {
        self.log.compact(self.applied, &self.follower);
    }

    /// Entries that are folded and kept all the same.
    pub const fn kept(&self) -> u64 {
        self.applied - self.log.base.index
    }

    /// When it wants to be looked at next, by its clock.
    pub fn due(&self, shown: Time) -> Time {
        if self.leads() { shown + BEAT_MS } else { (self.heard + self.wait_ms).max(shown + 1) }
    }

    /// Until when it may act as the leader, by its clock; `None` where it does not lead.
    pub fn lease(&self, shown: Time) -> Option<Time> {
        let Role::Leader(lead) = &self.role else { return None };
        let mut acked = [None; MASTERS_MAX];
        acked[..self.masters].copy_from_slice(&lead.acked);
        acked[self.me] = Some(shown);
        acked.sort_unstable_by(|a, b| b.cmp(a));
        acked[self.masters / 2].map(|at| at + LEASE_MS).or(Some(Time::ZERO))
    }

    /// Time has passed.
    pub fn tick(&mut self, shown: Time, random: &mut Random) {
        if self.leads() {
            if self.lease(shown).is_some_and(|until| until <= shown) && self.bug != Some(Bug::KeepsNoLease) {
                self.follow(self.term, shown);
                return;
            }
            self.replicate_all(shown);
        } else if self.voter && shown >= self.heard + self.wait_ms {
            self.wait_ms = self.draw_wait(random);
            self.campaign(shown, false);
        }
    }

    fn campaign(&mut self, shown: Time, over: bool) {
        self.term += 1;
        (self.vote, self.heard, self.verified, self.leader) = (Some(self.me), shown, 0, None);
        self.role = Role::Candidate { votes: BTreeSet::from([self.me]), acked: vec![None; self.masters] };
        let message = Message::Vote { term: self.term, last: self.log.last(), sent: shown, over };
        (0..self.masters).filter(|to| *to != self.me).for_each(|to| self.outs.push(Out::Send(to, message.clone())));
        self.count(shown);
    }

    fn count(&mut self, shown: Time) {
        let last = self.log.last().0;
        let Role::Candidate { votes, acked } = &mut self.role else { return };
        if votes.len() <= self.masters / 2 {
            return;
        }
        let lead = Lead {
            next: vec![last + 1; self.masters],
            matched: vec![0; self.masters],
            acked: std::mem::take(acked),
            lives: vec![0; self.masters],
            lost: vec![None; self.masters],
        };
        self.role = Role::Leader(Box::new(lead));
        if self.lease(shown) <= Some(shown) {
            self.role = Role::Follower; // The votes came too late.
            return;
        }
        self.outs.push(Out::Leads);
        self.advance();
    }

    /// Puts a batch into its log; gives its index.
    pub fn propose(&mut self, notes: Vec<Note>, shown: Time) -> u64 {
        self.log.push(Arc::new(Entry { term: self.term, notes }));
        let last = self.log.last().0;
        self.outs.push(Out::Write(last));
        self.replicate_all(shown);
        last
    }

    fn replicate_all(&mut self, sent: Time) {
        for to in 0..self.masters {
            if to != self.me {
                self.replicate(to, sent);
            }
        }
    }

    fn replicate(&mut self, to: usize, sent: Time) {
        let Role::Leader(lead) = &mut self.role else { return };
        let next = lead.next[to];
        if next <= self.log.base.index {
            self.outs.push(Out::Send(to, Message::Install { term: self.term, base: self.log.base.clone(), sent }));
            return;
        }
        let entries = self.log.from(next, ENTRIES_MAX);
        // Taken to arrive; where not, the next one finds out.
        lead.next[to] = next + entries.len() as u64;
        let voter = lead.lost[to].is_some_and(|from| lead.matched[to] >= from && self.commit >= from);
        let prev = (next - 1, self.log.term_at(next - 1).unwrap_or_default());
        self.outs.push(Out::Send(to, Message::Append { term: self.term, prev, entries, commit: self.commit, sent, voter }));
    }

    /// Hands its lead to whoever has all of its log; false where nobody has.
    pub fn hand_over(&mut self, shown: Time) -> bool {
        let last = self.log.last().0;
        let Role::Leader(lead) = &self.role else { return false };
        let ready = |to: &usize| *to != self.me && lead.matched[*to] == last && lead.lost[*to].is_none();
        let Some(to) = (0..self.masters).find(ready) else { return false };
        self.outs.push(Out::Send(to, Message::Over { term: self.term }));
        self.follow(self.term, shown);
        true
    }

    /// Follows in this term, whatever it did before.
    fn follow(&mut self, term: u64, shown: Time) {
        if self.leads() {
            self.outs.push(Out::Stops);
            self.heard = shown;
        }
        if term > self.term {
            (self.term, self.vote, self.verified, self.leader) = (term, None, 0, None);
        }
        self.role = Role::Follower;
    }

    /// The disk has the log up to `index`, of the time when it ended with `term`.
    pub fn synced(&mut self, index: u64, term: u64) {
        if self.log.term_at(index) != Some(term) {
            return; // It was cut away meanwhile.
        }
        self.log.durable = self.log.durable.max(index);
        match self.leader {
            _ if self.leads() => self.advance(),
            Some(leader) => self.answer(leader, Time::ZERO, Ok(self.matched())),
            None => {}
        }
    }

    /// What it has for certain of the leader's log.
    fn matched(&self) -> u64 {
        self.log.durable.min(self.verified)
    }

    fn advance(&mut self) {
        let (last, alone) = (self.log.last().0, self.bug == Some(Bug::CommitsAlone));
        let Role::Leader(lead) = &self.role else { return };
        let mut matched: Vec<u64> = (0..self.masters).map(|at| if lead.lost[at].is_some() { 0 } else { lead.matched[at] }).collect();
        matched[self.me] = self.log.durable.min(last);
        let mine = matched[self.me];
        matched.sort_unstable_by(|a, b| b.cmp(a));
        let index = if alone { mine } else { matched[self.masters / 2] };
        if index > self.commit && self.log.term_at(index) == Some(self.term) {
            self.commit = index;
        }
    }

    /// Another replica said something.
    pub fn receive(&mut self, from: usize, message: Message, shown: Time, random: &mut Random) {
        match message {
            Message::Vote { term, last, sent, over } => self.asked_to_vote(from, (term, last, over), sent, shown),
            Message::Voted { term, .. } if term > self.term => self.follow(term, shown),
            Message::Voted { term, sent, granted } if term == self.term && granted => {
                if let Role::Candidate { votes, acked } = &mut self.role {
                    votes.insert(from);
                    acked[from] = Some(sent);
                    self.count(shown);
                }
            }
            Message::Append { term, prev, entries, commit, sent, voter } if self.is_led(from, term, shown, random) => {
                self.voter |= voter;
                let matched = self.append(prev, entries, commit);
                self.answer(from, sent, matched);
            }
            Message::Install { term, base, sent } if self.is_led(from, term, shown, random) => {
                let matched = self.install(base);
                self.answer(from, sent, Ok(matched));
            }
            // The leader of a term that is over.
            Message::Append { sent, .. } | Message::Install { sent, .. } => self.answer(from, sent, Err(0)),
            Message::Appended { term, .. } if term > self.term => self.follow(term, shown),
            Message::Appended { term, sent, matched, life, voter } if term == self.term => {
                self.appended(from, (life, voter), matched, sent, shown);
            }
            Message::Over { term } if term == self.term && self.voter && !self.leads() => self.campaign(shown, true),
            Message::Voted { .. } | Message::Appended { .. } | Message::Over { .. } => {}
        }
    }

    fn asked_to_vote(&mut self, from: usize, (term, last, over): (u64, (u64, u64), bool), sent: Time, shown: Time) {
        let leased = if self.leads() { self.lease(shown).is_some_and(|until| until > shown) } else { shown < self.heard + STICKY_MS };
        let candidate = matches!(self.role, Role::Candidate { .. });
        if leased && !candidate && !over && self.bug != Some(Bug::WaitsForNoLease) || !self.voter {
            return;
        }
        if term > self.term {
            self.follow(term, shown);
        }
        let mine = self.log.last();
        let good = (last.1, last.0) >= (mine.1, mine.0);
        let granted = term == self.term && good && self.vote.is_none_or(|vote| vote == from) && !self.leads();
        if granted {
            (self.vote, self.heard) = (Some(from), shown);
        }
        self.outs.push(Out::SendSynced(from, Message::Voted { term: self.term, sent, granted }));
    }

    /// True where `from` leads in `term`, which is the highest; it was heard of, then.
    fn is_led(&mut self, from: usize, term: u64, shown: Time, random: &mut Random) -> bool {
        if term < self.term {
            return false;
        }
        self.follow(term, shown);
        (self.heard, self.leader) = (shown, Some(from));
        self.wait_ms = self.draw_wait(random);
        self.outs.push(Out::Follows(term, from));
        true
    }

    fn append(&mut self, prev: (u64, u64), entries: Vec<Arc<Entry>>, commit: u64) -> Result<u64, u64> {
        let upto = prev.0 + entries.len() as u64;
        if prev.0 > self.log.base.index && self.log.term_at(prev.0) != Some(prev.1) {
            return Err(self.log.last().0.min(prev.0 - 1));
        }
        (prev.0 + 1..).zip(entries).for_each(|(index, entry)| self.log.put(index, entry));
        self.verified = self.verified.max(upto);
        self.commit = self.commit.max(commit.min(upto));
        let last = self.log.last().0;
        if self.log.durable < last {
            self.outs.push(Out::Write(last));
        }
        Ok(self.matched())
    }

    fn install(&mut self, base: Base) -> u64 {
        if base.index > self.commit {
            (self.commit, self.applied) = (base.index, base.index);
            self.verified = self.verified.max(base.index);
            self.log.rebase(base);
            self.follower = self.log.restored(&self.config);
        }
        self.matched()
    }

    fn answer(&mut self, to: usize, sent: Time, matched: Result<u64, u64>) {
        let message = Message::Appended { term: self.term, sent, matched, life: self.life, voter: self.voter };
        self.outs.push(Out::Send(to, message));
    }

    fn appended(&mut self, from: usize, (life, voter): (u64, bool), matched: Result<u64, u64>, sent: Time, shown: Time) {
        let last = self.log.last().0;
        let Role::Leader(lead) = &mut self.role else { return };
        if life < lead.lives[from] {
            return;
        }
        if life > lead.lives[from] {
            (lead.lives[from], lead.matched[from], lead.lost[from]) = (life, 0, None);
        }
        let mut admits = false;
        if voter {
            lead.lost[from] = None;
            lead.acked[from] = lead.acked[from].max(Some(sent));
        } else if lead.lost[from].is_none() {
            // Behind an entry that a majority has without it, nothing that it has forgotten is of weight.
            lead.lost[from] = Some(last + 1);
            admits = true;
        }
        let behind = match matched {
            Ok(index) => {
                lead.matched[from] = lead.matched[from].max(index);
                lead.next[from] = lead.next[from].max(index + 1);
                false
            }
            Err(index) => {
                lead.next[from] = lead.next[from].min(index + 1);
                true
            }
        };
        let more = lead.next[from] <= last;
        if admits {
            self.propose(vec![], shown);
        } else if behind || more {
            self.replicate(from, shown);
        }
        self.advance();
    }
}
