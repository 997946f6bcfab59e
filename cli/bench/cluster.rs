//! A cluster for measuring: master and agent as processes of their own, as in production, in a temporary place; gone when it is dropped.

use crate::client::{Access, Client};
use anyhow::{Context, bail};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a process may take until it is ready.
const READY: Duration = Duration::from_secs(30);

/// A running cluster.
pub struct Cluster {
    /// The master's process.
    pub master: Child,
    /// The agents' processes.
    pub agents: Vec<Child>,
    /// Where all of them keep their things.
    pub place: PathBuf,
    /// How to call it.
    pub client: Client,
    quic: String,
}

impl Cluster {
    /// A master and one agent that promises `resources`.
    pub async fn start(resources: &str) -> anyhow::Result<Self> {
        let mut cluster = Self::master(&[]).await?;
        cluster.agent("a1", resources).await?;
        Ok(cluster)
    }

    /// A master alone, with more `flags`.
    pub async fn master(flags: &[&str]) -> anyhow::Result<Self> {
        let place = temporary("skep-bench")?;
        let data = place.join("master");
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--output", "json", "master", "--http", "127.0.0.1:0", "--quic", "127.0.0.1:0", "--data"]).arg(&data).args(flags);
        let mut master = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting a master")?;
        let output = master.stdout.take().expect("it is piped");
        let line = BufReader::new(output).lines().next().context("the master said nothing")??;
        let ready: Value = serde_json::from_str(&line).context("the master's first line")?;
        let text = |name: &str| ready[name].as_str().map(str::to_owned).with_context(|| format!("the master's first line has no {name}"));
        let access = Access { url: text("url")?, token: text("token")?, ca_pem: text("ca_pem")? };
        Ok(Self { master, agents: vec![], place, client: Client::new(access)?, quic: text("quic")? })
    }

    /// One more agent.
    pub async fn agent(&mut self, name: &str, resources: &str) -> anyhow::Result<()> {
        self.agent_with(name, resources, &[]).await
    }

    /// The same, with more `flags`.
    pub async fn agent_with(&mut self, name: &str, resources: &str, flags: &[&str]) -> anyhow::Result<()> {
        self.agents.push(join_with(&self.client, &self.place, &self.quic, (name, resources, flags)).await?);
        until_registered(&self.client, self.agents.len()).await
    }

    /// Kills the first agent, named `name`, and starts it again on what it left; returns how long the new one took from its start until it had
    /// found its tasks again and was connected.
    pub fn restart_agent(&mut self, name: &str, resources: &str) -> anyhow::Result<Duration> {
        let agent = &mut self.agents[0];
        agent.kill().context("killing an agent")?;
        agent.wait().context("waiting for an agent's end")?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["agent", "--to", &self.quic, "--name", name, "--resources", resources, "--data"]).arg(self.place.join(name));
        let start = Instant::now();
        let mut agent = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting an agent")?;
        let output = agent.stdout.take().expect("it is piped");
        BufReader::new(output).lines().next().context("the agent said nothing")??;
        let took = start.elapsed();
        self.agents[0] = agent;
        Ok(took)
    }

    /// Where agents connect.
    pub fn quic(&self) -> anyhow::Result<std::net::SocketAddr> {
        self.quic.parse().with_context(|| self.quic.clone())
    }

    /// The folder of executors of the agent `name`.
    pub fn data(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        clear(&self.place, self.agents.iter_mut().chain([&mut self.master]));
    }
}

/// Starts an agent that joins the masters at `quic` and keeps its things below `place`.
pub async fn join(client: &Client, place: &Path, quic: &str, name: &str, resources: &str) -> anyhow::Result<Child> {
    join_with(client, place, quic, (name, resources, &[])).await
}

async fn join_with(client: &Client, place: &Path, quic: &str, (name, resources, flags): (&str, &str, &[&str])) -> anyhow::Result<Child> {
    let token = client.call(reqwest::Method::POST, "/v1/tokens", &serde_json::json!({ "level": "join" })).await?;
    let token = token["token"].as_str().context("no join token in the answer")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["agent", "--to", quic, "--name", name, "--resources", resources, "--data"]).arg(place.join(name)).env("SKEP_JOIN", token);
    command.args(flags).stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("starting an agent")
}

/// Waits until so many agents can be reached.
pub async fn until_registered(client: &Client, wanted: usize) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let agents = client.get("/v1/agents").await?;
        let here = agents["agents"].as_array().map_or(0, |agents| agents.iter().filter(|agent| agent["state"] == "reachable").count());
        if here >= wanted {
            return Ok(());
        }
        if start.elapsed() > READY {
            bail!("of {wanted} agents {here} are registered after {} s", READY.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Ends these processes and all executors of agents below `place`, and removes it.
pub fn clear<'a>(place: &Path, processes: impl Iterator<Item = &'a mut Child>) {
    for child in processes {
        let _ = child.kill();
        let _ = child.wait();
    }
    for process in executors(place) {
        let pid = rustix::process::Pid::from_raw(process as i32).expect("a process id is not 0");
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    for agent in std::fs::read_dir(place).into_iter().flatten().flatten() {
        let _ = runtime::executor::process::sweep(&agent.path()); // A master's part has none.
    }
    let _ = std::fs::remove_dir_all(place);
}

/// A new empty folder for this process alone.
pub fn temporary(name: &str) -> anyhow::Result<PathBuf> {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let place = std::env::temp_dir().join(format!("{name}-{}-{number}", std::process::id()));
    std::fs::create_dir(&place).with_context(|| place.display().to_string())?;
    Ok(place)
}

/// Process ids of the executors whose folder is below `place`.
pub fn executors(place: &Path) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return vec![] };
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let ours = |id: &u32| {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        words.nth(1).is_some_and(|verb| verb == "executor" || verb == "template")
            && words.next().is_some_and(|dir| Path::new(&*dir).starts_with(place))
    };
    ids.filter(ours).collect()
}

/// What a process holds: resident bytes and bytes of its page tables (`VmRSS` and `VmPTE` of proc(5)).
pub fn memory(process: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).context("reading a process's status")?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    Ok((field("VmRSS:").context("no VmRSS")? + field("VmPTE:").context("no VmPTE")?) * 1024)
}

/// Clock ticks of processor time that a process has used (proc(5), fields 14 and 15), in microseconds.
pub fn cpu_us(process: u32) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).context("reading a process's times")?;
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let ticks = rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
    Ok(ticks * 1_000_000 / rustix::param::clock_ticks_per_second())
}
