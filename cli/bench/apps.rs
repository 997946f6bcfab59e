//! What many services cost whoever looks at them: thousands of apps with their tasks on many agents (`crowd`), and lists of them over our API and over
//! Marathon's.

use super::agents::{self, LOOK};
use super::crowd::Crowd;
use super::figure::{Figures, What};
use super::masters::PATIENCE;
use super::member::{Member, STAYS};
use crate::client::Client;
use anyhow::Context;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Tasks of each app.
const TASKS_EACH: u32 = 20;
/// Apps that are made with one request.
const AT_ONCE: u32 = 250;
/// How often each list is read.
const READS: usize = 21;

/// Makes them all, waits until they run, and reads the lists.
pub async fn apps(figures: &mut Figures, run: u32, count: u32, machines: u32) -> anyhow::Result<()> {
    agents::may_open(u64::from(machines))?;
    let cluster = super::cluster::Cluster::master(&[]).await?;
    let address = cluster.quic()?;
    let what = What { bench: "apps", kind: "crowd", n: u64::from(count), run };
    let identities = agents::join(&cluster.client, address, machines).await?;
    let mut crowd = Crowd::start(&[address], &identities, &Member::count(1), 0).await?;
    agents::until_registered(&cluster.client, &mut crowd, machines).await?;
    let start = Instant::now();
    for first in (0..count).step_by(AT_ONCE as usize) {
        let made: Value = (first..count.min(first + AT_ONCE)).map(app).collect();
        tokio::select! {
            answer = cluster.client.call(Method::PUT, "/v2/apps", &made) => drop(answer?),
            ended = crowd.gone() => return Err(ended),
        }
    }
    figures.add(&what, "made", f64::from(count) / start.elapsed().as_secs_f64(), "/s");
    let tasks = u64::from(count) * u64::from(TASKS_EACH);
    agents::until(&cluster.client, &mut crowd, "all run", "/v2/apps", |list| {
        let apps = list["apps"].as_array().into_iter().flatten();
        apps.filter_map(|app| app["tasksRunning"].as_u64()).sum::<u64>() == tasks
    })
    .await?;
    for (metric, path) in [("apps_whole", "/v2/apps"), ("jobs_page", "/v1/jobs"), ("groups", "/v2/groups"), ("tasks_text", "/v2/tasks")] {
        let mut times = vec![];
        let mut bytes = 0;
        for _ in 0..READS {
            let (took, read) = tokio::select! {
                read = read(&cluster.client, path) => read?,
                ended = crowd.gone() => return Err(ended),
            };
            times.push(took);
            bytes = read;
            crowd.beat(LOOK).await?;
        }
        times.sort_unstable();
        figures.add(&what, &format!("{metric}_p50"), times[times.len() / 2].as_secs_f64() * 1_000.0, "ms");
        figures.add(&what, &format!("{metric}_max"), times[times.len() - 1].as_secs_f64() * 1_000.0, "ms");
        figures.add(&what, &format!("{metric}_bytes"), bytes as f64, "bytes");
    }
    Ok(())
}

/// One app, as people write them.
fn app(number: u32) -> Value {
    json!({
        "id": format!("/{STAYS}-{number}"), "cmd": "exec ./server --port $PORT0", "cpus": 0.01, "mem": 4, "instances": TASKS_EACH, "ports": [],
        "env": { "LOG": "info", "NUMBER": number.to_string() }, "labels": { "team": format!("team-{}", number % 50), "tier": "backend" },
        "healthChecks": [{ "protocol": "COMMAND", "command": { "value": "true" } }], "upgradeStrategy": { "minimumHealthCapacity": 0.5 },
    })
}

/// How long an answer takes until it is there whole, and how long it is.
async fn read(client: &Client, path: &str) -> anyhow::Result<(Duration, usize)> {
    let start = Instant::now();
    let request = client.request(Method::GET, path).header("accept", if path == "/v2/tasks" { "text/plain" } else { "application/json" });
    let bytes = tokio::time::timeout(PATIENCE, client.send(request).await?.bytes()).await.context("the list does not end")??;
    Ok((start.elapsed(), bytes.len()))
}
