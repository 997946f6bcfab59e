//! What members of a group ask of each other, and the way it takes: whoever has connections carries it. Also a leader's lease, which follows
//! from the answers.

use super::Standing;
use super::raft::{Ballot, Members, Types};
use futures::future::BoxFuture;
use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RaftError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, BasicNode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The wait before a member is asked again that could not be reached.
const RETRY: Duration = Duration::from_millis(50);

/// What one member of a group asks of another. New variants at the end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Take these entries; none: I lead.
    Append(AppendEntriesRequest<Types>),
    /// May I lead?
    Vote(VoteRequest<u64>),
    /// A piece of a snapshot.
    Snapshot(InstallSnapshotRequest<Types>),
    /// The leader gives way to the one that this ballot names: no promise to the leader stands in its way.
    Yield(Ballot),
    /// The leader gives way to you.
    Stand,
    /// How do you stand?
    Standing,
}

/// An answer to an [`Ask`]. New variants at the end.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Ask::Append`].
    Append(AppendEntriesResponse<u64>),
    /// To [`Ask::Vote`].
    Vote(VoteResponse<u64>),
    /// To [`Ask::Snapshot`].
    Snapshot(InstallSnapshotResponse<u64>),
    /// It is done.
    Done,
    /// It cannot be: for people.
    Failed(String),
    /// To [`Ask::Standing`].
    Standing(Standing),
}

/// Whoever carries what members ask to where they are.
pub trait Carrier: fmt::Debug + Send + Sync + 'static {
    /// Asks member `to` of `group`; `None` where there is no answer to be had.
    fn carry(&self, to: u64, group: u16, ask: Ask) -> BoxFuture<'static, Option<Answer>>;
}

/// How long members wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often a leader says that it leads, in milliseconds; also how long an answer may take before it is asked again.
    pub heartbeat_ms: u64,
    /// A leader that was not answered by a majority for so long leads no more, and no other is elected before; in milliseconds.
    pub lease_ms: u64,
    /// What a follower waits beyond the lease before it wants to lead itself is drawn between this and the lease, in milliseconds.
    pub election_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { heartbeat_ms: 75, lease_ms: 400, election_ms: 150 }
    }
}

impl Timing {
    /// Of the lease, what a leader believes of it: clocks may differ by a hundredth in rate, and then some.
    const fn believed(self) -> Duration {
        Duration::from_millis(self.lease_ms * 9 / 10)
    }
}

/// Until when a leader leads, by what the others have answered.
#[derive(Debug)]
pub struct Lease {
    member: u64,
    timing: Timing,
    heard: Mutex<Answers>,
}

/// What the others have answered.
#[derive(Debug, Default)]
struct Answers {
    /// To a leader of which term: an answer to an earlier one promises nothing to this one.
    term: u64,
    /// When what each of them answered last had been sent.
    sent: BTreeMap<u64, Instant>,
}

impl Lease {
    pub(super) fn new(member: u64, timing: Timing) -> Self {
        Self { member, timing, heard: Mutex::default() }
    }

    /// This member leads in `term`. What was answered to an earlier leader, were it this member itself, counts no more.
    pub(super) fn begin(&self, term: u64) {
        *self.heard() = Answers { term, sent: BTreeMap::new() };
    }

    fn acknowledged(&self, by: u64, sent: Instant, term: u64) {
        let mut heard = self.heard();
        if heard.term == term {
            let last = heard.sent.entry(by).or_insert(sent);
            *last = sent.max(*last);
        }
    }

    /// Until when it holds with these members; `None`: for ever, since this member alone is a majority.
    pub(super) fn until(&self, members: &Members) -> Option<Instant> {
        let heard = self.heard();
        let of = |voters: &std::collections::BTreeSet<u64>| {
            let needed = voters.len() / 2 + 1;
            let needed = needed - usize::from(voters.contains(&self.member));
            let mut sent: Vec<Option<Instant>> =
                voters.iter().filter(|voter| **voter != self.member).map(|voter| heard.sent.get(voter).copied()).collect();
            sent.sort_unstable_by(|a, b| b.cmp(a));
            // The oldest of the latest that make a majority.
            needed.checked_sub(1).map(|last| sent[last].map(|sent| sent + self.timing.believed()))
        };
        // While members change, both the old and the new ones must agree.
        let limits = members.membership().get_joint_config().iter().filter_map(of);
        limits.map(|limit| limit.unwrap_or_else(|| Instant::now() - Duration::from_millis(1))).min()
    }

