//! Flags of the two daemons, and of what is done with masters.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Flags of `skep masters`.
#[derive(Debug, Args)]
pub struct Masters {
    /// What to do; nothing: list them.
    #[command(subcommand)]
    pub verb: Option<MastersVerb>,
}

/// What can be done with masters.
#[derive(Debug, Subcommand)]
pub enum MastersVerb {
    /// It never comes back: it has a vote in nothing any more.
    Remove {
        /// Its number.
        number: u16,
    },
    /// Show how much the master that is asked says on its standard error, or have it say more for a while.
    LogLevel {
        /// `debug`, `trace`, or `usual`: as it was started.
        level: Option<String>,
        /// For how long, such as 10m, at most a day; then it is as usual again.
        #[arg(long = "for", value_name = "TIME", requires = "level")]
        length: Option<String>,
    },
    /// Write all that the cluster has on record, its keys and its bundles to a file, an object store or standard output. Keep it as you keep
    /// keys.
    ///
    /// It is written once and whole: where something breaks off, nothing is left under its name, and a name that is taken is refused. s3:// is
    /// asked to refuse itself; AWS_CONDITIONAL_PUT=disabled is for stores that cannot, and then, as with gs:// and files, the name is looked
    /// at before. The environment says who asks and where: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION,
    /// AWS_ENDPOINT, AWS_ALLOW_HTTP; GOOGLE_APPLICATION_CREDENTIALS, GOOGLE_SERVICE_ACCOUNT; else the machine's own role is asked for.
    Backup {
        /// A new file, file:///PATH, s3://BUCKET/PATH or gs://BUCKET/PATH; `-` is standard output.
        #[arg(value_name = "FILE|URL|-")]
        target: PathBuf,
    },
    /// Make the data directory of a new first master from a backup. Then start it with `skep master --data DIR`.
    ///
    /// Where it fails, nothing is left in the directory. The environment says who asks a store, as with `skep masters backup`.
    Restore {
        /// The backup: a file, file:///PATH, s3://BUCKET/PATH, gs://BUCKET/PATH, https://HOST/PATH; `-` is standard input.
        #[arg(value_name = "FILE|URL|-")]
        target: PathBuf,
        /// The directory to make.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
}

/// Flags of `skep master`.
#[derive(Debug, Args)]
pub struct Master {
    /// Where it keeps its records and keys.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/skep/master")]
    pub data: PathBuf,
    /// Address of the HTTP API.
    #[arg(long, default_value = "127.0.0.1:7070")]
    pub http: std::net::SocketAddr,
    /// Address for agents.
    #[arg(long, default_value = "127.0.0.1:7071")]
    pub quic: std::net::SocketAddr,
    /// Address of Mesos' API for frameworks and tools that know neither TLS nor tokens [default: none].
    ///
    /// Whoever reaches it may do what an operator may, for every role: name an address that only they reach. With TLS and tokens the same API is at
    /// --http.
    #[arg(long, value_name = "ADDR")]
    pub mesos: Option<std::net::SocketAddr>,
    /// Address at which names of services are answered for over DNS, as `JOB.ROLE.skep`, to whoever reaches it [default: none].
    #[arg(long, value_name = "ADDR")]
    pub dns: Option<std::net::SocketAddr>,
    /// Address of Marathon's API for clients that know neither TLS nor tokens [default: none].
    ///
    /// Whoever reaches it may do what an operator may, for every role: name an address that only they reach. With TLS and tokens the same API is at
    /// --http.
    #[arg(long, value_name = "ADDR")]
    pub marathon: Option<std::net::SocketAddr>,
    /// How many shards a new cluster has.
    #[arg(long, default_value_t = 8)]
    pub shards: u16,
    /// Threads that decide [default: a quarter of the cores, at least 1].
    #[arg(long)]
    pub threads: Option<usize>,
    /// Milliseconds of silence after which an agent's tasks are replaced.
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(2_001..=86_400_000))]
    pub replace_after_ms: u64,
    /// Ended tasks that each shard keeps.
    #[arg(long, default_value_t = 1_000_000)]
    pub history: usize,
    /// Most MiB of one bundle that is uploaded.
    #[arg(long, default_value_t = master::http::bundles::BUNDLE_BYTES_MAX >> 20, value_parser = clap::value_parser!(u64).range(1..1 << 40))]
    pub bundle_mib: u64,
    /// Names and addresses that its certificate is good for, besides loopback and the host's name.
    #[arg(long)]
    pub host: Vec<String>,
    /// Joins the cluster of these masters, HOST:PORT of their --quic, with commas between them; needed at the first start only.
    #[arg(long = "to", value_name = "HOST:PORT", value_delimiter = ',', requires = "join")]
    pub masters: Vec<String>,
    /// The token to join with: `skep tokens create --level join-master`. Needed at the first start only.
    #[arg(long, env = "SKEP_JOIN_MASTER", hide_env_values = true, requires = "masters")]
    pub join: Option<String>,
    /// Where other masters and agents reach it, HOST:PORT [default: --quic].
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise_quic: Option<String>,
    /// Where clients reach it [default: --http].
    #[arg(long, value_name = "URL")]
    pub advertise_http: Option<String>,
}

/// Flags of `skep agent`.
#[derive(Debug, Args)]
pub struct Agent {
    /// Where it keeps its records, keys, bundles and logs.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/skep/agent")]
    pub data: PathBuf,
    /// Addresses of masters, HOST:PORT of their --quic, with commas between them; may be given again. One of them will do: each says where all
    /// are.
    #[arg(long = "to", value_name = "HOST:PORT", required = true, value_delimiter = ',')]
    pub masters: Vec<String>,
    /// The join token that a master printed; needed at the first start only.
    #[arg(long, env = "SKEP_JOIN", hide_env_values = true)]
    pub join: Option<String>,
    /// What it promises instead of what the machine has, such as `cpu=4,memory=8GiB,ports=20000-20999,gpu=1`.
    #[arg(long)]
    pub resources: Option<String>,
    /// What of that is kept for a role and those below it, such as `web:cpu=2,memory=1GiB,ports=10`; may be given again. Ports are a number here.
    #[arg(long, value_name = "ROLE:WHAT")]
    pub reserve: Vec<String>,
    /// What people call it [default: the host's name].
    #[arg(long)]
    pub name: Option<String>,
    /// A fact about it, NAME=VALUE; may be given again.
    #[arg(long, value_name = "NAME=VALUE")]
    pub attribute: Vec<String>,
    /// Where it stands: REGION/ZONE/RACK, the last with as many parts as there are levels, such as `eu/fsn1/row2/rack3`: job files then know `rack`,
    /// `rack.1` (`row2`) and `rack.2`.
    #[arg(long, default_value = "//")]
    pub domain: String,
    /// Lends what is promised and measured idle to tasks whose job says `revocable = true`, and takes it back in time: it then measures what tasks
    /// use, four times a second.
    #[arg(long)]
    pub revocable: bool,
    /// Where names of services are answered for over DNS, HOST:PORT of masters' --dns, with commas between them: native and container tasks find it in
    /// `SKEP_DNS`.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    pub dns: Vec<String>,
}
