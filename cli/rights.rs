//! What an agent does before it has a thread, where it was started as root: it starts its template, which keeps root, and goes on as a user of
//! its own.

use anyhow::Context;
use runtime::executor::process::{Started, Template, agent_user, give, is_passable};
use runtime::process::EXECUTORS_GROUP;
use rustix::process::{Gid, Uid, geteuid};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is the agent's in the folder that its data directory is in.
pub enum Around {
    /// Nothing.
    None,
    /// All but the data directory: a cluster in one process.
    Shared,
}

/// An agent's data directory, and the template that was started for it.
pub struct Begun {
    data: PathBuf,
    started: Started,
}

/// Starts the template of the agent whose data directory is `data`, which is made, and becomes the agent's user. Where other users do not reach
/// the directory, it stays root.
///
/// # Errors
/// What was tried, and the system's words.
pub fn begin(data: &Path, around: Around) -> anyhow::Result<Begun> {
    // Passable, for executors have users of their own; what is secret below is closed by itself.
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(data).with_context(|| data.display().to_string())?;
    let data = std::fs::canonicalize(data).with_context(|| data.display().to_string())?;
    let own = geteuid();
    let user = if own.is_root() && is_passable(&data) { Uid::from_raw(agent_user(&data)?) } else { own };
    let binary = std::env::current_exe().context("finding this program")?;
    let started = Started::start(&binary, &data, user.as_raw()).context("starting the agent's template")?;
    if user != own {
        if let (Around::Shared, Some(parent)) = (around, data.parent()) {
            share(parent, &data, user).with_context(|| format!("giving what is in {} to the agent", parent.display()))?;
        }
        become_user(user).with_context(|| format!("becoming user {}", user.as_raw()))?;
    }
    Ok(Begun { data, started })
}

impl Begun {
    /// The data directory, and the template once it has said what it found. Within a tokio runtime.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn meet(self) -> anyhow::Result<(PathBuf, Arc<Template>)> {
        let template = self.started.meet().await.with_context(|| format!("the template of {}", self.data.display()))?;
        Ok((self.data, Arc::new(template)))
    }
}

/// Has the template end, once its agent has, and waits until it has removed what no task needs.
pub async fn leave(template: Arc<Template>) {
    if let Some(template) = Arc::into_inner(template) {
        let left = tokio::task::spawn_blocking(move || template.leave());
        let _ = left.await; // It waits for a process, and does not panic.
    }
}

fn share(parent: &Path, data: &Path, user: Uid) -> std::io::Result<()> {
    // The agent makes files here, and does not remove or rename its data directory.
    chown(parent, Some(0), Some(user.as_raw()))?;
    std::fs::set_permissions(parent, std::fs::Permissions::from_mode(0o1771))?;
    for entry in std::fs::read_dir(parent)? {
        let path = entry?.path();
        if path != data {
            give(&path, user.as_raw())?;
        }
    }
    Ok(())
}

/// This process has one thread still: what it becomes, all of them will be.
fn become_user(user: Uid) -> std::io::Result<()> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    assert_eq!(threads, 1, "nothing has started a thread before");
    let group = Gid::from_raw(user.as_raw());
    rustix::thread::set_thread_groups(&[Gid::from_raw(EXECUTORS_GROUP)])?;
    rustix::thread::set_thread_res_gid(group, group, group)?;
    rustix::thread::set_thread_res_uid(user, user, user)?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}
