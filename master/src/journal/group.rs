//! One shard's group: proposals in, commits out, and who leads. The engine runs on the runtime of the thread that opens it.
//!
//! Whoever decides is given the shard when this member begins to lead with everything committed folded in, and must let it go when the member
//! leads no more: after another was elected, or when its lease is over, whichever it notices first.

use super::log::Log;
use super::machine::Machine;
use super::network::{Answer, Ask, Carrier, Lease, Network, Timing};
use super::raft::{Ballot, EntryId, Metrics, Outcome, Raft};
use super::reign::{Reign, Turns};
use super::store::Store;
use super::succession::{Heard, Succession};
use super::{Batch, JournalError};
use crate::shard::view::{View, Viewed};
use crate::shard::{Refusal, ShardConfig};
use openraft::error::{ClientWriteError, Fatal, RaftError};
use openraft::metrics::RaftServerMetrics;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, ClientWriteResponse};
use openraft::{BasicNode, ChangeMembers, CommittedLeaderId, Config, SnapshotPolicy, Vote};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs::File;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Bytes of a snapshot in one message.
const SNAPSHOT_PIECE_BYTES: u64 = 256 << 10;
/// Entries that are kept beyond a snapshot, so that a member that is a little behind need not be sent all of it.
const ENTRIES_KEPT: u64 = 256;
/// How long a member may take to install a piece of a snapshot, in milliseconds: the last one is installed whole before it is answered.
const SNAPSHOT_ANSWER_MS: u64 = 30_000;
/// How long a hand-over waits for what is on its way to the member that is to lead.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(2);

/// How long a snapshot may take, and how often one is begun that is not new enough.
const SNAPSHOT_WITHIN: Duration = Duration::from_secs(60);
const SNAPSHOT_TRIES_MAX: usize = 3;

/// What the groups of a process have in common.
#[derive(Clone, Debug)]
pub struct Seat {
    /// The number of this master, from 1: it is this member of each group.
    pub member: u64,
    /// The way to the others.
    pub carrier: Arc<dyn Carrier>,
    /// How long members wait for each other.
    pub timing: Timing,
}

/// One shard's group.
pub struct Group {
    raft: Raft,
    machine: Machine,
    shard: u16,
    seat: Seat,
    log: Arc<Log>,
    lease: Arc<Lease>,
    heard: Heard,
    opened: Instant,
    lapsed: Arc<Notify>,
    tasks: Vec<JoinHandle<()>>,
}

/// What a group answers to others from any thread.
#[derive(Clone)]
pub struct Member {
    raft: Raft,
    server: watch::Receiver<RaftServerMetrics<u64, BasicNode>>,
    machine: Machine,
    shard: u16,
    seat: Seat,
    lease: Arc<Lease>,
    heard: Heard,
    opened: Instant,
}

/// What became of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is committed.
    Committed,
    /// This member leads no more, and nobody knows what becomes of it: it must not be told to anybody.
    Unknown,
}

/// How a group stands, as far as this member knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The shard.
    pub shard: u16,
    /// The present term.
    pub term: u64,
    /// Who leads.
    pub leader: Option<u64>,
    /// Who has a vote.
    pub voters: BTreeSet<u64>,
    /// Who is sent everything and has none.
    pub learners: BTreeSet<u64>,
    /// The index of the last entry that this member has.
    pub last: u64,
    /// The index of the last entry that took effect here.
    pub applied: u64,
    /// Where this member leads: the last entry that each other has.
    pub matching: BTreeMap<u64, u64>,
}

