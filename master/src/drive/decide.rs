//! One deciding thread: takes all that waits for its shards, lets them decide, proposes what they want on record, and does the rest.
//!
//! A round goes on until the shards of the thread have nothing more to say to each other, so that a submission, the demand, the offers and
//! the staging that follow from it stand in one entry of the journal. No timer is on the way of anything but what is to happen later.

use super::agents::Agent;
use super::clock::Clock;
use super::desk::Desk;
use super::door::Door;
use super::inbox::{Inbox, Letter};
use super::waiters::Waiters;
use crate::journal::JournalError;
use crate::shard::{Action, Event};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use protocol::link::CloseCode;
use protocol::{ShardId, Time};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How often it is asked whether those who wait for an answer still do.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// The soonest that a shard is told the time again after it was: timers are of milliseconds.
const TICK_MS_MIN: u64 = 1;

/// What a deciding thread is given.
pub struct Given {
    /// For its own door: where the others' inboxes are.
    pub door: Door,
    /// Its own.
    pub inbox: Arc<Inbox>,
    /// The time.
    pub clock: Clock,
    /// True when it is to end.
    pub stop: watch::Receiver<bool>,
}

type InFlight = FuturesUnordered<BoxFuture<'static, (usize, Result<(), JournalError>)>>;

/// One deciding thread.
pub struct Decider {
    given: Given,
    desks: Vec<Desk>,
    /// For each shard of the cluster where its desk is, if it is here.
    places: Vec<Option<usize>>,
    /// What the shards here are to be told next.
    told: VecDeque<Letter>,
    /// What is to be done next of the shard that spoke last.
    due: VecDeque<Action>,
    /// What the shards here said to those of other threads, by shard.
    away: Vec<Vec<Letter>>,
    waiters: Waiters,
    in_flight: InFlight,
    /// Agents in whose outboxes something is since the round began.
    woken: Vec<Arc<Agent>>,
    /// An empty buffer that is exchanged with the inbox's.
    empty: Vec<Letter>,
    ticked: Time,
}

impl Decider {
    /// A thread that decides for the shards of `desks`, which lead from now on.
    pub fn new(given: Given, mut desks: Vec<Desk>) -> Self {
        let now = given.clock.now();
        let mut places = vec![None; usize::from(given.door.shards())];
        for (place, desk) in desks.iter_mut().enumerate() {
            desk.shard.lead(now);
            places[usize::from(desk.shard.config().id.0)] = Some(place);
        }
        let places_away = places.iter().map(|_| Vec::new()).collect();
        Self {
            given,
            desks,
            places,
            told: VecDeque::new(),
            due: VecDeque::new(),
            away: places_away,
            waiters: Waiters::default(),
            in_flight: InFlight::new(),
            woken: Vec::new(),
            empty: Vec::new(),
            ticked: Time::ZERO,
        }
    }

    /// Decides until it is told to stop or the journal fails; then nobody is told anything that is not durable.
    pub async fn run(mut self) -> Vec<Desk> {
        if let Err(error) = self.decide().await {
            tracing::error!(%error, "this master decides nothing any more");
            self.given.door.stop(error.to_string());
            self.waiters.refuse(&error.to_string());
        }
        self.desks
    }

    async fn decide(&mut self) -> Result<(), JournalError> {
        let mut sweep = Instant::now() + SWEEP_EVERY;
        // What followed from leading.
        for place in 0..self.desks.len() {
            self.sort(place);
        }
        loop {
            self.round().await?;
            tokio::task::consume_budget().await;
            let tick = self.next_tick();
            let due = if self.waiters.is_empty() { tick } else { Some(tick.map_or(sweep, |tick| tick.min(sweep))) };
            tokio::select! {
                biased;
                Some((place, committed)) = self.in_flight.next(), if !self.in_flight.is_empty() => {
                    self.committed(place, committed)?;
                    // One flush may have served several shards.
                    while let Some(Some((place, committed))) = self.in_flight.next().now_or_never() {
                        self.committed(place, committed)?;
                    }
                }
                () = self.given.inbox.filled(), if !self.is_behind() => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
                changed = self.given.stop.changed() => {
                    if changed.is_err() || *self.given.stop.borrow() {
                        return Ok(());
                    }
                }
            }
            if sweep <= Instant::now() {
                self.sweep();
                sweep = Instant::now() + SWEEP_EVERY;
            }
        }
    }

