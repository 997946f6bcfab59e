//! Which master leads which shard, as far as this one knows: by the highest term that anybody said.

use super::inbox::Letter;
use crate::shard::Refusal;
use protocol::ShardId;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long a request waits for a leader.
const PARKED_WITHIN: Duration = Duration::from_secs(5);
/// Most requests that wait for one.
const PARKED_MAX: usize = 16_384;

/// Where a shard is led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// By this master.
    Here,
    /// By another.
    At(u64),
    /// By nobody that is known.
    Nowhere,
}

/// Which master leads which shard.
#[derive(Debug)]
pub struct Routes {
    /// This master.
    member: u64,
    table: Mutex<Vec<Known>>,
    parked: Mutex<VecDeque<(Instant, Letter)>>,
    /// Counts what changed.
    changed: watch::Sender<u64>,
}

/// What is known of one shard.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    leader: Option<u64>,
    term: u64,
}

impl Routes {
    /// Of `shards` shards nothing is known.
    pub fn new(member: u64, shards: u16) -> Self {
        let table = Mutex::new(vec![Known::default(); usize::from(shards)]);
        Self { member, table, parked: Mutex::default(), changed: watch::Sender::new(0) }
    }

    /// This master's number.
    pub const fn member(&self) -> u64 {
        self.member
    }

    /// Where a shard is led; `None` where there is no such shard.
    pub fn find(&self, shard: ShardId) -> Option<Route> {
        let known = *self.table().get(usize::from(shard.0))?;
        Some(match known.leader {
            None => Route::Nowhere,
            Some(leader) if leader == self.member => Route::Here,
            Some(leader) => Route::At(leader),
        })
    }

    /// The term in which another master leads a shard, and which one; no master where nobody is known to lead it. `None` where this one does, or
    /// there is no such shard.
    pub fn elsewhere(&self, shard: ShardId) -> Option<(u64, Option<u64>)> {
        let known = *self.table().get(usize::from(shard.0))?;
        (known.leader != Some(self.member)).then_some((known.term, known.leader))
    }

    /// The shards that `member` leads, each with its term.
    pub fn led_by(&self, member: u64) -> Vec<(ShardId, u64)> {
        let table = self.table();
        let led = table.iter().enumerate().filter(|(_, known)| known.leader == Some(member));
        led.map(|(shard, known)| (shard_id(shard), known.term)).collect()
    }

    /// Somebody says that `member` leads `shard` in `term`; false where a later term is known.
    pub fn leads(&self, shard: ShardId, member: u64, term: u64) -> bool {
        let mut table = self.table();
        let Some(known) = table.get_mut(usize::from(shard.0)).filter(|known| known.term <= term) else { return false };
        *known = Known { leader: Some(member), term };
        drop(table);
        self.changed.send_modify(|count| *count += 1);
        true
    }

    /// This master leads `shard` no more.
    pub fn over(&self, shard: ShardId) {
        if let Some(known) = self.table().get_mut(usize::from(shard.0))
            && known.leader == Some(self.member)
        {
            known.leader = None;
        }
    }

    /// Has those who wait for a change look again.
    pub fn stir(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Counts what changed, now and from now on.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Keeps a request until it is known who leads its shard, or refuses it.
    pub fn park(&self, letter: Letter) {
        let mut parked = lock(&self.parked);
        if parked.len() < PARKED_MAX {
            parked.push_back((Instant::now() + PARKED_WITHIN, letter));
            drop(parked);
            self.changed.send_modify(|count| *count += 1);
        } else {
            drop(parked);
            refuse(letter);
        }
    }

    /// The requests whose shards are led by somebody now who can be asked: this master, or one of which `is_up` holds. Refuses those that have
    /// waited too long at `now`.
    pub fn unpark(&self, now: Instant, is_up: impl Fn(u64) -> bool) -> Vec<Letter> {
        let mut parked = lock(&self.parked);
        let mut ready = Vec::new();
        for (until, letter) in std::mem::take(&mut *parked) {
            let can_be_asked = match self.find(letter.to()) {
                Some(Route::Here) => true,
                Some(Route::At(leader)) => is_up(leader),
                Some(Route::Nowhere) | None => false,
            };
            match can_be_asked {
                true => ready.push(letter),
                false if until <= now => refuse(letter),
                false => parked.push_back((until, letter)),
            }
        }
        ready
    }

    /// True where requests wait.
    pub fn has_parked(&self) -> bool {
        !lock(&self.parked).is_empty()
    }

    fn table(&self) -> MutexGuard<'_, Vec<Known>> {
        lock(&self.table)
    }
}

fn shard_id(shard: usize) -> ShardId {
    ShardId(u16::try_from(shard).expect("a cluster has at most SHARDS_MAX shards"))
}

fn refuse(letter: Letter) {
    if let Letter::Request { waiter, .. } = letter {
        waiter.refuse(Refusal::Unled);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing inside the locks can panic half way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::inbox::Waiter;
    use crate::shard::view::View;
    use crate::shard::{Request, Response};
    use tokio::sync::oneshot;

    #[test]
    fn the_highest_term_is_right_whoever_says_it_last() {
        let (routes, shard) = (Routes::new(1, 2), ShardId(1));
        assert_eq!((routes.find(shard), routes.find(ShardId(2))), (Some(Route::Nowhere), None));
        assert!(routes.leads(shard, 2, 5));
        assert!(!routes.leads(shard, 3, 4));
        assert_eq!(routes.find(shard), Some(Route::At(2)));
        assert!(routes.leads(shard, 1, 6));
        assert_eq!((routes.find(shard), routes.led_by(1)), (Some(Route::Here), vec![(shard, 6)]));
        routes.over(shard);
        // Who led before it does so no more, though nobody has said who does.
        assert!(!routes.leads(shard, 2, 5));
        assert_eq!(routes.find(shard), Some(Route::Nowhere));
        assert!(routes.leads(shard, 3, 7));
        routes.over(shard);
        assert_eq!(routes.find(shard), Some(Route::At(3)));
    }

    #[test]
    fn a_request_waits_for_a_leader_that_cannot_be_reached_no_longer_than_for_one_that_is_not_known() {
        let (routes, shard) = (Routes::new(1, 1), ShardId(0));
        let (answer, mut answered) = oneshot::channel();
        routes.park(Letter::Request { to: shard, request: Request::View(View::Masters), waiter: Waiter::Once(answer) });
        assert!(routes.leads(shard, 2, 5));
        let now = Instant::now();
        assert!(routes.unpark(now, |_| false).is_empty() && routes.has_parked(), "it is not asked over and over");
        assert!(routes.unpark(now + PARKED_WITHIN, |_| false).is_empty() && !routes.has_parked());
        assert!(matches!(answered.try_recv(), Ok(Response::Refused(Refusal::Unled))));
        let (answer, _answered) = oneshot::channel();
        routes.park(Letter::Request { to: shard, request: Request::View(View::Masters), waiter: Waiter::Once(answer) });
        assert_eq!(routes.unpark(now, |leader| leader == 2).len(), 1);
    }
}