impl Group {
    /// Opens the group of the shard that `config` names, with its snapshots in `dir`. Whoever decides hears by the second value when this
    /// member begins to lead and when it leads no more.
    ///
    /// # Errors
    /// [`JournalError`] where its snapshot is damaged or the log cannot be read.
    pub async fn open(log: &Arc<Log>, dir: &Path, config: ShardConfig, seat: &Seat) -> Result<(Self, Turns), JournalError> {
        let shard = config.id.0;
        let failed = |reason: &dyn Display| raft_error(log, shard, reason);
        let machine = Machine::open(Arc::clone(log), dir, config)?;
        let store = Store::new(Arc::clone(log), shard);
        let settings = settings(seat.timing).validate().map_err(|error| failed(&error))?;
        let lease = Arc::new(Lease::new(seat.member, seat.timing));
        let network = Network { carrier: Arc::clone(&seat.carrier), group: shard, lease: Arc::clone(&lease) };
        let raft = Raft::new(seat.member, Arc::new(settings), network, store, machine.clone()).await.map_err(|error| failed(&error))?;
        let lapsed = Arc::new(Notify::new());
        let reign = Reign {
            raft: raft.clone(),
            machine: machine.clone(),
            lease: Arc::clone(&lease),
            lapsed: Arc::clone(&lapsed),
            member: seat.member,
            shard,
        };
        let (turns, reigning) = reign.begin();
        let tending = tokio::spawn(tend(raft.clone(), machine.clone(), Arc::clone(log), shard));
        let heard = Heard::new();
        let (engine, timing, member) = (raft.clone(), seat.timing, seat.member);
        let standing = Succession { raft: engine, heard: heard.clone(), timing, member, shard }.begin();
        let tasks = vec![reigning, tending, standing];
        let group =
            Self { raft, machine, shard, seat: seat.clone(), log: Arc::clone(log), lease, heard, opened: Instant::now(), lapsed, tasks };
        Ok((group, turns))
    }

    /// Makes this the only member of a new group; harmless where the group was made before.
    ///
    /// # Errors
    /// [`JournalError::Raft`] and those of the log.
    pub async fn found(&self, address: &str) -> Result<(), JournalError> {
        if self.raft.is_initialized().await.map_err(|error| self.error(&error))? {
            return Ok(());
        }
        let members = BTreeMap::from([(self.seat.member, BasicNode::new(address))]);
        self.raft.initialize(members).await.map_err(|error| self.error(&error))
    }

    /// What answers the other members, from any thread.
    pub fn member(&self) -> Member {
        let Self { raft, machine, shard, seat, lease, heard, opened, .. } = self;
        Member {
            raft: raft.clone(),
            server: raft.server_metrics(),
            machine: machine.clone(),
            shard: *shard,
            seat: seat.clone(),
            lease: Arc::clone(lease),
            heard: heard.clone(),
            opened: *opened,
        }
    }

    /// Whoever decides has noticed by itself that this member leads no more, and has let the shard go.
    pub fn lapse(&self) {
        self.lapsed.notify_one();
    }

    /// Proposes a batch; what is returned ends when it is committed. Batches are committed in the order in which they are proposed.
    ///
    /// # Errors
    /// [`JournalError::Raft`] where the engine has stopped; the same comes from what is returned: then it is not known whether the batch is
    /// durable, and it must not be told to anybody.
    pub async fn propose(&self, batch: Batch) -> Result<impl Future<Output = Result<Fate, JournalError>> + Send + use<>, JournalError> {
        let (log, shard) = (Arc::clone(&self.log), self.shard);
        let committed = self.raft.client_write_ff(batch).await.map_err(|error| self.error(&error))?;
        Ok(async move {
            match committed.await {
                Ok(Ok(ClientWriteResponse { data: Outcome::Done, .. })) => Ok(Fate::Committed),
                Ok(Ok(ClientWriteResponse { data: Outcome::Void, .. }) | Err(ClientWriteError::ForwardToLeader(_))) => Ok(Fate::Unknown),
                Ok(Err(error)) => Err(raft_error(&log, shard, &error)),
                Err(_) => Err(raft_error(&log, shard, &"it ended while it was asked")),
            }
        })
    }

    /// Ends the engine. What was committed is durable already; a snapshot that is being made is finished in the background, and holds the
    /// log until then.
    pub async fn close(self) {
        for task in self.tasks {
            task.abort();
            // It was aborted: that is no news.
            let _ = task.await;
        }
        // It ends by a panic only after it said so.
        let _ = self.raft.shutdown().await;
    }

