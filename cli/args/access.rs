//! The flags of who may do what, `roles`, `policy` and `tokens`, and of `exec` and `top`.

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use std::path::PathBuf;

/// Flags of `skep roles`.
#[derive(Debug, Args)]
pub struct Roles {
    /// What to do; shows them where nothing is said.
    #[command(subcommand)]
    pub verb: Option<RolesVerb>,
}

/// What is done to a role.
#[derive(Debug, Subcommand)]
pub enum RolesVerb {
    /// Says how it is served, what it may hold, and what its tasks may have of their hosts; what is not named stays as it is.
    Set(RoleSet),
}

/// Whose tasks of lower priority a role's may take the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preempt {
    /// Nobody's.
    None,
    /// Those of the role and of all below it.
    Own,
    /// Those of all roles.
    All,
}

/// What is said of a role.
#[derive(Debug, Args)]
pub struct RoleSet {
    /// The role, such as `web`, or `web/shop` for a part of it.
    pub role: String,
    /// Its part of what it competes for with the roles beside it, 0.001 to 1000; all begin with 1.
    #[arg(long, value_name = "NUMBER")]
    pub weight: Option<f64>,
    /// The most that it and all roles below it may hold, such as `cpu=8,memory=16GiB,gpu=2`; `none`: no limit.
    #[arg(long, value_name = "KIND=AMOUNT,…")]
    pub limit: Option<String>,
    /// What it and all roles below it are served before others, and what is kept free for it, written as a limit; `none`: nothing.
    #[arg(long, value_name = "KIND=AMOUNT,…")]
    pub guarantee: Option<String>,
    /// Whose tasks of lower priority its own may take the place of: nobody's, those of it and all roles below it, or those of all roles. Roles below
    /// it have the same right.
    #[arg(long, value_enum)]
    pub preempt: Option<Preempt>,
    /// Also where more is guaranteed than the cluster has, or the role holds more than its limit.
    #[arg(long)]
    pub force: bool,
    /// Whether its tasks may use the host's network.
    #[arg(long, action = clap::ArgAction::Set, value_name = "true|false")]
    pub host_network: Option<bool>,
    /// A path of the host that its tasks may see, with all below; `:rw` behind it where they may change it. May be given again; in place of all
    /// that were said before.
    #[arg(long, value_name = "PATH[:rw]")]
    pub host_path: Vec<String>,
}

/// Flags of `skep tokens`.
#[derive(Debug, Args)]
pub struct Tokens {
    /// What to do with them; shows them where nothing is said.
    #[command(subcommand)]
    pub verb: Option<TokensVerb>,
}

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub enum TokensVerb {
    /// Make one; it is shown once.
    Create {
        /// viewer, operator or admin; join makes one that takes in one agent.
        #[arg(long, default_value = "operator")]
        level: String,
        /// A role that it is for; may be given again; all roles where none is given.
        #[arg(long)]
        role: Vec<String>,
        /// How long it is good for, such as 8h [default: 1h for join, without end for others].
        #[arg(long)]
        ttl: Option<String>,
    },
    /// Make one worthless.
    Revoke {
        /// Its id.
        id: String,
    },
}

/// Flags of `skep exec`.
#[derive(Debug, Args)]
pub struct Exec {
    /// The task: `JOB.INDEX`.
    pub task: String,
    /// The program and its arguments; looked for in the task, and never given to a shell.
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
    /// The job's role.
    #[arg(long)]
    pub role: Option<String>,
    /// The member of a group; the first native or container one where it is not said.
    #[arg(long)]
    pub member: Option<String>,
}

/// Flags of `skep top`.
#[derive(Debug, Args)]
pub struct Top {
    /// Show once, and end.
    #[arg(long)]
    pub once: bool,
    /// Most tasks that are shown.
    #[arg(long, default_value_t = 40)]
    pub limit: usize,
}

/// Flags of `skep audit`.
#[derive(Debug, Args)]
pub struct Audit {
    /// Most calls that are shown.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub limit: u64,
    /// Only calls of numbers below this.
    #[arg(long, value_name = "NUMBER")]
    pub before: Option<u64>,
}

/// Flags of `skep policy`.
#[derive(Debug, Args)]
pub struct PolicyFlags {
    /// What to do with them.
    #[command(subcommand)]
    pub verb: PolicyVerb,
}

/// What can be done with policies.
#[derive(Debug, Subcommand)]
pub enum PolicyVerb {
    /// Show them, and how they fare.
    List,
    /// Bring one, in place of what was there before.
    Set {
        /// What it says: `score` (which agents are best for tasks) or `admission` (which jobs are taken).
        #[arg(value_parser = ["score", "admission"])]
        kind: String,
        /// A component of that world of `skep:policy` (wit/policy/policy.wit) that imports nothing.
        file: PathBuf,
        /// The role that it is for, with all below it [default: all of which nothing else is said].
        #[arg(long)]
        role: Option<String>,
        /// Of admission: refuse jobs while it does not answer, instead of taking them.
        #[arg(long)]
        closed: bool,
    },
    /// Take one away.
    Remove {
        /// `score` or `admission`.
        #[arg(value_parser = ["score", "admission"])]
        kind: String,
        /// The role that it is for [default: all of which nothing else is said].
        #[arg(long)]
        role: Option<String>,
    },
}
