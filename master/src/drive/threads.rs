//! The deciding threads: each with a runtime of its own that never leaves it, and the shards that it decides for. A master that has others
//! keeps the port, the masters' connections and the journal's groups on one more, and the agents' connections on another: what masters promise
//! each other runs out within tenths of a second, a job of ten thousands of tasks takes as long to decide, and thousands of agents that register
//! with a new leader as long to hear. A master that is alone saves itself the way from one to the other.

use super::clock::Clock;
use super::decide::{Decider, Given};
use super::desk::Desk;
use super::door::Door;
use super::inbox::Inbox;
use super::{MasterConfig, StartError};
use crate::journal::{Group, JournalError, Log, Seat, Turns};
use crate::peers::Peers;
use crate::shard::ShardConfig;
use protocol::ShardId;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot, watch};

/// Most deciding threads, whatever the cores.
const THREADS_MAX: usize = 16;
/// Cores for each deciding thread: agents, HTTP and the disk want the others.
const CORES_PER_THREAD: usize = 4;

/// The deciding threads.
pub struct Threads {
    /// The runtime of the first, on which HTTP runs too.
    pub first: Handle,
    /// The runtime that the port and what masters say to each other run on.
    pub link: Handle,
    /// The runtime that agents' connections run on.
    pub agents: Handle,
    /// To the shards.
    pub door: Door,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

/// A thread that has opened its shards' groups.
struct Ready {
    runtime: Handle,
    go: oneshot::Sender<Given>,
}

/// How many threads decide for `shards`.
fn count(config: &MasterConfig, shards: u16) -> usize {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    config.threads.unwrap_or(cores / CORES_PER_THREAD).clamp(1, THREADS_MAX.min(usize::from(shards)))
}

/// What the deciding threads open.
pub struct Opening {
    /// How many shards there are.
    pub shards: u16,
    /// The journal.
    pub log: Arc<Log>,
    /// Where snapshots are.
    pub snapshots: PathBuf,
    /// What the groups have in common.
    pub seat: Seat,
    /// The other masters.
    pub peers: Arc<Peers>,
    /// True where this master had others when it ended, or joins some.
    pub has_others: bool,
    /// True where this is the first master of a new cluster, or the only one it ever had: it makes the groups where they are not made.
    pub founds: bool,
}

impl Threads {
    /// Opens the groups, and lets this master lead those that it is to lead.
    ///
    /// # Errors
    /// [`StartError::Journal`] and [`StartError::Thread`].
    pub async fn start(config: &MasterConfig, opening: Opening) -> Result<Self, StartError> {
        let opening = Arc::new(opening);
        let shards = opening.shards;
        let count = count(config, shards);
        let inboxes: Vec<_> = (0..count).map(|thread| Arc::new(Inbox::new(thread))).collect();
        let of_shards = (0..usize::from(shards)).map(|shard| Arc::clone(&inboxes[shard % count])).collect();
        let beside = |name| if opening.has_others { Beside::start(name).map(Some) } else { Ok(None) };
        let (link, link_thread) = beside("link")?.unzip();
        let (agents, agents_thread) = beside("agents")?.unzip();
        let clock = Clock::start();
        let door = Door::new(of_shards, Arc::clone(&opening.peers), clock.clone());
        let (mut threads, mut starting) = (Vec::new(), Vec::new());
        for index in 0..count {
            let mine = (0..shards).filter(|shard| usize::from(*shard) % count == index);
            let configs = mine.map(|shard| ShardConfig { id: ShardId(shard), shards, ..config.shard_config.clone() }).collect();
            let (opening, link, held) = (Arc::clone(&opening), link.clone(), agents.clone());
            let (ready, is_ready) = oneshot::channel();
            let guard = Fallen { door: door.clone() };
            let body = move || {
                let guard = guard;
                run(&opening, configs, link.as_ref(), ready);
                drop(held);
                std::mem::forget(guard);
            };
            threads.push(thread::Builder::new().name(format!("shards-{index}")).spawn(body).map_err(StartError::Thread)?);
            starting.push(is_ready);
        }
        let mut ready = Vec::new();
        for thread in starting {
            let fallen = |_| StartError::Thread(std::io::Error::other("a deciding thread panicked"));
            ready.push(thread.await.map_err(fallen)??);
        }
        let stop = watch::Sender::new(false);
        let first = ready[0].runtime.clone();
        for (ready, inbox) in ready.into_iter().zip(inboxes) {
            let given = Given { door: door.clone(), inbox, clock: clock.clone(), stop: stop.subscribe() };
            // A thread that ended meanwhile has said so.
            let _ = ready.go.send(given);
        }
        let or_first = |beside: Option<Beside>| beside.map_or_else(|| first.clone(), |beside| beside.runtime);
        let (link, agents) = (or_first(link), or_first(agents));
        // They end when those that decide have, and with them all that their tasks hold of the journal.
        threads.extend(agents_thread.into_iter().chain(link_thread));
        Ok(Self { first, link, agents, door, stop, threads })
    }