    /// Makes a snapshot now, and waits until it is made, and the log shorter where nobody else may want it.
    ///
    /// # Errors
    /// [`JournalError::Raft`].
    pub async fn snapshot(&self) -> Result<(), JournalError> {
        let upto = self.raft.metrics().borrow().last_applied;
        loop {
            let before = self.raft.metrics().borrow().snapshot;
            // While another is being made this is passed over.
            self.raft.trigger().snapshot().await.map_err(|error| self.error(&error))?;
            let made = |metrics: &Metrics| metrics.snapshot >= upto || metrics.snapshot != before;
            let metrics = self.raft.wait(None).metrics(made, "a snapshot is made").await.map_err(|error| self.error(&error))?;
            if metrics.snapshot >= upto {
                shorten(&self.raft, false).await.map_err(|error| self.error(&error))?;
                let shorter = |metrics: &Metrics| metrics.purged >= upto || metrics.membership_config.membership().nodes().count() > 1;
                self.raft.wait(None).metrics(shorter, "the log is shorter").await.map_err(|error| self.error(&error))?;
                return Ok(());
            }
        }
    }

    /// Why the engine has ended.
    pub fn failure(&self) -> JournalError {
        match &self.raft.metrics().borrow().running_state {
            Ok(()) => self.error(&"it has ended"),
            Err(error) => self.error(&format!("it has ended: {error}")),
        }
    }

    fn error(&self, reason: &dyn Display) -> JournalError {
        raft_error(&self.log, self.shard, reason)
    }
}

impl Member {
    /// Answers another member.
    pub async fn answer(&self, ask: Ask) -> Answer {
        let failed = |reason: &dyn Display| Answer::Failed(reason.to_string());
        match ask {
            Ask::Append(rpc) => {
                let answered = self.raft.append_entries(rpc).await;
                if answered.as_ref().is_ok_and(|answer| !matches!(answer, AppendEntriesResponse::HigherVote(_))) {
                    self.heard.now();
                }
                answered.map_or_else(|error| failed(&error), Answer::Append)
            }
            Ask::Vote(_) if self.may_have_promised() => failed(&"it began only now and may have promised a leader not to vote"),
            Ask::Vote(rpc) => {
                let answered = self.raft.vote(rpc).await;
                if answered.as_ref().is_ok_and(|answer| answer.vote_granted) {
                    self.heard.now();
                }
                answered.map_or_else(|error| failed(&error), Answer::Vote)
            }
            Ask::Snapshot(rpc) => self.raft.install_snapshot(rpc).await.map_or_else(|error| failed(&error), Answer::Snapshot),
            Ask::Yield(ballot) => self.give_way(ballot).await.map_or_else(|error| failed(&error), |()| Answer::Done),
            Ask::Standing => Answer::Standing(self.standing()),
            Ask::Stand => self.raft.trigger().elect().await.map_or_else(|error| failed(&error), |()| Answer::Done),
        }
    }

    /// The engine forgets in a restart when it heard of a leader last, and a leader counts on what it was promised.
    fn may_have_promised(&self) -> bool {
        let several = self.server.borrow().membership_config.membership().voter_ids().count() > 1;
        several && self.opened.elapsed() < Duration::from_millis(self.seat.timing.lease_ms)
    }

    /// Takes a ballot that is not yet a majority's for the latest: whoever it names may be elected at once, lease or not.
    async fn give_way(&self, ballot: Ballot) -> Result<(), RaftError<u64>> {
        let ballot = Vote { committed: false, ..ballot };
        // No log has this entry, so the engine looks no further than at the ballot.
        let nothing = EntryId::new(CommittedLeaderId::new(ballot.leader_id.term, ballot.leader_id.node_id), u64::MAX >> 2);
        let rpc = AppendEntriesRequest { vote: ballot, prev_log_id: Some(nothing), entries: vec![], leader_commit: None };
        self.raft.append_entries(rpc).await.map(|_| ())
    }

