//! The real groups of one master in the world: openraft and all of `master/src/journal/` on a runtime of their own, with one thread, that
//! runs when the world says so and until it has nothing to do, by the clock of its master. What it writes lasts when the world says so.
//!
//! What is left to chance: tokio's `select!` begins with a random branch, and a task that waits for a watch stands in one of eight lines. Where two
//! branches are ready at once, of which most come to the same, two groups of a master may be served in another order: seeds with much trouble
//! among many masters come out in a few ways (seed 1,000,000 in more than twenty), those without it always in the same.

mod disk;
pub mod wires;
mod world;

pub use world::Known;

use crate::plan::Bug;
use crate::random::Random;
use disk::Disk;
use master::drive::Timing;
use master::journal::network::Carrier;
use master::journal::{Applied, Batch, Group, Hands, JournalError, Log, LogConfig, Member, Seat, Turn, Turns, draw_from};
use master::shard::ShardConfig;
use protocol::{ShardId, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use wires::{Question, Reply, Said, Wires};

/// The smallest that a log may have: so that seeds come to further segments, and members to lack what was let go.
const SEGMENT_BYTES: u64 = 1 << 16;
/// A group's log is folded into a snapshot when it has grown by so much.
const SNAPSHOT_BYTES: u64 = 16 << 10;

/// A group opens within so many flushes.
const OPENING_ROUNDS_MAX: usize = 64;
/// How often it is tried to open a journal that is locked, and the wait between.
const LOCKED_TRIES_MAX: usize = 1_000;
const LOCKED_AGAIN: Duration = Duration::from_millis(10);

/// Something that happens to the groups of a master.
#[derive(Debug)]
pub enum Event {
    /// In this life: time has passed.
    Look(u64),
    /// In this life: its disk has what was to be written.
    Flushed(u64),
    /// Another master asks.
    Asked(Question),
    /// Another master answers.
    Answered(Reply),
}

/// The groups of one master.
pub struct Engine {
    disk: Disk,
    configs: Vec<ShardConfig>,
    process: Option<Process>,
    /// The member that it is in each group: another one after its disk was lost.
    pub member: u64,
    /// How often each shard began to be led here.
    pub reigns: Vec<u64>,
    /// True where the disk was told to write.
    pub writes: bool,
    /// True where it is to be looked at again soon.
    pub waits: bool,
    /// True where something has happened to it since it was looked at.
    pub is_stirred: bool,
    bug: Option<Bug>,
}

/// What lives as long as its process.
struct Process {
    groups: Vec<(Group, Turns)>,
    members: Vec<Member>,
    runtime: Runtime,
    idle: Arc<Idle>,
    wires: Arc<Wires>,
    log: Arc<Log>,
    shown: Time,
}

/// What its groups have brought about.
pub struct Outs {
    /// What took effect.
    pub applied: Vec<Applied>,
    /// Who begins to lead and leads no more.
    pub turns: Vec<(usize, Turn)>,
    /// What they say.
    pub said: Vec<Said>,
}

/// Told when a runtime has nothing to do.
#[derive(Default)]
struct Idle(Mutex<Option<Waker>>);

impl Idle {
    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until every task waits.
    async fn come(&self) {
        let mut asked = false;
        poll_fn(|cx| {
            if asked && self.slot().is_none() {
                return Poll::Ready(());
            }
            asked = true;
            *self.slot() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn is_here(&self) {
        if let Some(waker) = self.slot().take() {
            waker.wake();
        }
    }
}

fn runtime(idle: &Arc<Idle>) -> Runtime {
    let told = Arc::clone(idle);
    let built = Builder::new_current_thread().enable_time().start_paused(true).on_thread_park(move || told.is_here()).build();
    built.expect("a runtime without threads, sockets and signals takes nothing of the system")
}

fn log_config() -> LogConfig {
    let bytes = (SEGMENT_BYTES, SNAPSHOT_BYTES);
    LogConfig { segment_bytes: bytes.0, snapshot_bytes: bytes.1, segments_behind_max: 1, sync: |_| Ok(()), hands: Hands::Told }
}

/// A process that somebody else in this one forks has the journal's lock until it becomes another program: that is waited for, by no clock
/// of the seed.
fn open_log(dir: &Path, groups: u16) -> Result<Log, JournalError> {
    for _ in 0..LOCKED_TRIES_MAX {
        match Log::open(dir, groups, log_config()) {
            Err(JournalError::Locked { .. }) => std::thread::sleep(LOCKED_AGAIN),
            opened => return opened,
        }
    }
    Log::open(dir, groups, log_config())
}

impl Engine {
    /// That of a master with an empty disk, which was never started.
    pub fn new(configs: Vec<ShardConfig>, me: usize, bug: Option<Bug>) -> Self {
        let disk = Disk::new().expect("the simulator may make files for what does not last");
        let reigns = vec![0; configs.len()];
        Self { disk, configs, process: None, member: me as u64 + 1, reigns, writes: false, waits: false, is_stirred: false, bug }
    }

    /// Its process starts, with what is on its disk; `founds`: the groups are made where they were not.
    ///
    /// # Errors
    /// The journal cannot be opened.
    pub fn start(&mut self, shown: Time, founds: bool, random: &mut Random) -> Result<(), JournalError> {
        let groups = u16::try_from(self.configs.len()).expect("a plan has few shards");
        let log = Arc::new(open_log(self.disk.path(), groups)?);
        let (idle, wires) = (Arc::new(Idle::default()), Arc::new(Wires::default()));
        let runtime = runtime(&idle);
        let seat = Seat { member: self.member, carrier: Arc::clone(&wires) as Arc<dyn Carrier>, timing: Timing::default() };
        draw_from(Some(random.next()));
        let mut process = Process { groups: vec![], members: vec![], runtime, idle, wires, log, shown };
        for config in &self.configs {
            let opened = process.open(self.disk.path(), config.clone(), &seat);
            process.members.extend(opened.as_ref().ok().map(|(group, _)| group.member()));
            process.groups.push(opened?);
        }
        draw_from(None);
        if founds {
            process.found()?;
        }
        self.process = Some(process);
        (self.writes, self.waits, self.is_stirred) = (false, false, true);
        Ok(())
    }

    /// Its process dies: so much of what was not written yet is on its disk all the same, the last of it perhaps torn.
    pub fn kill(&mut self, survive: usize, torn: bool) {
        let Some(process) = self.process.take() else { return };
        let Process { groups, members, runtime, log, .. } = process;
        drop((groups, members, runtime));
        let kept = log.waits() && survive > 0;
        log.write(survive);
        drop(log);
        if kept && torn || self.bug == Some(Bug::ForgetsLastEntry) {
            self.disk.tear().expect("the simulator may change its own files");
        }
    }

    /// Its disk is lost, while its process is dead: it is another member from then on.
    pub fn lose_disk(&mut self, masters: usize) {
        self.disk.lose().expect("the simulator may change its own files");
        if self.bug != Some(Bug::VotesWithoutDisk) {
            self.member += masters as u64;
        }
    }

    /// Goes on until nothing is to be done, at this time of its clock.
    pub fn run(&mut self, shown: Time) {
        if let Some(process) = &mut self.process {
            process.run(shown);
            self.is_stirred = true;
        }
    }

    /// The time of its clock when it was last looked at.
    pub fn shown(&self) -> Time {
        self.process.as_ref().map_or(Time::ZERO, |process| process.shown)
    }

    /// What it has brought about since the last time.
    pub fn outs(&mut self) -> Option<Outs> {
        let process = self.process.as_mut()?;
        let applied = process.log.applied();
        let turns = process.groups.iter_mut().enumerate();
        let turns: Vec<(usize, Turn)> = turns.filter_map(|(shard, (_, turns))| Some((shard, turns.try_recv().ok()?))).collect();
        let said = process.wires.take();
        (!applied.is_empty() || !turns.is_empty() || !said.is_empty()).then_some(Outs { applied, turns, said })
    }

    /// True where something is to be written.
    pub fn has_to_write(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.log.waits())
    }

    /// Its disk has all that was to be written.
    pub fn flushed(&mut self) {
        (self.writes, self.is_stirred) = (false, true);
        if let Some(process) = &self.process {
            process.log.write(usize::MAX);
        }
    }

    /// True while it leads a shard and no other can, by its own clock when it was last looked at.
    pub fn leads(&self, shard: usize) -> bool {
        self.process.as_ref().is_some_and(|process| {
            let _inside = process.runtime.enter();
            process.members[shard].leads()
        })
    }

    /// How many entries of a shard took effect on it.
    pub fn applied(&self, shard: usize) -> u64 {
        self.process.as_ref().map_or(0, |process| process.members[shard].standing().applied + 1)
    }

    /// Why the group of a shard has ended.
    pub fn failure(&self, shard: usize) -> String {
        self.process.as_ref().map_or_else(String::new, |process| process.groups[shard].0.failure().to_string())
    }

    /// How many entries of a shard it has folded, and the hash of what they make; `None` where it leads.
    pub fn hash(&self, shard: usize) -> Option<(u64, u64)> {
        self.process.as_ref()?.members[shard].hash()
    }

    /// The shard was let go: it leads it no more.
    pub fn lapse(&mut self, shard: usize) {
        self.is_stirred = true;
        if let Some(process) = &self.process {
            process.groups[shard].0.lapse();
        }
    }

    /// Proposes a batch of the reign that is.
    ///
    /// # Errors
    /// The engine has stopped.
    pub fn propose(&mut self, shard: usize, batch: Batch) -> Result<(), JournalError> {
        let Some(process) = &self.process else { return Ok(()) };
        self.is_stirred = true;
        let committed = process.runtime.block_on(process.groups[shard].0.propose(batch))?;
        let (wires, reign) = (Arc::clone(&process.wires), self.reigns[shard]);
        process.runtime.spawn(async move { wires.say(Said::Fate(shard, reign, committed.await)) });
        Ok(())
    }

    /// Another member asks; what it is told is said in time.
    pub fn asked(&mut self, question: Question) {
        let Some(process) = &self.process else { return };
        self.is_stirred = true;
        let (wires, member) = (Arc::clone(&process.wires), process.members[usize::from(question.shard)].clone());
        let Question { masters, connection, ask, back, .. } = question;
        process.runtime.spawn(async move {
            let answer = member.answer(ask).await;
            wires.say(Said::Reply(Reply { masters, connection, answer, back }));
        });
    }

    /// Another member has answered.
    pub fn answered(&mut self, reply: Reply) {
        self.is_stirred = true;
        // Who no longer waits need not know.
        let _ = reply.back.send(Some(reply.answer));
    }

    /// Makes these the members of a shard's group; whether they were is said in time.
    pub fn become_members(&mut self, shard: usize, members: &BTreeSet<u64>, generation: u64) {
        let Some(process) = &self.process else { return };
        self.is_stirred = true;
        let (wires, member, voters) = (Arc::clone(&process.wires), process.members[shard].clone(), members.clone());
        let wanted: BTreeMap<u64, String> = voters.iter().map(|voter| (*voter, String::new())).collect();
        process.runtime.spawn(async move {
            let became = member.become_members(&wanted, &voters).await;
            wires.say(Said::Members(shard, generation, became == Ok(true)));
        });
    }

    /// Hands a shard that was let go over to another member.
    pub fn hand_over(&mut self, shard: usize, to: u64) {
        let Some(process) = &self.process else { return };
        self.is_stirred = true;
        let member = process.members[shard].clone();
        // Where it cannot be done, others are elected in time.
        process.runtime.spawn(async move { member.hand_over(to).await });
    }

    /// Makes a snapshot of a shard with all that took effect.
    pub fn snapshot(&mut self, shard: usize) {
        let Some(process) = &self.process else { return };
        self.is_stirred = true;
        let member = process.members[shard].clone();
        // Where none is made, the log is only longer.
        process.runtime.spawn(async move { member.snapshot(member.standing().applied).await.map(drop) });
    }
}

impl Process {
    fn run(&mut self, shown: Time) {
        let ahead = Duration::from_millis(shown.since(self.shown));
        self.shown = self.shown.max(shown);
        let idle = Arc::clone(&self.idle);
        self.runtime.block_on(async move {
            tokio::time::advance(ahead).await;
            idle.come().await;
        });
    }

    /// Opens a group: nothing else happens meanwhile, and what it writes lasts at once.
    fn open(&mut self, dir: &Path, config: ShardConfig, seat: &Seat) -> Result<(Group, Turns), JournalError> {
        let (log, dir, seat) = (Arc::clone(&self.log), dir.to_owned(), seat.clone());
        let task = self.runtime.spawn(async move { Group::open(&log, &dir, config, &seat).await });
        self.finish(task)
    }

    fn found(&mut self) -> Result<(), JournalError> {
        let groups = std::mem::take(&mut self.groups);
        for (group, turns) in groups {
            let task = self.runtime.spawn(async move { group.found("").await.map(|()| group) });
            let group = self.finish(task)?;
            self.groups.push((group, turns));
        }
        Ok(())
    }

    /// Goes on, writing whatever is to be written, until this is done.
    fn finish<T>(&mut self, task: tokio::task::JoinHandle<Result<T, JournalError>>) -> Result<T, JournalError> {
        for _ in 0..OPENING_ROUNDS_MAX {
            if task.is_finished() {
                break;
            }
            self.run(self.shown);
            self.log.write(usize::MAX);
        }
        assert!(task.is_finished(), "what opens a group waits for its disk only");
        self.runtime.block_on(task).expect("it does not panic")
    }
}

/// The name of a shard.
pub const fn shard_id(shard: usize) -> ShardId {
    ShardId(shard as u16)
}
