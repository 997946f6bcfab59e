//! The agent's side: asks the template for all that takes root, or a process to be forked from.

use super::ask::{self, About, Answer, Ask, Hello, Refusal};
use super::places::{Places, Which};
use super::session::Session;
use super::{PROGRAM, VERSION};
use crate::Runtime;
use crate::container::Work;
use crate::executor::client::{connect, meet};
use crate::executor::{Executor, ExecutorSpec, LaunchError, Recovered, place, recover};
use crate::process::ProcessSpec;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long a task may take until its program begins or a step of its jail fails, and an executor of wasm until it answers: a disk of its own is
/// made by then, or the large pool of an engine, on a busy machine.
const START_WAIT: Duration = Duration::from_secs(60);
/// How long a template may take until it says what it found.
const HELLO_WAIT: Duration = Duration::from_secs(30);
/// How long it is waited for at its end, in which it removes what no task needs.
const END_WAIT: Duration = Duration::from_secs(10);
const END_LOOK_EVERY: Duration = Duration::from_millis(2);

/// A template that was started, and has not said yet what it found. It ends when this is dropped.
#[derive(Debug)]
pub struct Started {
    control: std::os::unix::net::UnixStream,
    process: Buried,
}

/// A connection to the template: the small process from which executors are forked, and which alone keeps root. It ends when this is dropped;
/// executors live on.
#[derive(Debug)]
pub struct Template {
    about: About,
    control: UnixStream,
    process: Buried,
}

/// A process that is waited for once it is no longer needed.
#[derive(Debug)]
struct Buried(Mutex<Option<Child>>);

impl Drop for Buried {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            // It sees its socket closed as soon as this thread goes on.
            let _ = std::thread::Builder::new().name("template's end".into()).spawn(move || child.wait());
        }
    }
}

impl Started {
    /// Starts `skep-template` where that lies beside `binary`, else `binary template …`, for the agent of user `owner` whose data directory is `data`:
    /// absolute, as root passable for everyone, and of the user of this process. Needs no runtime, and best has none: as root the caller becomes
    /// `owner` afterwards.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(binary: &Path, data: &Path, owner: u32) -> io::Result<Self> {
        let (control, theirs) = std::os::unix::net::UnixStream::pair()?;
        control.set_nonblocking(true)?;
        let beside = binary.with_file_name(PROGRAM);
        let is_beside = beside.is_file();
        let mut command = Command::new(if is_beside { &beside } else { binary });
        command.arg("template").arg(data).arg(owner.to_string());
        if is_beside {
            command.arg(VERSION).arg(binary);
        }
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).env_clear().current_dir("/");
        let process = command.spawn()?;
        Ok(Self { control, process: Buried(Mutex::new(Some(process))) })
    }

    /// Hears what it found. Within a tokio runtime.
    ///
    /// # Errors
    /// Why it cannot serve.
    pub async fn meet(self) -> io::Result<Template> {
        let mut control = UnixStream::from_std(self.control)?;
        let hello = timeout(HELLO_WAIT, answer::<Hello>(&mut control)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        let about = hello?.map_err(io::Error::other)?;
        Ok(Template { about, control, process: self.process })
    }
}

impl Template {
    /// Where executors and what they leave are.
    #[must_use]
    pub fn places(&self) -> &Places {
        &self.about.places
    }

    /// What holds tasks in less than it should on this machine, as sentences for people; empty where all steps of their jails work.
    #[must_use]
    pub fn weaknesses(&self) -> &[String] {
        &self.about.weaknesses
    }

    /// True where the template is root, so that each task and each role has users of its own.
    #[must_use]
    pub fn own_ids(&self) -> bool {
        self.about.own_ids
    }

    /// True where control groups bound what a native or container task has together, its memory and processes among it.
    #[must_use]
    pub fn bounds_processes(&self) -> bool {
        self.about.bounded
    }

    /// Comes back when the template is gone for good: nothing can be asked for any more, and what runs goes on.
    pub async fn gone(&self) {
        let mut byte = [0];
        loop {
            let read = self.control.async_io(Interest::READABLE, || Ok(rustix::io::read(&self.control, &mut byte)?)).await;
            if !matches!(read, Ok(1..)) {
                return;
            }
        }
    }

