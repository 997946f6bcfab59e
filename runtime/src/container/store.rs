//! What was unpacked, kept by digest: images, whose layers are shared, and bundles. Knows where all of it is and when it was last used; what
//! is in use, and so must stay, says whoever asks for room.
//!
//! `items/DIGEST-image` and `items/DIGEST-bundle` have `about.json` and a bundle's `file` or `folder`; `layers/DIFFID` is a layer; `new/N` is
//! what is being unpacked or removed. Something comes into `items` and `layers` only by a rename, after its bytes are flushed; what a crash
//! leaves in `new`, and layers of no image, are removed when the store is opened. Items are named by the digests of their archives, which
//! whoever brings an archive has checked. Nobody but the owner reaches `layers` by a path, since layers have folders that everyone may
//! write; whoever mounts them opens them as the owner.

use super::unpack::{FOLDER, LAYERS, LayerAbout, LayerUsed, RESULT, Request, Unpacked};
use super::{Digest, ImageConfig, Limits, Look, UnpackError, Wanted, confined, implied, look};
use rustix::fs::{FlockOperation, flock, syncfs};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Rises when the same archive becomes something else; what is of another form is thrown away.
const FORM: u32 = 1;
const ABOUT: &str = "about.json";
const FILE: &str = "file";
/// How often an image is unpacked again because a layer that it shares was removed meanwhile.
const TRIES_MAX: usize = 3;
/// Longest note about an item.
const ABOUT_BYTES_MAX: u64 = 16 << 20;

/// How a store works.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// The program that has the verb `unpack`.
    pub binary: PathBuf,
    /// Bytes that all of it may take, once there was room to be made.
    pub bytes_max: u64,
    /// The most that one archive may become.
    pub limits: Limits,
}

/// An image that a task can be started from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its layers, the lowest first: each is a lower folder of an overlay that is mounted with [`super::OVERLAY_OPTION`].
    pub layers: Vec<PathBuf>,
    /// How it is run.
    pub config: ImageConfig,
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

/// What was thrown away to make room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Archives of which nothing is kept any more in one of the two ways.
    pub removed: Vec<(Digest, Wanted)>,
    /// Bytes that are still over the limit: what is in use does not leave more room.
    pub over_bytes: u64,
}

/// A store over one folder, for one process.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

struct Shared {
    dir: PathBuf,
    settings: StoreSettings,
    state: Mutex<State>,
    made: AtomicU64,
    /// Held as long as the store is open.
    _lock: File,
}

type Key = (Digest, Wanted);

#[derive(Default)]
struct State {
    items: BTreeMap<Key, Item>,
    uses: u64,
}

struct Item {
    about: About,
    /// Rises with each use.
    used: u64,
}

/// What is written down of an item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum About {
    Image { config: ImageConfig, layers: Vec<LayerUsed> },
    Folder { bytes: u64 },
    File { bytes: u64 },
}

impl Store {
    /// Opens the store in `dir`, which is made if it is not there, and removes what a crash left. Blocks.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::WouldBlock`] where another process has it open.
    pub fn open(dir: &Path, settings: StoreSettings) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        // An image may hold programs that are setuid root: nobody of the host is to come by them.
        fs::set_permissions(dir, Permissions::from_mode(0o700))?;
        let lock = File::options().create(true).truncate(false).write(true).open(dir.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let form = format!("{FORM} {}", rustix::process::geteuid().as_raw());
        let same = fs::read_to_string(dir.join("form")).is_ok_and(|found| found == form);
        for name in if same { ["new"].as_slice() } else { &["new", "items", LAYERS] } {
            absent_is_fine(fs::remove_dir_all(dir.join(name)))?;
        }
        for (name, mode) in [("new", 0o700), ("items", 0o700), (LAYERS, 0o700)] {
            fs::create_dir_all(dir.join(name))?;
            fs::set_permissions(dir.join(name), Permissions::from_mode(mode))?;
        }
        fs::write(dir.join("form"), form)?;
        let shared = Shared { dir: dir.into(), settings, state: Mutex::default(), made: AtomicU64::new(0), _lock: lock };
        shared.find()?;
        Ok(Self(Arc::new(shared)))
    }

