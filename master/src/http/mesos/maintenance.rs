//! Maintenance in Mesos' words: machines by their names, times in nanoseconds.

use super::words::{self, list, member, nanoseconds, text};
use crate::http::error::ApiError;
use crate::http::jobs::GRACE_MS_DEFAULT;
use crate::http::{Api, access, find, maintenance};
use crate::shard::maintenance::{Consent, ConsentView, Window, WindowsRequest};
use crate::shard::view::{AgentView, View, Viewed};
use protocol::{AgentId, Time};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What the schedule is.
pub async fn schedule(api: &Api) -> Result<Value, ApiError> {
    let (windows, agents) = (maintenance::windows(api).await?, agents(api).await?);
    let window = |window: &Window| json!({ "machine_ids": machines(&window.agents, &agents), "unavailability": words::unavailability(window.from, window.until) });
    let now = access::now();
    let windows: Vec<Value> = windows.iter().filter(|window| !window.is_over(now)).map(window).collect();
    Ok(json!({ "schedule": { "windows": windows } }))
}

/// Replaces what has not begun.
pub async fn set_schedule(api: &Api, call: &Value) -> Result<(), ApiError> {
    let schedule = member(call, "update_maintenance_schedule").and_then(|update| member(update, "schedule"));
    let schedule =
        schedule.ok_or_else(|| ApiError::invalid("schedule", "Expecting 'update_maintenance_schedule.schedule' to be present"))?;
    let known = agents(api).await?;
    let running: BTreeSet<AgentId> = maintenance::windows(api)
        .await?
        .iter()
        .filter(|window| window.is_now(access::now()))
        .flat_map(|window| window.agents.clone())
        .collect();
    let mut windows = vec![];
    for window in list(schedule, "windows") {
        let when = member(window, "unavailability").ok_or_else(|| ApiError::invalid("unavailability", "a window has none"))?;
        let from = Time(nanoseconds(when, "start").ok_or_else(|| ApiError::invalid("unavailability", "a window has no start"))?);
        let until = nanoseconds(when, "duration").map(|ms| Time(from.0.saturating_add(ms)));
        // Who is down already stays so, as Mesos has it.
        let agents: BTreeSet<AgentId> = &named(list(window, "machine_ids"), &known)? - &running;
        if !agents.is_empty() {
            windows.push(Window { number: 0, agents, from, until, grace_ms: GRACE_MS_DEFAULT, note: String::new() });
        }
    }
    maintenance::ask(api, WindowsRequest::Replace(windows)).await.map(drop)
}

/// Machines are down from now on, or up again.
pub async fn begin_or_end(api: &Api, call: &Value, begin: bool) -> Result<(), ApiError> {
    let name = if begin { "start_maintenance" } else { "stop_maintenance" };
    let machines = member(call, name).map_or(&[][..], |of| list(of, "machines"));
    let agents = named(machines, &agents(api).await?)?;
    maintenance::ask(api, if begin { WindowsRequest::Begin(agents) } else { WindowsRequest::End(agents) }).await.map(drop)
}

/// Which machines are, or are to be, down, and what frameworks have answered.
pub async fn status(api: &Api) -> Result<Value, ApiError> {
    let (windows, agents, consents) = (maintenance::windows(api).await?, agents(api).await?, maintenance::consents(api).await?);
    let now = access::now();
    let (mut draining, mut down) = (vec![], vec![]);
    for window in windows.iter().filter(|window| !window.is_over(now)) {
        if window.is_now(now) {
            down.extend(machines(&window.agents, &agents));
            continue;
        }
        for agent in agents.iter().filter(|agent| window.agents.contains(&agent.id)) {
            let statuses: Vec<Value> = consents.iter().filter(|consent| consent.agent == agent.id).map(consent).collect();
            draining.push(json!({ "id": machine(agent), "statuses": statuses }));
        }
    }
    Ok(json!({ "status": { "draining_machines": draining, "down_machines": down } }))
}

fn consent(view: &ConsentView) -> Value {
    let status = match view.consent {
        Consent::Unknown => "UNKNOWN",
        Consent::Accepted => "ACCEPT",
        Consent::Declined => "DECLINE",
    };
    let at = json!({ "nanoseconds": view.at.0.saturating_mul(1_000_000) });
    json!({ "status": status, "framework_id": { "value": view.framework.to_string() }, "timestamp": at })
}

async fn agents(api: &Api) -> Result<Vec<AgentView>, ApiError> {
    let mut all = vec![];
    for viewed in find::view_all(api, View::Agents).await? {
        all.extend(if let Viewed::Agents(found) = viewed { found } else { vec![] });
    }
    all.retain(|agent| agent.state != "gone");
    Ok(all)
}

fn machine(agent: &AgentView) -> Value {
    json!({ "hostname": agent.info.name })
}

fn machines(of: &BTreeSet<AgentId>, agents: &[AgentView]) -> Vec<Value> {
    agents.iter().filter(|agent| of.contains(&agent.id)).map(machine).collect()
}

/// The agents on these machines.
fn named(machines: &[Value], agents: &[AgentView]) -> Result<BTreeSet<AgentId>, ApiError> {
    let mut found = BTreeSet::new();
    for machine in machines {
        let name = text(machine, "hostname").or_else(|| text(machine, "ip")).unwrap_or("");
        let of: Vec<AgentId> = agents.iter().filter(|agent| agent.info.name.eq_ignore_ascii_case(name)).map(|agent| agent.id).collect();
        if of.is_empty() {
            return Err(ApiError::invalid("machines", format!("there is no agent on a machine called {name:?}")));
        }
        found.extend(of);
    }
    Ok(found)
}
