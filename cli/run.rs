//! `skep run`: one thing, from its file to its end; output and exit code are the task's own.

use crate::args::{Reach, Run, Shape};
use crate::client::{Client, Refused};
use crate::job::{self, Draft};
use crate::submit::{Answer, Submission, line};
use crate::{logs, print};
use anyhow::bail;
use serde_json::Value;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A task that has ended by then is printed at once; a longer one is followed.
const SHORT: Duration = Duration::from_millis(250);

/// Submits, follows, prints.
pub async fn run(reach: &Reach, flags: Run, shape: Shape) -> anyhow::Result<ExitCode> {
    let client = Client::find(reach)?;
    let draft = job::from_flags(&flags)?;
    let key = flags.key.clone().unwrap_or_else(fresh_key);
    let start = Instant::now();
    let (mut submission, id) = submit(&client, &draft, &key, !flags.detach).await?;
    if flags.detach {
        println!("{id}");
        return Ok(ExitCode::SUCCESS);
    }
    if draft.job["kind"] == "service" {
        println!("{id} is on record; `skep status {id}` shows it, `skep stop {id}` ends it");
        return Ok(ExitCode::SUCCESS);
    }
    let single = draft.job["count"].as_u64().unwrap_or(1) == 1;
    let job = follow(&client, &mut submission, &id, flags.quiet || shape == Shape::Json, single).await?;
    if shape == Shape::Json {
        println!("{job}");
    }
    let code = close(&client, &job, single, flags.quiet, start.elapsed()).await?;
    Ok(ExitCode::from(code))
}

/// A key that nobody else draws, from the clock, the process and the kernel's own random numbers.
fn fresh_key() -> String {
    use std::hash::{BuildHasher, Hasher};
    let draw = || std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!("run-{:x}-{:016x}{:016x}", std::process::id(), draw(), draw())
}

/// Submits and, where the master lacks a bundle, uploads and submits again: what is known costs one round trip.
async fn submit(client: &Client, draft: &Draft, key: &str, follow: bool) -> anyhow::Result<(Submission, String)> {
    let mut uploaded = false;
    loop {
        let mut submission = Submission::open(client).await?;
        submission.send(line(key, &draft.job, follow)).await?;
        match submission.next().await {
            Ok(Answer::Submitted { job }) => return Ok((submission, job)),
            Ok(Answer::Ended { job, .. }) => return Ok((submission, print::text(&job["id"]))),
            Err(error) => {
                let lacks =
                    error.downcast_ref::<Refused>().is_some_and(|refused| refused.codes.iter().any(|code| code == "unknown-bundle"));
                if !lacks || uploaded {
                    return Err(error);
                }
                job::upload(client, &draft.bundles).await?;
                uploaded = true;
            }
        }
    }
}

/// Waits for the end while it prints what the tasks print.
async fn follow(client: &Client, submission: &mut Submission, id: &str, quiet: bool, single: bool) -> anyhow::Result<Value> {
    let prefix = !single;
    let ended = async {
        match submission.next().await? {
            Answer::Ended { job, .. } => Ok(job),
            Answer::Submitted { .. } => bail!("the master answered twice for one key"),
        }
    };
    tokio::pin!(ended);
    if let Ok(job) = tokio::time::timeout(SHORT, &mut ended).await {
        let job: Value = job?;
        if !quiet {
            logs::print(client, id, None, false, prefix).await?;
        }
        return Ok(job);
    }
    if quiet {
        return tokio::select! {
            job = &mut ended => job,
            _ = tokio::signal::ctrl_c() => interrupted(id),
        };
    }
    let printing = logs::print(client, id, None, true, prefix);
    tokio::pin!(printing);
    let mut printed = false;
    loop {
        tokio::select! {
            job = &mut ended => {
                if !printed {
                    printing.await?;
                }
                return job;
            }
            done = &mut printing, if !printed => { done?; printed = true; }
            _ = tokio::signal::ctrl_c() => return interrupted(id),
        }
    }
}

fn interrupted(id: &str) -> anyhow::Result<Value> {
    bail!("left as it is; `skep logs --follow {id}` goes on, `skep stop {id}` ends it")
}

/// Says how it ended; gives the exit code.
async fn close(client: &Client, job: &Value, single: bool, quiet: bool, took: Duration) -> anyhow::Result<u8> {
    let tasks = |phase: &str| job["tasks"][phase].as_u64().unwrap_or(0);
    let finished = tasks("finished");
    let failed: u64 = ["failed", "killed", "rejected", "lost"].iter().map(|phase| tasks(phase)).sum();
    if !single || quiet {
        eprintln!("{finished} tasks finished, {failed} failed, in {}", print::micros(took.as_micros() as u64));
    }
    if failed == 0 {
        return Ok(0);
    }
    let id = print::text(&job["id"]);
    let rows = client.get(&format!("/v1/jobs/{id}/tasks?phase=failed,killed,rejected,lost&limit=5")).await?;
    let rows = rows["tasks"].as_array().cloned().unwrap_or_default();
    for row in &rows {
        let exit = &row["exit"];
        if !single || exit["kind"] != "code" {
            eprintln!("{id}.{}: {}", row["index"], print::text(&exit["text"]));
        }
    }
    if !single {
        return Ok(1);
    }
    let code = rows.first().filter(|row| row["exit"]["kind"] == "code").and_then(|row| row["exit"]["code"].as_i64());
    Ok(code.map_or(1, |code| u8::try_from(code & 0xff).expect("eight bits")).max(1))
}
