//! The door end to end: a master on real files and sockets, and an agent that follows a script over the real link.

mod faults;
mod figures;
mod link;
mod script;

use super::{Master, MasterConfig, StartError, start};
use crate::journal::LogConfig;
use crate::journal::tests::Scratch;
use crate::journal::tests::shards::job;
use crate::shard::event::JobRef;
use crate::shard::view::{View, Viewed};
use crate::shard::{Refusal, Request, Response};
use protocol::{JobId, Phase, RequestId, ShardId};
use script::Script;
use std::fs;
use std::path::Path;
use tokio::sync::mpsc;

fn config(dir: &Path) -> MasterConfig {
    let log = LogConfig { segment_bytes: 1 << 20, ..LogConfig::default() };
    MasterConfig { shards: 2, log, ..MasterConfig::local(dir) }
}

async fn submit(master: &Master, shard: u16, key: &str, count: u32) -> Response {
    let request = Request::Submit { job: job(count), key: Some(key.into()), follow: false };
    master.door().ask(ShardId(shard), request).await.unwrap()
}

async fn submitted(master: &Master, shard: u16, key: &str, count: u32) -> (JobId, bool) {
    match submit(master, shard, key, count).await {
        Response::Submitted { job, new } => (job, new),
        other => panic!("{other:?}"),
    }
}

async fn is_known(master: &Master, job: JobId) -> bool {
    let request = Request::View(View::Job(JobRef::Id(job)));
    match master.door().ask(job.shard(), request).await.unwrap() {
        Response::Viewed(viewed) => matches!(*viewed, Viewed::Job(view) if view.id == job),
        _ => false,
    }
}

/// Copies a directory as a crash of the machine would leave it: while it is written.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if fs::copy(entry.path(), &target).is_err() {
            // A spare segment that was renamed meanwhile.
            assert!(!entry.path().exists());
        }
    }
}

#[tokio::test]
async fn a_followed_job_runs_on_an_agent_and_is_answered_twice() {
    let dir = Scratch::new();
    let master = start(config(&dir.0)).await.unwrap();
    let agents = [Script::join(&master).await.spawn(), Script::join(&master).await.spawn()];
    let (replies, mut answers) = mpsc::channel(64);
    for n in 0..10 {
        let request = Request::Submit { job: job(7), key: Some(format!("job {n}")), follow: true };
        master.door().post(ShardId((n % 2) as u16), request, RequestId(n), replies.clone()).unwrap();
    }
    let (mut made, mut ended) = (0, 0);
    while ended < 10 {
        match answers.recv().await.unwrap().1 {
            Response::Submitted { new: true, .. } => made += 1,
            Response::Ended(view) => {
                assert_eq!(view.tasks.get(&Phase::Finished), Some(&7));
                ended += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(made, 10);
    agents.iter().for_each(tokio::task::JoinHandle::abort);
    master.shutdown().await;
}

#[tokio::test]
async fn a_key_names_the_same_job_after_a_restart() {
    let dir = Scratch::new();
    let master = start(config(&dir.0)).await.unwrap();
    let (id, new) = submitted(&master, 1, "once", 3).await;
    assert!(new);
    assert_eq!(submitted(&master, 1, "once", 3).await, (id, false));
    master.shutdown().await;
    let master = start(config(&dir.0)).await.unwrap();
    assert_eq!(submitted(&master, 1, "once", 3).await, (id, false));
    assert!(matches!(submit(&master, 1, "once", 4).await, Response::Refused(Refusal::Conflict { .. })));
    assert_ne!(submitted(&master, 1, "another", 3).await.0, id);
    master.shutdown().await;
}

#[tokio::test]
async fn a_crash_at_any_moment_loses_no_acknowledged_job() {
    let dir = Scratch::new();
    let master = start(config(&dir.0)).await.unwrap();
    let mut known = Vec::new();
    for round in 0..6 {
        let (replies, mut answers) = mpsc::channel(1_024);
        for n in 0..50 {
            let request = Request::Submit { job: job(1), key: Some(format!("{round} {n}")), follow: false };
            master.door().post(ShardId(n % 2), request, RequestId(u64::from(n)), replies.clone()).unwrap();
        }
        let keep = if round == 5 { 20 } else { 50 };
        for _ in 0..keep {
            match answers.recv().await.unwrap().1 {
                Response::Submitted { job, .. } => known.push(job),
                other => panic!("{other:?}"),
            }
        }
    }
    let after = Scratch::new();
    copy(&dir.0, &after.0);
    drop(master);
    let master = start(config(&after.0)).await.unwrap();
    for job in known {
        assert!(is_known(&master, job).await, "{job}");
    }
    master.shutdown().await;
}

#[tokio::test]
async fn a_data_directory_has_one_master_and_keeps_its_shards() {
    let dir = Scratch::new();
    let master = start(config(&dir.0)).await.unwrap();
    let error = start(config(&dir.0)).await.err().unwrap();
    assert!(matches!(error, StartError::Locked { .. }), "{error}");
    let token = fs::read_to_string(master.admin_token()).unwrap();
    master.shutdown().await;
    let master = start(MasterConfig { shards: 5, ..config(&dir.0) }).await.unwrap();
    assert_eq!(master.door().shards(), 2);
    assert_eq!(fs::read_to_string(master.admin_token()).unwrap(), token);
    master.shutdown().await;
    fs::write(dir.0.join("shards"), "many").unwrap();
    let error = start(config(&dir.0)).await.err().unwrap().to_string();
    assert!(error.contains("shards") && error.contains("many"), "{error}");
}

#[tokio::test]
async fn several_threads_decide_together() {
    let dir = Scratch::new();
    let master = start(MasterConfig { threads: Some(2), shards: 4, ..config(&dir.0) }).await.unwrap();
    let agent = Script::join(&master).await.spawn();
    let (replies, mut answers) = mpsc::channel(64);
    for n in 0..8 {
        let request = Request::Submit { job: job(3), key: Some(format!("job {n}")), follow: true };
        master.door().post(ShardId(n % 4), request, RequestId(0), replies.clone()).unwrap();
    }
    let mut ended = 0;
    while ended < 8 {
        ended += u32::from(matches!(answers.recv().await.unwrap().1, Response::Ended(_)));
    }
    let all = master.door().ask_all(|| Request::View(View::Figures)).await.unwrap();
    assert_eq!(all.len(), 4);
    agent.abort();
    master.shutdown().await;
}
