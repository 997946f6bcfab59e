//! Files, folders and links beneath one folder, whatever their names are: the kernel resolves each way from that folder's descriptor and
//! follows no link on it (openat2(2), `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`). Knows no archive.

use super::{Limits, UnpackError, shown};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown, fgetxattr,
    fsetxattr, fstat, futimens, linkat, mkdirat, mknodat, openat2, readlinkat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};

/// Says that a folder hides what lower layers have in it (`y`), or that it may have whiteouts that are files (`x`).
pub(super) const OPAQUE: &str = "user.overlay.opaque";
/// Makes an empty file a whiteout.
const WHITEOUT: &str = "user.overlay.whiteout";
/// Longest name on all file systems that are common.
const NAME_BYTES_MAX: usize = 255;
/// Blocks are at least so long on most file systems: what a file really takes.
const BLOCK_BYTES: u64 = 4_096;
const COPY_BYTES: usize = 128 << 10;

/// Where something is to be: checked, without `.` and `..`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The folder it is in; empty: the root.
    pub(super) folder: Vec<u8>,
    /// Its name there.
    pub(super) name: Vec<u8>,
    /// How many folders that is.
    pub(super) depth: usize,
}

impl Place {
    /// The place that `path` names; `None`: the root itself.
    ///
    /// # Errors
    /// Where it leaves the root, or is longer or deeper than it may be.
    pub(super) fn new(path: &[u8], limits: &Limits) -> Result<Option<Self>, UnpackError> {
        if path.is_empty() || path.contains(&0) {
            return refused("it has no name");
        }
        if path.len() > limits.path_bytes_max {
            return Err(UnpackError::limit(format!("its name has {} bytes; at most {} are taken", path.len(), limits.path_bytes_max)));
        }
        if path.starts_with(b"/") {
            return refused("its name is absolute");
        }
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
        if parts.contains(&b"..".as_slice()) {
            return refused("its name has \"..\" in it");
        }
        if let Some(part) = parts.iter().find(|part| part.len() > NAME_BYTES_MAX) {
            return Err(UnpackError::limit(format!("a name in it has {} bytes; at most {NAME_BYTES_MAX} are taken", part.len())));
        }
        let Some((name, folders)) = parts.split_last() else { return Ok(None) };
        if folders.len() > limits.depth_max {
            return Err(UnpackError::limit(format!("it is in {} folders; at most {} are taken", folders.len(), limits.depth_max)));
        }
        Ok(Some(Self { folder: folders.join(&b'/'), name: name.to_vec(), depth: folders.len() }))
    }

    pub(super) fn path(&self) -> Vec<u8> {
        if self.folder.is_empty() { self.name.clone() } else { [&self.folder, b"/".as_slice(), &self.name].concat() }
    }

    /// The same name elsewhere in its folder.
    pub(super) fn beside(&self, name: &[u8]) -> Self {
        Self { name: name.to_vec(), ..self.clone() }
    }
}

/// Who owns something, what may be done with it, and when it was changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    /// User and group; `None`: whoever makes it.
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mtime: (i64, u32),
}

/// How it is written down that something of a lower layer is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whiteouts {
    /// A character device 0:0; anybody may make one (Linux 5.8).
    Device,
    /// An empty file with an attribute (Linux 6.7), where the file system has no devices.
    File,
}

/// A folder that is being filled.
pub(super) struct Tree {
    root: OwnedFd,
    pub(super) whiteouts: Whiteouts,
    /// The folder that was last worked in.
    last: Option<(Vec<u8>, OwnedFd)>,
    /// When folders were changed: set at the end, since filling them changes it.
    times: BTreeMap<Vec<u8>, (i64, u32)>,
    /// What a folder is that the archive does not say anything of.
    implied: Attributes,
    /// Bytes that it takes.
    bytes: u64,
    /// Folders that nothing was said of so far, the root as an empty path.
    implied_folders: BTreeSet<Vec<u8>>,
    /// How many folders were made of which nothing was said before.
    pub(super) implied_count: u64,
}

