//! `skep roles`: how roles are served, what they hold and may hold, and what their tasks may have of their hosts.

use crate::args::{Reach, RoleSet, Roles, RolesVerb, Shape};
use crate::client::Client;
use crate::manage::say;
use crate::print::{self, text};
use crate::show::amounts;
use anyhow::Context;
use master::admit::resource;
use protocol::resources::ResourceKind;
use reqwest::Method;
use serde_json::{Map, Value, json};
use std::process::ExitCode;

/// Shows roles, or changes one.
pub async fn roles(reach: &Reach, flags: Roles, shape: Shape) -> anyhow::Result<ExitCode> {
    let client = Client::find(reach)?;
    if let Some(RolesVerb::Set(wanted)) = flags.verb {
        return set(&client, wanted, shape).await;
    }
    let answer = client.get("/v1/roles").await?;
    let mut table = print::table(&["ROLE", "WEIGHT", "SHARE", "HOLDS", "LIMIT", "GUARANTEE", "PREEMPTS", "OF ITS HOSTS"]);
    for row in answer["roles"].as_array().into_iter().flatten() {
        let policy = &row["policy"];
        let network = (policy["host_network"] == true).then(|| "network".to_owned());
        let paths = policy["host_paths"].as_array().into_iter().flatten();
        let paths = paths.map(|path| format!("{}{}", text(&path["path"]), if path["writable"] == true { ":rw" } else { "" }));
        let hosts: Vec<String> = network.into_iter().chain(paths).collect();
        table.add_row([
            text(&row["role"]),
            text(&row["weight"]),
            format!("{:.1} %", row["share"].as_f64().unwrap_or(0.0) * 100.0),
            amounts(&row["holds"]),
            kinds(&row["limit"]),
            kinds(&row["guarantee"]),
            text(&row["preempt"]),
            hosts.join(" "),
        ]);
    }
    Ok(say(shape, &answer, &format!("{table}\nall other roles hold nothing, are served alike, and have nothing of their hosts")))
}

/// Amounts of those kinds of which something is said.
fn kinds(of: &Value) -> String {
    if of.as_object().is_none_or(Map::is_empty) { "none".into() } else { amounts(of) }
}

async fn set(client: &Client, wanted: RoleSet, shape: Shape) -> anyhow::Result<ExitCode> {
    let path = format!("/v1/roles/{}", wanted.role.replace('/', "%2F"));
    let before = client.get(&path).await?;
    let amounts = |flag: &str, given: Option<&str>, before: &Value| match given {
        None => Ok(before.clone()),
        Some(given) => written(given).with_context(|| format!("{flag} {given}")),
    };
    let paths = wanted.host_path.iter().map(|path| match path.strip_suffix(":rw") {
        Some(path) => json!({ "path": path, "writable": true }),
        None => json!({ "path": path.strip_suffix(":ro").unwrap_or(path), "writable": false }),
    });
    let paths: Vec<Value> = paths.collect();
    let body = json!({
        "weight": wanted.weight.map_or_else(|| before["weight"].clone(), Value::from),
        "limit": amounts("--limit", wanted.limit.as_deref(), &before["limit"])?,
        "guarantee": amounts("--guarantee", wanted.guarantee.as_deref(), &before["guarantee"])?,
        "preempt": wanted.preempt.map_or_else(|| before["preempt"].clone(), |preempt| json!(preempt)),
        "host_network": wanted.host_network.map_or_else(|| before["policy"]["host_network"].clone(), Value::from),
        "host_paths": if paths.is_empty() { before["policy"]["host_paths"].clone() } else { paths.into() },
        "force": wanted.force,
    });
    let answer = client.call(Method::PUT, &path, &body).await?;
    let role = print::plain(&wanted.role);
    Ok(say(shape, &answer, &format!("{role} is another role from now on; tasks that run are left as they are")))
}

/// Amounts such as `cpu=8,memory=16GiB`, as the API reads them.
pub fn written(text: &str) -> anyhow::Result<Value> {
    let mut kinds = Map::new();
    let mut devices = Map::new();
    for pair in text.split(',').filter(|_| text != "none") {
        let (name, amount) = pair.split_once('=').context("expected amounts such as cpu=8,memory=16GiB, or none")?;
        let (kind, amount) = resource(name.trim(), amount.trim()).map_err(anyhow::Error::msg)?;
        match kind {
            ResourceKind::Cpu => drop(kinds.insert("cpu_milli".into(), amount.into())),
            ResourceKind::Memory => drop(kinds.insert("memory_bytes".into(), amount.into())),
            ResourceKind::Disk => drop(kinds.insert("disk_bytes".into(), amount.into())),
            ResourceKind::Ports => drop(kinds.insert("ports".into(), amount.into())),
            ResourceKind::Device(name) => drop(devices.insert(name.to_string(), amount.into())),
        }
    }
    kinds.insert("devices_milli".into(), devices.into());
    Ok(kinds.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_in_job_files() {
        let read = |text: &str| written(text).map_err(|error| format!("{error:#}"));
        let all = json!({ "cpu_milli": 500, "memory_bytes": 8_u64 << 30, "ports": 4, "devices_milli": { "gpu": 1_500 } });
        assert_eq!(read("cpu=0.5, memory=8GiB,ports=4,gpu=1.5"), Ok(all));
        assert_eq!(read("none"), Ok(json!({ "devices_milli": {} })));
        for wrong in ["", "cpu", "cpu=", "cpu=-1", "cpu=0.0001", "memory=8 apples", "ports=1.5", "GPU=1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
