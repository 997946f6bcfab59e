//! `skep policy`: policies that operators bring as components.

use crate::args::{PolicyFlags, PolicyVerb, Reach, Shape};
use crate::client::Client;
use crate::job::upload;
use crate::manage::say;
use crate::print::{self, text};
use crate::thing::Bundle;
use reqwest::Method;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Brings one, takes one away, or shows all.
pub async fn policy(reach: &Reach, flags: PolicyFlags, shape: Shape) -> anyhow::Result<ExitCode> {
    let client = Client::find(reach)?;
    match flags.verb {
        PolicyVerb::List => {
            let answer = client.get("/v1/policies").await?;
            Ok(say(shape, &answer, &table(&answer)))
        }
        PolicyVerb::Set { kind, file, role, closed } => {
            let bundle = Bundle::read(&file)?;
            let digest = bundle.digest;
            upload(&client, &[bundle]).await?;
            let asked = json!({ "bundle": format!("sha256:{digest}"), "closed": closed });
            let answer = client.call(Method::PUT, &path(&kind, role.as_deref()), &asked).await?;
            Ok(say(shape, &answer, &table(&answer)))
        }
        PolicyVerb::Remove { kind, role } => {
            let answer = client.call(Method::DELETE, &path(&kind, role.as_deref()), &json!({})).await?;
            Ok(say(shape, &answer, &format!("{} is decided as it is without a policy from now on", print::plain(&kind))))
        }
    }
}

fn path(kind: &str, role: Option<&str>) -> String {
    let role = role.map(|role| format!("?role={}", role.replace('/', "%2F"))).unwrap_or_default();
    format!("/v1/policies/{kind}{role}")
}

fn table(answer: &Value) -> String {
    let mut table = print::table(&["POLICY", "ROLE", "COMPONENT", "WHERE IT FAILS", "CALLS", "FAILURES", "NOW", "LAST FAILURE"]);
    for row in answer["policies"].as_array().into_iter().flatten() {
        let role = if row["role"].is_null() { "(all others)".to_owned() } else { text(&row["role"]) };
        let fails = match (row["kind"] == "score", row["closed"] == true) {
            (true, _) => "built-in order",
            (false, true) => "jobs are refused",
            (false, false) => "jobs are taken",
        };
        let now = match (row["missing"].is_null(), row["aside"].as_u64().unwrap_or(0)) {
            (false, _) => text(&row["missing"]),
            (true, 0) => "asked".to_owned(),
            (true, _) => "put aside".to_owned(),
        };
        let bundle: String = text(&row["bundle"]).chars().take("sha256:".len() + 12).collect();
        let (calls, failures) = (text(&row["calls"]), text(&row["failures"]));
        table.add_row([text(&row["kind"]), role, bundle, fails.to_owned(), calls, failures, now, text(&row["last_failure"])]);
    }
    table.to_string()
}
