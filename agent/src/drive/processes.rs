//! This agent's native and container tasks: an executor for each, forked from the template. Starts them, so many at a time; finds them again;
//! tells each what the ledger wants; clears away what they leave.

use bytes::Bytes;
use protocol::{Exit, MemberId, Usage};
use runtime::executor::lease::boot_ns;
use runtime::executor::process::session::Session;
use runtime::executor::process::{self, Template, Which};
use runtime::executor::{Commands, Events, Executor, ExecutorEvent, LaunchError, Recovered};
use runtime::process::ProcessSpec;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::ids::IdRanges;
use super::leftovers::{Leftovers, Life};
use super::telling::{LOST, find, holds, left, told};
use crate::ledger::event::Event;
use crate::logs::{key, member};

/// Tasks that are being started at the same time: enough for all cores, and few enough that each is quick.
const STARTING_MAX: usize = 16;
/// So often a task's executor is tried to be started; then the task is given up.
const START_TRIES_MAX: u32 = 3;
/// The wait between two tries.
const START_RETRY: Duration = Duration::from_millis(500);
/// Directories that are looked at at the same time when an agent begins.
const FINDING_MAX: usize = 64;

/// What executors of processes, or those who start them, say.
pub(super) enum Said {
    /// One was started, or was not.
    Launched { member: MemberId, tries: u32, spec: Box<ProcessSpec>, result: Result<Executor, LaunchError> },
    /// What happened in one.
    Events(Vec<ExecutorEvent>),
    /// Its connection ended.
    Gone { member: MemberId },
    /// What became of one whose connection ended.
    Found { member: MemberId, result: Result<Recovered, LaunchError> },
    /// Of these nothing is left but their output.
    Cleared(Vec<MemberId>),
}

pub(super) struct Processes {
    template: Arc<Template>,
    slots: BTreeMap<MemberId, Slot>,
    /// Those that wait to be started.
    waiting: VecDeque<(MemberId, u32, Box<ProcessSpec>)>,
    starting: usize,
    /// Those whose commands are to be sent.
    unsent: BTreeSet<MemberId>,
    ids: IdRanges,
    leftovers: Leftovers,
    said: mpsc::Sender<Said>,
}

struct Slot {
    state: State,
    /// The first of its ids, where it has its own.
    ids: Option<u32>,
    /// When its lease is over unless it is renewed, by [`boot_ns`]; of one that is fenced and was started by this agent.
    until_ns: Option<u64>,
    forgotten: bool,
}

enum State {
    /// It waits, is being started, or is looked for; whether it is to stop then.
    Away {
        stop: Option<u64>,
    },
    Here(Commands),
    /// Its executor is gone, and its end is known; in whose time it went.
    Dead(Life),
    /// What it left is being cleared away.
    Clearing,
}

impl Processes {
    pub fn open(template: Arc<Template>, said: mpsc::Sender<Said>) -> io::Result<Self> {
        let leftovers = Leftovers::start(Arc::clone(&template), said.clone())?;
        Ok(Self {
            template,
            slots: BTreeMap::new(),
            waiting: VecDeque::new(),
            starting: 0,
            unsent: BTreeSet::new(),
            ids: IdRanges::default(),
            leftovers,
            said,
        })
    }

    /// Finds all tasks of earlier lives of this agent: what they hold, and what dead executors left.
    pub async fn recover(&mut self) -> io::Result<Vec<Event>> {
        let live = fs::read_dir(self.template.places().live())?.collect::<io::Result<Vec<_>>>()?;
        let mut directories = live.into_iter().map(|entry| entry.path());
        let mut finding = JoinSet::new();
        let mut events = Vec::new();
        loop {
            while finding.len() < FINDING_MAX {
                let Some(dir) = directories.next() else { break };
                let Some(member) = named(&dir) else {
                    tracing::warn!(dir = %dir.display(), "left alone: no executor's directory has such a name");
                    continue;
                };
                let template = Arc::clone(&self.template);
                finding.spawn(async move { (member, process::ids(&dir), find(&template, which(member)).await) });
            }
            let Some(found) = finding.join_next().await else { return Ok(events) };
            let (member, ids, result) = found.map_err(io::Error::other)?;
            if let Some(ids) = ids {
                self.ids.take_up(ids);
            }
            self.slots.insert(member, Slot { state: State::Away { stop: None }, ids, until_ns: None, forgotten: false });
            events.extend(self.found(member, result, Life::Any));
        }
    }

