//! What was unpacked, kept by digest: images, whose layers are shared, and bundles. Knows what there is, and has the rest done by
//! [`super::serve`]: as root by a process that has root, where the agent has none. What may go to make room says whoever knows what is in use.

use super::shelf::{self, About, Done, FILE, Key, Work};
use super::unpack::FOLDER;
use super::{Accounts, Digest, ImageConfig, Limits, UnpackError, Wanted};
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// Most bytes of an answer: what is known of some thousands of images.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

/// Has a piece of work done somewhere, with the archive that belongs to it, and gives back its conversation.
pub type Hands = Arc<dyn Fn(Work, Option<File>) -> BoxFuture<'static, io::Result<UnixStream>> + Send + Sync>;

/// An image that a task can be started from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its layers, the lowest first: each is a lower folder of an overlay that is mounted with [`super::OVERLAY_OPTION`].
    pub layers: Vec<PathBuf>,
    /// How it is run.
    pub config: ImageConfig,
    /// Who there is in it.
    pub accounts: Box<Accounts>,
}

/// What an archive became, where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// An image.
    Image(Image),
    /// A bundle of files.
    Folder(PathBuf),
    /// A bundle that is one file, which may be executed.
    File(PathBuf),
}

/// A store over one folder, for one agent.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

struct Shared {
    dir: PathBuf,
    limits: Limits,
    hands: Hands,
    items: Mutex<BTreeMap<Key, About>>,
    removals: mpsc::UnboundedSender<Removal>,
}

/// What is to be removed, in this order.
enum Removal {
    Item(Key),
    /// Says when all before it are done.
    Mark(tokio::sync::oneshot::Sender<()>),
}

impl fmt::Debug for Store {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Store").field(&self.0.dir).finish()
    }
}

impl Store {
    /// Opens the store in `dir`, in which `hands` have the work done; one archive becomes no more than `limits` say. What a crash left is removed.
    /// Within a tokio runtime.
    ///
    /// # Errors
    /// What the system says.
    pub async fn open(dir: PathBuf, limits: Limits, hands: Hands) -> Result<Self, UnpackError> {
        let found = match work(&hands, Work::Open, None).await? {
            Done::Opened(items) => items.into_iter().collect(),
            other => return Err(UnpackError::Failed(format!("the store was opened, and answers {other:?}"))),
        };
        let (removals, todo) = mpsc::unbounded_channel();
        tokio::spawn(remove(Arc::clone(&hands), todo));
        Ok(Self(Arc::new(Shared { dir, limits, hands, items: Mutex::new(found), removals })))
    }

    /// Has `archive`, whose digest is `digest`, unpacked as what is `wanted`, unless it is here already. Dropping the future ends the work.
    ///
    /// # Errors
    /// What is wrong with it, or what this machine could not do; nothing of it is kept then.
    pub async fn prepare(&self, archive: &Path, digest: Digest, wanted: Wanted) -> Result<Prepared, UnpackError> {
        if let Some(ready) = self.locate(digest, wanted) {
            return Ok(ready);
        }
        // It may have been removed a moment ago, and must not be found again before it is gone.
        let (mark, removed) = tokio::sync::oneshot::channel();
        let _ = self.0.removals.send(Removal::Mark(mark));
        let _ = removed.await; // Both fail only when the runtime ends.
        let file = File::open(archive).map_err(|error| UnpackError::failed(format_args!("opening {}", archive.display()), error))?;
        match work(&self.0.hands, Work::Prepare(digest, wanted, self.0.limits), Some(file)).await? {
            Done::Prepared(about) => drop(self.0.items().insert((digest, wanted), about)),
            other => return Err(UnpackError::Failed(format!("it was to be unpacked, and the answer is {other:?}"))),
        }
        self.locate(digest, wanted).ok_or_else(|| UnpackError::Failed("it was removed as soon as it was there".into()))
    }

    /// What was prepared from the archive with this digest.
    #[must_use]
    pub fn locate(&self, digest: Digest, wanted: Wanted) -> Option<Prepared> {
        let items = self.0.items();
        let path = shelf::item(&self.0.dir, (digest, wanted));
        Some(match items.get(&(digest, wanted))? {
            About::Image { config, layers, accounts } => {
                let layers = layers.iter().map(|layer| shelf::layer(&self.0.dir, layer.id)).collect();
                Prepared::Image(Image { layers, config: config.clone(), accounts: accounts.clone()? })
            }
            About::Folder { .. } => Prepared::Folder(path.join(FOLDER)),
            About::File { .. } => Prepared::File(path.join(FILE)),
        })
    }

    /// Bytes that all of it takes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let items = self.0.items();
        let own = items.values().map(|about| match about {
            About::Folder { bytes } | About::File { bytes } => *bytes,
            About::Image { .. } => 0,
        });
        own.sum::<u64>() + shelf::layers(items.values()).values().map(|layer| layer.bytes).sum::<u64>()
    }

    /// Throws away what was prepared from the archive with this digest: from now on it is not here, and soon it takes no room.
    pub fn remove(&self, digest: Digest, wanted: Wanted) {
        if self.0.items().remove(&(digest, wanted)).is_some() {
            let _ = self.0.removals.send(Removal::Item((digest, wanted))); // As above.
        }
    }
}

impl Shared {
    fn items(&self) -> MutexGuard<'_, BTreeMap<Key, About>> {
        // Nothing panics between two changes that belong together.
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn remove(hands: Hands, mut todo: mpsc::UnboundedReceiver<Removal>) {
    while let Some(next) = todo.recv().await {
        match next {
            Removal::Item((digest, wanted)) => {
                if let Err(error) = work(&hands, Work::Remove(digest, wanted), None).await {
                    tracing::warn!(%digest, %error, "what is not needed could not be removed from the store");
                }
            }
            Removal::Mark(mark) => drop(mark.send(())),
        }
    }
}

/// One piece of work, and what came of it.
async fn work(hands: &Hands, asked: Work, archive: Option<File>) -> Result<Done, UnpackError> {
    let failed = |error: io::Error| UnpackError::failed("asking the template", error);
    let mut conversation = hands(asked, archive).await.map_err(failed)?.take(ANSWER_BYTES_MAX);
    let mut said = vec![];
    conversation.read_to_end(&mut said).await.map_err(failed)?;
    let gone = |_| UnpackError::Failed("the process that does it was ended from outside, or the machine has no memory for it".into());
    serde_json::from_slice::<Result<Done, UnpackError>>(&said).map_err(gone)?
}
