//! `skep up`: a whole cluster in one process, with everything on that a large one has.

use crate::args::{Shape, Up};
use crate::client::{Access, home};
use crate::daemon;
use crate::otlp::Traces;
use crate::rights::{self, Around, Begun};
use agent::drive::{Agent, AgentConfig, Ending};
use anyhow::Context;
use master::drive::{Master, MasterConfig};
use master::logging::Logging;
use protocol::identity::JoinToken;
use runtime::executor::process::Template;
use serde_json::json;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// The agent's part of the folder.
const AGENT: &str = "agent";

/// Where the master of a cluster of one listens.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// For clients.
    pub http: SocketAddr,
    /// For agents.
    pub quic: SocketAddr,
    /// For frameworks that speak Mesos' API and know neither TLS nor tokens.
    pub mesos: Option<SocketAddr>,
    /// For names of services over DNS.
    pub dns: Option<SocketAddr>,
    /// For clients that speak Marathon's API and know neither TLS nor tokens.
    pub marathon: Option<SocketAddr>,
}

/// What the agent of a cluster of one has to give.
#[derive(Clone, Debug, Default)]
pub struct Gives {
    /// What it promises instead of what the machine has.
    pub resources: Option<String>,
    /// True where it lends what is idle.
    pub revocable: bool,
}

/// A master and an agent in this process; executors are processes of their own, as everywhere.
pub struct Cluster {
    /// How to call it.
    pub access: Access,
    master: Master,
    agent: Agent,
    template: Arc<Template>,
    traces: Traces,
}

/// What is found out and begun as the user who starts it, before there is a thread.
pub struct Prepared {
    data: PathBuf,
    /// Other commands of this user look there.
    is_usual: bool,
    begun: Begun,
}

impl Prepared {
    /// Begins it.
    ///
    /// # Errors
    /// What was tried, and the system's words.
    pub fn new(flags: &Up) -> anyhow::Result<Self> {
        let usual = home();
        let data = flags.data.clone().unwrap_or_else(|| usual.clone());
        let begun = rights::begin(&data.join(AGENT), Around::Shared)?;
        Ok(Self { is_usual: data == usual, data, begun })
    }
}

impl Cluster {
    /// Starts it, or goes on where an earlier one in `data` ended.
    pub async fn start(data: &Path, begun: Begun, ports: Ports, shards: u16, gives: Gives, logging: Logging) -> anyhow::Result<Self> {
        let Ports { http, quic, mesos, marathon, dns } = ports;
        let (agents, template) = begun.meet().await?;
        let mut config = MasterConfig::local(&data.join("master"));
        (config.http_addr, config.quic_addr, config.mesos_addr, config.shards) = (http, quic, mesos, shards);
        (config.marathon_addr, config.dns_addr) = (marathon, dns);
        config.hosts.extend([http, quic].into_iter().chain(mesos).chain(marathon).map(|address| address.ip().to_string()));
        (config.loader, config.logging) = (crate::plugins::Plugins::start(), Some(logging));
        let traces = Traces::start()?;
        config.spans = traces.spans();
        let master = master::drive::start(config).await?;
        let access = daemon::access(&master)?;
        let mut config = AgentConfig::new(agents, vec![master.quic_addr().to_string()], Arc::clone(&template));
        (config.resources, config.revocable) = (gives.resources, gives.revocable);
        config.dns = master.dns_addr().iter().map(ToString::to_string).collect();
        let mut started = agent::drive::start(config.clone()).await;
        if matches!(started, Err(agent::drive::AgentError::NoIdentity { .. })) {
            let token = daemon::join_token(&access).await?;
            config.join = Some(token.parse::<JoinToken>().context("the join token that the master made")?);
            started = agent::drive::start(config).await;
        }
        access.save(data)?;
        Ok(Self { access, master, agent: started?, template, traces })
    }

    /// True where control groups bound its native and container tasks.
    pub fn bounds_processes(&self) -> bool {
        self.template.bounds_processes()
    }

    /// Ends it; its tasks go on, or end too.
    pub async fn stop(self, ending: Ending) -> anyhow::Result<()> {
        let ended = self.agent.shutdown(ending).await;
        self.master.shutdown().await;
        self.traces.finish().await;
        rights::leave(self.template).await;
        Ok(ended?)
    }

    /// Ends it with its tasks, and removes the agent's data directory.
    pub async fn vanish(self) -> anyhow::Result<()> {
        let ended = self.agent.shutdown(Ending::TasksEnd).await;
        self.master.shutdown().await;
        self.traces.finish().await;
        self.template.vanish().await?;
        rights::leave(self.template).await;
        Ok(ended?)
    }
}

/// Starts a cluster and says how to use it.
pub async fn up(flags: Up, prepared: Prepared, shape: Shape) -> anyhow::Result<ExitCode> {
    let logging = daemon::trace_one();
    let Prepared { data, is_usual, begun } = prepared;
    let ports = Ports { http: flags.http, quic: flags.quic, mesos: flags.mesos, marathon: flags.marathon, dns: flags.dns };
    let gives = Gives { resources: flags.resources, revocable: flags.revocable };
    let mut cluster = Cluster::start(&data, begun, ports, flags.shards, gives, logging).await?;
    let quic = cluster.master.quic_addr();
    if shape == Shape::Json {
        let Access { url, token, ca_pem } = &cluster.access;
        let mesos = cluster.master.mesos_addr().map(|address| format!("http://{address}"));
        let marathon = cluster.master.marathon_addr().map(|address| format!("http://{address}"));
        println!(
            "{}",
            json!({ "url": url, "token": token, "ca_pem": ca_pem, "quic": quic.to_string(), "mesos": mesos, "marathon": marathon, "dns": cluster.master.dns_addr(), "data": data })
        );
    } else {
        println!("a cluster of one is up: {} (agents: {quic})", cluster.access.url);
        println!("its page: {}", daemon::page_url(&cluster.access).await?);
        println!("  (the browser asks whether to trust it: its certificate is of {})", cluster.master.root_pem().display());
        cluster.master.dns_addr().iter().for_each(|address| println!("names of services: {address} (DNS, open to whoever reaches it)"));
        if !is_usual {
            println!(
                "other commands find it with\n  export SKEP_MASTER={} SKEP_TOKEN=$(cat {}) SKEP_CA={}",
                cluster.access.url,
                cluster.master.admin_token().display(),
                cluster.master.root_pem().display()
            );
        }
        println!("\ntry in another terminal:");
        println!("  skep run samples/dist/hello.wasm -- world");
        println!("  skep run --count 1000 samples/dist/noop.wasm --quiet");
        println!("  skep agents");
        let join = daemon::join_token(&cluster.access).await?;
        println!(
            "\nanother machine joins with (good for an hour, and for one machine; start with --quic ADDRESS:PORT where it can be reached):"
        );
        println!("  skep agent --to {quic} --join {join}");
        println!("\nCtrl-C ends it; running tasks go on, and `skep up` finds them again");
    }
    std::io::stdout().flush()?;
    let ended = tokio::select! {
        ended = cluster.agent.ended() => Some(ended),
        told = daemon::told_to_end() => told.map(|()| None)?,
    };
    if let Some(ended) = ended {
        cluster.master.shutdown().await;
        cluster.traces.finish().await;
        rights::leave(cluster.template).await;
        ended?;
        return Ok(ExitCode::SUCCESS);
    }
    cluster.stop(Ending::TasksGoOn).await?;
    Ok(ExitCode::SUCCESS)
}