    /// The first of the ids for a new task; `None`: none is free.
    pub fn ids(&mut self) -> Option<u32> {
        self.ids.take()
    }

    /// Gives ids back with which nothing was started.
    pub fn put_back(&mut self, ids: u32) {
        self.ids.put_back(ids);
    }

    /// Has a task started. One that is here already is left as it is.
    /// `until_ns`: when its lease is over, by [`boot_ns`], where it is fenced.
    pub fn start(&mut self, member: MemberId, spec: ProcessSpec, until_ns: Option<u64>) {
        if self.slots.contains_key(&member) {
            return;
        }
        self.slots.insert(member, Slot { state: State::Away { stop: None }, ids: spec.ids.outside, until_ns, forgotten: false });
        self.waiting.push_back((member, 1, Box::new(spec)));
        self.start_waiting();
    }

    pub fn stop(&mut self, members: &[MemberId], grace_ms: u64) {
        for member in members {
            match self.slots.get_mut(member).map(|slot| &mut slot.state) {
                Some(State::Here(commands)) => {
                    commands.stop(vec![key(*member)], grace_ms);
                    self.unsent.insert(*member);
                }
                Some(State::Away { stop }) => *stop = Some(stop.map_or(grace_ms, |earlier| earlier.min(grace_ms))),
                _ => {}
            }
        }
    }

    pub fn renew(&mut self, members: &[MemberId], until_ns: u64) {
        for member in members {
            let Some(slot) = self.slots.get_mut(member) else { continue };
            // One that is over before it began is not started.
            if let Some(held) = slot.until_ns.as_mut().filter(|held| **held > boot_ns()) {
                *held = until_ns.max(*held);
            }
            if let State::Here(commands) = &mut slot.state {
                commands.renew(vec![key(*member)], until_ns);
                self.unsent.insert(*member);
            }
        }
    }

    pub fn forget(&mut self, members: &[MemberId]) {
        for member in members {
            let Some(slot) = self.slots.get_mut(member) else { continue };
            slot.forgotten = true;
            match &mut slot.state {
                State::Here(commands) => {
                    commands.forget(vec![key(*member)]);
                    self.unsent.insert(*member);
                }
                State::Dead(ended) => {
                    let ended = *ended;
                    self.clear(*member, ended);
                }
                State::Away { .. } | State::Clearing => {}
            }
        }
    }

    /// What its framework says to these of them that are processes. May be lost: nothing waits for an executor that is away, or that does not read.
    pub fn message(&mut self, members: &[MemberId], bytes: &Bytes) {
        for member in members {
            if let Some(State::Here(commands)) = self.slots.get_mut(member).map(|slot| &mut slot.state)
                && commands.message(key(*member), bytes.clone())
            {
                self.unsent.insert(*member);
            }
        }
    }

    /// Takes in what executors said.
    pub fn said(&mut self, said: Said) -> Vec<Event> {
        match said {
            Said::Events(events) => told(events),
            Said::Launched { member, tries, spec, result } => {
                self.starting -= 1;
                let events = match result {
                    Ok(executor) => self.here(member, executor),
                    Err(error) => self.not_started(member, tries, spec, &error),
                };
                self.start_waiting();
                events
            }
            Said::Gone { member } => {
                let Some(slot) = self.slots.get_mut(&member) else { return Vec::new() };
                if slot.forgotten {
                    self.clear(member, Life::Ours);
                } else {
                    slot.state = State::Away { stop: None };
                    let (template, said) = (Arc::clone(&self.template), self.said.clone());
                    tokio::spawn(async move {
                        let result = find(&template, which(member)).await;
                        drop(said.send(Said::Found { member, result }).await);
                    });
                }
                Vec::new()
            }
            Said::Found { member, result } => self.found(member, result, Life::Ours),
            Said::Cleared(members) => {
                for member in members {
                    if let Some(ids) = self.slots.remove(&member).and_then(|slot| slot.ids) {
                        self.ids.put_back(ids);
                    }
                }
                Vec::new()
            }
        }
    }

