//! The flags of who may do what, `roles` and `tokens`, and of `exec` and `top`.

use clap::{Args, Subcommand};

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
    /// Says what its tasks may have of their hosts, in place of what was said before.
    Set {
        /// The role.
        role: String,
        /// Whether they may use the host's network.
        #[arg(long, default_value_t = false, action = clap::ArgAction::Set, value_name = "true|false")]
        host_network: bool,
        /// A path of the host that they may see, with all below; `:rw` behind it where they may change it. May be given again.
        #[arg(long, value_name = "PATH[:rw]")]
        host_path: Vec<String>,
    },
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
