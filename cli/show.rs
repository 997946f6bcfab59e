//! `ps`, `status`, `explain`: what is so, and why.

use crate::args::{OneOf, Ps, Reach, Shape};
use crate::client::{Client, Refused};
use crate::print::{self, text};
use crate::unwell;
use anyhow::bail;
use reqwest::StatusCode;
use serde_json::Value;
use std::process::ExitCode;

/// A job, or a task of it, as people name it.
pub struct Named {
    /// The job's name or id.
    pub job: String,
    /// Its role, where one was said.
    pub role: Option<String>,
    /// The task's index, where one was said.
    pub index: Option<u32>,
}

impl Named {
    /// What `NAME` or `NAME.INDEX` names.
    pub fn parse(what: &str, role: Option<&str>) -> Self {
        let split = what.rsplit_once('.').and_then(|(job, index)| Some((job, index.parse().ok()?)));
        let (job, index) = split.map_or((what, None), |(job, index)| (job, Some(index)));
        Self { job: job.to_owned(), role: role.map(str::to_owned), index }
    }

    /// Its path in the API, with the role and `more` as its query.
    pub fn path(&self, below: &str, more: &str) -> String {
        let role = self.role.as_ref().map(|role| format!("role={role}&")).unwrap_or_default();
        format!("/v1/jobs/{}{below}?{role}{more}", self.job)
    }
}

/// How far a job is, on one line.
pub fn progress(job: &Value) -> String {
    let tasks = job["tasks"].as_object();
    let parts: Vec<String> = tasks.into_iter().flatten().map(|(phase, count)| format!("{count} {}", print::plain(phase))).collect();
    let health = unwell::counts(job).map(|counts| format!(" ({counts})")).unwrap_or_default();
    if job["kind"] == "system" && job["ended_ms"].is_null() {
        let running = job["tasks"]["running"].as_u64().unwrap_or(0);
        let others: Vec<String> = parts.iter().filter(|part| !part.ends_with(" running")).cloned().collect();
        let others = if others.is_empty() { others.concat() } else { format!(": {}", others.join(", ")) };
        return format!("{running} of {} agents{others}{health}", job["count"]);
    }
    if parts.is_empty() { "no tasks".to_owned() } else { format!("{}{health}", parts.join(", ")) }
}

fn title(job: &Value) -> String {
    if job["name"].is_null() { text(&job["id"]) } else { text(&job["name"]) }
}

const WATCH: std::time::Duration = std::time::Duration::from_secs(1);

/// Jobs, or the tasks of one.
pub async fn ps(reach: &Reach, flags: Ps, shape: Shape) -> anyhow::Result<ExitCode> {
    let client = Client::find(reach)?;
    loop {
        let shown = match &flags.job {
            Some(job) => tasks(&client, &Named::parse(job, flags.role.as_deref()), shape).await?,
            None => jobs(&client, &flags, shape).await?,
        };
        if !flags.watch {
            println!("{shown}");
            return Ok(ExitCode::SUCCESS);
        }
        println!("\x1b[2J\x1b[H{shown}");
        tokio::time::sleep(WATCH).await;
    }
}

async fn jobs(client: &Client, flags: &Ps, shape: Shape) -> anyhow::Result<String> {
    let role = flags.role.as_ref().map(|role| format!("&role={role}")).unwrap_or_default();
    let answer = client.get(&format!("/v1/jobs?ended={}{role}", flags.all)).await?;
    if shape == Shape::Json {
        return Ok(answer.to_string());
    }
    let mut table = print::table(&["JOB", "ID", "ROLE", "KIND", "STATE", "TASKS", "AGE"]);
    for job in answer["jobs"].as_array().into_iter().flatten() {
        let age = print::ago(job["submitted_ms"].as_u64().unwrap_or(0));
        table.add_row([title(job), text(&job["id"]), text(&job["role"]), text(&job["kind"]), text(&job["state"]), progress(job), age]);
    }
    let more = if answer["next"].is_null() {
        String::new()
    } else {
        "\n(there are more: --output json shows where the next page begins)".to_owned()
    };
    Ok(format!("{table}{more}"))
}

