//! Snapshots on disk: one file for each shard, written beside the old one and exchanged for it whole.
//!
//! A file is its magic, a little-endian `u32` that counts the head's bytes, the head and the state in postcard, and a BLAKE3 hash of all that.

use super::JournalError;
use super::raft::Members;
use super::segment::sync_dir;
use crate::shard::ShardSnapshot;
use openraft::SnapshotMeta;
use protocol::Time;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"SKEPSNP1";
const HASH_BYTES: usize = 32;

/// The engine's words for a snapshot.
pub type Meta = SnapshotMeta<u64, openraft::BasicNode>;

/// What stands before the state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Head {
    /// Up to which entry it reaches, and who the members are.
    pub meta: Meta,
    /// The latest moment in the records up to there.
    pub latest: Time,
}

/// A snapshot as it was read.
#[derive(Debug)]
pub struct Stored {
    /// Its head.
    pub head: Head,
    /// The shard's lasting state.
    pub state: ShardSnapshot,
    /// Bytes of its file.
    pub bytes: u64,
}

/// The file of a shard's snapshot.
pub fn path(dir: &Path, shard: u16) -> PathBuf {
    dir.join(format!("{shard:04x}.snapshot"))
}

/// Reads a snapshot; `None` where there is none.
///
/// # Errors
/// [`JournalError::Io`]; [`JournalError::Damaged`] where its hash is another or it cannot be understood.
pub fn load(path: &Path) -> Result<Option<Stored>, JournalError> {
    match fs::read(path) {
        Ok(bytes) => parse(path, &bytes).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(JournalError::io("read", path, error)),
    }
}

/// Reads what stands before the state; `None` where there is no snapshot. Whether the state is whole is [`load`]'s to say.
///
/// # Errors
/// As [`load`].
pub fn load_head(path: &Path) -> Result<Option<Head>, JournalError> {
    let read = || {
        let mut file = fs::File::open(path)?;
        let mut start = [0; MAGIC.len() + 4];
        file.read_exact(&mut start)?;
        let length = u32::from_le_bytes(start[MAGIC.len()..].try_into().expect("4 bytes are 4 bytes"));
        let mut head = Vec::new();
        file.take(u64::from(length)).read_to_end(&mut head)?;
        io::Result::Ok(head)
    };
    match read() {
        Ok(head) => {
            let damaged = |_| JournalError::Damaged { path: path.to_owned(), offset: 0, what: "it cannot be understood" };
            postcard::from_bytes(&head).map(Some).map_err(damaged)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(JournalError::io("read", path, error)),
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Stored, JournalError> {
    let damaged = |what| JournalError::Damaged { path: path.to_owned(), offset: 0, what };
    let (content, hash) = bytes.split_at_checked(bytes.len().saturating_sub(HASH_BYTES)).ok_or_else(|| damaged("it is too short"))?;
    if blake3::hash(content).as_bytes() != hash {
        return Err(damaged("its hash is another than when it was written"));
    }
    let unreadable = || damaged("it cannot be understood");
    let rest = content.strip_prefix(&MAGIC).ok_or_else(unreadable)?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(unreadable)?;
    let (head, state) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(unreadable)?;
    let head = postcard::from_bytes(head).map_err(|_| unreadable())?;
    let state = ShardSnapshot::decode(state).ok_or_else(unreadable)?;
    Ok(Stored { head, state, bytes: bytes.len() as u64 })
}

/// Writes a snapshot in place of the one that was there; returns its bytes.
///
/// # Errors
/// [`JournalError::Io`]; the old one is then still there.
pub fn save(path: &Path, head: &Head, state: &ShardSnapshot) -> Result<u64, JournalError> {
    let encoded = "snapshots have no type that postcard cannot write";
    let head = postcard::to_allocvec(head).expect(encoded);
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&u32::try_from(head.len()).expect("a head is small").to_le_bytes());
    bytes.extend_from_slice(&head);
    let mut bytes = postcard::to_extend(state, bytes).expect(encoded);
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    exchange(path, |file| file.write_all(&bytes))?;
    Ok(bytes.len() as u64)
}

/// Writes a file beside `path`, makes it durable and gives it that name.
pub fn exchange(path: &Path, write: impl FnOnce(&mut fs::File) -> io::Result<()>) -> Result<(), JournalError> {
    let scratch = path.with_extension("new");
    let exchange = || {
        let mut file = fs::File::create(&scratch)?;
        write(&mut file)?;
        file.sync_all()?;
        fs::rename(&scratch, path)?;
        sync_dir(path.parent().expect("a snapshot is in a directory"))
    };
    exchange().map_err(|error| JournalError::io("write", path, error))
}

/// The meta of a snapshot that reaches up to `last`.
pub fn meta(last: Option<super::raft::EntryId>, members: Members) -> Meta {
    let snapshot_id = last.map_or_else(String::new, |last| format!("{}-{}-{}", last.leader_id.term, last.leader_id.node_id, last.index));
    Meta { last_log_id: last, last_membership: members, snapshot_id }
}
