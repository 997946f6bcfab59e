//! `skep top`: what runs and what it uses, anew each second.

use crate::args::{Reach, Shape, Top};
use crate::client::Client;
use crate::print::{self, text};
use rustix::termios::isatty;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);

/// Shows until it is interrupted; without a terminal, once.
pub async fn top(reach: &Reach, flags: Top, shape: Shape) -> anyhow::Result<ExitCode> {
    let client = Client::find(reach)?;
    let live = isatty(std::io::stdout()) && !flags.once && shape != Shape::Json;
    let (mut before, mut at) = (client.get("/v1/usage").await?, Instant::now());
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
        }
        let now = client.get("/v1/usage").await?;
        let seconds = at.elapsed().as_secs_f64();
        at = Instant::now();
        let shown = if shape == Shape::Json {
            with_rates(&before, now.clone(), seconds).to_string()
        } else {
            screen(&before, &now, seconds, flags.limit)
        };
        let mut out = std::io::stdout().lock();
        // The whole screen in one write: cleared from the top, without a blink (ECMA-48, CUP and ED).
        writeln!(out, "{}{shown}", if live { "\x1b[H\x1b[J" } else { "" })?;
        out.flush()?;
        drop(out);
        if !live {
            return Ok(ExitCode::SUCCESS);
        }
        before = now;
    }
}

/// Which row is which, in both answers.
fn name(row: &Value) -> String {
    format!("{}/{}/{}/{}", row["task"], row["member"], row["agent"], row["role"])
}

fn cpu_before(before: &Value, list: &str) -> BTreeMap<String, u64> {
    let rows = before[list].as_array().into_iter().flatten();
    rows.map(|row| (name(row), row["cpu_us"].as_u64().unwrap_or(0))).collect()
}

/// Cores that a row used since the last look.
fn cores(row: &Value, before: &BTreeMap<String, u64>, seconds: f64) -> f64 {
    let now = row["cpu_us"].as_u64().unwrap_or(0);
    let since = now.saturating_sub(before.get(&name(row)).copied().unwrap_or(now));
    since as f64 / 1e6 / seconds.max(0.001)
}

fn with_rates(before: &Value, mut now: Value, seconds: f64) -> Value {
    for list in ["tasks", "executors"] {
        let known = cpu_before(before, list);
        for row in now[list].as_array_mut().into_iter().flatten() {
            row["cores"] = ((cores(row, &known, seconds) * 1_000.0).round() / 1_000.0).into();
        }
    }
    now
}

fn screen(before: &Value, now: &Value, seconds: f64, limit: usize) -> String {
    let list = |list: &str| {
        let known = cpu_before(before, list);
        let mut rows: Vec<(f64, Value)> =
            now[list].as_array().into_iter().flatten().map(|row| (cores(row, &known, seconds), row.clone())).collect();
        rows.sort_by(|a, b| b.0.total_cmp(&a.0));
        rows
    };
    let (tasks, executors) = (list("tasks"), list("executors"));
    let memory = |row: &Value| print::bytes(row["memory_bytes"].as_u64().unwrap_or(0));
    let mut table = print::table(&["WHAT", "AGENT", "CORES", "MEMORY", "PROCESSES"]);
    for (cores, row) in &executors {
        let what = format!("executor of role {}", text(&row["role"]));
        table.add_row([what, text(&row["agent"]), format!("{cores:.2}"), memory(row), String::new()]);
    }
    for (cores, row) in tasks.iter().take(limit) {
        let index = text(&row["task"]).rsplit('.').next().unwrap_or_default().to_owned();
        let what = format!("{}.{index}", text(&row["job"]));
        let processes = row["processes"].as_u64().map_or_else(|| "wasm".into(), |processes| processes.to_string());
        table.add_row([what, text(&row["agent"]), format!("{cores:.2}"), memory(row), processes]);
    }
    // What wasm tasks use is in their executors' already.
    let (processes, wasm): (Vec<_>, Vec<_>) = tasks.iter().partition(|(_, row)| row["processes"].is_u64());
    let counted = || processes.iter().copied().chain(&executors);
    let all = counted().fold(0.0, |all, (cores, _)| all + cores);
    let held: u64 = counted().filter_map(|(_, row)| row["memory_bytes"].as_u64()).sum();
    let mut head = format!(
        "{} native and container tasks, {} wasm tasks in {} executors: {all:.2} cores, {}",
        processes.len(),
        wasm.len(),
        executors.len(),
        print::bytes(held)
    );
    let silent: Vec<String> = now["silent"].as_array().into_iter().flatten().map(text).collect();
    if !silent.is_empty() {
        head.push_str(&format!("; no answer from {}", silent.join(" ")));
    }
    format!("{head}\n{table}")
}
