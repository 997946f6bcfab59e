//! The binary's verbs and flags, and nothing of what they do.

mod access;
mod bench;
mod daemons;
mod deploy;
mod maintenance;
mod reservations;

pub use access::{Audit, Exec, PolicyFlags, PolicyVerb, RoleSet, Roles, RolesVerb, Tokens, TokensVerb, Top};
pub use bench::{Bench, BenchWhat};
pub use daemons::{Agent, Master, Masters, MastersVerb};
pub use deploy::{Apply, Restart, Rollback};
pub use maintenance::{Maintenance, MaintenanceVerb};
pub use reservations::ReserveFlags;

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// One pool of many machines: WebAssembly, native and container tasks under fuel and memory limits.
#[derive(Debug, Parser)]
#[command(name = "skep", version, max_term_width = 110, arg_required_else_help = true)]
pub struct Cli {
    /// Where and as whom to call a cluster.
    #[command(flatten)]
    pub reach: Reach,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Shape::Table, global = true)]
    pub output: Shape,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Where and as whom to call a cluster; without any of it, what `skep up` wrote is used.
#[derive(Clone, Debug, Default, Args)]
pub struct Reach {
    /// The cluster's URL, such as <https://10.0.0.1:7070>.
    #[arg(long, env = "SKEP_MASTER", global = true, value_name = "URL")]
    pub master: Option<String>,
    /// The token to call with.
    #[arg(long, env = "SKEP_TOKEN", global = true, hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// A file with the cluster's root certificate, PEM.
    #[arg(long, env = "SKEP_CA", global = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// For people.
    Table,
    /// For programs: what the API answered.
    Json,
}

/// All that the binary can do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// A whole cluster in one process on loopback: prints the URL and what to type next.
    Up(Up),
    /// The tour: a cluster in a temporary place, samples under their limits, a table of what each did, then away.
    Demo(Demo),
    /// Submit one thing and follow it to its end; output and exit code are the task's own.
    Run(Box<Run>),
    /// What a job file would change, or what would be if the cluster were another; changes nothing.
    Plan(Plan),
    /// Make a job file so: create, or roll forward; waits until it runs (Ctrl-C leaves it running). Or promote, pause, resume, cancel that
    Apply(Apply),
    /// Jobs, or the tasks of one.
    Ps(Ps),
    /// One screen about a job (NAME), a task (NAME.INDEX) or an agent; the last line says what it waits for.
    Status(OneOf),
    /// Why there, or why not: agents counted by reason, and the smallest change that would fit; of a framework, why it is offered no more
    Explain(OneOf),
    /// Output of all tasks of a job, merged and prefixed; control characters filtered.
    Logs(Logs),
    /// Run a program beside a native or container task, in its jail; with this terminal, if there is one
    Exec(Exec),
    /// Live: what runs and what it uses, busiest first
    Top(Top),
    /// End a job and all its tasks.
    Stop(Stop),
    /// Give a job another number of tasks.
    Scale(Scale),
    /// Replace all tasks of a service by others that are the same, as a new version is rolled out
    Restart(Restart),
    /// Go back to an earlier version of a service
    Rollback(Rollback),
    /// Upload a bundle; prints its digest.
    Push(Push),
    /// Job files made of what another system has
    Import(Import),
    /// Machines of the cluster.
    Agents(Agents),
    /// Times in which agents are maintained: shown, scheduled or cancelled
    Maintenance(Maintenance),
    /// Frameworks that take offers and place tasks themselves: shown, or one of them ended
    Frameworks(Frameworks),
    /// Who may call, and who may join.
    Tokens(Tokens),
    /// What native and container tasks of roles may have of their hosts: shown, or set
    Roles(Roles),
    /// Who called to change something, when, and what became of it; of the master that is asked, newest first
    Audit(Audit),
    /// Policies as wasm components: which agents are best for tasks, which jobs are taken
    Policy(PolicyFlags),
    /// The processes that decide: shown, or one of them removed
    Masters(Masters),
    /// The daemon that decides.
    Master(Master),
    /// The daemon on each machine.
    Agent(Agent),
    /// Load on a real cluster; figures as JSON lines on standard output, a table on standard error.
    Bench(Bench),
    /// Completions for a shell, on standard output.
    #[command(hide = true)]
    Completions {
        /// Which.
        shell: clap_complete::Shell,
    },
    /// Holds running tasks; started by an agent.
    #[command(hide = true)]
    Executor {
        /// Its directory.
        dir: PathBuf,
    },
    /// Compiles one wasm file; started by an agent.
    #[command(hide = true)]
    Compile {
        /// The wasm file.
        wasm: PathBuf,
        /// Where the compiled code goes.
        compiled: PathBuf,
        /// `fuel` or `epoch`.
        metering: String,
        /// Most address space, in bytes.
        address_bytes_max: u64,
        /// Most processor time, in seconds.
        cpu_seconds_max: u64,
    },
    /// Unpacks one bundle or image, as standard input says; started by an agent.
    #[command(hide = true)]
    Unpack,
    /// Forks executors, and keeps root for all that takes it; an agent starts it.
    #[command(hide = true)]
    Template {
        /// The agent's data directory.
        data: PathBuf,
        /// The agent's user.
        owner: u32,
    },
}