    /// Has `archive`, whose digest is `digest`, unpacked as what is `wanted`, unless it is here already.
    ///
    /// # Errors
    /// What is wrong with it, or what this machine could not do; nothing of it is kept then.
    pub async fn prepare(&self, archive: &Path, digest: Digest, wanted: Wanted) -> Result<Prepared, UnpackError> {
        for _ in 0..TRIES_MAX {
            if let Some(ready) = self.locate(digest, wanted) {
                return Ok(ready);
            }
            let new = self.0.new_folder()?;
            let about = self.0.bring(archive, &new.0, wanted).await?;
            let shared = Arc::clone(&self.0);
            blocking(move || shared.take_in(&new, about, (digest, wanted))).await?;
        }
        let reason = "layers that it shares were removed while it was unpacked, again and again";
        self.locate(digest, wanted).ok_or_else(|| UnpackError::Failed(reason.into()))
    }

    /// What was prepared from the archive with this digest; counts as a use.
    #[must_use]
    pub fn locate(&self, digest: Digest, wanted: Wanted) -> Option<Prepared> {
        let mut state = self.0.state();
        state.uses += 1;
        let uses = state.uses;
        let item = state.items.get_mut(&(digest, wanted))?;
        item.used = uses;
        let path = self.0.item((digest, wanted));
        // For the order after a restart; of no further matter where it fails.
        let _ = File::open(&path).and_then(|folder| folder.set_modified(SystemTime::now()));
        Some(match &item.about {
            About::Image { config, layers } => {
                let layers = layers.iter().map(|layer| self.0.layer(layer.id)).collect();
                Prepared::Image(Image { layers, config: config.clone() })
            }
            About::Folder { .. } => Prepared::Folder(path.join(FOLDER)),
            About::File { .. } => Prepared::File(path.join(FILE)),
        })
    }

    /// Bytes that all of it takes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.state().bytes()
    }

    /// Throws away what was not used for the longest time, until it takes no more than it may; what is `used` stays.
    #[must_use]
    pub fn make_room(&self, used: impl Fn(Digest) -> bool) -> Room {
        let mut state = self.0.state();
        let mut oldest: Vec<(u64, Key)> = state.items.iter().map(|(key, item)| (item.used, *key)).collect();
        oldest.sort_unstable();
        let mut room = Room::default();
        for (_, key) in oldest {
            if state.bytes() <= self.0.settings.bytes_max {
                break;
            }
            if !used(key.0) {
                self.0.remove(&mut state, key);
                room.removed.push(key);
            }
        }
        room.over_bytes = state.bytes().saturating_sub(self.0.settings.bytes_max);
        room
    }

    /// Throws away what was prepared from the archive with this digest.
    pub fn remove(&self, digest: Digest, wanted: Wanted) {
        self.0.remove(&mut self.0.state(), (digest, wanted));
    }
}

impl State {
    /// Layers that items stand on, and what they are.
    fn layers(&self) -> BTreeMap<Digest, &LayerAbout> {
        let layers = self.items.values().filter_map(|item| match &item.about {
            About::Image { layers, .. } => Some(layers),
            About::Folder { .. } | About::File { .. } => None,
        });
        layers.flatten().filter_map(|layer| Some((layer.id, layer.about.as_ref()?))).collect()
    }

    fn bytes(&self) -> u64 {
        let own = self.items.values().map(|item| match item.about {
            About::Folder { bytes } | About::File { bytes } => bytes,
            About::Image { .. } => 0,
        });
        own.sum::<u64>() + self.layers().values().map(|layer| layer.bytes).sum::<u64>()
    }

    fn insert(&mut self, key: Key, about: About) {
        self.uses += 1;
        self.items.insert(key, Item { about, used: self.uses });
    }
}

/// A folder of `new`, which is removed with all in it, later and elsewhere, unless it was renamed.
struct New(PathBuf);

