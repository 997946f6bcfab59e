//! A whole cluster in one file, and a cluster from it. The file is a tar archive: `backup.json` first, then what masters certify with, each
//! shard's snapshot, and the bundles. It holds the cluster's secrets: whoever has it can be a master.

use super::data_dir::DataDir;
use super::{FIRST, StartError};
use crate::http::bundles::{BundleError, Bundles};
use crate::journal::{self, JournalError, LogConfig};
use crate::shard::ShardConfig;
use protocol::identity::Authority;
use protocol::{Digest, ShardId};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Version of the archive.
const VERSION: u32 = 1;
/// Longest `backup.json`.
const HEAD_BYTES_MAX: u64 = 1 << 20;
/// Longest file of the authority.
const PEM_BYTES_MAX: u64 = 1 << 16;

/// What is done with the archive, in [`RestoreError::Io`].
const READ: &str = "read";

/// The files of the authority that go along: all but the root's key, which is needed for a new intermediate only.
const AUTHORITY: [&str; 2] = ["root.pem", "intermediate.pem"];

/// What stands first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The version of the archive.
    pub version: u32,
    /// The cluster's name.
    pub cluster: String,
    /// How many shards it has.
    pub shards: u16,
    /// When it was made, in milliseconds of the Unix epoch.
    pub made_ms: u64,
    /// The version of the binary that made it.
    pub binary: String,
}

/// Why there is no cluster to be had from an archive.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The archive cannot be read, or a file of it not written.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something is there already.
    #[error("{} is not empty: a cluster is restored to a new directory", path.display())]
    NotEmpty {
        /// Where.
        path: PathBuf,
    },
    /// It is no backup, or not a whole one.
    #[error("this is no whole backup of a cluster: {reason}\nhelp: take one that `skep masters backup` has written to its end")]
    NoBackup {
        /// Why not.
        reason: String,
    },
    /// It was made by a newer version.
    #[error("the backup has version {found}, this binary knows {VERSION}: use the binary that made it")]
    Newer {
        /// Its version.
        found: u32,
    },
    /// A bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A snapshot.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The directory.
    #[error(transparent)]
    Start(#[from] StartError),
    /// What masters certify with.
    #[error(transparent)]
    Identity(#[from] protocol::identity::IdentityError),
}

/// What goes into an archive.
pub struct Contents {
    /// Its head.
    pub head: Head,
    /// The master's data directory.
    pub data_dir: PathBuf,
    /// Each shard's snapshot, opened.
    pub snapshots: Vec<File>,
    /// The bundles.
    pub bundles: Bundles,
}

/// Writes an archive. Blocks.
///
/// # Errors
/// What the system says.
pub fn write(contents: Contents, to: impl Write) -> io::Result<()> {
    let Contents { head, data_dir, snapshots, bundles } = contents;
    let mut archive = tar::Builder::new(to);
    let json = serde_json::to_vec_pretty(&head).expect("a head has text for keys");
    append(&mut archive, "backup.json", json.len() as u64, json.as_slice())?;
    for name in AUTHORITY {
        let file = File::open(data_dir.join("authority").join(name))?;
        append(&mut archive, &format!("authority/{name}"), file.metadata()?.len(), file)?;
    }
    for (shard, file) in snapshots.into_iter().enumerate() {
        append(&mut archive, &format!("snapshots/{shard}"), file.metadata()?.len(), file)?;
    }
    for bundle in bundles.list() {
        let file = File::open(bundles.path(bundle))?;
        append(&mut archive, &format!("bundles/{bundle}"), file.metadata()?.len(), file)?;
    }
    archive.finish()
}

fn append(archive: &mut tar::Builder<impl Write>, name: &str, bytes: u64, content: impl Read) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes);
    header.set_mode(0o600);
    header.set_entry_type(tar::EntryType::Regular);
    archive.append_data(&mut header, name, content.take(bytes))
}

/// Makes the data directory of a cluster's first and only master from an archive: what was on record when it was made is so again. Blocks.
///
/// # Errors
/// [`RestoreError`]; the directory is then empty, or as missing as it was.
pub fn restore(from: impl Read, to: &Path) -> Result<Head, RestoreError> {
    let there = match fs::read_dir(to).map(|mut entries| entries.next().is_some()) {
        Ok(true) => return Err(RestoreError::NotEmpty { path: to.to_owned() }),
        found => found.is_ok(),
    };
    let data = DataDir::open(to)?;
    let mut source = Source { from, failed: false };
    let restored = unpack(&mut source, &data);
    if restored.is_err() {
        // What cannot be removed is named by the next try: the directory is not empty.
        let _ = if there { clear(to) } else { fs::remove_dir_all(to) };
    }
    restored.map_err(|error| match error {
        RestoreError::Io { doing: READ, path, source: why } if !source.failed => {
            no_backup(format!("{}: {}", path.display(), why.to_string().escape_debug()))
        }
        error => error,
    })
}

/// Where the archive comes from, and whether that failed: else what cannot be read is the archive's fault.
struct Source<R> {
    from: R,
    failed: bool,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(into);
        self.failed |= read.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted);
        read
    }
}

