//! Bundles and compiled code on disk, and whether they are what their names say. All of it blocks.
//!
//! `bundles/SHA256` are bundles, `bundles/SHA256.part` ones that are still coming; `compiled/SHA256-METERING-COMPATIBILITY` is compiled code
//! and `….mac` the keyed BLAKE3 of its name and bytes, with a key of this agent: loading compiled code that somebody else wrote would be
//! running native code of theirs.

use protocol::{Digest, Metering};
use sha2::Digest as _;
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const READ_BYTES: usize = 256 << 10;

/// Where the files are, and the key that says which of the compiled ones are ours.
#[derive(Debug)]
pub struct Files {
    bundles: PathBuf,
    compiled: PathBuf,
    key: [u8; 32],
}

/// What a file was when it was found to be right: where any of it differs, somebody touched it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Files {
    /// The files under `dir`, which is made if it is not there. Executors of other users read them.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(dir: &Path, key: [u8; 32]) -> io::Result<Self> {
        let files = Self { bundles: dir.join("bundles"), compiled: dir.join("compiled"), key };
        for dir in [dir, &files.bundles, &files.compiled] {
            fs::create_dir_all(dir)?;
            fs::set_permissions(dir, Permissions::from_mode(0o755))?;
        }
        Ok(files)
    }

    /// Where a bundle is, if it is here.
    #[must_use]
    pub fn bundle(&self, digest: Digest) -> PathBuf {
        self.bundles.join(digest.to_string())
    }

    /// Where a bundle is while it comes.
    #[must_use]
    pub fn part(&self, digest: Digest) -> PathBuf {
        self.bundles.join(format!("{digest}.part"))
    }

    /// Where compiled code is, if it is here.
    #[must_use]
    pub fn compiled(&self, digest: Digest, metering: Metering, compatibility: u64) -> PathBuf {
        let metering = if metering == Metering::Fuel { "fuel" } else { "epoch" };
        self.compiled.join(format!("{digest}-{metering}-{compatibility:016x}"))
    }

    /// The folders that an executor must be able to read.
    #[must_use]
    pub fn folders(&self) -> Vec<PathBuf> {
        vec![self.bundles.clone(), self.compiled.clone()]
    }

    /// True where the bundle is here and is what its digest says; one that is not is removed.
    ///
    /// # Errors
    /// What the system says, other than that there is none.
    pub fn has_bundle(&self, digest: Digest) -> io::Result<bool> {
        let path = self.bundle(digest);
        let Some(found) = absent_is_none(sha256(&path))? else { return Ok(false) };
        if found != digest {
            tracing::error!(bundle = %digest, found = %found, "a cached bundle is damaged: it is thrown away");
            fs::remove_file(&path)?;
        }
        Ok(found == digest)
    }

    /// Makes what has come the bundle, where it is what its digest says; else it is removed and its digest given back.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish_part(&self, digest: Digest) -> io::Result<Result<(), Digest>> {
        let part = self.part(digest);
        let found = sha256(&part)?;
        if found != digest {
            fs::remove_file(&part)?;
            return Ok(Err(found));
        }
        File::open(&part)?.sync_all()?;
        fs::set_permissions(&part, Permissions::from_mode(0o644))?;
        fs::rename(&part, self.bundle(digest))?;
        Ok(Ok(()))
    }

    /// Takes `new`, which was compiled here, in place of `path`.
    ///
    /// # Errors
    /// What the system says.
    pub fn seal(&self, new: &Path, path: &Path) -> io::Result<()> {
        let mac = self.mac(new, path)?;
        fs::write(mac_path(path), mac.as_bytes())?;
        fs::set_permissions(new, Permissions::from_mode(0o644))?;
        fs::rename(new, path)
    }

    /// True where compiled code is at `path` and was compiled by this agent for this name; anything else is removed.
    ///
    /// # Errors
    /// What the system says, other than that there is none.
    pub fn is_sealed(&self, path: &Path) -> io::Result<bool> {
        let Some(mac) = absent_is_none(self.mac(path, path))? else { return Ok(false) };
        let said = absent_is_none(fs::read(mac_path(path)))?.unwrap_or_default();
        // blake3's own equality takes the same time wherever the difference is.
        let right = <[u8; 32]>::try_from(said).is_ok_and(|said| mac == said);
        if !right {
            tracing::error!(path = %path.display(), "cached compiled code is not what this agent compiled: it is thrown away");
            fs::remove_file(path)?;
        }
        Ok(right)
    }

    /// What is here: each bundle's digest, the bytes of all its files and the last time that one of them was written. What is left of
    /// interrupted writing, and compiled code without a bundle's name, is removed.
    ///
    /// # Errors
    /// What the system says.
    pub fn list(&self) -> io::Result<Vec<(Digest, u64, SystemTime)>> {
        let mut found: Vec<(Digest, u64, SystemTime)> = Vec::new();
        for entry in fs::read_dir(&self.bundles)?.chain(fs::read_dir(&self.compiled)?) {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let digest: Option<Digest> = name.get(..64).and_then(|digest| digest.parse().ok());
            let (Some(digest), false) = (digest, name.ends_with(".new")) else {
                tracing::warn!(path = %entry.path().display(), "removed from the cache: it has no bundle's name");
                fs::remove_file(entry.path())?;
                continue;
            };
            let metadata = entry.metadata()?;
            let modified = metadata.modified()?;
            match found.iter_mut().find(|(known, ..)| *known == digest) {
                Some((_, bytes, latest)) => (*bytes, *latest) = (*bytes + metadata.len(), (*latest).max(modified)),
                None => found.push((digest, metadata.len(), modified)),
            }
        }
        Ok(found)
    }

    /// The bytes of all files of a bundle.
    ///
    /// # Errors
    /// What the system says.
    pub fn bytes(&self, digest: Digest) -> io::Result<u64> {
        let paths = self.paths(digest)?;
        paths.iter().map(|path| fs::metadata(path).map(|metadata| metadata.len())).sum()
    }

    /// Removes all files of a bundle.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(&self, digest: Digest) -> io::Result<()> {
        self.paths(digest)?.iter().try_for_each(fs::remove_file)
    }

    fn paths(&self, digest: Digest) -> io::Result<Vec<PathBuf>> {
        let name = digest.to_string();
        let all = fs::read_dir(&self.bundles)?.chain(fs::read_dir(&self.compiled)?);
        let mut paths = Vec::new();
        for entry in all {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&name) {
                paths.push(entry.path());
            }
        }
        Ok(paths)
    }

    fn mac(&self, file: &Path, named: &Path) -> io::Result<blake3::Hash> {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        let name = named.file_name().unwrap_or_default().as_encoded_bytes();
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name);
        each_part(file, |part| {
            hasher.update(part);
        })?;
        Ok(hasher.finalize())
    }
}

