//! A master whose disk fails, and one that is dropped.

use super::{Scratch, config, is_known, start, submitted};
use crate::drive::{Busy, MasterConfig};
use crate::journal::LogConfig;
use crate::shard::{Request, Response};
use protocol::{RequestId, ShardId};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;

static BROKEN: AtomicBool = AtomicBool::new(false);

fn breaks(file: &File) -> io::Result<()> {
    if BROKEN.load(Ordering::SeqCst) { Err(io::Error::from_raw_os_error(28)) } else { file.sync_data() }
}

#[tokio::test]
async fn a_disk_that_fails_stops_the_master_which_says_why_and_acknowledges_nothing() {
    let dir = Scratch::new();
    let log = LogConfig { sync: breaks, ..config(&dir.0).log };
    let master = start(MasterConfig { log, ..config(&dir.0) }).await.unwrap();
    let (job, _) = submitted(&master, 0, "before", 1).await;
    BROKEN.store(true, Ordering::SeqCst);
    let (replies, mut answers) = mpsc::channel(16);
    let request = |key: &str| Request::Submit { job: crate::journal::tests::shards::job(1), key: Some(key.into()), follow: false };
    master.door().post(ShardId(1), request("a"), RequestId(1), replies).unwrap();
    assert!(matches!(answers.recv().await, Some((RequestId(1), Response::Refused(_)))));
    let stopped = master.door().stopped().unwrap().to_owned();
    assert!(stopped.contains("os error 28") && stopped.contains(".log"), "{stopped}");
    let busy = master.door().ask(ShardId(0), request("b")).await.unwrap_err();
    assert_eq!(busy, Busy::Stopped { reason: stopped });
    master.shutdown().await;

    BROKEN.store(false, Ordering::SeqCst);
    let master = start(config(&dir.0)).await.unwrap();
    assert!(is_known(&master, job).await);
    master.shutdown().await;
}
