//! One deciding thread: takes all that waits for its shards, lets them decide, proposes what they want on record, and does the rest.
//!
//! A round goes on until the shards of the thread have nothing more to say to each other, so that a submission, the demand, the offers and
//! the staging that follow from it stand in one entry of the journal. No timer is on the way of anything but what is to happen later.

use super::agents::Agent;
use super::clock::Clock;
use super::desk::{Desk, Lead};
use super::door::Door;
use super::inbox::{Inbox, Letter};
use super::routes::Route;
use super::waiters::Waiters;
use crate::journal::{Fate, JournalError, Recovered, Turn, Turns};
use crate::peers::message::Said;
use crate::shard::{Action, Event};
use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered, SelectAll, unfold};
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

/// Of which desk, in which of its reigns, with what outcome.
type Proposed = (usize, u64, Result<Fate, JournalError>);
type InFlight = FuturesUnordered<BoxFuture<'static, Proposed>>;

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
    /// When this master begins and ends to lead a shard.
    turns: SelectAll<BoxStream<'static, (usize, Turn)>>,
    /// Agents in whose outboxes something is since the round began.
    woken: Vec<Arc<Agent>>,
    /// An empty buffer that is exchanged with the inbox's.
    empty: Vec<Letter>,
    ticked: Time,
}

