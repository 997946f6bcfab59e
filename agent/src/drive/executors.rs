//! This agent's executors: one for each role and metering, another for what is revocable, and one for each job that wants its own. Starts them when they are first
//! needed, finds them again, tells them what the ledger wants in batches, and says what became of all tasks of one that died.

mod asks;
mod messages;
mod usage;

use protocol::{Exit, JobId, MemberId, Usage};
use runtime::executor::process::{Template, Which};
use runtime::executor::wire::{Answer, Used};
use runtime::executor::{Commands, Events, Executor, ExecutorEvent, ExecutorSpec, LaunchError, Recovered, Remains, TellError};
use runtime::{Key, Runtime as _};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::mpsc;

use asks::Asks;

use super::table::{Kind, Row, Table};
use super::telling::{LOST, find, holds, left, told};
use crate::ledger::ATTEMPTS_HELD_MAX;
use crate::ledger::event::Event;
use crate::logs::{key, member};

/// So often an executor is tried to be started; then the tasks that wait for it are given up.
const START_TRIES_MAX: u32 = 3;
/// The wait between two tries.
const START_RETRY: Duration = Duration::from_secs(1);
/// Directories of dead executors that are kept for the output in them.
const DEAD_MAX: usize = 32;
/// Jobs of which it is remembered which executors had them; over it, all executors are told what concerns a job.
const ROUTES_MAX: usize = 65_536;

/// What executors, or those who start them, say.
pub(super) enum Said {
    /// One was started, or was not.
    Started { number: u32, tries: u32, result: Result<Executor, LaunchError> },
    /// What became of one whose connection ended.
    Found { number: u32, result: Result<Recovered, LaunchError> },
    /// What happened in one.
    Events(Vec<ExecutorEvent>),
    /// Its connection ended.
    Gone { number: u32 },
    /// What its tasks use, as was asked.
    Used { number: u32, used: Vec<Used> },
    /// Whether tasks are well, as was asked.
    Answers(Vec<Answer>),
}

/// What all executors are started with.
pub(super) struct Settings {
    pub template: Arc<Template>,
    /// Where is written down which there are.
    pub table: PathBuf,
    pub readable: Vec<PathBuf>,
    pub memory_bytes_max: u64,
    /// True where each role has a user of its own.
    pub own_users: bool,
}

pub(super) struct Executors {
    settings: Settings,
    table: Table,
    slots: BTreeMap<u32, Slot>,
    /// Which one takes new tasks of a kind.
    open: BTreeMap<Kind, u32>,
    routes: BTreeMap<JobId, Vec<u32>>,
    dead: VecDeque<u32>,
    /// Kinds that had no task when it was last looked.
    idle: BTreeSet<u32>,
    /// Who wants to know what tasks use, and which executors have not said it yet.
    asked: Vec<(BTreeSet<u32>, mpsc::UnboundedSender<Vec<Used>>)>,
    asks: Asks,
    said: mpsc::Sender<Said>,
}

struct Slot {
    row: Row,
    state: State,
}

enum State {
    /// It is being started or looked for; what it is to be told waits.
    Away(Vec<Tell>),
    Here {
        commands: Commands,
        pid: u32,
    },
}

enum Tell {
    /// With the moment at which their lease is over, where they are fenced.
    Launch(Box<runtime::Launch>, Option<u64>),
    Renew {
        keys: Vec<Key>,
        until_ns: u64,
    },
    Stop {
        keys: Vec<Key>,
        grace_ms: u64,
    },
    Forget(Vec<Key>),
}

impl Executors {
    pub fn open(settings: Settings, said: mpsc::Sender<Said>) -> io::Result<Self> {
        let table = Table::open(&settings.table, &settings.template.places().executors())?;
        Ok(Self {
            settings,
            table,
            slots: BTreeMap::new(),
            open: BTreeMap::new(),
            routes: BTreeMap::new(),
            dead: VecDeque::new(),
            idle: BTreeSet::new(),
            asked: Vec::new(),
            asks: Asks::default(),
            said,
        })
    }

    /// Finds all executors of earlier lives of this agent; says what they hold and what dead ones left.
    pub async fn recover(&mut self) -> io::Result<Vec<Event>> {
        for stray in self.table.strays()? {
            tracing::warn!(number = stray, "an executor that no record speaks of is ended");
            self.settings.template.clear(Which::Wasm(stray)).await?;
        }
        let mut events = Vec::new();
        for row in self.table.rows().to_vec() {
            match find(&self.settings.template, Which::Wasm(row.number)).await {
                Ok(Recovered::Living(executor)) => {
                    self.open.insert(row.kind.clone(), row.number);
                    self.slots.insert(row.number, Slot { row: row.clone(), state: State::Away(Vec::new()) });
                    events.extend(self.here(row.number, executor));
                }
                Ok(Recovered::Dead(remains)) => {
                    events.push(left(remains));
                    self.bury(row.number)?;
                }
                Err(error) => {
                    tracing::error!(%error, "an executor that cannot be read is given up, and its tasks with it");
                    self.bury(row.number)?;
                }
            }
        }
        Ok(events)
    }