async fn tasks(client: &Client, named: &Named, shape: Shape) -> anyhow::Result<String> {
    let answer = client.get(&named.path("/tasks", "limit=1000")).await?;
    if shape == Shape::Json {
        return Ok(answer.to_string());
    }
    let mut table = print::table(&["TASK", "ATTEMPT", "STATE", "AGENT", "SINCE", "FUEL", "MEMORY", "END"]);
    for task in answer["tasks"].as_array().into_iter().flatten() {
        let usage = |name: &str| task["usage"][name].as_u64();
        table.add_row([
            format!("{}.{}", named.job, task["index"]),
            text(&task["attempt"]),
            task["health"]["state"].as_str().map_or_else(|| text(&task["phase"]), print::plain),
            text(&task["agent"]),
            task["since_ms"].as_u64().filter(|since| *since > 0).map(print::ago).unwrap_or_default(),
            usage("fuel").map(print::count).unwrap_or_default(),
            usage("memory_peak_bytes").map(print::bytes).unwrap_or_default(),
            match task["health"]["reason"].as_str() {
                Some(reason) => print::plain_line(reason),
                None => task["progress"]["percent"].as_u64().map_or_else(|| text(&task["exit"]["text"]), |_| how_far(task)),
            },
        ]);
    }
    let more = if answer["next"].is_null() {
        String::new()
    } else {
        "\n(there are more: --output json shows where the next page begins)".to_owned()
    };
    Ok(format!("{table}{more}"))
}

/// How far a task says that it is.
fn how_far(task: &Value) -> String {
    format!("{} %  {}", task["progress"]["percent"], text(&task["progress"]["note"])).trim_end().to_owned()
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.status == StatusCode::NOT_FOUND)
}

/// One screen about a job, a task or an agent.
pub async fn status(reach: &Reach, flags: OneOf, shape: Shape) -> anyhow::Result<ExitCode> {
    let client = Client::find(reach)?;
    let named = Named::parse(&flags.what, flags.role.as_deref());
    match client.get(&named.path("", "")).await {
        Ok(job) if shape == Shape::Json && named.index.is_none() => println!("{job}"),
        Ok(job) => match named.index {
            Some(index) => one_task(&client, &named, index, shape).await?,
            None => one_job(&client, &named, &job).await?,
        },
        Err(error) if is_missing(&error) => one_agent(&client, &flags.what, shape).await?,
        Err(error) => return Err(error),
    }
    Ok(ExitCode::SUCCESS)
}

async fn one_job(client: &Client, named: &Named, job: &Value) -> anyhow::Result<()> {
    println!(
        "job      {} ({}), role {}, {}, version {}",
        title(job),
        text(&job["id"]),
        text(&job["role"]),
        text(&job["kind"]),
        job["version"]
    );
    println!("state    {}, submitted {} ago", text(&job["state"]), print::ago(job["submitted_ms"].as_u64().unwrap_or(0)));
    match job["kind"].as_str() {
        Some("system") => println!("tasks    running on {}", progress(job)),
        _ => println!("tasks    {} wanted: {}", job["count"], progress(job)),
    }
    println!("restarts {}", job["restarts"]);
    if let Some(deployment) = crate::deploy::last(client, named).await?.filter(|_| job["kind"] == "service" || job["kind"] == "system") {
        println!("update   {} ({}, {})", text(&deployment["text"]), text(&deployment["id"]), text(&deployment["state"]));
    }
    if job["ended_ms"].is_null() {
        unwell::lines(client, named, job).await?.iter().for_each(|line| println!("{line}"));
        let mut why = client.get(&named.path("/explain", "")).await?;
        // It stands above.
        why["deployment"].take();
        println!("{}", reasons(&why));
    } else {
        println!("it waits for nothing: it has ended");
    }
    Ok(())
}

