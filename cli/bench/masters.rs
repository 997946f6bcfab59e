//! Three masters for measuring, as processes of their own in a temporary place; gone when they are dropped. Knows how they are started, killed
//! and started again; no figure.

use super::cluster::{self, temporary};
use crate::client::{Access, Client};
use anyhow::{Context, bail};
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take until a bench gives up.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Shards that each of three masters leads at the least once they are level.
const LEADS_MIN: usize = 2;
/// Entries that a level master may lack.
const LAG_MAX: u64 = 100;

/// Three masters.
pub struct Masters {
    /// A client that knows the first of them.
    pub client: Client,
    seats: Vec<Seat>,
    agents: Vec<Child>,
    place: PathBuf,
    access: Access,
}

/// One of them, numbered from 1 by its place.
struct Seat {
    http: String,
    quic: SocketAddr,
    child: Option<Child>,
}

impl Drop for Masters {
    fn drop(&mut self) {
        let masters = self.seats.iter_mut().filter_map(|seat| seat.child.as_mut());
        cluster::clear(&self.place, self.agents.iter_mut().chain(masters));
    }
}

impl Masters {
    /// Starts them.
    pub async fn three() -> anyhow::Result<Self> {
        let place = temporary("skep-bench")?;
        let (child, ready) = begin(&place.join("m1"), "127.0.0.1:0", "127.0.0.1:0", &[]).and_then(first_line)?;
        let access = Access { url: text(&ready, "url")?, token: text(&ready, "token")?, ca_pem: text(&ready, "ca_pem")? };
        let first = Seat { http: address(&ready)?, quic: text(&ready, "quic")?.parse()?, child: Some(child) };
        let client = Client::new(access.clone())?;
        let mut masters = Self { client, seats: vec![first], agents: vec![], place, access };
        for number in 2..=3 {
            let made = masters.client.call(Method::POST, "/v1/tokens", &json!({ "level": "join-master" })).await?;
            let (token, to) = (text(&made, "token")?, masters.seats[0].quic.to_string());
            let data = masters.place.join(format!("m{number}"));
            let flags = ["--to", &to, "--join", &token];
            let (child, ready) = begin(&data, "127.0.0.1:0", "127.0.0.1:0", &flags).and_then(first_line)?;
            masters.seats.push(Seat { http: address(&ready)?, quic: text(&ready, "quic")?.parse()?, child: Some(child) });
        }
        masters.until_whole().await?;
        Ok(masters)
    }

    /// An agent joins, in a process of its own.
    pub async fn agent(&mut self, name: &str, resources: &str) -> anyhow::Result<()> {
        let to = self.quic().iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",");
        let agent = cluster::join(&self.client, &self.place, &to, name, resources).await?;
        self.agents.push(agent);
        cluster::until_registered(&self.client, self.agents.len()).await
    }

    /// Where agents connect to each of them.
    pub fn quic(&self) -> Vec<SocketAddr> {
        self.seats.iter().map(|seat| seat.quic).collect()
    }

    /// A client of the masters that run.
    pub fn awake(&self) -> anyhow::Result<Client> {
        let awake = self.seats.iter().filter(|seat| seat.child.is_some()).map(|seat| format!("https://{}", seat.http));
        Client::new(Access { url: awake.collect::<Vec<_>>().join(","), ..self.access.clone() })
    }

    /// Waits until all three have a vote in all groups and lead about as many.
    pub async fn until_whole(&self) -> anyhow::Result<()> {
        let (client, start) = (self.awake()?, Instant::now());
        while start.elapsed() < PATIENCE {
            let page = client.get("/v1/masters").await?;
            let list = |name: &str| page[name].as_array().cloned().unwrap_or_default();
            let leads = |master: &&Value| master["leads"].as_array().is_some_and(|led| led.len() >= LEADS_MIN);
            let voted =
                list("groups").iter().all(|group| group["voters"].as_array().map_or(0, Vec::len) == 3 && !group["leader"].is_null());
            let level = list("masters").iter().all(|master| master["lag"].as_u64().is_some_and(|lag| lag < LAG_MAX));
            if list("masters").iter().filter(leads).count() == 3 && voted && level {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        bail!("the masters are not whole after {} s", PATIENCE.as_secs())
    }

    /// `kill -9`.
    pub fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        let mut child = self.seats[number - 1].child.take().context("it runs")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// `kill -9` to all that run, before any is waited for.
    pub fn kill_all(&mut self) -> anyhow::Result<()> {
        let mut children: Vec<Child> = self.seats.iter_mut().filter_map(|seat| seat.child.take()).collect();
        for child in &children {
            let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a process id is a positive number")?;
            kill_process(id, Signal::KILL)?;
        }
        for child in &mut children {
            child.wait()?;
        }
        Ok(())
    }

    /// Starts one again on what it left, where it was.
    pub fn start(&mut self, number: usize) -> anyhow::Result<()> {
        let child = self.begin(number)?;
        self.seats[number - 1].child = Some(first_line(child)?.0);
        Ok(())
    }

    /// Starts all again at once; returns when each has said that it is there.
    pub fn start_all(&mut self) -> anyhow::Result<()> {
        let begun = (1..=self.seats.len()).map(|number| self.begin(number)).collect::<anyhow::Result<Vec<Child>>>()?;
        for (seat, child) in self.seats.iter_mut().zip(begun) {
            seat.child = Some(first_line(child)?.0);
        }
        Ok(())
    }

    fn begin(&self, number: usize) -> anyhow::Result<Child> {
        let seat = &self.seats[number - 1];
        begin(&self.place.join(format!("m{number}")), &seat.http, &seat.quic.to_string(), &[])
    }
}

fn begin(data: &Path, http: &str, quic: &str, flags: &[&str]) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--output", "json", "master", "--http", http, "--quic", quic, "--data"]).arg(data).args(flags);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting a master")
}

/// Waits for its first line.
fn first_line(mut child: Child) -> anyhow::Result<(Child, Value)> {
    let output = child.stdout.take().expect("it is piped");
    let line = BufReader::new(output).lines().next().context("a master said nothing")??;
    Ok((child, serde_json::from_str(&line).context("a master's first line")?))
}

fn text(value: &Value, name: &str) -> anyhow::Result<String> {
    value[name].as_str().map(str::to_owned).with_context(|| format!("{value} has no {name}"))
}

fn address(ready: &Value) -> anyhow::Result<String> {
    Ok(text(ready, "url")?.trim_start_matches("https://").to_owned())
}