impl Drop for New {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.0);
        let remove = move || {
            if let Err(error) = absent_is_fine(fs::remove_dir_all(&path)) {
                tracing::warn!(path = %path.display(), %error, "what is not needed could not be removed: it is tried again at the next start");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn item(&self, (digest, wanted): Key) -> PathBuf {
        self.dir.join("items").join(format!("{digest}-{}", word(wanted)))
    }

    fn layer(&self, id: Digest) -> PathBuf {
        self.dir.join(LAYERS).join(id.to_string())
    }

    fn new_path(&self) -> PathBuf {
        self.dir.join("new").join(self.made.fetch_add(1, Ordering::Relaxed).to_string())
    }

    fn new_folder(&self) -> Result<New, UnpackError> {
        let new = New(self.new_path());
        fs::create_dir(&new.0).map_err(|error| UnpackError::failed(new.0.display(), error))?;
        Ok(new)
    }

    /// Unpacks into `target` what `archive` is.
    async fn bring(&self, archive: &Path, target: &Path, wanted: Wanted) -> Result<About, UnpackError> {
        let limits = self.settings.limits;
        let (from, to) = (archive.to_owned(), target.join(FILE));
        if wanted == Wanted::Bundle
            && let Some(bytes) = blocking(move || single_file(&from, &to, &limits)).await?
        {
            return Ok(About::File { bytes });
        }
        let known: Vec<Digest> = self.state().layers().into_keys().collect();
        let (archive, target) = (archive.to_owned(), target.to_owned());
        let request = Request { archive, target, wanted, known, limits, parent: std::process::id() };
        Ok(match confined::unpack(&self.settings.binary, &request).await? {
            Unpacked::Folder { bytes } => About::Folder { bytes },
            Unpacked::Image { config, layers } => About::Image { config, layers },
        })
    }

    /// Says of layers that were known what they are, and adds one where their folders would not be what they should; `None` where one was
    /// removed meanwhile.
    fn complete(&self, new: &Path, about: About) -> Result<Option<About>, UnpackError> {
        let About::Image { config, mut layers } = about else { return Ok(Some(about)) };
        {
            let state = self.state();
            let known = state.layers();
            for layer in layers.iter_mut().filter(|layer| layer.about.is_none()) {
                layer.about = known.get(&layer.id).copied().cloned();
            }
        }
        let abouts: Vec<LayerAbout> = layers.iter().filter_map(|layer| layer.about.clone()).collect();
        let path = |layer: &LayerUsed| {
            let unpacked = new.join(LAYERS).join(layer.id.to_string());
            if unpacked.exists() { unpacked } else { self.layer(layer.id) }
        };
        let paths: Vec<PathBuf> = layers.iter().map(path).collect();
        if abouts.len() < layers.len() || !paths.iter().all(|path| path.exists()) {
            return Ok(None);
        }
        layers.extend(implied::mend(&paths, &abouts, &new.join(LAYERS))?);
        Ok(Some(About::Image { config, layers }))
    }

    /// Makes what is in `new` a part of the store; nothing where a layer that it shares was removed meanwhile.
    fn take_in(&self, new: &New, about: About, key: Key) -> Result<(), UnpackError> {
        let failed = |error: io::Error| UnpackError::failed("taking it into the store", error);
        let Some(about) = self.complete(&new.0, about)? else { return Ok(()) };
        let write = || {
            absent_is_fine(fs::remove_file(new.0.join(RESULT)))?;
            fs::write(new.0.join(ABOUT), serde_json::to_vec(&about)?)?;
            fs::set_permissions(&new.0, Permissions::from_mode(0o755))?;
            // All of it at once; asking for each of a hundred thousand files takes minutes.
            syncfs(File::open(&new.0)?).map_err(io::Error::from)
        };
        write().map_err(failed)?;
        let mut trash = vec![];
        let mut rename = || {
            let mut state = self.state();
            if let About::Image { layers, .. } = &about {
                let known = state.layers();
                let unpacked = |id: Digest| new.0.join(LAYERS).join(id.to_string());
                if layers.iter().any(|layer| !known.contains_key(&layer.id) && !unpacked(layer.id).exists()) {
                    return Ok(());
                }
                for layer in layers.iter().filter(|layer| !known.contains_key(&layer.id)) {
                    // One that could not be removed.
                    trash.extend(self.discard(&self.layer(layer.id)));
                    fs::rename(unpacked(layer.id), self.layer(layer.id))?;
                }
                // Others of them were unpacked by somebody else meanwhile.
                trash.extend(self.discard(&new.0.join(LAYERS)));
            }
            trash.extend(self.discard(&self.item(key)));
            fs::rename(&new.0, self.item(key))?;
            state.insert(key, about.clone());
            Ok(())
        };
        rename().map_err(failed)?;
        for name in [LAYERS, "items"] {
            File::open(self.dir.join(name)).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
        Ok(())
    }

    /// Takes an item away, and the layers that nothing else stands on.
    fn remove(&self, state: &mut State, key: Key) {
        let before: Vec<Digest> = state.layers().into_keys().collect();
        if state.items.remove(&key).is_none() {
            return;
        }
        let after = state.layers();
        let mut trash = vec![self.discard(&self.item(key))];
        trash.extend(before.iter().filter(|id| !after.contains_key(id)).map(|id| self.discard(&self.layer(*id))));
    }

    /// Moves a folder to where it is removed as soon as the result is dropped.
    fn discard(&self, path: &Path) -> Option<New> {
        let new = New(self.new_path());
        match absent_is_fine(fs::rename(path, &new.0)) {
            Ok(()) => Some(new),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "what is not needed could not be removed");
                None
            }
        }
    }

    /// Finds again what is there, the least recently used first, and removes what is not whole.
    fn find(&self) -> io::Result<()> {
        let mut found = vec![];
        for entry in fs::read_dir(self.dir.join("items"))? {
            let entry = entry?;
            let item = entry.file_name().to_str().and_then(key).and_then(|key| Some((key, self.read(key)?)));
            match item {
                Some((key, about)) => found.push((entry.metadata()?.modified()?, key, about)),
                None => {
                    tracing::warn!(path = %entry.path().display(), "not a whole item of the store: it is removed");
                    drop(self.discard(&entry.path()));
                }
            }
        }
        found.sort_by_key(|(modified, key, _)| (*modified, *key));
        let mut state = self.state();
        for (_, key, about) in found {
            state.insert(key, about);
        }
        let layers: BTreeSet<String> = state.layers().keys().map(Digest::to_string).collect();
        for entry in fs::read_dir(self.dir.join(LAYERS))? {
            let entry = entry?;
            if entry.file_name().to_str().is_none_or(|name| !layers.contains(name)) {
                drop(self.discard(&entry.path()));
            }
        }
        Ok(())
    }

    /// What is written down of an item; `None` where it is not all there.
    fn read(&self, key: Key) -> Option<About> {
        let path = self.item(key);
        let about = File::open(path.join(ABOUT)).ok()?;
        let about: About = serde_json::from_reader(io::BufReader::new(io::Read::take(about, ABOUT_BYTES_MAX))).ok()?;
        let whole = match &about {
            About::Image { layers, .. } => layers.iter().all(|layer| layer.about.is_some() && self.layer(layer.id).is_dir()),
            About::Folder { .. } => path.join(FOLDER).is_dir(),
            About::File { .. } => path.join(FILE).is_file(),
        };
        whole.then_some(about)
    }
}

