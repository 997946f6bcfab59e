//! How large a cluster the real shards decide for, and how fast: agents that do nothing but say what they were told to run, and no faults. With
//! no masters shards alone decide, on one thread, which is what deciding costs. With one or three, every record goes through the real journal
//! and its flushes, nothing is told before it is committed, and the masters are started anew in the end.

mod agents;
mod journal;

use journal::{Journal, Reigning};
use master::drive::desk::Desk;
use master::journal::{Fate, JournalError};
use master::shard::view::{View, Viewed};
use master::shard::{Action, Event, Output, Request, Response, Shard, ShardConfig};
use protocol::{AttemptId, Phase, RequestId, ShardId, Time};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// No agent is silent for so long.
const SILENCE_MS: u64 = 1 << 40;
/// How long a group may take to get its leader.
const LED_WITHIN: Duration = Duration::from_secs(30);

/// How large it is to be.
#[derive(Clone, Debug)]
pub struct Size {
    /// Agents.
    pub agents: u32,
    /// Tasks, of all jobs together.
    pub tasks: u32,
    /// Jobs.
    pub jobs: u32,
    /// Shards.
    pub shards: u16,
    /// Masters whose journals keep what is decided: none, or up to three.
    pub masters: u64,
    /// Where their journals are made; whoever asks for it removes them.
    pub dir: PathBuf,
}

/// What it took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Seconds until all agents had registered and reported.
    pub registering_s: f64,
    /// Seconds from the first submission until the last task ran.
    pub placing_s: f64,
    /// The same in computed seconds of this thread, which others on the machine do not lengthen.
    pub placing_cpu_s: f64,
    /// Where there are masters: seconds from their start, all at once, until each agent and what runs on it was known again.
    pub restart_s: f64,
    /// Of these, those until all shards were led.
    pub led_s: f64,
    /// Seconds until all tasks had ended, and that was acknowledged.
    pub ending_s: f64,
    /// Bytes of memory for each agent.
    pub agent_bytes: u64,
    /// Bytes of memory for each running task, on top of that.
    pub task_bytes: u64,
    /// Tasks that ran.
    pub ran: u32,
    /// Tasks that were known to run when the masters had been started again.
    pub known: u32,
    /// Tasks whose end was acknowledged.
    pub ended: u32,
    /// Attempts that found no room, and were placed again.
    pub refused: u32,
}

/// A shard with or without a journal.
enum Seat {
    Bare(Box<Shard>),
    Kept(Box<Desk>),
}

impl Seat {
    fn shard(&mut self) -> &mut Shard {
        match self {
            Self::Bare(shard) => shard,
            Self::Kept(desk) => &mut desk.lead.as_mut().expect("it leads for as long as it is here").shard,
        }
    }

    /// What is to be done now.
    fn sort(&mut self, due: &mut VecDeque<Action>) {
        match self {
            Self::Bare(shard) => {
                while let Some(output) = shard.poll_output() {
                    if let Output::Held(action) | Output::Now(action) = output {
                        due.push_back(action);
                    }
                }
            }
            Self::Kept(desk) => desk.lead.as_mut().expect("as above").sort(due),
        }
    }
}

struct Cluster {
    size: Size,
    seats: Vec<Seat>,
    journal: Option<Journal>,
    reigning: Reigning,
    letters: Vec<VecDeque<Event>>,
    due: VecDeque<Action>,
    now: Time,
    /// What runs, and on which agent.
    running: Vec<(u32, AttemptId)>,
    replies: Vec<Viewed>,
    figures: Figures,
}

