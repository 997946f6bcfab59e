//! `skep maintenance`: when agents are maintained.

use crate::args::{Maintenance, MaintenanceVerb, Reach, Shape};
use crate::client::Client;
use crate::manage::{meant, milliseconds, say};
use crate::print::{self, text};
use anyhow::Context;
use reqwest::Method;
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Shows windows, schedules one or cancels one.
pub async fn maintenance(reach: &Reach, flags: Maintenance, shape: Shape) -> anyhow::Result<ExitCode> {
    let client = Client::find(reach)?;
    let time =
        |flag: &str, given: &str| milliseconds(given).with_context(|| format!("{flag} {given}: expected a time such as 90s, 30m or 8h"));
    match flags.verb.unwrap_or(MaintenanceVerb::List) {
        MaintenanceVerb::Schedule { agents, after, length, grace, note } => {
            let known = client.get("/v1/agents").await?;
            let rows = known["agents"].as_array().cloned().unwrap_or_default();
            let ids = agents.iter().map(|agent| Ok(text(&meant(&rows, agent)?["id"]))).collect::<anyhow::Result<Vec<_>>>()?;
            let body = json!({
                "agents": ids,
                "from_ms": now_ms() + time("--in", &after)?,
                "for_ms": length.as_deref().map(|length| time("--for", length)).transpose()?,
                "grace_ms": time("--grace", &grace)?,
                "note": note,
            });
            let answer = client.call(Method::POST, "/v1/maintenance", &body).await?;
            Ok(say(shape, &answer, &format!("window {}: {} {} emptied in {after}", answer["number"], agents.join(", "), are(&agents))))
        }
        MaintenanceVerb::Cancel { window } => {
            let answer = client.call(Method::DELETE, &format!("/v1/maintenance/{window}"), &json!({})).await?;
            Ok(say(shape, &answer, &format!("window {window} is cancelled: its agents are given tasks")))
        }
        MaintenanceVerb::List => list(&client, shape).await,
    }
}

const fn are(agents: &[String]) -> &'static str {
    if agents.len() == 1 { "is" } else { "are" }
}

async fn list(client: &Client, shape: Shape) -> anyhow::Result<ExitCode> {
    let answer = client.get("/v1/maintenance").await?;
    let known = client.get("/v1/agents").await?;
    let name = |id: &Value| {
        let row = known["agents"].as_array().into_iter().flatten().find(|row| row["id"] == *id);
        row.map_or_else(|| text(id), |row| text(&row["name"]))
    };
    let mut table = print::table(&["WINDOW", "STATE", "AGENTS", "BEGINS", "TAKES", "FRAMEWORKS", "NOTE"]);
    for row in answer["windows"].as_array().into_iter().flatten() {
        let agents: Vec<String> = row["agents"].as_array().into_iter().flatten().map(name).collect();
        let from = row["from_ms"].as_u64().unwrap_or(0);
        let begins = match from.checked_sub(now_ms()) {
            Some(left) if left > 0 => format!("in {} s", left / 1_000),
            _ => format!("{} ago", print::ago(from)),
        };
        let takes =
            row["until_ms"].as_u64().map_or_else(|| "until cancelled".into(), |until| format!("{} s", until.saturating_sub(from) / 1_000));
        let answers = row["frameworks"].as_array().into_iter().flatten();
        let answers: Vec<String> = answers.map(|of| format!("{} {}", text(&of["framework"]), text(&of["answer"]))).collect();
        table.add_row([
            text(&row["number"]),
            text(&row["state"]),
            agents.join(", "),
            begins,
            takes,
            answers.join(", "),
            text(&row["note"]),
        ]);
    }
    Ok(say(shape, &answer, &table.to_string()))
}
