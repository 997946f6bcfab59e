//! The entries of one archive into one tree: a layer of an image, or a bundle. Knows what a layer's deletions look like (OCI image-spec,
//! layer.md, "Whiteouts") and which entries are let in; how they are written safely is the tree's.

use super::compressed::Source;
use super::entries::{Entries, Entry, Kind};
use super::tree::{Attributes, Grown, Place, Tree};
use super::{Limits, UnpackError, shown};
use rustix::fd::OwnedFd;

/// Before the name of what is gone.
const WHITEOUT: &[u8] = b".wh.";
/// Alone: all of the folder is gone. Before other names: notes of a file system that nobody needs.
const WHITEOUT_META: &[u8] = b".wh..wh.";
const WHITEOUT_ALL: &[u8] = b".wh..wh..opq";

/// What is being unpacked, and so what is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rules {
    /// A layer: with whiteouts, and owners where `owners`.
    Layer { owners: bool },
    /// A bundle: anybody may read it, nobody may write it, and no link leaves it.
    Bundle,
}

/// What became of an archive.
#[derive(Debug)]
pub(super) struct Took {
    pub(super) grown: Grown,
    /// Files, folders and links.
    pub(super) entries: u64,
    /// True where the archive had a mark at its end.
    pub(super) marked: bool,
}

/// A tree at `root` that follows `rules`.
///
/// # Errors
/// What the system says.
pub(super) fn tree(root: OwnedFd, rules: Rules) -> Result<Tree, UnpackError> {
    let owner = (rules == Rules::Layer { owners: true }).then_some((0, 0));
    Tree::new(root, Attributes { mode: 0o755, owner, mtime: (0, 0) })
}

/// Unpacks all entries.
///
/// # Errors
/// The first thing that is wrong, with the entry where it is.
pub(super) fn unpack(entries: &mut Entries<impl Source>, mut tree: Tree, rules: Rules, limits: &Limits) -> Result<Took, UnpackError> {
    let mut count = 0;
    while let Some(entry) = entries.next()? {
        count += 1;
        take(&entry, entries, &mut tree, rules, limits).map_err(|error| error.within(format_args!("entry {}", shown(&entry.path))))?;
        if count + tree.implied_count > limits.layer_entries_max {
            return Err(UnpackError::limit(format!("it has more than {} files, folders and links", limits.layer_entries_max)));
        }
    }
    let entries_taken = count + tree.implied_count;
    Ok(Took { grown: tree.finish()?, entries: entries_taken, marked: entries.is_marked() })
}

fn take(entry: &Entry, data: &mut Entries<impl Source>, tree: &mut Tree, rules: Rules, limits: &Limits) -> Result<(), UnpackError> {
    let place = Place::new(&entry.path, limits)?;
    let attributes = attributes(entry, rules);
    let Some(place) = place else {
        return match entry.kind {
            Kind::Folder => tree.folder(None, attributes),
            _ => refused("it is to be the root itself, and no folder"),
        };
    };
    if matches!(rules, Rules::Layer { .. }) && whiteout(&place, tree)? {
        return Ok(());
    }
    match entry.kind {
        Kind::Folder => tree.folder(Some(&place), attributes),
        Kind::File if entry.size > limits.layer_bytes_max => {
            Err(UnpackError::limit(format!("a file of {} bytes; at most {} are taken", entry.size, limits.layer_bytes_max)))
        }
        Kind::File => tree.file(&place, data, entry.size, attributes),
        Kind::Symlink => {
            may_point(&entry.link, &place, rules, limits)?;
            tree.symlink(&place, &entry.link, attributes.owner)
        }
        Kind::HardLink => {
            let target = Place::new(&entry.link, limits).map_err(|error| error.within(format_args!("link to {}", shown(&entry.link))))?;
            let Some(target) = target else { return refused("it is a hard link to a folder") };
            tree.hard_link(&place, &target, matches!(rules, Rules::Layer { .. }))
        }
        // A container gets a folder of its own there.
        Kind::Device | Kind::Fifo if matches!(rules, Rules::Layer { .. }) && in_dev(&place) => Ok(()),
        Kind::Device => refused("it is a device"),
        Kind::Fifo => refused("it is a FIFO"),
    }
}

/// Does what a whiteout says; false where it is none.
fn whiteout(place: &Place, tree: &mut Tree) -> Result<bool, UnpackError> {
    if place.folder.split(|byte| *byte == b'/').any(|part| part.starts_with(WHITEOUT)) {
        return refused("a folder on its way has the name of a whiteout");
    }
    let Some(hidden) = place.name.strip_prefix(WHITEOUT) else { return Ok(false) };
    if place.name == WHITEOUT_ALL {
        tree.opaque(&place.folder)?;
    } else if !place.name.starts_with(WHITEOUT_META) {
        if matches!(hidden, b"" | b"." | b"..") {
            return refused("a whiteout of nothing that could be there");
        }
        tree.whiteout(&place.beside(hidden))?;
    }
    Ok(true)
}

fn attributes(entry: &Entry, rules: Rules) -> Attributes {
    let (mode, owner) = match rules {
        Rules::Layer { owners: true } => (entry.mode & 0o1777, Some((entry.uid, entry.gid))),
        // So that the user can read and remove what is his.
        Rules::Layer { owners: false } => (entry.mode & 0o1777 | if entry.kind == Kind::Folder { 0o700 } else { 0o400 }, None),
        Rules::Bundle if entry.kind == Kind::Folder => (0o755, None),
        Rules::Bundle => (if entry.mode & 0o111 == 0 { 0o444 } else { 0o555 }, None),
    };
    Attributes { mode, owner, mtime: entry.mtime }
}

/// A symbolic link of an image is followed only by a container, whose root it cannot leave. One of a bundle is followed on the host's side
/// of things, so it may go up only to folders that are on its own way, and only at its beginning: whatever other links are there, it then
/// stays inside.
fn may_point(target: &[u8], place: &Place, rules: Rules, limits: &Limits) -> Result<(), UnpackError> {
    if target.is_empty() {
        return refused("it is a link to nothing");
    }
    if target.len() > limits.path_bytes_max {
        let (found, most) = (target.len(), limits.path_bytes_max);
        return Err(UnpackError::limit(format!("it is a link to a name of {found} bytes; at most {most} are taken")));
    }
    if rules != Rules::Bundle {
        return Ok(());
    }
    let leaves = || refused(format!("it is a link that may leave the bundle, to {}", shown(target)));
    if target.starts_with(b"/") {
        return leaves();
    }
    let parts: Vec<&[u8]> = target.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    let up = parts.iter().take_while(|part| **part == b"..").count();
    if up > place.depth || parts[up..].contains(&b"..".as_slice()) { leaves() } else { Ok(()) }
}

fn in_dev(place: &Place) -> bool {
    place.folder == b"dev" || place.folder.starts_with(b"dev/")
}

fn refused<T>(what: impl Into<String>) -> Result<T, UnpackError> {
    Err(UnpackError::refused(what))
}
