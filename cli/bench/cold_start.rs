//! What a start of everything costs: three masters under many agents (`crowd`) with running tasks, all masters killed at once and started again.
//! The clock begins with the kill and ends when every agent and every task is known again. Then the agents are gone with them, as after a loss
//! of power: they come with nothing, and each task is started again. That clock begins when the masters and the agents do.

use super::agents::{self, until};
use super::crowd::{Crowd, NICE};
use super::failover::TASKS_EACH;
use super::figure::{Figures, What};
use super::masters::Masters;
use super::member::{Member, STAYS};
use super::{job, upload};
use crate::client::Client;
use anyhow::{Context, ensure};
use reqwest::Method;
use serde_json::Value;
use std::path::Path;
use std::time::Instant;

/// Rows that are asked for at a time.
const PAGE: u32 = 1_000;
/// Sockets of an agent: those of its life before are closed when its connections are given up.
const SOCKETS_EACH: u64 = 2;

/// Where a task is: its attempt, and on which agent.
type Place = (u64, String);

/// All masters killed and started under `count` agents, then all masters and all agents.
pub async fn cold_start(figures: &mut Figures, samples: &Path, run: u32, count: u32) -> anyhow::Result<()> {
    agents::may_open(SOCKETS_EACH * u64::from(count))?;
    let mut masters = Masters::three().await?;
    let what = What { bench: "cold-start", kind: "crowd", n: u64::from(count), run };
    let (addresses, counts) = (masters.quic(), Member::count(3));
    let identities = agents::join(&masters.client, addresses[0], count).await?;
    let mut crowd = Crowd::start(&addresses, &identities, &counts, NICE).await?;
    agents::until_registered(&masters.client, &mut crowd, count).await?;
    let wasm = upload(&masters.client, samples, "noop.wasm").await?;
    let mut staying = job(&wasm, &[], count * TASKS_EACH);
    (staying["name"], staying["kind"]) = (STAYS.into(), "service".into());
    masters.client.call(Method::POST, "/v1/jobs", &staying).await?;
    until(&masters.client, &mut crowd, "all run", &format!("/v1/jobs/{STAYS}"), |job| job["tasks"]["running"] == count * TASKS_EACH)
        .await?;
    let client = masters.awake()?;
    let before = places(&client, count * TASKS_EACH).await?;

    let start = Instant::now();
    masters.kill_all()?;
    masters.start_all()?;
    let milliseconds = known(&client, &mut crowd, count, start).await?;
    let after = places(&client, count * TASKS_EACH).await?;
    let changed = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    ensure!(changed == 0, "{changed} tasks are in another attempt or on another agent than before");
    for (name, value) in ["answered", "agents_known", "tasks_known"].into_iter().zip(milliseconds) {
        figures.add(&what, name, value, "ms");
    }

    masters.until_whole().await?;
    masters.kill_all()?;
    drop(crowd);
    crowd = Crowd::prepare(&addresses, &identities, &Member::count(3), NICE).await?;
    let start = Instant::now();
    masters.start_all()?;
    crowd.begin();
    let [_, agents, tasks] = known(&client, &mut crowd, count, start).await?;
    let after = places(&client, count * TASKS_EACH).await?;
    let kept = before.iter().zip(&after).filter(|((before, _), (after, _))| before == after).count();
    ensure!(kept == 0, "{kept} tasks are held to run in an attempt that is gone");
    figures.add(&what, "rebooted_agents_known", agents, "ms");
    figures.add(&what, "rebooted_tasks_run", tasks, "ms");
    Ok(())
}

/// Milliseconds since `start` until the masters say how the cluster is, until they reach every agent, and until every task runs.
async fn known(client: &Client, crowd: &mut Crowd, count: u32, start: Instant) -> anyhow::Result<[f64; 3]> {
    let passed = || start.elapsed().as_secs_f64() * 1_000.0;
    until(client, crowd, "the masters answer", "/v1/status", |_| true).await?;
    let answered = passed();
    until(client, crowd, "all agents are back", "/v1/status", |status| status["figures"]["agents_reachable"] == count).await?;
    let agents = passed();
    until(client, crowd, "all run", &format!("/v1/jobs/{STAYS}"), |job| job["tasks"]["running"] == count * TASKS_EACH).await?;
    Ok([answered, agents, passed()])
}

/// Where each task is, by its index.
async fn places(client: &Client, count: u32) -> anyhow::Result<Vec<Place>> {
    let mut places = Vec::new();
    for from in (0..count).step_by(PAGE as usize) {
        let page = client.get(&format!("/v1/jobs/{STAYS}/tasks?from={from}&limit={PAGE}")).await?;
        let rows = page["tasks"].as_array().context("no tasks in the answer")?;
        let place = |row: &Value| Some((row["attempt"].as_u64()?, row["agent"].as_str()?.to_owned()));
        places.extend(
            rows.iter().map(|row| place(row).with_context(|| format!("{row} says not where it is"))).collect::<anyhow::Result<Vec<_>>>()?,
        );
    }
    ensure!(places.len() == usize::try_from(count)?, "the job has {} tasks instead of {count}", places.len());
    Ok(places)
}
