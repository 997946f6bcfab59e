//! Torn tails are cut, whatever was cut off; what was durable and is other now is refused, never replayed.

use super::{Scratch, all, append, config, entries, id, open};
use crate::journal::raft::{Batch, Entry};
use crate::journal::store::Store;
use crate::journal::{JournalError, Log};
use openraft::EntryPayload;
use openraft::storage::RaftLogStorageExt;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn segment(dir: &Path) -> PathBuf {
    dir.join("0000000000000001.log")
}

/// A log of one small segment, and how many of its bytes are used. Without the mark that it was closed: as a crash leaves it.
async fn small(dir: &Path, flushes: u64) -> (Vec<u8>, usize) {
    let log = open(dir);
    for index in 0..flushes {
        append(&log, 0, index * 2..index * 2 + 2).await;
    }
    let bytes = fs::read(segment(dir)).unwrap();
    drop(log);
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    (bytes[..used].to_vec(), used)
}

/// Writes `bytes` as the only segment of a log of `length` bytes, and opens it.
async fn replay(bytes: &[u8], length: usize) -> Result<Vec<Entry>, JournalError> {
    let dir = Scratch::new();
    let mut whole = bytes.to_vec();
    whole.resize(length.max(bytes.len()), 0);
    fs::write(segment(&dir.0), whole).unwrap();
    let log = Arc::new(Log::open(&dir.0, 2, config())?);
    Ok(all(&log, 0).await)
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_is_cut_and_writing_goes_on() {
    let dir = Scratch::new();
    let (bytes, used) = small(&dir.0, 3).await;
    let (_, start) = small(&Scratch::new().0, 2).await;
    for cut in start..used {
        // The file's end is lost, or was never written.
        for length in [cut, cut + 4_096] {
            let got = replay(&bytes[..cut], length).await.unwrap();
            assert_eq!(got, entries(0..4), "cut at {cut} of {used}, {length} bytes");
        }
    }
    assert_eq!(replay(&bytes, used + 4_096).await.unwrap(), entries(0..6));

    let dir = Scratch::new();
    fs::write(segment(&dir.0), &bytes[..used - 3]).unwrap();
    let log = open(&dir.0);
    append(&log, 0, 4..9).await;
    drop(log);
    assert_eq!(all(&open(&dir.0), 0).await, entries(0..9));
}

#[tokio::test]
async fn no_flipped_byte_is_ever_replayed() {
    let dir = Scratch::new();
    let (bytes, used) = small(&dir.0, 4).await;
    let (mut refused, mut cut) = (0, 0);
    for at in 0..used {
        let mut other = bytes.clone();
        other[at] ^= 0x41;
        match replay(&other, used + 4_096).await {
            // Damage in the last frame looks like one that was never finished.
            Ok(got) => {
                assert!(entries(0..8).starts_with(&got) && got.len() >= 6 && got.len() % 2 == 0, "byte {at}: {} entries", got.len());
                cut += usize::from(got.len() < 8);
            }
            Err(JournalError::Damaged { path, offset, .. }) => {
                assert!(path.ends_with("0000000000000001.log") && offset <= at as u64, "byte {at}: {offset}");
                refused += 1;
            }
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    assert!(refused > used / 2 && cut > 0, "{refused} refused and {cut} cut of {used}");
}

#[tokio::test]
async fn a_log_that_was_closed_is_refused_where_its_last_entry_is_damaged() {
    let dir = Scratch::new();
    let log = open(&dir.0);
    append(&log, 0, 0..1).await;
    append(&log, 0, 1..2).await;
    let bytes = fs::read(segment(&dir.0)).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    drop(log);
    let file = fs::File::options().write(true).open(segment(&dir.0)).unwrap();
    file.write_all_at(&[!bytes[used]], used as u64).unwrap();
    let error = Log::open(&dir.0, 2, config()).unwrap_err();
    assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("0000000000000001.log at byte") && text.contains("restore"), "{text}");
}

#[tokio::test]
async fn a_log_with_a_segment_missing_or_damaged_at_its_end_is_refused() {
    let dir = Scratch::new();
    let log = open(&dir.0);
    let mut index = 0;
    while *log.segment().borrow() < 4 {
        append(&log, 0, index..index + 5_000).await;
        index += 5_000;
    }
    drop(log);
    let second = dir.0.join("0000000000000002.log");
    let whole = fs::read(&second).unwrap();
    // The last frame of a segment that others follow was durable.
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let mut damaged = whole.clone();
    damaged[used] ^= 1;
    for bytes in [&damaged[..], &whole[..used - 9], &whole[..0]] {
        fs::write(&second, bytes).unwrap();
        let error = Log::open(&dir.0, 2, config()).unwrap_err();
        assert!(matches!(&error, JournalError::Damaged { path, .. } if *path == second), "{error}");
    }
    fs::remove_file(&second).unwrap();
    let error = Log::open(&dir.0, 2, config()).unwrap_err();
    assert!(matches!(&error, JournalError::Missing { path } if *path == second), "{error}");
    fs::write(&second, &whole).unwrap();
    assert_eq!(all(&open(&dir.0), 0).await.len() as u64, index);
}

/// What looks like an empty frame that was durable, long after all that are there, to who knows the format and not the log's key.
fn forged() -> Vec<u8> {
    let head = [&b"SkFr"[..], &[0; 4], &[0xfe; 8], &[0xfd; 8], &[0; 16]].concat();
    let checksum = blake3::hash(&head);
    [&head[..], &checksum.as_bytes()[..16]].concat()
}

/// Each at any place in a segment, wherever an entry begins.
fn everywhere(pattern: &[u8], bytes: usize) -> Vec<u8> {
    let shifted = (0..8).flat_map(|shift| [vec![b'-'; shift], pattern.repeat(bytes / 8 / pattern.len())].concat());
    shifted.collect()
}

#[tokio::test]
async fn what_a_user_or_an_agent_wrote_is_never_taken_for_a_frame() {
    let head = [&b"SkFr"[..], &[0, 0, 4, 0]].concat();
    for hostile in [everywhere(&forged(), 200_000), everywhere(&head, 500_000)] {
        let dir = Scratch::new();
        let (_, start) = small(&dir.0, 2).await;
        let log = open(&dir.0);
        let entry = Entry { log_id: id(4), payload: EntryPayload::Normal(Batch(hostile.into())) };
        Store::new(Arc::clone(&log), 0).blocking_append([entry]).await.unwrap();
        let mut bytes = fs::read(segment(&dir.0)).unwrap();
        drop(log);
        // A crash while it was written: the head of its frame is lost, what the user wrote is there.
        let start = start.next_multiple_of(8);
        bytes[start..start + 512].fill(0);
        assert_eq!(replay(&bytes, 0).await.unwrap(), entries(0..4));
    }
}
