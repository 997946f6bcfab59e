//! The two daemons, and the two processes that an agent starts.

use crate::args;
use crate::args::Shape;
use crate::otlp::Traces;
use crate::print;
use crate::reservations;
use crate::rights::{self, Begun};
use anyhow::Context;
use master::drive::{Master, MasterConfig};
use master::logging::{Detail, Logging};
use protocol::identity::JoinToken;
use runtime::wasm::compile::CompileLimits;
use serde_json::json;
use std::io::{IsTerminal as _, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use tracing_subscriber::EnvFilter;

/// Holds tasks until its agent lets it go.
pub fn executor(dir: &Path) -> anyhow::Result<ExitCode> {
    Ok(runtime::executor::serve::main(dir))
}

/// Compiles one file under limits, and ends.
pub fn compile(input: &Path, output: &Path, metering: &str, limits: CompileLimits) -> anyhow::Result<ExitCode> {
    let metering = match metering {
        "fuel" => runtime::Metering::Fuel,
        "epoch" => runtime::Metering::Epoch,
        other => anyhow::bail!("metering {other}: expected fuel or epoch"),
    };
    runtime::wasm::compile::main(input, output, metering, limits)
}

/// Our own crates: what more is said is theirs.
const OWN: [&str; 5] = ["skep", "master", "agent", "protocol", "runtime"];

/// Says what happens on standard error, as `SKEP_LOG` filters it; warnings where it says nothing. What is given back changes that.
pub fn trace() -> Logging {
    trace_as("warn,openraft=off")
}

/// The same for a cluster in one process, where nothing is said of what only many agents need.
pub fn trace_one() -> Logging {
    trace_as("warn,openraft=off,protocol::link::listener=error")
}

fn trace_as(otherwise: &'static str) -> Logging {
    let said = std::env::var("SKEP_LOG").ok().filter(|said| EnvFilter::builder().parse(said).is_ok());
    let usual = said.unwrap_or_else(|| otherwise.to_owned());
    let log = tracing_subscriber::fmt().with_env_filter(filter(&usual, Detail::Usual)).with_writer(std::io::stderr).with_filter_reloading();
    let handle = log.reload_handle();
    let _ = log.try_init();
    Logging::new(move |detail| handle.reload(filter(&usual, detail)).map_err(|error| error.to_string()))
}

/// What is said as usual, and more of ours.
fn filter(usual: &str, detail: Detail) -> EnvFilter {
    let more = match detail {
        Detail::Usual => return EnvFilter::new(usual),
        Detail::Debug => "debug",
        Detail::Trace => "trace",
    };
    let directives: Vec<String> = std::iter::once(usual.to_owned()).chain(OWN.map(|name| format!("{name}={more}"))).collect();
    EnvFilter::new(directives.join(","))
}

/// Ends when the user or the system says so.
pub async fn told_to_end() -> anyhow::Result<()> {
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => Ok(result?),
        _ = term.recv() => Ok(()),
    }
}

/// What a master says of itself once it is ready: its URL, the token that its first start made, and its root certificate.
pub fn access(master: &Master) -> anyhow::Result<crate::client::Access> {
    let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
    let address = master.http_addr();
    // A wildcard address is none to call: loopback reaches the same master from this machine.
    let host = if address.ip().is_unspecified() { "127.0.0.1".to_owned() } else { address.ip().to_string() };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let token = read(master.admin_token())?.trim().to_owned();
    Ok(crate::client::Access { url: format!("https://{host}:{}", address.port()), token, ca_pem: read(master.root_pem())? })
}