    /// Takes what waits, decides until nothing more follows, proposes, and wakes those who have something to send.
    async fn round(&mut self) -> Result<(), JournalError> {
        if !self.is_behind() {
            let mut letters = std::mem::take(&mut self.empty);
            self.given.inbox.take(&mut letters);
            self.told.extend(letters.drain(..));
            self.empty = letters;
        }
        let now = self.given.clock.now();
        self.tick(now);
        while let Some(letter) = self.told.pop_front() {
            self.deliver(now, letter);
        }
        for place in 0..self.desks.len() {
            if let Some(batch) = self.desks[place].next_batch() {
                let committed = self.desks[place].propose(batch).await?;
                self.in_flight.push(Box::pin(async move { (place, committed.await) }));
            }
        }
        self.forward();
        self.woken.drain(..).for_each(|agent| agent.wake());
        Ok(())
    }

    fn committed(&mut self, place: usize, committed: Result<(), JournalError>) -> Result<(), JournalError> {
        committed?;
        self.desks[place].committed(&mut self.due);
        self.act(place);
        Ok(())
    }

    fn is_behind(&self) -> bool {
        self.desks.iter().any(Desk::is_behind)
    }

    /// Tells each shard the time that asked for it.
    fn tick(&mut self, now: Time) {
        for place in 0..self.desks.len() {
            if self.desks[place].shard.poll_timeout().is_some_and(|at| at <= now) {
                self.desks[place].shard.handle(now, Event::Tick);
                self.sort(place);
                self.ticked = now;
            }
        }
    }

    /// When a shard wants to be told the time; never at once again, whatever it says.
    fn next_tick(&self) -> Option<Instant> {
        let at = self.desks.iter().filter_map(|desk| desk.shard.poll_timeout()).min()?;
        Some(self.given.clock.instant(at.max(self.ticked + TICK_MS_MIN)).into())
    }

    fn deliver(&mut self, now: Time, letter: Letter) {
        let (to, event) = match letter {
            Letter::Request { to, request, waiter } => (to, Event::Request { id: self.waiters.add(to, &request, waiter), request }),
            Letter::Agent { to, agent, message } => (to, Event::Agent { agent, message }),
            Letter::Disconnected { to, agent } => (to, Event::Disconnected { agent }),
            Letter::Peer { to, from, message } => (to, Event::Peer { from, message }),
        };
        let place = self.places[usize::from(to.0)].expect("letters come to the thread of their shard");
        self.desks[place].shard.handle(now, event);
        self.sort(place);
    }

    /// Takes what a shard wants, and does what can be done.
    fn sort(&mut self, place: usize) {
        self.desks[place].sort(&mut self.due);
        self.act(place);
    }

    /// Does what is due of a shard.
    fn act(&mut self, place: usize) {
        let from = self.desks[place].shard.config().id;
        while let Some(action) = self.due.pop_front() {
            match action {
                Action::Send { agent, message } => {
                    if let Some(agent) = self.given.door.agents().find(agent)
                        && agent.queue(from, message)
                    {
                        self.woken.push(agent);
                    }
                }
                Action::Peer { to, message } => {
                    let letter = Letter::Peer { to, from, message };
                    match self.places.get(usize::from(to.0)) {
                        Some(Some(_)) => self.told.push_back(letter),
                        Some(None) => self.away[usize::from(to.0)].push(letter),
                        None => tracing::error!(%to, "a shard speaks to one that is not there"),
                    }
                }
                Action::Reply { id, response } => self.waiters.answer(id, response),
                Action::Publish(change) => self.given.door.publish(change),
                Action::Disconnect { agent, reason } => {
                    if let Some(agent) = self.given.door.agents().find(agent) {
                        agent.close(CloseCode::Misbehaved, &reason);
                    }
                }
            }
        }
    }

    /// Hands over what the shards here said to those of other threads.
    fn forward(&mut self) {
        for (to, letters) in (0..).map(ShardId).zip(&mut self.away).filter(|(_, letters)| !letters.is_empty()) {
            self.given.door.inbox(to).expect("each shard has an inbox").force(letters);
        }
    }

    fn sweep(&mut self) {
        for (to, id) in self.waiters.sweep() {
            let place = self.places[usize::from(to.0)].expect("its request was for a shard of this thread");
            self.desks[place].shard.handle(self.given.clock.now(), Event::Abandoned { id });
            self.sort(place);
        }
    }
}
