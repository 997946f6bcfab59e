//! Which member of a group stands for election, and when. Each shard has an order of its own in which its members are to lead it, so leaders spread;
//! whoever is next in it stands as soon as the leader's lease is over, and each further one a little later. So two hardly ever stand at once, and
//! no lead is handed on right after an election, which would cost all agents of the shard a registration. The engine's own timers, which are
//! drawn, remain for where all that does not lead to a leader.

use super::network::Timing;
use super::raft::Raft;
use openraft::metrics::RaftServerMetrics;
use openraft::{BasicNode, Vote};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

/// So many leases after its start a member may want to lead by itself. Until then it hears of whoever leads: to be elected only since it was not
/// heard yet, would take the lead away from a master that agents are connected with.
const QUIET_LEASES: u32 = 4;
/// Where all members start at once, each waits so many leases longer than the one before it in the order.
const QUIET_EACH_LEASES: f64 = 0.5;
/// What a member waits beyond the lease, and what each waits longer than the one before it, in leases: others may have heard of the leader a little
/// later, and a vote takes a flush.
const BEYOND_LEASES: f64 = 1.0 / 16.0;
const EACH_LEASES: f64 = 3.0 / 16.0;
/// What a member waits at the least before it stands again where nothing came of it yet, in leases: who stands again with each change of its own state
/// has hundreds of terms in a moment, and nobody hears anybody for them.
const AGAIN_LEASES: f64 = 1.0 / 16.0;
/// Who wakes later than this after its time, in leases, was stopped, and what it has heard last is no news.
const OVERSLEPT_LEASES: f64 = 0.5;

/// The members, the first choice first: first choices are dealt out in turn, and so are the next ones among the shards with the same.
pub fn order(shard: u16, voters: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let (mut rest, mut left): (Vec<u64>, _) = (voters.into_iter().collect(), usize::from(shard));
    let mut order = Vec::with_capacity(rest.len());
    while !rest.is_empty() {
        let count = rest.len();
        order.push(rest.remove(left % count));
        left /= count;
    }
    order
}

/// When this member heard last of a leader, or of one whom it voted for.
#[derive(Clone, Debug)]
pub(super) struct Heard(Arc<watch::Sender<Instant>>);

impl Heard {
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Instant::now())))
    }

    pub fn now(&self) {
        self.0.send_replace(Instant::now());
    }

    fn last(&self) -> Instant {
        *self.0.borrow()
    }
}

/// What makes one member of one group stand for election.
pub(super) struct Succession {
    pub raft: Raft,
    pub heard: Heard,
    pub timing: Timing,
    pub member: u64,
    pub shard: u16,
}

impl Succession {
    /// Has it stand from now on when it is its turn, in a task of its own.
    pub fn begin(self) -> JoinHandle<()> {
        tokio::spawn(async move {
            // It ends with the engine.
            let _ = self.stand().await;
        })
    }

    async fn stand(self) -> Option<()> {
        let mut server = self.raft.server_metrics();
        let place = self.place(&server.borrow()).unwrap_or(0.0);
        sleep(self.leases(f64::from(QUIET_LEASES) + QUIET_EACH_LEASES * place)).await;
        self.raft.runtime_config().elect(true);
        self.heard.now();
        let (mut hearing, mut not_before) = (self.heard.0.subscribe(), Instant::now());
        loop {
            let (leads, place, stands) = {
                let server = server.borrow_and_update();
                (server.state.is_leader(), self.place(&server), server.vote.leader_id.voted_for() == Some(self.member))
            };
            let Some(place) = place.filter(|_| !leads) else {
                server.changed().await.ok()?;
                self.heard.now();
                continue;
            };
            let heard = self.heard.last();
            let at = heard + self.leases(1.0 + BEYOND_LEASES + EACH_LEASES * place);
            tokio::select! {
                biased;
                changed = server.changed() => {
                    changed.ok()?;
                    continue;
                }
                // Who has learned of a later term meanwhile has nothing to wait for.
                () = sleep_until(if stands { at.max(not_before) } else { at }) => {}
            }
            if self.heard.last() != heard {
                continue;
            }
            if at.elapsed() > self.leases(OVERSLEPT_LEASES) {
                self.heard.now();
                continue;
            }
            hearing.mark_unchanged();
            tracing::debug!(shard = self.shard, "nothing is heard of a leader: this master stands for election");
            self.raft.trigger().elect().await.ok()?;
            not_before = Instant::now() + self.leases(AGAIN_LEASES);
            // From here on the engine's timers see to it.
            tokio::select! {
                biased;
                changed = hearing.changed() => changed.ok()?,
                changed = server.changed() => changed.ok()?,
            }
        }
    }

    /// How many of those that may lead come before this member, the one that led last not counted; `None` where it has no vote.
    fn place(&self, server: &RaftServerMetrics<u64, BasicNode>) -> Option<f64> {
        let members = server.membership_config.membership();
        let last = leader(&server.vote).filter(|leader| *leader != self.member);
        let mut order = order(self.shard, members.voter_ids());
        order.retain(|member| Some(*member) != last);
        let place = order.iter().position(|member| *member == self.member)?;
        Some(f64::from(u32::try_from(place).expect("a group has few members")))
    }

    fn leases(&self, count: f64) -> Duration {
        Duration::from_millis(self.timing.lease_ms).mul_f64(count)
    }
}

fn leader(vote: &Vote<u64>) -> Option<u64> {
    vote.committed.then(|| vote.leader_id.voted_for()).flatten()
}

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn leaders_are_dealt_out_in_turn_and_only_those_of_a_lost_master_move() {
        let first = |left: &[u64]| -> Vec<u64> {
            (0..8).map(|shard| order(shard, [1, 4, 9]).into_iter().find(|master| left.contains(master)).unwrap()).collect()
        };
        assert_eq!(first(&[1, 4, 9]), [1, 4, 9, 1, 4, 9, 1, 4]);
        assert_eq!(first(&[4, 9]), [4, 4, 9, 9, 4, 9, 4, 4]);
        assert_eq!(first(&[1, 9]), [1, 1, 9, 1, 9, 9, 1, 1]);
        assert!(order(0, []).is_empty());
    }
}
