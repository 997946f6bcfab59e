//! `skep demo`: a real cluster in a temporary place, tasks that end in every way a limit can end them, and a table of what each did.

use crate::args::Demo;
use crate::bench::temporary;
use crate::client::Client;
use crate::job::upload;
use crate::print::{self, text};
use crate::submit::{Answer, Submission, line};
use crate::up::Cluster;
use agent::drive::Ending;
use anyhow::{Context, bail};
use protocol::Digest;
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// One line of the tour.
struct Stop {
    name: &'static str,
    sample: &'static str,
    about: &'static str,
    job: Value,
    /// How the first task must end.
    ends: &'static str,
}

fn stops() -> Vec<Stop> {
    let stop = |name, sample, about, ends, job| Stop { name, sample, about, job, ends };
    vec![
        stop("hello", "hello", "arguments, environment, output", "code", json!({ "task": { "args": ["world"] } })),
        stop(
            "greet",
            "greet",
            "a WASI 0.2 component that asks who it is",
            "code",
            json!({ "task": { "config": { "greeting": "good day" } }, "count": 3 }),
        ),
        stop(
            "pair",
            "greet",
            "a group: a greeter and a sleeper, on one agent",
            "code",
            json!({ "task": [
                { "name": "greeter", "resources": { "memory": "8MiB" } },
                { "name": "sleeper", "wasm": "nap", "args": ["100"], "resources": { "memory": "8MiB" } },
            ] }),
        ),
        stop("sieve", "sieve", "primes up to a million, counted in fuel", "code", json!({ "task": { "args": ["1000000"] }, "count": 4 })),
        stop(
            "burn",
            "sieve",
            "the same with too little fuel",
            "out-of-fuel",
            json!({ "task": { "args": ["1000000"] }, "limits": { "fuel": "1M" } }),
        ),
        stop("hog", "hog", "takes memory until it is stopped for it", "out-of-memory", json!({ "limits": { "memory": "32MiB" } })),
        stop("spin", "spin", "an endless loop, ended by the clock on the wall", "out-of-time", json!({ "limits": { "time": "300ms" } })),
        stop("trap", "noop", "does what wasm forbids", "trap", json!({ "task": { "args": ["0", "0", "1"] } })),
        stop(
            "many",
            "noop",
            "ten thousand tasks, each with its own argument",
            "code",
            json!({ "count": 10_000, "task": { "args": ["${task.index}", "0", "4000000000"] },
            "resources": { "cpu": 0.01, "memory": "64KiB" } }),
        ),
    ]
}

/// Runs the tour.
pub async fn demo(flags: Demo) -> anyhow::Result<ExitCode> {
    crate::daemon::trace();
    let start = Instant::now();
    let place = temporary("skep-demo")?;
    let any = "127.0.0.1:0".parse()?;
    println!("starting a cluster of one in {}: master, agent, executors, everything on", place.display());
    let cluster = Cluster::start(&place, any, any, 8, None).await?;
    println!("up after {}: {}\n", print::micros(start.elapsed().as_micros() as u64), cluster.access.url);
    let result = tour(&Client::new(cluster.access.clone())?, &flags.samples).await;
    cluster.stop(Ending::TasksEnd).await?;
    std::fs::remove_dir_all(&place).with_context(|| place.display().to_string())?;
    let odd = result?;
    println!("\nthe cluster is gone again; `skep up` starts one that stays. Native and container tasks are not there yet.");
    if odd == 0 { Ok(ExitCode::SUCCESS) } else { bail!("{odd} of them did not end as they must") }
}

async fn tour(client: &Client, samples: &Path) -> anyhow::Result<usize> {
    let mut table = print::table(&["TASK", "WHAT IT DOES", "TASKS", "TOOK", "FUEL", "MEMORY", "HOW IT ENDED"]);
    let mut outputs = vec![];
    let mut odd = 0;
    for stop in stops() {
        let (row, output, right) = visit(client, samples, &stop).await.with_context(|| stop.name.to_owned())?;
        odd += usize::from(!right);
        table.add_row(row);
        outputs.extend(output);
    }
    println!("{table}");
    println!("\nwhat they printed:");
    outputs.iter().take(14).for_each(|line| println!("  {line}"));
    Ok(odd)
}

async fn visit(client: &Client, samples: &Path, stop: &Stop) -> anyhow::Result<(Vec<String>, Vec<String>, bool)> {
    let mut job = stop.job.clone();
    job["name"] = json!(stop.name);
    job["kind"] = json!("batch");
    match &mut job["task"] {
        Value::Array(tasks) => {
            for task in tasks {
                let sample = task["wasm"].as_str().unwrap_or(stop.sample).to_owned();
                task["wasm"] = json!(uploaded(client, samples, &sample).await?);
            }
        }
        task => task["wasm"] = json!(uploaded(client, samples, stop.sample).await?),
    }
    let count = job["count"].as_u64().unwrap_or(1);
    let start = Instant::now();
    let mut submission = Submission::open(client).await?;
    submission.send(line(stop.name, &job, true)).await?;
    let end = loop {
        if let Answer::Ended { job, .. } = submission.next().await? {
            break job;
        }
    };
    let took = print::micros(start.elapsed().as_micros() as u64);
    let id = text(&end["id"]);
    let page = client.get(&format!("/v1/jobs/{id}/tasks?limit=1")).await?;
    let task = &page["tasks"][0];
    let right = task["exit"]["kind"] == stop.ends && (stop.ends != "code" || end["tasks"]["finished"] == count);
    let usage = |name: &str| task["usage"][name].as_u64().unwrap_or(0);
    let ended =
        if right { text(&task["exit"]["text"]) } else { format!("{}: it was to end with {}", text(&task["exit"]["text"]), stop.ends) };
    let row = vec![
        stop.name.to_owned(),
        stop.about.to_owned(),
        print::count(count),
        took,
        print::count(usage("fuel")),
        print::bytes(usage("memory_peak_bytes")),
        ended,
    ];
    let output = if count < 100 { output(client, &id, stop.name).await? } else { vec![] };
    Ok((row, output, right))
}

/// Uploads a sample; gives what a job names it by.
async fn uploaded(client: &Client, samples: &Path, sample: &str) -> anyhow::Result<String> {
    let path = samples.join(format!("{sample}.wasm"));
    let bytes = std::fs::read(&path)
        .with_context(|| format!("{}: build the samples with samples/build, or name their folder with --samples", path.display()))?;
    let digest = Digest::of(&bytes);
    upload(client, &[(digest, bytes)]).await?;
    Ok(format!("sha256:{digest}"))
}

async fn output(client: &Client, id: &str, name: &str) -> anyhow::Result<Vec<String>> {
    use futures::StreamExt;
    let request =
        client.request(reqwest::Method::GET, &format!("/v1/jobs/{id}/logs?follow=false")).header("accept", "application/x-ndjson");
    let mut lines = client.lines(request).await?;
    let mut found = vec![];
    while let Some(line) = lines.next().await {
        let line = line?;
        let said = line["text"].as_str().unwrap_or_default();
        let task = text(&line["task"]);
        let index = task.rsplit('.').next().unwrap_or_default();
        let member = line["member"].as_str().map(|member| format!("/{}", print::plain(member))).unwrap_or_default();
        found.extend(said.lines().map(|said| format!("{name}.{index}{member}: {}", print::plain_line(said))));
    }
    Ok(found)
}