/// What a tree became.
#[derive(Debug, Default)]
pub(super) struct Grown {
    /// Bytes that it takes.
    pub(super) bytes: u64,
    /// Folders that nothing was said of, the root as an empty path.
    pub(super) implied: BTreeSet<Vec<u8>>,
}

impl Tree {
    /// The tree at `root`. `implied` is for folders that nothing is said of, as the root itself may be.
    pub(super) fn new(root: OwnedFd, implied: Attributes) -> Result<Self, UnpackError> {
        set(root.as_fd(), implied)?;
        let implied_folders = BTreeSet::from([vec![]]);
        Ok(Self {
            root,
            whiteouts: Whiteouts::Device,
            last: None,
            times: BTreeMap::new(),
            implied,
            bytes: BLOCK_BYTES,
            implied_folders,
            implied_count: 0,
        })
    }

    /// Makes a folder, or gives one that is there other attributes. In place of a whiteout it hides what is below.
    pub(super) fn folder(&mut self, place: Option<&Place>, attributes: Attributes) -> Result<(), UnpackError> {
        let Some(place) = place else {
            set(self.root.as_fd(), attributes)?;
            self.times.insert(b".".to_vec(), attributes.mtime);
            self.implied_folders.remove([].as_slice());
            return Ok(());
        };
        let parent = self.enter(&place.folder)?;
        let (folder, made) = make_folder(parent, &place.name)?;
        set(folder.as_fd(), attributes)?;
        self.bytes += if made { BLOCK_BYTES } else { 0 };
        self.implied_folders.remove(&place.path());
        self.times.insert(place.path(), attributes.mtime);
        Ok(())
    }

    /// Makes a file of what `data` holds, of which there are `size` bytes, in place of whatever is there but a folder.
    pub(super) fn file(&mut self, place: &Place, data: &mut impl Read, size: u64, attributes: Attributes) -> Result<(), UnpackError> {
        let parent = self.enter(&place.folder)?;
        let mut file = make_file(parent, &place.name)?;
        let written = copy(data, &mut file)?;
        if written != size {
            return refused(format!("{written} of {size} bytes are there"));
        }
        finish_file(&file, attributes)?;
        self.bytes += size.next_multiple_of(BLOCK_BYTES);
        Ok(())
    }

