//! A disk that fails: nothing is told to be durable from then on, and the reason is.

use super::{Scratch, all, append, config, entries, entry, open};
use crate::journal::Log;
use crate::journal::log::LogConfig;
use crate::journal::store::Store;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use std::fs::{self, File};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

static FLUSHES: AtomicU32 = AtomicU32::new(0);

/// The third flush fails; one that was tried again would succeed.
fn third_fails(file: &File) -> io::Result<()> {
    match FLUSHES.fetch_add(1, Ordering::SeqCst) {
        2 => Err(io::Error::from_raw_os_error(5)),
        _ => file.sync_data(),
    }
}

#[tokio::test]
async fn a_flush_that_fails_is_the_last_and_nothing_is_acknowledged_after_it() {
    let dir = Scratch::new();
    let log = Arc::new(Log::open(&dir.0, 2, LogConfig { sync: third_fails, ..config() }).unwrap());
    append(&log, 0, 0..2).await;
    append(&log, 1, 0..1).await;
    for group in [0, 1, 0] {
        let mut store = Store::new(Arc::clone(&log), group);
        let next = store.get_log_state().await.unwrap().last_log_id.unwrap().index + 1;
        let error = store.blocking_append([entry(next)]).await.unwrap_err().to_string();
        assert!(error.contains("0000000000000001.log") && error.contains("cannot flush"), "{error}");
        assert!(store.save_vote(&openraft::Vote::new(9, 1)).await.is_err());
    }
    assert_eq!(FLUSHES.load(Ordering::SeqCst), 3);
    assert!(log.failed().unwrap().contains("os error 5"), "{:?}", log.failed());
    drop(log);
    // What was acknowledged is there.
    let log = open(&dir.0);
    assert!(all(&log, 0).await.starts_with(&entries(0..2)));
    assert_eq!(all(&log, 1).await[..1], entries(0..1));
}

#[tokio::test]
async fn a_segment_that_cannot_be_made_stops_the_log() {
    let dir = Scratch::new();
    let log = open(&dir.0);
    append(&log, 0, 0..2).await;
    // The directory is gone: no file can be made or renamed in it.
    fs::remove_dir_all(&dir.0).unwrap();
    let mut store = Store::new(Arc::clone(&log), 0);
    let mut next = 2;
    let error = loop {
        match store.blocking_append((next..next + 5_000).map(entry)).await {
            Ok(()) => next += 5_000,
            Err(error) => break error.to_string(),
        }
        assert!(next < 1_000_000, "a segment holds less");
    };
    assert!(error.contains("cannot make") && error.contains("0000000000000002.log"), "{error}");
    assert!(store.save_vote(&openraft::Vote::new(9, 1)).await.is_err());
}
