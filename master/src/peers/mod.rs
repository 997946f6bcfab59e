//! The other masters: a connection to each, what is said over it, and what is waited for. Each master opens one to every other and says all
//! that it has to say over that; answers come back on it. What another says comes over the one that the other opened (`incoming`).
//!
//! Messages between shards may be lost with a connection, so after each beginning all shards at both ends say anew what they hold and want.

mod incoming;
pub mod message;
mod outbox;
mod outgoing;
mod shelf;

pub use incoming::attend;
pub use outgoing::keep_all;
pub use shelf::Shelf;

use crate::drive::inbox::{RETRY_AFTER_MS, Waiter};
use crate::journal::network::{Answer, Ask, Carrier};
use crate::journal::{Member, sync_dir};
use crate::shard::event::Master;
use crate::shard::{Refusal, Request, Response};
use futures::FutureExt;
use futures::future::BoxFuture;
use message::Said;
use outbox::Outbox;
use protocol::link::Connection;
use protocol::{Digest, ShardId};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{oneshot, watch};

/// Most requests that wait for one master's answer: half of what it keeps of answers, since some have two.
const REQUESTS_MAX: usize = 32_768;

/// The other masters of this one.
pub struct Peers {
    /// Where the others were last, for the next start.
    file: PathBuf,
    own: Mutex<Master>,
    table: Mutex<BTreeMap<u64, Arc<Peer>>>,
    groups: Vec<Mutex<Option<Member>>>,
    changed: watch::Sender<u64>,
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peers of {:?}", self.own())
    }
}

/// Another master.
pub struct Peer {
    number: u64,
    master: Mutex<Master>,
    version: Mutex<String>,
    /// True where it has said itself where it is.
    introduced: AtomicBool,
    /// The version of the messages on its last connection; 0 before the first.
    spoke: AtomicU16,
    /// How many agents are connected to it.
    agents: Mutex<Option<u32>>,
    /// There while its connection stands.
    up: Mutex<Option<Connection>>,
    /// What is said to it, in order.
    quick: Outbox,
    /// What may be long: nothing short waits behind it.
    long: Outbox,
    calls: AtomicU64,
    asks: Mutex<HashMap<u64, oneshot::Sender<Reply>>>,
    requests: Mutex<HashMap<u64, Asked>>,
    /// Held by whoever listens to what it says; the connection is the last that it opened.
    listening: tokio::sync::Mutex<()>,
    heard_over: Mutex<Option<Connection>>,
}

/// What comes back to who asked something.
pub enum Reply {
    /// From a member of a group.
    Answer(Answer),
    /// The bundles that a master has.
    Bundles(Vec<Digest>),
}

/// A request that was sent.
pub struct Asked {
    to: ShardId,
    /// To be asked again, where that does no harm.
    again: Option<Request>,
    waiter: Waiter,
    /// True where `Response::Submitted` is not the last answer.
    follows: bool,
}

impl Peers {
    /// The others of `own`, of which `known` were there last. `shards`: how many groups there are.
    pub fn new(own: Master, known: Vec<Master>, shards: u16, file: PathBuf) -> Self {
        let others = known.into_iter().filter(|master| master.number != own.number);
        let table = others.map(|master| (u64::from(master.number), Arc::new(Peer::new(master)))).collect();
        let groups = (0..shards).map(|_| Mutex::default()).collect();
        Self { file, own: Mutex::new(own), table: Mutex::new(table), groups, changed: watch::Sender::new(0) }
    }

    /// This master, as the others are to reach it.
    pub fn own(&self) -> Master {
        lock(&self.own).clone()
    }

    /// Where this master is, once that is known.
    pub fn set_own(&self, own: Master) {
        *lock(&self.own) = own;
    }

    /// This master's member of a group answers from now on.
    pub fn seat(&self, group: u16, member: Member) {
        *lock(&self.groups[usize::from(group)]) = Some(member);
    }