    /// Makes a symbolic link, in place of whatever is there but a folder. Its time is not kept: only a path names it, and the jail has none.
    pub(super) fn symlink(&mut self, place: &Place, target: &[u8], owner: Option<(u32, u32)>) -> Result<(), UnpackError> {
        let parent = self.enter(&place.folder)?;
        instead(parent, &place.name, || symlinkat(target, parent, place.name.as_slice()))?;
        if let Some((uid, gid)) = owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            chownat(parent, place.name.as_slice(), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| failed("chown of a link", error))?;
        }
        Ok(())
    }

    /// Gives a file another name; `with_symlinks`: or a symbolic link.
    pub(super) fn hard_link(&mut self, place: &Place, target: &Place, with_symlinks: bool) -> Result<(), UnpackError> {
        if place == target {
            return refused("it is a link to itself");
        }
        let missing = || UnpackError::refused(format!("it is a link to {}, which is not a file before it", shown(&target.path())));
        let from = match open_folder(self.root.as_fd(), &target.folder) {
            Ok(from) => from,
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => return Err(missing()),
            Err(error) => return Err(failed("openat2", error)),
        };
        let found = look(from.as_fd(), &target.name)?.ok_or_else(missing)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile if !is_whiteout(from.as_fd(), &target.name)? => {}
            FileType::Symlink if with_symlinks => {}
            FileType::Symlink => return refused("it is a hard link to a symbolic link"),
            _ => return Err(missing()),
        }
        let parent = self.enter(&place.folder)?;
        clear(parent, &place.name)?;
        match linkat(&from, target.name.as_slice(), parent, place.name.as_slice(), AtFlags::empty()) {
            // Landlock before Linux 5.19 lets nobody link from one folder to another: then it is a copy.
            Err(Errno::XDEV) => {
                self.bytes += duplicate(from.as_fd(), &target.name, parent, &place.name)?;
                Ok(())
            }
            linked => linked.map_err(|error| failed("linkat", error)),
        }
    }

    /// Says that nothing of lower layers is seen at `place`; what this layer itself has there stays.
    pub(super) fn whiteout(&mut self, place: &Place) -> Result<(), UnpackError> {
        let whiteouts = self.whiteouts;
        let parent = self.enter(&place.folder)?;
        match look(parent, &place.name)? {
            None => {}
            Some(there) if FileType::from_raw_mode(there.st_mode) == FileType::Directory => {
                return hide(open_folder(parent, &place.name).map_err(|error| failed("openat2", error))?.as_fd());
            }
            Some(_) => return Ok(()),
        }
        match whiteouts {
            Whiteouts::Device => match mknodat(parent, place.name.as_slice(), FileType::CharacterDevice, Mode::empty(), 0) {
                Err(Errno::PERM | Errno::OPNOTSUPP) => self.whiteouts = Whiteouts::File,
                made => return made.map_err(|error| failed("mknodat 0:0", error)),
            },
            Whiteouts::File => {}
        }
        let parent = self.enter(&place.folder)?;
        let file = make_file(parent, &place.name)?;
        mark(file.as_fd(), WHITEOUT, b"y")?;
        // A folder that hides all stays so: then no whiteout in it matters.
        if opaque(parent)?.is_none() { mark(parent, OPAQUE, b"x") } else { Ok(()) }
    }

    /// Says that nothing is seen of what lower layers have in a folder.
    pub(super) fn opaque(&mut self, folder: &[u8]) -> Result<(), UnpackError> {
        hide(self.enter(folder)?)
    }

    /// Gives folders their times; nothing comes after that.
    pub(super) fn finish(self) -> Result<Grown, UnpackError> {
        for (path, time) in &self.times {
            let folder = open_folder(self.root.as_fd(), path).map_err(|error| failed("openat2", error))?;
            set_time(folder.as_fd(), *time)?;
        }
        Ok(Grown { bytes: self.bytes, implied: self.implied_folders })
    }

    /// The folder at `path`, which with all on its way is made where it is missing.
    fn enter(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>, UnpackError> {
        if path.is_empty() {
            return Ok(self.root.as_fd());
        }
        if self.last.as_ref().is_none_or(|(last, _)| last != path) {
            let folder = match open_folder(self.root.as_fd(), path) {
                Ok(folder) => folder,
                Err(Errno::LOOP) => return refused("a folder on its way is a symbolic link"),
                Err(Errno::NOENT | Errno::NOTDIR) => self.make_way(path)?,
                Err(error) => return Err(failed("openat2", error)),
            };
            self.last = Some((path.to_vec(), folder));
        }
        Ok(self.last.as_ref().expect("it was just put there").1.as_fd())
    }

    fn make_way(&mut self, path: &[u8]) -> Result<OwnedFd, UnpackError> {
        let mut folder = open_folder(self.root.as_fd(), b".").map_err(|error| failed("openat2", error))?;
        let mut way = vec![];
        for name in path.split(|byte| *byte == b'/') {
            way.extend_from_slice(if way.is_empty() { b"" } else { b"/" });
            way.extend_from_slice(name);
            if let Some(there) = look(folder.as_fd(), name)? {
                let refusal = match FileType::from_raw_mode(there.st_mode) {
                    FileType::Symlink => Some("a folder on its way is a symbolic link"),
                    FileType::Directory => None,
                    _ if is_whiteout(folder.as_fd(), name)? => None,
                    _ => Some("a folder on its way is a file"),
                };
                if let Some(refusal) = refusal {
                    return refused(refusal);
                }
            }
            let (next, made) = make_folder(folder.as_fd(), name)?;
            if made {
                set(next.as_fd(), self.implied)?;
                self.bytes += BLOCK_BYTES;
                self.implied_count += 1;
                self.implied_folders.insert(way.clone());
            }
            folder = next;
        }
        Ok(folder)
    }
}

