//! The door: the links, executors, timers and files on one side, the pure [`Ledger`] on the other. One loop on one thread: it takes all that
//! is there, has the ledger handle it, writes what is to be on record in one call, and only then starts and tells.

mod asks;
mod clock;
mod config;
mod devices;
mod executors;
mod ids;
mod leftovers;
mod measure;
mod open;
mod processes;
mod shape;
mod spec;
mod starts;
mod table;
mod telling;
mod turns;
mod uplink;
mod ways;
mod whole;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use protocol::message::{Launch, ToShard};
use protocol::{AgentId, AttemptId, MemberId};
use runtime::executor::process::Template;
use tokio::sync::{mpsc, oneshot};

use crate::checkpoint::Checkpoint;
use crate::fetch::{Fetcher, Prepared};
use crate::ledger::Ledger;
use crate::ledger::event::{Event, Output};
use crate::logs::Place;
use crate::usage::Watched;
use asks::{Answered, Asker};
use clock::Clock;
pub use config::{AgentConfig, AgentError};
use executors::{Executors, Said};
use measure::{Meter, Reading};
use processes::Processes;
pub use turns::Turns;
use uplink::Heard;
pub use ways::Ways;

/// What waits to be handled; whoever is faster waits himself.
const INBOX_MAX: usize = 256;
/// How often is looked for executors without tasks, while there are executors.
const IDLE_LOOK: Duration = Duration::from_secs(60);
/// How long an agent that ends its tasks waits until nothing is left of them.
const CLEAR_DEADLINE: Duration = Duration::from_secs(10);
/// How long an agent that leaves waits for its last words to be taken.
const LEAVE_DEADLINE: Duration = Duration::from_secs(1);

/// An agent that runs on a thread of its own. Dropped, it leaves, as by [`Agent::shutdown`].
#[derive(Debug)]
pub struct Agent {
    id: AgentId,
    stop: Option<oneshot::Sender<Ending>>,
    ended: oneshot::Receiver<Result<(), AgentError>>,
}

/// What becomes of the tasks when an agent is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// They go on, and are the next agent's that has this data directory.
    TasksGoOn,
    /// They end too.
    TasksEnd,
}

impl Agent {
    /// Who its certificate says that it is.
    #[must_use]
    pub fn id(&self) -> AgentId {
        self.id
    }

    /// Waits for its end: that a master sent it away, or an error.
    ///
    /// # Errors
    /// What ended it.
    pub async fn ended(&mut self) -> Result<(), AgentError> {
        (&mut self.ended).await.unwrap_or(Err(AgentError::Gone))
    }

    /// Has it say good-bye and waits until it is gone.
    ///
    /// # Errors
    /// What ended it before.
    pub async fn shutdown(mut self, ending: Ending) -> Result<(), AgentError> {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(ending); // It may have ended by itself.
        }
        self.ended().await
    }
}

