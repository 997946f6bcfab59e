//! The journals of one master or three in this process: real groups, logs and flushes. The first master leads all shards. Where there are
//! three, their groups are on threads of their own, as in masters, and what masters say to each other is carried in the bytes that it has on
//! the wire.

use super::{LED_WITHIN, Size};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use master::drive::Timing;
use master::drive::desk::Desk;
use master::journal::network::{Answer, Ask, Carrier};
use master::journal::{Fate, Group, JournalError, Log, LogConfig, Member, Seat, Turn, Turns};
use master::shard::ShardConfig;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};

/// The master that leads.
const LEADER: u64 = 1;
/// The wait before a group is asked again.
const LOOK: Duration = Duration::from_millis(20);
/// While tasks are placed nobody else is to lead, however long this thread decides.
pub const PATIENT: Timing = Timing { heartbeat_ms: 75, lease_ms: 5_000, election_ms: 150 };

/// What carries questions from master to master.
#[derive(Default)]
struct Wires(Mutex<HashMap<(u64, u16), Member>>);

impl fmt::Debug for Wires {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wires")
    }
}

impl Wires {
    fn find(&self, master: u64, shard: u16) -> Option<Member> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&(master, shard)).cloned()
    }
}

impl Carrier for Wires {
    fn carry(&self, to: u64, group: u16, ask: Ask) -> BoxFuture<'static, Option<Answer>> {
        let member = self.find(to, group);
        async move {
            let answer = member?.answer(carried(&ask)).await;
            Some(carried(&answer))
        }
        .boxed()
    }
}

/// What comes out where this goes in.
fn carried<T: serde::Serialize + serde::de::DeserializeOwned>(said: &T) -> T {
    let bytes = postcard::to_allocvec(said).expect("messages have no type that postcard cannot write");
    postcard::from_bytes(&bytes).expect("it was just written")
}

/// What was proposed and is not committed yet, by shard.
#[derive(Default)]
pub struct Reigning(FuturesUnordered<BoxFuture<'static, (usize, Result<Fate, JournalError>)>>);

impl Reigning {
    pub fn push(&mut self, at: usize, proposed: impl Future<Output = (u64, Result<Fate, JournalError>)> + Send + 'static) {
        self.0.push(proposed.map(move |(_, fate)| (at, fate)).boxed());
    }

    /// The next that is committed; `None` where nothing is on its way.
    pub async fn next(&mut self) -> Option<(usize, Result<Fate, JournalError>)> {
        self.0.next().await
    }

    /// One that is committed already, after everybody else on this thread had a turn.
    pub async fn ready(&mut self) -> Option<(usize, Result<Fate, JournalError>)> {
        if self.0.is_empty() {
            return None;
        }
        tokio::task::yield_now().await;
        self.0.next().now_or_never().flatten()
    }
}

/// The journals.
pub struct Journal {
    /// Of those who follow.
    groups: Vec<(Group, Turns)>,
    turns: Vec<Turns>,
    logs: Vec<Arc<Log>>,
    links: Option<Runtime>,
    wires: Arc<Wires>,
}

impl Journal {
    /// Opens them, makes them where there are none, and has the first master lead all shards.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn open(size: &Size, timing: Timing, config: impl Fn(u16) -> ShardConfig) -> Result<(Self, Vec<Desk>), JournalError> {
        let links = (size.masters > 1).then(|| Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads"));
        let on = links.as_ref().map_or_else(Handle::current, |links| links.handle().clone());
        let mut journal = Self { groups: vec![], turns: vec![], logs: vec![], links, wires: Arc::default() };
        let mut led = Vec::new();
        for master in LEADER..=size.masters {
            let dir = size.dir.join(format!("m{master}"));
            let log = loop {
                match Log::open(&dir, size.shards, LogConfig::default()) {
                    // A snapshot that was begun before a restart holds it until it is made.
                    Err(JournalError::Locked { .. }) => tokio::time::sleep(LOOK).await,
                    opened => break Arc::new(opened?),
                }
            };
            journal.logs.push(Arc::clone(&log));
            for shard in 0..size.shards {
                let seat = Seat { member: master, carrier: Arc::clone(&journal.wires) as Arc<dyn Carrier>, timing };
                let (log, dir, config) = (Arc::clone(&log), dir.clone(), config(shard));
                let opened = on.spawn(async move { open_group(&log, &dir, config, &seat).await });
                let (group, turns) = opened.await.expect("it does not panic")?;
                journal.wires.0.lock().unwrap_or_else(PoisonError::into_inner).insert((master, shard), group.member());
                if master == LEADER { led.push((group, turns)) } else { journal.groups.push((group, turns)) }
            }
        }
        let mut desks = Vec::new();
        for (shard, (group, turns)) in (0..).zip(led) {
            desks.push(journal.begin(size, shard, group, turns).await);
        }
        Ok((journal, desks))
    }

    /// The first master leads this shard, and all are members of its group.
    async fn begin(&mut self, size: &Size, shard: u16, group: Group, mut turns: Turns) -> Desk {
        let begun = async {
            loop {
                match tokio::time::timeout(LOOK, turns.recv()).await {
                    Ok(Some(Turn::Begins(recovered))) => return recovered,
                    Ok(other) => assert!(other.is_some_and(|turn| !matches!(turn, Turn::Ended)), "the engine of shard {shard} has ended"),
                    // Where there are several, somebody must ask for votes; until their old promises are over they are not given.
                    Err(_) => drop(group.member().answer(Ask::Stand).await),
                }
            }
        };
        let recovered = tokio::time::timeout(LED_WITHIN, begun).await.expect("a group of members that run gets a leader");
        let masters: BTreeMap<u64, String> = (LEADER..=size.masters).map(|master| (master, String::new())).collect();
        let voters: BTreeSet<u64> = masters.keys().copied().collect();
        while group.member().become_members(&masters, &voters).await != Ok(true) {
            tokio::time::sleep(LOOK).await;
        }
        let mut desk = Desk::new(protocol::ShardId(shard), group);
        desk.begin(*recovered);
        self.turns.push(turns);
        desk
    }

    /// Ends them; what is on disk stays.
    pub async fn close(self, desks: Vec<Desk>) {
        self.wires.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let groups = self.groups.into_iter().map(|(group, _)| group).chain(desks.into_iter().map(|desk| desk.group));
        for group in groups {
            group.close().await;
        }
        if let Some(links) = self.links {
            links.shutdown_background();
        }
    }
}

/// Opens a group; the first master's is made where there is none.
async fn open_group(log: &Arc<Log>, dir: &Path, config: ShardConfig, seat: &Seat) -> Result<(Group, Turns), JournalError> {
    let (group, turns) = Group::open(log, dir, config, seat).await?;
    if seat.member == LEADER {
        group.found("").await?;
    }
    Ok((group, turns))
}
