//! `skep masters`: who decides, which master leads what, and how far each is behind.

use crate::args::{Masters, MastersVerb, Reach, Shape};
use crate::backup::{backup, restore};
use crate::client::Client;
use crate::manage::milliseconds;
use crate::print::{self, text};
use anyhow::Context;
use reqwest::Method;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Shows or changes masters.
pub async fn masters(reach: &Reach, flags: Masters, shape: Shape) -> anyhow::Result<ExitCode> {
    if let Some(MastersVerb::Restore { target, data }) = &flags.verb {
        return restore(target, data).await;
    }
    let client = Client::find(reach)?;
    match flags.verb {
        None => list(&client, shape).await,
        Some(MastersVerb::Backup { target }) => backup(&client, &target).await,
        Some(MastersVerb::LogLevel { level, length }) => log_level(&client, level, length, shape).await,
        Some(MastersVerb::Restore { .. }) => unreachable!("it takes no cluster"),
        Some(MastersVerb::Remove { number }) => {
            client.call(Method::POST, &format!("/v1/masters/{number}/remove"), &json!({})).await?;
            println!("master {number} is removed: it has a vote in nothing any more, and may be switched off");
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn log_level(client: &Client, level: Option<String>, length: Option<String>, shape: Shape) -> anyhow::Result<ExitCode> {
    const PATH: &str = "/v1/masters/log-level";
    let answer = match level {
        None => client.get(PATH).await?,
        Some(level) => {
            let time = |text: &str| milliseconds(text).with_context(|| format!("--for {text}: expected a time such as 90s, 30m or 8h"));
            let for_ms = length.as_deref().map(time).transpose()?;
            client.call(Method::PUT, PATH, &json!({ "level": level, "for_ms": for_ms })).await?
        }
    };
    if shape == Shape::Json {
        println!("{answer}");
    } else {
        let left = answer["left_ms"].as_u64().map_or_else(String::new, |ms| format!(", for another {} s", ms / 1_000));
        println!("master {} logs as {}{left}", text(&answer["master"]), text(&answer["level"]));
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(client: &Client, shape: Shape) -> anyhow::Result<ExitCode> {
    let answer = client.get("/v1/masters").await?;
    if shape == Shape::Json {
        println!("{answer}");
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = print::table(&["MASTER", "STATE", "HTTP", "QUIC", "LEADS", "VOTES", "AGENTS", "BEHIND", "VERSION"]);
    let masters = answer["masters"].as_array().context("the answer has no masters")?;
    for master in masters {
        let leads = master["leads"].as_array().map_or(0, Vec::len);
        table.add_row([
            text(&master["number"]),
            text(&master["state"]),
            text(&master["http"]),
            text(&master["quic"]),
            format!("{leads} shards"),
            text(&master["votes"]),
            master["agents"].as_u64().map_or_else(|| "not known".to_owned(), |agents| agents.to_string()),
            master["lag"].as_u64().map_or_else(|| "not known".to_owned(), |lag| format!("{lag} entries")),
            text(&master["version"]),
        ]);
    }
    println!("{table}");
    let groups = answer["groups"].as_array().context("the answer has no groups")?;
    let unled: Vec<String> = groups.iter().filter(|group| group["leader"].is_null()).map(|group| text(&group["shard"])).collect();
    if !unled.is_empty() {
        println!("nobody leads shards {}: most masters that have a vote must reach each other", unled.join(", "));
    }
    println!("terms: {}", groups.iter().map(|group| text(&group["term"])).collect::<Vec<_>>().join(" "));
    println!("{}", outlook(masters.len(), &answer["may_fail"]));
    Ok(ExitCode::SUCCESS)
}

/// What the number of masters means.
fn outlook(count: usize, may_fail: &Value) -> String {
    match (may_fail.as_u64().unwrap_or(0), count) {
        (0, 2) => "no master may fail: with one more the cluster survives the loss of any one".into(),
        (0, _) => "no master may fail: with two more the cluster survives the loss of any one".into(),
        (1, _) => "one master may fail, and the cluster goes on".into(),
        (n, _) => format!("{n} masters may fail, and the cluster goes on"),
    }
}
