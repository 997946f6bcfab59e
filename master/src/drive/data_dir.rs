//! Where all that lasts of a master is: which file is where, who may be in it, and what was chosen when it was made.

use super::StartError;
use crate::journal;
use protocol::ids::SHARDS_MAX;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
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
        let path = self.path.join("shards");
        let wrong =
            |text: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{:?} is no number from 1 to {SHARDS_MAX}", text.trim()));
        match fs::read_to_string(&path) {
            Ok(text) => {
                let known = text.trim().parse().ok().filter(|shards| (1..=SHARDS_MAX).contains(shards));
                known.ok_or_else(|| StartError::data("read", &path, wrong(&text)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let wanted = wanted.clamp(1, SHARDS_MAX);
                self.write("shards", format!("{wanted}\n").as_bytes())?;
                Ok(wanted)
            }
            Err(error) => Err(StartError::data("read", &path, error)),
        }
    }

    /// Writes a small file that only its owner may read, whole and durable.
    ///
    /// # Errors
    /// [`StartError::Data`].
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StartError> {
        let path = self.path.join(name);
        let scratch = path.with_extension("new");
        let write = || {
            let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&scratch)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&scratch, &path)?;
            journal::sync_dir(&self.path)
        };
        write().map_err(|error| StartError::data("write", &path, error))
    }

    /// The first administrator's token.
    pub fn admin_token(&self) -> PathBuf {
        self.path.join(ADMIN_TOKEN)
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

/// Name of the file with the first administrator's token.
pub const ADMIN_TOKEN: &str = "admin.token";
/// Name of the file with the cluster's root certificate, for those who call over HTTPS.
pub const ROOT_PEM: &str = "root.pem";