/// Opens a folder beneath `from`, which an empty path names, following no link.
pub(super) fn open_folder(from: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    openat2(from, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), beneath())
}

/// Opens a file beneath `from` to be read, following no link.
pub(super) fn open_file(from: BorrowedFd<'_>, name: &[u8]) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat2(from, name, flags, Mode::empty(), beneath()).map(File::from)
}

fn beneath() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV
}

/// What is called `name` in a folder, not what it points to.
pub(super) fn look(folder: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Stat>, UnpackError> {
    match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(there) => Ok(Some(there)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(failed("fstatat", error)),
    }
}

/// True where a folder's `name` says that something of a lower layer is gone.
pub(super) fn is_whiteout(folder: BorrowedFd<'_>, name: &[u8]) -> Result<bool, UnpackError> {
    let Some(there) = look(folder, name)? else { return Ok(false) };
    match FileType::from_raw_mode(there.st_mode) {
        FileType::CharacterDevice => Ok(there.st_rdev == 0),
        FileType::RegularFile if there.st_size == 0 => {
            let file = open_file(folder, name).map_err(|error| failed("openat2", error))?;
            attribute(file.as_fd(), WHITEOUT).map(|value| value.is_some())
        }
        _ => Ok(false),
    }
}

/// True where a folder hides what lower layers have in it.
pub(super) fn hides(folder: BorrowedFd<'_>) -> Result<bool, UnpackError> {
    Ok(opaque(folder)? == Some(b'y'))
}

/// Where a symbolic link points to.
pub(super) fn target(folder: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<u8>, UnpackError> {
    readlinkat(folder, name, Vec::new()).map(|target| target.into_bytes()).map_err(|error| failed("readlinkat", error))
}

fn opaque(folder: BorrowedFd<'_>) -> Result<Option<u8>, UnpackError> {
    attribute(folder, OPAQUE)
}

fn attribute(file: BorrowedFd<'_>, name: &str) -> Result<Option<u8>, UnpackError> {
    let mut value = [0; 1];
    match fgetxattr(file, name, &mut value) {
        Ok(_) => Ok(Some(value[0])),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(None),
        Err(error) => Err(failed(format_args!("fgetxattr {name}"), error)),
    }
}

fn mark(file: BorrowedFd<'_>, name: &str, value: &[u8]) -> Result<(), UnpackError> {
    let tried = format_args!("fsetxattr {name} (the store's file system must have user attributes)");
    fsetxattr(file, name, value, XattrFlags::empty()).map_err(|error| failed(tried, error))
}

fn hide(folder: BorrowedFd<'_>) -> Result<(), UnpackError> {
    mark(folder, OPAQUE, b"y")
}

/// A folder in `parent`, and whether it is new. A new one is the maker's alone until its attributes are set.
fn make_folder(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(OwnedFd, bool), UnpackError> {
    let open = || open_folder(parent, name).map_err(|error| failed("openat2", error));
    if look(parent, name)?.is_some_and(|there| FileType::from_raw_mode(there.st_mode) == FileType::Directory) {
        return Ok((open()?, false));
    }
    let hidden = is_whiteout(parent, name)?;
    instead(parent, name, || mkdirat(parent, name, Mode::RWXU))?;
    let folder = open()?;
    if hidden {
        hide(folder.as_fd())?;
    }
    Ok((folder, true))
}

fn make_file(parent: BorrowedFd<'_>, name: &[u8]) -> Result<File, UnpackError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    instead(parent, name, || openat2(parent, name, flags, Mode::RUSR | Mode::WUSR, beneath())).map(File::from)
}

/// Makes something, in place of what is there unless that is a folder.
fn instead<T>(parent: BorrowedFd<'_>, name: &[u8], make: impl Fn() -> Result<T, Errno>) -> Result<T, UnpackError> {
    match make() {
        Err(Errno::EXIST) => {}
        made => return made.map_err(|error| failed("making it", error)),
    }
    clear(parent, name)?;
    make().map_err(|error| failed("making it", error))
}

fn clear(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), UnpackError> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => refused("there is a folder of that name before it"),
        Err(error) => Err(failed("unlinkat", error)),
    }
}

/// The owner first: a new one takes away bits of the mode.
fn set(file: BorrowedFd<'_>, attributes: Attributes) -> Result<(), UnpackError> {
    if let Some((uid, gid)) = attributes.owner {
        fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(|error| failed("fchown", error))?;
    }
    fchmod(file, Mode::from_raw_mode(attributes.mode)).map_err(|error| failed("fchmod", error))
}

fn finish_file(file: &File, attributes: Attributes) -> Result<(), UnpackError> {
    set(file.as_fd(), attributes)?;
    set_time(file.as_fd(), attributes.mtime)
}

fn set_time(file: BorrowedFd<'_>, (seconds, nanos): (i64, u32)) -> Result<(), UnpackError> {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    futimens(file, &Timestamps { last_access: time, last_modification: time }).map_err(|error| failed("futimens", error))
}

fn copy(from: &mut impl Read, to: &mut File) -> Result<u64, UnpackError> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut written = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(UnpackError::reading)?,
        };
        if read == 0 {
            return Ok(written);
        }
        to.write_all(&buffer[..read]).map_err(|error| failed("writing it", error))?;
        written += read as u64;
    }
}