    /// Has the template end, and waits for it: what no task needs any more is removed then. Blocking.
    pub fn leave(self) {
        let Self { control, process, .. } = self;
        drop(control);
        let mut child = process.0.lock().unwrap_or_else(PoisonError::into_inner);
        let until = std::time::Instant::now() + END_WAIT;
        while let Some(running) = child.as_mut().filter(|_| std::time::Instant::now() < until) {
            if !matches!(running.try_wait(), Ok(None)) {
                *child = None;
            }
            std::thread::sleep(END_LOOK_EVERY);
        }
    }

    /// Starts a task, in an executor of its own. What is given back holds the task as live; the events that follow are `Started` and `Ended`, or
    /// `Ended` alone. A step that fails ends the task as `Rejected`, with the step and what the system said. Once its end was forgotten
    /// ([`crate::executor::Commands::forget`]) the executor ends; what it leaves then is removed by the template, or with [`Self::clear`].
    ///
    /// # Errors
    /// [`LaunchError`]: it was not started, and nothing of it is left running.
    pub async fn start(&self, spec: &ProcessSpec) -> Result<Executor, LaunchError> {
        self.start_as(spec.key, Ask::Executor(Box::new(spec.clone()))).await
    }

    /// The same of a fenced task: its executor ends it at `until_ns`, by [`super::super::lease::boot_ns`], unless it is renewed before.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_fenced(&self, spec: &ProcessSpec, until_ns: u64) -> Result<Executor, LaunchError> {
        self.start_as(spec.key, Ask::Fenced(Box::new(spec.clone()), until_ns)).await
    }

    async fn start_as(&self, key: crate::Key, asking: Ask) -> Result<Executor, LaunchError> {
        let which = Which::Process(key);
        let dir = self.places().dir(which);
        if fs::symlink_metadata(&dir).is_ok() {
            return Err(LaunchError::Used { path: dir });
        }
        let asked = self.ask(&asking, None).await;
        let client =
            asked.map_err(|source| LaunchError::File { step: "asking the template for the executor of", path: dir.clone(), source })?;
        self.met(meet(client, &dir), which, &dir).await
    }

    /// What was met, or why not; nothing of it is left then.
    async fn met(
        &self,
        meeting: impl Future<Output = Result<Executor, LaunchError>>,
        which: Which,
        dir: &Path,
    ) -> Result<Executor, LaunchError> {
        let failure = match timeout(START_WAIT, meeting).await {
            Ok(Ok(executor)) => return Ok(executor),
            Ok(Err(LaunchError::File { .. })) => LaunchError::Died { said: place::last_words(dir), path: dir.into() },
            Ok(Err(other)) => other,
            Err(_) => LaunchError::Silent { path: dir.into(), pid: 0 },
        };
        let left = if matches!(which, Which::Process(_)) { self.clear(which).await } else { self.end(which).await };
        if let Err(error) = left {
            tracing::warn!(%error, "what an executor left that did not start could not be cleared away");
        }
        Err(failure)
    }

    /// Starts a program beside a task that lives. What is given back speaks as [`session`](super::session) says.
    ///
    /// # Errors
    /// Where the template is gone.
    pub async fn session(&self, session: Session) -> io::Result<UnixStream> {
        self.ask(&Ask::Session(session), None).await
    }

    /// Ends an executor by force, and all tasks with it, if one lives; comes back once it is dead.
    ///
    /// # Errors
    /// Where its directory cannot be read, or the process cannot be signalled or does not die.
    pub async fn end(&self, which: Which) -> io::Result<()> {
        self.answered(&Ask::End(which)).await
    }

    /// The same, and removes all that it leaves but the output of a process, which stays in `logs` of [`Places::processes`]. To be called once
    /// its end was forgotten and the connection has ended, or what was left was read. Doing it twice does no harm.
    ///
    /// # Errors
    /// What the system says; it may be tried again.
    pub async fn clear(&self, which: Which) -> io::Result<()> {
        self.answered(&Ask::Clear(which)).await
    }

    /// Has something done with what tasks are started from, by [`crate::container::serve`].
    ///
    /// # Errors
    /// Where the template is gone.
    pub async fn unpack(&self, work: Work, archive: Option<fs::File>) -> io::Result<UnixStream> {
        self.ask(&Ask::Unpack(work), archive.as_ref()).await
    }

    /// Removes the data directory, with all in it: for an agent of which nothing is to be left.
    ///
    /// # Errors
    /// What the system says.
    pub async fn vanish(&self) -> io::Result<()> {
        self.answered(&Ask::Vanish).await
    }

    async fn answered(&self, asked: &Ask) -> io::Result<()> {
        let mut conversation = self.ask(asked, None).await?;
        answer::<Answer>(&mut conversation).await?.map_err(io::Error::other)
    }

    /// One request, with the file that belongs to it; what is given back is its conversation.
    async fn ask(&self, asked: &Ask, file: Option<&fs::File>) -> io::Result<UnixStream> {
        let request = ask::framed(asked)?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        // What fits is there before it is looked for.
        let there = match io::Write::write(&mut &ours, &request) {
            Ok(there) => there,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        let fds: Vec<_> = [theirs.as_fd()].into_iter().chain(file.map(AsFd::as_fd)).collect();
        self.control
            .async_io(Interest::WRITABLE, || {
                let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                control.push(SendAncillaryMessage::ScmRights(&fds));
                Ok(sendmsg(self.control.as_fd(), &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?)
            })
            .await?;
        let mut ours = UnixStream::from_std(ours)?;
        ours.write_all(&request[there..]).await?;
        Ok(ours)
    }
}

impl Runtime for Template {
    async fn launch(&self, spec: ExecutorSpec) -> Result<Executor, LaunchError> {
        let which = Which::Wasm(spec.number);
        let dir = self.places().dir(which);
        if fs::symlink_metadata(&dir).is_ok() {
            return Err(LaunchError::Used { path: dir });
        }
        let asking = |source| LaunchError::File { step: "asking the template for the executor of", path: dir.clone(), source };
        let mut conversation = self.ask(&Ask::Wasm(Box::new(spec)), None).await.map_err(asking)?;
        // It is closed when the executor begins.
        match answer::<Refusal>(&mut conversation).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(asking(error)),
            Ok((step, path, said)) => return Err(LaunchError::Refused { step, path, said }),
        }
        let connecting = |source| LaunchError::File { step: "connecting to", path: dir.clone(), source };
        self.met(async { meet(connect(&dir).await.map_err(connecting)?, &dir).await }, which, &dir).await
    }

    async fn recover(&self, dir: &Path) -> Result<Recovered, LaunchError> {
        recover(dir).await
    }
}