    /// Starts a program beside a task, and answers with the stream to it, or why there is none.
    pub fn exec(
        &mut self,
        member: MemberId,
        command: Vec<String>,
        terminal: Option<(u16, u16)>,
        answer: oneshot::Sender<Result<UnixStream, String>>,
    ) {
        let lives = self.slots.get(&member).is_some_and(|slot| matches!(slot.state, State::Here(_)) && !slot.forgotten);
        if !lives || command.is_empty() {
            let reason = if lives { "no program is named" } else { "no native or container task of this name runs here" };
            return drop(answer.send(Err(reason.into())));
        }
        let session = Session { key: key(member), command, terminal };
        let template = Arc::clone(&self.template);
        tokio::spawn(async move {
            let started = template.session(session).await;
            drop(answer.send(started.map_err(|error| format!("the agent's template: {error}")))); // Whoever asked may be gone.
        });
    }

    /// What comes to a stream to a program that is to run beside a task, once it is waited for; or why there will be none.
    pub fn session(
        &self,
        member: MemberId,
        command: Vec<String>,
    ) -> Result<impl Future<Output = Result<UnixStream, String>> + Send + use<>, String> {
        if !self.slots.get(&member).is_some_and(|slot| matches!(slot.state, State::Here(_)) && !slot.forgotten) {
            return Err("its executor is not here".into());
        }
        let session = Session { key: key(member), command, terminal: None };
        let template = Arc::clone(&self.template);
        Ok(async move { template.session(session).await.map_err(|error| format!("the agent's template: {error}")) })
    }

    /// Tasks that run, and their executors' directories.
    pub fn running(&self) -> Vec<(MemberId, PathBuf)> {
        let here = self.slots.iter().filter(|(_, slot)| matches!(slot.state, State::Here(_)) && !slot.forgotten);
        here.map(|(member, _)| (*member, self.template.places().dir(which(*member)))).collect()
    }

    /// Where output of all tasks is.
    pub fn home(&self) -> PathBuf {
        self.template.places().processes()
    }

    /// Ends all tasks.
    pub fn quit(&mut self) {
        self.waiting.clear();
        for (member, slot) in &mut self.slots {
            match &mut slot.state {
                State::Here(commands) => {
                    commands.quit();
                    self.unsent.insert(*member);
                }
                State::Away { stop } => *stop = Some(0),
                State::Dead(_) | State::Clearing => {}
            }
        }
    }

    /// Removes what no task needs once all have ended with this agent. The template removes the rest at its own end.
    pub async fn clear_all(self) {
        for member in self.slots.keys() {
            let _ = self.template.clear(which(*member)).await; // What cannot be cleared now is when an agent begins here again.
        }
    }

