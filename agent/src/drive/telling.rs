//! What executors say, of wasm or of processes, as the ledger hears it; and how one is found again.

use protocol::{Exit, Loss, Time, Usage};
use runtime::executor::process::{Template, Which};
use runtime::executor::{ExecutorEvent, Held, LaunchError, Recovered, Remains, recover};

use crate::ledger::event::Event;
use crate::logs::member;

/// The end of a task whose executor is gone.
pub(super) const LOST: Exit = Exit::Lost { reason: Loss::Executor };

/// Finds an executor. One that lives and cannot be spoken with is ended: nobody could own its tasks.
pub(super) async fn find(template: &Template, which: Which) -> Result<Recovered, LaunchError> {
    let dir = template.places().dir(which);
    let error = match recover(&dir).await {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    tracing::error!(%error, "an executor that cannot be spoken with is ended");
    let ended = template.end(which).await;
    ended.map_err(|source| LaunchError::File { step: "ending the executor of", path: dir.clone(), source })?;
    recover(&dir).await
}

/// What one holds at the moment of connecting.
pub(super) fn holds(held: Held) -> Vec<Event> {
    // One that waits for its place is as good as running: its executor owns it, and says so again when it runs.
    let now_ms = super::clock::now().0;
    let started = held.live.into_iter().map(|(key, since_ms)| (member(key), Time(since_ms.unwrap_or(now_ms)))).collect();
    let ended = held.ended.into_iter().map(|(key, exit, usage)| (member(key), as_exit(exit), as_usage(usage))).collect();
    vec![Event::Started { members: started }, Event::Ended { members: ended }]
}

/// What a dead one left.
pub(super) fn left(remains: Remains) -> Event {
    let ended = remains.ended.into_iter().map(|(key, exit, usage)| (member(key), as_exit(exit), as_usage(usage)));
    let lost = remains.lost.into_iter().map(|key| (member(key), LOST, Usage::default()));
    Event::Ended { members: ended.chain(lost).collect() }
}

/// One event for those that started and one for those that ended: in a batch an end is never before its start.
pub(super) fn told(events: Vec<ExecutorEvent>) -> Vec<Event> {
    let (mut started, mut ended, mut notes) = (Vec::new(), Vec::with_capacity(events.len()), Vec::new());
    for event in events {
        match event {
            ExecutorEvent::Started { key, since_ms } => started.push((member(key), Time(since_ms))),
            ExecutorEvent::Ended { key, exit, usage } => ended.push((member(key), as_exit(exit), as_usage(usage))),
            ExecutorEvent::Progress { key, percent, note } => notes.push((member(key), percent, note)),
            ExecutorEvent::Dropped { key, messages } => {
                tracing::warn!(attempt = %member(key).attempt, messages, "messages of its framework were dropped: the task did not take them in time");
            }
        }
    }
    let started = (!started.is_empty()).then_some(Event::Started { members: started });
    let ended = (!ended.is_empty()).then_some(Event::Ended { members: ended });
    let notes = (!notes.is_empty()).then_some(Event::Progress { notes });
    started.into_iter().chain(notes).chain(ended).collect()
}

fn as_usage(usage: runtime::Usage) -> Usage {
    Usage { fuel: usage.fuel, memory_peak_bytes: usage.memory_peak_bytes, time_us: usage.time_us, cpu_us: usage.cpu_us }
}

fn as_exit(exit: runtime::Exit) -> Exit {
    match exit {
        runtime::Exit::Code(code) => Exit::Code(code),
        runtime::Exit::Signal(signal) => Exit::Signal(signal),
        runtime::Exit::OutOfFuel { limit } => Exit::OutOfFuel { limit },
        runtime::Exit::OutOfMemory { limit_bytes, peak_bytes } => Exit::OutOfMemory { limit_bytes, peak_bytes },
        runtime::Exit::OutOfTime { limit_ms } => Exit::OutOfTime { limit_ms },
        runtime::Exit::OutOfCpuTime { limit_ms } => Exit::OutOfCpuTime { limit_ms },
        runtime::Exit::OutOfTable { limit, wanted } => Exit::OutOfTable { limit, wanted },
        runtime::Exit::OutOfHostBytes { limit_bytes } => Exit::OutOfHostBytes { limit_bytes },
        runtime::Exit::Trap { reason } => Exit::Trap { reason },
        runtime::Exit::Killed => Exit::Killed,
        runtime::Exit::Rejected { reason } => Exit::Rejected { reason },
        runtime::Exit::ExecutorLost => LOST,
        runtime::Exit::OutOfDisk { limit_bytes } => Exit::OutOfDisk { limit_bytes },
        runtime::Exit::OutOfProcesses { limit } => Exit::OutOfProcesses { limit },
        runtime::Exit::LeaseOver => Exit::Lost { reason: Loss::LeaseOver },
    }
}
