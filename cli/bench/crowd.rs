//! Many agents (`member`) in this process, on threads of their own: whoever asks the masters something does not wait for thousands of agents.

use super::member::{Count, Member};
use anyhow::Context;
use protocol::identity::Identity;
use rustix::process::setpriority_process;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, available_parallelism};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

/// Agents that come for the first time at the same time: all are one process here.
pub const AT_ONCE: usize = 64;
/// How far the agents' threads give way to the masters where these have deadlines: in earnest agents have machines of their own. A master that comes
/// before them is woken for each of their packets by itself.
pub const NICE: i32 = 10;

/// All of them; those that are dropped are gone, as after a loss of power.
pub struct Crowd {
    /// Why one of them ended.
    ended: mpsc::UnboundedReceiver<anyhow::Error>,
    /// By thread: to be dropped is the sign to end.
    _stop: Vec<oneshot::Sender<()>>,
    /// Whoever begins holds a place.
    starting: Arc<Semaphore>,
}

impl Crowd {
    /// Makes them, on as many threads as there are cores, so nice, and starts them.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub async fn start(masters: &[SocketAddr], identities: &[Identity], counts: &Arc<Vec<Count>>, nice: i32) -> anyhow::Result<Self> {
        let crowd = Self::prepare(masters, identities, counts, nice).await?;
        crowd.begin();
        Ok(crowd)
    }

    /// Starts them, [`AT_ONCE`] at a time.
    pub fn begin(&self) {
        self.starting.add_permits(AT_ONCE);
    }

    /// Makes them: what machines of their own would do before they connect, and takes long where all are one process.
    ///
    /// # Errors
    /// That there is no thread or no port for them. Why one of them ends later is told by [`Self::gone`].
    pub async fn prepare(masters: &[SocketAddr], identities: &[Identity], counts: &Arc<Vec<Count>>, nice: i32) -> anyhow::Result<Self> {
        let (threads, starting) = (available_parallelism()?.get(), Arc::new(Semaphore::new(0)));
        let ((tell, mut ended), mut stops) = (mpsc::unbounded_channel(), vec![]);
        let (made, mut ready) = mpsc::channel(threads);
        for thread in 0..threads {
            let members: Vec<(usize, Identity)> = identities.iter().cloned().enumerate().skip(thread).step_by(threads).collect();
            let (masters, counts, starting) = (masters.to_vec(), Arc::clone(counts), Arc::clone(&starting));
            let (tell, made) = (tell.clone(), made.clone());
            let (stop, stopped) = oneshot::channel();
            let all = async move {
                let mut all = JoinSet::new();
                for (number, identity) in members {
                    all.spawn(Member::new(&masters, &identity, number, (Arc::clone(&counts), Arc::clone(&starting)))?.run());
                }
                made.send(()).await?;
                tokio::select! {
                    _ = stopped => Ok(()),
                    Some(ended) = all.join_next() => ended?,
                }
            };
            thread::Builder::new().name("crowd".into()).spawn(move || {
                if let Err(error) = run(nice, all) {
                    // The bench may have ended.
                    let _ = tell.send(error);
                }
            })?;
            stops.push(stop);
        }
        for _ in 0..threads {
            tokio::select! {
                _ = ready.recv() => {}
                Some(error) = ended.recv() => return Err(error),
            }
        }
        Ok(Self { ended, _stop: stops, starting })
    }

    /// Why one of them ended: none may.
    pub async fn gone(&mut self) -> anyhow::Error {
        self.ended.recv().await.map_or_else(|| anyhow::anyhow!("all agents ended"), |error| error.context("an agent of the crowd ended"))
    }

    /// Lets them beat for so long.
    ///
    /// # Errors
    /// That one of them ended.
    pub async fn beat(&mut self, time: Duration) -> anyhow::Result<()> {
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            ended = self.gone() => Err(ended),
        }
    }
}

fn run(nice: i32, all: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    // Of this thread alone.
    setpriority_process(None, nice).context("setpriority")?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(all)
}