    /// It answers no more: the group is closed, and whoever held its member for the others' sake lets it go.
    pub fn unseat(&self, group: u16) {
        *lock(&self.groups[usize::from(group)]) = None;
    }

    /// This master's member of a group; `None` while that is not open.
    pub fn group(&self, group: u16) -> Option<Member> {
        lock(self.groups.get(usize::from(group))?).clone()
    }

    /// Another master, if it is one.
    pub fn find(&self, number: u64) -> Option<Arc<Peer>> {
        self.table().get(&number).cloned()
    }

    /// All others.
    pub fn all(&self) -> Vec<Arc<Peer>> {
        self.table().values().cloned().collect()
    }

    /// Counts changes of who the others are, from now on.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Takes `masters`, this one perhaps among them, for all that there are.
    pub fn replace(&self, masters: &[Master]) {
        let own = self.own().number;
        let mut changed = false;
        {
            let mut table = self.table();
            let is_there = |number: u64| masters.iter().any(|master| u64::from(master.number) == number);
            for (_, peer) in table.extract_if(.., |number, _| !is_there(*number)) {
                changed = true;
                peer.leave("this master was removed from the cluster");
            }
            for master in masters.iter().filter(|master| master.number != own) {
                let number = u64::from(master.number);
                match table.get(&number) {
                    // Where it said itself that it is, is newer than what is on record.
                    Some(peer) => changed |= !peer.introduced.load(Ordering::Relaxed) && peer.moved(master),
                    None => {
                        table.insert(number, Arc::new(Peer::new(master.clone())));
                        changed = true;
                    }
                }
            }
        }
        if changed {
            self.noted();
        }
    }

    /// One of them says where it is.
    pub(super) fn introduced(&self, peer: &Peer, version: String, master: &Master) {
        *lock(&peer.version) = version;
        peer.introduced.store(true, Ordering::Relaxed);
        if u64::from(master.number) == peer.number && peer.moved(master) {
            self.noted();
        }
    }

    fn noted(&self) {
        let masters: Vec<Master> = self.all().iter().map(|peer| peer.master()).collect();
        let write = || {
            let scratch = self.file.with_extension("new");
            let mut file = fs::File::create(&scratch)?;
            file.write_all(&serde_json::to_vec(&masters).expect("masters have text for keys"))?;
            file.sync_all()?;
            fs::rename(&scratch, &self.file)?;
            self.file.parent().map_or(Ok(()), sync_dir)
        };
        if let Err(error) = write() {
            tracing::warn!(path = %self.file.display(), %error, "where the other masters are could not be kept for the next start");
        }
        self.changed.send_modify(|count| *count += 1);
    }

    /// Says something to all others that are connected.
    pub fn tell_all(&self, said: impl Fn() -> Said) {
        self.table().values().for_each(|peer| peer.say(said()));
    }

    /// True where one of the others can be spoken to.
    pub fn any_up(&self) -> bool {
        self.table().values().any(|peer| peer.connection().is_some())
    }

    /// True where each of the others spoke this version, or a later one, when it was connected last; of one that never was, nothing is known.
    pub fn all_speak(&self, version: u16) -> bool {
        self.table().values().map(|peer| peer.spoke.load(Ordering::Relaxed)).all(|spoke| spoke == 0 || spoke >= version)
    }

    /// Another leads `shard` now: whoever waits for an answer of who led it before is told that none comes, or is given back to be asked
    /// again.
    pub fn led_elsewhere(&self, shard: ShardId, leader: u64) -> Vec<(ShardId, Request, Waiter)> {
        let others: Vec<Arc<Peer>> = self.table().values().filter(|peer| peer.number != leader).cloned().collect();
        others.iter().flat_map(|peer| peer.part(|asked| asked.to == shard)).collect()
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Peer>>> {
        lock(&self.table)
    }
}

impl Carrier for Peers {
    fn carry(&self, to: u64, group: u16, ask: Ask) -> BoxFuture<'static, Option<Answer>> {
        let Some(peer) = self.find(to) else { return std::future::ready(None).boxed() };
        let Some(asking) = peer.ask(group, ask) else { return std::future::ready(None).boxed() };
        asking.boxed()
    }
}

