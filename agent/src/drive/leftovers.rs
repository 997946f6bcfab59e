//! What native and container tasks leave, cleared away on a thread of its own: what the template has not removed by itself at once, output once
//! newer output needs the room.

use protocol::MemberId;
use runtime::Key;
use runtime::executor::process::{Template, Which, is_left};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread;
use std::time::{Duration, SystemTime};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::processes::Said;
use crate::logs::key;

/// Most bytes, and most tasks, whose output is kept after their end; the oldest goes first. As executors of wasm tasks have it.
const ENDED_BYTES_MAX: u64 = 1 << 30;
const ENDED_TASKS_MAX: usize = 16_384;
/// What a small file takes on disk.
const BLOCK_BYTES: u64 = 4_096;
/// So often what cannot be cleared away is tried again, and the wait between.
const TRIES_MAX: u32 = 5;
const TRY_AGAIN: Duration = Duration::from_millis(200);
const LOGS: &str = "logs";

/// Gives the thread its work. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Leftovers(std_mpsc::Sender<(MemberId, Life)>);

/// In whose time the executor ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// This agent's: its template removes by itself what a clean end leaves.
    Ours,
    /// It may have been an earlier one's.
    Any,
}

impl Leftovers {
    /// Within a tokio runtime.
    pub fn start(template: Arc<Template>, said: mpsc::Sender<Said>) -> io::Result<Self> {
        let (sender, work) = std_mpsc::channel();
        let runtime = Handle::current();
        thread::Builder::new().name("leftovers".into()).spawn(move || serve(&template, &runtime, &work, &said))?;
        Ok(Self(sender))
    }

    /// Has what the task left cleared away; [`Said::Cleared`] follows. As many wait as there are tasks.
    pub fn clear(&self, member: MemberId, ended: Life) {
        let _ = self.0.send((member, ended)); // The thread is gone only when the agent ends.
    }
}

fn serve(template: &Arc<Template>, runtime: &Handle, work: &std_mpsc::Receiver<(MemberId, Life)>, said: &mpsc::Sender<Said>) {
    let places = template.places();
    let mut kept = Kept::find(&places.processes(), places.live());
    while let Ok(first) = work.recv() {
        let members: Vec<(MemberId, Life)> = std::iter::once(first).chain(work.try_iter()).collect();
        for (member, ended) in &members {
            let which = Which::Process(key(*member));
            if *ended == Life::Any || is_left(&places.dir(which)) {
                let (done, is_done) = oneshot::channel();
                let template = Arc::clone(template);
                runtime.spawn(async move {
                    clear(&template, which).await;
                    done.send(())
                });
                if is_done.blocking_recv().is_err() {
                    return; // The agent has ended.
                }
            }
            kept.add(key(*member));
        }
        if said.blocking_send(Said::Cleared(members.into_iter().map(|(member, _)| member).collect())).is_err() {
            return;
        }
    }
}

async fn clear(template: &Template, which: Which) {
    for tries in 1..=TRIES_MAX {
        match template.clear(which).await {
            Ok(()) => return,
            Err(error) if tries == TRIES_MAX => {
                tracing::error!(%error, ?which, "what a task left cannot be cleared away: its control group or directory stays");
            }
            Err(_) => tokio::time::sleep(TRY_AGAIN).await,
        }
    }
}

/// Output of tasks that ended, oldest first.
#[derive(Debug, Default)]
struct Kept {
    folder: PathBuf,
    tasks: VecDeque<(Key, u64)>,
    bytes: u64,
}

impl Kept {
    /// What is there of tasks that do not live.
    fn find(home: &Path, live: &Path) -> Self {
        let mut kept = Self { folder: home.join(LOGS), ..Self::default() };
        let names = |dir: &Path| -> BTreeSet<String> {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
        };
        let live = names(live);
        let mut found: BTreeMap<String, SystemTime> = BTreeMap::new();
        for entry in fs::read_dir(&kept.folder).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            let Some((name, _)) = name.split_once('.').filter(|(name, _)| !live.contains(*name)) else { continue };
            let modified = entry.metadata().and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            let latest = found.entry(name.to_owned()).or_insert(modified);
            *latest = modified.max(*latest);
        }
        let mut oldest: Vec<(SystemTime, Key)> =
            found.into_iter().filter_map(|(name, modified)| Some((modified, Key(u128::from_str_radix(&name, 16).ok()?)))).collect();
        oldest.sort_unstable();
        oldest.into_iter().for_each(|(_, key)| kept.add(key));
        kept
    }

    /// A task ended: its output is kept until newer output needs the room.
    fn add(&mut self, key: Key) {
        let sizes = self.files(key).map(|path| fs::metadata(path).map_or(0, |metadata| metadata.len()));
        let bytes = sizes.iter().sum::<u64>();
        if bytes == 0 {
            return;
        }
        self.tasks.push_back((key, bytes.max(BLOCK_BYTES)));
        self.bytes += bytes.max(BLOCK_BYTES);
        while self.bytes > ENDED_BYTES_MAX || self.tasks.len() > ENDED_TASKS_MAX {
            let Some((key, bytes)) = self.tasks.pop_front() else { break };
            self.bytes -= bytes;
            self.files(key).iter().for_each(|path| _ = fs::remove_file(path));
        }
    }

    fn files(&self, key: Key) -> [PathBuf; 2] {
        [0, 1].map(|half| self.folder.join(format!("{:032x}.{half}", key.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn output_is_kept_until_newer_output_needs_the_room() {
        let dir = Scratch::new();
        let (home, live) = (dir.path(), dir.path().join("live"));
        fs::create_dir_all(home.join(LOGS)).unwrap();
        fs::create_dir_all(live.join(format!("{:032x}", 3))).unwrap();
        let write = |number: u128| fs::write(home.join(LOGS).join(format!("{number:032x}.0")), "output").unwrap();
        (1..=3).for_each(write);
        let mut kept = Kept::find(home, &live);
        assert_eq!((kept.tasks.len(), kept.bytes), (2, 2 * BLOCK_BYTES), "the third one lives");
        kept.bytes += ENDED_BYTES_MAX - BLOCK_BYTES;
        let first = kept.tasks[0].0;
        write(4);
        kept.add(Key(4));
        assert!(kept.tasks.iter().all(|(key, _)| *key != first));
        assert!(!kept.files(first)[0].exists() && kept.files(Key(4))[0].exists() && kept.files(Key(3))[0].exists());
        // One that printed nothing takes no room.
        let tasks = kept.tasks.len();
        kept.add(Key(5));
        assert_eq!(kept.tasks.len(), tasks);
    }
}
