//! Files of an image as its container will see them, without mounting it: layers over each other, with what they hide, and links followed
//! only within. Reads only.

use super::tree::{hides, is_whiteout, look, open_file, open_folder, target};
use super::{UnpackError, shown};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, open};
use std::collections::VecDeque;
use std::io::Read;
use std::path::PathBuf;

/// Links that are followed on one way, as in the kernel (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// Names that are looked up on one way, those of its links included.
const NAMES_MAX: usize = 400;

/// A folder as it is seen: the same one of several layers, the highest first, each with the layer's place among them, from the lowest.
pub(super) type Merged = Vec<(usize, OwnedFd)>;

/// What a name in a folder is.
pub(super) enum Seen {
    Nothing,
    Folder(Merged),
    /// Where it points to.
    Link(Vec<u8>),
    File(OwnedFd),
}

/// The layers of an image, over each other.
pub(super) struct View<'a> {
    layers: &'a [PathBuf],
}

impl<'a> View<'a> {
    /// Of `layers`, the lowest first.
    pub(super) fn new(layers: &'a [PathBuf]) -> Self {
        Self { layers }
    }

    /// The contents of the file at `path`; `None` where there is no such file.
    ///
    /// # Errors
    /// Where a layer cannot be read, the file is longer than `bytes_max`, or links go in a circle.
    pub(super) fn read(&self, path: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, UnpackError> {
        let place = |error: UnpackError| error.within(format_args!("{} of the image", shown(path.as_bytes())));
        let Some((folder, name)) = self.find(path.as_bytes()).map_err(place)? else { return Ok(None) };
        let file = open_file(folder.as_fd(), &name).map_err(|error| place(UnpackError::failed("openat2", error)))?;
        let mut bytes = Vec::new();
        file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| place(UnpackError::failed("reading", error)))?;
        if bytes.len() as u64 > bytes_max {
            return Err(place(UnpackError::limit(format!("it is longer than {bytes_max} bytes"))));
        }
        Ok(Some(bytes))
    }

    /// The folder and the name of a file.
    fn find(&self, path: &[u8]) -> Result<Option<(OwnedFd, Vec<u8>)>, UnpackError> {
        // Only the last folder is kept open: a way may be long, and this process has other files to open.
        let (mut folder, mut way) = (self.root()?, Vec::<Vec<u8>>::new());
        let mut names: VecDeque<Vec<u8>> = names(path).collect();
        let (mut links, mut steps) = (0, 0);
        while let Some(name) = names.pop_front() {
            steps += 1;
            if steps > NAMES_MAX {
                return Err(UnpackError::limit(format!("more than {NAMES_MAX} names are on the way to it")));
            }
            if name == b".." {
                // The root is above itself.
                way.pop();
                names = way.drain(..).chain(names).collect();
                folder = self.root()?;
                continue;
            }
            match step(&folder, &name)? {
                Seen::Nothing => return Ok(None),
                Seen::Folder(next) => {
                    folder = next;
                    way.push(name);
                }
                Seen::File(own) => return Ok(names.is_empty().then_some((own, name))),
                Seen::Link(to) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(UnpackError::limit(format!("more than {LINKS_MAX} symbolic links are on the way to it")));
                    }
                    if to.starts_with(b"/") {
                        way.clear();
                        folder = self.root()?;
                    }
                    names = self::names(&to).chain(names).collect();
                }
            }
        }
        Ok(None)
    }

    /// The root of all layers.
    ///
    /// # Errors
    /// Where one is not there.
    pub(super) fn root(&self) -> Result<Merged, UnpackError> {
        let open = |(at, layer): (usize, &PathBuf)| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let folder = open(layer, flags, Mode::empty());
            folder.map(|folder| (at, folder)).map_err(|error| UnpackError::failed(format_args!("opening {}", layer.display()), error))
        };
        self.layers.iter().enumerate().rev().map(open).collect()
    }
}

fn names(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").map(<[u8]>::to_vec)
}

/// What is called `name` in a folder.
///
/// # Errors
/// What the system says.
pub(super) fn step(folder: &Merged, name: &[u8]) -> Result<Seen, UnpackError> {
    let mut found = Merged::new();
    for (at, layer) in folder {
        let Some(there) = look(layer.as_fd(), name)? else { continue };
        if is_whiteout(layer.as_fd(), name)? {
            break;
        }
        match FileType::from_raw_mode(there.st_mode) {
            FileType::Directory => {
                let next = open_folder(layer.as_fd(), name).map_err(|error| UnpackError::failed("openat2", error))?;
                let last = hides(next.as_fd())?;
                found.push((*at, next));
                if last {
                    break;
                }
            }
            _ if !found.is_empty() => break,
            FileType::Symlink => return Ok(Seen::Link(target(layer.as_fd(), name)?)),
            FileType::RegularFile => {
                let own = open_folder(layer.as_fd(), b".").map_err(|error| UnpackError::failed("openat2", error))?;
                return Ok(Seen::File(own));
            }
            _ => return Ok(Seen::Nothing),
        }
    }
    Ok(if found.is_empty() { Seen::Nothing } else { Seen::Folder(found) })
}
