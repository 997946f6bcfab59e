//! What running tasks use at this moment, for masters that ask: read from the kernel when it is asked for, and never otherwise.

use protocol::link::{LinkError, Sender};
use protocol::message::{BulkReply, ExecutorUsage, TaskUsage, USAGE_ROWS_MAX, UsageReport};
use protocol::{MemberId, Role};
use runtime::executor::process;
use runtime::executor::wire::Used;
use runtime::jail::cgroup::Hierarchies;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::logs::member;

/// How long executors may take to say what their tasks use.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// What is looked at.
#[derive(Debug, Default)]
pub struct Watched {
    /// Native and container tasks, and the directories of their executors.
    pub tasks: Vec<(MemberId, PathBuf)>,
    /// Executors of wasm tasks: their roles and processes.
    pub executors: Vec<(Role, u32)>,
    /// What those say that their tasks use; it ends once all have.
    pub used: Option<UnboundedReceiver<Vec<Used>>>,
}

/// Answers with what is used now.
///
/// # Errors
/// The stream's or the connection's end.
pub async fn serve(mut watched: Watched, mut sender: Sender) -> Result<(), LinkError> {
    let mut wasm = vec![];
    if let Some(mut used) = watched.used.take() {
        // Those that do not say it now are left out.
        let all = async {
            while let Some(used) = used.recv().await {
                wasm.extend(used.into_iter().map(of_wasm));
            }
        };
        let _ = tokio::time::timeout(ANSWER_WITHIN, all).await;
    }
    let read = tokio::task::spawn_blocking(move || watched.read()).await;
    let UsageReport { mut tasks, executors } = read.expect("reading files does not panic, and nobody cancels it");
    tasks.extend(wasm);
    let tasks = tasks.chunks(USAGE_ROWS_MAX).map(|tasks| UsageReport { tasks: tasks.to_vec(), executors: vec![] });
    let executors = executors.chunks(USAGE_ROWS_MAX).map(|executors| UsageReport { tasks: vec![], executors: executors.to_vec() });
    for part in tasks.chain(executors) {
        let bytes = postcard::to_stdvec(&part).expect("numbers and names become bytes").into();
        sender.send(&BulkReply::Chunk { offset: 0, bytes }).await?;
    }
    crate::logs::last(sender, BulkReply::End).await
}

impl Watched {
    /// Those that ended meanwhile are left out.
    fn read(&self) -> UsageReport {
        let hierarchies = Hierarchies::to_read();
        let task = |(member, dir): &(MemberId, PathBuf)| {
            let counted = hierarchies.counted(&process::group(dir)?)?;
            let (cpu_us, memory_bytes, processes) = (counted.cpu_us, counted.memory_bytes, Some(counted.processes));
            Some(TaskUsage { member: *member, cpu_us, memory_bytes, processes })
        };
        let executor = |(role, pid): &(Role, u32)| {
            let (cpu_us, memory_bytes) = of_process(*pid)?;
            Some(ExecutorUsage { role: role.clone(), cpu_us, memory_bytes })
        };
        UsageReport { tasks: self.tasks.iter().filter_map(task).collect(), executors: self.executors.iter().filter_map(executor).collect() }
    }
}

fn of_wasm(used: Used) -> TaskUsage {
    let Used { key, cpu_us, memory_bytes } = used;
    TaskUsage { member: member(key), cpu_us, memory_bytes, processes: None }
}

/// Processor time in microseconds and resident bytes of a process (proc_pid_stat(5), fields 14, 15 and 24).
pub(crate) fn of_process(pid: u32) -> Option<(u64, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks = field(14)? + field(15)?;
    Some((ticks * 1_000_000 / rustix::param::clock_ticks_per_second(), field(24)? * rustix::param::page_size() as u64))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_is_read_as_the_kernel_shows_it() {
        let (_, memory_bytes) = super::of_process(std::process::id()).unwrap();
        assert!(memory_bytes > 1 << 20, "{memory_bytes}");
        assert_eq!(super::of_process(u32::MAX), None);
    }
}