    /// How the group stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let metrics = self.raft.metrics().borrow().clone();
        let members = metrics.membership_config.membership();
        let matching = metrics.replication.unwrap_or_default();
        Standing {
            shard: self.shard,
            term: metrics.current_term,
            leader: metrics.current_leader,
            voters: members.voter_ids().collect(),
            learners: members.learner_ids().collect(),
            last: metrics.last_log_index.unwrap_or(0),
            applied: metrics.last_applied.map_or(0, |id| id.index),
            matching: matching.into_iter().map(|(member, id)| (member, id.map_or(0, |id| id.index))).collect(),
        }
    }

    /// What is so, as far as this replica knows; `None` where it leads: then whoever decides is to be asked.
    #[must_use]
    pub fn viewed(&self, view: View) -> Option<Result<Viewed, Refusal>> {
        self.machine.viewed(view)
    }

    /// How many entries took effect here, and the hash of the shard behind them; `None` where it leads or is being made anew. Walks all of it.
    #[must_use]
    pub fn hash(&self) -> Option<(u64, u64)> {
        self.machine.hash()
    }

    /// A new snapshot with all entries up to `upto` in it, opened.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub async fn snapshot(&self, upto: u64) -> Result<File, String> {
        let applied = |metrics: &Metrics| metrics.last_applied.is_some_and(|id| id.index >= upto);
        let waited = self.raft.wait(Some(CATCH_UP_WITHIN)).metrics(applied, "this member has caught up").await;
        waited.map_err(|error| format!("this master does not catch up: {error}"))?;
        for _ in 0..SNAPSHOT_TRIES_MAX {
            let before = self.raft.metrics().borrow().snapshot;
            if before.is_some_and(|id| id.index >= upto) {
                return self.machine.open_file().map_err(|error| error.to_string());
            }
            // While another is being made this is passed over.
            self.raft.trigger().snapshot().await.map_err(|error| error.to_string())?;
            let made = self.raft.wait(Some(SNAPSHOT_WITHIN)).metrics(|metrics| metrics.snapshot != before, "a snapshot is made").await;
            made.map_err(|error| error.to_string())?;
        }
        Err("no snapshot was made".into())
    }

    /// True while this member leads and no other can.
    #[must_use]
    pub fn leads(&self) -> bool {
        // Asked in each round of a deciding thread.
        let metrics = self.server.borrow();
        let vote = metrics.vote;
        let mine = vote.committed && vote.leader_id.voted_for() == Some(self.seat.member);
        mine && self.lease.until(&metrics.membership_config).is_none_or(|until| Instant::now() < until)
    }

    /// Makes the group's members these, voters where they are in `voters`: new ones are sent everything before they have a vote. To be called
    /// where this member leads; returns true when all is so.
    ///
    /// # Errors
    /// Why not yet, for people.
    pub async fn become_members(&self, wanted: &BTreeMap<u64, String>, voters: &BTreeSet<u64>) -> Result<bool, String> {
        let standing = self.standing();
        let present: BTreeSet<u64> = standing.voters.union(&standing.learners).copied().collect();
        for (member, address) in wanted.iter().filter(|(member, _)| !present.contains(member)) {
            let added = self.raft.add_learner(*member, BasicNode::new(address), false).await;
            added.map_err(|error| format!("member {member} cannot be added: {error}"))?;
        }
        if standing.voters != *voters {
            let behind = |voter: &&u64| {
                let new = !standing.voters.contains(voter) && **voter != self.seat.member;
                new && standing.matching.get(voter).is_none_or(|have| have + ENTRIES_KEPT < standing.last)
            };
            if let Some(voter) = voters.iter().find(behind) {
                return Err(format!("member {voter} has not caught up yet"));
            }
            // One at a time is enough for a joint configuration, and all at once is one.
            let changed = self.raft.change_membership(ChangeMembers::ReplaceAllVoters(voters.clone()), true).await;
            changed.map_err(|error| format!("the members cannot be changed: {error}"))?;
            return Ok(false);
        }
        let surplus: BTreeSet<u64> = standing.learners.iter().filter(|member| !wanted.contains_key(member)).copied().collect();
        if !surplus.is_empty() {
            let removed = self.raft.change_membership(ChangeMembers::RemoveNodes(surplus), false).await;
            removed.map_err(|error| format!("a member cannot be removed: {error}"))?;
            return Ok(false);
        }
        Ok(present.iter().eq(wanted.keys()))
    }

    /// Hands the lead over to `to`, which must have a vote, once it has all that this member has. Whoever decides must have let the shard go
    /// before. Where it cannot be done, others are elected in time.
    ///
    /// # Errors
    /// Why not, for people.
    pub async fn hand_over(&self, to: u64) -> Result<(), String> {
        let caught_up = |metrics: &Metrics| {
            let matching = metrics.replication.as_ref().and_then(|matching| matching.get(&to).copied().flatten());
            metrics.current_leader != Some(self.seat.member) || matching.map(|id| id.index) >= metrics.last_log_index
        };
        let waited = self.raft.wait(Some(CATCH_UP_WITHIN)).metrics(caught_up, "the next leader has caught up").await;
        let metrics = waited.map_err(|error| format!("member {to} does not catch up: {error}"))?;
        if metrics.current_leader != Some(self.seat.member) {
            return Ok(()); // Another leads already.
        }
        let ballot = Vote::new(metrics.current_term + 1, to);
        self.give_way(ballot).await.map_err(|error| error.to_string())?;
        let others = metrics.membership_config.membership().voter_ids().filter(|other| *other != to && *other != self.seat.member);
        let told = others.map(|other| self.seat.carrier.carry(other, self.shard, Ask::Yield(ballot)));
        // One that is not reached holds to its promise for a while longer.
        let _ = tokio::time::timeout(Duration::from_millis(self.seat.timing.heartbeat_ms), futures::future::join_all(told)).await;
        match self.seat.carrier.carry(to, self.shard, Ask::Stand).await {
            Some(Answer::Done) => Ok(()),
            Some(Answer::Failed(reason)) => Err(reason),
            _ => Err(format!("member {to} does not answer")),
        }
    }
}