    /// Lets them end. What is not durable then is told to nobody.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until they have ended. Blocks.
    pub fn join(self) {
        for thread in self.threads {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// A thread beside those that decide, with a runtime, for as long as somebody holds it.
#[derive(Clone)]
struct Beside {
    runtime: Handle,
    _held: mpsc::Sender<()>,
}

impl Beside {
    fn start(name: &str) -> Result<(Self, JoinHandle<()>), StartError> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
        let (held, mut is_held) = mpsc::channel(1);
        let beside = Self { runtime: runtime.handle().clone(), _held: held };
        let body = move || runtime.block_on(async { while is_held.recv().await.is_some() {} });
        let thread = thread::Builder::new().name(name.into()).spawn(body).map_err(StartError::Thread)?;
        Ok((beside, thread))
    }
}

/// Says that nothing is decided any more where a thread ends by a panic.
struct Fallen {
    door: Door,
}

impl Drop for Fallen {
    fn drop(&mut self) {
        self.door.stop("a deciding thread panicked: that is a bug".into());
    }
}

/// One thread from its first breath to its last.
fn run(opening: &Arc<Opening>, configs: Vec<ShardConfig>, link: Option<&Beside>, ready: oneshot::Sender<Result<Ready, StartError>>) {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(StartError::Thread(error)))),
    };
    runtime.block_on(async {
        let desks = match open(opening, configs, link).await {
            Ok(desks) => desks,
            Err(error) => return drop(ready.send(Err(error.into()))),
        };
        let (go, given) = oneshot::channel();
        let _ = ready.send(Ok(Ready { runtime: Handle::current(), go }));
        // No answer: another thread could not start.
        let desks = match given.await {
            Ok(given) => Decider::new(given, desks).run().await,
            Err(_) => desks.into_iter().map(|(desk, _)| desk).collect(),
        };
        for desk in desks {
            opening.peers.unseat(desk.id.0);
            desk.group.close().await;
        }
    });
}

/// Opens the groups of these shards, on the link's thread where that has one.
async fn open(opening: &Arc<Opening>, configs: Vec<ShardConfig>, link: Option<&Beside>) -> Result<Vec<(Desk, Turns)>, JournalError> {
    let on = link.map_or_else(Handle::current, |link| link.runtime.clone());
    let opened = configs.into_iter().map(|config| on.spawn(open_group(Arc::clone(opening), config)));
    let opened = futures::future::join_all(opened).await.into_iter();
    opened.map(|opened| opened.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))).collect()
}

async fn open_group(opening: Arc<Opening>, config: ShardConfig) -> Result<(Desk, Turns), JournalError> {
    let id = config.id;
    let (group, turns) = Group::open(&opening.log, &opening.snapshots, config, &opening.seat).await?;
    opening.peers.seat(id.0, group.member());
    if opening.founds {
        group.found(&opening.peers.own().quic).await?;
    }
    Ok((Desk::new(id, group), turns))
}
