//! What running tasks use at this moment, for masters that ask: read from the kernel when it is asked for, and never otherwise.

use protocol::link::{LinkError, Sender};
use protocol::message::{BulkReply, ExecutorUsage, TaskUsage, USAGE_ROWS_MAX, UsageReport};
use protocol::{MemberId, Role};
use runtime::executor::process;
use runtime::jail::cgroup::Hierarchies;
use std::fs;
use std::path::PathBuf;

/// What is looked at.
#[derive(Debug, Default)]
pub struct Watched {
    /// Native and container tasks, and the directories of their executors.
    pub tasks: Vec<(MemberId, PathBuf)>,
    /// Executors of wasm tasks: their roles and processes.
    pub executors: Vec<(Role, u32)>,
}

/// Answers with what is used now.
///
/// # Errors
/// The stream's or the connection's end.
pub async fn serve(watched: Watched, mut sender: Sender) -> Result<(), LinkError> {
    let read = tokio::task::spawn_blocking(move || watched.read()).await;
    let UsageReport { tasks, executors } = read.expect("reading files does not panic, and nobody cancels it");
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
        let hierarchies = Hierarchies::find();
        let task = |(member, dir): &(MemberId, PathBuf)| {
            let counted = hierarchies.counted(&process::group(dir)?)?;
            Some(TaskUsage { member: *member, cpu_us: counted.cpu_us, memory_bytes: counted.memory_bytes, processes: counted.processes })
        };
        let executor = |(role, pid): &(Role, u32)| {
            let (cpu_us, memory_bytes) = of_process(*pid)?;
            Some(ExecutorUsage { role: role.clone(), cpu_us, memory_bytes })
        };
        UsageReport { tasks: self.tasks.iter().filter_map(task).collect(), executors: self.executors.iter().filter_map(executor).collect() }
    }
}

/// Processor time in microseconds and resident bytes of a process (proc_pid_stat(5), fields 14, 15 and 24).
fn of_process(pid: u32) -> Option<(u64, u64)> {
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
