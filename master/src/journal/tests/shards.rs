//! Shards behind the journal: what is recovered is what was decided, with and without snapshots.

use super::{Scratch, config};
use crate::journal::network::{Alone, Timing};
use crate::journal::{Batch, Fate, Group, JournalError, Log, Recovered, Seat, Turn};
use crate::shard::{Record, Shard, ShardConfig};
use protocol::job::{Kind, Restart, RestartPolicy};
use protocol::{Digest, Job, JobId, Limits, Member, Metering, Program, Resources, Role, ShardId, Template, Time};
use std::fs;
use std::path::Path;
use std::sync::Arc;

pub(super) fn shard_config(shard: u16) -> ShardConfig {
    ShardConfig { id: ShardId(shard), shards: 2, ..ShardConfig::default() }
}

pub(crate) fn job(count: u32) -> Job {
    let limits = Limits {
        fuel_max: None,
        cpu_time_ms_max: None,
        time_ms_max: None,
        memory_bytes_max: 1 << 20,
        table_elements_max: 1_000,
        host_bytes_max: 1 << 20,
        processes_max: 64,
        log_bytes_max: 1 << 20,
        log_bytes_per_s_max: 1 << 20,
    };
    let resources = Resources { cpu_milli: 100, ..Resources::NONE };
    let member = Member {
        name: None,
        program: Program::Wasm { bundle: Digest::of(b"noop"), metering: Metering::Fuel, strict: false },
        args: vec![],
        env: vec![],
        config: vec![],
        stdin: None,
        resources: resources.clone(),
        ports: vec![],
        limits,
    };
    let template = Template { members: vec![member], resources };
    Job {
        role: Role::new("default").unwrap(),
        name: None,
        kind: Kind::Batch,
        priority: 50,
        count,
        template: Arc::new(template),
        restart: Restart {
            policy: RestartPolicy::Never,
            retries_max: None,
            backoff_first_ms: 1_000,
            backoff_factor_milli: 2_000,
            backoff_max_ms: 60_000,
        },
        update_parallel: 1,
        place: None,
        about: None,
        update: protocol::job::Update::default(),
        after: vec![],
    }
}

pub(super) fn submitted(shard: u16, sequence: u64) -> Record {
    let id = JobId::new(ShardId(shard), sequence);
    Record::Submitted { id, job: job(3), key: Some(format!("key-{sequence}-{}", "x".repeat(40))), at: Time(sequence) }
}

fn seat() -> Seat {
    Seat { member: 1, carrier: Arc::new(Alone), timing: Timing::default() }
}

async fn opened(log: &Arc<Log>, dir: &Path, shard: u16) -> (Group, Recovered) {
    let (group, mut turns) = Group::open(log, dir, shard_config(shard), &seat()).await.unwrap();
    group.found("").await.unwrap();
    match turns.recv().await {
        Some(Turn::Begins(recovered)) => (group, *recovered),
        _ => panic!("one that is alone leads"),
    }
}

async fn propose(group: &Group, records: &[Record]) -> Fate {
    let term = group.member().standing().term;
    group.propose(Batch::encode(term, records)).await.unwrap().await.unwrap()
}

async fn commit(group: &Group, shard: &mut Shard, records: &[Record]) {
    records.iter().for_each(|record| shard.apply(record));
    assert_eq!(propose(group, records).await, Fate::Committed);
}

#[tokio::test]
async fn what_is_recovered_is_what_was_decided_after_any_number_of_starts() {
    let dir = Scratch::new();
    let mut hashes = [0; 2];
    for start in 0..4 {
        let log = Arc::new(open_when_free(&dir.0).await);
        for shard in 0..2 {
            let (group, Recovered { shard: mut state, latest, .. }) = opened(&log, &dir.0, shard).await;
            if start > 0 {
                assert_eq!((state.hash(), latest), (hashes[usize::from(shard)], Time(start * 100)));
            }
            for n in start * 100 + 1..=start * 100 + 100 {
                commit(&group, &mut state, &[submitted(shard, n)]).await;
            }
            hashes[usize::from(shard)] = state.hash();
            group.close().await;
        }
    }
}

