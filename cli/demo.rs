//! `skep demo`: a real cluster in a temporary place, tasks that end in every way a limit can end them, and a table of what each did.

use crate::args::Demo;
use crate::bench::temporary;
use crate::client::Client;
use crate::job::upload;
use crate::print::{self, text};
use crate::rights::{self, Around, Begun};
use crate::submit::{Answer, Submission, line};
use crate::thing::Bundle;
use crate::up::{Cluster, Gives, Ports};
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// One line of the tour.
struct Stop {
    name: &'static str,
    about: &'static str,
    job: Value,
    /// How the first task must end.
    ends: &'static str,
}

/// Stops whose tasks are ended by what control groups count.
const IN_GROUPS: [&str; 2] = ["glutton", "forks"];

/// What native tasks of the tour run: a script that tells who it is, or does what it is asked to.
const SCRIPT: &[u8] = b"#!/bin/sh\n\
    [ $# = 0 ] || exec \"$@\"\n\
    echo \"I am $(id -un) on $(hostname) in $(pwd); I see $(ls /proc | grep -c '^[0-9]') processes and $(grep -c : /proc/net/dev) network device\"\n";

/// What runs is named by what it is here: a sample of wasm, the script, or the image.
fn stops() -> Vec<Stop> {
    let stop = |name, about, ends, job| Stop { name, about, job, ends };
    let mut stops = vec![
        stop("hello", "arguments, environment, output", "code", json!({ "task": { "wasm": "hello", "args": ["world"] } })),
        stop(
            "greet",
            "a WASI 0.2 component that asks who it is",
            "code",
            json!({ "task": { "wasm": "greet", "config": { "greeting": "good day" } }, "count": 3 }),
        ),
        stop("script", "native: a script in a jail of its own", "code", json!({ "task": { "native": "script" } })),
        stop("image", "container: an image made of busybox just now", "code", json!({ "task": { "image": "busybox" } })),
        stop(
            "trio",
            "a group of all three kinds, on one agent",
            "code",
            json!({ "task": [
                { "name": "wasm", "wasm": "greet", "resources": { "memory": "8MiB" } },
                { "name": "native", "native": "script", "resources": { "memory": "8MiB" } },
                { "name": "container", "image": "busybox", "args": ["id"], "resources": { "memory": "8MiB" } },
            ] }),
        ),
    ];
    stops.extend(limits());
    stops
}

/// Tasks that run into their limits, and many at once.
fn limits() -> Vec<Stop> {
    let stop = |name, about, ends, job| Stop { name, about, job, ends };
    let hog = ["tail", "/dev/zero"];
    let forks = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 60 & done";
    vec![
        stop(
            "sieve",
            "primes up to a million, counted in fuel",
            "code",
            json!({ "task": { "wasm": "sieve", "args": ["1000000"] }, "count": 4 }),
        ),
        stop(
            "burn",
            "the same with too little fuel",
            "out-of-fuel",
            json!({ "task": { "wasm": "sieve", "args": ["1000000"] }, "limits": { "fuel": "1M" } }),
        ),
        stop(
            "hog",
            "takes memory until it is stopped for it",
            "out-of-memory",
            json!({ "task": { "wasm": "hog" }, "limits": { "memory": "32MiB" } }),
        ),
        stop(
            "glutton",
            "native: the same",
            "out-of-memory",
            json!({ "task": { "native": "script", "args": hog }, "resources": { "memory": "32MiB" } }),
        ),
        stop(
            "forks",
            "container: more processes than it may",
            "out-of-processes",
            json!({ "task": { "image": "busybox", "args": [forks] }, "limits": { "processes": 8 }, "resources": { "memory": "16MiB" } }),
        ),
        stop(
            "spin",
            "an endless loop, ended by the clock on the wall",
            "out-of-time",
            json!({ "task": { "wasm": "spin" }, "limits": { "time": "300ms" } }),
        ),
        stop(
            "sleeper",
            "native: sleeps too long",
            "out-of-time",
            json!({ "task": { "native": "script", "args": ["sleep", "60"] }, "limits": { "time": "300ms" }, "resources": { "memory": "8MiB" } }),
        ),
        stop("trap", "does what wasm forbids", "trap", json!({ "task": { "wasm": "noop", "args": ["0", "0", "1"] } })),
        stop(
            "many",
            "ten thousand tasks, each with its own argument",
            "code",
            json!({ "count": 10_000, "task": { "wasm": "noop", "args": ["${task.index}", "0", "4000000000"] },
            "resources": { "cpu": 0.01, "memory": "64KiB" } }),
        ),
        stop(
            "scripts",
            "a hundred native tasks, each in a jail of its own",
            "code",
            json!({ "count": 100, "task": { "native": "script", "args": ["true"] }, "resources": { "cpu": 0.01, "memory": "4MiB" } }),
        ),
    ]
}

/// What is read or made as the user who runs it, before there is a thread.
pub struct Prepared {
    place: PathBuf,
    begun: Begun,
    wasm: BTreeMap<&'static str, Vec<u8>>,
}

