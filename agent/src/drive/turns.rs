//! When to connect to which master. An agent needs the one that leads its own shard at once, and the others for the day on which they lead: where
//! all masters start again, or one of them, every agent of the cluster comes at once, and those that only want a spare connection must not stand
//! in the way of those that have none. Knows of who leads only whether the own shard's leader is reached, whether the ledger doubts it, and what
//! other masters say where it is.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::Ways;
use crate::fingerprint::random;
use crate::ledger::Ledger;
use protocol::AgentId;

/// A spare connection is made within so many beats, at a moment that is drawn: the more agents there are, the rarer the beats.
const SPARE_BEATS: u64 = 16;
/// While the leader of the agent's own shard is not reached one master is tried after the other, and another beside it where that takes longer than
/// between this and half of it: an agent that starts may know a master that is not there, and one that has lost its leader is known to others, or
/// is one of thousands that all have.
const BESIDE_FIRST: Duration = Duration::from_millis(1_500);
const BESIDE: Duration = Duration::from_secs(6);
/// How long it is waited for a master that was reached to say what it leads.
const SETTLE: Duration = Duration::from_secs(1);
/// What makes a fleet that is started at once try its masters in different orders.
const SCATTER: Duration = Duration::from_millis(20);

/// How the agent stands with the leader of its own shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Served {
    NotYet,
    /// It is reached, and the agent beats so often, in milliseconds.
    Each(u64),
    Lost,
}

impl Served {
    const fn is_so(self) -> bool {
        matches!(self, Self::Each(_))
    }
}

/// Whose turn it is, among the ways to the masters that one agent has.
#[derive(Clone, Debug)]
pub struct Turns {
    served: watch::Sender<Served>,
    one: Arc<Semaphore>,
    /// Where the leader of the agent's own shard is, while it is not reached: as another master says.
    elsewhere: watch::Sender<Option<String>>,
}

/// That it is a way's turn to connect; given back by dropping it.
#[derive(Debug)]
pub struct Turn {
    held: Option<OwnedSemaphorePermit>,
    served: watch::Receiver<Served>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { served: watch::Sender::new(Served::NotYet), one: Arc::new(Semaphore::new(1)), elsewhere: watch::Sender::default() }
    }
}

impl Turns {
    /// The leader of the agent's own shard is reached, and the agent beats so often, in milliseconds; or it is not. True where it was before.
    fn serve(&self, beat_ms: Option<u64>) -> bool {
        let mut lost = false;
        self.served.send_if_modified(|served| {
            lost = served.is_so() && beat_ms.is_none();
            let now = beat_ms.map_or(if lost { Served::Lost } else { *served }, Served::Each);
            std::mem::replace(served, now) != now
        });
        lost
    }

    /// Says whose turn it is, as things stand; true where the leader of the agent's own shard was reached before and is no more.
    pub fn take(&self, agent: AgentId, ways: &Ways, ledger: &Ledger) -> bool {
        self.point(ways.elsewhere(agent));
        let served = ways.is_served(agent) && !ledger.doubts_leader();
        self.serve(served.then(|| ledger.heartbeat_ms()))
    }

    /// The leader of the agent's own shard is said to be there; or nothing is said.
    fn point(&self, at: Option<&str>) {
        self.elsewhere.send_if_modified(|elsewhere| {
            let is_new = elsewhere.as_deref() != at;
            if is_new {
                *elsewhere = at.map(str::to_owned);
            }
            is_new
        });
    }

    /// Waits until it is time to connect to the master at `address`.
    pub async fn wait(&self, address: &str) -> Turn {
        let (mut served, mut elsewhere) = (self.served.subscribe(), self.elsewhere.subscribe());
        tokio::time::sleep(SCATTER.mul_f64(drawn())).await;
        loop {
            let now = *served.borrow_and_update();
            let held = if let Served::Each(beat_ms) = now {
                let spare = Duration::from_millis(SPARE_BEATS * beat_ms).mul_f64(drawn());
                tokio::select! {
                    () = tokio::time::sleep(spare) => None,
                    _ = served.wait_for(|served| !served.is_so()) => continue,
                }
            } else {
                let beside = if now == Served::Lost { BESIDE } else { BESIDE_FIRST }.mul_f64(0.5 + 0.5 * drawn());
                tokio::select! {
                    biased;
                    _ = served.wait_for(|served| served.is_so()) => continue,
                    _ = elsewhere.wait_for(|elsewhere| elsewhere.as_deref() == Some(address)) => None,
                    held = Arc::clone(&self.one).acquire_owned() => held.ok(),
                    () = tokio::time::sleep(beside) => None,
                }
            };
            return Turn { held, served };
        }
    }
}