#[tokio::test]
async fn a_snapshot_and_the_log_behind_it_are_the_same_as_the_log() {
    let dir = Scratch::new();
    let log = Arc::new(open_when_free(&dir.0).await);
    let (group, Recovered { shard: mut state, .. }) = opened(&log, &dir.0, 0).await;
    for n in 1..=200 {
        commit(&group, &mut state, &[submitted(0, n)]).await;
        if n % 60 == 0 {
            group.snapshot().await.unwrap();
        }
    }
    group.close().await;
    drop(log);
    assert!(log_bytes(&dir.0) > 0 && dir.0.join("0000.snapshot").exists());
    let log = Arc::new(open_when_free(&dir.0).await);
    let (group, recovered) = opened(&log, &dir.0, 0).await;
    assert_eq!((recovered.shard.hash(), recovered.latest), (state.hash(), Time(200)));
    group.close().await;
    drop(log);

    // A snapshot that is other than it was written is refused by name.
    let path = dir.0.join("0000.snapshot");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let log = Arc::new(open_when_free(&dir.0).await);
    let error = Group::open(&log, &dir.0, shard_config(0), &seat()).await.err().unwrap();
    assert!(matches!(&error, JournalError::Damaged { path: at, .. } if *at == path), "{error}");

    // So is a log whose snapshot is missing.
    fs::remove_file(&path).unwrap();
    drop(log);
    let log = Arc::new(open_when_free(&dir.0).await);
    let error = Group::open(&log, &dir.0, shard_config(0), &seat()).await.err().unwrap();
    assert!(matches!(error, JournalError::Gap { shard: 0, .. }), "{error}");
}

/// Opens a log as soon as the snapshots that were being made when it was closed are done.
async fn open_when_free(dir: &Path) -> Log {
    loop {
        match Log::open(dir, 2, config()) {
            Err(JournalError::Locked { .. }) => tokio::task::yield_now().await,
            opened => break opened.unwrap(),
        }
    }
}

fn log_bytes(dir: &Path) -> u64 {
    fs::read_dir(dir).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

#[tokio::test]
async fn the_log_is_folded_when_it_has_grown_and_stays_bounded() {
    let dir = Scratch::new();
    let log = Arc::new(open_when_free(&dir.0).await);
    let (group, Recovered { shard: mut state, .. }) = opened(&log, &dir.0, 0).await;
    // A group that says one thing and no more must not keep the segments of all others.
    let (idle, Recovered { shard: mut still, .. }) = opened(&log, &dir.0, 1).await;
    commit(&idle, &mut still, &[submitted(1, 1)]).await;
    let mut segments = log.segment();
    for n in 0.. {
        let records: Vec<_> = (n * 200 + 1..=n * 200 + 200).map(|n| submitted(0, n % 50 + 1)).collect();
        assert_eq!(propose(&group, &records).await, Fate::Committed);
        records.iter().for_each(|record| state.apply(record));
        if *segments.borrow_and_update() >= 20 {
            break;
        }
        // What a busy group does between two batches: lets the snapshot's thread go on.
        tokio::task::yield_now().await;
    }
    group.snapshot().await.unwrap();
    idle.snapshot().await.unwrap();
    group.close().await;
    idle.close().await;
    drop(log);
    // The engines' last tasks may hold the log when they have closed; once it can be opened again, all that was asked of it is done.
    let log = Arc::new(open_when_free(&dir.0).await);
    let files =
        fs::read_dir(&dir.0).unwrap().filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|is| is == "log")).count();
    // Twenty were written.
    assert!(files <= 2, "{files} segments");
    let (group, recovered) = opened(&log, &dir.0, 0).await;
    assert_eq!(recovered.shard.hash(), state.hash());
    group.close().await;
    let (idle, recovered) = opened(&log, &dir.0, 1).await;
    assert_eq!(recovered.shard.hash(), still.hash());
    idle.close().await;
}

#[tokio::test]
async fn records_of_a_newer_version_are_refused() {
    let newer = postcard::to_allocvec(&(u16::MAX, Vec::<Record>::new())).unwrap();
    let error = Batch(newer.into()).decode().unwrap_err();
    assert!(matches!(error, JournalError::Newer { found: u16::MAX, .. }), "{error}");
    assert!(Batch(vec![1, 200].into()).decode().is_err());
}