fn word(wanted: Wanted) -> &'static str {
    match wanted {
        Wanted::Image => "image",
        Wanted::Bundle => "bundle",
    }
}

fn key(name: &str) -> Option<Key> {
    let (digest, wanted) = name.split_once('-')?;
    let wanted = [Wanted::Image, Wanted::Bundle].into_iter().find(|known| word(*known) == wanted)?;
    Some((digest.parse().ok()?, wanted))
}

/// Copies a bundle that is a single file, so that it may be executed; `None` where it is an archive.
fn single_file(from: &Path, to: &Path, limits: &Limits) -> Result<Option<u64>, UnpackError> {
    let failed = |error: io::Error| UnpackError::failed(format_args!("copying {}", from.display()), error);
    let file = File::open(from).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    if look(&file)? == Look::Archive {
        return Ok(None);
    }
    if bytes > limits.bytes_max {
        return Err(UnpackError::limit(format!("it has {bytes} bytes; at most {} are taken", limits.bytes_max)));
    }
    let bytes = fs::copy(from, to).map_err(failed)?;
    fs::set_permissions(to, Permissions::from_mode(0o555)).map_err(failed)?;
    Ok(Some(bytes))
}

fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Runs what copies, flushes and removes beside the threads that answer.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("working with files does not panic, and nobody cancels it")
}