impl Turn {
    /// The master is reached: the next turn begins once it had time to say what it leads, unless that is what was looked for.
    pub async fn settle(mut self) {
        if self.held.is_some() {
            // Late is as good as that the leader is reached: the turn is over.
            let _ = tokio::time::timeout(SETTLE, self.served.wait_for(|served| served.is_so())).await;
        }
    }
}

/// Between nothing and one: without randomness all agents would come at the same moment. Where there is none, nothing worse happens.
pub(super) fn drawn() -> f64 {
    f64::from(random::<4>().map_or(u32::MAX / 2, u32::from_le_bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn without_a_leader_ways_come_one_after_the_other() {
        let (turns, start) = (Turns::default(), Instant::now());
        assert!(!turns.serve(Some(1)) && turns.serve(None));
        let first = turns.wait("m1:1").await;
        assert!(start.elapsed() <= 2 * SCATTER, "nothing is waited for");
        let (waiting, start) = (turns.clone(), Instant::now());
        let second = tokio::spawn(async move { (waiting.wait("m1:1").await, Instant::now()) });
        tokio::time::sleep(BESIDE / 4).await;
        assert!(!second.is_finished());
        drop(first);
        let (second, at) = second.await.unwrap();
        assert!(at - start < BESIDE / 2, "as soon as the first has failed");

        let start = Instant::now();
        let _third = turns.wait("m1:1").await;
        assert!(start.elapsed() >= BESIDE / 2 && start.elapsed() <= BESIDE + 2 * SCATTER, "beside one that takes long");

        let (settling, start) = (tokio::spawn(second.settle()), Instant::now());
        let _fourth = turns.wait("m1:1").await;
        assert!(start.elapsed() >= SETTLE && start.elapsed() < BESIDE / 2, "after a master that does not lead");
        settling.await.unwrap();

        // The one that is said to lead does not wait for the others, not even one that had begun to.
        let (waiting, start) = (turns.clone(), Instant::now());
        let pointed = tokio::spawn(async move { drop(waiting.wait("m2:1").await) });
        tokio::time::sleep(2 * SCATTER).await;
        assert!(!pointed.is_finished());
        turns.point(Some("m2:1"));
        pointed.await.unwrap();
        assert!(start.elapsed() < 3 * SCATTER);
        turns.point(None);
        let start = Instant::now();
        let _fifth = turns.wait("m2:1").await;
        assert!(start.elapsed() >= BESIDE / 2, "nobody says so any more");
    }

    #[tokio::test(start_paused = true)]
    async fn with_a_leader_spares_take_their_time_and_hurry_when_it_is_lost() {
        let turns = Turns::default();
        turns.serve(Some(1_000));
        let mut waits = vec![];
        for _ in 0..50 {
            let start = Instant::now();
            drop(turns.wait("m1:1").await);
            waits.push(start.elapsed());
        }
        let most = Duration::from_secs(SPARE_BEATS);
        assert!(waits.iter().all(|wait| *wait <= most + 2 * SCATTER));
        assert!(waits.iter().any(|wait| *wait < most / 2) && waits.iter().any(|wait| *wait > most / 2), "{waits:?}");

        turns.serve(Some(1_000_000));
        let (waiting, start) = (turns.clone(), Instant::now());
        let lost = tokio::spawn(async move { waiting.wait("m1:1").await });
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!lost.is_finished());
        assert!(turns.serve(None));
        let _turn = lost.await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(61));

        // Whoever waits for a turn while the leader is looked for has time again when it is found.
        let (waiting, start) = (turns.clone(), Instant::now());
        let spare = tokio::spawn(async move { waiting.wait("m1:1").await });
        tokio::time::sleep(BESIDE_FIRST / 4).await;
        turns.serve(Some(10_000));
        drop(spare.await.unwrap());
        assert!(start.elapsed() > BESIDE_FIRST / 4);
        assert!(!turns.serve(Some(1)) && turns.serve(None) && !turns.serve(None));
    }
}