/// Flags of `skep up`.
#[derive(Debug, Args)]
pub struct Up {
    /// Where everything of the cluster is kept [default: /var/lib/skep/dev as root, else ~/.skep/dev].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Address of the HTTP API.
    #[arg(long, default_value = "127.0.0.1:7070")]
    pub http: std::net::SocketAddr,
    /// Address for agents.
    #[arg(long, default_value = "127.0.0.1:7071")]
    pub quic: std::net::SocketAddr,
    /// Address of Mesos' API for frameworks that know neither TLS nor tokens, open to whoever reaches it [default: none].
    #[arg(long, value_name = "ADDR")]
    pub mesos: Option<std::net::SocketAddr>,
    /// Address at which names of services are answered for over DNS, as `JOB.ROLE.skep`, to whoever reaches it [default: none].
    #[arg(long, value_name = "ADDR")]
    pub dns: Option<std::net::SocketAddr>,
    /// Address of Marathon's API for clients that know neither TLS nor tokens, open to whoever reaches it [default: none].
    #[arg(long, value_name = "ADDR")]
    pub marathon: Option<std::net::SocketAddr>,
    /// What the agent promises instead of what the machine has, such as `cpu=4,memory=8GiB`.
    #[arg(long)]
    pub resources: Option<String>,
    /// Lends what is promised and measured idle, as `skep agent --revocable`.
    #[arg(long)]
    pub revocable: bool,
    /// How many shards a new cluster has.
    #[arg(long, default_value_t = 8)]
    pub shards: u16,
}

/// Flags of `skep demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Where the built samples are.
    #[arg(long, default_value = "samples/dist")]
    pub samples: PathBuf,
}

