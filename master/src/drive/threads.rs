//! The deciding threads: each with a runtime of its own that never leaves it, and the shards that it decides for.

use super::clock::Clock;
use super::decide::{Decider, Given};
use super::desk::Desk;
use super::door::Door;
use super::inbox::Inbox;
use super::{MasterConfig, StartError};
use crate::journal::{Group, JournalError, Log, Recovered};
use crate::shard::ShardConfig;
use protocol::{ShardId, Time};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};

/// Most deciding threads, whatever the cores.
const THREADS_MAX: usize = 16;
/// Cores for each deciding thread: agents, HTTP and the disk want the others.
const CORES_PER_THREAD: usize = 4;

/// The deciding threads.
pub struct Threads {
    /// The runtime of the first, on which HTTP and the link run too.
    pub first: Handle,
    /// To the shards.
    pub door: Door,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

/// A thread that has recovered its shards.
struct Ready {
    latest: Time,
    runtime: Handle,
    go: oneshot::Sender<Given>,
}

/// How many threads decide for `shards`.
fn count(config: &MasterConfig, shards: u16) -> usize {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    config.threads.unwrap_or(cores / CORES_PER_THREAD).clamp(1, THREADS_MAX.min(usize::from(shards)))
}

impl Threads {
    /// Recovers `shards` shards from `log` and the snapshots in `snapshots`, and lets them lead.
    ///
    /// # Errors
    /// [`StartError::Journal`] and [`StartError::Thread`].
    pub async fn start(config: &MasterConfig, shards: u16, log: Arc<Log>, snapshots: &Path) -> Result<Self, StartError> {
        let count = count(config, shards);
        let inboxes: Vec<_> = (0..count).map(|thread| Arc::new(Inbox::new(thread))).collect();
        let of_shards = (0..usize::from(shards)).map(|shard| Arc::clone(&inboxes[shard % count])).collect();
        let door = Door::new(of_shards, Arc::default());
        let (mut threads, mut starting) = (Vec::new(), Vec::new());
        for index in 0..count {
            let mine = (0..shards).filter(|shard| usize::from(*shard) % count == index);
            let configs = mine.map(|shard| ShardConfig { id: ShardId(shard), shards, ..config.shard_config.clone() }).collect();
            let (log, snapshots) = (Arc::clone(&log), snapshots.to_owned());
            let (ready, is_ready) = oneshot::channel();
            let guard = Fallen { door: door.clone() };
            let body = move || {
                let guard = guard;
                run(&log, &snapshots, configs, ready);
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
        let clock = Clock::start(ready.iter().map(|ready| ready.latest).max().unwrap_or(Time::ZERO));
        let stop = watch::Sender::new(false);
        let first = ready[0].runtime.clone();
        for (ready, inbox) in ready.into_iter().zip(inboxes) {
            let given = Given { door: door.clone(), inbox, clock, stop: stop.subscribe() };
            // A thread that ended meanwhile has said so.
            let _ = ready.go.send(given);
        }
        Ok(Self { first, door, stop, threads })
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
fn run(log: &Arc<Log>, snapshots: &Path, configs: Vec<ShardConfig>, ready: oneshot::Sender<Result<Ready, StartError>>) {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(StartError::Thread(error)))),
    };
    runtime.block_on(async {
        let (desks, latest) = match recover(log, snapshots.to_owned(), configs).await {
            Ok(recovered) => recovered,
            Err(error) => return drop(ready.send(Err(error.into()))),
        };
        let (go, given) = oneshot::channel();
        let _ = ready.send(Ok(Ready { latest, runtime: Handle::current(), go }));
        // No answer: another thread could not start.
        let desks = match given.await {
            Ok(given) => Decider::new(given, desks).run().await,
            Err(_) => desks,
        };
        for desk in desks {
            desk.group.close().await;
        }
    });
}

async fn recover(log: &Arc<Log>, snapshots: PathBuf, configs: Vec<ShardConfig>) -> Result<(Vec<Desk>, Time), JournalError> {
    let opening = configs.into_iter().map(|config| Group::open(log, &snapshots, config));
    let opened = futures::future::try_join_all(opening).await?;
    let latest = opened.iter().map(|(_, recovered)| recovered.latest).max().unwrap_or(Time::ZERO);
    let desk = |(group, Recovered { shard, .. })| Desk::new(shard, group);
    Ok((opened.into_iter().map(desk).collect(), latest))
}