/// `skep master`: decides until it is told to end.
pub async fn master(flags: args::Master, shape: Shape) -> anyhow::Result<ExitCode> {
    let logging = trace();
    let mut config = MasterConfig::local(&flags.data);
    config.logging = Some(logging);
    (config.http_addr, config.quic_addr, config.shards, config.threads) = (flags.http, flags.quic, flags.shards, flags.threads);
    (config.mesos_addr, config.marathon_addr, config.dns_addr) = (flags.mesos, flags.marathon, flags.dns);
    for address in [flags.http, flags.quic].into_iter().chain(flags.mesos).chain(flags.marathon) {
        if !address.ip().is_unspecified() {
            config.hosts.push(address.ip().to_string());
        }
    }
    config.hosts.extend(flags.host);
    config.shard_config = config.shard_config.replaced_after(flags.replace_after_ms);
    config.shard_config.history_tasks_max = flags.history;
    config.bundle_bytes_max = flags.bundle_mib << 20;
    (config.quic_advertised, config.http_advertised) = (flags.advertise_quic, flags.advertise_http);
    config.join = flags.join.map(|token| token.parse::<JoinToken>().context("--join")).transpose()?.map(|token| (flags.masters, token));
    config.loader = crate::plugins::Plugins::start();
    let traces = Traces::start()?;
    config.spans = traces.spans();
    let master = master::drive::start(config).await?;
    if !master.admin_token().exists() {
        return joined(master, traces, shape).await;
    }
    let access = access(&master)?;
    let [mesos, marathon] = [master.mesos_addr(), master.marathon_addr()].map(|address| address.map(|address| format!("http://{address}")));
    let ready = json!({
        "url": access.url,
        "token": access.token,
        "ca_pem": access.ca_pem,
        "quic": master.quic_addr().to_string(),
        "mesos": mesos,
        "dns": master.dns_addr(),
        "marathon": marathon,
    });
    if shape == Shape::Json {
        println!("{ready}");
    } else {
        println!("master   {}", access.url);
        println!("agents   {} (QUIC)", master.quic_addr());
        master.dns_addr().iter().for_each(|address| println!("names    {address} (DNS, open to whoever reaches it)"));
        for (name, url) in [("mesos   ", mesos), ("marathon", marathon)] {
            url.iter().for_each(|url| println!("{name} {url} (without TLS, open to whoever reaches it)"));
        }
        println!("token    in {}", master.admin_token().display());
        println!("root     in {}", master.root_pem().display());
        let join = join_token(&access).await?;
        println!(
            "\nanother machine joins with (good for an hour, and for one machine):\n  skep agent --to {} --join {join}",
            master.quic_addr()
        );
    }
    std::io::stdout().flush()?;
    told_to_end().await?;
    master.shutdown().await;
    traces.finish().await;
    Ok(ExitCode::SUCCESS)
}

/// A master that joined others: those gave the cluster its first token.
async fn joined(master: Master, traces: Traces, shape: Shape) -> anyhow::Result<ExitCode> {
    let (http, quic) = (master.http_addr(), master.quic_addr());
    if shape == Shape::Json {
        println!("{}", json!({ "url": format!("https://{http}"), "quic": quic.to_string(), "number": master.number() }));
    } else {
        println!("master   {} of its cluster, https://{http}", master.number());
        println!("agents   {quic} (QUIC)");
    }
    std::io::stdout().flush()?;
    told_to_end().await?;
    master.shutdown().await;
    traces.finish().await;
    Ok(ExitCode::SUCCESS)
}

/// A token that takes in one agent.
pub async fn join_token(access: &crate::client::Access) -> anyhow::Result<String> {
    let client = crate::client::Client::new(access.clone())?;
    let made = client.call(reqwest::Method::POST, "/v1/tokens", &json!({ "level": "join" })).await?;
    Ok(print::text(&made["token"]))
}

/// How long the token in the address of the page is good, in milliseconds: a day's work.
const PAGE_TTL_MS: u64 = 12 * 3_600_000;

/// Where the page is, with a token behind the `#`, which a browser sends to nobody, where a person reads this; else without.
pub async fn page_url(access: &crate::client::Access) -> anyhow::Result<String> {
    let url = access.url.split(',').next().unwrap_or_default();
    if !std::io::stdout().is_terminal() {
        return Ok(format!("{url}/"));
    }
    let client = crate::client::Client::new(access.clone())?;
    let wanted = json!({ "level": "admin", "ttl_ms": PAGE_TTL_MS });
    let made = client.call(reqwest::Method::POST, "/v1/tokens", &wanted).await?;
    Ok(format!("{url}/#token={}", print::text(&made["token"])))
}

/// `skep agent`: runs tasks until it is told to end; they go on without it.
pub async fn agent(flags: args::Agent, begun: Begun) -> anyhow::Result<ExitCode> {
    let _ = trace();
    let (data, template) = begun.meet().await?;
    let mut config = agent::drive::AgentConfig::new(data, flags.masters, Arc::clone(&template));
    config.join = flags.join.map(|token| token.parse::<JoinToken>().context("--join")).transpose()?;
    (config.resources, config.name) = (flags.resources, flags.name);
    for said in &flags.reserve {
        config.reservations.push(reservations::fixed(said).with_context(|| format!("--reserve {said}"))?);
    }
    for pair in flags.attribute {
        let (name, value) = pair.split_once('=').with_context(|| format!("--attribute {pair}: expected NAME=VALUE"))?;
        config.attributes.insert(name.to_owned(), value.to_owned());
    }
    let mut parts = flags.domain.splitn(3, '/').map(str::to_owned);
    let mut part = || parts.next().unwrap_or_default();
    (config.revocable, config.dns) = (flags.revocable, flags.dns);
    config.domain = protocol::FaultDomain { region: part(), zone: part(), rack: part() };
    let mut agent = agent::drive::start(config).await?;
    println!("agent    {} is ready; its tasks go on when it ends", agent.id());
    let ended = tokio::select! {
        ended = agent.ended() => ended,
        told = told_to_end() => {
            told?;
            agent.shutdown(agent::drive::Ending::TasksGoOn).await
        }
    };
    rights::leave(template).await;
    ended?;
    Ok(ExitCode::SUCCESS)
}
