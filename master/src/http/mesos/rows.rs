//! Agents, frameworks, tasks and roles as version 1 of Mesos' API writes them: the messages of `mesos/v1/master/master.proto`, for its lists and for
//! the events of those who watch.

use super::VERSION;
use super::event::offer;
use super::reserved::{self, Format};
use super::seen::{Row, Seen, is_active, status_of};
use super::words;
use crate::frameworks::{FrameworkId, FrameworkInfo, FrameworkView};
use crate::shard::reservations::ReservedView;
use crate::shard::view::AgentView;
use protocol::{Phase, Resources, Role};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The port that Mesos' agents have.
pub const AGENT_PORT: u16 = 5051;

/// What libprocess would call an agent.
pub fn agent_pid(agent: &AgentView) -> String {
    format!("slave(1)@{}:{AGENT_PORT}", agent.info.name)
}

/// An agent's own words.
fn agent_info(view: &AgentView) -> Value {
    let mut info = json!({
        "id": { "value": view.id.to_string() },
        "hostname": view.info.name,
        "port": AGENT_PORT,
        "resources": words::resources(&view.info.capacity, &view.info.ports, &any_role()),
        "attributes": words::attributes(&view.info),
    });
    words::put(&mut info, "domain", words::domain(&view.info));
    info
}

/// An agent, of which so much is shown to frameworks.
pub fn agent(view: &AgentView, offered: Option<&Resources>, reserved: Option<&ReservedView>) -> Value {
    let kept = reserved.map_or(&[][..], |reserved| &reserved.list);
    let mut agent = json!({
        "agent_info": agent_info(view),
        "active": is_active(view),
        "deactivated": view.mode != "active",
        "version": VERSION,
        "pid": agent_pid(view),
        "registered_time": { "nanoseconds": view.heard.0.saturating_mul(1_000_000) },
        "total_resources": reserved::resources(&view.info.capacity, &view.info.ports, kept, &any_role(), Format::Both),
        "allocated_resources": words::resources(&view.allocated, &[], &any_role()),
        "offered_resources": offered.map_or_else(Vec::new, |offered| words::resources(offered, &[], &any_role())),
        "capabilities": [{ "type": "MULTI_ROLE" }, { "type": "AGENT_DRAINING" }],
    });
    let drained = match view.mode.as_ref() {
        "draining" => Some("DRAINING"),
        "drained" => Some("DRAINED"),
        _ => None,
    };
    words::put(&mut agent, "drain_info", drained.map(|state| json!({ "state": state, "config": {} })));
    agent
}

/// The agents. Those that are on record and were not heard of since the master's start are apart.
pub fn agents(seen: &Seen) -> Value {
    let offered = seen.offered();
    let (recovered, here): (Vec<_>, Vec<_>) = seen.agents.iter().partition(|agent| agent.state == "expected");
    json!({
        "agents": here.into_iter().map(|view| agent(view, offered.get(&view.id), seen.reserved.get(&view.id))).collect::<Vec<_>>(),
        "recovered_agents": recovered.into_iter().map(agent_info).collect::<Vec<_>>(),
    })
}

/// What a framework says of itself.
pub fn framework_info(id: FrameworkId, info: &FrameworkInfo) -> Value {
    let mut value = json!({
        "id": { "value": id.to_string() },
        "name": info.name,
        "user": info.user,
        "roles": info.roles.iter().map(words::role_text).collect::<Vec<_>>(),
        "hostname": info.hostname,
        "webui_url": info.webui_url,
        "principal": info.principal,
        "failover_timeout": info.failover_ms as f64 / 1_000.0,
        "checkpoint": true,
        "capabilities": info.capabilities.iter().map(|capability| json!({ "type": capability })).collect::<Vec<_>>(),
    });
    words::put(&mut value, "labels", (!info.labels.is_empty()).then(|| words::labels(&info.labels)));
    value
}

