//! What of agents is kept for roles: shown, made and given up.

use crate::args::{ReserveFlags, Shape};
use crate::client::Client;
use crate::manage::{meant, say};
use crate::print::{self, text};
use crate::roles::written;
use crate::show::amounts;
use anyhow::Context;
use master::http::roles::KindsBody;
use protocol::{Reservation, ReservedFor, Role};
use reqwest::Method;
use serde_json::{Map, Value, json};
use std::process::ExitCode;

/// Keeps something of an agent for a role, or no longer.
pub async fn change(client: &Client, rows: &[Value], flags: ReserveFlags, make: bool, shape: Shape) -> anyhow::Result<ExitCode> {
    let mut labels = Map::new();
    for pair in &flags.label {
        let (name, value) = pair.split_once('=').with_context(|| format!("--label {pair}: expected NAME=VALUE"))?;
        labels.insert(name.to_owned(), value.into());
    }
    let resources = written(&flags.what).with_context(|| flags.what.clone())?;
    let body = json!({ "role": flags.role, "within": flags.within, "labels": labels, "resources": resources });
    let (id, verb) = (text(&meant(rows, &flags.agent)?["id"]), if make { "reserve" } else { "unreserve" });
    let answer = client.call(Method::POST, &format!("/v1/agents/{id}/{verb}"), &body).await?;
    let (what, agent, role) = (print::plain(&flags.what), print::plain(&flags.agent), print::plain(&flags.role));
    let line = match make {
        true => format!("{what} of {agent} is kept for {role}"),
        false => format!("{what} of {agent} is kept for {role} no longer; tasks go on"),
    };
    Ok(say(shape, &answer, &line))
}

/// Shows what is kept of agents.
pub async fn show(client: &Client, rows: &[Value], shape: Shape) -> anyhow::Result<ExitCode> {
    let answer = client.get("/v1/reservations").await?;
    if shape == Shape::Json {
        println!("{answer}");
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = print::table(&["AGENT", "ROLE", "KEPT", "BY", "LABELS"]);
    for of in answer["agents"].as_array().into_iter().flatten() {
        let name = rows.iter().find(|row| row["id"] == of["agent"]).map_or_else(|| text(&of["agent"]), |row| text(&row["name"]));
        for one in of["reservations"].as_array().into_iter().flatten() {
            let within: String = one["within"].as_array().into_iter().flatten().map(|role| format!("{} › ", text(role))).collect();
            let labels = one["labels"].as_object().into_iter().flatten().map(|(name, value)| format!("{name}={}", text(value)));
            let by = if one["fixed"] == true { "the agent's start".into() } else { text(&one["principal"]) };
            let labels = print::plain(&labels.collect::<Vec<_>>().join(" "));
            table.add_row([name.clone(), format!("{within}{}", text(&one["role"])), amounts(&one["resources"]), by, labels]);
        }
    }
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}

/// What an agent is started with, `ROLE:KIND=AMOUNT,…`.
pub fn fixed(said: &str) -> anyhow::Result<Reservation> {
    let (role, what) = said.split_once(':').context("expected such as web:cpu=2,memory=1GiB")?;
    let role = Role::new(role.trim()).with_context(|| role.to_owned())?;
    let kinds: KindsBody = serde_json::from_value(written(what)?)?;
    let resources = kinds.resources("resources").map_err(|error| anyhow::anyhow!(error.body().message.clone()))?;
    let reservation = Reservation { reserved: ReservedFor::fixed(role), resources };
    anyhow::ensure!(reservation.is_bounded(), "a reservation is of something");
    Ok(reservation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_started_with_amounts_for_roles() {
        let one = fixed("web/shop: cpu=0.5, memory=1GiB,ports=4,gpu=1").unwrap();
        let (role, resources) = (one.reserved.role.as_str(), &one.resources);
        assert_eq!((role, resources.cpu_milli, resources.memory_bytes, resources.ports), ("web/shop", 500, 1 << 30, 4));
        assert_eq!(resources.devices.iter().map(|device| device.milli).sum::<u64>(), 1_000);
        for wrong in ["", "web", "web:", ":cpu=1", "web:cpu", "web:cpu=-1", "a//b:cpu=1", "web:cpu=0", "web:ports=9999999999"] {
            assert!(fixed(wrong).is_err(), "{wrong}");
        }
    }
}
