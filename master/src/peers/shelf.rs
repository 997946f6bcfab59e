//! Bundles, whichever master has them: an upload is acknowledged when most masters have it, one that is missing here is fetched from another,
//! and each master sees to it that it has all that the others have.

use super::{Peers, lock};
use crate::http::bundles::Bundles;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use protocol::Digest;
use protocol::link::{Connection, LinkError, Receiver, Sender};
use protocol::message::{BulkReply, BulkRequest, CHUNK_BYTES_MAX};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// Bundles that are sent to one agent or master at once.
const AT_ONCE_MAX: usize = 8;
/// How long a master that sends a bundle may say nothing.
const SILENT: Duration = Duration::from_secs(10);
/// How long other masters may take until most of them have a bundle.
const SPREAD_WITHIN: Duration = Duration::from_secs(60);
/// How often a master looks whether the others have bundles that it lacks.
const LOOK: Duration = Duration::from_secs(5);

/// The bundles of this master, and the way to those of the others. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shelf {
    bundles: Bundles,
    peers: Arc<Peers>,
    /// Those that are being fetched: nobody fetches one twice at a time.
    fetching: Arc<Mutex<BTreeMap<Digest, Arc<tokio::sync::Mutex<()>>>>>,
}

impl Shelf {
    /// The bundles of this master and of `peers`.
    pub fn new(bundles: Bundles, peers: Arc<Peers>) -> Self {
        Self { bundles, peers, fetching: Arc::default() }
    }

    /// The other masters.
    pub const fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    /// How long a bundle is, fetched from another master where it is missing here; `None` where no master that is connected has it.
    pub async fn ensure(&self, bundle: Digest) -> Option<u64> {
        if let Some(bytes) = self.bundles.length(bundle) {
            return Some(bytes);
        }
        let alone = Arc::clone(lock(&self.fetching).entry(bundle).or_default());
        let _alone = alone.lock().await;
        for peer in self.peers.all() {
            if self.bundles.length(bundle).is_some() {
                break;
            }
            if let Some(connection) = peer.connection()
                && let Err(error) = self.fetch(&connection, bundle).await
            {
                tracing::debug!(%bundle, master = peer.number(), error, "a master does not give a bundle");
            }
        }
        lock(&self.fetching).remove(&bundle);
        self.bundles.length(bundle)
    }

    /// Has the other masters fetch a bundle that is here, and waits until most masters have it.
    ///
    /// # Errors
    /// How many do not have it, for people.
    pub async fn spread(&self, bundle: Digest) -> Result<(), String> {
        let others = self.peers.all();
        let needed = others.len().div_ceil(2);
        let mut asked: FuturesUnordered<_> = others.iter().map(|peer| peer.hold(bundle)).collect();
        let mut have = 0;
        let enough = async {
            while have < needed {
                match asked.next().await {
                    Some(true) => have += 1,
                    Some(false) => {}
                    None => return,
                }
            }
        };
        // Late is as good as not at all.
        let _ = tokio::time::timeout(SPREAD_WITHIN, enough).await;
        if have >= needed {
            return Ok(());
        }
        Err(format!("only {} of {} masters have the bundle", have + 1, others.len() + 1))
    }

    /// Looks again and again whether the others have bundles that are missing here.
    pub async fn keep_whole(self) {
        for turn in 0.. {
            tokio::time::sleep(LOOK).await;
            let others = self.peers.all();
            let Some(peer) = others.get(turn % others.len().max(1)) else { continue };
            for bundle in peer.bundles().await.unwrap_or_default() {
                if self.ensure(bundle).await.is_none() {
                    break;
                }
            }
        }
    }

    /// The digests of all that is here.
    pub async fn list(&self) -> Vec<Digest> {
        let bundles = self.bundles.clone();
        tokio::task::spawn_blocking(move || bundles.list()).await.unwrap_or_default()
    }

