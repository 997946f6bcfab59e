//! `skep audit`: who called to change something.

use crate::args::{Audit, Reach, Shape};
use crate::client::Client;
use crate::manage::say;
use crate::print::{self, text};
use std::process::ExitCode;

/// Shows the audit record of the master that is asked.
pub async fn audit(reach: &Reach, flags: &Audit, shape: Shape) -> anyhow::Result<ExitCode> {
    let client = Client::find(reach)?;
    let before = flags.before.map_or_else(String::new, |before| format!("&before={before}"));
    let answer = client.get(&format!("/v1/audit?limit={}{before}", flags.limit)).await?;
    let mut table = print::table(&["NUMBER", "AT", "TOKEN", "STATUS", "CALL"]);
    for row in answer["calls"].as_array().into_iter().flatten() {
        let or = |value, other: &str| Some(text(value)).filter(|text| !text.is_empty()).unwrap_or_else(|| other.to_owned());
        let call = [text(&row["method"]), text(&row["path"]), text(&row["what"])].join(" ");
        let (token, status) = (or(&row["token"], "none"), or(&row["status"], "left"));
        table.add_row([text(&row["number"]), text(&row["at"]), token, status, call.trim_end().to_owned()]);
    }
    Ok(say(shape, &answer, &table.to_string()))
}