/// Starts an agent on a thread of its own; returns once it has joined and found its tasks again.
///
/// # Errors
/// [`AgentError`].
pub async fn start(config: AgentConfig) -> Result<Agent, AgentError> {
    let (ready, is_ready) = oneshot::channel();
    let (say_ended, ended) = oneshot::channel();
    let (stop, stopped) = oneshot::channel();
    let serve = async move {
        let opened = Door::open(config).await;
        let door = match opened {
            Ok(door) => door,
            Err(error) => return drop(ready.send(Err(error))),
        };
        let _ = ready.send(Ok(door.agent));
        // Dropped by whoever started it, it leaves its tasks alone.
        let stopped = async { stopped.await.unwrap_or(Ending::TasksGoOn) };
        let _ = say_ended.send(door.serve(stopped).await);
    };
    let failed = |source| AgentError::File { step: "starting", path: "the agent's thread".into(), source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    thread::Builder::new().name("agent".into()).spawn(move || runtime.block_on(serve)).map_err(failed)?;
    let id = is_ready.await.map_err(|_| AgentError::Gone)??;
    Ok(Agent { id, stop: Some(stop), ended })
}

struct Door {
    agent: AgentId,
    /// What tasks are told of where they run.
    name: String,
    shape: shape::Shape,
    ledger: Ledger,
    checkpoint: Checkpoint,
    executors: Executors,
    processes: Processes,
    fetcher: Fetcher,
    clock: Clock,
    ways: Ways,
    /// Of the ways to the masters.
    turns: Turns,
    heard: mpsc::Receiver<Heard>,
    said: mpsc::Receiver<Said>,
    said_of_processes: mpsc::Receiver<processes::Said>,
    prepared: mpsc::Receiver<Prepared>,
    asker: Asker,
    answered: mpsc::Receiver<Answered>,
    /// Where what is idle is lent.
    meter: Option<Meter>,
    uplink: tokio::task::JoinHandle<()>,
    template: Arc<Template>,
    data_dir: PathBuf,
    quit: Option<AgentError>,
    /// Held for as long as the agent lives: no other may have its directory.
    _lock: std::fs::File,
}

/// What woke the loop.
enum Woken {
    Heard(Heard),
    Said(Said),
    SaidOfProcess(processes::Said),
    Prepared(Prepared),
    Answered(Answered),
    Measure,
    Measured(Reading),
    Flushed,
    Timer,
    IdleLook,
    Knock,
    Stop(Ending),
    TemplateGone,
}

impl Door {
    async fn serve(mut self, stop: impl Future<Output = Ending>) -> Result<(), AgentError> {
        let (template, mut dirty) = (Arc::clone(&self.template), true);
        let gone = template.gone();
        tokio::pin!(stop, gone);
        let (mut idle_look, mut knocked) = (tokio::time::interval(IDLE_LOOK), tokio::time::Instant::now());
        self.act()?;
        while self.quit.is_none() {
            let timer = self.ledger.poll_timeout().map(|at| self.clock.at(at));
            let knock = knocked + self.ways.knock_each(self.agent, self.ledger.heartbeat_ms());
            let woken = tokio::select! {
                biased;
                () = flush(&mut self.ways, &mut self.executors, &mut self.processes), if dirty => Woken::Flushed,
                Some(heard) = self.heard.recv() => Woken::Heard(heard),
                Some(said) = self.said.recv() => Woken::Said(said),
                Some(said) = self.said_of_processes.recv() => Woken::SaidOfProcess(said),
                Some(prepared) = self.prepared.recv() => Woken::Prepared(prepared),
                Some(answered) = self.answered.recv() => Woken::Answered(answered),
                woken = measure::next(self.meter.as_mut()) => woken,
                () = tokio::time::sleep_until(timer.unwrap_or_else(tokio::time::Instant::now)), if timer.is_some() => Woken::Timer,
                _ = idle_look.tick(), if !self.executors.is_empty() => Woken::IdleLook,
                () = tokio::time::sleep_until(knock) => Woken::Knock,
                ending = &mut stop => Woken::Stop(ending),
                () = &mut gone => Woken::TemplateGone,
            };
            match woken {
                Woken::Flushed => {
                    dirty = false;
                    continue;
                }
                Woken::Knock => {
                    self.ways.knock(self.agent);
                    knocked = tokio::time::Instant::now();
                    continue;
                }
                Woken::Heard(heard) => self.hear(heard),
                Woken::Said(said) => self.take_said(said)?,
                Woken::SaidOfProcess(said) => self.take_said_of_process(said),
                Woken::Prepared(prepared) => self.take_prepared(prepared),
                Woken::Answered(answered) => self.take_answered(answered),
                Woken::Measure => {
                    self.measure();
                    continue;
                }
                Woken::Measured(Reading { used, unread }) => self.ledger.handle(self.clock.now(), Event::Measured { used, unread }),
                Woken::Timer => self.ledger.handle(self.clock.now(), Event::Tick),
                Woken::IdleLook => {
                    let in_use: BTreeSet<_> =
                        self.ledger.attempts().flat_map(|(_, launch, _)| table::kinds(launch)).map(|(kind, _)| kind).collect();
                    self.executors.retire_idle(&in_use);
                }
                Woken::Stop(ending) => return self.leave(ending).await,
                Woken::TemplateGone => self.quit = Some(AgentError::Template),
            }
            self.take_waiting()?;
            self.act()?;
            if self.turns.take(self.agent, &self.ways, &self.ledger) {
                knocked = tokio::time::Instant::now();
            }
            dirty = true;
        }
        let quit = self.quit.take().unwrap_or(AgentError::Gone);
        // Nobody owns the tasks of an agent that is gone for good: they were placed anew.
        let ending = if matches!(quit, AgentError::Revoked { .. }) { Ending::TasksEnd } else { Ending::TasksGoOn };
        self.leave(ending).await?;
        Err(quit)
    }

    /// Handles all that is there already, so that it goes to the record and to each peer in one piece.
    fn take_waiting(&mut self) -> Result<(), AgentError> {
        for _ in 0..INBOX_MAX {
            let mut any = false;
            if let Ok(said) = self.said.try_recv() {
                self.take_said(said)?;
                any = true;
            }
            if let Ok(said) = self.said_of_processes.try_recv() {
                self.take_said_of_process(said);
                any = true;
            }
            if let Ok(heard) = self.heard.try_recv() {
                self.hear(heard);
                any = true;
            }
            if let Ok(prepared) = self.prepared.try_recv() {
                self.take_prepared(prepared);
                any = true;
            }
            if !any {
                break;
            }
        }
        Ok(())
    }

    fn hear(&mut self, heard: Heard) {
        let now = self.clock.now();
        match heard {
            Heard::Up { master, shards, connection, sender } => {
                let events = self.ways.up(master, shards, connection, sender);
                events.into_iter().for_each(|event| self.ledger.handle(now, event));
            }
            Heard::Down { master } => self.ways.down(master).into_iter().for_each(|event| self.ledger.handle(now, event)),
            Heard::Messages { master, messages } => {
                self.ways.heard(master, messages).into_iter().for_each(|event| self.ledger.handle(now, event));
            }
            Heard::Revoked => self.quit = Some(AgentError::Revoked { agent: self.agent, dir: self.data_dir.clone() }),
            Heard::Usage { answer } => {
                let (tasks, executors) = (self.processes.running(), self.executors.processes());
                let watched = Watched { tasks, executors, used: Some(self.executors.ask_usage()) };
                let _ = answer.send(watched); // Whoever asked may be gone.
            }
            Heard::Change { change, answer } => {
                let done = self.change(change);
                let _ = answer.send(done); // Whoever asked may be gone.
            }
            Heard::Exec { member, command, terminal, answer } => self.processes.exec(member, command, terminal, answer),
            Heard::WhereIsLog { member, answer } => {
                let live = self.ledger.is_live(member.attempt);
                let mut dirs = self.executors.dirs_of(member);
                dirs.push(self.processes.home());
                let _ = answer.send(Place { dirs, live }); // Whoever asked may be gone.
            }
        }
    }

    fn take_said(&mut self, said: Said) -> Result<(), AgentError> {
        let ledger = &self.ledger;
        let handed_over = |wanted: &table::Kind| {
            let of = |(attempt, launch): (AttemptId, &Arc<Launch>)| {
                let wanted = table::kinds(launch).filter(|(kind, _)| kind == wanted);
                wanted.map(|(_, member)| MemberId { attempt, member }).collect::<Vec<_>>()
            };
            ledger.handed_over().flat_map(of).collect()
        };
        let events = self.executors.said(said, handed_over);
        let events = events.map_err(|source| self.executors_error(source))?;
        let now = self.clock.now();
        events.into_iter().for_each(|event| self.ledger.handle(now, event));
        Ok(())
    }

    fn take_said_of_process(&mut self, said: processes::Said) {
        let now = self.clock.now();
        self.processes.said(said).into_iter().for_each(|event| self.ledger.handle(now, event));
    }

    fn take_prepared(&mut self, prepared: Prepared) {
        let (bundle, form) = (prepared.bundle, prepared.form);
        let links = self.ways.links(self.agent);
        let ledger = &self.ledger;
        let (result, evicted) = self.fetcher.prepared(prepared, links, |digest| ledger.uses(digest));
        if let Err(reason) = &result {
            tracing::warn!(%bundle, ?reason, "a bundle could not be prepared");
        }
        let now = self.clock.now();
        evicted.into_iter().for_each(|bundle| self.ledger.handle(now, Event::Evicted { bundle }));
        self.ledger.handle(now, Event::Prepared { bundle, form, result });
    }

    /// Does what the ledger wants, in order: all records first, in one write, since nothing may be done before its record is written.
    fn act(&mut self) -> Result<(), AgentError> {
        loop {
            let mut outputs = Vec::new();
            while let Some(output) = self.ledger.poll_output() {
                match output {
                    Output::Checkpoint(record) => self.checkpoint.queue(&record),
                    output => outputs.push(output),
                }
            }
            self.checkpoint.write()?;
            if outputs.is_empty() {
                break;
            }
            for output in outputs {
                self.perform(output)?;
            }
        }
        if self.checkpoint.is_due() {
            self.checkpoint.replace(&self.ledger.snapshot())?;
        }
        Ok(())
    }

    fn perform(&mut self, output: Output) -> Result<(), AgentError> {
        match output {
            Output::Checkpoint(_) => unreachable!("records are taken out before"),
            Output::Send { shard, message } => {
                let events = self.ways.send(ToShard { shard, message });
                let now = self.clock.now();
                events.into_iter().for_each(|event| self.ledger.handle(now, event));
            }
            Output::Prepare { bundle, form } => self.fetcher.prepare(bundle, form, self.ways.links(self.agent)),
            Output::Start(start) => self.start(start)?,
            Output::Check(questions) => questions.into_iter().for_each(|question| self.ask(question)),
            Output::Stop { members, grace_ms } => {
                self.executors.stop(&members, grace_ms);
                self.processes.stop(&members, grace_ms);
            }
            Output::Renew { members, until } => {
                let until_ns = self.clock.boot_ns(until);
                self.executors.renew(&members, until_ns);
                self.processes.renew(&members, until_ns);
            }
            Output::Forget { members } => {
                self.executors.forget(&members);
                self.processes.forget(&members);
            }
            Output::Message { members, bytes } => {
                self.executors.message(&members, &bytes);
                self.processes.message(&members, &bytes);
            }
            Output::Quit { reason } => self.quit = Some(AgentError::Refused { reason }),
        }
        Ok(())
    }

    fn executors_error(&self, source: std::io::Error) -> AgentError {
        AgentError::File { step: "keeping executors in", path: self.template.places().executors(), source }
    }

    async fn leave(mut self, ending: Ending) -> Result<(), AgentError> {
        if ending == Ending::TasksEnd {
            self.executors.quit();
            self.processes.quit();
        }
        self.ways.leave(self.agent);
        let _ = tokio::time::timeout(LEAVE_DEADLINE, flush(&mut self.ways, &mut self.executors, &mut self.processes)).await;
        self.uplink.abort();
        if ending == Ending::TasksEnd {
            let _ = tokio::time::timeout(CLEAR_DEADLINE, self.processes.clear_all()).await;
        }
        self.ways.close("the agent ends");
        Ok(())
    }
}

/// Sends all that is queued, to masters and to executors alike: none waits for another.
async fn flush(ways: &mut Ways, executors: &mut Executors, processes: &mut Processes) {
    tokio::join!(ways.flush(), executors.flush(), processes.flush());
}
