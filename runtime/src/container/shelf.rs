//! The store's folder, and all that is done in it: each piece of [`Work`] in a process of its own that the template forks, as root where there is
//! root, with its conversation at the other end of a socket. Closing that ends the work, and nothing of it is left.
//!
//! `items/DIGEST-image` and `items/DIGEST-bundle` have `about.json` and a bundle's `file` or `folder`; `layers/DIFFID` is a layer; `new/N` is
//! what is being unpacked or removed. Something comes into `items` and `layers` only by a rename, after its bytes are flushed; what a crash
//! leaves in `new`, and layers of no image, are removed when the store is opened. Items are named by the digests of their archives, which
//! whoever brings an archive has checked. Nobody but the owner reaches any of it by a path, since layers have folders that everyone may
//! write; whoever mounts them opens them as the owner.

use super::unpack::{FOLDER, LAYERS, LayerAbout, LayerUsed, RESULT, Request, Unpacked};
use super::{Accounts, Digest, ImageConfig, Limits, Look, UnpackError, Wanted, confined, implied, look};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, OFlags, flock, syncfs};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io::{self, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Rises when the same archive becomes something else; what is of another form is thrown away.
const FORM: u32 = 2;
const ITEMS: &str = "items";
const NEW: &str = "new";
const ABOUT: &str = "about.json";
pub(super) const FILE: &str = "file";
/// How often an image is unpacked again because a layer that it shares was removed meanwhile.
const TRIES_MAX: usize = 3;
/// Longest note about an item.
const ABOUT_BYTES_MAX: u64 = 16 << 20;
/// How long work that an earlier life of the agent began may take to end, once nobody waits for it.
const LAST_WORK_WAIT: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

pub(super) type Key = (Digest, Wanted);

/// What is to be done in a store; the first is to open it.
#[derive(Debug, Serialize, Deserialize)]
pub enum Work {
    /// Finds again what is whole, and removes what is not.
    Open,
    /// Has the archive with this digest, the file that comes with this, unpacked as what is wanted.
    Prepare(Digest, Wanted, Limits),
    /// Throws away what was prepared from the archive with this digest.
    Remove(Digest, Wanted),
}

/// What was done.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Done {
    Opened(Vec<(Key, About)>),
    Prepared(About),
    Removed,
}

/// What is written down of an item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum About {
    Image { config: ImageConfig, layers: Vec<LayerUsed>, accounts: Option<Box<Accounts>> },
    Folder { bytes: u64 },
    File { bytes: u64 },
}

/// Does one piece of work in the store in `dir`, and says what came of it: JSON, to the end of the conversation. `binary` has the verb `unpack`.
/// Returns the exit code of this process.
#[must_use]
pub fn serve(dir: &Path, binary: &Path, work: &Work, archive: Option<File>, mut conversation: UnixStream) -> i32 {
    let shelf = Shelf { dir: dir.into(), binary: binary.into() };
    let done = shelf.work(work, archive, &conversation);
    let said = serde_json::to_vec(&done).unwrap_or_default();
    i32::from(conversation.write_all(&said).is_err())
}

pub(super) fn item(dir: &Path, (digest, wanted): Key) -> PathBuf {
    dir.join(ITEMS).join(format!("{digest}-{}", word(wanted)))
}

pub(super) fn layer(dir: &Path, id: Digest) -> PathBuf {
    dir.join(LAYERS).join(id.to_string())
}

/// Layers that items stand on, and what they are.
pub(super) fn layers<'a>(items: impl Iterator<Item = &'a About>) -> BTreeMap<Digest, &'a LayerAbout> {
    let layers = items.filter_map(|about| match about {
        About::Image { layers, .. } => Some(layers),
        About::Folder { .. } | About::File { .. } => None,
    });
    layers.flatten().filter_map(|layer| Some((layer.id, layer.about.as_ref()?))).collect()
}

struct Shelf {
    dir: PathBuf,
    binary: PathBuf,
}

/// A folder of `new`, which is removed with all in it, unless it was renamed.
struct New(PathBuf);

impl Drop for New {
    fn drop(&mut self) {
        if let Err(error) = absent_is_fine(fs::remove_dir_all(&self.0)) {
            eprintln!("store: removing {}: {error}: it is tried again at the agent's next start", self.0.display());
        }
    }
}

