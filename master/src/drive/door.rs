//! The way into the shards, for HTTP and for tests: questions in, answers out, whichever master leads the shard that is asked.

use super::agents::Agents;
use super::clock::Clock;
use super::inbox::{Inbox, Letter, RETRY_AFTER_MS, Waiter};
use super::rooms::{Room, Rooms};
use super::routes::{Route, Routes};
use super::told::{Life, Told, What};
use crate::peers::Peers;
use crate::peers::message::Said;
use crate::shard::event::Change;
use crate::shard::view::{View, Viewed};
use crate::shard::{PeerMessage, Refusal, Request, Response, ScoreMap};
use protocol::link::Connection;
use protocol::message::{FromMaster, Leader};
use protocol::{AgentId, RequestId, ShardId};

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc, oneshot};

/// How often a question is asked that changes nothing, where the leading master went away while it was asked.
const ASKED_MAX: usize = 4;
/// How often is looked whether requests wait for a leader in vain.
const PARKED_LOOK: Duration = Duration::from_millis(250);
/// The wait between two times that requests are asked again.
const PARKED_PAUSE: Duration = Duration::from_millis(5);

/// Changes that a slow watcher may be behind before it misses some.
pub const CHANGES_MAX: usize = 8_192;

/// Why a question was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// Too many wait already.
    #[error("too many requests wait already: try again in {retry_after_ms} ms")]
    Full {
        /// When it makes sense to try again, in milliseconds.
        retry_after_ms: u64,
    },
    /// The journal failed, so nothing is decided here any more until the master is started again.
    #[error("this master has stopped deciding: {reason}")]
    Stopped {
        /// What failed, for people.
        reason: String,
    },
    /// The master that leads the shard went away while it was asked: whether it was done is not known.
    #[error("{}", Refusal::Unknown)]
    Unknown,
}

/// The way into the shards of this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Door {
    inner: Arc<Inner>,
    /// What clients may have here at once; `None` where this master itself asks.
    rooms: Option<Arc<Rooms>>,
}

#[derive(Debug)]
struct Inner {
    /// For each shard the inbox of the thread that decides for it.
    inboxes: Vec<Arc<Inbox>>,
    agents: Arc<Agents>,
    changes: broadcast::Sender<Arc<Told>>,
    life: Life,
    /// How much was told here; held until all have it, so that they have it in order.
    told: Mutex<u64>,
    stopped: OnceLock<String>,
    routes: Routes,
    peers: Arc<Peers>,
    clock: Clock,
    /// Plug-ins that order agents.
    scores: RwLock<Arc<ScoreMap>>,
}

impl Door {
    /// A door with an inbox for each shard, those of one thread the same.
    pub(crate) fn new(inboxes: Vec<Arc<Inbox>>, peers: Arc<Peers>, clock: Clock) -> Self {
        let changes = broadcast::Sender::new(CHANGES_MAX);
        let shards = u16::try_from(inboxes.len()).expect("a cluster has at most SHARDS_MAX shards");
        let master = u64::from(peers.own().number);
        let (routes, life) = (Routes::new(master, shards), Life { master, since: clock.now().0 });
        let (agents, told, stopped) = (Arc::default(), Mutex::default(), OnceLock::new());
        let scores = RwLock::default();
        Self { inner: Arc::new(Inner { inboxes, agents, changes, life, told, stopped, routes, peers, clock, scores }), rooms: None }
    }

