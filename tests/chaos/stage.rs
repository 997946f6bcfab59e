//! The place where a run happens: namespaces of its own for network, mounts and processes, in which one process takes in the orphans. Whatever
//! is made there, namespaces of hosts, mounts of disks, daemons, is gone when the first of its processes is.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Which part of the way this process is to go, and the process id that names the run's folder.
const STAGE: &str = "SKEP_CHAOS_STAGE";
const RUN: &str = "SKEP_CHAOS_RUN";
/// How the folder of a run begins.
const PREFIX: &str = "skep-chaos-";

/// Where this process stands.
pub enum Stage {
    /// In the namespaces.
    Inside,
    /// It only waited for another.
    Over(ExitCode),
    /// It cannot be done here.
    Skipped(String),
}

/// Goes inside: by two more processes, of which the last one returns [`Stage::Inside`].
pub fn enter() -> Stage {
    match std::env::var(STAGE).as_deref() {
        Ok("inside") => Stage::Inside,
        Ok(_) => Stage::Over(take_orphans()),
        Err(_) => begin(),
    }
}

/// The folder of this run.
pub fn folder() -> PathBuf {
    std::env::temp_dir().join(format!("{PREFIX}{}", std::env::var(RUN).unwrap()))
}

/// Removes what a run left: its groups of processes and its files.
pub fn clear(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().starts_with('a') && entry.path().is_dir() {
            // What it cannot remove is not this run's.
            let _ = runtime::executor::process::sweep(&entry.path());
        }
    }
    let _ = std::fs::remove_dir_all(folder);
}

fn begin() -> Stage {
    if !rustix::process::geteuid().is_root() {
        return Stage::Skipped("only root makes networks".into());
    }
    for (program, args) in
        [("unshare", ["--net", "true"]), ("nsenter", ["--version", ""]), ("ip", ["netns", "list"]), ("iptables", ["-L", "-n"])]
    {
        let args = args.iter().filter(|arg| !arg.is_empty());
        let made = Command::new(program).args(args).output();
        if !made.is_ok_and(|output| output.status.success()) {
            return Stage::Skipped(format!("`{program}` does not work here"));
        }
    }
    clear_old();
    let run = std::process::id().to_string();
    let own = std::env::current_exe().unwrap();
    let error = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "--"])
        .arg(own)
        .args(std::env::args_os().skip(1))
        .env(STAGE, "first")
        .env(RUN, run)
        .exec();
    panic!("unshare: {error}");
}

/// Folders of runs that did not come to their end.
fn clear_old() {
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(run) = name.strip_prefix(PREFIX) else { continue };
        if !Path::new("/proc").join(run).exists() {
            clear(&entry.path());
        }
    }
}

/// The first process: whose parents end before them, come to it.
#[allow(clippy::zombie_processes, reason = "it waits for all children there are, this one among them")]
fn take_orphans() -> ExitCode {
    let own = std::env::current_exe().unwrap();
    let child = Command::new(own).args(std::env::args_os().skip(1)).env(STAGE, "inside").spawn().unwrap();
    loop {
        match rustix::process::wait(rustix::process::WaitOptions::empty()) {
            Ok(Some((id, status))) if id.as_raw_nonzero().get().unsigned_abs() == child.id() => {
                return ExitCode::from(status.exit_status().map_or(1, |code| u8::try_from(code).unwrap_or(1)));
            }
            Err(rustix::io::Errno::CHILD) => return ExitCode::FAILURE,
            _ => {}
        }
    }
}