impl Stamp {
    /// Of the file that is there now.
    ///
    /// # Errors
    /// What the system says.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

fn mac_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".mac");
    name.into()
}

fn sha256(path: &Path) -> io::Result<Digest> {
    let mut hash = sha2::Sha256::new();
    each_part(path, |part| hash.update(part))?;
    Ok(Digest(hash.finalize().into()))
}

fn each_part(path: &Path, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            bytes => take(&buffer[..bytes]),
        }
    }
}

fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_bundle_that_is_not_its_digest_is_never_kept() {
        let dir = Scratch::new();
        let files = Files::open(dir.path(), [7; 32]).unwrap();
        let digest = Digest::of(b"the right bytes");
        assert!(!files.has_bundle(digest).unwrap());
        fs::write(files.part(digest), b"the wrong bytes").unwrap();
        assert_eq!(files.finish_part(digest).unwrap(), Err(Digest::of(b"the wrong bytes")));
        assert!(!files.part(digest).exists() && !files.has_bundle(digest).unwrap());
        fs::write(files.part(digest), b"the right bytes").unwrap();
        assert_eq!(files.finish_part(digest).unwrap(), Ok(()));
        assert!(files.has_bundle(digest).unwrap());
        fs::write(files.bundle(digest), b"the right bytez").unwrap();
        assert!(!files.has_bundle(digest).unwrap() && !files.bundle(digest).exists());
    }

    #[test]
    fn compiled_code_is_taken_only_under_its_own_name_and_key() {
        let dir = Scratch::new();
        let files = Files::open(dir.path(), [7; 32]).unwrap();
        let (fuel, epoch) = ([Metering::Fuel, Metering::Epoch]).map(|metering| files.compiled(Digest([1; 32]), metering, 5)).into();
        let (fuel, epoch): (PathBuf, PathBuf) = (fuel, epoch);
        let seal = |path: &Path| {
            fs::write(dir.path().join("new"), b"code").unwrap();
            files.seal(&dir.path().join("new"), path).unwrap();
        };
        seal(&fuel);
        assert!(files.is_sealed(&fuel).unwrap() && !files.is_sealed(&epoch).unwrap());
        fs::copy(&fuel, &epoch).unwrap();
        fs::copy(mac_path(&fuel), mac_path(&epoch)).unwrap();
        assert!(!files.is_sealed(&epoch).unwrap() && !epoch.exists(), "another's name");
        for at in 0..4 {
            seal(&fuel);
            let mut code = b"code".to_vec();
            code[at] ^= 1;
            fs::write(&fuel, code).unwrap();
            assert!(!files.is_sealed(&fuel).unwrap(), "flipped at {at}");
        }
        seal(&fuel);
        let other = Files::open(dir.path(), [8; 32]).unwrap();
        assert!(!other.is_sealed(&fuel).unwrap(), "another's key");
        seal(&fuel);
        fs::remove_file(mac_path(&fuel)).unwrap();
        assert!(!files.is_sealed(&fuel).unwrap(), "no seal");
    }

    #[test]
    fn a_touched_file_has_another_stamp() {
        let dir = Scratch::new();
        let path = dir.path().join("file");
        fs::write(&path, b"one").unwrap();
        let before = Stamp::of(&path).unwrap();
        assert_eq!(Stamp::of(&path).unwrap(), before);
        fs::write(dir.path().join("other"), b"two").unwrap();
        fs::rename(dir.path().join("other"), &path).unwrap();
        assert_ne!(Stamp::of(&path).unwrap(), before);
    }

    #[test]
    fn what_is_listed_can_be_removed_and_strangers_are() {
        let dir = Scratch::new();
        let files = Files::open(dir.path(), [7; 32]).unwrap();
        let digest = Digest([3; 32]);
        fs::write(files.bundle(digest), b"12345").unwrap();
        fs::write(files.compiled(digest, Metering::Fuel, 1), b"123").unwrap();
        fs::write(dir.path().join("bundles/stranger"), b"x").unwrap();
        fs::write(dir.path().join(format!("compiled/{digest}.new")), b"x").unwrap();
        let listed = files.list().unwrap();
        assert_eq!((listed.len(), listed[0].0, listed[0].1), (1, digest, 8));
        assert_eq!(files.bytes(digest).unwrap(), 8);
        files.remove(digest).unwrap();
        assert!(files.list().unwrap().is_empty() && !dir.path().join("bundles/stranger").exists());
    }
}
