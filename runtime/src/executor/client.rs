//! The client's side: finds an executor again, tells it batches and hears batches.

use super::wire::{self, Answer, Ask, BATCH_BYTES_MAX, Command, Hello, HelloReply, KEY_BYTES_MAX, PLAN_BYTES_MAX, Told, Used};
use super::{ExecutorEvent, Held, LaunchError, Recovered, TellError, place, record};
use crate::messages::WAITING_BYTES_MAX;
use crate::{Key, Launch};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

/// How long a running executor may take to answer, or a dying one to die.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
const DEATH_LOOK_EVERY: Duration = Duration::from_millis(10);
/// While so many bytes wait for an executor that does not read them, messages to tasks are dropped.
const UNREAD_BYTES_MAX: usize = 1 << 20;
/// A start without its ports, at its longest.
const START_BYTES_MAX: usize = KEY_BYTES_MAX + 15;
const PORT_BYTES_MAX: usize = 3;

/// A connection to a living executor. It serves one client; a newer one takes its place.
#[derive(Debug)]
pub struct Executor {
    /// What it said about itself.
    pub hello: HelloReply,
    /// What it held when this connection was made; later changes come as events.
    pub held: Held,
    /// To tell it.
    pub commands: Commands,
    /// To hear it.
    pub events: Events,
}

/// The half that tells. What is queued leaves with [`Commands::flush`].
#[derive(Debug)]
pub struct Commands {
    stream: OwnedWriteHalf,
    queued: BytesMut,
}

/// The half that hears.
pub struct Events {
    frames: FramedRead<OwnedReadHalf, LengthDelimitedCodec>,
    used: Option<Box<dyn Fn(Vec<Used>) + Send>>,
    answers: Option<Box<dyn Fn(Vec<Answer>) + Send>>,
}

impl fmt::Debug for Events {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Events").field("frames", &self.frames).finish_non_exhaustive()
    }
}

/// Finds the executor of a directory again: the living one with all that it holds, or what a dead one left.
///
/// # Errors
/// [`LaunchError`] where the directory cannot be read, or a living executor does not answer or speaks another version.
pub async fn recover(dir: &Path) -> Result<Recovered, LaunchError> {
    let file = |step| move |source| LaunchError::File { step, path: dir.to_owned(), source };
    let identity = place::Identity::read(dir).map_err(file("reading the identity in"))?;
    let met = match timeout(ANSWER_WAIT, async { meet(connect(dir).await.map_err(file("connecting to"))?, dir).await }).await {
        Ok(Ok(executor)) => return Ok(Recovered::Living(executor)),
        // Nobody listens, or it went away while it was met.
        Ok(Err(LaunchError::File { .. })) => None,
        Ok(Err(other)) => Some(other),
        Err(_) => None,
    };
    if let Some(error) = met {
        return Err(error);
    }
    if let Some(identity) = identity {
        let dead = async {
            while identity.lives() {
                tokio::time::sleep(DEATH_LOOK_EVERY).await;
            }
        };
        timeout(ANSWER_WAIT, dead).await.map_err(|_| LaunchError::Silent { path: dir.to_owned(), pid: identity.pid })?;
    }
    record::remains(dir).map(Recovered::Dead).map_err(file("reading the record in"))
}

pub(super) async fn connect(dir: &Path) -> io::Result<UnixStream> {
    let (_held, path) = place::reach(dir)?;
    UnixStream::connect(path).await
}

/// Says hello, hears it answered, and all that it holds. [`LaunchError::File`] where the connection ends.
pub(super) async fn meet(stream: UnixStream, dir: &Path) -> Result<Executor, LaunchError> {
    let gone = |source| LaunchError::File { step: "talking to", path: dir.to_owned(), source };
    let garbled = |error: io::Error| LaunchError::Garbled { path: dir.to_owned(), reason: error.to_string() };
    let (read, stream) = stream.into_split();
    let mut commands = Commands { stream, queued: BytesMut::new() };
    wire::encode(&Hello { version: wire::VERSION }, &mut commands.queued).map_err(gone)?;
    commands.flush().await.map_err(|error| gone(io::Error::other(error)))?;
    let mut events = Events { frames: FramedRead::new(read, wire::codec()), used: None, answers: None };
    let closed = || gone(io::ErrorKind::UnexpectedEof.into());
    let first = events.frames.next().await.ok_or_else(closed)?.map_err(gone)?;
    // The version alone can be read whatever follows it.
    let (found, _) = postcard::take_from_bytes::<u16>(&first).map_err(|error| garbled(io::Error::other(error)))?;
    if found != wire::VERSION {
        return Err(LaunchError::Version { path: dir.to_owned(), found, expected: wire::VERSION });
    }
    let hello = wire::decode(&first).map_err(garbled)?;
    let mut held = Held::default();
    loop {
        let frame = events.frames.next().await.ok_or_else(closed)?.map_err(gone)?;
        match wire::decode(&frame).map_err(garbled)? {
            Told::Held { part, more } => {
                held.live.extend(part.live);
                held.ended.extend(part.ended);
                if !more {
                    return Ok(Executor { hello, held, commands, events });
                }
            }
            Told::Events(_) | Told::Used(_) | Told::Answers(_) => return Err(garbled(io::Error::other("events before all that is held"))),
        }
    }
}

impl Commands {
    /// Queues: start these. A key that it holds already is left as it is.
    ///
    /// # Errors
    /// [`TellError::TooLong`]: the plan fits no frame; nothing is queued.
    pub fn launch(&mut self, launch: Launch) -> Result<(), TellError> {
        self.launch_as(launch, Command::Launch)
    }