    fn heard(&self) -> MutexGuard<'_, Answers> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A group's way to its other members.
pub struct Network {
    /// Whoever carries it there.
    pub carrier: Arc<dyn Carrier>,
    /// Which group.
    pub group: u16,
    /// What follows from the answers.
    pub lease: Arc<Lease>,
}

/// The way to one of them.
pub struct Way {
    to: u64,
    group: u16,
    carrier: Arc<dyn Carrier>,
    lease: Arc<Lease>,
}

type WayError<E> = RPCError<u64, BasicNode, E>;

impl RaftNetworkFactory<Types> for Network {
    type Network = Way;

    async fn new_client(&mut self, target: u64, _node: &BasicNode) -> Way {
        Way { to: target, group: self.group, carrier: Arc::clone(&self.carrier), lease: Arc::clone(&self.lease) }
    }
}

impl Way {
    async fn ask<E: std::error::Error>(&self, ask: Ask) -> Result<Answer, WayError<E>> {
        match self.carrier.carry(self.to, self.group, ask).await {
            Some(Answer::Failed(reason)) => Err(RPCError::Network(NetworkError::new(&AnyError::error(reason)))),
            Some(answer) => Ok(answer),
            None => Err(RPCError::Unreachable(Unreachable::new(&AnyError::error("this member is not connected")))),
        }
    }
}

fn unexpected<E: std::error::Error>() -> WayError<E> {
    RPCError::Network(NetworkError::new(&AnyError::error("a member answered another question")))
}

impl RaftNetwork<Types> for Way {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, WayError<RaftError<u64>>> {
        let (sent, term) = (Instant::now(), rpc.vote.leader_id.term);
        let Answer::Append(answer) = self.ask(Ask::Append(rpc)).await? else { return Err(unexpected()) };
        if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
            self.lease.acknowledged(self.to, sent, term);
        }
        Ok(answer)
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, WayError<RaftError<u64, InstallSnapshotError>>> {
        match self.ask(Ask::Snapshot(rpc)).await? {
            Answer::Snapshot(answer) => Ok(answer),
            _ => Err(unexpected()),
        }
    }

    async fn vote(&mut self, rpc: VoteRequest<u64>, _option: RPCOption) -> Result<VoteResponse<u64>, WayError<RaftError<u64>>> {
        match self.ask(Ask::Vote(rpc)).await? {
            Answer::Vote(answer) => Ok(answer),
            _ => Err(unexpected()),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY))
    }
}

/// Nobody is reached: for a group of one member.
#[derive(Debug)]
pub struct Alone;

impl Carrier for Alone {
    fn carry(&self, _to: u64, _group: u16, _ask: Ask) -> BoxFuture<'static, Option<Answer>> {
        Box::pin(std::future::ready(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::{CommittedLeaderId, LogId, Membership};
    use std::collections::BTreeSet;

    fn members(configs: &[&[u64]]) -> Members {
        let configs: Vec<BTreeSet<u64>> = configs.iter().map(|voters| voters.iter().copied().collect()).collect();
        let nodes: BTreeMap<u64, BasicNode> = configs.iter().flatten().map(|voter| (*voter, BasicNode::default())).collect();
        Members::new(Some(LogId::new(CommittedLeaderId::new(1, 1), 1)), Membership::new(configs, nodes))
    }

    #[test]
    fn a_lease_lasts_from_what_a_majority_answered_last() {
        let timing = Timing { heartbeat_ms: 10, lease_ms: 100, election_ms: 50 };
        let lease = Lease::new(1, timing);
        lease.begin(7);
        let (begin, held) = (Instant::now(), timing.believed());
        assert_eq!(lease.until(&members(&[&[1]])), None);
        assert!(lease.until(&members(&[&[1, 2, 3]])).unwrap() < Instant::now(), "nobody has answered");
        lease.acknowledged(2, begin, 7);
        assert_eq!(lease.until(&members(&[&[1, 2, 3]])), Some(begin + held));
        assert!(lease.until(&members(&[&[1, 2, 3, 4, 5]])).unwrap() < Instant::now());
        lease.acknowledged(3, begin + held, 7);
        assert_eq!(lease.until(&members(&[&[1, 2, 3]])), Some(begin + 2 * held));
        assert_eq!(lease.until(&members(&[&[1, 2, 3, 4, 5]])), Some(begin + held));
        // An old answer that comes late takes nothing back.
        lease.acknowledged(3, begin, 7);
        assert_eq!(lease.until(&members(&[&[1, 2, 3]])), Some(begin + 2 * held));
        // While members change both sides must have answered.
        assert_eq!(lease.until(&members(&[&[1, 3], &[1, 2]])), Some(begin + held));
        // One that is no member any more counts the others alone.
        assert_eq!(lease.until(&members(&[&[2, 3]])), Some(begin + held));
        lease.begin(8);
        // A late answer to the leader of an earlier term promises nothing.
        lease.acknowledged(2, begin + held, 7);
        assert!(lease.until(&members(&[&[1, 2, 3]])).unwrap() < Instant::now());
    }
}