    /// The same door for clients: how much all of them ask at once is bounded.
    #[must_use]
    pub fn for_clients(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), rooms: Some(Arc::default()) }
    }

    /// Room for `request`, to be kept until it is answered; none where it needs none. [`Self::ask`] takes it by itself, [`Self::post`] does not.
    ///
    /// # Errors
    /// [`Busy::Full`].
    pub fn room(&self, request: &Request) -> Result<Option<Room>, Busy> {
        self.rooms.as_ref().map_or(Ok(None), |rooms| rooms.take(request))
    }

    /// How many shards the cluster has.
    #[must_use]
    pub fn shards(&self) -> u16 {
        u16::try_from(self.inner.inboxes.len()).expect("a cluster has at most SHARDS_MAX shards")
    }

    /// Asks `shard`; each answer comes to `replies` with `id`, which is the asker's own and need not be unique. A submission that is followed
    /// is answered twice, all else once. `replies` must have room for all that is still to come: an asker whose channel is full or closed is
    /// forgotten.
    ///
    /// # Errors
    /// [`Busy`]; then nothing comes.
    pub fn post(&self, shard: ShardId, request: Request, id: RequestId, replies: mpsc::Sender<(RequestId, Response)>) -> Result<(), Busy> {
        self.try_put(Letter::Request { to: shard, request, waiter: Waiter::Many(id, replies) }).map_err(|(busy, _)| busy)
    }

    /// Asks `shard` and waits for the one answer. A submission is asked this way without `follow`.
    ///
    /// # Errors
    /// [`Busy`], also where the shard stopped deciding while it was asked: whether it was done is then not known.
    pub async fn ask(&self, shard: ShardId, request: Request) -> Result<Response, Busy> {
        let _room = self.room(&request)?;
        let mut again = match &request {
            Request::View(_) => ASKED_MAX,
            _ => 1,
        };
        loop {
            again -= 1;
            let (answer, answered) = oneshot::channel();
            let asked = Letter::Request { to: shard, request: request.clone(), waiter: Waiter::Once(answer) };
            self.try_put(asked).map_err(|(busy, _)| busy)?;
            match answered.await {
                Ok(response) => return Ok(response),
                Err(_) if again > 0 && self.stopped().is_none() => {}
                Err(_) => return Err(self.stopped().map_or(Busy::Unknown, |reason| Busy::Stopped { reason: reason.to_owned() })),
            }
        }
    }

    /// What this master's own replica of `shard` shows; `None` where this master leads the shard.
    #[must_use]
    pub fn look(&self, shard: ShardId, view: View) -> Option<Result<Viewed, Refusal>> {
        self.peers().group(shard.0)?.viewed(view)
    }

    /// Asks every shard the same, and waits for all.
    ///
    /// # Errors
    /// The first [`Busy`].
    pub async fn ask_all(&self, request: impl Fn() -> Request) -> Result<Vec<(ShardId, Response)>, Busy> {
        let asked = (0..self.shards()).map(ShardId).map(|shard| {
            let answer = self.ask(shard, request());
            async move { answer.await.map(|response| (shard, response)) }
        });
        futures::future::try_join_all(asked).await
    }

    /// All that is told from now on: what changes, committed, of every shard.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Arc<Told>> {
        self.inner.changes.subscribe()
    }

    /// The same, and how much this life of this master told before.
    #[must_use]
    pub fn changes_after(&self) -> (broadcast::Receiver<Arc<Told>>, Life, u64) {
        let told = self.told();
        (self.changes(), self.inner.life, *told)
    }

    /// The connection of an agent, to read a task's output over; `None` where it is not connected.
    #[must_use]
    pub fn agent_connection(&self, agent: AgentId) -> Option<Connection> {
        self.inner.agents.connection(agent)
    }

    /// Why nothing is decided here any more; `None` where all is well.
    #[must_use]
    pub fn stopped(&self) -> Option<&str> {
        self.inner.stopped.get().map(String::as_str)
    }

    /// Says that nothing is decided here any more. The first reason stays.
    pub(crate) fn stop(&self, reason: String) {
        let _ = self.inner.stopped.set(reason);
    }

    /// Tells those who watch, at every master.
    pub(crate) fn publish(&self, change: Change) {
        self.tell(What::Change(change));
    }

    /// Tells the same that a shard is led here from now on, where another master may have led it.
    pub(crate) fn publish_led(&self, shard: ShardId) {
        if !self.inner.peers.all().is_empty() {
            self.tell(What::Led(shard));
        }
    }

    fn tell(&self, what: What) {
        let mut last = self.told();
        *last += 1;
        let told = Told { life: self.inner.life, number: *last, what };
        let peers = &self.inner.peers;
        if peers.any_up() {
            let json = json(&told);
            peers.tell_all(|| Said::Told(json.clone()));
        }
        self.publish_here(told);
    }

    /// How much was told here before, for a master that comes or comes again.
    pub(crate) fn catch_up(&self, say: impl FnOnce(Said)) {
        let last = self.told();
        let told = Told { life: self.inner.life, number: *last, what: What::Nothing };
        say(Said::Told(json(&told)));
    }

    /// Tells those who watch at this master.
    pub(crate) fn publish_here(&self, told: Told) {
        if self.inner.changes.receiver_count() > 0 {
            let _ = self.inner.changes.send(Arc::new(told));
        }
    }

    fn told(&self) -> MutexGuard<'_, u64> {
        // Nothing inside the lock can panic half way.
        self.inner.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The agents that are connected.
    pub(crate) fn agents(&self) -> &Arc<Agents> {
        &self.inner.agents
    }

    /// The other masters.
    pub(crate) fn peers(&self) -> &Arc<Peers> {
        &self.inner.peers
    }

    /// Which master leads which shard.
    pub(crate) fn routes(&self) -> &Routes {
        &self.inner.routes
    }

    /// The time that the shards of this master are told.
    pub(crate) fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// The inbox of the thread that decides for `shard` while this master leads it; `None` where there is no such shard.
    pub(crate) fn inbox(&self, shard: ShardId) -> Option<&Arc<Inbox>> {
        self.inner.inboxes.get(usize::from(shard.0))
    }

    /// These plug-ins order agents from now on, in all shards that are led here.
    pub(crate) fn plug_in(&self, scores: ScoreMap) {
        *self.inner.scores.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(scores);
        for (to, _) in self.routes().led_by(self.routes().member()) {
            if let Some(inbox) = self.inbox(to) {
                inbox.force(&mut vec![Letter::PlugIns { to }]);
            }
        }
    }

    /// The plug-ins that order agents now.
    pub(crate) fn scores(&self) -> Arc<ScoreMap> {
        Arc::clone(&self.inner.scores.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A shard of another master says something to one that is led here.
    pub(crate) fn deliver(&self, to: ShardId, from: ShardId, message: PeerMessage) {
        if let Some(inbox) = self.inbox(to) {
            inbox.force(&mut vec![Letter::Peer { to, from, message }]);
        }
    }

    /// As [`Self::deliver`], to each shard that is led here.
    pub(crate) fn deliver_to_all(&self, from: ShardId, message: &PeerMessage) {
        for (to, _) in self.routes().led_by(self.routes().member()) {
            self.deliver(to, from, message.clone());
        }
    }

    /// Another master says that it leads a shard.
    pub(crate) fn led(&self, shard: ShardId, leader: u64, term: u64) {
        let before = self.routes().find(shard);
        if self.routes().leads(shard, leader, term) {
            if before != Some(Route::At(leader))
                && let Some(message) = self.led_elsewhere(shard)
            {
                let door = self.clone();
                let holds = move |message: &FromMaster| door.led_elsewhere(shard).as_ref() == Some(message);
                self.agents().tell_led_elsewhere(shard, self.shards(), message, holds);
            }
            for (to, request, waiter) in self.peers().led_elsewhere(shard, leader) {
                self.put(Letter::Request { to, request, waiter });
            }
        }
    }

    /// What its agents are told of a shard that is not led here; `None` where it is.
    pub(crate) fn led_elsewhere(&self, shard: ShardId) -> Option<FromMaster> {
        let (term, leader) = self.routes().elsewhere(shard)?;
        let peer = leader.and_then(|leader| self.peers().find(leader));
        let leader = peer.and_then(|peer| Some(Leader { master: u16::try_from(peer.number()).ok()?, address: peer.master().quic }));
        Some(FromMaster::LedElsewhere { term, leader })
    }

    /// Asks whoever leads the shard; who waits is told where that cannot be.
    pub(crate) fn put(&self, letter: Letter) {
        if let Err((busy, waiter)) = self.try_put(letter) {
            waiter.refuse(match busy {
                Busy::Full { retry_after_ms } => Refusal::Busy { reason: busy.to_string(), retry_after_ms },
                Busy::Stopped { .. } | Busy::Unknown => Refusal::Unled,
            });
        }
    }

    /// Keeps a request until it is known who leads its shard.
    pub(crate) fn park(&self, letter: Letter) {
        self.routes().park(letter);
    }

    /// Asks again whatever waited for a leader, whenever one is known that can be reached; for ever.
    pub(crate) async fn tend_parked(self) {
        let mut changes = self.routes().changes();
        loop {
            let is_up = |leader| self.peers().find(leader).is_some_and(|peer| peer.is_up());
            let ready = self.routes().unpark(Instant::now(), is_up);
            let again = !ready.is_empty();
            ready.into_iter().for_each(|letter| self.put(letter));
            if again {
                // Who led a shard may lead it no more, and say so at once each time.
                tokio::time::sleep(PARKED_PAUSE).await;
            }
            let look = tokio::time::sleep(PARKED_LOOK);
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = look, if self.routes().has_parked() => {}
            }
        }
    }

    fn try_put(&self, letter: Letter) -> Result<(), (Busy, Waiter)> {
        let Letter::Request { to, request, waiter } = letter else { return Ok(()) };
        if let Some(reason) = self.stopped() {
            return Err((Busy::Stopped { reason: reason.to_owned() }, waiter));
        }
        match self.routes().find(to).expect("a request is for a shard of this cluster") {
            Route::Here => {
                let inbox = self.inbox(to).expect("each shard has an inbox");
                inbox.post(Letter::Request { to, request, waiter }).map_err(|letter| match *letter {
                    Letter::Request { waiter, .. } => (Busy::Full { retry_after_ms: RETRY_AFTER_MS }, waiter),
                    _ => unreachable!("it is what was posted"),
                })
            }
            Route::At(leader) => {
                let unsent = match self.peers().find(leader) {
                    Some(peer) => peer.request(to, request, waiter),
                    None => Some((request, waiter)),
                };
                if let Some((request, waiter)) = unsent {
                    self.park(Letter::Request { to, request, waiter });
                }
                Ok(())
            }
            Route::Nowhere => {
                self.park(Letter::Request { to, request, waiter });
                Ok(())
            }
        }
    }
}

fn json(told: &impl serde::Serialize) -> bytes::Bytes {
    serde_json::to_vec(told).expect("changes have text for keys").into()
}
