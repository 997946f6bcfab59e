//! Services from one version to the next: `apply`, `restart`, `rollback`; a deployment is followed to its end, held, promoted or cancelled.

use crate::args::{Apply, Reach, Restart, Rollback, Shape};
use crate::client::{Client, Refused};
use crate::job::{from_file, upload};
use crate::manage::say;
use crate::print::{self, text};
use crate::show::{Named, progress, reasons};
use anyhow::{Context, bail};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How often it is looked how far something is.
const LOOK: Duration = Duration::from_millis(200);
/// How often it is looked whether what waits could ever run.
const LOOK_FIT: Duration = Duration::from_secs(2);
/// Places of a bar.
const BAR: u64 = 24;
/// It did not become so.
const FAILED: u8 = 1;
/// It cannot be placed.
const NOWHERE: u8 = 2;

/// Makes a job file so, and waits until all of its tasks do their work or, for a batch job, have ended; or does something about a deployment.
pub async fn apply(reach: &Reach, flags: Apply, shape: Shape) -> anyhow::Result<ExitCode> {
    let client = Client::find(reach)?;
    if let Some(wish) = flags.wish() {
        return wished(&client, &flags, wish, shape).await;
    }
    let file = std::path::Path::new(&flags.what);
    let draft = from_file(file)?;
    let name = draft.job["name"].as_str().with_context(|| format!("{}: apply needs a job with a name", file.display()))?.to_owned();
    upload(&client, &draft.bundles).await?;
    let named = Named { job: name.clone(), role: draft.job["role"].as_str().map(str::to_owned), index: None };
    let force = if flags.force { "force=true" } else { "" };
    let answer = client.call(Method::PUT, &named.path("", force), &draft.job).await?;
    if flags.detach {
        return Ok(say(shape, &answer, &format!("{name} is on record as {}", text(&answer["id"]))));
    }
    match answer["deployment"].as_str() {
        Some(id) => follow(&client, &named, id, shape).await,
        None => watch(&client, &named, shape).await,
    }
}

/// Replaces all tasks of a service by others that are the same.
pub async fn restart(reach: &Reach, flags: Restart, shape: Shape) -> anyhow::Result<ExitCode> {
    let client = Client::find(reach)?;
    let named = Named { job: flags.job.clone(), role: flags.role, index: None };
    let force = if flags.force { "force=true" } else { "" };
    let answer = client.call(Method::POST, &named.path("/restart", force), &Value::Null).await?;
    let id = answer["deployment"].as_str().unwrap_or_default();
    if flags.detach {
        return Ok(say(shape, &answer, &format!("{} is restarted by deployment {}", flags.job, print::plain(id))));
    }
    follow(&client, &named, id, shape).await
}

/// Goes back to an earlier version of a service; shows them where that is wanted.
pub async fn rollback(reach: &Reach, flags: Rollback, shape: Shape) -> anyhow::Result<ExitCode> {
    let client = Client::find(reach)?;
    let named = Named { job: flags.job.clone(), role: flags.role, index: None };
    if flags.list {
        return versions(&client, &named, shape).await;
    }
    let force = if flags.force { "force=true" } else { "" };
    let answer = client.call(Method::POST, &named.path("/rollback", force), &json!({ "version": flags.version })).await?;
    let id = answer["deployment"].as_str().unwrap_or_default();
    if flags.detach {
        return Ok(say(shape, &answer, &format!("{} goes back by deployment {}", flags.job, print::plain(id))));
    }
    follow(&client, &named, id, shape).await
}