    /// Has these tasks of `job` started, by the executor of their kind, which is started first where there is none.
    /// `until_ns`: when their lease is over, by [`runtime::executor::lease::boot_ns`], where they are fenced.
    pub fn start(&mut self, job: JobId, kind: Kind, plan: runtime::Launch, until_ns: Option<u64>) -> io::Result<Vec<Event>> {
        let number = match self.open.get(&kind) {
            Some(number) => *number,
            None => self.launch(kind)?,
        };
        let numbers = self.routes.entry(job).or_default();
        if !numbers.contains(&number) {
            numbers.push(number);
        }
        if self.routes.len() > ROUTES_MAX {
            self.routes.pop_first();
        }
        Ok(self.tell(number, Tell::Launch(Box::new(plan), until_ns)).into_iter().collect())
    }

    pub fn stop(&mut self, members: &[MemberId], grace_ms: u64) {
        for (number, keys) in self.routed(members) {
            self.tell(number, Tell::Stop { keys, grace_ms });
        }
    }

    pub fn renew(&mut self, members: &[MemberId], until_ns: u64) {
        for (number, keys) in self.routed(members) {
            self.tell(number, Tell::Renew { keys, until_ns });
        }
    }

    pub fn forget(&mut self, members: &[MemberId]) {
        for (number, keys) in self.routed(members) {
            self.tell(number, Tell::Forget(keys));
        }
    }

    /// Takes in what executors said. `handed_over` are the members of a kind that the ledger has told to start and that have not ended.
    pub fn said(&mut self, said: Said, handed_over: impl Fn(&Kind) -> Vec<MemberId>) -> io::Result<Vec<Event>> {
        match said {
            Said::Events(events) => Ok(told(events)),
            Said::Started { number, result: Ok(executor), .. } => Ok(self.here(number, executor)),
            Said::Started { number, tries, result: Err(error) } => self.not_started(number, tries, &error),
            Said::Used { number, used } => {
                self.heard_used(number, &used);
                Ok(Vec::new())
            }
            Said::Answers(answers) => {
                self.asks.answered(answers);
                Ok(Vec::new())
            }
            Said::Gone { number } => {
                self.heard_used(number, &[]);
                if let Some(slot) = self.slots.get_mut(&number) {
                    slot.state = State::Away(Vec::new());
                    self.look_for(number);
                }
                Ok(Vec::new())
            }
            Said::Found { number, result: Ok(Recovered::Living(executor)) } => Ok(self.here(number, executor)),
            Said::Found { number, result: Ok(Recovered::Dead(remains)) } => self.died(number, remains, handed_over),
            Said::Found { number, result: Err(error) } => {
                tracing::error!(%error, "an executor that cannot be read is given up, and its tasks with it");
                self.died(number, Remains::default(), handed_over)
            }
        }
    }

    /// Where the output of a member of an attempt may be.
    pub fn dirs_of(&self, member: MemberId) -> Vec<PathBuf> {
        let routed = self.routes.get(&member.attempt.task.job).into_iter().flatten();
        let all: Vec<u32> = routed.chain(self.slots.keys()).chain(self.dead.iter().rev()).copied().collect();
        let mut seen = BTreeSet::new();
        all.into_iter().filter(|number| seen.insert(*number)).map(|number| self.dir(number)).collect()
    }

    fn dir(&self, number: u32) -> PathBuf {
        self.settings.template.places().dir(Which::Wasm(number))
    }

    /// Ends executors that had no task at two looks in a row.
    pub fn retire_idle(&mut self, in_use: &BTreeSet<Kind>) {
        let idle: BTreeSet<u32> = self.open.iter().filter(|(kind, _)| !in_use.contains(kind)).map(|(_, number)| *number).collect();
        for number in idle.intersection(&self.idle) {
            let Some(slot) = self.slots.get_mut(number) else { continue };
            if let State::Here { commands, .. } = &mut slot.state {
                commands.retire();
                self.open.remove(&slot.row.kind);
            }
        }
        self.idle = idle;
    }

    /// Those that run: their roles and processes.
    pub fn processes(&self) -> Vec<(protocol::Role, u32)> {
        let here = |slot: &Slot| if let State::Here { pid, .. } = slot.state { Some((slot.row.kind.role.clone(), pid)) } else { None };
        self.slots.values().filter_map(here).collect()
    }