impl Shelf {
    fn work(&self, work: &Work, archive: Option<File>, waits: &UnixStream) -> Result<Done, UnpackError> {
        let failed = |error: io::Error| UnpackError::failed(self.dir.display(), error);
        match (work, archive) {
            (Work::Open, _) => self.open().map(Done::Opened).map_err(failed),
            (Work::Remove(digest, wanted), _) => {
                let _at_work = self.lock("lock", FlockOperation::LockShared).map_err(failed)?;
                self.remove((*digest, *wanted)).map(|()| Done::Removed).map_err(failed)
            }
            (Work::Prepare(digest, wanted, limits), Some(archive)) => {
                // It is opened once more, by who may read more than whoever brought it.
                let opened = rustix::fs::fcntl_getfl(&archive).map_err(|error| failed(error.into()))?;
                if opened.intersects(OFlags::PATH | OFlags::WRONLY) {
                    return Err(UnpackError::Failed("the archive that came was not opened to be read".into()));
                }
                let _at_work = self.lock("lock", FlockOperation::LockShared).map_err(failed)?;
                self.prepare(&archive, (*digest, *wanted), *limits, waits).map(Done::Prepared)
            }
            (Work::Prepare(..), None) => Err(UnpackError::Failed("no archive came with what is to be unpacked".into())),
        }
    }

    fn lock(&self, name: &str, how: FlockOperation) -> io::Result<File> {
        let lock = File::options().create(true).truncate(false).write(true).open(self.dir.join(name))?;
        rustix::io::retry_on_intr(|| flock(&lock, how))?;
        Ok(lock)
    }

    /// Nobody else changes what is in `items` and `layers` as long as this is held.
    fn alone(&self) -> io::Result<File> {
        self.lock("change", FlockOperation::LockExclusive)
    }

