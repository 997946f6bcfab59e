//! Flags of the verbs that bring a service from one version to another.

use clap::Args;

/// Flags of `skep apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// The job file, TOML or JSON; with --promote, --pause, --resume or --cancel, NAME or id of a job.
    #[arg(value_name = "FILE|JOB")]
    pub what: String,
    /// Return as soon as it is on record.
    #[arg(long)]
    pub detach: bool,
    /// In place of a deployment of the job that is under way.
    #[arg(long)]
    pub force: bool,
    /// The first tasks of its new version are good: the others follow.
    #[arg(long, group = "wish", conflicts_with = "force")]
    pub promote: bool,
    /// Its deployment stands still.
    #[arg(long, group = "wish", conflicts_with = "force")]
    pub pause: bool,
    /// Its deployment goes on.
    #[arg(long, group = "wish", conflicts_with = "force")]
    pub resume: bool,
    /// Its deployment ends, and the version before returns.
    #[arg(long, group = "wish", conflicts_with = "force")]
    pub cancel: bool,
    /// With --cancel: all stays as it is now.
    #[arg(long, requires = "cancel")]
    pub leave: bool,
    /// The job's role, where one is named.
    #[arg(long, requires = "wish")]
    pub role: Option<String>,
}

impl Apply {
    /// What is wanted of a deployment; nothing, where a file is to be made so.
    pub fn wish(&self) -> Option<&'static str> {
        let all = [(self.promote, "promote"), (self.pause, "pause"), (self.resume, "resume"), (self.cancel, "cancel")];
        all.into_iter().find_map(|(said, wish)| said.then_some(wish))
    }
}

/// Flags of `skep restart`.
#[derive(Debug, Args)]
pub struct Restart {
    /// NAME or id of a service.
    pub job: String,
    /// The job's role.
    #[arg(long)]
    pub role: Option<String>,
    /// In place of a deployment of it that is under way.
    #[arg(long)]
    pub force: bool,
    /// Return as soon as it is on record.
    #[arg(long)]
    pub detach: bool,
}

/// Flags of `skep rollback`.
#[derive(Debug, Args)]
pub struct Rollback {
    /// NAME or id of a service.
    pub job: String,
    /// The number of the version; the one before where it is not said.
    pub version: Option<u32>,
    /// Show the versions that are kept.
    #[arg(long)]
    pub list: bool,
    /// The job's role.
    #[arg(long)]
    pub role: Option<String>,
    /// In place of a deployment of it that is under way.
    #[arg(long)]
    pub force: bool,
    /// Return as soon as it is on record.
    #[arg(long)]
    pub detach: bool,
}
