//! What of a job is not well: tasks that their checks find so, and tasks that end again and again, with what they printed last.

use crate::client::Client;
use crate::print::{self, text};
use crate::show::Named;
use futures::StreamExt;
use reqwest::Method;
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};

/// Tasks that are named of each sort.
const TASKS_SHOWN: usize = 5;
/// From this attempt on a task that waits to be started again is said to end again and again.
const LOOP_FROM: u64 = 3;
/// Lines of output that are shown.
const LINES_SHOWN: usize = 5;
/// Most bytes of a task's output that are kept while its end is looked for.
const OUTPUT_BYTES_KEPT: usize = 16 << 10;

/// How many tasks of a job are well; nothing where it has no checks.
pub fn counts(job: &Value) -> Option<String> {
    let health = job["health"].as_object()?;
    let parts: Vec<String> = ["healthy", "unready", "unhealthy"]
        .into_iter()
        .filter_map(|state| health.get(state)?.as_u64().filter(|count| *count > 0).map(|count| format!("{count} {state}")))
        .collect();
    Some(if parts.is_empty() { "none runs".to_owned() } else { parts.join(", ") })
}

/// What is known of how a task is, on one line; nothing where it is not asked.
pub fn health(task: &Value) -> Option<String> {
    let state = task["health"]["state"].as_str()?;
    let reason = task["health"]["reason"].as_str().map(|reason| format!(": {}", print::plain_line(reason))).unwrap_or_default();
    Some(format!("{}{reason}", print::plain(state)))
}

/// A line for each that is not well, and for each that ends again and again, with the last lines of the first of these.
pub async fn lines(client: &Client, named: &Named, job: &Value) -> anyhow::Result<Vec<String>> {
    let mut lines = vec![];
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    if count(&job["health"]["unhealthy"]) + count(&job["health"]["unready"]) > 0 {
        let answer = client.get(&named.path("/tasks", "phase=running&limit=1000")).await?;
        let tasks = answer["tasks"].as_array().into_iter().flatten();
        let unwell = tasks.filter(|task| task["health"]["state"] != "healthy" && task["health"]["reason"].is_string());
        lines.extend(unwell.take(TASKS_SHOWN).filter_map(|task| Some(format!("{}.{} is {}", named.job, task["index"], health(task)?))));
    }
    if count(&job["restarts"]) > 0 && count(&job["tasks"]["waiting"]) > 0 {
        let answer = client.get(&named.path("/tasks", "phase=waiting&limit=1000")).await?;
        let tasks = answer["tasks"].as_array().into_iter().flatten();
        let again = tasks.filter(|task| {
            count(&task["attempt"]) >= LOOP_FROM && !["lost", "killed"].contains(&task["exit"]["kind"].as_str().unwrap_or("lost"))
        });
        let again: Vec<&Value> = again.take(TASKS_SHOWN).collect();
        lines.extend(again.iter().map(|task| loops(named, task)));
        if let Some(index) = again.first().and_then(|task| task["index"].as_u64()) {
            let last = last_lines(client, named, index).await?;
            if !last.is_empty() {
                lines.push(format!("{}.{index} printed last:", named.job));
                lines.extend(last.into_iter().map(|line| format!("  {line}")));
            }
        }
    }
    Ok(lines)
}

fn loops(named: &Named, task: &Value) -> String {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let left_s = task["retry_at_ms"].as_u64().map(|at| u128::from(at).saturating_sub(now_ms).div_ceil(1_000));
    let again = left_s.map(|seconds| format!("; it is started again in {seconds} s")).unwrap_or_default();
    format!("{}.{} ends again and again: attempt {}, {}{again}", named.job, task["index"], task["attempt"], text(&task["exit"]["text"]))
}

/// What a task printed last, a line each.
async fn last_lines(client: &Client, named: &Named, index: u64) -> anyhow::Result<Vec<String>> {
    let mut said = client.lines(client.request(Method::GET, &named.path("/logs", &format!("task={index}")))).await?;
    let mut kept = String::new();
    while let Some(line) = said.next().await {
        kept.push_str(line?["text"].as_str().unwrap_or(""));
        let over = kept.len().saturating_sub(OUTPUT_BYTES_KEPT);
        kept.drain(..kept.ceil_char_boundary(over));
    }
    let all: Vec<&str> = kept.lines().collect();
    Ok(all[all.len().saturating_sub(LINES_SHOWN)..].iter().map(|line| print::plain_line(line)).collect())
}
