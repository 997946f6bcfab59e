//! Flags of `skep maintenance`.

use clap::{Args, Subcommand};

/// Flags of `skep maintenance`.
#[derive(Debug, Args)]
pub struct Maintenance {
    /// What to do; shows the windows where nothing is said.
    #[command(subcommand)]
    pub verb: Option<MaintenanceVerb>,
}

/// What can be done with windows of maintenance.
#[derive(Debug, Subcommand)]
pub enum MaintenanceVerb {
    /// Show all windows, and what frameworks say of them.
    List,
    /// Empty agents from a moment on, and give them tasks again when it is over; offers say so before.
    Schedule {
        /// Their names or ids.
        #[arg(required = true)]
        agents: Vec<String>,
        /// How long until it begins, such as 2h; now where it is not said.
        #[arg(long = "in", value_name = "TIME", default_value = "0s")]
        after: String,
        /// How long it takes, such as 30m; until it is cancelled where it is not said.
        #[arg(long = "for", value_name = "TIME")]
        length: Option<String>,
        /// How long a task has to stop when it begins, such as 10s.
        #[arg(long, value_name = "TIME", default_value = "5s")]
        grace: String,
        /// What people are to know of it.
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Cancel a window, or end one that runs: its agents are given tasks again.
    Cancel {
        /// Its number.
        window: u64,
    },
}