/// The next message of a conversation.
async fn answer<T: serde::de::DeserializeOwned>(from: &mut UnixStream) -> io::Result<T> {
    let mut header = [0; 4];
    from.read_exact(&mut header).await?;
    let mut bytes = vec![0; ask::length_of(header)?];
    from.read_exact(&mut bytes).await?;
    ask::parse(&bytes)
}

/// What the executor of a process in `dir` was started with, as it wrote it down; `None`: there is no such executor, or it has ended. Blocking, for
/// one small file.
fn spec(dir: &Path) -> Option<ProcessSpec> {
    postcard::from_bytes(&fs::read(dir.join(place::SPEC)).ok()?).ok()
}

/// The first of the ids that the task of the executor in `dir` has to itself; `None` where it has none, or there is no such executor. Blocking, for
/// one small file.
#[must_use]
pub fn ids(dir: &Path) -> Option<u32> {
    spec(dir)?.ids.outside
}

/// The control group of the task of the executor in `dir`; `None`: there is no such executor, or it has ended. Blocking, for one small file.
#[must_use]
pub fn group(dir: &Path) -> Option<String> {
    Some(spec(dir)?.cgroup)
}

/// Whether the executor of a process in `dir` still has something that is to be cleared away. Blocking, for a look.
#[must_use]
pub fn is_left(dir: &Path) -> bool {
    dir.join(place::SPEC).exists()
}
