//! What an executor and its one client say to each other over a unix stream: frames of a big-endian `u32` length and a postcard message.
//! The client says [`Hello`], the executor [`HelloReply`] and all that it holds ([`Told::Held`]); then [`Command`]s, in order, and
//! batches of events.

use super::{ExecutorEvent, Held};
use crate::{Key, Launch, Metering, Plan, Start};
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io;
use tokio_util::codec::{Encoder, LengthDelimitedCodec};

/// The version of these messages. An executor speaks the one it was built with to its end.
pub const VERSION: u16 = 2;
/// Most bytes of a frame; checked before anything is allocated.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Most bytes of a plan, so that it and some starts fit a frame.
pub(super) const PLAN_BYTES_MAX: usize = 512 << 10;
/// What the starts, keys or ends of one frame may take, at their longest.
pub(super) const BATCH_BYTES_MAX: usize = 256 << 10;
/// The longest form of a key.
pub(super) const KEY_BYTES_MAX: usize = 19;
/// The longest form of an end or another event: a key, a reason or a note of up to 512 bytes, and numbers.
pub(super) const EVENT_BYTES_MAX: usize = 640;

/// The first frame of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`] of the client.
    pub version: u16,
}

/// The first frame of an executor. Only ever extended at its end; `version` stays first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloReply {
    /// [`VERSION`] of the executor. Where it differs from the client's, nothing follows.
    pub version: u16,
    /// Its process.
    pub pid: u32,
    /// How it counts instructions; `None`: its task is a process.
    pub metering: Option<Metering>,
    /// Most tasks it holds at once.
    pub tasks_max: u32,
    /// How many of them run at once; the others wait for a place.
    pub places: u32,
    /// What holds it in less than it should: sentences for people.
    pub weaknesses: Vec<String>,
}

/// What a client tells: one in a frame, several frames in a write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Start these. A key that is held already is left as it is.
    Launch(Box<Launch>),
    /// Ask these to stop, and end them after a grace.
    Stop {
        /// Which.
        keys: Vec<Key>,
        /// Milliseconds until it is done by force; 0: at once.
        grace_ms: u64,
    },
    /// Forget how these ended.
    Forget(Vec<Key>),
    /// Take no new tasks, and end once none is held.
    Retire,
    /// End now, and all tasks with it.
    Quit,
    /// Tell what tasks use now: [`Told::Used`]. Of no use where the task is a process, which the kernel tells of.
    Usage,
    /// As `Launch`, fenced: they are ended at this moment, by [`super::lease::boot_ns`], unless a `Renew` came before.
    LaunchFenced(Box<Launch>, u64),
    /// The leases of these hold until then, where they are not over yet.
    Renew {
        /// Which.
        keys: Vec<Key>,
        /// Until when, by [`super::lease::boot_ns`].
        until_ns: u64,
    },
    /// Its framework says this to a task: dropped where it is not held or takes no messages.
    Message {
        /// To which.
        key: Key,
        /// What.
        bytes: Bytes,
    },
    /// Ask whether a task is well that runs: answered once, with [`Told::Answers`], where it is wasm.
    Ask(Box<Ask>),
}

/// A question of whether a wasm task is well: an export of its program, called in an instance of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Given back with the answer.
    pub number: u64,
    /// The task's plan, with the limits of the question.
    pub plan: Plan,
    /// The task.
    pub start: Start,
    /// What is called.
    pub export: String,
    /// Milliseconds that it may take.
    pub wait_ms: u64,
}

/// Most questions that an executor answers at once; what is over is answered as failed.
pub const ASKS_MAX: usize = 512;

/// What came of a question: its number, and why the task is not well, for people.
pub type Answer = (u64, Result<(), String>);

/// What a wasm task uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Which.
    pub key: Key,
    /// Time on a thread until now, in microseconds; where metering is by fuel without its first turn.
    pub cpu_us: u64,
    /// Bytes of its linear memories now.
    pub memory_bytes: u64,
}

/// Most tasks that one executor tells the use of.
pub const USED_MAX: usize = 4_096;

/// What an executor tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// A part of all that it holds, right after [`HelloReply`].
    Held {
        /// The part.
        part: Held,
        /// Another part follows.
        more: bool,
    },
    /// What happened.
    Events(Vec<ExecutorEvent>),
    /// What tasks use that run: of many, those that used most since it was told last, then those that have most, at most [`USED_MAX`].
    Used(Vec<Used>),
    /// Answers to [`Command::Ask`].
    Answers(Vec<Answer>),
}

/// Frames of at most [`FRAME_BYTES_MAX`].
pub(super) fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(FRAME_BYTES_MAX).new_codec()
}

/// Appends the frame of `message`.
pub(super) fn encode<T: Serialize>(message: &T, buffer: &mut BytesMut) -> io::Result<()> {
    let body = postcard::to_stdvec(message).map_err(io::Error::other)?;
    codec().encode(Bytes::from(body), buffer)
}

/// The message in a frame's body.
pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} bytes behind a message", rest.len()))),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}
