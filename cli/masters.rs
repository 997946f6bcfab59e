//! `skep masters`: who decides, which master leads what, and how far each is behind.

use crate::args::{Masters, MastersVerb, Reach, Shape};
use crate::client::Client;
use crate::print::{self, text};
use anyhow::{Context, bail};
use futures::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

/// Shows or changes masters.
pub async fn masters(reach: &Reach, flags: Masters, shape: Shape) -> anyhow::Result<ExitCode> {
    if let Some(MastersVerb::Restore { file, data }) = &flags.verb {
        return restore(file, data);
    }
    let client = Client::find(reach)?;
    match flags.verb {
        None => list(&client, shape).await,
        Some(MastersVerb::Backup { file }) => backup(&client, &file).await,
        Some(MastersVerb::Restore { .. }) => unreachable!("it takes no cluster"),
        Some(MastersVerb::Remove { number }) => {
            client.call(Method::POST, &format!("/v1/masters/{number}/remove"), &json!({})).await?;
            println!("master {number} is removed: it has a vote in nothing any more, and may be switched off");
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Writes a backup to a new file, which has its name only when it is whole.
async fn backup(client: &Client, file: &Path) -> anyhow::Result<ExitCode> {
    let response = client.send(client.request(Method::GET, "/v1/backup")).await?;
    let mut pieces = response.bytes_stream();
    let to_stdout = file.as_os_str() == "-";
    if !to_stdout && file.exists() {
        bail!("{} is there already", file.display());
    }
    let scratch = file.with_extension("part");
    let mut out: Box<dyn Write> = match to_stdout {
        true => Box::new(std::io::stdout()),
        false => {
            let opened = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&scratch);
            Box::new(opened.with_context(|| scratch.display().to_string())?)
        }
    };
    let mut bytes = 0;
    while let Some(piece) = pieces.next().await {
        let piece = piece.context("the backup broke off")?;
        bytes += piece.len();
        out.write_all(&piece)?;
    }
    out.flush()?;
    if !to_stdout {
        std::fs::File::open(&scratch)?.sync_all()?;
        std::fs::rename(&scratch, file)?;
        println!("{bytes} bytes in {}: the cluster's keys are in it", file.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn restore(file: &Path, data: &Path) -> anyhow::Result<ExitCode> {
    let from: Box<dyn Read> = match file.as_os_str() == "-" {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(file).with_context(|| file.display().to_string())?),
    };
    let head = master::drive::backup::restore(from, data)?;
    println!("cluster {} of {} shards is in {}", head.cluster, head.shards, data.display());
    println!(
        "start it with `skep master --data {}`; other masters join it anew, agents find it where they find one of its old masters",
        data.display()
    );
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
