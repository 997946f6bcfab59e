//! One archive to folders: what the process does that is started for each. Knows where to read and where to write, and nothing else of the
//! machine; what becomes of the folders is the store's.

use super::archive::Archive;
use super::compressed::{Form, HEAD_BYTES, Uncompressed, Window, form};
use super::contents::{self, Rules};
use super::entries::Entries;
use super::manifest::{self, Blob, layer_name};
use super::tree::open_folder;
use super::{Digest, ImageConfig, Limits, UnpackError, Wanted, config};
use crate::jail::unpacking;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

/// In the target: the bundle's files, unpacked.
pub(super) const FOLDER: &str = "folder";
/// In the target: a folder for each new layer, named by its diffID.
pub(super) const LAYERS: &str = "layers";
/// In the target: what was done, as JSON of [`Unpacked`]; written last.
pub(super) const RESULT: &str = "result.json";
/// In the target, for a moment: an archive of an image that was compressed as a whole.
const SPOOL: &str = "spool";

/// Bytes of the names of folders that are filled but not named, of all layers together: they are kept in memory.
const IMPLIED_BYTES_MAX: usize = 4 << 20;

/// What is to be unpacked, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The archive.
    pub archive: PathBuf,
    /// An empty folder that everything is written to.
    pub target: PathBuf,
    /// What it is to be taken for.
    pub wanted: Wanted,
    /// DiffIDs of layers that are there already and are not unpacked again.
    pub known: Vec<Digest>,
    /// The most that it may become.
    pub limits: Limits,
    /// Who waits for the process: it ends when that one does.
    pub parent: u32,
}

/// What an archive became.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unpacked {
    /// An image. Its new layers are in the target's `layers`.
    Image {
        /// How it is run.
        config: ImageConfig,
        /// Its layers, the lowest first; none twice.
        layers: Vec<LayerUsed>,
    },
    /// Files, in the target's `folder`.
    Folder {
        /// Bytes that they take.
        bytes: u64,
    },
}

/// A layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerUsed {
    /// Its diffID.
    pub id: Digest,
    /// What it is where it is new; `None`: it was known.
    pub about: Option<LayerAbout>,
}

/// What there is to know of an unpacked layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerAbout {
    /// Bytes that it takes.
    pub bytes: u64,
    /// Folders that it has something in but says nothing of, the root as an empty text: below another layer they are what that one says.
    /// Those whose names are no UTF-8 are left out.
    pub implied: Vec<String>,
}

/// Unpacks `archive` into the folder `target`, in this process and without its jail. Writes only there, whatever the archive holds; what is
/// there after an error is worth nothing.
///
/// # Errors
/// What is wrong with the archive and where in it, or what this machine could not do.
pub fn unpack(archive: &File, target: BorrowedFd<'_>, wanted: Wanted, known: &[Digest], limits: &Limits) -> Result<Unpacked, UnpackError> {
    let bytes = archive.metadata().map_err(|error| UnpackError::failed("looking at the archive", error))?.len();
    let window = Window::new(archive, 0, bytes);
    match wanted {
        Wanted::Bundle => bundle(window, target, limits),
        Wanted::Image => match form(&window.peek(HEAD_BYTES).map_err(UnpackError::reading)?)? {
            Form::Plain => image(archive, bytes, target, known, limits),
            Form::Gzip | Form::Zstd => {
                let (spool, bytes) = spool(window, target, limits)?;
                image(&spool, bytes, target, known, limits)
            }
        },
    }
}

fn bundle(window: Window<'_>, target: BorrowedFd<'_>, limits: &Limits) -> Result<Unpacked, UnpackError> {
    let root = new_folder(target, FOLDER)?;
    let limits = Limits { layer_bytes_max: limits.bytes_max, layer_entries_max: limits.entries_max, ..*limits };
    let mut entries = Entries::new(Uncompressed::new(window, limits.bytes_max)?);
    let tree = contents::tree(root, Rules::Bundle)?;
    let took = contents::unpack(&mut entries, tree, Rules::Bundle, &limits)?;
    if !took.marked {
        return Err(UnpackError::refused("it ends without the mark of an archive's end: it was cut"));
    }
    entries.into_inner().finish()?;
    Ok(Unpacked::Folder { bytes: took.grown.bytes })
}

/// A copy without compression, whose members can be found. It has no name any more and goes away with its descriptor.
fn spool(window: Window<'_>, target: BorrowedFd<'_>, limits: &Limits) -> Result<(File, u64), UnpackError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = openat(target, SPOOL, flags, Mode::RUSR | Mode::WUSR).map_err(|error| UnpackError::failed("making a spool", error))?;
    unlinkat(target, SPOOL, AtFlags::empty()).map_err(|error| UnpackError::failed("unlinking the spool", error))?;
    let (mut file, mut from) = (File::from(open), Uncompressed::new(window, limits.bytes_max)?);
    let mut to = Spool(&mut file);
    let bytes = io::copy(&mut from, &mut to).map_err(UnpackError::reading)?;
    Ok((file, bytes))
}

/// Tells what could not be written from what could not be read.
struct Spool<'a>(&'a mut File);

