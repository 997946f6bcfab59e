//! One shard's group: proposals in, commits out. The engine runs on the runtime of the thread that opens it.

use super::log::Log;
use super::machine::Machine;
use super::raft::{Metrics, Raft, Types};
use super::store::Store;
use super::{Batch, JournalError};
use crate::shard::{Shard, ShardConfig};
use openraft::error::{InstallSnapshotError, RPCError, RaftError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, ClientWriteResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{AnyError, BasicNode, Config, SnapshotPolicy};
use protocol::Time;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// The number of this member.
const MEMBER: u64 = 1;
/// One member has nobody to beat for and nobody to replace: its ticks are off, and this is how rarely they would come.
const IDLE_MS: u64 = 3_600_000;

/// One shard's group.
pub struct Group {
    raft: Raft,
    shard: u16,
    log: Arc<Log>,
    tender: JoinHandle<()>,
}

/// A shard with all that was committed folded in, for who decides.
pub struct Recovered {
    /// Itself; to be told to lead.
    pub shard: Shard,
    /// The latest moment in its records: the clock must not stand before it.
    pub latest: Time,
}

impl Group {
    /// Opens the group of the shard that `config` names, with its snapshots in `dir`, and waits until it leads with everything committed
    /// that its log holds.
    ///
    /// # Errors
    /// [`JournalError`] where its snapshot is damaged or the log cannot be written.
    pub async fn open(log: &Arc<Log>, dir: &Path, config: ShardConfig) -> Result<(Self, Recovered), JournalError> {
        let shard = config.id.0;
        let failed = |reason: &dyn Display| raft_error(log, shard, reason);
        let machine = Machine::open(Arc::clone(log), dir, config)?;
        let store = Store::new(Arc::clone(log), shard);
        let settings = settings().validate().map_err(|error| failed(&error))?;
        let raft = Raft::new(MEMBER, Arc::new(settings), Alone, store, machine.clone()).await.map_err(|error| failed(&error))?;
        if raft.is_initialized().await.map_err(|error| failed(&error))? {
            raft.trigger().elect().await.map_err(|error| failed(&error))?;
        } else {
            let members = BTreeMap::from([(MEMBER, BasicNode::default())]);
            raft.initialize(members).await.map_err(|error| failed(&error))?;
        }
        let leads = raft.wait(None).metrics(|metrics| metrics.current_leader == Some(MEMBER), "this member leads").await;
        leads.map_err(|error| failed(&error))?;
        // An entry of this leader's own term: with it, all before it is committed (Ongaro, 2014, section 3.6.2) and folded.
        raft.client_write(Batch::encode(&[])).await.map_err(|error| failed(&error))?;
        let (recovered, latest) = machine.take().expect("nobody took it before it was recovered");
        let tender = tokio::spawn(tend(raft.clone(), machine, Arc::clone(log), shard));
        Ok((Self { raft, shard, log: Arc::clone(log), tender }, Recovered { shard: recovered, latest }))
    }

    /// Proposes a batch; what is returned ends when it is committed. Batches are committed in the order in which they are proposed.
    ///
    /// # Errors
    /// [`JournalError::Raft`] where the engine has stopped; the same comes from what is returned: then it is not known whether the batch is
    /// durable, and it must not be told to anybody.
    pub async fn propose(&self, batch: Batch) -> Result<impl Future<Output = Result<(), JournalError>> + Send + use<>, JournalError> {
        let (log, shard) = (Arc::clone(&self.log), self.shard);
        let committed = self.raft.client_write_ff(batch).await.map_err(|error| self.error(&error))?;
        Ok(async move {
            match committed.await {
                Ok(Ok(ClientWriteResponse { .. })) => Ok(()),
                Ok(Err(error)) => Err(raft_error(&log, shard, &error)),
                Err(_) => Err(raft_error(&log, shard, &"it ended while it was asked")),
            }
        })
    }

    /// Ends the engine. What was committed is durable already; a snapshot that is being made is finished in the background, and holds the
    /// log until then.
    pub async fn close(self) {
        self.tender.abort();
        // It was aborted: that is no news.
        let _ = self.tender.await;
        // It ends by a panic only after it said so.
        let _ = self.raft.shutdown().await;
    }

    /// Makes a snapshot now, and waits until the log is shorter for it.
    ///
    /// # Errors
    /// [`JournalError::Raft`].
    pub async fn snapshot(&self) -> Result<(), JournalError> {
        let upto = self.raft.metrics().borrow().last_applied;
        loop {
            let before = self.raft.metrics().borrow().snapshot;
            // While another is being made this is passed over.
            self.raft.trigger().snapshot().await.map_err(|error| self.error(&error))?;
            let made = |metrics: &Metrics| metrics.purged >= upto || metrics.snapshot != before;
            let metrics = self.raft.wait(None).metrics(made, "a snapshot is made").await.map_err(|error| self.error(&error))?;
            if metrics.purged >= upto {
                return Ok(());
            }
        }
    }

    fn error(&self, reason: &dyn Display) -> JournalError {
        raft_error(&self.log, self.shard, reason)
    }
}

/// Whenever the log begins another segment: makes a snapshot where the group has grown enough, or keeps old segments from being used again.
async fn tend(raft: Raft, machine: Machine, log: Arc<Log>, shard: u16) {
    let mut segment = log.segment();
    while segment.changed().await.is_ok() {
        let now = *segment.borrow_and_update();
        let (bytes, oldest) = {
            let group = log.group(shard);
            (group.bytes(), group.oldest_segment())
        };
        let grown = bytes >= log.config().snapshot_bytes.max(machine.snapshot_bytes());
        let behind = oldest.is_some_and(|oldest| now.saturating_sub(u64::from(oldest)) > log.config().segments_behind_max);
        if (grown || behind) && raft.trigger().snapshot().await.is_err() {
            break;
        }
    }
}

fn raft_error(log: &Log, shard: u16, reason: &dyn Display) -> JournalError {
    match log.failed() {
        Some(reason) => JournalError::Stopped { reason: reason.to_owned() },
        None => JournalError::Raft { shard, reason: reason.to_string() },
    }
}

fn settings() -> Config {
    Config {
        cluster_name: "skep".into(),
        heartbeat_interval: IDLE_MS,
        election_timeout_min: 2 * IDLE_MS,
        election_timeout_max: 3 * IDLE_MS,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        purge_batch_size: 1,
        enable_tick: false,
        ..Config::default()
    }
}

/// The network of a group with one member: there is nobody to call.
struct Alone;

impl RaftNetworkFactory<Types> for Alone {
    type Network = Self;

    async fn new_client(&mut self, _target: u64, _node: &BasicNode) -> Self {
        Self
    }
}

type NobodyError<E> = RPCError<u64, BasicNode, E>;

fn nobody<E: std::error::Error>() -> NobodyError<E> {
    RPCError::Unreachable(Unreachable::new(&AnyError::error("this group has one member")))
}

impl RaftNetwork<Types> for Alone {
    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, NobodyError<RaftError<u64>>> {
        Err(nobody())
    }

    async fn install_snapshot(
        &mut self,
        _rpc: InstallSnapshotRequest<Types>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, NobodyError<RaftError<u64, InstallSnapshotError>>> {
        Err(nobody())
    }

    async fn vote(&mut self, _rpc: VoteRequest<u64>, _option: RPCOption) -> Result<VoteResponse<u64>, NobodyError<RaftError<u64>>> {
        Err(nobody())
    }
}