/// Forgets a question where its answer is awaited no more.
struct Call {
    peer: Arc<Peer>,
    number: u64,
}

impl Drop for Call {
    fn drop(&mut self) {
        lock(&self.peer.asks).remove(&self.number);
    }
}

impl Peer {
    fn new(master: Master) -> Self {
        Self {
            number: u64::from(master.number),
            master: Mutex::new(master),
            version: Mutex::default(),
            introduced: AtomicBool::new(false),
            spoke: AtomicU16::new(0),
            agents: Mutex::default(),
            up: Mutex::default(),
            quick: Outbox::default(),
            long: Outbox::default(),
            calls: AtomicU64::new(0),
            asks: Mutex::default(),
            requests: Mutex::default(),
            listening: tokio::sync::Mutex::default(),
            heard_over: Mutex::default(),
        }
    }

    /// Its number.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Where it is.
    pub fn master(&self) -> Master {
        lock(&self.master).clone()
    }

    /// The version of its binary; empty where it never said it.
    pub fn version(&self) -> String {
        lock(&self.version).clone()
    }

    /// How many agents are connected to it, as it said last; `None` where it has not said so since it came.
    pub fn agents(&self) -> Option<u32> {
        *lock(&self.agents)
    }

    /// It said how many agents are connected to it.
    fn hears(&self, agents: Option<u32>) {
        *lock(&self.agents) = agents;
    }

    /// The connection to it, while it stands.
    pub fn connection(&self) -> Option<Connection> {
        lock(&self.up).clone()
    }

    /// True while it can be spoken to.
    pub fn is_up(&self) -> bool {
        lock(&self.up).is_some()
    }

    /// Says something; passed over where it is not connected.
    pub fn say(&self, said: Said) {
        let Some(connection) = self.connection().filter(|connection| said.is_of(connection.version())) else { return };
        self.quick.put(said, &connection);
    }

    /// Asks on behalf of somebody here; gives the request back where it is not connected.
    pub fn request(&self, to: ShardId, request: Request, waiter: Waiter) -> Option<(Request, Waiter)> {
        let Some(connection) = self.connection() else { return Some((request, waiter)) };
        if lock(&self.requests).len() >= REQUESTS_MAX {
            waiter.refuse(Refusal::Busy { reason: "too many requests wait for another master".into(), retry_after_ms: RETRY_AFTER_MS });
            return None;
        }
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let follows = matches!(request, Request::Submit { follow: true, .. });
        let again = matches!(request, Request::View(_)).then(|| request.clone());
        lock(&self.requests).insert(call, Asked { to, again, waiter, follows });
        self.quick.put(Said::Request { call, to, request }, &connection);
        None
    }

    fn ask(self: &Arc<Self>, group: u16, ask: Ask) -> Option<impl Future<Output = Option<Answer>> + Send + use<>> {
        let is_long = match &ask {
            Ask::Append(rpc) => !rpc.entries.is_empty(),
            Ask::Snapshot(_) => true,
            Ask::Vote(_) | Ask::Yield(_) | Ask::Stand | Ask::Standing => false,
        };
        let asking = self.call(is_long, move |call| Said::Ask { call, group, ask })?;
        Some(async move {
            match asking.await {
                Some(Reply::Answer(answer)) => Some(answer),
                _ => None,
            }
        })
    }

