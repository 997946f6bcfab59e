//! Verbs that change one thing and say what they did: `stop`, `scale`, `push`, `agents`, `tokens`.

use crate::args::{Agents, AgentsVerb, Frameworks, FrameworksVerb, Push, Reach, Scale, Shape, Stop, Tokens, TokensVerb};
use crate::client::Client;
use crate::print::{self, text};
use crate::reservations;
use crate::show::{Named, amounts, free_devices};
use anyhow::{Context, bail};
use protocol::Digest;
use reqwest::Method;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Prints the answer as JSON, or the line.
pub fn say(shape: Shape, answer: &Value, line: &str) -> ExitCode {
    println!("{}", if shape == Shape::Json { answer.to_string() } else { line.to_owned() });
    ExitCode::SUCCESS
}

/// Ends a job.
pub async fn stop(reach: &Reach, flags: Stop, shape: Shape) -> anyhow::Result<ExitCode> {
    let client = Client::find(reach)?;
    let named = Named::parse(&flags.job, flags.role.as_deref());
    let answer = client.call(Method::POST, &named.path("/stop", ""), &json!({ "grace_ms": u64::from(flags.grace) * 1_000 })).await?;
    Ok(say(shape, &answer, &format!("{} is being stopped; `skep status {}` shows how far it is", flags.job, flags.job)))
}

/// Gives a job another count.
pub async fn scale(reach: &Reach, flags: Scale, shape: Shape) -> anyhow::Result<ExitCode> {
    let client = Client::find(reach)?;
    let named = Named::parse(&flags.job, flags.role.as_deref());
    let answer = client.call(Method::POST, &named.path("/scale", ""), &json!({ "count": flags.count })).await?;
    Ok(say(shape, &answer, &format!("{} has {} tasks from now on", flags.job, flags.count)))
}

/// Uploads a bundle.
pub async fn push(reach: &Reach, flags: Push, shape: Shape) -> anyhow::Result<ExitCode> {
    let client = Client::find(reach)?;
    let bytes = std::fs::read(&flags.file).with_context(|| flags.file.display().to_string())?;
    let digest = Digest::of(&bytes);
    client.send(client.request(Method::PUT, &format!("/v1/bundles/{digest}")).body(bytes)).await?;
    Ok(say(shape, &json!({ "digest": format!("sha256:{digest}") }), &format!("sha256:{digest}")))
}

/// The agent of this id, or else the one of this name. An agent chooses its own name: where several chose the same one, none is meant.
pub fn meant<'a>(rows: &'a [Value], agent: &str) -> anyhow::Result<&'a Value> {
    if let Some(row) = rows.iter().find(|row| row["id"] == agent) {
        return Ok(row);
    }
    let named: Vec<&Value> = rows.iter().filter(|row| row["name"] == agent).collect();
    let agent = print::plain(agent);
    match named[..] {
        [] => bail!("there is no agent called {agent}"),
        [row] => Ok(row),
        _ => {
            let ids: Vec<String> = named.iter().map(|row| text(&row["id"])).collect();
            bail!("{} agents are called {agent}\nhelp: say which by its id: {}", ids.len(), ids.join(", "))
        }
    }
}

/// Changes one agent.
async fn change(client: &Client, rows: &[Value], verb: AgentsVerb, shape: Shape) -> anyhow::Result<ExitCode> {
    let time =
        |flag: &str, given: &str| milliseconds(given).with_context(|| format!("{flag} {given}: expected a time such as 90s, 30m or 8h"));
    let (agent, what, body, said) = match verb {
        AgentsVerb::Set { agent, attribute, remove, domain, resources } => {
            let mut attributes: serde_json::Map<String, Value> = remove.into_iter().map(|name| (name, Value::Null)).collect();
            for pair in attribute {
                let (name, value) = pair.split_once('=').with_context(|| format!("--attribute {pair}: expected NAME=VALUE"))?;
                attributes.insert(name.to_owned(), value.into());
            }
            let id = text(&meant(rows, &agent)?["id"]);
            let body = json!({ "attributes": attributes, "domain": domain, "resources": resources });
            let answer = client.call(Method::PATCH, &format!("/v1/agents/{id}"), &body).await?;
            return Ok(say(shape, &answer, &format!("{agent} is so from now on; its tasks go on")));
        }
        AgentsVerb::Drain { agent, grace, wait, gone } => {
            let body = json!({ "grace_ms": time("--grace", &grace)?, "wait_ms": time("--wait", &wait)?, "gone": gone });
            (agent, "drain", body, "is being emptied: `skep agents` says when it is; `skep agents resume` gives it tasks again")
        }
        AgentsVerb::Reserve(flags) => return reservations::change(client, rows, flags, true, shape).await,
        AgentsVerb::Unreserve(flags) => return reservations::change(client, rows, flags, false, shape).await,
        AgentsVerb::Reservations => return reservations::show(client, rows, shape).await,
        AgentsVerb::Deactivate { agent } => (agent, "deactivate", json!({}), "keeps its tasks and is given no others"),
        AgentsVerb::Resume { agent } => (agent, "resume", json!({}), "is given tasks"),
        AgentsVerb::Gone { agent } => (agent, "gone", json!({}), "is gone: its tasks are placed anew, and it is not let in again"),
    };
    let id = text(&meant(rows, &agent)?["id"]);
    let answer = client.call(Method::POST, &format!("/v1/agents/{id}/{what}"), &body).await?;
    Ok(say(shape, &answer, &format!("{agent} {said}")))
}

