//! The agent's side: has executors forked, and clears away what they leave.

use super::session::Session;
use super::{Ask, PROGRAM, Request, VERSION};
use crate::executor::client::{connect, meet};
use crate::executor::{Executor, LaunchError, place, record};
use crate::jail::cgroup::Hierarchies;
use crate::process::ProcessSpec;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// All files in an executor's directory. What says that a control group may be there goes last.
pub(super) const FILES: [&str; 7] =
    [place::SOCKET, place::IDENTITY, place::ERRORS, super::TASK, record::NAMES[0], record::NAMES[1], place::SPEC];
/// How long a task may take until its program begins or a step of its jail fails: a disk of its own is made by then, on a busy machine.
const START_WAIT: Duration = Duration::from_secs(60);

/// A connection to the template: the small process, `skep template`, from which executors are forked. It ends when this is dropped; executors
/// live on.
#[derive(Debug)]
pub struct Template {
    home: PathBuf,
    stream: Mutex<UnixStream>,
    /// Buried by tokio when it has ended.
    _process: tokio::process::Child,
}

impl Template {
    /// Starts `skep-template` where that lies beside `binary`, else `binary template HOME`. `home` is an absolute path that everyone may pass; the output of tasks can be read there
    /// ([`crate::executor::read_log`]), and is removed by whoever started this. Within a tokio runtime.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(binary: &Path, home: &Path) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let beside = binary.with_file_name(PROGRAM);
        let mut command = if beside.is_file() {
            let mut command = tokio::process::Command::new(beside);
            command.arg("template").arg(home).arg(VERSION).arg(binary);
            command
        } else {
            let mut command = tokio::process::Command::new(binary);
            command.arg("template").arg(home);
            command
        };
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).env_clear().current_dir("/");
        let process = command.spawn()?;
        Ok(Self { home: home.into(), stream: Mutex::new(UnixStream::from_std(ours)?), _process: process })
    }

    /// Starts a task, in an executor of its own with the new directory `dir` (absolute; its parents passable for every user). What is given
    /// back holds the task as live; the events that follow are `Started` and `Ended`, or `Ended` alone. A step that fails ends the task as
    /// `Rejected`, with the step and what the system said. Once its end was forgotten ([`crate::executor::Commands::forget`]) the executor
    /// ends.
    ///
    /// # Errors
    /// [`LaunchError`]: it was not started, and nothing of it is left running.
    pub async fn launch(&self, dir: &Path, spec: &ProcessSpec) -> Result<Executor, LaunchError> {
        let file = |step| move |source| LaunchError::File { step, path: dir.to_owned(), source };
        let made = fs::DirBuilder::new().mode(0o700).create(dir);
        made.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => LaunchError::Used { path: dir.into() },
            _ => file("making")(error),
        })?;
        let bound = place::reach(dir).and_then(|(_held, path)| UnixListener::bind(path)).map_err(file("binding the socket in"))?;
        let request = Request { home: self.home.clone(), dir: dir.into(), spec: spec.clone() };
        self.ask(&Ask::Executor(Box::new(request)), bound).await.map_err(file("asking the template for the executor of"))?;
        let met = async { meet(connect(dir).await.map_err(file("connecting to"))?, dir).await };
        let failure = match timeout(START_WAIT, met).await {
            Ok(Ok(executor)) => return Ok(executor),
            Ok(Err(LaunchError::File { .. })) => LaunchError::Died { said: place::last_words(dir), path: dir.into() },
            Ok(Err(other)) => other,
            Err(_) => LaunchError::Silent { path: dir.into(), pid: 0 },
        };
        let dir = dir.to_owned();
        let cleared = tokio::task::spawn_blocking(move || place::end(&dir).and_then(|()| clear(&dir))).await;
        if let Ok(Err(error)) = cleared {
            tracing::warn!(%error, "what an executor left that did not start could not be cleared away");
        }
        Err(failure)
    }

    /// Starts a program beside a task that lives. What is given back speaks as [`session`](super::session) says.
    ///
    /// # Errors
    /// Where the template is gone.
    pub async fn session(&self, session: Session) -> io::Result<UnixStream> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        self.ask(&Ask::Session(session), theirs).await?;
        UnixStream::from_std(ours)
    }

    /// One request, with the socket that belongs to it.
    async fn ask(&self, ask: &Ask, socket: impl AsFd) -> io::Result<()> {
        let request = postcard::to_stdvec(ask).map_err(io::Error::other)?;
        let length = u32::try_from(request.len()).map_err(io::Error::other)?.to_be_bytes();
        let mut stream = self.stream.lock().await;
        let sent = stream
            .async_io(Interest::WRITABLE, || {
                let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                let sockets = [socket.as_fd()];
                control.push(SendAncillaryMessage::ScmRights(&sockets));
                Ok(sendmsg(stream.as_fd(), &[IoSlice::new(&length)], &mut control, SendFlags::NOSIGNAL)?)
            })
            .await?;
        // The descriptor has gone with the first byte.
        stream.write_all(&length[sent..]).await?;
        stream.write_all(&request).await
    }
}

/// The first of the ids that the task of the executor in `dir` has to itself, as the executor wrote it down; `None` where it has none, or there
/// is no such executor. Blocking, for one small file.
#[must_use]
pub fn ids(dir: &Path) -> Option<u32> {
    postcard::from_bytes::<Request>(&fs::read(dir.join(place::SPEC)).ok()?).ok()?.spec.ids.outside
}

/// The control group of the task of the executor in `dir`, as the executor wrote it down; `None`: there is no such executor, or it has ended.
/// Blocking, for one small file.
#[must_use]
pub fn group(dir: &Path) -> Option<String> {
    Some(postcard::from_bytes::<Request>(&fs::read(dir.join(place::SPEC)).ok()?).ok()?.spec.cgroup)
}

/// Clears away what the executor of `dir` leaves: ends what still runs of its task where the executor itself is dead, and removes its control
/// groups, its disk, and the directory. Its output stays in the template's home. To be called once the end was forgotten and the connection has
/// ended, or what was left was read. Blocking. Doing it twice does no harm.
///
/// # Errors
/// What the system says; it may be tried again.
pub fn clear(dir: &Path) -> io::Result<()> {
    let spec = match fs::read(dir.join(place::SPEC)) {
        Ok(bytes) => postcard::from_bytes::<Request>(&bytes).ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    super::Witness::of_task(dir).end()?;
    if let Some(request) = spec {
        hierarchies().remove(&request.spec.cgroup).map_err(io::Error::other)?;
        if request.spec.limits.disk_bytes_max > 0 {
            remove(&request.disk())?;
        }
    }
    for name in FILES {
        remove(&dir.join(name))?;
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What this machine has, looked at once.
fn hierarchies() -> &'static Hierarchies {
    static FOUND: std::sync::OnceLock<Hierarchies> = std::sync::OnceLock::new();
    FOUND.get_or_init(Hierarchies::find)
}