/// Whenever the log begins another segment: makes a snapshot where the group has grown enough, or keeps old segments from being used again.
/// Whenever a snapshot is made: lets go of what is in it, but for what members that are a little behind may want.
async fn tend(raft: Raft, machine: Machine, log: Arc<Log>, shard: u16) {
    let mut segment = log.segment();
    loop {
        tokio::select! {
            biased;
            changed = segment.changed() => if changed.is_err() { return },
            () = machine.snapshot_made() => {
                // The engine hears of it after whoever made it; where it does not, the next one is soon enough.
                let made = machine.last_made();
                let heard = |metrics: &Metrics| metrics.snapshot >= made;
                let _ = raft.wait(Some(SNAPSHOT_WITHIN)).metrics(heard, "a snapshot is made").await;
            }
        }
        let now = *segment.borrow_and_update();
        let (bytes, oldest) = {
            let group = log.group(shard);
            (group.bytes(), group.oldest_segment())
        };
        let grown = bytes >= log.config().snapshot_bytes.max(machine.snapshot_bytes());
        let behind = oldest.is_some_and(|oldest| now.saturating_sub(u64::from(oldest)) > log.config().segments_behind_max);
        if shorten(&raft, behind).await.is_err() || (grown || behind) && raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}

/// Lets go of what is in the last snapshot, but for what members that are a little behind may want; of all of it where there is nobody else or
/// it keeps old segments.
async fn shorten(raft: &Raft, behind: bool) -> Result<(), Fatal<u64>> {
    let (snapshot, purged, alone) = {
        let metrics = raft.metrics().borrow().clone();
        (metrics.snapshot, metrics.purged, metrics.membership_config.membership().nodes().count() <= 1)
    };
    let kept = if alone || behind { 0 } else { ENTRIES_KEPT };
    match snapshot.and_then(|snapshot| snapshot.index.checked_sub(kept)) {
        Some(upto) if purged.is_none_or(|purged| purged.index < upto) => raft.trigger().purge_log(upto).await,
        _ => Ok(()),
    }
}

fn raft_error(log: &Log, shard: u16, reason: &dyn Display) -> JournalError {
    match log.failed() {
        Some(reason) => JournalError::Stopped { reason: reason.to_owned() },
        None => JournalError::Raft { shard, reason: reason.to_string() },
    }
}

fn settings(timing: Timing) -> Config {
    Config {
        cluster_name: "skep".into(),
        heartbeat_interval: timing.heartbeat_ms,
        election_timeout_min: timing.election_ms,
        election_timeout_max: timing.lease_ms,
        install_snapshot_timeout: SNAPSHOT_ANSWER_MS,
        snapshot_max_chunk_size: SNAPSHOT_PIECE_BYTES,
        snapshot_policy: SnapshotPolicy::Never,
        // Left to `shorten`: what the engine lets go by itself may be less than it was asked to before, and it ends over that in a debug build.
        max_in_snapshot_log_to_keep: u64::MAX,
        // Until there is another member to beat for: the reign sees to it.
        enable_tick: false,
        enable_elect: false,
        ..Config::default()
    }
}