/// Shows or changes agents.
pub async fn agents(reach: &Reach, flags: Agents, shape: Shape) -> anyhow::Result<ExitCode> {
    let client = Client::find(reach)?;
    let answer = client.get("/v1/agents").await?;
    let rows = answer["agents"].as_array().cloned().unwrap_or_default();
    if let Some(verb) = flags.verb {
        return change(&client, &rows, verb, shape).await;
    }
    if shape == Shape::Json {
        println!("{answer}");
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = print::table(&["AGENT", "ID", "STATE", "TASKS", "PROMISED", "HAS", "WEAKER"]);
    for row in &rows {
        let weaker = row["weaknesses"].as_array().map_or(0, Vec::len);
        let weaker = if weaker == 0 { String::new() } else { format!("{weaker} (skep status {})", text(&row["name"])) };
        table.add_row([
            text(&row["name"]),
            text(&row["id"]),
            if row["mode"] == "active" { text(&row["state"]) } else { format!("{}, {}", text(&row["state"]), text(&row["mode"])) },
            text(&row["attempts"]),
            amounts(&row["allocated"]),
            has(row),
            weaker,
        ]);
    }
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}

/// What an agent has, and what of each single device is free.
fn has(row: &Value) -> String {
    let free = free_devices(row);
    if free.is_empty() { amounts(&row["capacity"]) } else { format!("{}\nfree: {free}", amounts(&row["capacity"])) }
}

/// Rows of a page of frameworks.
const PAGE: usize = 1_000;

/// Shows frameworks, or ends one.
pub async fn frameworks(reach: &Reach, flags: Frameworks, shape: Shape) -> anyhow::Result<ExitCode> {
    let client = Client::find(reach)?;
    if let Some(FrameworksVerb::End { framework }) = flags.verb {
        let answer = client.call(Method::POST, &format!("/v1/frameworks/{framework}/teardown"), &json!({})).await?;
        return Ok(say(shape, &answer, &format!("{framework} is ended, and its tasks are being stopped")));
    }
    let (mut frameworks, mut next) = (vec![], Some(String::new()));
    while let Some(after) = next {
        let mut page = client.get(&format!("/v1/frameworks?limit={PAGE}{after}")).await?;
        frameworks.append(page["frameworks"].as_array_mut().unwrap_or(&mut vec![]));
        next = page["next"].as_str().map(|next| format!("&after={next}"));
    }
    if shape == Shape::Json {
        println!("{}", json!({ "frameworks": frameworks }));
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = print::table(&["FRAMEWORK", "NAME", "STATE", "ROLES", "TASKS", "OFFERS"]);
    for row in &frameworks {
        let roles: Vec<String> = row["roles"].as_array().into_iter().flatten().map(text).collect();
        let tasks: Vec<String> = row["tasks"].as_object().into_iter().flatten().map(|(phase, n)| format!("{n} {phase}")).collect();
        let state = if row["connected"] == true { "subscribed" } else { "away" };
        table.add_row([text(&row["id"]), text(&row["name"]), state.into(), roles.join(","), tasks.join(", "), text(&row["offers"])]);
    }
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}

/// Shows or changes tokens.
pub async fn tokens(reach: &Reach, flags: Tokens, shape: Shape) -> anyhow::Result<ExitCode> {
    let client = Client::find(reach)?;
    match flags.verb {
        Some(TokensVerb::Create { level, role, ttl }) => {
            let mut body = json!({ "level": level, "roles": role });
            if let Some(ttl) = ttl {
                body["ttl_ms"] =
                    json!(milliseconds(&ttl).with_context(|| format!("--ttl {ttl}: expected a time such as 90s, 30m, 8h or 7d"))?);
            }
            let answer = client.call(Method::POST, "/v1/tokens", &body).await?;
            Ok(say(shape, &answer, &text(&answer["token"])))
        }
        Some(TokensVerb::Revoke { id }) => {
            let answer = client.call(Method::DELETE, &format!("/v1/tokens/{id}"), &json!({})).await?;
            Ok(say(shape, &answer, &format!("{id} is worthless from now on")))
        }
        None => {
            let answer = client.get("/v1/tokens").await?;
            let mut table = print::table(&["ID", "LEVEL", "ROLES", "EXPIRES"]);
            for row in answer["tokens"].as_array().into_iter().flatten() {
                let roles: Vec<String> = row["roles"].as_array().into_iter().flatten().map(text).collect();
                let roles = if roles.is_empty() { "all".to_owned() } else { roles.join(" ") };
                table.add_row([
                    text(&row["id"]),
                    text(&row["level"]),
                    roles,
                    row["expires_ms"].as_u64().map(|at| format!("at {at} ms of the Unix epoch")).unwrap_or_default(),
                ]);
            }
            Ok(say(shape, &answer, &table.to_string()))
        }
    }
}

/// The milliseconds of a time such as `90s`, `30m`, `8h` or `7d`.
pub fn milliseconds(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let each = match unit {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(each)
}
