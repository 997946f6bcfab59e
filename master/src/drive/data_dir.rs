//! Where all that lasts of a master is: which file is where, who may be in it, and what was chosen when it was made.

use super::StartError;
use crate::journal;
use crate::shard::event::Master;
use protocol::ids::SHARDS_MAX;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A data directory, held by this process alone for as long as this value lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Takes the directory, and makes it where it is missing.
    ///
    /// # Errors
    /// [`StartError::Locked`] where another process has it, [`StartError::Data`].
    pub fn open(path: &Path) -> Result<Self, StartError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| StartError::data("make", path, error))?;
        let lock = path.join("lock");
        let failed = |error| StartError::data("lock", &lock, error);
        let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(&lock).map_err(failed)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::Locked { path: path.to_owned() }),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// How many shards the cluster has; `wanted` where it is new.
    ///
    /// # Errors
    /// [`StartError::Data`], also where the file holds no number of shards.
    pub fn shards(&self, wanted: u16) -> Result<u16, StartError> {
        let wanted = wanted.clamp(1, SHARDS_MAX);
        match self.number("shards", 1..=SHARDS_MAX)? {
            Some(known) => Ok(known),
            None => self.write("shards", format!("{wanted}\n").as_bytes()).map(|()| wanted),
        }
    }

    /// Which master this is; `None` where the directory is of none yet. One that has been a master before its masters had numbers is the
    /// first.
    ///
    /// # Errors
    /// [`StartError::Data`], and [`StartError::Lost`] where the journal of a master that had one is gone: without it this master would
    /// forget what it has promised to others.
    pub fn member(&self) -> Result<Option<u16>, StartError> {
        let has_journal = self.journal().try_exists().map_err(|error| StartError::data("look for", &self.journal(), error))?;
        match self.number(MEMBER, 1..=u16::MAX)? {
            Some(number) if has_journal => Ok(Some(number)),
            Some(number) => Err(StartError::Lost { number, path: self.journal() }),
            None if has_journal => Ok(Some(self.number(JOINING, 1..=u16::MAX)?.unwrap_or(1))),
            None => self.number(JOINING, 1..=u16::MAX),
        }
    }

    /// Keeps which master this is, from before its journal is made (`begun`) and from then on.
    ///
    /// # Errors
    /// [`StartError::Data`].
    pub fn set_member(&self, number: u16, begun: bool) -> Result<(), StartError> {
        self.write(if begun { MEMBER } else { JOINING }, format!("{number}\n").as_bytes())
    }

    /// The other masters, as they were when this one ran last.
    ///
    /// # Errors
    /// [`StartError::Data`].
    pub fn masters(&self) -> Result<Vec<Master>, StartError> {
        let path = self.masters_file();
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| StartError::data("read", &path, error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(StartError::data("read", &path, error)),
        }
    }

    /// A number in a small file; `None` where there is no such file.
    fn number(&self, name: &str, range: RangeInclusive<u16>) -> Result<Option<u16>, StartError> {
        let path = self.path.join(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StartError::data("read", &path, error)),
        };
        let wrong = || {
            let reason = format!("{:?} is no number from {} to {}", text.trim(), range.start(), range.end());
            StartError::data("read", &path, io::Error::new(io::ErrorKind::InvalidData, reason))
        };
        text.trim().parse().ok().filter(|number| range.contains(number)).map(Some).ok_or_else(wrong)
    }

    /// Writes a small file that only its owner may read, whole and durable.
    ///
    /// # Errors
    /// [`StartError::Data`].
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StartError> {
        write(&self.path.join(name), bytes)
    }

    /// The first administrator's token.
    pub fn admin_token(&self) -> PathBuf {
        self.path.join(ADMIN_TOKEN)
    }

    /// Where the other masters are.
    pub fn masters_file(&self) -> PathBuf {
        self.path.join("masters.json")
    }

    /// The journal's segments.
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// The shards' snapshots.
    pub fn snapshots(&self) -> PathBuf {
        self.path.join("snapshots")
    }

    /// The bundles.
    pub fn bundles(&self) -> PathBuf {
        self.path.join("bundles")
    }

    /// The cluster's authority.
    pub fn authority(&self) -> PathBuf {
        self.path.join("authority")
    }
}

/// As [`DataDir::write`].
///
/// # Errors
/// [`StartError::Data`].
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), StartError> {
    let scratch = path.with_extension("new");
    let write = || {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&scratch)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&scratch, path)?;
        path.parent().map_or(Ok(()), journal::sync_dir)
    };
    write().map_err(|error| StartError::data("write", path, error))
}

/// Name of the file that says which master this is, and of the one that says which it is to be.
const MEMBER: &str = "member";
const JOINING: &str = "joining";
/// Name of the file with the first administrator's token.
pub const ADMIN_TOKEN: &str = "admin.token";
/// Name of the file with the cluster's root certificate, for those who call over HTTPS.
pub const ROOT_PEM: &str = "root.pem";
