//! The bundles of this master: one file for each, named by its SHA-256, written whole or not at all. Knows files and digests; not what a
//! bundle is for, nor who may upload one. Its calls block: whoever is on the deciding thread makes them elsewhere.

use protocol::Digest;
use sha2::Digest as _;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most bytes of one bundle unless the master is told otherwise.
pub const BUNDLE_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// A folder of bundles; cheap to clone.
#[derive(Clone, Debug)]
pub struct Bundles {
    folder: Arc<Folder>,
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    bytes_max: u64,
    /// Makes the names of unfinished uploads differ.
    uploads: AtomicU64,
}

/// Why a bundle could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It is longer than the master takes.
    #[error("a bundle of more than {bytes_max} bytes: that is the most this master takes")]
    TooLong {
        /// The most.
        bytes_max: u64,
    },
    /// Its bytes are not those that were announced.
    #[error("the bytes have the digest sha256:{found}, and not sha256:{expected}")]
    Digest {
        /// What was announced.
        expected: Digest,
        /// What the bytes have.
        found: Digest,
    },
    /// The disk would not.
    #[error("cannot store the bundle in {path}: {error}")]
    Disk {
        /// Where.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

impl Bundles {
    /// The bundles in `folder`, which is made where it is missing; uploads that a crash left unfinished are removed. One bundle has at
    /// most `bytes_max` bytes.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(folder: &Path, bytes_max: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(UPLOAD_PREFIX) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { folder: Arc::new(Folder { path: folder.to_owned(), bytes_max, uploads: AtomicU64::new(0) }) })
    }

    /// Where the bundle of this digest is, if it is here.
    #[must_use]
    pub fn path(&self, digest: Digest) -> PathBuf {
        self.folder.path.join(digest.to_string())
    }

    /// How long the bundle is; `None` where it is not here.
    #[must_use]
    pub fn length(&self, digest: Digest) -> Option<u64> {
        let about = fs::metadata(self.path(digest)).ok()?;
        about.is_file().then_some(about.len())
    }

    /// The digests of all that is here; what cannot be read is left out.
    #[must_use]
    pub fn list(&self) -> Vec<Digest> {
        let names = fs::read_dir(&self.folder.path).into_iter().flatten().filter_map(Result::ok);
        names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// Most bytes of one bundle.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.folder.bytes_max
    }

    /// Begins a bundle. What is dropped before [`Upload::finish`] leaves nothing behind.
    ///
    /// # Errors
    /// [`BundleError::Disk`].
    pub fn create(&self) -> Result<Upload, BundleError> {
        let number = self.folder.uploads.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.path.join(format!("{UPLOAD_PREFIX}{}-{number}", std::process::id()));
        let opened = File::options().write(true).create_new(true).open(&path);
        let file = opened.map_err(|error| BundleError::Disk { path: path.clone(), error })?;
        Ok(Upload { bundles: self.clone(), file, path, hash: sha2::Sha256::new(), bytes: 0, kept: false })
    }
}

/// First part of the names of unfinished uploads: no digest begins so.
const UPLOAD_PREFIX: &str = "upload-";

/// A bundle on its way in.
#[derive(Debug)]
pub struct Upload {
    bundles: Bundles,
    file: File,
    path: PathBuf,
    hash: sha2::Sha256,
    bytes: u64,
    kept: bool,
}

impl Upload {
    /// Appends `bytes`.
    ///
    /// # Errors
    /// [`BundleError::TooLong`], [`BundleError::Disk`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BundleError> {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        let bytes_max = self.bundles.bytes_max();
        if self.bytes > bytes_max {
            return Err(BundleError::TooLong { bytes_max });
        }
        self.hash.update(bytes);
        self.file.write_all(bytes).map_err(|error| self.disk(error))
    }

    /// Puts the bundle in its place: flushed, renamed, and the folder flushed. Returns its digest and its length.
    ///
    /// # Errors
    /// [`BundleError::Digest`] where `expected` is said and differs, [`BundleError::Disk`].
    pub fn finish(mut self, expected: Option<Digest>) -> Result<(Digest, u64), BundleError> {
        let found = Digest(self.hash.clone().finalize().into());
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(BundleError::Digest { expected, found });
        }
        self.place(found).map_err(|error| self.disk(error))?;
        self.kept = true;
        Ok((found, self.bytes))
    }

    fn place(&self, digest: Digest) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, self.bundles.path(digest))?;
        File::open(&self.bundles.folder.path)?.sync_all()
    }

    fn disk(&self, error: io::Error) -> BundleError {
        BundleError::Disk { path: self.path.clone(), error }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.kept {
            // Nobody can be told; the next start removes what is left.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::Folder as Temporary;

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_bundle_is_there_whole_or_not_at_all() {
        let folder = Temporary::new();
        let bundles = Bundles::open(folder.path(), 8).unwrap();
        let digest = Digest::of(b"12345678");

        let mut upload = bundles.create().unwrap();
        upload.write(b"1234").unwrap();
        assert_eq!(bundles.length(digest), None);
        upload.write(b"5678").unwrap();
        assert_eq!(upload.finish(Some(digest)).unwrap(), (digest, 8));
        assert_eq!(fs::read(bundles.path(digest)).unwrap(), b"12345678");

        let mut long = bundles.create().unwrap();
        assert!(matches!(long.write(b"123456789"), Err(BundleError::TooLong { bytes_max: 8 })));
        drop(long);
        let mut other = bundles.create().unwrap();
        other.write(b"x").unwrap();
        assert!(matches!(other.finish(Some(digest)), Err(BundleError::Digest { .. })));
        assert_eq!(names(folder.path()), [digest.to_string()]);
    }

    #[test]
    fn an_upload_that_a_crash_left_is_removed_at_the_next_start() {
        let folder = Temporary::new();
        fs::write(folder.path().join("upload-1-0"), b"torn").unwrap();
        Bundles::open(folder.path(), 8).unwrap();
        assert!(names(folder.path()).is_empty());
    }
}