/// Flags of `skep run`.
#[derive(Clone, Debug, Args)]
pub struct Run {
    /// What runs, told by looking: a `.wasm` module or component, an executable or script, a folder or archive of a program, a container image
    /// (OCI layout or what `docker save` writes), or a job file (`.toml`, `.json`).
    pub thing: PathBuf,
    /// Arguments for the task; for a folder or archive, the program first.
    #[arg(last = true)]
    pub args: Vec<String>,
    /// How many tasks.
    #[arg(long)]
    pub count: Option<u32>,
    /// The job's name.
    #[arg(long)]
    pub name: Option<String>,
    /// Whom its resources are counted for.
    #[arg(long)]
    pub role: Option<String>,
    /// 0 to 100.
    #[arg(long)]
    pub priority: Option<u8>,
    /// A variable of its environment, NAME=VALUE; may be given again.
    #[arg(long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// What wasi:config answers, NAME=VALUE; may be given again.
    #[arg(long, value_name = "NAME=VALUE")]
    pub config: Vec<String>,
    /// A file that standard input reads; `-` for this command's own.
    #[arg(long, value_name = "FILE")]
    pub stdin: Option<PathBuf>,
    /// Cores that each task is promised, such as 0.5.
    #[arg(long)]
    pub cpu: Option<String>,
    /// Memory that each task is promised, and its limit, such as 64MiB.
    #[arg(long)]
    pub memory: Option<String>,
    /// Disk that each native or container task is promised, and its limit, such as 1GiB; without it its files are kept in its memory.
    #[arg(long)]
    pub disk: Option<String>,
    /// Its cores and memory are those that others are promised and do not use: it may be ended at any moment, and is placed again.
    #[arg(long)]
    pub revocable: bool,
    /// Most processes and threads of a native or container task.
    #[arg(long)]
    pub processes: Option<u32>,
    /// What a native or container task reaches: none (the default), or host, which its role must be allowed.
    #[arg(long)]
    pub network: Option<String>,
    /// The user inside a container, USER or USER:GROUP.
    #[arg(long)]
    pub user: Option<String>,
    /// The working directory inside, of a native or container task.
    #[arg(long)]
    pub dir: Option<String>,
    /// Wasm instructions after which it ends, such as 10G.
    #[arg(long)]
    pub fuel: Option<String>,
    /// Wall-clock time after which it ends, such as 30s.
    #[arg(long)]
    pub time: Option<String>,
    /// Processor time after which it ends, such as 10s; counts clock ticks instead of fuel.
    #[arg(long, conflicts_with = "fuel")]
    pub cpu_time: Option<String>,
    /// How often a failed task is tried again.
    #[arg(long)]
    pub retries: Option<u32>,
    /// An idempotency key: the same key and job submit once.
    #[arg(long)]
    pub key: Option<String>,
    /// Print no output of tasks, only the summary.
    #[arg(long)]
    pub quiet: bool,
    /// Return as soon as the job is on record; print its id.
    #[arg(long)]
    pub detach: bool,
}

impl Run {
    /// True where a flag says something that in a group is each task's own.
    pub fn is_about_one_task(&self) -> bool {
        let texts = [&self.cpu, &self.memory, &self.disk, &self.fuel, &self.cpu_time, &self.time, &self.network, &self.user, &self.dir];
        let lists = [&self.args, &self.env, &self.config];
        self.stdin.is_some()
            || self.revocable
            || self.processes.is_some()
            || texts.into_iter().any(Option::is_some)
            || lists.into_iter().any(|list| !list.is_empty())
    }
}

/// Flags of `skep plan`.
#[derive(Debug, Args)]
pub struct Plan {
    /// A job file, TOML or JSON.
    #[arg(required_unless_present = "what_if")]
    pub file: Option<PathBuf>,
    /// What is supposed, on a copy of the cluster; may be given again: 'lose rack=r3', 'drain name=a1', 'resume name=a1', 'add 20 agents like a1',
    /// 'scale JOB to 10', 'stop JOB', 'set role=web limit=cpu=8 guarantee=cpu=4 weight=2'. With a job file: what would become of that job then.
    #[arg(long, value_name = "HYPOTHESIS")]
    pub what_if: Vec<String>,
}

/// Flags of `skep ps`.
#[derive(Debug, Args)]
pub struct Ps {
    /// A job by its name or id: shows its tasks.
    pub job: Option<String>,
    /// The job's role.
    #[arg(long)]
    pub role: Option<String>,
    /// Jobs that have ended, too.
    #[arg(long)]
    pub all: bool,
    /// Show again each second.
    #[arg(long)]
    pub watch: bool,
}

/// A job, a task, an agent, a framework or an offer.
#[derive(Debug, Args)]
pub struct OneOf {
    /// NAME or id of a job, NAME.INDEX of a task; for `status` name or id of an agent, for `explain` id of a framework or of an offer.
    pub what: String,
    /// The job's role.
    #[arg(long)]
    pub role: Option<String>,
}

/// Flags of `skep logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// NAME or id of a job, or NAME.INDEX of a task.
    pub what: String,
    /// The job's role.
    #[arg(long)]
    pub role: Option<String>,
    /// Go on until the job has ended.
    #[arg(long, short)]
    pub follow: bool,
}

