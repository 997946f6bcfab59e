//! `skep run`: one thing, from its file to its end; output and exit code are the task's own.

use crate::args::{Reach, Run, Shape};
use crate::client::{Client, RETRY_WAIT, Refused};
use crate::job::{self, Draft};
use crate::submit::{Answer, Submission, line};
use crate::{logs, print};
use anyhow::bail;
use serde_json::Value;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How often in a row a submission that broke off is sent again, under the same key.
const AGAIN_MAX: u32 = 100;
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
    if draft.job["kind"] == "service" || draft.job["kind"] == "system" {
        println!("{id} is on record; `skep status {id}` shows it, `skep stop {id}` ends it");
        return Ok(ExitCode::SUCCESS);
    }
    let single = draft.job["count"].as_u64().unwrap_or(1) == 1;
    let again = line(&key, &draft.job, true);
    let ended = ended(&client, &mut submission, &again);
    let job = follow(&client, ended, &id, flags.quiet || shape == Shape::Json, single).await?;
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
    let (mut uploaded, mut broken) = (false, 0);
    loop {
        let mut submission = Submission::open(client).await?;
        // Where it cannot be sent there is no answer either.
        let _ = submission.send(line(key, &draft.job, follow)).await;
        match submission.next().await {
            Ok(Answer::Submitted { job }) => return Ok((submission, job)),
            Ok(Answer::Ended { job, .. }) => return Ok((submission, print::text(&job["id"]))),
            Err(error) if may_pass(&error) && broken < AGAIN_MAX => {
                broken += 1;
                tokio::time::sleep(RETRY_WAIT).await;
            }
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

/// True where the same, sent again, may be answered: the master went away, or whoever led, or too many asked.
fn may_pass(error: &anyhow::Error) -> bool {
    const PASSING: [&str; 3] = ["unavailable", "unknown", "busy"];
    error.downcast_ref::<Refused>().is_none_or(|refused| refused.codes.iter().any(|code| PASSING.contains(&code.as_str())))
}

/// Waits for the end of what was submitted, as `again` from its first line on, by one master after another.
async fn ended(client: &Client, submission: &mut Submission, again: &[u8]) -> anyhow::Result<Value> {
    let (mut sent_again, mut broken) = (false, 0);
    loop {
        match submission.next().await {
            Ok(Answer::Ended { job, .. }) => return Ok(job),
            Ok(Answer::Submitted { .. }) if sent_again => (sent_again, broken) = (false, 0),
            Ok(Answer::Submitted { .. }) => bail!("the master answered twice for one key"),
            Err(error) if may_pass(&error) && broken < AGAIN_MAX => {
                broken += 1;
                tokio::time::sleep(RETRY_WAIT).await;
                *submission = Submission::open(client).await?;
                sent_again = true;
                // Where it cannot be sent there is no answer either.
                let _ = submission.send(again.to_vec()).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Waits for the end while it prints what the tasks print.
async fn follow(
    client: &Client,
    ended: impl Future<Output = anyhow::Result<Value>>,
    id: &str,
    quiet: bool,
    single: bool,
) -> anyhow::Result<Value> {
    let prefix = !single;
    tokio::pin!(ended);
    if let Ok(job) = tokio::time::timeout(SHORT, &mut ended).await {
        let job: Value = job?;
        if !quiet {
            logs::print(client, id, false, prefix).await?;
        }
        return Ok(job);
    }
    if quiet {
        return tokio::select! {
            job = &mut ended => job,
            _ = tokio::signal::ctrl_c() => interrupted(id),
        };
    }
    let printing = logs::print(client, id, true, prefix);
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