/// A framework.
pub fn framework(view: &FrameworkView) -> Value {
    let id = view.id.to_string();
    let allocated: Vec<Value> = view.used.iter().flat_map(|(role, used)| words::resources(used, &[], role)).collect();
    json!({
        "framework_info": framework_info(view.id, &view.info),
        "active": view.connected,
        "connected": view.connected,
        "recovered": false,
        "registered_time": { "nanoseconds": view.since.0.saturating_mul(1_000_000) },
        "offers": view.offers.iter().map(|shown| offer(shown, &id, Format::Both)).collect::<Vec<_>>(),
        "inverse_offers": [],
        "allocated_resources": allocated,
        "offered_resources": words::resources(&view.offered, &[], view.info.roles.first().unwrap_or(&any_role())),
    })
}

/// The frameworks.
pub fn frameworks(seen: &Seen) -> Value {
    let all: Vec<Value> = seen.frameworks.iter().map(framework).collect();
    json!({ "frameworks": all, "completed_frameworks": [], "recovered_frameworks": [] })
}

/// Tasks as `write` writes them, by how they stand: those that live, those whose agent is silent, and those that have ended.
pub fn by_standing<'a>(rows: impl IntoIterator<Item = &'a Row<'a>>, write: impl Fn(&Row<'a>) -> Value) -> [Vec<Value>; 3] {
    let [mut live, mut unreachable, mut completed] = [const { Vec::new() }; 3];
    for row in rows {
        let list = match (&row.own.exit, row.own.phase) {
            (Some(_), _) => &mut completed,
            (None, Phase::Unreachable) => &mut unreachable,
            (None, _) => &mut live,
        };
        list.push(write(row));
    }
    [live, unreachable, completed]
}

/// Tasks, by how they stand.
pub fn tasks(rows: &[Row<'_>]) -> Value {
    let [live, unreachable, completed] = by_standing(rows, task);
    json!({ "tasks": live, "unreachable_tasks": unreachable, "completed_tasks": completed, "pending_tasks": [], "orphan_tasks": [] })
}

/// A task.
pub fn task(Row { framework, own, shown }: &Row<'_>) -> Value {
    let status = status_of(framework, own);
    let mut task = json!({
        "name": shown.name(&own.name),
        "task_id": { "value": own.name },
        "framework_id": { "value": framework.id.to_string() },
        "executor_id": { "value": own.name },
        "agent_id": { "value": own.agent.to_string() },
        "state": status["state"],
        "resources": words::resources(&own.resources, &shown.ports, own.role.as_ref().unwrap_or(&any_role())),
        "statuses": [status],
        "status_update_state": status["state"],
    });
    shown.dress(&mut task);
    task
}

/// What a role has: the ids of its frameworks, what their tasks are promised, and what is shown to them.
#[derive(Default)]
pub struct RoleRow {
    pub frameworks: Vec<String>,
    pub used: Resources,
    pub offered: Resources,
}

/// The roles that frameworks have, by their names in Mesos' words.
pub fn by_role(seen: &Seen) -> BTreeMap<Cow<'_, str>, RoleRow> {
    let mut roles = BTreeMap::<Cow<'_, str>, RoleRow>::new();
    let add = |sum: &mut Resources, more: &Resources| *sum = sum.checked_add(more).unwrap_or_default();
    for framework in &seen.frameworks {
        for role in &framework.info.roles {
            let row = roles.entry(words::role_text(role)).or_default();
            row.frameworks.push(framework.id.to_string());
            framework.offers.iter().filter(|offer| offer.role == *role).for_each(|offer| add(&mut row.offered, &offer.resources));
        }
        for (role, used) in &framework.used {
            add(&mut roles.entry(words::role_text(role)).or_default().used, used);
        }
    }
    roles
}

/// The roles.
pub fn roles(seen: &Seen) -> Value {
    let row = |(name, row): (Cow<'_, str>, RoleRow)| {
        let ids: Vec<Value> = row.frameworks.into_iter().map(|id| json!({ "value": id })).collect();
        let held = row.used.checked_add(&row.offered).unwrap_or_default();
        let role = words::role(&name).unwrap_or_else(|_| any_role());
        json!({ "name": name, "weight": 1.0, "frameworks": ids, "resources": words::resources(&held, &[], &role) })
    };
    json!({ "roles": by_role(seen).into_iter().map(row).collect::<Vec<_>>() })
}

fn any_role() -> Role {
    words::role(words::ANY_ROLE).expect("the default role is one")
}
