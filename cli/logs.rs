//! `skep logs`: what tasks print, merged; harmless to the terminal.

use crate::args::{Logs, Reach, Shape};
use crate::client::Client;
use crate::print as show;
use crate::show::Named;
use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use reqwest::Method;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// Prints the output of a job or of one task.
pub async fn logs(reach: &Reach, flags: Logs, shape: Shape) -> anyhow::Result<ExitCode> {
    let client = Client::find(reach)?;
    let named = Named::parse(&flags.what, flags.role.as_deref());
    if shape == Shape::Json {
        let path = path(&named.job, named.role.as_deref(), named.index, flags.follow);
        let mut lines = client.lines(client.request(Method::GET, &path)).await?;
        while let Some(line) = lines.next().await {
            println!("{}", line?);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let path = path(&named.job, named.role.as_deref(), named.index, flags.follow);
    stream(&client, &path, named.index.is_none()).await?;
    Ok(ExitCode::SUCCESS)
}

fn path(job: &str, role: Option<&str>, index: Option<u32>, follow: bool) -> String {
    let role = role.map(|role| format!("&role={role}")).unwrap_or_default();
    let task = index.map(|index| format!("&task={index}")).unwrap_or_default();
    format!("/v1/jobs/{job}/logs?follow={follow}{role}{task}")
}

/// Prints what the tasks of a job (or one of them) print; standard error of a task goes to standard error.
pub async fn print(client: &Client, job: &str, index: Option<u32>, follow: bool, prefix: bool) -> anyhow::Result<()> {
    stream(client, &path(job, None, index, follow), prefix).await
}

async fn stream(client: &Client, path: &str, prefix: bool) -> anyhow::Result<()> {
    let request = client.request(Method::GET, path).header("accept", "application/x-ndjson");
    let mut lines = client.lines(request).await?;
    let (filter_out, filter_err) = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
    let mut at_start = [true; 2];
    while let Some(line) = lines.next().await {
        let line = line?;
        let bytes = match (line["text"].as_str(), line["base64"].as_str()) {
            (Some(text), _) => text.as_bytes().to_vec(),
            (None, Some(text)) => STANDARD.decode(text).context("base64 in the output of a task")?,
            (None, None) => continue,
        };
        let is_error = line["stream"] == "stderr";
        let filter = if is_error { filter_err } else { filter_out };
        let member = line["member"].as_str().map(|member| format!("/{}", show::plain(member))).unwrap_or_default();
        let head = (prefix || !member.is_empty()).then(|| format!("{}{member}: ", show::text(&line["task"])));
        let out = dress(&bytes, head.as_deref(), filter, &mut at_start[usize::from(is_error)]);
        if is_error { std::io::stderr().write_all(&out)? } else { std::io::stdout().write_all(&out)? }
    }
    std::io::stdout().flush()?;
    Ok(())
}

/// The bytes as they go out: a head before each line where there is one, control characters away where a terminal reads.
fn dress(bytes: &[u8], head: Option<&str>, filter: bool, at_start: &mut bool) -> Vec<u8> {
    if head.is_none() && !filter {
        return bytes.to_vec();
    }
    let mut out = vec![];
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if *at_start {
            out.extend_from_slice(head.unwrap_or_default().as_bytes());
        }
        *at_start = line.ends_with(b"\n");
        let text = if filter {
            show::plain_line(&String::from_utf8_lossy(line)).into_bytes()
        } else {
            line.strip_suffix(b"\n").unwrap_or(line).to_vec()
        };
        out.extend(text);
        if *at_start {
            out.push(b'\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_get_their_head_once_and_no_escape_gets_through() {
        let mut start = true;
        let first = dress(b"a\x1b[2Jb", Some("0: "), true, &mut start);
        let rest = dress(b"c\nd\n", Some("0: "), true, &mut start);
        assert_eq!([first, rest].concat(), b"0: a[2Jbc\n0: d\n");
    }
}
