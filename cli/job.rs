//! Jobs as the commands make them: from flags, from job files; bundles uploaded first.

use crate::args::Run;
use crate::client::{Client, Refused};
use crate::thing::{self, Bundle, Content, Sort};
use anyhow::{Context, bail};
use master::admit::{self, Source};
use protocol::Digest;
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};
use std::io::Read;
use std::path::Path;

/// A job file that does not hold, with each problem drawn under its source.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(pub String);

/// A job on its way: its JSON, and the local files that it names by digest.
pub struct Draft {
    /// What is submitted.
    pub job: Value,
    /// Bundles that the master may not have yet.
    pub bundles: Vec<Bundle>,
}

/// The job that the flags of `skep run` describe.
pub fn from_flags(flags: &Run) -> anyhow::Result<Draft> {
    let ending = flags.thing.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let is_file = matches!(ending, "toml" | "json") && flags.thing.is_file();
    let mut draft = if is_file { from_file(&flags.thing)? } else { from_thing(&flags.thing, &flags.args)? };
    if draft.job["task"].is_array() && flags.is_about_one_task() {
        let which = "arguments, environment, input, resources and limits are each task's own in a group: write them into the job file";
        bail!(Unfit(format!("{}: {which}", flags.thing.display())));
    }
    let job = &mut draft.job;
    let task = &mut job["task"];
    // A bundle has taken the first of them.
    let taken = usize::from(!is_file && task["command"].is_array());
    if flags.args.len() > taken {
        task["args"] = json!(flags.args[taken..]);
    }
    for (name, value) in [("user", &flags.user), ("dir", &flags.dir)] {
        if let Some(value) = value {
            task[name] = json!(value);
        }
    }
    for (name, pairs) in [("env", &flags.env), ("config", &flags.config)] {
        for pair in pairs {
            let (key, value) = pair.split_once('=').with_context(|| format!("--{name} {pair}: expected NAME=VALUE"))?;
            if !task[name].is_object() {
                task[name] = json!({});
            }
            task[name][key] = json!(value);
        }
    }
    if let Some(path) = &flags.stdin {
        let mut bytes = vec![];
        match path.to_str() {
            Some("-") => std::io::stdin().read_to_end(&mut bytes).map(drop).context("reading standard input")?,
            _ => bytes = std::fs::read(path).with_context(|| path.display().to_string())?,
        }
        task["stdin"] = json!(format!("sha256:{}", Digest::of(&bytes)));
        draft.bundles.push(Bundle::of(bytes));
    }
    let mut set = |path: &[&str], value: Option<Value>| {
        let Some(value) = value else { return };
        let mut at = &mut *job;
        for part in path {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            at = &mut at[*part];
        }
        *at = value;
    };
    set(&["name"], flags.name.as_ref().map(|name| json!(name)));
    set(&["role"], flags.role.as_ref().map(|role| json!(role)));
    set(&["priority"], flags.priority.map(|priority| json!(priority)));
    set(&["count"], flags.count.map(|count| json!(count)));
    let cpu =
        flags.cpu.as_ref().map(|cpu| cpu.parse::<f64>().with_context(|| format!("--cpu {cpu}: expected a number of cores"))).transpose()?;
    set(&["resources", "cpu"], cpu.map(|cpu| json!(cpu)));
    set(&["resources", "memory"], flags.memory.as_ref().map(|memory| json!(memory)));
    set(&["resources", "disk"], flags.disk.as_ref().map(|disk| json!(disk)));
    set(&["resources", "revocable"], flags.revocable.then_some(json!(true)));
    set(&["limits", "processes"], flags.processes.map(|processes| json!(processes)));
    set(&["limits", "egress"], flags.network.as_ref().map(|network| json!(network)));
    set(&["limits", "fuel"], flags.fuel.as_ref().map(|fuel| json!(fuel)));
    set(&["limits", "cpu_time"], flags.cpu_time.as_ref().map(|time| json!(time)));
    set(&["limits", "time"], flags.time.as_ref().map(|time| json!(time)));
    if let Some(retries) = flags.retries {
        set(&["restart", "policy"], Some(json!("on-failure")));
        set(&["restart", "retries"], Some(json!(retries)));
    }
    Ok(draft)
}

/// The job that one file or folder is. Of a bundle, what runs of it is the first of the arguments.
fn from_thing(path: &Path, args: &[String]) -> anyhow::Result<Draft> {
    let sort = thing::sort(path)?;
    let bundle = Bundle::read(path)?;
    let source = json!(format!("sha256:{}", bundle.digest));
    let mut task = json!({});
    match sort {
        Sort::Wasm => task["wasm"] = source,
        Sort::Image => task["image"] = source,
        Sort::Program => {
            task["native"] = source;
            task["file"] = json!(thing::plain_name(path));
        }
        Sort::Bundle => {
            let Some(program) = args.first() else {
                let help = "say which program of it is run: skep run THING -- PROGRAM ARG…";
                bail!(Unfit(format!("{} is a bundle of files: {help}", path.display())));
            };
            task["native"] = source;
            task["command"] = json!([program]);
        }
    }
    if task["file"].is_null() {
        task.as_object_mut().expect("made above").remove("file");
    }
    Ok(Draft { job: json!({ "kind": "batch", "task": task }), bundles: vec![bundle] })
}

/// The job that a file describes; what its tasks run and read may be files beside it.
pub fn from_file(path: &Path) -> anyhow::Result<Draft> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let is_json = path.extension().is_some_and(|ending| ending == "json");
    let format = if is_json { admit::Format::Json } else { admit::Format::Toml };
    let mut spec = admit::parse(&text, format).map_err(|problems| {
        let drawn: Vec<String> = problems.iter().map(|problem| admit::render(problem, &text)).collect();
        Unfit(format!("{} does not hold:\n{}", path.display(), drawn.join("\n")))
    })?;
    let mut bundles = vec![];
    for (field, source) in spec.sources() {
        let Source::File(named) = source else { continue };
        let file = path.parent().unwrap_or_else(|| Path::new("")).join(&*named);
        let bundle = Bundle::read(&file).map_err(|error| Unfit(format!("{}: {field}: {error:#}", path.display())))?;
        *source = Source::Bundle(bundle.digest);
        bundles.push(bundle);
    }
    Ok(Draft { job: serde_json::from_str(&spec.to_json()).context("a job that was read is JSON")?, bundles })
}

/// Uploads what the master has not.
pub async fn upload(client: &Client, bundles: &[Bundle]) -> anyhow::Result<()> {
    for Bundle { digest, content } in bundles {
        let path = format!("/v1/bundles/{digest}");
        match client.send(client.request(Method::HEAD, &path)).await {
            Ok(_) => continue,
            Err(error) if error.downcast_ref::<Refused>().is_some_and(|refused| refused.status == StatusCode::NOT_FOUND) => {}
            Err(error) => return Err(error),
        }
        let body = match content {
            Content::Bytes(bytes) => reqwest::Body::from(bytes.clone()),
            // Read as it is sent: an image may be larger than memory.
            Content::File(file) => tokio::fs::File::open(file).await.with_context(|| file.display().to_string())?.into(),
        };
        client.send(client.request(Method::PUT, &path).body(body)).await?;
    }
    Ok(())
}