impl Decider {
    /// A thread that decides for the shards of `desks` whenever this master leads them.
    pub fn new(given: Given, desks: Vec<(Desk, Turns)>) -> Self {
        let mut places = vec![None; usize::from(given.door.shards())];
        let mut turns: SelectAll<BoxStream<'static, (usize, Turn)>> = SelectAll::new();
        let mut seated = Vec::new();
        for (place, (desk, told)) in desks.into_iter().enumerate() {
            places[usize::from(desk.id.0)] = Some(place);
            turns.push(unfold(told, move |mut told| async move { told.recv().await.map(|turn| ((place, turn), told)) }).boxed());
            seated.push(desk);
        }
        let away = places.iter().map(|_| Vec::new()).collect();
        Self {
            given,
            desks: seated,
            places,
            told: VecDeque::new(),
            due: VecDeque::new(),
            away,
            waiters: Waiters::default(),
            in_flight: InFlight::new(),
            turns,
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
        loop {
            self.round().await?;
            tokio::task::consume_budget().await;
            let tick = self.next_tick();
            let due = if self.waiters.is_empty() { tick } else { Some(tick.map_or(sweep, |tick| tick.min(sweep))) };
            tokio::select! {
                biased;
                Some((place, turn)) = self.turns.next() => self.turn(place, turn)?,
                Some(proposed) = self.in_flight.next(), if !self.in_flight.is_empty() => {
                    self.proposed(proposed)?;
                    // One flush may have served several shards.
                    while let Some(Some(proposed)) = self.in_flight.next().now_or_never() {
                        self.proposed(proposed)?;
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
        // Asked after all that is answered in this round had come: so what is answered was so at a moment after it was asked.
        for place in 0..self.desks.len() {
            if !self.desks[place].leads() {
                self.let_go(place);
                self.desks[place].group.lapse();
            }
        }
        let now = self.given.clock.now();
        self.tick(now);
        while let Some(letter) = self.told.pop_front() {
            self.deliver(now, letter);
        }
        for place in 0..self.desks.len() {
            if let Some(batch) = self.desks[place].lead.as_mut().and_then(Lead::next_batch) {
                let committed = self.desks[place].propose(batch).await?;
                self.in_flight.push(Box::pin(async move {
                    let (reign, fate) = committed.await;
                    (place, reign, fate)
                }));
            }
        }
        self.hand_over();
        self.forward();
        self.woken.drain(..).for_each(|agent| agent.wake());
        Ok(())
    }

    /// Hands over the shards that are to be led by others and of which all is on record.
    fn hand_over(&mut self) {
        for place in 0..self.desks.len() {
            let desk = &self.desks[place];
            let Some(next) = desk.next.filter(|_| desk.lead.as_ref().is_some_and(|lead| !lead.waits())) else { continue };
            let (id, member) = (desk.id, desk.group.member());
            self.let_go(place);
            self.desks[place].group.lapse();
            tokio::spawn(async move {
                match member.hand_over(next).await {
                    Ok(()) => tracing::info!(shard = %id, to = next, "a shard was handed over"),
                    Err(reason) => tracing::warn!(shard = %id, to = next, reason, "a shard could not be handed over"),
                }
            });
        }
    }

    fn proposed(&mut self, (place, reign, fate): Proposed) -> Result<(), JournalError> {
        let fate = fate?;
        if self.desks[place].reign != reign {
            return Ok(()); // Whoever it was decided for is gone, and so is all that waited for it.
        }
        match fate {
            Fate::Committed => {
                if let Some(lead) = &mut self.desks[place].lead {
                    lead.committed(&mut self.due);
                    self.act(place);
                }
            }
            Fate::Unknown => {
                self.let_go(place);
                self.desks[place].group.lapse();
            }
        }
        Ok(())
    }

    fn turn(&mut self, place: usize, turn: Turn) -> Result<(), JournalError> {
        match turn {
            Turn::Begins(recovered) => self.begin(place, *recovered),
            Turn::Over { done } => {
                self.let_go(place);
                drop(done);
            }
            Turn::Ended => return Err(self.desks[place].group.failure()),
        }
        Ok(())
    }

    /// This master leads a shard from now on: agents and masters are told before anything else is said.
    fn begin(&mut self, place: usize, recovered: Recovered) {
        self.given.clock.advance(recovered.latest);
        let (id, term, now) = (self.desks[place].id, recovered.term, self.given.clock.now());
        let shard = &mut self.desks[place].begin(recovered).shard;
        shard.lead(now);
        // Who waits for an answer of the one that led before is told that none comes, or asks again here.
        self.given.door.led(id, self.given.door.routes().member(), term);
        // Who brings others from here on tells the shard.
        shard.plug_in(&self.given.door.scores());
        self.given.door.peers().tell_all(|| Said::Leads { shard: id, term });
        self.given.door.agents().tell_leading(id, term, |agent| shard.concern(agent));
        self.given.door.publish_led(id);
        self.sort(place);
    }

    /// This master leads a shard no more: what it decided and is not on record is not so, and nobody is told.
    fn let_go(&mut self, place: usize) {
        let desk = &mut self.desks[place];
        if desk.let_go() {
            let id = desk.id;
            let door = &self.given.door;
            door.routes().over(id);
            if let Some(message) = door.led_elsewhere(id) {
                door.agents().tell_over(id, door.shards(), &message);
            }
            self.waiters.part(id);
        }
    }

    fn is_behind(&self) -> bool {
        self.desks.iter().filter_map(|desk| desk.lead.as_ref()).any(Lead::is_behind)
    }

    /// Tells each shard the time that asked for it.
    fn tick(&mut self, now: Time) {
        for place in 0..self.desks.len() {
            if let Some(lead) = self.desks[place].lead.as_mut().filter(|lead| lead.shard.poll_timeout().is_some_and(|at| at <= now)) {
                lead.shard.handle(now, Event::Tick);
                self.sort(place);
                self.ticked = now;
            }
        }
    }

    /// When a shard wants to be told the time; never at once again, whatever it says.
    fn next_tick(&self) -> Option<Instant> {
        let at = self.desks.iter().filter_map(|desk| desk.lead.as_ref()?.shard.poll_timeout()).min()?;
        Some(self.given.clock.instant(at.max(self.ticked + TICK_MS_MIN)).into())
    }

    fn deliver(&mut self, now: Time, letter: Letter) {
        let place = self.places[usize::from(letter.to().0)].expect("letters come to the thread of their shard");
        if self.desks[place].lead.is_none() || self.desks[place].next.is_some() {
            // Whoever leads it now is asked; what agents and shards said, they say anew to whoever that is.
            if let Letter::Request { .. } = letter {
                self.given.door.put(letter);
            }
            return;
        }
        let event = match letter {
            Letter::Request { to, request, waiter } => Event::Request { id: self.waiters.add(to, &request, waiter), request },
            Letter::Agent { agent, message, .. } => Event::Agent { agent, message },
            Letter::Disconnected { agent, .. } => Event::Disconnected { agent },
            Letter::Peer { from, message, .. } => Event::Peer { from, message },
            Letter::HandOver { to, next } => {
                self.desks[place].next = Some(next);
                // Requests wait until another leads.
                return self.given.door.routes().over(to);
            }
            Letter::PlugIns { .. } => {
                let scores = self.given.door.scores();
                return self.desks[place].lead.iter_mut().for_each(|lead| lead.shard.plug_in(&scores));
            }
        };
        if let Some(lead) = &mut self.desks[place].lead {
            lead.shard.handle(now, event);
            self.sort(place);
        }
    }

    /// Takes what a shard wants, and does what can be done.
    fn sort(&mut self, place: usize) {
        if let Some(lead) = &mut self.desks[place].lead {
            lead.sort(&mut self.due);
            self.act(place);
        }
    }

    /// Does what is due of a shard.
    fn act(&mut self, place: usize) {
        let from = self.desks[place].id;
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
                    // It speaks of these tasks to this shard, and may do so before the shard says anything to it.
                    let given = message.gives_to().and_then(|agent| self.given.door.agents().tell_untold(agent, from));
                    self.woken.extend(given);
                    let letter = Letter::Peer { to, from, message };
                    match self.places.get(usize::from(to.0)) {
                        Some(Some(place)) if self.desks[*place].lead.is_some() => self.told.push_back(letter),
                        Some(_) => self.away[usize::from(to.0)].push(letter),
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

    /// Hands over what the shards here said to those of other threads and of other masters. What is for a shard that nobody leads is lost, as
    /// is what a broken connection loses: whoever leads it next asks for all anew.
    fn forward(&mut self) {
        let door = &self.given.door;
        for (to, letters) in (0..).map(ShardId).zip(&mut self.away).filter(|(_, letters)| !letters.is_empty()) {
            match door.routes().find(to) {
                Some(Route::Here) => door.inbox(to).expect("each shard has an inbox").force(letters),
                Some(Route::At(leader)) => {
                    let (peer, sent) = (door.peers().find(leader), self.given.clock.now());
                    for letter in letters.drain(..) {
                        if let (Some(peer), Letter::Peer { to, from, message }) = (&peer, letter) {
                            peer.say(Said::Letter { to, from, sent, message });
                        }
                    }
                }
                Some(Route::Nowhere) | None => letters.clear(),
            }
        }
    }

    fn sweep(&mut self) {
        for (to, id) in self.waiters.sweep() {
            let place = self.places[usize::from(to.0)].expect("its request was for a shard of this thread");
            if let Some(lead) = &mut self.desks[place].lead {
                lead.shard.handle(self.given.clock.now(), Event::Abandoned { id });
                self.sort(place);
            }
        }
    }
}