async fn versions(client: &Client, named: &Named, shape: Shape) -> anyhow::Result<ExitCode> {
    let answer = client.get(&named.path("/versions", "")).await?;
    if shape == Shape::Json {
        println!("{answer}");
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = print::table(&["VERSION", "SINCE", "WHY", "COUNT", ""]);
    for version in answer["versions"].as_array().into_iter().flatten() {
        let since = print::ago(version["since_ms"].as_u64().unwrap_or(0));
        let present = if version["current"] == true { "present" } else { "" };
        let why = match version["cause"].as_str() {
            Some("failed") => "returned by itself".to_owned(),
            _ => text(&version["cause"]),
        };
        table.add_row([text(&version["version"]), since, why, text(&version["count"]), present.to_owned()]);
    }
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}

/// The last deployment of a job; nothing, where there was none.
pub async fn last(client: &Client, named: &Named) -> anyhow::Result<Option<Value>> {
    let role = named.role.as_ref().map(|role| format!("&role={role}")).unwrap_or_default();
    let answer = client.get(&format!("/v1/deployments?ended=true&job={}{role}", named.job)).await;
    match answer {
        Ok(answer) => Ok(answer["deployments"].as_array().and_then(|all| all.first()).cloned()),
        Err(error) if error.downcast_ref::<Refused>().is_some_and(|refused| refused.status == StatusCode::NOT_FOUND) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Holds, lets go on, promotes or cancels the deployment of a job.
async fn wished(client: &Client, flags: &Apply, wish: &str, shape: Shape) -> anyhow::Result<ExitCode> {
    let named = Named { job: flags.what.clone(), role: flags.role.clone(), index: None };
    let Some(deployment) = last(client, &named).await? else { bail!("{} has no deployment", flags.what) };
    let id = text(&deployment["id"]);
    let back = if flags.leave { "?back=false" } else { "" };
    client.call(Method::POST, &format!("/v1/deployments/{id}/{wish}{back}"), &Value::Null).await?;
    if flags.detach || wish == "pause" || flags.leave {
        let said = match wish {
            "pause" => "stands still",
            "cancel" => "is cancelled",
            _ => "goes on",
        };
        return Ok(say(shape, &json!({ "deployment": id }), &format!("{id} {said}")));
    }
    if wish == "cancel" {
        // What leads back is another one.
        let back = last(client, &named).await?.map(|back| text(&back["id"]));
        return follow(client, &named, &back.unwrap_or(id), shape).await;
    }
    follow(client, &named, &id, shape).await
}

/// Shows how far something is: a bar that is drawn over itself on a terminal, a line for each change otherwise.
struct Shown {
    line: String,
    bar: bool,
    quiet: bool,
}

impl Shown {
    fn new(shape: Shape) -> Self {
        Self { line: String::new(), bar: std::io::stdout().is_terminal(), quiet: shape == Shape::Json }
    }

    fn show(&mut self, name: &str, line: &str, done: Option<(u64, u64)>) {
        if self.quiet || line == self.line {
            return;
        }
        line.clone_into(&mut self.line);
        if !self.bar {
            println!("{name}: {line}");
            return;
        }
        let bar = done.map(|(done, all)| bar(done, all)).unwrap_or_default();
        print!("\r\x1b[K{bar}{name}: {line}");
        let _ = std::io::stdout().flush();
    }

    fn end(&self) {
        if self.bar && !self.quiet && !self.line.is_empty() {
            println!();
        }
    }
}

fn bar(done: u64, all: u64) -> String {
    let full = (done.min(all) * BAR).checked_div(all).unwrap_or(BAR);
    format!("[{}{}] ", "#".repeat(usize::try_from(full).unwrap_or(0)), "-".repeat(usize::try_from(BAR - full).unwrap_or(0)))
}

/// Follows a deployment to its end, and what leads back from it where it fails.
async fn follow(client: &Client, named: &Named, id: &str, shape: Shape) -> anyhow::Result<ExitCode> {
    let mut shown = Shown::new(shape);
    let mut looked = Instant::now();
    loop {
        let Some(deployment) = last(client, named).await? else { return watch(client, named, shape).await };
        let (own, count) = (deployment["id"] == id, deployment["count"].as_u64().unwrap_or(0));
        let ready = deployment["ready"].as_u64().unwrap_or(0);
        shown.show(&named.job, &text(&deployment["text"]), Some((ready, count)));
        if let Some(code) = verdict(&deployment, own) {
            shown.end();
            if shape == Shape::Json {
                println!("{deployment}");
            } else if deployment["state"] == "waiting" {
                eprintln!("the others follow after `skep apply --promote {}`; `skep apply --cancel {0}` goes back", named.job);
            }
            return Ok(ExitCode::from(code));
        }
        if deployment["state"] == "running" && looked.elapsed() > LOOK_FIT {
            looked = Instant::now();
            if let Some(why) = fits_nowhere(client, named).await? {
                shown.end();
                eprintln!("{}: {why}", named.job);
                return Ok(ExitCode::from(NOWHERE));
            }
        }
        if !wait(&named.job, &shown).await {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// The exit code for a deployment that is followed no further; `own`: it is the one that was asked for, and not what came after it.
fn verdict(deployment: &Value, own: bool) -> Option<u8> {
    match deployment["state"].as_str() {
        Some("done") if own => Some(0),
        Some("waiting") if own => Some(0),
        Some("running" | "paused") if own || deployment["cause"] == "failed" => None,
        _ => Some(FAILED),
    }
}

/// Why tasks of a job that wait can never run as the cluster is, where that is so.
async fn fits_nowhere(client: &Client, named: &Named) -> anyhow::Result<Option<String>> {
    let answer = client.get(&named.path("/explain", "")).await?;
    let (waiting, fit) = (answer["waiting"].as_u64().unwrap_or(0), &answer["fit"]);
    let never = waiting > 0 && fit["agents"].as_u64() > Some(0) && fit["would_fit_empty"] == 0 && fit["fitting"] == 0;
    // What cannot be reached now may be back in a moment, and have room.
    let never = never && fit["short"]["unreachable"].is_null();
    Ok(never.then(|| reasons(&answer)))
}

/// Waits a little; false where somebody would rather not.
async fn wait(job: &str, shown: &Shown) -> bool {
    tokio::select! {
        () = tokio::time::sleep(LOOK) => true,
        _ = tokio::signal::ctrl_c() => {
            shown.end();
            eprintln!("left as it is; `skep status {job}` shows it");
            false
        }
    }
}

/// Waits until the tasks of a job run that need no deployment, or have ended.
async fn watch(client: &Client, named: &Named, shape: Shape) -> anyhow::Result<ExitCode> {
    let mut shown = Shown::new(shape);
    loop {
        let job = client.get(&named.path("", "")).await?;
        shown.show(&named.job, &progress(&job), None);
        if let Some(code) = settled(&job) {
            shown.end();
            if shape == Shape::Json {
                println!("{job}");
            }
            return Ok(ExitCode::from(code));
        }
        if !wait(&named.job, &shown).await {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// The exit code where there is nothing left to wait for.
fn settled(job: &Value) -> Option<u8> {
    let tasks = |phase: &str| job["tasks"][phase].as_u64().unwrap_or(0);
    let count = job["count"].as_u64().unwrap_or(0);
    if !job["ended_ms"].is_null() {
        return Some(u8::from(tasks("finished") < count));
    }
    match job["kind"].as_str() {
        Some("service") => (tasks("running") >= count).then_some(0),
        // What waits for room on its own agent nobody waits for.
        Some("system") => (tasks("running") + tasks("waiting") >= count).then_some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_after_a_deployment_is_its_end() {
        let deployment = |state: &str, cause: &str| json!({ "state": state, "cause": cause });
        assert_eq!(verdict(&deployment("done", "applied"), true), Some(0));
        assert_eq!(verdict(&deployment("running", "applied"), true), None);
        assert_eq!(verdict(&deployment("running", "failed"), false), None);
        assert_eq!(verdict(&deployment("done", "failed"), false), Some(1));
        assert_eq!(verdict(&deployment("running", "applied"), false), Some(1));
        assert_eq!(verdict(&deployment("failed", "applied"), true), Some(1));
        let system = |running: u32, waiting: u32, staging: u32| json!({ "kind": "system", "count": 3, "tasks": { "running": running, "waiting": waiting, "staging": staging } });
        assert_eq!([system(3, 0, 0), system(2, 1, 0), system(2, 0, 1)].map(|job| settled(&job)), [Some(0), Some(0), None]);
        assert_eq!((bar(0, 4), bar(4, 4)), (format!("[{}] ", "-".repeat(24)), format!("[{}] ", "#".repeat(24))));
    }
}
