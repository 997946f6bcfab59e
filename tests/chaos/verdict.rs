//! What must hold when all faults are over: what was acknowledged is there once, has ended once, and everybody saw it in one order.

use crate::clients::{Client, SLEEPERS};
use crate::cluster::{Cluster, MASTERS};
use crate::history::History;
use crate::register;
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long after the last fault a job that does nothing may take to end.
const END_WITHIN: Duration = Duration::from_secs(60);

/// Jobs that are looked at at the same time.
const LOOKS_AT_ONCE: usize = 16;

/// Looks at everything.
pub async fn pass(cluster: &Cluster, history: &Arc<History>) {
    let client = Client::reader(cluster.api(), Arc::clone(history));
    one_job_for_each_key(&client).await;
    every_job_ends(&client).await;
    sleepers_run(&client).await;
    registers_are_registers(history);
}

async fn one_job_for_each_key(client: &Client) {
    let (mut ids, mut after) = (BTreeSet::new(), String::new());
    loop {
        let Some(page) = client.api.any(&format!("/v1/jobs?ended=true&limit=1000{after}")).await else {
            return client.history.violated("jobs could not be listed after the last fault".into());
        };
        let unnamed = page["jobs"].as_array().into_iter().flatten().filter(|job| job["name"].is_null());
        ids.extend(unnamed.map(|job| crate::clients::text(&job["id"])));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    let submissions = client.history.records().submissions.clone();
    let mut keys: BTreeMap<&str, &str> = BTreeMap::new();
    for (key, submission) in &submissions {
        let Some((_, id)) = &submission.acked else { continue };
        if let Some(other) = keys.insert(id, key) {
            client.history.violated(format!("keys {other} and {key} have one job, {id}"));
        }
        if !ids.contains(id) {
            client.history.violated(format!("job {id} of key {key} was acknowledged and is not there"));
        }
    }
    let untold = submissions.values().filter(|submission| submission.acked.is_none()).count();
    let strange: Vec<&String> = ids.iter().filter(|id| !keys.contains_key(id.as_str())).collect();
    if strange.len() > untold {
        client.history.violated(format!("{} jobs have no key of their own: {strange:?}", strange.len() - untold));
    }
}

async fn every_job_ends(client: &Client) {
    let acked = |(key, submission): (&String, &crate::history::Submission)| Some((key.clone(), submission.acked.as_ref()?.1.clone()));
    let mut left: Vec<(String, String)> = client.history.records().submissions.iter().filter_map(acked).collect();
    // All are looked at once, however many there are; those that have not ended then, again.
    let mut until = None;
    while !left.is_empty() && until.is_none_or(|until| Instant::now() < until) {
        let looks = left.into_iter().enumerate().map(|(place, (key, id))| async move {
            let ended = client.look(&key, &id, place % MASTERS).await;
            (!ended).then_some((key, id))
        });
        left = futures::stream::iter(looks).buffer_unordered(LOOKS_AT_ONCE).filter_map(std::future::ready).collect().await;
        until.get_or_insert_with(|| Instant::now() + END_WITHIN);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for (key, id) in left.iter().take(5) {
        let job = client.api.any(&format!("/v1/jobs/{id}/tasks")).await.unwrap_or_default();
        client.history.violated(format!("job {id} of key {key} has not ended, as {} others: {job}", left.len() - 1));
    }
}

async fn sleepers_run(client: &Client) {
    let until = Instant::now() + END_WITHIN;
    loop {
        let all = client.sleepers().await.unwrap_or_default();
        let running = all.iter().filter(|task| task["phase"] == "running").count() as u64;
        if running == 2 * SLEEPERS {
            return;
        }
        if Instant::now() > until {
            let others: Vec<String> = all.iter().filter(|task| task["phase"] != "running").map(ToString::to_string).collect();
            return client.history.violated(format!("long tasks do not run {} s after the last fault: {others:?}", END_WITHIN.as_secs()));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn registers_are_registers(history: &History) {
    let registers = history.records().registers.clone();
    for (id, register) in registers {
        if let Err(wrong) = register::check(&register.ops) {
            let mut near = register.ops.clone();
            near.sort_by_key(|op| op.from);
            history.violated(format!("the count of job {id} is not linearizable: {wrong}"));
            history.note(format!("        {id}: {:?}", near.iter().map(|op| (op.value, op.wrote, op.from, op.to)).collect::<Vec<_>>()));
        }
    }
}
