//! When one member of a group leads: from the moment when everything committed before it is folded in until it leads no more. Keeps the
//! engine's timers going where there are other members, and off where there are none.

use super::Batch;
use super::machine::Machine;
use super::network::Lease;
use super::raft::{Members, Raft};
use super::runtime::Company;
use crate::shard::Shard;
use futures::FutureExt;
use openraft::metrics::RaftServerMetrics;
use protocol::Time;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// What whoever decides is told.
pub enum Turn {
    /// It is its turn.
    Begins(Box<Recovered>),
    /// It is over: what it has of the shard is to be dropped, and so is all that it holds until something is committed.
    Over {
        /// To be dropped when that is done: only then may another turn begin.
        done: oneshot::Sender<()>,
    },
    /// The engine has ended, and this member with it.
    Ended,
}

/// A shard with all that was committed folded in, for who decides.
pub struct Recovered {
    /// Itself; to be told to lead.
    pub shard: Shard,
    /// The latest moment in its records: the clock must not stand before it.
    pub latest: Time,
    /// The term in which it is led.
    pub term: u64,
}

/// What is told, in order.
pub type Turns = mpsc::Receiver<Turn>;

type Server = watch::Receiver<RaftServerMetrics<u64, openraft::BasicNode>>;

/// Whether it has no other members, as far as is known, and what follows for the process.
type Alone = (Option<bool>, Company);

/// What it takes to know who leads.
pub struct Reign {
    /// The engine.
    pub raft: Raft,
    /// Where the shard is while nobody decides.
    pub machine: Machine,
    /// Until when this member leads.
    pub lease: Arc<Lease>,
    /// Told when whoever decides has noticed by itself that it is over.
    pub lapsed: Arc<Notify>,
    /// Which member this is.
    pub member: u64,
    /// Which shard.
    pub shard: u16,
}

impl Reign {
    /// Tells whoever decides from now on, in a task of its own.
    pub fn begin(self) -> (Turns, JoinHandle<()>) {
        let (tell, turns) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            // It ends with the engine, or when nobody decides any more.
            let _ = self.reign(&tell).await;
            let _ = tell.send(Turn::Ended).await;
        });
        (turns, task)
    }

    async fn reign(self, tell: &mpsc::Sender<Turn>) -> Option<()> {
        let mut server = self.raft.server_metrics();
        let mut alone = (None, Company::default());
        loop {
            let term = self.wait_for_lead(&mut server, &mut alone).await?;
            self.lease.begin(term);
            // An entry of this leader's own term: with it, all before it is committed (Ongaro, 2014, section 3.6.2) and folded.
            if self.raft.client_write(Batch::encode(term, &[])).await.is_err() {
                server.changed().await.ok()?;
                continue;
            }
            let (shard, latest) = self.machine.take_whole().await;
            // What was noticed of an earlier reign is no news.
            let _ = self.lapsed.notified().now_or_never();
            tracing::info!(shard = self.shard, term, "this master leads");
            tell.send(Turn::Begins(Box::new(Recovered { shard, latest, term }))).await.ok()?;
            self.wait_for_end(&mut server, &mut alone, term).await?;
            tracing::info!(shard = self.shard, term, "this master leads no more");
            let (done, is_done) = oneshot::channel();
            tell.send(Turn::Over { done }).await.ok()?;
            // Dropped is done.
            let _ = is_done.await;
            self.machine.rebuild();
        }
    }

    /// Waits until this member leads; says in which term. `None` where the engine has ended.
    async fn wait_for_lead(&self, server: &mut Server, alone: &mut Alone) -> Option<u64> {
        loop {
            let metrics = server.borrow_and_update().clone();
            self.keep_time(&metrics, alone).await?;
            if let Some(term) = self.term_led(&metrics) {
                return Some(term);
            }
            server.changed().await.ok()?;
        }
    }

    /// Waits until it leads that term no more, or its lease is over. `None` where the engine has ended.
    async fn wait_for_end(&self, server: &mut Server, alone: &mut Alone, term: u64) -> Option<()> {
        loop {
            let metrics = server.borrow_and_update().clone();
            self.keep_time(&metrics, alone).await?;
            if self.term_led(&metrics) != Some(term) {
                return Some(());
            }
            let until = self.lease.until(&metrics.membership_config);
            if until.is_some_and(|until| until <= Instant::now()) {
                tracing::warn!(shard = self.shard, term, "a majority of masters has not answered in time");
                return Some(());
            }
            tokio::select! {
                biased;
                changed = server.changed() => changed.ok()?,
                () = self.lapsed.notified() => return Some(()),
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
            }
        }
    }

    fn term_led(&self, metrics: &RaftServerMetrics<u64, openraft::BasicNode>) -> Option<u64> {
        let vote = metrics.vote;
        (vote.committed && vote.leader_id.voted_for() == Some(self.member) && metrics.state.is_leader()).then_some(vote.leader_id.term)
    }

    /// A member that is alone has nobody to beat for and nobody to replace: its timers are off, and it leads as soon as it can.
    async fn keep_time(&self, metrics: &RaftServerMetrics<u64, openraft::BasicNode>, (was, company): &mut Alone) -> Option<()> {
        let alone = is_alone(&metrics.membership_config, self.member);
        if *was == Some(alone) {
            return Some(());
        }
        *was = Some(alone);
        company.set(!alone);
        self.raft.runtime_config().tick(!alone);
        if alone && !metrics.state.is_leader() {
            self.raft.trigger().elect().await.ok()?;
        }
        Some(())
    }
}

/// True where nobody else is a member.
fn is_alone(members: &Members, member: u64) -> bool {
    let nodes = members.membership().nodes().map(|(node, _)| *node);
    nodes.eq([member])
}