fn duplicate(from: BorrowedFd<'_>, name: &[u8], parent: BorrowedFd<'_>, new: &[u8]) -> Result<u64, UnpackError> {
    let mut source = open_file(from, name).map_err(|error| failed("openat2", error))?;
    let there = fstat(&source).map_err(|error| failed("fstat", error))?;
    let mut file = make_file(parent, new)?;
    let written = copy(&mut source, &mut file)?;
    let mtime = (there.st_mtime, u32::try_from(there.st_mtime_nsec).unwrap_or(0));
    let owner = rustix::process::geteuid().is_root().then_some((there.st_uid, there.st_gid));
    finish_file(&file, Attributes { mode: there.st_mode & 0o7777, owner, mtime })?;
    Ok(written.next_multiple_of(BLOCK_BYTES))
}

fn failed(tried: impl std::fmt::Display, error: impl std::fmt::Display) -> UnpackError {
    UnpackError::failed(tried, error)
}

fn refused<T>(what: impl Into<String>) -> Result<T, UnpackError> {
    Err(UnpackError::refused(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_copy_in_place_of_a_link_is_like_the_file() {
        let dir = std::env::temp_dir().join(format!("skep-tree-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let root: OwnedFd = File::open(&dir).unwrap().into();
        let mut tree = Tree::new(root, Attributes { mode: 0o755, owner: None, mtime: (0, 0) }).unwrap();
        let at = |name: &str| Place::new(name.as_bytes(), &Limits::default()).unwrap().unwrap();
        tree.file(&at("a"), &mut [7; 5_000].as_slice(), 5_000, Attributes { mode: 0o640, owner: None, mtime: (5, 6) }).unwrap();
        let folder = File::open(&dir).unwrap();
        assert_eq!(duplicate(folder.as_fd(), b"a", folder.as_fd(), b"b").unwrap(), 8_192);
        let about = |name: &str| {
            std::fs::metadata(dir.join(name)).map(|file| (file.mode(), file.uid(), file.len(), file.mtime(), file.mtime_nsec()))
        };
        assert_eq!(about("b").unwrap(), about("a").unwrap());
        assert_eq!(std::fs::read(dir.join("b")).unwrap(), [7; 5_000]);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