    fn open(&self) -> io::Result<Vec<(Key, About)>> {
        fs::create_dir_all(&self.dir)?;
        // An image may hold programs that are setuid root: nobody of the host is to come by them.
        fs::set_permissions(&self.dir, Permissions::from_mode(0o700))?;
        let until = Instant::now() + LAST_WORK_WAIT;
        let _first = loop {
            match self.lock("lock", FlockOperation::NonBlockingLockExclusive) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => std::thread::sleep(LOOK_AGAIN),
                locked => break locked?,
            }
        };
        let form = format!("{FORM} {}", rustix::process::geteuid().as_raw());
        let same = fs::read_to_string(self.dir.join("form")).is_ok_and(|found| found == form);
        for name in if same { [NEW].as_slice() } else { &[NEW, ITEMS, LAYERS] } {
            absent_is_fine(fs::remove_dir_all(self.dir.join(name)))?;
        }
        for name in [NEW, ITEMS, LAYERS] {
            fs::create_dir_all(self.dir.join(name))?;
            fs::set_permissions(self.dir.join(name), Permissions::from_mode(0o700))?;
        }
        fs::write(self.dir.join("form"), form)?;
        let found = self.items(true)?;
        let layers: BTreeSet<String> = layers(found.values()).keys().map(Digest::to_string).collect();
        for entry in fs::read_dir(self.dir.join(LAYERS))? {
            let entry = entry?;
            if entry.file_name().to_str().is_none_or(|name| !layers.contains(name)) {
                drop(self.discard(&entry.path()));
            }
        }
        Ok(found.into_iter().collect())
    }

    /// What is there; what is not whole is removed where that is to be done.
    fn items(&self, tidies: bool) -> io::Result<BTreeMap<Key, About>> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(self.dir.join(ITEMS))? {
            let entry = entry?;
            match entry.file_name().to_str().and_then(key).and_then(|key| Some((key, self.read(key)?))) {
                Some((key, about)) => drop(found.insert(key, about)),
                None if tidies => {
                    eprintln!("store: {} is not a whole item: it is removed", entry.path().display());
                    drop(self.discard(&entry.path()));
                }
                None => {}
            }
        }
        Ok(found)
    }

    /// What is written down of an item; `None` where it is not all there.
    fn read(&self, key: Key) -> Option<About> {
        let path = item(&self.dir, key);
        let about = File::open(path.join(ABOUT)).ok()?;
        let about: About = serde_json::from_reader(io::BufReader::new(io::Read::take(about, ABOUT_BYTES_MAX))).ok()?;
        let whole = match &about {
            About::Image { layers, .. } => layers.iter().all(|used| used.about.is_some() && layer(&self.dir, used.id).is_dir()),
            About::Folder { .. } => path.join(FOLDER).is_dir(),
            About::File { .. } => path.join(FILE).is_file(),
        };
        whole.then_some(about)
    }

    fn prepare(&self, archive: &File, key: Key, limits: Limits, waits: &UnixStream) -> Result<About, UnpackError> {
        for _ in 0..TRIES_MAX {
            if let Some(ready) = self.read(key) {
                return Ok(ready);
            }
            let new = self.new_path();
            fs::create_dir(&new.0).map_err(|error| UnpackError::failed(new.0.display(), error))?;
            let about = self.bring(archive, &new.0, key.1, limits, waits)?;
            if let Some(about) = self.take_in(&new, about, key)? {
                return Ok(about);
            }
        }
        Err(UnpackError::Failed("layers that it shares were removed while it was unpacked, again and again".into()))
    }

    fn new_path(&self) -> New {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        New(self.dir.join(NEW).join(format!("{}-{number}", std::process::id())))
    }

    /// Unpacks into `target` what `archive` is.
    fn bring(&self, archive: &File, target: &Path, wanted: Wanted, limits: Limits, waits: &UnixStream) -> Result<About, UnpackError> {
        if wanted == Wanted::Bundle
            && let Some(bytes) = single_file(archive, &target.join(FILE), &limits, waits)?
        {
            return Ok(About::File { bytes });
        }
        let failed = |error: io::Error| UnpackError::failed(self.dir.display(), error);
        let known: Vec<Digest> = layers(self.items(false).map_err(failed)?.values()).into_keys().collect();
        // The same file, whatever its name leads to by now.
        let archive = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), archive.as_raw_fd()));
        let request = Request { archive, target: target.into(), wanted, known, limits, parent: std::process::id() };
        Ok(match confined::unpack(&self.binary, &request, waits)? {
            Unpacked::Folder { bytes } => About::Folder { bytes },
            Unpacked::Image { config, layers } => About::Image { config, layers, accounts: None },
        })
    }

    /// Says of layers that were known what they are and of all who is in them, and adds one where their folders would not be what they should;
    /// `None` where one was removed meanwhile.
    fn complete(&self, new: &Path, about: About) -> Result<Option<About>, UnpackError> {
        let About::Image { config, layers: mut used, .. } = about else { return Ok(Some(about)) };
        let items = self.items(false).map_err(|error| UnpackError::failed(self.dir.display(), error))?;
        let known = layers(items.values());
        for layer in used.iter_mut().filter(|layer| layer.about.is_none()) {
            layer.about = known.get(&layer.id).copied().cloned();
        }
        let abouts: Vec<LayerAbout> = used.iter().filter_map(|layer| layer.about.clone()).collect();
        let path = |used: &LayerUsed| {
            let unpacked = new.join(LAYERS).join(used.id.to_string());
            if unpacked.exists() { unpacked } else { layer(&self.dir, used.id) }
        };
        let mut paths: Vec<PathBuf> = used.iter().map(path).collect();
        if abouts.len() < used.len() || !paths.iter().all(|path| path.exists()) {
            return Ok(None);
        }
        if let Some(mended) = implied::mend(&paths, &abouts, &new.join(LAYERS))? {
            paths.push(path(&mended));
            used.push(mended);
        }
        Ok(Some(About::Image { config, layers: used, accounts: Some(Box::new(Accounts::read(&paths))) }))
    }

    /// Makes what is in `new` a part of the store; `None` where a layer that it shares was removed meanwhile.
    fn take_in(&self, new: &New, about: About, key: Key) -> Result<Option<About>, UnpackError> {
        let failed = |error: io::Error| UnpackError::failed("taking it into the store", error);
        let Some(about) = self.complete(&new.0, about)? else { return Ok(None) };
        let write = || {
            absent_is_fine(fs::remove_file(new.0.join(RESULT)))?;
            fs::write(new.0.join(ABOUT), serde_json::to_vec(&about)?)?;
            fs::set_permissions(&new.0, Permissions::from_mode(0o755))?;
            // All of it at once; asking for each of a hundred thousand files takes minutes.
            syncfs(File::open(&new.0)?).map_err(io::Error::from)
        };
        write().map_err(failed)?;
        // What is let go is removed once others may change something again.
        let mut trash = vec![];
        let alone = self.alone().map_err(failed)?;
        let mut rename = || {
            if let About::Image { layers: used, .. } = &about {
                let items = self.items(false)?;
                let known = layers(items.values());
                let unpacked = |id: Digest| new.0.join(LAYERS).join(id.to_string());
                if used.iter().any(|layer| !known.contains_key(&layer.id) && !unpacked(layer.id).exists()) {
                    return Ok(None);
                }
                for used in used.iter().filter(|layer| !known.contains_key(&layer.id)) {
                    // One that could not be removed.
                    trash.extend(self.discard(&layer(&self.dir, used.id)));
                    fs::rename(unpacked(used.id), layer(&self.dir, used.id))?;
                }
                // Others of them were unpacked by somebody else meanwhile.
                trash.extend(self.discard(&new.0.join(LAYERS)));
            }
            trash.extend(self.discard(&item(&self.dir, key)));
            fs::rename(&new.0, item(&self.dir, key))?;
            for name in [LAYERS, ITEMS] {
                File::open(self.dir.join(name))?.sync_all()?;
            }
            Ok(Some(about.clone()))
        };
        let taken = rename().map_err(failed);
        drop(alone);
        taken
    }

    /// Takes an item away, and the layers that nothing else stands on.
    fn remove(&self, key: Key) -> io::Result<()> {
        let alone = self.alone()?;
        let mut items = self.items(false)?;
        let before: Vec<Digest> = layers(items.values()).into_keys().collect();
        items.remove(&key);
        let after = layers(items.values());
        let mut trash = vec![self.discard(&item(&self.dir, key))];
        trash.extend(before.iter().filter(|id| !after.contains_key(id)).map(|id| self.discard(&layer(&self.dir, *id))));
        drop(alone);
        Ok(())
    }

    /// Moves a folder to where it is removed as soon as the result is dropped.
    fn discard(&self, path: &Path) -> Option<New> {
        let new = self.new_path();
        match absent_is_fine(fs::rename(path, &new.0)) {
            Ok(()) => Some(new),
            Err(error) => {
                eprintln!("store: removing {}: {error}", path.display());
                None
            }
        }
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
fn single_file(mut from: &File, to: &Path, limits: &Limits, waits: &UnixStream) -> Result<Option<u64>, UnpackError> {
    const PIECE_BYTES: u64 = 64 << 20;
    let failed = |error: io::Error| UnpackError::failed("copying it", error);
    let bytes = from.metadata().map_err(failed)?.len();
    if look(from)? == Look::Archive {
        return Ok(None);
    }
    if bytes > limits.bytes_max {
        return Err(UnpackError::limit(format!("it has {bytes} bytes; at most {} are taken", limits.bytes_max)));
    }
    from.rewind().map_err(failed)?;
    let mut copy = File::options().create_new(true).write(true).open(to).map_err(failed)?;
    let mut copied = 0;
    loop {
        let more = io::copy(&mut io::Read::take(from, PIECE_BYTES), &mut copy).map_err(failed)?;
        copied += more;
        if more == 0 {
            break;
        }
        if is_given_up(waits) {
            return Err(UnpackError::Failed("nobody waits for it any more".into()));
        }
    }
    copy.set_permissions(Permissions::from_mode(0o555)).map_err(failed)?;
    Ok(Some(copied))
}

/// True once whoever waits for the work is gone.
pub(super) fn is_given_up(waits: &UnixStream) -> bool {
    let mut ready = [PollFd::new(waits, PollFlags::RDHUP)];
    poll(&mut ready, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

/// Done too where there was nothing to do it with.
pub(crate) fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