/// Runs it.
///
/// # Errors
/// The journal's.
pub async fn run(size: Size) -> Result<Figures, JournalError> {
    let mut cluster = Cluster::new(size);
    cluster.lead(journal::PATIENT).await?;
    let empty = memory_bytes();
    let start = Instant::now();
    cluster.register().await?;
    cluster.figures.registering_s = start.elapsed().as_secs_f64();
    let registered = memory_bytes();
    let size = cluster.size.clone();
    cluster.figures.agent_bytes = registered.saturating_sub(empty) / u64::from(size.agents.max(1));
    let (start, computed) = (Instant::now(), cpu_seconds().unwrap_or(0.0));
    cluster.place().await?;
    cluster.figures.placing_cpu_s = cpu_seconds().unwrap_or(0.0) - computed;
    cluster.figures.placing_s = start.elapsed().as_secs_f64();
    let ours = cluster.running.capacity() * size_of::<(u32, AttemptId)>();
    cluster.figures.task_bytes = memory_bytes().saturating_sub(registered + ours as u64) / u64::from(size.tasks.max(1));
    if size.masters > 0 {
        cluster.restart().await?;
    }
    let start = Instant::now();
    cluster.end().await?;
    cluster.figures.ending_s = start.elapsed().as_secs_f64();
    cluster.close().await;
    Ok(cluster.figures)
}

/// What this thread has computed so far; `None` where the kernel does not say.
#[must_use]
pub fn cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<u64>().ok()? as f64 / 1e9)
}

/// What this process holds of memory now.
fn memory_bytes() -> u64 {
    const PAGE_BYTES: u64 = 4_096;
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * PAGE_BYTES
}

fn config(id: u16, shards: u16) -> ShardConfig {
    ShardConfig { id: ShardId(id), shards, unreachable_ms: SILENCE_MS, replace_after_ms: 2 * SILENCE_MS, ..ShardConfig::default() }
}

impl Cluster {
    fn new(size: Size) -> Self {
        Self {
            seats: Vec::new(),
            journal: None,
            reigning: Reigning::default(),
            letters: (0..size.shards).map(|_| VecDeque::new()).collect(),
            due: VecDeque::new(),
            now: Time(1_000),
            running: Vec::with_capacity(size.tasks as usize),
            replies: Vec::new(),
            figures: Figures::default(),
            size,
        }
    }

    /// All shards begin to be led.
    async fn lead(&mut self, timing: master::drive::Timing) -> Result<(), JournalError> {
        let shards = self.size.shards;
        if self.size.masters == 0 {
            self.seats = (0..shards).map(|id| Seat::Bare(Box::new(Shard::new(config(id, shards))))).collect();
        } else {
            let (journal, desks) = Journal::open(&self.size, timing, |id| config(id, shards)).await?;
            (self.journal, self.seats) = (Some(journal), desks.into_iter().map(|desk| Seat::Kept(Box::new(desk))).collect());
        }
        let now = self.now;
        self.seats.iter_mut().for_each(|seat| seat.shard().lead(now));
        for at in 0..self.seats.len() {
            self.do_due(at);
        }
        self.settle().await
    }

    /// All masters end, and are started at once with what is on their disks; then each agent says what it has.
    async fn restart(&mut self) -> Result<(), JournalError> {
        self.close().await;
        let start = Instant::now();
        self.lead(master::drive::Timing::default()).await?;
        self.figures.led_s = start.elapsed().as_secs_f64();
        self.register_again().await?;
        self.figures.restart_s = start.elapsed().as_secs_f64();
        self.figures.known = self.known().await?;
        Ok(())
    }

    /// How many tasks are known to run; none where not all agents are here.
    async fn known(&mut self) -> Result<u32, JournalError> {
        let jobs = View::Jobs { role: None, after: None, limit: master::shard::view::PAGE_MAX, ended: false };
        for at in 0..self.seats.len() {
            for view in [View::Figures, jobs.clone()] {
                self.letters[at].push_back(Event::Request { id: RequestId(0), request: Request::View(view) });
            }
        }
        self.settle().await?;
        let (mut agents, mut tasks) = (0, 0);
        for reply in self.replies.drain(..) {
            match reply {
                Viewed::Figures(figures) => agents += figures.agents_reachable,
                Viewed::Jobs(jobs) => tasks += jobs.iter().filter_map(|job| job.tasks.get(&Phase::Running)).sum::<u32>(),
                _ => {}
            }
        }
        Ok(if agents == u64::from(self.size.agents) { tasks } else { 0 })
    }

    async fn close(&mut self) {
        self.reigning = Reigning::default();
        let desks = self.seats.drain(..).filter_map(|seat| match seat {
            Seat::Kept(desk) => Some(*desk),
            Seat::Bare(_) => None,
        });
        if let Some(journal) = self.journal.take() {
            journal.close(desks.collect()).await;
        }
    }

