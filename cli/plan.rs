//! `skep plan`: what a job file would change, and what would be if.

use crate::args::{Plan, Reach, Shape};
use crate::client::{Client, Refused};
use crate::job::{from_file, upload};
use crate::print::{self, text};
use crate::show::amounts;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

/// Rows of tasks in the table; JSON has more.
const ROWS_MAX: usize = 50;

/// Shows what would be otherwise.
pub async fn plan(reach: &Reach, flags: &Plan, shape: Shape) -> anyhow::Result<ExitCode> {
    let client = Client::find(reach)?;
    match &flags.file {
        Some(file) if flags.what_if.is_empty() => of_file(&client, file, shape).await,
        file => what_if(&client, file.as_deref(), &flags.what_if, shape).await,
    }
}

/// Shows what a job file would change.
async fn of_file(client: &Client, file: &Path, shape: Shape) -> anyhow::Result<ExitCode> {
    let draft = from_file(file)?;
    upload(client, &draft.bundles).await?;
    let plan = client.call(Method::POST, "/v1/plan", &draft.job).await?;
    let (action, fit) = (text(&plan["action"]), &plan["fit"]);
    if shape == Shape::Json {
        println!("{plan}");
    } else {
        println!("{action}: {}", tasks(&plan["count"], &draft.job));
        for change in plan["changes"].as_array().into_iter().flatten() {
            println!("  {}", text(change));
        }
        println!("each needs {}; {} of {} agents have room for one now", amounts(&fit["needs"]), fit["fitting"], fit["agents"]);
        if let Some(change) = fit["change"].as_str().filter(|change| !change.is_empty()) {
            println!("help: {}", print::plain(change));
        }
        if plan["replaces"] == true {
            println!("all {} tasks are replaced, as its [update] says", plan["count"]);
        }
        if action != "nothing" {
            placement(client, &draft.job).await?;
        }
    }
    Ok(ExitCode::from(u8::from(action != "nothing")))
}

/// How many tasks a job would have.
fn tasks(count: &Value, job: &Value) -> String {
    if job["kind"] == "system" { format!("one task on each of {count} agents") } else { format!("{count} tasks") }
}

/// Shows where the tasks of a job would go, tried out on a copy of the cluster.
async fn placement(client: &Client, job: &Value) -> anyhow::Result<()> {
    let answer = match client.call(Method::POST, "/v1/what-if", &json!({ "what_if": [], "job": job })).await {
        Ok(answer) => answer,
        // A cluster that is too large or too busy for that, or of an earlier version.
        Err(error) if error.downcast_ref::<Refused>().is_some() => {
            println!("where they would go was not tried out: {error}");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let own = |task: &Value| match (job["name"].as_str(), task["task"].as_str().and_then(|task| task.rsplit_once('.'))) {
        (Some(name), Some((of, _))) => of == name,
        _ => true,
    };
    let goes = |task: &&Value| task["to"]["name"].is_string() && own(task);
    let mut by_agent: BTreeMap<String, u64> = BTreeMap::new();
    for task in rows(&answer["tasks"]).iter().filter(goes) {
        *by_agent.entry(text(&task["to"]["name"])).or_default() += 1;
    }
    for (agent, tasks) in by_agent {
        println!("  {tasks} on {agent}");
    }
    for job in rows(&answer["waiting"]) {
        println!("  {}: {}", text(&job["job"]), text(&job["text"]));
    }
    Ok(())
}

/// Shows what would be if; 1 where tasks would wait or end that do not now.
async fn what_if(client: &Client, file: Option<&Path>, supposed: &[String], shape: Shape) -> anyhow::Result<ExitCode> {
    let mut asked = json!({ "what_if": supposed });
    if let Some(file) = file {
        let draft = from_file(file)?;
        upload(client, &draft.bundles).await?;
        asked["job"] = draft.job;
    }
    let answer = client.call(Method::POST, "/v1/what-if", &asked).await?;
    println!("{}", if shape == Shape::Json { answer.to_string() } else { told(&answer) });
    let count = |fate: &str| answer["counts"][fate].as_u64().unwrap_or(0);
    let more = |job: &Value| job["waiting"].as_u64() > job["before"].as_u64();
    let worse = count("waits") + count("ends") > 0 || rows(&answer["waiting"]).iter().any(more);
    Ok(ExitCode::from(u8::from(worse)))
}

fn rows(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

fn told(answer: &Value) -> String {
    let mut lines = vec![text(&answer["text"])];
    let tasks = rows(&answer["tasks"]);
    if !tasks.is_empty() {
        let mut table = print::table(&["TASK", "ROLE", "WOULD", "FROM", "TO"]);
        for task in tasks.iter().take(ROWS_MAX) {
            let would = text(&task["fate"]).trim_end_matches('s').to_owned();
            table.add_row([text(&task["task"]), text(&task["role"]), would, text(&task["from"]["name"]), text(&task["to"]["name"])]);
        }
        lines.push(table.to_string());
    }
    let all: u64 = answer["counts"].as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum();
    let over = all.saturating_sub(tasks.len().min(ROWS_MAX) as u64);
    if over > 0 {
        lines.push(format!("(and {over} more: --output json shows up to 1000)"));
    }
    for job in rows(&answer["waiting"]) {
        let before = job["before"].as_u64().unwrap_or(0);
        let now = if before > 0 { format!(" ({before} wait now)") } else { String::new() };
        lines.push(format!("{}: {}{now}", text(&job["job"]), text(&job["text"])));
        if let Some(change) = job["fit"]["change"].as_str().filter(|change| !change.is_empty()) {
            lines.push(format!("  help: {}", print::plain(change)));
        }
    }
    let (agents, free) = (&answer["agents"], &answer["free"]);
    lines.push(format!("agents: {} → {}", agents["before"], agents["after"]));
    lines.push(format!("free: {} → {}", amounts(&free["before"]), amounts(&free["after"])));
    let took_ms = answer["took_ms"].as_u64().unwrap_or(0);
    lines.push(format!("all of it has followed after {}", print::micros(took_ms.saturating_mul(1_000))));
    if answer["settled"] == false {
        lines.push("more would follow: this is how it would stand when it was looked last".to_owned());
    }
    if let Some(anyway) = answer["anyway"].as_u64().filter(|anyway| *anyway > 0) {
        lines.push(format!("{anyway} other tasks are about to move or start anyway"));
    }
    lines.extend(rows(&answer["notes"]).iter().map(|note| format!("note: {}", text(note))));
    lines.join("\n")
}