    /// Queues the same of fenced tasks: they are ended at `until_ns`, by [`super::lease::boot_ns`], unless they are renewed before.
    ///
    /// # Errors
    /// As [`Self::launch`].
    pub fn launch_fenced(&mut self, launch: Launch, until_ns: u64) -> Result<(), TellError> {
        self.launch_as(launch, |launch| Command::LaunchFenced(launch, until_ns))
    }

    fn launch_as(&mut self, launch: Launch, command: impl Fn(Box<Launch>) -> Command) -> Result<(), TellError> {
        let bytes = postcard::to_stdvec(&launch.plan).map_err(io::Error::other)?.len();
        let ports = launch.starts.iter().map(|start| start.ports.len()).max().unwrap_or(0);
        let start_bytes = START_BYTES_MAX + ports * PORT_BYTES_MAX;
        if bytes > PLAN_BYTES_MAX || start_bytes > BATCH_BYTES_MAX {
            return Err(TellError::TooLong { bytes: bytes.max(start_bytes), max: PLAN_BYTES_MAX });
        }
        for starts in launch.starts.chunks(BATCH_BYTES_MAX / start_bytes) {
            let part = Launch { plan: launch.plan.clone(), starts: starts.to_vec() };
            self.queue(&command(Box::new(part)));
        }
        Ok(())
    }

    /// Queues: ask these to stop, and end them after `grace_ms`. Their exit is `Killed`, whatever their code.
    pub fn stop(&mut self, keys: Vec<Key>, grace_ms: u64) {
        keys.chunks(BATCH_BYTES_MAX / KEY_BYTES_MAX).for_each(|keys| self.queue(&Command::Stop { keys: keys.to_vec(), grace_ms }));
    }

    /// Queues: the leases of these hold until `until_ns`, by [`super::lease::boot_ns`], where they are not over yet.
    pub fn renew(&mut self, keys: Vec<Key>, until_ns: u64) {
        keys.chunks(BATCH_BYTES_MAX / KEY_BYTES_MAX).for_each(|keys| self.queue(&Command::Renew { keys: keys.to_vec(), until_ns }));
    }

    /// Queues what its framework says to a task; false where that was dropped: the executor does not read, or it is longer than a task may be told.
    pub fn message(&mut self, key: Key, bytes: Bytes) -> bool {
        let fits = bytes.len() <= WAITING_BYTES_MAX && self.queued.len() <= UNREAD_BYTES_MAX;
        if fits {
            self.queue(&Command::Message { key, bytes });
        }
        fits
    }

    /// Queues a question of whether a wasm task is well; false where that cannot be: the executor does not read, or it fits no frame.
    pub fn ask(&mut self, ask: Ask) -> bool {
        let bytes = postcard::to_stdvec(&ask).map_or(usize::MAX, |bytes| bytes.len());
        let fits = bytes <= PLAN_BYTES_MAX && self.queued.len() <= UNREAD_BYTES_MAX;
        if fits {
            self.queue(&Command::Ask(Box::new(ask)));
        }
        fits
    }

    /// Queues: forget how these ended. Their output stays until newer output needs the room.
    pub fn forget(&mut self, keys: Vec<Key>) {
        keys.chunks(BATCH_BYTES_MAX / KEY_BYTES_MAX).for_each(|keys| self.queue(&Command::Forget(keys.to_vec())));
    }

    /// Queues: take no new tasks, and end once none is held.
    pub fn retire(&mut self) {
        self.queue(&Command::Retire);
    }

    /// Queues: tell what wasm tasks use now, to whom [`Events::hear_used`] named.
    pub fn ask_usage(&mut self) {
        self.queue(&Command::Usage);
    }

    /// Queues: end now, and all tasks with it.
    pub fn quit(&mut self) {
        self.queue(&Command::Quit);
    }

    fn queue(&mut self, command: &Command) {
        wire::encode(command, &mut self.queued).expect("cut to fit a frame above");
    }

    /// Sends what is queued. May be cancelled: the rest leaves with the next call.
    ///
    /// # Errors
    /// [`TellError::Gone`]: the connection ended; recover the directory.
    pub async fn flush(&mut self) -> Result<(), TellError> {
        while !self.queued.is_empty() {
            self.stream.write_buf(&mut self.queued).await?;
        }
        Ok(())
    }
}

impl Events {
    /// The next batch; `None`: the connection ended, because the executor died or another client came. Recover the directory then. May be
    /// cancelled.
    pub async fn next(&mut self) -> Option<Vec<ExecutorEvent>> {
        loop {
            match wire::decode(&self.frames.next().await?.ok()?) {
                Ok(Told::Events(events)) => return Some(events),
                Ok(Told::Used(used)) => self.used.iter().for_each(|hear| hear(used.clone())),
                Ok(Told::Answers(answers)) => self.answers.iter().for_each(|hear| hear(answers.clone())),
                _ => return None,
            }
        }
    }

    /// Has `hear` called with what tasks use, whenever it comes while the next batch is waited for.
    pub fn hear_used(&mut self, hear: impl Fn(Vec<Used>) + Send + 'static) {
        self.used = Some(Box::new(hear));
    }

    /// Has `hear` called with answers to questions, whenever they come while the next batch is waited for.
    pub fn hear_answers(&mut self, hear: impl Fn(Vec<Answer>) + Send + 'static) {
        self.answers = Some(Box::new(hear));
    }
}
