//! Folders of an image that an upper layer fills without saying anything about them (its archive has `srv/x`, but no `srv`): whose they are
//! and who may use them is what lower layers say. An overlay takes a folder from the highest layer that has it, so where that makes a
//! difference another layer is put on top, which has these folders as they should be and nothing else.

use super::merged::{Merged, Seen, View, step};
use super::tree::{Attributes, Place, Tree};
use super::unpack::{LayerAbout, LayerUsed};
use super::{Digest, Limits, UnpackError};
use rustix::fd::OwnedFd;
use rustix::fs::fstat;
use rustix::process::geteuid;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Folders of layers that are looked at for one image; each takes some system calls.
const STEPS_MAX: usize = 2_000_000;

/// Makes the layer, if one is needed, in the folder `into`, named by its digest. `paths` are the layers, the lowest first, and `layers` what
/// is known of each.
///
/// # Errors
/// Where there are too many such folders, or what the system says.
pub(super) fn mend(paths: &[PathBuf], layers: &[LayerAbout], into: &Path) -> Result<Option<LayerUsed>, UnpackError> {
    let layers: Vec<BTreeSet<&str>> = layers.iter().map(|layer| layer.implied.iter().map(String::as_str).collect()).collect();
    // Below the lowest there is nothing that could say otherwise.
    let implied: BTreeSet<&str> = layers.iter().skip(1).flatten().copied().collect();
    if implied.is_empty() {
        return Ok(None);
    }
    let view = Folders { root: Rc::new(View::new(paths).root()?), layers };
    let (mut wrong, mut steps, mut alone) = (BTreeSet::<&str>::new(), 0, None::<String>);
    for path in implied {
        if alone.as_ref().is_some_and(|alone| path.starts_with(alone)) {
            continue;
        }
        let Some(folder) = view.find(path, &mut steps)? else { continue };
        if folder.len() == 1 && !path.is_empty() {
            // Of one layer only, and so is all in it.
            alone = Some(format!("{path}/"));
        } else if view.said(path, &folder)?.is_otherwise(&about(&folder[0].1)?) {
            wrong.insert(path);
        }
    }
    if wrong.is_empty() {
        return Ok(None);
    }
    let mut folders = BTreeMap::new();
    for path in wrong.iter().copied().flat_map(ways) {
        if !folders.contains_key(path)
            && let Some(folder) = view.find(path, &mut steps)?
        {
            folders.insert(path, view.said(path, &folder)?);
        }
    }
    make(&folders, into).map(Some)
}

/// A path and all above it, the root first.
fn ways(path: &str) -> impl Iterator<Item = &str> {
    let above = path.match_indices('/').map(|(at, _)| &path[..at]);
    [""].into_iter().chain(above).chain([path])
}

/// The layers of an image and what each does not say.
struct Folders<'a> {
    root: Rc<Merged>,
    layers: Vec<BTreeSet<&'a str>>,
}

/// What is said of a folder.
#[derive(Serialize)]
struct About {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, u32),
}

impl About {
    /// True where it matters; nobody misses the right time enough for a layer.
    fn is_otherwise(&self, other: &Self) -> bool {
        (self.mode, self.owner) != (other.mode, other.owner)
    }
}

impl Folders<'_> {
    /// The folder at `path`, if it is one and no link leads there.
    fn find(&self, path: &str, steps: &mut usize) -> Result<Option<Rc<Merged>>, UnpackError> {
        let mut found = Rc::clone(&self.root);
        for name in path.split('/').filter(|name| !name.is_empty()) {
            *steps += found.len();
            if *steps > STEPS_MAX {
                return Err(UnpackError::limit("it has files in too many folders that its layers do not name"));
            }
            match step(&found, name.as_bytes())? {
                Seen::Folder(next) => found = Rc::new(next),
                Seen::Nothing | Seen::Link(_) | Seen::File(_) => return Ok(None),
            }
        }
        Ok(Some(found))
    }

    /// What the highest layer says of it that says anything.
    fn said(&self, path: &str, folder: &Merged) -> Result<About, UnpackError> {
        let highest = folder.iter().find(|(layer, _)| !self.layers[*layer].contains(path));
        about(&highest.unwrap_or(&folder[0]).1)
    }
}

fn about(folder: &OwnedFd) -> Result<About, UnpackError> {
    let found = fstat(folder).map_err(|error| UnpackError::failed("fstat", error))?;
    let nanos = u32::try_from(found.st_mtime_nsec).unwrap_or(0);
    Ok(About { mode: found.st_mode & 0o7777, owner: (found.st_uid, found.st_gid), mtime: (found.st_mtime, nanos) })
}

fn make(folders: &BTreeMap<&str, About>, into: &Path) -> Result<LayerUsed, UnpackError> {
    let failed = |error: std::io::Error| UnpackError::failed("making a layer of folders", error);
    let id = Digest::of(&serde_json::to_vec(folders).map_err(|error| failed(error.into()))?);
    let path = into.join(id.to_string());
    std::fs::create_dir(&path).map_err(failed)?;
    let owned = |owner: (u32, u32)| geteuid().is_root().then_some(owner);
    let root = File::open(&path).map_err(failed)?;
    let mut tree = Tree::new(root.into(), Attributes { mode: 0o755, owner: owned((0, 0)), mtime: (0, 0) })?;
    let any = Limits { path_bytes_max: usize::MAX, depth_max: usize::MAX, ..Limits::default() };
    for (path, About { mode, owner, mtime }) in folders {
        let place = if path.is_empty() { None } else { Place::new(path.as_bytes(), &any)? };
        tree.folder(place.as_ref(), Attributes { mode: *mode, owner: owned(*owner), mtime: *mtime })?;
    }
    Ok(LayerUsed { id, about: Some(LayerAbout { bytes: tree.finish()?.bytes, implied: vec![] }) })
}