    async fn fetch(&self, connection: &Connection, bundle: Digest) -> Result<(), String> {
        let said = |error: LinkError| error.to_string();
        let (mut sender, mut receiver) = connection.open_bulk().await.map_err(said)?;
        sender.send(&BulkRequest::Bundle { bundle, offset: 0 }).await.map_err(said)?;
        sender.finish();
        let bundles = self.bundles.clone();
        let blocked = |error: tokio::task::JoinError| error.to_string();
        let mut upload = tokio::task::spawn_blocking(move || bundles.create()).await.map_err(blocked)?.map_err(|e| e.to_string())?;
        loop {
            let reply = tokio::time::timeout(SILENT, receiver.next::<BulkReply>()).await;
            match reply.map_err(|_| format!("nothing came for {SILENT:?}"))?.map_err(said)? {
                Some(BulkReply::Chunk { bytes, .. }) => {
                    let written = tokio::task::spawn_blocking(move || upload.write(&bytes).map(|()| upload)).await;
                    upload = written.map_err(blocked)?.map_err(|error| error.to_string())?;
                }
                Some(BulkReply::End) => break,
                Some(BulkReply::Failed { reason }) => return Err(reason),
                None => return Err("the stream ended before its end was said".into()),
            }
        }
        let finished = tokio::task::spawn_blocking(move || upload.finish(Some(bundle))).await;
        finished.map_err(blocked)?.map(|_| ()).map_err(|error| error.to_string())
    }

    /// Answers requests for bundles until the connection ends.
    pub async fn serve(self, connection: Connection) {
        let room = Arc::new(tokio::sync::Semaphore::new(AT_ONCE_MAX));
        loop {
            let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
            // Its first frame is awaited where the stream is served: one that is late holds up no other, and this waits for as long as an agent is
            // connected.
            let Ok((sender, receiver)) = connection.accept_stream().await else { return };
            let shelf = self.clone();
            // A master that lacks one has it from another only for agents: masters ask each of them.
            let from_others = matches!(connection.who(), protocol::link::Who::Agent(_));
            tokio::spawn(async move {
                if let Err(error) = shelf.send(sender, receiver, from_others).await {
                    tracing::debug!(%error, "a bundle was not sent");
                }
                drop(place);
            });
        }
    }

    async fn send(&self, mut sender: Sender, mut receiver: Receiver, from_others: bool) -> Result<(), LinkError> {
        let (bundle, offset) = match receiver.first::<BulkRequest>().await? {
            Some(BulkRequest::Bundle { bundle, offset }) => (bundle, offset),
            Some(
                BulkRequest::Log { .. }
                | BulkRequest::Exec { .. }
                | BulkRequest::Usage
                | BulkRequest::Input { .. }
                | BulkRequest::Change(_),
            ) => {
                return fail(sender, "a master has no task's output: an agent has".into()).await;
            }
            None => return Ok(()),
        };
        if from_others {
            // Where nobody has it, opening it says so.
            let _ = self.ensure(bundle).await;
        }
        let open = async {
            let mut file = tokio::fs::File::open(self.bundles.path(bundle)).await?;
            file.seek(std::io::SeekFrom::Start(offset)).await?;
            std::io::Result::Ok(file)
        };
        let mut file = match open.await {
            Ok(file) => file,
            Err(error) => return fail(sender, format!("this master cannot read bundle {bundle}: {error}")).await,
        };
        let mut at = offset;
        loop {
            let mut bytes = Vec::with_capacity(CHUNK_BYTES_MAX);
            let read = (&mut file).take(CHUNK_BYTES_MAX as u64).read_to_end(&mut bytes).await;
            match read {
                Ok(0) => break,
                Ok(count) => {
                    sender.send(&BulkReply::Chunk { offset: at, bytes: Bytes::from(bytes) }).await?;
                    at += count as u64;
                }
                Err(error) => return fail(sender, format!("this master cannot read bundle {bundle}: {error}")).await,
            }
        }
        sender.send(&BulkReply::End).await?;
        sender.finish();
        Ok(())
    }
}

async fn fail(mut sender: Sender, reason: String) -> Result<(), LinkError> {
    sender.send(&BulkReply::Failed { reason }).await?;
    sender.finish();
    Ok(())
}