    /// The processes of those whose tasks have nothing that is lent.
    pub fn firm(&self) -> Vec<u32> {
        let firm = self.slots.values().filter(|slot| !slot.row.kind.revocable);
        firm.filter_map(|slot| if let State::Here { pid, .. } = slot.state { Some(pid) } else { None }).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Ends all of them, and their tasks with them.
    pub fn quit(&mut self) {
        for slot in self.slots.values_mut() {
            if let State::Here { commands, .. } = &mut slot.state {
                commands.quit();
            }
        }
    }

    /// Sends all that is queued, to each as far as it takes it: one that is slow holds up no other. Waits for the slowest; may be cancelled.
    pub async fn flush(&mut self) {
        let mut flushes: Vec<_> = self
            .slots
            .values_mut()
            .filter_map(|slot| if let State::Here { commands, .. } = &mut slot.state { Some(Box::pin(commands.flush())) } else { None })
            .collect();
        poll_fn(|context| {
            // One that is gone says so where it is heard.
            flushes.retain_mut(|flush| flush.as_mut().poll(context).is_pending());
            if flushes.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn launch(&mut self, kind: Kind) -> io::Result<u32> {
        let row = self.table.add(kind.clone(), self.settings.own_users)?;
        let number = row.number;
        self.open.insert(kind, number);
        self.slots.insert(number, Slot { row, state: State::Away(Vec::new()) });
        self.try_start(number, 1);
        Ok(number)
    }

    fn try_start(&self, number: u32, tries: u32) {
        let Some(slot) = self.slots.get(&number) else { return };
        let metering = match slot.row.kind.metering {
            protocol::Metering::Fuel => runtime::Metering::Fuel,
            protocol::Metering::Epoch => runtime::Metering::Epoch,
        };
        let spec = ExecutorSpec {
            number,
            role: slot.row.kind.role.to_string(),
            metering,
            uid: slot.row.uid,
            idle: slot.row.kind.revocable,
            tasks_max: u32::try_from(ATTEMPTS_HELD_MAX).expect("it fits"),
            memory_bytes_max: self.settings.memory_bytes_max,
            readable: self.settings.readable.clone(),
        };
        let (template, said) = (Arc::clone(&self.settings.template), self.said.clone());
        tokio::spawn(async move {
            if tries > 1 {
                tokio::time::sleep(START_RETRY).await;
            }
            let result = template.launch(spec).await;
            drop(said.send(Said::Started { number, tries, result }).await);
        });
    }

    fn not_started(&mut self, number: u32, tries: u32, error: &LaunchError) -> io::Result<Vec<Event>> {
        tracing::error!(%error, tries, "an executor did not start");
        let Some(slot) = self.slots.remove(&number) else { return Ok(Vec::new()) };
        let State::Away(pending) = slot.state else { return Ok(Vec::new()) };
        self.bury(number)?;
        if tries >= START_TRIES_MAX {
            self.open.remove(&slot.row.kind);
            let gone = pending.iter().flat_map(launched).map(|key| (member(key), LOST, Usage::default())).collect();
            return Ok(vec![Event::Ended { members: gone }]);
        }
        // A directory serves one try.
        let row = self.table.add(slot.row.kind.clone(), self.settings.own_users)?;
        let next = row.number;
        self.open.insert(slot.row.kind, next);
        self.routes.values_mut().flatten().filter(|routed| **routed == number).for_each(|routed| *routed = next);
        self.slots.insert(next, Slot { row, state: State::Away(pending) });
        self.try_start(next, tries + 1);
        Ok(Vec::new())
    }

    /// It lives: tells it what waited, and says what it holds.
    fn here(&mut self, number: u32, executor: Executor) -> Vec<Event> {
        let Executor { commands, events, held, hello } = executor;
        let Some(slot) = self.slots.get_mut(&number) else { return Vec::new() };
        let State::Away(pending) = std::mem::replace(&mut slot.state, State::Here { commands, pid: hello.pid }) else { return Vec::new() };
        listen(number, events, self.said.clone());
        for (key, _) in &held.live {
            let numbers = self.routes.entry(member(*key).attempt.task.job).or_default();
            if !numbers.contains(&number) {
                numbers.push(number);
            }
        }
        let mut said = holds(held);
        said.extend(pending.into_iter().filter_map(|tell| self.tell(number, tell)));
        said
    }

    fn tell(&mut self, number: u32, tell: Tell) -> Option<Event> {
        let slot = self.slots.get_mut(&number)?;
        let commands = match &mut slot.state {
            State::Here { commands, .. } => commands,
            State::Away(pending) => {
                pending.push(tell);
                return None;
            }
        };
        match tell {
            Tell::Launch(launch, until_ns) => {
                let keys: Vec<Key> = launch.starts.iter().map(|start| start.key).collect();
                let told = match until_ns {
                    Some(until_ns) => commands.launch_fenced(*launch, until_ns),
                    None => commands.launch(*launch),
                };
                let Err(TellError::TooLong { bytes, max }) = told else { return None };
                let reason = format!("arguments, environment and configuration take {bytes} bytes: at most {max} fit");
                let exit = Exit::Rejected { reason };
                Some(Event::Ended { members: keys.into_iter().map(|key| (member(key), exit.clone(), Usage::default())).collect() })
            }
            Tell::Renew { keys, until_ns } => {
                commands.renew(keys, until_ns);
                None
            }
            Tell::Stop { keys, grace_ms } => {
                commands.stop(keys, grace_ms);
                None
            }
            Tell::Forget(keys) => {
                commands.forget(keys);
                None
            }
        }
    }

    fn look_for(&self, number: u32) {
        let (template, said) = (Arc::clone(&self.settings.template), self.said.clone());
        tokio::spawn(async move {
            let result = find(&template, Which::Wasm(number)).await;
            drop(said.send(Said::Found { number, result }).await);
        });
    }

    /// All its tasks have ended: some as it wrote, the others with it. What it was not yet told goes to a new one.
    fn died(&mut self, number: u32, remains: Remains, handed_over: impl Fn(&Kind) -> Vec<MemberId>) -> io::Result<Vec<Event>> {
        let Some(Slot { row, state }) = self.slots.remove(&number) else { return Ok(Vec::new()) };
        self.bury(number)?;
        if self.open.get(&row.kind) != Some(&number) {
            return Ok(vec![left(remains)]); // It was told to retire, and had no task any more.
        }
        self.open.remove(&row.kind);
        let State::Away(pending) = state else { return Ok(vec![left(remains)]) };
        let untold: BTreeSet<MemberId> = pending.iter().flat_map(launched).map(member).collect();
        let mut events = vec![left(remains)];
        let lost = handed_over(&row.kind).into_iter().filter(|member| !untold.contains(member));
        // The ledger passes over those that the remains say more of.
        events.push(Event::Ended { members: lost.map(|member| (member, LOST, Usage::default())).collect() });
        if !untold.is_empty() {
            let next = self.launch(row.kind)?;
            self.routes.values_mut().flatten().filter(|routed| **routed == number).for_each(|routed| *routed = next);
            if let Some(slot) = self.slots.get_mut(&next) {
                slot.state = State::Away(pending);
            }
        }
        Ok(events)
    }

    /// It is dead; its output stays until too many are.
    fn bury(&mut self, number: u32) -> io::Result<()> {
        self.dead.push_back(number);
        while self.dead.len() > DEAD_MAX {
            let Some(oldest) = self.dead.pop_front() else { break };
            // A directory that no record speaks of is removed when an agent begins, at the latest.
            self.table.remove(oldest)?;
            let template = Arc::clone(&self.settings.template);
            tokio::spawn(async move {
                if let Err(error) = template.clear(Which::Wasm(oldest)).await {
                    tracing::warn!(%error, number = oldest, "what a dead executor left could not be cleared away");
                }
            });
            self.routes.retain(|_, numbers| {
                numbers.retain(|number| *number != oldest);
                !numbers.is_empty()
            });
        }
        Ok(())
    }

    /// Which executors may know which of these.
    fn routed(&self, members: &[MemberId]) -> BTreeMap<u32, Vec<Key>> {
        let mut routed: BTreeMap<u32, Vec<Key>> = BTreeMap::new();
        let mut last: Option<(JobId, Vec<u32>)> = None;
        for member in members {
            let job = member.attempt.task.job;
            let numbers = match last.take().filter(|(known, _)| *known == job) {
                Some((_, numbers)) => numbers,
                None => self.routes.get(&job).cloned().unwrap_or_else(|| self.slots.keys().copied().collect()),
            };
            for number in &numbers {
                routed.entry(*number).or_default().push(key(*member));
            }
            last = Some((job, numbers));
        }
        routed
    }
}

fn launched(tell: &Tell) -> Vec<Key> {
    let Tell::Launch(launch, _) = tell else { return Vec::new() };
    launch.starts.iter().map(|start| start.key).collect()
}

fn listen(number: u32, mut events: Events, said: mpsc::Sender<Said>) {
    let says = said.clone();
    // Where there is no room, whoever asked waits no longer than it would.
    events.hear_used(move |used| _ = says.try_send(Said::Used { number, used }));
    let says = said.clone();
    events.hear_answers(move |answers| _ = says.try_send(Said::Answers(answers)));
    tokio::spawn(async move {
        while let Some(events) = events.next().await {
            if said.send(Said::Events(events)).await.is_err() {
                return;
            }
        }
        drop(said.send(Said::Gone { number }).await);
    });
}
