//! `skep logs`: what tasks print, merged; harmless to the terminal.

use crate::args::{Logs, Reach, Shape};
use crate::client::{Client, RETRY_WAIT};
use crate::print as show;
use crate::show::Named;
use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use reqwest::Method;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// An answer that lasted less long is taken for one that broke off at once.
const BRIEF: Duration = Duration::from_secs(1);
/// How many of those may come one after another.
const BRIEF_MAX: u32 = 50;

/// Prints the output of a job or of one task.
pub async fn logs(reach: &Reach, flags: Logs, shape: Shape) -> anyhow::Result<ExitCode> {
    let client = Client::find(reach)?;
    let named = Named::parse(&flags.what, flags.role.as_deref());
    let what = What { job: &named.job, role: named.role.as_deref(), index: named.index, follow: flags.follow };
    if shape == Shape::Json {
        let print = |line: &Value| {
            println!("{line}");
            Ok(())
        };
        what.read(&client, print).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let prefix = named.index.is_none();
    what.print(&client, prefix).await?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what the tasks of a job print; standard error of a task goes to standard error.
pub async fn print(client: &Client, job: &str, follow: bool, prefix: bool) -> anyhow::Result<()> {
    What { job, role: None, index: None, follow }.print(client, prefix).await
}

/// Whose output is read.
struct What<'a> {
    job: &'a str,
    role: Option<&'a str>,
    index: Option<u32>,
    /// Until the tasks have ended.
    follow: bool,
}

/// How far each task's output was read: by task and member the attempt, and what comes next of it.
type Seen = BTreeMap<(String, String), (u64, u64)>;

impl What<'_> {
    fn path(&self) -> String {
        let role = self.role.map(|role| format!("&role={role}")).unwrap_or_default();
        let task = self.index.map(|index| format!("&task={index}")).unwrap_or_default();
        format!("/v1/jobs/{}/logs?follow={}{role}{task}", self.job, self.follow)
    }

    async fn print(&self, client: &Client, prefix: bool) -> anyhow::Result<()> {
        let (filter_out, filter_err) = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
        let mut at_start = [true; 2];
        let print = |line: &Value| {
            let bytes = match (line["text"].as_str(), line["base64"].as_str()) {
                (Some(text), _) => text.as_bytes().to_vec(),
                (None, Some(text)) => STANDARD.decode(text).context("base64 in the output of a task")?,
                (None, None) => return Ok(()),
            };
            let is_error = line["stream"] == "stderr";
            let filter = if is_error { filter_err } else { filter_out };
            let member = line["member"].as_str().map(|member| format!("/{}", show::plain(member))).unwrap_or_default();
            let head = (prefix || !member.is_empty()).then(|| format!("{}{member}: ", show::text(&line["task"])));
            let out = dress(&bytes, head.as_deref(), filter, &mut at_start[usize::from(is_error)]);
            if is_error {
                std::io::stderr().write_all(&out)?
            } else {
                std::io::stdout().write_all(&out)?
            }
            Ok(())
        };
        self.read(client, print).await?;
        std::io::stdout().flush()?;
        Ok(())
    }

    /// Gives each line of the answer to `each`, once. What is followed and breaks off, since the master that answered is gone, is asked for
    /// again.
    async fn read(&self, client: &Client, mut each: impl FnMut(&Value) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let (mut seen, mut brief) = (Seen::new(), 0);
        loop {
            let request = client.request(Method::GET, &self.path()).header("accept", "application/x-ndjson");
            let mut lines = client.lines(request).await?;
            let (opened, mut broken) = (Instant::now(), None);
            while let Some(line) = lines.next().await {
                match line {
                    Ok(line) if is_new(&mut seen, &line) => each(&line)?,
                    Ok(_) => {}
                    Err(error) => {
                        broken = Some(error);
                        break;
                    }
                }
            }
            brief = if opened.elapsed() < BRIEF { brief + 1 } else { 0 };
            let over = !self.follow || brief > BRIEF_MAX;
            match broken {
                Some(error) if over => return Err(error),
                None if over || !self.goes_on(client).await? => return Ok(()),
                _ => tokio::time::sleep(RETRY_WAIT).await,
            }
        }
    }

    /// True where a task may print more: then whoever answered ended early.
    async fn goes_on(&self, client: &Client) -> anyhow::Result<bool> {
        let role = self.role.map(|role| format!("&role={role}")).unwrap_or_default();
        let from = self.index.unwrap_or(0);
        let page = client.get(&format!("/v1/jobs/{}/tasks?phase={LIVE}&limit=1&from={from}{role}", self.job)).await?;
        let first = &page["tasks"][0]["index"];
        Ok(self.index.map_or(!first.is_null(), |index| *first == index))
    }
}

/// The states of tasks that have not ended, as the API has them.
const LIVE: &str = "waiting,staging,starting,running,killing,unreachable";

/// True where this line was not there before.
fn is_new(seen: &mut Seen, line: &Value) -> bool {
    let (Some(attempt), Some(next)) = (line["attempt"].as_u64(), line["next"].as_u64()) else { return true };
    let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let last = seen.entry((text("task"), text("member"))).or_default();
    let new = (attempt, next) > *last;
    if new {
        *last = (attempt, next);
    }
    new
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

    #[test]
    fn what_comes_again_after_a_break_is_told_from_what_is_new() {
        let mut seen = Seen::new();
        let line = |task: &str, attempt: u64, next: u64| serde_json::json!({ "task": task, "attempt": attempt, "next": next });
        let lines = [line("1.0", 1, 10), line("1.0", 1, 20), line("1.1", 1, 10), line("1.0", 1, 10), line("1.0", 1, 20)];
        let new = lines.iter().map(|line| is_new(&mut seen, line)).collect::<Vec<_>>();
        assert_eq!(new, [true, true, true, false, false]);
        assert!(is_new(&mut seen, &line("1.0", 2, 5)), "another attempt prints from its beginning");
        assert!(is_new(&mut seen, &serde_json::json!({ "task": "1.0", "error": "no" })));
    }
}