impl Write for Spool<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(|error| UnpackError::failed("writing the spool", error).into())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn image(file: &File, bytes: u64, target: BorrowedFd<'_>, known: &[Digest], limits: &Limits) -> Result<Unpacked, UnpackError> {
    let archive = Archive::open(file, bytes)?;
    let found = manifest::find(&archive)?;
    let (config, ids) = config::parse(&found.config, limits)?;
    if ids.len() != found.layers.len() {
        let (blobs, ids) = (found.layers.len(), ids.len());
        return Err(UnpackError::refused(format!("it has {blobs} layers, and its configuration names {ids}")));
    }
    let folder = new_folder(target, LAYERS)?;
    let (mut layers, mut used) = (Vec::<LayerUsed>::new(), Used::default());
    for (at, (blob, id)) in found.layers.iter().zip(&ids).enumerate() {
        let took = match layers.iter().position(|layer| layer.id == *id) {
            // Over itself it changes nothing that the higher one does not change again; an overlay takes each folder once only.
            Some(lower) => Some(layers.remove(lower)),
            None if known.contains(id) => Some(LayerUsed { id: *id, about: None }),
            None => None,
        };
        let took = match took {
            Some(took) => took,
            None => {
                let took = layer(&archive, blob, *id, folder.as_fd(), &used.left(limits), &mut used);
                LayerUsed { id: *id, about: Some(took.map_err(|error| error.within(format_args!("{} ({id})", layer_name(at))))?) }
            }
        };
        layers.push(took);
    }
    Ok(Unpacked::Image { config, layers })
}

/// What the layers so far have taken of what all may take.
#[derive(Default)]
struct Used {
    bytes: u64,
    entries: u64,
    implied_bytes: usize,
}

impl Used {
    fn left(&self, limits: &Limits) -> Limits {
        Limits {
            layer_bytes_max: limits.layer_bytes_max.min(limits.bytes_max.saturating_sub(self.bytes)),
            layer_entries_max: limits.layer_entries_max.min(limits.entries_max.saturating_sub(self.entries)),
            ..*limits
        }
    }
}

fn layer(
    archive: &Archive,
    blob: &Blob,
    id: Digest,
    folder: BorrowedFd<'_>,
    limits: &Limits,
    used: &mut Used,
) -> Result<LayerAbout, UnpackError> {
    let root = new_folder(folder, &id.to_string())?;
    let rules = Rules::Layer { owners: geteuid().is_root() };
    let mut entries = Entries::new(Uncompressed::new(archive.find(&blob.member)?, limits.layer_bytes_max)?);
    let took = contents::unpack(&mut entries, contents::tree(root, rules)?, rules, limits)?;
    let sums = entries.into_inner().finish()?;
    if let Some(digest) = blob.digest.filter(|digest| *digest != sums.compressed) {
        return Err(UnpackError::refused(format!("its digest is {} and should be {digest}", sums.compressed)));
    }
    if sums.uncompressed != id {
        return Err(UnpackError::refused(format!("its diffID is {}: it is not the layer that the image names", sums.uncompressed)));
    }
    used.bytes += sums.bytes;
    used.entries += took.entries;
    let implied: Vec<_> = took.grown.implied.into_iter().filter_map(|path| String::from_utf8(path).ok()).collect();
    used.implied_bytes += implied.iter().map(String::len).sum::<usize>();
    if used.implied_bytes > IMPLIED_BYTES_MAX {
        return Err(UnpackError::limit("it has files in too many folders that it does not name"));
    }
    Ok(LayerAbout { bytes: took.grown.bytes, implied })
}

fn new_folder(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, UnpackError> {
    mkdirat(parent, name, Mode::from_raw_mode(0o755)).map_err(|error| UnpackError::failed(format_args!("making {name}"), error))?;
    open_folder(parent, name.as_bytes()).map_err(|error| UnpackError::failed(format_args!("opening {name}"), error))
}

/// It exits so where the archive is at fault, and where it is too large.
pub(super) const EXIT_REFUSED: i32 = 2;
pub(super) const EXIT_LIMIT: i32 = 3;

/// Longest request: one with some ten thousand layers that are known.
const REQUEST_BYTES_MAX: u64 = 1 << 20;

/// The hidden verb `unpack`: reads a [`Request`] as JSON from standard input, enters its jail, unpacks, and exits: 0 done, 2 refused, 3 too
/// large, 1 failed; why is on standard error. Nothing else runs in the process yet.
pub fn unpack_main() -> ! {
    let (code, reason) = match jailed() {
        Ok(()) => (0, String::new()),
        Err(UnpackError::Refused(reason)) => (EXIT_REFUSED, reason),
        Err(UnpackError::Limit(reason)) => (EXIT_LIMIT, reason),
        Err(UnpackError::Failed(reason)) => (1, reason),
    };
    // Nobody is left to tell where this fails.
    let _ = io::stderr().write_all(reason.as_bytes());
    std::process::exit(code)
}

fn jailed() -> Result<(), UnpackError> {
    let mut text = vec![];
    io::stdin().take(REQUEST_BYTES_MAX).read_to_end(&mut text).map_err(|error| UnpackError::failed("reading the request", error))?;
    let request: Request = serde_json::from_slice(&text).map_err(|error| UnpackError::failed("reading the request", error))?;
    // What this machine lacks for it is in `jail::probe`.
    let (archive, target) = unpacking::enter(&request.archive, &request.target, request.parent, request.limits.bytes_max)
        .map_err(|error| UnpackError::Failed(error.to_string()))?;
    let unpacked = unpack(&archive, target.as_fd(), request.wanted, &request.known, &request.limits)?;
    let result = serde_json::to_vec(&unpacked).map_err(|error| UnpackError::failed("writing the result", error))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let to = openat(&target, RESULT, flags, Mode::RUSR | Mode::WUSR).map_err(|error| UnpackError::failed("making the result", error))?;
    File::from(to).write_all(&result).map_err(|error| UnpackError::failed("writing the result", error))
}