    /// Sends all that is queued, to each as far as it takes it. May be cancelled.
    pub async fn flush(&mut self) {
        let (slots, unsent) = (&mut self.slots, &mut self.unsent);
        poll_fn(|context| {
            unsent.retain(|member| match slots.get_mut(member).map(|slot| &mut slot.state) {
                // One that is gone says so where it is heard.
                Some(State::Here(commands)) => pin!(commands.flush()).poll(context).is_pending(),
                _ => false,
            });
            if unsent.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn start_waiting(&mut self) {
        while self.starting < STARTING_MAX {
            let Some((member, tries, spec)) = self.waiting.pop_front() else { return };
            self.starting += 1;
            let until_ns = self.slots.get(&member).and_then(|slot| slot.until_ns);
            let (template, said) = (Arc::clone(&self.template), self.said.clone());
            tokio::spawn(async move {
                if tries > 1 {
                    tokio::time::sleep(START_RETRY).await;
                }
                let result = match until_ns {
                    Some(until_ns) => template.start_fenced(&spec, until_ns).await,
                    None => template.start(&spec).await,
                };
                drop(said.send(Said::Launched { member, tries, spec, result }).await);
            });
        }
    }

    fn not_started(&mut self, member: MemberId, tries: u32, spec: Box<ProcessSpec>, error: &LaunchError) -> Vec<Event> {
        tracing::error!(%error, tries, "the executor of a task did not start");
        // It may be the template that was killed: another takes its place.
        if tries < START_TRIES_MAX {
            self.waiting.push_back((member, tries + 1, spec));
            return Vec::new();
        }
        if let Some(slot) = self.slots.get_mut(&member) {
            slot.state = State::Dead(Life::Any);
        }
        vec![Event::Ended { members: vec![(member, LOST, Usage::default())] }]
    }

    /// It lives: tells it what waited, and says what it holds.
    fn here(&mut self, member: MemberId, executor: Executor) -> Vec<Event> {
        let Executor { mut commands, events, held, .. } = executor;
        let Some(slot) = self.slots.get_mut(&member) else { return Vec::new() };
        if let State::Away { stop: Some(grace_ms) } = slot.state {
            commands.stop(vec![key(member)], grace_ms);
            self.unsent.insert(member);
        }
        if let Some(until_ns) = slot.until_ns {
            commands.renew(vec![key(member)], until_ns); // It may have been renewed while it was started.
            self.unsent.insert(member);
        }
        if slot.forgotten {
            commands.forget(vec![key(member)]);
            self.unsent.insert(member);
        }
        slot.state = State::Here(commands);
        listen(member, events, self.said.clone());
        holds(held)
    }

    fn found(&mut self, member: MemberId, result: Result<Recovered, LaunchError>, ended: Life) -> Vec<Event> {
        let remains = match result {
            Ok(Recovered::Living(executor)) => return self.here(member, executor),
            Ok(Recovered::Dead(remains)) => remains,
            Err(error) => {
                tracing::error!(%error, "an executor that cannot be read is given up, and its task with it");
                runtime::executor::Remains { ended: vec![], lost: vec![key(member)] }
            }
        };
        let Some(slot) = self.slots.get_mut(&member) else { return Vec::new() };
        slot.state = State::Dead(ended);
        if slot.forgotten {
            self.clear(member, ended);
            return Vec::new();
        }
        // A directory without a record: it ended before the task was on record, and nothing of it ran.
        if remains.ended.is_empty() && remains.lost.is_empty() {
            return vec![Event::Ended { members: vec![(member, LOST, Usage::default())] }];
        }
        vec![left(remains)]
    }

    fn clear(&mut self, member: MemberId, ended: Life) {
        if let Some(slot) = self.slots.get_mut(&member) {
            slot.state = State::Clearing;
        }
        self.leftovers.clear(member, ended);
    }
}

/// Says that members which cannot be started ended so.
pub(super) fn rejected(members: impl Iterator<Item = MemberId>, reason: &str) -> Event {
    let exit = Exit::Rejected { reason: reason.to_owned() };
    Event::Ended { members: members.map(|member| (member, exit.clone(), Usage::default())).collect() }
}

fn which(member: MemberId) -> Which {
    Which::Process(key(member))
}

/// Whose directory this is.
fn named(dir: &Path) -> Option<MemberId> {
    let name = dir.file_name()?.to_str()?;
    let number = u128::from_str_radix(name, 16).ok()?;
    (name.len() == 32).then(|| member(runtime::Key(number)))
}

fn listen(member: MemberId, mut events: Events, said: mpsc::Sender<Said>) {
    tokio::spawn(async move {
        while let Some(events) = events.next().await {
            if said.send(Said::Events(events)).await.is_err() {
                return;
            }
        }
        drop(said.send(Said::Gone { member }).await);
    });
}
