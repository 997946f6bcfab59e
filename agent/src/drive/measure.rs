//! What running tasks use, several times a second, where what is idle is lent: read from the kernel on a thread beside the loop. Tasks that have what
//! is lent are not looked at: they take what others leave.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::{Lent, MemberId};
use runtime::executor::process;
use runtime::jail::cgroup::Hierarchies;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{Door, Woken};
use crate::usage::of_process;

/// How often is looked: what is lent is taken back after two looks, at the latest.
const LOOK_EACH: Duration = Duration::from_millis(250);

/// What was read.
#[derive(Debug)]
pub(super) struct Reading {
    /// By all together, since it was read before.
    pub used: Lent,
    /// Those of which nothing could be read.
    pub unread: Vec<MemberId>,
}

/// What is read, of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Task(MemberId),
    /// An executor of wasm tasks, by its process.
    Executor(u32),
}

/// What it takes to read it.
pub(super) struct Meter {
    ticks: Interval,
    /// With the reader, while that reads.
    known: Option<Known>,
    say: mpsc::Sender<Read>,
    read: mpsc::Receiver<Read>,
}

/// What comes back from the reader.
type Read = (Known, Option<Reading>);

/// What was read before.
struct Known {
    hierarchies: Hierarchies,
    /// When, the processor time of each in microseconds, and the control groups of tasks.
    at: Option<Instant>,
    cpu_us: BTreeMap<Of, u64>,
    groups: BTreeMap<MemberId, Arc<str>>,
}

impl Meter {
    pub fn new() -> Self {
        let mut ticks = interval(LOOK_EACH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let known = Known { hierarchies: Hierarchies::to_read(), at: None, cpu_us: BTreeMap::new(), groups: BTreeMap::new() };
        let (say, read) = mpsc::channel(1);
        Self { ticks, known: Some(known), say, read }
    }
}

/// What is to be done next: never anything where there is no meter. May be cancelled.
pub(super) async fn next(meter: Option<&mut Meter>) -> Woken {
    let Some(meter) = meter else { return std::future::pending().await };
    loop {
        tokio::select! {
            Some((known, reading)) = meter.read.recv() => {
                meter.known = Some(known);
                if let Some(reading) = reading {
                    return Woken::Measured(reading);
                }
            }
            _ = meter.ticks.tick(), if meter.known.is_some() => return Woken::Measure,
        }
    }
}

impl Door {
    /// Has it read what runs now.
    pub(super) fn measure(&mut self) {
        let Some(meter) = &mut self.meter else { return };
        let Some(mut known) = meter.known.take() else { return };
        let (ledger, say) = (&self.ledger, meter.say.clone());
        let is_firm = |(member, _): &(MemberId, PathBuf)| !ledger.is_revocable(member.attempt);
        let tasks: Vec<(MemberId, PathBuf)> = self.processes.running().into_iter().filter(is_firm).collect();
        let executors = self.executors.firm();
        tokio::task::spawn_blocking(move || {
            let reading = known.read(&tasks, &executors);
            let _ = say.blocking_send((known, reading)); // The agent may have ended.
        });
    }
}

impl Known {
    /// Nothing the first time: what was used since then is known the next.
    fn read(&mut self, tasks: &[(MemberId, PathBuf)], executors: &[u32]) -> Option<Reading> {
        let now = Instant::now();
        let (mut memory_bytes, mut cpu_us, mut unread) = (0_u64, BTreeMap::new(), Vec::new());
        self.groups.retain(|member, _| tasks.binary_search_by_key(member, |(member, _)| *member).is_ok());
        for (member, dir) in tasks {
            match self.group(*member, dir).and_then(|group| self.hierarchies.counted(&group)) {
                Some(counted) => {
                    memory_bytes = memory_bytes.saturating_add(counted.memory_bytes);
                    cpu_us.insert(Of::Task(*member), counted.cpu_us);
                }
                None => unread.push(*member),
            }
        }
        for pid in executors {
            if let Some((used_us, resident_bytes)) = of_process(*pid) {
                memory_bytes = memory_bytes.saturating_add(resident_bytes);
                cpu_us.insert(Of::Executor(*pid), used_us);
            }
        }
        // One that was not there before has begun since.
        let before = |of: &Of| self.cpu_us.get(of).copied().unwrap_or(0);
        let used_us: u64 = cpu_us.iter().map(|(of, used_us)| used_us.saturating_sub(before(of))).sum();
        self.cpu_us = cpu_us;
        let elapsed_us = now.duration_since(self.at.replace(now)?).as_micros().max(1);
        let cpu_milli = u64::try_from(u128::from(used_us) * 1_000 / elapsed_us).unwrap_or(u64::MAX);
        Some(Reading { used: Lent { cpu_milli, memory_bytes }, unread })
    }

    fn group(&mut self, member: MemberId, dir: &std::path::Path) -> Option<Arc<str>> {
        if let Some(group) = self.groups.get(&member) {
            return Some(Arc::clone(group));
        }
        let group: Arc<str> = process::group(dir)?.into();
        self.groups.insert(member, Arc::clone(&group));
        Some(group)
    }
}