    fn write(&mut self, to: ShardId, event: Event) {
        self.letters[usize::from(to.0)].push_back(event);
    }

    /// Goes on until `done`, from timer to timer where nothing is on its way; or until nothing happens any more.
    async fn wait(&mut self, done: impl Fn(&Figures) -> bool) -> Result<(), JournalError> {
        loop {
            self.settle().await?;
            if done(&self.figures) {
                return Ok(());
            }
            let next = self.seats.iter_mut().filter_map(|seat| seat.shard().poll_timeout()).min();
            let Some(next) = next.filter(|next| next.0 < SILENCE_MS) else { return Ok(()) };
            self.now = self.now.max(next);
            self.letters.iter_mut().for_each(|letters| letters.push_back(Event::Tick));
        }
    }

    /// Until nothing is on its way, to a shard or to a disk.
    async fn settle(&mut self) -> Result<(), JournalError> {
        loop {
            while self.letters.iter().any(|letters| !letters.is_empty()) {
                self.round().await?;
            }
            let Some(committed) = self.reigning.next().await else { return Ok(()) };
            self.committed(committed).await?;
        }
    }

    /// Each shard takes in what waits for it, and then all that it wants is done or proposed.
    async fn round(&mut self) -> Result<(), JournalError> {
        self.now = self.now + 1;
        for at in 0..self.seats.len() {
            for event in std::mem::take(&mut self.letters[at]) {
                self.seats[at].shard().handle(self.now, event);
            }
            self.do_due(at);
            self.propose(at).await?;
        }
        while let Some(committed) = self.reigning.ready().await {
            self.committed(committed).await?;
        }
        Ok(())
    }

    async fn propose(&mut self, at: usize) -> Result<(), JournalError> {
        if let Seat::Kept(desk) = &mut self.seats[at]
            && let Some(batch) = desk.lead.as_mut().and_then(|lead| lead.next_batch())
        {
            let proposed = desk.propose(batch).await?;
            self.reigning.push(at, proposed);
        }
        Ok(())
    }

    async fn committed(&mut self, (at, fate): (usize, Result<Fate, JournalError>)) -> Result<(), JournalError> {
        let fate = fate?;
        assert_eq!(fate, Fate::Committed, "nobody takes the lead from a master that runs");
        if let Seat::Kept(desk) = &mut self.seats[at] {
            desk.lead.as_mut().expect("it leads").committed(&mut self.due);
        }
        self.do_due(at);
        self.propose(at).await
    }

    fn do_due(&mut self, at: usize) {
        self.seats[at].sort(&mut self.due);
        let from = ShardId(u16::try_from(at).expect("a shard's number"));
        while let Some(action) = self.due.pop_front() {
            match action {
                Action::Peer { to, message } => self.write(to, Event::Peer { from, message }),
                Action::Send { agent, message } => self.heard(agent, message),
                Action::Reply { response: Response::Viewed(viewed), .. } => self.replies.push(*viewed),
                Action::Reply { .. } | Action::Publish(_) | Action::Disconnect { .. } => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_small(masters: u64) -> Figures {
        let dir = std::env::temp_dir().join(format!("skep-scale-{}-{masters}", std::process::id()));
        let size = Size { agents: 50, tasks: 1_000, jobs: 10, shards: 4, masters, dir };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let figures = runtime.block_on(run(size.clone())).unwrap();
        // With no masters it was never made.
        let _ = std::fs::remove_dir_all(size.dir);
        figures
    }

    #[test]
    fn all_tasks_of_a_small_cluster_run_once_and_end() {
        let figures = run_small(0);
        assert_eq!((figures.ran, figures.ended, figures.refused), (1_000, 1_000, 0));
    }

    #[test]
    fn masters_that_are_started_again_know_all_tasks_and_see_their_ends() {
        for masters in [1, 3] {
            let figures = run_small(masters);
            assert_eq!((figures.ran, figures.known, figures.ended, figures.refused), (1_000, 1_000, 1_000, 0), "{masters} masters");
        }
    }
}