async fn one_task(client: &Client, named: &Named, index: u32, shape: Shape) -> anyhow::Result<()> {
    let answer = client.get(&named.path("/tasks", &format!("from={index}&limit=1"))).await?;
    let Some(task) = answer["tasks"].as_array().and_then(|tasks| tasks.first()).filter(|task| task["index"] == index) else {
        bail!("the job {} has no task {index}", named.job);
    };
    if shape == Shape::Json {
        println!("{task}");
        return Ok(());
    }
    println!("task     {}.{index}, attempt {}", named.job, task["attempt"]);
    println!("state    {}", text(&task["phase"]));
    println!("agent    {}", text(&task["agent"]));
    if let Some(health) = unwell::health(task) {
        println!("health   {health}");
    }
    if !task["progress"].is_null() {
        println!("progress {}", how_far(task));
    }
    if let Some(usage) = task["usage"].as_object() {
        let amount = |name: &str| usage.get(name).and_then(Value::as_u64).unwrap_or(0);
        let (fuel, memory, time) =
            (print::count(amount("fuel")), print::bytes(amount("memory_peak_bytes")), print::micros(amount("time_us")));
        println!("used     {fuel} instructions, {memory} of memory at most, {time}");
    }
    if !task["exit"].is_null() {
        println!("end      {}", text(&task["exit"]["text"]));
    }
    if matches!(task["phase"].as_str(), Some("waiting" | "staging")) {
        println!("{}", reasons(&client.get(&named.path("/explain", &format!("index={index}"))).await?));
    } else {
        println!("it waits for nothing");
    }
    Ok(())
}

async fn one_agent(client: &Client, what: &str, shape: Shape) -> anyhow::Result<()> {
    let answer = client.get("/v1/agents").await?;
    let agents = answer["agents"].as_array().cloned().unwrap_or_default();
    let Some(agent) = agents.iter().find(|agent| agent["id"] == what || agent["name"] == what) else {
        bail!("there is no job and no agent called {}", print::plain(what));
    };
    if shape == Shape::Json {
        println!("{agent}");
        return Ok(());
    }
    println!("agent    {} ({}), {}", text(&agent["name"]), text(&agent["id"]), text(&agent["state"]));
    println!("has      {}", amounts(&agent["capacity"]));
    println!("promised {} to {} tasks", amounts(&agent["allocated"]), agent["attempts"]);
    let free = free_devices(agent);
    if !free.is_empty() {
        println!("free     {free}");
    }
    println!("version  {}", text(&agent["version"]));
    for (name, value) in agent["attributes"].as_object().into_iter().flatten() {
        println!("         {}={}", print::plain(name), text(value));
    }
    for line in agent["weaknesses"].as_array().into_iter().flatten() {
        println!("weaker   {}", text(line));
    }
    println!("heard of {} ago", print::ago(agent["heard_ms"].as_u64().unwrap_or(0)));
    Ok(())
}

/// How much of each single device of an agent is free, as `gpu 1, 0.4, 0`; empty where it has none.
pub fn free_devices(agent: &Value) -> String {
    let kinds = agent["devices_free_milli"].as_object().into_iter().flatten();
    let each =
        |free: &Value| free.as_array().into_iter().flatten().map(|milli| print::milli(milli.as_u64().unwrap_or(0))).collect::<Vec<_>>();
    let kinds = kinds.map(|(name, free)| format!("{} {}", print::plain(name), each(free).join(", ")));
    kinds.collect::<Vec<_>>().join("; ")
}

/// Amounts of resources on one line.
pub fn amounts(resources: &Value) -> String {
    let amount = |name: &str| resources[name].as_u64().unwrap_or(0);
    let mut parts = vec![format!("cpu {}", print::milli(amount("cpu_milli"))), format!("memory {}", print::bytes(amount("memory_bytes")))];
    if amount("disk_bytes") > 0 {
        parts.push(format!("disk {}", print::bytes(amount("disk_bytes"))));
    }
    if amount("ports") > 0 {
        parts.push(format!("{} ports", amount("ports")));
    }
    for (name, milli) in resources["devices_milli"].as_object().into_iter().flatten() {
        parts.push(format!("{} {}", print::plain(name), print::milli(milli.as_u64().unwrap_or(0))));
    }
    if resources["revocable"].is_object() {
        let lent = |name: &str| resources["revocable"][name].as_u64().unwrap_or(0);
        let (cpu, memory) = (print::milli(lent("cpu_milli")), print::bytes(lent("memory_bytes")));
        parts.push(format!("revocable cpu {cpu}, revocable memory {memory}"));
    }
    parts.join(", ")
}