/// Flags of `skep stop`.
#[derive(Debug, Args)]
pub struct Stop {
    /// NAME or id of a job.
    pub job: String,
    /// The job's role.
    #[arg(long)]
    pub role: Option<String>,
    /// Seconds until its tasks are ended by force.
    #[arg(long, default_value_t = 5)]
    pub grace: u32,
}

/// Flags of `skep scale`.
#[derive(Debug, Args)]
pub struct Scale {
    /// NAME or id of a job.
    pub job: String,
    /// How many tasks it has from now on.
    pub count: u32,
    /// The job's role.
    #[arg(long)]
    pub role: Option<String>,
}

/// Flags of `skep push`.
#[derive(Debug, Args)]
pub struct Push {
    /// The file.
    pub file: PathBuf,
}

/// Flags of `skep import`.
#[derive(Debug, Args)]
pub struct Import {
    /// Of which system.
    #[command(subcommand)]
    pub from: ImportFrom,
}

/// Systems of which jobs are imported.
#[derive(Debug, Subcommand)]
pub enum ImportFrom {
    /// A job file for each app of a JSON file: an app, a list of apps, a group, or what Marathon answers
    Marathon {
        /// The JSON file; `-` for standard input.
        file: PathBuf,
        /// Where the job files, and the scripts of their commands, are put.
        #[arg(long, value_name = "DIR", default_value = ".")]
        to: PathBuf,
    },
}

/// Flags of `skep frameworks`.
#[derive(Debug, Args)]
pub struct Frameworks {
    /// What to do with them; shows them where nothing is said.
    #[command(subcommand)]
    pub verb: Option<FrameworksVerb>,
}

/// What can be done with frameworks.
#[derive(Debug, Subcommand)]
pub enum FrameworksVerb {
    /// End one, with all its tasks.
    End {
        /// Its id.
        framework: String,
    },
}

/// Flags of `skep agents`.
#[derive(Debug, Args)]
pub struct Agents {
    /// What to do with them; shows them where nothing is said.
    #[command(subcommand)]
    pub verb: Option<AgentsVerb>,
}

/// What can be done with agents.
#[derive(Debug, Subcommand)]
pub enum AgentsVerb {
    /// Empty it before maintenance: it is given no tasks, and those that it has are stopped and placed elsewhere; tasks of batch jobs once they had
    /// their time.
    Drain {
        /// Its name or id.
        agent: String,
        /// How long a task has to stop, such as 10s.
        #[arg(long, value_name = "TIME", default_value = "5s")]
        grace: String,
        /// How long tasks of batch jobs may go on, such as 1h.
        #[arg(long, value_name = "TIME", default_value = "10m")]
        wait: String,
        /// Once it is empty it never comes back.
        #[arg(long)]
        gone: bool,
    },
    /// Change its attributes, where it stands or what it promises while its tasks go on; the agent keeps it, over the flags it is started with.
    Set {
        /// Its name or id.
        agent: String,
        /// A fact about it, NAME=VALUE; may be given again.
        #[arg(long, value_name = "NAME=VALUE")]
        attribute: Vec<String>,
        /// An attribute that it has no longer; may be given again.
        #[arg(long, value_name = "NAME")]
        remove: Vec<String>,
        /// Where it stands: REGION/ZONE/RACK.
        #[arg(long)]
        domain: Option<String>,
        /// What it promises, such as `cpu=8`: what is not named stays. Never less than its tasks are promised.
        #[arg(long)]
        resources: Option<String>,
    },
    /// Give it no other tasks than it has.
    Deactivate {
        /// Its name or id.
        agent: String,
    },
    /// Give it tasks again.
    Resume {
        /// Its name or id.
        agent: String,
    },
    /// It never comes back: replace its tasks at once, and refuse its certificate.
    Gone {
        /// Its name or id.
        agent: String,
    },
    /// Keep some of what is free on it for a role: nobody else is given that. What the role's tasks hold there already counts as use of it.
    Reserve(ReserveFlags),
    /// Keep it no longer; tasks go on.
    Unreserve(ReserveFlags),
    /// Show what is kept of agents for roles.
    Reservations,
}