impl Prepared {
    /// Reads the samples, and begins a cluster in a new place.
    ///
    /// # Errors
    /// What was tried, and the system's words.
    pub fn new(flags: &Demo) -> anyhow::Result<Self> {
        let sample = |name: &'static str| {
            let path = flags.samples.join(format!("{name}.wasm"));
            let bytes = std::fs::read(&path).with_context(|| {
                format!("{}: build the samples with samples/build, or name their folder with --samples", path.display())
            })?;
            Ok((name, bytes))
        };
        let wasm = ["hello", "greet", "sieve", "hog", "spin", "noop"].into_iter().map(sample).collect::<anyhow::Result<_>>()?;
        let place = temporary("skep-demo")?;
        // The master's part lies in the agent's, and goes with it.
        let begun = rights::begin(&place, Around::None)?;
        Ok(Self { place, begun, wasm })
    }
}

/// Runs the tour.
pub async fn demo(prepared: Prepared) -> anyhow::Result<ExitCode> {
    let logging = crate::daemon::trace_one();
    let Prepared { place, begun, wasm } = prepared;
    let start = Instant::now();
    let any = "127.0.0.1:0".parse()?;
    println!("starting a cluster of one in {}: master, agent, executors, everything on", place.display());
    let cluster =
        Cluster::start(&place, begun, Ports { http: any, quic: any, mesos: None, marathon: None, dns: None }, 8, Gives::default(), logging)
            .await?;
    println!("up after {}: {}\n", print::micros(start.elapsed().as_micros() as u64), cluster.access.url);
    let result = tour(&Client::new(cluster.access.clone())?, wasm, cluster.bounds_processes()).await;
    cluster.vanish().await?;
    let odd = result?;
    println!("\nthe cluster is gone again; `skep up` starts one that stays.");
    if odd == 0 { Ok(ExitCode::SUCCESS) } else { bail!("{odd} of them did not end as they must") }
}

async fn tour(client: &Client, samples: BTreeMap<&'static str, Vec<u8>>, bounded: bool) -> anyhow::Result<usize> {
    let mut table = print::table(&["TASK", "WHAT IT DOES", "TASKS", "TOOK", "FUEL", "MEMORY", "HOW IT ENDED"]);
    let mut outputs = vec![];
    let mut odd = 0;
    let things = Things::upload(client, samples).await?;
    for stop in stops() {
        if !bounded && IN_GROUPS.contains(&stop.name) {
            println!("skipped: {}: there are no control groups that bound its processes together", stop.name);
            continue;
        }
        let visited = visit(client, &things, &stop).await.with_context(|| stop.name.to_owned())?;
        let Some((row, output, right)) = visited else {
            println!("skipped: {}: {}", stop.name, things.busybox.as_ref().err().map_or("", String::as_str));
            continue;
        };
        odd += usize::from(!right);
        table.add_row(row);
        outputs.extend(output);
    }
    println!("{table}");
    println!("\nwhat they printed:");
    outputs.iter().take(18).for_each(|line| println!("  {line}"));
    Ok(odd)
}

/// What is uploaded before the tour, by what jobs name it by.
struct Things {
    wasm: BTreeMap<String, String>,
    script: String,
    /// Or why there is none.
    busybox: Result<String, String>,
}

impl Things {
    async fn upload(client: &Client, samples: BTreeMap<&'static str, Vec<u8>>) -> anyhow::Result<Self> {
        let mut wasm = BTreeMap::new();
        for (name, bytes) in samples {
            wasm.insert(name.to_owned(), uploaded(client, bytes).await?);
        }
        let busybox = match crate::busybox::busybox() {
            Ok(bytes) => Ok(uploaded(client, bytes).await?),
            Err(reason) => Err(reason),
        };
        Ok(Self { wasm, script: uploaded(client, SCRIPT.to_vec()).await?, busybox })
    }

    /// Puts digests in the place of names; false: what is named is not there.
    fn name(&self, task: &mut Value) -> bool {
        if let Some(name) = task["wasm"].as_str().map(str::to_owned) {
            task["wasm"] = json!(self.wasm[&name]);
        } else if task["native"].is_string() {
            task["native"] = json!(self.script);
        } else {
            let Ok(image) = &self.busybox else { return false };
            task["image"] = json!(image);
        }
        true
    }
}

/// `None`: it cannot be run here.
async fn visit(client: &Client, things: &Things, stop: &Stop) -> anyhow::Result<Option<(Vec<String>, Vec<String>, bool)>> {
    let mut job = stop.job.clone();
    job["name"] = json!(stop.name);
    job["kind"] = json!("batch");
    let named = match &mut job["task"] {
        Value::Array(tasks) => tasks.iter_mut().all(|task| things.name(task)),
        task => things.name(task),
    };
    if !named {
        return Ok(None);
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
    Ok(Some((row, output, right)))
}

/// Uploads a bundle; gives what a job names it by.
async fn uploaded(client: &Client, bytes: Vec<u8>) -> anyhow::Result<String> {
    let bundle = Bundle::of(bytes);
    let name = format!("sha256:{}", bundle.digest);
    upload(client, &[bundle]).await?;
    Ok(name)
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