/// Why a job, a task of it or a framework is where it is, or what an offer is.
pub async fn explain(reach: &Reach, flags: OneOf, shape: Shape) -> anyhow::Result<ExitCode> {
    let client = Client::find(reach)?;
    let named = Named::parse(&flags.what, flags.role.as_deref());
    let task = named.index.map(|index| format!("index={index}")).unwrap_or_default();
    let answer = match client.get(&named.path("/explain", &task)).await {
        Err(error) if is_missing(&error) => return one_framework(&client, &flags.what, shape, error).await,
        answer => answer?,
    };
    println!("{}", if shape == Shape::Json { answer.to_string() } else { reasons(&answer) });
    if shape != Shape::Json && named.index.is_none() {
        let job = client.get(&named.path("", "")).await?;
        unwell::lines(&client, &named, &job).await?.iter().for_each(|line| println!("{line}"));
    }
    if let Some(health) = unwell::health(&answer["task"]).filter(|_| shape != Shape::Json) {
        println!("{}.{} is {health}", named.job, answer["task"]["index"]);
    }
    Ok(ExitCode::SUCCESS)
}

/// What is no job may be a framework or an offer; it is `missing` where it is neither.
async fn one_framework(client: &Client, what: &str, shape: Shape, missing: anyhow::Error) -> anyhow::Result<ExitCode> {
    let path = match what.chars().next() {
        Some('f') => format!("/v1/frameworks/{what}/explain"),
        Some('o') => format!("/v1/offers/{what}"),
        _ => return Err(missing),
    };
    let Ok(answer) = client.get(&path).await else { return Err(missing) };
    println!("{}", if shape == Shape::Json { answer.to_string() } else { stands(&answer) });
    Ok(ExitCode::SUCCESS)
}

/// How a framework or an offer stands, a line each.
fn stands(answer: &Value) -> String {
    let mut lines = vec![text(&answer["text"])];
    for wish in answer["demand"].as_array().into_iter().flatten() {
        let place: Vec<String> = wish["constraints"].as_array().into_iter().flatten().map(text).collect();
        let place = if place.is_empty() { String::new() } else { format!(", {}", place.join(" ")) };
        let (count, held) = (text(&wish["count"]), text(&wish["held"]));
        lines.push(format!(
            "  wants {count} of {}{place}; offers for {held}, priority {}",
            amounts(&wish["resources"]),
            text(&wish["priority"])
        ));
    }
    for role in answer["roles"].as_array().into_iter().flatten() {
        let share = role["role_share_ppm"].as_u64().unwrap_or(0) as f64 / 10_000.0;
        let owes = if role["owes_answer"] == true { ", it owes an answer" } else { "" };
        let closed = role["closed"].as_str().map(|closed| format!(" ({closed})")).unwrap_or_default();
        lines.push(format!("  {}{closed}: {share:.1} % of the cluster, {} are served before it{owes}", text(&role["role"]), role["ahead"]));
        for (reason, agents) in role["reasons"].as_object().into_iter().flatten() {
            lines.push(format!("    {agents} of {} agents: {}", role["agents"], print::plain(reason)));
        }
    }
    if !answer["since_ms"].is_null() {
        lines.push(format!("  {}, made {} ago", amounts(&answer["resources"]), print::ago(answer["since_ms"].as_u64().unwrap_or(0))));
    }
    for other in answer["waiting"].as_array().into_iter().flatten() {
        lines.push(format!("  {} would take it for {}", text(&other[0]), text(&other[1])));
    }
    lines.join("\n")
}

/// The reasons of an explanation, a line each.
pub fn reasons(answer: &Value) -> String {
    let fit = &answer["fit"];
    let deployment = answer["deployment"]["text"].as_str().map(print::plain);
    let mut lines: Vec<String> = deployment.into_iter().chain([text(&answer["text"])]).collect();
    for one in answer["agents"].as_array().into_iter().flatten() {
        lines.push(format!("  {} (task {}): {}", text(&one["name"]), one["task"], text(&one["why"])));
    }
    for (what, agents) in fit["short"].as_object().into_iter().flatten() {
        lines.push(format!("  {agents} of {} agents: {}", fit["agents"], print::plain(what)));
    }
    if answer["waiting"].as_u64().unwrap_or(0) > 0 {
        lines.push(format!("  each needs {}; the most that is free: {}", amounts(&fit["needs"]), amounts(&fit["largest_free"])));
    }
    if let Some(change) = fit["change"].as_str().filter(|change| !change.is_empty()) {
        lines.push(format!("help: {}", print::plain(change)));
    }
    lines.join("\n")
}
