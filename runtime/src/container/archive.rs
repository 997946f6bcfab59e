//! The members of an uncompressed tar archive, found without unpacking it. Knows names and where their bytes are.

use super::compressed::Window;
use super::entries::{Entries, Kind};
use super::{UnpackError, shown};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

/// Members of an archive that holds an image: some for each layer.
const MEMBERS_MAX: usize = 10_000;
/// Links that are followed from one name to the next.
const LINKS_MAX: usize = 8;

enum Member {
    File { at: u64, bytes: u64 },
    Link(String),
}

/// An archive and where its members are.
pub(super) struct Archive<'a> {
    file: &'a File,
    members: BTreeMap<String, Member>,
}

impl<'a> Archive<'a> {
    /// # Errors
    /// Where it is no tar archive, is cut, or has one name twice.
    pub(super) fn open(file: &'a File, bytes: u64) -> Result<Self, UnpackError> {
        let mut members = BTreeMap::new();
        let mut entries = Entries::new(Window::new(file, 0, bytes));
        let mut count = 0;
        while let Some(entry) = entries.next()? {
            count += 1;
            if count > MEMBERS_MAX {
                return Err(UnpackError::limit(format!("it has more than {MEMBERS_MAX} members, more than an image needs")));
            }
            // Names of blobs are plain.
            let Some(name) = std::str::from_utf8(&entry.path).ok().and_then(|path| normal("", path)) else { continue };
            let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            let link = |from: &str| std::str::from_utf8(&entry.link).ok().and_then(|link| normal(from, link)).map(Member::Link);
            let member = match entry.kind {
                Kind::File => Some(Member::File { at: entries.data_at(), bytes: entry.size }),
                Kind::Symlink => link(folder),
                Kind::HardLink => link(""),
                Kind::Folder | Kind::Device | Kind::Fifo => None,
            };
            if let Some(member) = member
                && members.insert(name, member).is_some()
            {
                return Err(UnpackError::refused(format!("it has two members that are called {}", shown(&entry.path))));
            }
        }
        if !entries.is_marked() {
            return Err(UnpackError::refused("it ends without the mark of an archive's end: it was cut"));
        }
        Ok(Self { file, members })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// The bytes of a member.
    ///
    /// # Errors
    /// Where there is none of that name.
    pub(super) fn find(&self, name: &str) -> Result<Window<'a>, UnpackError> {
        let missing = || UnpackError::refused(format!("{} is not in it", shown(name.as_bytes())));
        let mut name = normal("", name).ok_or_else(missing)?;
        for _ in 0..LINKS_MAX {
            match self.members.get(&name).ok_or_else(missing)? {
                Member::File { at, bytes } => return Ok(Window::new(self.file, *at, *bytes)),
                Member::Link(next) => name.clone_from(next),
            }
        }
        Err(missing())
    }

    /// The bytes of a small member.
    ///
    /// # Errors
    /// Where there is none of that name, or it is longer than `bytes_max`.
    pub(super) fn read(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>, UnpackError> {
        let mut from = self.find(name)?;
        if from.len() > bytes_max {
            let found = from.len();
            return Err(UnpackError::limit(format!("{} has {found} bytes; at most {bytes_max} are read", shown(name.as_bytes()))));
        }
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).map_err(UnpackError::reading)?;
        Ok(bytes)
    }
}

/// `path` as seen from `folder`, without `.` and `..`; `None` where it leaves the archive or is nothing.
fn normal(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = vec![];
    for part in folder.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}