    /// Says something that is answered; `None` where it is not connected, and `None` comes where the connection ends before the answer.
    fn call(self: &Arc<Self>, is_long: bool, said: impl FnOnce(u64) -> Said) -> Option<BoxFuture<'static, Option<Reply>>> {
        let connection = self.connection()?;
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        lock(&self.asks).insert(number, answer);
        let call = Call { peer: Arc::clone(self), number };
        let outbox = if is_long { &self.long } else { &self.quick };
        outbox.put(said(number), &connection);
        let waiting = async move {
            let _call = call;
            answered.await.ok()
        };
        Some(waiting.boxed())
    }

    /// Has it fetch a bundle from here; true when it has it.
    pub async fn hold(self: &Arc<Self>, bundle: Digest) -> bool {
        let Some(asking) = self.call(false, |call| Said::Hold { call, bundle }) else { return false };
        matches!(asking.await, Some(Reply::Answer(Answer::Done)))
    }

    /// The bundles that it has; `None` where it does not say.
    pub async fn bundles(self: &Arc<Self>) -> Option<Vec<Digest>> {
        match self.call(false, |call| Said::Bundles { call })?.await {
            Some(Reply::Bundles(bundles)) => Some(bundles),
            _ => None,
        }
    }

    /// It answered.
    fn answered(&self, call: u64, reply: Reply) {
        if let Some(asker) = lock(&self.asks).remove(&call) {
            // Who no longer waits is not told.
            let _ = asker.send(reply);
        }
    }

    /// A shard answered. What it would not take since its master does not lead it is given back, where it may be asked again.
    fn responded(&self, call: u64, response: Response) -> Option<(ShardId, Request, Waiter)> {
        let mut requests = lock(&self.requests);
        let asked = requests.remove(&call)?;
        if matches!(response, Response::Refused(Refusal::Unled))
            && let Some(again) = asked.again
        {
            return Some((asked.to, again, asked.waiter));
        }
        let more = asked.follows && matches!(response, Response::Submitted { .. });
        match asked.waiter {
            // Who no longer waits is not told.
            Waiter::Once(sender) => drop(sender.send(response)),
            Waiter::Many(theirs, sender) => {
                let sent = sender.try_send((theirs, response)).is_ok();
                if more && sent {
                    requests.insert(call, Asked { waiter: Waiter::Many(theirs, sender), ..asked });
                }
            }
        }
        None
    }

    /// Nothing comes of these requests: those that may be asked again are given back, for the others it is said.
    fn part(&self, which: impl Fn(&Asked) -> bool) -> Vec<(ShardId, Request, Waiter)> {
        let gone: Vec<Asked> = lock(&self.requests).extract_if(|_, asked| which(asked)).map(|(_, asked)| asked).collect();
        let mut again = Vec::new();
        for asked in gone {
            match asked.again {
                Some(request) => again.push((asked.to, request, asked.waiter)),
                None => asked.waiter.lose(),
            }
        }
        again
    }

    fn moved(&self, to: &Master) -> bool {
        let mut master = lock(&self.master);
        let moved = *master != *to;
        if moved {
            *master = to.clone();
        }
        moved
    }

    fn leave(&self, reason: &str) {
        let over = [lock(&self.up).clone(), lock(&self.heard_over).clone()];
        over.into_iter().flatten().for_each(|connection| connection.close(protocol::link::CloseCode::NotAllowed, reason));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing inside the locks can panic half way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_version_cannot_read_waits_for_all_masters_that_were_heard_of() {
        let master = |number| Master { number, quic: format!("m{number}:1"), http: format!("https://m{number}:2") };
        let peers = Peers::new(master(1), vec![master(1), master(2), master(3)], 1, PathBuf::from("nowhere"));
        assert!(peers.all_speak(3), "of those that were never connected nothing is known");
        peers.find(2).expect("it is known").spoke.store(3, Ordering::Relaxed);
        assert!(peers.all_speak(3));
        peers.find(3).expect("it is known").spoke.store(2, Ordering::Relaxed);
        assert!(!peers.all_speak(3) && peers.all_speak(1));
    }
}
