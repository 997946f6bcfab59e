//! Flags of what is kept of agents for roles.

use clap::Args;

/// Something that is to be kept of an agent, or no longer.
#[derive(Debug, Args)]
pub struct ReserveFlags {
    /// The agent's name or id.
    pub agent: String,
    /// For which role, with all below it.
    pub role: String,
    /// How much, such as `cpu=2,memory=1GiB,ports=10,gpu=1`.
    #[arg(value_name = "KIND=AMOUNT,…")]
    pub what: String,
    /// The roles of the reservations that it is taken out of, the outermost first, with commas between them [default: out of what is kept for nobody].
    #[arg(long, value_name = "ROLE", value_delimiter = ',')]
    pub within: Vec<String>,
    /// What is written on it, NAME=VALUE; may be given again. Reservations that differ in it are different ones.
    #[arg(long, value_name = "NAME=VALUE")]
    pub label: Vec<String>,
}