fn clear(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}

fn unpack(from: impl Read, data: &DataDir) -> Result<Head, RestoreError> {
    let mut archive = tar::Archive::new(from);
    let (mut head, mut authority, mut found) = (None, Vec::new(), 0);
    let bundles = Bundles::open(&data.bundles(), u64::MAX).map_err(failed("make", &data.bundles()))?;
    fs::create_dir_all(data.snapshots()).map_err(failed("make", &data.snapshots()))?;
    for entry in archive.entries().map_err(failed(READ, Path::new("the archive")))? {
        let mut entry = entry.map_err(failed(READ, Path::new("the archive")))?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let bytes = entry.size();
        let read = match (name.split_once('/'), &head) {
            (None, None) if name == "backup.json" => {
                let json = text(&mut entry, HEAD_BYTES_MAX).map_err(failed(READ, Path::new(&name)))?;
                head = Some(parse(&json)?);
                json.len() as u64
            }
            (Some(("authority", file)), Some(_)) if AUTHORITY.contains(&file) => {
                let pem = text(&mut entry, PEM_BYTES_MAX).map_err(failed(READ, Path::new(&name)))?;
                let bytes = pem.len() as u64;
                authority.push((file.to_owned(), pem));
                bytes
            }
            (Some(("snapshots", shard)), Some(head)) if shard.parse::<u16>().is_ok_and(|shard| shard < head.shards) => {
                let path = journal::snapshot_path(&data.snapshots(), shard.parse().expect("it was just parsed"));
                found += 1;
                io::copy(&mut entry, &mut private(&path).map_err(failed("make", &path))?).map_err(failed(READ, Path::new(&name)))?
            }
            (Some(("bundles", digest)), Some(_)) => {
                let digest: Digest = digest.parse().map_err(|_| no_backup(format!("{digest} is no digest")))?;
                let mut upload = bundles.create()?;
                let read = copy(&mut entry, |piece| upload.write(piece), &name)?;
                if read == bytes {
                    upload.finish(Some(digest))?;
                }
                read
            }
            _ => return Err(no_backup(format!("{name:?} stands in it"))),
        };
        if read != bytes {
            return Err(no_backup(format!("it broke off in {name}")));
        }
    }
    let head = head.ok_or_else(|| no_backup("it is empty".into()))?;
    if found != head.shards
        || authority.len() != AUTHORITY.len()
        || !ends(archive.into_inner()).map_err(failed(READ, Path::new("the archive")))?
    {
        return Err(no_backup("it broke off".into()));
    }
    finish(data, &head, &authority)?;
    Ok(head)
}

fn copy(entry: &mut impl Read, mut write: impl FnMut(&[u8]) -> Result<(), BundleError>, name: &str) -> Result<u64, RestoreError> {
    let mut bytes = vec![0; 256 << 10];
    let mut read = 0;
    loop {
        let n = entry.read(&mut bytes).map_err(failed(READ, Path::new(name)))?;
        if n == 0 {
            return Ok(read);
        }
        write(&bytes[..n])?;
        read += n as u64;
    }
}

/// An archive ends with two blocks of zeros (POSIX, pax, *ustar Interchange Format*), of which the first was read: without the second it may
/// have broken off between two bundles.
fn ends(mut rest: impl Read) -> io::Result<bool> {
    let mut block = [1; 512];
    match rest.read_exact(&mut block) {
        Ok(()) => Ok(block == [0; 512]),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RestoreError {
    move |source| RestoreError::Io { doing, path: path.to_owned(), source }
}

/// Makes what was unpacked a master's.
fn finish(data: &DataDir, head: &Head, authority: &[(String, String)]) -> Result<(), RestoreError> {
    let dir = data.authority();
    fs::create_dir(&dir).map_err(failed("make", &dir))?;
    for (name, text) in authority {
        let path = dir.join(name);
        private(&path).and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed("write", &path))?;
    }
    Authority::open_or_create(&dir)?;
    data.shards(head.shards)?;
    let configs = (0..head.shards).map(|shard| ShardConfig { id: ShardId(shard), shards: head.shards, ..ShardConfig::default() });
    journal::found_from_snapshots(&data.journal(), &data.snapshots(), configs, LogConfig::default(), u64::from(FIRST))?;
    data.set_member(FIRST, true)?;
    Ok(())
}

fn parse(text: &str) -> Result<Head, RestoreError> {
    let head: Head = serde_json::from_str(text).map_err(|error| no_backup(format!("its head: {error}")))?;
    match head.version {
        VERSION if (1..=protocol::ids::SHARDS_MAX).contains(&head.shards) => Ok(head),
        VERSION => Err(no_backup(format!("{} shards", head.shards))),
        found => Err(RestoreError::Newer { found }),
    }
}

fn no_backup(reason: String) -> RestoreError {
    RestoreError::NoBackup { reason }
}

fn text(entry: &mut impl Read, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    entry.take(bytes_max).read_to_string(&mut text)?;
    Ok(text)
}

/// A new file for its owner alone.
fn private(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}
